"""Who executes a partition's commands and who has copies of it: the record of it, and one node's part in it.

The ring says who *should* execute and copy; a `Right` says who *does*. Rights are ordered by (epoch, holder, revision),
and of two that meet the lower one gives way: a new holder has a new epoch, a change of copies a new revision. A node's
part in a partition, a `Slot`, has a role, and the only ways from one role to another are those of `TRANSITIONS`.

Invariants: commands run in the roles HOLDING and MOVING only, there only while neither `stopped` nor `paused`, and
only under `slot.right`, whose holder is this node; an epoch that this node has promised to another is never accepted
below it. What a node has of a partition is either its copy, `items`, the very thing that its holder sent, or `strays`,
which the holder may not know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from roost.core.items import ItemSet

if TYPE_CHECKING:
    from roost.core.claims import Claim
    from roost.core.cutover import CutOver
    from roost.core.healing import Handing
    from roost.core.receiving import Incoming
    from roost.core.transfer import Feed

__all__ = [
    "ACKS",
    "EXECUTING",
    "NO_RIGHT",
    "RESTING",
    "TRANSITIONS",
    "Acknowledged",
    "Changed",
    "Effect",
    "GivenUp",
    "Handed",
    "Held",
    "Number",
    "PossibleLoss",
    "Right",
    "Role",
    "Send",
    "Slot",
    "Stop",
    "Took",
    "Write",
    "majority",
]

Write = Literal["one", "majority", "all"]


def majority(count: int) -> int:
    """More than half."""
    return count // 2 + 1


ACKS: dict[Write, Callable[[int], int]] = {"one": lambda count: 1, "majority": majority, "all": lambda count: count}
"""How many of so many copies acknowledge a write."""


Number = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
"""An epoch, as it may arrive: the next ones must fit into 64 bits too."""


class Right(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`holder` executes, since `epoch`; writes are acknowledged by `copies`, the holder first, since `revision`."""

    epoch: Number = 0
    holder: Annotated[int, msgspec.Meta(ge=0)] = 0
    copies: Annotated[tuple[Annotated[int, msgspec.Meta(ge=0)], ...], msgspec.Meta(max_length=64)] = ()
    revision: Number = 0

    @property
    def order(self) -> tuple[int, int, int]:
        """Of two rights to one partition the greater one counts."""
        return (self.epoch, self.holder, self.revision)

    @property
    def tenure(self) -> tuple[int, int]:
        """The same for all revisions."""
        return (self.epoch, self.holder)


NO_RIGHT = Right()


class Role(Enum):
    """A node's part in one partition."""

    ABSENT = "absent"
    """Others have it, or nobody does; items that are left here go to the holder."""
    COPY = "copy"
    """The record names me as a copy; another executes."""
    AWAITING = "awaiting"
    """The ring says me, and another holds it or claims it: I wait for the right, copy or not. Commands queue."""
    CLAIMING = "claiming"
    """No live holder is known, and it is for me to take over: I ask everyone. Commands queue."""
    HOLDING = "holding"
    MOVING = "moving"
    """I execute until the running command ends; the new holder has everything up to here."""
    CEDING = "ceding"
    """The right is sent. I never execute under the old epoch again, whatever happens."""


RESTING = {
    Role.ABSENT: "neither ring nor record name me",
    Role.COPY: "the record names me",
    Role.AWAITING: "the ring names me, and another holds it",
}
TRANSITIONS: dict[tuple[Role, Role], str] = {
    **{(a, b): RESTING[b] for a in RESTING for b in RESTING if a is not b},
    (Role.COPY, Role.CLAIMING): "the holder is down, and I am the first live copy",
    (Role.AWAITING, Role.CLAIMING): "the holder is down, or has let go",
    (Role.AWAITING, Role.HOLDING): "the right arrives",
    (Role.COPY, Role.HOLDING): "a right arrives that the ring meant for me when it was sent",
    (Role.ABSENT, Role.HOLDING): "a right arrives that the ring meant for me when it was sent",
    (Role.CLAIMING, Role.ABSENT): "another is to claim it",
    (Role.CLAIMING, Role.COPY): "a holder is found, or a higher claim",
    (Role.CLAIMING, Role.AWAITING): "a holder is found, or a higher claim, and the ring says me",
    (Role.CLAIMING, Role.HOLDING): "all have answered or are down, and what differed has been gathered",
    (Role.HOLDING, Role.MOVING): "the ring says another, and all copies that it wants are in step",
    (Role.HOLDING, Role.ABSENT): "a higher right is met",
    (Role.HOLDING, Role.COPY): "a higher right is met that keeps me",
    (Role.HOLDING, Role.AWAITING): "a higher right is met, and the ring says me",
    (Role.HOLDING, Role.CLAIMING): "a copy has promised to follow another, and nothing came of it",
    (Role.MOVING, Role.HOLDING): "a command does not end, a copy is lost, or the ring has changed",
    (Role.MOVING, Role.CEDING): "nothing runs, all copies have everything: the right is sent",
    (Role.MOVING, Role.ABSENT): "a higher right is met",
    (Role.MOVING, Role.COPY): "a higher right is met that keeps me",
    (Role.MOVING, Role.AWAITING): "a higher right is met, and the ring says me",
    (Role.CEDING, Role.ABSENT): "the right is taken or its target down",
    (Role.CEDING, Role.COPY): "the right is taken, and keeps me; or its target is down, and a claim decides",
    (Role.CEDING, Role.AWAITING): "the right is taken or its target down, and the ring says me",
    (Role.CEDING, Role.HOLDING): "the target durably refused: I go on under a higher epoch",
}

