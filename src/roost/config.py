"""Settings: every knob with its unit, its default and, where there is one, its formula.

Three timing profiles: `local` (processes of one host), `lan` (one site) and `wan` (several). A timing left at None is
taken from the profile. Sources, later ones win: defaults, `roost.toml`, `ROOST_...` variables, arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

import msgspec

__all__ = ["PROFILES", "Options", "Settings", "Timings"]

Profile = Literal["local", "lan", "wan"]


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """The membership timings of a profile."""

    probe_seconds: float
    """A random member is probed this often, times (local health + 1). Longer: cheaper and slower to notice.

    The load is 2 messages a node and period whatever the size; the mean time to the first probe of a dead member is
    1.6 periods, e / (e - 1).
    """
    probe_timeout_seconds: float
    """An answer is awaited so long before others are asked to probe, times (local health + 1).

    About three times the slowest round trip, and half of `probe_seconds`, so that a probe fits into its period: it
    lasts max(`probe_seconds`, 2 x `probe_timeout_seconds`). A node that is stepped later than by a tenth of it has
    stood still; for each half of it its local health is worse by one.
    """
    suspicion_seconds: float
    """The least time between an accusation and `down`: a member whose loop stands still for less is never down.

    With n live members the time is low = `suspicion_seconds` x max(1, log10(n)) once three more members accuse it (or
    as many as there are), and 6 x low if nobody does; between them it falls with the logarithm of their number
    (`core.suspicion`). Four periods or more: by then about four others have probed the member, whatever the size.
    """
    refused_seconds: float
    """As `suspicion_seconds`, when its host refuses connections: the process is dead, short of a very fast restart.

    Several round trips, so that a restart which listens again at once, or another path, can still refute.
    """


PROFILES: dict[Profile, Timings] = {
    "local": Timings(probe_seconds=0.5, probe_timeout_seconds=0.25, suspicion_seconds=2.0, refused_seconds=0.1),
    "lan": Timings(probe_seconds=1.0, probe_timeout_seconds=0.5, suspicion_seconds=5.0, refused_seconds=0.5),
    "wan": Timings(probe_seconds=2.0, probe_timeout_seconds=1.5, suspicion_seconds=15.0, refused_seconds=2.0),
}


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of a node. Units are last in the names."""

    # who and where
    name: str = ""
    """Unique in the cluster; empty: the advertised host and port."""
    cluster: str = "roost"
    """Nodes of different clusters refuse each other."""
    bind: str = "127.0.0.1:7400"
    """host:port to listen on; port 0 picks a free one."""
    advertise: str = ""
    """host:port that others connect to; empty: what `bind` became."""
    seeds: tuple[str, ...] = ()
    """host:port of some nodes to join through. All are tried, again and again with back-off."""
    roles: tuple[str, ...] = ()
    zone: str = ""
    """Copies of a partition go to different zones first."""
    weight: float = 1.0
    """This node's share of partitions, relative to the others'."""
    application: str = ""
    """The application's own version, shown to the others."""
    # trust
    secret: str = ""
    """At least 32 characters of it unpredictable (`roost secret new`). Without one only loopback is served."""
    secret_file: str = ""
    """A file with the secret, or several, one a line: the first is used, all are accepted. Mode 0600."""
    tls: bool | None = None
    """None: on when there is a secret, or a CA. It cannot be switched off beyond loopback."""
    tls_ca_file: str = ""
    """The CA, or several, that signs the certificates of this cluster's nodes and of nobody else; with it both ends of
    every link show one, and a secret is no longer needed. Files that change are read anew. See `roost cert`."""
    tls_cert_file: str = ""
    """This node's certificate and what is between it and the CA, in PEM form."""
    tls_key_file: str = ""
    """The key of that certificate, without a password. Mode 0600."""
    tls_names: bool = True
    """A certificate must be for the name of the node that shows it (or for its host, if the name is host:port)."""
    # time
    profile: Profile = "lan"
    probe_seconds: float | None = None
    probe_timeout_seconds: float | None = None
    suspicion_seconds: float | None = None
    refused_seconds: float | None = None
    rejoin_seconds: float = 5.0
    """Down members are contacted again this often, three at a time: how a split heals. With d of them down a heal is
    noticed within `rejoin_seconds` x d / 3, and costs at most three attempts in that time however many are down."""
    forget_seconds: float = 86_400.0
    """A member that is down or has left is forgotten after this; its late return is that of a stranger."""
    form_alone_seconds: float = 3.0
    """When no seed answers for so long, the node starts on its own and keeps trying; the two sides merge later.
    Pauses between attempts double from 0.1 s: a seed is tried five times or more before that."""
    name_taken_seconds: float = 30.0
    """How long a newcomer waits for an older run of its name to be declared down before it gives up. More than the
    length of a probe + the suspicion time + 3 probe periods: 9 s on `lan` with up to 10 members, 24 s on `wan`."""
    admit_seconds: float = 20.0
    """How long a newcomer waits for a member to reach it at its address before it gives up: 4 x `handshake_seconds`,
    for three members that are asked and one that is asked again. If all say that they cannot, it gives up at once."""
    flap_seconds: float = 30.0
    """A member that comes back from down for the k-th time, k >= 2, rests for `flap_seconds` x 2 ** (k - 2), at most
    10 x: it keeps out of the rings. Each 10 x `flap_seconds` in peace take one off k."""
    leave_seconds: float = 15.0
    """The limit of a graceful leave, hand-off included."""
    call_seconds: float = 5.0
    """The deadline of a call that names none."""
    handshake_seconds: float = 5.0
    """A connection that has not proved itself by then is closed."""
    idle_seconds: float = 60.0
    """A link without traffic for so long is closed; it opens again at the next use."""
    link_silent_seconds: float = 20.0
    """What was sent and is not acknowledged for so long breaks the link, and one that is silent is asked whether it
    lives: a peer whose host vanished without a word is noticed, even where membership reaches it by another way."""
    same_host_sockets: bool = False
    """Processes of one host use a unix socket beside the port, where both ends say so (Linux): a tenth off the time of
    small calls, but half the throughput of payloads of a MiB."""
    reconnect_seconds_max: float = 2.0
    """Back-off between attempts to connect doubles from 0.02 s up to this."""
    blocked_loop_seconds: float = 0.25
    """A handler that blocks the event loop for so long is named in the log while it does; 0: nobody looks."""
    clock_ahead_max_seconds: float = 5.0
    """A node whose clock is further ahead may not join, and its stamps never advance ours."""
    # bounds
    frame_bytes_max: int = 64 * 1024 * 1024
    """A longer inbound frame closes the link."""
    message_bytes_max: int = 16 * 1024 * 1024
    """A longer message is refused where it is made; below `frame_bytes_max`."""
    outbound_bytes_max: int = 16 * 1024 * 1024
    """Waiting for one peer: beyond it calls raise Overloaded; at four times of it its link is closed, unread."""
    write_bytes_high: int = 1024 * 1024
    """A sender waits while more than this is buffered in a link, so that membership can still overtake data."""
    pending_calls_max: int = 100_000
    """Calls to one peer that await an answer."""
    running_calls_max: int = 10_000
    """Calls of one peer whose handlers have suspended; beyond it Overloaded."""
    inbox_messages_max: int = 4096
    """Unread messages of one kind from one peer; beyond it that sender waits."""
    queued_commands_max: int = 1000
    """Commands of one partition that wait for its right to arrive or for a command before them."""
    half_open_max: int = 128
    """Connections that have not proved themselves; beyond it the oldest is closed."""
    # placement
    partitions: int = 1024
    """A power of two, the same on all nodes. At least 32 a node keep the load even."""
    placement_seed: int | None = None
    """None: made from the cluster's name. The same on all nodes."""
    transfer_chunk_bytes: int = 64 * 1024
    cutover_drain_seconds: float = 2.0
    """A move waits so long for the running command of its partition to end, and is broken off otherwise."""
    transfers_max: int = 16
    """Copies that one node fills at the same time; small ones count for less."""
    transfer_bytes_per_second: float = 0.0
    """A node fills new copies of a service no faster than this; 0: as fast as it can. What is written goes out at once
    in any case."""

    @property
    def timings(self) -> Timings:
        """The profile's timings with this node's own values over them."""
        base = PROFILES[self.profile]
        own = {key: value for key in Timings.__struct_fields__ if (value := getattr(self, key)) is not None}
        return msgspec.structs.replace(base, **own)


