"""The sender's end of flow control: how much of each kind every receiver has not read yet.

A sender may have `inbox_messages_max` messages of one kind unread at one receiver, and waits beyond that until the
receiver, as its readers take them, gives credit. After a link broke, the sender starts from nothing unread and the
receiver tells it how many still are. See `inbox.py` for the other end.

Invariant: `outstanding` counts what was sent or is about to be, each waiter that was woken among it, never below zero.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import msgspec

from roost.errors import Overloaded, RoostError, Unreachable
from roost.net.peer import Peer

__all__ = ["ENVELOPES", "Windows"]

ENVELOPES = ""
"""The kind that all envelopes to one receiver count as, whatever is in them: they are one queue, in one order."""


class _Window:
    """What one receiver has not yet read of one kind from this node."""

    __slots__ = ("outstanding", "stream", "waiting")

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self.outstanding = 0
        self.waiting: deque[asyncio.Future[None]] = deque()

    def give(self, count: int, limit: int) -> None:
        self.outstanding = max(0, self.outstanding - count)
        room = limit - self.outstanding
        while self.waiting and room > 0:
            future = self.waiting.popleft()
            if not future.done():
                self.outstanding += 1  # on behalf of whoever wakes, so that nobody else takes its place
                room -= 1
                future.set_result(None)


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
        try:
            if peer.held_bytes:
                await peer.room(self._seconds)
            peer.cast(service, method, body)
        except BaseException:
            window.give(1, self._limit)
            raise

    def post_now(self, peers: Sequence[Peer], kind: str, service: str, method: str, body: msgspec.Raw) -> None:
        """Send to all of them at once, or raise Overloaded and send to none."""
        windows = [self._window(peer, kind) for peer in peers]
        for peer, window in zip(peers, windows, strict=True):
            if window.waiting or window.outstanding >= self._limit:
                raise self._full(peer, kind)
        for window in windows:
            window.outstanding += 1
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
            window.give(1, self._limit)

    def _window(self, peer: Peer, kind: str) -> _Window:
        window = self._windows.get((peer.uid, kind))
        if window is None or window.stream != peer.stream_out:
            window = self._renewed(peer, kind, window)
        return window

    def _renewed(self, peer: Peer, kind: str, window: _Window | None) -> _Window:
        """The window on a new stream, which starts from nothing unread."""
        if window is None:
            window = self._windows[(peer.uid, kind)] = _Window(peer.stream_out)
        else:
            window.stream = peer.stream_out
            window.give(window.outstanding, self._limit)
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
                window.give(1, self._limit)
            raise self._full(peer, kind) from error
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                window.give(1, self._limit)
            raise
        finally:
            if future in window.waiting:
                window.waiting.remove(future)
        if self._windows.get((peer.uid, kind)) is not window:
            raise Unreachable(f"{peer.name} is gone", node=peer.name)

    def _full(self, peer: Peer, kind: str) -> Overloaded:
        what = f"{kind} messages" if kind else "envelopes"
        text = f"{peer.name} has {self._limit} {what} of this node unread: wait, or read faster there"
        return Overloaded(text, what="inbox_messages_max", limit=self._limit)

    # what the receivers say

    def credit(self, peer: Peer, kind: str, count: int) -> None:
        """So many more were read; below zero, as a new stream begins: so many are still unread."""
        window = self._windows.get((peer.uid, kind))
        if window is None:
            if count >= 0:
                return
            window = self._windows[(peer.uid, kind)] = _Window(peer.stream_out)
        elif window.stream != peer.stream_out:
            window.stream = peer.stream_out
            window.outstanding = 0
        window.give(count, self._limit)

    def forget(self, uid: int) -> None:
        """The receiver is gone: whoever waits for it hears so."""
        for key in [key for key in self._windows if key[0] == uid]:
            window = self._windows.pop(key)
            window.give(window.outstanding + len(window.waiting), len(window.waiting) + 1)
