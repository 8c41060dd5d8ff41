"""Field lines of an HTTP/1.x head or trailer section, and what they say of framing (RFC 9112 §5 to §7).

llhttp (httptools) judges every head, strictly: names are tokens, lines end in CRLF, nothing is folded, no control bytes. It is asked for
its
verdict only. Once it has accepted a head, a field line is the bytes up to the first colon and the bytes behind it less the blanks,
with no other way to read it, so the lines are split here; most of them were seen before (`User-Agent: …`) and come out of a bounded table
as
the pairs they made the first time. A callback per line was three times as slow. benchmarks/micro/head.py guards this.

What llhttp leaves open is decided here: the one Host, transfer codings, list-valued fields, names with `_`.
"""

from enum import Enum, auto
from typing import Final, NoReturn

import httptools

from termserver.wire.events import Fields
from termserver.wire.fields import FORBIDDEN_TRAILERS, Underscores, is_host, is_token, list_members, parse_length
from termserver.wire.fields import REPEATED as REPEATED_FIELDS
from termserver.wire.h2frames import decode_settings

CHUNKED: Final = -1  # the length of a chunked body

_KEPT_LINES: Final = 4_096
_KEPT_LINE_SIZE: Final = 256


class _Kind(Enum):
    REPEATED = auto()  # clients repeat the line from request to request, and it holds no secret: it is kept
    HOST = auto()
    NOTED = auto()  # it steers the connection
    DROPPED = auto()


REPEATED, HOST, NOTED, DROPPED = _Kind
_KINDS: Final = (
    dict.fromkeys(REPEATED_FIELDS, REPEATED)
    | {b"host": HOST, b"proxy": DROPPED}
    | dict.fromkeys((b"connection", b"content-length", b"expect", b"te", b"transfer-encoding", b"upgrade"), NOTED)
)  # llhttp heeds the fourth


class RefusedError(Exception):
    """A head, a body's framing or a trailer section that is not accepted: the status to answer with, and why."""

    def __init__(self, status: int, reason: str) -> None:
        """`reason` is for the log; the peer sees the status' own text only."""
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


