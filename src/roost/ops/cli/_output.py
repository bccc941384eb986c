"""What commands share: exit codes, JSON, and complaints of one line.

Texts of other nodes end up here, so what is printed of an error has nothing in it that a terminal would obey.
"""

from __future__ import annotations

import sys
from enum import IntEnum

import msgspec

from roost.errors import ConfigError, DeadlineExceeded, RoostError, Unreachable

__all__ = ["ExitCode", "complain", "exit_code_of", "print_json"]


class ExitCode(IntEnum):
    """What the shell is told."""

    FINE = 0
    FAILED = 1
    USAGE = 2
    """A wrong command line, or settings that cannot be."""
    UNREACHABLE = 3
    """No node answered."""
    DEGRADED = 4
    """The cluster answers, and is not as it should be."""


def exit_code_of(error: RoostError) -> ExitCode:
    match error:
        case ConfigError():
            return ExitCode.USAGE
        case Unreachable() | DeadlineExceeded():
            return ExitCode.UNREACHABLE
        case _:
            return ExitCode.FAILED


def complain(error: RoostError) -> None:
    """One line on stderr."""
    text = "".join(char if char.isprintable() else " " for char in str(error))
    print(f"roost: {text}", file=sys.stderr)


def print_json(value: object) -> None:
    """`value` on stdout, for programs."""
    print(msgspec.json.format(msgspec.json.encode(value)).decode())
