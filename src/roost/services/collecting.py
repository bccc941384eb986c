"""From when on deleted keys and the outcomes of requests may be forgotten: tombstones must outlive every older copy."""

from __future__ import annotations

from roost.core.clock import stamp_of
from roost.core.rights import Collect
from roost.services.host import Host

__all__ = ["CALM_SECONDS", "COLLECT_SECONDS", "Collecting"]

COLLECT_SECONDS = 60.0
"""Tombstones are collected this often, and are at least so old; outcomes of requests are kept for as long."""
CALM_SECONDS = 300.0
"""Nothing is collected for so long after the last missing host has come back: what it has is merged by then."""


class Collecting:
    """One service's on one node."""

    def __init__(self, host: Host) -> None:
        self._host = host
        now = host.runtime.monotonic()
        self._due_at = now + COLLECT_SECONDS
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

        Tombstones that nobody can be missing, if no host has been away of late; otherwise those so old that nobody who
        might bring the deleted key back is remembered any more.
        """
        now = self._host.runtime.monotonic()
        if now < self._due_at:
            return None
        self._due_at = now + COLLECT_SECONDS
        settings = self._host.settings
        calm = not self._missing and now >= self._missing_at + CALM_SECONDS
        kept_seconds = COLLECT_SECONDS if calm else settings.forget_seconds
        return Collect(self._stamp(kept_seconds), self._stamp(max(COLLECT_SECONDS, 4 * settings.call_seconds)))

    def _stamp(self, seconds: float) -> int:
        """Of so long ago."""
        return stamp_of(max(int((self._host.runtime.wall() - seconds) * 1000), 0))
