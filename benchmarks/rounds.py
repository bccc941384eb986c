"""The rounds: in each, every contender does every job of its own once, one at a time.

The contenders of a job follow one another directly, and each round begins with another one, so that whatever else the
machine does hits all alike. Ratios are therefore taken within a round, and the median of the rounds is what is shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

from benchmarks.contenders import FAN_OUT, JOBS, MAIN, PEERS, Contender, Entry, Failure, Sample, started
from benchmarks.processor import machine_seconds, processor_seconds

__all__ = ["Measured", "Plan", "measure"]

Entries = tuple[Entry, ...]


class Plan(NamedTuple):
    """What to measure, and for how long."""

    rounds: int
    seconds: float
    """Of one measuring."""
    jobs: tuple[str, ...] = JOBS
    peers: tuple[str, ...] = PEERS


class Measured(NamedTuple):
    """What came of it."""

    samples: dict[tuple[str, str], list[Sample]]
    """By contender and job, one a round."""
    absent: dict[str, str]
    """Peers that are not installed, and how to install them."""
    failures: dict[str, str]
    others_cores: float
    """How many cores other processes of this machine used meanwhile."""


async def measure(
    plan: Plan, progress: Callable[[str], None], main: Entries = MAIN, fan_out: Entries = FAN_OUT
) -> Measured:
    """First all contenders with one answering end, then those of the fan-out, which are many processes."""
    samples: dict[tuple[str, str], list[Sample]] = {}
    absent: dict[str, str] = {}
    failures: dict[str, str] = {}
    seconds = others = 0.0
    phases = [(main, tuple(job for job in plan.jobs if job != "fan-out"))]
    if "fan-out" in plan.jobs:
        phases.append((fan_out, ("calls-64", "fan-out")))
    for entries, jobs in phases:
        chosen = _chosen(entries, plan.peers, jobs, absent)
        progress(f"starting {', '.join(entry.name for entry in chosen)}")
        async with started(chosen, failures) as contenders:
            before = perf_counter(), machine_seconds() - _own_seconds(contenders)
            for number in range(plan.rounds):
                progress(f"round {number + 1} of {plan.rounds} of {', '.join(jobs)}")
                await _round(number, contenders, jobs, plan.seconds, samples, failures)
            seconds += perf_counter() - before[0]
            others += machine_seconds() - _own_seconds(contenders) - before[1]
    return Measured(samples, absent, failures, max(0.0, others / seconds))


def _chosen(entries: Entries, peers: tuple[str, ...], jobs: tuple[str, ...], absent: dict[str, str]) -> list[Entry]:
    chosen = []
    for entry in entries:
        peer = entry.name.removesuffix("-fan-out")
        if not set(jobs) & set(entry.jobs) or (peer in PEERS and peer not in peers):
            continue
        if missing := entry.missing():
            absent[peer] = missing
        else:
            chosen.append(entry)
    return chosen


async def _round(
    number: int,
    contenders: list[Contender],
    jobs: tuple[str, ...],
    seconds: float,
    samples: dict[tuple[str, str], list[Sample]],
    failures: dict[str, str],
) -> None:
    for job in jobs:
        able = [contender for contender in contenders if job in contender.entry.jobs]
        first = number % len(able) if able else 0
        for contender in able[first:] + able[:first]:
            name = contender.entry.name
            if name in failures:
                continue
            try:
                sample = await contender.measure(job, seconds)
            except Failure as failure:
                failures[name] = str(failure)
            else:
                samples.setdefault((name, job), []).append(sample)


def _own_seconds(contenders: list[Contender]) -> float:
    return processor_seconds([os.getpid()]) + sum(contender.processor_seconds() for contender in contenders)
