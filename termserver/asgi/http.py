"""One HTTP request's conversation with the application, whatever the HTTP version (ASGI www, HTTP).

`receive` and `send` are what the application holds; `feed`, `tell_disconnect`, `lost` are what the connection says. The exchange
knows two orders: what it may still hand to the application (`_Input`) and what the application may still say (`_Stage`). An exchange that
never waits makes no future, and one without a body makes no queue.

A client that left is told the right way (spec asgi, part 6): `receive()` gives `http.disconnect`, every time; `send()` raises
`ClientDisconnected` once the response has begun and nobody waits in `receive()`. The two come apart on purpose: an application that
listens is not interrupted by an exception, one that only talks is.
"""

import asyncio
import logging
from enum import Enum, auto
from typing import Protocol

from termserver.asgi.app import Application, Message
from termserver.asgi.files import FileSource, FileTooShort, copy_file, open_given, open_named
from termserver.asgi.scope import Scope
from termserver.errors import ClientDisconnected, InvalidMessage, UnexpectedMessage
from termserver.wire.events import Fields, Request, Responder

logger = logging.getLogger("termserver")


class Outlet(Protocol):
    """What an exchange may ask of its connection."""

    @property
    def writable(self) -> bool:
        """Whether the peer keeps up: less than the high-water mark waits to be sent."""

    @property
    def sends_files(self) -> bool:
        """Whether `send_file` can put a file on the wire without reading it here."""

    def flush(self) -> None:
        """Send what the engine has to say."""

    def resume_reading(self) -> None:
        """The application took some of the body: read on if reading had stopped."""

    def finished(self, exchange: "HttpExchange") -> None:
        """The response is complete, or never will be."""

    def returned(self, exchange: "HttpExchange") -> None:
        """The application's call is over; the response was finished before, unless the client left."""

    async def wait_writable(self) -> None:
        """Wait until `writable`, or until the connection is lost."""

    def begin_file(self, size: int, *, more: bool) -> bool:
        """Announce `size` body bytes for `send_file`; False where the response has no body to put them in."""

    def end_file(self, size: int) -> None:
        """Say that they were all there."""

    async def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """Put bytes of a file on the wire; answer how many it had. Raises `ClientDisconnected`."""


class _Stage(Enum):
    START = auto()  # nothing said yet
    HEAD = auto()  # the start was given, no body yet
    BODY = auto()
    FILE = auto()  # a file is on its way past the engine: nothing may come between its bytes
    TRAILERS = auto()
    DONE = auto()


class _Input(Enum):
    OPEN = auto()  # body bytes may still come
    WHOLE = auto()  # the body is here; its last message was not handed out yet
    GIVEN = auto()  # the last message was handed out
    OVER = auto()  # so was http.disconnect


START, HEAD, BODY, FILE, TRAILERS, DONE = _Stage
I_OPEN, I_WHOLE, I_GIVEN, I_OVER = _Input


_EXPECTED = {
    START: "http.response.start",
    HEAD: "http.response.body",
    BODY: "http.response.body",
    FILE: "nothing until the file is sent",
    TRAILERS: "http.response.trailers",
    DONE: "nothing: the response is complete",
}


