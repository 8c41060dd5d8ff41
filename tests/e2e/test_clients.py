"""Clients and proxies that nobody here wrote. Each test needs the program it names and is skipped without it."""

import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from e2e.server import Server, wait_until

Tool = Callable[[str], str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    unix = tmp_path_factory.mktemp("unix") / "socket"
    with Server("apps:app", "--no-access-log", "--unix-socket", str(unix), "--proxy-headers") as running:
        running.unix = str(unix)
        yield running
        assert running.stop() == 0
        assert "never retrieved" not in running.log


def run(*words: str, data: bytes = b"") -> str:
    found = subprocess.run(words, input=data, capture_output=True, timeout=60)
    assert found.returncode == 0, found.stderr.decode()
    return found.stdout.decode("latin-1")


# --- curl ---


@pytest.fixture
def curl(tool: Tool, server: Server) -> Callable[..., str]:
    program = tool("curl")

    def call(path: str, *options: str, data: bytes = b"") -> str:
        return run(program, "--silent", "--show-error", "--max-time", "30", *options, f"http://127.0.0.1:{server.port}{path}", data=data)

    return call


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
def test_curl_gets(curl: Callable[..., str], version: str) -> None:
    answer = curl("/echo", version, "--include")
    head, _, body = answer.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert json.loads(body)["http_version"] == version.removeprefix("--http")


def test_curl_gets_a_streamed_body_over_1_0(curl: Callable[..., str]) -> None:
    assert len(curl("/opened?path=" + __file__, "--http1.0")) == len(Path(__file__).read_bytes()) + len("before  after")


def test_curl_heads(curl: Callable[..., str]) -> None:
    assert "content-length: 5\r\n" in curl("/", "--head")


def test_curl_uploads_after_100_continue(curl: Callable[..., str], tool: Tool, server: Server) -> None:
    found = subprocess.run(
        [tool("curl"), "--silent", "--verbose", "--max-time", "30", "--expect100-timeout", "25", "--header", "Expect: 100-continue",
         "--data-binary", "@-", f"http://127.0.0.1:{server.port}/length"],
        input=b"x" * 3_000_000, capture_output=True, timeout=60,
    )  # fmt: skip
    assert found.stdout == b"3000000"
    assert b"< HTTP/1.1 100 Continue" in found.stderr


def test_curl_uploads_in_chunks(curl: Callable[..., str]) -> None:
    assert curl("/length", "--header", "Transfer-Encoding: chunked", "--upload-file", "-", "-X", "POST", data=b"x" * 3_000_000) == "3000000"


def test_curl_asks_many_times_on_one_connection(curl: Callable[..., str], server: Server) -> None:
    assert curl("/blob?size=[1-50]", "--write-out", " %{num_connects} ").split()[1::2] == ["1"] + ["0"] * 49


def test_curl_over_a_unix_socket(curl: Callable[..., str], server: Server) -> None:
    found = json.loads(curl("/echo", "--unix-socket", server.unix))
    assert (found["client"], found["server"]) == (None, [server.unix, None])


def test_curl_sees_that_a_body_is_incomplete(tool: Tool, server: Server) -> None:
    for kind in ("raise+in+body", "raise+in+body+length", "too+few", "raise+after+start"):
        found = subprocess.run(
            [tool("curl"), "--silent", f"http://127.0.0.1:{server.port}/fault?kind={kind}"], capture_output=True, timeout=60
        )
        assert found.returncode in {18, 52, 56}, kind


# --- httpx ---


def test_httpx_on_one_connection(server: Server) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
        assert client.get("/echo", params={"a": "ä b"}).json()["path"] == "/echo"
        assert client.post("/echo", content=b"body").json()["body"] == "body"
        assert client.post("/length", content=iter([b"x" * 10_000] * 100)).text == "1000000"
        assert client.head("/").headers["content-length"] == "5"
        assert client.get("/%C3%A4%2F").status_code == 200
        with client.stream("GET", "/talk") as response:
            assert next(response.iter_lines()) == "data: x"
    server.wait_event("talk ended")


# --- load ---


def test_wrk_has_no_errors(tool: Tool, server: Server) -> None:
    answer = run(tool("wrk"), "--duration", "1s", "--connections", "50", "--threads", "1", f"http://127.0.0.1:{server.port}/")
    assert "Non-2xx" not in answer
    assert "Socket errors" not in answer
    assert int(re.search(r"(\d+) requests in", answer)[1]) > 100  # type: ignore[index]


@pytest.mark.parametrize("options", [[], ["-k"]])
def test_ab_has_no_errors(tool: Tool, server: Server, options: list[str]) -> None:
    answer = run(tool("ab"), "-q", "-n", "1000", "-c", "20", *options, f"http://127.0.0.1:{server.port}/")
    assert re.search(r"Complete requests:\s+1000\n", answer)
    assert re.search(r"Failed requests:\s+0\n", answer)
    assert "Non-2xx" not in answer


def test_h2load_over_http1_has_no_errors(tool: Tool, server: Server) -> None:
    answer = run(tool("h2load"), "--h1", "--requests", "2000", "--clients", "20", f"http://127.0.0.1:{server.port}/blob?size=20000")
    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in answer


# --- proxies in front ---


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


NGINX = """
daemon off; master_process off; pid {here}/nginx.pid; error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/f;
    uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;
    upstream application {{ server {upstream}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 0;
        location / {{
            proxy_pass http://application;
            proxy_http_version {version};
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto https;
            proxy_request_buffering off;
        }}
    }}
}}
"""
HAPROXY = """
global
    maxconn 100
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    option forwardfor
    http-reuse always
frontend front
    bind 127.0.0.1:{port}
    http-request set-header X-Forwarded-Proto https
    default_backend application
backend application
    option httpchk GET /
    server one {upstream} check inter 200ms
"""


@pytest.fixture(params=["nginx 1.0", "nginx 1.1", "nginx unix", "haproxy"])
def front(request: pytest.FixtureRequest, tool: Tool, server: Server, tmp_path: Path) -> Iterator[str]:
    name, _, kind = request.param.partition(" ")
    program, port, file = tool(name), free_port(), tmp_path / "conf"
    upstream = f"unix:{server.unix}" if kind == "unix" else f"127.0.0.1:{server.port}"
    file.write_text(
        (NGINX if name == "nginx" else HAPROXY).format(
            here=tmp_path, upstream=upstream, port=port, version=kind if kind[:1] == "1" else "1.1"
        )
    )
    words = [program, "-p", str(tmp_path), "-e", "stderr", "-c", str(file)] if name == "nginx" else [program, "-f", str(file)]
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            wait_until(lambda: listens(port) or process.poll() is not None, name)
            assert process.poll() is None, (tmp_path / "log").read_text()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def test_proxy_in_front(front: str) -> None:
    with httpx.Client(base_url=front, trust_env=False, timeout=30) as client:
        for _ in range(20):
            found = client.get("/echo").json()
            assert found["client"][0] == "127.0.0.1"
            assert found["scheme"] == "https"
        assert client.post("/length", content=b"x" * 3_000_000).text == "3000000"
        assert client.post("/length", content=iter([b"x" * 10_000] * 100)).text == "1000000"
        assert len(client.get("/flood?size=20000000").content) == 20_000_000
        assert client.get("/fault?kind=raise").status_code == 500
        with pytest.raises(httpx.HTTPError):  # cut, or an error of the proxy's own
            client.get("/fault?kind=raise+in+body+length").raise_for_status()
        assert client.get("/").text == "hello"


def test_client_s_own_address_is_believed_of_a_trusted_proxy_only() -> None:
    with Server("apps:app", "--no-access-log", "--proxy-headers", "--forwarded-allow-ips", "127.0.0.1") as server:
        forged = ("X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https")
        assert json.loads(server.get("/echo", *forged).body)["client"][0] == "1.2.3.4"
    with Server("apps:app", "--no-access-log", "--proxy-headers", "--forwarded-allow-ips", "10.0.0.1") as server:
        found = json.loads(server.get("/echo", *forged).body)
        assert (found["client"][0], found["scheme"]) == ("127.0.0.1", "http")
