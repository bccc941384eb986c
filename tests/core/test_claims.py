"""Taking over a partition that nobody holds: who may, whom it asks, what is promised, and what is called a loss."""

from __future__ import annotations

from typing import Any

import pytest

from roost.core.claims import Answer, Ask
from roost.core.healing import Kept, Leftover
from roost.core.items import BUCKETS, Item, ItemSet
from roost.core.rights import Heard, NotHosting, Rights, Ticked, Viewed
from roost.core.tenure import NO_RIGHT, Effect, GivenUp, Held, PossibleLoss, Right, Role, Send, Took
from roost.core.transfer import Chunk, Offer, Refused
from tests.core.copies_world import COUNTER, merged
from tests.core.explorer import Small, small


def view(*live: int, owners: tuple[int, ...], gone: tuple[int, ...] = (), missed: tuple[int, ...] = ()) -> Viewed:
    return Viewed(live, gone, live, (owners,), True, gone, missed)


def sent(effects: list[Effect], kind: type) -> list[tuple[int, Any]]:
    return [(one.uid, one.message) for one in effects if isinstance(one, Send) and isinstance(one.message, kind)]


def answer(epoch: int = 1, right: Right = NO_RIGHT, promised: tuple[int, int] = (0, 0), **others: Any) -> Answer:
    """The promise is given, and nothing is there that the claimer lacks."""
    given: dict[str, Any] = {"promises": True, "held": False, "leftover": False, "witnessed": True, **others}
    return Answer(
        0,
        epoch,
        given["promises"],
        given["held"],
        given["leftover"],
        right,
        given["witnessed"],
        promised,
        given.get("collected_until", 0),
    )


def losses(effects: list[Effect]) -> list[Right]:
    return [one.right for one in effects if isinstance(one, PossibleLoss)]


def claimer(right: Right, *live: int, **options: Any) -> Rights:
    """Node 1, which knows of a right whose holder is dead, and asks."""
    node = Rights(1, 1, **options)
    node.step(view(*live, right.holder, owners=(right.holder, 1)), 0.0)
    node.step(Heard(right.holder, Held(0, right)), 0.0)
    node.step(view(*live, owners=(1, *live[1:]), gone=(right.holder,)), 0.0)
    assert node.slots[0].role is Role.CLAIMING
    return node


def test_a_lone_node_holds_everything_at_once() -> None:
    node = Rights(1, 8)
    effects = node.step(Viewed((1,), (), (1,), ((1,),) * 8, True), 0.0)
    assert [one.partition for one in effects if isinstance(one, Took)] == list(range(8))
    assert not losses(effects)


def test_nothing_is_claimed_before_the_node_is_a_member() -> None:
    node = Rights(1, 1)
    assert node.step(Viewed((1,), (), (1,), ((1,),), False), 0.0) == []


def test_a_claim_asks_every_live_member_even_those_not_known_to_host() -> None:
    node = Rights(1, 1)
    effects = node.step(Viewed((1, 2, 3), (), (1, 2), ((1,),), True), 0.0)
    assert [uid for uid, _ in sent(effects, Ask)] == [2, 3]
    node.step(Heard(2, answer()), 0.1)
    assert node.count(Role.CLAIMING) == 1
    node.step(NotHosting(3), 0.1)
    assert node.count(Role.HOLDING) == 1


def test_who_is_silent_is_asked_again_and_waited_for_until_it_is_down() -> None:
    node = Rights(1, 1)
    node.step(view(1, 2, 3, owners=(1,)), 0.0)
    node.step(Heard(2, answer()), 0.1)
    assert [uid for uid, _ in sent(node.step(Ticked(), 5.0), Ask)] == [3]
    assert node.count(Role.CLAIMING) == 1
    node.step(view(1, 2, owners=(1,), gone=(3,)), 6.0)
    assert node.count(Role.HOLDING) == 1


def test_a_member_that_appears_while_a_claim_goes_on_is_asked_too() -> None:
    node = Rights(1, 1)
    node.step(view(1, 2, owners=(1,)), 0.0)
    effects = node.step(view(1, 2, 3, owners=(1,)), 0.1)
    assert [uid for uid, _ in sent(effects, Ask)] == [3]
    node.step(Heard(2, answer()), 0.2)
    assert node.count(Role.CLAIMING) == 1
    node.step(Heard(3, answer()), 0.2)
    assert node.count(Role.HOLDING) == 1


