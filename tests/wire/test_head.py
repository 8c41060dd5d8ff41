"""The request line, Host, sizes, and the table of known blocks (RFC 9112 §3; spec attacks A15, A22 to A25; spec limits L1 to L5)."""

import time
from collections.abc import Callable

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from termserver.config import Limits
from termserver.wire.events import Request
from termserver.wire.fieldblock import RefusedError
from termserver.wire.fields import METHODS, Underscores
from termserver.wire.head import Framing, HeadParser
from wire.driving import SLOWER, Driver, byte_by_byte, chunked, engine, feed_every_way, request, say


def status(data: bytes, **limits: int) -> int | None:
    """Give the status that `data` is refused with, in all ways it may come; None if it is accepted."""
    outcome = feed_every_way(lambda: engine(**limits), data)
    if outcome.status is None:
        assert outcome.got
        return None
    assert outcome.output.startswith(b"HTTP/1.1 %d " % outcome.status)
    assert b"\r\nconnection: close\r\n" in outcome.output
    assert outcome.got == []
    return outcome.status


def accepted(data: bytes) -> Request:
    outcome = feed_every_way(engine, data)
    assert outcome.status is None, outcome
    return outcome.got[0].request


# ---------------------------------------------------------------------- request line


@pytest.mark.parametrize("method", sorted(METHODS))
def test_rfc9110_9_methods(method: bytes) -> None:
    assert accepted(request(line=method + b" / HTTP/1.1")).method == method.decode()


@pytest.mark.parametrize("method", [b"FOO", b"get", b"Get", b"PRI", b"X-GET", b"!#$%&'*+-.^_`|~", b"DESCRIBE", b"CONNEC", b"GETS"])
def test_l2_a_method_nobody_implements_is_501(method: bytes) -> None:
    assert status(request(line=method + b" / HTTP/1.1")) == 501


@pytest.mark.parametrize("method", [b"G@T", b"G\x00T", b"G\x7fT", b"\xc9", b"G,T", b"(GET)", b'"GET"', b"G\tT", b"\x16\x03\x01", b"{"])
def test_b2_a_method_is_a_token(method: bytes) -> None:
    assert status(request(line=method + b" / HTTP/1.1")) == 400


def test_l2_a_long_method() -> None:
    assert status(b"M" * 32 + b" / HTTP/1.1\r\nHost: a\r\n\r\n") == 501
    assert status(b"M" * 33 + b" / HTTP/1.1\r\nHost: a\r\n\r\n") == 501
    assert Driver(engine()).feed(b"M" * 32).status is None
    assert Driver(engine()).feed(b"M" * 33).status == 501  # its end need not come
    assert Driver(engine()).feed(b"M" * 32 + b"@").status == 400


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        (b"/", 400),
        (b"a", 400),
        (b"http://a/", 400),
        (b"*", 400),
        (b"u@a:1", 400),
        (b":1", 400),
        (b"a:443", 501),
        (b"[::1]:443", 501),
    ],
)
def test_a22_connect(target: bytes, answer: int) -> None:
    assert status(request(line=b"CONNECT %b HTTP/1.1" % target)) == answer


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"GET", id="method alone"),
        pytest.param(b"GET ", id="no target"),
        pytest.param(b"GET /", id="no version"),
        pytest.param(b"GET foo", id="no version, no slash"),
        pytest.param(b"GET / ", id="empty version"),
        pytest.param(b"GET  / HTTP/1.1", id="two blanks"),
        pytest.param(b"GET /  HTTP/1.1", id="two blanks ahead of the version"),
        pytest.param(b"GET / HTTP/1.1 ", id="blank at the end"),
        pytest.param(b"GET / HTTP/1.1\t", id="tab at the end"),
        pytest.param(b" GET / HTTP/1.1", id="blank ahead"),
        pytest.param(b"\tGET / HTTP/1.1", id="tab ahead"),
        pytest.param(b"GET\t/\tHTTP/1.1", id="tabs"),
        pytest.param(b"GET\x0b/\x0bHTTP/1.1", id="vertical tabs"),
        pytest.param(b"GET /a b HTTP/1.1", id="blank in the target"),
        pytest.param(b"GET / HTTP/1.1 x", id="four parts"),
        pytest.param(b"GET /\tHTTP/1.1", id="tab for a blank"),
        pytest.param(b"\x00GET / HTTP/1.1", id="NUL ahead"),
    ],
)
def test_rfc9112_3_the_request_line(line: bytes) -> None:
    assert status(request(line=line)) == 400


