"""Whatever arrives, the wire answers with its own errors: 10^6 broken frames, conversations and greetings.

    python -m tests.wire.fuzz --inputs 1000000 --seed 1      prints the rate, and the first input that breaks the law
    python -m tests.wire.fuzz --seed 1 --first 4711 --inputs 1      once more the one of that number
    python -m tests.wire.fuzz --atheris      guided by coverage, with libFuzzer's options
                                             (pip install 'roost[fuzz]'; -atheris_runs=100000)

The law. (1) Nothing comes out but the declared errors. (2) Nothing hangs: a watchdog ends the process with a traceback.
(3) The same frames come out however the stream is cut, and through either door of the framer. (4) What is kept, and
what is allocated meanwhile, is at most a multiple of what was sent. (5) Who does not know the secret gets no handshake
done, whatever it says, at either end and at any stage, even if it has heard an honest one. What is read without an
error can be written, and is then read as the same.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import inspect
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from roost.errors import (
    AuthError,
    ConfigError,
    NameTaken,
    Overloaded,
    ProtocolError,
    Unavailable,
    VersionSkew,
)
from roost.net.failures import from_failure
from roost.wire.frame import LARGE_BYTES_MIN, LENGTH_BYTES, Framer, decode_batch, encode_batch
from roost.wire.handshake import HANDSHAKE_BYTES_MAX, Handshake, State
from roost.wire.preface import check_preface, make_preface, may_be_preface
from roost.wire.protocol import Failure
from tests.wire.golden_frames import batches, recorded
from tests.wire.handshake_ends import End, ends, record
from tests.wire.mutations import cut_up, framed, mutated

__all__ = ["AIMS", "LawBroken", "one", "run"]

FRAME_BYTES_MAX = LARGE_BYTES_MIN + 16 * 1024
ALLOCATED_BYTES_SPARE = 8 * FRAME_BYTES_MAX
"""Room for one large frame, and the copies that are made here to compare."""
ALLOCATED_TIMES = 100
"""An empty list is one byte on the wire and 64 in memory."""
MEASURED_EVERY = 500
HANG_SECONDS = 30.0
WATCHED_EVERY = 2000

REFUSALS = (AuthError, ConfigError, NameTaken, Overloaded, ProtocolError, Unavailable, VersionSkew)
"""What a handshake may end with: of its own accord, or because the other end said so."""

GOLDEN = recorded()
BATCHES = [GOLDEN[name].frame for name in batches()]
OVERHEARD = record(*ends())
"""An honest handshake of the very ends that are attacked: only their nonces are others now."""
OPEN = [GOLDEN[name].frame for name in ("hello", "challenge-open", "proof-open", "welcome-open")]
MESSAGES = [*OVERHEARD, *OPEN[1:], GOLDEN["refusal"].frame]
ALL = [*BATCHES, *MESSAGES]


class LawBroken(AssertionError):
    """What came out is not what the law allows."""


def frames_of(stream: bytes) -> list[bytes]:
    """What a framer must find, the simple way; what follows a length beyond the limit is nothing any more."""
    found = []
    at = 0
    while len(stream) - at >= LENGTH_BYTES:
        size = int.from_bytes(stream[at : at + LENGTH_BYTES], "big")
        if size > FRAME_BYTES_MAX or len(stream) - at - LENGTH_BYTES < size:
            break
        at += LENGTH_BYTES
        found.append(stream[at : at + size])
        at += size
    return found


def read_stream(rng: Random, stream: bytes) -> list[bytes]:
    """The frames of a stream that comes in pieces, each piece through whichever door the framer has open."""
    framer = Framer(FRAME_BYTES_MAX)
    found: list[bytes] = []
    try:
        for piece in cut_up(rng, stream):
            rest = piece
            while rest and (room := framer.room()) is not None and rng.random() < 0.7:
                count = min(len(room), len(rest))
                room[:count] = rest[:count]
                room.release()
                if (frame := framer.filled(count)) is not None:
                    found.append(bytes(frame))
                rest = rest[count:]
            found.extend(bytes(frame) for frame in framer.feed(rest))
            if framer.partial > FRAME_BYTES_MAX + LENGTH_BYTES + len(piece):
                raise LawBroken(f"a framer keeps {framer.partial} bytes")
    except ProtocolError:
        return found
    return found


def at_frames(rng: Random, broken: Sequence[bytes]) -> str:
    """A stream of frames into a framer, and each frame into the decoder."""
    stream = b"".join(framed(frame) if rng.random() < 0.8 else frame for frame in broken)
    if rng.random() < 0.02:
        stream += framed(bytes(rng.choice((LARGE_BYTES_MIN, FRAME_BYTES_MAX)) - LENGTH_BYTES))
    found = read_stream(rng, stream)
    if found != frames_of(stream):
        raise LawBroken("other frames came out than went in")
    outcome = "no frame"
    for frame in found:
        outcome = at_batch(frame)
    return outcome


def at_batch(frame: bytes) -> str:
    """One frame into the decoder; what it reads is read again."""
    try:
        envelopes = decode_batch(memoryview(frame))
    except ProtocolError:
        return "refused"
    again = encode_batch(envelopes)
    if encode_batch(decode_batch(again)) != again:
        raise LawBroken("a batch is not read as it was written")
    for envelope in envelopes:
        if isinstance(envelope, Failure):
            from_failure(envelope, "eve")
    return "taken"


def at_handshake(rng: Random, broken: Sequence[bytes]) -> str:
    """A conversation with a node that has a secret or none, at either end, from any stage on."""
    secured = rng.random() < 0.8
    initiator = rng.random() < 0.5
    victim = End("ann", 1) if initiator else End("ben", 2)
    victim.nonce = rng.randbytes(32)
    if not secured:
        victim.secrets = ()
    machine = victim.machine(initiator=initiator)
    machine.start()
    honest = (OVERHEARD if secured else OPEN)[1 if initiator else 0 :: 2]
    heard = [*honest[: rng.choice((0, 1, 1, 2))], *broken]
    for frame in heard:
        try:
            answers = machine.receive(memoryview(frame))
        except REFUSALS as error:
            if machine.state is not State.FAILED or len(machine.refusal(error)) > HANDSHAKE_BYTES_MAX:
                raise LawBroken(f"{machine!r} goes on after {error!r}") from error
            return type(error).__name__
        if sum(map(len, answers)) > HANDSHAKE_BYTES_MAX:
            raise LawBroken("an answer longer than a frame of a handshake")
        if secured and (machine.done or machine.peer is not None):
            raise LawBroken(f"{machine!r} was done without the secret")
    return machine.state.value


def at_greeting(rng: Random, broken: Sequence[bytes]) -> str:
    """The first bytes of a connection."""
    tls = rng.random() < 0.5
    good = make_preface(tls=rng.random() < 0.5)
    said = mutated(rng, good, ALL)[: rng.choice((8, 8, 8, 100))] if rng.random() < 0.9 else broken[0][:8]
    try:
        check_preface(said, tls=tls)
    except (ProtocolError, VersionSkew, AuthError) as error:
        if said == make_preface(tls=tls):
            raise LawBroken("a good greeting was refused") from error
        return type(error).__name__
    if said != make_preface(tls=tls) or not may_be_preface(said):
        raise LawBroken(f"{said!r} was taken for a greeting")
    return "taken"


AIMS: dict[str, Callable[[Random, Sequence[bytes]], str]] = {
    "frames": at_frames,
    "handshake": at_handshake,
    "greeting": at_greeting,
}
_WEIGHTED = (at_frames,) * 11 + (at_handshake,) * 8 + (at_greeting,)


def one(rng: Random, aim: Callable[[Random, Sequence[bytes]], str] | None = None) -> str:
    """One input, made and fed; what became of it. Raises what breaks the law."""
    aim = aim or rng.choice(_WEIGHTED)
    good = MESSAGES if aim is at_handshake else BATCHES if rng.random() < 0.9 else ALL
    broken = [
        mutated(rng, rng.choice(good), ALL) if rng.random() < 0.9 else rng.choice(good)
        for _ in range(rng.choice((1, 1, 1, 2, 3)))
    ]
    try:
        return f"{aim.__name__.removeprefix('at_')}: {aim(rng, broken)}"
    except Exception as error:
        error.add_note("frames: " + " ".join(frame.hex() for frame in broken)[:4000])
        raise


def measured(rng: Random) -> str:
    """One input, and the memory that it took meanwhile."""
    sent = 0

    def counting(aim: Callable[[Random, Sequence[bytes]], str]) -> Callable[[Random, Sequence[bytes]], str]:
        def counted(rng: Random, broken: Sequence[bytes]) -> str:
            nonlocal sent
            sent = sum(map(len, broken))
            tracemalloc.start()
            return aim(rng, broken)

        counted.__name__ = aim.__name__
        return counted

    try:
        outcome = one(rng, counting(rng.choice(_WEIGHTED)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    if peak > ALLOCATED_BYTES_SPARE + ALLOCATED_TIMES * sent:
        raise LawBroken(f"{peak} bytes were allocated for {sent} that were sent")
    return outcome


def run(inputs: int, seed: int, first: int = 0) -> Counter[str]:
    """Feed inputs `first` to `first + inputs - 1` of a seed; how many ended how. An error names its input."""
    outcomes: Counter[str] = Counter()
    rng = Random()
    for number in range(first, first + inputs):
        if number % WATCHED_EVERY == 0:
            faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        rng.seed(seed << 40 | number)
        try:
            outcomes[(measured if number % MEASURED_EVERY == 0 else one)(rng)] += 1
        except Exception as error:
            error.add_note(f"python -m tests.wire.fuzz --seed {seed} --first {number} --inputs 1")
            faulthandler.cancel_dump_traceback_later()
            raise
        finally:
            if number == first + inputs - 1:
                faulthandler.cancel_dump_traceback_later()
    return outcomes


def guided(options: Sequence[str]) -> None:
    """Let atheris look for new paths through the framer and the handshake. Its bytes are a frame, or several."""
    atheris: Any = importlib.import_module("atheris")

    def feed(data: bytes) -> None:
        rng = Random(len(data))
        at_batch(data)
        at_frames(rng, [data])
        at_handshake(rng, [data])
        at_greeting(rng, [data])

    for place in (Framer, Handshake):
        for function in filter(inspect.isfunction, vars(place).values()):
            atheris.instrument_func(function)
    atheris.Setup([sys.argv[0], *options], feed)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--atheris", action="store_true")
    options, others = parser.parse_known_args()
    if others and not options.atheris:
        parser.error(f"unknown: {' '.join(others)}")
    if options.atheris:
        guided(others)
        return 0
    began = time.monotonic()
    outcomes = run(options.inputs, options.seed, options.first)
    seconds = time.monotonic() - began
    for outcome, count in sorted(outcomes.items()):
        sys.stdout.write(f"{count:>9} {outcome}\n")
    rate = options.inputs / max(seconds, 1e-9)
    sys.stdout.write(f"{options.inputs} inputs of seed {options.seed}, {seconds:.0f} s, {rate:.0f} a second\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
