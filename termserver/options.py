"""How each field of `Config` is spelled.

`OPTIONS` is the one table: from it come the flags (`cli.py`), the `TERMSERVER_*` variables, the keys of the TOML file, the keywords
of `termserver.run` (all three read in `sources.py`) and the table in docs/options.md.
"""

from dataclasses import dataclass
from typing import Final

from termserver.config import (
    ACCESS_FORMATS,
    CLIENT_CERTIFICATES,
    DEFAULT_HOST,
    DEFAULT_PORT,
    LIFESPANS,
    LOG_LEVELS,
    TLS_VERSIONS,
    UNDERSCORES,
    Config,
)
from termserver.kinds import (
    BINDS,
    BYTES,
    COUNT_OR_ALL,
    COUNT_OR_AUTO,
    DESCRIPTOR,
    ENDPOINTS,
    INTEGER,
    ITEMS,
    PATH,
    PATHS,
    PORT,
    SECONDS,
    SECONDS_OR_NEVER,
    SECRET,
    SWITCH,
    TEXT,
    WORD,
    Kind,
)

PREFIX = "TERMSERVER_"


@dataclass(frozen=True, slots=True)
class Option:
    """One option. `field` is its place in Config, dotted; the address options and `config` have none there."""

    field: str
    flags: str  # separated by blanks; the first long one gives variable and file key their name
    kind: Kind
    meaning: str
    metavar: str = ""
    off: str = ""  # the flag that says no
    off_value: object = False
    repeat: bool = False  # each use on the command line adds one
    default: str = ""  # how the default reads, where the bare value would not do

    @property
    def names(self) -> tuple[str, ...]:
        """Every long spelling without the dashes, the principal one first."""
        return tuple(flag.lstrip("-") for flag in self.flags.split() if flag.startswith("--") or flag[0] != "-")

    @property
    def name(self) -> str:
        """The principal spelling."""
        return self.names[0]

    @property
    def flag(self) -> str:
        """The principal spelling as on the command line; the application has no flag."""
        return f"--{self.name}" if "--" in self.flags else self.name

    @property
    def off_name(self) -> str:
        """The negative spelling, or an empty string."""
        return self.off.lstrip("-")


def variable(name: str) -> str:
    """Name the environment variable that belongs to a spelling."""
    return PREFIX + name.upper().replace("-", "_")


