"""Units that systemd's own tools accept; sockets it hands over; what it is told; restarts that refuse nobody (spec reliability R9)."""

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from websockets.sync.client import connect

from certificates import Authority
from e2e.server import HERE, PATIENCE, Server, parse_response, wait_until
from termserver.config import Config

Tool = Callable[[str], str]
UNITS = HERE.parents[1] / "deploy" / "systemd"
APP = "deployed_apps:app"
TERMSERVER = (sys.executable, "-m", "termserver")
KINDS = pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one process", "two workers"])

# Stands in for systemd: moves sockets to where they are looked for, and becomes the service.
HAND_OVER = """
import fcntl, os, sys
numbers = [int(number) for number in sys.argv[1].split(",")]
safe = [fcntl.fcntl(number, fcntl.F_DUPFD, 100) for number in numbers]
for place, number in enumerate(safe):
    os.dup2(number, 3 + place)
    os.close(number)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(numbers)), "LISTEN_FDNAMES": sys.argv[2]}
os.execv(sys.argv[3], sys.argv[3:])
"""


def handing_over(words: list[str], *listeners: socket.socket, name: str = "https") -> list[str]:
    """Give the command that starts a server with sockets of this name."""
    numbers = ",".join(str(listener.fileno()) for listener in listeners)
    return [sys.executable, "-c", HAND_OVER, numbers, ":".join([name] * len(listeners)), *words]


def ask(*words: str) -> str:
    """Ask a running server something."""
    found = subprocess.run([*TERMSERVER, *words], capture_output=True, text=True, timeout=60, cwd=HERE)
    assert found.returncode == 0, found.stderr
    return found.stdout


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def get(address: Any, path: str = "/") -> Any:
    """Get a path's JSON from a TCP address or a Unix socket's path."""
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as client:
        client.settimeout(PATIENCE)
        client.connect(address)
        client.sendall(b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path.encode())
        came = b"".join(iter(lambda: client.recv(65_536), b""))
    return parse_response(came)[0].json()


