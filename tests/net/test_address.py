"""host:port as people write it, and what is none."""

from __future__ import annotations

import pytest

from roost.errors import ConfigError
from roost.net.address import format_address, parse_address


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("127.0.0.1:7400", "127.0.0.1", 7400),
        ("node-1.example.com:1", "node-1.example.com", 1),
        ("[::1]:0", "::1", 0),
        ("[2001:db8::1]:65535", "2001:db8::1", 65535),
        ("[fe80::1%eth0]:7400", "fe80::1%eth0", 7400),
    ],
)
def test_addresses_are_read_and_written_alike(address: str, host: str, port: int) -> None:
    assert parse_address(address) == (host, port)
    assert format_address(host, port) == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        ":",
        "host",
        "host:",
        ":7400",
        "host:65536",
        "host:-1",
        "host:7400x",
        "a b:1",
        "::1:7400",
        "[::1]",
        "[x]:1",
        "[1.2]:1",
        "host:7400\n",
        "tcp://host:7400",
        "host:٣",
        "x" * 300 + ":1",
    ],
)
def test_what_is_no_address_is_a_config_error_that_says_what_to_write(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address(address)
    assert caught.value.todo
