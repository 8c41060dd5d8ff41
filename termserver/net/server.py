"""Server: the life of one worker. STARTING -> SERVING -> DRAINING -> STOPPED.

Starting: the application's lifespan, then the ports, so nothing is accepted before the application is ready. Draining: the ports close,
idle
connections end, busy ones answer `Connection: close`; the last connection resolves one future. What is left when the grace period ends is
told, cancelled, cut. Then lifespan's shutdown, bounded. A worker's shared parts (parser, deadlines, limits, access log) live here.
"""

import asyncio
import contextvars
import logging
import resource
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final

from h2.errors import ErrorCodes
from twisted.internet.interfaces import IAddress, IProtocolFactory, IProtocolNegotiationFactory
from zope.interface import implementer

from termserver.asgi.app import Application
from termserver.asgi.lifespan import Lifespan
from termserver.asgi.proxy import TrustedProxies
from termserver.asgi.scope import Scope, base_scope, websocket_scope
from termserver.asgi.websocket import WebSocketExchange
from termserver.config import Config
from termserver.errors import StartupFailed
from termserver.net.connection import Connection
from termserver.net.deadlines import Deadlines, Timed
from termserver.net.departures import Departures, Exchange
from termserver.net.http2 import Http2Connection
from termserver.net.ports import Ports, connection_facts
from termserver.net.streams import StreamTransport
from termserver.net.websocket import SocketConnection
from termserver.observe.access import AccessLog
from termserver.observe.log import RateLimited
from termserver.wire.events import Rejected, Request
from termserver.wire.fields import NO_BODY, Underscores
from termserver.wire.h2head import HeadRules
from termserver.wire.h2response import ResponseEncoder
from termserver.wire.h2terms import Http2Terms
from termserver.wire.handshake import HandshakeRefused, Opening, normal_origin, read_opening
from termserver.wire.head import HeadParser
from termserver.wire.http1 import Http1
from termserver.wire.http2 import Http2
from termserver.wire.response import DefaultFields
from termserver.wire.websocket import Terms

logger = logging.getLogger("termserver")
AnyConnection = Connection | Http2Connection | SocketConnection
_CLIENT_LEFT: Final = 499  # nginx's status for a client that left before it was answered
_SHED_AT: Final = 0.9  # of the connections a worker takes
_TOO_BIG: Final = 1009
_LIMIT_HINT: Final = " (limits: --websocket-max-message-size, -max-frame-size, -max-fragments, --ws-deflate-max-ratio)"
_SERVICE_RESTART: Final = 1012
_TURNS: Final = 5
_HANDSHAKES: Final = 1.0  # seconds that those have, at the end, that go on
_FEW_SOCKETS: Final = 20  # fewer clients that come back are no storm: whoever stops the server need not wait for them
_FAREWELLS_A_SECOND: Final = 5_000  # WebSockets that are closed a second at the most (spec limits L46)


class Stage(Enum):
    """Where a worker is in its life."""

    STARTING = auto()
    SERVING = auto()
    DRAINING = auto()
    STOPPED = auto()


STARTING, SERVING, DRAINING, STOPPED = Stage


