"""The opening handshake of a WebSocket (RFC 6455 §4.2, §9.1, §11.3; RFC 7692 §7.1; spec attacks D4 to D6)."""

import itertools
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.headers import build_extension, parse_extension
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from termserver.errors import InvalidMessage
from termserver.wire.events import Ending, Fields, Request
from termserver.wire.handshake import HandshakeRefused, Opening, accept_value, negotiate_deflate, read_opening, read_subprotocols
from wire.driving import SLOWER, Driver, engine
from wire.frames import TEXT, frame

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 §1.3
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
NO_CONTEXT = b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"
NO_CONTEXT_9 = b"permessage-deflate; server_no_context_takeover; server_max_window_bits=9; client_no_context_takeover"
WINDOWS = range(9, 16)


def asking(*fields: tuple[bytes, bytes], method: str = "GET", key: bytes | None = KEY, version: bytes | None = b"13") -> Request:
    """Make a request that asks for a WebSocket, with more fields."""
    headers: Fields = [(b"host", b"a"), (b"upgrade", b"websocket"), (b"connection", b"Upgrade")]
    if key is not None:
        headers.append((b"sec-websocket-key", key))
    if version is not None:
        headers.append((b"sec-websocket-version", version))
    return Request(0, method, b"/", b"/", b"", [*headers, *fields], "1.1", True, b"websocket")


def refusal(request: Request, **options: frozenset[bytes]) -> HandshakeRefused:
    """Give the refusal of a request."""
    with pytest.raises(HandshakeRefused) as caught:
        read_opening(request, **options)
    assert str(caught.value.status) in str(caught.value)
    return caught.value


def opening(*subprotocols: str, extensions: bytes = b"") -> Opening:
    return Opening(KEY, list(subprotocols), extensions, 15 if extensions else 0)


# ---------------------------------------------------------------------- key, version, method


def test_rfc6455_4_2_2_the_example() -> None:
    assert accept_value(KEY) == ACCEPT
    got = read_opening(asking())
    assert got == Opening(KEY, [], b"", 0)
    assert got.answer(None, []) == [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-accept", ACCEPT)]


@pytest.mark.parametrize("key", [b"AAAAAAAAAAAAAAAAAAAAAA==", b"/+/+/+/+/+/+/+/+/+/+/w==", b"x3JJHMbDL1EzLkh9GBhXDw=="])
def test_rfc6455_4_1_keys(key: bytes) -> None:
    assert read_opening(asking(key=key)).key == key


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(None, id="none"),
        pytest.param(b"", id="empty"),
        pytest.param(b"dGhlIHNhbXBsZSBub25jZQ", id="no padding"),
        pytest.param(b"dGhlIHNhbXBsZSBub25jZQ=", id="half the padding"),
        pytest.param(b"dGhlIHNhbXBsZSBub25jZQ===", id="too much padding"),
        pytest.param(b"dGhlIHNhbXBsZSBub25jZWU=", id="17 bytes"),
        pytest.param(b"dGhlIHNhbXBsZSBub25j", id="15 bytes"),
        pytest.param(b"dGhlIHNhbXBsZSBub25jZQ==dGhlIHNhbXBsZSBub25jZQ==", id="twice as long"),
        pytest.param(b"dGhlIHNhbXBsZSBub25jZ-==", id="the other alphabet"),
        pytest.param(b"dGhlIHNhbXBsZSBub25jZ\xe9==", id="no ASCII"),
        pytest.param(b"dGhlIHNhbXBsZSBub25jZ ==", id="a blank"),
        pytest.param(b"dGhlIHNhbXBsZSBub25jZQ== ", id="a blank behind"),
        pytest.param(b"dGhlIHNhbXBsZSBub25jZQ==\n", id="a line end"),
        pytest.param(b"======================  ", id="padding only"),
    ],
)
def test_d5_a_key_that_is_not_16_bytes_in_base64(key: bytes | None) -> None:
    refused = refusal(asking(key=key))
    assert (refused.status, refused.headers, refused.reason) == (400, [], "Sec-WebSocket-Key is not 16 bytes in base64")


