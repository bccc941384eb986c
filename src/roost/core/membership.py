"""Who is in the cluster and who is alive: SWIM as a pure machine.

Theory of operation. Each node keeps entries of all members (`Roster`) and probes one of them every period (`Probing`).
News rides on every message, and for as long as there is any a few random members are told in quick rounds. Whoever
does not answer is suspect, then down; only the member itself can refute that, by raising its incarnation. Whoever
meets a stranger, or a member that it holds for down, sends its whole view and asks for the other's (`Sync`): so nodes
join, splits heal, and clusters that formed apart become one. `Contacts` makes such meetings happen, and `Comparing`
sees to it that nothing stays missed.

The node also watches itself. If it stood still (`Stillness`) or misses answers (`LocalHealth`), it is slower to accuse
others, and the fewer agree with it, the longer the accused have to refute (`Suspicions`).

Settled: the node has joined, and the last report of every other live member (joining, up or leaving, suspects among
them) is the digest of this node's view. A lone node is settled as soon as it has joined.

Invariants: what `check` asserts; `wake_at` lies after the last step, so that the shell never spins.

Source: A. Das, I. Gupta, A. Motivala, "SWIM", DSN 2002; A. Dadgar, J. Phillips, J. Currey, "Lifeguard", DSN-W 2018.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

from roost.config import Timings
from roost.core.admission import Admission
from roost.core.comparing import Comparing
from roost.core.contacts import Contacts
from roost.core.flapping import Flapping
from roost.core.gossip import Ack, Entry, Gone, Gossip, Health, Nack, Ping, PingRequest, ReachAnswer, ReachRequest, Sync
from roost.core.herald import Herald
from roost.core.local_health import LocalHealth
from roost.core.membership_events import (
    Contact,
    ContactFailed,
    Dial,
    Dialed,
    Effect,
    Event,
    Forget,
    GoUp,
    Joined,
    LeaveAsked,
    LeaveDone,
    LinkLost,
    LinkOpened,
    MemberChanged,
    NameConflict,
    NotReached,
    Received,
    SelfChanged,
    SendGossip,
    SettledChanged,
    Tick,
)
from roost.core.probing import Probing
from roost.core.reaching import Dials, Reaching
from roost.core.roster import Roster
from roost.core.stillness import Stillness
from roost.core.suspicion import Suspicions
from roost.core.transitions import Trigger
from roost.core.view import View, is_live

__all__ = [
    "Contact",
    "ContactFailed",
    "Dial",
    "Dialed",
    "Effect",
    "Event",
    "Forget",
    "GoUp",
    "Joined",
    "LeaveAsked",
    "LeaveDone",
    "LinkLost",
    "LinkOpened",
    "MemberChanged",
    "Membership",
    "NameConflict",
    "NotReached",
    "Received",
    "SelfChanged",
    "SendGossip",
    "SettledChanged",
    "Tick",
]

LEAVE_TOLD_MAX = 64
"""A leaver says `left` to so many itself."""
IDLE_SECONDS = 3600.0
"""`wake_at` when nothing is due."""


class Membership:
    """One node's membership. `step` is the only door; `wake_at` says when to step with `Tick` at the latest."""

    def __init__(
        self,
        me: Entry,
        timings: Timings,
        *,
        seeds: Sequence[str],
        rng: random.Random,
        now: float,
        rejoin_seconds: float,
        forget_seconds: float,
        form_alone_seconds: float,
        name_taken_seconds: float,
        admit_seconds: float,
        flap_seconds: float,
    ) -> None:
        self._timings = timings
        self._rng = rng
        self._forget_seconds = forget_seconds
        self._now = now
        self._effects: list[Effect] = []
        self._view = View(me)
        self._health = LocalHealth()
        self._stillness = Stillness(timings.probe_timeout_seconds)
        self._suspicions = Suspicions(timings.suspicion_seconds)
        self._herald = Herald(
            self._view,
            self._suspicions,
            self._effects,
            self._gone,
            probe_seconds=timings.probe_seconds,
            rng=rng,
            now=now,
        )
        self._roster = Roster(
            self._view, self._herald, self._suspicions, self, suspicion_seconds=timings.suspicion_seconds
        )
        self._probing = Probing(self, self._herald, timings, rng, self._health)
        self._contacts = Contacts(seeds, own_address=me.address, rng=rng, now=now, rejoin_seconds=rejoin_seconds)
        self._comparing = Comparing(self._view, self._herald, probe_seconds=timings.probe_seconds, rng=rng, now=now)
        self._admission = Admission(
            self._roster,
            retry_seconds=timings.probe_seconds,
            form_alone_at=now + form_alone_seconds,
            name_taken_seconds=name_taken_seconds,
        )
        self._reaching = Reaching(rng, retry_seconds=timings.probe_seconds, admit_seconds=admit_seconds)
        self._dials = Dials()
        self._flapping = Flapping(flap_seconds)
        self._seen_first = 0
        """Whose view was merged first."""
        self._ended = False
        self.settled = False
        self.wake_at = now

    @property
    def me(self) -> Entry:
        """The own entry."""
        return self._view.me

    def entries(self) -> list[Entry]:
        """All members by (name, uid), in every state, this one among them."""
        return self._view.sorted()

    def get(self, uid: int) -> Entry | None:
        """The member of that uid."""
        return self._view.entries.get(uid)

    def digest(self) -> int:
        """The digest of this node's view."""
        return self._view.digest

    @property
    def local_health(self) -> int:
        """0: well; up to 8: this node itself is slow or half cut off, and therefore slow to accuse others."""
        return self._health.score

    @property
    def loop_lag_seconds(self) -> tuple[float, float]:
        """How late this node was stepped when it last stood still, and the longest it ever did."""
        return self._stillness.last_seconds, self._stillness.longest_seconds

    def step(self, event: Event, now: float) -> list[Effect]:
        """Take in an event, do what is due, and return what the shell has to do, in order."""
        if self._ended:
            return []
        self._now = max(now, self._now)
        late = self._stillness.note(self._now, self.wake_at)
        if late:
            self._stood_still(late)
        self._take(event)
        if not self._ended:
            self._question_holder()
            self._do_due()
            self._admit()
        if not self._ended:
            self._herald.tick(self._now)
            self._note_digest()
        self.wake_at = self._now + IDLE_SECONDS if self._ended else self._next_wake()
        effects = list(self._effects)
        self._effects.clear()
        return effects

    def _stood_still(self, seconds: float) -> None:
        self._health.worse(self._stillness.penalty(seconds))
        self._probing.move(seconds)
        self._roster.move(seconds)
        self._admission.move(seconds)
        self._reaching.move(seconds)

    def _take(self, event: Event) -> None:
        match event:
            case Received():
                if event.source != self.me.uid:
                    self._receive(event.source, event.message)
            case LinkOpened():
                self._link_opened(event)
            case LinkLost():
                self._herald.part(event.uid)
                self._hint(event.uid)
            case ContactFailed():
                awaited = self._probing.contact_failed(event.uid, event.refused, self._now)
                if event.refused and not awaited:
                    self._hint(event.uid)
            case Dialed():
                number = self._dials.end(event.uid)
                if number is not None:
                    self._herald.send_reach_answer(event.uid, number, event.reason)
            case GoUp():
                self._admission.ready = True
            case SelfChanged():
                self._roster.change_me(Trigger.SELF_CHANGED, event.changes)
            case LeaveAsked():
                if self._roster.change_me(Trigger.LEAVE_ASKED):
                    self._herald.hurry(self._now)
            case LeaveDone():
                self._leave()
            case Forget():
                for entry in self._view.named(event.name):
                    if entry.uid != self.me.uid:
                        self._roster.conclude(entry.uid, Trigger.FORGOTTEN, self._now)
            case Tick():
                pass

    # links and messages

    def _link_opened(self, event: LinkOpened) -> None:
        uid = event.uid
        if uid == self.me.uid:
            self._contacts.is_self(event.dialed)
            return
        self._contacts.known_as(event.dialed, event.address)
        self._found_alive(uid)
        if not event.dialed:
            self._reaching.opened_by(uid)
        known = self.get(uid)
        if known is None:
            self._herald.meet(uid, event.address)
        elif known.state == "left":
            return
        if known is None or not is_live(known) or not self._admission.joined:
            self._herald.send_view(uid, answer=True)

    def _receive(self, source: int, message: Gossip) -> None:
        incarnation = self.me.incarnation
        if not isinstance(message, ReachRequest | ReachAnswer):
            self._merge(source, message)
        self._found_alive(source)
        match message:
            case Ping():
                self._herald.send_ack(source, message.number)
            case PingRequest():
                self._relay(source, message)
            case Ack():
                self._probing.acked(message.number, source)
            case Nack():
                self._probing.nacked(message.number, source, message.refused)
            case Sync():
                self._admission.synced = True
                self._seen_first = self._seen_first or source
                if message.answer:
                    self._herald.send_view(source, answer=False)
            case ReachRequest():
                address = self._herald.address_of(source)
                if address and self._dials.begin(source, message.number):
                    self._effects.append(Dial(source, address))
            case ReachAnswer():
                self._reaching.answered(source, message.number, message.reason)
        if self.me.incarnation != incarnation and not isinstance(message, Ping):
            self._herald.send_news(source)
        if not isinstance(message, Sync):
            self._comparing.heard(source, self._now)

    def _merge(self, source: int, message: Ping | Ack | PingRequest | Nack | Sync) -> None:
        roster = self._roster
        alone = not self._view.live_others()
        whole = isinstance(message, Sync)
        gone = {one.uid: one.seconds for one in message.gone} if isinstance(message, Sync) else {}
        for entry in message.entries:
            roster.learn(entry, source, whole=whole, now=self._now, gone_seconds=gone.get(entry.uid))
        for doubt in message.doubts:
            roster.hear_doubt(doubt)
        for report in message.reports:
            roster.hear(report)
        if alone and whole:
            # All that is new here comes from the sender, who has told it to those that it knows.
            self._herald.start_anew()

    def _relay(self, requester: int, message: PingRequest) -> None:
        target = self.get(message.target)
        if message.target == self.me.uid:
            self._herald.send_ack(requester, message.number)
        else:
            reachable = target is not None and target.state != "left"
            self._probing.relay(requester, message.number, message.target, reachable=reachable, now=self._now)

    def _found_alive(self, uid: int) -> None:
        self._probing.sign_of_life(uid)
        self._admission.found_alive(uid)

    def _gone(self) -> list[Gone]:
        entries = self._view.entries
        return [
            Gone(uid, self._now - since) for uid, since in self._roster.gone.items() if entries[uid].state != "left"
        ]

    def _question_holder(self) -> None:
        holder = self._admission.questioned()
        if holder is not None and holder.uid not in self._probing.probes:
            self._probing.hint(holder.uid, self._now)

    def _hint(self, uid: int) -> None:
        entry = self.get(uid)
        if entry is not None and uid != self.me.uid and is_live(entry) and entry.state != "leaving":
            self._probing.hint(uid, self._now)

    # what is due

    def _do_due(self) -> None:
        now, roster, view = self._now, self._roster, self._view
        if not self._stillness.holds(now):
            self._probing.tick(now)
            # Each that is suspect or down leaves fewer to confirm what is said of the rest.
            while due := [uid for uid, until in self._suspicion_ends().items() if until <= now]:
                roster.conclude(due[0], Trigger.SUSPICION_ENDED, now)
        while roster.gone and (first := next(iter(roster.gone.items())))[1] + self._forget_seconds <= now:
            roster.conclude(first[0], Trigger.FORGOTTEN, now)
        if self._contacts.wake_at <= now:
            addresses = {self.me.address: None} | {view.entries[uid].address: None for uid in view.live_others()}
            for address in self._contacts.tick(now, addresses):
                self._effects.append(Contact(address))
        self._comparing.tick(now)
        if self._flapping.rested(now):
            roster.change_me(Trigger.SELF_CHANGED, {"resting": False})

    def _suspicion_ends(self) -> dict[int, float]:
        return self._suspicions.ends(len(self._view.live_others()))

    def _admit(self) -> None:
        admission, now = self._admission, self._now
        holder = admission.yield_to(now)
        if holder is not None:
            self._effects.append(NameConflict(holder))
            self._end()
            return
        if admission.look_again(now):
            self._herald.send_view(self._rng.choice(self._view.live_others()), answer=True)
        live = self._view.live_others()
        if self.me.state == "joining" and admission.joined:
            # Newcomers behind one firewall would vouch for each other: they count only while nobody is up.
            live = [uid for uid in live if self._view.entries[uid].state == "up"] or live
            asked = self._reaching.look(live, now, first=self._seen_first)
            if asked is not None:
                self._herald.send_reach_request(*asked)
            said = self._reaching.failed(live, now)
            if said is not None:
                names = [(known.name if (known := self.get(uid)) else "?", reason) for uid, reason in said.items()]
                self._effects.append(NotReached(names))
                self._end()
                return
        if admission.join(now, seeded=self._contacts.seeded, reached=self._reaching.reached or not live):
            self._effects.append(Joined())

    def _note_digest(self) -> None:
        self._comparing.note_digest(self._now)
        settled = self._is_settled()
        if settled != self.settled:
            self.settled = settled
            self._effects.append(SettledChanged(settled))

    def _is_settled(self) -> bool:
        return self._admission.joined and self._view.agreed()

    def _next_wake(self) -> float:
        roster = self._roster
        wake = min(self._probing.wake_at, *self._suspicion_ends().values(), math.inf)
        wake = max(wake, self._stillness.held_until)
        wake = min(wake, self._now + IDLE_SECONDS, self._contacts.wake_at, self._herald.wake_at)
        wake = min(wake, self._comparing.wake_at, self._admission.wake_at, self._flapping.rests_until)
        if self.me.state == "joining":
            wake = min(wake, self._reaching.wake_at)
        if roster.gone:
            wake = min(wake, next(iter(roster.gone.values())) + self._forget_seconds)
        return wake

    def _leave(self) -> None:
        if self._roster.change_me(Trigger.LEAVE_DONE):
            live = self._view.live_others()
            for uid in live if len(live) <= LEAVE_TOLD_MAX else self._rng.sample(live, LEAVE_TOLD_MAX):
                self._herald.send_last_word(uid)
            self._end()

    def _end(self) -> None:
        self._ended = True
        self._herald.rest()

    # what the parts ask for: `ProbingOwner`, `RosterOwner`

    def live_others(self) -> list[int]:
        return self._view.live_others()

    def probe_failed(self, uid: int, refused: bool) -> None:
        news = self._roster.conclude(uid, Trigger.PROBE_FAILED, self._now)
        self._roster.accuse(uid)
        if refused:
            self._suspicions.shorten(uid, self._now + self._timings.refused_seconds)
        elif news:
            self._herald.send_ping(uid, 0)

    def probe_succeeded(self, uid: int) -> None:
        self._admission.found_alive(uid)

    def changed(self, before: Entry | None, after: Entry, *, forgotten: bool) -> None:
        self._effects.append(MemberChanged(before, after, forgotten))

    def came_alive(self, entry: Entry) -> None:
        self._probing.add(entry.uid, self._now)
        self._contacts.drop_down(entry.uid)
        self._herald.part(entry.uid)
        if len(self._view.live_others()) == 1:
            self._comparing.plan(self._now)

    def went(self, entry: Entry, *, forgotten: bool) -> None:
        self._probing.drop(entry.uid)
        if forgotten or entry.state == "left":
            self._contacts.drop_down(entry.uid)
        else:
            self._contacts.add_down(entry.uid, entry.address, self._now)

    def doubted(self, uid: int) -> None:
        self._hint(uid)

    def barred(self, entry: Entry) -> None:
        self._herald.send_accusation(entry)

    def accused(self) -> None:
        self._health.worse()

    def fell(self, *, mutual: bool) -> Mapping[str, object]:
        counts = not mutual and self.me.state == "up"
        return {"resting": True} if counts and self._flapping.came_back(self._now) else {}

    def check(self) -> None:
        """Assert the invariants."""
        self._roster.check()
        self._herald.check()
        self._probing.check()
        down = [entry.uid for entry in self.entries() if entry.state != "left" and entry.health == Health.DOWN]
        self._contacts.check(down)
        if not self._ended:
            self._admission.check()
        assert not self._effects
        assert self._ended or self.settled == self._is_settled()
        assert self.wake_at > self._now, "a wake-up that makes no progress"
        for part in (self._comparing, self._health, self._reaching, self._dials):
            part.check()
        self._flapping.check(self._now)
        assert self.me.resting == self._flapping.rests or self._ended
        self._stillness.check(self._now)
