"""One client's HTTP/2 connection: bytes in, bytes out, an exchange a stream, one flush a turn.

`dataReceived` is a turn, as for HTTP/1: the engine says what the bytes mean, an exchange per stream drives the application, and what the
engine has to say leaves in one write. What applications say outside a turn leaves in one write as well, at the end of the loop's turn. The
transport is never given more than it takes: while it is full, everything waits in the engine, where it is counted for each stream.

A WebSocket on a stream is the same `SocketConnection` as on a connection of its own, over a transport that is the stream
(`StreamTransport`).
"""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from h2.errors import ErrorCodes
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from termserver.asgi.http import HttpExchange
from termserver.asgi.scope import Scope, http_scope
from termserver.asgi.websocket import WebSocketExchange
from termserver.net.departures import Exchange
from termserver.net.eager import start_task
from termserver.net.endings import release_producer, shut_writing, unacknowledged
from termserver.net.endpoints import LoopTlsTransport, LoopTransport
from termserver.net.h2pace import Http2Pace
from termserver.net.streams import StreamOutlet, StreamTransport
from termserver.net.websocket import SocketConnection
from termserver.wire.events import Aborted, Body, Ending, Event, Fault, Fields, Rejected, Request
from termserver.wire.h2frames import decode_settings
from termserver.wire.handshake import HandshakeRefused
from termserver.wire.http2 import Http2
from termserver.wire.websocket import WebSocket

if TYPE_CHECKING:
    from termserver.net.server import Server

monotonic = time.monotonic
logging.getLogger("hpack").setLevel(logging.WARNING)  # at DEBUG it writes what its tables drop: cookies

OPEN, CLOSE, LINGER, RESET, _ = Ending
_SWITCHING: Final = frozenset({b"connection", b"http2-settings", b"upgrade"})  # fields that were about the switch
_DRAIN_SECONDS: Final = 1.0  # from the first GOAWAY to the second, where the client does not answer a ping
_LEFTOVERS_A_STREAM: Final = 8  # calls that go on after their response, as many as an HTTP/1 connection may have
_BUFFER: Final = 65_536  # bytes that the transport holds before it is full


