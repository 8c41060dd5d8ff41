"""The kinds of load: one entry each, with the budgets that termserver has to keep there.

A scenario is a list of whole requests as bytes, sent in turn on every connection, and what a right answer looks like. What the
load generator sends is therefore exactly what is written here. Over WebSockets the one request is the opening handshake, and `Talk` is what
is said then. Over HTTP/2 the same requests are said by h2load, which knows one list of fields: that of the first request is sent with every
target.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from benchmarks.load.app import GREETING, NEWS, PAGE, UPLOAD_BYTES
from benchmarks.load.frames import BINARY, KEY, TEXT, server_frame

HELLO, PAGE_64K, UPLOAD, STARLETTE, ECHO, BROADCAST = (
    "benchmarks.load.app:app",
    "benchmarks.load.app:page",
    "benchmarks.load.app:upload",
    "benchmarks.load.starlette_app:app",
    "benchmarks.load.app:echo",
    "benchmarks.load.app:broadcast",
)
BEST_PEER = "best peer"


class Load(Enum):
    """How requests arrive: as fast as they are answered, or at a fixed rate whatever the server does; and what sockets do."""

    CLOSED = "closed loop (wrk)"
    STREAMS = "closed loop (h2load)"
    OPEN = "open loop (Poisson arrivals at half of the server's own saturation)"
    ECHO = "closed loop: the next message leaves when the last has come back"
    BROADCAST = "closed loop: two broadcasts in flight"
    LIVES = "closed loop: the next opens when the last has closed"
    IDLE = "open and silent: pings are answered; `core busy` is while they are idle"


class Metric(Enum):
    """What a budget is about; the value names the attribute of a cell."""

    CPU = "cpu_us"
    P99 = "p99_us"
    MEMORY = "socket_kib"


@dataclass(frozen=True, slots=True)
class Budget:
    """termserver ÷ peer must not exceed `limit`; without a peer, termserver's own figure must not."""

    peer: str | None
    limit: float
    metric: Metric = Metric.CPU


@dataclass(frozen=True, slots=True)
class Talk:
    """What is said over a WebSocket: messages of `size` bytes, told apart by connection, come back unless there is a `reply`."""

    opcode: int
    size: int
    reply: bytes | None = None

    def message(self, number: int) -> bytes:
        """Answer what connection `number` says."""
        return (b"%08d" % number).ljust(self.size, b".")

    def answer(self, number: int) -> bytes:
        """Answer what it hears."""
        return self.message(number) if self.reply is None else self.reply


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load. `answer` is the body of a right answer, or its frame; `depth` requests are written at once, or open as streams.

    `counted` is what there are `connections` or requests of. A scenario with a `talk` is about WebSockets, one with `tls` is over that.
    """

    name: str
    about: str
    requests: tuple[bytes, ...]
    app: str = HELLO
    answer: bytes = GREETING
    connections: int = 64
    depth: int = 1
    access_log: bool = False
    load: Load = Load.CLOSED
    budgets: tuple[Budget, ...] = ()
    counted: str = "request"
    talk: Talk | None = None
    tls: bool = False

    @property
    def http2(self) -> bool:
        """Whether the requests are said in HTTP/2: with prior knowledge, or as agreed on over TLS."""
        return self.load is Load.STREAMS

    @property
    def scheme(self) -> str:
        """The scheme of its addresses."""
        return "https" if self.tls else "http"

    @property
    def headline(self) -> Metric:
        """The figure that counts."""
        return Metric.MEMORY if self.load is Load.IDLE else Metric.CPU


_HOST = b"Host: www.example.org\r\n"
_BROWSER = (
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    b"Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Connection: keep-alive\r\n"
    b"Cookie: sessionid=k3v9q0x7m2a8w5z1r6t4y0u3; csrftoken=Q1w2E3r4T5y6U7i8O9p0A1s2D3f4G5h6; theme=dark\r\n"
    b"Upgrade-Insecure-Requests: 1\r\n"
    b"Sec-Fetch-Dest: document\r\n"
    b"Sec-Fetch-Mode: navigate\r\n"
    b"Sec-Fetch-Site: same-origin\r\n"
)


def request(method: bytes = b"GET", target: bytes = b"/", fields: bytes = b"", body: bytes = b"") -> bytes:
    """Put a whole request together."""
    return b"%b %b HTTP/1.1\r\n%b%b\r\n%b" % (method, target, _HOST, fields, body)


def browser(target: bytes = b"/articles/2026/11/", referer: bytes = b"https://www.example.org/articles/") -> bytes:
    """Answer what a browser sends for a page: 12 fields, about 600 bytes."""
    return request(target=target, fields=_BROWSER + b"Referer: %b\r\n" % referer)


def _chunked(size: int, chunk: int) -> bytes:
    return b"%x\r\n%b\r\n" % (chunk, b"u" * chunk) * (size // chunk) + b"0\r\n\r\n"


def _many_paths(count: int) -> tuple[bytes, ...]:
    paths = [b"/articles/2026/%02d/article-number-%d?page=%d&sort=newest" % (i % 12 + 1, i, i % 7) for i in range(count)]
    return tuple(browser(path, b"https://www.example.org" + paths[i - 1]) for i, path in enumerate(paths))


_OPENING = (
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0\r\n"
    b"Accept: */*\r\n"
    b"Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"Origin: https://www.example.org\r\n"
    b"Sec-WebSocket-Key: " + KEY + b"\r\n"
    b"Connection: keep-alive, Upgrade\r\n"
    b"Cookie: sessionid=k3v9q0x7m2a8w5z1r6t4y0u3; csrftoken=Q1w2E3r4T5y6U7i8O9p0A1s2D3f4G5h6; theme=dark\r\n"
    b"Upgrade: websocket\r\n"
)
_OFFER = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"


def _sockets(name: str, about: str, load: Load, talk: Talk, counted: str = "message", *, app: str = ECHO, offer: bytes = b"",
             connections: int = 64, budgets: tuple[Budget, ...] = ()) -> Scenario:  # fmt: skip
    """Answer a scenario over WebSockets that are opened with a browser's fields; `offer` is the field with the extensions."""
    requests, answer = (request(target=b"/room/7/", fields=_OPENING + offer),), server_frame(talk.opcode, talk.answer(0))
    return Scenario(name, about, requests, app, answer, connections, load=load, budgets=budgets, counted=counted, talk=talk)


