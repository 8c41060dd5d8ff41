"""Field lines of an HTTP/1.x head or trailer section, through llhttp (httptools), and what they say of framing (RFC 9112 §6 and §7).

llhttp reads names and values strictly (tokens, CRLF only, no folding, no control bytes). What it leaves open is decided here: the
one Host, transfer codings, list-valued fields, names with `_`, blanks at a value's end. The methods are asked after `read`.
"""

from enum import Enum
from typing import Final, NoReturn

import httptools

from termserver.wire.events import Fields
from termserver.wire.fields import FORBIDDEN_TRAILERS, is_token, list_members, parse_length

CHUNKED: Final = -1  # the length of a chunked body

# Names that need no look of ours, as clients spell them. One look-up takes the place of `lower()` and of every special case.
_ORDINARY: Final = {spelling: name for name in (
    b"accept", b"accept-charset", b"accept-encoding", b"accept-language", b"access-control-request-headers",
    b"access-control-request-method", b"authorization", b"cache-control", b"content-encoding", b"content-language", b"content-type",
    b"cookie", b"dnt", b"forwarded", b"from", b"if-match", b"if-modified-since", b"if-none-match", b"if-range",
    b"if-unmodified-since", b"last-event-id", b"origin", b"pragma", b"priority", b"purpose", b"range", b"referer", b"sec-ch-ua",
    b"sec-ch-ua-mobile", b"sec-ch-ua-platform", b"sec-fetch-dest", b"sec-fetch-mode", b"sec-fetch-site", b"sec-fetch-user",
    b"sec-gpc", b"sec-websocket-extensions", b"sec-websocket-key", b"sec-websocket-protocol", b"sec-websocket-version",
    b"traceparent", b"tracestate", b"upgrade-insecure-requests", b"user-agent", b"via", b"x-csrftoken", b"x-forwarded-for",
    b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-proto", b"x-real-ip", b"x-request-id", b"x-requested-with",
) for spelling in (name, b"-".join(part.capitalize() for part in name.split(b"-")))} | {
    b"DNT": b"dnt", b"X-CSRFToken": b"x-csrftoken", b"Sec-WebSocket-Key": b"sec-websocket-key",
    b"Sec-WebSocket-Version": b"sec-websocket-version", b"Sec-WebSocket-Extensions": b"sec-websocket-extensions",
    b"Sec-WebSocket-Protocol": b"sec-websocket-protocol",
}
# Names whose values steer the connection.
_NOTED: Final = frozenset({b"connection", b"content-length", b"expect", b"te", b"transfer-encoding", b"upgrade"})

_KEEP_ALIVE: Final = {b"connection": [b"keep-alive"]}  # what browsers send: the parser stays as it is


class Underscores(Enum):
    """What becomes of a field name with `_`, which WSGI and CGI cannot tell from `-` (spec attacks B3)."""

    DROP = "drop"
    REJECT = "reject"
    ALLOW = "allow"


class RefusedError(Exception):
    """A head, a body's framing or a trailer section that is not accepted: the status to answer with, and why."""

    def __init__(self, status: int, reason: str) -> None:
        """`reason` is for the log; the peer sees the status' own text only."""
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


