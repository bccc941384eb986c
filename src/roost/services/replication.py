"""How many copies a service keeps, when a write is acknowledged, who may read, and who may act in a split."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypedDict, get_args

from roost.core.split import Strategy, strategy_of
from roost.core.tenure import Write
from roost.errors import ConfigError

__all__ = ["REPLICAS_MAX", "Read", "Replication", "ReplicationOptions", "SplitName", "StoreOptions"]

Read = Literal["holder", "any"]
SplitName = Literal["keep-both", "keep-majority", "static-quorum", "keep-oldest", "down-all"]
REPLICAS_MAX = 16


class ReplicationOptions(TypedDict, total=False):
    """Keyword arguments of `Node.partitions`, for the type checkers; see `Replication`."""

    replicas: int
    write: Write
    split: SplitName
    quorum: int


class StoreOptions(ReplicationOptions, total=False):
    """Those of `Node.kv`."""

    read: Read


@dataclass(frozen=True)
class Replication:
    """The options of `Node.kv` and `Node.partitions` that all hosts of a service must share, but for `read`.

    Raises ConfigError for what cannot be, with what to do.
    """

    replicas: int = 1
    write: Write = "majority"
    read: Read = "holder"
    split: SplitName = "keep-both"
    quorum: int | None = None
    strategy: Strategy = field(init=False)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Replication:
        """From keyword arguments. Raises ConfigError for one that there is not, with the nearest that there is."""
        known = [one.name for one in fields(cls) if one.init]
        for name in options:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                todo = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
                raise ConfigError(f"there is no option {name!r}", todo=todo)
        return cls(**options)

    def __post_init__(self) -> None:
        if isinstance(self.replicas, bool) or not isinstance(self.replicas, int):
            raise ConfigError(f"replicas is {self.replicas!r}", todo="give a whole number")
        if not 1 <= self.replicas <= REPLICAS_MAX:
            raise ConfigError(f"replicas is {self.replicas}", todo=f"use 1, the holder alone, up to {REPLICAS_MAX}")
        for name, kind in (("write", Write), ("read", Read)):
            if getattr(self, name) not in get_args(kind):
                known = ", ".join(map(repr, get_args(kind)))
                raise ConfigError(f"{name} is {getattr(self, name)!r}", todo=f"use one of {known}")
        if self.quorum is not None and (isinstance(self.quorum, bool) or not isinstance(self.quorum, int)):
            raise ConfigError(f"quorum is {self.quorum!r}", todo="give a whole number")
        if not isinstance(self.split, str):
            raise ConfigError(f"split is {self.split!r}", todo='use "keep-both", or see docs/splits.md')
        try:
            object.__setattr__(self, "strategy", strategy_of(self.split, self.quorum))
        except ValueError as error:
            raise ConfigError(str(error)) from error

    @property
    def shared(self) -> str:
        """What must be the same on all hosts."""
        return f"{self.replicas} {self.write} {self.split} {self.quorum}"
