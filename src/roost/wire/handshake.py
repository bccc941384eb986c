"""Who is at the other end of a link, and may it talk? A machine without I/O, the same for every transport.

Theory of operation. The end that connected is the initiator:

    initiator                               acceptor
    Hello(identity, facts, nonce)      ->
                                       <-   Challenge(identity, facts, nonce, secured)
    Proof(mac)                         ->
                                       <-   Welcome(mac)          or, in place of any of these, Refusal

Each mac is an HMAC-SHA256 over the role of its sender, both first frames *as they were on the wire* (so all of both
identities, facts and nonces, and `secured`), the negotiated version, and the hash of the server's certificate as the
sender of the mac itself sees it. Hence: no replay (fresh nonces on both ends), no reflection (the roles differ), no
downgrade (ranges and `secured` are covered), and nobody in the middle (the two ends would see two certificates). The
key is derived from the secret and the cluster name with HKDF; the secret itself never crosses the wire. The initiator
proves itself first: whoever connects learns nothing made from the secret, whoever is connected to learns a mac to test
guesses against, which is why secrets must be random (`roost.net.keyring`).

What is proved, to whom, and when. With the Proof, to the acceptor: somebody who knows the secret sent this Hello in
answer to nobody else, saw this Challenge, and speaks TLS with the holder of this node's own certificate. With the
Welcome, to the initiator: the same of the acceptor, and that the Proof was accepted. The name, uid and role are what
that somebody says of itself, since all who know the secret are alike.

With certificates of the user's CA (`certified`) TLS itself proves, before the Hello, that the other end has one, and a
secret is not needed; if there is one, its proof is needed too. `certified` then has the names in that certificate, and
who is not named there is refused; so a stolen certificate is good for one name only. A client may name itself
`client-...` with any certificate, and calls itself by another name only if its certificate does. None: names are not
checked.

What is checked when. `Challenge` necessarily tells a stranger this node's name, uid, address, cluster name, versions,
number of partitions, placement seed and clock: they are no secrets. Versions are compared at once, since without a
common one nothing else has a meaning, and so is the uid (a node that reached itself). Facts are compared only once the
other end has proved the secret, so that no stranger can make a node believe that it is misconfigured; the end that
notices says exactly what differs. Of a client only the cluster is compared: it places nothing and stamps nothing. The
cluster name in the key is the initiator's as it was announced: the same secret in two clusters proves itself, and then
the names are found to differ, which says more than "the secrets differ".

A secret on one end only is an error on both ends, never a reason to go on without. A `Refusal` is not authenticated:
it may end a link, never begin one, and its text is cut and cleaned before it is shown.

Rotation: an initiator signs with its first key, an acceptor answers with whichever of its keys verified that. So add
the new secret second everywhere, then make it first everywhere, then remove the old one.

The machine is made when its link is up (the facts hold the clock's reading). After `receive` raised, send
`refusal(error)` and close.

Source: H. Krawczyk, "SIGMA", CRYPTO 2003 (macs over the identities and the transcript); RFC 5869 (HKDF);
RFC 5929 section 4 (`tls-server-end-point`, the certificate's hash as channel binding).
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final, Protocol

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from roost.core.gossip import ADDRESS, ADDRESS_CHARS_MAX, NAME, NAME_CHARS_MAX
from roost.errors import (
    AuthError,
    ConfigError,
    NameTaken,
    Overloaded,
    ProtocolError,
    RoostError,
    Unavailable,
    VersionSkew,
)
from roost.wire.protocol import Challenge, Facts, Hello, Identity, Proof, Refusal, Welcome
from roost.wire.protocol import Handshake as Message

__all__ = [
    "HANDSHAKE_BYTES_MAX",
    "NAME_CHARS_MAX",
    "NONCE_BYTES",
    "Handshake",
    "Secrets",
    "SelfConnection",
    "State",
    "encode_refusal",
    "error_of",
    "is_named",
]

HANDSHAKE_BYTES_MAX = 4096
"""No frame of the handshake is longer; of an unproven link no more is ever buffered."""
NONCE_BYTES = 32
REASON_CHARS_MAX = 512
"""A refusal's text is cut to this."""
CLIENT_PREFIX = "client-"
"""Clients that are nobody in particular have names that begin with this."""

_CLUSTER = re.compile(rf"[^\x00-\x1f\x7f]{{1,{NAME_CHARS_MAX}}}")

_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_encode = msgspec.msgpack.Encoder().encode


class SelfConnection(AuthError):
    """The address leads back to this very node: not an error of configuration, just nobody to talk to."""


