"""A connection without a socket: the real engines, one exchange, and a recording outlet between them; time that does not pass by itself."""

import asyncio
import functools
import logging
import os
import selectors
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, ParamSpec

import h11
import pytest

from termserver.asgi.http import HttpExchange
from termserver.asgi.scope import base_scope, http_scope, websocket_scope
from termserver.asgi.websocket import WebSocketExchange
from termserver.config import Limits
from termserver.errors import ClientDisconnected
from termserver.wire.events import Aborted, Body, Ending, Event, Fields, Rejected, Request, Trailers
from termserver.wire.handshake import read_opening
from termserver.wire.head import HeadParser
from termserver.wire.http1 import DefaultFields, Http1
from termserver.wire.websocket import Terms, WebSocket
from wire.frames import Sent, read_frames

P = ParamSpec("P")
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[..., Awaitable[None]]
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # and its answer, both of RFC 6455 §1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
TAKES_TRAILERS = b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n"


def in_loop(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Make a plain test of a coroutine function."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            async with asyncio.timeout(20):  # a test that hangs says where
                await test(*args, **kwargs)

        asyncio.run(main())

    return run


class _Jump(selectors.SelectSelector):
    """Waits for nothing: where a loop would sleep, its clock jumps."""

    now = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock stands while anything can run, and jumps to the next timer when nothing can. For tests without sockets."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now


def in_virtual_time(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Make a plain test of a coroutine function. An hour passes in no time, and what hangs is found out as quickly."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            async with asyncio.timeout(5_000):
                await test(*args, **kwargs)

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(main())

    return run


def now() -> float:
    """Tell the loop's time, virtual where the loop's is."""
    return asyncio.get_running_loop().time()


async def turns(count: int = 10) -> None:
    """Let everything run that can."""
    for _ in range(count):
        await asyncio.sleep(0)


class FakeOutlet:
    """What an exchange asks of its connection, written down. `sent` is what is on the wire."""

    def __init__(self, engine: Http1) -> None:
        self.engine = engine
        self.sent = bytearray()
        self.calls: list[str] = []  # of those that an exchange makes once
        self.sends_files = False
        self.file_limit: int | None = None  # the peer is lost after so many bytes of a file
        self._room = asyncio.Event()
        self._room.set()

    @property
    def writable(self) -> bool:
        return self._room.is_set()

    @writable.setter
    def writable(self, value: bool) -> None:
        (self._room.set if value else self._room.clear)()

    def flush(self) -> None:
        self.sent += self.engine.output()

    def resume_reading(self) -> None:
        self.calls.append("resume_reading")

    def finished(self, exchange: HttpExchange) -> None:  # noqa: ARG002 - the outlet's interface
        self.calls.append("finished")
        self.flush()

    def returned(self, exchange: HttpExchange) -> None:
        self.calls.append("running" if exchange.running else "returned")

    async def wait_writable(self) -> None:
        await self._room.wait()

    def begin_file(self, size: int, *, more: bool) -> bool:
        return self.engine.begin_file(0, size, more=more)

    def end_file(self, size: int) -> None:
        self.engine.end_file(0, size)

    async def send_file(self, descriptor: int, offset: int, count: int) -> int:
        self.flush()
        await self._room.wait()
        if self.file_limit is not None:
            raise ClientDisconnected("the client has left")
        data = os.pread(descriptor, count, offset)
        self.sent += data
        return len(data)


@dataclass
class Answer:
    """A response as an independent parser (h11) reads it. `whole` is False where the client can tell that something is missing."""

    status: int = 0
    headers: Fields = field(default_factory=list)
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    interim: list[tuple[int, Fields]] = field(default_factory=list)
    whole: bool = False

    def __getitem__(self, name: bytes) -> bytes | None:
        return dict(self.headers).get(name)


class Talk:
    """One request to one application. What `net.Connection` does, without time and sockets."""

    def __init__(self, request: bytes = GET, *, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self.engine = Http1(HeadParser(limits), limits, DefaultFields(b""))
        self.outlet = FakeOutlet(self.engine)
        self.rejected: list[Rejected] = []
        self._method = request.split(b" ", 1)[0]
        events = self.engine.receive(request)
        if not isinstance(events[0], Request):
            raise AssertionError(events)  # noqa: TRY004 - a plain assert would be gone under -O
        self.request = events[0]
        self.exchange = HttpExchange(self.engine, self.outlet, self.request)
        self.receive, self.send = self.exchange.receive, self.exchange.send
        self._take(events[1:])

    def begin(self, app: App) -> asyncio.Task[None]:
        """Start the application's task."""
        base = base_scope(scheme="http", client=("192.0.2.1", 1), server=("192.0.2.2", 80), root_path="")
        scope = http_scope(base, self.request, {}, {})
        self.exchange.task = asyncio.get_running_loop().create_task(self.exchange.run(app, scope))
        return self.exchange.task

    async def run(self, app: App) -> Answer:
        """Run the application to its end; give what the client has then."""
        await self.begin(app)
        return self.answer()

    def push(self, data: bytes) -> None:
        """Let more of the request arrive."""
        self._take(self.engine.receive(data))

    def shut(self) -> None:
        """Let the client shut its sending side."""
        self._take(self.engine.end_of_input())

    def lose(self) -> None:
        """Let the connection be lost."""
        self.outlet.writable = True
        self.exchange.lost()

    def _take(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Body(data=data, ended=ended):
                    self.exchange.feed(data, ended=ended)
                case Trailers(headers=headers):
                    self.exchange.feed_trailers(headers)
                case Aborted():
                    self.exchange.lost()
                case Rejected():
                    self.rejected.append(event)

    def answer(self) -> Answer:
        """Read what is on the wire, and the way the connection ends, as a client would. Raises where it is no HTTP."""
        self.outlet.flush()
        ended = self.engine.ending in {Ending.CLOSE, Ending.LINGER}
        return read_answer(bytes(self.outlet.sent), self._method, ended=ended)


def read_answer(sent: bytes, method: bytes, *, ended: bool) -> Answer:
    """Parse one response with h11; `ended`: the server closed after it. Raises for bytes that are no HTTP, or too many."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
    client.send(h11.EndOfMessage())
    if sent:  # to h11, no bytes are the end
        client.receive_data(sent)
    if ended:
        client.receive_data(b"")
    answer = Answer()
    while True:
        try:
            event = client.next_event()
        except h11.RemoteProtocolError as error:
            if ended and "closed" in str(error):
                return answer
            raise
        match event:
            case h11.InformationalResponse():
                answer.interim.append((event.status_code, [*event.headers]))
            case h11.Response():
                answer.status, answer.headers = event.status_code, [*event.headers]
            case h11.Data():
                answer.body += bytes(event.data)
            case h11.EndOfMessage():
                answer.trailers = [*event.headers]
                answer.whole = True
                if client.trailing_data[0]:
                    raise AssertionError("bytes after the response")
                return answer
            case _:
                return answer


def handshake(*fields: bytes, target: bytes = b"/socket") -> bytes:
    """Build a request for a WebSocket (the example of RFC 6455 §1.3)."""
    lines = (b"Host: a", b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: " + KEY, *fields)
    return b"GET %b HTTP/1.1\r\n%b\r\n\r\n" % (target, b"\r\n".join(lines))


@dataclass
class Switched:
    """The head of a 101, and the frames after it."""

    status: int
    headers: list[tuple[str, str]]  # names in lower case
    frames: list[Sent]

    def __getitem__(self, name: str) -> str | None:
        return dict(self.headers).get(name)


def read_switched(sent: bytes) -> Switched:
    """Read what a server sent on a connection that became a WebSocket."""
    head, _, rest = sent.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return Switched(int(first.split(" ")[1]), headers, read_frames(rest))


class FakeSocketOutlet(FakeOutlet):
    """The same for a WebSocket: it switches engines, and remembers with what."""

    def __init__(self, engine: Http1) -> None:
        super().__init__(engine)
        self.terms = Terms(Limits())
        self.socket: WebSocket | None = None

    def upgrade(self, exchange: WebSocketExchange, headers: Fields, window_bits: int) -> None:
        self.calls.append(f"upgrade {window_bits}")
        if self.engine.upgrade(exchange.request.stream, headers):
            raise AssertionError("no bytes came after the handshake")
        super().flush()
        self.socket = WebSocket(self.terms, window_bits)
        exchange.opened(self.socket, self)

    def flush(self) -> None:
        if self.socket is None:
            super().flush()
        else:
            self.sent += b"".join(self.socket.output())


class SocketTalk:
    """One WebSocket and its application. What `net.Connection` and `net.SocketConnection` do, without time and sockets."""

    def __init__(self, *fields: bytes, queue_limit: int = 16) -> None:
        self.engine = Http1(HeadParser(Limits()), Limits(), DefaultFields(b""))
        self.outlet = FakeSocketOutlet(self.engine)
        [request] = self.engine.receive(handshake(*fields))
        if not isinstance(request, Request):
            raise AssertionError(request)  # noqa: TRY004 - a plain assert would be gone under -O
        self.request = request
        self.opening = read_opening(request)
        self.exchange = WebSocketExchange(self.engine, self.outlet, request, self.opening, queue_limit=queue_limit)
        self.receive, self.send = self.exchange.receive, self.exchange.send

    async def open(self) -> None:
        """Let the application accept."""
        if await self.receive() != {"type": "websocket.connect"}:
            raise AssertionError("expected websocket.connect first")
        await self.send({"type": "websocket.accept"})

    def begin(self, app: App) -> asyncio.Task[None]:
        """Start the application's task."""
        base = base_scope(scheme="http", client=("192.0.2.1", 1), server=("192.0.2.2", 80), root_path="")
        scope = websocket_scope(base, self.request, self.opening.subprotocols, {}, {})
        self.exchange.task = asyncio.get_running_loop().create_task(self.exchange.run(app, scope))
        return self.exchange.task

    async def run(self, app: App) -> None:
        """Run the application to its end."""
        await self.begin(app)

    def push(self, *frames: bytes) -> None:
        """Let frames arrive, as the connection does: a full queue stops the reading."""
        socket, data = self.outlet.socket, b"".join(frames)
        if socket is None:
            raise AssertionError("frames before the acceptance")
        while data or (socket.has_input and not self.exchange.full):
            events = socket.receive(data, 0.0)
            data = b""
            if events:
                self.exchange.feed(events)
                self.exchange.held = self.exchange.full
        self.outlet.flush()

    def lose(self) -> None:
        """Let the connection be lost."""
        self.outlet.writable = True
        self.exchange.lost()

    @property
    def frames(self) -> list[Sent]:
        """What the client has been sent since the handshake."""
        return self.switched().frames

    def switched(self) -> Switched:
        """The answer to the handshake, and all after it."""
        return read_switched(bytes(self.outlet.sent))

    def answer(self) -> Answer:
        """Read the answer of a handshake that was not accepted."""
        self.outlet.flush()
        ended = self.engine.ending in {Ending.CLOSE, Ending.LINGER}
        return read_answer(bytes(self.outlet.sent), b"GET", ended=ended)


def accept(**more: object) -> Message:
    """Make a `websocket.accept`."""
    return {"type": "websocket.accept", **more}


def socket_send(data: object = None, **more: object) -> Message:
    """Make a `websocket.send` of text or bytes."""
    return {"type": "websocket.send", **({"text": data} if isinstance(data, str) else {} if data is None else {"bytes": data}), **more}


def socket_close(*code: object, **more: object) -> Message:
    """Make a `websocket.close`, with a code or without."""
    return {"type": "websocket.close", **({"code": code[0]} if code else {}), **more}


def denial_start(status: object = 401, headers: object = (), **more: object) -> Message:
    """Make a `websocket.http.response.start`."""
    return {"type": "websocket.http.response.start", "status": status, "headers": headers, **more}


def denial_body(data: object = b"", **more: object) -> Message:
    """Make a `websocket.http.response.body`."""
    return {"type": "websocket.http.response.body", "body": data, **more}


def start(status: object = 200, headers: object = (), **more: object) -> Message:
    """Make an `http.response.start`."""
    return {"type": "http.response.start", "status": status, "headers": headers, **more}


def body(data: object = b"", **more: object) -> Message:
    """Make an `http.response.body`."""
    return {"type": "http.response.body", "body": data, **more}


def trailers(*headers: tuple[object, object], **more: object) -> Message:
    """Make an `http.response.trailers`."""
    return {"type": "http.response.trailers", "headers": list(headers), **more}


def path_of(path: object) -> Message:
    """Make an `http.response.pathsend`."""
    return {"type": "http.response.pathsend", "path": str(path)}


def zero_copy(file: object, **more: object) -> Message:
    """Make an `http.response.zerocopysend`."""
    return {"type": "http.response.zerocopysend", "file": file, **more}


def sender(*messages: Message) -> App:
    """Make an application that says just this."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


class Log:
    """What the server logged of the requests in a test."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "termserver")
        self._caplog = caplog

    def lines(self, level: int) -> list[str]:
        return [record.getMessage() for record in self._caplog.records if record.name == "termserver" and record.levelno == level]

    @property
    def errors(self) -> list[str]:
        return self.lines(logging.ERROR)

    @property
    def tracebacks(self) -> int:
        return sum(record.exc_info is not None for record in self._caplog.records)

    @property
    def quiet(self) -> bool:
        """Whether nobody was troubled: no warning, no error, no traceback."""
        return not self.tracebacks and all(record.levelno <= logging.INFO for record in self._caplog.records)
