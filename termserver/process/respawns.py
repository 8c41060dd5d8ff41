"""When the next worker may be started, after some that came to nothing (spec limits L51). No clock: the time is handed in."""

from typing import Final

_FIRST: Final = 0.1  # seconds
_LONGEST: Final = 30.0
_FAILURES: Final = 5


class Respawns:
    """Doubles the wait with each failure, until a worker proves that it can be done."""

    def __init__(self) -> None:
        """Nothing failed yet."""
        self.due = 0.0  # monotonic seconds from which a worker may be started
        self._delay = _FIRST
        self._failures = 0  # in a row

    def failed(self, now: float) -> None:
        """A worker ended before it was of use."""
        self._failures += 1
        self.due = now + self._delay
        self._delay = min(self._delay * 2, _LONGEST)

    def succeeded(self) -> None:
        """A worker was of use."""
        self._delay, self.due = _FIRST, 0.0
        self._failures = 0

    @property
    def hopeless(self) -> bool:
        """Whether it failed so often, and never succeeded, that it will not."""
        return self._failures >= _FAILURES
