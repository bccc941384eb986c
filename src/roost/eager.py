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
import types
from asyncio import tasks as _tasks
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from roost.runtime import Runtime

__all__ = ["Eager"]

Finish = Callable[[Any, Any, BaseException | None], None]
"""(the argument given to `run`, the result, the error)"""

_enter: Callable[[asyncio.AbstractEventLoop, asyncio.Task[Any]], None] = getattr(_tasks, "_enter_task")  # noqa: B009
_leave: Callable[[asyncio.AbstractEventLoop, asyncio.Task[Any]], None] = getattr(_tasks, "_leave_task")  # noqa: B009


class Eager:
    """Runs coroutines, eagerly."""

    __slots__ = ("_loop", "_runtime", "_spare")

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._loop = runtime.loop
        self._spare = _Carrier(runtime)

    def run(self, work: Coroutine[Any, Any, Any], finish: Finish, argument: Any) -> asyncio.Task[None] | None:
        """Step `work` once; `finish` is called exactly once when it ends, be it now or later.

        Returns None if it ended, else the task that carries it on, to be cancelled if need be.
        """
        carrier = self._spare
        task = carrier.task
        if task.done():  # someone cancelled every task; what still arrives gets a fresh one
            carrier = self._spare = _Carrier(self._runtime)
            task = carrier.task
        loop = self._loop
        outer = asyncio.current_task(loop)
        context = contextvars.copy_context()
        if outer is not None:
            _leave(loop, outer)
        _enter(loop, task)
        try:
            awaited = context.run(work.send, None)
        except StopIteration as stop:
            result, error = stop.value, None
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as raised:
            result, error = None, raised
        else:
            self._spare = _Carrier(self._runtime)
            carrier.carry(work, awaited, context, finish, argument)
            return task
        finally:
            _leave(loop, task)
            if outer is not None:
                _enter(loop, outer)
        finish(argument, result, error)
        return None

    def close(self) -> None:
        """Drop the spare task. What has suspended goes on."""
        self._spare.task.cancel()


class _Carrier:
    """A task that waits until it is given a coroutine in mid-air."""

    __slots__ = ("_argument", "_awaited", "_context", "_finish", "_gate", "_work", "task")

    def __init__(self, runtime: Runtime) -> None:
        self._gate: asyncio.Future[None] = runtime.loop.create_future()
        self._work: Coroutine[Any, Any, Any] | None = None
        self.task: asyncio.Task[None] = runtime.spawn(self._carry(), name="handler")

    def carry(
        self, work: Coroutine[Any, Any, Any], awaited: Any, context: contextvars.Context, finish: Finish, argument: Any
    ) -> None:
        self._work = work
        self._awaited = awaited
        self._context = context
        self._finish = finish
        self._argument = argument
        if not self._gate.done():
            self._gate.set_result(None)

    async def _carry(self) -> None:
        cancelled: BaseException | None = None
        try:
            await self._gate
        except asyncio.CancelledError as error:
            if self._work is None:
                raise
            cancelled = error
        work = self._work
        assert work is not None
        try:
            result = await _drive(work, self._awaited, self._context, cancelled)
        except asyncio.CancelledError as error:
            self._finish(self._argument, None, error)
            raise
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self._finish(self._argument, None, error)
        else:
            self._finish(self._argument, result, None)


@types.coroutine
def _drive(
    work: Coroutine[Any, Any, Any], awaited: Any, context: contextvars.Context, error: BaseException | None
) -> Generator[Any, Any, Any]:
    """Carry on a coroutine that has yielded `awaited`; an `error` is thrown into it first."""
    value: Any = None
    while True:
        if error is None:
            try:
                value = yield awaited
            except GeneratorExit:
                work.close()
                raise
            except BaseException as thrown:
                error = thrown
        try:
            if error is not None:
                thrown, error = error, None
                awaited = context.run(work.throw, thrown)
            else:
                awaited = context.run(work.send, value)
        except StopIteration as stop:
            return stop.value
