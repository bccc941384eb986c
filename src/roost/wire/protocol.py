"""Every frame kind and its number: protocol version 1.

A link carries frames. A frame is a 4-byte big-endian length and one msgpack value. The first frames are the
handshake, one `Hello`, `Challenge`, `Proof`, `Welcome` or `Refusal` each; every later frame is an array of envelopes,
all that one tick of the sender's loop had for the receiver. An envelope is an array that begins with its number.

Numbers are never used twice. A field may only be added at the end of a struct and with a default, so that an older
reader ignores it and a newer one does without it. What is ignored is fields alone: a frame with an envelope of an
unknown number is a ProtocolError whole, since each end speaks the version that the handshake agreed upon, in which that
number means nothing. So a new kind of envelope is a new version, and a new field is not.

Every frame of this version is recorded in `tests/wire/golden/protocol-1.txt`; once released, those bytes stay.
"""

from __future__ import annotations

import msgspec

from roost.core.gossip import Ack, Nack, Ping, PingRequest, ReachAnswer, ReachRequest, Sync

__all__ = [
    "PROTOCOL",
    "Bounced",
    "Bye",
    "Call",
    "Cancel",
    "Cast",
    "Challenge",
    "Credit",
    "Envelope",
    "Facts",
    "Failure",
    "Handshake",
    "Hello",
    "Identity",
    "News",
    "Proof",
    "Refusal",
    "Reply",
    "Sent",
    "Stream",
    "Welcome",
]

PROTOCOL = (1, 1)
"""The lowest and the highest version that this library speaks."""

NOTHING = msgspec.Raw(b"\xc0")


class Call(msgspec.Struct, array_like=True, tag=0, gc=False):
    """Run `method` of `service` and answer with a `Reply` or a `Failure` of the same `id`."""

    id: int
    service: str
    method: str
    body: msgspec.Raw
    milliseconds: int
    """What is left of the caller's deadline, when the envelope was made."""
    trace: str | None = None


class Cast(msgspec.Struct, array_like=True, tag=1, gc=False):
    """Run `method` of `service`; no answer."""

    service: str
    method: str
    body: msgspec.Raw
    trace: str | None = None


class Reply(msgspec.Struct, array_like=True, tag=2, gc=False):
    """The answer to call `id`."""

    id: int
    body: msgspec.Raw


class Failure(msgspec.Struct, array_like=True, tag=3, gc=False):
    """Call `id` failed. `kind`: a name from `roost.errors`, of this protocol (`NotHere`), or of a user's exception."""

    id: int
    kind: str
    message: str
    may_have_run: bool
    detail: msgspec.Raw = NOTHING


class Cancel(msgspec.Struct, array_like=True, tag=4, gc=False):
    """The caller of `id` no longer waits: end it if it still runs. No answer."""

    id: int


class Stream(msgspec.Struct, array_like=True, tag=5, gc=False):
    """From here on the sender uses this link. What comes later from a lower `number` is dropped, which keeps order."""

    number: int


class News(msgspec.Struct, array_like=True, tag=6, gc=False):
    """Membership. Overtakes data that waits for a full link."""

    body: Ping | Ack | PingRequest | Nack | Sync | ReachRequest | ReachAnswer


class Credit(msgspec.Struct, array_like=True, tag=7, gc=False):
    """`count` more messages of `kind` may be sent: that many were taken out of the inbox.

    With a `stream`, that one has just begun, and so many below zero were unread of those before it.
    """

    kind: str
    count: int
    stream: int = 0


class Bounced(msgspec.Struct, array_like=True, tag=8, gc=False):
    """`count` messages of `kind` were refused: nobody here reads that kind."""

    kind: str
    count: int


class Bye(msgspec.Struct, array_like=True, tag=9, gc=False):
    """The sender closes this link on purpose: no hint that it is dead."""

    reason: str


class Sent(msgspec.Struct, array_like=True, tag=10, gc=False):
    """First in a frame: the sender's monotonic clock. Only differences on one link mean anything."""

    milliseconds: int


Envelope = Call | Cast | Reply | Failure | Cancel | Stream | News | Credit | Bounced | Bye | Sent


class Identity(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who is at the other end. `role` is "member" or "client"; a client is no member and only calls."""

    name: str
    uid: int
    address: str
    role: str = "member"


class Facts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What must be equal on both ends (or, for `protocol`, overlap) before they may talk."""

    cluster: str
    protocol: tuple[int, int]
    partitions: int
    placement_seed: int
    wall_milliseconds: int
    """The sender's clock: no node far ahead of the others may join."""
    inbox_messages_max: int = 0
    """So many messages of one kind the sender keeps unread for the other end, and itself sends ahead. The two need not
    be equal, the lesser counts. 0: not said."""


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=20, gc=False):
    """First, from the end that connected."""

    identity: Identity
    facts: Facts
    nonce: bytes


class Challenge(msgspec.Struct, frozen=True, array_like=True, tag=21, gc=False):
    """Second, from the end that accepted. `secured`: it wants proof of the secret, and will give its own."""

    identity: Identity
    facts: Facts
    nonce: bytes
    secured: bool


class Proof(msgspec.Struct, frozen=True, array_like=True, tag=22, gc=False):
    """Third: the connecting end's MAC over the transcript; empty without a secret."""

    mac: bytes


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag=23, gc=False):
    """Last: the accepting end's MAC; envelopes may follow at once, both ways."""

    mac: bytes


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag=24, gc=False):
    """In place of any other: `kind` is a name from `roost.errors`. The link is closed after it."""

    kind: str
    message: str


Handshake = Hello | Challenge | Proof | Welcome | Refusal
