"""LoopServerEndpoint: a Twisted `IStreamServerEndpoint` over the event loop's own transports, and Twisted's endpoint strings.

Twisted's own TCP transport costs 25 µs a request under an asyncio reactor; the loop's own costs 5. So `listen(factory)` asks the loop for
a server, and `LoopTransport`, a thin asyncio protocol, hands the loop's transport to the Twisted protocol as `ITransport`. Per read it adds
nothing: in `connection_made` it takes the Twisted protocol's `dataReceived` for its own `data_received` and calls
`transport.set_protocol(self)`, upon which uvloop looks the method up again. Writing is the loop transport's bound `write`.
"""

import asyncio
import fcntl
import functools
import socket
import ssl
import struct
import sys
import termios
from collections.abc import Callable
from typing import Any, Final, cast

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IListeningPort,
    IProtocolFactory,
    IPushProducer,
    ISSLTransport,
    IStreamServerEndpoint,
    ITransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from termserver.net.gate import Visitor

_DONE: Final = Failure(ConnectionDone())
_NO_LINGER: Final = struct.pack("ii", 1, 0)
_INT: Final = struct.Struct("i")
_TCP_INFO: Final[int | None] = getattr(socket, "TCP_INFO", None)
_TCP_CLOSE, _TCP_CLOSE_WAIT = 7, 8  # Linux's states of a connection that is over, and of one whose peer has shut its side
_RETRY: Final = 0.1  # seconds after a listener could not be opened again
_PIECE: Final = 16_384  # bytes: a TLS record holds no more (RFC 8446 §5.1)


def twisted_address(name: object) -> IAddress:
    """Give Twisted's form of a socket name."""
    if isinstance(name, tuple):
        kind = IPv6Address if ":" in name[0] else IPv4Address
        return cast("IAddress", kind("TCP", name[0], name[1]))
    return cast("IAddress", UNIXAddress(name or None))


