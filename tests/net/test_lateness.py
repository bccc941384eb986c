from __future__ import annotations

from roost.net.sessions import LATENESS_SECONDS, Lateness


def test_a_frame_is_as_late_as_it_is_behind_the_fastest() -> None:
    lateness = Lateness()
    assert lateness.of(1_000, 50.000) == 0
    assert lateness.of(2_000, 51.030) == 30
    assert lateness.of(3_000, 51.990) == 0  # faster than any before: now the measure
    assert lateness.of(4_000, 53.010) == 20


def test_clocks_that_run_apart_do_not_make_frames_late() -> None:
    lateness = Lateness()
    for second in range(1_000_000):
        if second % 1000 < 70:  # some minutes of every quarter of an hour are enough
            drifted = second * 1.0001  # 100 parts in a million
            assert lateness.of(second * 1000, drifted) < 2 * LATENESS_SECONDS * 0.1 + 100.1


def test_after_a_pause_the_backlog_is_late_and_what_follows_is_not() -> None:
    lateness = Lateness()
    for second in range(100):
        lateness.of(second * 1000, 500.0 + second)
    backlog = [lateness.of(second * 1000, 620.0) for second in range(100, 120)]
    assert backlog[0] == 20_000
    assert backlog == sorted(backlog, reverse=True)
    assert lateness.of(120_000, 620.0) == 0
