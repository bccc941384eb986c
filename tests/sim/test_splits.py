"""Five whole nodes and every strategy: who serves while the network is split, who refuses, and what is there after."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import roost
from roost.testing import Cluster
from tests.sim.verdict import rested

KEYS = [f"key{number}" for number in range(24)]
SETTINGS: dict[str, Any] = {
    "probe_seconds": 0.4,
    "probe_timeout_seconds": 0.2,
    "suspicion_seconds": 1.0,
    "call_seconds": 2.0,
    "partitions": 16,
}
TAKEN_OVER_SECONDS = 4.0
"""Once a side takes the other for down, it has taken over what it may after so long."""
OPTIONS: dict[str, dict[str, Any]] = {"static-quorum": {"quorum": 3}}

TWO_AND_THREE = (["n1", "n2"], ["n3", "n4", "n5"])
ONE_CUT_OFF = (["n1"], ["n2", "n3", "n4", "n5"])
BOTH, NONE, FIRST, SECOND = (0, 1), (), (0,), (1,)
WHO_ACTS = [
    ("keep-both", TWO_AND_THREE, BOTH),
    ("keep-majority", TWO_AND_THREE, SECOND),
    ("static-quorum", TWO_AND_THREE, SECOND),
    ("keep-oldest", TWO_AND_THREE, FIRST),
    ("down-all", TWO_AND_THREE, NONE),
    ("keep-both", ONE_CUT_OFF, BOTH),
    ("keep-majority", ONE_CUT_OFF, SECOND),
    ("static-quorum", ONE_CUT_OFF, SECOND),
    ("keep-oldest", ONE_CUT_OFF, SECOND),
    ("down-all", ONE_CUT_OFF, NONE),
]

Stores = dict[str, roost.KV[str, str]]


async def five(cluster: Cluster, split: Any, **options: Any) -> Stores:
    stores: Stores = {}
    for number in range(1, 6):
        node = await cluster.launch(f"n{number}", **SETTINGS)
        stores[node.name] = await node.kv("words", str, replicas=3, split=split, **OPTIONS.get(split, {}), **options)
    await cluster.settle()
    for key in KEYS:
        await stores["n1"].put(key, "before")
    await cluster.settle()
    return stores


def cut(cluster: Cluster, sides: tuple[list[str], list[str]]) -> None:
    named = {node.name: node for node in cluster.nodes}
    cluster.partition(*([named[name] for name in side] for side in sides))


async def found_out(cluster: Cluster, sides: tuple[list[str], list[str]]) -> None:
    """Wait until each side takes the other for down."""
    side_of = {name: set(side) for side in sides for name in side}
    async with asyncio.timeout(120):
        while any(
            {member.name for member in node.members if member.state != "down"} - side_of[node.name]
            for node in cluster.nodes
        ):
            await cluster.sleep(0.1)
    await cluster.sleep(TAKEN_OVER_SECONDS)


def owners_of(store: roost.KV[str, str], key: str) -> tuple[str, ...]:
    """Those who have copies of the key, its holder first."""
    service = store._service
    return store.ring.owners(service.partition_of(service.keys.encode(key)))


def enough(owners: tuple[str, ...], side: list[str]) -> bool:
    """Has this side the holder, or so many copies that it may take over without those that may come back?"""
    return owners[0] in side or len(set(owners).intersection(side)) >= 2


async def refuses(store: roost.KV[str, str], key: str) -> None:
    """Nothing is read, written or replaced, and the caller knows it."""
    with pytest.raises(roost.Unavailable) as refused:
        await store.get(key)
    assert not refused.value.may_have_run
    with pytest.raises(roost.Unavailable) as refused:
        await store.put(key, "never")
    assert not refused.value.may_have_run
    with pytest.raises(roost.Unavailable) as refused:
        await store.update(key, lambda before: "never")
    assert not refused.value.may_have_run


@pytest.mark.parametrize(("split", "sides", "acting"), WHO_ACTS)
async def test_only_the_side_that_may_act_serves_and_what_it_acknowledged_is_there_after_the_heal(
    cluster: Cluster, split: Any, sides: tuple[list[str], list[str]], acting: tuple[int, ...]
) -> None:
    stores = await five(cluster, split)
    copies = {key: owners_of(stores["n1"], key) for key in KEYS}
    cut(cluster, sides)
    await found_out(cluster, sides)
    written: dict[str, str] = {}
    served = 0
    for number, side in enumerate(sides):
        for place, key in enumerate(KEYS):
            store = stores[side[place % len(side)]]
            if split == "keep-both" and not set(copies[key]).intersection(side):
                continue  # nobody here knows what it was, and possible_loss says so
            if number in acting and (split == "keep-both" or enough(copies[key], side)):
                assert await store.get(key) == "before"
                await store.put(key, f"{key} of {number}")
                written[key] = f"{key} of {number}"
                served += 1
            elif place % 3 == 0:
                await refuses(store, key)
    assert (served > 0) is (acting != NONE)
    cluster.heal()
    await cluster.settle()
    await cluster.sleep(2.5)
    rested(cluster.nodes)
    for store in stores.values():
        assert await store.get_many(KEYS) == {key: written.get(key, "before") for key in KEYS}


@pytest.mark.parametrize("split", ["keep-majority", "static-quorum"])
async def test_what_the_refused_side_accepted_before_it_knew_never_hides_what_the_other_side_acknowledged(
    cluster: Cluster, split: Any
) -> None:
    stores = await five(cluster, split)
    cut(cluster, TWO_AND_THREE)
    doubtful: dict[str, list[str]] = {key: ["before"] for key in KEYS}
    for key in KEYS[:10]:
        try:
            await stores["n1"].put(key, "in doubt")
            doubtful[key] = ["in doubt"]
        except roost.RoostError as error:
            if error.may_have_run:
                doubtful[key].append("in doubt")
    await found_out(cluster, TWO_AND_THREE)
    copies = {key: owners_of(stores["n1"], key) for key in KEYS}
    for key in [key for key in KEYS[5:24] if enough(copies[key], TWO_AND_THREE[1])]:
        await stores["n4"].put(key, "after")
        doubtful[key] = ["after"]
    cluster.heal()
    await cluster.settle()
    await cluster.sleep(2.5)
    rested(cluster.nodes)
    found = [await store.get_many(KEYS) for store in stores.values()]
    assert all(each == found[0] for each in found)
    assert {key: value for key, value in found[0].items() if value not in doubtful[key]} == {}


async def test_a_majority_goes_on_through_three_crashes_with_time_between_them(cluster: Cluster) -> None:
    stores = await five(cluster, "keep-majority")
    for number, name in enumerate(["n5", "n2", "n4"]):
        node = next(node for node in cluster.nodes if node.name == name)
        await cluster.crash(node)
        await cluster.settle()
        for key in KEYS:
            await stores["n3"].put(key, f"round {number}")
        await cluster.settle()
    assert await stores["n1"].get_many(KEYS) == dict.fromkeys(KEYS, "round 2")
    for name in ("n1", "n3"):
        assert stores[name].status()["possible_loss"] == []


async def test_the_minority_stops_for_as_long_as_the_split_lasts_however_long(cluster: Cluster) -> None:
    stores = await five(cluster, "keep-majority")
    cut(cluster, TWO_AND_THREE)
    await cluster.sleep(60.0)
    for name in ("n1", "n2"):
        with pytest.raises(roost.Unavailable):
            await stores[name].get(KEYS[0])
        assert stores[name].status()["acts"] is False
    assert await stores["n3"].get(KEYS[0]) == "before"


async def test_a_crash_stops_everybody_under_down_all_until_the_node_is_back(cluster: Cluster) -> None:
    stores = await five(cluster, "down-all")
    node = next(node for node in cluster.nodes if node.name == "n4")
    await cluster.crash(node)
    await cluster.sleep(TAKEN_OVER_SECONDS)
    with pytest.raises(roost.Unavailable) as refused:
        await stores["n1"].put(KEYS[0], "never")
    assert not refused.value.may_have_run
    await cluster.restart(node)
    stores["n4"] = await node.kv("words", str, replicas=3, split="down-all")
    await cluster.settle()
    assert await stores["n4"].get_many(KEYS) == dict.fromkeys(KEYS, "before")
    await stores["n1"].put(KEYS[0], "again")
    assert await stores["n4"].get(KEYS[0]) == "again"
