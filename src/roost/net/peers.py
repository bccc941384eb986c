"""All other ends: finds or opens the link to a node, hands arriving envelopes to their handlers, sweeps deadlines.

Links open on first use and close when idle. Two nodes that connect to each other at the same moment get two links; each
keeps sending on its first, and the idle one goes in time. One coarse timer, armed only while something has a
deadline, ends calls, cancels handlers whose caller gave up, and closes idle links.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import msgspec

from roost.config import Settings
from roost.core.gossip import Gossip
from roost.eager import Eager
from roost.errors import AuthError, NotFound, Overloaded, ProtocolError, RoostError, Unreachable
from roost.net.failures import from_failure, to_failure
from roost.net.keyring import Keyring
from roost.net.peer import Bounds, Peer
from roost.net.sessions import Session, SessionOwner
from roost.net.transport import ConnectionRefused, Link, Transport
from roost.runtime import Runtime
from roost.wire.frame import decode_batch
from roost.wire.handshake import Handshake
from roost.wire.protocol import (
    Bounced,
    Bye,
    Call,
    Cancel,
    Cast,
    Credit,
    Envelope,
    Facts,
    Failure,
    Identity,
    News,
    Reply,
    Stream,
)

__all__ = ["Handler", "Peers", "PeersOwner"]

log = logging.getLogger("roost.net")

SWEEP_SECONDS = 0.05
"""How late a deadline may be noticed."""
BACKOFF_SECONDS_MIN = 0.02

Body = bytes | msgspec.Raw
Handler = Callable[[int, Call], Body | Coroutine[Any, Any, Body]]


class PeersOwner(Protocol):
    """What the node does with what its links report."""

    def link_opened(self, identity: Identity) -> None: ...
    def link_lost(self, uid: int) -> None: ...
    def contact_failed(self, address: str, uid: int, error: Exception, *, refused: bool) -> None: ...
    def gossip_received(self, uid: int, message: Gossip) -> None: ...
    def flow(self, peer: Peer, envelope: Credit | Bounced | Stream) -> None: ...


class Peers(SessionOwner):
    """The registry of peers and the switchboard of envelopes."""

    def __init__(
        self,
        runtime: Runtime,
        settings: Settings,
        transport: Transport,
        owner: PeersOwner,
        *,
        me: Identity,
        keyring: Keyring | None,
        placement_seed: int,
    ) -> None:
        self.runtime = runtime
        self.settings = settings
        self.me = me
        self.by_uid: dict[int, Peer] = {}
        self.handlers: dict[str, Handler] = {}
        self._transport = transport
        self._owner = owner
        self._keyring = keyring
        self._placement_seed = placement_seed
        self._bounds = Bounds(settings.pending_calls_max, settings.outbound_bytes_max, settings.write_bytes_high)
        self._eager = Eager(runtime)
        self._sweeper: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._contacting: dict[str, asyncio.Task[Any]] = {}
        self._closed = False
        self._listening = False
        self._here = _Here(runtime.loop, self._bounds, self._want_link, uid=me.uid, name=me.name, address=me.address)
        self._here.peers = self
        self.by_uid[me.uid] = self._here

    # life

    async def listen(self) -> str:
        """Start listening; returns the real address."""
        address = await self._transport.listen(self.settings.bind, self._accepted)
        self._idle_timer = self.runtime.call_later(self.settings.idle_seconds / 2, self._close_idle)
        return address

    async def close(self) -> None:
        """Say good-bye on every link, then close them all."""
        self._closed = True
        for timer in (self._sweeper, self._idle_timer):
            if timer is not None:
                timer.cancel()
        for task in self._contacting.values():
            task.cancel()
        for peer in list(self.by_uid.values()):
            if peer.connecting is not None:
                peer.connecting.cancel()
            peer.flush()
            for session in list(peer.sessions):
                session.say_bye("the node stops")
            peer.drop("this node has stopped", None)
        self._eager.close()
        await self._transport.close()

    def listening_as(self, me: Identity) -> None:
        """Who this node is, now that its address is known. Until then nobody is let in."""
        self.me = me
        self._here.name = me.name
        self._here.address = me.address
        self._listening = True

    def _accepted(self, link: Link) -> Session:
        if not self._listening:
            link.abort()
        return Session(self, link, initiator=False, frame_bytes_max=self.settings.frame_bytes_max)

    # what services use

    def get(self, uid: int, name: str, address: str) -> Peer:
        """The peer of a member, made at its first use."""
        peer = self.by_uid.get(uid)
        if peer is None:
            peer = Peer(self.runtime.loop, self._bounds, self._want_link, uid=uid, name=name, address=address)
            self.by_uid[uid] = peer
        elif address:
            peer.address = address
        return peer

    def call(
        self, peer: Peer, service: str, method: str, body: msgspec.Raw, seconds: float, trace: str | None = None
    ) -> asyncio.Future[msgspec.Raw]:
        """Call a peer; see `Host.call`."""
        if self._sweeper is None and not self._closed:
            self._sweeper = self.runtime.call_later(SWEEP_SECONDS, self._sweep)
        return peer.call(service, method, body, seconds, trace)

    async def room(self, peer: Peer, seconds: float) -> None:
        """Wait until `peer` takes more; see `Peer.room`."""
        if self._sweeper is None:
            self._sweeper = self.runtime.call_later(SWEEP_SECONDS, self._sweep)
        await peer.room(seconds)

    def drop(self, uid: int, reason: str, last_seen: float | None) -> None:
        """A member is down: fail what waits for it, close its links."""
        peer = self.by_uid.get(uid)
        if peer is None or peer is self._here:
            return
        if peer.connecting is not None:
            peer.connecting.cancel()
            peer.connecting = None
        peer.drop(reason, last_seen)
        for session in list(peer.sessions):
            session.link.abort()

    def forget(self, uid: int) -> None:
        """A member is gone for good."""
        self.drop(uid, "the member is gone", None)
        self.by_uid.pop(uid, None)

    # opening links

    def contact(self, address: str) -> None:
        """Open a link to whoever listens at `address`, unless an attempt is under way."""
        if address not in self._contacting and not self._closed:
            task = self.runtime.spawn(self._contact(address, 0), name=f"contact {address}")
            self._contacting[address] = task
            task.add_done_callback(lambda _: self._contacting.pop(address, None))

    async def _contact(self, address: str, uid: int) -> bool:
        """One attempt. What went wrong is told to the owner, as a hint or for the user's eyes."""
        try:
            session = await self._open(address)
        except ConnectionRefused as error:
            self._owner.contact_failed(address, uid, error, refused=error.refused)
            return False
        except (RoostError, TimeoutError) as error:
            self._owner.contact_failed(address, uid, error, refused=False)
            return False
        assert session.peer is not None
        if uid and session.peer.uid != uid:
            taken = Unreachable(f"another run, {session.peer.name}, answers at {address}", node=session.peer.name)
            self._owner.contact_failed(address, uid, taken, refused=True)
            return False
        return True

    async def _open(self, address: str) -> Session:
        def own(link: Link) -> Session:
            nonlocal session
            session = Session(self, link, initiator=True, frame_bytes_max=self.settings.frame_bytes_max)
            return session

        session: Session | None = None
        async with asyncio.timeout(self.settings.handshake_seconds):
            await self._transport.connect(address, own, seconds=self.settings.handshake_seconds)
            assert session is not None
            ready: asyncio.Future[None] = self.runtime.loop.create_future()
            session.begin(ready)
            try:
                await ready
            except BaseException:
                session.link.abort()
                raise
        return session

    def _want_link(self, peer: Peer) -> None:
        if peer.connecting is None and not self._closed and peer.role == "member" and peer.address:
            peer.connecting = self.runtime.spawn(self._connect(peer), name=f"connect {peer.name}")

    async def _connect(self, peer: Peer) -> None:
        """Try until there is a link, or nothing to send any more; back-off doubles."""
        wait = BACKOFF_SECONDS_MIN
        try:
            while peer.outbound is None and peer.wants_link:
                if await self._contact(peer.address, peer.uid):
                    break
                peer.forget_urgent()
                if peer.outbound is not None or not peer.wants_link:
                    break
                await asyncio.sleep(wait * self.runtime.rng.uniform(0.5, 1.0))
                wait = min(2 * wait, self.settings.reconnect_seconds_max)
        finally:
            if peer.connecting is asyncio.current_task():
                peer.connecting = None
        if peer.outbound is None and peer.wants_link:
            self._want_link(peer)

    # sessions

    def greeting(self, *, initiator: bool, binding: bytes) -> Handshake:
        settings = self.settings
        facts = Facts(
            cluster=settings.cluster,
            protocol=(1, 1),
            partitions=settings.partitions,
            placement_seed=self._placement_seed,
            wall_milliseconds=int(self.runtime.wall() * 1000),
        )
        return Handshake(
            initiator=initiator,
            me=self.me,
            facts=facts,
            keyring=self._keyring,
            binding=binding,
            nonce=self.runtime.token(32),
            clock_ahead_max_seconds=settings.clock_ahead_max_seconds,
        )

    def admit(self, session: Session, identity: Identity) -> Peer:
        if self._closed:
            raise AuthError(f"{self.me.name} is stopping")
        peer = self.get(identity.uid, identity.name, identity.address)
        peer.role = identity.role
        return peer

    def opened(self, session: Session) -> None:
        peer = session.peer
        assert peer is not None
        peer.attach(session)
        if peer.role == "member":
            self._owner.link_opened(Identity(peer.name, peer.uid, peer.address))

    def lost(self, session: Session, *, expected: bool) -> None:
        peer = session.peer
        assert peer is not None
        unknown = Unreachable(f"the link to {peer.name} broke during the call", node=peer.name, may_have_run=True)
        peer.detach(session, unknown)
        if peer.role != "member":
            if not peer.sessions:
                self.forget(peer.uid)
        elif not expected and not self._closed:
            self._owner.link_lost(peer.uid)

    def _close_idle(self) -> None:
        self._idle_timer = self.runtime.call_later(self.settings.idle_seconds / 2, self._close_idle)
        for peer in list(self.by_uid.values()):
            for session in list(peer.sessions):
                if not session.used and not peer.busy and not session.bye_said:
                    peer.stop_using(session)
                    session.say_bye("idle")
                session.used = False

    # envelopes

    def incoming(self, session: Session, frame: memoryview) -> None:
        peer = session.peer
        assert peer is not None
        envelopes = decode_batch(frame)
        if peer.inbound is not session:
            envelopes = self._not_in_stream(peer, session, envelopes)
        peer.collect()
        pending = peer.pending
        for envelope in envelopes:
            kind = type(envelope)
            if kind is Reply:
                waiting = pending.pop(envelope.id, None)
                if waiting is not None and not waiting[0].done():
                    waiting[0].set_result(envelope.body)
            elif kind is Call:
                self._answer(peer, envelope)
            else:
                self._other(peer, session, envelope)

    def _not_in_stream(self, peer: Peer, session: Session, envelopes: list[Envelope]) -> list[Envelope]:
        """Turn to this link if the sender has; else let through only what belongs to no stream."""
        for position, envelope in enumerate(envelopes):
            if isinstance(envelope, Stream) and envelope.number > peer.stream_in:
                peer.stream_in = envelope.number
                peer.inbound = session
                self._owner.flow(peer, envelope)
                return envelopes[:position] + envelopes[position + 1 :]
        return [envelope for envelope in envelopes if isinstance(envelope, News | Bye)]

    def _other(self, peer: Peer, session: Session, envelope: Envelope) -> None:
        match envelope:
            case Cast():
                call = Call(0, envelope.service, envelope.method, envelope.body, 0, envelope.trace)
                self._answer(peer, call)
            case News():
                if peer.role == "member":
                    self._owner.gossip_received(peer.uid, envelope.body)
            case Failure():
                waiting = peer.pending.pop(envelope.id, None)
                if waiting is not None and not waiting[0].done():
                    waiting[0].set_exception(from_failure(envelope, peer.name))
            case Cancel():
                running = peer.running.pop(envelope.id, None)
                if running is not None:
                    running[0].cancel()
            case Credit() | Bounced():
                self._owner.flow(peer, envelope)
            case Bye():
                peer.stop_using(session)
                session.hear_bye()
                session.say_bye(envelope.reason)
            case _:
                raise ProtocolError(f"{peer.name} sent {type(envelope).__name__} out of place")

    def _answer(self, peer: Peer, call: Call) -> None:
        try:
            handler = self.handlers.get(call.service)
            if handler is None:
                raise NotFound(f"{self.me.name} does not serve {call.service!r}", name=call.service)
            answer = handler(peer.uid, call)
        except Exception as error:
            self._fail(peer, call.id, error)
            return
        if type(answer) is bytes:
            if call.id:
                peer.reply(call.id, msgspec.Raw(answer))
        elif type(answer) is msgspec.Raw:
            if call.id:
                peer.reply(call.id, answer)
        else:
            self._run(peer, call, answer)  # type: ignore[arg-type]  # what is no body is a coroutine

    def _run(self, peer: Peer, call: Call, work: Coroutine[Any, Any, Body]) -> None:
        if len(peer.running) >= self.settings.running_calls_max:
            work.close()
            limit = self.settings.running_calls_max
            text = f"{self.me.name} runs {limit} calls of {peer.name} already"
            self._fail(peer, call.id, Overloaded(text, what="running_calls_max", limit=limit))
            return
        task = self._eager.run(work, self._ended, (peer, call.id))
        if task is not None and call.id:
            until = self.runtime.monotonic() + call.milliseconds / 1000
            peer.running[call.id] = (task, until)
            if self._sweeper is None and not self._closed:
                self._sweeper = self.runtime.call_later(SWEEP_SECONDS, self._sweep)

    def _ended(self, whose: tuple[Peer, int], result: Body, error: BaseException | None) -> None:
        peer, number = whose
        if number:
            peer.running.pop(number, None)
        if error is not None:
            self._fail(peer, number, error)
        elif number:
            peer.reply(number, result if type(result) is msgspec.Raw else msgspec.Raw(result))

    def _fail(self, peer: Peer, number: int, error: BaseException) -> None:
        if number:
            if peer.outbound is not None or peer is self._here:
                peer.send(to_failure(number, error), must=True)
        else:
            log.warning("a message of %s could not be handled: %r", peer.name, error, exc_info=error)

    def _sweep(self) -> None:
        self._sweeper = None
        now = self.runtime.monotonic()
        busy = False
        for peer in list(self.by_uid.values()):
            if peer.busy:
                peer.sweep(now)
                busy = busy or peer.busy
        if busy and not self._closed:
            self._sweeper = self.runtime.call_later(SWEEP_SECONDS, self._sweep)


class _Here(Peer):
    """This very node: the same handlers, without codec and socket."""

    __slots__ = ("peers",)

    peers: Peers

    @property
    def wants_link(self) -> bool:
        return False

    def send(self, envelope: Envelope, size: int = 0, *, must: bool = False) -> None:
        # A reply may arrive before `call` has registered its future: the loop's next turn is soon enough.
        self._loop.call_soon(self._take, envelope)

    def reply(self, number: int, body: msgspec.Raw) -> None:
        waiting = self.pending.pop(number, None)
        if waiting is not None and not waiting[0].done():
            waiting[0].set_result(body)

    def cancel(self, number: int) -> None:
        self.send(Cancel(number))

    def gossip(self, message: Gossip) -> None:
        raise AssertionError("a node does not gossip with itself")

    def _take(self, envelope: Envelope) -> None:
        if isinstance(envelope, Call):
            self.peers._answer(self, envelope)
        else:
            self.peers._other(self, None, envelope)  # type: ignore[arg-type]  # no envelope to self touches the session
