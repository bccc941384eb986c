"""The quickstart of the README is the example, and the example does what it says."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "quickstart.py"
SECONDS = 60
OF_A_SLOW_MACHINE = re.compile("the event loop (has been blocked|goes on)|the process stood still")


def free_ports(count: int) -> list[str]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [str(each.getsockname()[1]) for each in sockets]


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The example, on ports that nobody else has."""
    text = EXAMPLE.read_text()
    for written, free in zip(("7401", "7402"), free_ports(2), strict=True):
        text = text.replace(written, free)
    copy = tmp_path / "quickstart.py"
    copy.write_text(text)
    return copy


@pytest.fixture
def one(example: Path) -> Iterator[subprocess.Popen[str]]:
    """The first node, running."""
    command = [sys.executable, "-u", str(example), "one"]
    with (
        (example.parent / "one.log").open("w") as log,  # where a slow machine makes the watchdog speak
        subprocess.Popen(command, cwd=example.parent, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def test_the_readme_shows_the_example() -> None:
    code = EXAMPLE.read_text().split('"""\n', 1)[1].strip()
    assert f"```python\n{code}\n```" in (ROOT / "README.md").read_text()


def test_the_example_does_what_it_says(example: Path, one: subprocess.Popen[str]) -> None:
    assert one.stdout is not None
    assert one.stdout.readline() == "one is up, now start two\n"
    two = subprocess.run(
        [sys.executable, example, "two"],
        cwd=example.parent,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert [line for line in two.stderr.splitlines() if not OF_A_SLOW_MACHINE.search(line)] == []
    lines = two.stdout.splitlines()
    assert lines[0] == "Hello Ann, this is one; you write from two."
    assert sorted(lines[1:]) == ["France Paris", "Iceland Reykjavik"]
    out, _ = one.communicate(timeout=SECONDS)
    assert "one is the last to host kv:capitals: 2 keys end with it\n" in (example.parent / "one.log").read_text()
    assert one.returncode == 0
    assert "two took and gave back: Reykjavik\n" in out
