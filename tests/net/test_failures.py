"""Errors across the wire: what a peer says of an error is read or refused, whatever it says."""

from __future__ import annotations

import msgspec
import pytest

from roost.errors import ProtocolError
from roost.net.failures import from_failure
from roost.wire.protocol import Failure


@pytest.mark.parametrize(
    "detail",
    [
        b"",
        b"\xc1",
        b"\x81\xa4name\xa1\xff",
        b"\x81\xa1x" + b"\x91" * 100_000 + b"\xc0",
        b"\xdf\xff\xff\xff\xff",
        b"\x07",
    ],
    ids=["empty", "never-used", "no-text", "deep", "endless-map", "wrong-type"],
)
@pytest.mark.parametrize("kind", ["roost.NotFound", "roost.NotHere"])
def test_a_failure_whose_detail_cannot_be_read_is_a_protocol_error(kind: str, detail: bytes) -> None:
    error = from_failure(Failure(1, kind, "gone", False, msgspec.Raw(detail)), "ben")
    assert isinstance(error, ProtocolError)
    assert "ben sent a failure that cannot be read" in str(error) and error.may_have_run
