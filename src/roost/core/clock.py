"""A clock whose stamps order writes across nodes: never backwards, close to real time, one integer.

A stamp is 64 bits: 48 of wall-clock milliseconds and 16 of a counter, so that stamps compare as plain integers. The
counter tells writes of one millisecond apart; if it runs over, it carries into the milliseconds, and the clock is a
little ahead until real time has caught up. A stamp alone may be given out by two nodes at once; a *version* is the
pair (stamp, uid of the node) and is unique.

Invariants: every stamp from `tick` is greater than all given out or accepted before. A stamp from a node whose clock
runs too far ahead never advances ours: one bad clock must not drag the whole cluster into the future.

Source: S. Kulkarni et al., "Logical Physical Clocks", OPODIS 2014, section 3 (the two parts are packed as in 6.2).
"""

from __future__ import annotations

__all__ = ["COUNTER_BITS", "STAMP_MAX", "HybridClock", "milliseconds_of", "stamp_of"]

COUNTER_BITS = 16
STAMP_MAX = (1 << 64) - 1


def stamp_of(milliseconds: int, counter: int = 0) -> int:
    """Pack a stamp."""
    return (milliseconds << COUNTER_BITS) | counter


def milliseconds_of(stamp: int) -> int:
    """The wall-clock part of a stamp."""
    return stamp >> COUNTER_BITS


class HybridClock:
    """One node's clock. The wall time is handed in, in milliseconds since the epoch, and may jump."""

    __slots__ = ("last",)

    def __init__(self, last: int = 0) -> None:
        self.last = last

    def tick(self, wall_ms: int) -> int:
        """The stamp of a local event: greater than every one before."""
        now = wall_ms << COUNTER_BITS
        self.last = now if now > self.last else self.last + 1
        return self.last

    def observe(self, stamp: int, wall_ms: int, ahead_max_ms: int) -> bool:
        """Take note of another node's stamp, so that our next is greater. False: too far ahead, and ignored."""
        if (stamp >> COUNTER_BITS) > wall_ms + ahead_max_ms:
            return False
        if stamp > self.last:
            self.last = stamp
        return True
