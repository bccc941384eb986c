"""The handshake over real links: the secret decides, and a relay in between is found out."""

from __future__ import annotations

import asyncio
import random

import pytest

from roost.errors import AuthError, RoostError
from roost.net.keyring import Keyring
from roost.net.transport import Link, LinkOwner
from roost.wire.handshake import Handshake
from roost.wire.protocol import Facts, Identity
from tests.net.ends import Ends, Recorder, on_both_loops, plain_and_tls


class Greeter:
    """A link's owner that runs the handshake and nothing else."""

    def __init__(self, link: Link, name: str, uid: int, secret: str) -> None:
        self.link = link
        self.handshake = Handshake(
            initiator=not link.accepted,
            me=Identity(name, uid, ""),
            facts=Facts("roost", (1, 1), 64, 1, 0),
            keyring=Keyring(secret) if secret else None,
            binding=link.binding,
            nonce=random.Random(uid).randbytes(32),
            clock_ahead_max_seconds=5.0,
        )
        self.error: RoostError | None = None
        self.over = asyncio.get_running_loop().create_future()
        for frame in self.handshake.start():
            link.write(frame)

    def received(self, frame: memoryview) -> None:
        try:
            for answer in self.handshake.receive(frame):
                self.link.write(answer)
        except RoostError as error:
            self.error = error
            self.link.write(self.handshake.refusal(error))
            self.link.close()
        if self.handshake.done:
            self.link.established()
            if not self.over.done():
                self.over.set_result(None)

    def batch_ended(self) -> None:
        pass

    def writable(self) -> None:
        pass

    def closed(self, error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)


GOOD = "Jq3vX0mZ8tUoYw1rKcBn5sLhDe7gAf2iPxTy6RbN9Mk"
OTHER = "b7c2f04d9ae81365f0b4c8d72e1a93567cd0e48fb1a2659d3e07f8c4ab915d26"


async def greet(ends: Ends, address: str, mine: str, theirs: str) -> tuple[Greeter, Greeter]:
    """A handshake over a real link, from one secret to another."""
    acceptors: list[Greeter] = []
    initiators: list[Greeter] = []

    def accept(link: Link) -> LinkOwner:
        acceptors.append(Greeter(link, "ben", 2, theirs))
        return acceptors[-1]

    def own(link: Link) -> LinkOwner:
        initiators.append(Greeter(link, "ann", 1, mine))
        return initiators[-1]

    real = await ends.listening.listen("127.0.0.1:0", accept)
    await ends.connecting.connect(address or real, own, seconds=5.0)
    await asyncio.gather(initiators[0].over, *(each.over for each in acceptors))
    return initiators[0], acceptors[0]


@plain_and_tls
@on_both_loops
async def test_a_handshake_over_a_real_link_lets_the_right_secret_in(tls: bool) -> None:
    async with Ends(tls=tls) as ends:
        one, other = await greet(ends, "", GOOD, GOOD)
        assert one.handshake.done and other.handshake.done


@pytest.mark.parametrize(("mine", "theirs"), [(GOOD, OTHER), (GOOD, ""), ("", GOOD)])
@plain_and_tls
@on_both_loops
async def test_a_handshake_over_a_real_link_keeps_the_wrong_secret_out(tls: bool, mine: str, theirs: str) -> None:
    async with Ends(tls=tls) as ends:
        one, other = await greet(ends, "", mine, theirs)
        assert not one.handshake.done and not other.handshake.done
        assert isinstance(one.error, AuthError) and isinstance(other.error, AuthError)


@on_both_loops
async def test_a_relay_between_two_nodes_is_found_out_although_it_changes_nothing() -> None:
    async with Ends(tls=True) as ends, Ends(tls=True) as middle:
        acceptors: list[Greeter] = []

        def accept(link: Link) -> LinkOwner:
            acceptors.append(Greeter(link, "ben", 2, GOOD))
            return acceptors[-1]

        real = await ends.listening.listen("127.0.0.1:0", accept)
        onward = await middle.connecting.connect(real, middle.own, seconds=5.0)
        back = middle.connected[0]

        def relay(link: Link) -> LinkOwner:
            front = Recorder(link)
            front.on_frame = lambda frame: onward.write(bytes(frame))
            back.on_frame = lambda frame: link.write(bytes(frame))
            return front

        trap = await middle.connecting.listen("127.0.0.1:0", relay)
        victims: list[Greeter] = []

        def own(link: Link) -> LinkOwner:
            victims.append(Greeter(link, "ann", 1, GOOD))
            return victims[-1]

        await ends.connecting.connect(trap, own, seconds=5.0)
        await asyncio.gather(victims[0].over, acceptors[0].over)
        assert not victims[0].handshake.done and not acceptors[0].handshake.done
        assert "somebody is in between" in str(acceptors[0].error)
        assert "somebody is in between" in str(victims[0].error)
