"""`roost cert`: a CA and certificates that nodes take, and nothing overwritten or readable by others."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

import roost
from roost.config import Settings
from roost.net.certificates import Certificates
from roost.ops.cli import main


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    code = ended.value.code
    return code if isinstance(code, int) else 0


def contexts(name: str, files: str) -> Certificates:
    return Certificates(
        Settings(name=name, tls_ca_file="ca.pem", tls_cert_file=f"{files}.pem", tls_key_file=f"{files}.key")
    )


def test_what_is_issued_is_taken_by_a_node_of_that_name_and_no_other() -> None:
    assert run("cert", "ca") == 0
    assert run("cert", "issue", "ann") == 0
    assert run("cert", "issue", "10.0.0.5:7400") == 0
    assert run("cert", "issue", "[::1]:7400", "--also", "localhost") == 0
    contexts("ann", "ann")
    contexts("10.0.0.5:7400", "10.0.0.5")
    contexts("[::1]:7401", "::1")
    contexts("localhost:7401", "::1")
    with pytest.raises(roost.ConfigError, match="is for ann, not for ben"):
        contexts("ben", "ann")


def test_keys_are_for_their_owner_only_and_nothing_is_overwritten() -> None:
    assert run("cert", "ca") == 0
    assert run("cert", "issue", "ann") == 0
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    assert sorted(before) == ["ann.key", "ann.pem", "ca.key", "ca.pem"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in Path().iterdir()} == {0o600}
    assert run("cert", "ca") == 1
    assert run("cert", "issue", "ann") == 1
    Path("ann.pem").unlink()
    assert run("cert", "issue", "ann") == 1  # the key is still there, so no certificate of another is made
    del before["ann.pem"]
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == before


@pytest.mark.parametrize("name", ["a b", "../ann", "", "x" * 129, "a\nb"])
def test_what_no_node_can_be_called_is_refused(name: str) -> None:
    assert run("cert", "ca") == 0
    assert run("cert", "issue", name) == 1
    assert sorted(path.name for path in Path().iterdir()) == ["ca.key", "ca.pem"]


def test_a_ca_that_ends_before_the_certificate_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cert", "ca", "--days", "10") == 0
    assert run("cert", "issue", "ann", "--days", "11") == 1
    assert "fewer --days" in capsys.readouterr().err
    assert run("cert", "issue", "ann", "--days", "9") == 0


def test_a_ca_key_that_others_may_read_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cert", "issue", "ann") == 2
    assert "roost cert ca" in capsys.readouterr().err
    assert run("cert", "ca") == 0
    Path("ca.key").chmod(0o644)
    assert run("cert", "issue", "ann") == 2
    assert "chmod 600 ca.key" in capsys.readouterr().err


def test_a_node_cannot_sign_others_with_its_certificate() -> None:
    assert run("cert", "ca") == 0
    assert run("cert", "issue", "ann") == 0
    Path("stolen").mkdir()
    Path("ann.pem").rename("stolen/ca.pem")
    Path("ann.key").rename("stolen/ca.key")
    assert run("cert", "issue", "ben", "--ca", "stolen", "--days", "1") == 0
    Path("ben.pem").write_bytes(Path("ben.pem").read_bytes() + Path("stolen/ca.pem").read_bytes())
    with pytest.raises(roost.ConfigError, match="the other nodes would refuse it: invalid CA certificate"):
        contexts("ben", "ben")
