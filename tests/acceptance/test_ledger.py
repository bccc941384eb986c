"""The ledger of the killed nodes sees each fault that it is there for, and none where there is none."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.ledger import ACKNOWLEDGED, FULL, REFUSED, TOKENS_MAX, UNKNOWN, Ledger

Tried = tuple[str, object, str, object]
"""(kind, value, outcome, result), one after the other."""


def faults(tried: list[Tried], found: Any, *, at_once: bool = False) -> list[str]:
    ledger = Ledger()
    for number, (kind, value, outcome, result) in enumerate(tried):
        ledger.take("a", [["begun", number, kind, "k", value, 0.0 if at_once else 2.0 * number]])
        if outcome != "open":
            ledger.take("a", [[outcome, number, result, 1e6 if at_once else 2.0 * number + 1.0]])
    kind = tried[0][0]
    return ledger.faults({kind: {} if found is None else {"k": found}})


def put(value: int, outcome: str = ACKNOWLEDGED) -> Tried:
    return ("put", value, outcome, None)


def get(result: int | None) -> Tried:
    return ("get", None, ACKNOWLEDGED, result)


def hit(result: object, outcome: str = ACKNOWLEDGED, kind: str = "hit") -> Tried:
    return (kind, None, outcome, result)


def append(token: str, result: object, outcome: str = ACKNOWLEDGED) -> Tried:
    return ("append", token, outcome, result)


def race(value: int, result: object, outcome: str = ACKNOWLEDGED) -> Tried:
    return ("put_if_absent", value, outcome, result)


FULL_LIST = [str(number) for number in range(TOKENS_MAX)]


@pytest.mark.parametrize(
    ("tried", "found"),
    [
        ([put(1), get(1), put(2)], 2),
        ([put(1), put(2, UNKNOWN)], 1),
        ([put(1), put(2, UNKNOWN)], 2),
        ([put(1), put(2, UNKNOWN), get(1), get(2), put(3)], 3),
        ([put(1), put(2, UNKNOWN), put(3)], 2),  # nobody said when it would take effect
        ([put(1, REFUSED)], None),
        ([put(1, "open")], None),
        ([hit(1), hit(2)], 2),
        ([hit(1), hit("killed", UNKNOWN), hit(2)], 3),
        ([hit(1), hit("killed", UNKNOWN), hit(3)], 3),
        ([hit("Unreachable", REFUSED)], None),
        ([append("x", 1), append("y", "killed", UNKNOWN), append("z", 3)], ["x", "y", "z"]),
        ([append("x", 1), append("y", "killed", UNKNOWN), append("z", 2)], ["x", "z"]),
        (
            [*(append(token, place) for place, token in enumerate(FULL_LIST, 1)), append("x", FULL)],
            FULL_LIST,
        ),
        ([race(1, True), race(2, False)], 1),
        ([race(1, "killed", UNKNOWN), race(2, False)], 1),
        ([race(1, "killed", UNKNOWN), race(2, True)], 2),
        ([race(1, "Unreachable", REFUSED)], None),
    ],
)
def test_what_can_be_is_no_fault(tried: list[Tried], found: object) -> None:
    assert faults(tried, found) == []


@pytest.mark.parametrize(
    ("tried", "found", "expected"),
    [
        ([put(1), put(2)], 1, "1 found in the end, 2 was acknowledged"),
        ([put(1)], None, "None found in the end, 1 was acknowledged"),
        ([put(1), put(2), get(1), put(3)], 3, "1 read at"),
        ([put(1), put(2, REFUSED)], 2, "2 found in the end, 1 was acknowledged"),
        ([put(1), put(2, UNKNOWN), get(2), get(1), put(3)], 3, "1 read at"),
        ([put(1), put(2, UNKNOWN), get(2), put(3)], 2, "2 found in the end, 3 was acknowledged"),
        ([hit(1), hit(2)], 1, "1 lost"),
        ([hit(1), hit("killed", UNKNOWN)], 3, "1 twice"),
        ([hit(1), hit("Unreachable", REFUSED)], 2, "1 twice"),
        ([hit(1), hit(2), hit(2)], 3, "1 results were given twice, the first is 2"),
        ([hit(2), hit(1)], 2, "1 results were known when attempts with lower ones were begun"),
        ([hit(1, kind="update"), hit(2, kind="update")], 1, "1 lost"),
        ([append("x", 1)], ["x", "x"], "x is there 2 times"),
        ([append("x", 1), append("y", "killed", UNKNOWN)], ["x", "y", "y"], "y is there 2 times"),
        ([append("x", 1), append("y", 2)], ["x"], "y was acknowledged and is lost"),
        ([append("x", 1), append("y", 2)], ["y", "x"], "x was acknowledged as number 1 and is number 2"),
        ([append("x", "Unreachable", REFUSED)], ["x"], "x is there, and was refused"),
        ([append("x", 1), append("y", FULL)], ["x"], "it was full once, and has 1 tokens"),
        ([append("x", 1), append("y", 1)], ["x", "y"], "given twice"),
        ([race(1, True), race(2, True)], 1, "[1, 2] all won"),
        ([race(1, True), race(2, False)], 2, "[1] won, and 2 is found"),
        ([race(1, True)], None, "[1] won, and None is found"),
        ([race(1, False)], None, "it was said to exist, and is missing"),
        ([race(1, False), race(2, "killed", UNKNOWN)], 1, "1 is found, and was refused"),
        ([("hit", None, UNKNOWN, "RemoteError")], None, "RemoteError"),
    ],
)
def test_each_fault_is_seen(tried: list[Tried], found: object, expected: str) -> None:
    assert any(expected in fault for fault in faults(tried, found)), faults(tried, found)


def test_results_of_attempts_that_were_made_at_once_may_come_in_any_order() -> None:
    assert faults([hit(2), hit(1)], 2, at_once=True) == []


def test_what_a_killed_writer_had_begun_is_of_unknown_outcome() -> None:
    ledger = Ledger()
    ledger.take("a-0", [["begun", 1, "hit", "k", None, 1.0], ["begun", 2, "hit", "k", None, 1.0]])
    ledger.take("a-0", [[ACKNOWLEDGED, 1, 1, 2.0]])
    ledger.take("a-1", [["begun", 1, "hit", "k", None, 3.0], [REFUSED, 1, "Unreachable", 4.0]])
    assert (ledger.count(ACKNOWLEDGED)["hit"], ledger.count(UNKNOWN)["hit"], ledger.count(REFUSED)["hit"]) == (1, 1, 1)
    assert ledger.errors() == {"hit Unreachable": 1, "hit killed": 1}
    assert ledger.faults({"hit": {"k": 1}}) == ledger.faults({"hit": {"k": 2}}) == []


def test_the_longest_silence_is_that_around_the_moment_asked_for() -> None:
    ledger = Ledger()
    for number, at in enumerate([1.0, 2.0, 7.0, 8.0, 20.0]):
        key = f"k{number % 2}"
        ledger.take("a", [["begun", number, "hit", key, None, 0.0], [ACKNOWLEDGED, number, number, at]])
    assert ledger.silences([(3.0, 4.0), (7.5, 7.5), (1.5, 100.0), (30.0, 40.0)]) == [5.0, 1.0, 12.0, 0.0]


def test_the_slowest_write_is_that_which_was_under_way_at_the_moment_asked_for() -> None:
    ledger = Ledger()
    for number, (begun, ended, kind, outcome) in enumerate(
        [
            (1.0, 3.0, "hit", ACKNOWLEDGED),
            (2.0, 7.0, "put", ACKNOWLEDGED),
            (2.0, 9.0, "get", ACKNOWLEDGED),
            (2.0, 9.0, "hit", UNKNOWN),
        ]
    ):
        ledger.take("a", [["begun", number, kind, "k", None, begun], [outcome, number, number, ended]])
    assert ledger.slowest([(0.5, 1.5), (2.5, 4.0), (6.0, 6.5), (8.0, 9.0)]) == [2.0, 5.0, 5.0, 0.0]
