"""An HTTP/2 client of raw frames for the tests of the engine: it sends whatever it is told to, and reads what comes back. No I/O.

Every frame is built by hand, header blocks by the hpack package, each with an encoder of its own: no block depends on another one.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hpack import Decoder, Encoder

from termserver.config import Limits
from termserver.wire import h2frames as f
from termserver.wire.events import Aborted, Body, Ending, Event, Fault, Fields, Request, Trailers
from termserver.wire.h2head import HeadRules
from termserver.wire.h2response import ResponseEncoder
from termserver.wire.h2terms import Http2Terms
from termserver.wire.http2 import Http2
from wire.driving import byte_by_byte

WAYS = ["whole", "byte by byte", "in sevens"]
every_way = pytest.mark.parametrize("way", WAYS)
HELLO = f.PREFACE + f.settings([])
LARGEST = f.LARGEST_WINDOW

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR = (
    ErrorCodes.NO_ERROR,
    ErrorCodes.PROTOCOL_ERROR,
    ErrorCodes.INTERNAL_ERROR,
    ErrorCodes.FLOW_CONTROL_ERROR,
    ErrorCodes.STREAM_CLOSED,
    ErrorCodes.FRAME_SIZE_ERROR,
)
REFUSED_STREAM, COMPRESSION_ERROR, CANCEL = ErrorCodes.REFUSED_STREAM, ErrorCodes.COMPRESSION_ERROR, ErrorCodes.CANCEL
ENHANCE_YOUR_CALM = ErrorCodes.ENHANCE_YOUR_CALM
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = SettingCodes.INITIAL_WINDOW_SIZE, SettingCodes.MAX_FRAME_SIZE
TE = (b"te", b"trailers")
EXPECT = (b"expect", b"100-continue")


def make(**limits: int) -> Http2:
    """Make an engine that knows no one yet."""
    sizes = Limits(**limits)
    return Http2(Http2Terms(sizes, HeadRules(sizes), ResponseEncoder(b"")))


class Sent(NamedTuple):
    """A frame that came from the server."""

    kind: int
    flags: int
    stream: int
    payload: bytes = b""


DRAIN_PING = Sent(f.PING, 0, 0, b"draining")
ACK = Sent(f.SETTINGS, f.ACK, 0)


def read_frames(data: bytes) -> list[Sent]:
    """Cut what was sent into frames."""
    frames = []
    while data:
        word, flags, stream = f.HEAD.unpack_from(data)
        size = word >> 8
        if len(data) < f.HEAD_SIZE + size or size > f.FRAME_SIZE:
            raise AssertionError(f"a frame of {size} bytes, of {len(data)} that were sent")
        frames.append(Sent(word & 0xFF, flags, stream, data[f.HEAD_SIZE : f.HEAD_SIZE + size]))
        data = data[f.HEAD_SIZE + size :]
    return frames


# ---------------------------------------------------------------------- what clients send

frame = f.frame


def block(fields: Iterable[tuple[bytes, bytes]], *, huffman: bool = True) -> bytes:
    """Encode a header block."""
    encoded: bytes = Encoder().encode(list(fields), huffman=huffman)
    return encoded


def fields(method: bytes = b"GET", path: bytes = b"/", *more: tuple[bytes, bytes]) -> Fields:
    """Give the fields of a request."""
    return [(b":method", method), (b":scheme", b"https"), (b":authority", b"a"), (b":path", path), *more]


def length(size: int) -> tuple[bytes, bytes]:
    """Build a Content-Length."""
    return (b"content-length", b"%d" % size)


SOME = block(fields(b"POST", b"/a", (b"x-a", b"1")))
CONNECT: Fields = [
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    (b":scheme", b"https"),
    (b":authority", b"a"),
    (b":path", b"/"),
]


def headers(stream: int, what: Iterable[tuple[bytes, bytes]] | bytes, *, ended: bool = True, whole: bool = True, flags: int = 0) -> bytes:
    """Build a HEADERS frame of fields or of a block."""
    flags |= (f.END_STREAM if ended else 0) | (f.END_HEADERS if whole else 0)
    return frame(f.HEADERS, flags, stream, what if isinstance(what, bytes) else block(what))


def get(stream: int, *more: tuple[bytes, bytes]) -> bytes:
    """Build a GET."""
    return headers(stream, fields(b"GET", b"/", *more))


def post(stream: int, *more: tuple[bytes, bytes]) -> bytes:
    """Build the head of a POST."""
    return headers(stream, fields(b"POST", b"/", *more), ended=False)


def data(stream: int, payload: bytes = b"", *, ended: bool = False, padding: int | None = None) -> bytes:
    """Build a DATA frame."""
    flags = f.END_STREAM if ended else 0
    if padding is None:
        return frame(f.DATA, flags, stream, payload)
    return frame(f.DATA, flags | f.PADDED, stream, bytes((padding,)) + payload + bytes(padding))


def continuation(stream: int, part: bytes, *, whole: bool = True) -> bytes:
    """Build a CONTINUATION frame."""
    return frame(f.CONTINUATION, f.END_HEADERS if whole else 0, stream, part)


def reset(stream: int, code: int = ErrorCodes.CANCEL) -> bytes:
    """Build a RST_STREAM frame."""
    return frame(f.RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def window(stream: int, size: int) -> bytes:
    """Build a WINDOW_UPDATE frame."""
    return frame(f.WINDOW_UPDATE, 0, stream, size.to_bytes(4, "big"))


def ping(payload: bytes = b"12345678", *, ack: bool = False) -> bytes:
    """Build a PING frame."""
    return frame(f.PING, f.ACK if ack else 0, 0, payload)


def priority(stream: int, depends_on: int = 0, *, size: int = 5) -> bytes:
    """Build a PRIORITY frame."""
    return frame(f.PRIORITY, 0, stream, (depends_on.to_bytes(4, "big") + b"\x0f" + bytes(16))[:size])


def priority_update(stream: int, value: bytes) -> bytes:
    """Build a PRIORITY_UPDATE frame."""
    return frame(f.PRIORITY_UPDATE, 0, 0, stream.to_bytes(4, "big") + value)


def settings(*values: tuple[int, int]) -> bytes:
    """Build a SETTINGS frame."""
    return f.settings(values)


# ---------------------------------------------------------------------- the client


@dataclass
class Answer:
    """What came on a stream."""

    heads: list[Fields] = field(default_factory=list)
    body: bytes = b""
    ended: bool = False
    code: int | None = None  # of the RST_STREAM

    @property
    def status(self) -> int:
        """The status of the first head that is final."""
        return next(status for head in self.heads if (status := int(head[0][1])) >= 200)

    @property
    def interims(self) -> list[int]:
        """The statuses before it."""
        return [int(head[0][1]) for head in self.heads if head[0][0] == b":status" and int(head[0][1]) < 200]

    def field(self, name: bytes) -> list[bytes]:
        """Give the values of a field, wherever it stands."""
        return [value for head in self.heads for each, value in head if each == name]


class Client:
    """A client that has said hello, and the engine it talks to."""

    def __init__(self, way: str = "whole", *, greet: bool = True, engine: Http2 | None = None, **limits: int) -> None:
        """`way`: how bytes come to the engine. `greet`: exchange prefaces and acknowledge settings."""
        self.way = way
        self.engine = engine or make(**limits)
        self.now = 1.0
        self.events: list[Event] = []
        self.sent: list[Sent] = []  # all of it, but what was said in the greeting
        self._decoder = Decoder(max_header_list_size=1 << 20)
        self._answers: dict[int, Answer] = {}
        self._block: tuple[Sent, bytes] | None = None
        if greet:
            self.send(HELLO, f.SETTINGS_ACK)
            self.greeting = self.take()
            self.sent.clear()

    def send(self, *pieces: bytes) -> list[Event]:
        """Send; give the events that came of it."""
        events: list[Event] = []
        joined = b"".join(pieces)
        for piece in _cut(joined, self.way):
            events += self.engine.receive(piece, self.now)
        self.events += events
        return events

    def take(self) -> list[Sent]:
        """Give the frames that have come since the last time."""
        frames: list[Sent] = []
        while out := self.engine.output():
            frames += read_frames(out)
        for each in frames:
            self._read(each)
        self.sent += frames
        return frames

    def answer(self, stream: int) -> Answer:
        """Give what came on a stream, to this day."""
        self.take()
        return self._answers.setdefault(stream, Answer())

    def _read(self, each: Sent) -> None:
        answer = self._answers.setdefault(each.stream, Answer())
        if self._block is not None and (each.kind, each.stream) != (f.CONTINUATION, self._block[0].stream):
            raise AssertionError(f"{each} in a header block")
        if each.stream and (answer.ended or answer.code is not None) and each.kind not in {f.RST_STREAM, f.WINDOW_UPDATE, f.CONTINUATION}:
            raise AssertionError(f"{each} behind the end")
        if each.kind in {f.HEADERS, f.CONTINUATION}:
            first, before = self._block or (each, b"")
            self._block = (first, before + each.payload)
            answer.ended |= bool(each.kind == f.HEADERS and each.flags & f.END_STREAM)
            if each.flags & f.END_HEADERS:
                answer.heads.append([(bytes(name), bytes(value)) for name, value in self._decoder.decode(self._block[1], raw=True)])
                self._block = None
        elif each.kind == f.DATA:
            answer.body += each.payload
            answer.ended |= bool(each.flags & f.END_STREAM)
        elif each.kind == f.RST_STREAM:
            if answer.code is not None:
                raise AssertionError(f"{each}: a second one")
            answer.code = int.from_bytes(each.payload, "big")

    @property
    def goaways(self) -> list[tuple[int, int]]:
        """The last stream and the code of every GOAWAY."""
        self.take()
        return [
            (int.from_bytes(each.payload[:4], "big"), int.from_bytes(each.payload[4:8], "big"))
            for each in self.sent
            if each.kind == f.GOAWAY
        ]

    @property
    def resets(self) -> list[tuple[int, int]]:
        """The stream and the code of every RST_STREAM."""
        self.take()
        return [(each.stream, int.from_bytes(each.payload, "big")) for each in self.sent if each.kind == f.RST_STREAM]

    @property
    def requests(self) -> list[int]:
        """The streams that the application has heard of."""
        return [event.stream for event in self.events if isinstance(event, Request)]

    def opened(self, stream: int) -> int:
        """Give the bytes by which the server has opened a window."""
        self.take()
        return sum(int.from_bytes(each.payload, "big") for each in self.sent if each.kind == f.WINDOW_UPDATE and each.stream == stream)

    def respond(self, stream: int, body: bytes = b"ok", status: int = 200, *more: tuple[bytes, bytes], length: bool = True) -> None:
        """Answer as an application does that knows its whole body."""
        sizes = [(b"content-length", b"%d" % len(body))] if length else []
        self.engine.start(stream, status, [*sizes, *more])
        self.engine.write(stream, body, False)

    def begin(self, stream: int, *more: tuple[bytes, bytes]) -> None:
        """Answer with a head, and leave the body open."""
        self.engine.start(stream, 200, more)
        self.engine.write(stream, b"", True)

    @property
    def works(self) -> bool:
        """Whether the connection is as good as ever: a request of its own is answered."""
        self.take()
        stream = max([1, *self.engine.streams, *self._answers, *self.requests]) + 2 | 1
        self.send(get(stream))
        if self.engine.ending is not Ending.OPEN or stream not in self.requests:
            return False
        self.respond(stream, b"works")
        return self.answer(stream).body == b"works"

    def body(self, stream: int) -> bytes:
        """Give what the application was handed of a body."""
        return b"".join(event.data for event in self.events if isinstance(event, Body) and event.stream == stream)

    def has_ended(self, stream: int) -> bool:
        """Whether the application was told that a request is whole."""
        return any(
            (isinstance(event, Body | Request) and event.stream == stream and event.ended)
            or (isinstance(event, Trailers) and event.stream == stream)
            for event in self.events
        )

    def aborted(self, stream: int) -> list[str]:
        """Give why a request will never be whole."""
        return [event.reason for event in self.events if isinstance(event, Aborted) and event.stream == stream]


def _cut(joined: bytes, way: str) -> Iterator[bytes]:
    if way == "whole":
        yield joined
    elif way == "byte by byte":
        yield from byte_by_byte(joined)
    else:
        yield from (joined[i : i + 7] for i in range(0, len(joined), 7))


# ---------------------------------------------------------------------- scenes

# Streams of a connection on which everything has happened.
OPEN, HALF_CLOSED, CLOSED, RESET_BY_CLIENT, RESET_BY_US, PASSED_OVER, ANSWERED_EARLY, LAST, IDLE = 1, 3, 5, 7, 9, 11, 13, 15, 17


def busy(way: str = "whole", **limits: int) -> Client:
    """Make a connection with a stream in every state (RFC 9113 §5.1)."""
    client = Client(way, **limits)
    client.send(post(OPEN), get(HALF_CLOSED), get(CLOSED), post(RESET_BY_CLIENT), reset(RESET_BY_CLIENT), post(RESET_BY_US))
    client.respond(CLOSED)
    client.engine.reset(RESET_BY_US)
    client.send(post(ANSWERED_EARLY), post(LAST))
    client.respond(ANSWERED_EARLY)
    client.take()
    assert client.resets == [(RESET_BY_US, INTERNAL_ERROR), (ANSWERED_EARLY, NO_ERROR)]
    assert set(client.engine.streams) == {OPEN, HALF_CLOSED, LAST}
    client.events.clear()
    client.sent.clear()
    return client


def feed(scene: Callable[[str], Client], *pieces: bytes) -> Client:
    """Feed bytes in every way they may come; give the client of one, the others had to be the same."""
    client = scene(WAYS[0])
    client.send(*pieces)
    client.take()
    for way in WAYS[1:]:
        other = scene(way)
        other.send(*pieces)
        other.take()
        assert (other.events, other.sent, other.engine.ending) == (client.events, client.sent, client.engine.ending), way
    return client


def breaks(scene: Callable[[str], Client], data: bytes, code: int, last: int = LAST) -> str:
    """See that bytes end the connection, that nothing is read behind them; give the reason."""
    client = feed(scene, data)
    assert client.goaways == [(last, code)]
    assert client.engine.ending is Ending.LINGER
    fault = client.events[-1]
    assert isinstance(fault, Fault)
    assert (fault.stream, fault.code) == (0, code)
    assert client.sent[-1].payload[8:].decode() == fault.reason
    assert client.engine.streams == {}
    behind = feed(scene, data, ping(), get(101))
    assert (behind.sent, behind.events) == (client.sent, client.events)
    assert behind.send(get(103)) == behind.take() == []
    return fault.reason


def breaks_stream(scene: Callable[[str], Client], data: bytes, stream: int, code: int) -> str:
    """See that bytes end a stream and nothing else; give the reason."""
    client = feed(scene, data)
    assert client.resets == [(stream, code)]
    fault = client.events[-1]
    assert isinstance(fault, Fault)
    assert (fault.stream, fault.code) == (stream, code)
    assert stream not in client.engine.streams
    client.engine.start(stream, 200, [])
    client.engine.write(stream, b"nobody", False)
    assert client.take() == []
    client.send(window(stream, 1), headers(stream, [(b"a", b"b")]))  # what crossed our RST_STREAM
    assert client.goaways == []
    assert client.works
    return fault.reason


def is_well(client: Client) -> bool:
    """Whether the connection goes on."""
    return client.goaways == [] and client.engine.ending is Ending.OPEN


def is_cut(client: Client, code: int) -> bool:
    """Whether the connection was ended with a code, and the applications were told."""
    fault = client.events[-1]
    return (
        [each for _, each in client.goaways] == [code]
        and client.engine.ending is Ending.LINGER
        and isinstance(fault, Fault)
        and (fault.stream, fault.code) == (0, code)
        and client.engine.streams == {}
    )


def numbers(count: int, first: int = 1) -> range:
    """Give the numbers of so many streams."""
    return range(first, first + 2 * count, 2)
