"""The move of a right: when it goes, what breaks it off, and what is never undone."""

from __future__ import annotations

from typing import Any

from roost.core.cutover import DECISIONS_KEPT, Cede, Declined, Taken
from roost.core.rights import Heard
from roost.core.tenure import Effect, Handed, Held, Right, Role, Send, Slot, Stop
from roost.core.transfer import Chunk
from tests.core.explorer import Small, small


def slot_of(world: Small, uid: int) -> Slot:
    return world.nodes[uid].slots[0]


def sent(effects: list[Effect], kind: type) -> list[Any]:
    return [one.message for one in effects if isinstance(one, Send) and isinstance(one.message, kind)]


def moving() -> Small:
    """1 holds, the ring says 2, which has a copy; 1 has stopped, and a command still runs."""
    world = small(3, replicas=2)
    world.turn((2, 1, 3))
    world.look(1)
    assert slot_of(world, 1).role is Role.MOVING
    return world


def ceding() -> Small:
    world = moving()
    world.drain(1, 0)
    assert slot_of(world, 1).role is Role.CEDING
    return world


def test_the_right_goes_when_nothing_runs_and_all_have_everything() -> None:
    world = moving()
    assert not world.nodes[1].slots[0].executes
    assert not world.under_way(Cede)
    world.drain(1, 0)
    world.look(2)
    world.deliver(1, 2)
    assert slot_of(world, 2).role is Role.HOLDING
    assert slot_of(world, 2).right == Right(2, 2, (2, 1))
    assert slot_of(world, 1).role is Role.CEDING
    world.rest()
    assert slot_of(world, 1).role is Role.COPY


def test_what_was_written_last_arrives_before_the_right() -> None:
    world = small(2, replicas=2)
    world.put(1)
    world.turn((2, 1))
    world.look(1)
    world.drain(1, 0)
    assert [type(message) for message in world.wires[1, 2]] == [Chunk]
    while slot_of(world, 2).role is not Role.HOLDING:
        world.plain_step()
    assert len(slot_of(world, 2).items) == 3


def test_a_command_that_does_not_end_breaks_the_move_off_and_it_is_tried_again_later() -> None:
    world = moving()
    world.tick(2.1)
    assert world.nodes[1].slots[0].executes
    assert not world.under_way(Cede)
    world.draining = {}
    world.rest()
    assert slot_of(world, 2).role is Role.HOLDING


def test_before_the_right_is_sent_a_changed_ring_or_a_dead_target_breaks_the_move_off() -> None:
    world = moving()
    world.turn((1, 2, 3))
    world.look(1)
    assert world.nodes[1].slots[0].executes
    world = moving()
    world.crash(2)
    world.look(1)
    assert world.nodes[1].slots[0].executes


def test_after_the_right_was_sent_the_old_holder_executes_no_more_whatever_happens() -> None:
    world = ceding()
    world.wires = {}
    world.turn((1, 2, 3))
    world.look(1)
    world.tick(5.0)
    assert slot_of(world, 1).role is Role.CEDING
    assert world.under_way(Cede), "it only asks again"
    assert world.nodes[1].elsewhere(0, 0) == Right(2, 2, (2, 1))
    world.rest()


def test_the_answer_to_a_right_stays_the_same_however_often_it_is_asked() -> None:
    world = ceding()
    (cede,) = world.wires[1, 2]
    assert sent(world.own(2).step(Heard(1, cede), 0.0), Taken)
    world.put(2)
    assert sent(world.own(2).step(Heard(1, cede), 0.0), Taken)
    world = ceding()
    (cede,) = world.wires[1, 2]
    node = world.own(2)
    kept, node.slots[0].incoming = node.slots[0].incoming, None
    assert sent(node.step(Heard(1, cede), 0.0), Declined)
    node.slots[0].incoming = kept
    assert sent(node.step(Heard(1, cede), 0.0), Declined), "now it could be taken, but that was said"
    assert node.slots[0].role is not Role.HOLDING


def test_a_question_older_than_all_that_are_remembered_is_declined() -> None:
    world = small(3, replicas=2)
    node = world.own(2)
    for epoch in range(10, 10 + DECISIONS_KEPT):
        node.step(Heard(1, Cede(0, 99, 0, Right(epoch, 2, (2, 1)))), 0.0)
    assert sent(node.step(Heard(1, Cede(0, 99, 0, Right(5, 2, (2, 1)))), 0.0), Declined)


def test_a_right_is_taken_only_with_everything_and_above_all_that_is_known_or_promised() -> None:
    for spoil in ("chunk", "right", "promise", "other"):
        world = ceding()
        (cede,) = world.wires[1, 2]
        slot = world.own(2).slots[0]
        if spoil == "chunk":
            assert slot.incoming is not None
            slot.incoming.number -= 1
        elif spoil == "right":
            world.own(2).step(Heard(3, Held(0, Right(7, 3, (3,)))), 0.0)
        elif spoil == "promise":
            slot.promised = (7, 3)
        else:
            cede = Cede(0, cede.feed, cede.number, Right(2, 3, (3, 1)))
        assert sent(world.own(2).step(Heard(1, cede), 0.0), Declined), spoil


def test_declining_a_right_takes_no_promise_back() -> None:
    world = ceding()
    (cede,) = world.wires[1, 2]
    world.own(2).slots[0].promised = (2, 3)
    assert sent(world.own(2).step(Heard(1, cede), 0.0), Declined)
    assert slot_of(world, 2).promised == (2, 3), "3 may hold it in that epoch"


def test_a_holder_whose_right_was_declined_goes_on_above_it() -> None:
    world = ceding()
    world.own(2).slots[0].incoming = None
    world.quiet()
    slot = slot_of(world, 1)
    assert slot.right.epoch > 2 or slot_of(world, 2).right.epoch > 2
    assert len(world.executing(0)) == 1
    world.rest()


def test_who_gave_the_right_away_forgets_unless_it_is_to_be_a_copy() -> None:
    world = small(3, replicas=2)
    world.turn((2, 3, 1))
    effects: list[Effect] = []
    node = world.own(1)
    step = node.step

    def noted(event: Any, now: float) -> list[Effect]:
        effects.extend(done := step(event, now))
        return done

    node.step = noted  # type: ignore[method-assign]
    world.rest()
    assert [one.target for one in effects if isinstance(one, Handed)] == [2]
    assert any(isinstance(one, Stop) for one in effects)
    assert not slot_of(world, 1).items
    assert slot_of(world, 1).role is Role.ABSENT


def test_if_the_target_dies_a_claim_decides_and_nothing_is_lost() -> None:
    for took in (False, True):
        world = ceding()
        if took:
            world.deliver(1, 2)
            world.wires = {}
        world.crash(2)
        world.rest()
        assert slot_of(world, 1).role is Role.HOLDING
        assert slot_of(world, 1).right.epoch > 2
        assert not world.losses


def test_the_new_holder_may_be_known_before_it_says_that_it_has_taken_the_right() -> None:
    world = ceding()
    world.own(1).step(Heard(3, Held(0, Right(2, 2, (2, 1)))), 0.0)
    assert slot_of(world, 1).role is Role.CEDING
    world.rest()
