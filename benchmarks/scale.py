"""What membership costs and how well it judges, simulated: the tables of docs/membership.md.

    python -m benchmarks.scale                # what `make scale` runs: ten minutes, saved, and written into the page
    python -m benchmarks.scale --quick        # small and rough; nothing is saved

Real machines of the `lan` profile on a network with 1-10 ms of delay, in virtual time. Everything follows from the
seeds: the same code gives the same figures on any machine. A thousand members are only watched: what each change costs
there is too much to simulate, since after it every member's report goes to every other.
"""

from __future__ import annotations

import argparse
import datetime
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.crowd import Crowd
from roost.core.gossip import Health
from roost.version import VERSION
from scripts.docs_block import write_block

__all__ = ["Figures", "Plan", "Report", "main", "measure", "tables"]

RESULTS = Path(__file__).parent / "results"
DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "membership.md"
BLOCK = "scale"
COMMAND = "make scale"
WARM_SECONDS = 5.0
JOIN_SECONDS = 20.0
AGREED_SECONDS_MAX = 120.0
SILENT_SECONDS_MAX = 300.0
STILL = {"share": 0.02, "shortest_seconds": 0.5, "longest_seconds": 2.0}


class Plan(msgspec.Struct, frozen=True):
    """One row: so many members, and what ails them."""

    members: int
    loss: float = 0.0
    still: bool = False
    """Two in a hundred stand still at any time, each for half a second to two."""
    member_hours: float = 5.0
    """So long they are watched for false alarms."""
    trials: int = 10
    """So often a member falls silent, each time in a cluster of its own. With 0 nobody joins either."""


FULL = (
    *(Plan(10, loss, trials=20) for loss in (0.0, 0.01, 0.05, 0.10)),
    Plan(10, still=True, trials=20),
    *(Plan(50, loss, trials=10) for loss in (0.0, 0.01, 0.05, 0.10)),
    Plan(50, still=True, trials=10),
    *(Plan(200, loss, member_hours=2.5, trials=5) for loss in (0.0, 0.01, 0.05, 0.10)),
    Plan(200, still=True, member_hours=2.5, trials=5),
    Plan(1000, member_hours=8.0, trials=0),
)
QUICK = (
    Plan(10, member_hours=0.2, trials=3),
    Plan(10, 0.1, member_hours=0.2, trials=3),
    Plan(50, still=True, member_hours=0.2, trials=1),
)


class Figures(msgspec.Struct, frozen=True):
    """One row, measured. Seconds count from the moment at which the host falls silent."""

    plan: Plan
    first_suspicion_seconds: float | None
    """The medians over the trials of: the first that suspects it, the first for whom it is down, half of them, all."""
    first_down_seconds: float | None
    half_down_seconds: float | None
    all_down_seconds: float | None
    all_down_seconds_max: float | None
    """The slowest trial."""
    false_suspicions: float
    """A member and hour; a suspicion that many share counts once."""
    false_deaths: float
    bytes_a_second: float
    """That a member sends."""
    join_bytes: float | None
    """That each member, the newcomer among them, sends because of one more, until nothing more is said of it."""
    join_seconds: float | None
    """From its start until all agree and are settled."""


class Report(msgspec.Struct, frozen=True):
    """What is written to `benchmarks/results/`."""

    benchmark: str
    date: str
    versions: dict[str, str]
    figures: list[Figures]


def measure(plan: Plan) -> Figures:
    """One row."""
    crowd = _crowd(plan, seed=1)
    suspicions, deaths, sent = _watch(crowd, plan)
    joined = _join(crowd, sent) if plan.trials else (None, None)
    trials = [_silence(crowd if number == 1 else _crowd(plan, number)) for number in range(1, plan.trials + 1)]
    first_suspicion, first_down, half_down, all_down = zip(*trials, strict=True) if trials else ((), (), (), ())
    return Figures(
        plan=plan,
        first_suspicion_seconds=_rounded(median(first_suspicion)) if trials else None,
        first_down_seconds=_rounded(median(first_down)) if trials else None,
        half_down_seconds=_rounded(median(half_down)) if trials else None,
        all_down_seconds=_rounded(median(all_down)) if trials else None,
        all_down_seconds_max=_rounded(max(all_down)) if trials else None,
        false_suspicions=_rounded(suspicions),
        false_deaths=_rounded(deaths),
        bytes_a_second=_rounded(sent),
        join_bytes=_rounded(joined[1]) if joined[1] is not None else None,
        join_seconds=_rounded(joined[0]) if joined[0] is not None else None,
    )


def _crowd(plan: Plan, seed: int) -> Crowd:
    """A cluster in that weather."""
    crowd = Crowd(plan.members, seed, loss=plan.loss)
    if plan.still:
        crowd.stand_still(**STILL)
    crowd.run(WARM_SECONDS + crowd.rng.random())
    return crowd


