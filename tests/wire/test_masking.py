"""Unmasking (RFC 6455 §5.3): whatever the size, the place and the mask, and with either of autobahn's maskers."""

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termserver.wire import masking
from termserver.wire.masking import Unmasker
from wire.frames import MASK

EDGE = masking._BY_INTEGER
BUFFER = masking._BUFFER
PATTERN = bytes(range(256)) * (2 * BUFFER // 256 + 2)
MASKS = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\1\2\3", b"\1\0\0\0", b"\0\0\0\1", MASK]


class PythonMasker:
    """What autobahn has where it was built without NVX: an object with `process`, and no C library."""

    def __init__(self, mask: bytes) -> None:
        self._mask = mask

    def process(self, data: bytes) -> bytes:
        return expected(data, self._mask)


def expected(data: bytes, mask: bytes) -> bytes:
    """XOR as one integer: quick enough for large payloads."""
    key = (mask * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(len(data), "big")


@pytest.fixture(params=["autobahn's own", "in Python"])
def unmasker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Unmasker:
    if request.param == "in Python":
        monkeypatch.setattr(masking, "create_xor_masker", lambda mask, _: PythonMasker(mask))
    return Unmasker()


def test_rfc6455_5_7_example(unmasker: Unmasker) -> None:
    assert unmasker.unmask(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", 6, 11, b"\x37\xfa\x21\x3d") == b"Hello"


@pytest.mark.parametrize("mask", MASKS, ids=bytes.hex)
@pytest.mark.parametrize("size", [*range(10), 15, 16, 17, 125, 126, EDGE - 1, EDGE, EDGE + 1, EDGE + 2, EDGE + 3, 1_000, 65_536])
def test_every_size_place_and_mask(unmasker: Unmasker, size: int, mask: bytes) -> None:
    for start in (0, 1, 2, 3, 6, 14):
        got = unmasker.unmask(PATTERN, start, start + size, mask)
        assert got == expected(PATTERN[start : start + size], mask)
        assert type(got) is bytes


@pytest.mark.parametrize("size", [BUFFER - 1, BUFFER, BUFFER + 1, BUFFER + 3, 2 * BUFFER, 2 * BUFFER + 5])
def test_more_than_the_buffer(unmasker: Unmasker, size: int) -> None:
    assert unmasker.unmask(PATTERN, 3, 3 + size, MASK) == expected(PATTERN[3 : 3 + size], MASK)


def test_the_buffer_is_a_multiple_of_the_mask() -> None:
    assert BUFFER % 4 == 0


def test_a_result_is_not_changed_by_the_next(unmasker: Unmasker) -> None:
    first = unmasker.unmask(PATTERN, 0, 1_000, MASK)
    second = unmasker.unmask(bytes(1_000), 0, 1_000, b"abcd")
    assert (first, second) == (expected(PATTERN[:1_000], MASK), b"abcd" * 250)


def test_the_input_is_left_as_it_was(unmasker: Unmasker) -> None:
    data = b"x" * 500
    unmasker.unmask(data, 0, 500, MASK)
    assert data == b"x" * 500


@given(st.binary(max_size=1_200), st.integers(0, 40), st.binary(min_size=4, max_size=4))
def test_unmasking_is_masking(data: bytes, start: int, mask: bytes) -> None:
    unmasker = Unmasker()
    start = min(start, len(data))
    once = unmasker.unmask(data, start, len(data), mask)
    assert once == expected(data[start:], mask)
    assert unmasker.unmask(once, 0, len(once), mask) == data[start:]


def test_one_buffer_whatever_the_number_of_payloads() -> None:
    unmasker: Any = Unmasker()
    unmasker.unmask(PATTERN, 0, BUFFER, MASK)
    tracemalloc.start()
    try:
        for _ in range(50):
            unmasker.unmask(PATTERN, 0, BUFFER, MASK)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert now < 50_000
    assert peak < 4 * BUFFER
