"""Framing: whatever the pieces, the same frames come out, and nothing is kept of one that is too long."""

from __future__ import annotations

import itertools
import tracemalloc

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.errors import ProtocolError, RoostError
from roost.wire.frame import LENGTH_BYTES, Framer, decode_batch, encode_batch, length_prefix
from roost.wire.protocol import Bye, Call, Cast, Credit, Envelope, Failure, Reply, Stream


def framed(*frames: bytes) -> bytes:
    return b"".join(length_prefix(len(frame)) + frame for frame in frames)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(bounds)]


@given(st.lists(st.binary(max_size=60), max_size=12), st.lists(st.integers(0, 10_000), max_size=20))
@settings(max_examples=300, deadline=None)
def test_the_same_frames_come_out_wherever_the_stream_is_cut(frames: list[bytes], places: list[int]) -> None:
    framer = Framer(100)
    pieces = cut(framed(*frames), places)
    assert [bytes(frame) for piece in pieces for frame in framer.feed(piece)] == frames
    assert framer.partial == 0


def test_a_stream_of_single_bytes_comes_out_whole() -> None:
    frame = bytes(range(256)) * 80
    framer = Framer(len(frame))
    out = [bytes(view) for byte in framed(frame, b"end") for view in framer.feed(bytes([byte]))]
    assert out == [frame, b"end"]


def test_a_peer_that_sends_byte_by_byte_costs_no_more_than_its_frame() -> None:
    size = 200_000
    framer = Framer(size)
    tracemalloc.start()
    try:
        for _ in framer.feed(length_prefix(size)):
            pass
        for at in range(size - 1):
            assert not list(framer.feed(b"%c" % (at % 256)))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 3 * size


@pytest.mark.parametrize("length", [101, 2**16, 2**31, 2**32 - 1])
def test_a_length_beyond_the_limit_is_refused_at_once(length: int) -> None:
    framer = Framer(100)
    with pytest.raises(ProtocolError, match=f"{length} bytes was announced, the limit is 100"):
        list(framer.feed(length_prefix(length)))
    assert framer.partial == 0


def test_a_length_beyond_the_limit_is_refused_also_when_it_comes_in_pieces() -> None:
    framer = Framer(100)
    assert not list(framer.feed(b"\xff\xff"))
    with pytest.raises(ProtocolError, match="the limit is 100"):
        list(framer.feed(b"\xff\xff"))


def test_the_frames_before_one_that_is_too_long_still_come_out() -> None:
    framer = Framer(100)
    frames = framer.feed(framed(b"one", b"two") + length_prefix(101))
    assert [bytes(next(frames)), bytes(next(frames))] == [b"one", b"two"]
    with pytest.raises(ProtocolError):
        next(frames)


def test_a_limit_that_is_raised_between_two_frames_counts_from_the_next_one() -> None:
    framer = Framer(10)
    out = []
    for frame in framer.feed(framed(b"welcome", b"x" * 1000)):
        out.append(len(frame))
        framer.frame_bytes_max = 1000
    assert out == [7, 1000]


def test_a_whole_frame_is_not_copied() -> None:
    data = framed(b"x" * 1000)
    (frame,) = Framer(1000).feed(data)
    assert frame.obj is data


def test_partial_tells_what_is_waiting() -> None:
    framer = Framer(100)
    assert not list(framer.feed(framed(b"x" * 50)[:20]))
    assert framer.partial == 20
    assert len(list(framer.feed(framed(b"x" * 50)[20:]))) == 1
    assert framer.partial == 0


def test_a_batch_comes_back_as_it_was() -> None:
    batch: list[Envelope] = [
        Stream(3),
        Call(1, "actors", "post", msgspec.Raw(b"\x93\x01\x02\x03"), 5000, "trace"),
        Cast("topics", "publish", msgspec.Raw(b"\xa1x")),
        Reply(7, msgspec.Raw(b"\xc0")),
        Failure(8, "NotFound", "gone", False),
        Credit("Notice", 64),
        Bye("idle"),
    ]
    back = decode_batch(memoryview(encode_batch(batch)))
    assert encode_batch(back) == encode_batch(batch)
    assert [type(envelope) for envelope in back] == [type(envelope) for envelope in batch]


def test_bodies_are_views_that_outlive_the_frame_they_came_in() -> None:
    framer = Framer(1000)
    (frame,) = framer.feed(framed(encode_batch([Cast("s", "m", msgspec.Raw(b"\xa5hello"))])))
    (cast,) = decode_batch(frame)
    del frame
    list(framer.feed(framed(b"y" * 900)))
    assert isinstance(cast, Cast) and bytes(cast.body) == b"\xa5hello"


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc0",
        b"\x91\x91\x63",
        b"\x91\x92\x05\xa1x",
        b"\xdd\xff\xff\xff\xff",
        b"\x91\x95\x01\xa1\xff\xa1a\xc0\xc0",
        b"\x91\x95\x01\xa1a\xa1a" + b"\x91" * 100_000,
        b"\x90\x90",
        b"\x91\x93\x18\xa1a\xa1b",
    ],
    ids=["empty", "nil", "unknown-tag", "wrong-type", "endless-list", "no-text", "deep", "trailing", "a-refusal"],
)
def test_what_is_no_batch_is_a_protocol_error(frame: bytes) -> None:
    with pytest.raises(ProtocolError, match="no batch of envelopes"):
        decode_batch(memoryview(frame))


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
@settings(max_examples=300, deadline=None)
def test_random_bytes_give_frames_or_protocol_errors_and_nothing_else(stream: bytes, places: list[int]) -> None:
    framer = Framer(64)
    try:
        for piece in cut(stream, places):
            for frame in framer.feed(piece):
                decode_batch(frame)
    except RoostError as error:
        assert type(error) is ProtocolError
    assert framer.partial <= 64 + LENGTH_BYTES + len(stream)
