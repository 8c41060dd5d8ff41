"""The life of a worker: start, serve, shed, drain, stop; with real sockets and an application that writes down what happens."""

import asyncio
import logging
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.address import IPv4Address

from fakes import GET, KEY, SocketTalk, accept, handshake, in_loop, turns
from termserver.config import Config, Limits, Logging, Tcp, Timeouts
from termserver.errors import StartupFailed
from termserver.net import websocket as websocket_module
from termserver.net.ports import Ports
from termserver.net.server import DRAINING, SERVING, STARTING, STOPPED, Server, default_capacity
from termserver.net.websocket import SocketConnection
from termserver.observe.access import AccessLog
from termserver.wire.handshake import HandshakeRefused
from wire.frames import close, read_frames

CLOSE = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


class Diary:
    """An application that writes down what happens, and waits where it is told to."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.ports: Ports | None = None
        self.waits: dict[str, asyncio.Event] = {}
        self.server: Server | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.lifespan(scope, receive, send)
            return
        self.lines.append("request")
        try:
            if "request" in self.waits:
                await self.waits["request"].wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"hello"})
            self.lines.append("response")
        except asyncio.CancelledError:
            self.lines.append("cancelled")
            raise

    async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["key"] = "value"
        for part in ("startup", "shutdown"):
            await receive()
            self.lines.append(part)
            try:
                if part in self.waits:
                    await self.waits[part].wait()
            except asyncio.CancelledError:
                self.lines.append(f"{part} cancelled")
                raise
            await send({"type": f"lifespan.{part}.complete"})


class Serving:
    """A server on a free port."""

    def __init__(self, app: Any, *, limits: Limits | None = None, lifespan: str = "auto", **timeouts: float) -> None:
        self.config = Config(
            bind=(Tcp("127.0.0.1", 0),), limits=limits or Limits(), timeouts=Timeouts(**timeouts),  # type: ignore[arg-type]
            logging=Logging(access_log=None), lifespan=lifespan,
        )  # fmt: skip
        self.server = Server(self.config, app)
        self.ports = Ports(self.config, None)
        self.address: Any = self.ports.addresses[0]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.address)

    async def ask(self, request: bytes = CLOSE) -> bytes:
        reader, writer = await self.connect()
        writer.write(request)
        try:
            return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[Serving]:
    served = Serving(app, **options)
    await served.server.start(served.ports)
    try:
        yield served
    finally:
        await served.server.stop()


# --- start ---


@in_loop
async def test_application_starts_before_the_first_connection_is_accepted() -> None:
    diary = Diary()
    diary.waits["startup"] = asyncio.Event()
    served = Serving(diary)
    starting = asyncio.ensure_future(served.server.start(served.ports))
    early = asyncio.ensure_future(served.ask())
    await asyncio.sleep(0.05)
    assert (served.server.stage, diary.lines, early.done()) == (STARTING, ["startup"], False)
    diary.waits["startup"].set()
    await starting
    assert b"hello" in await early
    assert served.server.stage is SERVING
    await served.server.stop()
    assert diary.lines == ["startup", "request", "response", "shutdown"]


@in_loop
async def test_state_of_the_lifespan_reaches_requests_as_a_copy() -> None:
    found: list[dict[str, Any]] = []
    diary = Diary()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            found.append(scope["state"].copy())
            scope["state"]["key"] = "changed"
        await diary(scope, receive, send)

    async with serving(app) as served:
        await served.ask()
        await served.ask()
    assert found == [{"key": "value"}] * 2


@in_loop
async def test_start_up_has_its_time() -> None:
    diary = Diary()
    diary.waits["startup"] = asyncio.Event()
    served = Serving(diary, startup=0.05)
    with pytest.raises(StartupFailed, match=r"within 0\.05 s"):
        await served.server.start(served.ports)
    await served.server.stop()
    await turns()
    assert diary.lines == ["startup", "startup cancelled"]


@in_loop
async def test_start_that_is_cancelled_cancels_the_application_s() -> None:
    diary = Diary()
    diary.waits["startup"] = asyncio.Event()
    served = Serving(diary)
    starting = asyncio.ensure_future(served.server.start(served.ports))
    await turns()
    starting.cancel()
    await asyncio.wait({starting})
    await served.server.stop()
    await turns()
    assert diary.lines == ["startup", "startup cancelled"]


@pytest.mark.parametrize("lifespan", ["auto", "off"])
def test_application_without_lifespan_serves(lifespan: str) -> None:
    scopes: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope["type"])
        assert scope["type"] == "http", "not understood"
        await Diary()(scope, receive, send)

    @in_loop
    async def main() -> None:
        async with serving(app, lifespan=lifespan) as served:
            assert b"hello" in await served.ask()

    main()
    assert scopes == (["lifespan", "http"] if lifespan == "auto" else ["http"])


@in_loop
async def test_application_without_lifespan_does_not_start_where_it_is_demanded() -> None:
    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        raise ValueError("only http")

    served = Serving(app, lifespan="on")
    with pytest.raises(StartupFailed, match="only http"):
        await served.server.start(served.ports)
    await served.server.stop()


# --- stop ---


@in_loop
async def test_stop_waits_for_the_request_in_hand_then_ends_the_application() -> None:
    diary = Diary()
    diary.waits["request"] = asyncio.Event()
    served = Serving(diary)
    await served.server.start(served.ports)
    busy = asyncio.ensure_future(served.ask(GET))
    _, idle_writer = await served.connect()
    while "request" not in diary.lines:
        await asyncio.sleep(0.001)
    stopping = asyncio.ensure_future(served.server.stop())
    await turns()
    assert (served.server.stage, served.server.stopping.is_set()) == (DRAINING, True)
    with pytest.raises(ConnectionRefusedError):
        await served.connect()
    await served.server.stop()  # the second call has nothing to do
    assert not stopping.done()
    diary.waits["request"].set()
    answer = await busy
    assert b"connection: close" in answer
    assert answer.endswith(b"hello")
    idle_writer.close()
    await stopping
    assert served.server.stage is STOPPED
    assert served.server.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1)) is None
    assert diary.lines == ["startup", "request", "response", "shutdown"]


@in_loop
async def test_work_after_a_response_is_waited_for() -> None:
    done = asyncio.Event()
    diary, lines = Diary(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await diary(scope, receive, send)
        if scope["type"] == "http":
            await done.wait()
            lines.append("worked on")

    served = Serving(app)
    await served.server.start(served.ports)
    reader, writer = await served.connect()
    writer.write(GET * 2)  # the first call lingers while its connection goes on
    while diary.lines.count("response") < 2:
        await asyncio.sleep(0.001)
    stopping = asyncio.ensure_future(served.server.stop())
    assert (await reader.read()).count(b"hello") == 2
    assert not stopping.done()
    done.set()
    await stopping
    writer.close()
    assert lines == ["worked on"] * 2


@in_loop
async def test_grace_period_ends_with_a_cancellation() -> None:
    diary = Diary()
    diary.waits["request"] = asyncio.Event()
    served = Serving(diary, graceful=0.1, application_cancel=0.1)
    await served.server.start(served.ports)
    asking = asyncio.ensure_future(served.ask(GET))
    while "request" not in diary.lines:
        await asyncio.sleep(0.001)
    await served.server.stop()
    with pytest.raises(ConnectionResetError):
        await asking
    assert diary.lines == ["startup", "request", "cancelled", "shutdown"]


def test_call_that_ignores_even_that_is_abandoned_by_name(caplog: pytest.LogCaptureFixture) -> None:
    free = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await Diary()(scope, receive, send)
        while scope["type"] == "http" and not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue

    @in_loop
    async def main() -> None:
        served = Serving(app, graceful=0.1, application_cancel=0.05)
        await served.server.start(served.ports)
        asking = asyncio.ensure_future(served.ask(GET))
        while not served.server.running:
            await asyncio.sleep(0.001)
        await served.server.stop()
        assert served.server.stage is STOPPED
        free.set()
        with pytest.raises(ConnectionResetError):
            await asking

    with caplog.at_level(logging.INFO, "termserver"):
        main()
    assert "GET /: still running after it was cancelled: abandoned" in caplog.text


def test_application_that_does_not_end_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    diary = Diary()

    @in_loop
    async def main() -> None:
        diary.waits["shutdown"] = asyncio.Event()
        async with serving(diary, graceful=0.1, application_cancel=0.05):
            pass
        await turns()

    main()
    assert diary.lines == ["startup", "shutdown", "shutdown cancelled"]
    assert "did not shut down" in caplog.text


@in_loop
async def test_server_that_never_started_stops() -> None:
    diary = Diary()
    server = Server(Config(logging=Logging(access_log=None)), diary)
    server.loop = asyncio.get_running_loop()
    await server.stop()
    assert server.stage is STOPPED
    assert diary.lines == []


# --- capacity ---


@in_loop
async def test_full_server_pauses_its_ports_and_resumes_when_one_leaves() -> None:
    async with serving(Diary(), limits=Limits(connections=2)) as served:
        writers = [(await served.connect())[1] for _ in range(2)]
        while not served.ports.paused:
            await asyncio.sleep(0.001)
        waiting = asyncio.ensure_future(served.ask())
        await asyncio.sleep(0.02)
        assert not waiting.done()
        writers[0].close()
        assert b"hello" in await waiting
        writers[1].close()


@in_loop
async def test_those_that_have_been_idle_longest_are_shed_first() -> None:
    async with serving(Diary(), limits=Limits(connections=10)) as served:
        clients = [await served.connect() for _ in range(10)]
        for reader, writer in clients:  # in this order they became idle
            writer.write(GET)
            await reader.readuntil(b"hello")
        reader, writer = clients[0]  # and the first one once more
        writer.write(GET)
        await reader.readuntil(b"hello")
        assert await clients[1][0].read() == b""
        assert len(served.server.connections) == 9
        for _, writer in clients:
            writer.close()


@pytest.mark.parametrize(("files", "capacity"), [
    (64, 32), (100, 68), (1_024, 896), (20_000, 10_000), (1 << 20, 10_000), (resource.RLIM_INFINITY, 10_000), (8, 1),
])  # fmt: skip
def test_capacity_follows_from_the_open_file_limit(monkeypatch: pytest.MonkeyPatch, files: int, capacity: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (files, files))
    assert default_capacity() == capacity


@in_loop
async def test_many_clients_at_once_are_all_served_and_forgotten() -> None:
    async with serving(Diary()) as served:
        answers = await asyncio.gather(*[served.ask() for _ in range(200)])
        assert all(answer.endswith(b"hello") for answer in answers)
        while served.server.connections:
            await asyncio.sleep(0.001)
        assert served.server.running == 0


# --- WebSockets ---


class Sockets(Diary):
    """An application that accepts every WebSocket and listens to it."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[int] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            await super().__call__(scope, receive, send)
            return
        await receive()
        await send(accept())
        while (message := await receive())["type"] != "websocket.disconnect":
            pass
        self.ends.append(message["code"])


