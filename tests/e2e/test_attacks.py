"""What a hostile peer sends over a real socket: every row of parts A, B, E and F3 that HTTP/1 has.

A refused request is answered once, never reaches the application, and nothing after it is read as a request.
"""

import itertools
import json
import time
from collections.abc import Iterator

import pytest

from e2e.server import Client, Server, wait_until

CANARY = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("apps:app", "--no-access-log") as running:
        yield running
        assert running.stop() == 0
        assert not {"Fatal", "never retrieved", "Unhandled", "CRITICAL"} & set(running.log.split()), running.log


@pytest.fixture(autouse=True)
def nothing_seen(server: Server) -> None:
    server.seen()
    server.get("/forget")


def refused(identity: str, data: bytes, status: int = 400) -> object:
    return pytest.param(data, status, id=identity)


# Heads and bodies that are refused before the application is called.
REFUSED = [
    refused("A1 two lengths", POST + b"Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello"),
    refused("A1 two equal lengths", POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    refused("A1 list of lengths", POST + b"Content-Length: 5, 5\r\n\r\nhello"),
    refused("A2 length and chunked", POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    refused("A2 chunked and length", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    refused("A3 chunked twice", POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    refused("A3 chunked, chunked", POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    refused("A3 chunked, identity", POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
    refused("A4 empty member", POST + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n"),
    refused("A4 unknown coding", POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    refused("A4 parameter", POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"),
    refused("A4 unknown coding and length", POST + b"Transfer-Encoding: blegh\r\nContent-Length: 5\r\n\r\nhello"),
    refused("A5 VT before chunked", POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    refused("A5 NBSP before chunked", POST + b"Transfer-Encoding: \xa0chunked\r\n\r\n0\r\n\r\n"),
    refused("A6 chunked in 1.0", b"POST /echo HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    *(
        refused(f"A7 length {value!r}", POST + b"Content-Length: " + value + b"\r\n\r\nhello")
        for value in (b"+5", b"-0", b"5_0", b"0x5", "٥".encode(), b"", b"1e1", b"5 5", b"9" * 20)
    ),
    refused("A8 length of many digits", POST + b"Content-Length: " + b"1" * 5_000 + b"\r\n\r\nhello"),
    *(
        refused(f"A9 chunk size {value!r}", CHUNKED + value + b"\r\nhello\r\n0\r\n\r\n")
        for value in (b"0x5", b"+5", b"5_0", b"", b" 5", b"5 ", b"5\t", b"-5", b"g", b"1" * 17)
    ),
    refused("A10 no CRLF after chunk", CHUNKED + b"3\r\nabcXX0\r\n\r\n"),
    refused("A10 one wrong byte after chunk", CHUNKED + b"3\r\nabc\rX0\r\n\r\n"),
    refused("A11 LF in extension", CHUNKED + b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    refused("A11 CR in extension", CHUNKED + b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
    refused("A12 bare LF in trailers", CHUNKED + b"0\r\nX-A: b\nX-C: d\r\n\r\n"),
    refused("A12 Content-Length in trailers", CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n"),
    refused("A12 Host in trailers", CHUNKED + b"0\r\nHost: b\r\n\r\n"),
    refused("A12 TE in trailers", CHUNKED + b"0\r\nTE: trailers\r\n\r\n"),
    refused("A12 request in trailers", CHUNKED + b"0\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("A13 many trailers", CHUNKED + b"0\r\n" + b"X-A: b\r\n" * 101 + b"\r\n", 431),
    refused("A13 long trailers", CHUNKED + b"0\r\n" + (b"X-A: " + b"b" * 4_000 + b"\r\n") * 5 + b"\r\n", 431),
    refused("A14 bare LF in head", b"GET / HTTP/1.1\nHost: a\n\n"),
    refused("A14 bare LF after request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    refused("A14 bare CR in head", b"GET / HTTP/1.1\rHost: a\r\r"),
    refused("A14 CR LF CR X", GET + b"\rX: y\r\n\r\n"),
    refused("A14 two empty lines first", b"\r\n\r\n" + GET + b"\r\n"),
    *(
        refused(f"A15 {byte!r} in target", b"GET /a" + byte + b"b HTTP/1.1\r\nHost: a\r\n\r\n")
        for byte in (b"\0", b"\t", b"\x01", b"\x7f", b"\x80", b"\r")
    ),
    *(refused(f"A15 {byte!r} in name", GET + b"X" + byte + b"Y: z\r\n\r\n") for byte in (b"\0", b"\t", b" ", b"\x7f", b"(", b"\xe9")),
    *(
        refused(f"A15 {byte!r} in value", GET + b"X: v" + byte + b"w\r\n\r\n")
        for byte in (b"\0", b"\x01", b"\x0b", b"\x1f", b"\x7f", b"\r")
    ),
    refused("A15 NUL and CR in value", GET + b"X: v\x00\ralue\r\n\r\n"),
    refused("A17 unknown expectation", POST + b"Expect: y\r\nContent-Length: 5\r\n\r\nhello", 417),
    refused("A17 two expectations", POST + b"Expect: y 100-continue\r\nContent-Length: 5\r\n\r\nhello", 417),
    refused("A17 expectation twice", POST + b"Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", 417),
    refused("A21 no name", GET + b": v\r\n\r\n"),
    refused("A21 no colon", GET + b"Name v\r\n\r\n"),
    refused("A21 obs-fold", GET + b"X: a\r\n b\r\n\r\n"),
    refused("A21 blank before first field", b"GET / HTTP/1.1\r\n X: a\r\nHost: a\r\n\r\n"),
    refused("A21 blank before colon", GET + b"Name : v\r\n\r\n"),
    refused("A22 no slash", b"GET foo HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("A22 asterisk", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("A22 CONNECT to a path", b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("A22 another authority", b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("A22 fragment", b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("A22 two blanks", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("A23 two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    refused("A23 no host", b"GET / HTTP/1.1\r\n\r\n"),
    *(
        refused(f"A23 host {value!r}", b"GET / HTTP/1.1\r\nHost: " + value + b"\r\n\r\n")
        for value in (b"a b", b"a\x00", b"", b"a/b", b"a@b", b"a:80:80", b"a:x", b"[::1", b"a,b c", b"\xe9")
    ),
    refused("A25 minor of two digits", b"GET / HTTP/1.32\r\nHost: a\r\n\r\n"),
    refused("A25 CRs in version", b"GET / HTTP/\r\r1.1\r\nHost: a\r\n\r\n"),
    refused("A25 0.9", b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
    refused("A25 2.0", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    refused("A25 1.2", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    refused("A25 no version", b"GET /\r\nHost: a\r\n\r\n"),
    refused("A25 lower case", b"GET / http/1.1\r\nHost: a\r\n\r\n"),
    refused("A25 another protocol", b"GET / RTSP/1.0\r\nHost: a\r\n\r\n"),
    refused("A26 WebSocket with a length", GET + b"Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 40\r\n\r\n" + CANARY),
    refused("A26 WebSocket chunked", GET + b"Upgrade: websocket\r\nConnection: Upgrade\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    *(
        refused(f"B1 {byte!r} in value", GET + b"Upgrade: websocket\r\nConnection: Upgrade\r\nX: a" + byte + b"b\r\n\r\n")
        for byte in (b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e")
    ),
    *(refused(f"B2 {byte!r} in name", GET + b"X" + byte + b"Y: z\r\n\r\n") for byte in (b"\x80", b"/", b'"', b"[", b"@")),
    refused("F3 host with blanks", b"GET / HTTP/1.1\r\nHost: a evil.example\r\n\r\n"),
    refused("TLS on a plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 100),
    refused("method in lower case", b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    refused("no method", b" / HTTP/1.1\r\nHost: a\r\n\r\n"),
]


def assert_refused(server: Server, client: Client, status: int) -> None:
    answer = client.rest()
    assert answer.statuses == [status], answer
    assert answer.only["connection"] == "close"
    assert answer.only.whole
    assert not answer.reset
    assert server.seen() == []


@pytest.mark.parametrize(("data", "status"), REFUSED)
def test_refused_once_and_the_rest_unread(server: Server, data: bytes, status: int) -> None:
    with server.connect() as client:
        client.send(data + CANARY)
        assert_refused(server, client, status)


@pytest.mark.parametrize(("data", "status"), [each for each in REFUSED if len(each.values[0]) < 300])  # type: ignore[attr-defined]
def test_refused_byte_by_byte(server: Server, data: bytes, status: int) -> None:
    with server.connect() as client:
        client.send_each(data + CANARY)
        answer = client.rest()
        if any("echo" in line for line in server.seen()):  # the head was good: a body that breaks later is the application's to see
            assert b"Transfer-Encoding: chunked" in data
        assert answer.statuses == [status], answer
        assert "GET /smuggled" not in server.seen()


# --- What is taken, and how ---


def test_a5_coding_in_mixed_case_is_chunked(server: Server) -> None:
    answer = server.exchange(POST + b"Connection: close\r\nTransfer-Encoding: ChUnKeD\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    assert json.loads(answer.only.body)["body"] == "hello"


def test_a12_body_cut_after_last_chunk_is_a_disconnect(server: Server) -> None:
    answer = server.exchange(b"POST /echo?a12 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", shut=True)
    assert answer.statuses == []
    server.wait_event("disconnect in the body of /echo")


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE"])
def test_a16_body_of_any_method_is_body(server: Server, method: bytes) -> None:
    with server.connect() as client:
        client.send(
            method
            + b" / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(CANARY)
            + CANARY
            + b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        answer = client.rest(heads=(0,) if method == b"HEAD" else ())
    assert answer.statuses == [200, 200]
    assert server.seen() == [f"{method.decode()} /", "GET /next"]


def test_a16_more_unread_body_than_the_limit_closes(server: Server) -> None:
    with server.connect() as client:
        client.send(POST.replace(b"/echo", b"/") + b"Content-Length: 3000000\r\n\r\n" + b"x" * 3_000_000 + CANARY)
        answer = client.rest()
    assert answer.only["connection"] == "close"
    assert server.seen() == ["POST /"]


def test_a17_early_answer_to_a_waiting_client_closes(server: Server) -> None:
    with server.connect() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        response = client.response()
        client.send(b"hello" + CANARY)
        assert client.rest().raw == b""
    assert (response.status, response["connection"]) == (200, "close")
    assert server.seen() == ["POST /"]


def test_a18_answer_before_the_body_is_followed_by_the_whole_body(server: Server) -> None:
    with server.connect() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(CANARY))
        assert client.response().status == 200
        client.send(CANARY)
        client.get("/next", "Connection: close")
        assert client.rest().statuses == [200]
    assert server.seen() == ["POST /", "GET /next"]


def test_a19_one_request_at_a_time_is_in_the_application() -> None:
    with Server("apps:app", "--no-access-log") as server, server.connect() as client:
        client.send((b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n") * 50)
        for _ in range(50):
            wait_until(lambda: server.ask("/facts") and server.seen() == ["GET /hold"], "the next request")
            server.get("/release")
            assert client.response().body == b"released"
        assert server.ask("/facts")["most_at_once"] == 2  # the held one and the one that asks


def test_a19_bytes_that_come_early_are_bounded(server: Server) -> None:
    with server.connect() as client:
        client.get("/hold")
        server.wait_event("held")
        client.socket.setblocking(False)
        sent, block = 0, b"GET /early HTTP/1.1\r\nHost: a\r\n\r\n" * 2_000
        idle_since = time.monotonic()
        while time.monotonic() - idle_since < 0.5:  # nothing taken for that long: reading has stopped
            try:
                sent += client.socket.send(block)
                idle_since = time.monotonic()
            except BlockingIOError:
                time.sleep(0.01)
        assert server.seen() == ["GET /hold"]
        assert server.ask("/facts")["resident"] < 150_000_000
        client.reset()
    server.get("/release")


def test_a20_good_request_before_garbage_is_answered(server: Server) -> None:
    answer = server.exchange(GET + b"\r\n" + b"\x00garbage\r\n\r\n" + CANARY)
    assert answer.statuses == [200, 400]
    assert answer.responses[1]["connection"] == "close"
    assert server.seen() == ["GET /"]


def test_a22_absolute_form_names_its_own_host(server: Server) -> None:
    answer = server.exchange(b"GET http://a/echo?x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert json.loads(answer.only.body)["path"] == "/echo"


def test_a24_long_line_in_single_bytes_counts_whole(server: Server) -> None:
    with server.connect() as client:
        client.send_each(b"GET /" + b"a" * 8_300)
        assert_refused(server, client, 414)


@pytest.mark.parametrize("token", [b"h2c", b"TLS/1.0", b"foo"])
def test_a26_other_upgrades_are_ignored_and_body_is_body(server: Server, token: bytes) -> None:
    answer = server.exchange(
        POST + b"Upgrade: " + token + b"\r\nConnection: Upgrade, close\r\nContent-Length: %d\r\n\r\n" % len(CANARY) + CANARY
    )
    assert json.loads(answer.only.body)["body"] == CANARY.decode()
    assert server.seen() == ["POST /echo"]


def test_b1_next_line_byte_stays_in_one_header(server: Server) -> None:
    answer = server.exchange(b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-A: a\x85b: c\r\n\r\n")
    assert ["x-a", "a\x85b: c"] in json.loads(answer.only.body)["headers"]


def headers_seen(server: Server, *fields: str) -> list[str]:
    return [name for name, _ in json.loads(server.get("/echo", *fields).body)["headers"]]


def test_b3_underscores_are_dropped(server: Server) -> None:
    assert headers_seen(server, "X_Forwarded_User: admin", "X-A: b") == ["host", "connection", "x-a"]


def test_b3_underscores_refused_or_allowed_as_told() -> None:
    with Server("apps:app", "--no-access-log", "--underscore-headers", "reject") as server:
        assert server.get("/", "X_A: b").status == 400
        assert server.seen() == []
    with Server("apps:app", "--no-access-log", "--underscore-headers", "allow") as server:
        assert "x_a" in headers_seen(server, "X_A: b")


def test_b4_proxy_field_is_dropped(server: Server) -> None:
    assert "proxy" not in headers_seen(server, "Proxy: http://evil")


@pytest.mark.parametrize("kind", ["split value", "split name", "blank in name", "null"])
def test_b5_application_cannot_split_a_response(server: Server, kind: str) -> None:
    answer = server.exchange(f"GET /fault?kind={kind.replace(' ', '+')} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert answer.statuses == [500]
    assert b"cookie" not in answer.raw
    assert server.get("/").status == 200


def test_b6_reason_phrases_are_constant(server: Server) -> None:
    assert server.exchange(b"GET /status?status=299 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").raw.startswith(b"HTTP/1.1 299 \r\n")


def test_b7_access_log_shows_paths_as_they_came() -> None:
    with Server() as server:
        assert server.get('/%1b[31m%0d%0aevil"\\', 'User-Agent: a"b\\c\x80').status == 200
        line = server.wait_line("evil", out=True)
        assert "/%1b[31m%0d%0aevil" in line
        assert "\x1b" not in line
        assert line.count('"') - line.count('\\"') == 2, line
    with Server("apps:app", "--bind", "127.0.0.1:0", "--access-log", "-", "--access-log-format", "json") as server:
        assert server.get('/%1b"').status == 200
        assert '/%1b"' in json.dumps(json.loads(server.wait_line("%1b", out=True))).replace('\\"', '"')


@pytest.mark.parametrize("status", [204, 304])
def test_b10_no_body_where_none_belongs(server: Server, status: int) -> None:
    with server.connect() as client:
        client.get(f"/status?status={status}")
        client.get("/", "Connection: close")
        answer = client.rest()
    assert answer.statuses == [status, 200]


def test_b10_no_body_after_head(server: Server) -> None:
    with server.connect() as client:
        client.send(b"HEAD /blob?size=1000 HTTP/1.1\r\nHost: a\r\n\r\n" + GET + b"Connection: close\r\n\r\n")
        answer = client.rest(heads=(0,))
    assert answer.statuses == [200, 200]
    assert answer.responses[0]["content-length"] == "1000"


def test_b10_more_than_announced_is_cut_off(server: Server) -> None:
    answer = server.exchange(b"GET /fault?kind=too+many HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert (answer.only.body, answer.only.whole) == (b"0123456789", True)


def test_b10_less_than_announced_is_a_reset(server: Server) -> None:
    answer = server.exchange(b"GET /fault?kind=too+few HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.reset
    assert not answer.only.whole


def test_b13_scheme_is_the_transport_s(server: Server) -> None:
    answer = server.exchange(b"GET https://a/echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-Proto: https\r\n\r\n")
    assert json.loads(answer.only.body)["scheme"] == "http"


# --- E: slow and greedy peers ---


def test_e1_header_timer_runs_from_the_first_byte_and_is_not_reset() -> None:
    with Server("apps:app", "--no-access-log", "--timeout-header-read", "0.5") as server:
        clients = [server.connect() for _ in range(200)]
        began = time.monotonic()
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\n")
        drip = iter(b"X-A: " + b"b" * 10_000)
        waiting = list(clients)
        while waiting:
            assert time.monotonic() - began < 20
            byte = bytes([next(drip)])
            waiting = [client for client in waiting if not client.ended_or_send(byte)]
        for client in clients:
            assert client.rest().statuses == [408]
            client.socket.close()
        assert server.seen() == []


def test_e1_who_says_nothing_is_told_nothing() -> None:
    with Server("apps:app", "--no-access-log", "--timeout-header-read", "0.2") as server, server.connect() as client:
        assert client.rest().raw == b""


def test_e2_slow_body_is_answered_408_and_told_to_the_application() -> None:
    options = ("--no-access-log", "--timeout-body-idle", "0.3")
    with Server("apps:app", *options) as server, server.connect() as client:
        client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx")
        assert client.rest().statuses == [408]
        server.wait_event("disconnect in the body")


def test_e2_body_under_the_rate_is_answered_408() -> None:
    options = ("--no-access-log", "--body-min-rate", "1000", "--body-min-rate-grace", "0.1")
    with Server("apps:app", *options) as server, server.connect() as client:
        client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        while not client.ended_or_send(b"x"):
            time.sleep(0.02)
        assert client.rest().statuses == [408]


def test_e2_who_is_not_read_is_not_slow() -> None:
    options = ("--no-access-log", "--timeout-body-idle", "0.2", "--body-min-rate", "1000000", "--body-min-rate-grace", "0.1")
    with Server("apps:app", *options) as server, server.connect() as client:
        client.send(b"POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000)
        server.wait_event("held")
        assert not client.ended(1.5)
        server.get("/release")
        assert client.response().body == b"released"


def test_e3_who_does_not_read_is_cut() -> None:
    with Server("apps:app", "--no-access-log", "--timeout-write-stall", "0.3") as server, server.connect(receive_buffer=4_096) as client:
        client.get("/flood?size=100000000")
        server.wait_line("Cut a connection")
        assert server.ask("/facts")["produced"] < 20_000_000
        answer = client.rest()
        assert answer.reset
        assert not answer.only.whole


def test_e5_idle_connections_over_capacity_are_shed_for_new_ones() -> None:
    with Server("apps:app", "--no-access-log", "--limit-connections", "50") as server:
        idle = []
        for _ in range(80):
            client = server.connect()
            client.get("/")
            idle.append(client)
        for client in idle:
            client.socket.settimeout(20)
        assert server.get("/").status == 200
        assert sum(client.response().status == 200 for client in idle) == 80
        for client in idle:
            client.socket.close()


def test_e6_upload_that_nobody_reads_stops_and_costs_no_memory(server: Server) -> None:
    before = server.ask("/facts")["resident"]
    with server.connect() as client:
        client.send(b"POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000000\r\n\r\n")
        client.socket.setblocking(False)
        sent, idle_since = 0, time.monotonic()
        while time.monotonic() - idle_since < 0.5:
            try:
                sent += client.socket.send(b"x" * 262_144)
                idle_since = time.monotonic()
            except BlockingIOError:
                time.sleep(0.01)
        assert sent < 30_000_000  # what two kernels' buffers take
        assert server.ask("/facts")["resident"] - before < 20_000_000
        client.reset()
    server.get("/release")


def test_e8_body_in_million_tiny_chunks_costs_linear_time(server: Server) -> None:
    before = server.ask("/facts")["cpu"]
    with server.connect() as client:
        client.send(b"POST /length HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(10):
            client.send(b"1\r\nx\r\n" * 20_000)
        client.send(b"0\r\n\r\n")
        assert client.rest().only.body == b"200000"
    assert server.ask("/facts")["cpu"] - before < 5


def test_e8_value_with_a_bad_last_byte_costs_no_more_than_a_good_one(server: Server) -> None:
    before = server.ask("/facts")["cpu"]
    for _ in range(100):
        assert server.exchange(GET + b"X: " + b"x" * 8_000 + b"\x10\r\n\r\n").statuses == [400]
    assert server.ask("/facts")["cpu"] - before < 2


def test_e9_reset_at_every_byte_harms_nobody_else() -> None:
    request = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: u\r\n\r\n"
    with Server("apps:app", "--no-access-log") as server, server.connect() as bystander:
        bystander.get("/hold-body")
        bystander.read_until(b"first ")
        before = server.ask("/facts")
        for offset, linger in itertools.product(range(len(request) + 1), (False, True)):
            client = server.connect()
            client.send(request[:offset])
            if linger:
                client.socket.close()
            else:
                client.reset()
        server.get("/release")
        assert b"last" in bystander.read_until(b"0\r\n\r\n")
        wait_until(lambda: server.ask("/facts")["tasks"] <= before["tasks"], "all tasks to end")
        wait_until(lambda: server.ask("/facts")["files"] <= before["files"], "all files to be closed")
        assert server.stop() == 0
        assert "Traceback" not in server.log
        assert "ERROR" not in server.log


def test_e9_reset_while_the_answer_is_on_its_way() -> None:
    with Server("apps:app", "--no-access-log") as server:
        before = server.ask("/facts")
        for size in range(0, 400_000, 20_000):
            client = server.connect()
            client.get("/flood?size=10000000")
            taken = 0
            while taken < size:
                taken += len(client.read_some())
            client.reset()
        wait_until(lambda: server.ask("/facts")["tasks"] <= before["tasks"], "all tasks to end")
        wait_until(lambda: server.ask("/facts")["files"] <= before["files"], "all files to be closed")
        assert server.stop() == 0
        assert "Traceback" not in server.log
        assert "ERROR" not in server.log


# --- F3 ---


def test_f3_any_well_formed_host_reaches_the_application(server: Server) -> None:
    for host in (b"evil.example", b"a:81", b"[::1]:8000", b"A.B-c_d"):
        assert server.exchange(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n").statuses == [200]


def test_f3_only_allowed_hosts_where_they_are_named() -> None:
    with Server("apps:app", "--no-access-log", "--allowed-hosts", "a,.example.com") as server:
        answers = {
            host: server.exchange(b"GET /h HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n").statuses
            for host in (b"a", b"A:80", b"www.example.com", b"example.com", b"evil.example", b"a.b", b"evilexample.com")
        }
        assert [statuses[0] for statuses in answers.values()] == [200, 200, 200, 200, 400, 400, 400]
        assert server.seen() == ["GET /h"] * 4
