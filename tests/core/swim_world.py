"""Several membership machines on one virtual clock, joined by a network that fails as asked: pure, from one seed.

Links behave as the node's real ones do: they open on first use or by `Contact`, break with a hint when a process
dies, close without one when it stops properly, are cut off when their member is taken for down, and lose what was on
its way. After every step the machine's invariants are checked, and that its news of members skips nothing.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from roost.config import PROFILES, Timings
from roost.core.gossip import Gossip, Health
from roost.core.membership import (
    Contact,
    ContactFailed,
    Dial,
    Dialed,
    Effect,
    Event,
    GoUp,
    Joined,
    LeaveAsked,
    LeaveDone,
    LinkLost,
    LinkOpened,
    MemberChanged,
    Membership,
    NameConflict,
    NotReached,
    Received,
    SendGossip,
    SettledChanged,
    Tick,
)
from roost.core.view import is_live
from tests.core.swim_runner import Runner, entry

__all__ = ["World"]

CONNECT_SECONDS = 1.0
"""A silent host is given up after so long."""
STEPS_PER_SECOND_MAX = 4000
"""More steps of one node in a virtual second are a storm."""


@dataclass
class Line:
    """An open link: what is on its way when it breaks is lost, but not when it is closed properly."""

    broken: bool = False


class World:
    """Runs the nodes."""

    def __init__(
        self, seed: int = 0, *, timings: Timings = PROFILES["lan"], loss: float = 0.0, checks: bool = True
    ) -> None:
        self.rng = random.Random(seed)
        self.timings = timings
        self.loss = loss
        self.checks = checks
        self.now = 100.0
        self.runners: dict[int, Runner] = {}
        self.trace: list[tuple[float, str, str]] = []
        self.cuts: dict[tuple[str, str], None] = {}
        """(from, to) addresses between which nothing passes in that direction."""
        self.deaf: dict[tuple[str, str], None] = {}
        """(from, to) addresses that cannot open a link, though messages over links pass."""
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self._links: dict[tuple[int, int], Line] = {}
        self._next_uid = 1

    # the cast

    def start(
        self,
        name: str,
        *seeds: str,
        address: str = "",
        started: int = 0,
        ready_seconds: float = 0.01,
        forget_seconds: float = 3600.0,
        **fields: object,
    ) -> Runner:
        """Start a node; its address is `NAME:1` unless said otherwise. Seeds are names or addresses."""
        uid, self._next_uid = self._next_uid, self._next_uid + 1
        me = entry(name, uid, address=address, started=started, **fields)
        machine = Membership(
            me,
            self.timings,
            seeds=[seed if ":" in seed else f"{seed}:1" for seed in seeds],
            rng=random.Random(self.rng.getrandbits(64)),
            now=self.now,
            rejoin_seconds=5.0,
            forget_seconds=forget_seconds,
            form_alone_seconds=3.0,
            name_taken_seconds=20.0,
            admit_seconds=20.0,
            flap_seconds=30.0,
        )
        runner = Runner(machine, ready_seconds=ready_seconds, seen={uid: me})
        self.runners[uid] = runner
        self._arm(runner)
        return runner

    def cluster(self, count: int, *, settle: bool = True, **options: object) -> list[Runner]:
        """`count` nodes n0, n1, ... that join through n0."""
        names = [f"n{index}" for index in range(count)]
        runners = [self.start(name, "n0", **options) for name in names]  # type: ignore[arg-type]  # all keyword options
        if settle:
            self.until(lambda: self.agree(runners), 60.0)
        return runners

    def crash(self, runner: Runner) -> None:
        """The process is killed: its host resets its links and refuses new ones."""
        runner.state = "dead"
        for peer in self._linked(runner):
            self._unlink(runner, peer)
            self._later(self._delay(), lambda peer=peer: self.give(peer, LinkLost(runner.uid, False)))  # type: ignore[misc]  # bound now

    def vanish(self, runner: Runner) -> None:
        """The process is gone, and no link was open that could tell."""
        for peer in self._linked(runner):
            self._unlink(runner, peer)
        runner.state = "dead"

    def freeze(self, runner: Runner) -> None:
        """The host falls silent."""
        runner.state = "frozen"

    def thaw(self, runner: Runner) -> None:
        runner.state = "running"
        self._arm(runner)

    def block(self, runner: Runner, seconds: float, *, timers_first: bool = False) -> None:
        """The process stands still, in a handler or in its signal; what comes waits in its buffers.

        When it goes on, loops differ in what they look at first: their timers or what has come.
        """
        runner.state = "blocked"

        def go_on() -> None:
            if runner.state != "blocked":
                return
            runner.state = "running"
            if timers_first:
                self.give(runner, Tick())
            waiting, runner.waiting = runner.waiting, []
            for event in waiting:
                self.give(runner, event)
            self._arm(runner)

        self._later(seconds, go_on)

    def stop(self, runner: Runner) -> None:
        """The process ends with a good-bye on every link."""
        runner.state = "stopped"
        for peer in self._linked(runner):
            self._unlink(runner, peer, broken=False)

    def leave(self, runner: Runner, handoff_seconds: float = 0.5) -> None:
        self.give(runner, LeaveAsked())

        def done() -> None:
            self.give(runner, LeaveDone())
            self.stop(runner)

        self._later(handoff_seconds, done)

    def blip(self, a: Runner, b: Runner) -> None:
        """The link between two nodes breaks; nothing hinders a new one."""
        self._unlink(a, b)
        self.give(a, LinkLost(b.uid, False))
        self.give(b, LinkLost(a.uid, False))

    def cut(self, a: Iterable[Runner], b: Iterable[Runner], *, both: bool = True) -> None:
        """Nothing passes from `a` to `b` any more (nor back, if `both`)."""
        b = list(b)
        for one in a:
            for other in b:
                self.cuts[one.address, other.address] = None
                if both:
                    self.cuts[other.address, one.address] = None

    def heal(self) -> None:
        self.cuts.clear()
        self.deaf.clear()

    # time

    def run(self, seconds: float) -> None:
        """Let so much virtual time pass."""
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            self._next()
        self.now = end

    def until(self, condition: Callable[[], bool], seconds: float) -> float:
        """Run until the condition holds; how long that took. Fails after `seconds`."""
        began = self.now
        while not condition():
            assert self._queue and self._queue[0][0] <= began + seconds, self.describe(f"not within {seconds} s")
            self._next()
        return self.now - began

    def _next(self) -> None:
        at, _, action = heapq.heappop(self._queue)
        self.now = max(self.now, at)
        action()

    # questions

    def agree(self, runners: Iterable[Runner]) -> bool:
        """All of them are settled, and of each view exactly these are live, and up and alive."""
        group = list(runners)
        uids = sorted(runner.uid for runner in group)

        def agrees(runner: Runner) -> bool:
            live = [one for one in runner.machine.entries() if is_live(one)]
            well = all(one.health == Health.ALIVE and one.state == "up" for one in live)
            return runner.machine.settled and well and sorted(one.uid for one in live) == uids

        return all(agrees(runner) for runner in group)

    def health(self, of: Runner, at: Runner) -> str:
        """What `at` holds of `of`: alive, suspect, down, left or unknown."""
        known = at.machine.get(of.uid)
        if known is None:
            return "unknown"
        return "left" if known.state == "left" else known.health.name.lower()

    def is_state(self, of: Runner, state: str, at: Runner) -> bool:
        known = at.machine.get(of.uid)
        return known is not None and known.state == state

    def describe(self, what: str) -> str:
        lines = [f"{what}, at {self.now:.3f}"]
        for runner in self.runners.values():
            views = [f"{e.name}#{e.uid} {e.state}/{e.health.name} {e.incarnation}" for e in runner.machine.entries()]
            lines.append(
                f"{runner.name}#{runner.uid} {runner.state} settled={runner.machine.settled}: {'; '.join(views)}"
            )
        return "\n".join(lines)

    # the shell

    def _arm(self, runner: Runner) -> None:
        wake = runner.wake = runner.machine.wake_at

        def tick() -> None:
            if runner.wake == wake:
                self.give(runner, Tick())

        self._later(max(0.0, wake - self.now), tick)

    def give(self, runner: Runner, event: Event) -> None:
        """Give a node an event, as its shell or its user would, and carry out what it answers."""
        if runner.state == "blocked" and not isinstance(event, Tick):
            runner.waiting.append(event)
        if runner.state != "running":
            return
        if not isinstance(event, Tick):
            self.trace.append((self.now, f"{runner.name}#{runner.uid}", repr(event)))
        self._count_step(runner)
        effects = runner.machine.step(event, self.now)
        if self.checks:
            runner.machine.check()
        self._arm(runner)
        for effect in effects:
            if runner.state == "running":
                self._carry_out(runner, effect)

    def _count_step(self, runner: Runner) -> None:
        recent = runner.recent
        recent.append(self.now)
        if len(recent) > STEPS_PER_SECOND_MAX:
            assert self.now - recent.pop(0) > 1.0, self.describe(f"{runner.name} storms")

    def _carry_out(self, runner: Runner, effect: Effect) -> None:
        match effect:
            case SendGossip():
                self._send(runner, effect)
            case Contact(address=address):
                self._connect(runner, address, 0, None)
            case Dial(uid=uid, address=address):
                self._dial(runner, uid, address)
            case Joined():
                assert runner.joined_at is None
                runner.joined_at = self.now
                self._later(runner.ready_seconds, lambda: self._go_up(runner))
            case MemberChanged():
                self._changed(runner, effect)
            case NameConflict(holder=holder):
                runner.conflict = holder
                self.stop(runner)
            case NotReached():
                runner.not_reached = effect
                self.stop(runner)
            case SettledChanged(settled=settled):
                assert settled == runner.machine.settled

    def _go_up(self, runner: Runner) -> None:
        """What the node itself wants is not lost when its host falls silent: it only comes later."""
        if runner.state == "frozen":
            self._later(CONNECT_SECONDS, lambda: self._go_up(runner))
        else:
            self.give(runner, GoUp())

    def _changed(self, runner: Runner, change: MemberChanged) -> None:
        seen = runner.seen.get(change.after.uid)
        assert (seen is None) == (change.before is None), f"{runner.name}: {change} follows {seen}"
        if seen is not None and change.before is not None:
            assert msgspec.structs.replace(seen, incarnation=change.before.incarnation) == change.before
        runner.changes.append((self.now, change))
        if change.forgotten:
            del runner.seen[change.after.uid]
        else:
            runner.seen[change.after.uid] = change.after
        peer = self.runners[change.after.uid]
        if (change.forgotten or change.after.health == Health.DOWN) and (runner.uid, peer.uid) in self._links:
            self._unlink(runner, peer)
            self._later(self._delay(), lambda: self.give(peer, LinkLost(runner.uid, False)))

    # the network

    def _send(self, runner: Runner, effect: SendGossip) -> None:
        assert effect.uid != runner.uid
        data = msgspec.msgpack.encode(effect.message)
        runner.sent += 1
        runner.sent_bytes += len(data)
        message = msgspec.msgpack.decode(data, type=Gossip)
        peer = self.runners[effect.uid]
        if (runner.uid, effect.uid) in self._links:
            self._deliver(runner, peer, message)
        elif effect.address:
            self._connect(runner, effect.address, effect.uid, message)

    def _deliver(self, runner: Runner, peer: Runner, message: Gossip) -> None:
        if self.rng.random() < self.loss:
            return

        line = self._links[runner.uid, peer.uid]

        def arrive() -> None:
            passes = (runner.address, peer.address) not in self.cuts and not line.broken
            if passes and peer.state in ("running", "blocked"):
                self.give(peer, Received(runner.uid, message))

        self._later(self._delay(), arrive)

    def _connect(self, runner: Runner, address: str, uid: int, message: Gossip | None) -> None:
        there, back = (runner.address, address), (address, runner.address)
        there_is = ("running", "blocked", "frozen")
        hosts = [one for one in self.runners.values() if one.address == address and one.state in there_is]
        cut = there in self.cuts or back in self.cuts

        def fail(refused: bool) -> None:
            self.give(runner, ContactFailed(address, uid, refused))

        def answer() -> None:
            peer = hosts[-1]
            if runner.state != "running" or peer.state != "running" or peer is runner:
                fail(False)
                return
            self._links[runner.uid, peer.uid] = self._links[peer.uid, runner.uid] = Line()
            self.give(peer, LinkOpened(runner.uid, runner.name, runner.address))
            self.give(runner, LinkOpened(peer.uid, peer.name, peer.address, address))
            if uid and peer.uid != uid:
                fail(True)
            elif message is not None and (runner.uid, peer.uid) in self._links:
                self._deliver(runner, peer, message)

        if cut or (hosts and hosts[-1].state in ("blocked", "frozen")):
            self._later(CONNECT_SECONDS, lambda: fail(False))
        elif not hosts or there in self.deaf:
            self._later(self._delay(), lambda: fail(True))
        else:
            self._later(2 * self._delay(), answer)

    def _dial(self, runner: Runner, uid: int, address: str) -> None:
        """A link of its own, closed again at once: it only shows whether there can be one."""
        peer = self.runners[uid]
        there, back = (runner.address, address), (address, runner.address)
        silent = there in self.cuts or back in self.cuts or peer.state in ("blocked", "frozen")

        def end() -> None:
            if silent:
                reason = "no answer in time"
            elif there in self.deaf or peer.state != "running" or peer.address != address:
                reason = "connection refused"
            else:
                reason = ""
                self.give(peer, LinkOpened(runner.uid, runner.name, runner.address))
            self.give(runner, Dialed(uid, reason))

        self._later(CONNECT_SECONDS if silent else 2 * self._delay(), end)

    def _linked(self, runner: Runner) -> list[Runner]:
        return [self.runners[b] for a, b in self._links if a == runner.uid]

    def _unlink(self, a: Runner, b: Runner, *, broken: bool = True) -> None:
        line = self._links.pop((a.uid, b.uid), None)
        if line is not None:
            line.broken = broken
        self._links.pop((b.uid, a.uid), None)

    def _delay(self) -> float:
        return self.rng.uniform(0.001, 0.01)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._queue, (self.now + seconds, self._sequence, action))
