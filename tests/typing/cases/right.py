"""Everything here is right, and has exactly the type that is asserted."""

from __future__ import annotations

from typing import Any, assert_type

import msgspec

import roost


class Ping(roost.Request[str]):
    text: str


class Notice(roost.Message):
    text: str
    number: int = 0


class Session(msgspec.Struct, frozen=True):
    user: str
    hits: int = 0


class Sessions(roost.KeyValuePartition[str, Session]):
    async def busiest(self, least: int) -> list[str]:
        return [key for key, session in self.items.items() if session.hits >= least]


class Tally(roost.Partition[str, int]):
    async def hit(self, by: int = 1) -> int:
        self.items[self.key] = self.items.get(self.key, 0) + by
        return self.items[self.key]

    async def total(self) -> int:
        return sum(self.items.values())


async def messages() -> None:
    async with roost.Node("a", bind="127.0.0.1:7400", seeds=["127.0.0.1:7401"], call_seconds=2.0) as node:
        await node.send("b", Notice("hello"))
        assert_type(await node.ask("b", Ping("up?"), timeout=1.0), str)
        report = await node.broadcast(Notice("deploying"))
        assert_type(report, roost.Delivery)
        for name, reason in report.missed.items():
            assert_type(name, str)
            assert_type(reason, roost.RoostError)
        async for letter in node.inbox(Notice):
            assert_type(letter.body, Notice)
            assert_type(letter.source, str)

        @node.answer(Ping)
        async def ping(letter: roost.Envelope[Ping]) -> str:
            return letter.body.text

        @node.answer(Ping)
        def plain(letter: roost.Envelope[Ping]) -> str:
            return letter.body.text

        await node.ready(3)
        async for event in node.members.watch():
            match event:
                case roost.MemberUp(member=member) | roost.MemberDown(member=member):
                    assert_type(member, roost.Member)
                case roost.MemberJoining() | roost.MemberLeaving() | roost.MemberForgotten():
                    pass
                case _:
                    assert_type(event, roost.MemberSuspect | roost.MemberLeft)


async def envelopes() -> None:
    node = roost.Node.from_peer_file("conf.json", pid=3456543, secret_file="secret", call_seconds=2.0)
    assert_type(node, roost.Node)
    assert_type(node.pid, int | None)
    assert_type(node.peers, list[str])
    assert_type(node.outbox, roost.Outbox)
    envelope = roost.Envelope(to=4567654, id=1729, body="Hi There!")
    assert_type(envelope, roost.Envelope[str])
    await node.outbox.put(envelope)
    await node.outbox.put(roost.Envelope(to="b", body={"numbers": [1, 2]}))
    node.outbox.put_nowait(roost.Envelope(to=roost.BROADCAST, body=Notice("hello")))
    async for letter in node.inbox(str):
        assert_type(letter, roost.Envelope[str])
        assert_type(letter.id, int)
        assert_type(letter.pid, int | None)
        await node.outbox.put(roost.Envelope(to=letter.source, id=letter.id, body=len(letter.body)))
    assert_type(node.inbox(list[int]), roost.Inbox[list[int]])
    assert_type((await anext(node.inbox(dict[str, float]))).body, dict[str, float])
    assert_type(node.inbox(Session), roost.Inbox[Session])
    assert_type(node.inbox(), roost.Inbox[Any])
    node.blocklist.add("b")
    node.blocklist |= {"c", "d"}
    node.blocklist = {"e"}
    node.blocklist.clear()


async def key_value(node: roost.Node) -> None:
    sessions = await node.kv("sessions", Session, handler=Sessions)
    await sessions.put("s1", Session("ann"))
    assert_type(await sessions.get("s1"), Session | None)
    assert_type(await sessions.delete("s1"), bool)
    assert_type(await sessions.size(), int)
    assert_type(await sessions.gather(Sessions.busiest, 3), dict[int, list[str]])
    async for key, value in sessions.scan(prefix="s"):
        assert_type(key, str)
        assert_type(value, Session)
    by_number = await node.kv("numbers", str, key=int, replicas=3, write="all", read="any", split="keep-majority")
    assert_type(await by_number.update(1, lambda old: (old or "") + "x"), str)
    assert_type(await by_number.put_if_absent(1, "x"), bool)
    versioned = await by_number.get_versioned(1)
    assert_type(versioned, roost.Versioned[str])
    assert_type(versioned.value, str | None)
    assert_type(await by_number.replace(1, "y", versioned.version), bool)
    await by_number.put(1, "one")
    assert_type(await by_number.get(1), str | None)


async def partitions(node: roost.Node) -> None:
    tallies = await node.partitions("tally", Tally)
    assert_type(await tallies.at("page:/home").hit(by=2), int)
    assert_type(await tallies.gather(Tally.total), dict[int, int])
