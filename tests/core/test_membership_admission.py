"""A newcomer is up only when a member has reached it at the address that it gives for itself."""

from __future__ import annotations

import math
import random

import pytest

from roost.config import PROFILES
from roost.core.gossip import Gone, Health, ReachAnswer, ReachRequest, Sync
from roost.core.membership import Dial, Dialed, GoUp, LinkOpened, NotReached, Received, Tick
from roost.core.reaching import ASKED_MAX, DIALS_MAX, Dials, Reaching
from tests.core.swim_bench import FRIEND, Bench
from tests.core.swim_runner import Runner, entry
from tests.core.swim_world import World

LAN = PROFILES["lan"]
ADMIT_SECONDS = 20.0


def state(runner: Runner) -> str:
    return runner.machine.me.state


def own_state(bench: Bench) -> str:
    return bench.machine.me.state


def newcomer(*others: int) -> Bench:
    """A joining machine whose services are ready, and which has merged the view of the first of these members."""
    bench = Bench(own="joining", alone=True)
    view = [entry(f"m{uid}", uid, state="up") for uid in others]
    bench.give(LinkOpened(others[0], f"m{others[0]}", f"m{others[0]}:1", dialed="seed:1"))
    bench.give(Received(others[0], Sync(False, view, [])))
    asked = bench.effects
    bench.give(GoUp())
    bench.effects = asked
    return bench


def asked_of(bench: Bench) -> list[tuple[int, int]]:
    return [(uid, one.number) for uid in range(1, 200) for one in bench.sent(ReachRequest, uid)]


def test_the_member_whose_view_was_merged_is_asked_and_its_yes_is_enough() -> None:
    bench = newcomer(20, 21, 22)
    ((uid, number),) = asked_of(bench)
    assert uid == 20
    assert own_state(bench) == "joining"
    bench.give(Received(uid, ReachAnswer(number, "")))
    assert own_state(bench) == "up"


def test_a_link_that_a_member_opens_is_the_proof_and_one_that_a_stranger_opens_is_not() -> None:
    bench = newcomer(20, 21)
    bench.give(LinkOpened(99, "stranger", "stranger:1"))
    assert own_state(bench) == "joining"
    bench.give(LinkOpened(21, "m21", "m21:1", dialed="m21:1"))
    assert own_state(bench) == "joining"
    bench.give(LinkOpened(21, "m21", "m21:1"))
    assert own_state(bench) == "up"


def test_another_newcomer_is_no_proof_as_long_as_there_is_a_member_that_is_up() -> None:
    """Two behind one firewall reach each other, and nobody else reaches them."""
    bench = newcomer(20, 21)
    bench.give(Received(20, Sync(False, [entry("m30", 30, state="joining")], [])))
    bench.give(LinkOpened(30, "m30", "m30:1"))
    assert own_state(bench) == "joining"
    assert 30 not in [uid for uid, _ in asked_of(bench)]
    bench.give(LinkOpened(21, "m21", "m21:1"))
    assert own_state(bench) == "up"


def test_where_nobody_is_up_yet_newcomers_are_each_others_proof() -> None:
    bench = Bench(own="joining", alone=True)
    bench.give(LinkOpened(30, "m30", "m30:1", dialed="seed:1"))
    bench.give(Received(30, Sync(False, [entry("m30", 30, state="joining")], [])))
    bench.give(GoUp())
    assert own_state(bench) == "joining"
    bench.give(LinkOpened(30, "m30", "m30:1"))
    assert own_state(bench) == "up"


def test_when_all_that_can_be_asked_say_no_it_fails_at_once_and_tells_what_each_said() -> None:
    bench = newcomer(20, 21, 22, 23, 24)
    said: dict[int, str] = {}
    for turn in range(ASKED_MAX):
        ((uid, number),) = asked_of(bench)
        said[uid] = f"refused {turn}\x1b[2J"
        bench.give(Received(uid, ReachAnswer(number, said[uid])))
    (failure,) = [one for one in bench.effects if isinstance(one, NotReached)]
    assert [name for name, _ in failure.said] == [f"m{uid}" for uid in said]
    assert [reason for _, reason in failure.said] == [f"refused {turn}?[2J" for turn in range(ASKED_MAX)]
    assert not bench.machine.step(Tick(), bench.now + 1.0)


