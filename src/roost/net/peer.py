"""The other end: its links, and the calls that await its answers.

Order. Each direction uses one link at a time. When a sender turns to another link it opens a new, higher *stream*
there; the receiver then ignores what is still to come of lower streams. So order is kept at the price of a loss,
which at-most-once allows.

A call that was written to a link that broke may have run; one that was never written has not: it is still in `_out`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from roost.errors import DeadlineExceeded, Overloaded, RoostError, Unreachable
from roost.net.outbound import EARLY_ENVELOPES, OWN_FRAME_BYTES, Bounds, Outbound
from roost.wire.frame import encode_batch
from roost.wire.protocol import Call, Cancel, Cast, Reply, Stream

if TYPE_CHECKING:
    from roost.net.sessions import Session

__all__ = ["Peer"]

GIVE_UP_AT_ONCE_MAX = 256
"""Looking for one call among more, for each of as many that are cancelled together, would hold up the loop."""
Pending = tuple[asyncio.Future[msgspec.Raw], float, float]
"""(the caller's future, deadline, start)"""


class Peer(Outbound):
    """One other node: a member or a client."""

    __slots__ = (
        "_arm",
        "_create_future",
        "_next_call",
        "_pending_max",
        "_want_link",
        "address",
        "carried",
        "connecting",
        "inbound",
        "inbox_messages_max",
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
        super().__init__(loop, bounds, name)
        self._want_link = want_link
        self._arm = arm
        self._create_future = loop.create_future
        self._pending_max = bounds.pending_calls_max
        self.uid = uid
        self.address = address
        self.role = role
        self._next_call = 0
        self.pending: dict[int, Pending] = {}
        self.running: dict[int, tuple[asyncio.Task[None], float]] = {}
        self.sessions: list[Session] = []
        self.inbound: Session | None = None
        self.inbox_messages_max = 0
        """What the other end has said of itself; 0 as long as there was no link."""
        self.stream_out = 0
        self.stream_in = 0
        self.carried: Counter[tuple[str, str]] = Counter()
        """The casts, by service and method, that were waiting when the present stream began, and so belong to it."""
        self.connecting: asyncio.Task[Any] | None = None

    def __repr__(self) -> str:
        state = "no link" if self.outbound is None else ("stalled" if self._stalled else "linked")
        return f"<Peer {self.name} {self.uid:016x} {state}, {len(self.pending)} calls pending>"

    def need_link(self) -> None:
        self._want_link(self)

    def arm(self) -> None:
        self._arm()

    def still_wanted(self, call: Call) -> bool:
        waiting = self.pending.get(call.id)
        if waiting is None or waiting[0].done():
            return False
        call.milliseconds = int((waiting[1] - self._time()) * 1000)
        return call.milliseconds > 0

    # calls

    def call(
        self, service: str, method: str, body: msgspec.Raw, seconds: float, trace: str | None = None
    ) -> asyncio.Future[msgspec.Raw]:
        """Send a call. Raises Overloaded, and then nothing was sent.

        The future ends with the answer's body or an error, at the latest after `seconds`.
        """
        pending = self.pending
        idle = not pending
        if idle:
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
            if self._scheduled:
                if len(out) >= self._early:
                    self._flush_early()
            elif idle and self._lone:  # nobody else has a call under way: don't wait for the tick's end
                self.flush()
            else:
                self._scheduled = True
                self._early = EARLY_ENVELOPES
                self._loop.call_soon(self.flush)
        future = self._create_future()
        now = self._time()
        pending[number] = (future, now + seconds, now)
        return future

    def cast(self, service: str, method: str, body: msgspec.Raw, trace: str | None = None) -> None:
        """Send a call that wants no answer. Raises Overloaded, and then nothing was sent."""
        self.send(Cast(service, method, body, trace), len(body))

    def reply(self, number: int, body: msgspec.Raw) -> None:
        """Answer a call. Never refuses: a peer that does not read its answers is cut off instead.

        Without any link the answer is dropped: the caller's end has failed the call when the link broke.
        """
        if self._scheduled and not self._stalled and len(body) <= OWN_FRAME_BYTES:
            out = self._out  # what `send` does, for speed
            out.append(Reply(number, body))
            if len(out) >= self._early:
                self._flush_early()
        elif self.outbound is not None or self.sessions:
            self.send(Reply(number, body), len(body), must=True)

    # the link

    def attach(self, session: Session) -> None:
        """A link with this peer is open."""
        self.sessions.append(session)
        if self.outbound is None:
            self._use(session)

    def _use(self, session: Session) -> None:
        self.outbound = session
        self.stream_out += 1
        self.carried = Counter((each.service, each.method) for each in self._out if type(each) is Cast)
        session.link.write(encode_batch([Stream(self.stream_out)]))
        self._stalled = session.link.paused
        self.flush()

    def follow(self, session: Session) -> bool:
        """The other end has turned to a newer link, so the one that this end uses broke unnoticed: turn as well."""
        sessions = self.sessions
        if self.outbound is not None and sessions.index(session) > sessions.index(self.outbound):
            self.flush()
            self._use(session)
            return True
        return False

    def restart_stream(self) -> None:
        """The other end lost a link, and on it perhaps what it said of credit: count anew, on the same link."""
        if self.outbound is not None:
            self.flush()
            self._use(self.outbound)

    def stop_using(self, session: Session, *, gone: bool = False) -> None:
        """Turn to another link for sending, if there is one; no order is lost, the stream changes."""
        if self.outbound is session:
            if not gone:
                self.flush()
            self.outbound = None
            self._stalled = True
            spare = next((other for other in self.sessions if other is not session and not other.bye_said), None)
            if spare is not None:
                self._use(spare)
            elif self.wants_link:
                self.need_link()

    def detach(self, session: Session, error: RoostError) -> None:
        """The link is gone: calls that were written may have run, and fail with `error`; the rest awaits a new link.

        After a good-bye from both ends nothing was under way, and nothing fails.
        """
        self.sessions.remove(session)
        parted = session.bye_said and session.bye_heard
        mattered = (session is self.outbound or session is self.inbound) and not parted
        if session is self.inbound:
            self.inbound = None
        if mattered:
            unsent = self._unsent()
            for number in [number for number in self.pending if number not in unsent]:
                future = self.pending.pop(number)[0]
                if not future.done():
                    future.set_exception(error)
        self.stop_using(session, gone=True)
        self._scheduled = bool(self._out) and self.outbound is not None
        if self._scheduled:
            self._loop.call_soon(self.flush)

    # endings

    def sweep(self, now: float) -> None:
        """End what is past its deadline, and tell the other end of callers that gave up."""
        # Before the calls: the room that those leave would wake all who wait, and each but the first would wait anew.
        for waiting, until, started in list(self._waiting):
            if until <= now and not waiting.done():
                text = f"{self.name} does not take what is sent to it"
                waiting.set_exception(DeadlineExceeded(text, elapsed=now - started, may_have_run=False))
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
        """The caller of `future` was cancelled: end its call at once, or among very many with the next sweep."""
        if len(self.pending) > GIVE_UP_AT_ONCE_MAX:
            return
        for number, (waiting, _, _) in self.pending.items():
            if waiting is future:
                del self.pending[number]
                if number in self._unsent():
                    self._unsend({number})
                else:
                    self.cancel(number)
                return

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
