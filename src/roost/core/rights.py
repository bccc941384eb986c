"""The machine of rights: one for each service and node, for all its partitions.

It is told of the view, of what other nodes' machines say, of time, and of commands that have ended; it answers with
messages to send and with what the service should do. `claims.py`, `transfer.py` and `healing.py` hold what is said
between nodes; here is the one rule that decides what each partition needs next, `_look_at`, applied after every event
to every partition that the event touched.

Invariants: see `tenure.py`; the machine never looks at a partition without need, so that an idle service costs one
digest every `exchange_seconds`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from roost.core import claims, healing, receiving, transfer
from roost.core.claims import Answer, Ask
from roost.core.healing import Digest, Kept, Leftover, Table, Unkept
from roost.core.items import Merge
from roost.core.tenure import NO_RIGHT, Book, Effect, Held, Right, Role, Slot
from roost.core.transfer import (
    Accepted,
    Cede,
    Chunk,
    Declined,
    Free,
    Offer,
    Received,
    Refused,
    Taken,
    Withdrawn,
)

__all__ = ["Drained", "Event", "Heard", "Message", "NotHosting", "Rights", "Ticked", "Viewed"]

Message = (
    Ask
    | Answer
    | Leftover
    | Kept
    | Unkept
    | Held
    | Digest
    | Table
    | Offer
    | Accepted
    | Refused
    | Chunk
    | Received
    | Cede
    | Taken
    | Declined
    | Withdrawn
    | Free
)
"""What the machines of two nodes say to each other. Lost messages are said again; repeated ones do no harm."""


class Viewed(msgspec.Struct, frozen=True):
    """The members have changed."""

    live: tuple[int, ...]
    """Uids of all members that are not down and have not left, this one among them, sorted."""
    gone: tuple[int, ...]
    """Uids of members known to be down or to have left, sorted. Whoever is in neither is not known yet."""
    hosts: tuple[int, ...]
    """Those of the live that are known to host the service, sorted."""
    primaries: tuple[int, ...]
    """The uid that should execute each partition; 0 where the ring is empty."""
    joined: bool
    """This node is a full member: before, it claims nothing."""
    crashed: tuple[int, ...] = ()
    """Those of the gone that are down, have not left, and hosted the service: what they knew may be lost, sorted."""


class Heard(msgspec.Struct, frozen=True):
    """Another node's machine has said something."""

    uid: int
    message: Any


class Drained(msgspec.Struct, frozen=True):
    """After `Stop`: no command of the partition runs."""

    partition: int


class NotHosting(msgspec.Struct, frozen=True):
    """That node has no such service."""

    uid: int


class Ticked(msgspec.Struct, frozen=True):
    """Time has passed; `now` says how much."""


Event = Viewed | Heard | Drained | NotHosting | Ticked

EXCHANGE_SECONDS = 2.0
"""A digest goes to the next host this often."""
FULL_CHECK_STEPS = 100
"""Every so many steps that are checked, all partitions are."""


