"""Members, and what a ring promises of their loads, for the tests of rings."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

from hypothesis import settings
from hypothesis import strategies as st

from roost.core.ring import Ring, RingMember

__all__ = [
    "MEMBERS",
    "NAMES",
    "PARTITIONS",
    "SEEDS",
    "SOME_MEMBERS",
    "WEIGHTS",
    "ZONES",
    "backup_loads",
    "caps",
    "crew",
    "exact_shares",
    "floors",
    "law",
]

NAMES = st.text(st.characters(codec="utf-8"), max_size=12)
WEIGHTS = st.sampled_from([0.001, 0.5, 1.0, 1.0, 1.0, 1, 2.0, 3.7, 1000.0])
ZONES = st.sampled_from(["", "a", "b", "c"])
MEMBERS = st.lists(st.builds(RingMember, NAMES, WEIGHTS, ZONES), max_size=9, unique_by=lambda member: member.name)
SOME_MEMBERS = MEMBERS.filter(bool)
PARTITIONS = st.integers(0, 8).map(lambda bits: 1 << bits)
SEEDS = st.integers(0, 2**64 - 1)
law = settings(max_examples=40, deadline=None)


def crew(count: int) -> list[RingMember]:
    return [RingMember(f"node-{number}") for number in range(count)]


def exact_shares(ring: Ring) -> dict[str, Fraction]:
    weights = {member.name: Fraction(member.weight) for member in ring.members}
    return {name: ring.partitions * weight / sum(weights.values()) for name, weight in weights.items()}


def caps(ring: Ring) -> dict[str, int]:
    return {name: ceil(share * Fraction(11, 10)) for name, share in exact_shares(ring).items()}


def floors(ring: Ring) -> dict[str, int]:
    return {name: floor(share * Fraction(3, 4)) for name, share in exact_shares(ring).items()}


def backup_loads(ring: Ring) -> dict[str, int]:
    return {member.name: len(ring.backed_by(member.name)) for member in ring.members}
