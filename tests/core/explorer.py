"""Every order of events in a small world of one partition: links that break, messages that come twice, nodes that die.

From each state every possible action is tried: deliver the next message of a pair, deliver the last one again, lose all
that is under way between a pair, let a node see the newest view, end a drain, write at the holder, let time pass, let
the ring change, crash a node. States that are equal are visited once. The world asserts its laws after every action,
and every so many states, and all at the edge, are left in peace, and must come to rest with nothing lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import Enum
from typing import Any

import msgspec

from roost.core.items import Item, ItemSet
from roost.core.rights import Rights, Ticked
from roost.core.tenure import Right
from tests.core.copies_world import World

ATOMS = (int, float, str, bytes, bool, type(None), Right, Item)
HIDDEN = ("owned", "copier", "merge", "order", "now", "nodes", "touched", "effects", "last", "wires")
Action = tuple[str, int, int]
_names: dict[type, tuple[str, ...]] = {}


def names_of(kind: type, thing: Any) -> tuple[str, ...]:
    """The names of all that a thing consists of; of what never changes, none."""
    if issubclass(kind, Enum) or callable(thing):
        return ()
    if isinstance(thing, msgspec.Struct):
        return thing.__struct_fields__
    if is_dataclass(thing):
        return tuple(one.name for one in fields(thing))
    return ItemSet.__slots__ if isinstance(thing, ItemSet) else tuple(vars(thing))


def cloned(thing: Any) -> Any:
    """A copy that shares what never changes."""
    kind = type(thing)
    if kind in ATOMS or issubclass(kind, tuple | msgspec.Struct):
        return thing
    if kind is dict:
        return {key: cloned(value) for key, value in thing.items()}
    if kind is list or kind is deque:
        return kind(map(cloned, thing))
    names = _names.get(kind)
    if names is None:
        names = _names[kind] = names_of(kind, thing)
    if not names:
        return thing
    copy = object.__new__(kind)
    for name in names:
        setattr(copy, name, cloned(getattr(thing, name)))
    if kind is Rights:
        copy.slots = copy.book.slots
    return copy


def print_of(thing: Any) -> Any:
    """Equal for equal states."""
    kind = type(thing)
    if kind in ATOMS:
        return thing
    if issubclass(kind, tuple) or kind is list or kind is deque:
        return tuple([print_of(each) for each in thing])
    if kind is dict:
        return tuple([(key, print_of(value)) for key, value in thing.items()])
    if kind is ItemSet:
        return (thing.digest, print_of(thing.changed), thing.collected_until)
    names = _names.get(kind)
    if names is None:
        names = _names[kind] = names_of(kind, thing)
    if not names:
        return thing
    return (kind, *[print_of(getattr(thing, name)) for name in names if name not in HIDDEN])


@dataclass
class Small(World):
    """A world in which only so much may happen."""

    ticks: int = 0
    breaks: int = 0
    repeats: int = 0
    deaths: int = 0
    writes: int = 0
    turns: tuple[tuple[int, ...], ...] = ()
    """What the ring will prefer after the present order."""
    preferred: tuple[int, ...] = ()
    prints: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.copier = cloned
        self.order = self._preferred

    def _preferred(self, partition: int) -> tuple[int, ...]:
        return self.preferred

    def copy(self) -> Small:
        """A world that goes on by itself."""
        twin = replace(self, owned={}, prints=dict(self.prints))
        twin.nodes, twin.wires = dict(self.nodes), dict(self.wires)
        twin.blind, twin.draining = dict(self.blind), dict(self.draining)
        self.owned = {}
        return twin

    def own(self, uid: int) -> Rights:
        self.prints.pop(uid, None)
        return super().own(uid)

    def print(self) -> int:
        """The same number for equal states."""
        for uid, node in self.nodes.items():
            if uid not in self.prints:
                self.prints[uid] = hash(print_of(node))
        wires = [(pair, print_of(self.wires[pair])) for pair in sorted(self.wires) if self.wires[pair]]
        last = print_of(self.last) if self.repeats else None
        nodes = tuple((uid, self.prints[uid]) for uid in self.nodes)
        rest = print_of([getattr(self, one.name) for one in fields(self) if one.name not in (*HIDDEN, "prints")])
        return hash((nodes, tuple(wires), last, rest))

    def turn(self, preferred: tuple[int, ...], replicas: int | None = None) -> None:
        """The ring changes."""
        self.preferred = preferred
        self.replicas_least = min(self.replicas, replicas or self.replicas)
        self.replicas = replicas or self.replicas
        self.blind = dict.fromkeys(self.nodes)

    def actions(self) -> Iterator[Action]:
        for source, target in self.busy():
            yield ("deliver", source, target)
            if self.breaks:
                yield ("break", source, target)
        for uid in self.nodes:
            if uid in self.blind:
                yield ("view", uid, 0)
            if (uid, 0) in self.draining:
                yield ("drain", uid, 0)
            if self.ticks:
                yield ("tick", uid, 0)
            if self.writes and self.nodes[uid].slots[0].executes:
                yield ("write", uid, 0)
            if self.deaths and len(self.nodes) > 1:
                yield ("crash", uid, 0)
        if self.repeats and self.last is not None:
            yield ("repeat", 0, 0)
        if self.turns:
            yield ("turn", 0, 0)

    def act(self, what: str, uid: int, target: int) -> None:
        """One of those actions."""
        if what == "deliver":
            self.deliver(uid, target)
        elif what == "break":
            self.breaks -= 1
            self.wires[uid, target] = []
        elif what == "view":
            self.look(uid)
        elif what == "drain":
            self.drain(uid, 0)
        elif what == "tick":
            self.ticks -= 1
            self.now += 1.0
            self.step(uid, Ticked())
        elif what == "write":
            self.writes -= 1
            self.put(uid)
        elif what == "repeat":
            self.repeats -= 1
            self.repeat()
        elif what == "turn":
            turn, *later = self.turns
            self.turns = tuple(later)
            self.turn(turn)
        else:
            self.deaths -= 1
            self.crash(uid)

    def come_to_rest(self) -> None:
        """Nothing bad happens any more; the ring is what it is in the end."""
        if self.turns:
            self.turn(self.turns[-1])
            self.turns = ()
        self.rest()


def small(count: int, *, replicas: int, write: str = "majority", items: int = 2, **others: Any) -> Small:
    """So many nodes at rest, of which the first holds the partition with some items."""
    world = Small(write=write, replicas=replicas, **others)  # type: ignore[arg-type]
    world.preferred = tuple(range(1, count + 1))
    for uid in range(1, count + 1):
        world.join(uid)
    world.rest()
    for _ in range(items):
        world.put(1)
    world.rest()
    return world


def met(*, replicas: int, write: str = "one") -> Small:
    """Two nodes that each took the other for down, wrote, and see each other again."""
    world = small(2, replicas=replicas, write=write)
    world.apart = True
    world.hidden = {(1, 2): None, (2, 1): None}
    for uid in (1, 2):
        world.look(uid)
    world.quiet()
    for _ in range(6):
        world.tick()
        world.quiet()
    for uid in (1, 2):
        assert world.nodes[uid].slots[0].executes, "each side has a holder"
        world.put(uid)
    world.hidden = {}
    world.blind = dict.fromkeys(world.nodes)
    return world


def explore(world: Small, *, depth: int, rest_every: int = 7, states_max: int = 1 << 30) -> int:
    """Visit all states up to `depth` actions away; returns how many there are."""
    layer: dict[int, tuple[Small, tuple[Action, ...]]] = {world.print(): (world, ())}
    seen = set(layer)
    for level in range(depth + 1):
        following: dict[int, tuple[Small, tuple[Action, ...]]] = {}
        for number, (state, path) in enumerate(layer.values()):
            path_on = path
            try:
                actions = list(state.actions()) if level < depth and len(seen) < states_max else []
                if not actions or number % rest_every == 0:
                    state.copy().come_to_rest()
                for action in actions:
                    path_on = (*path, action)
                    after = state.copy()
                    after.act(*action)
                    print_after = after.print()
                    if print_after not in seen:
                        seen.add(print_after)
                        following[print_after] = (after, path_on)
            except (AssertionError, KeyError) as error:
                raise AssertionError(f"{error!r}\nafter {path_on}") from error
        layer = following
    return len(seen)
