"""One link of the simulator's network: frames as numbered datagrams, put in order at the other end.

A datagram that finds its way cut is sent again until the cut has lasted `give_up_seconds`; then the link breaks. An end
that is closed says so behind its last frame; one that is aborted, or broken, sends nothing again, and a reset overtakes
what is still on its way. Whatever comes, frames arrive in order and the first that is missing is the last.

Invariants, as over TCP: the owner's `closed` is called exactly once, after everything else, unless its process is dead;
nothing is given to it after `close` or `abort`; no callback happens within `write`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from roost.errors import DeadlineExceeded, ProtocolError
from roost.net.transport import LinkOwner
from roost.wire.handshake import HANDSHAKE_BYTES_MAX

if TYPE_CHECKING:
    from roost.net.memory import MemoryTransport

__all__ = ["MemoryLink"]

log = logging.getLogger("roost.net")


class MemoryLink:
    """One end. Each frame is a numbered datagram; the far end delivers in order."""

    def __init__(self, transport: MemoryTransport, target: MemoryTransport, remote: str, *, accepted: bool) -> None:
        self._transport = transport
        self._network = transport.network
        self._loop = transport.network.loop
        self.host = transport.host
        self.other_host = target.host
        self.remote = remote
        self.binding = b""
        self.certified: tuple[str, ...] | None = None
        self.accepted = accepted
        self.paused = False
        self.frame_bytes_max = HANDSHAKE_BYTES_MAX
        self.is_proven = False
        self.owner: LinkOwner | None = None
        self.other: MemoryLink | None = None
        self._bytes_high = transport.settings.write_bytes_high
        self._sent = 0
        self._expected = 0
        self._early: dict[int, bytes | None] = {}
        self._buffered = 0
        self._open = True
        self._closing = False
        self._dropped = False
        """What is not with the other end by now never will be."""
        self._stuck_since: float | None = None
        seconds = transport.settings.handshake_seconds
        self._expiry = self._loop.call_later(seconds, self._expire, seconds)
        transport.links.append(self)
        self._network.add(self)

    # out

    def established(self) -> None:
        self.is_proven = True
        self._expiry.cancel()

    def write(self, frame: bytes, *more: bytes | memoryview) -> None:
        if more:
            frame = b"".join((frame, *more))
        if self._open and not self._closing:
            self._post(frame)

    def buffered(self) -> int:
        return self._buffered if self._open else 0

    def _post(self, frame: bytes | None) -> None:
        number = self._sent
        self._sent += 1
        if frame is not None:
            self._buffered += len(frame)
            self._network.frames += 1
            self._network.bytes += len(frame)
            if self._buffered > self._bytes_high:
                self.paused = True
        self._transmit(number, frame)
        if self._network.duplication and self._network.rng.random() < self._network.duplication:
            self._transmit(number, frame)

    def _transmit(self, number: int, frame: bytes | None) -> None:
        delay = self._network.delay(self.host, self.other_host)
        self._loop.call_later(delay, self._arrive, number, frame)

    def _arrive(self, number: int, frame: bytes | None) -> None:
        other = self.other
        assert other is not None
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
                self._end(TimeoutError("the other end does not acknowledge"))
            else:
                self._loop.call_later(self._network.retransmit_seconds, self._arrive_again, number, frame)
            return
        self._stuck_since = None
        if number < other._expected or number in other._early:
            return  # a double
        other._early[number] = frame
        if number == other._expected:
            other._deliver()

    def _arrive_again(self, number: int, frame: bytes | None) -> None:
        if not self._dropped:
            self._arrive(number, frame)

    def _drained(self, size: int) -> None:
        self._buffered -= size
        if self.paused and self._buffered < self._bytes_high // 2:
            self.paused = False
            if self._listens and self.owner is not None:
                self._tell(self.owner.writable)

    def probe(self) -> None:
        """A cut was mended: nothing to do but to forget how long it lasted."""
        self._stuck_since = None

    # in

    @property
    def _listens(self) -> bool:
        return self._open and not self._closing

    def _deliver(self) -> None:
        owner, sender = self.owner, self.other
        assert sender is not None
        while self._listens and self._expected in self._early:
            assert owner is not None
            frame = self._early.pop(self._expected)
            self._expected += 1
            if frame is None:
                self._end(None)
                return
            sender._drained(len(frame))
            if (size := len(frame)) > (limit := self.frame_bytes_max):
                self.fail(ProtocolError(f"a frame of {size} bytes was announced, the limit is {limit}"))
                return
            if self._network.observe is not None:
                self._network.observe(self.other_host, self.host, frame)
            self._tell(owner.received, memoryview(frame))
        if self._listens and owner is not None:
            self._tell(owner.batch_ended)

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        """Call the owner; its failure is the end of this link, and of nothing else."""
        try:
            what(*arguments)
        except ProtocolError as error:
            self.fail(error)
        except Exception as error:
            self._network.complain(f"link with {self.remote} closed after an unexpected error", error)
            self._break(error)

    # the end

    def close(self) -> None:
        if self._listens:
            self._closing = True
            self._post(None)
            self._loop.call_soon(self._end, None)

    def abort(self) -> None:
        if self._open and not self._dropped:
            self._closing = self._dropped = True
            self._loop.call_soon(self._end, None)
            self._reset_other()

    def die(self) -> None:
        """The process of this end is dead: its owner hears nothing any more, the other end gets a reset."""
        if self._open:
            self.vanish()
            self._reset_other()

    def vanish(self) -> None:
        """Be gone, and tell nobody."""
        self._open = False
        self._dropped = True
        self._leave()

    def fail(self, error: Exception) -> None:
        """End because of what the other end did or did not."""
        if self._listens:
            log.warning("link with %s closed: %s", self.remote, error)
            self._break(error)

    def _break(self, error: Exception) -> None:
        self._dropped = True
        self._reset_other()
        self._end(error)

    def _expire(self, seconds: float) -> None:
        self.fail(DeadlineExceeded(f"no handshake within {seconds:g} s", elapsed=seconds, may_have_run=False))

    def break_both(self, error: Exception) -> None:
        """Both ends see the link break."""
        if self._open:
            self._break(error)

    def _reset_other(self) -> None:
        other = self.other
        if other is not None and self._network.reaches(self.host, self.other_host):
            delay = self._network.delay(self.host, self.other_host)
            self._loop.call_later(delay, other._end, ConnectionResetError("connection reset by peer"))

    def _end(self, error: Exception | None) -> None:
        if self._open:
            self._open = False
            self._dropped = self._dropped or error is not None
            self._leave()
            if self.owner is not None:
                try:
                    self.owner.closed(error)
                except Exception as failure:
                    self._network.complain(f"the owner of the link with {self.remote} failed", failure)

    def _leave(self) -> None:
        self._expiry.cancel()
        self._network.remove(self)
        if self in self._transport.links:
            self._transport.links.remove(self)
