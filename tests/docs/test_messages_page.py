"""The program on the page about messages does what the page says. (Its session is run with those of all pages.)"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.acceptance.clusters import free_ports

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "messages.md").read_text()
SECONDS = 60


def block(kind: str, opening: str) -> str:
    """The block of that kind that begins so."""
    (found,) = [text for text in re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL) if text.startswith(opening)]
    return str(found)


def test_the_program_with_the_peer_file_prints_what_is_shown(tmp_path: Path) -> None:
    peers = block("json", "{")
    written = re.findall(r":(\d+)\"", peers)
    assert len(written) == 3
    for port, free in zip(written, free_ports(3), strict=True):
        peers = peers.replace(port, str(free))
    (tmp_path / "conf.json").write_text(peers)
    (tmp_path / "program.py").write_text(block("python", "import asyncio\n"))
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert (done.stdout, done.stderr) == (block("text", "1729 has"), "")
