"""redis-py on asyncio: GET of 100 bytes over one connection and over 64, and pipelines of 64 over one."""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import subprocess
from time import perf_counter
from typing import Any

import uvloop

from benchmarks.driver import drive, free_port
from benchmarks.load import PAYLOAD, STALL_SECONDS, Outcome, latency, throughput

__all__: list[str] = []

KEY = "key"
PIPELINE = 64

redis: Any = importlib.import_module("redis.asyncio")
errors: Any = importlib.import_module("redis.exceptions")


async def _until_it_answers(client: Any) -> None:
    async with asyncio.timeout(STALL_SECONDS):
        while True:
            try:
                await client.ping()
            except errors.ConnectionError:
                await asyncio.sleep(0.02)
            else:
                return


async def _pipelines(client: Any, seconds: float) -> Outcome:
    """Keys a second, one pipeline after the other."""
    gc.collect()
    keys = 0
    started = perf_counter()
    async with asyncio.timeout(seconds + STALL_SECONDS):
        while perf_counter() < started + seconds:
            pipeline = client.pipeline(transaction=False)
            for _ in range(PIPELINE):
                pipeline.get(KEY)
            values = await pipeline.execute()
            if values[-1] != PAYLOAD:
                raise RuntimeError("redis answered something else")
            keys += PIPELINE
    return Outcome(keys, perf_counter() - started)


async def _main(port: int, pid: int) -> None:
    def client(connections: int) -> Any:
        return redis.Redis(host="127.0.0.1", port=port, max_connections=connections)

    one, many = client(1), client(64)
    await _until_it_answers(one)
    await one.set(KEY, PAYLOAD)

    async def get(client: Any, payload: bytes) -> object:
        return await client.get(KEY)

    get_one, get_many = functools.partial(get, one), functools.partial(get, many)
    if await get_many(PAYLOAD) != PAYLOAD:
        raise RuntimeError("redis answered something else")
    await throughput([get_many], 64, 0.1)
    jobs = {
        "one": functools.partial(latency, get_one),
        "calls-64": functools.partial(throughput, [get_many], 64),
        "pipeline-64": functools.partial(_pipelines, one),
    }
    await drive(jobs, echoes=[], answering=[pid], between=[])
    await one.aclose()
    await many.aclose()


if __name__ == "__main__":
    free = free_port()
    options = ["--port", str(free), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    try:
        uvloop.run(_main(free, server.pid))
    finally:
        server.terminate()
        server.wait(5)
