"""Files that trust rests on: read only if nobody else may see, or change, what is in them.

What is checked is the file that is read, through its descriptor, not whatever has its name by then. A stamp tells that
a file may have changed since: a node takes new secrets and certificates for its next links, without a restart.
"""

from __future__ import annotations

import os
import stat

from roost.errors import ConfigError

__all__ = ["SEEN_BY_OTHERS", "WRITTEN_BY_OTHERS", "Stamp", "read_trusted", "stamp_of"]

FILE_BYTES_MAX = 64 * 1024
SEEN_BY_OTHERS = 0o077
"""No right of any kind for the group and others: for secrets and keys."""
WRITTEN_BY_OTHERS = 0o022
"""Others may read, but not write: for certificates."""

Stamp = tuple[tuple[int, int, int, int] | None, ...]


def read_trusted(path: str, *, where: str, forbidden: int, todo: str, missing_todo: str) -> bytes:
    """The content of a small file whose mode has no bit of `forbidden`. Raises ConfigError with what to do."""
    try:
        with open(path, "rb", opener=_open) as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError("is no regular file", where=where, todo=todo)
            content = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(error.strerror or str(error), where=where, todo=missing_todo) from error
    if status.st_mode & forbidden:
        mode = stat.S_IMODE(status.st_mode)
        what, chmod = ("use", "600") if forbidden == SEEN_BY_OTHERS else ("change", "go-w")
        raise ConfigError(
            f"others than its owner may {what} it (mode {mode:04o})", where=where, todo=f"chmod {chmod} {path}"
        )
    if len(content) > FILE_BYTES_MAX:
        raise ConfigError(f"is longer than {FILE_BYTES_MAX} bytes", where=where, todo=todo)
    return content


def stamp_of(*paths: str) -> Stamp:
    """What differs when one of the files was written or replaced; None stands for a file that cannot be seen."""
    return tuple(_stamp(path) for path in paths)


def _stamp(path: str) -> tuple[int, int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe must not make the start wait for ever
