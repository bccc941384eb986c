"""`members.watch()` skips nothing: whoever folds a watcher's events, whenever it began, has the table of members."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import settings, stateful
from hypothesis import strategies as st

import roost
from roost.core.gossip import Ack, Entry, Gossip, Health, Sync
from roost.core.membership import Forget, LinkLost, Received
from roost.services import watching
from roost.services.members import Members
from roost.testing import Cluster, SimulatedLoop
from roost.testing.cluster import SimulatedRuntime
from tests.core.swim_bench import Bench
from tests.core.swim_runner import entry

Key = tuple[str, int]
STATES: dict[type, str] = {
    roost.MemberJoining: "joining",
    roost.MemberUp: "up",
    roost.MemberSuspect: "suspect",
    roost.MemberLeaving: "leaving",
    roost.MemberDown: "down",
    roost.MemberLeft: "left",
    roost.MemberForgotten: "forgotten",
}


def table(members: Members) -> dict[Key, str]:
    return {(member.name, member.uid): member.state for member in members}


class Reader:
    """One watcher, and what follows from all that it has read."""

    def __init__(self, members: Members) -> None:
        self.members = members
        self.watch: Any = members.watch()
        self.known = len(table(members))
        """So many events tell what is so already."""
        self.events: list[roost.MemberEvent] = []
        self.fold: dict[Key, str] = {}
        self.ended = False

    async def read(self, count: int = 1_000_000) -> None:
        """Read up to so many of the events that are there."""
        for _ in range(count):
            try:
                async with asyncio.timeout(0):
                    self._take(await anext(self.watch))
            except TimeoutError:
                if self.watch._events:
                    continue  # one came in the very moment in which the waiting ended
                return
            except StopAsyncIteration:
                self.ended = True
                return

    def _take(self, event: roost.MemberEvent) -> None:
        member, state = event.member, STATES[type(event)]
        before = self.fold.get((member.name, member.uid))
        assert before != state, f"{event} tells what was so before"
        self.events.append(event)
        if state == "forgotten":
            del self.fold[member.name, member.uid]
            return
        assert member.state == state, f"{event} says otherwise than its name"
        assert before != "left", f"{event} follows a farewell"
        self.fold[member.name, member.uid] = state

    def check(self) -> None:
        """Everything has been read: the fold is the table."""
        assert self.fold == table(self.members)

    @property
    def news(self) -> list[roost.MemberEvent]:
        """What was told after what was so already."""
        return self.events[self.known :]


# the shell, and a machine that hears every sort of claim


class Owner:
    """A node with nothing around its membership, which notes what changes."""

    def __init__(self) -> None:
        self.log: list[tuple[Key, str]] = []
        """Each change of a state, as the machine reports it."""

    def send_gossip(self, uid: int, name: str, address: str, message: Gossip) -> None: ...
    def contact(self, address: str) -> None: ...
    def dial(self, uid: int, address: str) -> None: ...
    def joined(self) -> None: ...
    def not_reached(self, said: Sequence[tuple[str, str]]) -> None: ...
    def name_taken(self, holder: Entry) -> None: ...

    def member_changed(self, before: Entry | None, after: Entry, *, forgotten: bool) -> None:
        was, now = state_of(before), "forgotten" if forgotten else state_of(after)
        if now != was:
            self.log.append(((after.name, after.uid), now))


def state_of(one: Entry | None) -> str:
    if one is None:
        return "unknown"
    health = "" if one.health == Health.ALIVE or one.state == "left" else one.health.name.lower()
    return health or one.state


class Shell:
    """`Members` in virtual time, without a network."""

    def __init__(self) -> None:
        self.loop = SimulatedLoop()
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        self.owner = Owner()
        self.members = Members(SimulatedRuntime("me", "seed"), self.owner)
        self.members.start(Bench(alone=True).machine)

    def hear(self, source: int, *entries: Entry, whole: bool = False) -> None:
        message: Gossip = Sync(False, list(entries), []) if whole else Ack(0, list(entries), [])
        self.members.step(Received(source, message))

    def run(self, seconds: float) -> None:
        self.loop.call_later(seconds, self.loop.stop)
        self.loop.run_forever()

    def read(self, reader: Reader, count: int = 1_000_000) -> None:
        self.loop.run_until_complete(reader.read(count))

    def close(self) -> None:
        self.members.stop()
        asyncio.set_event_loop(None)
        self.loop.close()


NAMES = "abc"
CLAIMS = st.builds(
    lambda uid, at_home, **fields: entry(
        NAMES[uid % 3], uid, address="" if at_home else f"{NAMES[uid % 3]}{uid}:1", **fields
    ),
    uid=st.integers(2, 8),
    at_home=st.booleans(),
    state=st.sampled_from(["joining", "up", "up", "up", "leaving", "left"]),
    health=st.sampled_from([Health.ALIVE, Health.ALIVE, Health.SUSPECT, Health.DOWN]),
    incarnation=st.integers(1, 6),
    services=st.sampled_from([{}, {"kv": 1}]),
)


class Lives(stateful.RuleBasedStateMachine):
    """Members that are claimed to be anything, by anybody, at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.shell = Shell()
        self.readers: list[tuple[int, Reader]] = []
        """With the length of the log when each began."""

    @stateful.rule(source=st.integers(2, 8), claims=st.lists(CLAIMS, min_size=1, max_size=4), whole=st.booleans())
    def hear(self, source: int, claims: list[Entry], whole: bool) -> None:
        self.shell.hear(source, *claims, whole=whole)

    @stateful.rule(uid=st.integers(2, 8))
    def lose_a_link(self, uid: int) -> None:
        self.shell.members.step(LinkLost(uid))

    @stateful.rule(name=st.sampled_from(NAMES))
    def forget(self, name: str) -> None:
        self.shell.members.step(Forget(name))

    @stateful.rule(seconds=st.sampled_from([0.1, 1.0, 6.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.shell.run(seconds)

    @stateful.rule()
    def watch(self) -> None:
        self.readers.append((len(self.shell.owner.log), Reader(self.shell.members)))

    @stateful.precondition(lambda self: self.readers)
    @stateful.rule(data=st.data(), count=st.integers(1, 5))
    def read_a_little(self, data: st.DataObject, count: int) -> None:
        self.shell.read(data.draw(st.sampled_from(self.readers))[1], count)

    @stateful.precondition(lambda self: self.readers)
    @stateful.rule(data=st.data())
    def read_all(self, data: st.DataObject) -> None:
        begun, reader = data.draw(st.sampled_from(self.readers))
        self.shell.read(reader)
        self._check(begun, reader)

    def _check(self, begun: int, reader: Reader) -> None:
        reader.check()
        told = [((event.member.name, event.member.uid), STATES[type(event)]) for event in reader.news]
        assert told == self.shell.owner.log[begun:], "not all changes, or not in their order"

    def teardown(self) -> None:
        for begun, reader in self.readers:
            self.shell.read(reader)
            self._check(begun, reader)
        self.shell.members.stop()
        for _, reader in self.readers:
            self.shell.read(reader)
            assert reader.ended
        assert not self.shell.members._watchers
        self.shell.close()


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)


@pytest.fixture
def shell() -> Any:
    """A shell whose member knows nobody yet."""
    opened = Shell()
    yield opened
    opened.close()


def one_by_one(shell: Shell, count: int) -> None:
    for uid in range(20, 20 + count):
        shell.hear(uid, entry(f"m{uid}", uid, state="up"))


def test_a_reader_that_is_too_slow_gets_all_in_order_then_an_error_and_never_a_gap(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "WATCH_EVENTS_MAX", 5)
    slow, brisk = Reader(shell.members), Reader(shell.members)
    for uid in range(20, 30):
        shell.hear(uid, entry(f"m{uid}", uid, state="up"))
        shell.read(brisk)
        if uid == 26:  # the queue has been full; there is room again, but something is missing before it
            shell.read(slow, 2)
    with pytest.raises(roost.Overloaded, match="watch"):
        shell.read(slow)
    assert [event.member.uid for event in slow.events] == [10, 20, 21, 22, 23]
    assert [event.member.uid for event in brisk.events] == [10, *range(20, 30)]
    assert shell.members._watchers == [brisk.watch], "who was too slow left something behind"
    again = Reader(shell.members)
    shell.read(again, 5)
    assert len(again.events) == 5


def test_a_watcher_that_is_closed_leaves_nothing_behind_and_the_others_go_on(shell: Shell) -> None:
    readers = [Reader(shell.members) for _ in range(3)]
    shell.loop.run_until_complete(readers[1].watch.aclose())
    one_by_one(shell, 3)
    for reader in readers:
        shell.read(reader)
    assert [len(reader.news) for reader in readers] == [3, 0, 3]
    assert readers[1].ended
    assert shell.members._watchers == [readers[0].watch, readers[2].watch]


def test_a_reader_that_waits_is_woken_by_the_next_event_and_by_the_end(shell: Shell) -> None:
    async def read() -> list[str]:
        return [event.member.name async for event in shell.members.watch()]

    async def scene() -> list[str]:
        task = asyncio.create_task(read())
        await asyncio.sleep(0)
        shell.hear(20, entry("late", 20, state="up"))
        await asyncio.sleep(0)
        shell.members.stop()
        return await task

    assert shell.loop.run_until_complete(scene()) == ["me", "late"]


@pytest.mark.parametrize(
    "claims",
    [
        [{"state": "leaving", "health": Health.SUSPECT}, {"state": "leaving", "incarnation": 2}],
        [{"state": "joining", "health": Health.SUSPECT}, {"state": "joining", "incarnation": 2}],
        [{"state": "up", "address": "elsewhere:1"}, {"state": "up", "uid": 20}],
    ],
    ids=["suspect while leaving", "suspect while joining", "a newcomer loses its name"],
)
def test_an_end_of_being_told_of_is_told_as_well(shell: Shell, claims: list[dict[str, Any]]) -> None:
    reader = Reader(shell.members)
    for claim in claims:
        fields = {"uid": 21, **claim}
        shell.hear(21, entry("m", **fields))
    shell.read(reader)
    reader.check()


# whole nodes


class Life:
    """Random fates of a simulated cluster, with watchers that begin whenever."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.rng = random.Random(seed)
        self.readers: list[tuple[Reader, Reader, int]] = []
        """Each with the first one on its node's run, and with how much news that one had when this one began."""
        self.firsts: dict[int, Reader] = {}

    async def watch(self, node: roost.Node) -> None:
        reader = Reader(node.members)
        first = self.firsts.setdefault(node.uid, reader)
        await first.read()
        self.readers.append((reader, first, len(first.news)))

    async def act(self) -> None:
        cluster, rng = self.cluster, self.rng
        running, stopped = cluster.nodes, cluster.stopped
        fate = rng.choice(
            ["crash", "leave", "restart", "restart", "split", "one way", "heal", "reset", "watch", "watch"]
        )
        if fate in ("crash", "leave") and len(running) > 2:
            await getattr(cluster, fate)(rng.choice(running))
        elif fate == "restart" and stopped:
            await self.watch(await cluster.restart(rng.choice(stopped)))
        elif fate == "split":
            rng.shuffle(running)
            cluster.partition(running[:1], running[1:])
        elif fate == "one way":
            cluster.one_way_cut(*rng.sample(running, 2))
        elif fate == "heal":
            cluster.heal()
        elif fate == "reset":
            cluster.reset_links(rng.choice(running))
        elif fate == "watch":
            await self.watch(rng.choice(running))

    async def check(self, *, all_of_them: bool = False) -> None:
        """The brisk read all now, the slow ones a little."""
        for number, (reader, first, begun) in enumerate(self.readers):
            slow = number % 3 == 2 and not all_of_them
            await reader.read(2 if slow else 1_000_000)
            if not slow:
                await first.read()
                reader.check()
                assert reader.news == first.news[begun:], "two watchers of one node read different news"


@pytest.mark.parametrize("seed", range(6))
async def test_in_a_random_life_every_watcher_ends_up_with_the_table_at_any_moment(cluster: Cluster, seed: int) -> None:
    life = Life(cluster, seed)
    for node in await cluster.start(4):
        await life.watch(node)
    for _ in range(60):
        await life.act()
        await cluster.sleep(life.rng.expovariate(1.0))
        await life.check()
    cluster.heal()
    await cluster.settle()
    await life.check(all_of_them=True)
    assert sum(len(reader.news) for reader, _, _ in life.readers) > 40, "too little has happened to tell"


async def test_watchers_end_with_their_run_of_a_node_and_those_of_the_next_run_begin_anew(cluster: Cluster) -> None:
    a, b, c = await cluster.start(3)
    for stop in (cluster.leave, cluster.crash, cluster.leave):
        members, reader, other = b.members, Reader(b.members), Reader(a.members)
        await stop(b)
        await reader.read()
        assert reader.ended and reader.fold == table(members)
        assert not members._watchers
        await cluster.restart(b)
        await cluster.settle()
        anew = Reader(b.members)
        await anew.read()
        await other.read()
        assert {key: state for key, state in anew.fold.items() if state == "up"} == {
            (node.name, node.uid): "up" for node in (a, b, c)
        }
        other.check()
        del members, reader, anew
    gc.collect()
    assert len(a.members._watchers) == 3  # the three of `other`, which nobody has closed
