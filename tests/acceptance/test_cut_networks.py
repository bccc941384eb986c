"""Nodes on hosts of their own, in networks that are cut, one way or both, that lose packets, or go silent.

Each host is a network namespace, each node a process on it, with a secret and TLS. What `docs/membership.md` promises
is checked from outside: by the events that each node's `members.watch()` yields.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from roost.config import PROFILES
from tests.acceptance.netns import ROOT, Network, why_not
from tests.net.workers import Failed, Team, Worker, downs, run

LOCAL = PROFILES["local"]
REJOIN_SECONDS = 1.0
CALL_SECONDS = 2.0
PROBE_SECONDS = max(LOCAL.probe_seconds, 2 * LOCAL.probe_timeout_seconds)
"""How long a probe lasts."""
BACK_SECONDS_MAX = 12.0
"""From the heal to the news of it: a contact under way waits for `handshake_seconds`, then comes the next."""
SLACK_SECONDS = 1.0
"""Of a machine that has other things to do."""


def down_seconds_max(members: int) -> float:
    """From silence to down at the latest: each is probed once in every round, and rounds are shuffled.

    Who misses the answers of several members takes itself for ill, and probes at half the pace: its local health.
    """
    probing = 2 * (members - 1) * LOCAL.probe_seconds + PROBE_SECONDS
    return 2 * probing + LOCAL.suspicion_seconds + SLACK_SECONDS


@pytest.fixture(scope="module", autouse=True)
def _permitted() -> None:
    if reason := why_not():
        pytest.skip(reason)


async def settle_in(team: Team, hosts: Network) -> list[Worker]:
    """A node on each host. They have met through a seed that has left, so what heals them is not their seeds."""
    names = list(hosts.hosts)
    seed = await join(team, hosts, names[0], "seed", port=7399)
    workers = [await join(team, hosts, name, name, seed.address) for name in names]
    seed.process.terminate()
    await seed.process.wait()
    for worker in workers:
        await worker.sees("seed", "left")
    await team.ready(*workers)
    await asyncio.gather(*(one.do("who", other.name) for one, other in itertools.permutations(workers, 2)))
    return workers


async def join(team: Team, hosts: Network, host: str, name: str, *seeds: str, port: int = 7400) -> Worker:
    place = hosts[host]
    bind = f"{place.ip}:{port}"
    settings = {"rejoin_seconds": REJOIN_SECONDS, "call_seconds": CALL_SECONDS}
    return await team.start(name, *seeds, bind=bind, within=place.within, **settings)


async def reaches(one: Worker, other: Worker, seconds: float) -> None:
    """Sooner or later, a call gets through."""
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(Failed):
                assert await one.do("who", other.name) == other.name
                return


KILLED = """
import os, signal
from tests.acceptance.netns import Network

