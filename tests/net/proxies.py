"""Somebody in between two nodes, over real sockets: one who passes bytes on, and one who opens TLS on the way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from roost.config import Settings
from roost.net.address import format_address, parse_address
from roost.net.tcp import TcpTransport
from roost.net.tls import TlsSource
from roost.net.transport import Link, LinkOwner
from roost.runtime import Runtime
from tests.net.ends import hang_up

__all__ = ["Change", "bytes_passed", "tls_opened"]

Change = Callable[[bytes, bool], bytes]
"""(the bytes of one read, whether they go to the acceptor) -> what is passed on in their place."""


@contextlib.asynccontextmanager
async def bytes_passed(address: str, change: Change) -> AsyncIterator[str]:
    """An address that leads to `address` through somebody who changes what he likes."""
    host, port = parse_address(address)
    pumps: list[asyncio.Task[None]] = []
    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, onward: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(change(data, onward))
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, port)
        writers.extend((writer, back))
        pumps.append(asyncio.create_task(pump(reader, back, True)))
        pumps.append(asyncio.create_task(pump(there, writer, False)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield format_address(*server.sockets[0].getsockname()[:2])
    finally:
        server.close()
        await hang_up(*writers)
        await asyncio.gather(*pumps)


class _Half:
    """One of the two links that are joined; what comes before the other is there is kept."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.other: _Half | None = None
        self.kept: list[bytes] = []
        self.seen = 0

    def join(self, other: _Half) -> None:
        self.other = other
        for frame in self.kept:
            other.link.write(frame)

    def received(self, frame: memoryview) -> None:
        self.seen += 1
        if self.other is None:
            self.kept.append(bytes(frame))
        else:
            self.other.link.write(bytes(frame))

    def batch_ended(self) -> None:
        """Nothing waits."""

    def writable(self) -> None:
        """Nothing waits."""

    def closed(self, error: Exception | None) -> None:
        if self.other is not None:
            self.other.link.close()


@contextlib.asynccontextmanager
async def tls_opened(address: str, tls: TlsSource) -> AsyncIterator[tuple[str, list[bytes]]]:
    """As above, through somebody who ends TLS with his own certificate at either side and reads what is within.

    Yields the address and the frames that he has read.
    """
    transport = TcpTransport(Runtime(), Settings(), tls)
    read: list[bytes] = []
    joining: list[asyncio.Task[None]] = []

    class Half(_Half):
        def received(self, frame: memoryview) -> None:
            read.append(bytes(frame))
            super().received(frame)

    async def join(front: Half) -> None:
        backs: list[Half] = []

        def own(link: Link) -> LinkOwner:
            backs.append(Half(link))
            return backs[0]

        try:
            await transport.connect(address, own, seconds=5.0)
        except Exception:
            front.link.close()
            raise
        front.join(backs[0])
        backs[0].join(front)

    def accept(link: Link) -> LinkOwner:
        front = Half(link)
        joining.append(asyncio.create_task(join(front)))
        return front

    trap = await transport.listen("127.0.0.1:0", accept)
    try:
        yield trap, read
    finally:
        await asyncio.gather(*joining, return_exceptions=True)
        await transport.close()
