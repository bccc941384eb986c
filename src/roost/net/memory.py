"""The simulator's network: links in one process, with delay, cuts, losses, duplicates and reordering, from one seed.

A `MemoryNetwork` joins hosts; each node has a `MemoryTransport` on it. Underneath, frames travel as numbered
datagrams that may be late, lost, doubled or overtaken. On top, a link keeps the port's promise as TCP does: it puts
frames in order, drops doubles, retransmits what was lost (which costs time), and breaks when a cut outlasts
`give_up_seconds`. A crash breaks links at once (the host's kernel answers for the dead process); a cut breaks nothing
until that time is over, which is what makes a silent host different from a dead one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from roost.errors import ConfigError, ProtocolError
from roost.net.transport import ConnectionRefused, Link, LinkOwner

__all__ = ["MemoryNetwork", "MemoryTransport"]

HANDSHAKE_BYTES_MAX = 4096
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
        buffer_bytes_high: int = 1024 * 1024,
    ) -> None:
        self.loop = loop
        self.rng = rng
        self.delay_seconds = delay_seconds
        self.jitter_seconds = jitter_seconds
        self.give_up_seconds = give_up_seconds
        self.buffer_bytes_high = buffer_bytes_high
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
        self._links: list[_MemoryLink] = []
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
        name, _, port = address.rpartition(":")
        if not name or not port.isdigit():
            raise ConfigError(f"{address!r} is not host:port", where="bind")
        if port == "0":
            self._next_port += 1
            address = f"{name}:{self._next_port}"
        if address in self._hosts:
            raise ConfigError(f"{address} is in use already", where="bind", todo="choose another port")
        self._hosts[address] = host
        return address

    def unregister(self, address: str) -> None:
        self._hosts.pop(address, None)

    def find(self, address: str) -> MemoryTransport | None:
        return self._hosts.get(address)

    def add(self, link: _MemoryLink) -> None:
        self._links.append(link)

    def remove(self, link: _MemoryLink) -> None:
        if link in self._links:
            self._links.remove(link)


class MemoryTransport:
    """One node's place on the network; `host` is what cuts and delays are named by."""

    def __init__(self, network: MemoryNetwork, host: str) -> None:
        self.network = network
        self.host = host
        self.address = ""
        self._accept: Callable[[Link], LinkOwner] | None = None
        self._links: list[_MemoryLink] = []
        self._dead = False

    async def listen(self, bind: str, accept: Callable[[Link], LinkOwner]) -> str:
        self.address = self.network.register(bind, self)
        self._accept = accept
        return self.address

    async def connect(self, address: str, own: Callable[[Link], LinkOwner], *, seconds: float) -> Link:
        network = self.network
        target = network.find(address)
        there = address if target is None else target.host
        try:
            async with asyncio.timeout(seconds):
                await self._travel(self.host, there)
                target = network.find(address)
                await self._travel(there, self.host)
        except TimeoutError as error:
            raise ConnectionRefused(f"{address} does not answer within {seconds} s", refused=False) from error
        target = network.find(address) if target is not None else None
        if target is None or target._accept is None or self._dead:
            raise ConnectionRefused(f"nothing listens at {address}", refused=True)
        near = _MemoryLink(self, target, accepted=False)
        far = _MemoryLink(target, self, accepted=True)
        near.other, far.other = far, near
        near.owner = own(near)
        far.owner = target._accept(far)
        return near

    async def _travel(self, source: str, target: str) -> None:
        while True:
            await asyncio.sleep(self.network.delay(source, target))
            if self.network.reaches(source, target):
                return
            await asyncio.sleep(self.network.retransmit_seconds)

    async def close(self) -> None:
        self._dead = True
        self.network.unregister(self.address)
        for link in list(self._links):
            link.close()

    def crash(self) -> None:
        """The process is gone in this instant: what it had queued is lost, and its links are reset."""
        self._dead = True
        self.network.unregister(self.address)
        for link in list(self._links):
            link.die()


