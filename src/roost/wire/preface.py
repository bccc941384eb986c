"""The first 8 bytes each way, before TLS: is the other end a roost node, and do both want TLS?

The connecting end sends `ROOST`, a zero byte, the preface's version and `T` (TLS) or `P` (plain), and then nothing
until it is answered. The accepting end answers with the same 8 bytes, or with a `Refusal` frame and closes. It gives
way in nothing: an end that wants TLS never goes on in plain text, whatever the other one, or somebody in between,
answers. What is agreed here is not authenticated; the handshake, which is, covers the certificate that came of it.
"""

from __future__ import annotations

from roost.errors import AuthError, ProtocolError, VersionSkew

__all__ = ["PREFACE_BYTES", "check_preface", "make_preface", "may_be_preface"]

PREFACE_BYTES = 8
_MAGIC = b"ROOST\0"
_VERSION = 1


def make_preface(*, tls: bool) -> bytes:
    """The 8 bytes that an end sends first."""
    return _MAGIC + bytes((_VERSION,)) + (b"T" if tls else b"P")


def may_be_preface(data: bytes) -> bool:
    """Whether `data` is the beginning of a preface: a stranger is recognised by its first byte."""
    return data[: len(_MAGIC)] == _MAGIC[: len(data)]


def check_preface(data: bytes, *, tls: bool) -> None:
    """Raise ProtocolError, VersionSkew or AuthError unless the other end's `data` fits an end that wants `tls`."""
    if len(data) != PREFACE_BYTES or not may_be_preface(data):
        raise ProtocolError("what came first was not the greeting of a roost node")
    if data[6] != _VERSION:
        raise VersionSkew(
            f"the other end begins with version {data[6]}, this one with {_VERSION}: upgrade the older node",
            mine=(_VERSION, _VERSION),
            theirs=(data[6], data[6]),
        )
    if data[7:] not in (b"T", b"P"):
        raise ProtocolError("what came first was not the greeting of a roost node")
    if (data[7:] == b"T") != tls:
        raise AuthError("TLS is on at one end only: give both nodes a secret, or both none, and the same `tls` setting")
