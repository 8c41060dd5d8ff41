"""What ties a worker to its supervisor: it says that it is ready and that its loop runs, and hears what it is to do.

The heartbeat is a timer of the event loop itself, so a loop that is blocked is silent, whatever other threads do. When the supervisor is
lost, which is an end-of-file, the worker finishes what runs and ends. A loop that hangs would not notice: so a thread waits for the same
end of a pipe of its own, and ends the process when the loop has not done so in its time (spec reliability R4).
"""

import asyncio
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from termserver.channel import Channel
from termserver.config import Config
from termserver.systemd import Notifier

if TYPE_CHECKING:
    from termserver.net.runner import Running

logger = logging.getLogger("termserver")

_BEAT: Final = 1.0  # seconds
_GRACE: Final = 5.0


class Overseer(Protocol):
    """Who wants to know how a server is: a supervisor, or the service manager itself."""

    supervised: bool  # what a terminal sends to all processes is meant for somebody else

    def attach(self, running: "Running", loop: asyncio.AbstractEventLoop) -> None:
        """The loop runs."""

    def ready(self, addresses: list[Any]) -> None:
        """Connections are accepted."""

    def stopping(self) -> None:
        """The end has begun."""

    def reload(self) -> None:
        """SIGHUP came."""


class Service:
    """A server without a supervisor: systemd is told itself (sd_notify(3))."""

    supervised = False

    def __init__(self, notifier: Notifier) -> None:
        """Say nothing yet."""
        self._notifier = notifier
        self._running: Running
        self._loop: asyncio.AbstractEventLoop

    def attach(self, running: "Running", loop: asyncio.AbstractEventLoop) -> None:
        """Show that the loop runs, as often as the watchdog wants it."""
        self._running, self._loop = running, loop
        if self._notifier.watchdog:
            self._beat()

    def _beat(self) -> None:
        self._notifier.alive()
        self._loop.call_later(self._notifier.watchdog / 3, self._beat)

    def ready(self, _addresses: list[Any]) -> None:
        """Connections are accepted."""
        self._notifier.ready("serving")

    def reload(self) -> None:
        """Take new certificates."""
        self._notifier.reloading("taking new certificates")
        self._running.reload()
        self._notifier.ready("serving")

    def stopping(self) -> None:
        """The end has begun."""
        self._notifier.stopping("finishing what runs")


class Lifeline:
    """A worker's end of the channel."""

    supervised = True

    def __init__(self, channel: Channel, config: Config) -> None:
        """Nothing is said yet."""
        self._channel = channel
        limit = config.workers.heartbeat
        self._interval = min(_BEAT, limit / 4) if limit else _BEAT
        self._last_resort = config.timeouts.graceful + _GRACE
        self._running: Running
        self._loop: asyncio.AbstractEventLoop

    def attach(self, running: "Running", loop: asyncio.AbstractEventLoop) -> None:
        """Listen, and beat."""
        self._running, self._loop = running, loop
        loop.add_reader(self._channel, self._hear)
        self._beat()

    def ready(self, _addresses: list[Any]) -> None:
        """Connections are accepted."""
        self._channel.say("ready")

    def reload(self) -> None:
        """Do nothing: a supervisor starts new workers instead."""

    def stopping(self) -> None:
        """Say nothing: whoever said so knows, and for all others the end of the channel is enough."""

    def failed(self, code: int, reason: str) -> None:
        """Say why there is nothing to serve."""
        self._channel.say("failed", code=code, reason=reason)

    def _beat(self) -> None:
        self._channel.say("beat", **self._running.facts())
        self._loop.call_later(self._interval, self._beat)

    def _hear(self) -> None:
        for said in self._channel.hear():
            match said["is"]:
                case "stop":
                    self._running.ask_to_stop(restarting=bool(said.get("restarting")))
                case "reopen":
                    self._running.reopen_logs()
                case _:
                    logger.warning("The supervisor said what is not understood: %s", said["is"])
        if self._channel.closed:
            self._loop.remove_reader(self._channel)
            logger.error("The supervisor is gone: finishing what runs")
            self._running.ask_to_stop()

    def watch(self, descriptor: int) -> None:
        """End the process when the other end of a pipe is gone for long: whoever held it was the supervisor."""

        def wait() -> None:
            while os.read(descriptor, 1):
                pass
            time.sleep(self._last_resort)
            os._exit(1)

        threading.Thread(target=wait, name="termserver-lifeline", daemon=True).start()