# --- the units ---


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units as they stand, but for what a machine has to have installed for them."""
    for unit in UNITS.glob("termserver*"):
        text = re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text())
        (tmp_path / unit.name).write_text(re.sub(r"(?m)^WorkingDirectory=.*", "WorkingDirectory=/", text))
    return tmp_path


@pytest.mark.parametrize("name", ["termserver", "termserver@blog"])
def test_units_are_verified(tool: Tool, units: Path, name: str) -> None:
    words = [tool("systemd-analyze"), "verify", "--man=no", str(units / f"{name}.socket"), str(units / f"{name}.service")]
    found = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stderr) == (0, "")


def test_a_mistake_in_a_unit_would_be_seen(tool: Tool, units: Path) -> None:
    unit = units / "termserver.service"
    unit.write_text(unit.read_text().replace("WatchdogSec=60", "WatchdogSeconds=60"))
    found = subprocess.run([tool("systemd-analyze"), "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60)
    assert "WatchdogSeconds" in found.stderr


@pytest.mark.parametrize("name", ["termserver", "termserver@"])
def test_services_are_locked_down(tool: Tool, name: str) -> None:
    words = [tool("systemd-analyze"), "security", "--offline=true", "--threshold=20", "--no-pager", str(UNITS / f"{name}.service")]
    found = subprocess.run(words, capture_output=True, text=True, timeout=60)
    level = re.search(r"exposure level for \S+: (\S+)", found.stdout)
    assert level is not None, found
    print(f"{name}.service: exposure {level[1]}")
    assert (found.returncode, float(level[1]) <= 2.0) == (0, True)


def test_times_of_the_units_fit_the_server_s() -> None:
    timeouts, workers = Config().timeouts, Config().workers
    for name in ("termserver", "termserver@"):
        said = dict(line.split("=", 1) for line in (UNITS / f"{name}.service").read_text().splitlines() if "=" in line and line[0] != "#")
        assert int(said["TimeoutStopSec"]) > timeouts.graceful + 5
        assert int(said["TimeoutStartSec"]) > timeouts.startup
        assert int(said["WatchdogSec"]) > workers.heartbeat + 5


def test_the_example_s_configuration_is_one(tmp_path: Path, authority: Authority) -> None:
    pair, file = authority.make("unit", "localhost"), tmp_path / "app.toml"
    text = (UNITS / "app.toml").read_text()
    for before, after in {
        "myproject.asgi:application": APP,
        "/opt/app": str(HERE),
        "/run/termserver/": f"{tmp_path}/",
        "/run/credentials/termserver.service/tls.crt": pair.certificate,
        "/run/credentials/termserver.service/tls.key": pair.key,
        '"auto"': "2",
    }.items():
        assert before in text
        text = text.replace(before, after)
    file.write_text(text)
    with socket.create_server(("127.0.0.1", 0)) as v4, socket.create_server(("::1", 0), family=socket.AF_INET6) as v6:
        command = handing_over([*TERMSERVER, "--config", str(file)], v4, v6)
        with Server(command=command, pass_fds=(v4.fileno(), v6.fileno()), port=False) as server:
            with httpx.Client(verify=ssl.create_default_context(cafile=authority.path), trust_env=False, timeout=PATIENCE) as client:
                for listener in (v4, v6):
                    context = {"sni_hostname": "localhost"}
                    host, port = listener.getsockname()[:2]
                    url = f"https://[{host}]:{port}/" if ":" in host else f"https://{host}:{port}/"
                    assert client.get(url, extensions=context).json()["scheme"] == "https"
            assert "2 workers wanted" in ask("status", "--config", str(file))
            assert server.stop() == 0


# --- sockets from systemd's own hand ---


@contextlib.contextmanager
def activated(tool: Tool, addresses: list[str], names: str, *options: str) -> Iterator[Server]:
    """A server that systemd-socket-activate becomes at the first connection."""
    listen = [word for address in addresses for word in ("--listen", address)]
    command = [tool("systemd-socket-activate"), *listen, *([f"--fdname={names}"] if names else [])]
    with Server(command=[*command, *Server.words(APP, *options)], port=False) as server:
        yield server


@KINDS
def test_systemd_hands_over_two_sockets_by_name(tool: Tool, tmp_path: Path, workers: tuple[str, ...]) -> None:
    web, admin, control = (str(tmp_path / name) for name in ("web", "admin", "control"))
    options = ("--bind", "fd://web", "--bind", "fd://admin", "--control-socket", control, *workers)
    with activated(tool, [web, admin], "web:admin", *options) as server:
        wait_until(lambda: Path(admin).exists(), "the sockets")
        assert get(web)["server"] == [web, None]
        assert get(admin)["server"] == [admin, None]
        assert server.stop() == 0
        assert Path(web).exists()  # it is systemd's


@KINDS
def test_without_an_address_all_that_systemd_hands_over_is_served(tool: Tool, tmp_path: Path, workers: tuple[str, ...]) -> None:
    unix, port = str(tmp_path / "web"), free_port()
    with activated(tool, [unix, f"127.0.0.1:{port}"], "", "--control-socket", str(tmp_path / "control"), *workers) as server:
        wait_until(lambda: Path(unix).exists(), "the sockets")
        assert get(unix)["server"] == [unix, None]
        assert get(("127.0.0.1", port))["server"] == ["127.0.0.1", port]
        assert server.stop() == 0


def test_a_name_that_systemd_does_not_know_ends_it(tool: Tool, tmp_path: Path) -> None:
    unix = str(tmp_path / "web")
    with activated(tool, [unix], "web", "--bind", "fd://https") as server, socket.socket(socket.AF_UNIX) as client:
        wait_until(lambda: Path(unix).exists(), "the socket")
        client.connect(unix)
        assert server.wait() == 2
        assert "the service manager handed over no socket of this name (it handed over: web)" in server.log


@KINDS
def test_nothing_of_systemd_s_is_passed_on(tmp_path: Path, workers: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, Manager(tmp_path) as manager:
        command = handing_over(Server.words(APP, "--control-socket", str(tmp_path / "control"), *workers), listener)
        with Server(command=command, environment=manager.environment(60), pass_fds=[listener.fileno()], port=False) as server:
            manager.wait("READY=1")
            found = get(listener.getsockname(), "/environment")
            assert "PATH" in found
            assert [name for name in found if name.startswith(("LISTEN_", "NOTIFY_", "WATCHDOG_"))] == []
            assert server.stop() == 0


# --- what systemd is told ---


@dataclass
class Manager:
    """The service manager's end of the notification socket; `told` is each message's time and lines."""

    directory: Path
    told: list[tuple[float, list[str]]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.directory / "notify"))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RD)
        self._reader.join(PATIENCE)
        self._socket.close()

    def _read(self) -> None:
        while said := self._socket.recv(4_096):
            self.told.append((time.monotonic(), said.decode().split("\n")))

    def environment(self, watchdog: float = 0.0) -> dict[str, str]:
        asked = {"WATCHDOG_USEC": str(int(watchdog * 1e6))} if watchdog else {}
        return {"NOTIFY_SOCKET": str(self.directory / "notify"), **asked}

    def count(self, line: str) -> int:
        return sum(line in lines for _, lines in self.told)

    def wait(self, line: str, count: int = 1) -> list[str]:
        """Wait for the message with this line."""
        wait_until(lambda: self.count(line) >= count, f"{line} ({self.told})")
        return [lines for _, lines in self.told if line in lines][count - 1]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with Manager(tmp_path) as made:
        yield made


@KINDS
def test_systemd_is_told_of_start_and_stop(manager: Manager, tmp_path: Path, workers: tuple[str, ...]) -> None:
    options = ("--control-socket", str(tmp_path / "control"), *workers)
    with Server(APP, *options, environment=manager.environment()) as server:
        status = manager.wait("READY=1")
        assert status[1:] == (["STATUS=2 of 2 workers serve"] if workers else ["STATUS=serving"])
        assert server.ask("/")["pid"] > 0
        assert manager.count("STOPPING=1") == 0
        assert server.stop() == 0
    states = [lines[0] for _, lines in manager.told if not lines[0].startswith("STATUS=")]
    assert states == ["READY=1", "STOPPING=1"]
    assert ["STOPPING=1", "STATUS=finishing what runs"] in [lines for _, lines in manager.told]


def test_not_ready_before_every_worker_s_lifespan(manager: Manager, tmp_path: Path) -> None:
    options = ("--workers", "2", "--control-socket", str(tmp_path / "control"), "--timeout-startup", "2")
    server = Server("apps:slow_start", *options, environment=manager.environment())
    assert server.wait() == 3
    assert manager.count("READY=1") == 0


def test_systemd_is_told_of_a_reload_and_its_end(manager: Manager, tmp_path: Path) -> None:
    options = ("--workers", "2", "--control-socket", str(tmp_path / "control"))
    with Server(APP, *options, environment=manager.environment()) as server:
        manager.wait("READY=1")
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
        server.send_signal(signal.SIGHUP)
        since = manager.wait("RELOADING=1")[1]
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
        assert before <= int(since.removeprefix("MONOTONIC_USEC=")) <= after
        assert manager.wait("READY=1", 2)[1].startswith("STATUS=2 of 2 workers serve")
        assert server.stop() == 0
    states = [lines[0] for _, lines in manager.told if not lines[0].startswith("STATUS=")]
    assert states == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]


def test_a_server_without_workers_says_that_it_reloads_certificates(manager: Manager) -> None:
    with Server(APP, environment=manager.environment()) as server:
        manager.wait("READY=1")
        server.send_signal(signal.SIGHUP)
        server.wait_line("no certificates to reload")
        assert server.stop() == 0
    assert [lines[0] for _, lines in manager.told] == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]


def test_a_reload_that_fails_ends_too(manager: Manager, tmp_path: Path) -> None:
    (tmp_path / "passing.py").write_text("from deployed_apps import app\n")
    options = ("--app-dir", str(tmp_path), "--workers", "1", "--control-socket", str(tmp_path / "control"), "--bind", "127.0.0.1:0")
    words = [*TERMSERVER, "passing:app", *options]
    environment = manager.environment() | {"PYTHONPATH": f"{HERE}:{HERE.parent}"}
    with Server(command=words, environment=environment) as server:
        manager.wait("READY=1")
        (tmp_path / "passing.py").write_text("raise RuntimeError('a slip')\n")
        server.send_signal(signal.SIGHUP)
        manager.wait("RELOADING=1")
        manager.wait("READY=1", 2)
        assert server.ask("/")["pid"] > 0
        assert server.stop() == 0


def test_the_watchdog_is_fed_while_workers_answer(manager: Manager, tmp_path: Path) -> None:
    control = str(tmp_path / "control")
    with Server(APP, "--workers", "2", "--control-socket", control, environment=manager.environment(1.5)) as server:
        manager.wait("READY=1")
        manager.wait("WATCHDOG=1", manager.count("WATCHDOG=1") + 3)
        pids = workers_of(control)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: {state(pid) for pid in pids} == {"T"}, "stopped workers")
            since = time.monotonic() + 1.0  # what was said before then may still have been fed
            wait_until(lambda: time.monotonic() >= since + 2.5, "five feedings' time")
            fed = [at for at, lines in manager.told if lines == ["WATCHDOG=1"] and at > since]
            assert fed == []
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        manager.wait("WATCHDOG=1", manager.count("WATCHDOG=1") + 2)
        assert workers_of(control) == pids
        assert server.stop() == 0


def test_one_worker_that_answers_is_enough_for_the_watchdog(manager: Manager, tmp_path: Path) -> None:
    control = str(tmp_path / "control")
    with Server(APP, "--workers", "2", "--control-socket", control, environment=manager.environment(1.5)) as server:
        manager.wait("READY=1")
        pid = workers_of(control)[0]
        os.kill(pid, signal.SIGSTOP)
        try:
            manager.wait("WATCHDOG=1", manager.count("WATCHDOG=1") + 4)
            assert state(pid) == "T"
        finally:
            os.kill(pid, signal.SIGCONT)
        assert server.stop() == 0


def test_the_watchdog_is_fed_without_workers_while_the_loop_runs(manager: Manager) -> None:
    with Server(APP, environment=manager.environment(0.6)) as server:
        manager.wait("WATCHDOG=1", 4)
        assert server.stop() == 0


def workers_of(control: str) -> list[int]:
    return [worker["pid"] for worker in json.loads(ask("status", "--json", "--control-socket", control))["workers"]]


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


# MemoryDenyWriteExecute=yes, by the kernel's own switch (PR_SET_MDWE, Linux 6.3): no memory that was written becomes a program.
DENY = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(65, 1, 0, 0, 0):
    sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
os.execv(sys.argv[1], sys.argv[1:])
"""


