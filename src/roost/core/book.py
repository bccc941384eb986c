"""All partitions of one service on one node: the state that everybody who thinks about rights shares.

Copying (`copies.py`, `transfer.py`, `receiving.py`), moves (`cutover.py`), claims (`claims.py`) and healing
(`healing.py`) change it, and `rights.py` drives them: the slots with their roles, the view that they are judged by, and
the effects of the present step. What more than one of them does is here: to hold a partition, to let go of it, to
learn of a greater right.

Invariants: `check_slot`. See `tenure.py` for what the parts mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from xxhash import xxh3_64_intdigest

from roost.core.items import ItemSet, Merge
from roost.core.tenure import (
    ACKS,
    EXECUTING,
    NO_RIGHT,
    RESTING,
    TRANSITIONS,
    Changed,
    Effect,
    GivenUp,
    Held,
    Right,
    Role,
    Send,
    Slot,
    Took,
    Write,
)

if TYPE_CHECKING:
    from roost.core.claims import Claim

__all__ = ["Book"]


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
        unsafe = False
        if slot.strays is not None:
            unsafe = bool(slot.items.merge_items(slot.strays.items.values(), uid=self.me))
            slot.strays = None
        slot.incoming = slot.cut = slot.handing = slot.pending = None
        slot.stopped = False
        slot.paused = not self.acts
        slot.refused_at = 0.0
        slot.written = 1
        slot.acked = int(source != 0 and not unsafe)
        slot.settled_until = 0
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
        if right.holder == self.me and slot.role in (*EXECUTING, Role.CEDING):
            return  # a change of copies of our own, which comes back before it holds
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
        assert slot.incoming is None or role in RESTING, f"followed while {role}"
        assert slot.handing is None or role in RESTING, f"handing over while {role}"
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
