"""What to tell others, and how often: rumours that ride on messages.

A rumour is the uid of a member whose entry (or report) has changed; what is told is always the newest. Whoever was told
least often goes first, and after about 3 log2(n) tellings a rumour has reached everyone with high probability and
rests. So a message carries a bounded number of rumours, and no node does more work in a larger cluster.

Invariant: a rumour was told fewer times than the limit that held when it was last picked.
Source: A. Das, I. Gupta, A. Motivala, "SWIM", DSN 2002, sections 3.2 and 4.1.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator

__all__ = ["Rumours", "tellings_max"]

TELLINGS_FACTOR = 3
"""SWIM's lambda: of n members a rumour misses n**-(2 lambda - 2), which is n**-4 of a member."""


def tellings_max(members: int) -> int:
    """How often one node tells one rumour in a cluster of that size: ceil(3 log2(n + 1))."""
    return math.ceil(TELLINGS_FACTOR * math.log2(members + 1))


class Rumours:
    """Which uids there is news of, with the count of tellings."""

    __slots__ = ("_sequence", "_told")

    def __init__(self) -> None:
        self._told: dict[int, tuple[int, int]] = {}
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._told)

    def __iter__(self) -> Iterator[int]:
        return iter(self._told)

    def add(self, uid: int) -> None:
        """There is news of `uid`: its count starts anew."""
        self._sequence += 1
        self._told[uid] = (0, self._sequence)

    def drop(self, uid: int) -> None:
        """There is nothing more to tell of `uid`."""
        self._told.pop(uid, None)

    def clear(self) -> None:
        """Nobody is there to be told: whoever comes is told everything anyway."""
        self._told.clear()

    def pick(self, count: int, limit: int) -> list[int]:
        """Up to `count` uids, least told first, then oldest; each is counted as told once more."""
        told = self._told
        picked = heapq.nsmallest(count, [(times, sequence, uid) for uid, (times, sequence) in told.items()])
        for times, sequence, uid in picked:
            if times + 1 >= limit:
                del told[uid]
            else:
                told[uid] = (times + 1, sequence)
        return [uid for _, _, uid in picked]
