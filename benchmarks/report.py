"""The figures for people and for files."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.calls import IN_FLIGHT, Figures, Plan
from roost.version import VERSION

__all__ = ["Report", "make_report", "save", "show"]


LOAD_QUIET = 0.5


class Ratios(msgspec.Struct, frozen=True):
    """roost to the bare echo of the same run: of its rate (more is better) and of its time (less is better)."""

    tls: bool
    calls_per_second: dict[int, float]
    processor: dict[int, float]
    """Of the processor time of a call, both ends together."""
    p50: float


class Report(msgspec.Struct, frozen=True):
    """What is written to `benchmarks/results/`."""

    benchmark: str
    date: str
    machine: dict[str, str]
    load_before: float
    """Of the machine, over a minute. Nothing but a quiet machine gives rates and times that mean much."""
    versions: dict[str, str]
    rounds: int
    seconds: float
    """Of one measuring."""
    figures: list[Figures]
    ratios: list[Ratios]


def make_report(plan: Plan, figures: list[Figures], load: float) -> Report:
    """The figures, with what they were measured on and with; `load` is what else the machine did before."""
    by_kind = {(each.what, each.tls): each for each in figures}
    ratios = []
    for tls in (False, True):
        bare, mine = by_kind["bare", tls], by_kind["roost", tls]
        rates = {n: round(mine.calls_per_second[n] / bare.calls_per_second[n], 2) for n in IN_FLIGHT}
        processor = {
            n: round(sum(mine.processor_microseconds[n]) / (sum(bare.processor_microseconds[n]) or 1.0), 2)
            for n in IN_FLIGHT
        }
        ratios.append(Ratios(tls, rates, processor, round(mine.p50_microseconds / bare.p50_microseconds, 2)))
    return Report(
        benchmark="calls",
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        machine={
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": str(os.cpu_count()),
            "python": platform.python_version(),
        },
        load_before=round(load, 1),
        versions={"roost": VERSION, **{name: version(name) for name in ("uvloop", "msgspec")}},
        rounds=plan.rounds,
        seconds=plan.seconds,
        figures=figures,
        ratios=ratios,
    )


def show(report: Report, console: Console) -> None:
    """The table."""
    title = f"100-byte calls between two processes, medians of {report.rounds} rounds; cpu: calling + answering end"
    table = Table("", "TLS", "p50 us", "p99 us", title=title)
    for n in IN_FLIGHT:
        table.add_column(f"calls/s, {n} in flight")
        table.add_column("cpu us", no_wrap=True)
    for column in table.columns[2:]:
        column.justify = "right"
    for figures in report.figures:
        rates = []
        for n in IN_FLIGHT:
            calling, answering = figures.processor_microseconds[n]
            rates += [f"{figures.calls_per_second[n]:,.0f}", f"{calling:.1f} + {answering:.1f}"]
        times = (f"{figures.p50_microseconds:.0f}", f"{figures.p99_microseconds:.0f}")
        table.add_row(figures.what, "yes" if figures.tls else "no", *times, *rates)
    table.add_section()
    for ratio in report.ratios:
        rates = []
        for n in IN_FLIGHT:
            rates += [f"{ratio.calls_per_second[n]:.2f}", f"{ratio.processor[n]:.1f}"]
        table.add_row("roost : bare", "yes" if ratio.tls else "no", f"{ratio.p50:.2f}", "", *rates, style="bold")
    console.print(table)
    if report.load_before > LOAD_QUIET:
        console.print(
            f"The machine was busy (load {report.load_before}): only the processor times are to be trusted.",
            style="red",
        )


def save(report: Report, directory: Path, name: str) -> Path:
    """Write it as JSON; returns where."""
    path = directory / f"{name or f'{report.benchmark}-{report.date}'}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    return path
