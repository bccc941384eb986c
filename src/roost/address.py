"""Addresses as people write them, `host:port` and `[2001:db8::1]:port`, and back."""

from __future__ import annotations

import ipaddress
import re

from roost.errors import ConfigError

__all__ = ["format_address", "is_ip", "parse_address"]

_SHAPE = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<host>[A-Za-z0-9_.-]{1,253})):(?P<port>[0-9]{1,5})")


def parse_address(address: str) -> tuple[str, int]:
    """(host, port) of `address`, the host without brackets. Raises ConfigError, which says what is expected."""
    match = _SHAPE.fullmatch(address)
    if match is None:
        hint = "put an IPv6 address in brackets: [::1]:7400" if address.count(":") > 1 else "for example 10.0.0.5:7400"
        raise ConfigError(f"{address[:300]!r} is no address of the form host:port", todo=hint)
    port = int(match["port"])
    if port > 65535:
        raise ConfigError(f"{address!r} has no port from 0 to 65535", todo="choose another port")
    host = match["host"] or match["six"]
    if match["six"] and not is_ip(host):
        raise ConfigError(f"{host!r} is no IPv6 address", todo="write it as in [2001:db8::1]:7400")
    return host, port


def format_address(host: str, port: int) -> str:
    """The reverse of `parse_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_ip(host: str) -> bool:
    """Whether `host` is an address already, and not a name that has one."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
