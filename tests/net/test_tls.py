"""Contexts: which certificate for which name, what is refused, what is said of a connection. The handshakes are in memory."""

import dataclasses
import gc
import ssl
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from certificates import PASSWORD, Authority, Pair
from termserver.config import Tls
from termserver.errors import ConfigError
from termserver.net.tls import Contexts, ignore_impossible_names


@pytest.fixture(scope="module")
def pairs(authority: Authority) -> dict[str, Pair]:
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "A, B"), x509.NameAttribute(NameOID.COMMON_NAME, "client")])
    return {
        "first": authority.make("first", "first.test", "shared.test"),
        "second": authority.make("second", "second.test", "*.wild.test", "shared.test", chained=True),
        "exact": authority.make("exact", "exact.wild.test"),
        "client": authority.make("client", subject=subject),
        "chained": authority.make("chained-client", chained=True),
        "expired": authority.make("expired-client", expired=True),
        "nameless": authority.make("nameless"),
        "secret": authority.make("secret", "secret.test", password=PASSWORD),
        "together": authority.make("together", "together.test", together=True),
    }


def config(*used: Pair, **more: Any) -> Tls:
    return Tls(certificates=tuple(pair.certificate for pair in used), keys=tuple(pair.key for pair in used), **more)


def shake(contexts: Contexts, client: ssl.SSLContext, name: str | None = "first.test") -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Shake hands in memory; give the server's side and the client's."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        contexts.default.wrap_bio(up, down, server_side=True),
        client.wrap_bio(down, up, server_hostname=name),
    ]
    for _ in range(3):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return sides[0], sides[1]


def shown(contexts: Contexts, authority: Authority, name: str) -> str:
    """Give the certificate, in PEM, that whoever asks for this name gets."""
    server, client = shake(contexts, authority.client(check_hostname=False), name)
    der = client.getpeercert(binary_form=True)
    assert der is not None
    pem = ssl.DER_cert_to_PEM_cert(der)
    assert contexts.describe(server)["server_cert"] == pem
    return pem


@pytest.mark.parametrize(("name", "chosen"), [
    ("first.test", "first"),
    ("second.test", "second"),
    ("SECOND.Test", "second"),
    ("shared.test", "first"),
    ("a.wild.test", "second"),
    ("exact.wild.test", "exact"),
    ("a.b.wild.test", "first"),
    ("wild.test", "first"),
    ("localhost", "first"),
    ("unknown.test", "first"),
])  # fmt: skip
def test_rfc6066_3_name_picks_the_certificate(authority: Authority, pairs: dict[str, Pair], name: str, chosen: str) -> None:
    contexts = Contexts(config(pairs["first"], pairs["second"], pairs["exact"]))
    assert shown(contexts, authority, name) == pairs[chosen].pem


def test_who_asks_for_no_name_gets_the_first(authority: Authority, pairs: dict[str, Pair]) -> None:
    contexts = Contexts(config(pairs["first"], pairs["second"]))
    server, _ = shake(contexts, authority.client(check_hostname=False), None)
    assert contexts.describe(server)["server_cert"] == pairs["first"].pem


def test_certificate_without_names_serves_everybody(authority: Authority, pairs: dict[str, Pair]) -> None:
    assert shown(Contexts(config(pairs["nameless"])), authority, "any.test") == pairs["nameless"].pem


def test_chain_is_sent_and_the_certificate_said_is_the_server_s_own(authority: Authority, pairs: dict[str, Pair]) -> None:
    contexts = Contexts(config(pairs["second"]))
    server, _ = shake(contexts, authority.client(), "second.test")  # it knows the authority only, not who stands between
    assert contexts.describe(server)["server_cert"] == pairs["second"].pem


def test_key_may_be_in_the_certificate_s_file(authority: Authority, pairs: dict[str, Pair]) -> None:
    contexts = Contexts(Tls(certificates=(pairs["together"].certificate,)))
    assert shown(contexts, authority, "together.test") == pairs["together"].pem


def test_key_may_have_a_password(authority: Authority, pairs: dict[str, Pair]) -> None:
    assert shown(Contexts(config(pairs["secret"], password=PASSWORD)), authority, "secret.test") == pairs["secret"].pem


# --- what is spoken ---


