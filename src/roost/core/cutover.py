"""The move of a right to the node that the ring wants, once it and all other copies that the ring wants are in step.

    holder                                  new holder, fed up to here
      stop, and wait for the running command and for the last chunks to be acknowledged by all of the new copies
      Cede             -------------------> the right of the next epoch, with the copies that the ring wants
                       <------------------- Taken, or Declined: kept for good, repeated to who asks again

Before `Cede` the holder can break the move off at any moment and goes on executing, so that a ring that changes again,
a dead target or a command that does not end does no harm. After `Cede` it never executes under the old epoch again: it
waits for the answer; `Declined` lets it go on under a higher epoch; and if the target is down it is a copy like any
other, with everything that was ever acknowledged, and a claim decides.

Invariants: a right is taken only with everything that was written under the one before, and above all that is known or
promised at its taker; whether it was taken or declined never changes, however often it is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import msgspec

from roost.core.book import Book
from roost.core.copies import wanted_copies
from roost.core.tenure import NO_RIGHT, Handed, Held, Number, Right, Role, Slot, Stop
from roost.core.transfer import is_idle, pump_all, stop

__all__ = ["Cede", "CutOver", "Declined", "Step", "Taken", "break_off", "ceded", "declined", "look_at_move", "taken"]

DECISIONS_KEPT = 16
"""Of each partition. A holder repeats only its latest question."""


class Step(Enum):
    """How far a cut-over has come."""

    DRAINING = "draining"
    FLUSHING = "flushing"
    SENT = "sent"


class Cede(msgspec.Struct, frozen=True, array_like=True, tag=14, gc=False):
    """You have everything, up to the chunk before `number` of that feed: hold it under this right."""

    partition: int
    feed: int
    number: int
    right: Right


class Taken(msgspec.Struct, frozen=True, array_like=True, tag=15, gc=False):
    """I hold it under that epoch."""

    partition: int
    epoch: int


class Declined(msgspec.Struct, frozen=True, array_like=True, tag=16, gc=False):
    """I have not taken the right of that epoch and never will."""

    partition: int
    epoch: Number
    right: Right
    floor: Number


@dataclass(slots=True)
class CutOver:
    """The holder's end."""

    target: int
    drain_until: float
    step: Step = Step.DRAINING
    right: Right = NO_RIGHT
    """What `Cede` carries."""
    cede: Cede | None = None
    resend_at: float = 0.0


def look_at_move(book: Book, slot: Slot) -> None:
    """Start, go on with, or break off the move to the ring's primary."""
    wanted = wanted_copies(book, slot)
    cut = slot.cut
    if cut is None:
        if wanted and wanted[0] != book.me and book.now >= slot.retry_at and _all_in_step(book, slot, wanted):
            slot.cut = CutOver(wanted[0], book.now + book.drain_seconds)
            slot.stopped = True
            book.enter(slot, Role.MOVING)
            book.effects.append(Stop(slot.partition))
    elif not wanted or cut.target != wanted[0] or not _all_in_step(book, slot, wanted):
        break_off(book, slot)
    elif cut.step is Step.FLUSHING and slot.acked == slot.written and _all_have_everything(book, slot, wanted):
        _cede(book, slot, cut, wanted)


def _all_in_step(book: Book, slot: Slot, wanted: tuple[int, ...]) -> bool:
    return slot.pending is None and all(
        uid == book.me or (uid in slot.feeds and slot.feeds[uid].in_step) for uid in wanted
    )


def _all_have_everything(book: Book, slot: Slot, wanted: tuple[int, ...]) -> bool:
    return all(uid == book.me or is_idle(slot, slot.feeds[uid]) for uid in wanted)


def break_off(book: Book, slot: Slot) -> None:
    """Give the move up before the right is sent, and go on executing."""
    assert slot.role is Role.MOVING
    slot.cut = None
    slot.stopped = False
    book.enter(slot, Role.HOLDING)


def drained(book: Book, slot: Slot) -> None:
    """No command runs any more: what was written last goes out, and then the right."""
    if slot.cut is not None and slot.cut.step is Step.DRAINING:
        slot.cut.step = Step.FLUSHING
        pump_all(book, slot)
        book.touch(slot)


