"""The machine of rights: one for each service and node, for all its partitions.

It is told of the view, of what other nodes' machines say, of time, of what was written, and of commands that have
ended; it answers with messages to send and with what the service should do. What is said between nodes is in
`transfer.py` and `receiving.py` (feeding copies), `copies.py` (the record and acknowledgements), `cutover.py` (moves),
`claims.py` and `healing.py`; here is the one rule that decides what each partition needs next, `_look_at`, applied
after every event to every partition that the event touched.

Invariants: see `tenure.py`; the machine never looks at a partition without need, so that an idle service costs one
digest every `exchange_seconds`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from roost.core import claims, copies, cutover, healing, receiving, transfer
from roost.core.book import Book
from roost.core.claims import Answer, Ask
from roost.core.cutover import Cede, Declined, Taken
from roost.core.healing import Audit, Digest, Free, Inquiry, Kept, Leftover, Table, Unkept
from roost.core.items import Merge
from roost.core.tenure import EXECUTING, Changed, Effect, GivenUp, Held, Right, Role, Slot, Write
from roost.core.transfer import Accepted, Chunk, Offer, Received, Refused, Withdrawn

__all__ = [
    "Collect",
    "Drained",
    "Event",
    "Heard",
    "Message",
    "Missed",
    "NotHosting",
    "Resumed",
    "Rights",
    "Ticked",
    "Viewed",
    "Wrote",
]

Message = (
    Ask
    | Answer
    | Leftover
    | Kept
    | Unkept
    | Held
    | GivenUp
    | Digest
    | Table
    | Inquiry
    | Free
    | Audit
    | Offer
    | Accepted
    | Refused
    | Chunk
    | Received
    | Withdrawn
    | Cede
    | Taken
    | Declined
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
    owners: tuple[tuple[int, ...], ...]
    """Of each partition: the uid that should execute it, then those that should have copies; empty: no ring."""
    joined: bool
    """This node is a full member: before, it claims nothing."""
    crashed: tuple[int, ...] = ()
    """Those of the gone that are down, have not left, and hosted the service: what they knew may be lost, sorted."""
    missed: tuple[int, ...] = ()
    """Those of the crashed that may come back with what they have: no newer run of their name is known."""
    acts: bool = True
    """If there is a split, this side may act."""


class Heard(msgspec.Struct, frozen=True):
    """Another node's machine has said something."""

    uid: int
    message: Any


class Drained(msgspec.Struct, frozen=True):
    """After `Stop`: no command of the partition runs."""

    partition: int


class Wrote(msgspec.Struct, frozen=True):
    """Items of these partitions have been written, and `Rights.wrote` was told of each write."""

    partitions: tuple[int, ...]


class Collect(msgspec.Struct, frozen=True):
    """A round of collecting: drop what was here at the last round already, wherever all copies have it.

    That is the outcomes of requests, and if `tombstones`, these too. Stamps tell the order of writes, not their age:
    a clock may have been wrong.
    """

    tombstones: bool


class Missed(msgspec.Struct, frozen=True):
    """Something that was sent to that node has not arrived."""

    uid: int


class NotHosting(msgspec.Struct, frozen=True):
    """That node has no such service."""

    uid: int


class Ticked(msgspec.Struct, frozen=True):
    """Time has passed; `now` says how much."""


class Resumed(msgspec.Struct, frozen=True):
    """Go on with what the last step left over."""


Event = Viewed | Heard | Drained | Wrote | Collect | Missed | NotHosting | Ticked | Resumed

EXCHANGE_SECONDS = 2.0
"""A digest goes to the next host this often."""
LOOKS_MAX = 256
"""Partitions looked at in one step: a view that concerns thousands must not hold up the loop."""
FULL_CHECK_STEPS = 100
"""Every so many steps that are checked, all partitions are."""
LANDING = (Role.ABSENT, Role.COPY, Role.AWAITING)


