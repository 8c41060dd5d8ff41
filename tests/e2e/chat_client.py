"""The example as a process, and clients that chat: the websockets package's, and one made of nothing but a socket."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import redis
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from e2e.server import PATIENCE, Client, Server, wait_until

EXAMPLE = Path(__file__).parents[2] / "examples" / "chat"
TEXT, BINARY, CLOSE, PING = 0x1, 0x2, 0x8, 0x9
MASK = b"\x12\x34\x56\x78"

Event = dict[str, Any]


def make_home(folder: Path) -> dict[str, str]:
    """Make a database with the demo's rooms and users; give the environment that leads to it."""
    environment = {"CHAT_DATABASE": str(folder / "db.sqlite3"), "CHAT_UPLOADS": str(folder / "uploads"), "CHAT_DEBUG": "1"}
    subprocess.run([sys.executable, "manage.py", "demo"], cwd=EXAMPLE, env={**os.environ, **environment}, check=True, timeout=120)
    return environment


class Chat(Server):
    """The example, served. Several of them may share a home."""

    _sessions: dict[tuple[str, str], str] = {}  # noqa: RUF012 (logging in is slow by design: once for each home and user)

    def __init__(self, home: dict[str, str], *options: str, port: int = 0, **environment: str) -> None:
        """`environment`: the example's own variables."""
        self._home = home["CHAT_DATABASE"]
        super().__init__(
            "chat.asgi:application",
            *("--bind", f"127.0.0.1:{port}", "--app-dir", str(EXAMPLE), "--no-access-log"),
            *options,
            port=False,
            environment={**home, **environment},
        )

    @property
    def url(self) -> str:
        """Where its pages are."""
        return f"http://{self.host}:{self.port}"

    # over HTTP

    def browse(self, user: str = "") -> httpx.Client:
        """Make a client, logged in if `user` is given; the demo's passwords are the users' names."""
        cookies = {"sessionid": self.session(user)} if user else {}
        return httpx.Client(base_url=self.url, timeout=PATIENCE, trust_env=False, cookies=cookies)

    def session(self, user: str) -> str:
        """Log in, once; give the session's key."""
        known = self._home, user
        if known not in self._sessions:
            with self.browse() as client:
                assert submit(client, "/accounts/login/", {"username": user, "password": user}).status_code == 302
                self._sessions[known] = client.cookies["sessionid"]
        return self._sessions[known]

    def make_room(self, name: str) -> str:
        """Make a room; give its slug."""
        with self.browse("admin") as client:
            return submit(client, "/new/", {"name": name}).headers["location"].split("/")[2]

    def post(self, room: str, user: str, text: str) -> None:
        """Say something by the form, as a page without JavaScript does."""
        with self.browse(user) as client:
            answer = submit(client, f"/rooms/{room}/", {"text": text}, to=f"/rooms/{room}/post/")
            assert answer.headers["location"] == f"/rooms/{room}/"

    def names(self, room: str) -> list[str]:
        """Give who is in a room, the name of each socket's user, empty for visitors."""
        with self.browse() as client:
            return sorted(name for _number, name in client.get(f"/rooms/{room}/here/").json()["members"])

    # over WebSocket

    def enter(self, room: str, user: str = "", query: str = "") -> Member:
        """Enter a room, and wait until one is in."""
        member = self.open(f"/ws/rooms/{room}/{query}", user)
        member.hear("here")
        return member

    def open(self, path: str, user: str = "") -> Member:
        """Open a socket."""
        return Member(
            connect(
                f"ws://{self.host}:{self.port}{path}",
                origin=self.url,
                additional_headers={"Cookie": f"sessionid={self.session(user)}"} if user else {},
                proxy=None,
                open_timeout=PATIENCE,
                close_timeout=PATIENCE,
            )
        )

    def ask_upgrade(self, path: str, *fields: str) -> Client:
        """Send the request that opens a WebSocket; `fields`: Origin, Cookie and such."""
        client = self.connect()
        key = base64.b64encode(bytes(16)).decode()
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {self.host}:{self.port}",
            *("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"),
            *fields,
            *("", ""),
        ]
        client.send("\r\n".join(lines).encode())
        return client

    def enter_raw(self, room: str, user: str = "") -> RawMember:
        """Enter a room by hand, and wait until one is in."""
        fields = [f"Origin: {self.url}", *([f"Cookie: sessionid={self.session(user)}"] if user else [])]
        client = self.ask_upgrade(f"/ws/rooms/{room}/", *fields)
        head = client.read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        member = RawMember(client)
        assert json.loads(member.frame()[1])["type"] == "here"
        return member


