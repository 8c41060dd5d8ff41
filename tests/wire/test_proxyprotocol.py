"""The PROXY protocol's headers (HAProxy's proxy-protocol.txt): what is taken, what is refused, and that no byte more is."""

import itertools
import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from termserver.wire.proxyprotocol import LONGEST, Endpoints, ProxyHeader, ProxyHeaderFault

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
AFTER = b"GET / HTTP/1.1\r\nPROXY TCP4 9.9.9.9 9.9.9.9 9 9\r\n"
Name = tuple[str, int]
UNMAPPED = ("192.0.2.1", 1)


def block(command: int, kind: int, data: bytes = b"", *, version: int = 2, length: int | None = None) -> bytes:
    """Build version 2's header."""
    return SIGNATURE + struct.pack("!BBH", version << 4 | command, kind, len(data) if length is None else length) + data


def tcp4(source: Name, destination: Name, tlvs: bytes = b"") -> bytes:
    packed = socket.inet_pton(socket.AF_INET, source[0]) + socket.inet_pton(socket.AF_INET, destination[0])
    return block(1, 0x11, packed + struct.pack("!HH", source[1], destination[1]) + tlvs)


def tcp6(source: Name, destination: Name, tlvs: bytes = b"") -> bytes:
    packed = socket.inet_pton(socket.AF_INET6, source[0]) + socket.inet_pton(socket.AF_INET6, destination[0])
    return block(1, 0x21, packed + struct.pack("!HH", source[1], destination[1]) + tlvs)


def tlv(kind: int, value: bytes, length: int | None = None) -> bytes:
    return struct.pack("!BH", kind, len(value) if length is None else length) + value


def line(text: str) -> bytes:
    return f"PROXY {text}\r\n".encode("latin-1")


def whole(data: bytes) -> Endpoints | None:
    """Give what a header says, shown whole, byte by byte, and with bytes after it."""
    found = []
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))], [data + AFTER]):
        header, taken = ProxyHeader(), 0
        for piece in pieces:
            assert not header.complete
            taken += header.receive(piece)
        assert (header.complete, taken) == (True, len(data))
        assert header.receive(AFTER) == 0
        found.append(header.endpoints)
    assert found[0] == found[1] == found[2]
    return found[0]


def outcome(pieces: list[bytes]) -> tuple[object, ...]:
    header, taken = ProxyHeader(), 0
    for piece in pieces:
        try:
            took = header.receive(piece)
        except ProxyHeaderFault as fault:
            return "fault", str(fault)
        assert 0 <= took <= len(piece)
        assert len(header._held) < LONGEST
        assert header.complete or took == len(piece)
        taken += took
    return header.complete, header.endpoints, taken


def refused(data: bytes) -> str:
    """Give why a header is refused, shown whole and byte by byte."""
    with pytest.raises(ProxyHeaderFault) as caught:
        ProxyHeader().receive(data)
    assert outcome([data[at : at + 1] for at in range(len(data))]) == ("fault", str(caught.value))
    return str(caught.value)


# --- version 1 (§2.1) ---


@pytest.mark.parametrize(
    ("text", "source", "destination"),
    [
        pytest.param("TCP4 192.0.2.1 198.51.100.9 56324 443", ("192.0.2.1", 56324), ("198.51.100.9", 443), id="IPv4"),
        pytest.param("TCP4 255.255.255.255 255.255.255.255 65535 65535", ("255.255.255.255", 65535), ("255.255.255.255", 65535), id="long"),
        pytest.param("TCP4 0.0.0.0 0.0.0.0 0 0", ("0.0.0.0", 0), ("0.0.0.0", 0), id="zeros"),
        pytest.param("TCP6 2001:db8::1 2001:db8::2 1 2", ("2001:db8::1", 1), ("2001:db8::2", 2), id="IPv6"),
        pytest.param("TCP6 2001:DB8:0:0:0:0:0:1 ::1 1 2", ("2001:db8::1", 1), ("::1", 2), id="IPv6 in its usual form"),
        pytest.param("TCP6 ::ffff:192.0.2.1 ::ffff:c633:6409 1 2", ("192.0.2.1", 1), ("198.51.100.9", 2), id="IPv4 in IPv6"),
    ],
)  # fmt: skip
def test_2_1_a_line_names_both_ends(text: str, source: Name, destination: Name) -> None:
    assert whole(line(text)) == Endpoints(source, destination)


LONGEST_LINE = b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535".ljust(105, b"x") + b"\r\n"  # 107 bytes


