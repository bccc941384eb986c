"""Check the documentation: every relative link leads somewhere, and every block of Python can be read.

    python scripts/check_docs.py

Prints `file:line: what is wrong`, a line each, and exits with 1 if there is any. A link to a heading (`#placement`) is
checked against the headings of the file that it leads to, by GitHub's rule for their names. Code may await at its top
level, as in the REPL of `python -m asyncio`.
"""

from __future__ import annotations

import ast
import doctest
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

__all__ = ["documents", "faults", "main"]

_FENCE = re.compile(r"^([ \t]*)(```+|~~~+)[ \t]*(\w*)")
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$")
_CODE = re.compile(r"(`+)(?:(?!\1).)+\1")


def documents(root: Path) -> list[Path]:
    """The Markdown files that belong to the project."""
    return sorted([*root.glob("*.md"), *(root / "docs").rglob("*.md"), *(root / "examples").rglob("*.md")])


def faults(path: Path, root: Path) -> Iterator[str]:
    """What is wrong in one document."""
    text = path.read_text(encoding="utf-8")
    shown = path.relative_to(root)
    prose, blocks = _parts(text)
    for number, line in prose:
        for target in _LINK.findall(_CODE.sub("", line)):
            if wrong := _broken(target, path):
                yield f"{shown}:{number}: {wrong}"
    for number, language, block in blocks:
        if language in ("python", "py") and (wrong := _unreadable(block)):
            yield f"{shown}:{number}: {wrong}"


def _parts(text: str) -> tuple[list[tuple[int, str]], list[tuple[int, str, str]]]:
    """Numbered lines of prose, and blocks of code with the number of their first line and their language."""
    prose: list[tuple[int, str]] = []
    blocks: list[tuple[int, str, str]] = []
    fence, language, start, body = "", "", 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        match = _FENCE.match(line)
        if fence:
            if match and match[2].startswith(fence) and line.strip() == match[2]:
                blocks.append((start, language, textwrap.dedent("\n".join(body)) + "\n"))
                fence = ""
            else:
                body.append(line)
        elif match:
            fence, language, start, body = match[2], match[3].lower(), number + 1, []
        else:
            prose.append((number, line))
    if fence:
        blocks.append((start, language, "\n".join(body)))
    return prose, blocks


def _broken(target: str, path: Path) -> str:
    if re.match(r"[a-z][a-z0-9+.-]*:", target, re.IGNORECASE):
        return ""
    name, _, anchor = target.partition("#")
    goal = (path.parent / name).resolve() if name else path
    if not goal.exists():
        return f"the link to {target} leads nowhere"
    if anchor and goal.suffix == ".md" and anchor not in _anchors(goal.read_text(encoding="utf-8")):
        return f"the link to {target} leads to no heading"
    return ""


def _anchors(text: str) -> set[str]:
    headings = (match[1] for _, line in _parts(text)[0] if (match := _HEADING.match(line)))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _unreadable(block: str) -> str:
    """What keeps Python from reading a block, or, of a session with prompts, what was typed in it."""
    try:
        if block.lstrip().startswith(">>>"):
            for example in doctest.DocTestParser().get_examples(block):
                ast.parse(example.source)
        else:
            ast.parse(block)
    except (SyntaxError, ValueError) as error:
        return f"this Python cannot be read: {error}"
    return ""


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    found = [fault for path in documents(root) for fault in faults(path, root)]
    for fault in found:
        print(fault)
    print(f"{len(documents(root))} documents, {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
