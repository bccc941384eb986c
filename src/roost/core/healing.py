"""Items that are left where they do not belong, and rights that do not know of each other.

Whoever has items of a partition without being its holder, whatever the reason (a higher right was met, a move broke
off, a claim was lost), hands them to the holder, or to the claimer who asked for them. It sends chunk by chunk, each
acknowledged; the receiver merges; after the last acknowledgement the sender forgets. There is no second mechanism.

Rights are told to every host when they begin. In case that was lost, each host shows a digest of all the rights it
knows to the next host every few seconds, and to a host that has just appeared it tells what it holds. So of two
holders that a healed split brings together, the lower one learns of it and gives way (`Book.learn`).

Invariants: items are forgotten only after the receiver has all of them. The cost of the exchange is constant a node.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from roost.core.items import Item, ItemSet
from roost.core.tenure import EXECUTING, NO_RIGHT, Book, Handed, Right, Role, Slot

__all__ = [
    "Digest",
    "Handing",
    "Kept",
    "Leftover",
    "Table",
    "Unkept",
    "digest_shown",
    "hand_over",
    "keep",
    "kept",
    "resend",
    "tell_what_i_hold",
    "told",
    "unkept",
]


class Leftover(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Items that are left here, for the holder or claimer. `last`: there are no more."""

    partition: int
    move: int
    number: int
    items: list[Item]
    last: bool


class Kept(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """That chunk is merged."""

    partition: int
    move: int
    number: int


class Unkept(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """I neither hold nor claim it; this is the right I know."""

    partition: int
    move: int
    right: Right


class Digest(msgspec.Struct, frozen=True, array_like=True, tag=7, gc=False):
    """The digest of all rights I know."""

    digest: int


class Table(msgspec.Struct, frozen=True, array_like=True, tag=8, gc=False):
    """Rights I know, by partition. `answer`: tell me where you know better."""

    rights: list[tuple[int, Right]]
    answer: bool


@dataclass(slots=True)
class Handing:
    """Left-over items on their way."""

    target: int
    move: int
    keys: list[bytes]
    position: int
    pending: Leftover
    resend_at: float
    items: int
    size_bytes: int


def hand_over(book: Book, slot: Slot, target: int) -> None:
    """Begin to send all items here to `target`, unless that is going on already."""
    if slot.handing is not None and slot.handing.target == target:
        return
    book.moves += 1
    keys = list(slot.items.items)
    chunk, position = slot.items.chunk(keys, 0, book.chunk_bytes)
    pending = Leftover(slot.partition, book.moves, 0, chunk, position == len(keys))
    slot.handing = Handing(
        target,
        book.moves,
        keys,
        position,
        pending,
        book.now + book.resend_seconds,
        slot.items.live,
        slot.items.size_bytes,
    )
    book.touch(slot)
    book.send(target, pending)


def resend(book: Book, slot: Slot) -> None:
    """Send the chunk again that was not acknowledged."""
    handing = slot.handing
    if handing is not None and book.now >= handing.resend_at:
        handing.resend_at = book.now + book.resend_seconds
        book.send(handing.target, handing.pending)


def keep(book: Book, slot: Slot, uid: int, leftover: Leftover) -> bool:
    """Merge what somebody had left, if this node is the one to have it. True: that was the last of it."""
    if slot.role not in (*EXECUTING, Role.CLAIMING):
        book.send(uid, Unkept(slot.partition, leftover.move, slot.right))
        return False
    slot.items.merge_items(leftover.items)
    book.send(uid, Kept(slot.partition, leftover.move, leftover.number))
    return leftover.last


def kept(book: Book, slot: Slot, uid: int, answer: Kept) -> None:
    """Go on with the next chunk, or forget."""
    handing = slot.handing
    if handing is None or (handing.target, handing.move, handing.pending.number) != (uid, answer.move, answer.number):
        return
    if handing.pending.last:
        slot.handing = None
        slot.items = ItemSet(book.merge)
        book.effects.append(Handed(slot.partition, uid, handing.items, handing.size_bytes))
        book.touch(slot)
        return
    chunk, handing.position = slot.items.chunk(handing.keys, handing.position, book.chunk_bytes)
    last = handing.position == len(handing.keys)
    handing.pending = Leftover(slot.partition, handing.move, answer.number + 1, chunk, last)
    handing.resend_at = book.now + book.resend_seconds
    book.send(uid, handing.pending)


def unkept(book: Book, slot: Slot, uid: int, answer: Unkept) -> None:
    """It is not there any more: look for the holder anew, after a pause."""
    if slot.handing is not None and (slot.handing.target, slot.handing.move) == (uid, answer.move):
        slot.handing = None
        slot.retry_at = book.now + book.pause_seconds
        book.touch(slot)
    book.learn(slot, answer.right)


def tell_what_i_hold(book: Book, uid: int) -> None:
    """To a host that has just appeared."""
    rights = [(slot.partition, slot.right) for slot in book.slots if slot.right.holder == book.me]
    if rights:
        book.send(uid, Table(rights, False))


def digest_shown(book: Book, uid: int, digest: int) -> None:
    """If it is not ours, show all."""
    if digest != book.digest:
        rights = [(slot.partition, slot.right) for slot in book.slots if slot.right is not NO_RIGHT]
        book.send(uid, Table(rights, True))


def told(book: Book, uid: int, table: Table) -> None:
    """Learn what is greater, and say where we know better."""
    theirs = dict(table.rights)
    for partition, right in table.rights:
        if 0 <= partition < len(book.slots):
            book.learn(book.slots[partition], right)
    if table.answer:
        better = [
            (slot.partition, slot.right)
            for slot in book.slots
            if slot.right.order > theirs.get(slot.partition, NO_RIGHT).order
        ]
        if better:
            book.send(uid, Table(better, False))
