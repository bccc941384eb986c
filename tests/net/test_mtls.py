"""Certificates of the user's CA: both ends verify them, refusals are clear on both ends, and files may be renewed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

import roost
from roost.config import Settings
from roost.net.certificates import Certificates, names_in
from roost.net.tcp import TcpTransport
from roost.net.tls import TlsContexts, binding_of
from roost.ops.client import connect
from roost.runtime import Runtime
from tests.net.authority import Authority
from tests.net.ends import Recorder, on_both_loops
from tests.net.test_nodes import SECRET, Echo, node
from tests.net.test_tls import join


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca", "ours")


@pytest.fixture
def foreign(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "foreign", "foreign")


def contexts(files: dict[str, Any], name: str = "a") -> TlsContexts:
    return Certificates(Settings(name=name, **files)).current()


def refused(files: dict[str, Any], name: str = "a") -> str:
    """What the start says of unusable files."""
    with pytest.raises(roost.ConfigError) as caught:
        Certificates(Settings(name=name, **files))
    return str(caught.value)


@pytest.mark.parametrize("secret", [None, SECRET], ids=["certificates", "certificates-and-secret"])
@on_both_loops
async def test_nodes_with_certificates_of_one_ca_talk(secret: str | None, ca: Authority) -> None:
    async with node("a", secret=secret, **ca.issue("a")) as a, node("b", a, secret=secret, **ca.issue("b")) as b:
        await b.ready(2)
        assert await b.ask("a", Echo(b"x" * 100_000)) == b"x" * 100_000
        assert await a.ask("b", Echo(b"y")) == b"y"


@on_both_loops
async def test_a_secret_is_needed_beside_certificates_where_there_is_one(ca: Authority) -> None:
    async with node("a", **ca.issue("a")) as a:
        for secret in (None, SECRET[::-1]):
            with pytest.raises(roost.AuthError, match="secret"):
                async with node("b", a, secret=secret, **ca.issue("b")):
                    pass
        assert a.peers == []


@on_both_loops
async def test_the_command_line_comes_with_a_certificate_too(ca: Authority, foreign: Authority) -> None:
    async with node("a", secret=None, **ca.issue("a")) as a:
        async with connect(a.address, Settings(**ca.issue("laptop"), tls_names=False)) as client:
            assert client.node == "a"
            assert a.peers == []
        with pytest.raises(roost.AuthError, match="certificate"):
            async with connect(a.address, Settings(tls_names=False, **foreign.issue("laptop"))):
                pass


@on_both_loops
async def test_a_certificate_of_another_ca_is_refused_on_both_ends(
    ca: Authority, foreign: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with node("a", secret=None, **ca.issue("a")) as a:
        with pytest.raises(roost.AuthError, match=r"certificate is refused: (unable to get|self.signed)"):
            async with node("b", a, secret=None, **foreign.issue("b")):
                pass
        assert a.peers == []
    assert "TLS failed" in caplog.text


@on_both_loops
async def test_a_client_whose_certificate_is_refused_is_told_where_to_look(
    ca: Authority, foreign: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It trusts both CAs, the acceptor only its own: the refusal is the acceptor's alone."""
    both = tmp_path / "both.pem"
    both.write_bytes(ca.pem + foreign.pem)
    async with node("a", secret=None, **ca.issue("a")) as a:
        with pytest.raises(roost.AuthError, match="may not accept this node's certificate, and its log says why"):
            async with node("b", a, secret=None, **{**foreign.issue("b"), "tls_ca_file": str(both)}):
                pass
        assert "TLS failed: the other end's certificate is refused: self-signed certificate in" in caplog.text
        assert a.peers == []


