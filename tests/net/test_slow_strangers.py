"""Strangers who take their time, hundreds of them, at every stage of a connection: a node gets in meanwhile."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from roost.net.tcp import TcpTransport, _network_of
from roost.net.tls import make_contexts
from roost.wire.frame import length_prefix
from roost.wire.preface import PREFACE_BYTES, make_preface
from roost.wire.protocol import PROTOCOL, Facts, Hello, Identity, Proof
from tests.net.ends import Ends, all_that_comes, eventually, hang_up, on_both_loops
from tests.net.test_nodes import node

STRANGERS = 200
HALF_OPEN_MAX = 48
HANDSHAKE_SECONDS = 1.0
PREFACE = make_preface(tls=True)
CONTEXT = make_contexts().client

Stranger = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Stage = Callable[[Stranger], Awaitable[bytes]]
"""Goes as far as it goes; what it then says a byte at a time."""


def framed(message: msgspec.Struct) -> bytes:
    frame = msgspec.msgpack.encode(message)
    return length_prefix(len(frame)) + frame


HELLO = framed(Hello(Identity("slow", 5, ""), Facts("roost", PROTOCOL, 64, 1, 0), b"n" * 32))


async def at_the_preface(stranger: Stranger) -> bytes:
    return PREFACE[:-1]


async def agree_on_tls(stranger: Stranger) -> None:
    reader, writer = stranger
    writer.write(PREFACE)
    await reader.readexactly(PREFACE_BYTES)


async def at_tls(stranger: Stranger) -> bytes:
    await agree_on_tls(stranger)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        CONTEXT.wrap_bio(incoming, outgoing).do_handshake()
    return outgoing.read()[:-1]


async def at_the_hello(stranger: Stranger) -> bytes:
    await agree_on_tls(stranger)
    await stranger[1].start_tls(CONTEXT)
    return HELLO[:-1]


async def at_the_proof(stranger: Stranger) -> bytes:
    await at_the_hello(stranger)
    reader, writer = stranger
    writer.write(HELLO)
    await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
    return framed(Proof(b"m" * 32))[:-1]


@pytest.mark.parametrize("stage", [at_the_preface, at_tls, at_the_hello, at_the_proof])
@on_both_loops
async def test_a_node_gets_in_while_hundreds_dawdle(stage: Stage) -> None:
    """Half of them say nothing more, half a byte now and then. Each is closed on time, or for a newer one."""
    drips: list[asyncio.Task[None]] = []
    writers: list[asyncio.StreamWriter] = []
    ended: list[asyncio.Task[bytes]] = []

    async def drip(writer: asyncio.StreamWriter, data: bytes) -> None:
        for at in range(len(data)):
            if writer.is_closing():
                return
            writer.write(data[at : at + 1])
            await asyncio.sleep(0.1)

    async with node("a", half_open_max=HALF_OPEN_MAX, handshake_seconds=HANDSHAKE_SECONDS) as a:
        transport = a._running.peers._transport
        assert isinstance(transport, TcpTransport)
        host, _, port = a.address.rpartition(":")
        for number in range(STRANGERS):
            stranger = await asyncio.open_connection(host, int(port))
            writers.append(stranger[1])
            rest = await stage(stranger)
            if number % 2:
                drips.append(asyncio.create_task(drip(stranger[1], rest)))
            ended.append(asyncio.create_task(all_that_comes(stranger[0])))
            assert len(transport._half_open) <= HALF_OPEN_MAX
            assert len(transport._links) <= HALF_OPEN_MAX
        assert len(transport._half_open) > HALF_OPEN_MAX // 2, "they are there"
        async with node("b", a) as b:
            await b.ready(2)
        async with asyncio.timeout(HANDSHAKE_SECONDS + 3.0):
            await asyncio.gather(*ended)
        await eventually(lambda: not transport._half_open and not transport._links)
        assert not transport._upgrades
        assert a.peers in ([], ["b"])
        await asyncio.gather(*drips, return_exceptions=True)
        await hang_up(*writers)


@on_both_loops
async def test_a_crowd_from_one_address_pushes_out_nobody_from_another() -> None:
    """Somebody with a slow line keeps his place while more than there is room for come from elsewhere."""
    async with Ends(tls=True, half_open_max=16) as ends:
        host, _, port = ends.address.rpartition(":")
        slow = await asyncio.open_connection(host, int(port), local_addr=("127.0.0.2", 0))
        slow[1].write(PREFACE[:1])
        crowd = [(await ends.stranger(PREFACE[:1]))[1] for _ in range(100)]
        await eventually(lambda: "16 of them half-open" in repr(ends.listening))
        slow[1].write(PREFACE[1:])
        assert await asyncio.wait_for(slow[0].readexactly(PREFACE_BYTES), 5.0) == PREFACE
        await hang_up(slow[1], *crowd)


def test_an_address_of_ipv6_stands_for_its_network() -> None:
    assert _network_of("[2001:db8::1]:7400") == _network_of("[2001:db8::ffff:1]:9") != _network_of("[2001:db9::1]:7400")
    assert _network_of("10.0.0.1:5") == _network_of("10.0.0.1:6") != _network_of("10.0.0.2:5")
    assert _network_of("[fe80::1%eth0]:5") == _network_of("[fe80::2%eth0]:5")
    assert _network_of("unknown address") == _network_of("unknown address")
