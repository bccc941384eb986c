"""`python -m benchmarks`: what `make bench` runs. Under 90 seconds, or 15 with --quick."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import uvloop
from rich.console import Console

from benchmarks.calls import Plan, measure, profile
from benchmarks.report import make_report, save, show

FULL = Plan(rounds=7, seconds=0.7)
QUICK = Plan(rounds=2, seconds=0.4)
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure, show, and save."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="15 seconds, rougher, nothing is saved")
    parser.add_argument("--profile", action="store_true", help="say where the time goes instead of how much there is")
    parser.add_argument("--tls", action="store_true", help="profile with TLS")
    parser.add_argument("--in-flight", type=int, default=64, help="calls in flight while profiling")
    parser.add_argument("--name", default="", help="the result's file name; calls-DATE by default")
    options = parser.parse_args()
    if options.profile:
        for what in ("bare", "roost"):
            uvloop.run(profile(what, tls=options.tls, in_flight=options.in_flight, seconds=2.0))
        return
    console = Console()
    load = os.getloadavg()[0]
    plan = QUICK if options.quick else FULL
    with console.status("measuring") as status:
        figures = uvloop.run(measure(plan, lambda text: status.update(f"measuring, {text}")))
    report = make_report(plan, figures, load)
    show(report, console)
    if not options.quick:
        path = save(report, RESULTS, options.name)
        console.print(f"saved as {path.relative_to(RESULTS.parent.parent)}")


if __name__ == "__main__":
    main()
