"""Response heads of HTTP/2: what an application may put in them, and what it can never put on the wire (RFC 9113 §8.2, §8.3.2; spec B5)."""

import itertools
from collections.abc import Iterable
from http import HTTPStatus

import pytest
from hpack import Decoder
from hypothesis import given
from hypothesis import strategies as st

from termserver.errors import InvalidMessage
from termserver.wire import h2response
from termserver.wire.events import Fields
from termserver.wire.fields import FORBIDDEN_TRAILERS, is_token, is_value
from termserver.wire.h2response import ResponseEncoder
from termserver.wire.response import CONNECTION_FIELDS, REPEATED, render_head

DATE = b"Sun, 22 Nov 2026 00:00:00 GMT"


def make(*, server: bytes = b"", date: bytes = b"") -> ResponseEncoder:
    encoder = ResponseEncoder(server)
    encoder.set_date(date)
    return encoder


def decode(block: bytes) -> Fields:
    """Decode a block, as a client does that has an empty table."""
    decoder = Decoder()
    decoder.header_table_size = 0
    decoder.max_header_list_size = 1 << 24
    decoded = [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]
    assert not decoder.header_table.dynamic_entries
    return decoded


def encoded(headers: Iterable[Iterable[bytes]], status: int = 200, encoder: ResponseEncoder | None = None) -> Fields:
    return decode((encoder or make()).encode(status, headers)[0])


# ---------------------------------------------------------------------- final responses


def test_rfc9113_8_2_1_fields_are_in_lower_case_and_have_no_blanks_around() -> None:
    headers = [
        (b"Content-Type", b"text/html"),
        (b"X-A", b" 1\t"),
        (b"set-cookie", b"a"),
        (b"set-cookie", b"b"),
        (b"x", b""),
        (b"y", b"\xe9 \t z"),
        (b"Vary", b" Accept "),
        (b"z" * 300, b"v" * 70_000),
    ]
    encoder = make()
    for _ in range(3):
        assert encoded(headers, 200, encoder) == [
            (b":status", b"200"),
            (b"content-type", b"text/html"),
            (b"x-a", b"1"),
            (b"set-cookie", b"a"),
            (b"set-cookie", b"b"),
            (b"x", b""),
            (b"y", b"\xe9 \t z"),
            (b"vary", b"Accept"),
            (b"z" * 300, b"v" * 70_000),
        ]


PAIRS = [
    pytest.param([(b"a", b"b"), (b"content-type", b"c"), (b"content-length", b"4")], id="of every kind"),
    pytest.param([(b"content-type", b"c"), (b"vary", b"b"), (b"content-length", b"4")], id="that are kept"),
]


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("inner", [tuple, list, iter], ids=lambda form: form.__name__)
@pytest.mark.parametrize("outer", [tuple, list, iter], ids=lambda form: form.__name__)
def test_headers_may_be_any_iterables(outer: type, inner: type, pairs: Fields) -> None:
    encoder = make()
    for _ in range(3):
        block, length = encoder.encode(200, outer([inner(pair) for pair in pairs]))
        assert (decode(block), length) == ([(b":status", b"200"), *pairs], 4)


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("forms", list(itertools.product([tuple, list], repeat=3)), ids=lambda forms: " ".join(f.__name__ for f in forms))
def test_headers_may_be_iterables_of_several_kinds(forms: tuple[type, ...], pairs: Fields) -> None:
    encoder = make()
    for _ in range(3):
        block, length = encoder.encode(200, [form(pair) for form, pair in zip(forms, pairs, strict=True)])
        assert (decode(block), length) == ([(b":status", b"200"), *pairs], 4)


@pytest.mark.parametrize("status", [200, 204, 206, 299, 304, 400, 404, 500, 503, 999, HTTPStatus.CREATED])
def test_rfc9113_8_3_2_status(status: int) -> None:
    for headers in ([], [(b"vary", b"a")]):
        encoder = make()
        for _ in range(3):
            assert encoded(headers, status, encoder) == [(b":status", b"%d" % status), *headers]


@pytest.mark.parametrize("status", [0, 99, 100, 101, 199, 1000, -200, True, None, "200", b"200", 200.0])
def test_statuses_that_are_none(status: int) -> None:
    encoder = make()
    for _ in range(2):
        with pytest.raises(InvalidMessage, match="status from 200 to 999"):
            encoder.encode(status, [])
        encoder.encode(200, [(b"vary", b"a")])
        encoder.encode(200, [(b"vary", b"a")])  # it is kept now
        with pytest.raises(InvalidMessage, match="status from 200 to 999"):
            encoder.encode(status, [(b"vary", b"a")])


