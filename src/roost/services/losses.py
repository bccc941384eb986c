"""Partitions that were taken over without enough of their copies: noted, logged, and told to whoever watches."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable

import msgspec

from roost.core import tenure
from roost.errors import Overloaded

__all__ = ["Losses", "PossibleLoss", "shortened"]

log = logging.getLogger("roost.partitions")

EVENTS_MAX = 10_000
"""Unread, of one reader."""
PARTITIONS_SHOWN = 20


class PossibleLoss(msgspec.Struct, frozen=True):
    """This node took a partition over, and too few of its copies could be asked: acknowledged writes may be gone."""

    service: str
    partition: int
    copies: tuple[str, ...]
    """The nodes that were to have a copy of it, by name."""
    epoch: int
    """That of the last holder; 0 if none is known."""


class Losses:
    """Those of one service on one node, since it was opened there."""

    def __init__(self, service: str, name_of: Callable[[int], str]) -> None:
        self._service = service
        self._name_of = name_of
        self._new: list[PossibleLoss] = []
        self._watchers: list[_Watcher] = []
        self._ended = False
        self.partitions: dict[int, PossibleLoss] = {}
        """The latest of each."""

    def note(self, effect: tenure.PossibleLoss) -> None:
        """The machine says so."""
        right = effect.right
        names = tuple(self._name_of(uid) for uid in right.copies or (right.holder,))
        loss = PossibleLoss(self._service, effect.partition, names, right.epoch)
        self.partitions[loss.partition] = loss
        for watcher in self._watchers:
            watcher.put(loss)
        if not self._new:
            asyncio.get_running_loop().call_soon(self._report)
        self._new.append(loss)

    def _report(self) -> None:
        """One line for all of one turn of the loop."""
        new, self._new = self._new, []
        copies = sorted({name for loss in new for name in loss.copies})
        log.warning(
            "possible_loss: %d partitions of %s were taken over without enough of their copies, which were on %s; "
            "acknowledged writes may be gone (partitions %s)",
            len(new),
            self._service,
            ", ".join(copies),
            shortened([loss.partition for loss in new]),
        )

    async def watch(self) -> AsyncIterator[PossibleLoss]:
        """Those there have been, then each as it comes, until the node stops. Overloaded for who reads too slowly."""
        watcher = _Watcher(list(self.partitions.values()))
        self._watchers.append(watcher)
        try:
            while not self._ended or watcher.events:
                if watcher.events:
                    yield watcher.events.popleft()
                elif watcher.skipped:
                    raise Overloaded("this reader is too slow; watch anew", what="losses", limit=EVENTS_MAX)
                else:
                    watcher.waiting = asyncio.get_running_loop().create_future()
                    await watcher.waiting
        finally:
            self._watchers.remove(watcher)

    def end(self) -> None:
        """The node stops."""
        self._ended = True
        for watcher in self._watchers:
            watcher.wake()


class _Watcher:
    """One reader's queue."""

    def __init__(self, events: list[PossibleLoss]) -> None:
        self.events = deque(events)
        self.skipped = False
        self.waiting: asyncio.Future[None] | None = None

    def put(self, loss: PossibleLoss) -> None:
        if self.skipped or len(self.events) >= EVENTS_MAX:
            self.skipped = True
        else:
            self.events.append(loss)
        self.wake()

    def wake(self) -> None:
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(None)


def shortened(partitions: list[int]) -> str:
    """For a line of the log."""
    shown = ", ".join(map(str, partitions[:PARTITIONS_SHOWN])) or "none"
    return shown + (", ..." if len(partitions) > PARTITIONS_SHOWN else "")
