"""Links over TCP: listening, connecting, TLS, and the bounds of connections that have not proved themselves.

A connection begins with a preface in plain text (`roost.wire.preface`), goes on with TLS if both ends want it, and is
then a link that its owner runs the handshake over. Until the owner calls `established`, a connection is *half-open*:
there are at most `half_open_max` accepted ones, each has `handshake_seconds` in all, and none may send a frame of more
than 4 KiB. For one too many, the oldest from the network that has most of them is closed. So strangers cost a fixed
amount of memory, and somebody who knows the secret gets in while they try, for certain from where they do not.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Any

from roost.config import Settings
from roost.errors import AuthError, ConfigError, DeadlineExceeded, Overloaded, ProtocolError, RoostError
from roost.net import same_host
from roost.net.address import format_address, is_ip, parse_address
from roost.net.certificates import names_in
from roost.net.silence import notice_silence
from roost.net.tcp_link import Buffers, TcpLink
from roost.net.tcp_preface import AcceptedPreface, ConnectingPreface
from roost.net.tls import TlsContexts, TlsSource, binding_of
from roost.net.transport import ConnectionRefused, Link, LinkOwner
from roost.runtime import Runtime

__all__ = ["TcpTransport"]

log = logging.getLogger("roost.net")

BACKLOG = 512
CLOSE_SECONDS = 2.0
"""What is queued in a link that is closed gets this long to leave."""

COMPLAINTS_MAX = 20
COMPLAINTS_SECONDS = 10.0
"""So many connections that were turned away are logged one by one in so many seconds, the others are counted."""

_LISTEN_ADVICE = {
    errno.EADDRINUSE: "stop what listens there, or choose another port (0 picks a free one)",
    errno.EADDRNOTAVAIL: "bind an address of this host",
    errno.EACCES: "choose a port above 1023",
}


class TcpTransport:
    """The `Transport` of nodes that reach each other directly."""

    def __init__(self, runtime: Runtime, settings: Settings, tls: TlsSource | None) -> None:
        self._runtime = runtime
        self._settings = settings
        self._tls = tls
        self._preface_wants = {"tls": tls is not None, "certified": tls is not None and tls.certified}
        self._servers: list[asyncio.AbstractServer] = []
        self._buffers = Buffers()
        self._links: dict[TcpLink, None] = {}
        self._half_open: dict[TcpLink, asyncio.TimerHandle] = {}
        self._upgrades: dict[TcpLink, asyncio.Task[Any]] = {}
        self._complaints = 0
        self._complaints_since = float("-inf")
        self._closed = False
        self._all_gone: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<TcpTransport of {len(self._links)} connections, {len(self._half_open)} of them half-open>"

    # listening

    async def listen(self, bind: str, accept: Callable[[Link], LinkOwner]) -> str:
        """See `Transport`. A host name stands for the first of its addresses."""
        host, port = parse_address(bind)
        where = f"bind {bind}"
        try:
            (address, *_) = await self._resolve(host)
            server = await self._runtime.loop.create_server(
                lambda: self._preface(accept), address, port, reuse_address=True, backlog=BACKLOG
            )
        except socket.gaierror as error:
            todo = "bind an address of this host"
            raise ConfigError(f"{host} has no address: {error.strerror}", where=where, todo=todo) from error
        except OSError as error:
            todo = _LISTEN_ADVICE.get(error.errno or 0, "choose another address")
            raise ConfigError(f"cannot listen: {_reason(error)}", where=where, todo=todo) from error
        self._servers.append(server)
        address, port = server.sockets[0].getsockname()[:2]
        if self._settings.same_host_sockets:
            beside = await same_host.listen(
                self._runtime.loop, lambda: self._preface(accept), address, port, backlog=BACKLOG
            )
            if beside is not None:
                self._servers.append(beside)
        return format_address(host, port)

    def _preface(self, accept: Callable[[Link], LinkOwner]) -> AcceptedPreface:
        link: TcpLink

        def made(preface: AcceptedPreface) -> None:
            nonlocal link
            link = self._link(preface.transport, accepted=True)
            if self._closed:
                link.abort()

        def agreed(preface: AcceptedPreface) -> None:
            if self._tls is None:
                self._hand_over(link, preface.transport, accept)
                return
            upgrade = self._accept_tls(link, preface.transport, self._tls.current(), accept)
            self._upgrades[link] = self._runtime.spawn(upgrade, name=f"accept {link.remote}")

        def failed(preface: AcceptedPreface, error: RoostError | None) -> None:
            if error is not None:
                self.turned_away(link, error)
            else:
                link.connection_lost(None)

        return AcceptedPreface(**self._preface_wants, made=made, agreed=agreed, failed=failed)

    def _hand_over(self, link: TcpLink, transport: asyncio.Transport, accept: Callable[[Link], LinkOwner]) -> None:
        """Plain text: the link reads the connection itself from now on."""
        transport.set_protocol(link)
        self._open_accepted(link, transport, accept, b"")
        if not transport.is_closing():
            transport.resume_reading()

    async def _accept_tls(
        self, link: TcpLink, bare: asyncio.Transport, tls: TlsContexts, accept: Callable[[Link], LinkOwner]
    ) -> None:
        try:
            transport = await self._start_tls(bare, link, tls.server, server_side=True)
        except OSError as error:
            link.fail(_tls_failed(error, tls))
            return
        finally:
            self._upgrades.pop(link, None)
        _take_names(link, transport, tls)
        self._open_accepted(link, transport, accept, tls.binding)

    def _open_accepted(
        self, link: TcpLink, transport: asyncio.Transport, accept: Callable[[Link], LinkOwner], binding: bytes
    ) -> None:
        try:
            link.open(transport, accept, binding=binding, write_bytes_high=self._settings.write_bytes_high)
        except Exception as error:
            if not transport.is_closing():
                log.error("the connection from %s found no owner: %r", link.remote, error, exc_info=error)
            link.abort()

    # connecting

    async def connect(self, address: str, own: Callable[[Link], LinkOwner], *, seconds: float) -> Link:
        """See `Transport`. Raises ConfigError for what is no address, VersionSkew if the prefaces differ."""
        host, port = parse_address(address)
        if self._closed:
            raise ConnectionRefused(f"cannot connect to {address}: this node is closing", refused=False)
        try:
            async with asyncio.timeout(seconds):
                transport, preface = await self._dial(host, port)
                return await self._greet(transport, preface, own)
        except TimeoutError as error:
            raise ConnectionRefused(f"{address} did not answer within {seconds:g} s", refused=False) from error
        except ssl.SSLError as error:
            raise AuthError(f"TLS with {address} failed: {_tls_reason(error)}") from error
        except OSError as error:
            refused = isinstance(error, ConnectionRefusedError)
            raise ConnectionRefused(f"cannot connect to {address}: {_reason(error)}", refused=refused) from error

    async def _dial(self, host: str, port: int) -> tuple[asyncio.Transport, ConnectingPreface]:
        """Try each address of `host` in turn; raises the last one's OSError."""
        loop = self._runtime.loop
        addresses = await self._resolve(host)

        def preface() -> ConnectingPreface:
            return ConnectingPreface(**self._preface_wants, loop=loop)

        for number, address in enumerate(addresses, 1):
            if self._settings.same_host_sockets and (beside := await same_host.dial(loop, preface, address, port)):
                return beside
            try:
                return await loop.create_connection(preface, address, port)
            except OSError:
                if number == len(addresses):
                    raise
        raise OSError(errno.EADDRNOTAVAIL, f"{host} has no address")

    async def _greet(
        self, bare: asyncio.Transport, preface: ConnectingPreface, own: Callable[[Link], LinkOwner]
    ) -> Link:
        link = self._link(bare, accepted=False)
        try:
            try:
                await preface.answered
            except ConnectionRefused as error:
                raise ConnectionRefused(f"cannot connect to {link.remote}: {error}", refused=False) from error
            if self._tls is None:
                transport, binding = bare, b""
                bare.set_protocol(link)
            else:
                tls = self._tls.current()
                transport = await self._start_tls(bare, link, tls.client, server_side=False)
                binding = binding_of(transport.get_extra_info("ssl_object"))
                _take_names(link, transport, tls)
                if tls.certified:
                    # TLS 1.3 leaves the client in the dark: it is done before the server has seen its certificate.
                    link.silent_end = AuthError(
                        f"{link.remote} hung up: it may not accept this node's certificate, and its log says why"
                    )
            link.open(transport, own, binding=binding, write_bytes_high=self._settings.write_bytes_high)
        except BaseException as error:
            link.abort()
            link.connection_lost(error if isinstance(error, Exception) else None)
            raise
        return link

    # both ends

    async def _resolve(self, host: str) -> list[str]:
        if is_ip(host):
            return [host]
        try:
            found = await self._runtime.loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise socket.gaierror(socket.EAI_NONAME, "not a host name") from error
        return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))

    async def _start_tls(
        self, bare: asyncio.Transport, link: TcpLink, context: ssl.SSLContext, *, server_side: bool
    ) -> asyncio.Transport:
        if bare.is_closing():
            raise ConnectionResetError("the connection was lost")
        transport = await self._runtime.loop.start_tls(
            bare,
            link,
            context,
            server_side=server_side,
            ssl_handshake_timeout=self._settings.handshake_seconds,
            ssl_shutdown_timeout=CLOSE_SECONDS,
        )
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the connection was lost")
        return transport

    def _link(self, transport: asyncio.Transport, *, accepted: bool) -> TcpLink:
        """A link for a new connection, counted and bounded as half-open."""
        settings = self._settings
        notice_silence(transport, settings.link_silent_seconds)
        link = TcpLink(transport, self, self._runtime, self._buffers, accepted=accepted, close_seconds=CLOSE_SECONDS)
        if accepted:
            unproven = [each for each in self._half_open if each.accepted]
            if len(unproven) >= settings.half_open_max:
                limit = settings.half_open_max
                _oldest_of_most(unproven).fail(
                    Overloaded("too many connections without a handshake", what="half_open_max", limit=limit)
                )
        self._links[link] = None
        self._half_open[link] = self._runtime.call_later(settings.handshake_seconds, self._expire, link)
        return link

    def _expire(self, link: TcpLink) -> None:
        seconds = self._settings.handshake_seconds
        link.fail(DeadlineExceeded(f"no handshake within {seconds:g} s", elapsed=seconds, may_have_run=False))

    def proven(self, link: TcpLink) -> None:
        """A link's handshake is done."""
        if timer := self._half_open.pop(link, None):
            timer.cancel()

    def turned_away(self, link: TcpLink, error: Exception) -> None:
        """Log it, but let nobody who floods the port flood the log, too."""
        now = self._runtime.monotonic()
        if now - self._complaints_since > COMPLAINTS_SECONDS:
            if self._complaints > COMPLAINTS_MAX:
                log.warning("%d more connections were turned away", self._complaints - COMPLAINTS_MAX)
            self._complaints = 0
            self._complaints_since = now
        self._complaints += 1
        if self._complaints <= COMPLAINTS_MAX:
            log.warning("connection %s %s closed: %s", "from" if link.accepted else "to", link.remote, error)

    def gone(self, link: TcpLink) -> None:
        """A connection is closed."""
        self.proven(link)
        self._links.pop(link, None)
        if upgrade := self._upgrades.pop(link, None):
            upgrade.cancel()
        if not self._links and self._all_gone is not None and not self._all_gone.done():
            self._all_gone.set_result(None)

    async def close(self) -> None:
        """See `Transport`: what is queued in established links gets a moment to leave."""
        self._closed = True
        upgrades = list(self._upgrades.values())
        for server in self._servers:
            server.close()
        for link in list(self._links):
            if link.is_proven:
                link.close()
            else:
                link.abort()
        if self._links:
            self._all_gone = self._runtime.loop.create_future()
            await self._all_gone
        if upgrades:
            await asyncio.wait(upgrades)
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()


