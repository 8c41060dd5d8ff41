"""A port that looks at a connection before the loop's transport has it: at TLS, at PROXY headers, at how many an address has open.

It accepts by itself. The loop's own server would take a TLS context once and for all and say nothing of a handshake that fails. Here every
connection gets the contexts in force, so a reload needs no new port; whoever speaks plain HTTP is told so in plain HTTP; and a failed
handshake leaves a line in the log. A PROXY header comes ahead of the handshake, where a transport would have read too far (`net.gate`).
Beside a handshake, what that costs is nothing. A port that has none of this to do is a `LoopPort`.
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

from termserver.net.endpoints import LoopTlsTransport, LoopTransport, twisted_address
from termserver.net.gate import Gate, Visitor, wait_readable
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
class GuardedPort:
    """One listener. Pausing leaves connections to wait in its queue."""

    def __init__(
        self,
        listener: socket.socket,
        factory: IProtocolFactory,
        contexts: Callable[[], Contexts] | None,
        handshake: float,
        gate: Gate | None = None,
    ) -> None:
        """`contexts` gives those in force, None is for plain HTTP; `handshake`: seconds that a client has for it, 0 for any time."""
        self._listener = listener
        self._factory = factory
        self._contexts = contexts
        self._seconds = handshake or _NO_LIMIT
        self._gate = gate
        self._handshakes: dict[asyncio.Task[bool], float] = {}  # what comes ahead of a transport, and when each began, in that order
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
        """Close the port. `finish` is for those who have not finished their handshakes."""
        self.pause()
        self._listener.close()
        self._factory.doStop()
        return succeed(None)

    async def finish(self, seconds: float) -> None:
        """Wait so long for handshakes that go on, then let them go."""
        if self._handshakes:
            await asyncio.wait(self._handshakes, timeout=seconds)
        for handshake in tuple(self._handshakes):
            handshake.cancel()

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
                client, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor, no memory (spec attacks E7)
                self._failures.log(logging.WARNING, "accept", "Cannot accept connections: %s", error.strerror)
                self._shed(_STALLED)
                self._rest(_RETRY)
                return
            visitor = self._gate.knock(address) if self._gate is not None else None
            if visitor is None and self._gate is not None:
                client.close()
                continue
            client.setblocking(False)
            task = loop.create_task(self._admit(client, visitor))
            self._handshakes[task] = loop.time()
            task.add_done_callback(functools.partial(self._over, client, visitor))

    def _shed(self, seconds: float) -> None:
        """Let the handshakes go that have taken so long."""
        before = asyncio.get_running_loop().time() - seconds
        for task, began in self._handshakes.items():
            if began > before:
                return
            if not task.cancelling():
                self._failures.log(logging.INFO, "shed", "A handshake was ended to make room: it took more than %g s", seconds)
                task.cancel()

    def _over(self, client: socket.socket, visitor: Visitor | None, task: "asyncio.Task[bool]") -> None:
        """A handshake is over: the connection is the loop's transport's, or nobody's."""
        del self._handshakes[task]
        if task.cancelled() or not task.result():
            client.close()
            if visitor is not None:
                visitor.leave()

    async def _admit(self, client: socket.socket, visitor: Visitor | None) -> bool:
        """See a connection through what comes ahead of HTTP; answer whether it succeeded."""
        if visitor is not None and not await visitor.introduce(client):
            return False
        with contextlib.suppress(OSError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._contexts is not None:
            return await self._shake_hands(client, self._contexts(), visitor)
        with contextlib.suppress(OSError):  # reset already
            await asyncio.get_running_loop().connect_accepted_socket(lambda: LoopTransport(self._factory, visitor), client)
            return True
        return False

    async def _shake_hands(self, client: socket.socket, contexts: Contexts, visitor: Visitor | None) -> bool:
        try:
            async with asyncio.timeout(self._seconds):
                first = await _first_byte(client)
                if first == _HANDSHAKE:
                    await asyncio.get_running_loop().connect_accepted_socket(
                        lambda: LoopTlsTransport(self._factory, contexts.describe, visitor),
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
    await wait_readable(client)
    data = client.recv(1, socket.MSG_PEEK)
    return data[0] if data else None


def _answer_plainly(client: socket.socket) -> None:
    """Say what is wrong, in the language that was spoken. What was sent is taken in first: a close with bytes unread would be a reset."""
    with contextlib.suppress(OSError):
        client.recv(65_536)
        client.send(_PLAIN_ANSWER)
        client.shutdown(socket.SHUT_WR)