EXECUTING = (Role.HOLDING, Role.MOVING)


class Held(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """To every host: this right is in force."""

    partition: int
    right: Right


class GivenUp(msgspec.Struct, frozen=True, array_like=True, tag=21, gc=False):
    """I shall never hold it under that epoch: what you promised me counts no more."""

    partition: int
    epoch: Number


class Send(msgspec.Struct, frozen=True):
    """Send a message to the same service on another node."""

    uid: int
    message: msgspec.Struct


class Stop(msgspec.Struct, frozen=True):
    """Start no more commands of the partition, and say `Drained` as soon as none runs."""

    partition: int


class Changed(msgspec.Struct, frozen=True):
    """What happens to commands of the partition may have changed: look again at those that wait."""

    partition: int


class Acknowledged(msgspec.Struct, frozen=True):
    """All writes of the partition up to that number are on enough copies."""

    partition: int
    number: int


class Took(msgspec.Struct, frozen=True):
    """This node holds the partition now. `source` 0: by a claim."""

    partition: int
    source: int
    items: int


class Handed(msgspec.Struct, frozen=True):
    """The right to a partition, or what was left of one, has been handed over."""

    partition: int
    target: int
    items: int
    size_bytes: int


class PossibleLoss(msgspec.Struct, frozen=True):
    """The partition was taken over though too few of its copies could be asked: acknowledged writes may be gone."""

    partition: int
    right: Right
    """The last that may have been in force."""


Effect = Send | Stop | Changed | Acknowledged | Took | Handed | PossibleLoss


@dataclass(slots=True)
class Slot:
    """One partition, as this node knows it."""

    partition: int
    items: ItemSet
    role: Role = Role.ABSENT
    right: Right = NO_RIGHT
    """The greatest right known to be, or to have been, in force."""
    witnessed: bool = True
    """The right came with the items, in their order, or it is its epoch's first; not by hearsay."""
    promised: tuple[int, int] = (0, 0)
    """(epoch, uid): no right up to this epoch is accepted any more, but from that uid's claim."""
    promised_before: tuple[int, int] = (0, 0)
    """What was promised to others before that: it counts again if that uid gives its claim up."""
    tried: int = 0
    """The greatest epoch that this node has claimed."""
    vacated: tuple[int, int] = (0, 0)
    """The tenure that its holder, though alive, says it has given up."""
    since: float = 0.0
    """When the role began, or was last confirmed."""
    retry_at: float = 0.0
    """No new attempt at a claim, a move or handing anything over before."""
    stopped: bool = False
    paused: bool = False
    """This side of a split may not act."""
    short: bool = False
    """Too few copies could acknowledge a write."""
    lineage: tuple[int, int] = (0, 0)
    """The tenure under which the items here were written or followed."""
    known: tuple[int, int] = (0, 0)
    """The tenure whose holder has everything that is in the items here, or newer."""
    strays: ItemSet | None = None
    """Items that the holder may not know, and that go to it; None: there are none."""
    written: int = 0
    """Writes under this right, all that was inherited counting for one."""
    acked: int = 0
    """How many of them are on enough copies."""
    settled_until: int = 0
    """All stamps up to this one were here at the last round of collecting; 0: there has been none under this right."""
    feeds: dict[int, Feed] = field(default_factory=dict)
    """The holder's: what each copy, and each that is to become one, has."""
    pending: Right | None = None
    """A change of copies that has not been agreed on yet."""
    refused_at: float = 0.0
    """Since when a copy refuses to follow; 0: none does."""
    thanks: list[tuple[int, int, msgspec.Struct]] = field(default_factory=list)
    """(write, uid, answer) to be sent once that write is acknowledged."""
    claim: Claim | None = None
    cut: CutOver | None = None
    incoming: Incoming | None = None
    handing: Handing | None = None
    decided: dict[tuple[int, int], bool] = field(default_factory=dict)
    """Rights offered to this node, by (epoch, source): taken or declined. A repeated question gets the same answer."""

    @property
    def executes(self) -> bool:
        """Commands may run now."""
        return self.role in EXECUTING and not self.stopped and not self.paused
