"""Probes: is a member alive? Asked directly, then through others, and on behalf of others.

A probe goes out every period, to each member once a round in an order shuffled anew (so that the time to the first
probe of a dead member has a bound), and at once after a hint. It starts with a ping. After `probe_timeout_seconds`,
or as soon as the contact is known to have failed, up to three others are asked to ping the member for us. Whatever
comes from the member itself in the meantime, or an ack by one who was asked, ends the probe well. After the period
it has failed; it fails as *refused*, and then at once, if the own contact was refused and so was that of everyone
who answered (or nobody is there to be asked).

Periods and timeouts are the profile's, multiplied by the node's own local health (`LocalHealth`), which each probe's
outcome betters or worsens. What is asked of it on behalf of others it does at their pace.

A hint (a broken link, a refused contact) starts a probe outside the period, of one member at most once per
`probe_timeout_seconds`; a hint that comes sooner waits.

Invariants: at most one probe a member; every probe and relay has an end.
Source: A. Das, I. Gupta, A. Motivala, "SWIM", DSN 2002, sections 3.1 and 4.3; A. Dadgar, J. Phillips, J. Currey,
"Lifeguard", DSN-W 2018, section IV.A.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Protocol

from roost.config import Timings
from roost.core.local_health import LocalHealth

__all__ = ["ASKED_MAX", "Probing", "ProbingOwner", "ProbingPost"]

ASKED_MAX = 3
"""How many others are asked to probe: with a tenth of the messages lost, all three fail one time in eighty."""
RELAYS_MAX = 1024
"""Probes on behalf of others at one time; beyond it requests are answered with `Nack`."""
RELAY_SHARE = 0.8
"""Of the requester's timeout a relay waits this share, so that its `Nack` still arrives in time."""


class ProbingOwner(Protocol):
    """What probing needs of the membership."""

    def live_others(self) -> list[int]: ...
    def probe_failed(self, uid: int, refused: bool) -> None: ...
    def probe_succeeded(self, uid: int) -> None: ...


class ProbingPost(Protocol):
    """How its messages go out."""

    def send_ping(self, uid: int, number: int) -> None: ...
    def send_request(self, uid: int, number: int, target: int) -> None: ...
    def send_ack(self, uid: int, number: int) -> None: ...
    def send_nack(self, uid: int, number: int, refused: bool) -> None: ...


@dataclass(slots=True)
class Probe:
    """One question under way."""

    target: int
    number: int
    ask_at: float
    """When others are asked; infinite once they have been."""
    end_at: float
    refused: bool = False
    """The own contact was refused."""
    asked: dict[int, bool | None] = field(default_factory=dict)
    """Who was asked; True: refused there too, False: no contact there, None: no answer yet."""


@dataclass(slots=True)
class Relay:
    """A probe for somebody else."""

    requester: int
    their_number: int
    target: int
    end_at: float


