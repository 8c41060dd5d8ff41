"""Field lines and what they say of framing (RFC 9112 §5 to §7; spec attacks A1 to A8, A17, A21, A23, A26, B1 to B4)."""

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from termserver.wire import fieldblock
from termserver.wire.events import Fields, Request
from termserver.wire.fieldblock import CHUNKED, FieldBlock, RefusedError
from termserver.wire.fields import Underscores
from wire.driving import chunked, engine, feed_every_way, request


def status(data: bytes) -> int | None:
    outcome = feed_every_way(engine, data)
    assert (outcome.status is None) is bool(outcome.got)
    return outcome.status


def accepted(data: bytes, underscores: Underscores = Underscores.DROP) -> Request:
    outcome = feed_every_way(lambda: engine(underscores=underscores), data)
    assert outcome.status is None, outcome
    return outcome.got[0].request


def post(lines: bytes, body: bytes = b"hello", version: bytes = b"HTTP/1.1") -> bytes:
    return request(lines, line=b"POST / " + version, body=body)


# ---------------------------------------------------------------------- lines


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(b": v\r\n", id="no name"),
        pytest.param(b"Name v\r\n", id="no colon"),
        pytest.param(b"Name\r\n", id="name alone"),
        pytest.param(b"Name : v\r\n", id="blank ahead of the colon"),
        pytest.param(b"Name\t: v\r\n", id="tab ahead of the colon"),
        pytest.param(b" Name: v\r\n", id="blank ahead of the name"),
        pytest.param(b"X: a\r\n b\r\n", id="folding"),
        pytest.param(b"X: a\r\n\tb\r\n", id="folding with a tab"),
        pytest.param(b"X:\r\n v\r\n", id="folding after an empty value"),
        pytest.param(b"X: a\r\n \r\n", id="folding of a blank line"),
        pytest.param(b"Content-Length\r\n: 5\r\n", id="name broken over lines"),
    ],
)
def test_a21_field_lines(lines: bytes) -> None:
    assert status(request(lines)) == 400


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\tHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n",
    ],
)
def test_a21_no_blank_ahead_of_the_first_field(head: bytes) -> None:
    assert status(head) == 400


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
        b"GET / HTTP/1.1\rHost: a\r\r",
        b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\n\r\nHost: a\r\n\r\n",
        b"GET /\r\n HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \r\r\n\r\n",
        b"GET / HTTP/1.1\r\nX\r: y\r\nHost: a\r\n\r\n",
    ],
)
def test_a14_lines_end_in_crlf(head: bytes) -> None:
    assert status(head) == 400


@pytest.mark.parametrize("byte", range(256))
def test_a15_value_bytes(byte: int) -> None:
    legal = byte == 0x09 or 0x20 <= byte <= 0x7E or byte >= 0x80
    head = request(b"X: v%bw\r\n" % bytes([byte]))
    if legal:
        assert accepted(head).headers == [(b"host", b"a"), (b"x", b"v%bw" % bytes([byte]))]
    else:
        assert status(head) == 400


@pytest.mark.parametrize("byte", sorted(set(range(256)) - {0x3A}))
def test_b2_name_bytes(byte: int) -> None:
    name = b"x%by" % bytes([byte])
    legal = byte in b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    head = request(b"%b: v\r\n" % name)
    if legal:
        assert accepted(head, Underscores.ALLOW).headers[1] == (name.lower(), b"v")
    else:
        assert status(head) == 400


@pytest.mark.parametrize("byte", [0x0B, 0x0C, 0x1C, 0x1D, 0x1E, 0x1F, 0x00])
def test_b1_no_other_line_ends_in_an_upgrade(byte: int) -> None:
    lines = b"Connection: Upgrade\r\nUpgrade: websocket\r\nX: a%bEvil: b\r\n" % bytes([byte])
    assert status(request(lines)) == 400


def test_b1_next_line_is_a_byte_like_others() -> None:
    got = accepted(request(b"Connection: Upgrade\r\nUpgrade: websocket\r\nX: a\x85Evil: b\r\n"))
    assert (b"x", b"a\x85Evil: b") in got.headers
    assert got.upgrade == b"websocket"


