"""TLS with an authority: the user's CA signs every node's certificate, and both ends of a link verify it.

The files are read as they are: a link that opens after they have changed uses what they hold then, so certificates
are renewed without a restart. They are tried out before they are used, by a TLS handshake of this node with itself, so
that whatever another node would refuse (expired, another CA, a wrong purpose) is known at the start. Files that have
become unusable are logged, and what was read before stays in use.

Every certificate in the CA's file is an authority, intermediate ones included, and nothing else is: the system's own
list is not looked at. Addresses are not compared, since nodes are known by name: `names_in` is for the handshake,
which compares them with the node's name.

Source: RFC 5280 section 6 (paths), RFC 6125 section 6.4 (names; without wildcards).
"""

from __future__ import annotations

import ipaddress
import logging
import ssl

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from roost.config import Settings
from roost.errors import ConfigError
from roost.net.tls import TlsContexts, TlsSource, load_chain, make_contexts, new_context
from roost.net.trusted_file import SEEN_BY_OTHERS, WRITTEN_BY_OTHERS, read_trusted, stamp_of
from roost.wire.handshake import is_named

__all__ = ["Certificates", "names_in", "tls_of"]

log = logging.getLogger("roost.net")

SigningKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

_ADVICE = "`roost cert ca` and `roost cert issue` make these files"


def tls_of(settings: Settings, *, secured: bool) -> TlsSource | None:
    """What the settings ask for: the user's certificates, or ones made now if there is a secret, or no TLS (None)."""
    if settings.tls_ca_file:
        return Certificates(settings)
    use_tls = settings.tls if settings.tls is not None else secured
    return make_contexts() if use_tls else None


class Certificates:
    """A `TlsSource` from `tls_ca_file`, `tls_cert_file` and `tls_key_file`. Raises ConfigError if they do not fit."""

    certified = True

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._paths = (settings.tls_ca_file, settings.tls_cert_file, settings.tls_key_file)
        self._stamp = stamp_of(*self._paths)
        self._contexts = self._load()

    def __repr__(self) -> str:
        return f"<Certificates from {', '.join(self._paths)}>"

    def current(self) -> TlsContexts:
        """As the files are now, or were when they could last be used."""
        if (stamp := stamp_of(*self._paths)) != self._stamp:
            self._stamp = stamp
            try:
                self._contexts = self._load()
            except ConfigError as error:
                log.error("the certificates from before stay in use: %s", error)
            else:
                log.info("%s has changed: new links use it", self._settings.tls_cert_file)
        return self._contexts

    def _load(self) -> TlsContexts:
        settings = self._settings
        ca = _read("tls_ca_file", settings.tls_ca_file, WRITTEN_BY_OTHERS)
        chain = _read("tls_cert_file", settings.tls_cert_file, WRITTEN_BY_OTHERS)
        key = _key(_read("tls_key_file", settings.tls_key_file, SEEN_BY_OTHERS), settings.tls_key_file)
        _certificates(ca, f"tls_ca_file {settings.tls_ca_file}")
        where = f"tls_cert_file {settings.tls_cert_file}"
        own = _certificates(chain, where)[0]
        if _public(own.public_key()) != _public(key.public_key()):
            todo = f"give the key that belongs to {settings.tls_cert_file}, or issue a certificate for this one"
            raise ConfigError("is not the certificate's key", where=f"tls_key_file {settings.tls_key_file}", todo=todo)
        contexts = TlsContexts(
            _verifying(ssl.PROTOCOL_TLS_SERVER, ca),
            _verifying(ssl.PROTOCOL_TLS_CLIENT, ca),
            own.fingerprint(SHA256()),
            certified=True,
            check_names=settings.tls_names,
        )
        for context in (contexts.server, contexts.client):
            load_chain(context, key, chain)
        name = settings.name or settings.advertise or settings.bind
        _try_out(contexts, where, settings.tls_ca_file, name if settings.tls_names else "")
        return contexts


def names_in(tls: ssl.SSLObject | ssl.SSLSocket) -> tuple[str, ...]:
    """What the other end's certificate, which was verified, is for: host names and addresses."""
    certificate = tls.getpeercert() or {}
    entries = certificate.get("subjectAltName", ())
    assert isinstance(entries, tuple)
    names = []
    for kind, value in entries:
        if kind == "DNS":
            names.append(str(value))
        elif kind == "IP Address":
            names.append(str(ipaddress.ip_address(str(value).strip())))
    return tuple(names)


def _verifying(protocol: int, ca: bytes) -> ssl.SSLContext:
    context = new_context(protocol)
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=ca.decode("ascii", "replace"))
    return context


def _try_out(contexts: TlsContexts, where: str, ca_file: str, name: str) -> None:
    """Whether this node would let itself in, in either role, and under its name if there is one to be checked."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = contexts.client.wrap_bio(to_client, to_server)
    server = contexts.server.wrap_bio(to_server, to_client, server_side=True)
    try:
        for end in (client, server, client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    except ssl.SSLCertVerificationError as error:
        todo = f"issue one that the CA in {ca_file} has signed, that is valid now, and for servers and clients"
        raise ConfigError(f"the other nodes would refuse it: {error.verify_message}", where=where, todo=todo) from error
    except ssl.SSLError as error:
        raise ConfigError(f"cannot be used: {error.reason or error}", where=where, todo=_ADVICE) from error
    names = names_in(client)
    if name and not is_named(name, names):
        todo = f"issue one for {name}, or set tls_names = false on all nodes"
        raise ConfigError(f"is for {', '.join(names) or 'nobody'}, not for {name}", where=where, todo=todo)


def _read(setting: str, path: str, forbidden: int) -> bytes:
    return read_trusted(path, where=f"{setting} {path}", forbidden=forbidden, todo=_ADVICE, missing_todo=_ADVICE)


def _certificates(pem: bytes, where: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ConfigError("has no certificate in PEM form", where=where, todo=_ADVICE) from error


def _key(pem: bytes, path: str) -> SigningKey:
    where = f"tls_key_file {path}"
    try:
        key = load_pem_private_key(pem, None)
    except TypeError as error:
        todo = f"store it without one: openssl pkey -in {path} -out NEW, and chmod 600 NEW"
        raise ConfigError("needs a password", where=where, todo=todo) from error
    except ValueError as error:
        raise ConfigError("has no private key in PEM form", where=where, todo=_ADVICE) from error
    if not isinstance(key, SigningKey):
        raise ConfigError("is of a kind that TLS cannot use", where=where, todo=_ADVICE)
    return key


def _public(key: object) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]  # every kind has it
    return encoded
