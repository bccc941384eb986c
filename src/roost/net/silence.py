"""TCP connections whose other end says nothing more: the system breaks them, and membership hears of it."""

from __future__ import annotations

import asyncio
import math
import socket

__all__ = ["notice_silence"]

KEEP_ALIVE_PROBES = 2
KEEP_ALIVE_SECONDS_MAX = 32_767
"""More the system does not take."""


def notice_silence(transport: asyncio.Transport, seconds: float) -> None:
    """Have the system break a connection whose other end acknowledges nothing for `seconds`.

    What is sent and not acknowledged is the business of TCP_USER_TIMEOUT, which only Linux has; a connection on which
    nothing is sent, that of keep-alive: asked after half the time, and given up with the last question unanswered.
    """
    asks = min(max(math.ceil(seconds / 2), 1), KEEP_ALIVE_SECONDS_MAX)
    again = min(max(math.ceil(seconds / 2 / KEEP_ALIVE_PROBES), 1), KEEP_ALIVE_SECONDS_MAX)
    options = {
        "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE": asks,
        "TCP_KEEPINTVL": again,
        "TCP_KEEPCNT": KEEP_ALIVE_PROBES,
        "TCP_USER_TIMEOUT": min(max(int(seconds * 1000), 1), 2**31 - 1),
    }
    bare = transport.get_extra_info("socket")
    if bare is None or bare.family == socket.AF_UNIX:  # gone already; or no network in between
        return
    bare.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in options.items():
        if (option := getattr(socket, name, None)) is not None:
            bare.setsockopt(socket.IPPROTO_TCP, option, value)
