"""A light link to one node, for tools: calls its services without being a member.

    async with connect("10.0.0.5:7400", settings) as client:
        answer = await client.call("roost.admin", "status", b"\\xc0", seconds=5.0)

The protocol is that of the nodes, spoken by the same parts: transport, handshake, sessions and peers. What makes it a
client is its role, which the handshake announces: the node tells the others nothing of it, and it listens nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec

from roost.config import Settings
from roost.core.gossip import Gossip
from roost.core.hashing import seed_of
from roost.errors import RoostError, Unreachable
from roost.net.certificates import tls_of
from roost.net.keyring import Keyring
from roost.net.peer import Peer
from roost.net.peers import Peers
from roost.net.tcp import TcpTransport
from roost.runtime import Runtime
from roost.wire.protocol import Bounced, Credit, Identity, Stream

__all__ = ["Client", "connect"]


class Client:
    """An open link to one node."""

    def __init__(self, peers: Peers, node: Identity) -> None:
        self._peers = peers
        self._node = node

    def __repr__(self) -> str:
        return f"<Client of {self._node.name} at {self._node.address}>"

    @property
    def node(self) -> str:
        """The name of the node at the other end."""
        return self._node.name

    async def call(self, service: str, method: str, body: bytes, *, seconds: float) -> bytes:
        """Call a service of the node; `body` and the answer are one msgpack value each.

        Raises Unreachable, DeadlineExceeded, NotFound (it has no such service), RemoteError (the service failed).
        """
        peer = self._peers.by_uid.get(self._node.uid)
        if peer is None or peer.outbound is None:
            raise Unreachable(f"the link to {self.node} is closed", node=self.node)
        return bytes(await peer.call(service, method, msgspec.Raw(body), seconds))


@contextlib.asynccontextmanager
async def connect(address: str, settings: Settings) -> AsyncIterator[Client]:
    """Open a link to the node at `address`, with the secret, TLS and cluster that `settings` say.

    Raises Unreachable if nobody answers there, and what the handshake refused: AuthError (the secret), ConfigError
    (the cluster or the address), VersionSkew.
    """
    runtime = Runtime()
    keyring = Keyring.from_settings(settings)
    transport = TcpTransport(runtime, settings, tls_of(settings, secured=keyring is not None))
    owner = _Owner(runtime.loop.create_future(), address)
    uid = int.from_bytes(runtime.token(8), "big") >> 1 or 1
    peers = Peers(
        runtime,
        settings,
        transport,
        owner,
        me=Identity(f"client-{uid:016x}", uid, "", "client"),
        keyring=keyring,
        placement_seed=seed_of(settings.cluster) if settings.placement_seed is None else settings.placement_seed,
    )
    try:
        peers.contact(address)
        yield Client(peers, await owner.node)
    finally:
        await peers.close()
        await runtime.cancel_tasks()


class _Owner:
    """What a client does with what its link reports: it waits for the handshake, and has no opinion on the rest."""

    def __init__(self, node: asyncio.Future[Identity], address: str) -> None:
        self.node = node
        self._address = address

    def link_opened(self, identity: Identity, dialed: str) -> None:
        if not self.node.done():
            self.node.set_result(identity)

    def contact_failed(self, address: str, uid: int, error: Exception, *, refused: bool) -> None:
        if self.node.done():
            return
        if isinstance(error, RoostError):
            self.node.set_exception(error)
        else:
            reason = str(error) or "the handshake took too long"
            self.node.set_exception(Unreachable(f"no node answers at {self._address}: {reason}"))

    def link_lost(self, uid: int) -> None:
        """Calls that are under way fail by themselves."""

    def gossip_received(self, uid: int, message: Gossip) -> None:
        """A client has no view of the members."""

    def flow(self, peer: Peer, envelope: Credit | Bounced | Stream) -> None:
        """A client sends no messages that could need credit."""
