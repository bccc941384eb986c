"""Whole nodes on real sockets: bad input of every kind is refused clearly, and the others are served throughout."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import secrets
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

import roost
from roost.config import Settings
from roost.core.gossip import Sync
from roost.net.keyring import Keyring
from roost.net.tcp import TcpTransport
from roost.net.tls import make_contexts
from roost.net.transport import Link
from roost.runtime import Runtime
from roost.wire.frame import decode_batch, encode_batch
from roost.wire.handshake import Handshake
from roost.wire.protocol import PROTOCOL, Call, Envelope, Facts, Failure, Identity, News, Reply, Stream
from roost.wire.values import encode
from tests.net.ends import eventually, on_both_loops

SECRET = secrets.token_urlsafe(32)


class Echo(roost.Request[bytes]):
    data: bytes


class Notice(roost.Message):
    text: str


class Unheard(roost.Message):
    text: str


@contextlib.asynccontextmanager
async def node(
    name: str, *seeds: roost.Node, secret: str | None = SECRET, **settings: Any
) -> AsyncIterator[roost.Node]:
    settings = {"bind": "127.0.0.1:0", "profile": "local", "partitions": 64, **settings}
    if secret is not None:
        settings["secret"] = secret
    async with roost.Node(name, seeds=[seed.address for seed in seeds], **settings) as running:

        @running.answer(Echo)
        async def echo(letter: roost.Envelope[Echo]) -> bytes:
            return letter.body.data

        yield running


@pytest.mark.parametrize("secret", [None, SECRET], ids=["plain", "tls"])
@on_both_loops
async def test_three_nodes_talk(secret: str | None) -> None:
    async with node("a", secret=secret) as a, node("b", a, secret=secret) as b, node("c", a, secret=secret) as c:
        for each in (a, b, c):
            await each.ready(3)
        assert await b.ask("c", Echo(b"x" * 100)) == b"x" * 100
        assert await c.ask("b", Echo(b"y" * 5_000_000)) == b"y" * 5_000_000
        inbox = a.inbox(Notice)
        for number in range(100):
            await b.send("a", Notice(str(number)))
        assert [(await anext(inbox)).body.text for _ in range(100)] == [str(number) for number in range(100)]
        c_inbox = c.inbox(Notice)
        report = await b.broadcast(Notice("all"))
        assert report.reached == {"a", "c"}
        assert not report.missed
        assert (await anext(c_inbox)).source == "b"


@on_both_loops
async def test_a_wrong_secret_is_an_error_at_once_and_harms_nobody() -> None:
    async with node("a") as a, node("b", a) as b:
        await b.ready(2)
        with pytest.raises(roost.AuthError, match="secret"):
            async with node("thief", a, secret=secrets.token_urlsafe(32)):
                pass
        with pytest.raises(roost.AuthError, match="secret"):
            async with node("naked", a, secret=None):
                pass
        assert await b.ask("a", Echo(b"still here")) == b"still here"
        assert a.peers == ["b"]


@on_both_loops
async def test_a_node_with_a_secret_does_not_join_those_without() -> None:
    async with node("a", secret=None) as a:
        with pytest.raises(roost.AuthError, match="secret"):
            async with node("b", a):
                pass
        assert a.peers == []


@on_both_loops
async def test_another_clusters_name_is_refused_by_name() -> None:
    async with node("a") as a:
        with pytest.raises(roost.ConfigError, match=r"chess.*roost|roost.*chess"):
            async with node("b", a, cluster="chess"):
                pass
        assert a.peers == []


@on_both_loops
async def test_two_nodes_of_one_name_the_second_is_refused() -> None:
    async with node("a") as a, node("b", a) as b:
        with pytest.raises(roost.NameTaken, match="choose another name"):
            async with node("b", a, name_taken_seconds=0.5):
                pass
        assert await a.ask("b", Echo(b"me")) == b"me"
        assert a.members["b"].uid == b.uid


@on_both_loops
async def test_an_unreachable_seed_is_no_error_and_is_tried_again() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with node("a") as a:
        late = roost.Node(
            "b", bind=f"127.0.0.1:{port}", seeds=[a.address], secret=SECRET, profile="local", partitions=64
        )
        early = roost.Node(
            "c",
            bind="127.0.0.1:0",
            seeds=[f"127.0.0.1:{port}"],
            secret=SECRET,
            profile="local",
            partitions=64,
            form_alone_seconds=0.3,
            rejoin_seconds=0.5,
        )
        async with early:
            assert early.peers == []
            async with late:
                await early.ready(3)
                assert early.peers == ["a", "b"]


@on_both_loops
async def test_a_port_in_use_says_which_and_what_to_do() -> None:
    async with node("a") as a:
        with pytest.raises(roost.ConfigError, match=a.address):
            async with node("b", bind=a.address):
                pass


@on_both_loops
async def test_an_unknown_setting_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(roost.ConfigError, match="seeds"):
        roost.Node("a", sedes=["127.0.0.1:1"])  # type: ignore[call-arg]  # the mistake is the point


@on_both_loops
async def test_a_kind_the_receiver_does_not_know_is_refused_and_the_link_lives() -> None:
    async with node("a") as a, node("b", a) as b:
        await b.ready(2)
        await b.send("a", Unheard("?"))
        with pytest.raises(roost.NotFound, match="Ask"):
            await b.ask("a", Ask("?"))
        assert await b.ask("a", Echo(b"fine")) == b"fine"
        await eventually(lambda: a.status()["messages_dropped"] == 1)


class Ask(roost.Request[str]):
    text: str


@on_both_loops
async def test_garbage_and_half_open_connections_delay_nobody() -> None:
    async with node("a") as a, node("b", a) as b:
        await b.ready(2)
        host, port = a.address.split(":")
        strangers = []
        try:
            for number in range(300):
                stranger = socket.create_connection((host, int(port)))
                strangers.append(stranger)
                if number % 3 == 0:
                    stranger.send(os.urandom(50))
                elif number % 3 == 1:
                    stranger.send(struct.pack(">I", 0xFFFFFFFF))
                if number % 50 == 0:
                    assert await b.ask("a", Echo(b"busy?")) == b"busy?"
            async with node("c", a) as c:
                await c.ready(3)
                assert await c.ask("a", Echo(b"hello")) == b"hello"
        finally:
            for stranger in strangers:
                stranger.close()


class Stranger:
    """The far end of an authenticated link, by hand: for peers that misbehave after the handshake."""

    def __init__(self, link: Link, handshake: Handshake) -> None:
        self.link = link
        self.handshake = handshake
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def received(self, frame: memoryview) -> None:
        if not self.handshake.done:
            for answer in self.handshake.receive(frame):
                self.link.write(answer)
            if self.handshake.done:
                self.link.established()
                self.link.frame_bytes_max = 1 << 30
                self.ready.set_result(None)
        elif not self.answered.done() and any(isinstance(one, Reply | Failure) for one in decode_batch(frame)):
            self.answered.set_result(None)

    def batch_ended(self) -> None: ...

    def writable(self) -> None: ...

    def closed(self, error: Exception | None) -> None:
        if not self.gone.done():
            self.gone.set_result(None)


@contextlib.asynccontextmanager
async def stranger_to(target: roost.Node, role: str = "member") -> AsyncIterator[Stranger]:
    runtime = Runtime()
    settings = Settings(name="stranger", secret=SECRET, partitions=64)
    transport = TcpTransport(runtime, settings, make_contexts())
    seed = target._running.placement_seed
    ends: list[Stranger] = []

    def own(link: Link) -> Stranger:
        handshake = Handshake(
            initiator=True,
            me=Identity("stranger", 77, "127.0.0.1:1", role),
            facts=Facts("roost", PROTOCOL, 64, seed, int(runtime.wall() * 1000)),
            keyring=Keyring.from_settings(settings),
            binding=link.binding,
            nonce=os.urandom(32),
            clock_ahead_max_seconds=5.0,
        )
        ends.append(Stranger(link, handshake))
        return ends[0]

    link = await transport.connect(target.address, own, seconds=5)
    for frame in ends[0].handshake.start():
        link.write(frame)
    await ends[0].ready
    try:
        yield ends[0]
    finally:
        await transport.close()
        await runtime.cancel_tasks()


def rss_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@on_both_loops
async def test_a_peer_that_stops_reading_is_cut_off_with_memory_bounded() -> None:
    limit = 2 * 1024 * 1024
    async with node("a", outbound_bytes_max=limit) as a, node("b", a) as b, stranger_to(a, role="client") as deaf:
        await b.ready(2)
        before = rss_bytes()
        body = msgspec.Raw(msgspec.msgpack.encode(Echo(b"z" * 100_000)))
        transport = deaf.link._transport  # type: ignore[attr-defined]  # no port offers to stop reading
        transport.pause_reading()
        deaf.link.write(encode_batch([Stream(1)]))
        for number in range(1, 2001):  # 200 MB of answers, if they were all kept
            deaf.link.write(encode_batch([Call(number, "ask", "Echo", body, 60_000)]))
            if number % 20 == 0:
                assert await b.ask("a", Echo(b"and me?")) == b"and me?"
            if deaf.gone.done():
                break
        transport.resume_reading()
        async with asyncio.timeout(20):
            await deaf.gone
        assert rss_bytes() - before < 100 * 1024 * 1024
        assert await b.ask("a", Echo(b"still")) == b"still"


@pytest.mark.parametrize(
    "envelopes",
    [
        b"\xff\xff\xff",
        b"\x91\x92\x63\x01",
        msgspec.msgpack.encode([[0, 1, "ask"]]),
        msgspec.msgpack.encode("not an array"),
        b"\x91" * 3000,
    ],
    ids=["noise", "unknown-kind", "too-short", "no-array", "deep"],
)
@on_both_loops
async def test_a_peer_that_breaks_the_protocol_loses_its_link_and_nobody_else_does(envelopes: bytes) -> None:
    async with node("a") as a, node("b", a) as b, stranger_to(a) as rude:
        await b.ready(2)
        rude.link.write(envelopes)
        async with asyncio.timeout(10):
            await rude.gone
        assert await b.ask("a", Echo(b"fine")) == b"fine"


class Whose(roost.Request[str]):
    pass


@on_both_loops
async def test_a_client_is_no_member_and_cannot_gossip() -> None:
    async with node("a") as a, stranger_to(a, role="client") as client:
        body: list[Envelope] = [Stream(1)]
        me = a._running.members.me
        forged = msgspec.structs.replace(me, name="ghost", uid=99, address="127.0.0.1:9")
        body.append(News(Sync(False, [forged], [])))
        client.link.write(encode_batch(body))
        client.link.write(encode_batch([Call(1, "ask", "Echo", msgspec.Raw(b"\xc0"), 1000)]))
        async with asyncio.timeout(10):
            await client.answered
        assert a.peers == []
        assert [member.name for member in a.members] == ["a"]


@on_both_loops
async def test_a_client_with_the_name_of_a_member_does_not_pass_for_it() -> None:
    async with node("a") as a, node("stranger", a) as member, stranger_to(a, role="client") as client:
        sources: list[str] = []

        @a.answer(Whose)
        def whose(letter: roost.Envelope[Whose]) -> str:
            sources.append(letter.source)
            return letter.source

        await a.ready(2)
        body = msgspec.Raw(encode(Whose()))
        client.link.write(encode_batch([Stream(1), Call(1, "ask", "Whose", body, 1000)]))
        async with asyncio.timeout(10):
            await client.answered
        assert await member.ask("a", Whose()) == "stranger"
        assert sources == ["stranger (client)", "stranger"]


def test_a_node_whose_loop_ended_without_it_can_be_stopped_and_started_again() -> None:
    a = roost.Node("a", bind="127.0.0.1:0", profile="local", handle_signals=False)

    for _ in range(2):
        with asyncio.Runner() as runner:
            runner.run(a.start())
            runner.run(a._running.peers._transport.close())  # so that no socket is left to the collector
        assert a._run is not None
    with asyncio.Runner() as runner:
        runner.run(a.stop())
        assert a._run is None
        runner.run(a.start())
        runner.run(a.stop())
