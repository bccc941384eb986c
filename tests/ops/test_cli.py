"""The command line: what it prints, where, and what it tells the shell."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from roost.config import PROFILES, Settings
from roost.errors import AuthError, ConfigError, DeadlineExceeded, NotFound, RoostError, Unreachable
from roost.net.keyring import Keyring, new_secret
from roost.ops.cli import main
from roost.ops.cli._output import complain, exit_code_of
from roost.version import VERSION


@pytest.fixture(autouse=True)
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test starts in an empty directory, without ROOST_ variables."""
    monkeypatch.chdir(tmp_path)
    for variable in list(os.environ):
        if variable.startswith("ROOST_"):
            monkeypatch.delenv(variable)


def run(*arguments: str) -> int:
    """Run a command in this process; its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    code = ended.value.code
    return code if isinstance(code, int) else 0


def test_the_installed_command_says_its_version() -> None:
    command = Path(sys.executable).parent / "roost"
    done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"roost {VERSION}\n", "")


@pytest.mark.parametrize(
    "arguments", [["bogus"], ["config"], ["config", "show", "--bogus"], ["secret", "new", "x"], []]
)
def test_a_wrong_command_line_is_wrong_usage(arguments: list[str]) -> None:
    assert run(*arguments) == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RoostError("no"), 1),
        (AuthError("no"), 1),
        (NotFound("no"), 1),
        (ConfigError("no"), 2),
        (Unreachable("no"), 3),
        (DeadlineExceeded("no"), 3),
    ],
)
def test_errors_have_exit_codes(error: RoostError, code: int) -> None:
    assert exit_code_of(error) == code


def test_a_complaint_is_one_line_that_no_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    complain(RoostError("first\nsecond \x1b[2J\x07 \u202e end"))
    assert capsys.readouterr().err == "roost: first second  [2J    end\n"


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    assert run("config", "show", "--json") == 0
    table: dict[str, dict[str, object]] = json.loads(capsys.readouterr().out)
    return table


def test_config_show_has_every_setting_and_where_it_came_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("roost.toml").write_text('# mine\nzone = "north"\n')
    monkeypatch.setenv("ROOST_SEEDS", "127.0.0.1:1, 127.0.0.1:2")
    table = shown(capsys)
    assert list(table) == list(Settings.__struct_fields__)
    assert table["zone"] == {"value": "north", "source": "roost.toml:2"}
    assert table["seeds"] == {"value": ["127.0.0.1:1", "127.0.0.1:2"], "source": "ROOST_SEEDS"}
    assert table["cluster"] == {"value": "roost", "source": "default"}


def test_config_show_gives_the_timings_of_the_profile(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOST_PROFILE", "wan")
    monkeypatch.setenv("ROOST_PROBE_SECONDS", "9")
    table = shown(capsys)
    assert table["probe_seconds"] == {"value": 9.0, "source": "ROOST_PROBE_SECONDS"}
    assert table["suspicion_seconds"] == {"value": PROFILES["wan"].suspicion_seconds, "source": "profile wan"}


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_config_show_hides_the_secret(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    secret = new_secret()
    monkeypatch.setenv("ROOST_SECRET", secret)
    assert run("config", "show", *options) == 0
    out = capsys.readouterr().out
    assert secret not in out
    assert "ROOST_SECRET" in out


def test_what_config_show_prints_is_itself_a_roost_toml(capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.toml").write_text('zone = "north"\nweight = 2\nroles = ["x", "y"]\n')
    assert run("config", "show", "--config", "other.toml") == 0
    first = capsys.readouterr().out
    Path("roost.toml").write_text(first)
    assert tomllib.loads(first)["roles"] == ["x", "y"]
    assert run("config", "show") == 0
    again = capsys.readouterr().out
    assert tomllib.loads(again) == tomllib.loads(first)


def test_a_wrong_setting_is_one_line_and_wrong_usage(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOST_SEDS", "127.0.0.1:1")
    assert run("config", "show") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "ROOST_SEDS" in err
    assert "ROOST_SEEDS" in err


def test_a_new_secret_is_printed_and_serves_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    made = []
    for _ in range(2):
        assert run("secret", "new") == 0
        made.append(capsys.readouterr().out.strip())
    assert made[0] != made[1]
    for secret in made:
        assert len(secret) == 43  # 256 bits, 6 a character
        assert Keyring(secret).secrets == (secret.encode(),)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o377])
def test_a_new_secret_is_written_for_its_owner_alone(capsys: pytest.CaptureFixture[str], umask: int) -> None:
    before = os.umask(umask)
    try:
        assert run("secret", "new", "--out", "key") == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat("key").st_mode) == 0o600
    keyring = Keyring.from_settings(Settings(secret_file="key"))
    assert keyring is not None
    assert keyring.secrets[0].decode() not in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_a_new_secret_overwrites_nothing(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    if kind == "file":
        Path("key").write_text("precious")
    else:
        Path("key").symlink_to("elsewhere")
    assert run("secret", "new", "--out", "key") == 1
    assert capsys.readouterr().err.startswith("roost: key exists already")
    assert not Path("elsewhere").exists()
    if kind == "file":
        assert Path("key").read_text() == "precious"


def test_a_secret_that_cannot_be_written_is_said_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("secret", "new", "--out", "no/such/directory/key") == 1
    assert capsys.readouterr().err == "roost: no/such/directory/key cannot be made: No such file or directory\n"
