"""One WebSocket's conversation with the application, whatever the HTTP version (ASGI www, WebSocket).

`receive` and `send` are what the application holds; `feed` and `lost` are what the connection says. Until the application has given its
verdict the socket is an HTTP request: it is accepted, refused with 403, or answered with a response of the application's own
(`websocket.http.response`). After that, messages queue in order, and the last thing in the queue is the end: so `websocket.disconnect`
is given once, behind every message that came before it.

A client that left is told the right way (spec asgi, part 6): for a grace of 2 s `send()` says nothing, so that Channels gets round to
dispatching `websocket.disconnect` and consumers run their `disconnect()`; after that it raises `ClientDisconnected`, so that what only
talks ends.
"""

import asyncio
import logging
from enum import Enum, auto
from typing import Any, Final, Protocol

from termserver.asgi.app import Application, Message
from termserver.asgi.scope import Scope
from termserver.errors import ClientDisconnected, InvalidMessage, UnexpectedMessage
from termserver.wire.events import Closed, Fields, Request, Responder, SocketEngine, SocketEvent, is_close_code, weight
from termserver.wire.handshake import Opening

logger = logging.getLogger("termserver")

GRACE: Final = 2.0  # seconds in which `send()` to a client that left is silent
_SILENT_SENDS: Final = 100  # of them that cost the application nothing but a turn of the loop; more are slowed down
_SLOW: Final = 0.02  # seconds
_REASON_SIZE: Final = 123  # bytes of UTF-8 that a Close frame has room for (RFC 6455 §5.5)
_NORMAL, _ABNORMAL, _INTERNAL_ERROR = 1000, 1006, 1011
_ACCEPTED: Final = {"2": 200}  # of a tunnel (RFC 8441 §5); otherwise 101
_REFUSED: Final = 403
_TEXT_PLAIN: Final = [(b"content-type", b"text/plain")]


class SocketOutlet(Protocol):
    """What an exchange may ask of its connection."""

    @property
    def writable(self) -> bool:
        """Whether the peer keeps up: less than the high-water mark waits to be sent."""

    def upgrade(self, exchange: "WebSocketExchange", headers: Fields, window_bits: int) -> None:
        """Answer that the socket begins, with these fields and this deflate window, then say `exchange.opened`."""

    def flush(self) -> None:
        """Send what the engine has to say."""

    def resume_reading(self) -> None:
        """The application took some messages: read on if reading had stopped."""

    def finished(self, exchange: "WebSocketExchange") -> None:
        """The refusal is complete."""

    def returned(self, exchange: "WebSocketExchange") -> None:
        """The application's call is over."""

    async def wait_writable(self) -> None:
        """Wait until `writable`, or until the connection is lost."""


class _Stage(Enum):
    VERDICT = auto()  # neither accepted nor refused
    REFUSING = auto()  # the start of a response was given instead, no body yet
    REFUSAL = auto()  # some of its body
    OPEN = auto()
    CLOSING = auto()  # the application closed: its messages go nowhere
    OVER = auto()


VERDICT, REFUSING, REFUSAL, OPEN, CLOSING, OVER = _Stage
_EXPECTED = {
    VERDICT: "websocket.accept",
    REFUSING: "websocket.http.response.body",
    REFUSAL: "websocket.http.response.body",
    OPEN: "websocket.send",
    CLOSING: "nothing: the socket is closed",
    OVER: "nothing: the socket is closed",
}


