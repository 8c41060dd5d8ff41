"""A server without ports, and a client that speaks HTTP/2 with it by frames made by hand; both kinds of transport, virtual time.

The client is the one of the engine's tests: here its bytes go through a wire (`Network`), and what it reads has come out of one.
"""

import asyncio
import contextvars
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from h2.errors import ErrorCodes

from fakes import App, Message, Receive, Send, accept, now, turns
from net.wires import LoopWire, TwistedWire, Wire
from termserver.config import Config, Limits, Logging, Timeouts
from termserver.net import connection as connection_module
from termserver.net import departures as departures_module
from termserver.net import http2 as http2_module
from termserver.net import server as server_module
from termserver.net import websocket as websocket_module
from termserver.net.deadlines import Deadlines
from termserver.net.departures import Departures
from termserver.net.endpoints import LoopTlsTransport
from termserver.net.http2 import Http2Connection
from termserver.net.server import SERVING, Server
from termserver.observe.access import AccessLog
from termserver.wire import h2frames as f
from wire.frames import Sent as SocketFrame
from wire.frames import in_parts
from wire.frames import read_frames as read_socket_frames
from wire.h2driving import CONNECT, Answer, Client, data, headers

both = pytest.mark.parametrize("kind", [LoopWire, TwistedWire], ids=["loop", "twisted"])
LINE = "%(h)s %(m)s %(target)s %(s)s %(B)s %(T)s"
SOCKET = [*CONNECT[:-1], (b":path", b"/socket"), (b"sec-websocket-version", b"13")]
NO_ERROR, CANCEL, PROTOCOL_ERROR = ErrorCodes.NO_ERROR, ErrorCodes.CANCEL, ErrorCodes.PROTOCOL_ERROR
CALM, INTERNAL_ERROR = ErrorCodes.ENHANCE_YOUR_CALM, ErrorCodes.INTERNAL_ERROR


def stop_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every clock show the loop's virtual time."""
    for each in (http2_module, connection_module, websocket_module):
        monkeypatch.setattr(each, "monotonic", now)
    for each in (server_module, departures_module):
        monkeypatch.setattr(each, "time", SimpleNamespace(monotonic=now))


class TlsWire(LoopWire):
    """The loop's TLS transport, its handshake over."""

    cipher = ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)
    agreed: str | None = "h2"

    def __init__(self, factory: Any = None, *, goes: bool = False) -> None:
        super().__init__(goes=goes)
        self.transport = LoopTlsTransport(factory, lambda _: {"tls_version": 0x0304})
        self.transport.connection_made(self)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        known = {"ssl_object": SimpleNamespace(selected_alpn_protocol=lambda: self.agreed), "cipher": self.cipher}
        return known.get(name) or super().get_extra_info(name, default)


