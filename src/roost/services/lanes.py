"""One partition's commands on this node, one at a time.

A command that needs no waiting runs where it arrives. It waits in the lane's queue, in order, while another command
has suspended, while the right is on its way, or during a cut-over; the queue is bounded, what has expired in it is
dropped before it runs, and when the right goes elsewhere, those who wait are told where.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from roost.core.rights import Rights
from roost.core.tenure import Slot
from roost.errors import DeadlineExceeded, Overloaded
from roost.services.host import NotHere

__all__ = ["Lane"]

Waiter = tuple[asyncio.Future[None], int, float]
"""(woken for its turn, the epoch that the caller knows, when it expires)"""


class Lane:
    """The queue of a partition. Whoever takes a turn must `end` it."""

    __slots__ = (
        "_monotonic",
        "_rights",
        "busy",
        "drained",
        "draining",
        "handler",
        "partition",
        "queue",
        "queued_max",
        "slot",
    )

    def __init__(
        self,
        rights: Rights,
        partition: int,
        queued_max: int,
        monotonic: Callable[[], float],
        drained: Callable[[int], None],
    ) -> None:
        self._rights = rights
        self._monotonic = monotonic
        self.partition = partition
        self.slot: Slot = rights.slots[partition]
        self.queued_max = queued_max
        self.drained = drained
        self.busy = False
        self.draining = False
        self.handler: Any = None
        self.queue: deque[Waiter] = deque()

    @property
    def free(self) -> bool:
        """A command that arrives now may run at once."""
        return not self.busy and not self.queue and self.slot.executes

    def refuse_elsewhere(self, epoch: int) -> None:
        """Raise NotHere if such a command does not belong here."""
        right = self._rights.elsewhere(self.partition, epoch)
        if right is not None:
            raise NotHere(right.epoch, right.holder)

    async def turn(self, epoch: int, until: float) -> None:
        """Wait until this command may run, and mark the lane busy. Raises NotHere, Overloaded or DeadlineExceeded."""
        self.refuse_elsewhere(epoch)
        if self.free:
            self.busy = True
            return
        if len(self.queue) >= self.queued_max:
            self.queue = deque(waiter for waiter in self.queue if not waiter[0].done())
        if len(self.queue) >= self.queued_max:
            text = f"{self.queued_max} commands of partition {self.partition} wait already: slow down, then retry"
            raise Overloaded(text, what="queued_commands_max", limit=self.queued_max)
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.queue.append((woken, epoch, until))
        while True:
            await self._woken(woken)
            right = self._rights.elsewhere(self.partition, epoch)
            if right is None and self.slot.executes:
                return
            # Promised the turn, and in the same tick a cut-over began or a higher right was met.
            if right is None:
                woken = asyncio.get_running_loop().create_future()
                self.queue.appendleft((woken, epoch, until))
            self.end()
            if right is not None:
                raise NotHere(right.epoch, right.holder)

    async def _woken(self, woken: asyncio.Future[None]) -> None:
        """Wait for the turn. Whoever is cancelled here leaves no future behind that could be given one."""
        try:
            await woken
        except asyncio.CancelledError:
            if not woken.done():
                woken.cancel()
            elif not woken.cancelled() and woken.exception() is None:
                self.end()
            raise

    def end(self) -> None:
        """The command has ended: the next one, or the end of the drain."""
        self.busy = False
        if self.draining:
            self.draining = False
            self.drained(self.partition)
        self.wake()

    def drain(self) -> None:
        """Say `drained` as soon as nothing runs."""
        if self.busy:
            self.draining = True
        else:
            self.drained(self.partition)

    def look_again(self) -> None:
        """The role of this node has changed: send those elsewhere who belong there, or go on."""
        if not self.slot.stopped:
            self.draining = False
        kept: deque[Waiter] = deque()
        for waiter in self.queue:
            woken, epoch, _ = waiter
            right = self._rights.elsewhere(self.partition, epoch)
            if woken.done():
                continue
            if right is None:
                kept.append(waiter)
            else:
                woken.set_exception(NotHere(right.epoch, right.holder))
        self.queue = kept
        self.wake()

    def wake(self) -> None:
        """Give the next its turn."""
        while self.queue and not self.busy and self.slot.executes:
            woken, _, until = self.queue.popleft()
            if woken.done():
                continue
            if until <= self._monotonic():
                text = f"the command waited past its deadline in partition {self.partition}"
                woken.set_exception(DeadlineExceeded(text, may_have_run=False))
                continue
            self.busy = True
            woken.set_result(None)