class Member:
    """A client on a socket of the example's."""

    def __init__(self, connection: contextlib.AbstractContextManager[ClientConnection]) -> None:
        self._open = contextlib.ExitStack()
        self.socket = self._open.enter_context(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Leave."""
        self._open.close()

    def say(self, text: str) -> None:
        """Say something."""
        self.socket.send(json.dumps({"text": text}))

    def next(self) -> Event:
        """Wait for the next event."""
        event: Event = json.loads(self.socket.recv(PATIENCE))
        return event

    def hear(self, *kinds: str) -> Event:
        """Wait for the next event of one of these types; others are passed over."""
        while (event := self.next())["type"] not in kinds:
            pass
        return event

    def closed(self) -> tuple[int | None, str | None]:
        """Wait until the server has closed; give its code and reason."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.socket.recv(PATIENCE)
        return self.socket.close_code, self.socket.close_reason


class RawMember:
    """A client whose every byte is ours."""

    def __init__(self, client: Client) -> None:
        """Take a connection that has been upgraded."""
        self.client = client
        self._bytes = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the connection, without a word."""
        self.client.socket.close()

    def send(self, opcode: int, payload: bytes) -> None:
        """Send one frame of less than 126 bytes."""
        masked = bytes(byte ^ MASK[index % 4] for index, byte in enumerate(payload))
        self.client.send(bytes([0x80 | opcode, 0x80 | len(payload)]) + MASK + masked)

    def frame(self) -> tuple[int, bytes]:
        """Read one frame; give its opcode and payload. The server's are whole and not masked."""
        first, length = self._take(2)
        assert first & 0xF0 == 0x80, f"expected a whole frame, got {first:#x}"
        if length == 126:
            length = int.from_bytes(self._take(2))
        return first & 0x0F, self._take(length)

    def _take(self, count: int) -> bytes:
        while len(self._bytes) < count:
            self._bytes += self.client.take()
        taken, self._bytes = self._bytes[:count], self._bytes[count:]
        return taken


@contextlib.contextmanager
def talking(member: Member) -> Iterator[None]:
    """Let a member talk all the time, as fast as it hears itself."""
    stop, faults = threading.Event(), []

    def talk() -> None:
        try:
            while not stop.is_set():
                member.say("and so on")
                member.hear("message")
        except Exception as fault:
            faults.append(fault)

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert faults == []


def submit(client: httpx.Client, form: str, fields: dict[str, str], to: str | None = None) -> httpx.Response:
    """Fill in the form of one page and send it, to the same address or another."""
    page = client.get(form)
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    assert token is not None, page.text
    return client.post(to or form, data={**fields, "csrfmiddlewaretoken": token[1]})


class RedisServer:
    """A redis-server of our own, which keeps nothing."""

    def __init__(self, program: str, folder: Path) -> None:
        """Start it on a free port, and wait until it answers."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        options = {"--port": str(self.port), "--bind": "127.0.0.1", "--save": "", "--appendonly": "no", "--dir": str(folder)}
        words: Sequence[str] = [program, *(word for pair in options.items() for word in pair)]
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        wait_until(self._answers, "redis-server")

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}/0"

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(PATIENCE)

    def flush(self) -> None:
        """Forget everything."""
        with self._client() as client:
            client.flushall()

    def members(self) -> int:
        """Count the members of all rooms' groups."""
        with self._client() as client:
            return sum(client.zcard(key) for key in client.scan_iter("asgi:group:room.*"))

    def _client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=PATIENCE)

    def _answers(self) -> bool:
        assert self._process.poll() is None, "redis-server ended"
        with self._client() as client, contextlib.suppress(redis.ConnectionError):
            return bool(client.ping())
        return False
