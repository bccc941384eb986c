"""`roost secret new`: what all nodes of a cluster must know, and nobody else."""

from __future__ import annotations

from typing import Annotated

import typer

from roost.net.keyring import new_secret
from roost.ops.cli._files import write_new

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    group = typer.Typer(name="secret", no_args_is_help=True, help="The secret that nodes know each other by.")
    group.command()(new)
    group.callback()(_secret)
    app.add_typer(group)


def _secret() -> None:
    """Keeps `new` a subcommand: an application of one command has none."""


def new(
    out: Annotated[str | None, typer.Option(help="A file to write it to; it must not exist yet.")] = None,
) -> None:
    """Make a secret of 256 random bits. Without --out it is printed."""
    if out is None:
        typer.echo(new_secret())
        return
    write_new({out: f"{new_secret()}\n".encode()}, mode=0o600)
    typer.echo(f"{out} has a new secret; copy it to every node and name it there: secret_file = ...")
