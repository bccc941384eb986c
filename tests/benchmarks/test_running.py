"""The benchmark runs: roost and the bare echo in processes of their own, for a moment each."""

from __future__ import annotations

import asyncio
import sys

import pytest

from benchmarks.contenders import Contender, Entry, Failure, started
from benchmarks.rounds import Plan, measure
from benchmarks.unix_sockets import JOBS, KINDS, compare

SECONDS = 0.05
WANTED = ("one", "calls-64", "casts", "1MiB", "fan-out")
BARE = Entry("bare", ("benchmarks.callers", "bare"), ("one", "calls-64", "casts"))
ROOST = Entry("roost", ("benchmarks.callers", "roost"), WANTED[:-1])
FAN_OUT = Entry("roost-fan-out", ("benchmarks.callers", "roost", "--servers=2"), ("calls-64", "fan-out"))


def quiet(text: str) -> None:
    """Nobody watches."""


def test_every_contender_does_every_job_of_its_own_in_every_round() -> None:
    measured = asyncio.run(measure(Plan(2, SECONDS, WANTED, ()), quiet, (ROOST, BARE), (FAN_OUT,)))
    assert measured.failures == {}
    assert {key: len(samples) for key, samples in measured.samples.items()} == {
        (entry.name, job): 2 for entry in (ROOST, BARE, FAN_OUT) for job in entry.jobs
    }
    assert all(sample.rate > 0 for samples in measured.samples.values() for sample in samples)
    for name in ("roost", "bare"):
        for sample in measured.samples[name, "one"]:
            assert 0 < sample.p50_microseconds <= sample.p99_microseconds
    if sys.platform == "linux":
        for sample in measured.samples["roost-fan-out", "fan-out"]:
            assert sample.calling_microseconds > 0 and sample.answering_microseconds > 0
            assert sample.processor_microseconds == sample.calling_microseconds + sample.answering_microseconds


def test_a_contender_that_does_not_start_is_named_and_the_others_go_on() -> None:
    nothing = Entry("nothing", ("benchmarks.nothing",), ("one",))
    measured = asyncio.run(measure(Plan(1, SECONDS, ("one",), ()), quiet, (nothing, BARE)))
    assert set(measured.samples) == {("bare", "one")}
    assert measured.failures == {"nothing": "nothing ended during start"}


def test_a_job_that_a_contender_does_not_know_fails() -> None:
    async def dance(contender: Contender) -> None:
        with pytest.raises(Failure, match="bare ended during dancing"):
            await contender.measure("dancing", SECONDS)

    async def main() -> None:
        async with started([BARE], {}) as (contender,):
            await dance(contender)

    asyncio.run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")
def test_unix_sockets_are_compared_with_tcp() -> None:
    found = asyncio.run(compare(rounds=1, seconds=SECONDS))
    assert set(found) == {(job, kind) for job in JOBS for kind in KINDS}
    assert all(microseconds > 0 for (microseconds,) in found.values())
