"""Moving one partition to the node that the ring wants, while its commands go on: the messages, and the source's end.

    source                                  target
      Offer            ------------------->           the ring says so too?
                       <------------------- Accepted
      Chunk 0, 1, ...  ------------------->           kept aside, merged as they come
                       <------------------- Received  one chunk at a time is under way
      (what changed meanwhile, again, until it fits in one chunk or rounds_max is reached)
      stop, and wait for the running command
      Cede             -------------------> the last changes, and the right of the next epoch
                       <------------------- Taken, or Declined: kept for good, repeated to who asks again

Every message of the source is sent again until it is answered, so a broken link costs time and nothing else; what is
under way is `pending`. Before `Cede` the source can break the move off at any moment and goes on executing, so that a
ring that changes again, a dead target or a command that does not end does no harm. After `Cede` it never executes
under the old epoch again: it waits for the answer; `Declined` lets it go on under a higher epoch; and if the target is
down, it keeps its items for whoever claims. A small partition has no chunks: it takes two round trips, many at once.

`receiving.py` is the target's end. Moves run side by side as long as what each may have under way fits into the budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import msgspec

from roost.core.items import Item, ItemSet
from roost.core.tenure import NO_RIGHT, Book, Handed, Right, Role, Slot, Stop

__all__ = [
    "Accepted",
    "Cede",
    "Chunk",
    "Declined",
    "Free",
    "Offer",
    "Outgoing",
    "Phase",
    "Received",
    "Refused",
    "Taken",
    "Withdrawn",
    "accepted",
    "break_off",
    "declined",
    "drained",
    "received",
    "refused",
    "start_waiting",
    "taken",
    "target_is_gone",
    "tick",
]

ROUNDS_MAX = 8
"""After so many rounds of changes the cut-over comes even if much is left: writers wait for that long."""


class Phase(Enum):
    """How far a move has come."""

    OFFERED = "offered"
    STREAMING = "streaming"
    DRAINING = "draining"
    FLUSHING = "flushing"
    SENT = "sent"


class Offer(msgspec.Struct, frozen=True, array_like=True, tag=9, gc=False):
    """I hold `partition` under `right`, and the ring says you. Will you have it?"""

    partition: int
    move: int
    right: Right


class Accepted(msgspec.Struct, frozen=True, array_like=True, tag=10, gc=False):
    """Send it. `floor`: only a right above this epoch will be taken."""

    partition: int
    move: int
    floor: int


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=11, gc=False):
    """Not now; nothing has changed. `right` is the greatest that I know."""

    partition: int
    move: int
    reason: str
    right: Right


class Withdrawn(msgspec.Struct, frozen=True, array_like=True, tag=17, gc=False):
    """I go on executing; forget what has come."""

    partition: int
    move: int


class Free(msgspec.Struct, frozen=True, array_like=True, tag=18, gc=False):
    """I am on record as the holder and am not any more: claim it."""

    partition: int


class Chunk(msgspec.Struct, frozen=True, array_like=True, tag=12, gc=False):
    """Items, as they were when it was sent."""

    partition: int
    move: int
    number: int
    items: list[Item]


class Received(msgspec.Struct, frozen=True, array_like=True, tag=13, gc=False):
    """That chunk is here."""

    partition: int
    move: int
    number: int


class Cede(msgspec.Struct, frozen=True, array_like=True, tag=14, gc=False):
    """The last chunk, and the right."""

    partition: int
    move: int
    number: int
    items: list[Item]
    right: Right
    collected_until: int


class Taken(msgspec.Struct, frozen=True, array_like=True, tag=15, gc=False):
    """I hold it under that epoch."""

    partition: int
    epoch: int


class Declined(msgspec.Struct, frozen=True, array_like=True, tag=16, gc=False):
    """I have not taken the right of that epoch and never will."""

    partition: int
    epoch: int
    right: Right
    floor: int


@dataclass(slots=True)
class Outgoing:
    """The source's end."""

    target: int
    move: int
    pending: msgspec.Struct | None
    resend_at: float
    phase: Phase = Phase.OFFERED
    keys: list[bytes] | None = None
    position: int = 0
    number: int = 0
    rounds: int = 0
    floor: int = 0
    drain_until: float = 0.0
    right: Right = NO_RIGHT
    """What `Cede` carries."""


