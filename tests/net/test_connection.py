"""One connection between a transport and an application: turns, backpressure, ends; on Twisted's StringTransport and on real sockets."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from fakes import GET, in_loop, turns
from termserver.config import Config, Limits, Logging, Tcp, Timeouts
from termserver.errors import ClientDisconnected
from termserver.net.connection import Connection
from termserver.net.ports import Ports
from termserver.net.server import Server

App = Callable[..., Awaitable[None]]
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"


class Wire(StringTransport):
    """Twisted's transport of strings, with what a TCP transport can do beyond."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def loseWriteConnection(self) -> None:
        self.calls.append("loseWriteConnection")

    def loseConnection(self) -> None:
        self.calls.append("loseConnection")

    def abortConnection(self) -> None:
        self.calls.append("abortConnection")

    def unregisterProducer(self) -> None:
        self.calls.append("unregisterProducer")
        self.producer = None

    @property
    def statuses(self) -> list[int]:
        return [int(part[:3]) for part in self.value().split(b"HTTP/1.1 ")[1:]]


class Talk:
    """A server without ports, and one connection of it."""

    def __init__(self, app: App, *, limits: Limits | None = None, timeouts: Timeouts | None = None) -> None:
        self.server = Server(Config(limits=limits or Limits(), timeouts=timeouts or Timeouts(), logging=Logging(access_log=None)), app)
        self.server.loop = asyncio.get_running_loop()
        import contextvars

        self.server.context = contextvars.copy_context()
        self.wire = Wire()
        made = self.server.buildProtocol(self.wire.getPeer())
        assert made is not None
        self.connection: Connection = made
        self.connection.makeConnection(self.wire)

    async def receive(self, data: bytes) -> None:
        self.connection.dataReceived(data)
        await turns()

    async def lose(self) -> None:
        self.connection.connectionLost(Failure(ConnectionDone()))
        await turns()

    @property
    def calls(self) -> list[str]:
        return [call for call in self.wire.calls if call != "unregisterProducer"]


def says(body: bytes = b"hello") -> App:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return app


class Held:
    """An application that answers when it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.requests = 0
        self.messages: list[str] = []
        self.raised: BaseException | None = None

    async def __call__(self, _scope: Any, receive: Any, send: Any) -> None:
        self.requests += 1
        try:
            await self.go.wait()
            await says()(_scope, receive, send)
        except BaseException as error:
            self.raised = error
            raise


class Listener:
    """An application that writes down all it receives."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    async def __call__(self, _scope: Any, receive: Any, send: Any) -> None:
        while not self.messages or self.messages[-1].get("more_body"):
            self.messages.append(await receive())
        if self.messages[-1]["type"] == "http.request":
            await says()(_scope, receive, send)


# --- turns ---


@in_loop
async def test_whole_exchange_is_one_write() -> None:
    talk = Talk(says())
    writes: list[bytes] = []
    talk.wire.write = writes.append  # type: ignore[method-assign,assignment]
    await talk.receive(GET)
    assert len(writes) == 1
    assert writes[0].endswith(b"\r\n\r\nhello")


@in_loop
async def test_pipelined_requests_are_answered_one_after_the_other() -> None:
    held = Held()
    talk = Talk(held)
    await talk.receive(GET * 3)
    assert (held.requests, talk.wire.statuses) == (1, [])
    held.go.set()
    await turns(40)
    assert (held.requests, talk.wire.statuses) == (3, [200] * 3)


@in_loop
async def test_every_request_has_a_context_of_its_own() -> None:
    import contextvars

    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    found: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append(variable.get())
        variable.set(1)
        await asyncio.sleep(0)
        await says()(scope, receive, send)

    talk = Talk(app)
    await talk.receive(GET * 3)
    await turns(40)
    assert found == [0, 0, 0]


@in_loop
async def test_request_in_single_bytes() -> None:
    listener = Listener()
    talk = Talk(listener)
    for index in range(len(POST)):
        await talk.receive(POST[index : index + 1])
    for byte in b"0123456789":
        await talk.receive(bytes([byte]))
    assert b"".join(message["body"] for message in listener.messages) == b"0123456789"
    assert talk.wire.statuses == [200]


