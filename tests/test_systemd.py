"""What systemd hands over and is told: sd_listen_fds(3), sd_notify(3), and sockets by name in the configuration."""

import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from termserver import systemd
from termserver.config import Bind, Descriptor, Named, Tcp
from termserver.errors import ConfigError
from termserver.sources import gather
from termserver.systemd import Notifier, take_sockets

OURS = str(os.getpid())
HIGH = 200  # where no test has descriptors


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Two inheritable sockets, one after the other, as a service manager leaves them."""
    monkeypatch.setattr(systemd, "_FIRST_DESCRIPTOR", HIGH)
    with socket.socket() as one:
        numbers = [fcntl.fcntl(one.fileno(), fcntl.F_DUPFD, HIGH + place) for place in range(2)]
        assert numbers == [HIGH, HIGH + 1]
        yield numbers
        for number in numbers:
            os.close(number)


# --- sockets ---


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (None, ["", ""]),
        ("", ["", ""]),
        ("https", ["https", ""]),
        ("https:admin", ["https", "admin"]),
        ("https:https", ["https", "https"]),
        (":admin", ["", "admin"]),
        ("https:admin:more", ["https", "admin"]),
    ],
)
def test_sockets_come_with_their_names(handed_over: list[int], names: str | None, found: list[str]) -> None:
    environment = {"LISTEN_PID": OURS, "LISTEN_FDS": "2"} | ({} if names is None else {"LISTEN_FDNAMES": names})
    assert take_sockets(environment) == list(zip(handed_over, found, strict=True))


def test_sockets_are_not_inherited_any_further(handed_over: list[int]) -> None:
    assert all(fcntl.fcntl(number, fcntl.F_GETFD) == 0 for number in handed_over)
    take_sockets({"LISTEN_PID": OURS, "LISTEN_FDS": "2"})
    assert all(fcntl.fcntl(number, fcntl.F_GETFD) == fcntl.FD_CLOEXEC for number in handed_over)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": OURS},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": OURS, "LISTEN_FDS": "0"},
        {"LISTEN_PID": OURS, "LISTEN_FDS": "-1"},
        {"LISTEN_PID": OURS, "LISTEN_FDS": "one"},
        {"LISTEN_PID": f"0{OURS}", "LISTEN_FDS": "1"},
    ],
)
def test_sockets_of_others_are_left_alone(handed_over: list[int], environment: dict[str, str]) -> None:
    assert take_sockets(environment) == []
    assert all(fcntl.fcntl(number, fcntl.F_GETFD) == 0 for number in handed_over)


@pytest.mark.parametrize("pid", [OURS, "1"], ids=["ours", "another's"])
def test_no_child_is_told_of_them(handed_over: list[int], pid: str) -> None:
    environment = {"LISTEN_PID": pid, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b", "PATH": "/bin"}
    take_sockets(environment)
    assert environment == {"PATH": "/bin"}


# --- sockets by name ---

HANDED = [(3, "https"), (4, "admin"), (5, "https"), (6, "")]


def binds(tmp_path: Path, *said: str, sockets: list[tuple[int, str]] = HANDED, **found: object) -> tuple[Bind, ...]:
    return gather({"application": "a:b", "bind": list(said) or None} | found, {}, tmp_path, sockets).usable().bind


def test_all_are_served_where_no_address_is_named(tmp_path: Path) -> None:
    assert binds(tmp_path) == (Descriptor(3), Descriptor(4), Descriptor(5), Descriptor(6))


def test_a_name_means_every_socket_that_has_it(tmp_path: Path) -> None:
    assert binds(tmp_path, "fd://https") == (Descriptor(3), Descriptor(5))
    assert binds(tmp_path, "fd://admin", "fd://https") == (Descriptor(4), Descriptor(3), Descriptor(5))


def test_an_address_that_is_named_is_served_instead(tmp_path: Path) -> None:
    assert binds(tmp_path, "127.0.0.1:80") == (Tcp("127.0.0.1", 80),)
    assert binds(tmp_path, port="80") == (Tcp("127.0.0.1", 80),)


def test_names_stand_beside_other_addresses(tmp_path: Path) -> None:
    assert binds(tmp_path, "fd://admin", "127.0.0.1:80") == (Descriptor(4), Tcp("127.0.0.1", 80))


def test_a_name_that_was_not_handed_over_says_which_were(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fd://http: the service manager handed over no socket .*\(it handed over: https, admin, \)"):
        binds(tmp_path, "fd://http")
    with pytest.raises(ConfigError, match=r"\(it handed over: none\)"):
        binds(tmp_path, "fd://http", sockets=[])


def test_a_name_comes_from_the_file_too(tmp_path: Path) -> None:
    (tmp_path / "termserver.toml").write_text('bind = ["fd://admin"]\n')
    assert binds(tmp_path) == (Descriptor(4),)


def test_a_name_is_no_number() -> None:
    assert str(Named("https")) == "fd://https"


# --- what is told ---


class Manager:
    """The service manager's end of the notification socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(30)

    def heard(self) -> list[str]:
        return self.socket.recv(4_096).decode().split("\n")

    def nothing(self) -> bool:
        self.socket.setblocking(False)
        try:
            self.socket.recv(4_096)
        except BlockingIOError:
            return True
        return False


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@termserver-test-{os.getpid()}-{tmp_path.name}"


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    made = Manager(address)
    yield made
    made.socket.close()


