"""What stands around a serving process: the sockets it is given, its open-file limit, its logs (spec reliability R11, R19; limits L42)."""

import errno
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from e2e.server import Client, Server, wait_until

QUIET = ("apps:app", "--no-access-log")
GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


# --- sockets ---


def test_inherited_descriptor() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        with Server(*QUIET, "--fd", str(number), port=False, pass_fds=(number,)) as server:
            assert server.port == listener.getsockname()[1]
            assert server.get("/").body == b"hello"
            assert server.stop() == 0
        with Server(*QUIET, "--bind", f"fd://{number}", port=False, pass_fds=(number,)) as server:  # it is still open, and so is its queue
            assert server.get("/").body == b"hello"


def over_unix(path: str) -> bytes:
    with Client(path, family=socket.AF_UNIX) as client:
        client.send(GET)
        return client.rest().only.body


def test_unix_socket_comes_and_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    for _ in range(2):
        with Server(*QUIET, "--unix-socket", str(path), port=False) as server:
            server.wait_line(f"Listening on UNIX socket {path}")
            assert over_unix(str(path)) == b"hello"
            assert server.stop() == 0
        assert not path.exists()


def test_unix_socket_of_a_killed_server_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with Server(*QUIET, "--unix-socket", str(path), port=False) as server:
        server.send_signal(signal.SIGKILL)
        server.wait()
    assert path.exists()
    with Server(*QUIET, "--unix-socket", str(path), port=False):
        assert over_unix(str(path)) == b"hello"


