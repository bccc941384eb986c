"""What can go wrong, as one tree; each error says what to do next.

    RoostError
    ├── ConfigError          what, where (file:line, variable or argument), what to do
    ├── AuthError            the handshake was refused
    ├── Unreachable          .node .last_seen
    ├── DeadlineExceeded     also TimeoutError; .elapsed
    ├── Overloaded           .what .limit
    ├── Unavailable          .needed .have      (copies or quorum)
    ├── NotFound             .name
    ├── NameTaken            .name .holder
    ├── RemoteError          .kind .message .node
    ├── ProtocolError        a peer broke the protocol
    └── VersionSkew          .mine .theirs

Every error carries ``may_have_run``. False is a promise: the call was not and will not be executed, so a retry is
safe. True says only that nobody knows.
"""

from __future__ import annotations

__all__ = [
    "AuthError",
    "ConfigError",
    "DeadlineExceeded",
    "NameTaken",
    "NotFound",
    "Overloaded",
    "ProtocolError",
    "RemoteError",
    "RoostError",
    "Unavailable",
    "Unreachable",
    "VersionSkew",
]


class RoostError(Exception):
    """The root of every error that roost raises on purpose."""

    def __init__(self, message: str, *, may_have_run: bool = False) -> None:
        super().__init__(message)
        self.may_have_run = may_have_run


class ConfigError(RoostError):
    """A setting, an address, a secret or a registration is wrong; nothing was started."""

    def __init__(self, what: str, *, where: str = "", todo: str = "") -> None:
        super().__init__(": ".join(part for part in (where, what) if part) + (f" ({todo})" if todo else ""))
        self.what = what
        self.where = where
        self.todo = todo


class AuthError(RoostError):
    """The handshake was refused: a wrong secret, cluster or certificate. Retrying unchanged fails again."""


class Unreachable(RoostError):
    """The node cannot be reached now. `last_seen` is in seconds since the epoch, None if it was never seen."""

    def __init__(
        self, message: str, *, node: str = "", last_seen: float | None = None, may_have_run: bool = False
    ) -> None:
        super().__init__(message, may_have_run=may_have_run)
        self.node = node
        self.last_seen = last_seen


class DeadlineExceeded(RoostError, TimeoutError):
    """No answer within the call's deadline; `elapsed` is in seconds."""

    def __init__(self, message: str, *, elapsed: float = 0.0, may_have_run: bool = True) -> None:
        super().__init__(message, may_have_run=may_have_run)
        self.elapsed = elapsed


class Overloaded(RoostError):
    """A bound was reached; `what` names it and `limit` is its value. Slow down, then retry."""

    def __init__(self, message: str, *, what: str = "", limit: float = 0, may_have_run: bool = False) -> None:
        super().__init__(message, may_have_run=may_have_run)
        self.what = what
        self.limit = limit


class Unavailable(RoostError):
    """Too few copies or voters answer to keep the promise: `needed` against `have`."""

    def __init__(self, message: str, *, needed: int = 0, have: int = 0, may_have_run: bool = False) -> None:
        super().__init__(message, may_have_run=may_have_run)
        self.needed = needed
        self.have = have


class NotFound(RoostError):
    """Nothing of that name lives in the cluster, as far as this node can know."""

    def __init__(self, message: str, *, name: str = "", may_have_run: bool = False) -> None:
        super().__init__(message, may_have_run=may_have_run)
        self.name = name


class NameTaken(RoostError):
    """The name lives already, at `holder`."""

    def __init__(self, message: str, *, name: str = "", holder: str = "", may_have_run: bool = False) -> None:
        super().__init__(message, may_have_run=may_have_run)
        self.name = name
        self.holder = holder


class RemoteError(RoostError):
    """The handler on `node` raised: `kind` is its exception's name, `message` its text.

    The other node's exception class is never imported: a peer must not choose what code runs here.
    """

    def __init__(self, kind: str, message: str, *, node: str = "", may_have_run: bool = True) -> None:
        super().__init__(f"{kind}: {message}" + (f" (on {node})" if node else ""), may_have_run=may_have_run)
        self.kind = kind
        self.message = message
        self.node = node


class ProtocolError(RoostError):
    """A peer sent what the protocol does not allow; its link was closed."""


class VersionSkew(RoostError):
    """The two ends have no protocol version in common: `mine` and `theirs` are (lowest, highest)."""

    def __init__(self, message: str, *, mine: tuple[int, int] = (0, 0), theirs: tuple[int, int] = (0, 0)) -> None:
        super().__init__(message)
        self.mine = mine
        self.theirs = theirs
