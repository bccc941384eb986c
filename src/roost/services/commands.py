"""What a handler class lets others call: its commands, with the types of their arguments and answers.

Commands are the public methods that the user's own class (or one between it and the library's) defines; hooks and
underscored names are not. Arguments travel by name and are decoded to their annotated types before the command
begins, so that a wrong one harms nothing.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

import msgspec

from roost.errors import ConfigError
from roost.wire.values import decoder

__all__ = ["Command", "Gather", "Gathered", "Method", "methods_of"]


class Command(msgspec.Struct, array_like=True, gc=False):
    """One command on its way."""

    partition: int
    epoch: int
    """The newest right to the partition that the sender knows of; 0: none."""
    key: bytes
    argument: msgspec.Raw


class Gather(msgspec.Struct, array_like=True, gc=False):
    """One command for many partitions of one node."""

    partitions: list[int]
    argument: msgspec.Raw


class Gathered(msgspec.Struct, array_like=True, gc=False):
    """The answer: results by partition, and (partition, epoch, holder) of those that nothing ran on here."""

    done: list[tuple[int, msgspec.Raw]]
    elsewhere: list[tuple[int, int, int]]


class Method:
    """A command of a handler class."""

    __slots__ = ("_bind", "_decode_arguments", "_decode_result", "function", "is_async", "name")

    def __init__(self, kind: type[Any], name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function)
        where = f"{kind.__qualname__}.{name}"
        try:
            hints = typing.get_type_hints(function, include_extras=True)
        except (NameError, TypeError) as error:
            todo = "name types that the module defines when the service is opened"
            raise ConfigError(f"its annotations cannot be read: {error}", where=where, todo=todo) from error
        signature = inspect.signature(function)
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
        for parameter in list(signature.parameters.values())[1:]:
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise ConfigError(f"{parameter} cannot be sent", where=where, todo="name every argument")
            hint = hints.get(parameter.name, Any)
            if parameter.default is parameter.empty:
                fields.append((parameter.name, hint))
            else:
                fields.append((parameter.name, hint, msgspec.UNSET))
        self._bind = signature.bind
        try:
            arguments = msgspec.defstruct(f"{name}_arguments", fields, kw_only=True, forbid_unknown_fields=True)
            self._decode_arguments = decoder(arguments).decode
            self._decode_result = decoder(hints.get("return", Any)).decode
        except (TypeError, ConfigError) as error:
            raise ConfigError(f"its types cannot travel: {error}", where=where) from error

    def arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """By name, as they travel. TypeError where they do not fit, as for any call."""
        bound = self._bind(None, *args, **kwargs).arguments
        return dict(list(bound.items())[1:])

    def decode_arguments(self, raw: msgspec.Raw) -> dict[str, Any]:
        """Typed; msgspec.ValidationError otherwise."""
        given = self._decode_arguments(raw)
        values = {name: getattr(given, name) for name in given.__struct_fields__}
        return {name: value for name, value in values.items() if value is not msgspec.UNSET}

    def decode_result(self, raw: msgspec.Raw) -> Any:
        """As the return annotation says."""
        return self._decode_result(raw)


def methods_of(kind: type[Any], library: tuple[type[Any], ...], hooks: frozenset[str]) -> dict[str, Method]:
    """The commands of a handler class; `library` are the base classes whose own methods are none."""
    methods: dict[str, Method] = {}
    for ancestor in reversed(kind.__mro__):
        if ancestor in library or ancestor.__module__ in ("typing", "builtins", "abc"):
            continue
        for name, value in vars(ancestor).items():
            if name.startswith("_") or name in hooks or not inspect.isfunction(value):
                continue
            methods[name] = Method(kind, name, value)
    return methods
