"""The usual response of HTTP/2, head and body in one: `ResponseEncoder` and `Sender.send_whole` beside hpack, and beside the h2 package.

h2 validates and normalizes what it is given, as we do. A response is a framework's, with a length of its own each time where it says so.
"""

from __future__ import annotations

import itertools

from h2.config import H2Configuration
from h2.connection import H2Connection
from hpack import Encoder

from termserver.config import Limits
from termserver.wire import h2frames as frames
from termserver.wire.h2head import HeadRules
from termserver.wire.h2response import ResponseEncoder
from termserver.wire.http2 import Http2, Http2Terms

_DATE = b"Sun, 22 Nov 2026 00:00:00 GMT"
_HEADERS = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-length", b"13"),
    (b"vary", b"Cookie, Accept-Language"),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
]
_COMPLETE = [(b":status", b"200"), *_HEADERS, (b"date", _DATE), (b"server", b"termserver")]
_BODY = b"Hello, World!"
_SECRETS = itertools.cycle([[*_HEADERS, (b"set-cookie", b"csrftoken=%032d; Path=/; Secure" % number)] for number in range(5_000)])
_SECRETS_TOO = itertools.cycle([[*_COMPLETE, (b"set-cookie", b"csrftoken=%032d; Path=/; Secure" % number)] for number in range(5_000)])

_encoder = ResponseEncoder()
_encoder.set_date(_DATE)
_hpack = Encoder()
_GET = b"\x82\x87\x84\x01\x01a"
_HELLO = frames.PREFACE + frames.settings([])
_REQUESTS = 500


class _Ours:
    """Our engine, a request at a time; `whole` says whether its body comes with the end, or before it."""

    def __init__(self) -> None:
        self._left = 0
        self._stream = 0
        self._terms = Http2Terms(Limits(http2_window_updates=0), HeadRules(Limits()), _encoder)
        self._engine = Http2(self._terms)

    def serve(self, *, whole: bool) -> bytes:
        if not self._left:
            self._left, self._stream = _REQUESTS, -1
            self._engine = Http2(self._terms)
            self._engine.receive(_HELLO, 0.0)
        self._left -= 1
        self._stream += 2
        engine = self._engine
        engine.receive(frames.headers(self._stream, _GET, ended=True), 0.0)
        engine.start(self._stream, 200, _HEADERS)
        if whole:
            engine.write(self._stream, _BODY, False)
        else:
            engine.write(self._stream, _BODY, True)
            engine.write(self._stream, b"", False)
        engine.calls -= 1
        return engine.output()


class _H2:
    """The h2 package's, doing the same."""

    def __init__(self) -> None:
        self._left = 0
        self._stream = 0
        self._connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))

    def serve(self) -> bytes:
        if not self._left:
            self._left, self._stream = _REQUESTS, -1
            self._connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))
            self._connection.receive_data(_HELLO)
        self._left -= 1
        self._stream += 2
        connection = self._connection
        connection.receive_data(frames.headers(self._stream, _GET, ended=True))
        connection.send_headers(self._stream, _COMPLETE)
        connection.send_data(self._stream, _BODY, end_stream=True)
        sent: bytes = connection.data_to_send()
        return sent


_ours, _ours_in_parts, _h2 = _Ours(), _Ours(), _H2()

CASES = {
    "head, kept": lambda: _encoder.encode(200, _HEADERS),
    "head, one field new": lambda: _encoder.encode(200, next(_SECRETS)),
    "head, hpack": lambda: _hpack.encode(_COMPLETE),
    "head, one field new, hpack": lambda: _hpack.encode(next(_SECRETS_TOO)),
    "request and whole response": lambda: _ours.serve(whole=True),
    "request and response in parts": lambda: _ours_in_parts.serve(whole=False),
    "request and whole response, h2": _h2.serve,
}
CLAIMS = (
    ("head, kept", "head, hpack", 0.05),
    ("head, kept", "head, one field new", 0.15),
    ("head, one field new", "head, one field new, hpack", 0.15),
    ("request and whole response", "request and response in parts", 0.93),
    ("request and whole response", "request and whole response, h2", 0.07),
)