@pytest.mark.parametrize(("version", "number"), [(ssl.TLSVersion.TLSv1_2, 0x0303), (ssl.TLSVersion.TLSv1_3, 0x0304)])
def test_version_and_suite_are_said_by_their_numbers(authority: Authority, pairs: dict[str, Pair], version: int, number: int) -> None:
    contexts = Contexts(config(pairs["first"]))
    client = authority.client(minimum_version=version, maximum_version=version)
    if version == ssl.TLSVersion.TLSv1_2:
        client.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    server, _ = shake(contexts, client)
    facts = contexts.describe(server)
    suites = {"ECDHE-ECDSA-AES128-GCM-SHA256": 0xC02B, "TLS_AES_256_GCM_SHA384": 0x1302, "TLS_AES_128_GCM_SHA256": 0x1301}
    cipher = server.cipher()
    assert cipher is not None
    assert (facts["tls_version"], facts["cipher_suite"]) == (number, suites[cipher[0]])


def test_oldest_version_can_be_chosen(authority: Authority, pairs: dict[str, Pair]) -> None:
    client = authority.client(maximum_version=ssl.TLSVersion.TLSv1_2)
    shake(Contexts(config(pairs["first"])), client)
    with pytest.raises(ssl.SSLError):
        shake(Contexts(config(pairs["first"], minimum_version="1.3")), client)


def test_suites_can_be_chosen(authority: Authority, pairs: dict[str, Pair]) -> None:
    contexts = Contexts(config(pairs["first"], ciphers="ECDHE-ECDSA-CHACHA20-POLY1305"))
    server, _ = shake(contexts, authority.client(maximum_version=ssl.TLSVersion.TLSv1_2))
    assert contexts.describe(server)["cipher_suite"] == 0xCCA9


def test_http_1_1_is_agreed_upon_and_no_compression(authority: Authority, pairs: dict[str, Pair]) -> None:
    client = authority.client()
    client.set_alpn_protocols(["h2", "http/1.1"])
    server, agreed = shake(Contexts(config(pairs["first"])), client)
    assert server.selected_alpn_protocol() == agreed.selected_alpn_protocol() == "http/1.1"
    assert server.compression() is None


def test_every_context_is_made_alike(pairs: dict[str, Pair]) -> None:
    contexts = Contexts(config(pairs["first"], pairs["second"]))
    for each in contexts._certificates:
        wanted = ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
        assert each.context.options & wanted == wanted
        assert each.context.num_tickets == 0
        assert each.context.minimum_version == ssl.TLSVersion.TLSv1_2


# --- clients' certificates ---


def test_client_s_certificate_and_name_are_said(authority: Authority, pairs: dict[str, Pair]) -> None:
    contexts = Contexts(config(pairs["first"], clients="required", client_ca=authority.path))
    server, _ = shake(contexts, authority.client(pairs["client"]))
    facts = contexts.describe(server)
    chain: Any = facts["client_cert_chain"]
    assert chain[0] == pairs["client"].pem  # clients send their authority's too, where they know it
    assert facts["client_cert_name"] == r"CN=client,O=A\, B"  # RFC 4514 §2.1 and §2.4
    assert facts["client_cert_error"] is None


def test_chain_of_a_client_begins_with_its_own(authority: Authority, pairs: dict[str, Pair]) -> None:
    contexts = Contexts(config(pairs["first"], clients="optional", client_ca=authority.path))
    server, _ = shake(contexts, authority.client(pairs["chained"]))
    chain: Any = contexts.describe(server)["client_cert_chain"]
    assert chain[0] == pairs["chained"].pem
    assert len(chain) >= 2 if sys.version_info >= (3, 13) else len(chain) == 1


@pytest.mark.parametrize(("clients", "known"), [("none", False), ("optional", True)])
def test_client_without_a_certificate(authority: Authority, pairs: dict[str, Pair], clients: str, *, known: bool) -> None:
    contexts = Contexts(config(pairs["first"], clients=clients, client_ca=authority.path))
    server, _ = shake(contexts, authority.client())
    assert (contexts.describe(server)["client_cert_chain"], contexts.describe(server)["client_cert_name"]) == ([], None)
    server, _ = shake(contexts, authority.client(pairs["client"]))
    assert bool(contexts.describe(server)["client_cert_chain"]) is known