@pytest.mark.parametrize("certified", ["a", "b"])
@on_both_loops
async def test_certificates_at_one_end_only_are_refused_at_both(
    certified: str, ca: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    files = {name: ca.issue(name) if name == certified else {} for name in "ab"}
    async with node("a", **files["a"]) as a:
        with pytest.raises(roost.AuthError, match="set `tls_ca_file`"):
            async with node("b", a, **files["b"]):
                pass
        assert a.peers == []
    assert any(text.startswith("connection from") and "set `tls_ca_file`" in text for text in caplog.messages)


@on_both_loops
async def test_a_certificate_is_good_for_one_name_only(ca: Authority, caplog: pytest.LogCaptureFixture) -> None:
    """The thief's own configuration does not look at names; the others' does."""
    stolen = ca.issue("b")
    async with node("a", secret=None, **ca.issue("a")) as a:
        with pytest.raises(roost.AuthError, match="c came with a certificate for b: issue one for c"):
            async with node("c", a, secret=None, tls_names=False, **stolen):
                pass
        assert a.peers == []
        async with node("b", a, secret=None, **stolen) as b:
            await b.ready(2)
    assert any(text.startswith("handshake with ") and "for b: issue" in text for text in caplog.messages)


@on_both_loops
async def test_a_seed_under_a_name_that_is_not_its_own_is_refused(ca: Authority) -> None:
    async with node("a", secret=None, tls_names=False, **ca.issue("x")) as a:
        with pytest.raises(roost.AuthError, match="a came with a certificate for x"):
            async with node("b", a, secret=None, **ca.issue("b")):
                pass


@on_both_loops
async def test_a_node_without_a_name_is_known_by_its_host(ca: Authority) -> None:
    files = ca.issue("127.0.0.1")
    async with node("", secret=None, **files) as a, node("", a, secret=None, **files) as b:
        await b.ready(2)
        assert a.name.startswith("127.0.0.1:") and a.name != b.name


@on_both_loops
async def test_names_are_not_compared_where_the_settings_say_so(ca: Authority) -> None:
    shared = {**ca.issue("whatever"), "secret": None, "tls_names": False}
    async with node("a", **shared) as a, node("b", a, **shared) as b:
        await b.ready(2)


def test_expired_and_early_certificates_are_refused_at_the_start(ca: Authority) -> None:
    assert "certificate has expired" in refused(ca.issue("a", days=(-2, -1)))
    assert "certificate is not yet valid" in refused(ca.issue("a", days=(1, 2)))


def test_a_certificate_of_another_ca_than_ones_own_is_refused_at_the_start(ca: Authority, foreign: Authority) -> None:
    text = refused({**foreign.issue("a"), "tls_ca_file": ca.file})
    assert "unable to get local issuer certificate" in text and ca.file in text and "tls_cert_file" in text


@pytest.mark.parametrize("usage", [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
def test_a_certificate_for_one_role_only_is_refused_at_the_start(usage: Any, ca: Authority) -> None:
    text = refused(ca.issue("a", usages=[usage]))
    assert "purpose" in text and "for servers and clients" in text


def test_a_certificate_for_another_name_is_refused_at_the_start(ca: Authority) -> None:
    assert "is for b, not for a (issue one for a, or set tls_names = false" in refused(ca.issue("b"))
    assert "is for nobody, not for a" in refused(ca.issue())
    assert "not for 127.0.0.1:7400" in refused(ca.issue("b"), name="")


def test_a_key_of_another_certificate_is_refused_at_the_start(ca: Authority) -> None:
    one, other = ca.issue("a"), ca.issue("a")
    text = refused({**one, "tls_key_file": other["tls_key_file"]})
    assert f"tls_key_file {other['tls_key_file']}: is not the certificate's key" in text


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660])
def test_a_key_that_others_may_read_is_refused_at_the_start(mode: int, ca: Authority) -> None:
    files = ca.issue("a")
    os.chmod(files["tls_key_file"], mode)
    assert f"chmod 600 {files['tls_key_file']}" in refused(files)


@pytest.mark.parametrize("which", ["tls_ca_file", "tls_cert_file"])
def test_certificates_that_others_may_change_are_refused_at_the_start(which: str, ca: Authority) -> None:
    files = ca.issue("a")
    os.chmod(files[which], 0o664)
    assert f"chmod go-w {files[which]}" in refused(files)


@pytest.mark.parametrize("which", ["tls_ca_file", "tls_cert_file", "tls_key_file"])
@pytest.mark.parametrize(
    "content", [None, b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"]
)
def test_files_that_are_missing_or_something_else_are_named(
    which: str, content: bytes | None, ca: Authority, tmp_path: Path
) -> None:
    path = tmp_path / "x"
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o600)
    text = refused({**ca.issue("a"), which: str(path)})
    assert text.startswith(f"{which} {path}: ") and "roost cert" in text


def test_a_key_with_a_password_is_refused_and_asks_nobody(ca: Authority) -> None:
    assert "needs a password" in refused(ca.issue("a", password=b"x" * 10))


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_keys_of_other_kinds_serve_too(kind: str, ca: Authority) -> None:
    key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ed25519.Ed25519PrivateKey.generate()
    both = contexts(ca.issue("a", key=key))
    client, server = join(both.client, both.server)
    assert client.version() == server.version() == "TLSv1.3"


def test_a_chain_and_an_intermediate_authority_are_followed(ca: Authority, tmp_path: Path) -> None:
    middle = Authority(tmp_path / "middle", "middle", signed_by=ca)
    by_root = contexts({**middle.issue("a", chain=middle.pem), "tls_ca_file": ca.file})
    by_middle = contexts(middle.issue("b"), name="b")
    client, server = join(by_middle.client, contexts(middle.issue("c"), name="c").server)
    assert (names_in(client), names_in(server)) == (("c",), ("b",))
    assert binding_of(join(by_root.client, by_root.server)[0]) == by_root.binding


def test_the_authorities_of_the_system_mean_nothing(ca: Authority) -> None:
    for context in (contexts(ca.issue("a")).client, contexts(ca.issue("a")).server):
        assert context.cert_store_stats()["x509"] == 1


def renew(files: dict[str, Any], by: dict[str, Any]) -> None:
    for which, path in files.items():
        shutil.copyfile(by[which], path + ".new")
        os.chmod(path + ".new", 0o600)
        os.replace(path + ".new", path)


@on_both_loops
async def test_new_links_use_the_files_as_they_are_now(ca: Authority, foreign: Authority) -> None:
    """All the way to another CA, while both ends go on running."""
    runtime = Runtime()
    files = {name: ca.issue(name) for name in "ab"}
    settings = {name: Settings(name=name, bind="127.0.0.1:0", **files[name]) for name in "ab"}
    a, b = (TcpTransport(runtime, settings[name], Certificates(settings[name])) for name in "ab")
    accepted: list[Recorder] = []

    def accept(link: Any) -> Recorder:
        accepted.append(Recorder(link))
        return accepted[-1]

    address = await a.listen("127.0.0.1:0", accept)

    async def opens() -> tuple[str, ...]:
        link = await b.connect(address, Recorder, seconds=5.0)
        link.close()
        assert link.certified is not None
        return link.certified

    try:
        assert await opens() == ("a",)
        renew(files["a"], ca.issue("a", "renewed"))
        assert await opens() == ("a", "renewed")
        renew(files["b"], foreign.issue("b"))
        with pytest.raises(roost.AuthError, match="certificate is refused"):
            await opens()
        renew(files["a"], foreign.issue("a", "moved"))
        assert await opens() == ("a", "moved")
    finally:
        await b.close()
        await a.close()


def test_what_was_read_before_stays_in_use_while_the_files_do_not_fit(
    ca: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    files, new = ca.issue("a"), ca.issue("a", "new")
    certificates = Certificates(Settings(name="a", **files))
    before = certificates.current()
    shutil.copyfile(new["tls_cert_file"], files["tls_cert_file"])
    assert certificates.current() is certificates.current() is before
    assert len(caplog.records) == 1 and "is not the certificate's key" in caplog.text
    shutil.copyfile(new["tls_key_file"], files["tls_key_file"])
    after = certificates.current()
    assert after is not before and names_in(join(after.client, after.server)[0]) == ("a", "new")


@pytest.mark.parametrize("missing", ["tls_ca_file", "tls_cert_file", "tls_key_file"])
def test_settings_name_all_three_files_or_none(missing: str, ca: Authority) -> None:
    files = ca.issue("a")
    del files[missing]
    with pytest.raises(roost.ConfigError, match=f"is set, and {missing} not"):
        roost.Node("a", **files)


def test_certificates_and_tls_switched_off_contradict_each_other(ca: Authority) -> None:
    with pytest.raises(roost.ConfigError, match="tls is off, and tls_ca_file is set"):
        roost.Node("a", tls=False, **ca.issue("a"))


def test_a_node_with_certificates_needs_no_secret_to_be_reached_by_others(ca: Authority) -> None:
    roost.Node("a", bind="192.0.2.1:7400", **ca.issue("a"))
    with pytest.raises(roost.ConfigError, match="there is no secret"):
        roost.Node("a", bind="192.0.2.1:7400")
