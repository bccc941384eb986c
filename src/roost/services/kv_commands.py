"""The key/value store at the holder of a partition: commands that never wait, and questions about many partitions.

Values travel as bytes that the holder does not look into. An answer about one key is an empty array, or an array of one
value, so that a stored None is not a missing one.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from roost.core.items import OUTCOME
from roost.errors import ProtocolError
from roost.services.commands import Command
from roost.services.host import Answer, NotHere
from roost.services.hosting import Hosting, Quick, Whole
from roost.services.keys import KeyCodec
from roost.services.lanes import Lane

__all__ = [
    "ABSENT",
    "MISSING",
    "READS",
    "REQUEST_BYTES",
    "TRUE",
    "Many",
    "ManyAnswer",
    "Scan",
    "Scanned",
    "Swap",
    "Swapped",
    "commands",
    "questions",
]

MISSING = b"\x90"
FOUND = b"\x91"
TRUE, FALSE, NOTHING = b"\xc3", b"\xc2", b"\xc0"
ABSENT = (0, 0)
"""The version of a key that is not there."""
REQUEST_BYTES = 16
ANSWER_BYTES_SPARE = 16
"""What an answer among many takes besides the value, at most."""
SCAN_BYTES = 256 * 1024
_encode = msgspec.msgpack.Encoder().encode


class Many(msgspec.Struct, array_like=True, gc=False):
    """Commands for many keys of one node."""

    method: str
    commands: list[Command]


class ManyAnswer(msgspec.Struct, array_like=True, gc=False):
    """(position in the question, answer) of those that ran."""

    answers: list[tuple[int, msgspec.Raw]]


class Scan(msgspec.Struct, array_like=True, gc=False):
    """Live items of these partitions, each after a key (empty: from its start)."""

    positions: list[tuple[int, bytes]]
    prefix: msgspec.Raw


class Scanned(msgspec.Struct, array_like=True, gc=False):
    """Items, and how far each partition is; those that are done, and (partition, epoch, holder) of those elsewhere."""

    items: list[tuple[bytes, msgspec.Raw]]
    positions: list[tuple[int, bytes]]
    done: list[int]
    elsewhere: list[tuple[int, int, int]]


class Swap(msgspec.Struct, array_like=True, gc=False):
    """Write this value if the key has that version. The `request` has at most one effect, however often it is made."""

    request: bytes
    version: tuple[int, int]
    value: msgspec.Raw


class Swapped(msgspec.Struct, array_like=True, gc=False):
    """Done or not; the key's version now, and its value if it was not done."""

    done: bool
    version: tuple[int, int]
    value: bytes | None


_decode_many = msgspec.msgpack.Decoder(Many).decode
_decode_scan = msgspec.msgpack.Decoder(Scan).decode
_decode_swap = msgspec.msgpack.Decoder(Swap).decode

READS = frozenset({"kv.get", "kv.entry", "kv.copy"})


def commands(hosting: Hosting) -> dict[str, Quick]:
    """What is done with one key."""
    commit = hosting.commit

    def get(lane: Lane, command: Command) -> bytes:
        item = lane.slot.items.items.get(command.key)
        return MISSING if item is None or item.value is None else FOUND + item.value

    def put(lane: Lane, command: Command) -> bytes:
        commit(lane, [(command.key, bytes(command.argument))])
        return NOTHING

    def delete(lane: Lane, command: Command) -> bytes:
        existed = lane.slot.items.get(command.key) is not None
        if existed:
            commit(lane, [(command.key, None)])
        return TRUE if existed else FALSE

    def entry(lane: Lane, command: Command) -> bytes:
        return _encode(_entry(lane, command.key, False))

    def swap(lane: Lane, command: Command) -> bytes:
        wanted = _decode_swap(command.argument)
        if len(wanted.request) != REQUEST_BYTES:
            raise ProtocolError(f"a request's id has {REQUEST_BYTES} bytes, not {len(wanted.request)}")
        outcome = bytes((OUTCOME,)) + wanted.request
        before = lane.slot.items.items.get(outcome)
        if before is not None:
            return _encode(Swapped(True, before.version, None))
        found = _entry(lane, command.key, False)
        if found.version != wanted.version:
            return _encode(found)
        commit(lane, [(command.key, bytes(wanted.value)), (outcome, NOTHING)])  # under one version
        return _encode(_entry(lane, command.key, True))

    return {"kv.get": get, "kv.put": put, "kv.delete": delete, "kv.entry": entry, "kv.swap": swap}