@pytest.mark.parametrize("byte", range(256))
def test_a15_target_bytes(byte: int) -> None:
    line = b"GET /a%bb HTTP/1.1" % bytes([byte])
    legal = 0x21 <= byte <= 0x7E and byte != 0x23
    assert status(request(line=line)) == (None if legal else 400)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", b"/", b""),
        (b"/?", b"/", b""),
        (b"/a/b?c=d?e", b"/a/b", b"c=d?e"),
        (b"//a//b", b"//a//b", b""),
        (b"/%2e%2E/%1b", b"/%2e%2E/%1b", b""),
        (b"/http://b/", b"/http://b/", b""),
        (b"/*", b"/*", b""),
        (b'/a|b^`{}"<>\\', b'/a|b^`{}"<>\\', b""),
        (b"/a:b@c", b"/a:b@c", b""),
    ],
)
def test_rfc9112_3_2_1_origin_form(target: bytes, path: bytes, query: bytes) -> None:
    got = accepted(request(line=b"GET %b HTTP/1.1" % target))
    assert (got.target, got.path, got.query) == (target, path, query)


@pytest.mark.parametrize(
    "target", [b"?a", b"a", b"a/b", b"a:80", b"@", b".", b"%2f", b"#", b"/#", b"/a#b", b"\\", b"**", b"*a", b"/\xc3\xa9"]
)
def test_a22_targets_of_no_form(target: bytes) -> None:
    assert status(request(line=b"GET %b HTTP/1.1" % target)) == 400


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"http://a", b"/", b""),
        (b"http://a/", b"/", b""),
        (b"HTTP://A/b?c", b"/b", b"c"),
        (b"https://a?b/c", b"/", b"b/c"),
        (b"http://a//b", b"//b", b""),
        (b"http://a/http://c/", b"/http://c/", b""),
    ],
)
def test_rfc9112_3_2_2_absolute_form(target: bytes, path: bytes, query: bytes) -> None:
    got = accepted(request(line=b"GET %b HTTP/1.1" % target))
    assert (got.target, got.path, got.query, got.headers) == (target, path, query, [(b"host", b"a")])


def test_rfc9112_3_2_2_the_authority_is_the_host_of_http_1_0() -> None:
    got = accepted(request(b"X: y\r\n", line=b"GET http://b:81/c HTTP/1.0", host=b""))
    assert got.headers == [(b"host", b"b:81"), (b"x", b"y")]


def test_rfc9112_3_2_2_a_known_block_gets_no_host_from_the_target_before() -> None:
    parser = HeadParser(Limits())
    for name in (b"b", b"c", b"d"):
        assert parser.parse(b"GET http://%b/ HTTP/1.0\r\nX: y\r\n\r\n" % name)[0].headers == [(b"host", name), (b"x", b"y")]
    assert parser.parse(b"GET / HTTP/1.0\r\nX: y\r\n\r\n")[0].headers == [(b"x", b"y")]


@pytest.mark.parametrize(
    "target",
    [
        b"http://b/",
        b"http://a:80/",
        b"http://u@a/",
        b"http://u:p@a/",
        b"http:///",
        b"http://",
        b"http:/a",
        b"http:a",
        b"ftp://a/",
        b"ws://a/",
        b"://a/",
        b"http://a#b",
        b"http://a b/",
        b"http://[::1/",
        b"http://a\\b/",
        b"file:///etc/passwd",
        b"http://a:1:2/",
        b"http://a,b/",
    ],
)
def test_a22_absolute_forms_that_are_refused(target: bytes) -> None:
    assert status(request(line=b"GET %b HTTP/1.1" % target)) == 400


def test_b13_the_scheme_of_a_target_changes_nothing() -> None:
    assert accepted(request(line=b"GET https://a/ HTTP/1.1")).headers == accepted(request(line=b"GET http://a/ HTTP/1.1")).headers


