"""What a server may be told: frozen dataclasses, one validation, read once.

Every field is one option. Its docstring line is its help; `options.py` derives flag, environment variable and file key from it,
and merges the sources (argv > environment > file > default). Times are seconds, sizes bytes; 0 turns a limit off.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes and counts (spec rows L1 to L17, L34, L42, L44). 0 = off."""

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
    connections: int | None = None
    backlog: int = 2_048


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds, all on the monotonic clock (spec rows L12 to L18, L35, L45 to L49). 0 = off."""

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
    write_stall: float = 60.0
    write_rate: int = 240
    graceful: float = 30.0
    application_close: float = 10.0
    application_cancel: float = 5.0
    application: float = 0.0
    startup: float = 60.0


@dataclass(frozen=True, slots=True)
class Proxy:
    """Whose word about the client is taken (RFC 7239 and the X-Forwarded-* fields)."""

    headers: bool = False
    trusted: tuple[str, ...] = ()
    address_header: str = "X-Forwarded-For"
    port_header: str = "X-Forwarded-Port"


@dataclass(frozen=True, slots=True)
class Logging:
    """What is written where."""

    level: str = "info"
    format: str = "%(asctime)-15s %(levelname)-8s %(message)s"
    access_log: str | None = "-"
    access_format: str = "common"


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a server was told."""

    application: str = ""
    bind: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    proxy: Proxy = field(default_factory=Proxy)
    logging: Logging = field(default_factory=Logging)