@pytest.mark.parametrize("second", [KEY, b"AAAAAAAAAAAAAAAAAAAAAA==", b""])
def test_rfc6455_11_3_1_one_key(second: bytes) -> None:
    assert refusal(asking((b"sec-websocket-key", second))).status == 400


@pytest.mark.parametrize(
    "version", [None, b"", b"0", b"8", b"12", b"14", b"013", b"+13", b"13, 8", b"13,13", b"13.0", b"1", b"xiii", b"\xb9"]
)
def test_rfc6455_4_4_another_version(version: bytes | None) -> None:
    refused = refusal(asking(version=version))
    assert (refused.status, refused.reason) == (426, "a WebSocket version other than 13")
    assert refused.headers == [(b"sec-websocket-version", b"13"), (b"upgrade", b"websocket")]


@pytest.mark.parametrize("second", [b"13", b"8", b""])
def test_rfc6455_11_3_5_one_version(second: bytes) -> None:
    refused = refusal(asking((b"sec-websocket-version", second)))
    assert (refused.status, refused.headers, refused.reason) == (400, [], "more than one Sec-WebSocket-Version")


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "OPTIONS", "get", "CONNECT"])
def test_rfc6455_4_1_the_method_is_get(method: str) -> None:
    refused = refusal(asking(method=method))
    assert (refused.status, refused.reason) == (400, "a WebSocket handshake whose method is not GET")


def test_a_refusal_says_why_and_no_more() -> None:
    first, second = HandshakeRefused(400, "why"), HandshakeRefused(400, "why")
    first.headers.append((b"x", b"y"))
    assert (second.headers, second.args) == ([], (400, "why"))


# ---------------------------------------------------------------------- origins

EXAMPLE = frozenset({b"https://example.com", b"https://.example.org", b"http://localhost:8000"})


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (b"https://example.com", True),
        (b"HTTPS://Example.COM", True),
        (b"http://localhost:8000", True),
        (b"https://example.org", True),
        (b"https://a.example.org", True),
        (b"https://a.b.example.org", True),
        (b"https://A.Example.Org", True),
        (b"http://example.com", False),
        (b"https://example.com:443", False),
        (b"https://example.com:8443", False),
        (b"https://example.com/", False),
        (b"https://a.example.com", False),
        (b"https://example.com.evil", False),
        (b"https://evil.com", False),
        (b"http://a.example.org", False),
        (b"https://aexample.org", False),
        (b"https://example.org.evil", False),
        (b"https://a.example.org:8443", False),
        (b"wss://a.example.org", False),
        (b"http://localhost", False),
        (b"http://localhost:80000", False),
        (b"null", False),
        (b"", False),
        (b"://", False),
        (b"://.example.org", False),
        (b"https://", False),
        (b"https", False),
        (b"example.com", False),
        (b".example.org", False),
        (b"https://example.com https://evil.com", False),
        (b"https://example.com, https://evil.com", False),
        (b"https://ex\xe4mple.com", False),
    ],
)
def test_d6_origins(origin: bytes, allowed: bool) -> None:
    request = asking((b"origin", origin))
    assert read_opening(request).key == KEY  # by default the application decides
    if allowed:
        assert read_opening(request, origins=EXAMPLE).key == KEY
    else:
        refused = refusal(request, origins=EXAMPLE)
        assert (refused.status, refused.headers, refused.reason) == (403, [], "an Origin that is not among the allowed origins")


def test_d6_a_client_without_an_origin_is_no_browser() -> None:
    assert read_opening(asking(), origins=EXAMPLE).key == KEY


@pytest.mark.parametrize("place", [0, 1])
def test_d6_every_origin_has_to_be_allowed(place: int) -> None:
    origins = [(b"origin", b"https://example.com")] * 2
    assert read_opening(asking(*origins), origins=EXAMPLE).key == KEY
    origins[place] = (b"origin", b"https://evil.com")
    assert refusal(asking(*origins), origins=EXAMPLE).status == 403


