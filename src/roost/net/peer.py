"""The other end: what waits to be sent to one node, and the calls that await its answers.

Theory of operation. All that a tick of the loop has for a peer is collected in `_out` and leaves as one frame. While
there is no link, or the link's buffer is above its high-water mark, the peer is `stalled`: envelopes are held and
counted in bytes, senders that can wait do so (`room`), those that cannot get `Overloaded`, and a peer that lets more
than four times the bound pile up is cut off. Membership overtakes: `_urgent` is written first, full link or not.

Order. Each direction uses one link at a time. When a sender turns to another link it opens a new, higher *stream*
there; the receiver then ignores what is still to come of lower streams. So order is kept at the price of a loss,
which at-most-once allows.

A call that was written to a link that broke may have run; one that was never written has not. `_out` knows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from roost.core.gossip import Gossip
from roost.errors import DeadlineExceeded, Overloaded, RoostError, Unreachable
from roost.wire.frame import encode_batch
from roost.wire.protocol import Call, Cancel, Cast, Envelope, News, Reply, Stream

if TYPE_CHECKING:
    from roost.net.sessions import Session

__all__ = ["Bounds", "Peer"]

Pending = tuple[asyncio.Future[msgspec.Raw], float, float]
"""(the caller's future, deadline, start)"""

BATCH_ENVELOPES_MAX = 512
"""A longer queue is written within the tick, so that one burst does not become one huge frame."""
EARLY_ENVELOPES = 16
"""So many are written within the tick, so that both ends work at the same time; then 32, 64... up to the above."""
OWN_FRAME_BYTES = 16 * 1024
"""A larger body travels in a frame of its own."""
URGENT_MAX = 64


class Bounds(msgspec.Struct, frozen=True):
    """The bounds of one peer, from the settings."""

    pending_calls_max: int
    outbound_bytes_max: int
    write_bytes_high: int


class Peer:
    """One other node: a member or a client."""

    __slots__ = (
        "_arm",
        "_bounds",
        "_create_future",
        "_early",
        "_loop",
        "_next_call",
        "_out",
        "_pending_max",
        "_scheduled",
        "_stalled",
        "_time",
        "_urgent",
        "_waiting",
        "_want_link",
        "address",
        "connecting",
        "held_bytes",
        "inbound",
        "name",
        "outbound",
        "pending",
        "role",
        "running",
        "sessions",
        "stream_in",
        "stream_out",
        "uid",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        bounds: Bounds,
        want_link: Callable[[Peer], None],
        arm: Callable[[], None],
        *,
        uid: int,
        name: str,
        address: str,
        role: str = "member",
    ) -> None:
        self._loop = loop
        self._bounds = bounds
        self._want_link = want_link
        self._arm = arm
        self._time = loop.time
        self._create_future = loop.create_future
        self._pending_max = bounds.pending_calls_max
        self.uid = uid
        self.name = name
        self.address = address
        self.role = role
        self._out: list[Envelope] = []
        self._urgent: deque[Gossip] = deque(maxlen=URGENT_MAX)
        self._scheduled = False
        self._early = EARLY_ENVELOPES
        self._stalled = True
        self.held_bytes = 0
        """Of what is held back while the peer is stalled; zero when all goes straight out."""
        self._waiting: deque[tuple[asyncio.Future[None], float, float]] = deque()
        self._next_call = 0
        self.pending: dict[int, Pending] = {}
        self.running: dict[int, tuple[asyncio.Task[None], float]] = {}
        self.sessions: list[Session] = []
        self.outbound: Session | None = None
        self.inbound: Session | None = None
        self.stream_out = 0
        self.stream_in = 0
        self.connecting: asyncio.Task[Any] | None = None

    def __repr__(self) -> str:
        state = "no link" if self.outbound is None else ("stalled" if self._stalled else "linked")
        return f"<Peer {self.name} {self.uid:016x} {state}, {len(self.pending)} calls pending>"

    # calls

    def call(
        self, service: str, method: str, body: msgspec.Raw, seconds: float, trace: str | None = None
    ) -> asyncio.Future[msgspec.Raw]:
        """Send a call. Raises Overloaded, and then nothing was sent.

        The future ends with the answer's body or an error, at the latest after `seconds`.
        """
        pending = self.pending
        if not pending:
            self._arm()
        elif len(pending) >= self._pending_max:
            raise Overloaded(
                f"{len(pending)} calls to {self.name} await an answer already: slow down",
                what="pending_calls_max",
                limit=self._pending_max,
            )
        self._next_call = number = self._next_call + 1
        call = Call(number, service, method, body, int(seconds * 1000), trace)
        if self._stalled or len(body) > OWN_FRAME_BYTES:
            self.send(call, len(body))
        else:  # what `send` does, for speed
            out = self._out
            out.append(call)
            if not self._scheduled:
                self._scheduled = True
                self._early = EARLY_ENVELOPES
                self._loop.call_soon(self.flush)
            elif len(out) >= self._early:
                self._flush_early()
        future = self._create_future()
        now = self._time()
        pending[number] = (future, now + seconds, now)
        return future

    def cast(self, service: str, method: str, body: msgspec.Raw, trace: str | None = None) -> None:
        """Send a call that wants no answer. Raises Overloaded, and then nothing was sent."""
        self.send(Cast(service, method, body, trace), len(body))

    def reply(self, number: int, body: msgspec.Raw) -> None:
        """Answer a call. Never refuses: a peer that does not read its answers is cut off instead.

        Without a link the answer is dropped: the caller's end has failed the call when the link broke.
        """
        if self.outbound is not None:
            self.send(Reply(number, body), len(body), must=True)

    def send(self, envelope: Envelope, size: int = 0, *, must: bool = False) -> None:
        """Queue an envelope whose body has `size` bytes; `must` overrides the first bound."""
        if self._stalled:
            self._hold(envelope, size, must)
            return
        if size > OWN_FRAME_BYTES:
            self.flush()
            session = self.outbound
            if session is None or self._stalled:
                self._hold(envelope, size, must)
            else:
                session.used = True
                session.link.write(encode_batch([envelope]))
                self._stalled = session.link.paused
            return
        out = self._out
        out.append(envelope)
        if not self._scheduled:
            self._scheduled = True
            self._early = EARLY_ENVELOPES
            self._loop.call_soon(self.flush)
        elif len(out) >= self._early:
            self._flush_early()

    def _hold(self, envelope: Envelope, size: int, must: bool) -> None:
        limit = self._bounds.outbound_bytes_max
        if self.held_bytes + size > limit and not must:
            raise Overloaded(
                f"{self.held_bytes} bytes wait for {self.name} already: slow down, or see why it does not read",
                what="outbound_bytes_max",
                limit=limit,
            )
        self.held_bytes += size + 64
        self._out.append(envelope)
        if self.outbound is None:
            self._want_link(self)
        elif self.held_bytes > 4 * limit:
            self.outbound.link.abort()

    def gossip(self, message: Gossip) -> None:
        """Send a membership message, before anything that waits. The oldest is dropped beyond a bound."""
        session = self.outbound
        if session is None:
            self._urgent.append(message)
            self._want_link(self)
        else:
            session.link.write(encode_batch([News(message)]))

    # back-pressure

    async def room(self, seconds: float) -> None:
        """Wait until less than the high-water mark is held. Raises DeadlineExceeded, Unreachable: nothing was sent."""
        deadline = (now := self._loop.time()) + seconds
        self._arm()
        while self._stalled and self.held_bytes > self._bounds.write_bytes_high:
            future: asyncio.Future[None] = self._loop.create_future()
            self._waiting.append((future, deadline, now))
            await future

    # the link

    @property
    def wants_link(self) -> bool:
        return bool(self._out or self._urgent)

    def forget_urgent(self) -> None:
        """A connection attempt failed; what was said about membership by then is stale."""
        self._urgent.clear()

    def attach(self, session: Session) -> None:
        """A link with this peer is open."""
        self.sessions.append(session)
        if self.outbound is None:
            self._use(session)

    def _use(self, session: Session) -> None:
        self.outbound = session
        self.stream_out += 1
        session.link.write(encode_batch([Stream(self.stream_out)]))
        self._stalled = session.link.paused
        self.flush()

    def follow(self, session: Session) -> None:
        """The other end has turned to a newer link, so the one that this end uses broke unnoticed: turn as well."""
        sessions = self.sessions
        if self.outbound is not None and sessions.index(session) > sessions.index(self.outbound):
            self.flush()
            self._use(session)

    def stop_using(self, session: Session) -> None:
        """Turn to another link for sending, if there is one; no order is lost, the stream changes."""
        if self.outbound is session:
            self.flush()
            self.outbound = None
            self._stalled = True
            spare = next((other for other in self.sessions if other is not session and not other.bye_said), None)
            if spare is not None:
                self._use(spare)
            elif self.wants_link:
                self._want_link(self)

    def detach(self, session: Session, error: RoostError) -> None:
        """The link is gone: calls that were written may have run, and fail with `error`; the rest awaits a new link."""
        self.sessions.remove(session)
        mattered = session is self.outbound or session is self.inbound
        if session is self.inbound:
            self.inbound = None
        if mattered:
            unsent = self._unsent()
            for number in [number for number in self.pending if number not in unsent]:
                future = self.pending.pop(number)[0]
                if not future.done():
                    future.set_exception(error)
        self.stop_using(session)
        self._scheduled = bool(self._out) and self.outbound is not None
        if self._scheduled:
            self._loop.call_soon(self.flush)

    def collect(self) -> None:
        """A batch is being read: what is sent meanwhile leaves with the `flush` at its end."""
        self._scheduled = True
        self._early = BATCH_ENVELOPES_MAX

    def _flush_early(self) -> None:
        """Let the other end begin while this one's tick goes on; each further frame of the tick is twice as long."""
        early = min(2 * self._early, BATCH_ENVELOPES_MAX)
        self.flush()
        self._scheduled = True  # the flush at the tick's end is still to come
        self._early = early

    def resumed(self, session: Session) -> None:
        """The link takes more again."""
        if session is self.outbound:
            self._stalled = False
            self.flush()

    def flush(self) -> None:
        """Write what the tick has collected as one frame."""
        self._scheduled = False
        session = self.outbound
        if session is None:
            return
        link = session.link
        while self._urgent:
            link.write(encode_batch([News(self._urgent.popleft())]))
        if link.paused:
            self._stalled = True
            return
        if self.held_bytes:
            self._flush_held(session)
        elif self._out:
            out = self._out
            self._out = []
            session.used = True
            link.write(encode_batch(out))
            if link.paused:
                self._stalled = True

    def _flush_held(self, session: Session) -> None:
        """Write what was held, frame by frame, as long as the link takes it."""
        link = session.link
        session.used = True
        held = self._out
        position = 0
        while position < len(held) and not link.paused:
            end = position
            size = 0
            while end < len(held) and end - position < BATCH_ENVELOPES_MAX and size <= OWN_FRAME_BYTES:
                size += 64 + _size(held[end])
                end += 1
            link.write(encode_batch(held[position:end]))
            self.held_bytes = max(0, self.held_bytes - size)
            position = end
        self._out = held[position:]
        self._stalled = link.paused
        if not self._out:
            self.held_bytes = 0
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self.held_bytes <= self._bounds.write_bytes_high:
            future = self._waiting.popleft()[0]
            if not future.done():
                future.set_result(None)

    # endings

    def sweep(self, now: float) -> None:
        """End what is past its deadline, and tell the other end of callers that gave up."""
        ended = [number for number, (future, until, _) in self.pending.items() if until <= now or future.done()]
        if ended:
            unsent = self._unsent()
            self._unsend(unsent.intersection(ended))
            for number in ended:
                future, _, started = self.pending.pop(number)
                sent = number not in unsent
                if sent:
                    self.cancel(number)
                if not future.done():
                    elapsed = now - started
                    text = f"no answer from {self.name} within {elapsed:.2f} s" + (
                        "" if sent else "; it was never sent"
                    )
                    future.set_exception(DeadlineExceeded(text, elapsed=elapsed, may_have_run=sent))
        for number in [number for number, (_, until) in self.running.items() if until <= now]:
            self.running.pop(number)[0].cancel()
        for waiting, until, started in list(self._waiting):
            if until <= now and not waiting.done():
                text = f"{self.name} does not take what is sent to it"
                waiting.set_exception(DeadlineExceeded(text, elapsed=now - started, may_have_run=False))
        while self._waiting and self._waiting[0][0].done():
            self._waiting.popleft()

    @property
    def busy(self) -> bool:
        """Something here has a deadline."""
        return bool(self.pending or self.running or self._waiting)

    def cancel(self, number: int) -> None:
        """Tell the other end that nobody waits for that call."""
        if self.outbound is not None:
            self.send(Cancel(number), must=True)

    def give_up(self, future: asyncio.Future[msgspec.Raw]) -> None:
        """The caller of `future` was cancelled: end its call at once."""
        for number, (waiting, _, _) in self.pending.items():
            if waiting is future:
                del self.pending[number]
                if number in self._unsent():
                    self._unsend({number})
                else:
                    self.cancel(number)
                return

    def _unsent(self) -> set[int]:
        """The calls that were never written to a link."""
        return {envelope.id for envelope in self._out if type(envelope) is Call}

    def _unsend(self, numbers: set[int]) -> None:
        if numbers:
            self._out = [e for e in self._out if not (type(e) is Call and e.id in numbers)]
            if self.held_bytes:
                self.held_bytes = sum(64 + _size(envelope) for envelope in self._out)
                self._wake()

    def drop(self, reason: str, last_seen: float | None) -> None:
        """The peer is down or gone: everything that waits for it fails now."""
        unsent = self._unsent()
        pending, self.pending = self.pending, {}
        self._out = []
        self._urgent.clear()
        self.held_bytes = 0
        for number, (future, _, _) in pending.items():
            if not future.done():
                may_have_run = number not in unsent
                future.set_exception(
                    Unreachable(reason, node=self.name, last_seen=last_seen, may_have_run=may_have_run)
                )
        while self._waiting:
            waiting = self._waiting.popleft()[0]
            if not waiting.done():
                waiting.set_exception(Unreachable(reason, node=self.name, last_seen=last_seen))
        for task, _ in list(self.running.values()):
            task.cancel()
        self.running.clear()


def _size(envelope: Envelope) -> int:
    return len(envelope.body) if isinstance(envelope, Call | Cast | Reply) else 0
