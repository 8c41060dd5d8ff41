"""Response heads: what an application may put in them, and what it can never put on the wire (spec attacks B5, B6; RFC 9112 §6)."""

from collections.abc import Iterable
from http import HTTPStatus

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from termserver.errors import InvalidMessage
from termserver.wire import response
from termserver.wire.events import Fields
from termserver.wire.fields import is_token, is_value
from termserver.wire.response import render_head, render_trailers
from wire.driving import Driver, engine, request


def rendered(status: int, headers: Iterable[Iterable[bytes]]) -> bytes:
    return b"".join(render_head(status, headers)[0])


def test_fields_are_written_as_they_are_said() -> None:
    headers = [
        (b"Content-Type", b"text/html"),
        (b"X-A", b"1"),
        (b"set-cookie", b"a"),
        (b"set-cookie", b"b"),
        (b"x", b""),
        (b"y", b"\xe9 \t z"),
    ]
    for _ in range(3):
        assert rendered(200, headers) == (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nX-A: 1\r\nset-cookie: a\r\nset-cookie: b\r\nx: \r\ny: \xe9 \t z\r\n"
        )


@pytest.mark.parametrize("form", [tuple, list, iter], ids=lambda form: form.__name__)
def test_headers_may_be_any_iterables(form: type) -> None:
    pairs = [(b"a", b"b"), (b"content-type", b"c"), (b"content-length", b"4")]
    for _ in range(3):
        lines, length, _ = render_head(200, form([form(pair) for pair in pairs]))
        assert (b"".join(lines), length) == (b"HTTP/1.1 200 OK\r\na: b\r\ncontent-type: c\r\ncontent-length: 4\r\n", 4)


@pytest.mark.parametrize("status", [200, 299, 404, 999, HTTPStatus.CREATED])
def test_statuses(status: int) -> None:
    assert rendered(status, []).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize("status", [0, 99, 100, 101, 199, 1000, -200, True, None, "200", b"200", 200.0])
def test_statuses_that_are_none(status: int) -> None:
    with pytest.raises(InvalidMessage, match="status from 200 to 999"):
        render_head(status, [])


def test_b6_the_reason_phrase_is_ours() -> None:
    assert rendered(299, []) == b"HTTP/1.1 299 \r\n"
    assert rendered(413, []) == b"HTTP/1.1 413 Content Too Large\r\n"


BAD_FIELDS = [
    pytest.param((b"x", b"a\r\nSet-Cookie: b"), id="line end in a value"),
    pytest.param((b"x", b"a\nb"), id="LF in a value"),
    pytest.param((b"x", b"a\r"), id="CR in a value"),
    pytest.param((b"x", b"\x00"), id="NUL in a value"),
    pytest.param((b"x", b"\x7f"), id="DEL in a value"),
    pytest.param((b"content-type", b"a\r\n\r\nbody"), id="in a known name"),
    pytest.param((b"date", b"a\r\nb: c"), id="in date"),
    pytest.param((b"server", b"a\r\nb: c"), id="in server"),
    pytest.param((b"connection", b"a\r\nb: c"), id="in connection"),
    pytest.param((b"a b", b"c"), id="blank in a name"),
    pytest.param((b"a\r\nb", b"c"), id="line end in a name"),
    pytest.param((b"a:", b"c"), id="colon in a name"),
    pytest.param((b":status", b"200"), id="pseudo header"),
    pytest.param((b"", b"c"), id="no name"),
    pytest.param((b"\xe9", b"c"), id="obs-text in a name"),
    pytest.param(("x", b"c"), id="name as text"),
    pytest.param((b"x", "c"), id="value as text"),
    pytest.param((b"content-type", "c"), id="value of a known name as text"),
    pytest.param((b"connection", "close"), id="connection as text"),
    pytest.param((b"content-length", "5"), id="length as text"),
    pytest.param((b"content-length", 5), id="length as number"),
    pytest.param((b"connection", None), id="no connection"),
    pytest.param((b"x", None), id="no value"),
    pytest.param((b"x", 5), id="number"),
    pytest.param((None, b"c"), id="None for a name"),
    pytest.param((bytearray(b"x"), b"c"), id="a name that may change"),
    pytest.param((b"x",), id="one part"),
    pytest.param((b"x", b"y", b"z"), id="three parts"),
    pytest.param(b"xy", id="bytes"),
    pytest.param(None, id="None"),
    pytest.param(5, id="a number for a pair"),
]