GROUPS: Final[dict[str, tuple[Option, ...]]] = {
    "Application": (
        Option("application", "application", TEXT, "Application to serve, as package.module:name.", "APPLICATION", default="none"),
        Option("factory", "--factory", SWITCH, "The name is a function that returns the application.", off="--no-factory"),
        Option("app_dir", "--app-dir", PATH, "Directory put first on the import path.", "DIR"),
        Option("lifespan", "--lifespan", WORD, "Lifespan events: tried, demanded or not sent.", "|".join(LIFESPANS)),
        Option("root_path", "--root-path", TEXT, "Path the application is mounted under (root_path in its scope).", "PATH"),
        Option("config", "--config", PATH, "Options from this TOML file.", "FILE",
               default="termserver.toml, else [tool.termserver] in pyproject.toml"),
    ),
    "Sockets": (
        Option("port", "-p --port", PORT, "TCP port for addresses that name none; 0 takes a free one.", "PORT", default=str(DEFAULT_PORT)),
        Option("bind", "-b --bind --host", BINDS,
               "Address to listen on: HOST, HOST:PORT, [IPv6]:PORT, unix:/PATH or fd://NUMBER. May be repeated.", "ADDRESS",
               repeat=True, default=f"{DEFAULT_HOST}, unless another socket is named"),
        Option("unix_socket", "-u --unix-socket --uds", PATH, "Unix socket to listen on.", "PATH", default="none"),
        Option("fd", "--fd", DESCRIPTOR, "Listening socket inherited as this file descriptor.", "NUMBER", default="none"),
        Option("endpoint", "-e --endpoint", ENDPOINTS, "Twisted server endpoint string. May be repeated.", "STRING",
               repeat=True, default="none"),
        Option("limits.backlog", "--backlog", INTEGER, "Connections the kernel queues before they are accepted.", "COUNT"),
    ),
    "TLS": (
        Option("tls.certificates", "--ssl-certfile --certfile --certificate", PATHS,
               "PEM file with a certificate and its chain: HTTPS on every TCP address. May be repeated: the name asked for decides.",
               "FILE", repeat=True, default="none"),
        Option("tls.keys", "--ssl-keyfile --keyfile", PATHS,
               "PEM file with the certificate's private key, unless that is in the same file. May be repeated, in the same order.", "FILE",
               repeat=True, default="none"),
        Option("tls.password", "--ssl-keyfile-password", SECRET, "Password of the private keys; better said as a variable.", "TEXT"),
        Option("tls.minimum_version", "--ssl-min-version", WORD, "Oldest version of TLS that is spoken.", "|".join(TLS_VERSIONS)),
        Option("tls.ciphers", "--ssl-ciphers", TEXT, "Cipher suites for TLS 1.2, as OpenSSL names them.", "LIST", default="OpenSSL's"),
        Option("tls.clients", "--ssl-client-certs", WORD, "Whether clients are asked for a certificate of their own.",
               "|".join(CLIENT_CERTIFICATES)),
        Option("tls.client_ca", "--ssl-ca-certs", PATH, "PEM file with the certificates that clients' own are signed with.", "FILE",
               default="none"),
        Option("tls.client_crl", "--ssl-crl", PATH, "PEM file with a list of clients' certificates that are revoked.", "FILE",
               default="none"),
        Option("http_redirect_port", "--http-redirect-port", PORT,
               "Port on the same hosts that sends plain HTTP to HTTPS, with 308.", "PORT", default="none"),
    ),
    "HTTP": (
        Option("server_name", "-s --server-name", TEXT, "Value of the Server header.", "NAME", "--no-server-name", ""),
        Option("date_header", "--date-header", SWITCH, "Send a Date header.", off="--no-date-header"),
        Option("underscore_headers", "--underscore-headers", WORD,
               "What becomes of request headers with an underscore in their name.", "|".join(UNDERSCORES)),
        Option("allowed_hosts", "--allowed-hosts", ITEMS,
               "Host names that are answered, separated by commas; .example.com includes subdomains. Others get 400.", "HOSTS",
               default="any"),
    ),
    "HTTP/2": (
        Option("http2", "--http2", SWITCH, "Speak HTTP/2, by ALPN over TLS and with prior knowledge without.", off="--no-http2"),
        Option("http2_upgrade", "--http2-upgrade", SWITCH, "Switch to HTTP/2 where a request says Upgrade: h2c, which RFC 9113 gave up.",
               off="--no-http2-upgrade"),
        Option("limits.http2_streams", "--http2-max-streams", INTEGER,
               "Streams open at once, and application calls a connection set off; over it REFUSED_STREAM.", "COUNT"),
        Option("limits.http2_window", "--http2-connection-window", INTEGER,
               "Request body bytes of all streams that may be under way; 64 KiB at the least.", "BYTES"),
        Option("limits.http2_response_buffer", "--http2-response-buffer", INTEGER,
               "Response bytes of all streams that the client has not taken; over it send() waits, but for 16 KiB a stream.", "BYTES"),
        Option("limits.http2_resets", "--http2-max-resets", INTEGER,
               "Streams a client may reset in ten seconds; over it the connection ends with ENHANCE_YOUR_CALM, as for all that follow.",
               "COUNT"),
        Option("limits.http2_faults", "--http2-max-faults", INTEGER, "Streams a client may break in ten seconds.", "COUNT"),
        Option("limits.http2_overhead", "--http2-max-overhead", INTEGER,
               "Frames that move no request forward, in ten seconds.", "COUNT"),
        Option("limits.http2_settings", "--http2-max-settings", INTEGER, "SETTINGS frames a minute.", "COUNT"),
        Option("limits.http2_settings_entries", "--http2-max-settings-entries", INTEGER, "Settings in a frame.", "COUNT"),
        Option("limits.http2_pings", "--http2-max-pings", INTEGER, "PING frames a minute.", "COUNT"),
        Option("limits.http2_priorities", "--http2-max-priorities", INTEGER, "PRIORITY frames a minute.", "COUNT"),
        Option("limits.http2_continuations", "--http2-max-continuations", INTEGER, "CONTINUATION frames of a header block.", "COUNT"),
        Option("limits.http2_header_block", "--http2-max-header-block", INTEGER, "Header block in several frames, as sent.", "BYTES"),
        Option("limits.http2_empty_frames", "--http2-max-empty-frames", INTEGER,
               "Frames in ten seconds that are empty and end nothing.", "COUNT"),
        Option("limits.http2_small_data", "--http2-max-small-data", INTEGER,
               "Bytes in ten seconds by which DATA frames fall short of 256.", "BYTES"),
        Option("limits.http2_window_updates", "--http2-max-window-updates", INTEGER,
               "WINDOW_UPDATE frames, by half, for each DATA frame we sent, beside two a stream.", "COUNT"),
        Option("limits.http2_control_frames", "--http2-max-control-frames", INTEGER,
               "Answers to frames that wait because the client does not read; over it the connection is cut.", "COUNT"),
        Option("limits.http2_control_bytes", "--http2-max-control-bytes", INTEGER, "The same in bytes.", "BYTES"),
        Option("timeouts.http2_preface", "--timeout-http2-preface", SECONDS, "For the client's preface.", "SECONDS"),
        Option("timeouts.http2_settings", "--timeout-http2-settings", SECONDS, "For an acknowledgement of our settings.", "SECONDS"),
    ),
    "WebSocket": (
        Option("allowed_origins", "--allowed-origins", ITEMS,
               "Origins whose pages may open WebSockets, separated by commas; https://.example.com includes subdomains. Others get 403.",
               "ORIGINS", default="any"),
        Option("websocket_deflate", "--ws-deflate", SWITCH, "Compress messages where the client offers it (permessage-deflate).",
               off="--no-ws-deflate"),
        Option("websocket_stop_code", "--websocket-stop-code", INTEGER,
               "Close code when the server stops: 1001 (going away) or 1012 (service restart).", "CODE"),
        Option("limits.websocket_message", "--websocket-max-message-size --ws-max-size", INTEGER,
               "Largest message, after decompression; over it close code 1009.", "BYTES"),
        Option("limits.websocket_frame", "--websocket-max-frame-size", INTEGER, "Largest frame; over it 1009.", "BYTES"),
        Option("limits.websocket_fragments", "--websocket-max-fragments", INTEGER, "Frames in a message; over it 1009.", "COUNT"),
        Option("limits.websocket_queue", "--websocket-max-queue --ws-max-queue", INTEGER,
               "Messages that wait for the application; over it reading stops.", "COUNT"),
        Option("limits.websocket_pings", "--websocket-max-pings", INTEGER,
               "Pings a client may send a minute, and a hundred more at a time; over it 1008.", "COUNT"),
        Option("limits.websocket_deflate_ratio", "--ws-deflate-max-ratio", INTEGER,
               "Size of a message over 64 KiB to its compressed size; over it 1009.", "RATIO"),
        Option("timeouts.websocket_accept", "--websocket-connect-timeout --websocket_connect_timeout", SECONDS_OR_NEVER,
               "For the application to accept or refuse; over it 503.", "SECONDS"),
        Option("timeouts.websocket_ping_interval", "--ping-interval --ws-ping-interval", SECONDS_OR_NEVER,
               "Silence of a client after which it is sent a ping.", "SECONDS"),
        Option("timeouts.websocket_ping_timeout", "--ping-timeout --ws-ping-timeout", SECONDS_OR_NEVER,
               "For an answer to a ping; over it 1011.", "SECONDS"),
        Option("timeouts.websocket_close", "--websocket-close-timeout", SECONDS_OR_NEVER,
               "For the client's part of the closing handshake; over it the connection is cut.", "SECONDS"),
        Option("timeouts.websocket_age", "--websocket-timeout --websocket_timeout", SECONDS_OR_NEVER,
               "Age at which a WebSocket is closed, with code 1000.", "SECONDS"),
    ),
    "Limits": (
        Option("limits.request_line", "--limit-request-line", INTEGER, "Longest request line; over it 414.", "BYTES"),
        Option("limits.field", "--limit-field", INTEGER, "Longest header field, name and value; over it 431.", "BYTES"),
        Option("limits.header_bytes", "--limit-header-bytes", INTEGER, "All header fields of a request together; over it 431.", "BYTES"),
        Option("limits.header_count", "--limit-header-count", INTEGER, "Number of header fields; over it 431.", "COUNT"),
        Option("limits.trailer_bytes", "--limit-trailer-bytes", INTEGER, "All trailer fields together; over it 431.", "BYTES"),
        Option("limits.trailer_count", "--limit-trailer-count", INTEGER, "Number of trailer fields; over it 431.", "COUNT"),
        Option("limits.chunk_line", "--limit-chunk-line", INTEGER, "Longest chunk-size line; over it 400.", "BYTES"),
        Option("limits.chunk_extensions", "--limit-chunk-extensions", INTEGER,
               "All chunk extensions of a body together; over it 400.", "BYTES"),
        Option("limits.request_body", "--limit-request-body", INTEGER, "Largest request body; over it 413.", "BYTES"),
        Option("limits.body_buffer", "--limit-body-buffer", INTEGER,
               "Request body kept until the application asks for it; over it reading stops.", "BYTES"),
        Option("limits.pipeline_buffer", "--limit-pipeline-buffer", INTEGER,
               "Bytes of later requests kept while one is answered; over it reading stops.", "BYTES"),
        Option("limits.response_buffer", "--limit-response-buffer", INTEGER,
               "Response bytes the client has not taken; over it send() waits.", "BYTES"),
        Option("limits.discarded_body", "--limit-discarded-body", INTEGER,
               "Request body the application left unread that is read to keep the connection; over it the connection closes.", "BYTES"),
        Option("limits.requests_per_connection", "--limit-max-requests-per-connection", INTEGER,
               "Requests after which a connection closes.", "COUNT"),
        Option("limits.connections", "--limit-connections", COUNT_OR_AUTO,
               "Open connections; over it none is accepted. auto: 10000, or fewer where the process may open fewer files.", "COUNT",
               default="auto"),
        Option("limits.connections_per_address", "--limit-connections-per-address", INTEGER,
               "Open connections of one IPv4 address or one IPv6 network (/64), on each worker; over it a new one is closed.", "COUNT"),
        Option("limits.connections_exempt", "--limit-connections-exempt", ITEMS,
               "Addresses and networks for which that does not hold, separated by commas.", "NETWORKS"),
        Option("limits.concurrency", "--limit-concurrency", INTEGER,
               "Application calls running at once; over it 503 with Retry-After.", "COUNT"),
    ),
    "Timeouts": (
        Option("timeouts.header_read", "--timeout-header-read", SECONDS,
               "From the first byte of a request to the end of its head; over it 408.", "SECONDS"),
        Option("timeouts.body_idle", "--timeout-body-idle", SECONDS, "Without a byte of an awaited request body; over it 408.", "SECONDS"),
        Option("timeouts.body_rate", "--body-min-rate", INTEGER, "Slowest request body, in bytes a second; under it 408.", "RATE"),
        Option("timeouts.body_rate_grace", "--body-min-rate-grace", SECONDS, "Before that rate is asked for.", "SECONDS"),
        Option("timeouts.keep_alive", "--timeout-keep-alive", SECONDS, "Idle connection between two requests.", "SECONDS"),
        Option("timeouts.connection_age", "--timeout-connection-age", SECONDS,
               "Age at which a connection closes after the response in hand.", "SECONDS"),
        Option("timeouts.half_close", "--timeout-half-close", SECONDS,
               "Grace for a response once the client has closed its side of the connection.", "SECONDS"),
        Option("timeouts.linger_idle", "--timeout-linger-idle", SECONDS,
               "Silence after which a connection we have closed is no longer read.", "SECONDS"),
        Option("timeouts.linger_total", "--timeout-linger-total", SECONDS, "Longest time a connection we have closed is read.", "SECONDS"),
        Option("timeouts.tls_handshake", "--timeout-tls-handshake", SECONDS, "TLS handshake.", "SECONDS"),
        Option("timeouts.proxy_header", "--timeout-proxy-header", SECONDS, "For the header of the PROXY protocol.", "SECONDS"),
        Option("timeouts.write_stall", "--timeout-write-stall", SECONDS, "Without the client taking a byte of a response.", "SECONDS"),
        Option("timeouts.write_rate", "--write-min-rate", INTEGER, "Slowest reader of a response, in bytes a second.", "RATE"),
        Option("timeouts.graceful", "--timeout-graceful-shutdown", SECONDS, "For requests in hand when the server stops.", "SECONDS"),
        Option("timeouts.application", "-t --http-timeout --app-timeout", SECONDS,
               "From the whole request to the whole response; over it 504, or the response is cut.", "SECONDS"),
        Option("timeouts.application_close", "--application-close-timeout", SECONDS,
               "For the application to end after the client left; then it is cancelled.", "SECONDS"),
        Option("timeouts.application_cancel", "--application-cancel-timeout", SECONDS,
               "For the application to end after it was cancelled; then it counts as stuck.", "SECONDS"),
        Option("timeouts.startup", "--timeout-startup", SECONDS, "For the application's lifespan start-up.", "SECONDS"),
    ),
    "Proxies": (
        Option("proxy.headers", "--proxy-headers", SWITCH,
               "Take client address, port and scheme from X-Forwarded-For, -Port and -Proto, when a trusted peer sends them.",
               off="--no-proxy-headers"),
        Option("proxy.protocol", "--proxy-protocol", SWITCH,
               "Every connection begins with a header of the PROXY protocol, version 1 or 2; connections of others than trusted peers are "
               "closed.", off="--no-proxy-protocol"),
        Option("proxy.trusted", "--forwarded-allow-ips", ITEMS,
               "Peers whose proxy headers are trusted (turns --proxy-headers on, unless --proxy-protocol is), separated by commas: "
               "addresses, networks, unix, * (anyone).", "PEERS"),
        Option("proxy.address_header", "--proxy-headers-host", TEXT, "Header that names the client's address.", "NAME"),
        Option("proxy.port_header", "--proxy-headers-port", TEXT, "Header that names the client's port.", "NAME"),
    ),
    "Workers": (
        Option("workers.count", "-w --workers", COUNT_OR_ALL,
               "Worker processes under a supervisor; auto is one for each CPU. Without it, requests are served by the process itself.",
               "COUNT|auto", default="none"),
        Option("workers.heartbeat", "--timeout-worker", SECONDS,
               "Without a sign of life from a worker's event loop; then its stacks are logged and it is replaced.", "SECONDS"),
        Option("workers.requests", "--max-requests", INTEGER, "Requests after which a worker is replaced.", "COUNT"),
        Option("workers.age", "--max-worker-age", SECONDS, "Age at which a worker is replaced.", "SECONDS"),
        Option("workers.memory", "--max-worker-memory", BYTES, "Memory at which a worker is replaced, as in 512M.", "BYTES"),
        Option("workers.stuck", "--max-stuck-calls", INTEGER,
               "Application calls that go on after they were cancelled, at which a worker is replaced.", "COUNT"),
        Option("workers.reload", "--reload", SWITCH, "Restart workers when source files change: for development (needs watchfiles).",
               off="--no-reload"),
        Option("workers.reload_dirs", "--reload-dir", PATHS, "Directory to watch. May be repeated.", "DIR", repeat=True,
               default="the application's directory"),
        Option("control_socket", "--control-socket", PATH,
               "Unix socket for termserver status, reload, stop and scale; none turns it off.", "PATH",
               default="termserver-APPLICATION.sock in the runtime directory"),
    ),
    "Logging": (
        Option("verbosity", "-v --verbosity", INTEGER,
               "0: warnings; 1: information and access log; 2: debugging; 3: also asyncio's debug mode.", "LEVEL"),
        Option("logging.level", "--log-level", WORD, "Least severe message that is logged.", "|".join(LOG_LEVELS),
               default="as --verbosity says: info"),
        Option("logging.format", "--log-fmt", TEXT, "Form of log lines, as in Python's logging.", "FORMAT"),
        Option("logging.access_log", "--access-log", PATH, "Where the access log goes; - is standard output.", "PATH",
               "--no-access-log", None, default="- from verbosity 1 on"),
        Option("logging.access_format", "--access-log-format", TEXT, "Form of access lines: a name or a format string.",
               f"{'|'.join(ACCESS_FORMATS)}|FORMAT"),
    ),
}  # fmt: skip
OPTIONS: Final = tuple(option for group in GROUPS.values() for option in group)


