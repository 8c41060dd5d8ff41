"""HTTP/2 by a real process: clients that nobody here wrote, what applications are told, WebSockets on streams, how the server stops."""

import ast
import json
import os
import re
import signal
import struct
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from selenium import webdriver
from selenium.webdriver.support.wait import WebDriverWait

from certificates import Authority, Pair
from e2e.conftest import CHROMIUM_FLAGS
from e2e.h2client import (
    DATA,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    PREFACE,
    WINDOW_UPDATE,
    Http2Client,
    StreamSocket,
    frame,
    offering,
    rst_stream,
    settings,
    window_update,
)
from e2e.secure import NAME, TlsServer
from e2e.server import Server, wait_until
from e2e.sockets import BINARY, CLOSE, PING, PONG, TEXT, closing
from e2e.sockets import frame as socket_frame

Tool = Callable[[str], str]
APP = ("h2apps:app", "--no-access-log", "--timeout-linger-idle", "0.3")
HERE = Path(__file__).parent
MIB = 1 << 20


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.make("http2", NAME, "127.0.0.1")


@pytest.fixture(scope="module")
def plain() -> Iterator[Server]:
    with Server(*APP) as running:
        yield running
        ended_well(running)


@pytest.fixture(scope="module")
def secure(authority: Authority, pair: Pair) -> Iterator[TlsServer]:
    with TlsServer(authority, [pair], *APP) as running:
        yield running
        ended_well(running)


def ended_well(server: Server) -> None:
    assert server.stop() == 0, server.log
    assert server.log.count("Traceback") == server.log.count("ERROR    Exception in the application"), server.log
    assert not {"Fatal", "never retrieved", "Unhandled", "CRITICAL"} & set(server.log.split()), server.log


