"""Message compression with nothing kept between messages (RFC 7692 §7.2; spec attacks D3; spec limits L41)."""

import random
import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termserver.wire.deflate import Deflater, InflateError, TooLargeError, inflate
from wire.frames import TAIL, deflated, inflated

MIB = 1 << 20
FREE = 65_536  # bytes that no ratio forbids
EMPTY_BLOCK = b"\x00" + TAIL  # five bytes of which nothing comes
HELLO = b"\xf2\x48\xcd\xc9\xc9\x07\x00"  # "Hello", RFC 7692 §7.2.3.1
FINAL_HELLO = b"\xf3\x48\xcd\xc9\xc9\x07\x00"
WINDOWS = range(9, 16)

noise = random.Random(7).randbytes  # noqa: S311 - a pattern, not a secret


def far_apart(distance: int) -> bytes:
    """Give what is worth a reference over a distance, and would be wrong where the window is smaller."""
    part = noise(64)
    return b"".join(part + noise(distance - len(part)) for _ in range(3)) + part


MESSAGES = [
    b"x",
    b"hello " * 200,
    "żółw 🐢 ".encode() * 100,
    noise(1_024),
    noise(16_384),
    b"\0" * FREE,
    *[far_apart(1 << bits) + far_apart((1 << bits) - 1) for bits in WINDOWS],
    bytes(range(256)) * 500,
]


# ---------------------------------------------------------------------- outwards


@pytest.mark.parametrize("bits", WINDOWS)
def test_rfc7692_7_1_2_any_decompressor_with_the_window_reads_each_message_alone(bits: int) -> None:
    deflater = Deflater()
    for message in [*MESSAGES, *reversed(MESSAGES)]:
        result = deflater.deflate(message, bits)
        assert inflated(result, bits=bits) == message
        assert not result.endswith(TAIL)


def test_nothing_of_one_message_is_in_the_next() -> None:
    deflater = Deflater()
    first = deflater.deflate(b"a secret " * 200, 15)
    deflater.deflate(b"between " * 200, 15)
    assert deflater.deflate(b"a secret " * 200, 15) == first
    assert Deflater().deflate(b"a secret " * 200, 15) == first


def test_sockets_with_other_windows_share_a_deflater() -> None:
    deflater = Deflater()
    message = far_apart(1 << 14)
    for bits in [*WINDOWS, *WINDOWS, *reversed(WINDOWS)]:
        assert inflated(deflater.deflate(message, bits), bits=bits) == message
    assert len(deflater.deflate(message, 15)) < len(deflater.deflate(message, 9))


def test_a_message_to_a_whole_room_is_compressed_once() -> None:
    deflater = Deflater()
    message = b"hello " * 1_000
    first = deflater.deflate(message, 15)
    assert deflater.deflate(b"hello " * 1_000, 15) is first
    assert deflater.deflate(message, 9) is not first


def test_a_large_message_is_not_remembered() -> None:
    deflater = Deflater()
    small = b"hello " * 1_000
    first = deflater.deflate(small, 15)
    large = b"hello " * (MIB // 6 + 1)
    assert inflated(deflater.deflate(large, 15)) == large
    assert deflater.deflate(small, 15) is first
    longest = b"x" * MIB
    assert deflater.deflate(longest, 15) is deflater.deflate(longest, 15)


@pytest.mark.parametrize("size", [16_379, *range(16_381, 16_388), 32_764, *range(32_766, 32_770)])
def test_a_flush_at_the_edge_of_the_output_buffer(size: int) -> None:
    """Where the marker just fits, or does not, zlib may write another."""
    deflater = Deflater()
    for message in (noise(size - 10), noise(size)):
        assert inflated(deflater.deflate(message, 15)) == message


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=300), st.integers(1, 50), st.sampled_from(WINDOWS)), max_size=8))
def test_what_is_deflated_is_inflated(messages: list[tuple[bytes, int, int]]) -> None:
    deflater = Deflater()
    for part, times, bits in messages:
        message = part * times
        result = deflater.deflate(message, bits)
        assert inflated(result, bits=bits) == message
        assert inflate(result, 0, 0) == message


# ---------------------------------------------------------------------- inwards


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", b"", id="nothing"),
        pytest.param(b"\x00", b"", id="the empty message"),
        pytest.param(EMPTY_BLOCK * 3 + b"\x00", b"", id="empty blocks"),
        pytest.param(HELLO, b"Hello", id="7.2.3.1 one block"),
        pytest.param(b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", b"Hello", id="7.2.3.3 stored"),
        pytest.param(FINAL_HELLO + b"\x00", b"Hello", id="7.2.3.4 BFINAL"),
        pytest.param(FINAL_HELLO, b"Hello", id="BFINAL, nothing behind"),
        pytest.param(b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", b"Hello", id="7.2.3.5 two blocks"),
        pytest.param(EMPTY_BLOCK + HELLO, b"Hello", id="an empty block ahead"),
        pytest.param(zlib.compress(b"Hello", wbits=-15), b"Hello", id="a whole stream"),
    ],
)
def test_rfc7692_7_2_3_examples(data: bytes, message: bytes) -> None:
    assert inflate(data, 0, 0) == message
    assert inflate(bytearray(data), 5, 25) == message


