"""HTTP/2, server side (RFC 9113). No I/O.

Bytes go in through `receive`, which answers with events; commands, each naming its stream, append to the output, handed out by `output`.
A frame is judged by its header alone before its payload is awaited, so nothing is held but a part of one frame (16 KiB), a header block
(32 KiB) and what flow control let the client send. The window a body used up is given back as the application takes the bytes.

The peer's faults have two sizes (RFC 9113 §5.4): `_StreamError` ends a stream and is counted, `_ConnectionError` ends everything, with a
GOAWAY that says why. What costs us and moves no request forward is counted as well (`floods.py`). The heads of requests are `h2head.py`'s,
those of responses `h2response.py`'s; `streams.py` sends.

The h2 package was rejected as the engine: 82 µs a request, a frame of 16 MiB is buffered before its length is looked at, floods are not
counted. Its names for errors and settings are used, and its client is the tests' second opinion.
"""

from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Final

from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from termserver.errors import InvalidMessage, UnexpectedMessage
from termserver.wire import floods as flood
from termserver.wire import h2frames as frames
from termserver.wire.events import Aborted, Body, Ending, Event, Fault, Fields, Http2Limits, Rejected, Trailers
from termserver.wire.fields import NO_BODY, REASONS
from termserver.wire.floods import FloodError, FloodLimits, Floods
from termserver.wire.h2head import Head, HeadReader, HeadRules, MalformedError, read_priority
from termserver.wire.h2response import ResponseEncoder
from termserver.wire.hpack import CompressionError, ListTooLargeError
from termserver.wire.streams import W_BODY, W_DONE, W_FIRST, W_START, W_TRAILERS, Inbound, Sender, Stream

OPEN, LINGER, RESET = Ending.OPEN, Ending.LINGER, Ending.RESET
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR = ErrorCodes.NO_ERROR, ErrorCodes.PROTOCOL_ERROR, ErrorCodes.INTERNAL_ERROR
FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR = ErrorCodes.FLOW_CONTROL_ERROR, ErrorCodes.STREAM_CLOSED, ErrorCodes.FRAME_SIZE_ERROR
REFUSED_STREAM, COMPRESSION_ERROR = ErrorCodes.REFUSED_STREAM, ErrorCodes.COMPRESSION_ERROR
ENHANCE_YOUR_CALM = ErrorCodes.ENHANCE_YOUR_CALM

_BODIES: Final = {status: reason + b"\n" for status, reason in REASONS.items()}
_NO_FIELDS: Final[Fields] = []
_REMEMBERED: Final = 1_000  # streams that we reset, whose late frames are ignored (spec limits L33); and gaps between streams
_SMALL: Final = 256  # bytes from which a DATA frame is not too small (spec limits L28)
_DRAIN_PING: Final = b"draining"  # when the client answers it, the first GOAWAY is with it too
_PING_SIZE: Final = 8
_UNLIMITED: Final = 1 << 62


