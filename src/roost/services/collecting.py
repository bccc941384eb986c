"""From when on deleted keys and the outcomes of requests may be forgotten: tombstones must outlive every older copy."""

from __future__ import annotations

from roost.core.rights import Collect
from roost.services.host import Host

__all__ = ["CALM_SECONDS", "COLLECT_SECONDS", "Collecting"]

COLLECT_SECONDS = 60.0
"""Tombstones and the outcomes of requests are collected this often, and have been here at least for so long."""
CALM_SECONDS = 300.0
"""Nothing is collected for so long after the last missing host has come back: what it has is merged by then."""


class Collecting:
    """One service's on one node."""

    def __init__(self, host: Host) -> None:
        self._host = host
        now = host.runtime.monotonic()
        self._period_seconds = max(COLLECT_SECONDS, 4 * host.settings.call_seconds)
        """Longer than any request is repeated."""
        self._due_at = now + self._period_seconds
        self._missing = False
        self._missing_at = now
        """When a host was missing for the last time; nobody knows what was before this node came."""

    def viewed(self, missing: bool) -> None:
        """The members have changed; is there a host that is down and may come back with what it has?"""
        if missing or self._missing:
            self._missing_at = self._host.runtime.monotonic()
        self._missing = missing

    def due(self) -> Collect | None:
        """What may be collected now, if it is time.

        Outcomes of requests that are older than the time between two rounds; and so old tombstones, if no host has been
        away of late. One that stays away holds them up until it is forgotten.
        """
        now = self._host.runtime.monotonic()
        if now < self._due_at:
            return None
        self._due_at = now + self._period_seconds
        return Collect(tombstones=not self._missing and now >= self._missing_at + CALM_SECONDS)
