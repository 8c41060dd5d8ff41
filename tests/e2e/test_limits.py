"""Every limit of HTTP/1, at it and one past it, on a real process with small numbers (spec limits L1 to L17, L34, L35, L42, L47, L48)."""

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest

from e2e.server import Server, wait_until

OPTIONS = (
    "--no-access-log", "--limit-request-line", "100", "--limit-field", "200", "--limit-header-bytes", "600", "--limit-header-count", "10",
    "--limit-trailer-bytes", "100", "--limit-trailer-count", "3", "--limit-chunk-line", "20", "--limit-chunk-extensions", "50",
    "--limit-request-body", "1000", "--limit-discarded-body", "500", "--limit-max-requests-per-connection", "3",
)  # fmt: skip
HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
CHUNKED = b"POST /length HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("apps:app", *OPTIONS) as running:
        yield running


def request_line(size: int) -> bytes:
    return b"GET /" + b"x" * (size - len(b"GET / HTTP/1.1")) + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def field(size: int) -> bytes:
    return HEAD + b"X: " + b"x" * (size - 3) + b"\r\n\r\n"


def header_bytes(size: int) -> bytes:
    """Field lines of `size` bytes between the two line ends around them, none longer than 200."""
    lines = [b"Host: a", b"Connection: close", *[b"X: " + b"x" * 147] * 3]
    used = len(b"\r\n".join(lines)) + 2
    return b"GET / HTTP/1.1\r\n" + b"\r\n".join([*lines, b"Y: " + b"y" * (size - used - 5)]) + b"\r\n\r\n"


def header_count(count: int) -> bytes:
    return HEAD + b"X: y\r\n" * (count - 2) + b"\r\n"


def trailer_count(count: int) -> bytes:
    return CHUNKED + b"0\r\n" + b"X: y\r\n" * count + b"\r\n"


def trailer_bytes(size: int) -> bytes:
    return CHUNKED + b"0\r\nX: " + b"y" * (size - 3) + b"\r\n\r\n"


def chunk_line(size: int) -> bytes:
    return CHUNKED + b"1;" + b"e" * (size - 2) + b"\r\nx\r\n0\r\n\r\n"


