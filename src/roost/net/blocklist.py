"""The names of peers that a node shall be cut off from, to see how an application takes it.

It belongs to the node and outlives its runs; whatever runs now hears of each change and cuts or mends at once. What
holds back messages is in `peers.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableSet
from typing import Any

__all__ = ["Blocklist"]


class Blocklist(MutableSet[str]):
    """A set of names. A pid is as good as the name it stands for."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}  # in order, so that a simulated run is the same every time
        self._changed: Callable[[str, bool], None] | None = None

    def __repr__(self) -> str:
        return f"<Blocklist: {', '.join(self._names) or 'empty'}>"

    def __contains__(self, name: object) -> bool:
        return name in self._names or (isinstance(name, int) and str(name) in self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> set[Any]:
        """What `|`, `&` and `-` make of it is a set like any other."""
        return set(it)

    def add(self, value: str | int) -> None:
        """Cut every link with the peer of that name, and keep it cut off."""
        name = str(value)
        if name not in self._names:
            self._names[name] = None
            if self._changed is not None:
                self._changed(name, True)

    def discard(self, value: str | int) -> None:
        """Let the peer be found again."""
        name = str(value)
        if name in self._names:
            del self._names[name]
            if self._changed is not None:
                self._changed(name, False)

    def tell(self, changed: Callable[[str, bool], None] | None) -> None:
        """Call `changed` with the name and whether it is blocked now, from now on; None: nobody runs."""
        self._changed = changed