def test_states_are_told(manager: Manager, address: str) -> None:
    notifier = Notifier(address)
    notifier.ready("all well")
    assert manager.heard() == ["READY=1", "STATUS=all well"]
    notifier.stopping("going")
    assert manager.heard() == ["STOPPING=1", "STATUS=going"]
    notifier.alive()
    assert manager.heard() == ["WATCHDOG=1"]


def test_a_reload_says_when_it_began(manager: Manager, address: str) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
    Notifier(address).reloading("new workers start")
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
    state, since, status = manager.heard()
    assert (state, status) == ("RELOADING=1", "STATUS=new workers start")
    assert since.startswith("MONOTONIC_USEC=")
    assert before <= int(since.removeprefix("MONOTONIC_USEC=")) <= after


def test_a_status_is_told_once(manager: Manager, address: str) -> None:
    notifier = Notifier(address)
    notifier.ready("two")
    notifier.status("two")
    notifier.status("three")
    notifier.status("three")
    assert [manager.heard(), manager.heard()] == [["READY=1", "STATUS=two"], ["STATUS=three"]]
    assert manager.nothing()


def test_without_a_manager_nothing_is_told_and_nothing_breaks(tmp_path: Path) -> None:
    Notifier().ready("well")
    Notifier(str(tmp_path / "gone")).ready("well")


def test_a_manager_that_is_busy_is_told_all_the_same(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    manager = Manager(address)
    with manager.socket, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        waiting = 0
        try:
            while other.sendto(b"STATUS=x", address):
                waiting += 1
        except BlockingIOError:
            assert waiting > 0
        telling = threading.Thread(target=Notifier(address).ready, args=("well",))
        telling.start()
        if telling.is_alive():
            telling.join(0.1)
        assert [manager.heard() for _ in range(waiting)] == [["STATUS=x"]] * waiting
        telling.join(30)
        assert not manager.nothing()


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": OURS}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({"WATCHDOG_USEC": ""}, 0.0),
    ],
)
def test_the_watchdog_is_fed_where_it_was_asked_for(environment: dict[str, str], seconds: float) -> None:
    given = {"NOTIFY_SOCKET": "/run/notify", "PATH": "/bin"} | environment
    notifier = Notifier.take(given)
    assert (notifier.address, notifier.watchdog) == ("/run/notify", seconds)
    assert given == {"PATH": "/bin"}
