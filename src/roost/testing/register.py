"""The register: one value that is read, written, removed and replaced, and what makes its histories easy to check.

The checks that are long are those of many writes, and of writes of unknown outcome most of all. Most of both can be
left out, or given an end, wherever a value is *unique*: written by one call only, and not the initial one. Then

- who observed the value (a `get` that returned it, an `update` that was given it) came after that write. A write of
  unknown outcome whose value was observed did take effect, before the first observer returned: that is its end.
- the value is not left before all of its observers have been, since it never comes back. After them it is *spent*:
  nobody can tell it from any other value that nobody reads.
- a write whose value nobody observed does nothing but replace what was there. If its outcome is unknown, then it is
  needed at most to make an absent value present, and not even for that unless some call found just any value present.

So a history in which all values are unique has no unknown writes left but a few that are all alike. Where a value is
not unique its calls stay as they are, which is slower and as exact. This is the idea by which registers whose every
value is written once are checked in polynomial time: P. Gibbons and E. Korach, "Testing Shared Memories", SIAM Journal
on Computing 26(4), 1997, the sections on linearizability with a read-mapping.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, final

from roost.testing.histories import UNKNOWN, Call
from roost.testing.models import IMPOSSIBLE, Reduction

__all__ = ["Register"]


class _Spent(enum.Enum):
    SPENT = "some value that nobody reads"

    def __repr__(self) -> str:
        return self.name


SPENT: Final = _Spent.SPENT
RESULTS: Final = {"put": None, "put_if_absent": True}
"""What writes return that took effect; an `update` returns its value."""


@final
@dataclass(frozen=True)
class Register:
    """`get`, `put`, `delete`, `put_if_absent` and `update` of one key, as `RecordedKV` records them; None is absence.

    The argument of an `update` is the pair of the value that it replaced and its own; None if it did nothing.
    """

    initial: Hashable = None

    def apply(self, state: Any, operation: str, argument: Any, result: Any) -> Hashable:
        match operation:
            case "get":
                return state if result == state else IMPOSSIBLE
            case "put":
                return argument  # type: ignore[no-any-return]
            case "delete":
                return None if result is UNKNOWN or result == (state is not None) else IMPOSSIBLE
            case "put_if_absent":
                if result is UNKNOWN:
                    return argument if state is None else IMPOSSIBLE
                return (argument if result else state) if result == (state is None) else IMPOSSIBLE
            case "update":
                if argument is None or argument[0] != state or (result is not UNKNOWN and result != argument[1]):
                    return IMPOSSIBLE
                return argument[1]  # type: ignore[no-any-return]
            case _:
                raise ValueError(f"a register has no operation {operation!r}")

    def reduced(self, calls: Sequence[Call]) -> Reduction:
        """See the module; exact."""
        return _Reducer(self.initial, calls).reduction()


def _written(call: Call) -> Hashable:
    """The value that this call may have stored; None if it stored none."""
    if call.operation == "put" or (call.operation == "put_if_absent" and call.result is not False):
        return call.argument  # type: ignore[no-any-return]
    if call.operation == "update" and call.argument is not None:
        return call.argument[1]  # type: ignore[no-any-return]
    return None


def _observed(call: Call) -> Hashable:
    """The value that this call found, if it took effect; None if it found none, or does not say which."""
    if call.operation == "get" and call.result is not UNKNOWN:
        return call.result  # type: ignore[no-any-return]
    if call.operation == "update" and call.argument is not None:
        return call.argument[0]  # type: ignore[no-any-return]
    return None


def _finds_any(call: Call) -> bool:
    """Did this call find some value, no matter which?"""
    return (call.operation, call.result) in (("delete", True), ("put_if_absent", False))


def _finds_none(call: Call) -> bool:
    """Did this call find that there is no value, or does it nothing unless there is none?"""
    match call.operation:
        case "get":
            return call.result is None
        case "delete":
            return call.result is False
        case "put_if_absent":
            return call.result is not False
        case "update":
            return call.argument is not None and call.argument[0] is None
        case _:
            return False


def _reads(call: Call) -> bool:
    """Did this call, whose result is known, leave everything as it was?"""
    return call.operation == "get" or (call.operation in ("delete", "put_if_absent") and call.result is False)


def _idle(call: Call) -> bool:
    """Would this call, whose result is unknown, change nothing?"""
    return call.operation == "get" or (call.operation == "update" and call.argument is None)


class _Reducer:
    """The calls of one key: the `certain` ones took effect, those in `doubt` may have. These are our copies."""

    def __init__(self, initial: Hashable, calls: Sequence[Call]) -> None:
        writes = Counter(_written(call) for call in calls)
        writes[initial] += 1
        self.unique = {value for value, count in writes.items() if count == 1 and value is not None}
        self.certain = [call for call in calls if call.result is not UNKNOWN]
        self.doubt = [replace(call) for call in calls if call.result is UNKNOWN and not _idle(call)]
        self.observers: dict[Hashable, list[Call]] = {value: [] for value in self.unique}
        for call in self.certain:
            if (value := _observed(call)) in self.unique:
                self.observers[value].append(call)

    def reduction(self) -> Reduction:
        self.settle_observed_writes()
        anyhow = any(_finds_any(call) for call in self.certain)
        unread, kept = self.part_unread_writes()
        if not any(_finds_none(call) for call in (*self.certain, *kept)):
            kept = [call for call in kept if call.operation != "delete"]
        if anyhow:  # that some value was there may be due to one that nobody read
            kept += [
                replace(call, operation="put_if_absent", argument=SPENT)
                for call in unread
                if call.operation != "update" or _finds_none(call)
            ]
        exact = self.unique.difference(_observed(call) for call in kept)
        calls, calm = list(kept), set[Call]()
        for call in self.certain:
            replaces = call.operation == "put" and call.argument in exact and not self.observers[call.argument]
            step = replace(call, argument=SPENT) if replaces else call
            calls.append(step)
            if _reads(call) or (replaces and not anyhow):
                calm.add(step)
        return Reduction(calls, calm, {value: self.observers[value] for value in exact}, SPENT)

    def settle_observed_writes(self) -> None:
        """Let writes in doubt end with the first observer of their value. That may make observers of them, in turn."""
        writers = {value: call for call in self.doubt if (value := _written(call)) in self.unique}
        todo = [value for value in writers if self.observers[value]]
        while todo:
            value = todo.pop()
            writer = writers[value]
            end = min(call.ended for call in (*self.observers[value], writer) if call.ended is not None)
            if writer.began > end or (writer.ended == end and writer.result is not UNKNOWN):
                continue
            given = _observed(writer)
            if given in self.unique and writer.result is UNKNOWN:
                self.observers[given].append(writer)
            writer.ended, writer.result = end, RESULTS.get(writer.operation, value)
            if given in writers:
                todo.append(given)
        self.certain += [call for call in self.doubt if call.result is not UNKNOWN]
        self.doubt = [call for call in self.doubt if call.result is UNKNOWN]

    def part_unread_writes(self) -> tuple[list[Call], list[Call]]:
        """The writes in doubt whose value nobody can have observed, and the other calls in doubt."""
        unread, kept = self.doubt, list[Call]()
        found: set[Hashable] = set()
        while True:
            others = [call for call in unread if not self.is_unread(_written(call), found)]
            if not others:
                return unread, kept
            kept += others
            unread = [call for call in unread if self.is_unread(_written(call), found)]
            found.update(_observed(call) for call in others)

    def is_unread(self, value: Hashable, found: set[Hashable]) -> bool:
        return value in self.unique and not self.observers[value] and value not in found
