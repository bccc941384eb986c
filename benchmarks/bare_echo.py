"""The yardstick: an echo of calls with nothing but the loop and the codec.

One frame of many envelopes a tick and direction, one typed decoding a frame, a synchronous handler, a dict of futures.
No deadlines, no bounds, no back-pressure, no membership, no errors, no trust: what roost does beyond this is what its
distance from it pays for.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from typing import cast

import msgspec

__all__ = ["BareEcho", "connect", "serve"]

_LENGTH = struct.Struct(">I")


class Envelope(msgspec.Struct, array_like=True, gc=False):
    """A call, or the answer to it."""

    is_answer: bool
    id: int
    target: str
    method: str
    payload: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Envelope]).decode


class BareEcho(asyncio.Protocol):
    """Either end of the connection."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, asyncio.Future[bytes]] = {}
        self._out: list[Envelope] = []
        self._scheduled = False
        self._last_id = 0
        self._kept = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        for future in self._pending.values():
            if not future.done():
                future.set_exception(ConnectionResetError("the echo has gone"))

    def call(self, payload: bytes) -> asyncio.Future[bytes]:
        """Send `payload`; the future is its echo."""
        self._last_id = number = self._last_id + 1
        future = self._pending[number] = self._loop.create_future()
        self._send(Envelope(False, number, "actor-1", "echo", payload))
        return future

    def close(self) -> None:
        self._transport.close()

    def _send(self, envelope: Envelope) -> None:
        self._out.append(envelope)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._out:
            frame = _encode(self._out)
            self._out = []
            self._transport.write(_LENGTH.pack(len(frame)) + frame)

    def data_received(self, data: bytes) -> None:
        if self._kept:
            data = self._kept + data
        view = memoryview(data)
        size = len(data)
        at = 0
        self._scheduled = True  # what is sent meanwhile leaves below
        while size - at >= _LENGTH.size:
            end = at + _LENGTH.size + _LENGTH.unpack_from(data, at)[0]
            if end > size:
                break
            self._take(_decode(view[at + _LENGTH.size : end]))
            at = end
        self._kept = data[at:]
        self._flush()

    def _take(self, envelopes: list[Envelope]) -> None:
        pending = self._pending
        for envelope in envelopes:
            if envelope.is_answer:
                future = pending.pop(envelope.id)
                if not future.done():
                    future.set_result(envelope.payload)
            else:
                self._send(Envelope(True, envelope.id, "", "", echo(envelope.payload)))


def echo(payload: bytes) -> bytes:
    """The handler."""
    return payload


async def serve(tls: ssl.SSLContext | None) -> tuple[asyncio.Server, int]:
    """Listen on a free port of loopback."""
    server = await asyncio.get_running_loop().create_server(BareEcho, "127.0.0.1", 0, ssl=tls)
    port: int = server.sockets[0].getsockname()[1]
    return server, port


async def connect(port: int, tls: ssl.SSLContext | None) -> BareEcho:
    """The calling end."""
    loop = asyncio.get_running_loop()
    name = "localhost" if tls is not None else None
    _, protocol = await loop.create_connection(BareEcho, "127.0.0.1", port, ssl=tls, server_hostname=name)
    return protocol
