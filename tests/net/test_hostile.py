"""Strangers on the port: each is turned away cheaply, and legitimate peers are served throughout."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import socket
import ssl
import struct
import tracemalloc

import pytest

from roost.errors import ProtocolError
from roost.wire.handshake import HANDSHAKE_BYTES_MAX
from roost.wire.preface import make_preface
from tests.net.ends import Ends, all_that_comes, eventually, hang_up, on_both_loops, plain_and_tls

CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200))
RANDOM = random.Random(8)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: roost\r\n\r\n",
        CLIENT_HELLO,
        b"\xff\xff\xff\xff",
        b"\0\0\0\0",
        b"ROOST\0\x01X",
        make_preface(tls=False) + b"too early",
        make_preface(tls=True) + CLIENT_HELLO,
        *(RANDOM.randbytes(size) for size in (1, 7, 8, 9, 100, 5000)),
    ],
    ids=[
        "http",
        "tls",
        "4gib",
        "zeros",
        "no-mode",
        "plain-early",
        "tls-early",
        "r1",
        "r7",
        "r8",
        "r9",
        "r100",
        "r5000",
    ],
)
@plain_and_tls
@on_both_loops
async def test_strangers_are_hung_up_on_without_a_word(
    data: bytes, tls: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with Ends(tls=tls) as ends:
        reader, writer = await ends.stranger(data)
        assert await all_that_comes(reader) == b""
        await hang_up(writer)
        assert ends.accepted == []
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert "127.0.0.1:" in caplog.text and "greeting of a roost node" in caplog.text
        await ends.still_serves()


@plain_and_tls
@on_both_loops
async def test_another_version_is_told_why_it_is_refused(tls: bool) -> None:
    async with Ends(tls=tls) as ends:
        reader, writer = await ends.stranger(b"ROOST\0\x63T")
        answer = await all_that_comes(reader)
        assert struct.unpack(">I", answer[:4])[0] == len(answer) - 4
        assert b"VersionSkew" in answer and b"version 99" in answer
        await hang_up(writer)
        await ends.still_serves()


@pytest.mark.parametrize("length", [HANDSHAKE_BYTES_MAX + 1, 2**31, 2**32 - 1])
@on_both_loops
async def test_an_announced_length_costs_nothing(length: int) -> None:
    async with Ends(tls=False, establish=False) as ends:
        tracemalloc.start()
        try:
            reader, writer = await ends.greeted()
            other = await ends.accepts(1)
            writer.write(struct.pack(">I", length))
            error = await other.until_closed()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert isinstance(error, ProtocolError) and str(length) in str(error)
        assert peak < 2_000_000
        assert await all_that_comes(reader) == b""
        await hang_up(writer)
        await ends.still_serves()


@on_both_loops
async def test_random_bytes_instead_of_tls_are_hung_up_on(caplog: pytest.LogCaptureFixture) -> None:
    async with Ends(tls=True) as ends:
        for seed in range(10):
            reader, writer = await ends.greeted()
            writer.write(random.Random(seed).randbytes(300))
            await all_that_comes(reader)
            await hang_up(writer)
        await eventually(lambda: "0 connections" in repr(ends.listening))
        assert ends.accepted == []
        assert sum("TLS failed" in record.getMessage() for record in caplog.records) == 10
        await ends.still_serves()


@on_both_loops
async def test_old_tls_is_hung_up_on() -> None:
    async with Ends(tls=True) as ends:
        _, writer = await ends.greeted()
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname = False
        old.verify_mode = ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await writer.start_tls(old)
        await hang_up(writer)
        assert ends.accepted == []
        await ends.still_serves()


@pytest.mark.parametrize("said", [b"", b"ROO"])
@plain_and_tls
@on_both_loops
async def test_a_stranger_that_keeps_silent_is_hung_up_on_in_time(said: bytes, tls: bool) -> None:
    async with Ends(tls=tls, handshake_seconds=0.2) as ends:
        reader, writer = await ends.stranger(said)
        assert await all_that_comes(reader) == b""
        await hang_up(writer)
        await ends.still_serves()


@on_both_loops
async def test_a_stranger_that_keeps_silent_before_tls_is_hung_up_on_in_time() -> None:
    async with Ends(tls=True, handshake_seconds=0.2) as ends:
        reader, writer = await ends.greeted()
        assert await all_that_comes(reader) == b""
        await hang_up(writer)
        await eventually(lambda: "0 connections" in repr(ends.listening))
        await ends.still_serves()


@plain_and_tls
@on_both_loops
async def test_a_peer_gets_in_and_is_served_among_300_half_open_connections(tls: bool) -> None:
    async with Ends(tls=tls, half_open_max=32, establish=None) as ends:
        one, other = await ends.pair()
        one.establish()
        one.link.write(b"first")
        await other.until(lambda: bool(other.frames))
        writers = []
        for number in range(300):
            said = (b"", b"ROOS", make_preface(tls=tls))[number % 3]
            writers.append((await ends.stranger(said))[1])
            if number % 100 == 50:
                await ends.still_serves()
        await eventually(lambda: repr(ends.listening) == "<TcpTransport of 33 connections, 32 of them half-open>")
        await ends.still_serves()
        one.link.write(b"from before")
        await other.until(lambda: other.frames == [b"first", b"from before"])
        await hang_up(*writers)


@plain_and_tls
@on_both_loops
async def test_half_open_connections_take_a_bounded_amount_of_memory(
    tls: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with Ends(tls=tls, half_open_max=16) as ends:
        await ends.still_serves()
        tracemalloc.start()
        try:
            writers = [(await ends.stranger(b"ROOST\0"))[1] for _ in range(300)]
            await eventually(lambda: "16 of them half-open" in repr(ends.listening))
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            await hang_up(*writers)
            writers = [(await ends.stranger(b"ROOST\0"))[1] for _ in range(300)]
            await eventually(lambda: "16 of them half-open" in repr(ends.listening))
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 150_000
        assert len(caplog.records) <= 20
        await hang_up(*writers)


@on_both_loops
async def test_bytes_that_come_drop_by_drop_are_bounded_too() -> None:
    async with Ends(tls=False, establish=False) as ends:
        _, writer = await ends.greeted()
        other = await ends.accepts(1)
        data = struct.pack(">I", HANDSHAKE_BYTES_MAX) + b"x" * HANDSHAKE_BYTES_MAX
        for at in range(0, len(data), 512):
            writer.write(data[at : at + 512])
            await writer.drain()
            await asyncio.sleep(0)
        await other.until(lambda: len(other.frames) == 1)
        await hang_up(writer)
        await other.until_closed()


@plain_and_tls
@on_both_loops
async def test_a_peer_that_stops_reading_pauses_its_link_and_no_other(tls: bool) -> None:
    high = 256 * 1024
    async with Ends(tls=tls, write_bytes_high=high) as ends:
        one, other = await ends.pair()
        bare = other.link._bare  # type: ignore[attr-defined]  # to make the other end deaf
        bare.pause_reading()
        frame = b"x" * 10_000
        written = 0
        while not one.link.paused:
            one.link.write(frame)
            written += len(frame)
            await asyncio.sleep(0)
        before = one.link.buffered()
        assert high <= before + 2**17
        for _ in range(20):
            one.link.write(frame)
            await asyncio.sleep(0)
        assert before <= one.link.buffered() <= before + 20 * 11_000
        other.link.write(b"I still talk")
        await one.until(lambda: one.frames == [b"I still talk"])
        assert one.link.paused and one.writable_count == 0
        await ends.still_serves()
        bare.resume_reading()
        await one.until(lambda: one.writable_count == 1)
        assert not one.link.paused
        await other.until(lambda: len(other.frames) == written // len(frame) + 20)


@plain_and_tls
@on_both_loops
async def test_closing_does_not_wait_for_ever_for_a_peer_that_does_not_read(
    tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roost.net.tcp.CLOSE_SECONDS", 0.1)
    async with Ends(tls=tls) as ends:
        one, other = await ends.pair()
        other.link._bare.pause_reading()  # type: ignore[attr-defined]  # to make the other end deaf
        one.link.write(b"x" * (32 * 1024 * 1024))
        async with asyncio.timeout(8):
            await ends.connecting.close()
        assert len(one.closed_with) == 1
        other.link.abort()


@on_both_loops
async def test_a_reset_in_the_middle_of_everything_harms_nobody() -> None:
    async with Ends(tls=True) as ends:
        for said in (b"", b"ROOS", make_preface(tls=True), make_preface(tls=True) + b"x"):
            _, writer = await ends.stranger(said)
            bare: socket.socket = writer.get_extra_info("socket")
            bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await hang_up(writer)
        await eventually(lambda: "0 connections" in repr(ends.listening))
        await ends.still_serves()
