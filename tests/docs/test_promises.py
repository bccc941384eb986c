"""What the pages on consistency and troubles say is shown by a test, is: the test stands where the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "docs" / name for name in ("consistency.md", "troubles.md")]
NAMED = re.compile(r"\[`(test_\w+)`\]\(([^)]+)\)")


def defined_in(path: Path) -> set[str]:
    return set(re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE))


def rows(page: Path) -> list[str]:
    """The rows of tables whose last column says by what they are shown."""
    found: list[str] = []
    shown = False
    for line in page.read_text(encoding="utf-8").splitlines():
        shown = line.startswith("|") and (shown or line.endswith("| shown by |"))
        if shown:
            found.append(line)
    return [row for row in found if not row.endswith("| shown by |") and not row.startswith("|---")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_test_that_a_page_names_is_in_the_file_that_it_links_to(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = NAMED.findall(text)
    assert len(named) > 10
    assert [(name, file) for name, file in named if name not in defined_in((page.parent / file).resolve())] == []
    assert set(re.findall(r"`(test_\w+)`", text)) == {name for name, _ in named}, "named without a link"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_promise_names_a_test(page: Path) -> None:
    assert len(rows(page)) > 10
    assert [row for row in rows(page) if not NAMED.search(row.rsplit(" | ", 1)[1])] == []
