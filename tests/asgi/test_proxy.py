"""Whose word about the client is taken (RFC 7239, X-Forwarded-*; rows F1 of the attacks)."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from termserver.asgi.proxy import TrustedProxies
from termserver.asgi.scope import Scope

PEER = ("10.0.0.1", 4_000)
Fields = list[tuple[bytes, bytes]]
TRUSTED = ("10.0.0.0/8", "2001:db8:1::/48")


def applied(
    *headers: tuple[str, str],
    trusted: tuple[str, ...] = TRUSTED,
    client: tuple[str, int] | None = PEER,
    address_header: str = "X-Forwarded-For",
    port_header: str = "X-Forwarded-Port",
) -> Scope:
    """Give a scope with what a proxy said put into it."""
    fields = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    scope: Scope = {"type": "http", "client": client, "scheme": "http", "headers": fields.copy()}
    TrustedProxies(trusted, address_header, port_header).apply(scope)
    assert scope["headers"] == fields  # the application sees what came
    return scope


def xff(*values: str) -> list[tuple[str, str]]:
    return [("X-Forwarded-For", value) for value in values]


def forwarded(*values: str) -> list[tuple[str, str]]:
    return [("Forwarded", value) for value in values]


# ---------------------------------------------------------------------- who is believed


@pytest.mark.parametrize(
    ("trusted", "peer", "believed"),
    [
        pytest.param(("10.0.0.1",), "10.0.0.1", True, id="address"),
        pytest.param(("10.0.0.1",), "10.0.0.2", False, id="another address"),
        pytest.param(("10.0.0.0/8",), "10.9.9.9", True, id="network"),
        pytest.param(("10.0.0.7/8",), "10.9.9.9", True, id="network with host bits"),
        pytest.param(("10.0.0.0/8",), "11.0.0.1", False, id="outside the network"),
        pytest.param(("::1",), "::1", True, id="IPv6"),
        pytest.param(("2001:db8::/32",), "2001:db8::5", True, id="IPv6 network"),
        pytest.param(("2001:db8::/32",), "10.0.0.1", False, id="other family"),
        pytest.param(("10.0.0.1",), "::ffff:10.0.0.1", True, id="IPv4 seen by an IPv6 socket"),
        pytest.param(("fe80::/10",), "fe80::1%eth0", True, id="link-local with its zone"),
        pytest.param(("*",), "203.0.113.9", True, id="everybody"),
        pytest.param(("unix",), "127.0.0.1", False, id="only unix sockets"),
        pytest.param((), "10.0.0.1", False, id="nobody"),
    ],
)
def test_f1_only_a_trusted_peer_is_believed(trusted: tuple[str, ...], peer: str, *, believed: bool) -> None:
    scope = applied(*xff("192.0.2.7"), ("X-Forwarded-Proto", "https"), trusted=trusted, client=(peer, 1))
    assert scope["client"] == (("192.0.2.7", 0) if believed else (peer, 1))
    assert scope["scheme"] == ("https" if believed else "http")


@pytest.mark.parametrize(("trusted", "believed"), [(("unix",), True), (("*",), True), (("10.0.0.0/8",), False)])
def test_f1_a_peer_on_a_unix_socket_is_believed_where_asked_for(trusted: tuple[str, ...], *, believed: bool) -> None:
    scope = applied(*xff("192.0.2.7"), trusted=trusted, client=None)
    assert scope["client"] == (("192.0.2.7", 0) if believed else None)


def test_trust_is_remembered_within_bounds() -> None:
    proxies = TrustedProxies(TRUSTED, "X-Forwarded-For", "X-Forwarded-Port")
    for number in range(3_000):
        peer = (f"10.0.{number // 256}.{number % 256}", 1)
        for _ in range(2):
            scope: Scope = {"type": "http", "client": peer, "scheme": "http", "headers": [(b"x-forwarded-for", b"192.0.2.7")]}
            proxies.apply(scope)
            assert scope["client"] == ("192.0.2.7", 0)
    assert len(proxies._known) <= 1_024


# ---------------------------------------------------------------------- X-Forwarded-For

ADDRESSES = [
    pytest.param(["192.0.2.7"], ("192.0.2.7", 0), id="one"),
    pytest.param(["198.51.100.1, 192.0.2.7"], ("192.0.2.7", 0), id="right-most"),
    pytest.param(["198.51.100.1, 192.0.2.7, 10.1.1.1"], ("192.0.2.7", 0), id="right-most that is not trusted"),
    pytest.param(["198.51.100.1", "192.0.2.7", "10.1.1.1"], ("192.0.2.7", 0), id="repeated fields are joined in order"),
    pytest.param(["192.0.2.7, 10.0.0.5", "198.51.100.1"], ("198.51.100.1", 0), id="the last field counts most"),
    pytest.param(["10.1.1.1, 10.2.2.2"], ("10.1.1.1", 0), id="all trusted: the first"),
    pytest.param(["192.0.2.7,::ffff:10.1.1.1"], ("192.0.2.7", 0), id="mapped address of a trusted proxy"),
    pytest.param([" 192.0.2.7\t"], ("192.0.2.7", 0), id="blanks"),
    pytest.param(["192.0.2.7:8080"], ("192.0.2.7", 8080), id="port"),
    pytest.param(["192.0.2.7:70000"], ("192.0.2.7", 0), id="port out of range"),
    pytest.param(["2001:db8::1"], ("2001:db8::1", 0), id="IPv6"),
    pytest.param(["2001:DB8:0::1"], ("2001:db8::1", 0), id="IPv6 in its usual form"),
    pytest.param(["[2001:db8::1]"], ("2001:db8::1", 0), id="IPv6 in brackets"),
    pytest.param(["[2001:db8::1]:443"], ("2001:db8::1", 443), id="IPv6 and port"),
    pytest.param(["192.0.2.7, [2001:db8:1::5]:443"], ("192.0.2.7", 0), id="trusted IPv6"),
]
VOID = [
    "", ",", "unknown", "_hidden", "localhost", "192.0.2", "192.0.2.256", "192.0.2.07", "192.0.2.7:", "192.0.2.7:http", "192.0.2.7:-1",
    "192.0.2.7:123456", "[2001:db8::1", "2001:db8::1]", "[2001:db8::1]x", "[2001:db8::1]443", "[192.0.2.7", "fe80::1%eth0", "::1%<b>",
    "1:2", ":", "[]", "192.0.2.7 192.0.2.8", "192.0.2.7;x", "\xb2.0.2.7", "'192.0.2.7'",
]  # fmt: skip


@pytest.mark.parametrize(("values", "client"), ADDRESSES)
def test_f1_x_forwarded_for(values: list[str], client: tuple[str, int]) -> None:
    assert applied(*xff(*values))["client"] == client


@pytest.mark.parametrize("value", VOID)
@pytest.mark.parametrize("around", ["{}", "{}, 10.0.0.1", "192.0.2.7, {}", "{}, 192.0.2.7"])
def test_f1_an_address_that_is_none_voids_the_field(value: str, around: str) -> None:
    assert applied(*xff(around.format(value)))["client"] == PEER


def test_f1_everybody_is_believed_but_not_every_address_is_a_proxy() -> None:
    assert applied(*xff("198.51.100.1, 192.0.2.7"), trusted=("*",))["client"] == ("192.0.2.7", 0)


def test_without_fields_nothing_changes() -> None:
    assert applied(("Host", "a")) == {"type": "http", "client": PEER, "scheme": "http", "headers": [(b"host", b"a")]}


@pytest.mark.parametrize(("proto", "scheme"), [("https", "wss"), ("wss", "wss"), ("http", "ws"), ("ws", "ws")])
def test_scheme_of_a_websocket(proto: str, scheme: str) -> None:
    for fields in ([(b"x-forwarded-proto", proto.encode())], [(b"forwarded", b"for=192.0.2.7;proto=" + proto.encode())]):
        scope: Scope = {"type": "websocket", "client": PEER, "scheme": "ws", "headers": fields}
        TrustedProxies(TRUSTED, "X-Forwarded-For", "X-Forwarded-Port").apply(scope)
        assert scope["scheme"] == scheme


def test_another_address_header() -> None:
    scope = applied(("X-Real-IP", "192.0.2.7"), *xff("198.51.100.1"), address_header="X-Real-IP")
    assert scope["client"] == ("192.0.2.7", 0)


@pytest.mark.parametrize(
    ("ports", "port"),
    [
        (["443"], 443),
        (["1, 443"], 443),
        (["1", "443"], 443),
        ([" 443\t"], 443),
        (["65536"], 0),
        (["9" * 30], 0),
        (["http"], 0),
        ([""], 0),
        (["-1"], 0),
    ],
)
def test_x_forwarded_port_is_the_right_most(ports: list[str], port: int) -> None:
    assert applied(*xff("192.0.2.7"), *(("X-Forwarded-Port", value) for value in ports))["client"] == ("192.0.2.7", port)


def test_a_port_beside_the_address_counts_more_than_x_forwarded_port() -> None:
    assert applied(*xff("192.0.2.7:8080"), ("X-Forwarded-Port", "443"))["client"] == ("192.0.2.7", 8080)


@pytest.mark.parametrize(
    ("values", "scheme"),
    [
        (["https"], "https"),
        (["http"], "http"),
        (["HTTPS"], "https"),
        (["wss"], "https"),
        (["ws"], "http"),
        (["http, https"], "https"),
        (["https", "http"], "http"),
        (["https, "], "http"),
        (["ftp"], "http"),
        ([""], "http"),
    ],
)
def test_f1_x_forwarded_proto_is_the_right_most_and_one_that_is_known(values: list[str], scheme: str) -> None:
    assert applied(*(("X-Forwarded-Proto", value) for value in values))["scheme"] == scheme


# ---------------------------------------------------------------------- Forwarded


@pytest.mark.parametrize(
    ("values", "client", "scheme"),
    [
        pytest.param(["for=192.0.2.7"], ("192.0.2.7", 0), "http", id="address"),
        pytest.param(["For=192.0.2.7;PROTO=HTTPS"], ("192.0.2.7", 0), "https", id="names and scheme in any case"),
        pytest.param(['for="192.0.2.7:8080"'], ("192.0.2.7", 8080), "http", id="quoted, with port"),
        pytest.param(["for=192.0.2.7:8080"], ("192.0.2.7", 8080), "http", id="port, not quoted as it should be"),
        pytest.param(['for="[2001:db8::1]:443"'], ("2001:db8::1", 443), "http", id="IPv6 and port"),
        pytest.param(['for="[2001:db8::1]"'], ("2001:db8::1", 0), "http", id="IPv6"),
        pytest.param([r'for="192.0.2.\7"'], ("192.0.2.7", 0), "http", id="quoted pair"),
        pytest.param(['for="192.0.2.7:_port"'], ("192.0.2.7", 0), "http", id="obfuscated port"),
        pytest.param(["for=198.51.100.1, for=192.0.2.7;by=10.0.0.1, for=10.0.0.9"], ("192.0.2.7", 0), "http", id="right-most not trusted"),
        pytest.param(["for=198.51.100.1", "for=192.0.2.7"], ("192.0.2.7", 0), "http", id="repeated fields are joined"),
        pytest.param(["for=10.0.0.8, for=10.0.0.9"], ("10.0.0.8", 0), "http", id="all trusted: the first"),
        pytest.param(["for=192.0.2.7 ; proto=https , for=10.0.0.2"], ("192.0.2.7", 0), "http", id="scheme of the last element"),
        pytest.param(["for=192.0.2.7;host=a;by=_x;proto=https;ext=1"], ("192.0.2.7", 0), "https", id="other parameters"),
        pytest.param(['for=192.0.2.7;host="a,b;c=d"'], ("192.0.2.7", 0), "http", id="separators in quotes"),
        pytest.param(["for=192.0.2.7;"], ("192.0.2.7", 0), "http", id="semicolon at the end"),
        pytest.param(["for=unknown"], PEER, "http", id="unknown"),
        pytest.param(["for=_hidden;proto=https"], PEER, "https", id="obfuscated: the scheme is good all the same"),
        pytest.param(['for="_SEVKISEK"'], PEER, "http", id="obfuscated and quoted"),
        pytest.param(["for=192.0.2.7, for=unknown"], PEER, "http", id="one unknown voids the addresses"),
        pytest.param(["for=unknown, for=192.0.2.7"], PEER, "http", id="wherever it stands"),
        pytest.param(["proto=https"], PEER, "https", id="scheme only"),
        pytest.param(["for=192.0.2.7;proto=gopher"], ("192.0.2.7", 0), "http", id="unknown scheme"),
    ],
)
def test_rfc7239_forwarded(values: list[str], client: tuple[str, int], scheme: str) -> None:
    scope = applied(*forwarded(*values))
    assert (scope["client"], scope["scheme"]) == (client, scheme)


@pytest.mark.parametrize(
    "value",
    [
        "", "for", "for=", "=1", "for = 192.0.2.7", 'for="192.0.2.7', 'for=192.0.2.7"', "for=192.0.2.7,", ",for=192.0.2.7",
        "for=192.0.2.7,,for=1", "for=192.0.2.7 proto=https", "f(r=192.0.2.7", 'for="192.0.2.7\\', "for=192.0.2.7;;proto=https", "192.0.2.7",
    ],
)  # fmt: skip
def test_rfc7239_4_a_malformed_field_is_void(value: str) -> None:
    scope = applied(*forwarded(value))
    assert (scope["client"], scope["scheme"]) == (PEER, "http")


def test_forwarded_counts_where_x_forwarded_for_is_absent() -> None:
    assert applied(*forwarded("for=192.0.2.7"))["client"] == ("192.0.2.7", 0)


@pytest.mark.parametrize("value", ["198.51.100.1", "nonsense"])
def test_x_forwarded_for_counts_where_both_arrive_even_if_it_is_void(value: str) -> None:
    scope = applied(*forwarded("for=192.0.2.7;proto=https"), *xff(value))
    assert scope["client"] == (("198.51.100.1", 0) if value != "nonsense" else PEER)
    assert scope["scheme"] == "http"


def test_forwarded_as_address_header_turns_that_round() -> None:
    scope = applied(
        *forwarded("for=192.0.2.7;proto=https"), *xff("198.51.100.1"), ("X-Forwarded-Proto", "http"), address_header="Forwarded"
    )
    assert (scope["client"], scope["scheme"]) == (("192.0.2.7", 0), "https")


# ---------------------------------------------------------------------- laws

SEPARATORS = [*' "\\;,=[]:%', "\t", "\xff"]
PIECES = st.sampled_from([*SEPARATORS, "for=", "proto=", "by=", "::1", "192.0.2.7", "10.0.0.1", "_x", "unknown", "https"])
VALUES = st.lists(PIECES, max_size=12).map("".join) | st.binary(max_size=30).map(lambda data: data.decode("latin-1"))


@given(st.lists(st.tuples(st.sampled_from(["Forwarded", "X-Forwarded-For", "X-Forwarded-Port", "X-Forwarded-Proto"]), VALUES), max_size=4))
@example([("Forwarded", 'for="' + "\\" * 4_000)])
@example([("Forwarded", " " * 8_000)])
@example([("Forwarded", "for=1" + " " * 8_000 + "x")])
@example([("X-Forwarded-For", "[" + "1" * 8_000)])
@example([("X-Forwarded-For", "1." * 4_000)])
def test_law_no_field_raises_and_what_comes_out_is_an_address(fields: list[tuple[str, str]]) -> None:
    scope = applied(*fields)
    host, port = scope["client"]
    assert set(host) <= set("0123456789abcdef:.")
    assert 0 <= port <= 65_535
    assert scope["scheme"] in {"http", "https"}


def test_f1_only_so_many_addresses_are_looked_at_from_the_right() -> None:
    assert applied(*xff("nonsense, " * 1_000 + "10.0.0.1, " * 31 + "192.0.2.7"))["client"] == ("192.0.2.7", 0)


@pytest.mark.parametrize(("proto", "scheme"), [("http", "ws"), ("ws", "ws"), ("https", "wss"), ("gopher", "wss"), ("", "wss")])
def test_proxy_that_speaks_tls_to_us_may_say_that_its_websocket_client_did_not(proto: str, scheme: str) -> None:
    scope: Scope = {"type": "websocket", "client": PEER, "scheme": "wss", "headers": [(b"x-forwarded-proto", proto.encode())]}
    TrustedProxies(TRUSTED, "X-Forwarded-For", "X-Forwarded-Port").apply(scope)
    assert scope["scheme"] == scheme


def test_f1_a_stranger_has_no_say_in_a_websocket_s_scheme_and_client() -> None:
    stranger = ("203.0.113.9", 1)
    headers = [(b"x-forwarded-for", b"192.0.2.7"), (b"x-forwarded-proto", b"https")]
    scope: Scope = {"type": "websocket", "client": stranger, "scheme": "ws", "headers": headers}
    TrustedProxies(TRUSTED, "X-Forwarded-For", "X-Forwarded-Port").apply(scope)
    assert (scope["client"], scope["scheme"]) == (stranger, "ws")
