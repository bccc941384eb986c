"""One membership machine on a bench: fed by hand, with a live friend, and a subject in any standing."""

from __future__ import annotations

import random
from typing import TypeVar

from roost.config import PROFILES
from roost.core.gossip import (
    Ack,
    Entry,
    Gossip,
    Health,
    Nack,
    Ping,
    PingRequest,
    ReachAnswer,
    ReachRequest,
    State,
    Sync,
)
from roost.core.membership import (
    Effect,
    Event,
    Forget,
    GoUp,
    LeaveAsked,
    LeaveDone,
    LinkOpened,
    Membership,
    Received,
    SendGossip,
    Tick,
)
from roost.core.suspicion import HIGH_FACTOR
from roost.core.transitions import Standing, Trigger, standing_of
from tests.core.swim_runner import entry

__all__ = ["FRIEND", "SUBJECT", "Bench"]

FRIEND, SUBJECT = 2, 3
G = TypeVar("G", Ping, Ack, PingRequest, Nack, Sync, ReachRequest, ReachAnswer)


class Bench:
    """One machine, a live friend to hear from, and a subject that is brought into a standing."""

    def __init__(self, standing: Standing | None = None, *, own: State = "up", alone: bool = False) -> None:
        self.now = 0.0
        self.effects: list[Effect] = []
        self.machine = Membership(
            entry("me", 10),
            PROFILES["lan"],
            seeds=[],
            rng=random.Random(1),
            now=self.now,
            rejoin_seconds=5.0,
            forget_seconds=100.0,
            form_alone_seconds=3.0,
            name_taken_seconds=20.0,
            admit_seconds=20.0,
            flap_seconds=30.0,
        )
        self.give(Tick())
        if own != "joining":
            self.give(GoUp())
        else:
            self.give(LinkOpened(FRIEND, "friend", "friend:1"))
        if alone:
            return
        self.hear(entry("friend", FRIEND, state="up"))
        self.pass_time(PROFILES["lan"].suspicion_seconds)
        if standing is not None:
            self.hear(self.subject(state="up"))
            if standing != "alive":
                self.hear(self.in_standing(standing, incarnation=1))
            assert self.standing == standing
        if own in ("leaving", "left"):
            self.give(LeaveAsked())
        if own == "left":
            self.give(LeaveDone())
        assert self.machine.me.state == own

    def give(self, event: Event) -> None:
        self.effects = self.machine.step(event, self.now)
        self.machine.check()

    def hear(self, *entries: Entry, whole: bool = False, source: int = FRIEND) -> None:
        message: Gossip = Sync(False, list(entries), []) if whole else Ack(0, list(entries), [])
        self.give(Received(source, message))

    def subject(self, *, state: State, incarnation: int = 1, health: Health = Health.ALIVE) -> Entry:
        return entry("subject", SUBJECT, state=state, incarnation=incarnation, health=health)

    def in_standing(self, standing: Standing, incarnation: int) -> Entry:
        if standing == "left":
            return self.subject(state="left", incarnation=incarnation)
        return self.subject(state="up", health=Health[standing.upper()], incarnation=incarnation)

    @property
    def standing(self) -> Standing:
        known = self.machine.get(SUBJECT)
        return "forgotten" if known is None else standing_of(known)

    def stands(self, standing: Standing) -> bool:
        return self.standing == standing

    def sent(self, kind: type[G], uid: int = 0) -> list[G]:
        """The messages of that kind that the last step sent, to `uid` only if it is given."""
        sends = [one for one in self.effects if isinstance(one, SendGossip) and uid in (0, one.uid)]
        return [one.message for one in sends if isinstance(one.message, kind)]

    def pass_time(self, seconds: float, *, alive: tuple[int, ...] = (FRIEND,)) -> None:
        """Tick through, with signs of life of these members only."""
        end = self.now + seconds
        while self.machine.wake_at <= end:
            self.now = self.machine.wake_at
            self.give(Tick())
            for uid in alive:
                self.give(Received(uid, Ack(0, [], [])))
        self.now = end

    def pull(self, trigger: Trigger) -> None:
        """Bring about one trigger for the subject."""
        match trigger:
            case Trigger.TOLD_ALIVE | Trigger.TOLD_SUSPECT | Trigger.TOLD_DOWN | Trigger.TOLD_LEFT:
                standing: Standing = trigger.removeprefix("told ")  # type: ignore[assignment]  # the names agree
                self.hear(self.in_standing(standing, incarnation=2))
            case Trigger.DOUBTED:
                self.hear(self.in_standing("down", incarnation=2), whole=True)
            case Trigger.PROBE_FAILED:
                self.machine.probe_failed(SUBJECT, False)
                self.give(Tick())
            case Trigger.SUSPICION_ENDED:
                self.pass_time(HIGH_FACTOR * PROFILES["lan"].suspicion_seconds + 0.1)
            case Trigger.ADDRESS_TAKEN:
                self.hear(entry("subject", 50, address="subject:1", state="up"))
            case Trigger.NAME_LOST:
                self.hear(entry("subject", 1, address="elsewhere:1", state="up"))
            case Trigger.FORGOTTEN:
                self.give(Forget("subject"))
            case _:
                raise AssertionError(trigger)