@implementer(ITransport, IPushProducer)
class LoopTransport(asyncio.Protocol):
    """One connection: the loop's transport on one side, a Twisted protocol on the other."""

    __slots__ = (
        "_half_closeable",
        "_host",
        "_loop_transport",
        "_lost",
        "_peer",
        "_producer",
        "_protocol",
        "_visitor",
        "data_received",
        "disconnecting",
        "factory",
        "write",
    )

    sends_files = True  # `net.sendfile` can put a file on the wire past the transport

    def __init__(self, factory: IProtocolFactory, visitor: Visitor | None = None) -> None:
        """`factory` is asked for the protocol when the connection is there; `visitor` is whom a gate let in."""
        self.factory = factory
        self._visitor = visitor
        self.disconnecting = False
        self._lost = False
        self._producer: IPushProducer | None = None

    # what the loop says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask the factory for a protocol and step out of the way of its bytes."""
        loop_transport = self._loop_transport = cast("asyncio.Transport", transport)
        self.write = self._writer(loop_transport)
        self._protocol = None
        visitor = self._visitor
        if visitor is not None and visitor.peer is not None:
            peer, host = visitor.peer, visitor.host
        else:
            peer, host = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        if not isinstance(peer, tuple) and not self._is_unix():  # reset already: a client without an address is nobody
            self.abortConnection()
            return
        # Trap: asked for later, the names of a connection that was reset are None, which must not look like a Unix socket's.
        # They are kept as the loop gives them: Twisted's objects for them are large, and thousands of connections sit idle.
        self._peer, self._host = peer, host
        protocol: Any = self._build(peer)
        if protocol is None:
            self.abortConnection()
            return
        self._protocol = protocol  # it may be lost before it is made
        protocol.makeConnection(self)
        self.switch(protocol)

    def _build(self, peer: object) -> Any:
        return self.factory.buildProtocol(twisted_address(peer))

    def _writer(self, loop_transport: asyncio.Transport) -> Callable[[Any], None]:
        return loop_transport.write

    def switch(self, protocol: Any) -> None:
        """Hand the connection to another Twisted protocol, as in `connection_made`."""
        self._protocol = protocol
        self._half_closeable = IHalfCloseableProtocol.providedBy(protocol)
        self.data_received = protocol.dataReceived  # type: ignore[method-assign]
        self._loop_transport.set_protocol(self)

    def eof_received(self) -> bool:
        """Tell a protocol that knows half-closed connections; close for any other."""
        if self._protocol is None or not self._half_closeable:
            return False
        self._protocol.readConnectionLost()
        return not self._loop_transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass the end on."""
        self._lost = True
        if self._visitor is not None:
            self._visitor.leave()
        if self._protocol is not None:
            self._protocol.connectionLost(_DONE if exc is None else Failure(ConnectionLost(str(exc))))
            self._protocol = None
        self._producer = None

    def pause_writing(self) -> None:
        """The peer does not keep up."""
        if self._producer is not None:
            self._producer.pauseProducing()

    def resume_writing(self) -> None:
        """It does again."""
        if self._producer is not None:
            self._producer.resumeProducing()

    # what the protocol says: Twisted's names

    def writeSequence(self, data: Any) -> None:
        """Write several pieces.

        Trap: asyncio's `writelines` neither pauses its protocol (CVE-2024-12254) nor looks whether the connection is still there.
        """
        if isinstance(self._loop_transport, asyncio.Transport):
            if not self._loop_transport.is_closing():
                self._loop_transport.write(b"".join(data))
        else:
            self._loop_transport.writelines(data)

    def loseConnection(self, _reason: object = None) -> None:
        """Close once everything is written."""
        self.disconnecting = True
        self._loop_transport.close()

    def abortConnection(self) -> None:
        """End the connection at once, so that the peer sees it was cut (RST)."""
        self.disconnecting = True
        handle = self.getHandle()
        if handle is not None and not self._lost:  # once it is lost, its descriptor may be another connection's
            set_no_linger(handle)
        self._loop_transport.abort()

    def loseWriteConnection(self) -> None:
        """Shut our side once everything is written."""
        if self._loop_transport.can_write_eof() and not self._loop_transport.is_closing():
            self._loop_transport.write_eof()

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:  # noqa: FBT001 - Twisted's signature
        """Have `producer` told when to stop writing and when to go on."""
        if not streaming:
            message = "only streaming (push) producers are served"
            raise ValueError(message)
        self._producer = producer

    def unregisterProducer(self) -> None:
        """Tell it no more."""
        self._producer = None

    def pauseProducing(self) -> None:
        """Stop reading."""
        if not self._loop_transport.is_closing():
            self._loop_transport.pause_reading()

    def resumeProducing(self) -> None:
        """Read on."""
        if not self._loop_transport.is_closing():
            self._loop_transport.resume_reading()

    def stopProducing(self) -> None:
        """Close."""
        self.loseConnection()

    def getPeer(self) -> IAddress:
        """Give the client's address."""
        return twisted_address(self._peer)

    def getHost(self) -> IAddress:
        """Give our side's address."""
        return twisted_address(self._host)

    def _is_unix(self) -> bool:
        handle = self.getHandle()
        return handle is not None and handle.family == socket.AF_UNIX

    def getHandle(self) -> socket.socket | None:
        """Give the socket, or what stands for it."""
        return cast("socket.socket | None", self._loop_transport.get_extra_info("socket"))

    # beyond ITransport: what the loop's transports can do and Twisted's cannot

    def unsent(self) -> int:
        """Bytes that were written and wait in this process."""
        return self._loop_transport.get_write_buffer_size()

    def unacknowledged(self) -> int:
        """Bytes that were written and that the peer's side has not taken: what waits here, and in the system's own buffer."""
        waiting, handle = self._loop_transport.get_write_buffer_size(), self.getHandle()
        if handle is None or self._lost or handle.family == socket.AF_UNIX:
            return waiting
        try:
            queued = fcntl.ioctl(handle.fileno(), termios.TIOCOUTQ, bytes(_INT.size))
        except OSError:  # not known on this system
            return waiting
        return waiting + int(_INT.unpack(queued)[0])

    def was_reset(self) -> bool:
        """Whether the peer has reset the connection, which nobody reads any more since it shut its side. False where it is not known."""
        return self._tcp_state() == _TCP_CLOSE

    def peer_left(self) -> bool:
        """Whether the peer has shut its side or reset the connection while nobody reads it. False where it is not known."""
        return self._tcp_state() in {_TCP_CLOSE, _TCP_CLOSE_WAIT}

    def _tcp_state(self) -> int:
        handle = self.getHandle()
        if _TCP_INFO is None or handle is None or self._lost or handle.family == socket.AF_UNIX:
            return 0
        return handle.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)[0]

    def set_buffer_limits(self, high: int, low: int) -> None:
        """Say at how many unsent bytes the producer is paused and resumed."""
        if not self._loop_transport.is_closing():
            self._loop_transport.set_write_buffer_limits(high=high, low=low)


