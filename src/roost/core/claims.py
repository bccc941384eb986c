"""Claiming a partition that nobody holds.

The ring's primary asks *every* live member, whether or not it is known to host the service (a node that has just
begun to may not be known yet): do you hold it, which rights have you seen, have you items of it? The question carries
a ballot (epoch, uid), and who answers yes promises to accept nothing of that epoch or below from anybody else. When
all have promised or are down, and all who have items left have handed them over, the claimer holds the right
(epoch, me). Of two claims that meet the higher ballot goes on; if an epoch turns out to be used, the claimer starts
again above it, unless it is refused for the sake of a live claimer with a greater uid.

So while members agree there are never two: of two claimers at least one asks the other. If the last known holder is
down, its unseen writes may be gone, and the claim says so (`PossibleLoss`). Where no right is on record there is
nothing to lose, unless a host has crashed: all who knew of the right may have gone with it, and the claim says that.

Source: the two phases of L. Lamport, "The Part-Time Parliament", 1998, with all live members for a quorum.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from roost.core.healing import hand_over
from roost.core.tenure import Book, PossibleLoss, Right, Role, Slot

__all__ = ["Answer", "Ask", "Claim", "answered", "asked", "gathered", "resend", "start", "without"]


class Ask(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """I want to hold `partition` under `epoch`: do you promise?"""

    partition: int
    epoch: int


class Answer(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """To an `Ask` of `epoch`. `held`: I execute it, or its right is on its way from me."""

    partition: int
    epoch: int
    promises: bool
    held: bool
    leftover: bool
    """Items of it are here, and are on their way to you."""
    right: Right
    promised: tuple[int, int]


@dataclass(slots=True)
class Claim:
    """A claim in progress."""

    epoch: int
    asked: dict[int, None]
    """Those whose answers are missing."""
    gathering: dict[int, None]
    """Those whose left-over items are missing."""
    resend_at: float
    doubting: bool = False
    """A live holder is on record, but nothing has come from it."""
    last: Right = field(default_factory=Right)
    """The greatest right seen that may have been in force."""


def start(book: Book, slot: Slot, *, doubting: bool = False, above: int = 0) -> None:
    """Ask everyone."""
    last = slot.claim.last if slot.claim is not None else Right()
    epoch = max(slot.right.epoch, slot.promised[0], above) + 1
    if slot.role is not Role.CLAIMING:
        book.enter(slot, Role.CLAIMING)
    slot.handing = None
    others = [uid for uid in book.live if uid != book.me]
    slot.claim = Claim(epoch, dict.fromkeys(others), {}, book.now + book.resend_seconds, doubting, last)
    _note(book, slot, slot.right, slot.promised)
    slot.promised = (epoch, book.me)
    for uid in others:
        book.send(uid, Ask(slot.partition, epoch))
    _finish_if_complete(book, slot)


def resend(book: Book, slot: Slot) -> None:
    """Ask those again who have not answered."""
    claim = slot.claim
    if claim is None or book.now < claim.resend_at:
        return
    claim.resend_at = book.now + book.resend_seconds
    for uid in (*claim.asked, *claim.gathering):
        book.send(uid, Ask(slot.partition, claim.epoch))


def asked(book: Book, slot: Slot, uid: int, ask: Ask) -> None:
    """Answer, and promise unless something higher is known here."""
    ballot = (ask.epoch, uid)
    held = slot.role in (Role.HOLDING, Role.MOVING, Role.CEDING)
    right, before = slot.right, slot.promised
    promises = not held and ask.epoch > right.epoch and _outranks(slot, ballot)
    if promises:
        slot.promised = ballot
        if slot.role is Role.CLAIMING:
            book.enter(slot, Role.AWAITING)
        slot.since = book.now
    leftover = promises and bool(slot.items)
    book.send(uid, Answer(slot.partition, ask.epoch, promises, held, leftover, right, before))
    if leftover:
        hand_over(book, slot, uid)


def answered(book: Book, slot: Slot, uid: int, answer: Answer) -> None:
    """Count an answer; find the holder; start again higher; or finish."""
    book.learn(slot, answer.right)
    claim = slot.claim
    if claim is None or answer.epoch != claim.epoch:
        return
    _note(book, slot, answer.right, answer.promised)
    rival = answer.promised[1]
    if answer.held or (not answer.promises and rival > book.me and book.is_expected(rival)):
        book.enter(slot, Role.AWAITING)
    elif not answer.promises or answer.right.epoch >= claim.epoch:
        start(book, slot, doubting=claim.doubting, above=max(answer.promised[0], answer.right.epoch))
    elif uid in claim.asked:
        del claim.asked[uid]
        if answer.leftover:
            claim.gathering[uid] = None
        _finish_if_complete(book, slot)


def gathered(book: Book, slot: Slot, uid: int) -> None:
    """All that `uid` had left is here."""
    if slot.claim is not None:
        slot.claim.gathering.pop(uid, None)
        _finish_if_complete(book, slot)


def without(book: Book, slot: Slot, uid: int) -> None:
    """Nothing is to be expected of `uid`: it is down, has left, or does not run this service."""
    if slot.claim is not None:
        slot.claim.asked.pop(uid, None)
        slot.claim.gathering.pop(uid, None)
        _finish_if_complete(book, slot)


def _outranks(slot: Slot, ballot: tuple[int, int]) -> bool:
    """Is a ballot above what was promised? Within one epoch only where the promise was to our own claim."""
    before = slot.promised
    if slot.claim is not None:
        return ballot > before
    return ballot[0] > before[0] or ballot == before


def _note(book: Book, slot: Slot, right: Right, promised: tuple[int, int]) -> None:
    """Keep the greatest right that may have been in force: any on record, and a dead claimer's that was promised."""
    claim = slot.claim
    assert claim is not None
    if right.order > claim.last.order:
        claim.last = right
    epoch, claimer = promised
    if claimer and claimer not in book.live and promised > claim.last.order:
        claim.last = Right(epoch, claimer)


def _finish_if_complete(book: Book, slot: Slot) -> None:
    claim = slot.claim
    if claim is None or claim.asked or claim.gathering:
        return
    last = claim.last
    book.hold(slot, Right(claim.epoch, book.me, (book.me,)), 0)
    if last.epoch and last.holder not in book.live:
        book.effects.append(PossibleLoss(slot.partition, last))
    elif not last.epoch and book.crashed:
        book.effects.append(PossibleLoss(slot.partition, Right(0, book.crashed[-1])))
