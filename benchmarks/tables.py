"""A report as tables: in the terminal, and in `docs/performance.md` between two markers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.contenders import JOBS
from benchmarks.goals import Ratio
from benchmarks.report import Figures, Report

__all__ = ["BEGIN", "END", "show", "written"]

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

RATIO_HEADS = ("roost, to", "ratio", "rounds", "at least", "aim", "")
FIGURE_HEADS = ("", "rate", "rounds", "processor us, calling + answering", "p50, p99 us")


def show(report: Report, console: Console) -> None:
    """In the terminal."""
    title = f"medians of {report.rounds} rounds of {report.seconds:g} s"
    for job in JOBS:
        rows = [_figure_row(figures) for figures in report.figures if figures.job == job]
        if rows:
            console.print(_table(f"{job}: {title}", FIGURE_HEADS, rows))
    if report.ratios:
        heading = "roost's ratios: of times less is better, of rates more"
        console.print(_table(heading, RATIO_HEADS, [_ratio_row(ratio) for ratio in report.ratios]))
    for kind, size in report.idle_link_bytes.items():
        console.print(f"an idle link, {kind}: {size:,} bytes of the accepting node")
    for name, how in report.absent.items():
        console.print(f"{name} is not installed: {how}", style="yellow")
    for name, why in report.failures.items():
        console.print(f"{name} failed: {why}", style="red")
    if report.busy:
        text = f"load {report.load_before} before, {report.others_cores} cores busy with other things meanwhile"
        console.print(f"The machine was busy ({text}): trust the ratios a little, the rest not at all.", style="red")


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", show_edge=False)
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _figure_row(figures: Figures) -> list[str]:
    times = f"{figures.p50_microseconds:.0f}, {figures.p99_microseconds:.0f}" if figures.p50_microseconds else ""
    megabytes = figures.megabytes_per_second
    rate = f"{megabytes:,.0f} MB/s" if megabytes else f"{figures.per_second:,.0f}/s"
    processor = f"{figures.calling_microseconds:.1f} + {figures.answering_microseconds:.1f}"
    if figures.between_microseconds:
        processor += f" + {figures.between_microseconds:.1f} between"
    spread = f"{figures.least / figures.per_second:.2f}-{figures.most / figures.per_second:.2f}"
    return [figures.contender, rate, spread, processor, times]


def _ratio_row(ratio: Ratio) -> list[str]:
    wanted = [f"{each:g}" if each is not None else "" for each in (ratio.at_least, ratio.aim)]
    return [ratio.text, f"{ratio.ratio:.2f}", f"{ratio.least:.2f}-{ratio.most:.2f}", *wanted, ratio.verdict]


def written(report: Report, path: Path) -> str:
    """The text of the document at `path`, with the report's tables between the markers."""
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path.name} has no line {BEGIN} with a line {END} after it")
    return f"{before}{BEGIN}\n\n{_markdown(report)}\n\n{END}{after}"


def _markdown(report: Report) -> str:
    machine, versions = report.machine, ", ".join(f"{name} {number}" for name, number in report.versions.items())
    parts = [
        f"Measured on {report.date}: {machine['system']} on {machine['processor']}, {machine['cores']} cores, Python"
        f" {machine['python']}; load {report.load_before} before, {report.others_cores} cores busy with other things"
        f" meanwhile; {report.rounds} rounds of {report.seconds:g} s. {versions}."
    ]
    parts.append(_rows(RATIO_HEADS, [_ratio_row(ratio) for ratio in report.ratios]))
    jobs = [(job, [each for each in report.figures if each.job == job]) for job in JOBS]
    rows = [[job, *_figure_row(each)] for job, found in jobs for each in found]
    parts.append(_rows(("job", "who", *FIGURE_HEADS[1:]), rows))
    links = [f"{size:,} bytes {kind}" for kind, size in report.idle_link_bytes.items()]
    if links:
        parts.append(f"An idle link costs the accepting node {' and '.join(links)}.")
    return "\n\n".join(parts)


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---", *["--:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
