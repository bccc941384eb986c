"""Items that are left where they do not belong, and rights that do not know of each other.

Whoever has items of a partition that its holder may not know, whatever the reason (a higher right was met, a split has
healed, a disk came back), hands them to the holder; and whoever promises to follow a claimer shows it what it has. It
sends the digests by bucket; the receiver says which of them differ; then the items of those go over chunk by chunk,
each acknowledged; the receiver merges them. The sender forgets its strays once the holder has them on enough copies.
There is no second mechanism.

Rights are told to every host when they begin. In case that was lost, each host shows a digest of all the rights it
knows to the next host every few seconds, and to a host that has just appeared it tells what it holds. So of two
holders that a healed split brings together, the lower one learns of it and gives way (`Book.learn`). With the same
exchange copies tell their holders how far they have come, some partitions at a time: one that differs is repaired.

Invariants: items are forgotten only after enough copies have all of them. The cost of the exchange is constant a node.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from roost.core import transfer
from roost.core.book import Book
from roost.core.copies import wrote
from roost.core.items import BUCKETS, Item, ItemSet
from roost.core.tenure import EXECUTING, NO_RIGHT, Handed, Held, Right, Role, Slot
from roost.core.transfer import Withdrawn

__all__ = [
    "Audit",
    "Digest",
    "Free",
    "Handing",
    "Inquiry",
    "Kept",
    "Leftover",
    "Table",
    "Unkept",
    "audit",
    "audited",
    "digest_shown",
    "freed",
    "hand_over",
    "inquired",
    "keep",
    "kept",
    "look_at_strays",
    "resend",
    "tell_what_i_hold",
    "told",
    "unkept",
]

AUDITED_MAX = 64
"""Partitions whose copies are compared in one exchange."""


class Leftover(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """What is left here, for the holder or claimer. Number 0 has the digests by bucket, the others items."""

    partition: int
    move: int
    number: int
    tenure: tuple[int, int]
    """Under which the items were written, in its holder's order; (0, 0): strays."""
    fingerprint: list[int]
    items: list[Item]
    last: bool


