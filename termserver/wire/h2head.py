"""The head of an HTTP/2 request: a field list, judged (RFC 9113 §8.2 and §8.3, RFC 8441 §4, RFC 9218 §5). No I/O.

A list that breaks a rule makes the request malformed, which is a stream error (`MalformedError`); one that is well formed but not served is
answered with a status (`Head.refusal`). Clients repeat themselves: a block that came before and left the HPACK table as it was means the
same until the table changes, so each connection remembers a few heads (`HeadReader`), and of others that differ in nothing but a path that
is spelled out, as browsers and proxies send them, only the path is read. A worker remembers the fields it found right (`HeadRules`).
Nothing is judged by other rules than the first time. benchmarks/micro/http2_head.py guards it.
"""

import re
from dataclasses import dataclass, replace
from typing import Final

from termserver.wire.events import Fields, HttpLimits, Request
from termserver.wire.fields import (
    FORBIDDEN_TRAILERS,
    METHODS,
    REPEATED,
    Underscores,
    is_allowed_host,
    is_host,
    is_target,
    is_token,
    is_value,
    parse_length,
)
from termserver.wire.hpack import HeaderDecoder

DEFAULT_URGENCY: Final = 3

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")  # RFC 9113 §8.2.1: a token without upper case
_PSEUDO: Final = frozenset({b":authority", b":method", b":path", b":protocol", b":scheme"})
_CONNECTION_SPECIFIC: Final = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_TAKEN_OUT: Final = frozenset({b"cookie", b"host", b"proxy"})  # put in again as one; `Proxy` never (httpoxy, spec attacks B4)
_STEERING: Final = frozenset({b"content-length", b"expect", b"priority", b"te"}) | _TAKEN_OUT | _CONNECTION_SPECIFIC
_SCHEMES: Final = frozenset({b"http", b"https"})
_VERSION_SIZE: Final = 10  # what HTTP/1.1 adds to method and target in its request line: the limit means the same here

_PATH_LITERAL: Final = 0x04  # a field that is not indexed, its name the static table's :path (RFC 7541 §6.2.2)
_LONGEST_PRIORITY: Final = 128  # bytes of a value that is worth reading
_KEPT_HEADS: Final = 64  # a connection
_KEPT_BLOCK_SIZE: Final = 512
_KEPT_FIELDS: Final = 4_096  # a worker
_KEPT_FIELD_SIZE: Final = 256
_BLANKS: Final = b" \t"


class MalformedError(Exception):
    """A field list that no request or trailer section may have (RFC 9113 §8.1.1)."""


@dataclass(slots=True)
class Head:
    """A request's head. Remembered and shared: never written to. `length` is the Content-Length, None where there is none."""

    method: str
    path: bytes
    query: bytes
    target: bytes
    headers: Fields
    length: int | None
    expects_continue: bool
    takes_trailers: bool
    upgrade: bytes | None
    urgency: int
    refusal: tuple[int, str] | None

    @property
    def is_special(self) -> bool:
        """Whether its stream has to know more than the body's length."""
        return self.takes_trailers or self.expects_continue or self.upgrade is not None or self.urgency != DEFAULT_URGENCY

    def request(self, stream: int, *, ended: bool) -> Request:
        """Give the event."""
        return Request(stream, self.method, self.target, self.path, self.query, self.headers.copy(), "2", ended, self.upgrade)


_TOO_LARGE: Final = Head("GET", b"/", b"", b"/", [], None, False, False, None, DEFAULT_URGENCY, (431, "too many or too large fields"))
_TOO_LARGE_HEAD: Final = replace(_TOO_LARGE, method="HEAD")


