"""The port, link by link: what every transport promises to those above it, whatever carries the frames."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest

from roost.errors import ConfigError, DeadlineExceeded, Overloaded, ProtocolError
from roost.net.transport import ConnectionRefused, Link, LinkOwner
from roost.wire.handshake import HANDSHAKE_BYTES_MAX
from tests.net.conformance.harness import Harness, on_every_transport
from tests.net.ends import Pairs, Recorder, eventually

MIB = 1024 * 1024


@contextlib.asynccontextmanager
async def two_ends(harness: Harness, *, establish: bool | None = True, **settings: Any) -> AsyncIterator[Pairs]:
    pairs = Pairs(establish=establish)
    options = harness.settings("listening", **settings)
    listening = harness.transport("listening", harness.runtime("listening"), options)
    connecting = harness.transport(
        "connecting", harness.runtime("connecting"), harness.settings("connecting", **settings)
    )
    await pairs.open(listening, connecting, options.bind)
    try:
        yield pairs
    finally:
        harness.heal()
        await pairs.close()


# frames


@on_every_transport
async def test_frames_of_every_size_go_both_ways_whole(harness: Harness) -> None:
    frames = [random.Random(size).randbytes(size) for size in (0, 1, 4, 4095, 4096, 65_531, 65_536, MIB, 5 * MIB)]
    async with two_ends(harness) as ends:
        one, other = await ends.pair()
        for frame in frames:
            one.link.write(frame)
            other.link.write(frame)
        await other.until(lambda: len(other.frames) == len(frames))
        await one.until(lambda: len(one.frames) == len(frames))
        assert one.frames == other.frames == frames
        assert one.batches and other.batches


@on_every_transport
async def test_a_frame_in_parts_arrives_as_one(harness: Harness) -> None:
    async with two_ends(harness) as ends:
        one, other = await ends.pair()
        body = random.Random(1).randbytes(300_000)
        one.link.write(b"head", memoryview(body), b"tail")
        one.link.write(b"a", b"", b"b")
        await other.until(lambda: len(other.frames) == 2)
        assert other.frames == [b"head" + body + b"tail", b"ab"]


@on_every_transport
async def test_both_ends_know_which_they_are_and_what_they_are_bound_to(harness: Harness) -> None:
    async with two_ends(harness) as ends:
        one, other = await ends.pair()
        assert (one.link.accepted, other.link.accepted) == (False, True)
        assert one.link.remote == ends.address
        assert other.link.remote
        assert one.link.binding == other.link.binding
        assert len(one.link.binding) == (32 if harness.secret else 0)


@on_every_transport
async def test_what_is_said_at_once_arrives_first(harness: Harness) -> None:
    async with two_ends(harness) as ends:

        def own(link: Link) -> LinkOwner:
            link.write(b"hello")
            return ends.own(link)

        for count in range(1, 11):
            link = await ends.connecting.connect(ends.address, own, seconds=10.0)
            link.write(b"again")
            other = await ends.accepts(count)
            await other.until(lambda other=other: len(other.frames) == 2)  # type: ignore[misc]  # bound early
            assert other.frames == [b"hello", b"again"]


class Nested(Recorder):
    """Notes whether it is called while the test itself is busy with a link."""

    busy = False

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self.calls: list[bool] = []
        self.on_frame = lambda frame: self.calls.append(Nested.busy)

    def writable(self) -> None:
        self.calls.append(Nested.busy)
        super().writable()

    def closed(self, error: Exception | None) -> None:
        self.calls.append(Nested.busy)
        super().closed(error)


@on_every_transport
async def test_an_owner_is_never_called_from_within_its_own_calls(harness: Harness) -> None:
    async with two_ends(harness, write_bytes_high=64 * 1024) as ends:
        owners: list[Nested] = []

        def own(link: Link) -> LinkOwner:
            owners.append(Nested(link))
            return owners[-1]

        address = await ends.listening.listen(harness.bind("listening"), own)
        await ends.connecting.connect(address, own, seconds=5.0)
        await eventually(lambda: len(owners) == 2)
        for number in range(200):
            Nested.busy = True
            for end in owners:
                end.link.write(b"x" * 1000 * (number % 7))
            Nested.busy = False
            await asyncio.sleep(0)
        await eventually(lambda: all(len(end.calls) >= 200 for end in owners))
        for end in owners:
            Nested.busy = True
            end.link.close()
            Nested.busy = False
        for end in owners:
            assert await end.until_closed() is None
        assert not any(owners[0].calls + owners[1].calls)


# order, back-pressure


@on_every_transport
async def test_thousands_of_frames_each_way_arrive_in_order_under_back_pressure(harness: Harness) -> None:
    count, high = 4000, 64 * 1024
    async with two_ends(harness, write_bytes_high=high) as ends:
        one, other = await ends.pair()
        sent: dict[str, list[bytes]] = {"one": [], "other": []}
        got: dict[str, list[bytes]] = {"one": [], "other": []}
        pauses = 0

        async def send(name: str, end: Recorder) -> None:
            nonlocal pauses
            rng = random.Random(name)
            for number in range(count):
                size = rng.choice((0, 10, 100, 1000, 5000)) if number % 250 else 300_000
                frame = struct.pack(">I", number) + rng.randbytes(size)
                sent[name].append(hashlib.blake2b(frame).digest())
                if end.link.paused:
                    pauses += 1
                    await end.until(lambda: not end.link.paused)
                end.link.write(frame)

        for name, end in (("other", one), ("one", other)):
            end.on_frame = lambda frame, name=name: got[name].append(hashlib.blake2b(frame).digest())  # type: ignore[misc]  # bound early
        await asyncio.gather(send("one", one), send("other", other))
        await other.until(lambda: len(got["one"]) == count)
        await one.until(lambda: len(got["other"]) == count)
        assert got == sent
        assert pauses > 0
        await eventually(lambda: one.link.buffered() == other.link.buffered() == 0)


@on_every_transport
async def test_who_cannot_send_is_paused_loses_nothing_and_is_told_once_when_it_can(harness: Harness) -> None:
    high = 256 * 1024
    frame = b"x" * 10_000
    async with two_ends(harness, write_bytes_high=high) as ends:
        one, other = await ends.pair()
        harness.cut()
        written = 0
        while not one.link.paused:
            one.link.write(frame)
            written += 1
            await asyncio.sleep(0)
        before = one.link.buffered()
        assert before >= high - 2**17
        for _ in range(20):
            one.link.write(frame)
        assert one.link.buffered() > before
        await asyncio.sleep(0.05)
        assert one.link.paused and one.writable_count == 0 and one.closed_with == other.closed_with == []
        harness.heal()
        await one.until(lambda: one.writable_count == 1)
        assert not one.link.paused
        await other.until(lambda: len(other.frames) == written + 20)
        await eventually(lambda: one.link.buffered() == 0)
        assert one.writable_count == 1


@on_every_transport
async def test_64_mebibytes_in_pieces_arrive_whole_with_little_buffered(harness: Harness) -> None:
    pieces, high = 64, 2 * MIB
    async with two_ends(harness, write_bytes_high=high) as ends:
        one, other = await ends.pair()
        digest = hashlib.blake2b()
        got = 0

        def take(frame: memoryview) -> None:
            nonlocal got
            digest.update(frame)
            got += len(frame)

        other.on_frame = take
        expected = hashlib.blake2b()
        for number in range(pieces):
            piece = random.Random(number).randbytes(MIB)
            expected.update(piece)
            await one.until(lambda: not one.link.paused)
            one.link.write(piece)
            assert one.link.buffered() <= high + 2 * MIB + MIB // 4
        await other.until(lambda: got == pieces * MIB)
        assert digest.digest() == expected.digest()


# the end of a link


@on_every_transport
async def test_close_sends_what_is_queued_first(harness: Harness) -> None:
    frame = b"x" * (8 * MIB)
    async with two_ends(harness) as ends:
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
        one.link.close()
        one.link.abort()
        assert one.link.buffered() == 0


@on_every_transport
async def test_abort_ends_the_link_at_once_and_drops_what_is_queued(harness: Harness) -> None:
    async with two_ends(harness) as ends:
        one, other = await ends.pair()
        one.link.write(b"first")
        await other.until(lambda: bool(other.frames))
        harness.cut()
        for _ in range(64):
            one.link.write(b"x" * MIB)
        await asyncio.sleep(0.05)
        one.link.abort()
        one.link.abort()
        assert one.closed_with == []
        assert await one.until_closed() is None
        assert one.link.buffered() == 0
        harness.heal()
        other.link.write(b"are you there?")
        await other.until_closed()
        assert len(other.frames) < 65


@on_every_transport
async def test_when_a_frame_is_lost_all_later_ones_are_and_both_ends_are_told_once(harness: Harness) -> None:
    async with two_ends(harness) as ends:
        one, other = await ends.pair()
        sent = [struct.pack(">I", number) * 50 for number in range(200)]
        for frame in sent[:100]:
            one.link.write(frame)
        await other.until(lambda: len(other.frames) == 100)
        harness.cut()
        for frame in sent[100:]:
            one.link.write(frame)
        await asyncio.sleep(0.05)
        harness.heal()
        harness.break_links()
        one.link.write(b"too late")
        assert isinstance(await one.until_closed(), ConnectionError)
        assert isinstance(await other.until_closed(), ConnectionError)
        assert other.frames == sent[: len(other.frames)]
        assert len(other.frames) < 200
        await ends.still_serves()


@on_every_transport
async def test_nothing_is_given_to_an_owner_that_has_closed_its_link(harness: Harness) -> None:
    for end_it in ("close", "abort"):
        async with two_ends(harness) as ends:
            one, other = await ends.pair()

            def end_at_first(frame: memoryview, other: Recorder = other, end_it: str = end_it) -> None:
                other.frames.append(bytes(frame))
                getattr(other.link, end_it)()

            other.on_frame = end_at_first
            for _ in range(10):
                one.link.write(b"one of many")
            assert await other.until_closed() is None
            assert len(other.frames) == 1 and other.batches == 0
            await one.until_closed()


@on_every_transport
async def test_a_protocol_error_of_the_owner_closes_its_link_with_one_warning(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    async with two_ends(harness) as ends:
        one, other = await ends.pair()

        def refuse(frame: memoryview) -> None:
            raise ProtocolError("not like this")

        other.on_frame = refuse
        one.link.write(b"x")
        one.link.write(b"y")
        assert isinstance(await other.until_closed(), ProtocolError)
        assert not isinstance(await one.until_closed(), ProtocolError)
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert "not like this" in record.getMessage() and other.link.remote in record.getMessage()
        await ends.still_serves()


@on_every_transport
async def test_an_unexpected_error_of_the_owner_closes_its_link_and_is_logged(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    async with two_ends(harness) as ends:
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


# bounds


@on_every_transport
async def test_a_link_without_a_handshake_takes_its_frames_only(harness: Harness) -> None:
    async with two_ends(harness, establish=False) as ends:
        one, other = await ends.pair()
        one.link.write(b"x" * HANDSHAKE_BYTES_MAX)
        await other.until(lambda: len(other.frames) == 1)
        one.link.write(b"x" * (HANDSHAKE_BYTES_MAX + 1))
        error = await other.until_closed()
        assert isinstance(error, ProtocolError) and "4097" in str(error) and "4096" in str(error)
        assert not isinstance(await one.until_closed(), ProtocolError)
        assert len(other.frames) == 1


@on_every_transport
async def test_a_limit_raised_by_one_frame_counts_for_the_next(harness: Harness) -> None:
    async with two_ends(harness, establish=False) as ends:
        one, other = await ends.pair()

        def welcome(frame: memoryview) -> None:
            other.frames.append(bytes(frame))
            other.link.established()
            other.link.frame_bytes_max = 100_000

        other.on_frame = welcome
        for size in (7, 50_000, 100_000, 100_001):
            one.link.write(b"x" * size)
        error = await other.until_closed()
        assert [len(frame) for frame in other.frames] == [7, 50_000, 100_000]
        assert isinstance(error, ProtocolError) and "100001" in str(error)


@on_every_transport
async def test_a_link_that_does_not_prove_itself_is_closed_in_time_and_one_that_has_stays(harness: Harness) -> None:
    async with two_ends(harness, establish=False, handshake_seconds=0.2) as ends:
        one, other = await ends.pair()
        proven = await ends.pair()
        for end in proven:
            end.establish()
        errors = [await one.until_closed(), await other.until_closed()]
        assert any(isinstance(error, DeadlineExceeded) for error in errors)
        await asyncio.sleep(0.3)
        proven[0].link.write(b"still here")
        await proven[1].until(lambda: proven[1].frames == [b"still here"])


@on_every_transport
async def test_the_oldest_link_without_a_handshake_makes_way_and_its_owner_is_told(harness: Harness) -> None:
    async with two_ends(harness, establish=False, half_open_max=2) as ends:
        pairs = [await ends.pair() for _ in range(3)]
        error = await pairs[0][1].until_closed()
        assert isinstance(error, Overloaded) and error.what == "half_open_max" and error.limit == 2
        assert pairs[1][1].closed_with == pairs[2][1].closed_with == []


# listening and connecting


@on_every_transport
async def test_nobody_listening_is_a_hint_that_a_node_died(harness: Harness) -> None:
    async with two_ends(harness) as ends:
        with pytest.raises(ConnectionRefused) as caught:
            await ends.connecting.connect(harness.nowhere(), ends.own, seconds=5.0)
        assert caught.value.refused
        assert ends.connected == []


@on_every_transport
async def test_silence_is_no_such_hint(harness: Harness) -> None:
    async with two_ends(harness) as ends:
        harness.cut()
        with pytest.raises(ConnectionRefused, match=r"did not answer within 0\.2 s") as caught:
            await ends.connecting.connect(ends.address, ends.own, seconds=0.2)
        assert not caught.value.refused
        assert ends.connected == ends.accepted == []
        harness.heal()


@on_every_transport
async def test_a_connection_attempt_can_be_cancelled(harness: Harness) -> None:
    async with two_ends(harness) as ends:
        harness.cut()
        attempt = asyncio.ensure_future(ends.connecting.connect(ends.address, ends.own, seconds=20.0))
        await asyncio.sleep(0.05)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        assert ends.connected == []


@pytest.mark.parametrize("address", ["", "host", "host:port", "host:70000", "a b:1"])
@on_every_transport
async def test_what_is_no_address_is_a_config_error(address: str, harness: Harness) -> None:
    async with two_ends(harness) as ends:
        with pytest.raises(ConfigError):
            await ends.connecting.connect(address, ends.own, seconds=5.0)
        with pytest.raises(ConfigError):
            await ends.connecting.listen(address, ends.accept)


@on_every_transport
async def test_one_transport_listens_on_several_addresses_each_with_its_own_owners(harness: Harness) -> None:
    async with two_ends(harness) as ends:
        others: list[Recorder] = []

        def accept(link: Link) -> LinkOwner:
            others.append(Recorder(link))
            return others[-1]

        second = await ends.listening.listen(harness.bind("listening"), accept)
        assert second != ends.address
        one, other = await ends.pair()
        await ends.connecting.connect(second, ends.own, seconds=5.0)
        await eventually(lambda: len(others) == 1)
        ends.connected[-1].link.write(b"to the second")
        one.link.write(b"to the first")
        await others[0].until(lambda: others[0].frames == [b"to the second"])
        await other.until(lambda: other.frames == [b"to the first"])
        await ends.listening.close()
        for address in (ends.address, second):
            with pytest.raises(ConnectionRefused) as caught:
                await ends.connecting.connect(address, ends.own, seconds=5.0)
            assert caught.value.refused


@on_every_transport
async def test_an_owner_that_cannot_be_made_ends_the_link_and_harms_nobody(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    async with two_ends(harness) as ends:

        def fail(link: Link) -> LinkOwner:
            raise KeyError("no room")

        with pytest.raises(KeyError):
            await ends.connecting.connect(ends.address, fail, seconds=5.0)
        second = await ends.listening.listen(harness.bind("listening"), fail)
        await ends.connecting.connect(second, ends.own, seconds=5.0)
        await ends.connected[0].until_closed()
        assert [record.levelno for record in caplog.records if record.levelno >= logging.ERROR] == [logging.ERROR]
        link = await ends.connecting.connect(ends.address, ends.own, seconds=5.0)
        link.write(b"fine")
        await eventually(lambda: any(each.frames == [b"fine"] for each in ends.accepted))


@on_every_transport
async def test_closing_a_transport_ends_every_link_once_and_connects_no_more(harness: Harness) -> None:
    async with two_ends(harness) as ends:
        pairs = [await ends.pair() for _ in range(5)]
        for one, other in pairs:
            other.link.write(b"good-bye")
            one.link.write(b"x" * 100_000)
        await ends.listening.close()
        await ends.listening.close()
        assert all(len(other.closed_with) == 1 for _, other in pairs)
        for one, other in pairs:
            assert await other.until_closed() is None
            await one.until_closed()
            assert one.frames == [b"good-bye"]
        with pytest.raises(ConnectionRefused) as caught:
            await ends.connecting.connect(ends.address, ends.own, seconds=5.0)
        assert caught.value.refused
        with pytest.raises(ConnectionRefused, match="closing") as caught:
            await ends.listening.connect(ends.address, ends.own, seconds=5.0)
        assert not caught.value.refused, "that this end is closing says nothing of the other"


@on_every_transport
async def test_a_transport_can_be_made_and_closed_64_times(harness: Harness) -> None:
    left: list[int] = []
    for _ in range(64):
        async with two_ends(harness) as ends:
            one, other = await ends.pair()
            one.link.write(b"ping")
            await other.until(lambda other=other: other.frames == [b"ping"])  # type: ignore[misc]  # bound early
        left.append(harness.leftovers())
    await eventually(lambda: harness.leftovers() <= left[0])
