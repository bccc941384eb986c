"""Taking over a partition that nobody holds.

It is for the first live copy on record to take it over, or for the ring's primary if it is a copy too, or if no copy is
alive. The claimer asks *every* live member, whether or not it is known to host the service (a node that has just begun
to may not be known yet): do you hold it, which rights have you seen, what of it have you? The question carries a ballot
(epoch, uid), and who answers yes promises to accept nothing of that epoch or below from anybody else: from then on the
old holder, should it live after all, gets no more writes acknowledged. A copy whose holder is alive in its view does
not promise. When all have promised or are down, and whatever differs has been gathered, the claimer holds the right
(epoch, me), whose only copy it is at first. Of two claims that meet the higher ballot goes on; if an epoch turns out to
be used, the claimer starts again above it, unless it is refused for the sake of a live claimer with a greater uid.

A write was acknowledged by so many of the copies on record. If all but fewer than that many of them have answered, one
that has the write is among them, and nothing is lost. Otherwise something may be: then the claim waits for those who
are missing (`strict`), or goes on and says so (`PossibleLoss`). Where no right is on record there is nothing to lose,
unless a host has crashed: all who knew of the right may have gone with it, and the claim says that.

Source: the two phases of L. Lamport, "The Part-Time Parliament", 1998, with all live members for a quorum; the view
change of B. Liskov and J. Cowling, "Viewstamped Replication Revisited", MIT 2012, section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from roost.core.book import Book
from roost.core.healing import hand_over
from roost.core.tenure import EXECUTING, Number, PossibleLoss, Right, Role, Slot, majority

__all__ = [
    "Answer",
    "Ask",
    "Claim",
    "answered",
    "ask_also",
    "asked",
    "finish_if_complete",
    "gathered",
    "is_for_me",
    "resend",
    "start",
    "without",
]


class Ask(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """I want to hold `partition` under `epoch`: do you promise? `known`: the order of the greatest right I know."""

    partition: int
    epoch: Number
    known: tuple[int, int, int]
    fingerprint: list[int]
    """Of what I have, by bucket."""


class Answer(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """To an `Ask` of `epoch`. `held`: I execute it, or its right is on its way from me, or its holder lives."""

    partition: int
    epoch: Number
    promises: bool
    held: bool
    leftover: bool
    """Items that you lack are here, and are on their way to you."""
    right: Right
    witnessed: bool
    """I have followed the holder as far as that right; it is not hearsay."""
    promised: tuple[Number, int]
    collected_until: int


@dataclass(slots=True)
class Claim:
    """A claim in progress."""

    epoch: int
    asked: dict[int, None]
    """Those whose answers are missing."""
    gathering: dict[int, int]
    """Those whose left-over items are missing, and up to where they have collected tombstones."""
    resend_at: float
    answers: dict[int, None] = field(default_factory=dict)
    """Those who have promised, and this node."""
    last: Right = field(default_factory=Right)
    """The greatest right on record."""
    rivals: dict[tuple[int, int], None] = field(default_factory=dict)
    """Whom others have promised to follow. One who does not answer may have held it."""
    witnessed: bool = False
    """Somebody who has answered followed its holder so far."""
    lineage: tuple[int, int] = (0, 0)
    """Of the items here, the newest that was found: what is older is merged into them; see `Slot.lineage`."""
    lacking: tuple[int, int] | None = None
    """(needed, have): all is gathered, but too few copies have answered."""


def is_for_me(book: Book, slot: Slot) -> bool:
    """Of those who could take over a partition without a holder, is it this node?"""
    copies = [uid for uid in slot.right.copies if uid in book.live]
    primary = book.primary(slot)
    if slot.right.holder == book.me:
        return True
    if not copies or primary in copies:
        return primary == book.me
    return copies[0] == book.me


def start(book: Book, slot: Slot, *, above: int = 0) -> None:
    """Ask everyone."""
    before = slot.claim
    epoch = slot.tried = max(slot.right.epoch, slot.promised[0], slot.tried, above) + 1
    if slot.role is not Role.CLAIMING:
        book.enter(slot, Role.CLAIMING)
    slot.handing = slot.incoming = None
    others = [uid for uid in book.live if uid != book.me]
    claim = slot.claim = Claim(epoch, dict.fromkeys(others), {}, book.now + book.resend_seconds)
    claim.answers[book.me] = None
    claim.lineage = slot.lineage if slot.items else (0, 0)
    if before is not None:
        claim.last, claim.witnessed, claim.lineage = before.last, before.witnessed, before.lineage
        claim.rivals = before.rivals
    _note(slot, slot.right, slot.witnessed, slot.promised)
    book.promise(slot, (epoch, book.me))
    for uid in others:
        book.send(uid, _ask(slot, epoch))
    finish_if_complete(book, slot)


def _ask(slot: Slot, epoch: int) -> Ask:
    return Ask(slot.partition, epoch, slot.right.order, slot.items.fingerprint)


def resend(book: Book, slot: Slot) -> None:
    """Ask those again who have not answered."""
    claim = slot.claim
    if claim is None or book.now < claim.resend_at:
        return
    claim.resend_at = book.now + book.resend_seconds
    for uid in (*claim.asked, *claim.gathering):
        book.send(uid, _ask(slot, claim.epoch))


def ask_also(book: Book, slot: Slot, uid: int) -> None:
    """A member has appeared, or come back, while the claim goes on."""
    claim = slot.claim
    if claim is not None and uid not in claim.answers:
        claim.asked[uid] = None
        book.send(uid, _ask(slot, claim.epoch))


def asked(book: Book, slot: Slot, uid: int, ask: Ask) -> None:
    """Answer, and promise unless something higher is known here."""
    ballot = (ask.epoch, uid)
    held = slot.role in (*EXECUTING, Role.CEDING) or _is_followed_by(book, slot, uid, ask)
    right, before = slot.right, slot.promised
    promises = not held and ask.epoch > right.epoch and _outranks(slot, ballot)
    leftover = False
    if promises:
        if slot.promised != ballot:
            slot.handing = None  # that is for an earlier claim of its, and would be waited for in vain
        book.promise(slot, ballot)
        slot.incoming = None
        if slot.role is Role.CLAIMING:
            book.rest(slot)
        slot.since = book.now
        book.touch(slot)
        items = slot.items or slot.strays
        leftover = items is not None and bool(items) and items.fingerprint != ask.fingerprint
        if items is slot.items and not leftover:
            slot.known = ballot
    until = slot.items.collected_until
    book.send(uid, Answer(slot.partition, ask.epoch, promises, held, leftover, right, slot.witnessed, before, until))
    if leftover:
        hand_over(book, slot, uid, strays=not slot.items, forget=False)


def _is_followed_by(book: Book, slot: Slot, uid: int, ask: Ask) -> bool:
    """This node is a copy of a holder that it sees alive, and the asker knows no later one."""
    holder = slot.right.holder
    alive = holder != uid and book.is_live(holder) and book.is_served(slot)
    return alive and book.is_copy(slot) and slot.right.order >= tuple(ask.known)


def answered(book: Book, slot: Slot, uid: int, answer: Answer) -> None:
    """Count an answer; find the holder; start again higher; or finish."""
    book.learn(slot, answer.right)
    claim = slot.claim
    if claim is None or answer.epoch != claim.epoch:
        return
    _note(slot, answer.right, answer.witnessed, answer.promised)
    rival = answer.promised[1]
    if answer.held or (not answer.promises and rival > book.me and book.is_expected(rival)):
        slot.retry_at = book.now + book.pause_seconds
        book.rest(slot)
    elif not answer.promises or answer.right.epoch >= claim.epoch:
        start(book, slot, above=max(answer.promised[0], answer.right.epoch))
    elif uid in claim.asked:
        del claim.asked[uid]
        claim.answers[uid] = None
        if answer.leftover:
            claim.gathering[uid] = answer.collected_until
        else:
            slot.items.collected_until = max(slot.items.collected_until, answer.collected_until)
        finish_if_complete(book, slot)
    elif not answer.leftover:
        gathered(book, slot, uid)


def gathered(book: Book, slot: Slot, uid: int) -> None:
    """All that `uid` had left is here."""
    if slot.claim is not None:
        slot.claim.gathering.pop(uid, None)
        finish_if_complete(book, slot)


def without(book: Book, slot: Slot, uid: int) -> None:
    """Nothing is to be expected of `uid`: it is down, has left, or does not run this service."""
    if slot.claim is not None:
        slot.claim.asked.pop(uid, None)
        if uid in slot.claim.gathering:
            del slot.claim.gathering[uid], slot.claim.answers[uid]
        finish_if_complete(book, slot)


def _outranks(slot: Slot, ballot: tuple[int, int]) -> bool:
    """Is a ballot above what was promised? Within one epoch only where the promise was to our own claim."""
    before = slot.promised
    if slot.claim is not None:
        return ballot > before
    return ballot[0] > before[0] or ballot == before


def _note(slot: Slot, right: Right, witnessed: bool, promised: tuple[int, int]) -> None:
    """Keep all that may have been in force: the greatest right on record, and any that was promised."""
    claim = slot.claim
    assert claim is not None
    if right.order > claim.last.order:
        claim.last, claim.witnessed = right, witnessed
    elif right.order == claim.last.order:
        claim.witnessed = claim.witnessed or witnessed
    if promised[1]:
        claim.rivals[promised] = None


def finish_if_complete(book: Book, slot: Slot) -> None:
    """Hold it, if all have answered and enough of them are copies."""
    claim = slot.claim
    if claim is None or claim.asked or claim.gathering or not book.acts:
        return
    last = claim.last
    missing = [uid for uid in last.copies if uid not in claim.answers]
    bearable = min(book.acks(len(last.copies)), majority(len(last.copies)))
    lost = bool(last.epoch) and (len(missing) >= bearable or not claim.witnessed)
    doubtful = [rival for rival in claim.rivals if rival > last.tenure and rival[1] not in claim.answers]
    if doubtful:
        lost = True
        missing += [uid for _, uid in doubtful]
    claim.lacking = None
    if lost and book.strict and any(uid in book.missed for uid in missing):
        claim.lacking = (len(last.copies) - bearable + 1, sum(uid in claim.answers for uid in last.copies))
        return
    book.hold(slot, Right(claim.epoch, book.me, (book.me,)), 0)
    if lost:
        epoch, uid = max(doubtful, default=(0, 0))
        book.effects.append(PossibleLoss(slot.partition, Right(epoch, uid, (uid,)) if doubtful else last))
    elif not last.epoch and book.crashed:
        book.effects.append(PossibleLoss(slot.partition, Right(0, book.crashed[-1])))
