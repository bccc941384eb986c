"""The queue of one partition, when what it has promised is overtaken within the same turn of the loop."""

from __future__ import annotations

import asyncio

import pytest

from roost.core.cutover import Taken
from roost.core.rights import Drained, Event, Heard, Rights, Viewed
from roost.core.tenure import Changed, Held, Right, Role, Send, Stop
from roost.core.transfer import Accepted, Received
from roost.services.host import NotHere
from roost.services.lanes import Lane
from tests.services.fake_host import run

ME, OTHER = 1, 2


class Bench:
    """A lane with the machine that drives it."""

    def __init__(self) -> None:
        self.rights = Rights(ME, 1)
        self.lane = Lane(self.rights, 0, 100, asyncio.get_running_loop().time, lambda one: self.step(Drained(one)))
        self.slot = self.rights.slots[0]
        self.sent: list[object] = []
        self.step(Viewed((ME,), (), (ME,), ((ME,),), True))
        assert self.lane.free

    def step(self, event: Event) -> None:
        for effect in self.rights.step(event, asyncio.get_running_loop().time()):
            if isinstance(effect, Send):
                self.sent.append(effect.message)
            elif isinstance(effect, Stop):
                self.lane.drain()
            elif isinstance(effect, Changed):
                self.lane.look_again()

    def fill(self) -> None:
        """The ring says another, which accepts, and is one answer away from being in step."""
        self.step(Viewed((ME, OTHER), (), (ME, OTHER), ((OTHER,),), True))
        self.step(Heard(OTHER, Accepted(0, self.slot.feeds[OTHER].number, [])))

    def cut_over(self) -> None:
        """That answer comes: the lane stops."""
        self.step(Heard(OTHER, Received(0, self.slot.feeds[OTHER].number, 0, True)))

    def turn(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.lane.turn(0, 1e9))


def test_a_waiter_that_is_thrown_out_without_its_future_never_gets_the_turn() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.lane.turn(0, 1e9)
        stepped = bench.lane.turn(0, 1e9)
        stepped.send(None)
        with pytest.raises(asyncio.CancelledError):
            stepped.throw(asyncio.CancelledError())
        bench.lane.end()
        assert bench.lane.free

    run(main())


def test_a_waiter_that_is_cancelled_after_it_was_woken_hands_the_turn_on() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.lane.turn(0, 1e9)
        second, third = bench.turn(), bench.turn()
        await asyncio.sleep(0)
        bench.lane.end()
        second.cancel()
        await asyncio.wait([second])
        assert second.cancelled()
        await third
        bench.lane.end()
        assert bench.lane.free

    run(main())


def test_a_woken_waiter_does_not_run_once_the_cut_over_has_begun_and_is_told_where_to_go() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.lane.turn(0, 1e9)
        second, third = bench.turn(), bench.turn()
        await asyncio.sleep(0)
        bench.fill()
        bench.lane.end()
        bench.cut_over()
        assert bench.slot.stopped
        assert bench.lane.draining
        for waiter in (second, third):
            with pytest.raises(NotHere) as told:
                await waiter
            assert told.value.holder == OTHER
        assert bench.rights.count(Role.CEDING) == 1
        assert not bench.lane.busy
        bench.step(Heard(OTHER, Taken(0, bench.slot.right.epoch + 1)))
        assert bench.rights.count(Role.ABSENT) == 1

    run(main())


def test_a_woken_waiter_that_met_a_stop_runs_first_when_the_move_is_given_up() -> None:
    async def main() -> None:
        bench = Bench()
        order: list[str] = []
        await bench.lane.turn(0, 1e9)

        async def command(name: str) -> None:
            await bench.lane.turn(0, 1e9)
            order.append(name)
            await asyncio.sleep(0)
            bench.lane.end()

        tasks = [asyncio.create_task(command(name)) for name in ("second", "third")]
        await asyncio.sleep(0)
        bench.fill()
        bench.slot.items.write([(b"\xa1k", b"v")], 1, ME)  # which the other does not acknowledge
        bench.rights.wrote(0)
        bench.lane.end()
        bench.cut_over()
        assert bench.slot.stopped
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order == []
        assert not bench.lane.busy
        assert len(bench.lane.queue) == 2
        bench.step(Viewed((ME,), (OTHER,), (ME,), ((ME,),), True))
        await asyncio.gather(*tasks)
        assert order == ["second", "third"]
        assert bench.lane.free

    run(main())


def test_a_woken_waiter_is_told_of_a_higher_right_and_frees_nobody_elses_turn() -> None:
    async def main() -> None:
        bench = Bench()
        bench.step(Viewed((ME, OTHER), (), (ME, OTHER), ((ME,),), True))
        await bench.lane.turn(0, 1e9)
        second = bench.turn()
        await asyncio.sleep(0)
        bench.lane.end()
        bench.step(Heard(OTHER, Held(0, Right(9, OTHER))))
        with pytest.raises(NotHere) as told:
            await second
        assert (told.value.epoch, told.value.holder) == (9, OTHER)
        assert not bench.lane.busy

    run(main())
