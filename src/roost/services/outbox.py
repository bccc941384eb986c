"""Envelopes on their way out: objects that are put into a queue, to one node or to all.

An envelope travels as a cast of the service `envelope`, the kind of its body as the method, so that the receiver finds
the inbox of that type; the body is the pair of the sender's id and the value. See `messaging.py` for the arrival.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

import msgspec

from roost.errors import ConfigError, Unreachable
from roost.messages import BROADCAST, Envelope, kind_of_body
from roost.net.peer import Peer
from roost.services.windows import ENVELOPE, ENVELOPES, Windows

__all__ = ["Outbox", "OutboxOwner"]

log = logging.getLogger("roost.messages")

ID_MIN, ID_MAX = -(2**63), 2**64 - 1
"""What the wire has room for."""


class OutboxOwner(Protocol):
    """Who knows the receivers."""

    def target(self, name: str) -> Peer: ...
    def others(self) -> list[str]: ...
    def packed(self, value: object, message: object) -> msgspec.Raw: ...


class Outbox:
    """Where envelopes are put to be sent: at most once each, and in order from one node to another.

    An envelope to a node that is not known, is down, or is on the blocklist raises Unreachable at once, and one that is
    too large, or for which there is no room, Overloaded. Nothing was sent then, and a retry is safe, unless the error
    says `may_have_run`.

    One to `BROADCAST` goes to every other member that can be reached now, once all of them have room for it, or with
    an error to none. Use `node.broadcast` to hear who has it.
    """

    def __init__(self, owner: OutboxOwner, windows: Windows) -> None:
        self._owner = owner
        self._windows = windows

    async def put(self, envelope: Envelope[Any]) -> None:
        """Send an envelope; returns when it is on its way.

        Waits, at most `call_seconds`, while the receiver has `inbox_messages_max` envelopes of this node unread.
        """
        kind, body = self._packed(envelope)
        peers = self._receivers(envelope)
        if envelope.to is BROADCAST:
            await self._windows.post_all(peers, ENVELOPES, ENVELOPE, kind, body)
        else:
            await self._windows.post(peers[0], ENVELOPES, ENVELOPE, kind, body)

    def put_nowait(self, envelope: Envelope[Any]) -> None:
        """As `put`, but never waits: Overloaded if a receiver has no room now."""
        kind, body = self._packed(envelope)
        self._windows.post_now(self._receivers(envelope), ENVELOPES, ENVELOPE, kind, body)

    def _packed(self, envelope: Envelope[Any]) -> tuple[str, msgspec.Raw]:
        if not isinstance(envelope.id, int) or not ID_MIN <= envelope.id <= ID_MAX:
            raise ConfigError(f"{envelope.id!r} cannot be the id of an envelope", todo="give a number of 64 bits")
        body = envelope.body
        return kind_of_body(type(body)), self._owner.packed((envelope.id, body), body)

    def _receivers(self, envelope: Envelope[Any]) -> list[Peer]:
        to = envelope.to
        if to is not BROADCAST:
            if to == "":
                raise ConfigError("an envelope to nobody", todo="give `to`: a name, a pid or roost.BROADCAST")
            return [self._owner.target(str(to))]
        peers = []
        for name in self._owner.others():
            try:
                peers.append(self._owner.target(name))
            except Unreachable as error:
                log.debug("a broadcast leaves out %s: %s", name, error)
        return peers
