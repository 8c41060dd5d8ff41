"""termserver as a process, and clients made of nothing but a socket."""

import contextlib
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).parent
LISTENING = re.compile(r"Listening on TCP address (\S+):(\d+)")
PATIENCE = 30.0  # seconds after which a test that waits for something has failed


def wait_until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait for a condition that no event announces."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s in vain for: {what}"
        time.sleep(0.01)


class Server:
    """`with Server("apps:app", …options) as server:` a process that serves on a free port, and is stopped at the end."""

    def __init__(
        self,
        application: str = "apps:app",
        *options: str,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        files: int | None = None,
        pass_fds: Sequence[int] = (),
        stdout: Any = None,
        port: bool = True,
    ) -> None:
        """`files`: its RLIMIT_NOFILE. `stdout`: where its access log goes (default: into `out`); without it there is no access log."""
        self.lines: list[str] = []
        self.out: list[str] = []
        self.host, self.port = "127.0.0.1", 0
        self.unix = ""  # for who starts it with a Unix socket
        self._changed = threading.Condition()
        words = self.words(application, *(["--bind", "127.0.0.1:0"] if port else []), *options)
        words = words if command is None else list(command)
        if files is not None:
            words = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *words]
        self.process = subprocess.Popen(
            words,
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=pass_fds,
            cwd=HERE,
        )
        pipes = [(self.process.stderr, self.lines), (self.process.stdout, self.out)]
        self._readers = [threading.Thread(target=self._read, args=pair, daemon=True) for pair in pipes if pair[0] is not None]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def words(application: str, *options: str) -> list[str]:
        """Give the command that starts it."""
        return [sys.executable, "-m", "termserver", application, "--app-dir", str(HERE), *options]

    def _read(self, pipe: Any, lines: list[str]) -> None:
        with pipe:
            for line in pipe:
                with self._changed:
                    lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def __enter__(self) -> Self:
        """Wait until it listens."""
        try:
            self.wait_listening()
        except BaseException:
            self.process.kill()
            self.wait()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End it, if the test has not."""
        if self.process.poll() is None:
            self.process.kill()
        self.wait()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def log(self) -> str:
        """What it wrote to standard error."""
        return "".join(self.lines)

    @property
    def written(self) -> str:
        """What it wrote to standard output."""
        return "".join(self.out)

    def wait_listening(self) -> None:
        """Wait for the line that names its address."""
        line = self.wait_line("Listening on ")
        if found := LISTENING.search(line):
            self.host, self.port = found[1], int(found[2])

    def wait_line(self, text: str, *, out: bool = False, seconds: float = PATIENCE) -> str:
        """Wait until it has written a line that holds `text`."""
        lines, end = self.out if out else self.lines, time.monotonic() + seconds
        with self._changed:
            while True:
                for line in lines:
                    if text in line:
                        return line
                assert self.process.poll() is None or any(reader.is_alive() for reader in self._readers), (
                    f"ended without {text!r}:\n{self.log}"
                )
                assert self._changed.wait(max(end - time.monotonic(), 0)), f"no line {text!r} in:\n{self.log}"

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait for its end; give the exit code."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            self.process.wait()
            raise AssertionError(f"still running after {seconds:g} s:\n{self.log}") from None
        for reader in self._readers:
            reader.join(seconds)
        return code

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; give the exit code."""
        self.send_signal(number)
        return self.wait()

    # what its application tells

    def ask(self, path: str) -> Any:
        """Get a path's JSON."""
        answer = self.exchange(b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path.encode())
        assert answer.responses, f"{path}: {answer}\n{self.log}"
        return json.loads(answer.responses[0].body)

    def settled(self) -> int:
        """Wait until the application gets no more rid of; give how many bytes that was."""
        last = -1
        while (now := self.ask("/facts")["produced"]) != last:
            last = now
            select.select([], [], [], 0.3)
        return last

    def seen(self) -> list[str]:
        """Give the requests that reached the application since the last time."""
        found: list[str] = self.ask("/seen")
        return found

    def wait_event(self, text: str, count: int = 1) -> None:
        """Wait until the application has noted something."""
        wait_until(lambda: sum(text in event for event in self.ask("/events")) >= count, text)

    # clients

    def connect(self, **options: Any) -> "Client":
        """Open a connection."""
        return Client((self.host, self.port), **options)

    def exchange(self, data: bytes, *, shut: bool = False) -> "Answer":
        """Send bytes on a new connection and read to its end."""
        with self.connect() as client:
            client.send(data)
            if shut:
                client.shut()
            return client.rest()

    def get(self, path: str, *fields: str, version: str = "1.1") -> "Response":
        """Get a path on a connection of its own."""
        lines = "\r\n".join([f"GET {path} HTTP/{version}", "Host: a", "Connection: close", *fields, "", ""])
        return self.exchange(lines.encode()).only


@dataclass(slots=True)
class Response:
    """One response, as far as it came."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    whole: bool

    def __getitem__(self, name: str) -> str:
        """Give a header's value."""
        values = [value for each, value in self.headers if each == name]
        assert values, f"no {name} among {self.headers}"
        return ", ".join(values)

    def json(self) -> Any:
        """Give the body's value."""
        return json.loads(self.body)

    def __contains__(self, name: str) -> bool:
        """Whether the header is there."""
        return any(each == name for each, _ in self.headers)


