"""How a node's own state, and how many agree with it, decide how soon it takes others for dead."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.config import PROFILES
from roost.core.gossip import Ack, Doubt, Health, Nack, Ping, PingRequest, Sync
from roost.core.local_health import SCORE_MAX, LocalHealth
from roost.core.membership import ContactFailed, LinkLost, Received, SendGossip, Tick
from roost.core.suspicion import CONFIRMATIONS_MAX, HIGH_FACTOR, Suspicions, suspicion_time
from tests.core.swim_bench import FRIEND, SUBJECT, Bench
from tests.core.swim_runner import entry
from tests.core.swim_world import World

LAN = PROFILES["lan"]
LOW = LAN.suspicion_seconds
HIGH = HIGH_FACTOR * LOW


def crowd(count: int) -> Bench:
    """A machine among `count` live friends (uids 100, 101, ...) beside the usual one, and a live subject."""
    bench = Bench("alive")
    bench.hear(*(entry(f"f{uid}", uid, state="up") for uid in friends(count)))
    return bench


def friends(count: int) -> range:
    return range(100, 100 + count)


def ends_in(bench: Bench) -> float:
    """Seconds from the accusation to the subject's end."""
    return bench.machine._suspicion_ends()[SUBJECT] - bench.machine._suspicions._of[SUBJECT].since


def doubt(bench: Bench, *accusers: int, incarnation: int = 1) -> None:
    bench.give(Received(FRIEND, Ack(0, [], [], [Doubt(SUBJECT, incarnation, accuser) for accuser in accusers])))


# how long a suspect has


def test_two_members_cannot_be_confirmed_and_wait_the_suspicion_time_alone() -> None:
    assert suspicion_time(5.0, live=2, confirmations=0, confirmers=0) == 5.0


def test_each_confirmation_shortens_the_time_by_less_than_the_one_before() -> None:
    times = [suspicion_time(LOW, live=9, confirmations=count, confirmers=7) for count in range(5)]
    assert times[0] == HIGH
    assert times[CONFIRMATIONS_MAX] == times[4] == LOW
    steps = [sooner - later for sooner, later in itertools.pairwise(times)]
    assert steps[0] > steps[1] > steps[2] > 0


@given(st.integers(2, 2000), st.integers(0, 9), st.integers(0, 9))
@settings(max_examples=200, deadline=None)
def test_the_time_is_never_below_the_suspicion_time_nor_above_six_times_that_of_the_size(
    live: int, confirmations: int, confirmers: int
) -> None:
    time = suspicion_time(LOW, live=live, confirmations=confirmations, confirmers=confirmers)
    low = suspicion_time(LOW, live=live, confirmations=CONFIRMATIONS_MAX, confirmers=confirmers)
    assert LOW <= low <= time <= HIGH_FACTOR * low
    assert suspicion_time(LOW, live=live, confirmations=confirmations + 1, confirmers=confirmers) <= time


def test_the_least_time_grows_with_the_logarithm_of_the_size() -> None:
    lows = [suspicion_time(LOW, live=live, confirmations=3, confirmers=9) for live in (2, 10, 100, 1000)]
    assert lows == pytest.approx([LOW, LOW, 2 * LOW, 3 * LOW])


def test_only_different_known_accusers_of_this_incarnation_count() -> None:
    bench = crowd(5)
    bench.hear(bench.in_standing("suspect", incarnation=1))
    doubt(bench, 100)
    assert ends_in(bench) == HIGH
    doubt(bench, 100, 100, SUBJECT, 999)
    doubt(bench, 101, 102, incarnation=7)
    assert ends_in(bench) == HIGH
    doubt(bench, 101)
    assert LOW < ends_in(bench) < HIGH
    doubt(bench, 102, 103)
    assert ends_in(bench) == LOW


def test_accusers_are_kept_and_told_within_a_bound() -> None:
    bench = crowd(12)
    bench.hear(bench.in_standing("suspect", incarnation=1))
    doubt(bench, *friends(12))
    assert len(bench.machine._suspicions.doubts(SUBJECT)) == CONFIRMATIONS_MAX + 1
    told = [
        one.message.doubts
        for one in bench.effects
        if isinstance(one, SendGossip) and isinstance(one.message, Ack | Ping | Sync)
    ]
    assert all(len(doubts) <= CONFIRMATIONS_MAX + 1 for doubts in told)


