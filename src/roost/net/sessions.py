"""One link's life above the transport: handshake, use, good-bye.

A session is `greeting` until both ends have proved themselves, then `open`, then `closing` from the first `Bye`, then
gone. `Bye` says "I send nothing more on this link"; the link is closed once both ends have said it, so nothing that
was on its way is lost. A link that ends without a `Bye` is a hint that the other end died.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from roost.errors import ProtocolError, RoostError, Unreachable
from roost.net.transport import Link
from roost.wire.frame import encode_batch
from roost.wire.handshake import Handshake
from roost.wire.protocol import Bye, Identity

if TYPE_CHECKING:
    from roost.net.peer import Peer

__all__ = ["Session", "SessionOwner"]

log = logging.getLogger("roost.net")

LATENESS_SECONDS = 30.0
"""Of this length are the two windows in which the fastest frame is looked for."""


class SessionOwner:
    """What a session needs of those who keep the links (the registry of peers)."""

    def greeting(self, link: Link, *, initiator: bool) -> Handshake:
        """A fresh handshake for a link."""
        raise NotImplementedError

    def ignores(self, session: Session, identity: Identity) -> bool:
        """Whether the other end, if it is who it says, shall hear nothing, as if a cut were in between."""
        raise NotImplementedError

    def admit(self, session: Session, identity: Identity) -> Peer:
        """The handshake is done; the peer that the link belongs to. Raises a RoostError to refuse it."""
        raise NotImplementedError

    def opened(self, session: Session) -> None:
        """The link may be used from now on."""
        raise NotImplementedError

    def incoming(self, session: Session, frame: memoryview) -> None:
        """A frame of envelopes."""
        raise NotImplementedError

    def lost(self, session: Session, *, expected: bool) -> None:
        """An open link is gone; `expected` if a good-bye was said."""
        raise NotImplementedError


class Lateness:
    """By how much a frame is later than the fastest of the last minute, on one link.

    The two ends' clocks need not agree, only run equally fast, and that for a minute: the least difference between
    them is taken anew all the time.
    """

    __slots__ = ("_before", "_least", "_until")

    def __init__(self) -> None:
        self._least: float | None = None
        self._before = 0.0
        self._until = 0.0

    def of(self, sent_milliseconds: int, now: float) -> float:
        """Milliseconds, never negative. `now` is this end's clock, in seconds."""
        difference = now * 1000 - sent_milliseconds
        if self._least is None:
            self._least = self._before = difference
            self._until = now + LATENESS_SECONDS
        elif now > self._until:
            self._before, self._least = self._least, difference
            self._until = now + LATENESS_SECONDS
        elif difference < self._least:
            self._least = difference
        return difference - min(self._least, self._before)


class Session:
    """A link with a handshake before it and a peer behind it."""

    __slots__ = (
        "_handshake",
        "_owner",
        "bye_heard",
        "bye_said",
        "dialed",
        "frame_bytes_max",
        "lateness",
        "link",
        "peer",
        "ready",
        "used",
    )

    def __init__(self, owner: SessionOwner, link: Link, *, frame_bytes_max: int, dialed: str = "") -> None:
        self._owner = owner
        self.link = link
        self.dialed = dialed
        """The address that was asked for, on the end that connected."""
        self.frame_bytes_max = frame_bytes_max
        self._handshake: Handshake | None = owner.greeting(link, initiator=bool(dialed))
        self.peer: Peer | None = None
        self.ready: asyncio.Future[None] | None = None
        """Whoever opened the link waits here for the handshake; None on the accepting end."""
        self.bye_said = False
        self.bye_heard = False
        self.used = True
        self.lateness = Lateness()

    def __repr__(self) -> str:
        who = self.peer.name if self.peer is not None else "?"
        return f"<Session with {who} at {self.link.remote}{' closing' if self.bye_said or self.bye_heard else ''}>"

    def begin(self, ready: asyncio.Future[None]) -> None:
        """Start the handshake on the end that connected."""
        self.ready = ready
        assert self._handshake is not None
        for frame in self._handshake.start():
            self.link.write(frame)

    def received(self, frame: memoryview) -> None:
        self.used = True
        if self.peer is not None:
            self._owner.incoming(self, frame)
        else:
            self._greet(frame)

    def _greet(self, frame: memoryview) -> None:
        handshake = self._handshake
        if handshake is None:
            return  # refused already; the link is being closed
        try:
            answers = handshake.receive(frame)
            peer = None
            if handshake.done:
                assert handshake.peer is not None
                peer = self._owner.admit(self, handshake.peer)
        except RoostError as error:
            if self._ignored(handshake):
                return
            self._handshake = None
            log.warning("handshake with %s refused: %s", self.link.remote, error)
            self._fail(error)
            self.link.write(handshake.refusal(error))
            self.link.close()
            return
        if self._ignored(handshake):
            return
        for answer in answers:
            self.link.write(answer)
        if peer is not None:
            peer.inbox_messages_max = handshake.theirs.inbox_messages_max
            self._handshake = None
            self.peer = peer
            self.link.established()
            self.link.frame_bytes_max = self.frame_bytes_max
            self._owner.opened(self)
            if self.ready is not None and not self.ready.done():
                self.ready.set_result(None)

    def _ignored(self, handshake: Handshake) -> bool:
        """Be as silent as a cut, if need be. An accepted link ends when the transport's time for handshakes is over."""
        claimed = handshake.claimed
        if claimed is None or not self._owner.ignores(self, claimed):
            return False
        self._handshake = None
        self._fail(Unreachable(f"{claimed.name} is on the blocklist of this node", node=claimed.name))
        if self.dialed:
            self.link.abort()
        return True

    def _fail(self, error: Exception) -> None:
        if self.ready is not None and not self.ready.done():
            self.ready.set_exception(error)

    def batch_ended(self) -> None:
        if self.peer is not None:
            self.peer.flush()

    def writable(self) -> None:
        if self.peer is not None:
            self.peer.resumed(self)

    def say_bye(self, reason: str) -> None:
        """Send nothing more here; close as soon as the other end has said the same."""
        if not self.bye_said:
            self.bye_said = True
            self.link.write(encode_batch([Bye(reason)]))
            if self.bye_heard:
                self.link.close()

    def hear_bye(self) -> None:
        """The other end sends nothing more here."""
        self.bye_heard = True
        if self.bye_said:
            self.link.close()

    def closed(self, error: Exception | None) -> None:
        if self.peer is not None:
            self._owner.lost(self, expected=self.bye_heard or self.bye_said)
            return
        reason = error if isinstance(error, RoostError) else None
        text = "the other end closed the connection during the handshake"
        self._fail(reason or (ProtocolError(f"{text}: {error}") if error else Unreachable(text)))
