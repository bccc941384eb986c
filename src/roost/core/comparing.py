"""When two members exchange whole views, so that nothing that a rumour missed stays missed.

A stranger, or a member that is down here, is asked for its view at once, but no more than once a period. A live member
is asked if its reported digest has differed for three periods in which the own view was quiet; and apart from that a
random one now and then, the less often the larger the cluster, so that it costs the same a node in any.

Invariant: what is remembered of strangers has a bound.
Source: A. Demers et al., "Epidemic algorithms for replicated database maintenance", PODC 1987, section 1.3.
"""

from __future__ import annotations

import math
import random

from roost.core.herald import Herald
from roost.core.view import View, is_live

__all__ = ["Comparing"]

SYNC_PERIODS = 30
"""A node compares whole views with a random member after about so many probe periods."""
SYNC_MEMBERS = 10
"""In a larger cluster views are longer, and are compared the less often: after 30 periods x members / 10."""
MEND_PERIODS = 3
"""And sooner, when the other's digest has differed although the own view was quiet for so many periods."""
ASKED_MAX = 1024
"""Nodes not live in the view whose last being asked for theirs is remembered."""


class Comparing:
    """One node's exchanges of whole views."""

    __slots__ = (
        "_asked",
        "_digest_seen",
        "_herald",
        "_jitter",
        "_mended_at",
        "_probe_seconds",
        "_quiet_since",
        "_rng",
        "_view",
        "_viewed_at",
    )

    def __init__(self, view: View, herald: Herald, *, probe_seconds: float, rng: random.Random, now: float) -> None:
        self._view = view
        self._herald = herald
        self._probe_seconds = probe_seconds
        self._rng = rng
        self._asked: dict[int, float] = {}
        """When a stranger, or a member that is down, was last asked for its view."""
        self._viewed_at = self._quiet_since = self._mended_at = now
        self._jitter = 1.0
        self._digest_seen = view.digest

    @property
    def wake_at(self) -> float:
        """When to compare whole views with a random member."""
        others = len(self._view.live_others())
        periods = SYNC_PERIODS * max(1.0, (others + 1) / SYNC_MEMBERS) * self._jitter
        return self._viewed_at + periods * self._probe_seconds if others else math.inf

    def plan(self, now: float) -> None:
        """Count the time to the next random exchange from now on."""
        self._viewed_at = now
        self._jitter = self._rng.uniform(0.75, 1.25)

    def tick(self, now: float) -> None:
        """Do what is due."""
        if self.wake_at <= now:
            self.plan(now)
            self._herald.send_view(self._rng.choice(self._view.live_others()), answer=True)

    def note_digest(self, now: float) -> None:
        """After each step: is the own view quiet?"""
        if self._view.digest != self._digest_seen:
            self._digest_seen = self._view.digest
            self._quiet_since = now

    def heard(self, source: int, now: float) -> None:
        """A message of `source` has come: does its view have to be asked for?"""
        known = self._view.entries.get(source)
        if known is None or not is_live(known):
            left = known is not None and known.state == "left"
            if not left and now >= self._asked.get(source, -math.inf) + self._probe_seconds:
                self._asked.pop(source, None)
                self._asked[source] = now
                if len(self._asked) > ASKED_MAX:
                    del self._asked[next(iter(self._asked))]
                self._herald.send_view(source, answer=True)
            return
        report = self._view.reports.get(source)
        if report is None or report.digest == self._view.digest:
            return
        if now >= max(self._quiet_since, self._mended_at) + MEND_PERIODS * self._probe_seconds:
            self._mended_at = now
            self._herald.send_view(source, answer=True)

    def check(self) -> None:
        """Assert the invariant."""
        assert len(self._asked) <= ASKED_MAX