def _entry(lane: Lane, key: bytes, done: bool) -> Swapped:
    item = lane.slot.items.items.get(key)
    if item is None or item.value is None:
        return Swapped(done, ABSENT, None)
    return Swapped(done, item.version, None if done else item.value)


def questions(keys: KeyCodec[Any], quick: dict[str, Quick]) -> dict[str, Whole]:
    """What is asked about many keys of a node."""
    return {
        "kv.many": lambda hosting, body, until: _many(quick, hosting, body, until),
        "kv.copy": lambda hosting, body, until: _copy(hosting, body),
        "kv.size": lambda hosting, body, until: _size(hosting, body),
        "kv.scan": lambda hosting, body, until: _scan(keys, hosting, body),
    }


def _many(quick: dict[str, Quick], hosting: Hosting, body: msgspec.Raw, until: float) -> Answer:
    many = _decode_many(body)
    if many.method not in ("kv.get", "kv.put"):
        raise ProtocolError(f"{many.method} is no command for many keys")
    command_of = quick[many.method]
    reads = many.method in READS
    answers: list[tuple[int, msgspec.Raw]] = []
    waits: dict[int, Lane] = {}
    size, limit = 0, hosting.host.settings.message_bytes_max
    for position, command in enumerate(many.commands):
        lane = hosting.lane_of(command.partition)
        free = lane.free_to_read if reads else lane.free
        if free and hosting.rights.elsewhere(command.partition, command.epoch) is None:
            answer = command_of(lane, command)
            size += len(answer) + ANSWER_BYTES_SPARE
            if size > limit and reads:
                break  # a read may be asked for again
            answers.append((position, msgspec.Raw(answer)))
            if lane.slot.acked != lane.slot.written:
                waits[command.partition] = lane
    packed = _encode(ManyAnswer(answers))
    return _when_acknowledged(packed, list(waits.values()), until) if waits else packed


async def _when_acknowledged(answer: bytes, lanes: list[Lane], until: float) -> bytes:
    await asyncio.gather(*[woken for lane in lanes if (woken := lane.acknowledged(until)) is not None])
    return answer


def _copy(hosting: Hosting, body: msgspec.Raw) -> bytes:
    """A read of any copy: what it has, whether or not that is acknowledged."""
    command = msgspec.msgpack.decode(body, type=Command)
    slot = hosting.lane_of(command.partition).slot
    if not hosting.rights.may_read(command.partition):
        raise NotHere(slot.right.epoch, slot.right.holder)
    item = slot.items.items.get(command.key)
    return MISSING if item is None or item.value is None else FOUND + item.value


def _size(hosting: Hosting, body: msgspec.Raw) -> bytes:
    counts: list[tuple[int, int]] = []
    elsewhere: list[tuple[int, int, int]] = []
    for partition in msgspec.msgpack.decode(body, type=list[int]):
        lane = hosting.lane_of(partition)
        if lane.slot.executes:
            counts.append((partition, lane.slot.items.live))
        else:
            elsewhere.append(_where(hosting, partition))
    return _encode((counts, elsewhere))


def _where(hosting: Hosting, partition: int) -> tuple[int, int, int]:
    right = hosting.rights.elsewhere(partition, 0) or hosting.rights.slots[partition].right
    return (partition, right.epoch, right.holder)


def _scan(keys: KeyCodec[Any], hosting: Hosting, body: msgspec.Raw) -> bytes:
    scan = _decode_scan(body)
    prefix = msgspec.msgpack.decode(scan.prefix)
    answer = Scanned([], [], [], [])
    size = 0
    for partition, start in scan.positions:
        slot = hosting.lane_of(partition).slot
        if not slot.executes:
            answer.elsewhere.append(_where(hosting, partition))
            continue
        items, after = slot.items.items, start
        for key in sorted(key for key in items if key > start and key[0] != OUTCOME):
            value = items[key].value
            if value is None or (prefix is not None and not _begins(keys.decode(key), prefix)):
                continue
            if size >= SCAN_BYTES:
                answer.positions.append((partition, after))
                break
            answer.items.append((key, msgspec.Raw(value)))
            size += len(key) + len(value)
            after = key
        else:
            answer.done.append(partition)
        if size >= SCAN_BYTES:
            break
    return _encode(answer)


def _begins(key: Any, prefix: Any) -> bool:
    if isinstance(key, str | bytes):
        return key.startswith(prefix)
    return list(key[: len(prefix)]) == list(prefix)