def test_d6_null_and_schemes_of_extensions_can_be_allowed() -> None:
    origins = frozenset({b"null", b"chrome-extension://abc"})
    for origin in origins:
        assert read_opening(asking((b"origin", origin)), origins=origins).key == KEY
    assert refusal(asking((b"origin", b"chrome-extension://abd")), origins=origins).status == 403


# ---------------------------------------------------------------------- subprotocols


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([b"chat"], ["chat"]),
        ([b"chat, superchat"], ["chat", "superchat"]),
        ([b"chat,superchat"], ["chat", "superchat"]),
        ([b"chat", b"superchat"], ["chat", "superchat"]),
        ([b" chat\t,\t superchat ", b"x"], ["chat", "superchat", "x"]),
        ([b",chat,, ,superchat,"], ["chat", "superchat"]),
        ([b""], []),
        ([b" , \t,"], []),
        ([b"graphql-transport-ws"], ["graphql-transport-ws"]),
        ([b"v1.a!#$%&'*+-.^_`|~z"], ["v1.a!#$%&'*+-.^_`|~z"]),
        ([b"Chat, chat"], ["Chat", "chat"]),
        ([b"websocket, base64.secret"], ["websocket", "base64.secret"]),
    ],
)
def test_rfc6455_11_3_4_subprotocols_in_order(values: list[bytes], names: list[str]) -> None:
    assert read_opening(asking(*[(b"sec-websocket-protocol", value) for value in values])).subprotocols == names
    assert read_subprotocols(b",".join(values)) == names


@pytest.mark.parametrize(
    "value",
    [
        b"ch\xe4t",
        b"chat, \xff",
        b"\xc5\xbc",
        b"chat superchat",
        b'"chat"',
        b"a/b",
        b"a:b",
        b"chat;q=1",
        b"(chat)",
        b"chat\x00",
        b"chat\x7f",
        b"a=b",
    ],
)
def test_d5_a_subprotocol_that_is_no_token(value: bytes) -> None:
    refused = refusal(asking((b"sec-websocket-protocol", value)))
    assert (refused.status, refused.headers, refused.reason) == (400, [], "Sec-WebSocket-Protocol is not a list of tokens")
    assert refusal(asking((b"sec-websocket-protocol", b"fine"), (b"sec-websocket-protocol", value))).status == 400


# ---------------------------------------------------------------------- extensions: the grammar


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b",",
        b" , ,\t,",
        b"foo",
        b"foo, bar",
        b"foo; a; b=c; d",
        b'foo; a="b"',
        b'foo; a="\\b"',
        b'foo ; a = "b" ; c , bar',
        b"x-webkit-deflate-frame",
        b"permessage-bzip2; client_max_compress_level",
        b"permessage-deflate-2",
        b"Permessage-Deflate; x",
        b"foo; permessage-deflate",
        b"foo; a, foo; a; a",
        b"!#$%&'*+-.^_`|~; !#$%&'*+-.^_`|~",
    ],
)
def test_rfc6455_9_1_what_is_not_known_is_declined(value: bytes) -> None:
    assert negotiate_deflate(value) == (b"", 0)


@pytest.mark.parametrize(
    "value",
    [
        b"permessage-deflate",
        b" permessage-deflate ",
        b"\tpermessage-deflate\t",
        b",permessage-deflate",
        b"permessage-deflate,",
        b", ,permessage-deflate, ,",
        b"permessage-deflate;client_max_window_bits",
        b"permessage-deflate ;\tclient_max_window_bits ",
        b'permessage-deflate; client_max_window_bits="10"',
        b'permessage-deflate; client_max_window_bits = "1\\0"',
        b"foo, permessage-deflate",
        b'foo; a="b", permessage-deflate, bar',
    ],
)
def test_rfc6455_9_1_blanks_quotes_and_empty_members(value: bytes) -> None:
    assert negotiate_deflate(value) == (NO_CONTEXT, 15)
    assert read_opening(asking((b"sec-websocket-extensions", value))) == Opening(KEY, [], NO_CONTEXT, 15)