def chunk_extensions(size: int) -> bytes:
    return CHUNKED + (b"1;" + b"e" * 9 + b"\r\nx\r\n") * (size // 10) + b"1" + b";" * (size % 10) + b"\r\nx\r\n0\r\n\r\n"


def body(size: int) -> bytes:
    return b"POST /length HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size


def chunked_body(size: int) -> bytes:
    return (
        CHUNKED
        + (b"64\r\n" + b"x" * 100 + b"\r\n") * (size // 100)
        + b"%x\r\n" % (size % 100)
        + b"x" * (size % 100)
        + b"\r\n" * (size % 100 > 0)
        + (b"0\r\n\r\n" if size % 100 else b"\r\n")
    )


@pytest.mark.parametrize(("make", "limit", "status"), [
    pytest.param(request_line, 100, 414, id="L1 request line"),
    pytest.param(field, 200, 431, id="L3 field"),
    pytest.param(header_bytes, 600, 431, id="L4 header bytes"),
    pytest.param(header_count, 10, 431, id="L5 header count"),
    pytest.param(trailer_count, 3, 431, id="L6 trailer count"),
    pytest.param(trailer_bytes, 100, 431, id="L6 trailer bytes"),
    pytest.param(chunk_line, 20, 400, id="L8 chunk line"),
    pytest.param(chunk_extensions, 50, 400, id="L8 chunk extensions"),
    pytest.param(body, 1_000, 413, id="L9 body of known length"),
    pytest.param(chunked_body, 1_000, 413, id="L9 chunked body"),
])  # fmt: skip
def test_at_the_limit_and_one_past_it(server: Server, make: Callable[[int], bytes], limit: int, status: int) -> None:
    server.seen()
    at, past = server.exchange(make(limit)), server.exchange(make(limit + 1))
    assert at.statuses == [200]
    assert past.statuses == [status]
    assert past.only["connection"] == "close"
    assert len(server.seen()) == 1


@pytest.mark.parametrize("size", [32, 33])
def test_l2_method(server: Server, size: int) -> None:
    assert server.exchange(b"M" * size + b" / HTTP/1.1\r\nHost: a\r\n\r\n").statuses == [501]


def test_l7_one_empty_line_ahead_of_a_request(server: Server) -> None:
    assert server.exchange(b"\r\n" + HEAD + b"\r\n").statuses == [200]
    assert server.exchange(b"\r\n\r\n" + HEAD + b"\r\n").statuses == [400]


def test_l9_length_over_the_limit_is_answered_before_the_body_comes(server: Server) -> None:
    with server.connect() as client:
        client.send(body(1_001).partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        assert client.response().status == 413


def test_l10_body_waits_until_it_is_asked_for() -> None:
    with Server("apps:app", "--no-access-log", "--limit-body-buffer", "1000") as server, server.connect() as client:
        client.send(b"POST /length?pause=0.001 HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 5_000_000)
        assert client.response().body == b"5000000"


def test_l16_last_request_of_a_connection_says_so(server: Server) -> None:
    with server.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 5)
        answer = client.rest()
    assert answer.statuses == [200] * 3
    assert ["connection" in response for response in answer.responses] == [False, False, True]


def test_l16_old_connection_closes_after_its_response() -> None:
    with Server("apps:app", "--no-access-log", "--timeout-connection-age", "0.2") as server, server.connect() as client:
        client.get("/")
        assert "connection" not in client.response()
        assert not client.ended(0.3)  # its age alone ends no connection
        client.get("/")
        assert client.rest().only["connection"] == "close"


def test_l15_idle_connection_is_closed_without_a_word() -> None:
    with Server("apps:app", "--no-access-log", "--timeout-keep-alive", "0.3") as server, server.connect() as client:
        client.get("/")
        client.response()
        began = time.monotonic()
        assert client.rest().raw == b""
        assert time.monotonic() - began > 0.2


@pytest.mark.parametrize("size", [500, 501])
def test_l17_unread_body_is_discarded_up_to_the_limit(server: Server, size: int) -> None:
    with server.connect() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        assert ("connection" in client.response()) == (size > 500)
        client.send(b"x" * size + b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert client.rest().statuses == ([200] if size == 500 else [])


def test_l17_unread_body_behind_a_full_buffer_is_discarded_too() -> None:
    with Server("apps:app", "--no-access-log") as server, server.connect() as client:
        client.send(b"POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n" + b"x" * 500_000)
        server.wait_event("held")
        server.get("/release")
        assert client.response().body == b"released"
        client.get("/", "Connection: close")
        assert client.rest().only.body == b"hello"


def test_l17_refused_client_that_goes_on_sending_still_gets_its_answer() -> None:
    with Server("apps:app", "--no-access-log", "--limit-request-body", "1000") as server, server.connect() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n")
        for _ in range(200):
            client.send(b"x" * 100_000)
        answer = client.rest()
        assert answer.statuses == [413]
        assert not answer.reset


def test_l17_refused_client_that_stays_is_closed() -> None:
    with Server("apps:app", "--no-access-log", "--timeout-linger-idle", "0.2") as server, server.connect() as client:
        client.send(b"nonsense\r\n\r\n")
        assert client.rest().statuses == [400]
        wait_until(lambda: not server_has(server, client.socket.getsockname()[1]), "the server to let go")


def server_has(server: Server, client_port: int) -> bool:
    """Whether the server's end of a connection is still held by the process."""
    with open(f"/proc/{server.pid}/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    return any(
        int(row[1].split(":")[1], 16) == server.port and int(row[2].split(":")[1], 16) == client_port and row[9] != "0" for row in rows
    )


SHORT_LINGER = ("--no-access-log", "--timeout-linger-idle", "0.2", "--timeout-linger-total", "0.3")


@pytest.mark.parametrize("request_", [
    pytest.param(b"GET /blob?size=8000000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", id="close"),
    pytest.param(b"GET /blob?size=8000000 HTTP/1.0\r\n\r\n", id="HTTP/1.0"),
    pytest.param(b"POST /blob?size=8000000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 9\r\n\r\n", id="linger"),
    pytest.param(b"POST /blob?size=8000000 HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", id="body still to come"),
])  # fmt: skip
def test_l17_says_nothing_about_how_fast_the_last_response_is_read(request_: bytes) -> None:
    with Server("apps:app", *SHORT_LINGER) as server, server.connect(receive_buffer=65_536) as client:
        client.send(request_)
        size = 0
        while data := client.socket.recv(200_000):
            size += len(data)
            time.sleep(0.02)
        assert size > 8_000_000


def test_l34_send_waits_for_the_client() -> None:
    with (
        Server("apps:app", "--no-access-log", "--limit-response-buffer", "10000") as server,
        server.connect(receive_buffer=4_096) as client,
    ):
        client.get("/flood?size=50000000")
        client.read_some()
        assert server.settled() < 10_000_000
        client.reset()


def test_l35_slow_reader_is_seen_to_read() -> None:
    options = ("--no-access-log", "--timeout-write-stall", "1", "--write-min-rate", "1000")
    with Server("apps:app", *options) as server, server.connect(receive_buffer=4_096) as client:
        client.get("/flood?size=50000000")
        end = time.monotonic() + 4  # all that time its system takes more than the rate, and ours frees no room for more
        while time.monotonic() < end:
            assert client.socket.recv(1_000)
            time.sleep(0.02)
        assert "Cut" not in server.log
        client.reset()


def test_l35_slow_reader_is_cut_for_its_rate() -> None:
    options = ("--no-access-log", "--timeout-write-stall", "0.5", "--write-min-rate", "100000000")
    with Server("apps:app", *options) as server, server.connect(receive_buffer=4_096) as client:
        client.get("/flood?size=50000000")
        with contextlib.suppress(ConnectionResetError):
            while client.socket.recv(20_000):
                time.sleep(0.01)
        server.wait_line("Cut a connection: the peer reads too slowly")


def test_l42_connections_over_the_limit_wait_and_none_is_lost() -> None:
    with Server("apps:app", "--no-access-log", "--limit-connections", "10", "--timeout-keep-alive", "0.2") as server:
        clients = [server.connect() for _ in range(40)]
        for client in clients:
            client.get("/")
        for client in clients:
            assert client.response().status == 200
        for client in clients:
            assert client.rest().raw == b""
            client.socket.close()


def test_l42_busy_connections_are_never_shed() -> None:
    with Server("apps:app", "--no-access-log", "--limit-connections", "10") as server:
        busy = [server.connect() for _ in range(8)]
        for client in busy:
            client.get("/hold")
        server.wait_event("held", 8)
        idle = [server.connect() for _ in range(5)]
        for client in idle:
            client.get("/")
        for client in idle:
            assert client.response().status == 200
        server.get("/release")
        for client in busy:
            assert client.response().body == b"released"
        for client in busy + idle:
            client.socket.close()


def test_concurrency_over_the_limit_is_503_with_retry_after() -> None:
    with (
        Server("apps:app", "--no-access-log", "--limit-concurrency", "2", "--application-close-timeout", "0.2") as server,
        server.connect() as first,
        server.connect() as second,
    ):
        first.get("/hold")
        server.wait_event("held")
        second.get("/hold")
        wait_until(lambda: server.exchange(HEAD + b"\r\n").only.status == 503, "two at once")
        answer = server.get("/")
        assert (answer.status, answer["retry-after"], answer["connection"]) == (503, "1", "close")
        first.reset()
        wait_until(lambda: server.get("/").status == 200, "the first call to be cancelled", 40)


def test_l48_application_that_takes_too_long_is_504_before_the_start() -> None:
    with Server("apps:app", "--no-access-log", "--app-timeout", "0.2") as server:
        assert server.get("/silent").status == 504
        server.wait_event("cancelled")
        assert server.get("/").status == 200


def test_l48_application_that_takes_too_long_is_cut_after_the_start() -> None:
    with Server("apps:app", "--no-access-log", "--app-timeout", "0.2") as server:
        answer = server.exchange(b"GET /hold-body HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.reset
        assert (answer.only.body, answer.only.whole) == (b"first ", False)


def test_limits_that_are_off_are_named_at_the_start_and_are_off() -> None:
    with Server("apps:app", "--no-access-log", "--limit-field", "0", "--limit-header-bytes", "0", "--timeout-half-close", "0") as server:
        server.wait_line("turned off, although on by default for safety")
        assert server.exchange(HEAD + b"X: " + b"x" * 100_000 + b"\r\n\r\n").statuses == [200]
