"""HTTP/2, server side (RFC 9113). No I/O.

Bytes go in through `receive`, which answers with events; commands, each naming its stream, append to the output, handed out by `output`.
`h2reader.py` gives the frames, this module says what they mean: the heads of requests are `h2head.py`'s, those of responses
`h2response.py`'s; `h2table.py` knows the streams, `h2responses.py` what is said on them, `streams.py` sends. Nothing is held but what a
limit counts, and what flow control let the client send: the window a body used up is given back as the application takes the bytes.

The peer's faults have two sizes (RFC 9113 §5.4): `StreamFault` ends a stream and is counted, `ConnectionFault` ends everything, with a
GOAWAY that says why. What costs us and moves no request forward is counted as well (`floods.py`).

The h2 package was rejected as the engine: 82 µs a request, a frame of 16 MiB is buffered before its length is looked at, floods are not
counted. Its names for errors and settings are used, and its client is the tests' second opinion.
"""

from collections.abc import Callable
from enum import Enum, auto
from typing import ClassVar, Final

from h2.errors import ErrorCodes

from termserver.wire import floods as flood
from termserver.wire import h2frames as frames
from termserver.wire.events import Aborted, Body, Ending, Event, Fault, Trailers
from termserver.wire.floods import FloodError, Floods
from termserver.wire.h2faults import ConnectionFault, StreamFault
from termserver.wire.h2head import Head, HeadReader, MalformedError, read_priority
from termserver.wire.h2reader import FrameReader, check_dependency, unpad
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


