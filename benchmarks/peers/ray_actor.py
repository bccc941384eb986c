"""Ray: calls of an async actor from its driver process, on a cluster of this machine alone."""

from __future__ import annotations

import asyncio
import importlib
import os
import secrets
from typing import Any

from benchmarks.driver import calls_of, drive

__all__: list[str] = []

ray: Any = importlib.import_module("ray")


class Echo:
    """The answering end."""

    async def echo(self, payload: bytes) -> bytes:
        return payload

    async def pid(self) -> int:
        return os.getpid()


async def _main() -> None:
    actor = ray.remote(Echo).options(max_concurrency=2048).remote()

    async def echo(payload: bytes) -> bytes:
        answer: bytes = await actor.echo.remote(payload)
        return answer

    await drive(calls_of(echo), echoes=[echo], answering=[await actor.pid.remote()], between=[])


if __name__ == "__main__":
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else it leaves one in the user's home
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        asyncio.run(_main())
    finally:
        ray.shutdown()