class HeadRules:
    """What the heads of a worker are judged by, and the fields that were found right."""

    __slots__ = ("_allowed_hosts", "_limits", "_right", "_underscores", "strings")

    def __init__(
        self, limits: HttpLimits, *, underscores: Underscores = Underscores.DROP, allowed_hosts: frozenset[bytes] = frozenset()
    ) -> None:
        """`allowed_hosts`: as for HTTP/1's `HeadParser`."""
        self._limits = limits
        self._underscores = underscores
        self._allowed_hosts = allowed_hosts
        self._right: set[tuple[bytes, bytes]] = set()
        self.strings: dict[bytes, bytes] = {}  # the decoders': what Huffman codes mean

    def judge(self, fields: Fields) -> Head:
        """Judge a request's field list. Raises `MalformedError`."""
        pseudo: dict[bytes, bytes] = {}
        headers: Fields = []
        steering: dict[bytes, list[bytes]] = {}
        right = self._right
        refusal: tuple[int, str] | None = None
        for field in fields:
            if field in right:
                headers.append(field)
                continue
            name, value = field
            if name[:1] == b":":
                if headers or steering or name in pseudo or name not in _PSEUDO:
                    raise MalformedError("a pseudo-header field that is unknown, repeated or behind a regular one")
                pseudo[name] = value
                continue
            refusal = self._check(field) or refusal
            if name in _STEERING:
                steering.setdefault(name, []).append(value)
                if name in _TAKEN_OUT:
                    continue
            elif b"_" in name and self._underscores is not Underscores.ALLOW:
                steering.setdefault(b"_", [])
                if self._underscores is Underscores.REJECT:
                    refusal = (400, "a field name with an underscore")
                continue
            headers.append(field)
        return self._assemble(pseudo, headers, steering, refusal)

    def _check(self, field: tuple[bytes, bytes]) -> tuple[int, str] | None:
        """Check the bytes of a field (RFC 9113 §8.2.1); say what to answer where it is only too long. Raises `MalformedError`."""
        name, value = field
        if not _NAME.fullmatch(name):
            raise MalformedError("a field name with a byte that it may not have")
        if not is_value(value) or (value and (value[0] in _BLANKS or value[-1] in _BLANKS)):
            raise MalformedError("a field value with a byte that it may not have")
        size, limit = len(name) + len(value), self._limits.field
        if limit and size > limit:
            return 431, f"a header field of more than {limit} bytes"
        if name in REPEATED and name not in _STEERING and size <= _KEPT_FIELD_SIZE:
            if len(self._right) >= _KEPT_FIELDS:
                self._right.clear()
            self._right.add(field)
        return None

    def _assemble(
        self, pseudo: dict[bytes, bytes], headers: Fields, steering: dict[bytes, list[bytes]], refusal: tuple[int, str] | None
    ) -> Head:
        """Put a head together. Raises `MalformedError`."""
        method, target = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
        name, upgrade, refused = _judge_method(method, pseudo)
        if name == "CONNECT" and upgrade is None and not target:
            target = b"/"
        _judge_target(method, target, pseudo.get(b":scheme"))
        authority = _judge_authority(pseudo.get(b":authority"), steering.get(b"host"))
        refusal = refusal or refused or self._judge_sizes(method, target) or self._judge_host(authority)
        if b"cookie" in steering:
            headers.append((b"cookie", b"; ".join(steering[b"cookie"])))
        if authority is not None:
            headers.insert(0, (b"host", authority))  # ASGI www: first, in the place of any other
        path, _, query = target.partition(b"?")
        head = Head(name, path, query, target, headers, None, False, False, upgrade, DEFAULT_URGENCY, refusal)
        if steering:
            self._steer(head, steering)
        return head

    def _steer(self, head: Head, steering: dict[bytes, list[bytes]]) -> None:
        """Note what fields say of framing and the like. Raises `MalformedError`."""
        if not _CONNECTION_SPECIFIC.isdisjoint(steering):  # RFC 9113 §8.2.2
            raise MalformedError("a field that is about one connection of HTTP/1")
        if any(each.lower() != b"trailers" for each in steering.get(b"te", ())):
            raise MalformedError("TE other than trailers")
        head.takes_trailers = b"te" in steering
        head.length = length = _judge_length(steering.get(b"content-length"))
        if head.upgrade is not None and length is not None:
            raise MalformedError("a WebSocket with a Content-Length")
        limit = self._limits.request_body
        if limit and length is not None and length > limit:
            head.refusal = head.refusal or (413, f"a body of more than {limit} bytes")
        if b"expect" in steering:
            head.expects_continue = [each.lower() for each in steering[b"expect"]] == [b"100-continue"]
            if not head.expects_continue:
                head.refusal = head.refusal or (417, "an expectation other than one 100-continue")
        if b"priority" in steering:
            head.urgency = read_priority(b",".join(steering[b"priority"]))

    def _judge_host(self, authority: bytes | None) -> tuple[int, str] | None:
        if authority is None:
            return 400, "no :authority and no Host"
        if self._allowed_hosts and not is_allowed_host(authority, self._allowed_hosts):
            return 421, "Host is not among the allowed hosts"
        return None

    def _judge_sizes(self, method: bytes, target: bytes) -> tuple[int, str] | None:
        if not self.has_room(method.decode("ascii"), target):
            return 414, f"a request line of more than {self._limits.request_line} bytes"
        return None

    def has_room(self, method: str, target: bytes) -> bool:
        """Whether a request line is no longer than it may be."""
        limit = self._limits.request_line
        return not limit or len(method) + len(target) + _VERSION_SIZE <= limit

    def judge_trailers(self, fields: Fields) -> Fields:
        """Judge a trailer section (RFC 9113 §8.1). Raises `MalformedError`."""
        for name, value in fields:
            if name[:1] == b":" or name in FORBIDDEN_TRAILERS:
                raise MalformedError("a field that no trailer section may hold")
            self._check((name, value))
        return fields