@pytest.mark.parametrize("level", [0, 1, 6, 9])
@pytest.mark.parametrize("bits", WINDOWS)
def test_any_window_and_level_of_the_client(bits: int, level: int) -> None:
    for message in MESSAGES:
        assert inflate(deflated(message, bits=bits, level=level), MIB, 0) == message


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xff", id="a block type that is none"),
        pytest.param(b"\x07", id="another"),
        pytest.param(b"hello", id="text"),
        pytest.param(b"\x00\x05\x00\xfa\xfeHello\x00", id="a stored length that is not its complement"),
        pytest.param(b"\x78\x9c" + HELLO, id="a zlib header"),
        pytest.param(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff" + HELLO, id="a gzip header"),
        pytest.param(FINAL_HELLO + b"x", id="a byte behind BFINAL"),
        pytest.param(FINAL_HELLO + HELLO, id="a block behind BFINAL"),
        pytest.param(FINAL_HELLO + b"\x00\x00", id="two bytes behind BFINAL"),
        pytest.param(FINAL_HELLO + b"x" * 100_000, id="much behind BFINAL"),
        pytest.param(b"\x02\x04\x02\x00", id="a distance before the beginning"),
        pytest.param(HELLO[:-1] + b"\xff", id="another last byte"),
    ],
)
def test_no_deflate_stream(data: bytes) -> None:
    for limit, ratio in ((0, 0), (MIB, 25)):
        with pytest.raises(InflateError):
            inflate(data, limit, ratio)


@pytest.mark.parametrize("level", [0, 6])
@pytest.mark.parametrize("missing", [1, 100, 1_000])
def test_a_stream_that_is_cut_is_none(missing: int, level: int) -> None:
    """Worse than a lost end: the four bytes put behind it come out as data."""
    data = deflated(noise(3_000), level=level)
    with pytest.raises(InflateError):
        inflate(data[:-missing], 0, 0)


def test_no_context_is_taken_over() -> None:
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    first, second = (compressor.compress(b"a long word, " * 20) + compressor.flush(zlib.Z_SYNC_FLUSH) for _ in range(2))
    assert inflate(first.removesuffix(TAIL), 0, 0) == b"a long word, " * 20
    with pytest.raises(InflateError):
        inflate(second.removesuffix(TAIL), 0, 0)


@pytest.mark.parametrize("size", [1, 2, 258, 259, 1_000, 32_768, FREE, 100_000])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_l41_the_limit_is_exact(size: int, level: int) -> None:
    for message in (b"\0" * size, noise(size)):
        data = deflated(message, level=level)
        assert inflate(data, size, 0) == message
        assert inflate(data + TAIL + b"\x00", size, 0) == message
        assert inflate(data, size + 1, 0) == message
        with pytest.raises(TooLargeError):
            inflate(deflated(message + b"x", level=level), size, 0)


def test_l41_the_ratio_counts_above_64_kib() -> None:
    assert len(inflate(deflated(b"\0" * FREE), 0, 1)) == FREE
    with pytest.raises(TooLargeError):
        inflate(deflated(b"\0" * (FREE + 1)), 0, 25)
    assert len(inflate(deflated(b"\0" * (FREE + 1)), 0, 0)) == FREE + 1


def filled(message: bytes, ratio: int) -> tuple[bytes, int]:
    """Give `message` compressed, with empty blocks behind it until so much is worth `ratio` times as many bytes, and their number."""
    data = deflated(message)
    missing = -(-len(message) // ratio) - len(data)
    data += (TAIL + b"\x00") * max(0, -(-missing // len(EMPTY_BLOCK)))
    return data, ratio * len(data)


@pytest.mark.parametrize("ratio", [2, 25, 100])
def test_l41_the_ratio_is_exact(ratio: int) -> None:
    _, size = filled(b"\0" * 200_000, ratio)
    data, room = filled(b"\0" * size, ratio)
    assert room == size
    assert inflate(data, 0, ratio) == b"\0" * size
    with pytest.raises(TooLargeError):
        inflate(data.removesuffix(TAIL + b"\x00"), 0, ratio)  # the same message, in five bytes less


@pytest.mark.parametrize(("limit", "ratio"), [(MIB, 0), (MIB, 25), (0, 25)])
def test_d3_a_bomb_is_refused_before_it_is_large(limit: int, ratio: int) -> None:
    bomb = deflated(b"\0" * (64 * MIB), level=9)
    assert len(bomb) < 70_000
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError):
            inflate(bomb, limit, ratio)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB


# ---------------------------------------------------------------------- laws


@given(st.binary(max_size=400), st.integers(0, 2_000), st.integers(0, 30))
def test_no_input_raises_anything_else_and_no_result_is_over_the_limit(data: bytes, limit: int, ratio: int) -> None:
    with suppress(InflateError, TooLargeError):
        result = inflate(data, limit, ratio)
        assert not limit or len(result) <= limit
        assert not ratio or len(result) <= max(FREE, ratio * len(data))


@given(st.binary(max_size=2_000), st.integers(0, 9), st.sampled_from(WINDOWS), st.data())
def test_a_stream_with_a_changed_byte_stays_within_its_limit(message: bytes, level: int, bits: int, data: st.DataObject) -> None:
    stream = bytearray(deflated(message * 20, level=level, bits=bits))
    if stream:
        stream[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(InflateError, TooLargeError):
        assert len(inflate(stream, 5_000, 25)) <= 5_000
