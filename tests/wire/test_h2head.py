"""Request heads of HTTP/2: every rule of RFC 9113 §8.2 and §8.3, RFC 8441 §4, and that nothing remembered changes a verdict."""

from collections.abc import Callable
from contextlib import suppress

import pytest
from h2.errors import ErrorCodes
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.table import HeaderTable
from hypothesis import given
from hypothesis import strategies as st

from termserver.config import Limits
from termserver.wire import h2head
from termserver.wire.events import Fault, Fields, Rejected, Request
from termserver.wire.fieldblock import RefusedError
from termserver.wire.fields import FORBIDDEN_TRAILERS, METHODS, REPEATED, Underscores, is_target
from termserver.wire.h2head import Head, HeadReader, HeadRules, MalformedError, read_priority
from termserver.wire.h2response import ResponseEncoder
from termserver.wire.head import Framing, HeadParser
from termserver.wire.hpack import CompressionError, ListTooLargeError
from termserver.wire.http2 import Http2, Http2Terms
from wire.driving import engine as http1
from wire.h2driving import CONNECT, WAYS, Client, block, data, fields, get, headers

OTHER = [(b"user-agent", b"a"), (b"x-id", b"1")]
_huffman = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


def make_rules(*, underscores: Underscores = Underscores.DROP, allowed: tuple[bytes, ...] = (), **limits: int) -> HeadRules:
    return HeadRules(Limits(**limits), underscores=underscores, allowed_hosts=frozenset(allowed))


def make_reader(rules: HeadRules | None = None, **limits: int) -> HeadReader:
    return HeadReader(rules or make_rules(**limits), Limits(**limits))


def make_client(
    way: str = "whole", *, underscores: Underscores = Underscores.DROP, allowed: tuple[bytes, ...] = (), **limits: int
) -> Client:
    rules = make_rules(underscores=underscores, allowed=allowed, **limits)
    return Client(way, engine=Http2(Http2Terms(Limits(**limits), rules, ResponseEncoder(b""))))


def without(*names: bytes) -> Fields:
    return [field for field in fields() if field[0] not in names]


def of(field: bytes, value: bytes) -> Fields:
    """Give a request with another value of one field."""
    return [(name, value if name == field else old) for name, old in fields()]


def connect(*changes: tuple[bytes, bytes | None], more: Fields = []) -> Fields:  # noqa: B006 - never written to
    """Give an extended CONNECT, some of it replaced or left out."""
    changed = dict(changes)
    return [(name, value) for name, old in CONNECT if (value := changed.get(name, old)) is not None] + more


def literal(number: int, value: bytes) -> bytes:
    """Encode a field that is not indexed, its name the static table's."""
    return bytes((number, len(value))) + value


# ---------------------------------------------------------------------- RFC 9113 §8.3: pseudo-header fields

