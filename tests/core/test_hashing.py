"""Keys and nodes are hashed the same way everywhere, and evenly."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from decimal import Context, localcontext
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.core import hashing
from roost.core.hashing import Costs, hash_key, partition_of, seed_of

SEEDS = st.integers(0, 2**64 - 1)
POWERS = st.integers(0, 20).map(lambda bits: 1 << bits)


def chi_square(counts: list[int], expected: list[float]) -> float:
    return sum((count - mean) ** 2 / mean for count, mean in zip(counts, expected, strict=True))


def chi_square_limit(cells: int) -> float:
    """Five standard deviations above the mean: fair counts pass for all but about one seed in a million."""
    freedom = cells - 1
    return freedom + 5 * math.sqrt(2 * freedom)


def test_a_seed_is_the_same_for_ever() -> None:
    assert seed_of("roost") == 0x1246_B4A4_1170_325B
    assert seed_of("roost") != seed_of("roost2")


def test_a_hash_is_the_same_for_ever() -> None:
    assert hash_key(b"key", 0) == 0xBBEA_0D63_A051_65E3
    assert hash_key(b"key", 1) == 0x0C37_033B_F421_05F2


@given(st.binary(max_size=300), SEEDS, POWERS)
def test_every_hash_has_a_partition(key: bytes, seed: int, partitions: int) -> None:
    assert 0 <= partition_of(hash_key(key, seed), partitions) < partitions


@pytest.mark.parametrize("partitions", [1, 2, 1024, 1 << 20])
def test_the_ends_of_the_hash_range_are_in_the_first_and_the_last_partition(partitions: int) -> None:
    assert partition_of(0, partitions) == 0
    assert partition_of(2**64 - 1, partitions) == partitions - 1


@given(st.integers(0, 2**64 - 1), POWERS)
def test_twice_the_partitions_split_each_in_two(hash64: int, partitions: int) -> None:
    assert partition_of(hash64, partitions) == partition_of(hash64, 2 * partitions) // 2


@pytest.mark.parametrize("pattern", ["user:{}", "{}", "/a/very/long/path/that/all/keys/have/in/common/{:012d}/tail"])
def test_similar_keys_spread_evenly(pattern: str) -> None:
    counts = [0] * 256
    for number in range(20_000):
        counts[partition_of(hash_key(pattern.format(number).encode(), seed_of("roost")), 256)] += 1
    assert chi_square(counts, [20_000 / 256] * 256) < chi_square_limit(256)


def first_choices(costs: Costs, nodes: int, partitions: int) -> list[int]:
    counts = [0] * nodes
    for partition in range(partitions):
        row = costs.of(partition)
        counts[row.index(min(row))] += 1
    return counts


@pytest.mark.parametrize("seed", range(5))
def test_partitions_prefer_equal_nodes_equally_often(seed: int) -> None:
    costs = Costs([f"node-{number}" for number in range(20)], [1.0] * 20, seed)
    assert chi_square(first_choices(costs, 20, 10_000), [500.0] * 20) < chi_square_limit(20)


@pytest.mark.parametrize("seed", range(5))
def test_partitions_prefer_nodes_as_often_as_they_weigh(seed: int) -> None:
    weights = [0.5, 1.0, 1.0, 2.0, 3.0, 7.5]
    costs = Costs([f"node-{number}" for number in range(6)], weights, seed)
    expected = [10_000 * weight / sum(weights) for weight in weights]
    assert chi_square(first_choices(costs, 6, 10_000), expected) < chi_square_limit(6)


def test_first_and_second_choices_are_independent() -> None:
    costs = Costs([f"10.0.0.{number}:7400" for number in range(8)], [1.0] * 8, 7)
    pairs = dict.fromkeys(((first, second) for first in range(8) for second in range(8) if first != second), 0)
    for partition in range(20_000):
        row = costs.of(partition)
        first, second = sorted(range(8), key=row.__getitem__)[:2]
        pairs[first, second] += 1
    assert chi_square(list(pairs.values()), [20_000 / 56] * 56) < chi_square_limit(56)


def test_neighbouring_partitions_and_seeds_choose_independently() -> None:
    names = [f"node-{number}" for number in range(8)]
    counts = [0] * 64
    for seed in range(200):
        choices = [row.index(min(row)) for row in map(Costs(names, [1.0] * 8, seed).of, range(101))]
        for before, after in pairwise(choices):
            counts[8 * before + after] += 1
    assert chi_square(counts, [20_000 / 64] * 64) < chi_square_limit(64)


@settings(max_examples=50, deadline=None)
@given(SEEDS, st.lists(st.floats(0.001, 1000), min_size=1, max_size=6))
def test_a_cost_is_the_logarithm_of_the_hash_over_the_weight(seed: int, weights: list[float]) -> None:
    names = [str(number) for number in range(len(weights) + 1)]
    weights = [*weights, weights[0] / 2]  # never all equal, which would take the short way
    hashes = Costs(names, [1.0] * len(names), seed)
    costs = Costs(names, weights, seed)
    for partition in range(20):
        for number, cost, weight in zip(hashes.of(partition), costs.of(partition), weights, strict=True):
            if number < 0.99 * 2**64:  # the segments get coarser in the tail, where hardly a choice falls
                assert cost == pytest.approx(-math.log1p(-number / 2**64) / weight, rel=2**-11)


@given(SEEDS, st.floats(0.001, 1000))
def test_equal_weights_give_the_same_order_as_the_logarithm(seed: int, weight: float) -> None:
    hashes = Costs(["a", "b"], [weight, weight], seed)
    costs = Costs(["a", "b", "c"], [weight, weight, weight / 2], seed)
    for partition in range(20):
        (a, b), (cost_a, cost_b, _) = hashes.of(partition), costs.of(partition)
        assert (a < b) == (cost_a < cost_b)


@given(SEEDS, st.lists(st.floats(0.001, 1000), min_size=2, max_size=5))
def test_one_node_asked_alone_has_the_costs_it_has_among_others(seed: int, weights: list[float]) -> None:
    costs = Costs([str(number) for number in range(len(weights))], weights, seed)
    rows = [costs.of(partition) for partition in range(16)]
    for node in range(len(weights)):
        assert costs.at(node, 16) == [row[node] for row in rows]


def test_the_callers_decimal_context_changes_no_cost() -> None:
    expected = Costs(["a", "b"], [1.0, 3.0], 5).of(0)
    hashing._segments.cache_clear()
    with localcontext(Context(prec=3)):
        assert Costs(["a", "b"], [1.0, 3.0], 5).of(0) == expected


def test_another_process_computes_the_same_costs() -> None:
    program = (
        "from roost.core.hashing import Costs, seed_of;"
        "print([Costs(['a', 'b', 'c'], [1.0, 2.5, 2.5], seed_of('x')).of(p) for p in range(9)])"
    )
    source = str(Path(hashing.__file__).parents[2])
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": source, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    here = [Costs(["a", "b", "c"], [1.0, 2.5, 2.5], seed_of("x")).of(partition) for partition in range(9)]
    assert outputs == {f"{here}\n".encode()}
