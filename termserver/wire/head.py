"""The head of an HTTP/1.x request (RFC 9112 §3 and §5). No I/O, no state between heads.

A head is parsed only when it is whole, so one llhttp parser (httptools) serves every connection of a worker, and the
bytes after a head are never shown to it: bodies are `chunked.py`'s or a count. llhttp leaves the request line wide open (it takes
HTTP/2.0, RTSP, `GET  /`, a `#` in the target), so that line is held to its grammar here, before llhttp sees it too.

Clients repeat themselves: on one connection after another the field lines of a head are the same bytes while only the target
changes. A block of field lines that llhttp and the rules below accepted once, for a request without a body, means the same the
next time, byte for byte; so a bounded table remembers the outcome (`_Known`), as HPACK does for HTTP/2, and another one whole
heads that came again and again (pollers, health checks). Nothing is parsed by other rules than the first time.
benchmarks/micro/head.py guards it.

Rejected: a regular expression for the whole head (slower than llhttp, and quadratic when blanks can match twice); one parser
object a connection (2 KB each, and state that outlives a request).
"""

import re
from dataclasses import dataclass
from typing import Final

from termserver.wire.events import Fields, HttpLimits, Request
from termserver.wire.fieldblock import FieldBlock, RefusedError
from termserver.wire.fields import METHODS, Underscores, is_allowed_host, is_host, is_target, is_token

_KNOWN_BLOCKS: Final = 512  # blocks remembered per worker,
_SAME_HEADS: Final = 512  # whole heads remembered per worker,
_SAME_HEAD_SIZE: Final = 2_560  # none longer than this
_SEEN: Final = 4_096
_KNOWN_BLOCK_SIZE: Final = 2_048  # none longer than this: 1 MiB of blocks at the most

_METHOD_SIZE: Final = 32
_UNLIMITED: Final = 1 << 62
_SLASH: Final = 0x2F
_VERSIONS: Final = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0"}
_VERSION: Final = re.compile(rb"HTTP/[0-9]\.[0-9]")


@dataclass(slots=True)
class Framing:
    """What a head says of its connection. `length` is the body's in bytes, or CHUNKED. Shared between requests: never written to."""

    length: int
    keep_alive: bool
    expects_continue: bool
    takes_trailers: bool
    upgrades: bool = False  # to a WebSocket: what comes after the head are frames, or nothing


@dataclass(slots=True)
class _Known:
    """The outcome of a block of field lines that belongs to a request without a body."""

    headers: Fields
    host: bytes | None
    framing: Framing
    upgrade: bytes | None


PERSISTENT: Final = Framing(0, keep_alive=True, expects_continue=False, takes_trailers=False)
_FINAL: Final = Framing(0, keep_alive=False, expects_continue=False, takes_trailers=False)