class HeadReader:
    """Reads the heads of one connection out of header blocks."""

    __slots__ = ("_decoder", "_heads", "_others", "_rules")

    def __init__(self, rules: HeadRules, limits: HttpLimits) -> None:
        """Begin with an empty table."""
        self._rules = rules
        self._decoder = HeaderDecoder(limits.header_bytes, limits.header_count, rules.strings)
        self._heads: dict[bytes, Head] = {}
        self._others: dict[bytes, Head] = {}  # by the block without its path

    def read(self, block: bytes) -> Head:
        """Read a request's head. Raises `MalformedError`, `CompressionError`, `ListTooLargeError`."""
        head = self._heads.get(block)
        if head is not None:
            return head
        if self._others:
            head = self._read_like(block)
            if head is not None:
                return head
        fields = self.decode(block)
        if fields is None:
            return _TOO_LARGE_HEAD if (b":method", b"HEAD") in self._decoder.head else _TOO_LARGE
        head = self._rules.judge(fields)
        if not self._decoder.changed and len(block) <= _KEPT_BLOCK_SIZE:
            self._remember(block, head)
        return head

    def _remember(self, block: bytes, head: Head) -> None:
        if len(self._heads) >= _KEPT_HEADS:
            self._heads.clear()
        self._heads[block] = head
        start = _find_path(block)
        if start and head.refusal is None and self._decoder.room >= _KEPT_BLOCK_SIZE * 2:
            _, end = self._decoder.read_path(block, start)
            if len(self._others) >= _KEPT_HEADS:
                self._others.clear()
            self._others[block[:start] + block[end:]] = head

    def _read_like(self, block: bytes) -> Head | None:
        """Read a head that differs from one that is known in its path only; None where there is none, or the path is not a usual one."""
        # Fast path: a quarter of the cost of the whole block. benchmarks/micro/http2_head.py guards this.
        start = _find_path(block)
        if not start or len(block) > _KEPT_BLOCK_SIZE:
            return None
        target, end = self._decoder.read_path(block, start)
        like = self._others.get(block[:start] + block[end:])
        if like is None or target[:1] != b"/" or not is_target(target) or not self._rules.has_room(like.method, target):
            return None
        path, _, query = target.partition(b"?")
        return Head(like.method, path, query, target, like.headers, like.length, like.expects_continue, like.takes_trailers,
                    like.upgrade, like.urgency, None)  # fmt: skip

    def read_trailers(self, block: bytes) -> Fields | None:
        """Read a trailer section, None where it is too large. Raises the same."""
        fields = self.decode(block)
        return None if fields is None else self._rules.judge_trailers(fields)

    def decode(self, block: bytes) -> Fields | None:
        """Keep the table in step with the client's, whatever becomes of the fields. Raises `CompressionError`, `ListTooLargeError`."""
        fields = self._decoder.decode(block)
        if self._decoder.changed:
            self._heads.clear()
            self._others.clear()
        return fields