# --- backpressure inwards ---


@in_loop
async def test_reading_stops_while_the_application_does_not_ask() -> None:
    held = Held()
    talk = Talk(held, limits=Limits(body_buffer=5))
    await talk.receive(POST)
    assert talk.wire.producerState == "producing"
    await talk.receive(b"01234")
    assert talk.wire.producerState == "paused"
    held.go.set()
    await turns()
    assert talk.wire.producerState == "producing"
    await talk.receive(b"56789" + GET)
    assert talk.wire.statuses == [200, 200]


@in_loop
async def test_reading_stops_while_later_requests_wait() -> None:
    held = Held()
    talk = Talk(held, limits=Limits(pipeline_buffer=100))
    await talk.receive(GET)
    await talk.receive(GET * 4)
    assert talk.wire.producerState == "paused"
    held.go.set()
    await turns(60)
    assert talk.wire.statuses == [200] * 5
    assert talk.wire.producerState == "producing"


@in_loop
async def test_body_that_was_buffered_and_never_read_does_not_stop_the_rest_from_being_discarded() -> None:
    talk = Talk(says(), limits=Limits(body_buffer=5))
    await talk.receive(POST + b"01234")
    await talk.receive(b"56789" + GET)
    assert talk.wire.statuses == [200, 200]
    assert talk.wire.producerState == "producing"


# --- backpressure outwards ---


@in_loop
async def test_send_waits_while_the_client_does_not_read() -> None:
    sent: list[int] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(5):
            await send({"type": "http.response.body", "body": b"x", "more_body": number < 4})
            sent.append(number)

    talk = Talk(app)
    talk.connection.pauseProducing()
    await talk.receive(GET)
    assert sent == []
    talk.connection.resumeProducing()
    await turns()
    assert sent == [0, 1, 2, 3, 4]


@in_loop
async def test_next_request_waits_while_the_client_does_not_read_the_last_response() -> None:
    talk = Talk(says(b"x" * 50_000))
    big_write = talk.wire.write

    def write(data: bytes) -> None:
        big_write(data)
        talk.connection.pauseProducing()

    talk.wire.write = write  # type: ignore[method-assign]
    await talk.receive(GET * 100)
    answered = len(talk.wire.statuses)
    assert answered < 5
    assert talk.wire.producerState == "paused"
    while len(talk.wire.statuses) < 100:
        talk.connection.resumeProducing()
        await turns()
        assert len(talk.wire.statuses) - answered < 5
        answered = len(talk.wire.statuses)
    talk.connection.resumeProducing()
    await turns()
    assert talk.wire.producerState == "producing"


@in_loop
async def test_waiting_send_ends_when_the_client_is_lost() -> None:
    raised: list[BaseException] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        except ClientDisconnected as error:
            raised.append(error)
            raise

    talk = Talk(app)
    talk.connection.pauseProducing()
    await talk.receive(GET)
    await talk.lose()
    assert len(raised) == 1
    assert talk.server.running == 0
    assert talk.server.connections == set()


@in_loop
async def test_cancelled_send_leaves_no_waiter() -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(3):
            try:
                async with asyncio.timeout(0):
                    await send({"type": "http.response.body", "body": b"x", "more_body": True})
            except TimeoutError:
                pass
        await send({"type": "http.response.body"})

    talk = Talk(app)
    talk.connection.pauseProducing()
    await talk.receive(GET)
    await turns()
    talk.connection.resumeProducing()
    await turns()
    assert talk.wire.value().endswith(b"0\r\n\r\n")


# --- ends ---


