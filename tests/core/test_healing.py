"""Strays, rights that do not know of each other, repair in the background, and what is collected."""

from __future__ import annotations

from typing import Any

from roost.core.healing import Audit, Digest, Free, Inquiry, Kept, Leftover, Table, Unkept
from roost.core.rights import Heard, Rights, Ticked, Viewed
from roost.core.tenure import Effect, Handed, Held, Right, Role, Send, Slot
from roost.core.transfer import Accepted, Withdrawn
from tests.core.explorer import Small, met, small


def slot_of(world: Small, uid: int) -> Slot:
    return world.nodes[uid].slots[0]


def sent(effects: list[Effect], kind: type) -> list[Any]:
    return [one.message for one in effects if isinstance(one, Send) and isinstance(one.message, kind)]


def with_strays(count: int = 5, **options: Any) -> Small:
    """3 has items that the holder, 1, does not know."""
    world = small(3, replicas=2, **options)
    items = world.own(3).slots[0].items
    for number in range(count):
        items.write([(b"\xa5stray%d" % number, b"y" * 50)], 1, 3)
    return world


def test_items_that_the_holder_may_not_know_are_handed_to_it_chunk_by_chunk() -> None:
    world = with_strays(chunk_bytes=100)
    world.look(3)
    assert slot_of(world, 3).strays is not None
    chunks = 0
    while world.busy():
        chunks += world.busy()[0] == (3, 1)
        world.deliver(*world.busy()[0])
    assert chunks > 3
    assert slot_of(world, 3).strays is None
    assert len(slot_of(world, 1).items) == 7
    world.rest()


def test_strays_are_forgotten_once_enough_copies_have_them_and_not_before() -> None:
    world = with_strays()
    world.look(3)
    while not any(isinstance(message, Leftover) and message.last for message in world.wires.get((3, 1), ())):
        world.deliver(*world.busy()[0])
    world.deliver(3, 1)
    assert len(slot_of(world, 1).items) == 7
    assert not world.under_way(Kept), "only the holder has them"
    world.deliver(1, 2)
    world.deliver(2, 1)
    assert world.under_way(Kept)
    world.rest()
    assert slot_of(world, 3).strays is None


def test_what_is_lost_of_a_handing_over_is_sent_again() -> None:
    world = with_strays()
    world.look(3)
    world.wires = {}
    world.tick(1.1)
    assert world.under_way(Leftover)
    world.deliver(3, 1)
    world.wires = {}
    world.rest()
    assert len(slot_of(world, 1).items) == 7


def test_who_is_not_the_holder_says_so_and_another_is_looked_for() -> None:
    world = with_strays()
    world.look(3)
    (offered,) = world.wires.pop((3, 1))
    (unkept,) = sent(world.own(2).step(Heard(3, offered), 0.0), Unkept)
    assert unkept.right == Right(1, 1, (1, 2), unkept.right.revision)
    world.step(3, Heard(1, Unkept(0, offered.move, Right(1, 1, (1, 2)))))
    assert slot_of(world, 3).handing is None
    assert slot_of(world, 3).strays is not None
    world.rest()


def test_strays_that_come_while_others_are_handed_over_go_too() -> None:
    world = small(2, replicas=2, items=20, chunk_bytes=120)
    slot = world.own(2).slots[0]
    slot.incoming = None
    slot.lineage = slot.known = (0, 0)
    slot.items.write([(b"\xa5one", b"y")], 1, 2)
    world.put(1)
    world.until(Accepted)
    strays = world.own(2).slots[0]
    strays.strays = type(strays.items)()
    strays.strays.write([(b"\xa5two", b"y")], 1, 2)
    strays.retry_at = 0.0
    world.step(2, Heard(1, Held(0, Right(1, 1, (1, 2), 9))))
    world.rest()
    assert {b"\xa5one", b"\xa5two"} <= set(slot_of(world, 1).items.items)


def test_strays_turn_out_to_be_known_while_they_are_handed_over() -> None:
    world = met(replicas=2)
    for _ in range(3):
        for uid in list(world.blind):
            world.look(uid)
        world.quiet()
        world.tick()
    world.rest()


def test_of_two_holders_that_meet_the_lower_gives_way_and_both_have_everything_in_the_end() -> None:
    world = met(replicas=2)
    keys = {key for node in world.nodes.values() for key in node.slots[0].items.items}
    assert len(world.executing(0)) == 2
    world.rest()
    assert set(slot_of(world, 1).items.items) == set(slot_of(world, 2).items.items) == keys


def test_a_higher_right_is_not_shaken_by_a_lower() -> None:
    world = small(2, replicas=1)
    world.own(1).step(Heard(2, Held(0, Right(1, 0, (2,)))), 0.0)
    assert slot_of(world, 1).role is Role.HOLDING


def test_a_host_that_has_just_appeared_is_told_what_is_held() -> None:
    node = Rights(1, 2)
    node.step(Viewed((1,), (), (1,), ((1,), (1,)), True), 0.0)
    (table,) = sent(node.step(Viewed((1, 2), (), (1, 2), ((1,), (1,)), True), 1.0), Table)
    assert table.rights == [(0, Right(1, 1, (1,))), (1, Right(1, 1, (1,)))]


