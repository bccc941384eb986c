"""The secrets of a node: one that it proves itself with, and others that it accepts besides.

One secret is enough; several are for rotation (`roost.wire.handshake` says in which order). A handshake gives
whoever asks something to test guesses against, so a secret must be beyond guessing: `roost secret new` makes 256
random bits, and what people make up, or copy out of an example, is refused at the start rather than found out later.

The check of a secret's quality is a filter against mistakes, not a measure of entropy: no check can tell a random
text from one that is merely unknown to it.
"""

from __future__ import annotations

import math
import os
import re
import secrets as entropy
import stat
from collections import Counter
from itertools import pairwise

from roost.config import Settings
from roost.errors import ConfigError

__all__ = ["SECRET_CHARS_MIN", "Keyring", "new_secret"]

SECRET_CHARS_MIN = 32
_FILE_BYTES_MAX = 64 * 1024
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

    __slots__ = ("_secrets",)

    def __init__(self, *secrets: str, where: str = "secret") -> None:
        if not secrets:
            raise ConfigError("there is no secret in it", where=where, todo=_ADVICE)
        for number, secret in enumerate(secrets, 1):
            if wrong := weakness(secret):
                which = f"secret {number} of {len(secrets)}" if len(secrets) > 1 else "the secret"
                raise ConfigError(f"{which} {wrong}", where=where, todo=_ADVICE)
        self._secrets = tuple(secret.encode() for secret in dict.fromkeys(secrets))

    @classmethod
    def from_settings(cls, settings: Settings) -> Keyring | None:
        """The keyring that `secret` or `secret_file` gives, None if neither is set. Raises ConfigError."""
        if settings.secret and settings.secret_file:
            raise ConfigError("both are set", where="secret, secret_file", todo="keep one; a file may hold several")
        if settings.secret:
            return cls(settings.secret.strip())
        if settings.secret_file:
            return cls(*_read(settings.secret_file), where=f"secret_file {settings.secret_file}")
        return None

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """The first signs, all are accepted."""
        return self._secrets

    def __repr__(self) -> str:
        return f"<Keyring of {len(self._secrets)}>"

    def __reduce__(self) -> str:
        raise TypeError("a keyring is not to be copied out of its process")


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
    try:
        with open(path, "rb", opener=_open) as stream:
            # What is checked is the file that is read, not whatever has its name by then.
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError("is no regular file", where=where, todo=_ADVICE)
            content = stream.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        todo = f"make it with `roost secret new > {path}; chmod 600 {path}`"
        raise ConfigError(error.strerror or str(error), where=where, todo=todo) from error
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise ConfigError(f"others than its owner may use it (mode {mode:04o})", where=where, todo=f"chmod 600 {path}")
    if len(content) > _FILE_BYTES_MAX:
        raise ConfigError(f"is longer than {_FILE_BYTES_MAX} bytes", where=where, todo="one secret a line")
    try:
        lines = [line.strip() for line in content.decode().splitlines()]
    except UnicodeDecodeError as error:
        raise ConfigError("is no text", where=where, todo=_ADVICE) from error
    return [line for line in lines if line and not line.startswith("#")]


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe must not make the start wait for ever
