"""Envelopes between simulated nodes: where they arrive, in which order, and what happens at the bounds."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import Mapping
from typing import Any

import pytest

import roost
from roost.testing import Cluster


class Notice(roost.Message):
    number: int


class Blob(roost.Message):
    number: int
    body: bytes


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Odd:
    """A class that nobody has registered."""


class Grumpy:
    """A class whose decoding fails in its own way."""


def refuse(value: Any) -> Grumpy:
    raise LookupError("not today")


roost.register(Grumpy, encode=lambda grumpy: 1, decode=refuse)


async def test_an_envelope_arrives_with_its_sender_and_id(cluster: Cluster) -> None:
    a, b = await cluster.start(["3456543", "4567654"])
    inbox = b.inbox()
    await a.outbox.put(roost.Envelope(to=4567654, id=1729, body="Hi There!"))
    letter = await anext(inbox)
    assert letter == roost.Envelope("Hi There!", source="3456543", id=1729)
    assert (letter.pid, a.pid, b.peers) == (3456543, 3456543, ["3456543"])
    await b.outbox.put(roost.Envelope(to=letter.source, id=letter.id, body=None))
    assert await anext(a.inbox(type(None))) == roost.Envelope(None, "4567654", 1729)


async def test_a_body_goes_to_the_inbox_of_its_type_and_else_to_the_one_for_all(cluster: Cluster) -> None:
    a, b = await cluster.start(2)
    number = uuid.UUID(int=7)
    bodies: list[tuple[Any, Any, Any]] = [
        (str, "text", "text"),
        (int, 2**63, 2**63),
        (bool, True, True),
        (bytes, b"\x00\xff", b"\x00\xff"),
        (list[int], [1, 2], [1, 2]),
        (dict[str, list[int]], {"a": [1]}, {"a": [1]}),
        (tuple[int, str], (1, "a"), [1, "a"]),
        (set[int], {1}, [1]),
        (uuid.UUID, number, str(number)),
        (Point, Point(1, 2), {"x": 1, "y": 2}),
        (Notice, Notice(3), {"type": "Notice", "number": 3}),
    ]
    for kind, body, plain in bodies:
        everything = b.inbox()
        await a.outbox.put(roost.Envelope(to=b.name, body=body))
        assert (await anext(everything)).body == plain
        typed = b.inbox(kind)
        await a.outbox.put(roost.Envelope(to=b.name, body=body))
        letter = await anext(typed)
        assert (letter.body, type(letter.body)) == (body, type(body))
        assert len(everything) == 0


async def test_messages_by_send_and_by_envelope_share_their_inbox_and_keep_their_order(cluster: Cluster) -> None:
    a, b = await cluster.start(2, inbox_messages_max=10)
    inbox, everything = b.inbox(Notice), b.inbox()
    for number in range(10):
        await a.send(b.name, Notice(number))
        await a.outbox.put(roost.Envelope(to=b.name, id=number + 1, body=Notice(number)))
    letters = [await anext(inbox) for _ in range(20)]
    assert [(letter.body.number, letter.id) for letter in letters] == [
        (number, given) for number in range(10) for given in (0, number + 1)
    ]
    await a.send(b.name, Notice(99))
    assert (await anext(inbox)).body == Notice(99)
    assert len(everything) == 0


async def test_envelopes_stay_in_order_whatever_is_in_them(cluster: Cluster) -> None:
    a, b = await cluster.start(2, inbox_messages_max=50)
    inbox = b.inbox()

    async def send() -> None:
        for number in range(2000):
            body = (number, str(number), {"n": number})[number % 3]
            await a.outbox.put(roost.Envelope(to=b.name, id=number, body=body))

    sender = asyncio.create_task(send())
    for expected in range(2000):
        assert (await anext(inbox)).id == expected
        assert len(inbox) <= 50
    await sender


async def test_a_broadcast_reaches_every_other_and_not_its_sender(cluster: Cluster) -> None:
    nodes = await cluster.start(4)
    inboxes = [node.inbox(str) for node in nodes]
    await nodes[0].outbox.put(roost.Envelope(to=roost.BROADCAST, id=5, body="all"))
    nodes[1].outbox.put_nowait(roost.Envelope(to=roost.BROADCAST, id=6, body="again"))
    await cluster.sleep(0.1)
    assert [len(inbox) for inbox in inboxes] == [1, 1, 2, 2]
    assert await anext(inboxes[1]) == roost.Envelope("all", nodes[0].name, 5)
    assert await anext(inboxes[0]) == roost.Envelope("again", nodes[1].name, 6)


async def test_a_broadcast_leaves_out_who_is_down_or_becomes_so_while_it_waits(cluster: Cluster) -> None:
    a, b, c, d = await cluster.start(4, inbox_messages_max=2)
    inboxes = [node.inbox(int) for node in (b, c, d)]
    await cluster.crash(d)
    await cluster.settle()
    for number in range(2):
        await a.outbox.put(roost.Envelope(to=roost.BROADCAST, body=number))
    putting = asyncio.create_task(a.outbox.put(roost.Envelope(to=roost.BROADCAST, body=2)))
    await cluster.sleep(0.2)
    assert not putting.done()
    await cluster.crash(c)
    assert (await anext(inboxes[0])).body == 0
    await putting
    assert [(await anext(inboxes[0])).body for _ in range(2)] == [1, 2]


async def test_a_broadcast_without_room_at_one_goes_to_none(cluster: Cluster) -> None:
    a, b, c = await cluster.start(3, inbox_messages_max=2)
    reads, sleeps = b.inbox(int), c.inbox(int)
    for number in range(2):
        await a.outbox.put(roost.Envelope(to=c.name, body=number))
    everybody = roost.Envelope(to=roost.BROADCAST, body=7)
    with pytest.raises(roost.Overloaded, match=f"{c.name} has 2 envelopes of this node unread") as at_once:
        a.outbox.put_nowait(everybody)
    with pytest.raises(roost.Overloaded, match=f"{c.name} has 2 envelopes of this node unread") as in_time:
        await a.outbox.put(everybody)
    assert not at_once.value.may_have_run and not in_time.value.may_have_run
    await cluster.sleep(0.1)
    assert len(reads) == 0
    for _ in range(2):
        await anext(sleeps)
    for _ in range(2):  # nothing of the room that the failed ones had taken at b is missing now
        await a.outbox.put(everybody)
    assert [(await anext(reads)).body for _ in range(2)] == [7, 7]


async def test_an_unknown_receiver_is_unreachable_at_once(cluster: Cluster) -> None:
    a, b = await cluster.start(["1", "2"])
    for to in ("nobody", 77):
        with pytest.raises(roost.Unreachable, match=f"no member is called '{to}'; known are: 1, 2") as caught:
            await a.outbox.put(roost.Envelope(to=to, body="x"))
        assert (caught.value.node, caught.value.may_have_run) == (str(to), False)
        with pytest.raises(roost.Unreachable):
            a.outbox.put_nowait(roost.Envelope(to=to, body="x"))
    await cluster.crash(b)
    await cluster.settle()
    with pytest.raises(roost.Unreachable, match="2 is down"):
        await a.outbox.put(roost.Envelope(to=2, body="x"))


async def test_put_waits_for_a_slow_reader_and_put_nowait_does_not(cluster: Cluster) -> None:
    a, b = await cluster.start(2, inbox_messages_max=10)
    inbox = b.inbox(str)
    for _ in range(10):
        a.outbox.put_nowait(roost.Envelope(to=b.name, body="x"))
    with pytest.raises(roost.Overloaded, match="unread") as caught:
        a.outbox.put_nowait(roost.Envelope(to=b.name, body="x"))
    assert (caught.value.what, caught.value.limit, caught.value.may_have_run) == ("inbox_messages_max", 10, False)
    putting = asyncio.create_task(a.outbox.put(roost.Envelope(to=b.name, body=1)))
    await cluster.sleep(0.5)
    assert not putting.done() and len(inbox) == 10
    for _ in range(10):
        await anext(inbox)
    await putting


async def test_what_is_no_envelope_is_refused_where_it_is_put(cluster: Cluster) -> None:
    a, b = await cluster.start(2, message_bytes_max=1000)
    for wrong, error, what in (
        (roost.Envelope("x"), roost.ConfigError, "to nobody"),
        (roost.Envelope("x", to=b.name, id=2**64), roost.ConfigError, "cannot be the id"),
        (roost.Envelope("x" * 1000, to=b.name), roost.Overloaded, "a str of 10.. bytes; message_bytes_max is 1000"),
        (roost.Envelope(Odd(), to=b.name), TypeError, "Odd cannot travel"),
        (roost.Envelope(2**64, to=b.name), OverflowError, "serialize ints"),
    ):
        with pytest.raises(error, match=what):
            await a.outbox.put(wrong)
        with pytest.raises(error, match=what):
            a.outbox.put_nowait(wrong)
    for no_type in (3, int | str, object, Mapping):
        with pytest.raises(roost.ConfigError, match="no body has exactly the type"):
            b.inbox(no_type)  # type: ignore[arg-type]  # the mistake is the point
    b.inbox(list[int])
    with pytest.raises(roost.ConfigError, match=r"what comes as list is read as list\[int\] already"):
        b.inbox(list[str])


async def test_envelopes_that_nobody_reads_or_can_read_are_counted_and_cost_no_room(cluster: Cluster) -> None:
    a, b = await cluster.start(2, inbox_messages_max=10)
    for _ in range(100):
        await a.outbox.put(roost.Envelope(to=b.name, body="x"))
    assert b.status()["messages_dropped"] >= 90
    lists, grumpy = b.inbox(list[int]), b.inbox(Grumpy)
    await cluster.sleep(0.1)
    dropped = b.status()["messages_dropped"]
    for _ in range(50):
        await a.outbox.put(roost.Envelope(to=b.name, body=["no number"]))
        await a.outbox.put(roost.Envelope(to=b.name, body=Grumpy()))
    await a.outbox.put(roost.Envelope(to=b.name, body=[1]))
    assert (await anext(lists)).body == [1]
    assert (len(grumpy), b.status()["messages_dropped"]) == (0, dropped + 100)


async def test_a_sender_that_comes_back_is_told_how_much_is_unread(cluster: Cluster) -> None:
    """The window of a receiver that was taken for dead is gone; what it has unread still counts."""
    a, b = await cluster.start(2, inbox_messages_max=10)
    inbox = b.inbox(int)
    for number in range(10):
        await a.outbox.put(roost.Envelope(to=b.name, body=number))
    await cluster.sleep(0.1)
    cluster.partition([a], [b])
    await cluster.settle()
    cluster.heal()
    await cluster.settle()
    with pytest.raises(roost.Overloaded):
        a.outbox.put_nowait(roost.Envelope(to=b.name, body=10))
    sending = asyncio.create_task(a.outbox.put(roost.Envelope(to=b.name, body=10)))
    assert [(await anext(inbox)).body for _ in range(11)] == list(range(11))
    await sending
    assert b.status()["messages_dropped"] == 0


async def test_a_stopped_node_refuses_envelopes_and_its_inbox_ends(cluster: Cluster) -> None:
    a, b = await cluster.start(2)
    outbox, inbox = a.outbox, b.inbox(str)
    await outbox.put(roost.Envelope(to=b.name, body="last"))
    await cluster.sleep(0.1)
    await cluster.leave(a)
    await cluster.leave(b)
    with pytest.raises(roost.Unreachable, match="this node has stopped"):
        await outbox.put(roost.Envelope(to=b.name, body="x"))
    assert [letter.body async for letter in inbox] == ["last"]


async def test_a_node_may_write_to_itself_within_the_same_bounds(cluster: Cluster) -> None:
    (a,) = await cluster.start(1, inbox_messages_max=10)
    inbox = a.inbox(int)

    async def send() -> None:
        for number in range(100):
            await a.outbox.put(roost.Envelope(to=a.name, id=number, body=number))

    sending = asyncio.create_task(send())
    await cluster.sleep(0.1)
    assert len(inbox) == 10
    assert [(await anext(inbox)).id for _ in range(100)] == list(range(100))
    await sending
    await a.outbox.put(roost.Envelope(to=roost.BROADCAST, body=1))
    await cluster.sleep(0.1)
    assert len(inbox) == 0, "alone, a broadcast reaches nobody"
    await a.send(a.name, Notice(1))
    await cluster.sleep(0.1)
    assert a.status()["messages_dropped"] == 1


@pytest.mark.parametrize(("mine", "yours"), [(5, 4096), (4096, 5), (3, 8)])
async def test_nodes_with_other_limits_lose_nothing_and_never_wait_for_good(
    cluster: Cluster, mine: int, yours: int
) -> None:
    (a,) = await cluster.start(1, inbox_messages_max=mine)
    (b,) = await cluster.start(1, inbox_messages_max=yours)
    await cluster.settle()
    inbox, notices = b.inbox(int), b.inbox(Notice)
    got: list[int] = []
    told: list[int] = []

    async def read() -> None:
        async for letter in inbox:
            got.append(letter.body)
            await cluster.sleep(0.01)

    async def hear() -> None:
        async for letter in notices:
            told.append(letter.body.number)
            await cluster.sleep(0.01)

    readers = [asyncio.create_task(read()), asyncio.create_task(hear())]
    for number in range(60):
        await a.outbox.put(roost.Envelope(to=b.name, body=number))
        await a.send(b.name, Notice(number))
        most = max(len(inbox), len(notices))
        assert most <= max(mine, yours)
    await cluster.sleep(2.0)
    assert got == told == list(range(60))
    for reader in readers:
        reader.cancel()


async def test_who_waits_for_room_as_the_link_breaks_is_counted_on_the_next_one(cluster: Cluster) -> None:
    a, b = await cluster.start(2, inbox_messages_max=8, write_bytes_high=2000, call_seconds=60.0)
    inbox = b.inbox(Blob)
    got: list[int] = []

    async def read() -> None:
        async for letter in inbox:
            got.append(letter.body.number)
            await cluster.sleep(0.05)

    reader = asyncio.create_task(read())
    senders = []
    for burst in range(4):
        cluster.reset_links(a, b)
        cluster.partition([a], [b])
        blobs = [Blob(burst * 100 + number, b"x" * 600) for number in range(20)]
        senders += [asyncio.create_task(a.send(b.name, blob)) for blob in blobs]
        await cluster.sleep(0.3)
        cluster.heal()
        await cluster.sleep(0.6)
    await asyncio.gather(*senders)
    await cluster.sleep(30.0)
    assert b.status()["messages_dropped"] == 0
    assert len(got) == len(set(got)) > 60
    reader.cancel()
