"""Plans, differences, and what rings say in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.core.hashing import hash_key, partition_of
from roost.core.ring import Move, Ring, RingMember
from tests.core.rings import PARTITIONS, SEEDS, caps, crew


def test_a_plan_counts_what_each_member_gets_and_gives() -> None:
    plan = Ring(crew(4), seed=2).plan(join=[RingMember("big", weight=2)], leave=["node-1"])
    assert [member.name for member in plan.after.members] == ["big", "node-0", "node-2", "node-3"]
    changes = plan.changes()
    assert sorted(changes) == ["big", "node-0", "node-1", "node-2", "node-3"]
    for name, change in changes.items():
        assert change.before - change.leaving + change.arriving == change.after
        assert (change.before, change.after) == (plan.before.loads().get(name, 0), plan.after.loads().get(name, 0))
    assert changes["node-1"].after == 0 and changes["big"].leaving == 0
    assert sum(change.arriving for change in changes.values()) == len(plan.moves) == plan.copies_made()
    assert repr(plan).startswith(f"<Plan of {len(plan.moves)} moves among 1024 partitions: big 0->")


def test_a_plan_with_a_known_name_changes_its_weight() -> None:
    plan = Ring(crew(4), seed=2).plan(join=[RingMember("node-1", weight=3)])
    assert plan.after.fair_share("node-1") == 512
    assert plan.changes()["node-1"].after > 1.4 * plan.changes()["node-1"].before


def test_a_stranger_cannot_leave() -> None:
    with pytest.raises(ValueError, match="'node-7' cannot leave: the members are node-0, node-1"):
        Ring(crew(2)).plan(leave=["node-7"])


def test_the_first_member_receives_every_partition_from_nobody() -> None:
    plan = Ring([], partitions=4).plan(join=["a"])
    assert plan.moves == tuple(Move(partition, None, "a") for partition in range(4))


def test_rings_of_different_partitions_have_no_difference() -> None:
    with pytest.raises(ValueError, match="a ring of 8 partitions cannot be compared with one of 16"):
        Ring(crew(1), partitions=8).diff(Ring(crew(1), partitions=16))


@given(st.binary(max_size=40), SEEDS, PARTITIONS)
def test_a_key_is_in_the_partition_of_its_hash(key: bytes, seed: int, partitions: int) -> None:
    assert Ring([], partitions=partitions, seed=seed).partition_of(key) == partition_of(hash_key(key, seed), partitions)


def test_a_partition_is_at_its_first_choice_or_that_one_is_full() -> None:
    ring = Ring(crew(30), seed=6)
    full = [name for name, load in ring.loads().items() if load == caps(ring)[name]]
    first = 0
    for partition in range(1024):
        preferences = ring.preferences(partition)
        assert sorted(preferences) == sorted(ring.loads())
        first += preferences[0] == ring.primary(partition)
    assert full and first > 900


def test_too_few_partitions_a_node_are_advised_against() -> None:
    assert Ring(crew(8), partitions=256).advice() is None
    assert Ring(crew(9), partitions=256).advice() == (
        "256 partitions over 9 nodes are 28.4 a node; below 32 the load is uneven: "
        "use partitions=512 (it takes a full restart)"
    )


def test_a_ring_says_in_a_line_what_it_is() -> None:
    ring = Ring(crew(7), partitions=64, replicas=2, pins={1: "node-1"})
    assert repr(ring) == (
        "<Ring of 64 partitions x 2 over 7: node-0, node-1, node-2, node-3, node-4 and 2 more, 1 pinned>"
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"partitions": 0}, "partitions is 0: use a power of two"),
        ({"partitions": 48}, "partitions is 48: use a power of two"),
        ({"partitions": 1 << 21}, "use a power of two up to 1048576"),
        ({"replicas": 0}, "replicas is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1 << 64}, "use a number of 64 bits"),
    ],
)
def test_a_number_that_makes_no_ring_is_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ring(crew(1), **wrong)  # type: ignore[arg-type]  # the keywords are the parametrised names


def test_a_pin_outside_the_ring_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pins name partitions \[-1, 8\]: there are 8"):
        Ring(crew(1), partitions=8, pins={8: "a", -1: "a", 3: "a"})


@pytest.mark.parametrize("weight", [-1.0, 1e-9, 1e9, float("nan"), float("inf")])
def test_a_weight_out_of_range_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="the weight of 'a' is"):
        RingMember("a", weight=weight)


def test_two_different_members_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two different members are named 'a'"):
        Ring([RingMember("a"), RingMember("a", weight=2)])
