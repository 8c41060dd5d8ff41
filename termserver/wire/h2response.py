"""The head of an HTTP/2 response: the application's fields checked and encoded (RFC 9113 §8.2 and §8.3.2). No I/O.

What `response.py` is to HTTP/1. Nothing enters the client's HPACK table, so an encoded field is the same bytes for everybody, and those of
a few names whose values are never secret are kept.
"""

from collections.abc import Iterable
from typing import Final

from termserver.errors import InvalidMessage
from termserver.wire.events import Fields
from termserver.wire.fields import FORBIDDEN_TRAILERS
from termserver.wire.hpack import encode_fields, encode_status
from termserver.wire.response import CONNECTION_FIELDS, REPEATED, check_field, check_fields, check_status, read_length

_MAX_FIELDS: Final = 1_024
_MAX_FIELD: Final = 256
_NO_LENGTH: Final = 204  # RFC 9110 §8.6


class ResponseEncoder:
    """Encodes the heads of a worker's responses, with their `date` and `server`; whoever owns the clock keeps `date` current."""

    __slots__ = ("_date", "_defaults", "_fields", "_heads", "_lengths", "_server", "_statuses")

    def __init__(self, server: bytes = b"termserver") -> None:
        """An empty `server` leaves the field out."""
        self._fields: dict[Iterable[bytes], bytes] = {}  # (name, value) -> encoded, checked
        self._heads: dict[tuple[object, ...], tuple[bytes, int | None]] = {}  # of kept fields only
        self._lengths: dict[Iterable[bytes], tuple[bytes, int]] = {}
        self._statuses = {status: encode_status(status) for status in range(100, 1000)}
        self._server = encode_fields([(b"server", server)]) if server else b""
        self.set_date(b"")

    def set_date(self, date: bytes) -> None:
        """Take an IMF-fixdate (RFC 9110 §5.6.7); empty leaves the field out."""
        self._date = encode_fields([(b"date", date)]) if date else b""
        self._defaults = self._date + self._server

    def encode(self, status: int, headers: Iterable[Iterable[bytes]]) -> tuple[bytes, int | None]:
        """Give the header block of a final response, and its Content-Length if there is one. Raises `InvalidMessage`."""
        # Fast path: a head that consists of kept fields only. benchmarks/micro/http2_response.py guards this.
        whole = (status, *headers) if type(headers) is list and type(status) is int else None
        if whole is not None:
            try:
                found = self._heads.get(whole)
            except TypeError:  # some pair is a list
                found = whole = None
            if found is not None:
                return found[0] + self._defaults, found[1]
        return self._encode(status, headers, whole)

    def _encode(  # noqa: C901 - one loop, one branch a kind
        self, status: int, headers: Iterable[Iterable[bytes]], whole: tuple[object, ...] | None
    ) -> tuple[bytes, int | None]:
        check_status(status)
        parts = [self._statuses[status]]
        kept = True
        known, lengths = self._fields, self._lengths
        length: int | None = None
        dates = names_server = False
        try:
            for pair in headers:
                name, value = key = pair if type(pair) is tuple else tuple(pair)
                part = known.get(key)
                if part is not None:
                    parts.append(part)
                    continue
                if length is None and status != _NO_LENGTH and key in lengths:
                    part, length = lengths[key]
                    parts.append(part)
                    continue
                kept = False
                lower = check_field(name, value)
                if lower == b"content-length":
                    length = read_length(value, length)
                    if status != _NO_LENGTH:
                        parts.append(self._keep_length(key, value, length))
                elif lower not in CONNECTION_FIELDS:  # those are HTTP/1's
                    dates |= lower == b"date"
                    names_server |= lower == b"server"
                    parts.append(self._encode_field(lower, key, value))
        except (TypeError, AttributeError, ValueError) as error:
            if isinstance(error, InvalidMessage):
                raise
            message = f"headers are pairs of byte strings: {error}"
            raise InvalidMessage(message) from error
        block = b"".join(parts)
        if dates or names_server:
            return block + (b"" if dates else self._date) + (b"" if names_server else self._server), length
        if kept and whole is not None:
            self._keep_head(whole, block, length)
        return block + self._defaults, length

    def _keep_head(self, whole: tuple[object, ...], block: bytes, length: int | None) -> None:
        if len(self._heads) >= _MAX_FIELDS:
            self._heads.clear()
        self._heads[whole] = (block, length)

    def _encode_field(self, lower: bytes, key: tuple[bytes, ...], value: bytes) -> bytes:
        part = encode_fields([(lower, value.strip(b" \t"))])
        if lower in REPEATED and len(part) <= _MAX_FIELD:
            if len(self._fields) >= _MAX_FIELDS:
                self._fields.clear()
            self._fields[key] = part
        return part

    def _keep_length(self, key: tuple[bytes, ...], value: bytes, length: int) -> bytes:
        part = encode_fields([(b"content-length", value)])
        if len(self._lengths) >= _MAX_FIELDS:
            self._lengths.clear()
        self._lengths[key] = (part, length)
        return part

    def encode_length(self, length: int) -> bytes:
        """Encode a Content-Length that the application left to us."""
        return encode_fields([(b"content-length", b"%d" % length)])

    def encode_plain(self, status: int, fields: Fields, *, defaults: bool = True) -> bytes:
        """Encode a head of the server's own, or an interim one: fields that are right already, in lower case."""
        return self._statuses[status] + encode_fields(fields) + (self._defaults if defaults else b"")

    def encode_upgrade(self, fields: Fields) -> bytes:
        """Encode the head that opens a tunnel: 200, with the application's fields (RFC 8441 §5)."""
        lowered = [(name.lower(), value.strip(b" \t")) for name, value in fields]
        said = {name for name, _ in lowered}
        date = b"" if b"date" in said else self._date
        server = b"" if b"server" in said else self._server
        return self._statuses[200] + encode_fields(lowered) + date + server

    def encode_interim(self, status: int, headers: Iterable[Iterable[bytes]]) -> bytes:
        """Encode a 1xx response. Raises `InvalidMessage`."""
        fields = [(lower, value.strip(b" \t")) for lower, _, value in check_fields(headers) if lower not in CONNECTION_FIELDS]
        return self._statuses[status] + encode_fields(fields)

    def encode_trailers(self, headers: Iterable[Iterable[bytes]]) -> bytes:
        """Encode trailer fields. Raises `InvalidMessage`."""
        fields = []
        for lower, name, value in check_fields(headers):
            if lower in FORBIDDEN_TRAILERS:  # RFC 9110 §6.5.1: what frames, routes or steers comes before the content
                raise InvalidMessage(f"no trailer section may hold {name!r}")
            fields.append((lower, value.strip(b" \t")))
        return encode_fields(fields)
