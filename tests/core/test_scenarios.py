"""The scenarios: each happens as its file tells it, and keeps the promise that stands behind it."""

from __future__ import annotations

import functools

import pytest

from roost.config import PROFILES
from tests.core.scenario import FOLDER, Play, difference, names, play, read, render

LAN = PROFILES["lan"]


@functools.cache
def played(name: str) -> Play:
    return play(read((FOLDER / f"{name}.txt").read_text(encoding="utf-8")))


def downs(scene: Play) -> set[tuple[str, str]]:
    """(who, whom) of all that were declared down."""
    return {(one.who, one.whom) for one in scene.seen("down")}


@pytest.mark.parametrize("name", names())
def test_it_happens_as_the_file_tells(name: str) -> None:
    text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    told = difference(name, text, render(read(text), played(name)))
    assert not told, told


def test_whoever_joins_is_up_everywhere_within_a_second_and_nobody_is_doubted() -> None:
    scene = played("join")
    assert set(scene.states.values()) == {"a:up b:up c:up d:up"}
    assert not scene.seen("suspects")
    begun = scene.when("d starts")
    assert {one.who for one in scene.seen("settled", since=begun)} == {"a", "b", "c", "d"}
    assert max(one.at for one in scene.sights) < begun + 1.0


def test_a_killed_process_is_down_everywhere_within_a_second_and_returns_as_a_new_run() -> None:
    scene = played("crash")
    killed = scene.when("c is killed")
    assert downs(scene) == {("a", "c"), ("b", "c"), ("d", "c")}
    assert all(killed + LAN.refused_seconds <= one.at < killed + 1.0 for one in scene.seen("down"))
    assert scene.states["c2"] == "a:up b:up c:down c2:up d:up"
    assert scene.states["a"] == scene.states["b"] == scene.states["d"] == "a:up b:up c:down c2:up d:up"


def test_nobody_but_the_silent_one_is_ever_doubted_or_declared_down() -> None:
    scene = played("silent-host")
    silent = scene.when("c falls silent")
    assert downs(scene) == {("a", "c"), ("b", "c"), ("d", "c")}
    assert {one.whom for one in scene.seen("suspects")} == {"c"}
    suspected = min(one.at for one in scene.seen("suspects"))
    assert silent < suspected
    assert all(one.at >= suspected + LAN.suspicion_seconds for one in scene.seen("down"))


def test_a_cut_of_one_direction_of_one_path_costs_nobody_its_place() -> None:
    scene = played("one-way-cut")
    assert not downs(scene)
    assert set(scene.states.values()) == {"a:up b:up c:up d:up"}


def test_a_flapping_member_returns_each_time_takes_nobody_with_it_and_rests_longer_each_time() -> None:
    scene = played("flapping")
    assert downs(scene) == {("a", "c"), ("b", "c")}
    assert len(scene.seen("down")) == len(scene.seen("back", whom="c")) == 6
    assert set(scene.states.values()) == {"a:up b:up c:up"}
    for who in "abc":
        begins = [one.at for one in scene.seen("rests", whom="c") if one.who == who]
        ends = [one.at for one in scene.seen("rested", whom="c") if one.who == who]
        shorter, longer = (end - begin for begin, end in zip(begins, ends, strict=True))
        assert longer == pytest.approx(2 * shorter, rel=0.05)


def test_the_sides_of_a_split_declare_each_other_down_and_nobody_of_their_own() -> None:
    scene = played("split")
    left, right = "ab", "cde"
    assert downs(scene) == {pair for a in left for b in right for pair in ((a, b), (b, a))}
    assert all(node.machine.settled for node in scene.nodes.values())
    assert scene.states["a"] == "a:up b:up c:down d:down e:down"
    assert scene.states["c"] == "a:down b:down c:up d:up e:up"


def test_a_heal_brings_everybody_back_and_declares_nobody_down() -> None:
    scene = played("heal")
    healed = scene.when("the network heals")
    assert not scene.seen("down", since=healed)
    assert set(scene.states.values()) == {"a:up b:up c:up d:up"}
    assert all(node.machine.settled for node in scene.nodes.values())
    assert max(one.at for one in scene.sights) < healed + 10.0


def test_of_two_runs_of_one_name_the_older_stays_until_it_is_down() -> None:
    scene = played("name-taken")
    asked, killed = scene.when("b2 starts"), scene.when("b is killed")
    (gives_up,) = scene.seen("yields")
    assert (gives_up.who, gives_up.whom) == ("b2", "b")
    assert asked + 20.0 <= gives_up.at < asked + 21.0
    assert not scene.seen("meets", whom="b2") and not [one for one in scene.seen("joined") if one.who == "b2"]
    assert all(one.whom == "b" and one.at > killed for one in scene.seen("down"))
    assert scene.states["a"] == "a:up b:down b3:up c:up"


def test_whoever_leaves_gracefully_is_never_doubted() -> None:
    scene = played("graceful-leave")
    assert not scene.seen("suspects") and not scene.seen("down")
    assert {one.who for one in scene.seen("left", whom="c")} == {"a", "b", "d"}
    assert set(scene.states.values()) == {"a:up b:up c:left d:up"}


def test_whoever_stands_still_is_down_only_after_the_suspicion_time_comes_back_by_itself_and_blames_nobody() -> None:
    scene = played("standing-still")
    shorter, longer = scene.when("for 4.5 s"), scene.when("for 40 s")
    assert 4.5 < LAN.suspicion_seconds < 40
    assert {one.whom for one in scene.seen("suspects", since=shorter)} == {"c"}
    assert downs(scene) == {("a", "c"), ("b", "c"), ("d", "c")}
    assert min(one.at for one in scene.seen("down")) >= longer + LAN.suspicion_seconds
    assert all(longer + 40.0 <= one.at < longer + 41.0 for one in scene.seen("back"))
    assert set(scene.states.values()) == {"a:up b:up c:up d:up"}


def test_what_no_scenario_can_do_is_refused() -> None:
    head = "Title\n\nseed 1, profile lan\n"
    with pytest.raises(ValueError, match="no scenario can do this: 'a is painted'"):
        play(read(f"{head}\nat 0  a starts\nat 1  a is painted\n"))
    for wrong in (
        "Title\n",
        f"{head}{head}",
        f"{head}\nat noon  a starts\n",
        f"{head}\nat 2  a starts\nat 1  the end\n",
    ):
        with pytest.raises(ValueError, match=r"script|seed"):
            read(wrong)


def test_a_difference_is_shown_with_the_command_that_accepts_it() -> None:
    text = (FOLDER / "join.txt").read_text(encoding="utf-8")
    scenario = read(text.replace("seed 1,", "seed 2,"))
    told = difference("join", text, render(scenario, play(scenario)))
    assert "-seed 1, profile lan\n+seed 2, profile lan" in told
    assert told.endswith("python -m tests.core.scenario --write join")
    assert difference("join", text, text) == ""
