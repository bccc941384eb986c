"""The pytest plugin: the `cluster` fixture, and async tests that use it run in virtual time.

    async def test_three_nodes_agree(cluster: roost.testing.Cluster) -> None:
        a, b, c = await cluster.start(3)

The seed is `--roost-seed`, else a number made from the test's name, so a failure repeats as it is; it is printed with
every failure.
"""

from __future__ import annotations

import asyncio
import inspect
import zlib
from collections.abc import Generator, Iterator
from typing import Any

import pytest

__all__ = ["cluster", "pytest_addoption", "pytest_pyfunc_call", "pytest_runtest_makereport"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("roost")
    group.addoption("--roost-seed", type=int, default=None, help="the seed of simulated clusters")


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A simulated cluster without nodes; see `roost.testing.Cluster`."""
    from roost.testing.cluster import Cluster
    from roost.testing.loop import SimulatedLoop

    seed = request.config.getoption("--roost-seed")
    if seed is None:
        seed = zlib.crc32(request.node.nodeid.encode())
    loop = SimulatedLoop()
    asyncio.set_event_loop(loop)
    simulated = Cluster(loop, seed)
    request.node.stash[_CLUSTER] = simulated
    try:
        yield simulated
        loop.run_until_complete(simulated.close())
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()


_CLUSTER: pytest.StashKey[Any] = pytest.StashKey()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    simulated = pyfuncitem.stash.get(_CLUSTER, None)
    if simulated is None or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    simulated.loop.run_until_complete(pyfuncitem.obj(**arguments))
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    simulated = item.stash.get(_CLUSTER, None)
    if simulated is not None and report.failed and report.when == "call":
        text = f"repeat with: --roost-seed={simulated.seed}\n{simulated.describe()}"
        report.sections.append(("simulated cluster", text))
    return report
