"""The checker: histories drawn by hand, all small ones against brute force, large ones of a real register."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import roost
from roost.testing import (
    IMPOSSIBLE,
    UNKNOWN,
    Cluster,
    History,
    Model,
    NotLinearizable,
    RecordedKV,
    Register,
    check_linearizable,
)
from roost.testing.histories import Call
from tests.testing.registers import OPERATIONS, atomic_history, has_an_order, timeline

LINEARIZABLE = {
    "nothing": "",
    "a read beside a write sees the old value": """
        |-----| ann: put a
          |-|   bob: get -> None
    """,
    "a read beside a write sees the new value": """
        |-----| ann: put a
          |-|   bob: get -> a
    """,
    "writes beside each other take effect in either order": """
        |-----|       ann: put a
        |-----|       bob: put b
                |-|   ann: get -> a
    """,
    "a write of unknown outcome takes effect late": """
        |->                 ann: put a
            |-|             bob: put b
                |-|         bob: get -> b
                    |-|     bob: get -> a
    """,
    "a write of unknown outcome never takes effect": """
        |->         ann: put a
            |-|     bob: put b
                |-| bob: get -> b
    """,
    "a removal of unknown outcome takes effect late": """
        |-|                ann: put a
            |->            bob: delete
                |-|        ann: get -> a
                    |-|    ann: get -> None
    """,
    "an update of unknown outcome is seen by the next one": """
        |->         ann: update None a
            |-|     bob: update a b
    """,
    "updates of unknown outcome explain each other": """
        |->             ann: update None a
            |->         bob: update a b
                |-|     cid: get -> b
    """,
    "writes of unknown outcome are spared until they are needed": """
        |->                     ann: put a
          |->                   bob: put b
              |-|               cid: get -> b
                  |-|           cid: put c
                      |-|       cid: get -> a
    """,
    "an update of unknown outcome replaces a value that nobody read": """
        |-|                     ann: put a
            |->                 bob: update a b
                |-|             cid: get -> b
                    |-|         cid: put b
    """,
    "an update of unknown outcome replaces a value of unknown outcome": """
        |->                     ann: put a
            |->                 bob: update a b
                |-|             cid: get -> b
                    |-|         cid: put b
    """,
    "a value that nobody read was there to be removed": """
        |->         ann: put a
            |-|     bob: delete -> True
    """,
    "updates one after another": """
        |-|                 ann: update None 1
            |-------|       ann: update 1 2
              |-------|     bob: update 2 3
                        |-| ann: get -> 3
    """,
    "who comes first puts": """
        |-----|             ann: put_if_absent a -> False
          |-----|           bob: put_if_absent b -> True
                  |-|       ann: delete -> True
                      |-|   ann: put_if_absent c -> True
                          |-| bob: get -> c
    """,
    "a value written twice comes back": """
        |-|                 ann: put a
            |-|             ann: put b
                |-|         ann: put a
                    |-|     bob: get -> a
    """,
}

NOT_LINEARIZABLE = {
    "a stale read": """
        |-|             ann: put a
            |-|         bob: put b
                |-|     cid: get -> a
    """,
    "a read of nothing after a write": """
        |-|         ann: put a
            |-|     bob: get -> None
    """,
    "a read from the future": """
        |-|         bob: get -> a
            |-|     ann: put a
    """,
    "a read of a value never written": """
        |-|         ann: put a
            |-|     bob: get -> ghost
    """,
    "reads that see two writes in different orders": """
        |-----------|   ann: put a
        |-----------|   bob: put b
          |-|           cid: get -> a
              |-|       cid: get -> b
                  |-|   cid: get -> a
    """,
    "a value that comes back after it was overwritten": """
        |-|                 ann: put a
            |-|             bob: put b
                |-|         cid: get -> b
                    |-|     cid: get -> a
    """,
    "a lost update": """
        |-|               ann: put 0
            |-----|       ann: update 0 1
              |-----|     bob: update 0 2
    """,
    "an update applied twice": """
        |-|                     ann: put 0
            |-|                 ann: update 0 1
                |-|             bob: put 0
                    |-|         bob: get -> 1
    """,
    "an update of unknown outcome applied twice": """
        |-|                         ann: put 0
            |->                     ann: update 0 1
                |-|                 bob: update 1 2
                    |-|             bob: get -> 1
    """,
    "a removal that finds nothing": """
        |-|         ann: put a
            |-|     ann: delete -> False
    """,
    "two removals of one value": """
        |-|            ann: put a
            |-----|    ann: delete -> True
            |-----|    bob: delete -> True
    """,
    "a removed value is read": """
        |-|               ann: put a
            |-|           ann: delete -> True
                |-|       bob: get -> a
    """,
    "two that both come first": """
        |-----|     ann: put_if_absent a -> True
          |-----|   bob: put_if_absent b -> True
    """,
    "one who does not come first, and is seen": """
        |-|                 ann: put a
            |-|             bob: put_if_absent b -> False
                |-|         bob: get -> b
    """,
    "nobody put what was there already": """
        |-|     ann: put_if_absent a -> False
    """,
    "a write of unknown outcome takes effect twice": """
        |->                         ann: put a
            |-|                     bob: get -> a
                |-|                 bob: put b
                    |-|             bob: get -> a
    """,
    "a write of unknown outcome takes effect before it was asked for": """
        |-|           bob: get -> a
            |->       ann: put a
    """,
}


class Plain:
    """A register of which the checker knows nothing but what it does."""

    initial: Hashable = None

    def apply(self, state: Any, operation: str, argument: Any, result: Any) -> Hashable:
        return Register().apply(state, operation, argument, result)


MODELS: list[Model] = [Register(), Plain()]


@pytest.mark.parametrize("model", MODELS, ids=["register", "plain"])
@pytest.mark.parametrize("name", LINEARIZABLE)
def test_what_is_linearizable_passes(name: str, model: Model) -> None:
    history = timeline(LINEARIZABLE[name])
    assert has_an_order(history.calls)
    check_linearizable(history, model)


@pytest.mark.parametrize("model", MODELS, ids=["register", "plain"])
@pytest.mark.parametrize("name", NOT_LINEARIZABLE)
def test_what_is_not_linearizable_is_refused(name: str, model: Model) -> None:
    history = timeline(NOT_LINEARIZABLE[name])
    assert not has_an_order(history.calls)
    with pytest.raises(NotLinearizable) as refused:
        check_linearizable(history, model)
    assert refused.value.key == "x"
    assert not has_an_order(refused.value.calls)


# against brute force


@st.composite
def small_histories(draw: st.DrawFn) -> list[Call]:
    """Up to six calls at random moments, with random results, few enough values to agree now and then."""
    count = draw(st.integers(1, 6))
    words = st.sampled_from((None, 1, 2))
    different = draw(st.booleans())
    moments = draw(st.permutations(range(2 * count)))
    calls = []
    for number in range(count):
        operation = draw(st.sampled_from(OPERATIONS))
        value: int = number + 1 if different else draw(st.integers(1, 2))
        argument: Any = value if operation.startswith("put") else None
        result: Any = None
        if operation == "get":
            result = draw(words)
        elif operation in ("delete", "put_if_absent"):
            result = draw(st.booleans())
        elif operation == "update":
            argument, result = (draw(words), value), value
        began, ended = sorted(moments[2 * number : 2 * number + 2])
        known = draw(st.sampled_from((True, True, False)))
        outcome = (ended, result) if known else (draw(st.sampled_from((ended, None))), UNKNOWN)
        calls.append(Call("ann", "x", operation, argument, began, *outcome))
    return calls


@settings(max_examples=400, deadline=None)
@given(small_histories())
def test_it_says_what_trying_all_orders_says(calls: list[Call]) -> None:
    expected = has_an_order(calls)
    for model in MODELS:
        try:
            check_linearizable(calls, model)
        except NotLinearizable as refused:
            assert not expected
            assert not has_an_order(refused.calls)
        else:
            assert expected


# histories of a real register


def values(different: bool) -> Any:
    return (lambda number: number) if different else (lambda number: number % 3)


@pytest.mark.parametrize("different", [True, False])
@pytest.mark.parametrize("seed", range(15))
def test_an_atomic_register_is_linearizable(seed: int, different: bool) -> None:
    rng = random.Random(seed)
    clients, unknown = rng.randint(1, 8), rng.choice((0.0, 0.1, 0.5))
    operations = rng.sample(OPERATIONS, rng.randint(1, 5))
    history = atomic_history(rng, 200, clients=clients, operations=operations, unknown=unknown, value=values(different))
    check_linearizable(history)


def impossible(history: History, rng: random.Random) -> Iterator[tuple[Call, Any]]:
    """Calls with an argument or a result that they cannot have had, all values being different."""
    calls = [call for call in history.calls if call.ended is not None]
    gets = [call for call in calls if call.operation == "get"]
    puts = [call for call in calls if call.operation == "put"]
    updates = [call for call in calls if call.operation == "update"]
    get = rng.choice(gets)
    yield get, "ghost"
    later = [put for put in puts if get.ended is not None and put.began > get.ended]
    if later:
        yield get, rng.choice(later).argument
    before = [put for put in puts if put.ended is not None and put.ended < get.began]
    overwritten = [put for put in before if any(put.ended is not None and put.ended < other.began for other in before)]
    if overwritten:
        yield get, rng.choice(overwritten).argument
    first, second = rng.sample(updates, 2)
    if first.argument[0] is not None:
        yield second, (first.argument[0], second.argument[1])


@pytest.mark.parametrize("unknown", [0.0, 0.2])
@pytest.mark.parametrize("seed", range(5))
def test_one_impossible_result_is_found_among_many_calls(seed: int, unknown: float) -> None:
    rng = random.Random(seed)
    history = atomic_history(rng, 300, unknown=unknown)
    for call, lie in impossible(history, rng):
        truth = call.argument, call.result
        if call.operation == "get":
            call.result = lie
        else:
            call.argument = lie
        with pytest.raises(NotLinearizable) as refused:
            check_linearizable(history)
        assert len(refused.value.calls) < 15
        call.argument, call.result = truth
        check_linearizable(history)


@pytest.mark.parametrize("unknown", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("operations", [("get", "put"), ("get", "update"), OPERATIONS])
def test_a_long_history_takes_few_configurations(operations: tuple[str, ...], unknown: float) -> None:
    history = atomic_history(random.Random(1), 5_000, operations=operations, unknown=unknown)
    check_linearizable(history, configurations_max=20_000)


@pytest.mark.parametrize("unknown", [0.0, 0.1, 0.5])
def test_a_long_history_is_refused_in_few_configurations(unknown: float) -> None:
    history = atomic_history(random.Random(2), 2_000, operations=("get", "put", "update"), unknown=unknown)
    last = [call for call in history.calls if call.operation == "get" and call.ended is not None][-1]
    first = next(call for call in history.calls if call.operation == "put" and call.ended is not None)
    last.result = first.argument
    with pytest.raises(NotLinearizable):
        check_linearizable(history, configurations_max=20_000)


def test_it_does_not_begin_what_it_cannot_end() -> None:
    history = atomic_history(random.Random(3), 500)
    with pytest.raises(roost.Overloaded) as refused:
        check_linearizable(history, configurations_max=10)
    assert refused.value.what == "configurations_max"


# what it says, and of what


def test_the_message_shows_the_few_calls_that_contradict_each_other() -> None:
    history = atomic_history(random.Random(4), 500, operations=("get", "put"))
    put = history.begin("ann", "x", "put", "old")
    history.end(put)
    over = history.begin("bob", "x", "put", "new")
    history.end(over)
    get = history.begin("cid", "x", "get")
    history.end(get, "old")
    with pytest.raises(NotLinearizable) as refused:
        check_linearizable(history)
    assert refused.value.calls == (put, over, get)
    assert str(refused.value).splitlines() == [
        "'x' is not linearizable: no order explains 2 of its 503 calls, whether or not any of the others took effect "
        "(some are shown, in brackets)",
        "  |-|            [ann: put('old') -> None]",
        "      |-|        bob: put('new') -> None",
        "          |-|    cid: get() -> 'old'",
    ]


def test_keys_are_checked_apart() -> None:
    history = History()
    for key, result in (("good", "a"), ("bad", "b")):
        history.end(history.begin("ann", key, "put", "a"))
        history.end(history.begin("ann", key, "get"), result)
    check_linearizable([call for call in history.calls if call.key == "good"])
    with pytest.raises(NotLinearizable) as refused:
        check_linearizable(history)
    assert refused.value.key == "bad"


def test_a_register_may_have_a_value_to_begin_with() -> None:
    history = timeline("""
        |-|                     ann: get -> a
            |-|                 ann: put b
                |-|             ann: put a
                    |-|         ann: get -> a
    """)
    check_linearizable(history, Register(initial="a"))
    with pytest.raises(NotLinearizable):
        check_linearizable(history)


def test_no_doubt_is_left_of_writes_that_somebody_saw() -> None:
    history = timeline("""
        |->                     ann: put a
          |->                   ann: update a b
            |->                 ann: update b c
              |-|               bob: get -> c
                  |->           ann: put d
    """)
    reduced = sorted(Register().reduced(history.calls).calls, key=lambda call: call.began)
    assert [(call.began, call.ended, call.result) for call in reduced] == [
        (1, 5, None),
        (2, 5, "b"),
        (3, 5, "c"),
        (4, 5, "c"),
    ]


def test_an_operation_that_the_model_does_not_know_is_a_mistake() -> None:
    history = History()
    history.end(history.begin("ann", "x", "increment"), 7)
    with pytest.raises(ValueError, match="increment"):
        check_linearizable(history)


class Lock:
    """A model as a user writes it. The state is who holds it."""

    initial: Hashable = None

    def apply(self, state: Any, operation: str, argument: Any, result: Any) -> Hashable:
        if operation == "release":
            return None if state == argument else IMPOSSIBLE
        got = state is None
        return (argument if got else state) if result in (got, UNKNOWN) else IMPOSSIBLE


def test_a_users_own_model_is_checked() -> None:
    history = History()
    ann = history.begin("ann", "lock", "acquire", "ann")
    bob = history.begin("bob", "lock", "acquire", "bob")
    history.end(bob, True)
    history.end(ann, False)
    lost = history.begin("bob", "lock", "release", "bob")
    history.fail(lost, may_have_run=True)
    history.end(history.begin("cid", "lock", "acquire", "cid"), True)
    check_linearizable(history, Lock())
    history.end(history.begin("dan", "lock", "acquire", "dan"), True)
    with pytest.raises(NotLinearizable):
        check_linearizable(history, Lock())


def test_long_histories_need_no_deep_stack() -> None:
    history = History()
    for number in range(20_000):
        history.end(history.begin("ann", "x", "put", number % 7))
    check_linearizable(history, Plain())


# a cluster


def replaced_by(word: str) -> Callable[[str | None], str]:
    return lambda old: word


async def test_a_store_in_a_cluster_at_rest_is_linearizable(cluster: Cluster) -> None:
    nodes = await cluster.start(3)
    stores = [await node.kv("words", str) for node in nodes]
    await cluster.settle()
    history = History()

    async def client(name: str, store: RecordedKV[str, str], rng: random.Random) -> None:
        for number in range(60):
            key, word = f"key{rng.randrange(3)}", f"{name}-{number}"
            match rng.choice(OPERATIONS):
                case "get":
                    await store.get(key)
                case "put":
                    await store.put(key, word)
                case "delete":
                    await store.delete(key)
                case "put_if_absent":
                    await store.put_if_absent(key, word)
                case _:
                    await store.update(key, replaced_by(word))
            await cluster.sleep(rng.random() * 0.002)

    names = [f"client{number}" for number in range(6)]
    await asyncio.gather(
        *(
            client(name, RecordedKV(stores[number % 3], history, name), random.Random(number))
            for number, name in enumerate(names)
        )
    )
    assert len(history) == 360
    check_linearizable(history)
    found = next(call for call in reversed(history.calls) if call.operation == "get" and call.result is not None)
    found.result = "what nobody put"
    with pytest.raises(NotLinearizable):
        check_linearizable(history)
