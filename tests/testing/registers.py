"""Histories for tests: as text, from a register that really is atomic, and the slow way to tell a good one."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from roost.testing import UNKNOWN, History
from roost.testing.histories import Call

OPERATIONS = ("get", "put", "delete", "put_if_absent", "update")


class Atomic:
    """One value; each operation takes effect at once. Independent of `roost.testing.Register`."""

    def __init__(self) -> None:
        self.value: Any = None

    def apply(self, call: Call) -> Any:
        """Takes effect as it may; returns the result."""
        before = self.value
        if call.operation == "get":
            return before
        if call.operation == "put":
            self.value = call.argument
            return None
        if call.operation == "delete":
            self.value = None
            return before is not None
        if call.operation == "put_if_absent":
            if before is None:
                self.value = call.argument
            return before is None
        assert call.operation == "update"
        given, self.value = call.argument
        return self.value if given == before else "never"

    def explains(self, call: Call) -> bool:
        """Can the call be the next one?"""
        result = self.apply(call)
        return bool(result != "never" if call.result is UNKNOWN else result == call.result)


def has_an_order(calls: Sequence[Call]) -> bool:
    """Tries every order of every choice of the calls that may not have happened."""
    certain = [call for call in calls if call.result is not UNKNOWN]
    maybe = [call for call in calls if call.result is UNKNOWN]
    for count in range(len(maybe) + 1):
        for some in itertools.combinations(maybe, count):
            for order in itertools.permutations((*certain, *some)):
                register = Atomic()
                if keeps_time(order) and all(register.explains(call) for call in order):
                    return True
    return False


def keeps_time(order: Sequence[Call]) -> bool:
    pairs = itertools.combinations(order, 2)
    return not any(after.ended is not None and after.ended < before.began for before, after in pairs)


def atomic_history(
    rng: random.Random,
    calls: int,
    *,
    clients: int = 8,
    operations: Sequence[str] = OPERATIONS,
    unknown: float = 0.0,
    value: Callable[[int], Any] = lambda number: number,
) -> History:
    """Clients call one register at random, each its next operation when the last has returned, or is given up.

    A share `unknown` of the calls is given up: a third of these never take effect, a third have done so, and the last
    third do so at some later time.
    """
    history, register, numbers = History(), Atomic(), itertools.count(1)
    late: list[Call] = []

    def client(name: str) -> Iterator[None]:
        while (number := next(numbers)) <= calls:
            operation = rng.choice(operations)
            call = history.begin(name, "x", operation, None if operation in ("get", "delete") else value(number))
            yield from itertools.repeat(None, rng.randrange(4))
            if operation == "update":
                call.argument = (register.value, value(number))
            lost = rng.random()
            if lost < unknown * 2 / 3:
                history.fail(call, may_have_run=True)
                if lost < unknown / 3:
                    late.append(call)
                continue
            result = register.apply(call)
            if lost < unknown:
                history.fail(call, may_have_run=True)
                continue
            yield from itertools.repeat(None, rng.randrange(4))
            history.end(call, result)

    running = [client(f"client{number}") for number in range(clients)]
    while running:
        if late and rng.random() < 0.05:
            call = late.pop(rng.randrange(len(late)))
            if call.operation != "update" or call.argument[0] == register.value:
                register.apply(call)
        turn = rng.choice(running)
        if next(turn, turn) is turn:
            running.remove(turn)
    return history


def timeline(text: str) -> History:
    """A history drawn over time, one call a line: `|---| ann: put a`, `|--| bob: get -> a`, `|-> cid: update a b`.

    A bar that ends in `>` has an unknown outcome. Of moments in one column the begins come first.
    """
    history, moments = History(), list[tuple[int, int, int]]()
    drawn = [line for line in text.splitlines() if line.strip()]
    for index, line in enumerate(drawn):
        begin = line.index("|")
        end = begin + 1 + len(line[begin + 1 :]) - len(line[begin + 1 :].lstrip("-"))
        moments.append((begin, 0, index))
        if line[end] == "|":
            moments.append((end, 1, index))
    begun: dict[int, Call] = {}
    for _, is_end, index in sorted(moments):
        client, words = drawn[index].lstrip(" |->").split(":")
        asked, _, answered = words.partition(" -> ")
        operation, *values = (_value(word) for word in asked.split())
        argument = tuple(values) if operation == "update" else values[0] if values else None
        if is_end:
            history.end(begun[index], values[1] if operation == "update" else _value(answered.strip() or "None"))
        else:
            begun[index] = history.begin(client, "x", operation, argument)
    return history


def _value(word: str) -> Any:
    return {"None": None, "True": True, "False": False}.get(word, word)
