"""HAProxy in front, passing bytes on behind a PROXY header of version 1 or 2; and nobody in front, where there should be somebody."""

import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from certificates import Authority, Pair
from e2e.secure import NAME, TlsClient, TlsServer
from e2e.server import Client, Server, wait_until
from e2e.sockets import SocketClient

Tool = Callable[[str], str]
LINE = b"PROXY TCP4 192.0.2.7 198.51.100.9 40000 443\r\n"
GET_ECHO = b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
CLIENT = "127.0.0.5"
HAPROXY = """
global
    maxconn 1000
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout check 30s
listen front
    bind fd@{listener}
    server one {upstream} {how}
"""


@dataclass(slots=True)
class Front:
    """HAProxy's address."""

    host: str
    port: int

    def connect(self, source: str = CLIENT) -> Client:
        """Open a connection from an address of one's own."""
        return Client((self.host, self.port), source=source)

    def get(self, path: str, *fields: str, source: str = CLIENT) -> Any:
        """Get a path's JSON on a connection of its own."""
        with self.connect(source) as client:
            client.get(path, "Connection: close", *fields)
            return client.rest().only.json()


@contextmanager
def haproxy(tool: Tool, here: Path, server: Server, how: str) -> Iterator[Front]:
    """Run HAProxy on a listening socket that is open already: it needs no port of its own choice, and whoever connects early waits."""
    program, file = tool("haproxy"), here / "haproxy.cfg"
    with socket.create_server(("127.0.0.1", 0)) as listener, (here / "haproxy.log").open("w+") as log:
        listener.setblocking(False)
        upstream = server.unix or f"127.0.0.1:{server.port}"
        file.write_text(HAPROXY.format(listener=listener.fileno(), upstream=upstream, how=how))
        process = subprocess.Popen([program, "-f", str(file)], stdout=log, stderr=log, pass_fds=[listener.fileno()])
        try:
            yield Front(*listener.getsockname())
            assert process.poll() is None, (here / "haproxy.log").read_text()
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(params=["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c"])
def how(request: pytest.FixtureRequest) -> str:
    """Give HAProxy's words for a version."""
    found: str = request.param
    return found


def name_of(client: Client) -> list[object]:
    """Give a client's own address, as the application's JSON has it."""
    return list(client.socket.getsockname())