@pytest.mark.parametrize("data", [line("UNKNOWN"), line("UNKNOWN "), line("UNKNOWN anything \xff\0 else"), LONGEST_LINE])
def test_2_1_unknown_names_nobody_whatever_follows(data: bytes) -> None:
    assert whole(data) is None


@pytest.mark.parametrize("data", [LONGEST_LINE[:-2] + b"x\r\n", b"PROXY TCP4 " + b"1" * 200, b"PROXY UNKNOWN " + b"x" * 1_000])
def test_l19_a_line_of_more_than_107_bytes_is_refused(data: bytes) -> None:
    assert len(LONGEST_LINE) == 107
    assert refused(data) == "a PROXY line of more than 107 bytes"


@pytest.mark.parametrize(
    "text",
    [
        "", "TCP4", "TCP4 ", "UNKNOWNX", "unknown", "tcp4 192.0.2.1 192.0.2.2 1 2", "TCP5 192.0.2.1 192.0.2.2 1 2",
        "UDP4 192.0.2.1 192.0.2.2 1 2", "TCP4  192.0.2.1 192.0.2.2 1 2", "TCP4 192.0.2.1  192.0.2.2 1 2", "TCP4 192.0.2.1 192.0.2.2 1 2 ",
        "TCP4 192.0.2.1 192.0.2.2 1", "TCP4 192.0.2.1\t192.0.2.2 1 2", "TCP4 192.0.2.1 192.0.2.2 1 2 3", "TCP4 192.0.2.1 192.0.2.2",
        "TCP4 192.0.2.1 192.0.2.2 -1 2", "TCP4 192.0.2.1 192.0.2.2 +1 2", "TCP4 192.0.2.1 192.0.2.2 01 2",
        "TCP4 192.0.2.1 192.0.2.2 65536 2", "TCP4 192.0.2.1 192.0.2.2 1 99999", "TCP4 192.0.2.1 192.0.2.2 1 100000",
        "TCP4 192.0.2.1 192.0.2.2 http 80", "TCP4 192.0.2.01 192.0.2.2 1 2", "TCP4 192.0.2.256 192.0.2.2 1 2",
        "TCP4 192.0.2 192.0.2.2 1 2", "TCP4 c0000201 192.0.2.2 1 2", "TCP4 ::1 192.0.2.2 1 2", "TCP4 ::1 ::1 1 2",
        "TCP6 192.0.2.1 ::1 1 2", "TCP6 ::1 192.0.2.1 1 2", "TCP6 [::1] ::1 1 2", "TCP6 ::1%eth0 ::1 1 2", "TCP6 :::1 ::1 1 2",
        "TCP6 1:2:3:4:5:6:7:8:9 ::1 1 2", "TCP4 192.0.2.1 192.0.2.2 1 2\r", "UNKNOWN \r", "TCP4 192.0.2.1 192.0.2.2 1 \xb2",
    ],
)  # fmt: skip
def test_2_1_a_malformed_line_is_refused(text: str) -> None:
    assert refused(line(text)) == "a malformed PROXY line"


