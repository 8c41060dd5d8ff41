"""HTTP/2, server side (RFC 9113). No I/O.

Bytes go in through `receive`, which answers with events; commands, each naming its stream, append to the output, handed out by `output`.
A frame is judged by its header alone before its payload is awaited, so nothing is held but a part of one frame (16 KiB), a header block
(32 KiB) and what flow control let the client send. The window a body used up is given back as the application takes the bytes.

The peer's faults have two sizes (RFC 9113 §5.4): `StreamFault` ends a stream and is counted, `ConnectionFault` ends everything, with a
GOAWAY that says why. What costs us and moves no request forward is counted as well (`floods.py`). The heads of requests are `h2head.py`'s,
those of responses `h2response.py`'s; `h2table.py` knows the
streams, `h2responses.py` what is said on them, `streams.py` sends.

The h2 package was rejected as the engine: 82 µs a request, a frame of 16 MiB is buffered before its length is looked at, floods are not
counted. Its names for errors and settings are used, and its client is the tests' second opinion.
"""

from collections.abc import Callable
from enum import Enum, auto
from typing import ClassVar, Final

from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from termserver.wire import floods as flood
from termserver.wire import h2frames as frames
from termserver.wire.events import Aborted, Body, Ending, Event, Fault, Trailers
from termserver.wire.floods import FloodError, Floods
from termserver.wire.h2faults import ConnectionFault, StreamFault
from termserver.wire.h2head import Head, HeadReader, MalformedError, read_priority
from termserver.wire.h2responses import Responses
from termserver.wire.h2table import StreamTable
from termserver.wire.h2terms import UNLIMITED, Http2Terms
from termserver.wire.hpack import CompressionError, ListTooLargeError
from termserver.wire.streams import Inbound, Stream

OPEN, LINGER, RESET = Ending.OPEN, Ending.LINGER, Ending.RESET
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR = ErrorCodes.NO_ERROR, ErrorCodes.PROTOCOL_ERROR, ErrorCodes.INTERNAL_ERROR
FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR = ErrorCodes.FLOW_CONTROL_ERROR, ErrorCodes.STREAM_CLOSED, ErrorCodes.FRAME_SIZE_ERROR
REFUSED_STREAM, COMPRESSION_ERROR = ErrorCodes.REFUSED_STREAM, ErrorCodes.COMPRESSION_ERROR
ENHANCE_YOUR_CALM = ErrorCodes.ENHANCE_YOUR_CALM

_SMALL: Final = 256  # bytes from which a DATA frame is not too small (spec limits L28)
_DRAIN_PING: Final = b"draining"  # when the client answers it, the first GOAWAY is with it too


class _Draining(Enum):
    NO = auto()
    ANNOUNCED = auto()  # the client was told to open no more streams; those on their way are served
    FINAL = auto()  # it was told which stream is the last one


