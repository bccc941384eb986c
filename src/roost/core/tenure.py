"""Who executes a partition's commands and who has copies of it: the record of it, and one node's part in it.

The ring says who *should* execute and copy; a `Right` says who *does*. Rights are ordered by (epoch, holder, revision),
and of two that meet the lower one gives way: a new holder has a new epoch, a change of copies a new revision. A node's
part in a partition is its role, and the only ways from one role to another are those of `TRANSITIONS`. `Book` is the
state that copying (`copies.py`, `transfer.py`, `receiving.py`), moves (`cutover.py`), claims (`claims.py`) and healing
(`healing.py`) share, and `rights.py` drives: all roles of one node in one service, and the effects of the present step.

Invariants: commands run in the roles HOLDING and MOVING only, there only while neither `stopped` nor `paused`, and
only under `slot.right`, whose holder is this node; an epoch that this node has promised to another is never accepted
below it. What a node has of a partition is either its copy, `items`, the very thing that its holder sent, or `strays`,
which the holder may not know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Literal

import msgspec
from xxhash import xxh3_64_intdigest

from roost.core.items import ItemSet, Merge

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
    "TRANSITIONS",
    "Acknowledged",
    "Book",
    "Changed",
    "Effect",
    "GivenUp",
    "Handed",
    "Held",
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


class Right(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`holder` executes, since `epoch`; writes are acknowledged by `copies`, the holder first, since `revision`."""

    epoch: int = 0
    holder: int = 0
    copies: tuple[int, ...] = ()
    revision: int = 0

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


