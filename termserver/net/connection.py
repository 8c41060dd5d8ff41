"""One client's connection: bytes in, bytes out, one flush per turn, backpressure both ways, deadlines.

`dataReceived` is a turn: the engine says what the bytes mean, an exchange per request drives the application, and what the engine has to
say at the end of the turn leaves in one write. A response that ends outside a turn (the application waited) settles the connection the same
way. The loop over pipelined requests is a loop, not a recursion, and an application's task always starts in the server's context, never in
that of another request.

It is a Twisted protocol and runs on any Twisted transport; what only the loop's transports can do (`unsent`, `set_buffer_limits`,
sendfile) it asks for by name and does without elsewhere.
"""

import logging
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, IPushProducer, ISSLTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from termserver.asgi.http import HttpExchange
from termserver.asgi.scope import Scope, http_scope
from termserver.asgi.websocket import WebSocketExchange
from termserver.net.departures import Exchange
from termserver.net.eager import start_task
from termserver.net.endings import Waiters, cut_when_taken, has_handshake_to_come, release_producer, shut_writing, unacknowledged
from termserver.net.endpoints import LoopTlsTransport, LoopTransport
from termserver.net.http2 import Http2Connection
from termserver.net.pace import Pace
from termserver.net.sendfile import send_file
from termserver.net.websocket import SocketConnection
from termserver.wire.events import Aborted, Awaiting, Body, Ending, Event, Fields, HttpEngine, Preface, Rejected, Request
from termserver.wire.handshake import HandshakeRefused
from termserver.wire.websocket import WebSocket

if TYPE_CHECKING:
    from termserver.net.server import Server

monotonic = time.monotonic
logger = logging.getLogger("termserver")

OPEN, CLOSE, LINGER, RESET, _ = Ending
A_REQUEST: Final = Awaiting.REQUEST
A_APPLICATION: Final = Awaiting.APPLICATION
_MOST_LEFTOVERS: Final = 8  # calls of one connection that go on after their response; with more, its next request waits
_PROBE_SECONDS: Final = 0.02
_HEAD_SIZE: Final = 256  # bytes of a response's head, more or less
_TURN_SIZE: Final = 65_536  # bytes of responses to pipelined requests that leave in one write


