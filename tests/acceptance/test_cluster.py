"""Envelopes between the servers of a peer file: each thing that the ancestor does, its tests, and its known faults.

Over TCP on loopback, with nodes of one process, on the loops that people use.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import roost
from roost.messages import Broadcast
from tests.acceptance.clusters import Leaks, descriptors, peer_file, pids_of, running, servers, start, stop
from tests.net.ends import eventually, on_both_loops

SERVERS = 14
ROUNDS = 64
ROUND_SERVERS = 3
QUICK = {"probe_seconds": 0.1, "probe_timeout_seconds": 0.05}
"""For what is done many times: views settle in about a probe's time."""


class Notice(roost.Message):
    number: int


def letter_of(source: roost.Node, number: int, body: Any) -> roost.Envelope[Any]:
    return roost.Envelope(body, source.name, number)


def put(to: str | int | Broadcast, number: int, body: Any) -> roost.Envelope[Any]:
    return roost.Envelope(to=to, id=number, body=body)


def sockets() -> int:
    return descriptors()["socket"]


# bring-up and take-down


@on_both_loops
async def test_fourteen_servers_come_up_from_one_peer_file_and_go_down(tmp_path: Path) -> None:
    path = peer_file(tmp_path, SERVERS)
    leaks = await Leaks.begin()
    async with running(path) as nodes:
        assert [node.pid for node in nodes] == pids_of(path)
        for node in nodes:
            others = {str(pid) for pid in pids_of(path)} - {node.name}
            assert set(node.peers) == others and len(node.peers) == SERVERS - 1
            assert {member.state for member in node.members} == {"up"}
    leaks.check_descriptors()


@on_both_loops
async def test_sixty_four_times_anew(tmp_path: Path) -> None:
    path = peer_file(tmp_path, ROUND_SERVERS)
    leaks = await Leaks.begin()
    for number in range(ROUNDS):
        async with running(path, **QUICK) as nodes:
            leaks.watch(nodes)
            await exchange(nodes, number)
        del nodes
        leaks.check_descriptors()
        if number % 8 == 7:
            leaks.check_memory()
    leaks.check_growth()


@on_both_loops
async def test_sixty_four_times_with_the_same_objects(tmp_path: Path) -> None:
    nodes = servers(peer_file(tmp_path, ROUND_SERVERS), **QUICK)
    leaks = await Leaks.begin()
    for number in range(ROUNDS):
        await start(nodes)
        leaks.watch(nodes)
        await exchange(nodes, number)
        await stop(nodes)
        leaks.check_descriptors()
        if number % 8 == 7:
            leaks.check_memory()
    leaks.check_growth()


async def exchange(nodes: list[roost.Node], number: int) -> None:
    """Each sends to the next."""
    for node, following in zip(nodes, nodes[1:] + nodes[:1], strict=True):
        inbox = following.inbox()
        await node.outbox.put(put(following.name, number, "round"))
        assert await anext(inbox) == letter_of(node, number, "round")


@on_both_loops
async def test_an_unknown_pid_fails_and_what_has_failed_can_be_stopped_and_started(tmp_path: Path) -> None:
    path = peer_file(tmp_path, 2)
    with pytest.raises(roost.ConfigError, match=f"no pid 7; it has: {', '.join(map(str, pids_of(path)))}"):
        roost.Node.from_peer_file(path, pid=7)
    (node, other), (_, twin) = (servers(path, form_alone_seconds=0.2) for _ in range(2))
    await node.stop()  # never started: nothing to do
    async with other:
        with pytest.raises(roost.ConfigError, match="stop what listens there"):
            await twin.start()
        await twin.stop()
    await start([node, twin])
    assert (node.peers, twin.peers) == ([twin.name], [node.name])
    with pytest.raises(roost.Unreachable, match="no member is called '7'"):
        await node.outbox.put(put(7, 1, "x"))
    with pytest.raises(roost.Unreachable, match="no member is called '7'"):
        node.outbox.put_nowait(put(7, 1, "x"))
    async with asyncio.timeout(5):
        await stop([node, twin])