with Network("a"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_leaves_is_removed_by_the_next() -> None:
    killed = subprocess.Popen([sys.executable, "-c", KILLED], cwd=ROOT)
    killed.wait()
    left = {f"roost-{killed.pid}-{name}" for name in ("a", "router")}
    assert left <= namespaces()
    with Network("a"):
        assert not left & namespaces()
        assert len(own()) == 2
    assert not own()


def namespaces() -> set[str]:
    return {path.name for path in Path("/run/netns").iterdir()}


def own() -> set[str]:
    return {name for name in namespaces() if name.startswith(f"roost-{os.getpid()}-")}


def test_a_split_serves_on_both_sides_and_heals_by_itself(tmp_path: Path) -> None:
    async def test(team: Team, hosts: Network) -> None:
        workers = a, b, c, d = await settle_in(team, hosts)
        sides = ((a, b), (c, d))
        cut = time.monotonic()
        hosts.cut("ab", "cd")
        for (one, other), strangers in (sides, sides[::-1]):
            for worker, stranger in itertools.product((one, other), strangers):
                after = await worker.sees(stranger.name, "down", cut) - cut
                assert LOCAL.suspicion_seconds / 2 < after < down_seconds_max(4)
            assert await one.do("who", other.name) == other.name
            await one.do("put", f"written by {one.name}", "in the split")
            assert await other.do("get", f"written by {one.name}") == "in the split"
            with pytest.raises(Failed, match="Unreachable"):
                await one.do("who", strangers[0].name)
        assert len(downs(workers, cut)) == 8
        healed = time.monotonic()
        hosts.heal("ab", "cd")
        for one, other in itertools.product(*sides):
            await one.sees(other.name, "up", healed, BACK_SECONDS_MAX)
            await other.sees(one.name, "up", healed, BACK_SECONDS_MAX)
        await team.ready(*workers)
        for one, other in itertools.product(*sides):
            assert one.kinds(other.name, cut) == other.kinds(one.name, cut) == ["suspect", "down", "up"]
        for one, other in (*sides, *(side[::-1] for side in sides)):
            assert "down" not in one.kinds(other.name)
        for worker in workers:
            await worker.until_quiet()
            for writer in (a, c):
                assert await worker.do("get", f"written by {writer.name}") == "in the split"

    with Network("a", "b", "c", "d") as hosts:
        run(tmp_path, lambda team: test(team, hosts))


def test_who_is_reached_by_others_is_not_down_for_one_that_does_not_reach_it(tmp_path: Path) -> None:
    async def test(team: Team, hosts: Network) -> None:
        workers = a, b, c, _ = await settle_in(team, hosts)
        cut = time.monotonic()
        hosts.cut_one_way("a", "b")
        await team.live(3 * LOCAL.suspicion_seconds)
        assert downs(workers, cut) == []
        assert sum(seen.at > cut for worker in workers for seen in worker.events) <= 4 * len(workers), "a storm"
        assert await c.do("who", "b") == "b"
        assert await b.do("who", "c") == "c"
        with pytest.raises(Failed) as caught:
            await a.do("who", "b")
        assert caught.value.kind in ("Unreachable", "DeadlineExceeded")
        hosts.heal_one_way("a", "b")
        await reaches(a, b, 20)
        await reaches(b, a, 20)
        assert downs(workers, cut) == []

    with Network("a", "b", "c", "d") as hosts:
        run(tmp_path, lambda team: test(team, hosts))


def test_a_host_that_speaks_but_hears_nobody_is_down_for_all_the_others(tmp_path: Path) -> None:
    async def test(team: Team, hosts: Network) -> None:
        workers = a, _, c = await settle_in(team, hosts)
        cut = time.monotonic()
        for other in "ac":
            hosts.cut_one_way(other, "b")
        for worker in (a, c):
            assert await worker.sees("b", "down", cut) - cut < down_seconds_max(3) + 2 * PROBE_SECONDS
        await team.live(2 * LOCAL.suspicion_seconds)
        assert a.kinds("b", cut) == c.kinds("b", cut) == ["suspect", "down"]
        assert a.kinds("c", cut) == c.kinds("a", cut) == []
        assert await a.do("who", "c") == "c"
        healed = time.monotonic()
        for other in "ac":
            hosts.heal_one_way(other, "b")
        for worker in (a, c):
            await worker.sees("b", "up", healed, BACK_SECONDS_MAX)
        await team.ready(*workers)

    with Network("a", "b", "c") as hosts:
        run(tmp_path, lambda team: test(team, hosts))


def test_a_silent_host_is_down_in_time_and_a_link_that_is_back_sooner_moves_nothing(tmp_path: Path) -> None:
    async def test(team: Team, hosts: Network) -> None:
        workers = a, _, c = await settle_in(team, hosts)
        await a.do("put", "word", "kept")
        for worker in workers:
            await worker.until_quiet()
        shares = [(await worker.do("status"))["services"] for worker in workers]
        pulled = time.monotonic()
        hosts.pull_cable("b")
        await team.live(LOCAL.suspicion_seconds / 2)
        hosts.plug_cable("b")
        for one, other in itertools.permutations(workers, 2):
            await reaches(one, other, 10)
        await team.ready(*workers)
        assert downs(workers, pulled) == []
        assert [(await worker.do("status"))["services"] for worker in workers] == shares

        pulled = time.monotonic()
        hosts.pull_cable("b")
        for worker in (a, c):
            after = await worker.sees("b", "down", pulled) - pulled
            assert LOCAL.suspicion_seconds / 2 < after < down_seconds_max(3)
        assert await a.do("who", "c") == "c"
        assert downs([a, c], pulled) == ["a: b", "c: b"]

    with Network("a", "b", "c") as hosts:
        run(tmp_path, lambda team: test(team, hosts))


def test_where_one_packet_in_ten_is_lost_nobody_is_down_and_calls_succeed_or_say_so(tmp_path: Path) -> None:
    done: list[tuple[Worker, int]] = []
    undone: list[tuple[Worker, int]] = []

    async def call(one: Worker, other: Worker, number: int) -> None:
        try:
            await one.do("mark", other.name, number, 5.0)
            done.append((other, number))
        except Failed as failure:
            if not failure.may_have_run:
                undone.append((other, number))

    async def test(team: Team, hosts: Network) -> None:
        workers = await settle_in(team, hosts)
        hosts.lose(10)
        since = time.monotonic()
        numbers = itertools.count()
        calls: list[asyncio.Task[None]] = []
        while time.monotonic() < since + 20:
            await team.live(0.2)
            pairs = list(itertools.permutations(workers, 2))
            calls += [asyncio.create_task(call(one, other, next(numbers))) for one, other in pairs]
        await asyncio.gather(*calls)
        assert downs(workers, since) == []
        marked = {worker.name: await worker.do("marked") for worker in workers}
        for worker in workers:
            assert len(set(marked[worker.name])) == len(marked[worker.name])
        assert all(number in marked[worker.name] for worker, number in done)
        assert not any(number in marked[worker.name] for worker, number in undone)
        assert len(done) > 0.9 * len(calls)
        lost, seen = hosts.lost()
        assert 0.05 < lost / seen < 0.15 and lost > 50

    with Network("a", "b", "c", "d") as hosts:
        run(tmp_path, lambda team: test(team, hosts))