def test_a_new_accuser_is_told_on_and_a_known_one_is_not() -> None:
    bench = crowd(5)
    bench.hear(bench.in_standing("suspect", incarnation=1))
    bench.pass_time(5.0, alive=(FRIEND, SUBJECT, *friends(5)))
    assert not bench.machine._herald.entries

    def told() -> list[Doubt]:
        bench.give(Received(101, Ping(1, [], [])))
        return [doubt for ack in bench.sent(Ack, 101) for doubt in ack.doubts]

    assert told() == []
    doubt(bench, 100)
    assert told() == [Doubt(SUBJECT, 1, 100)]
    bench.pass_time(5.0, alive=(FRIEND, SUBJECT, *friends(5)))
    assert told() == []
    doubt(bench, 100)
    assert told() == []


def test_the_own_failed_probe_confirms_what_others_say_and_is_told() -> None:
    bench = crowd(1)
    bench.hear(bench.in_standing("suspect", incarnation=1))
    bench.machine.probe_failed(SUBJECT, False)
    bench.give(Tick())
    assert bench.machine._suspicions.doubts(SUBJECT) == [Doubt(SUBJECT, 1, bench.machine.me.uid)]


def test_who_is_suspect_is_not_waited_for_to_confirm() -> None:
    suspicions = Suspicions(LOW)
    for uid in (1, 2, 3):
        suspicions.begin(uid, 1, 0.0)
    assert set(suspicions.ends(3).values()) == {LOW}
    assert set(suspicions.ends(4).values()) == {HIGH}


def test_a_refutation_ends_all_accusations() -> None:
    bench = crowd(5)
    bench.hear(bench.in_standing("suspect", incarnation=1))
    doubt(bench, 100, 101, 102, 103)
    bench.hear(bench.subject(state="up", incarnation=2))
    assert bench.stands("alive")
    bench.hear(bench.in_standing("suspect", incarnation=2))
    assert ends_in(bench) == HIGH


def test_in_a_cluster_a_silent_host_is_accused_by_several_and_down_after_about_the_least_time() -> None:
    world = World(5, timings=LAN)
    *rest, victim = world.cluster(8)
    world.freeze(victim)
    took = world.until(lambda: all(world.health(victim, one) == "down" for one in rest), 30.0)
    assert LOW <= took <= LOW + 6 * LAN.probe_seconds


# how well the node itself is


def test_the_score_saturates_at_both_ends() -> None:
    health = LocalHealth()
    health.better()
    assert (health.score, health.factor) == (0, 1)
    health.worse(100)
    assert (health.score, health.factor) == (SCORE_MAX, SCORE_MAX + 1)
    health.better()
    assert health.score == SCORE_MAX - 1


def unanswered(bench: Bench) -> list[PingRequest]:
    """Probe the subject, which is silent, up to where others are asked."""
    bench.give(LinkLost(SUBJECT))
    bench.pass_time(LAN.probe_timeout_seconds, alive=())
    return bench.sent(PingRequest)


def test_a_failed_probe_counts_one_and_each_helper_that_says_nothing_one_more() -> None:
    silent, helpful = Bench("alive"), Bench("alive")
    assert unanswered(silent)
    silent.pass_time(0.5, alive=())
    assert silent.stands("suspect")
    assert silent.machine.local_health == 2
    (request,) = unanswered(helpful)
    helpful.give(Received(FRIEND, Nack(request.number, False, [], [])))
    helpful.pass_time(0.5, alive=())
    assert helpful.stands("suspect")
    assert helpful.machine.local_health == 1


def test_a_host_that_refuses_says_nothing_against_the_node_itself() -> None:
    bench = Bench("alive")
    bench.give(LinkLost(SUBJECT))
    bench.give(ContactFailed("subject:1", SUBJECT, True))
    (request,) = bench.sent(PingRequest, FRIEND)
    bench.give(Received(FRIEND, Nack(request.number, True, [], [])))
    assert bench.stands("suspect")
    assert bench.machine.local_health == 0


