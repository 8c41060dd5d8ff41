"""The streams of an HTTP/2 connection and what is sent on them: flow control outwards, who goes first (RFC 9113 §5.2, RFC 9218). No I/O.

A response that fits leaves as it is written (`Sender.send_whole`). What does not fit into the windows, or comes while the transport is
full, waits with its stream: references to the application's bytes, not copies. `Sender.pump` lets those go that may, the most urgent first
and in turns of a frame among the equally urgent. A stream that has no window is set aside until the client opens it, so that a hundred of
them cost nothing. What waits is counted, for each stream and for all (spec limits L34).
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from termserver.wire import h2frames as frames
from termserver.wire.events import Http2Limits
from termserver.wire.hpack import EMPTY_TABLE

_LOW_WATER: Final = 16_384  # bytes that a stream may always have waiting; below, its `send()` goes on
_TURN: Final = 131_072  # bytes of responses that are handed out at a time
_UNLIMITED: Final = 1 << 62
_pack: Final = frames.HEAD.pack
_DATA, _HEADERS = frames.DATA, frames.HEADERS
_END_STREAM, _END_HEADERS = frames.END_STREAM, frames.END_HEADERS
_FRAME_SIZE: Final = frames.FRAME_SIZE


class Writing(Enum):
    """What the application may say next."""

    START = auto()
    FIRST = auto()  # the head is held back until the first body bytes
    BODY = auto()
    TRAILERS = auto()
    DROPPED = auto()  # the head was all, whatever is still said (RFC 9110 §6.4.1)
    DONE = auto()


W_START, W_FIRST, W_BODY, W_TRAILERS, W_DROPPED, W_DONE = Writing


@dataclass(slots=True)
class Inbound:
    """A request's body on its way in. All in bytes."""

    window: int  # that the client may still send
    left: int | None  # of the Content-Length, None where there is none
    received: int = 0
    held: int = 0  # handed out, and not yet taken by the application
    taken: int = 0  # taken, and not yet given back to the client's window
    small: bool = False  # a frame that was smaller than is reasonable came
    unwanted: bool = False  # the request was answered in the application's place: what still comes is dropped


@dataclass(slots=True)
class Outbound:
    """What waits to be sent on a stream, in this order."""

    heads: list[bytes] = field(default_factory=list)  # header blocks
    parts: deque[bytes | memoryview] = field(default_factory=deque)
    size: int = 0  # bytes of the parts
    trailers: bytes | None = None
    ended: bool = False  # the response is complete
    closed: bool = False  # a frame that says so is among what was written
    full: bool = False  # the application waits for it


class Stream:
    """One stream: a request, and its response."""

    __slots__ = (
        "block",
        "expects_continue",
        "has_body",
        "id",
        "inbound",
        "is_head",
        "left",
        "length",
        "outbound",
        "sent",
        "takes_trailers",
        "trailers",
        "tunnel",
        "urgency",
        "window",
        "writing",
    )

    def __init__(self, number: int, window: int, inbound: Inbound | None, *, is_head: bool) -> None:
        """`window`: bytes that we may send. `inbound` is None where the request is whole."""
        self.id = number
        self.window = window
        self.inbound = inbound
        self.outbound: Outbound | None = None
        self.writing = W_START
        self.is_head = is_head
        self.has_body = True
        self.trailers = False  # the response ends with some
        self.takes_trailers = self.expects_continue = self.tunnel = False
        self.block = b""  # the head that is held back
        self.length: int | None = None  # its Content-Length
        self.left: int | None = None  # bytes of it that are still to be written
        self.sent = 0  # bytes of DATA
        self.urgency = 3