class Kept(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """That chunk is merged. To number 0: these buckets differ."""

    partition: int
    move: int
    number: int
    wanted: list[int]


class Unkept(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """I neither hold nor claim it; this is the right I know."""

    partition: int
    move: int
    right: Right


class Digest(msgspec.Struct, frozen=True, array_like=True, tag=7, gc=False):
    """The digest of all tenures I know."""

    digest: int


class Table(msgspec.Struct, frozen=True, array_like=True, tag=8, gc=False):
    """Rights I know, by partition. `answer`: tell me where you know better."""

    rights: list[tuple[int, Right]]
    answer: bool


class Inquiry(msgspec.Struct, frozen=True, array_like=True, tag=19, gc=False):
    """You are on record as the holder, and nothing comes: do you hold it?"""

    partition: int


class Free(msgspec.Struct, frozen=True, array_like=True, tag=18, gc=False):
    """I am not the holder any more, and know no later one."""

    partition: int
    right: Right


class Audit(msgspec.Struct, frozen=True, array_like=True, tag=20, gc=False):
    """Of these partitions I follow you: (partition, feed, the next chunk's number, digest)."""

    following: list[tuple[int, int, int, int]]


@dataclass(slots=True)
class Handing:
    """Left-over items on their way."""

    target: int
    move: int
    strays: bool
    """Of the strays, else of the copy."""
    forget: bool
    keys: list[bytes]
    position: int
    pending: Leftover
    resend_at: float
    items: int
    size_bytes: int


def look_at_strays(book: Book, slot: Slot) -> None:
    """Items that do not belong here go to the holder."""
    handing = slot.handing
    if handing is not None and not book.is_live(handing.target):
        handing = slot.handing = None
    if slot.role not in (Role.ABSENT, Role.COPY, Role.AWAITING):
        return
    wanted = book.me in book.owners[slot.partition]
    if slot.items and slot.incoming is None and not book.is_copy(slot) and handing is None:
        if not book.is_known(slot) or (slot.known > slot.right.tenure and _has_waited(book, slot)):
            book.stray(slot)
        elif slot.known == slot.right.tenure and not wanted and book.is_live(slot.right.holder):
            book.forget(slot)
    if slot.strays is not None and slot.incoming is not None and slot.lineage == slot.right.tenure:
        _keep_what_is_news(slot, slot.strays)
    waits = wanted and slot.incoming is None
    holder = slot.right.holder
    if slot.strays is not None and handing is None and not waits and book.is_live(holder) and book.now >= slot.retry_at:
        hand_over(book, slot, holder, strays=True, forget=True)


def _has_waited(book: Book, slot: Slot) -> bool:
    """A claimer has what is here, and nothing has been heard of it since."""
    return book.now >= slot.since + book.patience_seconds


def _keep_what_is_news(slot: Slot, strays: ItemSet) -> None:
    """Of the strays only those stay that would change the copy."""
    news = [item for item in strays.items.values() if slot.items.would_change(item)]
    if not news:
        slot.strays = slot.handing = None
    elif len(news) < len(strays):
        slot.strays = ItemSet(strays.merge)
        slot.strays.replace_items(news)


def hand_over(book: Book, slot: Slot, target: int, *, strays: bool, forget: bool) -> None:
    """Begin to send what is here to `target`, unless that is going on already."""
    if slot.handing is not None and (slot.handing.target, slot.handing.forget) == (target, forget):
        return
    items = slot.strays if strays else slot.items
    assert items is not None
    tenure = (0, 0) if strays else slot.lineage
    pending = Leftover(slot.partition, book.next_number(), 0, tenure, items.fingerprint, [], False)
    resend_at = book.now + book.resend_seconds
    size = items.size_bytes
    slot.handing = Handing(target, pending.move, strays, forget, [], 0, pending, resend_at, items.live, size)
    book.touch(slot)
    book.send(target, pending)


def resend(book: Book, slot: Slot) -> None:
    """Send the chunk again that was not acknowledged."""
    handing = slot.handing
    if handing is not None and book.now >= handing.resend_at:
        handing.resend_at = book.now + book.resend_seconds
        book.send(handing.target, handing.pending)


def keep(book: Book, slot: Slot, uid: int, leftover: Leftover) -> bool:
    """Merge what somebody has, if this node is the one to have it. True: that was the last of it."""
    if slot.role not in (*EXECUTING, Role.CLAIMING) or len(leftover.fingerprint) not in (0, BUCKETS):
        book.send(uid, Unkept(slot.partition, leftover.move, slot.right))
        return False
    if slot.claim is not None and uid not in slot.claim.gathering:
        return False  # it would forget what may come to nothing here: it is answered once the claim has ended
    wanted: list[int] = []
    if leftover.number == 0:
        if slot.claim is not None and leftover.tenure >= max(slot.claim.lineage, (1, 0)):
            _begin_with(book, slot, leftover.tenure, slot.claim.gathering[uid])
        wanted = slot.items.differing_buckets(leftover.fingerprint)
    elif slot.claim is not None:
        if leftover.tenure != (0, 0) and leftover.tenure == slot.claim.lineage:
            slot.items.supersede_items(leftover.items)
        elif leftover.items:
            slot.strays = slot.strays or ItemSet(book.merge)
            slot.strays.merge_items(leftover.items)
    elif slot.items.merge_items(leftover.items, uid=book.me):
        wrote(book, slot)
        transfer.pump_all(book, slot)
    answer = Kept(slot.partition, leftover.move, leftover.number, wanted)
    complete = leftover.last or (leftover.number == 0 and not wanted)
    if complete and slot.acked < slot.written and slot.role in EXECUTING:
        if not any(thanked == uid and message == answer for _, thanked, message in slot.thanks):
            slot.thanks.append((slot.written, uid, answer))
    else:
        book.send(uid, answer)
    return complete


def _begin_with(book: Book, slot: Slot, tenure: tuple[int, int], collected_until: int) -> None:
    """A claimer is shown a copy of the newest lineage so far. Only what was collected in that one counts."""
    assert slot.claim is not None
    if tenure > slot.claim.lineage:
        book.stray(slot)
        slot.items.collected_until = 0
        slot.claim.lineage = tenure
    slot.items.collected_until = max(slot.items.collected_until, collected_until)


def kept(book: Book, slot: Slot, uid: int, answer: Kept) -> None:
    """Go on with the next chunk, or forget."""
    handing = slot.handing
    if handing is None or (handing.target, handing.move, handing.pending.number) != (uid, answer.move, answer.number):
        return
    items = slot.strays if handing.strays else slot.items
    assert items is not None
    if answer.number == 0:
        handing.keys = items.in_buckets(answer.wanted)
    if handing.pending.last or (answer.number == 0 and not answer.wanted):
        _handed(book, slot, handing)
        return
    chunk, handing.position = items.chunk(handing.keys, handing.position, book.chunk_bytes)
    last = handing.position >= len(handing.keys)
    number, tenure = answer.number + 1, handing.pending.tenure
    handing.pending = Leftover(slot.partition, handing.move, number, tenure, [], chunk, last)
    handing.resend_at = book.now + book.resend_seconds
    book.send(uid, handing.pending)


def _handed(book: Book, slot: Slot, handing: Handing) -> None:
    slot.handing = None
    if handing.forget:
        slot.strays = None
        book.effects.append(Handed(slot.partition, handing.target, handing.items, handing.size_bytes))
    elif not handing.strays and slot.promised[1] == handing.target:
        slot.known = slot.promised
    book.touch(slot)


def unkept(book: Book, slot: Slot, uid: int, answer: Unkept) -> None:
    """It is not there any more: look for the holder anew, after a pause."""
    if slot.handing is not None and (slot.handing.target, slot.handing.move) == (uid, answer.move):
        slot.handing = None
        slot.retry_at = book.now + book.pause_seconds
        book.touch(slot)
    book.learn(slot, answer.right)


def inquired(book: Book, slot: Slot, uid: int, inquiry: Inquiry) -> None:
    """Say who holds it, or that this node does not."""
    if slot.right.holder != book.me or slot.role in (*EXECUTING, Role.CEDING):
        book.send(uid, Held(slot.partition, slot.right))
    else:
        book.send(uid, Free(slot.partition, slot.right))


def freed(book: Book, slot: Slot, uid: int, free: Free) -> None:
    """The holder on record has let go of it."""
    book.learn(slot, free.right)
    if slot.right.tenure == free.right.tenure and slot.right.holder == uid:
        slot.vacated = slot.right.tenure
        book.touch(slot)


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


def audit(book: Book, start: int) -> int:
    """Tell the holders of some partitions how far this node follows them; returns where to go on the next time."""
    by_source: dict[int, list[tuple[int, int, int, int]]] = {}
    count, position = 0, start
    for step in range(len(book.slots)):
        position = (start + step) % len(book.slots)
        slot = book.slots[position]
        coming = slot.incoming
        if coming is not None:
            following = (position, coming.feed, coming.number, slot.items.digest)
            by_source.setdefault(coming.source, []).append(following)
        elif slot.role is Role.COPY and book.is_live(slot.right.holder):
            by_source.setdefault(slot.right.holder, []).append((position, 0, 0, 0))  # am I still?
        else:
            continue
        count += 1
        if count == AUDITED_MAX:
            break
    for source, following_it in by_source.items():
        book.send(source, Audit(following_it))
    return position + 1


def audited(book: Book, uid: int, audit: Audit) -> None:
    """Repair a copy that differs though it says that it has everything; tell one that is not fed any more."""
    for partition, number, next_number, digest in audit.following:
        if not 0 <= partition < len(book.slots):
            continue
        slot = book.slots[partition]
        feed = slot.feeds.get(uid)
        if number == 0 and feed is not None and feed.in_step:
            transfer.again(book, slot, feed)  # it has lost the thread, and nothing was written that would show it
        elif feed is None or feed.number > number:
            book.send(uid, Withdrawn(partition, number, False, slot.right))
        elif transfer.is_idle(slot, feed) and feed.sent == next_number and digest != slot.items.digest:
            book.repairs += 1
            transfer.again(book, slot, feed)
