"""Feeding a copy: how the holder brings another node into step and keeps it there; the messages, and the holder's end.

    holder                                  copy
      Offer            ------------------->           the right under which it is fed
                       <------------------- Accepted  what is here already, as digests by bucket
      Chunk 0, 1, ...  ------------------->           the first names the buckets that differ: they are replaced
                       <------------------- Received  a few chunks are under way at a time
      (from then on: whatever is written, as it is written; changes of the copies in their place among the writes)

Chunks are taken over in order and acknowledged in order; what is under way is sent again until it is acknowledged, so a
broken link costs time and nothing else. What is not under way is a set of keys: however far a copy lags behind, it
costs the holder no more than the names of what changed, and it gets the newest value of each only. Keys go out in
*rounds*: the first one fills the copy, later ones are what was written meanwhile; when a round has been acknowledged,
so is every write that came before it began. A copy is *in step* once it has its first round. What is written before
that goes out at once all the same, so that it is on another node however long filling takes.

A chunk after which nothing is left bears the digest of the whole set: a copy that differs then is compared anew.

New copies are filled side by side as long as what each may have under way fits into the budget, and no faster than
`rate_bytes` a second. `receiving.py` is the other end.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import msgspec

from roost.core.book import Book
from roost.core.items import BUCKETS, Item, weight_of
from roost.core.tenure import Right, Slot

__all__ = [
    "Accepted",
    "Chunk",
    "Feed",
    "Offer",
    "Phase",
    "Received",
    "Refused",
    "Withdrawn",
    "accepted",
    "again",
    "is_idle",
    "missed",
    "pump_all",
    "received",
    "refused",
    "start_waiting",
    "stop",
    "tick",
    "want",
]

FLIGHT_MAX = 4
"""Chunks under way to one copy of one partition."""


class Phase(Enum):
    """How far a copy has come."""

    OFFERED = "offered"
    COMPARED = "compared"
    """What differs is known; it waits for the budget."""
    FILLING = "filling"
    IN_STEP = "in step"


class Offer(msgspec.Struct, frozen=True, array_like=True, tag=9, gc=False):
    """I hold `partition` under `right`, and will send you all of it. What have you of it?"""

    partition: int
    feed: int
    right: Right
    collected_until: int


class Accepted(msgspec.Struct, frozen=True, array_like=True, tag=10, gc=False):
    """Send it. `fingerprint`: the digests of what is here, by bucket; empty: nothing."""

    partition: int
    feed: int
    fingerprint: list[int]


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=11, gc=False):
    """I do not follow you, or have lost the thread; `right` is the greatest that I know, and I promised that much."""

    partition: int
    feed: int
    right: Right
    promised: tuple[int, int]


class Chunk(msgspec.Struct, frozen=True, array_like=True, tag=12, gc=False):
    """Items, as they were when it was sent."""

    partition: int
    feed: int
    number: int
    items: list[Item]
    clear: list[int] = []
    """Buckets of which nothing that is there now is part of the copy."""
    right: Right | None = None
    """From here on these are the copies."""
    digest: int | None = None
    """Of the whole set, with these items in it."""
    collect: tuple[int, int] | None = None
    """Drop tombstones, and outcomes, up to these."""


class Received(msgspec.Struct, frozen=True, array_like=True, tag=13, gc=False):
    """All chunks up to that one are here; `equal`: and so the sets, as far as the digest says."""

    partition: int
    feed: int
    number: int
    equal: bool


class Withdrawn(msgspec.Struct, frozen=True, array_like=True, tag=17, gc=False):
    """I send you no more. `forget`: others have all that you have. `right` says who are the copies."""

    partition: int
    feed: int
    forget: bool
    right: Right


class Flying(NamedTuple):
    """A chunk that is not acknowledged yet."""

    chunk: Chunk
    last: bool
    """Of its round."""
    covers: int
    """The last write before that round."""
    live: int
    """All that was written from the offer up to this write is in this chunk or one before."""


@dataclass(slots=True)
class Feed:
    """What one copy has, and what it is being sent."""

    target: int
    number: int
    resend_at: float
    phase: Phase = Phase.OFFERED
    flight: deque[Flying] = field(default_factory=deque)
    sent: int = 0
    """The next chunk's number."""
    round_open: bool = False
    """The last chunk of the present round has not been sent."""
    keys: list[bytes] = field(default_factory=list)
    position: int = 0
    covers: int = 0
    right: Right | None = None
    """What goes with the round's last chunk."""
    changed: dict[bytes, None] = field(default_factory=dict)
    """For the next round."""
    differing: list[int] = field(default_factory=list)
    """The buckets that are to be filled."""
    clear: list[int] = field(default_factory=list)
    """For the next chunk."""
    collect: tuple[int, int] | None = None
    since: int = 0
    """The last write before the offer. What came later goes out before the rest."""
    live: int = 0
    """The last write of those since the offer that the copy has, in step or not."""
    said: tuple[int, int, int] = (0, 0, 0)
    """The order of the newest right that was sent; those before it have been superseded."""
    told: tuple[int, int, int] = (0, 0, 0)
    """The order of the newest right that the copy has."""
    acked: int = 0
    """The last write that the copy has; 0 as long as it is not in step."""

    @property
    def in_step(self) -> bool:
        return self.phase is Phase.IN_STEP


