"""New files of commands: made whole or not at all, and never in place of one that exists."""

from __future__ import annotations

import os

from roost.errors import RoostError

__all__ = ["write_new"]


def write_new(contents: dict[str, bytes], *, mode: int) -> None:
    """Make files that do not exist yet, all or none. Raises RoostError, and then nothing was changed."""
    made: list[str] = []
    try:
        for path, content in contents.items():
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            except FileExistsError as error:
                text = f"{path} exists already, and stays as it is: remove it first or name another file"
                raise RoostError(text) from error
            except OSError as error:
                raise RoostError(f"{path} cannot be made: {error.strerror}") from error
            made.append(path)
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    os.fchmod(descriptor, mode)  # an unusual umask may have taken even the owner's rights
                    stream.write(content)
                    stream.flush()
                    os.fsync(descriptor)
            except OSError as error:
                raise RoostError(f"{path} cannot be written: {error.strerror}") from error
    except BaseException:
        for path in made:
            os.unlink(path)
        raise
