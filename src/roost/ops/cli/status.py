"""`roost status`: a node's own view of the cluster."""

from __future__ import annotations

import logging
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from roost.config import Settings
from roost.ops.cli._output import ExitCode, print_json
from roost.ops.client import connect
from roost.ops.loop import run
from roost.settings import load

__all__ = ["register"]

SECONDS = 5.0
WELL = ("up", "joining", "leaving", "left")
NOTHING = msgspec.msgpack.encode(None)


def register(app: typer.Typer) -> None:
    app.command()(status)


def status(
    address: Annotated[str | None, typer.Option(help="host:port of a node; else where one here would listen.")] = None,
    secret_file: Annotated[str | None, typer.Option(help="The file with the cluster's secret.")] = None,
    config: Annotated[str | None, typer.Option(help="The file to read instead of roost.toml.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show the members and services that a node sees.

    Exits with 4 if it is not settled, a member is down that has not come back by its name, or a service has lost
    something or may not act.
    """
    logging.getLogger("roost").addHandler(logging.NullHandler())  # what the link logs is in the error, in one line
    settings, _ = load(config, None, {"secret_file": secret_file})
    answer = run(_ask(address or settings.advertise or settings.bind, settings))
    if as_json:
        print_json(answer)
    else:
        _show(answer, Console())
    ill = any(share.get("possible_loss") or not share.get("acts", True) for share in answer["services"].values())
    if ill or not answer["settled"] or _missing(answer["members"]):
        raise typer.Exit(ExitCode.DEGRADED)


async def _ask(address: str, settings: Settings) -> dict[str, Any]:
    async with connect(address, settings) as client:
        answer = await client.call("roost.admin", "status", NOTHING, seconds=SECONDS)
    return msgspec.msgpack.decode(answer, type=dict[str, Any])


def _missing(members: list[dict[str, Any]]) -> list[str]:
    """Who is not well, but for old runs of names that are up again."""
    up = {member["name"] for member in members if member["state"] == "up"}
    return [member["name"] for member in members if member["state"] not in WELL and member["name"] not in up]


def _show(answer: dict[str, Any], console: Console) -> None:
    settled = "settled" if answer["settled"] else "not settled"
    console.print(Text(f"{answer['cluster']}, as {answer['node']} at {answer['address']} sees it: {settled}"))
    members = Table("member", "state", "address", "zone", "services")
    for member in answer["members"]:
        hosted = ", ".join(member["services"])
        cells = (member["name"], member["state"], member["address"], member["zone"], hosted)
        members.add_row(*map(Text, cells), style="" if member["state"] in WELL else "red")
    console.print(members)
    if answer["services"]:
        titles = ("held", "copies", "moving", "copying", "keys", "bytes")
        services = Table(f"on {answer['node']}", *titles)
        for column in services.columns[1:]:
            column.justify = "right"
        for name, share in answer["services"].items():
            figures = ("held", "copies", "moving", "copying", "items", "bytes")
            services.add_row(Text(name), *(f"{share.get(figure, 0):,}" for figure in figures))
        console.print(services)
        for name, share in answer["services"].items():
            for line in _remarks(share):
                console.print(Text(f"{name}: {line}"))


def _remarks(share: dict[str, Any]) -> list[str]:
    """What figures in a table do not make plain."""
    remarks = []
    if share.get("copy_bytes_left"):
        seconds = share["copy_seconds_left"]
        end = f", for about {seconds:,} s" if seconds is not None else ""
        remarks.append(
            f"{share['copy_bytes_left']:,} bytes are left to copy, at {share['copy_bytes_per_second']:,} a second{end}"
        )
    if share.get("advice"):
        remarks.append(share["advice"])
    if not share.get("acts", True):
        remarks.append("this side of a split may not act")
    if share.get("waiting"):
        remarks.append(f"{share['waiting']} partitions wait for nodes that have their copies to come back")
    if share.get("short"):
        remarks.append(f"{share['short']} partitions have too few copies for writes")
    if share.get("possible_loss"):
        count = len(share["possible_loss"])
        remarks.append(f"possible_loss: {count} partitions were taken over without enough of their copies")
    return remarks
