"""An HTTP/2 client made of nothing but a socket: it sends the frames a test wants, right or wrong (RFC 9113). Only HPACK is borrowed."""

import contextlib
import ssl
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hpack import Decoder, Encoder

from certificates import Authority
from e2e.server import Client, Server, wait_until
from e2e.sockets import Frame as SocketFrame

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
NAMES = ("DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE", "CONTINUATION")
END_STREAM = ACK = 0x1
END_HEADERS, PADDED = 0x4, 0x8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LARGEST_WINDOW = (1 << 31) - 1
Fields = list[tuple[str, str]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Build a frame."""
    return struct.pack("!IBI", len(payload) << 8 | kind, flags, stream) + payload


def settings(values: dict[int, int]) -> bytes:
    """Build a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack("!HI", *each) for each in values.items()))


def window_update(stream: int, size: int) -> bytes:
    """Build a WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream, struct.pack("!I", size))


def rst_stream(stream: int, code: ErrorCodes = ErrorCodes.CANCEL) -> bytes:
    """Build a RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, struct.pack("!I", code))


class Frame(NamedTuple):
    """A frame of the server's."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> ErrorCodes:
        """The error code of RST_STREAM and GOAWAY."""
        start = {RST_STREAM: 0, GOAWAY: 4}[self.kind]
        return ErrorCodes(int.from_bytes(self.payload[start : start + 4], "big"))

    @property
    def last_stream(self) -> int:
        """The last stream that a GOAWAY says is served."""
        assert self.kind == GOAWAY, self
        return int.from_bytes(self.payload[:4], "big")

    def __str__(self) -> str:
        return f"{NAMES[self.kind] if self.kind < len(NAMES) else self.kind} {self.flags:#x} on {self.stream}: {self.payload[:40]!r}"


@dataclass(slots=True)
class Answer:
    """What came on a stream, as far as it came."""

    status: int = 0
    headers: Fields = field(default_factory=list)
    body: bytes = field(default=b"", repr=False)
    trailers: Fields = field(default_factory=list)
    interim: list[tuple[int, Fields]] = field(default_factory=list)
    ended: bool = False
    reset: ErrorCodes | None = None

    def __getitem__(self, name: str) -> str:
        """Give a header's value."""
        return ", ".join(value for each, value in self.headers if each == name)

    def take_head(self, fields: Fields) -> None:
        """Take a header block."""
        if self.status:
            self.trailers = fields
            return
        assert fields[0][0] == ":status", fields
        status, rest = int(fields[0][1]), fields[1:]
        if status < 200:
            self.interim.append((status, rest))
        else:
            self.status, self.headers = status, rest


def offering(authority: Authority, *protocols: str, **options: Any) -> ssl.SSLContext:
    """Give a context that offers these protocols by ALPN."""
    context = authority.client(**options)
    context.set_alpn_protocols(list(protocols))
    return context


