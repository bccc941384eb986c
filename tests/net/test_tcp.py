"""Links over TCP, in plain text and with TLS, on both loops: whole, in order, bounded, and closed once."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import socket
import struct

import pytest

from roost.errors import ProtocolError
from roost.net.transport import ConnectionRefused, Link, LinkOwner
from roost.wire.handshake import HANDSHAKE_BYTES_MAX
from tests.net.ends import CONTEXTS, Ends, Recorder, eventually, on_both_loops, plain_and_tls


@plain_and_tls
@on_both_loops
async def test_frames_go_both_ways(tls: bool) -> None:
    async with Ends(tls=tls) as ends:
        one, other = await ends.pair()
        assert (one.link.accepted, other.link.accepted) == (False, True)
        assert one.link.remote == ends.address
        assert other.link.remote.startswith("127.0.0.1:")
        one.link.write(b"ping")
        one.link.write(b"")
        await other.until(lambda: len(other.frames) == 2)
        other.link.write(b"pong")
        await one.until(lambda: bool(one.frames))
        assert (other.frames, one.frames) == ([b"ping", b""], [b"pong"])
        assert one.batches and other.batches


@on_both_loops
async def test_both_ends_of_a_tls_link_name_the_same_certificate() -> None:
    async with Ends(tls=True) as ends:
        one, other = await ends.pair()
        assert one.link.binding == other.link.binding == CONTEXTS.binding


@on_both_loops
async def test_a_plain_link_is_bound_to_nothing() -> None:
    async with Ends(tls=False) as ends:
        one, other = await ends.pair()
        assert one.link.binding == other.link.binding == b""


@plain_and_tls
@on_both_loops
async def test_what_the_connecting_end_says_at_once_arrives(tls: bool) -> None:
    async with Ends(tls=tls) as ends:

        def own(link: Link) -> LinkOwner:
            link.write(b"hello")
            return ends.own(link)

        for count in range(1, 21):
            await ends.connecting.connect(ends.address, own, seconds=10.0)
            other = await ends.accepts(count)
            await other.until(lambda other=other: other.frames == [b"hello"])  # type: ignore[misc]  # bound early


@plain_and_tls
@on_both_loops
async def test_ten_thousand_frames_each_way_arrive_whole_and_in_order_under_back_pressure(tls: bool) -> None:
    count = 10_000
    async with Ends(tls=tls, write_bytes_high=64 * 1024) as ends:
        one, other = await ends.pair()
        for end in (one, other):
            # The system's buffers must not take it all.
            end.link._bare.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * 1024)  # type: ignore[attr-defined]  # test only
        digests: dict[str, list[bytes]] = {"one": [], "other": []}
        sent: dict[str, list[bytes]] = {"one": [], "other": []}
        pauses = 0

        async def send(name: str, end: Recorder) -> None:
            nonlocal pauses
            rng = random.Random(name)
            for number in range(count):
                size = rng.choice((0, 10, 100, 1000, 5000)) if number % 500 else 300_000
                frame = struct.pack(">I", number) + rng.randbytes(size)
                sent[name].append(hashlib.blake2b(frame).digest())
                if end.link.paused:
                    pauses += 1
                    await end.until(lambda: not end.link.paused)
                end.link.write(frame)
                assert end.link.buffered() <= 64 * 1024 + 3 * 300_004 + 2**18

        for name, end in (("other", one), ("one", other)):
            end.on_frame = lambda frame, name=name: digests[name].append(hashlib.blake2b(frame).digest())  # type: ignore[misc]  # bound early
        await asyncio.gather(send("one", one), send("other", other))
        await other.until(lambda: len(digests["one"]) == count)
        await one.until(lambda: len(digests["other"]) == count)
        assert digests == sent
        assert pauses > 10
        assert one.writable_count + other.writable_count > 10
        await eventually(lambda: one.link.buffered() == other.link.buffered() == 0)


@plain_and_tls
@pytest.mark.parametrize("mebibytes", [1, 32])
@on_both_loops
async def test_big_frames_arrive_whole(tls: bool, mebibytes: int) -> None:
    frame = random.Random(mebibytes).randbytes(1024 * 1024) * mebibytes
    async with Ends(tls=tls) as ends:
        one, other = await ends.pair()
        one.link.write(b"before")
        one.link.write(frame)
        one.link.write(b"after")
        await other.until(lambda: len(other.frames) == 3)
        assert other.frames == [b"before", frame, b"after"]


@plain_and_tls
@on_both_loops
async def test_close_sends_what_is_queued_first(tls: bool) -> None:
    frame = b"x" * (8 * 1024 * 1024)
    async with Ends(tls=tls) as ends:
        one, other = await ends.pair()
        one.link.write(frame)
        one.link.write(b"last words")
        one.link.close()
        one.link.close()
        one.link.write(b"too late")
        assert await other.until_closed() is None
        assert await one.until_closed() is None
        assert other.frames == [frame, b"last words"]
        one.link.write(b"much too late")
        assert one.link.buffered() == 0


@plain_and_tls
@on_both_loops
async def test_the_system_breaks_a_link_whose_other_end_has_fallen_silent(tls: bool) -> None:
    async with Ends(tls=tls, link_silent_seconds=6.5) as ends:
        for end in await ends.pair():
            bare = end.link._bare.get_extra_info("socket")  # type: ignore[attr-defined]  # to look at its options
            tcp = socket.IPPROTO_TCP
            assert bare.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == 6500
            assert bare.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            asks, again, probes = (
                bare.getsockopt(tcp, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            )
            assert (asks, again, probes) == (4, 2, 2)


@pytest.mark.parametrize("seconds", [0.001, 10.0**7])
@on_both_loops
async def test_the_system_takes_every_limit_that_the_settings_allow(seconds: float) -> None:
    async with Ends(tls=False, link_silent_seconds=seconds) as ends:
        await ends.pair()


@plain_and_tls
@on_both_loops
async def test_abort_ends_the_link_at_once_and_once(tls: bool) -> None:
    async with Ends(tls=tls) as ends:
        one, other = await ends.pair()
        one.link.write(b"x" * (4 * 1024 * 1024))
        one.link.abort()
        one.link.abort()
        assert one.closed_with == []
        assert await one.until_closed() is None
        await other.until_closed()


@plain_and_tls
@on_both_loops
async def test_a_reset_is_told_as_an_error(tls: bool) -> None:
    async with Ends(tls=tls) as ends:
        one, other = await ends.pair()
        bare = one.link._bare.get_extra_info("socket")  # type: ignore[attr-defined]  # to make it a reset
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.link.abort()
        assert isinstance(await other.until_closed(), ConnectionError)


@on_both_loops
async def test_an_end_in_the_middle_of_a_frame_is_told_as_an_error() -> None:
    async with Ends(tls=False) as ends:
        _, writer = await ends.greeted()
        other = await ends.accepts(1)
        writer.write(struct.pack(">I", 100) + b"half")
        writer.close()
        await writer.wait_closed()
        assert "middle of a frame" in str(await other.until_closed())


@plain_and_tls
@on_both_loops
async def test_nothing_is_given_to_an_owner_that_has_closed_its_link(tls: bool) -> None:
    async with Ends(tls=tls) as ends:
        one, other = await ends.pair()

        def close_at_first(frame: memoryview) -> None:
            other.frames.append(bytes(frame))
            other.link.close()

        other.on_frame = close_at_first
        one.link.write(b"first")
        one.link.write(b"second")
        assert await other.until_closed() is None
        assert other.frames == [b"first"]


@plain_and_tls
@on_both_loops
async def test_a_protocol_error_of_the_owner_closes_the_link_with_one_warning(
    tls: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with Ends(tls=tls) as ends:
        one, other = await ends.pair()

        def refuse(frame: memoryview) -> None:
            raise ProtocolError("not like this")

        other.on_frame = refuse
        one.link.write(b"x")
        one.link.write(b"y")
        assert isinstance(await other.until_closed(), ProtocolError)
        await one.until_closed()
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert "not like this" in record.getMessage() and other.link.remote in record.getMessage()
        await ends.still_serves()


@on_both_loops
async def test_an_unexpected_error_of_the_owner_closes_the_link_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Ends(tls=False) as ends:
        one, other = await ends.pair()

        def fail(frame: memoryview) -> None:
            raise KeyError("a mistake")

        other.on_frame = fail
        one.link.write(b"x")
        assert isinstance(await other.until_closed(), KeyError)
        await one.until_closed()
        (record,) = caplog.records
        assert record.levelno == logging.ERROR and record.exc_info is not None
        await ends.still_serves()


@plain_and_tls
@on_both_loops
async def test_a_link_that_is_not_established_takes_handshake_frames_only(tls: bool) -> None:
    async with Ends(tls=tls, establish=False) as ends:
        one, other = await ends.pair()
        one.link.write(b"x" * HANDSHAKE_BYTES_MAX)
        await other.until(lambda: len(other.frames) == 1)
        one.link.write(b"x" * (HANDSHAKE_BYTES_MAX + 1))
        error = await other.until_closed()
        assert isinstance(error, ProtocolError) and "4097" in str(error)
        assert len(other.frames) == 1


@plain_and_tls
@on_both_loops
async def test_a_limit_raised_by_one_frame_counts_for_the_next(tls: bool) -> None:
    async with Ends(tls=tls, establish=False) as ends:
        one, other = await ends.pair()

        def welcome(frame: memoryview) -> None:
            other.frames.append(bytes(frame))
            other.link.established()
            other.link.frame_bytes_max = 100_000

        other.on_frame = welcome
        one.link.write(b"welcome")
        one.link.write(b"x" * 50_000)
        await other.until(lambda: len(other.frames) == 2)
        assert len(other.frames[1]) == 50_000


@plain_and_tls
@on_both_loops
async def test_closing_a_transport_ends_every_link_once_and_frees_the_port(tls: bool) -> None:
    async with Ends(tls=tls) as ends:
        pairs = [await ends.pair() for _ in range(5)]
        for one, other in pairs:
            other.link.write(b"good-bye")
            one.link.write(b"x" * 100_000)
        await ends.listening.close()
        for one, other in pairs:
            assert await other.until_closed() is None
            await one.until_closed()
            assert one.frames == [b"good-bye"]
        with pytest.raises(ConnectionRefused) as caught:
            await ends.connecting.connect(ends.address, ends.own, seconds=5.0)
        assert caught.value.refused
        again = await ends.connecting.listen(ends.address, ends.accept)
        assert again == ends.address


@on_both_loops
async def test_a_closed_transport_connects_no_more() -> None:
    async with Ends(tls=False) as ends:
        await ends.connecting.close()
        await ends.connecting.close()
        with pytest.raises(ConnectionRefused, match="closing"):
            await ends.connecting.connect(ends.address, ends.own, seconds=5.0)