@KINDS
def test_memory_that_was_written_need_not_be_executable(tmp_path: Path, workers: tuple[str, ...]) -> None:
    tried = subprocess.run([sys.executable, "-c", DENY, sys.executable, "-c", "1"], capture_output=True, text=True, timeout=60)
    if tried.returncode != 0:
        pytest.skip(f"this kernel has no PR_SET_MDWE ({tried.stderr.strip()})")
    words = Server.words("socket_apps:app", "--bind", "127.0.0.1:0", "--control-socket", str(tmp_path / "control"), *workers)
    with Server(command=[sys.executable, "-c", DENY, *words]) as server:
        with connect(f"ws://127.0.0.1:{server.port}/echo", open_timeout=PATIENCE) as client:
            client.send("masked, compressed, checked " * 100)
            assert client.recv(PATIENCE) == "masked, compressed, checked " * 100
        assert server.stop() == 0


def calls(tool: Tool, *names: str) -> set[str]:
    """Give the system calls that systemd's groups hold, those of the groups inside them included."""
    found: set[str] = set()
    for name in names:
        words = [tool("systemd-analyze"), "syscall-filter", "--no-pager", name]
        said = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()[1:]
        members = {line.strip() for line in said} - {""}
        inner = [member for member in members if member.startswith("@")]
        found |= {member for member in members if member[0] not in "@#"} | (calls(tool, *inner) if inner else set())
    return found


