"""A WebSocket on a connection of its own: bytes in, bytes out, backpressure both ways, the closing handshake on the wire.

It takes over the transport of the HTTP/1 connection on which the handshake was (`begin`), with the bytes that came after it. The engine
says what the bytes mean, the exchange drives the application, the heartbeat keeps time. Memory counts here: thousands of sockets sit idle,
so what the HTTP connection held is let go, and lists and futures are made when they are needed.
"""

import random
import time
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from termserver.asgi.websocket import WebSocketExchange
from termserver.net.endings import Waiters, cut_soon, release_producer, shut_writing, unacknowledged
from termserver.net.endpoints import LoopTlsTransport, LoopTransport
from termserver.net.heartbeat import Heartbeat
from termserver.wire.events import Ending, Fields, Phase, SocketEngine

if TYPE_CHECKING:
    from termserver.net.server import Server

monotonic = time.monotonic

OPEN, CLOSE, LINGER, RESET, _ = Ending
P_OPEN, P_CLOSING, P_DONE, P_FAILED = Phase
_NORMAL: Final = 1000
_INTERNAL_ERROR: Final = 1011


@implementer(IProtocol, IHalfCloseableProtocol, IPushProducer)
class SocketConnection:
    """One WebSocket. Also the `SocketOutlet` of its exchange, from the acceptance on."""

    __slots__ = (
        "_client",
        "_ended",
        "_engine",
        "_exchange",
        "_server",
        "_turn_given",
        "_waiters",
        "_written",
        "heard_at",
        "heartbeat",
        "paused",
        "transport",
        "writable",
    )

    transport: Any  # ITransport, or LoopTransport with more

    def __init__(
        self, server: "Server", transport: Any, exchange: WebSocketExchange, engine: SocketEngine, client: tuple[str, int] | None
    ) -> None:
        """Take over a transport on which the answer to the handshake was written. `client` is for the access log."""
        now = self.heard_at = monotonic()
        self._server = server
        self.transport = transport
        self._exchange = exchange
        self._client = client
        self._engine = engine
        self._waiters = Waiters()
        self._ended = OPEN
        self._written = 0
        self._turn_given = False
        self.paused = False
        self.writable = True
        self.heartbeat = Heartbeat(self, server.config.timeouts, now)

    def begin(self, rest: bytes, *, writable: bool) -> None:
        """Read from now on, `rest` first; `writable`: whether the client keeps up so far."""
        transport = self.transport
        transport.unregisterProducer()
        transport.registerProducer(self, True)
        if isinstance(transport, LoopTransport):
            transport.switch(self)
        if not writable:
            self.pauseProducing()
        self._exchange.opened(self._engine, self)
        self._server.log_step("CONNECT", self._exchange, self._client)
        if rest:
            self.dataReceived(rest)

    # ------------------------------------------------------------------ Twisted calls

    def makeConnection(self, transport: Any) -> None:
        """Twisted's way to begin; here it is `begin`."""

    def connectionMade(self) -> None:
        """Twisted's hook for protocols of its own."""

    def dataReceived(self, data: bytes) -> None:
        """Take bytes of the client."""
        now = self.heard_at = monotonic()
        if self._ended is not OPEN:
            return
        engine = self._engine
        events = engine.receive(data, now)
        if events:
            self._exchange.feed(events)
            if self._exchange.full:
                self._stop_reading()
        if engine.has_input and not self.paused:  # it goes on in the next turn, so that others and the application have theirs
            self._stop_reading()
            self.resume_reading()
        self.flush()

    def readConnectionLost(self) -> None:
        """The client shut its sending side without a closing handshake."""
        if self._ended is OPEN:
            self._exchange.lost()
        self._close()

    def writeConnectionLost(self) -> None:
        """Our side is shut, as was asked for."""

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002 - Twisted's signature
        """The connection is gone."""
        self._ended = RESET
        self.writable = True
        self._waiters.wake()
        exchange, server = self._exchange, self._server
        exchange.lost()
        if server.times_requests:
            server.record(exchange, self._client)
            server.log_step("DISCONNECT", exchange, self._client)
        if exchange.running:
            server.left_behind(exchange)
        server.closed(self, self.heartbeat)

    def pauseProducing(self) -> None:
        """The client does not read as fast as it is sent to. Twisted's transports say so at every write."""
        if not self.writable:
            return
        self.writable = False
        self._engine.holds_pongs = True
        self.heartbeat.write_blocked(monotonic())

    def resumeProducing(self) -> None:
        """It does again."""
        self.writable = True
        self._engine.holds_pongs = False
        self.heartbeat.write_free(monotonic())
        self._waiters.wake()
        if self._ended is OPEN:
            self.flush()
            return
        release_producer(self.transport)
        if self._ended is LINGER:
            shut_writing(self.transport)

    def stopProducing(self) -> None:
        """The transport is about to be lost."""

    # ------------------------------------------------------------------ what the exchange asks for (asgi.websocket.SocketOutlet)

    def flush(self) -> None:
        """Send what the engine has to say, and see to the closing handshake."""
        pieces = self._engine.output()
        if pieces and self._ended is OPEN:
            if len(pieces) == 1:
                data = pieces[0]
                self._written += len(data)
                self.transport.write(data)
            else:
                self._written += sum(map(len, pieces))
                self.transport.writeSequence(pieces)
        if self._engine.phase is not P_OPEN:
            self._go(self._engine.phase)

    def resume_reading(self) -> None:
        """The application took some messages, or takes none any more: read on in the loop's next turn.

        Not at once: an application that reads in a loop would never let go of the loop, as long as the client sends.
        """
        if not self._turn_given:
            self._turn_given = True
            self._server.loop.call_soon(self._read_on, context=self._server.context)

    def _read_on(self) -> None:
        """Read what is held, as far as there is room; when nothing is left, let the transport read again."""
        self._turn_given = False
        if self._ended is not OPEN:
            return
        engine, exchange = self._engine, self._exchange
        if engine.has_input and not (exchange.full and engine.phase is P_OPEN):
            events = engine.receive(b"", monotonic())
            if events:
                exchange.feed(events)
        self.flush()
        if exchange.full and engine.phase is P_OPEN:
            return
        if engine.has_input:
            self.resume_reading()
        elif self.paused and self._ended is OPEN:
            self.paused = exchange.held = False
            self.heard_at = monotonic()  # what lies unread came while we did not look
            self.transport.resumeProducing()

    def _stop_reading(self) -> None:
        if not self.paused:
            self.paused = self._exchange.held = True
            self.transport.pauseProducing()

    def upgrade(self, exchange: WebSocketExchange, headers: Fields, window_bits: int) -> None:
        """Never asked for again: the socket is open."""

    def finished(self, exchange: WebSocketExchange) -> None:
        """Never said: only a refusal finishes."""

    def returned(self, exchange: WebSocketExchange) -> None:
        """The application's call is over."""
        self._server.call_ended(exchange)

    async def wait_writable(self) -> None:
        """Wait until the client has read enough, or is gone."""
        while not self.writable:
            await self._waiters.wait(self._server.loop)

    # ------------------------------------------------------------------ ends

    def _go(self, phase: Phase) -> None:
        """Follow the closing handshake."""
        if self._ended is not OPEN:
            return
        now = monotonic()
        if phase is P_CLOSING:
            self._exchange.closing()
            self.heartbeat.closing(now)
            if self.paused:
                self.resume_reading()
        elif phase is P_DONE:
            self._close()
        else:
            self._server.failed(self._engine.failure)
            self._ended = LINGER
            if self.paused:
                self.paused = False
                self.transport.resumeProducing()
            self.heartbeat.lingering(now)
            if self.writable:
                release_producer(self.transport)
            shut_writing(self.transport)

    def _close(self) -> None:
        self._ended = CLOSE
        self._exchange.closing()
        self.heartbeat.closing(monotonic())
        if self.writable:
            release_producer(self.transport)
        self.transport.loseConnection()

    def _cut(self) -> None:
        self._ended = RESET
        self._exchange.closing()
        self.transport.abortConnection()

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake, for a reason of the server's own."""
        if self._ended is OPEN:
            self._engine.close(code, reason)
            self.flush()

    def drain(self) -> None:
        """The server stops: say goodbye at a moment of the farewell's, so that not all clients come back at once (spec limits L46)."""
        server = self._server
        delay = random.random() * server.farewell_seconds  # noqa: S311 - no secret
        server.loop.call_later(delay, self.close, server.farewell_code, server.farewell_reason, context=server.context)

    def tell_disconnect(self) -> None:
        """The grace period ends: a client that has not answered our Close frame by now is cut, and the application hears of it."""
        self._cut()

    def abort(self) -> None:
        """End at once."""
        self._cut()

    def exchanges(self) -> list[WebSocketExchange]:
        """Give the socket's conversation with the application."""
        return [self._exchange]

    # ------------------------------------------------------------------ what the heartbeat says

    def progress(self) -> int:
        """Bytes that the client has taken, as far as it can be known."""
        return self._written - unacknowledged(self.transport)

    def look_for_departure(self) -> None:
        """We do not read, so we would not hear that the client has left: ask the system."""
        if isinstance(self.transport, LoopTransport) and self.transport.peer_left():
            self._exchange.lost()
            self._cut()

    def ping(self) -> None:
        """Ask the client for a sign of life."""
        self._engine.ping()
        self.flush()

    def peer_silent(self) -> None:
        """Say why, then cut (spec limits L39)."""
        self._server.cut("a WebSocket client did not answer a ping")
        self.close(_INTERNAL_ERROR, "no answer to a ping")
        self._ended = RESET
        cut_soon(self.transport, self._server.loop, self._server.context, self._cut)

    def too_old(self) -> None:
        """Close a socket that has been open for as long as it may be (spec limits L53)."""
        self.close(_NORMAL, "open for too long")

    def peer_too_slow(self, reason: str) -> None:
        """End at once a connection whose peer does not take part any more (spec limits L35)."""
        self._server.cut(reason)
        self._cut()

    def farewell_over(self) -> None:
        """Close, so that what the client was sent still reaches it; where that was done already, cut (spec limits L17, L40)."""
        if self._ended is LINGER:
            self._close()
        elif self._ended is CLOSE and isinstance(self.transport, LoopTlsTransport) and not unacknowledged(self.transport):
            self.transport.leave()  # it has everything, and need not answer our close alert
        else:
            self.peer_too_slow("the peer did not go away")
