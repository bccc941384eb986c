"""One run of a node, from its start to its end: what has a uid.

A `Node` may start and stop many times; each time it gets a new `Run`, and nothing of the last one is left. The run
joins the parts: transport, peers, members, messaging; and it is the `Host` that services see. Its own decisions are
few: when a start has failed for good, when the node is up, and in which order a leave goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from roost.config import Settings
from roost.core.gossip import Entry, Gossip, Health
from roost.core.hashing import seed_of
from roost.core.membership import (
    ContactFailed,
    Dialed,
    GoUp,
    LeaveAsked,
    LeaveDone,
    LinkLost,
    LinkOpened,
    Membership,
    Received,
)
from roost.errors import AuthError, ConfigError, NameTaken, NotFound, RoostError, Unreachable, VersionSkew
from roost.net.blocklist import Blocklist
from roost.net.keyring import Keyring
from roost.net.peer import Peer
from roost.net.peers import Peers
from roost.net.transport import Transport
from roost.runtime import Runtime
from roost.services.host import Body, Handler
from roost.services.members import Members
from roost.services.messaging import Messaging
from roost.watchdog import Watch, watch
from roost.wire.handshake import SelfConnection
from roost.wire.protocol import PROTOCOL, Bounced, Call, Credit, Identity, Stream

__all__ = ["Run"]

log = logging.getLogger("roost.node")

ADMIN = "roost.admin"
FATAL = (AuthError, ConfigError, VersionSkew, NameTaken)
"""Refusals that another attempt with the same settings would only meet again."""


class Run:
    """The parts of a running node, joined."""

    def __init__(
        self,
        settings: Settings,
        runtime: Runtime,
        transport: Transport,
        keyring: Keyring | None,
        *,
        blocklist: Blocklist,
        library: str,
        ended: Callable[[RoostError], None],
    ) -> None:
        self.settings = settings
        self.runtime = runtime
        self.name = settings.name
        self.uid = int.from_bytes(runtime.token(8), "big") >> 1 or 1
        self.placement_seed = seed_of(settings.cluster) if settings.placement_seed is None else settings.placement_seed
        self.closed = False
        self._blocklist = blocklist
        self._library = library
        self._ended = ended
        self._services: dict[str, int] = {}
        self._drains: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self._up: asyncio.Future[None] = runtime.loop.create_future()
        self._refusals: dict[str, Exception] = {}
        self._warned: dict[str, str] = {}
        self.watch: Watch | None = None
        self.members = Members(runtime, self)
        self.peers = Peers(
            runtime,
            settings,
            transport,
            self,
            me=Identity(self.name or "starting", self.uid, ""),
            keyring=keyring,
            placement_seed=self.placement_seed,
            blocklist=blocklist,
        )
        self.messaging = Messaging(self.peers, self.members, settings)

    # life

    async def start(self) -> None:
        """Listen, join, and be up. Raises what a seed refused this node for, once no other seed is left."""
        address = await self.peers.listen()
        self._blocklist.tell(self.block_changed)
        settings = self.settings
        address = settings.advertise or address
        self.name = self.name or address
        self.peers.listening_as(Identity(self.name, self.uid, address))
        if settings.blocked_loop_seconds and not self.runtime.virtual:
            self.watch = watch(self.name, settings.blocked_loop_seconds)
        me = Entry(
            name=self.name,
            uid=self.uid,
            started=int(self.runtime.wall() * 1000),
            incarnation=1,
            state="joining",
            health=Health.ALIVE,
            address=address,
            roles=tuple(settings.roles),
            zone=settings.zone,
            weight=settings.weight,
            services=dict(self._services),
            library=self._library,
            protocol=PROTOCOL,
            application=settings.application,
        )
        core = Membership(
            me,
            settings.timings,
            seeds=settings.seeds,
            rng=self.runtime.rng,
            now=self.runtime.monotonic(),
            rejoin_seconds=settings.rejoin_seconds,
            forget_seconds=settings.forget_seconds,
            form_alone_seconds=settings.form_alone_seconds,
            name_taken_seconds=settings.name_taken_seconds,
            admit_seconds=settings.admit_seconds,
            flap_seconds=settings.flap_seconds,
        )
        self.members.start(core)
        await self._up

    async def leave(self) -> None:
        """Hand everything off within `leave_seconds`, tell the others, and stop."""
        self.members.step(LeaveAsked())
        if self._drains:
            drains = [self.runtime.spawn(drain(), name="hand-off") for drain in self._drains]
            _, late = await asyncio.wait(drains, timeout=self.settings.leave_seconds)
            for task in late:
                task.cancel()
            if late:
                log.warning("%s left with a hand-off unfinished after %s s", self.name, self.settings.leave_seconds)
            elif any(entry.uid != self.uid and entry.state == "up" for entry in self.members.entries()):
                # What callers had sent here before they learned where it went is answered: it did not run.
                await asyncio.sleep(self.settings.timings.probe_timeout_seconds)
        self.members.step(LeaveDone())
        await self.close()

    async def close(self) -> None:
        """Stop at once, without a word to the cluster but the closing of links."""
        self.closed = True
        self._blocklist.tell(None)
        if self.watch is not None:
            self.watch.stop()
        if not self._up.done():
            self._up.set_exception(Unreachable(f"{self.name} was stopped before it was up", node=self.name))
            self._up.exception()  # whoever started it may be gone already
        self.messaging.stop()
        self.members.stop()
        await self.peers.close()
        await self.runtime.cancel_tasks()

    # what the links report

    def link_opened(self, identity: Identity, dialed: str) -> None:
        self.members.step(LinkOpened(identity.uid, identity.name, identity.address, dialed))

    def link_lost(self, uid: int) -> None:
        self.members.step(LinkLost(uid))

    def contact_failed(self, address: str, uid: int, error: Exception, *, refused: bool) -> None:
        text = str(error)
        if isinstance(error, FATAL) and not isinstance(error, SelfConnection):
            if not uid and not self._up.done():
                self._refusals[address] = error
                others = [
                    seed for seed in self.settings.seeds if seed not in (self.members.me.address, *self._refusals)
                ]
                if not others:
                    self._fail(error)
                    return
            if self._warned.get(address) != text:
                self._warned[address] = text
                log.warning("%s: %s refused this node: %s", self.name, address, text)
        elif not uid and self._warned.get(address) != text:
            self._warned[address] = text
            log.info("%s: cannot reach %s yet: %s", self.name, address, text)
        self.members.step(ContactFailed(address, uid, refused))

    def gossip_received(self, uid: int, message: Gossip) -> None:
        self.members.step(Received(uid, message))

    def flow(self, peer: Peer, envelope: Credit | Bounced | Stream) -> None:
        self.messaging.flow(peer, envelope)

    # what the membership wants

    def send_gossip(self, uid: int, name: str, address: str, message: Gossip) -> None:
        self.peers.get(uid, name, address).gossip(message)

    def contact(self, address: str) -> None:
        if not any(entry.address == address and entry.name in self._blocklist for entry in self.members.entries()):
            self.peers.contact(address)

    def block_changed(self, name: str, blocked: bool) -> None:
        if blocked:
            for uid in self.peers.block(name):
                self.messaging.blocked(name, uid)
        else:
            self.peers.unblock(name)

    def joined(self) -> None:
        alone = all(entry.uid == self.uid for entry in self.members.entries())
        if alone and self._refusals:
            self._fail(next(iter(self._refusals.values())))
            return
        if alone and [seed for seed in self.settings.seeds if seed != self.members.me.address]:
            log.warning(
                "%s: no seed answered within %s s; it starts alone and keeps trying (%s)",
                self.name,
                self.settings.form_alone_seconds,
                "; ".join(f"{seed}: {self._warned.get(seed, 'no answer')}" for seed in self.settings.seeds),
            )
        self.runtime.loop.call_soon(self._go_up)

    def _go_up(self) -> None:
        if not self._up.done():
            self.members.step(GoUp())

    def _fail(self, error: Exception) -> None:
        if not self._up.done():
            self._up.set_exception(error)

    def dial(self, uid: int, address: str) -> None:
        async def dial() -> None:
            self.members.step(Dialed(uid, await self.peers.dial(uid, address)))

        self.runtime.spawn(dial(), name=f"dial {address}")

    def not_reached(self, said: Sequence[tuple[str, str]]) -> None:
        address = self.members.me.address
        answers = "; ".join(f"{name}: {reason}" for name, reason in said)
        self._fail(
            Unreachable(
                f"{self.name} has joined, but no member can reach it at {address}, which it advertises ({answers}): "
                f"set `advertise` to a host:port that the members can connect to, and open that port for them",
                node=self.name,
            )
        )

    def name_taken(self, holder: Entry) -> None:
        error = NameTaken(
            f"{self.name} is the name of a node at {holder.address} already: stop that one or choose another name",
            name=self.name,
            holder=holder.address,
        )
        if not self._up.done():
            self._up.set_exception(error)
        else:
            self._ended(error)

    def member_changed(self, before: Entry | None, after: Entry, *, forgotten: bool) -> None:
        gone = forgotten or after.state == "left" or after.health == Health.DOWN
        if after.uid == self.uid:
            if after.state == "up" and not self._up.done():
                self._up.set_result(None)
            return
        self.messaging.member_changed(after.name, after.uid, gone=gone)
        for service, digest in after.services.items():
            mine = self._services.get(service)
            if (
                not gone
                and mine is not None
                and mine != digest
                and (before is None or before.services != after.services)
            ):
                log.error(
                    "%s: %s hosts %s with other options: give both the same types, handler, replicas, write and split, "
                    "or what one writes the other cannot read or keep",
                    self.name,
                    after.name,
                    service,
                )
        if forgotten:
            self.peers.forget(after.uid)
        elif gone:
            what = "has left" if after.state == "left" else "is down"
            self.peers.drop(after.uid, f"{after.name} {what}", self.members.last_seen(after.uid))

    # what services see

    def entries(self) -> Sequence[Entry]:
        return self.members.entries()

    @property
    def settled(self) -> bool:
        return self.members.settled

    def call(self, uid: int, service: str, method: str, body: Body, *, seconds: float) -> asyncio.Future[msgspec.Raw]:
        try:
            peer = self._peer(uid)
            return peer.call(service, method, msgspec.Raw(body), seconds)
        except RoostError as error:
            failed: asyncio.Future[msgspec.Raw] = self.runtime.loop.create_future()
            failed.set_exception(error)
            return failed

    def cast(self, uid: int, service: str, method: str, body: Body) -> None:
        with contextlib.suppress(RoostError):  # as promised: lost without a word
            self._peer(uid).cast(service, method, msgspec.Raw(body))

    def _peer(self, uid: int) -> Peer:
        if self.closed:
            raise Unreachable(f"{self.name} has stopped", node=self.name)
        entry = self.members.get(uid)
        if entry is None:
            raise Unreachable(f"no member has the uid {uid:016x}")
        if uid != self.uid and (entry.state == "left" or entry.health == Health.DOWN):
            state = "left" if entry.state == "left" else "down"
            raise Unreachable(f"{entry.name} is {state}", node=entry.name, last_seen=self.members.last_seen(uid))
        return self.peers.get(uid, entry.name, entry.address)

    def serve(self, service: str, handler: Handler) -> None:
        self.peers.serve(service, handler)

    def announce(self, service: str, digest: int) -> None:
        if service in self._services:
            raise ConfigError(f"{service} is served already on {self.name}", todo="use the handle that exists")
        for entry in self.members.entries():
            other = entry.services.get(service)
            if other is not None and other != digest and entry.uid != self.uid and entry.health != Health.DOWN:
                raise ConfigError(
                    f"{service} has other options on {entry.name}",
                    todo="give the same types, handler, replicas, write, split and quorum on every node that hosts it",
                )
        self._services[service] = digest
        self.members.change_self({"services": dict(self._services)})

    def on_view(self, callback: Callable[[], None]) -> None:
        self.members.on_change(callback)

    def on_leave(self, drain: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._drains.append(drain)

    def serve_admin(self, status: Callable[[], dict[str, Any]]) -> None:
        """Answer `roost status`."""

        def answer(uid: int, call: Call) -> bytes:
            if call.method != "status":
                raise NotFound(f"{self.name} has no {call.method!r} for operators", name=call.method)
            return msgspec.msgpack.encode(status())

        self.serve(ADMIN, answer)