def _find_path(block: bytes) -> int:
    """Give where the string of a path begins that is a literal behind at most three indexed fields, 0 for any other."""
    for position in range(min(4, len(block) - 1)):
        first = block[position]
        if first == _PATH_LITERAL:
            return position + 1
        if not 0x80 < first < 0xFF:  # noqa: PLR2004 - an indexed field (RFC 7541 §6.1) of one byte
            return 0
    return 0


def _judge_method(method: bytes, pseudo: dict[bytes, bytes]) -> tuple[str, bytes | None, tuple[int, str] | None]:
    """Give the method, what a CONNECT is to become, and the refusal (RFC 9113 §8.5, RFC 8441 §4). Raises `MalformedError`."""
    if not is_token(method):
        raise MalformedError("no :method, or one that is none")
    protocol = pseudo.get(b":protocol")
    if method == b"CONNECT" and protocol is None:
        if b":scheme" in pseudo or b":path" in pseudo or b":authority" not in pseudo:
            raise MalformedError("CONNECT has an :authority, and neither :scheme nor :path")
        return "CONNECT", None, (501, "method not implemented")
    if b":scheme" not in pseudo:
        raise MalformedError("no :scheme")
    if protocol is not None:
        if method != b"CONNECT" or b":authority" not in pseudo or b":path" not in pseudo or not is_token(protocol):
            raise MalformedError(":protocol is for CONNECT, beside :scheme, :path and :authority")
        return "CONNECT", protocol, None if protocol == b"websocket" else (501, "protocol not implemented")
    name = METHODS.get(method)
    return name or "GET", None, None if name is not None else (501, "method not implemented")


def _judge_target(method: bytes, target: bytes, scheme: bytes | None) -> None:
    """Raise `MalformedError` for what is no target (RFC 9113 §8.3.1)."""
    if scheme is not None and scheme.lower() not in _SCHEMES:
        raise MalformedError(":scheme is neither http nor https")
    if not is_target(target) or (target[:1] != b"/" and not (target == b"*" and method == b"OPTIONS")):
        raise MalformedError("no :path, or one that is none")


def _judge_authority(authority: bytes | None, hosts: list[bytes] | None) -> bytes | None:
    """Give the one host that is meant (spec attacks A23). Raises `MalformedError`."""
    if hosts is not None:
        if len(hosts) > 1 or not is_host(hosts[0]) or (authority is not None and authority.lower() != hosts[0].lower()):
            raise MalformedError("Host is repeated, malformed or not :authority")
        authority = authority or hosts[0]
    if authority is not None and not is_host(authority):
        raise MalformedError(":authority is not host[:port]")
    return authority


def _judge_length(lengths: list[bytes] | None) -> int | None:
    """Give the Content-Length, None where there is none. Raises `MalformedError`."""
    if lengths is None:
        return None
    length = parse_length(lengths[0])
    if len(lengths) > 1 or length is None:
        raise MalformedError("malformed or repeated Content-Length")
    return length


def read_priority(value: bytes) -> int:
    """Read the urgency: what is not understood is as if it were not there (RFC 9218 §4).

    Whether parts of a response are of use (`i`) makes no difference here: equally urgent responses take turns, frame by frame.
    """
    urgency = DEFAULT_URGENCY
    if len(value) > _LONGEST_PRIORITY:
        return urgency
    for part in value.split(b","):
        key, _, text = part.strip(_BLANKS).partition(b";")[0].partition(b"=")
        if key == b"u" and len(text) == 1 and text in b"01234567":
            urgency = int(text)
    return urgency
