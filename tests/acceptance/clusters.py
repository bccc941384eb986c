"""Servers of one peer file, all in this process, over real sockets on loopback; and what they must not leave behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import socket
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

import roost

__all__ = ["Leaks", "descriptors", "free_ports", "peer_file", "pids_of", "running", "servers", "start", "stop"]


def free_ports(count: int) -> list[int]:
    """Ports that nobody has: asked for together, so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def peer_file(folder: Path, count: int) -> str:
    """A peer file of so many servers, one a line. Their pids are neither small nor in order."""
    entries = [
        {"Pid": (position * 1_000_003 + 4_567_654) % 9_000_011, "Addr": f"127.0.0.1:{port}"}
        for position, port in enumerate(free_ports(count))
    ]
    path = folder / "conf.json"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return str(path)


def pids_of(path: str) -> list[int]:
    return [json.loads(line)["Pid"] for line in Path(path).read_text().splitlines()]


def servers(path: str, **settings: Any) -> list[roost.Node]:
    """The servers of a peer file, not started."""
    options = {"profile": "local", "partitions": 64, **settings}
    return [roost.Node.from_peer_file(path, pid=pid, handle_signals=False, **options) for pid in pids_of(path)]


async def start(nodes: Sequence[roost.Node]) -> None:
    """Start them all at once, and wait until each knows all others."""
    await asyncio.gather(*(node.start() for node in nodes))
    await asyncio.gather(*(node.ready(len(nodes)) for node in nodes))


async def stop(nodes: Iterable[roost.Node]) -> None:
    await asyncio.gather(*(node.stop() for node in nodes))


@contextlib.asynccontextmanager
async def running(path: str, **settings: Any) -> AsyncIterator[list[roost.Node]]:
    """The servers of a peer file, up."""
    nodes = servers(path, **settings)
    try:
        await start(nodes)
        yield nodes
    finally:
        await stop(nodes)


def descriptors() -> Counter[str]:
    """What this process has open, by kind: socket, pipe, anon_inode, and files by their path."""
    found: Counter[str] = Counter()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found[os.readlink(f"/proc/self/fd/{number}").partition(":")[0]] += 1
    return found


class Leaks:
    """Looks for what is left of runs that have ended: descriptors, objects of roost's, the runs themselves."""

    def __init__(self, before: Counter[str]) -> None:
        self._descriptors = before
        self._runs: list[weakref.ref[Any]] = []
        self._objects: list[Counter[str]] = []

    @classmethod
    async def begin(cls) -> Leaks:
        """With its first server uvloop opens a descriptor for good; so that is had first."""
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
        server.close()
        await server.wait_closed()
        return cls(descriptors())

    def watch(self, nodes: Iterable[roost.Node]) -> None:
        """Remember the present runs of nodes, to see that they are gone once they have stopped."""
        self._runs += [weakref.ref(node._running) for node in nodes]

    def check_descriptors(self) -> None:
        """After a stop: the same as before the start."""
        assert descriptors() == self._descriptors

    def check_memory(self) -> None:
        """After a stop: none of the runs that were watched is there any more."""
        gc.collect()
        alive = [run for run in self._runs if run() is not None]
        assert alive == [], f"{len(alive)} of {len(self._runs)} runs live on"
        modules = {kind: str(kind.__module__) for kind in {type(each) for each in gc.get_objects()}}
        kinds = Counter(type(each) for each in gc.get_objects())
        self._objects.append(
            Counter({f"{modules[kind]}.{kind.__name__}": kinds[kind] for kind in modules if "roost" in modules[kind]})
        )

    def check_growth(self) -> None:
        """There are no more objects of any class of roost's now than there were a quarter of the way."""
        assert len(self._objects) >= 8
        assert self._objects[-1] - self._objects[len(self._objects) // 4] == Counter()
