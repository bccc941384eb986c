"""A move, a takeover and a change of copies in their plain order, with something going wrong after every single step.

Each procedure is played as it goes when nothing happens, with writes in between, some of them under way. After each of
its steps, once for every possibility: a node dies, a link loses all that is under way, the last message comes twice.
Then the world is left in peace, and must come to rest with every acknowledged write; with as many crashes as a write
has acknowledgements it may be gone, but not without a word. What is under way at any step is tried: nothing is sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.core.explorer import Small, small

WRITES_EVERY = 3
WRITTEN_UNTIL = 16


def move(write: str, *, replicas: int) -> Small:
    """The ring's primary changes, to a node that has a copy already if there are two."""
    world = small(replicas + 1, replicas=replicas, write=write, items=3, chunk_bytes=120)
    first, second, *others = world.preferred
    world.turn((second, first, *others))
    return world


def move_to_a_newcomer(write: str, *, replicas: int) -> Small:
    """The new primary has nothing yet, and one of the copies goes."""
    world = small(replicas + 1, replicas=replicas, write=write, items=3, chunk_bytes=120)
    world.turn((world.preferred[-1], *world.preferred[:-1]))
    return world


def copy_added(write: str, *, replicas: int) -> Small:
    """The ring wants one copy more."""
    world = small(replicas, replicas=replicas - 1, write=write, items=3, chunk_bytes=120)
    world.turn(world.preferred, replicas)
    return world


def copy_replaced(write: str, *, replicas: int) -> Small:
    """The ring wants another node for the last copy."""
    world = small(replicas + 1, replicas=replicas, write=write, items=3, chunk_bytes=120)
    *kept, last, new = world.preferred
    world.turn((*kept, new, last))
    return world


def move_and_back(write: str, *, replicas: int) -> Small:
    """The ring changes back in the middle of a move, and once more."""
    world = move_to_a_newcomer(write, replicas=replicas)
    target, *others = world.preferred
    world.turns = ((*others, target), world.preferred)
    return world


def takeover(write: str, *, replicas: int) -> Small:
    """The holder dies; there is one node more than copies."""
    world = small(replicas + 1, replicas=replicas, write=write, items=3, chunk_bytes=120)
    world.put(1)
    world.deliver(1, 2)
    world.crash(1)
    return world


def next_step(world: Small, number: int) -> bool:
    """What happens next if nothing bad does, and a write every few steps; False: it is over."""
    if number < WRITTEN_UNTIL and number % WRITES_EVERY == WRITES_EVERY - 1:
        for uid in world.executing(0):
            world.put(uid)
    if world.turns and number % 8 == 7:
        world.turn(world.turns[0])
        world.turns = world.turns[1:]
    if world.plain_step():
        return True
    if not world.wrong() and not world.turns:
        return False
    world.tick()
    return True


def steps(world: Small, start: int = 0) -> Iterator[tuple[int, Small]]:
    """The world before the first step, and after each one."""
    number, going = start, True
    while going:
        yield number, world.copy()
        assert number < start + 150, f"it does not end: {world.wrong()}"
        going = next_step(world, number)
        number += 1


def leave_in_peace(world: Small, what: str) -> None:
    try:
        world.come_to_rest()
        for uid in world.executing(0):
            world.put(uid)
        world.come_to_rest()
    except AssertionError as error:
        raise AssertionError(f"{error}\nafter {what}") from error


Procedure = Callable[..., Small]
PROCEDURES = [move, move_to_a_newcomer, copy_added, copy_replaced, move_and_back, takeover]


@pytest.mark.parametrize("write", ["majority", "all", "one"])
@pytest.mark.parametrize("procedure", PROCEDURES)
def test_a_crash_of_any_node_at_every_step(procedure: Procedure, write: str) -> None:
    tried = 0
    for replicas in (2, 3):
        for number, before in steps(procedure(write, replicas=replicas)):
            for uid in before.nodes:
                world = before.copy()
                world.crash(uid)
                leave_in_peace(world, f"{procedure.__name__} with {replicas} copies, crash of {uid} after {number}")
                tried += 1
    assert tried > 50


@pytest.mark.parametrize("procedure", PROCEDURES)
def test_a_break_of_any_link_and_a_repetition_at_every_step(procedure: Procedure) -> None:
    tried = 0
    for replicas in (2, 3):
        for number, before in steps(procedure("majority", replicas=replicas)):
            where = f"{procedure.__name__} with {replicas} copies, after step {number}"
            for pair in before.busy():
                world = before.copy()
                world.wires[pair] = []
                leave_in_peace(world, f"a break of {pair} in {where}")
                tried += 1
            if before.last is not None:
                world = before.copy()
                world.repeat()
                leave_in_peace(world, f"{before.last} twice in {where}")
                tried += 1
    assert tried > 20


@pytest.mark.parametrize(("procedure", "replicas"), [(takeover, 3), (move, 2)])
def test_two_crashes_at_every_pair_of_steps(procedure: Procedure, replicas: int) -> None:
    tried = 0
    for number, before in steps(procedure("majority", replicas=replicas)):
        for uid in before.nodes:
            after_first = before.copy()
            after_first.crash(uid)
            for later, then in steps(after_first, number):
                for other in then.nodes:
                    if len(then.nodes) == 1:
                        continue
                    world = then.copy()
                    world.crash(other)
                    what = f"{procedure.__name__}, crash of {uid} after {number} and of {other} after {later}"
                    leave_in_peace(world, what)
                    tried += 1
    assert tried > 100
