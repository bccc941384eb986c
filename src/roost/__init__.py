"""roost: live state across processes and machines, by name."""

from __future__ import annotations

from roost.errors import (
    AuthError,
    ConfigError,
    DeadlineExceeded,
    NameTaken,
    NotFound,
    Overloaded,
    ProtocolError,
    RemoteError,
    RoostError,
    Unavailable,
    Unreachable,
    VersionSkew,
)
from roost.messages import BROADCAST, Envelope, Message, Request
from roost.node import Node
from roost.services.inbox import Inbox
from roost.services.kv import KV, KeyValuePartition, Version, Versioned
from roost.services.losses import PossibleLoss
from roost.services.messaging import Delivery
from roost.services.outbox import Outbox
from roost.services.partitions import Partition, Partitions
from roost.services.watching import (
    Member,
    MemberDown,
    MemberEvent,
    MemberForgotten,
    MemberJoining,
    MemberLeaving,
    MemberLeft,
    MemberSuspect,
    MemberUp,
)
from roost.version import VERSION as __version__
from roost.wire.values import register

__all__ = [
    "BROADCAST",
    "KV",
    "AuthError",
    "ConfigError",
    "DeadlineExceeded",
    "Delivery",
    "Envelope",
    "Inbox",
    "KeyValuePartition",
    "Member",
    "MemberDown",
    "MemberEvent",
    "MemberForgotten",
    "MemberJoining",
    "MemberLeaving",
    "MemberLeft",
    "MemberSuspect",
    "MemberUp",
    "Message",
    "NameTaken",
    "Node",
    "NotFound",
    "Outbox",
    "Overloaded",
    "Partition",
    "Partitions",
    "PossibleLoss",
    "ProtocolError",
    "RemoteError",
    "Request",
    "RoostError",
    "Unavailable",
    "Unreachable",
    "Version",
    "VersionSkew",
    "Versioned",
    "__version__",
    "register",
]
