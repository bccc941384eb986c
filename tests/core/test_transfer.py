"""Feeding a copy: both ends, and what the link between them does."""

from __future__ import annotations

from typing import Any

import pytest

from roost.core.items import ItemSet
from roost.core.rights import Heard
from roost.core.tenure import Right, Slot
from roost.core.transfer import FLIGHT_MAX, Accepted, Chunk, Offer, Phase, Received, Refused
from tests.core.copies_world import World
from tests.core.explorer import Small, small


def slot_of(world: World, uid: int) -> Slot:
    return world.nodes[uid].slots[0]


def joined(items: int, **options: Any) -> Small:
    """1 holds some items alone, and the ring wants 2 to copy them."""
    world = small(2, replicas=1, items=items, **options)
    world.turn((1, 2), 2)
    return world


def test_a_copy_is_offered_compared_filled_and_told_what_is_written() -> None:
    world = joined(2)
    said: list[str] = []
    while world.plain_step() or world.wrong():
        for messages in world.wires.values():
            said += [type(each).__name__ for each in messages if type(each).__name__ not in said]
    assert said == ["Offer", "Accepted", "Chunk", "Received"]
    assert slot_of(world, 1).feeds[2].phase is Phase.IN_STEP
    world.put(1)
    (chunk,) = world.wires[1, 2]
    assert isinstance(chunk, Chunk)
    assert [item.key for item in chunk.items] == [b"\xa500003"]


def test_chunks_are_taken_over_once_each_and_in_order() -> None:
    world = small(2, replicas=2, items=0)
    world.put(1)
    world.put(1)
    first, second = world.wires[1, 2]
    world.step(2, Heard(1, second))
    assert len(slot_of(world, 2).items) == 0, "one is missing before it"
    assert not world.under_way(Received)
    for chunk in (first, first, second, first):
        world.step(2, Heard(1, chunk))
    assert [answer.number for answer in world.wires[2, 1]] == [first.number, first.number, second.number, second.number]
    world.wires[1, 2] = []
    world.rest()


def test_what_is_under_way_is_sent_again_until_it_is_acknowledged() -> None:
    world = small(2, replicas=2)
    world.put(1)
    (lost,) = world.wires[1, 2]
    world.wires[1, 2] = []
    world.tick(0.5)
    assert not world.under_way(Chunk), "the copy may still be at it"
    world.tick(0.6)
    assert lost in world.wires[1, 2]
    world.step(2, Heard(1, lost))
    world.wires = {}
    world.tick(1.1)
    assert lost in world.wires[1, 2], "what got lost was the acknowledgement"
    world.rest()


def test_a_copy_that_lags_is_sent_the_newest_value_of_each_key_only() -> None:
    world = small(2, replicas=2, items=0)
    for count in range(100):
        world.put(1, 0, b"\xa5same", b"%d" % count)
    assert len(world.wires[1, 2]) == FLIGHT_MAX
    delivered = 0
    while world.busy():
        delivered += len(world.wires.get((1, 2), ())) > 0
        world.deliver(*world.busy()[0])
    assert slot_of(world, 2).items.get(b"\xa5same") == b"99"
    assert slot_of(world, 1).feeds[2].sent < 10


def test_only_the_buckets_that_differ_are_sent() -> None:
    world = small(2, replicas=2, items=60)
    world.own(2).slots[0].items.replace_items([next(iter(slot_of(world, 2).items.items.values()))])
    slot = world.own(2).slots[0]
    slot.incoming = None
    taken = slot.items.take([b"\xa500007"])
    world.put(1)
    chunk = world.until(Accepted)
    assert chunk.fingerprint == slot_of(world, 2).items.fingerprint
    world.deliver(2, 1)
    (clear, fill) = [each for each in world.wires[1, 2] if isinstance(each, Chunk) and (each.clear or each.items)]
    assert len(clear.clear) <= 2
    assert taken[0].key in [item.key for item in (*clear.items, *fill.items)]
    assert len(fill.items) < 20
    world.rest()


def test_a_copy_that_differs_though_it_has_everything_is_compared_anew() -> None:
    world = small(2, replicas=2, items=5)
    world.own(2).slots[0].items.take([b"\xa500002"])
    world.put(1)
    world.quiet()
    assert slot_of(world, 2).items.digest == slot_of(world, 1).items.digest
    assert world.nodes[1].book.repairs == 1


def test_filling_keeps_to_the_rate() -> None:
    world = joined(40, chunk_bytes=100, rate_bytes=500.0)
    world.quiet()
    before = world.nodes[1].book.filled_bytes
    for _ in range(10):
        world.tick(0.2)
        world.quiet()
    filled = world.nodes[1].book.filled_bytes - before
    assert 700 <= filled <= 1300
    world.rest()


