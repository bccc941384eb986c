"""Whom to open links to without being asked: seeds to join through, and members that are down.

A seed is contacted with a doubling back-off for as long as its address is not that of a live member, so that two
clusters that formed apart find each other whenever the network allows. Down members are contacted a few at a time, in
turn, for as long as they are remembered: that is how a split heals without any seed.

Invariant: the own address is never contacted, nor one at which another live member listens.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence

__all__ = ["Contacts"]

FIRST_WAIT_SECONDS = 0.1
"""The back-off between attempts at a seed doubles from here up to `rejoin_seconds`."""
REJOINS_MAX = 3
"""Down members contacted in one `rejoin_seconds`: the cost has a bound however many are down."""


class Contacts:
    """When to contact which address."""

    __slots__ = ("_down", "_due", "_known_as", "_rejoin_due", "_rejoin_seconds", "_rng", "_waits")

    def __init__(
        self, seeds: Sequence[str], *, own_address: str, rng: random.Random, now: float, rejoin_seconds: float
    ) -> None:
        self._rng = rng
        self._rejoin_seconds = rejoin_seconds
        self._due = {address: now for address in seeds if address != own_address}
        self._waits = dict.fromkeys(self._due, min(FIRST_WAIT_SECONDS, rejoin_seconds))
        self._known_as: dict[str, str] = {}
        """The address that the member behind a seed gives for itself."""
        self._down: dict[int, str] = {}
        """Down members' addresses; the one contacted longest ago first."""
        self._rejoin_due = math.inf

    @property
    def seeded(self) -> bool:
        """Whether there is a seed other than the node itself."""
        return bool(self._due)

    @property
    def wake_at(self) -> float:
        """The earliest time at which something is due."""
        return min(self._rejoin_due, *self._due.values()) if self._due else self._rejoin_due

    def known_as(self, dialed: str, address: str) -> None:
        """Behind the seed `dialed` is the member that gives `address` for itself."""
        if dialed in self._due:
            self._known_as[dialed] = address

    def is_self(self, dialed: str) -> None:
        """The seed `dialed` turned out to be this very node."""
        self._due.pop(dialed, None)

    def add_down(self, uid: int, address: str, now: float) -> None:
        """Contact a member from time to time: it is down."""
        self._down.pop(uid, None)
        self._down[uid] = address
        if self._rejoin_due == math.inf:
            self._rejoin_due = now + self._jittered(self._rejoin_seconds)

    def drop_down(self, uid: int) -> None:
        """The member is back, has left, or is forgotten."""
        self._down.pop(uid, None)
        if not self._down:
            self._rejoin_due = math.inf

    def tick(self, now: float, live_addresses: Collection[str]) -> list[str]:
        """The addresses to contact now. `live_addresses` has the own one among them."""
        wanted: list[str] = []
        for address, due in self._due.items():
            if due > now:
                continue
            if address in live_addresses or self._known_as.get(address) in live_addresses:
                self._waits[address] = FIRST_WAIT_SECONDS
                self._due[address] = now + self._jittered(self._rejoin_seconds)
            else:
                wanted.append(address)
                self._due[address] = now + self._jittered(self._waits[address])
                self._waits[address] = min(2 * self._waits[address], self._rejoin_seconds)
        if self._rejoin_due <= now:
            for uid in list(self._down)[:REJOINS_MAX]:
                address = self._down.pop(uid)
                self._down[uid] = address
                if address not in live_addresses and address not in wanted:
                    wanted.append(address)
            self._rejoin_due = now + self._jittered(self._rejoin_seconds)
        return wanted

    def check(self, down: Collection[int]) -> None:
        """Assert the invariants; `down` are the members that are down."""
        assert sorted(self._down) == sorted(down)
        assert (self._rejoin_due == math.inf) == (not self._down)

    def _jittered(self, seconds: float) -> float:
        return seconds * self._rng.uniform(0.5, 1.0)