@pytest.mark.parametrize(
    ("line", "pair"),
    [
        (b"X: y", (b"x", b"y")),
        (b"X:y", (b"x", b"y")),
        (b"X: \t y \t ", (b"x", b"y")),
        (b"X:", (b"x", b"")),
        (b"X: \t", (b"x", b"")),
        (b"X: :", (b"x", b":")),
        (b"Accept: a ", (b"accept", b"a")),
        (b"ACCEPT:", (b"accept", b"")),
        (b"X: a  b", (b"x", b"a  b")),
        (b"X: \xa0y\x85", (b"x", b"\xa0y\x85")),
        (b"User-Agent: a", (b"user-agent", b"a")),
        (b"uSER-aGENT: a", (b"user-agent", b"a")),
    ],
)
def test_rfc9112_5_1_names_in_lower_case_values_without_blanks(line: bytes, pair: tuple[bytes, bytes]) -> None:
    assert accepted(request(line + b"\r\n")).headers == [(b"host", b"a"), pair]


def test_rfc9110_5_3_fields_keep_their_order_and_number() -> None:
    lines = b"X: 1\r\nCookie: a\r\nAccept: b\r\nX: 2\r\nCookie: c\r\nx: 3\r\nAccept: b\r\n"
    assert accepted(request(lines)).headers == [
        (b"host", b"a"),
        (b"x", b"1"),
        (b"cookie", b"a"),
        (b"accept", b"b"),
        (b"x", b"2"),
        (b"cookie", b"c"),
        (b"x", b"3"),
        (b"accept", b"b"),
    ]


@pytest.mark.parametrize("name", [b"X_Forwarded_User", b"_", b"Content_Length", b"Transfer_Encoding", b"X-Forwarded_For"])
def test_b3_underscores(name: bytes) -> None:
    head = request(name + b": 5\r\nX: y\r\n")
    assert accepted(head).headers == [(b"host", b"a"), (b"x", b"y")]
    assert accepted(head, Underscores.ALLOW).headers == [(b"host", b"a"), (name.lower(), b"5"), (b"x", b"y")]
    assert feed_every_way(lambda: engine(underscores=Underscores.REJECT), head).status == 400
    assert feed_every_way(lambda: engine(underscores=Underscores.REJECT), request(b"X-Y: z\r\n")).status is None


@pytest.mark.parametrize("underscores", Underscores)
def test_b4_httpoxy(underscores: Underscores) -> None:
    assert accepted(request(b"Proxy: http://evil\r\npROXY: b\r\nX: y\r\n"), underscores).headers == [(b"host", b"a"), (b"x", b"y")]


# ---------------------------------------------------------------------- framing


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nContent-Length: 0\r\n",
        b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\ncontent-length: 5\r\n",
        b"Content-Length: 5\r\nX: y\r\nCONTENT-LENGTH: 6\r\n",
        b"Content-Length: 5, 5\r\n",
        b"Content-Length: 5,6\r\n",
        b"Content-Length:\r\nContent-Length: 5\r\n",
        b"Content-Length: 0\r\nContent-Length: 0\r\n",
    ],
)
def test_a1_one_content_length(lines: bytes) -> None:
    assert status(post(lines)) == 400


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding: blegh\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding:\r\n",
        b"Transfer-Encoding: gzip\r\nContent-Length: 5\r\n",
    ],
)
def test_a2_no_content_length_beside_a_transfer_coding(lines: bytes) -> None:
    assert status(post(lines, b"0\r\n\r\n")) == 400


