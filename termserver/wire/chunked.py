"""The chunked transfer coding, inwards (RFC 9112 §7.1). No I/O.

Three things a decoder must get right are where smugglers look: the size is 1 to 16 hexadecimal digits and nothing else, every
line ends in CRLF and holds no other CR or LF, and the data of a chunk is followed by CRLF, both bytes checked. Lines, extensions and
the trailer section are bounded across any split of the input; data is passed on as it comes, never gathered.

Rejected: llhttp for bodies. httptools hides chunk extensions and where a trailer section begins, so the limits on both would have
to be guessed from byte counts. This is the only decoder of chunks here, so there is no second opinion to disagree with.
"""

import re
from enum import Enum, auto
from typing import Final

from termserver.wire.events import Fields, HttpLimits
from termserver.wire.fieldblock import FieldBlock, RefusedError

# chunk-size [ chunk-ext ], without its CRLF. Extensions are bounded and ignored; blanks around them are "bad whitespace" (§7.1.1).
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(;[\t\x20-\x7e\x80-\xff]*)?")
_CRLF_SIZE: Final = 2


class _State(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILERS = auto()
    DONE = auto()


SIZE, DATA, DATA_END, TRAILERS, DONE = _State


class ChunkedDecoder:
    """Decodes one body. `done` says that its last byte was seen; `trailers` are what came after it."""

    __slots__ = ("_block", "_extensions", "_held", "_left", "_limits", "_state", "trailers")

    def __init__(self, limits: HttpLimits, block: FieldBlock) -> None:
        """`block` reads the trailer section."""
        self._limits = limits
        self._block = block
        self._state = SIZE
        self._left = 0
        self._extensions = 0
        self._held = bytearray()  # a line, or a trailer section, that is not whole yet
        self.trailers: Fields = []

    @property
    def done(self) -> bool:
        """Whether the body, trailer section included, is complete."""
        return self._state is DONE

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        """Give the body bytes in `data` and, once done, the bytes behind the body. Raises `RefusedError`."""
        parts: list[bytes] = []
        position = 0
        if self._held:
            data = bytes(self._held) + data
            self._held.clear()
        while position < len(data) and self._state is not DONE:
            before = position
            if self._state is DATA:
                position = self._take_data(data, position, parts)
            elif self._state is SIZE:
                position = self._take_size(data, position)
            elif self._state is DATA_END:
                position = self._take_data_end(data, position)
            else:
                position = self._take_trailers(data, position)
            if position == before:
                self._held += data[position:]
                position = len(data)
        return (parts[0] if len(parts) == 1 else b"".join(parts)), data[position:]

    def _take_data(self, data: bytes, position: int, parts: list[bytes]) -> int:
        end = min(position + self._left, len(data))
        parts.append(data[position:end])
        self._left -= end - position
        if not self._left:
            self._state = DATA_END
        return end

    def _take_size(self, data: bytes, position: int) -> int:
        end = data.find(b"\r\n", position)
        limit = self._limits.chunk_line
        if limit and (end if end >= 0 else len(data) - 1) - position > limit:
            raise RefusedError(400, f"a chunk-size line of more than {limit} bytes")
        if end < 0:
            if data.find(b"\n", position) >= 0:
                raise RefusedError(400, "a bare LF in a chunk-size line")
            return position
        match = _SIZE_LINE.fullmatch(data, position, end)
        if match is None:
            raise RefusedError(400, "malformed chunk size")
        self._count_extension(match.end() - match.end(1))
        self._left = int(match[1], 16)
        self._state = DATA if self._left else TRAILERS
        return end + _CRLF_SIZE

    def _count_extension(self, size: int) -> None:
        self._extensions += size
        limit = self._limits.chunk_extensions
        if limit and self._extensions > limit:
            raise RefusedError(400, f"more than {limit} bytes of chunk extensions")

    def _take_data_end(self, data: bytes, position: int) -> int:
        end = data[position : position + _CRLF_SIZE]
        if end == b"\r\n":
            self._state = SIZE
            return position + _CRLF_SIZE
        if end != b"\r":
            raise RefusedError(400, "chunk data is not followed by CRLF")
        return position

    def _take_trailers(self, data: bytes, position: int) -> int:
        if data.startswith(b"\r\n", position):
            self._state = DONE
            return position + _CRLF_SIZE
        end = data.find(b"\r\n\r\n", position)
        limit = self._limits.trailer_bytes
        if limit and (end if end >= 0 else len(data) - 3) - position > limit:
            raise RefusedError(431, f"more than {limit} bytes of trailer fields")
        if end < 0:
            if has_bare_line_end(data[position:]):
                raise RefusedError(400, "a bare CR or LF in the trailer section")
            return position
        self._end_with_trailers(data[position : end + 4])
        return end + 4

    def _end_with_trailers(self, section: bytes) -> None:
        self.trailers = self._block.read_trailers(section)
        limit = self._limits.trailer_count
        if limit and self._block.count > limit:
            raise RefusedError(431, f"more than {limit} trailer fields")
        self._state = DONE


def has_bare_line_end(data: bytes | bytearray) -> bool:
    """Whether `data` holds a CR or LF that is not part of CRLF; a CR as its last byte may still become one."""
    pairs = data.count(b"\r\n")
    return data.count(b"\n") != pairs or data.count(b"\r") - data.endswith(b"\r") != pairs
