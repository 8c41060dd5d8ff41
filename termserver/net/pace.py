"""How long one connection may take for what (spec limits L12 to L17, L35, L48): all its time-outs as one deadline in the wheel.

A connection is in one phase at a time, and beside it its writing may be blocked. Each has a time when it wants to be looked at; the
earlier one is the deadline. When it is due, `expired` finds out what is really wrong, if anything, and says so to the connection.
"""

import math
from typing import Final, Protocol

from termserver.config import Timeouts
from termserver.wire.events import Awaiting

_LOOK: Final = 1.0  # seconds between two looks at a rate
_LAST_CHANCE: Final = 1.0  # seconds for the first request of a connection, once the server stops


REQUEST, HEAD, BODY, APPLICATION, VERDICT, DISCARD = Awaiting


class Paced(Protocol):
    """What a pace tells its connection."""

    def progress(self) -> int:
        """Bytes that have left for the peer so far."""

    def idle_for_too_long(self) -> None:
        """No request came."""

    def request_too_slow(self, reason: str) -> None:
        """The head or the body does not come along: 408."""

    def application_too_slow(self) -> None:
        """The response, or the verdict on a WebSocket, does not come along."""

    def peer_too_slow(self, reason: str) -> None:
        """The peer does not take what it is sent, or does not go away: end it at once."""

    def farewell_over(self) -> None:
        """The peer does not go away: close, or if that was done cut."""

    def half_closed_for_long(self) -> None:
        """The peer shut its side a while ago, and nothing shows that it still reads."""


class SlowReader:
    """A peer that does not keep up with what it is sent: it may pause for a while, but not take next to nothing (spec limits L35)."""

    __slots__ = ("_bytes", "_since", "_window_bytes", "_window_since")

    def __init__(self, progress: int, now: float) -> None:
        """`progress`: bytes that it has taken so far."""
        self._bytes = self._window_bytes = progress
        self._since = self._window_since = now

    def fault(self, progress: int, now: float, timeouts: Timeouts) -> str | None:
        """Say what is wrong with it, if anything is."""
        if progress > self._bytes:
            self._bytes, self._since = progress, now
        stall, rate = timeouts.write_stall, timeouts.write_rate
        if stall and now - self._since >= stall:
            return "the peer stopped reading"
        if not (rate and stall) or now - self._window_since < stall:
            return None
        slow = progress - self._window_bytes < rate * (now - self._window_since)
        self._window_since, self._window_bytes = now, progress
        return "the peer reads too slowly" if slow else None


