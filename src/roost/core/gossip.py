"""What members tell each other: the entry of a member, and the messages of SWIM.

An entry has two authors. The member itself writes what it is (state, address, services...) and raises `incarnation`
with every change; others may only write its `health`. For one uid the entries are totally ordered by
`(left, incarnation, health)`, so merging is taking the greater one: commutative, associative, idempotent. A member
refutes a bad health by raising its incarnation, which is why even `down` is not the end of it.

Source: A. Das, I. Gupta, A. Motivala, "SWIM", DSN 2002, sections 3 and 4; accusers by name: A. Dadgar, J. Phillips,
J. Currey, "Lifeguard", DSN-W 2018, section IV.B.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Literal

import msgspec

__all__ = [
    "ADDRESS",
    "ADDRESS_CHARS_MAX",
    "NAME",
    "NAME_CHARS_MAX",
    "Ack",
    "Doubt",
    "Entry",
    "Gone",
    "Gossip",
    "Health",
    "Nack",
    "Ping",
    "PingRequest",
    "ReachAnswer",
    "ReachRequest",
    "Report",
    "State",
    "Sync",
]

NAME_CHARS_MAX = 128
ADDRESS_CHARS_MAX = 255
NAME = re.compile(rf"[A-Za-z0-9_.:@\[\]-]{{1,{NAME_CHARS_MAX}}}")
"""What a node's name may be: it goes to logs, terminals and addresses."""
ADDRESS = re.compile(rf"[!-~]{{0,{ADDRESS_CHARS_MAX}}}")

State = Literal["joining", "up", "leaving", "left"]


class Health(IntEnum):
    """What the others think of a member. The order is the order of precedence at one incarnation."""

    ALIVE = 0
    SUSPECT = 1
    DOWN = 2


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One run of one node, as gossip carries it. `uid` is made anew at every start; `name` is kept."""

    name: str
    uid: int
    started: int
    """Wall-clock milliseconds when this run began: of two live runs with one name the older stays."""
    incarnation: int
    state: State
    health: Health
    address: str
    roles: tuple[str, ...] = ()
    zone: str = ""
    weight: float = 1.0
    services: dict[str, int] = {}
    """Hosted services by name, each with a digest of its options."""
    library: str = ""
    protocol: tuple[int, int] = (1, 1)
    application: str = ""
    resting: bool = False
    """It was taken for down too often, and keeps out of the rings for a while."""

    @property
    def order(self) -> tuple[bool, int, int]:
        """Of two entries of one uid the one with the greater order is the newer."""
        return (self.state == "left", self.incarnation, self.health)


class Report(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The digest of its view that a member last reported; the greater `number` is the newer."""

    uid: int
    number: int
    digest: int


class Doubt(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`accuser` has found by itself that the member does not answer, in that incarnation."""

    uid: int
    incarnation: int
    accuser: int


class Gone(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How long a member has been down for the sender, so that its entry is forgotten in time wherever it is passed."""

    uid: int
    seconds: float


class Ping(msgspec.Struct, frozen=True, array_like=True, tag=0, gc=False):
    """Are you alive? Answered with an `Ack` of the same `number`."""

    number: int
    entries: list[Entry]
    reports: list[Report]
    doubts: list[Doubt] = []


class Ack(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """I am alive; or, of a `PingRequest`, its target is."""

    number: int
    entries: list[Entry]
    reports: list[Report]
    doubts: list[Doubt] = []


class PingRequest(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Please probe `target` for me: answered with `Ack`, or with `Nack` when that fails in time."""

    number: int
    target: int
    entries: list[Entry]
    reports: list[Report]
    doubts: list[Doubt] = []


class Nack(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """I could not reach it. `refused`: its host answers and says that nothing listens there."""

    number: int
    refused: bool
    entries: list[Entry]
    reports: list[Report]
    doubts: list[Doubt] = []


class Sync(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """The sender's whole view; one with `answer` set asks for the receiver's in return."""

    answer: bool
    entries: list[Entry]
    reports: list[Report]
    doubts: list[Doubt] = []
    gone: list[Gone] = []


class ReachRequest(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """I am new: please open a fresh link to the address that I give for myself. Answered with `ReachAnswer`."""

    number: int


class ReachAnswer(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """I could, if `reason` is empty; or why I could not."""

    number: int
    reason: str


Gossip = Ping | Ack | PingRequest | Nack | Sync | ReachRequest | ReachAnswer
