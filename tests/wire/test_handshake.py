"""The handshake: who gets in, who does not, and what each end is told."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roost.errors import AuthError, ConfigError, NameTaken, ProtocolError, RemoteError, RoostError, VersionSkew
from roost.wire.handshake import (
    HANDSHAKE_BYTES_MAX,
    NONCE_BYTES,
    TRANSITIONS,
    Handshake,
    SelfConnection,
    State,
    encode_refusal,
    error_of,
)
from roost.wire.protocol import Challenge, Facts, Hello, Identity, Proof, Refusal, Welcome

OLD = b"an old secret of more than thirty-two characters"
NEW = b"a new secret of more than thirty-two characters, too"
CERTIFICATE = b"c" * 32


@dataclass(frozen=True)
class Secrets:
    secrets: tuple[bytes, ...]


@dataclass
class End:
    """What one end of a handshake is made of, before it is made."""

    name: str
    uid: int
    secrets: tuple[bytes, ...] = (OLD,)
    facts: Facts = field(default_factory=lambda: Facts("prod", (1, 1), 64, 7, 1_000_000))
    binding: bytes = CERTIFICATE
    nonce: bytes = b""

    def machine(self, *, initiator: bool) -> Handshake:
        return Handshake(
            initiator=initiator,
            me=Identity(self.name, self.uid, f"{self.name}:7400"),
            facts=self.facts,
            keyring=Secrets(self.secrets) if self.secrets else None,
            binding=self.binding,
            nonce=self.nonce or (self.name.encode() * NONCE_BYTES)[:NONCE_BYTES],
            clock_ahead_max_seconds=5.0,
        )


def ends(**changes: object) -> tuple[End, End]:
    """Two ends that fit, but for what is changed in the second."""
    second = End("ben", 2)
    for name, value in changes.items():
        setattr(second, name, value)
    return End("ann", 1), second


def facts(**changes: object) -> Facts:
    return msgspec.structs.replace(End("x", 9).facts, **changes)


def talk(ann: Handshake, ben: Handshake) -> dict[str, RoostError]:
    """Carry the frames, refusals included, until nobody has more to say; the errors by the name of who raised them."""
    errors: dict[str, RoostError] = {}
    queue = [(ben, ann, frame) for frame in ann.start()] + [(ann, ben, frame) for frame in ben.start()]
    while queue:
        receiver, sender, frame = queue.pop(0)
        if receiver.state is State.FAILED:
            continue
        try:
            queue += [(sender, receiver, answer) for answer in receiver.receive(memoryview(frame))]
        except RoostError as error:
            errors[receiver.me.name] = error
            queue.append((sender, receiver, receiver.refusal(error)))
    return errors


def shake(first: End, second: End) -> tuple[Handshake, Handshake, dict[str, RoostError]]:
    initiator, acceptor = first.machine(initiator=True), second.machine(initiator=False)
    return initiator, acceptor, talk(initiator, acceptor)


def record(first: End, second: End) -> list[bytes]:
    """The four frames of a good handshake: Hello, Challenge, Proof, Welcome."""
    initiator, acceptor = first.machine(initiator=True), second.machine(initiator=False)
    (hello,) = initiator.start()
    (challenge,) = acceptor.receive(hello)
    (proof,) = initiator.receive(challenge)
    (welcome,) = acceptor.receive(proof)
    initiator.receive(welcome)
    return [hello, challenge, proof, welcome]


def refused_by_both(first: End, second: End, kind: type[RoostError]) -> tuple[str, str]:
    """Neither end is done and both know why; what each was told."""
    initiator, acceptor, errors = shake(first, second)
    assert not initiator.done and not acceptor.done
    assert initiator.peer is None and acceptor.peer is None
    assert {name: type(error) for name, error in errors.items()} == {first.name: kind, second.name: kind}
    return str(errors[first.name]), str(errors[second.name])


@pytest.mark.parametrize("secrets", [(), (OLD,), (NEW, OLD)])
def test_two_ends_with_the_same_secrets_or_none_meet(secrets: tuple[bytes, ...]) -> None:
    first, second = ends(secrets=secrets)
    first.secrets = secrets
    initiator, acceptor, errors = shake(first, second)
    assert errors == {}
    assert initiator.done and acceptor.done
    assert initiator.peer == acceptor.me and acceptor.peer == initiator.me
    assert initiator.version == acceptor.version == 1


def test_the_highest_version_in_common_is_spoken() -> None:
    first, second = ends(facts=facts(protocol=(2, 4)))
    first.facts = facts(protocol=(1, 3))
    initiator, acceptor, _ = shake(first, second)
    assert initiator.version == acceptor.version == 3


def test_versions_without_overlap_are_named_to_both_ends() -> None:
    first, second = ends(facts=facts(protocol=(3, 4)))
    initiator, acceptor, errors = shake(first, second)
    mine, theirs = errors["ann"], errors["ben"]
    assert isinstance(mine, VersionSkew) and isinstance(theirs, VersionSkew)
    assert mine.mine == (1, 1)
    assert (theirs.mine, theirs.theirs) == ((3, 4), (1, 1))
    assert "upgrade" in str(mine) and "upgrade" in str(theirs)
    assert not initiator.done and not acceptor.done


def test_the_initiator_names_versions_without_overlap_by_itself() -> None:
    first, second = ends()
    _, challenge, _, _ = record(first, second)
    first.facts = facts(protocol=(2, 2))
    initiator = first.machine(initiator=True)
    initiator.start()
    with pytest.raises(VersionSkew) as caught:
        initiator.receive(challenge)
    assert (caught.value.mine, caught.value.theirs) == ((2, 2), (1, 1))


def test_different_secrets_are_refused() -> None:
    for told in refused_by_both(*ends(secrets=(NEW,)), AuthError):
        assert "the secrets differ" in told


def test_a_secret_on_the_accepting_end_only_is_refused() -> None:
    first, second = ends()
    first.secrets = ()
    for told in refused_by_both(first, second, AuthError):
        assert "this cluster has a secret, and none was given" in told


def test_a_secret_on_the_connecting_end_only_is_refused() -> None:
    for told in refused_by_both(*ends(secrets=()), AuthError):
        assert "a secret was given, and the other end has none" in told


@pytest.mark.parametrize("secrets", [(), (OLD,)])
@pytest.mark.parametrize(
    ("what", "mine", "theirs"), [("cluster", "prod", "test"), ("partitions", 64, 128), ("placement_seed", 7, 8)]
)
def test_what_must_be_equal_is_named_with_both_values(
    secrets: tuple[bytes, ...], what: str, mine: object, theirs: object
) -> None:
    first, second = ends(secrets=secrets, facts=facts(**{what: theirs}))
    first.secrets = secrets
    for told in refused_by_both(first, second, ConfigError):
        assert what in told and repr(mine) in told and repr(theirs) in told


def test_a_stranger_does_not_learn_which_facts_differ() -> None:
    first, second = ends(secrets=(NEW,), facts=facts(cluster="test"))
    for told in refused_by_both(first, second, AuthError):
        assert "test" not in told and "prod" not in told


@pytest.mark.parametrize("ahead_milliseconds", [-6_000, 6_000])
def test_a_clock_far_from_the_others_is_refused(ahead_milliseconds: int) -> None:
    first, second = ends(facts=facts(wall_milliseconds=1_000_000 + ahead_milliseconds))
    late, early = ("ann", "ben") if ahead_milliseconds > 0 else ("ben", "ann")
    for told in refused_by_both(first, second, ConfigError):
        assert f"the clock of {early} is 6.0 s ahead of that of {late}" in told


def test_a_clock_within_its_limit_is_accepted() -> None:
    initiator, _, errors = shake(*ends(facts=facts(wall_milliseconds=1_004_900)))
    assert initiator.done and errors == {}


def test_the_initiator_checks_the_facts_of_a_proven_acceptor_too() -> None:
    first, second = ends(facts=facts(wall_milliseconds=1_004_000))
    initiator = first.machine(initiator=True)
    acceptor = second.machine(initiator=False)
    initiator._clock_ahead_max_seconds = 1.0
    (challenge,) = acceptor.receive(initiator.start()[0])
    (welcome,) = acceptor.receive(initiator.receive(challenge)[0])
    with pytest.raises(ConfigError, match=r"clock of ben is 4\.0 s ahead"):
        initiator.receive(welcome)
    assert not initiator.done


def test_a_node_that_reaches_itself_is_told_so() -> None:
    first, second = ends(uid=1)
    told, _ = refused_by_both(first, second, SelfConnection)
    assert "leads back to ben itself" in told


def test_keys_rotate_without_a_pause() -> None:
    for first_keys in ((OLD, NEW), (NEW, OLD)):
        for second_keys in ((OLD, NEW), (NEW, OLD), (first_keys[0],)):
            first, second = ends(secrets=second_keys)
            first.secrets = first_keys
            initiator, acceptor, errors = shake(first, second)
            assert errors == {} and initiator.done and acceptor.done


def test_a_removed_key_no_longer_opens() -> None:
    first, second = ends(secrets=(NEW,))
    first.secrets = (OLD, NEW)
    refused_by_both(first, second, AuthError)


def test_a_recorded_proof_is_worth_nothing_later() -> None:
    first, second = ends()
    hello, _, proof, _ = record(first, second)
    second.nonce = b"n" * NONCE_BYTES
    acceptor = second.machine(initiator=False)
    acceptor.receive(hello)
    with pytest.raises(AuthError, match="secrets differ"):
        acceptor.receive(proof)
    assert not acceptor.done


def test_a_recorded_acceptor_cannot_be_played_again() -> None:
    first, second = ends()
    _, challenge, _, welcome = record(first, second)
    first.nonce = b"n" * NONCE_BYTES
    initiator = first.machine(initiator=True)
    initiator.start()
    initiator.receive(challenge)
    with pytest.raises(AuthError, match="secrets differ"):
        initiator.receive(welcome)
    assert not initiator.done


def test_an_initiator_is_not_fooled_by_its_own_messages() -> None:
    initiator = End("ann", 1).machine(initiator=True)
    (hello,) = initiator.start()
    with pytest.raises(ProtocolError, match="Hello came while awaiting Challenge"):
        initiator.receive(hello)


def test_an_initiators_identity_and_nonce_sent_back_as_a_challenge_are_refused() -> None:
    first, _ = ends()
    initiator = first.machine(initiator=True)
    hello = msgspec.msgpack.decode(initiator.start()[0], type=Hello)
    with pytest.raises(SelfConnection):
        initiator.receive(msgspec.msgpack.encode(Challenge(hello.identity, hello.facts, hello.nonce, True)))
    other = first.machine(initiator=True)
    other.start()
    with pytest.raises(AuthError, match="own nonce"):
        other.receive(msgspec.msgpack.encode(Challenge(Identity("x", 5, ""), hello.facts, hello.nonce, True)))


def test_an_initiators_proof_sent_back_is_no_welcome() -> None:
    first, second = ends()
    initiator, acceptor = first.machine(initiator=True), second.machine(initiator=False)
    (challenge,) = acceptor.receive(initiator.start()[0])
    proof = msgspec.msgpack.decode(initiator.receive(challenge)[0], type=Proof)
    with pytest.raises(AuthError, match="secrets differ"):
        initiator.receive(msgspec.msgpack.encode(Welcome(proof.mac)))


def test_an_acceptor_cannot_be_opened_with_proofs_it_gave_as_an_initiator() -> None:
    """Two sessions crossed: the attacker relays what ben proves as initiator to ben as acceptor."""
    victim = End("ben", 2, nonce=b"a" * NONCE_BYTES)
    initiator, acceptor = victim.machine(initiator=True), victim.machine(initiator=False)
    with pytest.raises(SelfConnection):
        acceptor.receive(initiator.start()[0])


def test_somebody_in_between_with_a_certificate_of_his_own_is_found_out() -> None:
    for told in refused_by_both(*ends(binding=b"m" * 32), AuthError):
        assert "somebody is in between" in told


@pytest.mark.parametrize("mac", [b"", b"x", b"x" * 32, b"x" * 1000])
def test_a_made_up_proof_is_refused(mac: bytes) -> None:
    first, second = ends()
    acceptor = second.machine(initiator=False)
    acceptor.receive(first.machine(initiator=True).start()[0])
    with pytest.raises(AuthError):
        acceptor.receive(msgspec.msgpack.encode(Proof(mac)))
    assert not acceptor.done


@pytest.mark.parametrize("mac", [b"", b"x" * 32])
def test_a_made_up_welcome_is_refused(mac: bytes) -> None:
    first, second = ends()
    _, challenge, _, _ = record(first, second)
    initiator = first.machine(initiator=True)
    initiator.start()
    initiator.receive(challenge)
    with pytest.raises(AuthError):
        initiator.receive(msgspec.msgpack.encode(Welcome(mac)))


def test_a_challenge_changed_on_its_way_to_need_no_proof_is_refused() -> None:
    first, second = ends()
    _, frame, _, _ = record(first, second)
    challenge = msgspec.structs.replace(msgspec.msgpack.decode(frame, type=Challenge), secured=False)
    initiator = first.machine(initiator=True)
    initiator.start()
    with pytest.raises(AuthError, match="the other end has none"):
        initiator.receive(msgspec.msgpack.encode(challenge))


def test_a_version_range_cut_down_on_its_way_is_found_out() -> None:
    first, second = ends(facts=facts(protocol=(1, 3)))
    first.facts = facts(protocol=(1, 3))
    initiator, acceptor = first.machine(initiator=True), second.machine(initiator=False)
    hello = msgspec.msgpack.decode(initiator.start()[0], type=Hello)
    lower = msgspec.structs.replace(hello, facts=facts(protocol=(1, 1)))
    (challenge,) = acceptor.receive(msgspec.msgpack.encode(lower))
    (proof,) = initiator.receive(challenge)
    with pytest.raises(AuthError):
        acceptor.receive(proof)


def test_every_byte_of_the_first_two_frames_is_covered_by_the_proof() -> None:
    first, second = ends()
    hello, challenge, proof, _ = record(first, second)
    accepted = []
    for at in range(len(hello)):
        acceptor = second.machine(initiator=False)
        try:
            acceptor.receive(hello[:at] + bytes([hello[at] ^ 1]) + hello[at + 1 :])
            acceptor.receive(proof)
        except RoostError:
            continue
        accepted.append(("hello", at))
    for at in range(len(challenge)):
        initiator, acceptor = first.machine(initiator=True), second.machine(initiator=False)
        acceptor.receive(initiator.start()[0])
        try:
            (proof,) = initiator.receive(challenge[:at] + bytes([challenge[at] ^ 1]) + challenge[at + 1 :])
            acceptor.receive(proof)
        except RoostError:
            continue
        accepted.append(("challenge", at))
    assert accepted == []


def test_fields_that_a_newer_version_adds_are_ignored_and_yet_covered() -> None:
    first, second = ends()
    initiator, acceptor = first.machine(initiator=True), second.machine(initiator=False)
    fields = msgspec.msgpack.decode(initiator.start()[0])
    longer = msgspec.msgpack.encode([*fields, "new in version 2"])
    initiator._hello = longer
    (challenge,) = acceptor.receive(longer)
    initiator.receive(acceptor.receive(initiator.receive(challenge)[0])[0])
    assert initiator.done and acceptor.done


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


def test_no_secret_is_in_anything_that_is_sent_or_shown() -> None:
    first, second = ends()
    frames = record(first, second)
    initiator = first.machine(initiator=True)
    assert OLD not in b"".join(frames)
    assert OLD.decode() not in repr(initiator)


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