class FieldBlock:
    """Reads one block of field lines after the other; what the last `read` found stands in its attributes."""

    __slots__ = ("_complete", "_parser", "_underscores", "dropped", "headers", "hosts", "noted", "refused_name")

    def __init__(self, underscores: Underscores) -> None:
        """Make the parser; it is kept for as long as the heads it reads leave it at the start of a message."""
        self._underscores = underscores
        self._parser = httptools.HttpRequestParser(self)
        self._clear()

    def _clear(self) -> None:
        self.headers: Fields = []
        self.hosts: list[bytes] = []
        self.noted: dict[bytes, list[bytes]] = {}
        self.dropped = 0
        self.refused_name = False
        self._complete = False

    # httptools' callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one field line."""
        ordinary = _ORDINARY.get(name)
        if ordinary is not None:
            self.headers.append((ordinary, value))
        else:
            self._take(name.lower(), value.strip(b" \t"))

    def on_headers_complete(self) -> None:
        """Mark the blank line."""
        self._complete = True

    def _take(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            self.hosts.append(value)
        elif name in _NOTED:
            self.noted.setdefault(name, []).append(value)
        elif name == b"proxy":  # httpoxy, CVE-2016-1000111 (spec attacks B4)
            self.dropped += 1
            return
        elif b"_" in name and self._underscores is not Underscores.ALLOW:
            self.dropped += 1
            self.refused_name = self._underscores is Underscores.REJECT
            return
        self.headers.append((name, value))

    # reading

    def read(self, head: bytes, version: str) -> None:
        """Parse a whole head, blank line included. Raises `RefusedError`."""
        self._clear()
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            self._parser = httptools.HttpRequestParser(self)  # CONNECT or an Upgrade: llhttp stops after the head, as we do
        except httptools.HttpParserError as error:
            self._parser = httptools.HttpRequestParser(self)
            self._refuse(str(error))
        if version != "1.1" or (self.noted and self.noted != _KEEP_ALIVE):
            self._parser = httptools.HttpRequestParser(self)  # it may wait for a body now, or for nothing more after a `close`
        if not self._complete:
            self._parser = httptools.HttpRequestParser(self)
            raise RefusedError(400, "malformed head")
        if self.refused_name:
            raise RefusedError(400, "a field name with an underscore")
        # RFC 9112 §5.1: blanks around a value are not part of it. llhttp leaves the ones at its end.
        if b" \r\n" in head or b"\t\r\n" in head:
            self.headers = [(name, value.strip(b" \t")) for name, value in self.headers]

    def _refuse(self, reason: str) -> NoReturn:
        """Say more than llhttp when a transfer coding is the cause: 501 for one that exists, 400 for nonsense (spec attacks A4)."""
        codings = self.noted.get(b"transfer-encoding")
        if codings is not None and b"content-length" not in self.noted:
            _check_codings(codings)
        raise RefusedError(400, reason[:1].lower() + reason[1:])

    def read_trailers(self, section: bytes) -> Fields:
        """Parse a trailer section, blank line included, by the same rules as a head. Raises `RefusedError`."""
        self.read(b"GET / HTTP/1.1\r\n" + section, "1.1")
        for name, _ in self.headers:
            if name in FORBIDDEN_TRAILERS:
                raise RefusedError(400, "a field that no trailer section may hold")
        return self.headers

    @property
    def count(self) -> int:
        """Field lines that came, dropped ones included."""
        return len(self.headers) + self.dropped

    # what the fields say

    def host(self) -> bytes | None:
        """The one Host. Raises `RefusedError` where there are several (RFC 9112 §3.2)."""
        if len(self.hosts) > 1:
            raise RefusedError(400, "more than one Host field")
        return self.hosts[0] if self.hosts else None

    def body_length(self, version: str) -> int:
        """The body's length in bytes, CHUNKED, or 0. Raises `RefusedError` (RFC 9112 §6.1 to §6.3)."""
        codings = self.noted.get(b"transfer-encoding")
        lengths = self.noted.get(b"content-length")
        if codings is not None:
            if lengths is not None or version == "1.0":
                raise RefusedError(400, "Transfer-Encoding beside Content-Length, or in HTTP/1.0")
            _check_codings(codings)
            return CHUNKED
        if lengths is None:
            return 0
        length = parse_length(lengths[0])
        if len(lengths) > 1 or length is None:
            raise RefusedError(400, "malformed or repeated Content-Length")
        return length

    def keeps_alive(self, version: str) -> bool:
        """Whether the connection persists after this request (RFC 9112 §9.3)."""
        options = self._members(b"connection")
        return b"close" not in options and (version == "1.1" or b"keep-alive" in options)

    def websocket_upgrade(self, length: int) -> bytes | None:
        """Give `b"websocket"` if the client asks to switch to it. Any other token is ignored and the body read as framed (RFC 9110 §7.8)."""
        if b"websocket" not in self._members(b"upgrade") or b"upgrade" not in self._members(b"connection"):
            return None
        if length:  # spec attacks A26: a body here is a smuggled request
            raise RefusedError(400, "a WebSocket upgrade with a body")
        return b"websocket"

    def expects_continue(self) -> bool:
        """Whether the client waits for 100 (Continue). Raises `RefusedError` for any other expectation (RFC 9110 §10.1.1)."""
        expectations = self.noted.get(b"expect")
        if expectations is None:
            return False
        if len(expectations) > 1 or expectations[0].lower() != b"100-continue":
            raise RefusedError(417, "an expectation other than one 100-continue")
        return True

    def takes_trailers(self) -> bool:
        """Whether the client takes trailer fields in the response (RFC 9110 §10.1.4)."""
        return b"trailers" in self._members(b"te")

    def _members(self, name: bytes) -> list[bytes]:
        values = self.noted.get(name)
        return list_members(b",".join(values)) if values else []


def _check_codings(values: list[bytes]) -> None:
    """Accept the single coding `chunked`: never a fallback to Content-Length (spec attacks A3 to A5)."""
    if len(values) == 1 and values[0].lower() == b"chunked":
        return
    members = [member.strip(b" \t") for value in values for member in value.split(b",")]
    if all(map(is_token, members)) and all(member.lower() != b"chunked" for member in members[:-1]):
        raise RefusedError(501, "transfer coding not implemented")
    raise RefusedError(400, "malformed Transfer-Encoding")
