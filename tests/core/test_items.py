"""The laws of item sets."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from roost.core.items import Item, ItemSet

KEYS = st.sampled_from([b"a", b"b", b"c", b"d"])


def valued(key: bytes, stamp: int, uid: int, value: bytes | None) -> Item:
    return Item(key, stamp, uid, value)


def histories() -> st.SearchStrategy[list[Item]]:
    values = st.sampled_from([b"x", b"yy", None])
    return st.lists(st.builds(valued, KEYS, st.integers(1, 4), st.integers(1, 3), values), max_size=12)


def set_of(items: Sequence[Item]) -> ItemSet:
    result = ItemSet()
    result.merge_items(items)
    result.check()
    return result


@given(histories(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_merging_does_not_depend_on_order_or_repetition(items: list[Item], rng: Random) -> None:
    shuffled = items + rng.sample(items, len(items) // 2)
    rng.shuffle(shuffled)
    one, other = set_of(items), set_of(shuffled)
    assert one.items == other.items
    assert one.digest == other.digest
    assert one.live == other.live


@given(histories(), histories())
@settings(deadline=None)
def test_sets_that_merge_both_ways_are_equal_and_then_nothing_changes(a: list[Item], b: list[Item]) -> None:
    left, right = set_of(a), set_of(b)
    left.merge_items(list(right.items.values()))
    right.merge_items(list(left.items.values()))
    left.check()
    assert left.items == right.items
    assert left.buckets == right.buckets or not (left or right)
    assert left.merge_items(right.items.values()) == 0


@given(histories(), histories())
@settings(deadline=None)
def test_differing_buckets_hold_every_difference(a: list[Item], b: list[Item]) -> None:
    left, right = set_of(a), set_of(b)
    differing = left.differing_buckets(right.buckets)
    sent = [left.items[key] for key in left.in_buckets(differing)]
    back = [right.items[key] for key in right.in_buckets(differing)]
    right.merge_items(sent)
    left.merge_items(back)
    assert left.items == right.items
    assert left.differing_buckets(right.buckets) == []


@given(histories())
@settings(deadline=None)
def test_a_write_is_newer_than_everything_in_the_partition(items: list[Item]) -> None:
    target = set_of(items)
    target.write([(b"a", b"new"), (b"b", None)], stamp=1, uid=1)
    target.check()
    assert target.get(b"a") == b"new"
    assert target.get(b"b") is None
    target.merge_items(items)
    assert target.get(b"a") == b"new"
    assert target.get(b"b") is None


def test_an_own_merge_joins_two_live_values_and_the_result_is_the_same_on_both_sides() -> None:
    def union(key: bytes, a: bytes, b: bytes) -> bytes:
        return bytes(sorted(set(a) | set(b)))

    sides = [ItemSet(union), ItemSet(union)]
    sides[0].write([(b"k", b"ab")], stamp=10, uid=1)
    sides[1].write([(b"k", b"bc")], stamp=20, uid=2)
    first = list(sides[0].items.values())
    sides[0].merge_items(list(sides[1].items.values()))
    sides[1].merge_items(first)
    assert sides[0].get(b"k") == sides[1].get(b"k") == b"abc"


def test_a_deleted_key_does_not_come_back_with_an_older_copy() -> None:
    target = ItemSet()
    target.write([(b"k", b"old")], stamp=10, uid=1)
    stale = list(target.items.values())
    target.write([(b"k", None)], stamp=20, uid=1)
    assert target.live == 0
    assert target.merge_items(stale) == 0
    assert target.collect(until=20) == 1
    target.check()
    assert target.merge_items(stale) == 0
    assert (target.set_aside, target.get(b"k")) == (1, None)
    target.write([(b"k", b"new")], stamp=30, uid=1)
    assert target.get(b"k") == b"new"


def test_chunks_are_bounded_and_go_on_while_writes_do() -> None:
    target = ItemSet()
    for number in range(100):
        target.write([(b"key%02d" % number, b"x" * 100)], stamp=number, uid=1)
    target.track()
    keys, start = list(target.items), 0
    copy = ItemSet()
    chunks = 0
    while start < len(keys):
        chunk, start = target.chunk(keys, start, 1000)
        chunks += 1
        assert 1 <= len(chunk) <= 10
        copy.merge_items(chunk)
        target.write([(b"key%02d" % chunks, b"y"), (b"new%02d" % chunks, b"z")], stamp=1000, uid=1)
    assert chunks >= 10
    copy.merge_items(target.chunk(target.take_changed(), 0, 1 << 20)[0])
    assert copy.items == target.items
    assert copy.digest == target.digest
    assert target.take_changed() == []