@implementer(IProtocol, IHalfCloseableProtocol, IPushProducer)
class Http2Connection:
    """One HTTP/2 connection."""

    __slots__ = (
        "_base",
        "_ended",
        "_extensions",
        "_flushing",
        "_in_turn",
        "_left",
        "_opened",
        "_pace",
        "_server",
        "_written",
        "engine",
        "outlets",
        "transport",
    )

    transport: Any  # ITransport, or LoopTransport with more

    def __init__(self, server: "Server", engine: Http2) -> None:
        """Wait for `makeConnection`, or `take_over`."""
        self._server = server
        self.engine = engine
        self.outlets: dict[int, StreamOutlet] = {}  # of streams whose applications run
        self._ended = OPEN
        self._in_turn = self._flushing = False
        self._written = 0
        self._left = 0  # calls whose client reset the stream
        self._base: Scope | None = None

    # ------------------------------------------------------------------ Twisted calls

    def makeConnection(self, transport: Any) -> None:
        """Begin on a transport of our own."""
        self.take_over(transport)

    def take_over(self, transport: Any) -> None:
        """Begin: our settings are the first thing that is sent."""
        self.transport = transport
        server, now = self._server, monotonic()
        self._opened = now
        transport.registerProducer(self, True)
        self._extensions = server.extensions
        if isinstance(transport, LoopTransport):
            transport.set_buffer_limits(_BUFFER, _BUFFER >> 2)
            if isinstance(transport, LoopTlsTransport):
                self._extensions = {**self._extensions, "tls": transport.tls_facts()}
        self._pace = Http2Pace(self, server.config.timeouts, now, server.deadlines.interval)
        server.opened(self, self._pace)
        if isinstance(transport, LoopTlsTransport) and transport.is_weak():
            self.peer_broke_off(ErrorCodes.INADEQUATE_SECURITY, "a cipher suite that HTTP/2 forbids")
        self.flush()

    def adopt(self, request: Request) -> None:
        """Answer an HTTP/1 request as the first stream: the client asked to switch."""
        settings = next(decode_settings(value) or b"" for name, value in request.headers if name == b"http2-settings")
        for event in self.engine.adopt(settings, is_head=request.method == "HEAD"):
            self._take(event)
        if self.engine.streams:
            request.stream, request.version, request.upgrade = 1, "2", None
            request.headers = [field for field in request.headers if field[0] not in _SWITCHING]
            self._begin(request)

    def connectionMade(self) -> None:
        """Twisted's hook for protocols of its own."""

    def dataReceived(self, data: bytes) -> None:
        """Take bytes of the client: one turn."""
        now = monotonic()
        if self._ended is not OPEN:
            self._pace.received(now)
            return
        engine = self.engine
        engine.calls = self._calls()
        self._in_turn = True
        for event in engine.receive(data, now):
            if type(event) is Request:
                if event.stream in engine.streams:  # else it was reset right after it
                    self._begin(event)
            else:
                self._take(event)
        self._in_turn = False
        self._settle(now)

    def _calls(self) -> int:
        """Count what stands for a stream (spec limits L20): calls whose client reset theirs too, an eighth of those that answered."""
        count = len(self.engine.streams) + self._left
        return count + max(len(self.outlets) - count, 0) // _LEFTOVERS_A_STREAM

    def readConnectionLost(self) -> None:
        """The client shut its sending side: without it, no window opens any more."""
        if self._ended is OPEN:
            for event in self.engine.end_of_input():
                self._take(event)
        self._close()

    def writeConnectionLost(self) -> None:
        """Our side is shut, as was asked for."""

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002 - Twisted's signature
        """The connection is gone."""
        self._ended = RESET
        for outlet in tuple(self.outlets.values()):
            self._lose(outlet)
        self.engine.end_of_input()
        self._server.closed(self, self._pace)

    def pauseProducing(self) -> None:
        """The client does not read as fast as it is sent to. Twisted's transports say so at every write."""
        if not self.engine.sender.blocked:
            self.engine.sender.blocked = True
            self._pace.write_blocked(monotonic())

    def resumeProducing(self) -> None:
        """It does again."""
        self.engine.sender.blocked = False
        self._pace.write_free()
        if self._ended is not OPEN:
            if data := self.engine.output():  # why it ends: it was said while the client did not read
                self.transport.write(data)
            release_producer(self.transport)
            if self._ended is LINGER:
                shut_writing(self.transport)
        else:
            self.flush_soon()

    def stopProducing(self) -> None:
        """The transport is about to be lost."""

    # ------------------------------------------------------------------ turns

    def _take(self, event: Event) -> None:
        """Do what an event asks for."""
        kind = type(event)
        if kind is Rejected:
            self._server.rejected(event)  # type: ignore[arg-type]
            return
        outlet = self.outlets.get(event.stream)  # type: ignore[union-attr]
        if kind is Fault:
            self._server.faulted(event.code, event.reason)  # type: ignore[union-attr]
            if outlet is not None and event.stream:  # type: ignore[union-attr]
                task = outlet.exchange.task
                self._lose(outlet)
                if task is not None:  # spec attacks C2: at once
                    task.cancel()
        elif outlet is None:
            return
        elif kind is Body:
            outlet.feed(event.data, ended=event.ended)  # type: ignore[union-attr]
        elif kind is Aborted:
            self._lose(outlet)
        else:
            outlet.exchange.feed_trailers(event.headers)  # type: ignore[union-attr]

    def _begin(self, request: Request) -> None:
        """Hand a request to the application."""
        server = self._server
        limit = server.config.limits.concurrency
        if limit and server.running >= limit:
            server.rejected(self.engine.reject(request.stream, 503, "too many requests at once"))
            return
        if request.upgrade is not None:
            self._begin_socket(request)
            return
        outlet = StreamOutlet(self, request.stream)
        exchange = outlet.exchange = HttpExchange(self.engine, outlet, request)
        self.outlets[request.stream] = outlet
        scope = http_scope(self._base or self._base_scope(), request, self._extensions, server.state)
        if server.proxies is not None:
            server.proxies.apply(scope)
        self._start(exchange, scope)

    def _begin_socket(self, request: Request) -> None:
        """Hand a WebSocket to the application, unless the server refuses it."""
        server = self._server
        try:
            opening = server.judge_handshake(request)
        except HandshakeRefused as refused:
            server.rejected(self.engine.reject(request.stream, refused.status, refused.reason, refused.headers))
            return
        outlet = StreamOutlet(self, request.stream)
        exchange = WebSocketExchange(self.engine, outlet, request, opening, queue_limit=server.config.limits.websocket_queue)
        outlet.exchange = exchange
        self.outlets[request.stream] = outlet
        base = self._base_scope()
        scope = server.socket_scope(base, request, opening, self._extensions.get("tls"))
        server.log_step("CONNECTING", exchange, base["client"])
        self._start(exchange, scope)

    def _start(self, exchange: Exchange, scope: Scope) -> None:
        server = self._server
        server.running += 1
        if server.times_requests:
            exchange.started = monotonic()
            age = server.config.timeouts.connection_age
            if age and exchange.started - self._opened > age:
                self.drain()
        exchange.task = start_task(exchange.run(server.app, scope), server.loop, server.context.copy())

    def _base_scope(self) -> Scope:
        if self._base is None:
            self._base = self._server.base_scope(self.transport)
        return self._base

    def _settle(self, now: float) -> None:
        """End a turn."""
        self.flush()
        if self._ended is OPEN:
            if self.engine.draining:  # the client leaves, or had its share of requests
                self._pace.finish_drain_by(now + _DRAIN_SECONDS)
            self._pace.turn(now, busy=bool(self.engine.streams))

    def flush(self) -> None:
        """Send what may leave, then close if that was all."""
        self._flushing = False
        engine, write = self.engine, self.transport.write
        if self._ended is not OPEN:
            return
        while data := engine.output():
            self._written += len(data)
            write(data)
        sender = engine.sender
        if sender.full:
            self.hold()
        if sender.freed:
            self._wake()
        if engine.ending is not OPEN:
            self._end(engine.ending)

    def flush_soon(self) -> None:
        """Send it with whatever else is said in this turn of the loop."""
        if not self._flushing and not self._in_turn:
            self._flushing = True
            self._server.loop.call_soon(self._flush_later, context=self._server.context)

    def _flush_later(self) -> None:
        if self._ended is OPEN:
            self._settle(monotonic())

    def hold(self) -> None:
        """Note which applications have to wait until the client has read."""
        full = self.engine.sender.full
        for number in full:
            outlet = self.outlets.get(number)
            if outlet is not None:
                outlet.hold()
        full.clear()

    def _wake(self) -> None:
        freed = self.engine.sender.freed
        for number in freed:
            outlet = self.outlets.get(number)
            if outlet is not None:
                outlet.wake()
        freed.clear()

    # ------------------------------------------------------------------ what outlets say

    def finished(self, exchange: Exchange) -> None:
        """A response is complete, or never will be."""
        if self._server.times_requests:
            self._record(exchange)
        self.flush_soon()

    def returned(self, exchange: Exchange) -> None:
        """An application's call is over."""
        self._forget(exchange.request.stream)
        self._server.call_ended(exchange)

    def upgrade(self, exchange: WebSocketExchange, headers: Fields, window_bits: int) -> None:
        """Answer 200 and let a WebSocket's connection have the stream (asgi.websocket.SocketOutlet)."""
        number = exchange.request.stream
        self.engine.upgrade(number, headers)
        transport = StreamTransport(self, number)
        engine = WebSocket(self._server.socket_terms, window_bits)
        socket = SocketConnection(self._server, transport, exchange, engine, self._base_scope()["client"])
        early = self.outlets[number].become(transport, socket)
        self._server.opened_socket(socket)
        self.engine.consumed(number, len(early))
        socket.begin(early, writable=True)
        self.flush_soon()

    def left(self, number: int) -> None:
        """A WebSocket's stream is over; its application counts until it is, too (spec limits L20)."""
        outlet = self.outlets.get(number)
        if outlet is None:
            return
        task = outlet.exchange.task
        if outlet.exchange.running and task is not None:
            self._leave(outlet)
            task.add_done_callback(lambda _: self._forget(number))
        else:
            self._forget(number)

    def _leave(self, outlet: StreamOutlet) -> None:
        """Count a call whose stream is over as if it were not."""
        if not outlet.left:
            outlet.left = True
            self._left += 1

    def _forget(self, number: int) -> None:
        outlet = self.outlets.pop(number, None)
        if outlet is not None:
            self._left -= outlet.left
            del outlet.exchange  # which knows its outlet: a cycle that only the collector would find

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Do something in the loop's next turn, in the server's context."""
        self._server.loop.call_soon(callback, context=self._server.context)

    def _record(self, exchange: Exchange) -> None:
        self._server.record(exchange, self._base["client"] if self._base is not None else None)

    def _lose(self, outlet: StreamOutlet) -> None:
        """A stream will never be complete."""
        exchange = outlet.exchange
        outlet.wake()
        if outlet.transport is not None:  # a socket's connection does the rest
            outlet.transport.lose()
            return
        answered = exchange.done or outlet.left
        exchange.lost()
        if not answered and self._server.times_requests:
            self._record(exchange)
        if exchange.running:
            self._leave(outlet)
            self._server.left_behind(exchange)

    # ------------------------------------------------------------------ ends

    def _end(self, ending: Ending) -> None:
        """Let the connection go, so that the client gets what was said last."""
        if self._ended is not OPEN:
            return
        self._ended = ending
        if ending is RESET:
            self._cut()
        elif ending is LINGER:
            # A close while the client still sends would be a reset that destroys our GOAWAY on its way.
            self._pace.lingering(monotonic())
            if not self.engine.sender.blocked:
                release_producer(self.transport)
                shut_writing(self.transport)
        else:
            self._close()

    def _close(self) -> None:
        self._ended = CLOSE
        self._pace.closing(monotonic())
        if not self.engine.sender.blocked:
            release_producer(self.transport)
        self.transport.loseConnection()

    def _cut(self) -> None:
        self._ended = RESET
        self.transport.abortConnection()

    def drain(self) -> None:
        """Take no more streams; the last response ends the connection."""
        self._pace.hurry()
        if self._ended is OPEN:
            self.engine.drain()
            self._pace.finish_drain_by(monotonic() + _DRAIN_SECONDS)
            self.flush_soon()

    def tell_disconnect(self) -> None:
        """Tell the applications that their time is almost over."""
        for outlet in tuple(self.outlets.values()):
            exchange = outlet.exchange
            if type(exchange) is WebSocketExchange and outlet.transport is None and not exchange.begun and not exchange.done:
                self._refuse_socket(exchange, "the server stops, and there is no verdict on a WebSocket")
            elif outlet.transport is None:
                exchange.tell_disconnect()
        self.finish_drain()

    def _refuse_socket(self, exchange: WebSocketExchange, reason: str) -> None:
        """Answer 503 in the application's place."""
        self._server.rejected(self.engine.reject(exchange.request.stream, 503, reason))
        exchange.status = exchange.status or 503
        self._record(exchange)
        exchange.lost()
        self.flush_soon()

    def abort(self) -> None:
        """End at once."""
        self._cut()

    def exchanges(self) -> list[Exchange]:
        """Give the conversations with applications that go on."""
        return [outlet.exchange for outlet in self.outlets.values() if outlet.transport is None]

    @property
    def leaves(self) -> bool:
        """Whether the end has begun."""
        return self._ended is not OPEN

    @property
    def idle_since(self) -> float | None:
        """The deadline of a connection on which nothing happens, None for any other: who has the earliest has waited longest."""
        return self._pace.deadline if not self.engine.streams and not self.outlets and self._ended is OPEN else None

    # ------------------------------------------------------------------ what its pace says

    def progress(self) -> int:
        """Bytes that the client has taken, as far as it can be known."""
        return self._written - unacknowledged(self.transport)

    def idle_for_too_long(self) -> None:
        """Nothing was asked for: GOAWAY (spec limits L15)."""
        self._fail(ErrorCodes.NO_ERROR, "idle")

    def peer_broke_off(self, code: ErrorCodes, reason: str) -> None:
        """End a connection whose client does not do its part in time (spec limits L12, L32)."""
        self._fail(code, reason)

    def _fail(self, code: ErrorCodes, reason: str) -> None:
        for event in self.engine.close(code, reason):
            if type(event) is Aborted or (code is not ErrorCodes.NO_ERROR and type(event) is Fault):
                self._take(event)
        self.flush()

    def peer_too_slow(self, reason: str) -> None:
        """End at once a connection whose client does not take part any more (spec limits L17, L35)."""
        self._server.cut(reason)
        if self._ended is OPEN:
            self._fail(ErrorCodes.ENHANCE_YOUR_CALM, reason)
        self._cut()

    def stream_too_slow(self, number: int, reason: str) -> None:
        """Reset a stream whose client neither sends nor takes what it should (spec limits L13, L14, L35)."""
        self._server.cut(reason)
        self.give_up(number)

    def give_up(self, number: int) -> None:
        """Reset a stream that its client does not want, or makes nothing of."""
        self.engine.reset(number, ErrorCodes.CANCEL)
        outlet = self.outlets.get(number)
        if outlet is not None:
            self._lose(outlet)
        self.flush_soon()

    def application_too_slow(self, number: int) -> None:
        """Answer 504, or 503 for want of a verdict on a WebSocket, or cut what was begun; cancel the call (spec limits L40, L48)."""
        outlet = self.outlets.get(number)
        if outlet is None:
            return
        exchange = outlet.exchange
        if type(exchange) is WebSocketExchange and not exchange.begun:
            self._refuse_socket(exchange, "the application gave no verdict on a WebSocket in time")
        else:
            if exchange.begun:
                self.engine.reset(number)
            else:
                exchange.status = 504
                self._server.rejected(self.engine.reject(number, 504, "the application took too long"))
            self._lose(outlet)
        if exchange.task is not None:
            exchange.task.cancel()
        self.flush_soon()

    def finish_drain(self) -> None:
        """Take the second step of draining."""
        self.engine.finish_drain()
        self.flush_soon()

    def farewell_over(self) -> None:
        """Close, so that what the client was sent still reaches it; where that was done already, cut (spec limits L17)."""
        if self._ended is not CLOSE:
            self._close()
        elif not isinstance(self.transport, LoopTlsTransport):
            self._server.cut("the peer did not go away")
            self._cut()
        elif unacknowledged(self.transport):  # a plain socket would be the system's by now; this one waits for the client's close alert
            self._pace.write_blocked(monotonic())
        else:
            self.transport.leave()
