"""Nodes as processes of their own: killed, stopped, told to leave."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import roost
from tests.net.ends import eventually, on_both_loops
from tests.net.worker import WhoAreYou

ROOT = Path(__file__).parents[2]


@contextlib.asynccontextmanager
async def member(folder: Path, seed: roost.Node, name: str) -> AsyncIterator[Process]:
    """A node in a process of its own, once it is up; killed in the end."""
    command = (sys.executable, "-m", "tests.net.worker", name, str(folder / "secret"), seed.address)
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, cwd=ROOT)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            assert (await process.stdout.readline()).startswith(b"127.0.0.1:")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]  # else its pipe outlives the loop


@contextlib.asynccontextmanager
async def cluster(folder: Path, *names: str) -> AsyncIterator[tuple[roost.Node, dict[str, Process]]]:
    """A node in this process, and one process for each of `names`."""
    file = folder / "secret"
    file.touch(mode=0o600)
    file.write_text(secrets.token_urlsafe(32))
    async with (
        roost.Node("here", bind="127.0.0.1:0", secret_file=str(file), profile="local", partitions=64) as node,
        contextlib.AsyncExitStack() as stack,
    ):
        processes = {name: await stack.enter_async_context(member(folder, node, name)) for name in names}
        await node.ready(len(names) + 1)
        yield node, processes


def state(node: roost.Node, name: str) -> str:
    return node.members[name].state


@on_both_loops
async def test_kill_9_is_noticed_by_all_and_a_restart_is_welcome(tmp_path: Path) -> None:
    async with cluster(tmp_path, "b", "c") as (node, processes):
        assert await node.ask("b", WhoAreYou()) == "b"
        uid = node.members["b"].uid
        processes["b"].kill()
        await eventually(lambda: state(node, "b") == "down")
        assert await node.ask("c", WhoAreYou()) == "c"
        async with member(tmp_path, node, "b"):
            await node.ready(3)
            assert node.members["b"].uid != uid
            assert await node.ask("b", WhoAreYou()) == "b"


@on_both_loops
async def test_sigterm_means_leave(tmp_path: Path) -> None:
    async with cluster(tmp_path, "b") as (node, processes):
        events = node.members.watch()
        processes["b"].terminate()
        assert await processes["b"].wait() == -signal.SIGTERM
        await eventually(lambda: state(node, "b") == "left")
        seen: list[str] = []
        while not seen or seen[-1] != "left":
            event = await anext(events)
            if event.member.name == "b":
                seen.append(event.member.state)
        assert "suspect" not in seen
        assert "down" not in seen


@on_both_loops
async def test_a_stopped_process_is_suspected_and_comes_back_as_itself(tmp_path: Path) -> None:
    async with cluster(tmp_path, "b", "c") as (node, processes):
        uid = node.members["b"].uid
        processes["b"].send_signal(signal.SIGSTOP)
        await eventually(lambda: state(node, "b") in ("suspect", "down"))
        processes["b"].send_signal(signal.SIGCONT)
        await eventually(lambda: state(node, "b") == "up")
        await node.ready(3)
        assert node.members["b"].uid == uid
        assert await node.ask("b", WhoAreYou()) == "b"


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
