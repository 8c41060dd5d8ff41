"""The head of an HTTP/1.1 response: the application's fields checked, framing left to the server (RFC 9112 §6). No I/O.

A head is gathered in two steps. `ResponseHead` checks and renders what the application gave, so that its fault is raised at the very
message that holds it; the framing fields are added when the first body bytes say how long the body is. Every field name is looked up in
a bounded table of names that were checked before; the values are checked together, in one pass over the rendered head.
"""

from collections.abc import Iterable
from typing import Final

from termserver.errors import InvalidMessage
from termserver.wire.fields import NO_BODY, STATUS_LINES, is_token, is_value, parse_length

_LINE_ENDS: Final = b"\r\n" * 1_024
_LEGAL: Final = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
_MAX_NAMES: Final = 1_024
_MIN_STATUS: Final = 200
_MAX_STATUS: Final = 999

# Fields that are the server's to decide, or that it must know of.
_STEERING: Final = frozenset({b"connection", b"content-length", b"date", b"keep-alive", b"proxy-connection", b"server",
                              b"transfer-encoding"})
_names: dict[bytes, bytes] = {}  # a name as applications send it -> `name: `, checked


class ResponseHead:
    """The rendered start of a final response."""

    __slots__ = ("close", "date", "length", "lines", "no_body", "server", "status")

    def __init__(self, status: int, headers: Iterable[Iterable[bytes]]) -> None:
        """Render status line and fields. Raises `InvalidMessage`."""
        if type(status) is not int or not _MIN_STATUS <= status <= _MAX_STATUS:
            message = f"a final response has a status from {_MIN_STATUS} to {_MAX_STATUS}, not {status!r}"
            raise InvalidMessage(message)
        self.status = status
        self.length: int | None = None
        self.close = self.date = self.server = False
        self.no_body = status in NO_BODY
        lines = self.lines = [STATUS_LINES[status]]
        try:
            for name, value in headers:
                prefix = _names.get(name)
                if prefix is None:
                    prefix = self._look_at(name, value)
                    if prefix is None:
                        continue
                lines.append(prefix + value + b"\r\n")
            rendered = b"".join(lines)
        except (TypeError, ValueError) as error:
            if isinstance(error, InvalidMessage):
                raise
            message = f"headers are pairs of byte strings: {error}"
            raise InvalidMessage(message) from error
        # One pass for all values: what is left of a legal head is the line ends that were put there.
        if rendered.translate(None, _LEGAL) != (_LINE_ENDS[: 2 * len(lines)] if len(lines) <= 1_024 else b"\r\n" * len(lines)):  # noqa: PLR2004
            _raise_for_values(headers)
        self.lines = [rendered]

    def _look_at(self, name: bytes, value: bytes) -> bytes | None:
        """Check a name that is new or steers the response; give `name: `, None to leave the field out."""
        if not isinstance(name, bytes) or not is_token(name):
            message = f"a header name is a byte string of token characters, not {name!r}"
            raise InvalidMessage(message)
        lower = name.lower()
        if lower not in _STEERING:
            if len(_names) >= _MAX_NAMES:
                _names.clear()
            prefix = _names[name] = name + b": "
            return prefix
        if lower == b"content-length":
            return self._take_length(value)
        if lower == b"connection":
            self.close = self.close or b"close" in value.lower()
            return None
        if lower == b"date":
            self.date = True
        elif lower == b"server":
            self.server = True
        else:  # framing and hop-by-hop fields are the server's (ASGI www, Response Start)
            return None
        return name + b": "

    def _take_length(self, value: bytes) -> bytes | None:
        length = parse_length(value)
        if length is None or self.length is not None:
            message = f"content-length is given once, as digits, not {value!r}"
            raise InvalidMessage(message)
        self.length = length
        # RFC 9110 §8.6: a 204 has none. A 304 may say what a 200 would have.
        return None if self.status == 204 else b"content-length: "  # noqa: PLR2004


def render_trailers(headers: Iterable[Iterable[bytes]]) -> bytes:
    """Render trailer fields. Raises `InvalidMessage`."""
    lines = []
    try:
        for name, value in headers:
            if not isinstance(name, bytes) or not is_token(name) or not is_value(value):
                message = f"a trailer field is a token and a field value, not {name!r}: {value!r}"
                raise InvalidMessage(message)
            lines.append(name + b": " + value + b"\r\n")
    except (TypeError, AttributeError) as error:
        message = f"headers are pairs of byte strings: {error}"
        raise InvalidMessage(message) from error
    return b"".join(lines)


def _raise_for_values(headers: Iterable[Iterable[bytes]]) -> None:
    for name, value in headers:
        if not is_value(value):
            message = f"the value of header {name!r} has a control byte: {value!r}"
            raise InvalidMessage(message)
    message = "headers were changed while they were read"
    raise InvalidMessage(message)