@on_both_loops
async def test_a_restart_finds_its_port_free_at_once_though_links_were_open(tmp_path: Path) -> None:
    path = peer_file(tmp_path, 3)
    async with running(path) as nodes:
        for number in range(8):
            node = nodes[number % 3]
            for other in nodes:
                other.inbox(int)
            await asyncio.gather(*(each.outbox.put(put(roost.BROADCAST, number, number)) for each in nodes))
            if number % 2:
                await node.stop()
            else:
                await node.abandon()
            await node.start()
            await asyncio.gather(*(each.ready(3) for each in nodes))


# envelopes


@on_both_loops
async def test_each_of_fourteen_broadcasts_at_once_and_every_other_receives_exactly_that(tmp_path: Path) -> None:
    async with running(peer_file(tmp_path, SERVERS)) as nodes:
        inboxes = [node.inbox() for node in nodes]
        bodies = {node.name: {"from": node.pid, "text": f"hello from {node.pid}"} for node in nodes}
        await asyncio.gather(
            *(
                node.outbox.put(put(roost.BROADCAST, 1000 + position, bodies[node.name]))
                for position, node in enumerate(nodes)
            )
        )
        checked = 0
        for node, inbox in zip(nodes, inboxes, strict=True):
            async with asyncio.timeout(10):
                letters = {letter.source: letter for letter in [await anext(inbox) for _ in range(SERVERS - 1)]}
            for position, sender in enumerate(nodes):
                if sender is not node:
                    letter = letters.pop(sender.name)
                    assert letter == letter_of(sender, 1000 + position, bodies[sender.name])
                    assert letter.pid == sender.pid
                    checked += 1
            assert not letters
        assert checked == SERVERS * (SERVERS - 1)
        assert [len(inbox) for inbox in inboxes] == [0] * SERVERS


@pytest.mark.parametrize("count", [2000, 200_000])
@on_both_loops
async def test_messages_arrive_all_once_and_in_order(tmp_path: Path, count: int) -> None:
    async with running(peer_file(tmp_path, 2)) as (one, two):
        inbox = two.inbox(str)

        async def send() -> None:
            for number in range(count):
                await one.outbox.put(put(two.name, number, str(number)))

        sending = asyncio.create_task(send())
        for number in range(count):
            letter = await anext(inbox)
            assert (letter.id, letter.body) == (number, str(number))
        await sending
        assert len(inbox) == 0 and two.status()["messages_dropped"] == 0


@on_both_loops
async def test_one_link_carries_all_messages(tmp_path: Path) -> None:
    async with running(peer_file(tmp_path, 2)) as (one, two):
        inboxes = {one.name: one.inbox(), two.name: two.inbox()}
        before: int | None = None
        for number in range(2000):
            for source, to in ((one, two), (two, one)):
                await source.outbox.put(put(to.name, number, {"number": number}))
                assert await anext(inboxes[to.name]) == letter_of(source, number, {"number": number})
            if number == 0:
                before = sockets()
            assert sockets() == before if number % 100 == 0 else True
        links = [len(peer.sessions) for node in (one, two) for peer in node._running.peers.by_uid.values()]
        assert sorted(links) in ([0, 0, 1, 1], [0, 0, 2, 2]), "none to itself; two if each connected to the other"


@on_both_loops
async def test_a_full_inbox_slows_its_senders_and_does_not_block_stop(tmp_path: Path) -> None:
    async with running(peer_file(tmp_path, 3), inbox_messages_max=50, call_seconds=30.0) as (one, two, three):
        inbox = three.inbox()

        async def flood(node: roost.Node) -> int:
            sent = 0
            try:
                while True:
                    await node.outbox.put(put(three.name, sent, "x" * 1000))
                    sent += 1
            except roost.Unreachable:
                return sent

        floods = [asyncio.create_task(flood(node)) for node in (one, two)]
        await eventually(lambda: len(inbox) == 100)
        async with asyncio.timeout(5):
            await three.stop()
            assert [await flood for flood in floods] == [50, 50]
            left = [letter.id async for letter in inbox]
        assert sorted(left) == sorted([*range(50), *range(50)]), "what was taken can still be read"


