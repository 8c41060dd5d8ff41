"""The lifespan conversation (ASGI lifespan 2.0): one task for as long as the worker serves.

An application that does not know lifespan raises at its scope; under `auto` that is quietly taken as a no (spec asgi L4). Under `on`
it is a failure. `startup` and `shutdown` are awaited by the server, which bounds them.
"""

import asyncio
import logging
from enum import Enum, auto
from typing import Any

from termserver.asgi.app import Application, Message
from termserver.errors import StartupFailed, UnexpectedMessage

logger = logging.getLogger("termserver")


class _Stage(Enum):
    STARTING = auto()
    RUNNING = auto()
    STOPPING = auto()
    ENDED = auto()


STARTING, RUNNING, STOPPING, ENDED = _Stage


class Lifespan:
    """One worker's conversation. `state` is what the application put there for its requests."""

    def __init__(self, app: Application, *, required: bool) -> None:
        """`required`: an application without lifespan is a failure."""
        self.state: dict[str, Any] = {}
        self._app = app
        self._required = required
        self._stage = STARTING
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._answered: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Start the application. Raises `StartupFailed`."""
        loop = asyncio.get_running_loop()
        self._answered = loop.create_future()
        self._inbox.put_nowait({"type": "lifespan.startup"})
        self._task = loop.create_task(self._run())
        await self._answered

    async def shutdown(self) -> None:
        """Tell the application to end, and wait until it says that it has."""
        if self._stage is not RUNNING:
            return
        self._stage = STOPPING
        self._answered = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait({"type": "lifespan.shutdown"})
        await self._answered

    def cancel(self) -> None:
        """End the conversation without an answer: its time is over."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._inbox.get, self._send)
        except asyncio.CancelledError:
            self._answer(StartupFailed("the application's lifespan was cancelled"))
        except (Exception, BaseExceptionGroup, SystemExit) as error:  # noqa: BLE001 - whatever an application raises at an unknown scope
            self._raised(error)
        else:
            self._returned()
        self._stage = ENDED

    def _raised(self, error: BaseException) -> None:
        if self._stage is STARTING and not self._required:
            logger.debug("The application does not take part in lifespan (%s: %s)", type(error).__name__, error)
            self._answer(None)
        elif self._stage is STARTING:
            logger.error("The application raised at start-up", exc_info=error)
            self._answer(StartupFailed(f"the application raised {type(error).__name__} at start-up: {error}"))
        else:
            logger.error("The application raised in its lifespan", exc_info=error)
            self._answer(None)

    def _returned(self) -> None:
        if self._stage is STARTING and self._required:
            self._answer(StartupFailed("the application returned from lifespan without completing its start-up"))
        else:
            self._answer(None)

    def _answer(self, failure: StartupFailed | None) -> None:
        if self._answered is None or self._answered.done():
            return
        if failure is None or self._stage is not STARTING:
            self._answered.set_result(None)
        else:
            self._answered.set_exception(failure)

    async def _send(self, message: Message) -> None:
        kind = message.get("type")
        if kind == "lifespan.startup.complete" and self._stage is STARTING:
            self._answer(None)
            self._stage = RUNNING
        elif kind == "lifespan.startup.failed" and self._stage is STARTING:
            self._answer(StartupFailed(f"the application failed to start: {message.get('message') or 'no message given'}"))
            self._stage = ENDED
        elif kind == "lifespan.shutdown.complete" and self._stage is STOPPING:
            self._answer(None)
            self._stage = ENDED
        elif kind == "lifespan.shutdown.failed" and self._stage is STOPPING:
            logger.error("The application failed to shut down: %s", message.get("message") or "no message given")
            self._answer(None)
            self._stage = ENDED
        else:
            raise UnexpectedMessage(str(kind), f"a lifespan message that fits {self._stage.name.lower()}")