class Secrets(Protocol):
    """What the handshake needs of a keyring: the first secret signs, all are accepted."""

    @property
    def secrets(self) -> Sequence[bytes]: ...


class State(Enum):
    """Where a handshake stands; DONE and FAILED are final."""

    AWAITING_HELLO = "awaiting Hello"
    AWAITING_CHALLENGE = "awaiting Challenge"
    AWAITING_PROOF = "awaiting Proof"
    AWAITING_WELCOME = "awaiting Welcome"
    DONE = "done"
    FAILED = "failed"


# Errors that may be told to, and believed of, the other end. Any other kind is read as AuthError.
_KINDS: Final[dict[str, Callable[[str], RoostError]]] = {
    "AuthError": AuthError,
    "ConfigError": ConfigError,
    "NameTaken": NameTaken,
    "Overloaded": Overloaded,
    "ProtocolError": ProtocolError,
    "SelfConnection": SelfConnection,
    "Unavailable": Unavailable,
    "VersionSkew": VersionSkew,
}


def encode_refusal(error: RoostError) -> bytes:
    """The frame that tells the other end why. Only kinds that concern it are named; nothing else leaks out."""
    kind = type(error).__name__
    if kind not in _KINDS:
        return _encode(Refusal("AuthError", "the connection was refused"))
    return _encode(Refusal(kind, _clean(str(error))))


def error_of(refusal: Refusal) -> RoostError:
    """The error that a refusal stands for, with the other end's words in it."""
    return _KINDS.get(refusal.kind, AuthError)(f"refused by the other end: {_clean(refusal.message)}")


def _clean(text: str) -> str:
    """Another node's words go to logs and terminals: no control characters, no length."""
    return "".join(char if char.isprintable() else "?" for char in text[:REASON_CHARS_MAX])


def is_named(name: str, names: Sequence[str]) -> bool:
    """Whether a certificate for `names` (hosts, addresses) is for the node `name`, which may end in `:port`."""
    host, _, port = name.rpartition(":")
    wanted = {_plain(name), _plain(host.removeprefix("[").removesuffix("]"))} if port.isdecimal() else {_plain(name)}
    return any(_plain(each) in wanted for each in names if each)


