"""Schedules that once lost, or would have lost, what was acknowledged: each was found by reading, and then shown."""

from __future__ import annotations

from roost.core.healing import Digest
from roost.core.rights import Heard, Ticked
from roost.core.tenure import EXECUTING, Held
from tests.core.copies_world import World

KEY = b"\xa1w"


def started(count: int, replicas: int, *, partitions: int = 1) -> World:
    world = World(write="majority", replicas=replicas, partitions=partitions)
    orders = {0: (1, 2, 3, 4), 1: (3, 4, 1, 2)}
    world.order = lambda partition: orders[partition]
    for uid in range(1, count + 1):
        world.join(uid)
    world.rest()
    world.put(1)
    if partitions > 1:
        world.put(3, 1)
    world.rest()
    return world


def exchange(world: World, source: int, target: int) -> None:
    while world.wires.get((source, target)):
        world.deliver(source, target)


def value(world: World, uid: int) -> bytes | None:
    return world.nodes[uid].slots[0].items.get(KEY)


def test_a_holder_does_not_take_its_own_pending_change_for_one_that_holds() -> None:
    """It comes back to it in the table of a copy that has it already."""
    world = started(4, 3, partitions=2)
    orders = {0: (1, 2, 4, 3), 1: (4, 3, 2, 1)}
    world.order = lambda partition: orders[partition]
    for uid in world.nodes:
        world.look(uid)
    slot = world.nodes[1].slots[0]
    for _ in range(40):
        for pair in list(world.wires):
            if 1 not in pair:
                exchange(world, *pair)
        for drain in list(world.draining):
            world.drain(*drain)
    exchange(world, 1, 4)
    exchange(world, 4, 1)
    exchange(world, 1, 4)
    while any(isinstance(message, Held) for message in world.wires.get((4, 1), ())):
        world.deliver(4, 1)
    world.put(1, 0, KEY, b"precious")
    exchange(world, 1, 3)
    exchange(world, 3, 1)
    assert (0, KEY) in world.acknowledged
    exchange(world, 4, 1)
    assert slot.pending is not None
    exchange(world, 1, 3)
    exchange(world, 3, 1)
    world.step(3, Heard(1, Digest(world.nodes[3].book.digest ^ 1)))
    exchange(world, 3, 1)
    assert set(slot.right.copies) == {1, 2, 3}, "3 is on record until 4 has everything"
    world.crash(1)
    world.rest()
    assert value(world, world.executing(0)[0]) == b"precious"


def test_what_is_merged_when_a_right_comes_back_is_not_acknowledged_by_that() -> None:
    world = started(2, 2)
    world.hide(2, 1)
    world.look(2)
    for _ in range(3):
        world.quiet()
        world.tick()
    world.put(1, 0, KEY, b"open")
    one, two = world.nodes[1].slots[0], world.nodes[2].slots[0]
    world.hidden.clear()
    world.look(1)
    world.look(2)
    for _ in range(400):
        if world.blind:
            world.look(next(iter(world.blind)))
        elif world.draining:
            world.drain(*next(iter(world.draining)))
        elif busy := world.busy():
            world.deliver(*busy[0])
        else:
            world.tick()
        if one.role in EXECUTING and one.right.tenure != (1, 1):
            break
    assert one.role in EXECUTING
    if one.items.get(KEY) is not None and two.items.get(KEY) is None:
        assert one.acked < one.written, "a read of it must wait until the other has it too"
    world.rest()
    assert one.acked == one.written
    assert value(world, 1) == value(world, 2) == b"open"


def test_nobody_acknowledges_alone_while_a_second_copy_may_be_on_record() -> None:
    world = World(write="majority", replicas=2)
    world.order = lambda partition: (1, 2)
    world.join(1)
    world.rest()
    world.put(1)
    world.rest()
    world.join(2)
    world.look(1)
    slot = world.nodes[1].slots[0]
    while slot.pending is None:
        world.deliver(*world.busy()[0])
    exchange(world, 1, 2)
    world.order = lambda partition: (1,)  # 2 rests, or begins to leave
    world.look(1)
    world.put(1, 0, KEY, b"precious")
    assert (0, KEY) not in world.acknowledged
    world.rest()
    assert (0, KEY) in world.acknowledged


def test_copies_that_have_lost_the_thread_while_nothing_is_written_follow_again() -> None:
    world = started(3, 3)
    two, three = world.nodes[2].slots[0], world.nodes[3].slots[0]
    world.hide(2, 1)
    world.hide(3, 1)
    world.look(3)
    world.look(2)
    world.now += 2.5
    for uid in (2, 3):
        world.step(uid, Ticked())
    while three.promised[1] != 2:
        world.deliver(2, 3)
    assert three.incoming is None
    world.hidden.clear()
    for uid in (1, 2, 3):
        world.look(uid)
    world.rest()
    for _ in range(20):
        world.quiet()
        world.tick(0.5)
    assert two.incoming is not None
    assert three.incoming is not None
    assert world.nodes[2].may_read(0)
    assert world.nodes[3].may_read(0)


def test_a_promise_to_who_has_held_it_since_does_not_delay_the_next_takeover() -> None:
    world = started(4, 3)
    world.order = lambda partition: tuple(uid for uid in (1, 2, 3, 4) if uid in world.nodes)
    world.crash(1)
    world.rest()
    world.order = lambda partition: (4, 2, 3)
    for uid in (2, 3, 4):
        world.look(uid)
    world.rest()
    assert world.nodes[3].slots[0].promised[1] == 2, "2 took it over, and gave it to 4"
    assert world.executing(0) == [4]
    world.put(4)
    world.quiet()
    world.crash(4)
    world.order = lambda partition: (3, 2)
    for uid in (2, 3):
        world.look(uid)
    world.quiet()
    assert world.executing(0) == [3], "at once, and not after some patience with 2"


def test_outcomes_and_tombstones_go_by_rounds_and_not_by_the_clock() -> None:
    """A clock that was a year ahead has stamped them, or one that steps forward: neither keeps nor loses anything."""
    world = started(2, 2)
    slot = world.nodes[1].slots[0]
    ahead = 1 << 62
    slot.items.write([(KEY, b"v"), (b"\xc1" + b"r" * 16, b"\xc0")], ahead, 1)
    world.nodes[1].wrote(0)
    world.put(1)
    world.quiet()
    world.collect()
    world.quiet()
    assert b"\xc1" + b"r" * 16 in slot.items.items, "it has been here for no round yet"
    world.collect()
    world.quiet()
    for uid in (1, 2):
        assert b"\xc1" + b"r" * 16 not in world.nodes[uid].slots[0].items.items
    world.rest()
