"""Where commands belong, who may read, and whether the table of roles says all that happens and no more."""

from __future__ import annotations

from roost.core.rights import FULL_CHECK_STEPS, Heard, Resumed, Rights, Ticked, Viewed
from roost.core.tenure import TRANSITIONS, Held, Right, Role
from tests.core.chaos import Chaos
from tests.core.copies_world import transitions
from tests.core.explorer import Small, small


def test_commands_belong_to_the_holder_and_senders_are_told_who_that_is() -> None:
    world = small(3, replicas=2)
    right = world.nodes[1].slots[0].right
    assert world.nodes[1].elsewhere(0, 0) is None
    assert world.nodes[1].elsewhere(0, right.epoch) is None
    assert world.nodes[2].elsewhere(0, 0) == right
    assert world.nodes[3].elsewhere(0, 0) is not None
    world.crash(1)
    world.look(3)
    route = world.nodes[3].elsewhere(0, 0)
    assert route is not None
    assert route.holder == 0, "nobody is known"


def test_a_command_waits_at_the_primary_if_its_sender_knows_of_the_right_on_its_way() -> None:
    node = Rights(2, 1)
    node.step(Viewed((1, 2), (), (1, 2), ((2,),), True), 0.0)
    node.step(Heard(1, Held(0, Right(3, 1, (1,)))), 0.1)
    assert node.elsewhere(0, 0) == Right(3, 1, (1,))
    assert node.elsewhere(0, 3) == Right(3, 1, (1,))
    assert node.elsewhere(0, 4) is None


def test_a_sender_with_an_older_epoch_is_told_the_new_one_before_anything_runs() -> None:
    world = small(2, replicas=1)
    world.turn((2, 1))
    world.rest()
    assert world.nodes[2].elsewhere(0, 1) == Right(2, 2, (2,))
    assert world.nodes[2].elsewhere(0, 2) is None


def test_who_follows_the_holder_may_read_and_who_has_lost_it_may_not() -> None:
    world = small(3, replicas=2)
    assert [world.nodes[uid].may_read(0) for uid in (1, 2, 3)] == [True, True, False]
    world.own(2).slots[0].incoming = None
    assert not world.nodes[2].may_read(0)


def test_what_is_left_to_do_is_named() -> None:
    world = small(3, replicas=2)
    assert [world.nodes[uid].left_to_hand_over() for uid in (1, 2, 3)] == [[0], [0], []]
    assert world.nodes[1].incomplete() == []
    world.turn((2, 3, 1))
    world.look(1)
    assert world.nodes[1].incomplete() == [0]
    world.rest()
    assert [world.nodes[uid].left_to_hand_over() for uid in (1, 2, 3)] == [[], [0], [0]]


def test_a_holder_that_may_not_act_executes_nothing_until_it_may() -> None:
    world = small(2, replicas=2)
    owners = ((1, 2),)
    world.step(1, Viewed((1, 2), (), (1, 2), owners, True, acts=False))
    assert not world.nodes[1].slots[0].executes
    assert world.nodes[1].unavailable(0) == (0, 0)
    world.step(1, Viewed((1, 2), (), (1, 2), owners, True))
    assert world.nodes[1].slots[0].executes


def test_a_large_view_is_taken_in_in_slices() -> None:
    node = Rights(1, 1000)
    node.step(Viewed((1,), (), (1,), ((1,),) * 1000, True), 0.0)
    slices = 1
    while node.unsettled:
        node.step(Resumed(), 0.0)
        slices += 1
    assert node.count(Role.HOLDING) == 1000
    assert 3 < slices < 20


def test_invariants_are_checked_of_what_was_looked_at_and_now_and_then_of_everything() -> None:
    node = Rights(1, 4)
    node.step(Viewed((1,), (), (1,), ((1,),) * 4, True), 0.0)
    node.check_step()
    node.slots[3].written = -1
    node.step(Ticked(), 0.1)
    for _ in range(FULL_CHECK_STEPS - 2):
        node.check_step()
    try:
        node.check_step()
    except AssertionError:
        return
    raise AssertionError("nothing was noticed")


def meets(world: Small, right: Right) -> Role:
    """1 hears of a right."""
    world.step(1, Heard(3, Held(0, right)))
    return world.nodes[1].slots[0].role


def moving(*, ring_is_back: bool = False) -> Small:
    world = small(3, replicas=2)
    world.turn((2, 1, 3))
    world.look(1)
    if ring_is_back:  # but this side of a split may not act, so that the move was not broken off
        world.step(1, Viewed((1, 2, 3), (), (1, 2, 3), ((1, 2),), True, acts=False))
    assert world.nodes[1].slots[0].role is Role.MOVING
    return world


def ceding(*, ring_is_back: bool = False) -> Small:
    world = moving()
    world.drain(1, 0)
    if ring_is_back:
        world.turn((1, 2, 3))
        world.look(1)
    assert world.nodes[1].slots[0].role is Role.CEDING
    return world


def test_whoever_executes_gives_way_to_a_higher_right_in_every_role() -> None:
    keeps, drops = Right(9, 3, (3, 1)), Right(9, 3, (3,))
    held = small(3, replicas=2)
    held.turn((3, 2, 1))
    held.look(1)
    assert meets(small(3, replicas=2), drops) is Role.AWAITING
    assert meets(held.copy(), keeps) is Role.COPY
    assert meets(held, drops) is Role.ABSENT
    assert meets(moving(), keeps) is Role.COPY
    assert meets(moving(), drops) is Role.ABSENT
    assert meets(moving(ring_is_back=True), drops) is Role.AWAITING
    assert meets(ceding(ring_is_back=True), drops) is Role.AWAITING


def test_the_table_of_roles_says_all_that_happens_and_no_more() -> None:
    with transitions() as taken:
        for seed in range(12):
            Chaos(seed).run()
            Chaos(seed, rough=True).run()
        test_whoever_executes_gives_way_to_a_higher_right_in_every_role()
        declined = ceding()
        declined.own(2).slots[0].incoming = None
        declined.rest()
    assert set(TRANSITIONS) == set(taken)
