"""Which copies are on record, how the record changes, and when a write is acknowledged."""

from __future__ import annotations

import pytest

from roost.core.rights import Wrote
from roost.core.tenure import Right, Slot
from roost.core.transfer import Accepted, Chunk, Received
from tests.core.explorer import Small, small


def slot_of(world: Small, uid: int = 1) -> Slot:
    return world.nodes[uid].slots[0]


def confirm(world: Small, uid: int) -> None:
    """The holder and a copy talk until they have said everything."""
    while busy := [pair for pair in world.busy() if set(pair) == {1, uid}]:
        world.deliver(*busy[0])


def look(world: Small) -> None:
    for uid in list(world.blind):
        world.look(uid)


@pytest.mark.parametrize(("write", "copies"), [("one", 0), ("majority", 1), ("all", 2)])
def test_a_write_is_acknowledged_when_as_many_copies_have_it_as_it_asks_for(write: str, copies: int) -> None:
    world = small(3, replicas=3, write=write)
    world.put(1)
    slot = slot_of(world)
    for confirmed, uid in enumerate((2, 3)):
        assert (slot.acked == slot.written) is (confirmed >= copies)
        confirm(world, uid)
        slot = slot_of(world)
    assert slot.acked == slot.written


def test_nodes_that_are_not_on_record_do_not_acknowledge() -> None:
    world = small(3, replicas=2)
    world.turn((1, 3, 2))
    look(world)
    world.put(1)
    confirm(world, 3)
    assert slot_of(world).acked < slot_of(world).written, "the copy on record does not have it"
    confirm(world, 2)
    assert slot_of(world).acked == slot_of(world).written


def test_as_long_as_a_change_is_pending_writes_satisfy_both_records() -> None:
    world = small(3, replicas=2)
    world.turn((1, 3, 2))
    look(world)
    while slot_of(world).pending is None:
        world.deliver(*next(pair for pair in world.busy() if 3 in pair))
    told = world.wires.pop((1, 3))
    world.put(1)
    confirm(world, 2)
    assert slot_of(world).acked < slot_of(world).written, "3 is to be a copy, and does not have it"
    world.wires[1, 3] = [*told, *world.wires[1, 3]]
    confirm(world, 3)
    assert slot_of(world).acked == slot_of(world).written
    assert slot_of(world).right.copies == (1, 3)


def test_a_change_needs_a_majority_of_the_old_copies_that_live() -> None:
    world = small(3, replicas=2)
    world.turn((1, 3, 2))
    look(world)
    confirm(world, 3)
    slot = slot_of(world)
    assert slot.pending is not None
    assert slot.pending.copies == (1, 3)
    assert slot.feeds[3].told == slot.pending.order
    assert slot.right.copies == (1, 2), "2 does not know of the change"
    confirm(world, 2)
    assert slot_of(world).right.copies == (1, 3)


def test_a_change_holds_without_a_majority_if_no_more_of_them_live() -> None:
    world = small(3, replicas=3)
    world.crash(2)
    world.crash(3)
    world.look(1)
    assert slot_of(world).right == Right(1, 1, (1,), slot_of(world).right.revision)
    assert slot_of(world).acked == slot_of(world).written


def test_who_is_dropped_keeps_what_it_has_until_the_change_holds() -> None:
    world = small(3, replicas=2)
    world.turn((1, 3, 2))
    while slot_of(world).pending is None:
        world.plain_step()
    while world.wires.get((1, 2)):
        world.deliver(1, 2)  # it knows that it is to go
    assert slot_of(world, 2).right.copies == (1, 3)
    assert len(slot_of(world, 2).items) == 2
    world.rest()
    assert not slot_of(world, 2).items


def test_one_change_is_made_at_a_time() -> None:
    world = small(4, replicas=2)
    world.turn((1, 3, 2, 4))
    while slot_of(world).pending is None:
        world.plain_step()
    pending = slot_of(world).pending
    world.turn((1, 4, 2, 3))
    look(world)
    confirm(world, 4)
    assert slot_of(world).pending == pending
    world.rest()
    assert slot_of(world).right.copies == (1, 4)


def test_what_was_written_before_a_copy_was_offered_is_acknowledged_once_it_is_filled() -> None:
    world = small(2, replicas=1, items=0, chunk_bytes=60)
    world.preferred = (1, 2)
    world.replicas = 2
    world.put(1)
    world.look(2)
    world.nodes[1].slots[0].retry_at = world.now + 1.0  # it is not offered yet
    world.look(1)
    world.put(1)
    assert slot_of(world).acked == slot_of(world).written - 1
    world.nodes[1].slots[0].retry_at = 0.0
    world.look(1)
    assert isinstance(world.until(Accepted), Accepted)
    world.deliver(2, 1)
    assert slot_of(world).acked == slot_of(world).written - 1, "nothing has been sent yet"
    world.rest()


def test_what_is_written_while_a_copy_is_filled_is_acknowledged_as_soon_as_it_is_there() -> None:
    world = small(2, replicas=1, items=6, chunk_bytes=60, rate_bytes=100.0)
    world.turn((1, 2), 2)
    world.until(Received)
    world.put(1)
    assert slot_of(world).acked < slot_of(world).written
    confirm(world, 2)
    slot = slot_of(world)
    assert slot.acked == slot.written
    assert not slot.feeds[2].in_step


def test_a_write_that_is_not_sent_yet_is_not_counted_with_the_round_before() -> None:
    world = small(2, replicas=2, write="all")
    world.put(1)
    world.put(1)
    node = world.own(1)
    slot = node.slots[0]
    while world.wires.get((1, 2)):
        world.deliver(1, 2)
    slot.items.write([(b"\xa5late", b"x")], 99, 1)
    number = node.wrote(0)  # `Wrote` comes only after what has been received
    confirm(world, 2)
    assert slot.acked == number, "it went out with what was sent then"
    assert b"\xa5late" in slot_of(world, 2).items.items
    world.step(1, Wrote((0,)))
    world.rest()


def test_a_command_that_changes_nothing_is_acknowledged() -> None:
    world = small(2, replicas=2)
    world.put(1, 0, b"\xa5none", None)
    assert slot_of(world).acked == slot_of(world).written
    world.put(1)
    world.put(1, 0, b"\xa5none", None)
    assert slot_of(world).acked < slot_of(world).written
    world.quiet()
    assert slot_of(world).acked == slot_of(world).written


def test_a_partition_is_short_as_long_as_too_few_could_acknowledge() -> None:
    world = small(2, replicas=2)
    world.preferred, world.replicas = (1, 2, 3), 3
    world.crash(2)
    world.join(3)
    world.look(1)
    assert slot_of(world).short
    assert world.nodes[1].unavailable(0) == (2, 1)
    world.rest()
    assert not slot_of(world).short
    assert world.nodes[1].unavailable(0) is None


def test_chunks_carry_the_change_in_its_place_among_the_writes() -> None:
    world = small(3, replicas=2)
    world.turn((1, 3, 2))
    while slot_of(world).pending is None:
        world.plain_step()
    told = [message for message in world.wires[1, 2] if isinstance(message, Chunk) and message.right is not None]
    assert [message.right for message in told] == [slot_of(world).pending]
