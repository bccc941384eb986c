"""Many members in one simulated network, cheap enough for hundreds of them over hours of virtual time.

The machines are the real ones and their messages are encoded as they would be on the wire, each in a frame of its own.
What is left out is what costs time and changes nothing: the checks after each step, and decoding what was just encoded.

A lost message is one that comes too late to count. Links are TCP, which loses nothing, but a segment that has to be
sent again by its timer arrives, with all that queues behind it, when the probe is over. The links between those who
were there from the start have long been open: opening one would be a sign of life that is never lost, and in a large
cluster nearly every probe would open one.
"""

from __future__ import annotations

from typing import NamedTuple

from roost.config import PROFILES
from roost.core.gossip import Health, Sync
from roost.core.membership import Event, MemberChanged, Received, SendGossip, Tick
from roost.version import VERSION
from roost.wire.frame import LENGTH_BYTES, encode_batch
from roost.wire.protocol import News, Sent
from tests.core.swim_runner import Runner
from tests.core.swim_world import Line, World

__all__ = ["Accusation", "Crowd"]

UID_FIRST = 1 << 62
"""Real ones are random and take as many bytes."""
STARTED_MILLISECONDS = 1_700_000_000_000
SERVICES = {"kv:sessions": 0x1D2C3B4A59687766, "partitions:rooms": 0x6A5B4C3D2E1F0011}
FORM_ROUNDS_MAX = 20
FORM_ROUND_SECONDS = 0.25


class Accusation(NamedTuple):
    """At `at` `observer` came to hold `subject`, in that incarnation, for suspect or down."""

    at: float
    observer: int
    subject: int
    incarnation: int
    health: Health


class Crowd(World):
    """A cluster of `count` members, formed and settled. The same seed gives the same life."""

    def __init__(self, count: int, seed: int = 0, *, loss: float = 0.0) -> None:
        super().__init__(seed, timings=PROFILES["lan"], checks=False)
        self._next_uid = UID_FIRST
        self.accusations: list[Accusation] = []
        self.bytes_sent = 0
        self._parted: dict[tuple[int, int], None] = {}
        """Pairs whose link has been broken or closed: from then on it is opened as everywhere else."""
        self.members = [self._one(f"node-{index}") for index in range(count)]
        self._founders = {runner.uid: None for runner in self.members}
        self._form()
        self.loss = loss

    def _one(self, name: str) -> Runner:
        started = STARTED_MILLISECONDS + len(self.runners)
        return self.start(name, "node-0", "node-1", started=started, services=SERVICES, library=VERSION)

    def _form(self) -> None:
        """Tell each of all, as if they had long been together: joining one by one is measured by itself."""
        for _ in range(FORM_ROUNDS_MAX):
            self._tell_all()
            if self.agree(self.members):
                break
            self.run(FORM_ROUND_SECONDS)
        else:
            raise AssertionError(self.describe("they do not agree"))
        for runner in self.members:
            # Whole views are compared so seldom that all would do it for the first time together, and long after.
            comparing = runner.machine._comparing
            comparing._viewed_at -= self.rng.random() * (comparing.wake_at - self.now)
        self.bytes_sent = 0
        self.accusations.clear()

    def _tell_all(self) -> None:
        """Everybody's entry and report to everybody, and no rumours about it."""
        entries = [runner.machine.me for runner in self.members]
        reports = [runner.machine._view.reports[runner.uid] for runner in self.members]
        for index, runner in enumerate(self.members):
            others = [one for one in entries if one.uid != runner.uid]
            self.give(runner, Received(entries[index - 1].uid, Sync(False, others, reports)))
            runner.machine._herald.rest()

    def until_agreed(self, runners: list[Runner], seconds: float, *, step_seconds: float = 0.05) -> float:
        """Run until these agree, looked at now and then; how long that took."""
        began = self.now
        while not self.agree(runners):
            assert self.now < began + seconds, f"{len(runners)} members do not agree within {seconds} s"
            self.run(step_seconds)
        return self.now - began

    def join(self) -> Runner:
        """One more."""
        self.members.append(self._one(f"node-{len(self.members)}"))
        return self.members[-1]

    def stand_still(self, *, share: float, shortest_seconds: float, longest_seconds: float) -> None:
        """From now on each member stands still now and then, so that at any time about `share` of them do."""
        gap_seconds = (shortest_seconds + longest_seconds) / 2 * (1 / share - 1)

        def pause(runner: Runner) -> None:
            seconds = self.rng.uniform(shortest_seconds, longest_seconds)
            if runner.state == "running":
                self.block(runner, seconds, timers_first=self.rng.random() < 0.5)
            self._later(seconds + self.rng.expovariate(1 / gap_seconds), lambda: pause(runner))

        for runner in self.members:
            self._later(self.rng.expovariate(1 / gap_seconds), lambda runner=runner: pause(runner))  # type: ignore[misc]  # bound now

    # what a world does, without what is of no use here

    def give(self, runner: Runner, event: Event) -> None:
        if runner.state == "blocked" and not isinstance(event, Tick):
            runner.waiting.append(event)
        if runner.state != "running":
            return
        effects = runner.machine.step(event, self.now)
        self._arm(runner)
        for effect in effects:
            if runner.state == "running":
                self._carry_out(runner, effect)

    def _changed(self, runner: Runner, change: MemberChanged) -> None:
        super()._changed(runner, change)
        runner.changes.clear()
        after, before = change.after, change.before
        if after.health != Health.ALIVE and (before is None or before.health != after.health) and not change.forgotten:
            self.accusations.append(Accusation(self.now, runner.uid, after.uid, after.incarnation, after.health))

    def _unlink(self, a: Runner, b: Runner, *, broken: bool = True) -> None:
        super()._unlink(a, b, broken=broken)
        self._parted[a.uid, b.uid] = self._parted[b.uid, a.uid] = None

    def _send(self, runner: Runner, effect: SendGossip) -> None:
        frame = encode_batch([Sent(int(1000 * self.now)), News(effect.message)])
        self.bytes_sent += LENGTH_BYTES + len(frame)
        pair = (runner.uid, effect.uid)
        if pair not in self._links and pair not in self._parted and all(uid in self._founders for uid in pair):
            self._links[pair] = self._links[effect.uid, runner.uid] = Line()
        if pair in self._links:
            self._deliver(runner, self.runners[effect.uid], effect.message)
        elif effect.address:
            self._connect(runner, effect.address, effect.uid, effect.message)
