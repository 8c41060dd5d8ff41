"""One coarse wheel for every time-out, on the monotonic clock, and the Date field.

Whatever has a `deadline` (monotonic seconds, infinity for none) is put into one set; a tick a few times a second looks for those
that are due. Moving a deadline is an attribute written, so a request costs no timer. 10 000 connections cost a millisecond a tick.

A tick that comes late was held up by something that blocked the loop, and then nobody's bytes were read either: it judges nobody, and
the one after it, when the sockets have been read, does, however late it comes itself.
"""

import asyncio
import math
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Final, Protocol

_SHORTEST: Final = 0.02
_LONGEST: Final = 0.25
_LATE: Final = 1.0  # seconds


class Timed(Protocol):
    """Something with a deadline."""

    deadline: float

    def expired(self, now: float) -> None:
        """Act: the deadline is past. It has to set a later one, or leave the wheel."""


class Deadlines:
    """The wheel of one worker."""

    def __init__(
        self, *, interval: float = _LONGEST, clock: Callable[[], float] = time.monotonic, wall_clock: Callable[[], float] = time.time
    ) -> None:
        """`interval` in seconds is how late a time-out may come; the clocks are for tests."""
        self.interval = min(max(interval, _SHORTEST), _LONGEST)
        self._clock = clock
        self._wall_clock = wall_clock
        self._items: set[Timed] = set()
        self._on_tick: list[Callable[[float], None]] = []
        self._on_second: list[Callable[[bytes], None]] = []
        self._second = -1
        self._expected = math.inf
        self._was_late = False
        self._handle: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, item: Timed) -> None:
        """Watch the item's deadline."""
        self._items.add(item)

    def discard(self, item: Timed) -> None:
        """Watch it no more."""
        self._items.discard(item)

    def every_tick(self, callback: Callable[[float], None]) -> None:
        """Call back at every tick, with the monotonic time."""
        self._on_tick.append(callback)

    def every_second(self, callback: Callable[[bytes], None]) -> None:
        """Call back whenever the wall clock shows another second, with it as IMF-fixdate (RFC 9110 §5.6.7); and once now."""
        self._on_second.append(callback)
        callback(formatdate(self._wall_clock(), usegmt=True).encode())

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to turn."""
        self._loop = loop
        self._schedule()

    def stop(self) -> None:
        """Turn no more."""
        self._loop = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def tick(self) -> None:
        """Do what is due. The loop calls it; so may a test with a clock of its own."""
        now = self._clock()
        second = int(self._wall_clock())
        if second != self._second:
            self._second = second
            date = formatdate(second, usegmt=True).encode()
            for on_second in self._on_second:
                on_second(date)
        late = now - self._expected >= _LATE and not self._was_late
        self._was_late = late
        if not late:
            for item in tuple(self._items):
                if item.deadline <= now and item in self._items:
                    item.expired(now)
        for on_tick in self._on_tick:
            on_tick(now)
        self._schedule()

    def _schedule(self) -> None:
        self._expected = self._clock() + self.interval
        if self._loop is not None:
            self._handle = self._loop.call_later(self.interval, self.tick)
