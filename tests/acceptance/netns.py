"""Hosts of one machine's own: network namespaces around a router, whose cables can be cut, one way too, or be lossy.

Each host is a namespace with one cable (a veth pair) to the router's. What is cut disappears in the router without a
word, as in a network that fails: a blackhole rule for each direction. Loss is `netem`'s where the kernel has it; else
the router sends what it forwards through a TUN device, at whose other end a process drops some packets and gives back
the others (`python -m tests.acceptance.netns PERCENT`, in the router's namespace).

Names hold the pid of the test run. What a run that was killed has left is removed by the next one.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import select
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

__all__ = ["ROOT", "Host", "Network", "why_not"]

PREFIX = "roost"
PORT = 7400
ROUTER = "router"
LOSSY = "lossy"
LOSSY_TABLE = "100"
BLACKHOLE_PREFERENCE = "50"
LOSSY_PREFERENCE = "60"

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
PACKET_BYTES_MAX = 65_536

ROOT = Path(__file__).parents[2]


class Host(NamedTuple):
    """A namespace that stands for a machine."""

    name: str
    ip: str
    within: tuple[str, ...]
    """Stands before a command that shall run on it."""

    @property
    def address(self) -> str:
        return f"{self.ip}:{PORT}"


def why_not() -> str:
    """Why there can be no such network here; "" if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "no `ip` here: install iproute2 (make test-packages)"
    name = f"{PREFIX}-{os.getpid()}-try"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"`ip netns add` is not permitted: {tried.stderr.strip()}"
    run("ip", "netns", "delete", name)
    return ""


def run(*command: str) -> str:
    """Run it to its end; what it wrote. Raises with what it complained of."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


class Network:
    """Hosts, a router, and a hand on every cable. Gone with its `with`."""

    def __init__(self, *names: str) -> None:
        self.hosts = {
            name: Host(name, f"10.99.{number}.2", ("ip", "netns", "exec", self._namespace(name)))
            for number, name in enumerate(names, 1)
        }
        self._dropper: subprocess.Popen[str] | None = None

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def __enter__(self) -> Self:
        remove_left_overs()
        try:
            self._make_router()
            for host in self.hosts.values():
                self._connect(host)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._remove()

    def _namespace(self, name: str) -> str:
        return f"{PREFIX}-{os.getpid()}-{name}"

    def _router(self, *arguments: str) -> str:
        return run("ip", "-n", self._namespace(ROUTER), *arguments)

    def _make_router(self) -> None:
        namespace = self._namespace(ROUTER)
        run("ip", "netns", "add", namespace)
        for setting, value in (("ip_forward", 1), ("conf/all/rp_filter", 0), ("conf/default/rp_filter", 0)):
            run("ip", "netns", "exec", namespace, "sh", "-c", f"echo {value} > /proc/sys/net/ipv4/{setting}")

    def _connect(self, host: Host) -> None:
        namespace = self._namespace(host.name)
        gateway = host.ip.removesuffix("2") + "1"
        run("ip", "netns", "add", namespace)
        pair = ("type", "veth", "peer", "name", "cable", "netns", namespace)
        self._router("link", "add", "name", port(host.name), *pair)
        self._router("address", "add", f"{gateway}/24", "dev", port(host.name))
        self._router("link", "set", "dev", port(host.name), "up")
        for arguments in (
            ("link", "set", "dev", "lo", "up"),
            ("address", "add", f"{host.ip}/24", "dev", "cable"),
            ("link", "set", "dev", "cable", "up"),
            ("route", "add", "default", "via", gateway),
        ):
            run("ip", "-n", namespace, *arguments)

    def _remove(self) -> None:
        if self._dropper is not None:
            self._dropper.kill()
            self._dropper.communicate()
        for name in (*self.hosts, ROUTER):
            remove(self._namespace(name))

    # what may go wrong

    def cut_one_way(self, source: str, target: str) -> None:
        """What `source` sends to `target` disappears."""
        self._rule("add", source, target)

    def heal_one_way(self, source: str, target: str) -> None:
        self._rule("delete", source, target)

    def cut(self, some: str, others: str) -> None:
        """What hosts of the one side send to the other disappears. A host's name is a letter."""
        for one, other in self._pairs(some, others):
            self.cut_one_way(one, other)

    def heal(self, some: str, others: str) -> None:
        for one, other in self._pairs(some, others):
            self.heal_one_way(one, other)

    def pull_cable(self, name: str) -> None:
        """The host has no link any more, and hears so; the others hear nothing."""
        self._router("link", "set", "dev", port(name), "down")

    def plug_cable(self, name: str) -> None:
        self._router("link", "set", "dev", port(name), "up")

    def _rule(self, verb: str, source: str, target: str) -> None:
        rule = ("from", self[source].ip, "to", self[target].ip, "preference", BLACKHOLE_PREFERENCE, "blackhole")
        self._router("rule", verb, *rule)

    def _pairs(self, some: str, others: str) -> list[tuple[str, str]]:
        return [pair for one in some for other in others for pair in ((one, other), (other, one))]

    # loss

    def lose(self, percent: int) -> None:
        """From now on so many of all packets are lost, each by chance."""
        namespace = self._namespace(ROUTER)
        if has_netem(namespace):
            for name in self.hosts:
                run(*netem(namespace, port(name), percent))
            return
        command = ("ip", "netns", "exec", namespace, sys.executable, "-m", "tests.acceptance.netns", str(percent))
        self._dropper = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=ROOT
        )
        assert self._dropper.stdout is not None
        if self._dropper.stdout.readline() != "ready\n":
            raise RuntimeError("the process that drops packets has ended")
        self._router("link", "set", "dev", LOSSY, "up")
        self._router("route", "add", "default", "dev", LOSSY, "table", LOSSY_TABLE)
        for name in self.hosts:
            self._router("rule", "add", "iif", port(name), "preference", LOSSY_PREFERENCE, "lookup", LOSSY_TABLE)

    def lost(self) -> tuple[int, int]:
        """How many packets were lost, and of how many."""
        if self._dropper is None:
            text = run("tc", "-n", self._namespace(ROUTER), "-s", "-j", "qdisc", "show")
            queues: list[dict[str, Any]] = [queue for queue in json.loads(text) if queue["kind"] == "netem"]
            dropped = sum(queue["drops"] for queue in queues)
            return dropped, dropped + sum(queue["packets"] for queue in queues)
        assert self._dropper.stdin is not None and self._dropper.stdout is not None
        self._dropper.stdin.write("how many?\n")
        dropped, seen = self._dropper.stdout.readline().split()
        return int(dropped), int(seen)