class Options(TypedDict, total=False):
    """The settings as keyword arguments of `Node`, for the type checkers. The same fields as `Settings`."""

    cluster: str
    bind: str
    advertise: str
    seeds: Sequence[str]
    roles: Sequence[str]
    zone: str
    weight: float
    application: str
    secret: str
    secret_file: str
    tls: bool | None
    tls_ca_file: str
    tls_cert_file: str
    tls_key_file: str
    tls_names: bool
    profile: Profile
    probe_seconds: float
    probe_timeout_seconds: float
    suspicion_seconds: float
    refused_seconds: float
    rejoin_seconds: float
    forget_seconds: float
    form_alone_seconds: float
    name_taken_seconds: float
    admit_seconds: float
    flap_seconds: float
    leave_seconds: float
    call_seconds: float
    handshake_seconds: float
    idle_seconds: float
    link_silent_seconds: float
    same_host_sockets: bool
    reconnect_seconds_max: float
    blocked_loop_seconds: float
    clock_ahead_max_seconds: float
    frame_bytes_max: int
    message_bytes_max: int
    outbound_bytes_max: int
    write_bytes_high: int
    pending_calls_max: int
    running_calls_max: int
    inbox_messages_max: int
    queued_commands_max: int
    half_open_max: int
    partitions: int
    placement_seed: int
    transfer_chunk_bytes: int
    cutover_drain_seconds: float
    transfers_max: int
    transfer_bytes_per_second: float