def test_rfc9112_3_2_4_asterisk_form() -> None:
    got = accepted(request(line=b"OPTIONS * HTTP/1.1"))
    assert (got.target, got.path, got.query) == (b"*", b"*", b"")
    assert status(request(line=b"OPTIONS *? HTTP/1.1")) == 400


@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD", b"PROPFIND"])
def test_a22_asterisk_form_is_for_options(method: bytes) -> None:
    assert status(request(line=method + b" * HTTP/1.1")) == 400


@pytest.mark.parametrize(
    ("version", "answer"),
    [
        (b"HTTP/0.9", 505),
        (b"HTTP/1.2", 505),
        (b"HTTP/1.9", 505),
        (b"HTTP/2.0", 505),
        (b"HTTP/3.0", 505),
        (b"HTTP/0.0", 505),
        (b"HTTP/1.32", 400),
        (b"HTTP/1", 400),
        (b"HTTP/2", 400),
        (b"HTTP/1.", 400),
        (b"HTTP/.1", 400),
        (b"HTTP/11", 400),
        (b"HTTP/ 1.1", 400),
        (b"http/1.1", 400),
        (b"Http/1.1", 400),
        (b"HTTP/1,1", 400),
        (b"HTTP/01.1", 400),
        (b"HTTP/1.1\x00", 400),
        (b"HTTP/\r\r1.1", 400),
        (b"RTSP/1.0", 400),
        (b"ICE/1.0", 400),
        (b"HTTPS/1.1", 400),
        (b"HTTP/x.1", 400),
        (b"HTTP/\xb2.1", 400),
        (b"HTTP/-1.1", 400),
        (b"HTTP\\1.1", 400),
    ],
)
def test_a25_versions(version: bytes, answer: int) -> None:
    assert status(request(line=b"GET / " + version)) == answer


def test_rfc9112_2_3_versions_that_are_served() -> None:
    assert accepted(request()).version == "1.1"
    assert accepted(request(line=b"GET / HTTP/1.0")).version == "1.0"


# ---------------------------------------------------------------------- Host


@pytest.mark.parametrize(
    ("head", "answer"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no fields"),
        pytest.param(b"GET / HTTP/1.1\r\nX: y\r\n\r\n", 400, id="no host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, id="two hosts"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nhOST: a\r\n\r\n", 400, id="two spellings"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nHost: b\r\n\r\n", 400, id="two that differ"),
        pytest.param(b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400, id="two in HTTP/1.0"),
        pytest.param(b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, id="empty"),
        pytest.param(b"GET / HTTP/1.0\r\nHost: \r\n\r\n", 400, id="empty in HTTP/1.0"),
        pytest.param(b"GET http://a/ HTTP/1.1\r\n\r\n", 400, id="authority instead"),
        pytest.param(b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", 400, id="authority differs"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, id="blank inside"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\x00\r\n\r\n", 400, id="NUL"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", None, id="comma is a sub-delim"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, id="slash"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, id="userinfo"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400, id="port of letters"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: \t a \t \r\n\r\n", None, id="blanks around"),
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", None, id="none in HTTP/1.0"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n", None, id="IPv6"),
    ],
)
def test_rfc9112_3_2_exactly_one_host(head: bytes, answer: int | None) -> None:
    assert status(head) == answer


@pytest.mark.parametrize(
    ("host", "fine"),
    [
        (b"a.org", True),
        (b"A.ORG", True),
        (b"a.org:8000", True),
        (b"a.org.", True),
        (b"b.org", True),
        (b"c.b.org", True),
        (b"d.c.B.org:1", True),
        (b"[::1]", True),
        (b"[::1]:80", True),
        (b"x.a.org", False),
        (b"org", False),
        (b"xb.org", False),
        (b"b.org.evil", False),
        (b"[::2]", False),
        (b"a.orgx", False),
        (b".org", False),
    ],
)
def test_f3_allowed_hosts(host: bytes, fine: bool) -> None:
    def make() -> object:
        return engine(allowed_hosts=[b"a.org", b".b.org", b"[::1]"])

    for head in (
        request(host=b"Host: %b\r\n" % host),
        b"GET http://%b/ HTTP/1.0\r\n\r\n" % host,
        b"GET / HTTP/1.0\r\nHost: %b\r\n\r\n" % host,
    ):
        outcome = feed_every_way(make, head)  # type: ignore[arg-type]
        assert outcome.status == (None if fine else 400)
    assert feed_every_way(make, b"GET / HTTP/1.0\r\n\r\n").status == 400  # type: ignore[arg-type]


