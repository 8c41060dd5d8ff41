"""Applications that fail, clients that leave half-way: who sees what, and that nothing stays behind (spec reliability R16, R17, R20)."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.server import Client, Server, wait_until

BEFORE_START = [
    "raise",
    "exit",
    "return",
    "split value",
    "text header",
    "text status",
    "no status",
    "status 99",
    "status 1000",
    "body first",
    "unknown type",
]
AFTER_START = [
    "raise after start", "return after start", "raise in body", "raise in body length", "return in body", "return in body length",
    "too few", "text body", "text in body", "start twice",
]  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("apps:app", "--no-access-log") as running:
        yield running
        assert running.stop() == 0
        assert "never retrieved" not in running.log
        assert "Fatal" not in running.log


@pytest.fixture(autouse=True)
def nothing_noted(server: Server) -> None:
    server.get("/forget")


def fault(kind: str) -> bytes:
    return f"GET /fault?kind={kind.replace(' ', '+')} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


# --- R16: faults ---


@pytest.mark.parametrize("kind", BEFORE_START)
def test_fault_before_the_start_is_a_constant_500(server: Server, kind: str) -> None:
    answer = server.exchange(fault(kind))
    assert (answer.only.status, answer.only.body, answer.only["connection"]) == (500, b"Internal Server Error\n", "close")
    assert "purpose" not in answer.raw.decode()


@pytest.mark.parametrize("kind", AFTER_START)
def test_fault_after_the_start_is_an_incomplete_read(server: Server, kind: str) -> None:
    answer = server.exchange(fault(kind))
    assert answer.reset
    assert not any(response.whole for response in answer.responses)


def test_fault_is_logged_once_with_its_traceback_and_the_path() -> None:
    with Server("apps:app", "--no-access-log") as server:
        server.exchange(fault("raise"))
        assert "GET /fault" in server.wait_line("Exception in the application")
        server.wait_line("RuntimeError: on purpose")
        server.exchange(fault("return"))
        assert "GET /fault" in server.wait_line("without a whole response")
        assert server.stop() == 0
        assert server.log.count("Traceback") == 1


def test_fault_of_one_never_reaches_another(server: Server) -> None:
    with server.connect() as bystander:
        bystander.get("/hold-body")
        bystander.read_until(b"first ")
        for kind in [*BEFORE_START, *AFTER_START]:
            server.exchange(fault(kind))
        server.get("/release")
        assert b"last" in bystander.read_until(b"0\r\n\r\n")


def test_thousand_faults_in_a_row_leave_nothing_behind() -> None:
    kinds = [*BEFORE_START, *AFTER_START]
    with Server("apps:app", "--no-access-log", "--log-fmt", "%(levelname)s %(message)s") as server:
        for kind in kinds * 10:
            server.exchange(fault(kind))
        before = server.ask("/facts")
        for number in range(1_000):
            server.exchange(fault(kinds[number % len(kinds)]))
        wait_until(lambda: server.ask("/facts")["tasks"] <= before["tasks"], "tasks to end")
        wait_until(lambda: server.ask("/facts")["files"] <= before["files"], "files to be closed")
        assert server.ask("/facts")["resident"] - before["resident"] < 4_000_000
        assert server.stop() == 0


def test_faults_after_a_pipelined_request_cut_nothing_that_was_whole(server: Server) -> None:
    answer = server.exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + fault("raise") + b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.statuses == [200, 500]


# --- R17: misuse ---


def test_messages_after_the_end_are_ignored_and_receive_tells_disconnect_again_and_again(server: Server) -> None:
    assert server.get("/misuse").body == b"whole"
    server.wait_event("third receive")
    assert server.ask("/events") == [
        "first receive: http.request", "nothing raised after the end", "second receive: http.disconnect", "third receive: http.disconnect",
    ]  # fmt: skip


def test_work_after_the_response_delays_no_next_request(server: Server) -> None:
    with server.connect() as client:
        client.get("/afterwards")
        assert client.response().body == b"done"
        client.get("/", "Connection: close")
        assert client.rest().only.body == b"hello"
    assert "worked on" not in server.ask("/events")
    server.get("/release")
    server.wait_event("worked on")


# --- clients that leave ---


def test_listener_hears_that_its_client_left(server: Server) -> None:
    with server.connect() as client:
        client.get("/listen")
        wait_until(lambda: "GET /listen" in server.seen(), "the request")
    server.wait_event("disconnect heard by /listen")


def test_talker_that_never_listens_ends_within_a_second(server: Server) -> None:
    with server.connect() as client:
        client.get("/talk")
        client.read_until(b"data: x")
    left = time.monotonic()
    server.wait_event("talk ended: ClientDisconnected")
    assert time.monotonic() - left < 5  # a second, and room for a busy machine
    assert "GET /talk" not in server.log


def test_call_that_does_not_note_it_is_cancelled_after_a_while() -> None:
    options = ("--no-access-log", "--application-close-timeout", "0.2", "--application-cancel-timeout", "0.2")
    with Server("apps:app", *options) as server:
        with server.connect() as client:
            client.get("/silent")
            wait_until(lambda: server.seen() == ["GET /silent"], "the request")
        server.wait_event("cancelled")
        assert "waiting for other" in server.wait_line("GET /silent: cancelled")


def test_call_that_ignores_its_cancellation_is_reported_once_with_its_stack() -> None:
    options = (
        "--no-access-log",
        "--application-close-timeout",
        "0.1",
        "--application-cancel-timeout",
        "0.1",
        "--timeout-graceful-shutdown",
        "0.3",
    )
    with Server("apps:app", *options) as server:
        with server.connect() as client:
            client.get("/stubborn")
            server.wait_event("stubborn")
        assert server.wait_line("cancelled in vain")
        server.wait_line("apps.py")
        assert server.get("/").status == 200
        assert server.stop() == 0
        assert server.log.count("cancelled in vain\n") == 1
        assert "abandoned" in server.log


# --- R20: half-closed connections ---


def half_closed(server: Server, data: bytes) -> Client:
    client = server.connect()
    client.send(data)
    client.shut()
    return client


def test_half_closed_client_gets_its_whole_response(server: Server) -> None:
    with half_closed(server, b"GET /flood?size=20000000 HTTP/1.1\r\nHost: a\r\n\r\n") as client:
        answer = client.rest()
    assert (len(answer.only.body), answer.reset) == (20_000_000, False)


def test_half_closed_client_that_takes_its_time_gets_its_whole_response(server: Server) -> None:
    with half_closed(server, b"GET /hold-body HTTP/1.1\r\nHost: a\r\n\r\n") as client:
        client.read_until(b"first ")
        assert not client.ended(1.5)  # longer than --timeout-half-close
        server.get("/release")
        assert b"last" in client.read_until(b"0\r\n\r\n")


def test_half_closed_client_with_a_whole_upload_gets_its_response(server: Server) -> None:
    with half_closed(
        server, b"POST /length?pause=0.01 HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000
    ) as client:
        assert client.rest().only.body == b"1000000"


def test_partial_body_then_end_is_a_disconnect_never_an_end(server: Server) -> None:
    with half_closed(server, b"POST /echo?partial HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello") as client:
        assert client.rest().statuses == []
    server.wait_event("disconnect in the body of /echo")


def test_partial_head_then_end_is_nothing(server: Server) -> None:
    server.seen()
    with half_closed(server, b"GET / HTTP/1.1\r\nHost: a\r\n") as client:
        assert client.rest().raw == b""
    assert server.seen() == []


def test_half_closed_client_that_is_gone_is_told_after_a_while() -> None:
    options = ("--no-access-log", "--timeout-half-close", "0.2")
    with Server("apps:app", *options) as server, half_closed(server, b"GET /listen HTTP/1.1\r\nHost: a\r\n\r\n"):
        server.wait_event("disconnect heard by /listen")


def test_half_closed_connections_cost_no_cpu() -> None:
    with Server("apps:app", "--no-access-log") as server:
        clients = [half_closed(server, b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n") for _ in range(50)]
        server.wait_event("held", 50)
        before = server.ask("/facts")["cpu"]
        assert not clients[0].ended(1)
        assert server.ask("/facts")["cpu"] - before < 0.3
        server.get("/release")
        for client in clients:
            assert client.rest().only.body == b"released"
            client.socket.close()


# --- files ---


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "file"
    path.write_bytes(bytes(range(256)) * 40_000)
    return path


def test_pathsend_sends_the_file(server: Server, file: Path) -> None:
    with server.connect() as client:
        for _ in range(2):  # on one connection: what follows is where it should be
            client.get(f"/path?path={file}")
            assert client.response().body == file.read_bytes()
        client.get("/", "Connection: close")
        assert client.rest().only.body == b"hello"


def test_pathsend_of_an_empty_file(server: Server, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    assert server.get(f"/path?path={empty}").body == b""


def test_pathsend_for_head_sends_no_byte(server: Server, file: Path) -> None:
    with server.connect() as client:
        client.send(f"HEAD /path?path={file} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert client.response(head=True)["content-length"] == str(file.stat().st_size)
        client.get("/", "Connection: close")
        assert client.rest().only.body == b"hello"


@pytest.mark.parametrize(
    ("asked", "start", "end"), [("", 0, None), ("&offset=1000", 1000, None), ("&offset=300&count=100000", 300, 100_300), ("&count=0", 0, 0)]
)
def test_zerocopysend_sends_the_part_between_what_was_said_before_and_after(
    server: Server, file: Path, asked: str, start: int, end: int | None
) -> None:
    assert server.get(f"/opened?path={file}{asked}").body == b"before " + file.read_bytes()[start:end] + b" after"


def test_zerocopysend_past_the_end_of_the_file_is_an_incomplete_read(server: Server, file: Path) -> None:
    answer = server.exchange(f"GET /opened?path={file}&count=20000000 HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert answer.reset
    assert not answer.only.whole


def test_file_that_the_client_does_not_want_to_the_end(server: Server, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(200_000_000)
    server.get(f"/path?path={__file__}")  # the first file starts a thread
    before = server.ask("/facts")
    for reset in (True, False):
        for path in ("/path", "/opened"):
            client = server.connect(receive_buffer=65_536)
            client.get(f"{path}?path={large}")
            client.read_until(b"\0" * 1_000)
            if reset:
                client.reset()
            else:
                client.socket.close()
    server.wait_event("pathsend ended: ClientDisconnected", 2)
    wait_until(lambda: server.ask("/facts")["files"] <= before["files"], "files to be closed")
    wait_until(lambda: server.ask("/facts")["tasks"] <= before["tasks"], "tasks to end")


def test_file_to_a_half_closed_client(server: Server, file: Path) -> None:
    with half_closed(server, f"GET /path?path={file} HTTP/1.1\r\nHost: a\r\n\r\n".encode()) as client:
        assert client.rest().only.body == file.read_bytes()


def test_file_to_a_reader_that_stops_is_cut(file: Path, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as opened:
        opened.truncate(200_000_000)
    with Server("apps:app", "--no-access-log", "--timeout-write-stall", "0.3") as server, server.connect(receive_buffer=4_096) as client:
        client.get(f"/path?path={large}")
        server.wait_line("Cut a connection")
        assert client.rest().reset
        server.wait_event("pathsend ended")


def test_echo_of_all_that_a_request_holds(server: Server) -> None:
    found = json.loads(server.get("/echo?%2f").body)
    assert (found["method"], found["path"], found["raw_path"], found["scheme"], found["http_version"]) == (
        "GET",
        "/echo",
        "/echo",
        "http",
        "1.1",
    )
    assert found["server"] == [server.host, server.port]
    assert found["client"][0] == "127.0.0.1"
