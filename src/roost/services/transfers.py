"""What a service moves and copies, in figures: how fast, how much is left, and how long writers were kept waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from roost.core.rights import Rights
from roost.core.tenure import EXECUTING
from roost.core.transfer import Phase

__all__ = ["Transfers"]

RATE_SECONDS = 1.0
"""The rate is that of the last period of this length."""


class Transfers:
    """Counted on one node for one service."""

    def __init__(self, rights: Rights, monotonic: Callable[[], float]) -> None:
        self._rights = rights
        self._monotonic = monotonic
        self.moved_out = self.moved_in = self.moved_items = self.moved_bytes = 0
        self.longest_pause_seconds = 0.0
        """A holder's commands were stopped for so long, from the cut-over to its end."""
        self._stopped_at: dict[int, float] = {}
        self._rate = 0.0
        self._counted = 0
        self._counted_at = monotonic()

    def changed(self, partition: int) -> None:
        """The role in this partition, or whether it executes, may have changed."""
        slot = self._rights.slots[partition]
        if slot.cut is not None:
            self._stopped_at.setdefault(partition, self._monotonic())
        elif partition in self._stopped_at:
            pause = self._monotonic() - self._stopped_at.pop(partition)
            self.longest_pause_seconds = max(self.longest_pause_seconds, pause)

    def tick(self) -> None:
        """Take the rate."""
        now = self._monotonic()
        if now - self._counted_at >= RATE_SECONDS:
            filled = self._rights.book.filled_bytes
            self._rate = (filled - self._counted) / (now - self._counted_at)
            self._counted, self._counted_at = filled, now

    def _left_bytes(self) -> int:
        """To be sent until all copies that are wanted are in step, as far as can be known before they are compared."""
        left = 0.0
        for slot in self._rights.slots:
            if slot.role not in EXECUTING:
                continue
            size = slot.items.size_bytes
            for feed in slot.feeds.values():
                if feed.phase is Phase.OFFERED or feed.phase is Phase.COMPARED:
                    left += size
                elif feed.phase is Phase.FILLING and slot.items:
                    left += size * (len(feed.keys) - feed.position) / len(slot.items)
        return int(left)

    def status(self) -> dict[str, Any]:
        """`seconds_left` is None where nothing is known of the rate."""
        left = self._left_bytes()
        return {
            "moved_in": self.moved_in,
            "moved_out": self.moved_out,
            "moved_items": self.moved_items,
            "moved_bytes": self.moved_bytes,
            "copied_bytes": self._rights.book.filled_bytes,
            "copy_bytes_left": left,
            "copy_bytes_per_second": round(self._rate),
            "copy_seconds_left": round(left / self._rate, 1) if left and self._rate else (None if left else 0.0),
            "longest_pause_seconds": round(self.longest_pause_seconds, 6),
        }
