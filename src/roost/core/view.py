"""The table of members that a node knows, its merge, and its digest.

For one uid the greater entry wins (`merge`), so any order of arrival gives the same result. Two rules stand before
the table. A stranger that is already down or has left is not entered, only marked: nothing can be expected of it (but a
joiner takes over who is down from the view of another, with the time since when). And what was forgotten or marked is
entered again only with a greater entry than was known, that is, by the member's own word.

The digest is the sum modulo 2**64 of a hash of each live member's placement: the order does not matter, and one
changed entry costs two hashes, however large the cluster.

Invariants: the own entry is always there; the digest and the index of names are what a fresh computation gives.
Source: A. Das, I. Gupta, A. Motivala, "SWIM", DSN 2002, section 4.2 (precedence).
"""

from __future__ import annotations

import msgspec
from xxhash import xxh3_64_intdigest

from roost.core.gossip import ADDRESS, NAME, Entry, Health, Report

__all__ = ["View", "digest_of", "in_ring", "is_live", "is_valid", "merge"]

INCARNATION_MAX = 2**62
"""Nobody gets there by one at a time; a greater one would leave its member no room to refute."""
MARKS_MAX = 4096
"""Members remembered only as gone. The oldest mark goes first; without it a stale entry could flash up once."""
REPORTS_SPARE = 256
"""Reports kept of members whose entries have not arrived yet."""
MASK = (1 << 64) - 1
WEIGHT_MIN, WEIGHT_MAX = 0.001, 1000.0

_encoder = msgspec.msgpack.Encoder(order="deterministic")


def is_live(entry: Entry) -> bool:
    """Neither down nor left: suspect members count as live."""
    return entry.state != "left" and entry.health != Health.DOWN


def in_ring(entry: Entry) -> bool:
    """Whether partitions may be placed on the member."""
    return entry.state == "up" and entry.health != Health.DOWN


def is_valid(entry: Entry) -> bool:
    """Whether the entry can be taken in: what fails this breaks the protocol and is ignored."""
    named = NAME.fullmatch(entry.name) is not None and ADDRESS.fullmatch(entry.address) is not None
    placed = entry.weight == 0 or WEIGHT_MIN <= entry.weight <= WEIGHT_MAX  # what a ring takes; false for nan
    numbered = entry.uid > 0 and 0 <= entry.incarnation <= INCARNATION_MAX
    return numbered and named and placed and entry.zone.isprintable()


def merge(a: Entry, b: Entry) -> Entry:
    """The greater of two entries of one uid.

    An author never writes two entries of one incarnation; the encoded form decides between such forgeries, so that
    all still agree.
    """
    if a.order != b.order:
        return a if a.order > b.order else b
    if a == b:
        return a
    return a if _encoder.encode(a) >= _encoder.encode(b) else b


def digest_of(entry: Entry) -> int:
    """One member's part in the digest: what placement depends on. 0 for whoever is not live."""
    if not is_live(entry):
        return 0
    services = sorted(entry.services.items())
    row = (entry.name, entry.uid, in_ring(entry), services, entry.zone, entry.weight, entry.resting)
    return xxh3_64_intdigest(_encoder.encode(row))


