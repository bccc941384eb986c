"""What one machine of rights says to those on other nodes: all of one turn of the loop for one of them together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from roost.core.rights import Event, Missed, NotHosting
from roost.errors import NotFound, RoostError
from roost.services.host import Host

__all__ = ["PEER_METHOD", "Dispatch"]

log = logging.getLogger("roost.partitions")

PEER_METHOD = "~"
BATCH_BYTES = 256 * 1024
PEER_CALL_SECONDS = 10.0
_encode = msgspec.msgpack.Encoder().encode


class Dispatch:
    """The outgoing messages of one service on one node. What does not arrive is told to the machine."""

    def __init__(self, host: Host, service: str, tell: Callable[[Event], None]) -> None:
        self._host = host
        self._service = service
        self._tell = tell
        self._outbox: dict[int, list[msgspec.Struct]] = {}
        self._batch_bytes = min(BATCH_BYTES, host.settings.message_bytes_max)

    def send(self, uid: int, message: msgspec.Struct) -> None:
        """With everything else for that node in this turn of the loop, in order."""
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outbox.setdefault(uid, []).append(message)

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, {}
        for uid, messages in outbox.items():
            batch: list[bytes] = []
            size = 0
            for message in messages:
                try:
                    data = _encode(message)
                except (OverflowError, TypeError, ValueError) as error:  # a number that a peer made too large
                    log.error("%s cannot say %.200r to %016x: %s", self._service, message, uid, error)
                    continue
                if batch and size + len(data) > self._batch_bytes:
                    self._call(uid, batch)
                    batch, size = [], 0
                batch.append(data)
                size += len(data)
            if batch:
                self._call(uid, batch)

    def _call(self, uid: int, batch: list[bytes]) -> None:
        body = _encode([msgspec.Raw(data) for data in batch])
        try:
            done = self._host.call(uid, self._service, PEER_METHOD, body, seconds=PEER_CALL_SECONDS)
        except RoostError as error:
            log.debug("%s could not reach %016x: %r", self._service, uid, error)
            self._tell(Missed(uid))
            return
        done.add_done_callback(lambda ended: self._answered(uid, ended))

    def _answered(self, uid: int, ended: asyncio.Future[msgspec.Raw]) -> None:
        if ended.cancelled():
            return
        error = ended.exception()
        if isinstance(error, NotFound) and error.name == self._service:
            self._tell(NotHosting(uid))
        elif isinstance(error, RoostError):
            self._tell(Missed(uid))
        elif error is not None:
            raise error
