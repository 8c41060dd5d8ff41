"""The lifespan conversation (ASGI lifespan 2.0; rows L1 to L8 of the ASGI table)."""

import asyncio
import logging
from typing import Any

import pytest

from fakes import App, Log, Message, Receive, Send, in_loop, turns
from termserver.asgi.lifespan import Lifespan
from termserver.errors import StartupFailed, UnexpectedMessage

STARTUP, SHUTDOWN = {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
COMPLETE, FAILED = {"type": "lifespan.startup.complete"}, {"type": "lifespan.startup.failed", "message": "no database"}
GONE, NOT_GONE = {"type": "lifespan.shutdown.complete"}, {"type": "lifespan.shutdown.failed", "message": "still busy"}


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    return Log(caplog)


class Conversation:
    """An application that answers as it is told, and what it heard."""

    def __init__(self, startup: object = COMPLETE, shutdown: object = GONE) -> None:
        self.answers = [startup, shutdown]
        self.heard: list[Message] = []
        self.scope: Message = {}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.scope = scope
        for answer in self.answers:
            self.heard.append(await receive())
            if answer is None:
                return
            if isinstance(answer, BaseException):
                raise answer
            await send(answer)  # type: ignore[arg-type]


async def no_lifespan(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise ValueError(scope["type"])


async def silent(scope: Message, receive: Receive, send: Send) -> None:
    return None


@in_loop
async def test_l1_l8_startup_and_shutdown_in_one_call_and_its_loop(log: Log) -> None:
    app = Conversation()
    lifespan = Lifespan(app, required=True)
    await lifespan.startup()
    assert app.heard == [STARTUP]
    await lifespan.shutdown()
    assert app.heard == [STARTUP, SHUTDOWN]
    assert log.quiet


@in_loop
async def test_l2_l3_scope() -> None:
    app = Conversation()
    await Lifespan(app, required=True).startup()
    assert app.scope == {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}


@in_loop
async def test_l3_what_the_application_puts_into_state_is_kept_through_shutdown() -> None:
    app = Conversation()
    lifespan = Lifespan(app, required=True)
    await lifespan.startup()
    app.scope["state"]["pool"] = pool = object()
    assert lifespan.state == {"pool": pool}
    await lifespan.shutdown()
    assert lifespan.state == {"pool": pool}


@in_loop
async def test_l5_startup_waits_for_its_completion() -> None:
    ready = asyncio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await ready.wait()
        await send(COMPLETE)

    starting = asyncio.ensure_future(Lifespan(app, required=False).startup())
    await turns()
    assert not starting.done()
    ready.set()
    await starting


# `auto` is required=False, `on` is required=True; under `off` there is no Lifespan.
OUTCOMES = [
    pytest.param(no_lifespan, None, "application raised ValueError at start-up: lifespan", id="raises at the scope"),
    pytest.param(silent, None, "returned from lifespan", id="returns at once"),
    pytest.param(Conversation(KeyError("x")), None, "raised KeyError", id="raises at startup"),
    pytest.param(Conversation(None), None, "returned from lifespan", id="returns at startup"),
    pytest.param(Conversation(FAILED), "failed to start: no database", "failed to start: no database", id="startup failed"),
    pytest.param(Conversation({"type": "lifespan.startup.failed"}), "no message given", "no message given", id="startup failed silently"),
    pytest.param(Conversation({"type": "nonsense"}), None, "raised UnexpectedMessage", id="sends nonsense"),
    pytest.param(Conversation(GONE), None, "raised UnexpectedMessage", id="completes the shutdown first"),
    pytest.param(Conversation({}), None, "raised UnexpectedMessage", id="sends a message without a type"),
    pytest.param(Conversation(asyncio.CancelledError()), "cancelled", "cancelled", id="cancels itself"),
]


@pytest.mark.parametrize(("app", "auto", "on"), OUTCOMES)
@pytest.mark.parametrize("required", [False, True], ids=["auto", "on"])
@in_loop
async def test_l4_l6_startup(app: App, auto: str | None, on: str, required: bool, log: Log) -> None:
    lifespan = Lifespan(app, required=required)
    failure = on if required else auto
    if failure is None:
        await lifespan.startup()
        assert len(log.lines(logging.DEBUG)) == (app is not silent and not (isinstance(app, Conversation) and app.answers[0] is None))
        assert log.quiet
    else:
        with pytest.raises(StartupFailed, match=failure):
            await lifespan.startup()
        assert log.tracebacks == ("raised" in failure)
    await lifespan.shutdown()  # there is nobody to tell
    if isinstance(app, Conversation):
        assert app.heard[-1] == STARTUP
        app.heard.clear()


SHUTDOWNS = [
    pytest.param(GONE, None, False, id="complete"),
    pytest.param(NOT_GONE, "failed to shut down: still busy", False, id="failed"),
    pytest.param({"type": "lifespan.shutdown.failed"}, "failed to shut down: no message given", False, id="failed silently"),
    pytest.param(None, None, False, id="returns"),
    pytest.param(OSError("x"), "raised in its lifespan", True, id="raises"),
    pytest.param(COMPLETE, "raised in its lifespan", True, id="completes the startup again"),
    pytest.param(FAILED, "raised in its lifespan", True, id="fails the startup late"),
    pytest.param(asyncio.CancelledError(), None, False, id="cancels itself"),
]


@pytest.mark.parametrize(("answer", "error", "traceback"), SHUTDOWNS)
@in_loop
async def test_l8_shutdown(answer: object, error: str | None, traceback: bool, log: Log) -> None:
    lifespan = Lifespan(Conversation(shutdown=answer), required=False)
    await lifespan.startup()
    await lifespan.shutdown()
    assert [error in line for line in log.errors if error] == [True] * (error is not None)
    assert log.tracebacks == traceback
    await lifespan.shutdown()


@in_loop
async def test_l8_shutdown_waits_for_its_completion_and_can_be_given_up() -> None:
    app = Conversation()

    async def stuck(scope: Message, receive: Receive, send: Send) -> None:
        app.answers = [COMPLETE]
        await app(scope, receive, send)
        app.heard.append(await receive())
        await asyncio.Event().wait()

    lifespan = Lifespan(stuck, required=True)
    await lifespan.startup()
    stopping = asyncio.ensure_future(lifespan.shutdown())
    await turns()
    assert app.heard == [STARTUP, SHUTDOWN]
    assert not stopping.done()
    lifespan.cancel()
    await stopping


@pytest.mark.parametrize("leaves", [None, OSError("x")], ids=["returns", "raises"])
@in_loop
async def test_an_application_that_leaves_while_serving_is_not_told_of_the_shutdown(leaves: OSError | None, log: Log) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(COMPLETE)
        if leaves is not None:
            raise leaves

    lifespan = Lifespan(app, required=True)
    await lifespan.startup()
    await turns()
    await lifespan.shutdown()
    assert len(log.errors) == log.tracebacks == (leaves is not None)


@in_loop
async def test_an_application_that_raises_after_its_failure_does_no_more_harm(log: Log) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(FAILED)
        raise OSError

    with pytest.raises(StartupFailed, match="no database"):
        await Lifespan(app, required=True).startup()
    await turns()
    assert log.tracebacks == 1


@in_loop
async def test_a_startup_that_took_too_long_is_cancelled_with_its_application(log: Log) -> None:
    ended: list[Any] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    lifespan = Lifespan(app, required=True)
    starting = asyncio.ensure_future(lifespan.startup())
    await turns()
    starting.cancel()
    lifespan.cancel()
    await turns()
    assert starting.cancelled()
    assert ended
    assert log.quiet


@in_loop
async def test_cancel_before_startup_is_nothing() -> None:
    Lifespan(silent, required=True).cancel()


@in_loop
async def test_a_message_that_does_not_fit_raises_out_of_send() -> None:
    raised = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(COMPLETE)
        for message in (COMPLETE, FAILED, GONE, {"type": "nonsense"}):
            with pytest.raises(UnexpectedMessage, match="fits running"):
                await send(message)
            raised.append(message)
        await receive()
        await send(GONE)

    lifespan = Lifespan(app, required=True)
    await lifespan.startup()
    await lifespan.shutdown()
    assert len(raised) == 4
