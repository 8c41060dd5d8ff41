"""A request head that comes in pieces (RFC 9112 §2.2). No I/O.

Each byte is looked at once or twice, however small the pieces are. What can never become an acceptable head is refused before it is
whole: a bare CR or LF, a line that is too long, a first byte that begins no method (TLS on a plain port).
"""

from typing import Final

from termserver.wire.chunked import has_bare_line_end
from termserver.wire.fieldblock import RefusedError
from termserver.wire.head import HeadParser

_CR: Final = 0x0D
_LF: Final = 0x0A
_OVERLAP: Final = 3  # bytes of a blank line that may have come before


class PartialHead:
    """Gathers one head."""

    __slots__ = ("_data", "_heads", "_skipped")

    def __init__(self, heads: HeadParser) -> None:
        """`heads` knows the limits."""
        self._heads = heads
        self._data = bytearray()
        self._skipped = False  # an empty line came ahead

    def add(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Take bytes; once the head is whole, give it and what came behind it. Raises `RefusedError`."""
        gathered = self._data
        start = max(0, len(gathered) - _OVERLAP)
        gathered += data
        if gathered[0] == _CR:
            start = 0
            self._skip_empty_line()
        end = gathered.find(b"\r\n\r\n", start)
        if end > 0:
            return bytes(gathered[: end + 4]), bytes(gathered[end + 4 :])
        if start and gathered[start] == _LF:
            start += 1  # the CR it belongs to was seen before
        if has_bare_line_end(gathered[start:]):
            raise RefusedError(400, "a bare CR or LF in the head")
        if gathered and gathered[0] != _CR:  # else the LF of an empty line is still to come
            self._heads.check_partial(gathered)
        return None

    def _skip_empty_line(self) -> None:
        """Ignore one empty line ahead of a request (spec limits L7)."""
        gathered = self._data
        if self._skipped or gathered.startswith(b"\r\n\r"):
            raise RefusedError(400, "more than one empty line ahead of a request")
        if gathered.startswith(b"\r\n"):
            self._skipped = True
            del gathered[:2]
