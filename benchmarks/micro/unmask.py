"""Unmasking: two integers for short payloads, autobahn's C function in a kept buffer for long ones, against autobahn's own wrapper."""

from __future__ import annotations

import os

from autobahn.websocket.xormasker import create_xor_masker

from termserver.wire.masking import Unmasker

_MASK = b"\x37\xfa\x21\x3d"
_SHORT, _MIDDLE, _LONG = (bytes(6) + os.urandom(size) for size in (64, 512, 16_384))
_unmask = Unmasker().unmask


def _by_integer(data: bytes, start: int, end: int, mask: bytes) -> bytes:
    size = end - start
    key = (mask * ((size >> 2) + 1))[:size]
    return (int.from_bytes(data[start:end], "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


CASES = {
    "64 B": lambda: _unmask(_SHORT, 6, 70, _MASK),
    "64 B, autobahn's wrapper": lambda: create_xor_masker(_MASK, 64).process(_SHORT[6:]),
    "512 B": lambda: _unmask(_MIDDLE, 6, 518, _MASK),
    "512 B, two integers": lambda: _by_integer(_MIDDLE, 6, 518, _MASK),
    "512 B, autobahn's wrapper": lambda: create_xor_masker(_MASK, 512).process(_MIDDLE[6:]),
    "16 KiB": lambda: _unmask(_LONG, 6, 16_390, _MASK),
    "16 KiB, two integers": lambda: _by_integer(_LONG, 6, 16_390, _MASK),
    "16 KiB, autobahn's wrapper": lambda: create_xor_masker(_MASK, 16_384).process(_LONG[6:]),
}
CLAIMS = (
    ("64 B", "64 B, autobahn's wrapper", 0.4),
    ("512 B", "512 B, two integers", 1.0),
    ("512 B", "512 B, autobahn's wrapper", 0.6),
    ("16 KiB", "16 KiB, two integers", 0.2),
    ("16 KiB", "16 KiB, autobahn's wrapper", 0.8),
)
