"""The members as users see them, and the shell around the pure membership machine.

The shell turns links, timers and messages into the machine's events and carries out its effects. Nothing here decides.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Protocol

from roost.core.gossip import Entry, Gossip, Health
from roost.core.membership import (
    Contact,
    Dial,
    Effect,
    Event,
    Joined,
    MemberChanged,
    Membership,
    NameConflict,
    NotReached,
    SelfChanged,
    SendGossip,
    SettledChanged,
    Tick,
)
from roost.runtime import Runtime
from roost.services.watching import Member, MemberEvent, MemberForgotten, Watch, event_of, member_of

__all__ = ["Members", "MembersOwner"]

log = logging.getLogger("roost.members")

AGREE_SECONDS = 2.0
TICK_SECONDS_MIN = 0.001
"""Loops may run timers a little early; the machine is not asked more often than this whether something is due."""


class MembersOwner(Protocol):
    """What the node does for the membership."""

    def send_gossip(self, uid: int, name: str, address: str, message: Gossip) -> None: ...
    def contact(self, address: str) -> None: ...
    def dial(self, uid: int, address: str) -> None: ...
    def joined(self) -> None: ...
    def not_reached(self, said: Sequence[tuple[str, str]]) -> None: ...
    def name_taken(self, holder: Entry) -> None: ...
    def member_changed(self, before: Entry | None, after: Entry, *, forgotten: bool) -> None: ...


class Members:
    """The cluster's members: live, iterable, watchable."""

    def __init__(self, runtime: Runtime, owner: MembersOwner) -> None:
        self._runtime = runtime
        self._owner = owner
        self._core: Membership | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watchers: list[Watch] = []
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._by_name: dict[str, Entry] = {}
        self._callbacks: list[Callable[[], None]] = []
        self._last_seen: dict[int, float] = {}
        self._events: deque[Event] = deque()
        self._stepping = False

    # for users

    def __iter__(self) -> Iterator[Member]:
        return iter([member_of(entry) for entry in self.entries()])

    def __len__(self) -> int:
        return len(self.entries())

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Member:
        return member_of(self._by_name[name])

    def __repr__(self) -> str:
        return "<Members " + ", ".join(f"{member.name} {member.state}" for member in self) + ">"

    @property
    def settled(self) -> bool:
        """True while every up member reports the same view as this node has. Patience rests on it, safety does not."""
        return self._core is not None and self._core.settled

    @property
    def local_health(self) -> int:
        """0: well; up to 8: this node misses answers or stands still, and is therefore slow to accuse others."""
        return self._core.local_health if self._core is not None else 0

    @property
    def loop_lag_seconds(self) -> dict[str, float]:
        """How long this node stood still the `last` time (a blocked loop, a stopped process), and the `longest`."""
        last, longest = self._core.loop_lag_seconds if self._core is not None else (0.0, 0.0)
        return {"last": round(last, 3), "longest": round(longest, 3)}

    def watch(self) -> AsyncIterator[MemberEvent]:
        """Each change of a member's state from now on, in order, after one event for each member as it is now.

        It skips nothing: whoever applies the events has the same table as `members` at any moment. What a member was
        before this node heard of it is no event: of one that comes and goes at once its end may be all that is told. A
        reader that is a hundred thousand events behind gets Overloaded instead.
        """
        watch = Watch(self._runtime.loop, self._watchers)
        for entry in self.entries():
            if (event := event_of(None, entry)) is not None:
                watch.put(event)
        return watch

    async def ready(self, count: int) -> None:
        """Wait until `count` members are up and settled, this one among them."""
        if not self._is_ready(count):
            future: asyncio.Future[None] = self._runtime.loop.create_future()
            self._waiters.append((count, future))
            await future

    # for the node

    async def agree(self) -> None:
        """Wait until the live members have the same view as this node, but not for long: one may be out of reach."""
        if self._core is None or self._core.me.state != "up" or self.settled:
            return
        future: asyncio.Future[None] = self._runtime.loop.create_future()
        self._waiters.append((0, future))
        try:
            async with asyncio.timeout(AGREE_SECONDS):
                await future
        except TimeoutError:
            log.info("%s: not all members have heard of its last change yet", self._core.me.name)

    def entries(self) -> list[Entry]:
        return self._core.entries() if self._core is not None else []

    def find(self, name: str) -> Entry | None:
        """The member of that name that counts: the live one, else the one last heard of."""
        return self._by_name.get(name)

    def get(self, uid: int) -> Entry | None:
        return self._core.get(uid) if self._core is not None else None

    @property
    def me(self) -> Entry:
        assert self._core is not None
        return self._core.me

    def on_change(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def last_seen(self, uid: int) -> float | None:
        """Seconds since the epoch when this node last saw that member alive."""
        return self._last_seen.get(uid)

    def start(self, core: Membership) -> None:
        self._core = core
        self._by_name[core.me.name] = core.me
        self._arm()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._core_stopped()

    def _core_stopped(self) -> None:
        for watch in list(self._watchers):
            watch.end()
        for _, future in self._waiters:
            future.cancel()
        self._waiters.clear()

    def change_self(self, changes: dict[str, object]) -> None:
        """Change this node's own entry and tell the others."""
        self.step(SelfChanged(changes))

    def step(self, event: Event) -> None:
        """Give the machine an event and carry out what it wants."""
        self._events.append(event)
        if self._stepping:
            return  # an effect that is being carried out made this event: its turn comes after them all
        self._stepping = True
        try:
            while self._events:
                self._step(self._events.popleft())
        finally:
            self._stepping = False
            self._events.clear()

    def _step(self, event: Event) -> None:
        core = self._core
        if core is None:
            return
        effects = core.step(event, self._runtime.monotonic())
        if self._runtime.checks:
            core.check()
        placement = False
        for effect in effects:
            placement = self._carry_out(effect) or placement
        if self._core is not core:
            return
        self._arm()
        if placement:
            for callback in list(self._callbacks):
                callback()
        if effects:
            self._check_waiters()

    def _carry_out(self, effect: Effect) -> bool:
        """Returns whether placement could depend on it."""
        owner = self._owner
        match effect:
            case SendGossip(uid=uid, address=address, message=message):
                entry = self.get(uid)
                owner.send_gossip(uid, entry.name if entry is not None else address, address, message)
            case Contact(address=address):
                owner.contact(address)
            case MemberChanged(before=before, after=after, forgotten=forgotten):
                self._changed(before, after, forgotten)
                owner.member_changed(before, after, forgotten=forgotten)
                return True
            case Dial(uid=uid, address=address):
                owner.dial(uid, address)
            case Joined():
                owner.joined()
            case NotReached(said=said):
                owner.not_reached(said)
            case NameConflict(holder=holder):
                owner.name_taken(holder)
            case SettledChanged(settled=settled):
                log.debug("settled: %s", settled)
        return False

    def _changed(self, before: Entry | None, after: Entry, forgotten: bool) -> None:
        if forgotten:
            self._last_seen.pop(after.uid, None)
        elif after.health == Health.ALIVE or before is None:
            self._last_seen[after.uid] = self._runtime.wall()
        named = [entry for entry in self.entries() if entry.name == after.name]
        if named:
            self._by_name[after.name] = max(named, key=lambda entry: (_lives(entry), entry.started, entry.uid))
        else:
            self._by_name.pop(after.name, None)
        event = MemberForgotten(member_of(after)) if forgotten else event_of(before, after)
        if event is not None:
            for watch in self._watchers:
                watch.put(event)

    def _arm(self) -> None:
        core = self._core
        assert core is not None
        if self._timer is not None:
            self._timer.cancel()
        delay = max(TICK_SECONDS_MIN, core.wake_at - self._runtime.monotonic())
        self._timer = self._runtime.call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.step(Tick())

    def _is_ready(self, count: int) -> bool:
        return self.settled and sum(1 for entry in self.entries() if _is_up(entry)) >= count

    def _check_waiters(self) -> None:
        if self._waiters and self.settled:
            for waiter in list(self._waiters):
                count, future = waiter
                if future.done() or count == 0 or self._is_ready(count):
                    self._waiters.remove(waiter)
                    if not future.done():
                        future.set_result(None)


def _lives(entry: Entry) -> bool:
    return entry.state != "left" and entry.health != Health.DOWN


def _is_up(entry: Entry) -> bool:
    return entry.state == "up" and entry.health != Health.DOWN
