"""How long an HTTP/2 connection and its streams may take for what (spec limits L12 to L17, L32, L35, L40, L48): one deadline in the wheel.

While a stream is open, the connection looks at its streams a few times a second: what a body brought since the last look, what a response
was allowed to send, how long the application has been at it. So a request that is answered at once costs no time-keeping at all.
"""

import math
from typing import TYPE_CHECKING, Final

from h2.errors import ErrorCodes

from termserver.asgi.websocket import WebSocketExchange
from termserver.config import Timeouts
from termserver.net.pace import SlowReader
from termserver.wire.h2frames import FRAME_SIZE
from termserver.wire.streams import Inbound, Stream

if TYPE_CHECKING:
    from termserver.net.http2 import Http2Connection
    from termserver.net.streams import StreamOutlet

_LAST_CHANCE: Final = 1.0  # seconds for a client to be gone, once the server stops


class StreamWatch:
    """What one stream did since it was first looked at."""

    __slots__ = ("_active", "_looked_at", "_quiet_since", "_received", "_slow", "_whole_since")

    def __init__(self, now: float) -> None:
        """Begin."""
        self._looked_at = self._quiet_since = now
        self._active = 0.0  # seconds in which body bytes could have come
        self._received = 0
        self._whole_since = math.inf  # since when the application has all of the request
        self._slow: SlowReader | None = None

    def fault(self, stream: Stream, now: float, timeouts: Timeouts, *, free: bool, may_send: bool) -> str | None:
        """Say what is wrong with the client, if anything is.

        `free`: nothing but the stream's own window holds its response up; `may_send`: the same of the request's body.
        """
        fault = None
        if stream.tunnel:
            pass
        elif stream.inbound is not None:
            fault = self._body_fault(stream.inbound, now, timeouts, may_send=may_send and not stream.expects_continue)
        elif self._whole_since == math.inf:
            self._whole_since = now
        self._looked_at = now
        outbound = stream.outbound
        if outbound is None or not outbound.size or stream.window > 0 or not free:
            self._slow = None if outbound is None or not free else self._slow
            return fault
        if self._slow is None:
            self._slow = SlowReader(stream.sent, now)
        return fault or self._slow.fault(stream.sent, now, timeouts)

    def _body_fault(self, inbound: Inbound, now: float, timeouts: Timeouts, *, may_send: bool) -> str | None:
        may_send = may_send and inbound.window > 0  # else it waits for an application, as we do
        if may_send:
            self._active += now - self._looked_at
        if inbound.received != self._received or not may_send:
            self._received, self._quiet_since = inbound.received, now
        if timeouts.body_idle and now - self._quiet_since >= timeouts.body_idle:
            return "no body byte came for too long"
        active = self._active
        if timeouts.body_rate and active > timeouts.body_rate_grace and inbound.received < timeouts.body_rate * active:
            return "the body comes too slowly"
        return None

    def is_late(self, outlet: "StreamOutlet", now: float, timeouts: Timeouts) -> bool:
        """Whether the application has had its time."""
        exchange = outlet.exchange
        if outlet.transport is not None or outlet.left or exchange.done:
            return False
        limit = timeouts.application
        if isinstance(exchange, WebSocketExchange) and not exchange.begun:
            limit = timeouts.websocket_accept
            return bool(limit) and now - self._quiet_since >= limit
        return bool(limit) and now - self._whole_since >= limit