# ---------------------------------------------------------------------- limits


def test_l1_request_line() -> None:
    line = b"GET /" + b"a" * (64 - 14) + b" HTTP/1.1"
    assert len(line) == 64
    assert status(request(line=line), request_line=64) is None
    longer = line.replace(b"/a", b"/ba")
    assert status(request(line=longer), request_line=64) == 414
    assert status(request(line=longer), request_line=0) is None
    assert Driver(engine(request_line=64)).feed(b"GET /" + b"a" * 60).status == 414  # its end need not come


def test_l1_the_default_limit() -> None:
    assert status(request(line=b"GET /" + b"a" * 8_178 + b" HTTP/1.1")) is None
    assert status(request(line=b"GET /" + b"a" * 8_179 + b" HTTP/1.1")) == 414


def test_l3_one_field() -> None:
    assert status(request(b"X: " + b"y" * 61 + b"\r\n"), field=64) is None
    assert status(request(b"X: " + b"y" * 62 + b"\r\n"), field=64) == 431
    assert status(request(b"X: " + b"y" * 62 + b"\r\n"), field=0) is None
    assert Driver(engine(field=64)).feed(b"GET / HTTP/1.1\r\nX: " + b"y" * 63).status == 431


def test_l4_all_fields() -> None:
    fields = b"".join(b"X%d: yyyyyyyyyy\r\n" % n for n in range(4))  # 64 bytes
    assert status(request(fields, host=b"Host: abcdefg\r\n"), header_bytes=79, request_line=1_000) is None
    assert status(request(fields, host=b"Host: abcdefgh\r\n"), header_bytes=79, request_line=1_000) == 431
    assert status(request(fields, host=b"Host: abcdefgh\r\n"), header_bytes=0) is None
    assert Driver(engine(header_bytes=79)).feed(b"GET / HTTP/1.1\r\n" + fields * 2).status == 431


def test_l5_count_of_fields() -> None:
    fields = b"".join(b"X%d: y\r\n" % n for n in range(98))
    assert status(request(fields + b"X_Y: dropped\r\n")) is None
    assert status(request(fields + b"X_Y: dropped\r\nProxy: dropped\r\n")) == 431
    assert status(request(b"Cookie: a=b\r\n" * 100)) == 431
    assert status(request(b"Cookie: a=b\r\n" * 100), header_count=0) is None


def test_a24_limits_count_across_pieces() -> None:
    for data in (b"GET /" + b"a" * 9_000, b"GET / HTTP/1.1\r\nX: " + b"y" * 9_000, b"GET / HTTP/1.1\r\n" + b"X: yyyyyyyyyyyy\r\n" * 3_000):
        outcome = Driver(engine()).feed(*byte_by_byte(data))
        assert outcome.status in {414, 431}


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"GET /" + b" " * 8_000 + b"\r\n" + b"X: yyyyyyyyyyyy\r\n" * 1_800, id="a request line of blanks"),
        pytest.param(b"GET /" + b"a" * 8_000 + b" HTTP/1.1\r\n" + b"X: yyyyyyyyyyyy\r\n" * 1_800, id="a long target"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"X: \t\t\t\t\t\t\t\t\t\r\n" * 1_800, id="blanks"),
    ],
)
def test_e8_a_head_in_single_bytes_costs_little(head: bytes) -> None:
    made = engine()
    before = time.process_time()
    for piece in byte_by_byte(head):
        made.receive(piece)
    assert time.process_time() - before < 1 * SLOWER


# ---------------------------------------------------------------------- one parser for all

