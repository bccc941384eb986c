"""The yardstick: an echo of calls with nothing but the loop and the codec.

One frame of many envelopes a tick and direction, one typed decoding a frame, synchronous handlers, a dict of futures.
No deadlines, no bounds, no back-pressure, no membership, no errors, no trust: what roost does beyond this is what its
distance from it pays for.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from typing import cast

import msgspec

__all__ = ["BareEcho", "connect", "serve"]

READ_BYTES = 256 * 1024

_LENGTH = struct.Struct(">I")


class Envelope(msgspec.Struct, array_like=True, gc=False):
    """A call, or the answer to it."""

    is_answer: bool
    id: int
    """0: no answer is wanted."""
    target: str
    method: str
    payload: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Envelope]).decode


class BareEcho(asyncio.BufferedProtocol):
    """Either end of the connection."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, asyncio.Future[bytes]] = {}
        self._out: list[Envelope] = []
        self._scheduled = False
        self._last_id = 0
        self._view = memoryview(bytearray(READ_BYTES))
        self._filled = 0
        self._casts = 0
        self._handlers = {"echo": self._echo, "size": self._size, "cast": self._count, "casts": self._counted}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        for future in self._pending.values():
            if not future.done():
                future.set_exception(ConnectionResetError("the echo has gone"))

    def call(self, payload: bytes, method: str = "echo") -> asyncio.Future[bytes]:
        """Send `payload`; the future is what `method` makes of it, by default its echo."""
        self._last_id = number = self._last_id + 1
        future = self._pending[number] = self._loop.create_future()
        self._send(Envelope(False, number, "actor-1", method, payload))
        return future

    def size(self, payload: bytes) -> asyncio.Future[bytes]:
        """Send `payload`; the future is its size."""
        return self.call(payload, "size")

    def cast(self, payload: bytes) -> None:
        """Send `payload`, and hear nothing of it."""
        self._send(Envelope(False, 0, "actor-1", "cast", payload))

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

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to read into: behind what is there of a frame that is not complete yet."""
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled = size = self._filled + nbytes
        view = self._view
        at = 0
        self._scheduled = True  # what is sent meanwhile leaves below
        needed = 0
        while size - at >= _LENGTH.size:
            needed = _LENGTH.size + _LENGTH.unpack_from(view, at)[0]
            if needed > size - at:
                break
            self._take(_decode(view[at + _LENGTH.size : at + needed]))
            at += needed
        self._filled = size - at
        if needed > len(view) // 2:
            self._view = memoryview(bytearray(4 * needed))
        if at or self._view is not view:
            self._view[: self._filled] = bytes(view[at:size])
        self._flush()

    def _take(self, envelopes: list[Envelope]) -> None:
        pending = self._pending
        for envelope in envelopes:
            if envelope.is_answer:
                future = pending.pop(envelope.id)
                if not future.done():
                    future.set_result(envelope.payload)
            else:
                answer = self._handlers[envelope.method](envelope.payload)
                if envelope.id:
                    self._send(Envelope(True, envelope.id, "", "", answer))

    def _echo(self, payload: bytes) -> bytes:
        return payload

    def _size(self, payload: bytes) -> bytes:
        return len(payload).to_bytes(8, "big")

    def _count(self, payload: bytes) -> bytes:
        self._casts += 1
        return b""

    def _counted(self, payload: bytes) -> bytes:
        """How many casts have come since the last time."""
        count, self._casts = self._casts, 0
        return count.to_bytes(8, "big")


async def serve(tls: ssl.SSLContext | None, listening: socket.socket | None = None) -> tuple[asyncio.Server, int]:
    """Listen on a free port of loopback, or at a socket that listens already; its port, 0 for one of another family."""
    loop = asyncio.get_running_loop()
    if listening is not None:
        return await loop.create_server(BareEcho, sock=listening, ssl=tls), 0
    server = await loop.create_server(BareEcho, "127.0.0.1", 0, ssl=tls)
    port: int = server.sockets[0].getsockname()[1]
    return server, port


async def connect(port: int, tls: ssl.SSLContext | None, connected: socket.socket | None = None) -> BareEcho:
    """The calling end, over a socket of its own or one that is connected already."""
    loop = asyncio.get_running_loop()
    if connected is not None:
        _, protocol = await loop.create_connection(BareEcho, sock=connected, ssl=tls)
        return protocol
    name = "localhost" if tls is not None else None
    _, protocol = await loop.create_connection(BareEcho, "127.0.0.1", port, ssl=tls, server_hostname=name)
    return protocol