def _streams(name: str, about: str, requests: tuple[bytes, ...], *budgets: Budget, app: str = HELLO, answer: bytes = GREETING,
             connections: int = 32, depth: int = 10, tls: bool = False) -> Scenario:  # fmt: skip
    """Answer a scenario over HTTP/2."""
    return Scenario(name, about, requests, app, answer, connections, depth, load=Load.STREAMS, budgets=budgets, tls=tls)


_UPLOAD_TYPE = b"Content-Type: application/octet-stream\r\n"
_SIZED = request(b"POST", b"/upload", _UPLOAD_TYPE + b"Content-Length: %d\r\n" % UPLOAD_BYTES, b"u" * UPLOAD_BYTES)
_CHUNKED = request(b"POST", b"/upload", _UPLOAD_TYPE + b"Transfer-Encoding: chunked\r\n", _chunked(UPLOAD_BYTES, 1 << 14))
_COUNTED = b"%d" % UPLOAD_BYTES
_HEAD_BUDGETS = (Budget("granian", 0.85), Budget("uvicorn", 0.62))
_BULK_BUDGETS = (Budget(BEST_PEER, 1.0),)

_ALL = (
    Scenario("plain", "keep-alive, 1 header", (request(),)),
    Scenario("browser", "12 browser headers, one path", (browser(),), budgets=_HEAD_BUDGETS),
    Scenario("browser-paths", "12 browser headers, 500 paths with query, Referer varies", _many_paths(500), budgets=_HEAD_BUDGETS),
    Scenario("access-log", "12 browser headers, access log to a file", (browser(),), access_log=True,
             budgets=(Budget("uvicorn", 0.60),)),
    Scenario("response-64k", "response of 64 KiB in one message", (browser(),), PAGE_64K, PAGE, connections=16, budgets=_BULK_BUDGETS),
    Scenario("upload-1m", "POST of 1 MiB with Content-Length", (_SIZED,), UPLOAD, _COUNTED, connections=8, budgets=_BULK_BUDGETS),
    Scenario("upload-chunked", "POST of 1 MiB in chunks of 16 KiB", (_CHUNKED,), UPLOAD, _COUNTED, connections=8, budgets=_BULK_BUDGETS),
    Scenario("starlette", "12 browser headers, Starlette", (browser(),), STARLETTE),
    Scenario("pipelined", "12 browser headers, 16 requests at once", (browser(),), depth=16),
    Scenario("connections", "a connection for every request", (request(fields=b"Connection: close\r\n"),)),
    Scenario("https", "12 browser headers over TLS", (browser(),), budgets=(Budget("granian", 1.10), Budget("uvicorn", 0.65)), tls=True),
    _streams("h2", "HTTP/2, browser headers, one path", (browser(),), Budget("granian", 0.75)),
    _streams("h2-paths", "HTTP/2, browser headers, 500 paths with query", _many_paths(500), Budget("granian", 1.0),
             Budget("hypercorn", 0.06)),
    _streams("h2-64k", "HTTP/2, response of 64 KiB in one message", (browser(),), *_BULK_BUDGETS, app=PAGE_64K, answer=PAGE),
    # Fewer at once, as over HTTP/1.1: what is half done when the time is up has cost the server something and is not counted.
    _streams("h2-upload", "HTTP/2, POST of 1 MiB with Content-Length", (_SIZED,), *_BULK_BUDGETS, app=UPLOAD, answer=_COUNTED,
             connections=8, depth=2),
    _streams("h2-tls", "HTTP/2 over TLS, browser headers, one path", (browser(),), tls=True),
    Scenario("latency", "12 browser headers, latency at 50 % of saturation", (browser(),), load=Load.OPEN,
             budgets=(Budget(BEST_PEER, 1.0, Metric.P99),)),
    _sockets("ws-echo-64", "echo of text messages of 64 bytes, no extension", Load.ECHO, Talk(TEXT, 64),
             budgets=(Budget(BEST_PEER, 0.70),)),
    _sockets("ws-echo-16k", "echo of binary messages of 16 KiB, no extension", Load.ECHO, Talk(BINARY, 1 << 14),
             budgets=(Budget(BEST_PEER, 0.75),)),
    _sockets("ws-broadcast", "a text message of 200 bytes to all, sent by one loop of the application; deliveries are counted",
             Load.BROADCAST, Talk(TEXT, 16, NEWS.encode()), "delivery", app=BROADCAST, connections=1000,
             budgets=(Budget("uvicorn", 0.60),)),
    _sockets("ws-connect", "opening handshake, one echo of 64 bytes, closing handshake", Load.LIVES, Talk(TEXT, 64), "connection",
             connections=32),  # fewer than Twisted lets wait (50): a connection refused room comes again after a second
    _sockets("ws-idle", "memory per WebSocket after one echo of 64 bytes, permessage-deflate offered", Load.IDLE, Talk(TEXT, 64), "socket",
             offer=_OFFER, connections=10_000, budgets=(Budget(None, 8.0, Metric.MEMORY),)),
)  # fmt: skip
SCENARIOS = {scenario.name: scenario for scenario in _ALL}
