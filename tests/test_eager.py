from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop

from roost.eager import SUSPENDED, Eager
from roost.runtime import Runtime

Run = Callable[[Callable[[], Awaitable[None]]], None]


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs an async function on either loop, and fails if a task is left over."""
    loop = uvloop.new_event_loop() if request.param == "uvloop" else asyncio.new_event_loop()

    def in_loop(function: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            await function()

        loop.run_until_complete(main())
        assert not asyncio.all_tasks(loop)

    yield in_loop
    loop.close()


class Bench:
    """An Eager whose outcomes are kept."""

    def __init__(self) -> None:
        self.runtime = Runtime()
        self.eager = Eager(self.runtime)
        self.ended: list[tuple[Any, Any, BaseException | None]] = []
        self.waiting: asyncio.Future[None] = self.runtime.loop.create_future()

    def finish(self, argument: Any, result: Any, error: BaseException | None) -> None:
        self.ended.append((argument, result, error))
        if not self.waiting.done():
            self.waiting.set_result(None)

    def run(self, work: Coroutine[Any, Any, Any], argument: Any) -> asyncio.Task[None] | None:
        """Step, and keep what came of it; the task if it goes on."""
        try:
            result = self.eager.step(work, self.finish, argument)
        except KeyError as error:
            self.finish(argument, None, error)
            return None
        if result is SUSPENDED:
            return self.eager.task
        self.finish(argument, result, None)
        return None

    async def one_more(self) -> None:
        self.waiting = self.runtime.loop.create_future()
        await self.waiting

    async def close(self) -> None:
        self.eager.close()
        await self.runtime.cancel_tasks()


def test_what_never_waits_ends_inline_and_makes_no_task_of_its_own(run: Run) -> None:
    async def main() -> None:
        bench = Bench()

        async def work() -> int:
            return 7

        tasks = len(asyncio.all_tasks())
        for number in range(100):
            assert bench.run(work(), number) is None
        assert len(asyncio.all_tasks()) == tasks + 1  # the spare
        assert [result for _, result, _ in bench.ended] == [7] * 100
        assert [argument for argument, _, _ in bench.ended] == list(range(100))
        await bench.close()

    run(main)


def test_an_error_is_handed_over_now_and_later(run: Run) -> None:
    async def main() -> None:
        bench = Bench()

        async def now() -> None:
            raise KeyError("now")

        async def later() -> None:
            await asyncio.sleep(0)
            raise KeyError("later")

        bench.run(now(), 1)
        bench.run(later(), 2)
        await bench.one_more()
        assert [str(error) for _, _, error in bench.ended] == ["'now'", "'later'"]
        await bench.close()

    run(main)


def test_a_handler_is_inside_one_and_the_same_task_from_first_step_to_last(run: Run) -> None:
    async def main() -> None:
        bench = Bench()
        seen: list[asyncio.Task[Any] | None] = []
        gate: asyncio.Future[None] = bench.runtime.loop.create_future()

        async def work() -> str:
            seen.append(asyncio.current_task())
            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(0))
                await gate
            seen.append(asyncio.current_task())
            return "done"

        mine = asyncio.current_task()
        task = bench.run(work(), 0)
        assert asyncio.current_task() is mine
        gate.set_result(None)
        await bench.one_more()
        assert task is not None and seen == [task, task] and task is not mine
        assert bench.ended == [(0, "done", None)]
        await bench.close()

    run(main)


def test_a_timeout_that_starts_in_the_first_step_works(run: Run) -> None:
    async def main() -> None:
        bench = Bench()

        async def work() -> None:
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()

        bench.run(work(), 0)
        await bench.one_more()
        assert isinstance(bench.ended[0][2], TimeoutError)
        await bench.close()

    run(main)


@pytest.mark.parametrize("at_once", [True, False])
def test_cancelling_reaches_the_handler_wherever_it_waits(run: Run, at_once: bool) -> None:
    async def main() -> None:
        bench = Bench()
        cleaned: list[str] = []

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                cleaned.append("yes")

        task = bench.run(work(), 0)
        assert task is not None
        if not at_once:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert cleaned == ["yes"] and isinstance(bench.ended[0][2], asyncio.CancelledError)
        await bench.close()

    run(main)


def test_what_one_handler_sets_in_its_context_no_other_sees(run: Run) -> None:
    async def main() -> None:
        bench = Bench()
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

        async def work(value: str, waits: bool) -> str:
            before = variable.get()
            variable.set(value)
            if waits:
                await asyncio.sleep(0)
            return f"{before} then {variable.get()}"

        bench.run(work("a", False), 0)
        bench.run(work("b", True), 1)
        bench.run(work("c", False), 2)
        await bench.one_more()
        assert sorted(result for _, result, _ in bench.ended) == ["unset then a", "unset then b", "unset then c"]
        await bench.close()

    run(main)


def test_handlers_that_call_handlers_inline_nest(run: Run) -> None:
    async def main() -> None:
        bench = Bench()
        tasks: list[asyncio.Task[Any] | None] = []

        async def inner() -> int:
            tasks.append(asyncio.current_task())
            return 1

        async def outer() -> int:
            tasks.append(asyncio.current_task())
            bench.run(inner(), "inner")
            tasks.append(asyncio.current_task())
            return 2

        bench.run(outer(), "outer")
        assert bench.ended == [("inner", 1, None), ("outer", 2, None)]
        assert tasks[0] is tasks[2] and tasks[0] is not tasks[1]
        await bench.close()

    run(main)


def test_a_handler_that_cancels_its_own_task_and_returns_harms_no_other(run: Run) -> None:
    async def main() -> None:
        bench = Bench()

        async def rude() -> int:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            return 1

        async def patient() -> int:
            await asyncio.sleep(0)
            return 2

        assert bench.run(rude(), "rude") is None
        assert bench.run(patient(), "patient") is not None
        await bench.one_more()
        assert bench.ended[-1][1:] == (2, None)
        await bench.close()

    run(main)


def test_a_handler_that_raises_generator_exit_has_failed_like_any_other(run: Run) -> None:
    async def main() -> None:
        bench = Bench()

        async def odd(wait: bool) -> None:
            if wait:
                await asyncio.sleep(0)
            raise GeneratorExit

        for _ in range(2):
            with pytest.raises(RuntimeError, match="GeneratorExit"):
                bench.run(odd(False), "at once")
        bench.run(odd(True), "later")
        await bench.one_more()
        assert [type(error) for _, _, error in bench.ended] == [RuntimeError]
        await bench.close()

    run(main)
