"""`roost demo`: a cluster that keeps real data while nodes join, leave and are killed, here, in under a minute."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Annotated

import typer
from rich.console import Console

from roost.ops.cli._output import ExitCode
from roost.ops.demo.processes import DemoFailed
from roost.ops.demo.screen import LiveScreen, PlainScreen
from roost.ops.demo.show import show
from roost.ops.loop import run

__all__ = ["register"]

CHECK_SECONDS = 58.0
FAULTS_SHOWN = 20


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    check: Annotated[
        bool, typer.Option("--check", help="No terminal: plain lines, under a minute, exit code 1 on any difference.")
    ] = False,
) -> None:
    """Start a cluster here, keep Python's standard library in it, verify it while nodes join, leave and are killed."""
    console = Console()
    screen = PlainScreen() if check or not console.is_terminal else LiveScreen(console)
    try:
        outcome = run(show(screen, CHECK_SECONDS) if check else show(screen))
    except DemoFailed as error:
        for note in getattr(error, "__notes__", ()):
            print(note, file=sys.stderr)
        raise
    except asyncio.CancelledError:
        raise typer.Exit(128 + signal.SIGTERM) from None
    screen.table(f"The demo took {outcome.seconds:.1f} s", outcome.rows())
    for fault in outcome.faults[:FAULTS_SHOWN]:
        print(fault, file=sys.stderr)
    if outcome.wrong:
        raise typer.Exit(ExitCode.FAILED)
