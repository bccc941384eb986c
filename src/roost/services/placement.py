"""Which members host a service, and its ring: the view, as one service sees it.

The ring is made of the members that host the service, are up (suspects among them) and do not rest; if all of them
rest, of all. A member that is leaving or rests is out of the ring, and yet holds what it has not handed over; a member
that is joining is not in it yet.

Who may act in a split is decided here too, from the hosts that were up when they were last settled (`core/split.py`).
"""

from __future__ import annotations

from roost.core.gossip import Entry, Health
from roost.core.rights import Viewed
from roost.core.ring import Ring, RingMember
from roost.core.split import Seen, renewed
from roost.services.host import Host
from roost.services.replication import Replication

__all__ = ["Placement"]


class Placement:
    """Kept up to date by `refresh`, which must be called at every change of view."""

    def __init__(self, host: Host, service: str, replication: Replication) -> None:
        self._host = host
        self._service = service
        self._replicas = replication.replicas
        self._strategy = replication.strategy
        self._baseline: tuple[Seen, ...] = ()
        self._seen: list[Seen] = []
        self._renewed = False
        self._partitions = host.settings.partitions
        self.ring = self._ring(())
        self.owners: tuple[tuple[int, ...], ...] = ((),) * self._partitions
        self.primaries: tuple[int, ...] = (0,) * self._partitions
        self._placed: tuple[Ring | None, dict[str, int]] = (None, {})
        self.live: dict[int, str] = {}
        """Names of live members by uid."""
        self.view = Viewed((), (), (), ((),) * self._partitions, False)
        self.refresh()

    def _ring(self, members: tuple[RingMember, ...]) -> Ring:
        seed = self._host.placement_seed
        return Ring(members, partitions=self._partitions, replicas=self._replicas, seed=seed)

    def refresh(self) -> Viewed:
        """Look at the members again."""
        live: dict[int, str] = {}
        gone: list[int] = []
        crashed: list[Entry] = []
        seen: list[Seen] = []
        hosts: list[int] = []
        up: list[Entry] = []
        joined = False
        for entry in self._host.entries():
            if self._service in entry.services:
                is_left = entry.state == "left"
                is_up = not is_left and entry.health is not Health.DOWN
                seen.append(Seen(entry.uid, entry.name, entry.started, is_up, is_left))
            if entry.state == "left" or entry.health is Health.DOWN:
                gone.append(entry.uid)
                if entry.state != "left" and self._service in entry.services:
                    crashed.append(entry)
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
        uids = {name: entry.uid for name, entry in placed.items()}
        if (self.ring, uids) != self._placed:
            self._placed = (self.ring, uids)
            self.owners = tuple(tuple(uids[name] for name in self.ring.owners(one)) for one in range(self._partitions))
            self.primaries = tuple(those[0] if those else 0 for those in self.owners)
        acts = self._strategy.may_act(self._baseline, seen)
        self._seen, self._renewed = seen, False
        newest = {entry.name: entry.started for entry in self._host.entries() if entry.uid in live}
        missed = [entry.uid for entry in crashed if newest.get(entry.name, -1) < entry.started]
        self.view = Viewed(
            live=tuple(sorted(live)),
            gone=tuple(sorted(gone)),
            hosts=tuple(sorted(hosts)),
            owners=self.owners,
            joined=joined,
            crashed=tuple(sorted(entry.uid for entry in crashed)),
            missed=tuple(sorted(missed)),
            acts=acts,
        )
        return self.view

    def renew(self) -> bool:
        """Once the members are settled, who is up now is whom a split would divide. True when that is done anew."""
        if self._renewed or not self._host.settled:
            return False
        self._baseline = renewed(self._strategy, self._baseline, self._seen, settled=True)
        self._renewed = True
        return True

    def name_of(self, uid: int) -> str:
        """For people."""
        known = (entry.name for entry in self._host.entries() if entry.uid == uid)
        return self.live.get(uid) or next(known, f"{uid:016x}")