def start_waiting(book: Book) -> None:
    """Start moves that wait, as far as the budget goes; one is always allowed."""
    for partition in list(book.waiting):
        slot = book.slots[partition]
        target = book.primaries[partition]
        if slot.role is not Role.HOLDING or not book.is_live(target) or target not in book.hosts:
            del book.waiting[partition]
            continue
        if book.now < slot.retry_at:
            continue
        size = min(slot.items.size_bytes + 24 * len(slot.items) + 64, book.chunk_bytes)
        if book.reserved and book.reserved_bytes + size > book.budget_bytes:
            return
        del book.waiting[partition]
        book.moves += 1
        offer = Offer(partition, book.moves, slot.right)
        slot.outgoing = Outgoing(target, book.moves, None, 0.0)
        slot.items.track()
        book.reserved[partition] = size
        book.reserved_bytes += size
        book.enter(slot, Role.MOVING)
        _send(book, slot.outgoing, offer)


def _send(book: Book, out: Outgoing, message: msgspec.Struct) -> None:
    out.pending = message
    out.resend_at = book.now + book.resend_seconds
    book.send(out.target, message)


def break_off(book: Book, slot: Slot, *, tell: bool = True) -> None:
    """Give the move up before the right is sent, and go on executing."""
    out = slot.outgoing
    assert slot.role is Role.MOVING
    assert out is not None
    if tell and book.is_live(out.target):
        book.send(out.target, Withdrawn(slot.partition, out.move))
    slot.outgoing = None
    slot.stopped = False
    slot.items.untrack()
    book.enter(slot, Role.HOLDING)


def accepted(book: Book, slot: Slot, uid: int, answer: Accepted) -> None:
    """Begin to stream."""
    out = _current(slot, uid, answer.move)
    if out is None:
        # It accepted a repeated offer after it had refused the first: nothing will come.
        book.send(uid, Withdrawn(slot.partition, answer.move))
        return
    if out.phase is not Phase.OFFERED:
        return
    out.floor = answer.floor
    out.phase = Phase.STREAMING
    out.keys = list(slot.items.items)
    if slot.items.fits(out.keys, 0, book.chunk_bytes):
        _cut_over(book, slot, out)
    else:
        _stream(book, slot, out)


def received(book: Book, slot: Slot, uid: int, answer: Received) -> None:
    """Send the next chunk."""
    out = _current(slot, uid, answer.move)
    if out is None or not isinstance(out.pending, Chunk) or out.pending.number != answer.number:
        return
    out.number += 1
    out.pending = None
    if out.phase is Phase.STREAMING:
        _stream(book, slot, out)
    elif out.phase is Phase.FLUSHING:
        _flush(book, slot, out)


def _current(slot: Slot, uid: int, move: int) -> Outgoing | None:
    out = slot.outgoing
    return out if out is not None and (out.target, out.move) == (uid, move) else None


def _stream(book: Book, slot: Slot, out: Outgoing) -> None:
    assert out.keys is not None
    if out.position == len(out.keys):
        out.keys, out.position = slot.items.take_changed(), 0
        out.rounds += 1
        if out.rounds > ROUNDS_MAX or slot.items.fits(out.keys, 0, book.chunk_bytes):
            _cut_over(book, slot, out)
            return
    chunk, out.position = slot.items.chunk(out.keys, out.position, book.chunk_bytes)
    _send(book, out, Chunk(slot.partition, out.move, out.number, chunk))


def _cut_over(book: Book, slot: Slot, out: Outgoing) -> None:
    out.phase = Phase.DRAINING
    out.drain_until = book.now + book.drain_seconds
    slot.stopped = True
    book.touch(slot)
    book.effects.append(Stop(slot.partition))


