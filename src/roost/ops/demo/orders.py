"""What the demo tells its workers and what they answer: one JSON value a line, on standard input and output."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = [
    "Check",
    "Done",
    "Halt",
    "Leave",
    "Notice",
    "Order",
    "Progress",
    "Pulse",
    "Read",
    "Ready",
    "Report",
    "Search",
    "Status",
    "Store",
    "Up",
    "Write",
]


class _Order(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    number: int = 0
    """The answer bears it too."""


class Ready(_Order, frozen=True):
    """Answer once `count` members are up and settled."""

    count: int


class Store(_Order, frozen=True):
    """Store all modules, `in_flight` at a time."""

    in_flight: int


class Read(_Order, frozen=True):
    """Read and verify all modules and the counters, again and again, until `Halt`."""

    in_flight: int
    counters: int


class Write(_Order, frozen=True):
    """Count up the counters from `first` to `end`, each with one writer, until `Halt`."""

    first: int
    end: int
    pause_seconds: float


class Halt(_Order, frozen=True):
    """End `Read` (after a whole pass that begins now) or `Write`; they then give their own answers."""


class Check(_Order, frozen=True):
    """Verify the counters' last values, and how many keys there are."""

    counters: list[int]
    """The last acknowledged value of each, by number."""


class Search(_Order, frozen=True):
    """Find the modules that contain `text`, on all nodes, and compare with the disk."""

    text: str


class Status(_Order, frozen=True):
    """The node's status."""


class Pulse(_Order, frozen=True):
    """Of `Read` or `Write`, since the last such order: the longest time between two answers, repeated calls and why."""


class Notice(_Order, frozen=True):
    """Answer once the member `name` is down for this node, with when: by the clock that all processes here share."""

    name: str


class Leave(_Order, frozen=True):
    """Leave the cluster gracefully, and exit with 0."""


Order = Ready | Store | Read | Write | Halt | Check | Search | Status | Pulse | Notice | Leave


class Up(msgspec.Struct, frozen=True, tag=True):
    """First: the node is up, and has the library open."""

    address: str


class Progress(msgspec.Struct, frozen=True, tag=True):
    """An order is being carried out."""

    number: int
    done: int
    total: int
    passes: int = 0


class Done(msgspec.Struct, frozen=True, tag=True):
    """An order has been carried out; `error` says that it has not."""

    number: int
    result: dict[str, Any] = {}
    error: str = ""


Report = Up | Progress | Done