def test_client_s_address_on_every_request_of_a_connection(tool: Tool, tmp_path: Path, how: str) -> None:
    with Server("apps:app", "--proxy-protocol") as server, haproxy(tool, tmp_path, server, how) as front:
        with front.connect() as client, front.connect("127.0.0.6") as other:
            for each in (client, client, other, client, other):
                each.get("/echo", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https")
                found = each.response().json()
                assert (found["client"], found["server"], found["scheme"]) == (name_of(each), [front.host, front.port], "http")
            client.get("/blob?size=3000000")
            assert len(client.response().body) == 3_000_000
            client.send(b"POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n" + bytes(2_000_000))
            assert client.response().body == b"2000000"
        assert server.stop() == 0
        assert [line.split()[0].partition(":")[0] for line in server.out].count("127.0.0.6") == 2
        assert [line.split()[0].partition(":")[0] for line in server.out].count(CLIENT) == 5
        assert "Traceback" not in server.log


def test_websocket_s_client(tool: Tool, tmp_path: Path, how: str) -> None:
    with Server("socket_apps:app", "--proxy-protocol") as server, haproxy(tool, tmp_path, server, how) as front:
        there: Any = SimpleNamespace(host=front.host, port=front.port)
        with SocketClient.open(there, "/scope", source=CLIENT) as client:
            assert f"'client': {client.socket.getsockname()!r}" in client.hear()
        with SocketClient.open(there, "/echo", source=CLIENT) as client:
            for text in ("hello", "x" * 100_000):
                client.say(text)
                assert client.hear() == text


def test_header_comes_ahead_of_tls(tool: Tool, tmp_path: Path, authority: Authority, how: str) -> None:
    pair: Pair = authority.make(f"proxied-{how}", NAME)
    with TlsServer(authority, [pair], "apps:app", "--proxy-protocol") as server, haproxy(tool, tmp_path, server, how) as front:
        for _ in range(2):
            with TlsClient((front.host, front.port), server.context, NAME, source=CLIENT) as client:
                for _ in range(2):
                    client.get("/echo")
                    found = client.response().json()
                    assert (found["client"], found["server"], found["scheme"]) == (name_of(client), [front.host, front.port], "https")
        assert server.stop() == 0
        assert server.log_has_no_traceback(), server.log


def test_over_a_unix_socket(tool: Tool, tmp_path: Path, how: str) -> None:
    path = str(tmp_path / "socket")
    with Server("apps:app", "--proxy-protocol", "--unix-socket", path, port=False) as server:
        server.unix = path
        with haproxy(tool, tmp_path, server, how) as front, front.connect() as client:
            client.get("/echo")
            assert client.response().json()["client"] == name_of(client)


@pytest.mark.parametrize("checks", ["", "option tcp-check", "option httpchk GET /echo"])
def test_haproxy_s_health_checks_succeed(tool: Tool, tmp_path: Path, how: str, checks: str) -> None:
    """Version 2's say LOCAL, version 1's name HAProxy itself, and those that only connect are not logged."""
    with (
        Server("apps:app", "--proxy-protocol") as server,
        haproxy(tool, tmp_path, server, f"{how} check inter 20ms rise 1 fall 1 on-marked-down shutdown-sessions\n    {checks}") as front,
        front.connect() as client,
    ):
        client.get("/echo")
        assert client.response().status == 200
        if checks.startswith("option httpchk"):
            wait_until(lambda: sum("/echo" in line for line in server.out) >= 6, "five checks")
        client.get("/echo")  # HAProxy would have shut it at the first check that failed
        assert client.response().status == 200
        assert server.stop() == 0
        assert "Refused" not in server.log
        assert "Traceback" not in server.log


def test_limit_of_an_address_is_the_client_s(tool: Tool, tmp_path: Path, how: str) -> None:
    options = ("--proxy-protocol", "--limit-connections-per-address", "2", "--limit-connections-exempt", "127.0.0.9,10.0.0.0/8")
    with Server("apps:app", *options) as server, haproxy(tool, tmp_path, server, how) as front:
        with front.connect() as one, front.connect() as two:
            for client in (one, two):
                client.get("/")
                assert client.response().body == b"hello"
            with front.connect() as three:
                three.get("/")
                assert three.rest().raw == b""
            for source in ("127.0.0.6", "127.0.0.6", "127.0.0.9", "127.0.0.9", "127.0.0.9"):
                assert front.get("/echo", source=source)["client"][0] == source
        wait_until(lambda: front_answers(front), "the first two to be gone")
        server.wait_line(f"Refused a connection: {CLIENT} has 2 already (--limit-connections-per-address)")


def front_answers(front: Front) -> bool:
    with front.connect() as client:
        client.get("/", "Connection: close")
        return client.rest().statuses == [200]


def test_all_workers_take_headers(tool: Tool, tmp_path: Path, how: str) -> None:
    options = ("--workers", "2", "--proxy-protocol", "--control-socket", "none")
    with Server("apps:app", *options) as server, haproxy(tool, tmp_path, server, how) as front:
        pids: set[int] = set()

        def both() -> bool:
            with front.connect() as client:
                client.get("/echo")
                assert client.response().json()["client"] == name_of(client)
                client.get("/facts")
                pids.add(client.response().json()["pid"])
            return len(pids) == 2

        wait_until(both, "both workers")
        assert server.stop() == 0


# --- nobody in front ---


def test_f2_stranger_s_header_is_no_header() -> None:
    """Off, it is no request; on, whoever is not trusted is closed without a reply, with it or without."""
    with Server("apps:app", "--no-access-log") as server:
        assert server.exchange(LINE + GET_ECHO).only.status == 501  # an unknown method
        assert server.exchange(GET_ECHO).only.status == 200
    with Server("apps:app", "--no-access-log", "--proxy-protocol", "--forwarded-allow-ips", "10.0.0.1") as server:
        for data in (LINE + GET_ECHO, GET_ECHO):
            assert server.exchange(data).raw == b""
        server.wait_line("not from 127.0.0.1")
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0


def test_f2_trusted_peer_without_a_header_gets_no_reply() -> None:
    with Server("apps:app", "--no-access-log", "--proxy-protocol", "--timeout-proxy-header", "0.2") as server:
        assert server.exchange(GET_ECHO).raw == b""
        server.wait_line("Refused a connection: a trusted peer sent no PROXY header")
        assert server.exchange(LINE[:20]).raw == b""
        server.wait_line("Refused a connection: its PROXY header took too long")
        assert server.exchange(LINE + GET_ECHO).only.json()["client"] == ["192.0.2.7", 40_000]


@pytest.mark.parametrize(("trusted", "headers", "client"), [
    pytest.param("127.0.0.1", [], "192.0.2.7", id="not asked for"),
    pytest.param("127.0.0.1", ["--proxy-headers"], "192.0.2.7", id="the one whom the header names is not trusted"),
    pytest.param("127.0.0.1,192.0.2.0/24", ["--proxy-headers"], "1.2.3.4", id="it is a proxy itself"),
])  # fmt: skip
def test_f1_x_forwarded_for_is_believed_of_whom_the_header_names(trusted: str, headers: list[str], client: str) -> None:
    with Server("apps:app", "--no-access-log", "--proxy-protocol", "--forwarded-allow-ips", trusted, *headers) as server:
        request = GET_ECHO.replace(b"Host: a", b"Host: a\r\nX-Forwarded-For: 1.2.3.4")
        assert server.exchange(LINE + request).only.json()["client"][0] == client


def test_f4_root_path_is_no_client_s_to_set() -> None:
    """Not even a trusted proxy's: the header of daphne's that did it is passed on as any other (spec attacks F4)."""
    for options in ([], ["--proxy-headers", "--forwarded-allow-ips", "*"], ["--root-path", "/app"]):
        with (
            Server("socket_apps:app", "--no-access-log", *options) as server,
            SocketClient.open(server, "/scope", "Daphne-Root-Path: /evil", "X-Script-Name: /evil", "Script-Name: /evil") as client,
        ):
            scope = client.hear()
            assert f"'root_path': '{'/app' if '--root-path' in options else ''}'" in scope
            assert "(b'daphne-root-path', b'/evil')" in scope


def test_options_that_cannot_go_together_are_one_line() -> None:
    words = Server.words("apps:app", "--proxy-protocol", "--endpoint", "tcp:0")
    found = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert found.returncode == 2
    assert "--proxy-protocol: expected no Twisted endpoint string beside it" in found.stderr