def _plain(host: str) -> str:
    """One way to write it."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.casefold()


class Handshake:
    """One end of one handshake. Feed it frames (without their length) and send what it returns.

    `peer` and `version` are set when it is `done`, not before: they are proven where there is a secret.
    """

    def __init__(
        self,
        *,
        initiator: bool,
        me: Identity,
        facts: Facts,
        keyring: Secrets | None,
        binding: bytes,
        nonce: bytes,
        clock_ahead_max_seconds: float,
        certified: Sequence[str] | None = None,
    ) -> None:
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"a nonce has {NONCE_BYTES} bytes")
        if wrong := _identity_fault(me) or _facts_fault(facts):
            raise ConfigError(wrong, todo="choose another value")
        self.initiator = initiator
        self.me = me
        self.facts = facts
        self.state = State.AWAITING_CHALLENGE if initiator else State.AWAITING_HELLO
        self.peer: Identity | None = None
        self.version = 0
        self._keyring = keyring
        self._binding = binding
        self._nonce = nonce
        self._clock_ahead_max_seconds = clock_ahead_max_seconds
        self._certified = certified
        self._hello = b""
        self._challenge = b""
        self._their_identity: Identity | None = None
        self._their_facts: Facts | None = None
        self._agreed = 0
        self._signed_with = b""

    def __repr__(self) -> str:
        return f"<Handshake of {self.me.name} as {'initiator' if self.initiator else 'acceptor'}: {self.state.value}>"

    @property
    def done(self) -> bool:
        """The other end may talk, and be talked to."""
        return self.state is State.DONE

    @property
    def claimed(self) -> Identity | None:
        """Who the other end says it is, proven or not; None before it has said so."""
        return self._their_identity

    def start(self) -> list[bytes]:
        """The frames to send first."""
        if not self.initiator:
            return []
        self._hello = _encode(Hello(self.me, self.facts, self._nonce))
        return [self._hello]

    def receive(self, frame: memoryview | bytes) -> list[bytes]:
        """Take one frame of the other end; returns the frames to send.

        Raises AuthError, SelfConnection, ConfigError, VersionSkew, ProtocolError, or, if the other end refused, the
        error it named. After any of them the handshake has failed.
        """
        try:
            return self._step(bytes(frame))
        except RoostError:
            self.state = State.FAILED
            raise

    def refusal(self, error: RoostError) -> bytes:
        """The frame that tells the other end that this one gives up, and why."""
        self.state = State.FAILED
        return encode_refusal(error)

    def _step(self, frame: bytes) -> list[bytes]:
        if len(frame) > HANDSHAKE_BYTES_MAX:
            raise ProtocolError(f"a handshake frame of {len(frame)} bytes, the limit is {HANDSHAKE_BYTES_MAX}")
        try:
            message = _decoder.decode(frame)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(f"no message of a handshake: {error}") from error
        if isinstance(message, Refusal) and self.state not in (State.DONE, State.FAILED):
            raise self._refused(message)
        transition = TRANSITIONS.get((self.state, type(message)))
        if transition is None:
            raise ProtocolError(f"{type(message).__name__} came while {self.state.value}")
        handler, state = transition
        answer = handler(self, message, frame)
        self.state = state
        return answer

    def _refused(self, refusal: Refusal) -> RoostError:
        error = error_of(refusal)
        if isinstance(error, VersionSkew):
            error.mine = self.facts.protocol
            error.theirs = self._their_facts.protocol if self._their_facts else (0, 0)
        return error

    # The four messages, in order.

    def _take_hello(self, message: Message, frame: bytes) -> list[bytes]:
        assert isinstance(message, Hello)
        self._meet(message.identity, message.facts, message.nonce)
        self._hello = frame
        if self._keyring is None:
            self._check_facts()
        self._challenge = _encode(Challenge(self.me, self.facts, self._nonce, self._keyring is not None))
        return [self._challenge]

    def _take_challenge(self, message: Message, frame: bytes) -> list[bytes]:
        assert isinstance(message, Challenge)
        self._meet(message.identity, message.facts, message.nonce)
        self._challenge = frame
        if self._keyring is None:
            if message.secured:
                raise AuthError(_SECRET_MISSING)
            self._check_facts()
            return [_encode(Proof(b""))]
        if not message.secured:
            raise AuthError(_SECRET_UNWANTED)
        self._signed_with = self._keyring.secrets[0]
        return [_encode(Proof(self._mac(self._signed_with, "initiator")))]

    def _take_proof(self, message: Message, frame: bytes) -> list[bytes]:
        assert isinstance(message, Proof)
        if self._keyring is None:
            if message.mac:
                raise ProtocolError("a proof was sent where none was asked for")
            self._finish()
            return [_encode(Welcome(b""))]
        if not message.mac:
            raise AuthError(_SECRET_MISSING)
        for secret in self._keyring.secrets:
            if hmac.compare_digest(self._mac(secret, "initiator"), message.mac):
                self._check_facts()
                self._finish()
                return [_encode(Welcome(self._mac(secret, "acceptor")))]
        raise AuthError(_SECRETS_DIFFER)

    def _take_welcome(self, message: Message, frame: bytes) -> list[bytes]:
        assert isinstance(message, Welcome)
        if self._keyring is None:
            if message.mac:
                raise ProtocolError("a proof was sent where none was asked for")
        else:
            if not hmac.compare_digest(self._mac(self._signed_with, "acceptor"), message.mac):
                raise AuthError(_SECRETS_DIFFER)
            self._check_facts()
        self._finish()
        return []

    def _meet(self, identity: Identity, facts: Facts, nonce: bytes) -> None:
        if wrong := _identity_fault(identity) or _facts_fault(facts):
            raise ProtocolError(wrong)
        if len(nonce) != NONCE_BYTES:
            raise ProtocolError(f"a nonce of {len(nonce)} bytes, not {NONCE_BYTES}")
        if identity.uid == self.me.uid:
            raise SelfConnection(f"this address leads back to {self.me.name} itself")
        if hmac.compare_digest(nonce, self._nonce):
            raise AuthError("the other end sent this node's own nonce back")
        self._their_identity = identity
        self._their_facts = facts
        mine, theirs = self.facts.protocol, facts.protocol
        self._agreed = min(mine[1], theirs[1])
        if self._agreed < max(mine[0], theirs[0]):
            raise VersionSkew(
                f"no protocol version in common: {self.me.name} speaks {mine[0]} to {mine[1]}, "
                f"{identity.name} {theirs[0]} to {theirs[1]}: upgrade the older node",
                mine=mine,
                theirs=theirs,
            )

    def _check_facts(self) -> None:
        assert self._their_facts is not None and self._their_identity is not None
        mine, theirs = self.facts, self._their_facts
        my_name, their_name = self.me.name, self._their_identity.name
        if self._certified is not None and not self._may_be_called(their_name):
            raise AuthError(
                f"{their_name} came with a certificate for {_clean(', '.join(self._certified)) or 'nobody'}: issue one "
                f"for {their_name}, or set `tls_names = false` on all nodes"
            )
        both_members = self.me.role == self._their_identity.role == "member"
        for what in ("cluster", "partitions", "placement_seed") if both_members else ("cluster",):
            if (my_value := getattr(mine, what)) != (their_value := getattr(theirs, what)):
                raise ConfigError(
                    f"{my_name} has {my_value!r} and {their_name} has {their_value!r}",
                    where=what,
                    todo="all nodes of a cluster need the same",
                )
        ahead_seconds = (theirs.wall_milliseconds - mine.wall_milliseconds) / 1000
        if both_members and abs(ahead_seconds) > self._clock_ahead_max_seconds:
            # Both directions: the end that is behind would refuse this one, a message later.
            ahead, behind = (their_name, my_name) if ahead_seconds > 0 else (my_name, their_name)
            raise ConfigError(
                f"the clock of {ahead} is {abs(ahead_seconds):.1f} s ahead of that of {behind}, "
                f"the limit is {self._clock_ahead_max_seconds:g} s",
                where="clock_ahead_max_seconds",
                todo="synchronise the clocks",
            )

    def _may_be_called(self, name: str) -> bool:
        assert self._their_identity is not None and self._certified is not None
        if self._their_identity.role == "client" and name.startswith(CLIENT_PREFIX):
            return True
        return is_named(name, self._certified)

    @property
    def theirs(self) -> Facts:
        """What the other end says of itself; once the handshake is done."""
        assert self._their_facts is not None
        return self._their_facts

    def _finish(self) -> None:
        self.peer = self._their_identity
        self.version = self._agreed

    def _mac(self, secret: bytes, role: str) -> bytes:
        theirs = self._their_facts
        assert theirs is not None
        cluster = self.facts.cluster if self.initiator else theirs.cluster
        key = HKDF(SHA256(), 32, salt=None, info=b"roost handshake 1 " + cluster.encode()).derive(secret)
        transcript = _encode((role, self._hello, self._challenge, self._agreed, self._binding))
        return hmac.digest(key, transcript, "sha256")


_SECRET_MISSING = "this cluster has a secret, and none was given: set `secret_file` on the node that lacks it"
_SECRET_UNWANTED = "a secret was given, and the other end has none: set `secret_file` on the node that lacks it"
_SECRETS_DIFFER = "the secrets differ, or somebody is in between: compare `secret_file` on both nodes"

TRANSITIONS: Final[
    dict[tuple[State, type[Message]], tuple[Callable[[Handshake, Message, bytes], list[bytes]], State]]
] = {
    (State.AWAITING_HELLO, Hello): (Handshake._take_hello, State.AWAITING_PROOF),
    (State.AWAITING_CHALLENGE, Challenge): (Handshake._take_challenge, State.AWAITING_WELCOME),
    (State.AWAITING_PROOF, Proof): (Handshake._take_proof, State.DONE),
    (State.AWAITING_WELCOME, Welcome): (Handshake._take_welcome, State.DONE),
}
"""(state, message) -> (what takes it, next state). A Refusal ends every open state; all else is a ProtocolError."""


def _identity_fault(identity: Identity) -> str:
    """What is wrong with it, in words; empty if nothing is."""
    if not NAME.fullmatch(identity.name):
        return f"a node's name has 1 to {NAME_CHARS_MAX} letters, digits and _ . : @ [ ] -, not {identity.name[:200]!r}"
    if not 1 <= identity.uid < 2**63:
        return "a uid is from 1 to 2**63 - 1"
    if identity.role not in ("member", "client"):
        return f"a role is member or client, not {identity.role[:40]!r}"
    if not ADDRESS.fullmatch(identity.address):
        return f"an address has at most {ADDRESS_CHARS_MAX} printable characters"
    return ""


def _facts_fault(facts: Facts) -> str:
    if not _CLUSTER.fullmatch(facts.cluster):
        return f"a cluster's name has 1 to {NAME_CHARS_MAX} printable characters"
    if not 1 <= facts.protocol[0] <= facts.protocol[1] < 2**16:
        return f"{facts.protocol} is no range of protocol versions"
    if not 1 <= facts.partitions <= 2**32:
        return f"{facts.partitions} is no number of partitions"
    if not 0 <= facts.wall_milliseconds < 2**63:
        return "the clock's reading is out of range"
    if not 0 <= facts.inbox_messages_max < 2**31:
        return f"{facts.inbox_messages_max} is no number of messages"
    return ""