def test_certificate_that_cannot_be_read_has_no_name(authority: Authority, pairs: dict[str, Pair]) -> None:
    contexts = Contexts(config(pairs["first"]))
    odd = SimpleNamespace(
        context=contexts.default, cipher=lambda: None, version=lambda: None, getpeercert=lambda **_: b"\x30\x00", get_unverified_chain=None
    )
    facts = contexts.describe(odd)  # type: ignore[arg-type]
    assert (facts["client_cert_name"], facts["tls_version"], facts["cipher_suite"]) == (None, None, None)
    assert facts["client_cert_chain"] == [ssl.DER_cert_to_PEM_cert(b"\x30\x00")]


@pytest.mark.parametrize("shows", [None, "expired", "foreign"])
def test_client_that_has_to_show_a_good_one_and_does_not(
    authority: Authority, pairs: dict[str, Pair], tmp_path: Path, shows: str | None
) -> None:
    foreign = Authority(tmp_path).make("foreign") if shows == "foreign" else None
    contexts = Contexts(config(pairs["first"], clients="required", client_ca=authority.path))
    with pytest.raises(ssl.SSLError):
        shake(contexts, authority.client(foreign or (pairs[shows] if shows else None)))


def test_revoked_client_is_refused_once_the_list_is_read(pairs: dict[str, Pair], tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server, good, bad = authority.make("server", "first.test"), authority.make("good"), authority.make("bad")
    wanted = config(server, clients="required", client_ca=authority.path, client_crl=authority.revoked)
    before = Contexts(wanted)
    authority.revoke(bad)
    after = Contexts(wanted)
    shake(before, authority.client(bad))
    shake(after, authority.client(good))
    with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
        shake(after, authority.client(bad))


# --- what cannot be used ---


@pytest.mark.parametrize(("changes", "said"), [
    ({"certificates": ("/no/such.pem",)}, "tls.certificates: cannot use /no/such.pem with the key in "),
    ({"keys": ("{second}",)}, "KEY_VALUES_MISMATCH"),
    ({"keys": ("/no/such.pem",)}, "No such file or directory"),
    ({"certificates": ("{nonsense}",)}, "tls.certificates: cannot use "),
    ({"certificates": ("{secret}",), "keys": ("{secret key}",)}, "tls.certificates: cannot use "),
    ({"certificates": ("{secret}",), "keys": ("{secret key}",), "password": "wrong"}, "tls.certificates: cannot use "),
    ({"certificates": ("{secret}",), "keys": ("{secret key}",), "password": "x" * 5_000}, "tls.certificates: cannot use "),
    ({"certificates": ("{trusted}",)}, "tls.certificates: cannot read the names in "),
    ({"ciphers": "NOTHING"}, "tls.ciphers: expected OpenSSL's names of cipher suites, got 'NOTHING'"),
    ({"client_ca": "/no/such.pem"}, "tls.client_ca: cannot use /no/such.pem: No such file or directory"),
    ({"client_ca": "{nonsense}"}, "tls.client_ca: cannot use "),
    ({"client_crl": "/no/such.pem"}, "tls.client_crl: cannot use /no/such.pem: No such file or directory"),
])  # fmt: skip
def test_what_cannot_be_used_is_said(pairs: dict[str, Pair], tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    nonsense, trusted = tmp_path / "nonsense.pem", tmp_path / "trusted.pem"
    nonsense.write_text("nonsense")
    trusted.write_text(pairs["first"].pem.replace("CERTIFICATE", "X509 CERTIFICATE"))  # OpenSSL reads that too
    files = {
        "{second}": pairs["second"].key,
        "{secret}": pairs["secret"].certificate,
        "{secret key}": pairs["secret"].key,
        "{nonsense}": str(nonsense),
        "{trusted}": str(trusted),
    }
    found = {name: tuple(files.get(each, each) for each in value) if isinstance(value, tuple) else files.get(value, value)
             for name, value in changes.items()}  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        Contexts(dataclasses.replace(config(pairs["first"]), **found))
    assert said in str(caught.value)
    assert PASSWORD not in str(caught.value)


# --- names that are none ---


def test_names_that_are_no_ascii_write_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    others: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", others.append)
    ignore_impossible_names()

    class Falls:
        def __del__(self) -> None:
            raise RuntimeError("on purpose")

    sys.unraisablehook(SimpleNamespace(exc_value=UnicodeDecodeError("ascii", b"\xff", 0, 1, "no"), object=b"\xff"))  # type: ignore[arg-type]
    assert others == []
    Falls()
    gc.collect()
    assert len(others) == 1