class Rights:
    """All partitions of one service on one node.

    `strict`: where acknowledged writes may be on nodes that may come back, nothing is taken over without them.
    `rate_bytes` a second at most fill new copies; 0: no limit.
    """

    def __init__(
        self,
        me: int,
        partitions: int,
        *,
        merge: Merge | None = None,
        chunk_bytes: int = 64 * 1024,
        transfers_max: int = 16,
        drain_seconds: float = 2.0,
        write: Write = "majority",
        strict: bool = False,
        rate_bytes: float = 0.0,
    ) -> None:
        book = self.book = Book(me, partitions, merge, chunk_bytes, transfers_max, write, strict)
        book.drain_seconds = drain_seconds
        book.rate_bytes = book.allowance = rate_bytes
        self.slots = book.slots
        self._exchange_at = 0.0
        self._audited_to = 0
        self._last_shown = me
        self._ticked_at = 0.0
        self._looked_at: dict[int, None] = {}
        self._unchecked_steps = 0

    def step(self, event: Event, now: float) -> list[Effect]:
        """Take one event in; returns what is to be done, in order."""
        book = self.book
        book.now = now
        self._looked_at.clear()
        if isinstance(event, Heard):
            self._hear(event.uid, event.message)
        elif isinstance(event, Wrote):
            for partition in event.partitions:
                transfer.pump_all(book, book.slots[partition])
        elif isinstance(event, Ticked):
            self._tick()
        elif isinstance(event, Drained):
            cutover.drained(book, book.slots[event.partition])
        elif isinstance(event, Viewed):
            self._view(event)
        elif isinstance(event, Missed):
            for partition in book.active:
                transfer.missed(book.slots[partition], event.uid, now)
        elif isinstance(event, Collect):
            self._collect(event)
        elif isinstance(event, NotHosting):
            for slot in book.slots:
                claims.without(book, slot, event.uid)
        self._settle()
        effects, book.effects = book.effects, []
        return effects

    @property
    def unsettled(self) -> bool:
        """The last step has left something over: give it `Resumed`."""
        return bool(self.book.touched)

    def wrote(self, partition: int) -> int:
        """This node has just written items of the partition; returns the write's number.

        It is acknowledged when `slot.acked` has come so far. A `Wrote` must follow before the caller waits.
        """
        return copies.wrote(self.book, self.slots[partition])

    def elsewhere(self, partition: int, epoch: int) -> Right | None:
        """Where a command belongs whose sender knows of `epoch`; None: here, now or once the slot `executes`.

        A sender that knows an older epoch of ours is told the new one first: what it sent to an earlier holder must
        not be overtaken. One that knows a newer epoch than we do comes before the right itself, and waits here.
        """
        book, slot = self.book, self.slots[partition]
        right, role = slot.right, slot.role
        if role in EXECUTING:
            return right if 0 < epoch < right.epoch else None
        if role is Role.CEDING:
            assert slot.cut is not None
            return slot.cut.right
        live = book.is_live(right.holder) and book.is_served(slot)
        if role is Role.ABSENT or role is Role.COPY:
            return right if live else Right(right.epoch, 0)
        return right if role is Role.AWAITING and live and epoch <= right.epoch else None

    def may_read(self, partition: int) -> bool:
        """This node holds the partition, or has a copy that follows its holder."""
        slot = self.slots[partition]
        follows = slot.incoming is not None and self.book.is_copy(slot) and slot.lineage == slot.right.tenure
        return slot.executes or (follows and self.book.acts)

    def unavailable(self, partition: int) -> tuple[int, int] | None:
        """(needed, have) copies, where a command cannot run; (0, 0): this side of a split may not act."""
        slot = self.slots[partition]
        if not self.book.acts:
            return (0, 0)
        if slot.role in EXECUTING and slot.short:
            return (copies.needed_copies(self.book, slot), copies.have_copies(slot))
        return slot.claim.lacking if slot.claim is not None else None

    def needed(self, partition: int) -> int:
        """How many nodes must have a write of this partition, which is held here."""
        return copies.needed_copies(self.book, self.slots[partition])

    def count(self, *roles: Role) -> int:
        """How many partitions are in one of these roles here."""
        return sum(slot.role in roles for slot in self.slots)

    def waiting(self) -> int:
        """How many partitions wait here until nodes that have their copies come back: nobody can say when."""
        book = self.book
        return sum(
            book.strict
            and slot.role in (Role.AWAITING, Role.CLAIMING)
            and not book.is_live(slot.right.holder)
            and any(uid in book.missed for uid in slot.right.copies)
            for slot in self.slots
        )

    def incomplete(self) -> list[int]:
        """The partitions held here whose holder or copies are not those that the ring wants."""
        held = (slot for slot in self.slots if slot.role in EXECUTING)
        book = self.book
        return [
            slot.partition
            for slot in held
            if not copies.is_complete(book, slot) or book.primary(slot) not in (0, book.me)
        ]

    def left_to_hand_over(self) -> list[int]:
        """The partitions that would be lost with this node: what it holds, has a copy of, or has items of."""
        busy = (*EXECUTING, Role.CEDING)
        return [slot.partition for slot in self.slots if slot.role in busy or slot.items or slot.strays is not None]

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
        appeared = [uid for uid in view.live if uid not in book.live]
        came = [uid for uid in view.hosts if uid not in book.hosts and uid != book.me]
        book.live = dict.fromkeys((*view.live, book.me))
        book.gone = dict.fromkeys(view.gone)
        book.hosts = dict.fromkeys(view.hosts)
        book.owners = list(view.owners)
        book.joined = view.joined
        book.crashed, book.missed = view.crashed, view.missed
        acts_again = view.acts and not book.acts
        book.acts = view.acts
        for slot in book.slots:
            book.touch(slot)
            if slot.role in EXECUTING and slot.paused is view.acts:
                slot.paused = not view.acts
                book.effects.append(Changed(slot.partition))
            for uid in appeared:
                claims.ask_also(book, slot, uid)
            for uid in gone:
                claims.without(book, slot, uid)
            if acts_again or (slot.claim is not None and slot.claim.lacking is not None):
                claims.finish_if_complete(book, slot)
        for uid in came:
            healing.tell_what_i_hold(book, uid)

    def _hear(self, uid: int, message: Any) -> None:
        if isinstance(message, Digest):
            healing.digest_shown(self.book, uid, message.digest)
        elif isinstance(message, Table):
            healing.told(self.book, uid, message)
        elif isinstance(message, Audit):
            healing.audited(self.book, uid, message)
        elif 0 <= message.partition < len(self.slots):
            HEARD[type(message)](self.book, self.slots[message.partition], uid, message)

    def _tick(self) -> None:
        book = self.book
        if book.rate_bytes:
            book.allowance += book.rate_bytes * min(book.now - self._ticked_at, 1.0)
            book.allowance = min(book.allowance, book.rate_bytes)
        for partition in list(book.active):
            slot = book.slots[partition]
            if self._is_due(slot):
                book.touch(slot)
            claims.resend(book, slot)
            transfer.tick(book, slot)
            cutover.tick(book, slot)
            healing.resend(book, slot)
        self._ticked_at = book.now
        if book.now >= self._exchange_at:
            self._exchange_at = book.now + EXCHANGE_SECONDS
            others = sorted(uid for uid in book.hosts if uid != book.me)
            if others:
                self._last_shown = next((uid for uid in others if uid > self._last_shown), others[0])
                book.send(self._last_shown, Digest(book.digest))
            self._audited_to = healing.audit(book, self._audited_to)

    def _is_due(self, slot: Slot) -> bool:
        """Has a time come at which this partition is to be looked at again?"""
        now = self.book.now
        if self._ticked_at < slot.retry_at <= now or (slot.refused_at and slot.role in EXECUTING):
            return True
        return slot.role in LANDING and now >= slot.since + self.book.patience_seconds

    def _collect(self, event: Collect) -> None:
        book = self.book
        for slot in book.slots:
            items = slot.items
            if slot.role is not Role.HOLDING or slot.paused or len(items) == items.live:
                continue
            fed = all(uid == book.me or uid in slot.feeds for uid in slot.right.copies) and slot.pending is None
            if not fed or not all(transfer.is_idle(slot, feed) for feed in slot.feeds.values()):
                continue
            until, slot.settled_until = slot.settled_until, items.greatest
            tombstones_until = until if event.tombstones else 0
            if items.collect(tombstones_until) + items.forget_outcomes(until):
                for feed in slot.feeds.values():
                    feed.collect = (tombstones_until, until)
                transfer.pump_all(book, slot)

    def _settle(self) -> None:
        book = self.book
        looks = 0
        while book.touched or book.waiting:
            while book.touched:
                looks += 1
                if looks > LOOKS_MAX:
                    return
                partition = next(iter(book.touched))
                del book.touched[partition]
                self._looked_at[partition] = None
                self._look_at(book.slots[partition])
            transfer.start_waiting(book)
            if not book.touched:
                return

    def _look_at(self, slot: Slot) -> None:
        """What does this partition need next?"""
        book = self.book
        if slot.incoming is not None and not book.is_live(slot.incoming.source):
            slot.incoming = None
        if slot.role in EXECUTING:
            self._look_at_held(slot)
        elif slot.role is Role.CEDING:
            assert slot.cut is not None
            if not book.is_live(slot.cut.target):
                cutover.target_is_gone(book, slot)
        else:
            self._look_at_others(slot)
        healing.look_at_strays(book, slot)
        if self._is_busy(slot):
            book.active[slot.partition] = None
        else:
            book.active.pop(slot.partition, None)

    def _look_at_held(self, slot: Slot) -> None:
        book = self.book
        if slot.paused:
            return
        if slot.refused_at and book.now >= slot.refused_at + book.patience_seconds:
            # A copy has promised to follow another, who has not been heard of: be above that promise.
            if slot.role is Role.MOVING:
                cutover.break_off(book, slot)
            for uid in list(slot.feeds):
                transfer.stop(book, slot, uid)
            book.let_go(slot)
            claims.start(book, slot)
            return
        copies.look_at_copies(book, slot)
        cutover.look_at_move(book, slot)

    def _look_at_others(self, slot: Slot) -> None:
        """This node does not execute it. Should it?"""
        book = self.book
        patient = book.now < slot.since + book.patience_seconds
        if slot.role is Role.CLAIMING:
            found = book.is_served(slot) and book.is_live(slot.right.holder)
            if found or not book.joined or not self._may_claim(slot):
                book.rest(slot)
            return
        book.rest(slot)
        if slot.incoming is not None or not book.joined or not book.acts or book.now < slot.retry_at:
            return
        served, live = book.is_served(slot), book.is_live(slot.right.holder)
        rival = slot.promised > slot.right.tenure and book.is_expected(slot.promised[1])
        if (served or rival) and patient:
            return
        if served and live:
            if slot.role is Role.AWAITING:
                slot.since = book.now
                book.send(slot.right.holder, Inquiry(slot.partition))
        elif claims.is_for_me(book, slot) or (slot.role is Role.AWAITING and not patient):
            claims.start(book, slot)

    def _may_claim(self, slot: Slot) -> bool:
        return slot.right.holder == self.book.me or self.book.resting_role(slot) is not Role.ABSENT

    def _is_busy(self, slot: Slot) -> bool:
        """Has this partition anything to do that time brings about?"""
        if slot.role not in (Role.ABSENT, Role.COPY, Role.HOLDING) or slot.handing is not None or slot.refused_at:
            return True
        if any(not feed.in_step or feed.flight for feed in slot.feeds.values()):
            return True
        if slot.items and slot.known > slot.right.tenure:
            return True
        waits = slot.retry_at > self.book.now
        unserved = slot.role is Role.COPY and not self.book.is_served(slot)
        return unserved or (waits and (bool(slot.items) or slot.strays is not None or slot.role is Role.HOLDING))


def _leftover(book: Book, slot: Slot, uid: int, message: Leftover) -> None:
    if healing.keep(book, slot, uid, message):
        claims.gathered(book, slot, uid)


def _held(book: Book, slot: Slot, uid: int, message: Held) -> None:
    book.learn(slot, message.right)
    if message.right.holder == uid and message.right.tenure == slot.right.tenure:
        slot.since = book.now


def _given_up(book: Book, slot: Slot, uid: int, message: GivenUp) -> None:
    book.unpromise(slot, (message.epoch, uid))


HEARD: dict[type, Callable[[Book, Slot, int, Any], None]] = {
    Ask: claims.asked,
    Answer: claims.answered,
    Leftover: _leftover,
    Kept: healing.kept,
    Unkept: healing.unkept,
    Held: _held,
    GivenUp: _given_up,
    Inquiry: healing.inquired,
    Free: healing.freed,
    Offer: receiving.offered,
    Accepted: transfer.accepted,
    Refused: transfer.refused,
    Chunk: receiving.chunk_came,
    Received: transfer.received,
    Withdrawn: receiving.withdrawn,
    Cede: cutover.ceded,
    Taken: cutover.taken,
    Declined: cutover.declined,
}
