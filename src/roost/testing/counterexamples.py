"""Why a history is wrong, in as few calls as a person wants to read.

Leaving a call out may make a history wrong that was right: a `get` needs its `put`. But a call may always be *excused*,
that is, its result be taken for unknown: it may have taken effect before it returned, or not at all. If there is still
no order, then its result is not to blame. What is left when none can be excused any more is the *core*; its results
contradict each other, whatever the others did. Of the others, the *context*, only those are kept without which a part
of the core would be wrong by itself.

It begins with the calls that returned near the one that no order got past, and takes in more until these do. That
takes many searches for an order. When they take too long, what was found until then is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from roost.errors import Overloaded
from roost.testing.histories import UNKNOWN, Call

__all__ = ["drawn", "smallest"]

LINES_MAX = 30
FIRST_CALLS = 4

Holds = Callable[[Sequence[Call]], bool]


def smallest(calls: Sequence[Call], holds: Holds, stuck: int) -> tuple[list[Call], list[Call]]:
    """(core, context) of calls that do not hold, as seen at the moment `stuck`. `holds` may raise Overloaded."""

    def contradicts(core: Sequence[Call]) -> bool:
        kept = set(core)
        return not holds([call if call in kept else _excused(call) for call in calls])

    certain = [(abs(call.ended - stuck), call.began, call) for call in calls if call.ended is not None]
    core = _fewest(_near([call for _, _, call in sorted(certain)], contradicts), contradicts)
    kept = set(core)

    def explains(context: Sequence[Call]) -> bool:
        others = [_excused(call) for call in context]
        return all(holds([*(_excused(call) if call is each else call for call in core), *others]) for each in core)

    return core, _fewest([call for call in calls if call not in kept], explains)


def _excused(call: Call) -> Call:
    return replace(call, result=UNKNOWN)


def _near(calls: Sequence[Call], good: Callable[[Sequence[Call]], bool]) -> Sequence[Call]:
    """The first that are good, or all."""
    count = FIRST_CALLS
    try:
        while count < len(calls) and not good(calls[:count]):
            count *= 2
    except Overloaded:
        return calls
    return calls[:count]


def _fewest(calls: Sequence[Call], good: Callable[[Sequence[Call]], bool]) -> list[Call]:
    """Calls that are still good, while none of them can be spared. To be good must get no easier with fewer."""
    left = list(calls)
    size = len(left)
    try:
        while size:
            start = 0
            while start < len(left):
                fewer = left[:start] + left[start + size :]
                if good(fewer):
                    left = fewer
                else:
                    start += size
            size //= 2
    except Overloaded:
        pass
    return left


def drawn(core: Sequence[Call], context: Sequence[Call], stuck: int) -> str:
    """The calls over time, one a line, those of the context in brackets; if they are many, those about `stuck`."""
    near = sorted((*core, *context), key=lambda call: abs(call.began - stuck))
    shown = sorted(near[:LINES_MAX], key=lambda call: call.began)
    moments = sorted({moment for call in shown for moment in (call.began, call.ended) if moment is not None})
    column = {moment: 2 * position for position, moment in enumerate(moments)}
    width = 2 * len(moments)
    lines = [f"  {len(shown)} of them:"] if len(shown) < len(near) else []
    for call in shown:
        start = column[call.began]
        end = width if call.ended is None else column[call.ended]
        bar = " " * start + "|" + "-" * (end - start - 1) + ("|" if call.ended is not None else ">")
        lines.append(f"  {bar:<{width + 3}}{call!r}" if call in core else f"  {bar:<{width + 3}}[{call!r}]")
    return "\n".join(lines)
