"""The public face is typed to the last call: right code has exact types, and mistakes are found, by both checkers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
RIGHT = "tests/typing/cases/right.py"
WRONG = "tests/typing/cases/wrong.py"


def by_mypy(path: str) -> list[tuple[str, int, str]]:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context", path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert not done.stderr, done.stderr
    found = re.findall(r"^([^:\n]+):(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    return [(file, int(line), text) for file, line, text in found]


def by_pyright(path: str) -> list[tuple[str, int, str]]:
    # A file that its settings exclude is not even analysed when it is named, so the settings are those that lie here.
    command = [sys.executable, "-m", "pyright", "--outputjson", str(ROOT / path)]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=300)
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == 1, done.stdout
    return [
        (str(Path(found["file"]).relative_to(ROOT)), found["range"]["start"]["line"] + 1, found["message"])
        for found in report["generalDiagnostics"]
        if found["severity"] == "error"
    ]


CHECKERS = [pytest.param(by_mypy, id="mypy"), pytest.param(by_pyright, id="pyright")]


@pytest.mark.parametrize("check", CHECKERS)
def test_right_code_has_no_error(check: Callable[[str], list[tuple[str, int, str]]]) -> None:
    assert check(RIGHT) == []


@pytest.mark.parametrize("check", CHECKERS)
def test_each_mistake_is_found_and_nothing_else(check: Callable[[str], list[tuple[str, int, str]]]) -> None:
    lines = (ROOT / WRONG).read_text().splitlines()
    expected = {number for number, line in enumerate(lines, 1) if "# E " in line}
    assert len(expected) == 27
    found = check(WRONG)
    assert {line for file, line, _ in found} == expected, found
    assert {file for file, _, _ in found} == {WRONG}
