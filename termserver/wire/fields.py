"""Field grammar and status lines shared by both HTTP versions (RFC 9110 §5, RFC 9112 §5).

Everything here works on bytes. Regular expressions are single character classes or fixed sequences of them: nothing backtracks.
"""

import re
from enum import Enum
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

# Request fields that clients repeat from request to request, and that hold no secret: what was found of one may be kept.
REPEATED: Final = frozenset(
    {
        b"accept",
        b"accept-charset",
        b"accept-encoding",
        b"accept-language",
        b"access-control-request-headers",
        b"access-control-request-method",
        b"cache-control",
        b"content-type",
        b"dnt",
        b"from",
        b"origin",
        b"pragma",
        b"priority",
        b"purpose",
        b"sec-ch-ua",
        b"sec-ch-ua-mobile",
        b"sec-ch-ua-platform",
        b"sec-fetch-dest",
        b"sec-fetch-mode",
        b"sec-fetch-site",
        b"sec-fetch-user",
        b"sec-gpc",
        b"sec-websocket-extensions",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
        b"upgrade-insecure-requests",
        b"user-agent",
        b"via",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-requested-with",
    }
)
# RFC 9110 §9.3 and the registered methods that llhttp knows. Each has to be upper case: methods are case-sensitive.
METHODS: Final = {
    name.encode(): name
    for name in (
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "DELETE",
        "OPTIONS",
        "TRACE",
        "PATCH",
        "QUERY",
        "COPY",
        "LOCK",
        "MKCOL",
        "MOVE",
        "PROPFIND",
        "PROPPATCH",
        "SEARCH",
        "UNLOCK",
        "BIND",
        "REBIND",
        "UNBIND",
        "ACL",
        "REPORT",
        "MKACTIVITY",
        "CHECKOUT",
        "MERGE",
        "M-SEARCH",
        "NOTIFY",
        "SUBSCRIBE",
        "UNSUBSCRIBE",
        "PURGE",
        "MKCALENDAR",
        "LINK",
        "UNLINK",
        "SOURCE",
    )
}
# RFC 3986: visible ASCII. Browsers leave | ^ ` { } and the like unencoded, so those pass; # begins a fragment, which is never sent.
_TARGET_BYTES: Final = bytes(set(range(0x21, 0x7F)) - {0x23})

REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus} | {
    413: b"Content Too Large",
    414: b"URI Too Long",
    416: b"Range Not Satisfiable",
    422: b"Unprocessable Content",
}
# A reason phrase is ours, never the application's or the peer's: nothing can be injected (spec attacks B6).
STATUS_LINES: Final = {status: b"HTTP/1.1 %d %b\r\n" % (status, REASONS.get(status, b"")) for status in range(100, 1000)}
NO_BODY: Final = frozenset({204, 304})


class Underscores(Enum):
    """What becomes of a field name with `_`, which WSGI and CGI cannot tell from `-` (spec attacks B3)."""

    DROP = "drop"
    REJECT = "reject"
    ALLOW = "allow"


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


def is_target(target: bytes) -> bool:
    """Whether `target` has only bytes that a URI may have, and any at all."""
    return bool(target) and not target.translate(None, _TARGET_BYTES)


def is_allowed_host(host: bytes, allowed: frozenset[bytes]) -> bool:
    """Whether `host[:port]` is one of the allowed names, or below one that is written with a leading dot."""
    name = host.lower()
    if not name.endswith(b"]"):
        name = name.rpartition(b":")[0] or name
    name = name.removesuffix(b".")
    if name in allowed:
        return True
    return any(entry.startswith(b".") and (name.endswith(entry) or name == entry[1:]) for entry in allowed)


def parse_length(value: bytes) -> int | None:
    """Give a Content-Length in bytes, None if it is not 1 to 19 digits: `int()` takes signs, blanks, `_` and other scripts' digits."""
    return int(value) if value.isdigit() and len(value) <= _LENGTH_DIGITS else None


def list_members(value: bytes) -> list[bytes]:
    """Give the members of a comma-separated list in lower case, empty ones left out (RFC 9110 §5.6.1)."""
    return [member for part in value.lower().split(b",") if (member := part.strip(b" \t"))]
