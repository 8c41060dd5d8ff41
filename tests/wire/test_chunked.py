"""The chunked coding, inwards (RFC 9112 §7.1; spec attacks A9 to A13; spec limits L6 and L8)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termserver.config import Limits
from termserver.wire.chunked import ChunkedDecoder, has_bare_line_end
from termserver.wire.events import Fields
from termserver.wire.fieldblock import FieldBlock, RefusedError
from termserver.wire.fields import Underscores
from wire.driving import byte_by_byte

BEHIND = b"GET /smuggled HTTP/1.1\r\n\r\n"


def decoder(**limits: int) -> ChunkedDecoder:
    return ChunkedDecoder(Limits(**limits), FieldBlock(Underscores.DROP))


def decode(pieces: list[bytes], **limits: int) -> tuple[bytes, bytes, bool, Fields]:
    made = decoder(**limits)
    body = rest = b""
    for piece in pieces:
        if made.done:
            rest += piece
            continue
        data, rest = made.decode(piece)
        body += data
    return body, rest, made.done, made.trailers


def decode_every_way(data: bytes, **limits: int) -> tuple[bytes, Fields]:
    """Decode a whole body, in all ways it may come."""
    body, rest, done, trailers = decode([data], **limits)
    assert (rest, done) == (b"", True)
    assert decode(byte_by_byte(data), **limits) == (body, b"", True, trailers)
    assert decode([data + BEHIND], **limits) == (body, BEHIND, True, trailers)
    assert decode(byte_by_byte(data + BEHIND), **limits) == (body, BEHIND, True, trailers)
    return body, trailers


def refuse_every_way(data: bytes, **limits: int) -> int:
    """Give the status that `data` is refused with, in all ways it may come."""
    statuses = set()
    for pieces in ([data], byte_by_byte(data), [data + BEHIND], byte_by_byte(data + BEHIND)):
        with pytest.raises(RefusedError) as caught:
            decode(pieces, **limits)
        statuses.add(caught.value.status)
    assert len(statuses) == 1, statuses
    return statuses.pop()


@pytest.mark.parametrize(
    ("data", "body"),
    [
        pytest.param(b"0\r\n\r\n", b"", id="empty"),
        pytest.param(b"3\r\nabc\r\n0\r\n\r\n", b"abc", id="one chunk"),
        pytest.param(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde", id="two chunks"),
        pytest.param(b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", b"01234567890123456789", id="both cases"),
        pytest.param(b"0003\r\nabc\r\n0000000000000000\r\n\r\n", b"abc", id="leading zeros, sixteen digits"),
        pytest.param(b'3;a=b;c="d\\" e"\r\nabc\r\n0;end\r\n\r\n', b"abc", id="extensions"),
        pytest.param(b"3;\r\nabc\r\n0;\r\n\r\n", b"abc", id="empty extensions"),
        pytest.param(b"3; a = b\t;\xff\r\nabc\r\n0\r\n\r\n", b"abc", id="blanks and obs-text in an extension"),
        pytest.param(b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n", id="line ends as data"),
        pytest.param(b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n", id="an end of body as data"),
    ],
)
def test_rfc9112_7_1_bodies(data: bytes, body: bytes) -> None:
    assert decode_every_way(data) == (body, [])


@pytest.mark.parametrize(
    "size",
    [
        b"0x5",
        b"+5",
        b"-5",
        b"5_0",
        b"",
        b" 5",
        b"5 ",
        b"5\t",
        b"\t5",
        b"5 ;a",
        b"5,5",
        b"5.0",
        b"g",
        b"\xd9\xa5",
        b"5\x00",
        b"5\x0b",
        b"5\x0c",
        b"\xa05",
        b"1" * 17,
        b"0" * 17,
        b"5;\x00",
        b"5;\x7f",
        b"5;a\x0bb",
        b"0x0",
        b"- 0",
        b"0 ",
    ],
)
def test_a9_chunk_size_is_hexadecimal_digits(size: bytes) -> None:
    assert refuse_every_way(size + b"\r\nabcde\r\n0\r\n\r\n") == 400


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"3\r\nabcXX5\r\n", id="two other bytes"),
        pytest.param(b"3\r\nabc\rX", id="a CR and another byte"),
        pytest.param(b"3\r\nabc\n0\r\n\r\n", id="LF alone"),
        pytest.param(b"3\r\nabc0\r\n\r\n", id="nothing"),
        pytest.param(b"3\r\nabcd\r\n", id="one byte more"),
        pytest.param(b"3\r\nabc\r\r\n", id="two CRs"),
    ],
)
def test_a10_chunk_data_is_followed_by_crlf(data: bytes) -> None:
    assert refuse_every_way(data) == 400


@pytest.mark.parametrize(
    "line",
    [
        b"5;a\nb\r\n",
        b"5;a\rb\r\n",
        b"5;\n",
        b"5\n",
        b"5\r5\r\n",
        b"5;a\r\rb\r\n",
        b"5\r\r\n",
        b"\n5\r\n",
        b"\r\n5\r\n",
        b'5;a="\r\n"\n\r\n',
    ],
)
def test_a11_no_line_end_inside_a_size_line(line: bytes) -> None:
    assert refuse_every_way(line + b"abcde\r\n0\r\n\r\n") == 400


def test_l8_chunk_line() -> None:
    assert decode_every_way(b"1;" + b"x" * 6 + b"\r\na\r\n0\r\n\r\n", chunk_line=8) == (b"a", [])
    assert refuse_every_way(b"1;" + b"x" * 7 + b"\r\na\r\n0\r\n\r\n", chunk_line=8) == 400
    assert refuse_every_way(b"1;" + b"x" * 2_000, chunk_line=1_024) == 400  # its end need not come
    assert decode_every_way(b"1;" + b"x" * 2_000 + b"\r\na\r\n0\r\n\r\n", chunk_line=0) == (b"a", [])


def test_l8_chunk_extensions() -> None:
    assert decode_every_way(b"1;xx\r\na\r\n1;xx\r\nb\r\n0;x\r\n\r\n", chunk_extensions=8) == (b"ab", [])
    assert refuse_every_way(b"1;xx\r\na\r\n1;xx\r\nb\r\n0;xx\r\n\r\n", chunk_extensions=8) == 400
    assert decode_every_way(b"1;xx\r\na\r\n0;xx\r\n\r\n", chunk_extensions=0) == (b"a", [])


@pytest.mark.parametrize(
    ("section", "trailers"),
    [
        pytest.param(b"X: y\r\n", [(b"x", b"y")], id="one"),
        pytest.param(b"X: y\r\nZ:\r\nX: w \t\r\n", [(b"x", b"y"), (b"z", b""), (b"x", b"w")], id="three"),
        pytest.param(b"X_Y: z\r\nProxy: p\r\nA: b\r\n", [(b"a", b"b")], id="dropped like header fields"),
    ],
)
def test_a12_trailers_are_fields(section: bytes, trailers: Fields) -> None:
    assert decode_every_way(b"1\r\na\r\n0\r\n" + section + b"\r\n") == (b"a", trailers)


@pytest.mark.parametrize(
    "section",
    [
        pytest.param(b"X: y\n\n", id="bare LF"),
        pytest.param(b"X: y\nZ: w\r\n\r\n", id="bare LF inside"),
        pytest.param(b"X: y\rZ: w\r\n\r\n", id="bare CR inside"),
        pytest.param(b"\n", id="LF for the blank line"),
        pytest.param(b"\rX\r\n\r\n", id="CR ahead"),
        pytest.param(b"Content-Length: 5\r\n\r\n", id="content-length"),
        pytest.param(b"Host: a\r\n\r\n", id="host"),
        pytest.param(b"TE: trailers\r\n\r\n", id="te"),
        pytest.param(b"transfer-encoding: chunked\r\n\r\n", id="transfer-encoding"),
        pytest.param(b"transfer-encoding: gzip\r\n\r\n", id="another coding"),
        pytest.param(b"Connection: close\r\n\r\n", id="connection"),
        pytest.param(b"Authorization: x\r\n\r\n", id="authorization"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", id="a smuggled request"),
        pytest.param(b"X : y\r\n\r\n", id="blank ahead of the colon"),
        pytest.param(b" X: y\r\n\r\n", id="blank ahead of the name"),
        pytest.param(b"X: y\r\n z\r\n\r\n", id="folding"),
        pytest.param(b"X: \x00\r\n\r\n", id="NUL"),
        pytest.param(b": y\r\n\r\n", id="no name"),
    ],
)
def test_a12_trailers_that_are_refused(section: bytes) -> None:
    assert refuse_every_way(b"1\r\na\r\n0\r\n" + section) == 400


@pytest.mark.parametrize(
    "data", [b"", b"3", b"3\r\nab", b"3\r\nabc", b"3\r\nabc\r", b"3\r\nabc\r\n", b"0", b"0\r\n", b"0\r\n\r", b"0\r\nX: y\r\n"]
)
def test_a12_a_body_that_is_cut_is_not_done(data: bytes) -> None:
    for pieces in ([data], byte_by_byte(data)):
        _, rest, done, _ = decode(pieces)
        assert (rest, done) == (b"", False)


def test_l6_trailer_bytes() -> None:
    assert decode_every_way(b"0\r\nX: yyyyy\r\n\r\n", trailer_bytes=8) == (b"", [(b"x", b"yyyyy")])
    assert refuse_every_way(b"0\r\nX: yyyyyy\r\n\r\n", trailer_bytes=8) == 431
    assert decode_every_way(b"0\r\nX: yyyyyy\r\n\r\n", trailer_bytes=0) == (b"", [(b"x", b"yyyyyy")])


def test_a13_endless_trailers() -> None:
    assert refuse_every_way(b"0\r\n" + b"X: y\r\n" * 3_000) == 431


def test_l6_trailer_count() -> None:
    fields = b"".join(b"X%d: y\r\n" % n for n in range(4))
    assert len(decode_every_way(b"0\r\n" + fields + b"\r\n", trailer_count=4)[1]) == 4
    assert refuse_every_way(b"0\r\n" + fields + b"Z_: dropped\r\n\r\n", trailer_count=4) == 431
    assert len(decode_every_way(b"0\r\n" + fields + b"\r\n", trailer_count=0)[1]) == 4


def encode(chunks: list[bytes], extension: bytes, trailers: list[int]) -> bytes:
    parts = [b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks if chunk]
    return b"".join([*parts, b"0\r\n", *(b"t%d: v\r\n" % n for n in trailers), b"\r\n"])


@given(st.lists(st.binary(max_size=40)), st.sampled_from([b"", b";a", b';a="b"']), st.lists(st.integers(0, 9), max_size=3), st.data())
def test_any_split_gives_the_same_body(chunks: list[bytes], extension: bytes, trailers: list[int], data: st.DataObject) -> None:
    coded = encode(chunks, extension, trailers) + BEHIND
    cuts = sorted(data.draw(st.lists(st.integers(0, len(coded)), max_size=8)))
    pieces = [coded[a:b] for a, b in zip([0, *cuts], [*cuts, len(coded)], strict=True)]
    body, rest, done, got = decode(pieces)
    assert (body, rest, done, got) == (b"".join(chunks), BEHIND, True, [(b"t%d" % n, b"v") for n in trailers])


@given(
    st.lists(st.one_of(st.binary(max_size=8), st.sampled_from([b"\r\n", b"0\r\n", b"3\r\nabc\r\n", b"X: y\r\n", b";", b"\r"])), max_size=12)
)
def test_arbitrary_bytes_decode_alike_or_are_refused_alike(pieces: list[bytes]) -> None:
    def outcome(pieces: list[bytes]) -> tuple[bytes, bytes, bool, Fields] | int:
        try:
            return decode(pieces)
        except RefusedError as refused:
            return refused.status

    data = b"".join(pieces)
    assert outcome([data]) == outcome(pieces) == outcome(byte_by_byte(data))


def test_a_decoder_holds_no_more_than_its_limits() -> None:
    made = decoder(chunk_line=16, trailer_bytes=32)
    for byte in byte_by_byte(b"1;" + b"x" * 14):
        made.decode(byte)
    assert len(made._held) == 16
    body, rest = decoder(chunk_line=16).decode(b"ffffffff\r\n" + b"x" * 100_000)
    assert (len(body), rest) == (100_000, b"")  # data is passed on, never kept


@pytest.mark.parametrize(
    ("data", "bare"),
    [
        (b"", False),
        (b"a", False),
        (b"\r\n", False),
        (b"a\r\nb\r\n", False),
        (b"a\r", False),
        (b"\r\n\r", False),
        (b"\n", True),
        (b"a\nb", True),
        (b"\ra", True),
        (b"\r\r", True),
        (b"\r\r\n", True),
        (b"\n\r", True),
        (b"\r\n\n", True),
        (bytearray(b"\n"), True),
    ],
)
def test_a14_bare_line_ends(data: bytes, bare: bool) -> None:
    assert has_bare_line_end(data) is bare