class WebSocketExchange:
    """Receive and send of one WebSocket."""

    __slots__ = (
        "_closed_at",
        "_connected",
        "_engine",
        "_gone",
        "_opening",
        "_outlet",
        "_queue",
        "_sending",
        "_silent",
        "_socket",
        "_stage",
        "_waiters",
        "held",
        "queue_limit",
        "request",
        "running",
        "sent",
        "started",
        "status",
        "task",
    )

    def __init__(self, engine: Responder, outlet: SocketOutlet, request: Request, opening: Opening, *, queue_limit: int = 16) -> None:
        """`queue_limit`: messages that wait for the application before reading stops, 0 for any number. `held`: that it has stopped.

        `started` is for the owner.
        """
        self.request = request
        self.queue_limit = queue_limit
        self.held = False
        self.status = 0
        self.sent = 0  # bytes of messages, or of the body of a refusal
        self.started = 0.0
        self.task: asyncio.Task[None] | None = None
        self.running = True  # until the application's call is over
        self._engine: Responder | None = engine  # until the verdict
        self._opening: Opening | None = opening  # until then too
        self._socket: SocketEngine | None = None  # from then on
        self._outlet = outlet
        self._stage = VERDICT
        self._connected = False  # whether websocket.connect was handed out
        self._queue: list[SocketEvent] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._gone = self._sending = False
        self._closed_at = 0.0  # loop time of the end
        self._silent = 0  # messages that were sent after it

    # ------------------------------------------------------------------ what the connection says

    async def run(self, app: Application, scope: Scope) -> None:
        """Call the application; what it leaves undone becomes an end that the client can tell from a good one."""
        try:
            await app(scope, self.receive, self.send)
        except (KeyboardInterrupt, GeneratorExit):  # the interpreter's
            self._give_up(_INTERNAL_ERROR)
            raise
        except BaseException as error:  # noqa: BLE001 - one application's fault ends one socket
            self._raised(error)
            self._give_up(_INTERNAL_ERROR)
        else:
            if self._stage in {VERDICT, REFUSING, REFUSAL}:
                logger.error("The application returned without a verdict on a WebSocket: %s", self._path)
            self._give_up(_NORMAL)
        finally:
            self.running = False
            self._outlet.returned(self)

    def _raised(self, error: BaseException) -> None:
        task = asyncio.current_task()
        if isinstance(error, ClientDisconnected) and self._stage is OVER:
            logger.debug("The client left %s", self._path)
        elif isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            pass  # whoever cancelled it says why
        elif self._gone:
            logger.info("The application raised after its client had left: %s: %s", type(error).__name__, error)
        else:
            logger.error("Exception in the application: WebSocket %s", self._path, exc_info=error)

    @property
    def _path(self) -> str:
        return self.request.path.decode("ascii")

    def opened(self, socket: SocketEngine, outlet: SocketOutlet) -> None:
        """Note that the answer is out, and what the connection is now."""
        self._socket, self._outlet, self._engine, self._opening = socket, outlet, None, None
        self._stage = OPEN

    def feed(self, events: list[SocketEvent]) -> None:
        """Take messages for the application, or the end."""
        if self._stage is OVER:
            return
        self._queue += events
        if type(events[-1]) is Closed:
            self._end()
        self._wake()

    def lost(self) -> None:
        """Note that the connection is gone; without a closing handshake that is 1006."""
        self._gone = True
        if self._stage is not OVER:
            self.feed([Closed(_ABNORMAL, "")])
        self._wake()

    def tell_disconnect(self) -> None:
        """Let an application that has not given its verdict know that it is too late; a refusal under way may go on."""
        if self._stage is VERDICT:
            self.lost()

    def closing(self) -> None:
        """Note that the server closes the socket: what the application sends goes nowhere from now on."""
        if self._stage is OPEN:
            self._stage = CLOSING

    def _end(self) -> None:
        self._stage = OVER
        self._closed_at = asyncio.get_running_loop().time()

    @property
    def full(self) -> bool:
        """Whether reading has to stop until the application has taken something."""
        return len(self._queue) >= self.queue_limit > 0 or (self._socket is not None and self._socket.credit <= 0)

    @property
    def done(self) -> bool:
        """Whether there is nothing more to come from the application, or for it to answer."""
        return self._stage is OVER

    @property
    def accepted(self) -> bool:
        """Whether the WebSocket was opened."""
        return self._socket is not None

    @property
    def begun(self) -> bool:
        """Whether the application has given its verdict."""
        return self.status != 0

    @property
    def waiting_for(self) -> str:
        """What the application's call waits for, for the log: "receive", "send" or "other" (a thread, a timer, another service)."""
        if self._waiters:
            return "receive"
        return "send" if self._sending else "other"

    def _give_up(self, code: int) -> None:
        """The application's call is over: end what it left open."""
        stage, engine = self._stage, self._engine
        if stage is OPEN:
            self._close(code, "")
        elif engine is not None and stage is VERDICT:
            self.status = 500
            engine.reject(self.request.stream, 500, "the application gave no verdict on a WebSocket")
            self._finish()
        elif engine is not None and stage is not OVER:
            engine.reset(self.request.stream)
            self._finish()

    # ------------------------------------------------------------------ receive

    async def receive(self) -> Message:
        """Give the next message: `websocket.connect`, what the client sends, once `websocket.disconnect`; then nothing ever."""
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        queue = self._queue
        while not queue:
            # Each waiter has a future of its own: cancelling one call of `receive()` leaves the others waiting. It stands here and not in a
            # coroutine of its own, because that is what an idle socket consists of.
            future = asyncio.get_running_loop().create_future()
            self._waiters.append(future)
            try:
                await future
            finally:
                self._waiters.remove(future)
        event = queue.pop(0)
        if self._socket is not None and type(event) is not Closed:
            self._socket.credit += weight(event)  # type: ignore[arg-type]
        if self.held and len(queue) <= self.queue_limit >> 1 and not self.full:
            self._outlet.resume_reading()
        if type(event) is str:
            return {"type": "websocket.receive", "text": event}
        if type(event) is bytes:
            return {"type": "websocket.receive", "bytes": event}
        return {"type": "websocket.disconnect", "code": event.code, "reason": event.reason}  # type: ignore[union-attr]

    def _wake(self) -> None:
        for future in self._waiters:
            if not future.done():
                future.set_result(None)

    # ------------------------------------------------------------------ send

    async def send(self, message: Message) -> None:
        """Take a message. Raises `InvalidMessage`, `UnexpectedMessage`, `ClientDisconnected`."""
        try:
            kind = message["type"]
        except (TypeError, KeyError):
            kind = None
        if kind == "websocket.send":
            if self._stage is OPEN:
                data = message.get("text")
                if type(data) is not str or message.get("bytes") is not None:
                    data = _payload(message)
                self._socket.send(data)  # type: ignore[union-attr]
                self.sent += len(data)
                self._outlet.flush()
            elif self._stage is OVER or self._stage is CLOSING:
                await self._send_in_vain()
                return
            else:
                raise UnexpectedMessage("websocket.send", _EXPECTED[self._stage])
        elif self._stage is OVER or (self._stage is CLOSING and kind == "websocket.close"):
            await self._send_in_vain()
            return
        else:
            self._steer(kind, message)
        if not self._outlet.writable:
            await self._wait_writable()

    def _steer(self, kind: object, message: Message) -> None:
        """Take a message that is no data."""
        stage = self._stage
        if kind == "websocket.accept" and stage is VERDICT:
            self._accept(message)
        elif kind == "websocket.close" and stage is VERDICT:
            self._refuse()
        elif kind == "websocket.close" and stage is OPEN:
            self._close(message.get("code"), message.get("reason"))
        elif kind == "websocket.http.response.start" and stage is VERDICT:
            self._start_refusal(message)
        elif kind == "websocket.http.response.body" and (stage is REFUSING or stage is REFUSAL):
            self._write_refusal(message)
        elif isinstance(kind, str) and kind in _KINDS:
            raise UnexpectedMessage(kind, _EXPECTED[stage])
        else:
            raise InvalidMessage(f"a message of a WebSocket is a dict with a type, not {message!r:.200}")

    def _accept(self, message: Message) -> None:
        subprotocol = message.get("subprotocol")
        if subprotocol is not None and not isinstance(subprotocol, str):
            raise InvalidMessage(f"the subprotocol is a string or None, not {type(subprotocol).__name__}")
        opening: Opening = self._opening  # type: ignore[assignment]  # it is there until the verdict
        headers = opening.answer(subprotocol, message.get("headers") or ())
        self.status = _ACCEPTED.get(self.request.version, 101)
        self._outlet.upgrade(self, headers, opening.window_bits)

    def _close(self, code: object, reason: object) -> None:
        code = _NORMAL if code is None else code
        if not isinstance(code, int) or not is_close_code(code):
            raise InvalidMessage(f"a close code is 1000 to 1014 (without 1004 to 1006) or 3000 to 4999, not {code!r}")
        reason = "" if reason is None else reason
        if not isinstance(reason, str) or len(reason.encode("utf-8", "replace")) > _REASON_SIZE:
            raise InvalidMessage(f"a close reason is a string of at most {_REASON_SIZE} bytes of UTF-8, not {reason!r:.200}")
        self._socket.close(code, reason.encode("utf-8", "replace").decode())  # type: ignore[union-attr]
        self._stage = CLOSING
        self._outlet.flush()

    # ------------------------------------------------------------------ refusing

    def _refuse(self) -> None:
        """Answer 403 (ASGI www, Close)."""
        self._begin_response(_REFUSED, _TEXT_PLAIN)
        self._engine.write(self.request.stream, b"Forbidden\n", False)  # type: ignore[union-attr]
        self._finish()

    def _start_refusal(self, message: Message) -> None:
        if "status" not in message:
            raise InvalidMessage("the message 'websocket.http.response.start' lacks the key 'status'")
        self._begin_response(message["status"], message.get("headers") or ())
        self._stage = REFUSING

    def _begin_response(self, status: Any, headers: Any) -> None:
        self._engine.start(self.request.stream, status, headers)  # type: ignore[union-attr]
        self.status = status

    def _write_refusal(self, message: Message) -> None:
        data, more = message.get("body", b""), bool(message.get("more_body", False))
        if not isinstance(data, bytes):
            raise InvalidMessage(f"the body is a byte string, not {type(data).__name__}")
        self._stage = REFUSAL
        try:
            self._engine.write(self.request.stream, data, more)  # type: ignore[union-attr]
        except InvalidMessage:  # the length it announced is not kept: the engine has ended the response as well as it can
            self._finish()
            raise
        self.sent += len(data)
        if more:
            self._outlet.flush()
        else:
            self._finish()

    def _finish(self) -> None:
        """The refusal is complete: for the application that is the end."""
        self._engine = None
        self.feed([Closed(_ABNORMAL, "")])
        self._outlet.finished(self)

    # ------------------------------------------------------------------ a client that is slow, or gone

    async def _send_in_vain(self) -> None:
        """Take a message that goes nowhere: silently at first, so that the application hears `websocket.disconnect` before an exception."""
        if self._stage is OVER and asyncio.get_running_loop().time() - self._closed_at >= GRACE:
            raise ClientDisconnected("the client has left")
        self._silent += 1
        await asyncio.sleep(0 if self._silent <= _SILENT_SENDS else _SLOW)

    async def _wait_writable(self) -> None:
        self._sending = True
        try:
            await self._outlet.wait_writable()
        finally:
            self._sending = False


_KINDS: Final = frozenset(
    {
        "websocket.accept",
        "websocket.close",
        "websocket.send",
        "websocket.http.response.start",
        "websocket.http.response.body",
    }
)


def _payload(message: Message) -> str | bytes:
    """Give the one of text and bytes that is there: empty ones are messages too (ASGI www, Send)."""
    text, data = message.get("text"), message.get("bytes")
    if data is None and isinstance(text, str):
        return str.__str__(text)  # of a subclass, as Django's safe strings are, the text itself
    if text is None and isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise InvalidMessage("a websocket.send has either text (a string) or bytes (a byte string), and not both")
