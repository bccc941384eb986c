"""Who may act in a split: every small world there is, and larger ones by chance."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.core.split import (
    STRATEGIES,
    DownAll,
    KeepBoth,
    KeepMajority,
    KeepOldest,
    Seen,
    StaticQuorum,
    Strategy,
    renewed,
    strategy_of,
)

ASKING = (KeepMajority(), KeepOldest(), DownAll())
"""Those that ask what has become of the baseline."""


class Fate(NamedTuple):
    """What became of a member since the baseline. Other sides than `side` see its first run down."""

    kind: str
    """up; left (only its side knows), left everywhere; restarted; came: a newcomer, of whom only its side knows."""
    side: int


def member(number: int, *, up: bool = True, left: bool = False, run: int = 0) -> Seen:
    """The lower number is the older, but each two share a millisecond: then the uid decides, and only then."""
    uid = 1000 * (9 - run) - 10 * (number // 2) + number % 2
    return Seen(uid, f"{'cebdaf'[number % 6]}{number}", 50 * run + number // 2, up, left)


def baseline_of(fates: Sequence[Fate]) -> list[Seen]:
    return [member(number) for number, fate in enumerate(fates) if fate.kind != "came"]


def view(fates: Sequence[Fate], side: int) -> list[Seen]:
    """What a node of that side sees."""
    seen = []
    for number, (kind, place) in enumerate(fates):
        here = place == side
        if kind != "came":
            gone = kind == "left everywhere" or (kind == "left" and here)
            seen.append(member(number, up=kind == "up" and here, left=gone))
        if here and kind in ("restarted", "came"):
            seen.append(member(number, run=1))
    return seen


def live_sides(fates: Sequence[Fate]) -> list[int]:
    return sorted({place for kind, place in fates if not kind.startswith("left")})


def acting(strategy: Strategy, fates: Sequence[Fate]) -> list[int]:
    """The sides that act."""
    baseline = baseline_of(fates)
    return [side for side in live_sides(fates) if strategy.may_act(baseline, view(fates, side))]


def plain_splits(sides: int) -> Iterator[tuple[Fate, ...]]:
    """All ways to divide one to six members over so many sides or fewer."""
    for count in range(1, 7):
        for places in itertools.product(range(sides), repeat=count):
            yield tuple(Fate("up", place) for place in places)


def fates_of(sides: int) -> list[Fate]:
    kinds = ("up", "left", "restarted", "came")
    return [Fate(kind, side) for kind in kinds for side in range(sides)] + [Fate("left everywhere", 0)]


def mixed_worlds() -> Iterator[tuple[Fate, ...]]:
    """Splits in which members leave, restart and join; some of the baseline is still there."""
    for sides, most in ((2, 4), (3, 3)):
        for count in range(1, most + 1):
            for fates in itertools.product(fates_of(sides), repeat=count):
                if any(kind in ("up", "restarted") for kind, _ in fates):
                    yield fates


def larger_worlds() -> st.SearchStrategy[list[Fate]]:
    return st.integers(2, 5).flatmap(lambda sides: st.lists(st.sampled_from(fates_of(sides)), min_size=1, max_size=40))


def least_safe_quorum(fates: Sequence[Fate]) -> StaticQuorum:
    """More than half of all who may ever be up."""
    return StaticQuorum(len(fates) // 2 + 1)


# at most one


@pytest.mark.parametrize("sides", [2, 3])
def test_two_sides_of_a_split_never_both_act(sides: int) -> None:
    for fates in plain_splits(sides):
        for strategy in (*ASKING, least_safe_quorum(fates)):
            assert len(acting(strategy, fates)) <= 1, (strategy, fates)


def test_two_sides_never_both_act_where_members_left_restarted_and_joined() -> None:
    for fates in mixed_worlds():
        for strategy in (*ASKING, least_safe_quorum(fates)):
            assert len(acting(strategy, fates)) <= 1, (strategy, fates)


@settings(max_examples=300, deadline=None)
@given(larger_worlds())
def test_two_sides_of_a_large_split_never_both_act(fates: list[Fate]) -> None:
    if any(kind in ("up", "restarted") for kind, _ in fates):
        for strategy in (*ASKING, least_safe_quorum(fates)):
            assert len(acting(strategy, fates)) <= 1, strategy


def test_sides_that_split_again_after_they_settled_never_both_act() -> None:
    for strategy in ASKING:
        for fates in plain_splits(2):
            first = baseline_of(fates)
            for places in itertools.product((0, 1), repeat=len(fates)):
                again = [Fate("up", 2 * fate.side + place) for fate, place in zip(fates, places, strict=True)]
                acts = 0
                for side in live_sides(again):
                    baseline = renewed(strategy, first, view(fates, side // 2), settled=True)
                    acts += strategy.may_act(baseline, view(again, side))
                assert acts <= 1, (strategy, again)


def test_keep_both_lets_every_side_act() -> None:
    for fates in plain_splits(3):
        assert acting(KeepBoth(), fates) == live_sides(fates)


def test_a_quorum_of_half_lets_both_halves_act() -> None:
    halves = [Fate("up", number % 2) for number in range(4)]
    assert acting(StaticQuorum(2), halves) == [0, 1]


# exactly one, or none


@pytest.mark.parametrize("strategy", [KeepMajority(), KeepOldest()], ids=lambda strategy: strategy.name)
def test_of_two_sides_one_acts(strategy: Strategy) -> None:
    for fates in plain_splits(2):
        assert len(acting(strategy, fates)) == 1, fates


def test_of_two_sides_the_larger_acts_and_of_halves_that_with_the_oldest() -> None:
    for fates in plain_splits(2):
        sizes = [sum(fate.side == side for fate in fates) for side in (0, 1)]
        expected = fates[0].side if sizes[0] == sizes[1] else sizes.index(max(sizes))
        assert acting(KeepMajority(), fates) == [expected]


def test_the_side_of_the_oldest_acts_unless_that_is_alone() -> None:
    for fates in plain_splits(2):
        beside = sum(fate.side == fates[0].side for fate in fates) - 1
        expected = fates[0].side if beside or len(fates) == 1 else 1 - fates[0].side
        assert acting(KeepOldest(), fates) == [expected]


def test_the_oldest_alone_stands_down_even_if_the_others_are_divided() -> None:
    assert acting(KeepOldest(), [Fate("up", side) for side in (0, 1, 1, 2, 2)]) == []
    assert acting(KeepOldest(), [Fate("up", side) for side in (0, 0, 1, 1, 2)]) == [0]


def test_three_sides_without_a_majority_all_stand_down() -> None:
    assert acting(KeepMajority(), [Fate("up", side) for side in (0, 0, 1, 1, 2, 2)]) == []
    assert acting(KeepMajority(), [Fate("up", side) for side in (0, 1, 1, 1, 2, 2)]) == []
    assert acting(KeepMajority(), [Fate("up", side) for side in (0, 0, 0, 1, 1, 2)]) == [0]


def test_down_all_lets_nobody_act_in_any_split() -> None:
    for fates in plain_splits(3):
        whole = len(live_sides(fates)) == 1
        assert bool(acting(DownAll(), fates)) == whole, fates


def test_a_side_acts_that_has_a_quorum() -> None:
    for fates in plain_splits(3):
        for quorum in range(1, len(fates) + 1):
            sizes = [sum(fate.side == side for fate in fates) for side in range(3)]
            expected = [side for side in live_sides(fates) if sizes[side] >= quorum]
            assert acting(StaticQuorum(quorum), fates) == expected


# laws


def all_strategies(fates: Sequence[Fate]) -> list[Strategy]:
    return [KeepBoth(), *ASKING, *(StaticQuorum(quorum) for quorum in range(1, len(fates) + 2))]


def test_views_in_another_order_give_the_same_answer() -> None:
    rng = random.Random(7)
    for fates in mixed_worlds():
        baseline, now = baseline_of(fates), view(fates, 0)
        for strategy in all_strategies(fates):
            answer = strategy.may_act(baseline, now)
            shuffled = rng.sample(baseline, len(baseline)), rng.sample(now, len(now))
            assert strategy.may_act(*shuffled) == answer, (strategy, fates)
            assert strategy.may_act(baseline[::-1], now[::-1]) == answer, (strategy, fates)


@settings(max_examples=200, deadline=None)
@given(larger_worlds(), st.randoms(use_true_random=False))
def test_large_views_in_another_order_give_the_same_answer(fates: list[Fate], rng: random.Random) -> None:
    baseline, now = baseline_of(fates), view(fates, 0)
    for strategy in (*ASKING, least_safe_quorum(fates)):
        shuffled = rng.sample(baseline, len(baseline)), rng.sample(now, len(now))
        assert strategy.may_act(*shuffled) == strategy.may_act(baseline, now)


def test_a_side_that_acts_still_does_when_a_member_comes_to_it() -> None:
    for fates in mixed_worlds():
        baseline, now = baseline_of(fates), view(fates, 0)
        acts = [strategy for strategy in all_strategies(fates) if strategy.may_act(baseline, now)]
        for number, (kind, side) in enumerate(fates):
            if kind in ("up", "restarted") and side != 0:
                grown = view([*fates[:number], Fate(kind, 0), *fates[number + 1 :]], 0)
                assert [strategy for strategy in acts if not strategy.may_act(baseline, grown)] == [], (fates, number)


def test_newcomers_decide_nothing_but_a_quorum() -> None:
    for fates in mixed_worlds():
        baseline, now = baseline_of(fates), view(fates, 0)
        grown = [*now, *(member(number) for number in range(10, 20))]
        left = [one.uid for one in now if one.left]
        if any(one.uid not in left for one in baseline):
            for strategy in ASKING:
                assert strategy.may_act(baseline, grown) == strategy.may_act(baseline, now), (strategy, fates)
    baseline, now = [member(0), member(1)], [member(0), member(1, up=False), member(2)]
    assert StaticQuorum(2).may_act(baseline, now)
    assert not StaticQuorum(3).may_act(baseline, now)


# what becomes of a member


def names_here(now: Sequence[Seen], count: int = 1) -> bool:
    """Whether down-all finds nobody missing of the first members."""
    return DownAll().may_act([member(number) for number in range(count)], now)


def test_members_that_left_do_not_count() -> None:
    left = [member(number, up=False, left=True) for number in (1, 2, 3)]
    for strategy in ASKING:
        assert strategy.may_act([member(number) for number in range(4)], [member(0), *left])
    half = [member(0, up=False), member(1), *left[1:]]
    assert not KeepMajority().may_act([member(number) for number in range(4)], half), "the oldest is on the other side"


def test_a_restarted_process_stands_in_for_its_old_run() -> None:
    assert not names_here([member(0, up=False)])
    assert names_here([member(0, up=False), member(0, run=1)])
    assert names_here([member(0, run=1)]), "the old run is forgotten"
    assert names_here([member(0, up=False), member(0, up=False, run=1), member(0, run=2)])


def test_a_restarted_process_that_is_down_again_is_missing() -> None:
    assert not names_here([member(0, up=False), member(0, up=False, run=1)])
    assert not names_here([member(0, up=False), member(0, up=False, left=True, run=1)])


def test_an_older_run_that_comes_back_stands_in_for_nobody() -> None:
    assert not DownAll().may_act([member(0, run=1)], [member(0), member(0, up=False, run=1)])


def test_a_run_that_lost_its_name_to_the_older_one_changes_nothing() -> None:
    assert names_here([member(0), member(0, up=False, run=1)])


def test_who_left_and_was_started_again_is_a_newcomer() -> None:
    """The other side may know that it left, and not that it came back."""
    baseline = [member(number) for number in range(5)]
    back = [member(4, up=False, left=True), member(4, run=1)]
    assert not KeepMajority().may_act(baseline, [member(2), member(3), *back])
    assert KeepMajority().may_act(baseline, [member(0), member(1), back[0]])


def test_who_is_forgotten_is_missing_still() -> None:
    for strategy in ASKING:
        assert not strategy.may_act([member(number) for number in range(5)], [member(3), member(4)])


def test_several_runs_of_a_name_count_once() -> None:
    runs = [member(0), member(0, run=1)]
    assert not StaticQuorum(2).may_act([], runs)
    assert not KeepMajority().may_act([member(1), *runs, member(2)], runs)
    assert DownAll().may_act(runs[1:], runs) and DownAll().may_act(runs[1:], runs[::-1])
    assert DownAll().may_act(runs, [member(0), member(0, up=False, run=1)])


def test_a_node_without_a_baseline_is_judged_by_what_it_sees() -> None:
    now = [member(0, up=False), member(1, up=False), member(2), member(3, up=False, left=True)]
    assert not KeepMajority().may_act([], now)
    assert KeepMajority().may_act([], [*now, member(4), member(5)])
    assert not DownAll().may_act([], now)
    assert not KeepOldest().may_act([], now)
    for strategy in ASKING:
        assert strategy.may_act([], now[2:])


def test_a_node_whose_whole_baseline_left_is_judged_by_what_it_sees() -> None:
    left = [member(0, up=False, left=True)]
    for strategy in ASKING:
        assert strategy.may_act([member(0)], [*left, member(1), member(2)])
        assert not strategy.may_act([member(0)], [*left, member(1, up=False), member(2, up=False), member(3)])


# the baseline


def test_a_minority_that_settles_among_itself_does_not_become_its_own_baseline() -> None:
    baseline = tuple(member(number) for number in range(5))
    now = [*(member(number, up=False) for number in range(3)), member(3), member(4)]
    assert renewed(KeepMajority(), baseline, now, settled=True) == baseline
    assert renewed(KeepBoth(), baseline, now, settled=True) == (member(3), member(4))


def test_those_who_go_on_count_among_themselves_once_they_are_settled() -> None:
    baseline = tuple(member(number) for number in range(5))
    now = [member(0, up=False), member(1, up=False, left=True), member(2), member(3), member(4)]
    assert renewed(KeepMajority(), baseline, now, settled=False) == baseline
    assert renewed(KeepMajority(), baseline, now, settled=True) == (member(2), member(3), member(4))


@pytest.mark.parametrize(("strategy", "survivor"), [(KeepMajority(), 0), (KeepOldest(), 1)])
def test_of_members_that_crash_one_after_the_other_the_last_two_still_act(strategy: Strategy, survivor: int) -> None:
    """And of these two either may crash, but not the other."""
    for order in itertools.permutations(range(5), 3):
        baseline: Sequence[Seen] = [member(number) for number in range(5)]
        for dead in (order[:count] for count in range(1, 4)):
            now = [member(number, up=number not in dead) for number in range(5)]
            assert strategy.may_act(baseline, now)
            baseline = renewed(strategy, baseline, now, settled=True)
        last = [number for number in range(5) if number not in order]
        alone = [strategy.may_act(baseline, [member(number, up=number == one) for number in last]) for one in last]
        assert alone == [survivor == 0, survivor == 1]


def test_sides_that_regroup_between_two_splits_can_both_act() -> None:
    """As the documentation says: e has missed that the four others settled without it."""
    a, b, c, d, e = (member(number) for number in range(5))
    first = (a, b, c, d, e)
    down = {one.name: member(number, up=False) for number, one in enumerate(first)}
    four = renewed(KeepMajority(), first, [a, b, c, d, down[e.name]], settled=True)
    assert KeepMajority().may_act(four, [a, b, down[c.name], down[d.name], down[e.name]])
    regrouped = [down[a.name], down[b.name], c, d, e]
    assert not KeepMajority().may_act(four, regrouped)
    assert KeepMajority().may_act(first, regrouped)


# names and options


def test_each_name_makes_its_strategy() -> None:
    for name in STRATEGIES:
        strategy = strategy_of(name, 3 if name == "static-quorum" else None)
        assert strategy.name == name
        assert strategy == strategy_of(name, 3 if name == "static-quorum" else None)


@pytest.mark.parametrize(
    ("name", "quorum", "what", "todo"),
    [
        ("keep-mayority", None, "no strategy 'keep-mayority'", "did you mean keep-majority?"),
        ("lease", None, "no strategy 'lease'", "use one of keep-both, keep-majority, static-quorum"),
        ("static-quorum", None, "needs a quorum=", "more than half of the hosts"),
        ("static-quorum", 0, "the quorum is 0", "more than half of the hosts"),
        ("static-quorum", -1, "the quorum is -1", "more than half of the hosts"),
        ("down-all", 2, "down-all has no quorum", "leave quorum=2 out"),
    ],
)
def test_what_cannot_be_a_strategy_is_refused_with_what_to_do(
    name: str, quorum: int | None, what: str, todo: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(what)) as refused:
        strategy_of(name, quorum)
    assert todo in str(refused.value)


def test_a_quorum_that_two_sides_can_have_is_advised_against() -> None:
    for quorum, hosts in itertools.product(range(1, 6), range(12)):
        advice = StaticQuorum(quorum).advice(hosts)
        assert (advice is not None) == (hosts >= 2 * quorum)
        if advice is not None:
            better = hosts // 2 + 1
            assert f"use quorum={better} " in advice
            assert StaticQuorum(better).advice(hosts) is None


def test_the_other_strategies_need_no_advice() -> None:
    assert [strategy.advice(hosts) for strategy in (KeepBoth(), *ASKING) for hosts in range(9)] == [None] * 36
