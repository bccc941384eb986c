"""Shorter ways between processes of one host: a unix socket beside each TCP port.

Whoever listens at an address of TCP also listens at a unix socket whose name is that address, in Linux' abstract
namespace: no file, gone with the process, and not seen from another network namespace, so that what is called the same
host here is what TCP would call so. Whoever connects tries that name first. What is said over it is the same to the
last byte, TLS and handshake included.

A port cannot be taken while somebody listens at it, a name beside it can (if the node's own attempt failed, or in the
moment before it): so the connecting end makes sure that the process behind the name is of its own user, or root's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
import sys
from collections.abc import Callable
from typing import TypeVar

__all__ = ["dial", "listen", "name_of"]

log = logging.getLogger("roost.net")

P = TypeVar("P", bound=asyncio.BaseProtocol)
_CREDENTIALS = struct.Struct("3i")
"""struct ucred of unix(7): process, user, group."""


async def listen(
    loop: asyncio.AbstractEventLoop, make: Callable[[], asyncio.BaseProtocol], address: str, port: int, *, backlog: int
) -> asyncio.AbstractServer | None:
    """Listen beside a TCP port; None where that cannot be, which costs nothing but speed."""
    bare = _socket()
    if bare is None:
        return None
    try:
        bare.bind(name_of(address, port))
        return await loop.create_unix_server(make, sock=bare, backlog=backlog)
    except OSError as error:
        bare.close()
        log.warning(
            "processes of this host reach %s:%s by TCP only: no unix socket beside it: %s", address, port, error
        )
        return None


async def dial(
    loop: asyncio.AbstractEventLoop, make: Callable[[], P], address: str, port: int
) -> tuple[asyncio.Transport, P] | None:
    """Connect to who listens beside a TCP port; None if nobody does, or somebody else's process."""
    bare = _socket()
    if bare is None:
        return None
    try:
        bare.connect(name_of(address, port))  # at once or not at all
        _, user, _ = _CREDENTIALS.unpack(bare.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if user in (os.geteuid(), 0):
            return await loop.create_unix_connection(make, sock=bare)
        log.warning("a process of user %s listens at the unix socket of %s:%s: TCP instead", user, address, port)
    except OSError:
        pass
    bare.close()
    return None


def _socket() -> socket.socket | None:
    if sys.platform != "linux":
        return None
    try:
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError:  # where processes are confined to TCP
        return None


def name_of(address: str, port: int) -> str:
    """The name of the unix socket beside that address."""
    return f"\0roost/{address}/{port}"
