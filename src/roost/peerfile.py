"""Peer files: the nodes of a cluster, each with its pid and its address, as JSON.

    {"Pid": 1729, "Addr": "10.0.0.4:7400"}
    {"Pid": 3456543, "Addr": "10.0.0.5:7400"}

The objects stand one after the other, one a line or however they are laid out, or in an array. Every error says in
which line it is and what to do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from roost.address import parse_address
from roost.errors import ConfigError

__all__ = ["Listed", "read_peers"]

PID_MAX = 2**63 - 1
EXAMPLE = 'an entry looks like {"Pid": 1729, "Addr": "10.0.0.4:7400"}'


class Listed(msgspec.Struct, frozen=True):
    """One entry. `where` is file:line."""

    pid: int
    address: str
    where: str


def read_peers(path: str, pid: int) -> tuple[Listed, list[Listed]]:
    """The entry of `pid` and all others, in the file's order. Raises ConfigError if anything in the file is wrong."""
    by_pid: dict[int, Listed] = {}
    by_address: dict[str, Listed] = {}
    for peer in _entries(path):
        twin = by_pid.setdefault(peer.pid, peer)
        if twin is not peer:
            todo = "give every node a pid of its own"
            raise ConfigError(f"pid {peer.pid} is that of {twin.where} already", where=peer.where, todo=todo)
        twin = by_address.setdefault(peer.address, peer)
        if twin is not peer:
            todo = "give every node an address of its own"
            raise ConfigError(f"{peer.address} is the address of {twin.where} already", where=peer.where, todo=todo)
    own = by_pid.pop(pid, None) if type(pid) is int else None
    if own is None:
        known = ", ".join(map(str, by_pid)) or "none"
        raise ConfigError(f"there is no pid {pid!r}; it has: {known}", where=path, todo="choose one of them or add it")
    return own, list(by_pid.values())


def _entries(path: str) -> Iterator[Listed]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        what = f"cannot read {path}: {error.strerror or error}"
        raise ConfigError(what, where="argument", todo="name a file that exists and is readable") from error
    except UnicodeDecodeError as error:
        raise ConfigError("is no UTF-8 text", where=path, todo="save it as UTF-8") from error
    for entry, position in _values(text, path):
        yield _listed(entry, _line(path, text, position))


def _values(text: str, path: str) -> Iterator[tuple[Any, int]]:
    """Each JSON value of the file, those of an array one by one, and where it begins."""
    decoder = json.JSONDecoder(object_pairs_hook=_without_twins)
    position = _after_space(text, 0)
    in_array = text.startswith("[", position)
    try:
        if in_array:
            position = _after_space(text, position + 1)
        while position < len(text) and not (in_array and text[position] == "]"):
            value, end = decoder.raw_decode(text, position)
            yield value, position
            position = _after_space(text, end)
            if in_array and not text.startswith("]", position):
                if not text.startswith(",", position):
                    raise json.JSONDecodeError("Expecting ',' or ']'", text, position)
                position = _after_space(text, position + 1)
                if text.startswith("]", position):
                    raise json.JSONDecodeError("Expecting another entry after ','", text, position)
        if in_array and _after_space(text, position + 1) < len(text):
            raise json.JSONDecodeError("Extra data after the array", text, _after_space(text, position + 1))
        if in_array and position >= len(text):
            raise json.JSONDecodeError("Expecting ']'", text, len(text))
    except json.JSONDecodeError as error:
        raise ConfigError(f"is no JSON: {error.msg}", where=f"{path}:{error.lineno}", todo=EXAMPLE) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, arrays in arrays in arrays
        raise ConfigError(f"is no peer file: {error}", where=_line(path, text, position), todo=EXAMPLE) from error


def _line(path: str, text: str, position: int) -> str:
    return f"{path}:{text.count(chr(10), 0, position) + 1}"


def _after_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object with one key twice is kept as it is, for `_listed` to refuse: it would lose one value silently."""
    keys = [key for key, _ in pairs]
    twins = {key: None for key in keys if keys.count(key) > 1}
    return {**dict(pairs), **{f"{key} twice": None for key in twins}}


def _listed(entry: Any, where: str) -> Listed:
    if not isinstance(entry, dict):
        raise ConfigError(f"{str(entry)[:100]!r} is no object", where=where, todo=EXAMPLE)
    for key in entry:
        if key not in ("Pid", "Addr"):
            raise ConfigError(f"there is no key {key[:100]!r} in an entry", where=where, todo=EXAMPLE)
    for key in ("Pid", "Addr"):
        if key not in entry:
            raise ConfigError(f"the entry has no {key}", where=where, todo=EXAMPLE)
    pid, address = entry["Pid"], entry["Addr"]
    if type(pid) is not int or not 0 <= pid <= PID_MAX:
        raise ConfigError(f"Pid must be a whole number from 0 to 2**63 - 1, not {str(pid)[:100]}", where=where)
    if not isinstance(address, str):
        raise ConfigError(f"Addr must be a text, not {str(address)[:100]}", where=where, todo=EXAMPLE)
    try:
        _, port = parse_address(address)
    except ConfigError as error:
        raise ConfigError(f"Addr: {error.what}", where=where, todo=error.todo) from error
    if port == 0:
        raise ConfigError(f"nobody can connect to port 0 of {address}", where=where, todo="choose a port")
    return Listed(pid, address, where)
