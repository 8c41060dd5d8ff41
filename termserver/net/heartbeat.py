"""How long one WebSocket may be silent, slow or closing (spec limits L17, L25, L35, L39, L40, L53): one deadline in the wheel.

A peer that sends anything is alive, so the clock is not asked for its pongs: what counts is when bytes last came (`heard_at`). One that
was silent for the interval is sent a ping, and given up when nothing comes for the time-out. While we do not read, because the application
has not taken what is there, its silence is ours.
"""

import math
from enum import Enum, auto
from typing import Final, Protocol

from termserver.config import Timeouts
from termserver.net.pace import SlowReader

_LOOK: Final = 1.0  # seconds between two looks at a peer that does not keep up


class Beating(Protocol):
    """What a heartbeat asks of its connection, and tells it."""

    @property
    def heard_at(self) -> float:
        """When bytes last came; monotonic seconds."""

    @property
    def paused(self) -> bool:
        """Whether we have stopped reading."""

    def progress(self) -> int:
        """Bytes that the peer has taken so far."""

    def look_for_departure(self) -> None:
        """Reading has stood still for a while: see whether the peer is still there."""

    def ping(self) -> None:
        """Ask the peer for a sign of life."""

    def peer_silent(self) -> None:
        """The peer gave none: 1011, then cut."""

    def too_old(self) -> None:
        """The socket has been open for as long as it may be: 1000."""

    def peer_too_slow(self, reason: str) -> None:
        """The peer does not take what it is sent, or does not go away: end it at once."""

    def farewell_over(self) -> None:
        """The peer does not go away: close, or if that was done cut."""


class _State(Enum):
    LISTENING = auto()
    PINGED = auto()
    CLOSING = auto()  # our Close frame is out, or the connection is closed
    LINGERING = auto()  # what still comes is discarded


LISTENING, PINGED, CLOSING, LINGERING = _State


class Heartbeat:
    """The deadlines of one WebSocket."""

    __slots__ = ("_age_due", "_connection", "_due", "_end", "_pinged_at", "_progress", "_slow", "_state", "_timeouts", "deadline")

    def __init__(self, connection: Beating, timeouts: Timeouts, now: float) -> None:
        """Begin to listen."""
        self._connection = connection
        self._timeouts = timeouts
        self._state = LISTENING
        self._age_due = now + (timeouts.websocket_age or math.inf)
        self._end = self._pinged_at = math.inf
        self._progress = 0
        self._slow: SlowReader | None = None
        self._wait(now + (timeouts.websocket_ping_interval or math.inf), now)

    def closing(self, now: float) -> None:
        """Wait for the peer to answer our Close frame, or to take note that the connection is closed: once, whatever comes meanwhile."""
        if self._state is LISTENING or self._state is PINGED:
            self._state = CLOSING
            self._progress = self._connection.progress()
            self._wait(now + (self._timeouts.websocket_close or math.inf), now)

    def lingering(self, now: float) -> None:
        """Wait for the peer to go away, after it was told why."""
        self._state = LINGERING
        self._end = now + (self._timeouts.linger_total or math.inf)
        self._wait(now + (self._timeouts.linger_idle or math.inf), now)

    def write_blocked(self, now: float) -> None:
        """The peer does not keep up: watch what it takes."""
        self._slow = SlowReader(self._connection.progress(), now)
        self._wait(self._due, now)

    def write_free(self, now: float) -> None:
        """It keeps up again."""
        self._slow = None
        self._wait(self._due, now)

    def _wait(self, due: float, now: float) -> None:
        self._due = due
        self.deadline = min(due, self._age_due, self._end, math.inf if self._slow is None else now + _LOOK)

    def expired(self, now: float) -> None:
        """Find out what is wrong, and say so."""
        if self._slow is not None:
            fault = self._slow.fault(self._connection.progress(), now, self._timeouts)
            if fault is not None:
                self._connection.peer_too_slow(fault)
        state = self._state
        if self._age_due <= now:
            self._age_due = math.inf
            if state is LISTENING or state is PINGED:
                self._connection.too_old()
        elif self._due <= now or self._end <= now:
            self._judge(state, now)
        self._wait(self._due, now)

    def _judge(self, state: _State, now: float) -> None:
        connection, timeouts = self._connection, self._timeouts
        if state is LISTENING:
            self._due = max(connection.heard_at, now if connection.paused else 0.0) + timeouts.websocket_ping_interval
            if connection.paused:  # whether it is there shows when it is written to, where the system does not say
                connection.look_for_departure()
                connection.ping()
            elif self._due <= now:
                self._ask(now)
        elif state is PINGED:
            self._judge_silence(now)
        elif state is CLOSING:
            self._judge_closing(now)
        else:
            self._due = connection.heard_at + (timeouts.linger_idle or math.inf)
            if self._due <= now or self._end <= now:
                self._state, self._due, self._end = CLOSING, now + _LOOK, math.inf
                self._progress = connection.progress()
                connection.farewell_over()

    def _judge_closing(self, now: float) -> None:
        """Wait on while the peer takes what it was sent before: its answer comes behind that."""
        progress = self._connection.progress()
        if progress > self._progress:
            self._progress = progress
            if self._slow is None:
                self._slow = SlowReader(progress, now)
            self._due = now + (self._timeouts.websocket_close or math.inf)
        else:
            self._due = now + _LOOK
            self._connection.farewell_over()

    def _ask(self, now: float) -> None:
        timeouts = self._timeouts
        self._connection.ping()
        if timeouts.websocket_ping_timeout:
            self._state, self._pinged_at = PINGED, now
            self._due = now + min(timeouts.websocket_ping_interval, timeouts.websocket_ping_timeout)
        else:
            self._due = now + timeouts.websocket_ping_interval

    def _judge_silence(self, now: float) -> None:
        connection, timeouts = self._connection, self._timeouts
        if connection.paused:  # the pong may lie unread
            connection.look_for_departure()
            self._due = now + min(timeouts.websocket_ping_interval, timeouts.websocket_ping_timeout)
        elif connection.heard_at > self._pinged_at:
            self._state = LISTENING
            self._due = connection.heard_at + timeouts.websocket_ping_interval
            if self._due <= now:
                self._ask(now)
        elif now >= self._pinged_at + timeouts.websocket_ping_timeout:
            self._due = now + _LOOK
            connection.peer_silent()
        else:  # a pong that comes yet must not put off the next ping
            self._due = min(self._pinged_at + timeouts.websocket_ping_timeout, now + timeouts.websocket_ping_interval)
