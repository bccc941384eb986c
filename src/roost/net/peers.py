"""All other ends: finds or opens the link to a node, closes idle ones, sweeps deadlines.

Links open on first use and close when idle. Two nodes that connect to each other at the same moment get two links; each
keeps sending on its first, and the idle one goes in time. One coarse timer, armed only while something has a
deadline, ends calls and cancels handlers whose caller gave up.

A peer on the blocklist is behind a cut: it is not dialed, hears nothing from this end, not even a refusal, and the
membership is not told of it, so that it finds out by silence, as with a real cut.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

from roost.config import Settings
from roost.errors import AuthError, ConfigError, RoostError, Unreachable
from roost.net.blocklist import Blocklist
from roost.net.keyring import Keyring
from roost.net.outbound import Bounds
from roost.net.peer import Peer
from roost.net.sessions import Session, SessionOwner
from roost.net.switchboard import Handler, Here, Switchboard, SwitchboardOwner
from roost.net.transport import ConnectionRefused, Link, Transport
from roost.runtime import Runtime
from roost.wire.handshake import Handshake
from roost.wire.protocol import PROTOCOL, Facts, Identity

__all__ = ["Peers", "PeersOwner"]

log = logging.getLogger("roost.net")

SWEEP_SECONDS = 0.05
"""How late a deadline may be noticed."""
BACKOFF_SECONDS_MIN = 0.02


class PeersOwner(SwitchboardOwner, Protocol):
    """What the node does with what its links report."""

    def link_opened(self, identity: Identity, dialed: str) -> None: ...
    def link_lost(self, uid: int) -> None: ...
    def contact_failed(self, address: str, uid: int, error: Exception, *, refused: bool) -> None: ...


class Peers(SessionOwner):
    """The registry of peers and of the links to them."""

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
        blocklist: Blocklist | None = None,
    ) -> None:
        self.runtime = runtime
        self.settings = settings
        self.me = me
        self.by_uid: dict[int, Peer] = {}
        self._transport = transport
        self._owner = owner
        self._keyring = keyring
        self._placement_seed = placement_seed
        self._bounds = Bounds(settings.pending_calls_max, settings.outbound_bytes_max, settings.write_bytes_high)
        self._switchboard = Switchboard(runtime, settings, owner, self._arm)
        self._sweeper: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._contacting: dict[str, asyncio.Task[Any]] = {}
        self._blocklist = Blocklist() if blocklist is None else blocklist
        self._found_behind: dict[str, str] = {}
        """By the address that was dialed, the name of a blocked peer that answered there."""
        self._closed = False
        self._listening = False
        self._here = Here(self._switchboard, runtime, self._bounds, self._arm, me.uid)
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
        self._switchboard.close()
        await self._transport.close()

    def listening_as(self, me: Identity) -> None:
        """Who this node is, now that its address is known. Until then nobody is let in."""
        self.me = me
        self._switchboard.name = me.name
        self._here.name = me.name
        self._here.address = me.address
        self._listening = True

    def _accepted(self, link: Link) -> Session:
        if not self._listening:
            link.abort()
        return Session(self, link, frame_bytes_max=self.settings.frame_bytes_max)

    # what services use

    def serve(self, service: str, handler: Handler, *, gives_values: bool = False) -> None:
        """Answer calls to `service`. `gives_values`: its coroutines give values, to be encoded, and are user's code."""
        if service in self._switchboard.handlers:
            raise ConfigError(f"{service} is served already on {self.me.name}", todo="use the handle that exists")
        self._switchboard.handlers[service] = (handler, gives_values)

    def get(self, uid: int, name: str, address: str) -> Peer:
        """The peer of a member, made at its first use."""
        peer = self.by_uid.get(uid)
        if peer is None:
            peer = Peer(
                self.runtime.loop, self._bounds, self._want_link, self._arm, uid=uid, name=name, address=address
            )
            if name in self._blocklist:
                peer.block()
            self.by_uid[uid] = peer
        elif address:
            peer.address = address
        return peer

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

    def block(self, name: str) -> list[int]:
        """Cut off the peers of that name; returns their uids."""
        cut = [peer for peer in self.by_uid.values() if peer.name == name and peer is not self._here]
        for peer in cut:
            peer.block()
            self.drop(peer.uid, f"{name} is on the blocklist of {self.me.name}", None)
        return [peer.uid for peer in cut]

    def unblock(self, name: str) -> None:
        """Let the peers of that name be found again."""
        for peer in self.by_uid.values():
            if peer.name == name:
                peer.blocked = False

    # opening links

    def contact(self, address: str) -> None:
        """Open a link to whoever listens at `address`, unless an attempt is under way."""
        if self._found_behind.get(address) in self._blocklist:
            return
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
        owners: list[Session] = []

        def own(link: Link) -> Session:
            owners.append(Session(self, link, frame_bytes_max=self.settings.frame_bytes_max, dialed=address))
            return owners[0]

        async with asyncio.timeout(self.settings.handshake_seconds):
            await self._transport.connect(address, own, seconds=self.settings.handshake_seconds)
            session = owners[0]
            ready: asyncio.Future[None] = self.runtime.loop.create_future()
            session.begin(ready)
            try:
                await ready
            except BaseException:
                session.link.abort()
                raise
        return session

    async def dial(self, uid: int, address: str) -> str:
        """Open a link of its own to the node `uid`, only to see whether that can be done: "", or why it cannot."""
        known = self.by_uid.get(uid)
        if known is not None and known.blocked:
            return "it is on the blocklist"
        try:
            session = await self._open(address)
        except (ConnectionRefused, RoostError, TimeoutError) as error:
            return str(error) or f"no answer within {self.settings.handshake_seconds} s"
        peer = session.peer
        assert peer is not None
        if len(peer.sessions) > 1:
            peer.stop_using(session)
            session.say_bye("reached")
        return "" if peer.uid == uid else f"another node, {peer.name}, answers there"

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
                if not peer.wants_link:
                    break
                await asyncio.sleep(wait * self.runtime.rng.uniform(0.5, 1.0))
                wait = min(2 * wait, self.settings.reconnect_seconds_max)
        finally:
            if peer.connecting is asyncio.current_task():
                peer.connecting = None
        if peer.outbound is None and peer.wants_link:
            self._want_link(peer)

    # sessions

    def greeting(self, link: Link, *, initiator: bool) -> Handshake:
        settings = self.settings
        facts = Facts(
            cluster=settings.cluster,
            protocol=PROTOCOL,
            partitions=settings.partitions,
            placement_seed=self._placement_seed,
            wall_milliseconds=int(self.runtime.wall() * 1000),
            inbox_messages_max=settings.inbox_messages_max,
        )
        return Handshake(
            initiator=initiator,
            me=self.me,
            facts=facts,
            keyring=self._keyring,
            binding=link.binding,
            certified=link.certified,
            nonce=self.runtime.token(32),
            clock_ahead_max_seconds=settings.clock_ahead_max_seconds,
        )

    def ignores(self, session: Session, identity: Identity) -> bool:
        if identity.name not in self._blocklist:
            return False
        if session.dialed:
            self._found_behind[session.dialed] = identity.name
        return True

    def admit(self, session: Session, identity: Identity) -> Peer:
        if self._closed:
            raise AuthError(f"{self.me.name} is stopping")
        # No member's name has a space: a client cannot pass for one where its messages are read.
        name = identity.name if identity.role == "member" else f"{identity.name} (client)"
        known = self.by_uid.get(identity.uid)
        if known is not None:
            if (known.name, known.role, known.address or identity.address) != (
                name,
                identity.role,
                identity.address,
            ):
                raise AuthError(
                    f"{identity.name} at {identity.address} claims to be the run {known.uid:016x} of {known.name}"
                )
            return known
        peer = self.get(identity.uid, name, identity.address)
        peer.role = identity.role
        return peer

    def opened(self, session: Session) -> None:
        peer = session.peer
        assert peer is not None
        peer.attach(session)
        if peer.role == "member":
            self._owner.link_opened(Identity(peer.name, peer.uid, peer.address), session.dialed)

    def lost(self, session: Session, *, expected: bool) -> None:
        peer = session.peer
        assert peer is not None
        unknown = Unreachable(f"the link to {peer.name} broke during the call", node=peer.name, may_have_run=True)
        peer.detach(session, unknown)
        if peer.role != "member":
            if not peer.sessions:
                self.forget(peer.uid)
        elif not expected and not self._closed and not peer.blocked:
            self._owner.link_lost(peer.uid)

    def _close_idle(self) -> None:
        self._idle_timer = self.runtime.call_later(self.settings.idle_seconds / 2, self._close_idle)
        for peer in list(self.by_uid.values()):
            for session in list(peer.sessions):
                if not session.used and not peer.busy and not session.bye_said:
                    peer.stop_using(session)
                    session.say_bye("idle")
                session.used = False

    def incoming(self, session: Session, frame: memoryview) -> None:
        self._switchboard.incoming(session, frame)

    # deadlines

    def _arm(self) -> None:
        """Something has a deadline now."""
        if self._sweeper is None and not self._closed:
            self._sweeper = self.runtime.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        now = self.runtime.monotonic()
        busy = False
        for peer in list(self.by_uid.values()):
            if peer.busy:
                peer.sweep(now)
                busy = busy or peer.busy
        if busy:
            self._arm()
