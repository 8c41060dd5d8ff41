"""The opening handshake of a WebSocket, server side (RFC 6455 §4.2), and what it negotiates (RFC 7692 §7.1). No I/O.

`read_opening` judges what the client asks for, before the application hears of it; `Opening.answer` gives the fields of the answer once
the application has accepted. What is negotiated does not depend on the HTTP version: over HTTP/2 (RFC 8441) there is no key and no
accept value, and the rest is the same.

permessage-deflate is always answered with both no-context-takeover parameters, so that a connection at rest holds no zlib state. The
first offer that can be served is taken; one with a parameter that is unknown, malformed or given twice is declined, and so is one that
asks for a window of 8 bits, which zlib cannot make. autobahn's classes judge the parameters; its parser of the field takes text that
RFC 6455 does not, so the field is taken apart here.
"""

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from autobahn.websocket.compress_deflate import PerMessageDeflateOffer, PerMessageDeflateOfferAccept

from termserver.errors import InvalidMessage
from termserver.wire.events import Fields, Request
from termserver.wire.fields import is_token
from termserver.wire.response import check_fields

_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64 (RFC 6455 §4.1)
_DEFLATE: Final = "permessage-deflate"
_WINDOW_BITS: Final = re.compile(r"[1-9][0-9]?")  # `int()` takes signs, blanks and underscores too
_WINDOWED: Final = frozenset({"client_max_window_bits", "server_max_window_bits"})
_LARGEST_WINDOW: Final = 15

_TOKEN_TEXT: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# One step of `1#( token *( ";" token [ "=" ( token | quoted-string ) ] ) )`. Blanks and tokens share no byte: nothing backtracks.
_STEP: Final = re.compile(rb'[ \t]*(%b)[ \t]*(?:=[ \t]*(?:(%b)|"((?:[^"\\]|\\.)*)")[ \t]*)?([;,]|\Z)' % (_TOKEN_TEXT, _TOKEN_TEXT))
_EMPTY_MEMBER: Final = re.compile(rb"[ \t]*(?:,|\Z)")

