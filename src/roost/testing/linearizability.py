"""Is there an order of all calls, each somewhere between its begin and its end, that explains their results?

Such an order makes a history *linearizable*: the calls might as well have been made one after another. It is looked
for key by key, since a history is linearizable if and only if that of each key is (M. Herlihy and J. Wing,
"Linearizability: A Correctness Condition for Concurrent Objects", TOPLAS 12(3), 1990, section 3.1, "Locality").

The search is that of J. Wing and C. Gong, "Testing and Verifying Concurrent Objects", Journal of Parallel and
Distributed Computing 17, 1993, made a search of a graph by G. Lowe, "Testing for linearizability", Concurrency and
Computation: Practice and Experience 29(4), 2017, the sections on graph search and on just-in-time linearization. It
goes depth first over *configurations* (which calls have been linearized, and the state), visits each once, and
linearizes a call *just in time*, when it or another one is about to return. What is added:

- A call of unknown outcome has no end, and so is never due. It is tried after all others. Those that are alike are
  counted, not told apart, and a configuration is not visited if the same one was with fewer of them spent. As counts
  make many configurations of one, two short searches come first: one that visits it with only one count (an order that
  it finds is an order), and one in which nothing is ever spent (if even that finds none, there is none).
- A call that ended and has an unknown result all the same is left out at its end, at the latest.
- Of calls that are alike and are running, the one that returns first is linearized first.
- What the model knows (`Reducing`): calls that cannot harm are linearized at once, and no state is left that others
  still need.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Final

from roost.errors import Overloaded
from roost.testing.counterexamples import drawn, smallest
from roost.testing.histories import UNKNOWN, Call, History
from roost.testing.models import IMPOSSIBLE, Model, Reducing, Reduction
from roost.testing.register import Register

__all__ = ["NotLinearizable", "check_linearizable"]

CONFIGURATIONS_MAX = 1_000_000
SMALLER_STEPS_MAX = 1_000_000
"""How many configurations, and calls to prepare, may go into making a counterexample small."""
_REGISTER: Final = Register()

Configuration = tuple[int, frozenset[int], Hashable, tuple[int, ...]]
"""How many returns are past, the calls linearized that have not returned, the state, the open ones spent, by kind."""


class NotLinearizable(AssertionError):
    """No order explains the calls on `key`. `calls` are enough to see it; the message shows them over time."""

    def __init__(self, message: str, *, key: Hashable, calls: Sequence[Call]) -> None:
        super().__init__(message)
        self.key = key
        self.calls = tuple(calls)


def check_linearizable(
    history: History | Iterable[Call], model: Model = _REGISTER, *, configurations_max: int = CONFIGURATIONS_MAX
) -> None:
    """Raise NotLinearizable for the first key whose calls no order explains.

    With the `Register` and values that are all different it takes about as long as the history is. It may grow with
    two to the power of the clients of a key where values repeat, or with a model of your own; Overloaded tells that a
    key took more than `configurations_max` and was not decided.
    """
    by_key: dict[Hashable, list[Call]] = {}
    for call in history.calls if isinstance(history, History) else history:
        by_key.setdefault(call.key, []).append(call)
    for key, calls in by_key.items():
        search = _Search(calls, model, configurations_max)
        if not search.succeeds():
            raise _counterexample(key, calls, model, search.stuck)


def _counterexample(key: Hashable, calls: Sequence[Call], model: Model, stuck: int) -> NotLinearizable:
    left = SMALLER_STEPS_MAX

    def holds(some: Sequence[Call]) -> bool:
        nonlocal left
        if left < 0:
            raise Overloaded("the counterexample is as small as it gets in time", what="steps", limit=SMALLER_STEPS_MAX)
        search = _Search(some, model, left)
        try:
            return search.succeeds()
        finally:
            left -= len(some) + search.visited

    core, context = smallest(calls, holds, stuck)
    text = (
        f"{key!r} is not linearizable: no order explains {len(core)} of its {len(calls)} calls, whether or not any "
        f"of the others took effect{' (some are shown, in brackets)' if context else ''}\n{drawn(core, context, stuck)}"
    )
    return NotLinearizable(text, key=key, calls=sorted((*core, *context), key=lambda call: call.began))


class _Search:
    """One search for an order of the calls of one key."""

    def __init__(self, calls: Sequence[Call], model: Model, configurations_max: int) -> None:
        reduction = model.reduced(calls) if isinstance(model, Reducing) else Reduction(calls)
        self._model = model
        self._limit = configurations_max
        self.visited = 0
        self._steps = sorted((call for call in reduction.calls if call.ended is not None), key=_end)
        self._alike = [_kind(call) for call in self._steps]
        self._calm = [call in reduction.calm for call in self._steps]
        self._running = _running(self._steps)
        ranks = {call: rank for rank, call in enumerate(self._steps)}
        self._needs = {state: [ranks[call] for call in some] for state, some in reduction.needs.items()}
        self._spent = reduction.spent
        open_kinds: dict[Hashable, list[Call]] = {}
        for call in sorted((call for call in reduction.calls if call.ended is None), key=lambda call: call.began):
            open_kinds.setdefault(_kind(call), []).append(call)
        self._furthest = 0
        self._open = [(some[0], [call.began for call in some]) for some in open_kinds.values()]

    @property
    def stuck(self) -> int:
        """The moment of the return that no order got past, if there was none."""
        return _end(self._steps[self._furthest])

    def succeeds(self) -> bool:
        """Is there an order? Overloaded if that took too many configurations to tell."""
        nothing = (0,) * len(self._open)
        return self._reaches_end(nothing, once=True) or (
            bool(self._open) and self._reaches_end((), once=True) and self._reaches_end(nothing)
        )

    def _reaches_end(self, spent: tuple[int, ...], once: bool = False) -> bool:
        """`spent` counts the open calls of each kind; without counts none is ever spent."""
        first = self._calmed(0, frozenset(), self._model.initial, spent)
        known: dict[tuple[int, frozenset[int], Hashable], list[tuple[int, ...]]] = {}
        stack = [iter([first])]
        while stack:
            configuration = next(stack[-1], None)
            if configuration is None:
                stack.pop()
                continue
            past, ahead, state, spent = configuration
            if past == len(self._steps):
                return True
            before = known.setdefault((past, ahead, state), [])
            if before and (once or any(all(map(int.__le__, less, spent)) for less in before)):
                continue
            before.append(spent)
            self._furthest = max(self._furthest, past)
            self.visited += 1
            if self.visited > self._limit:
                text = (
                    f"not decided after {self._limit} configurations: let fewer clients share a key, let values "
                    "differ, or raise configurations_max"
                )
                raise Overloaded(text, what="configurations_max", limit=self._limit)
            stack.append(self._next(past, ahead, state, spent))
        return False

    def _next(
        self, past: int, ahead: frozenset[int], state: Hashable, spent: tuple[int, ...]
    ) -> Iterator[Configuration]:
        """What may be linearized before the next return: first the call that returns, at last those that never do."""
        apply = self._model.apply
        tried = set[Hashable]()
        for rank in self._running[past]:
            if rank in ahead or self._alike[rank] in tried:
                continue
            tried.add(self._alike[rank])
            call = self._steps[rank]
            after = apply(state, call.operation, call.argument, call.result)
            if after is not IMPOSSIBLE and (after == state or not self._needed(state, past, ahead, rank)):
                yield self._calmed(past, ahead | {rank}, after, spent)
        if self._steps[past].result is UNKNOWN:
            yield self._calmed(past, ahead | {past}, state, spent)
        if self._needed(state, past, ahead):
            return
        moment = _end(self._steps[past])
        for kind, (call, begins) in enumerate(self._open):
            if (spent[kind] if spent else 0) < bisect(begins, moment):
                after = apply(state, call.operation, call.argument, UNKNOWN)
                if after is not IMPOSSIBLE and after != state:
                    more = (*spent[:kind], spent[kind] + 1, *spent[kind + 1 :]) if spent else spent
                    yield self._calmed(past, ahead, after, more)

    def _needed(self, state: Hashable, past: int, ahead: frozenset[int], rank: int = -1) -> bool:
        """Must the state stay until others than those linearized, and the one of this rank, have been?"""
        needs = self._needs.get(state)
        return needs is not None and any(each >= past and each != rank and each not in ahead for each in needs)

    def _calmed(self, past: int, ahead: frozenset[int], state: Hashable, spent: tuple[int, ...]) -> Configuration:
        """The configuration after all that can do no harm, and after all returns of what has been linearized."""
        steps, apply = self._steps, self._model.apply
        while past < len(steps):
            if past in ahead:
                ahead -= {past}
                past += 1
                continue
            if state in self._needs and not self._needed(state, past, ahead):
                state = self._spent
            calm = [
                rank
                for rank in self._running[past]
                if self._calm[rank]
                and rank not in ahead
                and apply(state, steps[rank].operation, steps[rank].argument, steps[rank].result) == state
            ]
            if not calm:
                break
            ahead = ahead.union(calm)
        return past, ahead, state, spent


def _end(call: Call) -> int:
    assert call.ended is not None
    return call.ended


def _kind(call: Call) -> Hashable:
    """Calls of one kind do the same in every state."""
    kind = (call.operation, call.argument, call.result)
    try:
        hash(kind)
    except TypeError:
        return call
    return kind


def _running(steps: Sequence[Call]) -> list[list[int]]:
    """For each return the calls that run at that moment, by rank: those that return first come first."""
    running: list[list[int]] = []
    begins = sorted(range(len(steps)), key=lambda rank: steps[rank].began, reverse=True)
    for past, step in enumerate(steps):
        now = [rank for rank in running[-1] if rank >= past] if running else []
        while begins and steps[begins[-1]].began < _end(step):
            now.append(begins.pop())
        running.append(sorted(now))
    return running
