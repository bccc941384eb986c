"""Names in certificates: who may call himself what, where certificates decide."""

from __future__ import annotations

import pytest

from roost.errors import AuthError, RoostError
from roost.wire.handshake import Handshake, is_named
from tests.wire.handshake_ends import End, ends, talk


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("ann", ["ben", "ann"]),
        ("ann", ["ANN"]),
        ("ann:7400", ["ann"]),
        ("ann:7400", ["ann:7400"]),
        ("10.0.0.5:7400", ["10.0.0.5"]),
        ("[2001:db8::5]:7400", ["2001:db8::5"]),
        ("[2001:DB8:0::5]:7400", ["2001:db8::5"]),
    ],
)
def test_a_name_is_good_if_the_certificate_has_it_or_its_host(name: str, names: list[str]) -> None:
    assert is_named(name, names)


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("ann", []),
        ("ann", [""]),
        ("ann", ["annex", "an", "x.ann", "*"]),
        ("ann.example.org", ["*.example.org", "example.org"]),
        ("ann", ["ann:7400"]),
        ("ann:x", ["ann"]),
        (":7400", [""]),
        ("10.0.0.5:7400", ["10.0.0.50", "10.0.0"]),
    ],
)
def test_no_other_name_is_good(name: str, names: list[str]) -> None:
    assert not is_named(name, names)


def meet(second: End, names: tuple[str, ...], *, initiates: bool) -> tuple[Handshake, Handshake, dict[str, RoostError]]:
    """`second`, whose certificate is for `names`, with ann, who looks at it."""
    first, _ = ends()
    first.secrets = second.secrets
    ann, other = first.machine(initiator=not initiates), second.machine(initiator=initiates)
    ann._certified = names
    errors = talk(other, ann) if initiates else talk(ann, other)
    return ann, other, errors


@pytest.mark.parametrize("secrets", [(), (b"s" * 40,)], ids=["certificates", "and-secret"])
@pytest.mark.parametrize("initiates", [True, False])
def test_a_peer_goes_by_the_name_in_its_certificate(initiates: bool, secrets: tuple[bytes, ...]) -> None:
    ann, _, errors = meet(End("ben", 2, secrets=secrets), ("ben",), initiates=initiates)
    assert ann.done and errors == {}
    ann, _, errors = meet(End("ben", 2, secrets=secrets), ("carl", "dora\x1b[2J"), initiates=initiates)
    assert not ann.done
    assert isinstance(errors["ann"], AuthError)
    assert "ben came with a certificate for carl, dora?[2J: issue one for ben" in str(errors["ann"])


@pytest.mark.parametrize(
    ("role", "name", "gets_in"),
    [("client", "client-5", True), ("client", "ann2", False), ("member", "client-5", False)],
)
def test_a_client_is_nobody_or_who_its_certificate_says(role: str, name: str, gets_in: bool) -> None:
    ann, _, _ = meet(End(name, 2, role=role), ("laptop",), initiates=True)
    assert ann.done is gets_in
