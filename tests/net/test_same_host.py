"""Processes of one host use a unix socket beside the port, and TCP wherever that cannot be trusted or is not there."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys

import pytest

import roost
from roost.config import Settings
from roost.net import same_host
from roost.net.tcp import TcpTransport
from roost.net.tcp_link import TcpLink
from roost.net.transport import ConnectionRefused
from roost.runtime import Runtime
from tests.net.ends import Ends, Recorder, descriptors, eventually, on_both_loops, plain_and_tls

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract names")

SQUATTER = """
import os, socket, sys
os.setuid(65534)
squatter = socket.socket(socket.AF_UNIX)
squatter.bind(sys.argv[1].replace("@", chr(0), 1))
squatter.listen()
print("ready", flush=True)
sys.stdin.read()
"""


def family(end: Recorder) -> int:
    link = end.link
    assert isinstance(link, TcpLink)
    bare = link._bare.get_extra_info("socket")
    return int(bare.family)


async def pair(ends: Ends, count: int = 1) -> tuple[Recorder, Recorder]:
    await ends.connecting.connect(ends.address, ends.own, seconds=10.0)
    return ends.connected[-1], await ends.accepts(count)


@plain_and_tls
@on_both_loops
async def test_frames_of_all_sizes_pass_both_ways_and_the_end_is_clean(tls: bool) -> None:
    async with Ends(tls=tls, same_host_sockets=True) as ends:
        one, other = await pair(ends)
        assert family(one) == family(other) == socket.AF_UNIX
        frames = [b"", b"x", b"y" * 70_000, b"z" * 5_000_000, b"last"]
        for frame in frames:
            one.link.write(frame)
            other.link.write(frame)
        await one.until(lambda: len(one.frames) == len(frames))
        await other.until(lambda: len(other.frames) == len(frames))
        assert one.frames == other.frames == frames
        one.link.close()
        assert await one.until_closed() is None
        assert await other.until_closed() is None


@on_both_loops
async def test_either_end_may_keep_to_tcp() -> None:
    for here, there in ((True, False), (False, True)):
        async with Ends(tls=False, same_host_sockets=there) as ends:
            ends.connecting = TcpTransport(Runtime(), Settings(bind="127.0.0.1:0", same_host_sockets=here), None)
            one, _ = await pair(ends)
            assert family(one) == socket.AF_INET


@on_both_loops
async def test_where_the_name_is_taken_the_port_serves_alone(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(same_host.name_of("127.0.0.1", port))
        transport = TcpTransport(Runtime(), Settings(same_host_sockets=True), None)
        try:
            assert await transport.listen(f"127.0.0.1:{port}", Recorder) == f"127.0.0.1:{port}"
            assert "by TCP only" in caplog.text
        finally:
            await transport.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
@on_both_loops
async def test_a_name_that_another_user_has_taken_is_not_trusted() -> None:
    async with Ends(tls=False) as ends:
        ends.connecting = TcpTransport(Runtime(), Settings(bind="127.0.0.1:0", same_host_sockets=True), None)
        port = int(ends.address.rpartition(":")[2])
        name = same_host.name_of("127.0.0.1", port).replace("\0", "@", 1)
        squatter = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SQUATTER, name, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert squatter.stdin is not None and squatter.stdout is not None
        try:
            assert await squatter.stdout.readline() == b"ready\n"
            one, _ = await pair(ends)
            assert family(one) == socket.AF_INET
        finally:
            squatter.stdin.close()
            await squatter.wait()


@on_both_loops
async def test_when_nobody_listens_any_more_the_refusal_is_a_hint_as_before() -> None:
    async with Ends(tls=False, same_host_sockets=True) as ends:
        one, other = await pair(ends)
        await ends.listening.close()
        await one.until_closed()
        await other.until_closed()
        with pytest.raises(ConnectionRefused) as caught:
            await ends.connecting.connect(ends.address, ends.own, seconds=5.0)
        assert caught.value.refused


@plain_and_tls
@on_both_loops
async def test_nodes_meet_by_it_and_leave_nothing_behind(tls: bool) -> None:
    before = descriptors()
    secret = secrets.token_urlsafe(32) if tls else ""
    for _ in range(3):
        async with (
            roost.Node("a", bind="127.0.0.1:0", profile="local", secret=secret, same_host_sockets=True) as a,
            roost.Node(
                "b", bind="127.0.0.1:0", profile="local", seeds=[a.address], secret=secret, same_host_sockets=True
            ) as b,
        ):
            await b.ready(2)
            remotes = [
                session.link.remote
                for node, other in ((a, b), (b, a))
                for session in node._running.peers.by_uid[other.uid].sessions
            ]
            assert remotes and set(remotes) == {"this host"}
    await eventually(lambda: descriptors() <= before)
