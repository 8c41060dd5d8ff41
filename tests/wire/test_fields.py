"""Field grammar: tokens, values, hosts, lengths, lists, status lines (RFC 9110 §5)."""

import re
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termserver.wire.fields import FORBIDDEN_TRAILERS, REASONS, STATUS_LINES, is_host, is_token, is_value, list_members, parse_length

TOKEN = set(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


@pytest.mark.parametrize("byte", range(256))
def test_rfc9110_5_6_2_token_bytes(byte: int) -> None:
    assert is_token(bytes([byte])) is (byte in TOKEN)
    assert is_token(b"a" + bytes([byte])) is (byte in TOKEN)


def test_rfc9110_5_6_2_a_token_is_not_empty() -> None:
    assert not is_token(b"")


@pytest.mark.parametrize("byte", range(256))
def test_a15_value_bytes(byte: int) -> None:
    legal = byte == 0x09 or 0x20 <= byte <= 0x7E or byte >= 0x80
    assert is_value(b"a" + bytes([byte]) + b"b") is legal


def test_rfc9110_5_5_an_empty_value_is_a_value() -> None:
    assert is_value(b"")


@pytest.mark.parametrize(
    "value",
    [
        b"a",
        b"a.b",
        b"a.b.",
        b"A-1_~!$&'()*+,;=",
        b"%41",
        b"a:80",
        b"a:",
        b"a:65535",
        b"1.2.3.4",
        b"1.2.3.4:8000",
        b"[::1]",
        b"[::1]:80",
        b"[::ffff:1.2.3.4]",
        b"[fe80::1%25eth0]",
        b"[v1.a:b]",
        b"xn--e1afmkfd.xn--p1ai",
    ],
)
def test_rfc3986_3_2_2_hosts(value: bytes) -> None:
    assert is_host(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b":80",
        b" ",
        b"a b",
        b"a\x00",
        b"a\t",
        b"a/b",
        b"a?b",
        b"a#b",
        b"u@a",
        b"a,b c",
        b"a:b",
        b"a:123456",
        b"a:1:2",
        b"::1",
        b"[::1",
        b"::1]",
        b"[]",
        b"[::1]a",
        b"[fe80::1%eth0]",
        b"[v1.]",
        b"[v.a]",
        b"%",
        b"%4",
        b"%zz",
        b"a\\b",
        b'"a"',
        b"<a>",
        b"a\xff",
        b"a\n",
        b"a\r\n",
        b"a:80\n",
    ],
)
def test_a23_no_hosts(value: bytes) -> None:
    assert not is_host(value)


@pytest.mark.parametrize(("value", "length"), [(b"0", 0), (b"5", 5), (b"007", 7), (b"9" * 19, 10**19 - 1)])
def test_rfc9110_8_6_lengths(value: bytes, length: int) -> None:
    assert parse_length(value) == length


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"+5",
        b"-0",
        b"-5",
        b"5_0",
        b"0x5",
        b"1e1",
        b"5.0",
        b" 5",
        b"5 ",
        b"5\n",
        b"5\t",
        b"5,5",
        b"\xd9\xa5",
        b"\xb2",
        b"1" * 20,
        b"5\x00",
    ],
)
def test_a7_content_length_is_digits(value: bytes) -> None:
    assert parse_length(value) is None


def test_a8_a_long_length_is_refused_by_its_size() -> None:
    assert parse_length(b"1" * 100_000) is None


@given(st.binary(max_size=24))
def test_a7_a_length_is_what_the_grammar_says(value: bytes) -> None:
    assert (parse_length(value) is not None) is (re.fullmatch(rb"[0-9]{1,19}", value) is not None)


@pytest.mark.parametrize(
    ("value", "members"),
    [
        (b"", []),
        (b"a", [b"a"]),
        (b"A, b", [b"a", b"b"]),
        (b", ,a\t ,, b,", [b"a", b"b"]),
        (b"a b", [b"a b"]),
        (b"\x0ba", [b"\x0ba"]),
    ],
)
def test_rfc9110_5_6_1_lists(value: bytes, members: list[bytes]) -> None:
    assert list_members(value) == members


@pytest.mark.parametrize("status", [100, 200, 404, 413, 431, 503, 599, 999])
def test_b6_a_status_line_is_ours(status: int) -> None:
    line = STATUS_LINES[status]
    assert line == b"HTTP/1.1 %d %b\r\n" % (status, REASONS.get(status, b""))
    assert line.count(b"\r\n") == 1


def test_rfc9110_15_every_status_has_its_phrase() -> None:
    assert set(REASONS) == {int(status) for status in HTTPStatus}
    assert REASONS[413] == b"Content Too Large"  # RFC 9110's name, on every version of Python
    assert REASONS[422] == b"Unprocessable Content"


def test_rfc9110_6_5_1_no_framing_in_trailers() -> None:
    assert {b"content-length", b"transfer-encoding", b"host", b"te", b"trailer", b"authorization", b"set-cookie"} <= FORBIDDEN_TRAILERS