@pytest.mark.parametrize("data", [b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", b"PROXY UNKNOWN\n", b"PROXY \n", b"PROXY UNKNOWN\r \n"])
def test_2_1_a_line_ends_with_cr_lf(data: bytes) -> None:
    assert refused(data) == "a malformed PROXY line"


@pytest.mark.parametrize("data", [
    b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01", b"\n", b"\0", b"proxy TCP4", b"PROXY\tTCP4",
    b"PROXYTCP4", b"\r\n\r\nGET", b"\r\n\r\n\0\r\nQUIT\r", b"\rx", SIGNATURE[:11] + b"\0", SIGNATURE[:11] + b"\0" + b"\x21\x11\xff\xff",
])  # fmt: skip
def test_what_is_no_header_is_refused_at_the_first_byte_that_shows_it(data: bytes) -> None:
    assert refused(data) == "no PROXY header"


# --- version 2 (§2.2) ---


@pytest.mark.parametrize(
    ("data", "source", "destination"),
    [
        pytest.param(tcp4(("192.0.2.1", 56324), ("198.51.100.9", 443)), ("192.0.2.1", 56324), ("198.51.100.9", 443), id="IPv4"),
        pytest.param(
            bytes.fromhex("0d0a0d0a000d0a515549540a 21 11 000c c0000201 c6336409 dc04 01bb"),
            ("192.0.2.1", 56324), ("198.51.100.9", 443), id="IPv4 by hand",
        ),
        pytest.param(
            bytes.fromhex("0d0a0d0a000d0a515549540a 21 21 0024 20010db8" + "00" * 11 + "01 20010db8" + "00" * 11 + "02 ffff 0000"),
            ("2001:db8::1", 65535), ("2001:db8::2", 0), id="IPv6 by hand",
        ),
        pytest.param(tcp6(("::ffff:192.0.2.1", 1), ("::1", 2)), ("192.0.2.1", 1), ("::1", 2), id="IPv4 in IPv6"),
    ],
)  # fmt: skip
def test_2_2_a_block_names_both_ends(data: bytes, source: Name, destination: Name) -> None:
    assert whole(data) == Endpoints(source, destination)


@pytest.mark.parametrize("data", [
    pytest.param(block(0, 0x00), id="LOCAL"),
    pytest.param(block(0, 0x11, tcp4(UNMAPPED, UNMAPPED)[16:]), id="LOCAL with addresses"),
    pytest.param(block(0, 0x12, bytes(12)), id="LOCAL with a family nobody takes"),
    pytest.param(block(0, 0xFF, b"\xff" * 520), id="LOCAL with nonsense, as long as can be"),
    pytest.param(block(1, 0x00), id="unspecified"),
    pytest.param(block(1, 0x00, b"\xff" * 7), id="unspecified, with something after it"),
    pytest.param(block(1, 0x31, b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0")), id="Unix"),
    pytest.param(block(1, 0x31, bytes(216) + tlv(0x04, b"")), id="Unix, unnamed, with a TLV"),
])  # fmt: skip
def test_2_2_some_blocks_name_nobody(data: bytes) -> None:
    assert whole(data) is None


@pytest.mark.parametrize("tlvs", [
    pytest.param(tlv(0x01, b"h2"), id="ALPN"),
    pytest.param(tlv(0x02, b"example.org") + tlv(0x04, b"\0" * 5) + tlv(0x04, b""), id="authority and padding"),
    pytest.param(tlv(0x20, struct.pack("!BI", 1, 0) + tlv(0x21, b"TLSv1.3")), id="TLS"),
    pytest.param(tlv(0x03, b"\xde\xad\xbe\xef"), id="checksum, not looked at"),
    pytest.param(tlv(0xEA, b"x" * (LONGEST - 28 - 3)), id="as long as can be"),
])  # fmt: skip
def test_2_2_fields_at_the_end_are_stepped_over(tlvs: bytes) -> None:
    data = tcp4(UNMAPPED, ("192.0.2.2", 2), tlvs)
    assert len(data) <= LONGEST
    assert whole(data) == Endpoints(UNMAPPED, ("192.0.2.2", 2))


@pytest.mark.parametrize(
    "tlvs", [b"\x04", b"\x04\0", tlv(0x04, b"", 1), tlv(0x04, b"abc", 4), tlv(0x04, b"abc") + b"\x04\0", tlv(4, b"", 65535)]
)
@pytest.mark.parametrize("build", [tcp4, tcp6])
def test_2_2_fields_have_to_fill_the_header(build: type, tlvs: bytes) -> None:
    name = ("192.0.2.1", 1) if build is tcp4 else ("::1", 1)
    assert refused(build(name, name, tlvs)) == "a PROXY header whose fields do not fill it"


@pytest.mark.parametrize(("data", "reason"), [
    pytest.param(block(1, 0x11, bytes(12), version=1), "a PROXY header of an unknown version or command", id="version 1"),
    pytest.param(block(0, 0x00, version=3), "a PROXY header of an unknown version or command", id="version 3"),
    pytest.param(block(2, 0x11, bytes(12)), "a PROXY header of an unknown version or command", id="command"),
    pytest.param(block(1, 0x12, bytes(12)), "a PROXY header for datagrams", id="UDP over IPv4"),
    pytest.param(block(1, 0x22, bytes(36)), "a PROXY header for datagrams", id="UDP over IPv6"),
    pytest.param(block(1, 0x32, bytes(216)), "a PROXY header for datagrams", id="Unix datagrams"),
    pytest.param(block(1, 0x10, bytes(12)), "a PROXY header of an unknown address family", id="no transport"),
    pytest.param(block(1, 0x01, bytes(12)), "a PROXY header of an unknown address family", id="no family"),
    pytest.param(block(1, 0x41, bytes(216)), "a PROXY header of an unknown address family", id="unknown family"),
    pytest.param(block(1, 0x13, bytes(12)), "a PROXY header of an unknown address family", id="unknown transport"),
    pytest.param(block(1, 0x11, bytes(11)), "a PROXY header too short for its addresses", id="IPv4, a byte short"),
    pytest.param(block(1, 0x21, bytes(35)), "a PROXY header too short for its addresses", id="IPv6, a byte short"),
    pytest.param(block(1, 0x31, bytes(215)), "a PROXY header too short for its addresses", id="Unix, a byte short"),
    pytest.param(block(1, 0x11), "a PROXY header too short for its addresses", id="no addresses"),
    pytest.param(block(1, 0x11, length=521), "a PROXY header of more than 536 bytes", id="a byte too long"),
    pytest.param(block(0, 0x00, length=65535), "a PROXY header of more than 536 bytes", id="LOCAL, as long as it can say"),
])  # fmt: skip
def test_2_2_a_block_that_is_not_taken(data: bytes, reason: str) -> None:
    assert refused(data) == reason


def test_l19_nothing_is_awaited_of_a_block_that_says_it_is_too_long() -> None:
    header = ProxyHeader()
    assert header.receive(SIGNATURE + b"\x21\x11\x02") == 15
    with pytest.raises(ProxyHeaderFault, match="more than 536 bytes"):
        header.receive(b"\x09")


@pytest.mark.parametrize("data", [b"", b"P", b"PROXY TCP4 192.0.2.1", b"\r", SIGNATURE, tcp4(UNMAPPED, UNMAPPED)[:-1]])
def test_what_is_not_whole_is_awaited(data: bytes) -> None:
    header = ProxyHeader()
    assert header.receive(data) == len(data)
    assert not header.complete
    assert header.receive(b"") == 0
    assert not header.complete


# --- laws ---

PORTS = st.integers(0, 65_535)
NAMES = st.tuples(st.ip_addresses(v=4), PORTS), st.tuples(st.ip_addresses(v=6), PORTS)
PAIRS = st.one_of(*(st.tuples(names, names) for names in NAMES))
TLVS = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40)), max_size=4).map(lambda all_: b"".join(tlv(*each) for each in all_))
Address = IPv4Address | IPv6Address
Pair = tuple[tuple[Address, int], tuple[Address, int]]


def encode(pair: Pair, *, second: bool, tlvs: bytes = b"") -> bytes:
    """Write a header as a proxy does."""
    (source, source_port), (destination, destination_port) = pair
    if not second:
        return line(f"TCP{source.version} {source} {destination} {source_port} {destination_port}")
    build = tcp4 if source.version == 4 else tcp6
    return build((str(source), source_port), (str(destination), destination_port), tlvs)


def unmapped(address: Address) -> str:
    return str((address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address)


@given(PAIRS, st.booleans(), TLVS, st.lists(st.integers(0, 600), max_size=5), st.binary(max_size=700))
@example(((ip_address("::ffff:1.2.3.4"), 1), (ip_address("::"), 2)), False, b"", [1], AFTER)
def test_law_what_is_written_is_read_however_it_is_cut(pair: Pair, second: bool, tlvs: bytes, cuts: list[int], after: bytes) -> None:
    data = encode(pair, second=second, tlvs=tlvs)
    stream, header, rest = data + after, ProxyHeader(), b""
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, end in itertools.pairwise(edges):
        piece = stream[start:end]
        rest += piece[header.receive(piece) :]
    assert rest == after
    (source, source_port), (destination, destination_port) = pair
    assert header.endpoints == Endpoints((unmapped(source), source_port), (unmapped(destination), destination_port))


ALIKE = st.sampled_from([b"PROXY ", b"UNKNOWN", b"TCP4 ", b"TCP6 ", b"192.0.2.1 ", b"::1 ", b"80 ", b"80", b"\r\n", b"\n", b"\r", SIGNATURE,
                         b"\x21", b"\x20", b"\x11", b"\x21\x21", b"\0\x0c", b"\0\x24", bytes(12), bytes(36)])  # fmt: skip
ANYTHING = st.binary(max_size=700) | st.lists(ALIKE | st.binary(max_size=3), max_size=12).map(b"".join)


@given(ANYTHING, st.lists(st.integers(0, 700), max_size=6))
@example(SIGNATURE + b"\x21\x11\0\x0c" + bytes(12), [12, 13, 14])
@example(b"PROXY " + b"1" * 200, [6, 106, 107, 108])
def test_law_no_input_raises_anything_else_and_no_cut_matters(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    assert outcome([data[start:end] for start, end in itertools.pairwise(edges)]) == outcome([data])


@given(PAIRS, st.booleans(), TLVS, st.data())
def test_law_a_header_with_one_byte_changed_raises_nothing_else(pair: Pair, second: bool, tlvs: bytes, data: st.DataObject) -> None:
    good = encode(pair, second=second, tlvs=tlvs)
    at, value = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(0, 255))
    assume(good[at] != value)
    bad = good[:at] + bytes([value]) + good[at + 1 :]
    assert outcome([bad]) == outcome([bad[at : at + 1] for at in range(len(bad))])
