"""The first bytes of a TCP connection, at either end, until it is known whether and how to go on.

Each is the connection's protocol for 8 bytes and a refusal at most; then TLS, or the link itself, takes its place.
See `roost.wire.preface` for what is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import msgspec

from roost.errors import AuthError, ProtocolError, RoostError, VersionSkew
from roost.net.transport import ConnectionRefused
from roost.wire.frame import Framer, length_prefix
from roost.wire.handshake import HANDSHAKE_BYTES_MAX, encode_refusal, error_of
from roost.wire.preface import PREFACE_BYTES, check_preface, make_preface, may_be_preface
from roost.wire.protocol import Refusal

__all__ = ["AcceptedPreface", "ConnectingPreface"]

_refusals = msgspec.msgpack.Decoder(Refusal)


class AcceptedPreface(asyncio.Protocol):
    """The accepting end: reads the preface, then answers it or refuses."""

    def __init__(
        self,
        *,
        tls: bool,
        certified: bool,
        made: Callable[[AcceptedPreface], None],
        agreed: Callable[[AcceptedPreface], None],
        failed: Callable[[AcceptedPreface, RoostError | None], None],
    ) -> None:
        self.transport: asyncio.Transport
        self._wanted = {"tls": tls, "certified": certified}
        self._made = made
        self._agreed = agreed
        self._failed = failed
        self._data = b""
        self._over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclasses
        self._made(self)

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        self._data += data
        try:
            if not may_be_preface(self._data) or len(self._data) > PREFACE_BYTES:
                raise ProtocolError("what came first was not the greeting of a roost node")
            if len(self._data) < PREFACE_BYTES:
                return
            check_preface(self._data, **self._wanted)
        except RoostError as error:
            self._over = True
            if isinstance(error, AuthError | VersionSkew):
                refusal = encode_refusal(error)
                self.transport.write(length_prefix(len(refusal)) + refusal)
                self.transport.close()
            else:
                self.transport.abort()
            self._failed(self, error)
            return
        self._over = True
        # The other end may begin with TLS as soon as it is answered, before TLS here is there to read it.
        self.transport.pause_reading()
        self.transport.write(make_preface(**self._wanted))
        self._agreed(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._over = True
        self._failed(self, None)


class ConnectingPreface(asyncio.Protocol):
    """The connecting end: sends the preface; `answered` ends when the other end has agreed, or says why it did not."""

    def __init__(self, *, tls: bool, certified: bool, loop: asyncio.AbstractEventLoop) -> None:
        self.answered: asyncio.Future[None] = loop.create_future()
        self._wanted = {"tls": tls, "certified": certified}
        self._data = b""
        self._framer = Framer(HANDSHAKE_BYTES_MAX)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(make_preface(**self._wanted))

    def data_received(self, data: bytes) -> None:
        if self.answered.done():
            return
        # A refusal begins with its length, of which the first byte is zero.
        refused = (self._data or data)[:1] == b"\0"
        self._data += data[: PREFACE_BYTES + 1]
        try:
            if refused:
                for frame in self._framer.feed(data):
                    raise error_of(_refusals.decode(frame))
                return
            if not may_be_preface(self._data) or len(self._data) > PREFACE_BYTES:
                raise ProtocolError("what came first was not the greeting of a roost node")
            if len(self._data) == PREFACE_BYTES:
                check_preface(self._data, **self._wanted)
                self.answered.set_result(None)
        except (ProtocolError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self.answered.set_exception(ConnectionRefused(f"no roost node listens there: {error}", refused=False))
        except RoostError as error:
            self.answered.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(
                ConnectionRefused(f"it hung up before it answered{f': {exc}' if exc else ''}", refused=False)
            )
