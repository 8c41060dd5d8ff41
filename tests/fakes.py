"""A connection without a socket: the real HTTP/1 engine, one exchange, and a recording outlet between them."""

import asyncio
import functools
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, ParamSpec

import h11
import pytest

from termserver.asgi.http import HttpExchange
from termserver.asgi.scope import base_scope, http_scope
from termserver.config import Limits
from termserver.errors import ClientDisconnected
from termserver.wire.events import Aborted, Body, Ending, Event, Fields, Rejected, Request, Trailers
from termserver.wire.head import HeadParser
from termserver.wire.http1 import DefaultFields, Http1

P = ParamSpec("P")
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[..., Awaitable[None]]
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
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