@pytest.mark.parametrize(
    "value",
    [
        b";",
        b"=",
        b"foo;",
        b"foo; ",
        b"foo;;a",
        b"foo; a;",
        b"foo;, bar",
        b"foo; a=",
        b"foo; a=, bar",
        b"foo; a=;b",
        b"foo; =b",
        b"foo=bar",
        b'foo="bar"',
        b"foo bar",
        b"foo; a b",
        b"foo; a=b c",
        b"foo; a=b=c",
        b"foo/bar",
        b"foo; a=b/c",
        b"(foo)",
        b'"foo"',
        b'foo; "a"',
        b'foo; a="',
        b'foo; a="b',
        b'foo; a="b\\"',
        b'foo; a="b"c',
        b'foo; a="b""c"',
        b'foo; a=""',
        b'foo; a="b c"',
        b'foo; a="b,c"',
        b'foo; a="b;c"',
        b'foo; a="b\\"c"',
        b'foo; a="\\\\"',
        b'foo; a="\xc5\xbc"',
        b"foo; a=\xc5\xbc",
        b"f\xc5\xbc",
        b"foo\x00",
        b"foo\xa0",
        b"permessage-deflate; client_max_window_bits; ",
        b"permessage-deflate, foo;",  # whatever comes ahead
        b"foo\x0b, permessage-deflate",
    ],
)
def test_rfc6455_9_1_malformed(value: bytes) -> None:
    for fields in ([(b"sec-websocket-extensions", value)], [(b"sec-websocket-extensions", b"foo"), (b"sec-websocket-extensions", value)]):
        refused = refusal(asking(*fields))
        assert (refused.status, refused.headers, refused.reason) == (400, [], "malformed Sec-WebSocket-Extensions")


def test_rfc6455_9_1_a_field_in_several_lines() -> None:
    fields = [(b"sec-websocket-extensions", value) for value in (b"foo; a", b"permessage-deflate; server_max_window_bits=10", b"bar")]
    assert read_opening(asking(*fields)).window_bits == 10


def test_no_deflate_where_it_is_turned_off() -> None:
    request = asking((b"sec-websocket-extensions", b"permessage-deflate"))
    assert read_opening(request, deflate=False) == Opening(KEY, [], b"", 0)


# ---------------------------------------------------------------------- extensions: permessage-deflate


def test_rfc7692_7_1_every_combination_of_parameters() -> None:
    server = ["", *[f"; server_max_window_bits={bits}" for bits in WINDOWS]]
    client = ["", "; client_max_window_bits", *[f"; client_max_window_bits={bits}" for bits in WINDOWS]]
    no_context = ["", "; server_no_context_takeover"], ["", "; client_no_context_takeover"]
    for parts in itertools.product(server, client, *no_context):
        offer = "permessage-deflate" + "".join(parts)
        window = parts[0].rpartition("=")[2]
        answer, bits = negotiate_deflate(offer.encode())
        assert bits == int(window or 15)
        name, *parameters = answer.decode().split("; ")
        assert name == "permessage-deflate"
        wanted = ["client_no_context_takeover", "server_no_context_takeover", *([f"server_max_window_bits={bits}"] if window else [])]
        assert sorted(parameters) == sorted(wanted)


@pytest.mark.parametrize("server_bits", [None, *WINDOWS])
@pytest.mark.parametrize("client_bits", [None, True, *WINDOWS])
def test_rfc7692_7_1_a_client_nobody_here_wrote_takes_the_answer(server_bits: int | None, client_bits: bool | int | None) -> None:
    for server_alone, client_alone in itertools.product([False, True], repeat=2):
        factory = ClientPerMessageDeflateFactory(server_alone, client_alone, server_bits, client_bits)
        answer, bits = negotiate_deflate(build_extension([(factory.name, list(factory.get_request_params()))]).encode())
        [(name, parameters)] = parse_extension(answer.decode())
        assert name == factory.name
        taken = factory.process_response_params(parameters, [])
        assert (taken.remote_no_context_takeover, taken.local_no_context_takeover) == (True, True)
        assert taken.remote_max_window_bits == bits == (server_bits or 15)


