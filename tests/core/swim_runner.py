"""One run of a node in the tests of membership: its machine, and what that has told its shell."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from roost.core.gossip import Entry, Health
from roost.core.membership import Event, MemberChanged, Membership, NotReached

__all__ = ["Runner", "entry"]


def entry(name: str, uid: int, *, started: int = 0, address: str = "", **fields: object) -> Entry:
    """A fresh entry; `started` is the uid unless it matters."""
    me = Entry(name, uid, started or uid, 1, "joining", Health.ALIVE, address or f"{name}:1")
    return msgspec.structs.replace(me, **fields)


@dataclass
class Runner:
    """One run of a node: its machine, and what it has told its shell."""

    machine: Membership
    state: str = "running"  # running, blocked (what comes waits), frozen (what comes is lost), dead, stopped
    ready_seconds: float = 0.01
    seen: dict[int, Entry] = field(default_factory=dict)
    changes: list[tuple[float, MemberChanged]] = field(default_factory=list)
    joined_at: float | None = None
    conflict: Entry | None = None
    not_reached: NotReached | None = None
    sent: int = 0
    sent_bytes: int = 0
    wake: float = 0.0
    recent: list[float] = field(default_factory=list)
    waiting: list[Event] = field(default_factory=list)
    """What has come while it was blocked."""

    @property
    def uid(self) -> int:
        return self.machine.me.uid

    @property
    def name(self) -> str:
        return self.machine.me.name

    @property
    def address(self) -> str:
        return self.machine.me.address

    def went_down(self, since: float) -> list[str]:
        """The names of members that this node took for down from then on."""
        return [
            change.after.name
            for at, change in self.changes
            if at >= since and change.after.health == Health.DOWN and not change.forgotten
        ]
