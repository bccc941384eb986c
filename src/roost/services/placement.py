"""Which members host a service, and its ring: the view, as one service sees it.

The ring is made of the members that host the service, are up (suspects among them) and do not rest; if all of them
rest, of all. A member that is leaving or rests is out of the ring, and yet holds what it has not handed over; a member
that is joining is not in it yet.
"""

from __future__ import annotations

from roost.core.gossip import Entry, Health
from roost.core.rights import Viewed
from roost.core.ring import Ring, RingMember
from roost.services.host import Host

__all__ = ["Placement"]


class Placement:
    """Kept up to date by `refresh`, which must be called at every change of view."""

    def __init__(self, host: Host, service: str) -> None:
        self._host = host
        self._service = service
        self._partitions = host.settings.partitions
        self.ring = self._ring(())
        self.primaries: tuple[int, ...] = ()
        self.live: dict[int, str] = {}
        """Names of live members by uid."""
        self.view = Viewed((), (), (), (0,) * self._partitions, False)
        self.refresh()

    def _ring(self, members: tuple[RingMember, ...]) -> Ring:
        return Ring(members, partitions=self._partitions, seed=self._host.placement_seed)

    def refresh(self) -> Viewed:
        """Look at the members again."""
        live: dict[int, str] = {}
        gone: list[int] = []
        crashed: list[int] = []
        hosts: list[int] = []
        up: list[Entry] = []
        joined = False
        for entry in self._host.entries():
            if entry.state == "left" or entry.health is Health.DOWN:
                gone.append(entry.uid)
                if entry.state != "left" and self._service in entry.services:
                    crashed.append(entry.uid)
                continue
            live[entry.uid] = entry.name
            if entry.uid == self._host.uid:
                joined = entry.state in ("up", "leaving")
            if self._service not in entry.services:
                continue
            hosts.append(entry.uid)
            if entry.state == "up":
                up.append(entry)
        placed: dict[str, Entry] = {}
        for entry in [entry for entry in up if not entry.resting] or up:
            rival = placed.get(entry.name)
            if rival is None or (entry.started, entry.uid) > (rival.started, rival.uid):
                placed[entry.name] = entry
        wanted = tuple(RingMember(name, placed[name].weight, placed[name].zone) for name in sorted(placed))
        if wanted != self.ring.members:
            self.ring = self._ring(wanted)
        self.live = live
        primaries = tuple(placed[name].uid for name in self.ring.primaries) or (0,) * self._partitions
        self.primaries = primaries
        self.view = Viewed(
            tuple(sorted(live)),
            tuple(sorted(gone)),
            tuple(sorted(hosts)),
            primaries,
            joined,
            tuple(sorted(crashed)),
        )
        return self.view

    def name_of(self, uid: int) -> str:
        """For people."""
        known = (entry.name for entry in self._host.entries() if entry.uid == uid)
        return self.live.get(uid) or next(known, f"{uid:016x}")
