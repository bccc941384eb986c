"""The first 8 bytes: roost nodes know each other, and none gives way about TLS."""

from __future__ import annotations

import pytest

from roost.errors import AuthError, ProtocolError, VersionSkew
from roost.wire.preface import PREFACE_BYTES, check_preface, make_preface, may_be_preface


@pytest.mark.parametrize("tls", [True, False])
def test_two_ends_that_want_the_same_agree(tls: bool) -> None:
    assert len(make_preface(tls=tls)) == PREFACE_BYTES
    check_preface(make_preface(tls=tls), tls=tls)


@pytest.mark.parametrize("tls", [True, False])
def test_neither_end_gives_way_about_tls(tls: bool) -> None:
    with pytest.raises(AuthError, match="TLS is on at one end only"):
        check_preface(make_preface(tls=not tls), tls=tls)


WANTS = ({"tls": False}, {"tls": True}, {"tls": True, "certified": True})


@pytest.mark.parametrize("mine", WANTS)
@pytest.mark.parametrize("theirs", WANTS)
def test_ends_agree_only_if_they_want_the_same(mine: dict[str, bool], theirs: dict[str, bool]) -> None:
    greeting = make_preface(**theirs)
    if mine == theirs:
        check_preface(greeting, **mine)
        return
    with pytest.raises(AuthError, match="one end only"):
        check_preface(greeting, **mine)


def test_another_version_is_named() -> None:
    with pytest.raises(VersionSkew) as caught:
        check_preface(b"ROOST\0\x02T", tls=True)
    assert (caught.value.mine, caught.value.theirs) == ((1, 1), (2, 2))


@pytest.mark.parametrize(
    "data", [b"", b"ROOST\0\x01", b"GET / HT", b"ROOST\0\x01X", b"ROOST\0\x01TT", b"\x16\x03\x01\x02\x00\x01\x00\x01"]
)
def test_anything_else_is_a_stranger(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        check_preface(data, tls=True)


def test_a_stranger_is_known_by_its_first_wrong_byte() -> None:
    good = make_preface(tls=True)
    for size in range(PREFACE_BYTES + 1):
        assert may_be_preface(good[:size])
    assert not may_be_preface(b"G")
    assert not may_be_preface(b"\x16\x03")
    assert not may_be_preface(b"ROOSTER")
