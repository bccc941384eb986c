"""Nodes that are killed, restarted, join and leave while all of them are written to: nothing acknowledged is lost and
nothing is applied twice. A hundred kills: `python -m tests.acceptance.kills --kills 100`."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
from pathlib import Path

from tests.acceptance.kills import Fate, Figures, play
from tests.acceptance.ledger import ACKNOWLEDGED, KINDS
from tests.net.workers import ROOT

SECONDS_MAX = 120.0
LOG_LINES_SHOWN = 150


def played(folder: Path, fate: Fate) -> Figures:
    async def body() -> Figures:
        async with asyncio.timeout(SECONDS_MAX):
            return await play(folder, fate)

    figures = asyncio.run(body())
    sys.stdout.write("\n".join(figures.lines()) + "\n")
    for log in sorted(folder.glob("*.log")):
        lines = log.read_text().splitlines()[-LOG_LINES_SHOWN:]
        sys.stdout.write("\n".join((f"--- {log.name}", *lines)) + "\n")
    return figures


def test_what_a_majority_acknowledged_survives_kills_and_is_applied_once(tmp_path: Path) -> None:
    fate = Fate(kills=4, seed=1, pause_seconds=(0.1, 0.3), restart_seconds_max=0.5, kill_share=1.0)
    figures = played(tmp_path, fate)
    assert figures.faults == []
    assert figures.kills == 4
    assert all(figures.outcomes[ACKNOWLEDGED][kind] > 50 for kind in KINDS)


def test_with_one_copy_the_same_play_finds_what_the_kills_took(tmp_path: Path) -> None:
    fate = Fate(kills=1, seed=1, replicas=1, pause_seconds=(0.5, 1.0), restart_seconds_max=0.5, kill_share=1.0)
    figures = played(tmp_path, fate)
    assert figures.kills == 1
    assert any("lost" in fault for fault in figures.faults)
    assert any(fault.startswith("possible_loss") for fault in figures.faults)


PARENT = """
import asyncio, sys
from pathlib import Path
from tests.acceptance.kills import Crowd
from tests.acceptance.ledger import Ledger

async def main() -> None:
    crowd = Crowd(Path(sys.argv[1]), Ledger())
    worker = await crowd.start("a", play={"life": 1, "seed": 1})
    print(worker.process.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_no_node_outlives_a_killed_parent(tmp_path: Path) -> None:
    command = (sys.executable, "-c", PARENT, str(tmp_path))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        try:
            assert parent.stdout is not None
            child = os.pidfd_open(int(parent.stdout.readline()))
        finally:
            parent.kill()
    try:
        ended = select.poll()
        ended.register(child, select.POLLIN)
        assert ended.poll(10_000)
    finally:
        os.close(child)
