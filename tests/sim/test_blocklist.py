"""The blocklist between simulated nodes: it acts as a cut does, on both ends, for as long as a name is in it."""

from __future__ import annotations

import asyncio

import pytest

import roost
from roost.testing import Cluster


class Double(roost.Request[int]):
    number: int


class Notice(roost.Message):
    number: int


def answering(node: roost.Node) -> list[int]:
    """Have the node answer; what it was asked."""
    asked: list[int] = []

    @node.answer(Double)
    async def double(letter: roost.Envelope[Double]) -> int:
        asked.append(letter.body.number)
        return letter.body.number * 2

    return asked


def state(node: roost.Node, name: str) -> str:
    return node.members[name].state


def frames(cluster: Cluster) -> list[tuple[str, str]]:
    """Who sends frames to whom from now on."""
    seen: list[tuple[str, str]] = []
    observe = cluster.network.observe
    assert observe is not None

    def note(source: str, target: str, frame: bytes) -> None:
        seen.append((source, target))
        observe(source, target, frame)

    cluster.network.observe = note
    return seen


async def test_nothing_goes_to_a_blocked_node_and_nothing_is_taken_from_it(cluster: Cluster) -> None:
    a, b, c = await cluster.start(3)
    asked_a, asked_b, asked_c = [answering(node) for node in (a, b, c)]
    inbox_a, inbox_b = a.inbox(Notice), b.inbox(Notice)
    for node in (a, b, c):
        await node.broadcast(Notice(0))
        for other in (a, b, c):
            await node.ask(other.name, Double(1))
    a.blocklist.add(b.name)
    before = cluster.loop.time()
    for attempt in (
        a.ask(b.name, Double(2)),
        a.send(b.name, Notice(2)),
        a.outbox.put(roost.Envelope(to=b.name, body=2)),
    ):
        with pytest.raises(roost.Unreachable, match=f"{b.name} is on the blocklist") as caught:
            await attempt
        assert (caught.value.node, caught.value.may_have_run) == (b.name, False)
    assert cluster.loop.time() == before, "at once"
    await cluster.sleep(0.01)  # what was under way may still arrive
    seen = frames(cluster)
    with pytest.raises((roost.DeadlineExceeded, roost.Unreachable)):
        await b.ask(a.name, Double(3), timeout=1.0)
    await b.send(a.name, Notice(3))
    report = await a.broadcast(Notice(4))
    assert (report.reached, list(report.missed)) == (frozenset(), [b.name, c.name])
    assert isinstance(report.missed[b.name], roost.Unreachable)
    assert [await x.ask(y.name, Double(5)) for x, y in ((a, c), (c, a), (b, c), (c, b))] == [10] * 4
    await cluster.sleep(10.0)
    assert (a.name, b.name) not in seen, "not even a refusal"
    assert (asked_a[-1], asked_b[-1], asked_c[-1]) == (5, 5, 5) and 3 not in asked_a and 2 not in asked_b
    assert (len(inbox_a), len(inbox_b)) == (2, 2)


async def test_others_tell_that_a_blocked_node_is_alive(cluster: Cluster) -> None:
    a, b, c = await cluster.start(3)
    a.blocklist.add(b.name)
    await cluster.settle()
    for _ in range(60):
        await cluster.sleep(0.5)
        assert state(a, b.name) != "down" and state(b, a.name) != "down"
    assert a.peers == [b.name, c.name]


async def test_two_that_block_each_other_alone_find_out_by_silence_and_find_each_other_again(cluster: Cluster) -> None:
    a, b = await cluster.start(2)
    answering(b)
    b_inbox = b.inbox(Notice)
    a.blocklist.add(b.name)
    await cluster.sleep(0.4)
    assert (state(a, b.name), state(b, a.name)) != ("down", "down"), "a cut is silent: nobody is down at once"
    await cluster.sleep(30.0)
    assert (state(a, b.name), state(b, a.name)) == ("down", "down")
    a.blocklist.remove(b.name)
    await cluster.settle()
    assert (state(a, b.name), state(b, a.name)) == ("up", "up")
    assert await a.ask(b.name, Double(4)) == 8
    await a.send(b.name, Notice(1))
    assert (await anext(b_inbox)).body == Notice(1)


async def test_a_short_block_moves_nothing_and_messages_flow_again(cluster: Cluster) -> None:
    a, b = await cluster.start(2, inbox_messages_max=10)
    inbox = b.inbox(Notice)
    events = a.members.watch()
    await cluster.sleep(0.1)
    for round_ in range(20):
        for number in range(10):
            await a.send(b.name, Notice(number))
        assert [(await anext(inbox)).body.number for _ in range(10)] == list(range(10))
        (a, b)[round_ % 2].blocklist |= {"n1", "n2"}  # its own name in it means nothing
        await cluster.sleep(0.2)
        (a, b)[round_ % 2].blocklist.clear()
        await cluster.settle()
    seen = [await anext(events) for _ in range(2)]
    assert {type(event) for event in seen} == {roost.MemberUp}
    assert state(a, b.name) == "up"


