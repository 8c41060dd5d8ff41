"""Many WebSocket connections in one epoll loop: opened a few at a time, each with a verified exchange; closed in order.

What is read on the way is parsed frame by frame here (`messages`). The measured loops in `talkers.py` compare bytes themselves and come
here with what is not just the answer they wait for: a piece of one, or a ping.
"""

from __future__ import annotations

import select
import socket
from time import monotonic
from typing import TYPE_CHECKING

from benchmarks.load.dialogue import Dialogue, closing, opening, pong
from benchmarks.load.frames import CLOSE, PING, Wrong, split

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.load.scenarios import Scenario

_SOURCES = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")  # one address has ports for some 28 000 connections
_IP_BIND_ADDRESS_NO_PORT = 24  # <linux/in.h>; in Python's socket module from 3.12
_AT_ONCE = 32  # dialogues: less than the shortest queue of a listening socket (twisted's 50)
_ANSWER_SECONDS, _CLOSE_SECONDS, _WAIT_SECONDS = 10.0, 3.0, 0.5
_CHUNK = 1 << 16


class Crowd:
    """The connections of one client process. `sockets` are those that are open, by descriptor."""

    def __init__(self, scenario: Scenario, port: int) -> None:
        """Open none yet."""
        self.scenario, self._port = scenario, port
        self.epoll = select.epoll()
        self.sockets: dict[int, socket.socket] = {}
        self.numbers: dict[int, int] = {}
        self._dialogues: dict[int, Dialogue] = {}
        self._partial: dict[int, bytes] = {}
        self.received = 0
        self.errors: dict[str, int] = {}
        self.complaint = ""  # the first error in words

    def open(self, count: int) -> None:
        """Open `count` connections and exchange a first message on each. Raises Wrong, OSError."""
        turn, last = 0, monotonic()
        while turn < count or self.talking:
            while turn < count and self.talking < _AT_ONCE:
                self.begin(turn, opening)
                turn += 1
            if self.advance():
                last = monotonic()
            elif monotonic() - last > _ANSWER_SECONDS:
                self.complaint = self.complaint or f"no answer within {_ANSWER_SECONDS:g} s"
            if self.complaint:
                message = f"{self.complaint} ({len(self.sockets)} of {count} sockets open)"
                raise Wrong(message)

    def close(self) -> None:
        """Lead the closing handshake on all connections; those that do not end with it are left to the kernel."""
        for descriptor, sock in list(self.sockets.items()):
            self._start(descriptor, closing(sock))
        last = monotonic()
        while self.talking and monotonic() - last < _CLOSE_SECONDS:
            if self.advance():
                last = monotonic()

    @property
    def talking(self) -> int:
        """How many dialogues are under way."""
        return len(self._dialogues)

    def begin(self, number: int, dialogue: Callable[[socket.socket, Scenario, int], Dialogue]) -> int:
        """Connect and begin a dialogue; answers the descriptor. Raises OSError where there is no connection."""
        sock = self._connect(number)
        self._start(sock.fileno(), dialogue(sock, self.scenario, number))
        return sock.fileno()

    def advance(self, wait: float = _WAIT_SECONDS) -> list[int]:
        """Hand out what has come; answers the connections whose dialogue is over. What goes wrong is counted and dropped."""
        over = []
        for descriptor, _ in self.epoll.poll(wait):
            data, dialogue = self.read(descriptor), self._dialogues.get(descriptor)
            if dialogue is None:
                if self.messages(descriptor, data):
                    self.error("unexpected")
                continue
            try:
                dialogue.send(data)
            except StopIteration:
                del self._dialogues[descriptor]
                over.append(descriptor)
            except (Wrong, OSError) as problem:
                self._give_up(descriptor, problem)
        return over

    def _start(self, descriptor: int, dialogue: Dialogue) -> None:
        self._dialogues[descriptor] = dialogue
        try:
            next(dialogue)
        except OSError as problem:
            self._give_up(descriptor, problem)

    def _give_up(self, descriptor: int, problem: Exception) -> None:
        self.complaint = self.complaint or str(problem)
        self.error("wrong" if isinstance(problem, Wrong) else "lost")
        self.drop(descriptor)

    def _connect(self, number: int) -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((_SOURCES[number % len(_SOURCES)], 0))
        sock.connect(("127.0.0.1", self._port))  # on loopback at once, as long as the server's queue has room
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.epoll.register(sock.fileno(), select.EPOLLIN)
        self.sockets[sock.fileno()] = sock
        self.numbers[sock.fileno()] = number
        return sock

    def drop(self, descriptor: int) -> None:
        """Close a socket and forget it."""
        self._dialogues.pop(descriptor, None)
        self._partial.pop(descriptor, None)
        del self.numbers[descriptor]
        self.sockets.pop(descriptor).close()

    def lose(self, descriptor: int) -> None:
        """Count a connection that is over before its time, unless that was done."""
        if descriptor in self.sockets:
            self.error("lost")
            self.drop(descriptor)

    def error(self, kind: str, count: int = 1) -> None:
        """Count errors."""
        self.errors[kind] = self.errors.get(kind, 0) + count

    def messages(self, descriptor: int, data: bytes) -> list[bytes]:
        """Answer the messages that are whole with these bytes; pings are answered on the way. A connection that ends is dropped."""
        try:
            frames, self._partial[descriptor] = split(self._partial.get(descriptor, b"") + data)
            if not data or any(frame.opcode == CLOSE for frame in frames):
                self.lose(descriptor)
                return []
            for frame in frames:
                if frame.opcode == PING:
                    self.sockets[descriptor].send(pong(frame))
        except (Wrong, OSError) as problem:
            self._give_up(descriptor, problem)
            return []
        return [frame.payload for frame in frames if frame.opcode != PING]

    def read(self, descriptor: int) -> bytes:
        """Answer what has come, nothing where the connection is over."""
        try:
            data = self.sockets[descriptor].recv(_CHUNK)
        except OSError:
            data = b""
        self.received += len(data)
        return data
