"""Certificates: made new at each start, never on disk, TLS 1.3 and nothing below."""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path

import pytest

from roost.net.tls import TlsContexts, binding_of, make_contexts


def join(client: ssl.SSLContext, server: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """A TLS session between two contexts, in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server)
    other = server.wrap_bio(to_server, to_client, server_side=True)
    pending = [one, other, one, other]
    for end in pending:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return one, other


def test_both_ends_bind_to_the_servers_certificate() -> None:
    ours, theirs = make_contexts(), make_contexts()
    client, server = join(ours.client, theirs.server)
    assert binding_of(client) == theirs.binding != ours.binding
    assert len(theirs.binding) == 32
    assert client.version() == server.version() == "TLSv1.3"


def test_each_start_has_a_certificate_of_its_own() -> None:
    assert len({make_contexts().binding for _ in range(5)}) == 5


@pytest.mark.parametrize("end", ["client", "server"])
def test_nothing_below_tls_13_is_spoken(end: str) -> None:
    contexts = make_contexts()
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if end == "server" else ssl.PROTOCOL_TLS_SERVER)
    if end == "server":
        old.check_hostname = False
        old.verify_mode = ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        join(contexts.client, old) if end == "client" else join(old, contexts.server)


def test_no_file_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert isinstance(make_contexts(), TlsContexts)
    assert list(tmp_path.rglob("*")) == []


def test_the_key_is_never_readable_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen: list[bytes] = []
    modes: list[int] = []
    write_bytes = Path.write_bytes

    def spy(path: Path, data: bytes) -> int:
        modes.extend(each.stat().st_mode & 0o777 for each in (path, path.parent))
        seen.append(data)
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", spy)
    make_contexts()
    assert modes == [0o600, 0o700]
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in seen[0] and b"BEGIN PRIVATE KEY" not in seen[0]