_RESTING = {
    Role.ABSENT: "neither ring nor record name me",
    Role.COPY: "the record names me",
    Role.AWAITING: "the ring names me, and another holds it",
}
TRANSITIONS: dict[tuple[Role, Role], str] = {
    **{(a, b): _RESTING[b] for a in _RESTING for b in _RESTING if a is not b},
    (Role.ABSENT, Role.CLAIMING): "the ring says me, and no live holder or copy is known",
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
    epoch: int


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


class Book:
    """All partitions of one service on one node, with the view they are judged by."""

    def __init__(
        self,
        me: int,
        partitions: int,
        merge: Merge | None,
        chunk_bytes: int,
        transfers_max: int,
        write: Write,
        strict: bool,
    ) -> None:
        self.me = me
        self.merge = merge
        self.chunk_bytes = chunk_bytes
        self.budget_bytes = chunk_bytes * transfers_max
        self.acks = ACKS[write]
        self.strict = strict
        """Nothing is taken over as long as acknowledged writes may be on a node that may come back."""
        self.drain_seconds = 2.0
        self.resend_seconds = 1.0
        self.pause_seconds = 0.2
        self.patience_seconds = 2.0
        self.rate_bytes = 0.0
        """Bytes a second that fill new copies; 0: no limit."""
        self.allowance = 0.0
        self.now = 0.0
        self.live: dict[int, None] = {me: None}
        self.gone: dict[int, None] = {}
        self.hosts: dict[int, None] = {}
        self.owners: list[tuple[int, ...]] = [()] * partitions
        self.joined = False
        self.acts = True
        self.crashed: tuple[int, ...] = ()
        """Hosts of the service that are down and have not left."""
        self.missed: tuple[int, ...] = ()
        """Those of the crashed that may come back with what they have: no newer run of their name is known."""
        self.slots = [Slot(partition, ItemSet(merge)) for partition in range(partitions)]
        self.effects: list[Effect] = []
        self.touched: dict[int, None] = {}
        self.active: dict[int, None] = {}
        self.waiting: dict[tuple[int, int], None] = {}
        """(partition, uid) that should be fed, and wait for the budget."""
        self.reserved: dict[tuple[int, int], int] = {}
        """Bytes of the budget that each new copy in the making takes."""
        self.reserved_bytes = 0
        self.numbers = 0
        """The last number given to a feed, a cut-over or a hand-over."""
        self.filled_bytes = 0
        """Sent to fill copies, ever."""
        self.repairs = 0
        """Copies that turned out to differ, and were compared anew."""
        self.digest = 0
        """Exclusive or over all known tenures."""

    def send(self, uid: int, message: msgspec.Struct) -> None:
        """Send to one node."""
        self.effects.append(Send(uid, message))

    def is_live(self, uid: int) -> bool:
        """A member that is not down and has not left; another than this node."""
        return uid != self.me and uid in self.live

    def is_expected(self, uid: int) -> bool:
        """Something may come of this node: it is live, or not known yet. Others may see a member before we do."""
        return uid not in (0, self.me) and uid not in self.gone

    def primary(self, slot: Slot) -> int:
        """Who should hold it; 0 where the ring is empty."""
        owners = self.owners[slot.partition]
        return owners[0] if owners else 0

    def is_served(self, slot: Slot) -> bool:
        """As far as is known here, another node holds it and is alive."""
        return self.is_expected(slot.right.holder) and slot.vacated != slot.right.tenure

    def is_copy(self, slot: Slot) -> bool:
        """The newest record that is known names this node."""
        return self.me in slot.right.copies

    def is_known(self, slot: Slot) -> bool:
        """What is in the items here is known to the holder, or to who claims to be the next one."""
        tenure = slot.right.tenure
        return slot.known == tenure or slot.known == slot.promised > tenure

    def next_number(self) -> int:
        """Greater than all before."""
        self.numbers += 1
        return self.numbers

    def enter(self, slot: Slot, role: Role) -> None:
        """Change a role. Asserts that the table allows it."""
        assert (slot.role, role) in TRANSITIONS, f"{slot.role} to {role} in partition {slot.partition}"
        if slot.claim is not None and role is not Role.HOLDING:
            self.give_up(slot, slot.claim)
        if role is not Role.CLAIMING:
            slot.claim = None
        slot.role = role
        slot.since = self.now
        self.touch(slot)
        self.effects.append(Changed(slot.partition))

    def give_up(self, slot: Slot, claim: Claim) -> None:
        """A claim has failed, for good."""
        for uid in (*claim.asked, *claim.answers):
            if uid != self.me:
                self.send(uid, GivenUp(slot.partition, claim.epoch))
        self.unpromise(slot, (claim.epoch, self.me))

    def promise(self, slot: Slot, ballot: tuple[int, int]) -> None:
        """Accept nothing of that epoch or below, but from that claimer."""
        if slot.promised[1] != ballot[1]:
            slot.promised_before = slot.promised
        slot.promised = ballot

    def unpromise(self, slot: Slot, ballot: tuple[int, int]) -> None:
        """That claimer has given up."""
        if slot.promised == ballot:
            slot.promised = slot.promised_before
            self.touch(slot)

    def resting_role(self, slot: Slot) -> Role:
        """The role of who neither executes nor claims."""
        if self.primary(slot) == self.me and self.joined:
            return Role.AWAITING
        return Role.COPY if self.is_copy(slot) else Role.ABSENT

    def rest(self, slot: Slot) -> None:
        """Go back to that role."""
        role = self.resting_role(slot)
        if role is not slot.role:
            self.enter(slot, role)

    def touch(self, slot: Slot) -> None:
        """Have this partition looked at before the step ends."""
        self.touched[slot.partition] = None

    def record(self, slot: Slot, right: Right, *, witnessed: bool) -> None:
        """Write down a right that is in force."""
        self.digest ^= mark_of(slot.partition, slot.right) ^ mark_of(slot.partition, right)
        slot.right = right
        slot.witnessed = witnessed or right.revision == 0
        self.touch(slot)

    def hold(self, slot: Slot, right: Right, source: int) -> None:
        """Execute from now on under `right`, and tell every host."""
        self.record(slot, right, witnessed=True)
        if slot.strays is not None:
            slot.items.merge_items(slot.strays.items.values(), uid=self.me)
            slot.strays = None
        slot.incoming = slot.cut = slot.handing = slot.pending = None
        slot.stopped = False
        slot.paused = not self.acts
        slot.refused_at = 0.0
        slot.written = 1
        slot.acked = int(source != 0)
        slot.lineage = slot.known = right.tenure
        self.enter(slot, Role.HOLDING)
        self.effects.append(Took(slot.partition, source, slot.items.live))
        for uid in self.hosts:
            if uid not in (self.me, source):
                self.send(uid, Held(slot.partition, right))

    def let_go(self, slot: Slot) -> None:
        """Execute no more. What becomes of the items is the caller's to say."""
        for uid in list(slot.feeds):
            self.end_feed(slot, uid)
        slot.cut = slot.pending = None
        slot.stopped = slot.paused = slot.short = False
        slot.written = slot.acked = 0
        slot.thanks.clear()

    def end_feed(self, slot: Slot, uid: int) -> None:
        """Send no more to this copy."""
        slot.feeds.pop(uid, None)
        if not slot.feeds:
            slot.items.untrack()
        self.release(slot, uid)
        self.waiting.pop((slot.partition, uid), None)

    def release(self, slot: Slot, uid: int) -> None:
        """Give the budget back that filling this copy took."""
        self.reserved_bytes -= self.reserved.pop((slot.partition, uid), 0)

    def stray(self, slot: Slot) -> None:
        """What is here is no copy any more: the holder may not know it."""
        if slot.items:
            if slot.strays is None:
                slot.strays = slot.items
                slot.strays.collected_until = 0  # what was collected elsewhere is the holder's to say
            else:
                slot.strays.merge_items(slot.items.items.values())
            slot.items = ItemSet(self.merge)
            slot.handing = None
        slot.lineage = slot.known = (0, 0)
        self.touch(slot)

    def forget(self, slot: Slot) -> None:
        """Others have all that is here."""
        slot.items = ItemSet(self.merge)
        slot.lineage = slot.known = (0, 0)
        slot.handing = None

    def learn(self, slot: Slot, right: Right) -> None:
        """Somebody says that `right` is in force. If it is above the one under which we execute, give way."""
        if right.order <= slot.right.order:
            return
        before = slot.right
        if slot.role is Role.CEDING and slot.cut is not None and right.tenure == slot.cut.right.tenure:
            return  # that is what was sent: its taker will say so
        self.record(slot, right, witnessed=False)
        if right.tenure == before.tenure:
            return
        if slot.incoming is not None and right.holder != slot.incoming.source:
            slot.incoming = None
        if slot.role in (*EXECUTING, Role.CEDING) and right.holder != self.me:
            self.let_go(slot)
            self.stray(slot)
            self.rest(slot)
        elif right.revision == 0 and self.is_copy(slot) and slot.lineage == slot.known == before.tenure:
            slot.lineage = slot.known = right.tenure  # ceded: all of its copies had everything

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
        role, executing = slot.role, slot.role in EXECUTING
        assert slot.right.holder == self.me or not executing, f"{role} without a right"
        assert not executing or self.is_copy(slot), "a holder that is no copy"
        assert (slot.claim is not None) == (role is Role.CLAIMING), "a claim is what CLAIMING has"
        assert (slot.cut is not None) == (role in (Role.MOVING, Role.CEDING)), "a cut-over is MOVING's"
        assert not slot.stopped or role is Role.MOVING, "stopped without a cut-over"
        assert not slot.feeds or executing or role is Role.CEDING, f"feeding copies while {role}"
        assert slot.pending is None or executing, f"changing the copies while {role}"
        assert slot.incoming is None or role in _RESTING, f"followed while {role}"
        assert slot.handing is None or role in _RESTING, f"handing over while {role}"
        assert slot.items.changed is None or slot.feeds, "changes noted for nobody"
        assert slot.acked <= slot.written, "more acknowledged than written"
        kept = executing or role in (Role.CEDING, Role.CLAIMING) or self.is_copy(slot)
        coming = slot.incoming is not None or slot.handing is not None or self.is_known(slot)
        assert not slot.items or kept or coming, "items that are no copy"
        assert slot.strays is None or slot.strays.items, "strays that are none"


def mark_of(partition: int, right: Right) -> int:
    """What a right adds to the digest: a change of copies is its holder's and its copies' affair."""
    seed = (partition * 0x9E3779B97F4A7C15 ^ right.epoch) & 0xFFFFFFFFFFFFFFFF
    return xxh3_64_intdigest(right.holder.to_bytes(8, "little"), seed)
