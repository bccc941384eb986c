"""The laws of the hybrid clock."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from roost.core.clock import STAMP_MAX, HybridClock, milliseconds_of, stamp_of

WALL_MS = st.integers(0, 2**47)
AHEAD_MS = 5000


@given(st.lists(st.tuples(st.booleans(), WALL_MS, WALL_MS)))
@settings(deadline=None)
def test_stamps_only_ever_grow_whatever_the_wall_clock_and_the_others_do(events: list[tuple[bool, int, int]]) -> None:
    clock = HybridClock()
    greatest = -1
    for is_tick, wall_ms, other_ms in events:
        if is_tick:
            stamp = clock.tick(wall_ms)
            assert greatest < stamp <= STAMP_MAX
            greatest = stamp
        elif clock.observe(stamp_of(other_ms), wall_ms, AHEAD_MS):
            greatest = max(greatest, stamp_of(other_ms))


@given(WALL_MS, st.integers(0, 10_000))
def test_a_stamp_too_far_ahead_never_advances_ours(wall_ms: int, ahead_ms: int) -> None:
    clock = HybridClock()
    before = clock.tick(wall_ms)
    accepted = clock.observe(stamp_of(wall_ms + ahead_ms), wall_ms, AHEAD_MS)
    assert accepted == (ahead_ms <= AHEAD_MS)
    assert milliseconds_of(clock.tick(wall_ms)) <= wall_ms + AHEAD_MS
    assert clock.last > before


def test_a_stamp_is_the_wall_clock_while_that_moves_on() -> None:
    clock = HybridClock()
    assert clock.tick(1000) == stamp_of(1000)
    assert clock.tick(1000) == stamp_of(1000, 1)
    assert clock.tick(400) == stamp_of(1000, 2)
    assert clock.tick(1001) == stamp_of(1001)


def test_an_event_is_stamped_after_what_it_has_seen() -> None:
    clock = HybridClock()
    clock.tick(1000)
    clock.observe(stamp_of(3000, 7), 1000, AHEAD_MS)
    assert clock.tick(1000) == stamp_of(3000, 8)


def test_a_full_counter_carries_into_the_milliseconds() -> None:
    clock = HybridClock(stamp_of(1000, 0xFFFF))
    assert clock.tick(1000) == stamp_of(1001, 0)
