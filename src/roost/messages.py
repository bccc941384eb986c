"""Messages: what users subclass to talk between nodes; and envelopes, which carry them and any other value.

    class Ping(roost.Request[str]):          # asked with node.ask, answered with a str
        text: str

    class Notice(roost.Message):             # sent with node.send
        text: str

Subclasses are frozen msgspec structs: checked by the type checkers, immutable at run time. On the wire a kind is
known by its class's name; `class Notice(roost.Message, tag="chat.notice")` gives another, where two modules use one.
"""

from __future__ import annotations

import inspect
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Final, Generic, TypeVar, dataclass_transform, get_args, get_origin

import msgspec

from roost.errors import ConfigError

__all__ = [
    "BROADCAST",
    "Broadcast",
    "Envelope",
    "Message",
    "Request",
    "answer_type",
    "kind_of",
    "kind_of_body",
    "pid_of",
]

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


class Broadcast(Enum):
    """The type of `BROADCAST`."""

    ALL = "broadcast"

    def __repr__(self) -> str:
        return "roost.BROADCAST"


BROADCAST: Final = Broadcast.ALL
"""As the receiver of an envelope: every other member."""


class Envelope(msgspec.Struct, Generic[M], frozen=True):
    """A body, and who it is for or who it is from.

    To send one, give `to` (a node's name, its pid if it has one, or `BROADCAST`), an `id` of your own if you want one,
    and the `body`, any value that can travel, and put it into `node.outbox`. What arrives, in `node.inbox` or at a
    handler of `node.answer`, has the sender's name as its `source` and the `id` that the sender gave (0 if none); its
    `to` is empty.
    """

    body: M
    source: str = ""
    id: int = 0
    to: str | int | Broadcast = ""

    @property
    def pid(self) -> int | None:
        """The sender's pid; None if its name is no number."""
        return pid_of(self.source)


def pid_of(name: str) -> int | None:
    """The pid of the node of that name, if the name is a number as `str` writes it."""
    return int(name) if name.isascii() and name.isdigit() and str(int(name)) == name else None


_kinds: dict[type[Any], str] = {}
_body_kinds: dict[type[Any], str] = {}
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


def kind_of_body(body: Any) -> str:
    """The name by which bodies of a type are known on the wire: that of the class, or a message's own.

    What stands in brackets does not count: to the wire a `list[int]` is a list.
    """
    kind = _body_kinds.get(body) if isinstance(body, type) else None
    if kind is None:
        base = get_args(body)[0] if get_origin(body) is Annotated else body
        base = get_origin(base) or base
        if not isinstance(base, type) or base in (Any, object, UnionType, Annotated) or inspect.isabstract(base):
            todo = "name one class, such as str or list[int], or call inbox() for bodies of every type"
            raise ConfigError(f"no body has exactly the type {body!r}", todo=todo)
        kind = kind_of(base) if issubclass(base, Message) else base.__name__
        if isinstance(body, type):
            _body_kinds[body] = kind
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
