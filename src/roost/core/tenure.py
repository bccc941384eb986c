"""Who executes a partition's commands: the record of it, and one node's part in it.

The ring says who *should* execute; a `Right` says who *does*. Rights are ordered by (epoch, holder), and of two that
meet the lower one gives way. A node's part in a partition is its role, and the only ways from one role to another are
those of `TRANSITIONS`. `Book` is the state that claims (`claims.py`), moves (`transfer.py`) and healing (`healing.py`)
share, and `rights.py` drives: all roles of one node in one service, and the effects of the step that is being made.

Invariants: commands run in the roles HOLDING and MOVING only, there only while not `stopped`, and only under
`slot.right`, whose holder is this node; an epoch that this node has promised to another is never accepted below it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import msgspec
from xxhash import xxh3_64_intdigest

from roost.core.items import ItemSet, Merge

if TYPE_CHECKING:
    from roost.core.claims import Claim
    from roost.core.healing import Handing
    from roost.core.receiving import Incoming
    from roost.core.transfer import Outgoing

__all__ = [
    "EXECUTING",
    "NO_RIGHT",
    "TRANSITIONS",
    "Book",
    "Changed",
    "Effect",
    "Handed",
    "Held",
    "PossibleLoss",
    "Right",
    "Role",
    "Send",
    "Slot",
    "Stop",
    "Took",
]


class Right(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`holder` executes, since `epoch`; `copies` are the uids that hold every acknowledged write."""

    epoch: int = 0
    holder: int = 0
    copies: tuple[int, ...] = ()

    @property
    def order(self) -> tuple[int, int]:
        """Of two rights to one partition the greater one counts."""
        return (self.epoch, self.holder)


NO_RIGHT = Right()


class Role(Enum):
    """A node's part in one partition."""

    ABSENT = "absent"
    """Another executes it, or nobody does; items that are left here go to the holder."""
    CLAIMING = "claiming"
    """The ring says me, and no live holder is known: I ask everyone. Commands queue."""
    AWAITING = "awaiting"
    """The ring says me, and someone holds it or claims it: I wait for the offer."""
    HOLDING = "holding"
    MOVING = "moving"
    """I execute, and stream to the new primary."""
    CEDING = "ceding"
    """The right is sent. I never execute under the old epoch again, whatever happens."""


TRANSITIONS: dict[tuple[Role, Role], str] = {
    (Role.ABSENT, Role.CLAIMING): "the ring says me, and no live holder is known",
    (Role.ABSENT, Role.AWAITING): "the ring says me, and another holds it",
    (Role.ABSENT, Role.HOLDING): "a right arrives that the ring meant for me when it was sent",
    (Role.AWAITING, Role.ABSENT): "the ring says another",
    (Role.AWAITING, Role.CLAIMING): "the holder is down, or nothing has come from it for long",
    (Role.AWAITING, Role.HOLDING): "the right arrives",
    (Role.CLAIMING, Role.ABSENT): "the ring says another",
    (Role.CLAIMING, Role.AWAITING): "a holder is found, or a higher claim",
    (Role.CLAIMING, Role.HOLDING): "all have answered or are down, and what was left has been gathered",
    (Role.HOLDING, Role.MOVING): "the ring says another",
    (Role.HOLDING, Role.ABSENT): "a higher right is met",
    (Role.MOVING, Role.HOLDING): "the target refused or is down, or the ring has changed",
    (Role.MOVING, Role.CEDING): "the right is sent",
    (Role.MOVING, Role.ABSENT): "a higher right is met",
    (Role.CEDING, Role.ABSENT): "the right is taken, or its target is down: then a claim decides",
    (Role.CEDING, Role.HOLDING): "the target durably refused: I go on under a higher epoch",
}

EXECUTING = (Role.HOLDING, Role.MOVING)


