"""What a service sees of the node that carries it: the port between `services/` and `node.py`.

A service answers calls by registering one handler under its name. The handler is a plain function; it returns the
answer's body at once (the fast path: no task, the answer leaves with this tick's frame), or a coroutine, which is
stepped inline and becomes a task only if it suspends. It raises a `RoostError` to refuse, or `NotHere` to redirect;
anything else that it raises reaches the caller as `RemoteError`. If a coroutine's caller gives up, it is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

import msgspec

from roost.config import Settings
from roost.core.gossip import Entry
from roost.net.failures import NotHere
from roost.runtime import Runtime
from roost.wire.protocol import Call

__all__ = ["Answer", "Body", "Handler", "Host", "NotHere"]

Body = bytes | msgspec.Raw
Answer = Body | Coroutine[Any, Any, Body]
Handler = Callable[[int, Call], Answer]
"""(uid of the caller, the call) -> the answer. A cast arrives as a call of id 0 whose answer is dropped."""


class Host(Protocol):
    """A node, as its services see it."""

    name: str
    uid: int
    settings: Settings
    runtime: Runtime
    placement_seed: int
    closed: bool
    """The node has stopped."""

    def entries(self) -> Sequence[Entry]:
        """Every known member in every state, this node included, in order of (name, uid)."""
        ...

    @property
    def settled(self) -> bool:
        """All up members report the same view."""
        ...

    def call(self, uid: int, service: str, method: str, body: Body, *, seconds: float) -> asyncio.Future[msgspec.Raw]:
        """Call a member (this node too: the same handler, without the wire).

        The future ends with the answer's body, or with a `RoostError` or `NotHere`; at the latest after `seconds`
        with DeadlineExceeded. Cancelling it cancels the handler. `Raw` bodies are only valid views: copy to keep.
        Calls and casts from one node to one other arrive in the order in which they were made.
        """
        ...

    def cast(self, uid: int, service: str, method: str, body: Body) -> None:
        """Call without an answer; lost without a word if the link breaks."""
        ...

    def serve(self, service: str, handler: Handler) -> None:
        """Answer calls to `service` from now on. One handler a name: a second one raises ConfigError."""
        ...

    def announce(self, service: str, digest: int) -> None:
        """Add a hosted service to this node's member entry. Raises ConfigError if another host has another digest."""
        ...

    def on_view(self, callback: Callable[[], None]) -> None:
        """Call back, from the loop, after every change of `entries()` that placement could depend on."""
        ...

    def on_leave(self, drain: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Await `drain` when this node leaves, after it is out of everyone's ring and before its links close."""
        ...
