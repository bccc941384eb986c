"""`roost.address`, under the name that the network layer uses."""

from __future__ import annotations

from roost.address import format_address, is_ip, parse_address

__all__ = ["format_address", "is_ip", "parse_address"]