NAMES = st.sampled_from(
    [
        b"Accept",
        b"X-Custom",
        b"x",
        b"Cookie",
        b"Connection",
        b"connection",
        b"Content-Length",
        b"Transfer-Encoding",
        b"Upgrade",
        b"Expect",
        b"TE",
        b"Proxy-Connection",
        b"Keep-Alive",
        b"X_Y",
        b"Proxy",
        b"Host",
        b"DNT",
        b"User-Agent",
        b"Trailer",
    ]
)
VALUES = st.one_of(
    st.sampled_from(
        [
            b"",
            b"close",
            b"keep-alive",
            b"Upgrade",
            b"upgrade, keep-alive",
            b"websocket",
            b"h2c",
            b"chunked",
            b"gzip",
            b"0",
            b"5",
            b"trailers",
            b"100-continue",
            b"a",
            b"a ",
            b"\ta\t",
            b"close, te",
            b"identity",
        ]
    ),
    st.text("ab ;,=\t\xe9", max_size=8).map(lambda text: text.encode("latin-1")),
)
LINES = st.one_of(
    st.builds(
        lambda method, target, version: b"%b %b %b" % (method, target, version),
        st.sampled_from([*METHODS, b"CONNECT", b"FOO", b"PRI"]),
        st.sampled_from([b"/", b"/a?b", b"*", b"http://a/", b"http://b", b"/#", b"a:80"]),
        st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0"]),
    ),
    st.just(b"GET / HTTP/1.1"),
)
HEADS = st.builds(
    lambda line, fields, bad: request(b"".join(b"%b: %b\r\n" % pair for pair in fields) + bad, line=line),
    LINES,
    st.lists(st.tuples(NAMES, VALUES), max_size=4),
    st.sampled_from([b"", b"", b"", b"", b"bad\r\n", b"X: a\nb\r\n", b" folded\r\n"]),
)


def verdict(parser: HeadParser, head: bytes) -> tuple[Request, Framing] | tuple[int, str]:
    try:
        return parser.parse(head)
    except RefusedError as refused:
        return refused.status, refused.reason


def alike(one: tuple[object, object], other: tuple[object, object]) -> bool:
    """Whether two verdicts are the same. With a known block it is we who refuse a target, not llhttp: in other words."""
    return one == other or one[0] == other[0] == 400


@given(st.lists(HEADS, min_size=2, max_size=6), st.sampled_from(Underscores))
@example([request(b"Proxy-Connection: close\r\n"), request()], Underscores.DROP)
@example([request(b"Connection: close\r\n"), request()], Underscores.DROP)
@example([request(b"Proxy-Connection: Upgrade\r\nUpgrade: x\r\n"), request()], Underscores.DROP)
@example([request(b"Content-Length: 100\r\n"), request()], Underscores.DROP)
@example([request(b"Transfer-Encoding: chunked\r\n"), request()], Underscores.DROP)
@example(
    [request(b"Connection: keep-alive\r\n"), request(line=b"POST / HTTP/1.1"), request(line=b"GET / HTTP/1.0"), request()], Underscores.DROP
)
def test_no_head_changes_what_the_next_one_means(heads: list[bytes], underscores: Underscores) -> None:
    """The parser is shared by all connections of a worker: whatever state llhttp keeps must not reach the next client."""
    shared = HeadParser(Limits(), underscores=underscores)
    for head in heads * 3:
        assert alike(verdict(shared, head), verdict(HeadParser(Limits(), underscores=underscores), head))


@given(st.lists(st.tuples(NAMES, VALUES), max_size=4), st.lists(LINES, min_size=1, max_size=4))
def test_a_known_block_means_what_it_meant(fields: list[tuple[bytes, bytes]], lines: list[bytes]) -> None:
    shared = HeadParser(Limits())
    block = b"".join(b"%b: %b\r\n" % pair for pair in fields)
    for version in (b"HTTP/1.1", b"HTTP/1.0"):
        for _ in range(3):
            verdict(shared, request(block, line=b"GET / " + version))
    for line in lines:
        again, anew = (verdict(parser, request(block, line=line)) for parser in (shared, HeadParser(Limits())))
        assert alike(again, anew)


class Seen:
    """llhttp's own opinion."""

    def __init__(self) -> None:
        self.complete = False

    def on_headers_complete(self) -> None:
        self.complete = True


def llhttp_accepts(head: bytes) -> bool:
    seen = Seen()
    try:
        httptools.HttpRequestParser(seen).feed_data(head)
    except httptools.HttpParserUpgrade:
        return True
    except httptools.HttpParserError:
        return False
    return seen.complete


