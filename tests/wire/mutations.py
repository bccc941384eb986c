"""Ways to break a frame: what a hostile or a broken peer might make of a good one.

All chance comes from the `random.Random` that is handed in, so that a number replays an input and hypothesis can shrink
one. What comes out is never more than a few KiB longer than what went in.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from random import Random

import msgspec

from roost.wire.frame import length_prefix

__all__ = ["cut_up", "framed", "mutated"]

DEPTH = 3000
_NASTY = tuple(
    bytes.fromhex(digits)
    for digits in (
        "c1",  # the one byte that means nothing
        "c0 c2 c3",
        "d9 ff",  # a text, a list, a map, bytes: shorter than they say
        "dd ff ff ff ff",
        "dc ff ff",
        "df ff ff ff ff",
        "db ff ff ff ff",
        "c6 ff ff ff ff",
        "c9 ff ff ff ff 01",
        "a4 ff fe 80 c0",  # no UTF-8
        "a3 ed a0 80",
        "d6 ff 00 00 00 00",  # extensions, the first of them a time
        "c7 00 05",
        "d4 01 00",
        "cb 7f f8 00 00 00 00 00 00",  # NaN, infinity, and the least float
        "cb 7f f0 00 00 00 00 00 00",
        "cb ff f0 00 00 00 00 00 00",
        "cb 00 00 00 00 00 00 00 01",
        "cf ff ff ff ff ff ff ff ff",  # the greatest and the least integers
        "cf 80 00 00 00 00 00 00 00",
        "d3 80 00 00 00 00 00 00 00",
        "d3 ff ff ff ff ff ff ff ff",
        "90",
        "80",
        "a0",
        "c4 00",
    )
)
_EDGES = (0, 1, 0x7F, 0x80, 0x90, 0x9F, 0xA0, 0xC0, 0xC1, 0xD9, 0xDD, 0xDF, 0xFF)
_SCALARS: tuple[object, ...] = (
    None,
    True,
    0,
    -1,
    2**63 - 1,
    2**63,
    2**64 - 1,
    -(2**63),
    1.5,
    float("nan"),
    float("inf"),
    "",
    "\0",
    "x" * 300,
    "\U0001f680",
    b"",
    b"\xff" * 300,
    [],
    {},
    [[]],
    {"a": 1},
    {1: 2},
    msgspec.msgpack.Ext(5, b"x"),
)


def framed(frame: bytes) -> bytes:
    """A frame as it travels."""
    return length_prefix(len(frame)) + frame


def cut_up(rng: Random, stream: bytes) -> list[bytes]:
    """The stream in pieces, as a network might deliver it."""
    pieces = []
    at = 0
    while at < len(stream):
        size = rng.choice((1, 2, 5, 60, 1000, 100_000))
        pieces.append(stream[at : at + size])
        at += size
        if len(pieces) > 50:
            return [*pieces, stream[at:]]
    return pieces


def mutated(rng: Random, frame: bytes, others: Sequence[bytes]) -> bytes:
    """`frame` with one to four things wrong; `others` are what pieces may be taken from."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        frame = rng.choice(_MUTATIONS)(rng, frame, others)
    return frame


def _flip(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    if not data:
        return data
    at = rng.randrange(len(data))
    return data[:at] + bytes((data[at] ^ (1 << rng.randrange(8)),)) + data[at + 1 :]


def _edge(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    if not data:
        return data
    at = rng.randrange(len(data))
    return data[:at] + bytes((rng.choice(_EDGES),)) + data[at + 1 :]


def _cut(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    start, end = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    return data[:start] + data[end:]


def _lengthen(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at : at + 40] * rng.choice((2, 20)) + data[at:]


def _splice(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _nasty(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(_NASTY) + data[at + rng.choice((0, 0, 1, 4)) :]


def _noise(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    size = rng.choice((1, 4, 30))
    return data[:at] + rng.randbytes(size) + data[at + size :]


def _deepen(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice((b"\x91", b"\x81\xa1x", b"\x81\xc0")) * rng.choice((20, DEPTH)) + data[at:]


def _prefix(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """As if it were a stream: a length that lies."""
    size = rng.choice((0, 1, len(data) + 1, 4096, 4097, 70_000, 2**31, 2**32 - 1))
    return struct.pack(">I", size) + data[rng.choice((0, 4)) :]


def _retype(rng: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Still msgpack, but something in it is something else: what typed decoding must see."""
    try:
        value = msgspec.msgpack.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return data
    place = value
    while isinstance(place, list) and place:
        at = rng.randrange(len(place))
        if isinstance(place[at], list) and place[at] and rng.random() < 0.7:
            place = place[at]
            continue
        choice = rng.random()
        if choice < 0.15:
            del place[at]
        elif choice < 0.3:
            place.insert(at, place[at])
        else:
            place[at] = rng.choice(_SCALARS)
        break
    return msgspec.msgpack.encode(value)


_MUTATIONS: tuple[Callable[[Random, bytes, Sequence[bytes]], bytes], ...] = (
    _flip,
    _flip,
    _edge,
    _cut,
    _lengthen,
    _splice,
    _nasty,
    _nasty,
    _noise,
    _deepen,
    _prefix,
    _retype,
    _retype,
    _retype,
)
