"""What an idle link costs the node that holds it: 200 of them from one process, each a client's with its own handshake.

The first few links are not counted: they grow what all links share. The cost is what the node's resident memory grows
by, so it holds the buffers of the kernel's end no more than it holds the other end.
"""

from __future__ import annotations

import contextlib

from benchmarks.processor import resident_bytes
from benchmarks.servers import CLUSTER, start_all
from roost.config import Settings
from roost.ops.client import connect

__all__ = ["LINKS", "idle_link_bytes"]

LINKS = 200
LINKS_BEFORE = 20


async def idle_link_bytes(*, tls: bool) -> int:
    """Of the accepting end's memory, for each link."""
    settings = Settings(cluster=CLUSTER, tls=tls)
    with start_all("roost", 1, tls=tls) as (server,):
        async with contextlib.AsyncExitStack() as stack:

            async def open_links(count: int) -> None:
                for _ in range(count):
                    await stack.enter_async_context(connect(f"127.0.0.1:{server.port}", settings))

            await open_links(LINKS_BEFORE)
            before = resident_bytes(server.pid)
            await open_links(LINKS)
            return round((resident_bytes(server.pid) - before) / LINKS)