@pytest.mark.parametrize("name", sorted(CONNECTION_FIELDS))
def test_rfc9113_8_2_2_fields_of_http1_are_left_out(name: bytes) -> None:
    encoder = make()
    for _ in range(2):
        assert encoded([(b"vary", b"a"), (name, b"close"), (name.title(), b"b"), (b"x", b"b")], 200, encoder) == [
            (b":status", b"200"),
            (b"vary", b"a"),
            (b"x", b"b"),
        ]


BAD_FIELDS = [
    pytest.param((b"x", b"a\r\nSet-Cookie: b"), id="line end in a value"),
    pytest.param((b"x", b"a\nb"), id="LF in a value"),
    pytest.param((b"x", b"a\r"), id="CR in a value"),
    pytest.param((b"x", b"\x00"), id="NUL in a value"),
    pytest.param((b"x", b"\x7f"), id="DEL in a value"),
    pytest.param((b"content-type", b"a\r\nb: c"), id="in a name that is kept"),
    pytest.param((b"content-length", b"1\n"), id="in content-length"),
    pytest.param((b"date", b"a\r\nb: c"), id="in date"),
    pytest.param((b"server", b"a\r\nb: c"), id="in server"),
    pytest.param((b"connection", b"a\r\nb: c"), id="in connection"),
    pytest.param((b"a b", b"c"), id="blank in a name"),
    pytest.param((b"a\r\nb", b"c"), id="line end in a name"),
    pytest.param((b"a:", b"c"), id="colon in a name"),
    pytest.param((b":status", b"200"), id="pseudo-header field"),
    pytest.param((b":path", b"/"), id="a request's"),
    pytest.param((b"", b"c"), id="no name"),
    pytest.param((b"\xe9", b"c"), id="obs-text in a name"),
    pytest.param(("x", b"c"), id="name as text"),
    pytest.param((b"x", "c"), id="value as text"),
    pytest.param((b"content-type", "c"), id="value of a known name as text"),
    pytest.param((bytearray(b"x"), b"c"), id="name in another kind of bytes"),
    pytest.param((b"x", None), id="no value"),
    pytest.param((b"x", 1), id="a number"),
    pytest.param((b"x",), id="one part"),
    pytest.param((b"x", b"a", b"b"), id="three parts"),
    pytest.param(b"xy", id="bytes for a pair"),
    pytest.param(7, id="a number for a pair"),
]


@pytest.mark.parametrize("field", BAD_FIELDS)
def test_spec_b5_nothing_is_encoded_of_a_bad_field(field: tuple[bytes, bytes]) -> None:
    encoder = make()
    for before in ([], [(b"vary", b"a")]):
        for _ in range(2):
            with pytest.raises(InvalidMessage):
                encoder.encode(200, [*before, field])
            with pytest.raises(InvalidMessage):
                encoder.encode_interim(103, [*before, field])
            with pytest.raises(InvalidMessage):
                encoder.encode_trailers([*before, field])
            assert encoded(before, 200, encoder) == [(b":status", b"200"), *before]


@pytest.mark.parametrize("headers", [7, None, [None], b"ab"])
def test_headers_that_are_none(headers: Iterable[Iterable[bytes]]) -> None:
    encoder = make()
    for encode in (
        lambda: encoder.encode(200, headers),
        lambda: encoder.encode_interim(103, headers),
        lambda: encoder.encode_trailers(headers),
    ):
        with pytest.raises(InvalidMessage, match="pairs of byte strings"):
            encode()


# ---------------------------------------------------------------------- RFC 9110 §8.6: Content-Length


def test_rfc9110_8_6_content_length() -> None:
    encoder = make()
    for name in (b"content-length", b"Content-Length", b"content-length"):
        block, length = encoder.encode(200, [(name, b"12")])
        assert (decode(block), length) == ([(b":status", b"200"), (b"content-length", b"12")], 12)
    assert encoder.encode(200, [(b"x", b"1")])[1] is None
    assert decode(encoder.encode_length(345)) == [(b"content-length", b"345")]


