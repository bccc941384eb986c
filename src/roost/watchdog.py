"""The watchdog: says which handler blocks the event loop, while it does.

A node shares one thread with the handlers of its user. One that computes for seconds, or calls what blocks, silences
the node, and the others see a member that does not answer. From within nothing can be said about it until it is over;
so a thread beside the loop watches. The loop *beats*: a timer, four times in `blocked_loop_seconds`. When a beat is
late by so much, the thread looks at the loop thread's stack and logs who is on it: the user's function, which is the
outermost frame inside the loop that is neither this library's nor the standard library's, and the line it is at. When
the beat comes after all, it logs how long that took.

The thread, too, needs the interpreter. If it comes late itself, then either the process stood still (it was stopped,
or its machine had no time for it), or somebody held the interpreter without letting go, in C. The processor time that
was used meanwhile tells which; in the second case the handler is named when it lets go, and not before.

One thread a loop, for all nodes on it; it ends with the last of them. A beat costs some microseconds, a call nothing.

Invariants: only the loop's thread writes what the beat writes; a block is counted once, when it is over.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import sysconfig
import threading
import time
from collections import deque
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import msgspec

__all__ = ["Block", "Watch", "watch"]

log = logging.getLogger("roost.watchdog")

BEATS = 4
"""In `blocked_loop_seconds`: a block is measured to a quarter of it."""
HELD_SHARE = 0.2
"""Of `blocked_loop_seconds`: if the thread is late by more, it was kept from running; less is how machines are."""
BUSY_SHARE = 0.05
"""Of the time of a block: who computed used so much processor time even on a crowded machine, who was stopped none."""
LOOK_AGAIN_SECONDS = 1.0
"""How often the thread sees to it that a blocked loop still exists."""
STILL = "the process stood still: it was stopped, or its machine had no time for it"
OTHER_THREAD = "another thread of the process, which held the interpreter"
UNSEEN = "a handler that ended before it could be named"


class Block(msgspec.Struct, frozen=True):
    """A time in which the loop did not turn. `what` names the function, or says why there is none to name."""

    what: str
    seconds: float
    at: float
    """Seconds since the epoch when it began."""


class _Gap(NamedTuple):
    """A beat that came late, and the processor time used since the one before it."""

    due: float
    end: float
    thread_cpu: float
    process_cpu: float

    @property
    def seconds(self) -> float:
        return self.end - self.due


class _Watchdog:
    """The thread, and the beat that it listens to."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.watches: list[Watch] = []
        self.count = 0
        self.last: Block | None = None
        self.longest: Block | None = None
        self._loop = loop
        self._seconds = 0.0
        self._timer: asyncio.Handle | None = None
        self._wake = threading.Event()
        self._ended = False
        # what the beat writes
        self._due = time.monotonic()
        self._ident = 0
        self._depth = 0
        self._thread_cpu = self._process_cpu = 0.0
        self._gaps: deque[_Gap] = deque()
        # the thread's own
        self._look_at = 0.0
        self._held_seconds = 0.0
        self._seen = ""
        self._named = ""
        self._unused = False
        """The loop was not running at all when it was looked at."""

    # on the loop's thread

    def adjust(self) -> None:
        """The nodes have changed: the one that wants to know earliest decides; without any, it is over."""
        if self.watches:
            self._seconds = min(watch.seconds for watch in self.watches)
            if self._timer is None:
                self._begin()
        elif self._timer is not None:
            self._ended = True
            self._timer.cancel()
            self._wake.set()

    def _begin(self) -> None:
        self._note_cpu()
        self._timer = self._loop.call_soon(self._beat)
        threading.Thread(target=self._watch, name="roost watchdog", daemon=True).start()

    def _beat(self) -> None:
        now = time.monotonic()
        thread_cpu, process_cpu = self._thread_cpu, self._process_cpu
        self._note_cpu()
        self._ident = threading.get_ident()
        self._depth = len(_stack(sys._getframe(1)))  # what is outside of every callback of the loop
        late = now - self._due > self._seconds
        if late:
            self._gaps.append(_Gap(self._due, now, self._thread_cpu - thread_cpu, self._process_cpu - process_cpu))
        pause = self._seconds / BEATS
        self._due = now + pause
        if late:
            self._wake.set()
        self._timer = self._loop.call_later(pause, self._beat)

    def _note_cpu(self) -> None:
        self._thread_cpu = time.thread_time()
        self._process_cpu = time.process_time()

    # on its own thread

    def _watch(self) -> None:
        while not self._ended and not self._loop.is_closed():
            planned = max(self._due + self._seconds, self._look_at)
            self._wake.wait(max(0.0, planned - time.monotonic()))
            self._wake.clear()
            now = time.monotonic()
            held = now - planned
            if held > HELD_SHARE * self._seconds:
                self._held_seconds += held
            due = self._due  # before the gaps: if it is new, its gap is there
            if self._gaps:
                self._over(self._gaps.popleft())
            elif now > due + self._seconds:
                self._late(now, held > HELD_SHARE * self._seconds)
            else:
                self._look_at = self._held_seconds = 0.0

    def _late(self, now: float, held: bool) -> None:
        """The beat is overdue: see why."""
        self._look_at = now + self._seconds
        if self._named:
            self._look_at = now + LOOK_AGAIN_SECONDS
        elif not self._loop.is_running():
            self._unused = True
        else:
            what, place = self._look()
            again, self._seen = bool(self._seen), what
            if what and (again or not held):  # else the reason may be another one, and the beat about to come
                self._named = what
                self._look_at = now + LOOK_AGAIN_SECONDS
                text = "%s: the event loop has been blocked for %.2f s by %s; it is at %s"
                log.warning(text, self._nodes, now - self._due, what, place)

    def _over(self, gap: _Gap) -> None:
        """The beat has come, late: say how late and why, and count it."""
        named, seen, held = self._named, self._seen, self._held_seconds
        unused = self._unused
        self._named = self._seen = ""
        self._look_at = self._held_seconds = 0.0
        self._unused = False
        if unused:
            return
        what = named or self._reason(gap, seen, held)
        if what == STILL:
            log.warning("%s: for %.2f s %s", self._nodes, gap.seconds, what)
        else:
            still = f", for {held:.2f} s of which the process stood still" if held > gap.seconds / 2 and named else ""
            text = "%s: the event loop goes on after %.2f s%s; it was blocked by %s"
            log.warning(text, self._nodes, gap.seconds, still, what)
        block = Block(what, round(gap.seconds, 3), time.time() - (time.monotonic() - gap.due))
        self.count += 1
        self.last = block
        if self.longest is None or block.seconds > self.longest.seconds:
            self.longest = block

    def _reason(self, gap: _Gap, seen: str, held: float) -> str:
        """Why a loop stood still that nobody was seen to block."""
        busy = BUSY_SHARE * gap.seconds
        if held == 0.0 or gap.thread_cpu >= busy:
            return seen or UNSEEN
        if gap.process_cpu - gap.thread_cpu >= busy:
            return OTHER_THREAD
        return seen if seen and held < gap.seconds / 2 else STILL

    def _look(self) -> tuple[str, str]:
        """Who is on the loop's stack, and where; ("", "") if nobody is."""
        stack = _stack(sys._current_frames().get(self._ident))
        inside = stack[: len(stack) - self._depth]
        if any(frame.f_code is _Watchdog._beat.__code__ for frame in inside):
            return "", ""  # it is over
        for kind in (_is_users, _is_ours, bool):
            frames = [frame for frame in inside if kind(frame)]
            if frames:
                code = frames[-1].f_code
                return f"{code.co_qualname} ({code.co_filename}:{code.co_firstlineno})", _place(frames[0], inside[0])
        return "", ""

    @property
    def _nodes(self) -> str:
        return ", ".join(watch.node for watch in list(self.watches)) or "a node that has stopped"