def test_one_no_is_enough_where_there_is_one_member() -> None:
    bench = newcomer(20)
    ((uid, number),) = asked_of(bench)
    bench.give(Received(uid, ReachAnswer(number, "connection refused")))
    assert any(isinstance(one, NotReached) for one in bench.effects)


def test_an_answer_to_another_question_or_of_somebody_else_counts_for_nothing() -> None:
    bench = newcomer(20, 21)
    ((uid, number),) = asked_of(bench)
    bench.give(Received(uid, ReachAnswer(number + 7, "")))
    bench.give(Received(21, ReachAnswer(number, "")))
    bench.give(Received(99, ReachAnswer(number, "")))
    assert own_state(bench) == "joining"


def test_when_nothing_comes_back_it_asks_again_each_period_and_gives_up_in_the_end() -> None:
    bench = newcomer(20, 21)
    asked = [uid for uid, _ in asked_of(bench)]
    began = bench.now
    failed: list[NotReached] = []
    while not failed:
        bench.now = bench.machine.wake_at
        bench.give(Tick())
        for uid in (20, 21):
            asked += [uid for _ in bench.sent(ReachRequest, uid)]
        failed = [one for one in bench.effects if isinstance(one, NotReached)]
        if not failed:
            bench.give(Received(20, Sync(False, [], [])))
            bench.give(Received(21, Sync(False, [], [])))
    assert bench.now - began == pytest.approx(ADMIT_SECONDS)
    assert 15 <= len(asked) <= 21
    assert {20, 21} == {*asked}
    assert [reason for _, reason in failed[0].said] == ["no answer", "no answer"]


def test_a_member_dials_each_newcomer_once_at_a_time_and_answers_the_newest_question() -> None:
    bench = Bench()
    bench.give(Received(FRIEND, ReachRequest(1)))
    assert [one for one in bench.effects if isinstance(one, Dial)] == [Dial(FRIEND, "friend:1")]
    bench.give(Received(FRIEND, ReachRequest(2)))
    assert not [one for one in bench.effects if isinstance(one, Dial)]
    bench.give(Dialed(FRIEND, "no route"))
    assert bench.sent(ReachAnswer, FRIEND) == [ReachAnswer(2, "no route")]
    bench.give(Dialed(FRIEND, ""))
    assert not bench.sent(ReachAnswer, FRIEND)


def test_a_member_dials_a_bounded_number_and_nobody_whose_address_it_does_not_know() -> None:
    dials = Dials()
    assert [dials.begin(uid, 1) for uid in range(DIALS_MAX + 2)] == [True] * DIALS_MAX + [False, False]
    dials.end(0)
    assert dials.begin(DIALS_MAX, 1)
    bench = Bench()
    bench.give(Received(500, ReachRequest(1)))
    assert not [one for one in bench.effects if isinstance(one, Dial)]