class HeadParser:
    """Turns whole heads into `Head`s. One a worker."""

    __slots__ = ("_allowed_hosts", "_known_10", "_known_11", "_limits", "_safe_size", "_same", "_seen", "_upgrades_http2", "block")

    def __init__(
        self,
        limits: HttpLimits,
        *,
        underscores: Underscores = Underscores.DROP,
        allowed_hosts: frozenset[bytes] = frozenset(),
        upgrades_http2: bool = False,
    ) -> None:
        """`allowed_hosts`: lower-case host names without port, `.name` for a domain and all below it; empty allows every host.

        `upgrades_http2`: whether a client's wish to switch to HTTP/2 (`Upgrade: h2c`, RFC 7540 §3.2) is passed on.
        """
        self._upgrades_http2 = upgrades_http2
        self._limits = limits
        self._allowed_hosts = allowed_hosts
        self.block = FieldBlock(underscores)  # trailer sections are read through it too
        self._known_10: dict[bytes, _Known] = {}
        self._known_11: dict[bytes, _Known] = {}
        self._same: dict[bytes, tuple[str, bytes, bytes, bytes, str, _Known]] = {}  # whole heads, in origin-form
        self._seen: set[int] = set()  # hashes of heads and blocks that came once
        # A head no longer than the smallest limit breaks none of them.
        self._safe_size = min(size or _UNLIMITED for size in (limits.request_line, limits.field, limits.header_bytes))

    def parse(self, head: bytes) -> tuple[Request, Framing]:
        """Parse one head, from the first byte of its request line to the blank line. Raises `RefusedError`."""
        same = self._same.get(head)
        if same is not None:
            method, target, path, query, version, known = same
            return Request(0, method, target, path, query, known.headers.copy(), version, True, None), known.framing
        line_end = head.index(b"\r\n")
        block = head[line_end:]
        method, target, version = self._parse_line(head, head[:line_end], block)
        known_blocks = self._known_11 if version == "1.1" else self._known_10
        before = known_blocks.get(block)
        known = before or self._learn(head, version, block, known_blocks)
        headers = known.headers.copy()
        if target[0] == _SLASH:
            path, _, query = target.partition(b"?")
            if known.host is None and self._allowed_hosts:
                raise RefusedError(400, "no Host field, where only some hosts are allowed")
            if before is not None and len(head) <= _SAME_HEAD_SIZE and self._came_before(head):
                if len(self._same) >= _SAME_HEADS:
                    self._same.clear()
                self._same[head] = (method, target, path, query, version, known)
        else:
            path, query = self._resolve(method, target, known.host, headers)
        framing = known.framing
        if known.upgrade is None:
            return Request(0, method, target, path, query, headers, version, not framing.length, None), framing
        return Request(0, method, target, path, query, headers, version, True, known.upgrade), framing

    def _parse_line(self, head: bytes, line: bytes, block: bytes) -> tuple[str, bytes, str]:
        """Give method, target and version (RFC 9112 §3)."""
        parts = line.split(b" ")
        if len(head) > self._safe_size:
            self._check_sizes(parts, line, block)
        if len(parts) != 3:  # noqa: PLR2004 - method SP request-target SP HTTP-version
            self._check_request_line(parts)  # the method first, as for a head in pieces: both are refused alike
            raise RefusedError(400, "malformed request line")
        method_token, target, version = parts
        if version not in _VERSIONS:
            self._check_request_line(parts)
            raise _version_refusal(version)
        method = METHODS.get(method_token)
        if method is None:
            raise _method_refusal(method_token, target)
        if not is_target(target):
            raise RefusedError(400, "request target is empty or has a byte that no URI has")
        return method, target, _VERSIONS[version]

    def _learn(self, head: bytes, version: str, block: bytes, known_blocks: dict[bytes, _Known]) -> _Known:
        """Parse the field lines; remember the outcome if it may serve again."""
        fields = self.block
        fields.read(head, version)
        limit = self._limits.header_count
        if limit and fields.count > limit:
            raise RefusedError(431, f"more than {limit} header fields")
        host = fields.host()
        self._check_host(host, version)
        if not fields.noted:
            persists = version == "1.1" or fields.keeps_alive(version)
            known = _Known(fields.headers, host, PERSISTENT if persists else _FINAL, None)
        else:
            length = fields.body_length(version)
            expects_continue = version == "1.1" and fields.expects_continue()
            upgrade = fields.websocket_upgrade(length) if version == "1.1" else None
            if upgrade is None and self._upgrades_http2 and version == "1.1":
                upgrade = fields.http2_upgrade(length)
            # A WebSocket's handshake is its connection's last request: after a refusal, frames may be on their way.
            keep_alive = fields.keeps_alive(version) and upgrade is None
            framing = Framing(length, keep_alive, expects_continue, fields.takes_trailers(), upgrades=upgrade is not None)
            known = _Known(fields.headers, host, framing, upgrade)
            if length or expects_continue or upgrade:
                return known
        if len(block) <= _KNOWN_BLOCK_SIZE:
            self._remember(block, known, known_blocks)
        return known

    def _remember(self, block: bytes, known: _Known, known_blocks: dict[bytes, _Known]) -> None:
        """Keep the outcome of a block that came before: what comes once only is not worth the memory."""
        if not self._came_before(block):
            return
        if len(known_blocks) >= _KNOWN_BLOCKS:
            known_blocks.clear()
        known_blocks[block] = known

    def _came_before(self, data: bytes) -> bool:
        """Whether the same bytes were asked for before, as far as that is remembered."""
        mark = hash(data)
        if mark in self._seen:
            return True
        if len(self._seen) >= _SEEN:
            self._seen.clear()
        self._seen.add(mark)
        return False

    def _check_host(self, host: bytes | None, version: str) -> None:
        if host is None:
            if version == "1.1":  # RFC 9112 §3.2
                raise RefusedError(400, "no Host field")
            return
        if self._allowed_hosts and not is_allowed_host(host, self._allowed_hosts):
            raise RefusedError(400, "Host is not among the allowed hosts")

    def _resolve(self, method: str, target: bytes, host: bytes | None, headers: Fields) -> tuple[bytes, bytes]:
        """Give path and query of a target in absolute- or asterisk-form (RFC 9112 §3.2.2 and §3.2.4)."""
        if target == b"*":
            if method != "OPTIONS":
                raise RefusedError(400, "asterisk-form is for OPTIONS")
            return target, b""
        scheme, separator, rest = target.partition(b"://")
        if not separator or scheme.lower() not in {b"http", b"https"}:
            raise RefusedError(400, "request target is neither origin-form nor an http URI")
        authority, path, query = _split_authority(rest)
        if not is_host(authority):  # a userinfo part ends here too (RFC 9110 §4.2.4)
            raise RefusedError(400, "absolute-form without a valid authority")
        if host is None:
            self._check_host(authority, "1.0")
            headers.insert(0, (b"host", authority))
        elif authority.lower() != host.lower():  # RFC 9112 §3.2.2: the target's authority wins; a Host that differs is an attack
            raise RefusedError(400, "Host differs from the target's authority")
        return path, query

    def check_partial(self, data: bytes | bytearray) -> None:
        """Refuse a head that is not whole yet but cannot become acceptable: a line or the block too long, a first byte of no method."""
        line_end = data.find(b"\r\n")
        line = data if line_end < 0 else data[:line_end]
        parts = line.split(b" ", 1)  # trap: this runs for every piece, and a line may hold thousands of blanks
        self._check_request_line(parts)
        self._check_line_length(line)
        if line_end < 0:
            return
        if len(parts) == 1:
            raise RefusedError(400, "malformed request line")
        limits = self._limits
        if limits.header_bytes and len(data) - line_end - 2 > limits.header_bytes + 1:  # the CR of the blank line may be its last byte
            raise RefusedError(431, f"more than {limits.header_bytes} bytes of header fields")
        if limits.field and len(data) - data.rfind(b"\n") - 1 > limits.field + 1:  # a CR may be its last byte
            raise RefusedError(431, f"a header field of more than {limits.field} bytes")

    def _check_sizes(self, parts: list[bytes], line: bytes, block: bytes) -> None:
        self._check_request_line(parts)
        self._check_line_length(line)
        limits = self._limits
        if limits.header_bytes and len(block) - 4 > limits.header_bytes:  # the two line ends around the block are not its bytes
            raise RefusedError(431, f"more than {limits.header_bytes} bytes of header fields")
        if limits.field and max(map(len, block.split(b"\r\n"))) > limits.field:
            raise RefusedError(431, f"a header field of more than {limits.field} bytes")

    @staticmethod
    def _check_request_line(parts: list[bytes] | list[bytearray]) -> None:
        method = bytes(parts[0])
        known = method in METHODS or method == b"CONNECT"
        if not known and (len(parts) > 1 or not is_token(method) or len(method) > _METHOD_SIZE):
            raise _method_refusal(method, b"")

    def _check_line_length(self, line: bytes | bytearray) -> None:
        limit = self._limits.request_line
        if limit and len(line) > limit + (line[-1:] == b"\r"):
            raise RefusedError(414, f"a request line of more than {limit} bytes")


def _version_refusal(version: bytes) -> RefusedError:
    """505 for a well-formed version that is not ours, 400 for what is no version (RFC 9112 §2.3)."""
    if _VERSION.fullmatch(version):
        return RefusedError(505, "HTTP version not supported")
    return RefusedError(400, "malformed HTTP version")


def _method_refusal(method: bytes, target: bytes) -> RefusedError:
    """501 for a method that exists or might, 400 for what is no token (RFC 9110 §9.1) and for CONNECT without its authority-form."""
    if method == b"CONNECT" and not (is_host(target) and b":" in target):
        return RefusedError(400, "CONNECT needs an authority")
    if is_token(method):
        return RefusedError(501, "method not implemented")
    return RefusedError(400, "malformed method")


def _split_authority(rest: bytes) -> tuple[bytes, bytes, bytes]:
    """Split what follows `http://` into authority, path and query; an empty path is `/`."""
    before_query, _, query = rest.partition(b"?")
    authority, slash, path = before_query.partition(b"/")
    return authority, slash + path or b"/", query
