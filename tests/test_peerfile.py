"""Peer files: every layout that is one is read, and what is wrong is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

import roost
from roost.peerfile import read_peers

SECRET = "k3Jd8sLq0vXz7RtY5uWn2bHc9pGf4mTa1eQxVoZi"
ONE, TWO = '{"Pid": 1, "Addr": "127.0.0.1:7401"}', '{"Addr": "127.0.0.1:7402", "Pid": 22}'


def written(folder: Path, text: str) -> str:
    path = folder / "conf.json"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    "text",
    [
        f"{ONE}\n{TWO}\n",
        f"{ONE}{TWO}",
        f"[{ONE},{TWO}]",
        f"\n  [\n {ONE} ,\n\n {TWO}\n]\n\n",
        "\ufeff" + ONE.replace(",", ",\n") + "\r\n" + TWO,
    ],
    ids=["lines", "no-space", "array", "wide-array", "byte-order-mark"],
)
def test_objects_one_after_the_other_and_in_an_array_are_read(tmp_path: Path, text: str) -> None:
    own, others = read_peers(written(tmp_path, text), 22)
    assert (own.pid, own.address) == (22, "127.0.0.1:7402")
    assert [(other.pid, other.address) for other in others] == [(1, "127.0.0.1:7401")]


def test_a_pid_that_is_missing_is_an_error_with_the_file_and_the_pids_it_has(tmp_path: Path) -> None:
    path = written(tmp_path, f"{ONE}\n{TWO}\n")
    with pytest.raises(roost.ConfigError, match=r"conf\.json: there is no pid 3; it has: 1, 22"):
        roost.Node.from_peer_file(path, pid=3)
    with pytest.raises(roost.ConfigError, match="no pid '1'"):
        roost.Node.from_peer_file(path, pid="1")  # type: ignore[arg-type]  # the mistake is the point


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 0, "it has: none"),
        (f'{ONE}\n{{"Pid": 1, "Addr": "127.0.0.1:7402"}}', 2, r"pid 1 is that of .*conf\.json:1 already"),
        (f'{ONE}\n\n{{"Pid": 2, "Addr": "127.0.0.1:7401"}}', 3, r"127\.0\.0\.1:7401 is the address of .*conf\.json:1"),
        (f"{ONE}\n{TWO[:-1]}", 2, "is no JSON"),
        (f"{ONE},\n{TWO}", 1, "is no JSON"),
        (f"[{ONE},\n{TWO}", 2, "is no JSON"),
        (f"[{ONE},\n]", 2, "is no JSON"),
        (f"[{ONE}\n{TWO}]", 2, "is no JSON"),
        (f"[{ONE}]\n{TWO}", 2, "is no JSON"),
        ("[", 1, "is no JSON"),
        ("Pid = 1", 1, "is no JSON"),
        ("[" * 100_000, 1, "is no"),
        ('{"Pid": ' + "9" * 5000 + ', "Addr": "a:1"}', 1, "is no peer file"),
        (f"{ONE}\n[1]", 2, "is no object"),
        ("[1]", 1, "is no object"),
        ('{"Pid": 1, "Addr": "a:1", "Port": 7}', 1, "no key 'Port'"),
        ('{"pid": 1, "Addr": "a:1"}', 1, "no key 'pid'"),
        ('{"Pid": 1, "Pid": 2, "Addr": "a:1"}', 1, "no key 'Pid twice'"),
        ('{"Pid": 1}', 1, "has no Addr"),
        ('{"Addr": "a:1"}', 1, "has no Pid"),
        ('{"Pid": "1", "Addr": "a:1"}', 1, "Pid must be a whole number"),
        ('{"Pid": true, "Addr": "a:1"}', 1, "Pid must be a whole number"),
        ('{"Pid": -1, "Addr": "a:1"}', 1, "Pid must be a whole number"),
        ('{"Pid": 1, "Addr": 7400}', 1, "Addr must be a text"),
        ('{"Pid": 1, "Addr": "7400"}', 1, "no address of the form host:port"),
        ('{"Pid": 1, "Addr": "a:70000"}', 1, "no port from 0 to 65535"),
        ('{"Pid": 1, "Addr": "a:0"}', 1, "port 0"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, line: int, what: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(roost.ConfigError, match=what) as caught:
        read_peers(path, 1)
    assert caught.value.where == (f"{path}:{line}" if line else path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(roost.ConfigError, match=r"cannot read .*nowhere\.json"):
        read_peers(str(tmp_path / "nowhere.json"), 1)
    (tmp_path / "odd.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(roost.ConfigError, match=r"odd\.json: is no UTF-8"):
        read_peers(str(tmp_path / "odd.json"), 1)


def test_the_file_gives_name_address_and_seeds_and_arguments_go_over_it(tmp_path: Path) -> None:
    path = written(tmp_path, f"{ONE}\n{TWO}\n")
    node = roost.Node.from_peer_file(path, pid=22, call_seconds=1.5)
    assert (node.name, node.pid) == ("22", 22)
    assert (node.settings.bind, node.settings.advertise) == ("127.0.0.1:7402", "127.0.0.1:7402")
    assert (node.settings.seeds, node.settings.call_seconds) == (("127.0.0.1:7401",), 1.5)
    assert (node.settings_from["bind"], node.settings_from["seeds"]) == (f"{path}:2", path)
    own = roost.Node.from_peer_file(path, pid=22, bind="127.0.0.1:7999")
    assert (own.settings.bind, own.settings.advertise) == ("127.0.0.1:7999", "127.0.0.1:7402")
    assert own.settings_from["bind"] == "argument"


def test_a_node_whose_name_is_no_number_has_no_pid() -> None:
    for name in ("ann", "007", "-1", "1.5"):
        assert roost.Node(name).pid is None
    assert (roost.Node("0").pid, roost.Node("4567654").pid) == (0, 4567654)


def test_addresses_beyond_loopback_need_a_secret_as_always(tmp_path: Path) -> None:
    path = written(tmp_path, f'{ONE}\n{{"Pid": 2, "Addr": "10.0.0.5:7400"}}')
    with pytest.raises(roost.ConfigError, match=r"conf\.json:2: .* others can reach, and there is no secret"):
        roost.Node.from_peer_file(path, pid=2)
    assert roost.Node.from_peer_file(path, pid=2, secret=SECRET).settings.bind == "10.0.0.5:7400"
    assert roost.Node.from_peer_file(path, pid=1).settings.seeds == ("10.0.0.5:7400",)
    everywhere = written(tmp_path, '{"Pid": 2, "Addr": "0.0.0.0:7400"}')
    with pytest.raises(roost.ConfigError, match=r"conf\.json:1: .* none that others can connect to"):
        roost.Node.from_peer_file(everywhere, pid=2, secret=SECRET)
