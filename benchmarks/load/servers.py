"""The servers that are compared: one entry each, one worker, uvloop where the server can, the access log off or on.

To add a server, add an entry. `{app}`, `{port}` and `{log}` are filled in; a server whose `log_on` does not name `{log}` writes its
access log to standard output, which the harness then points at that file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Server:
    """How one server is started. `command` follows the interpreter; `distributions` are what its versions are read from."""

    name: str
    distributions: tuple[str, ...]
    command: tuple[str, ...]
    log_off: tuple[str, ...]
    log_on: tuple[str, ...]

    @property
    def logs_to_stdout(self) -> bool:
        """Whether the access log has to be caught on standard output."""
        return not any("{log}" in part for part in self.log_on)

    def arguments(self, python: Path, app: str, port: int, log: Path | None) -> list[str]:
        """Answer the command line; `log` is the access log's file, None switches it off."""
        template = self.command + (self.log_off if log is None else self.log_on)
        return [str(python), *(part.format(app=app, port=port, log=log) for part in template)]


TERMSERVER = Server(
    name="termserver",
    distributions=("termserver", "uvloop", "httptools", "twisted"),
    command=("-m", "termserver", "{app}", "--bind", "127.0.0.1:{port}"),
    log_off=("--no-access-log",),
    log_on=("--access-log", "{log}"),
)
PEERS = (
    Server(
        name="granian",
        distributions=("granian", "uvloop"),
        command=("-m", "granian", "--interface", "asgi", "--loop", "uvloop", "--workers", "1", "--port", "{port}", "{app}"),
        log_off=("--no-access-log",),
        log_on=("--access-log",),
    ),
    Server(
        name="uvicorn",
        distributions=("uvicorn", "uvloop", "httptools"),
        command=("-m", "uvicorn", "--loop", "uvloop", "--http", "httptools", "--port", "{port}", "{app}"),
        log_off=("--no-access-log",),
        log_on=("--access-log",),
    ),
    Server(
        name="gunicorn",
        distributions=("gunicorn", "gunicorn_h1c", "uvloop"),
        command=("-m", "gunicorn", "-k", "asgi", "-w", "1", "--asgi-loop", "uvloop", "--http-parser", "fast", "--no-control-socket",
                 "-b", "127.0.0.1:{port}", "{app}"),
        log_off=(),
        log_on=("--access-logfile", "{log}"),
    ),
    Server(
        name="hypercorn",
        distributions=("hypercorn", "uvloop", "h11"),
        command=("-m", "hypercorn", "-k", "uvloop", "-w", "1", "-b", "127.0.0.1:{port}", "{app}"),
        log_off=(),
        log_on=("--access-logfile", "{log}"),
    ),
    Server(
        name="daphne",
        distributions=("daphne", "twisted"),
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
