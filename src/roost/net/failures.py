"""Errors across the wire: an exception becomes a `Failure`, and a `Failure` an exception of this library.

Only the classes of `roost.errors` and `NotHere` are told apart by name. Whatever else a handler raises arrives as
`RemoteError`: a peer never names a class that is imported or constructed here.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from roost import errors
from roost.wire.protocol import Failure

__all__ = ["NotHere", "from_failure", "to_failure"]


class NotHere(Exception):
    """This node does not execute commands of that partition now; nothing ran. `holder` is a uid, 0 if unknown."""

    def __init__(self, epoch: int, holder: int) -> None:
        super().__init__(f"not here: epoch {epoch}, holder {holder:016x}")
        self.epoch = epoch
        self.holder = holder


class _Fields(msgspec.Struct, omit_defaults=True):
    """What a known error carries besides its text; a union of all their fields."""

    node: str = ""
    last_seen: float | None = None
    elapsed: float = 0.0
    what: str = ""
    limit: float = 0
    needed: int = 0
    have: int = 0
    name: str = ""
    holder: str = ""


_FIELDS: dict[type[errors.RoostError], tuple[str, ...]] = {
    errors.Unreachable: ("node", "last_seen"),
    errors.DeadlineExceeded: ("elapsed",),
    errors.Overloaded: ("what", "limit"),
    errors.Unavailable: ("needed", "have"),
    errors.NotFound: ("name",),
    errors.NameTaken: ("name", "holder"),
}
_KINDS: dict[str, type[errors.RoostError]] = {kind.__name__: kind for kind in _FIELDS}

_encode = msgspec.msgpack.encode
_fields = msgspec.msgpack.Decoder(_Fields)
_not_here = msgspec.msgpack.Decoder(tuple[int, int])
_NOT_HERE = "roost.NotHere"
_SAFE = "roost."
"""Kinds of this library carry a prefix, so that a user's own class called `NotFound` stays a RemoteError."""
_TEXT_MAX = 4096


def to_failure(id: int, error: BaseException) -> Failure:
    """What to answer when a handler raised `error`."""
    if isinstance(error, NotHere):
        return Failure(id, _NOT_HERE, "", False, msgspec.Raw(_encode((error.epoch, error.holder))))
    text = str(error)[:_TEXT_MAX]
    name = type(error).__name__
    if isinstance(error, errors.RoostError) and (known := _FIELDS.get(type(error))) is not None:
        fields = _Fields(**{field: getattr(error, field) for field in known})
        return Failure(id, _SAFE + name, text, error.may_have_run, msgspec.Raw(_encode(fields)))
    if isinstance(error, errors.RemoteError):
        return Failure(id, error.kind, error.message[:_TEXT_MAX], error.may_have_run)
    if isinstance(error, asyncio.CancelledError):
        return Failure(id, "CancelledError", text or "the handler was cancelled", True)
    may_have_run = error.may_have_run if isinstance(error, errors.RoostError) else True
    return Failure(id, name, text, may_have_run)


def from_failure(failure: Failure, node: str) -> Exception:
    """The exception that the caller gets."""
    kind = failure.kind
    if kind.startswith(_SAFE):
        try:
            if kind == _NOT_HERE:
                return NotHere(*_not_here.decode(failure.detail))
            known = _KINDS.get(kind.removeprefix(_SAFE))
            if known is not None:
                sent = _fields.decode(failure.detail)
                fields: dict[str, Any] = {field: getattr(sent, field) for field in _FIELDS[known]}
                return known(failure.message, may_have_run=failure.may_have_run, **fields)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as broken:
            return errors.ProtocolError(f"{node} sent a failure that cannot be read: {broken}", may_have_run=True)
    return errors.RemoteError(kind, failure.message, node=node, may_have_run=failure.may_have_run)
