"""Django and Starlette over HTTP/2: what they serve over HTTP/1.1 comes the same way, on streams of one connection."""

from collections.abc import Iterator

import httpx
import pytest

from certificates import Authority, Pair
from e2e.h2client import Http2Client, rst_stream
from e2e.h2frameworks import LINES, PAGE
from e2e.secure import NAME, TlsServer


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.make("http2-frameworks", NAME, "127.0.0.1")


@pytest.fixture(scope="module", params=["django", "starlette"])
def server(request: pytest.FixtureRequest, authority: Authority, pair: Pair) -> Iterator[TlsServer]:
    pytest.importorskip(request.param)
    with TlsServer(authority, [pair], f"h2frameworks:{request.param}", "--factory") as running:
        yield running
        assert running.stop() == 0, running.log
        assert running.log_has_no_traceback(), running.log


@pytest.fixture
def client(server: TlsServer, authority: Authority) -> Iterator[httpx.Client]:
    address = f"https://127.0.0.1:{server.port}"
    with httpx.Client(base_url=address, http1=False, http2=True, verify=authority.client(), trust_env=False) as found:
        yield found


def test_page_and_its_cookies(client: httpx.Client) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
    assert answer.content.decode() == PAGE.format("2")
    assert [value.partition(";")[0] for value in answer.headers.get_list("set-cookie")] == ["a=1", "b=2"]
    assert client.get("/nowhere").status_code == 404


def test_body_is_read_whole(client: httpx.Client) -> None:
    assert client.post("/read", content=iter([b"x" * 10_007] * 300)).text == str(10_007 * 300)
    assert client.post("/read", content=b"x" * 3_000_000).text == "3000000"
    assert client.post("/read").text == "0"


@pytest.mark.parametrize("server", ["django"], indirect=True)
def test_file_is_uploaded(client: httpx.Client) -> None:
    files = {"file": ("żółw.bin", b"x" * 4_000_000)}
    assert client.post("/upload", files=files, data={"name": "ä"}).text == "żółw.bin 4000000 ä"


def test_response_is_streamed(client: httpx.Client) -> None:
    with client.stream("GET", "/stream") as answer:
        assert "content-length" not in answer.headers
        found = list(answer.iter_lines())
    assert [line.partition(" ")[0] for line in found] == [str(number) for number in range(LINES)]
    assert {len(line.partition(" ")[2]) for line in found} == {300}


def test_streams_are_served_side_by_side_and_one_that_is_reset_harms_none(server: TlsServer, authority: Authority) -> None:
    context = authority.client()
    context.set_alpn_protocols(["h2"])
    with Http2Client(server, context=context) as client:
        streamed = [client.ask("/stream") for _ in range(10)]
        client.wait(lambda found: found.stream == streamed[0] and client.answers[streamed[0]].body)
        client.send(rst_stream(streamed[0]))
        pages = [client.ask("/") for _ in range(40)]
        assert [answer.body.decode() for answer in client.answer_of(pages)] == [PAGE.format("2")] * 40
        assert [answer.body.count(b"\n") for answer in client.answer_of(streamed[1:])] == [LINES] * 9
