"""The frames of an HTTP/2 client, judged before they mean anything (RFC 9113 §3.4, §4 and §6). No I/O.

A frame is judged by its nine bytes of header before its payload is awaited, so nothing is held but a part of one frame (16 KiB) and a
header block (32 KiB), which is handed out once it is whole. Order and sizes are settled here; what is left to the engine depends on its
streams.
"""

from collections.abc import Iterator
from typing import Final, TypeAlias

from h2.errors import ErrorCodes

from termserver.wire import h2frames as frames
from termserver.wire.events import Http2Limits
from termserver.wire.floods import EMPTY, OVERHEAD, Floods
from termserver.wire.h2faults import ConnectionFault

PROTOCOL_ERROR, FRAME_SIZE_ERROR, ENHANCE_YOUR_CALM = ErrorCodes.PROTOCOL_ERROR, ErrorCodes.FRAME_SIZE_ERROR, ErrorCodes.ENHANCE_YOUR_CALM

_Frame: TypeAlias = tuple[int, int, int, bytes]  # type, flags, stream, payload

_PRIORITY_SIZE: Final = 5
_SPECIAL: Final = frames.END_HEADERS | frames.PADDED | frames.WITH_PRIORITY
# Frames that are about the connection or a stream, and the sizes they may have (RFC 9113 §6, RFC 9218 §7.1).
_SHAPES: Final = {
    frames.PRIORITY: ("PRIORITY", True, _PRIORITY_SIZE, _PRIORITY_SIZE),
    frames.RST_STREAM: ("RST_STREAM", True, 4, 4),
    frames.SETTINGS: ("SETTINGS", False, 0, frames.FRAME_SIZE),
    frames.PING: ("PING", False, 8, 8),
    frames.GOAWAY: ("GOAWAY", False, 8, frames.FRAME_SIZE),
    frames.WINDOW_UPDATE: ("WINDOW_UPDATE", None, 4, 4),
    frames.PRIORITY_UPDATE: ("PRIORITY_UPDATE", False, 4, frames.FRAME_SIZE),
}


class _Block:
    """A header block that comes in several frames."""

    __slots__ = ("continuations", "data", "flags", "stream")

    def __init__(self, stream: int, flags: int, data: bytes) -> None:
        self.stream = stream
        self.flags = flags
        self.data = data
        self.continuations = 0


