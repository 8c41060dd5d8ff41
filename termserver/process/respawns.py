"""When the next worker may be started, after some that came to nothing (spec limits L51). No clock: the time is handed in."""

from collections import deque
from typing import Final

_FIRST: Final = 0.1  # seconds
_LONGEST: Final = 30.0
_FAILURES: Final = 5
_WITHIN: Final = 10.0


class Respawns:
    """Doubles the wait with each failure, until a worker proves that it can be done."""

    def __init__(self) -> None:
        """Nothing failed yet."""
        self.due = 0.0  # monotonic seconds from which a worker may be started
        self._delay = _FIRST
        self._failed: deque[float] = deque(maxlen=_FAILURES)

    def failed(self, now: float) -> None:
        """A worker ended before it was of use."""
        self._failed.append(now)
        self.due = now + self._delay
        self._delay = min(self._delay * 2, _LONGEST)

    def succeeded(self) -> None:
        """A worker was of use."""
        self._delay, self.due = _FIRST, 0.0
        self._failed.clear()

    @property
    def hopeless(self) -> bool:
        """Whether it failed so often in so short a time that it will not succeed."""
        failed = self._failed
        return len(failed) == _FAILURES and failed[-1] - failed[0] <= _WITHIN
