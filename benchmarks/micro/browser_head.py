"""What httptools takes for the head of a browser: the floor under every HTTP/1.1 request, and what each callback adds to it."""

from __future__ import annotations

import httptools

from benchmarks.load.scenarios import browser

_HEAD = browser()


class _Deaf:
    """No callback at all."""


class _Collecting:
    """What a server needs at least: the target and the fields."""

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []

    def on_message_begin(self) -> None:
        self.fields = []

    def on_url(self, target: bytes) -> None:
        self.target = target

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value))


def _fresh_parser() -> None:
    httptools.HttpRequestParser(_Collecting()).feed_data(_HEAD)


_deaf = httptools.HttpRequestParser(_Deaf())
_collecting = httptools.HttpRequestParser(_Collecting())

CASES = {
    "no callbacks": lambda: _deaf.feed_data(_HEAD),
    "target and fields": lambda: _collecting.feed_data(_HEAD),
    "a parser for every request": _fresh_parser,
}
CLAIMS = (("target and fields", "a parser for every request", 1.0),)
