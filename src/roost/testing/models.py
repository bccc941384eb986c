"""What a key may do, one call after another: the sequential types that histories are checked against.

A `Model` says what a call makes of a state. Any type will do whose states can be hashed: a counter, a set, a lock.
`Register` is that of `roost.KV`.

A model may also know what makes the search for an order short, as a `Reducing` one does. A reduction must be exact: it
has an order if and only if the calls that it stands for have one.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, runtime_checkable

from roost.testing.histories import Call

__all__ = ["IMPOSSIBLE", "Model", "Reducing", "Reduction"]


class _Impossible(enum.Enum):
    IMPOSSIBLE = "impossible"

    def __repr__(self) -> str:
        return self.name


IMPOSSIBLE: Final = _Impossible.IMPOSSIBLE
"""What `Model.apply` answers for a call that cannot have had that result in that state."""


class Model(Protocol):
    """A sequential type. States are compared with == and hashed; equal arguments and results mean the same."""

    @property
    def initial(self) -> Hashable:
        """The state before the first call."""
        ...

    def apply(self, state: Any, operation: str, argument: Any, result: Any) -> Hashable:
        """The state after the call, or IMPOSSIBLE if it cannot have returned `result`; a pure function.

        If `result` is UNKNOWN, then it is the state after the call if it takes effect here, whatever it returns.
        """
        ...


@dataclass
class Reduction:
    """The calls of one key, and what is known about them besides.

    `calm` are the calls to linearize at once wherever they leave the state as it is: it can do no harm.
    `needs` has the states that never come again once left, each with all the calls that must be linearized before it
    is left. When they have been, the state is as good as `spent`.
    """

    calls: Sequence[Call]
    calm: set[Call] = field(default_factory=set)
    needs: dict[Hashable, list[Call]] = field(default_factory=dict)
    spent: Hashable = None


@runtime_checkable
class Reducing(Protocol):
    """A model that can make its histories shorter."""

    def reduced(self, calls: Sequence[Call]) -> Reduction: ...
