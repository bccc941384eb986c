"""A certificate authority for one cluster, for those who have none: a key, its certificate, and what it signs.

The CA may sign nodes and nothing else (no further CAs). A node's certificate is for both ends of a link, and for the
names that it is issued for.

Source: RFC 5280 section 4.2 (extensions).
"""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from roost.errors import RoostError

__all__ = ["Issued", "host_of", "issue", "new_authority"]

BACKDATED = datetime.timedelta(minutes=5)
"""Clocks differ: a new certificate must be valid at once everywhere."""
COMMON_NAME_CHARS_MAX = 64


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, in PEM form."""

    certificate: bytes
    key: bytes
    until: datetime.datetime


def new_authority(name: str, *, days: int, now: datetime.datetime) -> Issued:
    """A CA of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(f"roost CA of {name}")
    builder = (
        _builder(subject, subject, key.public_key(), now, now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    return _issued(builder.sign(key, SHA256()), key)


def issue(names: list[str], authority: tuple[bytes, bytes], *, days: int, now: datetime.datetime) -> Issued:
    """A certificate for a node that goes by `names`: its name, or the host of it, and others that it may have.

    `authority` is the certificate and the key of a CA. Raises RoostError if they are none, or if the CA ends before the
    certificate would.
    """
    try:
        ca = x509.load_pem_x509_certificate(authority[0])
        ca_key = load_pem_private_key(authority[1], None)
    except (ValueError, TypeError) as error:
        raise RoostError("the CA's files have no certificate and key in PEM form without a password") from error
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey) or ca_key.public_key() != ca.public_key():
        raise RoostError("the CA's key is not that of its certificate, or was not made by `roost cert ca`")
    until = now + datetime.timedelta(days=days)
    if until > ca.not_valid_after_utc:
        text = f"the CA ends on {ca.not_valid_after_utc:%Y-%m-%d}, before the certificate would: give fewer --days"
        raise RoostError(f"{text}, or make a new CA")
    key = ec.generate_private_key(ec.SECP256R1())
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        _builder(_subject(names[0]), ca.subject, key.public_key(), now, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    return _issued(builder.sign(ca_key, SHA256()), key)


def host_of(name: str) -> str:
    """What a certificate says of a node called `name`: the host alone of host:port."""
    host, _, port = name.rpartition(":")
    return host.removeprefix("[").removesuffix("]") if host and port.isdecimal() else name


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:COMMON_NAME_CHARS_MAX])])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    until: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _issued(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Issued:
    return Issued(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        certificate.not_valid_after_utc,
    )
