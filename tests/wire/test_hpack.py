"""Header compression (RFC 7541; RFC 9113 §4.3; spec attacks C4 to C6; spec limits L4). The hpack package is the second opinion."""

import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hpack import Decoder, Encoder, HPACKError
from hpack.hpack import encode_integer
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.table import HeaderTable
from hypothesis import example, given
from hypothesis import strategies as st

from termserver.wire import hpack
from termserver.wire.events import Fields
from termserver.wire.hpack import EMPTY_TABLE, TABLE_SIZE, CompressionError, HeaderDecoder, ListTooLargeError, encode_fields, encode_status

ENDLESS = 1 << 62  # of hpack's limit: it has no 0 for none
GET = b"\x82"  # `:method: GET`, entry 2 of the static table
NEWEST = b"\xbe"  # entry 62, the first of the dynamic table
FIRST_DYNAMIC = 62
LITERALS = {"incremental indexing": 0x40, "without indexing": 0x00, "never indexed": 0x10}

huffman = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode


def integer(value: int, bits: int, flags: int) -> bytes:
    """Write an integer behind its prefix (RFC 7541 §5.1)."""
    out = encode_integer(value, bits)
    out[0] |= flags
    return bytes(out)


def string(text: bytes, *, flag: int = 0) -> bytes:
    return integer(len(text), 7, flag) + text


def coded(text: bytes) -> bytes:
    return string(huffman(text), flag=0x80)


def indexed(index: int) -> bytes:
    return integer(index, 7, 0x80)


def literal(name: bytes, value: bytes, flags: int = 0x40) -> bytes:
    return bytes((flags,)) + string(name) + string(value)


def resize(size: int) -> bytes:
    return integer(size, 5, 0x20)


def entry(size: int, name: bytes = b"n") -> bytes:
    """Give the literal that puts an entry of `size` bytes into the table (RFC 7541 §4.1)."""
    return literal(name, b"v" * (size - 32 - len(name)))


def decoder() -> HeaderDecoder:
    return HeaderDecoder(0, 0)


def decode(*blocks: bytes) -> Fields | None:
    """Decode the blocks of a connection; give the fields of the last one."""
    made = decoder()
    for block in blocks:
        fields = made.decode(block)
    return fields


def heard(other: Decoder, block: bytes) -> Fields:
    """Give the fields as hpack understands them."""
    return [(name, value) for name, value in other.decode(block, raw=True)]


def table(made: HeaderDecoder) -> Fields:
    """Give the dynamic table, newest entry first, as a client could find it out."""
    entries: Fields = []
    while True:
        try:
            entries += made.decode(indexed(FIRST_DYNAMIC + len(entries))) or []
        except CompressionError:
            return entries


def refused(*blocks: bytes) -> None:
    """See the last block refused, however often it comes."""
    made = decoder()
    for block in blocks[:-1]:
        made.decode(block)
    for _ in range(2):
        with pytest.raises(CompressionError):
            made.decode(blocks[-1])
        assert made.changed


class Watched(bytes):
    """A block that counts how often somebody looks into it."""

    looks = 0

    def __getitem__(self, key: Any) -> Any:
        self.looks += 1
        return super().__getitem__(key)


# ---------------------------------------------------------------------- RFC 7541 appendix C


@pytest.mark.parametrize(
    ("update", "size"),
    [
        pytest.param("2a", 10, id="C.1.1 in a prefix of five bits"),
        pytest.param("3f9a0a", 1_337, id="C.1.2 in two bytes more"),
        pytest.param("3f0b", 42, id="in one byte more"),
    ],
)
def test_rfc7541_c_1_integers_as_sizes_of_the_table(update: str, size: int) -> None:
    made = decoder()
    assert made.decode(bytes.fromhex(update)) == []
    assert made._table.maxsize == size


@pytest.mark.parametrize(
    ("length", "size"),
    [
        pytest.param("0a", 10, id="C.1.1"),
        pytest.param("7fba09", 1_337, id="C.1.2 in a prefix of seven bits"),
        pytest.param("2a", 42, id="C.1.3"),
        pytest.param("7e", 126, id="the largest that fits into the prefix"),
        pytest.param("7f00", 127, id="the smallest that does not"),
        pytest.param("7f8000", 127, id="a zero that nobody needs"),
        pytest.param("7f8080808000", 127, id="five bytes, the last of them empty"),
    ],
)
def test_rfc7541_c_1_integers_as_lengths_of_strings(length: str, size: int) -> None:
    text = b"v" * size
    assert decode(b"\x00\x01n" + bytes.fromhex(length) + text) == [(b"n", text)]


CUSTOM = (b"custom-key", b"custom-header")