NOT_DRAINING, ANNOUNCED, FINAL = _Draining


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
        "_greeted",
        "_heads",
        "_held",
        "_needed",
        "_now",
        "_priorities",
        "_table",
        "_terms",
        "_window_updates",
        "calls",
        "consumed",
        "interim",
        "reject",
        "reset",
        "sender",
        "settled",
        "start",
        "streams",
        "trailers",
        "upgrade",
        "wants_continue",
        "write",
    )

    def __init__(self, terms: Http2Terms) -> None:
        """Say what the client has to know first."""
        limits = terms.limits
        self._terms = terms
        table = self._table = StreamTable(limits)
        self.streams = table.streams
        self.sender = table.sender
        self.calls = 0  # of applications that run, as the owner counts them; some outlive their streams (spec limits L20)
        self.settled = False  # whether the client has acknowledged our settings
        responses = Responses(table, terms.encoder)  # `Responder` is satisfied by what these two do
        self.start, self.write, self.trailers = responses.start, responses.write, responses.trailers
        self.interim, self.wants_continue, self.upgrade = responses.interim, responses.wants_continue, responses.upgrade
        self.reject, self.reset, self.consumed = responses.reject, responses.reset, table.consumed
        self._heads = HeadReader(terms.rules, limits)
        self._floods = Floods(terms.floods)
        self._draining = NOT_DRAINING
        self._events: list[Event] = []
        self._now = 0.0
        self._greeted = 0  # bytes of the preface that came, or UNLIMITED once a SETTINGS frame followed it
        self._held = bytearray()  # a part of a frame
        self._needed = 0  # bytes that it will have
        self._block: _Block | None = None
        self._priorities: dict[int, int] = {}  # urgencies of streams that are not open yet
        self._window_updates = 0
        self.sender.say(terms.greeting + table.first_update)

    @property
    def ending(self) -> Ending:
        """What is to become of the connection once the output is out."""
        return self._table.ending

    @property
    def opened(self) -> int:
        """Streams, in all."""
        return self._table.opened

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
        except ConnectionFault as error:
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
            raise ConnectionFault(PROTOCOL_ERROR, "not the preface of HTTP/2")
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
        unpack, readers = frames.HEAD.unpack_from, self._readers
        while size - position >= frames.HEAD_SIZE:
            word, flags, number = unpack(data, position)
            length, kind = word >> 8, word & 0xFF
            if length > frames.FRAME_SIZE:  # known at byte 9: not a byte of it is awaited (spec attacks C7)
                raise ConnectionFault(FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            end = position + frames.HEAD_SIZE + length
            if end > size:
                self._needed = end - position
                return position
            payload = data[position + frames.HEAD_SIZE : end]
            position = end
            number &= frames.LAST_STREAM
            if self._greeted is not UNLIMITED or self._block is not None:
                self._check_order(kind, flags, number)
            if kind in _SHAPES:
                _check_shape(kind, number, length)
            try:
                readers.get(kind, Http2._read_unknown)(self, flags, number, payload)
            except StreamFault as error:
                self._break(error)
        self._needed = frames.HEAD_SIZE
        return position

    def _check_order(self, kind: int, flags: int, number: int) -> None:
        """Settings come first (RFC 9113 §3.4), and nothing comes between the frames of a header block (§4.3)."""
        if self._greeted is not UNLIMITED:
            if kind != frames.SETTINGS or flags & frames.ACK:
                raise ConnectionFault(PROTOCOL_ERROR, "the preface is not followed by SETTINGS")
            self._greeted = UNLIMITED
        if self._block is not None and (kind != frames.CONTINUATION or number != self._block.stream):
            raise ConnectionFault(PROTOCOL_ERROR, "a header block is interrupted")

    @property
    def greeted(self) -> bool:
        """Whether the client has sent its preface and its settings."""
        return self._greeted is UNLIMITED

    @property
    def in_head(self) -> bool:
        """Whether a part of a head, or of a frame that might be one, is here."""
        held = self._held
        return self._block is not None or (bool(held) and (len(held) < frames.HEAD_SIZE or held[3] != frames.DATA))

    def adopt(self, settings: bytes, *, is_head: bool) -> None:
        """Take over an HTTP/1 request as stream 1, with the settings that came with it (RFC 7540 §3.2)."""
        try:
            for name, value in frames.read_settings(settings):
                self._apply(name, value)
        except ConnectionFault as fault:
            self._fail(fault.code, fault.reason)
            return
        table = self._table
        table.advance(1)
        table.opened = 1
        table.streams[1] = Stream(1, self.sender.initial_window, None, is_head=is_head)

    # ------------------------------------------------------------------ heads

    def _read_headers(self, flags: int, number: int, payload: bytes) -> None:
        if not number:
            raise ConnectionFault(PROTOCOL_ERROR, "HEADERS on stream 0")
        if flags & frames.PADDED:
            payload = _unpad(payload)
        if flags & frames.WITH_PRIORITY:
            if len(payload) < 5:  # noqa: PLR2004 - RFC 9113 §6.2
                raise ConnectionFault(FRAME_SIZE_ERROR, "HEADERS too short for its priority")
            if int.from_bytes(payload[:4], "big") & frames.LAST_STREAM == number:
                raise ConnectionFault(PROTOCOL_ERROR, "a stream that depends on itself")
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
            raise ConnectionFault(PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._count(flood.OVERHEAD)
        if not payload and not flags & frames.END_HEADERS:
            self._count(flood.EMPTY)
        block.continuations += 1
        block.data += payload
        limits = self._terms.limits
        if limits.http2_continuations and block.continuations > limits.http2_continuations:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "a header block in too many frames")
        if limits.http2_header_block and len(block.data) > limits.http2_header_block:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "a header block too large")
        if flags & frames.END_HEADERS:
            self._block = None
            self._take_block(number, block.data, ended=block.ended)

    def _take_block(self, number: int, block: bytes, *, ended: bool) -> None:
        """Take a whole header block: a request's, or a trailer section."""
        if number > self._table.last:
            self._open(number, block, ended=ended)
            return
        stream = self.streams.get(number)
        if stream is None:
            self._count(flood.OVERHEAD)
            self._heads.decode(block)
            self._judge_late(number)
        elif stream.inbound is None:  # spec attacks C2
            self._heads.decode(block)
            raise StreamFault(number, STREAM_CLOSED, "HEADERS after the end of the stream")
        else:
            self._take_trailers(stream, stream.inbound, block, ended=ended)

    def _judge_late(self, number: int) -> None:
        """Ignore a frame on a stream that we ended, refuse one on a stream that is closed or was passed over (RFC 9113 §5.1)."""
        if self._table.was_reset(number):
            return
        if self._table.was_never_opened(number):
            raise ConnectionFault(PROTOCOL_ERROR, "a stream that was never opened")
        raise ConnectionFault(STREAM_CLOSED, "a frame on a closed stream")

    def _open(self, number: int, block: bytes, *, ended: bool) -> None:
        """Open a stream."""
        if not number & 1:
            raise ConnectionFault(PROTOCOL_ERROR, "a stream with a server's number")
        table = self._table
        table.advance(number)
        try:
            head = self._heads.read(block)
        except MalformedError as error:
            raise StreamFault(number, PROTOCOL_ERROR, str(error)) from None
        streams, most = self.streams, self._terms.streams
        if table.last_is_final or len(streams) >= most or self.calls >= most:
            self._count(flood.OVERHEAD)
            table.end(number, REFUSED_STREAM)
            return
        table.opened += 1
        if ended:
            if head.length:
                raise StreamFault(number, PROTOCOL_ERROR, "the body is shorter than its Content-Length")
            if head.upgrade is not None:
                raise StreamFault(number, PROTOCOL_ERROR, "a tunnel that is closed at once")
            inbound = None
        else:
            inbound = Inbound(table.stream_window, head.length)
        stream = streams[number] = Stream(number, self.sender.initial_window, inbound, is_head=head.method == "HEAD")
        if head.takes_trailers or head.expects_continue or head.urgency != stream.urgency or self._priorities:
            self._set_up(stream, head)
        if head.refusal is not None:
            self._events.append(self.reject(number, *head.refusal))
        else:
            self.calls += 1
            self._events.append(head.request(number, ended=ended))
        limit = self._terms.limits.requests_per_connection
        if limit and table.opened >= limit:
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
            raise StreamFault(number, PROTOCOL_ERROR, str(error)) from None
        if not ended or stream.tunnel:
            raise StreamFault(number, PROTOCOL_ERROR, "a second head that does not end the stream")
        if inbound.left:
            raise StreamFault(number, PROTOCOL_ERROR, "the body is shorter than its Content-Length")
        limits = self._terms.limits
        size = sum(len(name) + len(value) for name, value in fields or ())
        if fields is None or len(fields) > (limits.trailer_count or UNLIMITED) or size > (limits.trailer_bytes or UNLIMITED):
            self._give_up(stream, 431, "too many or too large trailer fields")
            return
        stream.inbound = None
        self._table.return_window(inbound)
        self._events.append(Trailers(number, fields) if fields else Body(number, b"", ended=True))

    def _give_up(self, stream: Stream, status: int, reason: str) -> None:
        """Answer what is too much with a status, where no response has begun."""
        self._events += (Aborted(stream.id, reason), self.reject(stream.id, status, reason))

    # ------------------------------------------------------------------ bodies

    def _read_data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        if not self._table.use_window(size):
            raise ConnectionFault(FLOW_CONTROL_ERROR, "more than the connection's window")
        stream = self.streams.get(number)
        if stream is None or stream.inbound is None:
            self._refuse_data(number, size)
            return
        inbound = stream.inbound
        inbound.window -= size
        if inbound.window < 0:
            self._table.credit(size)
            raise StreamFault(number, FLOW_CONTROL_ERROR, "more than the stream's window")
        if flags & frames.PADDED:
            payload = _unpad(payload)
            padding = size - len(payload)
            size -= padding
            inbound.taken += padding
            self._table.credit(padding)
        inbound.held += size
        self._take_data(stream, inbound, payload, size, ended=bool(flags & frames.END_STREAM))

    def _refuse_data(self, number: int, size: int) -> None:
        """Ignore what comes late, refuse what comes where nothing may come."""
        self._table.credit(size)
        if number in self.streams:  # spec attacks C2
            raise StreamFault(number, STREAM_CLOSED, "DATA after the end of the stream")
        self._count(flood.OVERHEAD)
        if not number or number > self._table.last:
            raise ConnectionFault(PROTOCOL_ERROR, "DATA on a stream that is not open")
        self._judge_late(number)

    def _take_data(self, stream: Stream, inbound: Inbound, payload: bytes, size: int, *, ended: bool) -> None:
        """Take bytes of a body that is under way."""
        number = stream.id
        if size < _SMALL and not ended:
            self._count_small(stream, size)
        inbound.received += size
        if inbound.left is not None:
            inbound.left -= size
            if inbound.left < 0 or (ended and inbound.left):
                raise StreamFault(number, PROTOCOL_ERROR, "the body is not as long as its Content-Length")
        limit = self._terms.limits.request_body
        if limit and inbound.received > limit and not stream.tunnel:
            self._give_up(stream, 413, f"a body of more than {limit} bytes")
            return
        if ended:
            stream.inbound = None
            self._table.return_window(inbound)
        if size or ended:
            self._events.append(Body(number, payload, ended))

    def _count_small(self, stream: Stream, size: int) -> None:
        if not size:
            self._count(flood.OVERHEAD)
            self._count(flood.EMPTY)
        if not stream.tunnel:
            self._count(flood.SMALL, _SMALL - size)

    # ------------------------------------------------------------------ other frames

    def _read_priority(self, _flags: int, number: int, payload: bytes) -> None:
        """Check it and ignore it: there is no priority tree (RFC 9113 §5.3.2)."""
        if int.from_bytes(payload[:4], "big") & frames.LAST_STREAM == number:
            raise ConnectionFault(PROTOCOL_ERROR, "a stream that depends on itself")
        self._count(flood.OVERHEAD)
        self._count(flood.PRIORITY)

    def _read_rst_stream(self, _flags: int, number: int, _payload: bytes) -> None:
        self._check_used(number, "RST_STREAM")
        self._count(flood.OVERHEAD)
        self._count(flood.RESET)
        stream = self.streams.get(number)
        if stream is not None:
            self._table.forget(stream)
            self._events.append(Aborted(number, "the client reset the stream"))

    def _check_used(self, number: int, name: str) -> None:
        """No frame but HEADERS and PRIORITY comes on a stream that is idle (RFC 9113 §5.1)."""
        if not number or number > self._table.last or not number & 1:
            raise ConnectionFault(PROTOCOL_ERROR, f"{name} on a stream that is not open")

    def _read_settings(self, flags: int, _number: int, payload: bytes) -> None:
        self._count(flood.OVERHEAD)
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(FRAME_SIZE_ERROR, "an acknowledgement of SETTINGS with a payload")
            self._settle()
            return
        if len(payload) % 6:
            raise ConnectionFault(FRAME_SIZE_ERROR, "SETTINGS of the wrong length")
        self._count(flood.SETTINGS)
        values = frames.read_settings(payload)
        limit = self._terms.limits.http2_settings_entries
        if limit and len(values) > limit:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "too many settings")
        for name, value in values:
            self._apply(name, value)
        self.sender.say(frames.SETTINGS_ACK)

    def _settle(self) -> None:
        """The client keeps to our settings from now on (RFC 9113 §6.5.3)."""
        if self.settled:
            return
        self.settled = True
        self._table.settle(self._terms.window)

    def _apply(self, name: int, value: int) -> None:
        """Take a setting of the client's (RFC 9113 §6.5.2). Those that bind only who pushes, or who has a table, are not ours."""
        if name == SettingCodes.INITIAL_WINDOW_SIZE:
            if value > frames.LARGEST_WINDOW:
                raise ConnectionFault(FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE is too large")
            change = value - self.sender.initial_window
            self.sender.initial_window = value
            for stream in self.streams.values():
                if not self.sender.open_stream(stream, change):
                    raise ConnectionFault(FLOW_CONTROL_ERROR, "a stream's window is too large")
        elif name == SettingCodes.MAX_FRAME_SIZE:
            if not frames.FRAME_SIZE <= value < 1 << 24:
                raise ConnectionFault(PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE is out of its range")
        elif name in _SWITCHES and value > 1:
            raise ConnectionFault(PROTOCOL_ERROR, "a setting that is neither 0 nor 1")

    def _read_push_promise(self, _flags: int, _number: int, _payload: bytes) -> None:
        raise ConnectionFault(PROTOCOL_ERROR, "PUSH_PROMISE from a client")

    def _read_ping(self, flags: int, _number: int, payload: bytes) -> None:
        self._count(flood.OVERHEAD)
        if not flags & frames.ACK:
            self._count(flood.PING)
            self.sender.say(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif payload == _DRAIN_PING:
            self.finish_drain()

    def _read_goaway(self, _flags: int, _number: int, _payload: bytes) -> None:
        """Note that the client is about to leave; what it asked for is still answered."""
        self._count(flood.OVERHEAD)
        self.drain()

    def _read_window_update(self, _flags: int, number: int, payload: bytes) -> None:
        size = int.from_bytes(payload, "big") & frames.LARGEST_WINDOW
        if not size:
            raise ConnectionFault(PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
        self._window_updates += 1
        each = self._terms.limits.http2_window_updates
        if each and self._window_updates > 5 + 2 * (self._table.opened + each * self.sender.data_frames):  # spec limits L29
            raise ConnectionFault(ENHANCE_YOUR_CALM, "too many WINDOW_UPDATE frames")
        if not number:
            if not self.sender.open_window(size):
                raise ConnectionFault(FLOW_CONTROL_ERROR, "the connection's window is too large")
            return
        self._check_used(number, "WINDOW_UPDATE")
        stream = self.streams.get(number)
        if stream is not None and not self.sender.open_stream(stream, size):  # spec attacks C2
            raise StreamFault(number, FLOW_CONTROL_ERROR, "the stream's window is too large")

    def _read_priority_update(self, _flags: int, _number: int, payload: bytes) -> None:
        """Take another urgency (RFC 9218 §7.1)."""
        self._count(flood.OVERHEAD)
        target = int.from_bytes(payload[:4], "big") & frames.LAST_STREAM
        if not target & 1:
            raise ConnectionFault(PROTOCOL_ERROR, "PRIORITY_UPDATE of a stream that no client has")
        urgency = read_priority(payload[4:])
        stream = self.streams.get(target)
        if stream is not None:
            stream.urgency = urgency
        elif target > self._table.last:
            if len(self._priorities) >= self._terms.streams:
                self._priorities.clear()
            self._priorities[target] = urgency

    def _read_unknown(self, _flags: int, _number: int, _payload: bytes) -> None:
        """Ignore what we do not know (RFC 9113 §5.5)."""
        self._count(flood.OVERHEAD)

    def _count(self, what: flood.Flood, amount: int = 1) -> None:
        self._floods.count(what, self._now, amount)

    _readers: ClassVar[dict[int, Callable[["Http2", int, int, bytes], None]]] = {
        frames.DATA: _read_data,
        frames.HEADERS: _read_headers,
        frames.PRIORITY: _read_priority,
        frames.RST_STREAM: _read_rst_stream,
        frames.SETTINGS: _read_settings,
        frames.PUSH_PROMISE: _read_push_promise,
        frames.PING: _read_ping,
        frames.GOAWAY: _read_goaway,
        frames.WINDOW_UPDATE: _read_window_update,
        frames.CONTINUATION: _read_continuation,
        frames.PRIORITY_UPDATE: _read_priority_update,
    }

    # ------------------------------------------------------------------ faults and ends

    def _break(self, error: StreamFault) -> None:
        """End a stream for the client's fault. Many of them are an attack (CVE-2025-8671)."""
        self._table.end(error.stream, error.code)
        self._events.append(Fault(error.stream, error.code, error.reason))
        self._count(flood.FAULT)

    def _fail(self, code: ErrorCodes, reason: str) -> None:
        """End the connection for the client's fault, and say why."""
        self.sender.say(frames.goaway(self._table.last, code, reason))
        self._stop(LINGER, reason, code)

    def _stop(self, ending: Ending, reason: str, code: ErrorCodes = NO_ERROR) -> None:
        self._events += [Aborted(number, reason) for number in self.streams]
        self._events.append(Fault(0, code, reason))
        self._table.clear()
        self._held.clear()
        self._block = None
        self._table.ending = ending

    def end_of_input(self) -> list[Event]:
        """The client has gone: nothing more can be answered."""
        self._events = []
        if self.ending is OPEN:
            self._events += [Aborted(number, "the client left") for number in self.streams]
            self._table.clear()
            self._table.ending = Ending.CLOSE
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
            self._table.last_is_final = True
            self.sender.say(frames.goaway(self._table.last, NO_ERROR))
            if not self.streams:
                self._table.ending = LINGER

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
            self._table.complete(stream)
        return sender.output()


def _unpad(payload: bytes) -> bytes:
    """Take the padding off (RFC 9113 §6.1)."""
    if not payload:
        raise ConnectionFault(FRAME_SIZE_ERROR, "a padded frame without a length of its padding")
    padding = payload[0]
    if padding >= len(payload):
        raise ConnectionFault(PROTOCOL_ERROR, "more padding than there is payload")
    return payload[1 : len(payload) - padding]


_SWITCHES: Final = frozenset({SettingCodes.ENABLE_PUSH, SettingCodes.ENABLE_CONNECT_PROTOCOL, frames.NO_RFC7540_PRIORITIES})
# Frames that are about the connection or a stream, and the sizes they may have (RFC 9113 §6, RFC 9218 §7.1).
_SHAPES: Final = {
    frames.PRIORITY: ("PRIORITY", True, 5, 5),
    frames.RST_STREAM: ("RST_STREAM", True, 4, 4),
    frames.SETTINGS: ("SETTINGS", False, 0, frames.FRAME_SIZE),
    frames.PING: ("PING", False, 8, 8),
    frames.GOAWAY: ("GOAWAY", False, 8, frames.FRAME_SIZE),
    frames.WINDOW_UPDATE: ("WINDOW_UPDATE", None, 4, 4),
    frames.PRIORITY_UPDATE: ("PRIORITY_UPDATE", False, 4, frames.FRAME_SIZE),
}


def _check_shape(kind: int, number: int, size: int) -> None:
    name, on_stream, least, most = _SHAPES[kind]
    if on_stream is not None and bool(number) is not on_stream:
        raise ConnectionFault(PROTOCOL_ERROR, f"{name} on stream {number}")
    if not least <= size <= most:
        raise ConnectionFault(FRAME_SIZE_ERROR, f"{name} of {size} bytes")
