"""One port behind a gate: a protocol that tells whose connection it is, and clients that come from addresses of their choice."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Self

import pytest
from twisted.internet.protocol import Factory, Protocol

from certificates import Authority, Pair
from termserver.config import Bind, Config, Proxy, Tcp, Tls
from termserver.net.gate import Gate
from termserver.net.ports import Ports, connection_facts

LINE = b"PROXY TCP4 192.0.2.7 198.51.100.9 40000 443\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
BLOCK = SIGNATURE + b"\x21\x11\0\x0c" + bytes([192, 0, 2, 7, 198, 51, 100, 9]) + struct.pack("!HH", 40_000, 443)
LOCAL = SIGNATURE + b"\x20\0\0\0"
TRUSTING = Proxy(protocol=True)  # loopback and Unix sockets
SECONDS = 15.0
Run = Callable[[Awaitable[None]], None]


def run_on(loop_factory: Any) -> Run:
    """Give what runs a test on such a loop, and sees that the loop has nothing to complain of."""

    def run_main(main: Awaitable[None]) -> None:
        async def checked() -> None:
            troubles: list[Any] = []
            asyncio.get_running_loop().set_exception_handler(lambda _loop, context: troubles.append(context))
            await asyncio.wait_for(main, 30)
            assert troubles == []

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(checked())

    return run_main


class Teller(Protocol):
    """At a line, says whose connection it is and what came."""

    def __init__(self, alive: set["Teller"]) -> None:
        self.alive = alive
        self.data = b""

    def connectionMade(self) -> None:
        self.alive.add(self)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        if data.endswith(b"\n"):
            scheme, client, server = connection_facts(self.transport)
            assert self.transport is not None
            self.transport.write(f"{scheme} {client} {server} {self.data!r}\n".encode())
            self.data = b""

    def connectionLost(self, reason: Any) -> None:  # type: ignore[override]  # noqa: ARG002 - Twisted's signature
        self.alive.discard(self)


class Serving:
    """`async with Serving(config) as served:` one address; everybody and every count is gone at the end."""

    def __init__(self, config: Config, bind: Bind | None = None) -> None:
        self.config = replace(config, bind=(bind or Tcp("127.0.0.1", 0),))
        self.alive: set[Teller] = set()
        self.clients: list[socket.socket] = []

    async def __aenter__(self) -> Self:
        self.files = len(os.listdir("/proc/self/fd"))
        self.ports = Ports(self.config, None)
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = self.build  # type: ignore[method-assign]
        self.addresses_seen: list[Any] = []
        await self.ports.open(factory)
        return self

    def build(self, address: Any) -> Teller:
        self.addresses_seen.append(address)
        return Teller(self.alive)

    async def __aexit__(self, *_: object) -> None:
        for client in self.clients:
            client.close()
        await until(lambda: not self.alive, "the connections to end")
        await until(lambda: not self.gate._counts, "the counts to go")
        await self.ports.close()
        await until(
            lambda: len(os.listdir("/proc/self/fd")) <= self.files + 1, "the descriptors to be closed"
        )  # a loop's own may have come

    @property
    def gate(self) -> Gate:
        assert self.ports._gate is not None
        return self.ports._gate

    async def connect(self, data: bytes = b"", *, source: str = "") -> socket.socket:
        """Connect, from an address of one's choice."""
        address: Any = self.ports.addresses[0]
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        client = socket.socket(family)
        self.clients.append(client)
        client.setblocking(False)
        if source:
            client.bind((source, 0))
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, address)
        if data:
            await loop.sock_sendall(client, data)
        return client

    async def told(self, *pieces: bytes, source: str = "") -> str:
        """Give what a new connection is told, once it has sent all pieces."""
        client = await self.connect(source=source)
        for piece in pieces:
            await asyncio.get_running_loop().sock_sendall(client, piece)
        return await line_of(client)


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition that no event announces."""
    end = asyncio.get_running_loop().time() + SECONDS
    while not condition():
        assert asyncio.get_running_loop().time() < end, f"waited in vain for {what}"
        await asyncio.sleep(0.001)


async def line_of(client: socket.socket) -> str:
    data = b""
    while not data.endswith(b"\n"):
        part = await asyncio.get_running_loop().sock_recv(client, 65_536)
        assert part, f"ended after {data!r}"
        data += part
    return data.decode().strip()


async def end_of(client: socket.socket) -> bytes:
    """Read to the end, however it comes."""
    data = b""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while part := await asyncio.get_running_loop().sock_recv(client, 65_536):
            data += part
    return data


def tls_of(pair: Pair) -> Tls:
    return Tls(certificates=(pair.certificate,), keys=(pair.key,))


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "Listening" not in record.getMessage()]


async def secured(client: socket.socket, authority: Authority) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(sock=client, ssl=authority.client(), server_hostname="proxied.test")