async def test_what_waits_for_a_node_hears_at_once_that_it_was_blocked(cluster: Cluster) -> None:
    a, b = await cluster.start(2, inbox_messages_max=5)
    b.inbox(Notice)
    began = asyncio.Event()

    @b.answer(Double)
    async def hang(letter: roost.Envelope[Double]) -> int:
        began.set()
        await asyncio.Event().wait()
        return 0

    for number in range(5):
        await a.send(b.name, Notice(number))
    sending = asyncio.create_task(a.send(b.name, Notice(5)))
    asking = asyncio.create_task(a.ask(b.name, Double(1)))
    await began.wait()
    now = cluster.loop.time()
    a.blocklist.add(b.name)
    with pytest.raises(roost.Unreachable):
        await sending
    with pytest.raises(roost.Unreachable, match="blocklist") as caught:
        await asking
    assert caught.value.may_have_run
    assert cluster.loop.time() < now + 0.0001


async def test_a_node_that_is_blocked_from_the_start_is_not_admitted(cluster: Cluster) -> None:
    (a,) = await cluster.start(["a"])
    a.blocklist.add("b")
    b = await cluster.launch("b", seeds=[a.address], form_alone_seconds=1.0)
    await cluster.sleep(20.0)
    assert (a.peers, b.peers) == ([], [])
    a.blocklist.discard("b")
    await cluster.settle()
    assert (a.peers, b.peers) == (["b"], ["a"])


async def test_a_node_that_blocks_its_seed_starts_alone_until_it_no_longer_does(cluster: Cluster) -> None:
    (a,) = await cluster.start(["a"])
    b = await cluster.launch("b", seeds=[])
    await cluster.leave(b)
    await cluster.sleep(1.0)
    c = roost.Node("c")
    assert c.blocklist == set()
    b.blocklist = {a.name, "nobody"}
    assert b.blocklist == {"a", "nobody"} and repr(b.blocklist) == "<Blocklist: a, nobody>"
    await cluster.restart(b)
    await cluster.sleep(10.0)
    assert (a.peers, b.peers) in (([], []), (["b"], []))
    assert "a" in b.blocklist, "kept when the node stops"
    b.blocklist -= {"a"}
    assert list(b.blocklist) == ["nobody"] and b.blocklist | {"a"} == {"a", "nobody"}


async def test_a_pid_may_be_blocked_as_a_number(cluster: Cluster) -> None:
    a, b = await cluster.start(["1", "2"])
    a.blocklist.add(2)  # type: ignore[arg-type]  # for the type checkers they are names
    for name in ("2", 2):
        assert name in a.blocklist
    with pytest.raises(roost.Unreachable):
        await a.outbox.put(roost.Envelope(to=2, body="x"))
    a.blocklist.discard(2)  # type: ignore[arg-type]
    await cluster.settle()
    inbox = b.inbox(str)
    await a.outbox.put(roost.Envelope(to=2, body="x"))
    assert (await anext(inbox)).source == "1"


async def test_a_broadcast_by_envelope_leaves_out_a_blocked_node(cluster: Cluster) -> None:
    a, b, c = await cluster.start(3)
    inboxes = [b.inbox(str), c.inbox(str)]
    a.blocklist.add(b.name)
    await a.outbox.put(roost.Envelope(to=roost.BROADCAST, body="x"))
    a.outbox.put_nowait(roost.Envelope(to=roost.BROADCAST, body="y"))
    await cluster.sleep(1.0)
    assert [len(inbox) for inbox in inboxes] == [0, 2]


async def test_a_node_known_from_others_only_is_blocked_as_well(cluster: Cluster) -> None:
    a, c = await cluster.start(["a", "c"])
    a.blocklist.add("b")
    b = await cluster.launch("b", seeds=[c.address])
    await cluster.sleep(2.0)
    assert a.peers == ["b", "c"] and b.peers == ["a", "c"]
    seen = frames(cluster)
    with pytest.raises(roost.Unreachable, match="b is on the blocklist"):
        await a.send("b", Notice(1))
    await cluster.sleep(10.0)
    assert ("a", "b") not in seen
    assert (state(a, "b"), state(b, "a")) == ("up", "up"), "c tells both that the other is alive"


async def test_a_handler_may_block_its_own_caller(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    a, b = await cluster.start(2)

    @b.answer(Double)
    def double(letter: roost.Envelope[Double]) -> int:
        b.blocklist.add(letter.source)
        return letter.body.number * 2

    with pytest.raises((roost.Unreachable, roost.DeadlineExceeded)) as caught:
        await a.ask(b.name, Double(1), timeout=1.0)
    assert caught.value.may_have_run
    await cluster.sleep(1.0)
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []
