"""Header compression for HTTP/2 (RFC 7541), server side. No I/O.

Inwards, `HeaderDecoder` is a loop of our own over the hpack package's table and Huffman code. Strings that had to be Huffman-decoded, which
is four fifths of the work, are remembered. It says whether a block changed the table: one that did not means the same when it comes again,
until another one does (`fieldlist.py` makes use of that). What a block may cost is bounded before it is spent: integers in length, the
header list in bytes and fields.

Outwards nothing is ever put into the table: fields are literals whose names the static table has, so an encoded field is the same bytes
for every connection, and `h2response.py` keeps those that come again. The table of the peer's decoder is declared empty once, which no
setting of the peer's can contradict (RFC 7541 §4.2). benchmarks/micro/header_block.py guards both.
"""

from collections.abc import Iterable
from typing import Final

from hpack.exceptions import HPACKError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from termserver.wire.events import Fields
from termserver.wire.fields import REPEATED

TABLE_SIZE: Final = 4_096  # bytes of the table that a client may use: RFC 9113's initial value, and ours

_STATIC: Final = HeaderTable.STATIC_TABLE
_STATIC_LENGTH: Final = HeaderTable.STATIC_TABLE_LENGTH
_NAME_INDEX: Final = {name: index for index, (name, _) in reversed(list(enumerate(_STATIC, 1)))}
_STATUS_INDEX: Final = {value: index for index, (name, value) in enumerate(_STATIC, 1) if name == b":status"}

# What a field begins with (RFC 7541 §6): the bits that say so, and those of the integer behind them.
_INDEXED, _INDEXED_BITS = 0x80, 0x7F
_INDEXING, _INDEXING_BITS = 0x40, 0x3F
_RESIZE, _RESIZE_BITS = 0x20, 0x1F
_LITERAL_BITS: Final = 0x0F
_HUFFMAN, _STRING_BITS = 0x80, 0x7F

_MOST_RESIZES: Final = 2  # at the beginning of a block: RFC 7541 §4.2 has no use for more
_LARGEST_SHIFT: Final = 28  # an integer of more than five bytes is none that we can use (CVE-2026-59980)
_NEVER_INDEXED: Final = 0x10
_PUBLIC: Final = REPEATED | {b":path", b":authority", b":method", b":scheme"}  # fields whose values many share, and none is a secret
_NO_FIELDS: Final[Fields] = []
_PSEUDO: Final = 5  # fields that come first, at most
_KEPT_STRINGS: Final = 4_096
_KEPT_STRING_SIZE: Final = 128
_PATIENCE: Final = 4  # a list this many times over its limits is an attack, not a mistake (spec limits L4)

_ENTRY_OVERHEAD: Final = 32  # bytes that an entry counts beside its strings (RFC 7541 §4.1)
_NO_LIMIT: Final = 1 << 62

EMPTY_TABLE: Final = b"\x20"  # a size update to 0, the first thing an encoder of ours says


class CompressionError(Exception):
    """A block that cannot be decoded: the connection is of no more use (RFC 9113 §4.3)."""


class ListTooLargeError(Exception):
    """A block that stands for so much more than it may that it has to be an attack."""


class HeaderDecoder:
    """The decoder of one connection. `max_size` bytes (RFC 7541 §4.1, 32 more a field) and `max_count` fields; 0 = no limit."""

    __slots__ = ("_max_count", "_max_size", "_strings", "_table", "changed", "head", "room")

    def __init__(self, max_size: int, max_count: int, strings: dict[bytes, bytes] | None = None) -> None:
        """Begin with an empty table. `strings` are decoded ones that are remembered: what they mean depends on no connection."""
        self._max_size = max_size or _NO_LIMIT
        self._max_count = max_count or _NO_LIMIT
        self._table = HeaderTable()
        self._strings = {} if strings is None else strings
        self.room = 0  # bytes that the last list might have had more
        self.head = _NO_FIELDS  # of a list that was too large: its first fields
        self.changed = False  # whether the last block changed the table, or may have

    def decode(self, block: bytes) -> Fields | None:
        """Give the fields of a block, None where they are over a limit. Raises `CompressionError`, `ListTooLargeError`.

        A block over a limit is decoded all the same, because the table has to be what the client thinks it is.
        """
        self.changed = True
        try:
            fields, self.changed = self._decode(block)
        except (HPACKError, IndexError) as error:  # IndexError: the block ends in the middle of a field
            raise CompressionError(str(error) or "a truncated header block") from error
        return fields

    def _decode(self, block: bytes) -> tuple[Fields | None, bool]:
        """Decode; say whether the table changed as well."""
        table = self._table
        fields: Fields = []
        position, end, size, changed, count, resizes = 0, len(block), 0, False, 0, 0
        while position < end:
            first = block[position]
            if first & _INDEXED:
                index, position = first & _INDEXED_BITS, position + 1
                if index == _INDEXED_BITS:
                    index, position = _read_integer(block, position, index)
                field = _STATIC[index - 1] if 0 < index <= _STATIC_LENGTH else table.get_by_index(index)
            elif first & _INDEXING:
                field, position = self._read_literal(block, position, first & _INDEXING_BITS, _INDEXING_BITS)
                table.add(*field)
                changed = True
            elif first & _RESIZE:
                resizes += 1
                position = self._resize(block, position, allowed=not count and resizes <= _MOST_RESIZES)
                changed = True
                continue
            else:
                field, position = self._read_literal(
                    block, position, first & _LITERAL_BITS, _LITERAL_BITS, secret=bool(first & _NEVER_INDEXED)
                )
            count += 1
            size += len(field[0]) + len(field[1]) + _ENTRY_OVERHEAD
            if size <= self._max_size and count <= self._max_count:
                fields.append(field)
            elif size > self._max_size * _PATIENCE or count > self._max_count * _PATIENCE:
                raise ListTooLargeError
        self.room = self._max_size - size
        self.head = fields[:_PSEUDO] if len(fields) < count else _NO_FIELDS
        return fields if len(fields) == count else None, changed

    def _read_literal(self, block: bytes, position: int, index: int, bits: int, *, secret: bool = False) -> tuple[tuple[bytes, bytes], int]:
        """Read a field whose name may stand in a table, and whose value stands here (RFC 7541 §6.2)."""
        position += 1
        if index == bits:
            index, position = _read_integer(block, position, index)
        if index:
            name = _STATIC[index - 1][0] if index <= _STATIC_LENGTH else self._table.get_by_index(index)[0]
        else:
            name, position = self._read_string(block, position, public=True)
        value, position = self._read_string(block, position, public=name in _PUBLIC and not secret)
        return (name, value), position

    def read_path(self, block: bytes, position: int) -> tuple[bytes, int]:
        """Read the string at a position, as `decode` would; give where it ends. Raises `CompressionError`."""
        try:
            return self._read_string(block, position, public=True)
        except (HPACKError, IndexError) as error:
            raise CompressionError(str(error) or "a truncated header block") from error

    def _read_string(self, block: bytes, position: int, *, public: bool) -> tuple[bytes, int]:
        """Read a string (RFC 7541 §5.2). Only a public one is remembered: how long another takes would tell whether somebody sent it."""
        first, start = block[position], position + 1
        length = first & _STRING_BITS
        if length == _STRING_BITS:
            length, start = _read_integer(block, start, length)
        end = start + length
        if end > len(block):
            raise CompressionError("a string that is longer than its header block")
        text = block[start:end]
        if not first & _HUFFMAN:
            return text, end
        plain = self._strings.get(text) if public else None
        if plain is None:
            plain = decode_huffman(text)
            if public and length <= _KEPT_STRING_SIZE:
                if len(self._strings) >= _KEPT_STRINGS:
                    self._strings.clear()
                self._strings[text] = plain
        return plain, end

    def _resize(self, block: bytes, position: int, *, allowed: bool) -> int:
        """Take a new size of the table, which only a block may begin with (RFC 7541 §4.2)."""
        size, position = block[position] & _RESIZE_BITS, position + 1
        if size == _RESIZE_BITS:
            size, position = _read_integer(block, position, size)
        if not allowed or size > TABLE_SIZE:
            raise CompressionError("a size update of the table that is too large, one too many, or not at the beginning")
        self._table.maxsize = size
        return position


def _read_integer(block: bytes, position: int, value: int) -> tuple[int, int]:
    """Read the rest of an integer that did not fit into its prefix (RFC 7541 §5.1)."""
    shift = 0
    while True:
        byte, position = block[position], position + 1
        value += (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position
        shift += 7
        if shift > _LARGEST_SHIFT:
            raise CompressionError("an integer of more than five bytes")


def encode_status(status: int) -> bytes:
    """Encode `:status`."""
    value = b"%d" % status
    index = _STATUS_INDEX.get(value)
    return bytes((_INDEXED | index,)) if index is not None else b"\x08\x03" + value


def encode_fields(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Encode fields whose names are in lower case."""
    return b"".join([_encode_literal(name, value) for name, value in fields])


def _encode_literal(name: bytes, value: bytes) -> bytes:
    """Write a field without indexing it (RFC 7541 §6.2.2), its name from the static table if it is there."""
    index = _NAME_INDEX.get(name, 0)
    head = _write_integer(index, _LITERAL_BITS, 0)
    if not index:
        head += _write_integer(len(name), _STRING_BITS, 0) + name
    return head + _write_integer(len(value), _STRING_BITS, 0) + value


def _write_integer(value: int, largest: int, flags: int) -> bytes:
    """Write an integer behind its prefix (RFC 7541 §5.1)."""
    if value < largest:
        return bytes((flags | value,))
    out, value = bytearray((flags | largest,)), value - largest
    while value >= 0x80:  # noqa: PLR2004 - seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
