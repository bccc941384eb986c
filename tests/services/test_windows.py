"""What a sender may have unread at a receiver: exact when streams begin, whatever was sent, waiting or lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

import roost
from roost.net.peer import Peer
from roost.services.windows import ENVELOPE, ENVELOPES, INBOX, Windows

LIMIT = 5
NOTHING = msgspec.Raw(b"\xc0")


class Receiver(Peer):
    """A peer as far as windows see it."""

    def __init__(self, uid: int) -> None:
        self.uid = uid
        self.name = f"n{uid}"
        self.stream_out = 0
        self.held_bytes = 0
        self.inbox_messages_max = 0
        self.carried: Counter[tuple[str, str]] = Counter()
        self.got = 0
        self.release = asyncio.Event()

    async def room(self, seconds: float) -> None:
        await self.release.wait()

    def cast(self, service: str, method: str, body: msgspec.Raw, trace: str | None = None) -> None:
        self.got += 1

    def begin(self, carried: int = 0, service: str = INBOX) -> None:
        self.stream_out += 1
        self.carried = Counter({(service, "N"): carried})


def in_a_loop(test: Callable[[Windows, Receiver], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    async def body() -> None:
        await test(Windows(asyncio.get_running_loop(), LIMIT, 60.0), Receiver(1))

    def run() -> None:
        asyncio.run(body())

    return run


async def room(windows: Windows, peer: Receiver, kind: str = "N") -> int:
    """How many more may be sent without waiting; they are sent."""
    before = peer.got
    with pytest.raises(roost.Overloaded):
        while True:
            windows.post_now([peer], kind, INBOX if kind else ENVELOPE, "N", NOTHING)
    return peer.got - before


@in_a_loop
async def test_credit_gives_back_as_much_as_was_read(windows: Windows, peer: Receiver) -> None:
    assert await room(windows, peer) == LIMIT
    windows.credit(peer, "N", 2)
    assert await room(windows, peer) == 2
    windows.credit(peer, "other", 3)
    assert (await room(windows, peer), await room(windows, peer, "other")) == (0, LIMIT)


@in_a_loop
async def test_what_waited_for_the_link_counts_on_its_stream(windows: Windows, peer: Receiver) -> None:
    for kind, service in (("N", INBOX), (ENVELOPES, ENVELOPE)):
        for _ in range(4):
            await windows.post(peer, kind, service, "N", NOTHING)
        peer.begin(carried=3, service=service)
        assert await room(windows, peer, kind) == 1, "nothing changes before the receiver has said what it has"
        windows.restart(peer, kind, 0, peer.stream_out)
        assert await room(windows, peer, kind) == 1, "one of the first four was lost with a link"


@in_a_loop
async def test_what_is_unread_of_streams_before_still_counts(windows: Windows, peer: Receiver) -> None:
    assert await room(windows, peer) == LIMIT
    peer.begin()
    windows.restart(peer, "N", 3, 1)
    assert await room(windows, peer) == 2
    windows.restart(peer, "N", 0, 0)
    assert await room(windows, peer) == 0, "an answer to an older stream says nothing"


@in_a_loop
async def test_a_receiver_may_say_what_is_unread_before_anything_is_sent(windows: Windows, peer: Receiver) -> None:
    peer.begin()
    windows.restart(peer, "N", 4, 1)
    assert await room(windows, peer) == 1


@in_a_loop
async def test_kinds_that_the_receiver_does_not_name_have_nothing_unread(windows: Windows, peer: Receiver) -> None:
    other = Receiver(2)
    for receiver in (peer, other):
        assert await room(windows, receiver) == LIMIT
    peer.begin()
    windows.restart(peer, ENVELOPES, 2, 1)
    assert (await room(windows, peer), await room(windows, peer, ENVELOPES), await room(windows, other)) == (5, 3, 0)


@in_a_loop
async def test_who_waits_gets_room_in_turn_and_whoever_gives_up_takes_none(windows: Windows, peer: Receiver) -> None:
    assert await room(windows, peer) == LIMIT
    waiting = [asyncio.create_task(windows.post(peer, "N", INBOX, "N", NOTHING)) for _ in range(4)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    windows.credit(peer, "N", 1)
    waiting[1].cancel()  # it has the room already, and passes it on
    await asyncio.wait([waiting[2]])
    assert [task.done() for task in waiting] == [True, True, True, False]
    windows.forget(peer.uid)
    with pytest.raises(roost.Unreachable):
        await waiting[3]
    assert peer.got == LIMIT + 1


@in_a_loop
async def test_one_without_room_keeps_it_from_all(windows: Windows, peer: Receiver) -> None:
    other = Receiver(2)
    assert await room(windows, other) == LIMIT
    with pytest.raises(roost.Overloaded):
        windows.post_now([peer, other], "N", INBOX, "N", NOTHING)
    posting = asyncio.create_task(windows.post_all([peer, other], "N", INBOX, "N", NOTHING))
    await asyncio.sleep(0)
    assert peer.got == 0
    posting.cancel()
    await asyncio.wait([posting])
    assert await room(windows, peer) == LIMIT, "what the two had taken is back"


@in_a_loop
async def test_who_has_room_and_waits_for_the_buffer_counts_on_the_next_stream(
    windows: Windows, peer: Receiver
) -> None:
    peer.held_bytes = 1
    senders = [asyncio.create_task(windows.post(peer, "N", INBOX, "N", NOTHING)) for _ in range(LIMIT - 1)]
    await asyncio.sleep(0)
    peer.begin()
    windows.restart(peer, "N", 0, 1)
    windows.restart(peer, ENVELOPES, 0, 1)
    assert await room(windows, peer) == 1
    peer.begin()
    peer.release.set()
    await asyncio.gather(*senders)
    windows.restart(peer, "N", 0, 2)
    assert await room(windows, peer) == 1, "the room of one that was lost with the first link"


@in_a_loop
async def test_the_lesser_of_both_ends_limits_counts(windows: Windows, peer: Receiver) -> None:
    peer.inbox_messages_max = 2
    assert await room(windows, peer) == 2
    other = Receiver(2)
    other.inbox_messages_max = LIMIT + 10
    assert await room(windows, other) == LIMIT
