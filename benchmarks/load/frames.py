"""WebSocket frames as the load generators send and expect them (RFC 6455 §5). No I/O.

Every message is one frame: no server known fragments what the scenarios ask for, and one that did would be reported as wrong.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
KEY, ACCEPT = b"dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # the example of §1.3 and its answer

_FINAL, _COMPRESSED, _OPCODE = 0x80, 0x40, 0x0F
_MASKED, _TWO_BYTES, _EIGHT_BYTES = 0x80, 126, 127
_FLUSHED = b"\x00\x00\xff\xff"  # the end of a flushed block, which RFC 7692 §7.2.1 takes off


class Wrong(Exception):
    """The server did not say what it should have."""


class Frame(NamedTuple):
    """A frame that was received."""

    opcode: int
    compressed: bool
    payload: bytes


def _head(first: int, length: int, mask_bit: int) -> bytes:
    if length < _TWO_BYTES:
        return bytes((first, mask_bit | length))
    if length < 1 << 16:
        return bytes((first, mask_bit | _TWO_BYTES)) + length.to_bytes(2, "big")
    return bytes((first, mask_bit | _EIGHT_BYTES)) + length.to_bytes(8, "big")


def server_frame(opcode: int, payload: bytes) -> bytes:
    """Answer a whole uncompressed message as a server sends it."""
    return _head(_FINAL | opcode, len(payload), 0) + payload


def client_frame(opcode: int, payload: bytes, mask: bytes, *, compressed: bool = False) -> bytes:
    """Answer a whole message as a client sends it: `payload` masked with the four bytes of `mask`."""
    length = len(payload)
    key = (mask * (length // 4 + 1))[:length]
    masked = (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(length, "little")
    return _head(_FINAL | (_COMPRESSED if compressed else 0) | opcode, length, _MASKED) + mask + masked


def split(data: bytes) -> tuple[list[Frame], bytes]:
    """Answer the whole frames that a server's bytes begin with, and the rest. Raises Wrong."""
    frames: list[Frame] = []
    while len(data) >= 2:
        first, length = data[0], data[1]
        if length & _MASKED or not first & _FINAL:
            message = f"expected whole unmasked messages, got a frame that begins {data[:2].hex()}"
            raise Wrong(message)
        start = 2 + {_TWO_BYTES: 2, _EIGHT_BYTES: 8}.get(length, 0)
        if start > 2:
            length = int.from_bytes(data[2:start], "big")
        if len(data) < start + length:
            break
        frames.append(Frame(first & _OPCODE, bool(first & _COMPRESSED), data[start : start + length]))
        data = data[start + length :]
    return frames, data


def deflated(payload: bytes) -> bytes:
    """Compress one message (RFC 7692 §7.2.1) with the smallest window, which is right whatever window was agreed on."""
    compressor = zlib.compressobj(wbits=-9)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(_FLUSHED)


def inflated(payload: bytes) -> bytes:
    """Decompress the first message of a connection."""
    return zlib.decompressobj(wbits=-15).decompress(payload + _FLUSHED)