class FrameReader:
    """Reads the frames of one connection."""

    __slots__ = ("_block", "_floods", "_held", "_introduced", "_limits", "_needed", "greeted")

    def __init__(self, limits: Http2Limits, floods: Floods) -> None:
        """Wait for the preface. What a header block wastes is counted among `floods`."""
        self._limits = limits
        self._floods = floods
        self._introduced = False  # the preface came
        self.greeted = False  # and a SETTINGS frame after it
        self._held = bytearray()  # a part of a frame
        self._needed = 0  # bytes that it will have
        self._block: _Block | None = None

    @property
    def in_head(self) -> bool:
        """Whether a part of a head, or of a frame that might be one, is here."""
        held = self._held
        return self._block is not None or (bool(held) and (len(held) < frames.HEAD_SIZE or held[3] != frames.DATA))

    def read(self, data: bytes, now: float) -> Iterator[_Frame]:
        """Give every frame that is whole: type, flags, stream, payload. A header block is one HEADERS frame. Raises `ConnectionFault`."""
        held = self._held
        if held:
            held += data
            if len(held) < self._needed:
                return
            data = bytes(held)
            held.clear()
        position = 0 if self._introduced else self._read_preface(data)
        size = len(data)
        unpack = frames.HEAD.unpack_from
        while size - position >= frames.HEAD_SIZE and self._introduced:
            word, flags, number = unpack(data, position)
            length = word >> 8
            if length > frames.FRAME_SIZE:  # known at byte 9: not a byte of it is awaited (spec attacks C7)
                raise ConnectionFault(FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            end = position + frames.HEAD_SIZE + length
            if end > size:
                self._needed = end - position
                break
            frame = self._judge(word & 0xFF, flags, number & frames.LAST_STREAM, data[position + frames.HEAD_SIZE : end], now)
            position = end
            if frame is not None:
                yield frame
        else:
            self._needed = frames.HEAD_SIZE if self._introduced else len(frames.PREFACE)
        if position < size:
            held += data[position:]

    def _read_preface(self, data: bytes) -> int:
        """Give where what follows the preface begins, 0 where it is not whole yet."""
        size = min(len(data), len(frames.PREFACE))
        if data[:size] != frames.PREFACE[:size]:
            raise ConnectionFault(PROTOCOL_ERROR, "not the preface of HTTP/2")
        self._introduced = size == len(frames.PREFACE)
        return size if self._introduced else 0

    def _check_order(self, kind: int, flags: int, number: int) -> None:
        """Settings come first (RFC 9113 §3.4), and nothing comes between the frames of a header block (§4.3)."""
        if not self.greeted:
            if kind != frames.SETTINGS or flags & frames.ACK:
                raise ConnectionFault(PROTOCOL_ERROR, "the preface is not followed by SETTINGS")
            self.greeted = True
        if self._block is not None and (kind != frames.CONTINUATION or number != self._block.stream):
            raise ConnectionFault(PROTOCOL_ERROR, "a header block is interrupted")

    def _judge(self, kind: int, flags: int, number: int, payload: bytes, now: float) -> _Frame | None:
        """Check what can be checked without knowing the streams; None where the frame is a part of a header block."""
        if not self.greeted or self._block is not None:
            self._check_order(kind, flags, number)
        if kind == frames.HEADERS:
            self._check_size(payload)
            if flags & _SPECIAL != frames.END_HEADERS:
                payload = self._begin_block(flags, number, payload, now)
                if self._block is not None:
                    return None
        elif kind in _SHAPES:
            _check_shape(kind, number, len(payload))
        elif kind == frames.CONTINUATION:
            block = self._continue_block(flags, payload, now)
            return (frames.HEADERS, block.flags, number, block.data) if flags & frames.END_HEADERS else None
        return kind, flags, number, payload

    def _begin_block(self, flags: int, number: int, payload: bytes, now: float) -> bytes:
        """Take the padding and the priority off a HEADERS frame; note what is to follow."""
        if flags & frames.PADDED:
            payload = unpad(payload)
        if flags & frames.WITH_PRIORITY:
            if len(payload) < _PRIORITY_SIZE:
                raise ConnectionFault(FRAME_SIZE_ERROR, "HEADERS too short for its priority")
            check_dependency(payload, number)
            payload = payload[_PRIORITY_SIZE:]
        if not flags & frames.END_HEADERS:
            if not payload and not flags & frames.END_STREAM:
                self._floods.count(EMPTY, now)
            self._block = _Block(number, flags, payload)
        return payload

    def _continue_block(self, flags: int, payload: bytes, now: float) -> _Block:
        block = self._block
        if block is None:
            raise ConnectionFault(PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._floods.count(OVERHEAD, now)
        if not payload and not flags & frames.END_HEADERS:
            self._floods.count(EMPTY, now)
        block.continuations += 1
        block.data += payload
        limit = self._limits.http2_continuations
        if limit and block.continuations > limit:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "a header block in too many frames")
        self._check_size(block.data)
        if flags & frames.END_HEADERS:
            self._block = None
        return block

    def _check_size(self, block: bytes) -> None:
        limit = self._limits.http2_header_block
        if limit and len(block) > limit:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "a header block too large")

    def clear(self) -> None:
        """Forget what is held: nothing will follow."""
        self._held.clear()
        self._block = None


def unpad(payload: bytes) -> bytes:
    """Take the padding off (RFC 9113 §6.1). Raises `ConnectionFault`."""
    if not payload:
        raise ConnectionFault(FRAME_SIZE_ERROR, "a padded frame without a length of its padding")
    padding = payload[0]
    if padding >= len(payload):
        raise ConnectionFault(PROTOCOL_ERROR, "more padding than there is payload")
    return payload[1 : len(payload) - padding]


def check_dependency(payload: bytes, number: int) -> None:
    """Refuse a stream that depends on itself; otherwise there is no priority tree (RFC 9113 §5.3.2). Raises `ConnectionFault`."""
    if int.from_bytes(payload[:4], "big") & frames.LAST_STREAM == number:
        raise ConnectionFault(PROTOCOL_ERROR, "a stream that depends on itself")


def _check_shape(kind: int, number: int, size: int) -> None:
    name, on_stream, least, most = _SHAPES[kind]
    if on_stream is not None and bool(number) is not on_stream:
        raise ConnectionFault(PROTOCOL_ERROR, f"{name} on stream {number}")
    if not least <= size <= most:
        raise ConnectionFault(FRAME_SIZE_ERROR, f"{name} of {size} bytes")
