"""What a node believes about members, and how beliefs change.

Every entry that is heard goes through `learn`, every conclusion of the node itself through `conclude`, every change of
its own entry through `change_me`; all three look the outcome up in the tables of `transitions`. What changed becomes
a rumour, starts or ends a suspicion, and is told to the owner.

A claim that a live member is down is only *doubt* if it comes in a whole view, or from a member that has not been live
here for `suspicion_seconds`. Two sides of a split have each declared the other down, and when they meet, what one
still says must take nobody out of the ring: who is doubted is suspect and probed at once.

One name has one run. Of two live runs the newcomer, with the greater (started, uid), is not entered, unless it listens
at the older one's address: then the older must be gone. Only the word of the one taken for gone, over its own link,
is stronger. Whoever holds an address is itself the proof that no other run does.

Invariants: a suspicion for each suspect and for nobody else; a time of going for each member that is down or has left;
no two live members of one name but for the node's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import msgspec

from roost.core.gossip import Doubt, Entry, Health, Report
from roost.core.herald import Herald
from roost.core.suspicion import Suspicions
from roost.core.transitions import HEALTH_OF, OTHERS, OWN, TOLD, Trigger, standing_of
from roost.core.view import View, is_live, is_valid

__all__ = ["Roster", "RosterOwner"]

CHANGEABLE = frozenset({"address", "application", "resting", "roles", "services", "weight", "zone"})


class RosterOwner(Protocol):
    """What the roster tells the membership."""

    def changed(self, before: Entry | None, after: Entry, *, forgotten: bool) -> None: ...
    def came_alive(self, entry: Entry) -> None: ...
    def went(self, entry: Entry, *, forgotten: bool) -> None: ...
    def doubted(self, uid: int) -> None: ...
    def barred(self, entry: Entry) -> None: ...
    def accused(self) -> None: ...
    def fell(self, *, mutual: bool) -> Mapping[str, object]: ...


class Roster:
    """The view with all that hangs on its entries."""

    __slots__ = ("_fell", "_herald", "_live_since", "_owner", "_suspicion_seconds", "gone", "suspicions", "view")

    def __init__(
        self, view: View, herald: Herald, suspicions: Suspicions, owner: RosterOwner, *, suspicion_seconds: float
    ) -> None:
        self._herald = herald
        self._owner = owner
        self._suspicion_seconds = suspicion_seconds
        self.view = view
        self._live_since: dict[int, float] = {}
        self._fell = 0
        """The own incarnation when this node last heard that it is taken for down: older claims are the same fall."""
        self.suspicions = suspicions
        self.gone: dict[int, float] = {}
        """Since when each member is down or has left, earliest first."""

    # what others say

    def learn(self, entry: Entry, source: int, *, whole: bool, now: float, gone_seconds: float | None = None) -> None:
        """Take in an entry that `source` sent; `whole`: as a part of its whole view.

        `gone_seconds`: for so long the member has been down for `source`.
        """
        view = self.view
        if not is_valid(entry):
            return
        if entry.uid == view.me.uid:
            self._hear_of_me(entry, source, now)
            return
        known = view.entries.get(entry.uid)
        if not view.newer(entry):
            if known is None and source == entry.uid and (bar := view.barring(entry)) is not None:
                self._owner.barred(bar)
            return
        doubted = False
        if known is None:
            if not is_live(entry):
                self._learn_of_the_gone(entry, now, gone_seconds)
                return
        else:
            told = TOLD[standing_of(entry)]
            if told is Trigger.TOLD_DOWN and is_live(known):
                doubted = whole or not self._long_live(source, now)
            standing = OTHERS[standing_of(known)].get(Trigger.DOUBTED if doubted else told)
            if standing is None:
                return
            if doubted:
                entry = msgspec.structs.replace(entry, health=HEALTH_OF[standing])
        named = self._judge_name(entry, source, now) if is_live(entry) else entry
        if named is not None and view.newer(named):
            self._put(named, now)
        if doubted:
            self._owner.doubted(entry.uid)

    def _learn_of_the_gone(self, entry: Entry, now: float, gone_seconds: float | None) -> None:
        """A stranger is down or has left. Only a joiner enters it, if it is down, and forgets it with the others."""
        joiner = self.view.me.state == "joining" and entry.state != "left"
        if not joiner or gone_seconds is None or not 0 <= gone_seconds < math.inf:
            self.view.mark(entry)
            return
        self.view.put(entry)
        self.gone[entry.uid] = now - gone_seconds
        self.gone = dict(sorted(self.gone.items(), key=lambda one: one[1]))
        self._owner.went(entry, forgotten=False)
        self._tell(None, entry)

    def hear(self, report: Report) -> None:
        """Take in a report of what a member's view is."""
        if report.uid != self.view.me.uid and self.view.hear(report):
            self._herald.reports.add(report.uid)

    def hear_doubt(self, doubt: Doubt) -> None:
        """Take in who accuses a suspect: the more do, the sooner it is down."""
        if doubt.accuser in self.view.entries and self.suspicions.accuse(doubt):
            self._herald.entries.add(doubt.uid)

    def _long_live(self, uid: int, now: float) -> bool:
        """Whether the member has been live here for `suspicion_seconds`."""
        return now >= self._live_since.get(uid, now) + self._suspicion_seconds

    def _hear_of_me(self, entry: Entry, source: int, now: float) -> None:
        me = self.view.me
        same_run = (entry.name, entry.started) == (me.name, me.started)
        if not same_run or entry.state == "left":
            return
        accused = entry.incarnation == me.incarnation and entry.health != Health.ALIVE
        changes: Mapping[str, object] = {}
        if entry.health == Health.DOWN and self._fell < entry.incarnation <= me.incarnation:
            self._fell = me.incarnation
            changes = self._owner.fell(mutual=self._was_mutual(source, now))
        if accused:
            self._owner.accused()
        if accused or changes or entry.incarnation > me.incarnation:
            self.change_me(Trigger.ACCUSED, changes, above=entry.incarnation)

    def _was_mutual(self, accuser: int, now: float) -> bool:
        """Whether this was a split: the other side had been declared down here, too, and this one was not smaller."""
        if self._long_live(accuser, now):
            return False
        known = sum(entry.state != "left" for entry in self.view.entries.values())
        side = 1 + sum(self._long_live(uid, now) for uid in self._live_since)
        return 2 * side >= known

    def _judge_name(self, entry: Entry, source: int, now: float) -> Entry | None:
        """The entry as it may be entered beside the live runs of its name; None if it may not."""
        me = self.view.me
        for rival in self.view.named(entry.name):
            if rival.uid == entry.uid or not is_live(rival):
                continue
            newcomer = _age(entry) > _age(rival)
            gone = rival.address == entry.address
            if gone and newcomer and rival.uid != me.uid:
                self.conclude(rival.uid, Trigger.ADDRESS_TAKEN, now)
            elif gone and source != entry.uid:
                return self._without_address(entry)
            elif newcomer:
                if rival.uid != me.uid:
                    self._owner.doubted(rival.uid)
                return None
            elif rival.uid != me.uid:
                self.conclude(rival.uid, Trigger.NAME_LOST, now)
        return entry

    def _without_address(self, entry: Entry) -> Entry | None:
        """The entry of a run that another has followed at its address: down, or not worth entering."""
        standing = OTHERS[standing_of(entry)][Trigger.ADDRESS_TAKEN]
        entry = msgspec.structs.replace(entry, health=HEALTH_OF[standing])
        if entry.uid in self.view.entries:
            return entry
        self.view.mark(entry)
        return None

    def older_run(self) -> Entry | None:
        """The oldest live run of the own name that is older than this one."""
        me = self.view.me
        older = [one for one in self.view.named(me.name) if one.uid != me.uid and is_live(one) and _age(one) < _age(me)]
        return min(older, key=_age, default=None)

    # what this node concludes

    def conclude(self, uid: int, trigger: Trigger, now: float) -> bool:
        """Move a member as the table says; whether it was moved."""
        entry = self.view.entries[uid]
        standing = standing_of(entry)
        after = OTHERS[standing].get(trigger)
        if after is None or after == standing:
            return False
        if after == "forgotten":
            self._remove(uid, mark=trigger is Trigger.FORGOTTEN)
        else:
            self._put(msgspec.structs.replace(entry, health=HEALTH_OF[after]), now)
        return True

    def accuse(self, uid: int) -> None:
        """This node itself has found that a suspect does not answer."""
        self.hear_doubt(Doubt(uid, self.view.entries[uid].incarnation, self.view.me.uid))

    def move(self, seconds: float) -> None:
        """This node stood still for so long, and heard nobody."""
        self.suspicions.move(seconds)
        for uid in self._live_since:
            self._live_since[uid] += seconds

    # what this node is

    def change_me(self, trigger: Trigger, changes: Mapping[str, object] | None = None, *, above: int = 0) -> bool:
        """Change the own entry as the table says, with an incarnation also greater than `above`; whether it was."""
        me = self.view.me
        state = OWN[me.state].get(trigger)
        if state is None:
            return False
        changes = dict(changes or {})
        if not changes.keys() <= CHANGEABLE:
            raise ValueError(f"of the own entry only {', '.join(sorted(CHANGEABLE))} can be changed, not {changes}")
        after = msgspec.structs.replace(me, state=state, **changes)
        if after == me and trigger is Trigger.SELF_CHANGED:
            return False
        after = msgspec.structs.replace(after, incarnation=max(me.incarnation, above) + 1)
        if not is_valid(after):
            raise ValueError(f"an entry that every member would ignore: {after}")
        self.view.put(after)
        self._herald.entries.add(after.uid)
        self._tell(me, after)
        return True

    # the table

    def _put(self, entry: Entry, now: float) -> None:
        uid = entry.uid
        before = self.view.put(entry)
        self._herald.entries.add(uid)
        if standing_of(entry) != "suspect":
            self.suspicions.end(uid)
        elif before is None or before.order != entry.order:
            self.suspicions.begin(uid, entry.incarnation, now)
        if is_live(entry):
            self.gone.pop(uid, None)
            if before is None or not is_live(before):
                self._live_since[uid] = now
                self._owner.came_alive(entry)
        else:
            self.gone.setdefault(uid, now)
            self._live_since.pop(uid, None)
            self._owner.went(entry, forgotten=False)
        self._tell(before, entry)

    def _remove(self, uid: int, *, mark: bool) -> None:
        entry = self.view.remove(uid, mark=mark)
        self._herald.entries.drop(uid)
        self._herald.reports.drop(uid)
        self.suspicions.end(uid)
        self.gone.pop(uid, None)
        self._live_since.pop(uid, None)
        self._owner.went(entry, forgotten=True)
        self._owner.changed(entry, entry, forgotten=True)

    def _tell(self, before: Entry | None, after: Entry) -> None:
        if before is None or msgspec.structs.replace(before, incarnation=after.incarnation) != after:
            self._owner.changed(before, after, forgotten=False)

    def check(self) -> None:
        """Assert the invariants."""
        view = self.view
        view.check()
        others = [entry for entry in view.entries.values() if entry.uid != view.me.uid]
        suspects = [entry.uid for entry in others if standing_of(entry) == "suspect"]
        self.suspicions.check(suspects)
        assert sorted(self.gone) == sorted(entry.uid for entry in others if not is_live(entry))
        assert list(self.gone.values()) == sorted(self.gone.values())
        assert sorted(self._live_since) == sorted(view.live_others())
        live_names = [entry.name for entry in others if is_live(entry)]
        assert len(dict.fromkeys(live_names)) == len(live_names), "two live runs of one name"
        assert view.me.health == Health.ALIVE


def _age(entry: Entry) -> tuple[int, int]:
    """Of two runs of one name the one with the lesser age key began first; all nodes judge by it."""
    return (entry.started, entry.uid)
