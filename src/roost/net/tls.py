"""TLS without an authority: a certificate made at start, and a handshake that is bound to it.

Each node makes a key (ECDSA P-256) and a certificate, signed by itself, when it starts. Nobody can verify such a
certificate, and nobody tries to: TLS 1.3 keeps what is said secret and whole, and *who* is at the other end is proved
by the handshake above it, whose macs cover the certificate's hash as each end saw it. Somebody in between would have
to show a certificate of his own, and the two ends would then compute different macs.

With an authority, the certificate is the user's: see `roost.net.certificates`.

The ssl module reads keys from files only. The file lives in a directory of mode 0700 for as long as it is read, is
encrypted with a password of 256 random bits even then, and is gone before any link is made.

Source: RFC 5929 section 4, `tls-server-end-point`.
"""

from __future__ import annotations

import datetime
import hashlib
import secrets
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509.oid import NameOID

from roost.errors import ProtocolError

__all__ = ["TlsContexts", "TlsSource", "binding_of", "load_chain", "make_contexts", "new_context"]

_VALID = datetime.timedelta(days=365 * 30)
"""A clock that is wrong must not end a link: expiry means nothing to a certificate that lives as long as a process."""


class TlsSource(Protocol):
    """Where a transport gets its TLS from, link by link."""

    @property
    def certified(self) -> bool:
        """Whether both ends must show a certificate of the user's CA. Never changes."""
        ...

    def current(self) -> TlsContexts:
        """For the next link."""
        ...


@dataclass(frozen=True, slots=True)
class TlsContexts:
    """How this node speaks TLS, as the end that accepts and as the end that connects."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    binding: bytes
    """SHA-256 of this node's own certificate (DER): what its handshakes as acceptor are bound to."""
    certified: bool = False
    check_names: bool = False
    """Whether the other end's certificate must be for the name that it goes by."""

    def current(self) -> TlsContexts:
        """A `TlsSource` that never changes."""
        return self


def make_contexts() -> TlsContexts:
    """A new key and certificate, and the contexts around them. Takes a few milliseconds."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(key)
    server = new_context(ssl.PROTOCOL_TLS_SERVER)
    load_chain(server, key, certificate.public_bytes(Encoding.PEM))
    # The certificate is checked by the handshake, which is bound to its hash.
    client = new_context(ssl.PROTOCOL_TLS_CLIENT)
    client.verify_mode = ssl.CERT_NONE
    return TlsContexts(server, client, certificate.fingerprint(SHA256()))


def new_context(protocol: int) -> ssl.SSLContext:
    """TLS 1.3 and nothing below; who is at the other end is for others to check."""
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        # A resumed session shows no certificate to bind to; every link makes a full handshake.
        context.num_tickets = 0
    else:
        context.check_hostname = False
    return context


def binding_of(tls: ssl.SSLObject | ssl.SSLSocket) -> bytes:
    """The hash of the certificate that the other end showed. Raises ProtocolError if it showed none."""
    certificate = tls.getpeercert(binary_form=True)
    if not certificate:
        raise ProtocolError("the other end showed no certificate")
    return hashlib.sha256(certificate).digest()


def _certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "roost")])
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + _VALID)
        .sign(key, SHA256())
    )


def load_chain(context: ssl.SSLContext, key: CertificateIssuerPrivateKeyTypes, chain: bytes) -> None:
    """Have `context` show the certificates in `chain` (PEM, its own first), the key of which is `key`."""
    password = secrets.token_bytes(32).hex().encode()
    with tempfile.TemporaryDirectory(prefix="roost-") as directory:
        path = Path(directory, "key.pem")
        path.touch(mode=0o600)
        encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))
        path.write_bytes(chain.rstrip() + b"\n" + encrypted)
        context.load_cert_chain(path, password=password)
