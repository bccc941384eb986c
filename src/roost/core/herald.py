"""What goes out to other members, and the news that rides on it.

Every message carries a bounded share of the rumours (`Rumours`), with a suspect's entry those who accuse it, the
sender's own report, and, if its receiver is suspect or down, what is said of it, so that it can refute. While there is
news, a few random members are told in quick rounds; the first goes out at once. A node that knows nobody alive has
nobody to tell: whoever turns up gets the whole view anyway, and rumours kept from the time before would only be stale.

The own report is renewed when the view's digest has changed, but no more often than there are quick rounds, so that a
storm of changes is not a storm of reports.

Invariants: a rumour is about an entry (a report) that there is; in one period a node starts a bounded number
of messages, however large the cluster.
Source of telling the accused with the very ping: A. Dadgar, J. Phillips, J. Currey, "Lifeguard", DSN-W 2018,
section IV.C, Buddy System.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from roost.core.dissemination import Rumours, tellings_max
from roost.core.gossip import (
    Ack,
    Doubt,
    Entry,
    Gone,
    Gossip,
    Health,
    Nack,
    Ping,
    PingRequest,
    ReachAnswer,
    ReachRequest,
    Report,
    Sync,
)
from roost.core.membership_events import Effect, SendGossip
from roost.core.suspicion import Suspicions
from roost.core.view import View

__all__ = ["Herald"]

RIDERS_MAX = 32
"""Entries that ride on one message; as many reports; and as many doubts."""
FANOUT = 3
"""Members told in one quick round."""
ROUND_SHARE = 0.2
"""Quick rounds are this share of `probe_seconds` apart, and so are the node's own reports at least."""
STRANGERS_MAX = 1024
"""Addresses of linked nodes that are not in the view."""


class Herald:
    """Writes one node's messages."""

    __slots__ = (
        "_effects",
        "_gone",
        "_report_due",
        "_rng",
        "_round_due",
        "_round_seconds",
        "_strangers",
        "_suspicions",
        "_view",
        "entries",
        "reports",
    )

    def __init__(
        self,
        view: View,
        suspicions: Suspicions,
        effects: list[Effect],
        gone: Callable[[], list[Gone]],
        *,
        probe_seconds: float,
        rng: random.Random,
        now: float,
    ) -> None:
        self._view = view
        self._suspicions = suspicions
        self._effects = effects
        self._gone = gone
        self._rng = rng
        self._round_seconds = ROUND_SHARE * probe_seconds
        self._round_due = self._report_due = now
        self._strangers: dict[int, str] = {}
        self.entries = Rumours()
        self.reports = Rumours()
        view.reports[view.me.uid] = Report(view.me.uid, 1, view.digest)

    def meet(self, uid: int, address: str) -> None:
        """There is a link to a node that is not in the view."""
        self._strangers[uid] = address
        if len(self._strangers) > STRANGERS_MAX:
            del self._strangers[next(iter(self._strangers))]

    def part(self, uid: int) -> None:
        """That link is gone, or the node has come into the view."""
        self._strangers.pop(uid, None)

    # messages

    def send_ping(self, uid: int, number: int) -> None:
        self._send(uid, Ping(number, *self._riders(uid)))

    def send_request(self, uid: int, number: int, target: int) -> None:
        self._send(uid, PingRequest(number, target, *self._riders(uid)))

    def send_ack(self, uid: int, number: int) -> None:
        self._send(uid, Ack(number, *self._riders(uid)))

    def send_nack(self, uid: int, number: int, refused: bool) -> None:
        self._send(uid, Nack(number, refused, *self._riders(uid)))

    def send_news(self, uid: int) -> None:
        """An `Ack` of no ping: only its riders matter."""
        self._send(uid, Ack(0, *self._riders(uid)))

    def send_last_word(self, uid: int) -> None:
        """The own entry alone."""
        self._send(uid, Ack(0, [self._view.me], []))

    def send_accusation(self, entry: Entry) -> None:
        """To the accused itself, which may refute it."""
        self._send(entry.uid, Ack(0, [entry], []))

    def send_view(self, uid: int, *, answer: bool) -> None:
        """All entries and reports; with `answer` the other's are asked for."""
        entries = self._view.sorted()
        reports = [report for entry in entries if (report := self._view.reports.get(entry.uid)) is not None]
        self._send(uid, Sync(answer, entries, reports, self._doubts(entries), self._gone()))

    def send_reach_request(self, uid: int, number: int) -> None:
        self._send(uid, ReachRequest(number))

    def send_reach_answer(self, uid: int, number: int, reason: str) -> None:
        self._send(uid, ReachAnswer(number, reason))

    def address_of(self, uid: int) -> str:
        """Where the node listens, as far as it is known."""
        entry = self._view.entries.get(uid)
        return entry.address if entry is not None else self._strangers.get(uid, "")

    def _send(self, uid: int, message: Gossip) -> None:
        self._effects.append(SendGossip(uid, self.address_of(uid), message))

    def _doubts(self, entries: list[Entry]) -> list[Doubt]:
        suspects = (entry.uid for entry in entries if entry.uid in self._suspicions)
        return [doubt for uid in suspects for doubt in self._suspicions.doubts(uid)]

    def _riders(self, uid: int) -> tuple[list[Entry], list[Report], list[Doubt]]:
        view = self._view
        limit = tellings_max(len(view.live_others()) + 1)
        told = dict.fromkeys(self.entries.pick(RIDERS_MAX, limit))
        known = view.entries.get(uid)
        if known is not None and known.health != Health.ALIVE:
            told[uid] = None
        reporters = dict.fromkeys(self.reports.pick(RIDERS_MAX, limit)) | {view.me.uid: None}
        entries = [view.entries[one] for one in told]
        return entries, [view.reports[one] for one in reporters], self._doubts(entries)[:RIDERS_MAX]

    # rounds

    def hurry(self, now: float) -> None:
        """What has just changed is worth a round of its own."""
        self._round_due = now

    def start_anew(self) -> None:
        """Nobody is left to whom the rumours would be news, but for the own entry."""
        self.rest()
        self.entries.add(self._view.me.uid)

    def rest(self) -> None:
        """Nothing more is told."""
        self.entries.clear()
        self.reports.clear()

    def tick(self, now: float) -> None:
        """Renew the own report and make a quick round, if they are due."""
        view = self._view
        own = view.reports[view.me.uid]
        if own.digest != view.digest and now >= self._report_due:
            view.reports[own.uid] = Report(own.uid, own.number + 1, view.digest)
            self.reports.add(own.uid)
            self._report_due = now + self._round_seconds
        live = view.live_others()
        if not live:
            self.rest()
        if self._has_news() and now >= self._round_due:
            self._round_due = now + self._round_seconds
            for uid in self._rng.sample(live, min(FANOUT, len(live))):
                if self._has_news():
                    self.send_news(uid)

    @property
    def wake_at(self) -> float:
        """The earliest time at which something is due."""
        view = self._view
        round_due = self._round_due if self._has_news() else math.inf
        return min(round_due, self._report_due) if view.reports[view.me.uid].digest != view.digest else round_due

    def _has_news(self) -> bool:
        return len(self.entries) + len(self.reports) > 0

    def check(self) -> None:
        """Assert the invariants."""
        view = self._view
        assert all(uid in view.entries for uid in self.entries)
        assert all(uid in view.reports for uid in self.reports)
        assert not self._has_news() or view.live_others(), "rumours, and nobody to tell"
        assert len(self._strangers) <= STRANGERS_MAX
        assert view.me.uid not in self._strangers
