"""The first 8 bytes each way, before TLS: is the other end a roost node, and do both want the same security?

The connecting end sends `ROOST`, a zero byte, the preface's version and one letter, and then nothing until it is
answered. The letter is `P` (plain), `T` (TLS with certificates made at start) or `C` (TLS with certificates of the
user's CA). The accepting end answers with the same 8 bytes, or with a `Refusal` frame and closes. Neither gives way in
anything: an end that wants TLS never goes on in plain text, and one that demands certificates never without, whatever
the other one, or somebody in between, answers. What is agreed here is not authenticated, and need not be, since it
chooses nothing; the handshake, which is, covers the certificate that came of it.
"""

from __future__ import annotations

from roost.errors import AuthError, ProtocolError, VersionSkew

__all__ = ["PREFACE_BYTES", "check_preface", "make_preface", "may_be_preface"]

PREFACE_BYTES = 8
_MAGIC = b"ROOST\0"
_VERSION = 1


def make_preface(*, tls: bool, certified: bool = False) -> bytes:
    """The 8 bytes that an end sends first. `certified`: both ends shall show certificates of the user's CA."""
    return _MAGIC + bytes((_VERSION,)) + _letter(tls, certified)


def _letter(tls: bool, certified: bool) -> bytes:
    return b"C" if certified else b"T" if tls else b"P"


def may_be_preface(data: bytes) -> bool:
    """Whether `data` is the beginning of a preface: a stranger is recognised by its first byte."""
    return data[: len(_MAGIC)] == _MAGIC[: len(data)]


def check_preface(data: bytes, *, tls: bool, certified: bool = False) -> None:
    """Raise ProtocolError, VersionSkew or AuthError unless the other end's `data` is what this end wants."""
    if len(data) != PREFACE_BYTES or not may_be_preface(data):
        raise ProtocolError("what came first was not the greeting of a roost node")
    if data[6] != _VERSION:
        raise VersionSkew(
            f"the other end begins with version {data[6]}, this one with {_VERSION}: upgrade the older node",
            mine=(_VERSION, _VERSION),
            theirs=(data[6], data[6]),
        )
    theirs = data[7:]
    if theirs not in (b"P", b"T", b"C"):
        raise ProtocolError("what came first was not the greeting of a roost node")
    if theirs == _letter(tls, certified):
        return
    if certified or theirs == b"C":
        raise AuthError(
            "one end only demands certificates of a CA: set `tls_ca_file`, `tls_cert_file` and `tls_key_file` on both "
            "nodes, or on none"
        )
    raise AuthError("TLS is on at one end only: give both nodes a secret, or both none, and the same `tls` setting")
