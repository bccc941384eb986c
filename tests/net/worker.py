"""A node as a process: `python -m tests.net.worker NAME SECRET_FILE [SEED]`. Prints its address once it is up."""

from __future__ import annotations

import asyncio
import sys

import uvloop

import roost


class WhoAreYou(roost.Request[str]):
    pass


async def main(name: str, secret_file: str, *seeds: str) -> None:
    async with roost.Node(
        name, bind="127.0.0.1:0", secret_file=secret_file, seeds=seeds, profile="local", partitions=64
    ) as node:

        @node.answer(WhoAreYou)
        def who(letter: roost.Envelope[WhoAreYou]) -> str:
            return node.name

        sys.stdout.write(node.address + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
