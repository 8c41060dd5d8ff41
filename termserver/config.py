"""What a server may be told: frozen dataclasses, one validation, read once.

Every field is one option; `options.py` says how it is spelled as flag, environment variable and file key, and merges the sources
(argv > environment > file > default). Times are seconds, sizes bytes; 0 turns a limit off. Nothing here reads a file, a
variable or a clock, and nothing but types is checked when an object is made: `Config.problems` finds everything that is wrong at
once, so that whoever starts the server hears of all of it in one go.
"""

import logging
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from ipaddress import IPv6Address, ip_network
from typing import TypeAlias

from hyperlink import URL, URLParseError

from termserver.errors import ConfigError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8_000
LAST_PORT = 65_535
DEBUG_VERBOSITY = 3  # daphne's -v 3

LOG_LEVELS = ("critical", "error", "warning", "info", "debug")
ACCESS_FORMATS = ("common", "combined", "json", "daphne")
LIFESPANS = ("auto", "on", "off")
TLS_VERSIONS = ("1.2", "1.3")
CLIENT_CERTIFICATES = ("none", "optional", "required")
UNDERSCORES = ("drop", "reject", "allow")
STOP_CODES = (1001, 1012)

# Fields of Limits and Timeouts that protect from nothing: 0 is a value like any other, or refused.
NO_PROTECTION = ("backlog", "body_rate_grace")

