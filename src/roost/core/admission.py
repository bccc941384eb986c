"""How a node gets in: joined, then up; or kept waiting, or turned away, by an older run of its name.

A node has joined once it has merged another's view, or has no seed to ask, or nobody answered for
`form_alone_seconds`. It goes up when its services are ready as well, and a member has reached it (`Reaching`). While an
older run of its name is live it does neither: still joining, it looks again every period and gives up after
`name_taken_seconds`; already up (two clusters have met), it gives up as soon as that run has been heard of at first
hand, since the news of it may be stale.

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
        "_confirmed",
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
        self._confirmed = 0
        """The older run that was found alive while this node was up."""
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
            self._confirmed = 0
            return None
        if self._state == "joining" and not self._waiting:
            self._give_up_at = now + self._name_taken_seconds
            self._retry_at = now + self._retry_seconds
        certain = holder.uid == self._confirmed if self._state == "up" else now >= self._give_up_at
        return holder if certain else None

    def questioned(self) -> Entry | None:
        """The older run of the own name that has to be probed: this node is up and must know for certain."""
        return self._roster.older_run() if self._state == "up" else None

    def found_alive(self, uid: int) -> None:
        """Something of that member itself has come, or somebody has just reached it."""
        holder = self.questioned()
        if holder is not None and holder.uid == uid:
            self._confirmed = uid

    def look_again(self, now: float) -> bool:
        """Whether to ask somebody now how it is with the name."""
        if now < self._retry_at:
            return False
        self._retry_at = now + self._retry_seconds
        return True

    def join(self, now: float, *, seeded: bool, reached: bool) -> bool:
        """Go as far in as is possible now; whether the node has just joined."""
        if self._state != "joining" or self._waiting:
            return False
        joined = not self.joined and (self.synced or not seeded or now >= self._form_alone_at)
        self.joined = self.joined or joined
        if self.joined and self.ready and reached:
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
        holder = self.questioned()
        assert holder is None or holder.uid != self._confirmed, "a name that is known to be another's"
        assert self._waiting == (self._retry_at != math.inf)
