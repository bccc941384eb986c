"""Where settings come from: defaults, `roost.toml`, `ROOST_...` variables, arguments; later ones win.

Every value remembers its origin (`roost.toml:3`, `ROOST_SEEDS`, `argument`), so that an error can point at the place
to change and `roost config show` can explain what is in force. Nothing is guessed: what no setting is called, and
what a setting cannot mean, ends the start with a ConfigError. No error shows a secret.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

import msgspec

from roost.address import parse_address
from roost.config import Settings
from roost.errors import ConfigError

__all__ = ["FILE", "PREFIX", "SECRET_KEYS", "load"]

FILE = "roost.toml"
PREFIX = "ROOST_"
FRAME_BYTES_SPARE = 1024
"""What a message takes in a frame besides itself, at most."""
SECRET_KEYS = frozenset({"secret"})
"""Settings whose values are never shown."""

_CONFIG = "ROOST_CONFIG"
_TYPES: dict[str, Any] = get_type_hints(Settings)
_NAME = re.compile(r"[A-Za-z0-9_.:@\[\]-]{1,128}")
_NAME_RULE = "1 to 128 of the characters A-Z a-z 0-9 _ . : @ [ ] -"
_KUBERNETES = re.compile(
    r"ROOST_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""What Kubernetes puts into every pod beside a service whose name begins with `roost`: not meant for us."""


def load(
    path: str | None = None,
    environ: Mapping[str, str] | None = None,
    arguments: Mapping[str, object] | None = None,
    *,
    listed: Iterable[tuple[str, object, str]] = (),
    check_exposure: bool = True,
) -> tuple[Settings, dict[str, str]]:
    """The settings, and for each where it came from. Raises ConfigError.

    `path` None: the file that ROOST_CONFIG names, else `roost.toml` if there is one here. `environ` None: that of the
    process. `listed`: settings with their origins from elsewhere (a peer file), over those from the environment and
    below the arguments. An argument that is None was not given. Without `check_exposure`, addresses that others can
    reach need no secret: for networks that are none.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    origins = dict.fromkeys(_TYPES, "default")
    given = _from_arguments(arguments or {})
    for source in (_from_file(path, environ), _from_environ(environ), _converted(listed), given):
        for key, value, origin in source:
            values[key] = value
            origins[key] = origin
    settings = Settings(**values)
    _check_ranges(settings, origins)
    _check_words(settings, origins)
    _check_addresses(settings, origins)
    if settings.secret and settings.secret_file:
        where = _latest(origins, "secret", "secret_file")
        todo = "keep one of them; a file may hold several secrets"
        raise ConfigError("both secret and secret_file are set", where=where, todo=todo)
    _check_certificates(settings, origins)
    if check_exposure:
        _check_exposure(settings, origins)
    return settings, origins


_Given = Iterable[tuple[str, Any, str]]


def _from_file(path: str | None, environ: Mapping[str, str]) -> _Given:
    named_by = "argument" if path else _CONFIG
    path = path or environ.get(_CONFIG)
    if not path:
        if not Path(FILE).exists():
            return
        path, named_by = FILE, ""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        what = f"cannot read {path}: {error.strerror or error}"
        raise ConfigError(what, where=named_by, todo="name a file that exists and is readable") from error
    except UnicodeDecodeError as error:
        raise ConfigError("is no UTF-8 text", where=path, todo="save it as UTF-8") from error
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"at line (\d+)", str(error))
        where = f"{path}:{at[1] if at else len(text.splitlines())}"
        raise ConfigError(f"is no TOML: {error}", where=where, todo="a line looks like weight = 2.0") from error
    for key, value in table.items():
        origin = f"{path}:{_line_of(key, text)}"
        yield key, _convert(key, value, origin, strict=True), origin


def _line_of(key: str, text: str) -> int:
    """The line that sets `key`, by its looks: good enough to point at, as keys come first on their lines."""
    name = re.escape(key)
    looks = re.compile(rf"""\s*\[*\s*(?:{name}|"{name}"|'{name}')\s*[.=\]]""")
    return next((number for number, line in enumerate(text.splitlines(), 1) if looks.match(line)), 1)


def _from_environ(environ: Mapping[str, str]) -> _Given:
    in_pod = "KUBERNETES_SERVICE_HOST" in environ
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable == _CONFIG or (in_pod and _KUBERNETES.fullmatch(variable)):
            continue
        key = variable.removeprefix(PREFIX).lower()
        if key not in _TYPES or variable != PREFIX + key.upper():
            known = [_CONFIG, *(PREFIX + name.upper() for name in _TYPES)]
            _refuse_unknown(variable, variable.upper(), known, where="environment")
        text: object = environ[variable]
        if get_origin(_TYPES[key]) is tuple:
            text = [part.strip() for part in environ[variable].split(",") if part.strip()]
        yield key, _convert(key, text, variable, strict=False), variable


def _converted(listed: Iterable[tuple[str, object, str]]) -> _Given:
    for key, value, origin in listed:
        yield key, _convert(key, value, origin, strict=True), origin


def _from_arguments(arguments: Mapping[str, object]) -> _Given:
    return _converted((key, value, "argument") for key, value in arguments.items() if value is not None)


def _convert(key: str, value: object, origin: str, *, strict: bool) -> Any:
    """`value` as the setting's type."""
    if key not in _TYPES:
        _refuse_unknown(key, key, _TYPES, where=origin)
    try:
        return msgspec.convert(value, _TYPES[key], strict=strict)
    except msgspec.ValidationError as error:
        expected, choices = _describe(_TYPES[key])
        near = difflib.get_close_matches(value, choices, 1) if isinstance(value, str) else []
        todo = f"did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{key} must be {expected}, not {_shown(key, value)}", where=origin, todo=todo) from error


