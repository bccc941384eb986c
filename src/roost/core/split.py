"""Who may act in a split: strategies, of which every service chooses one.

A crash and a split look alike from where one stands: some members do not answer. A strategy decides from what one node
sees whether its side goes on. Two lists are all that it is given:

    baseline   the members that were up when this side was last settled *and could act* (`renewed`)
    now        the members as this node sees them at present, those that are down or have left among them

and all but static-quorum ask what has become of the baseline. A name of it counts once, by its oldest run that has not
left gracefully. It is *here* if that run, or a newer one of the same name, is up, and *missing* otherwise, also when it
has been forgotten meanwhile: that time has passed is no proof of death. Members that came since the baseline change
nothing, however many they are: the other side cannot know of them. A node without a baseline, and one whose whole
baseline has left, is judged by `now` in its place.

Invariants: the answer depends on the two lists alone, not on their order, so nodes with equal views answer alike. Of
sides that share a baseline and no name at most one may act, except under keep-both, and under static-quorum with half
of the hosts or fewer; this is so even where only one side knows that somebody has left. A member more on a side never
takes its right to act from it. Nothing here sees the other side, so until each has found out that the other is down,
both act; and sides that regroup between two splits may have different baselines. Never two is what leases promise.

Source: the names, and the exception for an oldest that is alone: Akka documentation, "Split Brain Resolver", sections
Keep Majority, Static Quorum, Keep Oldest, Down All. A majority of those who could act last, with a tie broken by a
fixed order: S. Jajodia, D. Mutchler, "Dynamic Voting Algorithms for Maintaining the Consistency of a Replicated
Database", ACM TODS 15(2), 1990 (dynamic-linear voting).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import ClassVar

import msgspec

__all__ = [
    "STRATEGIES",
    "DownAll",
    "KeepBoth",
    "KeepMajority",
    "KeepOldest",
    "Seen",
    "StaticQuorum",
    "Strategy",
    "renewed",
    "strategy_of",
]

STRATEGIES = ("keep-both", "keep-majority", "static-quorum", "keep-oldest", "down-all")


class Seen(msgspec.Struct, frozen=True, gc=False):
    """A member that hosts the service, as one node sees it."""

    uid: int
    name: str
    started: int
    """As in its entry: wall-clock milliseconds."""
    up: bool
    """Neither down nor left: suspects are up."""
    left: bool = False
    """It is known to have left gracefully."""

    @property
    def age(self) -> tuple[int, int]:
        """The lesser is the older."""
        return (self.started, self.uid)


class _Rule(msgspec.Struct, frozen=True):
    def advice(self, hosts: int) -> str | None:
        """What is unwise about the strategy with so many hosts, for a person to read; None if nothing is."""
        return None


class KeepBoth(_Rule, frozen=True):
    """Every side acts, and what both have written is merged when they meet."""

    name: ClassVar[str] = "keep-both"

    def may_act(self, baseline: Sequence[Seen], now: Sequence[Seen]) -> bool:
        """Always."""
        return True


class KeepMajority(_Rule, frozen=True):
    """The side with more than half of the baseline acts; of two halves the one that has the oldest member."""

    name: ClassVar[str] = "keep-majority"

    def may_act(self, baseline: Sequence[Seen], now: Sequence[Seen]) -> bool:
        """Whether a side that sees this may act."""
        counted, here = _standing(baseline, now)
        if 2 * len(here) == len(counted):
            return here[:1] == counted[:1]
        return 2 * len(here) > len(counted)


class StaticQuorum(_Rule, frozen=True):
    """A side of at least `quorum` live hosts acts, whoever they are; of several runs of a name one counts."""

    quorum: int

    name: ClassVar[str] = "static-quorum"

    def may_act(self, baseline: Sequence[Seen], now: Sequence[Seen]) -> bool:
        """Whether a side that sees this may act. The baseline does not matter."""
        return len({one.name for one in now if one.up}) >= self.quorum

    def advice(self, hosts: int) -> str | None:
        """Half of the hosts must not be a quorum."""
        if hosts < 2 * self.quorum:
            return None
        return (
            f"with {hosts} hosts and a quorum of {self.quorum} two sides of a split can both act: "
            f"use quorum={hosts // 2 + 1} on all of them, or at most {2 * self.quorum - 1} hosts"
        )


class KeepOldest(_Rule, frozen=True):
    """The side with the oldest of the baseline acts; but if that one is alone, a side that has all others does."""

    name: ClassVar[str] = "keep-oldest"

    def may_act(self, baseline: Sequence[Seen], now: Sequence[Seen]) -> bool:
        """Whether a side that sees this may act."""
        counted, here = _standing(baseline, now)
        if here[:1] == counted[:1]:
            return len(here) != 1 or len(counted) == 1
        return 0 < len(here) == len(counted) - 1


class DownAll(_Rule, frozen=True):
    """Nobody acts while one of the baseline is missing."""

    name: ClassVar[str] = "down-all"

    def may_act(self, baseline: Sequence[Seen], now: Sequence[Seen]) -> bool:
        """Whether a side that sees this may act."""
        counted, here = _standing(baseline, now)
        return len(here) == len(counted)


Strategy = KeepBoth | KeepMajority | StaticQuorum | KeepOldest | DownAll


def strategy_of(name: str, quorum: int | None = None) -> Strategy:
    """The strategy of that name. Raises ValueError, which says what to do, for options that are of no use."""
    if name not in STRATEGIES:
        near = difflib.get_close_matches(name, STRATEGIES, 1)
        todo = f"did you mean {near[0]}?" if near else f"use one of {', '.join(STRATEGIES)}"
        raise ValueError(f"there is no strategy {name[:100]!r} for splits: {todo}")
    if name == StaticQuorum.name:
        if quorum is None:
            raise ValueError("static-quorum needs a quorum=: more than half of the hosts that there will be")
        if quorum < 1:
            raise ValueError(f"the quorum is {quorum}: use more than half of the hosts that there will be")
        return StaticQuorum(quorum)
    if quorum is not None:
        raise ValueError(f"{name} has no quorum: leave quorum={quorum} out, or use static-quorum")
    kinds = (KeepBoth, KeepMajority, KeepOldest, DownAll)
    return next(kind() for kind in kinds if kind.name == name)


def renewed(strategy: Strategy, baseline: Sequence[Seen], now: Sequence[Seen], *, settled: bool) -> tuple[Seen, ...]:
    """The baseline from here on: who is up, if that is settled and this side may act; else the one that was.

    So members that have crashed count no longer once the others have settled without them; and a side that may not act
    keeps the baseline that says so, however long it stays among itself. Of those whom an operator has declared dead the
    baseline is to be rid by hand.
    """
    if settled and strategy.may_act(baseline, now):
        return tuple(one for one in now if one.up)
    return tuple(baseline)


def _standing(baseline: Sequence[Seen], now: Sequence[Seen]) -> tuple[list[Seen], list[Seen]]:
    """Of the baseline the members that count, and those of them that are here; both oldest first."""
    left = {one.uid for one in now if one.left}
    newest: dict[str, tuple[int, int]] = {}
    for one in now:
        if one.up:
            newest[one.name] = max(one.age, newest.get(one.name, one.age))
    counted = _countable(baseline, left) or _countable(now, left)
    return counted, [one for one in counted if one.name in newest and newest[one.name] >= one.age]


def _countable(members: Sequence[Seen], left: set[int]) -> list[Seen]:
    """One run of each name: the oldest that has not left."""
    named: dict[str, Seen] = {}
    for one in sorted(members, key=lambda one: one.age):
        if one.uid not in left:
            named.setdefault(one.name, one)
    return list(named.values())
