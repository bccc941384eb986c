"""Which node gets which partition: deferred acceptance between caps, floors and zones.

Primaries. Each partition proposes to nodes, cheapest first (`hashing.Costs`). A node keeps the proposals that cost it
least, up to its cap of ceil(1.1 x its fair share), and rejects the rest, which propose on. Whatever the order of the
proposals, the outcome is the same: the one stable matching that is best for the partitions. Then each node that is
below its floor, 3/4 of its fair share, takes what costs it least from nodes that are above theirs.

Backups are settled one place after the other by the same rule. A partition proposes only in the zones that hold
fewest of its copies, so zones come before even load; within them a node has room for ceil(1.2 x the fair share) of
all backups up to this place, and a partition that finds no room goes where it costs least.

Invariants: a pure function of its arguments, independent of the order of proposals; without pins every load is
between floor and cap; the owners of a partition are distinct. Shares are exact fractions, so no rounding can differ.
A partition moves between two nodes that stay only because one of them stood at its cap or floor, before or after.

Source: D. Gale, L. Shapley, "College Admissions and the Stability of Marriage", 1962, theorems 1 and 2;
V. Mirrokni, M. Thorup, M. Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA 2018, for the idea of a cap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from heapq import heappush, heappushpop, merge
from math import ceil, floor
from typing import NamedTuple

from roost.core.hashing import Costs

__all__ = ["RULE", "Assignment", "Rule", "fair_shares"]


class Rule(NamedTuple):
    """The bounds of the rule, each a factor of the fair share. `docs/placement.md` compares some."""

    primary_cap: Fraction = Fraction(11, 10)
    """Lower evens the load and makes moves cascade: at 1.0 a join moves two to four times the minimum."""
    primary_floor: Fraction = Fraction(3, 4)
    """Higher evens the load; beyond 0.8 the moves grow quickly. It must not be above 1."""
    backup_cap: Fraction = Fraction(6, 5)
    """Without it the fullest node would have nearly twice its share of backups at 32 partitions a node."""


RULE = Rule()

FIRST_CHOICES = 8
"""How many choices of a partition are remembered. More than nine in ten partitions get their first."""


def fair_shares(weights: Sequence[float], partitions: int) -> list[Fraction]:
    """Each node's exact share of `partitions` by its weight; together they are `partitions`."""
    exact = [Fraction(weight) for weight in weights]
    total = sum(exact)
    return [weight * partitions / total for weight in exact]


class Assignment:
    """One computation: made, asked for `primaries` and then for `owners`, and dropped. Nodes are numbers."""

    def __init__(
        self,
        names: Sequence[str],
        weights: Sequence[float],
        zones: Sequence[str],
        *,
        partitions: int,
        seed: int,
        rule: Rule = RULE,
    ) -> None:
        self._rule = rule
        self._costs = Costs(names, weights, seed)
        self._zones = zones
        self._zone_sizes = {zone: zones.count(zone) for zone in dict.fromkeys(zones)}
        self._partitions = partitions
        self._shares = fair_shares(weights, partitions)
        self._first_choices = [self._ranked(partition)[:FIRST_CHOICES] for partition in range(partitions)]

    def primaries(self, pins: Mapping[int, int]) -> list[int]:
        """The node of each partition. `pins` are given, and count towards the load of their nodes."""
        load = [0] * len(self._shares)
        for node in pins.values():
            load[node] += 1
        # The room always suffices: what pins take beyond the share of one node, the others need not take.
        room = self._room(self._rule.primary_cap, load)
        free = [partition for partition in range(self._partitions) if partition not in pins]
        placed = {**pins, **self._settle(free, self._choices, room)}
        chosen = [placed[partition] for partition in range(self._partitions)]
        self._raise_to_floor(chosen, pins)
        return chosen

    def owners(self, primaries: Sequence[int], replicas: int) -> list[list[int]]:
        """The nodes of each partition, primary first; fewer than `replicas` where there are fewer nodes."""
        owners = [[primary] for primary in primaries]
        load = [0] * len(self._shares)

        def choices(partition: int) -> Iterator[tuple[float, int]]:
            return self._backup_choices(partition, owners[partition])

        for place in range(1, min(replicas, len(self._shares))):
            room = self._room(self._rule.backup_cap * place, load)
            placed = self._settle(range(self._partitions), choices, room)
            for partition, those in enumerate(owners):
                node = placed.get(partition)
                if node is None:
                    _, node = next(choices(partition))
                those.append(node)
                load[node] += 1
        return owners

    def _room(self, factor: Fraction, load: Sequence[int]) -> list[int]:
        return [max(0, ceil(share * factor) - used) for share, used in zip(self._shares, load, strict=True)]

    def _ranked(self, partition: int) -> list[tuple[float, int]]:
        """(cost, node), best first. Equal costs go by name, which is how nodes are numbered."""
        costs = self._costs.of(partition)
        return [(costs[node], node) for node in sorted(range(len(costs)), key=costs.__getitem__)]

    def _choices(self, partition: int) -> Iterator[tuple[float, int]]:
        yield from self._first_choices[partition]
        yield from self._ranked(partition)[FIRST_CHOICES:]

    def _backup_choices(self, partition: int, owners: Sequence[int]) -> Iterator[tuple[float, int]]:
        """The nodes, best first, of the zones that hold fewest copies and have a node without one."""
        copies = dict.fromkeys(self._zone_sizes, 0)
        for owner in owners:
            copies[self._zones[owner]] += 1
        fewest = min(count for zone, count in copies.items() if count < self._zone_sizes[zone])
        for choice in self._choices(partition):
            node = choice[1]
            if copies[self._zones[node]] == fewest and node not in owners:
                yield choice

    def _settle(
        self, asking: Iterable[int], choices: Callable[[int], Iterator[tuple[float, int]]], room: Sequence[int]
    ) -> dict[int, int]:
        """Deferred acceptance. A partition that every one of its choices rejects is missing from the answer."""
        offers = {partition: choices(partition) for partition in asking}
        held: list[list[tuple[float, int]]] = [[] for _ in room]
        for asker in offers:
            partition = asker
            while (choice := next(offers[partition], None)) is not None:
                cost, node = choice
                kept = held[node]
                if len(kept) < room[node]:
                    heappush(kept, (-cost, -partition))
                    break
                if kept:
                    partition = -heappushpop(kept, (-cost, -partition))[1]
        return {-negated: node for node, kept in enumerate(held) for _, negated in kept}

    def _raise_to_floor(self, chosen: list[int], pins: Mapping[int, int]) -> None:
        """Nodes below their floor take what costs them least from nodes above theirs."""
        floors = [floor(share * self._rule.primary_floor) for share in self._shares]
        load = [0] * len(floors)
        for node in chosen:
            load[node] += 1
        wanted = [
            sorted((cost, partition, node) for partition, cost in enumerate(self._costs.at(node, self._partitions)))
            for node, least in enumerate(floors)
            if load[node] < least
        ]
        for _, partition, node in merge(*wanted):
            giver = chosen[partition]
            if load[node] < floors[node] and load[giver] > floors[giver] and partition not in pins:
                chosen[partition] = node
                load[node] += 1
                load[giver] -= 1
