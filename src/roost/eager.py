"""Step a coroutine inline, and make it a task only if it suspends.

Most handlers never wait for anything, and a task for each would cost more than the call itself. So their first step
runs in the caller's stack. It still runs *inside a task*, for `asyncio.timeout`, `TaskGroup` and anyio ask for the
current one: a spare task stands ready, is entered for the step, and if the coroutine suspends, that very task carries
it on and a new spare is made. What the handler saw as its task is its task to the end.

The coroutine is driven from within another one, which goes on from work to work: a result then costs no exception.

Each run has a context (contextvars) of its own. Entering and leaving a task by hand is asyncio's documented way for
those who step coroutines themselves ("Extending asyncio", task lifetime support).
"""

from __future__ import annotations

import asyncio
import contextvars
import types
from asyncio import tasks as _tasks
from collections.abc import Callable, Coroutine, Generator
from enum import Enum
from typing import Any, cast

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
        if carrier is None or (task := carrier.task).done():
            carrier = _Carrier(self._runtime)
            task = carrier.task
        self._spare = None  # what `work` itself steps needs another one
        loop = self._loop
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
            awaited = context.run(carrier.drive, work)
        finally:
            _leave(loop, task)
            if outer is not None:
                _enter(loop, outer)
        if awaited is not _ENDED:
            carrier.carry(awaited, context, finish, argument)
            self.task = task
            return SUSPENDED
        if self._spare is None and not task.cancelling():
            self._spare = carrier
        else:  # one that its work has cancelled must not end the next one
            task.cancel()
        result, carrier.result = carrier.result, None
        error = carrier.error
        if error is not None:
            carrier.error = None
            raise error
        return result

    def close(self) -> None:
        """Drop the spare task. What has suspended goes on."""
        if self._spare is not None:
            self._spare.task.cancel()
            self._spare = None


_ENDED = object()
"""What a driver yields when its work has ended; anything else is what the work waits for."""


@types.coroutine
def _drive(carrier: _Carrier) -> Generator[Any, Any, None]:
    """Run one piece of work after the other, each sent in; its outcome is left with the carrier."""
    while True:
        work = yield _ENDED
        try:
            carrier.result = yield from work
        except GeneratorExit as error:
            if carrier.is_closing:
                raise
            carrier.error = RuntimeError(f"a handler raised {error!r}")
        except BaseException as error:
            carrier.error = error
        del work


class _Carrier(Coroutine[Any, Any, None]):
    """What a task runs: nothing, until it is given a coroutine in mid-air.

    It is a coroutine by hand because a task that is cancelled before its first step would otherwise end without the
    coroutine hearing of it.
    """

    __slots__ = (
        "_argument",
        "_awaited",
        "_context",
        "_driver",
        "_finish",
        "_gate",
        "_resumed",
        "_runtime",
        "drive",
        "error",
        "is_closing",
        "result",
        "task",
    )

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._gate: asyncio.Future[None] | None = None
        self._finish: Finish | None = None
        self._resumed = False
        self._driver = cast(Generator[Any, Any, None], _drive(self))
        self.drive: Callable[[Any], Any] = self._driver.send
        """Begin a piece of work; returns _ENDED, or what it waits for."""
        self.result: Any = None
        self.error: BaseException | None = None
        self.is_closing = False
        self.drive(None)
        self.task: asyncio.Task[None] = runtime.spawn(self, name="handler")

    def carry(self, awaited: Any, context: contextvars.Context, finish: Finish, argument: Any) -> None:
        """From the task's next step on, go on with the work, which has just yielded `awaited`."""
        self._awaited = awaited
        self._context = context
        self._finish = finish
        self._argument = argument
        if self._gate is not None and not self._gate.done():
            self._gate.set_result(None)

    def send(self, value: Any, /) -> Any:
        if self._finish is None:
            self._gate = self._runtime.loop.create_future()
            return next(self._gate.__await__())
        if not self._resumed:
            self._resumed = True
            return self._awaited
        return self._go_on(self._finish, self.drive, value)

    def throw(self, kind: Any, value: Any = None, trace: Any = None, /) -> Any:
        error = kind if isinstance(kind, BaseException) else (value or kind())
        if self._finish is None:
            raise error
        if not self._resumed:
            self._resumed = True
            # A cancelled task cancels what it waits for, and hears of it from there; this one does not wait yet.
            awaited = self._awaited
            if isinstance(error, asyncio.CancelledError) and isinstance(awaited, asyncio.Future) and awaited.cancel():
                return awaited
        return self._go_on(self._finish, self._driver.throw, error)

    def _go_on(self, finish: Finish, step: Callable[[Any], Any], argument: Any) -> Any:
        awaited = self._context.run(step, argument)
        if awaited is not _ENDED:
            return awaited
        self._driver.close()
        error = self.error
        if error is None:
            finish(self._argument, self.result, None)
        elif isinstance(error, KeyboardInterrupt | SystemExit):
            raise error
        else:
            finish(self._argument, None, error)
            if isinstance(error, asyncio.CancelledError):
                raise error
        raise StopIteration

    def close(self) -> None:
        self.is_closing = True
        self._driver.close()

    def __await__(self) -> Generator[Any, Any, None]:
        raise TypeError("a carrier is run by its task")
