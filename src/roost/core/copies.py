"""Which copies a holder keeps, how their record is changed, and when a write is acknowledged.

The ring names the copies that there should be, the primary first. The holder feeds those that are missing, and changes
the record when they are in step; only the record counts. A change, a right with the next revision, goes to old and new
copies in its place among the writes, and holds once a majority of the old and one of the new copies have it. If so
many are not alive, it holds once all that are alive have it: who may act in a split is decided elsewhere (`split.py`).
One change is made at a time. As long as it is pending, writes have to satisfy both records.

A write is acknowledged when as many copies on record have it as `write` asks for; and if the ring names more than are
on record, also as many nodes as that would ask for, those among them that are still being filled. Thus whoever takes
over and reaches all but fewer of the copies knows every acknowledged write; and a write that is acknowledged while
copies are made survives as many crashes as one that comes after.

Invariants: who is added to the record has everything that was written before; who is dropped keeps what it has until
the change holds; what was acknowledged is never taken back.
Source: joint majorities after D. Ongaro and J. Ousterhout, "In Search of an Understandable Consensus Algorithm",
USENIX ATC 2014, section 6; the log is replaced by the holder's own order, and elections by `claims.py`.
"""

from __future__ import annotations

from roost.core.book import Book
from roost.core.tenure import Acknowledged, Changed, Right, Slot, majority
from roost.core.transfer import Feed, Phase, pump_all, stop, want

__all__ = [
    "count_acks",
    "have_copies",
    "is_complete",
    "is_short",
    "look_at_copies",
    "needed_copies",
    "wanted_copies",
    "wrote",
]


def wanted_copies(book: Book, slot: Slot) -> tuple[int, ...]:
    """Whom the ring names, the primary first."""
    return book.owners[slot.partition]


def needed_copies(book: Book, slot: Slot) -> int:
    """How many nodes must have a write, this one among them."""
    return book.acks(max(len(slot.right.copies), len(wanted_copies(book, slot))))


def have_copies(slot: Slot) -> int:
    """How many could have one now."""
    return 1 + sum(feed.phase is not Phase.OFFERED for feed in slot.feeds.values())


def is_short(book: Book, slot: Slot) -> bool:
    """A write could not be acknowledged now."""
    in_step = 1 + sum(uid in slot.feeds and slot.feeds[uid].in_step for uid in slot.right.copies[1:])
    return in_step < book.acks(len(slot.right.copies)) or have_copies(slot) < needed_copies(book, slot)


def is_complete(book: Book, slot: Slot) -> bool:
    """The copies are those that the ring wants, and nothing is under way to change that."""
    return slot.pending is None and set(slot.right.copies) == {book.me, *wanted_copies(book, slot)}


def wrote(book: Book, slot: Slot) -> int:
    """Something was written; returns its number. It is acknowledged when `slot.acked` has come so far."""
    slot.written += 1
    if slot.pending is None and needed_copies(book, slot) == 1:
        slot.acked = slot.written
    return slot.written


def look_at_copies(book: Book, slot: Slot) -> None:
    """Feed who should be fed, change the record where it should be changed, count what is acknowledged."""
    _look_at_change(book, slot)
    record = _recorded(slot)
    targets = [uid for uid in wanted_copies(book, slot) if uid != book.me]
    for uid in list(slot.feeds):
        if not book.is_live(uid) or (uid not in targets and uid not in record):
            stop(book, slot, uid)
    for uid in (*targets, *record):
        if uid != book.me and uid not in slot.feeds and book.is_live(uid):
            want(book, slot, uid)
    if slot.pending is None:
        _propose(book, slot, targets)
    short = is_short(book, slot)
    if short != slot.short:
        slot.short = short
        book.effects.append(Changed(slot.partition))
    count_acks(book, slot)


def _recorded(slot: Slot) -> list[int]:
    """Who is on record, and who is about to be."""
    pending = slot.pending.copies if slot.pending is not None else ()
    return list(dict.fromkeys((*slot.right.copies, *pending)))


def _propose(book: Book, slot: Slot, targets: list[int]) -> None:
    """The next record: without those who are gone, with those who are in step, and in the end as the ring wants it."""
    ready = [uid for uid in targets if uid in slot.feeds and slot.feeds[uid].in_step]
    staying = [uid for uid in slot.right.copies if uid == book.me or book.is_live(uid)]
    if book.primary(slot) == book.me and len(ready) == len(targets):
        copies = [book.me, *targets]
    elif book.primary(slot) == book.me or len(staying) < needed_copies(book, slot):
        copies = list(dict.fromkeys([book.me, *[uid for uid in targets if uid in ready or uid in staying], *staying]))
    else:
        copies = staying
    if set(copies) == set(slot.right.copies):
        return
    right = slot.right
    slot.pending = Right(right.epoch, right.holder, tuple(copies), right.revision + 1)
    pump_all(book, slot)
    _look_at_change(book, slot)


def _look_at_change(book: Book, slot: Slot) -> None:
    """Does the pending change hold?"""
    right = slot.pending
    if right is None:
        return
    before = slot.right.copies
    has = [uid for uid in _recorded(slot) if uid == book.me or _knows(slot, uid, right)]
    joint = all(sum(uid in has for uid in copies) >= majority(len(copies)) for copies in (before, right.copies))
    if not joint and not all(uid in has or not book.is_live(uid) for uid in _recorded(slot)):
        return
    count_acks(book, slot)
    book.record(slot, right, witnessed=True)
    slot.pending = None
    for uid in before:
        if uid not in right.copies:
            stop(book, slot, uid, forget=True)


def _knows(slot: Slot, uid: int, right: Right) -> bool:
    feed = slot.feeds.get(uid)
    return feed is not None and feed.told >= right.order


def count_acks(book: Book, slot: Slot) -> None:
    """See which writes are on enough copies."""
    acked = min(_acked_by(book, slot, slot.right), _spread(book, slot))
    if slot.pending is not None:
        acked = min(acked, _acked_by(book, slot, slot.pending))
    if acked <= slot.acked:
        return
    slot.acked = acked
    book.effects.append(Acknowledged(slot.partition, acked))
    for number, uid, answer in slot.thanks:
        if number <= acked:
            book.send(uid, answer)
    slot.thanks = [each for each in slot.thanks if each[0] > acked]


def _acked_by(book: Book, slot: Slot, right: Right) -> int:
    """The newest write that enough of these copies have."""
    writes = sorted((_has(book, slot, uid) for uid in right.copies), reverse=True)
    return writes[book.acks(len(writes)) - 1]


def _has(book: Book, slot: Slot, uid: int) -> int:
    if uid == book.me:
        return slot.written
    feed = slot.feeds.get(uid)
    return feed.acked if feed is not None and feed.in_step else 0


def _spread(book: Book, slot: Slot) -> int:
    """The newest write that so many nodes have as there should be, copies on record or not."""
    needed = needed_copies(book, slot)
    if needed == 1:
        return slot.written
    writes = sorted((_has_at_all(slot, feed) for feed in slot.feeds.values()), reverse=True)
    return writes[needed - 2] if len(writes) >= needed - 1 else 0


def _has_at_all(slot: Slot, feed: Feed) -> int:
    """The writes since the offer only count once those before it, but for what was inherited, are safe."""
    return max(feed.acked, feed.live if feed.since <= max(slot.acked, 1) else 0)