MALFORMED = [
    # §8.3
    pytest.param([*fields(), (b":method", b"GET")], id="two :method"),
    pytest.param([*fields(), (b":path", b"/")], id="two :path"),
    pytest.param([*fields(), (b":scheme", b"https")], id="two :scheme"),
    pytest.param([*fields(), (b":authority", b"a")], id="two :authority"),
    pytest.param([*fields(), (b":status", b"200")], id="a response's"),
    pytest.param([*fields(), (b":unknown", b"a")], id="an unknown one"),
    pytest.param([*fields(), (b":", b"a")], id="a colon and nothing"),
    pytest.param([*fields(), (b":Path", b"/b")], id="upper case"),
    pytest.param([*without(b":path"), (b"user-agent", b"a"), (b":path", b"/")], id="behind a regular one"),
    pytest.param([*without(b":path"), (b"accept", b"*/*"), (b":path", b"/")], id="behind one that is kept"),
    pytest.param([*without(b":path"), (b"host", b"a"), (b":path", b"/")], id="behind host"),
    pytest.param([*without(b":path"), (b"proxy", b"a"), (b":path", b"/")], id="behind proxy"),
    pytest.param([*without(b":path"), (b"a_b", b"a"), (b":path", b"/")], id="behind one that is dropped"),
    # §8.3.1
    pytest.param([], id="nothing"),
    pytest.param(without(b":method"), id="no :method"),
    pytest.param(without(b":scheme"), id="no :scheme"),
    pytest.param(without(b":path"), id="no :path"),
    pytest.param(without(b":scheme", b":path"), id="no :scheme, no :path"),
    pytest.param(of(b":method", b""), id="empty :method"),
    pytest.param(of(b":method", b"G T"), id="blank in :method"),
    pytest.param(of(b":method", b"GET\n"), id="line end in :method"),
    pytest.param(of(b":method", b"G\xe9T"), id="obs-text in :method"),
    pytest.param(of(b":scheme", b""), id="empty :scheme"),
    pytest.param(of(b":scheme", b"ht tp"), id="blank in :scheme"),
    pytest.param(of(b":scheme", b"https://"), id=":scheme with a separator"),
    pytest.param(of(b":scheme", b"http\r\n"), id="line end in :scheme"),
    pytest.param(of(b":path", b""), id="empty :path"),
    pytest.param(of(b":path", b"*"), id="* for GET"),
    pytest.param(fields(b"OPTIONS", b"**"), id="** for OPTIONS"),
    pytest.param(fields(b"OPTIONS", b"*/"), id="*/ for OPTIONS"),
    pytest.param(of(b":path", b"a"), id=":path without a slash"),
    pytest.param(of(b":path", b"?a"), id=":path of a query only"),
    pytest.param(of(b":path", b"https://a/"), id=":path in absolute-form"),
    pytest.param(of(b":path", b"/a b"), id="blank in :path"),
    pytest.param(of(b":path", b"/a#b"), id="fragment in :path"),
    pytest.param(of(b":path", b"/\x00"), id="NUL in :path"),
    pytest.param(of(b":path", b"/a\r\nb: c"), id="line end in :path"),
    pytest.param(of(b":path", b"/\x7f"), id="DEL in :path"),
    pytest.param(of(b":path", b"/\xc3\xa9"), id="UTF-8 in :path"),
    pytest.param(of(b":authority", b""), id="empty :authority"),
    pytest.param(of(b":authority", b"a b"), id="blank in :authority"),
    pytest.param(of(b":authority", b"a/"), id="slash in :authority"),
    pytest.param(of(b":authority", b"user@a"), id="userinfo in :authority"),
    pytest.param(of(b":authority", b"a:b"), id="no port in :authority"),
    pytest.param(of(b":authority", b"a\x00"), id="NUL in :authority"),
    pytest.param(of(b":authority", b"a\r\nb: c"), id="line end in :authority"),
    pytest.param([*fields(), (b"host", b"b")], id="host differs from :authority"),
    pytest.param([*fields(), (b"host", b"a:443")], id="host with a port"),
    pytest.param([*fields(), (b"host", b"")], id="empty host"),
    pytest.param([*fields(), (b"host", b"a"), (b"host", b"a")], id="two host"),
    pytest.param([*without(b":authority"), (b"host", b"a"), (b"host", b"a")], id="two host, no :authority"),
    pytest.param([*without(b":authority"), (b"host", b"a b")], id="blank in host"),
    pytest.param([*of(b":authority", b""), (b"host", b"a")], id="empty :authority beside host"),
    # §8.5
    pytest.param([(b":method", b"CONNECT")], id="CONNECT without :authority"),
    pytest.param([(b":method", b"CONNECT"), (b":authority", b"")], id="CONNECT with an empty :authority"),
    pytest.param([(b":method", b"CONNECT"), (b":authority", b"a:1"), (b":scheme", b"https")], id="CONNECT with :scheme"),
    pytest.param([(b":method", b"CONNECT"), (b":authority", b"a:1"), (b":path", b"/")], id="CONNECT with :path"),
    # RFC 8441 §4
    pytest.param([*fields(), (b":protocol", b"websocket")], id=":protocol of a GET"),
    pytest.param([(b":method", b"CONNECT"), (b":authority", b"a"), (b":protocol", b"websocket")], id="only :authority and :protocol"),
    pytest.param(connect((b":scheme", None)), id="extended CONNECT without :scheme"),
    pytest.param(connect((b":path", None)), id="extended CONNECT without :path"),
    pytest.param(connect((b":authority", None)), id="extended CONNECT without :authority"),
    pytest.param(connect((b":authority", None), more=[(b"host", b"a")]), id="extended CONNECT with host only"),
    pytest.param(connect((b":path", b"")), id="extended CONNECT with an empty :path"),
    pytest.param(connect((b":path", b"*")), id="extended CONNECT with *"),
    pytest.param(connect((b":scheme", b"")), id="extended CONNECT with an empty :scheme"),
    pytest.param([*CONNECT, (b":protocol", b"websocket")], id="two :protocol"),
    pytest.param(connect((b":protocol", b"web\r\nsocket")), id="line end in :protocol"),
    pytest.param(connect((b":protocol", b"\x00")), id="NUL in :protocol"),
    pytest.param(connect((b":protocol", b" websocket")), id="blank before :protocol"),
    pytest.param([*CONNECT, (b"content-length", b"0")], id="WebSocket with a length"),
    # §8.2.1
    pytest.param([*fields(), (b"", b"a")], id="no name"),
    pytest.param([*fields(), (b"X-A", b"a")], id="name in upper case"),
    pytest.param([*fields(), (b"x-A", b"a")], id="one letter of a name in upper case"),
    pytest.param([*fields(), (b"a b", b"a")], id="blank in a name"),
    pytest.param([*fields(), (b"a:b", b"a")], id="colon in a name"),
    pytest.param([*fields(), (b"a\n", b"a")], id="line end in a name"),
    pytest.param([*fields(), (b"a\x00", b"a")], id="NUL in a name"),
    pytest.param([*fields(), (b"a\x7f", b"a")], id="DEL in a name"),
    pytest.param([*fields(), (b"\xe9", b"a")], id="obs-text in a name"),
    pytest.param([*fields(), (b"a(", b"a")], id="delimiter in a name"),
    pytest.param([*fields(), (b"x", b"a\x00b")], id="NUL in a value"),
    pytest.param([*fields(), (b"x", b"a\rb")], id="CR in a value"),
    pytest.param([*fields(), (b"x", b"a\nb")], id="LF in a value"),
    pytest.param([*fields(), (b"x", b"a\r\nb: c")], id="line end in a value"),
    pytest.param([*fields(), (b"x", b"\x1b[31m")], id="control byte in a value"),
    pytest.param([*fields(), (b"x", b"\x7f")], id="DEL in a value"),
    pytest.param([*fields(), (b"x", b" a")], id="blank before a value"),
    pytest.param([*fields(), (b"x", b"a ")], id="blank after a value"),
    pytest.param([*fields(), (b"x", b"\ta")], id="tab before a value"),
    pytest.param([*fields(), (b"x", b"a\t")], id="tab after a value"),
    pytest.param([*fields(), (b"x", b" ")], id="a blank"),
    pytest.param([*fields(), (b"accept", b"a\n")], id="in a field that is kept"),
    pytest.param([*fields(), (b"cookie", b"a\x00")], id="in a cookie"),
    pytest.param([*fields(), (b"a_b", b"\n")], id="in a field that is dropped"),
    pytest.param([*fields(), (b"proxy", b"\n")], id="in proxy"),
    # §8.2.2
    pytest.param([*fields(), (b"connection", b"close")], id="connection"),
    pytest.param([*fields(), (b"connection", b"")], id="connection of nothing"),
    pytest.param([*fields(), (b"keep-alive", b"1")], id="keep-alive"),
    pytest.param([*fields(), (b"proxy-connection", b"close")], id="proxy-connection"),
    pytest.param([*fields(), (b"transfer-encoding", b"chunked")], id="transfer-encoding"),
    pytest.param([*fields(), (b"upgrade", b"websocket")], id="upgrade"),
    pytest.param([*CONNECT, (b"upgrade", b"websocket")], id="upgrade of a WebSocket"),
    pytest.param([*fields(), (b"te", b"gzip")], id="te: gzip"),
    pytest.param([*fields(), (b"te", b"")], id="te of nothing"),
    pytest.param([*fields(), (b"te", b"trailers, gzip")], id="te of more"),
    pytest.param([*fields(), (b"te", b"trailers"), (b"te", b"gzip")], id="te twice"),
    # §8.1.1
    pytest.param([*fields(), (b"content-length", b"")], id="no length"),
    pytest.param([*fields(), (b"content-length", b"a")], id="a length that is no number"),
    pytest.param([*fields(), (b"content-length", b"-1")], id="a length below 0"),
    pytest.param([*fields(), (b"content-length", b"+1")], id="a length with a sign"),
    pytest.param([*fields(), (b"content-length", b"1_0")], id="a length in Python's manner"),
    pytest.param([*fields(), (b"content-length", b"0x1")], id="a length in hexadecimal"),
    pytest.param([*fields(), (b"content-length", b"1.0")], id="a length with a point"),
    pytest.param([*fields(), (b"content-length", b"1, 1")], id="a list of lengths"),
    pytest.param([*fields(), (b"content-length", b"1" * 20)], id="a length of 20 digits"),
    pytest.param([*fields(), (b"content-length", b"1"), (b"content-length", b"1")], id="two lengths"),
]


