"""The receiver's end of messages: inboxes, and the accounts of what every sender has unread in them.

A sender may have `inbox_messages_max` messages of one kind unread here, and as many envelopes of all kinds; credit goes
back to it as readers take them. See `windows.py` for the other end, and `messaging.py`, which joins the two.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import GenericAlias
from typing import Any, Generic, TypeVar

import msgspec

from roost.messages import Envelope
from roost.wire.values import decoder

__all__ = ["Account", "Accounts", "Inbox"]

M = TypeVar("M")
GiveCredit = Callable[[int, str, int], None]
"""Called with the sender's uid, the kind, and by how many more it may send."""
WindowOf = Callable[[int], int]
"""How many a sender, by its uid, sends ahead by its own settings; 0 if that is not known."""


class Account:
    """What one sender has unread of one kind."""

    __slots__ = ("_accounts", "is_gone", "limit", "taken", "uid", "unread", "window")

    def __init__(self, accounts: Accounts, uid: int, window: int) -> None:
        self._accounts = accounts
        self.uid = uid
        self.window = min(accounts.limit, window)
        """So many the sender has unread at most, by what both ends want."""
        self.limit = max(accounts.limit, window)
        """More are refused. Before its first link a sender knows only its own limit, and nothing of that is lost."""
        self.unread = 0
        self.taken = 0
        """Read since credit was last given."""
        self.is_gone = False

    def read(self, windowed: bool) -> None:
        """A reader took one. `windowed`: its sender counts it against its window."""
        self.unread -= 1
        if windowed:
            self.taken += 1
            if self.taken * 2 >= self.window:
                taken, self.taken = self.taken, 0
                self._accounts.give_credit(self.uid, self._accounts.kind, taken)
        if self.is_gone and not self.unread:
            self._accounts.remove(self)


class Accounts:
    """The accounts of one kind."""

    def __init__(self, kind: str, limit: int, give_credit: GiveCredit, window_of: WindowOf | None = None) -> None:
        self.kind = kind
        self.limit = limit
        self.give_credit = give_credit
        self._window_of = window_of
        self._by_uid: dict[int, Account] = {}

    def of(self, uid: int) -> Account:
        account = self._by_uid.get(uid)
        if account is None:
            window = self._window_of(uid) if self._window_of is not None else 0
            account = self._by_uid[uid] = Account(self, uid, window or self.limit)
        account.is_gone = False
        return account

    def restart(self, uid: int) -> int:
        """The sender counts from nothing again; how many of its messages are still unread."""
        account = self._by_uid.get(uid)
        if account is None:
            return 0
        account.taken = 0
        return account.unread

    def forget(self, uid: int) -> None:
        """The sender is gone. What it has unread still counts, should it come back before that is read."""
        account = self._by_uid.get(uid)
        if account is not None:
            account.taken = 0
            account.is_gone = True
            if not account.unread:
                self.remove(account)

    def remove(self, account: Account) -> None:
        self._by_uid.pop(account.uid, None)

    def end(self) -> None:
        """Give no credit any more."""
        self.give_credit = _give_none


def _give_none(uid: int, kind: str, count: int) -> None:
    """The node has stopped."""


class Inbox(Generic[M]):
    """The messages of one kind, in a bounded queue: an async iterator of envelopes, or `await anext(inbox)` for one.

    Several readers share the work. When the node stops, readers get what is there, and then the end.
    """

    def __init__(
        self, kind: str, body: Any, limit: int, give_credit: GiveCredit, window_of: WindowOf | None = None
    ) -> None:
        self.kind = kind
        self.body_type = body
        self.accounts = Accounts(kind, limit, give_credit, window_of)
        """Of messages; envelopes are counted together for all inboxes."""
        self._decode: Callable[[Any], M] = decoder(body).decode
        self._decode_envelope: Callable[[Any], tuple[int, M]] = decoder(GenericAlias(tuple, (int, body))).decode
        self._letters: deque[tuple[Account, Envelope[M], bool]] = deque()
        self._readers: deque[asyncio.Future[None]] = deque()
        self._ended = False

    def __repr__(self) -> str:
        return f"<Inbox of {self.kind or 'all envelopes'}: {len(self._letters)} unread>"

    def __len__(self) -> int:
        return len(self._letters)

    def put(self, uid: int, source: str, body: msgspec.Raw, *, windowed: bool) -> bool:
        """Take a message. False: that sender has its fill unread already, and the message was not taken.

        `windowed`: the sender counts it against its window, and gets credit once it is read.
        """
        accounts = self.accounts
        account = accounts.of(uid)
        if account.unread >= account.limit:
            return False
        letter = Envelope(self._decode(body), source)
        account.unread += 1
        self._letters.append((account, letter, windowed))
        self._wake_one()
        return True

    def put_envelope(self, account: Account, source: str, body: msgspec.Raw) -> None:
        """Take what came by envelope; there must be room in its sender's account."""
        number, value = self._decode_envelope(body)
        account.unread += 1
        self._letters.append((account, Envelope(value, source, number), True))
        self._wake_one()

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
        account, letter, windowed = self._letters.popleft()
        account.read(windowed)
        return letter

    def _wake_one(self) -> None:
        while self._readers:
            reader = self._readers.popleft()
            if not reader.done():
                reader.set_result(None)
                return

    def end(self) -> None:
        self._ended = True
        self.accounts.end()
        while self._readers:
            self._wake_one()