@on_both_loops
async def test_a_sender_that_waits_for_a_full_inbox_can_be_stopped(tmp_path: Path) -> None:
    async with running(peer_file(tmp_path, 2), inbox_messages_max=5, call_seconds=30.0) as (one, two):
        inbox = two.inbox(int)
        for number in range(5):
            await one.outbox.put(put(two.name, number, number))
        waiting = asyncio.create_task(one.outbox.put(put(two.name, 5, 5)))
        await eventually(lambda: len(inbox) == 5)
        async with asyncio.timeout(5):
            await one.stop()
            with pytest.raises(roost.Unreachable):
                await waiting


# faults


@on_both_loops
async def test_the_blocklist_cuts_both_directions_until_it_is_empty(tmp_path: Path) -> None:
    async with running(peer_file(tmp_path, 3)) as (one, two, three):
        inboxes = {node.name: node.inbox() for node in (one, two, three)}

        async def reaches(source: roost.Node, to: roost.Node) -> bool:
            try:
                await source.outbox.put(put(to.name, 7, "?"))
                async with asyncio.timeout(0.5):
                    return await anext(inboxes[to.name]) == letter_of(source, 7, "?")
            except (roost.Unreachable, TimeoutError):
                return False

        pairs = [(source, to) for source in (one, two, three) for to in (one, two, three) if source is not to]
        assert [await reaches(*pair) for pair in pairs] == [True] * 6
        one.blocklist.add(two.name)
        with pytest.raises(roost.Unreachable, match="blocklist"):
            await one.outbox.put(put(two.name, 8, "!"))
        assert {pair: await reaches(*pair) for pair in pairs} == {pair: set(pair) != {one, two} for pair in pairs}
        await two.outbox.put(put(roost.BROADCAST, 9, "all"))
        assert await anext(inboxes[three.name]) == letter_of(two, 9, "all")
        one.blocklist.clear()
        async with asyncio.timeout(15):  # an attempt to connect that the cut has held up takes its time to end
            await two.outbox.put(put(one.name, 10, "again"))
            while (letter := await anext(inboxes[one.name])).id != 10:
                assert letter.id in (7, 9), "what was sent during the cut may still come, in order"
            assert letter == letter_of(two, 10, "again")
        assert await reaches(one, two)


@on_both_loops
async def test_two_that_are_cut_off_from_each_other_are_down_and_come_back(tmp_path: Path) -> None:
    async with running(peer_file(tmp_path, 2), rejoin_seconds=0.5, handshake_seconds=1.0) as (one, two):
        one.blocklist.add(two.name)
        await eventually(
            lambda: [node.members[name].state for node, name in ((one, two.name), (two, one.name))] == ["down"] * 2
        )
        with pytest.raises(roost.Unreachable):
            await two.outbox.put(put(one.name, 1, "x"))
        one.blocklist.discard(two.name)
        async with asyncio.timeout(10):
            await asyncio.gather(one.ready(2), two.ready(2))
        inbox = one.inbox(str)
        await two.outbox.put(put(one.name, 2, "back"))
        assert await anext(inbox) == letter_of(two, 2, "back")


@on_both_loops
async def test_ids_bodies_and_messages_of_every_kind_arrive_as_they_were_sent(tmp_path: Path) -> None:
    async with running(peer_file(tmp_path, 2)) as (one, two):
        bodies: list[Any] = [
            "",
            "Hi There!",
            0,
            -1.5,
            None,
            True,
            b"\x00" * 300_000,
            ["a", {"b": [1, None]}],
            {"k": "v"},
        ]
        inbox = two.inbox()
        for position, body in enumerate(bodies):
            await one.outbox.put(put(int(two.name), -position, body))
            assert await anext(inbox) == letter_of(one, -position, body)
        notices = two.inbox(Notice)
        await one.outbox.put(put(two.name, 2**63, Notice(5)))
        assert await anext(notices) == letter_of(one, 2**63, Notice(5))
