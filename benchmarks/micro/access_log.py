"""An access line: what compiling the format saves against gunicorn's way, and what each format costs.

`a dict of atoms` is what a format interpreted for every line takes: every atom made, then `%` over the dict.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from itertools import cycle

from termserver.observe.access import AccessLog, escape
from termserver.observe.sink import LineSink

_CLIENT = ("203.0.113.7", 54321)
_COMMON = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s %(L)s'


@dataclass(slots=True)
class _Request:
    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    version: str


_HEADERS = [
    (b"host", b"www.example.com"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"),
    (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (b"accept-language", b"en-GB,en;q=0.9"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"referer", b"https://www.example.com/start"),
    (b"connection", b"keep-alive"),
    (b"upgrade-insecure-requests", b"1"),
    (b"sec-fetch-dest", b"document"),
    (b"sec-fetch-mode", b"navigate"),
    (b"sec-fetch-site", b"same-origin"),
    (b"priority", b"u=0, i"),
]
_SAME = _Request("GET", b"/articles/2026/11?page=2&order=newest", _HEADERS, "1.1")
_MANY = cycle([_Request("GET", b"/articles/%d?page=2&order=newest" % number, _HEADERS, "1.1") for number in range(5_000)])


class _Nowhere(LineSink):
    """The log without its sink: other tests measure the system."""

    def __init__(self) -> None:
        """Open nothing."""

    def write(self, lines: list[str] | str) -> None:
        """Forget `lines`."""


def _dict_of_atoms(request: _Request, client: tuple[str, int], status: int, size: int, seconds: float) -> str:
    headers = {f"{{{name.decode()}}}i": value.decode("latin-1") for name, value in request.headers}
    path, _, query = request.target.partition(b"?")
    atoms = {
        "h": client[0],
        "l": "-",
        "u": "-",
        "t": time.strftime("[%d/%b/%Y:%H:%M:%S %z]"),
        "r": f"{request.method} {escape(request.target)} HTTP/{request.version}",
        "s": status,
        "m": request.method,
        "U": escape(path),
        "q": escape(query),
        "H": f"HTTP/{request.version}",
        "b": size or "-",
        "B": size,
        "f": headers.get("{referer}i", "-"),
        "a": headers.get("{user-agent}i", "-"),
        "T": int(seconds),
        "D": int(seconds * 1_000_000),
        "M": int(seconds * 1_000),
        "L": f"{seconds:.6f}",
        "p": f"<{os.getpid()}>",
        **headers,
    }
    return _COMMON % atoms


_record = {name: AccessLog(name, _Nowhere()).record for name in ("common", "combined", "json", "daphne", _COMMON)}
_to_null = AccessLog("common", LineSink(os.devnull)).record

CASES = {
    "common": lambda: _record["common"](_SAME, _CLIENT, 200, 13, 0.000123),
    "common, 5 000 targets": lambda: _record["common"](next(_MANY), _CLIENT, 200, 13, 0.000123),
    "common, through a sink": lambda: _to_null(_SAME, _CLIENT, 200, 13, 0.000123),
    "combined": lambda: _record["combined"](_SAME, _CLIENT, 200, 13, 0.000123),
    "json": lambda: _record["json"](_SAME, _CLIENT, 200, 13, 0.000123),
    "daphne": lambda: _record["daphne"](_SAME, _CLIENT, 200, 13, 0.000123),
    "gunicorn's atoms": lambda: _record[_COMMON](_SAME, _CLIENT, 200, 13, 0.000123),
    "a dict of atoms": lambda: _dict_of_atoms(_SAME, _CLIENT, 200, 13, 0.000123),
}
CLAIMS = (
    ("gunicorn's atoms", "a dict of atoms", 0.2),
    ("common, through a sink", "common", 1.6),
    ("combined", "a dict of atoms", 0.6),
)
