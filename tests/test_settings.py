"""Settings: which source wins, what each may say, and errors that point at the place to change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from roost.config import Options, Settings
from roost.errors import ConfigError
from roost.settings import FRAME_BYTES_SPARE, load

SECRET = "uV3mQ0s9Zk1xT7bLr4Yd2HwNf8CgJpEa6RiXoKtUyMq"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(text: str, path: str = "roost.toml") -> str:
    Path(path).write_text(text, encoding="utf-8")
    return path


def refused(
    path: str | None = None,
    environ: dict[str, str] | None = None,
    *,
    check_exposure: bool = True,
    **arguments: Any,
) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {}, arguments, check_exposure=check_exposure)
    return caught.value


def refused_with(arguments: Mapping[str, Any]) -> ConfigError:
    return refused(None, None, **arguments)


# which source wins


def test_without_sources_every_setting_has_its_default() -> None:
    settings, origins = load(None, {}, {})
    assert settings == Settings()
    assert origins == dict.fromkeys(Settings.__struct_fields__, "default")


def test_later_sources_win_and_are_remembered() -> None:
    write('# a node\nname = "file"\n\nzone = "file"\ncluster = "file"\n')
    environ = {"ROOST_ZONE": "variable", "ROOST_CLUSTER": "variable", "PATH": "/bin"}
    settings, origins = load(None, environ, {"cluster": "argument"})
    assert (settings.name, settings.zone, settings.cluster) == ("file", "variable", "argument")
    assert origins["name"] == "roost.toml:2"
    assert origins["zone"] == "ROOST_ZONE"
    assert origins["cluster"] == "argument"
    assert origins["weight"] == "default"


def test_the_type_checkers_know_every_setting_as_an_argument() -> None:
    assert set(Options.__annotations__) | {"name"} == set(Settings.__struct_fields__)


def test_an_argument_that_is_none_was_not_given() -> None:
    write('name = "file"')
    settings, origins = load(None, {}, {"name": None, "zone": None})
    assert (settings.name, origins["name"], origins["zone"]) == ("file", "roost.toml:1", "default")


def test_the_file_is_the_named_one_then_that_of_the_variable_then_the_one_here() -> None:
    write('name = "here"')
    write('name = "variable"', "variable.toml")
    write('name = "named"', "named.toml")
    environ = {"ROOST_CONFIG": "variable.toml"}
    assert load("named.toml", environ, {})[1]["name"] == "named.toml:1"
    assert load(None, environ, {})[0].name == "variable"
    assert load(None, {"ROOST_CONFIG": ""}, {})[0].name == "here"


def test_the_environment_of_the_process_counts_if_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOST_ZONE", "variable")
    assert load()[0].zone == "variable"


# what values look like


def test_variables_are_read_by_the_type_of_the_setting() -> None:
    environ = {
        "ROOST_SEEDS": "10.0.0.1:7400, [::1]:7401,",
        "ROOST_ROLES": "",
        "ROOST_WEIGHT": "2",
        "ROOST_PARTITIONS": "64",
        "ROOST_TLS": "true",
        "ROOST_PROFILE": "wan",
        "ROOST_PROBE_SECONDS": "0.5",
        "ROOST_NAME": "123",
    }
    settings, _ = load(None, environ, {})
    assert settings.seeds == ("10.0.0.1:7400", "[::1]:7401")
    assert settings.roles == ()
    assert (settings.weight, settings.partitions, settings.tls) == (2.0, 64, True)
    assert (settings.profile, settings.probe_seconds, settings.name) == ("wan", 0.5, "123")


def test_lists_become_tuples_from_file_and_argument() -> None:
    write('roles = ["shard", "edge"]')
    settings, _ = load(None, {}, {"seeds": ["127.0.0.1:1"]})
    assert (settings.roles, settings.seeds) == (("shard", "edge"), ("127.0.0.1:1",))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('weight = "2"', "weight must be a number, not '2'"),
        ("partitions = true", "partitions must be a whole number, not True"),
        ("partitions = 64.5", "partitions must be a whole number, not 64.5"),
        ('seeds = "127.0.0.1:1"', "seeds must be a list of texts, not '127.0.0.1:1'"),
        ("tls = 1", "tls must be true or false, not 1"),
        ("name = 5", "name must be a text, not 5"),
        ('profile = "lam"', "profile must be one of local, lan, wan, not 'lam'"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_where_it_stands(line: str, says: str) -> None:
    write(f"# first\n{line}\n")
    error = refused()
    assert (error.what, error.where) == (says, "roost.toml:2")


def test_a_wrong_type_in_a_variable_or_an_argument_names_it() -> None:
    assert refused(environ={"ROOST_WEIGHT": "heavy"}).where == "ROOST_WEIGHT"
    assert refused(environ={"ROOST_WEIGHT": ""}).what == "weight must be a number, not ''"
    assert refused(weight="heavy").where == "argument"
    assert refused(profile="lann").todo == "did you mean lan?"


def test_a_secret_is_in_no_error() -> None:
    error = refused(secret=[SECRET])
    assert error.what == "secret must be a text, not of type list"
    assert SECRET not in str(refused(secret=SECRET, secret_file="f"))


# unknown names


def test_an_unknown_key_is_refused_with_the_nearest() -> None:
    write('name = "a"\nweigth = 2.0\n')
    error = refused()
    assert str(error) == "roost.toml:2: there is no setting weigth (did you mean weight?)"


@pytest.mark.parametrize("text", ["[node]\nname = 'a'", "[[node]]\nname = 'a'", "node.name = 'a'", '"node" = 1'])
def test_tables_and_dotted_keys_are_unknown_keys_with_their_line(text: str) -> None:
    write(f"zone = 'a'\n\n{text}\n")
    error = refused()
    assert (error.what, error.where) == ("there is no setting node", "roost.toml:3")


def test_a_key_is_not_taken_for_a_longer_one_before_it() -> None:
    write("probe_timeout_seconds = 0.2\n  probe_seconds= 1.0\n")
    assert load(None, {}, {})[1]["probe_seconds"] == "roost.toml:2"


def test_an_unknown_argument_is_refused_with_the_nearest() -> None:
    error = refused(seed=["127.0.0.1:1"])
    assert (error.where, error.todo) == ("argument", "did you mean seeds?")


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [("ROOST_SEED", "ROOST_SEEDS"), ("ROOST_name", "ROOST_NAME"), ("ROOST_CONFG", "ROOST_CONFIG")],
)
def test_an_unknown_variable_is_refused_with_the_nearest(variable: str, nearest: str) -> None:
    error = refused(environ={variable: "x"})
    assert (error.what, error.todo) == (f"there is no setting {variable}", f"did you mean {nearest}?")


def test_what_is_like_nothing_gets_the_list_of_all() -> None:
    assert "roost config show" in refused(environ={"ROOST_QQQQQQQQQQ": "x"}).todo


def test_variables_of_a_kubernetes_service_called_roost_are_not_settings() -> None:
    service = {
        "ROOST_SERVICE_HOST": "10.1.2.3",
        "ROOST_SERVICE_PORT_CLUSTER": "7400",
        "ROOST_PORT": "tcp://10.1.2.3:7400",
        "ROOST_PORT_7400_TCP_ADDR": "10.1.2.3",
        "ROOST_ADMIN_SERVICE_PORT": "7401",
    }
    assert load(None, {"KUBERNETES_SERVICE_HOST": "10.1.0.1", **service}, {})[0] == Settings()
    assert refused(environ=service).where == "environment"


# the file itself


def test_a_file_that_is_missing_is_refused_only_if_it_was_named() -> None:
    load(None, {}, {})
    assert refused("gone.toml").where == "argument"
    assert refused(environ={"ROOST_CONFIG": "gone.toml"}).where == "ROOST_CONFIG"
    assert "gone.toml" in refused("gone.toml").what


def test_a_file_that_is_no_toml_is_refused_with_the_line() -> None:
    write('name = "a"\nzone = east\n')
    assert refused().where == "roost.toml:2"
    write('name = "a"\nzone = "east')
    assert refused().where == "roost.toml:2"


def test_a_file_that_is_no_text_is_refused() -> None:
    Path("roost.toml").write_bytes(b'name = "\xff"')
    assert refused().what == "is no UTF-8 text"


# ranges


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("partitions", [1, 2, 65536], [0, -2, 3, 1000, 131072]),
        ("weight", [0, 0.001, 1, 1000], [-1, 0.0005, 1000.5, float("inf"), float("nan")]),
        ("blocked_loop_seconds", [0, 0.01, 3600], [-1, 0.005, 3601]),
        ("rejoin_seconds", [0.001, 3, 10**7], [0, -1, 10**7 + 1, float("inf")]),
        ("probe_seconds", [0.001], [0.0]),
        ("reconnect_seconds_max", [0.1], [0]),
        ("transfer_chunk_bytes", [1], [0, -1, 2**40 + 1]),
        ("frame_bytes_max", [2**31], [0, 2**31 + 1]),
        ("write_bytes_high", [1], [0]),
        ("pending_calls_max", [1, 10**9], [0, 10**9 + 1]),
        ("placement_seed", [0, 2**63 - 1], [-1, 2**63]),
    ],
)
def test_numbers_stay_in_their_range(key: str, good: list[float], bad: list[float]) -> None:
    for value in good:
        assert getattr(load(None, {}, {key: value})[0], key) == value
    for value in bad:
        error = refused_with({key: value})
        assert error.what.startswith(f"{key} must be ")
        assert error.where == "argument"


def test_every_number_but_a_few_must_be_positive() -> None:
    exempt = {"weight", "placement_seed"}
    numbers = [
        field.name
        for field in msgspec.structs.fields(Settings)
        if field.name not in exempt and ("seconds" in field.name or isinstance(field.default, int | float))
    ]
    assert len(numbers) > 25
    for key in numbers:
        assert f"{key} must be " in refused_with({key: -1}).what


def test_a_message_must_fit_into_a_frame() -> None:
    error = refused(environ={"ROOST_FRAME_BYTES_MAX": "1024"})
    assert "below frame_bytes_max" in error.what
    assert error.where == "ROOST_FRAME_BYTES_MAX"
    assert refused(frame_bytes_max=10, message_bytes_max=10).where == "argument"
    load(None, {}, {"frame_bytes_max": 10 + FRAME_BYTES_SPARE, "message_bytes_max": 10})


# names and addresses


@pytest.mark.parametrize("word", ["a b", "a\n", "é", "x" * 129, "a/b", "a,b"])
def test_words_have_the_characters_that_the_handshake_allows(word: str) -> None:
    given: list[dict[str, Any]] = [{"name": word}, {"cluster": word}, {"zone": word}, {"roles": ["ok", word]}]
    for arguments in given:
        error = refused_with(arguments)
        assert next(iter(arguments)) in error.what
        assert "A-Z a-z 0-9" in error.todo


def test_only_what_may_be_empty_may_be_empty() -> None:
    load(None, {}, {"name": "", "zone": "", "roles": []})
    assert refused(cluster="").what == "cluster cannot be ''"
    assert refused(roles=[""]).what == "'' cannot be used in roles"


def test_a_name_may_be_an_address_and_have_a_role_in_it() -> None:
    assert load(None, {}, {"name": "[::1]:7400@edge-1.a_b"})[0].name == "[::1]:7400@edge-1.a_b"


@pytest.mark.parametrize(
    "arguments",
    [{"bind": "127.0.0.1"}, {"bind": ""}, {"advertise": "::1:7400"}, {"seeds": ["127.0.0.1:1", "b:70000"]}],
)
def test_addresses_are_host_and_port(arguments: dict[str, Any]) -> None:
    error = refused_with(arguments)
    assert error.what.startswith(f"{next(iter(arguments))}: ")
    assert (error.where, bool(error.todo)) == ("argument", True)


def test_only_bind_may_leave_the_port_open() -> None:
    load(None, {}, {"bind": "127.0.0.1:0"})
    assert "port 0" in refused(seeds=["127.0.0.1:0"]).what
    assert "port 0" in refused(advertise="127.0.0.1:0").what


@pytest.mark.parametrize("wildcard", ["0.0.0.0:7400", "[::]:7400", "0.0.0.0:0"])
def test_where_a_node_listens_everywhere_it_must_say_where_it_is_reached(wildcard: str) -> None:
    error = refused(bind=wildcard, secret=SECRET)
    assert error.what.startswith(f"bind is {wildcard}")
    assert "set advertise" in error.todo
    assert error.where == "argument"
    load(None, {}, {"bind": wildcard, "advertise": "10.0.0.5:7400", "secret": SECRET})
    assert "there is no secret" in refused(bind=wildcard, advertise="127.0.0.1:7400").what


def test_nobody_is_reached_at_a_wildcard() -> None:
    assert refused(advertise="0.0.0.0:7400", secret=SECRET).what.startswith("advertise is 0.0.0.0:7400")


# who can reach the node


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.8.9.1:1", "[::1]:1", "localhost:1", "LocalHost:1"])
def test_loopback_needs_no_secret(address: str) -> None:
    load(None, {}, {"bind": address, "advertise": address, "tls": False})


@pytest.mark.parametrize(
    "address",
    ["10.0.0.5:1", "example.com:1", "127.1:1", "localhost.example.com:1", "[::ffff:10.0.0.1]:1"],
)
@pytest.mark.parametrize("key", ["bind", "advertise"])
def test_what_others_can_reach_needs_a_secret(key: str, address: str) -> None:
    error = refused_with({key: address})
    assert "there is no secret" in error.what
    assert "`roost secret new`" in error.todo
    assert error.where == "argument"
    load(None, {}, {key: address, "secret": SECRET})
    load(None, {}, {key: address, "secret_file": "secrets"})


def test_tls_cannot_be_off_where_others_can_reach() -> None:
    for key in ("bind", "advertise"):
        environ = {"ROOST_TLS": "false", f"ROOST_{key.upper()}": "10.0.0.5:1"}
        error = refused(environ=environ, secret=SECRET)
        assert error.what.startswith("tls cannot be off")
        assert error.where == "ROOST_TLS"


def test_secret_and_secret_file_exclude_each_other() -> None:
    for check_exposure in (True, False):
        error = refused(environ={"ROOST_SECRET": SECRET}, check_exposure=check_exposure, secret_file="f")
        assert (error.what, error.where) == ("both secret and secret_file are set", "ROOST_SECRET")


def test_a_network_that_is_none_needs_no_secret_but_all_other_rules_hold() -> None:
    settings, _ = load(None, {}, {"bind": "n1:7400", "tls": False}, check_exposure=False)
    assert settings.bind == "n1:7400"
    assert refused(check_exposure=False, bind="n1").where == "argument"