@pytest.mark.parametrize(
    ("owners", "claims"),
    [((2, 3), 2), ((3, 2), 3), ((4, 2), 2), ((4, 3), 2)],
    ids=["first copy and primary", "primary is a copy", "primary is none", "neither order counts"],
)
def test_the_first_live_copy_takes_over_or_the_primary_if_it_is_a_copy(owners: tuple[int, ...], claims: int) -> None:
    for uid in (2, 3, 4):
        node = Rights(uid, 1)
        node.step(view(1, 2, 3, 4, owners=(1, 2, 3)), 0.0)
        node.step(Heard(1, Held(0, Right(1, 1, (1, 2, 3)))), 0.0)
        node.step(view(2, 3, 4, owners=owners, gone=(1,)), 0.1)
        assert (node.slots[0].role is Role.CLAIMING) is (uid == claims), uid


def test_if_no_copy_lives_the_primary_takes_over() -> None:
    node = claimer(Right(7, 3, (3,)), 1, 2)
    effects = node.step(Heard(2, answer(8)), 0.1)
    assert node.slots[0].right == Right(8, 1, (1,))
    assert losses(effects) == [Right(7, 3, (3,))]


def test_a_copy_whose_holder_lives_does_not_promise_but_one_that_hears_of_a_later_right_does() -> None:
    world = small(3, replicas=2)
    node = world.own(2)
    (_, said) = sent(node.step(Heard(3, Ask(0, 9, (1, 1, 1), [])), 0.0), Answer)[0]
    assert (said.promises, said.held) == (False, True)
    (_, said) = sent(node.step(Heard(3, Ask(0, 9, (2, 3, 0), [])), 0.0), Answer)[0]
    assert said.promises


def test_a_holder_never_promises() -> None:
    world = small(2, replicas=1)
    (_, said) = sent(world.own(1).step(Heard(2, Ask(0, 99, (0, 0, 0), [])), 0.1), Answer)[0]
    assert (said.promises, said.held) == (False, True)


def test_after_a_promise_the_old_holder_gets_nothing_acknowledged_any_more() -> None:
    world = small(3, replicas=2)
    world.hidden = {(2, 1): None}  # 2 alone takes the holder for down
    world.apart = True
    world.look(2)
    world.deliver(2, 3)
    assert world.nodes[3].slots[0].promised == (2, 2)
    world.hidden = {}
    world.put(1)
    world.deliver(1, 2)
    assert [type(message) for message in world.wires[2, 1]] == [Refused]
    slot = world.nodes[1].slots[0]
    assert slot.acked < slot.written
    world.blind = dict.fromkeys(world.nodes)
    world.rest()


def test_what_was_promised_in_vain_counts_no_more() -> None:
    node = Rights(3, 1)
    node.step(view(1, 2, 3, owners=(1, 3)), 0.0)
    node.step(Heard(2, Ask(0, 5, (0, 0, 0), [])), 0.0)
    assert sent(node.step(Heard(1, Offer(0, 1, Right(4, 1, (1,)), 0)), 0.1), Refused)
    node.step(Heard(2, GivenUp(0, 5)), 0.2)
    assert not sent(node.step(Heard(1, Offer(0, 2, Right(4, 1, (1,)), 0)), 0.3), Refused)


def test_of_two_claims_the_higher_goes_on() -> None:
    low, high = Rights(1, 1), Rights(2, 1)
    low.step(view(1, 2, owners=(1,)), 0.0)
    high.step(view(1, 2, owners=(2,)), 0.0)
    assert [said.promises for _, said in sent(high.step(Heard(1, Ask(0, 1, (0, 0, 0), [])), 0.1), Answer)] == [False]
    assert [said.promises for _, said in sent(low.step(Heard(2, Ask(0, 1, (0, 0, 0), [])), 0.1), Answer)] == [True]
    assert (low.slots[0].role, high.slots[0].role) == (Role.AWAITING, Role.CLAIMING)


