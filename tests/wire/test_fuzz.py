"""A short run of the fuzzer, its law under hypothesis, and proof that it would notice."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roost.errors import ProtocolError
from roost.wire.frame import Framer
from roost.wire.handshake import Handshake
from tests.wire import fuzz
from tests.wire.handshake_ends import End


@pytest.mark.parametrize("aim", fuzz.AIMS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rng=st.randoms(use_true_random=False))
def test_whatever_arrives_the_law_holds(aim: str, rng: Random) -> None:
    fuzz.one(rng, fuzz.AIMS[aim])


def test_twenty_thousand_inputs_keep_the_law_and_reach_every_part() -> None:
    outcomes = fuzz.run(20_000, seed=7)
    assert sum(outcomes.values()) == 20_000
    for outcome in ("frames: taken", "frames: refused", "greeting: taken", "greeting: AuthError"):
        assert outcomes[outcome] > 20, outcomes
    for outcome in ("AuthError", "ProtocolError", "awaiting Proof", "awaiting Welcome"):
        assert outcomes[f"handshake: {outcome}"] > 0, outcomes


def test_the_same_number_is_the_same_input() -> None:
    assert fuzz.run(300, seed=3, first=700) == fuzz.run(300, seed=3, first=700)
    assert fuzz.run(300, seed=3, first=700) != fuzz.run(300, seed=4, first=700)


def test_an_error_that_is_not_declared_is_found_with_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode_batch(frame: memoryview) -> None:
        raise RecursionError("too deep") if len(frame) > 2000 else ProtocolError("no")

    monkeypatch.setattr(fuzz, "decode_batch", decode_batch)
    with pytest.raises(RecursionError) as caught:
        fuzz.run(2000, seed=1)
    assert any("python -m tests.wire.fuzz --seed 1 --first " in note for note in caught.value.__notes__)


def test_a_frame_that_is_lost_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def filled(self: Framer, count: int) -> None:
        self._large, self._have = None, 0

    monkeypatch.setattr(Framer, "filled", filled)
    with pytest.raises(fuzz.LawBroken, match="other frames came out"):
        fuzz.run(5000, seed=1)


def test_a_handshake_whose_proof_does_not_cover_the_nonces_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    macs = {"initiator": fuzz.OVERHEARD[2][-32:], "acceptor": fuzz.OVERHEARD[3][-32:]}
    monkeypatch.setattr(Handshake, "_mac", lambda self, secret, role: macs[role])
    with pytest.raises(fuzz.LawBroken, match="without the secret"):
        fuzz.run(5000, seed=1)


def test_memory_that_grows_with_what_was_announced_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def at_batch(frame: bytes) -> str:
        return str(len(bytearray(10_000_000)))

    monkeypatch.setattr(fuzz, "at_batch", at_batch)
    with pytest.raises(fuzz.LawBroken, match="bytes were allocated"):
        fuzz.run(5000, seed=1)


def test_a_secretless_handshake_may_be_done_and_one_with_a_secret_may_not() -> None:
    """The attacker's best is to say again what honest ends have said: enough where there is no secret."""

    def done(secured: bool, frames: Sequence[bytes]) -> bool:
        end = End("ben", 2) if secured else End("ben", 2, secrets=())
        end.nonce = bytes(32)
        machine: Handshake = end.machine(initiator=False)
        try:
            for frame in frames:
                machine.receive(frame)
        except fuzz.REFUSALS:
            return False
        return machine.done

    assert done(False, fuzz.OPEN[0::2])
    assert not done(True, fuzz.OVERHEARD[0::2])
