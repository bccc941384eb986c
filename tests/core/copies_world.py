"""A small world of machines that keep copies: what is under way between them, what has been written, what must hold.

Nothing here is like a network but that messages of one pair arrive in order, or not at all, or twice. Whoever plays
with a world decides what happens next; the world asserts the laws after every step: the machines' own invariants, that
one node executes a partition, that an acknowledged write is on enough copies of the record; and, once it has been left
in peace (`rest`), that everything is where the ring wants it and that nothing is gone that was not reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from roost.core.book import Book
from roost.core.items import Item, Merge
from roost.core.rights import Collect, Drained, Heard, Rights, Ticked, Viewed, Wrote
from roost.core.tenure import (
    ACKS,
    EXECUTING,
    Acknowledged,
    PossibleLoss,
    Role,
    Send,
    Slot,
    Stop,
    Took,
    Write,
    majority,
)

HOLDS = (*EXECUTING, Role.CEDING)


@contextmanager
def transitions() -> Iterator[dict[tuple[Role, Role], None]]:
    """Notes all transitions that any machine takes."""
    taken: dict[tuple[Role, Role], None] = {}
    enter = Book.enter

    def noted(book: Book, slot: Slot, role: Role) -> None:
        taken[slot.role, role] = None
        enter(book, slot, role)

    with patch.object(Book, "enter", noted):
        yield taken


COUNTER = b"\xa6"
"""What the keys of counters begin with."""


def merged(key: bytes, low: bytes, high: bytes) -> bytes:
    """An own merge: counters grow; of anything else the newer."""
    return max(low, high) if key.startswith(COUNTER) else high


def survives(item: Item, found: Item) -> bool:
    """What is found has that write in it, or came after it."""
    if item.key.startswith(COUNTER):
        return (found.value or b"") >= (item.value or b"")
    return found.version >= item.version


@dataclass
class Unsure:
    """A write that has not been acknowledged yet."""

    uid: int
    partition: int
    number: int
    tenure: tuple[int, int]
    item: Item


@dataclass
class World:
    """Machines by uid, and everything between and around them."""

    write: Write = "majority"
    replicas: int = 2
    partitions: int = 1
    strict: bool = False
    chunk_bytes: int = 1 << 16
    rate_bytes: float = 0.0
    merge: Merge | None = None
    order: Callable[[int], tuple[int, ...]] | None = None
    """Which uids the ring prefers for a partition, best first."""
    nodes: dict[int, Rights] = field(default_factory=dict)
    wires: dict[tuple[int, int], list[Any]] = field(default_factory=dict)
    blind: dict[int, None] = field(default_factory=dict)
    """Those who have not seen the newest view."""
    draining: dict[tuple[int, int], None] = field(default_factory=dict)
    dead: tuple[int, ...] = ()
    hidden: dict[tuple[int, int], None] = field(default_factory=dict)
    """(who, whom): takes it for down, though it lives."""
    unsure: list[Unsure] = field(default_factory=list)
    acknowledged: dict[tuple[int, bytes], Item] = field(default_factory=dict)
    deleted: dict[tuple[int, bytes], Item] = field(default_factory=dict)
    """The newest delete of a key, acknowledged or not."""
    losses: list[PossibleLoss] = field(default_factory=list)
    losses_ever: int = 0
    crashes: int = 0
    """Since everything was last where it belongs."""
    apart: bool = False
    """Some take others for down who live: each side may have a holder."""
    misjudging: dict[int, None] = field(default_factory=dict)
    """Who has taken others for down since everything was last where it belongs."""
    torn: bool = False
    """One of those has died: what it did alone nobody can know."""
    replicas_least: int = 0
    """If the ring has had fewer copies since everything was last where it belongs."""
    count: int = 0
    now: float = 0.0
    last: tuple[int, int, Any] | None = None
    """(source, target, message) that was delivered last."""
    owned: dict[int, None] = field(default_factory=dict)
    """Nodes that are not shared with another world."""
    copier: Callable[[Rights], Rights] | None = None

    def join(self, uid: int) -> None:
        """A node comes; the others see it when they look."""
        self.nodes[uid] = Rights(
            uid,
            self.partitions,
            write=self.write,
            strict=self.strict,
            chunk_bytes=self.chunk_bytes,
            rate_bytes=self.rate_bytes,
            merge=self.merge,
        )
        self.owned[uid] = None
        self.blind = dict.fromkeys(self.nodes)
        self.look(uid)

    def owners(self, seen: list[int]) -> tuple[tuple[int, ...], ...]:
        """Of each partition whom the ring of these members names."""
        order = self.order
        preferred = (order(partition) if order is not None else tuple(seen) for partition in range(self.partitions))
        return tuple(tuple(uid for uid in uids if uid in seen)[: self.replicas] for uids in preferred)

    def look(self, uid: int) -> None:
        """A node sees the newest view."""
        self.blind.pop(uid, None)
        hidden = [other for who, other in self.hidden if who == uid and other in self.nodes]
        live = [other for other in sorted(self.nodes) if other not in hidden]
        gone = tuple(sorted((*self.dead, *hidden)))
        self.step(uid, Viewed(tuple(live), gone, tuple(live), self.owners(live), True, gone, tuple(hidden)))

    def hide(self, uid: int, other: int) -> None:
        """A node takes another for down that lives; nothing gets through between the two."""
        self.hidden[uid, other] = self.misjudging[uid] = None
        self.wires = {pair: messages for pair, messages in self.wires.items() if not self.is_cut(*pair)}
        self.apart = True
        self.blind[uid] = None

    def own(self, uid: int) -> Rights:
        """The node, to be changed."""
        if uid not in self.owned:
            assert self.copier is not None
            self.nodes[uid] = self.copier(self.nodes[uid])
            self.owned[uid] = None
        return self.nodes[uid]

    def step(self, uid: int, event: Any) -> None:
        """One machine takes an event in."""
        node = self.own(uid)
        took: list[int] = []
        for effect in node.step(event, self.now):
            if isinstance(effect, Send):
                if effect.uid in self.nodes and not self.is_cut(uid, effect.uid):
                    self.wires[uid, effect.uid] = [*self.wires.get((uid, effect.uid), ()), effect.message]
            elif isinstance(effect, Stop):
                self.draining[uid, effect.partition] = None
            elif isinstance(effect, Took):
                took.append(effect.partition)
            elif isinstance(effect, PossibleLoss):
                self.losses = [*self.losses, effect]
                self.losses_ever += 1
            elif isinstance(effect, Acknowledged):
                self._acknowledge(uid, effect.partition, effect.number)
        node.check()
        for partition in took:
            self._check_reads(uid, partition)
        self._forget_what_failed(uid)
        self._check_holders()

    def is_cut(self, source: int, target: int) -> bool:
        """One of the two takes the other for down."""
        return (source, target) in self.hidden or (target, source) in self.hidden

    def deliver(self, source: int, target: int) -> None:
        """The next message of a pair arrives."""
        message, *left = self.wires.pop((source, target))
        self.wires[source, target] = left
        self.last = (source, target, message)
        self.step(target, Heard(source, message))

    def repeat(self) -> None:
        """What was delivered last arrives once more."""
        assert self.last is not None
        source, target, message = self.last
        self.last = None
        if target in self.nodes:
            self.step(target, Heard(source, message))

    def drain(self, uid: int, partition: int) -> None:
        """The running command ends."""
        self.draining.pop((uid, partition))
        self.step(uid, Drained(partition))

    def crash(self, uid: int) -> None:
        """A node dies; the others see it when they look."""
        del self.nodes[uid]
        self.owned.pop(uid, None)
        self.crashes += 1
        self.torn = self.torn or uid in self.misjudging
        self.dead = (*self.dead, uid)
        self.draining = {each: None for each in self.draining if each[0] != uid}
        self.wires = {pair: messages for pair, messages in self.wires.items() if uid not in pair}
        self.unsure = [each for each in self.unsure if each.uid != uid]
        self.blind = dict.fromkeys(self.nodes)

    def executing(self, partition: int) -> list[int]:
        """Who executes commands."""
        return [uid for uid, node in self.nodes.items() if node.slots[partition].executes]

    def put(self, uid: int, partition: int = 0, key: bytes | None = None, value: bytes | None = b"x" * 40) -> None:
        """A command at the holder writes one key, a new one if none is given."""
        if key is None:
            self.count += 1
            key = b"\xa5%05d" % self.count
        self._check_reads(uid, partition)
        node = self.own(uid)
        slot = node.slots[partition]
        slot.items.write([(key, value)], int(self.now * 1000) << 16, uid)
        number = node.wrote(partition)
        item = slot.items.items.get(key)
        if item is not None:
            if value is None:
                self.deleted = {**self.deleted, (partition, key): item}
            self.unsure = [*self.unsure, Unsure(uid, partition, number, slot.right.tenure, item)]
        if slot.acked >= number:
            self._acknowledge(uid, partition, number)
        self.step(uid, Wrote((partition,)))

    def collect(self) -> None:
        """A round of collecting everywhere: what was there at the last one goes."""
        for uid in list(self.nodes):
            self.step(uid, Collect(tombstones=True))

    def tick(self, seconds: float = 0.5) -> None:
        """Time passes for all."""
        self.now += seconds
        for uid in list(self.nodes):
            self.step(uid, Ticked())

    def _acknowledge(self, uid: int, partition: int, number: int) -> None:
        slot = self.nodes[uid].slots[partition]
        known = dict(self.acknowledged)
        for each in self.unsure:
            if (each.uid, each.partition) != (uid, partition) or each.number > number:
                continue
            item = each.item
            if (partition, item.key) not in known or survives(known[partition, item.key], item):
                known[partition, item.key] = item
            if self.apart:
                continue
            record = slot.right.copies
            has = [other for other in record if other == uid or self._has(other, partition, item)]
            needed = ACKS[self.write](len(record))
            assert len(has) >= needed, f"{item.key!r} is acknowledged, and is only on {has} of {record}"
            wanted = self.nodes[uid].book.owners[partition]
            spread = [other for other in (*self.nodes, *self.dead) if other in has or self._has(other, partition, item)]
            needed = ACKS[self.write](max(len(record), len(wanted)))
            assert len(spread) >= needed, f"{item.key!r} is acknowledged, and is only on {spread}; wanted: {wanted}"
        self.acknowledged = known
        self.unsure = [
            each for each in self.unsure if (each.uid, each.partition) != (uid, partition) or each.number > number
        ]

    def _has(self, uid: int, partition: int, item: Item) -> bool:
        """A copy has it, or has had it: it is dead, or follows somebody else by now."""
        if uid not in self.nodes:
            return True
        slot = self.nodes[uid].slots[partition]
        sets = (slot.items, slot.strays) if slot.strays is not None else (slot.items,)
        found = [each.items[item.key] for each in sets if item.key in each.items]
        gone = self.deleted.get((partition, item.key))
        return any(survives(item, one) for one in found) or (not found and gone is not None and survives(item, gone))

    def _forget_what_failed(self, uid: int) -> None:
        """Who is no holder any more does not acknowledge what it wrote."""
        slots = self.nodes[uid].slots
        self.unsure = [
            each
            for each in self.unsure
            if each.uid != uid
            or (slots[each.partition].role in HOLDS and slots[each.partition].right.tenure == each.tenure)
        ]

    def _check_holders(self) -> None:
        if self.apart:
            return
        for partition in range(self.partitions):
            executing = [uid for uid, node in self.nodes.items() if node.slots[partition].role in EXECUTING]
            assert len(executing) <= 1, f"two holders of {partition}: {executing}"

    def busy(self) -> list[tuple[int, int]]:
        """Pairs with something under way, the one that has waited longest first."""
        return [pair for pair, messages in self.wires.items() if messages]

    def under_way(self, kind: type) -> list[tuple[int, int]]:
        """Pairs with a message of that kind under way."""
        return [pair for pair, sent in self.wires.items() if any(isinstance(message, kind) for message in sent)]

    def until(self, kind: type) -> Any:
        """Go on in the plain order until a message of that kind is the next of its pair; returns it, undelivered."""
        for _ in range(1000):
            for pair, messages in self.wires.items():
                if messages and isinstance(messages[0], kind):
                    self.wires = {pair: messages, **self.wires}
                    return messages[0]
            if not self.plain_step():
                self.tick()
        raise AssertionError(f"no {kind.__name__} is ever sent")

    def plain_step(self) -> bool:
        """The next thing that happens if nothing bad does; False: only time could bring something about."""
        if self.blind:
            self.look(next(iter(self.blind)))
        elif self.draining:
            self.drain(*next(iter(self.draining)))
        elif busy := self.busy():
            self.deliver(*busy[0])
        else:
            return False
        return True

    def quiet(self) -> None:
        """Go on until only time brings anything about."""
        for _ in range(200_000):
            if not self.plain_step():
                return
        raise AssertionError("they do not stop talking")

    def rest(self, seconds: float = 40.0) -> None:
        """Leave the world in peace, and see that everything is where it belongs."""
        until = self.now + seconds
        self.last = None
        while True:
            self.quiet()
            wrong = self.wrong()
            if not wrong or self.now >= until:
                break
            self.tick()
        assert not wrong, wrong
        self.check_nothing_is_lost()

    def wrong(self) -> str:
        """What is not as the ring wants it; empty: nothing."""
        wanted = self.owners(sorted(self.nodes))
        for partition, owners in enumerate(wanted):
            roles = {uid: node.slots[partition].role.value for uid, node in self.nodes.items()}
            executing = self.executing(partition)
            if executing != [owners[0]]:
                return f"{executing} execute {partition}, and should {owners}: {roles}"
            holder = self.nodes[owners[0]].slots[partition]
            if set(holder.right.copies) != set(owners) or holder.pending is not None:
                return f"the copies are {holder.right.copies} and should be {owners}"
            if holder.acked != holder.written or holder.thanks or holder.refused_at:
                return f"{holder.acked} of {holder.written} writes are acknowledged"
            for uid, node in self.nodes.items():
                slot = node.slots[partition]
                if slot.strays is not None or slot.handing is not None:
                    return f"{uid} still has strays"
                if uid in owners and slot.items.digest != holder.items.digest:
                    return f"the copy at {uid} differs"
                if uid not in owners and (slot.items or slot.incoming is not None):
                    return f"{uid} still has items"
        return ""

    def _check_reads(self, uid: int, partition: int) -> None:
        """Whoever executes has every acknowledged write."""
        missing = self._missing(uid, partition)
        assert not missing or self.losses or self.apart, f"{uid} executes without {missing}"

    def _missing(self, uid: int, partition: int) -> list[bytes]:
        items = self.nodes[uid].slots[partition].items.items
        missing = []
        for (where, key), item in self.acknowledged.items():
            if where != partition:
                continue
            gone, found = self.deleted.get((partition, key)), items.get(key)
            if not (survives(item, found) if found is not None else gone is not None and survives(item, gone)):
                missing.append(key)
        return missing

    def check_nothing_is_lost(self) -> None:
        """To be asked at rest."""
        wanted = self.owners(sorted(self.nodes))
        lost = [key for partition, owners in enumerate(wanted) for key in self._missing(owners[0], partition)]
        assert not lost or self.losses or self.torn, f"lost without a word: {lost}"
        count = self.replicas_least or self.replicas
        enough = 1 if self.apart else ACKS[self.write](count)
        assert not lost or self.crashes >= enough, f"lost with {self.crashes} crashes: {lost}"
        alarming = min(ACKS[self.write](count), majority(count))
        assert not self.losses or self.crashes >= alarming or self.apart, f"a false alarm: {self.losses}"

    def repaired(self) -> None:
        """From here on crashes count anew."""
        self.rest()
        self.crashes = self.replicas_least = 0
        self.apart = self.torn = False
        self.misjudging = {}
        if self.losses:
            self.losses = []
            self.acknowledged = {}
