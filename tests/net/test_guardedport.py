"""A port that speaks TLS, on both loops: handshakes that succeed, fail, stall and come in crowds, over real sockets."""

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Self

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IListeningPort, ISSLTransport
from twisted.internet.protocol import Factory, Protocol
from zope.interface.verify import verifyObject

from certificates import Authority, Pair
from termserver.config import Tls
from termserver.net import guardedport
from termserver.net.endpoints import LoopTlsTransport
from termserver.net.guardedport import GuardedPort
from termserver.net.reactor import new_event_loop
from termserver.net.tls import Contexts

Run = Callable[[Awaitable[None]], None]
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # how a ClientHello begins


@pytest.fixture(params=[new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    def run_main(main: Awaitable[None]) -> None:
        async def checked() -> None:
            troubles: list[Any] = []
            asyncio.get_running_loop().set_exception_handler(lambda _loop, context: troubles.append(context))
            await asyncio.wait_for(main, 20)
            assert troubles == []

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(checked())

    return run_main


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.make("port", "port.test")


class Echo(Protocol):
    """Says back what comes; writes down how it ended."""

    def __init__(self) -> None:
        self.lost: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def connectionLost(self, reason: Any) -> None:  # type: ignore[override]
        self.lost.set_result(reason.value)


class Listening:
    """`async with Listening(pair) as served:` one port; nothing may be left of it at the end."""

    def __init__(self, pair: Pair, *, seconds: float = 10.0, kind: Callable[[], Any] = Echo, listener: socket.socket | None = None) -> None:
        self.kind = kind
        self.listener = listener or socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen()
        self.listener.setblocking(False)
        self.contexts = Contexts(Tls(certificates=(pair.certificate,), keys=(pair.key,)))
        self.seconds = seconds
        self.protocols: list[Any] = []

    async def __aenter__(self) -> Self:
        self.factory = Factory()
        self.factory.noisy = False
        self.factory.buildProtocol = self.build  # type: ignore[method-assign]
        self.files = len(os.listdir("/proc/self/fd"))
        self.port = GuardedPort(self.listener, self.factory, lambda: self.contexts, self.seconds)
        self.port.startListening()
        return self

    async def __aexit__(self, *_: object) -> None:
        for protocol in self.protocols:
            if not protocol.lost.done():
                protocol.transport.abortConnection()
                await protocol.lost
        await self.port.stopListening().asFuture(asyncio.get_running_loop())
        while self.port._handshakes:
            await asyncio.sleep(0.001)

    def build(self, _address: Any) -> Any:
        protocol = self.kind()
        if protocol is not None:
            self.protocols.append(protocol)
        return protocol

    async def settled(self) -> None:
        """Wait until no handshake is going on."""
        while self.port._handshakes:
            await asyncio.sleep(0.001)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self.listener.getsockname()
        return host, port

    async def plain(self, data: bytes = b"") -> socket.socket:
        """Connect without TLS."""
        client = socket.socket()
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, self.address)
        if data:
            await loop.sock_sendall(client, data)
        return client

    async def secure(self, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect with TLS."""
        return await asyncio.open_connection(*self.address, ssl=context, server_hostname="port.test")


async def to_the_end(client: socket.socket) -> bytes:
    """Read to the end, and close."""
    data = b""
    with client, contextlib.suppress(ConnectionResetError):
        while part := await asyncio.get_running_loop().sock_recv(client, 65_536):
            data += part
    return data


async def echoed(served: Listening, context: ssl.SSLContext, data: bytes = b"hello") -> None:
    reader, writer = await served.secure(context)
    writer.write(data)
    assert await reader.readexactly(len(data)) == data
    writer.close()
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        await writer.wait_closed()


def test_interfaces_are_kept_and_addresses_twisted_s(run: Run, authority: Authority, pair: Pair) -> None:
    async def main() -> None:
        async with Listening(pair) as served:
            verifyObject(IListeningPort, served.port)
            assert served.port.getHost() == IPv4Address("TCP", *served.address)
            _, writer = await served.secure(authority.client())
            await served.settled()
            transport = served.protocols[0].transport
            assert isinstance(transport, LoopTlsTransport)
            assert ISSLTransport.providedBy(transport)
            assert transport.getHost() == served.port.getHost()
            assert transport.getPeer() == IPv4Address("TCP", *writer.get_extra_info("sockname"))
            assert transport.getPeerCertificate() is None
            assert transport.tls_facts()["server_cert"] == pair.pem
            assert not transport.sends_files
            writer.close()
            await served.protocols[0].lost

    run(main())


def test_bytes_go_both_ways_and_a_close_ends_it(run: Run, authority: Authority, pair: Pair) -> None:
    async def main() -> None:
        async with Listening(pair) as served:
            await echoed(served, authority.client(), os.urandom(1_000_000))
            assert isinstance(await served.protocols[0].lost, ConnectionDone)

    run(main())


def test_our_close_flushes(run: Run, authority: Authority, pair: Pair) -> None:
    async def main() -> None:
        async with Listening(pair) as served:
            reader, writer = await served.secure(authority.client())
            await served.settled()
            transport = served.protocols[0].transport
            transport.write(b"x" * 3_000_000)
            transport.writeSequence([b"y" * 100_000, b"", b"z"])
            transport.loseConnection()
            assert await reader.read() == b"x" * 3_000_000 + b"y" * 100_000 + b"z"
            writer.close()
            await served.protocols[0].lost

    run(main())


def test_one_large_write_counts_as_unsent_and_pauses(run: Run, authority: Authority, pair: Pair) -> None:
    class Producer(Echo):
        events: list[str]

        def connectionMade(self) -> None:
            transport: Any = self.transport
            self.events = []
            transport.registerProducer(self, True)
            transport.set_buffer_limits(65_536, 16_384)

        def pauseProducing(self) -> None:
            self.events.append("paused")

        def resumeProducing(self) -> None:
            self.events.append("resumed")

    async def main() -> None:
        async with Listening(pair, kind=Producer) as served:
            reader, writer = await served.secure(authority.client())
            await served.settled()
            [protocol] = served.protocols
            protocol.transport.write(b"x" * 20_000_000)
            assert protocol.events == ["paused"]
            assert protocol.transport.unsent() > 10_000_000
            assert len(await reader.readexactly(20_000_000)) == 20_000_000
            while protocol.events != ["paused", "resumed"]:
                await asyncio.sleep(0.001)
            assert protocol.transport.unsent() == 0
            writer.close()
            await protocol.lost

    run(main())


def test_abort_is_no_proper_end(run: Run, authority: Authority, pair: Pair) -> None:
    async def main() -> None:
        async with Listening(pair) as served:
            reader, writer = await served.secure(authority.client())
            await served.settled()
            served.protocols[0].transport.abortConnection()
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await reader.readexactly(1)
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()
            await served.protocols[0].lost

    run(main())


def test_contexts_in_force_are_for_the_next_connection(run: Run, authority: Authority, pair: Pair) -> None:
    async def main() -> None:
        other = authority.make("port-2", "port.test")
        async with Listening(pair) as served:
            reader, writer = await served.secure(authority.client())
            served.contexts = Contexts(Tls(certificates=(other.certificate,), keys=(other.key,)))
            _, second = await served.secure(authority.client())
            await served.settled()
            assert [each.transport.tls_facts()["server_cert"] for each in served.protocols] == [pair.pem, other.pem]
            writer.write(b"still there")
            assert await reader.readexactly(11) == b"still there"
            for each in (writer, second):
                each.close()
            for protocol in served.protocols:
                await protocol.lost

    run(main())


def test_factory_that_refuses_ends_the_connection(run: Run, authority: Authority, pair: Pair) -> None:
    async def main() -> None:
        async with Listening(pair, kind=lambda: None) as served:
            reader, writer = await served.secure(authority.client())
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                assert await reader.read() == b""
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    run(main())


# --- what goes wrong ---


@pytest.mark.parametrize(("data", "answer", "said"), [
    pytest.param(b"", b"", "A TLS handshake took too long", id="nothing"),
    pytest.param(HELLO[:1], b"", "A TLS handshake took too long", id="one byte"),
    pytest.param(HELLO, b"", "A TLS handshake took too long", id="half a ClientHello"),
    pytest.param(HELLO[:5] + bytes(512), None, "A TLS handshake failed: ", id="nonsense"),
    pytest.param(b"\x16\x02\x00\x00\x01\x00", None, "A TLS handshake failed: ", id="unknown version"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 400 Bad Request\r\n", "Plain HTTP came to a port", id="plain HTTP"),
    pytest.param(b"G", b"HTTP/1.1 400 Bad Request\r\n", "Plain HTTP came to a port", id="a byte of it"),
])  # fmt: skip
def test_client_that_does_not_shake_hands_is_let_go(
    run: Run, pair: Pair, caplog: pytest.LogCaptureFixture, data: bytes, answer: bytes | None, said: str
) -> None:
    async def main() -> None:
        async with Listening(pair, seconds=0.05) as served:
            got = await to_the_end(await served.plain(data))
            if answer is not None:  # else an alert may have come, or not
                assert got.startswith(answer)
                assert bool(got) is bool(answer)
            await served.settled()
            assert served.protocols == []
            assert len(os.listdir("/proc/self/fd")) <= served.files + 1  # a loop's own may have come

    caplog.set_level(logging.INFO, "termserver")
    run(main())
    assert [record.getMessage().startswith(said) for record in caplog.records] == [True]


def test_plain_answer_is_whole(run: Run, pair: Pair) -> None:
    async def main() -> None:
        async with Listening(pair) as served:
            head, _, body = (await to_the_end(await served.plain(b"GET / HTTP/1.1\r\n\r\n"))).partition(b"\r\n\r\n")
            assert b"\r\ncontent-length: %d\r\n" % len(body) in head
            assert b"HTTPS" in body

    run(main())


def test_client_that_leaves_without_a_byte_is_not_worth_a_line(run: Run, pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with Listening(pair) as served:
            client = await served.plain()
            client.shutdown(socket.SHUT_WR)
            assert await to_the_end(client) == b""

    caplog.set_level(logging.INFO, "termserver")
    run(main())
    assert caplog.records == []


@pytest.mark.parametrize("data", [b"", HELLO, b"GET / HTTP/1.1\r\n\r\n"])
def test_reset_harms_nobody(run: Run, authority: Authority, pair: Pair, data: bytes) -> None:
    async def main() -> None:
        async with Listening(pair) as served:
            for _ in range(20):
                client = await served.plain(data)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.close()
            await echoed(served, authority.client())
            await served.settled()
            assert len(served.protocols) == 1

    run(main())


def test_no_limit_for_the_handshake_where_there_is_none(run: Run, authority: Authority, pair: Pair) -> None:
    async def main() -> None:
        async with Listening(pair, seconds=0) as served:
            assert served.port._seconds > 3_600
            await echoed(served, authority.client())

    run(main())


# --- accepting ---


def test_paused_port_keeps_connections_waiting(run: Run, authority: Authority, pair: Pair) -> None:
    async def main() -> None:
        async with Listening(pair) as served:
            served.port.pause()
            served.port.pause()
            waiting = asyncio.ensure_future(echoed(served, authority.client()))
            await asyncio.sleep(0.02)
            assert not waiting.done()
            assert served.protocols == []
            served.port.startListening()
            served.port.startListening()
            await waiting

    run(main())


def test_closing_ends_handshakes_that_are_not_over(run: Run, pair: Pair) -> None:
    async def main() -> None:
        served = Listening(pair)
        async with served:
            clients = [await served.plain(), await served.plain(HELLO)]
            while len(served.port._handshakes) < 2:
                await asyncio.sleep(0.001)
        for client in clients:
            assert await to_the_end(client) == b""

    run(main())


class Failing(socket.socket):
    """A listener whose `accept` fails at first."""

    failures = (errno.EMFILE, errno.ENOMEM, errno.ECONNABORTED, errno.EINTR)

    def accept(self) -> Any:
        if self.failures:
            number, *self.failures = self.failures  # type: ignore[assignment]
            raise OSError(number, os.strerror(number))
        return super().accept()


def test_e7_failing_accept_is_tried_again(
    run: Run, authority: Authority, pair: Pair, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with Listening(pair, listener=Failing()) as served:
            await echoed(served, authority.client())

    monkeypatch.setattr(guardedport, "_RETRY", 0.01)
    run(main())
    assert [record.getMessage() for record in caplog.records] == ["Cannot accept connections: Too many open files"]


def test_pause_while_accept_fails_is_a_pause(run: Run, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with Listening(pair, listener=Failing()) as served:
            with await served.plain():
                while served.port._retry is None:
                    await asyncio.sleep(0.001)
                served.port.pause()
                await asyncio.sleep(0.05)
                assert not served.port._accepting
                assert not served.port._handshakes

    monkeypatch.setattr(guardedport, "_RETRY", 0.01)
    run(main())


def test_e4_those_who_stall_make_room(run: Run, authority: Authority, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with Listening(pair) as served:
            served.port._most = 8
            stalled = [await served.plain(HELLO if number % 2 else b"") for number in range(30)]
            await echoed(served, authority.client())
            ended = [await to_the_end(client) for client in stalled[:20]]
            assert ended == [b""] * 20
            assert len(served.port._handshakes) <= 8
            for client in stalled:
                client.close()

    monkeypatch.setattr(guardedport, "_STALLED", 0.02)
    run(main())


def test_e4_honest_crowd_waits_its_turn(run: Run, authority: Authority, pair: Pair) -> None:
    async def main() -> None:
        async with Listening(pair) as served:
            served.port._most = 4
            context = authority.client()
            await asyncio.gather(*(echoed(served, context) for _ in range(40)))
            assert len(served.protocols) == 40

    run(main())


@pytest.mark.parametrize(("files", "most"), [(resource.RLIM_INFINITY, 1_024), (1 << 20, 1_024), (1_024, 64), (64, 16)])
def test_handshakes_take_half_of_the_reserve(monkeypatch: pytest.MonkeyPatch, files: int, most: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (files, files))
    assert guardedport._most_handshakes() == most
