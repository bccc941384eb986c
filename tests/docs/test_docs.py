"""The documentation is true where a machine can tell: links, code that can be read, sessions that come out as shown."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from scripts.check_docs import documents, faults

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = documents(ROOT)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def faults_of(text: str, folder: Path) -> list[str]:
    path = folder / "page.md"
    path.write_text(text)
    return list(faults(path, folder))


def test_the_documents_are_found() -> None:
    assert {"README.md", "CHANGELOG.md", "docs/README.md", "docs/concepts.md"} <= {named(path) for path in DOCUMENTS}


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_links_lead_somewhere_and_code_can_be_read(path: Path) -> None:
    assert list(faults(path, ROOT)) == []


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if ">>> " in path.read_text()], ids=named)
def test_sessions_come_out_as_shown(path: Path) -> None:
    done = doctest.testfile(str(path), module_relative=False)
    assert done.attempted > 0
    assert done.failed == 0


def test_every_document_is_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        text = page.read_text()
        waiting += [path for path in DOCUMENTS if path not in reached and _links_to(text, page, path)]
    assert sorted(named(path) for path in DOCUMENTS if path not in reached) == []


def _links_to(text: str, page: Path, goal: Path) -> bool:
    targets = (part.split(")")[0].split("#")[0] for part in text.split("](")[1:])
    return any(target and (page.parent / target).resolve() == goal for target in targets)


def test_a_broken_link_is_found_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# The *one* `heading`, here\n")
    text = (
        "[a](there.md) [b](there.md#the-one-heading-here) [c](https://example.com/x) `[d](nowhere.md)`\n"
        "```\n[e](nowhere.md)\n```\n"
        "[f](nowhere.md)\n[g](there.md#elsewhere)\n[h](#nothing)\n"
    )
    assert faults_of(text, tmp_path) == [
        "page.md:5: the link to nowhere.md leads nowhere",
        "page.md:6: the link to there.md#elsewhere leads to no heading",
        "page.md:7: the link to #nothing leads to no heading",
    ]


def test_python_that_cannot_be_read_is_found_with_its_line(tmp_path: Path) -> None:
    good = "```python\nawait node.send('x')\nasync for a in b: ...\n```\n```python\n>>> 1 +\\\n... 1\n2\n```\n"
    assert faults_of(good, tmp_path) == []
    for bad in ("```python\nx = = 1\n```\n", "  ```python\n  x = (\n  ```\n", "```python\n>>> x = = 1\n```\n"):
        (fault,) = faults_of("words\n" + bad, tmp_path)
        assert fault.startswith("page.md:3: this Python cannot be read")
