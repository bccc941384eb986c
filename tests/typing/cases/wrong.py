"""Each line marked with E is a mistake that both type checkers find; no other line is one."""

from __future__ import annotations

import roost
from tests.typing.cases.right import Notice, Ping, Session, Sessions, Tally


class Echo(roost.Request[str]):
    text: str


async def mistakes(node: roost.Node) -> None:
    number: int = await node.ask("b", Ping("x"))  # E the answer is a str
    await node.ask("b", Notice("x"))  # E not a request
    await node.send("b", "hello")  # E not a message
    Notice(text=3)  # E the field is a str
    Notice("x").text = "y"  # E messages are frozen
    node.inbox(3)  # E not a type
    print(node.inbox(str).body)  # E an inbox is no envelope
    await node.outbox.put(Notice("x"))  # E not an envelope
    await node.outbox.put(roost.Envelope(to=3.5, body="x"))  # E neither a name nor a pid
    roost.Envelope(to="b", id="one", body="x")  # E the id is a number
    (await anext(node.inbox(str))).body = "y"  # E envelopes are frozen
    total: int = (await anext(node.inbox(str))).body  # E the body is a str
    node.blocklist.add(b"c")  # E a name is a str
    roost.Node.from_peer_file("conf.json", pid="one")  # E the pid is a number
    roost.Node("a", sedes=["127.0.0.1:1"])  # E no such setting
    roost.Node("a", call_seconds="soon")  # E a number
    sessions = await node.kv("sessions", Session)
    await sessions.put("a", 3)  # E the value is a Session
    await sessions.put(1, Session("ann"))  # E the key is a str
    await sessions.gather(Sessions.busiest)  # E an argument is missing
    await node.kv("sessions", Session, write="most")  # E no such choice
    await node.kv("sessions", Session, replicas="3")  # E a number
    await sessions.update("a", lambda old: 3)  # E the new value is a Session
    await sessions.replace("a", Session("ann"), 7)  # E no version
    tallies = await node.partitions("tally", Tally)
    await tallies.at("k").hit("3")  # E the argument is an int
    await tallies.at("k").hits()  # E no such command
    print(number, total)


def answers(node: roost.Node) -> None:
    @node.answer(Ping)  # E the answer is a str
    async def ping(letter: roost.Envelope[Ping]) -> int:
        return 1

    @node.answer(Ping)  # E the letter is a Ping
    async def other(letter: roost.Envelope[Echo]) -> str:
        return letter.body.text
