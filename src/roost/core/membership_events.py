"""What goes into the membership machine and what comes out: its events and its effects.

Events are in the past tense or are wishes of the node; effects are in the imperative, but for the news that only
inform. The shell gives events in the order in which they happened and carries effects out in the order given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from roost.core.gossip import Entry, Gossip

__all__ = [
    "Contact",
    "ContactFailed",
    "Dial",
    "Dialed",
    "Effect",
    "Event",
    "Forget",
    "GoUp",
    "Joined",
    "LeaveAsked",
    "LeaveDone",
    "LinkLost",
    "LinkOpened",
    "MemberChanged",
    "NameConflict",
    "NotReached",
    "Received",
    "SelfChanged",
    "SendGossip",
    "SettledChanged",
    "Tick",
]


@dataclass(frozen=True, slots=True)
class Tick:
    """The time `wake_at` has come."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message came over the authenticated link of the member `source`."""

    source: int
    message: Gossip


@dataclass(frozen=True, slots=True)
class LinkOpened:
    """A handshake with a member is done; either end may have opened the link."""

    uid: int
    name: str
    address: str
    """The address that the member gives for itself."""
    dialed: str = ""
    """The address that this end connected to, where it did: a seed may be known under another address."""


@dataclass(frozen=True, slots=True)
class LinkLost:
    """An open link broke without a good-bye: a hint that starts a probe at once.

    `refused` is no evidence: whether the host refuses is learned from the probe's own contact.
    """

    uid: int
    refused: bool = False


@dataclass(frozen=True, slots=True)
class ContactFailed:
    """No link could be opened. `uid` is 0 for an address whose member is not known.

    `refused`: the host says that nothing listens there, or the member of another uid answered.
    """

    address: str
    uid: int
    refused: bool


@dataclass(frozen=True, slots=True)
class Dialed:
    """What `Dial` wanted is done: a fresh link was opened, if `reason` is empty; or why it could not be."""

    uid: int
    reason: str


@dataclass(frozen=True, slots=True)
class SelfChanged:
    """New values for fields of the own entry: `services`, `weight`, `zone`, `roles`, `address`, `application`."""

    changes: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class GoUp:
    """The node's services are ready to take part."""


@dataclass(frozen=True, slots=True)
class LeaveAsked:
    """The node wants to leave and hands off what it holds."""


@dataclass(frozen=True, slots=True)
class LeaveDone:
    """All is handed off: tell everyone; the machine rests afterwards."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop the members of this name that are down or have left."""

    name: str


Event = (
    Tick
    | Received
    | LinkOpened
    | LinkLost
    | ContactFailed
    | Dialed
    | SelfChanged
    | GoUp
    | LeaveAsked
    | LeaveDone
    | Forget
)


@dataclass(frozen=True, slots=True)
class SendGossip:
    """Send to the member `uid`; open a link to `address` if there is none.

    An empty address: over an open link or not at all.
    """

    uid: int
    address: str
    message: Gossip


@dataclass(frozen=True, slots=True)
class Contact:
    """Open a link to whoever listens at `address`."""

    address: str


@dataclass(frozen=True, slots=True)
class Dial:
    """Open a fresh link to the node `uid` at `address`, whether there is one or not. Answered with `Dialed`."""

    uid: int
    address: str


@dataclass(frozen=True, slots=True)
class Joined:
    """Once: the node knows the cluster, or is alone. Answered with `GoUp` when its services are ready."""


@dataclass(frozen=True, slots=True)
class MemberChanged:
    """An entry changed in anything but its incarnation. Each `before` is the `after` of the member's last change."""

    before: Entry | None
    after: Entry
    forgotten: bool = False
    """The member is no longer in the view; `after` is what was last known."""


@dataclass(frozen=True, slots=True)
class SettledChanged:
    """Every live member reports the own view's digest, or no longer so."""

    settled: bool


@dataclass(frozen=True, slots=True)
class NameConflict:
    """An older live run holds this node's name: the node must stop. The machine rests afterwards."""

    holder: Entry


@dataclass(frozen=True, slots=True)
class NotReached:
    """No member can reach this node at its address: its start has failed. The machine rests afterwards."""

    said: Sequence[tuple[str, str]]
    """Who was asked, by name, and what it said."""


Effect = SendGossip | Contact | Dial | Joined | MemberChanged | SettledChanged | NameConflict | NotReached
