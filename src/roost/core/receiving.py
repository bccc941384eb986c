"""The target's end of a move; `transfer.py` has the messages and the source's end.

What comes is kept aside until the right arrives with the last of it: if the move is broken off it is forgotten, and if
the source dies it is what is left of the partition, and goes the way of all left-over items.

Invariants: a right is taken only complete, above all that is known or promised here; and whether it was taken or
declined never changes, however often it is asked.
"""

from __future__ import annotations

from dataclasses import dataclass

from roost.core.items import ItemSet
from roost.core.tenure import Book, Role, Slot
from roost.core.transfer import (
    Accepted,
    Cede,
    Chunk,
    Declined,
    Offer,
    Received,
    Refused,
    Taken,
    Withdrawn,
)

__all__ = ["Incoming", "ceded", "chunk_came", "offered", "source_is_gone", "withdrawn"]

DECISIONS_KEPT = 16
"""Of each partition. A source repeats only its latest question."""


@dataclass(slots=True)
class Incoming:
    """The target's end."""

    source: int
    move: int
    staging: ItemSet
    number: int = 0


def offered(book: Book, slot: Slot, uid: int, offer: Offer) -> None:
    """Accept a partition that our ring gives us too."""
    refusal = ""
    if slot.right.order > offer.right.order:
        refusal = "a higher right is known"
    elif slot.role is Role.CEDING:
        refusal = "it is being ceded"
    elif book.primaries[slot.partition] != book.me:
        refusal = "the ring says another"
    book.learn(slot, offer.right)
    if refusal:
        book.send(uid, Refused(slot.partition, offer.move, refusal, slot.right))
        return
    if slot.role is not Role.AWAITING:
        book.enter(slot, Role.AWAITING)
    slot.since = book.now
    slot.handing = None
    if slot.incoming is None or (slot.incoming.source, slot.incoming.move) != (uid, offer.move):
        slot.incoming = Incoming(uid, offer.move, ItemSet(book.merge))
    book.send(uid, Accepted(slot.partition, offer.move, slot.promised[0]))


def chunk_came(book: Book, slot: Slot, uid: int, chunk: Chunk) -> None:
    """Keep it aside."""
    coming = slot.incoming
    if coming is None or (coming.source, coming.move) != (uid, chunk.move):
        book.send(uid, Refused(slot.partition, chunk.move, "that move is not known", slot.right))
        return
    slot.since = book.now
    if chunk.number == coming.number:
        coming.staging.merge_items(chunk.items)
        coming.number += 1
    if chunk.number < coming.number:
        book.send(uid, Received(slot.partition, chunk.move, chunk.number))


def ceded(book: Book, slot: Slot, uid: int, cede: Cede) -> None:
    """Take the right, or decline it for good; either way the answer stays the same."""
    epoch = cede.right.epoch
    coming = slot.incoming
    question = (epoch, uid)
    if question not in slot.decided:
        complete = coming is not None and (coming.source, coming.move, coming.number) == (uid, cede.move, cede.number)
        new = cede.right.order > slot.right.order and epoch > slot.promised[0]
        slot.decided[question] = complete and new and cede.right.holder == book.me
        for old in sorted(slot.decided)[:-DECISIONS_KEPT]:
            del slot.decided[old]
        if coming is not None and slot.decided[question]:
            _take(book, slot, coming, cede)
        else:
            slot.promised = max(slot.promised, (epoch, book.me))
    if slot.decided.get(question):
        book.send(uid, Taken(slot.partition, epoch))
    else:
        book.send(uid, Declined(slot.partition, epoch, slot.right, slot.promised[0]))


def _take(book: Book, slot: Slot, coming: Incoming, cede: Cede) -> None:
    staging = coming.staging
    staging.merge_items(cede.items)
    staging.collected_until = cede.collected_until
    staging.merge_items(slot.items.items.values())
    slot.items = staging
    book.hold(slot, cede.right, coming.source)


def withdrawn(slot: Slot, uid: int, message: Withdrawn) -> None:
    """Forget what has come."""
    if slot.incoming is not None and (slot.incoming.source, slot.incoming.move) == (uid, message.move):
        slot.incoming = None


def source_is_gone(book: Book, slot: Slot) -> None:
    """What has come so far is all that is left of it: an item like any other left-over."""
    assert slot.incoming is not None
    slot.items.merge_items(slot.incoming.staging.items.values())
    slot.incoming = None
    slot.handing = None
