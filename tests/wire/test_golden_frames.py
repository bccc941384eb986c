"""What version 1 of the protocol is on the wire does not change: both ways, field by field, and towards newer peers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from roost.errors import ProtocolError
from roost.wire.frame import Framer, decode_batch, encode_batch
from roost.wire.handshake import State
from roost.wire.preface import PREFACE_BYTES, check_preface
from roost.wire.protocol import Envelope, Handshake, News
from tests.wire.golden_frames import Golden, batches, made, recorded
from tests.wire.handshake_ends import ends

CHANGED = (
    "the bytes of protocol version 1 have changed. Once it is released this is a new protocol version: add to PROTOCOL "
    "in wire/protocol.py and record that version beside this one. Before: python -m tests.wire.golden_frames"
)
RECORDED = recorded()
BATCHES = batches()
MESSAGES = ["hello", "challenge", "proof", "welcome", "challenge-open", "proof-open", "welcome-open", "refusal"]

_message = msgspec.msgpack.Decoder(Handshake)


def fields_of(struct: object) -> Any:
    """Down to builtins, so that two of them can be compared."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(struct))


def test_every_kind_of_frame_is_recorded() -> None:
    assert {each.name for each in made()} == set(RECORDED)
    numbers = {type(envelope) for batch in BATCHES.values() for envelope in batch}
    assert numbers == set(Envelope.__args__)
    gossip = {type(envelope.body) for batch in BATCHES.values() for envelope in batch if isinstance(envelope, News)}
    assert gossip == set(msgspec.structs.fields(News)[0].type.__args__)
    said = {type(_message.decode(RECORDED[name].frame)) for name in MESSAGES}
    assert said == set(Handshake.__args__)


@pytest.mark.parametrize("golden", list(made()), ids=lambda golden: golden.name)
def test_todays_encoder_makes_exactly_the_recorded_bytes(golden: Golden) -> None:
    assert golden.wire.hex(" ", -4) == RECORDED[golden.name].wire.hex(" ", -4), CHANGED
    assert golden.meaning == RECORDED[golden.name].meaning, CHANGED


@pytest.mark.parametrize("name", BATCHES)
def test_todays_decoder_reads_the_recorded_frames(name: str) -> None:
    (frame,) = Framer(4096).feed(RECORDED[name].wire)
    read = decode_batch(frame)
    assert [type(envelope) for envelope in read] == [type(envelope) for envelope in BATCHES[name]], CHANGED
    assert fields_of(read) == fields_of(BATCHES[name]), CHANGED


@pytest.mark.parametrize("name", MESSAGES)
def test_todays_decoder_reads_the_recorded_handshake(name: str) -> None:
    (frame,) = Framer(4096).feed(RECORDED[name].wire)
    message = _message.decode(frame)
    assert type(message).__name__.lower() == name.partition("-")[0], CHANGED
    assert msgspec.msgpack.encode(message) == frame, CHANGED


def test_two_ends_of_today_agree_over_the_recorded_handshake() -> None:
    first, second = ends()
    initiator, acceptor = first.machine(initiator=True), second.machine(initiator=False)
    hello, challenge, proof, welcome = (RECORDED[name].frame for name in MESSAGES[:4])
    assert initiator.start() == [hello], CHANGED
    assert acceptor.receive(hello) == [challenge], CHANGED
    assert initiator.receive(challenge) == [proof], CHANGED
    assert acceptor.receive(proof) == [welcome], CHANGED
    assert initiator.receive(welcome) == []
    assert initiator.state is acceptor.state is State.DONE


@pytest.mark.parametrize(("name", "tls"), [("greeting-plain", False), ("greeting-tls", True)])
def test_the_recorded_greeting_is_understood(name: str, tls: bool) -> None:
    assert len(RECORDED[name].wire) == PREFACE_BYTES
    check_preface(RECORDED[name].wire, tls=tls)


@pytest.mark.parametrize("added", [None, 7, "text", [1, [2]], {"a": b"b"}, b"x" * 300], ids=repr)
@pytest.mark.parametrize("name", BATCHES)
def test_fields_that_a_newer_peer_adds_are_ignored(name: str, added: object) -> None:
    envelopes = BATCHES[name]
    longer = []
    for fields in msgspec.msgpack.decode(RECORDED[name].frame):
        if isinstance(fields[1], list) and len(fields) == 2:  # gossip, with entries and reports in it
            number, *rest = fields[1]
            rest = [[[*each, added] for each in part] if isinstance(part, list) else part for part in rest]
            fields[1] = [number, *rest, added]
        longer.append([*fields, added])
    assert fields_of(decode_batch(msgspec.msgpack.encode(longer))) == fields_of(envelopes)


@pytest.mark.parametrize("number", [11, 19, 20, 24, 127, 2**31, 2**63])
def test_an_envelope_of_an_unknown_number_is_a_protocol_error(number: int) -> None:
    """A peer speaks the version that was agreed upon, so an unknown number is no news but a mistake."""
    good = msgspec.msgpack.decode(RECORDED["tick"].frame)
    with pytest.raises(ProtocolError, match=f"Invalid value {number}"):
        decode_batch(encode_batch([*good, [number, 1, 2]]))


@pytest.mark.parametrize("name", [name for name, batch in BATCHES.items() if batch])
def test_an_envelope_without_one_of_its_fields_is_a_protocol_error(name: str) -> None:
    for position, fields in enumerate(good := msgspec.msgpack.decode(RECORDED[name].frame)):
        short = [*good[:position], fields[:1], *good[position + 1 :]]
        with pytest.raises(ProtocolError, match="at least length"):
            decode_batch(encode_batch(short))
