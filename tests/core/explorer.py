"""Every order of events in a small world: a few machines of rights, one partition, links that break, nodes that die.

A state is the machines, the messages under way (in order for each pair, at most once) and what the world remembers.
From each state every possible action is tried: deliver the next message of a pair, lose all that is under way between
a pair, let a node see the newest view, end a drain, write, let time pass, crash a node. States that are equal are
visited once. After every action the invariants are asserted, and from every state at the edge the world is left in
peace, and must come to rest with one holder and nothing lost that was not reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from typing import Any

import msgspec

from roost.core.items import ItemSet
from roost.core.rights import Drained, Heard, Rights, Ticked, Viewed
from roost.core.tenure import EXECUTING, Book, PossibleLoss, Role, Send, Stop

SHARED = (int, float, str, bytes, bool, type(None), tuple, Enum, msgspec.Struct)


def cloned(thing: Any) -> Any:
    """A copy that shares what never changes."""
    if isinstance(thing, SHARED) or callable(thing):
        return thing
    if isinstance(thing, dict):
        return {key: cloned(value) for key, value in thing.items()}
    if isinstance(thing, list):
        return [cloned(value) for value in thing]
    copy = object.__new__(type(thing))
    for name in names_of(thing):
        setattr(copy, name, cloned(getattr(thing, name)))
    if isinstance(copy, Rights):
        copy.slots = copy.book.slots
    return copy


def names_of(thing: Any) -> list[str]:
    if isinstance(thing, ItemSet):
        return list(ItemSet.__slots__)
    return [one.name for one in fields(thing)] if is_dataclass(thing) else list(vars(thing))


def print_of(thing: Any) -> Any:
    """Equal for equal states. Moments in time are left out: they follow from the number of ticks."""
    if isinstance(thing, msgspec.Struct):
        return (type(thing).__name__, *(print_of(getattr(thing, name)) for name in thing.__struct_fields__))
    if isinstance(thing, dict):
        return tuple((key, print_of(value)) for key, value in thing.items())
    if isinstance(thing, list | tuple):
        return tuple(print_of(value) for value in thing)
    if isinstance(thing, ItemSet):
        return (thing.digest, print_of(thing.changed))
    if isinstance(thing, Rights):
        return print_of(thing.book)
    if isinstance(thing, Book):
        return (*thing.live, 0, *thing.hosts, *thing.primaries, print_of(thing.slots), *thing.waiting)
    if is_dataclass(thing):
        hidden = ("since", "resend_at", "drain_until", "retry_at", "move", "pending")
        return tuple(print_of(getattr(thing, one.name)) for one in fields(thing) if one.name not in hidden)
    return thing


@dataclass
class World:
    """Machines by uid; what is under way; what is still allowed to happen."""

    nodes: dict[int, Rights]
    primary: int
    ticks: int = 0
    breaks: int = 0
    crashes: int = 0
    writes: int = 0
    turns: list[int] = field(default_factory=list)
    """Primaries that the ring will name after the present one."""
    wires: dict[tuple[int, int], list[Any]] = field(default_factory=dict)
    blind: dict[int, None] = field(default_factory=dict)
    """Those who have not seen the newest view."""
    draining: dict[int, None] = field(default_factory=dict)
    written: dict[bytes, None] = field(default_factory=dict)
    reported: bool = False
    """A possible loss."""
    apart: bool = False
    """Two sides have just met, and each may have a holder until they rest."""
    executed: dict[int, None] = field(default_factory=dict)
    crashed: int = 0
    last_order: tuple[int, int] = (0, 0)
    now: float = 0.0

    def print(self) -> Any:
        return tuple(print_of(getattr(self, one.name)) for one in fields(self) if one.name != "now")

    def actions(self) -> Iterator[tuple[str, int, int]]:
        for (source, target), messages in self.wires.items():
            if messages:
                yield ("deliver", source, target)
                if self.breaks:
                    yield ("break", source, target)
        for uid in self.nodes:
            if uid in self.blind:
                yield ("view", uid, 0)
            if uid in self.draining:
                yield ("drain", uid, 0)
            if self.ticks:
                yield ("tick", uid, 0)
            if self.writes and self.nodes[uid].slots[0].executes:
                yield ("write", uid, 0)
            if self.crashes and len(self.nodes) > 1:
                yield ("crash", uid, 0)
        if self.turns:
            yield ("turn", 0, 0)

    def act(self, what: str, uid: int, target: int) -> None:
        if what == "deliver":
            self.step(target, Heard(uid, self.wires[uid, target].pop(0)))
        elif what == "break":
            self.breaks -= 1
            self.wires[uid, target].clear()
        elif what == "view":
            del self.blind[uid]
            self.step(uid, self.view())
        elif what == "drain":
            del self.draining[uid]
            self.step(uid, Drained(0))
        elif what == "tick":
            self.ticks -= 1
            self.now += 1.0
            self.step(uid, Ticked())
        elif what == "write":
            self.write(uid)
        elif what == "turn":
            self.primary = self.turns.pop(0)
            self.blind = dict.fromkeys(self.nodes)
        else:
            self.crash(uid)
        self.check()

    def executing(self) -> list[int]:
        return [uid for uid, node in self.nodes.items() if node.slots[0].executes]

    def view(self) -> Viewed:
        live = tuple(sorted(self.nodes))
        gone = (self.crashed,) if self.crashed else ()
        return Viewed(live, gone, live, (self.primary,), True)

    def step(self, uid: int, event: Any) -> None:
        for effect in self.nodes[uid].step(event, self.now):
            if isinstance(effect, Send):
                if effect.uid in self.nodes:
                    self.wires.setdefault((uid, effect.uid), []).append(effect.message)
            elif isinstance(effect, Stop):
                self.draining[uid] = None
            elif isinstance(effect, PossibleLoss):
                self.reported = True

    def write(self, uid: int) -> None:
        self.writes -= 1
        slot = self.nodes[uid].slots[0]
        assert self.apart or slot.right.order >= self.last_order, "a write under a right that has been superseded"
        self.last_order = slot.right.order
        missing = [key for key in self.written if slot.items.get(key) is None]
        assert self.apart or not missing or self.crashed in self.executed, f"executes without {missing}"
        key = b"w%d" % len(self.written)
        self.written[key] = None
        slot.items.write([(key, b"x" * 40)], 1, uid)

    def crash(self, uid: int) -> None:
        self.crashes -= 1
        self.crashed = uid
        del self.nodes[uid]
        self.draining.pop(uid, None)
        self.wires = {pair: messages for pair, messages in self.wires.items() if uid not in pair}
        if self.primary == uid:
            self.primary = max(self.nodes)
        self.turns = [turn for turn in self.turns if turn != uid]
        self.blind = dict.fromkeys(self.nodes)

    def check(self) -> None:
        for node in self.nodes.values():
            node.check()
        executing = [uid for uid, node in self.nodes.items() if node.slots[0].role in EXECUTING]
        assert self.apart or len(executing) <= 1, f"two holders: {executing}"
        self.executed.update(dict.fromkeys(executing))

    def come_to_rest(self) -> None:
        """Nothing bad happens any more: the promise of progress."""
        while self.turns:
            self.act("turn", 0, 0)
        before = self.executing()
        for _ in range(40):
            self.now += 0.5
            for uid in list(self.nodes):
                if uid in self.blind:
                    self.act("view", uid, 0)
                self.step(uid, Ticked())
            while busy := [pair for pair, messages in self.wires.items() if messages]:
                self.act("deliver", *busy[0])
                for uid in self.executing():
                    if uid not in before:
                        before.append(uid)
                        self.writes += 1
                        self.write(uid)
                for uid in list(self.draining):
                    self.act("drain", uid, 0)
            if self.now > 4 and self.rests():
                break
        assert self.rests(), "no rest: " + repr({uid: node.slots[0].role for uid, node in self.nodes.items()})
        holder = self.nodes[self.primary].slots[0]
        missing = [key for key in self.written if holder.items.get(key) is None]
        assert not missing or (self.reported and self.crashed), f"lost without a word: {missing}"
        assert not missing or self.crashed in self.executed, f"lost by one that never held: {missing}"
        assert self.crashed or self.apart or not self.reported, "a loss reported though nobody died"

    def rests(self) -> bool:
        for uid, node in self.nodes.items():
            slot = node.slots[0]
            wanted = Role.HOLDING if uid == self.primary else Role.ABSENT
            if slot.role is not wanted or (slot.items and wanted is Role.ABSENT) or slot.handing or slot.incoming:
                return False
        return True


def world_of(count: int, *, holder: int, primary: int, chunk_bytes: int = 1 << 16, items: int = 2) -> World:
    """`holder` (0: nobody) holds the partition with some items, all agree, and now the ring says `primary`."""
    world = World({uid: Rights(uid, 1, chunk_bytes=chunk_bytes) for uid in range(1, count + 1)}, holder)
    if holder:
        world.blind = dict.fromkeys(world.nodes)
        world.come_to_rest()  # and the new holder has written once
        world.writes = items - 1
        for _ in range(items - 1):
            world.write(holder)
    world.primary = primary
    world.blind = dict.fromkeys(world.nodes)
    return world


def two_worlds_met(*, primary: int, writes: int = 2) -> World:
    """Two nodes that each formed alone, wrote, and now see each other."""
    world = World({uid: Rights(uid, 1) for uid in (1, 2)}, primary, apart=True)
    for uid in (1, 2):
        world.step(uid, Viewed((uid,), (), (uid,), (uid,), True))
    for uid in (1, 2):
        world.writes = writes
        for _ in range(writes):
            world.write(uid)
    world.check()
    world.blind = dict.fromkeys(world.nodes)
    return world


def explore(world: World, *, depth: int, rest_every: int = 1) -> int:
    """Visit all states up to `depth` actions away; returns how many there are."""
    layer: dict[Any, tuple[World, tuple[Any, ...]]] = {world.print(): (world, ())}
    seen = set(layer)
    for level in range(depth + 1):
        following: dict[Any, tuple[World, tuple[Any, ...]]] = {}
        for number, (state, path) in enumerate(layer.values()):
            path_on = path
            try:
                actions = list(state.actions())
                if not actions or level == depth or number % rest_every == 0:
                    cloned(state).come_to_rest()
                if level == depth:
                    continue
                for action in actions:
                    path_on = (*path, action)
                    after: World = cloned(state)
                    after.act(*action)
                    print_after = after.print()
                    if print_after not in seen:
                        seen.add(print_after)
                        following[print_after] = (after, path_on)
            except AssertionError as error:
                raise AssertionError(f"{error}\nafter {path_on}") from error
        layer = following
    return len(seen)
