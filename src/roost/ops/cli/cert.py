"""`roost cert ca` and `roost cert issue`: certificates for the nodes of a cluster, for those who have no CA."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import typer

from roost.core.gossip import NAME, NAME_CHARS_MAX
from roost.errors import RoostError
from roost.net.trusted_file import SEEN_BY_OTHERS, WRITTEN_BY_OTHERS, read_trusted
from roost.ops.authority import host_of, issue, new_authority
from roost.ops.cli._files import write_new

__all__ = ["register"]

CA_CERTIFICATE = "ca.pem"
CA_KEY = "ca.key"


def register(app: typer.Typer) -> None:
    group = typer.Typer(name="cert", no_args_is_help=True, help="Certificates that nodes know each other by.")
    group.command(name="ca")(make_ca)
    group.command(name="issue")(make_certificate)
    app.add_typer(group)


def make_ca(
    out: Annotated[str, typer.Option(help="The directory for ca.pem and ca.key.")] = ".",
    cluster: Annotated[str, typer.Option(help="What the CA is for; shown to people.")] = "roost",
    days: Annotated[int, typer.Option(min=1, max=36_500, help="How long it is valid.")] = 3650,
) -> None:
    """Make a CA for one cluster. Whoever has its key makes members; nodes do not need it."""
    made = new_authority(cluster, days=days, now=datetime.datetime.now(datetime.UTC))
    certificate, key = Path(out, CA_CERTIFICATE), Path(out, CA_KEY)
    write_new({str(certificate): made.certificate, str(key): made.key}, mode=0o600)
    typer.echo(f"{certificate} goes to every node (tls_ca_file); {key} stays with you, off the nodes")
    typer.echo(f"valid until {made.until:%Y-%m-%d}; next: roost cert issue NAME --ca {out}")


def make_certificate(
    name: Annotated[str, typer.Argument(help="The node's name; of host:port the host counts.")],
    ca: Annotated[str, typer.Option(help="The directory of ca.pem and ca.key.")] = ".",
    out: Annotated[str, typer.Option(help="The directory for NAME.pem and NAME.key.")] = ".",
    also: Annotated[list[str] | None, typer.Option(help="Another name or address it is for. Repeatable.")] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long it is valid.")] = 365,
) -> None:
    """Make a key and a certificate for one node."""
    names = list(dict.fromkeys(host_of(each) for each in (name, *(also or ()))))
    for each in names:
        if not NAME.fullmatch(each):
            raise RoostError(f"a name has 1 to {NAME_CHARS_MAX} letters, digits and _ . : @ [ ] -, not {each[:200]!r}")
    made = issue(names, _authority(ca), days=days, now=datetime.datetime.now(datetime.UTC))
    certificate, key = Path(out, f"{host_of(name)}.pem"), Path(out, f"{host_of(name)}.key")
    write_new({str(certificate): made.certificate, str(key): made.key}, mode=0o600)
    typer.echo(f"{certificate} (tls_cert_file) and {key} (tls_key_file) go to {name}, with {Path(ca, CA_CERTIFICATE)}")
    typer.echo(f"for {', '.join(names)}; valid until {made.until:%Y-%m-%d}")


def _authority(directory: str) -> tuple[bytes, bytes]:
    certificate, key = str(Path(directory, CA_CERTIFICATE)), str(Path(directory, CA_KEY))
    return _read(certificate, WRITTEN_BY_OTHERS), _read(key, SEEN_BY_OTHERS)


def _read(path: str, forbidden: int) -> bytes:
    advice = "make one with `roost cert ca`, or name its directory with --ca"
    return read_trusted(path, where=path, forbidden=forbidden, todo=advice, missing_todo=advice)