@pytest.fixture(params=["plain", "secure"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


def address(server: Server) -> str:
    return f"http{'s' if isinstance(server, TlsServer) else ''}://127.0.0.1:{server.port}"


def run(*words: str, data: bytes = b"", code: int = 0) -> "subprocess.CompletedProcess[bytes]":
    found = subprocess.run(words, input=data, capture_output=True, timeout=60)
    assert found.returncode == code, found.stderr.decode()
    return found


def noted(server: Server, text: str, path: str = "/events") -> None:
    wait_until(lambda: any(text in event for event in server.ask(path)), text)


# --- curl ---


@pytest.fixture
def curl(tool: Tool, server: Server, authority: Authority) -> Callable[..., "subprocess.CompletedProcess[bytes]"]:
    how = ("--http2", "--cacert", authority.path) if isinstance(server, TlsServer) else ("--http2-prior-knowledge",)

    def call(path: str, *options: str, data: bytes = b"", code: int = 0) -> "subprocess.CompletedProcess[bytes]":
        words = [tool("curl"), "--silent", "--show-error", "--max-time", "30", *how, *options, f"{address(server)}{path}"]
        return run(*words, data=data, code=code)

    return call


def test_curl_gets_and_heads(curl: Callable[..., Any], server: Server) -> None:
    head, _, body = curl("/echo?a=b", "--include", "--header", "X-Own: 1").stdout.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/2 200 \r\n")
    told = json.loads(body)
    assert (told["http_version"], told["path"], told["method"]) == ("2", "/echo", "GET")
    assert told["scheme"] == ("https" if isinstance(server, TlsServer) else "http")
    assert told["headers"][0] == ["host", f"127.0.0.1:{server.port}"]
    assert ["x-own", "1"] in told["headers"]
    assert b"content-length: 1000\r\n" in curl("/blob?size=1000", "--head").stdout


def test_curl_uploads(curl: Callable[..., Any]) -> None:
    assert curl("/length", "--data-binary", "@-", data=b"x" * 3_000_000).stdout == b"3000000"
    assert curl("/length?pause=0.001", "--upload-file", "-", "-X", "POST", data=b"x" * 3_000_000).stdout == b"3000000"


def test_curl_uploads_after_100_continue(curl: Callable[..., Any]) -> None:
    options = ("--verbose", "--expect100-timeout", "25", "--header", "Expect: 100-continue", "--data-binary", "@-")
    found = curl("/length", *options, data=b"x" * 3_000_000)
    assert found.stdout == b"3000000"
    assert b"< HTTP/2 100" in found.stderr


def test_curl_asks_for_many_at_once_on_one_connection(curl: Callable[..., Any], server: Server) -> None:
    if not isinstance(server, TlsServer):
        pytest.skip("curl 7.88 does not share a connection that it has prior knowledge of, whoever serves")
    found = curl("/blob?size=[10001-10200]", "--parallel", "--parallel-max", "100", "--write-out", "\n%{http_code} %{num_connects}\n")
    told = re.findall(rb"\n(\d{3}) (\d)\n", found.stdout)
    assert [status for status, _ in told] == [b"200"] * 200
    assert sum(int(connects) for _, connects in told) == 1
    assert found.stdout.count(b"x") == sum(range(10_001, 10_201))


def test_curl_shows_hints_and_trailers(curl: Callable[..., Any]) -> None:
    found = curl("/hints", "--include")
    assert found.stdout.count(b"HTTP/2 103 \r\n") == 2
    assert found.stdout.count(b"link: </c.js>; rel=preload\r\n") == 2
    found = curl("/trailers", "--verbose", "--header", "TE: trailers", "--data", "body")
    assert found.stdout == b"body"
    assert b"< x-own: 1" in found.stderr


@pytest.mark.parametrize(("options", "version"), [(("--http2-upgrade",), "2"), ((), "1.1")], ids=["asked for", "not asked for"])
def test_7540_3_2_curl_upgrades_where_the_server_was_told_to(tool: Tool, options: tuple[str, ...], version: str) -> None:
    with Server(*APP, *options) as server:
        words = [tool("curl"), "--silent", "--show-error", "--http2", "--include"]
        found = run(*words, f"{address(server)}/echo?n=1", "--next", *words[1:], f"{address(server)}/echo?n=2").stdout
        statuses = re.findall(rb"HTTP/([0-9.]+) 200 ", found)
        told = [json.loads(line) for line in re.findall(rb'\{"method.*?"body": ""\}', found)]
        assert [each["http_version"] for each in told] == [version] * 2
        assert statuses == [version.encode()] * 2
        assert found.count(b"HTTP/1.1 101 ") == (1 if version == "2" else 0)  # the second goes over the connection as it is
        asked = {"upgrade", "connection", "http2-settings"} & {name for name, _ in told[0]["headers"]}
        assert asked == (set() if version == "2" else {"upgrade", "connection", "http2-settings"})
        uploaded = run(*words[:-1], "--data-binary", "@-", f"{address(server)}/length", data=b"x" * 300_000)
        assert uploaded.stdout == b"300000"
        ended_well(server)


def test_curl_sees_that_a_body_is_incomplete(curl: Callable[..., Any]) -> None:
    for kind in ("raise+in+body", "raise+in+body+length", "too+few"):
        assert b"INTERNAL_ERROR" in curl(f"/fault?kind={kind}", code=92).stderr


# --- nghttp and h2load ---


@pytest.fixture
def nghttp(tool: Tool, server: Server) -> Callable[..., bytes]:
    program = tool("nghttp")

    def call(path: str, *options: str, data: bytes = b"") -> bytes:
        return run(program, "--no-verify-peer", "--timeout", "30s", *options, f"{address(server)}{path}", data=data).stdout

    return call


def test_nghttp_gets_and_posts(nghttp: Callable[..., bytes], server: Server) -> None:
    assert json.loads(nghttp("/echo"))["http_version"] == "2"
    assert nghttp("/length", "--data", "-", data=b"x" * 3_000_000) == b"3000000"
    assert nghttp("/length", "--data", "-", "--padding", "100", "--no-content-length", data=b"x" * 300_000) == b"300000"
    assert nghttp("/length", "--data", "-", "--expect-continue", data=b"x" * 300_000) == b"300000"


def test_nghttp_is_answered_before_its_upload_is_whole(nghttp: Callable[..., bytes]) -> None:
    text = nghttp("/early", "--verbose", "--data", "-", data=b"x" * 30_000_000).decode()
    assert ":status: 413" in text
    assert "enough" in text
    assert "error_code=NO_ERROR(0x00)" in text.partition("recv RST_STREAM")[2]


def test_nghttp_sends_and_sees_trailers(nghttp: Callable[..., bytes]) -> None:
    options = ("--verbose", "--header", "te: trailers", "--trailer", "x-checksum: abc", "--data", "-")
    text = nghttp("/trailers", *options, data=b"a body").decode()
    assert "x-was-x-checksum: abc" in text
    assert "x-own: 1" in text


def test_nghttp_sends_a_head_in_several_frames(nghttp: Callable[..., bytes]) -> None:
    found = json.loads(nghttp("/echo", "--continuation"))
    assert sum(len(value) for name, value in found["headers"] if name.startswith("continuation-test-")) > 16_384


@pytest.mark.parametrize("options", [(), ("--no-dep",), ("--weight", "1"), ("--window-bits", "10"), ("--connection-window-bits", "12")])
def test_nghttp_asks_for_many_at_once(nghttp: Callable[..., bytes], options: tuple[str, ...]) -> None:
    found = nghttp("/blob?size=30000", "--multiply", "90", *options)
    assert len(found) == 90 * 30_000


def test_9218_priority_field_of_nghttp_s_is_no_fault(nghttp: Callable[..., bytes]) -> None:
    assert nghttp("/", "--header", "priority: u=0, i", "--no-rfc7540-pri") == b"hello"


@pytest.mark.parametrize(("requests", "clients", "streams"), [(10_000, 2, 100), (2_000, 10, 20), (2_000, 20, 1)])
def test_h2load_has_no_errors(tool: Tool, server: Server, requests: int, clients: int, streams: int) -> None:
    options = ("--requests", str(requests), "--clients", str(clients), "--max-concurrent-streams", str(streams))
    found = run(tool("h2load"), *options, f"{address(server)}/").stdout.decode()
    assert f"{requests} succeeded, 0 failed, 0 errored, 0 timeout" in found
    assert f"{requests} 2xx, 0 3xx, 0 4xx, 0 5xx" in found
    assert f"Application protocol: h2{'' if isinstance(server, TlsServer) else 'c'}" in found


def test_h2load_with_bodies_both_ways_has_no_errors(tool: Tool, server: Server, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(bytes(100_000))
    options = ("--requests", "500", "--clients", "5", "--max-concurrent-streams", "10")
    found = run(tool("h2load"), *options, "--data", str(tmp_path / "body"), f"{address(server)}/blob?size=100000").stdout.decode()
    assert "500 2xx" in found, found
    found = run(tool("h2load"), *options, "--data", str(tmp_path / "body"), f"{address(server)}/length").stdout.decode()
    assert "500 succeeded, 0 failed, 0 errored, 0 timeout" in found


# --- node, httpx, Chromium ---


def test_node_talks(tool: Tool, server: Server) -> None:
    found = run(tool("node"), str(HERE / "node" / "http2_client.js"), address(server)).stdout
    told = json.loads(found)
    assert "error" not in told, told
    assert (told["get"]["http_version"], told["get"]["path"]) == ("2", "/echo")
    assert [value for name, value in told["get"]["headers"] if name == "x-own"] == ["1", "2"]
    assert (told["many"], told["upload"]) == (200, "3000000")
    assert told["trailers"] == {"body": "a body", "own": "1", "was": "abc"}
    assert told["hints"] == [[103, f"</{name}.css>; rel=preload; as=style, </c.js>; rel=preload"] for name in "ab"]
    assert (told["hinted"], told["reset"], told["pong"], told["closed"]) == ("hinted", True, "8 bytes.", True)
    if told["socket"] is None:
        reason = "npm's ws is not installed (make installs it, and sets NODE_PATH)"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    assert told["socket"] == {"status": 200, "right": True, "code": 4_001, "reason": "done"}
    noted(server, "/echonode: disconnect 4001 done", "/socket-events")


def test_httpx_on_one_connection(server: Server, authority: Authority) -> None:
    with httpx.Client(base_url=address(server), http1=False, http2=True, verify=authority.client(), trust_env=False) as client:
        answer = client.get("/echo", params={"a": "ä b"})
        assert (answer.http_version, answer.json()["http_version"]) == ("HTTP/2", "2")
        assert client.post("/echo", content=b"body").json()["body"] == "body"
        assert client.post("/length", content=iter([b"x" * 10_000] * 100)).text == "1000000"
        assert client.head("/blob?size=7").headers["content-length"] == "7"
        assert len(client.get("/blob?size=3000000").content) == 3_000_000
        with client.stream("GET", "/talk") as response:
            assert next(response.iter_lines()) == "data: x"
    noted(server, "talk ended: ClientDisconnected")


@pytest.fixture
def chromium(tool: Tool, tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """Give a Chromium that trusts whom it likes, and notes what goes over the network."""
    options = webdriver.ChromeOptions()
    options.binary_location = tool("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in (*CHROMIUM_FLAGS, "--ignore-certificate-errors", "--hide-scrollbars", f"--user-data-dir={tmp_path / 'chromium'}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService(tool("chromedriver")))
    yield driver
    driver.quit()


def open_page(browser: webdriver.Chrome, server: Server, path: str) -> dict[str, Any]:
    """Open a page and wait until it says that it is done; give what it found."""
    browser.get(f"{address(server)}{path}")
    WebDriverWait(browser, 30).until(lambda page: page.title == "done")
    found: dict[str, Any] = browser.execute_script("return window.found")
    return found


def on_the_network(browser: webdriver.Chrome) -> list[dict[str, Any]]:
    """Give what DevTools say of every response."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [each["params"]["response"] for each in messages if each["method"] == "Network.responseReceived"]


def test_chromium_uses_one_connection_of_http2_for_everything(secure: TlsServer, chromium: webdriver.Chrome) -> None:
    found = open_page(chromium, secure, "/page")
    responses = [each for each in on_the_network(chromium) if each["url"].startswith("https:")]
    console = chromium.get_log("browser")
    assert "error" not in found, found
    assert len(responses) > 50
    assert {each["protocol"] for each in responses} == {"h2"}
    assert len({each["connectionId"] for each in responses}) == 1
    assert (found["protocol"], found["protocols"]) == ("h2", ["h2"])
    assert (found["texts"], found["posted"], found["large"]) == (["hello"] * 50, "3000000", 5_000_000)
    assert found["numbers"] == "1,2,3"
    noted(secure, "numbers: disconnect")
    scope, fetched = ast.literal_eval(found["scope"]), ast.literal_eval(found["fetched"])
    assert (scope["type"], scope["http_version"], scope["scheme"]) == ("websocket", "2", "wss")
    assert (fetched["type"], fetched["http_version"], fetched["scheme"]) == ("http", "2", "https")
    assert scope["client"] == fetched["client"]  # the port too: a stream of the same connection
    assert scope["headers"][0] == (b"host", f"127.0.0.1:{secure.port}".encode())
    assert (b"origin", f"https://127.0.0.1:{secure.port}".encode()) in scope["headers"]
    noted(secure, "/scope: disconnect 4001 done", "/socket-events")
    assert console == []


def test_chromium_shows_what_it_loaded(secure: TlsServer, chromium: webdriver.Chrome, tmp_path: Path) -> None:
    """The image in docs/: HTTP2_IMAGE=docs/images/http2-chromium.png makes it again."""
    rows = open_page(chromium, secure, "/network")["rows"]
    names = [name for name, *_ in rows]
    assert names == [
        "/network",
        "/network.css",
        "/network.svg",
        "/blob?size=200000",
        "/length",
        "/missing",
        "/numbers?count=3",
        "wss /scope",
    ]
    assert {protocol for _, protocol, *_ in rows} == {"h2"}
    assert len({each["connectionId"] for each in on_the_network(chromium) if each["url"].startswith("https:")}) == 1
    assert [status for *_, status, _ in rows] == ["200"] * 5 + ["404"] + ["200"] * 2
    chromium.set_window_size(820, 560)
    image = Path(os.environ.get("HTTP2_IMAGE") or tmp_path / "http2-chromium.png")
    assert chromium.save_screenshot(str(image))
    assert image.stat().st_size < 150_000


# --- what the application is told ---


def test_every_stream_has_a_scope_of_its_own(plain: Server) -> None:
    with Http2Client(plain) as client:
        fields = [("cookie", "a=1"), ("cookie", "b=2"), ("x-own", "1"), ("x_own", "dropped"), ("proxy", "dropped"), ("x-own", "2")]
        numbers = [client.ask(f"/scope?n={number}&x=%41", *fields) for number in range(20)]
        scopes = [ast.literal_eval(answer.body.decode()) for answer in client.answer_of(numbers)]
    assert [scope["query_string"] for scope in scopes] == [b"n=%d&x=%%41" % number for number in range(20)]
    scope: dict[str, Any] = scopes[0]
    assert (scope["type"], scope["http_version"], scope["method"], scope["scheme"]) == ("http", "2", "GET", "http")
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
    assert (scope["path"], scope["raw_path"], scope["root_path"]) == ("/scope", b"/scope", "")
    assert scope["headers"][0] == (b"host", b"a")
    assert [value for name, value in scope["headers"] if name == b"x-own"] == [b"1", b"2"]
    assert [value for name, value in scope["headers"] if name == b"cookie"] in ([b"a=1", b"b=2"], [b"a=1; b=2"])
    assert not [name for name, _ in scope["headers"] if name.startswith(b":") or b"_" in name or name == b"proxy"]
    assert scope["server"] == (plain.host, plain.port)
    assert scope["client"] == (plain.host, client.local_port)
    offered = {"http.response.early_hint", "http.response.pathsend", "http.response.trailers", "http.response.zerocopysend"}
    assert offered <= set(scope["extensions"])


def test_b13_scheme_is_the_transport_s(plain: Server, secure: TlsServer, authority: Authority) -> None:
    with Http2Client(plain) as client:
        client.last += 2
        client.send(frame(HEADERS, END_HEADERS | 1, 1, client.head("/echo", scheme="https")))
        assert json.loads(client.answer(1).body)["scheme"] == "http"
    with Http2Client(secure, context=offering(authority, "h2")) as client:
        assert json.loads(client.get("/echo").body)["scheme"] == "https"  # whose :scheme is http
        assert json.loads(client.get("/tls").body)["tls_version"] == 0x0304


def test_head_has_the_length_and_no_body(server: Server, authority: Authority) -> None:
    with opened(server, authority) as client:
        answer = client.answer(client.ask("/blob?size=1000", method="HEAD"))
        assert (answer.status, answer["content-length"], answer.body) == (200, "1000", b"")
        for status in (204, 304):
            assert client.get(f"/status?status={status}").body == b""


def opened(server: Server, authority: Authority, *values: Any, **options: Any) -> Http2Client:
    """Open a connection, over TLS with ALPN."""
    if isinstance(server, TlsServer):
        options["context"] = offering(authority, "h2")
    return Http2Client(server, *values, **options)


def test_hints_and_trailers(plain: Server) -> None:
    with Http2Client(plain) as client:
        assert [status for status, _ in client.get("/hints").interim] == [103, 103]
        number = client.ask("/trailers", ("te", "trailers"), body=b"a body", ended=False)
        client.send(frame(HEADERS, END_HEADERS | 1, number, client.encoder.encode([("x-checksum", "abc")])))
        answer = client.answer(number)
        assert (answer.body, answer.trailers) == (b"a body", [("x-own", "1"), ("x-was-x-checksum", "abc")])
        assert client.answer(client.ask("/trailers", body=b"a")).trailers == []  # it did not say that it takes any


def test_files_are_sent(plain: Server, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(3_000_000))
    with Http2Client(plain) as client:
        assert client.get(f"/path?path={file}").body == file.read_bytes()
        answer = client.get(f"/opened?path={file}&offset=1000&count=1000000")
        assert answer.body == b"before " + file.read_bytes()[1_000:1_001_000] + b" after"


def test_file_whose_reader_leaves(plain: Server, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(3_000_000))
    with Http2Client(plain, opens_windows=False) as client:
        number = client.ask(f"/path?path={file}")
        client.wait(lambda found: found.kind == DATA)
        client.send(rst_stream(number))
        noted(plain, "pathsend ended: ClientDisconnected")
        client.send(window_update(0, MIB))
        assert client.get("/").body == b"hello"


def test_reset_is_a_disconnect_for_who_listens_and_an_error_for_who_talks(plain: Server) -> None:
    plain.ask("/events")
    plain.get("/forget")
    with Http2Client(plain) as client:
        listener, talker = client.ask("/listen"), client.ask("/talk")
        client.wait(lambda found: found.kind == DATA and found.stream == talker)
        client.send(rst_stream(listener) + rst_stream(talker))
        noted(plain, "disconnect heard by /listen")
        noted(plain, "talk ended: ClientDisconnected")
        assert client.get("/").body == b"hello"
    assert "Exception in the application: GET /talk" not in plain.log


def test_connection_that_is_lost_is_a_disconnect_for_every_stream(plain: Server) -> None:
    plain.get("/forget")
    client = Http2Client(plain)
    for _ in range(30):
        client.ask("/listen")
    client.ask("/talk")
    client.wait(lambda found: found.kind == DATA)
    client.connection.reset()
    plain.wait_event("disconnect heard by /listen", 30)
    plain.wait_event("talk ended: ClientDisconnected")


def test_body_waits_until_the_application_asks_for_it(plain: Server) -> None:
    plain.get("/forget")
    with Http2Client(plain) as client:
        client.beat()
        window = client.their_settings[SettingCodes.INITIAL_WINDOW_SIZE]
        assert window <= 65_536
        number = client.ask("/sip?pause=0.001", body=bytes(window), ended=False)
        plain.wait_event("sip waits")
        client.beat()
        client.beat()
        assert not [each for each in client.frames if each.kind == WINDOW_UPDATE and each.stream == number]
        plain.get("/release")
        sent, room = window, 0
        while sent < 2_000_000:
            while room <= 0:
                found = client.wait(lambda found: found.kind == WINDOW_UPDATE and found.stream == number)
                room += int.from_bytes(found.payload)
            size = min(room, 16_384, 2_000_000 - sent)
            client.data(number, bytes(size))
            sent, room = sent + size, room - size
        client.data(number, b"", ended=True)
        assert client.answer(number).body == b"2000000"


def test_one_body_that_waits_holds_no_other_up(plain: Server) -> None:
    with Http2Client(plain) as client:
        client.beat()
        slow = client.ask("/hold", body=bytes(65_535), ended=False)
        for _ in range(30):  # two megabytes on other streams
            assert client.answer(client.ask("/length", body=bytes(65_535))).body == b"65535"
        client.send(rst_stream(slow))
        client.beat()


def test_response_waits_for_the_windows_and_others_go_on(plain: Server) -> None:
    plain.get("/forget")
    with Http2Client(plain, {SettingCodes.INITIAL_WINDOW_SIZE: 0}) as client:
        client.send(window_update(0, LARGE))
        slow, fast = client.ask("/flood?size=5000000"), client.ask("/blob?size=50000")
        client.send(window_update(fast, 50_000))
        assert len(client.answer(fast).body) == 50_000
        produced = plain.ask("/facts")["produced"]
        assert client.answers[slow].status == 200
        assert client.answers[slow].body == b""
        assert plain.settled() - produced <= 200_000
        client.send(settings({SettingCodes.INITIAL_WINDOW_SIZE: 1_000_000}))
        assert len(client.answer(slow).body) == 5_000_000


LARGE = 1 << 30


def test_urgent_responses_go_first(plain: Server) -> None:
    with Http2Client(plain, opens_windows=False) as client:
        client.answer(client.ask("/blob?size=60000"))
        lazy = client.ask("/blob?size=60000", ("priority", "u=7"))
        client.beat()
        urgent = client.ask("/blob?size=50000", ("priority", "u=0"))
        client.beat()
        assert len(client.answers[lazy].body) == 5_535  # it had the rest of the window first
        client.send(window_update(0, 1_000_000))
        client.answer(lazy)
        assert client.answers[urgent].ended
        order = [each.stream for each in client.frames if each.kind == DATA]
        assert order.index(urgent) < len(order) - 1 - order[::-1].index(lazy)
        assert order[order.index(urgent) :].count(urgent) == 4
        assert order[order.index(urgent) : order.index(urgent) + 4] == [urgent] * 4


def test_concurrency_over_the_limit_is_503(authority: Authority, pair: Pair) -> None:
    with Server(*APP, "--limit-concurrency", "2", "--application-close-timeout", "0.2") as server, Http2Client(server) as client:
        held = [client.ask("/hold"), client.ask("/hold")]
        refused = client.get("/")
        assert (refused.status, refused["retry-after"]) == (503, "1")
        client.send(rst_stream(held[0]))
        wait_until(lambda: client.get("/").status == 200, "the first call to be cancelled")


def test_application_that_takes_too_long_is_504_before_the_start_and_cut_after_it() -> None:
    with Server(*APP, "--http-timeout", "0.3") as server, Http2Client(server) as client:
        silent, begun = client.ask("/silent"), client.ask("/hold-body")
        assert client.answer(silent).status == 504
        assert client.reset_of(begun) is ErrorCodes.INTERNAL_ERROR
        assert client.answers[begun].body == b"first "
        server.wait_event("cancelled")
        assert client.get("/").status == 200


@pytest.mark.parametrize(
    "options",
    [("--timeout-body-idle", "0.3"), ("--body-min-rate", "100000", "--body-min-rate-grace", "0.2")],
    ids=["L13 idle", "L14 rate"],
)
def test_slow_body_is_cancelled_and_told_to_the_application(options: tuple[str, ...]) -> None:
    with Server(*APP, *options) as server, Http2Client(server) as client:
        number = client.ask("/echo", body=b"x", ended=False)
        assert client.reset_of(number) is ErrorCodes.CANCEL
        server.wait_event("disconnect in the body of /echo")
        assert client.get("/").status == 200


def test_call_that_goes_on_after_a_reset_is_cancelled_with_a_line() -> None:
    with Server(*APP, "--application-close-timeout", "0.4") as server, Http2Client(server) as client:
        numbers = [client.ask("/works?name=1"), client.ask("/works?name=2&begin=1")]
        server.wait_event("works2")
        client.send(b"".join(map(rst_stream, numbers)))
        server.wait_event("works1: cancelled late")
        server.wait_event("works2: cancelled late")
        server.wait_line("GET /works: cancelled 0 s after its client left; it was waiting for other")
        wait_until(lambda: server.log.count("/works: cancelled 0 s after") == 2, "the other line")
        assert sorted(line.split()[2] for line in server.lines if "/works: cancelled" in line) == ["INFO", "WARNING"]  # one had begun
        assert client.get("/").status == 200


def test_c2_call_of_a_stream_that_the_client_broke_is_cancelled_at_once(plain: Server) -> None:
    plain.get("/forget")
    with Http2Client(plain) as client:
        number = client.ask("/works?name=broken&begin=1")
        client.wait(lambda found: found.kind == DATA)
        began = time.monotonic()
        client.send(window_update(number, (1 << 31) - 1))
        assert client.reset_of(number) is ErrorCodes.FLOW_CONTROL_ERROR
        plain.wait_event("worksbroken: cancelled")
        assert time.monotonic() - began < 5  # not the ten seconds of a client that left
        assert client.get("/").status == 200


def test_l20_calls_that_go_on_count_as_streams() -> None:
    with Server(*APP, "--http2-max-streams", "5") as server, Http2Client(server) as client:
        client.beat()
        assert client.their_settings[SettingCodes.MAX_CONCURRENT_STREAMS] == 5
        numbers = [client.ask("/works") for _ in range(5)]
        server.wait_event("works", 5)
        client.send(b"".join(map(rst_stream, numbers)))
        assert client.reset_of(client.ask("/")) is ErrorCodes.REFUSED_STREAM
        client.beat()


@pytest.mark.parametrize(("kind", "status"), [("raise", 500), ("return", 500), ("split+value", 500)])
def test_application_that_fails_before_the_start_is_a_500(plain: Server, kind: str, status: int) -> None:
    with Http2Client(plain) as client:
        answer = client.get(f"/fault?kind={kind}")
        assert (answer.status, answer.reset) == (status, None)
        assert client.get("/").body == b"hello"


def test_access_log_says_http_2() -> None:
    with Server("h2apps:app") as server:
        with Http2Client(server) as client:
            client.get("/blob?size=12345")
            client.reset_of(client.ask("/fault?kind=too+few"))
            listener = client.ask("/listen")
            client.beat()
            client.send(rst_stream(listener))
            stream = StreamSocket(client, "/echo?log").opened()
            stream.send(socket_frame(TEXT, b"12345") + closing(1_000), ended=True)
            client.answer(stream.number)
        server.wait_line('"GET /blob?size=12345 HTTP/2" 200 12345 ', out=True)
        server.wait_line('"GET /fault?kind=too+few HTTP/2" 200 ', out=True)
        server.wait_line('"GET /listen HTTP/2" 499 ', out=True)
        assert '"CONNECT /echo?log HTTP/2" 200 5 ' in server.wait_line("/echo?log", out=True)


# --- http/1.1 beside it ---


def test_alpn_chooses_what_the_client_prefers_of_what_the_server_speaks(secure: TlsServer, authority: Authority) -> None:
    chosen = []
    for offer in (["h2", "http/1.1"], ["http/1.1", "h2"], ["http/1.1"], ["h2"], ["h3", "h2"]):
        with secure.connect(context=offering(authority, *offer)) as client:
            chosen.append(client.tls.selected_alpn_protocol())
    assert chosen[0] == chosen[3] == chosen[4] == "h2"
    assert chosen[1] in {"h2", "http/1.1"}
    assert chosen[2] == "http/1.1"


def test_preface_over_tls_without_alpn_is_prior_knowledge(secure: TlsServer, authority: Authority) -> None:
    with Http2Client(secure) as client:
        assert client.get("/").body == b"hello"


def test_preface_in_pieces(plain: Server) -> None:
    with Http2Client(plain, greets=False) as client:
        client.connection.send_each(PREFACE + settings({}) + frame(HEADERS, END_HEADERS | 1, 1, client.head("/")))
        assert client.answer(1).body == b"hello"


def test_preface_with_everything_in_one_segment(plain: Server) -> None:
    with Http2Client(plain, greets=False) as client:
        client.send(PREFACE + settings({}) + b"".join(frame(HEADERS, END_HEADERS | 1, n, client.head(f"/?{n}")) for n in range(1, 100, 2)))
        assert [answer.body for answer in client.answer_of(range(1, 100, 2))] == [b"hello"] * 50


def test_upgrade_to_h2c_is_ignored(plain: Server) -> None:
    answer = plain.get("/echo", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
    assert (answer.status, answer.json()["http_version"]) == (200, "1.1")


def test_http2_turned_off(authority: Authority, pair: Pair) -> None:
    with Server(*APP, "--no-http2") as server, Http2Client(server) as client:
        assert client.connection.rest().statuses in ([501], [505])
        assert server.get("/").status == 200
        assert server.seen() == ["GET /"]
    with TlsServer(authority, [pair], *APP, "--no-http2") as server:
        with server.connect(context=offering(authority, "h2", "http/1.1")) as client_1:
            assert client_1.tls.selected_alpn_protocol() == "http/1.1"
            client_1.get("/echo")
            assert client_1.response().json()["http_version"] == "1.1"
        with Http2Client(server, context=offering(authority, "h2")) as client_2:
            assert client_2.connection.rest().statuses in ([501], [505])


# --- WebSockets on streams (RFC 8441) ---


def test_8441_socket_is_accepted_and_echoes(server: Server, authority: Authority) -> None:
    with opened(server, authority) as client:
        stream = StreamSocket(client, "/echo?name=both").opened()
        for message in ("hello", "", "żółw 🐢", "x" * 125, "x" * 65_535, "x" * 65_536):
            payload = message.encode()
            for start in range(0, len(payload) or 1, 30_000):
                last = start + 30_000 >= len(payload)
                stream.send(socket_frame(0 if start else TEXT, payload[start : start + 30_000], final=last))
                client.beat()  # the window of the stream has room again
            found = stream.next_frame()
            assert (found.opcode, found.payload.decode()) == (TEXT, message)
        stream.send(socket_frame(PING, b"are you there"))
        assert (found := stream.next_frame()).opcode == PONG
        assert found.payload == b"are you there"
        assert client.get("/").body == b"hello"  # beside it
        stream.send(closing(4_321, "that was it"))
        assert stream.next_frame().code == 4_321
        assert stream.end().reset is None
        assert client.get("/").body == b"hello"  # after it
    noted(server, "/echoboth: disconnect 4321 that was it", "/socket-events")


def test_8441_scope_and_answer(plain: Server) -> None:
    with Http2Client(plain) as client:
        stream = StreamSocket(client, "/scope?x=%41", ("sec-websocket-protocol", "one, two"), ("x-own", "a")).opened()
        scope = ast.literal_eval(stream.next_frame().payload.decode())
        assert (scope["type"], scope["http_version"], scope["scheme"]) == ("websocket", "2", "ws")
        assert (scope["path"], scope["query_string"], scope["subprotocols"]) == ("/scope", b"x=%41", ["one", "two"])
        assert "method" not in scope
        assert scope["headers"][0] == (b"host", b"a")
        assert (b"x-own", b"a") in scope["headers"]
        chosen = StreamSocket(client, "/choose?subprotocol=two", ("sec-websocket-protocol", "one,two")).opened()
        assert chosen.answer["sec-websocket-protocol"] == "two"
        assert chosen.answer["set-cookie"] == "a=b"
        names = [name for name, _ in chosen.answer.headers]
        assert not {"upgrade", "connection", "sec-websocket-accept", "transfer-encoding", "content-length"} & set(names)


def test_8441_messages_are_deflated_where_the_client_offers_it(plain: Server) -> None:
    with Http2Client(plain) as client:
        stream = StreamSocket(client, "/echo", ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits")).opened()
        assert stream.answer["sec-websocket-extensions"].startswith("permessage-deflate")
        text = b"again and again. " * 1_000
        compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
        stream.send(socket_frame(TEXT, (compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4], rsv=4))
        found = stream.next_frame()
        assert (found.rsv, zlib.decompress(found.payload + b"\x00\x00\xff\xff\x03\x00", -15)) == (4, text)


@pytest.mark.parametrize(
    ("path", "status", "body"), [("/refuse", 403, None), ("/deny", 401, b"log in first"), ("/raises?before=1", 500, None)]
)
def test_8441_refusal_is_a_whole_response(plain: Server, path: str, status: int, body: bytes | None) -> None:
    with Http2Client(plain) as client:
        stream = StreamSocket(client, path)
        answer = client.answer(stream.number)
        assert (answer.status, answer.ended) == (status, True)
        assert body is None or answer.body == body
        assert answer.reset in {None, ErrorCodes.NO_ERROR}
        assert client.get("/").body == b"hello"


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("/echo", [("sec-websocket-protocol", "caf\xe9")], 400),
        ("/echo", [("sec-websocket-extensions", "a;=;")], 400),
        ("/echo", [("sec-websocket-version", "8")], 400),
    ],
)
def test_8441_bad_handshake_is_refused_by_the_server(plain: Server, path: str, fields: list[tuple[str, str]], status: int) -> None:
    with Http2Client(plain) as client:
        assert client.answer(StreamSocket(client, path, *fields).number).status == status


def test_8441_other_protocols_are_501_and_foreign_origins_403() -> None:
    with Server(*APP, "--allowed-origins", "https://example.com") as server, Http2Client(server) as client:
        assert client.answer(StreamSocket(client, "/echo", ("origin", "https://evil.example")).number).status == 403
        StreamSocket(client, "/echo", ("origin", "https://example.com")).opened()
        number = client.next_stream()
        fields = [(":method", "CONNECT"), (":protocol", "connect-udp"), (":scheme", "http"), (":path", "/"), (":authority", "a")]
        client.send(frame(HEADERS, END_HEADERS, number, client.encoder.encode(fields)))
        assert client.answer(number).status == 501


@pytest.mark.parametrize("way", ["reset", "end of stream", "connection"])
def test_8441_client_that_is_gone_is_1006(plain: Server, way: str) -> None:
    with Http2Client(plain) as client:
        name = way.replace(" ", "-")
        stream = StreamSocket(client, f"/echo?name=gone-{name}").opened()
        stream.send(socket_frame(TEXT, b"a"))
        assert stream.next_frame().payload == b"a"
        if way == "reset":
            client.send(rst_stream(stream.number))
        elif way == "connection":
            client.connection.reset()
        else:
            stream.send(b"", ended=True)
        noted(plain, f"/echogone-{name}: disconnect 1006 ", "/socket-events")
        if way == "end of stream":
            assert client.answer(stream.number).ended or stream.answer.reset is not None
        if way != "connection":
            assert client.get("/").body == b"hello"


@pytest.mark.parametrize(("path", "code"), [("/raises", 1011), ("/returns", 1000), ("/close?code=4000&reason=enough", 4000)])
def test_8441_application_that_ends_closes_the_socket(plain: Server, path: str, code: int) -> None:
    with Http2Client(plain) as client:
        stream = StreamSocket(client, path).opened()
        while (found := stream.next_frame()).opcode != CLOSE:
            pass
        assert found.code == code
        stream.send(closing(code), ended=True)
        assert stream.end().reset in {None, ErrorCodes.NO_ERROR}


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x82\xff" + struct.pack("!Q", (1 << 63) - 1), 1009),
        (socket_frame(TEXT, b"a", mask=None), 1002),
        (socket_frame(TEXT, b"\xff"), 1007),
        (socket_frame(PING) * 401, 1008),
    ],
    ids=["D1", "D4", "D4 UTF-8", "D7"],
)
def test_8441_hostile_peer_is_answered_and_other_streams_go_on(plain: Server, data: bytes, code: int) -> None:
    with Http2Client(plain) as client:
        stream = StreamSocket(client, f"/echo?name=h{code}").opened()
        stream.send(data)
        while (found := stream.next_frame()).opcode != CLOSE:
            pass
        assert found.code == code
        stream.end()
        assert client.get("/").body == b"hello"
    noted(plain, f"/echoh{code}: disconnect 1006", "/socket-events")


def test_8441_slow_reader_makes_send_wait_and_is_cut_alone() -> None:
    options = ("--timeout-write-stall", "1", "--application-close-timeout", "0.2")
    with Server(*APP, *options) as server, Http2Client(server, opens_windows=False) as client:
        client.send(window_update(0, LARGE))
        stream = StreamSocket(client, "/flood").opened()
        while len(stream.answer.body) < 65_535:
            client.wait(lambda found: found.stream == stream.number)
        assert client.get("/").body == b"hello"
        assert server.ask("/socket-facts")["produced"] <= 4 * 65_536
        assert client.reset_of(stream.number) is ErrorCodes.CANCEL
        assert len(stream.answer.body) == 65_535
        noted(server, "/flood: ", "/socket-events")
        wait_until(lambda: server.ask("/socket-facts")["running"] == 0, "the end of the call")
        assert client.get("/").body == b"hello"


def test_8441_application_that_does_not_read_keeps_the_window_shut() -> None:
    with Server(*APP) as server, Http2Client(server) as client:
        client.beat()
        stream = StreamSocket(client, "/read-later").opened()
        noted(server, "/read-later: open", "/socket-events")
        message = socket_frame(BINARY, bytes(16_000))
        room, sent = 65_535, 0
        while room >= len(message):  # as far as the window goes, which opens while the queue has room
            stream.send(message)
            room, sent = room - len(message), sent + 1
            client.beat()
            client.beat()
            opened = [each.payload for each in client.frames if each.kind == WINDOW_UPDATE and each.stream == stream.number]
            room = 65_535 + sum(map(int.from_bytes, opened)) - sent * len(message)
        assert sent < 64
        assert client.get("/").body == b"hello"


# --- stopping ---


def goaways(client: Http2Client) -> list[tuple[int, ErrorCodes]]:
    return [(found.last_stream, found.code) for found in client.frames if found.kind == GOAWAY]


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "secure"])
def test_stop_says_goaway_twice_and_finishes_what_runs(secured: bool, authority: Authority, pair: Pair) -> None:
    server = TlsServer(authority, [pair], *APP) if secured else Server(*APP)
    with server, opened(server, authority) as client, opened(server, authority) as idle:
        idle.beat()
        running = client.ask("/hold-body")
        client.wait(lambda found: found.kind == DATA)
        late = client.ask("/sip", body=b"half", ended=False)
        server.wait_event("sip waits")
        client.acknowledges = False  # it has not heard of the end yet, as it were
        server.send_signal(signal.SIGTERM)
        client.wait(lambda found: found.kind == GOAWAY)
        on_its_way = client.ask("/release")  # not refused: the first GOAWAY says so
        client.data(late, b"half", ended=True)
        assert [answer.status for answer in client.answer_of([running, late, on_its_way])] == [200] * 3
        assert (client.answers[running].body, client.answers[late].body) == (b"first last", b"8")
        assert idle.goaway() is ErrorCodes.NO_ERROR
        assert client.goaway() is ErrorCodes.NO_ERROR
        first, last = goaways(client)
        assert (first, last[1]) == ((0x7FFFFFFF, ErrorCodes.NO_ERROR), ErrorCodes.NO_ERROR)
        assert last[0] in {late, on_its_way}
        assert server.wait() == 0
        assert "Traceback" not in server.log


def test_stop_refuses_streams_after_the_second_goaway() -> None:
    with Server(*APP, "--timeout-graceful-shutdown", "5") as server, Http2Client(server) as client:
        running = client.ask("/hold-body")
        client.wait(lambda found: found.kind == DATA)
        server.send_signal(signal.SIGTERM)
        for _ in range(2):
            client.wait(lambda found: found.kind == GOAWAY)
        assert client.reset_of(client.ask("/")) is ErrorCodes.REFUSED_STREAM
        client.send(rst_stream(running))
        client.rest()


def test_stop_cuts_who_never_ends() -> None:
    with Server(*APP, "--timeout-graceful-shutdown", "0.5") as server, Http2Client(server) as client:
        number = client.ask("/silent")
        wait_until(lambda: "GET /silent" in server.seen(), "the request")
        assert server.stop() == 0
        client.rest()
        assert not client.answers.get(number)
        assert "left at the end of the grace period" in server.log
        assert "Traceback" not in server.log


def test_stop_closes_sockets_with_1001_and_ends_their_streams() -> None:
    with Server(*APP, "--timeout-graceful-shutdown", "3") as server, Http2Client(server) as client:
        streams = [StreamSocket(client, "/echo").opened() for _ in range(20)]
        server.send_signal(signal.SIGTERM)
        for stream in streams:
            found = stream.next_frame()
            assert (found.opcode, found.code) == (CLOSE, 1001)
            stream.send(closing(1001), ended=True)
            assert stream.end().ended
        assert client.goaway() is ErrorCodes.NO_ERROR
        assert server.wait() == 0
        assert "Traceback" not in server.log


def test_stop_ends_though_the_client_answers_nothing() -> None:
    options = ("--timeout-graceful-shutdown", "2", "--application-cancel-timeout", "0.3")
    with Server(*APP, *options) as server, Http2Client(server, acknowledges=False) as client:
        StreamSocket(client, "/echo").opened()
        client.ask("/listen")
        assert server.stop() == 0
        client.rest()


def test_l15_idle_connection_is_told_and_closed() -> None:
    with Server(*APP, "--timeout-keep-alive", "0.3") as server, Http2Client(server) as client:
        client.get("/")
        assert client.goaway() is ErrorCodes.NO_ERROR


def test_l16_last_request_of_a_connection_is_followed_by_goaway() -> None:
    with Server(*APP, "--limit-max-requests-per-connection", "3") as server, Http2Client(server) as client:
        assert [client.get("/").status for _ in range(3)] == [200] * 3
        assert client.goaway() is ErrorCodes.NO_ERROR


def test_client_s_goaway_lets_it_have_its_answers(plain: Server) -> None:
    with Http2Client(plain) as client:
        number = client.ask("/flood?size=1000000")
        client.send(frame(GOAWAY, 0, 0, struct.pack("!II", 0, 0)))
        assert len(client.answer(number).body) == 1_000_000
        assert client.goaway() is ErrorCodes.NO_ERROR


def test_connections_that_come_and_go_leave_nothing_behind() -> None:
    with Server(*APP) as server:

        def rounds(count: int) -> None:
            for index in range(count):
                client = Http2Client(server)
                client.ask("/listen")
                client.ask("/flood?size=1000000")
                StreamSocket(client, "/echo").opened()
                if index % 2:
                    client.connection.reset()
                else:
                    client.connection.socket.close()

        def counts() -> tuple[int, int]:
            facts = server.ask("/facts")
            return facts["tasks"], facts["files"]

        before = counts()
        rounds(50)
        wait_until(lambda: server.ask("/socket-facts")["running"] == 0, "all ended")
        wait_until(lambda: counts() <= before, "all gone")
        ended_well(server)