@implementer(ISSLTransport)
class LoopTlsTransport(LoopTransport):
    """A connection through the loop's TLS transport. It is there once the handshake is over."""

    __slots__ = ("_describe",)

    sends_files = False

    def __init__(
        self, factory: IProtocolFactory, describe: Callable[[ssl.SSLObject], dict[str, object]], visitor: Visitor | None = None
    ) -> None:
        """`describe` gives the ASGI `tls` extension."""
        super().__init__(factory, visitor)
        self._describe = describe

    def _build(self, peer: object) -> Any:
        """Ask for the protocol that was agreed upon (ALPN)."""
        protocol = super()._build(peer)
        agreed = self._loop_transport.get_extra_info("ssl_object").selected_alpn_protocol()
        return cast("Any", self.factory).build_http2() if agreed == "h2" and protocol is not None else protocol

    def _writer(self, loop_transport: asyncio.Transport) -> Callable[[Any], None]:
        return functools.partial(_write_in_pieces, loop_transport.write)

    def writeSequence(self, data: Any) -> None:
        """Write several pieces."""
        for each in data:
            self.write(each)

    def tls_facts(self) -> dict[str, object]:
        """Give the ASGI `tls` extension of this connection."""
        return self._describe(self._loop_transport.get_extra_info("ssl_object"))

    def is_weak(self) -> bool:
        """Whether HTTP/2 must not be spoken with this cipher suite (RFC 9113 §9.2.2): no forward secrecy, or no AEAD."""
        name, version, _ = self._loop_transport.get_extra_info("cipher")
        return version != "TLSv1.3" and not ("DHE-" in name and any(mode in name for mode in ("GCM", "CHACHA20", "CCM")))

    def getPeerCertificate(self) -> object:
        """Give the client's certificate as `ssl` describes it, or None."""
        return self._loop_transport.get_extra_info("peercert")

    def leave(self) -> None:
        """End without the peer's close alert: ours was sent, and it need not answer (RFC 8446 §6.1)."""
        self._loop_transport.abort()

    def eof_received(self) -> bool:
        """Close: TLS is not half-closed here."""
        return False


def _write_in_pieces(write: Callable[[Any], None], data: Any) -> None:
    """Trap: what the loop's TLS transport passes on to the one below it counts as sent, however much it is.

    In pieces, it notices when the lower one is full, and counts the rest: `send()` waits, and the client is watched.
    """
    if len(data) <= _PIECE:
        write(data)
        return
    view = memoryview(data)
    for start in range(0, len(view), _PIECE):
        write(view[start : start + _PIECE])


def set_no_linger(handle: socket.socket) -> None:
    """Make the next close of the socket a reset."""
    if handle.family != socket.AF_UNIX:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


@implementer(IListeningPort)
class LoopPort:
    """A listening socket. Pausing leaves connections to wait in the socket's own queue."""

    def __init__(self, listener: socket.socket, factory: IProtocolFactory, backlog: int) -> None:
        """The listener is ours to close."""
        self._listener = listener
        self._factory = factory
        self._backlog = backlog
        self._server: asyncio.Server | None = None
        self._resuming: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Accept connections."""
        if self._server is not None:
            return
        loop = asyncio.get_running_loop()
        make: Any = loop.create_server
        options: dict[str, object] = {}
        if self._listener.family == socket.AF_UNIX:
            make = loop.create_unix_server
            if sys.version_info >= (3, 13):
                options["cleanup_socket"] = False  # a pause must not remove the socket's file
        listener = self._listener.dup()  # the loop closes what it is given; ours stays, and with it the queue
        self._server = await make(lambda: LoopTransport(self._factory), sock=listener, backlog=self._backlog, **options)

    def pause(self) -> None:
        """Accept no more for now."""
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None
        if self._server is not None:
            self._server.close()
            self._server = None

    def startListening(self) -> None:
        """Begin: Twisted's name for it."""
        if self._resuming is None:
            self._resuming = asyncio.get_running_loop().create_task(self._resume())

    async def _resume(self) -> None:
        """Accept connections as soon as there is a descriptor to do it with."""
        while self._server is None:
            try:
                await self.open()
            except OSError:
                await asyncio.sleep(_RETRY)

    def stopListening(self) -> Deferred[None]:
        """Close the port."""
        self.pause()
        self._listener.close()
        self._factory.doStop()
        return succeed(None)

    def getHost(self) -> IAddress:
        """Give the address that is listened at."""
        return twisted_address(self._listener.getsockname())


@implementer(IStreamServerEndpoint)
class LoopServerEndpoint:
    """Listens with a bound socket on the running event loop."""

    def __init__(self, listener: socket.socket, *, backlog: int = 2_048) -> None:
        """`listener`: a bound stream socket, TCP or Unix."""
        self._listener = listener
        self._backlog = backlog

    def listen(self, factory: IProtocolFactory) -> Deferred[LoopPort]:
        """Accept connections for the factory's protocols."""
        return Deferred.fromFuture(asyncio.ensure_future(self.open(factory)))

    async def open(self, factory: IProtocolFactory) -> LoopPort:
        """Do the same for who awaits."""
        factory.doStart()
        port = LoopPort(self._listener, factory, self._backlog)
        await port.open()
        return port
