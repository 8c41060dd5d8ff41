"""The proxies' configurations in deploy/, each in its own program in front of the server (spec reliability R30)."""

import contextlib
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from certificates import Authority, Pair
from e2e.server import HERE, PATIENCE, Server, wait_until

Tool = Callable[[str], str]
DEPLOY = HERE.parents[1] / "deploy"
VISITOR = "127.0.0.5"  # a client whose address the server does not trust

NGINX = """
daemon off; master_process off; pid {here}/nginx.pid; error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/f;
    uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;
    {text}
}}
"""


def steady_port() -> int:
    """Give a free port below those that the kernel gives to connections, so that it is free still when a server comes back to it."""
    ports = list(range(20_000, 32_000))
    random.shuffle(ports)
    for port in ports:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


def replaced(text: str, changes: dict[str, str]) -> str:
    """Put this machine's names in the place of the example's; each of them has to be there."""
    for before, after in changes.items():
        assert before in text, before
        text = text.replace(before, after)
    return text


@dataclass
class Proxy:
    """A proxy that runs."""

    secure: int
    plain: int
    authority: Authority

    @property
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.authority.path)

    def client(self) -> httpx.Client:
        transport = httpx.HTTPTransport(verify=self.context, local_address=VISITOR, trust_env=False)
        return httpx.Client(transport=transport, base_url=f"https://localhost:{self.secure}", timeout=PATIENCE)


def nginx(tool: Tool, here: Path, pair: Pair, ports: list[int], upstreams: list[int]) -> list[str]:
    text = replaced(
        (DEPLOY / "nginx" / "termserver.conf").read_text(),
        {
            "127.0.0.1:8000;": f"127.0.0.1:{upstreams[0]};",
            "listen 443": f"listen 127.0.0.1:{ports[0]}",
            "listen 80;": f"listen 127.0.0.1:{ports[1]};",
            "/etc/ssl/example.com.pem": pair.certificate,
            "/etc/ssl/example.com.key": pair.key,
        },
    )
    (here / "nginx.conf").write_text(NGINX.format(here=here, text=text))
    return [tool("nginx"), "-p", str(here), "-e", "stderr", "-c", str(here / "nginx.conf")]


def haproxy(tool: Tool, here: Path, pair: Pair, ports: list[int], upstreams: list[int]) -> list[str]:
    (here / "pair.pem").write_bytes(Path(pair.certificate).read_bytes() + Path(pair.key).read_bytes())
    text = replaced(
        (DEPLOY / "haproxy" / "haproxy.cfg").read_text(),
        {
            "server one 127.0.0.1:8001": f"server one 127.0.0.1:{upstreams[0]}",
            "server two 127.0.0.1:8002": f"server two 127.0.0.1:{upstreams[-1]}",
            "bind :443 ": f"bind 127.0.0.1:{ports[0]} ",
            "bind :80\n": f"bind 127.0.0.1:{ports[1]}\n",
            "/etc/haproxy/example.com.pem": str(here / "pair.pem"),
        },
    )
    (here / "haproxy.cfg").write_text(text)
    return [tool("haproxy"), "-f", str(here / "haproxy.cfg")]


def caddy(tool: Tool, here: Path, pair: Pair, ports: list[int], upstreams: list[int]) -> list[str]:
    site = f"https://localhost:{ports[0]} {{\n\tbind 127.0.0.1\n\ttls {pair.certificate} {pair.key}\n"
    text = replaced(
        (DEPLOY / "caddy" / "Caddyfile").read_text(),
        {"example.com {\n": site, "reverse_proxy 127.0.0.1:8000": f"reverse_proxy 127.0.0.1:{upstreams[0]}"},
    )
    settings = f"{{\n\tadmin off\n\tskip_install_trust\n\thttp_port {ports[1]}\n\tstorage file_system {here}\n}}\n"
    (here / "Caddyfile").write_text(settings + text)
    return [tool("caddy"), "run", "--adapter", "caddyfile", "--config", str(here / "Caddyfile")]


@contextlib.contextmanager
def running(make: Callable[..., list[str]], tool: Tool, here: Path, authority: Authority, upstreams: list[int]) -> Iterator[Proxy]:
    """A proxy in front of servers on these ports."""
    proxy = Proxy(steady_port(), steady_port(), authority)
    words = make(tool, here, authority.make(f"proxy-{make.__name__}", "localhost"), [proxy.secure, proxy.plain], upstreams)
    environment = {**os.environ, "HOME": str(here), "XDG_DATA_HOME": str(here), "XDG_CONFIG_HOME": str(here)}
    with (here / "log").open("w+") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
        try:
            wait_until(lambda: listens(proxy.secure) or process.poll() is not None, words[0])
            assert process.poll() is None, (here / "log").read_text()
            yield proxy
        finally:
            process.terminate()
            process.wait(PATIENCE)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


# --- one server, each proxy ---


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("deployed_apps:app", "--no-access-log", "--forwarded-allow-ips", "127.0.0.1") as started:
        yield started
        assert started.stop() == 0