@pytest.mark.parametrize(
    "parameters",
    [
        *[
            f"server_max_window_bits={value}"
            for value in ("8", "7", "0", "1", "16", "09", "010", "+9", "-9", "1_0", "9.0", "1e1", "0xa", "x")
        ],
        *[
            f"client_max_window_bits={value}"
            for value in ("8", "7", "0", "1", "16", "09", "010", "+9", "-9", "1_0", "9.0", "1e1", "0xa", "x")
        ],
        *[f'{side}_max_window_bits="{value}"' for side in ("server", "client") for value in ("8", "09", "+9", "16", "true", "True")],
        "server_max_window_bits",
        "server_max_window_bits=100",
        "server_max_window_bits=1000000000000000000000",
        "server_no_context_takeover=1",
        "server_no_context_takeover=true",
        'server_no_context_takeover="x"',
        "client_no_context_takeover=0",
        "client_no_context_takeover=true",
        "server_max_window_bits=10; server_max_window_bits=10",
        "server_max_window_bits=10; server_max_window_bits=11",
        "client_max_window_bits; client_max_window_bits",
        "client_max_window_bits; client_max_window_bits=10",
        "client_max_window_bits=8; client_max_window_bits=10",
        "server_no_context_takeover; server_no_context_takeover",
        "client_no_context_takeover; server_no_context_takeover; client_no_context_takeover",
        "x",
        "x=1",
        "mem_level=9",
        "Server_No_Context_Takeover",
        "server_max_window_bits=10; x",
    ],
)
def test_rfc7692_7_1_offers_that_are_declined(parameters: str) -> None:
    bad = f"permessage-deflate; {parameters}".encode()
    assert negotiate_deflate(bad) == (b"", 0)
    assert read_opening(asking((b"sec-websocket-extensions", bad))) == Opening(KEY, [], b"", 0)
    # RFC 7692 §5: another offer is a fallback
    assert negotiate_deflate(bad + b", permessage-deflate; server_max_window_bits=9") == (NO_CONTEXT_9, 9)


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (b"permessage-deflate; server_max_window_bits=12, permessage-deflate", 12),
        (b"permessage-deflate, permessage-deflate; server_max_window_bits=12", 15),
        (b"permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=11, permessage-deflate", 11),
        (b"permessage-bzip2, permessage-deflate; x, permessage-deflate; server_max_window_bits=13", 13),
        (b"permessage-deflate; server_max_window_bits=15", 15),
    ],
)
def test_rfc7692_7_1_the_first_offer_that_can_be_served(value: bytes, bits: int) -> None:
    answer, window = negotiate_deflate(value)
    assert window == bits
    assert answer.count(b"permessage-deflate") == 1


# ---------------------------------------------------------------------- the answer


def test_the_answer_has_the_applications_fields_in_order_behind_the_servers() -> None:
    own = [
        (b"X-B", b"1"),
        (b"set-cookie", b"a=b"),
        (b"X-A", b"2"),
        (b"set-cookie", b"c=d"),
        (b"x-empty", b""),
        (b"date", b"now"),
        (b"server", b"me"),
    ]
    got = opening("one", "two", extensions=NO_CONTEXT).answer("two", own)
    assert got == [
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-accept", ACCEPT),
        (b"sec-websocket-protocol", b"two"),
        (b"sec-websocket-extensions", NO_CONTEXT),
        *own,
    ]


@pytest.mark.parametrize(
    "name", [b"Connection", b"Content-Length", b"Keep-Alive", b"Proxy-Connection", b"Transfer-Encoding", b"Upgrade", b"UPGRADE"]
)
def test_framing_is_left_out(name: bytes) -> None:
    own = [(b"x", b"1"), (name, b"close"), (b"y", b"2")]
    assert opening().answer(None, own)[3:] == [(b"x", b"1"), (b"y", b"2")]
    assert opening().answer(None, own)[:3] == opening().answer(None, [])


