"""Two ends of a link for the tests of transports, and of real sockets for those of TCP, on either loop."""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import os
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any

import pytest
import uvloop

from roost.config import Settings
from roost.net.address import format_address
from roost.net.tcp import TcpTransport
from roost.net.tcp_link import TcpLink
from roost.net.tls import TlsContexts, make_contexts
from roost.net.transport import Link, LinkOwner, Transport
from roost.runtime import Runtime
from roost.wire.preface import PREFACE_BYTES, make_preface

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}
SECONDS_MAX = 30.0
CONTEXTS = make_contexts()

plain_and_tls = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on uvloop and on the stdlib's loop; it must leave no task and no descriptor behind."""

    async def body(*args: object, **kwargs: object) -> None:
        before = descriptors()
        await asyncio.wait_for(test(*args, **kwargs), SECONDS_MAX)
        await eventually(lambda: descriptors() <= before)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    @functools.wraps(test)
    def run(*args: object, loop_name: str, **kwargs: object) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
            runner.run(body(*args, **kwargs))

    signature = inspect.signature(test)
    loop_name = inspect.Parameter("loop_name", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), loop_name])  # type: ignore[attr-defined]  # what pytest reads
    marked: Callable[..., None] = pytest.mark.parametrize("loop_name", list(LOOPS))(run)
    return marked


def descriptors() -> int:
    """How many sockets this process has open."""
    return sum(_is_socket(fd) for fd in os.listdir("/proc/self/fd"))


def _is_socket(fd: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    except OSError:
        return False


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds, for things that tell nobody when they happen."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


class Recorder:
    """A link's owner that keeps what it is told, and can be waited for.

    `establish`: at once, never, or (None) with the first frame that comes.
    """

    def __init__(self, link: Link, *, establish: bool | None = True) -> None:
        self.link = link
        self.frames: list[bytes] = []
        self.batches = 0
        self.writable_count = 0
        self.closed_with: list[Exception | None] = []
        self.on_frame: Callable[[memoryview], None] = lambda frame: self.frames.append(bytes(frame))
        self._changed = asyncio.Event()
        self.establish_late = establish is None
        if establish:
            self.establish()

    def establish(self) -> None:
        self.link.established()
        self.link.frame_bytes_max = 64 * 1024 * 1024

    def received(self, frame: memoryview) -> None:
        assert not self.closed_with
        if self.establish_late:
            self.establish_late = False
            self.establish()
        try:
            self.on_frame(frame)
        finally:
            self._changed.set()

    def batch_ended(self) -> None:
        self.batches += 1

    def writable(self) -> None:
        assert not self.closed_with and not self.link.paused
        self.writable_count += 1
        self._changed.set()

    def closed(self, error: Exception | None) -> None:
        self.closed_with.append(error)
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that comes with a frame, a closing or room to write."""
        while not condition():
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), SECONDS_MAX)

    async def until_closed(self) -> Exception | None:
        """Wait for the end; what it was told. Exactly once, however long one waits."""
        await self.until(lambda: bool(self.closed_with))
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(self.closed_with) == 1
        return self.closed_with[0]


class Pairs:
    """A transport that listens, another that connects, and what both have for links."""

    def __init__(self, *, establish: bool | None = True) -> None:
        self.establish = establish
        self.address = ""
        self.accepted: list[Recorder] = []
        self.connected: list[Recorder] = []
        self.listening: Transport
        self.connecting: Transport
        self._waiting: list[asyncio.Future[None]] = []

    async def open(self, listening: Transport, connecting: Transport, bind: str) -> None:
        self.listening = listening
        self.connecting = connecting
        self.address = await listening.listen(bind, self.accept)

    async def close(self) -> None:
        await self.connecting.close()
        await self.listening.close()

    def accept(self, link: Link) -> LinkOwner:
        self.accepted.append(Recorder(link, establish=self.establish))
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        return self.accepted[-1]

    def own(self, link: Link) -> LinkOwner:
        self.connected.append(Recorder(link, establish=self.establish))
        return self.connected[-1]

    async def accepts(self, count: int) -> Recorder:
        """Wait until that many connections were accepted; the newest."""
        while len(self.accepted) < count:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await asyncio.wait_for(future, SECONDS_MAX)
        return self.accepted[count - 1]

    async def pair(self) -> tuple[Recorder, Recorder]:
        """A new link: the end that connected and the end that accepted. Nobody else may be connecting."""
        link = await self.connecting.connect(self.address, self.own, seconds=10.0)
        assert link is self.connected[-1].link
        return self.connected[-1], await self.accepts(len(self.connected))

    async def still_serves(self) -> None:
        """A legitimate peer gets in, and is answered."""
        one, other = await self.pair()
        other.on_frame = lambda frame: other.link.write(bytes(frame))
        one.link.write(b"still there?")
        await one.until(lambda: one.frames == [b"still there?"])
        one.link.close()
        assert await one.until_closed() is None
        assert await other.until_closed() is None


class Ends(Pairs):
    """Both over TCP, and strangers who say what they like."""

    def __init__(self, *, tls: bool, establish: bool | None = True, **settings: Any) -> None:
        super().__init__(establish=establish)
        self.tls = tls
        self.settings = Settings(bind="127.0.0.1:0", **{"same_host_sockets": False, **settings})

    async def __aenter__(self) -> Ends:
        runtime = Runtime()
        contexts: TlsContexts | None = CONTEXTS if self.tls else None
        listening = TcpTransport(runtime, self.settings, contexts)
        connecting = TcpTransport(runtime, self.settings, make_contexts() if self.tls else None)
        await self.open(listening, connecting, self.settings.bind)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def pair(self) -> tuple[Recorder, Recorder]:
        """As above, also while strangers connect."""
        link = await self.connecting.connect(self.address, self.own, seconds=10.0)
        assert isinstance(link, TcpLink) and link is self.connected[-1].link
        local = format_address(*link._bare.get_extra_info("sockname")[:2])
        for count in itertools.count(1):
            other = await self.accepts(count)
            if other.link.remote == local and not other.closed_with:
                return self.connected[-1], other
        raise AssertionError

    async def stranger(self, data: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A bare connection that says `data`."""
        host, _, port = self.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(data)
        return reader, writer

    async def greeted(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A bare connection that has said the right preface and was answered."""
        reader, writer = await self.stranger(make_preface(tls=self.tls))
        assert await reader.readexactly(PREFACE_BYTES) == make_preface(tls=self.tls)
        return reader, writer


async def all_that_comes(reader: asyncio.StreamReader) -> bytes:
    """What the other end says until it hangs up."""
    try:
        return await asyncio.wait_for(reader.read(), SECONDS_MAX)
    except ConnectionError:
        return b""


async def hang_up(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.transport.abort()
    for writer in writers:
        await _ignore_reset(writer.wait_closed())


async def _ignore_reset(waiting: Awaitable[None]) -> None:
    try:
        await waiting
    except ConnectionError:
        return
