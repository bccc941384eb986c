"""Frames out of a byte stream, and batches of envelopes out of a frame.

A frame is a 4-byte big-endian length and that many bytes. `Framer` is handed whatever the network delivers and yields
whole frames as views on the delivered bytes; only a frame that came in pieces is put together, once, when its last
byte is there. A large frame is not even that: once its length is known, `room` is the place for what is still to
come, and the network may deliver straight into it (`filled`). The announced length is checked before anything of the
frame is kept, so a peer that announces 4 GiB costs nothing.

A batch is one frame: a msgpack array of envelopes, decoded with one typed call. Bodies stay `msgspec.Raw`, which are
views on the frame. A large body is not copied into its frame either: `encode_large` gives the frame in parts. The
frame's bytes live as long as any of its bodies, are never written to again before, and are freed with the last body:
whoever keeps a small body of a large frame for long copies it (`bytes(body)`).

Invariant: what a `Framer` keeps is at most one frame of `frame_bytes_max` plus the one piece that completed it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from roost.errors import ProtocolError
from roost.wire.protocol import Call, Cast, Envelope, Reply, Sent

__all__ = [
    "LARGE_BYTES_MAX",
    "LARGE_BYTES_MIN",
    "LENGTH_BYTES",
    "Framer",
    "LargeBuffers",
    "decode_batch",
    "encode_batch",
    "encode_large",
    "length_prefix",
]

LENGTH_BYTES = 4
_LENGTH = struct.Struct(">I")
_PIECES_MAX = 4096
"""So many loose pieces are joined early: a peer that sends byte by byte must not cost 40 bytes for each."""
LARGE_BYTES_MIN = 64 * 1024
LARGE_BYTES_MAX = 4 * 1024 * 1024
"""A frame between these sizes has its place made when its length is known; a larger one only as its bytes come."""
SPARE_BUFFERS = 2

length_prefix = _LENGTH.pack
"""The 4 bytes that go before a frame of that many bytes."""

_envelopes: msgspec.msgpack.Decoder[list[Envelope]] = msgspec.msgpack.Decoder(list[Envelope])

encode_batch = msgspec.msgpack.Encoder().encode
"""`encode_batch(envelopes)`: one frame, without its length, of a list of envelopes."""


_NO_BODY = msgspec.Raw(b"")
_END: bytes = encode_batch(None)


def encode_large(sent: Sent, envelope: Call | Cast | Reply) -> tuple[bytes, memoryview, bytes]:
    """The frame of a clock and one envelope, in three parts of which the second is the body itself, not a copy."""
    body = envelope.body
    envelope.body = _NO_BODY
    try:
        head = encode_batch([sent, envelope])
    finally:
        envelope.body = body
    match envelope:  # what comes after the body in the struct
        case Call():
            tail = encode_batch(envelope.milliseconds) + encode_batch(envelope.trace)
        case Cast():
            tail = _END if envelope.trace is None else encode_batch(envelope.trace)
        case Reply():
            tail = b""
    return head[: len(head) - len(tail)], memoryview(body), tail


def decode_batch(frame: memoryview | bytes) -> list[Envelope]:
    """The envelopes of one frame; their bodies are views on it. Raises ProtocolError."""
    try:
        return _envelopes.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"a frame of {len(frame)} bytes is no batch of envelopes: {error}") from error


class LargeBuffers:
    """Room for large frames, used again as soon as nobody looks at the last frame in it any more.

    A page that a process has never touched costs more than the bytes that are copied to it.
    """

    __slots__ = ("_spare",)

    def __init__(self) -> None:
        self._spare: list[bytearray] = []

    def take(self, size: int) -> bytearray:
        """A buffer of at least `size` bytes."""
        for position, buffer in enumerate(self._spare):
            if len(buffer) >= size and _is_free(buffer):
                return self._spare.pop(position)
        return bytearray(size)

    def give(self, buffer: bytearray) -> None:
        """It may be used again once the last view on it is gone."""
        self._spare.append(buffer)
        if len(self._spare) > SPARE_BUFFERS:
            del self._spare[0]


def _is_free(buffer: bytearray) -> bool:
    try:
        buffer.append(buffer.pop())
    except BufferError:  # what somebody looks at cannot change its size
        return False
    return True


class Framer:
    """Cuts a byte stream into frames. `frame_bytes_max` may change at any time, also between two frames of one read."""

    __slots__ = ("_buffers", "_have", "_joined", "_large", "_need", "_pieces", "frame_bytes_max")

    def __init__(self, frame_bytes_max: int, buffers: LargeBuffers | None = None) -> None:
        self.frame_bytes_max = frame_bytes_max
        self._buffers = buffers or LargeBuffers()
        self._large: bytearray | None = None
        self._pieces: list[bytes] = []
        self._joined = 0
        self._have = 0
        self._need = 0

    @property
    def partial(self) -> int:
        """Bytes of a frame that has not arrived whole."""
        return self._have

    def feed(self, data: bytes) -> Iterator[memoryview]:
        """Take what arrived and yield each frame that is now whole, without its length.

        To be iterated to its end, unless the stream is given up. Raises ProtocolError as soon as a length above
        `frame_bytes_max` is seen, after yielding the frames before it.
        """
        if self._large is not None:
            place = self.room()
            assert place is not None
            taken = data[: len(place)]
            place[: len(taken)] = taken
            place.release()
            frame = self.filled(len(taken))
            if frame is None:
                return
            yield frame
            data = data[len(taken) :]
        if self._pieces:
            self._pieces.append(data)
            self._have += len(data)
            if self._have < self._need:
                if len(self._pieces) - self._joined >= _PIECES_MAX:
                    self._join_loose()
                return
            data = b"".join(self._pieces)
            self._pieces = []
            self._joined = self._have = 0
        view = memoryview(data)
        size = len(data)
        at = 0
        while size - at >= LENGTH_BYTES:
            (length,) = _LENGTH.unpack_from(data, at)
            if length > self.frame_bytes_max:
                raise ProtocolError(f"a frame of {length} bytes was announced, the limit is {self.frame_bytes_max}")
            end = at + LENGTH_BYTES + length
            if end > size:
                self._keep(data, at, LENGTH_BYTES + length)
                return
            yield view[at + LENGTH_BYTES : end]
            at = end
        if at < size:
            self._keep(data, at, LENGTH_BYTES)

    def whole(self, data: bytes) -> memoryview | None:
        """The frame, if what arrived is exactly one, as it mostly is; else None, and `data` is still to be fed."""
        size = len(data) - LENGTH_BYTES
        if self._have or size < 0 or size > self.frame_bytes_max or _LENGTH.unpack_from(data)[0] != size:
            return None
        return memoryview(data)[LENGTH_BYTES:]

    def room(self) -> memoryview | None:
        """Where the rest of a large frame belongs; None while nothing or something small is awaited."""
        if self._large is None:
            return None
        return memoryview(self._large)[self._have : self._need]

    def filled(self, count: int) -> memoryview | None:
        """`count` bytes were put into `room`; the frame, if it is whole now."""
        buffer = self._large
        assert buffer is not None
        self._have += count
        if self._have < self._need:
            return None
        frame = memoryview(buffer).toreadonly()[LENGTH_BYTES : self._need]
        self._large = None
        self._have = 0
        self._buffers.give(buffer)
        return frame

    def _keep(self, data: bytes, at: int, need: int) -> None:
        if LARGE_BYTES_MIN <= need <= LARGE_BYTES_MAX:
            self._large = buffer = self._buffers.take(need)
            self._have = len(data) - at
            buffer[: self._have] = memoryview(data)[at:]
            self._need = need
            return
        self._pieces = [data[at:] if at else data]
        self._have = len(data) - at
        self._need = need

    def _join_loose(self) -> None:
        """Each byte is joined at most once here and once when its frame is whole: never quadratic."""
        self._pieces[self._joined :] = [b"".join(self._pieces[self._joined :])]
        self._joined += 1