class View:
    """Entries by uid, with the index of names, the reports, and the marks of who is gone."""

    __slots__ = ("_agreed", "_digests", "_live_others", "_marks", "_names", "digest", "entries", "me", "reports")

    def __init__(self, me: Entry) -> None:
        self.me = me
        self.entries: dict[int, Entry] = {}
        self.reports: dict[int, Report] = {}
        self.digest = 0
        self._digests: dict[int, int] = {}
        self._names: dict[str, list[int]] = {}
        self._marks: dict[int, tuple[bool, int, int]] = {}
        self._live_others: list[int] | None = None
        self._agreed: bool | None = None
        self.put(me)

    def put(self, entry: Entry) -> Entry | None:
        """Enter it in place of what was known of its uid, which is returned."""
        uid = entry.uid
        before = self.entries.get(uid)
        self.entries[uid] = entry
        self._agreed = None
        self._marks.pop(uid, None)
        if uid == self.me.uid:
            self.me = entry
        if before is None:
            self._names.setdefault(entry.name, []).append(uid)
        if before is None or is_live(before) != is_live(entry):
            self._live_others = None
        self._count(uid, digest_of(entry))
        return before

    def remove(self, uid: int, *, mark: bool) -> Entry:
        """Drop an entry; with `mark` only a greater one will be taken in again."""
        entry = self.entries.pop(uid)
        self._count(uid, 0)
        self.reports.pop(uid, None)
        self._live_others = self._agreed = None
        uids = self._names[entry.name]
        uids.remove(uid)
        if not uids:
            del self._names[entry.name]
        if mark:
            self.mark(entry)
        return entry

    def mark(self, entry: Entry) -> None:
        """Remember that the member was gone at this entry, without entering it."""
        known = self._marks.pop(entry.uid, None)
        self._marks[entry.uid] = entry.order if known is None else max(known, entry.order)
        if len(self._marks) > MARKS_MAX:
            del self._marks[next(iter(self._marks))]

    def barring(self, entry: Entry) -> Entry | None:
        """What an unknown member's entry is held against: itself as it was marked, and down. None for who has left."""
        left, incarnation, _ = self._marks[entry.uid]
        return None if left else msgspec.structs.replace(entry, incarnation=incarnation, health=Health.DOWN)

    def newer(self, entry: Entry) -> bool:
        """Whether merging it would change what is known, entries and marks."""
        known = self.entries.get(entry.uid)
        if known is not None:
            same_run = (known.name, known.started) == (entry.name, entry.started)
            return same_run and merge(known, entry) != known
        mark = self._marks.get(entry.uid)
        return mark is None or entry.order > mark

    def named(self, name: str) -> list[Entry]:
        """All entries of that name, in the order of their arrival."""
        return [self.entries[uid] for uid in self._names.get(name, ())]

    def live_others(self) -> list[int]:
        """The uids of all live members but the own. Not to be changed by the caller."""
        if self._live_others is None:
            me = self.me.uid
            self._live_others = [uid for uid, entry in self.entries.items() if uid != me and is_live(entry)]
        return self._live_others

    def sorted(self) -> list[Entry]:
        """All entries by (name, uid)."""
        return sorted(self.entries.values(), key=lambda entry: (entry.name, entry.uid))

    def hear(self, report: Report) -> bool:
        """Take in a report; whether it is news. Those of unknown members are kept within a bound."""
        known = self.reports.get(report.uid)
        if known is None:
            if report.uid not in self.entries and len(self.reports) >= len(self.entries) + REPORTS_SPARE:
                return False
        elif known.number >= report.number:
            return False
        self.reports[report.uid] = report
        self._agreed = None
        return True

    def agreed(self) -> bool:
        """Whether every other live member's last report is this view's digest."""
        if self._agreed is None:
            self._agreed = self._compare()
        return self._agreed

    def _compare(self) -> bool:
        reports, digest = self.reports, self.digest
        return all((report := reports.get(uid)) is not None and report.digest == digest for uid in self.live_others())

    def _count(self, uid: int, number: int) -> None:
        self.digest = (self.digest - self._digests.pop(uid, 0) + number) & MASK
        if number:
            self._digests[uid] = number

    def check(self) -> None:
        """Assert the invariants."""
        assert self.entries[self.me.uid] is self.me
        assert self.digest == sum(digest_of(entry) for entry in self.entries.values()) & MASK
        indexed = [(name, uid) for name, uids in self._names.items() for uid in uids]
        assert sorted(indexed) == [(entry.name, entry.uid) for entry in self.sorted()]
        live = [uid for uid, entry in self.entries.items() if uid != self.me.uid and is_live(entry)]
        assert sorted(self.live_others()) == sorted(live)
        assert self.agreed() == self._compare()
        assert not any(uid in self._marks for uid in self.entries)
        assert len(self._marks) <= MARKS_MAX