class HttpExchange:
    """Receive and send of one request."""

    __slots__ = (
        "_engine",
        "_gone",
        "_input",
        "_outlet",
        "_parts",
        "_request_trailers",
        "_sending",
        "_stage",
        "_told",
        "_trailers",
        "_waiters",
        "request",
        "running",
        "sent",
        "started",
        "status",
        "task",
    )

    def __init__(self, engine: Responder, outlet: Outlet, request: Request) -> None:
        """`started` is for the owner: monotonic seconds, where somebody asks how long it took."""
        self.request = request
        self.status = 0
        self.sent = 0  # body bytes
        self.started = 0.0
        self.task: asyncio.Task[None] | None = None
        self.running = True  # until the application's call is over
        self._engine = engine
        self._outlet = outlet
        self._stage = START
        self._input = I_WHOLE if request.ended else I_OPEN
        self._parts: list[bytes] | None = None
        self._request_trailers: Fields | None = None
        self._waiters: list[asyncio.Future[None]] | None = None
        self._told = self._gone = self._trailers = self._sending = False

    # ------------------------------------------------------------------ what the connection says

    async def run(self, app: Application, scope: Scope) -> None:
        """Call the application; what it leaves undone becomes an answer that the client can tell from a good one."""
        try:
            await app(scope, self.receive, self.send)
        except (KeyboardInterrupt, GeneratorExit):  # the interpreter's
            self._fail("the application was interrupted")
            raise
        except BaseException as error:  # noqa: BLE001 - one application's fault ends one request
            self._raised(error)
        else:
            if self._stage is not DONE and self._told:  # it heeded http.disconnect
                self._fail("the client left")
            elif self._stage is not DONE:
                logger.error(
                    "The application returned without a whole response: %s %s", self.request.method, self.request.path.decode("ascii")
                )
                self._fail("the application returned without a whole response")
        finally:
            self.running = False
            self._outlet.returned(self)

    def _raised(self, error: BaseException) -> None:
        task = asyncio.current_task()
        if isinstance(error, ClientDisconnected) and (self._gone or self._stage is DONE):
            logger.debug("The client left %s %s", self.request.method, self.request.path.decode("ascii"))
        elif isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            pass  # whoever cancelled it says why
        elif self._stage is not DONE and self._gone:
            logger.info("The application raised after its client had left: %s: %s", type(error).__name__, error)
        else:
            logger.error("Exception in the application: %s %s", self.request.method, self.request.path.decode("ascii"), exc_info=error)
        self._fail("the application raised")

    def feed(self, data: bytes, *, ended: bool) -> None:
        """Take body bytes for the application."""
        if self._parts is None:
            self._parts = [data]
        else:
            self._parts.append(data)
        if ended:
            self._input = I_WHOLE
        self._wake()

    def feed_trailers(self, trailers: Fields) -> None:
        """Take the request's trailer section, which ends it."""
        self._request_trailers = trailers
        self.feed(b"", ended=True)

    def tell_disconnect(self) -> None:
        """Let `receive()` give `http.disconnect`; `send()` still works as far as the connection does."""
        self._told = True
        self._wake()

    def lost(self) -> None:
        """Note that the client is gone for good."""
        self._gone = self._told = True
        self._wake()

    @property
    def done(self) -> bool:
        """Whether the response is complete, or never will be."""
        return self._stage is DONE

    @property
    def begun(self) -> bool:
        """Whether the application started its response."""
        return self._stage is not START

    @property
    def waiting_for(self) -> str:
        """What the application's call waits for, for the log: "receive", "send" or "other" (a thread, a timer, another service)."""
        if self._waiters:
            return "receive"
        return "send" if self._sending else "other"

    def _fail(self, reason: str) -> None:
        """End a response that will never be complete: 500 where nothing was said, else visibly cut."""
        if self._stage is DONE or self._gone:
            return
        stage, self._stage = self._stage, DONE
        if stage is START:
            self.status = 500
            self._engine.reject(self.request.stream, 500, reason)
        else:
            self._engine.reset(self.request.stream)
        self._outlet.finished(self)

    # ------------------------------------------------------------------ receive

    async def receive(self) -> Message:
        """Give the next message: body parts, then `http.disconnect` once the response is complete or the client has left."""
        if self._input is I_WHOLE and self._parts is None and self._stage is not DONE:  # the usual request has no body
            self._input = I_GIVEN
            return {"type": "http.request", "body": b"", "more_body": False}
        while self._input is not I_GIVEN and self._stage is not DONE:
            if self._parts:
                return self._next_part()
            if self._told:
                break
            self._engine.wants_continue(self.request.stream)
            self._outlet.flush()
            await self._wait()
        while not self._told and self._stage is not DONE:
            await self._wait()
        if self._input is I_OVER:
            await asyncio.sleep(0)  # a loop that does not heed it must not hold up everybody else
        self._input = I_OVER
        return {"type": "http.disconnect"}

    def _next_part(self) -> Message:
        parts = self._parts or []
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        more = self._input is I_OPEN
        if not more:
            self._input = I_GIVEN
        self._engine.consumed(self.request.stream, len(data))
        self._outlet.resume_reading()
        message: Message = {"type": "http.request", "body": data, "more_body": more}
        if self._request_trailers is not None:
            message["trailers"] = self._request_trailers
        return message

    async def _wait(self) -> None:
        """Wait for news. Each waiter has a future of its own: cancelling one call of `receive()` leaves the others waiting."""
        future = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(future)
        try:
            await future
        finally:
            self._waiters.remove(future)

    def _wake(self) -> None:
        """Wake every waiter. Each counts as one until it runs: it has not heard the news before."""
        for future in self._waiters or ():
            if not future.done():
                future.set_result(None)

    # ------------------------------------------------------------------ send

    async def send(self, message: Message) -> None:  # noqa: C901 - one branch a kind of message
        """Take a message of the response. Raises `InvalidMessage`, `UnexpectedMessage`, `ClientDisconnected`."""
        try:
            kind = message["type"] if isinstance(message, dict) else None
            if self._stage is DONE:
                return  # ASGI www: messages after the response are ignored
            if kind == "http.response.start":
                self._start(message)
                return
            if self._gone and self._stage is not START:
                if self._waiters:
                    await asyncio.sleep(0)  # a loop of silent sends must not keep the waiter from its message
                    return
                raise ClientDisconnected("the client has left")
            if kind == "http.response.body":
                self._body(message.get("body", b""), message.get("more_body", False))
            elif kind == "http.response.trailers":
                self._send_trailers(message)
            elif kind == "http.response.early_hint":
                self._hint(message["links"])
            elif kind == "http.response.pathsend":
                await self._send_path(message["path"])
            elif kind == "http.response.zerocopysend":
                await self._send_opened(message)
            else:
                raise InvalidMessage(f"a message of an HTTP response is a dict with a type, not {message!r:.200}")
        except KeyError as error:
            raise InvalidMessage(f"the message {message.get('type')!r} lacks the key {error}") from error
        if not self._outlet.writable:
            await self._wait_writable()

    def _start(self, message: Message) -> None:
        if self._stage is not START:
            raise UnexpectedMessage("http.response.start", "http.response.body")
        trailers = bool(message.get("trailers"))
        if not self._gone:
            self._engine.start(self.request.stream, message["status"], message.get("headers", ()), trailers=trailers)
        self._trailers = trailers
        self.status = message["status"]
        self._stage = HEAD

    def _body(self, data: bytes, more: object) -> None:
        if self._stage is not HEAD and self._stage is not BODY:
            raise UnexpectedMessage("http.response.body", self._expected())
        if not isinstance(data, bytes):
            data = _as_bytes(data)
        size = len(data)
        try:
            self._engine.write(self.request.stream, data, bool(more))
        except InvalidMessage:  # the length it announced is not kept: the engine has ended the response as well as it can
            self._finish()
            raise
        self.sent += size
        if more:
            self._stage = BODY
            self._outlet.flush()
        elif self._trailers:
            self._stage = TRAILERS
            self._outlet.flush()
        else:
            self._finish()

    def _finish(self) -> None:
        self._stage = DONE
        if self._waiters:
            self._wake()
        self._outlet.finished(self)

    def _send_trailers(self, message: Message) -> None:
        if self._stage is not TRAILERS:
            raise UnexpectedMessage("http.response.trailers", self._expected())
        more = bool(message.get("more_trailers", False))
        self._engine.trailers(self.request.stream, message.get("headers", ()), more=more)
        if more:
            self._outlet.flush()
        else:
            self._finish()

    def _hint(self, links: object) -> None:
        """Send 103 (Early Hints), unless the final head is out."""
        if not isinstance(links, list | tuple):
            raise InvalidMessage(f"the links of early hints are a list of byte strings, not {type(links).__name__}")
        if self._stage is START or self._stage is HEAD:
            self._engine.interim(self.request.stream, 103, [(b"link", link) for link in links])
            self._outlet.flush()

    async def _wait_writable(self) -> None:
        self._sending = True
        try:
            await self._outlet.wait_writable()
        finally:
            self._sending = False
        if self._gone and self._stage is not DONE and not self._waiters:
            raise ClientDisconnected("the client has left")

    # ------------------------------------------------------------------ files

    async def _send_path(self, path: str) -> None:
        if self._stage is not HEAD:
            raise UnexpectedMessage("http.response.pathsend", self._expected())
        with await open_named(path) as source:
            await self._send_source(source, more=False)

    async def _send_opened(self, message: Message) -> None:
        if self._stage is not HEAD and self._stage is not BODY:
            raise UnexpectedMessage("http.response.zerocopysend", self._expected())
        source = open_given(message["file"], message.get("offset"), message.get("count"))
        await self._send_source(source, more=bool(message.get("more_body", False)))

    async def _send_source(self, source: FileSource, *, more: bool) -> None:
        """Send a part of a file as part of the body."""
        try:
            if self._outlet.sends_files:
                await self._send_descriptor(source, more=more)
            elif self.request.method != "HEAD":
                await copy_file(source, self._write_copied)
        except (ClientDisconnected, FileTooShort):
            self._fail("a file could not be sent to its end")
            raise
        self._check_present()
        self._body(b"", more)

    async def _send_descriptor(self, source: FileSource, *, more: bool) -> None:
        self._check_present()
        if self._stage is not HEAD and self._stage is not BODY:  # others spoke while the file was opened
            raise UnexpectedMessage("http.response.pathsend", self._expected())
        if not self._outlet.begin_file(source.count, more=more):
            return
        self._stage = FILE
        self._sending = True
        try:
            sent = await self._outlet.send_file(source.descriptor, source.offset, source.count)
        finally:
            self._sending = False
        if sent < source.count:
            raise FileTooShort(source.count - sent)
        self._stage = BODY
        self.sent += sent
        self._outlet.end_file(source.count)

    async def _write_copied(self, data: bytes) -> None:
        self._check_present()
        self._body(data, more=True)
        if not self._outlet.writable:
            await self._wait_writable()

    def _expected(self) -> str:
        """Say what the application may send now, for an error."""
        return _EXPECTED[self._stage]

    def _check_present(self) -> None:
        if self._gone:
            raise ClientDisconnected("the client has left")


def _as_bytes(data: object) -> bytes:
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    raise InvalidMessage(f"the body is a byte string, not {type(data).__name__}")
