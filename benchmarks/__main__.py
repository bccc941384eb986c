"""`python -m benchmarks`: what `make bench` runs. About four minutes, or well under one with --quick."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import uvloop
from rich.console import Console

from benchmarks.callers import profile
from benchmarks.contenders import JOBS, PEERS
from benchmarks.idle_links import idle_link_bytes
from benchmarks.report import load, make_report, newest, save
from benchmarks.rounds import Plan, measure
from benchmarks.tables import show, written

FULL = Plan(rounds=7, seconds=0.5)
QUICK = Plan(rounds=2, seconds=0.15)
WIDTH = 120
"""Of the tables where no terminal has one."""
RESULTS = Path(__file__).parent / "results"
DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="rougher, without idle links, and nothing is saved")
    parser.add_argument("--only", type=_names(JOBS), help=f"jobs, of {','.join(JOBS)}")
    parser.add_argument("--peers", type=_names(PEERS), help=f"peers, of {','.join(PEERS)}; without it all but ray")
    parser.add_argument("--ray", action="store_true", help="measure Ray, too")
    parser.add_argument("--profile", action="store_true", help="say where the time goes instead of how much there is")
    parser.add_argument("--tls", action="store_true", help="profile with TLS")
    parser.add_argument("--in-flight", type=int, default=64, help="calls in flight while profiling")
    parser.add_argument("--name", default="", help="the result's file name; bench-DATE by default")
    parser.add_argument("--write-docs", action="store_true", help="measure nothing: write the newest result into docs/")
    return parser.parse_args()


def _names(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    """Names separated by commas, each of which is known."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(name for name in text.split(",") if name)
        if unknown := sorted(set(names) - set(known)):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is none of {', '.join(known)}")
        return names

    return parse


def _plan(options: argparse.Namespace) -> Plan:
    plan = QUICK if options.quick else FULL
    peers = tuple(name for name in PEERS if name != "ray") if options.peers is None else options.peers
    if options.ray and "ray" not in peers:
        peers = (*peers, "ray")
    jobs = options.only or tuple(job for job in JOBS if not (options.quick and job == "idle-links"))
    return plan._replace(jobs=jobs, peers=peers)


def main() -> int:
    """Measure, show, and save."""
    options = _options()
    if options.profile:
        for what in ("bare", "roost"):
            uvloop.run(profile(what, tls=options.tls, in_flight=options.in_flight, seconds=2.0))
        return 0
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    if options.write_docs:
        source = newest(RESULTS)
        DOCUMENT.write_text(written(load(source), DOCUMENT), encoding="utf-8")
        console.print(f"{DOCUMENT.name} shows {source.name}")
        return 0
    plan = _plan(options)
    before = os.getloadavg()[0]
    with console.status("measuring") as status:
        measured = asyncio.run(measure(plan, status.update))
        idle_links = {}
        if "idle-links" in plan.jobs:
            status.update("idle links")
            idle_links = {kind: uvloop.run(idle_link_bytes(tls=tls)) for kind, tls in (("plain", False), ("TLS", True))}
    report = make_report(plan, measured, before, idle_links)
    show(report, console)
    if not options.quick and not options.only:
        path = save(report, RESULTS, options.name)
        console.print(f"saved as {path.relative_to(RESULTS.parent.parent)}")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