def _refuse_unknown(given: str, likely: str, known: Iterable[str], *, where: str) -> NoReturn:
    near = difflib.get_close_matches(likely, list(known), 1)
    todo = f"did you mean {near[0]}?" if near else "`roost config show` lists all settings"
    raise ConfigError(f"there is no setting {given[:100]}", where=where, todo=todo)


def _describe(kind: Any) -> tuple[str, tuple[str, ...]]:
    """What a type expects, in words, and the words it can be if these are few."""
    if get_origin(kind) in (Union, UnionType):
        kind = next(part for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        return f"one of {', '.join(choices)}", choices
    if get_origin(kind) is tuple:
        return "a list of texts", ()
    if kind is bool:
        return "true or false", ("true", "false")
    return {int: "a whole number", float: "a number"}.get(kind, "a text"), ()


def _shown(key: str, value: object) -> str:
    return f"of type {type(value).__name__}" if key in SECRET_KEYS else repr(value)[:100]


def _check_ranges(settings: Settings, origins: Mapping[str, str]) -> None:
    for key in _TYPES:
        value = getattr(settings, key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if isinstance(value, float) and not math.isfinite(value):
            rule = "a finite number"
        elif key == "partitions":
            rule = "" if 1 <= value <= 65536 and not int(value) & (int(value) - 1) else "a power of two, 1 to 65536"
        elif key == "blocked_loop_seconds":
            rule = "" if value == 0 or 0.01 <= value <= 3600 else "0 (off), or from 0.01 to 3600"
        elif key == "transfer_bytes_per_second":
            rule = "" if value == 0 or 1024 <= value <= 2**40 else "0 (no limit), or from 1024 to 2**40"
        elif key == "weight":
            rule = "" if value == 0 or 0.001 <= value <= 1000 else "0, or from 0.001 to 1000"
        elif key == "placement_seed":
            rule = "" if 0 <= value < 2**63 else "from 0 to 2**63 - 1"
        else:
            most = _most(key)
            rule = "" if 0 < value <= most else f"more than 0 and at most {most}"
        if rule:
            raise ConfigError(f"{key} must be {rule}, not {value}", where=origins[key])
    if settings.message_bytes_max + FRAME_BYTES_SPARE > settings.frame_bytes_max:
        what = f"message_bytes_max ({settings.message_bytes_max}) must be {FRAME_BYTES_SPARE} below frame_bytes_max"
        where = _latest(origins, "message_bytes_max", "frame_bytes_max")
        raise ConfigError(f"{what} ({settings.frame_bytes_max})", where=where, todo="a message travels in one frame")


def _most(key: str) -> int:
    """Far beyond what anybody can want, and well below where arithmetic or the system gives up."""
    if key == "frame_bytes_max":
        return 2**31
    if "seconds" in key:
        return 10**7
    return 2**40 if "bytes" in key else 10**9


def _check_words(settings: Settings, origins: Mapping[str, str]) -> None:
    words = [("name", settings.name), ("zone", settings.zone)]
    words = [(key, word) for key, word in words if word]
    words += [("cluster", settings.cluster), *(("roles", role) for role in settings.roles)]
    for key, word in words:
        if not _NAME.fullmatch(word):
            what = f"{word[:150]!r} cannot be used in {key}" if key == "roles" else f"{key} cannot be {word[:150]!r}"
            raise ConfigError(what, where=origins[key], todo=_NAME_RULE)


def _check_addresses(settings: Settings, origins: Mapping[str, str]) -> None:
    addresses = [("bind", settings.bind), *(("seeds", seed) for seed in settings.seeds)]
    if settings.advertise:
        addresses.append(("advertise", settings.advertise))
    for key, address in addresses:
        try:
            _, port = parse_address(address)
        except ConfigError as error:
            raise ConfigError(f"{key}: {error.what}", where=origins[key], todo=error.todo) from error
        if port == 0 and key != "bind":
            raise ConfigError(f"{key}: nobody can connect to port 0 of {address}", where=origins[key])
    key, address = ("advertise", settings.advertise) if settings.advertise else ("bind", settings.bind)
    if _is_wildcard(parse_address(address)[0]):
        what = f"{key} is {address}: that is every address of this host, and none that others can connect to"
        raise ConfigError(what, where=origins[key], todo="set advertise to the host:port that others connect to")


def _check_certificates(settings: Settings, origins: Mapping[str, str]) -> None:
    """All of them or none."""
    files = ("tls_ca_file", "tls_cert_file", "tls_key_file")
    given = [key for key in files if getattr(settings, key)]
    if given and len(given) < len(files):
        missing = " and ".join(key for key in files if key not in given)
        todo = "set all three, or none"
        raise ConfigError(f"{given[0]} is set, and {missing} not", where=origins[given[0]], todo=todo)
    if given and settings.tls is False:
        where = _latest(origins, "tls", given[0])
        raise ConfigError("tls is off, and tls_ca_file is set", where=where, todo="remove one of them")


def _check_exposure(settings: Settings, origins: Mapping[str, str]) -> None:
    """Whoever can reach a node without a secret can do everything with it."""
    for key, address in (("bind", settings.bind), ("advertise", settings.advertise)):
        if not address or _is_loopback(parse_address(address)[0]):
            continue
        if not settings.secret and not settings.secret_file and not settings.tls_ca_file:
            what = f"{key} is {address}, which others can reach, and there is no secret"
            todo = "make one with `roost secret new` and set secret_file, or stay on 127.0.0.1"
            raise ConfigError(what, where=origins[key], todo=todo)
        if settings.tls is False:
            what = f"tls cannot be off while {key} is {address}, which others can reach"
            raise ConfigError(what, where=_latest(origins, "tls", key), todo="leave tls out, or stay on 127.0.0.1")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_unspecified
    except ValueError:
        return False


def _latest(origins: Mapping[str, str], *keys: str) -> str:
    """Where to point when settings contradict each other: at what somebody has set, and there at the first."""
    return next((origins[key] for key in keys if origins[key] != "default"), "default")
