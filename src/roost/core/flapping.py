"""A member that is taken for down again and again keeps out of the rings for a while, not out of the cluster.

Each time it comes back its partitions would come with it, and with the next loss of contact they would go again. Nobody
else has to decide this: a member that hears that it was taken for down counts that itself, and says in its own entry
that it rests.

    the k-th time in a window, k >= 2:   flap_seconds x 2 ** (k - 2), at most 10 x flap_seconds
    a window:                            10 x flap_seconds; each one that passes in peace takes one off k

A split in which the other side was down here, too, and this one is not the smaller, is not this member's fault and does
not count: else a healed split would make everybody rest.

Invariant: a rest has an end, and no rest is longer than a window.
"""

from __future__ import annotations

import math

__all__ = ["REST_FACTOR", "Flapping"]

REST_FACTOR = 10
"""A window, and the longest rest, in `flap_seconds`."""


class Flapping:
    """How often one node came back from `down`, and how long it rests for that."""

    __slots__ = ("_count", "_counted_at", "_flap_seconds", "rests_until")

    def __init__(self, flap_seconds: float) -> None:
        self._flap_seconds = flap_seconds
        self._count = 0
        self._counted_at = -math.inf
        self.rests_until = math.inf
        """When the rest ends; infinite while there is none."""

    def came_back(self, now: float) -> bool:
        """The node was taken for down, and is here; whether it has to rest."""
        window = REST_FACTOR * self._flap_seconds
        if self._count:
            self._count = max(0, self._count - int((now - self._counted_at) / window))
        self._count += 1
        self._counted_at = now
        if self._count < 2:
            return self.rests
        rest = min(self._flap_seconds * 2.0 ** min(self._count - 2, REST_FACTOR), window)
        self.rests_until = now + rest
        return True

    @property
    def rests(self) -> bool:
        """Whether the node rests."""
        return self.rests_until != math.inf

    def rested(self, now: float) -> bool:
        """Whether the rest is over now; asked once."""
        if now < self.rests_until:
            return False
        self.rests_until = math.inf
        return True

    def check(self, now: float) -> None:
        """Assert the invariant."""
        assert not self.rests or self.rests_until <= now + REST_FACTOR * self._flap_seconds