class Rights:
    """All partitions of one service on one node."""

    def __init__(
        self,
        me: int,
        partitions: int,
        *,
        merge: Merge | None = None,
        chunk_bytes: int = 64 * 1024,
        transfers_max: int = 16,
        drain_seconds: float = 2.0,
    ) -> None:
        self.book = Book(me, partitions, merge, chunk_bytes, transfers_max)
        self.book.drain_seconds = drain_seconds
        self.slots = self.book.slots
        self._exchange_at = 0.0
        self._last_shown = me
        self._looked_at: dict[int, None] = {}
        self._unchecked_steps = 0

    def step(self, event: Event, now: float) -> list[Effect]:
        """Take one event in; returns what is to be done, in order."""
        book = self.book
        book.now = now
        self._looked_at.clear()
        if isinstance(event, Heard):
            self._hear(event.uid, event.message)
        elif isinstance(event, Ticked):
            self._tick()
        elif isinstance(event, Drained):
            transfer.drained(book, book.slots[event.partition])
        elif isinstance(event, Viewed):
            self._view(event)
        else:
            for slot in book.slots:
                claims.without(book, slot, event.uid)
        self._settle()
        effects, book.effects = book.effects, []
        return effects

    def elsewhere(self, partition: int, epoch: int) -> Right | None:
        """Where a command belongs whose sender knows of `epoch`; None: here, now or once the slot `executes`.

        A sender that knows an older epoch of ours is told the new one first: what it sent to an earlier holder must
        not be overtaken. One that knows a newer epoch than we do comes before the right itself, and waits here.
        """
        book, slot = self.book, self.slots[partition]
        right, role = slot.right, slot.role
        if role is Role.HOLDING or role is Role.MOVING:
            return right if 0 < epoch < right.epoch else None
        if role is Role.CEDING:
            assert slot.outgoing is not None
            return slot.outgoing.right
        live = book.is_live(right.holder)
        if role is Role.ABSENT:
            return right if live else Right(right.epoch, 0)
        return right if role is Role.AWAITING and live and epoch <= right.epoch else None

    def count(self, *roles: Role) -> int:
        """How many partitions are in one of these roles here."""
        return sum(slot.role in roles for slot in self.slots)

    def left_to_hand_over(self) -> list[int]:
        """The partitions that would be lost with this node: what it still holds, or has items of."""
        busy = (Role.HOLDING, Role.MOVING, Role.CEDING)
        return [slot.partition for slot in self.slots if slot.role in busy or slot.items.items]

    def check(self) -> None:
        """Assert the invariants."""
        self.book.check()

    def check_step(self) -> None:
        """Assert the invariants of what the last step looked at; now and then those of everything, which is slow."""
        self._unchecked_steps += 1
        if self._unchecked_steps >= FULL_CHECK_STEPS:
            self._unchecked_steps = 0
            self.check()
            return
        for partition in self._looked_at:
            self.book.check_slot(self.slots[partition])

    def _view(self, view: Viewed) -> None:
        book = self.book
        gone = [uid for uid in book.live if uid not in view.live]
        came = [uid for uid in view.hosts if uid not in book.hosts and uid != book.me]
        book.live = dict.fromkeys((*view.live, book.me))
        book.gone = dict.fromkeys(view.gone)
        book.hosts = dict.fromkeys(view.hosts)
        book.primaries = list(view.primaries)
        book.joined = view.joined
        book.crashed = view.crashed
        for slot in book.slots:
            book.touch(slot)
            for uid in gone:
                claims.without(book, slot, uid)
        for uid in came:
            healing.tell_what_i_hold(book, uid)

    def _hear(self, uid: int, message: Any) -> None:
        if isinstance(message, Digest):
            healing.digest_shown(self.book, uid, message.digest)
        elif isinstance(message, Table):
            healing.told(self.book, uid, message)
        elif 0 <= message.partition < len(self.slots):
            HEARD[type(message)](self.book, self.slots[message.partition], uid, message)

    def _tick(self) -> None:
        book = self.book
        for partition in list(book.active):
            slot = book.slots[partition]
            book.touch(slot)
            claims.resend(book, slot)
            transfer.tick(book, slot)
            healing.resend(book, slot)
        if book.now >= self._exchange_at:
            self._exchange_at = book.now + EXCHANGE_SECONDS
            others = sorted(uid for uid in book.hosts if uid != book.me)
            if others:
                self._last_shown = next((uid for uid in others if uid > self._last_shown), others[0])
                book.send(self._last_shown, Digest(book.digest))

    def _settle(self) -> None:
        book = self.book
        looks = 0
        while book.touched or book.waiting:
            while book.touched:
                looks += 1
                assert looks <= 20 * len(book.slots) + 20, "partitions do not come to rest"
                partition = next(iter(book.touched))
                del book.touched[partition]
                self._looked_at[partition] = None
                self._look_at(book.slots[partition])
            transfer.start_waiting(book)
            if not book.touched:
                return

    def _look_at(self, slot: Slot) -> None:
        """What does this partition need next?"""
        book, role = self.book, slot.role
        primary = book.primaries[slot.partition]
        if slot.incoming is not None and not book.is_live(slot.incoming.source):
            receiving.source_is_gone(book, slot)
        if role is Role.HOLDING:
            if book.is_live(primary) and primary in book.hosts:
                book.waiting[slot.partition] = None
        elif role is Role.MOVING:
            assert slot.outgoing is not None
            if slot.outgoing.target != primary or not book.is_live(primary):
                transfer.target_is_gone(book, slot)
        elif role is Role.CEDING:
            assert slot.outgoing is not None
            if not book.is_live(slot.outgoing.target):
                transfer.target_is_gone(book, slot)
        elif primary != book.me or not book.joined:
            if role is not Role.ABSENT:
                book.enter(slot, Role.ABSENT)
        else:
            self._look_at_mine(slot)
        self._look_at_items(slot)
        if slot.role in (Role.ABSENT, Role.HOLDING) and slot.handing is None and slot.incoming is None:
            book.active.pop(slot.partition, None)
        else:
            book.active[slot.partition] = None
        if slot.retry_at > book.now and (slot.items or slot.role is Role.HOLDING):
            book.active[slot.partition] = None

    def _look_at_mine(self, slot: Slot) -> None:
        """The ring says that this node should hold it, and it does not."""
        book = self.book
        known = book.is_expected(slot.right.holder)
        rival = book.is_expected(slot.promised[1])
        patient = book.now < slot.since + book.patience_seconds
        if slot.claim is not None:
            if known and not slot.claim.doubting:
                book.enter(slot, Role.AWAITING)
        elif slot.role is Role.AWAITING and (slot.incoming is not None or ((known or rival) and patient)):
            return
        elif slot.role is Role.ABSENT and (slot.incoming is not None or known):
            book.enter(slot, Role.AWAITING)
        else:
            claims.start(book, slot, doubting=known)

    def _look_at_items(self, slot: Slot) -> None:
        """Items that do not belong here go to the holder."""
        book = self.book
        if slot.handing is not None and not book.is_live(slot.handing.target):
            slot.handing = None
        holder = slot.right.holder
        if (
            slot.handing is None
            and slot.items.items
            and slot.incoming is None
            and slot.role in (Role.ABSENT, Role.AWAITING)
            and book.is_live(holder)
            and book.now >= slot.retry_at
        ):
            healing.hand_over(book, slot, holder)