def test_a_claim_starts_again_above_every_epoch_that_it_hears_of() -> None:
    node = Rights(1, 1)
    node.step(view(1, 2, owners=(1,), gone=(3,)), 0.0)
    effects = node.step(Heard(2, answer(1, Right(4, 3, (3,)))), 0.1)
    assert [ask.epoch for _, ask in sent(effects, Ask)] == [5]
    effects = node.step(Heard(2, answer(5, Right(4, 3, (3,)), (1, 1))), 0.2)
    assert [right.holder for right in losses(effects)] == [3]


def test_nothing_is_lost_if_fewer_than_acknowledge_a_write_are_missing() -> None:
    right = Right(7, 3, (3, 1, 2))
    assert losses(claimer(right, 1, 2).step(Heard(2, answer(8, right)), 0.1)) == []
    assert losses(claimer(right, 1, 2, write="one").step(Heard(2, answer(8, right)), 0.1)) == [right]
    assert losses(claimer(right, 1, 4).step(Heard(4, answer(8, right)), 0.1)) == [right], "2 is missing as well"


def test_a_record_that_all_know_by_hearsay_only_may_be_behind_its_copies() -> None:
    right = Right(7, 3, (3, 1, 2), 2)
    assert losses(claimer(right, 1, 2).step(Heard(2, answer(8, right, witnessed=False)), 0.1)) == [right]
    assert losses(claimer(right, 1, 2).step(Heard(2, answer(8, right)), 0.1)) == []


def test_a_dead_claimer_may_have_held_it_whatever_is_on_record() -> None:
    right = Right(7, 3, (3, 1, 2))
    node = claimer(right, 1, 2)
    node.step(view(1, 2, owners=(1, 2), gone=(3, 5)), 0.1)
    assert sent(node.step(Heard(2, answer(8, right, (9, 5), promises=False)), 0.1), Ask)
    assert losses(node.step(Heard(2, answer(10, right, (9, 5))), 0.2)) == [Right(9, 5, (5,))]


def test_a_claimer_that_answers_has_held_nothing_and_hides_no_record() -> None:
    right = Right(7, 3, (3, 6))
    node = claimer(right, 1, 2, 5)
    node.step(Heard(2, answer(8, right, (7, 5))), 0.1)
    assert losses(node.step(Heard(5, answer(8, right)), 0.1)) == [right], "of its copies nobody is left"


def test_without_a_right_on_record_only_a_crashed_host_may_have_known_one() -> None:
    node = Rights(1, 1)
    assert not losses(node.step(view(1, owners=(1,)), 0.0))
    node = Rights(1, 1)
    assert losses(node.step(view(1, owners=(1,), gone=(2,)), 0.0)) == [Right(0, 2)]


def strict_claim() -> Rights:
    right = Right(7, 3, (3, 2))
    node = Rights(1, 1, strict=True)
    node.step(view(1, 2, 3, owners=(3, 2)), 0.0)
    node.step(Heard(3, Held(0, right)), 0.0)
    node.step(view(1, owners=(1,), gone=(2, 3), missed=(2, 3)), 0.0)
    assert node.slots[0].role is Role.CLAIMING
    assert node.unavailable(0) == (1, 0)
    return node


def test_a_strict_claim_waits_for_those_who_are_missing_and_asks_them_when_they_come_back() -> None:
    node = strict_claim()
    effects = node.step(view(1, 2, owners=(1,), gone=(3,), missed=(3,)), 5.0)
    assert [uid for uid, _ in sent(effects, Ask)] == [2]
    assert node.count(Role.CLAIMING) == 1
    effects = node.step(Heard(2, answer(8, Right(7, 3, (3, 2)))), 5.1)
    assert node.count(Role.HOLDING) == 1
    assert not losses(effects)


def test_a_strict_claim_goes_on_and_says_so_when_nobody_can_come_back() -> None:
    node = strict_claim()
    effects = node.step(view(1, owners=(1,), gone=(2, 3)), 5.0)
    assert losses(effects) == [Right(7, 3, (3, 2))]


def test_a_claim_waits_until_this_side_of_a_split_may_act() -> None:
    node = Rights(1, 1)
    seen = replace_acts(view(1, owners=(1,)), acts=False)
    node.step(seen, 0.0)
    assert node.count(Role.HOLDING) == 0
    assert node.unavailable(0) == (0, 0)
    node.step(replace_acts(seen, acts=True), 1.0)
    assert node.count(Role.HOLDING) == 1


