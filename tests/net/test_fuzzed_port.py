"""A live node whose port is fuzzed, by strangers and by a peer with the secret: it serves the others meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import socket
from typing import Any

import roost
from roost.wire.preface import PREFACE_BYTES, make_preface
from tests.net.ends import eventually, on_both_loops
from tests.net.test_nodes import Echo, node, stranger_to
from tests.wire.fuzz import ALL, BATCHES, MESSAGES
from tests.wire.mutations import cut_up, framed, mutated

STRANGERS = 1000
PEERS = 50
AT_ONCE = 25


async def serves(one: roost.Node, other: roost.Node) -> None:
    data = secrets.token_bytes(8)
    assert await one.ask(other.name, Echo(data)) == data


def said_by_a_stranger(rng: random.Random) -> tuple[bytes, list[bytes]]:
    """A greeting, more or less, and what may follow, in pieces: something like a handshake."""
    greeting = make_preface(tls=False)
    if rng.random() < 0.3:
        greeting = mutated(rng, greeting, ALL)
    frames = [mutated(rng, rng.choice(MESSAGES), ALL) for _ in range(rng.choice((1, 2, 4)))]
    if rng.random() < 0.5:
        frames.insert(0, MESSAGES[0])
    return greeting, cut_up(rng, b"".join(framed(frame) if rng.random() < 0.8 else frame for frame in frames))


async def connect_and_say(target: roost.Node, greeting: bytes, pieces: list[bytes]) -> int:
    """How many bytes were answered. Being hung up on, at any moment, is what is to be expected."""
    loop = asyncio.get_running_loop()
    host, _, port = target.address.rpartition(":")
    heard = 0
    with socket.socket() as bare:
        bare.setblocking(False)
        await loop.sock_connect(bare, (host, int(port)))
        with contextlib.suppress(OSError):
            await loop.sock_sendall(bare, greeting)
            if greeting == make_preface(tls=False):
                heard += len(await loop.sock_recv(bare, PREFACE_BYTES))
            for piece in pieces:
                await loop.sock_sendall(bare, piece)
            bare.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while data := await loop.sock_recv(bare, 65536):
                heard += len(data)
    assert heard < 10_000, "a stranger is told little"
    return heard


@on_both_loops
async def test_a_thousand_strangers_that_say_anything_keep_nobody_from_being_served() -> None:
    settings: dict[str, Any] = {"tls": False, "handshake_seconds": 1.0}
    async with node("a", **settings) as a, node("b", a, **settings) as b:
        await b.ready(2)
        rng = random.Random(20)
        heard = 0
        for _ in range(STRANGERS // AT_ONCE):
            said = [said_by_a_stranger(rng) for _ in range(AT_ONCE)]
            results = await asyncio.gather(*(connect_and_say(a, *each) for each in said), serves(b, a))
            heard += sum(result for result in results if result is not None)
        assert heard > 20 * STRANGERS, "some greetings are good and answered, some handshakes refused in words"
        assert a.peers == ["b"] and b.peers == ["a"]
        async with node("c", a, **settings) as c:
            await c.ready(3)
            await serves(c, a)


@on_both_loops
async def test_a_peer_that_knows_the_secret_and_says_anything_loses_its_link_and_no_more() -> None:
    async with node("a") as a, node("b", a) as b:
        await b.ready(2)
        rng = random.Random(21)
        cut_off = 0
        for _ in range(PEERS):
            async with stranger_to(a, role="client") as rude:
                for _ in range(10):
                    rude.link.write(mutated(rng, rng.choice(BATCHES), ALL))
                for _ in range(10):
                    await serves(b, a)
                cut_off += rude.gone.done()
        assert cut_off > PEERS // 2
        await eventually(lambda: len(a._running.peers.by_uid) == 2)
        assert a.peers == ["b"]
