"""Frames out of a byte stream, and batches of envelopes out of a frame.

A frame is a 4-byte big-endian length and that many bytes. `Framer` is handed whatever the network delivers and yields
whole frames as views on the delivered bytes; only a frame that came in pieces is put together, once, when its last
byte is there. The announced length is checked before anything of the frame is kept, so a peer that announces 4 GiB
costs nothing.

A batch is one frame: a msgpack array of envelopes, decoded with one typed call. Bodies stay `msgspec.Raw`, which are
views on the frame. The frame's bytes live as long as any of its bodies, are never written to again, and are freed with
the last body: whoever keeps a small body of a large frame for long copies it (`bytes(body)`).

Invariant: what a `Framer` keeps is at most one frame of `frame_bytes_max` plus the one piece that completed it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from roost.errors import ProtocolError
from roost.wire.protocol import Envelope

__all__ = ["LENGTH_BYTES", "Framer", "decode_batch", "encode_batch", "length_prefix"]

LENGTH_BYTES = 4
_LENGTH = struct.Struct(">I")
_PIECES_MAX = 4096
"""So many loose pieces are joined early: a peer that sends byte by byte must not cost 40 bytes for each."""

length_prefix = _LENGTH.pack
"""The 4 bytes that go before a frame of that many bytes."""

_envelopes: msgspec.msgpack.Decoder[list[Envelope]] = msgspec.msgpack.Decoder(list[Envelope])

encode_batch = msgspec.msgpack.Encoder().encode
"""`encode_batch(envelopes)`: one frame, without its length, of a list of envelopes."""


def decode_batch(frame: memoryview | bytes) -> list[Envelope]:
    """The envelopes of one frame; their bodies are views on it. Raises ProtocolError."""
    try:
        return _envelopes.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"a frame of {len(frame)} bytes is no batch of envelopes: {error}") from error


class Framer:
    """Cuts a byte stream into frames. `frame_bytes_max` may change at any time, also between two frames of one read."""

    __slots__ = ("_have", "_joined", "_need", "_pieces", "frame_bytes_max")

    def __init__(self, frame_bytes_max: int) -> None:
        self.frame_bytes_max = frame_bytes_max
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

    def _keep(self, data: bytes, at: int, need: int) -> None:
        self._pieces = [data[at:] if at else data]
        self._have = len(data) - at
        self._need = need

    def _join_loose(self) -> None:
        """Each byte is joined at most once here and once when its frame is whole: never quadratic."""
        self._pieces[self._joined :] = [b"".join(self._pieces[self._joined :])]
        self._joined += 1
