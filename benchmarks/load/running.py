"""One server process tree: started on a free port and its own core, waited for, checked, always stopped."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from benchmarks.load import h2load
from benchmarks.load.dialogue import ask
from benchmarks.load.frames import Wrong
from benchmarks.load.measure import Unusable, session_members

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.load.identity import Identity
    from benchmarks.load.scenarios import Scenario
    from benchmarks.load.servers import Server

ROOT = Path(__file__).parents[2]
_START_SECONDS, _ANSWER_SECONDS, _STOP_SECONDS, _LOOK_SECONDS = 20.0, 10.0, 10.0, 0.02
_DIRECTORIES = re.compile(r"(?<![\w:/])/(?:[^\s/'\"]+/)+")
_LINE = 20  # bytes: less than the shortest access log line


@dataclass(slots=True)
class Running:
    """A server that accepts connections; `session` names its process tree."""

    session: int
    port: int
    log: Path | None

    def check(self, scenario: Scenario) -> None:
        """Ask once and look at the whole answer, so that what is measured later is known to be right."""
        if scenario.talk:
            try:
                ask(self.port, scenario)
            except (Wrong, OSError) as problem:
                raise Unusable(str(problem)) from None
            return
        if scenario.http2:
            h2load.check(scenario, self.port)
            return
        answer = _ask(self.port, scenario)
        if not answer.startswith(b"HTTP/1.1 200 ") or not answer.endswith(scenario.answer):
            message = f"expected 200 and {scenario.answer[:20]!r}…, got {answer[:200]!r}"
            raise Unusable(message)

    def log_seems_written(self, requests: int) -> bool:
        """Whether the access log is at least as long as so many lines would be, True when there is none to be written."""
        return self.log is None or (self.log.exists() and self.log.stat().st_size >= requests * _LINE)


def _ask(port: int, scenario: Scenario) -> bytes:
    answer = b""
    try:
        with _connected(port, scenario) as sock:
            sock.sendall(scenario.requests[0])
            while not answer.endswith(scenario.answer) and (data := sock.recv(1 << 16)):
                answer += data
    except TimeoutError:
        message = f"no whole answer within {_ANSWER_SECONDS:g} s, got {answer[:200]!r}"
        raise Unusable(message) from None
    except OSError as error:
        message = f"{error} after {answer[:200]!r}"
        raise Unusable(message) from None
    return answer


def _connected(port: int, scenario: Scenario) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_SECONDS)
    if not scenario.tls:
        return sock
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the certificate is the run's own
    return context.wrap_socket(sock)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _wait_accepting(process: subprocess.Popen[bytes], port: int) -> None:
    """Try to connect until it works, the process ends or the time is up."""
    deadline = monotonic() + _START_SECONDS
    while not _accepts(port):
        try:
            status = process.wait(timeout=_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            if monotonic() > deadline:
                message = f"did not accept connections within {_START_SECONDS:g} s"
                raise Unusable(message) from None
        else:
            message = f"ended with status {status} before it accepted a connection"
            raise Unusable(message)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the leader to stop, then make sure that nothing of its session is left."""
    process.terminate()
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_STOP_SECONDS)
    finally:
        for pid in session_members(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


@contextmanager
def running(
    server: Server, scenario: Scenario, python: Path, core: int, directory: Path, identity: Identity | None = None
) -> Iterator[Running]:
    """Run `server` for `scenario` pinned to `core`, with its output and access log in `directory`. Raises Unusable.

    With an `identity` it speaks TLS.
    """
    port = _free_port()
    log = directory / f"{server.name}-access.log" if scenario.access_log else None
    errors = directory / f"{server.name}-errors.log"
    arguments = ["taskset", "-c", str(core), *server.arguments(python, scenario, port, log, identity)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    with errors.open("wb") as error_file, (log if log and server.logs_to_stdout else Path(os.devnull)).open("wb") as output:
        process = subprocess.Popen(arguments, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=error_file,
                                   start_new_session=True)  # fmt: skip
    try:
        _wait_accepting(process, port)
        yield Running(process.pid, port, log)
    except Unusable as unusable:
        last = errors.read_text(errors="replace").strip().splitlines()[-1:]
        message = _DIRECTORIES.sub("…/", "; stderr ends: ".join([str(unusable), *last]))  # the report names no place of this machine
        raise Unusable(message) from unusable
    finally:
        _stop(process)
