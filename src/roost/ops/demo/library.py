"""The input: every module file of the running interpreter's standard library, and the store that it goes into."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from pathlib import Path
from typing import NamedTuple

import msgspec

from roost.services.kv import KeyValuePartition

__all__ = ["Input", "Library", "Module", "faults", "make_module", "read_library"]

FOREIGN = frozenset({"site-packages", "dist-packages", "__pycache__"})
"""Directories inside the standard library's that are no part of it."""


class Module(msgspec.Struct, frozen=True):
    """A module file."""

    path: str
    """Relative to the standard library, with slashes."""
    bytes: int
    lines: int
    sha256: str
    text: str


class Library(KeyValuePartition[str, Module]):
    """A store of modules that can be searched where they are."""

    async def search(self, text: str) -> list[str]:
        """The paths of this partition's modules that contain `text`."""
        return [module.path for module in self.items.values() if text in module.text]


class Input(NamedTuple):
    """What was read from the disk."""

    modules: dict[str, Module]
    """By path."""
    skipped: int
    """Files that cannot be read or are no UTF-8."""


def make_module(path: str, text: str) -> Module:
    """A module of that text."""
    data = text.encode()
    return Module(path, len(data), text.count("\n"), hashlib.sha256(data).hexdigest(), text)


def faults(found: Module | None, expected: Module) -> str:
    """What is wrong with what was found, in words; empty if nothing is. The hash is computed from the text anew."""
    if found is None:
        return f"{expected.path} is missing"
    if make_module(found.path, found.text) != found:
        return f"{expected.path} does not fit its own hash and counts"
    if found != expected:
        return f"{expected.path} is not what was stored"
    return ""


def read_library() -> Input:
    """Read all of it, in order of the paths."""
    root = Path(sysconfig.get_path("stdlib"))
    modules: dict[str, Module] = {}
    skipped = 0
    for directory, below, files in os.walk(root):
        below[:] = sorted(name for name in below if name not in FOREIGN)
        for name in sorted(files):
            if not name.endswith(".py"):
                continue
            file = Path(directory, name)
            try:
                text = file.read_bytes().decode()
            except (OSError, UnicodeDecodeError):
                skipped += 1
                continue
            path = file.relative_to(root).as_posix()
            modules[path] = make_module(path, text)
    return Input(modules, skipped)
