"""Listening and connecting over TCP: what works, and what a person is told when it does not."""

from __future__ import annotations

import asyncio
import select
import socket
import struct

import pytest

from roost.errors import AuthError, ConfigError
from roost.net.transport import ConnectionRefused
from tests.net.ends import Ends, eventually, on_both_loops, plain_and_tls


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


@on_both_loops
async def test_a_port_in_use_is_a_config_error_that_says_what_to_do() -> None:
    async with Ends(tls=False) as ends:
        with pytest.raises(ConfigError) as caught:
            await ends.connecting.listen(ends.address, ends.accept)
        assert f"bind {ends.address}: cannot listen: Address already in use" in str(caught.value)
        assert "choose another port" in caught.value.todo
        await ends.still_serves()


@pytest.mark.parametrize(
    ("bind", "told"),
    [
        ("192.0.2.1:0", "bind an address of this host"),
        ("no-such-host.invalid:0", "no-such-host.invalid has no address"),
        ("localhost", "no address of the form host:port"),
    ],
)
@on_both_loops
async def test_an_address_that_cannot_be_bound_is_a_config_error(bind: str, told: str) -> None:
    async with Ends(tls=False) as ends:
        with pytest.raises(ConfigError, match=told):
            await ends.connecting.listen(bind, ends.accept)


@plain_and_tls
@pytest.mark.parametrize("host", ["[::1]", "localhost"])
@on_both_loops
async def test_names_and_ipv6_addresses_work(host: str, tls: bool) -> None:
    async with Ends(tls=tls) as ends:
        ends.address = await ends.listening.listen(f"{host}:0", ends.accept)
        assert ends.address.rpartition(":")[0] == host and not ends.address.endswith(":0")
        await ends.still_serves()


@pytest.mark.parametrize("address", ["no-such-host.invalid:1", "a..b:1"])
@on_both_loops
async def test_a_name_without_an_address_is_no_such_hint(address: str) -> None:
    async with Ends(tls=False) as ends:
        with pytest.raises(ConnectionRefused) as caught:
            await ends.connecting.connect(address, ends.own, seconds=5.0)
        assert not caught.value.refused


@plain_and_tls
@on_both_loops
async def test_a_host_that_does_not_answer_is_no_such_hint(tls: bool) -> None:
    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with Ends(tls=tls) as ends:
        address = f"127.0.0.1:{silent.sockets[0].getsockname()[1]}"
        with pytest.raises(ConnectionRefused, match=r"did not answer within 0\.2 s") as caught:
            await ends.connecting.connect(address, ends.own, seconds=0.2)
        assert not caught.value.refused
    silent.close()
    await silent.wait_closed()


@plain_and_tls
@on_both_loops
async def test_a_host_that_resets_the_connection_at_once_is_no_such_hint(tls: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        async with Ends(tls=tls) as ends:
            address = f"127.0.0.1:{server.getsockname()[1]}"
            connecting = asyncio.create_task(ends.connecting.connect(address, ends.own, seconds=5.0))
            while not select.select([server], [], [], 0)[0]:
                await asyncio.sleep(0)
            await asyncio.sleep(0)  # the loop has seen that it is connected, and told nobody yet
            connection, _ = server.accept()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
            with pytest.raises(ConnectionRefused, match=r"cannot connect to .*: ") as caught:
                await connecting
            assert not caught.value.refused
            assert ends.connected == []


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\x05junk!", b"\xff" * 8, b"\0" * 9]
)
@on_both_loops
async def test_what_listens_and_is_no_node_is_named_as_such(answer: bytes) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    other = await asyncio.start_server(say, "127.0.0.1", 0)
    async with Ends(tls=True) as ends:
        address = f"127.0.0.1:{other.sockets[0].getsockname()[1]}"
        with pytest.raises(ConnectionRefused, match=r"no roost node|hung up|Connection reset") as caught:
            await ends.connecting.connect(address, ends.own, seconds=5.0)
        assert not caught.value.refused
        assert ends.connected == []
    other.close()
    await other.wait_closed()


@plain_and_tls
@on_both_loops
async def test_tls_at_one_end_only_is_refused_with_what_to_do(tls: bool) -> None:
    async with Ends(tls=tls) as ends, Ends(tls=not tls) as others:
        with pytest.raises(AuthError, match="refused by the other end: TLS is on at one end only"):
            await others.connecting.connect(ends.address, others.own, seconds=5.0)
        assert others.connected == [] and ends.accepted == []
        await ends.still_serves()


@on_both_loops
async def test_an_end_that_wants_tls_is_not_talked_out_of_it() -> None:
    async def downgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)
        writer.write(b"ROOST\0\x01P")
        heard.append(await reader.read())
        writer.close()

    heard: list[bytes] = []
    middle = await asyncio.start_server(downgrade, "127.0.0.1", 0)
    async with Ends(tls=True) as ends:
        address = f"127.0.0.1:{middle.sockets[0].getsockname()[1]}"
        with pytest.raises(AuthError, match="TLS is on at one end only"):
            await ends.connecting.connect(address, ends.own, seconds=5.0)
        await eventually(lambda: heard == [b""])
    middle.close()
    await middle.wait_closed()
