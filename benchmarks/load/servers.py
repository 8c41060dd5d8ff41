"""The servers that are compared: one entry each, one worker, uvloop where the server can, the access log off or on.

To add a server, add an entry. `{app}`, `{port}` and `{log}` are filled in; a server whose `log_on` does not name `{log}` writes its
access log to standard output, which the harness then points at that file.

In WebSocket scenarios a server is told `sockets` as well: to take as many connections as there are, and not to log each of them. Pings and
permessage-deflate are as each has them by default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.load.scenarios import Scenario


@dataclass(frozen=True, slots=True)
class Server:
    """How one server is started. `command` follows the interpreter; `distributions` are what its versions are read from.

    It takes no part in the scenarios named as `unable`, and with `only_sockets` only in those over WebSockets.
    """

    name: str
    distributions: tuple[str, ...]
    command: tuple[str, ...]
    log_off: tuple[str, ...]
    log_on: tuple[str, ...]
    sockets: tuple[str, ...] = ()
    only_sockets: bool = False
    unable: tuple[str, ...] = ()

    def takes_part(self, scenario: Scenario) -> bool:
        """Whether the server can do what the scenario asks, and is another one than the rest there."""
        return scenario.name not in self.unable and (scenario.talk is not None or not self.only_sockets)

    @property
    def logs_to_stdout(self) -> bool:
        """Whether the access log has to be caught on standard output."""
        return not any("{log}" in part for part in self.log_on)

    def arguments(self, python: Path, scenario: Scenario, port: int, log: Path | None) -> list[str]:
        """Answer the command line; `log` is the access log's file, None switches it off."""
        template = self.command + (self.log_off if log is None else self.log_on) + (self.sockets if scenario.talk else ())
        return [str(python), *(part.format(app=scenario.app, port=port, log=log) for part in template)]


TERMSERVER = Server(
    name="termserver",
    distributions=("termserver", "uvloop", "httptools", "twisted"),
    command=("-m", "termserver", "{app}", "--bind", "127.0.0.1:{port}"),
    log_off=("--no-access-log",),
    log_on=("--access-log", "{log}"),
    sockets=("--limit-connections", "12000"),
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
    ),
    Server(
        name="uvicorn",
        distributions=("uvicorn", "uvloop", "httptools", "websockets"),
        command=_UVICORN,
        log_off=("--no-access-log",),
        log_on=("--access-log",),
        sockets=("--ws", "websockets-sansio", "--log-level", "warning"),  # its default, by name
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
        unable=("ws-connect",),  # answers Close, and leaves the connection open
    ),
    Server(
        name="hypercorn",
        distributions=("hypercorn", "uvloop", "h11", "wsproto"),
        command=("-m", "hypercorn", "-k", "uvloop", "-w", "1", "-b", "127.0.0.1:{port}", "{app}"),
        log_off=(),
        log_on=("--access-logfile", "{log}"),
    ),
    Server(
        name="daphne",
        distributions=("daphne", "twisted", "autobahn"),
        command=("-m", "daphne", "-b", "127.0.0.1", "-p", "{port}", "{app}"),
        log_off=("-v", "0"),
        log_on=("-v", "0", "--access-log", "{log}"),
    ),
)  # fmt: skip
SERVERS = {server.name: server for server in (TERMSERVER, *PEERS)}


def parse_also(text: str) -> Server:
    """Read `NAME=ARGUMENTS`: a server known to nobody but the command line, such as a prototype. Its access log is never switched."""
    name, equals, arguments = text.partition("=")
    if not (name and equals and arguments):
        message = f"expected NAME=ARGUMENTS (of the interpreter, with {{port}} and perhaps {{app}}), got {text!r}"
        raise ValueError(message)
    return Server(name=name, distributions=(), command=tuple(arguments.split()), log_off=(), log_on=())
