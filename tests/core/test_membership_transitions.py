"""Every row of the transition tables, driven through the machine, and the documentation's copy of them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from roost.core.gossip import Ack, Health, Ping, State
from roost.core.membership import (
    ContactFailed,
    Event,
    GoUp,
    LeaveAsked,
    LeaveDone,
    MemberChanged,
    SelfChanged,
    SendGossip,
    Tick,
)
from roost.core.transitions import OTHERS, OWN, Standing, Trigger, transition_tables
from tests.core.swim_bench import FRIEND, SUBJECT, Bench
from tests.core.swim_runner import entry

DOCS = Path(__file__).parents[2] / "docs" / "membership.md"


@pytest.mark.parametrize(
    ("standing", "trigger", "after"),
    [(standing, trigger, after) for standing, row in OTHERS.items() for trigger, after in row.items()],
    ids=str,
)
def test_another_member_moves_as_the_table_says(standing: Standing, trigger: Trigger, after: Standing) -> None:
    bench = Bench(standing)
    bench.pull(trigger)
    assert bench.standing == after


ABSENT = [
    (standing, trigger)
    for standing in OTHERS
    for trigger in Trigger
    if trigger not in OTHERS[standing]
    and any(trigger in row for row in OTHERS.values())
    # As time passes an alive subject that says nothing is probed, of course; and what was never suspected stays.
    and not (standing == "alive" and trigger is Trigger.SUSPICION_ENDED)
]


@pytest.mark.parametrize(("standing", "trigger"), ABSENT, ids=str)
def test_what_is_not_in_the_table_moves_nobody(standing: Standing, trigger: Trigger) -> None:
    bench = Bench(standing)
    if trigger is Trigger.PROBE_FAILED:
        assert all(probe.target != SUBJECT for probe in bench.machine._probing.probes.values())
    else:
        bench.pull(trigger)
    assert bench.standing == standing


@pytest.mark.parametrize("state", list(OWN))
def test_the_own_state_moves_as_the_table_says_and_each_move_raises_the_incarnation(state: State) -> None:
    events: dict[Trigger, Event] = {
        Trigger.GO_UP: GoUp(),
        Trigger.LEAVE_ASKED: LeaveAsked(),
        Trigger.LEAVE_DONE: LeaveDone(),
        Trigger.SELF_CHANGED: SelfChanged({"weight": 3.0}),
    }
    for trigger in [trigger for trigger in Trigger if any(trigger in row for row in OWN.values())]:
        bench = Bench(own=state)
        before = bench.machine.me
        if trigger is Trigger.ACCUSED:
            bench.hear(msgspec.structs.replace(before, health=Health.SUSPECT))
        else:
            bench.give(events[trigger])
        after = bench.machine.me
        assert after.state == OWN[state].get(trigger, state), (state, trigger)
        assert (after.incarnation > before.incarnation) == (trigger in OWN[state]), (state, trigger)


def test_the_documentation_shows_the_very_tables_of_the_code() -> None:
    assert transition_tables() in DOCS.read_text()


def test_a_change_of_the_own_entry_that_changes_nothing_is_none() -> None:
    bench = Bench()
    before = bench.machine.me
    bench.give(SelfChanged({"weight": before.weight}))
    assert bench.machine.me == before
    bench.give(SelfChanged({"services": {"kv": 7}}))
    assert bench.machine.me.services == {"kv": 7}
    assert any(isinstance(effect, MemberChanged) for effect in bench.effects)


def test_what_a_member_is_cannot_be_changed_by_a_wish() -> None:
    bench = Bench()
    for field in ("name", "uid", "started", "incarnation", "state", "health"):
        with pytest.raises(ValueError, match="can be changed"):
            bench.give(SelfChanged({field: 1}))


def test_a_replay_of_the_own_entry_with_a_greater_incarnation_is_jumped_over() -> None:
    bench = Bench()
    bench.hear(msgspec.structs.replace(bench.machine.me, incarnation=40))
    assert bench.machine.me.incarnation == 41
    assert bench.machine.me.health == Health.ALIVE


@pytest.mark.parametrize("forgery", [{"name": "other"}, {"started": 77}, {"state": "left"}], ids=str)
def test_a_forged_entry_of_oneself_is_ignored(forgery: dict[str, object]) -> None:
    bench = Bench()
    before = bench.machine.me
    bench.hear(msgspec.structs.replace(before, incarnation=9, health=Health.DOWN, **forgery))
    assert bench.machine.me == before


@pytest.mark.parametrize("broken", [{"weight": float("nan")}, {"weight": -1.0}, {"uid": 0}, {"name": ""}], ids=str)
def test_an_entry_that_breaks_the_protocol_is_ignored(broken: dict[str, object]) -> None:
    bench = Bench()
    before = bench.machine.entries()
    bench.hear(msgspec.structs.replace(entry("odd", 7), **broken))
    assert bench.machine.entries() == before


def test_a_stranger_that_is_down_or_has_left_is_not_entered_and_cannot_flash_up_later() -> None:
    bench = Bench()
    bench.hear(entry("gone", 30, health=Health.DOWN, incarnation=4))
    bench.hear(entry("gone", 30, incarnation=4))
    assert bench.machine.get(30) is None
    bench.hear(entry("gone", 30, incarnation=5))
    assert bench.machine.get(30) is not None


@pytest.mark.parametrize("standing", ["down", "left"])
def test_a_claim_of_down_by_a_member_that_is_not_live_here_is_doubt(standing: Standing) -> None:
    bench = Bench(standing)
    bench.hear(entry("friend", FRIEND, state="up", health=Health.DOWN), source=SUBJECT)
    friend = bench.machine.get(FRIEND)
    assert friend is not None
    assert friend.health == Health.SUSPECT


def test_a_claim_of_down_by_a_member_that_came_back_a_moment_ago_is_doubt() -> None:
    bench = Bench("down")
    claim = entry("friend", FRIEND, state="up", health=Health.DOWN)
    bench.hear(bench.subject(state="up", incarnation=5), claim, source=SUBJECT)
    bench.hear(claim, source=SUBJECT)
    friend = bench.machine.get(FRIEND)
    assert friend is not None
    assert friend.health == Health.SUSPECT


def test_an_accused_member_refutes_and_answers_its_accuser_at_once() -> None:
    bench = Bench()
    accused = msgspec.structs.replace(bench.machine.me, health=Health.DOWN)
    bench.hear(accused)
    assert any(bench.machine.me in answer.entries for answer in bench.sent(Ack, FRIEND))
    assert bench.machine.me.incarnation == accused.incarnation + 1


def test_whoever_is_pinged_while_suspect_is_told_so() -> None:
    bench = Bench("alive")
    bench.give(ContactFailed("subject:1", SUBJECT, True))
    bench.machine.probe_failed(SUBJECT, False)
    bench.give(Tick())
    pings = [one.message for one in bench.effects if isinstance(one, SendGossip) and one.uid == SUBJECT]
    assert any(
        isinstance(ping, Ping) and any(e.uid == SUBJECT and e.health == Health.SUSPECT for e in ping.entries)
        for ping in pings
    )


def test_a_member_first_heard_of_as_down_is_told_so_and_comes_in_by_refuting_it() -> None:
    bench = Bench()
    bench.hear(entry("gone", 30, health=Health.DOWN, incarnation=4))
    word = entry("gone", 30, incarnation=4)
    bench.hear(word, whole=True, source=30)
    told = [answer.entries for answer in bench.sent(Ack, 30)]
    assert [msgspec.structs.replace(word, health=Health.DOWN)] in told
    bench.hear(msgspec.structs.replace(word, incarnation=5), source=30)
    assert bench.machine.get(30) is not None
