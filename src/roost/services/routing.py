"""The caller's side of partitions: where a command goes, and that one caller's commands stay in order.

A command goes to the holder that was last learned of, else to the ring's primary. Whoever cannot execute it answers
`NotHere`; nothing ran, so it is sent again within its deadline. When that happens the route *turns*: later commands
for the partition wait until all that are under way on the old route have ended; then everything that is to be sent
(again) goes out on the new route in the order in which it was first asked for. With no holder known it waits a
little, a bit longer each time.

Invariants: a command is sent again only if it is certain that it did not run. At most `pending_calls_max` wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from roost.errors import DeadlineExceeded, Overloaded, RoostError, Unavailable, Unreachable
from roost.services.commands import Command, Gathered
from roost.services.host import Host, NotHere
from roost.services.hosting import GATHER_PREFIX, Hosting
from roost.services.placement import Placement

__all__ = ["Router"]

FIRST_PAUSE_SECONDS = 0.005
PAUSE_SECONDS_MAX = 0.1
SWEEP_SECONDS = 0.05
COMMAND_BYTES_SPARE = 32
"""What a command among many takes besides its key and argument, at most."""

_encode = msgspec.msgpack.Encoder().encode
_decode_gathered = msgspec.msgpack.Decoder(Gathered).decode


class _Waiting:
    """A command that waits for its route to turn."""

    __slots__ = ("command", "method", "number", "sent", "until")

    def __init__(self, number: int, command: Command, method: str, until: float, sent: asyncio.Future[Any]) -> None:
        self.number = number
        self.command = command
        self.method = method
        self.until = until
        self.sent = sent


class _Route:
    """Where the commands for one partition go."""

    __slots__ = ("due", "epoch", "holder", "number", "pauses", "target", "turning", "under_way", "waiting")

    def __init__(self) -> None:
        self.due = False
        """A pause is running, at whose end all that waits is sent."""
        self.epoch = 0
        self.holder = 0
        self.target = 0
        self.under_way = 0
        self.number = 0
        self.turning = False
        self.pauses = 0
        self.waiting: list[_Waiting] = []


class Router:
    """One service's routes on one node."""

    def __init__(self, host: Host, service: str, placement: Placement, hosting: Hosting | None) -> None:
        self.host = host
        self.service = service
        self.placement = placement
        self.hosting = hosting
        self._monotonic = host.runtime.monotonic
        self._routes: dict[int, _Route] = {}
        self._turning: dict[int, None] = {}
        self._sweeping = False
        self._waiting_count = 0

    async def call(self, command: Command, method: str, seconds: float, *, repeatable: bool = False) -> msgspec.Raw:
        """Send a command to its partition's holder; returns the answer's body, valid until the loop's next turn.

        A `repeatable` one is asked again within its deadline even if it may have run. Raises what the handler raised,
        Unreachable, Unavailable, DeadlineExceeded or Overloaded, each with `may_have_run`.
        """
        if self.host.closed:
            raise Unreachable(
                f"{self.host.name} has stopped: open {self.service} on one that runs", node=self.host.name
            )
        route = self._routes.get(command.partition)
        if route is None:
            route = self._routes[command.partition] = _Route()
        until = self._monotonic() + seconds
        route.number = number = route.number + 1
        if route.turning:
            answer = await self._wait(route, number, command, method, until)
        else:
            if not route.under_way:
                self._aim(route, command.partition)
            if route.target:
                answer = self._send(route, command, method, seconds)
            else:
                answer = await self._wait(route, number, command, method, until)
        ran = False
        try:
            while True:
                try:
                    body = await answer
                    route.pauses = 0
                    return body
                except NotHere as error:
                    self._learn(route, error.epoch, error.holder)
                    again = self._enqueue(route, number, command, method, until)
                except (Unreachable, Unavailable) as error:
                    if isinstance(error, Unavailable) and not error.may_have_run:
                        raise
                    ran = ran or error.may_have_run
                    if (ran and not repeatable) or self._monotonic() >= until:
                        raise
                    again = self._enqueue(route, number, command, method, until)
                finally:
                    self._ended(command.partition)
                answer = await self._sent(command.partition, again)
        except RoostError as error:
            error.may_have_run = error.may_have_run or ran
            raise

    def _send(self, route: _Route, command: Command, method: str, seconds: float) -> asyncio.Future[msgspec.Raw]:
        command.epoch = route.epoch
        answer = self.host.call(route.target, self.service, method, _encode(command), seconds=seconds)
        route.under_way += 1
        return answer

    def target_of(self, partition: int) -> int:
        """The uid that a command for this partition would go to now; 0 where nobody hosts the service."""
        route = self._routes.get(partition)
        if route is None:
            route = self._routes[partition] = _Route()
        if not route.turning and not route.under_way:
            self._aim(route, partition)
        return route.target

    def _aim(self, route: _Route, partition: int) -> None:
        if self.hosting is not None:
            right = self.hosting.rights.slots[partition].right
            if right.epoch > route.epoch:
                route.epoch, route.holder = right.epoch, right.holder
        live = self.placement.live
        route.target = route.holder if route.holder in live else self.placement.primaries[partition]

    def _learn(self, route: _Route, epoch: int, holder: int) -> None:
        """A newer right makes the turn at once; otherwise it takes a little pause."""
        if epoch > route.epoch or (epoch == route.epoch and holder and holder != route.holder):
            route.epoch = epoch
            route.holder = holder
            route.pauses = 0
        elif holder == 0 and epoch == route.epoch:
            route.holder = 0

    async def _wait(
        self, route: _Route, number: int, command: Command, method: str, until: float
    ) -> asyncio.Future[msgspec.Raw]:
        waiting = self._enqueue(route, number, command, method, until)
        if not route.under_way:
            self._turn(route, command.partition)
        return await self._sent(command.partition, waiting)

    def _enqueue(self, route: _Route, number: int, command: Command, method: str, until: float) -> _Waiting:
        limit = self.host.settings.pending_calls_max
        if self._waiting_count >= limit:
            text = f"{limit} commands of {self.service} wait for a holder: slow down, then retry"
            raise Overloaded(text, what="pending_calls_max", limit=limit)
        sent: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(number, command, method, until, sent)
        route.waiting.append(waiting)
        route.turning = True
        self._turning[command.partition] = None
        self._waiting_count += 1
        if not self._sweeping:
            self._sweeping = True
            self.host.runtime.call_later(SWEEP_SECONDS, self._sweep)
        return waiting

    async def _sent(self, partition: int, waiting: _Waiting) -> asyncio.Future[msgspec.Raw]:
        """Wait until it has been sent again; the future of its answer."""
        try:
            answer: asyncio.Future[msgspec.Raw] = await waiting.sent
        except asyncio.CancelledError:
            if waiting.sent.done() and not waiting.sent.cancelled() and waiting.sent.exception() is None:
                waiting.sent.result().cancel()
                self._ended(partition)
            raise
        return answer

    def _turn(self, route: _Route, partition: int) -> None:
        """Nothing is under way: send all that waits, now or after a pause."""
        if route.due:
            return
        if route.pauses == 0 and route.holder in self.placement.live:
            route.pauses = 1
            self._send_all(route, partition)
        else:
            pause = min(FIRST_PAUSE_SECONDS * 2 ** min(route.pauses, 10), PAUSE_SECONDS_MAX)
            route.pauses += 1
            route.due = True
            self.host.runtime.call_later(pause, self._send_all, route, partition)

    def _send_all(self, route: _Route, partition: int) -> None:
        route.due = False
        if route.under_way or not route.turning:
            return
        self._aim(route, partition)
        if not route.target:
            self._turn(route, partition)
            return
        now = self._monotonic()
        waiting, route.waiting = route.waiting, []
        self._waiting_count -= len(waiting)
        self._turning.pop(partition, None)
        route.turning = False
        for one in sorted(waiting, key=lambda one: one.number):
            if one.sent.done():
                continue
            if one.until <= now:
                one.sent.set_exception(self._expired(partition))
                continue
            try:
                answer = self._send(route, one.command, one.method, one.until - now)
            except Exception as error:
                one.sent.set_exception(error)
                continue
            one.sent.set_result(answer)

    def _expired(self, partition: int) -> DeadlineExceeded:
        who = "no node hosts it" if not any(self.placement.primaries) else "no holder answered"
        text = f"partition {partition} of {self.service}: {who} within the deadline; a retry is safe"
        return DeadlineExceeded(text, may_have_run=False)

    def _sweep(self) -> None:
        """Expire those who wait for their route. One coarse timer for all."""
        now = self._monotonic()
        for partition in list(self._turning):
            route = self._routes[partition]
            kept = []
            for one in route.waiting:
                if one.sent.done():
                    continue
                if one.until <= now:
                    one.sent.set_exception(self._expired(partition))
                else:
                    kept.append(one)
            self._waiting_count -= len(route.waiting) - len(kept)
            route.waiting = kept
            if not kept and not route.under_way:
                route.turning = False
                del self._turning[partition]
        self._sweeping = bool(self._turning)
        if self._sweeping:
            self.host.runtime.call_later(SWEEP_SECONDS, self._sweep)

    # many partitions at once

    async def gather(self, method: str, argument: bytes, seconds: float) -> dict[int, msgspec.Raw]:
        """Run a command in every partition, exactly once each: one message a node, those that moved again."""
        pending = dict.fromkeys(range(self.host.settings.partitions))
        results: dict[int, msgspec.Raw] = {}
        until = self._monotonic() + seconds
        pause = FIRST_PAUSE_SECONDS
        while True:
            by_node = self.by_target(pending)
            asks = []
            for uid, partitions in by_node.items():
                body = _encode([partitions, msgspec.Raw(argument)])
                left = max(until - self._monotonic(), 0.001)
                asks.append(self.host.call(uid, self.service, GATHER_PREFIX + method, body, seconds=left))
            failed: BaseException | None = None
            ran = False
            for answer in await asyncio.gather(*asks, return_exceptions=True):
                if isinstance(answer, BaseException):
                    if not isinstance(answer, Unreachable) or answer.may_have_run:
                        failed = failed or answer
                        ran = ran or not isinstance(answer, RoostError) or answer.may_have_run
                    continue
                gathered = _decode_gathered(bytes(answer))
                for partition, result in gathered.done:
                    results[partition] = result
                    del pending[partition]
                for partition, epoch, holder in gathered.elsewhere:
                    self.learn(partition, epoch, holder)
            if failed is not None:
                if isinstance(failed, RoostError):
                    failed.may_have_run = ran or bool(results)
                raise failed
            if not pending:
                return results
            if self._monotonic() + pause >= until:
                text = f"{len(pending)} partitions of {self.service} have no holder that answers"
                raise DeadlineExceeded(text, elapsed=seconds, may_have_run=bool(results))
            await self.pause(pause)
            pause = min(pause * 2, PAUSE_SECONDS_MAX)

    async def call_many(
        self,
        commands: list[Command],
        method: str,
        many: str,
        pack: Callable[[list[Command]], bytes],
        unpack: Callable[[msgspec.Raw], list[tuple[int, msgspec.Raw]]],
        seconds: float,
        *,
        repeatable: bool = False,
    ) -> list[msgspec.Raw]:
        """Commands that never wait, in as few messages as their bytes allow; those that did not run go one by one, and
        if they are `repeatable` those, too, of which that is not known.
        """
        answers: list[msgspec.Raw | None] = [None] * len(commands)
        until = self._monotonic() + seconds
        pending = list(range(len(commands)))
        while pending:
            batches, pending = self._batches(commands, pending)
            left = max(until - self._monotonic(), 0.001)
            asks = [
                self.host.call(uid, self.service, many, pack([commands[one] for one in positions]), seconds=left)
                for uid, positions in batches.items()
            ]
            try:
                got = await asyncio.gather(*asks, return_exceptions=True)
            finally:
                for positions in batches.values():
                    for position in positions:
                        self._ended(commands[position].partition)
            failed: BaseException | None = None
            ran = False
            for positions, body in zip(batches.values(), got, strict=True):
                if isinstance(body, BaseException):
                    if not isinstance(body, Unreachable) or (body.may_have_run and not repeatable):
                        failed = failed or body
                        ran = ran or not isinstance(body, RoostError) or body.may_have_run
                    continue
                place = -1
                for place, given in unpack(body):
                    answers[positions[place]] = given
                if place >= 0:
                    pending = positions[place + 1 :] + pending  # the answer was full
            if failed is not None:
                if isinstance(failed, RoostError):
                    failed.may_have_run = ran or any(answer is not None for answer in answers)
                raise failed
        for position, answer in enumerate(answers):
            if answer is None:
                left = max(until - self._monotonic(), 0.001)
                try:
                    answers[position] = await self.call(commands[position], method, left, repeatable=repeatable)
                except RoostError as error:
                    error.may_have_run = error.may_have_run or any(answer is not None for answer in answers)
                    raise
        return [answer for answer in answers if answer is not None]

    def _batches(self, commands: list[Command], pending: list[int]) -> tuple[dict[int, list[int]], list[int]]:
        """For each node those that one message can carry, now under way; and those that are for the next message.

        Whatever has no route now is in neither.
        """
        limit = self.host.settings.message_bytes_max
        batches: dict[int, list[int]] = {}
        sizes: dict[int, int] = {}
        later: list[int] = []
        for position in pending:
            command = commands[position]
            target = self.target_of(command.partition)
            route = self._routes[command.partition]
            if not target or route.turning:
                continue
            size = len(command.key) + len(command.argument) + COMMAND_BYTES_SPARE
            if target in batches and sizes[target] + size > limit:
                later.append(position)
                continue
            sizes[target] = sizes.get(target, COMMAND_BYTES_SPARE) + size
            command.epoch = route.epoch
            route.under_way += 1
            batches.setdefault(target, []).append(position)
        return batches, later

    def _ended(self, partition: int) -> None:
        route = self._routes[partition]
        route.under_way -= 1
        if route.turning and not route.under_way:
            self._turn(route, partition)

    def by_target(self, partitions: dict[int, None]) -> dict[int, list[int]]:
        """The partitions by the node that they would go to; those without one are left out."""
        by_node: dict[int, list[int]] = {}
        for partition in partitions:
            target = self.target_of(partition)
            if target:
                by_node.setdefault(target, []).append(partition)
        return by_node

    def learn(self, partition: int, epoch: int, holder: int) -> None:
        """From an answer about many partitions."""
        route = self._routes[partition]
        if not route.turning and not route.under_way:
            self._learn(route, epoch, holder)

    async def pause(self, seconds: float) -> None:
        """Wait, by the node's clock."""
        due: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.host.runtime.call_later(seconds, _resolve, due)
        await due


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
