"""The log: the standard library's `logging`, through a sink that never blocks the loop.

As with daphne's `basicConfig`, one handler sits on the root logger, so that the application's own loggers show; an application that sets
up logging itself (Django's LOGGING) takes over by replacing it. When the root logger has handlers already, they stay and get our lines.

Trap: `logging.config.dictConfig` closes every handler there is, ours included, and leaves it in place. So the handler's `close` does not
close the sink; `LogSetup.close` does.
"""

import atexit
import logging
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from termserver.config import LOG_LEVELS, Logging
from termserver.errors import ConfigError
from termserver.observe.sink import LineSink

_KEYS = 1_024


class SinkHandler(logging.Handler):
    """Writes each record to a `LineSink`."""

    def __init__(self, sink: LineSink) -> None:
        """Take every level; the loggers choose."""
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        """Format the record and queue it."""
        try:
            self._sink.write(self.format(record) + "\n")
        except Exception:  # noqa: BLE001  (logging's contract: a record that cannot be formatted must not harm who logged it)
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Say so in the log itself: logging's own way is to print to standard error, which may block."""
        self._sink.write(f"Cannot format a log record of {record.pathname}:{record.lineno}\n{traceback.format_exc()}")


@dataclass(frozen=True, slots=True)
class LogSetup:
    """What `configure` put in place: a handler on the root logger and the sink it writes to."""

    handler: logging.Handler
    sink: LineSink

    def close(self, timeout: float = 1.0) -> bool:
        """Take the handler away and write what is left, within `timeout` seconds. False: lines were left behind."""
        atexit.unregister(self.close)
        logging.getLogger().removeHandler(self.handler)
        return self.sink.close(timeout)


def configure(config: Logging, *, debug: bool = False, target: int = 2) -> LogSetup | None:
    """Log at the level of `config` (`debug`: everything), in its format, to standard error or another descriptor.

    None when the root logger had handlers: they are used as they are, and only the level of the logger `termserver` is set.
    `ConfigError` for a level or a format that logging cannot use. Called again it is `None` too, until the first set-up is closed.
    """
    level = logging.DEBUG if debug else _level(config.level)
    formatter = _formatter(config.format)
    logging.getLogger("termserver").setLevel(level)
    root = logging.getLogger()
    if root.handlers:
        return None
    sink = LineSink(target)
    handler = SinkHandler(sink)
    handler.setFormatter(formatter)
    root.addHandler(handler)
    root.setLevel(level)
    setup = LogSetup(handler, sink)
    atexit.register(setup.close)
    return setup


def _level(name: str) -> int:
    if name.lower() not in LOG_LEVELS:
        message = f"log level: expected one of {', '.join(LOG_LEVELS)}, found {name!r}"
        raise ConfigError(message)
    return logging.getLevelNamesMapping()[name.upper()]


def _formatter(template: str) -> logging.Formatter:
    try:
        formatter = logging.Formatter(template)
        formatter.format(logging.LogRecord("termserver", logging.INFO, "", 0, "", None, None))
    except (ValueError, KeyError, TypeError) as error:
        message = f"log format {template!r} cannot be used: {error}"
        raise ConfigError(message) from error
    return formatter


class RateLimited:
    """Lets one line per `interval` seconds and key through to `logger`, and says with the next how many were held back.

    Keys are reasons ("header too large"), never values of a client's; no more than 1 024 are remembered.
    """

    __slots__ = ("_clock", "_interval", "_logger", "_seen")

    def __init__(self, logger: logging.Logger, *, interval: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives monotonic seconds."""
        self._logger = logger
        self._interval = interval
        self._clock = clock
        self._seen: dict[str, tuple[float, int]] = {}  # key -> when it may speak again, how many were held back

    def log(self, level: int, key: str, message: str, *args: object) -> bool:
        """Log `message % args` unless a line of this `key` was logged within the interval. False: held back."""
        if not self._logger.isEnabledFor(level):
            return False
        held_back = self.admit(key)
        if held_back is None:
            return False
        if held_back:
            message += " (%d more like this were not logged)"
            args += (held_back,)
        self._logger.log(level, message, *args, stacklevel=2)
        return True

    def admit(self, key: str) -> int | None:
        """How many of `key` were held back since the last that was let through; None: this one is, too."""
        now = self._clock()
        free_at, held_back = self._seen.get(key, (now, 0))
        if now < free_at:
            self._seen[key] = (free_at, held_back + 1)
            return None
        if len(self._seen) >= _KEYS:
            self._seen.clear()
        self._seen[key] = (now + self._interval, 0)
        return held_back