async def open_socket(served: Serving) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await served.connect()
    writer.write(handshake())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    return reader, writer


@pytest.mark.parametrize(("restarting", "code"), [(False, 1001), (True, 1012)], ids=["stop", "restart"])
def test_l46_stopping_says_goodbye_to_websockets(monkeypatch: pytest.MonkeyPatch, code: int, *, restarting: bool) -> None:
    monkeypatch.setattr(websocket_module.random, "random", lambda: 0.0)  # each at once

    @in_loop
    async def main() -> None:
        app = Sockets()
        served = Serving(app)
        await served.server.start(served.ports)
        clients = [await open_socket(served) for _ in range(3)]
        stopping = asyncio.ensure_future(served.server.stop(restarting=restarting))
        for reader, writer in clients:
            [farewell] = read_frames(await reader.readexactly(2 + 2 + len("the server stops")))
            assert (farewell.code, farewell.payload[2:]) == (code, b"the server stops")
            writer.write(close(code))
            assert await reader.read() == b""
            writer.close()
        await stopping
        assert app.ends == [code] * 3
        assert app.lines == ["startup", "shutdown"]
        assert not served.server.connections

    main()


@in_loop
async def test_websockets_count_as_connections_and_leave_room_when_they_end() -> None:
    async with serving(Sockets(), limits=Limits(connections=2)) as served:
        clients = [await open_socket(served) for _ in range(2)]
        while not served.ports.paused:
            await asyncio.sleep(0.001)
        assert all(isinstance(connection, SocketConnection) for connection in served.server.connections)
        waiting = asyncio.ensure_future(served.ask())
        clients[0][1].write(close(1000))
        assert b"hello" in await waiting
        for _, writer in clients:
            writer.close()


