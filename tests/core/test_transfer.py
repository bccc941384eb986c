"""A move, step by step; `test_explorer.py` has all orders."""

from __future__ import annotations

from typing import Any

from roost.core.rights import Heard, Rights, Ticked, Viewed
from roost.core.tenure import EXECUTING, Right, Role, Send
from roost.core.transfer import Accepted, Cede, Chunk, Offer, Withdrawn
from tests.core.explorer import World, world_of


def pump(world: World, *, until: type | None = None, drain: bool = True) -> list[Any]:
    """Deliver everything in order; stop before a message of the class `until`. Returns what was said."""
    said: list[Any] = []
    for uid in list(world.blind):
        world.act("view", uid, 0)
    while busy := [pair for pair, messages in world.wires.items() if messages]:
        if until is not None and isinstance(world.wires[busy[0]][0], until):
            return said
        said.append(world.wires[busy[0]][0])
        world.act("deliver", *busy[0])
        for uid in list(world.draining) if drain else []:
            world.act("drain", uid, 0)
    return said


def kinds(said: list[Any]) -> list[str]:
    return [type(message).__name__ for message in said]


def test_a_small_partition_moves_in_two_round_trips() -> None:
    world = world_of(2, holder=1, primary=2)
    assert kinds(pump(world)) == ["Offer", "Accepted", "Cede", "Taken"]
    assert world.nodes[2].slots[0].right == Right(2, 2, (2,))
    assert world.nodes[2].slots[0].items.live == 2
    assert not world.nodes[1].slots[0].items


def test_a_thousand_small_partitions_move_side_by_side() -> None:
    source, target = Rights(1, 1024), Rights(2, 1024)
    source.step(Viewed((1,), (), (1,), (1,) * 1024, True), 0.0)
    both = Viewed((1, 2), (), (1, 2), (2,) * 1024, True)
    out = source.step(both, 1.0)
    target.step(both, 1.0)
    assert sum(isinstance(one, Send) and isinstance(one.message, Offer) for one in out) == 1024


def test_large_partitions_move_a_few_at_a_time() -> None:
    source = Rights(1, 64, chunk_bytes=1000, transfers_max=4)
    source.step(Viewed((1,), (), (1,), (1,) * 64, True), 0.0)
    for slot in source.slots:
        slot.items.write([(b"k", b"x" * 5000)], 1, 1)
    source.step(Viewed((1, 2), (), (1, 2), (2,) * 64, True), 1.0)
    assert source.count(Role.MOVING) == 4
    source.check()


def test_a_large_partition_goes_in_bounded_chunks_while_commands_run() -> None:
    world = world_of(2, holder=1, primary=2, items=40, chunk_bytes=300)
    world.writes = 3
    pump(world, until=Accepted)
    assert world.nodes[1].slots[0].executes
    world.write(1)
    said = pump(world)
    chunks = [message for message in said if isinstance(message, Chunk)]
    assert len(chunks) > 8
    assert all(len(chunk.items) <= 6 for chunk in chunks)
    assert set(world.nodes[2].slots[0].items.items) == set(world.written)


def test_a_lost_message_is_sent_again_and_the_move_goes_on_where_it_was() -> None:
    world = world_of(2, holder=1, primary=2, items=40, chunk_bytes=300)
    said = pump(world, until=Chunk)
    world.wires[1, 2].clear()
    world.now += 2.0
    world.step(1, Ticked())
    said = pump(world)
    assert kinds(said).count("Offer") == 0
    assert kinds(said)[-1] == "Taken"


def test_the_source_never_executes_again_once_the_right_is_sent() -> None:
    world = world_of(2, holder=1, primary=2)
    pump(world, until=Cede)
    slot = world.nodes[1].slots[0]
    assert slot.role is Role.CEDING
    world.wires[1, 2].clear()
    for second in range(1, 30):
        world.now = float(second) + 10
        world.step(1, Ticked())
        assert slot.role not in EXECUTING
    assert kinds(world.wires[1, 2])[0] == "Cede"
    pump(world)
    assert world.nodes[2].slots[0].executes


def test_if_the_target_dies_after_the_right_was_sent_a_claim_goes_above_it() -> None:
    world = world_of(2, holder=1, primary=2)
    pump(world, until=Cede)
    world.crash(2)
    world.come_to_rest()
    assert world.nodes[1].slots[0].right.epoch == 3
    assert world.nodes[1].slots[0].items.live == 2
    assert world.reported, "the target may have begun to execute"


def test_if_the_target_dies_before_nothing_has_happened() -> None:
    world = world_of(2, holder=1, primary=2, items=40, chunk_bytes=300)
    pump(world, until=Chunk)
    world.crash(2)
    world.come_to_rest()
    assert world.nodes[1].slots[0].right == Right(1, 1, (1,))
    assert not world.reported


def test_the_ring_may_change_its_mind_and_the_target_forgets_what_had_come() -> None:
    world = world_of(2, holder=1, primary=2, items=40, chunk_bytes=300)
    pump(world, until=Chunk)
    world.act("deliver", 1, 2)
    world.turns = [1]
    world.act("turn", 0, 0)
    said = pump(world)
    assert any(isinstance(message, Withdrawn) for message in said)
    assert world.nodes[1].slots[0].executes
    assert world.nodes[2].slots[0].incoming is None


def test_a_target_whose_ring_says_another_refuses_and_is_asked_again() -> None:
    world = world_of(2, holder=1, primary=2)
    world.act("view", 1, 0)
    del world.blind[2]
    assert kinds(pump(world)) == ["Offer", "Refused"]
    assert world.nodes[1].slots[0].executes
    world.step(2, world.view())
    world.now += 1.0
    world.step(1, Ticked())
    pump(world)
    assert world.nodes[2].slots[0].executes


def test_a_command_that_does_not_end_breaks_the_move_off() -> None:
    world = world_of(2, holder=1, primary=2)
    pump(world, drain=False)
    slot = world.nodes[1].slots[0]
    assert slot.stopped
    world.now += 3.0
    world.step(1, Ticked())
    assert slot.executes
    world.draining.clear()
    world.come_to_rest()
    assert world.nodes[2].slots[0].executes


def test_a_right_declined_for_good_lets_the_source_go_on_above_it() -> None:
    world = world_of(2, holder=1, primary=2)
    pump(world, until=Cede)
    world.nodes[2].slots[0].incoming = None
    said = pump(world)
    assert "Declined" in kinds(said)
    assert world.nodes[1].slots[0].right == Right(3, 1, (1,))
    assert world.nodes[1].slots[0].executes
    world.come_to_rest()
    assert world.nodes[2].slots[0].right.epoch == 4


def test_chunks_for_a_move_that_is_not_known_are_refused() -> None:
    node = Rights(2, 1)
    node.step(Viewed((1, 2), (), (1, 2), (2,), True), 0.0)
    effects = node.step(Heard(1, Chunk(0, 5, 3, [])), 0.1)
    assert [type(one.message).__name__ for one in effects if isinstance(one, Send)] == ["Refused"]