@pytest.mark.parametrize("name", [b"sec-websocket-accept", b"Sec-WebSocket-Extensions", b"Sec-WebSocket-Protocol", b"SEC-WEBSOCKET-ACCEPT"])
def test_fields_that_are_the_servers_to_send(name: bytes) -> None:
    with pytest.raises(InvalidMessage, match="the server's to send"):
        opening("one").answer("one", [(name, b"one")])


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [([], "one"), (["one", "two"], "three"), (["one"], "One"), (["one"], ""), (["one", "two"], "one, two"), (["one"], "żółw")],
)
def test_rfc6455_4_2_2_a_subprotocol_that_was_not_offered(offered: list[str], chosen: str) -> None:
    with pytest.raises(InvalidMessage, match="one that the client offered"):
        opening(*offered).answer(chosen, [])


@pytest.mark.parametrize(
    "field",
    [
        pytest.param((b"x", b"a\r\nset-cookie: b"), id="CR LF in a value"),
        pytest.param((b"x", b"a\nb"), id="LF in a value"),
        pytest.param((b"x", b"a\rb"), id="CR in a value"),
        pytest.param((b"x", b"a\x00b"), id="NUL in a value"),
        pytest.param((b"x\r\ny", b"a"), id="CR LF in a name"),
        pytest.param((b"x y", b"a"), id="a blank in a name"),
        pytest.param((b"x:", b"a"), id="a colon in a name"),
        pytest.param((b"", b"a"), id="no name"),
        pytest.param((b"connection", b"a\nb"), id="in a field that is left out"),
        pytest.param(("x", b"a"), id="a string for a name"),
        pytest.param((b"x", "a"), id="a string for a value"),
        pytest.param((b"x", None), id="None for a value"),
        pytest.param((b"x",), id="one"),
        pytest.param((b"x", b"a", b"b"), id="three"),
        pytest.param(None, id="none"),
    ],
)
def test_b5_fields_that_are_no_fields(field: tuple[bytes, ...]) -> None:
    with pytest.raises(InvalidMessage):
        opening().answer(None, [(b"fine", b"fine"), field])


@pytest.mark.parametrize("pair", [tuple, list])
def test_fields_may_be_any_pairs(pair: type) -> None:
    assert opening().answer(None, iter([pair((b"x", b"y"))]))[3:] == [(b"x", b"y")]


# ---------------------------------------------------------------------- the whole, with a client nobody here wrote


@pytest.mark.parametrize("compresses", [False, True])
@pytest.mark.parametrize("subprotocol", [None, "two"])
def test_a_whole_handshake(subprotocol: str | None, compresses: bool) -> None:
    factory = ClientPerMessageDeflateFactory(client_max_window_bits=True, server_max_window_bits=11)
    client = ClientProtocol(
        parse_uri("ws://example.com/chat?a=b"),
        extensions=[factory] if compresses else [],
        subprotocols=[Subprotocol("one"), Subprotocol("two")] if subprotocol else None,
    )
    client.send_request(client.connect())
    driver = Driver(engine())
    behind = frame(TEXT, b"early")
    got = driver.feed(b"".join(client.data_to_send()) + behind).got
    assert [(one.request.method, one.request.upgrade, one.request.target) for one in got] == [("GET", b"websocket", b"/chat?a=b")]
    opened = read_opening(got[0].request)
    rest = driver.http.upgrade(0, opened.answer(subprotocol, [(b"set-cookie", b"a=b")]))
    assert (rest, driver.http.ending) == (behind, Ending.SWITCHED)
    client.receive_data(driver.http.output())
    [response] = client.events_received()
    assert isinstance(response, Response)
    assert client.handshake_exc is None
    assert client.state is State.OPEN
    assert client.subprotocol == subprotocol
    assert len(client.extensions) == compresses
    assert response.headers["set-cookie"] == "a=b"


# ---------------------------------------------------------------------- laws, and cost

