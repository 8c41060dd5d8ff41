"""Application calls that go on after their client has left: given a while, then cancelled, then counted as stuck (spec limits L47).

Most end by themselves: `receive()` tells them, or `send()` does. What is left is cancelled, with one line that says which path, after how
many
seconds, and what the call was waiting for. A call that ignores even that is reported once, with its stack, and left alone: a thread cannot
be ended from outside.
"""

import asyncio
import logging
import math
import time
import traceback
from typing import Any

from termserver.asgi.http import HttpExchange
from termserver.asgi.websocket import WebSocketExchange
from termserver.config import Timeouts
from termserver.net.deadlines import Deadlines

logger = logging.getLogger("termserver")

Exchange = HttpExchange | WebSocketExchange


class Departures:
    """The calls of one worker whose clients have left."""

    def __init__(self, deadlines: Deadlines, timeouts: Timeouts) -> None:
        """Watch nobody yet."""
        self._deadlines = deadlines
        self._timeouts = timeouts
        self._watched: dict[Exchange, _Departure] = {}
        self.stuck = 0  # calls that ignored their cancellation

    def add(self, exchange: Exchange) -> None:
        """Watch a call. Its client may leave in two steps: the first counts."""
        if exchange in self._watched:
            return
        departure = self._watched[exchange] = _Departure(self, exchange, self._timeouts, time.monotonic())
        self._deadlines.add(departure)

    def discard(self, exchange: Exchange) -> None:
        """The call is over."""
        departure = self._watched.pop(exchange, None)
        if departure is not None:
            self._deadlines.discard(departure)

    def __len__(self) -> int:
        """Count the calls that still run."""
        return len(self._watched)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._watched)

    def exchanges(self) -> list[Exchange]:
        """Give the calls that still run."""
        return list(self._watched)


class _Departure:
    """One call."""

    __slots__ = ("_cancelled", "_exchange", "_owner", "_since", "_timeouts", "deadline")

    def __init__(self, owner: Departures, exchange: Exchange, timeouts: Timeouts, now: float) -> None:
        self._owner = owner
        self._exchange = exchange
        self._timeouts = timeouts
        self._since = now
        self._cancelled = False
        self.deadline = now + (timeouts.application_close or math.inf)

    def expired(self, now: float) -> None:
        """Cancel the call; the second time, give it up."""
        exchange, task = self._exchange, self._exchange.task
        if task is None:
            self._owner.discard(exchange)
        elif not self._cancelled:
            self._cancelled = True
            self.deadline = now + (self._timeouts.application_cancel or math.inf)
            logger.log(
                logging.INFO if exchange.begun and not isinstance(exchange, WebSocketExchange) else logging.WARNING,
                "%s %s: cancelled %.0f s after its client left; it was waiting for %s",
                exchange.request.method,
                exchange.request.path.decode("ascii"),
                now - self._since,
                exchange.waiting_for,
            )
            task.cancel()
        else:
            self._owner.discard(exchange)
            self._owner.stuck += 1
            logger.warning(
                "%s %s: still running %.0f s after its client left, cancelled in vain\n%s",
                exchange.request.method,
                exchange.request.path.decode("ascii"),
                now - self._since,
                _stack(task),
            )


def _stack(task: "asyncio.Task[None]") -> str:
    """Say where a call stands, from its first coroutine to the innermost one: `Task.print_stack` knows only the first."""
    frames = []
    awaited: Any = task.get_coro()
    while (frame := getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)) is not None:
        frames.append((frame, frame.f_lineno))
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return "".join(traceback.StackSummary.extract(frames).format())
