r"""The access log: one line for every request, compiled once.

A format (`common`, `combined`, `json`, `daphne`, or a string of gunicorn's atoms) becomes one Python function that computes what the
format names and nothing else; the lines it makes gather in a list and go to the sink together (`flush`, called by the owner every
fraction of a second, or when a batch is full).

Values come from strangers (spec row B7): the target is written as it was sent, never percent-decoded, and whatever is not printable
ASCII, and `"` and `\`, is escaped as `\x1b`, `\n`, `\\`, so that a line stays one line and a field stays one field. Cookies and
credentials cannot be asked for.

The wall clock is asked once a line and the date made once a second, so a clock that jumps is followed at once. Rejected: a date set by
the server's tick (stale for as long as an application blocks the loop); `%` over a dict of all atoms, gunicorn's way (several times slower).
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from json import JSONEncoder
from typing import Protocol

from termserver.errors import ConfigError
from termserver.observe.sink import LineSink

BATCH = 64 * 1024  # characters gathered before they go to the sink: some 600 lines of `common`, and a bound whatever the lines are
_MEMO_ENTRIES = 1_024
_MEMO_LONGEST = 512
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")  # strftime's follow the locale
_SECRETS = frozenset({"authorization", "cookie", "proxy-authorization", "set-cookie"})

Client = tuple[str, int] | None


class LoggedRequest(Protocol):
    """What the log reads of a request (`wire.events.Request` is one)."""

    @property
    def method(self) -> str:
        """The method, as sent."""

    @property
    def target(self) -> bytes:
        """The request target, as sent."""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Names in lower case."""

    @property
    def version(self) -> str:
        """1.0, 1.1 or 2."""


Record = Callable[[LoggedRequest, Client, int | None, int, float], None]


class AccessLog:
    """Writes one line a request to `sink` in `format`; raises `ConfigError` for a format that cannot be compiled.

    `record(request, client, status, size, seconds)`: the peer's address (None on a Unix socket), the status sent (None: none was), the bytes
    of body sent and how long it took. `flush()` hands what has gathered to the sink.
    `names_websocket_steps`: the format has lines of its own for a WebSocket's life (`websocket`), and none for its opening request.
    """

    __slots__ = ("flush", "names_websocket_steps", "record")

    record: Record
    flush: Callable[[], None]

    def __init__(self, format: str, sink: LineSink, *, clock: Callable[[], float] = time.time) -> None:  # noqa: A002  (the option's name)
        """`clock` gives wall time in seconds."""
        self.names_websocket_steps = format == "daphne"
        self.record, self.flush = _compile(_STYLES.get(format) or _parse(format), sink, clock)

    def websocket(self, action: str, request: LoggedRequest, client: Client) -> None:
        """Daphne's WSCONNECTING, WSCONNECT, WSREJECT and WSDISCONNECT lines; nothing in other formats."""
        if self.names_websocket_steps:
            self.record(_Step(action, request.target), client, None, 0, 0.0)


@dataclass(slots=True)
class _Step:
    """A WebSocket's step in the clothes of a request."""

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    version: str = ""


# Values as text


def escape(value: bytes | None) -> str:
    r"""Return `value` in printable ASCII without quotes: `\x1b`, `\n`, `\\`, `\x22`; None is `-`."""
    return "-" if value is None else _escape_text(value.decode("latin-1"))


def _escape_text(text: str) -> str:
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return text.encode("unicode_escape").decode("ascii").replace('"', r"\x22")


def _path(target: bytes) -> str:
    return escape(target.partition(b"?")[0])


def _query(target: bytes) -> str:
    return escape(target.partition(b"?")[2])


def _host(client: Client) -> str:
    return "-" if client is None else _escape_text(client[0])


def _address(client: Client) -> str:
    """`host:port`, an IPv6 host in brackets."""
    if client is None:
        return "-"
    host = _escape_text(client[0])
    return f"[{host}]:{client[1]}" if ":" in host else f"{host}:{client[1]}"


def _daphne_address(client: Client) -> str:
    return "None" if client is None else f"{_escape_text(client[0])}:{client[1]}"


_encode_json = JSONEncoder(ensure_ascii=True).encode


def _json(text: str) -> str:
    return _encode_json(text).replace("\x7f", r"\u007f")  # the one control character JSON lets through


def _json_bytes(value: bytes | None) -> str:
    return "null" if value is None else _json(value.decode("latin-1"))


def _json_address(client: Client) -> str:
    return "null" if client is None else f'"{_address(client)}"' if client[0].isascii() and client[0].isprintable() else _json(client[0])


def clf_date(now: float) -> str:
    """22/Nov/2026:21:13:19 +0000, local time."""
    at = time.localtime(now)
    return f"{_daphne_date(now)} {_offset(at, '')}"


def _daphne_date(now: float) -> str:
    at = time.localtime(now)
    return f"{at.tm_mday:02}/{_MONTHS[at.tm_mon - 1]}/{at.tm_year:04}:{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}"


def _iso_date(now: float) -> str:
    at = time.localtime(now)
    return time.strftime("%Y-%m-%dT%H:%M:%S", at) + _offset(at, ":")


def _offset(at: time.struct_time, separator: str) -> str:
    minutes = abs(at.tm_gmtoff) // 60
    return f"{'-' if at.tm_gmtoff < 0 else '+'}{minutes // 60:02}{separator}{minutes % 60:02}"


class _Memo[Key](dict[Key, str]):
    pass
