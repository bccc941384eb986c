"""Did this node itself stand still? Then what it missed is not the others' fault.

A handler blocks the loop, the process is stopped, the machine is suspended: time goes on, and nobody steps the machine.
It finds out by itself, since it knows when it was to be stepped at the latest (`wake_at`). A step that comes later by
more than a tenth of `probe_timeout_seconds` is *late*. By so much every deadline that the node holds against others is
moved. And nothing is concluded from a deadline until the node has had `probe_timeout_seconds` to read what has arrived
meanwhile: answers and refutations wait in its buffers, and the timer may well run before they are read.

A loop that is late each time must not put off its conclusions for ever. So a new hold begins only after deadlines have
been looked at once since the last one.

Time that a clock does not count (a suspended machine, where the monotonic clock stops) needs no moving of deadlines.

Invariant: `held_until` is never further than `probe_timeout_seconds` ahead.
"""

from __future__ import annotations

import math

__all__ = ["Stillness"]

LATE_SHARE = 0.1
"""Of `probe_timeout_seconds`: how late a step may be before deadlines are moved. A timer is rarely late by so much."""
PENALTY_SHARE = 0.5
"""Of `probe_timeout_seconds`: for each so long that the node stood still its local health is worse by one."""


class Stillness:
    """What one node knows of its own absences."""

    __slots__ = ("_holding", "_probe_timeout_seconds", "held_until", "last_seconds", "longest_seconds")

    def __init__(self, probe_timeout_seconds: float) -> None:
        self._probe_timeout_seconds = probe_timeout_seconds
        self._holding = False
        self.held_until = -math.inf
        """Until then nothing is concluded from a deadline."""
        self.last_seconds = 0.0
        """How long the node stood still the last time; 0: never."""
        self.longest_seconds = 0.0

    def note(self, now: float, wake_at: float) -> float:
        """A step comes at `now` that was due at `wake_at`: by how much deadlines have to be moved, often 0."""
        if self._holding and now >= self.held_until:
            self._holding = False
            held = True
        else:
            held = False
        late = now - wake_at
        if late <= LATE_SHARE * self._probe_timeout_seconds:
            return 0.0
        self.last_seconds = late
        self.longest_seconds = max(self.longest_seconds, late)
        if not self._holding and not held:
            self._holding = True
            self.held_until = now + self._probe_timeout_seconds
        return late

    def holds(self, now: float) -> bool:
        """Whether it is too early to conclude anything."""
        return now < self.held_until

    def penalty(self, seconds: float) -> int:
        """By how much the local health is worse after standing still for so long."""
        return int(seconds / (PENALTY_SHARE * self._probe_timeout_seconds))

    def check(self, now: float) -> None:
        """Assert the invariant."""
        assert self.held_until <= now + self._probe_timeout_seconds
