"""A CA for the tests, and certificates of every kind that it should, or should not, have signed."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["BOTH", "Authority"]

NOW = datetime.datetime.now(datetime.UTC)
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


class Authority:
    """A CA, or an intermediate one, whose files are in a directory of its own."""

    def __init__(self, directory: Path, name: str, *, signed_by: Authority | None = None) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = new_key()
        above = signed_by or self
        self.pem = (
            self._builder(self.name, above.name, self.key, -1, 9)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(above.key, SHA256())
            .public_bytes(Encoding.PEM)
        )
        self.file = str(directory / f"{name}.pem")
        Path(self.file).write_bytes(self.pem)

    def _builder(
        self, subject: x509.Name, issuer: x509.Name, key: Key, begins: float, ends: float
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + datetime.timedelta(days=begins))
            .not_valid_after(NOW + datetime.timedelta(days=ends))
        )

    def issue(
        self,
        *names: str,
        days: tuple[float, float] = (-1, 5),
        usages: Sequence[x509.ObjectIdentifier] = BOTH,
        key: Key | None = None,
        chain: bytes = b"",
        password: bytes = b"",
    ) -> dict[str, Any]:
        """Files for a node, as its settings. `days`: from when until when, counted from now."""
        key = key or new_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a node")])
        builder = self._builder(subject, self.name, key, *days)
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), False)
        certificate = builder.sign(self.key, SHA256())
        stem = f"{names[0] if names else 'nobody'}-{certificate.serial_number:x}"
        cert_file, key_file = self.directory / f"{stem}.pem", self.directory / f"{stem}.key"
        cert_file.write_bytes(certificate.public_bytes(Encoding.PEM) + chain)
        kept = BestAvailableEncryption(password) if password else NoEncryption()
        key_file.touch(mode=0o600)
        key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, kept))
        return {"tls_ca_file": self.file, "tls_cert_file": str(cert_file), "tls_key_file": str(key_file)}


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