@pytest.mark.parametrize("request_fields", MALFORMED)
def test_rfc9113_8_1_1_malformed(request_fields: Fields) -> None:
    rules = make_rules()
    rules.judge(fields(b"GET", b"/", *OTHER, (b"accept", b"*/*"), (b"accept", b"a")))
    reader = make_reader(rules)
    encoded = block(request_fields)
    for _ in range(3):  # nothing of it is remembered
        with pytest.raises(MalformedError):
            rules.judge(request_fields)
        with pytest.raises(MalformedError):
            reader.read(encoded)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("request_fields", MALFORMED)
def test_rfc9113_8_1_1_is_a_stream_error(request_fields: Fields, way: str) -> None:
    client = Client(way)
    client.send(get(1), headers(3, request_fields, ended=False), data(3, b"late"))
    assert client.resets == [(3, ErrorCodes.PROTOCOL_ERROR)]
    assert client.requests == [1]
    assert client.goaways == []
    client.respond(1)
    assert client.answer(1).body == b"ok"
    assert client.works


# ---------------------------------------------------------------------- what is right

RIGHT = [
    pytest.param(fields(), id="the least"),
    pytest.param(list(reversed(fields())), id="in another order"),
    pytest.param(fields(b"OPTIONS", b"*"), id="* for OPTIONS"),
    pytest.param(fields(b"OPTIONS", b"/"), id="a path for OPTIONS"),
    pytest.param(fields(b"GET", b"//a/../%00?b?c"), id="a path as it is"),
    pytest.param(of(b":scheme", b"http"), id="http"),
    pytest.param(of(b":scheme", b"HTTPS"), id="a scheme is of any case (RFC 3986 §3.1)"),
    pytest.param(of(b":authority", b"[::1]:443"), id="an address and a port"),
    pytest.param([*fields(), (b"x", b"")], id="an empty value"),
    pytest.param([*fields(), (b"x", b"a \t b")], id="blanks in a value"),
    pytest.param([*fields(), (b"x", b"\x80\xff")], id="obs-text in a value"),
    pytest.param([*fields(), (b"!#$%&'*+-.^`|~09az", b"a")], id="every sign of a token"),
    pytest.param([*fields(), (b"x", b"a"), (b"x", b"b")], id="a field twice"),
    pytest.param([*fields(), (b"te", b"trailers")], id="te: trailers"),
    pytest.param([*fields(), (b"te", b"Trailers")], id="te: Trailers (RFC 9110 §10.1.4)"),
    pytest.param([*fields(), (b"content-length", b"0")], id="a length of 0"),
    pytest.param([*fields(), (b"proxy-authorization", b"a")], id="proxy-authorization"),
]


@pytest.mark.parametrize("request_fields", RIGHT)
def test_rfc9113_8_3_well_formed(request_fields: Fields) -> None:
    rules, encoded = make_rules(), block(request_fields)
    reader = make_reader(rules)
    pseudo = dict(request_fields)
    for head in (rules.judge(request_fields), rules.judge(request_fields), reader.read(encoded), reader.read(encoded)):
        assert head.refusal is None
        assert (head.method.encode(), head.target) == (pseudo[b":method"], pseudo[b":path"])
        assert head.target == head.path + (b"?" + head.query if b"?" in head.target else b"")
        regular = [field for field in request_fields if not field[0].startswith(b":")]
        assert head.headers == [(b"host", pseudo[b":authority"]), *regular]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_that_http1_knows(method: bytes) -> None:
    assert make_rules().judge(fields(method)).method == METHODS[method]


def test_asgi_w10_authority_comes_first_and_replaces_host() -> None:
    rules = make_rules()
    assert rules.judge(fields(b"GET", b"/", (b"x", b"1"), (b"host", b"A"))).headers == [(b"host", b"a"), (b"x", b"1")]
    only_host = [*without(b":authority"), (b"x", b"1"), (b"host", b"A")]
    assert rules.judge(only_host).headers == [(b"host", b"A"), (b"x", b"1")]


def test_rfc9113_8_2_3_cookies_are_joined() -> None:
    rules = make_rules()
    crumbs = [(b"cookie", b"a=1"), (b"x", b"1"), (b"cookie", b"b=2; c=3"), (b"cookie", b"")]
    joined = [(b"x", b"1"), (b"cookie", b"a=1; b=2; c=3; ")]
    assert rules.judge(fields(b"GET", b"/", *crumbs)).headers[1:] == joined
    assert rules.judge(fields(b"GET", b"/", (b"cookie", b"a=1"))).headers[1:] == [(b"cookie", b"a=1")]
    assert make_reader(rules).read(block(fields(b"GET", b"/", *crumbs))).headers[1:] == joined


def test_spec_b4_proxy_is_dropped() -> None:
    assert make_rules().judge(fields(b"GET", b"/", (b"proxy", b"http://evil"), (b"x", b"1"))).headers[1:] == [(b"x", b"1")]


