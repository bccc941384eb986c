"""`self.items`: the items of a partition as a typed mapping, whose writes count only if the command succeeds.

Reads decode anew each time, so that what a command does to a value it has read changes nothing until it is assigned.
Writes of the command that runs are kept aside, are seen by its own reads, and become items all at once at its end.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TypeVar

from roost.core.items import Change
from roost.core.tenure import Slot
from roost.services.keys import KeyCodec, ValueCodec

__all__ = ["PartitionItems"]

K = TypeVar("K")
V = TypeVar("V")


class PartitionItems(MutableMapping[K, V]):
    """The live items of one partition."""

    __slots__ = ("_keys", "_slot", "_values", "_written")

    def __init__(self, slot: Slot, keys: KeyCodec[K], values: ValueCodec[V]) -> None:
        self._slot = slot
        self._keys = keys
        self._values = values
        self._written: dict[bytes, bytes | None] = {}

    def __repr__(self) -> str:
        return f"<PartitionItems of partition {self._slot.partition}: {len(self)}>"

    def _data(self, key: bytes) -> bytes | None:
        return self._written[key] if key in self._written else self._slot.items.get(key)

    def __getitem__(self, key: K) -> V:
        data = self._data(self._keys.encode(key))
        if data is None:
            raise KeyError(key)
        return self._values.decode(data)

    def __contains__(self, key: object) -> bool:
        return self._data(self._keys.encode(key)) is not None  # type: ignore[arg-type]  # checked by encode

    def __setitem__(self, key: K, value: V) -> None:
        self._written[self._keys.encode(key)] = self._values.encode(value)

    def __delitem__(self, key: K) -> None:
        data = self._keys.encode(key)
        if self._data(data) is None:
            raise KeyError(key)
        self._written[data] = None

    def _live(self) -> Iterator[tuple[bytes, bytes]]:
        written = self._written
        for item in list(self._slot.items.items.values()):
            if item.value is not None and item.key not in written:
                yield item.key, item.value
        for key, value in list(written.items()):
            if value is not None:
                yield key, value

    def __iter__(self) -> Iterator[K]:
        for key, _ in self._live():
            yield self._keys.decode(key)

    def __len__(self) -> int:
        items = self._slot.items
        return items.live + sum(
            (value is not None) - (items.get(key) is not None) for key, value in self._written.items()
        )

    def pairs(self) -> Iterator[tuple[K, V]]:
        """As `items()`, without encoding each key again."""
        for key, value in self._live():
            yield self._keys.decode(key), self._values.decode(value)

    def take_written(self) -> list[Change]:
        """What the command wrote; forgets it."""
        written = list(self._written.items())
        self._written = {}
        return written
