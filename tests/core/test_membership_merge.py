"""The laws of entries: their merge, their digest, and what a view takes in."""

from __future__ import annotations

import random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.core.dissemination import Rumours, tellings_max
from roost.core.gossip import Entry, Health, Report, State
from roost.core.view import INCARNATION_MAX, MARKS_MAX, View, digest_of, is_live, merge
from tests.core.swim_bench import Bench
from tests.core.swim_runner import entry

STATES: list[State] = ["joining", "up", "leaving", "left"]


@st.composite
def entries(draw: st.DrawFn, uids: int = 1) -> Entry:
    uid = draw(st.integers(1, uids))
    return Entry(
        name=f"n{uid}",
        uid=uid,
        started=7,
        incarnation=draw(st.integers(0, 3)),
        state=draw(st.sampled_from(STATES)),
        health=draw(st.sampled_from(list(Health))),
        address=draw(st.sampled_from(["a:1", "b:2"])),
        weight=draw(st.sampled_from([1.0, 2.0])),
        services=draw(st.dictionaries(st.sampled_from(["kv", "rooms"]), st.integers(0, 2))),
    )


@given(entries(), entries())
@settings(max_examples=150, deadline=None)
def test_merging_two_entries_does_not_depend_on_their_order(a: Entry, b: Entry) -> None:
    assert merge(a, b) == merge(b, a)
    assert merge(a, b) in (a, b)


@given(entries(), entries(), entries())
@settings(max_examples=150, deadline=None)
def test_merging_entries_does_not_depend_on_their_grouping(a: Entry, b: Entry, c: Entry) -> None:
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


@given(entries())
@settings(max_examples=50, deadline=None)
def test_merging_an_entry_with_itself_changes_nothing(a: Entry) -> None:
    assert merge(a, a) == a


