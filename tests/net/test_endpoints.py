"""The loop's transports as Twisted's, on both loops: what a protocol of Twisted's may ask for, over real sockets."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IListeningPort, IStreamServerEndpoint, ITransport
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer
from zope.interface.verify import verifyObject

from termserver.net.endpoints import LoopPort, LoopServerEndpoint, LoopTransport, twisted_address
from termserver.net.reactor import new_event_loop

Main = Callable[..., Awaitable[None]]
Run = Callable[[Awaitable[None]], None]


@pytest.fixture(params=[new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    def run_main(main: Awaitable[None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(main, 20))  # type: ignore[arg-type]

    return run_main


class Recorder(Protocol):
    """Writes down what happens."""

    def __init__(self) -> None:
        self.data = b""
        self.events: list[str] = []
        self.lost: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.changed = asyncio.Event()

    def note(self, event: str) -> None:
        self.events.append(event)
        self.changed.set()

    def connectionMade(self) -> None:
        self.note("made")

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self.changed.set()

    def connectionLost(self, reason: Any) -> None:  # type: ignore[override]
        self.note("lost")
        self.lost.set_result(reason.value)

    def pauseProducing(self) -> None:
        self.note("paused")

    def resumeProducing(self) -> None:
        self.note("resumed")

    def stopProducing(self) -> None:
        self.note("stopped")

    async def wait(self, condition: Callable[[], object]) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Recorder):
    """One that knows half-closed connections."""

    def readConnectionLost(self) -> None:
        self.note("read lost")

    def writeConnectionLost(self) -> None:
        self.note("write lost")


class Listening:
    """`async with Listening(kind) as served:` one port, and a client with the protocol it got."""

    def __init__(self, kind: Callable[[], Any] = Recorder, *, family: int = socket.AF_INET, path: str = "") -> None:
        self.kind = kind
        self.protocols: list[Any] = []
        self.listener = socket.socket(family)
        self.listener.bind(path if family == socket.AF_UNIX else ("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        self.listener.listen()
        self.listener.setblocking(False)
        self.clients: list[socket.socket] = []

    async def __aenter__(self) -> Self:
        self.factory = Factory()
        self.factory.noisy = False
        self.factory.buildProtocol = self.build  # type: ignore[method-assign]
        self.port = await LoopServerEndpoint(self.listener).open(self.factory)
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self.clients:
            client.close()
        await self.port.stopListening().asFuture(asyncio.get_running_loop())
        for protocol in self.protocols:
            if not protocol.lost.done():
                protocol.transport.abortConnection()
                await protocol.lost

    def build(self, address: Any) -> Any:
        self.address = address
        protocol = self.kind()
        if protocol is not None:
            self.protocols.append(protocol)
        return protocol

    async def connect(self) -> socket.socket:
        client = socket.socket(self.listener.family)
        client.setblocking(False)
        self.clients.append(client)
        await asyncio.get_running_loop().sock_connect(client, self.listener.getsockname())
        return client

    async def pair(self) -> tuple[socket.socket, Any]:
        client = await self.connect()
        while not self.protocols:
            await asyncio.sleep(0.001)
        return client, self.protocols[-1]


async def read(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := await asyncio.get_running_loop().sock_recv(client, 1 << 20)):
        data += part
    return data


def test_interfaces_are_kept(run: Run) -> None:
    async def main() -> None:
        async with Listening() as served:
            _, protocol = await served.pair()
            verifyObject(ITransport, protocol.transport)
            verifyObject(IListeningPort, served.port)
            verifyObject(IStreamServerEndpoint, LoopServerEndpoint(served.listener))

    run(main())


def test_bytes_go_both_ways_and_a_close_flushes(run: Run) -> None:
    async def main() -> None:
        async with Listening() as served:
            client, protocol = await served.pair()
            await asyncio.get_running_loop().sock_sendall(client, b"question")
            await protocol.wait(lambda: protocol.data == b"question")
            protocol.transport.write(b"an")
            protocol.transport.writeSequence([b"sw", b"er"])
            protocol.transport.write(b"x" * 5_000_000)
            protocol.transport.loseConnection()
            assert protocol.transport.disconnecting
            assert await read(client, 6_000_000) == b"answer" + b"x" * 5_000_000
            assert isinstance(await protocol.lost, ConnectionDone)
            assert protocol.events == ["made", "lost"]

    run(main())


def test_every_method_is_harmless_after_the_end(run: Run) -> None:
    async def main() -> None:
        async with Listening() as served:
            client, protocol = await served.pair()
            client.close()
            await protocol.lost
            transport = protocol.transport
            for method in ("pauseProducing", "resumeProducing", "loseWriteConnection", "loseConnection", "abortConnection", "stopProducing",
                           "unregisterProducer", "getPeer", "getHost", "unsent"):  # fmt: skip
                getattr(transport, method)()
            transport.set_buffer_limits(100, 10)

    run(main())


def test_abort_is_a_reset(run: Run) -> None:
    async def main() -> None:
        async with Listening() as served:
            client, protocol = await served.pair()
            protocol.transport.abortConnection()
            with pytest.raises(ConnectionResetError):
                await read(client, 1)
            await protocol.lost

    run(main())


def test_reset_of_the_peer_is_a_lost_connection(run: Run) -> None:
    async def main() -> None:
        async with Listening(HalfCloseable) as served:
            client, protocol = await served.pair()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
            assert isinstance(await protocol.lost, ConnectionLost)

    run(main())


def test_protocol_that_knows_half_closed_connections_may_still_answer(run: Run) -> None:
    async def main() -> None:
        async with Listening(HalfCloseable) as served:
            client, protocol = await served.pair()
            client.shutdown(socket.SHUT_WR)
            await protocol.wait(lambda: "read lost" in protocol.events)
            protocol.transport.write(b"answer")
            protocol.transport.loseConnection()
            assert await read(client, 100) == b"answer"
            assert isinstance(await protocol.lost, ConnectionDone)

    run(main())


def test_any_other_protocol_is_closed_when_the_peer_shuts_its_side(run: Run) -> None:
    async def main() -> None:
        async with Listening() as served:
            client, protocol = await served.pair()
            client.shutdown(socket.SHUT_WR)
            assert isinstance(await protocol.lost, ConnectionDone)
            assert await read(client, 1) == b""

    run(main())


def test_our_side_can_be_shut_and_the_peer_be_read_on(run: Run) -> None:
    async def main() -> None:
        async with Listening(HalfCloseable) as served:
            client, protocol = await served.pair()
            protocol.transport.write(b"last")
            protocol.transport.loseWriteConnection()
            assert await read(client, 100) == b"last"
            await asyncio.get_running_loop().sock_sendall(client, b"more")
            await protocol.wait(lambda: protocol.data == b"more")

    run(main())


def test_producer_is_paused_while_the_peer_does_not_read(run: Run) -> None:
    async def main() -> None:
        async with Listening() as served:
            client, protocol = await served.pair()
            transport = protocol.transport
            transport.set_buffer_limits(10_000, 1_000)
            transport.registerProducer(protocol, True)
            transport.write(b"x" * 20_000_000)
            assert protocol.events == ["made", "paused"]
            assert transport.unsent() > 10_000
            assert len(await read(client, 20_000_000)) == 20_000_000
            await protocol.wait(lambda: "resumed" in protocol.events)
            assert transport.unsent() == 0
            transport.unregisterProducer()
            transport.write(b"x" * 20_000_000)
            assert protocol.events == ["made", "paused", "resumed"]
            transport.abortConnection()

    run(main())


def test_pull_producers_are_refused(run: Run) -> None:
    async def main() -> None:
        async with Listening() as served:
            _, protocol = await served.pair()
            with pytest.raises(ValueError, match="streaming"):
                protocol.transport.registerProducer(protocol, False)

    run(main())


def test_reading_can_be_paused(run: Run) -> None:
    async def main() -> None:
        async with Listening() as served:
            client, protocol = await served.pair()
            protocol.transport.pauseProducing()
            await asyncio.get_running_loop().sock_sendall(client, b"x")
            other, _ = await served.pair()
            await asyncio.get_running_loop().sock_sendall(other, b"y")
            while not served.protocols[-1].data:
                await asyncio.sleep(0.001)
            assert protocol.data == b""
            protocol.transport.resumeProducing()
            await protocol.wait(lambda: protocol.data == b"x")

    run(main())


def test_factory_that_refuses_gets_the_connection_reset(run: Run) -> None:
    async def main() -> None:
        async with Listening(lambda: None) as served:
            client = await served.connect()
            with pytest.raises(ConnectionResetError):
                await read(client, 1)
            assert isinstance(served.address, IPv4Address)

    run(main())


def test_protocol_that_closes_at_once(run: Run) -> None:
    class Brief(Recorder):
        def connectionMade(self) -> None:
            super().connectionMade()
            assert self.transport is not None
            self.transport.write(b"bye")
            self.transport.loseConnection()

    async def main() -> None:
        async with Listening(Brief) as served:
            assert await read(await served.connect(), 100) == b"bye"

    run(main())


def test_protocol_that_raises_loses_its_connection_only(run: Run) -> None:
    class Faulty(Recorder):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            if data == b"bad":
                raise RuntimeError("on purpose")

    async def main() -> None:
        troubles: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: troubles.append(context["exception"]))
        async with Listening(Faulty) as served:
            first, good = await served.pair()
            served.protocols.clear()
            second, _ = await served.pair()
            await asyncio.get_running_loop().sock_sendall(second, b"bad")
            with contextlib.suppress(ConnectionResetError):
                assert await read(second, 1) == b""
            await asyncio.get_running_loop().sock_sendall(first, b"good")
            await good.wait(lambda: good.data == b"good")
            served.protocols.append(good)
        assert [str(trouble) for trouble in troubles] == ["on purpose"]

    run(main())


def test_addresses_are_twisted_s(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with Listening() as served:
            client, protocol = await served.pair()
            assert protocol.transport.getPeer() == served.address == IPv4Address("TCP", *client.getsockname())
            assert protocol.transport.getHost() == served.port.getHost() == IPv4Address("TCP", *served.listener.getsockname())
        async with Listening(family=socket.AF_INET6) as served:
            client, protocol = await served.pair()
            assert protocol.transport.getPeer() == IPv6Address("TCP", *client.getsockname()[:2])
            assert isinstance(served.port.getHost(), IPv6Address)
        path = str(tmp_path / "socket")
        async with Listening(family=socket.AF_UNIX, path=path) as served:
            client, protocol = await served.pair()
            assert protocol.transport.getPeer() == UNIXAddress(None)
            assert protocol.transport.getHost() == served.port.getHost() == UNIXAddress(path)

    run(main())


def test_abort_over_a_unix_socket_ends_it(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with Listening(family=socket.AF_UNIX, path=str(tmp_path / "socket")) as served:
            client, protocol = await served.pair()
            protocol.transport.abortConnection()
            assert await read(client, 1) == b""

    run(main())


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_paused_port_keeps_connections_waiting(run: Run, tmp_path: Path, family: int) -> None:
    async def main() -> None:
        path = tmp_path / "socket"
        async with Listening(family=family, path=str(path)) as served:
            await served.pair()
            served.port.pause()
            served.port.pause()
            await asyncio.sleep(0.01)
            client = await served.connect()
            await asyncio.get_running_loop().sock_sendall(client, b"waited")
            assert len(served.protocols) == 1
            served.port.startListening()
            served.port.startListening()
            while len(served.protocols) < 2 or not served.protocols[1].data:
                await asyncio.sleep(0.001)
            assert served.protocols[1].data == b"waited"

    run(main())


def test_port_that_is_paused_while_it_resumes_stays_paused(run: Run) -> None:
    async def main() -> None:
        async with Listening() as served:
            served.port.pause()
            served.port.startListening()
            served.port.pause()
            await served.connect()
            await asyncio.sleep(0.05)
            assert served.protocols == []

    run(main())


def test_port_without_a_descriptor_to_resume_with_tries_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []
    real = LoopPort.open

    async def sometimes(self: LoopPort) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise OSError(24, "Too many open files")
        await real(self)

    async def main() -> None:
        async with Listening() as served:
            served.port.pause()
            monkeypatch.setattr(LoopPort, "open", sometimes)
            served.port.startListening()
            await served.pair()
        assert len(tries) == 3

    run(main())


def test_endpoint_listens_as_twisted_s_do(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        served = Listening()
        factory = Factory.forProtocol(Recorder)
        factory.noisy = False
        port = await LoopServerEndpoint(served.listener).listen(factory).asFuture(loop)
        client = await served.connect()
        client.close()
        await port.stopListening().asFuture(loop)

    run(main())


def test_name_of_no_kind_is_an_unnamed_unix_socket() -> None:
    assert twisted_address("") == UNIXAddress(None)
    assert isinstance(LoopTransport(Factory()), asyncio.Protocol)


# --- another protocol takes over ---


class Switching(HalfCloseable):
    """Hands the connection over at the first bytes."""

    successor: Any = None

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.successor.transport = self.transport
        transport: Any = self.transport
        transport.unregisterProducer()
        transport.registerProducer(self.successor, True)
        transport.switch(self.successor)


@pytest.mark.parametrize("kind", [HalfCloseable, Recorder])
def test_connection_can_be_handed_to_another_protocol(run: Run, kind: type[Recorder]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with Listening(Switching) as served:
            client, first = await served.pair()
            second = first.successor = kind()
            await loop.sock_sendall(client, b"first")
            await first.wait(lambda: first.data == b"first")
            await loop.sock_sendall(client, b"second")
            await second.wait(lambda: second.data == b"second")
            second.transport.write(b"answer")
            assert await read(client, 6) == b"answer"
            client.shutdown(socket.SHUT_WR)
            if kind is HalfCloseable:
                await second.wait(lambda: "read lost" in second.events)
                second.transport.loseConnection()
            assert isinstance(await second.lost, ConnectionDone)
            assert first.data == b"first"
            assert first.events == ["made"]
            first.lost.set_result(None)

    run(main())


def test_backpressure_is_told_to_the_protocol_that_took_over(run: Run) -> None:
    async def main() -> None:
        async with Listening(Switching) as served:
            client, first = await served.pair()
            first.transport.set_buffer_limits(10_000, 1_000)
            first.transport.registerProducer(first, True)
            second = first.successor = Recorder()
            await asyncio.get_running_loop().sock_sendall(client, b"first")
            await first.wait(lambda: first.data == b"first")
            second.transport.write(b"x" * 20_000_000)
            assert second.events == ["paused"]
            assert len(await read(client, 20_000_000)) == 20_000_000
            await second.wait(lambda: "resumed" in second.events)
            assert first.events == ["made"]
            second.transport.abortConnection()
            await second.lost
            first.lost.set_result(None)

    run(main())


def test_protocol_may_hand_over_in_a_turn_of_its_own(run: Run) -> None:
    """As an application does that accepts later: not while bytes are being delivered."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with Listening() as served:
            client, first = await served.pair()
            second = Recorder()
            second.transport = first.transport
            first.transport.switch(second)
            await loop.sock_sendall(client, b"second")
            await second.wait(lambda: second.data == b"second")
            client.close()
            await second.lost
            assert first.data == b""
            first.lost.set_result(None)

    run(main())
