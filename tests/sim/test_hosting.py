"""Which nodes host a service, and what it is like to use it from one that does not."""

from __future__ import annotations

import pytest

import roost
from roost.testing import Cluster


class Notes(roost.KeyValuePartition[str, str]):
    async def longest(self) -> int:
        return max((len(text) for text in self.items.values()), default=0)


async def test_a_caller_that_hosts_nothing_reads_and_writes_like_any_other(cluster: Cluster) -> None:
    a, b, c = await cluster.start(3)
    for node in (a, b):
        await node.kv("notes", str)
    notes = await c.kv("notes", str, host=False)
    for number in range(100):
        await notes.put(f"key{number}", f"value{number}")
    assert await notes.size() == 100
    assert [await notes.get(f"key{number}") for number in range(100)] == [f"value{number}" for number in range(100)]
    assert set(notes.ring.primaries) == {a.name, b.name}
    assert "kv:notes" not in c.members[c.name].services


async def test_the_same_service_with_other_options_is_refused_where_it_is_opened_second(cluster: Cluster) -> None:
    a, b = await cluster.start(2)
    await a.kv("notes", str, handler=Notes)
    await cluster.settle()
    with pytest.raises(roost.ConfigError, match="other options on n1"):
        await b.kv("notes", int)


async def test_services_given_to_the_node_are_hosted_from_its_first_moment_on(cluster: Cluster) -> None:
    (a,) = await cluster.start(1, services=[lambda node: node.kv("notes", str)])
    events = a.members.watch()
    b = await cluster.launch("b", services=[lambda node: node.kv("notes", str)])
    async for event in events:
        if event.member.name == "b":
            assert "kv:notes" in event.member.services
            break
    await cluster.settle()
    await cluster.crash(b)
    await cluster.restart(b)
    await cluster.settle()
    assert "kv:notes" in a.members["b"].services


async def test_two_services_of_one_name_on_one_node_are_refused(cluster: Cluster) -> None:
    (a,) = await cluster.start(1)
    await a.kv("notes", str)
    with pytest.raises(roost.ConfigError, match="served already"):
        await a.kv("notes", str)
    notes = await a.kv("others", str)
    await notes.put("a", "b")
    assert await notes.get("a") == "b"
