"""Time, chance and tasks, handed in: the only door through which a node touches them.

Everything above `core/` asks the `Runtime` for the time, for random numbers and for tasks, and never the modules
`time`, `random` or `asyncio` themselves. So the simulator can run a whole cluster of real nodes in one process on a
virtual-time loop, each with a clock and a seed of its own, and stop one dead in the middle of a sentence.

`monotonic` is for durations and deadlines; `wall` (seconds since the epoch) only for stamps that people or other
nodes compare, and it may jump.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["Runtime"]

log = logging.getLogger("roost")


class Runtime:
    """The real thing: the running loop's clock, the system's entropy, plain tasks. The simulator overrides it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.rng = random.Random(secrets.randbits(128))
        self.monotonic: Callable[[], float] = self.loop.time
        self.checks = False
        """Whether machines check their invariants after every step; the simulator says yes."""
        self.virtual = False
        """Whether time passes only when nothing is left to do; the simulator says yes."""
        self._tasks: dict[asyncio.Task[Any], None] = {}  # in order, so that a simulated end is the same every time

    def wall(self) -> float:
        """Seconds since the epoch, as this node believes them."""
        return time.time()

    def token(self, size: int) -> bytes:
        """`size` unpredictable bytes, for nonces and uids."""
        return secrets.token_bytes(size)

    def call_later(self, seconds: float, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        """Run `callback` once after `seconds`, unless the handle is cancelled first."""
        return self.loop.call_later(seconds, callback, *args)

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Start `work` as a task that is kept alive, and whose failure is logged, never swallowed."""
        task = self.loop.create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed: %r", task.get_name(), error, exc_info=error)

    async def cancel_tasks(self) -> None:
        """Cancel what `spawn` started and is still running, but for the caller itself; wait until all has ended."""
        mine = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not mine]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