class Watch:
    """One node's share in the watchdog of its loop."""

    def __init__(self, node: str, seconds: float, dog: _Watchdog) -> None:
        self.node = node
        self.seconds = seconds
        self._dog = dog

    def stop(self) -> None:
        """This node does not need it any more. Twice does nothing."""
        dog = self._dog
        if self in dog.watches:
            dog.watches.remove(self)
            dog.adjust()
            if not dog.watches:
                with _lock:
                    _dogs.pop(dog._loop, None)

    def status(self) -> dict[str, Any]:
        """JSON types: how often the loop was blocked since its first node started, the last time and the longest."""
        dog = self._dog
        return {"count": dog.count, "last": _builtins(dog.last), "longest": _builtins(dog.longest)}


def watch(node: str, seconds: float) -> Watch:
    """Have the running loop watched from now on, for the node of that name."""
    loop = asyncio.get_running_loop()
    with _lock:
        dog = _dogs.get(loop)
        if dog is None:
            dog = _dogs[loop] = _Watchdog(loop)
    share = Watch(node, seconds, dog)
    dog.watches.append(share)
    dog.adjust()
    return share


_dogs: dict[asyncio.AbstractEventLoop, _Watchdog] = {}
_lock = threading.Lock()

_OURS = str(Path(__file__).parent) + "/"
_UVLOOP = "/uvloop/"
_STDLIB = tuple({sysconfig.get_path(name) + "/" for name in ("stdlib", "platstdlib")})
_PACKAGES = ("/site-packages/", "/dist-packages/")


def _stack(frame: FrameType | None) -> list[FrameType]:
    """The frame and those outside of it, innermost first."""
    stack = []
    while frame is not None:
        stack.append(frame)
        frame = frame.f_back
    return stack


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_OURS)


def _is_users(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    if name.startswith((_OURS, "<frozen ")) or _UVLOOP in name:
        return False
    return not name.startswith(_STDLIB) or any(part in name for part in _PACKAGES)


def _place(frame: FrameType, innermost: FrameType) -> str:
    place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    if innermost is frame:
        return place
    code = innermost.f_code
    return f"{place}, in {code.co_qualname} ({code.co_filename}:{innermost.f_lineno})"


def _builtins(block: Block | None) -> dict[str, Any] | None:
    return None if block is None else msgspec.to_builtins(block)