@in_loop
async def test_close_is_a_close() -> None:
    talk = Talk(says())
    await talk.receive(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert talk.calls == ["loseConnection"]
    await talk.receive(GET)
    assert talk.wire.statuses == [200]
    await talk.lose()


@in_loop
async def test_refused_client_is_lingered_for() -> None:
    talk = Talk(says())
    await talk.receive(b"nonsense\r\n\r\n")
    assert (talk.wire.statuses, talk.calls) == ([400], ["loseWriteConnection"])
    await talk.receive(GET * 10)
    assert talk.wire.statuses == [400]
    talk.connection.readConnectionLost()
    assert talk.calls == ["loseWriteConnection", "loseConnection"]


@in_loop
async def test_linger_ends_in_a_close_and_only_then_in_a_cut() -> None:
    talk = Talk(says())
    await talk.receive(b"nonsense\r\n\r\n")
    talk.connection.farewell_over()
    assert talk.calls[-1] == "loseConnection"
    talk.connection.farewell_over()
    assert talk.calls[-1] == "abortConnection"


@in_loop
async def test_producer_that_is_paused_is_let_go_when_it_resumes() -> None:
    talk = Talk(says())
    talk.connection.pauseProducing()
    await talk.receive(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert talk.wire.calls == ["loseConnection"]
    talk.connection.resumeProducing()
    assert talk.wire.calls == ["loseConnection", "unregisterProducer"]


@in_loop
async def test_fault_after_the_start_is_a_cut() -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise RuntimeError("on purpose")

    talk = Talk(app)
    await talk.receive(GET)
    assert talk.calls == ["abortConnection"]


@in_loop
async def test_half_closed_client_gets_its_answer_then_the_close() -> None:
    held = Held()
    talk = Talk(held)
    await talk.receive(GET)
    talk.connection.readConnectionLost()
    assert talk.calls == []
    held.go.set()
    await turns()
    assert (talk.wire.statuses, talk.calls) == ([200], ["loseConnection"])


@in_loop
async def test_half_closed_idle_client_is_closed() -> None:
    talk = Talk(says())
    talk.connection.readConnectionLost()
    assert talk.calls == ["loseConnection"]


@in_loop
async def test_half_closed_in_the_middle_of_a_request_is_a_disconnect() -> None:
    listener = Listener()
    talk = Talk(listener)
    await talk.receive(POST + b"01234")
    talk.connection.readConnectionLost()
    await turns()
    assert [message["type"] for message in listener.messages] == ["http.request", "http.disconnect"]
    assert talk.calls == ["loseConnection"]


@in_loop
async def test_half_closed_for_long_is_told_and_watched() -> None:
    held = Held()
    talk = Talk(held)
    await talk.receive(GET)
    talk.connection.readConnectionLost()
    talk.connection.half_closed_for_long()
    assert talk.server.departures.exchanges() == talk.connection.exchanges()
    held.go.set()
    await turns()
    assert talk.wire.statuses == [200]
    assert talk.server.departures.exchanges() == []


@in_loop
async def test_lost_client_s_call_is_watched() -> None:
    held = Held()
    talk = Talk(held)
    await talk.receive(GET)
    await talk.lose()
    assert len(talk.server.departures.exchanges()) == 1
    held.go.set()
    await turns()
    assert talk.server.departures.exchanges() == []
    assert talk.server.running == 0


# --- what the pace says ---


@in_loop
async def test_idle_connection_is_closed() -> None:
    talk = Talk(says())
    assert talk.connection.idle_since is not None
    talk.connection.idle_for_too_long()
    assert (talk.calls, talk.connection.idle_since) == (["loseConnection"], None)


@in_loop
async def test_request_too_slow_is_408_and_a_disconnect() -> None:
    listener = Listener()
    talk = Talk(listener)
    await talk.receive(POST + b"01234")
    talk.connection.request_too_slow("too slow")
    await turns()
    assert (talk.wire.statuses, talk.calls) == ([408], ["loseWriteConnection"])
    assert listener.messages[-1]["type"] == "http.disconnect"


@in_loop
async def test_application_too_slow_is_504_and_cancelled() -> None:
    held = Held()
    talk = Talk(held)
    talk.connection.application_too_slow()
    await talk.receive(GET)
    talk.connection.application_too_slow()
    await turns()
    assert (talk.wire.statuses, talk.calls) == ([504], ["loseConnection"]) or talk.calls == ["loseWriteConnection"]
    assert isinstance(held.raised, asyncio.CancelledError)


@in_loop
async def test_peer_too_slow_is_cut() -> None:
    talk = Talk(says())
    talk.connection.peer_too_slow("too slow")
    assert talk.calls == ["abortConnection"]


# --- the server ---


@in_loop
async def test_drain_ends_an_idle_connection_and_lets_a_busy_one_finish() -> None:
    held = Held()
    idle, busy = Talk(says()), Talk(held)
    await idle.receive(GET)
    await busy.receive(GET)
    idle.connection.drain()
    busy.connection.drain()
    assert (idle.calls, busy.calls) == (["loseWriteConnection"], [])
    held.go.set()
    await turns()
    assert b"connection: close" in busy.wire.value()
    assert busy.calls == ["loseWriteConnection"]


@in_loop
async def test_concurrency_limit_is_503() -> None:
    held = Held()
    talk = Talk(held, limits=Limits(concurrency=1))
    await talk.receive(GET)
    other = talk.server.buildProtocol(talk.wire.getPeer())
    assert other is not None
    wire = Wire()
    other.makeConnection(wire)
    other.dataReceived(GET)
    await turns()
    assert (wire.statuses, held.requests) == ([503], 1)
    assert b"retry-after: 1\r\n" in wire.value()
    held.go.set()
    await turns()


# --- over a real socket ---


@asynccontextmanager
async def serving(app: App, **timeouts: float) -> AsyncIterator[tuple[Server, Any]]:
    server = Server(
        Config(bind=(Tcp("127.0.0.1", 0),), timeouts=Timeouts(**timeouts), logging=Logging(access_log=None), lifespan="off"), app
    )  # type: ignore[arg-type]
    ports = Ports(server.config, None)
    await server.start(ports)
    try:
        yield server, ports.addresses[0]
    finally:
        await server.stop()


async def ask(address: Any, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request)
    try:
        return await reader.read()
    finally:
        writer.close()


CLOSE = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


@in_loop
async def test_file_goes_past_the_transport(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(3_000_000))

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": str(path)})

    async with serving(app) as (_, address):
        assert (await ask(address, CLOSE)).endswith(b"\r\n\r\n" + path.read_bytes())


@in_loop
async def test_file_for_a_client_that_is_lost_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(50_000_000)
    raised: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            await send({"type": "http.response.pathsend", "path": str(path)})
        except BaseException as error:
            raised.set_result(error)
            raise

    before = len(os.listdir("/proc/self/fd"))
    async with serving(app) as (server, address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(GET)
        await reader.readexactly(100_000)
        [connection] = server.connections
        connection.peer_too_slow("on purpose")
        assert isinstance(await raised, ClientDisconnected)
        writer.close()
    await turns()
    assert len(os.listdir("/proc/self/fd")) <= before


@in_loop
async def test_progress_counts_what_has_left_the_process() -> None:
    async with serving(says(b"x" * 20_000_000)) as (server, address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(GET)
        await reader.readexactly(1_000)
        [connection] = server.connections
        before = connection.progress()
        assert 1_000 <= before < 20_000_000
        await reader.readexactly(15_000_000)
        assert connection.progress() > before
        writer.close()


@in_loop
async def test_reset_client_is_noticed_and_its_call_told() -> None:
    listener = Listener()
    async with serving(listener) as (server, address):
        client = socket.create_connection(address)
        client.sendall(POST + b"01234")
        while not listener.messages:
            await asyncio.sleep(0.001)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        while server.connections:
            await asyncio.sleep(0.001)
        await turns()
        assert listener.messages[-1]["type"] == "http.disconnect"


@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_body_of_any_size_over_a_real_socket(size: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        total, more = 0, True
        while more:
            message = await receive()
            total += len(message["body"])
            more = message["more_body"]
        await says(b"%d" % total)(scope, receive, send)

    @in_loop
    async def main() -> None:
        async with serving(app) as (_, address):
            request = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
            assert (await ask(address, request)).endswith(b"\r\n\r\n%d" % size)

    main()
