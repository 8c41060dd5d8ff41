"""The control socket: whose it is, who may ask, and what becomes of a question."""

import contextlib
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from termserver.channel import Channel
from termserver.errors import ControlError, ListenError
from termserver.process.control import Clients, ask, default_path, listen


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control.sock"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- where it is ---


@pytest.mark.parametrize(
    ("environment", "path"),
    [
        pytest.param(
            {"RUNTIME_DIRECTORY": "/run/a:/run/b", "XDG_RUNTIME_DIR": "/run/user/7"}, "/run/a/termserver-site.asgi-app.sock", id="a service"
        ),
        pytest.param({"XDG_RUNTIME_DIR": "/run/user/7"}, "/run/user/7/termserver-site.asgi-app.sock", id="a user"),
        pytest.param({"RUNTIME_DIRECTORY": ""}, "/tmp/termserver-7/site.asgi-app.sock", id="neither"),  # noqa: S108
    ],
)
def test_it_lies_in_the_runtime_directory(environment: dict[str, str], path: str) -> None:
    assert str(default_path("site.asgi:app", environment, 7)) == path


@pytest.mark.parametrize(("application", "name"), [("../../etc/x", "..-..-etc-x"), ("", "server")])
def test_an_applications_name_leads_nowhere_else(application: str, name: str) -> None:
    assert default_path(application, {}, 7) == Path(f"/tmp/termserver-7/{name}.sock")  # noqa: S108


# --- whose it is ---


def test_socket_and_directory_are_the_owners_alone(place: Path) -> None:
    before = os.umask(0)
    os.umask(before)
    with listen(place):
        assert (mode(place), mode(place.parent)) == (0o600, 0o700)
    assert os.umask(before) == before


def test_what_a_dead_server_left_is_replaced(place: Path) -> None:
    listen(place).close()
    assert place.exists()
    with listen(place), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))


def test_another_servers_is_kept(place: Path) -> None:
    with listen(place):
        with pytest.raises(ListenError, match=r"another server listens there.*--control-socket"):
            listen(place)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(place))


def test_a_file_that_is_no_socket_is_kept(place: Path) -> None:
    place.parent.mkdir(mode=0o700)
    place.write_text("precious")
    with contextlib.suppress(ListenError):
        listen(place).close()
    assert place.is_file()


@pytest.mark.parametrize(
    ("bits", "fine"), [(0o755, True), (0o1777, True), (0o777, False), (0o775, False)], ids=["ours", "sticky", "all write", "group writes"]
)
def test_a_directory_in_which_others_may_write_is_refused(place: Path, bits: int, fine: bool) -> None:
    place.parent.mkdir()
    place.parent.chmod(bits)
    if fine:
        listen(place).close()
        return
    with pytest.raises(ListenError, match="belongs to somebody else, or others may write there"):
        listen(place)
    with pytest.raises(ControlError, match="belongs to somebody else, or others may write there"):
        list(ask(place, "status", 1))


def test_a_directory_of_somebody_else_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.parent.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: place.parent.stat().st_uid + 1)
    if place.parent.stat().st_uid == 0:
        os.chown(place.parent, 1, -1)
    with pytest.raises(ListenError, match="belongs to somebody else"):
        listen(place)


def test_a_path_that_is_too_long_is_an_error_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="path too long"):
        listen(tmp_path / ("x" * 120))


def test_a_directory_that_cannot_be_made_is_an_error_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="No such file or directory"):
        listen(tmp_path / "a" / "b" / "control.sock")


def test_a_path_that_cannot_be_bound_is_an_error_with_a_reason(place: Path) -> None:
    place.parent.mkdir()
    (place.parent / "gone").mkdir()
    with pytest.raises(ListenError, match="cannot open the control socket"):
        listen(place.parent / "gone" / "..")


# --- who may ask ---


def test_more_than_thirty_two_at_once_are_turned_away(place: Path) -> None:
    clients = Clients(listen(place))
    sockets = []
    for _ in range(33):
        sockets.append(socket.socket(socket.AF_UNIX))
        sockets[-1].connect(str(place))
        clients.accept()
    assert len(clients.channels) == 32
    sockets[32].settimeout(5)
    assert sockets[32].recv(1) == b""
    clients.drop(clients.channels[0])
    assert sockets[0].recv(1) == b""
    sockets.append(socket.socket(socket.AF_UNIX))
    sockets[-1].connect(str(place))
    assert clients.accept() is clients.channels[-1]
    for each in sockets:
        each.close()
    for channel in tuple(clients.channels):
        clients.drop(channel)
    clients.listener.close()


def test_a_client_that_is_gone_before_it_was_accepted_is_nobody(place: Path) -> None:
    clients = Clients(listen(place))
    assert clients.accept() is None
    clients.listener.close()


# --- asking ---


@pytest.fixture
def answering(place: Path) -> Iterator[Callable[[bytes], list[bytes]]]:
    """`answering(bytes)`: a server that takes one question and answers with these; what it was asked is in the list."""
    threads: list[threading.Thread] = []

    def serve(answer: bytes) -> list[bytes]:
        listener, asked = listen(place), list[bytes]()
        listener.settimeout(20)

        def one() -> None:
            with listener, listener.accept()[0] as client:
                client.settimeout(20)
                asked.append(client.recv(1_000))
                client.sendall(answer)
                if not answer:
                    client.recv(1)

        threads.append(threading.Thread(target=one))
        threads[-1].start()
        return asked

    yield serve
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_answers_come_up_to_the_last(place: Path, answering: Callable[[bytes], list[bytes]]) -> None:
    asked = answering(b'{"is":"a"}\n{"is":"b","done":true}\n{"is":"c"}\n')
    assert [said["is"] for said in ask(place, "scale", 20, workers=3)] == ["a", "b"]
    assert asked == [b'{"is":"scale","workers":3}\n']


def test_nobody_there_is_an_error(place: Path) -> None:
    with pytest.raises(ControlError, match=r"no server answers at .*: No such file or directory"):
        list(ask(place, "status", 1))


def test_a_server_that_ends_meanwhile_is_an_error(place: Path, answering: Callable[[bytes], list[bytes]]) -> None:
    answering(b'{"is":"a"}\n')
    with pytest.raises(ControlError, match="ended before it had answered"):
        list(ask(place, "reload", 20))


def test_a_server_that_says_nothing_is_an_error(place: Path, answering: Callable[[bytes], list[bytes]]) -> None:
    answering(b"")
    with pytest.raises(ControlError, match=r"did not answer within 0\.1 s"):
        list(ask(place, "reload", 0.1))


def test_a_channel_is_dropped_when_its_client_leaves(place: Path) -> None:
    clients = Clients(listen(place))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))
        channel = clients.accept()
    assert isinstance(channel, Channel)
    assert list(channel.hear()) == []
    assert channel.closed
    clients.drop(channel)
    assert clients.channels == []
    clients.listener.close()