@implementer(IProtocol, IHalfCloseableProtocol, IPushProducer)
class Connection:
    """One HTTP/1 connection. Also the `Outlet` of its exchanges."""

    __slots__ = (
        "_application_timed",
        "_base",
        "_congested",
        "_ended",
        "_engine",
        "_exchange",
        "_extensions",
        "_in_turn",
        "_input_over",
        "_leftovers",
        "_opened",
        "_pace",
        "_paused",
        "_probing",
        "_server",
        "_successor",
        "_unsent",
        "_written",
        "sends_files",
        "transport",
        "waiters",
        "writable",
    )

    transport: Any  # ITransport, or LoopTransport with more

    def __init__(self, server: "Server", engine: HttpEngine) -> None:
        """Wait for `makeConnection`."""
        self._server = server
        self._engine = engine
        self._exchange: Exchange | None = None
        self._base: Scope | None = None
        self._successor: SocketConnection | Http2Connection | None = None  # on a transport of Twisted's, which goes on calling us
        self.waiters = Waiters()
        self._ended = OPEN
        self._in_turn = self._input_over = self._paused = False
        self._congested = False  # the transport's buffer is full
        self._probing = False  # bytes are out to a client that shut its side: does it answer with a reset?
        self._written = self._unsent = self._leftovers = 0
        self.writable = True
        self.sends_files = False

    # ------------------------------------------------------------------ Twisted calls

    def makeConnection(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport
        server, now = self._server, monotonic()
        self._opened = now
        timeouts = server.config.timeouts
        self._application_timed = timeouts.application > 0
        self._pace = Pace(self, timeouts, now, first=timeouts.tls_handshake if has_handshake_to_come(transport) else timeouts.header_read)
        transport.registerProducer(self, True)
        self._extensions = server.extensions
        if isinstance(transport, LoopTransport):
            self._set_buffer_limits()
            self.sends_files = transport.sends_files
            if isinstance(transport, LoopTlsTransport):
                self._extensions = {**server.extensions, "tls": transport.tls_facts()}
        server.opened(self, self._pace)

    def dataReceived(self, data: bytes) -> None:
        """Take bytes of the client: one turn."""
        if self._ended is not OPEN:
            if self._successor is not None:
                self._successor.dataReceived(data)
            else:
                self._pace.received(len(data), monotonic())
            return
        engine = self._engine
        self._in_turn = True
        for event in engine.receive(data):
            if type(event) is Request:
                self._begin(event)
            else:
                self._take(event)
        while engine.has_input:
            if self._unsent > _TURN_SIZE:
                self._unsent = 0
                self.flush()
            if not self._ready:  # one who asks for more than it reads waits for its own reading (spec limits L34)
                break
            for event in engine.receive(b""):
                self._take(event)
        self._in_turn = False
        self._settle()

    def readConnectionLost(self) -> None:
        """The client shut its sending side. It may still be waiting for the answer to a whole request."""
        self._input_over = True
        if self._successor is not None:
            self._successor.readConnectionLost()
            return
        exchange = self._exchange
        if self._ended is not OPEN or (type(exchange) is WebSocketExchange and not exchange.begun):  # half a connection is no socket
            self._close()
            return
        for event in self._engine.end_of_input():
            self._take(event)
        if exchange is not None and not exchange.done:
            self._pace.half_closed(monotonic())
        self._settle()

    def writeConnectionLost(self) -> None:
        """Our side is shut, as was asked for."""

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone."""
        if self._successor is not None:
            self._successor.connectionLost(reason)
            return
        self._ended = RESET
        self.writable = True
        self.waiters.wake()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            answered = exchange.done
            exchange.lost()
            if not answered:
                self._record(exchange)
            if exchange.running:
                self._server.left_behind(exchange)
        self._server.closed(self, self._pace)

    def pauseProducing(self) -> None:
        """The client does not read as fast as it is sent to. Twisted's transports say so at every write."""
        if self._congested:
            return
        self._congested, self.writable = True, False
        self._pace.write_blocked(monotonic())

    def resumeProducing(self) -> None:
        """It does again."""
        self._congested = False
        self._pace.write_free()
        if not self._probing:
            self.writable = True
            self.waiters.wake()
        if self._ended is not OPEN:
            release_producer(self.transport)
            if self._ended is LINGER:
                shut_writing(self.transport)
        elif self._paused or self._engine.has_input:
            self._server.loop.call_soon(self._go_on, context=self._server.context)

    def stopProducing(self) -> None:
        """The transport is about to be lost."""

    # ------------------------------------------------------------------ turns

    def _take(self, event: Event) -> None:
        """Do what an event asks for."""
        kind = type(event)
        if kind is Request:
            self._begin(event)  # type: ignore[arg-type]
        elif kind is Body:
            self._pace.received(len(event.data), monotonic())  # type: ignore[union-attr]
            if self._exchange is not None:
                self._exchange.feed(event.data, ended=event.ended)  # type: ignore[union-attr, call-arg, arg-type]
        elif kind is Rejected:
            self._rejected(event)  # type: ignore[arg-type]
        elif kind is Preface:
            self._become_http2(event.data)  # type: ignore[union-attr]
        elif self._exchange is not None:
            if kind is Aborted:
                self._abandon()
            else:
                self._exchange.feed_trailers(event.headers)  # type: ignore[union-attr]

    def _begin(self, request: Request) -> None:
        """Hand a request to the application."""
        server = self._server
        limit = server.config.limits.concurrency
        if limit and server.running >= limit:
            self._rejected(self._engine.reject(0, 503, "too many requests at once"))
            return
        if request.upgrade == b"h2c" and not ISSLTransport.providedBy(self.transport):
            self._upgrade_to_http2(request)
            return
        if request.upgrade == b"websocket":
            self._begin_socket(request)
            return
        exchange = HttpExchange(self._engine, self, request)
        self._take_up(exchange)
        scope = http_scope(self._base or self._base_scope(), request, self._extensions, server.state)
        if server.proxies is not None:
            server.proxies.apply(scope)
        server.running += 1
        exchange.task = start_task(exchange.run(server.app, scope), server.loop, server.context.copy())

    def _begin_socket(self, request: Request) -> None:
        """Hand a WebSocket to the application, unless the server refuses it."""
        server = self._server
        try:
            opening = server.judge_handshake(request)
        except HandshakeRefused as refused:
            self._rejected(self._engine.reject(0, refused.status, refused.reason, refused.headers))
            return
        exchange = WebSocketExchange(self._engine, self, request, opening, queue_limit=server.config.limits.websocket_queue)
        self._take_up(exchange)
        base = self._base_scope()
        scope = server.socket_scope(base, request, opening, self._extensions.get("tls"))
        server.running += 1
        server.log_step("CONNECTING", exchange, base["client"])
        exchange.task = start_task(exchange.run(server.app, scope), server.loop, server.context.copy())

    def _take_up(self, exchange: Exchange) -> None:
        """Make this the running exchange."""
        server, leftover = self._server, self._exchange
        if leftover is not None and leftover.running:  # its response is complete, its application still works
            server.left_working(leftover)
            self._leftovers += 1
        self._exchange = exchange
        self._pace.phase = A_REQUEST  # whatever comes after this request is waited for anew
        if server.times_requests:
            exchange.started = monotonic()
            age = server.config.timeouts.connection_age
            if age and exchange.started - self._opened > age:
                self._engine.drain()

    def _base_scope(self) -> Scope:
        if self._base is None:
            self._base = self._server.base_scope(self.transport)
        return self._base

    def upgrade(self, exchange: WebSocketExchange, headers: Fields, window_bits: int) -> None:
        """Answer 101 and hand the connection over (asgi.websocket.SocketOutlet)."""
        rest = self._engine.upgrade(exchange.request.stream, headers)
        self.flush()
        self._ended, self._exchange = Ending.SWITCHED, None
        if self._paused:
            self._pause(on=False)
        self.waiters.wake()
        engine = WebSocket(self._server.socket_terms, window_bits)
        successor = SocketConnection(self._server, self.transport, exchange, engine, self._base_scope()["client"])
        if not isinstance(self.transport, LoopTransport):
            self._successor = successor
        self._server.switched(self, self._pace)
        self._server.opened_socket(successor)
        successor.begin(rest, writable=self.writable)

    def _upgrade_to_http2(self, request: Request) -> None:
        """Switch as the client asks for, with its request as the first stream (RFC 7540 §3.2)."""
        rest = self._engine.upgrade(0, [(b"connection", b"Upgrade"), (b"upgrade", b"h2c")])
        self.flush()
        self._become_http2(rest, request)

    def _become_http2(self, data: bytes, request: Request | None = None) -> None:
        """Hand the connection over to who speaks HTTP/2: the client knew it beforehand, or agreed upon it with Twisted's TLS."""
        server, transport = self._server, self.transport
        self._ended = Ending.SWITCHED
        successor = server.build_http2()
        transport.unregisterProducer()
        server.switched(self, self._pace)
        successor.take_over(transport)
        if isinstance(transport, LoopTransport):
            transport.switch(successor)
        else:
            self._successor = successor
        if request is not None:
            successor.adopt(request)
        successor.dataReceived(data)

    def _settle(self) -> None:
        """End a turn: send what is to be sent, then close, wait, or go on reading."""
        engine = self._engine
        data = engine.output()
        if data:
            self._written += len(data)
            self.transport.write(data)
        if engine.ending is not OPEN:
            self._end(engine.ending)
            return
        awaiting = engine.awaiting
        if awaiting is A_REQUEST:
            self._pace.idle(monotonic())
            if self._paused is self._ready:
                self._pause(on=not self._paused)
            return
        if awaiting is A_APPLICATION and not self._application_timed:
            self._pace.phase = awaiting  # no limit of its own: the last phase's deadline passes, and nothing is found wrong
        else:
            self._pace.enter(awaiting, monotonic())
        if engine.wants_data is self._paused:
            self._pause(on=not self._paused)

    def _rejected(self, rejected: Rejected) -> None:
        """The server answered by itself, in the place of a running exchange if there is one."""
        exchange = self._exchange
        if exchange is not None and not exchange.done and not exchange.begun:
            exchange.status = rejected.status
        self._server.rejected(rejected)

    def _pause(self, *, on: bool) -> None:
        """Stop reading, or go on."""
        if self._input_over:
            return
        self._paused = on
        if on:
            self.transport.pauseProducing()
        else:
            self.transport.resumeProducing()
        self._pace.reading(not on, monotonic())

    @property
    def _ready(self) -> bool:
        """Whether another request may be taken up: the client reads its answers, and what its earlier ones set off is not too much."""
        return self.writable and self._leftovers < _MOST_LEFTOVERS

    def _go_on(self) -> None:
        """Take up requests that came while another one was answered, or while the client did not read."""
        if self._ended is not OPEN or self._in_turn or not self._ready:
            return
        if self._engine.has_input:
            self.dataReceived(b"")
        else:
            self._settle()

    # ------------------------------------------------------------------ what an exchange asks for (asgi.http.Outlet)

    def flush(self) -> None:
        """Send what the engine has to say."""
        data = self._engine.output()
        if data and self._ended is OPEN:
            self._written += len(data)
            self.transport.write(data)
            if self._input_over:
                self._probe()

    def _probe(self) -> None:
        """See whether a client that shut its side has left: then it answers our bytes with a reset. `send()` waits a moment for that."""
        if not self._probing and isinstance(self.transport, LoopTransport):
            self._probing, self.writable = True, False
            self._server.loop.call_later(_PROBE_SECONDS, self._look_for_reset, context=self._server.context)

    def _look_for_reset(self) -> None:
        self._probing = False
        if self._ended is OPEN and self.transport.was_reset():
            self._cut()
        elif not self._congested:
            self.writable = True
            self.waiters.wake()

    def resume_reading(self) -> None:
        """The application took some of the body."""
        if self._paused and self._engine.wants_data and self._ended is OPEN:
            self._pause(on=False)

    def finished(self, exchange: Exchange) -> None:
        """A response is complete, or never will be."""
        if exchange is not self._exchange:
            return
        if self._in_turn:
            self._unsent += exchange.sent + _HEAD_SIZE
        elif self._ended is OPEN:
            self._settle()
        if self._server.times_requests:
            self._record(exchange)
        if not self._in_turn and self._engine.has_input:  # in a context of the server's: this one is the application's
            self._server.loop.call_soon(self._go_on, context=self._server.context)

    def returned(self, exchange: Exchange) -> None:
        """An application's call is over."""
        if exchange is not self._exchange:
            self._leftovers -= 1
            if self._ended is OPEN and self._leftovers == _MOST_LEFTOVERS - 1:
                self._server.loop.call_soon(self._go_on, context=self._server.context)
        elif exchange.done:
            self._exchange = None  # an idle connection holds no request
        self._server.call_ended(exchange)

    async def wait_writable(self) -> None:
        """Wait until the client has read enough, or is gone."""
        while not self.writable:
            await self.waiters.wait(self._server.loop)

    def begin_file(self, size: int, *, more: bool) -> bool:
        """Announce body bytes that `send_file` puts on the wire."""
        return self._engine.begin_file(0, size, more=more)

    def end_file(self, size: int) -> None:
        """Say that they were all there."""
        self._engine.end_file(0, size)

    async def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """Put a part of a file on the wire without reading it here; answer how many bytes it had."""
        self.flush()
        self.transport.set_buffer_limits(0, 0)  # what was written before has to be out first
        try:
            await self.wait_writable()
            self._pace.write_blocked(monotonic())
            return await send_file(self, descriptor, offset, count)
        finally:
            self._pace.write_free()
            self._set_buffer_limits()

    @property
    def lost(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._ended is not OPEN

    def sent(self, size: int) -> None:
        """Count bytes that went past the transport."""
        self._written += size

    def _set_buffer_limits(self) -> None:
        high = self._server.config.limits.response_buffer
        self.transport.set_buffer_limits(high or sys.maxsize, min(high or sys.maxsize, 16_384))

    # ------------------------------------------------------------------ ends

    def _end(self, ending: Ending) -> None:
        """Let the connection go, in the way that makes the client understand."""
        if self._ended is not OPEN:
            return
        self._ended = ending
        if ending is RESET:
            cut_when_taken(self.transport, self._server.loop, self._server.context, self._cut)
        elif ending is LINGER and not self._input_over:
            # RFC 9112 §9.6: a close while the client still sends would be a reset that destroys the answer on its way
            if self._paused:
                self._pause(on=False)
            self._pace.enter(Awaiting.DISCARD, monotonic())
            if self.writable:
                release_producer(self.transport)
            shut_writing(self.transport)
        else:
            self._close()

    def _close(self) -> None:
        self._ended = CLOSE
        self._pace.closing(monotonic())
        if self.writable:
            release_producer(self.transport)
        self.transport.loseConnection()

    def _cut(self) -> None:
        self._ended = RESET
        self.transport.abortConnection()

    def _abandon(self) -> None:
        """The request will never be complete."""
        exchange = self._exchange
        if exchange is not None:
            exchange.lost()

    def drain(self) -> None:
        """Let the running response be the last one; an idle connection ends now."""
        if self._ended is OPEN:
            self._engine.drain()
            self._settle()
        self._pace.hurry(monotonic())

    def tell_disconnect(self) -> None:
        """Tell the application that its time is almost over; a WebSocket without a verdict is refused."""
        exchange = self._exchange
        if type(exchange) is WebSocketExchange and not exchange.begun and not exchange.done:
            self._refuse_socket(exchange, "the server stops, and there is no verdict on a WebSocket")
            self._settle()
        elif exchange is not None:
            exchange.tell_disconnect()

    def _refuse_socket(self, exchange: WebSocketExchange, reason: str) -> None:
        """Answer 503 in the application's place."""
        self._rejected(self._engine.reject(0, 503, reason))
        self._record(exchange)
        exchange.lost()

    def abort(self) -> None:
        """End at once."""
        self._cut()

    def exchanges(self) -> list[Exchange]:
        """Give the last exchange, if there is one."""
        return [] if self._exchange is None else [self._exchange]

    @property
    def leaves(self) -> bool:
        """Whether the end has begun."""
        return self._ended is not OPEN

    @property
    def idle_since(self) -> float | None:
        """The deadline of a connection on which nothing happens, None for any other: who has the earliest has waited longest."""
        return self._pace.deadline if self._pace.phase is A_REQUEST and self._ended is OPEN else None

    # ------------------------------------------------------------------ what its pace says

    def progress(self) -> int:
        """Bytes that the client has taken, as far as it can be known.

        What has only left this process is no measure: the system's buffer takes megabytes at once, and then for minutes nothing.
        """
        return self._written - unacknowledged(self.transport)

    def idle_for_too_long(self) -> None:
        """No request came: close without a word."""
        self._end(CLOSE)

    def request_too_slow(self, reason: str) -> None:
        """Answer 408 and end (spec limits L12 to L14)."""
        self._abandon()
        self._rejected(self._engine.reject(0, 408, reason))
        self._settle()

    def application_too_slow(self) -> None:
        """Answer 504, or 503 for want of a verdict on a WebSocket, or cut what was begun; cancel the call (spec limits L40, L48)."""
        exchange = self._exchange
        if exchange is None:
            return
        if exchange.begun:
            self._engine.reset(0)
        elif type(exchange) is WebSocketExchange:
            self._refuse_socket(exchange, "the application gave no verdict on a WebSocket in time")
        else:
            self._rejected(self._engine.reject(0, 504, "the application took too long"))
        exchange.lost()
        if exchange.task is not None:
            exchange.task.cancel()
        self._settle()

    def peer_too_slow(self, reason: str) -> None:
        """End at once a connection whose peer does not take part any more (spec limits L17, L35)."""
        self._server.cut(reason)
        self._cut()

    def farewell_over(self) -> None:
        """Close, so that what the client was sent still reaches it; where that was done already, cut (spec limits L17)."""
        if self._ended is not CLOSE:
            self._close()
        elif not isinstance(self.transport, LoopTlsTransport):
            self.peer_too_slow("the peer did not go away")
        elif unacknowledged(self.transport):  # a plain socket would be the system's by now; this one waits for the client's close alert
            self._pace.write_blocked(monotonic())
        else:
            self.transport.leave()

    def half_closed_for_long(self) -> None:
        """Take a client that shut its side for gone, as far as the application is concerned; its answer is still sent if there is one."""
        exchange = self._exchange
        self.tell_disconnect()
        if exchange is not None and exchange.running:  # nearly every client that shuts its side has left (spec limits L47)
            self._server.left_behind(exchange)

    def _record(self, exchange: Exchange) -> None:
        self._server.record(exchange, self._base["client"] if self._base is not None else None)
