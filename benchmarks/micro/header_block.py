"""Header blocks of HTTP/2: `HeaderDecoder` and `encode_fields` against hpack's own, whose table and Huffman code the former uses.

A request is a browser's from its second on: 13 fields in the table, and a path of 32 bytes in Huffman's code that is not indexed. The
paths are more than are kept. A response is a framework's: hpack's encoder has its fields in the table, ours writes them out.
"""

from __future__ import annotations

import itertools

from hpack import Decoder, Encoder

from termserver.wire.hpack import HeaderDecoder, encode_fields, encode_status

_FIELDS = (
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"www.example.org"),
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
_RESPONSE = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-length", b"14257"),
    (b"vary", b"Cookie, Accept-Language"),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"date", b"Sun, 22 Nov 2026 00:00:00 GMT"),
    (b"server", b"termserver"),
)
_WITH_STATUS = ((b":status", b"200"), *_RESPONSE)

_browser = Encoder()
_FIRST = _browser.encode(_FIELDS)
_BLOCKS = [_browser.encode([(b":path", b"/articles/2026/%04d/some-article?page=%d" % (n, n % 7), True), *_FIELDS]) for n in range(2_000)]
_varied, _varied_too = itertools.cycle(_BLOCKS), itertools.cycle(_BLOCKS)
_decoder, _decoder_of_hpack = HeaderDecoder(32_768, 100), Decoder()
_decoder.decode(_FIRST)
_decoder_of_hpack.decode(_FIRST, raw=True)
_encoder_of_hpack = Encoder()


CASES = {
    "request, varied paths": lambda: _decoder.decode(next(_varied)),
    "request, varied paths, hpack": lambda: _decoder_of_hpack.decode(next(_varied_too), raw=True),
    "request, one path": lambda: _decoder.decode(_BLOCKS[0]),
    "request, one path, hpack": lambda: _decoder_of_hpack.decode(_BLOCKS[0], raw=True),
    "a connection's first": lambda: HeaderDecoder(32_768, 100).decode(_FIRST),
    "a connection's first, hpack": lambda: Decoder().decode(_FIRST, raw=True),
    "response": lambda: encode_status(200) + encode_fields(_RESPONSE),
    "response, hpack": lambda: _encoder_of_hpack.encode(_WITH_STATUS),
}
CLAIMS = (
    ("request, varied paths", "request, varied paths, hpack", 0.5),
    ("request, one path", "request, one path, hpack", 0.3),
    ("a connection's first", "a connection's first, hpack", 1.0),
    ("response", "response, hpack", 0.2),
)
