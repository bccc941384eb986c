"""Whoever is not what he says: in between two nodes, with stolen words, in a wrong role, under another's name."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

import roost
from roost.config import Settings
from roost.errors import AuthError, RoostError
from roost.net.certificates import Certificates
from roost.net.keyring import Keyring
from roost.net.tcp import TcpTransport
from roost.net.tls import make_contexts
from roost.net.transport import Link
from roost.runtime import Runtime
from roost.wire.handshake import Handshake
from roost.wire.preface import PREFACE_BYTES, make_preface
from roost.wire.protocol import PROTOCOL, Facts, Identity
from tests.net.authority import Authority
from tests.net.ends import all_that_comes, hang_up, on_both_loops
from tests.net.proxies import bytes_passed, tls_opened
from tests.net.test_nodes import SECRET, Echo, node


def newcomer(*seeds: str, name: str = "b", **settings: Any) -> roost.Node:
    settings = {"secret": SECRET, **settings}
    return roost.Node(name, bind="127.0.0.1:0", seeds=seeds, profile="local", partitions=64, **settings)


@on_both_loops
async def test_two_nodes_find_out_who_opens_tls_between_them(caplog: pytest.LogCaptureFixture) -> None:
    async with node("a") as a, tls_opened(a.address, make_contexts()) as (trap, read):
        with pytest.raises(roost.AuthError, match="somebody is in between"):
            await newcomer(trap).start()
        assert a.peers == []
        assert len(read) >= 3, "he read the handshake, and it was of no use to him"
        assert SECRET.encode() not in b"".join(read)
        refusals = [text for text in caplog.messages if text.startswith("handshake with") and "in between" in text]
        assert len(refusals) == 2, "both ends say so in their logs"
        async with newcomer(a.address) as b:
            await b.ready(2)


@on_both_loops
async def test_whoever_only_passes_bytes_on_is_no_different_from_a_network() -> None:
    async with node("a") as a, bytes_passed(a.address, lambda data, _: data) as through, newcomer(through) as b:
        await b.ready(2)
        assert await b.ask("a", Echo(b"hello")) == b"hello"


@pytest.mark.parametrize("letter", [b"P", b"C"])
@pytest.mark.parametrize("towards", ["acceptor", "initiator", "both"])
@on_both_loops
async def test_nobody_in_between_can_talk_two_nodes_out_of_tls(
    towards: str, letter: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    passed: list[bytes] = []

    def strip(data: bytes, onward: bool) -> bytes:
        passed.append(data)
        changed = towards in ("both", "acceptor" if onward else "initiator")
        return data[:7] + letter + data[8:] if changed and data.startswith(b"ROOST") else data

    async with node("a") as a, bytes_passed(a.address, strip) as through:
        with pytest.raises(roost.AuthError, match="one end only"):
            await newcomer(through).start()
        assert a.peers == []
    assert b"cluster" not in b"".join(passed) and b"127.0.0.1" not in b"".join(passed), "no handshake in plain text"


@on_both_loops
async def test_an_initiator_that_is_answered_in_plain_text_says_nothing_more() -> None:
    """The other end is an impostor: it agrees to plain text, and asks for a proof."""
    heard = bytearray()

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.readexactly(PREFACE_BYTES))
        writer.write(make_preface(tls=False))
        heard.extend(await all_that_comes(reader))
        await hang_up(writer)

    server = await asyncio.start_server(impostor, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        with pytest.raises(roost.AuthError, match="TLS is on at one end only"):
            await newcomer(f"{host}:{port}").start()
    finally:
        server.close()
    assert bytes(heard) == make_preface(tls=True)


@pytest.mark.parametrize("plain", ["a", "b"])
@on_both_loops
async def test_a_plain_node_and_one_with_tls_refuse_each_other(plain: str) -> None:
    """Both know the secret: only `tls` differs, and neither gives way."""
    async with node("a", tls=plain != "a") as a:
        with pytest.raises(roost.AuthError, match="same `tls` setting"):
            await newcomer(a.address, tls=plain != "b").start()
        assert a.peers == []


@pytest.mark.parametrize("towards_acceptor", [True, False])
@on_both_loops
async def test_what_is_changed_inside_tls_ends_the_link(towards_acceptor: bool) -> None:
    """The last bit of all that is passed in one direction: TLS itself notices."""
    flipped = 0

    def flip(data: bytes, onward: bool) -> bytes:
        nonlocal flipped
        if onward is not towards_acceptor or data.startswith(b"ROOST"):
            return data
        flipped += 1
        return data[:-1] + bytes([data[-1] ^ 1])

    async with node("a") as a, bytes_passed(a.address, flip) as through:
        joining = newcomer(through, form_alone_seconds=0.3, handshake_seconds=0.3)
        with contextlib.suppress(roost.AuthError):
            async with joining as b:
                assert b.peers == []
        assert flipped and a.peers == []


@on_both_loops
async def test_a_certificate_of_the_ca_is_no_place_in_between_where_there_is_a_secret_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ca = Authority(tmp_path, "ours")
    stolen = Certificates(Settings(name="a", **ca.issue("a")))
    async with node("a", **ca.issue("a")) as a, tls_opened(a.address, stolen) as (trap, _):
        with pytest.raises(roost.AuthError, match="somebody is in between"):
            await newcomer(trap, **ca.issue("b")).start()
        assert a.peers == []


@on_both_loops
async def test_without_a_secret_a_stolen_certificate_is_a_place_in_between_under_its_own_name_only(
    tmp_path: Path,
) -> None:
    """He relays words of a under the certificate of c, and is found out by the name."""
    ca = Authority(tmp_path, "ours")
    stolen = Certificates(Settings(name="c", **ca.issue("c")))
    async with node("a", secret=None, **ca.issue("a")) as a, tls_opened(a.address, stolen) as (trap, _):
        with pytest.raises(roost.AuthError, match="came with a certificate for c"):
            await newcomer(trap, secret="", **ca.issue("b")).start()
        assert a.peers == []


@on_both_loops
async def test_a_whole_recorded_connection_played_again_gets_nobody_in() -> None:
    """Byte by byte, TLS and all, to the acceptor that it was recorded from."""
    recorded: list[bytes] = []

    def record(data: bytes, onward: bool) -> bytes:
        if onward:
            recorded.append(data)
        return data

    async with node("a") as a:
        async with bytes_passed(a.address, record) as through, newcomer(through) as b:
            await b.ready(2)
        host, _, port = a.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        words = b"".join(recorded)
        writer.write(words[:PREFACE_BYTES])
        assert await reader.readexactly(PREFACE_BYTES) == make_preface(tls=True)
        writer.write(words[PREFACE_BYTES:])
        await all_that_comes(reader)
        await hang_up(writer)
        assert [member.state for member in a.members if member.name == "b"] == ["left"]


def write_secrets(path: Path, *lines: str) -> None:
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text("".join(f"{line}\n" for line in lines))
    new.rename(path)


@on_both_loops
async def test_secrets_rotate_while_every_node_lives_and_none_is_ever_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    files = [tmp_path / name for name in "ab"]

    async def newcomers_get_in(a: roost.Node, b: roost.Node, number: int) -> None:
        """Through either node, with the secrets of the other one, as initiator and as acceptor."""
        for seed, path in ((a, files[1]), (b, files[0])):
            name = f"c{number}-{seed.name}"
            async with node(name, seed, secret=None, secret_file=str(path)) as c:
                await c.ready(3)
                assert await c.ask("a", Echo(b"1")) + await b.ask(name, Echo(b"2")) == b"12"

    for path in files:
        write_secrets(path, old)
    async with (
        node("a", secret=None, secret_file=str(files[0])) as a,
        node("b", a, secret=None, secret_file=str(files[1])) as b,
    ):
        await b.ready(2)
        for number, step in enumerate(([old, new], [new, old], [new])):
            for path in files:  # one node after the other, so that each step is lived through half done
                write_secrets(path, *step)
                await newcomers_get_in(a, b, number)
        assert [text for text in caplog.messages if "refused" in text] == []
        with pytest.raises(roost.AuthError, match="the secrets differ"):
            await newcomer(a.address, name="late", secret=old).start()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"cluster": "chess"}, "cluster: .*'roost'.*'chess'|cluster: .*'chess'.*'roost'"),
        ({"partitions": 128}, "partitions: .*64.*128|partitions: .*128.*64"),
        ({"placement_seed": 9}, "placement_seed: .* 9"),
    ],
)
@on_both_loops
async def test_what_differs_is_named_to_the_newcomer_with_both_values(change: dict[str, Any], told: str) -> None:
    async with node("a") as a:
        settings = {"bind": "127.0.0.1:0", "partitions": 64, "secret": SECRET, "profile": "local", **change}
        with pytest.raises(roost.ConfigError, match=told):
            await roost.Node("b", seeds=[a.address], **settings).start()
        assert a.peers == []


class SkewedRuntime(Runtime):
    def wall(self) -> float:
        return super().wall() + 60.0


@on_both_loops
async def test_a_clock_far_ahead_is_named_to_the_newcomer() -> None:
    async with node("a") as a:
        settings: dict[str, Any] = {"bind": "127.0.0.1:0", "partitions": 64, "secret": SECRET, "profile": "local"}
        with pytest.raises(roost.ConfigError, match=r"the clock of b is (59|60)\.\d s ahead of that of a"):
            await roost.Node("b", seeds=[a.address], runtime=SkewedRuntime, **settings).start()
        assert a.peers == []


class Insider:
    """Knows the secret, and introduces himself as somebody else."""

    def __init__(self, link: Link, who: Identity, seed: int) -> None:
        self.link = link
        self.handshake = Handshake(
            initiator=True,
            me=who,
            facts=Facts("roost", PROTOCOL, 64, seed, int(time.time() * 1000)),
            keyring=Keyring(SECRET),
            binding=link.binding,
            nonce=os.urandom(32),
            clock_ahead_max_seconds=5.0,
        )
        self.error: asyncio.Future[RoostError | None] = asyncio.get_running_loop().create_future()
        for frame in self.handshake.start():
            link.write(frame)

    def received(self, frame: memoryview) -> None:
        if self.error.done():
            return
        try:
            for answer in self.handshake.receive(frame):
                self.link.write(answer)
        except RoostError as error:
            self.error.set_result(error)

    def batch_ended(self) -> None:
        """Nothing waits."""

    def writable(self) -> None:
        """Nothing waits."""

    def closed(self, error: Exception | None) -> None:
        if not self.error.done():
            self.error.set_result(None)


@pytest.mark.parametrize("other", ["name", "address", "role"])
@on_both_loops
async def test_the_uid_of_a_live_member_is_nobody_elses(other: str) -> None:
    async with node("a") as a, node("b", a) as b:
        await b.ready(2)
        changed = {"name": "c", "address": "127.0.0.1:1", "role": "client"}[other]
        who = msgspec.structs.replace(Identity("b", b.uid, b.address), **{other: changed})
        runtime = Runtime()
        transport = TcpTransport(runtime, Settings(), make_contexts())
        insiders: list[Insider] = []

        def own(link: Link) -> Insider:
            insiders.append(Insider(link, who, a._running.placement_seed))
            return insiders[0]

        await transport.connect(a.address, own, seconds=5.0)
        error = await insiders[0].error
        assert isinstance(error, AuthError) and "claims to be the run" in str(error)
        assert await a.ask("b", Echo(b"me")) == b"me"
        await transport.close()


@pytest.mark.parametrize("stage", ["preface", "tls", "hello"])
@on_both_loops
async def test_a_seed_that_hangs_up_without_a_word_is_tried_again(stage: str) -> None:
    """So does one that is restarted, or that makes room for newer connections: nobody was refused."""
    tls = make_contexts()
    hung_up = 0

    async def hang_up_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal hung_up
        writer.write(await reader.readexactly(PREFACE_BYTES))
        if stage != "preface":
            await writer.start_tls(tls.server)
        if stage == "hello":
            await reader.readexactly(4)
        writer.close()
        hung_up += 1

    server = await asyncio.start_server(hang_up_early, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        async with newcomer(f"{host}:{port}", form_alone_seconds=0.3) as b:
            assert hung_up
            assert b.peers == []
    finally:
        server.close()


@on_both_loops
async def test_a_node_that_is_its_own_seed_under_another_address_starts() -> None:
    """As when every node is given the same list of host names."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {"bind": f"127.0.0.1:{port}", "partitions": 64, "secret": SECRET, "profile": "local"}
    settings: dict[str, Any] = {**own, "form_alone_seconds": 0.3}
    async with roost.Node("a", seeds=[f"localhost:{port}"], **settings) as a, node("b", a) as b:
        await b.ready(2)