@pytest.mark.parametrize(
    ("lines", "answer"),
    [
        pytest.param(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400, id="twice"),
        pytest.param(b"Transfer-Encoding: chunked, chunked\r\n", 400, id="twice in a list"),
        pytest.param(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", 400, id="then identity"),
        pytest.param(b"Transfer-Encoding: chunked, identity\r\n", 400, id="then identity in a list"),
        pytest.param(b"Transfer-Encoding: ,chunked\r\n", 400, id="a4 empty member"),
        pytest.param(b"Transfer-Encoding: chunked,\r\n", 400, id="a4 empty member behind"),
        pytest.param(b"Transfer-Encoding:\r\n", 400, id="a4 empty"),
        pytest.param(b"Transfer-Encoding: \t\r\n", 400, id="a4 blanks"),
        pytest.param(b"Transfer-Encoding: chunked;q=1\r\n", 400, id="a4 parameter"),
        pytest.param(b'Transfer-Encoding: "chunked"\r\n', 400, id="a4 quoted"),
        pytest.param(b"Transfer-Encoding: chunked x\r\n", 400, id="a4 two words"),
        pytest.param(b"Transfer-Encoding: xchunked\r\n", 501, id="a4 prefix"),
        pytest.param(b"Transfer-Encoding: chunkedx\r\n", 501, id="a4 suffix"),
        pytest.param(b"Transfer-Encoding: blegh\r\n", 501, id="a4 unknown"),
        pytest.param(b"Transfer-Encoding: identity\r\n", 501, id="a4 identity"),
        pytest.param(b"Transfer-Encoding: gzip\r\n", 501, id="a4 gzip"),
        pytest.param(b"Transfer-Encoding: gzip, chunked\r\n", 501, id="a4 gzip, chunked"),
        pytest.param(b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 501, id="a4 gzip, chunked in two lines"),
        pytest.param(b"Transfer-Encoding: \x0bchunked\r\n", 400, id="a5 vertical tab"),
        pytest.param(b"Transfer-Encoding: \xa0chunked\r\n", 400, id="a5 no-break space"),
        pytest.param(b"Transfer-Encoding: chunked\x85\r\n", 400, id="a5 next line"),
        pytest.param(b"Transfer-Encoding: chun\xe2\x84\xaaed\r\n", 400, id="a5 Kelvin sign"),
        pytest.param(b"Transfer-Encoding : chunked\r\n", 400, id="a5 blank ahead of the colon"),
        pytest.param(b"Transfer-Encoding\r\n: chunked\r\n", 400, id="a5 broken name"),
        pytest.param(b"Transfer-Encoding:\r\n chunked\r\n", 400, id="a5 folded"),
    ],
)
def test_a3_the_one_transfer_coding(lines: bytes, answer: int) -> None:
    assert status(post(lines, b"0\r\n\r\n")) == answer


@pytest.mark.parametrize("line", [b"chunked", b"ChUnKeD", b"CHUNKED", b"\t chunked "])
def test_a5_chunked(line: bytes) -> None:
    outcome = feed_every_way(engine, post(b"Transfer-Encoding:%b\r\n" % line, b"2\r\nab\r\n0\r\n\r\n"))
    assert [(got.body, got.whole) for got in outcome.got] == [(b"ab", True)]


@pytest.mark.parametrize("coding", [b"chunked", b"gzip", b"identity"])
@pytest.mark.parametrize("more", [b"", b"Connection: keep-alive\r\n"])
def test_a6_no_transfer_coding_in_http_1_0(coding: bytes, more: bytes) -> None:
    assert status(post(b"Transfer-Encoding: %b\r\n%b" % (coding, more), b"0\r\n\r\n", b"HTTP/1.0")) == 400


@pytest.mark.parametrize(
    "value",
    [
        b"+5",
        b"-0",
        b"-5",
        b"5_0",
        b"0x5",
        b"\xd9\xa5",
        b"",
        b"1e1",
        b"5.0",
        b"5 5",
        b"5;",
        b'"5"',
        b"a",
        b"\x0b5",
        b"5\xa0",
        b"9" * 20,
        b"1" * 20,
        b"0" * 20,
        b"1" * 4_000,
    ],
)
def test_a7_content_length_is_digits(value: bytes) -> None:
    assert status(post(b"Content-Length: %b\r\n" % value)) == 400


def test_a8_a_huge_content_length() -> None:
    outcome = feed_every_way(lambda: engine(field=0, header_bytes=0), post(b"Content-Length: " + b"1" * 10_000 + b"\r\n"))
    assert outcome.status == 400


@pytest.mark.parametrize("value", [b"5", b"05", b"0000000000000000005"])
def test_rfc9112_6_3_a_body_of_a_length(value: bytes) -> None:
    outcome = feed_every_way(engine, post(b"Content-Length: %b \r\n" % value))
    assert [(got.body, got.whole) for got in outcome.got] == [(b"hello", True)]


@pytest.mark.parametrize("lines", [b"", b"Content-Length: 0\r\n", b"Content-Length: 000\r\n"])
@pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT", b"DELETE"])
def test_rfc9112_6_3_no_body(method: bytes, lines: bytes) -> None:
    assert accepted(request(lines, line=method + b" / HTTP/1.1")).ended


# ---------------------------------------------------------------------- options of the connection


@pytest.mark.parametrize(
    ("version", "lines", "kept"),
    [
        (b"HTTP/1.1", b"", True),
        (b"HTTP/1.1", b"Connection: keep-alive\r\n", True),
        (b"HTTP/1.1", b"Connection: close\r\n", False),
        (b"HTTP/1.1", b"Connection: CLOSE\r\n", False),
        (b"HTTP/1.1", b"Connection: te, Close\r\n", False),
        (b"HTTP/1.1", b"Connection: closed\r\n", True),
        (b"HTTP/1.1", b"Connection: keep-alive\r\nConnection: close\r\n", False),
        (b"HTTP/1.1", b"Connection: \r\n", True),
        (b"HTTP/1.1", b"Connection: ,,\r\n", True),
        (b"HTTP/1.1", b"Proxy-Connection: close\r\n", True),
        (b"HTTP/1.1", b"Connection: keep-alive, close\r\n", False),
        (b"HTTP/1.0", b"", False),
        (b"HTTP/1.0", b"Connection: keep-alive\r\n", True),
        (b"HTTP/1.0", b"connection: Keep-Alive\r\n", True),
        (b"HTTP/1.0", b"Connection: te, keep-alive\r\n", True),
        (b"HTTP/1.0", b"Connection: keep-alive\r\nConnection: close\r\n", False),
        (b"HTTP/1.0", b"Connection: x-keep-alive\r\n", False),
        (b"HTTP/1.0", b"Proxy-Connection: keep-alive\r\n", False),
    ],
)
def test_rfc9112_9_3_persistence(version: bytes, lines: bytes, kept: bool) -> None:
    block = FieldBlock(Underscores.DROP)
    for _ in range(3):  # lines that are kept mean what they meant
        block.read(request(lines, line=b"GET / " + version), version[5:].decode())
        assert block.keeps_alive(version[5:].decode()) is kept


@pytest.mark.parametrize(
    "lines",
    [
        b"Expect: 100-continue\r\nExpect: 100-continue\r\n",
        b"Expect: y 100-continue\r\n",
        b"Expect: 100-continue, 100-continue\r\n",
        b"Expect: 200-ok\r\n",
        b"Expect:\r\n",
        b"Expect: 100-continue;x\r\n",
        b"Expect: 100\r\n",
    ],
)
@pytest.mark.parametrize("body", [b"Content-Length: 5\r\n", b""])
def test_a17_expectations_that_are_refused(lines: bytes, body: bytes) -> None:
    assert status(post(lines + body)) == 417


@pytest.mark.parametrize("value", [b"100-continue", b"100-Continue", b" 100-CONTINUE "])
def test_rfc9110_10_1_1_the_one_expectation(value: bytes) -> None:
    assert status(post(b"Expect:%b\r\nContent-Length: 5\r\n" % value)) is None


def test_rfc9110_10_1_1_http_1_0_expects_nothing() -> None:
    assert status(post(b"Expect: nonsense\r\nContent-Length: 5\r\n", version=b"HTTP/1.0")) is None


@pytest.mark.parametrize(
    ("version", "lines", "upgrade"),
    [
        (b"HTTP/1.1", b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b"websocket"),
        (b"HTTP/1.1", b"connection: keep-alive, upgrade\r\nupgrade: WebSocket\r\n", b"websocket"),
        (b"HTTP/1.1", b"Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n", b"websocket"),
        (b"HTTP/1.1", b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n", b"websocket"),
        (b"HTTP/1.1", b"Connection: Upgrade\r\nUpgrade: h2c\r\n", None),
        (b"HTTP/1.1", b"Upgrade: websocket\r\n", None),
        (b"HTTP/1.1", b"Connection: Upgrade\r\n", None),
        (b"HTTP/1.1", b"Connection: Upgrade\r\nUpgrade: websocket/13\r\n", None),
        (b"HTTP/1.0", b"Connection: Upgrade\r\nUpgrade: websocket\r\n", None),
    ],
)
def test_rfc9110_7_8_upgrade(version: bytes, lines: bytes, upgrade: bytes | None) -> None:
    assert accepted(request(lines, line=b"GET / " + version)).upgrade == upgrade


@pytest.mark.parametrize("framing", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a26_no_websocket_with_a_body(framing: bytes) -> None:
    assert status(post(b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + framing)) == 400


@pytest.mark.parametrize("token", [b"h2c", b"TLS/1.0", b"foo"])
@pytest.mark.parametrize("chunks", [False, True])
def test_a26_any_other_upgrade_is_ignored_and_the_body_read_as_framed(token: bytes, chunks: bool) -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    lines = b"Connection: Upgrade\r\nUpgrade: %b\r\n" % token
    if chunks:
        data = chunked(b"%x\r\n%b\r\n0\r\n\r\n" % (len(smuggled), smuggled), lines)
    else:
        data = post(lines + b"Content-Length: %d\r\n" % len(smuggled), smuggled)
    outcome = feed_every_way(engine, data)
    assert [(got.body, got.whole, got.request.upgrade) for got in outcome.got] == [(smuggled, True, None)]


@pytest.mark.parametrize(
    ("value", "takes"), [(b"trailers", True), (b"gzip, Trailers", True), (b"", False), (b"gzip", False), (b"trailers;q=1", False)]
)
def test_rfc9110_10_1_4_te(value: bytes, takes: bool) -> None:
    block = FieldBlock(Underscores.DROP)
    block.read(request(b"TE: %b\r\n" % value), "1.1")
    assert block.takes_trailers() is takes


# ---------------------------------------------------------------------- llhttp judges, we split


class Listener:
    """Field lines as llhttp tells them."""

    def __init__(self) -> None:
        self.fields: Fields = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


def told(head: bytes) -> Fields | None:
    listener = Listener()
    try:
        httptools.HttpRequestParser(listener).feed_data(head)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        return None
    return listener.fields if listener.complete else None


BITS = st.one_of(
    st.binary(max_size=3),
    st.sampled_from(
        [
            b"\r\n",
            b"\n",
            b"\r",
            b" ",
            b"\t",
            b":",
            b": ",
            b"X: y\r\n",
            b"Host: a\r\n",
            b"X",
            b"\r\n\r\n",
            b"Connection: Upgrade\r\n",
            b"Upgrade: x\r\n",
            b"Content-Length: 3\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"\x00",
            b"\x85",
            b"Proxy-Connection: close\r\n",
            b"a,b",
            b"Connection: close\r\n",
        ]
    ),
)


@given(st.lists(BITS, max_size=10))
@example([b"X: y", b"\r\n", b" z"])
@example([b"X:", b"\r\n", b" z"])
@example([b"X", b"\r", b": y"])
def test_lines_split_here_are_the_lines_that_llhttp_accepted(bits: list[bytes]) -> None:
    head = (b"POST / HTTP/1.1\r\n" + b"".join(bits) + b"\r\n\r\n").partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    block = FieldBlock(Underscores.ALLOW)
    fields = told(head)
    try:
        block.read(head, "1.1")
    except RefusedError:
        assert fields is None
        return
    assert fields is not None
    assert block.headers == [pair for pair in fields if pair[0] != b"proxy"]
    assert block.count == len(fields)


def test_a_head_that_is_not_whole_is_refused_and_leaves_nothing_behind() -> None:
    block = FieldBlock(Underscores.DROP)
    with pytest.raises(RefusedError, match="malformed head"):
        block.read(b"GET / HTTP/1.1\r\nHost: a\r\n", "1.1")
    block.read(request(), "1.1")
    assert block.headers == [(b"host", b"a")]


def test_the_table_of_lines_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fieldblock, "_KEPT_LINES", 8)
    block = FieldBlock(Underscores.DROP)
    for n in range(40):
        block.read(request(b"User-Agent: %d\r\nX-Custom: %d\r\nUser-Agent: %b\r\n" % (n, n, b"l" * 300)), "1.1")
        assert block.headers[1:] == [(b"user-agent", b"%d" % n), (b"x-custom", b"%d" % n), (b"user-agent", b"l" * 300)]
        assert 0 < len(block._kept) <= 8
        assert all(len(line) <= 256 for line in block._kept)


@pytest.mark.parametrize("name", [b"Cookie", b"Authorization", b"X-CSRFToken", b"Proxy-Authorization", b"X-Api-Key"])
def test_a_line_with_a_secret_is_never_kept(name: bytes) -> None:
    block = FieldBlock(Underscores.DROP)
    for _ in range(3):
        block.read(request(name + b": secret\r\n"), "1.1")
    assert not any(b"secret" in line for line in block._kept)


def test_lengths_and_codings() -> None:
    block = FieldBlock(Underscores.DROP)
    block.read(chunked(b""), "1.1")
    assert block.body_length("1.1") == CHUNKED
