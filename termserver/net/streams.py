"""A stream of an HTTP/2 connection, as exchanges and WebSockets see it."""

import asyncio
from typing import TYPE_CHECKING, Any, Final

from h2.errors import ErrorCodes
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer, ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

from termserver.asgi.http import HttpExchange
from termserver.asgi.websocket import WebSocketExchange
from termserver.net.endings import Waiters
from termserver.wire.events import Fields

if TYPE_CHECKING:
    from termserver.net.http2 import Http2Connection
    from termserver.net.websocket import SocketConnection

_DONE: Final = Failure(ConnectionDone())


class StreamOutlet:
    """What the exchange of one stream asks of its connection: `Outlet` and `SocketOutlet`."""

    __slots__ = ("_connection", "_early", "_number", "_waiters", "exchange", "left", "transport", "writable")

    sends_files = False
    exchange: HttpExchange | WebSocketExchange

    def __init__(self, connection: "Http2Connection", number: int) -> None:
        """`exchange` is set right after it."""
        self._connection = connection
        self._number = number
        self._waiters: Waiters | None = None
        self._early: list[bytes] = []  # frames of a WebSocket that came before the verdict: no more than the stream's window
        self.left = False  # the client reset the stream, and the application goes on
        self.transport: StreamTransport | None = None  # of a WebSocket that was accepted
        self.writable = True

    def flush(self) -> None:
        """Send what the engine has to say."""
        connection = self._connection
        if connection.engine.sender.full:
            connection.hold()
        connection.flush_soon()

    def finished(self, exchange: Any) -> None:
        """The response is complete, or never will be."""
        connection = self._connection
        if connection.engine.sender.full:
            connection.hold()
        connection.finished(exchange)

    def returned(self, exchange: Any) -> None:
        """The application's call is over."""
        self._connection.returned(exchange)

    def resume_reading(self) -> None:
        """The application took some of the body: its window goes back to the client."""
        if self._connection.engine.sender.has_output:
            self._connection.flush_soon()

    def upgrade(self, exchange: WebSocketExchange, headers: Fields, window_bits: int) -> None:
        """Let the WebSocket begin."""
        self._connection.upgrade(exchange, headers, window_bits)

    def become(self, transport: "StreamTransport", socket: "SocketConnection") -> bytes:
        """From now on the stream is a WebSocket's; give the bytes that came before."""
        self.transport = transport
        transport.protocol = socket
        early, self._early = b"".join(self._early), []
        return early

    def feed(self, data: bytes, *, ended: bool) -> None:
        """Take bytes of the stream."""
        if self.transport is not None:
            self.transport.feed(data, ended=ended)
        elif isinstance(self.exchange, HttpExchange):
            self.exchange.feed(data, ended=ended)
        elif ended:  # a WebSocket that is given up before the verdict
            self._connection.give_up(self._number)
        else:
            self._early.append(data)

    def hold(self) -> None:
        """What the client has not taken is too much."""
        if self.transport is not None:
            self.transport.hold()
        else:
            self.writable = False

    def wake(self) -> None:
        """It is not any more, or never will be taken."""
        self.writable = True
        if self.transport is not None:
            self.transport.release()
        if self._waiters is not None:
            self._waiters.wake()

    async def wait_writable(self) -> None:
        """Wait until the client has read enough, or is gone."""
        if self._waiters is None:
            self._waiters = Waiters()
        while not self.writable:
            await self._waiters.wait(asyncio.get_running_loop())

    def begin_file(self, size: int, *, more: bool) -> bool:
        """Say that there is no way past the engine: `sends_files` is False."""
        raise NotImplementedError("HTTP/2 frames every byte")

    def end_file(self, size: int) -> None:
        """Say the same."""
        raise NotImplementedError("HTTP/2 frames every byte")

    async def send_file(self, descriptor: int, offset: int, count: int) -> int:
        """Say the same."""
        raise NotImplementedError("HTTP/2 frames every byte")


@implementer(ITransport, IPushProducer)
class StreamTransport:
    """A stream as a transport: what `SocketConnection` writes is DATA, closing is END_STREAM, aborting RST_STREAM (RFC 8441 §5)."""

    __slots__ = ("_connection", "_ended", "_held", "_lost", "_number", "_paused", "_producer", "_shut", "disconnecting", "protocol")

    protocol: "SocketConnection"

    def __init__(self, connection: "Http2Connection", number: int) -> None:
        """`protocol` is set before the first byte comes."""
        self._connection = connection
        self._number = number
        self._producer: IPushProducer | None = None
        self._held: list[bytes] = []  # came while nobody reads; no more than the stream's window
        self._paused = self._ended = self._shut = self._lost = False
        self.disconnecting = False

    # what the connection says

    def feed(self, data: bytes, *, ended: bool) -> None:
        """Take bytes of the client."""
        self._ended = self._ended or ended
        if self._paused:
            self._held.append(data)
        else:
            self._deliver(data)

    def _deliver(self, data: bytes) -> None:
        if data:
            self._connection.engine.consumed(self._number, len(data))
            self.protocol.dataReceived(data)
        if self._ended and not self._paused and not self._lost:
            self.protocol.readConnectionLost()

    def hold(self) -> None:
        """What the client has not taken is too much."""
        if self._producer is not None:
            self._producer.pauseProducing()

    def release(self) -> None:
        """It is not any more."""
        if self._producer is not None and not self._lost:
            self._producer.resumeProducing()

    def lose(self) -> None:
        """The stream is over."""
        if not self._lost:
            self._lost = True
            self._producer = None
            self.protocol.connectionLost(_DONE)
            self._connection.left(self._number)

    # what the protocol says: Twisted's names

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if not self._shut:
            self._connection.engine.write(self._number, data, True)
            self._say()

    def writeSequence(self, data: Any) -> None:
        """Send several pieces."""
        self.write(b"".join(data))

    def _say(self) -> None:
        if self._connection.engine.sender.full:
            self._connection.hold()
        self._connection.flush_soon()

    def loseWriteConnection(self) -> None:
        """End our side once everything is sent."""
        if not self._shut:
            self._shut = True
            self._connection.engine.write(self._number, b"", False)
            self._connection.flush_soon()
            self._lose_soon()  # nothing more will come: what the client still sends is not wanted

    def loseConnection(self, _reason: object = None) -> None:
        """End the stream once everything is sent."""
        self.disconnecting = True
        self.loseWriteConnection()

    def abortConnection(self) -> None:
        """End the stream at once."""
        self.disconnecting = self._shut = True
        self._connection.engine.reset(self._number, ErrorCodes.CANCEL)
        self._connection.flush_soon()
        self._lose_soon()

    def _lose_soon(self) -> None:
        self._connection.call_soon(self.lose)

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:  # noqa: FBT001, ARG002 - Twisted's signature
        """Have `producer` told when to stop writing and when to go on."""
        self._producer = producer

    def unregisterProducer(self) -> None:
        """Tell it no more."""
        self._producer = None

    def pauseProducing(self) -> None:
        """Stop reading: the window stays shut."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Read on."""
        self._paused = False
        held, self._held = self._held, []
        if held or self._ended:
            self._deliver(b"".join(held))
            self._connection.flush_soon()

    def stopProducing(self) -> None:
        """Close."""
        self.loseConnection()

    def getPeer(self) -> IPv4Address:
        """Give the client's address."""
        return self._connection.transport.getPeer()

    def getHost(self) -> IPv4Address:
        """Give our side's address."""
        return self._connection.transport.getHost()

    def unacknowledged(self) -> int:
        """Bytes that the client has not let us send."""
        return self._connection.engine.unsent(self._number)
