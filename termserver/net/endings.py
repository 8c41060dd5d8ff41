"""How a transport is let go, and who waits until it can be written to: what every kind of connection does alike.

The loop's transports can say how much the peer has not taken yet; Twisted's own cannot, and want their producer unregistered before they
close.
"""

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import ISSLTransport

from termserver.net.endpoints import LoopTransport

_CUT_INTERVAL: Final = 0.02  # seconds between two looks whether the client has taken what was sent,
_CUT_LOOKS: Final = 50  # and how many there are before it is cut all the same


def has_handshake_to_come(transport: Any) -> bool:
    """Whether a TLS handshake comes before the first byte: Twisted's TLS transports are there before it, the loop's after."""
    return ISSLTransport.providedBy(transport) and not isinstance(transport, LoopTransport)


def shut_writing(transport: Any) -> None:
    """Shut our side. TLS is not half-closed: there the connection ends, its own close alert first."""
    if ISSLTransport.providedBy(transport):
        transport.loseConnection()
    else:
        transport.loseWriteConnection()


def release_producer(transport: Any) -> None:
    """Let a transport of Twisted's own close: it waits until it has no producer, and forgets what it waited for when it resumes one."""
    if not isinstance(transport, LoopTransport):
        transport.unregisterProducer()


def cut_when_taken(
    transport: Any, loop: asyncio.AbstractEventLoop, context: contextvars.Context, cut: Callable[[], None], looks: int = _CUT_LOOKS
) -> None:
    """Cut once the client has what was sent before, or does not take it: a reset destroys what is still on its way."""
    if looks and unacknowledged(transport):
        loop.call_later(_CUT_INTERVAL, cut_when_taken, transport, loop, context, cut, looks - 1, context=context)
    else:
        cut()


def cut_soon(transport: Any, loop: asyncio.AbstractEventLoop, context: contextvars.Context, cut: Callable[[], None]) -> None:
    """Do the same a moment later: what was just written may still have to leave, where a transport cannot say so."""
    loop.call_later(_CUT_INTERVAL, cut_when_taken, transport, loop, context, cut, context=context)


def unacknowledged(transport: Any) -> int:
    """Bytes that were written and that the client has not taken, as far as the transport knows."""
    count = getattr(transport, "unacknowledged", None)
    return int(count()) if count is not None else 0


class Waiters:
    """Futures that are set when a connection can be written to again, or is lost."""

    __slots__ = ("_futures",)

    def __init__(self) -> None:
        """Nobody waits yet."""
        self._futures: list[asyncio.Future[None]] | None = None

    def add(self, future: "asyncio.Future[None]") -> None:
        """Set the future at the next `wake`."""
        if self._futures is None:
            self._futures = [future]
        else:
            self._futures.append(future)

    def discard(self, future: "asyncio.Future[None]") -> None:
        """Leave the future alone."""
        if self._futures is not None and future in self._futures:
            self._futures.remove(future)

    async def wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for the next `wake`."""
        future = loop.create_future()
        self.add(future)
        try:
            await future
        finally:
            self.discard(future)

    def wake(self) -> None:
        """Let everybody go on."""
        futures, self._futures = self._futures, None
        for future in futures or ():
            if not future.done():
                future.set_result(None)
