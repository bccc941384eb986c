"""The figures for people and for files."""

from __future__ import annotations

import datetime
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.contenders import Sample
from benchmarks.goals import Ratio, ratios_of
from benchmarks.load import LARGE
from benchmarks.rounds import Measured, Plan
from roost.version import VERSION

__all__ = ["BUSY_CORES", "BUSY_LOAD", "Figures", "Report", "load", "make_report", "newest", "save"]

PREFIX = "bench"
BUSY_LOAD = 0.5
BUSY_CORES = 0.1
PACKAGES = ("uvloop", "msgspec", "redis", "hiredis", "xoscar", "nats-py", "ray")
PROGRAMS = {
    "erlang": ("erl", "-noshell", "-eval", "io:format(erlang:system_info(otp_release)), halt()."),
    "redis-server": ("redis-server", "--version"),
    "nats-server": ("nats-server", "--version"),
}


class Figures(msgspec.Struct, frozen=True, omit_defaults=True):
    """One contender in one job, medians of the rounds."""

    contender: str
    job: str
    per_second: float
    """Calls, casts or keys."""
    least: float
    """Of the rounds."""
    most: float
    calling_microseconds: float
    """Of processor time, for each of them. Other work on the machine changes it less than anything else."""
    answering_microseconds: float
    between_microseconds: float = 0.0
    p50_microseconds: float = 0.0
    p99_microseconds: float = 0.0
    megabytes_per_second: float = 0.0


class Report(msgspec.Struct, frozen=True):
    """What is written to `benchmarks/results/`."""

    benchmark: str
    date: str
    machine: dict[str, str]
    load_before: float
    """Of the machine, over a minute. Nothing but a quiet machine gives rates and times that mean much."""
    others_cores: float
    """How many cores were busy with something else during the rounds."""
    versions: dict[str, str]
    rounds: int
    seconds: float
    """Of one measuring."""
    figures: list[Figures]
    ratios: list[Ratio]
    idle_link_bytes: dict[str, int]
    absent: dict[str, str]
    failures: dict[str, str]

    @property
    def busy(self) -> bool:
        """Whether the machine had other things to do."""
        return self.load_before > BUSY_LOAD or self.others_cores > BUSY_CORES


def make_report(plan: Plan, measured: Measured, load_before: float, idle_links: dict[str, int]) -> Report:
    """The figures, with what they were measured on and with."""
    return Report(
        benchmark=PREFIX,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        machine={
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": str(os.cpu_count()),
            "python": platform.python_version(),
        },
        load_before=round(load_before, 1),
        others_cores=round(measured.others_cores, 2),
        versions=_versions(),
        rounds=plan.rounds,
        seconds=plan.seconds,
        figures=[_figures(*key, samples) for key, samples in measured.samples.items()],
        ratios=ratios_of(measured.samples),
        idle_link_bytes=idle_links,
        absent=measured.absent,
        failures=measured.failures,
    )


def _figures(contender: str, job: str, samples: Sequence[Sample]) -> Figures:
    rates = [sample.rate for sample in samples]
    payload = LARGE.get(job, b"")
    return Figures(
        contender=contender,
        job=job,
        per_second=round(median(rates)),
        least=round(min(rates)),
        most=round(max(rates)),
        calling_microseconds=round(median(sample.calling_microseconds for sample in samples), 2),
        answering_microseconds=round(median(sample.answering_microseconds for sample in samples), 2),
        between_microseconds=round(median(sample.between_microseconds for sample in samples), 2),
        p50_microseconds=round(median(sample.p50_microseconds for sample in samples), 1),
        p99_microseconds=round(median(sample.p99_microseconds for sample in samples), 1),
        megabytes_per_second=round(median(rates) * len(payload) / 1e6),
    )


def _versions() -> dict[str, str]:
    found = {"roost": VERSION}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    for name, command in PROGRAMS.items():
        if shutil.which(command[0]) is not None:
            said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
            number = re.search(r"\d+(\.\d+)*", said)
            found[name] = number[0] if number else said.strip()
    return found


def save(report: Report, directory: Path, name: str) -> Path:
    """Write it as JSON; returns where."""
    path = directory / f"{name or f'{report.benchmark}-{report.date}'}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    return path


def load(path: Path) -> Report:
    """Read what was saved."""
    return msgspec.json.decode(path.read_bytes(), type=Report)


def newest(directory: Path) -> Path:
    """The newest of the saved."""
    saved = sorted(directory.glob(f"{PREFIX}-*.json"))
    if not saved:
        raise FileNotFoundError(f"nothing is saved in {directory}: run `make bench` first")
    return saved[-1]
