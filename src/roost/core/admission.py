"""How a node gets in: joined, then up; or kept waiting, or turned away, by an older run of its name.

A node has joined once it has merged another's view, or has no seed to ask, or nobody answered for
`form_alone_seconds`. It goes up when its services are ready as well. While an older run of its name is live it does
neither: still joining, it looks again every period and gives up after `name_taken_seconds`; already up (two clusters
have met), it gives up at once.

Invariant: a node that goes up knows of no older live run of its name.
"""

from __future__ import annotations

import math

from roost.core.gossip import Entry
from roost.core.roster import Roster
from roost.core.transitions import Trigger

__all__ = ["Admission"]


class Admission:
    """One node's way in."""

    __slots__ = (
        "_form_alone_at",
        "_give_up_at",
        "_name_taken_seconds",
        "_retry_at",
        "_retry_seconds",
        "_roster",
        "joined",
        "ready",
        "synced",
    )

    def __init__(
        self, roster: Roster, *, retry_seconds: float, form_alone_at: float, name_taken_seconds: float
    ) -> None:
        self._roster = roster
        self._retry_seconds = retry_seconds
        self._form_alone_at = form_alone_at
        self._name_taken_seconds = name_taken_seconds
        self._give_up_at = self._retry_at = math.inf
        """While an older run holds the name: when to give it up, when to look again."""
        self.joined = False
        self.ready = False
        """The services are ready."""
        self.synced = False
        """Somebody's view has been merged."""

    @property
    def _state(self) -> str:
        return self._roster.view.me.state

    @property
    def _waiting(self) -> bool:
        return self._give_up_at != math.inf

    def yield_to(self, now: float) -> Entry | None:
        """The older run of the own name for which this node must stop now."""
        holder = self._roster.older_run()
        if holder is None or self._state in ("leaving", "left"):
            self._give_up_at = self._retry_at = math.inf
            return None
        if self._state == "joining" and not self._waiting:
            self._give_up_at = now + self._name_taken_seconds
            self._retry_at = now + self._retry_seconds
        return holder if self._state == "up" or now >= self._give_up_at else None

    def look_again(self, now: float) -> bool:
        """Whether to ask somebody now how it is with the name."""
        if now < self._retry_at:
            return False
        self._retry_at = now + self._retry_seconds
        return True

    def join(self, now: float, *, seeded: bool) -> bool:
        """Go as far in as is possible now; whether the node has just joined."""
        if self._state != "joining" or self._waiting:
            return False
        joined = not self.joined and (self.synced or not seeded or now >= self._form_alone_at)
        self.joined = self.joined or joined
        if self.joined and self.ready:
            self._roster.change_me(Trigger.GO_UP)
        return joined

    def move(self, seconds: float) -> None:
        """This node stood still for so long, and heard nobody."""
        self._form_alone_at += seconds
        self._give_up_at += seconds
        self._retry_at += seconds

    @property
    def wake_at(self) -> float:
        """The earliest time at which something is due."""
        if self._waiting:
            return min(self._give_up_at, self._retry_at)
        return self._form_alone_at if not self.joined and self._state == "joining" else math.inf

    def check(self) -> None:
        """Assert the invariants."""
        assert self._state != "up" or self._roster.older_run() is None
        assert self._waiting == (self._retry_at != math.inf)
