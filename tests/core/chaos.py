"""Random histories of machines that keep copies; one number decides everything.

    python -m tests.core.chaos 0 1000          seeds from 0 on; each crash waits until the one before is repaired
    python -m tests.core.chaos 0 1000 rough    crashes at any time, also of those who are taken for down by others

Four to six nodes, some partitions, two or three copies, any kind of write, some with an own merge, a limited rate or
claims that wait; with joins, crashes, lost and repeated messages, views that come late, nodes that some others take
for down though they live, rings that change, commands that do not end, deletes that are collected.
"""

from __future__ import annotations

import sys
from random import Random

from roost.core.rights import Missed
from roost.core.tenure import Write
from tests.core.copies_world import COUNTER, World, merged

WRITES: tuple[Write, ...] = ("majority", "all", "one")
PARTITIONS = 2
STEPS = 250


class Chaos:
    """One history."""

    def __init__(self, seed: int, *, rough: bool = False) -> None:
        self.rng = rng = Random(seed)
        self.rough = rough
        self.preferred = {partition: list(range(1, 40)) for partition in range(PARTITIONS)}
        self.world = World(
            write=WRITES[seed % 3],
            replicas=2 + seed // 3 % 2,
            partitions=PARTITIONS,
            strict=seed % 5 == 4,
            chunk_bytes=rng.choice([200, 2000, 1 << 16]),
            rate_bytes=rng.choice([0.0, 0.0, 3000.0]),
            merge=merged if seed % 2 else None,
            order=lambda partition: tuple(self.preferred[partition]),
        )
        for order in self.preferred.values():
            rng.shuffle(order)
        for uid in range(1, rng.randint(4, 6)):
            self.world.join(uid)
        self.newest = len(self.world.nodes)
        self.world.repaired()

    def run(self) -> None:
        """Everything that happens, and the end."""
        kinds = [self.write, self.deliver, self.time, self.look, self.turn, self.collect, self.join, self.misjudge]
        weights = [40, 45, 8, 6, 0.6, 1, 0.7, 1.2]
        for _ in range(STEPS):
            self.rng.choices([*kinds, self.crash], [*weights, 1.5])[0]()
        self.reunite()
        self.world.repaired()

    def write(self) -> None:
        """A command at whoever executes."""
        rng, world = self.rng, self.world
        partition = rng.randrange(PARTITIONS)
        for uid in world.executing(partition)[:2]:
            chance = rng.random()
            if chance < 0.5:
                world.put(uid, partition, None, b"x" * rng.choice([10, 10, 10, 300]))
            elif chance < 0.75:
                world.put(uid, partition, b"\xa5hot%d" % rng.randrange(5), rng.randbytes(8))
            elif chance < 0.85:
                world.put(uid, partition, b"\xa5hot%d" % rng.randrange(5), None)
            elif world.merge is not None:
                key = COUNTER + b"%d" % rng.randrange(2)
                count = world.nodes[uid].slots[partition].items.get(key) or bytes(4)
                world.put(uid, partition, key, (int.from_bytes(count) + 1).to_bytes(4))

    def deliver(self) -> None:
        """Some messages arrive, some twice; now and then a link breaks."""
        rng, world = self.rng, self.world
        for _ in range(rng.randrange(1, 25)):
            if world.draining and rng.random() < 0.2:
                world.drain(*rng.choice(list(world.draining)))
            busy = world.busy()
            if not busy:
                return
            source, target = pair = rng.choice(busy)
            if rng.random() < 0.004:
                world.wires[pair] = []
                if rng.random() < 0.5:
                    world.step(source, Missed(target))
                continue
            world.deliver(*pair)
            if rng.random() < 0.02:
                world.repeat()

    def time(self) -> None:
        self.world.tick(self.rng.choice([0.1, 0.3, 0.5, 1.2]))

    def look(self) -> None:
        if self.world.blind:
            self.world.look(self.rng.choice(list(self.world.blind)))

    def turn(self) -> None:
        """The ring changes though no member has."""
        self.rng.shuffle(self.preferred[self.rng.randrange(PARTITIONS)])
        self.world.blind = dict.fromkeys(self.world.nodes)

    def collect(self) -> None:
        """Old tombstones go, as long as nobody is missing who may come back."""
        if not self.world.apart:
            self.world.collect()

    def join(self) -> None:
        if len(self.world.nodes) < 6:
            self.newest += 1
            self.world.join(self.newest)

    def crash(self) -> None:
        """A node dies, with writes under way."""
        rng, world = self.rng, self.world
        if len(world.nodes) <= 3 or (world.apart and not self.rough):
            return
        if not self.rough:
            world.repaired()
            for _ in range(rng.randrange(20)):
                self.write()
                for pair in rng.sample(world.busy(), min(len(world.busy()), rng.randrange(3))):
                    world.deliver(*pair)
        world.crash(rng.choice(list(world.nodes)))

    def misjudge(self) -> None:
        """Some take others for down who live, one way or both; or they see each other again."""
        rng, world = self.rng, self.world
        if world.hidden:
            self.reunite()
            return
        if not self.rough:
            world.repaired()
        uids = list(world.nodes)
        rng.shuffle(uids)
        side = uids[: rng.randrange(1, len(uids))]
        both = rng.random() < 0.7
        for uid in side:
            for other in uids[len(side) :]:
                world.hide(uid, other)
                if both:
                    world.hide(other, uid)

    def reunite(self) -> None:
        self.world.hidden = {}
        self.world.blind = dict.fromkeys(self.world.nodes)


def main(first: int, last: int, *, rough: bool) -> None:
    """Play all these seeds."""
    acknowledged = losses = 0
    for seed in range(first, last):
        chaos = Chaos(seed, rough=rough)
        try:
            chaos.run()
        except BaseException:
            sys.stderr.write(f"seed {seed}\n")
            raise
        acknowledged += len(chaos.world.acknowledged)
        losses += chaos.world.losses_ever
    sys.stdout.write(f"{last - first} seeds: {acknowledged} keys acknowledged, {losses} possible losses\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), rough=sys.argv[3:] == ["rough"])