@pytest.mark.parametrize("value", [b"", b"a", b"-1", b"+1", b" 1", b"1 ", b"1, 1", b"1_0", b"1" * 20])
def test_rfc9110_8_6_lengths_that_are_none(value: bytes) -> None:
    encoder = make()
    for _ in range(2):
        with pytest.raises(InvalidMessage, match="content-length is given once, as digits"):
            encoder.encode(200, [(b"content-length", value)])


@pytest.mark.parametrize("status", [200, 204])
def test_rfc9110_8_6_two_lengths(status: int) -> None:
    encoder = make()
    for first, second in ((b"1", b"1"), (b"1", b"2"), (b"1", b"1")):
        with pytest.raises(InvalidMessage, match="content-length is given once"):
            encoder.encode(status, [(b"content-length", first), (b"Content-Length", second)])
        encoder.encode(200, [(b"content-length", first)])
        encoder.encode(200, [(b"Content-Length", second)])  # both are kept now


def test_rfc9110_8_6_a_204_has_no_length() -> None:
    encoder = make()
    fields = [(b"vary", b"a"), (b"content-length", b"0")]
    for _ in range(3):
        assert encoded(fields, 204, encoder) == [(b":status", b"204"), (b"vary", b"a")]
        assert encoded(fields, 200, encoder) == [(b":status", b"200"), *fields]
        assert encoded(fields, 304, encoder) == [(b":status", b"304"), *fields]


# ---------------------------------------------------------------------- date and server


def test_rfc9110_6_6_1_date_and_server_come_last() -> None:
    encoder = make(server=b"s", date=DATE)
    for _ in range(3):
        assert encoded([(b"vary", b"a")], 200, encoder) == [(b":status", b"200"), (b"vary", b"a"), (b"date", DATE), (b"server", b"s")]
    assert decode(encoder.encode_plain(400, [(b"x", b"1")])) == [(b":status", b"400"), (b"x", b"1"), (b"date", DATE), (b"server", b"s")]
    assert decode(encoder.encode_plain(100, [], defaults=False)) == [(b":status", b"100")]
    assert decode(ResponseEncoder().encode(200, [])[0]) == [(b":status", b"200"), (b"server", b"termserver")]


def test_a_new_date_is_in_heads_that_are_kept() -> None:
    encoder = make(date=DATE)
    for date in (DATE, b"Sun, 22 Nov 2026 00:00:01 GMT"):
        encoder.set_date(date)
        for _ in range(2):
            assert encoded([(b"vary", b"a")], 200, encoder)[-1] == (b"date", date)
    encoder.set_date(b"")
    assert encoded([(b"vary", b"a")], 200, encoder) == [(b":status", b"200"), (b"vary", b"a")]


@pytest.mark.parametrize(
    ("own", "added"),
    [
        ([(b"Date", b"today")], [(b"server", b"s")]),
        ([(b"Server", b"mine")], [(b"date", DATE)]),
        ([(b"server", b""), (b"date", b" today ")], []),
        ([], [(b"date", DATE), (b"server", b"s")]),
    ],
)
def test_the_applications_date_and_server_are_the_only_ones(own: Fields, added: Fields) -> None:
    encoder = make(server=b"s", date=DATE)
    said = [(name.lower(), value.strip()) for name, value in own]
    for _ in range(3):
        assert encoded([(b"vary", b"a"), *own], 200, encoder) == [(b":status", b"200"), (b"vary", b"a"), *said, *added]
        assert decode(encoder.encode_upgrade(own)) == [(b":status", b"200"), *said, *added]


# ---------------------------------------------------------------------- other heads


def test_rfc8441_5_a_websocket_is_accepted_with_200() -> None:
    fields = [(b"Sec-WebSocket-Protocol", b" chat "), (b"x", b"1")]
    assert decode(make().encode_upgrade(fields)) == [(b":status", b"200"), (b"sec-websocket-protocol", b"chat"), (b"x", b"1")]


@pytest.mark.parametrize("status", [100, 102, 103, 199])
def test_rfc9113_8_1_interim_responses(status: int) -> None:
    encoder = make(server=b"s", date=DATE)
    fields = [(b"Link", b" </a>; rel=preload "), (b"Connection", b"close"), (b"link", b"b")]
    assert decode(encoder.encode_interim(status, fields)) == [
        (b":status", b"%d" % status),
        (b"link", b"</a>; rel=preload"),
        (b"link", b"b"),
    ]


