"""How long a suspect has left to refute: the more members accuse it independently, the less.

    low(n)   = suspicion_seconds x max(1, log10(n))          n: live members, this one among them
    high(n)  = 6 x low(n)
    time(C)  = high - (high - low) x log(C + 1) / log(K + 1)   C: confirmations, K: how many suffice

The first accuser counts for nothing, each further one is a confirmation; with K of them the time is `low`. A node that
is slow itself, and therefore accuses the healthy, is alone with it, and the accused have six times as long to refute.
K is 3, or as many as there are to confirm: live members that are not suspect themselves. Of two members nobody else can
confirm, so K is 0 and the time is `low` at once.

`low` is the promise: a member that is silent for less is never declared down. It grows with n as the time does that
gossip takes. Only a host that refuses connections shortens it (`shorten`): that is no silence.

Accusations travel with the entry that they are about, as `Doubt`s. A new one makes the entry news again, so that it is
told anew at most K times.

Invariants: a suspicion has at most K + 1 accusers, and the suspect is none of them.
Source: Dadgar, Phillips, Currey, "Lifeguard", DSN-W 2018 (arXiv 1707.00788), section IV.B, LHA-Suspicion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from roost.core.gossip import Doubt

__all__ = ["CONFIRMATIONS_MAX", "HIGH_FACTOR", "Suspicions", "suspicion_time"]

CONFIRMATIONS_MAX = 3
"""The paper's K."""
HIGH_FACTOR = 6
"""The paper's beta: an accuser without any confirmation waits so many times as long."""


def suspicion_time(suspicion_seconds: float, *, live: int, confirmations: int, confirmers: int) -> float:
    """Seconds from the accusation to `down`; `confirmers` is how many could confirm it."""
    low = suspicion_seconds * max(1.0, math.log10(live))
    high = HIGH_FACTOR * low
    enough = min(CONFIRMATIONS_MAX, confirmers)
    if confirmations >= enough:
        return low
    return high - (high - low) * math.log(confirmations + 1) / math.log(enough + 1)


@dataclass(slots=True)
class Suspicion:
    """One suspect, in one incarnation."""

    incarnation: int
    since: float
    ends_by: float = math.inf
    accusers: dict[int, None] = field(default_factory=dict)


class Suspicions:
    """All suspicions that one node keeps a clock for."""

    __slots__ = ("_of", "_suspicion_seconds")

    def __init__(self, suspicion_seconds: float) -> None:
        self._suspicion_seconds = suspicion_seconds
        self._of: dict[int, Suspicion] = {}

    def __len__(self) -> int:
        return len(self._of)

    def __contains__(self, uid: int) -> bool:
        return uid in self._of

    def begin(self, uid: int, incarnation: int, now: float) -> None:
        """A member is suspect from now on; what was said of an earlier incarnation is over."""
        self._of[uid] = Suspicion(incarnation, now)

    def end(self, uid: int) -> None:
        """It has refuted, or is down."""
        self._of.pop(uid, None)

    def accuse(self, doubt: Doubt) -> bool:
        """Somebody accuses the suspect; whether that is news."""
        suspicion = self._of.get(doubt.uid)
        if suspicion is None or doubt.incarnation != suspicion.incarnation or doubt.accuser == doubt.uid:
            return False
        accusers = suspicion.accusers
        if doubt.accuser in accusers or len(accusers) > CONFIRMATIONS_MAX:
            return False
        accusers[doubt.accuser] = None
        return True

    def doubts(self, uid: int) -> list[Doubt]:
        """Who accuses the member, to be told."""
        suspicion = self._of.get(uid)
        return [Doubt(uid, suspicion.incarnation, one) for one in suspicion.accusers] if suspicion is not None else []

    def shorten(self, uid: int, until: float) -> None:
        """Let it end by then at the latest."""
        if uid in self._of:
            self._of[uid].ends_by = min(self._of[uid].ends_by, until)

    def move(self, seconds: float) -> None:
        """This node stood still for so long."""
        for suspicion in self._of.values():
            suspicion.since += seconds
            suspicion.ends_by += seconds

    def ends(self, others: int) -> dict[int, float]:
        """When each suspect will be down, `others` being the number of live members beside this one."""
        if not self._of:
            return {}
        confirmers = others - len(self._of)
        times = [
            suspicion_time(self._suspicion_seconds, live=others + 1, confirmations=count, confirmers=confirmers)
            for count in range(CONFIRMATIONS_MAX + 1)
        ]
        return {
            uid: min(one.ends_by, one.since + times[max(0, len(one.accusers) - 1)]) for uid, one in self._of.items()
        }

    def check(self, suspects: list[int]) -> None:
        """Assert the invariants."""
        assert sorted(self._of) == sorted(suspects), "a suspicion for each suspect and for nobody else"
        for uid, suspicion in self._of.items():
            assert uid not in suspicion.accusers
            assert len(suspicion.accusers) <= CONFIRMATIONS_MAX + 1