@implementer(IProtocolFactory, IProtocolNegotiationFactory)
class Server:
    """One worker's server; the factory of its connections."""

    noisy = False  # Twisted's: no log line per port

    def __init__(self, config: Config, app: Application, *, access_log: AccessLog | None = None) -> None:
        """Put the shared parts together; nothing is opened yet."""
        self.config = config
        self.app = app
        self.stage = STARTING
        self.connections: set[AnyConnection] = set()
        self._on_streams = 0  # WebSockets that are streams of another connection
        self.running = self.ended = 0  # application calls
        self.watches_calls = False  # whether somebody wants to know when one ends
        self._access_log = access_log
        self.times_requests = access_log is not None or config.timeouts.connection_age > 0
        self._capacity = config.limits.connections if config.limits.connections is not None else default_capacity()
        self._heads = HeadParser(
            config.limits,
            underscores=Underscores(config.underscore_headers),
            allowed_hosts=frozenset(host.lower().encode() for host in config.allowed_hosts),
            upgrades_http2=config.http2 and config.http2_upgrade,
        )
        self._defaults = DefaultFields(config.server_name.encode())
        self._encoder = ResponseEncoder(config.server_name.encode())
        rules = HeadRules(
            config.limits,
            underscores=Underscores(config.underscore_headers),
            allowed_hosts=frozenset(host.lower().encode() for host in config.allowed_hosts),
        )
        self._http2_terms = Http2Terms(config.limits, rules, self._encoder)
        self.deadlines = Deadlines(interval=_shortest_timeout(config) / 4)
        self.departures = Departures(self.deadlines, config.timeouts)
        self._lingering: set[Exchange] = set()  # calls that go on after their response
        self._rejections = RateLimited(logger)
        self.proxies = (
            TrustedProxies(config.proxy.trusted, config.proxy.address_header, config.proxy.port_header) if config.proxy.headers else None
        )
        self.lifespan = Lifespan(app, required=config.lifespan == "on")
        self.state: dict[str, Any] = self.lifespan.state
        self.stopping = asyncio.Event()
        self.extensions: dict[str, dict[str, object]] = {
            "http.response.trailers": {},
            "http.response.early_hint": {},
            "http.response.pathsend": {},
            "http.response.zerocopysend": {},
            "termserver.shutdown": {"event": self.stopping},
        }
        self.socket_extensions: dict[str, dict[str, object]] = {
            "websocket.http.response": {},
            "termserver.shutdown": {"event": self.stopping},
        }
        self.socket_terms = Terms(config.limits)
        self._origins = frozenset(map(normal_origin, config.allowed_origins))
        self.farewell_seconds = 0.0  # in which WebSockets are closed when the server stops
        self.farewell_code = config.websocket_stop_code
        self.farewell_reason = "the server stops"
        self._empty: asyncio.Future[None] | None = None
        self._ports: Ports | None = None
        self.loop: asyncio.AbstractEventLoop
        self.context: contextvars.Context

    # ------------------------------------------------------------------ life

    async def start(self, ports: Ports) -> None:
        """Start the application, then accept connections. Raises `StartupFailed`, `ListenError`."""
        self.loop = asyncio.get_running_loop()
        self.context = contextvars.copy_context()
        self._ports = ports
        if self.config.date_header:
            self.deadlines.every_second(self._defaults.set_date)
            self.deadlines.every_second(self._encoder.set_date)
        self.deadlines.every_tick(self._tick)
        self.deadlines.start(self.loop)
        if self.config.lifespan != "off":
            await self._start_application()
        await ports.open(self)
        self.stage = SERVING

    async def _start_application(self) -> None:
        limit = self.config.timeouts.startup
        try:
            async with asyncio.timeout(limit or None):
                await self.lifespan.startup()
        except TimeoutError:
            self.lifespan.cancel()
            message = f"the application did not start within {limit:g} s"
            raise StartupFailed(message) from None
        except asyncio.CancelledError:
            self.lifespan.cancel()
            raise

    async def stop(self, *, restarting: bool = False) -> None:
        """Finish what runs within the grace period, end the rest, then shut the application down.

        `restarting`: another server takes over, so WebSocket clients are told to come back (1012).
        """
        if self.stage is DRAINING or self.stage is STOPPED:
            return
        self.stage = DRAINING
        if restarting:
            self.farewell_code = _SERVICE_RESTART
        self.stopping.set()
        end = time.monotonic() + self.config.timeouts.graceful
        if self._ports is not None:
            await self._ports.close(min(_HANDSHAKES, self.config.timeouts.graceful / 3))
            for _ in range(_TURNS):  # what was accepted in this turn of the loop is still on its way here
                await asyncio.sleep(0)
        await self._drain(end)
        await self._stop_application(max(end - time.monotonic(), self.config.timeouts.application_cancel))
        self.deadlines.stop()
        if self._access_log is not None:
            self._access_log.flush()
        self.stage = STOPPED

    async def _drain(self, end: float) -> None:
        sockets = sum(isinstance(connection, SocketConnection) for connection in self.connections)
        spread = self.config.timeouts.graceful / 3 * min(1.0, sockets / _FEW_SOCKETS)
        self.farewell_seconds = max(spread, sockets / _FAREWELLS_A_SECOND)
        self._tell_all(lambda connection: connection.drain())
        allowance = min(self.config.timeouts.application_cancel, self.config.timeouts.graceful / 3)
        if await self._emptied(end - allowance - time.monotonic()):
            return
        self._tell_all(lambda connection: connection.tell_disconnect())
        if await self._emptied(end - time.monotonic()):
            return
        logger.warning(
            "%d connections and %d application calls are left at the end of the grace period: ended", len(self.connections), self.running
        )
        self._cancel_calls()
        await self._emptied(self.config.timeouts.application_cancel)
        for exchange in self._calls():
            logger.error(
                "%s %s: still running after it was cancelled: abandoned", exchange.request.method, exchange.request.path.decode("ascii")
            )

    def _tell_all(self, say: Callable[[AnyConnection], None]) -> None:
        """Say something to every connection; what goes wrong with one of them must not keep the others from hearing it."""
        for connection in tuple(self.connections):
            try:
                say(connection)
            except Exception:
                logger.exception("A connection could not be told that the server stops")

    def _calls(self) -> set[Exchange]:
        """Give the application calls that still run."""
        current: set[Exchange] = {exchange for connection in self.connections for exchange in connection.exchanges() if exchange.running}
        return current | self._lingering | set(self.departures.exchanges())

    def _cancel_calls(self) -> None:
        calls = self._calls()
        self._tell_all(lambda connection: connection.abort())
        for exchange in calls:
            if exchange.task is not None:
                exchange.task.cancel()

    async def _emptied(self, seconds: float) -> bool:
        """Wait until there is neither a connection nor an application call left; False if it takes longer."""
        if not self.connections and not self.running:
            return True
        if seconds <= 0:
            return False
        self._empty = self.loop.create_future()
        self.watches_calls = True
        done, _ = await asyncio.wait([self._empty], timeout=seconds)
        return bool(done)

    def _note_end(self) -> None:
        """One thing less is running: the last one resolves the future that `stop` waits for."""
        if self._empty is not None and not self.connections and not self.running and not self._empty.done():
            self._empty.set_result(None)

    async def _stop_application(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.lifespan.shutdown()
        except TimeoutError:
            logger.error("The application did not shut down within %.0f s", seconds)  # noqa: TRY400 - there is no traceback to show
            self.lifespan.cancel()

    # ------------------------------------------------------------------ Twisted's factory

    def doStart(self) -> None:
        """Twisted calls it when a port opens."""

    def doStop(self) -> None:
        """Twisted calls it when a port closes."""

    def acceptableProtocols(self) -> list[bytes]:
        """Give the protocols for ALPN on Twisted's TLS endpoints, which fail a handshake that offers some where a factory names none."""
        return [b"h2", b"http/1.1"] if self.config.http2 else [b"http/1.1"]

    def buildProtocol(self, addr: IAddress) -> Connection | None:  # noqa: ARG002 - Twisted's signature
        """Make the protocol of a new connection; none once the server has stopped."""
        if self.stage is STOPPED:
            return None
        return Connection(self, Http1(self._heads, self.config.limits, self._defaults, speaks_http2=self.config.http2))

    def build_http2(self) -> Http2Connection:
        """Make the protocol of a connection on which HTTP/2 was agreed upon."""
        return Http2Connection(self, Http2(self._http2_terms))

    # ------------------------------------------------------------------ what connections say

    @property
    def clients(self) -> int:
        """Count the connections that are sockets of the system's."""
        return len(self.connections) - self._on_streams

    def opened(self, connection: Connection | Http2Connection, pace: Timed) -> None:
        """A connection is there."""
        self.connections.add(connection)
        self.deadlines.add(pace)
        if self.stage is DRAINING:  # it was accepted just before the end began, and brings a request
            connection.drain()
        if self._capacity and self.clients >= self._capacity and self._ports is not None:
            self._ports.pause()

    def closed(self, connection: AnyConnection, pace: Timed) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        if isinstance(connection.transport, StreamTransport):
            self._on_streams -= 1
        self.deadlines.discard(pace)
        if self._ports is not None and self._ports.paused and self.clients < self._capacity and self.stage is SERVING:
            self._ports.resume()
        self._note_end()

    def switched(self, connection: Connection, pace: Timed) -> None:
        """A connection speaks another protocol from now on: what does is there already."""
        self.connections.discard(connection)
        self.deadlines.discard(pace)

    def opened_socket(self, after: SocketConnection) -> None:
        """A WebSocket is there."""
        self.connections.add(after)
        if isinstance(after.transport, StreamTransport):
            self._on_streams += 1
        self.deadlines.add(after.heartbeat)
        if self.stage is DRAINING:
            after.drain()

    def judge_handshake(self, request: Request) -> Opening:
        """Judge a request for a WebSocket. Raises `HandshakeRefused`."""
        if self.stage is DRAINING:
            raise HandshakeRefused(503, "a WebSocket handshake while the server stops")
        return read_opening(request, deflate=self.config.websocket_deflate, origins=self._origins)

    def base_scope(self, transport: Any) -> Scope:
        """Give what all requests of a connection have in common."""
        scheme, client, server = connection_facts(transport)
        return base_scope(scheme=scheme, client=client, server=server, root_path=self.config.root_path)

    def socket_scope(self, base: Scope, request: Request, opening: Opening, tls: dict[str, object] | None) -> Scope:
        """Give the scope of a WebSocket, on whatever connection it is."""
        extensions = self.socket_extensions if tls is None else {**self.socket_extensions, "tls": tls}
        scope = websocket_scope(base, request, opening.subprotocols, extensions, self.state)
        if self.proxies is not None:
            self.proxies.apply(scope)
        return scope

    def left_working(self, exchange: Exchange) -> None:
        """A call goes on after its response while its connection turns to the next request."""
        self._lingering.add(exchange)
        self.watches_calls = True

    def left_behind(self, exchange: Exchange) -> None:
        """A call goes on although its client has left."""
        self.departures.add(exchange)
        self.watches_calls = True

    def call_ended(self, exchange: Exchange) -> None:
        """An application's call is over; somebody may be waiting for it."""
        self.running -= 1
        self.ended += 1
        if not self.watches_calls:
            return
        self._lingering.discard(exchange)
        self.departures.discard(exchange)
        self.watches_calls = bool(self._lingering or self.departures or self._empty)
        self._note_end()

    def rejected(self, rejected: Rejected) -> None:
        """A request was answered by the server itself."""
        self._rejections.log(logging.INFO, rejected.reason, "Answered %d: %s", rejected.status, rejected.reason)

    def failed(self, failure: tuple[int, str] | None) -> None:
        """A WebSocket was closed because its peer broke the protocol or a limit."""
        code, reason = failure or (0, "")
        hint = _LIMIT_HINT if code == _TOO_BIG else ""
        self._rejections.log(logging.INFO, reason, "Closed a WebSocket with %d: %s%s", code, reason, hint)

    def faulted(self, code: int, reason: str) -> None:
        """An HTTP/2 peer broke the protocol or a limit."""
        self._rejections.log(logging.INFO, reason, "Answered the HTTP/2 error %s: %s", ErrorCodes(code).name, reason)

    def cut(self, reason: str) -> None:
        """A connection was ended because its peer did not take part."""
        self._rejections.log(logging.INFO, reason, "Cut a connection: %s", reason)

    def log_step(self, step: str, exchange: WebSocketExchange, client: tuple[str, int] | None) -> None:
        """Write a line for a step in a WebSocket's life, where the format has one."""
        if self._access_log is not None:
            self._access_log.websocket(f"WS{step}", exchange.request, client)

    def record(self, exchange: Exchange, client: tuple[str, int] | None) -> None:
        """Write the access log's line: a WebSocket's at its end, unless the format has one for each of its steps."""
        if self._access_log is not None:
            if isinstance(exchange, WebSocketExchange) and self._access_log.names_websocket_steps:
                if not exchange.accepted:
                    self.log_step("REJECT", exchange, client)
                return
            size = 0 if exchange.request.method == "HEAD" or exchange.status in NO_BODY else exchange.sent
            seconds = time.monotonic() - exchange.started
            try:
                self._access_log.record(exchange.request, client, exchange.status or _CLIENT_LEFT, size, seconds)
            except (TypeError, ValueError, AttributeError) as error:  # the application may have put anything into the request's headers
                self._rejections.log(logging.ERROR, "access log", "Cannot write a line of the access log: %s", error)

    # ------------------------------------------------------------------ now and then

    def facts(self) -> dict[str, int]:
        """Say what there is to do: calls that ended, that run, that ignore their cancellation; connections, and those that were refused."""
        return {
            "requests": self.ended,
            "running": self.running,
            "stuck": self.departures.stuck,
            "connections": self.clients,
            "refused": 0 if self._ports is None else self._ports.refused,
        }

    def _tick(self, _now: float) -> None:
        if self._access_log is not None:
            self._access_log.flush()
        if self._capacity and self.clients > self._capacity * _SHED_AT:
            self._shed(self.clients - int(self._capacity * _SHED_AT))

    def _shed(self, count: int) -> None:
        """Close idle connections, those first that have waited longest (spec limits L42)."""
        connections = [connection for connection in self.connections if not isinstance(connection, SocketConnection)]
        idle = [(since, id(connection), connection) for connection in connections if (since := connection.idle_since) is not None]
        idle.sort()
        count -= sum(connection.leaves for connection in connections)
        for _, _, connection in idle[: max(count, 0)]:
            connection.idle_for_too_long()
        if idle and count > 0:
            self.cut(f"more than {int(self._capacity * _SHED_AT)} connections")


def default_capacity() -> int:
    """Connections a worker takes: what the open-file limit leaves (spec limits L42)."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return 10_000
    return max(1, min(10_000, files - max(32, files // 8)))


def _shortest_timeout(config: Config) -> float:
    timeouts = config.timeouts
    times = (
        timeouts.header_read,
        timeouts.body_idle,
        timeouts.keep_alive,
        timeouts.linger_idle,
        timeouts.linger_total,
        timeouts.write_stall,
        timeouts.http2_preface,
        timeouts.http2_settings,
        timeouts.application_close,
        timeouts.application_cancel,
        timeouts.application,
        timeouts.half_close,
        timeouts.websocket_ping_interval,
        timeouts.websocket_ping_timeout,
        timeouts.websocket_accept,
        timeouts.websocket_close,
        timeouts.websocket_age,
    )
    return min((seconds for seconds in times if seconds), default=1.0)