def test_rfc9110_8_6_content_length() -> None:
    rules = make_rules()
    assert rules.judge(fields()).length is None
    assert rules.judge(fields(b"POST", b"/", (b"content-length", b"0"))).length == 0
    head = rules.judge(fields(b"POST", b"/", (b"content-length", b"0012")))
    assert (head.length, head.headers[1:]) == (12, [(b"content-length", b"0012")])


def test_rfc9110_10_1_4_te() -> None:
    rules = make_rules()
    assert not rules.judge(fields(b"GET", b"/", (b"content-length", b"0"))).takes_trailers
    assert rules.judge(fields(b"GET", b"/", (b"te", b"trailers"))).takes_trailers


def test_rfc8441_4_websocket() -> None:
    head = make_rules().judge([*CONNECT, (b"sec-websocket-version", b"13")])
    assert (head.method, head.path, head.upgrade, head.refusal) == ("CONNECT", b"/", b"websocket", None)
    assert head.headers == [(b"host", b"a"), (b"sec-websocket-version", b"13")]
    assert make_rules().judge(fields()).upgrade is None


def test_the_event() -> None:
    head = make_rules().judge(fields(b"POST", b"/a%20b?c=d", (b"x", b"1")))
    expected = Request(5, "POST", b"/a%20b?c=d", b"/a%20b", b"c=d", [(b"host", b"a"), (b"x", b"1")], "2", False, None)
    assert head.request(5, ended=False) == expected
    first, second = head.request(1, ended=True), head.request(3, ended=True)
    first.headers.clear()  # an application may do as it likes with its own
    assert second.headers == expected.headers
    assert second.ended


@pytest.mark.parametrize(
    ("value", "urgency"),
    [
        (b"u=0", 0),
        (b"u=7", 7),
        (b"u=8", 3),
        (b"u=-1", 3),
        (b"u=00", 3),
        (b"u=10", 3),
        (b"u=", 3),
        (b"u", 3),
        (b"U=1", 3),
        (b"u=a", 3),
        (b"u=1.0", 3),
        (b"i", 3),
        (b"", 3),
        (b"u=1, i", 1),
        (b"i,u=1", 1),
        (b"i=?0 ,\tu=1", 1),
        (b"u=1;a=b, i", 1),
        (b"u=1, u=5", 5),
        (b"x=1, y", 3),
        pytest.param(b"u=1, x=" + b"a" * 121, 1, id="as long as is read"),
        pytest.param(b"u=1, x=" + b"a" * 122, 3, id="too long to be read"),
    ],
)
def test_rfc9218_4_urgency(value: bytes, urgency: int) -> None:
    assert read_priority(value) == urgency
    assert make_rules().judge(fields(b"GET", b"/", (b"priority", value))).urgency == urgency


def test_rfc9218_5_priority_is_one_field() -> None:
    head = make_rules().judge(fields(b"GET", b"/", (b"priority", b"u=1"), (b"priority", b"i")))
    assert head.urgency == 1
    assert head.headers[1:] == [(b"priority", b"u=1"), (b"priority", b"i")]
    assert make_rules().judge(fields()).urgency == 3


# ---------------------------------------------------------------------- what is well formed, and refused

EXACT = {"field": 20, "request_line": 40, "request_body": 9}
REFUSED = [
    pytest.param(without(b":authority"), 400, id="no host"),
    pytest.param(fields(b"BREW"), 501, id="a method that is none of ours"),
    pytest.param(fields(b"get"), 501, id="methods have a case (RFC 9110 §9.1)"),
    pytest.param([(b":method", b"CONNECT"), (b":authority", b"a:1")], 501, id="CONNECT"),
    pytest.param(connect((b":protocol", b"connect-udp")), 501, id="another protocol"),
    pytest.param([*fields(), (b"expect", b"200-ok")], 417, id="another expectation"),
    pytest.param([*fields(), (b"expect", b"")], 417, id="no expectation"),
    pytest.param([*fields(), (b"expect", b"100-continue"), (b"expect", b"100-continue")], 417, id="two expectations"),
    pytest.param([*fields(), (b"content-length", b"10")], 413, id="a body too long"),
    pytest.param([*fields(), (b"x", b"a" * 20)], 431, id="a field too long"),
    pytest.param([*fields(), (b"x" * 21, b"")], 431, id="a name too long"),
    pytest.param([*fields(), (b"accept", b"a" * 15)], 431, id="a field too long that would be kept"),
    pytest.param([*fields(), (b"a_b", b"a" * 20)], 431, id="a field too long that is dropped"),
    pytest.param(fields(b"GET", b"/" + b"a" * 27), 414, id="a target too long"),
    pytest.param(fields(b"A" * 30, b"/"), 501, id="a method too long"),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("request_fields", "status"), REFUSED)
def test_refusals(request_fields: Fields, status: int, way: str) -> None:
    client = make_client(way, **EXACT)
    for stream in (1, 3, 5):  # what is remembered refuses as well
        client.send(headers(stream, request_fields, ended=False))
        answer = client.answer(stream)
        assert (answer.status, answer.ended, answer.code) == (status, True, ErrorCodes.NO_ERROR)  # §8.1: the body is not wanted
        assert answer.field(b"content-length") == [b"%d" % len(answer.body)]
    assert client.requests == []
    assert [event.status for event in client.events if isinstance(event, Rejected)] == [status] * 3
    assert client.works


@pytest.mark.parametrize(
    "request_fields",
    [
        pytest.param(fields(b"GET", b"/", (b"content-length", b"9")), id="body"),
        pytest.param(fields(b"GET", b"/", (b"x", b"a" * 19)), id="field"),
        pytest.param(fields(b"GET", b"/" + b"a" * 26), id="request line"),
        pytest.param(fields(b"GET", b"/", (b"expect", b"100-Continue")), id="expectation"),
    ],
)
def test_exactly_the_limit_passes(request_fields: Fields) -> None:
    rules = make_rules(**EXACT)
    reader = make_reader(rules, **EXACT)
    assert [each.refusal for each in (rules.judge(request_fields), rules.judge(request_fields))] == [None, None]
    assert [reader.read(block(request_fields)).refusal for _ in range(2)] == [None, None]


