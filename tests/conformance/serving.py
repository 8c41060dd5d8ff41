"""The server under test: a process on a free port of loopback, waited for, always stopped."""

from __future__ import annotations

import shlex
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

HERE = Path(__file__).parent
APPLICATION = "conformance.echo:app"  # from HERE.parent: this directory holds an `autobahn`, and daphne imports another
_START_SECONDS, _STOP_SECONDS, _LOOK_SECONDS = 20.0, 40.0, 0.05


class Unusable(Exception):
    """The server did not start."""


@dataclass(slots=True)
class Server:
    """A server that accepts connections; what it wrote is in `log`."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def faults(self) -> list[str]:
        """Answer what is wrong with a stopped server, whatever the cases say."""
        found = []
        if tracebacks := self.log.read_text(errors="replace").count("Traceback (most recent call last)"):
            found.append(f"tracebacks in the server's log: {tracebacks}")
        if self.process.returncode:
            found.append(f"the server ended with status {self.process.returncode}, expected 0")
        return found


def shown(command: str) -> str:
    """Answer a command as a page may show it: programs without their directories."""
    words = [Path(word).name if word.startswith("/") else word.format(port="PORT", app=APPLICATION) for word in shlex.split(command)]
    return " ".join(words)


@contextmanager
def serving(command: str, log: Path) -> Iterator[Server]:
    """Run `command`, which has a place for `{port}` and may have one for `{app}`. Raises Unusable."""
    port = _free_port()
    words = [word.format(port=port, app=APPLICATION) for word in shlex.split(command)]
    with log.open("wb") as output:
        process = subprocess.Popen(words, cwd=HERE.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_accepting(process, port, log)
        yield Server(process, port, log)
    finally:
        _stop(process)


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


def _wait_accepting(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Try to connect until it works, the process ends or the time is up."""
    deadline = monotonic() + _START_SECONDS
    while not _accepts(port):
        try:
            status = process.wait(timeout=_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            if monotonic() > deadline:
                raise Unusable(f"did not accept connections within {_START_SECONDS:g} s") from None
        else:
            raise Unusable(f"ended with status {status} before it accepted a connection:\n{log.read_text(errors='replace')}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