class Http2Client:
    """One connection. It answers SETTINGS and PING and opens windows, unless told not to. Every wait is bounded."""

    def __init__(
        self,
        server: Server,
        values: dict[int, int] | None = None,
        *,
        greets: bool = True,
        acknowledges: bool = True,
        opens_windows: bool = True,
        **options: Any,
    ) -> None:
        """Connect. `values`: its settings; `options` as for `server.connect`."""
        self.server = server
        self.connection: Client = server.connect(**options)
        self.local_port: int = self.connection.socket.getsockname()[1]
        self.acknowledges = acknowledges
        self.opens_windows = opens_windows
        self.encoder, self._decoder = Encoder(), Decoder()
        self.answers: dict[int, Answer] = {}
        self.frames: list[Frame] = []  # all that came
        self.their_settings: dict[int, int] = {}
        self.last = -1
        self.cut = False  # the connection ended by a reset, or without a close alert
        self._held = b""
        if greets:
            self.send(PREFACE + settings({SettingCodes.ENABLE_PUSH: 0} if values is None else values))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.socket.close()

    # what it says

    def send(self, data: bytes) -> None:
        """Send bytes; a server that has closed already is no error, its answer is what counts."""
        with contextlib.suppress(ssl.SSLError):
            self.connection.send(data)

    def head(self, path: str, *fields: tuple[str, str], method: str = "GET", scheme: str = "http") -> bytes:
        """Build a header block."""
        pseudo = [(":method", method), (":scheme", scheme), (":authority", "a"), (":path", path)]
        encoded: bytes = self.encoder.encode([*pseudo, *fields])
        return encoded

    def next_stream(self) -> int:
        """Give the number of the next stream."""
        self.last += 2
        return self.last

    def ask(self, path: str, *fields: tuple[str, str], body: bytes | None = None, ended: bool = True, method: str = "") -> int:
        """Send a request; give its stream. `ended=False`: more of its body comes."""
        number = self.next_stream()
        end = END_STREAM if ended else 0
        method = method or ("GET" if body is None and ended else "POST")
        self.send(frame(HEADERS, END_HEADERS | (0 if body is not None else end), number, self.head(path, *fields, method=method)))
        if body is not None:
            self.data(number, body, ended=ended)
        return number

    def data(self, number: int, body: bytes, *, ended: bool = False) -> None:
        """Send body bytes, whether the windows have room or not."""
        parts = [body[start : start + 16_384] for start in range(0, len(body), 16_384)] or [b""]
        for index, part in enumerate(parts):
            self.send(frame(DATA, END_STREAM if ended and index == len(parts) - 1 else 0, number, part))

    def get(self, path: str, *fields: tuple[str, str]) -> Answer:
        """Ask and read the whole answer."""
        return self.answer(self.ask(path, *fields))

    # what it hears

    def next_frame(self) -> Frame | None:
        """Read a frame, and do what it asks for; None at the end of the connection."""
        raw = self._read(9)
        if raw is None:
            return None
        word, flags, number = struct.unpack("!IBI", raw)
        assert word >> 8 <= 16_384, f"a frame of {word >> 8} bytes"
        payload = self._read(word >> 8)
        if payload is None:
            return None
        found = Frame(word & 0xFF, flags, number, payload)
        self.frames.append(found)
        self._take(found)
        return found

    def _read(self, size: int) -> bytes | None:
        while len(self._held) < size:
            try:
                data = self.connection.socket.recv(262_144)
            except (ConnectionResetError, ssl.SSLEOFError):
                data, self.cut = b"", True
            if not data:
                return None
            self._held += data
        taken, self._held = self._held[:size], self._held[size:]
        return taken

    def _take(self, found: Frame) -> None:
        kind, flags, number, payload = found
        if kind == SETTINGS and not flags & ACK:
            self.their_settings.update(struct.iter_unpack("!HI", payload))
            if self.acknowledges:
                self.send(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK and self.acknowledges:
            self.send(frame(PING, ACK, 0, payload))
        elif kind == HEADERS:
            assert flags & END_HEADERS, "no test makes the server send so much"
            answer = self.answers.setdefault(number, Answer())
            answer.take_head(self._decoder.decode(payload))
            answer.ended = answer.ended or bool(flags & END_STREAM)
        elif kind == DATA:
            answer = self.answers.setdefault(number, Answer())
            answer.body += payload
            answer.ended = answer.ended or bool(flags & END_STREAM)
            if self.opens_windows and payload:
                self.send(window_update(0, len(payload)) + (b"" if answer.ended else window_update(number, len(payload))))
        elif kind == RST_STREAM:
            self.answers.setdefault(number, Answer()).reset = found.code

    def wait(self, condition: Callable[[Frame], object], what: str = "a frame") -> Frame:
        """Read up to the frame that is meant."""
        while (found := self.next_frame()) is not None:
            if condition(found):
                return found
        raise AssertionError(f"ended without {what}: {', '.join(map(str, self.frames[-10:]))}, {self.answers}")

    def answer(self, number: int) -> Answer:
        """Read to the end of a stream: its last frame, or a reset."""
        answer = self.answers.setdefault(number, Answer())
        while not (answer.ended or answer.reset is not None):
            self.wait(lambda found: found.stream == number, f"the end of stream {number}")
        return answer

    def answer_of(self, numbers: Iterable[int]) -> list[Answer]:
        """Read to the end of several."""
        return [self.answer(number) for number in numbers]

    def beat(self) -> None:
        """Send a PING and read up to its answer: all that was sent before it has been taken in."""
        self.send(frame(PING, 0, 0, b"a beat.."))
        self.wait(lambda found: found.kind == PING and found.flags & ACK, "an answer to PING")

    def reset_of(self, number: int) -> ErrorCodes:
        """Read up to the reset of a stream."""
        answer = self.answers.setdefault(number, Answer())
        while answer.reset is None:
            self.wait(lambda found: found.kind == RST_STREAM and found.stream == number, f"RST_STREAM {number}")
        return answer.reset

    def goaway(self, *, closes: bool = False) -> ErrorCodes:
        """Read to the end of the connection, which the server makes; give the code of the last GOAWAY. `closes` as for `rest`."""
        codes = [found.code for found in self.rest(closes=closes) if found.kind == GOAWAY]
        assert codes, f"no GOAWAY among {', '.join(map(str, self.frames[-10:]))}"
        return codes[-1]

    def rest(self, *, closes: bool = False) -> list[Frame]:
        """Read to the end; give all the frames that ever came. For the server the connection is over as well.

        `closes`: then close this side too, as clients do. Otherwise the server has to leave by itself, which takes it a while.
        """
        while self.next_frame() is not None:
            pass
        if closes:
            self.connection.socket.close()
        wait_until(lambda: not self.is_held(), "the server to let go of the connection")
        return self.frames

    def is_held(self) -> bool:
        """Whether the server's process still holds its end of the connection."""
        with open("/proc/net/tcp") as table:
            rows = [line.split() for line in table][1:]
        ends = [(int(row[1].split(":")[1], 16), int(row[2].split(":")[1], 16), row[9]) for row in rows]
        return any((here, there) == (self.server.port, self.local_port) and inode != "0" for here, there, inode in ends)


class StreamSocket:
    """A WebSocket on a stream (RFC 8441)."""

    def __init__(self, client: Http2Client, path: str, *fields: tuple[str, str]) -> None:
        """Ask for it."""
        self.client = client
        if not client.their_settings:
            client.wait(lambda found: found.kind == SETTINGS and not found.flags & ACK, "SETTINGS")
        assert client.their_settings[SettingCodes.ENABLE_CONNECT_PROTOCOL] == 1
        self.number = client.next_stream()
        pseudo = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", path), (":authority", "a")]
        block = client.encoder.encode([*pseudo, ("sec-websocket-version", "13"), *fields])
        client.send(frame(HEADERS, END_HEADERS, self.number, block))
        self._read = 0

    @property
    def answer(self) -> Answer:
        """What came so far."""
        return self.client.answers.setdefault(self.number, Answer())

    def opened(self) -> Self:
        """Wait for the server's yes."""
        assert self.handshake().status == 200, self.answer
        assert not self.answer.ended
        return self

    def handshake(self) -> Answer:
        """Wait for the server's word."""
        while not self.answer.status:
            self.client.wait(lambda found: found.stream == self.number, "an answer to CONNECT")
        return self.answer

    def send(self, data: bytes, *, ended: bool = False) -> None:
        """Send frames of a WebSocket."""
        self.client.data(self.number, data, ended=ended)

    def next_frame(self) -> SocketFrame:
        """Read a frame of a WebSocket."""
        first, second = self._take(2)
        assert second < 128, "a server masks nothing"
        size = second
        if second >= 126:
            size = int.from_bytes(self._take(2 if second == 126 else 8), "big")
        return SocketFrame(first & 15, self._take(size), bool(first & 0x80), first >> 4 & 7)

    def _take(self, size: int) -> bytes:
        answer = self.answer
        while len(answer.body) - self._read < size:
            assert not answer.ended, f"ended after {answer.body[self._read :]!r}"
            assert answer.reset is None, f"reset with {answer.reset!r}"
            self.client.wait(lambda found: found.stream == self.number, "a frame of the WebSocket")
        self._read += size
        return answer.body[self._read - size : self._read]

    def end(self) -> Answer:
        """Read to the end of the stream, where no more of the WebSocket may come."""
        answer = self.client.answer(self.number)
        assert answer.body[self._read :] == b""
        return answer