def _oldest_of_most(links: list[TcpLink]) -> TcpLink:
    """Of links in the order of their age, the oldest from the network that has most of them."""
    networks = [_network_of(link.remote) for link in links]
    return links[networks.index(Counter(networks).most_common(1)[0][0])]


def _network_of(remote: str) -> str:
    """What one stranger has for himself: an address, or the /64 of IPv6 that comes with every connection."""
    host = remote.rpartition(":")[0].strip("[]").partition("%")[0]
    if ":" not in host:
        return host
    return str(ipaddress.IPv6Network((host, 64), strict=False).network_address)


def _take_names(link: TcpLink, transport: asyncio.Transport, tls: TlsContexts) -> None:
    if tls.check_names:
        link.certified = names_in(transport.get_extra_info("ssl_object"))


def _tls_failed(error: OSError, tls: TlsContexts) -> RoostError:
    """Where certificates decide who gets in, a handshake that fails is most likely about them."""
    if not isinstance(error, ssl.SSLError):
        return ProtocolError(f"TLS failed: {error or type(error).__name__}")
    return (AuthError if tls.certified else ProtocolError)(f"TLS failed: {_tls_reason(error)}")


def _tls_reason(error: ssl.SSLError) -> str:
    """What a person can act upon."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the other end's certificate is refused: {error.verify_message}"
    if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "the other end showed no certificate"
    return str(error)


def _reason(error: OSError) -> str:
    """In the system's words, which are the same on every loop."""
    if error.errno and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error) or type(error).__name__
