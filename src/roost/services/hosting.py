"""One service's partitions on one node: drives the machine of rights, and runs the commands.

All that the machine has for one peer in a turn of the loop goes out together. The machine's effects are carried out
here in order; those that feed an event back do it after the step that gave them, never within.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from roost.core.clock import HybridClock
from roost.core.items import Change, Merge
from roost.core.rights import (
    Drained,
    Event,
    Heard,
    Message,
    Resumed,
    Rights,
    Ticked,
    Wrote,
)
from roost.core.tenure import (
    EXECUTING,
    Acknowledged,
    Changed,
    Effect,
    Handed,
    Role,
    Send,
    Stop,
    Took,
)
from roost.errors import NotFound, Overloaded, ProtocolError, RemoteError, RoostError, Unavailable
from roost.services.collecting import Collecting
from roost.services.commands import Command, Gather, Gathered, Method
from roost.services.dispatch import PEER_METHOD, Dispatch
from roost.services.host import Answer, Host, NotHere
from roost.services.lanes import Lane
from roost.services.losses import Losses, shortened
from roost.services.placement import Placement
from roost.services.replication import Replication
from roost.services.transfers import Transfers
from roost.wire.protocol import Call
from roost.wire.values import encode

__all__ = ["Hosting", "Quick", "Whole"]

log = logging.getLogger("roost.partitions")

Quick = Callable[[Lane, Command], bytes]
"""A built-in command: runs at once, never waits."""
Whole = Callable[["Hosting", msgspec.Raw, float], Answer]
"""A built-in question to the node, about many partitions, to be answered by then."""

GATHER_PREFIX = "*"
TICK_SECONDS = 0.1
ANSWER_SHARE = 0.9
"""Who waits for copies is told what is lacking after this share of the time that is left to the call."""
SLICE_SECONDS = 0.005
"""A gather lets others run after so long."""

_decode_messages = msgspec.msgpack.Decoder(list[Message]).decode
_decode_command = msgspec.msgpack.Decoder(Command).decode
_decode_gather = msgspec.msgpack.Decoder(Gather).decode
_encode = msgspec.msgpack.Encoder().encode
NOTHING = b"\xc0"


class Hosting:
    """The receiving side of a service on a node that hosts it."""

    def __init__(
        self,
        host: Host,
        service: str,
        placement: Placement,
        replication: Replication,
        *,
        merge: Merge | None,
        prepare: Callable[[Lane], None],
        methods: dict[str, Method],
        quick: dict[str, Quick],
        reads: frozenset[str],
        whole: dict[str, Whole],
    ) -> None:
        settings = host.settings
        self.host = host
        self.service = service
        self.placement = placement
        self.rights = Rights(
            host.uid,
            settings.partitions,
            merge=merge,
            chunk_bytes=settings.transfer_chunk_bytes,
            transfers_max=settings.transfers_max,
            drain_seconds=settings.cutover_drain_seconds,
            write=replication.write,
            strict=replication.split != "keep-both",
            rate_bytes=settings.transfer_bytes_per_second,
        )
        self.clock = HybridClock()
        self.transfers = Transfers(self.rights, host.runtime.monotonic)
        self.losses = Losses(service, placement.name_of)
        self._prepare = prepare
        self._methods = methods
        self._quick = quick
        self._reads = reads
        self._whole = whole
        self._monotonic = host.runtime.monotonic
        self.lanes = [self._lane(partition, settings.queued_commands_max) for partition in range(settings.partitions)]
        self._events: deque[Event] = deque()
        self._stepping = False
        self._heard: deque[Heard] = deque()
        self._hearing = False
        self._resuming = False
        self._written: dict[int, None] = {}
        self._dispatch = Dispatch(host, service, self.step)
        self._collecting = Collecting(host)
        self._advice = ""
        self._replication = replication
        self._progress: asyncio.Future[None] | None = None

    def _lane(self, partition: int, queued_max: int) -> Lane:
        return Lane(self.rights, partition, queued_max, self._monotonic, self._drained, self.service)

    def _drained(self, partition: int) -> None:
        self.step(Drained(partition))

    def start(self) -> None:
        """Begin to tick. The first view must have been given."""
        self.host.runtime.spawn(self._beat(), name=f"{self.service} rights")

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await self._tick_for_ever(loop)
        finally:
            self.losses.end()

    async def _tick_for_ever(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            due: asyncio.Future[None] = loop.create_future()
            self.host.runtime.call_later(TICK_SECONDS, _resolve, due)
            await due
            self.step(Ticked())
            if self.placement.renew():
                self._advise(len(self.placement.view.hosts))
            self.transfers.tick()
            now = self._monotonic()
            for lane in self.lanes:
                if lane.queue or lane.unanswered:
                    lane.expire(now)
            if (collect := self._collecting.due()) is not None:
                self.step(collect)

    def _advise(self, hosts: int) -> None:
        """Say what is unwise about the options with so many hosts, once each time that it changes."""
        replicas = self._replication.replicas
        advice = self._replication.strategy.advice(hosts) or ""
        if not advice and replicas > hosts:
            advice = f"replicas is {replicas} and {hosts} nodes host it: there are no more copies than nodes"
        if advice and advice != self._advice:
            log.info("%s: %s", self.service, advice)
        self._advice = advice

    # what comes in

    def handle(self, uid: int, call: Call) -> Answer:
        """The service's handler; see `Host.serve`."""
        method = call.method
        quick = self._quick.get(method)
        if quick is not None:
            command = _decode_command(call.body)
            lane = self.lane_of(command.partition)
            free = lane.free_to_read if method in self._reads else lane.free
            if not free or command.epoch:
                lane.refuse_elsewhere(command.epoch)
            if not free:
                return self._run_quick(lane, quick, command, self._until(call))
            answer = quick(lane, command)
            if lane.slot.acked == lane.slot.written:
                return answer
            woken = lane.acknowledged(self._until(call))
            return answer if woken is None else _after(woken, answer)
        if method == PEER_METHOD:
            if uid not in self.placement.live:
                raise ProtocolError(f"{uid:016x} is no live member here: only members speak of who holds what")
            self._heard.extend(Heard(uid, message) for message in _decode_messages(call.body))
            if not self._hearing:
                self._hear()
            return NOTHING
        if not self.rights.book.acts:
            raise self.lanes[0].unavailable((0, 0))
        if method in self._methods:
            command = _decode_command(call.body)
            return self._run(self.lane_of(command.partition), self._methods[method], command, self._until(call))
        if method[:1] == GATHER_PREFIX and method[1:] in self._methods:
            return self._gather(self._methods[method[1:]], _decode_gather(call.body), self._until(call))
        if method in self._whole:
            return self._whole[method](self, msgspec.Raw(bytes(call.body)), self._until(call))
        raise NotFound(f"{self.service} on {self.host.name} has no command {method!r}", name=method)

    def lane_of(self, partition: int) -> Lane:
        """Of a number that came from elsewhere. Raises ProtocolError."""
        if not 0 <= partition < len(self.lanes):
            raise ProtocolError(f"there is no partition {partition}: {len(self.lanes)} are configured here")
        return self.lanes[partition]

    def _until(self, call: Call) -> float:
        return self._monotonic() + ANSWER_SHARE * (call.milliseconds / 1000 or self.host.settings.call_seconds)

    def commit(self, lane: Lane, changes: list[Change]) -> None:
        """Write, under one new version. Raises Overloaded, and writes nothing, if an item could never move.

        It is acknowledged when `lane.acknowledged` returns. What is written in one turn of the loop is sent to the
        copies together.
        """
        limit = self.host.settings.message_bytes_max
        for key, value in changes:
            if value is not None and len(key) + len(value) > limit:
                text = f"an item of {len(key) + len(value)} bytes; message_bytes_max is {limit}: store parts"
                raise Overloaded(text, what="message_bytes_max", limit=limit)
        slot = lane.slot
        slot.items.write(changes, self.clock.tick(int(self.host.runtime.wall() * 1000)), self.host.uid)
        self.rights.wrote(lane.partition)
        if slot.feeds:
            if not self._written:
                asyncio.get_running_loop().call_soon(self._copy_written)
            self._written[lane.partition] = None

    def _copy_written(self) -> None:
        written, self._written = tuple(self._written), {}
        self.step(Wrote(written))

    async def _run_quick(self, lane: Lane, quick: Quick, command: Command, until: float) -> bytes:
        await lane.turn(command.epoch, until)
        try:
            answer = quick(lane, command)
            woken = lane.acknowledged(until)  # before the end, which may let go of the right
        finally:
            lane.end()
        if woken is not None:
            await woken
        return answer

    async def _run(self, lane: Lane, method: Method, command: Command, until: float) -> bytes:
        body, woken = await self._execute(lane, method, command, until)
        if woken is not None:
            await woken
        return body

    async def _execute(
        self, lane: Lane, method: Method, command: Command, until: float, *, gathers: bool = False
    ) -> tuple[bytes, asyncio.Future[None] | None]:
        """Run a command in its turn, and commit what it wrote; the answer, and what it has to wait for."""
        try:
            arguments = method.decode_arguments(command.argument)
        except msgspec.ValidationError as error:
            text = f"{method.name} of {self.service}: {error}"
            raise RemoteError("TypeError", text, node=self.host.name, may_have_run=False) from error
        await lane.turn(command.epoch, until)
        try:
            if lane.handler is None:
                self._prepare(lane)
            handler: Any = lane.handler
            tenure = lane.slot.right.tenure
            handler._begin(None if gathers else command.key)
            try:
                result = method.function(handler, **arguments)
                if asyncio.iscoroutine(result):
                    result = await result
            except RoostError as error:
                error.may_have_run = True  # it has, whatever the error says of a call that it made itself
                raise
            body = encode(result)
            changes = handler._written()
            if lane.slot.right.tenure != tenure or lane.slot.role not in EXECUTING:
                text = f"partition {lane.partition} went to another holder while {method.name} ran: nothing changed"
                raise Unavailable(text, may_have_run=True)
            if changes:
                try:
                    self.commit(lane, changes)
                except RoostError as error:
                    error.may_have_run = True
                    raise
            woken = lane.acknowledged(until)  # before the end, which may let go of the right
        finally:
            if lane.handler is not None:
                lane.handler._end()
            lane.end()
        return body, woken

    async def _gather(self, method: Method, gather: Gather, until: float) -> bytes:
        answer = Gathered([], [])
        waits: list[asyncio.Future[None]] = []
        slice_ends = self._monotonic() + SLICE_SECONDS
        for partition in gather.partitions:
            command = Command(partition, 0, b"", gather.argument)
            try:
                lane = self.lane_of(partition)
                result, woken = await self._execute(lane, method, command, until, gathers=True)
                if woken is not None:
                    waits.append(woken)
                answer.done.append((partition, msgspec.Raw(result)))
            except NotHere as error:
                answer.elsewhere.append((partition, error.epoch, error.holder))
            except RoostError as error:
                error.may_have_run = error.may_have_run or bool(answer.done)
                raise
            if self._monotonic() >= slice_ends:
                await asyncio.sleep(0)
                slice_ends = self._monotonic() + SLICE_SECONDS
        await asyncio.gather(*waits)
        return _encode(answer)

    # the machine

    def _hear(self) -> None:
        """Take in what others have said, in order; for long batches in slices, between which others run."""
        slice_ends = self._monotonic() + SLICE_SECONDS
        self._hearing = True
        while self._heard:
            self.step(self._heard.popleft())
            if self._monotonic() >= slice_ends and self._heard:
                asyncio.get_running_loop().call_soon(self._hear)
                return
        self._hearing = False

    def view_changed(self) -> None:
        """After `placement.refresh`."""
        self._collecting.viewed(bool(self.placement.view.missed))
        self.step(self.placement.view)

    def step(self, event: Event) -> None:
        """Give the machine an event, and carry out what it wants."""
        self._events.append(event)
        if self._stepping:
            return
        self._stepping = True
        while self._events:
            try:
                effects = self.rights.step(self._events.popleft(), self._monotonic())
                if self.host.runtime.checks:
                    self.rights.check_step()
                for effect in effects:
                    self._carry_out(effect)
            except Exception as error:
                # Nobody is there to be told but the log, and a test; what else there is to hear must not be lost.
                context = {"message": f"the rights of {self.service} on {self.host.name} failed", "exception": error}
                asyncio.get_running_loop().call_exception_handler({**context, "defect": True})
        self._stepping = False
        if self.rights.unsettled and not self._resuming:
            self._resuming = True
            asyncio.get_running_loop().call_soon(self._resume)
        if self._progress is not None and not self._progress.done():
            self._progress.set_result(None)

    def _resume(self) -> None:
        self._resuming = False
        self.step(Resumed())

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, Send):
            self._dispatch.send(effect.uid, effect.message)
        elif isinstance(effect, Acknowledged):
            self.lanes[effect.partition].answer(effect.number)
        elif isinstance(effect, Changed):
            self.lanes[effect.partition].look_again()
            self.transfers.changed(effect.partition)
        elif isinstance(effect, Stop):
            self.lanes[effect.partition].drain()
        elif isinstance(effect, Took):
            self.transfers.moved_in += effect.source != 0
            greatest = self.rights.slots[effect.partition].items.greatest
            ahead_ms = int(self.host.settings.clock_ahead_max_seconds * 1000)
            self.clock.observe(greatest, int(self.host.runtime.wall() * 1000), ahead_ms)
        elif isinstance(effect, Handed):
            self.transfers.moved_out += 1
            self.transfers.moved_items += effect.items
            self.transfers.moved_bytes += effect.size_bytes
        else:
            self.losses.note(effect)

    # leaving and status

    async def drain(self) -> None:
        """Return once everything has been handed over, or nobody who stays is there to take it."""
        left = self.rights.left_to_hand_over()
        try:
            while left and any(uid not in (0, self.host.uid) for uid in self.placement.primaries):
                self._progress = asyncio.get_running_loop().create_future()
                await self._progress
                left = self.rights.left_to_hand_over()
        finally:
            if left:
                self._say_what_is_left(left)

    def _say_what_is_left(self, left: list[int]) -> None:
        slots = [self.rights.slots[partition] for partition in left]
        keys = sum(slot.items.live for slot in slots if slot.right.holder == self.host.uid)
        others = [uid for uid in self.placement.primaries if uid not in (0, self.host.uid)]
        if not others:
            if keys:
                log.warning("%s is the last to host %s: %d keys end with it", self.host.name, self.service, keys)
            return
        held = [slot for slot in slots if slot.right.holder == self.host.uid]
        alone = [slot.partition for slot in held if len(slot.right.copies) < 2]
        log.warning(
            "%s leaves before all of %s is handed over: it still holds %d partitions with %d keys, of %d of which "
            "nobody else has a copy (%s), and has items of %d others",
            *(self.host.name, self.service, len(held), keys, len(alone), shortened(alone), len(left) - len(held)),
        )

    def status(self) -> dict[str, Any]:
        """What this node has of the service, for `roost status`."""
        rights = self.rights
        held = [slot for slot in rights.slots if slot.role in EXECUTING]
        copies = [slot for slot in rights.slots if slot.role not in EXECUTING and rights.book.is_copy(slot)]
        waiting = rights.waiting()
        return {
            "held": len(held),
            "copies": len(copies),
            "moving": rights.count(Role.MOVING, Role.CEDING),
            "awaiting": rights.count(Role.AWAITING, Role.CLAIMING) - waiting,
            "waiting": waiting,
            "copying": len(rights.incomplete()),
            "short": sum(slot.short for slot in held),
            "acts": rights.book.acts,
            "advice": self._advice,
            "items": sum(slot.items.live for slot in held),
            "bytes": sum(slot.items.size_bytes for slot in held),
            "left_over": sum(slot.strays is not None for slot in rights.slots),
            "set_aside": sum(slot.items.set_aside for slot in rights.slots),
            "queued": sum(len(lane.queue) for lane in self.lanes),
            "unacknowledged": sum(len(lane.unanswered) for lane in self.lanes),
            "repaired": rights.book.repairs,
            **self.transfers.status(),
            "possible_loss": sorted(self.losses.partitions),
        }


async def _after(woken: asyncio.Future[None], answer: bytes) -> bytes:
    await woken
    return answer


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
