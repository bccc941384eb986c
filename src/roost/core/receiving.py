"""A copy's end of being fed; `transfer.py` has the messages and the holder's end.

A copy follows one holder at a time: the one with the greatest right, unless it has promised not to; and only where the
record or its own ring names it, so that nothing comes back to a node that leaves. It takes over what comes, in order,
as it is. What it had in the buckets that differ when it began to follow is no part of the copy, but stays until all is
there: the holder may die before, and there may be acknowledged writes among it. Then what the holder does not know
becomes a stray.

Invariants: what was received stays in step with the holder, up to the last chunk that was acknowledged, until another
right is met; chunks are taken over once each and in order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from roost.core.book import Book
from roost.core.items import ItemSet
from roost.core.tenure import Role, Slot
from roost.core.transfer import Accepted, Chunk, Offer, Received, Refused, Withdrawn

__all__ = ["Incoming", "chunk_came", "offered", "withdrawn"]


@dataclass(slots=True)
class Incoming:
    """Whom this node follows, and how far it has come."""

    source: int
    feed: int
    collected_until: int
    """The holder's."""
    number: int = 0
    """The next chunk's."""
    filled: bool = False
    """The first round is here."""
    stale: dict[bytes, None] = field(default_factory=dict)
    """Of the buckets that differed: what has not come from the holder yet."""


FOLLOWING = (Role.ABSENT, Role.COPY, Role.AWAITING)


def offered(book: Book, slot: Slot, uid: int, offer: Offer) -> None:
    """Follow the holder of the greatest right."""
    book.learn(slot, offer.right)
    coming = slot.incoming
    meant = book.is_copy(slot) or book.me in (*book.owners[slot.partition], *offer.right.copies)
    newest = slot.right.tenure == offer.right.tenure and offer.right.epoch > _fence(slot, uid)
    if not meant or not newest or not _may_follow(book, slot):
        book.send(uid, Refused(slot.partition, offer.feed, slot.right, slot.promised))
        return
    if coming is not None and coming.source == uid and coming.feed > offer.feed:
        return  # that was said long ago
    slot.since = book.now
    slot.handing = None
    if coming is None or (coming.source, coming.feed) != (uid, offer.feed):
        if not slot.items and slot.strays is not None:
            slot.items, slot.strays = slot.strays, None
        slot.incoming = Incoming(uid, offer.feed, offer.collected_until)
        book.touch(slot)
    elif coming.number:
        return  # it has been accepted, and chunks have come since
    book.send(uid, Accepted(slot.partition, offer.feed, slot.items.fingerprint))


def _fence(slot: Slot, uid: int) -> int:
    """Nothing of this epoch or below is accepted from `uid`."""
    epoch, claimer = slot.promised
    return epoch - 1 if claimer == uid else epoch


def _may_follow(book: Book, slot: Slot) -> bool:
    """Whoever claims is found to be wrong by a holder that lives."""
    if slot.role is Role.CLAIMING:
        book.rest(slot)
    return slot.role in FOLLOWING


def chunk_came(book: Book, slot: Slot, uid: int, chunk: Chunk) -> None:
    """Take it over."""
    coming = slot.incoming
    if coming is None or (coming.source, coming.feed) != (uid, chunk.feed) or slot.right.epoch <= _fence(slot, uid):
        book.send(uid, Refused(slot.partition, chunk.feed, slot.right, slot.promised))
        return
    slot.since = book.now
    equal = True
    if chunk.number == coming.number:
        coming.number += 1
        _apply(book, slot, coming, chunk)
        equal = chunk.digest is None or chunk.digest == slot.items.digest
        if not equal:
            slot.incoming = None
    if chunk.number < coming.number:
        book.send(uid, Received(slot.partition, chunk.feed, coming.number - 1 if equal else chunk.number, equal))


def _apply(book: Book, slot: Slot, coming: Incoming, chunk: Chunk) -> None:
    items = slot.items
    if chunk.clear:
        coming.stale = dict.fromkeys(items.in_buckets(chunk.clear))
    if not coming.filled:
        _fill(book, slot, coming, chunk)
    items.replace_items(chunk.items)
    if chunk.collect is not None:
        tombstones_until, outcomes_until = chunk.collect
        items.collect(tombstones_until)
        items.forget_outcomes(outcomes_until)
    if chunk.right is not None and chunk.right.order > slot.right.order:
        book.record(slot, chunk.right, witnessed=True)
        book.rest(slot)
    elif chunk.right is not None and chunk.right.order == slot.right.order:
        slot.witnessed = True  # it was known by hearsay
    if chunk.digest is not None and slot.strays is not None:
        book.touch(slot)


def _fill(book: Book, slot: Slot, coming: Incoming, chunk: Chunk) -> None:
    """Make room for a chunk of the first round, and after its last one for nothing else."""
    stale = [item.key for item in chunk.items if item.key in coming.stale]
    for key in stale:
        del coming.stale[key]
    coming.filled = chunk.right is not None
    if coming.filled:
        stale += coming.stale
        coming.stale = {}
    taken = slot.items.take(stale)
    if taken and slot.known != slot.right.tenure:
        strays = slot.strays = slot.strays or ItemSet(book.merge)
        strays.merge_items(taken)
        slot.handing = None
    if coming.filled:
        slot.items.collected_until = coming.collected_until
        slot.lineage = slot.known = slot.right.tenure
    elif slot.lineage != slot.right.tenure:
        slot.lineage = (0, 0)  # some of it from here, some from there


def withdrawn(book: Book, slot: Slot, uid: int, message: Withdrawn) -> None:
    """No more comes. What is here is forgotten if the holder says so, and it is not for this node to keep."""
    book.learn(slot, message.right)
    book.touch(slot)
    coming = slot.incoming
    if coming is None or (coming.source, coming.feed) != (uid, message.feed):
        return
    slot.incoming = None
    if message.forget and not book.is_copy(slot):
        book.forget(slot)