def test_rights_that_got_lost_are_found_by_the_digests_that_are_shown_in_turn() -> None:
    world = small(3, replicas=1)
    shown = [
        one.uid
        for number in range(1, 5)
        for one in world.own(1).step(Ticked(), 3.0 * number)
        if isinstance(one, Send) and isinstance(one.message, Digest)
    ]
    assert shown in ([2, 3, 2, 3], [3, 2, 3, 2])
    other = Rights(2, 1)
    other.step(Viewed((1, 2), (), (1, 2), ((1,),), False), 0.0)
    (table,) = sent(other.step(Heard(1, Digest(world.nodes[1].book.digest)), 0.1), Table)
    (better,) = sent(world.own(1).step(Heard(2, table), 0.1), Table)
    other.step(Heard(1, better), 0.2)
    assert other.slots[0].right.tenure == (1, 1)
    assert sent(other.step(Heard(1, Digest(world.nodes[1].book.digest)), 0.1), Table) == []


def test_a_copy_that_rotted_is_found_and_repaired() -> None:
    world = small(2, replicas=2, items=9)
    world.own(2).slots[0].items.take([b"\xa500003"])
    for _ in range(6):
        world.tick()
        world.quiet()
    assert len(slot_of(world, 2).items) == 9
    assert world.nodes[1].book.repairs == 1


def test_a_copy_that_is_not_fed_any_more_is_told() -> None:
    world = small(3, replicas=2)
    (told,) = sent(world.own(1).step(Heard(3, Audit([(0, 7, 3, 0)])), 0.0), Withdrawn)
    assert told.feed == 7
    assert not told.forget


def test_who_waits_for_a_holder_asks_and_takes_over_if_it_has_let_go() -> None:
    node = Rights(2, 1)
    node.step(Viewed((1, 2), (), (1, 2), ((2,),), True), 0.0)
    node.step(Heard(1, Held(0, Right(3, 1, (1,)))), 0.1)
    assert node.slots[0].role is Role.AWAITING
    assert sent(node.step(Ticked(), 3.0), Inquiry)
    node.step(Heard(1, Free(0, Right(3, 1, (1,)))), 3.1)
    node.step(Ticked(), 6.0)
    assert node.count(Role.CLAIMING) == 1


def test_an_inquiry_is_answered_by_who_holds_it_or_held_it_last() -> None:
    world = small(2, replicas=2)
    assert sent(world.own(1).step(Heard(2, Inquiry(0)), 0.0), Held)
    assert sent(world.own(2).step(Heard(1, Inquiry(0)), 0.0), Held)
    world.crash(1)
    world.look(2)
    node = Rights(3, 1)
    node.slots[0].right = Right(1, 3, (3,))
    assert sent(node.step(Heard(2, Inquiry(0)), 0.0), Free)


def test_what_a_claimer_was_shown_that_is_not_heard_of_any_more_goes_to_the_holder() -> None:
    world = with_strays()
    slot = world.own(3).slots[0]
    slot.promised = slot.known = (5, 2)  # and 2 has given it up, but that got lost
    world.look(3)
    assert slot.items
    world.rest()
    assert len(slot_of(world, 1).items) == 7


def test_handing_over_is_counted() -> None:
    world = with_strays()
    effects: list[Effect] = []
    node = world.own(3)
    step = node.step

    def noted(event: Any, now: float) -> list[Effect]:
        effects.extend(done := step(event, now))
        return done

    node.step = noted  # type: ignore[method-assign]
    world.look(3)
    world.rest()
    assert [(one.target, one.items) for one in effects if isinstance(one, Handed)] == [(1, 5)]


def tombstones(world: Small) -> list[int]:
    return [sum(item.value is None for item in node.slots[0].items.items.values()) for node in world.nodes.values()]


def test_old_tombstones_go_from_all_copies_and_what_is_older_does_not_come_back() -> None:
    world = small(3, replicas=2)
    world.put(1, 0, b"\xa500001", None)
    world.quiet()
    assert tombstones(world) == [1, 1, 0]
    world.collect()
    world.collect()
    world.quiet()
    assert tombstones(world) == [0, 0, 0]
    world.own(3).slots[0].items.write([(b"\xa500001", b"old")], 1, 3)
    world.look(3)
    world.quiet()
    assert slot_of(world, 1).items.get(b"\xa500001") is None
    assert slot_of(world, 1).items.set_aside == 1
    world.rest()


def test_tombstones_wait_for_every_copy_on_record() -> None:
    world = small(3, replicas=3)
    world.own(1).slots[0].retry_at = world.now + 5.0
    feed = world.nodes[1].slots[0].feeds[3].number
    world.step(1, Heard(3, Audit([])))
    world.own(1).book.end_feed(world.own(1).slots[0], 3)
    assert feed
    world.put(1, 0, b"\xa500001", None)
    for pair in ((1, 2), (2, 1)):
        world.deliver(*pair)
    world.collect()
    world.collect()
    assert tombstones(world)[0] == 1, "3 is on record, has the item, and does not know that it is gone"
