"""A browser's head through `HeadParser`: the known block, the kept lines, and a callback a line as it was before them."""

from __future__ import annotations

import itertools

import httptools

from benchmarks.load.scenarios import browser
from termserver.config import Limits
from termserver.wire.fieldblock import FieldBlock, Underscores
from termserver.wire.head import HeadParser

_HEAD = browser()
_VARIED = itertools.cycle(
    [_HEAD.replace(b"Accept-Language: ", b"X-Request-Id: %05d\r\nAccept-Language: " % number) for number in range(2_000)]
)
_heads = HeadParser(Limits())
_fields = FieldBlock(Underscores.DROP)


class _Callbacks:
    """A callback a line, with the least that each has to do."""

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.hosts = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"host":
            self.hosts += 1
        elif name in {b"connection", b"content-length", b"transfer-encoding", b"upgrade", b"expect", b"te"}:
            value = value.strip(b" \t")
        elif b"_" in name:
            return
        self.fields.append((name, value))


_callbacks = _Callbacks()
_parser = httptools.HttpRequestParser(_callbacks)


def _with_callbacks() -> None:
    _callbacks.fields = []
    _parser.feed_data(_HEAD)


CASES = {
    "known block": lambda: _heads.parse(_HEAD),
    "new block": lambda: _heads.parse(next(_VARIED)),
    "fields, lines kept": lambda: _fields.read(_HEAD, "1.1"),
    "fields, a callback a line": _with_callbacks,
}
CLAIMS = (("known block", "new block", 0.5), ("fields, lines kept", "fields, a callback a line", 1.0))
