"""The handshake's frames: their order, their bounds, refusals, and whatever else may arrive."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.errors import AuthError, ConfigError, NameTaken, ProtocolError, RemoteError, RoostError
from roost.wire.handshake import (
    HANDSHAKE_BYTES_MAX,
    NONCE_BYTES,
    TRANSITIONS,
    Handshake,
    State,
    encode_refusal,
    error_of,
)
from roost.wire.protocol import Facts, Hello, Identity, Refusal
from tests.wire.handshake_ends import NEW, End, ends, facts, record, shake


@pytest.mark.parametrize("initiator", [True, False])
def test_messages_out_of_order_are_refused(initiator: bool) -> None:
    first, second = ends()
    frames = record(first, second)
    script = frames[1::2] if initiator else frames[0::2]
    for good in range(3):
        for wrong in (*frames, frames[0]):
            if good < 2 and wrong == script[good]:
                continue
            machine = (first if initiator else second).machine(initiator=initiator)
            machine.start()
            for frame in script[:good]:
                machine.receive(frame)
            with pytest.raises(ProtocolError, match="came while"):
                machine.receive(wrong)
            assert machine.state is State.FAILED
            with pytest.raises(ProtocolError, match="came while failed"):
                machine.receive(script[0])


@pytest.mark.parametrize(
    "identity",
    [
        Identity("", 5, ""),
        Identity("a b", 5, ""),
        Identity("x" * 129, 5, ""),
        Identity("\x1b[31mred", 5, ""),
        Identity("ok\n", 5, ""),
        Identity("ok", 0, ""),
        Identity("ok", -1, ""),
        Identity("ok", 2**63, ""),
        Identity("ok", 5, "", "admin"),
        Identity("ok", 5, "host:1\n"),
        Identity("ok", 5, "h" * 256),
    ],
)
def test_identities_out_of_bounds_are_refused(identity: Identity) -> None:
    _, second = ends()
    with pytest.raises(ProtocolError):
        second.machine(initiator=False).receive(msgspec.msgpack.encode(Hello(identity, facts(), b"n" * NONCE_BYTES)))
    with pytest.raises(ConfigError):
        Handshake(
            initiator=True,
            me=identity,
            facts=facts(),
            keyring=None,
            binding=b"",
            nonce=b"n" * NONCE_BYTES,
            clock_ahead_max_seconds=5.0,
        )


@pytest.mark.parametrize(
    "wrong",
    [
        facts(cluster=""),
        facts(cluster="c" * 129),
        facts(cluster="a\nb"),
        facts(protocol=(0, 1)),
        facts(protocol=(2, 1)),
        facts(protocol=(1, 2**16)),
        facts(partitions=0),
        facts(wall_milliseconds=-1),
        facts(wall_milliseconds=2**63),
    ],
)
def test_facts_out_of_bounds_are_refused(wrong: Facts) -> None:
    hello = Hello(Identity("ann", 1, ""), wrong, b"n" * NONCE_BYTES)
    with pytest.raises(ProtocolError):
        End("ben", 2).machine(initiator=False).receive(msgspec.msgpack.encode(hello))


@pytest.mark.parametrize("size", [0, 31, 33, 1000])
def test_nonces_of_another_length_are_refused(size: int) -> None:
    hello = Hello(Identity("ann", 1, ""), facts(), b"n" * size)
    with pytest.raises(ProtocolError, match="nonce"):
        End("ben", 2).machine(initiator=False).receive(msgspec.msgpack.encode(hello))


def test_a_frame_beyond_the_limit_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(ProtocolError, match="limit"):
        End("ben", 2).machine(initiator=False).receive(b"\x00" * (HANDSHAKE_BYTES_MAX + 1))


def test_truncated_frames_are_refused() -> None:
    first, second = ends()
    hello = record(first, second)[0]
    for size in range(len(hello)):
        with pytest.raises(ProtocolError):
            second.machine(initiator=False).receive(hello[:size])


def test_names_as_long_as_they_may_be_fit_into_a_frame() -> None:
    first = End("n" * 128, 1, facts=facts(cluster="\N{ROCKET}" * 128))
    second = End("m" * 128, 2, facts=first.facts)
    initiator, acceptor, errors = shake(first, second)
    assert errors == {} and initiator.done and acceptor.done


def test_a_refusal_raises_the_error_of_its_kind() -> None:
    initiator = End("ann", 1).machine(initiator=True)
    initiator.start()
    with pytest.raises(NameTaken, match="refused by the other end: ann lives already"):
        initiator.receive(encode_refusal(NameTaken("ann lives already")))
    assert initiator.state is State.FAILED


def test_a_refusal_of_an_unknown_kind_is_an_auth_error() -> None:
    assert type(error_of(Refusal("os.system", "x"))) is AuthError


def test_a_refusal_says_nothing_of_errors_that_do_not_concern_the_other_end() -> None:
    refusal = msgspec.msgpack.decode(encode_refusal(RemoteError("KeyError", "private", node="n")), type=Refusal)
    assert refusal == Refusal("AuthError", "the connection was refused")


def test_a_refusals_text_is_cut_and_cleaned() -> None:
    text = str(error_of(Refusal("AuthError", "\x1b[2J\r\n\u202e" + "x" * 10_000)))
    assert text.isprintable() and len(text) < 600
    assert len(encode_refusal(AuthError("y" * 10_000))) < HANDSHAKE_BYTES_MAX


def test_every_message_is_taken_in_exactly_one_state() -> None:
    assert sorted(message.__name__ for _, message in TRANSITIONS) == ["Challenge", "Hello", "Proof", "Welcome"]


GOOD = record(*ends())
messages = st.one_of(
    st.binary(max_size=200),
    st.sampled_from(GOOD),
    st.tuples(st.sampled_from(GOOD), st.integers(0, 300), st.integers(1, 255)).map(
        lambda t: t[0][: t[1] % len(t[0])] + bytes([t[0][t[1] % len(t[0])] ^ t[2]]) + t[0][t[1] % len(t[0]) + 1 :]
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5) | st.binary(max_size=33),
        lambda inner: st.lists(inner, max_size=5),
        max_leaves=20,
    ).map(lambda value: msgspec.msgpack.encode([20, value, value, value, True])),
)


@given(st.booleans(), st.booleans(), st.lists(messages, max_size=5))
@settings(max_examples=400, deadline=None)
def test_whatever_arrives_only_our_own_errors_come_out(initiator: bool, secured: bool, frames: list[bytes]) -> None:
    end = End("eve", 3, secrets=(NEW,) if secured else ())
    machine = end.machine(initiator=initiator)
    machine.start()
    for frame in frames:
        try:
            machine.receive(frame)
        except RoostError as error:
            assert len(machine.refusal(error)) <= HANDSHAKE_BYTES_MAX
    if secured:
        assert not machine.done