_SOCKET_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.@-]*")  # less than systemd allows: a number is a descriptor
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9.])?")
_ORIGIN = re.compile(
    r"null|[A-Za-z][A-Za-z0-9+.-]*://(?:\.?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"  # RFC 6454 §6.1
)
_ALLOWED_HOST = re.compile(r"\.?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
_FIELD_VALUE = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?")  # RFC 9110 §5.5, without obs-text


# --- Addresses ---


@dataclass(frozen=True, slots=True)
class Tcp:
    """A host name or address and a port; port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        """`host:port`, an IPv6 address in brackets; a host named unix is no path."""
        if self.host == "unix":
            return f"tcp://unix:{self.port}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Unix:
    """A socket in the file system."""

    path: str

    def __str__(self) -> str:
        """`unix:/path`."""
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A listening socket that was opened by whoever started us."""

    number: int

    def __str__(self) -> str:
        """`fd://3`."""
        return f"fd://{self.number}"


@dataclass(frozen=True, slots=True)
class Named:
    """The listening sockets that the service manager hands over under a name (systemd.socket(5), FileDescriptorName)."""

    name: str

    def __str__(self) -> str:
        """`fd://https`."""
        return f"fd://{self.name}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A Twisted server endpoint string, handed to Twisted as it is."""

    description: str

    def __str__(self) -> str:
        """Return the string itself."""
        return self.description


Bind: TypeAlias = Tcp | Unix | Descriptor | Named | Endpoint


def parse_bind(text: str, default_port: int = DEFAULT_PORT) -> Bind:
    """Read `host`, `host:port`, `[::1]:port`, `tcp://host:port`, `unix:/path`, `fd://3`, `fd://name`. ValueError says what was expected."""
    scheme, separator, rest = text.partition("://")
    if text.startswith("unix:"):
        return Unix(_unix_path(text))
    if not separator:
        host, port = _host_and_port(text)
        return Tcp(host, default_port if port is None else port)
    if scheme == "tcp":
        host, port = _host_and_port(rest)
        return Tcp(host, default_port if port is None else port)
    if scheme == "fd" and rest.isascii() and rest.isdecimal():
        return Descriptor(int(rest))
    if scheme == "fd" and _SOCKET_NAME.fullmatch(rest):
        return Named(rest)
    raise ValueError("expected host, host:port, [IPv6]:port, tcp://host:port, unix:/path, fd://NUMBER or fd://NAME")


def takes_port(text: str) -> bool:
    """Whether this address is a host that leaves its port to `--port`. The text is one that `parse_bind` takes."""
    return parse_bind(text, 0) != parse_bind(text, 1)


def _unix_path(text: str) -> str:
    """`unix:/path` and `unix:///path` mean the same. A colon in the path is a character like any other."""
    path = text.removeprefix("unix:")
    path = path.removeprefix("//") if path.startswith("///") else path
    if not path or "\0" in path:
        raise ValueError("expected a path after unix:")
    return path


def _host_and_port(text: str) -> tuple[str, int | None]:
    """Split an authority (RFC 3986 §3.2) that has neither user, path nor query."""
    if _is_ipv6(text):  # daphne takes `-b ::1` without brackets
        return text, None
    try:
        url = URL.from_text(f"tcp://{text}")
    except URLParseError as error:
        raise ValueError(f"expected host or host:port ({error})") from None
    if not _is_ipv6(url.host) and (url.host.isdecimal() or not _HOST.fullmatch(url.host)):
        raise ValueError("expected a host name or an address")  # "8000" is a port that lost its option
    if url.userinfo or url.path or url.query or url.fragment:
        raise ValueError("expected nothing but host and port")
    if url.port is not None and not 0 <= url.port <= LAST_PORT:
        raise ValueError(f"expected a port from 0 to {LAST_PORT}")
    return url.host, url.port


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


# --- What may be set ---


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes and counts (spec rows L1 to L17, L20 to L31, L34, L36 to L38, L41 to L44). 0 = off."""

    request_line: int = 8_192
    field: int = 8_192
    header_bytes: int = 32_768
    header_count: int = 100
    trailer_bytes: int = 16_384
    trailer_count: int = 100
    chunk_line: int = 1_024
    chunk_extensions: int = 16_384
    request_body: int = 0
    body_buffer: int = 65_536
    pipeline_buffer: int = 65_536
    requests_per_connection: int = 0
    discarded_body: int = 1_000_000
    response_buffer: int = 65_536
    websocket_message: int = 1_048_576
    websocket_frame: int = 1_048_576
    websocket_fragments: int = 1_024
    websocket_queue: int = 16
    websocket_pings: int = 300  # a minute
    websocket_deflate_ratio: int = 25  # of a message's size to its compressed size, over 64 KiB
    http2_streams: int = 100
    http2_window: int = 1_048_576  # of a connection, for request bodies
    http2_response_buffer: int = 262_144
    http2_resets: int = 500  # in ten seconds, as the next two
    http2_faults: int = 10
    http2_overhead: int = 10_000
    http2_settings: int = 14  # a minute, as the two after it
    http2_settings_entries: int = 16
    http2_pings: int = 300
    http2_priorities: int = 120
    http2_continuations: int = 8
    http2_header_block: int = 32_768
    http2_empty_frames: int = 100  # in ten seconds, as the next one
    http2_small_data: int = 25_600
    http2_window_updates: int = 10  # for each DATA frame, and twice that a stream
    http2_control_frames: int = 1_000
    http2_control_bytes: int = 65_536
    connections: int | None = None  # None: as many as the process may have open files, less a reserve (row L42)
    connections_per_address: int = 0  # of one IPv4 address, one IPv6 /64; over it a new one is closed (row L43)
    connections_exempt: tuple[str, ...] = ()  # addresses and networks for which that does not hold
    concurrency: int = 0  # application calls running at once; over it 503
    backlog: int = 2_048  # at least 1


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds, all on the monotonic clock (spec rows L12 to L19, L32, L35, L39, L40, L45 to L49, L53). 0 = off."""

    header_read: float = 10.0
    body_idle: float = 60.0
    body_rate: int = 240
    body_rate_grace: float = 5.0
    keep_alive: float = 75.0
    connection_age: float = 0.0
    half_close: float = 1.0
    linger_idle: float = 5.0
    linger_total: float = 30.0
    tls_handshake: float = 10.0
    proxy_header: float = 5.0
    http2_preface: float = 5.0
    http2_settings: float = 5.0
    write_stall: float = 60.0
    write_rate: int = 240
    graceful: float = 30.0
    application_close: float = 10.0
    application_cancel: float = 5.0
    application: float = 0.0
    startup: float = 60.0
    websocket_accept: float = 20.0
    websocket_ping_interval: float = 20.0
    websocket_ping_timeout: float = 30.0
    websocket_close: float = 10.0
    websocket_age: float = 86_400.0


@dataclass(frozen=True, slots=True)
class Tls:
    """HTTPS on every TCP address, once there is a certificate; Unix sockets stay plain.

    `certificates` and `keys` are PEM files, pair by pair; without `keys` each certificate's file holds its key as well. A client that asks
    for a name (SNI) gets the certificate that is for it, any other the first. `clients` says whether clients are asked for certificates of
    their own, which `client_ca` (a PEM file) has to have signed and `client_crl` must not name.
    """

    certificates: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    password: str = ""
    minimum_version: str = "1.2"
    ciphers: str = ""
    clients: str = "none"
    client_ca: str = ""
    client_crl: str = ""


@dataclass(frozen=True, slots=True)
class Proxy:
    """Whose word about the client is taken: RFC 7239 and the X-Forwarded-* fields (`headers`), the PROXY protocol (`protocol`).

    `trusted` holds addresses, networks in CIDR form, `unix` (whoever connects over a Unix socket) and `*` (anyone). It counts
    only while one of them is on. With `protocol` nobody else is served.
    """

    headers: bool = False
    protocol: bool = False
    trusted: tuple[str, ...] = ("unix", "127.0.0.0/8", "::1")
    address_header: str = "X-Forwarded-For"
    port_header: str = "X-Forwarded-Port"


@dataclass(frozen=True, slots=True)
class Logging:
    """What is written where. `access_log` is a path, `-` for standard output, or None for no access log.

    `access_format` is one of `ACCESS_FORMATS` or a format string with %-directives; `format` is one of Python's `logging`.
    """

    level: str = "info"
    format: str = "%(asctime)-15s %(levelname)-8s %(message)s"
    access_log: str | None = "-"
    access_format: str = "common"


@dataclass(frozen=True, slots=True)
class Workers:
    """Worker processes under a supervisor (spec rows L47, L50, L52). 0 = off, but for `count`.

    `count` None serves in the process that was started, without a supervisor; 0 (`auto`) means one for each CPU this process may use. The
    limits are spread by a fifth, so that workers do not come to them together. `heartbeat` is seconds, `age` too, `memory` resident bytes.
    """

    count: int | None = None
    heartbeat: float = 30.0
    requests: int = 0
    age: float = 0.0
    memory: int = 0
    stuck: int = 100  # application calls that go on after they were cancelled
    reload: bool = False
    reload_dirs: tuple[str, ...] = ()

    @property
    def supervised(self) -> bool:
        """Whether there is a supervisor."""
        return self.count is not None or self.reload


@dataclass(frozen=True, slots=True)
class Problem:
    """One value that cannot be used."""

    field: str  # dotted, as in "timeouts.keep_alive"
    expected: str
    got: object

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.field}: {self.fault}"

    @property
    def fault(self) -> str:
        """What is wrong, without the name: the caller may know a better one."""
        return f"expected {self.expected}, got {self.got!r}"


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a server was told.

    `http_redirect_port` is a port on the same hosts that sends plain HTTP to HTTPS with 308.

    `allowed_hosts` are host names without port; `.example.com` stands for the domain and all below it; empty allows any.
    `allowed_origins` are origins that may open WebSockets (`https://example.com`, `https://.example.com` with all below it); empty
    allows any.
    `control_socket` is the path of the socket through which a supervisor is asked; "" a place made of the application's name, "none" none.
    `websocket_stop_code` is the close code of WebSockets when the server stops: 1001 (going away) or 1012 (service restart).
    `server_name` "" sends no Server field. `verbosity` is daphne's `-v`; what follows from it (level, access log) is already in
    `logging` when the options made this object.
    """

    application: str | Callable[..., object] = ""
    factory: bool = False
    app_dir: str = "."
    lifespan: str = "auto"
    root_path: str = ""
    bind: tuple[Bind, ...] = (Tcp(DEFAULT_HOST, DEFAULT_PORT),)
    server_name: str = "termserver"
    date_header: bool = True
    underscore_headers: str = "drop"
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    websocket_deflate: bool = True
    websocket_stop_code: int = 1001
    verbosity: int = 1
    http_redirect_port: int | None = None
    http2: bool = True
    http2_upgrade: bool = False
    tls: Tls = field(default_factory=Tls)
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    proxy: Proxy = field(default_factory=Proxy)
    logging: Logging = field(default_factory=Logging)
    workers: Workers = field(default_factory=Workers)
    control_socket: str = ""

    @property
    def debug(self) -> bool:
        """Whether asyncio's debug mode is on (daphne's `-v 3`)."""
        return self.verbosity >= DEBUG_VERBOSITY

    def validate(self) -> None:
        """Raise ConfigError with one line for each problem."""
        problems = self.problems()
        if problems:
            raise ConfigError("\n".join(map(str, problems)))

    def problems(self) -> list[Problem]:
        """Everything that is wrong."""
        return [
            *self._application_problems(),
            *self._number_problems(),
            *self._choice_problems(),
            *self._text_problems(),
            *_network_problems("proxy.trusted", self.proxy.trusted, ("unix", "*")),
            *_network_problems("limits.connections_exempt", self.limits.connections_exempt),
            *self._gate_problems(),
            *_bind_problems(self.bind),
            *self._tls_problems(),
            *self._worker_problems(),
        ]

    def warnings(self) -> list[str]:
        """List what is allowed but worth a line at start-up: protections that are on by default and were turned off."""
        off = [
            f"{group}.{each.name}"
            for group, values in (("limits", self.limits), ("timeouts", self.timeouts))
            for each in fields(values)
            if getattr(values, each.name) == 0 and each.default != 0 and each.name not in NO_PROTECTION
        ]
        return [f"turned off, although on by default for safety: {', '.join(off)}"] if off else []

    def _application_problems(self) -> Iterator[Problem]:
        if isinstance(self.application, str) and not self.application:
            yield Problem("application", "an application, as in package.module:name", self.application)

    def _number_problems(self) -> Iterator[Problem]:
        for group, values in (("limits", self.limits), ("timeouts", self.timeouts)):
            for each in fields(values):
                value = getattr(values, each.name)
                if isinstance(value, int | float) and not 0 <= value < math.inf:  # NaN compares false too
                    yield Problem(f"{group}.{each.name}", "0 (off) or more", value)
        if self.limits.backlog == 0:
            yield Problem("limits.backlog", "1 or more", 0)
        if self.verbosity not in range(4):
            yield Problem("verbosity", "0, 1, 2 or 3", self.verbosity)

    def _choice_problems(self) -> Iterator[Problem]:
        for name, value, choices in (
            ("lifespan", self.lifespan, LIFESPANS),
            ("underscore_headers", self.underscore_headers, UNDERSCORES),
            ("logging.level", self.logging.level, LOG_LEVELS),
            ("tls.minimum_version", self.tls.minimum_version, TLS_VERSIONS),
            ("tls.clients", self.tls.clients, CLIENT_CERTIFICATES),
        ):
            if value not in choices:
                yield Problem(name, f"{', '.join(choices[:-1])} or {choices[-1]}", value)

    def _worker_problems(self) -> Iterator[Problem]:
        workers = self.workers
        for each in fields(workers):
            value = getattr(workers, each.name)
            if isinstance(value, int | float) and not 0 <= value < math.inf:
                yield Problem(f"workers.{each.name}", "0 or more", value)
        if workers.supervised:
            if not isinstance(self.application, str):
                yield Problem("application", "an import string (package.module:name), which workers can import", self.application)
            if any(isinstance(bind, Endpoint) for bind in self.bind):
                yield Problem("bind", "no Twisted endpoint string: workers cannot share one", "endpoint")
        else:
            for name in ("requests", "age", "memory"):
                if getattr(workers, name):
                    yield Problem(f"workers.{name}", "workers (--workers) beside it", getattr(workers, name))
        if workers.reload_dirs and not workers.reload:
            yield Problem("workers.reload_dirs", "--reload beside it", workers.reload_dirs)

    def _gate_problems(self) -> Iterator[Problem]:
        per_address, elsewhere = self.limits.connections_per_address, any(isinstance(bind, Endpoint) for bind in self.bind)
        if self.proxy.protocol and elsewhere:
            yield Problem("proxy.protocol", "no Twisted endpoint string beside it: haproxy:… is Twisted's own way", True)
        if self.proxy.protocol and not self.proxy.trusted:
            yield Problem("proxy.trusted", "somebody who may send PROXY headers: nobody else is served", ())
        if per_address and elsewhere:
            yield Problem(
                "limits.connections_per_address", "no Twisted endpoint string beside it: its connections are not counted", per_address
            )
        if self.limits.connections_exempt and not per_address:
            yield Problem("limits.connections_exempt", "--limit-connections-per-address beside it", self.limits.connections_exempt)

    def _tls_problems(self) -> Iterator[Problem]:
        tls = self.tls
        if tls.keys and len(tls.keys) != len(tls.certificates):
            yield Problem("tls.keys", "as many keys as certificates, or none where they are in the same files", tls.keys)
        if tls.clients != "none" and not tls.client_ca:
            yield Problem("tls.client_ca", "the certificates that clients' own are signed with", "")
        if tls.clients == "none" and (tls.client_ca or tls.client_crl):  # whoever gives them thinks that clients are looked at
            yield Problem("tls.clients", "optional or required, beside what their certificates are judged by", tls.clients)
        if not tls.certificates:
            if tls.clients != "none":
                yield Problem("tls.clients", "a certificate (--ssl-certfile) beside it", tls.clients)
            if self.http_redirect_port is not None:
                yield Problem("http_redirect_port", "a certificate (--ssl-certfile) beside it", self.http_redirect_port)
        if self.http_redirect_port is not None and not any(isinstance(bind, Tcp) for bind in self.bind):
            yield Problem("http_redirect_port", "a TCP address (--bind) to redirect to", self.http_redirect_port)

    def _text_problems(self) -> Iterator[Problem]:
        if not _FIELD_VALUE.fullmatch(self.server_name):
            yield Problem("server_name", "printable ASCII", self.server_name)
        for name, value in (("address_header", self.proxy.address_header), ("port_header", self.proxy.port_header)):
            if not _TOKEN.fullmatch(value):
                yield Problem(f"proxy.{name}", "the name of a header", value)
        if self.websocket_stop_code not in STOP_CODES:
            yield Problem("websocket_stop_code", f"{STOP_CODES[0]} or {STOP_CODES[1]}", self.websocket_stop_code)
        for origin in self.allowed_origins:
            if not _ORIGIN.fullmatch(origin):
                yield Problem("allowed_origins", "origins, as in https://example.com (https://.example.com for a whole domain)", origin)
        for host in self.allowed_hosts:
            if not _ALLOWED_HOST.fullmatch(host):
                yield Problem("allowed_hosts", "host names without port (.example.com for a whole domain)", host)
        if self.logging.access_log == "":
            yield Problem("logging.access_log", "a path, or - for standard output", "")
        yield from self._format_problems()

    def _format_problems(self) -> Iterator[Problem]:
        access = self.logging.access_format
        if access not in ACCESS_FORMATS and "%" not in access:
            yield Problem("logging.access_format", f"{', '.join(ACCESS_FORMATS)} or a format string with %-directives", access)
        try:
            logging.Formatter(self.logging.format)
        except ValueError as error:
            yield Problem("logging.format", f"a format string of Python's logging ({error})", self.logging.format)


def _network_problems(name: str, entries: tuple[str, ...], words: tuple[str, ...] = ()) -> Iterator[Problem]:
    for entry in entries:
        if entry in words:
            continue
        try:
            ip_network(entry)
        except ValueError as error:
            more = f", {' or '.join(words)}" if words else ""
            yield Problem(name, f"an address, a network{more} ({error})", entry)


def _bind_problems(binds: tuple[Bind, ...]) -> Iterator[Problem]:
    if not binds:
        yield Problem("bind", "at least one address", binds)
    seen: set[Bind] = set()
    for bind in binds:
        if bind in seen and not (isinstance(bind, Tcp) and bind.port == 0):
            yield Problem("bind", "each address once", str(bind))
        seen.add(bind)
        yield from _one_bind_problems(bind)


def _one_bind_problems(bind: Bind) -> Iterator[Problem]:
    match bind:
        case Tcp(port=port) if not 0 <= port <= LAST_PORT:
            yield Problem("bind", f"a port from 0 to {LAST_PORT}", port)
        case Tcp(host=""):
            yield Problem("bind", "a host name or an address", "")
        case Unix(path="") | Endpoint(description=""):
            yield Problem("bind", "an address", "")
        case Descriptor(number=number) if number < 0:
            yield Problem("bind", "the number of an open descriptor, 0 or more", number)
        case _:
            pass
