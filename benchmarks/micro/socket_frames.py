"""Frames in and out: a whole short message where it stands, and the long way that everything else goes; a broadcast compressed once."""

from __future__ import annotations

import itertools

from termserver.config import Limits
from termserver.wire.events import SocketEvent
from termserver.wire.websocket import Terms, WebSocket

_MASK = b"\x37\xfa\x21\x3d"
_TEXT = b"x" * 64
_PAYLOAD = bytes(byte ^ _MASK[index % 4] for index, byte in enumerate(_TEXT))
_WHOLE = bytes((0x81, 0x80 | 64)) + _MASK + _PAYLOAD
_FRAGMENTS = bytes((0x01, 0x80 | 64)) + _MASK + _PAYLOAD + bytes((0x80, 0x80)) + _MASK  # the same message, then an empty last fragment
_terms = Terms(Limits())
_plain, _compressing = WebSocket(_terms), WebSocket(_terms, 15)
_page = "a line of some room's talk, as JSON it might be " * 50
_pages = itertools.cycle([f"{number} {_page}" for number in range(200)])


def _send(socket: WebSocket, message: str) -> list[bytes]:
    socket.send(message)
    return socket.output()


def _receive(data: bytes) -> list[SocketEvent]:
    return _plain.receive(data, 1.0)


CASES = {
    "whole message in": lambda: _receive(_WHOLE),
    "the long way in": lambda: _receive(_FRAGMENTS),
    "short message out": lambda: _send(_plain, "hello, everybody"),
    "2 KiB out, compressed before": lambda: _send(_compressing, _page),
    "2 KiB out, compressed": lambda: _send(_compressing, next(_pages)),
}
CLAIMS = (
    ("whole message in", "the long way in", 0.5),
    ("2 KiB out, compressed before", "2 KiB out, compressed", 0.3),
)