def _cede(book: Book, slot: Slot, cut: CutOver, wanted: tuple[int, ...]) -> None:
    feed = slot.feeds[cut.target]
    cut.step = Step.SENT
    cut.right = Right(max(slot.right.epoch, slot.promised[0]) + 1, cut.target, wanted)
    cut.cede = Cede(slot.partition, feed.number, feed.sent, cut.right)
    slot.stopped = False
    book.enter(slot, Role.CEDING)
    _send(book, cut)


def _send(book: Book, cut: CutOver) -> None:
    assert cut.cede is not None
    cut.resend_at = book.now + book.resend_seconds
    book.send(cut.target, cut.cede)


def ceded(book: Book, slot: Slot, uid: int, cede: Cede) -> None:
    """Take the right, or decline it for good; either way the answer stays the same."""
    epoch = cede.right.epoch
    question = (epoch, uid)
    if question not in slot.decided:
        coming = slot.incoming
        complete = coming is not None and (coming.source, coming.feed, coming.number) == (uid, cede.feed, cede.number)
        new = cede.right.order > slot.right.order and epoch > slot.promised[0]
        slot.decided[question] = complete and new and cede.right.holder == book.me
        for old in sorted(slot.decided)[:-DECISIONS_KEPT]:
            del slot.decided[old]
        if slot.decided.get(question):
            book.hold(slot, cede.right, uid)
        elif epoch > slot.promised[0]:
            slot.promised = (epoch, book.me)
            book.touch(slot)
    if slot.decided.get(question):
        book.send(uid, Taken(slot.partition, epoch))
    else:
        book.send(uid, Declined(slot.partition, epoch, slot.right, slot.promised[0]))


def taken(book: Book, slot: Slot, uid: int, answer: Taken) -> None:
    """It is done. Copies that are not wanted any more forget theirs; so does this node, unless it is wanted."""
    cut = _sent(slot, uid, answer.epoch)
    if cut is None:
        return
    book.effects.append(Handed(slot.partition, uid, slot.items.live, slot.items.size_bytes))
    for other in list(slot.feeds):
        stop(book, slot, other, forget=other not in cut.right.copies)
    book.let_go(slot)
    if cut.right.order > slot.right.order:
        book.record(slot, cut.right, witnessed=True)
    if not book.is_copy(slot):
        book.forget(slot)
    else:
        slot.lineage = slot.known = slot.right.tenure
    book.rest(slot)


def _sent(slot: Slot, uid: int, epoch: int) -> CutOver | None:
    cut = slot.cut
    return cut if cut is not None and cut.step is Step.SENT and (cut.target, cut.right.epoch) == (uid, epoch) else None


def declined(book: Book, slot: Slot, uid: int, answer: Declined) -> None:
    """Nobody can ever execute under the right that was sent: go on under a higher one, or give way to a higher one."""
    cut = _sent(slot, uid, answer.epoch)
    if cut is None:
        return
    slot.retry_at = book.now + book.pause_seconds
    if answer.right.order > slot.right.order and answer.right.holder != book.me:
        cut.right = NO_RIGHT  # the decliner may have claimed that very right meanwhile, without what is here
        book.learn(slot, answer.right)
        return
    right = Right(max(cut.right.epoch, answer.floor) + 1, book.me, slot.right.copies)
    for other in list(slot.feeds):
        stop(book, slot, other)
    book.let_go(slot)
    book.hold(slot, right, book.me)


def target_is_gone(book: Book, slot: Slot) -> None:
    """The target is down or has left. It may have taken the right and used it, so a claim must go above it.

    The right counts as one that was in force, as if `Taken` had come: its copies, who had everything when it was sent,
    know what was acknowledged under it.
    """
    cut = slot.cut
    assert cut is not None
    for other in list(slot.feeds):
        stop(book, slot, other)
    book.let_go(slot)
    book.record(slot, cut.right, witnessed=True)
    slot.lineage = slot.known = cut.right.tenure
    book.rest(slot)
    for uid in book.hosts:
        if uid != book.me:
            book.send(uid, Held(slot.partition, cut.right))


def tick(book: Book, slot: Slot) -> None:
    """Send again what was not answered; break off a cut-over whose command or copies do not end."""
    cut = slot.cut
    if cut is None:
        return
    if cut.step is Step.SENT:
        if book.now >= cut.resend_at:
            _send(book, cut)
    elif book.now >= cut.drain_until:
        break_off(book, slot)
        slot.retry_at = book.now + book.patience_seconds