# Fields of the answer that are the server's to decide: an application that sets one is told so, framing is left out as in any response.
_RESERVED: Final = frozenset({b"sec-websocket-accept", b"sec-websocket-extensions", b"sec-websocket-protocol"})
_FRAMING: Final = frozenset({b"connection", b"content-length", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_SUPPORTED_VERSION: Final[Fields] = [(b"sec-websocket-version", b"13"), (b"upgrade", b"websocket")]


class HandshakeRefused(Exception):
    """A handshake that is answered by the server itself: status, fields, and why."""

    def __init__(self, status: int, reason: str, headers: Fields | None = None) -> None:
        """`reason` is for the log; the peer sees the status' own text only."""
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.headers: Fields = headers or []


@dataclass(slots=True)
class Opening:
    """What a client asked for, found right. `window_bits` is the server's deflate window, 0 where messages are not compressed."""

    key: bytes  # empty over HTTP/2
    subprotocols: list[str]
    extensions: bytes
    window_bits: int

    def answer(self, subprotocol: str | None, headers: Iterable[Iterable[bytes]]) -> Fields:
        """Give the fields of the answer. Raises `InvalidMessage` for what the application may not say."""
        fields: Fields = []
        if self.key:  # RFC 8441 §5: over HTTP/2 there is neither key nor accept value
            fields += [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-accept", accept_value(self.key))]
        if subprotocol is not None:
            if subprotocol not in self.subprotocols:  # RFC 6455 §4.2.2: a client has to fail a connection with one it did not offer
                message = f"the subprotocol has to be one that the client offered, {self.subprotocols!r}, not {subprotocol!r}"
                raise InvalidMessage(message)
            fields.append((b"sec-websocket-protocol", subprotocol.encode()))
        if self.extensions:
            fields.append((b"sec-websocket-extensions", self.extensions))
        for lower, name, value in check_fields(headers):
            if lower in _RESERVED:
                raise InvalidMessage(f"{name!r} is the server's to send; a subprotocol is chosen with the key 'subprotocol'")
            if lower not in _FRAMING:
                fields.append((name, value))
        return fields


def read_opening(request: Request, *, deflate: bool = True, origins: frozenset[bytes] = frozenset()) -> Opening:
    """Judge a request that asks for a WebSocket. Raises `HandshakeRefused`.

    `origins`: lower-case origins (`https://example.com`, `https://.example.com` for all below it) that may open one; empty allows any. A
    client that names no origin is no browser, and none of its user's cookies are at stake (spec attacks D6).
    """
    key: list[bytes] = []
    versions: list[bytes] = []
    protocols: list[bytes] = []
    offers: list[bytes] = []
    named_origins: list[bytes] = []
    wanted = {
        b"sec-websocket-key": key,
        b"sec-websocket-version": versions,
        b"sec-websocket-protocol": protocols,
        b"sec-websocket-extensions": offers,
        b"origin": named_origins,
    }
    for name, value in request.headers:
        found = wanted.get(name)
        if found is not None:
            found.append(value)
    over_http2 = request.version == "2"  # RFC 8441 §5: its engine has judged the method
    if not over_http2 and request.method != "GET":
        raise HandshakeRefused(400, "a WebSocket handshake whose method is not GET")
    if len(versions) > 1:
        raise HandshakeRefused(400, "more than one Sec-WebSocket-Version")
    if versions != [b"13"]:
        if over_http2:
            raise HandshakeRefused(400, "a WebSocket version other than 13", _SUPPORTED_VERSION[:1])
        raise HandshakeRefused(426, "a WebSocket version other than 13", _SUPPORTED_VERSION)
    if not over_http2 and (len(key) != 1 or not _KEY.fullmatch(key[0])):
        raise HandshakeRefused(400, "Sec-WebSocket-Key is not 16 bytes in base64")
    if origins and not all(_origin_allowed(origin, origins) for origin in named_origins):
        raise HandshakeRefused(403, "an Origin that is not among the allowed origins")
    subprotocols = read_subprotocols(b",".join(protocols)) if protocols else []
    extensions, window_bits = negotiate_deflate(b",".join(offers)) if offers and deflate else (b"", 0)
    return Opening(b"" if over_http2 else key[0], subprotocols, extensions, window_bits)


def accept_value(key: bytes) -> bytes:
    """Prove that the handshake was understood (RFC 6455 §4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def read_subprotocols(value: bytes) -> list[str]:
    """Read the offered subprotocols, in the client's order. Raises `HandshakeRefused` where one is no token (spec attacks D5)."""
    names = [name for part in value.split(b",") if (name := part.strip(b" \t"))]
    if not all(map(is_token, names)):
        raise HandshakeRefused(400, "Sec-WebSocket-Protocol is not a list of tokens")
    return [name.decode("ascii") for name in names]


@lru_cache(maxsize=256)
def negotiate_deflate(value: bytes) -> tuple[bytes, int]:
    """Answer a Sec-WebSocket-Extensions field: the field to answer with and the window of our messages, or nothing and 0.

    Raises `HandshakeRefused` where it does not follow the grammar (RFC 6455 §9.1).
    """
    for name, parameters in _read_extensions(value):
        if name != _DEFLATE or any(not _is_window(text) for key in _WINDOWED & parameters.keys() for text in parameters[key]):
            continue
        try:
            offer = PerMessageDeflateOffer.parse(parameters)
        except Exception:  # noqa: BLE001, S112 - autobahn's word for an offer that is to be declined (RFC 7692 §7.1) is a bare Exception
            continue
        offer.request_no_context_takeover = True  # RFC 7692 §7.1.1.1: the answer may have it whether it was asked for or not
        window_bits = offer.request_max_window_bits or _LARGEST_WINDOW
        answer = PerMessageDeflateOfferAccept(offer, request_no_context_takeover=True, window_bits=window_bits)
        return answer.get_extension_string().encode(), window_bits
    return b"", 0


def _is_window(text: str | bool) -> bool:  # noqa: FBT001 - autobahn's way to say "no value"
    return text is True or (isinstance(text, str) and _WINDOW_BITS.fullmatch(text) is not None)


def _read_extensions(value: bytes) -> list[tuple[str, dict[str, list[str | bool]]]]:
    """Read names and parameters; True stands for a parameter without a value, as autobahn's classes want it."""
    found: list[tuple[str, dict[str, list[str | bool]]]] = []
    position, starts = 0, True
    while position < len(value):
        if starts and (empty := _EMPTY_MEMBER.match(value, position)):
            position = empty.end()
            continue
        step = _STEP.match(value, position)
        if step is None or (starts and (step[2] is not None or step[3] is not None)):
            raise HandshakeRefused(400, "malformed Sec-WebSocket-Extensions")
        name = step[1].decode("ascii")
        if starts:
            found.append((name, {}))
        else:
            found[-1][1].setdefault(name, []).append(_value_of(step))
        starts = step[4] != b";"
        position = step.end()
    if not starts:
        raise HandshakeRefused(400, "malformed Sec-WebSocket-Extensions")
    return found


def _value_of(step: re.Match[bytes]) -> str | bool:
    token, quoted = step[2], step[3]
    if quoted is not None:
        token = re.sub(rb"\\(.)", rb"\1", quoted, flags=re.DOTALL)
        if not is_token(token):  # RFC 6455 §9.1: the value after unescaping conforms to token
            raise HandshakeRefused(400, "malformed Sec-WebSocket-Extensions")
    return True if token is None else token.decode("ascii")


def normal_origin(origin: str) -> bytes:
    """Write an origin as browsers do: in lower case, without the port that its scheme has anyway (RFC 6454 §6.2)."""
    name = origin.lower()
    scheme = name.partition("://")[0]
    return name.removesuffix(_DEFAULT_PORTS.get(scheme, "")).encode()


def _origin_allowed(origin: bytes, allowed: frozenset[bytes]) -> bool:
    name = origin.lower()
    if name in allowed:
        return True
    scheme, separator, host = name.partition(b"://")
    return any(
        entry.startswith(scheme + separator + b".") and (host.endswith(entry[len(scheme) + 3 :]) or host == entry[len(scheme) + 4 :])
        for entry in allowed
        if separator
    )
