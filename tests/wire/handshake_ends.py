"""Two ends of a handshake for its tests, and what carries their frames."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from roost.errors import RoostError
from roost.wire.handshake import NONCE_BYTES, Handshake, State
from roost.wire.protocol import Facts, Identity

__all__ = ["CERTIFICATE", "NEW", "OLD", "End", "Secrets", "ends", "facts", "record", "refused_by_both", "shake", "talk"]

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
    role: str = "member"

    def machine(self, *, initiator: bool) -> Handshake:
        return Handshake(
            initiator=initiator,
            me=Identity(self.name, self.uid, f"{self.name}:7400", self.role),
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