TARGETS = st.one_of(
    st.binary(max_size=6).map(lambda tail: b"/" + tail),
    st.text("/?%@:[]*ahtp.#\\|\"<>{}^`~!$&'()+,;=-_5", max_size=12).map(str.encode),
    st.text('/?%@:[]*a.\\|"{}~$,;=-_5', max_size=8).map(lambda tail: b"http://a" + tail.encode()),
    st.sampled_from([b"*", b"http://a", b"HTTPS://a?b", b"http://[::1]/", b"http://[fe80::1%25e]/", b"http://a%41:80/"]),
)


@given(st.sampled_from([*METHODS, b"CONNECT", b"PRI", b"DESCRIBE"]), TARGETS, st.sampled_from([b"HTTP/1.0", b"HTTP/1.1"]))
def test_what_a_known_block_lets_pass_llhttp_lets_pass_too(method: bytes, target: bytes, version: bytes) -> None:
    """With a known block llhttp does not see the request line; it must not have objected."""
    parser = HeadParser(Limits())
    host = target.partition(b"://")[2].replace(b"?", b"/").partition(b"/")[0]
    host = b"Host: %b\r\n" % (host or b"a")
    for _ in range(3):
        verdict(parser, request(line=b"OPTIONS / " + version, host=host))
    head = request(line=b"%b %b %b" % (method, target, version), host=host)
    if type(verdict(parser, head)[0]) is Request:
        assert llhttp_accepts(head)


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("target", [b"/", b"*", b"http://a/", b'/%00?[]{}|\\^`"<>'])
def test_llhttp_knows_every_method_of_ours(method: bytes, target: bytes) -> None:
    assert llhttp_accepts(request(line=b"%b %b HTTP/1.1" % (method, target)))


def known(parser: HeadParser) -> int:
    return len(parser._known_11) + len(parser._known_10)


def repeat(parser: HeadParser, head: bytes) -> None:
    for _ in range(3):
        parser.parse(head)


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        pytest.param(request(), True, id="plain"),
        pytest.param(request(b"Connection: close\r\n"), True, id="close"),
        pytest.param(request(line=b"GET / HTTP/1.0", host=b""), True, id="HTTP/1.0"),
        pytest.param(request(b"Content-Length: 0\r\n"), True, id="no bytes"),
        pytest.param(request(b"Content-Length: 5\r\n"), False, id="a length"),
        pytest.param(chunked(b""), False, id="chunked"),
        pytest.param(request(b"Upgrade: websocket\r\nConnection: Upgrade\r\n"), False, id="upgrade"),
        pytest.param(request(b"X: " + b"y" * 2_048 + b"\r\n"), False, id="long"),
    ],
)
def test_which_blocks_are_remembered(head: bytes, kept: bool) -> None:
    parser = HeadParser(Limits())
    repeat(parser, head)
    assert known(parser) == kept


def test_a_request_owns_its_headers() -> None:
    parser = HeadParser(Limits())
    for _ in range(4):
        got = parser.parse(request(b"X: y\r\n"))[0]
        assert got.headers == [(b"host", b"a"), (b"x", b"y")]
        got.headers.append((b"added", b"by a middleware"))


def test_the_table_of_known_blocks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("termserver.wire.head._KNOWN_BLOCKS", 4)
    parser = HeadParser(Limits())
    for n in range(20):
        repeat(parser, request(b"X: %d\r\n" % n))
        assert known(parser) <= 4
    assert known(parser) > 0


def test_the_table_of_marks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("termserver.wire.head._SEEN", 4)
    parser = HeadParser(Limits())
    for n in range(20):
        parser.parse(request(b"X: %d\r\n" % n))
        assert len(parser._seen) <= 4
    assert known(parser) == 0  # none of them came twice


@pytest.mark.parametrize(
    ("piece", "answer"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\x80", 400),
        (b'{"a": 1}\n', 400),
        (b"SSH-2.0 x\r\n", 501),
        (b"SSH-2.0-x\r\n", 400),
        (b"!\r\n", 400),
        (b"GET / HTTP/1.1\n", 400),
        (b"GET", None),
        (b"G", None),
        (b"GET /", None),
        (b"CONNECT", None),
        (b"CONNECT ", None),
        (b"GET /\r", None),
        (b"GET / HTTP/1.1\r\n", None),
    ],
)
def test_what_cannot_become_a_request_is_refused_at_once(piece: bytes, answer: int | None) -> None:
    assert Driver(engine()).feed(piece).status == answer


