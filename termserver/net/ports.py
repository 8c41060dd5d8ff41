"""The ports of a server: every configured address opened, paused, closed.

The loop's transports serve wherever the socket is ours, Twisted's elsewhere.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, ISSLTransport

from termserver.config import Bind, Config, Descriptor, Endpoint, Named, Tcp, Unix
from termserver.errors import ConfigError, ListenError
from termserver.net.endpoints import LoopPort, LoopServerEndpoint
from termserver.net.gate import Gate
from termserver.net.guardedport import GuardedPort
from termserver.net.tls import PROTOCOLS, PROTOCOLS_WITH_HTTP2, Contexts
from termserver.sockets import adopt, bind_tcp, bind_unix, describe, remove_unix

logger = logging.getLogger("termserver")


class Ports:
    """All listening sockets of one server. They are bound when this is made, unless they are given, and accept once it is opened."""

    def __init__(self, config: Config, reactor: Any, listeners: Sequence[socket.socket] | None = None) -> None:
        """Bind. `reactor` serves the Twisted endpoint strings; `listeners` are a supervisor's. Raises `ListenError`."""
        self._backlog = config.limits.backlog
        self._tls = config.tls
        self._handshake = config.timeouts.tls_handshake
        self._protocols = PROTOCOLS_WITH_HTTP2 if config.http2 else PROTOCOLS
        self._contexts = Contexts(config.tls, self._protocols) if config.tls.certificates else None
        self._gate = Gate.of(config)
        self._reactor = reactor
        self._strings = [bind.description for bind in config.bind if isinstance(bind, Endpoint)]
        self._files: list[tuple[str, int]] = []
        self._listeners: list[socket.socket] = []
        self._loop_ports: list[LoopPort | GuardedPort] = []
        self._twisted_ports: list[IListeningPort] = []
        self.paused = False
        if listeners is not None:
            self._listeners += listeners
            return
        try:
            for bind in config.bind:
                self._listeners += self._bind(bind)
        except ListenError:
            self.let_go()
            raise

    def _bind(self, bind: Bind) -> list[socket.socket]:
        match bind:
            case Tcp(host, port):
                return bind_tcp(host, port, self._backlog)
            case Unix(path):
                listener = bind_unix(path, self._backlog)
                self._files.append((path, Path(path).stat().st_ino))
                return [listener]
            case Descriptor(number):
                return [adopt(number, self._backlog)]
            case Named():
                raise ListenError(f"{bind}: no service manager handed it over")
            case Endpoint():
                return []

    async def open(self, factory: IProtocolFactory) -> None:
        """Accept connections for the factory. Raises `ListenError`."""
        for listener in self._listeners:
            secure = self._contexts is not None and listener.family != socket.AF_UNIX
            if secure or self._gate is not None:
                port = GuardedPort(listener, factory, self._contexts_in_force if secure else None, self._handshake, self._gate)
                port.startListening()
                self._loop_ports.append(port)
            else:
                self._loop_ports.append(await LoopServerEndpoint(listener, backlog=self._backlog).open(factory))
            logger.info("Listening on %s%s", describe(listener), " (HTTPS)" if secure else "")
        for description in self._strings:
            logger.info("Configuring endpoint %s", description)
            try:
                twisted_port = await serverFromString(self._reactor, description).listen(factory).asFuture(asyncio.get_running_loop())
            except Exception as error:
                message = f"cannot listen on {description!r}: {error}"
                raise ListenError(message) from error
            self._twisted_ports.append(twisted_port)
            logger.info("Listening on %s", twisted_port.getHost())

    def _contexts_in_force(self) -> Contexts:
        assert self._contexts is not None  # noqa: S101 - for the type checker: only a port that speaks TLS asks
        return self._contexts

    def reload(self) -> None:
        """Read certificates and keys anew. Where they cannot be used, the old ones stay in force, and the log says why."""
        if self._contexts is None:
            logger.info("There are no certificates to reload")
            return
        try:
            self._contexts = Contexts(self._tls, self._protocols)
        except ConfigError as error:
            logger.error("Certificates are not reloaded, the old ones stay in force: %s", error)  # noqa: TRY400 - the line says it
        else:
            logger.info("Certificates are reloaded")

    @property
    def refused(self) -> int:
        """Count the connections that were closed as soon as it was known whose they are."""
        return 0 if self._gate is None else self._gate.refused

    @property
    def addresses(self) -> list[object]:
        """Give the socket names that are listened at."""
        return [listener.getsockname() for listener in self._listeners]

    def pause(self) -> None:
        """Accept no more for now: connections wait in the sockets' queues."""
        if not self.paused:
            self.paused = True
            for port in self._loop_ports:
                port.pause()
            for port in self._twisted_ports:
                port.stopReading()

    def resume(self) -> None:
        """Accept again."""
        if self.paused:
            self.paused = False
            for port in self._loop_ports:
                port.startListening()
            for port in self._twisted_ports:
                port.startReading()

    async def close(self, grace: float = 0.0) -> None:
        """Close every port. Handshakes that go on have `grace` seconds."""
        for port in self._loop_ports:
            port.stopListening()
        for port in self._twisted_ports:
            stopped = port.stopListening()
            if stopped is not None:
                await stopped.asFuture(asyncio.get_running_loop())
        self.let_go()
        await asyncio.gather(*[port.finish(grace) for port in self._loop_ports if isinstance(port, GuardedPort)])

    def let_go(self) -> None:
        """Give back what was bound."""
        for path, inode in self._files:
            remove_unix(path, inode)
        for listener in self._listeners:
            listener.close()


def connection_facts(transport: Any) -> tuple[str, tuple[str, int] | None, tuple[str, int | None] | None]:
    """Give scheme, client and server of a connection, as ASGI wants them."""
    scheme = "https" if ISSLTransport.providedBy(transport) else "http"
    peer, host = transport.getPeer(), transport.getHost()
    client = None if isinstance(peer, UNIXAddress) or not hasattr(peer, "port") else (peer.host, peer.port)
    if isinstance(host, UNIXAddress):
        return scheme, client, (os.fsdecode(host.name), None) if host.name else None
    return scheme, client, (host.host, host.port)
