"""Many random lives: `python -m tests.sim.soak --seeds 2000 [--from 0] [--climate rough]`; prints what fails."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import sys
import time
import traceback

from tests.sim.world import CLIMATES, Climate, live


def one(job: tuple[int, Climate]) -> tuple[int, Climate, int, str]:
    seed, climate = job
    logging.disable(logging.CRITICAL)
    try:
        return seed, climate, live(seed, climate).operations, ""
    except Exception:
        return seed, climate, 0, traceback.format_exc()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--climate", choices=CLIMATES, default=None)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    jobs: list[tuple[int, Climate]] = [(seed, options.climate or CLIMATES[seed % len(CLIMATES)]) for seed in seeds]
    began = time.monotonic()
    failed = operations = 0
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for number, (seed, climate, count, error) in enumerate(pool.imap_unordered(one, jobs), 1):
            operations += count
            if error:
                failed += 1
                sys.stdout.write(f"seed {seed} in {climate} weather failed:\n{error}\n")
            if number % 100 == 0:
                sys.stdout.write(f"{number} of {len(jobs)} seeds, {failed} failed, {operations} operations\n")
                sys.stdout.flush()
    seconds = time.monotonic() - began
    sys.stdout.write(f"{len(jobs)} seeds, {failed} failed, {operations} operations, {seconds:.0f} s\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