def test_rfc9110_10_1_1_expect() -> None:
    assert make_rules().judge(fields(b"POST", b"/", (b"expect", b"100-Continue"))).expects_continue
    assert not make_rules().judge(fields()).expects_continue


def test_0_is_off() -> None:
    rules = make_rules(field=0, request_line=0, request_body=0)
    long = fields(b"POST", b"/" + b"a" * 20_000, (b"x", b"a" * 20_000), (b"content-length", b"9" * 19))
    assert rules.judge(long).refusal is None
    assert make_reader(rules, header_bytes=0, header_count=0).read(block([*long, *[(b"x", b"")] * 1_000])).refusal is None


def list_size(of: Fields) -> int:
    """Count a field list as RFC 9113 §6.5.2 does."""
    return sum(len(name) + len(value) + 32 for name, value in of)


@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD"])
@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize(
    ("limit", "size", "more"),
    [
        pytest.param("header_count", len, [(b"x", b""), (b"x", b"")], id="L5"),
        pytest.param("header_bytes", list_size, [(b"x", b"a")], id="L4"),
    ],
)
def test_spec_l4_l5_lists_over_the_limit(limit: str, size: Callable[[Fields], int], more: Fields, method: bytes, ended: bool) -> None:
    least = fields(method, b"/", *[(b"x", b"")] * 6)
    client = make_client(**{limit: size(least)})
    client.send(headers(1, least, ended=ended))
    assert client.requests == [1]
    client.send(headers(3, [*least[:-1], *more], ended=ended))
    answer = client.answer(3)
    assert (answer.status, answer.ended) == (431, True)
    assert (answer.body == b"") is (method == b"HEAD")  # RFC 9110 §9.3.2: no content in the answer to a HEAD
    assert client.requests == [1]
    assert client.works


@pytest.mark.parametrize(
    ("limits", "extra"),
    [
        pytest.param({"header_count": 10}, [(b"x", b"")] * 37, id="L5"),
        pytest.param({"header_bytes": 400}, [(b"x", b"a" * 1_600)], id="L4"),
        pytest.param({"header_count": 10}, [(b"cookie", b"a=b")] * 37, id="C5 crumbs"),
        pytest.param({"header_count": 10}, [(b"a_b", b"")] * 37, id="C5 fields that are dropped"),
    ],
)
def test_spec_l4_far_over_the_limit_is_an_attack(limits: dict[str, int], extra: Fields) -> None:
    with pytest.raises(ListTooLargeError):
        make_reader(**limits).read(block([*fields(), *extra]))
    client = make_client(**limits)
    client.send(headers(1, [*fields(), *extra]))
    assert client.goaways == [(1, ErrorCodes.ENHANCE_YOUR_CALM)]
    assert client.requests == []


@pytest.mark.parametrize(
    ("policy", "headers_left", "refusal"),
    [(Underscores.DROP, [b"x"], None), (Underscores.ALLOW, [b"a_b", b"x"], None), (Underscores.REJECT, [b"x"], 400)],
)
def test_spec_b3_underscores(policy: Underscores, headers_left: list[bytes], refusal: int | None) -> None:
    rules = make_rules(underscores=policy)
    for _ in range(2):
        head = rules.judge(fields(b"GET", b"/", (b"a_b", b"1"), (b"x", b"2")))
        assert [name for name, _ in head.headers[1:]] == headers_left
        assert (head.refusal and head.refusal[0]) == refusal


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        (b"a.example", True),
        (b"A.Example", True),
        (b"a.example:8443", True),
        (b"a.example.", True),
        (b"b.example", False),
        (b"xa.example", False),
        (b"sub.of.test", True),
        (b"of.test", True),
        (b"nof.test", False),
        (b"[::1]", True),
        (b"[::1]:1", True),
        (b"[::2]", False),
    ],
)
def test_rfc9110_15_5_20_hosts_that_are_not_served(host: bytes, allowed: bool) -> None:
    client = make_client(allowed=(b"a.example", b".of.test", b"[::1]"))
    for stream, request_fields in ((1, of(b":authority", host)), (3, [*without(b":authority"), (b"host", host)])):
        client.send(headers(stream, request_fields))
        if not allowed:
            assert client.answer(stream).status == 421
    assert client.requests == ([1, 3] if allowed else [])
    client.send(headers(5, without(b":authority")))
    assert client.answer(5).status == 400


# ---------------------------------------------------------------------- RFC 9113 §8.1: trailer sections

BAD_TRAILERS = [
    pytest.param((b":path", b"/"), id="a pseudo-header field"),
    pytest.param((b":status", b"200"), id="a response's"),
    pytest.param((b":x", b""), id="an unknown one"),
    pytest.param((b"X", b"a"), id="upper case"),
    pytest.param((b"", b"a"), id="no name"),
    pytest.param((b"x", b"a\nb"), id="line end in a value"),
    pytest.param((b"x", b" a"), id="blank before a value"),
    *[pytest.param((name, b"trailers"), id=name.decode()) for name in sorted(FORBIDDEN_TRAILERS)],
]


@pytest.mark.parametrize("field", BAD_TRAILERS)
def test_rfc9113_8_1_trailers_that_are_malformed(field: tuple[bytes, bytes]) -> None:
    section = [(b"x-sum", b"1"), field]
    rules = make_rules()
    with pytest.raises(MalformedError):
        rules.judge_trailers(section)
    client = Client()
    client.send(headers(1, fields(b"POST"), ended=False), data(1, b"a"), headers(1, section))
    assert client.resets == [(1, ErrorCodes.PROTOCOL_ERROR)]
    assert [(event.stream, event.code) for event in client.events if isinstance(event, Fault)] == [(1, ErrorCodes.PROTOCOL_ERROR)]
    assert not client.has_ended(1)
    assert client.works


def test_rfc9113_8_1_trailers() -> None:
    section = [(b"x-sum", b"1"), (b"x-sum", b""), (b"etag", b'"a"')]
    assert make_rules().judge_trailers(section) == section
    assert make_reader().read_trailers(block(section)) == section


