"""Bodies of hundreds of megabytes through a process whose memory stays flat (spec reliability R13)."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.server import Client, Server

MIB = 1 << 20


@pytest.fixture
def server() -> Iterator[Server]:
    with Server("apps:app", "--no-access-log") as running:
        running.get("/")
        yield running


def peak(server: Server) -> int:
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1_024


def test_fifty_readers_that_do_not_read_a_hundred_megabytes_each(server: Server) -> None:
    before = server.ask("/facts")["resident"]
    readers = [server.connect(receive_buffer=4_096) for _ in range(50)]
    for reader in readers:
        reader.get("/flood?size=100000000")
    produced = server.settled()
    after = server.ask("/facts")["resident"]
    assert produced < 50 * 8 * MIB  # the kernel's buffers and ours, not 5 GB
    assert after - before < 50 * (64 * 1_024 + 200_000)
    began = time.monotonic()
    assert server.get("/").status == 200
    assert time.monotonic() - began < 5
    for reader in readers:
        reader.reset()


def upload(client: Client, path: str, size: int) -> None:
    client.send(f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode())
    block = b"x" * MIB
    for _ in range(size // MIB):
        client.send(block)


def test_upload_into_a_reader_that_takes_its_time(server: Server) -> None:
    before = peak(server)
    with server.connect() as client:
        upload(client, "/length?pause=0.0001", 300 * MIB)
        assert client.response().body == b"%d" % (300 * MIB)
    assert peak(server) - before < 16 * MIB


def test_upload_that_nobody_reads_to_a_response_that_came_early(server: Server) -> None:
    before = peak(server)
    with server.connect() as client:
        upload(client, "/", 100 * MIB)
        assert client.rest().statuses == [200]
    assert peak(server) - before < 16 * MIB


@pytest.mark.parametrize("path", ["/flood?size={size}", "/path?path={file}"])
def test_download(server: Server, tmp_path: Path, path: str) -> None:
    file, size = tmp_path / "file", 300 * MIB
    with file.open("wb") as opened:
        opened.truncate(size)
    before = peak(server)
    with server.connect() as client:
        client.get(path.format(size=size, file=file))
        got = len(client.read_until(b"\r\n\r\n")) * 0
        while got < size:
            got += len(client.take())
    assert peak(server) - before < 16 * MIB


def test_pipelined_requests_behind_a_slow_reader(server: Server) -> None:
    before = server.ask("/facts")["resident"]
    with server.connect(receive_buffer=4_096) as client:
        client.socket.setblocking(False)
        requests, idle_since = b"GET /blob?size=50000 HTTP/1.1\r\nHost: a\r\n\r\n" * 1_000, time.monotonic()
        while time.monotonic() - idle_since < 0.5:
            try:
                client.socket.send(requests)
                idle_since = time.monotonic()
            except BlockingIOError:
                time.sleep(0.01)
        assert server.ask("/facts")["resident"] - before < 32 * MIB
        client.reset()


@pytest.mark.parametrize("keep", [b"", b"GET / HTT"])
def test_pipelined_requests_of_a_slow_reader_are_all_answered(server: Server, keep: bytes) -> None:
    with server.connect(receive_buffer=4_096) as client:
        client.send(b"GET /blob?size=50000 HTTP/1.1\r\nHost: a\r\n\r\n" * 500 + keep)
        for _ in range(250):
            assert len(client.response().body) == 50_000
        client.send((b"P/1.1\r\nHost: a\r\n\r\n" if keep else b"") + b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = client.rest()
        assert len(answer.responses) == 251 + bool(keep)
        assert all(response.whole for response in answer.responses)
