"""Placement: which member should own which partition.

A `Ring` is a pure function of its members, so there is no ring to gossip or to merge: every node with the same view
computes the same one, and a heal needs no negotiation. `core/assignment.py` has the rule, `docs/placement.md` what it
costs and gains, measured.

The ring says who *should* own a partition; who may act on it is a right (`core/rights.py`). A view that lags behind
sends a command the long way round, and does no harm.

Invariants: immutable; independent of the order of members; equal content, equal digest; every partition has a
primary as long as one member has a weight; a primary's load is between floor(3/4) and ceil(11/10) of its fair share,
but for pins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
from xxhash import xxh3_64_intdigest

from roost.core.assignment import Assignment, fair_shares
from roost.core.hashing import HASH_BITS, Costs

__all__ = [
    "PARTITIONS_MAX",
    "PARTITIONS_PER_NODE",
    "WEIGHT_MAX",
    "WEIGHT_MIN",
    "Change",
    "Move",
    "Plan",
    "Ring",
    "RingMember",
]

RULE_VERSION = 1
"""Part of every digest. Raise it with any change of the rule: nodes of two rules must not believe that they agree."""

PARTITIONS_MAX = 1 << 20
PARTITIONS_PER_NODE = 32
"""With fewer the load gets uneven, since a partition cannot be halved, and a join moves more than it must."""
WEIGHT_MIN = 0.001
WEIGHT_MAX = 1000.0
NAMES_SHOWN = 5
"""In a repr."""


class RingMember(msgspec.Struct, frozen=True, gc=False):
    """What placement knows of a member. Raises ValueError for a weight outside its range.

    A `weight` is relative to the others'. 0 means no partitions at all: a member that is being emptied.
    """

    name: str
    weight: float = 1.0
    zone: str = ""

    def __post_init__(self) -> None:
        if self.weight != 0 and not WEIGHT_MIN <= self.weight <= WEIGHT_MAX:
            raise ValueError(
                f"the weight of {self.name!r} is {self.weight}: use 0, or a number from {WEIGHT_MIN} to {WEIGHT_MAX:g}"
            )


class Move(msgspec.Struct, frozen=True, gc=False):
    """`partition` goes from `source` to `target`; None where that ring has no owners."""

    partition: int
    source: str | None
    target: str | None


class Change(NamedTuple):
    """What a plan means for one member, in partitions of which it is primary: before - leaving + arriving = after."""

    before: int
    leaving: int
    arriving: int
    after: int


@dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """What would move if the members changed, before anything moves."""

    before: Ring
    after: Ring
    moves: tuple[Move, ...]

    def changes(self) -> dict[str, Change]:
        """By name, for every member of either ring."""
        leaving = Counter(move.source for move in self.moves)
        arriving = Counter(move.target for move in self.moves)
        before, after = self.before.loads(), self.after.loads()
        return {
            name: Change(before.get(name, 0), leaving[name], arriving[name], after.get(name, 0))
            for name in sorted({**before, **after})
        }

    def copies_made(self) -> int:
        """How many copies of partitions, primaries and backups, nodes would have to receive that lack them now."""
        return sum(
            len(set(self.after.owners(partition)) - set(self.before.owners(partition)))
            for partition in range(self.before.partitions)
        )

    def __repr__(self) -> str:
        changes = self.changes()
        names = sorted(changes, key=lambda name: (-abs(changes[name].after - changes[name].before), name))
        shown = ", ".join(f"{name} {changes[name].before}->{changes[name].after}" for name in names[:NAMES_SHOWN])
        return f"<Plan of {len(self.moves)} moves among {self.before.partitions} partitions: {shown or 'nobody'}>"


class Ring:
    """Who owns which partition. Making it costs about half a microsecond a node and partition; look-ups are an index.

    `partitions` is a power of two. `replicas` counts the primary too. `pins` place partitions by hand; a pin to a
    name that is no member, or one of weight 0, has no
    effect until that changes. Raises ValueError for what cannot be a ring.
    """

    __slots__ = ("_owners", "_shares", "digest", "members", "partitions", "pins", "primaries", "replicas", "seed")

    members: tuple[RingMember, ...]
    """Sorted by name."""
    partitions: int
    replicas: int
    seed: int
    pins: Mapping[int, str]
    primaries: tuple[str, ...]
    """The primary of each partition; empty where no member has a weight."""
    digest: int
    """64 bits over all that the ring is made of. Equal rings have equal digests on every node."""

    def __init__(
        self,
        members: Iterable[RingMember],
        *,
        partitions: int = 1024,
        replicas: int = 1,
        seed: int = 0,
        pins: Mapping[int, str] | None = None,
    ) -> None:
        if not 1 <= partitions <= PARTITIONS_MAX or partitions & (partitions - 1):
            raise ValueError(f"partitions is {partitions}: use a power of two up to {PARTITIONS_MAX}")
        if replicas < 1:
            raise ValueError(f"replicas is {replicas}: use 1, the primary alone, or more")
        if not 0 <= seed < 1 << HASH_BITS:
            raise ValueError(f"seed is {seed}: use a number of {HASH_BITS} bits, not negative")
        if outside := [partition for partition in sorted(pins or {}) if not 0 <= partition < partitions]:
            raise ValueError(f"pins name partitions {outside}: there are {partitions}, numbered from 0")
        self.members = _sorted_members(members)
        self.partitions = partitions
        self.replicas = replicas
        self.seed = seed
        self.pins = MappingProxyType(dict(sorted((pins or {}).items())))
        self.digest = xxh3_64_intdigest(msgspec.msgpack.encode((RULE_VERSION, *self._content())))
        self.primaries, self._owners = self._assign()
        self._shares = self._fair_shares()

    def primary(self, partition: int) -> str | None:
        """The member that should execute the commands of `partition`."""
        return self.primaries[partition] if self.primaries else None

    def owners(self, partition: int) -> tuple[str, ...]:
        """The primary, then the backups: distinct, in distinct zones as far as there are any, at most `replicas`."""
        return self._owners[partition] if self._owners else ()

    def partition_of(self, key: bytes) -> int:
        """The partition of an encoded key."""
        return (xxh3_64_intdigest(key, self.seed) * self.partitions) >> HASH_BITS

    def owned_by(self, name: str) -> tuple[int, ...]:
        """The partitions whose primary is `name`."""
        return tuple(partition for partition, primary in enumerate(self.primaries) if primary == name)

    def backed_by(self, name: str) -> tuple[int, ...]:
        """The partitions of which `name` is a backup."""
        return tuple(partition for partition, owners in enumerate(self._owners) if name in owners[1:])

    def fair_share(self, name: str) -> float:
        """How many partitions `name` would be primary of if they could be divided: by its weight. 0 for strangers."""
        return self._shares.get(name, 0.0)

    def loads(self) -> dict[str, int]:
        """How many partitions each member is primary of, in the order of names."""
        loads = dict.fromkeys((member.name for member in self.members), 0)
        for primary in self.primaries:
            loads[primary] += 1
        return loads

    def preferences(self, partition: int) -> tuple[str, ...]:
        """All members with a weight in the order in which `partition` would like them: why it is where it is."""
        names, weights, _ = self._weighted()
        costs = Costs(names, weights, self.seed).of(partition)
        return tuple(names[node] for node in sorted(range(len(names)), key=costs.__getitem__))

    def with_members(self, members: Iterable[RingMember]) -> Ring:
        """The ring of other members with everything else as it is here."""
        return Ring(members, partitions=self.partitions, replicas=self.replicas, seed=self.seed, pins=self.pins)

    def plan(self, *, join: Iterable[RingMember | str] = (), leave: Iterable[str] = ()) -> Plan:
        """What would move. A RingMember of a known name replaces it (another weight or zone); a known name stays.

        Raises ValueError if a name in `leave` is no member.
        """
        members = {member.name: member for member in self.members}
        for name in leave:
            if members.pop(name, None) is None:
                raise ValueError(f"{name!r} cannot leave: the members are {', '.join(self._names()) or 'none'}")
        for joiner in join:
            if isinstance(joiner, RingMember):
                members[joiner.name] = joiner
            else:
                members.setdefault(joiner, RingMember(joiner))
        after = self.with_members(members.values())
        return Plan(before=self, after=after, moves=self.diff(after))

    def diff(self, other: Ring) -> tuple[Move, ...]:
        """The partitions whose primary differs. Raises ValueError if the rings have different numbers of partitions."""
        if self.partitions != other.partitions:
            raise ValueError(
                f"a ring of {self.partitions} partitions cannot be compared with one of {other.partitions}"
            )
        pairs = ((partition, self.primary(partition), other.primary(partition)) for partition in range(self.partitions))
        return tuple(Move(partition, source, target) for partition, source, target in pairs if source != target)

    def advice(self) -> str | None:
        """What is unwise about this ring, for a person to read; None if nothing is."""
        count = len(self._shares)
        if not count or self.partitions >= count * PARTITIONS_PER_NODE or self.partitions == PARTITIONS_MAX:
            return None
        better = min(PARTITIONS_MAX, 1 << (count * PARTITIONS_PER_NODE - 1).bit_length())
        return (
            f"{self.partitions} partitions over {count} nodes are {self.partitions / count:.3g} a node; "
            f"below {PARTITIONS_PER_NODE} the load is uneven: use partitions={better} (it takes a full restart)"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ring):
            return NotImplemented
        return self is other or (self.digest == other.digest and self._content() == other._content())

    def __hash__(self) -> int:
        return self.digest

    def __repr__(self) -> str:
        names = self._names()
        shown = ", ".join(names[:NAMES_SHOWN]) or "nobody"
        rest = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        pinned = f", {len(self.pins)} pinned" if self.pins else ""
        return f"<Ring of {self.partitions} partitions x {self.replicas} over {len(names)}: {shown}{rest}{pinned}>"

    def _names(self) -> tuple[str, ...]:
        return tuple(member.name for member in self.members)

    def _content(self) -> tuple[Any, ...]:
        members = tuple((member.name, float(member.weight), member.zone) for member in self.members)
        return (members, self.partitions, self.replicas, self.seed, tuple(self.pins.items()))

    def _weighted(self) -> tuple[list[str], list[float], list[str]]:
        """Names, weights and zones of the members that take partitions."""
        takers = [member for member in self.members if member.weight]
        return [each.name for each in takers], [float(each.weight) for each in takers], [each.zone for each in takers]

    def _fair_shares(self) -> dict[str, float]:
        names, weights, _ = self._weighted()
        return dict(zip(names, map(float, fair_shares(weights, self.partitions)), strict=True))

    def _assign(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        names, weights, zones = self._weighted()
        if not names:
            return (), ()
        numbers = {name: number for number, name in enumerate(names)}
        pins = {partition: numbers[name] for partition, name in self.pins.items() if name in numbers}
        work = Assignment(names, weights, zones, partitions=self.partitions, seed=self.seed)
        primaries = work.primaries(pins)
        owners = work.owners(primaries, self.replicas)
        return tuple(names[node] for node in primaries), tuple(tuple(names[node] for node in those) for those in owners)


def _sorted_members(members: Iterable[RingMember]) -> tuple[RingMember, ...]:
    known: dict[str, RingMember] = {}
    for member in members:
        if known.setdefault(member.name, member) != member:
            raise ValueError(f"two different members are named {member.name!r}: {known[member.name]} and {member}")
    return tuple(known[name] for name in sorted(known))