def want(book: Book, slot: Slot, uid: int) -> None:
    """Feed this node."""
    if uid not in slot.feeds and book.now >= slot.retry_at:
        share_changes(slot)
        if slot.items.changed is None:
            slot.items.track()
        slot.feeds[uid] = Feed(uid, book.next_number(), 0.0, since=slot.written, live=slot.written)
        _offer(book, slot, slot.feeds[uid])


def start_waiting(book: Book) -> None:
    """Fill those who wait for it, as far as the budget goes; one is always allowed."""
    while book.waiting:
        partition, uid = next(iter(book.waiting))
        slot = book.slots[partition]
        feed = slot.feeds.get(uid)
        if feed is None or feed.phase is not Phase.COMPARED:
            del book.waiting[partition, uid]
            continue
        size = min(slot.items.size_bytes + 24 * len(slot.items) + 64, book.chunk_bytes)
        if book.reserved and book.reserved_bytes + size > book.budget_bytes:
            return
        del book.waiting[partition, uid]
        book.reserved[partition, uid] = size
        book.reserved_bytes += size
        _fill(book, slot, feed)


def _offer(book: Book, slot: Slot, feed: Feed) -> None:
    feed.resend_at = book.now + book.resend_seconds
    book.active[slot.partition] = None
    pending = slot.pending
    right = pending if pending is not None and feed.target in pending.copies else slot.right
    book.send(feed.target, Offer(slot.partition, feed.number, right, slot.items.collected_until))


def stop(book: Book, slot: Slot, uid: int, *, forget: bool = False) -> None:
    """Send no more to this node, and say so."""
    feed = slot.feeds.get(uid)
    book.end_feed(slot, uid)
    if feed is not None and book.is_live(uid):
        book.send(uid, Withdrawn(slot.partition, feed.number, forget, slot.right))


def accepted(book: Book, slot: Slot, uid: int, answer: Accepted) -> None:
    """Send what differs."""
    feed = _current(slot, uid, answer.feed)
    if feed is None or feed.phase is not Phase.OFFERED or len(answer.fingerprint) not in (0, BUCKETS):
        return
    share_changes(slot)
    slot.refused_at = 0.0
    feed.phase = Phase.COMPARED
    feed.differing = slot.items.differing_buckets(answer.fingerprint)
    if feed.differing and answer.fingerprint:
        feed.clear = feed.differing
        _send(book, slot, feed, [], live=True)
    if not feed.differing or not slot.items:
        _fill(book, slot, feed)
    else:
        book.waiting[slot.partition, uid] = None
    book.touch(slot)


def _fill(book: Book, slot: Slot, feed: Feed) -> None:
    """Begin the first round."""
    share_changes(slot)
    feed.phase = Phase.FILLING
    feed.right = slot.pending or slot.right
    everything = len(feed.differing) == BUCKETS
    feed.keys = list(slot.items.items) if everything else slot.items.in_buckets(feed.differing)
    feed.covers = slot.written
    feed.round_open = True
    pump(book, slot, feed)


def share_changes(slot: Slot) -> None:
    """What was written since the last time is for every feed's next round."""
    if slot.items.changed:
        changed = dict.fromkeys(slot.items.take_changed())
        for feed in slot.feeds.values():
            feed.changed.update(changed)


def pump_all(book: Book, slot: Slot) -> None:
    """Send what is to be sent to all copies."""
    share_changes(slot)
    for feed in slot.feeds.values():
        pump(book, slot, feed)


def pump(book: Book, slot: Slot, feed: Feed) -> None:
    """Send as much as may be under way."""
    while feed.phase is not Phase.OFFERED and len(feed.flight) < FLIGHT_MAX:
        if feed.changed and not feed.in_step:
            _send_live(book, slot, feed)
            continue
        if feed.phase is Phase.COMPARED:
            return
        if not feed.round_open and not _begin_round(slot, feed):
            if feed.in_step and not feed.flight and feed.acked < slot.written:
                feed.acked = slot.written  # by commands that changed nothing
                book.touch(slot)
            return
        filling = feed.phase is Phase.FILLING and feed.position < len(feed.keys)
        if filling and book.rate_bytes and book.allowance <= 0:
            book.active[slot.partition] = None
            return
        items, feed.position = slot.items.chunk(feed.keys, feed.position, book.chunk_bytes)
        if filling:
            size = sum(map(weight_of, items))
            book.filled_bytes += size
            book.allowance -= size
        _send(book, slot, feed, items)