def test_spec_l6_trailers_over_the_limit() -> None:
    reader = make_reader(header_count=2)
    assert reader.read_trailers(block([(b"x", b"1"), (b"y", b"2"), (b"z", b"3")])) is None
    with pytest.raises(ListTooLargeError):
        reader.read_trailers(block([(b"x", b"1")] * 9))


# ---------------------------------------------------------------------- what is remembered


class Blocks:
    """Encodes the blocks of one connection, each field in the way that is asked for."""

    WAYS = ("indexed", "indexing", "plain", "never")

    def __init__(self) -> None:
        self._table = HeaderTable()

    def encode(self, ways: list[tuple[tuple[bytes, bytes], str]], *, huffman: bool = False, resize: int | None = None) -> bytes:
        """Encode fields; `resize` gives the table another size first."""
        out = b""
        if resize is not None:
            self._table.maxsize = resize
            out = _integer(resize, 5, 0x20)
        return out + b"".join([self._encode(field, way, huffman=huffman) for field, way in ways])

    def _encode(self, field: tuple[bytes, bytes], way: str, *, huffman: bool) -> bytes:
        index, _, value = self._table.search(*field) or (0, None, None)
        if way == "indexed" and value is not None:
            return _integer(index, 7, 0x80)
        if way == "indexing":
            self._table.add(*field)
        prefix, bits = {"indexing": (0x40, 6), "never": (0x10, 4)}.get(way, (0x00, 4))
        name = b"" if index else _string(field[0], huffman=huffman)
        return _integer(index, bits, prefix) + name + _string(field[1], huffman=huffman)


def _integer(value: int, bits: int, prefix: int) -> bytes:
    largest = (1 << bits) - 1
    if value < largest:
        return bytes((prefix | value,))
    out, value = [prefix | largest], value - largest
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def _string(text: bytes, *, huffman: bool) -> bytes:
    if huffman:
        encoded = _huffman.encode(text)
        return _integer(len(encoded), 7, 0x80) + encoded
    return _integer(len(text), 7, 0) + text


INDEXED_GET = b"\x82\x87\x41\x01a"  # :method and :scheme of the static table, :authority put into the dynamic one
AGAIN = b"\x82\x87\xbe"  # the same, with the newest entry of the dynamic table


def at(path: bytes, rest: bytes = b"") -> bytes:
    """Encode a GET of a connection that has said INDEXED_GET before."""
    return AGAIN + literal(0x04, path) + rest


def warm(reader: HeadReader) -> None:
    """Put :authority into the table, and let heads be remembered."""
    reader.read(INDEXED_GET + literal(0x04, b"/"))
    reader.read(at(b"/first"))


def test_a_block_that_comes_again_is_not_judged_again() -> None:
    reader = make_reader()
    warm(reader)
    assert reader.read(at(b"/x")) is not reader.read(at(b"/y"))
    assert reader.read(at(b"/first")) is reader.read(at(b"/first"))


def test_heads_that_differ_in_their_path_only() -> None:
    reader = make_reader()
    warm(reader)
    rest = b"\x0f\x2b\x04test"  # user-agent, whose index is 58
    reader.read(at(b"/a?b", rest))
    head = reader.read(at(b"/c?d?e", rest))
    assert (head.path, head.query, head.target) == (b"/c", b"d?e", b"/c?d?e")
    assert head.headers == [(b"host", b"a"), (b"user-agent", b"test")]
    assert reader.read(at(b"/c?d?e", b"\x0f\x2b\x04none")).headers == [(b"host", b"a"), (b"user-agent", b"none")]
    assert reader.read(at(b"/a?b", rest)).target == b"/a?b"


@pytest.mark.parametrize("path", [b"", b"*", b"a", b"/ ", b"/#", b"/\xff", b"/\r\n", b"http://a/"])
def test_rfc9113_8_3_1_another_path_is_judged_as_the_first(path: bytes) -> None:
    reader = make_reader()
    warm(reader)
    for _ in range(2):
        with pytest.raises(MalformedError):
            reader.read(at(path))
    assert reader.read(at(b"/second")).target == b"/second"


def test_rfc9110_9_3_7_asterisk_behind_a_path() -> None:
    reader = make_reader()
    options = b"\x02\x07OPTIONS\x87\x01\x01a"
    assert not reader.read(options + literal(0x04, b"/")).refusal
    assert reader.read(options + literal(0x04, b"*")).path == b"*"


def test_spec_l1_another_path_has_the_same_limit() -> None:
    reader = make_reader(request_line=40)
    warm(reader)
    assert reader.read(at(b"/" + b"a" * 26)).refusal is None
    refusal = reader.read(at(b"/" + b"a" * 27)).refusal
    assert refusal is not None
    assert refusal[0] == 414


def test_spec_l4_another_path_has_the_same_limit() -> None:
    limit = 4 * 32 + len(b":methodGET:schemehttps:authoritya:path") + 10
    reader = make_reader(header_bytes=limit)
    warm(reader)
    assert reader.read(at(b"/" + b"a" * 9)).refusal is None
    refusal = reader.read(at(b"/" + b"a" * 10)).refusal
    assert refusal is not None
    assert refusal[0] == 431


def test_what_is_refused_lends_nothing() -> None:
    reader = make_reader(request_line=40)
    warm(reader)
    refused = reader.read(at(b"/" + b"a" * 27, b"\x0f\x2b\x01x"))
    assert refused.refusal is not None
    assert reader.read(at(b"/", b"\x0f\x2b\x01x")).refusal is None


@pytest.mark.parametrize("cut", [1, 2, 5])
def test_rfc9113_4_3_a_path_that_is_cut_off(cut: int) -> None:
    reader = make_reader()
    warm(reader)
    with pytest.raises(CompressionError):
        reader.read(at(b"/first")[:-cut])
    client = Client()
    client.send(headers(1, INDEXED_GET + literal(0x04, b"/")), headers(3, at(b"/first")), headers(5, at(b"/first")[:-cut]))
    assert client.goaways == [(5, ErrorCodes.COMPRESSION_ERROR)]