PIECES = st.sampled_from(
    [
        *[b"permessage-deflate", b"server_max_window_bits", b"client_max_window_bits", b"server_no_context_takeover"],
        *[b"foo", b";", b",", b"=", b'"', b"\\", b" ", b"\t", b"9", b"10", b"15", b"8", b"\x00", b"\xe9", b"a"],
    ]
)
FIELDS = st.tuples(
    st.sampled_from(
        [b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-protocol", b"sec-websocket-extensions", b"origin", b"x", b"host"]
    ),
    st.one_of(st.binary(max_size=20), st.lists(PIECES, max_size=12).map(b"".join), st.sampled_from([KEY, b"13", b"https://example.com"])),
)


@given(st.lists(FIELDS, max_size=5), st.booleans(), st.sampled_from([frozenset(), EXAMPLE]))
def test_no_request_raises_anything_else(fields: list[tuple[bytes, bytes]], deflate: bool, origins: frozenset[bytes]) -> None:
    with suppress(HandshakeRefused):
        got = read_opening(asking(*fields), deflate=deflate, origins=origins)
        answer = got.answer(got.subprotocols[-1] if got.subprotocols else None, [])
        assert all(b"\r" not in value and b"\n" not in value for _, value in answer)
        assert (got.window_bits in WINDOWS) is bool(got.extensions)


@given(st.lists(PIECES, max_size=25).map(b"".join))
def test_what_follows_the_grammar_for_websockets_does_so_here(value: bytes) -> None:
    """Their parser takes some things that RFC 6455 does not; the other way round nothing may slip through."""
    with suppress(HandshakeRefused):
        negotiate_deflate(value)
        if value.strip(b" \t,"):
            parse_extension(value.strip(b" \t").decode())  # as an engine hands it over


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"," * 60_000, id="empty members"),
        pytest.param(b" " * 60_000 + b"\x00", id="blanks"),
        pytest.param(b"\t ," * 20_000 + b"\x00", id="empty members with blanks"),
        pytest.param(b"a" * 60_000 + b"\x00", id="a long name"),
        pytest.param(b"a;b" + b" " * 60_000 + b"\x00", id="blanks behind a parameter"),
        pytest.param(b"a;b=" + b" " * 60_000 + b"\x00", id="blanks behind an equals sign"),
        pytest.param(b'a;b="' + b"\\a" * 30_000, id="escapes without an end"),
        pytest.param(b'a;b="' + b"a" * 60_000, id="a quote without an end"),
        pytest.param(b"a" + b";b" * 30_000 + b"\x00", id="parameters"),
        pytest.param(b"permessage-deflate" + b";server_max_window_bits=9" * 2_500, id="one parameter many times"),
        pytest.param(b"permessage-deflate;x," * 3_000, id="offers that are declined"),
    ],
)
def test_e8_no_field_is_looked_at_twice(value: bytes) -> None:
    before = time.process_time()
    with suppress(HandshakeRefused):
        read_opening(asking((b"sec-websocket-extensions", value)))
    with suppress(HandshakeRefused):
        read_opening(asking((b"sec-websocket-protocol", value)))
    assert time.process_time() - before < 0.5 * SLOWER


# ---------------------------------------------------------------------- RFC 8441: over HTTP/2


def connecting(*fields: tuple[bytes, bytes], version: bytes | None = b"13") -> Request:
    """Make the request that an extended CONNECT is."""
    headers: Fields = [(b"host", b"a"), *fields]
    if version is not None:
        headers.append((b"sec-websocket-version", version))
    return Request(1, "CONNECT", b"/", b"/", b"", headers, "2", False, b"websocket")


def test_rfc8441_5_there_is_neither_key_nor_accept_value() -> None:
    asked = connecting((b"sec-websocket-protocol", b"chat"), (b"sec-websocket-extensions", b"permessage-deflate"))
    answer = read_opening(asked).answer("chat", [(b"x-more", b"1")])
    assert answer == [(b"sec-websocket-protocol", b"chat"), (b"sec-websocket-extensions", NO_CONTEXT), (b"x-more", b"1")]


def test_rfc8441_5_a_key_is_not_looked_at() -> None:
    assert read_opening(connecting((b"sec-websocket-key", b"nonsense"))).answer(None, []) == []


@pytest.mark.parametrize("version", [None, b"8"])
def test_rfc8441_5_another_version_cannot_be_upgraded_to(version: bytes | None) -> None:
    refused = refusal(connecting(version=version))
    assert (refused.status, refused.headers) == (400, [(b"sec-websocket-version", b"13")])