def test_unix_socket_outlives_a_pause_at_capacity(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with Server(*QUIET, "--unix-socket", str(path), "--limit-connections", "3", "--timeout-keep-alive", "0.2", port=False):
        clients = [Client(str(path), family=socket.AF_UNIX) for _ in range(10)]
        for client in clients:
            client.send(GET.replace(b"close", b"keep-alive"))
        for client in clients:
            assert client.response().body == b"hello"
        assert over_unix(str(path)) == b"hello"
        for client in clients:
            client.socket.close()


def test_several_addresses_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with Server(*QUIET, "--bind", "127.0.0.2:0", "--unix-socket", path) as server:
        other = re.search(r"127\.0\.0\.2:(\d+)", server.wait_line("127.0.0.2:", seconds=5).replace("Starting", ""))
        server.wait_line("UNIX")
        listening = server.wait_line("Listening on TCP address 127.0.0.2")
        assert other
        assert server.get("/").body == over_unix(path) == b"hello"
        with Client(("127.0.0.2", int(listening.rsplit(":", 1)[1]))) as client:
            client.send(GET)
            assert client.rest().only.body == b"hello"


@contextmanager
def twisted_endpoint(*options: str) -> Iterator[tuple[Server, tuple[str, int]]]:
    with Server(*QUIET, *options, "--endpoint", "tcp:0:interface=127.0.0.1") as server:
        found = re.search(r"port=(\d+)", server.wait_line("IPv4Address"))
        assert found
        yield server, ("127.0.0.1", int(found[1]))


def test_twisted_endpoint_string_serves_and_stops() -> None:
    with twisted_endpoint() as (server, address):
        with Client(address) as client:
            for _ in range(3):
                client.get("/blob?size=3000000")
                assert len(client.response().body) == 3_000_000
            client.get("/", "Connection: close")
            assert client.rest().only.body == b"hello"
        assert server.stop() == 0
        assert "Traceback" not in server.log


@pytest.mark.parametrize("request_", [
    pytest.param(b"GET /blob?size=8000000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", id="close"),
    pytest.param(b"GET /flood?size=8000000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", id="close after parts"),
    pytest.param(b"POST /blob?size=8000000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 9\r\n\r\n", id="linger"),
])  # fmt: skip
def test_twisted_endpoint_closes_after_the_last_response(request_: bytes) -> None:
    with twisted_endpoint("--timeout-linger-total", "20") as (server, address), Client(address) as client:
        client.send(request_)
        answer = client.rest()
        assert (len(answer.only.body), answer.reset) == (8_000_000, False)
        assert "Cut" not in server.log


def test_twisted_endpoint_half_closed_faulty_refused_and_files(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"0123456789" * 300_000)
    with twisted_endpoint() as (server, address):
        with Client(address) as client:
            client.get("/blob?size=3000000")
            client.shut()
            assert len(client.rest().only.body) == 3_000_000
        with Client(address) as client:
            client.get("/fault?kind=raise+in+body")
            answer = client.rest()
            assert answer.reset
            assert not any(response.whole for response in answer.responses)
        with Client(address) as client:
            client.send(b"nonsense\r\n\r\n" + GET)
            assert client.rest().statuses == [400]
        with Client(address) as client:
            client.get(f"/path?path={file}", "Connection: close")
            assert client.rest().only.body == file.read_bytes()
        with Client(address) as client:
            client.get("/listen")
            wait_until(lambda: "GET /listen" in server.seen(), "the request")
        server.wait_event("disconnect heard")
        with Client(address, receive_buffer=4_096) as client:
            client.get("/flood?size=100000000")
            client.read_until(b"xxx")
            assert server.ask("/facts")["produced"] < 60_000_000
            client.reset()


def test_twisted_endpoint_pauses_at_capacity_and_resumes() -> None:
    with twisted_endpoint("--limit-connections", "3", "--timeout-keep-alive", "0.2") as (server, address):
        clients = [Client(address) for _ in range(12)]
        for client in clients:
            client.get("/")
        for client in clients:
            assert client.response().body == b"hello"
            client.socket.close()
        assert server.stop() == 0
        assert "Traceback" not in server.log


# --- R11: no more descriptors ---


def test_capacity_follows_from_the_open_file_limit() -> None:
    with Server(*QUIET, "--timeout-keep-alive", "0.5", files=128) as server:
        clients = []
        for _ in range(300):
            client = server.connect()
            client.get("/")
            clients.append(client)
        for client in clients:
            assert client.response().status == 200
            client.socket.close()
        assert server.get("/").status == 200
        assert "Traceback" not in server.log


def test_server_without_a_free_descriptor_goes_on_once_there_is_one() -> None:
    with Server("apps:hungry", "--no-access-log", "--limit-connections", "1000", files=100) as server, server.connect() as early:
        early.get("/hungry")
        early.response()
        before = server_cpu(server)
        late = []
        for _ in range(20):  # the kernel takes them, the server cannot
            client = server.connect()
            client.get("/")
            late.append(client)
        early.get("/")
        assert early.response().status == 200
        assert server_cpu(server) - before < 5
        early.get("/sated")
        assert early.response().status == 200
        wait_until(lambda: answers(server), "the server to accept again", 10)
        for client in late:
            client.socket.close()
        assert server.stop() == 0


def server_cpu(server: Server) -> float:
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def answers(server: Server) -> bool:
    try:
        with server.connect() as client:
            client.socket.settimeout(1)
            client.send(GET)
            return client.rest().statuses == [200]
    except OSError:
        return False


def test_port_that_cannot_be_resumed_for_want_of_descriptors_is_resumed_later() -> None:
    options = ("--no-access-log", "--limit-connections", "5")
    with Server("apps:hungry", *options, files=100) as server:
        clients = [server.connect() for _ in range(5)]
        for client in clients:
            client.get("/")
            client.response()
        wait_until(lambda: server.process.poll() is None, "the pause")
        clients[0].get("/hungry")
        clients[0].response()
        for client in clients[1:]:
            client.reset()
        clients[0].get("/sated")
        assert clients[0].response().status == 200
        wait_until(lambda: answers(server), "the server to accept again", 10)
        clients[0].socket.close()


# --- R19: logs that cannot be written ---


def serve_many(server: Server, count: int = 2_000) -> None:
    with server.connect() as client:
        for _ in range(count // 100):
            client.send(b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 200) * 100)
            for _ in range(100):
                assert client.response().status == 200


@pytest.mark.parametrize("target", ["/dev/full", "-"])
def test_access_log_that_cannot_be_written_fails_no_request(target: str) -> None:
    with open("/dev/full", "w") as full, Server("apps:app", "--access-log", target, stdout=full if target == "-" else None) as server:
        serve_many(server)
        assert server.stop() == 0
        assert "Traceback" not in server.log
        assert os.strerror(errno.ENOSPC) in server.log or "lost" in server.log


def test_access_log_into_a_pipe_that_nobody_reads_fails_no_request() -> None:
    reading, writing = os.pipe()
    try:
        with Server("apps:app", stdout=writing) as server:
            serve_many(server, 5_000)
            assert server.stop() == 0
    finally:
        os.close(reading)
        os.close(writing)


def test_access_log_into_a_pipe_whose_reader_has_gone_fails_no_request() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with Server("apps:app", stdout=writing) as server:
        os.close(writing)
        serve_many(server)
        assert server.stop() == 0
        assert "Traceback" not in server.log


def test_log_into_a_pipe_that_nobody_reads_fails_no_request() -> None:
    reading, writing = os.pipe()
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            words = Server.words("apps:app", "--no-access-log", "--fd", str(listener.fileno()))
            process = subprocess.Popen(words, stderr=writing, pass_fds=(listener.fileno(),))
            try:
                for _ in range(100):  # a traceback each: more than a pipe holds
                    with Client(listener.getsockname()) as client:
                        client.get("/fault?kind=raise")
                        assert client.rest().statuses == [500]
                process.terminate()
                assert process.wait(30) == 0
            finally:
                process.kill()
                process.wait()
    finally:
        os.close(reading)
        os.close(writing)


def test_access_log_is_written_in_full_at_the_end(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with Server("apps:app", "--access-log", str(log)) as server:
        serve_many(server)
        assert server.stop() == 0
    assert len(log.read_text().splitlines()) == 2_000


def test_access_log_is_opened_anew_at_sigusr1(tmp_path: Path) -> None:
    log, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    with Server("apps:app", "--access-log", str(log)) as server:
        server.get("/first")
        wait_until(lambda: "/first" in log.read_text(), "the line")
        log.rename(moved)
        server.send_signal(signal.SIGUSR1)
        wait_until(log.exists, "the new file")
        server.get("/second")
        wait_until(lambda: "/second" in log.read_text(), "the line")
    assert "/second" not in moved.read_text()


def test_access_log_has_a_line_for_every_end_of_a_request(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with Server(
        "apps:app", "--access-log", str(log), "--app-timeout", "0.3", "--timeout-body-idle", "0.3", "--application-close-timeout", "0.1"
    ) as server:
        server.get("/whole")
        server.get("/silent")
        server.exchange(b"GET /fault?kind=raise HTTP/1.1\r\nHost: a\r\n\r\n")
        server.exchange(b"GET /fault?kind=raise+in+body HTTP/1.1\r\nHost: a\r\n\r\n")
        server.exchange(b"POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
        with server.connect() as client:
            client.get("/hold")
            server.wait_event("held")
            client.reset()
        assert server.stop() == 0
    lines = [line for line in log.read_text().splitlines() if "/events" not in line]
    found = [(match[1], match[2]) for line in lines if (match := re.search(r'"\w+ /([\w-]+)\S* HTTP/1\.1" (\d+)', line))]
    assert sorted(found) == [("fault", "200"), ("fault", "500"), ("hold", "499"), ("length", "408"), ("silent", "504"), ("whole", "200")]
