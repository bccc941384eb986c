"""Arriving envelopes: answers to their callers, calls to their handlers, and what the handlers say back again.

A handler is a plain function. What it returns at once leaves with the frame that this batch makes; a coroutine is
stepped inline, and becomes a task, with its caller's deadline, only if it suspends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import Any, Protocol

from msgspec import Raw

from roost.config import Settings
from roost.core.gossip import Gossip
from roost.eager import SUSPENDED, Eager
from roost.errors import DeadlineExceeded, NotFound, Overloaded, ProtocolError, RoostError, Unreachable
from roost.net.failures import from_failure, to_failure
from roost.net.outbound import OWN_FRAME_BYTES, Bounds
from roost.net.peer import Peer
from roost.net.sessions import Session
from roost.runtime import Runtime
from roost.wire.frame import decode_batch
from roost.wire.protocol import Bounced, Bye, Call, Cancel, Cast, Credit, Envelope, Failure, News, Reply, Sent, Stream
from roost.wire.values import encode

__all__ = ["Handler", "Here", "Switchboard", "SwitchboardOwner"]

log = logging.getLogger("roost.net")

FRAME_BYTES_SPARE = 4096
"""For what is in a frame besides one large body."""
Body = bytes | Raw
Handler = Callable[[int, Call], Body | Coroutine[Any, Any, Any]]


class SwitchboardOwner(Protocol):
    """Who hears of what is no call."""

    def gossip_received(self, uid: int, message: Gossip) -> None: ...
    def flow(self, peer: Peer, envelope: Credit | Bounced | Stream) -> None: ...


class Switchboard:
    """Handlers by service, and the way to them."""

    def __init__(self, runtime: Runtime, settings: Settings, owner: SwitchboardOwner, arm: Callable[[], None]) -> None:
        self.name = ""
        """This node's, for error texts."""
        self.handlers: dict[str, tuple[Handler, bool]] = {}
        """(the handler, whether its coroutines give values and not bodies)"""
        self._running_max = settings.running_calls_max
        self._runtime = runtime
        self._owner = owner
        self._arm = arm
        self._closed = False
        self._body_bytes_max = settings.frame_bytes_max - FRAME_BYTES_SPARE
        self._eager = Eager(runtime)

    def close(self) -> None:
        self._closed = True
        self._eager.close()

    def incoming(self, session: Session, frame: memoryview) -> None:
        peer = session.peer
        assert peer is not None
        envelopes = decode_batch(frame)
        if peer.inbound is not session:
            envelopes = self._not_in_stream(peer, session, envelopes)
        peer.collect(len(envelopes))
        pending = peer.pending
        late = 0.0
        if envelopes and type(envelopes[0]) is Sent:
            late = session.lateness.of(envelopes[0].milliseconds, self._runtime.monotonic())
        for envelope in envelopes:
            if type(envelope) is Reply:
                waiting = pending.pop(envelope.id, None)
                if waiting is not None and not waiting[0].done():
                    waiting[0].set_result(envelope.body)
            elif type(envelope) is Call:
                if envelope.milliseconds <= late:
                    self._refuse_late(peer, envelope, late)
                else:
                    self.answer(peer, envelope)
            else:
                self.other(peer, session, envelope)

    def _not_in_stream(self, peer: Peer, session: Session, envelopes: list[Envelope]) -> list[Envelope]:
        """Turn to this link if the sender has; else let through only what belongs to no stream."""
        for position, envelope in enumerate(envelopes):
            if isinstance(envelope, Stream) and envelope.number > peer.stream_in:
                # Where no link was left, both ends may have opened one at once: each keeps to its own then.
                turned = peer.inbound is not None
                peer.stream_in = envelope.number
                peer.inbound = session
                if envelope.number > 1 and not (turned and peer.follow(session)):
                    peer.restart_stream()
                self._owner.flow(peer, envelope)
                return envelopes[:position] + envelopes[position + 1 :]
        return [envelope for envelope in envelopes if isinstance(envelope, News | Bye)]

    def other(self, peer: Peer, session: Session, envelope: Envelope) -> None:
        match envelope:
            case Cast():
                call = Call(0, envelope.service, envelope.method, envelope.body, 0, envelope.trace)
                self.answer(peer, call)
            case News():
                if peer.role == "member":
                    self._owner.gossip_received(peer.uid, envelope.body)
            case Failure():
                waiting = peer.pending.pop(envelope.id, None)
                if waiting is not None and not waiting[0].done():
                    error = from_failure(envelope, peer.name)
                    if isinstance(error, DeadlineExceeded):
                        error.elapsed = self._runtime.monotonic() - waiting[2]
                    waiting[0].set_exception(error)
            case Cancel():
                running = peer.running.pop(envelope.id, None)
                if running is not None:
                    running[0].cancel()
            case Sent():
                pass
            case Stream() if envelope.number > peer.stream_in:
                peer.stream_in = envelope.number
                self._owner.flow(peer, envelope)
            case Credit() | Bounced():
                self._owner.flow(peer, envelope)
            case Bye():
                peer.stop_using(session)
                session.hear_bye()
                session.say_bye(envelope.reason)
            case _:
                raise ProtocolError(f"{peer.name} sent {type(envelope).__name__} out of place")

    def answer(self, peer: Peer, call: Call) -> None:
        """Run the handler of a call, and answer now or later."""
        try:
            found = self.handlers.get(call.service)
            if found is None:
                raise NotFound(f"{self.name} does not serve {call.service!r}", name=call.service)
            answer: Any = found[0](peer.uid, call)
            kind = type(answer)
            if kind is CoroutineType:
                answer = self._step(peer, call, answer, found[1])
                if answer is SUSPENDED:
                    return
            elif kind is bytes:
                answer = Raw(answer)
        except Exception as error:
            self._fail(peer, call.id, error)
            return
        if not call.id:
            return
        if len(answer) > OWN_FRAME_BYTES:
            self._reply(peer, call.id, answer)
        else:
            peer.reply(call.id, answer)

    def _reply(self, peer: Peer, number: int, body: Raw) -> None:
        if len(body) <= self._body_bytes_max:
            peer.reply(number, body)
        else:  # would break the link, for everyone on it
            text = f"the answer of {self.name} has {len(body)} bytes, more than a frame: ask for less"
            limit = self._body_bytes_max
            self._fail(peer, number, Overloaded(text, what="frame_bytes_max", limit=limit, may_have_run=True))

    def _step(self, peer: Peer, call: Call, work: Coroutine[Any, Any, Any], gives_values: bool) -> Any:
        """The body of the answer if `work` never waits, else SUSPENDED."""
        if len(peer.running) >= self._running_max:
            work.close()
            text = f"{self.name} runs {self._running_max} calls of {peer.name} already"
            raise Overloaded(text, what="running_calls_max", limit=self._running_max)
        try:
            result = self._eager.step(work, self._ended, (peer, call.id, gives_values))
        except RoostError as error:
            error.may_have_run = error.may_have_run or gives_values
            raise
        if result is SUSPENDED:
            if call.id:
                assert self._eager.task is not None
                peer.running[call.id] = (self._eager.task, self._runtime.monotonic() + call.milliseconds / 1000)
                self._arm()
            return SUSPENDED
        return Raw(encode(result)) if gives_values else Raw(result)

    def _ended(self, whose: tuple[Peer, int, bool], result: Any, error: BaseException | None) -> None:
        """A handler that had suspended has ended."""
        peer, number, gives_values = whose
        peer.running.pop(number, None)
        if error is None:
            try:
                body = Raw(encode(result)) if gives_values else Raw(result)
            except Exception as unencodable:
                error = unencodable
            else:
                if number:
                    self._reply(peer, number, body)
                return
        if gives_values and isinstance(error, RoostError):
            error.may_have_run = True  # this handler has run, whatever the error says of a call that it made itself
        self._fail(peer, number, error)

    def _refuse_late(self, peer: Peer, call: Call, late: float) -> None:
        text = f"the call reached {self.name} {late / 1000:.2f} s late, after its deadline, and was not run"
        self._fail(peer, call.id, DeadlineExceeded(text, elapsed=late / 1000, may_have_run=False))

    def _fail(self, peer: Peer, number: int, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            if self._closed:
                error = Unreachable(f"{self.name} ended the call: it is stopping", node=self.name, may_have_run=True)
            else:
                error = DeadlineExceeded(f"the handler on {self.name} was cancelled: its time was over")
        if number:
            if peer.outbound is not None or isinstance(peer, Here):
                peer.send(to_failure(number, error), must=True)
        else:
            log.warning("a message of %s could not be handled: %r", peer.name, error, exc_info=error)


class Here(Peer):
    """This very node: the same handlers, without codec and socket."""

    __slots__ = ("_switchboard",)

    def __init__(
        self, switchboard: Switchboard, runtime: Runtime, bounds: Bounds, arm: Callable[[], None], uid: int
    ) -> None:
        super().__init__(runtime.loop, bounds, lambda _: None, arm, uid=uid, name="", address="")
        self._switchboard = switchboard

    @property
    def wants_link(self) -> bool:
        return False

    def send(self, envelope: Envelope, size: int = 0, *, must: bool = False) -> None:
        # A reply may arrive before `call` has registered its future: the loop's next turn is soon enough.
        self._loop.call_soon(self._take, envelope)

    def reply(self, number: int, body: Raw) -> None:
        waiting = self.pending.pop(number, None)
        if waiting is not None and not waiting[0].done():
            waiting[0].set_result(body)

    def cancel(self, number: int) -> None:
        self.send(Cancel(number))

    def gossip(self, message: Gossip) -> None:
        raise AssertionError("a node does not gossip with itself")

    def _take(self, envelope: Envelope) -> None:
        if isinstance(envelope, Call):
            self._switchboard.answer(self, envelope)
        else:
            self._switchboard.other(self, None, envelope)  # type: ignore[arg-type]  # no envelope to self touches the session
