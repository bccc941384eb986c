"""Distributed Erlang: `roost_bench.erl` on two nodes or more, and a port mapper of their own.

The nodes have short names on loopback, a cookie that nobody else knows, and Erlang's own settings otherwise. This
process only passes lines on: the calling end is the Erlang node.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import IO

import msgspec

from benchmarks.driver import Ends, free_port
from benchmarks.load import STALL_SECONDS

__all__: list[str] = []

SOURCE = Path(__file__).with_name("roost_bench.erl")


@contextlib.contextmanager
def _running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that ends with its input, or else is made to."""
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        _pipe(process.stdin).close()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait(5)
        _pipe(process.stdout).close()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def _pid(process: subprocess.Popen[str], name: str) -> int:
    line = _pipe(process.stdout).readline().strip()
    if not line.isdigit():
        raise RuntimeError(f"the Erlang node {name} did not start; it said {line!r}")
    return int(line)


def _await_port(port: int) -> None:
    """epmd says nothing when it listens: ask it for all names until it answers."""
    end = monotonic() + STALL_SECONDS
    while monotonic() < end:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 1) as asking:
            asking.sendall(b"\0\1n")
            asking.recv(4)
            return
    raise TimeoutError(f"epmd does not listen on port {port}")


@contextlib.contextmanager
def _mapper(environment: dict[str, str]) -> Iterator[None]:
    """epmd, which knows the nodes' ports: one on a free port, so that no other is touched."""
    process = subprocess.Popen(["epmd"], env=environment)
    try:
        _await_port(int(environment["ERL_EPMD_PORT"]))
        yield
    finally:
        process.terminate()
        process.wait(5)


def main(servers: int) -> None:
    """Start everything, pass lines on, end everything."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="roost-bench-"))
        subprocess.run(["erlc", "-o", folder, str(SOURCE)], check=True)
        port = str(free_port())
        own = {"HOME": folder, "ERL_EPMD_PORT": port, "ERL_EPMD_ADDRESS": "127.0.0.1"}
        environment = os.environ | own
        stack.enter_context(_mapper(environment))
        suffix = f"{os.getpid()}@localhost"
        common = ["erl", "-noshell", "-pa", folder, "-start_epmd", "false", "-setcookie", secrets.token_hex(16)]
        common += ["-kernel", "inet_dist_use_interface", "{127,0,0,1}"]
        names = [f"echo{number}_{suffix}" for number in range(1, servers + 1)]
        started = [
            stack.enter_context(_running([*common, "-sname", name, "-s", "roost_bench", "answering"], environment))
            for name in names
        ]
        answering = [_pid(process, name) for process, name in zip(started, names, strict=True)]
        command = [*common, "-sname", f"caller_{suffix}", "-s", "roost_bench", "calling", "-extra", *names]
        caller = stack.enter_context(_running(command, environment))
        ends = Ends([_pid(caller, "caller")], answering)
        print(msgspec.json.encode(ends).decode(), flush=True)
        while line := _next_line():
            print(line, file=caller.stdin, flush=True)
            print(_pipe(caller.stdout).readline().strip(), flush=True)


def _next_line() -> str:
    try:
        return input()
    except EOFError:
        return ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.erlang", description=__doc__)
    parser.add_argument("--servers", type=int, default=1)
    main(parser.parse_args().servers)
