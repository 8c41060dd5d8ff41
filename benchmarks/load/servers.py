"""The servers that are compared: one entry each, one worker, uvloop where the server can, the access log off or on.

To add a server, add an entry. `{app}`, `{port}` and `{log}` are filled in; a server whose `log_on` does not name `{log}` writes its
access log to standard output, which the harness then points at that file.

Over TLS `{certificate}` and `{key}` are filled in too: PEM files of the run. Versions and ciphers are as each server has them by default;
that comes to TLS 1.3 for all, and with what the clients offer to AES-256-GCM.

In WebSocket scenarios a server is told `sockets` as well: to take as many connections as there are, and not to log each of them. Pings and
permessage-deflate are as each has them by default.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.load.identity import Identity
    from benchmarks.load.scenarios import Scenario


@dataclass(frozen=True, slots=True)
class Server:
    """How one server is started. `command` follows the interpreter; `distributions` are what its versions are read from.

    `cleartext` or `tls` and `http2` are what the scenario makes it need. It takes no part in the scenarios named in `unable`, each with the
    reason, and with `only_sockets` only in those over WebSockets.
    """

    name: str
    distributions: tuple[str, ...]
    command: tuple[str, ...]
    log_off: tuple[str, ...]
    log_on: tuple[str, ...]
    sockets: tuple[str, ...] = ()
    cleartext: tuple[str, ...] = ()
    tls: tuple[str, ...] = ()
    http2: tuple[str, ...] = ()
    only_sockets: bool = False
    unable: dict[str, str] = field(default_factory=dict)

    def takes_part(self, scenario: Scenario) -> bool:
        """Whether the server can do what the scenario asks, and is another one than the rest there."""
        if scenario.tls and not self.tls:
            return False
        return scenario.name not in self.unable and (scenario.talk is not None or not self.only_sockets)

    @property
    def logs_to_stdout(self) -> bool:
        """Whether the access log has to be caught on standard output."""
        return not any("{log}" in part for part in self.log_on)

    def arguments(self, python: Path, scenario: Scenario, port: int, log: Path | None, identity: Identity | None) -> list[str]:
        """Answer the command line; `log` is the access log's file, None switches it off; `identity` is what TLS is spoken with."""
        template = self.command + (self.tls if identity else self.cleartext) + (self.log_off if log is None else self.log_on)
        template += (self.sockets if scenario.talk else ()) + (self.http2 if scenario.http2 else ())
        names = {"app": scenario.app, "port": port, "log": log}
        names |= {"certificate": identity.certificate, "key": identity.key} if identity else {}
        return [str(python), *(part.format(**names) for part in template)]


TERMSERVER = Server(
    name="termserver",
    distributions=("termserver", "uvloop", "httptools", "twisted"),
    command=("-m", "termserver", "{app}", "--bind", "127.0.0.1:{port}"),
    log_off=("--no-access-log",),
    log_on=("--access-log", "{log}"),
    sockets=("--limit-connections", "12000"),
    tls=("--ssl-certfile", "{certificate}", "--ssl-keyfile", "{key}"),
)
_UVICORN = ("-m", "uvicorn", "--loop", "uvloop", "--http", "httptools", "--port", "{port}", "{app}")
PEERS = (
    Server(
        name="granian",
        distributions=("granian", "uvloop"),
        command=("-m", "granian", "--interface", "asgi", "--loop", "uvloop", "--workers", "1", "--port", "{port}", "{app}"),
        log_off=("--no-access-log",),
        log_on=("--access-log",),
        sockets=("--backpressure", "12000"),
        tls=("--ssl-certificate", "{certificate}", "--ssl-keyfile", "{key}"),
    ),
    Server(
        name="uvicorn",
        distributions=("uvicorn", "uvloop", "httptools", "websockets", "zttp"),
        command=_UVICORN,
        log_off=("--no-access-log",),
        log_on=("--access-log",),
        sockets=("--ws", "websockets-sansio", "--log-level", "warning"),  # its default, by name
        tls=("--ssl-certfile", "{certificate}", "--ssl-keyfile", "{key}"),
        http2=("--http", "zttp", "--http2"),  # the last --http counts
    ),
    Server(
        name="uvicorn-websockets",
        distributions=("uvicorn", "uvloop", "httptools", "websockets"),
        command=_UVICORN,
        log_off=("--no-access-log",),
        log_on=("--access-log",),
        sockets=("--ws", "websockets", "--log-level", "warning"),
        only_sockets=True,
    ),
    Server(
        name="gunicorn",
        distributions=("gunicorn", "gunicorn_h1c", "uvloop"),
        command=("-m", "gunicorn", "-k", "asgi", "-w", "1", "--asgi-loop", "uvloop", "--http-parser", "fast", "--no-control-socket",
                 "-b", "127.0.0.1:{port}", "{app}"),
        log_off=(),
        log_on=("--access-logfile", "{log}"),
        sockets=("--worker-connections", "12000"),
        tls=("--certfile", "{certificate}", "--keyfile", "{key}"),
        http2=("--http-protocols", "h2,h1", "--http2-cleartext", "prior-knowledge"),
        unable={
            "ws-connect": "answers Close, and leaves the connection open",
            "h2-upload": "gives the application the first 16 KiB of a body as the whole",
        },
    ),
    Server(
        name="hypercorn",
        distributions=("hypercorn", "uvloop", "h11", "wsproto"),
        command=("-m", "hypercorn", "-k", "uvloop", "-w", "1", "-b", "127.0.0.1:{port}", "{app}"),
        log_off=(),
        log_on=("--access-logfile", "{log}"),
        tls=("--certfile", "{certificate}", "--keyfile", "{key}"),
    ),
    Server(
        name="daphne",
        distributions=("daphne", "twisted", "autobahn"),
        command=("-m", "daphne", "{app}"),
        cleartext=("-b", "127.0.0.1", "-p", "{port}"),
        tls=("-e", "ssl:{port}:privateKey={key}:certKey={certificate}:interface=127.0.0.1"),
        unable=dict.fromkeys(("h2", "h2-paths", "h2-64k", "h2-upload"), "speaks HTTP/2 over TLS only"),
        log_off=("-v", "0"),
        log_on=("-v", "0", "--access-log", "{log}"),
    ),
)  # fmt: skip
SERVERS = {server.name: server for server in (TERMSERVER, *PEERS)}


def parse_also(text: str) -> Server:
    """Read `NAME=ARGUMENTS`: a server known to nobody but the command line, such as a prototype. Its access log is never switched.

    It is not asked to speak TLS.
    """
    name, equals, arguments = text.partition("=")
    if not (name and equals and arguments):
        message = f"expected NAME=ARGUMENTS (of the interpreter, with {{port}} and perhaps {{app}}), got {text!r}"
        raise ValueError(message)
    return Server(name=name, distributions=(), command=tuple(arguments.split()), log_off=(), log_on=())