class Http2:
    """One connection. Satisfies `Responder`."""

    __slots__ = (
        "_draining",
        "_events",
        "_floods",
        "_heads",
        "_now",
        "_reader",
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
        self._reader = FrameReader(limits, self._floods)
        self._draining = NOT_DRAINING
        self._events: list[Event] = []
        self._now = 0.0
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
        take, table = self._take_frame, self._table
        try:
            for frame in self._reader.read(data, now):
                take(*frame)
                if table.ending is not OPEN:  # a drain came to its end
                    break
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

    def _take_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        try:
            self._readers.get(kind, Http2._read_unknown)(self, flags, number, payload)
        except StreamFault as error:
            self._break(error)

    @property
    def greeted(self) -> bool:
        """Whether the client has sent its preface and its settings."""
        return self._reader.greeted

    @property
    def open_window(self) -> int:
        """Bytes of request bodies that the client may send on all streams together."""
        return self._table.window

    @property
    def in_head(self) -> bool:
        """Whether a part of a head, or of a frame that might be one, is here."""
        return self._reader.in_head

    def adopt(self, settings: bytes, *, is_head: bool) -> list[Event]:
        """Take over an HTTP/1 request as stream 1, with the settings that came with it (RFC 7540 §3.2)."""
        events = self._events = []
        try:
            for name, value in frames.read_settings(settings):
                self._table.apply(name, value)
        except ConnectionFault as fault:
            self._fail(fault.code, fault.reason)
            return events
        table = self._table
        table.advance(1)
        table.opened = 1
        table.streams[1] = Stream(1, self.sender.initial_window, None, is_head=is_head)
        return events

    # ------------------------------------------------------------------ heads

    def _read_headers(self, flags: int, number: int, block: bytes) -> None:
        """Take a whole header block: a request's, or a trailer section."""
        if not number:
            raise ConnectionFault(PROTOCOL_ERROR, "HEADERS on stream 0")
        ended = bool(flags & frames.END_STREAM)
        if self._table.is_idle(number):
            self._open(number, block, ended=ended)
            return
        stream = self.streams.get(number)
        if stream is None:
            self._count(flood.OVERHEAD)
            self._heads.decode(block)
            self._table.judge_late(number)
        elif stream.inbound is None:  # spec attacks C2
            self._heads.decode(block)
            raise StreamFault(number, STREAM_CLOSED, "HEADERS after the end of the stream")
        elif stream.inbound.unwanted:
            self._heads.decode(block)
            self._drop(stream, ended=ended)
        else:
            self._take_trailers(stream, stream.inbound, block, ended=ended)

    def _open(self, number: int, block: bytes, *, ended: bool) -> None:
        """Open a stream."""
        if not number & 1:
            raise ConnectionFault(PROTOCOL_ERROR, "a stream with a server's number")
        table = self._table
        if table.last_is_final:
            self._heads.decode(block)
            self._refuse(number)
            return
        table.advance(number)
        try:
            head = self._heads.read(block)
        except MalformedError as error:
            raise StreamFault(number, PROTOCOL_ERROR, str(error)) from None
        streams, most = self.streams, self._terms.streams
        if len(streams) >= most or self.calls >= most:
            self._refuse(number)
            return
        table.opened += 1
        if ended and (head.length or head.upgrade is not None):
            raise StreamFault(number, PROTOCOL_ERROR, "the stream ends before its body, or its tunnel, has begun")
        inbound = None if ended else Inbound(table.stream_window, head.length)
        stream = streams[number] = Stream(number, self.sender.initial_window, inbound, is_head=head.method == "HEAD")
        if head.is_special or table.priorities:
            self._set_up(stream, head)
        if head.refusal is not None:
            self._events.append(self.reject(number, *head.refusal))
        else:
            self.calls += 1
            self._events.append(head.request(number, ended=ended))
        limit = self._terms.limits.requests_per_connection
        if limit and table.opened >= limit:
            self.drain()

    def _refuse(self, number: int) -> None:
        """Leave a stream alone: the client may ask for the same again, elsewhere or later."""
        self._count(flood.OVERHEAD)
        self._table.end(number, REFUSED_STREAM)

    def _set_up(self, stream: Stream, head: Head) -> None:
        """Note what few requests ask for."""
        stream.takes_trailers = head.takes_trailers
        stream.tunnel = head.upgrade is not None
        stream.expects_continue = head.expects_continue
        stream.urgency = self._table.priorities.pop(stream.id, head.urgency)

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
        self._end_body(stream, inbound)
        if fields is None or len(fields) > (limits.trailer_count or UNLIMITED) or size > (limits.trailer_bytes or UNLIMITED):
            self._give_up(stream, 431, "too many or too large trailer fields")
            return
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
        if inbound.unwanted:
            self._table.credit(size)
            self._drop(stream, ended=bool(flags & frames.END_STREAM))
            return
        if flags & frames.PADDED:
            payload = unpad(payload)
            padding = size - len(payload)
            size -= padding
            self._table.reopen(number, inbound, padding)
        inbound.held += size
        self._take_data(stream, inbound, payload, size, ended=bool(flags & frames.END_STREAM))

    def _drop(self, stream: Stream, *, ended: bool) -> None:
        """Pass over what comes of a request that was answered already: the answer still waits."""
        self._count(flood.OVERHEAD)
        if ended:
            stream.inbound = None

    def _refuse_data(self, number: int, size: int) -> None:
        """Ignore what comes late, refuse what comes where nothing may come."""
        self._table.credit(size)
        if number in self.streams:  # spec attacks C2
            raise StreamFault(number, STREAM_CLOSED, "DATA after the end of the stream")
        self._count(flood.OVERHEAD)
        if not number or self._table.is_idle(number):
            raise ConnectionFault(PROTOCOL_ERROR, "DATA on a stream that is not open")
        self._table.judge_late(number)

    def _take_data(self, stream: Stream, inbound: Inbound, payload: bytes, size: int, *, ended: bool) -> None:
        """Take bytes of a body that is under way."""
        number = stream.id
        if size < _SMALL and not ended:
            self._count_small(stream, inbound, size)
        inbound.received += size
        if inbound.left is not None:
            inbound.left -= size
            if inbound.left < 0 or (ended and inbound.left):
                raise StreamFault(number, PROTOCOL_ERROR, "the body is not as long as its Content-Length")
        if ended:
            self._end_body(stream, inbound)
        limit = self._terms.limits.request_body
        if limit and inbound.received > limit and not stream.tunnel:
            self._give_up(stream, 413, f"a body of more than {limit} bytes")
            return
        if size or ended:
            self._events.append(Body(number, payload, ended))

    def _end_body(self, stream: Stream, inbound: Inbound) -> None:
        stream.inbound = None
        self._table.return_window(inbound)

    def _count_small(self, stream: Stream, inbound: Inbound, size: int) -> None:
        if not size:
            self._count(flood.OVERHEAD)
            self._count(flood.EMPTY)
        elif not inbound.small:  # many clients send a body, and then an empty frame that ends it
            inbound.small = True
            return
        if not stream.tunnel:
            self._count(flood.SMALL, _SMALL - size)

    # ------------------------------------------------------------------ other frames

    def _read_priority(self, _flags: int, number: int, payload: bytes) -> None:
        """Check it and ignore it: there is no priority tree (RFC 9113 §5.3.2)."""
        check_dependency(payload, number)
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
        if not number or self._table.is_idle(number) or not number & 1:
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
            self._table.apply(name, value)
        self.sender.say(frames.SETTINGS_ACK)

    def _settle(self) -> None:
        """The client keeps to our settings from now on (RFC 9113 §6.5.3)."""
        if self.settled:
            return
        self.settled = True
        self._table.settle(self._terms.window)

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
        self._table.prioritize(target, read_priority(payload[4:]))

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
        self._reader.clear()
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
