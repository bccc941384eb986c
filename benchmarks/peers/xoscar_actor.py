"""xoscar: calls of an actor that lives in a pool's other process."""

from __future__ import annotations

import importlib
from typing import Any

import uvloop

from benchmarks.driver import calls_of, drive, large_of

__all__: list[str] = []

xoscar: Any = importlib.import_module("xoscar")


class Echo(xoscar.StatelessActor):  # type: ignore[misc]  # the library has no types
    """The answering end."""

    async def echo(self, payload: bytes) -> bytes:
        return payload

    async def size(self, payload: bytes) -> int:
        return len(payload)


async def _main() -> None:
    pool = await xoscar.create_actor_pool("127.0.0.1", n_process=1)
    async with pool:
        ((other, process),) = pool.sub_processes.items()
        actor = await xoscar.create_actor(Echo, address=other, uid="echo")
        jobs = calls_of(actor.echo) | large_of(actor.size)
        await drive(jobs, echoes=[actor.echo], answering=[process.pid], between=[])


if __name__ == "__main__":
    uvloop.run(_main())