@given(st.lists(entries(), min_size=1, max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_merge_picks_the_greatest_of_a_total_order(some: list[Entry], chance: random.Random) -> None:
    def greatest(of: list[Entry]) -> Entry:
        best = of[0]
        for one in of[1:]:
            best = merge(best, one)
        return best

    shuffled = list(some)
    chance.shuffle(shuffled)
    best = greatest(some)
    assert greatest(shuffled) == best
    assert all(one.order <= best.order for one in some)


def test_left_outweighs_every_incarnation_and_a_refutation_outweighs_down() -> None:
    me = entry("a", 1)
    left = msgspec.structs.replace(me, state="left")
    later = msgspec.structs.replace(me, incarnation=9)
    down = msgspec.structs.replace(me, health=Health.DOWN)
    assert merge(left, later) == left
    assert merge(down, me) == down
    assert merge(down, msgspec.structs.replace(me, incarnation=2)).health == Health.ALIVE


@given(st.lists(entries(uids=5), max_size=30))
@settings(max_examples=100, deadline=None)
def test_a_digest_kept_step_by_step_is_that_of_a_fresh_computation(some: list[Entry]) -> None:
    view = View(entry("me", 99))
    for one in some:
        view.put(one)
        view.check()
    fresh = View(entry("me", 99))
    for one in sorted(view.entries.values(), key=lambda one: -one.uid):
        if one.uid != 99:
            fresh.put(one)
    assert fresh.digest == view.digest
    for uid in [uid for uid in view.entries if uid != 99]:
        view.remove(uid, mark=True)
        view.check()
    assert view.digest == View(entry("me", 99)).digest


def test_the_digest_sees_what_placement_depends_on_and_nothing_else() -> None:
    base = entry("a", 1, state="up", services={"kv": 1, "rooms": 2})

    def differs(**changes: object) -> bool:
        return digest_of(msgspec.structs.replace(base, **changes)) != digest_of(base)

    assert differs(state="leaving")
    assert differs(services={"kv": 1})
    assert differs(zone="north")
    assert differs(weight=2.0)
    assert differs(health=Health.DOWN)
    assert not differs(health=Health.SUSPECT)
    assert not differs(incarnation=5)
    assert not differs(services={"rooms": 2, "kv": 1})
    assert digest_of(msgspec.structs.replace(base, state="left")) == 0


def test_a_forgotten_member_returns_only_by_a_greater_entry() -> None:
    view = View(entry("me", 99))
    down = entry("a", 1, health=Health.DOWN)
    view.put(down)
    view.remove(1, mark=True)
    assert not view.newer(down)
    assert not view.newer(msgspec.structs.replace(down, health=Health.ALIVE))
    assert view.newer(msgspec.structs.replace(down, health=Health.ALIVE, incarnation=2))


def test_marks_of_the_gone_are_bounded() -> None:
    view = View(entry("me", 10**6))
    for uid in range(1, MARKS_MAX + 100):
        view.mark(entry("a", uid, health=Health.DOWN))
    view.check()
    assert not view.newer(entry("a", MARKS_MAX + 50))
    assert view.newer(entry("a", 1))


def test_another_run_may_not_pass_for_a_known_uid() -> None:
    view = View(entry("me", 99))
    view.put(entry("a", 1))
    assert not view.newer(entry("b", 1, incarnation=9))
    assert not view.newer(entry("a", 1, started=5, incarnation=9))
    assert view.newer(entry("a", 1, incarnation=9))


def test_of_two_reports_of_one_member_the_greater_number_stays() -> None:
    view = View(entry("me", 99))
    assert view.hear(Report(1, 5, 50))
    assert not view.hear(Report(1, 4, 40))
    assert not view.hear(Report(1, 5, 40))
    assert view.reports[1].digest == 50


def test_reports_of_strangers_are_kept_within_a_bound() -> None:
    view = View(entry("me", 10**6))
    heard = [view.hear(Report(uid, 1, 1)) for uid in range(1, 2000)]
    assert sum(heard) == len(view.reports) < 300


def test_the_least_told_rumours_ride_first_and_each_rests_after_its_share() -> None:
    rumours = Rumours()
    for uid in range(1, 6):
        rumours.add(uid)
    assert rumours.pick(3, 2) == [1, 2, 3]
    assert rumours.pick(3, 2) == [4, 5, 1]
    rumours.add(9)
    assert rumours.pick(2, 2) == [9, 2]
    assert rumours.pick(9, 2) == [3, 4, 5, 9]
    assert len(rumours) == 0


def test_news_of_a_known_rumour_is_told_anew() -> None:
    rumours = Rumours()
    rumours.add(1)
    rumours.pick(1, 9)
    rumours.add(2)
    rumours.add(1)
    assert rumours.pick(1, 9) == [2]
    assert rumours.pick(1, 9) == [1]


def test_a_rumour_is_told_logarithmically_often() -> None:
    assert [tellings_max(members) for members in (2, 3, 7, 31, 1023)] == [5, 6, 9, 15, 30]


def test_joining_leaving_and_suspect_members_count_as_live() -> None:
    assert is_live(entry("a", 1))
    assert is_live(entry("a", 1, state="leaving", health=Health.SUSPECT))
    assert not is_live(entry("a", 1, state="left"))
    assert not is_live(entry("a", 1, state="up", health=Health.DOWN))


def test_an_incarnation_that_leaves_no_room_to_refute_is_ignored() -> None:
    bench = Bench("alive")
    subject = bench.machine.get(bench.subject(state="up").uid)
    assert subject is not None
    for incarnation in (-1, INCARNATION_MAX + 1, 2**64 - 1):
        bench.hear(msgspec.structs.replace(subject, incarnation=incarnation, health=Health.DOWN))
        bench.hear(msgspec.structs.replace(bench.machine.me, incarnation=incarnation, health=Health.DOWN))
    assert bench.machine.get(subject.uid) == subject
    assert bench.machine.me.incarnation < 10
