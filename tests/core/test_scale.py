"""The harness of `make scale` at its smallest: what it counts is what happened."""

from __future__ import annotations

from benchmarks.crowd import Crowd
from benchmarks.scale import Plan, make_report, tables
from roost.core.gossip import Health


def test_a_crowd_begins_formed_and_settled_and_says_nothing_new() -> None:
    crowd = Crowd(20)
    assert crowd.agree(crowd.members)
    crowd.run(30.0)
    assert not crowd.accusations
    assert 50 < crowd.bytes_sent / 30.0 / 20 < 500


def test_three_members_for_a_minute_make_a_row() -> None:
    told: list[str] = []
    report = make_report((Plan(3, member_hours=3 / 60, trials=2),), told.append)
    (row,) = report.figures
    assert row.first_suspicion_seconds and row.first_down_seconds and row.half_down_seconds and row.all_down_seconds
    assert row.all_down_seconds_max and row.join_bytes and row.join_seconds
    assert 0.0 < row.first_suspicion_seconds < row.first_down_seconds <= row.half_down_seconds <= row.all_down_seconds
    assert row.all_down_seconds <= row.all_down_seconds_max
    assert (row.false_suspicions, row.false_deaths) == (0.0, 0.0)
    assert row.bytes_a_second > 0 and row.join_bytes > 0 and row.join_seconds > 0
    assert f"| 3 | 0 % | {row.first_suspicion_seconds:.1f} s |" in tables(report)
    assert len(told) == 1 and told[0].startswith("1/1 (") and "3 | 0 %" in told[0]


def test_members_that_are_only_watched_have_no_other_figures() -> None:
    report = make_report((Plan(3, member_hours=3 / 3600, trials=0),), lambda text: None)
    assert report.figures[0].all_down_seconds is report.figures[0].join_bytes is None
    assert "| 3 | 0 % | - | - | - | - | - | 0 | 0 |" in tables(report)


def test_what_is_lost_makes_false_suspicions_and_they_are_counted() -> None:
    quiet, lossy = (
        make_report((Plan(5, loss, member_hours=0.1, trials=1),), lambda text: None).figures[0] for loss in (0.0, 0.3)
    )
    assert quiet.false_suspicions == 0 < lossy.false_suspicions
    assert lossy.bytes_a_second > quiet.bytes_a_second


def test_where_everything_is_lost_everybody_misses_whom_it_probes() -> None:
    crowd = Crowd(30, loss=1.0)
    crowd.run(4.0)
    assert {one.observer for one in crowd.accusations} == {one.uid for one in crowd.members}


def test_members_stand_still_as_often_as_they_are_told_to() -> None:
    crowd = Crowd(20)
    crowd.stand_still(share=0.2, shortest_seconds=0.5, longest_seconds=2.0)
    still = 0
    for _ in range(400):
        crowd.run(0.5)
        still += sum(one.state == "blocked" for one in crowd.members)
    assert 0.16 < still / 400 / 20 < 0.24
    assert not [one for one in crowd.accusations if one.health == Health.DOWN]