def port(host: str) -> str:
    """The router's end of that host's cable."""
    return f"to-{host}"


def netem(namespace: str, device: str, percent: int) -> tuple[str, ...]:
    loss = ("netem", "loss", f"{percent}%")
    return ("tc", "-n", namespace, "qdisc", "add", "dev", device, "root", *loss)


def has_netem(namespace: str) -> bool:
    if shutil.which("tc") is None:
        return False
    if subprocess.run(netem(namespace, "lo", 1), capture_output=True, check=False).returncode:
        return False
    run("tc", "-n", namespace, "qdisc", "delete", "dev", "lo", "root")
    return True


def remove(namespace: str) -> None:
    """The namespace, if there is one, and what still runs in it."""
    if not Path("/run/netns", namespace).exists():
        return
    for pid in run("ip", "netns", "pids", namespace).split():
        subprocess.run(["kill", "-9", pid], capture_output=True, check=False)
    run("ip", "netns", "delete", namespace)


def remove_left_overs() -> None:
    """Namespaces of test runs that are no more."""
    for line in run("ip", "netns", "list").splitlines():
        found = re.match(rf"{PREFIX}-(\d+)-\w+", line)
        if found and not Path("/proc", found[1]).exists():
            remove(found[0])


def drop_packets(percent: float) -> None:
    """Be the other end of a TUN device, and lose some of what comes. Ends with its standard input."""
    rng = random.Random(percent)
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", LOSSY.encode(), IFF_TUN | IFF_NO_PI))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    seen = dropped = 0
    while True:
        readable, _, _ = select.select([device, sys.stdin], [], [])
        if device in readable:
            packet = os.read(device, PACKET_BYTES_MAX)
            seen += 1
            if rng.random() * 100 < percent:
                dropped += 1
            else:
                os.write(device, packet)
        if sys.stdin in readable:
            if not sys.stdin.readline():
                return
            sys.stdout.write(f"{dropped} {seen}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    drop_packets(float(sys.argv[1]))
