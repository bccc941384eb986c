"""A stretch of network to be disturbed: whoever connects to a TCP server goes through it.

Only for transports over TCP: it passes bytes on as they are, TLS and all. It can stand still (nothing passes, nobody is
told, new connections are taken and get no further) and hang up (a reset at both ends).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any, cast

from roost.net.address import format_address, parse_address
from roost.net.transport import Link, LinkOwner, Transport

__all__ = ["Relay", "RelayedTransport"]

RESET = struct.pack("ii", 1, 0)


class Relay:
    """All connections that go through it, and the same hand on all of them."""

    def __init__(self) -> None:
        self.still = False
        self.halves: dict[_Half, None] = {}

    async def open(self, address: str) -> tuple[asyncio.Server, str]:
        """A server that passes on to `address`, and its own address."""
        host, port = parse_address(address)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Half(self, host, port), host, 0)
        return server, format_address(host, server.sockets[0].getsockname()[1])

    def stand_still(self) -> None:
        self.still = True
        for half in self.halves:
            half.flow()

    def go_on(self) -> None:
        self.still = False
        for half in self.halves:
            half.flow()

    def hang_up(self) -> None:
        for half in list(self.halves):
            half.reset()


class _Half(asyncio.Protocol):
    """One of the two connections of a pair; the one that was accepted makes the other."""

    def __init__(self, relay: Relay, host: str = "", port: int = 0, other: _Half | None = None) -> None:
        self._relay = relay
        self._target = (host, port)
        self.other = other
        self._dialing: asyncio.Task[Any] | None = None
        self._transport: asyncio.Transport | None = None
        self._other_is_full = False
        self._reading = True
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._relay.halves[self] = None
        self.flow()
        if self.other is not None:
            self.other.other = self
            self.other.flow()
        else:
            self._dialing = asyncio.get_running_loop().create_task(self._dial())

    async def _dial(self) -> None:
        host, port = self._target
        try:
            await asyncio.get_running_loop().create_connection(lambda: _Half(self._relay, other=self), host, port)
        except OSError:
            self.reset()

    def flow(self) -> None:
        """Read exactly while there is somebody to pass it on to."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        wanted = self._may_pass
        if wanted and self._held:
            held, self._held = self._held, b""
            self.data_received(held)
        if wanted != self._reading:
            self._reading = wanted
            (transport.resume_reading if wanted else transport.pause_reading)()

    @property
    def _may_pass(self) -> bool:
        return self.other is not None and not self._relay.still and not self._other_is_full

    def data_received(self, data: bytes) -> None:
        if self._may_pass:
            assert self.other is not None and self.other._transport is not None
            self.other._transport.write(data)
        else:  # a loop may begin to read after `connection_made`, whatever that has asked for
            self._held += data
            self._reading = True
            self.flow()

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other._other_is_full = True
            self.other.flow()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other._other_is_full = False
            self.other.flow()

    def reset(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            bare: socket.socket | None = self._transport.get_extra_info("socket")
            if bare is not None:  # else it is gone already
                bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._relay.halves.pop(self, None)
        if self._dialing is not None:
            self._dialing.cancel()
        if self.other is not None and self.other._transport is not None:
            if exc is not None:
                self.other.reset()
            else:
                self.other._transport.close()


class RelayedTransport:
    """A transport over TCP whose address is the relay's, so that all who connect go through it."""

    def __init__(self, transport: Transport, relay: Relay) -> None:
        self._transport = transport
        self._relay = relay
        self._servers: list[asyncio.Server] = []

    async def listen(self, bind: str, accept: Callable[[Link], LinkOwner]) -> str:
        server, address = await self._relay.open(await self._transport.listen(bind, accept))
        self._servers.append(server)
        return address

    async def connect(self, address: str, own: Callable[[Link], LinkOwner], *, seconds: float) -> Link:
        return await self._transport.connect(address, own, seconds=seconds)

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        for server in self._servers:
            # Before 3.12 the stdlib's loop leaks the socket of whoever connects in the very turn in which a server is
            # closed (CPython issue 109564): let nobody in first, then let those who are in take their seats.
            for listening in server.sockets:
                loop.remove_reader(listening.fileno())
        await asyncio.sleep(0)
        for server in self._servers:
            server.close()
        await self._transport.close()
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()
