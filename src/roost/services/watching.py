"""What users see of a member and of what happens to it, and a reader's queue of such events.

Invariant: a queue skips nothing: one that is full ends with an error instead.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from roost.core.gossip import Entry, Health
from roost.errors import Overloaded

__all__ = [
    "Member",
    "MemberDown",
    "MemberEvent",
    "MemberForgotten",
    "MemberJoining",
    "MemberLeaving",
    "MemberLeft",
    "MemberSuspect",
    "MemberUp",
    "Watch",
    "event_of",
    "member_of",
]

WATCH_EVENTS_MAX = 100_000
MemberState = Literal["joining", "up", "leaving", "left", "suspect", "down"]


class Member(msgspec.Struct, frozen=True):
    """A node as this one sees it now. `uid` is made anew at every start; `services` are those that it hosts."""

    name: str
    uid: int
    state: MemberState
    address: str
    roles: tuple[str, ...]
    zone: str
    weight: float
    services: Mapping[str, int]
    incarnation: int
    library: str
    application: str
    resting: bool
    """Up, but out of the rings for a while: it was taken for down too often."""

    def __repr__(self) -> str:
        return f"<Member {self.name} {self.state} at {self.address}>"


class MemberJoining(msgspec.Struct, frozen=True):
    """A member is on its way in: it is known, and does not take part yet."""

    member: Member


class MemberUp(msgspec.Struct, frozen=True):
    """A member takes part: it is new, or it is back from suspicion or from down."""

    member: Member


class MemberSuspect(msgspec.Struct, frozen=True):
    """A member does not answer; it has some time left to refute."""

    member: Member


class MemberLeaving(msgspec.Struct, frozen=True):
    """A member is on its way out: it hands over what it holds."""

    member: Member


class MemberDown(msgspec.Struct, frozen=True):
    """A member is taken for dead, and its work goes to others. It may come back."""

    member: Member


class MemberLeft(msgspec.Struct, frozen=True):
    """A member has left gracefully."""

    member: Member


class MemberForgotten(msgspec.Struct, frozen=True):
    """A member is in the table no more: it was down or had left for `forget_seconds`, or it was refused its name.

    `member` is what was last known of it.
    """

    member: Member


MemberEvent = MemberJoining | MemberUp | MemberSuspect | MemberLeaving | MemberDown | MemberLeft | MemberForgotten


class Watch:
    """One reader's queue of events."""

    def __init__(self, loop: asyncio.AbstractEventLoop, registry: list[Watch]) -> None:
        self._loop = loop
        self._registry = registry
        self._events: deque[MemberEvent] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._ended = False
        self._skipped = False
        registry.append(self)

    def put(self, event: MemberEvent) -> None:
        if self._skipped or len(self._events) >= WATCH_EVENTS_MAX:  # after one is missing, none may follow
            self._skipped = True
        else:
            self._events.append(event)
        self._wake()

    def end(self) -> None:
        self._ended = True
        if self in self._registry:
            self._registry.remove(self)
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> MemberEvent:
        while not self._events:
            if self._skipped:
                self.end()
                raise Overloaded("this watcher reads too slowly; watch anew", what="watch", limit=WATCH_EVENTS_MAX)
            if self._ended:
                raise StopAsyncIteration
            self._waiting = self._loop.create_future()
            await self._waiting
        return self._events.popleft()

    async def aclose(self) -> None:
        self.end()


def _state(entry: Entry) -> MemberState:
    if entry.state == "left":
        return "left"
    if entry.health == Health.DOWN:
        return "down"
    if entry.health == Health.SUSPECT:
        return "suspect"
    return entry.state


def member_of(entry: Entry) -> Member:
    """The entry as users see it."""
    return Member(
        name=entry.name,
        uid=entry.uid,
        state=_state(entry),
        address=entry.address,
        roles=entry.roles,
        zone=entry.zone,
        weight=entry.weight,
        services=dict(entry.services),
        incarnation=entry.incarnation,
        library=entry.library,
        application=entry.application,
        resting=entry.resting,
    )


_EVENTS: dict[MemberState, Callable[[Member], MemberEvent]] = {
    "joining": MemberJoining,
    "up": MemberUp,
    "suspect": MemberSuspect,
    "leaving": MemberLeaving,
    "down": MemberDown,
    "left": MemberLeft,
}


def event_of(before: Entry | None, after: Entry) -> MemberEvent | None:
    """What to tell users of the change: of its state, or nothing."""
    new = _state(after)
    if before is not None and _state(before) == new:
        return None
    return _EVENTS[new](member_of(after))