class Sink:
    """Where the access log goes."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, lines: list[str]) -> None:
        self.lines += [line.rstrip("\n") for line in lines]


class Network:
    """A wire in the place of an engine: what a client sends goes in, what came out of it is handed out once."""

    def __init__(self, wire: Wire, read: int = 0) -> None:
        self._wire = wire
        self._read = read

    def receive(self, piece: bytes, _now: float) -> list[Any]:
        self._wire.receive(piece)
        return []

    def output(self) -> bytes:
        sent = bytes(self._wire.sent[self._read :])
        self._read += len(sent)
        return sent


def client_of(wire: Wire, *, read: int = 0, way: str = "whole") -> Client:
    """Give a client at the other end of a wire, of which it has read so many bytes."""
    return Client(way, greet=False, engine=cast("Any", Network(wire, read)))


class Talk:
    """A server, and one connection of it."""

    def __init__(
        self,
        app: App,
        kind: Callable[..., Wire] = LoopWire,
        *,
        goes: bool = True,
        limits: Limits | None = None,
        log: str | None = None,
        config: Config | None = None,
        **timeouts: float,
    ) -> None:
        self.sink = Sink()
        self.log = AccessLog(log, cast("Any", self.sink)) if log else None
        config = replace(config or Config(), logging=Logging(access_log=None), lifespan="off", timeouts=Timeouts(**cast("Any", timeouts)))
        self.server = Server(replace(config, limits=limits or config.limits), app, access_log=self.log)
        self.server.loop = asyncio.get_running_loop()
        self.server.context = contextvars.copy_context()
        self.server.deadlines = Deadlines(clock=now)
        self.server.departures = Departures(self.server.deadlines, config.timeouts)
        self.server.deadlines.start(self.server.loop)
        self.server.stage = SERVING
        self.wire = kind(self.server, goes=goes)
        self.client = client_of(self.wire)

    async def greet(self, *values: tuple[int, int]) -> None:
        """Let the client say hello, with these settings."""
        await self.send(f.PREFACE + f.settings(values), f.SETTINGS_ACK)

    async def send(self, *pieces: bytes) -> None:
        """Let the client send."""
        self.client.send(*pieces)
        await turns()

    def answer(self, stream: int = 1) -> Answer:
        """Give what came on a stream."""
        return self.client.answer(stream)

    def status(self, stream: int = 1) -> int:
        """Give the status of an answer, 0 while there is none."""
        answer = self.answer(stream)
        return next((int(head[0][1]) for head in answer.heads if head[0][0] == b":status" and int(head[0][1]) >= 200), 0)

    @property
    def codes(self) -> list[int]:
        """The codes of the GOAWAY frames."""
        return [code for _, code in self.client.goaways]

    @property
    def connection(self) -> Http2Connection:
        """The connection, which speaks HTTP/2."""
        [connection] = [each for each in self.server.connections if isinstance(each, Http2Connection)]
        return connection

    @property
    def over(self) -> bool:
        """Whether nothing is left of connections and calls."""
        return not self.server.connections and not self.server.running and not self.server.departures

    def logged(self) -> list[str]:
        """Give the lines of the access log, without the address of the client where the format begins with it."""
        if self.log is None:
            raise AssertionError("no log was asked for")
        self.log.flush()
        return [line.split(" ", 1)[1] for line in self.sink.lines]

    # a WebSocket on a stream

    async def open(self, stream: int = 1, *fields: tuple[bytes, bytes]) -> None:
        """Let the client ask for a WebSocket."""
        await self.send(headers(stream, [*SOCKET, *fields], ended=False))

    async def say(self, *frames: bytes, stream: int = 1, ended: bool = False) -> None:
        """Let the client send WebSocket frames, in as few DATA frames as there can be."""
        *pieces, last = in_parts(b"".join(frames), f.FRAME_SIZE)
        await self.send(*[data(stream, piece) for piece in pieces], data(stream, last, ended=ended))

    def frames(self, stream: int = 1) -> list[SocketFrame]:
        """Give the WebSocket frames that came on a stream."""
        return read_socket_frames(self.answer(stream).body)


async def talked(app: App, kind: Callable[..., Wire] = LoopWire, *values: tuple[int, int], **options: Any) -> Talk:
    """Give a connection on which both sides have said hello."""
    talk = Talk(app, kind, **options)
    await talk.greet(*values)
    return talk


class Puppet:
    """An HTTP application that a test leads: each call waits until it is told to go on, and writes down what it heard and how it ended."""

    def __init__(self, *, listens: bool = False, holds_on: bool = False) -> None:
        self.listens = listens  # whether it waits in `receive()`, until the client is gone
        self.holds_on = holds_on  # whether it ignores that it is cancelled
        self.calls: list[Call] = []

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send)
        self.calls.append(call)
        try:
            while self.listens and not call.left:
                call.heard.append(await receive())
            await self._wait(call)
        except BaseException as error:
            call.raised = error
            raise
        finally:
            call.over = True

    async def _wait(self, call: "Call") -> None:
        while not call.done.is_set():
            try:
                await call.done.wait()
            except asyncio.CancelledError:
                call.cancelled_at.append(now())
                if not self.holds_on:
                    raise

    def __getitem__(self, number: int) -> "Call":
        return self.calls[number]

    def __iter__(self) -> "Iterator[Call]":
        return iter(self.calls)


class Call:
    """One call of a puppet."""

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.scope, self.receive, self.send = scope, receive, send
        self.heard: list[Message] = []
        self.raised: BaseException | None = None
        self.cancelled_at: list[float] = []
        self.over = False
        self.done = asyncio.Event()

    @property
    def left(self) -> bool:
        """Whether it was told that the client is gone."""
        return bool(self.heard) and self.heard[-1]["type"].endswith(".disconnect")

    @property
    def body(self) -> bytes:
        """What it was given of the request's body."""
        return b"".join(message.get("body", b"") for message in self.heard)

    async def finish(self) -> None:
        """Let the call return."""
        self.done.set()
        await turns()


class SocketPuppet:
    """A WebSocket application that a test leads: it accepts and listens unless told otherwise, and writes down what it hears."""

    def __init__(self, *, accepts: bool = True, listens: bool = True) -> None:
        self.accepts = accepts
        self.listens = listens
        self.scope: Message = {}
        self.heard: list[Message] = []
        self.raised: BaseException | None = None
        self.done = asyncio.Event()
        self.receive: Receive
        self.send: Send

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.scope, self.receive, self.send = scope, receive, send
        try:
            await receive()
            if self.accepts:
                await send(accept())
            while self.listens and self.end is None:
                self.heard.append(await receive())
            if not self.listens:
                await self.done.wait()
        except BaseException as error:
            self.raised = error
            raise

    @property
    def texts(self) -> list[str]:
        """The messages that came."""
        return [message["text"] for message in self.heard if "text" in message]

    @property
    def end(self) -> tuple[int, str] | None:
        """What `websocket.disconnect` said."""
        last = self.heard[-1] if self.heard else {}
        return (last["code"], last["reason"]) if last.get("type") == "websocket.disconnect" else None


async def opened(
    kind: Callable[..., Wire] = LoopWire, *values: tuple[int, int], listens: bool = True, **options: Any
) -> tuple[Talk, SocketPuppet]:
    """Give a WebSocket on stream 1 that was accepted."""
    app = SocketPuppet(listens=listens)
    talk = await talked(app, kind, *values, **options)
    await talk.open()
    if talk.status() != 200:
        raise AssertionError(talk.answer())
    return talk, app
