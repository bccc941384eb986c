"""Large frames: sent in parts, received in place, and their room used again only when nobody looks at it any more."""

from __future__ import annotations

import itertools
import random

import msgspec
import pytest

from roost.wire.frame import (
    LARGE_BYTES_MAX,
    LARGE_BYTES_MIN,
    Framer,
    LargeBuffers,
    decode_batch,
    encode_batch,
    encode_large,
    length_prefix,
)
from roost.wire.protocol import Call, Cast, Reply, Sent

LIMIT = 64 * 1024 * 1024


def framed(body: bytes) -> bytes:
    return length_prefix(len(body)) + body


def received(framer: Framer, stream: bytes, sizes: list[int]) -> list[bytes]:
    """What comes out when the stream arrives in pieces of these sizes, put in place wherever the framer offers it."""
    frames: list[bytes] = []
    at = 0
    for size in itertools.cycle(sizes):
        if at >= len(stream):
            return frames
        place = framer.room()
        if place is None:
            piece = stream[at : at + size]
            frames += map(bytes, framer.feed(piece))
            at += len(piece)
            continue
        piece = stream[at : at + min(size, len(place))]
        place[: len(piece)] = piece
        at += len(piece)
        frame = framer.filled(len(piece))
        if frame is not None:
            frames.append(bytes(frame))
    raise AssertionError


@pytest.mark.parametrize("trace", [None, "00-abc-def-01"])
@pytest.mark.parametrize("size", [0, 1, 255, 70_000, 1_000_000])
def test_a_frame_in_parts_is_the_frame(size: int, trace: str | None) -> None:
    body = msgspec.Raw(msgspec.msgpack.encode(b"x" * size))
    for envelope in (Call(7, "s", "m", body, 5000, trace), Cast("s", "m", body, trace), Reply(2**40, body)):
        parts = encode_large(Sent(123), envelope)
        assert b"".join(parts) == encode_batch([Sent(123), envelope])
        assert envelope.body is body
        assert parts[1].obj is body, "the body is not copied"


@pytest.mark.parametrize("seed", range(20))
def test_frames_of_all_sizes_arrive_whole_and_in_order(seed: int) -> None:
    rng = random.Random(seed)
    edges = [0, 1, 3, LARGE_BYTES_MIN - 5, LARGE_BYTES_MIN - 4, LARGE_BYTES_MIN, 300_000, LARGE_BYTES_MAX - 4]
    bodies = [rng.randbytes(rng.choice(edges)) for _ in range(8)] + [rng.randbytes(LARGE_BYTES_MAX)]
    sizes = [rng.choice([1, 3, 4, 5, 1000, 65_536, 262_144, 10_000_000]) for _ in range(7)] + [400_000]
    framer = Framer(LIMIT)
    assert received(framer, b"".join(map(framed, bodies)), sizes) == bodies
    assert framer.partial == 0


def test_what_is_fed_while_room_is_offered_is_taken_as_well() -> None:
    bodies = [b"a" * 100_000, b"b" * 10, b"c" * 100_000]
    stream = b"".join(map(framed, bodies))
    framer = Framer(LIMIT)
    assert [bytes(frame) for piece in (stream[:70_000], stream[70_000:]) for frame in framer.feed(piece)] == bodies


def test_room_is_not_used_again_while_a_body_is_kept() -> None:
    buffers = LargeBuffers()
    framer = Framer(LIMIT, buffers)
    kept: list[Reply] = []
    for number in range(4):
        frame = encode_batch([Reply(number, msgspec.Raw(msgspec.msgpack.encode(bytes([number]) * 200_000)))])
        stream = framed(frame)
        assert list(framer.feed(stream[:50])) == []
        for view in framer.feed(stream[50:]):
            (reply,) = decode_batch(view)
            assert isinstance(reply, Reply)
            kept.append(reply)
    for number, reply in enumerate(kept):
        assert msgspec.msgpack.decode(reply.body) == bytes([number]) * 200_000


def test_room_is_used_again_once_nobody_looks() -> None:
    buffers = LargeBuffers()
    first = buffers.take(100_000)
    view = memoryview(first)[5:]
    buffers.give(first)
    assert buffers.take(100_000) is not first
    view.release()
    assert buffers.take(90_000) is first


def test_the_room_cannot_be_written_through_a_frame() -> None:
    framer = Framer(LIMIT)
    stream = framed(b"x" * 100_000)
    assert list(framer.feed(stream[:10])) == []
    (frame,) = framer.feed(stream[10:])
    assert frame.readonly


def test_a_frame_above_the_limit_gets_no_room() -> None:
    """However large the announcement, nothing is made for it but within the limit and the greatest kept size."""
    framer = Framer(LIMIT)
    assert list(framer.feed(length_prefix(LIMIT))) == []
    assert framer.room() is None


def test_exactly_one_frame_is_taken_as_it_is() -> None:
    framer = Framer(100)
    stream = framed(b"x" * 100)
    frame = framer.whole(stream)
    assert frame is not None
    assert bytes(frame) == b"x" * 100
    empty = Framer(100).whole(framed(b""))
    assert empty is not None
    assert bytes(empty) == b""
    for other in (b"", stream[:3], stream[:-1], stream + b"y", framed(b"x" * 101)):
        assert Framer(100).whole(other) is None, other
    assert list(framer.feed(stream[:50])) == []
    assert framer.whole(stream) is None, "in the middle of another frame"