def _send_live(book: Book, slot: Slot, feed: Feed) -> None:
    """What has been written since the offer, ahead of what the copy is being filled with."""
    keys = list(feed.changed)
    items, position = slot.items.chunk(keys, 0, book.chunk_bytes)
    feed.changed = dict.fromkeys(keys[position:])
    _send(book, slot, feed, items, live=True)


def _begin_round(slot: Slot, feed: Feed) -> bool:
    """Is there anything to be said? If so it is the next round's."""
    share_changes(slot)
    right = slot.pending or slot.right
    news = right.order > feed.said
    if not feed.changed and not news and feed.collect is None:
        return False
    feed.keys, feed.position = list(feed.changed), 0
    feed.changed = {}
    feed.covers = slot.written
    feed.right = right if news else None
    feed.round_open = True
    return True


def _send(book: Book, slot: Slot, feed: Feed, items: list[Item], *, live: bool = False) -> None:
    last = not live and feed.position >= len(feed.keys)
    right = collect = digest = None
    if last:
        feed.round_open = False
        right, feed.right = feed.right, None
        collect, feed.collect = feed.collect, None
        if right is not None:
            feed.said = right.order
        if not feed.changed and not slot.items.changed:
            digest = slot.items.digest
    chunk = Chunk(slot.partition, feed.number, feed.sent, items, feed.clear, right, digest, collect)
    feed.clear = []
    feed.sent += 1
    if not feed.flight:
        feed.resend_at = book.now + book.resend_seconds
    all_live = not feed.changed and not slot.items.changed
    feed.flight.append(Flying(chunk, last, feed.covers, slot.written if live and all_live else 0))
    book.active[slot.partition] = None
    book.send(feed.target, chunk)


def received(book: Book, slot: Slot, uid: int, answer: Received) -> None:
    """The copy has everything up to here."""
    feed = _current(slot, uid, answer.feed)
    if feed is None:
        return
    if not answer.equal:
        book.repairs += 1
        again(book, slot, feed)
        return
    while feed.flight and feed.flight[0].chunk.number <= answer.number:
        chunk, last, covers, live = feed.flight.popleft()
        feed.resend_at = book.now + book.resend_seconds
        if chunk.right is not None:
            feed.told = chunk.right.order
        feed.live = max(feed.live, live)
        if last or live:
            book.touch(slot)
        if last:
            feed.acked = covers
            if feed.phase is Phase.FILLING:
                feed.phase = Phase.IN_STEP
                book.release(slot, uid)
        if feed.in_step:
            feed.acked = max(feed.acked, feed.live)
    pump(book, slot, feed)


def again(book: Book, slot: Slot, feed: Feed) -> None:
    """Compare anew."""
    book.end_feed(slot, feed.target)
    want(book, slot, feed.target)
    book.touch(slot)


def refused(book: Book, slot: Slot, uid: int, answer: Refused) -> None:
    """It has lost the thread, and is compared anew; or it follows another, whom it has promised to."""
    feed = _current(slot, uid, answer.feed)
    if feed is not None:
        if answer.promised[0] >= slot.right.epoch and answer.promised[1] != book.me and not slot.refused_at:
            slot.refused_at = book.now
        again(book, slot, feed)
        slot.retry_at = max(slot.retry_at, book.now + book.pause_seconds)
    book.learn(slot, answer.right)


def _current(slot: Slot, uid: int, number: int) -> Feed | None:
    feed = slot.feeds.get(uid)
    return feed if feed is not None and feed.number == number else None


def is_idle(slot: Slot, feed: Feed) -> bool:
    """The copy has everything, and nothing is under way."""
    return feed.in_step and not feed.flight and not feed.round_open and not feed.changed and not slot.items.changed


def tick(book: Book, slot: Slot) -> None:
    """Send again what was not acknowledged, and what waited for the rate."""
    for feed in slot.feeds.values():
        if feed.phase is Phase.OFFERED:
            if book.now >= feed.resend_at:
                _offer(book, slot, feed)
        elif feed.flight and book.now >= feed.resend_at:
            feed.resend_at = book.now + book.resend_seconds
            for flying in feed.flight:
                book.send(feed.target, flying.chunk)
        pump(book, slot, feed)


def missed(slot: Slot, uid: int, now: float) -> None:
    """Something that was sent to this node did not arrive."""
    feed = slot.feeds.get(uid)
    if feed is not None:
        feed.resend_at = now
