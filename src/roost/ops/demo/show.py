"""The demo as a whole: a folder for it, a time limit, and an end that leaves nothing behind, whatever happened."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from pathlib import Path

from roost.net.keyring import new_secret
from roost.ops.demo.processes import LOG_LINES_SHOWN, DemoFailed
from roost.ops.demo.screen import Screen
from roost.ops.demo.story import REPLICAS, Outcome, play
from roost.settings import FILE

__all__ = ["show"]

SECONDS_MAX = 120.0
"""However slow the machine is, the demo ends by then."""

SETTINGS = """\
cluster = "roost-demo"
bind = "127.0.0.1:0"
secret_file = {secret_file}
profile = "local"
"""


async def show(screen: Screen, seconds_max: float = SECONDS_MAX, replicas: int = REPLICAS) -> Outcome:
    """Run the demo. Raises DemoFailed if it cannot be carried to its end, with the ends of the nodes' logs as notes."""
    loop = asyncio.get_running_loop()
    mine = asyncio.current_task()
    assert mine is not None
    loop.add_signal_handler(signal.SIGTERM, mine.cancel)
    try:
        with tempfile.TemporaryDirectory(prefix="roost-demo-") as name:
            folder = Path(name)
            _prepare(folder)
            try:
                async with asyncio.timeout(seconds_max):
                    with screen:
                        outcome = await play(folder, screen, replicas)
            except TimeoutError as error:
                raise _explained(DemoFailed(f"it took longer than {seconds_max:g} s"), folder) from error
            except DemoFailed as error:
                raise _explained(error, folder) from error.__cause__
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
    return outcome


def _prepare(folder: Path) -> None:
    """The folder itself is of mode 0700 already."""
    secret = folder / "secret"
    secret.touch(mode=0o600)
    secret.write_text(new_secret() + "\n")
    (folder / FILE).write_text(SETTINGS.format(secret_file=f"'{secret}'"))


def _explained(error: DemoFailed, folder: Path) -> DemoFailed:
    for log in sorted(folder.glob("*.log")):
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        error.add_note("\n".join([f"--- the end of the log of node {log.stem}", *lines]))
    return error
