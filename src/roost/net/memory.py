"""The simulator's network: links in one process, with delay, cuts, losses, duplicates and reordering, from one seed.

A `MemoryNetwork` joins hosts; each node has a `MemoryTransport` on it. Underneath, frames travel as numbered
datagrams that may be late, lost, doubled or overtaken. On top, a link keeps the port's promise as TCP does: it puts
frames in order, drops doubles, retransmits what was lost (which costs time), and breaks when a cut outlasts
`give_up_seconds`. A crash breaks links at once (the host's kernel answers for the dead process); a cut breaks nothing
until that time is over, which is what makes a silent host different from a dead one. What an end has dropped (by
`abort`, a crash, a broken protocol) is not retransmitted; what it had sent by then may still arrive, in order.

The settings bound links as they do over TCP: connections without a handshake in number and time, and what is buffered.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from roost.config import Settings
from roost.errors import ConfigError, Overloaded
from roost.net.address import parse_address
from roost.net.memory_link import MemoryLink
from roost.net.transport import ConnectionRefused, Link, LinkOwner

__all__ = ["MemoryNetwork", "MemoryTransport"]

RETRANSMIT_SECONDS_MAX = 2.0
"""Losses alone delay a datagram by about so much at most; longer silence is what cuts are for."""


class MemoryNetwork:
    """Who can reach whom, how fast and how well. Hosts are named by their address."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        rng: random.Random,
        *,
        delay_seconds: float = 0.0005,
        jitter_seconds: float = 0.0005,
        give_up_seconds: float = 15.0,
    ) -> None:
        self.loop = loop
        self.rng = rng
        self.delay_seconds = delay_seconds
        self.jitter_seconds = jitter_seconds
        self.give_up_seconds = give_up_seconds
        self.loss = 0.0
        """Of a frame, on every path; a lost frame is sent again after `retransmit_seconds`."""
        self.duplication = 0.0
        self.retransmit_seconds = 0.2
        self.slow: dict[str, float] = {}
        """Extra delay of everything to and from a host, in seconds."""
        self.frames = 0
        self.bytes = 0
        self.observe: Callable[[str, str, bytes], None] | None = None
        """Told of every frame on its delivery: (source host, target host, frame)."""
        self._cut: set[tuple[str, str]] = set()
        self._hosts: dict[str, MemoryTransport] = {}
        self._links: list[MemoryLink] = []
        self._next_port = 40_000

    # faults

    def cut(self, source: str, target: str) -> None:
        """Nothing gets from `source` to `target` any more; the other way is untouched."""
        self._cut.add((source, target))

    def mend(self, source: str | None = None, target: str | None = None) -> None:
        """Undo cuts; without arguments all of them."""
        self._cut = {(a, b) for a, b in self._cut if not (source in (None, a) and target in (None, b))}
        for link in list(self._links):
            link.probe()

    @property
    def is_cut(self) -> bool:
        """Somebody cannot reach somebody."""
        return bool(self._cut)

    def reaches(self, source: str, target: str) -> bool:
        return (source, target) not in self._cut

    def reset_links(self, host: str, other: str | None = None) -> None:
        """Break the links of a host (with one other) as a router that forgot its connections would."""
        for link in [link for link in self._links if link.host == host and other in (None, link.other_host)]:
            link.break_both(ConnectionResetError("connection reset"))

    # for transports and links

    def delay(self, source: str, target: str) -> float:
        """The time one datagram takes, losses and their retransmissions included."""
        seconds = self.delay_seconds + self.rng.random() * self.jitter_seconds
        seconds += self.slow.get(source, 0.0) + self.slow.get(target, 0.0)
        wait = self.retransmit_seconds
        while self.loss and seconds < RETRANSMIT_SECONDS_MAX and self.rng.random() < self.loss:
            seconds += wait
            wait *= 2
        return seconds

    def register(self, address: str, host: MemoryTransport) -> str:
        name, port = parse_address(address)
        if port == 0:
            self._next_port += 1
            address = f"{name}:{self._next_port}"
        if address in self._hosts:
            raise ConfigError(f"{address} is in use already", where=f"bind {address}", todo="choose another port")
        self._hosts[address] = host
        return address

    def unregister(self, address: str) -> None:
        self._hosts.pop(address, None)

    def find(self, address: str) -> MemoryTransport | None:
        return self._hosts.get(address)

    def add(self, link: MemoryLink) -> None:
        self._links.append(link)

    def remove(self, link: MemoryLink) -> None:
        if link in self._links:
            self._links.remove(link)

    def complain(self, what: str, error: Exception) -> None:
        """An owner of links failed in a way that nobody foresaw: the loop's handler hears of it, and so do tests."""
        self.loop.call_exception_handler({"message": what, "exception": error})


