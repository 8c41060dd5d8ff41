"""A browser's request head of HTTP/2: `HeadReader` beside the h2 package's server, which decodes and checks the same block.

Blocks are as browsers and proxies send them from the second request on: fields in the table, but for a path that is spelled out. The
paths are more than are kept. `validated by h2` is hpack's decoder and h2's checks without h2's state machine.
"""

from __future__ import annotations

import itertools

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.utilities import HeaderValidationFlags, normalize_inbound_headers, validate_headers
from hpack import Decoder
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from termserver.config import Limits
from termserver.wire import h2frames as frames
from termserver.wire.h2head import HeadReader, HeadRules
from termserver.wire.hpack import encode_fields

_REGULAR = (
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"),
    (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (b"accept-language", b"en-GB,en;q=0.7,de;q=0.3"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"referer", b"https://www.example.org/articles/"),
    (b"cookie", b"sessionid=k3v9q0x7m2a8w5z1r6t4y0u3; csrftoken=Q1w2E3r4T5y6U7i8O9p0A1s2D3f4G5h6; theme=dark"),
    (b"upgrade-insecure-requests", b"1"),
    (b"sec-fetch-dest", b"document"),
    (b"sec-fetch-mode", b"navigate"),
    (b"sec-fetch-site", b"same-origin"),
)
_huffman = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


def _indexing(name: bytes, value: bytes) -> bytes:
    """Encode a field that enters the table."""
    return b"\x40" + bytes((len(name),)) + name + bytes((len(value),)) + value


def _path(target: bytes) -> bytes:
    """Encode a path that does not."""
    text = _huffman.encode(target)
    return b"\x04" + bytes((0x80 | len(text),)) + text


_TABLE = b"\x82\x87\x84" + _indexing(b":authority", b"www.example.org") + b"".join([_indexing(*field) for field in _REGULAR])
_INDEXED = bytes(range(0xBE, 0xBE + len(_REGULAR)))[::-1]  # the newest has the lowest index
_START = b"\x82\x87" + bytes((0xBE + len(_REGULAR),))
_BLOCKS = [_START + _path(b"/articles/2026/%04d/some-article?page=%d" % (n, n % 7)) + _INDEXED for n in range(2_000)]
_LISTED = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"www.example.org"), (b":path", b"/"), *_REGULAR]
_PLAIN = encode_fields(_LISTED)
_FLAGS = HeaderValidationFlags(is_client=False, is_trailer=False, is_response_header=False, is_push_promise=False)

_limits = Limits()
_reader, _reader_too = (HeadReader(HeadRules(_limits), _limits) for _ in range(2))
_rules = HeadRules(_limits)
_decoder = Decoder()
for _each in (_reader.read, _reader_too.read, _decoder.decode):
    _each(_TABLE)
_varied, _varied_too = itertools.cycle(_BLOCKS), itertools.cycle(_BLOCKS)


def _validated_by_h2(block: bytes) -> list[tuple[bytes, bytes]]:
    return list(validate_headers(normalize_inbound_headers(_decoder.decode(block, raw=True), _FLAGS), _FLAGS))


class _Server:
    """h2's server, a request at a time. A connection serves some hundred, as it keeps every stream it saw."""

    def __init__(self) -> None:
        self._left = 0
        self._stream = 1
        self._connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))

    def read(self, block: bytes) -> object:
        if not self._left:
            self._left = 500
            self._connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))
            self._connection.receive_data(frames.PREFACE + frames.settings([]) + frames.headers(1, _TABLE, ended=True))
            self._connection.reset_stream(1)
            self._stream = 1
        self._left -= 1
        self._stream += 2
        events = self._connection.receive_data(frames.headers(self._stream, block, ended=True))
        self._connection.reset_stream(self._stream)
        return events


_server = _Server()

CASES = {
    "varied paths": lambda: _reader.read(next(_varied)).request(1, ended=True),
    "one path": lambda: _reader_too.read(_BLOCKS[0]).request(1, ended=True),
    "judged, nothing decoded": lambda: _rules.judge(_LISTED),
    "a connection's first": lambda: HeadReader(_rules, _limits).read(_PLAIN),
    "varied paths, validated by h2": lambda: _validated_by_h2(next(_varied_too)),
    "one path, validated by h2": lambda: _validated_by_h2(_BLOCKS[0]),
    "a connection's first, validated by h2": lambda: list(
        validate_headers(normalize_inbound_headers(Decoder().decode(_PLAIN, raw=True), _FLAGS), _FLAGS)
    ),
    "varied paths, h2's server": lambda: _server.read(next(_varied_too)),
}
CLAIMS = (
    ("varied paths", "varied paths, validated by h2", 0.06),
    ("varied paths", "varied paths, h2's server", 0.03),
    ("varied paths", "judged, nothing decoded", 0.6),
    ("one path", "one path, validated by h2", 0.02),
    ("a connection's first", "a connection's first, validated by h2", 0.5),
)