class Probing:
    """All probes and relays of one node."""

    __slots__ = (
        "_due",
        "_health",
        "_hinted",
        "_hints",
        "_number",
        "_owner",
        "_post",
        "_relays",
        "_rng",
        "_round",
        "_timings",
        "probes",
    )

    def __init__(
        self, owner: ProbingOwner, post: ProbingPost, timings: Timings, rng: random.Random, health: LocalHealth
    ) -> None:
        self._owner = owner
        self._post = post
        self._health = health
        self._timings = timings
        self._rng = rng
        self._round: list[int] = []
        self._due = math.inf
        self._number = 0
        self._hints: dict[int, float] = {}
        """When the probe after a hint is due."""
        self._hinted: dict[int, float] = {}
        """When the last probe after a hint began."""
        self._relays: dict[int, Relay] = {}
        self.probes: dict[int, Probe] = {}

    @property
    def wake_at(self) -> float:
        """The earliest time at which something is due."""
        wake = min(self._due, *self._hints.values()) if self._hints else self._due
        for probe in self.probes.values():
            wake = min(wake, probe.ask_at, probe.end_at)
        for relay in self._relays.values():
            wake = min(wake, relay.end_at)
        return wake

    def add(self, uid: int, now: float) -> None:
        """A member has come (back) to life: put it somewhere into the round."""
        if uid not in self._round:
            self._round.insert(self._rng.randint(0, len(self._round)), uid)
        if self._due == math.inf:
            self._due = now + self._timings.probe_seconds * self._rng.uniform(0.1, 1.0)

    def drop(self, uid: int) -> None:
        """A member is down, has left or is forgotten: its probe means nothing any more."""
        self.probes.pop(uid, None)
        self._hints.pop(uid, None)
        self._hinted.pop(uid, None)

    def hint(self, uid: int, now: float) -> None:
        """Something says that the member may be dead: probe it now, or as soon as its last hint is old enough."""
        if uid not in self._hints:
            self._hints[uid] = max(now, self._hinted.get(uid, -math.inf) + self._timings.probe_timeout_seconds)

    def sign_of_life(self, uid: int) -> None:
        """A message of the member itself has come."""
        if uid in self.probes:
            self._succeed(uid)
        self._end_relays(uid, alive=True, refused=False)

    def contact_failed(self, uid: int, refused: bool, now: float) -> bool:
        """No link to the member could be opened; whether a probe or a relay was waiting for it."""
        probe = self.probes.get(uid)
        relayed = self._end_relays(uid, alive=False, refused=refused)
        if probe is None:
            return relayed
        probe.refused = probe.refused or refused
        if probe.ask_at != math.inf:
            self._ask(probe)
        self._judge_early(probe)
        return True

    def acked(self, number: int, source: int) -> None:
        """Somebody who was asked has reached the target."""
        probe = self._asked(number, source)
        if probe is not None:
            self._succeed(probe.target)

    def nacked(self, number: int, source: int, refused: bool) -> None:
        """Somebody who was asked has not reached the target."""
        probe = self._asked(number, source)
        if probe is not None:
            probe.asked[source] = refused
            self._judge_early(probe)

    def relay(self, requester: int, number: int, target: int, *, reachable: bool, now: float) -> None:
        """Probe `target` for `requester`."""
        if not reachable or len(self._relays) >= RELAYS_MAX:
            self._post.send_nack(requester, number, False)
            return
        self._number += 1
        end_at = now + RELAY_SHARE * self._timings.probe_timeout_seconds
        self._relays[self._number] = Relay(requester, number, target, end_at)
        self._post.send_ping(target, self._number)

    def move(self, seconds: float) -> None:
        """This node stood still for so long: nobody is late because of that."""
        self._due += seconds
        for moments in (self._hints, self._hinted):
            for uid in moments:
                moments[uid] += seconds
        for probe in self.probes.values():
            probe.ask_at += seconds
            probe.end_at += seconds
        for relay in self._relays.values():
            relay.end_at += seconds

    def tick(self, now: float) -> None:
        """Do what is due."""
        for uid in [uid for uid, due in self._hints.items() if due <= now]:
            del self._hints[uid]
            self._hinted[uid] = now
            if uid in self.probes:
                # Its ping may have been lost with the link; a new one shows whether the host refuses.
                self._post.send_ping(uid, self.probes[uid].number)
            else:
                self._start(uid, now)
        for probe in list(self.probes.values()):
            if probe.ask_at <= now:
                self._ask(probe)
                self._judge_early(probe)
        for probe in list(self.probes.values()):
            if probe.end_at <= now:
                self._fail(probe)
        for number, relay in list(self._relays.items()):
            if relay.end_at <= now:
                del self._relays[number]
                self._post.send_nack(relay.requester, relay.their_number, False)
        if self._due <= now:
            self._begin_period(now)

    def _begin_period(self, now: float) -> None:
        live = self._owner.live_others()
        if not live:
            self._due = math.inf
            return
        self._due = now + self._health.factor * self._timings.probe_seconds
        wanted = dict.fromkeys(live)
        for _ in range(2):
            while self._round:
                uid = self._round.pop()
                if uid in wanted and uid not in self.probes:
                    self._start(uid, now)
                    return
            self._round = list(live)
            self._rng.shuffle(self._round)

    def _start(self, uid: int, now: float) -> None:
        timings, factor = self._timings, self._health.factor
        self._number += 1
        # Twice the timeout leaves the others as much time as this node had itself.
        lasts = factor * max(timings.probe_seconds, 2 * timings.probe_timeout_seconds)
        probe = Probe(uid, self._number, now + factor * timings.probe_timeout_seconds, now + lasts)
        self.probes[uid] = probe
        self._post.send_ping(uid, self._number)

    def _ask(self, probe: Probe) -> None:
        probe.ask_at = math.inf
        others = [uid for uid in self._owner.live_others() if uid != probe.target]
        for uid in self._rng.sample(others, min(ASKED_MAX, len(others))):
            probe.asked[uid] = None
            self._post.send_request(uid, probe.number, probe.target)

    def _asked(self, number: int, source: int) -> Probe | None:
        for probe in self.probes.values():
            if probe.number == number:
                return probe if source in probe.asked else None
        return None

    def _judge_early(self, probe: Probe) -> None:
        """Nobody is left whose answer could change the verdict."""
        if probe.refused and probe.ask_at == math.inf and all(refused is True for refused in probe.asked.values()):
            self._fail(probe)

    def _succeed(self, uid: int) -> None:
        del self.probes[uid]
        self._health.better()
        self._owner.probe_succeeded(uid)

    def _fail(self, probe: Probe) -> None:
        del self.probes[probe.target]
        refused = probe.refused and all(answer is not False for answer in probe.asked.values())
        if not refused:
            self._health.worse(1 + sum(answer is None for answer in probe.asked.values()))
        self._owner.probe_failed(probe.target, refused)

    def _end_relays(self, target: int, *, alive: bool, refused: bool) -> bool:
        ended = [number for number, relay in self._relays.items() if relay.target == target]
        for number in ended:
            relay = self._relays.pop(number)
            if alive:
                self._post.send_ack(relay.requester, relay.their_number)
            else:
                self._post.send_nack(relay.requester, relay.their_number, refused)
        return bool(ended)

    def check(self) -> None:
        """Assert the invariants."""
        live = self._owner.live_others()
        assert all(uid in live for uid in self.probes), "a probe of a member that is not live"
        assert all(uid in live for uid in self._hints), "a hint about a member that is not live"
        assert len(self._relays) <= RELAYS_MAX
        assert len({probe.number for probe in self.probes.values()}) == len(self.probes)
        assert (self._due == math.inf) <= (not live), "members, and nobody probes them"