def replace_acts(seen: Viewed, *, acts: bool) -> Viewed:
    return Viewed(seen.live, seen.gone, seen.hosts, seen.owners, True, acts=acts)


def test_what_is_handed_to_a_claimer_without_being_asked_for_is_not_confirmed() -> None:
    """Its sender would forget it, and the claim may fail, or the claimer die."""
    node = Rights(1, 1)
    node.step(view(1, 2, 3, owners=(1,)), 0.0)
    assert sent(node.step(Heard(2, Leftover(0, 1, 0, (0, 0), [1] * 16, [], False)), 0.1), Kept) == []


def diverged() -> Small:
    """A counter at 3 on the only copy 2 that follows, and at 2, with a higher version, as a stray at 3."""
    world = small(4, replicas=2, items=0, merge=merged)
    for count in (1, 2, 3):
        world.put(1, 0, COUNTER, bytes([count]))
    world.rest()
    other = world.own(3).slots[0].items
    other.write([(COUNTER, bytes([9]))], 1 << 40, 3)
    return world


@pytest.mark.parametrize("first", [2, 3])
def test_what_is_gathered_merges_the_same_in_every_order(first: int) -> None:
    world = diverged()
    world.preferred = (4, 2, 3)
    world.crash(1)
    world.look(3)
    world.look(4)
    world.look(2)
    while world.busy():
        pair = next((pair for pair in world.busy() if first in pair), world.busy()[0])
        world.deliver(*pair)
    world.rest()
    assert world.nodes[4].slots[0].items.get(COUNTER) == bytes([9])


def test_the_claimer_remembers_what_has_been_collected() -> None:
    right = Right(7, 3, (3, 1, 2))
    node = claimer(right, 1, 2)
    node.step(Heard(2, answer(8, right, collected_until=55)), 0.1)
    assert node.slots[0].items.collected_until == 55


def test_to_a_claim_that_starts_again_everything_is_shown_again_at_once() -> None:
    copy = Rights(2, 1)
    right = Right(1, 9, (9, 2))
    copy.step(view(1, 2, 9, owners=(9, 2)), 0.0)
    copy.step(Heard(9, Offer(0, 1, right, 0)), 0.0)
    copy.step(Heard(9, Chunk(0, 1, 0, [Item(b"\xa1k", 1, 9, b"\x01")], right=right)), 0.0)
    copy.step(view(1, 2, owners=(1, 2), gone=(9,)), 0.0)
    first = copy.step(Heard(1, Ask(0, 5, right.order, [])), 0.0)
    moves = [leftover.move for _, leftover in sent(first, Leftover)]
    copy.step(Heard(1, Kept(0, moves[0], 0, list(range(BUCKETS)))), 0.0)  # its items are under way
    again = copy.step(Heard(1, Ask(0, 6, right.order, [])), 0.0)
    assert [(each.leftover, each.promises) for _, each in sent(again, Answer)] == [(True, True)]
    shown = [leftover for _, leftover in sent(again, Leftover)]
    assert [each.number for each in shown] == [0] and shown[0].move > moves[0]
    repeated = copy.step(Heard(1, Ask(0, 6, right.order, [])), 0.0)
    assert sent(repeated, Leftover) == []  # what is under way to it goes on


def test_what_one_copy_has_is_not_set_aside_for_what_another_has_collected() -> None:
    """What comes first decides nothing: here a copy that was left behind comes before the one that has it all."""
    right = Right(7, 3, (3, 1, 4))
    node = claimer(right, 1, 2, 4)
    for uid, tenure, key in ((2, (1, 9), b"\xa5old"), (4, (7, 3), b"\xa5new")):
        prints = ItemSet()
        prints.write([(key, b"x")], 50, 3)
        node.step(Heard(uid, answer(8, right, leftover=True, collected_until=100 if uid == 4 else 0)), 0.1)
        node.step(Heard(uid, Leftover(0, uid, 0, tenure, prints.fingerprint, [], False)), 0.1)
        node.step(Heard(uid, Leftover(0, uid, 1, tenure, [], list(prints.items.values()), True)), 0.1)
    assert node.count(Role.HOLDING) == 1
    assert node.slots[0].items.get(b"\xa5new") == b"x"
