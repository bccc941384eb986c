"""Messages between simulated nodes: real nodes and frames, virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import roost
from roost.testing import Cluster


class Notice(roost.Message):
    number: int


class Unread(roost.Message):
    text: str


class Double(roost.Request[int]):
    number: int


class Hang(roost.Request[None]):
    pass


async def two(cluster: Cluster, **settings: Any) -> tuple[roost.Node, roost.Node]:
    a, b = await cluster.start(2, **settings)
    return a, b


async def test_an_answer_comes_back_from_plain_and_async_handlers(cluster: Cluster) -> None:
    a, b = await two(cluster)

    @b.answer(Double)
    async def double(letter: roost.Envelope[Double]) -> int:
        assert letter.source == a.name
        return letter.body.number * 2

    assert await a.ask(b.name, Double(21)) == 42

    @a.answer(Double)
    def plain(letter: roost.Envelope[Double]) -> int:
        return letter.body.number * 2

    assert await b.ask(a.name, Double(4)) == 8
    assert await a.ask(a.name, Double(5)) == 10  # a node may ask itself


async def test_messages_arrive_in_order_and_once(cluster: Cluster) -> None:
    a, b = await two(cluster)
    inbox = b.inbox(Notice)

    async def send() -> None:
        for number in range(5000):
            await a.send(b.name, Notice(number))

    sender = asyncio.create_task(send())
    for expected in range(5000):
        letter = await anext(inbox)
        assert letter.body.number == expected and letter.source == a.name
    await sender
    assert len(inbox) == 0


async def test_order_holds_when_links_break_and_nothing_comes_twice(cluster: Cluster) -> None:
    a, b = await two(cluster)
    inbox = b.inbox(Notice)
    got: list[int] = []

    async def read() -> None:
        async for letter in inbox:
            got.append(letter.body.number)

    reader = asyncio.create_task(read())
    for number in range(2000):
        await a.send(b.name, Notice(number))
        if number % 100 == 50:
            await cluster.sleep(0.0001)  # under way, and not there yet
            cluster.reset_links(a)
        if number % 10 == 0:
            await cluster.sleep(0.001)
    await cluster.sleep(1.0)
    reader.cancel()
    assert got == sorted(set(got)), "out of order or doubled"
    assert 1000 < len(got) < 2000, "breaking links must lose something, but only what was under way"


async def test_a_slow_reader_slows_its_sender_and_bounds_what_is_held(cluster: Cluster) -> None:
    a, b = await two(cluster, inbox_messages_max=100)
    inbox = b.inbox(Notice)
    sent = 0

    async def send() -> None:
        nonlocal sent
        for number in range(1000):
            await a.send(b.name, Notice(number))
            sent += 1

    sender = asyncio.create_task(send())
    await cluster.sleep(1.0)
    assert sent == 100 and len(inbox) == 100
    for number in range(1000):
        letter = await anext(inbox)
        assert letter.body.number == number
        assert len(inbox) <= 100
        await cluster.sleep(0.001)
    await sender


async def test_what_waited_for_the_first_link_counts_against_the_window(cluster: Cluster) -> None:
    a, b = await two(cluster, inbox_messages_max=10)
    inbox = b.inbox(Notice)
    cluster.partition([a], [b])
    cluster.reset_links(a)
    await cluster.sleep(0.01)
    for number in range(10):
        await a.send(b.name, Notice(number))
    cluster.heal()
    sending = [asyncio.create_task(a.send(b.name, Notice(number))) for number in range(10, 15)]
    await cluster.sleep(2.0)
    assert len(inbox) == 10 and not any(task.done() for task in sending)
    assert [(await anext(inbox)).body.number for _ in range(15)] == list(range(15))
    await asyncio.gather(*sending)
    assert b.status()["messages_dropped"] == 0


async def test_links_that_keep_breaking_neither_widen_nor_narrow_the_window(cluster: Cluster) -> None:
    a, b = await two(cluster, inbox_messages_max=20)
    inbox = b.inbox(Notice)
    got: list[int] = []

    async def send() -> None:
        for number in range(3000):
            await a.send(b.name, Notice(number))

    async def read() -> None:
        async for letter in inbox:
            got.append(letter.body.number)
            if letter.body.number % 7 == 0:
                await cluster.sleep(0.002)

    sender, reader = asyncio.create_task(send()), asyncio.create_task(read())
    resets = 0
    while not sender.done():
        await cluster.sleep(cluster.rng.uniform(0.001, 0.1))
        assert len(inbox) <= 20
        cluster.reset_links(cluster.rng.choice((a, b)))
        resets += 1
    await sender
    await cluster.sleep(2.0)
    assert resets > 10 and got == sorted(set(got)) and b.status()["messages_dropped"] == 0
    already = len(got)
    reader.cancel()
    for number in range(20):  # the whole window is there again
        async with asyncio.timeout(0.1):
            await a.send(b.name, Notice(number))
    await cluster.sleep(0.1)
    assert (len(inbox), len(got)) == (20, already)


async def test_a_kind_that_nobody_reads_stays_free_when_links_break(cluster: Cluster) -> None:
    a, b = await two(cluster, inbox_messages_max=10)
    for number in range(400):
        async with asyncio.timeout(1.0):
            await a.send(b.name, Unread("hello"))
        if number % 9 == 0:
            await cluster.sleep(0.0007)
            cluster.reset_links(cluster.rng.choice((a, b)))


async def test_a_sender_whose_receiver_never_reads_is_told_so(cluster: Cluster) -> None:
    a, b = await two(cluster, inbox_messages_max=10)
    b.inbox(Notice)
    for number in range(10):
        await a.send(b.name, Notice(number))
    with pytest.raises(roost.Overloaded, match="unread") as caught:
        await a.send(b.name, Notice(10))
    assert caught.value.limit == 10 and not caught.value.may_have_run


async def test_a_kind_that_nobody_reads_is_refused_counted_and_harms_nothing(cluster: Cluster) -> None:
    a, b = await two(cluster)

    @b.answer(Double)
    def double(letter: roost.Envelope[Double]) -> int:
        return letter.body.number * 2

    for _ in range(10_000):  # far more than a window: each one that bounces gives its credit back
        await a.send(b.name, Unread("hello"))
    assert await a.ask(b.name, Double(1)) == 2
    await cluster.sleep(0.1)
    assert b.status()["messages_dropped"] == 10_000
    with pytest.raises(roost.NotFound, match="does not answer Hang") as caught:
        await a.ask(b.name, Hang())
    assert not caught.value.may_have_run


async def test_a_handlers_error_arrives_as_remote_error_with_its_text(cluster: Cluster) -> None:
    a, b = await two(cluster)

    @b.answer(Double)
    async def double(letter: roost.Envelope[Double]) -> int:
        raise KeyError("no such room")

    with pytest.raises(roost.RemoteError, match="no such room") as caught:
        await a.ask(b.name, Double(1))
    assert (caught.value.kind, caught.value.node, caught.value.may_have_run) == ("KeyError", b.name, True)


async def test_an_error_of_a_nested_call_does_not_claim_that_nothing_ran(cluster: Cluster) -> None:
    a, b = await two(cluster)

    @b.answer(Double)
    async def double(letter: roost.Envelope[Double]) -> int:
        await b.send("nobody", Notice(1))
        return 0

    with pytest.raises(roost.Unreachable) as caught:
        await a.ask(b.name, Double(1))
    assert caught.value.may_have_run


async def test_a_deadline_ends_the_call_here_and_the_handler_there(cluster: Cluster) -> None:
    a, b = await two(cluster)
    ended = asyncio.Event()

    @b.answer(Hang)
    async def hang(letter: roost.Envelope[Hang]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(roost.DeadlineExceeded) as caught:
        await a.ask(b.name, Hang(), timeout=0.5)
    assert caught.value.may_have_run and 0.5 <= caught.value.elapsed < 0.7
    assert isinstance(caught.value, TimeoutError)
    async with asyncio.timeout(0.1):
        await ended.wait()


async def test_cancelling_the_caller_ends_the_handler_at_once(cluster: Cluster) -> None:
    a, b = await two(cluster)
    began, ended = asyncio.Event(), asyncio.Event()

    @b.answer(Hang)
    async def hang(letter: roost.Envelope[Hang]) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    for target in (b.name,):
        asking = asyncio.create_task(a.ask(target, Hang()))
        await began.wait()
        asking.cancel()
        async with asyncio.timeout(0.1):
            await ended.wait()
        assert asking.cancelled()


async def test_a_crash_fails_what_was_under_way_as_maybe_run_and_what_comes_later_as_not(cluster: Cluster) -> None:
    a, b = await two(cluster)

    @b.answer(Hang)
    async def hang(letter: roost.Envelope[Hang]) -> None:
        await asyncio.Event().wait()

    asking = asyncio.create_task(a.ask(b.name, Hang()))
    await cluster.sleep(0.1)
    await cluster.crash(b)
    with pytest.raises(roost.Unreachable) as caught:
        await asking
    assert caught.value.may_have_run
    await cluster.sleep(2.0)
    with pytest.raises(roost.Unreachable, match="is down") as refused:
        await a.ask(b.name, Hang())
    assert not refused.value.may_have_run and refused.value.last_seen is not None


async def test_a_call_during_a_blip_waits_for_the_next_link(cluster: Cluster) -> None:
    a, b = await two(cluster)

    @b.answer(Double)
    def double(letter: roost.Envelope[Double]) -> int:
        return letter.body.number * 2

    await a.ask(b.name, Double(1))
    cluster.partition([a], [b])
    cluster.reset_links(a)
    asking = asyncio.create_task(a.ask(b.name, Double(2)))
    await cluster.sleep(0.6)
    assert not asking.done()
    cluster.heal()
    assert await asking == 4


async def test_a_broadcast_says_who_has_it_and_who_has_not(cluster: Cluster) -> None:
    a, b, c, d = await cluster.start(4)
    inboxes = [node.inbox(Notice) for node in (b, c)]
    await cluster.crash(c)
    report = await a.broadcast(Notice(7), timeout=1.0)
    assert report.reached == {b.name}
    assert set(report.missed) == {c.name, d.name}
    assert isinstance(report.missed[c.name], roost.Unreachable)
    assert isinstance(report.missed[d.name], roost.NotFound)
    assert (await anext(inboxes[0])).body == Notice(7)


async def test_an_unknown_name_is_refused_with_the_names_that_exist(cluster: Cluster) -> None:
    a, b = await two(cluster)
    with pytest.raises(roost.Unreachable, match=f"known are: {a.name}, {b.name}"):
        await a.send("n77", Notice(1))


async def test_a_message_above_the_limit_is_refused_at_its_sender(cluster: Cluster) -> None:
    a, b = await two(cluster, message_bytes_max=1000)
    b.inbox(Unread)
    with pytest.raises(roost.Overloaded, match="message_bytes_max is 1000"):
        await a.send(b.name, Unread("x" * 2000))


async def test_pending_calls_are_bounded(cluster: Cluster) -> None:
    a, b = await two(cluster, pending_calls_max=50)

    @b.answer(Hang)
    async def hang(letter: roost.Envelope[Hang]) -> None:
        await asyncio.Event().wait()

    asks = [asyncio.create_task(a.ask(b.name, Hang(), timeout=1.0)) for _ in range(60)]
    results = await asyncio.gather(*asks, return_exceptions=True)
    assert [type(result) for result in results].count(roost.Overloaded) == 10
    assert [type(result) for result in results].count(roost.DeadlineExceeded) == 50


async def test_handlers_that_wait_are_bounded_at_the_receiver(cluster: Cluster) -> None:
    a, b = await two(cluster, running_calls_max=20)

    @b.answer(Hang)
    async def hang(letter: roost.Envelope[Hang]) -> None:
        await asyncio.Event().wait()

    asks = [asyncio.create_task(a.ask(b.name, Hang(), timeout=1.0)) for _ in range(30)]
    results = await asyncio.gather(*asks, return_exceptions=True)
    refused = [result for result in results if isinstance(result, roost.Overloaded)]
    assert len(refused) == 10 and not any(error.may_have_run for error in refused)


async def test_a_call_that_arrives_after_its_deadline_is_not_run(cluster: Cluster) -> None:
    a, b = await two(cluster, suspicion_seconds=30.0)
    ran: list[int] = []

    @b.answer(Double)
    def double(letter: roost.Envelope[Double]) -> int:
        ran.append(letter.body.number)
        return letter.body.number * 2

    await a.ask(b.name, Double(1))
    cluster.one_way_cut(a, b)
    with pytest.raises(roost.DeadlineExceeded):
        await a.ask(b.name, Double(2), timeout=1.0)
    in_time = asyncio.create_task(a.ask(b.name, Double(3), timeout=9.0))
    await cluster.sleep(2.0)
    cluster.heal()  # the link held on to both, and now delivers them
    assert await in_time == 6
    assert ran == [1, 3]
