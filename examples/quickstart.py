"""Two nodes on this machine: they talk, and share a key/value store that moves as they come and go.

Run it twice:

    python quickstart.py one        # in one terminal
    python quickstart.py two        # in another
"""

import asyncio
import sys

import roost


class Hello(roost.Request[str]):  # a message that is answered with a str
    name: str


async def one() -> None:
    async with roost.Node("one", bind="127.0.0.1:7401") as node:

        @node.answer(Hello)
        async def hello(letter: roost.Envelope[Hello]) -> str:
            return f"Hello {letter.body.name}, this is {node.name}; you write from {letter.source}."

        capitals = await node.kv("capitals", str)
        await capitals.put("France", "Paris")
        print("one is up, now start two")

        async for event in node.members.watch():
            print(event)
            if isinstance(event, roost.MemberLeft):
                break
        print("two took and gave back:", await capitals.get("Iceland"))


async def two() -> None:
    async with roost.Node("two", seeds=["127.0.0.1:7401"], bind="127.0.0.1:7402") as node:
        capitals = await node.kv("capitals", str)
        await node.ready(2)  # both agree on who is there

        answer = await node.ask("one", Hello("Ann"))
        print(answer)
        await capitals.put("Iceland", "Reykjavik")
        async for country, capital in capitals.scan():
            print(country, capital)


asyncio.run(one() if sys.argv[1:] == ["one"] else two())
