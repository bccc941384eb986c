"""The sender's end of flow control: how much of each kind every receiver has not read yet.

A sender may have `inbox_messages_max` messages of one kind unread at one receiver, by its own settings or by the
receiver's, whichever is less, and waits beyond that until the receiver, as its readers take them, gives credit. See
`inbox.py` for the other end.

A link that breaks may take messages and credit with it, so with each new stream both ends count anew. The receiver
says of every kind how many it has unread as the stream begins; the sender adds what it has sent on that stream, which
includes what waited for the link. Until it hears so, it goes on with what it had counted. The kind `ENVELOPES` is said
last: of kinds that were not named by then, nobody has an inbox there, and nothing is unread.

Who has taken room and waits for the link counts on every stream until it sends.

Invariant: `outstanding` counts what was sent or is about to be, each waiter that was woken among it, never below zero.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import msgspec

from roost.errors import Overloaded, RoostError, Unreachable
from roost.net.peer import Peer

__all__ = ["ENVELOPE", "ENVELOPES", "INBOX", "Windows"]

INBOX, ENVELOPE = "inbox", "envelope"
"""The services that messages and envelopes are cast to."""
ENVELOPES = ""
"""The kind that all envelopes to one receiver count as, whatever is in them: they are one queue, in one order."""


class _Window:
    """What one receiver has not yet read of one kind from this node."""

    __slots__ = ("is_told", "limit", "outstanding", "reserved", "sent", "stream", "waiting")

    def __init__(self, stream: int, limit: int) -> None:
        self.stream = stream
        self.limit = limit
        """The lesser of what both ends want, once there has been a link."""
        self.sent = 0
        """On this stream."""
        self.reserved = 0
        """Of senders that have room and have not used it yet; they will, on whatever stream there is then."""
        self.outstanding = 0
        self.is_told = False
        """Whether the receiver has said how many it had unread as this stream began."""
        self.waiting: deque[asyncio.Future[None]] = deque()

    def renew(self, peer: Peer, kind: str, limit: int) -> None:
        """A new stream has begun."""
        self.stream = peer.stream_out
        self.limit = limit
        self.sent = _carried(peer, kind)
        self.is_told = False

    def restart(self, unread: int) -> None:
        """So many of the streams before this one are unread."""
        self.is_told = True
        self.outstanding = self.sent + self.reserved + unread
        self.wake()

    def give(self, count: int) -> None:
        """The receiver has read so many."""
        self.outstanding = max(0, self.outstanding - count)
        self.wake()

    def give_back(self) -> None:
        """One whose room was taken was not sent."""
        self.reserved -= 1
        self.give(1)

    def reserve(self) -> None:
        """Take room for one."""
        self.outstanding += 1
        self.reserved += 1

    def use(self) -> None:
        """One whose room was taken is sent."""
        self.reserved -= 1
        self.sent += 1

    def wake(self) -> None:
        self.wake_up_to(self.limit - self.outstanding)

    def wake_up_to(self, room: int) -> None:
        while self.waiting and room > 0:
            future = self.waiting.popleft()
            if not future.done():
                self.reserve()  # on behalf of whoever wakes, so that nobody else takes its place
                room -= 1
                future.set_result(None)


def _carried(peer: Peer, kind: str) -> int:
    """How many of a kind waited for the link and were sent as this stream began."""
    if kind == ENVELOPES:
        return sum(count for (service, _), count in peer.carried.items() if service == ENVELOPE)
    return peer.carried[INBOX, kind]


class Windows:
    """The windows of one node, and the sending that they allow."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int, seconds: float) -> None:
        self._loop = loop
        self._limit = limit
        self._seconds = seconds
        self._windows: dict[tuple[int, str], _Window] = {}

    async def post(self, peer: Peer, kind: str, service: str, method: str, body: msgspec.Raw) -> None:
        """Send as soon as there is room. Raises Overloaded, DeadlineExceeded, Unreachable: nothing was sent then."""
        window = self._windows.get((peer.uid, kind))
        if window is None or window.stream != peer.stream_out:
            window = self._renewed(peer, kind, window)
        if window.waiting or window.outstanding >= window.limit:
            await self._room(peer, kind, window, self._seconds)
        else:
            window.reserve()
        try:
            if peer.held_bytes:
                await peer.room(self._seconds)
            if window.stream != peer.stream_out:
                self._renewed(peer, kind, window)
            peer.cast(service, method, body)
            window.use()
        except BaseException:
            window.give_back()
            raise

    def post_now(self, peers: Sequence[Peer], kind: str, service: str, method: str, body: msgspec.Raw) -> None:
        """Send to all of them at once, or raise Overloaded and send to none."""
        windows = [self._window(peer, kind) for peer in peers]
        for peer, window in zip(peers, windows, strict=True):
            if window.waiting or window.outstanding >= window.limit:
                raise self._full(peer, kind)
        for window in windows:
            window.reserve()
        self._cast(list(zip(peers, windows, strict=True)), kind, service, method, body)

    async def post_all(self, peers: Sequence[Peer], kind: str, service: str, method: str, body: msgspec.Raw) -> None:
        """Send to all of them once all have room. Who becomes unreachable meanwhile is left out.

        Raises Overloaded or DeadlineExceeded if one of them has no room in time: nothing was sent to anybody then.
        """
        until = self._loop.time() + self._seconds
        taken: list[tuple[Peer, _Window]] = []
        try:
            for peer in peers:
                window = self._window(peer, kind)
                try:
                    if window.waiting or window.outstanding >= window.limit:
                        await self._room(peer, kind, window, until - self._loop.time())
                    else:
                        window.reserve()
                    taken.append((peer, window))
                    if peer.held_bytes:
                        await peer.room(until - self._loop.time())
                except Unreachable:
                    continue
        except BaseException:
            self._give_back(taken)
            raise
        there = [(peer, window) for peer, window in taken if self._windows.get((peer.uid, kind)) is window]
        self._cast(there, kind, service, method, body)

    def _cast(self, taken: list[tuple[Peer, _Window]], kind: str, service: str, method: str, body: msgspec.Raw) -> None:
        """Send to those whose room is taken. A peer whose outbound buffer is full ends it, with `may_have_run`."""
        for position, (peer, window) in enumerate(taken):
            if window.stream != peer.stream_out:
                self._renewed(peer, kind, window)
            try:
                peer.cast(service, method, body)
                window.use()
            except RoostError as error:
                self._give_back(taken[position:])
                error.may_have_run = position > 0  # the peers before it have theirs
                raise

    def _give_back(self, taken: list[tuple[Peer, _Window]]) -> None:
        for _, window in taken:
            window.give_back()

    def _window(self, peer: Peer, kind: str) -> _Window:
        window = self._windows.get((peer.uid, kind))
        if window is None or window.stream != peer.stream_out:
            window = self._renewed(peer, kind, window)
        return window

    def _renewed(self, peer: Peer, kind: str, window: _Window | None) -> _Window:
        """The window, if there was none or a new stream has begun."""
        if window is None:
            window = self._windows[(peer.uid, kind)] = _Window(peer.stream_out, self._limit_at(peer))
        else:
            window.renew(peer, kind, self._limit_at(peer))
        return window

    def _limit_at(self, peer: Peer) -> int:
        return min(self._limit, peer.inbox_messages_max or self._limit)

    async def _room(self, peer: Peer, kind: str, window: _Window, seconds: float) -> None:
        """Wait until the receiver has read some; the room is taken on return."""
        future: asyncio.Future[None] = self._loop.create_future()
        window.waiting.append(future)
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError as error:
            if future.done() and not future.cancelled():
                window.give_back()
            raise self._full(peer, kind) from error
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                window.give_back()
            raise
        finally:
            if future in window.waiting:
                window.waiting.remove(future)
        if self._windows.get((peer.uid, kind)) is not window:
            raise Unreachable(f"{peer.name} is no longer there, or this node has stopped", node=peer.name)

    def _full(self, peer: Peer, kind: str) -> Overloaded:
        what = f"{kind} messages" if kind else "envelopes"
        limit = self._limit_at(peer)
        text = f"{peer.name} has {limit} {what} of this node unread: wait, or read faster there"
        return Overloaded(text, what="inbox_messages_max", limit=limit)

    # what the receivers say

    def credit(self, peer: Peer, kind: str, count: int) -> bool:
        """So many more were read. False: this node has sent none."""
        if (peer.uid, kind) not in self._windows:
            return False
        self._window(peer, kind).give(count)
        return True

    def restart(self, peer: Peer, kind: str, unread: int, stream: int) -> None:
        """So many were unread when that stream began."""
        if stream != peer.stream_out:
            return  # a newer one has begun meanwhile, and will be answered as well
        if unread or (peer.uid, kind) in self._windows:
            self._window(peer, kind).restart(unread)
        if kind == ENVELOPES:
            self._nothing_unread(peer)

    def _nothing_unread(self, peer: Peer) -> None:
        """At that receiver, of all kinds that it has not named on this stream."""
        for uid, kind in self._windows:
            if uid == peer.uid and not (window := self._window(peer, kind)).is_told:
                window.restart(0)

    def forget(self, uid: int | None = None) -> None:
        """The receiver is gone, or all of them are: whoever waits for room there hears so."""
        for key in [key for key in self._windows if uid in (None, key[0])]:
            window = self._windows.pop(key)
            window.wake_up_to(len(window.waiting))