@pytest.mark.parametrize("start", [b"\x82\x87\x01\x01b", b"\x82\x87\x90\xbe", b"\x02\x03PUT\x87\xbe", b"\x82\xbe\xff\x00"])
def test_a_path_that_stands_elsewhere(start: bytes) -> None:
    reader = make_reader()
    warm(reader)
    for target in (b"/a", b"/b", b"/a"):
        encoded = start + literal(0x04, target)
        assert verdict(reader.read, encoded) == verdict(fresh().read, encoded)


@pytest.mark.parametrize("encoded", [b"", b"\x82", b"\x04", b"\x82\x87\xbe", b"\x82\x87\xbe\x90\x90", b"\x82\x87\xbe\x90\x90\x04\x01/"])
def test_blocks_without_a_path_to_find(encoded: bytes) -> None:
    reader = make_reader()
    warm(reader)
    assert verdict(reader.read, encoded) == verdict(fresh().read, encoded)


def fresh() -> HeadReader:
    """Make a reader that has the same table, and remembers nothing."""
    reader = make_reader()
    reader.decode(INDEXED_GET)
    return reader


CHANGES = [
    pytest.param(lambda reader: reader.read(b"\x82\x87\x84\x41\x01b"), b"b", id="a request"),
    pytest.param(lambda reader: reader.read(b"\x82\x87\x84\x41\x01b" + b"\x90" * 100), b"b", id="a list over the limit"),
    pytest.param(lambda reader: reader.read(b"\x20\x3f\xe1\x1f\x82\x87\x84\x41\x01b"), b"b", id="the table is emptied"),
    pytest.param(lambda reader: reader.read_trailers(b"\x40\x01x\x01y"), None, id="trailers"),
    pytest.param(lambda reader: reader.decode(b"\x40\x01x\x01y"), None, id="a block that is dropped"),
    pytest.param(lambda reader: reader.decode(b"\x40\x01x\x7f\xb1\x1f" + b"a" * 4_144), CompressionError, id="an entry too large"),
    pytest.param(lambda reader: reader.decode(b"\x20"), CompressionError, id="the table is taken away"),
]


@pytest.mark.parametrize(("change", "host"), CHANGES)
def test_rfc7541_2_3_nothing_outlives_a_change_of_the_table(change: Callable[[HeadReader], object], host: bytes | type | None) -> None:
    reader = make_reader()
    warm(reader)
    change(reader)
    for path in (b"/first", b"/second", b"/first"):  # the newest entry is another one now, or none
        if isinstance(host, bytes):
            head = reader.read(at(path))
            assert (head.headers, head.target) == ([(b"host", host)], path)
        else:
            with pytest.raises(host or MalformedError):  # x: y before :path
                reader.read(at(path))


FIELD_POOL = [
    (b"user-agent", b"a"),
    (b"user-agent", b"b"),
    (b"accept", b"*/*"),
    (b"cookie", b"a=1"),
    (b"cookie", b"b=2"),
    (b"x", b""),
    (b"X", b""),
    (b"a_b", b"1"),
    (b"proxy", b"1"),
    (b"host", b"a"),
    (b"content-length", b"1"),
    (b"te", b"trailers"),
    (b"te", b"gzip"),
    (b"expect", b"100-continue"),
    (b"expect", b"no"),
    (b"priority", b"u=1"),
    (b":path", b"/again"),
    (b"via", b"long" * 20),
]
PATHS = [b"/", b"/index.html", b"/a", b"/b?c", b"*", b"", b"/x y", b"/" + b"l" * 100]


@st.composite
def conversations(draw: st.DrawFn) -> list[tuple[Fields, bytes]]:
    """Draw requests of one connection that resemble each other: their fields, and their blocks."""
    blocks = Blocks()
    drawn = []
    forms = draw(
        st.lists(st.lists(st.tuples(st.sampled_from(FIELD_POOL), st.sampled_from(Blocks.WAYS)), max_size=3), min_size=1, max_size=3)
    )
    for _ in range(draw(st.integers(2, 12))):
        pseudo = [
            ((b":method", draw(st.sampled_from([b"GET", b"GET", b"OPTIONS"]))), "indexed"),
            ((b":scheme", b"https"), draw(st.sampled_from(["indexed", "plain"]))),
            ((b":authority", draw(st.sampled_from([b"a", b"b"]))), draw(st.sampled_from(["indexed", "indexing"]))),
            ((b":path", draw(st.sampled_from(PATHS))), draw(st.sampled_from(["plain", "plain", "plain", *Blocks.WAYS]))),
        ]
        if draw(st.integers(0, 4)) == 0:
            pseudo = draw(st.permutations(pseudo))
        ways = [*pseudo, *draw(st.sampled_from(forms))]
        resize = draw(st.sampled_from([None] * 6 + [0, 60, 4_096]))
        drawn.append(([field for field, _ in ways], blocks.encode(ways, huffman=draw(st.booleans()), resize=resize)))
    return drawn


def verdict(read: Callable[..., Head], argument: object) -> Head | str:
    try:
        return read(argument)
    except (MalformedError, CompressionError) as error:
        return repr(error)


@given(conversations())
def test_whatever_came_before_a_request_means_the_same(conversation: list[tuple[Fields, bytes]]) -> None:
    rules = make_rules(request_line=100)
    reader = make_reader(rules, request_line=100)
    for request_fields, encoded in conversation:
        assert verdict(reader.read, encoded) == verdict(make_rules(request_line=100).judge, request_fields)


@given(st.lists(st.sampled_from(["/a", "/b"]), max_size=5), st.binary(max_size=40), st.binary(max_size=40))
def test_no_block_raises_anything_else(paths: list[str], start: bytes, garbage: bytes) -> None:
    reader = make_reader()
    warm(reader)
    for path in paths:
        reader.read(at(path.encode()))
    for encoded in (garbage, at(b"/c") + garbage, AGAIN + b"\x04" + garbage, start + garbage):
        with suppress(MalformedError, CompressionError, ListTooLargeError):
            reader.read(encoded)


