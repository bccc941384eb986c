"""Messages: what users subclass to talk between nodes.

    class Ping(roost.Request[str]):          # asked with node.ask, answered with a str
        text: str

    class Notice(roost.Message):             # sent with node.send
        text: str

Subclasses are frozen msgspec structs: checked by the type checkers, immutable at run time. On the wire a kind is
known by its class's name; `class Notice(roost.Message, tag="chat.notice")` gives another, where two modules use one.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar, dataclass_transform, get_args, get_origin

import msgspec

from roost.errors import ConfigError

__all__ = ["Envelope", "Message", "Request", "answer_type", "kind_of"]

R = TypeVar("R", covariant=True)
M = TypeVar("M")


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class _MessageMeta(msgspec.StructMeta):
    """Tells the type checkers that message classes are frozen."""


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))  # again: mypy asks the bases first
class Message(msgspec.Struct, metaclass=_MessageMeta, frozen=True, tag=True):
    """The base of everything that `send` and `broadcast` carry. Fields: any type that msgspec knows."""


class Request(Message, Generic[R]):
    """The base of everything that `ask` carries; `R` is the type of the answer."""


class Envelope(msgspec.Struct, Generic[M], frozen=True):
    """A message on arrival: `body`, the `source` node's name, and the `id` that its sender gave it (0 if none)."""

    body: M
    source: str = ""
    id: int = 0


_kinds: dict[type[Any], str] = {}
_answers: dict[type[Any], Any] = {}


def kind_of(message: type[Message]) -> str:
    """The name by which this class of messages is known on the wire."""
    kind = _kinds.get(message)
    if kind is None:
        tag = getattr(getattr(message, "__struct_config__", None), "tag", None)
        if not isinstance(tag, str) or message is Message or message is Request:
            raise ConfigError(
                f"{message!r} is not a message class", todo="derive it from roost.Message or roost.Request[...]"
            )
        kind = _kinds[message] = tag
    return kind


def answer_type(request: type[Request[Any]]) -> Any:
    """The type that a request class promises as its answer."""
    found = _answers.get(request)
    if found is None:
        for base in request.__mro__:
            for generic in base.__dict__.get("__orig_bases__", ()):
                if get_origin(generic) is Request and not isinstance(get_args(generic)[0], TypeVar):
                    found = _answers[request] = get_args(generic)[0]
                    return found
        raise ConfigError(
            f"{request.__name__} does not say what its answer is",
            todo=f"declare it as `class {request.__name__}(roost.Request[str])`, with the answer's type",
        )
    return found