@pytest.fixture(scope="module", params=[nginx, haproxy, caddy], ids=lambda make: make.__name__)
def proxy(
    request: pytest.FixtureRequest, tool: Tool, server: Server, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    here = tmp_path_factory.mktemp(request.param.__name__)
    here.chmod(0o755)
    with running(request.param, tool, here, authority, [server.port]) as started:
        yield started


def test_the_client_is_the_visitor_whatever_it_claims(proxy: Proxy) -> None:
    claims = {"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "http", "X-Forwarded-Port": "7", "Forwarded": "for=1.2.3.5;proto=http"}
    with proxy.client() as client:
        for headers in ({}, claims):
            found = client.get("/", headers=headers).json()
            assert (found["client"][0], found["scheme"]) == (VISITOR, "https")
            assert found["headers"]["host"] == f"localhost:{proxy.secure}" or found["headers"]["host"] == "localhost"
            assert "1.2.3" not in found["headers"]["x-forwarded-for"]


def test_connections_to_the_server_are_kept(proxy: Proxy, server: Server) -> None:
    with proxy.client() as client:
        client.get("/")
        before = connections(server.port)
        for _ in range(30):
            assert client.get("/").json()["http_version"] == "1.1"
        assert len(connections(server.port) - before) <= 4


def connections(port: int) -> set[tuple[str, str]]:
    """Give the connections to a port, those that ended lately included."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ends = {(row[1], row[2]) for row in rows if row[3] != "0A"}
    return {(local, remote) for local, remote in ends if f":{port:04X}" in (local[8:], remote[8:])}


def test_a_websocket_passes(proxy: Proxy) -> None:
    wire = socket.create_connection(("127.0.0.1", proxy.secure), PATIENCE, source_address=(VISITOR, 0))
    with connect(f"wss://localhost:{proxy.secure}/", sock=wire, ssl=proxy.context) as client:
        assert json.loads(client.recv(PATIENCE)) == [VISITOR, "wss"]
        for text in ("short", os.urandom(100_000).hex()):
            client.send(text)
            assert client.recv(PATIENCE) == text


def test_an_upload_arrives_while_it_is_sent(proxy: Proxy, server: Server) -> None:
    arrived = []

    def parts() -> Iterator[bytes]:
        yield b"x" * 100_000
        wait_until(lambda: server.ask("/uploaded") > 0, "the first part")
        arrived.append(server.ask("/uploaded"))
        yield b"y" * 100_000

    with proxy.client() as client:
        assert client.post("/upload", content=parts()).text == "200000"
    assert 0 < arrived[0] <= 100_000


def test_events_arrive_when_they_are_sent(proxy: Proxy, server: Server) -> None:
    with proxy.client() as client, client.stream("GET", "/tell") as response:
        lines = response.iter_lines()
        assert next(lines) == "data: first"
        assert server.get("/go").status == 200
        assert [line for line in lines if line] == ["data: last"]


def test_plain_http_is_sent_to_https(proxy: Proxy) -> None:
    with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
        found = client.get(f"http://localhost:{proxy.plain}/path?a=b")
        assert (found.status_code, found.headers["location"].startswith("https://localhost")) == (308, True)
        assert found.headers["location"].endswith("/path?a=b")


# --- two servers, restarted one after the other ---


@dataclass
class Visitor:
    """Asks again and again on kept connections, and notes how it fared."""

    proxy: Proxy
    served: int = 0
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0
    pids: set[int] = field(default_factory=set)
    stop: bool = False

    def visit(self) -> None:
        with self.proxy.client() as client:
            while not self.stop:
                began = time.monotonic()
                try:
                    answer = client.get("/")
                    answer.raise_for_status()
                    self.pids.add(answer.json()["parent"])
                    self.served += 1
                except httpx.HTTPError as error:
                    self.faults.append(repr(error))
                self.slowest = max(self.slowest, time.monotonic() - began)


@contextlib.contextmanager
def visiting(proxy: Proxy, count: int) -> Iterator[list[Visitor]]:
    visitors = [Visitor(proxy) for _ in range(count)]
    threads = [threading.Thread(target=visitor.visit, daemon=True) for visitor in visitors]
    for thread in threads:
        thread.start()
    try:
        yield visitors
    finally:
        for visitor in visitors:
            visitor.stop = True
        for thread in threads:
            thread.join(PATIENCE)


def start(port: int, control: Path) -> Server:
    options = ("--no-access-log", "--forwarded-allow-ips", "127.0.0.1", "--workers", "1", "--control-socket", str(control))
    return Server("deployed_apps:app", "--bind", f"127.0.0.1:{port}", *options, port=False)


def test_nobody_behind_haproxy_notices_reloads_and_restarts(tool: Tool, authority: Authority, tmp_path: Path) -> None:
    ports = [steady_port(), steady_port()]
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(start(port, tmp_path / f"control-{port}")) for port in ports]
        with running(haproxy, tool, tmp_path, authority, ports) as proxy, visiting(proxy, 4) as visitors:
            wait_until(lambda: seen(visitors) >= {server.pid for server in servers}, "visits to both servers")
            for place, port in enumerate(ports):
                server = servers[place]
                for count in (1, 2):
                    server.send_signal(signal.SIGHUP)
                    wait_until(lambda server=server, count=count: ended(server) == count, "the old worker's end")
                assert server.stop() == 0
                server = stack.enter_context(start(port, tmp_path / f"control-{port}"))
                wait_until(lambda server=server: server.pid in seen(visitors), "visits to the server that is back")
    faults = [fault for visitor in visitors for fault in visitor.faults]
    served, slowest = sum(visitor.served for visitor in visitors), max(visitor.slowest for visitor in visitors)
    print(f"4 reloads, 2 restarts: {served} requests, {len(faults)} failed, slowest {slowest:.2f} s")
    assert faults == []
    assert served > 100


def seen(visitors: list[Visitor]) -> set[int]:
    """Give the supervisors whose workers answered."""
    return {pid for visitor in visitors for pid in tuple(visitor.pids)}


def ended(server: Server) -> int:
    """Count the workers that are gone."""
    return sum("has ended" in line for line in server.lines)
