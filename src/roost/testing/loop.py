"""An asyncio loop whose time is virtual: it jumps to the next timer whenever nothing is left to do.

A minute of cluster life takes milliseconds, and the order of events depends on nothing but the program and its
seeds. Only what lives in this process exists: no sockets, no threads. When nothing is scheduled any more, waiting
would last for ever; the loop then raises `Stuck` instead of hanging.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

__all__ = ["SimulatedLoop", "Stuck"]

START_SECONDS = 1_000.0
LATE_SECONDS = 1e-9
"""A timer may be late but never early: who is woken too soon would set the same timer again, and time stand still."""


class Stuck(RuntimeError):
    """Everyone waits and nothing is due: in real time this would hang for ever."""


class _Clock(selectors.SelectSelector):
    """Where a real loop would sleep until a socket or a timer, this one moves the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START_SECONDS

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Stuck("all tasks wait and no timer is set: nothing will ever happen")
        # Also when something is ready: a timer that is due exactly now runs only once it is over.
        self.now += max(timeout, 0) + LATE_SECONDS
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """A loop in virtual time. `time()` starts at 1000 seconds."""

    def __init__(self) -> None:
        self._clock = _Clock()
        super().__init__(self._clock)
        self._clock_resolution = 0.0  # asyncio runs timers early by as much

    def time(self) -> float:
        return self._clock.now
