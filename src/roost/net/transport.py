"""The port every transport implements: ordered, framed links between addresses.

A link is a pipe of frames. Within one link frames arrive whole, in order and at most once; if a frame could not be
delivered, every later one of that link is not delivered either and the link is closed. There is no promise between
two links. Who is at the other end is the handshake's business, one layer up; a transport that encrypts says with
`binding` which certificate the link was bound to.

An owner that raises loses its link and nothing else does: ProtocolError is the other end's fault and logged as a
warning, anything else is a mistake and logged as an error; either is what `closed` is then called with.

A frame handed to `received` is only valid during the call: whoever keeps a part of it makes a copy. What an adapter
must promise in full, and how that is tested: `docs/transports.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["ConnectionRefused", "Link", "LinkOwner", "Transport"]


class ConnectionRefused(Exception):
    """`connect` failed. `refused`: the host answered that nothing listens there, which is a hint that a node died."""

    def __init__(self, message: str, *, refused: bool) -> None:
        super().__init__(message)
        self.refused = refused


class LinkOwner(Protocol):
    """What a link calls, always from the loop and never from within `write`."""

    def received(self, frame: memoryview) -> None:
        """One frame, without its length."""
        ...

    def batch_ended(self) -> None:
        """All that came in one read has been given to `received`: the moment to flush answers."""
        ...

    def writable(self) -> None:
        """`paused` has just become False."""
        ...

    def closed(self, error: Exception | None) -> None:
        """The link is gone; called exactly once. None: closed by this end, or cleanly by the other."""
        ...


class Link(Protocol):
    """One end of a link."""

    remote: str
    """The other end's address as the transport sees it: for people, not for identity."""
    binding: bytes
    """SHA-256 of the server's certificate (DER); empty where nothing encrypts."""
    certified: tuple[str, ...] | None
    """What the other end's certificate is for (hosts, addresses), if it must be for the peer's name; else None."""
    accepted: bool
    """True on the end that was connected to."""
    paused: bool
    """True while the outbound buffer is above its high-water mark. Writing still works, but should stop."""
    frame_bytes_max: int
    """A longer inbound frame closes the link with a ProtocolError, unbuffered. Starts at the handshake's limit."""

    def established(self) -> None:
        """The handshake is done: lift the limits on unproven links (their number, their time).

        The owner calls this once, and then raises `frame_bytes_max` from the handshake's limit to its own.
        """
        ...

    def write(self, frame: bytes, *more: bytes | memoryview) -> None:
        """Queue one frame, given in one part or several. Never blocks; a no-op on a closed link.

        The parts must not change until they have left; they are not copied first.
        """
        ...

    def buffered(self) -> int:
        """Bytes written and not yet given to the network."""
        ...

    def close(self) -> None:
        """Send what is queued, then close."""
        ...

    def abort(self) -> None:
        """Close at once and drop what is queued."""
        ...


class Transport(Protocol):
    """A way to reach other nodes."""

    async def listen(self, bind: str, accept: Callable[[Link], LinkOwner]) -> str:
        """Listen on `bind`; returns the real address (the port, where 0 was asked for). Raises ConfigError."""
        ...

    async def connect(self, address: str, own: Callable[[Link], LinkOwner], *, seconds: float) -> Link:
        """Open a link; `own` gives its owner before anything is received.

        Raises ConnectionRefused; AuthError or VersionSkew if the other end does not want the same kind of link;
        ConfigError if `address` is none.
        """
        ...

    async def close(self) -> None:
        """Stop listening and close every link."""
        ...
