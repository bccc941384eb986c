"""Messages between nodes: send, ask, answer, broadcast, inboxes, and what comes by envelope.

Flow control. A sender may have `inbox_messages_max` messages of one kind unread at one receiver; the receiver gives
credit as its readers take them, and beyond that `send` waits. So a slow reader slows its senders, holds a bounded
number of messages, and delays nothing else on the link. After a link broke, the receiver tells the sender how many
still are unread. All envelopes from one node to another count as one kind.

Promises: at most once; in order for one kind from one node to one other (asks and sends travel on one stream, so what
was issued first is handled first, as long as its handler does not suspend).

An envelope goes to the inbox of its body's type if that is open, else to the one for all envelopes, else back: whoever
sent it gets its credit again, and this node counts it as dropped.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Generic, NoReturn, TypeVar

import msgspec

from roost.config import Settings
from roost.errors import ConfigError, NotFound, Overloaded, RemoteError, RoostError, Unreachable
from roost.messages import Envelope, Message, Request, answer_type, kind_of, kind_of_body
from roost.net.peer import Peer
from roost.net.peers import Peers
from roost.services.inbox import Accounts, Inbox
from roost.services.members import Members
from roost.services.outbox import Outbox
from roost.services.windows import ENVELOPE, ENVELOPES, INBOX, Windows
from roost.wire.protocol import Bounced, Call, Credit, Stream
from roost.wire.values import decoder, encode

__all__ = ["Answering", "Delivery", "Messaging"]

log = logging.getLogger("roost.messages")

Q = TypeVar("Q", bound=Request[Any])
Q_co = TypeVar("Q_co", bound=Request[Any], covariant=True)
R = TypeVar("R")
ASK = "ask"
NOTHING = b"\xc0"
TIMEOUT_SECONDS_MAX = 1e7


class Answering(Generic[Q_co]):
    """What `node.answer` gives: a decorator for handlers of that request, which return what the request promises."""

    def __init__(self, register: Callable[[Callable[[Envelope[Any]], Any]], None]) -> None:
        self._register = register

    def __call__(
        self: Answering[Request[R]],  # finds R, which the class of the request has in its bases
        handler: Callable[[Envelope[Q_co]], Awaitable[R] | R],
        /,
    ) -> Callable[[Envelope[Q_co]], Awaitable[R] | R]:
        self._register(handler)
        return handler


class Delivery(msgspec.Struct, frozen=True):
    """How a broadcast ended: who has it in an inbox, and who has not, each with the reason."""

    reached: frozenset[str]
    missed: Mapping[str, RoostError]


class Messaging:
    """Sends, asks, and answers for one node."""

    def __init__(self, peers: Peers, members: Members, settings: Settings) -> None:
        self._peers = peers
        self._members = members
        self._settings = settings
        self._loop = peers.runtime.loop
        self._bytes_max = settings.message_bytes_max
        self._call_seconds = settings.call_seconds
        self._inboxes: dict[str, Inbox[Any]] = {}
        self._answers: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], bool]] = {}
        self._windows = Windows(self._loop, settings.inbox_messages_max, settings.call_seconds)
        self._envelopes = Accounts(ENVELOPES, settings.inbox_messages_max, self._give_credit, self._window_of)
        self._asks: dict[type[Any], tuple[str, Callable[[Any], Any]]] = {}
        self._targets: dict[str, Peer] = {}
        self._bounces_logged: set[tuple[str, str]] = set()
        self._stopped = False
        self.dropped = 0
        """Messages that arrived and could not be taken: of a kind that nobody reads, or beyond a bound."""
        peers.serve(ASK, self._serve_ask, gives_values=True)
        peers.serve(INBOX, self._serve_inbox)
        peers.serve(ENVELOPE, self._serve_envelope)
        self.outbox = Outbox(self, self._windows)

    # sending

    async def send(self, to: str, message: Message) -> None:
        kind = kind_of(type(message))
        body = self.packed(message, message)
        peer = self._targets.get(to) or self.target(to)
        await self._windows.post(peer, kind, INBOX, kind, body)

    async def ask(self, to: str, request: Request[R], timeout: float | None) -> R:
        known = self._asks.get(type(request)) or self._learn(type(request))
        body = encode(request)
        if len(body) > self._bytes_max:
            self._refuse_large(request, len(body))
        peer = self._targets.get(to) or self.target(to)
        seconds = self._call_seconds if timeout is None else _checked(timeout)
        if peer.held_bytes:
            started = self._loop.time()
            await peer.room(seconds)
            seconds -= self._loop.time() - started
        future = peer.call(ASK, known[0], msgspec.Raw(body), seconds)
        try:
            answer = await future
        except asyncio.CancelledError:
            peer.give_up(future)
            raise
        try:
            result: R = known[1](answer)
        except msgspec.MsgspecError as error:
            text = f"its answer to {known[0]} is not what {type(request).__name__} promises: {error}"
            raise RemoteError("ValidationError", text, node=to) from error
        return result

    def _learn(self, request: type[Request[Any]]) -> tuple[str, Callable[[Any], Any]]:
        known = self._asks[request] = (kind_of(request), decoder(answer_type(request)).decode)
        return known

    async def broadcast(self, message: Message, timeout: float | None) -> Delivery:
        kind = kind_of(type(message))
        body = self.packed(message, message)
        seconds = self._call_seconds if timeout is None else _checked(timeout)
        missed: dict[str, RoostError] = {}
        sent: dict[str, asyncio.Future[msgspec.Raw]] = {}
        for name in self.others():
            try:
                sent[name] = self.target(name).call(INBOX, kind, body, seconds)
            except RoostError as error:
                missed[name] = error
        results = await asyncio.gather(*sent.values(), return_exceptions=True)
        reached: list[str] = []
        for name, result in zip(sent, results, strict=True):
            if isinstance(result, RoostError):
                missed[name] = result
            elif isinstance(result, BaseException):
                raise result
            else:
                reached.append(name)
        return Delivery(frozenset(reached), missed)

    def others(self) -> list[str]:
        """The names of the other members, but for those that have left."""
        me = self._peers.me.name
        names = {member.name: None for member in self._members if member.state != "left" and member.name != me}
        return list(names)

    def packed(self, value: object, message: object) -> msgspec.Raw:
        """`value`, which is `message` and what goes with it, as bytes."""
        body = encode(value)
        if len(body) > self._bytes_max:
            self._refuse_large(message, len(body))
        return msgspec.Raw(body)

    def _refuse_large(self, message: object, size: int) -> NoReturn:
        limit = self._bytes_max
        text = f"a {type(message).__name__} of {size} bytes; message_bytes_max is {limit}: send it in pieces"
        raise Overloaded(text, what="message_bytes_max", limit=limit)

    def target(self, name: str) -> Peer:
        """The peer behind a name that is worth trying. Raises Unreachable."""
        known = self._targets.get(name)
        if known is not None:
            return known
        if self._stopped:
            raise Unreachable("this node has stopped", node=name)
        entry = self._members.find(name)
        if entry is None:
            names = ", ".join(sorted({member.name for member in self._members})) or "none"
            raise Unreachable(f"no member is called {name!r}; known are: {names}", node=name)
        member = self._members[name]
        if member.state in ("down", "left"):
            seen = self._members.last_seen(entry.uid)
            raise Unreachable(f"{name} is {member.state}", node=name, last_seen=seen)
        peer = self._peers.get(entry.uid, entry.name, entry.address)
        peer.check_open()
        self._targets[name] = peer
        return peer

    # receiving

    def inbox(self, body: Any) -> Inbox[Any]:
        """`body` Any: for every envelope that has no inbox of its own type."""
        kind = ENVELOPES if body is Any else kind_of_body(body)
        found = self._inboxes.get(kind)
        if found is None:
            limit = self._settings.inbox_messages_max
            found = self._inboxes[kind] = Inbox(kind, body, limit, self._give_credit, self._window_of)
        elif found.body_type != body:
            todo = "read all of them as one type, or give a message class another tag"
            raise ConfigError(
                f"what comes as {kind} is read as {found.body_type!r} already, not as {body!r}", todo=todo
            )
        return found

    def answer(self, request: type[Q]) -> Answering[Q]:
        kind = kind_of(request)
        answer_type(request)  # what cannot be asked cannot be answered

        def register(handler: Callable[[Envelope[Any]], Any]) -> None:
            if kind in self._answers:
                raise ConfigError(f"{kind} is answered already", todo="one handler a request type")
            self._answers[kind] = (decoder(request).decode, handler, inspect.iscoroutinefunction(handler))

        return Answering(register)

    def _serve_ask(self, uid: int, call: Call) -> msgspec.Raw | Coroutine[Any, Any, Any]:
        found = self._answers.get(call.method)
        if found is None:
            me = self._peers.me.name
            raise NotFound(f"{me} does not answer {call.method}: register it there with @node.answer", name=call.method)
        decode, handler, is_async = found
        try:
            letter = Envelope(decode(call.body), self._peers.by_uid[uid].name)
        except msgspec.MsgspecError as error:
            raise RemoteError("ValidationError", f"{call.method}: {error}", may_have_run=False) from error
        if is_async:
            work: Coroutine[Any, Any, Any] = handler(letter)
            return work
        try:
            return msgspec.Raw(encode(handler(letter)))
        except RoostError as error:
            error.may_have_run = True
            raise

    def _serve_inbox(self, uid: int, call: Call) -> bytes:
        peer = self._peers.by_uid[uid]
        inbox = self._inboxes.get(call.method)
        if inbox is None:
            return self._bounce(peer, call, call.method)
        try:
            taken = inbox.put(uid, peer.name, call.body, windowed=not call.id)
        except Exception as error:  # also what a registered class's `decode` raises
            raise self._unreadable(peer, call, call.method, error) from error
        return NOTHING if taken else self._refuse(peer, call, call.method)

    def _serve_envelope(self, uid: int, call: Call) -> bytes:
        peer = self._peers.by_uid[uid]
        inbox = self._inboxes.get(call.method)
        if inbox is None:
            inbox = self._inboxes.get(ENVELOPES)
        if inbox is None:
            return self._bounce(peer, call, ENVELOPES)
        account = self._envelopes.of(uid)
        if account.unread >= account.limit:
            return self._refuse(peer, call, ENVELOPES)
        try:
            inbox.put_envelope(account, peer.name, call.body)
        except Exception as error:
            raise self._unreadable(peer, call, ENVELOPES, error) from error
        return NOTHING

    def _bounce(self, peer: Peer, call: Call, kind: str) -> bytes:
        """Nobody reads this kind here."""
        self.dropped += 1
        if call.id:
            me = self._peers.me.name
            raise NotFound(f"nobody on {me} reads {call.method}: call node.inbox there", name=call.method)
        peer.send(Bounced(kind, 1), must=True)
        return NOTHING

    def _unreadable(self, peer: Peer, call: Call, kind: str, error: Exception) -> RemoteError:
        self.dropped += 1
        if not call.id:
            peer.send(Credit(kind, 1), must=True)
        return RemoteError(type(error).__name__, f"{call.method}: {error}", may_have_run=False)

    def _refuse(self, peer: Peer, call: Call, kind: str) -> bytes:
        """The sender has its fill unread."""
        self.dropped += 1
        if not call.id:  # only after a link broke can a sender believe in room that is not there
            peer.send(Credit(kind, 1), must=True)
            return NOTHING
        limit = self._settings.inbox_messages_max
        text = f"the inbox of {call.method} on {self._peers.me.name} is full"
        raise Overloaded(text, what="inbox_messages_max", limit=limit)

    # flow control

    def flow(self, peer: Peer, envelope: Credit | Bounced | Stream) -> None:
        """What the other end says about credit, bounces, and the start of a stream."""
        match envelope:
            case Credit(kind=kind, count=count, stream=0):
                self._windows.credit(peer, kind, count)
            case Credit(kind=kind, count=count, stream=stream):
                self._windows.restart(peer, kind, -count, stream)
            case Bounced(kind=kind, count=count):
                was_sent = self._windows.credit(peer, kind, count)
                if was_sent and (peer.name, kind) not in self._bounces_logged:
                    self._bounces_logged.add((peer.name, kind))
                    what = f"{kind} messages" if kind else "envelopes"
                    log.warning("%s drops %s: nobody reads them there (node.inbox)", peer.name, what)
            case Stream(number=stream):
                for accounts in self._accounts():
                    peer.send(Credit(accounts.kind, -accounts.restart(peer.uid), stream), must=True)

    def _window_of(self, uid: int) -> int:
        peer = self._peers.by_uid.get(uid)
        return peer.inbox_messages_max if peer is not None else 0

    def _accounts(self) -> list[Accounts]:
        """Those of all kinds; that of envelopes is last, as `windows.py` wants it."""
        kinds = [inbox.accounts for inbox in self._inboxes.values() if inbox.kind != ENVELOPES]
        return [*kinds, self._envelopes]

    def _give_credit(self, uid: int, kind: str, count: int) -> None:
        peer = self._peers.by_uid.get(uid)
        if peer is not None and (peer.outbound is not None or uid == self._peers.me.uid):
            peer.send(Credit(kind, count), must=True)

    def member_changed(self, name: str, uid: int, *, gone: bool) -> None:
        """What is known about a name may be stale; of one that is gone nothing is kept."""
        self._targets.pop(name, None)
        if gone:
            self._windows.forget(uid)
            for accounts in self._accounts():
                accounts.forget(uid)

    def blocked(self, name: str, uid: int) -> None:
        """Nothing goes to that member any more: whoever waits for room there hears so."""
        self._targets.pop(name, None)
        self._windows.forget(uid)

    def stop(self) -> None:
        """End every inbox: readers get what is there, then the end."""
        self._stopped = True
        self._targets.clear()
        self._windows.forget()
        self._envelopes.end()
        for inbox in self._inboxes.values():
            inbox.end()


def _checked(timeout: float) -> float:
    """A user's timeout. What is no number of seconds must not get into a frame that others share."""
    if not isinstance(timeout, int | float) or not 0 < timeout <= TIMEOUT_SECONDS_MAX:
        raise ConfigError(
            f"timeout={timeout!r} is no number of seconds above 0",
            where="timeout",
            todo=f"give one up to {TIMEOUT_SECONDS_MAX:.0f}, or none for call_seconds",
        )
    return timeout
