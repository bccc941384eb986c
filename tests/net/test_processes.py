"""Nodes as processes of their own: killed, restarted, told to leave."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from roost.config import PROFILES
from tests.net.workers import Team, run


def with_team(test: Callable[[Team], Coroutine[Any, Any, None]]) -> Callable[[Path, str], None]:
    """Run an async test with processes on either loop."""

    @pytest.mark.parametrize("loop_name", ["uvloop", "asyncio"])
    def with_it(tmp_path: Path, loop_name: str) -> None:
        run(tmp_path, test, loop_name=loop_name)

    return with_it


@with_team
async def test_kill_9_is_noticed_by_all_before_a_suspicion_could_end_and_a_restart_is_welcome(workers: Team) -> None:
    a, b, c = await workers.start_all("a", "b", "c")
    assert await a.do("who", "b") == "b"
    killed = time.monotonic()
    b.process.kill()
    for other in (a, c):
        assert await other.sees("b", "down", killed) - killed < PROFILES["local"].suspicion_seconds
    assert await a.do("who", "c") == "c"
    back = await workers.start("b", a.address)
    await workers.ready(a, back, c)
    assert a.kinds("b") == ["up", "suspect", "down", "up"]
    assert len({seen.uid for seen in a.events if seen.name == "b"}) == 2
    assert await a.do("who", "b") == "b"


@with_team
async def test_the_first_node_may_be_killed_as_well(workers: Team) -> None:
    a, b, c = await workers.start_all("a", "b", "c")
    killed = time.monotonic()
    a.process.kill()
    for other in (b, c):
        assert await other.sees("a", "down", killed) - killed < PROFILES["local"].suspicion_seconds
    assert await b.do("who", "c") == "c"
    assert b.kinds("c", killed) == c.kinds("b", killed) == []


@with_team
async def test_sigterm_means_leave(workers: Team) -> None:
    a, b = await workers.start_all("a", "b")
    b.process.terminate()
    assert await b.process.wait() == -signal.SIGTERM
    await a.sees("b", "left")
    assert a.kinds("b") == ["up", "left"]


TWO_NODES = """
import asyncio, os, signal
import roost

async def main() -> None:
    a = roost.Node("a", bind="127.0.0.1:0", profile="local")
    await a.start()
    b = roost.Node("b", bind="127.0.0.1:0", profile="local", seeds=[a.address])
    await b.start()
    await b.ready(2)
    await a.stop()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.Event().wait()

import logging
logging.basicConfig(level=logging.INFO)
asyncio.run(main())
"""


def test_sigterm_is_heard_by_the_nodes_that_still_run() -> None:
    done = subprocess.run([sys.executable, "-c", TWO_NODES], capture_output=True, text=True, timeout=30)
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert "SIGTERM: b leave" in done.stderr
