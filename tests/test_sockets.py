"""Listening sockets: bound, adopted, described, cleaned up."""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from termserver.errors import ListenError
from termserver.sockets import adopt, bind_tcp, bind_unix, describe, remove_unix


@pytest.fixture
def closing() -> Iterator[list[socket.socket]]:
    opened: list[socket.socket] = []
    yield opened
    for each in opened:
        each.close()


# --- TCP ---


def test_tcp_address_is_bound_and_listens(closing: list[socket.socket]) -> None:
    closing += bind_tcp("127.0.0.1", 0, 10)
    [listener] = closing
    assert not listener.getblocking()
    closing.append(socket.create_connection(listener.getsockname()))
    assert describe(listener) == f"TCP address 127.0.0.1:{listener.getsockname()[1]}"


def test_name_of_two_addresses_gets_one_free_port_for_both(closing: list[socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)), (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]  # fmt: skip
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: found)
    closing += bind_tcp("localhost", 0, 10)
    assert len(closing) == 2
    assert len({listener.getsockname()[1] for listener in closing}) == 1


def test_ipv6_address_is_ipv6_only_and_described_in_brackets(closing: list[socket.socket]) -> None:
    closing += bind_tcp("::1", 0, 10)
    assert closing[0].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
    assert describe(closing[0]) == f"TCP address [::1]:{closing[0].getsockname()[1]}"


def test_port_in_use_is_said(closing: list[socket.socket]) -> None:
    closing += bind_tcp("127.0.0.1", 0, 10)
    port = closing[0].getsockname()[1]
    with pytest.raises(ListenError, match=f"^cannot listen on 127.0.0.1:{port}: Address already in use$"):
        bind_tcp("127.0.0.1", port, 10)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 70, "a..b"])
def test_host_that_is_not_there_is_said(host: str) -> None:
    with pytest.raises(ListenError, match=f"cannot listen on {host}:1: "):
        bind_tcp(host, 1, 10)


def test_second_address_that_fails_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)), (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("203.0.113.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: found)
    with pytest.raises(ListenError, match="Cannot assign"):
        bind_tcp("two", 0, 10)


# --- Unix ---


def test_unix_socket_is_bound_for_everyone(closing: list[socket.socket], tmp_path: Path) -> None:
    path = tmp_path / "socket"
    closing.append(bind_unix(str(path), 10))
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert describe(closing[0]) == f"UNIX socket {path}"


def test_unix_socket_of_a_dead_server_is_replaced(closing: list[socket.socket], tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    bind_unix(path, 10).close()
    closing.append(bind_unix(path, 10))


def test_unix_socket_of_a_living_server_stays(closing: list[socket.socket], tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    closing.append(bind_unix(path, 10))
    with pytest.raises(ListenError, match="another server listens there"):
        bind_unix(path, 10)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(ListenError, match="is no socket"):
        bind_unix(str(path), 10)
    assert path.read_text() == "precious"


def test_socket_of_another_kind_stays(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        with pytest.raises(ListenError, match=f"cannot listen on unix:{path}: "):
            bind_unix(path, 10)


@pytest.mark.parametrize("path", ["/no/such/directory/socket", "/run/" + "x" * 200])
def test_unix_path_that_cannot_be_is_said(path: str) -> None:
    with pytest.raises(ListenError, match="cannot listen on unix:/"):
        bind_unix(path, 10)


def test_own_file_is_removed_and_a_successor_s_is_not(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    bind_unix(str(path), 10).close()
    own = path.stat().st_ino
    successor = tmp_path / "successor"
    successor.touch()
    remove_unix(str(successor), own)
    assert successor.exists()
    remove_unix(str(path), own)
    assert not path.exists()
    remove_unix(str(path), own)


# --- inherited ---


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_inherited_socket_is_adopted_whatever_its_family(closing: list[socket.socket], tmp_path: Path, family: int) -> None:
    given = socket.socket(family)
    given.bind(str(tmp_path / "socket") if family == socket.AF_UNIX else ("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    closing += [given, adopt(given.fileno(), 10)]
    assert closing[1].family == family
    assert closing[1].getsockname() == given.getsockname()
    assert closing[1].fileno() != given.fileno()


@pytest.mark.parametrize("kind", ["closed", "file", "datagrams"])
def test_descriptor_that_cannot_listen_is_said(closing: list[socket.socket], tmp_path: Path, kind: str) -> None:
    reading, writing = os.pipe()
    os.close(writing)
    number = reading
    if kind == "closed":
        os.close(reading)
    elif kind == "datagrams":
        os.close(reading)
        closing.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        number = closing[0].fileno()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ListenError, match=f"cannot listen on descriptor {number}: "):
        adopt(number, 10)
    assert len(os.listdir("/proc/self/fd")) == before
    if kind == "file":
        os.close(reading)
