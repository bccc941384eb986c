"""The handshake: who gets in, who does not, and what each end is told."""

from __future__ import annotations

import pytest

from roost.errors import AuthError, ConfigError, VersionSkew
from roost.wire.handshake import SelfConnection
from tests.wire.handshake_ends import NEW, OLD, ends, facts, record, refused_by_both, shake


@pytest.mark.parametrize("secrets", [(), (OLD,), (NEW, OLD)])
def test_two_ends_with_the_same_secrets_or_none_meet(secrets: tuple[bytes, ...]) -> None:
    first, second = ends(secrets=secrets)
    first.secrets = secrets
    initiator, acceptor, errors = shake(first, second)
    assert errors == {}
    assert initiator.done and acceptor.done
    assert initiator.peer == acceptor.me and acceptor.peer == initiator.me
    assert initiator.version == acceptor.version == 1


def test_the_highest_version_in_common_is_spoken() -> None:
    first, second = ends(facts=facts(protocol=(2, 4)))
    first.facts = facts(protocol=(1, 3))
    initiator, acceptor, _ = shake(first, second)
    assert initiator.version == acceptor.version == 3


def test_versions_without_overlap_are_named_to_both_ends() -> None:
    first, second = ends(facts=facts(protocol=(3, 4)))
    initiator, acceptor, errors = shake(first, second)
    mine, theirs = errors["ann"], errors["ben"]
    assert isinstance(mine, VersionSkew) and isinstance(theirs, VersionSkew)
    assert mine.mine == (1, 1)
    assert (theirs.mine, theirs.theirs) == ((3, 4), (1, 1))
    assert "upgrade" in str(mine) and "upgrade" in str(theirs)
    assert not initiator.done and not acceptor.done


def test_the_initiator_names_versions_without_overlap_by_itself() -> None:
    first, second = ends()
    _, challenge, _, _ = record(first, second)
    first.facts = facts(protocol=(2, 2))
    initiator = first.machine(initiator=True)
    initiator.start()
    with pytest.raises(VersionSkew) as caught:
        initiator.receive(challenge)
    assert (caught.value.mine, caught.value.theirs) == ((2, 2), (1, 1))


def test_different_secrets_are_refused() -> None:
    for told in refused_by_both(*ends(secrets=(NEW,)), AuthError):
        assert "the secrets differ" in told


def test_a_secret_on_the_accepting_end_only_is_refused() -> None:
    first, second = ends()
    first.secrets = ()
    for told in refused_by_both(first, second, AuthError):
        assert "this cluster has a secret, and none was given" in told


def test_a_secret_on_the_connecting_end_only_is_refused() -> None:
    for told in refused_by_both(*ends(secrets=()), AuthError):
        assert "a secret was given, and the other end has none" in told


@pytest.mark.parametrize("secrets", [(), (OLD,)])
@pytest.mark.parametrize(
    ("what", "mine", "theirs"), [("cluster", "prod", "test"), ("partitions", 64, 128), ("placement_seed", 7, 8)]
)
def test_what_must_be_equal_is_named_with_both_values(
    secrets: tuple[bytes, ...], what: str, mine: object, theirs: object
) -> None:
    first, second = ends(secrets=secrets, facts=facts(**{what: theirs}))
    first.secrets = secrets
    for told in refused_by_both(first, second, ConfigError):
        assert what in told and repr(mine) in told and repr(theirs) in told


def test_a_stranger_does_not_learn_which_facts_differ() -> None:
    first, second = ends(secrets=(NEW,), facts=facts(cluster="test"))
    for told in refused_by_both(first, second, AuthError):
        assert "test" not in told and "prod" not in told


@pytest.mark.parametrize("ahead_milliseconds", [-6_000, 6_000])
def test_a_clock_far_from_the_others_is_refused(ahead_milliseconds: int) -> None:
    first, second = ends(facts=facts(wall_milliseconds=1_000_000 + ahead_milliseconds))
    late, early = ("ann", "ben") if ahead_milliseconds > 0 else ("ben", "ann")
    for told in refused_by_both(first, second, ConfigError):
        assert f"the clock of {early} is 6.0 s ahead of that of {late}" in told


def test_a_clock_within_its_limit_is_accepted() -> None:
    initiator, _, errors = shake(*ends(facts=facts(wall_milliseconds=1_004_900)))
    assert initiator.done and errors == {}


def test_the_initiator_checks_the_facts_of_a_proven_acceptor_too() -> None:
    first, second = ends(facts=facts(wall_milliseconds=1_004_000))
    initiator = first.machine(initiator=True)
    acceptor = second.machine(initiator=False)
    initiator._clock_ahead_max_seconds = 1.0
    (challenge,) = acceptor.receive(initiator.start()[0])
    (welcome,) = acceptor.receive(initiator.receive(challenge)[0])
    with pytest.raises(ConfigError, match=r"clock of ben is 4\.0 s ahead"):
        initiator.receive(welcome)
    assert not initiator.done


CLIENT_ODDITIES = {"partitions": 128, "placement_seed": 8, "wall_milliseconds": 10**15}


@pytest.mark.parametrize("secrets", [(), (OLD,)])
@pytest.mark.parametrize("initiates", [True, False])
def test_a_client_places_and_stamps_nothing_and_so_may_differ_in_what_only_that_needs(
    secrets: tuple[bytes, ...], initiates: bool
) -> None:
    first, second = ends(secrets=secrets, role="client", facts=facts(**CLIENT_ODDITIES))
    first.secrets = secrets
    initiator, acceptor, errors = shake(second, first) if initiates else shake(first, second)
    assert errors == {}
    assert initiator.done and acceptor.done
    assert "client" in [end.peer.role for end in (initiator, acceptor) if end.peer is not None]


@pytest.mark.parametrize("secrets", [(), (OLD,)])
def test_a_client_of_another_cluster_is_refused(secrets: tuple[bytes, ...]) -> None:
    first, second = ends(secrets=secrets, role="client", facts=facts(cluster="test", **CLIENT_ODDITIES))
    first.secrets = secrets
    for told in refused_by_both(second, first, ConfigError):
        assert "cluster" in told and "'test'" in told and "'prod'" in told


def test_a_client_without_a_version_in_common_is_refused() -> None:
    first, second = ends(role="client", facts=facts(protocol=(3, 4)))
    refused_by_both(second, first, VersionSkew)


def test_a_client_without_the_secret_is_refused() -> None:
    first, second = ends(role="client", secrets=(NEW,))
    refused_by_both(second, first, AuthError)


def test_a_node_that_reaches_itself_is_told_so() -> None:
    first, second = ends(uid=1)
    told, _ = refused_by_both(first, second, SelfConnection)
    assert "leads back to ben itself" in told


def test_keys_rotate_without_a_pause() -> None:
    for first_keys in ((OLD, NEW), (NEW, OLD)):
        for second_keys in ((OLD, NEW), (NEW, OLD), (first_keys[0],)):
            first, second = ends(secrets=second_keys)
            first.secrets = first_keys
            initiator, acceptor, errors = shake(first, second)
            assert errors == {} and initiator.done and acceptor.done


def test_a_removed_key_no_longer_opens() -> None:
    first, second = ends(secrets=(NEW,))
    first.secrets = (OLD, NEW)
    refused_by_both(first, second, AuthError)


def test_no_secret_is_in_anything_that_is_sent_or_shown() -> None:
    first, second = ends()
    frames = record(first, second)
    initiator = first.machine(initiator=True)
    assert OLD not in b"".join(frames)
    assert OLD.decode() not in repr(initiator)
