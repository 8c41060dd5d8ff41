"""HTTP/2 frames: their names, and how those are written that a server sends (RFC 9113 §4 and §6, RFC 9218 §7). No I/O."""

import base64
import re
import struct
from collections.abc import Iterable
from typing import Final

from h2.errors import ErrorCodes

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 §3.4
FRAME_SIZE: Final = 16_384  # bytes of payload that every endpoint takes, and none more is asked for (spec limits L31)
HEAD_SIZE: Final = 9
HEAD: Final = struct.Struct(">IBI")  # length in the upper 24 bits and type, flags, stream
WINDOW: Final = 65_535  # a window's first size
LARGEST_WINDOW: Final = (1 << 31) - 1
LAST_STREAM: Final = (1 << 31) - 1

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PRIORITY_UPDATE: Final = 0x10
NO_RFC7540_PRIORITIES: Final = 0x9  # a setting (RFC 9218 §2.1)

# Flags
END_STREAM: Final = 0x01
ACK: Final = 0x01
END_HEADERS: Final = 0x04
PADDED: Final = 0x08
WITH_PRIORITY: Final = 0x20

_SETTING: Final = struct.Struct(">HI")
_BASE64URL: Final = re.compile(rb"(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-]{2,3})?")  # RFC 4648 §5, without padding
_U32: Final = struct.Struct(">I")
_TWO_U32: Final = struct.Struct(">II")
_pack = HEAD.pack


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Write a frame."""
    return _pack(len(payload) << 8 | kind, flags, stream) + payload


def headers(stream: int, block: bytes, *, ended: bool, size: int = FRAME_SIZE) -> bytes:
    """Write a header block, in CONTINUATION frames where one frame has no room for it."""
    flags = END_STREAM if ended else 0
    if len(block) <= size:
        return _pack(len(block) << 8 | HEADERS, flags | END_HEADERS, stream) + block
    parts = [block[start : start + size] for start in range(0, len(block), size)]
    first, *middle, last = parts
    return b"".join(
        [
            frame(HEADERS, flags, stream, first),
            *[frame(CONTINUATION, 0, stream, part) for part in middle],
            frame(CONTINUATION, END_HEADERS, stream, last),
        ]
    )


def rst_stream(stream: int, code: ErrorCodes) -> bytes:
    """End a stream at once."""
    return frame(RST_STREAM, 0, stream, _U32.pack(code))


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """Say what the peer is to know."""
    return frame(SETTINGS, 0, 0, b"".join([_SETTING.pack(*each) for each in values]))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Read the entries of a SETTINGS frame, whose length is a multiple of six."""
    return list(_SETTING.iter_unpack(payload))


def decode_settings(value: bytes) -> bytes | None:
    """Give the payload that an HTTP2-Settings field holds (RFC 7540 §3.2.1), None where it is none."""
    if not _BASE64URL.fullmatch(value):
        return None
    payload = base64.urlsafe_b64decode(value + b"=" * (-len(value) % 4))
    return payload if len(payload) % _SETTING.size == 0 else None


def goaway(last: int, code: ErrorCodes, reason: str = "") -> bytes:
    """Say that no stream after `last` will be served; `reason` is for whoever looks at the wire."""
    return frame(GOAWAY, 0, 0, _TWO_U32.pack(last, code) + reason.encode("ascii", "replace"))


def window_update(stream: int, size: int) -> bytes:
    """Let the peer send so many bytes more."""
    return frame(WINDOW_UPDATE, 0, stream, _U32.pack(size))


SETTINGS_ACK: Final = frame(SETTINGS, ACK, 0)
