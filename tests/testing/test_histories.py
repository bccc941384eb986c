"""What is recorded of calls that return, fail, are cancelled, or never end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import roost
from roost.testing import UNKNOWN, History, NotLinearizable, RecordedKV, check_linearizable
from roost.testing.histories import Call

Values = list[int]


class Memory:
    """A store in a dict, that fails when it is told to: before or after it has done what it was asked."""

    def __init__(self) -> None:
        self.values: dict[str, Values] = {}
        self.before: BaseException | None = None
        self.after: BaseException | None = None
        self.stale: list[Values | None] = []
        """What `update` gives to its function before it gives the truth: as when others were faster."""

    async def get(self, key: str) -> Values | None:
        await self._fail(self.before)
        found = self.values.get(key)
        return None if found is None else list(found)

    async def put(self, key: str, value: Values) -> None:
        await self._fail(self.before)
        self.values[key] = list(value)
        await self._fail(self.after)

    async def delete(self, key: str) -> bool:
        await self._fail(self.before)
        found = self.values.pop(key, None) is not None
        await self._fail(self.after)
        return found

    async def put_if_absent(self, key: str, value: Values) -> bool:
        await self._fail(self.before)
        absent = key not in self.values
        self.values.setdefault(key, list(value))
        await self._fail(self.after)
        return absent

    async def update(self, key: str, function: Callable[[Values | None], Values]) -> Values:
        await self._fail(self.before)
        for value in self.stale:
            function(value)
        old = self.values.get(key)
        self.values[key] = list(function(None if old is None else list(old)))
        await self._fail(self.after)
        return list(self.values[key])

    async def _fail(self, error: BaseException | None) -> None:
        await asyncio.sleep(0)
        if error is not None:
            raise error


def appended(number: int) -> Callable[[Values | None], Values]:
    def append(old: Values | None) -> Values:
        new = [] if old is None else old
        new.append(number)  # in place: what was given is not the same afterwards
        return new

    return append


def recorded(body: Callable[[Memory, RecordedKV[str, Values]], Coroutine[Any, Any, None]]) -> History:
    history, memory = History(), Memory()
    asyncio.run(body(memory, RecordedKV(memory, history, "ann")))
    return history


def told(calls: list[Call]) -> list[tuple[str, Any, Any]]:
    return [(call.operation, call.argument, call.result) for call in calls]


def test_what_a_store_is_asked_and_answers_is_recorded() -> None:
    async def body(memory: Memory, store: RecordedKV[str, Values]) -> None:
        assert await store.get("x") is None
        assert await store.put_if_absent("x", [1])
        assert await store.update("x", appended(2)) == [1, 2]
        assert await store.get("x") == [1, 2]
        assert not await store.put_if_absent("x", [3])
        await store.put("x", [4])
        assert await store.delete("x")
        assert not await store.delete("x")
        assert await store.update("x", appended(5)) == [5]

    history = recorded(body)
    assert told(history.calls) == [
        ("get", None, None),
        ("put_if_absent", "[1]", True),
        ("update", ("[1]", "[1, 2]"), "[1, 2]"),
        ("get", None, "[1, 2]"),
        ("put_if_absent", "[3]", False),
        ("put", "[4]", None),
        ("delete", None, True),
        ("delete", None, False),
        ("update", (None, "[5]"), "[5]"),
    ]
    assert [(call.began, call.ended) for call in history.calls] == [(n, n + 1) for n in range(1, 19, 2)]
    assert {(call.client, call.key) for call in history.calls} == {("ann", "x")}
    check_linearizable(history)


def test_a_value_is_recorded_as_it_was() -> None:
    async def body(memory: Memory, store: RecordedKV[str, Values]) -> None:
        value = [1]
        await store.put("x", value)
        value.append(2)

    assert told(recorded(body).calls) == [("put", "[1]", None)]


@pytest.mark.parametrize("operation", ["get", "put", "delete", "put_if_absent", "update"])
def test_a_call_that_has_not_run_is_forgotten(operation: str) -> None:
    async def body(memory: Memory, store: RecordedKV[str, Values]) -> None:
        memory.before = roost.Overloaded("too much", what="calls")
        with pytest.raises(roost.Overloaded):
            await call(store, operation)

    assert recorded(body).calls == []


@pytest.mark.parametrize("operation", ["put", "delete", "put_if_absent", "update"])
@pytest.mark.parametrize("error", [roost.DeadlineExceeded("late"), asyncio.CancelledError(), OSError("disk")])
def test_a_call_of_which_nobody_knows_stays_open(operation: str, error: BaseException) -> None:
    async def body(memory: Memory, store: RecordedKV[str, Values]) -> None:
        memory.after = error
        with pytest.raises(type(error)):
            await call(store, operation)
        memory.after = None
        await store.get("x")

    history = recorded(body)
    lost, read = history.calls
    assert (lost.ended, lost.result) == (None, UNKNOWN)
    assert read.result == (None if operation == "delete" else "[1]")
    check_linearizable(history)


def call(store: RecordedKV[str, Values], operation: str) -> Coroutine[Any, Any, Any]:
    match operation:
        case "put" | "put_if_absent":
            found = getattr(store, operation)("x", [1])
        case "update":
            found = store.update("x", appended(1))
        case _:
            found = getattr(store, operation)("x")
    assert asyncio.iscoroutine(found)
    return found


def test_a_cancelled_caller_leaves_its_call_open() -> None:
    async def body(memory: Memory, store: RecordedKV[str, Values]) -> None:
        task = asyncio.create_task(store.put("x", [1]))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    history = recorded(body)
    assert told(history.calls) == [("put", "[1]", UNKNOWN)]


def test_an_update_is_what_its_function_was_last_given_and_returned() -> None:
    async def body(memory: Memory, store: RecordedKV[str, Values]) -> None:
        memory.values["x"] = [7]
        memory.stale = [None, [1]]
        await store.update("x", appended(8))

    assert told(recorded(body).calls) == [("update", ("[7]", "[7, 8]"), "[7, 8]")]


def test_an_update_whose_function_raises_changes_nothing() -> None:
    def refuse(old: Values | None) -> Values:
        if old is None:
            return [0]
        raise LookupError("not this one")

    async def body(memory: Memory, store: RecordedKV[str, Values]) -> None:
        await store.put("x", [7])
        memory.stale = [None]
        with pytest.raises(LookupError):
            await store.update("x", refuse)
        memory.stale = []
        await store.get("x")

    history = recorded(body)
    assert told(history.calls)[1] == ("update", None, UNKNOWN)
    check_linearizable(history)
    history.calls[2].result = "[0]"
    with pytest.raises(NotLinearizable):
        check_linearizable(history)


def test_a_store_that_forgets_a_concurrent_update_is_found_out() -> None:
    class Hasty(Memory):
        async def update(self, key: str, function: Callable[[Values | None], Values]) -> Values:
            old = await self.get(key)
            new = function(old)
            await self.put(key, new)
            return new

    async def body() -> None:
        memory = Hasty()
        await asyncio.gather(*(RecordedKV(memory, history, n).update("x", appended(n)) for n in range(3)))

    history = History()
    asyncio.run(body())
    with pytest.raises(NotLinearizable, match="update"):
        check_linearizable(history)


def test_concurrent_calls_overlap_and_others_do_not() -> None:
    history = History()
    first = history.begin("ann", "x", "put", 1)
    second = history.begin("bob", "x", "get")
    history.end(first)
    history.end(second, 1)
    third = history.begin("ann", "x", "get")
    assert (first.began, second.began, first.ended, second.ended, third.began) == (1, 2, 3, 4, 5)
    assert third.result is UNKNOWN


def test_a_call_ends_once() -> None:
    history = History()
    ended = history.begin("ann", "x", "put", 1)
    history.end(ended)
    failed = history.begin("ann", "x", "put", 2)
    history.fail(failed, may_have_run=True)
    foreign = History().begin("ann", "x", "put", 1)
    for gone in (ended, failed, foreign):
        with pytest.raises(ValueError, match="ended already"):
            history.end(gone)
        with pytest.raises(ValueError, match="ended already"):
            history.fail(gone, may_have_run=False)
    assert history.calls == [ended, failed]


def test_a_history_has_a_bound_and_says_so() -> None:
    history = History(calls_max=2)
    for _ in range(3):
        history.fail(history.begin("ann", "x", "get"), may_have_run=False)
    history.end(history.begin("ann", "x", "put", 1))
    history.begin("ann", "x", "put", 2)
    with pytest.raises(roost.Overloaded) as refused:
        history.begin("ann", "x", "put", 3)
    assert (refused.value.what, refused.value.limit) == ("calls_max", 2)
    assert not refused.value.may_have_run
    assert len(history) == 2
    assert repr(history) == "<History: 1 calls that ended, 1 that did not>"
    assert list(map(repr, history.calls)) == ["ann: put(1) -> None", "ann: put(2) -> outcome unknown"]
