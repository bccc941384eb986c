"""Parts of the documentation that a program writes: what stands between two marks, and nothing else.

<!-- transitions: begin -->
...
<!-- transitions: end -->
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["read_block", "write_block"]


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"


def _parts(path: Path, name: str) -> tuple[str, str, str]:
    begin, end = _marks(name)
    text = path.read_text(encoding="utf-8")
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"{path} has no block between {begin.strip()} and {end.strip()}, or more than one")
    head, rest = text.split(begin)
    block, tail = rest.split(end)
    return head + begin, block, end + tail


def read_block(path: Path, name: str) -> str:
    """What stands between the marks of that name."""
    return _parts(path, name)[1]


def write_block(path: Path, name: str, block: str) -> None:
    """Put `block` between the marks of that name; the rest of the file stays as it is."""
    head, _, tail = _parts(path, name)
    path.write_text(head + block + tail, encoding="utf-8")