class MemoryTransport:
    """One node's place on the network; `host` is what cuts and delays are named by."""

    def __init__(self, network: MemoryNetwork, host: str, settings: Settings | None = None) -> None:
        self.network = network
        self.host = host
        self.address = ""
        self.settings = settings or Settings()
        self.links: list[MemoryLink] = []
        self._accepting: dict[str, Callable[[Link], LinkOwner]] = {}
        self._dead = False

    def __repr__(self) -> str:
        return f"<MemoryTransport of {self.host}: {len(self.links)} links>"

    async def listen(self, bind: str, accept: Callable[[Link], LinkOwner]) -> str:
        address = self.network.register(bind, self)
        self._accepting[address] = accept
        self.address = self.address or address
        return address

    async def connect(self, address: str, own: Callable[[Link], LinkOwner], *, seconds: float) -> Link:
        network = self.network
        parse_address(address)
        self._refuse_if_closed(address)
        target = network.find(address)
        there = address if target is None else target.host
        try:
            async with asyncio.timeout(seconds):
                await self._travel(self.host, there)
                target = network.find(address)
                await self._travel(there, self.host)
        except TimeoutError as error:
            raise ConnectionRefused(f"{address} did not answer within {seconds:g} s", refused=False) from error
        self._refuse_if_closed(address)
        accept = target._accepting.get(address) if target is not None else None
        if target is None or accept is None:
            raise ConnectionRefused(f"nothing listens at {address}", refused=True)
        near = MemoryLink(self, target, address, accepted=False)
        far = MemoryLink(target, self, self.address or self.host, accepted=True)
        near.other, far.other = far, near
        try:
            near.owner = own(near)
        except BaseException:
            near.vanish()
            far.vanish()
            raise
        target._take(far, accept)
        return near

    def _refuse_if_closed(self, address: str) -> None:
        if self._dead:
            raise ConnectionRefused(f"cannot connect to {address}: this node is closing", refused=False)

    def _take(self, link: MemoryLink, accept: Callable[[Link], LinkOwner]) -> None:
        unproven = [each for each in self.links if each.accepted and not each.is_proven]
        if len(unproven) > (limit := self.settings.half_open_max):
            text = "too many connections without a handshake"
            unproven[0].fail(Overloaded(text, what="half_open_max", limit=limit))
        try:
            link.owner = accept(link)
        except Exception as error:
            self.network.complain(f"the connection from {link.remote} found no owner", error)
            link.abort()

    async def _travel(self, source: str, target: str) -> None:
        while True:
            await asyncio.sleep(self.network.delay(source, target))
            if self.network.reaches(source, target):
                return
            await asyncio.sleep(self.network.retransmit_seconds)

    async def close(self) -> None:
        self._stop_listening()
        for link in list(self.links):
            if link.is_proven:
                link.close()
            else:
                link.abort()
        await asyncio.sleep(0)  # by then their owners have been told

    def crash(self) -> None:
        """The process is gone in this instant: what it had queued is lost, and its links are reset."""
        self._stop_listening()
        for link in list(self.links):
            link.die()

    def _stop_listening(self) -> None:
        self._dead = True
        for address in self._accepting:
            self.network.unregister(address)
        self._accepting.clear()
