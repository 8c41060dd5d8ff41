"""Thousands of idle WebSockets in one process, each of them a protocol of the loop's and nothing else."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_CLOSE, _PING = 0x88, 0x89
_AT_ONCE = 100


@dataclass
class Crowd:
    """What became of them."""

    opened: int = 0
    failed: int = 0
    codes: Counter[int] = field(default_factory=Counter)  # 1006: no close frame
    ended_at: list[float] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)  # all of them


class Idler(asyncio.Protocol):
    """One of them."""

    def __init__(self, crowd: Crowd) -> None:
        """Belong to a crowd."""
        self._crowd = crowd
        self.opened: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._came = b""
        self._transport: asyncio.Transport
        self._code = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for a WebSocket."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(transport)
        self._transport = transport
        transport.write(HANDSHAKE)

    def data_received(self, data: bytes) -> None:
        """Take the handshake's answer, then frames."""
        self._came += data
        if not self.opened.done():
            head, found, rest = self._came.partition(b"\r\n\r\n")
            if not found:
                return
            self.opened.set_result(head.startswith(b"HTTP/1.1 101"))
            self._came = rest
        while len(self._came) >= 2 and len(self._came) >= 2 + self._came[1]:
            kind, size = self._came[0], self._came[1]
            payload, self._came = self._came[2 : 2 + size], self._came[2 + size :]
            self._take(kind, payload)

    def _take(self, kind: int, payload: bytes) -> None:
        if kind == _CLOSE:
            self._code = int.from_bytes(payload[:2])
            self._crowd.ended_at.append(time.monotonic())
            self._transport.write(bytes((_CLOSE, 0x80 | len(payload), 0, 0, 0, 0)) + payload)  # masked with nothing
        elif kind == _PING:
            self._transport.write(bytes((0x8A, 0x80 | len(payload), 0, 0, 0, 0)) + payload)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Note how it ended."""
        if not self.opened.done():
            self.opened.set_result(False)
        elif self._code or self.opened.result():
            self._crowd.codes[self._code or 1006] += 1
            if self._crowd.codes.total() == self._crowd.opened:
                self._crowd.ended.set()


async def gather_crowd(port: int, count: int) -> Crowd:
    """Open so many."""
    crowd = Crowd()
    loop = asyncio.get_running_loop()
    for begin in range(0, count, _AT_ONCE):
        opening = [
            loop.create_connection(lambda: Idler(crowd), "127.0.0.1", port, local_addr=(f"127.0.0.{2 + place % 4}", 0))
            for place in range(begin, min(begin + _AT_ONCE, count))
        ]
        made = [protocol for _, protocol in await asyncio.gather(*opening)]
        answers = await asyncio.gather(*(protocol.opened for protocol in made))
        crowd.opened += sum(answers)
    crowd.failed = count - crowd.opened
    return crowd