class _MemoryLink:
    """One end. Each frame is a numbered datagram; the far end delivers in order."""

    def __init__(self, transport: MemoryTransport, target: MemoryTransport, *, accepted: bool) -> None:
        self._transport = transport
        self._network = transport.network
        self._loop = transport.network.loop
        self.host = transport.host
        self.other_host = target.host
        self.remote = target.address or target.host
        self.binding = b""
        self.accepted = accepted
        self.paused = False
        self.frame_bytes_max = HANDSHAKE_BYTES_MAX
        self.owner: LinkOwner | None = None
        self.other: _MemoryLink | None = None
        self._sent = 0
        self._expected = 0
        self._early: dict[int, bytes | None] = {}
        self._buffered = 0
        self._open = True
        self._closing = False
        self._stuck_since: float | None = None
        transport._links.append(self)
        self._network.add(self)

    def established(self) -> None:
        """Nothing here bounds half-open links."""

    def write(self, frame: bytes, *more: bytes | memoryview) -> None:
        if more:
            frame = b"".join((frame, *more))
        if self._open and not self._closing:
            self._post(frame)

    def _post(self, frame: bytes | None) -> None:
        number = self._sent
        self._sent += 1
        if frame is not None:
            self._buffered += len(frame)
            self._network.frames += 1
            self._network.bytes += len(frame)
            if self._buffered > self._network.buffer_bytes_high:
                self.paused = True
        self._transmit(number, frame)
        if self._network.duplication and self._network.rng.random() < self._network.duplication:
            self._transmit(number, frame)

    def _transmit(self, number: int, frame: bytes | None) -> None:
        delay = self._network.delay(self.host, self.other_host)
        self._loop.call_later(delay, self._arrive, number, frame)

    def _arrive(self, number: int, frame: bytes | None) -> None:
        other = self.other
        if other is None:
            return
        if not other._open:
            if frame is not None and self._network.reaches(other.host, self.host):
                # The other end is gone, and this one has not heard of it: the host there answers with a reset.
                self._loop.call_later(
                    self._network.delay(other.host, self.host), self._end, ConnectionResetError("connection reset")
                )
            return
        if not self._network.reaches(self.host, self.other_host):
            now = self._loop.time()
            if self._stuck_since is None:
                self._stuck_since = now
            if now - self._stuck_since > self._network.give_up_seconds:
                self._fail(TimeoutError("the other end does not acknowledge"))
            else:
                self._loop.call_later(self._network.retransmit_seconds, self._arrive, number, frame)
            return
        self._stuck_since = None
        if number < other._expected or number in other._early:
            return  # a double
        other._early[number] = frame
        if number == other._expected:
            other._deliver()

    def _deliver(self) -> None:
        owner, sender = self.owner, self.other
        assert owner is not None
        assert sender is not None
        while self._open and self._expected in self._early:
            frame = self._early.pop(self._expected)
            self._expected += 1
            if frame is None:
                self._end(None)
                return
            sender._drained(len(frame))
            if len(frame) > self.frame_bytes_max:
                self.break_both(ProtocolError(f"a frame of {len(frame)} bytes; the limit is {self.frame_bytes_max}"))
                return
            if self._network.observe is not None:
                self._network.observe(self.other_host, self.host, frame)
            owner.received(memoryview(frame))
        if self._open:
            owner.batch_ended()

    def _drained(self, size: int) -> None:
        self._buffered -= size
        if self.paused and self._buffered < self._network.buffer_bytes_high // 2 and self._open:
            self.paused = False
            assert self.owner is not None
            self.owner.writable()

    def buffered(self) -> int:
        return self._buffered

    def probe(self) -> None:
        """A cut was mended: nothing to do but to forget how long it lasted."""
        self._stuck_since = None

    def close(self) -> None:
        if self._open and not self._closing:
            self._closing = True
            self._post(None)
            self._loop.call_soon(self._end, None)

    def abort(self) -> None:
        if self._open:
            self._loop.call_soon(self._end, None)
            if self.other is not None:
                self._reset_other(ConnectionResetError("connection reset by peer"))
            self._closing = True

    def die(self) -> None:
        """The process of this end is dead: its owner hears nothing any more, the other end gets a reset."""
        if self._open:
            self._open = False
            self._leave()
            self._reset_other(ConnectionResetError("connection reset by peer"))

    def break_both(self, error: Exception) -> None:
        """Both ends see the link break."""
        if self._open:
            self._reset_other(error)
            self._end(error)

    def _reset_other(self, error: Exception) -> None:
        other = self.other
        if other is not None and self._network.reaches(self.host, self.other_host):
            self._loop.call_later(self._network.delay(self.host, self.other_host), other._end, error)

    def _fail(self, error: Exception) -> None:
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        if self._open:
            self._open = False
            self._leave()
            assert self.owner is not None
            self.owner.closed(error)

    def _leave(self) -> None:
        self._network.remove(self)
        if self in self._transport._links:
            self._transport._links.remove(self)
