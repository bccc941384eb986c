"""What is peculiar to links over TCP; what every transport promises is tested in `conformance`."""

from __future__ import annotations

import socket
import struct

import pytest

from tests.net.ends import CONTEXTS, Ends, on_both_loops, plain_and_tls


@on_both_loops
async def test_both_ends_of_a_tls_link_name_the_same_certificate() -> None:
    async with Ends(tls=True) as ends:
        one, other = await ends.pair()
        assert one.link.binding == other.link.binding == CONTEXTS.binding


@plain_and_tls
@on_both_loops
async def test_the_system_breaks_a_link_whose_other_end_has_fallen_silent(tls: bool) -> None:
    async with Ends(tls=tls, link_silent_seconds=6.5) as ends:
        for end in await ends.pair():
            bare = end.link._bare.get_extra_info("socket")  # type: ignore[attr-defined]  # to look at its options
            tcp = socket.IPPROTO_TCP
            assert bare.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == 6500
            assert bare.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            asks, again, probes = (
                bare.getsockopt(tcp, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            )
            assert (asks, again, probes) == (4, 2, 2)


@pytest.mark.parametrize("seconds", [0.001, 10.0**7])
@on_both_loops
async def test_the_system_takes_every_limit_that_the_settings_allow(seconds: float) -> None:
    async with Ends(tls=False, link_silent_seconds=seconds) as ends:
        await ends.pair()


@on_both_loops
async def test_an_end_in_the_middle_of_a_frame_is_told_as_an_error() -> None:
    async with Ends(tls=False) as ends:
        _, writer = await ends.greeted()
        other = await ends.accepts(1)
        writer.write(struct.pack(">I", 100) + b"half")
        writer.close()
        await writer.wait_closed()
        assert "middle of a frame" in str(await other.until_closed())
