"""A WebSocket client made of nothing but a socket: it sends what a test wants, right or wrong."""

import base64
import hashlib
import os
import struct
from dataclasses import dataclass
from typing import Any, Self

from e2e.server import Client, Response, Server

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
KEY = base64.b64encode(b"sixteen bytes ..").decode()


def frame(opcode: int, payload: bytes = b"", *, final: bool = True, rsv: int = 0, mask: bytes | None = b"\x37\xfa\x21\x3d") -> bytes:
    """Build a client's frame; `mask=None` leaves it unmasked."""
    first, masked = (0x80 if final else 0) | rsv << 4 | opcode, 0 if mask is None else 0x80
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, masked | size)
    elif size < 65_536:
        head = struct.pack("!BBH", first, masked | 126, size)
    else:
        head = struct.pack("!BBQ", first, masked | 127, size)
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def closing(code: int, reason: str = "") -> bytes:
    """Build a Close frame."""
    return frame(CLOSE, struct.pack("!H", code) + reason.encode())


@dataclass(slots=True)
class Frame:
    """A server's frame."""

    opcode: int
    payload: bytes
    final: bool
    rsv: int

    @property
    def code(self) -> int:
        """The close code."""
        assert self.opcode == CLOSE, self
        return int.from_bytes(self.payload[:2], "big")

    @property
    def reason(self) -> str:
        """The close reason."""
        return self.payload[2:].decode()


class SocketClient(Client):
    """One WebSocket. Every wait is bounded."""

    def __init__(self, server: Server, path: str, *fields: str, rest: bytes = b"", **options: Any) -> None:
        """Connect and ask; `rest` is sent in one piece with the request."""
        super().__init__((server.host, server.port), **options)
        self._buffer = b""
        self.send(upgrade(path, *fields) + rest)

    @classmethod
    def open(cls, server: Server, path: str, *fields: str, **options: Any) -> Self:
        """Connect, and see that the server accepts rightly."""
        client = cls(server, path, *fields, **options)
        answer = client.handshake()
        assert answer.status == 101, answer
        return client

    def handshake(self) -> Response:
        """Read the answer to the request."""
        answer = self.response()
        if answer.status == 101:
            proof = hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
            assert answer["sec-websocket-accept"] == base64.b64encode(proof).decode()
            assert answer["upgrade"] == "websocket"
            assert answer["connection"] == "Upgrade"
            self._buffer, self._came = self._came, b""
        return answer

    def say(self, text: str) -> None:
        """Send a text message."""
        self.send(frame(TEXT, text.encode(), mask=os.urandom(4)))

    def _read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = self.socket.recv(262_144)
            assert data, f"ended after {self._buffer!r}"
            self._buffer += data
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def next_frame(self) -> Frame:
        """Read one frame."""
        first, second = self._read(2)
        assert second < 128, "a server masks nothing"
        size = second
        if second == 126:
            size = int.from_bytes(self._read(2), "big")
        elif second == 127:
            size = int.from_bytes(self._read(8), "big")
        return Frame(first & 15, self._read(size), bool(first & 0x80), first >> 4 & 7)

    def hear(self) -> str:
        """Read one text message."""
        found = self.next_frame()
        assert found.opcode == TEXT, found
        return found.payload.decode()

    def farewell(self) -> Frame:
        """Read up to a Close frame and then to the end of the connection."""
        while (found := self.next_frame()).opcode != CLOSE:
            pass
        assert self._buffer == b""
        return found

    def end(self) -> bool:
        """Read to the end of the connection, where no more bytes may come; whether it was reset."""
        try:
            assert self._buffer == b""
            assert self.socket.recv(1) == b""
        except ConnectionResetError:
            return True
        return False


def upgrade(path: str, *fields: str, version: str = "13", key: str = KEY) -> bytes:
    """Build the request of a handshake."""
    lines = [f"GET {path} HTTP/1.1", "Host: a", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"Sec-WebSocket-Key: {key}", f"Sec-WebSocket-Version: {version}", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")
