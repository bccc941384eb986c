"""Claims, the exchange of rights, and where commands belong."""

from __future__ import annotations

import pytest

from roost.core.claims import Answer, Ask
from roost.core.healing import Leftover
from roost.core.rights import FULL_CHECK_STEPS, Drained, Heard, NotHosting, Rights, Ticked, Viewed
from roost.core.tenure import NO_RIGHT, TRANSITIONS, Effect, Held, PossibleLoss, Right, Role, Send, Took
from roost.core.transfer import Cede, Declined, Offer, Taken


def view(*live: int, primary: int, gone: tuple[int, ...] = (), hosts: tuple[int, ...] | None = None) -> Viewed:
    return Viewed(live, gone, live if hosts is None else hosts, (primary,), True)


def sent(effects: list[Effect], kind: type) -> list[tuple[int, object]]:
    return [(one.uid, one.message) for one in effects if isinstance(one, Send) and isinstance(one.message, kind)]


def no(right: Right = NO_RIGHT, promised: tuple[int, int] = (0, 0), epoch: int = 1) -> Answer:
    """Nothing is known of it, and the promise is given."""
    return Answer(0, epoch, True, False, False, right, promised)


def holder(uid: int = 1) -> Rights:
    node = Rights(uid, 1)
    node.step(view(uid, primary=uid), 0.0)
    assert node.slots[0].role is Role.HOLDING
    return node


def test_a_lone_node_holds_everything_at_once() -> None:
    node = Rights(1, 8)
    effects = node.step(Viewed((1,), (), (1,), (1,) * 8, True), 0.0)
    assert [one.partition for one in effects if isinstance(one, Took)] == list(range(8))
    assert all(slot.right == Right(1, 1, (1,)) for slot in node.slots)


def test_nothing_is_claimed_before_the_node_is_up() -> None:
    node = Rights(1, 1)
    assert node.step(Viewed((1,), (), (1,), (1,), False), 0.0) == []
    assert node.slots[0].role is Role.ABSENT


def test_a_claim_asks_every_live_member_even_those_not_known_to_host() -> None:
    node = Rights(1, 1)
    effects = node.step(view(1, 2, 3, primary=1, hosts=(1, 2)), 0.0)
    assert [uid for uid, _ in sent(effects, Ask)] == [2, 3]
    node.step(Heard(2, no()), 0.1)
    assert node.count(Role.CLAIMING) == 1
    node.step(NotHosting(3), 0.1)
    assert node.count(Role.HOLDING) == 1


def test_a_claim_asks_again_those_who_stay_silent_and_waits_for_them() -> None:
    node = Rights(1, 1)
    node.step(view(1, 2, 3, primary=1), 0.0)
    node.step(Heard(2, no()), 0.1)
    assert [uid for uid, _ in sent(node.step(Ticked(), 5.0), Ask)] == [3]
    assert node.slots[0].role is Role.CLAIMING


def test_a_member_that_goes_down_is_not_waited_for() -> None:
    node = Rights(1, 1)
    node.step(view(1, 2, primary=1), 0.0)
    effects = node.step(view(1, primary=1, gone=(2,)), 1.0)
    assert node.slots[0].role is Role.HOLDING
    assert not any(isinstance(one, PossibleLoss) for one in effects), "nobody has ever held it"


def test_a_claim_after_the_holders_death_is_above_its_epoch_and_reports_a_possible_loss() -> None:
    node = Rights(1, 1)
    node.step(view(1, 2, 3, primary=3), 0.0)
    node.step(Heard(3, Held(0, Right(7, 3, (3,)))), 0.1)
    node.step(view(1, 2, primary=1, gone=(3,)), 1.0)
    effects = node.step(Heard(2, no(epoch=8)), 1.1)
    assert node.slots[0].right == Right(8, 1, (1,))
    assert [one.right for one in effects if isinstance(one, PossibleLoss)] == [Right(7, 3, (3,))]


def test_a_loss_is_reported_even_if_only_another_node_knew_the_dead_holder() -> None:
    node = Rights(1, 1)
    node.step(view(1, 2, primary=1, gone=(3,)), 0.0)
    effects = node.step(Heard(2, no(Right(4, 3, (3,)))), 0.1)
    assert [message for _, message in sent(effects, Ask)] == [Ask(0, 5)], "above every epoch that was seen"
    effects = node.step(Heard(2, no(Right(4, 3, (3,)), (1, 1), epoch=5)), 0.2)
    assert [one.right.holder for one in effects if isinstance(one, PossibleLoss)] == [3]


def test_a_promise_to_a_claimer_that_died_counts_as_a_possible_loss() -> None:
    node = Rights(1, 1)
    node.step(view(1, 2, 3, primary=2), 0.0)
    node.step(Heard(2, Ask(0, 1)), 0.1)
    node.step(view(1, 3, primary=1, gone=(2,)), 1.0)
    effects = node.step(Heard(3, no(epoch=2)), 1.1)
    assert [one.right.holder for one in effects if isinstance(one, PossibleLoss)] == [2]


def test_of_two_claims_the_higher_goes_on() -> None:
    low, high = Rights(1, 1), Rights(2, 1)
    low.step(view(1, 2, primary=1), 0.0)
    high.step(view(1, 2, primary=2), 0.0)
    effects = high.step(Heard(1, Ask(0, 1)), 0.1)
    assert [message.promises for _, message in sent(effects, Answer) if isinstance(message, Answer)] == [False]
    effects = low.step(Heard(2, Ask(0, 1)), 0.1)
    assert [message.promises for _, message in sent(effects, Answer) if isinstance(message, Answer)] == [True]
    assert (low.slots[0].role, high.slots[0].role) == (Role.AWAITING, Role.CLAIMING)


