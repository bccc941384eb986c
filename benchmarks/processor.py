"""How much processor time a process has used, and the whole machine, by the kernel's own account. Linux only."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["machine_seconds", "processor_seconds", "resident_bytes"]


def processor_seconds(pids: Iterable[int]) -> float:
    """Of all their threads, in user and kernel mode; nanoseconds fine. Elsewhere than on Linux 0."""
    tasks = [task for pid in pids for task in _tasks(pid)]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _tasks(pid: int) -> list[Path]:
    tasks = Path(f"/proc/{pid}/task")
    return list(tasks.iterdir()) if tasks.exists() else []


def machine_seconds() -> float:
    """Of all processors together, whoever used them; a hundredth of a second fine. Elsewhere than on Linux 0."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, _idle, _waiting, *others = map(int, stat.read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """What a process holds of the machine's memory. Elsewhere than on Linux 0."""
    statm = Path(f"/proc/{pid}/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0