@pytest.mark.parametrize("pair", BAD_FIELDS)
@pytest.mark.parametrize("form", [lambda pair: pair, lambda pair: list(pair) if type(pair) is tuple else pair], ids=["tuple", "list"])
def test_b5_bad_fields_are_the_applications_fault(pair: tuple[bytes, bytes], form: type) -> None:
    for headers in ([form(pair)], [(b"a", b"b"), form(pair), (b"c", b"d")]):
        for _ in range(2):
            with pytest.raises(InvalidMessage):
                render_head(200, headers)
    with pytest.raises(InvalidMessage):
        render_trailers([form(pair)])


@pytest.mark.parametrize("headers", [None, 5, object()])
def test_b5_headers_that_are_no_list(headers: Iterable[Iterable[bytes]]) -> None:
    with pytest.raises(InvalidMessage, match="pairs of byte strings"):
        render_head(200, headers)
    with pytest.raises(InvalidMessage, match="pairs of byte strings"):
        render_trailers(headers)


def test_b5_nothing_was_written_and_another_start_may_follow() -> None:
    http = engine()
    Driver(http).feed(request())
    with pytest.raises(InvalidMessage):
        http.start(0, 200, [(b"x", b"a\r\nb: c")])
    assert http.output() == b""
    http.start(0, 500, [])
    http.write(0, b"", False)
    assert http.output() == b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize("value", [b"", b"+5", b"5_0", b" 5", b"a", b"5,5", b"\xd9\xa5", b"1" * 20])
def test_b10_a_length_is_digits(value: bytes) -> None:
    for _ in range(2):
        with pytest.raises(InvalidMessage, match="content-length"):
            render_head(200, [(b"content-length", value)])


def test_b10_a_length_is_given_once() -> None:
    pair = (b"content-length", b"1717")
    render_head(200, [pair])
    for second in (pair, (b"Content-Length", b"1717"), [b"content-length", b"1717"]):
        with pytest.raises(InvalidMessage, match="given once"):
            render_head(200, [pair, second])
        with pytest.raises(InvalidMessage, match="given once"):
            render_head(200, [second, pair])


@pytest.mark.parametrize("name", [b"content-length", b"Content-Length"])
def test_rfc9110_8_6_a_204_has_no_length(name: bytes) -> None:
    for _ in range(2):
        assert rendered(204, [(b"a", b"b"), (name, b"0")]) == b"HTTP/1.1 204 No Content\r\na: b\r\n"
        assert b"content-length: 7\r\n" in rendered(304, [(name, b"7")])


@pytest.mark.parametrize("name", [b"Transfer-Encoding", b"connection", b"Keep-Alive", b"proxy-connection"])
def test_framing_is_the_servers(name: bytes) -> None:
    assert rendered(200, [(name, b"chunked"), (b"x", b"y")]) == b"HTTP/1.1 200 OK\r\nx: y\r\n"


def test_what_is_said_of_things_the_server_knows() -> None:
    assert render_head(200, [(b"x", b"y")])[1:] == (None, 0)
    assert (
        render_head(200, [(b"Date", b"d"), (b"Server", b"s"), (b"Connection", b"te, Close")])[2]
        == response.CLOSE | response.DATE | response.SERVER
    )
    assert render_head(200, [(b"connection", b"keep-alive")])[2] == 0


def test_tables_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response, "_MAX_LINES", 8)
    response._known_lines.clear()
    response._known_lengths.clear()
    for n in range(40):
        for _ in range(2):
            lines, length, _ = render_head(
                200, [(b"content-type", b"%d" % n), (b"x-own", b"%d" % n), (b"vary", b"v" * 300), (b"content-length", b"%d" % n)]
            )
            assert b"".join(lines).endswith(b"content-type: %d\r\nx-own: %d\r\nvary: %b\r\ncontent-length: %d\r\n" % (n, n, b"v" * 300, n))
            assert length == n
        assert 0 < len(response._known_lines) <= 8
        assert 0 < len(response._known_lengths) <= 8
    assert all(len(line) <= 256 for line in response._known_lines.values())


