"""A listening socket that speaks TLS: accepts by itself, looks at the first byte, then hands over to the loop's TLS transport.

The loop's own server would take a TLS context once and for all and say nothing of a handshake that fails. Here every connection gets the
contexts in force, so a reload needs no new port; whoever speaks plain HTTP is told so in plain HTTP; and a failed handshake leaves a line
in the log. Beside a handshake, what that costs is nothing.
"""

import asyncio
import contextlib
import functools
import logging
import resource
import socket
import ssl
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory
from zope.interface import implementer

from termserver.net.endpoints import LoopTlsTransport, twisted_address
from termserver.net.tls import Contexts
from termserver.observe.log import RateLimited

logger = logging.getLogger("termserver")

_HANDSHAKE: Final = 0x16  # the first byte of a ClientHello (RFC 8446 §5.1)
_ACCEPTS: Final = 64  # connections taken at a time, so that those that are there get their turn
_RETRY: Final = 0.1  # seconds after the system had no descriptor or memory for a connection
_NO_LIMIT: Final = 86_400.0
_MOST_HANDSHAKES: Final = 1_024  # at a time, less where few files may be open; with so many, the next connections wait,
_STALLED: Final = 1.0  # and those that have taken so many seconds make room (spec attacks E4)
_FULL_PAUSE: Final = 0.01
_PLAIN_ANSWER: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 23\r\nconnection: close\r\n\r\nThis port speaks HTTPS\n"
)


@implementer(IListeningPort)
class TlsPort:
    """One listener. Pausing leaves connections to wait in its queue."""

    def __init__(self, listener: socket.socket, factory: IProtocolFactory, contexts: Callable[[], Contexts], handshake: float) -> None:
        """`contexts` gives those in force; `handshake`: seconds that a client has for it, 0 for any time."""
        self._listener = listener
        self._factory = factory
        self._contexts = contexts
        self._seconds = handshake or _NO_LIMIT
        self._handshakes: dict[asyncio.Task[bool], float] = {}  # and when each began, in that order
        self._most = _most_handshakes()
        self._accepting = False
        self._retry: asyncio.TimerHandle | None = None
        self._failures = RateLimited(logger)

    def startListening(self) -> None:
        """Accept connections."""
        if not self._accepting:
            self._accepting = True
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def pause(self) -> None:
        """Accept no more for now."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._accepting:
            self._accepting = False
            asyncio.get_running_loop().remove_reader(self._listener)

    def _rest(self, seconds: float) -> None:
        """Accept no more for so long."""
        self.pause()
        self._retry = asyncio.get_running_loop().call_later(seconds, self.startListening)

    def stopListening(self) -> Deferred[None]:
        """Close the port. Whoever has not finished its handshake is let go."""
        self.pause()
        for handshake in tuple(self._handshakes):
            handshake.cancel()
        self._listener.close()
        self._factory.doStop()
        return succeed(None)

    def getHost(self) -> IAddress:
        """Give the address that is listened at."""
        return twisted_address(self._listener.getsockname())

    def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(_ACCEPTS):
            if len(self._handshakes) >= self._most:
                self._shed(_STALLED)
                self._rest(_FULL_PAUSE)
                return
            try:
                client, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor, no memory (spec attacks E7)
                self._failures.log(logging.WARNING, "accept", "Cannot accept connections: %s", error.strerror)
                self._shed(_STALLED)
                self._rest(_RETRY)
                return
            client.setblocking(False)
            task = loop.create_task(self._admit(client))
            self._handshakes[task] = loop.time()
            task.add_done_callback(functools.partial(self._over, client))

    def _shed(self, seconds: float) -> None:
        """Let the handshakes go that have taken so long."""
        before = asyncio.get_running_loop().time() - seconds
        for task, began in self._handshakes.items():
            if began > before:
                return
            if not task.cancelling():
                self._failures.log(logging.INFO, "shed", "A TLS handshake was ended to make room: it took more than %g s", seconds)
                task.cancel()

    def _over(self, client: socket.socket, task: "asyncio.Task[bool]") -> None:
        """A handshake is over: the connection is the loop's transport's, or nobody's."""
        del self._handshakes[task]
        if task.cancelled() or not task.result():
            client.close()

    async def _admit(self, client: socket.socket) -> bool:
        """See a connection through its handshake; answer whether it succeeded."""
        loop = asyncio.get_running_loop()
        contexts = self._contexts()
        try:
            async with asyncio.timeout(self._seconds):
                first = await _first_byte(client)
                if first == _HANDSHAKE:
                    with contextlib.suppress(OSError):
                        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    await loop.connect_accepted_socket(
                        lambda: LoopTlsTransport(self._factory, contexts.describe),
                        client,
                        ssl=contexts.default,
                        ssl_handshake_timeout=self._seconds,
                        ssl_shutdown_timeout=_NO_LIMIT,  # `net.pace` watches how it ends
                    )
                    return True
                if first is not None:
                    self._failures.log(logging.INFO, "plain", "Plain HTTP came to a port that speaks HTTPS: answered 400")
                    _answer_plainly(client)
        except TimeoutError:
            self._failures.log(logging.INFO, "slow", "A TLS handshake took too long")
        except (OSError, ssl.CertificateError) as error:
            said = getattr(error, "verify_message", None) or getattr(error, "reason", None) or error.strerror
            reason = said or str(error) or "the client left"
            self._failures.log(logging.INFO, reason, "A TLS handshake failed: %s", reason)
        return False


def _most_handshakes() -> int:
    """Half of the descriptors that connections leave to others (`server.default_capacity`)."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_HANDSHAKES if files == resource.RLIM_INFINITY else max(16, min(_MOST_HANDSHAKES, files // 16))


async def _first_byte(client: socket.socket) -> int | None:
    """Wait for the first byte and leave it where it is; None at the end."""
    loop = asyncio.get_running_loop()
    readable = loop.create_future()

    def note() -> None:
        if not readable.done():  # it may have been cancelled in this very turn
            readable.set_result(None)

    loop.add_reader(client, note)
    try:
        await readable
    finally:
        loop.remove_reader(client)
    data = client.recv(1, socket.MSG_PEEK)
    return data[0] if data else None


def _answer_plainly(client: socket.socket) -> None:
    """Say what is wrong, in the language that was spoken. What was sent is taken in first: a close with bytes unread would be a reset."""
    with contextlib.suppress(OSError):
        client.recv(65_536)
        client.send(_PLAIN_ANSWER)
        client.shutdown(socket.SHUT_WR)
