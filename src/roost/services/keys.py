"""Keys and values as bytes, typed.

A key is encoded with its type, so that `("a", "b")`, `"a.b"`, `1`, `"1"`, `True` and `b"x"` are all different, and the
same on every node: sets and dicts inside a key are put in order. A value is encoded where it is put, and what could
not be read back as the declared type is refused there, before it harms anybody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, Generic, TypeVar

import msgspec

from roost.wire.values import decoder, encode

__all__ = ["KeyCodec", "ValueCodec", "type_arguments", "type_name"]

K = TypeVar("K")
V = TypeVar("V")

_encode_key = msgspec.msgpack.Encoder(order="deterministic").encode
_PLAIN = (str, bytes, int)


class KeyCodec(Generic[K]):
    """Keys of one service."""

    __slots__ = ("_decode", "_plain", "kind")

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        decode = decoder(kind).decode
        self._decode: Callable[[bytes], Any] = decode if kind is not Any else lambda data: _frozen(decode(data))
        self._plain = kind if kind in _PLAIN else None

    def encode(self, key: K) -> bytes:
        """TypeError for a key of another type."""
        if type(key) is self._plain:
            return _encode_key(key)
        try:
            normal = self._decode(_encode_key(key))
            hash(normal)
            return _encode_key(normal)
        except (TypeError, msgspec.ValidationError) as error:
            raise TypeError(f"{key!r} is no key here: keys are of type {type_name(self.kind)} ({error})") from error

    def decode(self, data: bytes) -> K:
        """The key that was encoded."""
        key: K = self._decode(data)
        return key


class ValueCodec(Generic[V]):
    """Values of one service."""

    __slots__ = ("_class", "_decode", "_plain", "kind")

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self._decode = decoder(kind).decode
        self._plain = kind if kind in (str, bytes, int, bool) else None
        self._class: type[Any] | None = kind if _is_record(kind) else None

    def encode(self, value: V) -> bytes:
        """TypeError for a value of another type."""
        if type(value) is self._plain:
            return encode(value)
        if self._class is not None and not isinstance(value, self._class):
            raise TypeError(f"{_short(value)} is no value here: values are of type {type_name(self.kind)}")
        data = encode(value)
        try:
            self._decode(data)
        except msgspec.ValidationError as error:
            kind = type_name(self.kind)
            raise TypeError(f"{_short(value)} is no value here: values are of type {kind} ({error})") from error
        return data

    def decode(self, data: bytes | memoryview | msgspec.Raw) -> V:
        """The value that was encoded."""
        value: V = self._decode(data)
        return value


def type_name(kind: Any) -> str:
    """A type as people write it, the same on every node."""
    if isinstance(kind, type) and not hasattr(kind, "__args__"):
        return kind.__qualname__
    return str(kind).replace("typing.", "")


def _is_record(kind: Any) -> bool:
    """A class whose instances a dict could be mistaken for on the wire."""
    if not isinstance(kind, type) or kind is Any:
        return False
    return issubclass(kind, msgspec.Struct) or is_dataclass(kind) or hasattr(kind, "__attrs_attrs__")


def _frozen(key: Any) -> Any:
    """Without a declared type, arrays are tuples: a list could be no key."""
    return tuple(_frozen(part) for part in key) if isinstance(key, list) else key


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def type_arguments(kind: type[Any], base: type[Any]) -> tuple[Any, ...]:
    """What `kind` gave for the type parameters of `base`: (str, int) for `class Tally(Partition[str, int])`."""
    for ancestor in kind.__mro__:
        for written in getattr(ancestor, "__orig_bases__", ()):
            origin = getattr(written, "__origin__", None)
            if isinstance(origin, type) and issubclass(origin, base):
                given = written.__args__
                if not any(isinstance(one, TypeVar) for one in given):
                    return tuple(given)
    return ()
