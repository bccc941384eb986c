"""What is compared with what, and which ratio is wanted.

`at_least` and `aim` are the ratios that roost promises itself; a comparison without them is there to explain the
others. For rates more is better, for times less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Literal, NamedTuple

import msgspec

from benchmarks.contenders import Sample

__all__ = ["GOALS", "Goal", "Ratio", "ratios_of"]

Figure = Literal["rate", "p50", "processor"]

_VALUES: dict[Figure, Callable[[Sample], float]] = {
    "rate": lambda sample: sample.rate,
    "p50": lambda sample: sample.p50_microseconds,
    "processor": lambda sample: sample.processor_microseconds,
}


class Goal(NamedTuple):
    """A ratio: of ours, a contender and its job, to theirs."""

    text: str
    figure: Figure
    ours: tuple[str, str]
    theirs: tuple[str, str]
    at_least: float | None = None
    aim: float | None = None


class Ratio(msgspec.Struct, frozen=True):
    """What was measured of a goal: the median of the rounds' ratios, and the least and the most of them."""

    text: str
    figure: str
    ratio: float
    least: float
    most: float
    at_least: float | None
    aim: float | None

    @property
    def verdict(self) -> str:
        """Whether the goal is reached; empty where there is none."""
        if self.at_least is None or self.aim is None:
            return ""
        less_is_better = self.figure != "rate"
        for wanted, verdict in ((self.aim, "aim"), (self.at_least, "reached")):
            if self.ratio == wanted or (self.ratio < wanted) == less_is_better:
                return verdict
        return "missed"


def _same(
    text: str,
    figure: Figure,
    job: str,
    ours: str,
    theirs: str,
    at_least: float | None = None,
    aim: float | None = None,
) -> Goal:
    return Goal(text, figure, (ours, job), (theirs, job), at_least, aim)


GOALS = (
    _same("call, 64 in flight, to distributed Erlang", "rate", "calls-64", "roost", "erlang", 4, 6),
    _same("call, 64 in flight, to xoscar", "rate", "calls-64", "roost", "xoscar", 10, 16),
    _same("call, 64 in flight, to Ray", "rate", "calls-64", "roost", "ray", 60, 100),
    _same("call, 64 in flight, to redis-py GET over 64 connections", "rate", "calls-64", "roost", "redis", 6, 12),
    _same("one call at a time, its p50, to distributed Erlang", "p50", "one", "roost", "erlang", 1.2, 1.0),
    Goal(
        "fan-out: 8 peers, 64 in flight in all, to one peer",
        "rate",
        ("roost-fan-out", "fan-out"),
        ("roost-fan-out", "calls-64"),
        0.6,
        0.8,
    ),
    _same("1 MiB payloads, to distributed Erlang", "rate", "1MiB", "roost", "erlang", 0.7, 1.2),
    _same("1 MiB payloads with TLS, to without", "rate", "1MiB", "roost-tls", "roost", 0.7, 0.85),
    _same("call, 64 in flight, with TLS, to without", "rate", "calls-64", "roost-tls", "roost", 0.7, 0.85),
    _same("call, 1024 in flight, to distributed Erlang", "rate", "calls-1024", "roost", "erlang"),
    _same("casts, to distributed Erlang", "rate", "casts", "roost", "erlang"),
    _same("64 KiB payloads, to distributed Erlang", "rate", "64KiB", "roost", "erlang"),
    _same("call, 64 in flight, to a NATS request", "rate", "calls-64", "roost", "nats"),
    _same("call, 64 in flight, on the stdlib's loop, to uvloop", "rate", "calls-64", "roost-stdlib-loop", "roost"),
    _same("call, 64 in flight, plain handler, to an async one", "rate", "calls-64", "roost-plain-handler", "roost"),
    _same("one call at a time, its p50, to the bare echo", "p50", "one", "roost", "bare"),
    _same("call, 64 in flight, to the bare echo", "rate", "calls-64", "roost", "bare"),
    _same("call, 1024 in flight, to the bare echo", "rate", "calls-1024", "roost", "bare"),
    _same("casts, to the bare echo", "rate", "casts", "roost", "bare"),
    _same("call, 64 in flight, with TLS, to the bare echo's", "rate", "calls-64", "roost-tls", "bare-tls"),
    _same("processor time of a call, 64 in flight, to the bare echo", "processor", "calls-64", "roost", "bare"),
    _same("processor time of a call, 64 in flight, to Erlang", "processor", "calls-64", "roost", "erlang"),
    Goal(
        "processor time of a call in the fan-out, to one peer",
        "processor",
        ("roost-fan-out", "fan-out"),
        ("roost-fan-out", "calls-64"),
    ),
    Goal(
        "fan-out of the bare echo, to one peer",
        "rate",
        ("bare-fan-out", "fan-out"),
        ("bare-fan-out", "calls-64"),
    ),
    Goal(
        "fan-out of distributed Erlang, to one peer",
        "rate",
        ("erlang-fan-out", "fan-out"),
        ("erlang-fan-out", "calls-64"),
    ),
)


def ratios_of(samples: Mapping[tuple[str, str], Sequence[Sample]], goals: Sequence[Goal] = GOALS) -> list[Ratio]:
    """The ratios of which both sides were measured in the same rounds."""
    found = []
    for goal in goals:
        value = _VALUES[goal.figure]
        ours, theirs = samples.get(goal.ours, ()), samples.get(goal.theirs, ())
        rounds = [value(mine) / value(other) for mine, other in zip(ours, theirs, strict=False) if value(other)]
        if rounds:
            middle, least, most = (round(each, 2) for each in (median(rounds), min(rounds), max(rounds)))
            found.append(Ratio(goal.text, goal.figure, middle, least, most, goal.at_least, goal.aim))
    return found
