"""One TCP link from the moment its bytes are to be trusted with frames: the fast path of the network.

A link outlives its transports: it is made for a bare TCP connection, TLS may take that over, and then `open` hands it
to its owner. What arrives before that (the other end can be faster to finish TLS) is kept, a few KiB of it, and given
to the owner first. Reading is never paused: a peer that does not read must not keep this node from reading.

Invariants: the owner's `closed` is called exactly once, after everything else; nothing is given to it after `close`
or `abort`; no callback happens within `write`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

from roost.errors import ProtocolError
from roost.net.address import format_address
from roost.net.transport import Link, LinkOwner
from roost.runtime import Runtime
from roost.wire.frame import LENGTH_BYTES, Framer, LargeBuffers, length_prefix
from roost.wire.handshake import HANDSHAKE_BYTES_MAX

__all__ = ["Buffers", "LinkKeeper", "TcpLink", "remote_of"]

log = logging.getLogger("roost.net")

OWN_WRITE_BYTES = 64 * 1024
"""A frame of this size or more is written beside its length, not copied behind it."""
KEPT_BYTES = 32 * 1024 * 1024 - 64 * 1024
"""Just below the greatest block that glibc takes as a hint."""
SMALL_BYTES = 256 * 1024
"""Read at once at most, but for the rest of a large frame."""


class Buffers:
    """What all links of a transport receive into. Each use of `small` ends before the loop reads from another link."""

    def __init__(self) -> None:
        self.small = memoryview(bytearray(SMALL_BYTES))
        self.large = LargeBuffers()
        # Large messages are allocated and freed all the time. By default glibc gives each back to the system, and every
        # new one costs its pages anew: half of the throughput. Once it has seen a block of this size freed it keeps as
        # much (mallopt(3), M_MMAP_THRESHOLD); the block itself is never touched and takes no memory.
        bytes(KEPT_BYTES)


class LinkKeeper(Protocol):
    """Who keeps count of links: the transport."""

    def proven(self, link: TcpLink) -> None:
        """The handshake is done."""
        ...

    def turned_away(self, link: TcpLink, error: Exception) -> None:
        """A connection that has not proved itself is being closed because of `error`: to be logged, within reason."""
        ...

    def gone(self, link: TcpLink) -> None:
        """The connection is closed."""
        ...


class TcpLink(asyncio.BufferedProtocol):
    """A `Link` over TCP, with or without TLS."""

    def __init__(
        self,
        transport: asyncio.Transport,
        keeper: LinkKeeper,
        runtime: Runtime,
        buffers: Buffers,
        *,
        accepted: bool,
        close_seconds: float,
    ) -> None:
        self.remote = remote_of(transport)
        self.binding = b""
        self.certified: tuple[str, ...] | None = None
        self.silent_end: Exception | None = None
        """What it means when the other end hangs up before the handshake is done, without a word."""
        self.accepted = accepted
        self.paused = False
        self.frame_bytes_max = HANDSHAKE_BYTES_MAX
        self.is_proven = False
        self._transport = transport
        self._bare = transport
        self._keeper = keeper
        self._runtime = runtime
        self._close_seconds = close_seconds
        self._framer = Framer(self.frame_bytes_max, buffers.large)
        self._small = buffers.small
        self._owner: LinkOwner | None = None
        self._early = b""
        self._closing = False
        self._gone = False
        self._error: Exception | None = None
        self._closer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = "closed" if self._gone else "closing" if self._closing else "open" if self._owner else "opening"
        return f"<TcpLink {'from' if self.accepted else 'to'} {self.remote} {state}>"

    # life

    def open(
        self,
        transport: asyncio.Transport,
        own: Callable[[Link], LinkOwner],
        *,
        binding: bytes,
        write_bytes_high: int,
    ) -> None:
        """Hand the link to its owner; `transport` is what carries frames from now on. Raises what `own` raises."""
        self._transport = transport
        self.binding = binding
        transport.set_write_buffer_limits(high=write_bytes_high)
        owner = own(self)
        self._owner = owner
        if self._gone:
            owner.closed(self._error)
            return
        if self._early and not self._closing:
            early, self._early = self._early, b""
            self.data_received(early)

    def established(self) -> None:
        self.is_proven = True
        self._keeper.proven(self)

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        # A peer that does not read must not keep the connection for ever.
        self._closer = self._runtime.call_later(self._close_seconds, self._abort_transport)
        self._transport.close()

    def abort(self) -> None:
        self._closing = True
        self._abort_transport()
        if self._owner is None:
            # TLS that has not taken over yet, or not wholly, may swallow the end of the connection.
            self._runtime.loop.call_soon(self.connection_lost, None)

    def fail(self, error: Exception) -> None:
        """Close at once because of `error`, which is logged and given to the owner."""
        if self._gone or self._error is not None:
            return
        if self.is_proven:
            log.warning("link with %s closed: %s", self.remote, error)
        else:
            self._keeper.turned_away(self, error)
        self._error = error
        self.abort()

    def _abort_transport(self) -> None:
        if not self._gone:
            self._transport.abort()

    # out

    def write(self, frame: bytes, *more: bytes | memoryview) -> None:
        if self._closing:
            return
        size = len(frame)
        if more:
            size += sum(map(len, more))
            self._transport.writelines((length_prefix(size) + frame, *more))
            return
        if size < OWN_WRITE_BYTES:
            self._transport.write(length_prefix(size) + frame)
        else:
            self._transport.writelines((length_prefix(size), frame))

    def buffered(self) -> int:
        if self._gone:
            return 0
        size = self._transport.get_write_buffer_size()
        # What TLS has encrypted waits in the transport below it, which TLS does not count.
        return size if self._transport is self._bare else size + self._bare.get_write_buffer_size()

    # in: what the loop calls

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._framer.room() or self._small

    def buffer_updated(self, nbytes: int) -> None:
        framer = self._framer
        if framer.room() is not None:
            frame = framer.filled(nbytes)
        else:
            data = bytes(self._small[:nbytes])
            frame = framer.whole(data) if self._owner is not None else None
            if frame is None:
                self.data_received(data)
                return
        if frame is None or self._closing:
            return
        owner = self._owner
        assert owner is not None
        try:
            owner.received(frame)
            if not self._closing:
                owner.batch_ended()
        except ProtocolError as error:
            self.fail(error)
        except Exception as error:
            self._fail_unexpectedly(error)

    def data_received(self, data: bytes) -> None:
        """Bytes in the order of the stream, however they came."""
        owner = self._owner
        if owner is None:
            self._early += data
            if len(self._early) > HANDSHAKE_BYTES_MAX + LENGTH_BYTES:
                self.fail(ProtocolError("too many bytes before the handshake began"))
            return
        framer = self._framer
        framer.frame_bytes_max = self.frame_bytes_max
        try:
            for frame in framer.feed(data):
                if self._closing:
                    return
                owner.received(frame)
                # The handshake's last frame raises the limit for the one right behind it.
                framer.frame_bytes_max = self.frame_bytes_max
            if not self._closing:
                owner.batch_ended()
        except ProtocolError as error:
            self.fail(error)
        except Exception as error:
            self._fail_unexpectedly(error)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        # TLS may call this from within a write.
        self._runtime.loop.call_soon(self._tell_writable)

    def _tell_writable(self) -> None:
        if self._owner is None or self.paused or self._closing:
            return
        try:
            self._owner.writable()
        except Exception as error:
            self._fail_unexpectedly(error)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._gone:
            return
        self._gone = True
        if self._closing and isinstance(exc, ssl.SSLError):
            exc = None  # the stdlib's TLS complains of what arrives after this end has closed
        elif exc is None and self._framer.partial and not self._closing:
            exc = ConnectionResetError(f"the link with {self.remote} ended in the middle of a frame")
        elif exc is None and not self.is_proven and not self._closing:
            exc = self.silent_end
        self._closing = True
        self._error = self._error or exc
        if self._closer is not None:
            self._closer.cancel()
        self._keeper.gone(self)
        if self._owner is not None:
            try:
                self._owner.closed(self._error)
            except Exception as error:
                log.error("the owner of the link with %s failed: %r", self.remote, error, exc_info=error)

    def _fail_unexpectedly(self, error: Exception) -> None:
        log.error("link with %s closed after an unexpected error: %r", self.remote, error, exc_info=error)
        self._error = self._error or error
        self.abort()


def remote_of(transport: asyncio.Transport) -> str:
    """The other end's address; a connection that is gone already has none."""
    bare = transport.get_extra_info("socket")
    if bare is None:
        return "unknown address"  # uvloop would ask the socket for its name, and has none any more
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple):
        return format_address(name[0], name[1])
    return "this host" if bare.family == socket.AF_UNIX else "unknown address"
