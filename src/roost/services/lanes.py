"""One partition's commands on this node, one at a time, and their answers, which wait for enough copies.

A command that needs no waiting runs where it arrives. It waits in the lane's queue, in order, while another command
has suspended, while the right is on its way, during a cut-over, or while there are too few copies; the queue is
bounded, what has expired in it is dropped before it runs, and when the right goes elsewhere, those who wait are told
where. The answer of a command waits until all that was written before its end is acknowledged; others run meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from roost.core.rights import Rights
from roost.core.tenure import Slot
from roost.errors import DeadlineExceeded, Overloaded, Unavailable
from roost.services.host import NotHere

__all__ = ["Lane"]

Waiter = tuple[asyncio.Future[None], int, float]
"""(woken for its turn, the epoch that the caller knows, when it expires)"""
Unanswered = tuple[asyncio.Future[None], int, tuple[int, int], float]
"""(woken when acknowledged, the last write that the answer has seen, under which tenure, when it expires)"""


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
        "service",
        "slot",
        "unanswered",
    )

    def __init__(
        self,
        rights: Rights,
        partition: int,
        queued_max: int,
        monotonic: Callable[[], float],
        drained: Callable[[int], None],
        service: str = "",
    ) -> None:
        self._rights = rights
        self._monotonic = monotonic
        self.partition = partition
        self.service = service
        self.slot: Slot = rights.slots[partition]
        self.queued_max = queued_max
        self.drained = drained
        self.busy = False
        self.draining = False
        self.handler: Any = None
        self.queue: deque[Waiter] = deque()
        self.unanswered: deque[Unanswered] = deque()

    @property
    def free(self) -> bool:
        """A command that arrives now may run at once."""
        return not self.busy and not self.queue and self.slot.executes and not self.slot.short

    @property
    def free_to_read(self) -> bool:
        """One that writes nothing may."""
        return not self.busy and not self.queue and self.slot.executes

    def refuse_elsewhere(self, epoch: int) -> None:
        """Raise NotHere if such a command does not belong here, Unavailable if nobody may run it now."""
        right = self._rights.elsewhere(self.partition, epoch)
        if right is not None:
            raise NotHere(right.epoch, right.holder)
        lacking = self._rights.unavailable(self.partition)
        if lacking is not None and not (lacking[0] and self.slot.short):  # a shortage may pass
            raise self.unavailable(lacking)

    def unavailable(self, lacking: tuple[int, int], *, may_have_run: bool = False) -> Unavailable:
        """What to say where copies are lacking."""
        needed, have = lacking
        where = f"partition {self.partition} of {self.service}"
        if not needed:
            text = f"{where}: so many hosts are missing that this side, if it is a split, may not act; a retry is safe"
        elif may_have_run:
            text = f"{where}: {needed} copies must confirm what was written, and did not in time; read before you retry"
        else:
            text = f"{where} needs {needed} copies and has {have}: wait for nodes to come back; a retry is safe"
        return Unavailable(text, needed=needed, have=have, may_have_run=may_have_run)

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
            if right is None and self.slot.executes and not self.slot.short:
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

    def acknowledged(self, until: float) -> asyncio.Future[None] | None:
        """What to await until all that has been written so far is on enough copies; None: it is.

        Raises Unavailable if it may never be.
        """
        slot = self.slot
        if slot.acked == slot.written:
            return None
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.unanswered.append((woken, slot.written, slot.right.tenure, until))
        return woken

    def answer(self, number: int) -> None:
        """All writes up to that number are acknowledged."""
        while self.unanswered and (self.unanswered[0][1] <= number or self.unanswered[0][0].done()):
            woken = self.unanswered.popleft()[0]
            if not woken.done():
                woken.set_result(None)

    def expire(self, now: float) -> None:
        """Answer those who have waited for copies almost as long as they can, so that they learn why."""
        lacking = self._rights.unavailable(self.partition)
        if lacking is not None and self.queue:
            for woken, _, until in self.queue:
                if until <= now and not woken.done():
                    woken.set_exception(self.unavailable(lacking))
            self.queue = deque(waiter for waiter in self.queue if not waiter[0].done())
        if any(waiter[0].done() for waiter in self.unanswered):
            self.unanswered = deque(waiter for waiter in self.unanswered if not waiter[0].done())
        for woken, _, _, until in self.unanswered:
            if until <= now and not woken.done():
                silent = (self._rights.needed(self.partition), 1)  # they are there, and do not answer
                woken.set_exception(self.unavailable(lacking or silent, may_have_run=True))

    def look_again(self) -> None:
        """The role of this node has changed: send those elsewhere who belong there, or go on."""
        if not self.slot.stopped:
            self.draining = False
        if self.unanswered and self.unanswered[0][2] != self.slot.right.tenure:
            for woken, _, _, _ in self.unanswered:
                if not woken.done():
                    text = (
                        f"partition {self.partition} went to another holder before enough copies had what was written"
                    )
                    woken.set_exception(Unavailable(text, may_have_run=True))
            self.unanswered.clear()
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
        while self.queue and not self.busy and self.slot.executes and not self.slot.short:
            woken, _, until = self.queue.popleft()
            if woken.done():
                continue
            if until <= self._monotonic():
                text = f"the command waited past its deadline in partition {self.partition}"
                woken.set_exception(DeadlineExceeded(text, may_have_run=False))
                continue
            self.busy = True
            woken.set_result(None)