@in_loop
async def test_l42_idle_websockets_are_not_shed() -> None:
    async with serving(Sockets(), limits=Limits(connections=10)) as served:
        sockets = [await open_socket(served) for _ in range(9)]
        reader, writer = await served.connect()
        writer.write(GET)
        await reader.readuntil(b"hello")
        assert await reader.read() == b""  # the one that waits for nothing
        assert len(served.server.connections) == 9
        for _, each in [(reader, writer), *sockets]:
            each.close()


def test_handshake_is_judged_and_refused_while_the_server_stops() -> None:
    request = SocketTalk(b"Origin: https://a.example").request
    server = Server(Config(logging=Logging(access_log=None), allowed_origins=("HTTPS://A.example",)), Sockets())
    assert server.judge_handshake(request).key == KEY
    with pytest.raises(HandshakeRefused) as refused:
        server.judge_handshake(SocketTalk(b"Origin: https://b.example").request)
    assert refused.value.status == 403
    server.stage = DRAINING
    with pytest.raises(HandshakeRefused) as refused:
        server.judge_handshake(request)
    assert refused.value.status == 503


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        ((1002, "an unknown opcode"), "Closed a WebSocket with 1002: an unknown opcode"),
        ((1009, "a message that is too large"), "Closed a WebSocket with 1009: a message that is too large (limits: --websocket-max-"),
        (None, "Closed a WebSocket with 0: "),
    ],
)
def test_failure_of_a_websocket_is_one_line(caplog: pytest.LogCaptureFixture, failure: tuple[int, str] | None, line: str) -> None:
    server = Server(Config(logging=Logging(access_log=None)), Sockets())
    with caplog.at_level(logging.INFO, "termserver"):
        server.failed(failure)
    [record] = caplog.records
    assert record.levelname == "INFO"
    assert record.getMessage().startswith(line)


@pytest.mark.parametrize(("form", "steps"), [("daphne", ["WSCONNECT /socket"]), ("common", []), (None, [])])
def test_steps_of_a_websocket_are_logged_where_the_format_has_lines_for_them(form: str | None, steps: list[str]) -> None:
    lines: list[str] = []
    sink: Any = SimpleNamespace(write=lines.extend)
    server = Server(Config(logging=Logging(access_log=None)), Sockets(), access_log=AccessLog(form, sink) if form else None)
    talk = SocketTalk()
    server.log_step("CONNECT", talk.exchange, ("192.0.2.1", 80))
    if server._access_log is not None:
        server._access_log.flush()
    assert [line.split('"')[1] for line in lines] == steps


@in_loop
async def test_websocket_of_a_server_that_counts_no_connections_ends_as_quietly() -> None:
    app = Sockets()
    async with serving(app, limits=Limits(connections=0), connection_age=1_000.0) as served:
        _, writer = await open_socket(served)
        writer.close()
        while not app.ends or served.server.connections:
            await asyncio.sleep(0.001)
    assert app.ends == [1006]