def test_rfc9113_8_1_trailers() -> None:
    assert decode(make(server=b"s", date=DATE).encode_trailers([(b"X-Sum", b" 1 "), (b"etag", b"")])) == [(b"x-sum", b"1"), (b"etag", b"")]
    assert make().encode_trailers([]) == b""


@pytest.mark.parametrize("name", sorted(FORBIDDEN_TRAILERS))
def test_rfc9110_6_5_1_fields_that_no_trailer_section_holds(name: bytes) -> None:
    for each in (name, name.upper()):
        with pytest.raises(InvalidMessage, match="no trailer section"):
            make().encode_trailers([(b"x-sum", b"1"), (each, b"1")])


# ---------------------------------------------------------------------- what is kept


def test_what_is_kept_is_bounded_and_no_secret() -> None:
    encoder = make()
    for number in range(3_000):
        value = b"%d" % number
        encoder.encode(200, [(b"vary", value), (b"set-cookie", value), (b"x-token", value), (b"content-length", value)])
        encoder.encode(200, [(b"vary", value)])
        encoder.encode(200, [(b"vary", value), (b"content-length", value)])
        for kept in (encoder._fields, encoder._heads, encoder._lengths):
            assert len(kept) <= h2response._MAX_FIELDS
    encoder.encode(200, [(b"vary", b"a" * 300)])
    assert all(len(part) <= h2response._MAX_FIELD for part in encoder._fields.values())
    names = {name for name, _ in encoder._fields} | {name for _, *fields in encoder._heads for name, _ in fields}
    assert names <= REPEATED | {b"content-length"}
    assert encoder._heads


def test_a_head_of_kept_fields_is_kept() -> None:
    encoder = make()
    headers = [(b"content-type", b"a"), (b"content-length", b"1")]
    encoder.encode(200, headers)
    assert not encoder._heads
    encoder.encode(200, headers)
    assert len(encoder._heads) == 1
    assert encoder.encode(200, headers) == make().encode(200, headers)
    assert encoder.encode(404, headers) == make().encode(404, headers)
    assert encoder.encode(200, headers[::-1]) == make().encode(200, headers[::-1])


def test_encoders_share_nothing() -> None:
    one, other = make(server=b"one"), make(server=b"other")
    for encoder, server in ((one, b"one"), (other, b"other"), (one, b"one"), (other, b"other")):
        assert encoded([(b"vary", b"a")], 200, encoder)[-1] == (b"server", server)


# ---------------------------------------------------------------------- laws

_NAMES = st.sampled_from(
    [b"vary", b"Vary", b"content-type", b"content-length", b"date", b"Server", b"connection", b"x", b"X-A", b"set-cookie"]
)
_VALUES = st.sampled_from([b"", b"1", b"12", b" a", b"a ", b"\xe9", b"a" * 260, b"a\n"])
_HEADS = st.tuples(st.sampled_from([200, 204, 304, 404]), st.lists(st.tuples(_NAMES, _VALUES), max_size=4))


def outcome(encoder: ResponseEncoder, status: int, headers: Fields) -> tuple[bytes, int | None] | str:
    try:
        return encoder.encode(status, headers)
    except InvalidMessage as error:
        return str(error)


@given(st.lists(_HEADS, max_size=4).flatmap(lambda heads: st.lists(st.sampled_from(heads), max_size=8) if heads else st.just([])))
def test_whatever_came_before_a_head_is_the_same(heads: list[tuple[int, Fields]]) -> None:
    encoder = make(server=b"s", date=DATE)
    for status, headers in heads:
        assert outcome(encoder, status, headers) == outcome(make(server=b"s", date=DATE), status, headers)


@given(st.integers(200, 999), st.lists(st.tuples(st.binary(max_size=6), st.binary(max_size=6)), max_size=3))
def test_http1_judges_alike_and_nothing_illegal_is_encoded(status: int, headers: Fields) -> None:
    try:
        render_head(status, headers)
    except InvalidMessage:
        with pytest.raises(InvalidMessage):
            make().encode(status, headers)
        return
    first, *rest = encoded(headers, status)
    assert first == (b":status", b"%d" % status)
    assert rest == [(name.lower(), value.strip(b" \t")) for name, value in headers]
    assert all(is_token(name) and name == name.lower() and is_value(value) for name, value in rest)
