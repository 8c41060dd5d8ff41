"""Field grammar and status lines shared by both HTTP versions (RFC 9110 §5, RFC 9112 §5).

Everything here works on bytes. Regular expressions are single character classes or fixed sequences of them: nothing backtracks.
"""

import re
from functools import lru_cache
from http import HTTPStatus
from typing import Final

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 9110 §5.5: field-content is HTAB, SP, VCHAR and obs-text.
_VALUE_BYTES: Final = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
# RFC 3986 §3.2.2 and §3.2.3: reg-name or IP-literal, and a port. An empty host is no host (RFC 9110 §4.2.1).
_HOST: Final = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]+(?:%25[A-Za-z0-9\-._~]+)?\]|\[v[0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+\]"
    rb"|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})+)(?::[0-9]{0,5})?"
)
_LENGTH_DIGITS: Final = 19

# Fields that a trailer section may not hold (RFC 9110 §6.5.1): framing, routing, request modifiers, authentication, content handling.
FORBIDDEN_TRAILERS: Final = frozenset(
    {
        b"authorization",
        b"cache-control",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"cookie",
        b"expect",
        b"host",
        b"keep-alive",
        b"max-forwards",
        b"pragma",
        b"proxy-authorization",
        b"proxy-connection",
        b"range",
        b"set-cookie",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus} | {
    413: b"Content Too Large",
    414: b"URI Too Long",
    416: b"Range Not Satisfiable",
    422: b"Unprocessable Content",
}
# A reason phrase is ours, never the application's or the peer's: nothing can be injected (spec attacks B6).
STATUS_LINES: Final = {status: b"HTTP/1.1 %d %b\r\n" % (status, REASONS.get(status, b"")) for status in range(100, 1000)}
NO_BODY: Final = frozenset({204, 304})


def is_token(name: bytes) -> bool:
    """Whether `name` can be a field name or a method (RFC 9110 §5.6.2)."""
    return _TOKEN.fullmatch(name) is not None


def is_value(value: bytes) -> bool:
    """Whether `value` holds only bytes that a field value may hold."""
    return not value.translate(None, _VALUE_BYTES)


@lru_cache(maxsize=1_024)
def is_host(value: bytes) -> bool:
    """Whether `value` is `host [":" port]`."""
    return _HOST.fullmatch(value) is not None


def parse_length(value: bytes) -> int | None:
    """Give a Content-Length in bytes, None if it is not 1 to 19 digits: `int()` takes signs, blanks, `_` and other scripts' digits."""
    return int(value) if value.isdigit() and len(value) <= _LENGTH_DIGITS else None


def list_members(value: bytes) -> list[bytes]:
    """Give the members of a comma-separated list in lower case, empty ones left out (RFC 9110 §5.6.1)."""
    return [member for part in value.lower().split(b",") if (member := part.strip(b" \t"))]
