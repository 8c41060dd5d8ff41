"""What is said on one WebSocket connection outside the measured loops: opening, the first exchange, pings, the end.

Dialogues are generators over a socket that has something to read whenever they are sent bytes (`b""` at its end). So the same words serve
one blocking socket (`ask`), and thousands in an epoll loop (`crowd.py`).
"""

from __future__ import annotations

import random
import socket
from collections.abc import Generator
from typing import TYPE_CHECKING, TypeAlias

from benchmarks.load.frames import ACCEPT, CLOSE, PING, PONG, Frame, Wrong, client_frame, deflated, inflated, split
from benchmarks.load.scenarios import Load

if TYPE_CHECKING:
    from benchmarks.load.scenarios import Scenario

Dialogue: TypeAlias = Generator[None, bytes, None]

_ANSWER_SECONDS = 10.0
_END = b"\r\n\r\n"
_EXTENSION = b"permessage-deflate"
_NORMAL = (1000).to_bytes(2, "big")


def mask_of(number: int) -> bytes:
    """Answer the mask of a connection: any, but the same in every run."""
    return random.Random(number).randbytes(4)


def pong(ping: Frame) -> bytes:
    """Answer the frame that answers `ping`."""
    return client_frame(PONG, ping.payload, mask_of(0))


def opening(sock: socket.socket, scenario: Scenario, number: int) -> Dialogue:
    """Shake hands, say one message and see that the whole answer is right."""
    talk = scenario.talk
    sock.send(scenario.requests[0])
    data = b""
    while (end := data.find(_END)) < 0:
        data += yield from _some(data)
    head, data = data[:end], data[end + len(_END) :]
    if not head.startswith(b"HTTP/1.1 101 ") or ACCEPT not in head:
        message = f"expected 101 and the right Sec-WebSocket-Accept, got {head[:200]!r}"
        raise Wrong(message)
    said, compressed = talk.message(number), _EXTENSION in head
    sock.send(client_frame(talk.opcode, deflated(said) if compressed else said, mask_of(number), compressed=compressed))
    frame, more = yield from _message(sock, data)
    heard = inflated(frame.payload) if frame.compressed else frame.payload
    if frame.opcode != talk.opcode or heard != talk.answer(number) or more:
        message = f"expected the message {talk.answer(number)[:20]!r}… alone, got {heard[:20]!r}…{' and more' * more}"
        raise Wrong(message)


def closing(sock: socket.socket) -> Dialogue:
    """Close and wait until the server has answered and closed the connection, as it is the first to do (RFC 6455 §7.1.1)."""
    sock.send(client_frame(CLOSE, _NORMAL, mask_of(0)))
    frame, _ = yield from _message(sock, b"")
    if frame.opcode != CLOSE or frame.payload[:2] != _NORMAL:
        message = f"expected the answer to Close 1000, got opcode {frame.opcode} with {frame.payload[:20]!r}"
        raise Wrong(message)
    while (yield):
        pass


def life(sock: socket.socket, scenario: Scenario, number: int) -> Dialogue:
    """All of a connection: opening handshake, one exchange, closing handshake."""
    yield from opening(sock, scenario, number)
    yield from closing(sock)


def ask(port: int, scenario: Scenario) -> None:
    """Open a connection and exchange a message, or lead all of its life where that is measured. Raises Wrong, OSError."""
    with socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_SECONDS) as sock:
        dialogue = (life if scenario.load is Load.LIVES else opening)(sock, scenario, 0)
        next(dialogue)
        try:
            while True:
                dialogue.send(sock.recv(1 << 16))
        except StopIteration:
            return
        except TimeoutError:
            wanted = "answer, or no end of the connection after Close," if scenario.load is Load.LIVES else "answer"
            message = f"no whole {wanted} within {_ANSWER_SECONDS:g} s"
            raise Wrong(message) from None


def _some(before: bytes) -> Generator[None, bytes, bytes]:
    data = yield
    if not data:
        message = f"the server closed the connection after {before[:200]!r}"
        raise Wrong(message)
    return data


def _message(sock: socket.socket, data: bytes) -> Generator[None, bytes, tuple[Frame, bool]]:
    """Answer the next frame that is not a ping, and whether anything has come after it."""
    while True:
        frames, rest = split(data)
        for place, frame in enumerate(frames, 1):
            if frame.opcode != PING:
                return frame, bool(rest) or place < len(frames)
            sock.send(pong(frame))
        data = rest + (yield from _some(rest))