class _ConnectionError(Exception):
    """The connection is of no more use: the error code, and why."""

    def __init__(self, code: ErrorCodes, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class _StreamError(Exception):
    """A stream is of no more use."""

    def __init__(self, stream: int, code: ErrorCodes, reason: str) -> None:
        super().__init__(stream, code, reason)
        self.stream = stream
        self.code = code
        self.reason = reason


class _Draining(Enum):
    NO = auto()
    ANNOUNCED = auto()  # the client was told to open no more streams; those on their way are served
    FINAL = auto()  # it was told which stream is the last one


NOT_DRAINING, ANNOUNCED, FINAL = _Draining


class Http2Terms:
    """What all connections of a worker have in common."""

    __slots__ = ("encoder", "floods", "greeting", "limits", "rules", "streams", "window")

    def __init__(self, limits: Http2Limits, rules: HeadRules, encoder: ResponseEncoder) -> None:
        """Read the limits once."""
        self.limits = limits
        self.rules = rules
        self.encoder = encoder
        self.floods = FloodLimits(limits)
        self.streams = limits.http2_streams or _UNLIMITED
        # The window of a stream is what is kept of its body until the application asks for it (spec limits L10, L31).
        self.window = min(limits.body_buffer or frames.LARGEST_WINDOW, frames.LARGEST_WINDOW)
        values = [
            (SettingCodes.INITIAL_WINDOW_SIZE, self.window),
            (SettingCodes.ENABLE_CONNECT_PROTOCOL, 1),
            (frames.NO_RFC7540_PRIORITIES, 1),
        ]
        if limits.http2_streams:
            values.append((SettingCodes.MAX_CONCURRENT_STREAMS, limits.http2_streams))
        if limits.header_bytes:
            values.append((SettingCodes.MAX_HEADER_LIST_SIZE, limits.header_bytes))
        self.greeting = frames.settings(values)


class _Block:
    """A header block that comes in several frames."""

    __slots__ = ("continuations", "data", "ended", "stream")

    def __init__(self, stream: int, data: bytes, *, ended: bool) -> None:
        self.stream = stream
        self.data = data
        self.ended = ended
        self.continuations = 0


class Http2:
    """One connection. Satisfies `Responder`."""

    __slots__ = (
        "_block",
        "_draining",
        "_events",
        "_floods",
        "_gaps",
        "_greeted",
        "_heads",
        "_held",
        "_last",
        "_needed",
        "_now",
        "_priorities",
        "_reset",
        "_taken",
        "_terms",
        "_window",
        "_window_size",
        "_window_updates",
        "calls",
        "ending",
        "opened",
        "sender",
        "settled",
        "streams",
    )

    def __init__(self, terms: Http2Terms) -> None:
        """Say what the client has to know first."""
        limits = terms.limits
        self._terms = terms
        self.ending = OPEN
        self.streams: dict[int, Stream] = {}
        self.calls = 0  # of applications that run, as the owner counts them; some outlive their streams (spec limits L20)
        self.sender = Sender(limits)
        self.settled = False  # whether the client has acknowledged our settings
        self._heads = HeadReader(terms.rules, limits)
        self._floods = Floods(terms.floods)
        self._draining = NOT_DRAINING
        self._events: list[Event] = []
        self._now = 0.0
        # reading
        self._greeted = 0  # bytes of the preface that came, or _UNLIMITED once a SETTINGS frame followed it
        self._held = bytearray()  # a part of a frame
        self._needed = 0  # bytes that it will have
        self._block: _Block | None = None
        self._last = 0  # the newest stream
        self.opened = 0  # streams, in all
        self._gaps: list[range] = []  # streams that were passed over: to use one is an error of another kind
        self._reset: dict[int, None] = {}  # streams that we ended while the client may still send on them
        self._priorities: dict[int, int] = {}  # urgencies of streams that are not open yet
        self._window_updates = 0
        # flow control inwards
        self._window_size = frames.WINDOW  # of a new stream
        self._window = self._taken = 0
        self.sender.say(terms.greeting)
        window = max(limits.http2_window or frames.LARGEST_WINDOW, frames.WINDOW)
        self._window = window
        if window > frames.WINDOW:
            self.sender.say(frames.window_update(0, window - frames.WINDOW))

    # ------------------------------------------------------------------ reading

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes, answer what they mean. `now`: monotonic seconds."""
        events = self._events = []
        if self.ending is not OPEN:
            return events
        self._now = now
        held = self._held
        if held:
            held += data
            if len(held) < self._needed:
                return events
            data = bytes(held)
            held.clear()
        try:
            position = self._read_frames(data, self._read_preface(data) if self._greeted < len(frames.PREFACE) else 0)
            if position < len(data):
                held += data[position:]
        except _ConnectionError as error:
            self._fail(error.code, error.reason)
        except FloodError as error:
            self._fail(ENHANCE_YOUR_CALM, error.reason)
        except CompressionError as error:
            self._fail(COMPRESSION_ERROR, str(error))
        except ListTooLargeError:
            self._fail(ENHANCE_YOUR_CALM, "a header list far over the limit")
        if self.sender.overwhelmed and self.ending is OPEN:
            self._stop(RESET, "the client does not read what it sets off")
        return events

    def _read_preface(self, data: bytes) -> int:
        size = min(len(data), len(frames.PREFACE))
        if data[:size] != frames.PREFACE[:size]:
            raise _ConnectionError(PROTOCOL_ERROR, "not the preface of HTTP/2")
        if size < len(frames.PREFACE):
            self._needed = len(frames.PREFACE)
            return 0
        self._greeted = size
        return size

    def _read_frames(self, data: bytes, position: int) -> int:
        """Read every whole frame; answer where the rest begins."""
        size = len(data)
        if self._greeted < len(frames.PREFACE):
            return position
        unpack = frames.HEAD.unpack_from
        while size - position >= frames.HEAD_SIZE:
            word, flags, number = unpack(data, position)
            length, kind = word >> 8, word & 0xFF
            if length > frames.FRAME_SIZE:  # known at byte 9: not a byte of it is awaited (spec attacks C7)
                raise _ConnectionError(FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            end = position + frames.HEAD_SIZE + length
            if end > size:
                self._needed = end - position
                return position
            payload = data[position + frames.HEAD_SIZE : end]
            position = end
            number &= frames.LAST_STREAM
            if self._greeted is not _UNLIMITED or self._block is not None:
                self._check_order(kind, flags, number)
            try:
                _READERS.get(kind, Http2._read_unknown)(self, flags, number, payload)
            except _StreamError as error:
                self._break(error)
        self._needed = frames.HEAD_SIZE
        return position

    def _check_order(self, kind: int, flags: int, number: int) -> None:
        """Settings come first (RFC 9113 §3.4), and nothing comes between the frames of a header block (§4.3)."""
        if self._greeted is not _UNLIMITED:
            if kind != frames.SETTINGS or flags & frames.ACK:
                raise _ConnectionError(PROTOCOL_ERROR, "the preface is not followed by SETTINGS")
            self._greeted = _UNLIMITED
        if self._block is not None and (kind != frames.CONTINUATION or number != self._block.stream):
            raise _ConnectionError(PROTOCOL_ERROR, "a header block is interrupted")

    @property
    def greeted(self) -> bool:
        """Whether the client has sent its preface and its settings."""
        return self._greeted is _UNLIMITED

    @property
    def in_head(self) -> bool:
        """Whether a part of a head, or of a frame that might be one, is here."""
        held = self._held
        return self._block is not None or (bool(held) and (len(held) < frames.HEAD_SIZE or held[3] != frames.DATA))

    # ------------------------------------------------------------------ heads

    def _read_headers(self, flags: int, number: int, payload: bytes) -> None:
        if not number:
            raise _ConnectionError(PROTOCOL_ERROR, "HEADERS on stream 0")
        if flags & frames.PADDED:
            payload = _unpad(payload)
        if flags & frames.WITH_PRIORITY:
            if len(payload) < 5:  # noqa: PLR2004 - RFC 9113 §6.2
                raise _ConnectionError(FRAME_SIZE_ERROR, "HEADERS too short for its priority")
            if int.from_bytes(payload[:4], "big") & frames.LAST_STREAM == number:
                raise _ConnectionError(PROTOCOL_ERROR, "a stream that depends on itself")
            payload = payload[5:]
        if flags & frames.END_HEADERS:
            self._take_block(number, payload, ended=bool(flags & frames.END_STREAM))
            return
        if not payload and not flags & frames.END_STREAM:
            self._count(flood.EMPTY)
        self._block = _Block(number, payload, ended=bool(flags & frames.END_STREAM))

    def _read_continuation(self, flags: int, number: int, payload: bytes) -> None:
        block = self._block
        if block is None:
            raise _ConnectionError(PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._count(flood.OVERHEAD)
        if not payload and not flags & frames.END_HEADERS:
            self._count(flood.EMPTY)
        block.continuations += 1
        block.data += payload
        limits = self._terms.limits
        if limits.http2_continuations and block.continuations > limits.http2_continuations:
            raise _ConnectionError(ENHANCE_YOUR_CALM, "a header block in too many frames")
        if limits.http2_header_block and len(block.data) > limits.http2_header_block:
            raise _ConnectionError(ENHANCE_YOUR_CALM, "a header block too large")
        if flags & frames.END_HEADERS:
            self._block = None
            self._take_block(number, block.data, ended=block.ended)

    def _take_block(self, number: int, block: bytes, *, ended: bool) -> None:
        """Take a whole header block: a request's, or a trailer section."""
        if number > self._last:
            self._open(number, block, ended=ended)
            return
        stream = self.streams.get(number)
        if stream is None:
            self._count(flood.OVERHEAD)
            self._heads.decode(block)
            self._judge_late(number)
        elif stream.inbound is None:  # spec attacks C2
            self._heads.decode(block)
            raise _StreamError(number, STREAM_CLOSED, "HEADERS after the end of the stream")
        else:
            self._take_trailers(stream, stream.inbound, block, ended=ended)

    def _judge_late(self, number: int) -> None:
        """Ignore a frame on a stream that we ended, refuse one on a stream that is closed or was passed over (RFC 9113 §5.1)."""
        if number in self._reset:
            return
        if not number & 1 or any(number in gap for gap in self._gaps):
            raise _ConnectionError(PROTOCOL_ERROR, "a stream that was never opened")
        raise _ConnectionError(STREAM_CLOSED, "a frame on a closed stream")

    def _open(self, number: int, block: bytes, *, ended: bool) -> None:
        """Open a stream."""
        if not number & 1:
            raise _ConnectionError(PROTOCOL_ERROR, "a stream with a server's number")
        if number != self._last + 2 and number > 1:
            self._gaps = [*self._gaps[-_REMEMBERED:], range(self._last + 2 - (not self._last), number, 2)]
        self._last = number
        try:
            head = self._heads.read(block)
        except MalformedError as error:
            raise _StreamError(number, PROTOCOL_ERROR, str(error)) from None
        streams, most = self.streams, self._terms.streams
        if self._draining is FINAL or len(streams) >= most or self.calls >= most:
            self._count(flood.OVERHEAD)
            self._end(number, REFUSED_STREAM)
            return
        self.opened += 1
        if ended:
            if head.length:
                raise _StreamError(number, PROTOCOL_ERROR, "the body is shorter than its Content-Length")
            if head.upgrade is not None:
                raise _StreamError(number, PROTOCOL_ERROR, "a tunnel that is closed at once")
            inbound = None
        else:
            inbound = Inbound(self._window_size, head.length)
        stream = streams[number] = Stream(number, self.sender.initial_window, inbound, is_head=head.method == "HEAD")
        if head.takes_trailers or head.expects_continue or head.urgency != stream.urgency or self._priorities:
            self._set_up(stream, head)
        if head.refusal is not None:
            self._events.append(self.reject(number, *head.refusal))
        else:
            self.calls += 1
            self._events.append(head.request(number, ended=ended))
        limit = self._terms.limits.requests_per_connection
        if limit and self.opened >= limit:
            self.drain()

    def _set_up(self, stream: Stream, head: Head) -> None:
        """Note what few requests ask for."""
        stream.takes_trailers = head.takes_trailers
        stream.expects_continue = head.expects_continue
        stream.urgency = self._priorities.pop(stream.id, head.urgency)

    def _take_trailers(self, stream: Stream, inbound: Inbound, block: bytes, *, ended: bool) -> None:
        number = stream.id
        try:
            fields = self._heads.read_trailers(block)
        except MalformedError as error:
            raise _StreamError(number, PROTOCOL_ERROR, str(error)) from None
        if not ended or stream.tunnel:
            raise _StreamError(number, PROTOCOL_ERROR, "a second head that does not end the stream")
        if inbound.left:
            raise _StreamError(number, PROTOCOL_ERROR, "the body is shorter than its Content-Length")
        limits = self._terms.limits
        size = sum(len(name) + len(value) for name, value in fields or ())
        if fields is None or len(fields) > (limits.trailer_count or _UNLIMITED) or size > (limits.trailer_bytes or _UNLIMITED):
            self._give_up(stream, 431, "too many or too large trailer fields")
            return
        stream.inbound = None
        self._return_window(inbound)
        self._events.append(Trailers(number, fields) if fields else Body(number, b"", ended=True))

    def _give_up(self, stream: Stream, status: int, reason: str) -> None:
        """Answer what is too much with a status, where no response has begun."""
        self._events += (Aborted(stream.id, reason), self.reject(stream.id, status, reason))

    # ------------------------------------------------------------------ bodies

    def _read_data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._window -= size
        if self._window < 0:
            raise _ConnectionError(FLOW_CONTROL_ERROR, "more than the connection's window")
        stream = self.streams.get(number)
        if stream is None:
            self._count(flood.OVERHEAD)
            self._credit(size)
            if not number or number > self._last:
                raise _ConnectionError(PROTOCOL_ERROR, "DATA on a stream that is not open")
            self._judge_late(number)
            return
        inbound = stream.inbound
        if inbound is None:  # spec attacks C2
            self._credit(size)
            raise _StreamError(number, STREAM_CLOSED, "DATA after the end of the stream")
        inbound.window -= size
        if inbound.window < 0:
            self._credit(size)
            raise _StreamError(number, FLOW_CONTROL_ERROR, "more than the stream's window")
        if flags & frames.PADDED:
            payload = _unpad(payload)
            padding = size - len(payload)
            size -= padding
            inbound.taken += padding
            self._credit(padding)
        inbound.held += size
        ended = bool(flags & frames.END_STREAM)
        if size < _SMALL and not ended:
            self._count_small(stream, size)
        inbound.received += size
        if inbound.left is not None:
            inbound.left -= size
            if inbound.left < 0 or (ended and inbound.left):
                raise _StreamError(number, PROTOCOL_ERROR, "the body is not as long as its Content-Length")
        limit = self._terms.limits.request_body
        if limit and inbound.received > limit and not stream.tunnel:
            self._give_up(stream, 413, f"a body of more than {limit} bytes")
            return
        if ended:
            stream.inbound = None
            self._return_window(inbound)
        if size or ended:
            self._events.append(Body(number, payload, ended))

    def _count_small(self, stream: Stream, size: int) -> None:
        if not size:
            self._count(flood.OVERHEAD)
            self._count(flood.EMPTY)
        if not stream.tunnel:
            self._count(flood.SMALL, _SMALL - size)

    def consumed(self, stream: int, size: int) -> None:
        """Give the client back the window for body bytes that the application took."""
        open_stream = self.streams.get(stream)
        inbound = open_stream.inbound if open_stream is not None else None
        if inbound is None or not size:  # its window was given back when it ended
            return
        inbound.held -= size
        inbound.taken += size
        self._credit(size)
        if inbound.taken > self._window_size >> 1:
            self.sender.say(frames.window_update(stream, inbound.taken))
            inbound.window += inbound.taken
            inbound.taken = 0

    def _credit(self, size: int) -> None:
        """Give back a part of the connection's window."""
        self._taken += size
        if self._taken > self._window:  # half of it is used up, or more
            self.sender.say(frames.window_update(0, self._taken))
            self._window += self._taken
            self._taken = 0

    def _return_window(self, inbound: Inbound) -> None:
        """Give back what a stream that ends still holds of the connection's window: what it holds is little."""
        if inbound.held > 0:
            self._credit(inbound.held)
            inbound.held = 0

    # ------------------------------------------------------------------ other frames

    def _read_priority(self, _flags: int, number: int, payload: bytes) -> None:
        """Check it and ignore it: there is no priority tree (RFC 9113 §5.3.2)."""
        if not number:
            raise _ConnectionError(PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5:  # noqa: PLR2004 - RFC 9113 §6.3
            raise _ConnectionError(FRAME_SIZE_ERROR, "PRIORITY of the wrong length")
        if int.from_bytes(payload[:4], "big") & frames.LAST_STREAM == number:
            raise _ConnectionError(PROTOCOL_ERROR, "a stream that depends on itself")
        self._count(flood.OVERHEAD)
        self._count(flood.PRIORITY)

    def _read_rst_stream(self, _flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:  # noqa: PLR2004 - RFC 9113 §6.4
            raise _ConnectionError(FRAME_SIZE_ERROR, "RST_STREAM of the wrong length")
        self._check_used(number, "RST_STREAM")
        self._count(flood.OVERHEAD)
        self._count(flood.RESET)
        stream = self.streams.get(number)
        if stream is not None:
            self._forget(stream)
            self._events.append(Aborted(number, "the client reset the stream"))

    def _check_used(self, number: int, name: str) -> None:
        """No frame but HEADERS and PRIORITY comes on a stream that is idle (RFC 9113 §5.1)."""
        if not number or number > self._last or not number & 1:
            raise _ConnectionError(PROTOCOL_ERROR, f"{name} on a stream that is not open")

    def _read_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise _ConnectionError(PROTOCOL_ERROR, "SETTINGS on a stream")
        self._count(flood.OVERHEAD)
        if flags & frames.ACK:
            if payload:
                raise _ConnectionError(FRAME_SIZE_ERROR, "an acknowledgement of SETTINGS with a payload")
            self._settle()
            return
        if len(payload) % 6:
            raise _ConnectionError(FRAME_SIZE_ERROR, "SETTINGS of the wrong length")
        self._count(flood.SETTINGS)
        values = frames.read_settings(payload)
        limit = self._terms.limits.http2_settings_entries
        if limit and len(values) > limit:
            raise _ConnectionError(ENHANCE_YOUR_CALM, "too many settings")
        for name, value in values:
            self._apply(name, value)
        self.sender.say(frames.SETTINGS_ACK)

    def _settle(self) -> None:
        """The client keeps to our settings from now on (RFC 9113 §6.5.3)."""
        if self.settled:
            return
        self.settled = True
        change = self._terms.window - self._window_size
        self._window_size += change
        for stream in self.streams.values():
            if stream.inbound is not None:
                stream.inbound.window += change

    def _apply(self, name: int, value: int) -> None:
        """Take a setting of the client's (RFC 9113 §6.5.2). Those that bind only who pushes, or who has a table, are not ours."""
        if name == SettingCodes.INITIAL_WINDOW_SIZE:
            if value > frames.LARGEST_WINDOW:
                raise _ConnectionError(FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE is too large")
            change = value - self.sender.initial_window
            self.sender.initial_window = value
            for stream in self.streams.values():
                if not self.sender.open_stream(stream, change):
                    raise _ConnectionError(FLOW_CONTROL_ERROR, "a stream's window is too large")
        elif name == SettingCodes.MAX_FRAME_SIZE:
            if not frames.FRAME_SIZE <= value < 1 << 24:
                raise _ConnectionError(PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE is out of its range")
        elif name in _SWITCHES and value > 1:
            raise _ConnectionError(PROTOCOL_ERROR, "a setting that is neither 0 nor 1")

    def _read_push_promise(self, _flags: int, _number: int, _payload: bytes) -> None:
        raise _ConnectionError(PROTOCOL_ERROR, "PUSH_PROMISE from a client")

    def _read_ping(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise _ConnectionError(PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != _PING_SIZE:
            raise _ConnectionError(FRAME_SIZE_ERROR, "PING of the wrong length")
        self._count(flood.OVERHEAD)
        if not flags & frames.ACK:
            self._count(flood.PING)
            self.sender.say(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif payload == _DRAIN_PING:
            self.finish_drain()

    def _read_goaway(self, _flags: int, number: int, payload: bytes) -> None:
        """Note that the client is about to leave; what it asked for is still answered."""
        if number:
            raise _ConnectionError(PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:  # noqa: PLR2004 - RFC 9113 §6.8
            raise _ConnectionError(FRAME_SIZE_ERROR, "GOAWAY too short")
        self._count(flood.OVERHEAD)
        self.drain()

    def _read_window_update(self, _flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:  # noqa: PLR2004 - RFC 9113 §6.9
            raise _ConnectionError(FRAME_SIZE_ERROR, "WINDOW_UPDATE of the wrong length")
        size = int.from_bytes(payload, "big") & frames.LARGEST_WINDOW
        if not size:
            raise _ConnectionError(PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
        self._window_updates += 1
        each = self._terms.limits.http2_window_updates
        if each and self._window_updates > 5 + 2 * (self.opened + each * self.sender.data_frames):  # spec limits L29
            raise _ConnectionError(ENHANCE_YOUR_CALM, "too many WINDOW_UPDATE frames")
        if not number:
            if not self.sender.open_window(size):
                raise _ConnectionError(FLOW_CONTROL_ERROR, "the connection's window is too large")
            return
        self._check_used(number, "WINDOW_UPDATE")
        stream = self.streams.get(number)
        if stream is not None and not self.sender.open_stream(stream, size):  # spec attacks C2
            raise _StreamError(number, FLOW_CONTROL_ERROR, "the stream's window is too large")

    def _read_priority_update(self, _flags: int, number: int, payload: bytes) -> None:
        """Take another urgency (RFC 9218 §7.1)."""
        if number:
            raise _ConnectionError(PROTOCOL_ERROR, "PRIORITY_UPDATE on a stream")
        if len(payload) < 4:  # noqa: PLR2004 - RFC 9218 §7.1
            raise _ConnectionError(FRAME_SIZE_ERROR, "PRIORITY_UPDATE too short")
        self._count(flood.OVERHEAD)
        target = int.from_bytes(payload[:4], "big") & frames.LAST_STREAM
        if not target & 1:
            raise _ConnectionError(PROTOCOL_ERROR, "PRIORITY_UPDATE of a stream that no client has")
        urgency = read_priority(payload[4:])
        stream = self.streams.get(target)
        if stream is not None:
            stream.urgency = urgency
        elif target > self._last:
            if len(self._priorities) >= self._terms.streams:
                self._priorities.clear()
            self._priorities[target] = urgency

    def _read_unknown(self, _flags: int, _number: int, _payload: bytes) -> None:
        """Ignore what we do not know (RFC 9113 §5.5)."""
        self._count(flood.OVERHEAD)

    def _count(self, what: flood.Flood, amount: int = 1) -> None:
        self._floods.count(what, self._now, amount)

    # ------------------------------------------------------------------ faults and ends

    def _break(self, error: _StreamError) -> None:
        """End a stream for the client's fault. Many of them are an attack (CVE-2025-8671)."""
        self._end(error.stream, error.code)
        self._events.append(Fault(error.stream, error.code, error.reason))
        self._count(flood.FAULT)

    def _fail(self, code: ErrorCodes, reason: str) -> None:
        """End the connection for the client's fault, and say why."""
        self.sender.say(frames.goaway(self._last, code, reason))
        self._stop(LINGER, reason, code)

    def _stop(self, ending: Ending, reason: str, code: ErrorCodes = NO_ERROR) -> None:
        self._events += [Aborted(number, reason) for number in self.streams]
        self._events.append(Fault(0, code, reason))
        self.streams.clear()
        self.sender.clear()
        self._held.clear()
        self._block = None
        self.ending = ending

    def _end(self, number: int, code: ErrorCodes) -> None:
        """Reset a stream; frames of it that are on their way will be ignored."""
        self.sender.say(frames.rst_stream(number, code))
        self._remember(number)
        stream = self.streams.get(number)
        if stream is not None:
            self._forget(stream)

    def _remember(self, number: int) -> None:
        if len(self._reset) >= _REMEMBERED:
            del self._reset[next(iter(self._reset))]
        self._reset[number] = None

    def _forget(self, stream: Stream) -> None:
        """A stream is over, in whatever way."""
        del self.streams[stream.id]
        if stream.inbound is not None:
            self._return_window(stream.inbound)
        if stream.outbound is not None:
            self.sender.drop(stream)
        if self._draining is FINAL and not self.streams and self.ending is OPEN:
            self.ending = LINGER

    def _complete(self, stream: Stream) -> None:
        """The response has left. What is still coming of the request is not wanted any more (RFC 9113 §8.1)."""
        if stream.inbound is not None:
            self.sender.say(frames.rst_stream(stream.id, NO_ERROR))
            self._remember(stream.id)
        self._forget(stream)

    def end_of_input(self) -> list[Event]:
        """The client has gone: nothing more can be answered."""
        self._events = []
        if self.ending is OPEN:
            self._events += [Aborted(number, "the client left") for number in self.streams]
            self.streams.clear()
            self.sender.clear()
            self.ending = Ending.CLOSE
        return self._events

    def drain(self) -> None:
        """Open no more streams; two steps, so that what is on its way is still served (RFC 9113 §6.8)."""
        if self._draining is NOT_DRAINING and self.ending is OPEN:
            self._draining = ANNOUNCED
            self.sender.say(frames.frame(frames.PING, 0, 0, _DRAIN_PING))  # first: some clients take nothing but streams after a GOAWAY
            self.sender.say(frames.goaway(frames.LAST_STREAM, NO_ERROR))

    def finish_drain(self) -> None:
        """Serve no stream that is not here by now; without any, that is the end."""
        if self._draining is ANNOUNCED and self.ending is OPEN:
            self._draining = FINAL
            self.sender.say(frames.goaway(self._last, NO_ERROR))
            if not self.streams:
                self.ending = LINGER

    @property
    def draining(self) -> bool:
        """Whether the second step of `drain` is still to come."""
        return self._draining is ANNOUNCED

    def close(self, code: ErrorCodes, reason: str) -> list[Event]:
        """End the connection, for a reason of the server's own or a time-out's."""
        self._events = []
        if self.ending is OPEN:
            self._fail(code, reason)
        return self._events

    # ------------------------------------------------------------------ writing

    def start(self, stream: int, status: int, headers: Iterable[Iterable[bytes]], *, trailers: bool = False) -> None:
        """Check and encode the head of the final response. It leaves with the first body bytes (ASGI www, Response Start)."""
        found = self.streams.get(stream)
        if found is None:
            return
        if found.writing is not W_START:
            raise UnexpectedMessage("http.response.start", "http.response.body")
        found.block, found.length = self._terms.encoder.encode(status, headers)
        if found.is_head or status in NO_BODY:
            found.has_body = False
        found.trailers = trailers
        found.writing = W_FIRST

    def write(self, stream: int, data: bytes, more: bool) -> None:  # noqa: FBT001 - the hot path passes it by position
        """Write body bytes; `more=False` ends the body. More bytes than Content-Length said: those are written, then it raises."""
        found = self.streams.get(stream)
        if found is None:
            return
        if found.writing is W_FIRST:
            if not more and data and found.length == len(data) and found.has_body and not found.trailers:
                if self.sender.send_whole(found, found.block, data):
                    self._complete(found)
                    return
            if self._begin(found, data, more=more):
                return
        elif found.writing is not W_BODY:
            raise UnexpectedMessage("http.response.body", "nothing: the response is complete")
        excess = 0
        if found.left is not None:
            excess = len(data) - found.left
            data = data[: found.left]
            found.left -= len(data)
        if excess > 0 or (found.left == 0 and not data and not more):
            more = False
        elif not more and found.left:
            self.reset(stream)  # the client must see that bytes are missing (spec attacks B10)
            raise InvalidMessage(f"the response ended {found.left} bytes short of its content-length")
        self._send(found, data, more=more)
        if excess > 0:
            raise InvalidMessage(f"the response body is {excess} bytes longer than its content-length")

    def _begin(self, stream: Stream, data: bytes, *, more: bool) -> bool:
        """Send the head; answer whether that was all."""
        block = stream.block
        stream.block = b""
        whole = not more and not stream.trailers
        if stream.length is None and whole and (stream.has_body or (stream.is_head and data)):
            block += self._terms.encoder.encode_length(len(data))  # of a HEAD, what a GET would have had
        ended = not stream.has_body or (whole and not data and not stream.length)
        stream.left = stream.length if stream.has_body else None
        stream.writing = W_DONE if ended else W_BODY
        if self.sender.send_head(stream, block, ended=ended) and ended:
            self._complete(stream)
        return ended

    def _send(self, stream: Stream, data: bytes, *, more: bool) -> None:
        if more:
            if data:
                self.sender.send(stream, data, ended=False)
        elif stream.trailers:
            if data:
                self.sender.send(stream, data, ended=False)
            stream.writing = W_TRAILERS
        else:
            stream.writing = W_DONE
            if self.sender.send(stream, data, ended=True):
                self._complete(stream)

    def trailers(self, stream: int, headers: Iterable[Iterable[bytes]], *, more: bool) -> None:
        """Write trailer fields; `more=False` ends the response. A client that did not ask for them gets none (RFC 9110 §6.5.1)."""
        found = self.streams.get(stream)
        if found is None:
            return
        if found.writing is not W_TRAILERS:
            raise UnexpectedMessage("http.response.trailers", "http.response.body")
        found.block += self._terms.encoder.encode_trailers(headers)
        if more:
            return
        found.writing = W_DONE
        if found.takes_trailers and found.block:
            left = self.sender.send_trailers(found, found.block)
        else:
            left = self.sender.send(found, b"", ended=True)
        if left:
            self._complete(found)

    def interim(self, stream: int, status: int, headers: Fields) -> None:
        """Write a 1xx response; none comes after the final head."""
        found = self.streams.get(stream)
        if found is not None and found.writing in {W_START, W_FIRST}:
            self.sender.send_head(found, self._terms.encoder.encode_interim(status, headers))

    def wants_continue(self, stream: int) -> None:
        """Answer a waiting `Expect: 100-continue`, now that the application reads (RFC 9110 §10.1.1)."""
        found = self.streams.get(stream)
        if found is not None and found.expects_continue:
            found.expects_continue = False
            if found.inbound is not None and not found.inbound.received:
                self.interim(stream, 100, [])

    def upgrade(self, stream: int, headers: Fields) -> None:
        """Answer that a WebSocket begins; its frames are the stream's body from now on, both ways (RFC 8441 §5)."""
        found = self.streams[stream]
        found.tunnel, found.writing = True, W_BODY
        self.sender.send_head(found, self._terms.encoder.encode_upgrade(headers))

    def reject(self, stream: int, status: int, reason: str, headers: Fields = _NO_FIELDS) -> Rejected:
        """Answer with an error of the server's own, unless a response has begun: then cut that one."""
        found = self.streams.get(stream)
        if found is None:
            return Rejected(status, reason)
        if found.writing is W_START or found.writing is W_FIRST:
            body = _BODIES[status]
            extra = [(b"retry-after", b"1")] if status == 503 and not headers else headers  # noqa: PLR2004 - as HTTP/1 does
            fields = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body)), *extra]
            found.block, found.length = self._terms.encoder.encode_plain(status, fields), len(body)
            found.writing, found.trailers, found.has_body = W_FIRST, False, not found.is_head
            self.write(stream, body, False)
        else:
            self.reset(stream)
        return Rejected(status, reason)

    def reset(self, stream: int, code: ErrorCodes = INTERNAL_ERROR) -> None:
        """Cut the response so that the client sees it is incomplete."""
        if stream in self.streams:
            self._end(stream, code)

    def unsent(self, stream: int) -> int:
        """Bytes of a response that wait until the client lets us send them."""
        found = self.streams.get(stream)
        return 0 if found is None or found.outbound is None else found.outbound.size

    def output(self) -> bytes:
        """Hand out what is to be sent, once: as much as leaves in one turn. While the transport is full that is nothing."""
        sender = self.sender
        if sender.blocked:
            return b""
        for stream in sender.pump():
            self._complete(stream)
        return sender.output()


def _unpad(payload: bytes) -> bytes:
    """Take the padding off (RFC 9113 §6.1)."""
    if not payload:
        raise _ConnectionError(FRAME_SIZE_ERROR, "a padded frame without a length of its padding")
    padding = payload[0]
    if padding >= len(payload):
        raise _ConnectionError(PROTOCOL_ERROR, "more padding than there is payload")
    return payload[1 : len(payload) - padding]


_SWITCHES: Final = frozenset({SettingCodes.ENABLE_PUSH, SettingCodes.ENABLE_CONNECT_PROTOCOL, frames.NO_RFC7540_PRIORITIES})
_READERS: Final[dict[int, Callable[[Http2, int, int, bytes], None]]] = {
    frames.DATA: Http2._read_data,
    frames.HEADERS: Http2._read_headers,
    frames.PRIORITY: Http2._read_priority,
    frames.RST_STREAM: Http2._read_rst_stream,
    frames.SETTINGS: Http2._read_settings,
    frames.PUSH_PROMISE: Http2._read_push_promise,
    frames.PING: Http2._read_ping,
    frames.GOAWAY: Http2._read_goaway,
    frames.WINDOW_UPDATE: Http2._read_window_update,
    frames.CONTINUATION: Http2._read_continuation,
    frames.PRIORITY_UPDATE: Http2._read_priority_update,
}
