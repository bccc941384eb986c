"""The handshake under attack: recorded, reflected, relayed, made up, or changed on its way."""

from __future__ import annotations

import msgspec
import pytest

from roost.errors import AuthError, ProtocolError, RoostError
from roost.wire.handshake import NONCE_BYTES, SelfConnection
from roost.wire.protocol import Challenge, Hello, Identity, Proof, Welcome
from tests.wire.handshake_ends import End, ends, facts, record, refused_by_both


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


STEPS = ("Hello", "Challenge", "Proof", "Welcome")


@pytest.mark.parametrize("again", range(4), ids=STEPS)
def test_a_message_sent_twice_in_one_session_ends_it(again: int) -> None:
    first, second = ends()
    acceptor, initiator = second.machine(initiator=False), first.machine(initiator=True)
    (frame,) = initiator.start()
    receivers = [acceptor, initiator, acceptor, initiator][: again + 1]
    for receiver in receivers[:-1]:
        (frame,) = receiver.receive(frame)
    receivers[-1].receive(frame)
    with pytest.raises(ProtocolError, match="came while"):
        receivers[-1].receive(frame)


@pytest.mark.parametrize("old", range(4), ids=STEPS)
def test_a_message_of_another_session_in_the_place_of_ones_own_ends_it(old: int) -> None:
    """Both ends are the same as they were then, but for their nonces."""
    first, second = ends()
    recorded = record(first, second)
    first.nonce, second.nonce = b"1" * NONCE_BYTES, b"2" * NONCE_BYTES
    machines = {True: second.machine(initiator=False), False: first.machine(initiator=True)}
    queue = machines[False].start()
    with pytest.raises(AuthError, match="secrets differ"):
        for step in range(4):
            (frame,) = queue
            queue = machines[step % 2 == 0].receive(recorded[step] if step == old else frame)
    assert not machines[old < 3].done


def test_a_victim_in_two_sessions_at_once_does_not_open_one_with_the_other() -> None:
    """The attacker is a mirror with another uid: ben the initiator is to prove ben the acceptor's challenge."""
    initiator = End("ben", 2, nonce=b"i" * NONCE_BYTES).machine(initiator=True)
    acceptor = End("ben", 2, nonce=b"a" * NONCE_BYTES).machine(initiator=False)
    hello = msgspec.msgpack.decode(initiator.start()[0], type=Hello)
    other = msgspec.structs.replace(hello.identity, uid=3)
    (frame,) = acceptor.receive(msgspec.msgpack.encode(msgspec.structs.replace(hello, identity=other)))
    challenge = msgspec.msgpack.decode(frame, type=Challenge)
    (proof,) = initiator.receive(msgspec.msgpack.encode(msgspec.structs.replace(challenge, identity=other)))
    with pytest.raises(AuthError, match="secrets differ"):
        acceptor.receive(proof)
    assert not initiator.done and not acceptor.done


@pytest.mark.parametrize("shortened", ["hello", "challenge"])
def test_a_range_of_versions_that_was_cut_on_its_way_is_noticed(shortened: str) -> None:
    """Both speak 1 to 3; somebody in between would have them speak 1."""
    first, second = ends(facts=facts(protocol=(1, 3)))
    first.facts = facts(protocol=(1, 3))
    initiator, acceptor = first.machine(initiator=True), second.machine(initiator=False)

    def cut(frame: bytes, kind: type[Hello] | type[Challenge]) -> bytes:
        message = msgspec.msgpack.decode(frame, type=kind)
        older = msgspec.structs.replace(message.facts, protocol=(1, 1))
        return msgspec.msgpack.encode(msgspec.structs.replace(message, facts=older))

    (hello,) = initiator.start()
    (challenge,) = acceptor.receive(cut(hello, Hello) if shortened == "hello" else hello)
    (proof,) = initiator.receive(cut(challenge, Challenge) if shortened == "challenge" else challenge)
    with pytest.raises(AuthError, match="secrets differ"):
        acceptor.receive(proof)


@pytest.mark.parametrize("field", ["name", "uid", "address", "role"])
def test_no_part_of_an_identity_can_be_changed_on_its_way(field: str) -> None:
    first, second = ends()
    initiator, acceptor = first.machine(initiator=True), second.machine(initiator=False)
    hello = msgspec.msgpack.decode(initiator.start()[0], type=Hello)
    changed = {"name": "eve", "uid": 9, "address": "eve:1", "role": "client"}[field]
    other = msgspec.structs.replace(hello.identity, **{field: changed})
    (challenge,) = acceptor.receive(msgspec.msgpack.encode(msgspec.structs.replace(hello, identity=other)))
    (proof,) = initiator.receive(challenge)
    with pytest.raises(AuthError, match="secrets differ"):
        acceptor.receive(proof)
    assert acceptor.peer is None


def test_whoever_connects_without_the_secret_gets_nothing_made_from_it() -> None:
    """What an acceptor says before it has seen a proof, and when it refuses one, is the same for every secret."""
    first, second = ends()
    said: set[tuple[bytes, ...]] = set()
    for secret in (b"s" * 40, b"t" * 40):
        second.secrets = (secret,)
        acceptor = second.machine(initiator=False)
        (challenge,) = acceptor.receive(first.machine(initiator=True).start()[0])
        with pytest.raises(AuthError) as caught:
            acceptor.receive(msgspec.msgpack.encode(Proof(b"m" * 32)))
        said.add((challenge, acceptor.refusal(caught.value)))
    assert len(said) == 1


def test_a_refusal_is_the_same_whichever_part_of_a_proof_is_wrong() -> None:
    first, second = ends()
    _, _, frame, _ = record(first, second)
    mac = msgspec.msgpack.decode(frame, type=Proof).mac
    told = set()
    for wrong in (b"\0" + mac[1:], mac[:-1] + b"\0", mac[:-1], mac + b"\0", b"m" * 32):
        acceptor = second.machine(initiator=False)
        acceptor.receive(first.machine(initiator=True).start()[0])
        with pytest.raises(AuthError) as caught:
            acceptor.receive(msgspec.msgpack.encode(Proof(wrong)))
        told.add(acceptor.refusal(caught.value))
    assert len(told) == 1
