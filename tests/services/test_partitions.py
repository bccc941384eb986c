"""Partitions with an own handler, on several hosts in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from roost.core.tenure import Role
from roost.errors import ConfigError, DeadlineExceeded, Overloaded, RemoteError, RoostError
from roost.services.partitions import Partition, open_partitions
from tests.services.fake_host import FakeHost, Network, run

SEEDS = range(6)


class Tally(Partition[str, int]):
    """Counts."""

    limit = 1000

    async def hit(self, by: int = 1) -> int:
        self.items[self.key] = self.items.get(self.key, 0) + by
        return self.items[self.key]

    async def slow_hit(self, seconds: float) -> int:
        before = self.items.get(self.key, 0)
        await asyncio.sleep(seconds)
        self.items[self.key] = before + 1
        return before + 1

    async def broken(self) -> None:
        self.items[self.key] = 1_000_000
        raise ValueError("on purpose")

    async def total(self) -> int:
        return sum(self.items.values())

    def count(self) -> int:
        return len(self.items)

    def _hidden(self) -> None:
        return None


class Log(Partition[str, list[int]]):
    """Appends: shows what is lost, doubled or out of order."""

    async def append(self, number: int) -> None:
        self.items[self.key] = [*self.items.get(self.key, []), number]

    async def read(self) -> list[int]:
        return self.items.get(self.key, [])


async def settled(network: Network, *services: Any) -> None:
    """Until every partition is held once, where the ring wants it, with the copies it wants, and nothing is left."""
    for _ in range(600):
        await network.sleep(0.1)
        living = [one for one in services if one._service.host.alive]
        owners: dict[int, int] = {}
        rest = True
        for one in living:
            hosting = one._service.hosting
            assert hosting is not None
            hosting.rights.check()
            for slot in hosting.rights.slots:
                if slot.role is Role.HOLDING:
                    rest = rest and slot.partition not in owners
                    owners[slot.partition] = one._service.host.uid
                else:
                    copy = slot.role is Role.COPY and slot.incoming is not None
                    rest = rest and (copy or (slot.role is Role.ABSENT and not slot.items)) and slot.strays is None
            rest = rest and not hosting.rights.incomplete()
            rest = rest and one._service.placement.primaries == living[0]._service.placement.primaries
        if rest and tuple(owners[partition] for partition in sorted(owners)) == living[0]._service.placement.primaries:
            return
    raise AssertionError("no rest")


async def three(seed: int, handler: type[Any] = Tally, **settings: Any) -> tuple[Network, list[FakeHost], list[Any]]:
    network = Network(seed, **settings)
    hosts = [network.host(name) for name in ("a", "b", "c")]
    services = [await open_partitions(host, "tally", handler) for host in hosts]
    await settled(network, *services)
    return network, hosts, services


def test_any_node_reaches_any_key() -> None:
    async def main() -> None:
        _, _, services = await three(1)
        for number in range(30):
            for service in services:
                await service.at(f"k{number}").hit(by=2)
        assert await services[0].at("k7").hit(0) == 6
        assert sum((await services[1].gather(Tally.total)).values()) == 180
        assert sum((await services[1].gather(Tally.count)).values()) == 30

    run(main())


def test_nothing_is_claimed_twice_when_all_open_at_once() -> None:
    async def main(seed: int) -> None:
        network = Network(seed)
        hosts = [network.host(name) for name in "abcd"]
        services = [await open_partitions(host, "tally", Tally) for host in hosts]
        hits = [services[number % 4].at(f"k{number % 5}").hit() for number in range(100)]
        await asyncio.gather(*hits)
        await settled(network, *services)
        assert sum((await services[0].gather(Tally.total)).values()) == 100
        assert all(service.status()["possible_loss"] == [] for service in services)

    for seed in SEEDS:
        run(main(seed))


def test_a_mere_caller_hosts_nothing() -> None:
    async def main() -> None:
        network, _, _ = await three(1)
        guest = network.host("guest")
        service = await open_partitions(guest, "tally", Tally, host_here=False)
        assert await service.at("x").hit() == 1
        assert "guest" not in [member.name for member in service.ring.members]
        assert service.status() == {"service": "partitions:tally"}

    run(main())


def test_a_command_that_fails_changes_nothing() -> None:
    async def main() -> None:
        _, _, services = await three(1)
        await services[0].at("k").hit(5)
        with pytest.raises(RemoteError, match="ValueError: on purpose"):
            await services[0].at("k").broken()
        assert await services[0].at("k").hit(0) == 5

    run(main())


def test_wrong_arguments_and_unknown_commands_harm_nothing() -> None:
    async def main() -> None:
        _, _, services = await three(1)
        stub: Any = services[0].at("k")
        with pytest.raises(RemoteError, match="Expected `int`, got `str`") as wrong:
            await stub.hit(by="two")
        assert not wrong.value.may_have_run
        with pytest.raises(TypeError, match="unexpected"):
            stub.hit(much=2)
        for name in ("limit", "items", "count"):
            with pytest.raises(AttributeError, match=rf"Tally.{name} is state, not a call; only async methods cross"):
                getattr(stub, name)
        for name in ("_hidden", "nothing"):
            with pytest.raises(AttributeError):
                getattr(stub, name)
        host = services[0]._service.host
        for method in ("nothing", "_hidden", "merge", "*nothing", "_begin"):
            with pytest.raises(RoostError, match="has no command") as unknown:
                await host.call(host.uid, "partitions:tally", method, b"\xc0", seconds=1)
            assert not unknown.value.may_have_run
        assert await services[0].at("k").hit() == 1

    run(main())


def test_commands_of_a_partition_run_one_at_a_time() -> None:
    async def main() -> None:
        _, _, services = await three(1)
        await asyncio.gather(*[services[number % 3].at("k").slow_hit(0.01) for number in range(12)])
        assert await services[0].at("k").hit(0) == 12

    run(main())


def test_commands_of_one_caller_keep_their_order_through_moves() -> None:
    async def main(seed: int) -> None:
        network, hosts, services = await three(seed, Log)
        futures = []
        for number in range(400):
            futures.append(asyncio.ensure_future(services[0].at("log").append(number)))
            if number == 50:
                services.append(await open_partitions(network.host("d"), "tally", Log))
            if number == 150:
                futures.append(asyncio.ensure_future(hosts[2].leave()))
            if number == 250:
                futures.append(asyncio.ensure_future(hosts[1].leave()))
            await network.sleep(0.002)
        await asyncio.gather(*futures)
        await settled(network, *services)
        assert await services[0].at("log").read() == list(range(400))

    for seed in SEEDS:
        run(main(seed))


def test_joins_and_leaves_under_writers_lose_nothing_and_double_nothing() -> None:
    async def main(seed: int) -> None:
        network, hosts, services = await three(seed, transfer_chunk_bytes=300, transfers_max=2)
        running = True
        done: dict[str, int] = {}

        async def write(name: str, service: Any) -> None:
            number = 0
            while running and service._service.host.alive:
                key = f"{name}{number % 40}"
                number += 1
                await service.at(key).hit()
                done[key] = done.get(key, 0) + 1

        writers = [asyncio.ensure_future(write(name, one)) for name, one in zip("ab", services, strict=False)]
        await network.sleep(0.3)
        services.append(await open_partitions(network.host("d"), "tally", Tally))
        await network.sleep(0.5)
        await hosts[2].leave()
        services.append(await open_partitions(network.host("e"), "tally", Tally))
        counted = await services[0].gather(Tally.count)
        assert sorted(counted) == list(range(32))
        await network.sleep(0.5)
        running = False
        await asyncio.gather(*writers)
        await settled(network, *services)
        assert sum(done.values()) > 200
        for key, count in done.items():
            assert await services[3].at(key).hit(0) == count
        assert all(service.status()["possible_loss"] == [] for service in services)

    for seed in SEEDS:
        run(main(seed))


def test_a_slow_command_breaks_the_move_off_and_the_next_one_succeeds() -> None:
    async def main() -> None:
        network, _, services = await three(1, cutover_drain_seconds=0.2, call_seconds=20.0)
        busy = [asyncio.ensure_future(services[0].at(f"k{number}").slow_hit(3.0)) for number in range(40)]
        await network.sleep(0.1)
        services.append(await open_partitions(network.host("d"), "tally", Tally))
        assert await asyncio.gather(*busy) == [1] * 40
        await settled(network, *services)
        assert sum((await services[3].gather(Tally.total)).values()) == 40

    run(main())


def test_two_lone_nodes_that_meet_become_one_and_every_key_survives() -> None:
    async def main(seed: int) -> None:
        network = Network(seed)
        network.apart = True
        hosts = [network.host(name) for name in "ab"]
        services = [await open_partitions(host, "tally", Tally) for host in hosts]
        for number in range(60):
            await services[number % 2].at(f"k{number}").hit(number)
        network.meet()
        await settled(network, *services)
        for number in range(60):
            assert await services[0].at(f"k{number}").hit(0) == number

    for seed in SEEDS:
        run(main(seed))


def test_an_own_merge_joins_what_two_sides_have_done() -> None:
    class Best(Partition[str, int]):
        async def offer(self, score: int) -> int:
            self.items[self.key] = max(score, self.items.get(self.key, 0))
            return self.items[self.key]

        def merge(self, key: str, a: int, b: int) -> int:
            return max(a, b)

    async def main(order: tuple[int, int]) -> None:
        network = Network(1)
        network.apart = True
        services: list[Any] = [await open_partitions(network.host(name), "best", Best) for name in "ab"]
        for service, score in zip(services, order, strict=True):
            await service.at("k").offer(score)
            await network.sleep(1)
        network.meet()
        await settled(network, *services)
        assert await services[0].at("k").offer(0) == 9

    run(main((9, 3)))
    run(main((3, 9)))


def test_a_crash_is_reported_as_possible_loss_and_the_service_goes_on() -> None:
    async def main(seed: int) -> None:
        network, hosts, services = await three(seed)
        for number in range(60):
            await services[0].at(f"k{number}").hit()
        held = services[1].ring.owned_by("b")
        hosts[1].crash()
        await settled(network, *services)
        reported = sorted(services[0].status()["possible_loss"] + services[2].status()["possible_loss"])
        assert reported == list(held)
        for number in range(60):
            expected = 1 if services[0]._service.partition_of(_key(f"k{number}")) in held else 2
            assert await services[2].at(f"k{number}").hit() == expected

    for seed in SEEDS:
        run(main(seed))


def _key(text: str) -> bytes:
    from msgspec.msgpack import encode

    return encode(text)


def test_queues_are_bounded() -> None:
    async def main() -> None:
        _, _, services = await three(1, queued_commands_max=5)
        results = await asyncio.gather(*[services[0].at("k").slow_hit(0.1) for _ in range(10)], return_exceptions=True)
        refused = [error for error in results if isinstance(error, Overloaded)]
        assert (len(refused), refused[0].limit, refused[0].may_have_run) == (4, 5, False)
        assert await services[0].at("k").hit(0) == 6

    run(main())


def test_without_a_host_the_deadline_says_that_nothing_ran() -> None:
    async def main() -> None:
        network = Network(1, call_seconds=1.0)
        service = await open_partitions(network.host("a"), "tally", Tally, host_here=False)
        with pytest.raises(DeadlineExceeded, match="no node hosts it") as late:
            await service.at("k").hit()
        assert not late.value.may_have_run

    run(main())


def test_other_options_elsewhere_are_refused() -> None:
    async def main() -> None:
        network, _, _ = await three(1)
        with pytest.raises(ConfigError, match="other options"):
            await open_partitions(network.host("d"), "tally", Log)

    run(main())


def test_the_same_seed_gives_the_same_trace() -> None:
    async def main() -> tuple[int, list[float], dict[str, Any]]:
        network, hosts, services = await three(5)
        await asyncio.gather(*[services[number % 3].at(f"k{number}").hit() for number in range(50)])
        await hosts[1].leave()
        await settled(network, *services)
        return network.sent, [round(at, 9) for at in network.last.values()], services[0].status()

    assert run(main()) == run(main())
