"""Admission in the other direction: can the members reach a newcomer at the address that it advertises?

A node behind a firewall, or with a wrong `advertise`, can join others over the link that it opened itself, and would be
up until that link breaks. So a newcomer that has found others goes up only when one of them has opened a link to it.
It asks up to three, in turn: `ReachRequest`. Who is asked dials it, over a fresh link even if there is one, and says
how that went. An incoming link of a member is the proof as well. A node that forms the cluster alone needs none.

If all that were asked say that they cannot connect, the newcomer gives up at once; if nothing comes back, it asks again
every period and gives up after `admit_seconds`. Both end with who was asked and what they said.

A member dials only the address that the newcomer has given in its handshake, and each newcomer once at a time.

Invariants: at most three members are asked; a number of dials at a time that has a bound; a verdict is never changed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

__all__ = ["Dials", "Reaching"]

ASKED_MAX = 3
"""One member may be cut off itself, or be on the newcomer's own side of a firewall; three rarely are."""
OPENERS_MAX = 64
"""Nodes remembered to have opened a link to this one, before it is known whether they are members."""
DIALS_MAX = 64
"""Newcomers that a member dials at one time. Others ask again, or somebody else."""
REASON_CHARS_MAX = 200
"""What another node gives as its reason is cut to this."""


@dataclass(slots=True)
class Asked:
    """One member that was asked."""

    number: int
    reason: str | None = None
    """Why it could not; None: it has not answered."""


class Reaching:
    """The newcomer's end."""

    __slots__ = (
        "_admit_seconds",
        "_ask_at",
        "_asked",
        "_give_up_at",
        "_number",
        "_openers",
        "_retry_seconds",
        "_rng",
        "reached",
    )

    def __init__(self, rng: random.Random, *, retry_seconds: float, admit_seconds: float) -> None:
        self._rng = rng
        self._retry_seconds = retry_seconds
        self._admit_seconds = admit_seconds
        self._number = 0
        self._asked: dict[int, Asked] = {}
        self._openers: dict[int, None] = {}
        self._ask_at = -math.inf
        self._give_up_at = math.inf
        self.reached = False
        """Some member has opened a link to this node."""

    def opened_by(self, uid: int) -> None:
        """That node has opened a link to this one."""
        self._openers[uid] = None
        if len(self._openers) > OPENERS_MAX:
            del self._openers[next(iter(self._openers))]

    def answered(self, uid: int, number: int, reason: str) -> None:
        """A member says how it went."""
        asked = self._asked.get(uid)
        if asked is None or asked.number != number:
            return
        self.reached = self.reached or not reason
        if asked.reason is None:
            asked.reason = "".join(char if char.isprintable() else "?" for char in reason[:REASON_CHARS_MAX])
            self._ask_at = -math.inf

    def look(self, live: Sequence[int], now: float, *, first: int) -> tuple[int, int] | None:
        """(member, number) if one of the live members has to be asked now; `first` before all others."""
        self.reached = self.reached or any(uid in self._openers for uid in live)
        if self.reached or not live or now < self._ask_at:
            return None
        if self._give_up_at == math.inf:
            self._give_up_at = now + self._admit_seconds
        self._ask_at = now + self._retry_seconds
        for uid in [uid for uid, asked in self._asked.items() if asked.reason is None and uid not in live]:
            del self._asked[uid]
        others = [uid for uid in live if uid not in self._asked] if len(self._asked) < ASKED_MAX else []
        choice = others or [uid for uid, asked in self._asked.items() if asked.reason is None]
        if not choice:
            return None
        uid = first if first in choice else self._rng.choice(choice)
        self._number += 1
        self._asked[uid] = Asked(self._number)
        return uid, self._number

    def failed(self, live: Collection[int], now: float) -> dict[int, str] | None:
        """What each member that was asked says, if it is certain or late enough that none can reach this node."""
        if self.reached or not live or not self._asked:
            return None
        answers = {uid: asked.reason or "no answer" for uid, asked in self._asked.items()}
        if now >= self._give_up_at:
            return answers
        more = len(self._asked) < ASKED_MAX and any(uid not in self._asked for uid in live)
        pending = any(asked.reason is None and uid in live for uid, asked in self._asked.items())
        refused = any(asked.reason is not None for asked in self._asked.values())
        return answers if refused and not more and not pending else None

    def move(self, seconds: float) -> None:
        """This node stood still for so long, and heard nobody."""
        self._give_up_at += seconds

    @property
    def wake_at(self) -> float:
        """The earliest time at which something is due."""
        return math.inf if self.reached or self._give_up_at == math.inf else min(self._ask_at, self._give_up_at)

    def check(self) -> None:
        """Assert the invariants."""
        assert len(self._asked) <= ASKED_MAX
        assert len(self._openers) <= OPENERS_MAX


class Dials:
    """The member's end: whom it dials for whom."""

    __slots__ = ("_numbers",)

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}

    def begin(self, uid: int, number: int) -> bool:
        """A newcomer asks; whether to dial it now."""
        under_way = uid in self._numbers
        if not under_way and len(self._numbers) >= DIALS_MAX:
            return False
        self._numbers[uid] = number
        return not under_way

    def end(self, uid: int) -> int | None:
        """That is done: the number to answer with."""
        return self._numbers.pop(uid, None)

    def check(self) -> None:
        """Assert the invariant."""
        assert len(self._numbers) <= DIALS_MAX
