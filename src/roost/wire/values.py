"""Values on the wire: msgpack by msgspec, typed on arrival, and a register for classes that msgspec does not know.

Known are the builtins, Struct, dataclass, attrs, enum, datetime, UUID, Decimal and bytes. Any other class registers a
pair of functions once, on every node that meets it; nothing is ever pickled and no peer can name a class to load.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from roost.errors import ConfigError

__all__ = ["decode", "decoder", "encode", "register"]

T = TypeVar("T")

_to_known: dict[type[Any], Callable[[Any], Any]] = {}
_from_known: dict[type[Any], Callable[[Any], Any]] = {}


def register(kind: type[T], *, encode: Callable[[T], Any], decode: Callable[[Any], T]) -> None:
    """Teach the wire a class: `encode` turns a value into something known, `decode` turns it back."""
    if kind in _to_known:
        raise ConfigError(f"{kind.__qualname__} is registered already", todo="register a class once a process")
    _to_known[kind] = encode
    _from_known[kind] = decode
    _decoders.clear()


def _unknown_out(value: Any) -> Any:
    for base in type(value).__mro__:
        if (function := _to_known.get(base)) is not None:
            return function(value)
    raise TypeError(
        f"{type(value).__qualname__} cannot travel: use a type that msgspec knows, or "
        f"roost.register({type(value).__name__}, ...)"
    )


def _unknown_in(kind: type[Any], value: Any) -> Any:
    if (function := _from_known.get(kind)) is not None:
        return function(value)
    raise TypeError(f"{kind!r} is not registered on this node: roost.register({getattr(kind, '__name__', kind)}, ...)")


encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder(enc_hook=_unknown_out).encode
"""A value as msgpack. TypeError says which class is not known."""

_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    """The decoder of a type, made once. ConfigError where the type cannot be decoded."""
    try:
        found = _decoders.get(kind)
    except TypeError as error:
        raise ConfigError(f"{kind!r} is not a type", todo="give a class or a type annotation") from error
    if found is None:
        try:
            found = _decoders[kind] = msgspec.msgpack.Decoder(kind, dec_hook=_unknown_in)
        except TypeError as error:
            raise ConfigError(f"values of type {kind!r} cannot travel: {error}") from error
    return found


def decode(kind: Any, data: bytes | msgspec.Raw | memoryview) -> Any:
    """A value of the type `kind`; msgspec.ValidationError where the bytes are something else."""
    return decoder(kind).decode(data)