def test_no_system_call_is_made_that_the_units_filter(tool: Tool, tmp_path: Path) -> None:
    trace, control = tmp_path / "trace", str(tmp_path / "control")
    tried = subprocess.run([tool("strace"), "-o", str(trace), "true"], capture_output=True, text=True, timeout=60)
    if tried.returncode != 0:
        pytest.skip(f"processes may not be traced here: {tried.stderr.strip()}")
    lines = (UNITS / "termserver.service").read_text().splitlines()
    assert [line for line in lines if line.startswith("SystemCallFilter=")] == [
        "SystemCallFilter=@system-service", "SystemCallFilter=~@privileged @resources",
    ]  # fmt: skip
    words = Server.words(APP, "--bind", "127.0.0.1:0", "--workers", "2", "--control-socket", control)
    with Server(command=["strace", "-f", "-qq", "-o", str(trace), *words]) as server:
        assert server.ask("/")["pid"] > 0
        ask("reload", "--control-socket", control)
        ask("stop", "--control-socket", control)
        assert server.wait() == 0
    made = set(re.findall(r"(?m)^\d+ +(\w+)\(", trace.read_text(errors="replace")))
    assert {"accept4", "socketpair", "wait4"} <= made
    assert made - calls(tool, "@system-service", "@default") == set()
    assert made & (calls(tool, "@privileged", "@resources") - calls(tool, "@default")) == set()


