"""What a review of the messages and of the node's life found, each as a test."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

import roost
from roost.testing import Cluster
from roost.wire.frame import encode_batch
from roost.wire.protocol import Cast, Identity, Stream
from roost.wire.values import encode


class Notice(roost.Message):
    number: int


class Number(roost.Request[int]):
    number: int


class Big(roost.Request[bytes]):
    size: int


class Hang(roost.Request[None]):
    pass


def answers(node: roost.Node) -> None:
    @node.answer(Number)
    def number(letter: roost.Envelope[Number]) -> int:
        return letter.body.number

    @node.answer(Big)
    def big(letter: roost.Envelope[Big]) -> bytes:
        return b"x" * letter.body.size


async def test_many_senders_at_once_do_not_overrun_the_inbox(cluster: Cluster) -> None:
    a, b = await cluster.start(2, inbox_messages_max=4)
    inbox = b.inbox(Notice)
    sends = [asyncio.create_task(a.send(b.name, Notice(number))) for number in range(40)]
    got: list[int] = []
    for _ in range(20):
        await cluster.sleep(0.1)
        got += [(await anext(inbox)).body.number for _ in range(len(inbox))]
    await asyncio.gather(*sends)
    assert got == list(range(40))


async def test_credit_that_was_lost_with_a_link_is_given_anew(cluster: Cluster) -> None:
    a, b = await cluster.start(2, inbox_messages_max=4, call_seconds=1.0)
    inbox = b.inbox(Notice)
    cluster.slow(b, 0.01)
    for round in range(10):
        for number in range(4):
            await a.send(b.name, Notice(number))
        await cluster.sleep(0.1)
        for number in range(4):
            assert (await anext(inbox)).body.number == number
        cluster.reset_links([a, b][round % 2])  # with the credit for them on its way
        await cluster.sleep(0.5)


async def test_calls_of_the_tick_in_which_the_link_breaks_go_out_on_the_next_link(cluster: Cluster) -> None:
    a, b = await cluster.start(2)
    answers(b)
    await a.ask(b.name, Number(0))
    first = asyncio.create_task(a.ask(b.name, Number(1)))
    second = asyncio.create_task(a.ask(b.name, Number(2)))
    await asyncio.sleep(0)  # the first leaves at once, the second waits for the end of the tick
    cluster.reset_links(a)
    assert await second == 2
    with pytest.raises(roost.Unreachable) as caught:
        await first
    assert caught.value.may_have_run


async def test_whoever_notices_a_deadline_first_the_error_says_how_long_the_call_took(cluster: Cluster) -> None:
    a, b, c = await cluster.start(3)

    @b.answer(Hang)
    async def hang(letter: roost.Envelope[Hang]) -> None:
        await asyncio.Event().wait()

    other = asyncio.create_task(c.ask(b.name, Hang(), timeout=100.0))  # b looks at deadlines at moments of its own
    noticed: list[str] = []
    for round in range(12):
        await cluster.sleep(0.007 * round)
        with pytest.raises(roost.DeadlineExceeded) as caught:
            await a.ask(b.name, Hang(), timeout=0.51)
        assert 0.4 < caught.value.elapsed < 1.0
        noticed.append("there" if "handler" in str(caught.value) else "here")
    assert set(noticed) == {"there", "here"}
    other.cancel()


async def test_links_that_close_when_idle_fail_no_call(cluster: Cluster) -> None:
    a, b = await cluster.start(2, idle_seconds=0.2, probe_seconds=5.0, call_seconds=3.0)
    cluster.slow(b, 0.02)
    answers(b)
    for round in range(300):
        assert await a.ask(b.name, Number(round)) == round
        await cluster.sleep(0.05 + (round % 50) * 0.005)


async def test_nobody_takes_over_the_uid_of_a_member(cluster: Cluster) -> None:
    a, b, c = await cluster.start(3)
    answers(b)
    assert await a.ask(b.name, Number(1)) == 1
    c._run.peers.me = Identity("evil", b.uid, "evil:1", "client")  # type: ignore[union-attr]
    with pytest.raises(roost.AuthError, match="claims to be"):
        session = await c._run.peers._open(a.address)  # type: ignore[union-attr]
        session.link.write(encode_batch([Stream(1 << 40)]))
    assert await a.ask(b.name, Number(2)) == 2


async def test_an_answer_larger_than_a_frame_is_refused_and_breaks_no_link(cluster: Cluster) -> None:
    a, b = await cluster.start(2, frame_bytes_max=1_000_000, message_bytes_max=900_000)
    answers(b)
    others = [asyncio.create_task(a.ask(b.name, Number(number))) for number in range(10)]
    with pytest.raises(roost.Overloaded, match="more than a frame") as caught:
        await a.ask(b.name, Big(2_000_000))
    assert caught.value.may_have_run
    assert await asyncio.gather(*others) == list(range(10))
    assert len(await a.ask(b.name, Big(900_000))) == 900_000


@pytest.mark.parametrize("timeout", ["5", 0, -1, 1e18, float("inf"), float("nan")])
async def test_a_timeout_that_is_none_harms_only_its_own_call(cluster: Cluster, timeout: Any) -> None:
    a, b = await cluster.start(2)
    answers(b)
    others = [asyncio.create_task(a.ask(b.name, Number(number))) for number in range(10)]
    with pytest.raises(roost.ConfigError, match="no number of seconds"):
        await a.ask(b.name, Number(1), timeout=timeout)
    assert await asyncio.gather(*others) == list(range(10))


async def test_a_call_that_times_out_says_so_whichever_end_noticed_first(cluster: Cluster) -> None:
    a, b = await cluster.start(2)

    @b.answer(Hang)
    async def hang(letter: roost.Envelope[Hang]) -> None:
        await asyncio.Event().wait()

    for round in range(50):
        with pytest.raises(roost.DeadlineExceeded):
            await a.ask(b.name, Hang(), timeout=0.2 + round * 0.0013)


async def test_handles_of_a_stopped_node_say_so_at_once(cluster: Cluster) -> None:
    a, b = await cluster.start(2)
    here = await a.kv("notes", str)
    await b.kv("notes", str)
    await here.put("a", "b")
    await cluster.leave(a)
    for key in "abcdefgh":
        with pytest.raises(roost.RoostError):
            async with asyncio.timeout(10):
                await here.put(key, "c")


@pytest.mark.parametrize("number", range(8))
async def test_a_leave_right_after_another_node_opened_the_service_loses_nothing(cluster: Cluster, number: int) -> None:
    a, b = await cluster.start(2)
    here = await a.kv("notes", str)
    there = await b.kv("notes", str)
    await here.put("key", "value")
    await cluster.leave(a)
    assert await there.get("key") == "value"


async def test_a_stop_during_a_start_ends_both(cluster: Cluster) -> None:
    launching = asyncio.create_task(cluster.launch("slow", seeds=["nowhere:7400"]))
    await cluster.sleep(0.5)
    node = cluster._hosts["slow"].node
    await node.abandon()
    with pytest.raises(roost.Unreachable, match="stopped before"):
        await launching


async def test_an_invariant_that_breaks_in_a_callback_fails_the_test(cluster: Cluster) -> None:
    await cluster.start(1)

    def broken() -> None:
        raise AssertionError("an invariant")

    cluster.loop.call_later(0.1, broken)
    with pytest.raises(AssertionError, match="an invariant"):
        await cluster.sleep(1.0)


async def test_what_still_comes_on_an_older_stream_is_dropped(cluster: Cluster) -> None:
    a, b = await cluster.start(2)
    inbox = b.inbox(Notice)
    await a.send(b.name, Notice(1))
    peers = a._run.peers  # type: ignore[union-attr]
    peer = peers.by_uid[b.uid]
    old = peer.outbound
    new = await peers._open(b.address)
    assert old is not None
    assert new is not old
    peer._use(new)
    await cluster.sleep(0.1)
    old.link.write(encode_batch([Cast("inbox", "Notice", msgspec.Raw(encode(Notice(9))))]))
    await cluster.sleep(0.1)
    await a.send(b.name, Notice(2))
    assert [(await anext(inbox)).body.number for _ in range(2)] == [1, 2]
    assert len(inbox) == 0


async def test_however_many_callers_are_cancelled_at_once_every_handler_hears_of_it(cluster: Cluster) -> None:
    a, b = await cluster.start(2)
    running = 0

    @b.answer(Hang)
    async def hang(letter: roost.Envelope[Hang]) -> None:
        nonlocal running
        running += 1
        try:
            await asyncio.Event().wait()
        finally:
            running -= 1

    asks = [asyncio.create_task(a.ask(b.name, Hang(), timeout=100.0)) for _ in range(1000)]
    await cluster.sleep(0.5)
    assert running == 1000
    for ask in reversed(asks):
        ask.cancel()
    await cluster.sleep(0.5)
    assert running == 0
    assert all(ask.cancelled() for ask in asks)