def test_a_holder_never_promises() -> None:
    node = holder()
    effects = node.step(Heard(2, Ask(0, 99)), 0.1)
    (answer,) = [message for _, message in sent(effects, Answer) if isinstance(message, Answer)]
    assert (answer.held, answer.promises) == (True, False)
    assert node.slots[0].role is Role.HOLDING


def test_a_lower_right_gives_way_and_its_items_go_to_the_higher() -> None:
    node = holder()
    node.slots[0].items.write([(b"k", b"v")], 1, 1)
    node.step(view(1, 2, primary=1), 0.5)
    effects = node.step(Heard(2, Held(0, Right(1, 2, (2,)))), 1.0)
    assert node.slots[0].role is not Role.HOLDING
    assert [uid for uid, _ in sent(effects, Leftover)] == [2]
    assert node.elsewhere(0, 0) == Right(1, 2, (2,))


def test_a_higher_right_is_not_shaken_by_a_lower() -> None:
    node = holder(2)
    node.step(view(1, 2, primary=2), 0.5)
    node.step(Heard(1, Held(0, Right(1, 1, (1,)))), 1.0)
    assert node.slots[0].role is Role.HOLDING


def test_a_command_waits_at_the_primary_if_its_sender_knows_of_the_right_on_its_way() -> None:
    node = Rights(2, 1)
    node.step(view(1, 2, primary=2), 0.0)
    node.step(Heard(1, Held(0, Right(3, 1, (1,)))), 0.1)
    assert node.elsewhere(0, 0) == Right(3, 1, (1,))
    assert node.elsewhere(0, 3) == Right(3, 1, (1,))
    assert node.elsewhere(0, 4) is None


def test_a_sender_with_an_older_epoch_is_told_the_new_one_before_anything_runs() -> None:
    node = holder()
    node.step(view(1, 2, primary=1), 0.5)
    node.slots[0].right = Right(5, 1, (1,))
    assert node.elsewhere(0, 4) == Right(5, 1, (1,))
    assert node.elsewhere(0, 5) is None
    assert node.elsewhere(0, 0) is None


def test_the_answer_to_a_sent_right_never_changes() -> None:
    node = Rights(2, 1)
    node.step(view(1, 2, primary=2), 0.0)
    node.step(Heard(1, Offer(0, 1, Right(1, 1, (1,)))), 0.1)
    unknown = Cede(0, 9, 0, [], Right(2, 2, (2,)), 0)
    assert sent(node.step(Heard(1, unknown), 0.2), Declined)
    known = Cede(0, 1, 0, [], Right(2, 2, (2,)), 0)
    assert sent(node.step(Heard(1, known), 0.3), Declined), "declined once is declined for good"
    later = Cede(0, 1, 0, [], Right(3, 2, (2,)), 0)
    for now in (0.4, 0.5):
        assert sent(node.step(Heard(1, later), now), Taken)


def test_events_that_come_too_late_do_nothing() -> None:
    node = holder()
    assert node.step(Drained(0), 1.0) == []
    assert node.step(Heard(2, no(epoch=77)), 1.0) == []
    assert node.step(Heard(2, Taken(0, 1)), 1.0) == []
    assert node.step(Heard(2, Ask(99, 1)), 1.0) == [], "no such partition"
    node.check()


def test_an_idle_service_exchanges_one_digest_in_two_seconds() -> None:
    node = Rights(1, 64)
    hosts = tuple(range(1, 51))
    node.step(Viewed((1,), (), (1,), (1,) * 64, True), 0.0)
    node.step(Viewed(hosts, (), hosts, (1,) * 64, True), 0.0)
    messages = sum(len(node.step(Ticked(), 10 + step / 10)) for step in range(100))
    assert messages == 5


def test_what_a_step_looked_at_is_checked_at_once_and_all_partitions_now_and_then() -> None:
    node = Rights(1, 2)
    node.step(Viewed((1, 2), (), (1, 2), (2, 2), True), 0.0)
    node.check_step()
    node.slots[0].stopped = True
    node.step(Heard(2, Held(1, Right(1, 2, (2,)))), 0.1)
    for _ in range(FULL_CHECK_STEPS - 2):
        node.check_step()
    with pytest.raises(AssertionError, match="stopped"):
        node.check_step()
    node.step(Heard(2, Held(0, Right(1, 2, (2,)))), 0.2)
    with pytest.raises(AssertionError, match="stopped"):
        node.check_step()


def test_every_role_can_be_left_and_reached() -> None:
    assert {before for before, _ in TRANSITIONS} == set(Role) == {after for _, after in TRANSITIONS}


def test_a_claim_with_no_right_on_record_reports_a_loss_only_if_a_host_has_crashed() -> None:
    for crashed, losses in (((), []), ((7,), [PossibleLoss(0, Right(0, 7))])):
        node = Rights(1, 1)
        effects = node.step(Viewed((1,), (7,), (1,), (1,), True, crashed), 0.0)
        assert node.slots[0].role is Role.HOLDING
        assert [one for one in effects if isinstance(one, PossibleLoss)] == losses
