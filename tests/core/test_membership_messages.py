"""What is sent to whom and when: probes and their help, news, reports, whole views."""

from __future__ import annotations

import msgspec

from roost.config import PROFILES
from roost.core.gossip import Ack, Health, Nack, Ping, PingRequest, Report, Sync
from roost.core.membership import ContactFailed, LeaveAsked, LinkLost, LinkOpened, Received, SelfChanged, Tick
from roost.core.probing import ASKED_MAX
from tests.core.swim_bench import FRIEND, SUBJECT, Bench
from tests.core.swim_runner import entry

LAN = PROFILES["lan"]


BOTH = (FRIEND, SUBJECT)


def quiet() -> Bench:
    """A bench on which all news is spent, and nothing is under way."""
    bench = Bench("alive")
    bench.pass_time(10.3, alive=BOTH)
    return bench


def crowd(bench: Bench, count: int) -> None:
    bench.hear(*(entry(f"m{uid}", uid, state="up") for uid in range(100, 100 + count)))


def test_a_ping_is_answered_with_an_ack_of_its_number_that_carries_the_own_report() -> None:
    bench = quiet()
    bench.give(Received(FRIEND, Ping(77, [], [])))
    (ack,) = bench.sent(Ack, FRIEND)
    assert ack.number == 77
    assert [(report.uid, report.digest) for report in ack.reports] == [(10, bench.machine.digest())]


def test_a_hint_pings_at_once_and_a_second_one_waits_its_time() -> None:
    bench = quiet()
    bench.give(LinkLost(SUBJECT))
    assert len(bench.sent(Ping, SUBJECT)) == 1
    bench.hear(source=SUBJECT)
    bench.give(LinkLost(SUBJECT))
    assert not bench.sent(Ping, SUBJECT)
    assert bench.machine.wake_at <= bench.now + LAN.probe_timeout_seconds
    bench.now = bench.machine.wake_at
    bench.give(Tick())
    assert bench.sent(Ping, SUBJECT)


def test_a_hint_during_a_probe_pings_again_with_its_number() -> None:
    bench = Bench("alive")
    while not bench.sent(Ping, SUBJECT):
        bench.now = bench.machine.wake_at
        bench.give(Tick())
    (first,) = bench.sent(Ping, SUBJECT)
    bench.now += 0.01
    bench.give(LinkLost(SUBJECT))
    (second,) = bench.sent(Ping, SUBJECT)
    assert second.number == first.number


def test_an_unanswered_ping_is_passed_on_to_three_others_after_the_timeout() -> None:
    bench = quiet()
    crowd(bench, 6)
    bench.give(LinkLost(SUBJECT))
    (ping,) = bench.sent(Ping, SUBJECT)
    began = bench.now
    while not bench.sent(PingRequest):
        bench.now = bench.machine.wake_at
        bench.give(Tick())
    assert bench.now - began == LAN.probe_timeout_seconds
    requests = bench.sent(PingRequest)
    assert len(requests) == ASKED_MAX
    assert all((request.number, request.target) == (ping.number, SUBJECT) for request in requests)


def test_a_refused_contact_asks_the_others_without_waiting_for_the_timeout() -> None:
    bench = quiet()
    bench.give(LinkLost(SUBJECT))
    bench.give(ContactFailed("subject:1", SUBJECT, True))
    (request,) = bench.sent(PingRequest, FRIEND)
    bench.give(Received(FRIEND, Nack(request.number, True, [], [])))
    assert bench.stands("suspect")
    bench.pass_time(LAN.refused_seconds)
    assert bench.stands("down")


def test_a_refusal_that_only_this_node_sees_is_outweighed_by_an_ack_of_another() -> None:
    bench = quiet()
    bench.give(LinkLost(SUBJECT))
    bench.give(ContactFailed("subject:1", SUBJECT, True))
    (request,) = bench.sent(PingRequest, FRIEND)
    bench.give(Received(FRIEND, Ack(request.number, [], [])))
    bench.pass_time(0.4)
    assert bench.standing == "alive"


def test_a_refusal_that_only_others_see_does_not_shorten_the_suspicion() -> None:
    bench = quiet()
    bench.give(LinkLost(SUBJECT))
    bench.give(ContactFailed("subject:1", SUBJECT, False))
    (request,) = bench.sent(PingRequest, FRIEND)
    bench.give(Received(FRIEND, Nack(request.number, True, [], [])))
    assert bench.stands("alive")
    bench.pass_time(LAN.probe_seconds + LAN.refused_seconds)
    assert bench.stands("suspect")


def test_an_answer_of_somebody_who_was_not_asked_counts_for_nothing() -> None:
    bench = quiet()
    bench.give(LinkLost(SUBJECT))
    bench.give(ContactFailed("subject:1", SUBJECT, True))
    (request,) = bench.sent(PingRequest, FRIEND)
    bench.give(Received(77, Ack(request.number, [], [])))
    bench.give(Received(FRIEND, Nack(request.number, True, [], [])))
    assert bench.standing == "suspect"


def relayed(bench: Bench, target: int = SUBJECT) -> None:
    bench.give(Received(FRIEND, PingRequest(55, target, [], [])))


def test_whoever_is_asked_pings_the_target_and_passes_its_answer_on() -> None:
    bench = quiet()
    relayed(bench)
    (ping,) = bench.sent(Ping, SUBJECT)
    bench.give(Received(SUBJECT, Ack(ping.number, [], [])))
    assert [ack.number for ack in bench.sent(Ack, FRIEND)] == [55]


