"""The `roost` command.

Every module of this package whose name has no leading underscore is a group of commands: its `register(app)` adds them
to the application, and nothing here knows them. A command raises a `RoostError` for what went wrong; `main` makes of it
one line on stderr and an exit code, and no traceback. Anything else that is raised is a fault of roost's, and shows as
one.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from roost.errors import RoostError
from roost.ops.cli._output import complain, exit_code_of
from roost.version import VERSION

__all__ = ["build", "main"]


def build() -> typer.Typer:
    """The application with every command in it."""
    app = typer.Typer(name="roost", no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(_roost)
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{__name__}.{module.name}").register(app)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 fine, 1 failed, 2 wrong usage or settings, 3 unreachable, 4 degraded."""
    try:
        build()(args=arguments, prog_name="roost")
    except RoostError as error:
        complain(error)
        sys.exit(exit_code_of(error))


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"roost {VERSION}")
        raise typer.Exit


def _roost(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Live state across processes and machines, by name."""
