"""The head of an HTTP/1.1 response: the application's fields checked, framing left to the server (RFC 9112 §6). No I/O.

A head is gathered in two steps. `render_head` checks and renders what the application gave, so that its fault is raised at the very
message that holds it; the framing fields are added when the first body bytes say how long the body is. Applications repeat themselves:
lines of a few names whose values are never secret are kept, checked and rendered, in a bounded table.
"""

from collections.abc import Iterable
from typing import Final

from termserver.errors import InvalidMessage
from termserver.wire.events import Fields
from termserver.wire.fields import FORBIDDEN_TRAILERS, STATUS_LINES, is_token, is_value, parse_length

_MAX_LINES: Final = 1_024
_MAX_LINE: Final = 256
_MIN_STATUS: Final = 200
_MAX_STATUS: Final = 999

# What the application said of things that are the server's to know.
CLOSE: Final = 1
DATE: Final = 2
SERVER: Final = 4

# Framing and connections are the server's (ASGI www, Response Start).
CONNECTION_FIELDS: Final = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
# Fields that are the server's to decide, or that it must know of.
_STEERING: Final = frozenset(
    {b"connection", b"content-length", b"date", b"keep-alive", b"proxy-connection", b"server", b"transfer-encoding"}
)
# Fields that may be kept, checked and rendered.
REPEATED: Final = frozenset(
    {
        b"accept-ranges",
        b"access-control-allow-credentials",
        b"access-control-allow-headers",
        b"access-control-allow-methods",
        b"access-control-allow-origin",
        b"allow",
        b"cache-control",
        b"content-encoding",
        b"content-language",
        b"content-type",
        b"cross-origin-opener-policy",
        b"permissions-policy",
        b"pragma",
        b"referrer-policy",
        b"strict-transport-security",
        b"vary",
        b"x-content-type-options",
        b"x-frame-options",
        b"x-xss-protection",
    }
)
_known_lines: dict[Iterable[bytes], bytes] = {}  # (name, value) -> line, checked
_known_lengths: dict[Iterable[bytes], tuple[bytes, int]] = {}  # (name, value) of a Content-Length -> line, bytes


class DefaultFields:
    """The `date` and `server` lines of every response; whoever owns the clock keeps `date` current."""

    __slots__ = ("both", "date", "last", "server")

    def __init__(self, server: bytes = b"termserver") -> None:
        """An empty `server` leaves the field out."""
        self.server = b"server: " + server + b"\r\n" if server else b""
        self.set_date(b"")

    def set_date(self, date: bytes) -> None:
        """Take an IMF-fixdate (RFC 9110 §5.6.7); empty leaves the field out."""
        self.date = b"date: " + date + b"\r\n" if date else b""
        self.both = self.date + self.server
        self.last = self.both + b"\r\n"


def render_head(status: int, headers: Iterable[Iterable[bytes]]) -> tuple[list[bytes], int | None, int]:  # noqa: C901 - one loop, one branch a kind
    """Give status line and field lines, the Content-Length if there is one, and what else is said in flags. Raises `InvalidMessage`."""
    check_status(status)
    lines = [STATUS_LINES[status]]
    length: int | None = None
    flags = 0
    try:
        for pair in headers:
            if type(pair) is tuple:
                line = _known_lines.get(pair)
                if line is not None:
                    lines.append(line)
                    continue
                if length is None and pair in _known_lengths:
                    line, length = _known_lengths[pair]
                    lines.append(line)
                    continue
            name, value = pair
            lower = check_field(name, value)
            if lower not in _STEERING:
                lines.append(_render(lower, name, value))
            elif lower == b"content-length":
                length = _take_length(name, value, length)
                lines.append(b"content-length: " + value + b"\r\n")
            elif lower == b"connection":
                flags |= CLOSE if b"close" in value.lower() else 0
            elif lower == b"date" or lower == b"server":  # noqa: PLR1714 - a tuple would be made for each
                flags |= DATE if lower == b"date" else SERVER
                lines.append(name + b": " + value + b"\r\n")
            # Any other is framing, which is the server's (ASGI www, Response Start).
    except (TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InvalidMessage):
            raise
        message = f"headers are pairs of byte strings: {error}"
        raise InvalidMessage(message) from error
    if status == 204 and length is not None:  # noqa: PLR2004 - RFC 9110 §8.6: a 204 has none; a 304 may say what a 200 would have
        lines = [line for line in lines if not line.startswith(b"content-length: ")]
    return lines, length, flags


def check_status(status: int) -> None:
    """Raise `InvalidMessage` for what is no final response's status."""
    if not isinstance(status, int) or not _MIN_STATUS <= status <= _MAX_STATUS:
        message = f"a final response has a status from {_MIN_STATUS} to {_MAX_STATUS}, not {status!r}"
        raise InvalidMessage(message)


def check_field(name: bytes, value: bytes) -> bytes:
    """Check a field; give its name in lower case. Raises `InvalidMessage`."""
    if not isinstance(name, bytes) or not is_token(name):
        message = f"a header name is a byte string of token characters, not {name!r}"
        raise InvalidMessage(message)
    if not is_value(value):
        message = f"the value of header {name!r} has a control byte: {value!r}"
        raise InvalidMessage(message)
    return name.lower()


def _render(lower: bytes, name: bytes, value: bytes) -> bytes:
    """Render a checked field; keep the line if it is one that comes again."""
    line = name + b": " + value + b"\r\n"
    if lower in REPEATED and len(line) <= _MAX_LINE:
        if len(_known_lines) >= _MAX_LINES:
            _known_lines.clear()
        _known_lines[name, value] = line
    return line


def read_length(value: bytes, earlier: int | None) -> int:
    """Read a Content-Length; `earlier` is one that was there before. Raises `InvalidMessage`."""
    length = parse_length(value)
    if length is None or earlier is not None:
        message = f"content-length is given once, as digits, not {value!r}"
        raise InvalidMessage(message)
    return length


def _take_length(name: bytes, value: bytes, earlier: int | None) -> int:
    length = read_length(value, earlier)
    if len(_known_lengths) >= _MAX_LINES:
        _known_lengths.clear()
    _known_lengths[name, value] = (b"content-length: " + value + b"\r\n", length)
    return length


def check_fields(headers: Iterable[Iterable[bytes]]) -> list[tuple[bytes, bytes, bytes]]:
    """Check fields of the application's; give each one's name in lower case, name and value. Raises `InvalidMessage`."""
    try:
        return [(check_field(name, value), name, value) for name, value in headers]
    except (TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InvalidMessage):
            raise
        message = f"headers are pairs of byte strings: {error}"
        raise InvalidMessage(message) from error


def render_trailers(headers: Iterable[Iterable[bytes]]) -> bytes:
    """Render trailer fields. Raises `InvalidMessage`."""
    lines = []
    for lower, name, value in check_fields(headers):
        if lower in FORBIDDEN_TRAILERS:  # RFC 9110 §6.5.1: what frames, routes or steers comes before the content
            raise InvalidMessage(f"no trailer section may hold {name!r}")
        lines.append(name + b": " + value + b"\r\n")
    return b"".join(lines)


def render_fields(headers: Fields) -> bytes:
    """Render fields that are checked already."""
    return b"".join([name + b": " + value + b"\r\n" for name, value in headers])
