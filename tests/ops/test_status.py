"""`roost status` against real nodes, and what it tells the shell when there is nothing good to tell."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

import roost
from roost.config import Settings
from roost.errors import NotFound, Unreachable
from roost.ops.client import connect
from roost.ops.loop import run

SECONDS_MAX = 30.0
NOTHING = msgspec.msgpack.encode(None)


class Ended(NamedTuple):
    """How a command ended."""

    code: int | None
    out: str
    err: str


async def command(folder: Path, *arguments: str, **environment: str) -> Ended:
    """Run `roost` in `folder`, as a shell would."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("ROOST_")}
    program = Path(sys.executable).parent / "roost"
    process = await asyncio.create_subprocess_exec(
        program, *arguments, stdout=PIPE, stderr=PIPE, cwd=folder, env=inherited | environment
    )
    out, err = await process.communicate()
    return Ended(process.returncode, out.decode(), err.decode())


def secret_in(folder: Path, name: str = "secret") -> str:
    file = folder / name
    file.touch(mode=0o600)
    file.write_text(secrets.token_urlsafe(32))
    return str(file)


@contextlib.asynccontextmanager
async def two_nodes(secret_file: str) -> AsyncIterator[tuple[roost.Node, roost.Node]]:
    async with (
        roost.Node("a", bind="127.0.0.1:0", secret_file=secret_file, profile="local") as a,
        roost.Node("b", bind="127.0.0.1:0", secret_file=secret_file, profile="local", seeds=[a.address]) as b,
    ):
        await a.ready(2)
        yield a, b


def bounded(test: Callable[[Path], Coroutine[Any, Any, None]]) -> Callable[[Path], None]:
    """Run an async test, and end it if it hangs."""

    def runs(tmp_path: Path) -> None:
        run(asyncio.wait_for(test(tmp_path), SECONDS_MAX))

    runs.__name__ = test.__name__
    return runs


@bounded
async def test_status_shows_every_member_and_exits_with_0(tmp_path: Path) -> None:
    secret_file = secret_in(tmp_path)
    async with two_nodes(secret_file) as (a, b):
        store = await a.kv("things", int)
        await store.put("one", 1)
        await b.kv("things", int)
        await a.ready(2)
        ended = await command(tmp_path, "status", "--address", a.address, "--secret-file", secret_file, "--json")
        assert (ended.code, ended.err) == (0, "")
        status = json.loads(ended.out)
        assert status["node"] == "a"
        assert status["settled"] is True
        assert {(member["name"], member["state"], member["address"]) for member in status["members"]} == {
            ("a", "up", a.address),
            ("b", "up", b.address),
        }
        assert "kv:things" in status["services"]

        shown = await command(tmp_path, "status", "--address", b.address, "--secret-file", secret_file)
        assert shown.code == 0
        assert all(word in shown.out for word in ("settled", a.address, b.address, "kv:things"))


@bounded
async def test_status_takes_address_and_secret_from_the_settings_too(tmp_path: Path) -> None:
    secret_file = secret_in(tmp_path)
    async with two_nodes(secret_file) as (a, _):
        (tmp_path / "roost.toml").write_text(f"bind = '{a.address}'\nsecret_file = '{secret_file}'\n")
        assert (await command(tmp_path, "status")).code == 0


@bounded
async def test_a_member_that_is_down_makes_it_exit_with_4(tmp_path: Path) -> None:
    secret_file = secret_in(tmp_path)
    async with two_nodes(secret_file) as (a, b):
        events = a.members.watch()
        await b.abandon()
        async for event in events:
            if isinstance(event, roost.MemberDown):
                break
        ended = await command(tmp_path, "status", "--address", a.address, "--secret-file", secret_file, "--json")
        assert ended.code == 4
        assert {member["name"]: member["state"] for member in json.loads(ended.out)["members"]} == {
            "a": "up",
            "b": "down",
        }


@bounded
async def test_a_wrong_secret_or_none_is_refused_in_one_line(tmp_path: Path) -> None:
    secret_file = secret_in(tmp_path)
    other = secret_in(tmp_path, "other")
    async with two_nodes(secret_file) as (a, _):
        for arguments in (["--secret-file", other], []):
            ended = await command(tmp_path, "status", "--address", a.address, *arguments)
            assert (ended.code, ended.out) == (1, "")
            assert ended.err.startswith("roost: ")
            assert ended.err.count("\n") == 1
            assert "secret" in ended.err


@bounded
async def test_one_who_only_asks_need_not_know_how_many_partitions_there_are(tmp_path: Path) -> None:
    async with roost.Node("a", bind="127.0.0.1:0", profile="local", partitions=64, placement_seed=5) as a:
        ended = await command(tmp_path, "status", "--address", a.address, "--json")
        assert (ended.code, ended.err) == (0, "")
        assert json.loads(ended.out)["node"] == "a"


@bounded
async def test_another_cluster_is_wrong_usage(tmp_path: Path) -> None:
    secret_file = secret_in(tmp_path)
    async with two_nodes(secret_file) as (a, _):
        arguments = ("status", "--address", a.address, "--secret-file", secret_file)
        ended = await command(tmp_path, *arguments, ROOST_CLUSTER="another")
        assert ended.code == 2
        assert ended.err.count("\n") == 1
        assert "cluster" in ended.err


@bounded
async def test_nobody_there_is_one_line_and_3(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    await server.wait_closed()
    ended = await command(tmp_path, "status", "--address", address)
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.count("\n") == 1
    assert address in ended.err


@bounded
async def test_somebody_who_never_answers_is_unreachable(tmp_path: Path) -> None:
    held = []
    server = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0)
    async with server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ended = await command(tmp_path, "status", "--address", address, ROOST_HANDSHAKE_SECONDS="0.5")
        assert ended.code == 3
        assert ended.err.count("\n") == 1
        for writer in held:
            writer.close()


@bounded
async def test_a_client_is_no_member_and_leaves_nothing_behind(tmp_path: Path) -> None:
    secret_file = secret_in(tmp_path)
    async with two_nodes(secret_file) as (a, b):
        async with connect(a.address, Settings(secret_file=secret_file)) as client:
            assert client.node == "a"
            assert msgspec.msgpack.decode(await client.call("roost.admin", "status", NOTHING, seconds=5))["node"] == "a"
            with pytest.raises(NotFound):
                await client.call("no.such.service", "status", NOTHING, seconds=5)
            with pytest.raises(NotFound):
                await client.call("roost.admin", "no such method", NOTHING, seconds=5)
            assert {member.name for node in (a, b) for member in node.members} == {"a", "b"}
            assert a.settled
        assert {member.name for node in (a, b) for member in node.members} == {"a", "b"}


@bounded
async def test_a_client_hears_that_its_node_has_stopped(tmp_path: Path) -> None:
    secret_file = secret_in(tmp_path)
    async with (
        two_nodes(secret_file) as (_, b),
        connect(b.address, Settings(secret_file=secret_file)) as client,
    ):
        await b.stop()
        with pytest.raises(Unreachable):
            await client.call("roost.admin", "status", NOTHING, seconds=1)