def drained(book: Book, slot: Slot) -> None:
    """No command runs any more: send what is left, and the right."""
    out = slot.outgoing
    if out is None or out.phase is not Phase.DRAINING:
        return
    assert out.keys is not None
    out.phase = Phase.FLUSHING
    out.keys = list(dict.fromkeys(out.keys[out.position :] + slot.items.take_changed()))
    out.position = 0
    _flush(book, slot, out)


def _flush(book: Book, slot: Slot, out: Outgoing) -> None:
    assert out.keys is not None
    if out.position == len(out.keys):
        # What somebody else had left here may have been merged since the drain.
        out.keys, out.position = slot.items.take_changed(), 0
    chunk, position = slot.items.chunk(out.keys, out.position, book.chunk_bytes)
    out.position = position
    if position < len(out.keys) or slot.items.changed:
        _send(book, out, Chunk(slot.partition, out.move, out.number, chunk))
        return
    out.phase = Phase.SENT
    out.right = Right(max(slot.right.epoch, out.floor) + 1, out.target, (out.target,))
    slot.items.untrack()
    slot.stopped = False
    book.enter(slot, Role.CEDING)
    _send(book, out, Cede(slot.partition, out.move, out.number, chunk, out.right, slot.items.collected_until))


def refused(book: Book, slot: Slot, uid: int, answer: Refused) -> None:
    """Stay the holder and try again later, or give way to a higher right."""
    out = _current(slot, uid, answer.move)
    if out is not None and out.phase is not Phase.SENT:
        break_off(book, slot, tell=False)
        slot.retry_at = book.now + book.pause_seconds
    book.learn(slot, answer.right)


def taken(book: Book, slot: Slot, uid: int, answer: Taken) -> None:
    """It is done: forget the items."""
    out = slot.outgoing
    if out is None or out.target != uid or out.phase is not Phase.SENT or out.right.epoch != answer.epoch:
        return
    book.effects.append(Handed(slot.partition, uid, slot.items.live, slot.items.size_bytes))
    slot.outgoing = None
    slot.items = ItemSet(book.merge)
    if out.right.order > slot.right.order:
        book.record(slot, out.right)
    book.enter(slot, Role.ABSENT)


def declined(book: Book, slot: Slot, uid: int, answer: Declined) -> None:
    """Nobody can ever execute under the right that was sent: go on under a higher one, or give way to a higher one."""
    out = slot.outgoing
    if out is None or out.target != uid or out.phase is not Phase.SENT or out.right.epoch != answer.epoch:
        return
    slot.outgoing = None
    slot.retry_at = book.now + book.pause_seconds
    if max(slot.right, answer.right, key=lambda right: right.order).holder != book.me:
        book.enter(slot, Role.ABSENT)
        book.learn(slot, answer.right)
    else:
        epoch = max(out.right.epoch, answer.floor) + 1
        book.hold(slot, Right(epoch, book.me, (book.me,)), 0)


def target_is_gone(book: Book, slot: Slot) -> None:
    """The target is down or has left. It may have taken the right, so a claim must go above it."""
    out = slot.outgoing
    assert out is not None
    if slot.role is Role.MOVING:
        break_off(book, slot)
        return
    slot.outgoing = None
    slot.promised = max(slot.promised, (out.right.epoch, out.target))
    book.enter(slot, Role.ABSENT)
    primary = book.primaries[slot.partition]
    if book.is_live(primary):
        book.send(primary, Free(slot.partition))


def tick(book: Book, slot: Slot) -> None:
    """Send again what was not answered; break off a cut-over whose command does not end."""
    out = slot.outgoing
    if out is None:
        return
    if out.phase is Phase.DRAINING and book.now >= out.drain_until:
        break_off(book, slot)
        slot.retry_at = book.now + book.patience_seconds
    elif out.pending is not None and out.phase is not Phase.DRAINING and book.now >= out.resend_at:
        _send(book, out, out.pending)
