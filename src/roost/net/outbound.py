"""The sending half of a peer: what waits to be written, and how it is written.

All that a tick of the loop has for a peer is collected in `_out` and leaves as one frame, or, in a busy tick, as a few
of growing length, so that the other end works while this one does. While there is no link, or the link's buffer is
above its high-water mark, the peer is stalled: envelopes are held and counted in bytes, senders that can wait do so
(`room`), those that cannot get `Overloaded`, and a peer that lets more than four times the bound pile up is cut off.
Membership overtakes: `_urgent` is written first, full link or not.

A frame begins with the sender's clock (`Sent`), so that the receiver knows by how much it is later than others of its
link, and does not begin what nobody waits for any more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from roost.core.gossip import Gossip
from roost.errors import Overloaded, Unreachable
from roost.wire.frame import encode_batch, encode_large
from roost.wire.protocol import Call, Cast, Envelope, News, Reply, Sent

if TYPE_CHECKING:
    from roost.net.sessions import Session

__all__ = ["EARLY_ENVELOPES", "OWN_FRAME_BYTES", "Bounds", "Outbound"]

BATCH_ENVELOPES_MAX = 512
"""A longer queue is written within the tick, so that one burst does not become one huge frame."""
EARLY_ENVELOPES = 16
"""So many are written within the tick, so that both ends work at the same time; then 32, 64... up to the above."""
OWN_FRAME_BYTES = 16 * 1024
"""A larger body travels in a frame of its own."""
LONE_ENVELOPES_MAX = 2
URGENT_MAX = 64


class Bounds(msgspec.Struct, frozen=True):
    """The bounds of one peer, from the settings."""

    pending_calls_max: int
    outbound_bytes_max: int
    write_bytes_high: int


class Outbound:
    """A queue of envelopes towards one peer, and the link that it is written to."""

    __slots__ = (
        "_bounds",
        "_early",
        "_lone",
        "_loop",
        "_out",
        "_scheduled",
        "_stalled",
        "_time",
        "_urgent",
        "_waiting",
        "blocked",
        "held_bytes",
        "name",
        "outbound",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, bounds: Bounds, name: str) -> None:
        self._loop = loop
        self._time = loop.time
        self._bounds = bounds
        self.name = name
        self.outbound: Session | None = None
        """The link that is written to now."""
        self._out: list[Envelope] = []
        self._urgent: deque[Gossip] = deque(maxlen=URGENT_MAX)
        self._scheduled = False
        self._early = EARLY_ENVELOPES
        self._lone = True
        """The last batch was a clock and one answer: whoever calls next is likely to be alone, and need not wait."""
        self._stalled = True
        self.held_bytes = 0
        """Of what is held back while the peer is stalled; zero when all goes straight out."""
        self._waiting: deque[tuple[asyncio.Future[None], float, float]] = deque()
        self.blocked = False
        """On the blocklist: stalled, without a link, and nothing is held."""

    def need_link(self) -> None:
        """Something waits for a link."""
        raise NotImplementedError

    def arm(self) -> None:
        """Something has a deadline."""
        raise NotImplementedError

    def still_wanted(self, call: Call) -> bool:
        """A call that was held is about to be written: what is left of its deadline, or False if nobody waits."""
        raise NotImplementedError

    def send(self, envelope: Envelope, size: int = 0, *, must: bool = False) -> None:
        """Queue an envelope; `size` is that of the body, where it has one. `must` overrides the first bound."""
        if self._stalled:
            self._hold(envelope, size, must)
            return
        if size > OWN_FRAME_BYTES and isinstance(envelope, Call | Cast | Reply):
            self.flush()
            session = self.outbound
            if session is None or self._stalled:
                self._hold(envelope, size, must)
            else:
                session.used = True
                session.link.write(*encode_large(self._clock(), envelope))
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

    def block(self) -> None:
        """Let nothing through any more."""
        self.blocked = self._stalled = True
        self.outbound = None

    def check_open(self) -> None:
        """Raise Unreachable if the peer is on the blocklist."""
        if self.blocked:
            raise Unreachable(f"{self.name} is on the blocklist of this node", node=self.name)

    def _hold(self, envelope: Envelope, size: int, must: bool) -> None:
        if self.blocked and must:
            return  # lost, as on a link that is cut
        self.check_open()
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
            self.need_link()
        elif self.held_bytes > 4 * limit:
            self.outbound.link.abort()

    def gossip(self, message: Gossip) -> None:
        """Send a membership message, before anything that waits. The oldest is dropped beyond a bound."""
        session = self.outbound
        if self.blocked:
            return
        if session is None:
            self._urgent.append(message)
            self.need_link()
        else:
            session.link.write(encode_batch([News(message)]))

    async def room(self, seconds: float) -> None:
        """Wait until less than the high-water mark is held. Raises DeadlineExceeded, Unreachable: nothing was sent."""
        deadline = (now := self._loop.time()) + seconds
        self.arm()
        while self._stalled and self.held_bytes > self._bounds.write_bytes_high:
            future: asyncio.Future[None] = self._loop.create_future()
            self._waiting.append((future, deadline, now))
            await future

    @property
    def wants_link(self) -> bool:
        return bool(self._out or self._urgent)

    def forget_urgent(self) -> None:
        """A connection attempt failed; what was said about membership by then is stale."""
        self._urgent.clear()

    def collect(self, envelopes: int) -> None:
        """A batch is being read: what is sent meanwhile leaves with the `flush` at its end."""
        self._lone = envelopes <= LONE_ENVELOPES_MAX
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
            out.insert(0, self._clock())
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
                more = 64 + _size(held[end])
                if more > OWN_FRAME_BYTES and end > position:
                    break
                size += more
                end += 1
            batch = [each for each in held[position:end] if type(each) is not Call or self.still_wanted(each)]
            if size > OWN_FRAME_BYTES and len(batch) == 1 and isinstance(large := batch[0], Call | Cast | Reply):
                link.write(*encode_large(self._clock(), large))
            else:
                link.write(encode_batch([self._clock(), *batch]))
            self.held_bytes = max(0, self.held_bytes - size)
            position = end
        self._out = held[position:]
        self._stalled = link.paused
        if not self._out:
            self.held_bytes = 0
        self._wake()

    def _clock(self) -> Sent:
        return Sent(int(self._time() * 1000))

    def _wake(self) -> None:
        while self._waiting and self.held_bytes <= self._bounds.write_bytes_high:
            future = self._waiting.popleft()[0]
            if not future.done():
                future.set_result(None)

    def _unsent(self) -> set[int]:
        """The calls that were never written to a link."""
        return {envelope.id for envelope in self._out if type(envelope) is Call}

    def _unsend(self, numbers: set[int]) -> None:
        if numbers:
            self._out = [e for e in self._out if not (type(e) is Call and e.id in numbers)]
            if self.held_bytes:
                self.held_bytes = sum(64 + _size(envelope) for envelope in self._out)
                self._wake()


def _size(envelope: Envelope) -> int:
    return len(envelope.body) if isinstance(envelope, Call | Cast | Reply) else 0