def test_whoever_is_asked_reports_a_refusal_at_once() -> None:
    bench = quiet()
    relayed(bench)
    bench.give(ContactFailed("subject:1", SUBJECT, True))
    assert [(nack.number, nack.refused) for nack in bench.sent(Nack, FRIEND)] == [(55, True)]


def test_whoever_is_asked_reports_silence_within_the_asker_s_timeout() -> None:
    bench = quiet()
    relayed(bench)
    began = bench.now
    while not bench.sent(Nack, FRIEND):
        bench.now = bench.machine.wake_at
        bench.give(Tick())
    assert bench.now - began < LAN.probe_timeout_seconds
    assert bench.sent(Nack, FRIEND)[0].refused is False


def test_whoever_is_asked_for_a_stranger_or_for_itself_answers_at_once() -> None:
    bench = quiet()
    relayed(bench, target=4711)
    assert [nack.number for nack in bench.sent(Nack, FRIEND)] == [55]
    relayed(bench, target=10)
    assert [ack.number for ack in bench.sent(Ack, FRIEND)] == [55]


def test_whatever_goes_to_a_suspect_says_so_even_when_the_rumour_is_spent() -> None:
    bench = Bench("suspect")
    bench.pass_time(3.0)
    assert bench.standing == "suspect"
    bench.give(Received(SUBJECT, Ping(5, [], [])))
    (ack,) = bench.sent(Ack, SUBJECT)
    assert [(one.uid, one.health) for one in ack.entries] == [(SUBJECT, Health.SUSPECT)]


def test_an_accused_member_answers_even_the_accuser_that_no_round_would_reach() -> None:
    bench = Bench()
    crowd(bench, 20)
    accused = msgspec.structs.replace(bench.machine.me, health=Health.SUSPECT)
    bench.hear(accused, source=100)
    assert any(bench.machine.me in ack.entries for ack in bench.sent(Ack, 100))


def test_several_changes_within_one_round_are_one_report() -> None:
    bench = quiet()
    numbers: list[int] = []
    for weight in range(2, 10):
        bench.give(SelfChanged({"weight": float(weight)}))
        bench.give(Received(FRIEND, Ping(1, [], [])))
        numbers += [report.number for ack in bench.sent(Ack) for report in ack.reports if report.uid == 10]
        bench.now += LAN.probe_seconds / 100
    assert numbers[-1] - numbers[0] == 0
    bench.pass_time(LAN.probe_seconds / 4)
    bench.give(Received(FRIEND, Ping(1, [], [])))
    (ack,) = bench.sent(Ack, FRIEND)
    assert (10, bench.machine.digest()) in [(report.uid, report.digest) for report in ack.reports]


def test_leaving_is_told_at_once_although_a_round_has_just_been() -> None:
    bench = quiet()
    bench.give(SelfChanged({"weight": 2.0}))
    assert bench.sent(Ack)
    bench.now += 0.001
    bench.give(SelfChanged({"weight": 3.0}))
    assert not bench.sent(Ack)
    bench.give(LeaveAsked())
    assert any(bench.machine.me in ack.entries for ack in bench.sent(Ack))


def test_a_joiner_does_not_tell_the_others_what_it_has_just_learned_of_them() -> None:
    bench = Bench(own="joining", alone=True)
    crowd_entries = [entry(f"m{uid}", uid, state="up") for uid in range(100, 140)]
    bench.hear(*crowd_entries, whole=True, source=100)
    told = {one.uid: None for ack in bench.sent(Ack) for one in ack.entries}
    assert list(told) == [10]


def test_a_member_whose_digest_stays_different_is_asked_for_its_view_once_in_a_while() -> None:
    bench = quiet()
    digest = bench.machine.digest()
    asked: list[float] = []
    for number in range(2, 100):
        bench.pass_time(0.1, alive=BOTH)
        bench.give(Received(FRIEND, Ping(1, [], [Report(FRIEND, number, digest ^ 1)])))
        if any(view.answer for view in bench.sent(Sync, FRIEND)):
            asked.append(bench.now)
    assert 2 <= len(asked) <= 4


def test_a_member_with_the_same_digest_is_not_asked_for_its_view() -> None:
    bench = quiet()
    for number in range(2, 60):
        bench.pass_time(0.1, alive=BOTH)
        bench.give(Received(FRIEND, Ping(1, [], [Report(FRIEND, number, bench.machine.digest())])))
        assert not bench.sent(Sync, FRIEND)


def test_views_are_exchanged_with_strangers_and_with_the_down_but_not_with_friends() -> None:
    bench = Bench("down")
    bench.give(LinkOpened(FRIEND, "friend", "friend:1"))
    assert not bench.sent(Sync)
    bench.give(LinkOpened(SUBJECT, "subject", "subject:1"))
    assert [view.answer for view in bench.sent(Sync, SUBJECT)] == [True]
    bench.give(LinkOpened(500, "new", "new:1"))
    assert [view.answer for view in bench.sent(Sync, 500)] == [True]


def test_a_talkative_stranger_is_asked_for_its_view_once_a_period() -> None:
    bench = quiet()
    asked = 0
    for _ in range(20):
        bench.give(Received(500, Ping(1, [], [])))
        assert [ack.number for ack in bench.sent(Ack, 500)] == [1]
        asked += len(bench.sent(Sync, 500))
        bench.now += LAN.probe_seconds / 10
    assert asked == 2