class Sender:
    """What one connection sends."""

    __slots__ = (
        "_connection_limit",
        "_control_bytes",
        "_control_frames",
        "_control_limits",
        "_out",
        "_out_size",
        "_sending",
        "_sized",
        "_stream_limit",
        "blocked",
        "data_frames",
        "freed",
        "full",
        "initial_window",
        "overwhelmed",
        "sent",
        "waiting",
        "window",
    )

    def __init__(self, limits: Http2Limits) -> None:
        """Begin with the windows of RFC 9113 §6.9.2."""
        self._stream_limit = limits.response_buffer or _UNLIMITED
        self._connection_limit = limits.http2_response_buffer or _UNLIMITED
        self._control_limits = (limits.http2_control_frames or _UNLIMITED, limits.http2_control_bytes or _UNLIMITED)
        self.window = self.initial_window = frames.WINDOW
        self.blocked = False  # the transport is full: nothing is handed out
        self.overwhelmed = False  # the client does not read, and sets off more and more that it would have to
        self.full: list[int] = []  # streams whose applications have to wait
        self.freed: list[int] = []  # those that may go on
        self.waiting = 0  # bytes of responses
        self.sent = 0  # bytes of DATA
        self.data_frames = 0
        self._sized = False
        self._sending: dict[int, Stream] = {}  # what has something that may leave, as far as its own window goes
        self._out: list[bytes | memoryview] = []
        self._out_size = 0
        self._control_frames = self._control_bytes = 0

    # ------------------------------------------------------------------ what is said

    def say(self, frame: bytes) -> None:
        """Send a frame that no window counts and that belongs to no response (spec limits L30)."""
        self._out.append(frame)
        if self.blocked:
            self._control_frames += 1
            self._control_bytes += len(frame)
            if self._control_frames > self._control_limits[0] or self._control_bytes > self._control_limits[1]:
                self.overwhelmed = True

    def send_head(self, stream: Stream, block: bytes, *, ended: bool = False) -> bool:
        """Send a header block; answer whether it has left, as far as we know."""
        if self.blocked or stream.outbound is not None:
            outbound = self._queue(stream)
            outbound.heads.append(block)
            outbound.ended = outbound.closed = ended
            return False
        self._write_head(stream.id, block, ended=ended)
        return True

    def _write_head(self, number: int, block: bytes, *, ended: bool) -> None:
        if not self._sized:  # the first block says that we use no table (RFC 7541 §4.2)
            self._sized = True
            block = EMPTY_TABLE + block
        self._out.append(frames.headers(number, block, ended=ended))
        self._out_size += len(block)

    def send_whole(self, stream: Stream, block: bytes, data: bytes) -> bool:
        """Send a response at once, if there is room for all of it; answer whether there was."""
        # Fast path: what `send_head` and `send` would do. benchmarks/micro/http2_response.py guards this.
        size = len(data)
        if size > self.window or size > stream.window or size > _FRAME_SIZE or len(block) > _FRAME_SIZE:
            return False
        if self.blocked or self._out_size > _TURN or not self._sized or stream.outbound is not None:
            return False
        number = stream.id
        self._out += (
            _pack(len(block) << 8 | _HEADERS, _END_HEADERS, number),
            block,
            _pack(size << 8 | _DATA, _END_STREAM, number),
            data,
        )
        self._out_size += size
        self.window -= size
        self.sent += size
        self.data_frames += 1
        return True

    def send(self, stream: Stream, data: bytes, *, ended: bool) -> bool:
        """Send body bytes; answer whether the stream's end has left."""
        size = len(data)
        fits = size <= self.window and (size <= stream.window or not size) and self._out_size + size <= _TURN + _FRAME_SIZE
        if fits and stream.outbound is None and not self.blocked and (size <= _FRAME_SIZE or not self._sending):
            if size <= _FRAME_SIZE:
                self._frame(stream, data, size, ended=ended)
            else:
                self._frames(stream, data, size, ended=ended)
            return ended
        outbound = self._queue(stream)
        if size:
            outbound.parts.append(data)
            outbound.size += size
            self.waiting += size
        outbound.ended = ended
        waits = outbound.size
        if waits > self._stream_limit or (waits > _LOW_WATER and self.waiting > self._connection_limit):
            outbound.full = True
            self.full.append(stream.id)
        return False

    def send_trailers(self, stream: Stream, block: bytes) -> bool:
        """Send trailers, which end the stream; answer whether they have left."""
        frame = frames.headers(stream.id, block, ended=True)
        if stream.outbound is None and not self.blocked:
            self._out.append(frame)
            return True
        outbound = self._queue(stream)
        outbound.trailers, outbound.ended = frame, True
        return False

    def _queue(self, stream: Stream) -> Outbound:
        outbound = stream.outbound
        if outbound is None:
            outbound = stream.outbound = Outbound()
        self._sending[stream.id] = stream
        return outbound

    # ------------------------------------------------------------------ what leaves

    def pump(self) -> list[Stream]:
        """Let go what may go, for one turn; answer which streams have come to their end."""
        sending = self._sending
        ended: list[Stream] = []
        if not sending or self.blocked:
            return ended
        urgencies = {stream.urgency for stream in sending.values()}
        for urgency in sorted(urgencies):
            turn = [stream for stream in sending.values() if stream.urgency == urgency] if len(urgencies) > 1 else list(sending.values())
            while turn and self._out_size <= _TURN:
                turn = [stream for stream in turn if self._out_size <= _TURN and self._advance(stream, ended)]
        return ended

    def _advance(self, stream: Stream, ended: list[Stream]) -> bool:
        """Send a frame of a stream; answer whether it has another turn."""
        outbound = stream.outbound
        assert outbound is not None  # noqa: S101 - for the type checker: that is why it is among those that send
        for block in outbound.heads:
            self._write_head(stream.id, block, ended=outbound.closed and block is outbound.heads[-1])
        outbound.heads.clear()
        ends = outbound.ended and not outbound.closed and outbound.trailers is None  # a DATA frame has to say so
        size = min(outbound.size, stream.window, self.window, _FRAME_SIZE)
        if size > 0:
            data = _take(outbound, size)
            self.waiting -= size
            outbound.closed = ends and not outbound.size
            self._frame(stream, data, size, ended=outbound.closed)
            if outbound.full and outbound.size <= _LOW_WATER:
                outbound.full = False
                self.freed.append(stream.id)
        if outbound.size:
            return self._requeue(stream)
        if outbound.trailers is not None:
            self._out.append(outbound.trailers)
        elif ends and not outbound.closed:
            self._frame(stream, b"", 0, ended=True)
        del self._sending[stream.id]
        stream.outbound = None
        if outbound.ended:
            ended.append(stream)
        return False

    def _requeue(self, stream: Stream) -> bool:
        """Put a stream behind the others; answer whether it can go on in this turn."""
        del self._sending[stream.id]
        if stream.window <= 0:  # set aside until the client opens its window
            return False
        self._sending[stream.id] = stream
        return self.window > 0

    def _frame(self, stream: Stream, data: bytes | memoryview, size: int, *, ended: bool) -> None:
        """Write a DATA frame."""
        self._out += (_pack(size << 8 | _DATA, _END_STREAM if ended else 0, stream.id), data)
        self._out_size += size + frames.HEAD_SIZE
        stream.window -= size
        stream.sent += size
        self.window -= size
        self.sent += size
        self.data_frames += 1

    def _frames(self, stream: Stream, data: bytes, size: int, *, ended: bool) -> None:
        """Write as many DATA frames as it takes."""
        view = memoryview(data)
        for start in range(0, size, _FRAME_SIZE):
            end = min(start + _FRAME_SIZE, size)
            self._frame(stream, view[start:end], end - start, ended=ended and end == size)

    # ------------------------------------------------------------------ windows and ends

    def open_window(self, size: int) -> bool:
        """Take what the client adds to the connection's window; False where that is too much (RFC 9113 §6.9.1)."""
        self.window += size
        return self.window <= frames.LARGEST_WINDOW

    def open_stream(self, stream: Stream, size: int) -> bool:
        """Take what the client adds to a stream's window, or takes away; False where that is too much."""
        stream.window += size
        if stream.outbound is not None and stream.window > 0:
            self._sending[stream.id] = stream
        return stream.window <= frames.LARGEST_WINDOW

    def drop(self, stream: Stream, outbound: Outbound) -> None:
        """Forget what waits on a stream."""
        stream.outbound = None
        self._sending.pop(stream.id, None)
        self.waiting -= outbound.size
        if outbound.full:
            self.freed.append(stream.id)

    def clear(self) -> None:
        """Forget every response: only what was said last is still sent."""
        self._sending.clear()

    @property
    def has_output(self) -> bool:
        """Whether `output` would hand out something."""
        return bool(self._out) and not self.blocked

    def output(self) -> bytes:
        """Hand out what is to be sent, once."""
        out = self._out
        if not out:
            return b""
        data = b"".join(out)
        out.clear()
        self._out_size = self._control_frames = self._control_bytes = 0
        return data


def _take(outbound: Outbound, size: int) -> bytes | memoryview:
    """Take so many bytes from the front. What is cut is a view: quadratic if it were copied."""
    parts = outbound.parts
    outbound.size -= size
    first = parts[0]
    if len(first) == size:
        return parts.popleft()
    if len(first) > size:
        view = memoryview(first)
        parts[0] = view[size:]
        return view[:size]
    taken = bytearray()
    while size:
        first = parts.popleft()
        if len(first) > size:
            view = memoryview(first)
            parts.appendleft(view[size:])
            first = view[:size]
        taken += first
        size -= len(first)
    return bytes(taken)