@dataclass(slots=True)
class Answer:
    """All that came until the connection ended, and how it ended."""

    raw: bytes
    reset: bool
    heads: tuple[int, ...] = ()
    """Which of the responses answer a HEAD."""
    responses: list[Response] = field(init=False)

    def __post_init__(self) -> None:
        """Take the bytes apart."""
        self.responses = []
        rest = self.raw
        while rest:
            response, rest = parse_response(rest, head=len(self.responses) in self.heads)
            self.responses.append(response)

    @property
    def statuses(self) -> list[int]:
        """The status of every response."""
        return [response.status for response in self.responses]

    @property
    def only(self) -> Response:
        """The one response that came."""
        assert len(self.responses) == 1, f"expected one response, got {self}"
        return self.responses[0]


def parse_response(raw: bytes, *, head: bool = False, ended: bool = True) -> tuple[Response, bytes]:
    """Take one response off the bytes; `ended`: no more will come."""
    top, blank, rest = raw.partition(b"\r\n\r\n")
    lines = top.decode("latin-1").split("\r\n")
    found = re.fullmatch(r"HTTP/1\.1 (\d{3}) [ -~]*", lines[0])
    if not blank or found is None:
        assert ended is False or found or not blank, f"no status line: {lines[0]!r}"
        return Response(0, [], raw, whole=False), b""
    headers = [(name.lower(), value.strip(" ")) for name, _, value in (line.partition(":") for line in lines[1:])]
    response = Response(int(found[1]), headers, b"", whole=True)
    if head or response.status < 200 or response.status in {204, 304}:
        return response, rest
    if "transfer-encoding" in response:
        return _parse_chunks(response, rest)
    if "content-length" in response:
        size = int(response["content-length"])
        response.body, response.whole = rest[:size], len(rest) >= size
        return response, rest[size:]
    response.body = rest
    response.whole = ended
    return response, b""


def _parse_chunks(response: Response, rest: bytes) -> tuple[Response, bytes]:
    while True:
        line, found, rest = rest.partition(b"\r\n")
        if not found:
            response.whole = False
            return response, b""
        size = int(line.split(b";")[0], 16)
        if not size:
            break
        response.body += rest[:size]
        if len(rest) < size + 2:
            response.whole = False
            return response, b""
        rest = rest[size + 2 :]
    trailers, found, rest = (b"\r\n" + rest).partition(b"\r\n\r\n")
    response.whole = bool(found)
    response.headers += [
        (name.lower(), value.strip(" "))
        for name, _, value in (line.partition(":") for line in trailers.decode("latin-1").split("\r\n")[1:])
    ]
    return response, rest


class Client:
    """One connection. Every wait is bounded."""

    def __init__(self, address: Any, *, receive_buffer: int | None = None, family: int = socket.AF_INET, source: str | None = None) -> None:
        """Connect. A small `receive_buffer` makes a slow reader."""
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source is not None:
            self.socket.bind((source, 0))
        if family == socket.AF_INET:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise
        self._came = b""

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close."""
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send; a server that has closed already is no error, its answer is what counts."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def send_each(self, data: bytes) -> None:
        """Send byte by byte."""
        for index in range(len(data)):
            self.send(data[index : index + 1])

    def get(self, path: str, *fields: str) -> None:
        """Send a GET."""
        self.send("\r\n".join([f"GET {path} HTTP/1.1", "Host: a", *fields, "", ""]).encode())

    def shut(self) -> None:
        """Shut the sending side."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def read_some(self) -> bytes:
        """Read what is there; empty at the end."""
        data = self.socket.recv(262_144)
        self._came += data
        return data

    def take(self) -> bytes:
        """Read what is there and forget it."""
        data, self._came = self._came or self.socket.recv(1 << 20), b""
        assert data, "ended"
        return data

    def read_until(self, text: bytes) -> bytes:
        """Read until `text` has come; give all up to and with it."""
        while text not in self._came:
            assert self.read_some(), f"ended without {text!r}: {self._came!r}"
        before, _, self._came = self._came.partition(text)
        return before + text

    def response(self, *, head: bool = False) -> Response:
        """Read one response."""
        while True:
            if b"\r\n\r\n" in self._came:
                response, rest = parse_response(self._came, head=head, ended=False)
                if response.whole:
                    self._came = rest
                    return response
            assert self.read_some(), f"ended in a response: {self._came!r}"

    def rest(self, heads: tuple[int, ...] = ()) -> Answer:
        """Read to the end."""
        parts, reset = [self._came], False
        try:
            while data := self.socket.recv(262_144):
                parts.append(data)
        except ConnectionResetError:
            reset = True
        return Answer(b"".join(parts), reset, heads)

    def ended_or_send(self, data: bytes) -> bool:
        """Whether there is something to read (an answer, the end); if not, send more."""
        if select.select([self.socket], [], [], 0)[0]:
            return True
        self.send(data)
        return False

    def ended(self, seconds: float) -> bool:
        """Whether the connection ends within that time, without another byte."""
        if not select.select([self.socket], [], [], seconds)[0]:
            return False
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True
