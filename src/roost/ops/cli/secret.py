"""`roost secret new`: what all nodes of a cluster must know, and nobody else."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from roost.errors import RoostError
from roost.net.keyring import new_secret

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
    _write(out, new_secret())
    typer.echo(f"{out} has a new secret; copy it to every node and name it there: secret_file = ...")


def _write(path: str, secret: str) -> None:
    """A new file that only its owner may read; one that exists is never touched."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise RoostError(f"{path} exists already, and stays as it is: remove it first or name another file") from error
    except OSError as error:
        raise RoostError(f"{path} cannot be made: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "w") as stream:
            os.fchmod(descriptor, 0o600)  # an unusual umask may have taken even the owner's rights
            stream.write(f"{secret}\n")
            stream.flush()
            os.fsync(descriptor)
    except OSError as error:
        os.unlink(path)
        raise RoostError(f"{path} cannot be written: {error.strerror}") from error
