"""Every frame kind and handshake message of protocol version 1, made from fixed values: the examples to be recorded.

    python -m tests.wire.golden_frames        writes tests/wire/golden/protocol-1.txt anew

The file is read by people, by `test_golden_frames.py`, which holds the encoder and the decoder to it, and by the
fuzzer, which breaks its frames in every way it knows. Once a version is released its file stays as it is for ever: what
changes a frame then is a new protocol version with a file of its own.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from roost.core.gossip import (
    Ack,
    Doubt,
    Entry,
    Gone,
    Health,
    Nack,
    Ping,
    PingRequest,
    ReachAnswer,
    ReachRequest,
    Report,
    Sync,
)
from roost.errors import NameTaken
from roost.wire.frame import encode_batch, length_prefix
from roost.wire.handshake import encode_refusal
from roost.wire.preface import make_preface
from roost.wire.protocol import (
    Bounced,
    Bye,
    Call,
    Cancel,
    Cast,
    Credit,
    Envelope,
    Failure,
    News,
    Reply,
    Sent,
    Stream,
)
from tests.wire.handshake_ends import ends, record

__all__ = ["FILE", "Golden", "batches", "made", "recorded", "written"]

FILE = Path(__file__).parent / "golden" / "protocol-1.txt"

HEAD = """\
What protocol version 1 is on the wire, frame by frame. Of each: its name, what it is, and its bytes in hexadecimal, the
4 bytes of the length before them; a greeting has none. Written by `python -m tests.wire.golden_frames`.
"""

WHOLE = Entry(
    name="chat-1",
    uid=0x1122334455667788,
    started=1_700_000_000_000,
    incarnation=3,
    state="up",
    health=Health.SUSPECT,
    address="10.0.0.5:7400",
    roles=("web", "db"),
    zone="eu-1",
    weight=1.5,
    services={"kv:sessions": 99},
    library="0.1.0",
    application="7.2",
)
PLAIN = Entry("chat-2", 2, 1_700_000_000_001, 0, "left", Health.DOWN, "[::1]:7401")
REPORT = Report(uid=2, number=41, digest=2**64 - 1)
BODY = msgspec.Raw(msgspec.msgpack.encode({"text": "héllo", "data": b"\x00\xff"}))


class Golden(NamedTuple):
    """One example: `meaning` is a line for people, `wire` what goes over the network."""

    name: str
    meaning: str
    wire: bytes

    @property
    def frame(self) -> bytes:
        """Without its length; of a greeting there is none."""
        return self.wire[len(length_prefix(0)) :]


def batches() -> dict[str, list[Envelope]]:
    """The examples of frames that carry envelopes."""
    entries, reports, doubts = [WHOLE], [REPORT], [Doubt(WHOLE.uid, 3, 2)]
    one: dict[str, Envelope] = {
        "call": Call(7, "ask", "Hello", BODY, 5000),
        "call-traced": Call(2**40, "kv:sessions", "put", BODY, 1, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa-01"),
        "cast": Cast("inbox", "Notice", BODY),
        "cast-traced": Cast("inbox", "Notice", BODY, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa-01"),
        "reply": Reply(7, BODY),
        "failure": Failure(7, "KeyError", "no such room", True),
        "failure-known": Failure(7, "roost.NotFound", "gone", False, msgspec.Raw(b"\x81\xa4name\xa1x")),
        "cancel": Cancel(7),
        "stream": Stream(3),
        "credit": Credit("Notice", 64),
        "credit-restart": Credit("Notice", -12, 3),
        "bounced": Bounced("Notice", 1),
        "bye": Bye("idle"),
        "sent": Sent(123_456_789),
        "news-ping": News(Ping(11, entries, reports, doubts)),
        "news-ack": News(Ack(11, [], [])),
        "news-ping-request": News(PingRequest(12, 2, [PLAIN], [])),
        "news-nack": News(Nack(12, True, [], reports)),
        "news-sync": News(Sync(True, [WHOLE, PLAIN], reports, doubts, [Gone(2, 1.5)])),
        "news-reach-request": News(ReachRequest(13)),
        "news-reach-answer": News(ReachAnswer(13, "connection refused")),
    }
    found: dict[str, list[Envelope]] = {name: [envelope] for name, envelope in one.items()}
    found["nothing"] = []
    found["tick"] = [Sent(5), one["reply"], one["call"], one["cast"], one["credit"]]
    return found


def made() -> Iterator[Golden]:
    """What today's encoder makes of all examples."""
    yield Golden("greeting-plain", "the first 8 bytes each way, without TLS", make_preface(tls=False))
    yield Golden("greeting-tls", "the first 8 bytes each way, before TLS", make_preface(tls=True))
    secret = zip(("hello", "challenge", "proof", "welcome"), record(*ends()), strict=True)
    first, second = ends(secrets=())
    first.secrets = ()
    open_ = zip(("hello", "challenge-open", "proof-open", "welcome-open"), record(first, second), strict=True)
    refusal = encode_refusal(NameTaken("ann lives already"))
    for name, frame in (*secret, *list(open_)[1:], ("refusal", refusal)):
        yield Golden(name, _shown(msgspec.msgpack.decode(frame)), length_prefix(len(frame)) + frame)
    for name, envelopes in batches().items():
        frame = encode_batch(envelopes)
        meaning = " ".join(_said(envelope) for envelope in envelopes) or "a frame of no envelopes"
        yield Golden(name, meaning, length_prefix(len(frame)) + frame)


def _said(envelope: Envelope) -> str:
    fields = ", ".join(f"{name}={_shown(getattr(envelope, name))}" for name in envelope.__struct_fields__)
    return f"{type(envelope).__name__}({fields})"


def _shown(value: object) -> str:
    """Bodies as what they say, long bytes as hexadecimal digits."""
    if isinstance(value, msgspec.Raw):
        return _shown(msgspec.msgpack.decode(value))
    if isinstance(value, list):
        return f"[{', '.join(_shown(each) for each in value)}]"
    return value.hex() if isinstance(value, bytes) and len(value) > 8 else repr(value)


def written(examples: Iterator[Golden]) -> str:
    """The file that records them."""
    parts = [f"{each.name}\n    {each.meaning}\n{_lines(each.wire)}\n" for each in examples]
    return "\n".join([HEAD, *parts])


def _lines(data: bytes) -> str:
    digits = data.hex(" ", -4)
    return "\n".join(f"  {digits[at : at + 108].strip()}" for at in range(0, len(digits), 108))


def recorded() -> dict[str, Golden]:
    """What the file says, by name."""
    found: dict[str, Golden] = {}
    for part in FILE.read_text(encoding="utf-8").split("\n\n")[1:]:
        name, meaning, *lines = part.strip().splitlines()
        digits = re.sub(r"\s", "", "".join(lines))
        found[name] = Golden(name, meaning.strip(), bytes.fromhex(digits))
    return found


def main() -> int:
    text = written(made())
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{FILE.name}: {len(recorded())} frames\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