@pytest.mark.parametrize(
    ("block", "field", "kept"),
    [
        pytest.param("400a637573746f6d2d6b65790d637573746f6d2d686561646572", CUSTOM, True, id="C.2.1 with indexing"),
        pytest.param("040c2f73616d706c652f70617468", (b":path", b"/sample/path"), False, id="C.2.2 without indexing"),
        pytest.param("100870617373776f726406736563726574", (b"password", b"secret"), False, id="C.2.3 never indexed"),
        pytest.param("82", (b":method", b"GET"), False, id="C.2.4 indexed"),
    ],
)
def test_rfc7541_c_2_representations(block: str, field: tuple[bytes, bytes], kept: bool) -> None:
    made = decoder()
    assert made.decode(bytes.fromhex(block)) == [field]
    assert made.changed is kept
    assert table(made) == [field] * kept


HOST = (b":authority", b"www.example.com")
UNCACHED = (b"cache-control", b"no-cache")
VALUE = (b"custom-key", b"custom-value")
REQUESTS: list[tuple[Fields, Fields]] = [  # what is said, and the table behind it
    ([(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), HOST], [HOST]),
    ([(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), HOST, UNCACHED], [UNCACHED, HOST]),
    ([(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/index.html"), HOST, VALUE], [VALUE, UNCACHED, HOST]),
]
FOUND = (b":status", b"302")
MOVED = (b":status", b"307")
PRIVATE = (b"cache-control", b"private")
THEN = (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT")
LATER = (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT")
PLACE = (b"location", b"https://www.example.com")
GZIP = (b"content-encoding", b"gzip")
COOKIE = (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1")
RESPONSES: list[tuple[Fields, Fields]] = [
    ([FOUND, PRIVATE, THEN, PLACE], [PLACE, THEN, PRIVATE, FOUND]),
    ([MOVED, PRIVATE, THEN, PLACE], [MOVED, PLACE, THEN, PRIVATE]),
    ([(b":status", b"200"), PRIVATE, LATER, PLACE, GZIP, COOKIE], [COOKIE, GZIP, LATER]),
]
SMALL_TABLE = bytes.fromhex("3fe101")  # 256 bytes, as in C.5 and C.6

C_3 = [
    "828684410f7777772e6578616d706c652e636f6d",
    "828684be58086e6f2d6361636865",
    "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
]
C_4 = [
    "828684418cf1e3c2e5f23a6ba0ab90f4ff",
    "828684be5886a8eb10649cbf",
    "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
]
C_5 = [
    (
        "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e"
        "1768747470733a2f2f7777772e6578616d706c652e636f6d"
    ),
    "4803333037c1c0bf",
    (
        "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d"
        "4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b20766572"
        "73696f6e3d31"
    ),
]
C_6 = [
    "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
    "4883640effc1c0bf",
    (
        "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960"
        "d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007"
    ),
]
CONNECTIONS = [
    pytest.param([bytes.fromhex(block) for block in C_3], b"", REQUESTS, id="C.3 requests"),
    pytest.param([bytes.fromhex(block) for block in C_4], b"", REQUESTS, id="C.4 requests, Huffman"),
    pytest.param([bytes.fromhex(block) for block in C_5], SMALL_TABLE, RESPONSES, id="C.5 responses"),
    pytest.param([bytes.fromhex(block) for block in C_6], SMALL_TABLE, RESPONSES, id="C.6 responses, Huffman"),
]


@pytest.mark.parametrize(("blocks", "ahead", "told"), CONNECTIONS)
def test_rfc7541_c_3_to_c_6_connections(blocks: list[bytes], ahead: bytes, told: list[tuple[Fields, Fields]]) -> None:
    made = decoder()
    for number, (block, (fields, entries)) in enumerate(zip(blocks, told, strict=True)):
        assert made.decode(block if number else ahead + block) == fields
        assert made.changed
        assert table(made) == entries


@pytest.mark.parametrize(("blocks", "ahead", "told"), CONNECTIONS)
def test_a_block_that_is_cut_is_refused_or_says_less(blocks: list[bytes], ahead: bytes, told: list[tuple[Fields, Fields]]) -> None:
    blocks = [ahead + blocks[0], *blocks[1:]]
    for number, (block, (fields, _)) in enumerate(zip(blocks, told, strict=True)):
        whole = 0
        for end in range(len(block)):
            made = decoder()
            for earlier in blocks[:number]:
                made.decode(earlier)
            try:
                got = made.decode(block[:end])
            except CompressionError:
                continue
            assert got is not None
            assert got == fields[: len(got)]
            whole += 1
        assert whole == len(fields) + bool(ahead and not number)  # between fields and nowhere else


# ---------------------------------------------------------------------- inwards


@pytest.mark.parametrize("flags", LITERALS.values(), ids=LITERALS)
def test_rfc7541_6_2_literals_with_names_from_both_tables_and_none(flags: int) -> None:
    bits = 6 if flags == 0x40 else 4
    made = decoder()
    made.decode(literal(b"own", b"1") + literal(b"other", b"2"))
    for index, name in ((1, b":authority"), (15, b"accept-charset"), (61, b"www-authenticate"), (62, b"other"), (63, b"own")):
        probe = decoder()
        probe.decode(literal(b"own", b"1") + literal(b"other", b"2"))
        before = table(probe)
        assert probe.decode(integer(index, bits, flags) + string(b"new")) == [(name, b"new")]
        assert probe.changed is (flags == 0x40)
        assert table(probe) == ([(name, b"new"), *before] if flags == 0x40 else before)
    for value in (b"", b"plain", bytes(range(256)), b"v" * 1_000):
        for text in (string(value), coded(value)):
            assert made.decode(bytes((flags,)) + text + text) == [(value, value)]


@pytest.mark.parametrize("index", range(1, 62))
def test_rfc7541_a_static_table(index: int) -> None:
    assert decode(indexed(index)) == [HeaderTable.STATIC_TABLE[index - 1]]


def test_rfc7541_2_3_2_the_dynamic_table_is_full_at_4096_bytes() -> None:
    made = decoder()
    for number in range(129):  # 32 bytes are the least that an entry counts
        assert made.decode(b"\x40\x00\x00") == [(b"", b"")]
        assert len(table(made)) == min(number + 1, 128)


def test_rfc7541_4_4_an_entry_larger_than_the_table_empties_it() -> None:
    made = decoder()
    made.decode(entry(TABLE_SIZE))
    assert len(table(made)) == 1
    large = entry(TABLE_SIZE + 1, b"l")
    fields = made.decode(large)
    assert fields is not None
    assert fields[0][0] == b"l"
    assert made.changed
    assert table(made) == []


def test_rfc7541_4_4_a_name_may_come_from_the_entry_that_it_evicts() -> None:
    made = decoder()
    made.decode(entry(TABLE_SIZE, b"name"))
    assert made.decode(integer(FIRST_DYNAMIC, 6, 0x40) + string(b"v")) == [(b"name", b"v")]
    assert table(made) == [(b"name", b"v")]


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(b"\x80", id="index 0"),
        pytest.param(indexed(FIRST_DYNAMIC), id="index beyond the table"),
        pytest.param(indexed(1_000), id="index far beyond"),
        pytest.param(indexed((1 << 32) - 1), id="index of 32 bits"),
        pytest.param(integer(FIRST_DYNAMIC, 6, 0x40) + string(b"v"), id="name beyond the table"),
        pytest.param(integer(FIRST_DYNAMIC, 4, 0x00) + string(b"v"), id="name beyond the table, not indexed"),
        pytest.param(integer(FIRST_DYNAMIC, 4, 0x10) + string(b"v"), id="name beyond the table, never indexed"),
        pytest.param(b"\x00\x01n\x02v", id="value longer than its block"),
        pytest.param(b"\x00\x05n", id="name longer than its block"),
        pytest.param(b"\x00\x01n" + integer((1 << 34), 7, 0) + b"v", id="value of 16 GiB"),
        pytest.param(b"\x00\x01n" + integer((1 << 34), 7, 0x80) + b"v", id="value of 16 GiB, Huffman"),
        pytest.param(b"\x00\x01n", id="no value"),
        pytest.param(b"\x40", id="no name"),
        pytest.param(b"\xff", id="no rest of an index"),
        pytest.param(b"\x3f\x80", id="no rest of a size"),
        pytest.param(b"\x00\x7f\xff", id="no rest of a length"),
    ],
)
def test_rfc7541_3_3_and_5_what_cannot_be_decoded(block: bytes) -> None:
    refused(block)
    refused(GET + block)


@pytest.mark.parametrize("index", [FIRST_DYNAMIC + 2, FIRST_DYNAMIC + 3])
def test_rfc7541_2_3_3_an_index_one_beyond_the_table(index: int) -> None:
    made = decoder()
    made.decode(literal(b"a", b"1") + literal(b"b", b"2"))
    assert made.decode(indexed(FIRST_DYNAMIC + 1)) == [(b"a", b"1")]
    with pytest.raises(CompressionError, match="Invalid table index"):
        made.decode(indexed(index))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"\x1e", id="padding that is not ones"),
        pytest.param(b"\x18", id="padding of zeros"),
        pytest.param(b"\x1f\xff", id="padding of eleven bits"),
        pytest.param(b"\xff", id="padding of eight bits, and nothing else"),
        pytest.param(b"\xff\xff\xff\xff", id="EOS"),
        pytest.param(b"\xff\xff\xff\xfc\x1f", id="EOS, and a letter"),
        pytest.param(b"\x1f\xff\xff\xff\xff", id="a letter, and EOS"),
        pytest.param(huffman(b"\x01" * 3)[:-1], id="a code that is cut"),
    ],
)
def test_rfc7541_5_2_huffman_strings_that_are_none(text: bytes) -> None:
    for block in (b"\x00\x01n" + string(text, flag=0x80), b"\x40" + string(text, flag=0x80) + b"\x01v"):
        refused(block)
        refused(literal(b"a", b"1"), block)
    assert decode(b"\x00\x01n" + string(text)) == [(b"n", text)]  # plain it is a string like others


@pytest.mark.parametrize("text", [b"", b"a", b"aaaaaaaa", bytes(range(256)), b"\xff" * 100])
def test_rfc7541_5_2_huffman_strings(text: bytes) -> None:
    for _ in range(2):
        assert decode(b"\x00" + coded(text) + coded(text)) == [(text, text)]


def test_rfc7541_5_2_the_same_bytes_coded_and_plain_are_two_strings() -> None:
    made = decoder()
    text = huffman(b"value")
    for _ in range(2):
        assert made.decode(b"\x00\x01n" + string(text, flag=0x80)) == [(b"n", b"value")]
        assert made.decode(b"\x00\x01n" + string(text)) == [(b"n", text)]


# ---------------------------------------------------------------------- sizes of the table


@pytest.mark.parametrize("size", [0, 30, 31, 32, 100, 4_095, 4_096])
def test_rfc7541_6_3_a_size_update(size: int) -> None:
    made = decoder()
    assert made.decode(resize(size)) == []
    assert made.changed
    assert made.decode(resize(size) + GET) == [(b":method", b"GET")]
    for number in range(3):
        made.decode(literal(b"n", b"%d" % number))
    assert len(table(made)) == min(3, size // 34)


@pytest.mark.parametrize("size", [4_097, 65_536, (1 << 32) - 1])
def test_rfc7541_6_3_a_size_above_the_limit(size: int) -> None:
    refused(resize(size))
    refused(resize(0) + resize(size) + GET)


def test_rfc7541_4_2_two_size_updates_come_ahead_of_the_fields() -> None:
    made = decoder()
    made.decode(literal(b"a", b"1"))
    assert made.decode(resize(0) + resize(TABLE_SIZE) + GET + literal(b"b", b"2")) == [(b":method", b"GET"), (b"b", b"2")]
    assert table(made) == [(b"b", b"2")]


@pytest.mark.parametrize("field", [GET, literal(b"a", b"1"), literal(b"a", b"1", 0), literal(b"a", b"1", 0x10)])
@pytest.mark.parametrize("size", [0, 100, TABLE_SIZE])
def test_rfc7541_4_2_no_size_update_behind_a_field(field: bytes, size: int) -> None:
    refused(field + resize(size))
    refused(resize(size) + field + resize(size) + field)


def test_rfc7541_4_3_a_smaller_table_evicts_the_oldest() -> None:
    made = decoder()
    made.decode(literal(b"a", b"1") + literal(b"b", b"2") + literal(b"c", b"3"))
    made.decode(resize(3 * 34))
    assert table(made) == [(b"c", b"3"), (b"b", b"2"), (b"a", b"1")]
    made.decode(resize(3 * 34 - 1))
    assert table(made) == [(b"c", b"3"), (b"b", b"2")]
    made.decode(EMPTY_TABLE)
    assert table(made) == []
    made.decode(literal(b"", b""))
    assert table(made) == []
    made.decode(resize(TABLE_SIZE))
    assert table(made) == []
    made.decode(literal(b"a", b"1"))
    assert table(made) == [(b"a", b"1")]


# ---------------------------------------------------------------------- limits

FIELD = 42  # bytes that `:method: GET` counts
REPRESENTATIONS = {
    "indexed": GET,
    "indexed, of the dynamic table": NEWEST,
    **{name: literal(b":method", b"GET", flags) for name, flags in LITERALS.items()},
    "name indexed": integer(2, 4, 0) + string(b"GET"),
    "Huffman": b"\x00" + coded(b":method") + coded(b"GET"),
}


@pytest.mark.parametrize("field", REPRESENTATIONS.values(), ids=REPRESENTATIONS)
@pytest.mark.parametrize(
    ("size", "count", "most"),
    [
        pytest.param(5 * FIELD, 0, 5, id="size"),
        pytest.param(5 * FIELD + FIELD - 1, 0, 5, id="size, nearly one more"),
        pytest.param(5 * FIELD - 1, 0, 4, id="size, one byte less"),
        pytest.param(0, 5, 5, id="count"),
        pytest.param(5 * FIELD, 5, 5, id="both"),
        pytest.param(5 * FIELD, 100, 5, id="size ahead of count"),
        pytest.param(100_000, 5, 5, id="count ahead of size"),
    ],
)
def test_l4_limits_of_the_list_are_exact(size: int, count: int, most: int, field: bytes) -> None:
    patience = min(4 * size // FIELD if size else 1_000, 4 * count or 1_000)
    for number in (0, 1, most, most + 1, patience, patience + 1, 1_000):
        made = HeaderDecoder(size, count)
        made.decode(resize(0) + resize(TABLE_SIZE) + literal(b":method", b"GET"))
        if number > patience:
            with pytest.raises(ListTooLargeError):
                made.decode(field * number)
            assert made.changed
        else:
            fields = made.decode(field * number)
            assert fields == ([(b":method", b"GET")] * number if number <= most else None)
            assert made.changed is (field[0] == 0x40 and number > 0)


def test_l4_no_limits() -> None:
    made = HeaderDecoder(0, 0)
    large = b"v" * 1_000_000
    assert made.decode(literal(b"n", large, 0)) == [(b"n", large)]
    assert made.decode(GET * 30_000) == [(b":method", b"GET")] * 30_000


def test_l4_size_updates_are_no_fields() -> None:
    assert HeaderDecoder(FIELD, 1).decode(resize(0) * 2 + GET) == [(b":method", b"GET")]


@pytest.mark.parametrize("limits", [(2 * 35, 0), (0, 2)])
def test_rfc9113_4_3_a_block_over_a_limit_keeps_the_table_in_step(limits: tuple[int, int]) -> None:
    made, other = HeaderDecoder(*limits), Decoder(ENDLESS)
    for blocks in range(3):
        block = b"".join(literal(b"n", b"%02d" % (5 * blocks + number)) for number in range(5))
        assert made.decode(block) is None
        assert made.changed
        assert len(heard(other, block)) == 5
        for index in range(FIRST_DYNAMIC, FIRST_DYNAMIC + 5 * (blocks + 1)):
            assert made.decode(indexed(index)) == heard(other, indexed(index))
            assert not made.changed
    assert made.decode(NEWEST * 3) is None
    assert not made.changed
    assert made.decode(NEWEST * 2) == [(b"n", b"14")] * 2


# ---------------------------------------------------------------------- attacks

USUAL = (32_768, 100)  # limits.header_bytes, limits.header_count


def test_c4_hpack_bomb() -> None:
    """The oldest one: an entry as large as the table, and a byte for each time that it is wanted."""
    made = HeaderDecoder(*USUAL)
    fields = made.decode(entry(TABLE_SIZE))
    assert fields is not None
    assert len(fields[0][1]) == TABLE_SIZE - 33
    for times in (8, 9, 32):
        fields = made.decode(NEWEST * times)
        assert (fields is None) is (times > 8)
    block = Watched(NEWEST * 16_384)
    tracemalloc.start()
    try:
        with pytest.raises(ListTooLargeError):
            made.decode(block)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert block.looks == 33
    assert peak < 16_384


@pytest.mark.parametrize(
    ("field", "size"),
    [
        pytest.param(literal(b"cookie", b"x"), 39, id="crumbs"),
        pytest.param(b"\x60\x01x", 39, id="crumbs, name from the static table"),
        pytest.param(literal(b"a", b""), 33, id="empty value"),
        pytest.param(literal(b"", b""), 32, id="nothing at all"),
        pytest.param(literal(b"host", b"a"), 37, id="host"),
    ],
)
@pytest.mark.parametrize("count", [100, 0])
def test_c5_http2_bomb(field: bytes, size: int, count: int) -> None:
    most = min(4 * USUAL[0] // size, 4 * count or 1 << 62)
    for repeated in (NEWEST, indexed(35)):  # a field of the static table costs the client as little
        made = HeaderDecoder(USUAL[0], count)
        made.decode(field)
        block = Watched(repeated * 30_000)
        with pytest.raises(ListTooLargeError):
            made.decode(block)
        if repeated is NEWEST:
            assert block.looks == most + 1
    made = HeaderDecoder(USUAL[0], count)
    block = Watched(field * 30_000)
    with pytest.raises(ListTooLargeError):
        made.decode(block)
    assert block.looks <= 6 * (most + 1)


ENDLESS_INTEGERS = {
    "index": b"\xff",
    "name, indexed": b"\x7f",
    "name, not indexed": b"\x0f",
    "name, never indexed": b"\x1f",
    "size of the table": b"\x3f",
    "length of a name": b"\x00\x7f",
    "length of a name, Huffman": b"\x40\xff",
    "length of a value": b"\x00\x01n\x7f",
    "length of a value, Huffman": b"\x04\xff",
}


@pytest.mark.parametrize("start", ENDLESS_INTEGERS.values(), ids=ENDLESS_INTEGERS)
@pytest.mark.parametrize("byte", [b"\xff", b"\x80"])
def test_c6_an_integer_without_an_end(start: bytes, byte: bytes) -> None:
    for times in (5, 6, 16_384):
        block = Watched(start + byte * times)
        with pytest.raises(CompressionError, match="an integer of more than five bytes"):
            decoder().decode(block)
        assert block.looks <= 2 * len(start) + 5


@pytest.mark.parametrize("start", ENDLESS_INTEGERS.values(), ids=ENDLESS_INTEGERS)
def test_c6_the_largest_integer_is_read_and_refused_for_what_it_says(start: bytes) -> None:
    with pytest.raises(CompressionError, match=r"Invalid table index|longer than its header block|too large"):
        decode(start + b"\xff" * 4 + b"\x7f")


# ---------------------------------------------------------------------- what is remembered


def test_the_strings_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hpack, "_KEPT_STRINGS", 8)
    made = decoder()
    for number in range(40):
        for _ in range(2):
            name, value = b"name-%d" % number, b"l" * 300
            assert made.decode(b"\x00" + coded(name) + coded(value) + b"\x00" + string(value) + coded(b"v")) == [
                (name, value),
                (value, b"v"),
            ]
        assert 0 < len(made._strings) <= 8
        assert all(len(text) <= 128 for text in made._strings)
        assert huffman(name) in made._strings


def test_a_string_is_kept_up_to_128_bytes() -> None:
    made = decoder()
    for size in (127, 128, 129):
        text = b"&" * size  # eight bits each
        assert len(huffman(text)) == size
        made.decode(b"\x00\x06origin" + coded(text))
        assert (huffman(text) in made._strings) is (size <= 128)


def test_a_string_that_is_refused_or_plain_is_not_kept() -> None:
    made = decoder()
    made.decode(literal(b"name", b"value"))
    with pytest.raises(CompressionError):
        made.decode(b"\x00\x01n\x81\x1e")
    assert not made._strings


@pytest.mark.parametrize("form", [0x40, 0x00, 0x10], ids=hex)
@pytest.mark.parametrize("name", [b"cookie", b"authorization", b"x-token", b"accept", b":path"])
def test_what_may_be_a_secret_is_not_kept(name: bytes, form: int) -> None:
    """Else the time that another client's guess takes would tell it."""
    made = decoder()
    made.decode(bytes((form,)) + string(name) + coded(b"secret"))
    assert (huffman(b"secret") in made._strings) is (name in {b"accept", b":path"} and form != 0x10)


def test_the_usual_bound_is_4096_strings() -> None:
    made = decoder()
    sizes = []
    for number in range(5_000):
        made.decode(b"\x00\x06origin" + coded(b"%d" % number))
        sizes.append(len(made._strings))
    assert max(sizes) == 4_096
    assert sizes[4_096] == 1  # all or nothing: no order has to be kept


# ---------------------------------------------------------------------- outwards

TOKEN = st.text("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=40).map(str.encode)
NAME = st.one_of(TOKEN, st.sampled_from(sorted({name for name, _ in HeaderTable.STATIC_TABLE})))
FIELDS = st.lists(st.tuples(NAME, st.binary(max_size=200)), max_size=12)


def status_field(status: int) -> tuple[bytes, bytes]:
    return b":status", b"%d" % status


@given(st.integers(100, 999), FIELDS)
@example(200, [(b"n" * 126, b"v" * 126), (b"n" * 127, b"v" * 127), (b"n" * 128, b"v" * 254), (b"n" * 255, b"v" * 255)])
@example(999, [(b"n" * 16_383, b"v" * (127 + 16_383)), (b"x", b"v" * (127 + 16_384)), (b"date", b"v" * 100_000)])
def test_what_is_encoded_is_decoded_by_anybody_and_enters_no_table(status: int, fields: Fields) -> None:
    other, own = Decoder(ENDLESS), decoder()
    for _ in range(2):
        block = encode_status(status) + encode_fields(fields)
        assert heard(other, block) == own.decode(block) == [status_field(status), *fields]
        assert not other.header_table.dynamic_entries
        assert not own.changed


def test_a_status() -> None:
    for status in range(100, 1_000):
        block = encode_status(status)
        assert heard(Decoder(), block) == [status_field(status)]
        assert len(block) == (1 if status in {200, 204, 206, 304, 400, 404, 500} else 5)


@pytest.mark.parametrize("name", sorted({name for name, _ in HeaderTable.STATIC_TABLE}))
def test_a_name_of_the_static_table_takes_one_or_two_bytes(name: bytes) -> None:
    block = encode_fields([(name, b"value")])
    assert len(block) <= 2 + 1 + len(b"value")
    assert heard(Decoder(), block) == [(name, b"value")]


@pytest.mark.parametrize("size", [0, 1, 100, 4_095, 4_096, 65_536])
def test_rfc7541_4_2_an_empty_table_contradicts_no_setting(size: int) -> None:
    block = encode_status(200) + encode_fields([(b"server", b"termserver"), (b"x-own", b"1")])
    fields = [status_field(200), (b"server", b"termserver"), (b"x-own", b"1")]
    other = Decoder()
    other.max_allowed_table_size = size
    assert heard(other, EMPTY_TABLE + block) == fields
    assert other.header_table_size == 0
    for later in (size, 0, 65_536, 1, 4_096):  # the table said to be empty fits any that is allowed later
        other.max_allowed_table_size = later
        assert heard(other, block) == fields
    if size < TABLE_SIZE:
        other = Decoder()
        other.max_allowed_table_size = size
        with pytest.raises(HPACKError):
            other.decode(block, raw=True)  # without it, it would be as bad as this


# ---------------------------------------------------------------------- laws: hpack's encoder and decoder, and any bytes

VALUE_OF_ANY_KIND = st.one_of(
    st.sampled_from([b"", b"1", b"GET", b"gzip, deflate", b"a=1", b"v" * 300, b"w" * 1_300]), st.binary(max_size=60)
)
SENT = st.tuples(
    st.one_of(st.sampled_from([b":path", b":method", b"cookie", b"x-a", b"x-b", b"accept"]), TOKEN), VALUE_OF_ANY_KIND, st.booleans()
)
BLOCKS = st.lists(st.tuples(st.lists(SENT, max_size=6), st.booleans(), st.sampled_from([None, None, None, 0, 60, 200, 4_096])), max_size=6)


@given(BLOCKS)
def test_what_hpack_encodes_is_decoded_as_hpack_does(blocks: list[tuple[list[tuple[bytes, bytes, bool]], bool, int | None]]) -> None:
    encoder, other, made = Encoder(), Decoder(ENDLESS), decoder()
    for sent, huffman_coded, size in blocks:
        if size is not None:
            encoder.header_table_size = size
        block = encoder.encode(sent, huffman=huffman_coded)
        before = table(made)
        assert made.decode(block) == heard(other, block) == [field[:2] for field in sent]
        changed = made.changed
        assert table(made) == list(other.header_table.dynamic_entries)
        if not changed:
            assert table(made) == before


PIECES = st.one_of(
    st.sampled_from(
        [
            GET,
            NEWEST,
            b"\x80",
            b"\xbf",
            b"\xff\x00",
            b"\xff\x80\x80\x80\x80\x00",
            b"\xff\x80\x80\x80\x80\x80\x00",
            EMPTY_TABLE,
            resize(100),
            resize(4_096),
            resize(4_097),
            literal(b"a", b"1"),
            literal(b"b", b"v" * 300),
            literal(b"c", b"3", 0x10),
            entry(4_096),
            entry(4_097),
            b"\x40" + coded(b"name") + coded(b"value"),
            b"\x00\x01n\x81\x1e",
            b"\x00\x01n\x82\x1f\xff",
            b"\x00\x01n\x80",
            b"\x7f\x00",
            b"\x0f\x2f",
            b"\x04\x7f\x01",
            b"\x00\x01n\x05",
            b"\x00\x01n\xff\xff\xff\xff\xff\x0f",
            integer(FIRST_DYNAMIC, 6, 0x40) + string(b"v"),
            integer(FIRST_DYNAMIC, 4, 0x00) + coded(b"w"),
        ]
    ),
    st.binary(max_size=6),
    st.builds(literal, st.binary(max_size=3), st.binary(max_size=3), st.sampled_from([0x00, 0x10, 0x40])),
)


def verdict(decoding: Callable[[bytes], Fields | None], block: bytes) -> Fields | None:
    """Give the fields, or None where there are none to be had; any other error is the finding."""
    try:
        return decoding(block)
    except (CompressionError, HPACKError):
        return None


@given(st.lists(st.lists(PIECES, max_size=6).map(b"".join), max_size=6))
@example([b"\xff\x80\x80\x80\x80\x00"])
@example([GET + EMPTY_TABLE])
def test_any_bytes_are_decoded_or_refused_as_hpack_does(blocks: list[bytes]) -> None:
    """There is no deliberate difference from hpack 4.2: late size updates and integers of more than five bytes it refuses as well."""
    made, other = decoder(), Decoder(ENDLESS)
    for block in blocks:
        before = table(made)
        fields = verdict(made.decode, block)
        changed = made.changed
        assert fields == verdict(partial(heard, other), block)
        if fields is None:
            assert changed
            return
        assert table(made) == list(other.header_table.dynamic_entries)
        if not changed:
            assert table(made) == before
            assert made.decode(block) == fields


@given(BLOCKS, st.data())
def test_a_block_with_a_changed_byte_is_decoded_or_refused_as_hpack_does(
    blocks: list[tuple[list[tuple[bytes, bytes, bool]], bool, int | None]], data: st.DataObject
) -> None:
    encoder, other, made = Encoder(), Decoder(ENDLESS), decoder()
    for sent, huffman_coded, _ in blocks:
        block = encoder.encode(sent, huffman=huffman_coded)
        if block:
            place = data.draw(st.integers(0, min(30, len(block) - 1)))
            block = block[:place] + bytes((block[place] ^ data.draw(st.integers(1, 255)),)) + block[place + 1 :]
        fields = verdict(made.decode, block)
        assert fields == verdict(partial(heard, other), block)
        if fields is None:
            return
        assert table(made) == list(other.header_table.dynamic_entries)


@given(st.lists(st.lists(PIECES, max_size=6).map(b"".join), max_size=6), st.integers(0, 200), st.integers(0, 4))
def test_limits_change_what_is_given_and_not_what_is_understood(blocks: list[bytes], size: int, count: int) -> None:
    made, free = HeaderDecoder(size, count), decoder()
    for block in blocks:
        fields = verdict(free.decode, block)
        try:
            got = verdict(made.decode, block)
        except ListTooLargeError:
            return  # ahead of whatever else is wrong with it
        assert made.changed is free.changed
        if fields is None:
            assert got is None
            return
        needed = sum(len(name) + len(value) + 32 for name, value in fields)
        fits = needed <= (size or ENDLESS) and len(fields) <= (count or ENDLESS)
        assert fits or (needed <= 4 * (size or ENDLESS) and len(fields) <= 4 * (count or ENDLESS))
        assert got == (fields if fits else None)


# ---------------------------------------------------------------------- what `changed` promises


@pytest.mark.parametrize(
    ("block", "changed"),
    [
        pytest.param(b"", False, id="nothing"),
        pytest.param(GET, False, id="indexed"),
        pytest.param(NEWEST, False, id="indexed, of the dynamic table"),
        pytest.param(literal(b"a", b"1", 0x00), False, id="without indexing"),
        pytest.param(literal(b"a", b"1", 0x10), False, id="never indexed"),
        pytest.param(b"\x00" + coded(b"name") + coded(b"value"), False, id="Huffman"),
        pytest.param(literal(b"a", b"1"), True, id="incremental indexing"),
        pytest.param(GET + literal(b"a", b"1") + GET, True, id="incremental indexing in the middle"),
        pytest.param(entry(101), True, id="too large to be indexed"),
        pytest.param(resize(99) + GET, True, id="size of the table"),
        pytest.param(EMPTY_TABLE + resize(4_096), True, id="emptied"),
    ],
)
def test_a_block_that_left_the_table_alone_means_the_same_again(block: bytes, changed: bool) -> None:
    for limits in ((0, 0), (34, 1)):  # a block over a limit is no other
        made = HeaderDecoder(*limits)
        assert not made.changed
        made.decode(resize(100) + literal(b"n", b"v"))
        assert made.changed
        fields = made.decode(block)
        assert made.changed is changed
        if not changed:
            assert made.decode(block) == fields
            assert table(made) == [(b"n", b"v")]


def test_connections_may_share_what_strings_mean() -> None:
    strings: dict[bytes, bytes] = {}
    first, second = HeaderDecoder(0, 0, strings), HeaderDecoder(0, 0, strings)
    block = b"\x00" + coded(b"accept") + coded(b"value")
    assert first.decode(block) == second.decode(block) == [(b"accept", b"value")]
    assert strings[huffman(b"value")] == b"value"


@pytest.mark.parametrize("text", [b"", b"/", b"/articles?page=7"])
def test_a_path_can_be_read_by_itself(text: bytes) -> None:
    made = decoder()
    block = b"\x82\x04" + coded(text) + b"\x86"
    assert made.read_path(block, 2) == (text, len(block) - 1)


@pytest.mark.parametrize("block", [b"\x04", b"\x04\x05abc", b"\x04\x81\x1e", b"\x04\xff"])
def test_a_path_that_is_none_breaks_the_connection(block: bytes) -> None:
    with pytest.raises(CompressionError):
        decoder().read_path(block, 1)


def test_room_is_what_a_list_might_have_had_more() -> None:
    made = HeaderDecoder(1_000, 100)
    made.decode(literal(b"name", b"value"))
    assert made.room == 1_000 - 9 - 32