def test_every_way_of_answering_for_up_to_four_members_ends_in_one_verdict() -> None:
    for members in range(1, 5):
        for code in range(3**members):
            ways = [code // 3**index % 3 for index in range(members)]  # of each member: yes, no, silence
            reaching = Reaching(random.Random(code), retry_seconds=1.0, admit_seconds=ADMIT_SECONDS)
            live, now = list(range(members)), 0.0
            asked: dict[int, None] = {}
            said = None
            while not reaching.reached and said is None:
                while (one := reaching.look(live, now, first=0)) is not None:
                    asked[one[0]] = None
                    if ways[one[0]] != 2:
                        reaching.answered(*one, "" if ways[one[0]] == 0 else "no")
                    reaching.check()
                said = reaching.failed(live, now)
                if said is None:
                    now = min(reaching.wake_at, now + 1.0)
                assert now < ADMIT_SECONDS + 2.0
            heard = [ways[uid] for uid in asked]
            assert reaching.reached == (0 in heard)
            assert (said is None) == reaching.reached
            if said is not None and 2 not in heard:
                assert now == 0.0, "all said no: it need not have waited"
            assert reaching.reached or len(asked) == min(members, ASKED_MAX)


def test_a_node_that_is_alone_needs_no_proof() -> None:
    reaching = Reaching(random.Random(1), retry_seconds=1.0, admit_seconds=ADMIT_SECONDS)
    assert reaching.look([], 0.0, first=0) is None
    assert reaching.failed([], 1e9) is None
    assert reaching.wake_at == math.inf


# whole clusters


def test_a_newcomer_that_nobody_can_connect_to_fails_within_a_second_and_disturbs_nobody() -> None:
    world = World(1)
    nodes = world.cluster(4)
    hidden = world.start("hidden", "n0")
    for node in nodes:
        world.deaf[node.address, hidden.address] = None
    assert world.until(lambda: hidden.not_reached is not None, 5.0) < 1.0
    assert hidden.not_reached is not None
    assert len(hidden.not_reached.said) == 3
    assert {reason for _, reason in hidden.not_reached.said} == {"connection refused"}
    world.until(lambda: world.agree(nodes), 30.0)
    assert not any(world.is_state(hidden, "up", one) for one in nodes)


def test_one_member_that_reaches_it_is_enough() -> None:
    world = World(2)
    nodes = world.cluster(3)
    shy = world.start("shy", "n0")
    for node in nodes[:2]:
        world.deaf[node.address, shy.address] = None
    world.until(lambda: state(shy) == "up", 10.0)


@pytest.mark.parametrize("seed", range(4))
def test_loss_delays_an_admission_and_does_not_prevent_it(seed: int) -> None:
    world = World(seed, loss=0.3)
    nodes = world.cluster(4, settle=False)
    world.until(lambda: all(state(node) == "up" for node in nodes), 40.0)


def test_a_joiner_learns_who_is_down_contacts_them_and_forgets_them_with_the_others() -> None:
    world = World(3)
    *rest, victim = world.cluster(4, forget_seconds=60.0)
    world.crash(victim)
    world.until(lambda: all(world.health(victim, one) == "down" for one in rest), 10.0)
    world.run(40.0)
    late = world.start("late", "n1", forget_seconds=60.0)
    world.until(lambda: world.agree([*rest, late]), 5.0)
    assert world.health(victim, late) == "down"
    world.run(15.0)
    latest = world.start("latest", "late", forget_seconds=60.0)
    world.until(lambda: world.agree([*rest, late, latest]), 5.0)
    assert world.health(victim, latest) == "down"
    world.run(6.0)
    assert [world.health(victim, one) for one in (*rest, late, latest)] == ["unknown"] * 5


def test_a_joiner_heals_a_split_whose_other_side_nobody_of_its_own_remembers() -> None:
    world = World(4)
    left, right = world.start("a"), world.start("b", "a")
    world.until(lambda: world.agree([left, right]), 5.0)
    world.cut([left], [right])
    world.until(lambda: world.agree([left]) and world.agree([right]), 40.0)
    joiner = world.start("c", "a")
    world.cut([joiner], [right])
    world.until(lambda: world.agree([left, joiner]), 10.0)
    world.stop(left)
    world.heal()
    world.until(lambda: world.health(right, joiner) == "alive", 15.0)


def test_an_age_that_cannot_be_is_not_believed() -> None:
    for seconds in (-1.0, math.nan, math.inf):
        bench = Bench(own="joining", alone=True)
        gone = entry("gone", 30, state="up", health=Health.DOWN)
        bench.give(Received(20, Sync(False, [entry("m20", 20, state="up"), gone], [], [], [Gone(30, seconds)])))
        assert bench.machine.get(30) is None
