"""Message compression: DEFLATE as permessage-deflate wants it (RFC 7692 §7.2), with nothing kept between messages. No I/O.

Both directions were negotiated without context takeover, so every message stands alone. Outwards one compressor for each window size
serves all connections of a worker: a full flush ends a message on a byte and forgets what came before. The last message made is remembered,
because what is said to a whole room is the same bytes again and again. Inwards a decompressor is made for each message, when the message is
here whole: a window holds other people's data, and one that waits for the rest of a message would let a few bytes pin 44 KiB.
"""

import zlib
from typing import Final, Protocol

_TAIL: Final = b"\x00\x00\xff\xff"  # what a flush ends with, and a sender leaves out (RFC 7692 §7.2.1)
_END: Final = b"\x03\x00"  # a final block with nothing in it: a stream that reads it is whole
_EMPTY: Final = b"\x00"  # the only way to say nothing (RFC 7692 §7.2.3.6), for those who say less
_REST: Final = frozenset({b"", _TAIL + _END, b"\x00" + _TAIL + _END})  # what is left behind a final block (RFC 7692 §7.2.3.4)
_LEVEL: Final = 4  # the cheapest level that looks for better matches: half of level 6's time for some 7 % more bytes
_RATIO_FREE: Final = 65_536  # bytes that may come of any message, whatever the ratio
_KEPT_SIZE: Final = 1 << 20


class InflateError(Exception):
    """A message that is no DEFLATE stream."""


class TooLargeError(Exception):
    """A message that would be larger than it may be."""


class Compressor(Protocol):
    """What `zlib.compressobj` gives."""

    def compress(self, data: bytes, /) -> bytes:
        """Take data, give what is ready."""

    def flush(self, mode: int = ..., /) -> bytes:
        """Give the rest."""


class Deflater:
    """The compressors of one worker."""

    __slots__ = ("_compressors", "_last", "_last_result")

    def __init__(self) -> None:
        """Make none yet: they are made on first use."""
        self._compressors: dict[int, Compressor] = {}
        self._last: tuple[int, bytes] | None = None
        self._last_result = b""

    def deflate(self, data: bytes, window_bits: int) -> bytes:
        """Compress a message for a window of 2**9 to 2**15 bytes."""
        if self._last == (window_bits, data):
            return self._last_result
        compressor = self._compressors.get(window_bits)
        if compressor is None:
            compressor = self._compressors[window_bits] = zlib.compressobj(_LEVEL, zlib.DEFLATED, -window_bits)
        result = (compressor.compress(data) + compressor.flush(zlib.Z_FULL_FLUSH))[: -len(_TAIL)]
        if len(data) <= _KEPT_SIZE:
            self._last, self._last_result = (window_bits, data), result
        return result


def inflate(data: bytes | bytearray, limit: int, ratio: int) -> bytes:
    """Decompress a message to at most `limit` bytes, and over 64 KiB to at most `ratio` times its size; 0 turns either off.

    Raises `TooLargeError` before more than that is made, `InflateError` for what is no DEFLATE stream.
    """
    most = limit
    if ratio:
        by_ratio = max(_RATIO_FREE, ratio * len(data))
        most = min(most, by_ratio) if most else by_ratio
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        # Trap: 0 is no limit to zlib, and at a limit reached exactly it leaves input unread that holds no more output.
        result = decompressor.decompress((bytes(data) or _EMPTY) + _TAIL + _END, most + 1 if most else 0)
    except zlib.error as error:
        raise InflateError(str(error)) from None
    if most and len(result) > most:
        raise TooLargeError
    if not decompressor.eof or decompressor.unused_data not in _REST:  # a stream that was cut would take the end for data
        raise InflateError("a stream that is not whole")
    return result
