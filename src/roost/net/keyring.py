"""The secrets of a node: one that it proves itself with, and others that it accepts besides.

One secret is enough; several are for rotation (`roost.wire.handshake` says in which order). A handshake gives
whoever asks something to test guesses against, so a secret must be beyond guessing: `roost secret new` makes 256
random bits, and what people make up, or copy out of an example, is refused at the start rather than found out later.

A keyring from a file follows it: a handshake uses the secrets that the file has when it begins, so that rotation needs
no restart. A file that has become unusable is logged, and the secrets from before stay in use.

The check of a secret's quality is a filter against mistakes, not a measure of entropy: no check can tell a random
text from one that is merely unknown to it.
"""

from __future__ import annotations

import logging
import math
import re
import secrets as entropy
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from roost.config import Settings
from roost.errors import ConfigError
from roost.net.trusted_file import SEEN_BY_OTHERS, Stamp, read_trusted, stamp_of

__all__ = ["SECRETS_MAX", "SECRET_CHARS_MIN", "Keyring", "new_secret", "weakness"]

log = logging.getLogger("roost.net")

SECRET_CHARS_MIN = 32
SECRETS_MAX = 8
"""Each costs some 15 us for every stranger who sends a proof; a rotation needs two."""
_ENTROPY_BITS_MIN = 80
"""Of the characters as they occur, by Shannon. 32 random hexadecimal digits come out at about 110."""
_WELL_KNOWN = ("changeme", "default", "example", "insecure", "letmein", "password", "qwerty", "secret", "yourkey")
"""No random text contains these but by a chance of one in 10**8."""
_ADVICE = "make one with `roost secret new`"


def new_secret() -> str:
    """A secret of 256 random bits, in 43 characters; it never looks like an option of a command."""
    while (weakness(made := entropy.token_urlsafe(32))) or made.startswith("-"):
        continue
    return made


class Keyring:
    """One or more secrets, the first of which is used to sign. Never shows them."""

    __slots__ = ("_path", "_secrets", "_stamp")

    def __init__(self, *secrets: str, where: str = "secret") -> None:
        self._secrets = _checked(secrets, where)
        self._path = ""
        self._stamp: Stamp = ()

    @classmethod
    def from_settings(cls, settings: Settings) -> Keyring | None:
        """The keyring that `secret` or `secret_file` gives, None if neither is set. Raises ConfigError."""
        if settings.secret and settings.secret_file:
            raise ConfigError("both are set", where="secret, secret_file", todo="keep one; a file may hold several")
        if settings.secret:
            return cls(settings.secret.strip())
        if settings.secret_file:
            path = settings.secret_file
            stamp = stamp_of(path)
            keyring = cls(*_read(path), where=f"secret_file {path}")
            keyring._path, keyring._stamp = path, stamp
            return keyring
        return None

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """The first signs, all are accepted."""
        if self._path and (stamp := stamp_of(self._path)) != self._stamp:
            self._stamp = stamp
            self._follow()
        return self._secrets

    def _follow(self) -> None:
        try:
            self._secrets = _checked(_read(self._path), f"secret_file {self._path}")
        except ConfigError as error:
            log.error("the secrets from before stay in use: %s", error)
        else:
            log.info("secret_file %s has changed: new links use its %d secrets", self._path, len(self._secrets))

    def __repr__(self) -> str:
        return f"<Keyring of {len(self._secrets)}>"

    def __reduce__(self) -> str:
        raise TypeError("a keyring is not to be copied out of its process")


def _checked(secrets: Sequence[str], where: str) -> tuple[bytes, ...]:
    distinct = tuple(dict.fromkeys(secrets))
    if not distinct:
        raise ConfigError("there is no secret in it", where=where, todo=_ADVICE)
    if len(distinct) > SECRETS_MAX:
        raise ConfigError(f"{len(distinct)} secrets, at most {SECRETS_MAX}", where=where, todo="remove the old ones")
    for number, secret in enumerate(distinct, 1):
        if wrong := weakness(secret):
            which = f"secret {number} of {len(distinct)}" if len(distinct) > 1 else "the secret"
            raise ConfigError(f"{which} {wrong}", where=where, todo=_ADVICE)
    return tuple(secret.encode() for secret in distinct)


def weakness(secret: str) -> str:
    """What is wrong with a secret, in words that do not contain it; empty if nothing is known to be."""
    if len(secret) < SECRET_CHARS_MIN:
        return f"has {len(secret)} characters, at least {SECRET_CHARS_MIN} are needed"
    letters = re.sub(r"[^a-z0-9]", "", secret.casefold())
    if any(word in letters for word in _WELL_KNOWN):
        return "looks like an example or a password that is known"
    counts = Counter(secret).values()
    bits = -sum(count * math.log2(count / len(secret)) for count in counts)
    steps = sum(abs(ord(left) - ord(right)) <= 1 for left, right in pairwise(secret))
    if bits < _ENTROPY_BITS_MIN or secret in (secret + secret)[1:-1] or steps * 2 > len(secret):
        return "is too regular to be random"
    return ""


def _read(path: str) -> list[str]:
    """The secrets in a file, one a line, without empty lines and comments."""
    where = f"secret_file {path}"
    content = read_trusted(
        path,
        where=where,
        forbidden=SEEN_BY_OTHERS,
        todo=_ADVICE,
        missing_todo=f"make it with `roost secret new --out {path}`",
    )
    try:
        lines = [line.strip() for line in content.decode().splitlines()]
    except UnicodeDecodeError as error:
        raise ConfigError("is no text", where=where, todo=_ADVICE) from error
    return [line for line in lines if line and not line.startswith("#")]
