"""The port, from above: what whole nodes promise on every transport, since their links keep theirs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

import roost
from tests.net.conformance.harness import Harness, on_every_transport
from tests.net.ends import eventually

MIB = 1024 * 1024


class Notice(roost.Message):
    number: int


class Piece(roost.Message):
    data: bytes


class Echo(roost.Request[bytes]):
    data: bytes


class Fill(roost.Request[bytes]):
    size: int


class Hang(roost.Request[None]):
    pass


class Handlers:
    """What a node answers, and what became of the handlers that wait."""

    def __init__(self, node: roost.Node) -> None:
        self.began = 0
        self.ended = 0

        @node.answer(Echo)
        def echo(letter: roost.Envelope[Echo]) -> bytes:
            return letter.body.data

        @node.answer(Fill)
        def fill(letter: roost.Envelope[Fill]) -> bytes:
            return bytes(letter.body.size)

        @node.answer(Hang)
        async def hang(letter: roost.Envelope[Hang]) -> None:
            self.began += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.ended += 1


@contextlib.asynccontextmanager
async def two_nodes(harness: Harness, **settings: Any) -> AsyncIterator[tuple[roost.Node, roost.Node, Handlers]]:
    """a and b, settled, linked, and in no hurry to suspect each other."""
    settings = {"suspicion_seconds": 1000.0, "refused_seconds": 1000.0, **settings}
    async with harness.node("a", **settings) as a, harness.node("b", a, **settings) as b:
        handlers = Handlers(b)
        await a.ready(2)
        await b.ready(2)
        assert await a.ask("b", Echo(b"x")) == b"x"
        try:
            yield a, b, handlers
        finally:
            harness.heal()


async def break_links(harness: Harness, a: roost.Node, b: roost.Node) -> None:
    """Until both have noticed."""
    peers = [a._running.peers.by_uid[b.uid], b._running.peers.by_uid[a.uid]]
    before = {session for peer in peers for session in peer.sessions}
    harness.break_links()
    await eventually(lambda: not any(session in before for peer in peers for session in peer.sessions))


async def lose_links(harness: Harness, a: roost.Node, b: roost.Node) -> None:
    """And no new ones come about."""
    harness.break_links()
    harness.cut()
    peer = a._running.peers.by_uid[b.uid]
    await eventually(lambda: peer.outbound is None)


async def send_all(node: roost.Node, to: str, count: int) -> None:
    for number in range(count):
        await node.send(to, Notice(number))


async def read(inbox: roost.Inbox[Notice], count: int) -> list[int]:
    return [(await anext(inbox)).body.number for _ in range(count)]


# order


@on_every_transport
async def test_messages_of_a_pair_arrive_in_order_both_ways_at_once(harness: Harness) -> None:
    count = 2000
    async with two_nodes(harness) as (a, b, _):
        inboxes = [a.inbox(Notice), b.inbox(Notice)]
        _, _, *got = await asyncio.gather(
            send_all(a, "b", count), send_all(b, "a", count), *(read(inbox, count) for inbox in inboxes)
        )
        assert got == [list(range(count))] * 2


@on_every_transport
async def test_messages_and_calls_of_any_size_keep_their_order(harness: Harness) -> None:
    async with two_nodes(harness) as (a, b, _):
        seen: list[int] = []

        class Mark(roost.Request[None]):
            number: int
            filling: bytes

        @b.answer(Mark)
        def mark(letter: roost.Envelope[Mark]) -> None:
            seen.append(letter.body.number)

        rng = random.Random(5)
        sizes = [rng.choice((0, 100, 20_000, 300_000)) for _ in range(100)]
        await asyncio.gather(*(a.ask("b", Mark(number, bytes(size))) for number, size in enumerate(sizes)))
        assert seen == list(range(100))


@on_every_transport
async def test_order_holds_when_links_break_and_nothing_comes_twice(harness: Harness) -> None:
    async with two_nodes(harness) as (a, b, _):
        inbox = b.inbox(Notice)
        got: list[int] = []

        async def keep_reading() -> None:
            async for letter in inbox:
                got.append(letter.body.number)

        reader = asyncio.create_task(keep_reading())
        for number in range(1000):
            await a.send("b", Notice(number))
            if number % 200 == 100:
                harness.break_links()
            if number % 10 == 0:
                await asyncio.sleep(0.001)
        await a.ask("b", Echo(b"behind them all"))
        reader.cancel()
        assert got == sorted(set(got)), "out of order or doubled"
        assert got and got[-1] == 999


# loss


@on_every_transport
async def test_a_link_that_breaks_fails_what_was_under_way_as_maybe_run(harness: Harness) -> None:
    async with two_nodes(harness) as (a, _, handlers):
        asking = asyncio.create_task(a.ask("b", Hang(), timeout=20.0))
        await eventually(lambda: handlers.began == 1)
        harness.break_links()
        with pytest.raises(roost.Unreachable, match="broke during the call") as caught:
            await asking
        assert caught.value.may_have_run


@on_every_transport
async def test_a_call_that_was_never_sent_says_so(harness: Harness) -> None:
    async with two_nodes(harness) as (a, b, handlers):
        await lose_links(harness, a, b)
        with pytest.raises(roost.DeadlineExceeded, match="never sent") as caught:
            await a.ask("b", Hang(), timeout=0.3)
        assert not caught.value.may_have_run
        harness.heal()
        assert await a.ask("b", Echo(b"again")) == b"again"
        assert handlers.began == 0


@on_every_transport
async def test_a_call_in_a_silent_network_may_have_run_and_ends_in_time(harness: Harness) -> None:
    async with two_nodes(harness) as (a, _, _):
        harness.cut()
        with pytest.raises(roost.DeadlineExceeded) as caught:
            await a.ask("b", Echo(b"?"), timeout=0.3)
        assert caught.value.may_have_run


@on_every_transport
async def test_links_that_broke_open_again_at_the_next_use(harness: Harness) -> None:
    async with two_nodes(harness) as (a, b, _):
        Handlers(a)
        for number in range(10):
            await break_links(harness, a, b)
            data = str(number).encode()
            assert await a.ask("b", Echo(data)) == data
            assert await b.ask("a", Echo(data)) == data


@on_every_transport
async def test_when_both_ends_open_a_new_link_at_once_each_call_ends_and_the_next_arrive(harness: Harness) -> None:
    async with two_nodes(harness) as (a, b, _):
        Handlers(a)
        for _ in range(5):
            harness.break_links()
            asks = [node.ask(to, Echo(b"x"), timeout=4.0) for node, to in ((a, "b"), (b, "a"))]
            for answer in await asyncio.gather(*asks, return_exceptions=True):
                # What was written before the break was noticed may have run; nothing is left until its deadline.
                assert answer == b"x" or (isinstance(answer, roost.Unreachable) and answer.may_have_run), answer
        await asyncio.sleep(0.1)
        assert await a.ask("b", Echo(b"fine")) == await b.ask("a", Echo(b"fine")) == b"fine"


@on_every_transport
async def test_a_call_during_a_blip_waits_for_the_next_link(harness: Harness) -> None:
    async with two_nodes(harness) as (a, b, _):
        for _ in range(3):
            await lose_links(harness, a, b)
            asking = asyncio.create_task(a.ask("b", Echo(b"patience"), timeout=4.0))
            await asyncio.sleep(0.2)
            assert not asking.done()
            harness.heal()
            assert await asking == b"patience"


# bounds and back-pressure


@on_every_transport
async def test_what_exceeds_a_bound_is_refused_where_it_is_made(harness: Harness) -> None:
    bounds = {"pending_calls_max": 20, "message_bytes_max": 100_000, "frame_bytes_max": 200_000}
    async with two_nodes(harness, **bounds) as (a, _, handlers):
        with pytest.raises(roost.Overloaded, match="message_bytes_max") as caught:
            await a.ask("b", Echo(bytes(100_001)))
        assert not caught.value.may_have_run
        with pytest.raises(roost.Overloaded, match="more than a frame") as caught:
            await a.ask("b", Fill(200_000))
        assert caught.value.may_have_run and caught.value.what == "frame_bytes_max"
        asks = [asyncio.create_task(a.ask("b", Hang(), timeout=1.0)) for _ in range(30)]
        results = await asyncio.gather(*asks, return_exceptions=True)
        kinds = [type(result) for result in results]
        assert (kinds.count(roost.Overloaded), kinds.count(roost.DeadlineExceeded)) == (10, 20)
        await eventually(lambda: handlers.began == handlers.ended == 20)
        assert await a.ask("b", Echo(b"fine")) == b"fine"


@on_every_transport
async def test_handlers_that_wait_are_bounded_at_the_receiver(harness: Harness) -> None:
    async with two_nodes(harness, running_calls_max=20) as (a, _, handlers):
        asks = [asyncio.create_task(a.ask("b", Hang(), timeout=1.0)) for _ in range(30)]
        results = await asyncio.gather(*asks, return_exceptions=True)
        refused = [result for result in results if isinstance(result, roost.Overloaded)]
        assert len(refused) == 10 and not any(error.may_have_run for error in refused)
        assert handlers.began == 20


@on_every_transport
async def test_a_slow_reader_slows_its_sender_and_nobody_else(harness: Harness) -> None:
    limit = 100
    async with two_nodes(harness, inbox_messages_max=limit) as (a, b, _):
        inbox = b.inbox(Notice)
        sender = asyncio.create_task(send_all(a, "b", 5 * limit))
        await eventually(lambda: len(inbox) == limit)
        assert await a.ask("b", Echo(b"not delayed")) == b"not delayed"
        assert len(inbox) == limit and not sender.done()
        got = []
        for _ in range(5 * limit):
            got.append((await anext(inbox)).body.number)
            assert len(inbox) <= limit
        await sender
        assert got == list(range(5 * limit))


@on_every_transport
async def test_what_waits_for_a_silent_peer_is_bounded(harness: Harness) -> None:
    limit = MIB
    async with two_nodes(harness, outbound_bytes_max=limit, write_bytes_high=64 * 1024) as (a, b, _):
        peer = a._running.peers.by_uid[b.uid]
        harness.cut()
        asks = []
        held = 0
        for _ in range(400):
            asks.append(asyncio.create_task(a.ask("b", Echo(bytes(64 * 1024)), timeout=0.5)))
            await asyncio.sleep(0)
            held = max(held, peer.held_bytes)
        async with asyncio.timeout(5):  # also those that wait for room end by their deadline
            results = await asyncio.gather(*asks, return_exceptions=True)
        assert held <= limit + 64 * 1024 + 100
        assert {type(result) for result in results} <= {roost.DeadlineExceeded, roost.Overloaded}
        never = [each for each in results if isinstance(each, roost.RoostError) and not each.may_have_run]
        assert len(never) > 100, "most of it cannot have left"
        harness.heal()
        assert await a.ask("b", Echo(b"fine"), timeout=20.0) == b"fine"
        assert peer.held_bytes == 0


@on_every_transport
async def test_64_mebibytes_are_refused_in_one_message_and_arrive_in_pieces(harness: Harness) -> None:
    async with two_nodes(harness, inbox_messages_max=8) as (a, b, _):
        with pytest.raises(roost.Overloaded, match="send it in pieces"):
            await a.send("b", Piece(bytes(64 * MIB)))
        inbox = b.inbox(Piece)
        expected, got = hashlib.blake2b(), hashlib.blake2b()

        async def send() -> None:
            for number in range(64):
                piece = random.Random(number).randbytes(MIB)
                expected.update(piece)
                await a.send("b", Piece(piece))

        sender = asyncio.create_task(send())
        for _ in range(64):
            got.update((await anext(inbox)).body.data)
            assert len(inbox) <= 8
        await sender
        assert got.digest() == expected.digest()
        big = random.Random(7).randbytes(15 * MIB)
        assert await a.ask("b", Echo(big), timeout=20.0) == big


# deadlines, cancellation


@on_every_transport
async def test_a_deadline_ends_the_call_here_and_the_handler_there(harness: Harness) -> None:
    async with two_nodes(harness) as (a, _, handlers):
        with pytest.raises(roost.DeadlineExceeded) as caught:
            await a.ask("b", Hang(), timeout=0.2)
        assert caught.value.may_have_run
        await eventually(lambda: handlers.began == handlers.ended == 1)


@on_every_transport
async def test_cancelling_the_caller_cancels_the_handler(harness: Harness) -> None:
    async with two_nodes(harness) as (a, _, handlers):
        asking = asyncio.create_task(a.ask("b", Hang(), timeout=1000.0))
        await eventually(lambda: handlers.began == 1)
        asking.cancel()
        await eventually(lambda: handlers.ended == 1)
        assert asking.cancelled()


# hints, lifetime


@on_every_transport
async def test_a_process_that_ended_is_noticed_by_hints_alone(harness: Harness) -> None:
    async with two_nodes(harness, refused_seconds=0.1) as (a, b, handlers):
        asking = asyncio.create_task(a.ask("b", Hang(), timeout=1000.0))
        await eventually(lambda: handlers.began == 1)
        await b.abandon()
        await eventually(lambda: a.members["b"].state == "down")
        with pytest.raises(roost.Unreachable):
            await asking
        with pytest.raises(roost.Unreachable, match="is down") as caught:
            await a.ask("b", Echo(b"?"))
        assert not caught.value.may_have_run


@on_every_transport
async def test_a_graceful_leave_is_no_loss(harness: Harness) -> None:
    async with two_nodes(harness) as (a, b, _):
        inbox = a.inbox(Notice)
        await send_all(b, "a", 200)
        await b.stop()
        assert await read(inbox, 200) == list(range(200))
        await eventually(lambda: a.peers == [] or a.members["b"].state == "left")


@on_every_transport
async def test_a_node_can_start_and_stop_64_times(harness: Harness) -> None:
    async with harness.node("a") as a:
        Handlers(a)
        left: list[int] = []
        uids = set()
        b = harness.node("b", a)
        for number in range(64):
            async with b:
                uids.add(b.uid)
                assert await b.ask("a", Echo(b"%d" % number)) == b"%d" % number
            left.append(harness.leftovers())
        assert len(uids) == 64
        await eventually(lambda: harness.leftovers() <= left[0])
        assert len(a._running.peers.by_uid) <= 66