@pytest.mark.parametrize("make", [engine, lambda: engine(request_line=0, field=0, header_bytes=0)])
def test_0_turns_a_limit_off(make: Callable[[], object]) -> None:
    head = request(b"X: " + b"y" * 40_000 + b"\r\n", line=b"GET /" + b"a" * 10_000 + b" HTTP/1.1")
    outcome = Driver(make(), say).feed(*[head[i : i + 1_000] for i in range(0, len(head), 1_000)])  # type: ignore[arg-type]
    assert (outcome.status is None) is (make is not engine)


def test_a_head_that_came_again_and_again_means_the_same_within_bounds() -> None:
    heads = HeadParser(Limits())
    first = [HeadParser(Limits()).parse(request(line=b"GET /a?b HTTP/1.1"))[0] for _ in range(5)]
    again = [heads.parse(request(line=b"GET /a?b HTTP/1.1"))[0] for _ in range(5)]
    assert again == first
    again[3].headers.append((b"x", b"y"))  # what one application does to its headers is not another's
    assert heads.parse(request(line=b"GET /a?b HTTP/1.1"))[0] == first[0]
    for number in range(2_000):
        for _ in range(3):
            assert heads.parse(request(line=b"GET /%d HTTP/1.1" % number))[0].path == b"/%d" % number
    assert len(heads._same) <= 512
    for _ in range(4):  # not in origin-form: resolved anew
        assert heads.parse(request(line=b"OPTIONS * HTTP/1.1"))[0].path == b"*"
        assert heads.parse(request(line=b"GET http://a/c HTTP/1.1"))[0].path == b"/c"


# ---------------------------------------------------------------------- RFC 7540 §3.2: Upgrade: h2c

SETTINGS = b"AAMAAABkAAQAAP__"  # MAX_CONCURRENT_STREAMS 100, INITIAL_WINDOW_SIZE 65535


def upgrading(
    connection: bytes = b"Upgrade, HTTP2-Settings", settings: bytes = b"HTTP2-Settings: " + SETTINGS + b"\r\n", more: bytes = b""
) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: a\r\nConnection: %b\r\nUpgrade: h2c\r\n%b%b\r\n" % (connection, settings, more)


def test_rfc7540_3_2_a_client_may_ask_for_http2() -> None:
    request, framing = HeadParser(Limits(), upgrades_http2=True).parse(upgrading())
    assert (request.upgrade, request.ended, framing.upgrades) == (b"h2c", True, True)


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(upgrading(b"Upgrade"), id="HTTP2-Settings is not about this connection"),
        pytest.param(upgrading(b"HTTP2-Settings"), id="nor is Upgrade"),
        pytest.param(upgrading(more=b"Content-Length: 5\r\n"), id="a body would come first"),
        pytest.param(upgrading().replace(b"h2c", b"h3c"), id="another protocol"),
        pytest.param(upgrading().replace(b"HTTP/1.1", b"HTTP/1.0"), id="HTTP/1.0"),
    ],
)
def test_rfc9110_7_8_any_other_upgrade_is_ignored(head: bytes) -> None:
    assert HeadParser(Limits(), upgrades_http2=True).parse(head)[0].upgrade is None


def test_rfc9113_3_1_it_is_off_by_default() -> None:
    assert HeadParser(Limits()).parse(upgrading())[0].upgrade is None


@pytest.mark.parametrize("value", [b"A", b"AAMAAAB", b"AAMA+ABk", b"AAMAAABk=", b"AAMAAABkAA"])
def test_rfc7540_3_2_1_settings_that_are_none(value: bytes) -> None:
    with pytest.raises(RefusedError) as caught:
        HeadParser(Limits(), upgrades_http2=True).parse(upgrading(settings=b"HTTP2-Settings: " + value + b"\r\n"))
    assert caught.value.status == 400


@pytest.mark.parametrize("count", [0, 2])
def test_rfc7540_3_2_1_exactly_one_field_of_settings(count: int) -> None:
    with pytest.raises(RefusedError) as caught:
        HeadParser(Limits(), upgrades_http2=True).parse(upgrading(settings=(b"HTTP2-Settings: " + SETTINGS + b"\r\n") * count))
    assert caught.value.status == 400