def test_what_a_connection_remembers_is_bounded() -> None:
    reader = make_reader()
    warm(reader)
    for number in range(500):
        reader.read(at(b"/%d" % number))
        reader.read(at(b"/", b"\x0f\x2b\x05%05d" % number))
        assert len(reader._heads) <= h2head._KEPT_HEADS
        assert len(reader._others) <= h2head._KEPT_HEADS
    before = len(reader._heads)
    reader.read(at(b"/", b"\x00\x01x" + _string(b"a" * 520, huffman=False)))
    assert len(reader._heads) == before
    assert all(len(each) <= h2head._KEPT_BLOCK_SIZE for each in (*reader._heads, *reader._others))


def test_what_a_worker_remembers_is_bounded_and_no_secret() -> None:
    rules = make_rules()
    for number in range(5_000):
        rules.judge(fields(b"GET", b"/", (b"user-agent", b"%d" % number), (b"cookie", b"%d" % number), (b"authorization", b"%d" % number)))
        assert len(rules._right) <= h2head._KEPT_FIELDS
    rules.judge(fields(b"GET", b"/", (b"accept", b"a" * 251)))
    assert {name for name, _ in rules._right} <= REPEATED
    assert all(len(name) + len(value) <= h2head._KEPT_FIELD_SIZE for name, value in rules._right)


def test_spec_l3_what_is_remembered_passes_no_limit() -> None:
    rules = make_rules(field=20)
    long = fields(b"GET", b"/", (b"user-agent", b"a" * 11))
    statuses = [head.refusal and head.refusal[0] for head in (rules.judge(long), rules.judge(long))]
    assert statuses == [431, 431]


def test_spec_l3_trailers_teach_nothing_that_is_too_long() -> None:
    rules = make_rules(field=20)
    rules.judge_trailers([(b"user-agent", b"a" * 11)])
    refusal = rules.judge(fields(b"GET", b"/", (b"user-agent", b"a" * 11))).refusal
    assert refusal is not None
    assert refusal[0] == 431


def test_connections_share_no_heads() -> None:
    rules = make_rules()
    one, other = make_reader(rules), make_reader(rules)
    one.read(b"\x82\x87\x41\x01a" + literal(0x04, b"/"))
    other.read(b"\x82\x87\x41\x01b" + literal(0x04, b"/"))
    for reader, host in ((one, b"a"), (other, b"b"), (one, b"a")):
        assert reader.read(at(b"/first")).headers == [(b"host", host)]


# ---------------------------------------------------------------------- HTTP/1 judges alike

_VALUE = st.binary(max_size=12).map(lambda value: bytes(byte for byte in value if byte == 9 or (byte >= 32 and byte != 127)).strip(b" \t"))
_TARGET = st.binary(max_size=12).map(lambda value: b"/" + bytes(byte for byte in value if is_target(bytes((byte,)))))
_PLAIN_NAMES = st.sampled_from([b"x", b"x-a", b"accept", b"user-agent", b"cookie", b"a_b", b"proxy", b"priority", b"authorization", b"!#$"])
_STEERING = st.sampled_from(
    [(b"content-length", b"0"), (b"content-length", b"7"), (b"te", b"trailers"), (b"expect", b"100-continue"), (b"te", b"Trailers")]
)
_FAULTS = st.sampled_from(
    [
        (b"content-length", b"+1"),
        (b"content-length", b"a"),
        (b"content-length", b""),
        (b"expect", b"b"),
        (b"a b", b"c"),
        (b"", b"c"),
        (b"x", b"a\x00b"),
        (b"x", b"\x7f"),
        (b"x", b"a\x0bb"),
        (b"host", b"b"),
    ]
)


@given(
    method=st.sampled_from([*METHODS, b"BREW"]),
    target=_TARGET,
    regular=st.lists(st.tuples(_PLAIN_NAMES, _VALUE), max_size=4),
    steering=st.lists(_STEERING, max_size=2, unique_by=lambda field: field[0]),
    fault=st.none() | _FAULTS,
    underscores=st.sampled_from(Underscores),
)
def test_http1_gives_the_same_scope(
    method: bytes, target: bytes, regular: Fields, steering: Fields, fault: tuple[bytes, bytes] | None, underscores: Underscores
) -> None:
    more = [*regular, *steering, *([fault] if fault else [])]
    parser = http1(underscores=underscores)._heads
    lines = b"".join(b"%b: %b\r\n" % field for field in more)
    rules = make_rules(underscores=underscores)
    reader = make_reader(rules)
    encoded = block(fields(method, target, *more))
    head_of_http1 = b"%b %b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (method, target, lines)
    for _ in range(3):  # caches of both
        status, ours = status_of_http2(reader, encoded)
        refused, parsed = status_of_http1(parser, head_of_http1)
        assert (status is None) is (refused is None)
        assert status in {refused, MALFORMED_STATUS} or (fault is not None and method == b"BREW")  # of two faults either may be named
        if parsed is None or ours is None:
            continue
        request, framing = parsed
        other = ours.request(0, ended=request.ended)
        other.version = request.version
        other.headers, request.headers = with_one_cookie(other.headers), with_one_cookie(request.headers)
        assert other == request
        assert (ours.length or 0, ours.expects_continue, ours.takes_trailers) == (
            framing.length,
            framing.expects_continue,
            framing.takes_trailers,
        )


MALFORMED_STATUS = 400  # what HTTP/1 says where HTTP/2 resets the stream


def with_one_cookie(headers: Fields) -> Fields:
    """Join cookies, as HTTP/2 has to (RFC 9113 §8.2.3)."""
    crumbs = [value for name, value in headers if name == b"cookie"]
    return [field for field in headers if field[0] != b"cookie"] + ([(b"cookie", b"; ".join(crumbs))] if crumbs else [])


def status_of_http1(parser: HeadParser, head: bytes) -> tuple[int | None, tuple[Request, Framing] | None]:
    try:
        return None, parser.parse(head)
    except RefusedError as refused:
        return refused.status, None


def status_of_http2(reader: HeadReader, encoded: bytes) -> tuple[int | None, Head | None]:
    try:
        head = reader.read(encoded)
    except MalformedError:
        return MALFORMED_STATUS, None
    return (None, head) if head.refusal is None else (head.refusal[0], None)