def test_new_copies_are_filled_side_by_side_within_the_budget_and_one_is_always_allowed() -> None:
    world = Small(replicas=1, partitions=6, chunk_bytes=200, preferred=(1, 2))
    for uid in (1, 2):
        world.join(uid)
    world.rest()
    for uid in (1, 2):
        world.own(uid).book.budget_bytes = 420
    for partition in range(6):
        for _ in range(20):
            world.put(1, partition)
    world.turn((1, 2), 2)
    together = 0
    while world.plain_step() or world.wrong():
        feeds = [feed for slot in world.nodes[1].slots for feed in slot.feeds.values()]
        together = max(together, sum(feed.phase is Phase.FILLING for feed in feeds))
        assert world.nodes[1].book.reserved_bytes <= 420
        if not world.busy():
            world.tick()
    assert together == 2
    world.own(1).book.budget_bytes = 10
    world.turn((1, 2), 1)
    world.rest()
    world.turn((1, 2), 2)
    world.rest()


def test_a_copy_follows_the_greatest_right_and_nobody_else() -> None:
    world = small(3, replicas=2)
    node = world.own(2)
    node.step(Heard(3, Offer(0, 1, Right(9, 3, (3, 2)), 0)), 0.0)
    assert node.slots[0].incoming is not None
    assert node.slots[0].incoming.source == 3
    (refused,) = [effect.message for effect in node.step(Heard(1, Offer(0, 99, Right(1, 1, (1, 2)), 0)), 0.0)]  # type: ignore[union-attr]
    assert isinstance(refused, Refused)
    assert refused.right == Right(9, 3, (3, 2))


def test_a_node_that_neither_ring_nor_record_names_does_not_follow() -> None:
    world = small(3, replicas=2)
    (refused,) = [effect.message for effect in world.own(3).step(Heard(1, Offer(0, 9, Right(1, 1, (1, 2)), 0)), 0.0)]  # type: ignore[union-attr]
    assert isinstance(refused, Refused)


def test_what_an_earlier_feed_still_says_does_no_harm() -> None:
    world = small(2, replicas=2)
    world.put(1)
    (late,) = world.wires[1, 2]
    world.deliver(1, 2)
    (answer,) = world.wires[2, 1]
    world.own(2).slots[0].incoming = None
    world.put(1)
    world.quiet()
    assert slot_of(world, 1).feeds[2].number > late.feed, "the copy had lost the thread"
    world.step(2, Heard(1, late))
    world.step(1, Heard(2, answer))
    acked = slot_of(world, 1).acked
    world.rest()
    assert slot_of(world, 1).acked == acked


def refilled(*, known: bool) -> Small:
    """The copy at 2 is to be filled anew, in many chunks, and has something in every bucket that 1 has not."""
    world = small(2, replicas=2, items=40, chunk_bytes=200)
    slot = world.own(2).slots[0]
    slot.incoming = None
    if not known:
        slot.lineage = slot.known = (0, 0)
    for number in range(30):
        slot.items.write([(b"\xa5other%d" % number, b"y")], 1, 2)
    world.put(1)
    world.until(Accepted)
    world.deliver(2, 1)
    world.deliver(1, 2)
    return world


@pytest.mark.parametrize("known", [True, False])
def test_a_copy_keeps_what_it_has_until_it_has_been_filled(known: bool) -> None:
    world = refilled(known=known)
    slot = slot_of(world, 2)
    assert slot.incoming is not None
    assert not slot.incoming.filled
    assert all(b"\xa5%05d" % number in slot.items.items for number in range(1, 41))
    assert world.nodes[2].may_read(0) is known
    world.crash(1)
    world.rest()
    assert len(slot_of(world, 2).items) >= 70


def test_what_the_holder_knows_not_to_be_there_any_more_goes_when_the_copy_has_been_filled() -> None:
    world = refilled(known=True)
    world.rest()
    assert len(slot_of(world, 1).items) == 41


def test_what_the_holder_may_not_know_is_handed_to_it() -> None:
    world = refilled(known=False)
    world.rest()
    assert len(slot_of(world, 1).items) == 71


def test_a_copy_takes_over_what_was_collected_with_the_rest() -> None:
    world = refilled(known=False)
    world.own(2).slots[0].items.collected_until = 1 << 60
    world.rest()
    assert slot_of(world, 2).items.collected_until == 0
    assert len(slot_of(world, 1).items) == 71, "what is new to the holder is new, whatever was collected here"


def test_a_set_gives_what_is_taken_out() -> None:
    items = ItemSet()
    items.write([(b"a", b"1"), (b"b", b"2")], 1, 1)
    assert [item.key for item in items.take([b"a"])] == [b"a"]
    assert list(items.items) == [b"b"]
    items.check()
