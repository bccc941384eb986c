"""How well this node itself is: the local health multiplier.

A node that is slow, overloaded or half cut off misses answers that were given in time, and would accuse the healthy. So
it keeps a score of what speaks against itself, and the worse it is, the slower and the more patiently it probes: period
and timeout are multiplied by score + 1.

    a probe ended well                                       -1
    a probe failed (not by being refused: that is an answer) +1
    one who was asked for help said neither yes nor no       +1
    this node had to refute an accusation                    +1
    it stood still                                           +1 or more (`Stillness.penalty`)

Invariant: 0 <= score <= 8.
Source: A. Dadgar, J. Phillips, J. Currey, "Lifeguard: local health awareness for more accurate failure detection",
DSN-W 2018 (arXiv 1707.00788), section IV.A, LHA-Probe.
"""

from __future__ import annotations

__all__ = ["SCORE_MAX", "LocalHealth"]

SCORE_MAX = 8
"""The paper's S: a node at its worst probes nine times as slowly."""


class LocalHealth:
    """The score of one node: 0 is well."""

    __slots__ = ("score",)

    def __init__(self) -> None:
        self.score = 0

    @property
    def factor(self) -> int:
        """What probe period and timeout are multiplied by."""
        return self.score + 1

    def better(self) -> None:
        """Something went as it should."""
        self.score = max(0, self.score - 1)

    def worse(self, by: int = 1) -> None:
        """Something went wrong that may be this node's own fault."""
        self.score = min(SCORE_MAX, self.score + by)

    def check(self) -> None:
        """Assert the invariant."""
        assert 0 <= self.score <= SCORE_MAX