# --- what an administrator asks ---


@pytest.mark.skipif(os.geteuid() != 0, reason="root's question")
def test_root_may_ask_a_service_that_has_a_user_of_its_own(tmp_path: Path) -> None:
    place = tmp_path / "run"
    place.mkdir(mode=0o700)
    control = str(place / "control")
    with Server(APP, "--workers", "1", "--control-socket", control) as server:
        server.wait_line("is ready")
        os.chown(place, 10_001, 10_001)
        assert "1 workers wanted" in ask("status", "--control-socket", control)
        assert server.stop() == 0


def test_a_configuration_with_sockets_by_name_can_be_checked_by_hand(tmp_path: Path) -> None:
    (tmp_path / "app.toml").write_text(f'application = "{APP}"\napp-dir = "{HERE}"\nbind = ["fd://https"]\n')
    assert "The configuration is fine." in ask("check", "--config", str(tmp_path / "app.toml"))


# --- restarts (R9) ---


@dataclass
class Visitor:
    """Connects again and again, each connection in its turn, and notes how it fared."""

    address: tuple[str, int]
    waits: list[float] = field(default_factory=list)
    faults: list[Exception] = field(default_factory=list)
    pids: set[int] = field(default_factory=set)
    stop: bool = False

    def visit(self) -> None:
        while not self.stop:
            began = time.monotonic()
            try:
                self.pids.add(get(self.address)["pid"])
            except Exception as error:
                self.faults.append(error)
            self.waits.append(time.monotonic() - began)


@dataclass
class Restarts:
    """What became of the connections during ten restarts of a service whose socket is held."""

    waits: list[float]
    boot: float
    faults: list[Exception]
    pids: set[int]

    def __str__(self) -> str:
        refused = sum(isinstance(fault, ConnectionRefusedError) for fault in self.faults)
        return (
            f"{len(self.waits)} connections, {refused} refused, {len(self.faults) - refused} cut; "
            f"longest {max(self.waits):.2f} s, start-up {self.boot:.2f} s at most"
        )


@pytest.fixture(scope="module", params=[(), ("--workers", "2")], ids=["one process", "two workers"])
def restarts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Restarts:
    options = ("--no-access-log", "--control-socket", str(tmp_path_factory.mktemp("restarts") / "control"), *request.param)
    boots = []
    with socket.create_server(("127.0.0.1", 0), backlog=2_048) as listener:
        command = handing_over(Server.words(APP, *options), listener)
        visitors = [Visitor(listener.getsockname()) for _ in range(4)]
        threads = [threading.Thread(target=visitor.visit, daemon=True) for visitor in visitors]
        for turn in range(11):
            began = time.monotonic()
            with Server(command=command, pass_fds=[listener.fileno()], port=False) as server:
                boots.append(time.monotonic() - began)
                for thread in threads if turn == 0 else []:
                    thread.start()
                served = len(visitors[0].waits)
                wait_until(lambda served=served: len(visitors[0].waits) > served + 5, "visits")
                if turn == 10:
                    for visitor in visitors:
                        visitor.stop = True
                    for thread in threads:
                        thread.join(PATIENCE)
                assert server.stop() == 0
    waits = [wait for visitor in visitors for wait in visitor.waits]
    faults = [fault for visitor in visitors for fault in visitor.faults]
    found = Restarts(waits, max(boots), faults, {pid for visitor in visitors for pid in visitor.pids})
    print(found)
    return found


def test_ten_restarts_refuse_nobody(restarts: Restarts) -> None:
    print(restarts)
    assert [fault for fault in restarts.faults if isinstance(fault, ConnectionRefusedError)] == []
    assert len(restarts.pids) >= 11


# Not strict: what is cut was accepted in the very turn of the loop in which the server began to stop.
def test_ten_restarts_cut_nobody(restarts: Restarts) -> None:
    assert restarts.faults == []