class Held(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """To every host: this right is in force."""

    partition: int
    right: Right


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


class Took(msgspec.Struct, frozen=True):
    """This node holds the partition now. `source` 0: by a claim."""

    partition: int
    source: int
    items: int


class Handed(msgspec.Struct, frozen=True):
    """A partition, or what was left of one, has been handed over."""

    partition: int
    target: int
    items: int
    size_bytes: int


class PossibleLoss(msgspec.Struct, frozen=True):
    """The partition was claimed without what its last holder knew: acknowledged writes may be gone."""

    partition: int
    right: Right


Effect = Send | Stop | Changed | Took | Handed | PossibleLoss


@dataclass(slots=True)
class Slot:
    """One partition, as this node knows it."""

    partition: int
    items: ItemSet
    role: Role = Role.ABSENT
    right: Right = NO_RIGHT
    """The greatest right known to be, or to have been, in force."""
    promised: tuple[int, int] = (0, 0)
    """(epoch, uid): no right up to this epoch is accepted any more, but from that uid's claim."""
    since: float = 0.0
    """When the role began, or was last confirmed."""
    retry_at: float = 0.0
    """No new attempt to hand anything over before."""
    stopped: bool = False
    claim: Claim | None = None
    outgoing: Outgoing | None = None
    incoming: Incoming | None = None
    handing: Handing | None = None
    decided: dict[tuple[int, int], bool] = field(default_factory=dict)
    """Rights offered to this node, by (epoch, source): taken or declined. A repeated question gets the same answer."""

    @property
    def executes(self) -> bool:
        """Commands may run now."""
        return self.role in EXECUTING and not self.stopped


class Book:
    """All partitions of one service on one node, with the view they are judged by."""

    def __init__(self, me: int, partitions: int, merge: Merge | None, chunk_bytes: int, transfers_max: int) -> None:
        self.me = me
        self.merge = merge
        self.chunk_bytes = chunk_bytes
        self.budget_bytes = chunk_bytes * transfers_max
        self.drain_seconds = 2.0
        self.resend_seconds = 1.0
        self.pause_seconds = 0.2
        self.patience_seconds = 2.0
        self.now = 0.0
        self.live: dict[int, None] = {me: None}
        self.gone: dict[int, None] = {}
        self.hosts: dict[int, None] = {}
        self.primaries: list[int] = [0] * partitions
        self.joined = False
        self.crashed: tuple[int, ...] = ()
        """Hosts of the service that are down and have not left."""
        self.slots = [Slot(partition, ItemSet(merge)) for partition in range(partitions)]
        self.effects: list[Effect] = []
        self.touched: dict[int, None] = {}
        self.active: dict[int, None] = {}
        self.waiting: dict[int, None] = {}
        """Partitions that should move, and wait for the budget."""
        self.reserved: dict[int, int] = {}
        """Bytes of the budget that each move in progress takes."""
        self.reserved_bytes = 0
        self.moves = 0
        self.digest = 0
        """Exclusive or over all known rights."""

    def send(self, uid: int, message: msgspec.Struct) -> None:
        """Send to one node."""
        self.effects.append(Send(uid, message))

    def is_live(self, uid: int) -> bool:
        """A member that is not down and has not left; another than this node."""
        return uid != self.me and uid in self.live

    def is_expected(self, uid: int) -> bool:
        """Something may come of this node: it is live, or not known yet. Others may see a member before we do."""
        return uid not in (0, self.me) and uid not in self.gone

    def enter(self, slot: Slot, role: Role) -> None:
        """Change a role. Asserts that the table allows it."""
        assert (slot.role, role) in TRANSITIONS, f"{slot.role} to {role} in partition {slot.partition}"
        if role not in (Role.MOVING, Role.CEDING) and slot.partition in self.reserved:
            self.reserved_bytes -= self.reserved.pop(slot.partition)
        if role is not Role.CLAIMING:
            slot.claim = None
        slot.role = role
        slot.since = self.now
        self.touch(slot)
        self.effects.append(Changed(slot.partition))

    def touch(self, slot: Slot) -> None:
        """Have this partition looked at before the step ends."""
        self.touched[slot.partition] = None

    def record(self, slot: Slot, right: Right) -> None:
        """Write down a right that is in force."""
        self.digest ^= mark_of(slot.partition, slot.right) ^ mark_of(slot.partition, right)
        slot.right = right
        self.touch(slot)

    def hold(self, slot: Slot, right: Right, source: int) -> None:
        """Execute from now on under `right`, and tell every host."""
        self.record(slot, right)
        slot.incoming = slot.outgoing = slot.handing = None
        slot.stopped = False
        self.enter(slot, Role.HOLDING)
        self.effects.append(Took(slot.partition, source, slot.items.live))
        for uid in self.hosts:
            if uid not in (self.me, source):
                self.send(uid, Held(slot.partition, right))

    def learn(self, slot: Slot, right: Right) -> None:
        """Somebody says that `right` is in force. If it is above the one under which we execute, give way."""
        if right.order <= slot.right.order:
            return
        self.record(slot, right)
        if slot.claim is not None:
            slot.claim.doubting = False
        if slot.incoming is not None and right.holder != slot.incoming.source and self.is_live(slot.incoming.source):
            slot.incoming = None
        if slot.role in EXECUTING and right.holder != self.me:
            slot.outgoing = None
            slot.stopped = False
            slot.items.untrack()
            self.enter(slot, Role.ABSENT)

    def check(self) -> None:
        """Assert the invariants."""
        digest = 0
        for slot in self.slots:
            digest ^= mark_of(slot.partition, slot.right) ^ mark_of(slot.partition, NO_RIGHT)
            self.check_slot(slot)
        assert digest == self.digest, "the digest is not that of the rights"
        assert self.reserved_bytes == sum(self.reserved.values()), "budget miscounted"

    def check_slot(self, slot: Slot) -> None:
        """Assert the invariants of one partition."""
        role = slot.role
        assert slot.right.holder == self.me or role not in EXECUTING, f"{role} without a right"
        assert (slot.claim is not None) == (role is Role.CLAIMING), "a claim is what CLAIMING has"
        assert (slot.outgoing is not None) == (role in (Role.MOVING, Role.CEDING)), "an outgoing move is MOVING's"
        assert not slot.stopped or role in (Role.MOVING, Role.CEDING), "stopped without a cut-over"
        assert slot.incoming is None or role in (Role.ABSENT, Role.AWAITING), f"an incoming move while {role}"
        assert slot.handing is None or role in (Role.ABSENT, Role.AWAITING), f"handing over while {role}"
        assert slot.items.changed is None or slot.outgoing is not None, "changes noted for nobody"
        assert (slot.partition in self.reserved) == (role in (Role.MOVING, Role.CEDING)), "budget out of step"


def mark_of(partition: int, right: Right) -> int:
    """What a right adds to the digest."""
    seed = (partition * 0x9E3779B97F4A7C15 ^ right.epoch) & 0xFFFFFFFFFFFFFFFF
    return xxh3_64_intdigest(right.holder.to_bytes(8, "little"), seed)
