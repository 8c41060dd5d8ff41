"""The usual response, whole in one message: the fast path of `Http1.write` beside the long way round."""

from __future__ import annotations

from benchmarks.load.scenarios import browser
from termserver.config import Limits
from termserver.wire.head import HeadParser
from termserver.wire.http1 import Http1
from termserver.wire.response import DefaultFields

_HEAD = browser()
_HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
_DATED = [*_HEADERS, (b"date", b"Sun, 22 Nov 2026 00:00:00 GMT")]  # an own date takes the long way
_defaults = DefaultFields()
_defaults.set_date(b"Sun, 22 Nov 2026 00:00:00 GMT")
_engine = Http1(HeadParser(Limits()), Limits(), _defaults)


def _exchange(headers: list[tuple[bytes, bytes]]) -> None:
    _engine.receive(_HEAD)
    _engine.start(0, 200, headers)
    _engine.write(0, b"Hello, World!", False)
    _engine.output()


def _request_only() -> None:
    Http1(_engine_heads, Limits(), _defaults).receive(_HEAD)


_engine_heads = HeadParser(Limits())

CASES = {
    "request and whole response": lambda: _exchange(_HEADERS),
    "the long way round": lambda: _exchange(_DATED),
    "engine made, request only": _request_only,
}
CLAIMS = (("request and whole response", "the long way round", 0.95),)