def _watch(crowd: Crowd, plan: Plan) -> tuple[float, float, float]:
    """False suspicions and deaths a member and hour, and bytes a member and second, while nothing happens."""
    seconds = plan.member_hours * 3600 / plan.members
    crowd.bytes_sent = 0
    crowd.accusations.clear()
    crowd.run(seconds)
    wrong: dict[Health, set[tuple[int, int]]] = {Health.SUSPECT: set(), Health.DOWN: set()}
    for one in crowd.accusations:
        wrong[one.health].add((one.subject, one.incarnation))
    rates = [len(wrong[health]) / plan.member_hours for health in (Health.SUSPECT, Health.DOWN)]
    return rates[0], rates[1], crowd.bytes_sent / seconds / plan.members


def _join(crowd: Crowd, quiet: float) -> tuple[float, float]:
    """How long until one more has joined and all are settled, and what each member sends because of it."""
    crowd.bytes_sent = 0
    began = crowd.now
    crowd.join()
    took = crowd.until_agreed(crowd.members, AGREED_SECONDS_MAX)
    crowd.run(max(0.0, JOIN_SECONDS - took))
    return took, crowd.bytes_sent / len(crowd.members) - quiet * (crowd.now - began)


def _silence(crowd: Crowd) -> tuple[float, float, float, float]:
    """After how long a silent member is suspected by one, down for one, for half and for all others."""
    crowd.accusations.clear()
    began = crowd.now
    victim = crowd.rng.choice([one for one in crowd.members if one.state == "running"])
    crowd.freeze(victim)
    suspected: list[float] = []
    downs: dict[int, float] = {}
    while len(downs) < len(crowd.members) - 1:
        if crowd.now > began + SILENT_SECONDS_MAX:
            raise AssertionError(f"after {SILENT_SECONDS_MAX} s only {len(downs)} know that a member is silent")
        crowd.run(0.2)
        about = [one for one in crowd.accusations if one.subject == victim.uid]
        suspected = [one.at - began for one in about]
        downs = {one.observer: one.at - began for one in about if one.health == Health.DOWN}
    return min(suspected), min(downs.values()), median(downs.values()), max(downs.values())


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def tables(report: Report) -> str:
    """As Markdown, with the command and the date."""
    heads = ["members", "lost", "suspect", "first down", "half", "all", "slowest", "suspicions", "deaths", "bytes/s"]
    rows = [_row(figures) for figures in report.figures]
    quiet_heads = ["members", "quiet: bytes/s", "a join: bytes a member", "a join: settled after"]
    quiet_rows = [
        [
            f"{one.plan.members}",
            f"{one.bytes_a_second:.0f}",
            f"{one.join_bytes:,.0f}" if one.join_bytes is not None else "-",
            _seconds(one.join_seconds),
        ]
        for one in report.figures
        if not one.plan.loss and not one.plan.still
    ]
    made = f"Made by `{COMMAND}` on {report.date}, roost {report.versions['roost']}."
    return f"{_table(heads, rows)}\n\n{_table(quiet_heads, quiet_rows)}\n\n{made}\n"


def _row(one: Figures) -> list[str]:
    return [
        f"{one.plan.members}",
        "2 % stand still" if one.plan.still else f"{100 * one.plan.loss:.0f} %",
        _seconds(one.first_suspicion_seconds),
        _seconds(one.first_down_seconds),
        _seconds(one.half_down_seconds),
        _seconds(one.all_down_seconds),
        _seconds(one.all_down_seconds_max),
        f"{one.false_suspicions:.3g}",
        f"{one.false_deaths:.3g}",
        f"{one.bytes_a_second:.0f}",
    ]


def _seconds(value: float | None) -> str:
    return f"{value:.1f} s" if value is not None else "-"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["--:"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def make_report(plans: tuple[Plan, ...], tell: Callable[[str], None]) -> Report:
    """All rows."""
    figures: list[Figures] = []
    for number, plan in enumerate(plans, 1):
        began = time.monotonic()
        figures.append(measure(plan))
        tell(f"{number}/{len(plans)} ({time.monotonic() - began:.0f} s): {' | '.join(_row(figures[-1]))}")
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return Report("scale", date, {"roost": VERSION}, figures)


def main() -> None:
    """Measure, show, and save."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three rough rows; nothing is saved")
    options = parser.parse_args()
    report = make_report(QUICK if options.quick else FULL, lambda text: print(text, flush=True))
    text = tables(report)
    print(f"\n{text}", end="")
    if not options.quick:
        path = RESULTS / f"{report.benchmark}-{report.date}.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
        write_block(DOCUMENT, BLOCK, text)
        print(f"\nsaved as {path.relative_to(RESULTS.parent.parent)} and written into docs/membership.md")


if __name__ == "__main__":
    main()
