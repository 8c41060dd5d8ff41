"""HTTP/2 frames as a server writes them: RFC 9113 §4.1, §4.3, §6."""

import base64

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from termserver.wire import h2frames as f
from wire.h2driving import Sent, read_frames


def theirs(data: bytes) -> Frame:
    """Read one frame with the parser of the h2 package."""
    read, length = Frame.parse_frame_header(memoryview(data)[:9], strict=True)
    read.parse_body(memoryview(data)[9:])
    assert len(data) == 9 + length
    return read


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [
        (f.DATA, DataFrame),
        (f.HEADERS, HeadersFrame),
        (f.PRIORITY, PriorityFrame),
        (f.RST_STREAM, RstStreamFrame),
        (f.SETTINGS, SettingsFrame),
        (f.PUSH_PROMISE, PushPromiseFrame),
        (f.PING, PingFrame),
        (f.GOAWAY, GoAwayFrame),
        (f.WINDOW_UPDATE, WindowUpdateFrame),
        (f.CONTINUATION, ContinuationFrame),
    ],
)
def test_rfc9113_6_the_types(kind: int, theirs: type[Frame]) -> None:
    assert theirs.type == kind


def test_rfc9113_4_1_the_head_of_a_frame() -> None:
    assert f.frame(0xAB, 0xCD, 0x01020304, b"xyz") == bytes.fromhex("000003 ab cd 01020304") + b"xyz"
    assert f.frame(f.DATA, 0, f.LAST_STREAM, bytes(f.FRAME_SIZE))[:9] == bytes.fromhex("004000 00 00 7fffffff")
    assert f.HEAD.size == f.HEAD_SIZE == 9


def test_rfc9113_3_4_the_preface() -> None:
    assert bytes.fromhex("505249202a20485454502f322e300d0a0d0a534d0d0a0d0a") == f.PREFACE


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize(
    ("size", "sizes"),
    [(0, [0]), (1, [1]), (10, [10]), (11, [10, 1]), (20, [10, 10]), (21, [10, 10, 1]), (40, [10, 10, 10, 10])],
)
def test_rfc9113_4_3_a_block_that_is_larger_than_a_frame(size: int, sizes: list[int], ended: bool) -> None:
    block = bytes(range(size))
    frames = read_frames(f.headers(5, block, ended=ended, size=10))
    assert [len(each.payload) for each in frames] == sizes
    assert b"".join(each.payload for each in frames) == block
    assert [each.kind for each in frames] == [f.HEADERS] + [f.CONTINUATION] * (len(sizes) - 1)
    assert [bool(each.flags & f.END_HEADERS) for each in frames] == [False] * (len(sizes) - 1) + [True]
    assert [bool(each.flags & f.END_STREAM) for each in frames] == [ended] + [False] * (len(sizes) - 1)
    assert {each.stream for each in frames} == {5}


def test_rfc9113_4_2_no_frame_of_ours_is_larger_than_every_client_takes() -> None:
    assert [len(each.payload) for each in read_frames(f.headers(1, bytes(f.FRAME_SIZE + 1), ended=True))] == [16_384, 1]
    assert [len(each.payload) for each in read_frames(f.headers(1, bytes(f.FRAME_SIZE), ended=True))] == [16_384]


def test_rfc9113_6_4_rst_stream() -> None:
    assert f.rst_stream(3, ErrorCodes.ENHANCE_YOUR_CALM) == bytes.fromhex("000004 03 00 00000003 0000000b")
    assert theirs(f.rst_stream(3, ErrorCodes.CANCEL)).error_code == 8


def test_rfc9113_6_5_settings_go_there_and_back() -> None:
    values = [(1, 0), (SettingCodes.INITIAL_WINDOW_SIZE, f.LARGEST_WINDOW), (0xFFFF, 0xFFFFFFFF), (1, 1)]
    assert f.read_settings(f.settings(values)[9:]) == values
    assert theirs(f.settings(values[:3])).settings == dict(values[:3])
    assert (f.settings([]), f.read_settings(b"")) == (bytes.fromhex("000000 04 00 00000000"), [])
    assert bytes.fromhex("000000 04 01 00000000") == f.SETTINGS_ACK


def test_rfc9113_6_8_goaway() -> None:
    assert read_frames(f.goaway(7, ErrorCodes.PROTOCOL_ERROR, "why")) == [Sent(f.GOAWAY, 0, 0, bytes.fromhex("00000007 00000001") + b"why")]
    assert f.goaway(0, ErrorCodes.NO_ERROR, "wh\u00ff")[17:] == b"wh?"
    assert theirs(f.goaway(f.LAST_STREAM, ErrorCodes.NO_ERROR)).last_stream_id == f.LAST_STREAM


@pytest.mark.parametrize("stream", [0, 1])
def test_rfc9113_6_9_window_update(stream: int) -> None:
    frame = theirs(f.window_update(stream, f.LARGEST_WINDOW))
    assert (frame.stream_id, frame.window_increment) == (stream, f.LARGEST_WINDOW)


@pytest.mark.parametrize(
    ("value", "payload"),
    [
        (b"", b""),
        (b"AAMAAABkAAQAoAAAAAIAAAAA", bytes.fromhex("0003 00000064 0004 00a00000 0002 00000000")),  # what curl says
        (b"AAQAAP__", bytes.fromhex("0004 0000ffff")),
        (b"AAQAAP--", bytes.fromhex("0004 0000ffbe")),
        (b"AAQAAP//", None),  # base64, but not base64url
        (b"AAQAAP+-", None),
        (b"AAQAAP__=", None),
        (b"AAQAAP_", None),
        (b"AAQAAP_ ", None),
        (b"AAQA AP__", None),
        (b"AAQAAA", None),  # four bytes
        (b"AAQAAP__A", None),  # a rest of six bits
        (b"AAQAAP__AA", None),
        ("AAQAAPé".encode(), None),
        (b"AAQAAP__\n", None),
    ],
)
def test_rfc7540_3_2_1_the_settings_in_a_field(value: bytes, payload: bytes | None) -> None:
    assert f.decode_settings(value) == payload


@pytest.mark.parametrize("size", range(9))
def test_rfc7540_3_2_1_any_settings_go_through_a_field(size: int) -> None:
    payload = bytes(range(250, 250 - 6 * size, -1))
    assert f.decode_settings(base64.urlsafe_b64encode(payload).rstrip(b"=")) == payload
