"""The sender's end of flow control: how much of each kind every receiver has not read yet.

A sender may have `inbox_messages_max` messages of one kind unread at one receiver, and waits beyond that until the
receiver, as its readers take them, gives credit. See `inbox.py` for the other end.

A link that breaks may take messages and credit with it, so with each new stream both ends count anew. The receiver
says of every kind how many it has unread as the stream begins; the sender adds what it has sent on that stream, which
includes what waited for the link. Until it hears so, it goes on with what it had counted. The kind `ENVELOPES` is said
last: of kinds that were not named by then, nobody has an inbox there, and nothing is unread.

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

    __slots__ = ("is_told", "outstanding", "sent", "stream", "waiting")

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self.sent = 0
        """On this stream."""
        self.outstanding = 0
        self.is_told = False
        """Whether the receiver has said how many it had unread as this stream began."""
        self.waiting: deque[asyncio.Future[None]] = deque()

    def renew(self, peer: Peer, kind: str) -> None:
        """A new stream has begun."""
        self.stream = peer.stream_out
        self.sent = _carried(peer, kind)
        self.is_told = False

    def restart(self, unread: int, limit: int) -> None:
        """So many of the streams before this one are unread."""
        self.is_told = True
        self.outstanding = self.sent + unread
        self.wake(limit)

    def give(self, count: int, limit: int) -> None:
        """The receiver has read so many."""
        self.outstanding = max(0, self.outstanding - count)
        self.wake(limit)

    def give_back(self, limit: int) -> None:
        """One whose room was taken was not sent."""
        self.sent = max(0, self.sent - 1)
        self.give(1, limit)

    def wake(self, limit: int) -> None:
        room = limit - self.outstanding
        while self.waiting and room > 0:
            future = self.waiting.popleft()
            if not future.done():
                self.outstanding += 1  # on behalf of whoever wakes, so that nobody else takes its place
                self.sent += 1
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
        if window.waiting or window.outstanding >= self._limit:
            await self._room(peer, kind, window, self._seconds)
        else:
            window.outstanding += 1
            window.sent += 1
        try:
            if peer.held_bytes:
                await peer.room(self._seconds)
            peer.cast(service, method, body)
        except BaseException:
            window.give_back(self._limit)
            raise

    def post_now(self, peers: Sequence[Peer], kind: str, service: str, method: str, body: msgspec.Raw) -> None:
        """Send to all of them at once, or raise Overloaded and send to none."""
        windows = [self._window(peer, kind) for peer in peers]
        for peer, window in zip(peers, windows, strict=True):
            if window.waiting or window.outstanding >= self._limit:
                raise self._full(peer, kind)
        for window in windows:
            window.outstanding += 1
            window.sent += 1
        self._cast(list(zip(peers, windows, strict=True)), service, method, body)

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
                    if window.waiting or window.outstanding >= self._limit:
                        await self._room(peer, kind, window, until - self._loop.time())
                    else:
                        window.outstanding += 1
                        window.sent += 1
                    taken.append((peer, window))
                    if peer.held_bytes:
                        await peer.room(until - self._loop.time())
                except Unreachable:
                    continue
        except BaseException:
            self._give_back(taken)
            raise
        there = [(peer, window) for peer, window in taken if self._windows.get((peer.uid, kind)) is window]
        self._cast(there, service, method, body)

    def _cast(self, taken: list[tuple[Peer, _Window]], service: str, method: str, body: msgspec.Raw) -> None:
        """Send to those whose room is taken. A peer whose outbound buffer is full ends it, with `may_have_run`."""
        for position, (peer, _) in enumerate(taken):
            try:
                peer.cast(service, method, body)
            except RoostError as error:
                self._give_back(taken[position:])
                error.may_have_run = position > 0  # the peers before it have theirs
                raise

    def _give_back(self, taken: list[tuple[Peer, _Window]]) -> None:
        for _, window in taken:
            window.give_back(self._limit)

    def _window(self, peer: Peer, kind: str) -> _Window:
        window = self._windows.get((peer.uid, kind))
        if window is None or window.stream != peer.stream_out:
            window = self._renewed(peer, kind, window)
        return window

    def _renewed(self, peer: Peer, kind: str, window: _Window | None) -> _Window:
        """The window, if there was none or a new stream has begun."""
        if window is None:
            window = self._windows[(peer.uid, kind)] = _Window(peer.stream_out)
        else:
            window.renew(peer, kind)
        return window

    async def _room(self, peer: Peer, kind: str, window: _Window, seconds: float) -> None:
        """Wait until the receiver has read some; the room is taken on return."""
        future: asyncio.Future[None] = self._loop.create_future()
        window.waiting.append(future)
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError as error:
            if future.done() and not future.cancelled():
                window.give_back(self._limit)
            raise self._full(peer, kind) from error
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                window.give_back(self._limit)
            raise
        finally:
            if future in window.waiting:
                window.waiting.remove(future)
        if self._windows.get((peer.uid, kind)) is not window:
            raise Unreachable(f"{peer.name} is no longer there, or this node has stopped", node=peer.name)

    def _full(self, peer: Peer, kind: str) -> Overloaded:
        what = f"{kind} messages" if kind else "envelopes"
        text = f"{peer.name} has {self._limit} {what} of this node unread: wait, or read faster there"
        return Overloaded(text, what="inbox_messages_max", limit=self._limit)

    # what the receivers say

    def credit(self, peer: Peer, kind: str, count: int) -> bool:
        """So many more were read. False: this node has sent none."""
        if (peer.uid, kind) not in self._windows:
            return False
        self._window(peer, kind).give(count, self._limit)
        return True

    def restart(self, peer: Peer, kind: str, unread: int, stream: int) -> None:
        """So many were unread when that stream began."""
        if stream != peer.stream_out:
            return  # a newer one has begun meanwhile, and will be answered as well
        if unread or (peer.uid, kind) in self._windows:
            self._window(peer, kind).restart(unread, self._limit)
        if kind == ENVELOPES:
            self._nothing_unread(peer)

    def _nothing_unread(self, peer: Peer) -> None:
        """At that receiver, of all kinds that it has not named on this stream."""
        for uid, kind in self._windows:
            if uid == peer.uid and not (window := self._window(peer, kind)).is_told:
                window.restart(0, self._limit)

    def forget(self, uid: int | None = None) -> None:
        """The receiver is gone, or all of them are: whoever waits for room there hears so."""
        for key in [key for key in self._windows if uid in (None, key[0])]:
            window = self._windows.pop(key)
            window.give(window.outstanding + len(window.waiting), len(window.waiting) + 1)