def test_having_to_refute_counts_one_and_a_probe_that_ends_well_takes_one_off() -> None:
    bench = Bench("alive")
    for _ in range(3):
        bench.hear(msgspec.structs.replace(bench.machine.me, health=Health.SUSPECT))
    assert bench.machine.local_health == 3
    bench.give(LinkLost(SUBJECT))
    bench.give(Received(SUBJECT, Ack(0, [], [])))
    assert bench.machine.local_health == 2


def test_a_stale_accusation_that_was_refuted_already_counts_nothing() -> None:
    bench = Bench("alive")
    accused = msgspec.structs.replace(bench.machine.me, health=Health.SUSPECT)
    bench.hear(accused)
    bench.hear(accused)
    assert bench.machine.local_health == 1


def test_whoever_is_not_well_probes_more_slowly_and_waits_longer() -> None:
    bench = Bench("alive")
    well, factor = pings_in(bench, 40.0), 5
    bench = Bench("alive")
    bench.machine._health.worse(factor - 1)
    bench.give(LinkLost(SUBJECT))
    (probe,) = bench.machine._probing.probes.values()
    assert probe.ask_at - bench.now == factor * LAN.probe_timeout_seconds
    assert probe.end_at - bench.now == factor * LAN.probe_seconds
    assert pings_in(bench, 40.0, score=factor - 1) <= well / (factor - 1)


def pings_in(bench: Bench, seconds: float, *, score: int = 0) -> int:
    """Pings of probes, everybody being alive and the node as unwell as it is said to be."""
    end, count = bench.now + seconds, 0
    while bench.machine.wake_at <= end:
        bench.machine._health.score = score
        bench.now = bench.machine.wake_at
        bench.give(Tick())
        count += len(bench.sent(Ping))
        for uid in (FRIEND, SUBJECT):
            bench.give(Received(uid, Ack(0, [], [])))
    return count


def test_a_node_that_hears_nobody_gets_slower_and_nobody_else_believes_it() -> None:
    world = World(6, timings=LAN)
    deaf, *rest = world.cluster(6)
    since = world.now
    world.cut(rest, [deaf], both=False)
    world.run(4.0)
    assert deaf.machine.local_health >= 3
    world.run(20.0)
    assert {node.name: [name for name in node.went_down(since) if name != deaf.name] for node in rest} == {
        node.name: [] for node in rest
    }


# the accused learn of it


def test_a_relayed_ping_tells_the_suspect_so_as_well() -> None:
    bench = Bench("suspect")
    bench.give(Received(FRIEND, PingRequest(7, SUBJECT, [], [])))
    (ping,) = bench.sent(Ping, SUBJECT)
    assert [(one.uid, one.health) for one in ping.entries if one.uid == SUBJECT] == [(SUBJECT, Health.SUSPECT)]


def test_the_ping_that_tells_a_suspect_brings_its_refutation_with_the_ack() -> None:
    bench = Bench()
    accused = msgspec.structs.replace(bench.machine.me, health=Health.SUSPECT)
    bench.give(Received(FRIEND, Ping(9, [accused], [])))
    ack = bench.sent(Ack, FRIEND)[0]
    assert ack.number == 9
    assert bench.machine.me in ack.entries
    assert bench.machine.me.incarnation == accused.incarnation + 1


def test_a_suspect_that_still_hears_refutes_within_a_round_trip_and_keeps_its_place() -> None:
    world = World(7, timings=LAN)
    *rest, sleeper = world.cluster(5)
    since = world.now
    world.block(sleeper, 0.9 * LOW)
    world.until(lambda: any(world.health(sleeper, one) == "suspect" for one in rest), 20.0)
    world.until(lambda: sleeper.state == "running", 20.0)
    world.run(0.1)
    assert sleeper.machine.me.incarnation > 2
    world.until(lambda: all(world.health(sleeper, one) == "alive" for one in rest), 1.0)
    assert not any(one.went_down(since) for one in rest)
