"""What must be true of a simulated life: at any moment, and in the end, when it is healed, settled and quiet."""

from __future__ import annotations

import roost
from roost.core.cutover import DECISIONS_KEPT
from roost.core.items import OUTCOME
from roost.core.tenure import EXECUTING, Slot
from roost.core.transfer import is_idle
from roost.services.hosting import Hosting
from roost.services.routing import Router

__all__ = ["hostings", "losses", "nothing_to_collect", "one_executes", "only_under_own_right", "rested", "uncollected"]


def hostings(nodes: list[roost.Node]) -> list[tuple[roost.Node, str, Hosting]]:
    """Every service that a running node hosts."""
    found = []
    for node in nodes:
        for name, service in node._services.items():
            hosting = service._service.hosting
            if hosting is not None:
                found.append((node, name, hosting))
    return found


def losses(nodes: list[roost.Node]) -> set[tuple[str, int]]:
    """(service, partition) of all possible losses that these nodes have reported."""
    return {(name, partition) for _, name, hosting in hostings(nodes) for partition in hosting.losses.partitions}


def only_under_own_right(nodes: list[roost.Node]) -> None:
    """Nobody executes under another's right."""
    for node, _, hosting in hostings(nodes):
        for slot in hosting.rights.slots:
            assert not slot.executes or slot.right.holder == node.uid, f"{node.name} executes under another's right"


def one_executes(nodes: list[roost.Node]) -> None:
    """At any time at most one node executes a partition, whatever its epoch."""
    holders: dict[tuple[str, int], str] = {}
    for node, service, hosting in hostings(nodes):
        for slot in hosting.rights.slots:
            if slot.executes:
                other = holders.setdefault((service, slot.partition), node.name)
                assert other == node.name, f"{other} and {node.name} both execute {slot.partition} of {service}"


def rested(nodes: list[roost.Node]) -> None:
    """Each partition is held by its primary alone, its copies are the ring's and equal, and nothing is left over."""
    for service in sorted({name for _, name, _ in hostings(nodes)}):
        those = [(node, hosting) for node, name, hosting in hostings(nodes) if name == service]
        for partition in range(len(those[0][1].rights.slots)):
            slots = {node.uid: hosting.rights.slots[partition] for node, hosting in those}
            names = {node.uid: node.name for node, _ in those}
            owners = {hosting.placement.view.owners[partition] for _, hosting in those}
            assert len(owners) == 1, f"{service} {partition} has different owners on different nodes"
            _rested(f"{service} {partition}", slots, names, owners.pop())
        for node, hosting in those:
            _bounded(f"{service} on {node.name}", hosting)
    for node in nodes:
        for name, service_ in node._services.items():
            _routes_rest(f"{name} on {node.name}", service_._service.router)


def _rested(what: str, slots: dict[int, Slot], names: dict[int, str], owners: tuple[int, ...]) -> None:
    holders = [uid for uid, slot in slots.items() if slot.role in EXECUTING]
    assert holders == [owners[0]], f"{what} is held by {[names[uid] for uid in holders]}, not by {names[owners[0]]}"
    holder = slots[owners[0]]
    assert set(holder.right.copies) == set(owners), f"{what} has other copies than the ring wants"
    assert holder.acked == holder.written, f"{what}: {holder.acked} of {holder.written} writes are acknowledged"
    assert set(holder.feeds) == set(owners[1:]), f"{what} feeds others than its copies"
    assert all(is_idle(holder, feed) for feed in holder.feeds.values()), f"{what} is still being copied"
    assert not holder.thanks and holder.pending is None and not holder.short and not holder.paused, what
    for uid, slot in slots.items():
        where = f"{what} on {names[uid]}"
        assert slot.strays is None and slot.handing is None and slot.cut is None and slot.claim is None, where
        assert len(slot.decided) <= DECISIONS_KEPT, where
        if uid in owners:
            assert slot.right == holder.right, f"{where} has another record than its holder"
            assert slot.items.digest == holder.items.digest, f"{where} differs from its holder's"
            assert len(slot.items) == len(holder.items) and slot.items.live == holder.items.live, where
        else:
            assert not slot.items, f"{where} is kept for nobody"
        slot.items.check()


def _bounded(where: str, hosting: Hosting) -> None:
    book = hosting.rights.book
    hosting.rights.check()
    assert not book.waiting and not book.reserved and not book.touched, f"{where} is not at rest"
    assert not hosting._dispatch._outbox and not hosting._written and not hosting._events, (
        f"{where} has something to say"
    )
    for lane in hosting.lanes:
        assert not lane.busy and not lane.queue and not lane.unanswered and not lane.draining, f"{where} waits"


def _routes_rest(where: str, router: Router) -> None:
    assert router._waiting_count == 0 and not router._turning, f"{where} has commands without a route"
    for route in router._routes.values():
        assert not route.under_way and not route.waiting and not route.turning, f"{where} has commands under way"
    assert len(router._routes) <= router.host.settings.partitions, where


def uncollected(nodes: list[roost.Node]) -> int:
    """Tombstones and outcomes of requests, on all copies."""
    items = (
        item for _, _, hosting in hostings(nodes) for slot in hosting.rights.slots for item in slot.items.items.values()
    )
    return sum(item.value is None or item.key[0] == OUTCOME for item in items)


def nothing_to_collect(nodes: list[roost.Node]) -> None:
    """Long after: what was removed leaves nothing behind, and no outcome of a request is kept."""
    assert not uncollected(nodes), f"{uncollected(nodes)} tombstones and outcomes are kept for nobody"