class Http2Pace:
    """The deadlines of one connection."""

    __slots__ = (
        "_closing_since",
        "_connection",
        "_drain_due",
        "_farewell",
        "_greeting_due",
        "_head_opened",
        "_head_since",
        "_heard_at",
        "_idle_due",
        "_look",
        "_opened",
        "_reads_on",
        "_settings_due",
        "_slow",
        "_timeouts",
        "_watches",
        "_window_slow",
        "deadline",
    )

    def __init__(self, connection: "Http2Connection", timeouts: Timeouts, now: float, look: float) -> None:
        """`look`: seconds between two looks at the streams."""
        self.deadline = now
        self._connection = connection
        self._timeouts = timeouts
        self._look = look
        self._greeting_due = now + (timeouts.http2_preface or math.inf)
        self._settings_due = math.inf
        self._idle_due = now + (timeouts.keep_alive or math.inf)
        self._drain_due = self._head_since = self._closing_since = math.inf
        self._head_opened = self._opened = 0
        self._heard_at = now
        self._reads_on = False  # what still comes after our end is discarded
        self._farewell = timeouts.linger_total or math.inf
        self._slow: SlowReader | None = None  # by the transport
        self._window_slow: SlowReader | None = None  # by the connection's window
        self._watches: dict[int, StreamWatch] = {}
        self._set(now)

    # ------------------------------------------------------------------ what the connection says

    def turn(self, now: float, *, busy: bool) -> None:
        """Note that bytes came, or that something was said."""
        engine = self._connection.engine
        if self._greeting_due < math.inf and engine.greeted:
            self._greeting_due = math.inf
            if not engine.settled:
                self._settings_due = now + (self._timeouts.http2_settings or math.inf)
                self.deadline = min(self.deadline, self._settings_due)
        if engine.opened != self._opened:
            self._opened = engine.opened
            self._idle_due = now + (self._timeouts.keep_alive or math.inf)
        if busy or engine.in_head:
            due = now + self._look
            self.deadline = min(self.deadline, due)
        elif self._watches:
            self._watches = {}

    def finish_drain_by(self, due: float) -> None:
        """Set the time of the second step of draining, unless there is one."""
        self._drain_due = min(self._drain_due, due)
        self.deadline = min(self.deadline, self._drain_due)

    def hurry(self) -> None:
        """The server stops, so a client that is to go has a moment to do so."""
        self._farewell = min(self._farewell, _LAST_CHANCE)

    def received(self, now: float) -> None:
        """Note that bytes came that are discarded."""
        self._heard_at = now

    def lingering(self, now: float) -> None:
        """Wait for the client to go away, after it was told why."""
        self._closing_since = self._heard_at = now
        self._reads_on = True
        self._set(now)

    def closing(self, now: float) -> None:
        """Wait for the client to take note of our close."""
        self._closing_since = now
        self._reads_on = False
        self._set(now)

    def write_blocked(self, now: float) -> None:
        """The client does not keep up: watch what it takes."""
        self._slow = SlowReader(self._connection.progress(), now)
        self.deadline = min(self.deadline, now + self._look)

    def write_free(self) -> None:
        """It keeps up again."""
        self._slow = None

    # ------------------------------------------------------------------ when it is due

    def expired(self, now: float) -> None:
        """Find out what is wrong, and say so."""
        connection, timeouts = self._connection, self._timeouts
        fault = self._slow.fault(connection.progress(), now, timeouts) if self._slow is not None else None
        if fault is not None:
            connection.peer_too_slow(fault)
        elif self._closing_since < math.inf:
            self._judge_farewell(now)
        else:
            self._judge(now)
        self._set(now)

    def _judge(self, now: float) -> None:
        connection, engine, timeouts = self._connection, self._connection.engine, self._timeouts
        if engine.settled:
            self._settings_due = math.inf
        if self._drain_due <= now:
            self._drain_due = math.inf
            connection.finish_drain()
        if self._greeting_due <= now:
            connection.peer_broke_off(ErrorCodes.SETTINGS_TIMEOUT, "the preface took too long")
        elif self._settings_due <= now:
            connection.peer_broke_off(ErrorCodes.SETTINGS_TIMEOUT, "settings were not acknowledged")
        elif self._head_too_slow(now):
            connection.peer_broke_off(ErrorCodes.ENHANCE_YOUR_CALM, "the request head took too long")
        elif engine.streams:
            self._idle_due = now + (timeouts.keep_alive or math.inf)
            self._judge_streams(now)
        elif self._idle_due <= now and not connection.outlets:
            connection.idle_for_too_long()

    def _head_too_slow(self, now: float) -> bool:
        engine = self._connection.engine
        if not engine.in_head:
            self._head_since = math.inf
        elif self._head_since == math.inf or engine.opened != self._head_opened:
            self._head_opened, self._head_since = engine.opened, now
        limit = self._timeouts.header_read
        return bool(limit) and now - self._head_since >= limit

    def _judge_streams(self, now: float) -> None:
        connection, timeouts = self._connection, self._timeouts
        sender, watches = connection.engine.sender, self._watches
        if sender.waiting and sender.window <= 0 and not sender.blocked:
            if self._window_slow is None:
                self._window_slow = SlowReader(sender.sent, now)
            fault = self._window_slow.fault(sender.sent, now, timeouts)
            if fault is not None:
                connection.peer_too_slow(fault)
                return
        elif not sender.waiting:
            self._window_slow = None
        free = sender.window > 0 and not sender.blocked
        may_send = connection.engine.open_window >= FRAME_SIZE  # with less, it may wait for a whole frame's
        self._watches = {}
        for number, stream in tuple(connection.engine.streams.items()):
            watch = self._watches[number] = watches.get(number) or StreamWatch(now)
            fault = watch.fault(stream, now, timeouts, free=free, may_send=may_send)
            outlet = connection.outlets.get(number)
            if fault is not None:
                connection.stream_too_slow(number, fault)
            elif outlet is not None and watch.is_late(outlet, now, timeouts):
                connection.application_too_slow(number)

    def _judge_farewell(self, now: float) -> None:
        end = self._closing_since + self._farewell
        if self._reads_on:
            end = min(end, self._heard_at + (self._timeouts.linger_idle or math.inf))
        if self._slow is not None:  # our last bytes are on their way: the farewell begins after them
            self._closing_since = self._heard_at = now
        elif now >= end:
            self._closing_since = now
            self._connection.farewell_over()

    def _set(self, now: float) -> None:
        connection = self._connection
        if self._closing_since < math.inf:
            end = self._closing_since + self._farewell
            idle = self._heard_at + (self._timeouts.linger_idle or math.inf) if self._reads_on else math.inf
            self.deadline = min(end, idle, now + self._look if self._slow is not None else math.inf)
            return
        engine = connection.engine
        watched = engine.streams or engine.in_head or self._slow is not None
        self.deadline = min(
            self._idle_due if not connection.outlets else now + self._look,
            self._greeting_due,
            self._settings_due,
            self._drain_due,
            now + self._look if watched else math.inf,
        )
