"""What the benchmark makes of its samples: ratios, verdicts, files and tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.contenders import FAN_OUT, JOBS, MAIN, PEERS, Entry, Sample
from benchmarks.goals import GOALS, Goal, Ratio, ratios_of
from benchmarks.report import load, make_report, newest, save
from benchmarks.rounds import Measured, Plan
from benchmarks.tables import BEGIN, END, written

GOAL = Goal("calls, to the peer", "rate", ("roost", "calls-64"), ("erlang", "calls-64"), 4, 6)


def samples(*rates: float) -> list[Sample]:
    return [Sample(rate, 100.0, 200.0, 3.0, 2.0, 0.0) for rate in rates]


def ratio(value: float, figure: str) -> Ratio:
    wanted = (4.0, 6.0) if figure == "rate" else (1.2, 1.0)
    return Ratio("", figure, value, value, value, *wanted)


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    measured = {("roost", "calls-64"): samples(50, 90, 10), ("erlang", "calls-64"): samples(10, 10, 10)}
    (found,) = ratios_of(measured, [GOAL])
    assert (found.ratio, found.least, found.most) == (5.0, 1.0, 9.0)
    assert found.verdict == "reached"


def test_what_was_not_measured_has_no_ratio() -> None:
    assert ratios_of({("roost", "calls-64"): samples(50)}, [GOAL]) == []


@pytest.mark.parametrize(
    ("value", "figure", "verdict"),
    [
        (3.99, "rate", "missed"),
        (4.0, "rate", "reached"),
        (6.0, "rate", "aim"),
        (1.21, "p50", "missed"),
        (1.2, "p50", "reached"),
        (0.9, "p50", "aim"),
    ],
)
def test_of_rates_more_is_better_and_of_times_less(value: float, figure: str, verdict: str) -> None:
    assert ratio(value, figure).verdict == verdict


def test_every_goal_is_about_a_contender_and_a_job_that_exist() -> None:
    able = {(entry.name, job) for entry in (*MAIN, *FAN_OUT) for job in entry.jobs}
    assert [goal.text for goal in GOALS if goal.ours not in able or goal.theirs not in able] == []
    assert {job for _, job in able} | {"idle-links"} == set(JOBS)
    assert set(PEERS) <= {entry.name for entry in MAIN}


def test_a_peer_that_is_missing_says_how_to_install_it() -> None:
    entry = Entry("x", ("x",), ("one",), programs=("no-such-program",), modules=("no_such_module",), install="make x")
    assert entry.missing() == "no no-such-program, no_such_module; `make x`"


def test_a_report_is_saved_read_again_and_written_between_the_markers(tmp_path: Path) -> None:
    measured = Measured(
        {("roost", "1MiB"): samples(1000, 1200, 1100), ("erlang", "1MiB"): samples(1000, 1000, 1000)},
        absent={"ray": "no ray; `make bench-peers RAY=1`"},
        failures={},
        others_cores=0.01,
    )
    report = make_report(Plan(3, 0.5), measured, 0.2, {"plain": 3000})
    save(report, tmp_path, "bench-2026-01-01")
    saved = save(report, tmp_path, "bench-2026-01-02")
    assert newest(tmp_path) == saved
    assert load(saved) == report
    assert not report.busy

    document = tmp_path / "performance.md"
    document.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    text = written(load(saved), document)
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert "old" not in text
    assert "| 1 MiB payloads, to distributed Erlang | 1.10 | 1.00-1.20 | 0.7 | 1.2 | reached |" in text
    assert "| 1MiB | roost | 1,153 MB/s |" in text


def test_a_document_without_markers_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text("nothing")
    with pytest.raises(ValueError, match=r"performance\.md"):
        written(make_report(Plan(1, 0.1), Measured({}, {}, {}, 0.0), 0.0, {}), document)
