"""The tables of docs/placement.md: how even the ring is, what a join moves, and how long it takes to make.

    python -m benchmarks.ring_table            # about a minute; --seeds 3 for a quick look

Every figure is an average over seeds, but for "least" and "most", which are the emptiest and the fullest node of all
seeds, as multiples of the fair share. Moves are multiples of the joiner's fair share, the least that can move.
"""

from __future__ import annotations

import argparse
import time
from fractions import Fraction
from math import ceil
from statistics import mean, median
from typing import NamedTuple

from roost.core.assignment import RULE, Assignment, Rule
from roost.core.ring import Ring, RingMember

__all__ = ["main"]

JOINERS = 5
"""How many nodes of each ring are taken out and join again, at most."""
COUNTS = (3, 5, 10, 30, 100)
PARTITIONS = (256, 1024, 4096)
UNBOUNDED = Fraction(10**6)
RULES = {
    "plain rendezvous: no bounds": Rule(UNBOUNDED, Fraction(0), UNBOUNDED),
    "caps 1.1, no floor, backups uncapped": Rule(Fraction(11, 10), Fraction(0), UNBOUNDED),
    "cap 1.05": Rule(primary_cap=Fraction(21, 20)),
    "**cap 1.1, floor 0.75, backups 1.2**": RULE,
    "floor 0.5": Rule(primary_floor=Fraction(1, 2)),
    "floor 0.9": Rule(primary_floor=Fraction(9, 10)),
    "cap 1.25": Rule(primary_cap=Fraction(5, 4)),
}


class Figures(NamedTuple):
    """One ring and one join, all as multiples of the fair share."""

    least: float
    most: float
    backups_most: float
    moves: float
    copies: float
    """What a join copies, primaries and backups, to the joiner's fair share of both."""
    taken_over: float
    """Of the partitions of a node that crashes, the part whose new primary has a copy."""


def place(names: list[str], partitions: int, replicas: int, seed: int, rule: Rule) -> list[list[str]]:
    """The owners of each partition by a rule."""
    work = Assignment(names, [1.0] * len(names), [""] * len(names), partitions=partitions, seed=seed, rule=rule)
    return [[names[node] for node in owners] for owners in work.owners(work.primaries({}), replicas)]


def figures(count: int, partitions: int, replicas: int, seed: int, rule: Rule = RULE) -> list[Figures]:
    """Of `count` nodes some join, or, read backwards, crash: each alone, and each time the others are there."""
    names = sorted(f"node-{number}" for number in range(count))
    after = place(names, partitions, replicas, seed, rule)
    primaries = dict.fromkeys(names, 0)
    backups = dict.fromkeys(names, 0)
    for first, *others in after:
        primaries[first] += 1
        for name in others:
            backups[name] += 1
    fair = partitions / count
    result: list[Figures] = []
    for joiner in names[:: ceil(count / JOINERS)]:
        before = place([name for name in names if name != joiner], partitions, replicas, seed, rule)
        pairs = list(zip(before, after, strict=True))
        crashed = [old[0] in new for old, new in pairs if new[0] == joiner]
        result.append(
            Figures(
                least=min(primaries.values()) / fair,
                most=max(primaries.values()) / fair,
                backups_most=max(backups.values()) / (fair * (replicas - 1)),
                moves=sum(old[0] != new[0] for old, new in pairs) / fair,
                copies=sum(len(set(new) - set(old)) for old, new in pairs) / (fair * replicas),
                taken_over=mean(crashed) if crashed else 1.0,
            )
        )
    return result


def averaged(count: int, partitions: int, replicas: int, seeds: int, rule: Rule = RULE) -> Figures:
    """Least and most over all seeds, the mean of the rest."""
    each = [one for seed in range(seeds) for one in figures(count, partitions, replicas, seed, rule)]
    means = Figures(*(mean(column) for column in zip(*each, strict=True)))
    return means._replace(
        least=min(one.least for one in each),
        most=max(one.most for one in each),
        backups_most=max(one.backups_most for one in each),
    )


def milliseconds(count: int, partitions: int, replicas: int) -> float:
    """To make one ring: the median of three."""
    members = [RingMember(f"node-{number}") for number in range(count)]
    taken: list[float] = []
    for seed in range(3):
        started = time.perf_counter()
        Ring(members, partitions=partitions, replicas=replicas, seed=seed)
        taken.append(1000 * (time.perf_counter() - started))
    return median(taken)


def seeds_for(count: int, partitions: int, seeds: int) -> int:
    """Fewer for big rings, where a single seed already averages over many nodes and partitions."""
    return max(2, min(seeds, seeds * 60_000 // (count * partitions)))


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, aligned to be read as it is."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [heads, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def by_size(seeds: int) -> str:
    """Placement as it is, by nodes and partitions, three copies."""
    rows: list[list[str]] = []
    for count in COUNTS:
        for partitions in PARTITIONS:
            result = averaged(count, partitions, 3, seeds_for(count, partitions, seeds))
            timed = [f"{milliseconds(count, partitions, replicas):.0f}" for replicas in (1, 3)]
            a_node = f"{partitions / count:.0f}"
            rows.append([str(count), str(partitions), a_node, *(f"{value:.2f}" for value in result), *timed])
    heads = ["nodes", "partitions", "a node", "least", "most", "backups most", "moves", "copies", "taken over"]
    return table([*heads, "ms, 1 copy", "ms, 3 copies"], rows)


def by_rule(seeds: int, count: int, partitions: int) -> str:
    """The same ring by other bounds, two copies."""
    rows = [
        [name, *(f"{value:.2f}" for value in averaged(count, partitions, 2, seeds, rule))]
        for name, rule in RULES.items()
    ]
    return table(["rule", "least", "most", "backups most", "moves", "copies", "taken over"], rows)


def around_a_step(seeds: int) -> str:
    """From 93 to 94 nodes the cap of every node falls from 13 to 12 partitions."""
    rows = [[str(count), f"{averaged(count, 1024, 2, seeds).moves:.2f}"] for count in range(92, 97)]
    return table(["nodes", "moves"], rows)


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description="The tables of docs/placement.md.")
    parser.add_argument("--seeds", type=int, default=12, help="how many to average over (default 12)")
    seeds: int = parser.parse_args().seeds
    print(by_size(seeds))
    for count, partitions in ((10, 256), (30, 1024), (100, 4096)):
        print(f"\n{partitions} partitions over {count} nodes:\n")
        print(by_rule(seeds_for(count, partitions, seeds), count, partitions))
    print(f"\n1024 partitions, where rounding lowers every cap at once:\n\n{around_a_step(seeds_for(94, 1024, seeds))}")


if __name__ == "__main__":
    main()