def default_text(option: Option) -> str:
    """Say the default of an option as help and documentation do."""
    return option.default or show(value_at(Config(), option.field))


def show(value: object) -> str:
    """Write a value for people."""
    match value:
        case None | "" | ():
            return "none"
        case bool():
            return "on" if value else "off"
        case tuple():
            return ", ".join(map(str, value))
        case float():
            return str(int(value)) if value.is_integer() else str(value)
        case _:
            return str(value)


def value_at(config: Config, name: str) -> object:
    """Follow a dotted field name."""
    value: object = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def markdown() -> str:
    """Write docs/options.md: one table for each group."""
    lines = [
        "# Options",
        "",
        "Every option is a flag, an environment variable, and a key of the configuration file; what stands further left wins.",
        "This page is made from `termserver/options.py` by `python -c 'import termserver.options as o; print(o.markdown(), end=\"\")'`.",
    ]
    for group, options in GROUPS.items():
        lines += ["", f"## {group}", "", "| flag | variable | key | default | meaning |", "| --- | --- | --- | --- | --- |"]
        lines += [_row(option) for option in options]
    return "\n".join([*lines, ""])


def _row(option: Option) -> str:
    flags = [*option.flags.split(), *([option.off] if option.off else [])]
    key = "" if option.field == "config" else f"`{option.name}`"
    section, _, short = option.field.rpartition(".")
    if section:
        key += f" or `{section}.{short.replace('_', '-')}`"
    cells = [
        " ".join(f"`{flag}`" for flag in flags),
        f"`{variable(option.name)}`",
        key,
        default_text(option),
        option.meaning + (f" `{option.metavar}`" if "|" in option.metavar else ""),
    ]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
