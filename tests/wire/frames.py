"""WebSocket frames as a client makes them and reads the server's (RFC 6455 §5.2; RFC 7692 §7.2). Knows nothing of the engine."""

import struct
import zlib
from itertools import cycle
from operator import xor
from typing import NamedTuple

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
RSV1, RSV2, RSV3 = 4, 2, 1
MASK = b"\x37\xfa\x21\x3d"  # of the examples in RFC 6455 §5.7
TAIL = b"\x00\x00\xff\xff"


def masked(payload: bytes, mask: bytes = MASK) -> bytes:
    """Mask, or unmask (RFC 6455 §5.3)."""
    return bytes(map(xor, payload, cycle(mask)))


def head(opcode: int, length: int, *, fin: bool = True, rsv: int = 0, mask: bytes | None = MASK, width: int | None = None) -> bytes:
    """Build a frame's header. `width`: bytes of extended length, 0, 2 or 8; None is the right one."""
    if width is None:
        width = 0 if length < 126 else 2 if length < 65_536 else 8
    code = {0: length, 2: 126, 8: 127}[width]
    extended = length.to_bytes(width, "big") if width else b""
    return bytes((fin << 7 | rsv << 4 | opcode, (mask is not None) << 7 | code)) + extended + (mask or b"")


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = MASK, width: int | None = None
) -> bytes:
    """Build a frame."""
    return head(opcode, len(payload), fin=fin, rsv=rsv, mask=mask, width=width) + (masked(payload, mask) if mask else payload)


def close(code: int | None = None, reason: bytes = b"") -> bytes:
    """Build a Close frame."""
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def fragments(opcode: int, parts: list[bytes], *, rsv: int = 0) -> list[bytes]:
    """Build the frames of one message."""
    last = len(parts) - 1
    return [frame(opcode if not i else CONT, part, fin=i == last, rsv=0 if i else rsv) for i, part in enumerate(parts)]


def in_parts(data: bytes, size: int) -> list[bytes]:
    """Cut into parts of `size` bytes; what is empty is one empty part."""
    return [data[i : i + size] for i in range(0, len(data), size)] or [b""]


def deflated(data: bytes, *, bits: int = 15, level: int = 6) -> bytes:
    """Compress a message (RFC 7692 §7.2.1)."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -bits)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)


def inflated(data: bytes, *, bits: int = 15) -> bytes:
    """Decompress a message with a window of so many bits, nothing known from before (RFC 7692 §7.2.2)."""
    decompressor = zlib.decompressobj(-bits)
    result = decompressor.decompress(data + TAIL)
    _must(not (decompressor.unused_data or decompressor.unconsumed_tail), "DEFLATE data to the end")
    return result


class Sent(NamedTuple):
    """A frame of the server's."""

    opcode: int
    payload: bytes
    compressed: bool = False

    @property
    def code(self) -> int:
        """The code of a Close frame."""
        _must(self.opcode == CLOSE, "a Close frame")
        return int.from_bytes(self.payload[:2], "big")


def read_frames(data: bytes) -> list[Sent]:
    """Read what a server sent: whole frames, final, unmasked, their lengths in the shortest form. Raises `AssertionError` for others."""
    found = []
    while data:
        first, length = data[0], data[1]
        _must(bool(first & 0x80), "FIN")
        _must(not first & 0x30, "no RSV2, no RSV3")
        _must(length < 0x80, "no mask")
        start = 2
        if length >= 126:
            start = 4 if length == 126 else 10
            length = int.from_bytes(data[2:start], "big")
            _must(length >= (126 if start == 4 else 65_536), "the shortest length")
        _must(len(data) >= start + length, "a whole frame")
        opcode = first & 0xF
        _must(opcode in {TEXT, BINARY} or (opcode in {CLOSE, PING, PONG} and length <= 125 and not first & 0x40), "a right frame")
        found.append(Sent(opcode, data[start : start + length], bool(first & 0x40)))
        data = data[start + length :]
    return found


def _must(right: bool, what: str) -> None:
    if not right:  # `assert` would be gone under -O
        message = f"expected {what}"
        raise AssertionError(message)