class Pace:
    """The deadlines of one connection."""

    __slots__ = (
        "_body_active",
        "_body_bytes",
        "_body_since",
        "_connection",
        "_farewell",
        "_half_closed_at",
        "_half_closed_progress",
        "_keep_alive",
        "_look_at",
        "_phase_due",
        "_reading",
        "_since",
        "_slow",
        "_timeouts",
        "deadline",
        "phase",
    )

    def __init__(self, connection: Paced, timeouts: Timeouts, now: float, *, first: float) -> None:
        """`first`: seconds a new connection has for its first byte. It said nothing, so it is told nothing (spec limits L12)."""
        self._connection = connection
        self._timeouts = timeouts
        self._keep_alive = timeouts.keep_alive or math.inf
        self._farewell = timeouts.linger_total or math.inf
        self.phase = REQUEST
        self._phase_due = self.deadline = now + (first or math.inf)
        self._look_at = math.inf  # at writing
        self._body_bytes = 0
        self._body_active = 0.0  # seconds in which body bytes could have come
        self._body_since = math.inf  # start of the current stretch of them
        self._reading = True
        self._since = now
        self._slow: SlowReader | None = None
        self._half_closed_at = math.inf
        self._half_closed_progress = 0

    def idle(self, now: float) -> None:
        """Wait for the next request."""
        self.phase = REQUEST
        due = self._phase_due = now + self._keep_alive
        look_at = self._look_at
        self.deadline = due if due < look_at else look_at  # noqa: FURB136 - half the cost of min(), for every request

    def enter(self, phase: Awaiting, now: float) -> None:
        """Wait for something else; staying in a phase changes nothing."""
        if phase is self.phase:
            return
        self.phase = phase
        timeouts = self._timeouts
        if phase is APPLICATION:
            due = now + (timeouts.application or math.inf)
        elif phase is VERDICT:
            due = now + (timeouts.websocket_accept or math.inf)
        elif phase is HEAD:
            due = now + (timeouts.header_read or math.inf)
        elif phase is BODY:
            self._body_bytes, self._body_active, self._body_since = 0, 0.0, now
            due = now + _LOOK
        else:
            self._since = self._body_since = now
            due = now + min(timeouts.linger_idle or math.inf, self._farewell)
        self._phase_due = due
        self.deadline = min(due, self._look_at)

    def hurry(self, now: float) -> None:
        """The server stops: a connection that brought no request yet has a moment to do so, one that is going a moment to be gone."""
        self._farewell = min(self._farewell, _LAST_CHANCE)
        if self.phase is REQUEST or self.phase is DISCARD:
            self._since = now
            self._phase_due = min(self._phase_due, now + _LAST_CHANCE)
            self.deadline = min(self._phase_due, self._look_at)

    def closing(self, now: float) -> None:
        """Wait for the peer to take note of our close: nothing is read any more, so only the total counts."""
        self.phase = DISCARD
        self._since, self._body_since = now, math.inf
        self._phase_due = now + self._farewell
        self.deadline = min(self._phase_due, self._look_at)

    def received(self, size: int, now: float) -> None:
        """Count body bytes, or bytes that are discarded."""
        self._body_bytes += size
        if self.phase is BODY:
            self._body_active += now - self._body_since
        self._body_since = now

    def reading(self, on: bool, now: float) -> None:  # noqa: FBT001 - a switch
        """Stop or start the clocks of the body: what we do not read is not the peer's fault."""
        if self.phase is BODY and not on:
            self._body_active += now - self._body_since
        self._reading = on
        self._body_since = now

    def write_blocked(self, now: float) -> None:
        """The peer does not keep up: watch what it takes."""
        self._slow = SlowReader(self._connection.progress(), now)
        self._set_look(now)

    def write_free(self) -> None:
        """It keeps up again."""
        self._slow = None
        self._set_look(math.inf)

    def half_closed(self, now: float) -> None:
        """The peer shut its side while its response is still to come."""
        if not self._timeouts.half_close:
            return
        self._half_closed_at = now
        self._half_closed_progress = self._connection.progress()
        self._set_look(now)

    def _set_look(self, now: float) -> None:
        watched = self._slow is not None or self._half_closed_at < math.inf
        step = min(_LOOK, self._timeouts.half_close) if self._half_closed_at < math.inf else _LOOK
        self._look_at = now + step if watched else math.inf
        self.deadline = min(self._phase_due, self._look_at)

    # ------------------------------------------------------------------ when it is due

    def expired(self, now: float) -> None:
        """Find out what is wrong, and say so."""
        if self._look_at <= now:
            self._look(now)
        if self._phase_due <= now:
            self._phase_due = math.inf
            self._judge_phase(now)
        self.deadline = min(self._phase_due, self._look_at)

    def _judge_phase(self, now: float) -> None:
        connection, phase = self._connection, self.phase
        if phase is REQUEST and self._slow is not None:  # it is busy with our last response
            self._phase_due = now + _LOOK
        elif phase is REQUEST:
            connection.idle_for_too_long()
        elif phase is HEAD:
            connection.request_too_slow("the request head took too long")
        elif phase is BODY:
            self._judge_body(now)
        elif phase is APPLICATION or phase is VERDICT:
            if phase is VERDICT or self._timeouts.application:
                connection.application_too_slow()
        else:
            self._judge_farewell(now)

    def _judge_body(self, now: float) -> None:
        timeouts = self._timeouts
        self._phase_due = now + _LOOK
        if not self._reading:
            return
        quiet = now - self._body_since
        active = self._body_active + quiet
        if timeouts.body_idle and quiet >= timeouts.body_idle:
            self._connection.request_too_slow("no body byte came for too long")
        elif timeouts.body_rate and active > timeouts.body_rate_grace and self._body_bytes < timeouts.body_rate * active:
            self._connection.request_too_slow("the body comes too slowly")
        elif timeouts.body_idle:
            self._phase_due = min(self._phase_due, self._body_since + timeouts.body_idle)

    def _judge_farewell(self, now: float) -> None:
        timeouts = self._timeouts
        end = self._since + self._farewell
        idle_end = self._body_since + (timeouts.linger_idle or math.inf)
        if self._slow is not None:  # our last bytes are on their way, watched by `_look`: the farewell begins after them
            self._since, self._body_since = now, max(now, self._body_since)
            self._phase_due = now + _LOOK
        elif now >= end or now >= idle_end:
            self._connection.farewell_over()
        else:
            self._phase_due = min(end, idle_end)

    def _look(self, now: float) -> None:
        timeouts, progress = self._timeouts, self._connection.progress()
        fault = self._slow.fault(progress, now, timeouts) if self._slow is not None else None
        if fault is not None:
            self._connection.peer_too_slow(fault)
        if now - self._half_closed_at >= timeouts.half_close:
            self._judge_half_close(now, progress)
        self._set_look(now)

    def _judge_half_close(self, now: float, progress: int) -> None:
        """A peer that is gone answers our bytes with RST: whoever took some since its FIN is still reading."""
        if progress > self._half_closed_progress:
            self._half_closed_at, self._half_closed_progress = now, progress
        else:
            self._half_closed_at = math.inf
            self._connection.half_closed_for_long()