class FieldBlock:
    """Reads one block of field lines after the other; what the last `read` found stands in its attributes."""

    __slots__ = ("_complete", "_kept", "_parser", "_reusable", "_underscores", "count", "headers", "hosts", "noted")

    def __init__(self, underscores: Underscores) -> None:
        """Make the parser; it is kept for as long as the heads it reads leave it at the start of a message."""
        self._underscores = underscores
        self._kept: dict[bytes, tuple[bytes, bytes]] = {}  # field line -> (name, value)
        self._parser = httptools.HttpRequestParser(self)
        self._complete = self._reusable = False
        self.headers: Fields = []
        self.hosts: list[bytes] = []
        self.noted: dict[bytes, list[bytes]] = {}  # the values of fields that steer the connection
        self.count = 0  # lines that came, dropped ones included

    # httptools calls these two

    def on_headers_complete(self) -> None:
        """Mark the blank line."""
        self._complete = True

    def on_message_complete(self) -> None:
        """Ask llhttp whether it is at the start of another message: after `close`, in whatever field it found one, it is not."""
        self._reusable = self._parser.should_keep_alive()

    def read(self, head: bytes, version: str) -> None:
        """Parse a whole head, blank line included. Raises `RefusedError`."""
        self._complete = self._reusable = False
        refusal = None
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            self._reusable = False  # llhttp stops after the head, as we do
        except httptools.HttpParserError as error:
            self._reusable = False
            refusal = str(error)
        if not self._reusable:  # the parser is every connection's: none may find it where another one's request has left it
            self._parser = httptools.HttpRequestParser(self)
        if refusal is not None:
            self._refuse(head, version, refusal)
        if not self._complete:
            raise RefusedError(400, "malformed head")
        self._split(head)

    def _split(self, head: bytes) -> None:
        """Take an accepted head apart. Its first line is the request line, its last two end the block."""
        self.hosts = []
        self.noted = {}
        headers = self.headers = []
        kept = self._kept
        lines = head.split(b"\r\n")[1:-2]
        self.count = len(lines)
        for line in lines:
            pair = kept.get(line)
            if pair is None:
                name, _, value = line.partition(b":")
                name = name.lower()
                pair = (name, value.strip(b" \t"))
                kind = _KINDS.get(name)
                if (kind is not None or b"_" in name) and not self._take(kind, line, pair):
                    continue
            headers.append(pair)

    def _take(self, kind: _Kind | None, line: bytes, pair: tuple[bytes, bytes]) -> bool:
        """Keep, note or drop a field; answer whether it goes to the application. Raises `RefusedError`."""
        name, value = pair
        if kind is REPEATED or (name == b"connection" and value.lower() == b"keep-alive"):  # which is what HTTP/1.1 does anyway
            if len(line) <= _KEPT_LINE_SIZE:
                if len(self._kept) >= _KEPT_LINES:
                    self._kept.clear()
                self._kept[line] = pair
        elif kind is HOST:
            self.hosts.append(value)
        elif kind is NOTED:
            self.noted.setdefault(name, []).append(value)
        elif kind is DROPPED:  # `Proxy` is httpoxy, CVE-2016-1000111 (spec attacks B4)
            return False
        elif self._underscores is Underscores.REJECT:
            raise RefusedError(400, "a field name with an underscore")
        else:
            return self._underscores is Underscores.ALLOW
        return True

    def _refuse(self, head: bytes, version: str, reason: str) -> NoReturn:
        """Say more than llhttp when a transfer coding is the cause: 501 for one that exists, 400 for nonsense (spec attacks A4)."""
        self._split(head)
        codings = self.noted.get(b"transfer-encoding")
        if codings is not None and version == "1.1" and b"content-length" not in self.noted:
            _check_codings(codings)
        raise RefusedError(400, reason[:1].lower() + reason[1:])

    def read_trailers(self, section: bytes) -> Fields:
        """Parse a trailer section, blank line included, by the same rules as a head. Raises `RefusedError`."""
        try:
            self.read(b"GET / HTTP/1.1\r\n" + section, "1.1")
        except RefusedError as refused:  # a transfer coding is out of place here, not unknown: never 501
            raise RefusedError(400, refused.reason) from None
        for name, _ in self.headers:
            if name in FORBIDDEN_TRAILERS:
                raise RefusedError(400, "a field that no trailer section may hold")
        return self.headers

    # what the fields say

    def host(self) -> bytes | None:
        """The one Host. Raises `RefusedError` where there are several, or one that is none (RFC 9112 §3.2)."""
        hosts = self.hosts
        if not hosts:
            return None
        if len(hosts) > 1:
            raise RefusedError(400, "more than one Host field")
        if not is_host(hosts[0]):
            raise RefusedError(400, "Host is not host[:port]")
        return hosts[0]

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
        if b"close" in options:
            return False
        return version == "1.1" or b"keep-alive" in options or (b"connection", b"keep-alive") in _lowered(self.headers)

    def websocket_upgrade(self, length: int) -> bytes | None:
        """Give `b"websocket"` if the client asks to switch to it. Any other token is ignored, the body read as framed (RFC 9110 §7.8)."""
        if b"websocket" not in self._members(b"upgrade") or b"upgrade" not in self._members(b"connection"):
            return None
        if length:  # spec attacks A26: a body here is a smuggled request
            raise RefusedError(400, "a WebSocket upgrade with a body")
        return b"websocket"

    def http2_upgrade(self, length: int) -> bytes | None:
        """Give `b"h2c"` if the client asks to switch to HTTP/2, and has no body that would have to come first (RFC 7540 §3.2)."""
        options = self._members(b"connection")
        if length or b"h2c" not in self._members(b"upgrade") or not {b"upgrade", b"http2-settings"}.issubset(options):
            return None
        values = [value for name, value in self.headers if name == b"http2-settings"]
        if len(values) != 1 or decode_settings(values[0]) is None:
            raise RefusedError(400, "HTTP2-Settings is repeated, or no payload of a SETTINGS frame in base64url")
        return b"h2c"

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


def _lowered(headers: Fields) -> Fields:
    return [(name, value.lower()) for name, value in headers]


def _check_codings(values: list[bytes]) -> None:
    """Accept the single coding `chunked`: never a fallback to Content-Length (spec attacks A3 to A5)."""
    if len(values) == 1 and values[0].lower() == b"chunked":
        return
    members = [member.strip(b" \t") for value in values for member in value.split(b",")]
    if all(map(is_token, members)) and all(member.lower() != b"chunked" for member in members[:-1]):
        raise RefusedError(501, "transfer coding not implemented")
    raise RefusedError(400, "malformed Transfer-Encoding")
