"""What concurrent clients asked of a store and what they got, in the order in which it happened.

    history = roost.testing.History()
    ann = roost.testing.RecordedKV(sessions, history, "ann")
    bob = roost.testing.RecordedKV(sessions_elsewhere, history, "bob")
    ...
    roost.testing.check_linearizable(history)

Every begin and every end is a moment. Moments are numbered by one counter and not by a clock, so that "this call had
ended when that one began" is a fact and no measurement. All clients live in one process, on one loop.

A call that failed without having run is no part of a history. A call whose outcome nobody knows stays open: it may
take effect at any moment after its begin, or never. So does a call that is still running.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from roost.errors import Overloaded, RoostError

__all__ = ["UNKNOWN", "Call", "History", "RecordedKV", "Store"]

CALLS_MAX = 100_000

K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R")
K_contra = TypeVar("K_contra", contravariant=True)


class _Unknown(enum.Enum):
    UNKNOWN = "outcome unknown"

    def __repr__(self) -> str:
        return self.name


UNKNOWN: Final = _Unknown.UNKNOWN
"""The result of a call of which nobody knows whether it took, or will take effect; until it ended, if it has an end."""


@dataclass(slots=True, eq=False)
class Call:
    """One operation of one client on one key. `argument` may be set until it ends, if it is not known before."""

    client: Hashable
    key: Hashable
    operation: str
    argument: Any
    began: int
    ended: int | None = None
    result: Any = UNKNOWN

    def __repr__(self) -> str:
        given = "" if self.argument is None else f"{self.argument!r:.60}"
        outcome = UNKNOWN.value if self.result is UNKNOWN else f"{self.result!r:.60}"
        return f"{self.client}: {self.operation}({given}) -> {outcome}"


class History:
    """The calls of any number of clients on any number of keys, at most `calls_max` of them."""

    def __init__(self, *, calls_max: int = CALLS_MAX) -> None:
        self._calls_max = calls_max
        self._calls: dict[int, Call] = {}
        self._running: set[int] = set()
        self._moment = 0

    def __repr__(self) -> str:
        known = sum(call.ended is not None for call in self._calls.values())
        return f"<History: {known} calls that ended, {len(self._calls) - known} that did not>"

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def calls(self) -> list[Call]:
        """In the order in which they began."""
        return list(self._calls.values())

    def begin(self, client: Hashable, key: Hashable, operation: str, argument: Any = None) -> Call:
        """A client is about to call. Overloaded once there are `calls_max`: what is forgotten cannot be checked."""
        if len(self._calls) >= self._calls_max:
            text = f"the history has its {self._calls_max} calls: check it and begin another one, or raise calls_max"
            raise Overloaded(text, what="calls_max", limit=self._calls_max)
        self._moment += 1
        call = self._calls[self._moment] = Call(client, key, operation, argument, self._moment)
        self._running.add(call.began)
        return call

    def end(self, call: Call, result: Any = None) -> None:
        """The call returned this."""
        self._stop(call)
        self._moment += 1
        call.ended = self._moment
        call.result = result

    def fail(self, call: Call, *, may_have_run: bool) -> None:
        """The call raised. If it may have run, it stays open for ever; else it is forgotten."""
        self._stop(call)
        if not may_have_run:
            del self._calls[call.began]

    def _stop(self, call: Call) -> None:
        if self._calls.get(call.began) is not call or call.began not in self._running:
            raise ValueError(f"{call!r} has ended already, or is another history's")
        self._running.remove(call.began)


class Store(Protocol[K_contra, V]):
    """What is recorded: `roost.KV` is one, and so is a test's own."""

    def get(self, key: K_contra, /) -> Awaitable[V | None]: ...
    def put(self, key: K_contra, value: V, /) -> Awaitable[object]: ...
    def delete(self, key: K_contra, /) -> Awaitable[bool]: ...
    def put_if_absent(self, key: K_contra, value: V, /) -> Awaitable[bool]: ...
    def update(self, key: K_contra, function: Callable[[V | None], V], /) -> Awaitable[V]: ...


class RecordedKV(Generic[K, V]):
    """A key/value store as one client uses it; what it does is recorded, and what it raises is raised.

    A RoostError says itself whether the call may have run; after any other exception, cancellation among them, nobody
    knows. A value is compared with ==, as it was when it was recorded: if it cannot be hashed, then by the text of its
    parts. None means that there is no value, so do not store None. Values that differ from each other make a history
    that convicts more and is checked faster.
    """

    def __init__(self, store: Store[K, V], history: History, client: Hashable) -> None:
        self._store = store
        self._history = history
        self._client = client

    def __repr__(self) -> str:
        return f"<RecordedKV of {self._client}: {self._store!r}>"

    async def get(self, key: K) -> V | None:
        return await self._record(self._begin(key, "get"), self._store.get(key))

    async def put(self, key: K, value: V) -> None:
        await self._record(self._begin(key, "put", _frozen(value)), self._store.put(key, value))

    async def delete(self, key: K) -> bool:
        return await self._record(self._begin(key, "delete"), self._store.delete(key))

    async def put_if_absent(self, key: K, value: V) -> bool:
        call = self._begin(key, "put_if_absent", _frozen(value))
        return await self._record(call, self._store.put_if_absent(key, value))

    async def update(self, key: K, function: Callable[[V | None], V]) -> V:
        """Recorded as the pair (what the function was given, what it returned) of the last time it was called."""
        call = self._begin(key, "update")

        def watched(given: V | None) -> V:
            call.argument = None  # a function that raises stores nothing
            before = _frozen(given)
            value = function(given)
            call.argument = (before, _frozen(value))
            return value

        return await self._record(call, self._store.update(key, watched))

    def _begin(self, key: K, operation: str, argument: Any = None) -> Call:
        return self._history.begin(self._client, _frozen(key), operation, argument)

    async def _record(self, call: Call, answer: Awaitable[R]) -> R:
        try:
            result = await answer
        except RoostError as error:
            self._history.fail(call, may_have_run=error.may_have_run)
            raise
        except BaseException:
            self._history.fail(call, may_have_run=True)
            raise
        self._history.end(call, _frozen(result))
        return result


def _frozen(value: object) -> Hashable:
    """The value if nobody can change it, else the text of what it is now."""
    try:
        hash(value)
    except TypeError:
        return repr(msgspec.to_builtins(value, order="sorted"))
    return value
