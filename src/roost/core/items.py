"""The items of one partition: key -> (version, value or tombstone), and how two such sets become one.

Merging is per key: the greater version wins, unless the service brings a merge of its own for two live values. With
the greater version it is commutative, associative and idempotent, so it does not matter how often, in which order or
from how many sides items arrive: healing is "send items, merge". A copy does not merge what its holder sends, it takes
it over as it is (`replace_items`): the holder knows better, and the two stay equal to the last byte.

Keys that begin with `OUTCOME`, a byte that no encoded key begins with, are the outcomes of requests: they are kept,
copied and moved with the items they belong to, and nobody sees them.

A digest of the whole set is kept up to date with every write: the exclusive or of a hash of each item, hence
independent of order. It is kept by bucket of the key's hash, so that two sets find where they differ without
comparing all. The value is part of it, since a merge of the service's own may give one version two values for a while.

Tombstones are items too, else an older copy would bring a deleted key back. `collect` drops those that are old enough,
and `collected_until` remembers it: what comes back from before that moment, under a key that is not known any more,
is set aside and counted instead of merged. `forget_outcomes` drops old outcomes, which are never asked for again.

Invariants: `live` counts the items with a value, `size_bytes` the bytes of all keys and values; the digest is that of
the contents; `greatest` is never below any version in the set; a stored item is never changed, only replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated

import msgspec
from xxhash import xxh3_64_intdigest

__all__ = ["BUCKETS", "OUTCOME", "Change", "Item", "ItemSet", "Merge"]

BUCKETS = 16
OUTCOME = 0xC1
"""The first byte of an outcome's key. msgpack never uses it."""


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One key with its newest version. Travels as it is stored, so that a million need no conversion."""

    key: Annotated[bytes, msgspec.Meta(min_length=1)]
    stamp: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
    uid: Annotated[int, msgspec.Meta(ge=0)]
    value: bytes | None
    """None: a tombstone."""

    @property
    def version(self) -> tuple[int, int]:
        """Greater is newer; unique for every write."""
        return (self.stamp, self.uid)


Change = tuple[bytes, bytes | None]
"""(key, value or None to delete): a write that has no version yet."""

Merge = Callable[[bytes, bytes, bytes], bytes]
"""(key, a, b) -> the value of both; a is the value with the lower version."""


ITEM_OVERHEAD_BYTES = 24
"""What an item costs on the wire beside its key and value: stamp, uid and the lengths."""


def weight_of(item: Item) -> int:
    """About the bytes of an item on the wire."""
    return len(item.key) + len(item.value or b"") + ITEM_OVERHEAD_BYTES


def mark_of(item: Item) -> int:
    """What an item adds to the digest."""
    mark = xxh3_64_intdigest(item.key, (item.stamp * 0x9E3779B97F4A7C15 ^ item.uid) & 0xFFFFFFFFFFFFFFFF)
    return mark if item.value is None else xxh3_64_intdigest(item.value, mark)


def order_of(item: Item) -> tuple[int, int, bool, bytes]:
    """Greater wins. Beyond the version only where an own merge gave one version two values."""
    return (item.stamp, item.uid, item.value is None, item.value or b"")


def bucket_of(key: bytes) -> int:
    """The bucket of a key. Not the bits that chose its partition: those are seeded differently."""
    return xxh3_64_intdigest(key) % BUCKETS


class ItemSet:
    """Items of one partition. Keys are encoded; order of iteration is order of arrival."""

    __slots__ = (
        "buckets",
        "changed",
        "collected_until",
        "greatest",
        "items",
        "live",
        "merge",
        "set_aside",
        "size_bytes",
    )

    def __init__(self, merge: Merge | None = None) -> None:
        self.items: dict[bytes, Item] = {}
        self.merge = merge
        self.live = 0
        self.size_bytes = 0
        self.greatest = 0
        self.collected_until = 0
        self.set_aside = 0
        self.buckets: list[int] = []
        self.changed: dict[bytes, None] | None = None

    def __len__(self) -> int:
        return len(self.items)

    def __bool__(self) -> bool:
        return bool(self.items)

    def __repr__(self) -> str:
        return f"<ItemSet: {self.live} items, {self.size_bytes} bytes, digest {self.digest:016x}>"

    @property
    def digest(self) -> int:
        """Equal sets have equal digests."""
        total = 0
        for bucket in self.buckets:
            total ^= bucket
        return total

    @property
    def fingerprint(self) -> list[int]:
        """The digests by bucket; empty for an empty set."""
        return list(self.buckets) if self.items else []

    def get(self, key: bytes) -> bytes | None:
        """The value, or None if there is none (a stored value is never None: it is encoded)."""
        item = self.items.get(key)
        return None if item is None else item.value

    def write(self, changes: Iterable[Change], stamp: int, uid: int) -> None:
        """Commit changes under one version: `stamp`, or one more than the greatest here if that is later."""
        stamp = max(stamp, self.greatest + 1)
        for key, value in changes:
            if value is not None or key in self.items:
                self._store(Item(key, stamp, uid, value), self.items.get(key))

    def merge_items(self, items: Iterable[Item], *, uid: int = 0) -> int:
        """Merge items from elsewhere; returns how many of them changed something here.

        What an own merge makes of two values gets a new version of the node `uid`, if one is given: so two copies
        never have two values of one version.
        """
        merged = 0
        for theirs in items:
            mine = self.items.get(theirs.key)
            if mine is None:
                if theirs.stamp <= self.collected_until:
                    self.set_aside += 1
                    continue
                self._store(theirs, None)
                merged += 1
            elif (winner := self._winner(mine, theirs, uid)) is not mine:
                self._store(winner, mine)
                merged += 1
        return merged

    def would_change(self, theirs: Item) -> bool:
        """Would merging this item change anything?"""
        mine = self.items.get(theirs.key)
        if mine is None:
            return theirs.stamp > self.collected_until
        return self._winner(mine, theirs, 1) is not mine

    def supersede_items(self, items: Iterable[Item]) -> int:
        """Take over those that are newer, without a merge: both sets are copies of what one holder wrote."""
        taken = 0
        for theirs in items:
            mine = self.items.get(theirs.key)
            if mine is None or order_of(mine) < order_of(theirs):
                self._store(theirs, mine)
                taken += 1
        return taken

    def replace_items(self, items: Iterable[Item]) -> None:
        """Take items over as they are, whatever is here."""
        known = self.items
        for item in items:
            self._store(item, known.get(item.key))

    def _winner(self, mine: Item, theirs: Item, uid: int) -> Item:
        if mine == theirs:
            return mine
        low, high = (mine, theirs) if order_of(mine) < order_of(theirs) else (theirs, mine)
        if self.merge is None or low.value is None or high.value is None or low.key[0] == OUTCOME:
            return high
        value = self.merge(low.key, low.value, high.value)
        if value == high.value:
            return high
        if not uid:
            return Item(low.key, high.stamp, high.uid, value)
        return mine if value == mine.value else Item(low.key, max(self.greatest, high.stamp) + 1, uid, value)

    def _store(self, item: Item, old: Item | None) -> None:
        key = item.key
        buckets = self.buckets
        if not buckets:
            buckets = self.buckets = [0] * BUCKETS
        mark = mark_of(item)
        if old is not None:
            mark ^= mark_of(old)
            self.live -= old.value is not None and key[0] != OUTCOME
            self.size_bytes -= len(key) + len(old.value or b"")
        buckets[bucket_of(key)] ^= mark
        self.items[key] = item
        self.size_bytes += len(key)
        if item.value is not None:
            self.live += key[0] != OUTCOME
            self.size_bytes += len(item.value)
        if item.stamp > self.greatest:
            self.greatest = item.stamp
        if self.changed is not None:
            self.changed[key] = None

    def collect(self, until: int) -> int:
        """Drop the tombstones of `until` and before; returns how many."""
        old = [item for item in self.items.values() if item.value is None and item.stamp <= until]
        self._drop(old)
        if old:
            self.collected_until = max(self.collected_until, *(item.stamp for item in old))
        return len(old)

    def forget_outcomes(self, until: int) -> int:
        """Drop the outcomes of `until` and before; returns how many."""
        old = [item for item in self.items.values() if item.key[0] == OUTCOME and item.stamp <= until]
        self._drop(old)
        return len(old)

    def take(self, keys: Iterable[bytes]) -> list[Item]:
        """Take these items out."""
        taken = [self.items[key] for key in keys]
        self._drop(taken)
        return taken

    def _drop(self, items: list[Item]) -> None:
        for item in items:
            del self.items[item.key]
            self.buckets[bucket_of(item.key)] ^= mark_of(item)
            self.size_bytes -= len(item.key) + len(item.value or b"")
            self.live -= item.value is not None and item.key[0] != OUTCOME

    def track(self) -> None:
        """Note every key that changes from now on, for `take_changed`."""
        self.changed = {}

    def take_changed(self) -> list[bytes]:
        """The keys that changed since the last call, or since `track`."""
        changed = list(self.changed or ())
        self.changed = {}
        return changed

    def untrack(self) -> None:
        """Stop noting changes."""
        self.changed = None

    def chunk(self, keys: Sequence[bytes], start: int, bytes_max: int) -> tuple[list[Item], int]:
        """The items under `keys[start:]`, as they are now, as many as fit into `bytes_max` (at least one, if any is
        left: a large one goes alone); and where to go on from, whatever is written in between.
        """
        items: list[Item] = []
        size = 0
        for position in range(start, len(keys)):
            item = self.items.get(keys[position])
            if item is None:
                continue
            size += weight_of(item)
            if items and size > bytes_max:
                return items, position
            items.append(item)
            if size >= bytes_max:
                return items, position + 1
        return items, len(keys)

    def differing_buckets(self, theirs: list[int]) -> list[int]:
        """The buckets in which another set, given by its bucket digests, differs from this one."""
        mine = self.buckets or [0] * BUCKETS
        return [bucket for bucket, (a, b) in enumerate(zip(mine, theirs or [0] * BUCKETS, strict=True)) if a != b]

    def in_buckets(self, buckets: Iterable[int]) -> list[bytes]:
        """The keys in these buckets. Walks the whole set."""
        wanted = frozenset(buckets)
        return [key for key in self.items if bucket_of(key) in wanted]

    def check(self) -> None:
        """Assert the invariants; walks the whole set."""
        values = list(self.items.values())
        assert self.live == sum(item.value is not None and item.key[0] != OUTCOME for item in values), "live miscounts"
        assert self.size_bytes == sum(len(item.key) + len(item.value or b"") for item in values), "bytes miscount"
        assert all(item.stamp <= self.greatest for item in values), "a version above the greatest"
        assert all(key == item.key for key, item in self.items.items()), "an item under a wrong key"
        buckets = [0] * BUCKETS
        for item in values:
            buckets[bucket_of(item.key)] ^= mark_of(item)
        assert (self.buckets or [0] * BUCKETS) == buckets, "the digest is not that of the contents"