@pytest.mark.parametrize("name", [b"set-cookie", b"authorization", b"www-authenticate", b"location", b"etag", b"x-own"])
def test_a_line_with_a_secret_is_never_kept(name: bytes) -> None:
    render_head(200, [(name, b"secret")])
    assert not any(b"secret" in line for line in response._known_lines.values())


def test_trailers() -> None:
    assert render_trailers([]) == b""
    assert render_trailers([(b"X", b"y"), [b"z", b""]]) == b"X: y\r\nz: \r\n"


# ---------------------------------------------------------------------- what h11's client reads of it


def read_by_h11(data: bytes, method: bytes = b"GET") -> tuple[Fields, bytes]:
    client = h11.Connection(our_role=h11.CLIENT)
    client.send(h11.Request(method=method, target=b"/", headers=[(b"host", b"a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    event = client.next_event()
    if not isinstance(event, h11.Response):
        raise TypeError(event)
    body = b""
    while True:
        part = client.next_event()
        if isinstance(part, h11.Data):
            body += bytes(part.data)
        elif isinstance(part, h11.EndOfMessage):
            if client.trailing_data[0]:
                raise ValueError(client.trailing_data)
            return [(bytes(name), bytes(value)) for name, value in event.headers], body
        else:
            raise TypeError(part)


NAMES = st.one_of(
    st.binary(max_size=6),
    st.from_regex(rb"\A[a-zA-Z!#$%&'*+\-.^_`|~0-9]{1,8}\Z"),
    st.sampled_from([b"content-type", b"Vary", b"content-length", b"Connection", b"transfer-encoding", b"date", b"Server", b"set-cookie"]),
)
VALUES = st.one_of(
    st.binary(max_size=10),
    st.sampled_from([b"a\r\nb: c", b"a\r\n\r\nGET / HTTP/1.1", b"\r", b"\n", b"\x00", b"close", b"chunked", b"4", b"0", b""]),
    st.text("abc \t\xe9", max_size=8).map(lambda text: text.encode("latin-1")),
)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6), st.booleans())
def test_b5_nothing_said_as_a_header_becomes_another_line(headers: Fields, chunks: bool) -> None:
    http = engine(server=b"s")
    Driver(http).feed(request())
    try:
        http.start(0, 200, headers)
    except InvalidMessage:
        lengths = [value for name, value in headers if name.lower() == b"content-length"]
        assert len(lengths) > 1 or not all(v.isdigit() for v in lengths) or not all(is_token(n) and is_value(v) for n, v in headers)
        assert http.output() == b""
        return
    assert all(is_token(name) and is_value(value) for name, value in headers)
    body = b"four"
    try:
        if chunks:
            http.write(0, body[:2], True)
            http.write(0, body[2:], True)
            http.write(0, b"", False)
        else:
            http.write(0, body, False)
    except InvalidMessage:
        assert any(name.lower() == b"content-length" and int(value) != 4 for name, value in headers)
        return
    seen, read = read_by_h11(http.output())
    assert read == body
    steering = {b"connection", b"content-length", b"transfer-encoding", b"keep-alive", b"proxy-connection"}
    said = [(name.lower(), value.strip(b" \t")) for name, value in headers if name.lower() not in steering]
    rest = [pair for pair in seen if pair[0] not in steering]
    assert rest[: len(said)] == said
    assert set(rest[len(said) :]) <= {(b"server", b"s")}
    assert sum(name == b"content-length" for name, _ in seen) + sum(name == b"transfer-encoding" for name, _ in seen) == 1


@given(st.lists(st.tuples(NAMES, VALUES), max_size=4))
def test_b5_nothing_said_as_a_trailer_or_a_hint_becomes_another_line(fields: Fields) -> None:
    try:
        lines = render_trailers(fields)
    except InvalidMessage:
        return
    assert lines.count(b"\n") == lines.count(b"\r") == lines.count(b"\r\n") == len(fields)
    assert b"\x00" not in lines
    assert not lines.startswith(b"\r\n")
    assert b"\r\n\r\n" not in lines


@pytest.mark.parametrize("name", [b"content-length", b"Transfer-Encoding", b"host", b"Set-Cookie"])
def test_rfc9110_6_5_1_trailers_frame_nothing(name: bytes) -> None:
    with pytest.raises(InvalidMessage, match="trailer"):
        render_trailers([(name, b"0")])