def _leftover(book: Book, slot: Slot, uid: int, message: Leftover) -> None:
    if healing.keep(book, slot, uid, message):
        claims.gathered(book, slot, uid)


def _held(book: Book, slot: Slot, uid: int, message: Held) -> None:
    book.learn(slot, message.right)


def _withdrawn(book: Book, slot: Slot, uid: int, message: Withdrawn) -> None:
    receiving.withdrawn(slot, uid, message)
    book.touch(slot)


def _free(book: Book, slot: Slot, uid: int, message: Free) -> None:
    if slot.role is Role.AWAITING and slot.incoming is None and slot.right.holder in (uid, NO_RIGHT.holder):
        claims.start(book, slot, doubting=True)


HEARD: dict[type, Callable[[Book, Slot, int, Any], None]] = {
    Ask: claims.asked,
    Answer: claims.answered,
    Leftover: _leftover,
    Kept: healing.kept,
    Unkept: healing.unkept,
    Held: _held,
    Offer: receiving.offered,
    Accepted: transfer.accepted,
    Refused: transfer.refused,
    Chunk: receiving.chunk_came,
    Received: transfer.received,
    Cede: receiving.ceded,
    Taken: transfer.taken,
    Declined: transfer.declined,
    Withdrawn: _withdrawn,
    Free: _free,
}
