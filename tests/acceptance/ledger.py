"""What writers tried and what came of it, kept where no kill reaches it; and what may be found in the end.

A writer tells of an attempt before it sends anything and of its end after the answer, so that the writer's death leaves
the attempt open: it counts as one of unknown outcome, as does one that failed with `may_have_run`. It may then have
taken effect once, at any time since, or not at all. What was refused (`may_have_run` is False) must not be found.

    put, get        of keys with one writer each: a read gives the last value acknowledged (or read), or an unknown one
    hit, update     increments: acknowledged <= found <= acknowledged + unknown; no result comes twice, and none is
                    lower than one that was known before it was asked for
    append          tokens, each once: the result is the place where it must be found, and stays
    put_if_absent   one winner

The results in real-time order are what a linearizable counter would give (Herlihy and Wing, Linearizability, TOPLAS
1990, section 2); for increments, which all give another result, looking at the order of results is enough.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FULL", "KINDS", "TOKENS_MAX", "Attempt", "Entry", "Found", "Ledger"]

KINDS = ("put", "get", "hit", "update", "append", "put_if_absent")
TOKENS_MAX = 50
"""A list of tokens takes no more."""
FULL = -1
"""The result of an append to a list that was full: nothing was changed."""

ACKNOWLEDGED, REFUSED, UNKNOWN = "acknowledged", "refused", "unknown"

Entry = list[Any]
"""["begun", number, kind, key, value, at], or [outcome, number, result or error, at]."""
Found = dict[str, dict[str, Any]]
"""By kind and key, what a node reads in the end; a key that is missing is missing."""


@dataclass(slots=True)
class Attempt:
    """One call of one writer. Times are CLOCK_MONOTONIC."""

    kind: str
    key: str
    value: Any
    begun_at: float
    outcome: str = UNKNOWN
    result: Any = None
    """Its answer, or the name of its error."""
    ended_at: float = float("inf")


@dataclass
class Ledger:
    """All attempts, by kind and key, in the order in which they were begun; gets are among the puts of their key."""

    attempts: dict[str, dict[str, list[Attempt]]] = field(default_factory=lambda: {kind: {} for kind in CHECKS})
    _open: dict[str, dict[int, Attempt]] = field(default_factory=lambda: defaultdict(dict))

    def take(self, writer: str, entries: Iterable[Entry]) -> None:
        """What a writer told. A writer is one life of a process, and numbers its attempts."""
        running = self._open[writer]
        for what, number, *rest in entries:
            if what == "begun":
                kind, key, value, at = rest
                attempt = running[number] = Attempt(kind, key, value, at, result="killed")
                self.attempts["put" if kind == "get" else kind].setdefault(key, []).append(attempt)
            else:
                attempt = running.pop(number)
                attempt.outcome, attempt.result, attempt.ended_at = what, *rest

    def all(self) -> Iterable[Attempt]:
        for by_key in self.attempts.values():
            for attempts in by_key.values():
                yield from attempts

    def keys(self, kind: str) -> list[str]:
        return sorted(self.attempts[kind])

    def count(self, outcome: str) -> dict[str, int]:
        """How many attempts had that outcome, by kind."""
        counts = Counter(attempt.kind for attempt in self.all() if attempt.outcome == outcome)
        return {kind: counts[kind] for kind in KINDS}

    def errors(self) -> dict[str, int]:
        """What failed attempts ended with, by kind of attempt."""
        failed = Counter(f"{each.kind} {each.result}" for each in self.all() if each.outcome != ACKNOWLEDGED)
        return dict(sorted(failed.items()))

    def silences(self, stretches: Sequence[tuple[float, float]]) -> list[float]:
        """The longest time without any acknowledged write that overlaps with each of these stretches, in seconds."""
        times = acknowledged_at(self.all())
        return [longest_gap(times, *stretch) for stretch in stretches]

    def slowest(self, stretches: Sequence[tuple[float, float]]) -> list[float]:
        """How long the slowest acknowledged write took that was under way in each of these stretches, in seconds."""
        written = [each for each in self.all() if each.outcome == ACKNOWLEDGED and each.kind != "get"]
        times = [(each.begun_at, each.ended_at) for each in written]
        return [
            max((ended - begun for begun, ended in times if begun <= until and ended >= since), default=0.0)
            for since, until in stretches
        ]

    def faults(self, found: Found) -> list[str]:
        """What cannot be, given what was acknowledged."""
        faults = [f"{each.kind} {each.key}: {each.result}" for each in self.all() if each.result in DEFECTS]
        for kind, check in CHECKS.items():
            for key in sorted(self.attempts[kind].keys() | found.get(kind, {}).keys()):
                attempts = self.attempts[kind].get(key, [])
                faults += [f"{key}: {fault}" for fault in check(attempts, found.get(kind, {}).get(key))]
        return faults


DEFECTS = ("RemoteError", "ProtocolError", "VersionSkew", "ConfigError", "NotFound")
"""Errors that nothing of the play gives a reason for."""


def acknowledged_at(attempts: Iterable[Attempt]) -> list[float]:
    """When writes were acknowledged, in order."""
    return sorted(each.ended_at for each in attempts if each.outcome == ACKNOWLEDGED and each.kind != "get")


def longest_gap(ordered: Sequence[float], since: float, until: float) -> float:
    """Between two neighbours of which the earlier is before `until` and the later after `since`."""
    near = ordered[max(bisect_left(ordered, since) - 1, 0) : bisect_right(ordered, until) + 1]
    return max((b - a for a, b in itertools.pairwise(near)), default=0.0)


def split(attempts: Sequence[Attempt]) -> tuple[list[Attempt], list[Attempt]]:
    """Those that were acknowledged, and those of which nobody knows."""
    acknowledged = [attempt for attempt in attempts if attempt.outcome == ACKNOWLEDGED]
    return acknowledged, [attempt for attempt in attempts if attempt.outcome == UNKNOWN]


def register_faults(attempts: Sequence[Attempt], found: int | None) -> list[str]:
    """Puts and gets of one writer after the other, and what was found in the end."""
    faults: list[str] = []
    last: int | None = None
    unknown: set[int] = set()
    for attempt in attempts:
        if attempt.kind == "get":
            if attempt.outcome == ACKNOWLEDGED:
                last = _look(attempt.result, last, unknown, faults, f"read at {attempt.ended_at:.3f}")
        elif attempt.outcome == ACKNOWLEDGED:
            last = attempt.value
        elif attempt.outcome == UNKNOWN:
            unknown.add(attempt.value)
    _look(found, last, unknown, faults, "found in the end")
    return faults


def _look(seen: int | None, last: int | None, unknown: set[int], faults: list[str], when: str) -> int | None:
    """What stands there after this was seen. A put of unknown outcome takes effect once."""
    if seen == last:
        return last
    if seen is None or seen not in unknown:
        faults.append(f"{seen} {when}, {last} was acknowledged or seen before; unknown: {sorted(unknown)}")
    else:
        unknown.discard(seen)
    return seen


def counter_faults(attempts: Sequence[Attempt], found: int | None) -> list[str]:
    """Increments by one, whose results are the new values."""
    acknowledged, unknown = split(attempts)
    faults: list[str] = []
    low, high, value = len(acknowledged), len(acknowledged) + len(unknown), found or 0
    if value < low:
        faults.append(f"{low} were acknowledged, {value} are found: {low - value} lost")
    if value > high:
        faults.append(f"{value} are found, at most {high} can have been applied: {value - high} twice")
    return faults + order_faults(acknowledged)


def order_faults(acknowledged: Sequence[Attempt]) -> list[str]:
    """Each result comes once, and greater than all that were acknowledged before the attempt was begun."""
    ordered = sorted(acknowledged, key=lambda attempt: int(attempt.result))
    twice = [one.result for one, other in itertools.pairwise(ordered) if one.result == other.result]
    late = []
    last_begun = float("-inf")
    for attempt in ordered:
        if attempt.ended_at < last_begun:
            late.append(attempt.result)
        last_begun = max(last_begun, attempt.begun_at)
    faults = []
    if twice:
        faults.append(f"{len(twice)} results were given twice, the first is {twice[0]}")
    if late:
        faults.append(
            f"{len(late)} results were known when attempts with lower ones were begun, the first is {late[0]}"
        )
    return faults


def token_faults(attempts: Sequence[Attempt], found: Sequence[str] | None) -> list[str]:
    """Appends of unique tokens, whose results are their places, from one on."""
    tokens = found or []
    acknowledged, unknown = split(attempts)
    there = [attempt for attempt in acknowledged if attempt.result != FULL]
    times = Counter(tokens)
    faults = [f"{token} is there {count} times" for token, count in times.items() if count > 1]
    faults += [f"{each.value} was acknowledged and is lost" for each in there if each.value not in times]
    places = {token: place for place, token in enumerate(tokens, 1)}
    faults += [
        f"{each.value} was acknowledged as number {each.result} and is number {places[each.value]}"
        for each in there
        if places.get(each.value, each.result) != each.result
    ]
    possible = {each.value for each in (*there, *unknown)}
    faults += [f"{token} is there, and was refused or never sent" for token in times if token not in possible]
    if len(there) < len(acknowledged) and len(tokens) < TOKENS_MAX:
        faults.append(f"it was full once, and has {len(tokens)} tokens")
    if len(tokens) > TOKENS_MAX:
        faults.append(f"{len(tokens)} tokens are there, none is added to {TOKENS_MAX}")
    return faults + order_faults(there)


def race_faults(attempts: Sequence[Attempt], found: int | None) -> list[str]:
    """put_if_absent of values that differ, whose results say who won."""
    acknowledged, unknown = split(attempts)
    winners = [attempt.value for attempt in acknowledged if attempt.result]
    faults = [f"{winners} all won"] if len(winners) > 1 else []
    if winners and found not in winners:
        faults.append(f"{winners} won, and {found} is found")
    if not winners and acknowledged and found is None:
        faults.append("it was said to exist, and is missing")
    if not winners and found is not None and found not in {attempt.value for attempt in unknown}:
        faults.append(f"{found} is found, and was refused or never sent")
    return faults


CHECKS: dict[str, Callable[[Sequence[Attempt], Any], list[str]]] = {
    "put": register_faults,
    "hit": counter_faults,
    "update": counter_faults,
    "append": token_faults,
    "put_if_absent": race_faults,
}
