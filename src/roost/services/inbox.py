"""Both ends of flow control for messages: the receiver's inbox of one kind, and the sender's window on it.

A sender may have `inbox_messages_max` messages of one kind unread at one receiver; the inbox gives credit back as its
readers take them. See `messaging.py`, which joins the two.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, TypeVar

import msgspec

from roost.messages import Envelope, Message

__all__ = ["Inbox", "Window"]

M = TypeVar("M", bound=Message)


class Inbox(Generic[M]):
    """The messages of one kind, in a bounded queue. Several readers share the work; ends when the node stops."""

    def __init__(
        self, kind: str, decode: Callable[[Any], M], limit: int, credit: Callable[[int, str, int], None]
    ) -> None:
        self._kind = kind
        self._decode = decode
        self._limit = limit
        self._credit = credit
        self._letters: deque[tuple[int, Envelope[M], bool]] = deque()
        self._readers: deque[asyncio.Future[None]] = deque()
        self._taken: dict[int, int] = {}
        self.unread: dict[int, int] = {}
        """By sender's uid."""
        self._ended = False

    def __repr__(self) -> str:
        return f"<Inbox of {self._kind}: {len(self._letters)} unread>"

    def __len__(self) -> int:
        return len(self._letters)

    def put(self, uid: int, source: str, body: msgspec.Raw, *, windowed: bool) -> bool:
        """False: that sender has its fill unread already, and the message was not taken.

        `windowed`: the sender counts it against its window, and gets credit once it is read.
        """
        unread = self.unread.get(uid, 0)
        if unread >= self._limit:
            return False
        letter = Envelope(self._decode(body), source)
        self.unread[uid] = unread + 1
        self._letters.append((uid, letter, windowed))
        self._wake_one()
        return True

    def __aiter__(self) -> AsyncIterator[Envelope[M]]:
        return self

    async def __anext__(self) -> Envelope[M]:
        while not self._letters:
            if self._ended:
                raise StopAsyncIteration
            reader: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._readers.append(reader)
            try:
                await reader
            except asyncio.CancelledError:
                if reader in self._readers:
                    self._readers.remove(reader)
                elif reader.done() and not reader.cancelled() and self._letters:
                    self._wake_one()
                raise
        uid, letter, windowed = self._letters.popleft()
        self._took(uid, windowed)
        return letter

    def _wake_one(self) -> None:
        while self._readers:
            reader = self._readers.popleft()
            if not reader.done():
                reader.set_result(None)
                return

    def _took(self, uid: int, windowed: bool) -> None:
        left = self.unread[uid] - 1
        if left:
            self.unread[uid] = left
        else:
            del self.unread[uid]
        if not windowed:
            return
        taken = self._taken.get(uid, 0) + 1
        if taken * 2 >= self._limit:
            self._taken.pop(uid, None)
            self._credit(uid, self._kind, taken)
        else:
            self._taken[uid] = taken

    def restart(self, uid: int) -> int:
        """The sender counts from nothing again; how many of its messages are still unread."""
        self._taken.pop(uid, None)
        return self.unread.get(uid, 0)

    def forget(self, uid: int) -> None:
        self._taken.pop(uid, None)

    def end(self) -> None:
        self._ended = True
        while self._readers:
            self._wake_one()


class Window:
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
