"""Tests that stand in the documentation, run as their reader would run them: by pytest, with the package's fixture."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/concepts.md", "docs/partitions.md", "docs/testing.md")
SECONDS = 120
TEST = re.compile(r"^(?:async )?def test_", re.MULTILINE)


def module(page: str) -> str:
    """All blocks from the first one with a test on: later ones use what earlier ones define."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    first = next(number for number, block in enumerate(blocks) if TEST.search(block))
    assert all(TEST.search(block) for block in blocks[first:]), "a block without a test"
    return "\n\n".join(blocks[first:])


@pytest.mark.parametrize("page", PAGES)
def test_the_tests_in_the_documentation_pass(page: str, tmp_path: Path) -> None:
    text = module(page)
    (tmp_path / "test_shown.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir=.", "test_shown.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(TEST.findall(text))} passed" in done.stdout
