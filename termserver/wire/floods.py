"""What an HTTP/2 peer may do for nothing, counted (spec limits L21 to L29; attacks part C). No I/O, no clock: engines hand the time in.

Every frame that moves no request forward has a bucket: it holds as many as the limit says and refills in the limit's period, so a burst
of exactly the limit passes and the next one is too much. Buckets are made when first used: a peer that only asks costs nothing here.
"""

from enum import Enum, auto
from typing import Final

from termserver.wire.events import Http2Limits


class Flood(Enum):
    """What is counted."""

    RESET = auto()  # streams that the client opened and reset (CVE-2023-44487)
    FAULT = auto()  # streams that we had to reset for the client's fault (CVE-2025-8671)
    OVERHEAD = auto()  # frames of any kind that move no request forward
    SETTINGS = auto()
    PING = auto()
    PRIORITY = auto()
    EMPTY = auto()  # frames without content that end nothing (CVE-2019-9518)
    SMALL = auto()  # bytes by which DATA frames are smaller than is reasonable


RESET, FAULT, OVERHEAD, SETTINGS, PING, PRIORITY, EMPTY, SMALL = Flood
_TEN_SECONDS: Final = 10.0
_MINUTE: Final = 60.0


class FloodError(Exception):
    """More of something than is allowed."""

    def __init__(self, flood: Flood) -> None:
        """`reason` is for the log and the GOAWAY frame."""
        self.reason = _REASONS[flood]
        super().__init__(self.reason)


_REASONS: Final = {
    RESET: "too many streams were reset",
    FAULT: "too many streams were broken",
    OVERHEAD: "too many frames that do nothing",
    SETTINGS: "too many SETTINGS frames",
    PING: "too many PING frames",
    PRIORITY: "too many PRIORITY frames",
    EMPTY: "too many empty frames",
    SMALL: "too much of too small DATA frames",
}


class FloodLimits:
    """How much of each is allowed, and in how many seconds. One a worker; 0 = off."""

    __slots__ = ("allowed",)

    def __init__(self, limits: Http2Limits) -> None:
        """Read the limits once."""
        self.allowed: dict[Flood, tuple[int, float]] = {
            RESET: (limits.http2_resets, _TEN_SECONDS),
            FAULT: (limits.http2_faults, _TEN_SECONDS),
            OVERHEAD: (limits.http2_overhead, _TEN_SECONDS),
            SETTINGS: (limits.http2_settings, _MINUTE),
            PING: (limits.http2_pings, _MINUTE),
            PRIORITY: (limits.http2_priorities, _MINUTE),
            EMPTY: (limits.http2_empty_frames, _TEN_SECONDS),
            SMALL: (limits.http2_small_data, _TEN_SECONDS),
        }


class Floods:
    """The buckets of one connection."""

    __slots__ = ("_buckets", "_limits")

    def __init__(self, limits: FloodLimits) -> None:
        """Count nothing yet."""
        self._limits = limits
        self._buckets: dict[Flood, list[float]] = {}  # what is left, and when that was

    def count(self, flood: Flood, now: float, amount: int = 1) -> None:
        """Note so many of them. Raises `FloodError`."""
        size, period = self._limits.allowed[flood]
        if not size:
            return
        bucket = self._buckets.get(flood)
        if bucket is None:
            bucket = self._buckets[flood] = [float(size), now]
        left = min(size, bucket[0] + (now - bucket[1]) * size / period) - amount
        if left < 0:
            raise FloodError(flood)
        bucket[0], bucket[1] = left, now
