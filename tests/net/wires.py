"""Transports of both kinds without sockets: the loop's, under a real LoopTransport, and one like Twisted's own TCP transport.

A test says what the network does (`receive`, `shut`, `block`, `lose`) and sees what was done to the transport (`calls`) and what the
client has been sent (`sent`). With `goes` a transport that was closed or aborted is gone in the loop's next turn, as a real one is.
"""

import asyncio
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from termserver.net.endpoints import LoopTransport

CLIENT = ("192.0.2.1", 50_000)
SERVER = ("192.0.2.2", 80)


class LoopWire(asyncio.Transport):
    """The loop's transport, in the place of a socket's."""

    def __init__(self, factory: Any = None, *, goes: bool = False) -> None:
        super().__init__({"peername": CLIENT, "sockname": SERVER})
        self.sent = bytearray()
        self.calls: list[str] = []
        self.reading = True
        self.waiting = 0  # bytes that the client has not taken
        self.goes = goes
        self._gone = self._closing = False
        self.transport = LoopTransport(factory or Factory.forProtocol(Protocol))
        self.transport.connection_made(self)

    # what the network does

    def receive(self, data: bytes) -> None:
        _must(self.reading and not self._closing, "a transport that reads")
        self.transport.data_received(data)

    def shut(self) -> None:
        if not self.transport.eof_received():
            self.close()

    def block(self) -> None:
        self.transport.pause_writing()

    def unblock(self) -> None:
        self.waiting = 0
        self.transport.resume_writing()
        if self._closing:
            self._go()

    def lose(self) -> None:
        if not self._gone:
            self._gone = True
            self.transport.connection_lost(None)

    # what LoopTransport asks for

    def write(self, data: bytes) -> None:  # type: ignore[override]
        if not self._closing:
            self.sent += data

    def writelines(self, list_of_data: Any) -> None:
        for data in list_of_data:
            self.write(data)

    def write_eof(self) -> None:
        self.calls.append("shut")

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        if not self._closing:
            self.calls.append("close")
            self._closing, self.reading = True, False
            if not self.waiting:
                self._go()

    def abort(self) -> None:
        self.calls.append("abort")
        self._closing = True
        self._go()

    def _go(self) -> None:
        if self.goes:
            asyncio.get_running_loop().call_soon(self.lose)

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass


class TwistedWire(StringTransport):
    """A transport of Twisted's: while it has a producer, it does not close (twisted.internet.abstract.FileDescriptor)."""

    def __init__(self, factory: Any = None, *, goes: bool = False) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.reading = True
        self.waiting = 0
        self.goes = goes
        self._gone = self._closing = False
        self.transport = self
        self._protocol: Any = (factory or Factory.forProtocol(Protocol)).buildProtocol(self.getPeer())
        self._protocol.makeConnection(self)

    @property
    def sent(self) -> bytes:
        return self.value()  # type: ignore[no-any-return]

    def receive(self, data: bytes) -> None:
        _must(self.reading and not self._closing, "a transport that reads")
        self._protocol.dataReceived(data)

    def shut(self) -> None:
        self._protocol.readConnectionLost()

    def block(self) -> None:
        self.producer.pauseProducing()

    def unblock(self) -> None:
        self.waiting = 0
        self.producer.resumeProducing()
        self._go_if_free()

    def lose(self) -> None:
        if not self._gone:
            self._gone = True
            self._protocol.connectionLost(Failure(ConnectionDone()))

    # what a protocol asks for

    def loseConnection(self) -> None:
        if not self._closing:
            self.calls.append("close")
            self._closing, self.reading = True, False
            self._go_if_free()

    def loseWriteConnection(self) -> None:
        self.calls.append("shut")

    def abortConnection(self) -> None:
        self.calls.append("abort")
        self._go()

    def unregisterProducer(self) -> None:
        self.producer = None
        self._go_if_free()

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = not self._closing

    def _go_if_free(self) -> None:
        if self._closing and self.producer is None and not self.waiting:
            self._go()

    def _go(self) -> None:
        if self.goes:
            asyncio.get_running_loop().call_soon(self.lose)


Wire = LoopWire | TwistedWire


def _must(right: bool, what: str) -> None:
    if not right:  # `assert` would be gone under -O
        message = f"expected {what}"
        raise AssertionError(message)
