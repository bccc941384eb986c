"""What is checked before a newcomer is up, on real sockets: that both ends agree, and that both can reach the other."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

import roost
from roost.runtime import Runtime
from tests.net.ends import eventually, on_both_loops


class Ahead(Runtime):
    """A node whose clock is a minute ahead."""

    def wall(self) -> float:
        return super().wall() + 60.0


@contextlib.asynccontextmanager
async def node(name: str, *seeds: roost.Node, **settings: Any) -> AsyncIterator[roost.Node]:
    settings = {"bind": "127.0.0.1:0", "profile": "local", "partitions": 64, **settings}
    async with roost.Node(name, seeds=[seed.address for seed in seeds], **settings) as running:
        yield running


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("differs", "values"),
    [
        ({"cluster": "chess"}, ["cluster", "chess", "roost"]),
        ({"partitions": 128}, ["partitions", "128", "64"]),
        ({"placement_seed": 4711}, ["placement_seed", "4711", "99"]),
        ({"runtime": Ahead}, ["clock", "60"]),
    ],
    ids=["cluster", "partitions", "placement seed", "clock"],
)
@on_both_loops
async def test_a_mismatch_names_the_value_that_differs_on_both_ends(
    differs: dict[str, Any], values: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with node("a", placement_seed=99) as first:
        with caplog.at_level(logging.WARNING), pytest.raises(roost.ConfigError) as caught:
            async with node("b", first, **{"placement_seed": 99, **differs}):
                pass
        there = [record.getMessage() for record in caplog.records if record.name.startswith("roost")]
        for text in (str(caught.value), "\n".join(there)):
            assert all(value in text for value in values), text
        assert [member.name for member in first.members] == ["a"]


@on_both_loops
async def test_a_newcomer_that_advertises_what_nobody_can_reach_fails_with_who_said_what_and_what_to_do() -> None:
    address = f"127.0.0.1:{unused_port()}"
    async with node("a") as a, node("b", a) as b:
        await a.ready(2)
        with pytest.raises(roost.Unreachable) as caught:
            async with node("hidden", a, advertise=address):
                pass
        text = str(caught.value)
        assert address in text
        assert "a: " in text and "b: " in text
        assert "refused" in text
        assert "set `advertise`" in text
        assert caught.value.node == "hidden"
        await eventually(lambda: a.settled and b.settled)
        assert all(member.state != "up" for member in a.members if member.name == "hidden")


@on_both_loops
async def test_a_newcomer_that_advertises_anothers_address_is_told_who_answers_there() -> None:
    async with node("a") as a, node("b", a) as b:
        with pytest.raises(roost.Unreachable, match="b, answers there"):
            async with node("mimic", a, advertise=b.address):
                pass


@on_both_loops
async def test_a_newcomer_that_can_be_reached_is_up_and_the_dialed_links_are_closed_again() -> None:
    async with node("a") as a, node("b", a) as b, node("c", b) as c:
        for each in (a, b, c):
            await each.ready(3)
        peers = [peer for each in (a, b, c) for peer in each._running.peers.by_uid.values()]
        await eventually(lambda: all(len(peer.sessions) <= 1 for peer in peers))


@on_both_loops
async def test_a_node_that_forms_the_cluster_alone_is_up_whatever_it_advertises() -> None:
    async with node("a", advertise=f"127.0.0.1:{unused_port()}") as alone:
        assert alone.members["a"].state == "up"


@on_both_loops
async def test_the_status_tells_how_well_the_node_itself_is() -> None:
    async with node("a") as alone:
        status = alone.status()
        assert status["local_health"] == 0
        assert set(status["loop_lag_seconds"]) == {"last", "longest"}
        assert [member["resting"] for member in status["members"]] == [False]
