"""Step a coroutine inline, and make it a task only if it suspends.

Most handlers never wait for anything, and a task for each would cost more than the call itself. So their first step
runs in the caller's stack. It still runs *inside a task*, for `asyncio.timeout`, `TaskGroup` and anyio ask for the
current one: a spare task stands ready, is entered for the step, and if the coroutine suspends, that very task carries
it on and a new spare is made. What the handler saw as its task is its task to the end.

Each run has a context (contextvars) of its own. Entering and leaving a task by hand is asyncio's documented way for
those who step coroutines themselves ("Extending asyncio", task lifetime support).
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import tasks as _tasks
from collections.abc import Callable, Coroutine, Generator
from enum import Enum
from typing import Any

from roost.runtime import Runtime

__all__ = ["SUSPENDED", "Eager", "Suspended"]

Finish = Callable[[Any, Any, BaseException | None], None]
"""(the argument given to `step`, the result, the error)"""

_enter: Callable[[asyncio.AbstractEventLoop, asyncio.Task[Any]], None] = getattr(_tasks, "_enter_task")  # noqa: B009
_leave: Callable[[asyncio.AbstractEventLoop, asyncio.Task[Any]], None] = getattr(_tasks, "_leave_task")  # noqa: B009


class Suspended(Enum):
    """What `Eager.step` returns of a coroutine that goes on in a task."""

    SUSPENDED = 0


SUSPENDED = Suspended.SUSPENDED


class Eager:
    """Runs coroutines, eagerly."""

    __slots__ = ("_loop", "_runtime", "_spare", "task")

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._loop = runtime.loop
        self._spare: _Carrier | None = None
        self.task: asyncio.Task[None] | None = None
        """What carries on the coroutine that `step` last found suspended."""

    def step(self, work: Coroutine[Any, Any, Any], finish: Finish, argument: Any) -> Any:
        """Step `work` once. Returns its result or raises its error if that was all.

        Else returns SUSPENDED: `task` carries it on, may be cancelled, and `finish` is called once when it ends.
        """
        carrier = self._spare
        if carrier is None or carrier.task.done():
            carrier = _Carrier(self._runtime)
        self._spare = None  # what `work` itself steps needs another one
        loop = self._loop
        task = carrier.task
        context = contextvars.copy_context()
        outer: asyncio.Task[Any] | None = None
        try:
            _enter(loop, task)
        except RuntimeError:  # called from within a task, which is rare: dispatch happens in callbacks of the loop
            outer = asyncio.current_task(loop)
            assert outer is not None
            _leave(loop, outer)
            _enter(loop, task)
        try:
            awaited = context.run(work.send, None)
        except StopIteration as stop:
            self._put_back(carrier)
            return stop.value
        except BaseException:
            self._put_back(carrier)
            raise
        finally:
            _leave(loop, task)
            if outer is not None:
                _enter(loop, outer)
        carrier.carry(work, awaited, context, finish, argument)
        self.task = task
        return SUSPENDED

    def _put_back(self, carrier: _Carrier) -> None:
        if self._spare is None:
            self._spare = carrier
        else:
            carrier.task.cancel()

    def close(self) -> None:
        """Drop the spare task. What has suspended goes on."""
        if self._spare is not None:
            self._spare.task.cancel()
            self._spare = None


class _Carrier(Coroutine[Any, Any, None]):
    """What a task runs: nothing, until it is given a coroutine in mid-air.

    It is a coroutine by hand because a task that is cancelled before its first step would otherwise end without the
    coroutine hearing of it.
    """

    __slots__ = ("_argument", "_awaited", "_context", "_finish", "_gate", "_resumed", "_runtime", "_work", "task")

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._gate: asyncio.Future[None] | None = None
        self._work: Coroutine[Any, Any, Any] | None = None
        self._resumed = False
        self.task: asyncio.Task[None] = runtime.spawn(self, name="handler")

    def carry(
        self, work: Coroutine[Any, Any, Any], awaited: Any, context: contextvars.Context, finish: Finish, argument: Any
    ) -> None:
        """From the task's next step on, run `work`, which has just yielded `awaited`."""
        self._work = work
        self._awaited = awaited
        self._context = context
        self._finish = finish
        self._argument = argument
        if self._gate is not None and not self._gate.done():
            self._gate.set_result(None)

    def send(self, value: Any, /) -> Any:
        work = self._work
        if work is None:
            self._gate = self._runtime.loop.create_future()
            return next(self._gate.__await__())
        if not self._resumed:
            self._resumed = True
            return self._awaited
        return self._step(work.send, value)

    def throw(self, kind: Any, value: Any = None, trace: Any = None, /) -> Any:
        error = kind if isinstance(kind, BaseException) else (value or kind())
        if self._work is None:
            raise error
        if not self._resumed:
            self._resumed = True
            # A cancelled task cancels what it waits for, and hears of it from there; this one does not wait yet.
            awaited = self._awaited
            if isinstance(error, asyncio.CancelledError) and isinstance(awaited, asyncio.Future) and awaited.cancel():
                return awaited
        return self._step(self._work.throw, error)

    def _step(self, step: Callable[[Any], Any], argument: Any) -> Any:
        try:
            return self._context.run(step, argument)
        except StopIteration as stop:
            self._finish(self._argument, stop.value, None)
        except asyncio.CancelledError as error:
            self._finish(self._argument, None, error)
            raise
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self._finish(self._argument, None, error)
        raise StopIteration

    def close(self) -> None:
        if self._work is not None:
            self._work.close()

    def __await__(self) -> Generator[Any, Any, None]:
        raise TypeError("a carrier is run by its task")
