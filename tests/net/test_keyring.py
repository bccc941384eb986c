"""Secrets: which ones are taken, which are refused with what to do, and that none is ever shown."""

from __future__ import annotations

import copy
import os
import random
import string
from pathlib import Path

import pytest

from roost.config import Settings
from roost.errors import ConfigError
from roost.net.keyring import Keyring, new_secret, weakness

FIRST = "Jq3vX0mZ8tUoYw1rKcBn5sLhDe7gAf2iPxTy6RbN9Mk"
SECOND = "b7c2f04d9ae81365f0b4c8d72e1a93567cd0e48fb1a2659d3e07f8c4ab915d26"


def write(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_without_a_secret_there_is_no_keyring() -> None:
    assert Keyring.from_settings(Settings()) is None


def test_a_secret_makes_a_keyring_of_one() -> None:
    keyring = Keyring.from_settings(Settings(secret=FIRST))
    assert keyring is not None and keyring.secrets == (FIRST.encode(),)


def test_a_file_may_hold_several_of_which_the_first_signs(tmp_path: Path) -> None:
    path = write(tmp_path / "s", f"# since May\n{SECOND}\n\n  {FIRST}  \r\n# the same again\n{SECOND}\n")
    keyring = Keyring.from_settings(Settings(secret_file=path))
    assert keyring is not None and keyring.secrets == (SECOND.encode(), FIRST.encode())


def test_a_secret_and_a_file_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="both are set"):
        Keyring.from_settings(Settings(secret=FIRST, secret_file=write(tmp_path / "s", FIRST)))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o610])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "s", FIRST, mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}") as caught:
        Keyring.from_settings(Settings(secret_file=path))
    assert FIRST not in str(caught.value)


def test_a_missing_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No such file.*roost secret new"):
        Keyring.from_settings(Settings(secret_file=str(tmp_path / "s")))


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
def test_a_file_without_a_secret_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"no secret in it.*roost secret new"):
        Keyring.from_settings(Settings(secret_file=write(tmp_path / "s", text)))


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "directory").mkdir(mode=0o700)
    for name in ("pipe", "directory"):
        with pytest.raises(ConfigError):
            Keyring.from_settings(Settings(secret_file=str(tmp_path / name)))


def test_a_file_that_is_no_text_or_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(b"\xff\xfe" * 40)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="no text"):
        Keyring.from_settings(Settings(secret_file=str(path)))
    with pytest.raises(ConfigError, match="longer than"):
        Keyring.from_settings(Settings(secret_file=write(tmp_path / "t", "x" * 100_000)))


@pytest.mark.parametrize(
    "secret",
    [
        "short",
        FIRST[:31],
        "a" * 64,
        "ab" * 32,
        "0123456789abcdef" * 2,
        "abcdefghijklmnopqrstuvwxyz0123456789",
        "change-me-change-me-change-me-please",
        "correct horse battery staple password",
        "this_is_a_Secret_of_enough_characters_9183",
        "000000000000000000000000000000000001",
        "1" * 20 + "2" * 20 + "3" * 20 + "4" * 20,
    ],
)
def test_what_could_be_guessed_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(ConfigError, match="roost secret new") as caught:
        Keyring(secret)
    assert secret not in str(caught.value)


def test_a_weak_secret_among_good_ones_is_named_by_its_number() -> None:
    with pytest.raises(ConfigError, match="secret 2 of 2"):
        Keyring(FIRST, "weak")


def test_new_secrets_are_good_and_differ() -> None:
    made = {new_secret() for _ in range(300)}
    assert len(made) == 300
    assert {weakness(secret) for secret in made} == {""}
    assert min(map(len, made)) == 43


def test_random_hexadecimal_secrets_are_not_taken_for_weak_ones() -> None:
    rng = random.Random(1)
    made = ["".join(rng.choices(string.hexdigits[:16], k=32)) for _ in range(2000)]
    assert sum(bool(weakness(secret)) for secret in made) == 0


def test_a_keyring_never_shows_its_secrets() -> None:
    keyring = Keyring(FIRST, SECOND)
    assert repr(keyring) == str(keyring) == f"{keyring}" == "<Keyring of 2>"
    with pytest.raises(TypeError):
        copy.deepcopy(keyring)


def test_a_keyring_follows_its_file(tmp_path: Path) -> None:
    path = write(tmp_path / "s", FIRST)
    keyring = Keyring.from_settings(Settings(secret_file=path))
    assert keyring is not None
    write(tmp_path / "s", f"{SECOND}\n{FIRST}\n")
    assert list(keyring.secrets) == [SECOND.encode(), FIRST.encode()]
    write(tmp_path / "new", SECOND)
    os.replace(tmp_path / "new", path)
    assert list(keyring.secrets) == [SECOND.encode()]


def test_a_keyring_keeps_its_secrets_while_its_file_is_unusable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "s", FIRST)
    keyring = Keyring.from_settings(Settings(secret_file=path))
    assert keyring is not None
    for text, mode in (("", 0o600), (SECOND, 0o644), (f"{SECOND}\nweak", 0o600)):
        write(tmp_path / "s", text, mode)
        assert keyring.secrets == keyring.secrets == (FIRST.encode(),)
    os.unlink(path)
    assert keyring.secrets == (FIRST.encode(),)
    assert len(caplog.records) == 4
    assert "chmod 600" in caplog.text and "No such file" in caplog.text
    assert SECOND not in caplog.text
    write(tmp_path / "s", SECOND)
    assert keyring.secrets == (SECOND.encode(),)


def test_more_secrets_than_a_rotation_needs_are_refused() -> None:
    with pytest.raises(ConfigError, match="at most 8"):
        Keyring(*(new_secret() for _ in range(9)))
    assert len(Keyring(*(new_secret() for _ in range(8))).secrets) == 8
