"""Workers under a supervisor, as real processes (spec reliability R1-R6, R15, R28, R29)."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from certificates import Authority
from e2e.server import PATIENCE, Server, wait_until
from termserver.errors import ControlError
from termserver.process.control import ask

SECOND = ("--timeout-graceful-shutdown", "1")


class Supervised(Server):
    """A supervisor with two workers, unless the options say otherwise."""

    def __init__(self, application: str, control: Path, *options: str, **more: Any) -> None:
        """`control`: where its control socket is to be."""
        self.control = control
        words = ["--control-socket", str(control), "--no-access-log", *SECOND, *options]
        super().__init__(application, *([] if "--workers" in options else ["--workers", "2"]), *words, **more)

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Ask it, as a script would."""
        line = [sys.executable, "-m", "termserver", *words, "--control-socket", str(self.control)]
        return subprocess.run(line, capture_output=True, text=True, timeout=60)

    def facts(self) -> dict[str, Any]:
        """Ask how it is."""
        return list(ask(self.control, "status", PATIENCE))[-1]

    def wait_workers(self, count: int = 2, *, without: Sequence[int] = ()) -> list[int]:
        """Wait until so many serve and no more is under way; give their process ids."""
        found: list[int] = []

        def there() -> bool:
            try:
                facts = self.facts()
            except ControlError:
                assert self.process.poll() is None, self.log
                return False  # it does not listen yet
            found[:] = [worker["pid"] for worker in facts["workers"]]
            stages = [worker["stage"] for worker in facts["workers"]]
            return facts["state"] == "serving" and stages == ["ready"] * count and not set(found) & set(without)

        wait_until(there, f"{count} workers")
        return found

    def wait_workers_draining(self) -> None:
        """Wait until an old worker was told to end, or has ended."""
        wait_until(lambda: [each["stage"] for each in self.facts()["workers"]] in (["draining", "ready"], ["ready"]), "a worker to end")

    def who(self, path: str = "/") -> int:
        """Give the process id of the worker that answers."""
        found: int = self.get(path).json()
        return found

    def children(self) -> list[tuple[int, str]]:
        """Give its children with their states."""
        found = []
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if entry.isdecimal():
                    rest = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                    if int(rest[1]) == self.pid:
                        found.append((int(entry), rest[0]))
        return found


@pytest.fixture
def control(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.fixture
def serve(control: Path) -> Callable[..., Supervised]:
    """`serve("module:app", …options)`: a supervisor whose control socket is the test's."""

    def start(application: str = "workerapps:app", *options: str, **more: Any) -> Supervised:
        return Supervised(application, control, *options, **more)

    return start


Serve = Callable[..., Supervised]


def gone(pid: int) -> bool:
    """Whether a process has ended (an orphan may wait for its new parent to reap it)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def free(port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


# --- load ---


@dataclass
class Load:
    """Connections that ask again and again. A kept connection that ends before a byte came is opened anew, as clients do."""

    port: int
    served: int = 0
    failures: list[str] = field(default_factory=list)
    pids: set[int] = field(default_factory=set)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def keep_asking(self, *, keep: bool) -> None:
        """Ask until it is stopped."""
        while not self.stop.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError as error:
                self.failures.append(f"connect: {error!r}")
                return
            try:
                await self._ask_on(reader, writer, keep=keep)
            finally:
                writer.close()

    async def _ask_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, keep: bool) -> None:
        asked = 0
        while not self.stop.is_set():
            try:
                writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % (b"" if keep else b"Connection: close\r\n"))
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            except (OSError, asyncio.IncompleteReadError) as error:
                if not asked or getattr(error, "partial", b""):
                    self.failures.append(f"request {asked}: {error!r}")
                return
            self.served += 1
            asked += 1
            self.pids.add(json.loads(body))
            if b"connection: close" in head.lower():
                return


def under_load(server: Supervised, act: Callable[[], object]) -> Load:
    """Do something while eight connections ask."""

    async def main() -> Load:
        load = Load(server.port)
        tasks = [asyncio.create_task(load.keep_asking(keep=place % 2 == 0)) for place in range(8)]
        while load.served < 50:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(act)
        enough = load.served + 50
        while load.served < enough and not load.failures:
            await asyncio.sleep(0.01)
        load.stop.set()
        await asyncio.gather(*tasks)
        return load

    return asyncio.run(main())


# --- serving ---


def test_two_workers_serve_and_commands_ask_them(serve: Serve) -> None:
    with serve() as server:
        pids = server.wait_workers()
        wait_until(lambda: server.who() == pids[0], "the first to answer")
        wait_until(lambda: server.who() == pids[1], "the second to answer")
        assert "2 workers wanted" in server.command("status").stdout
        assert server.command("healthcheck").stdout == "healthy: 2 of 2 workers serve\n"
        assert server.command("scale", "3").stdout == "3 workers serve\n"
        server.send_signal(signal.SIGTTOU)
        server.wait_workers(2)
        server.send_signal(signal.SIGTTIN)
        server.wait_workers(3)
        asked = server.command("stop")
        assert (asked.returncode, asked.stdout) == (0, "stopped\n")
        assert server.wait() == 0
        wait_until(lambda: free(server.port), "the port to be free")
        assert not server.control.exists()
        asked = server.command("healthcheck")
        assert asked.returncode == 1
        assert "no server answers" in asked.stderr


# --- R1: reload ---


@pytest.mark.parametrize("how", ["signal", "command"])
def test_r1_a_reload_under_load_fails_no_request(serve: Serve, how: str) -> None:
    with serve() as server:
        before = server.wait_workers()

        def act() -> None:
            if how == "signal":
                server.send_signal(signal.SIGHUP)
            else:
                assert server.command("reload").stdout == "reloaded: 2 new workers serve\n"
            server.wait_workers(without=before)

        load = under_load(server, act)
        assert load.failures == []
        assert len(load.pids) >= 3
        assert server.stop() == 0


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An application that can be edited."""
    directory = tmp_path / "site"
    directory.mkdir()
    (directory / "site_app.py").write_text(SITE)
    return directory


SITE = textwrap.dedent("""
    async def app(scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"1"})
        else:
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
""")


def site_options(site: Path) -> tuple[str, ...]:
    return "--app-dir", str(site)


def test_r1_an_application_that_does_not_import_leaves_the_old_workers(serve: Serve, site: Path) -> None:
    with serve("site_app:app", *site_options(site)) as server:
        before = server.wait_workers()
        (site / "site_app.py").write_text("raise ValueError('not today')")
        asked = server.command("reload")
        assert asked.returncode == 1
        assert "not reloaded, the old workers go on" in asked.stderr
        assert "not today" in asked.stderr
        assert server.wait_workers() == before
        assert server.get("/").body == b"1"
        (site / "site_app.py").write_text(SITE.replace('b"1"', 'b"2, and longer"'))
        assert server.command("reload").returncode == 0
        assert server.get("/").body == b"2, and longer"


def test_a_reload_takes_the_configuration_anew(serve: Serve, tmp_path: Path) -> None:
    file, unix = tmp_path / "termserver.toml", tmp_path / "web.sock"
    file.write_text('workers = 1\nbind = ["127.0.0.1:0"]\n')
    words = [*Server.words("workerapps:app"), "--config", str(file), "--control-socket", str(tmp_path / "control.sock"), *SECOND]
    with Supervised("", tmp_path / "control.sock", command=words) as server:
        (before,) = server.wait_workers(1)
        file.write_text(f'workers = 3\nbind = ["127.0.0.1:0", "unix:{unix}"]\n')
        asked = server.command("reload")
        assert asked.stdout == "reloaded: 3 new workers serve\n", asked.stderr
        assert before not in server.wait_workers(3)
        assert server.who()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(unix))
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        file.write_text("workers = 'many'\n")
        asked = server.command("reload")
        assert asked.returncode == 1
        assert "workers" in asked.stderr
        assert server.stop() == 0
        assert not unix.exists()


def test_r28_a_reload_takes_certificates_anew_and_a_bad_one_keeps_the_old(serve: Serve, authority: Authority, tmp_path: Path) -> None:
    old, new = authority.make("workers-old", "127.0.0.1"), authority.make("workers-new", "127.0.0.1")
    pair = tmp_path / "cert.pem", tmp_path / "key.pem"

    def put(certificate: str, key: str) -> None:
        pair[0].write_bytes(Path(certificate).read_bytes())
        pair[1].write_bytes(Path(key).read_bytes())

    def shown(server: Server) -> str:
        plain = socket.create_connection((server.host, server.port))
        with plain, authority.client().wrap_socket(plain, server_hostname="127.0.0.1") as client:
            return ssl.DER_cert_to_PEM_cert(client.getpeercert(binary_form=True) or b"")

    put(old.certificate, old.key)
    with serve("workerapps:app", "--certfile", str(pair[0]), "--keyfile", str(pair[1])) as server:
        server.wait_workers()
        assert shown(server) == old.pem
        put(new.certificate, new.key)
        assert server.command("reload").returncode == 0
        assert shown(server) == new.pem
        put(old.certificate, new.key)
        assert server.command("reload").returncode == 1
        assert shown(server) == new.pem


def talk(wire: socket.socket, act: Callable[[], Any], coming: ssl.MemoryBIO, going: ssl.MemoryBIO) -> Any:
    """Carry bytes until TLS has done something."""
    while True:
        try:
            return act()
        except ssl.SSLWantReadError:
            wire.sendall(going.read())
            coming.write(wire.recv(65_536) or pytest.fail("the connection was closed"))
        finally:
            if going.pending:
                wire.sendall(going.read())


def test_r28_a_handshake_that_is_under_way_at_a_reload_succeeds(serve: Serve, authority: Authority) -> None:
    pair = authority.make("workers-handshake", "127.0.0.1")
    coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = authority.client().wrap_bio(coming, going, server_hostname="127.0.0.1")
    with serve("workerapps:app", "--workers", "1", "--certfile", pair.certificate, "--keyfile", pair.key) as server:
        (pid,) = server.wait_workers(1)
        files = len(os.listdir(f"/proc/{pid}/fd"))
        with server.connect() as client:
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            hello = going.read()
            client.send(hello[:100])
            wait_until(lambda: len(os.listdir(f"/proc/{pid}/fd")) > files, "the worker to accept")
            server.send_signal(signal.SIGHUP)
            server.wait_line("Worker 2 is ready")
            server.wait_workers_draining()
            client.send(hello[100:])
            talk(client.socket, tls.do_handshake, coming, going)
            tls.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert talk(client.socket, tls.read, coming, going).startswith(b"HTTP/1.1 200")


# --- R10: upgrade in place ---


def test_r10_an_upgrade_in_place_fails_no_request(serve: Serve) -> None:
    with serve() as server:
        before = server.wait_workers()

        def act() -> None:
            server.send_signal(signal.SIGUSR2)
            server.wait_workers(without=before)

        load = under_load(server, act)
        assert load.failures == []
        assert len(load.pids) >= 3
        assert "Upgraded to termserver" in server.log
        assert server.facts()["pid"] == server.pid  # it became its newer self
        assert server.command("reload").returncode == 0  # which can do what the old one could
        assert server.stop() == 0
        wait_until(lambda: free(server.port), "the port to be free")


def test_r10_nothing_is_upgraded_to_what_cannot_serve(serve: Serve, site: Path) -> None:
    with serve("site_app:app", *site_options(site)) as server:
        before = server.wait_workers()
        (site / "site_app.py").write_text("raise ValueError('not today')")
        server.send_signal(signal.SIGUSR2)
        wait_until(lambda: "Not upgraded, everything goes on as before" in server.log, "the refusal")
        assert server.wait_workers() == before
        assert server.get("/").body == b"1"
        assert server.stop() == 0


# --- development ---


def test_source_files_that_change_reload(serve: Serve, site: Path) -> None:
    pytest.importorskip("watchfiles")
    with serve("site_app:app", *site_options(site), "--workers", "1", "--reload") as server:
        (before,) = server.wait_workers(1)
        (site / "site_app.py").write_text(SITE.replace('b"1"', 'b"2, and longer"'))
        server.wait_line("Changed: ")
        server.wait_workers(1, without=[before])
        assert server.get("/").body == b"2, and longer"


# --- R2, R3: workers that die or hang ---


def test_r2_a_killed_worker_is_replaced_and_nothing_is_left_of_it(serve: Serve) -> None:
    with serve() as server:
        pids, files = server.wait_workers(), len(os.listdir(f"/proc/{server.pid}/fd"))
        for _ in range(3):
            with server.connect() as kept:
                kept.get("/slow?0")
                other = json.loads(kept.response().body)
                victim = next(pid for pid in pids if pid != other)
                kept.get("/slow?0.2")
                os.kill(victim, signal.SIGKILL)
                assert json.loads(kept.response().body) == other
            pids = server.wait_workers(without=[victim])
            assert other in pids
        assert [state for _, state in server.children() if state == "Z"] == []
        assert len(server.children()) == 2
        wait_until(lambda: len(os.listdir(f"/proc/{server.pid}/fd")) <= files, "as many descriptors as before")
        assert "by signal 9 (SIGKILL)" in server.log


def test_r3_a_hung_worker_says_where_and_is_replaced(serve: Serve) -> None:
    with serve("workerapps:app", "--timeout-worker", "1") as server:
        server.wait_workers()
        with server.connect() as client:
            client.get("/hang")
            server.wait_line("gave no sign of life")
            server.wait_line("in hang_here")
            server.wait_line("by signal 6 (SIGABRT)")
        server.wait_workers()


def test_r3_a_stopped_worker_is_replaced(serve: Serve) -> None:
    with serve("workerapps:app", "--timeout-worker", "0.5") as server:
        victim, other = server.wait_workers()
        os.kill(victim, signal.SIGSTOP)
        server.wait_line("does not end: killed")
        assert other in server.wait_workers(without=[victim])


# --- R4: the supervisor dies ---


@pytest.mark.parametrize("hung", [False, True], ids=["idle", "hung"])
def test_r4_without_its_supervisor_a_worker_ends(serve: Serve, hung: bool) -> None:
    with serve() as server:
        pids = server.wait_workers()
        with server.connect() as client:
            if hung:
                client.get("/hang")
            server.process.kill()
            wait_until(lambda: all(map(gone, pids)), "the workers to end")
        wait_until(lambda: free(server.port), "the port to be free")


# --- R5: crash loops ---


@pytest.mark.parametrize(
    ("application", "starts", "says"),
    [
        pytest.param("nowhere:app", 1, "nowhere", id="does not import"),
        pytest.param("workerapps:no_lifespan", 1, "it cannot begin on purpose", id="raises in lifespan"),
        pytest.param("workerapps:suicidal", 5, "workers end before they are ready", id="kills itself"),
    ],
)
def test_r5_what_cannot_begin_is_given_up(serve: Serve, application: str, starts: int, says: str) -> None:
    server = serve(application, "--lifespan", "on")
    assert server.wait() == 3
    assert server.log.count(" starts (pid ") == starts
    assert says in server.log
    assert server.log.count("Traceback") <= 1
    assert not server.control.exists()


# --- R15, R29: stopping ---


def test_r15_an_application_that_ignores_cancellation_does_not_keep_it(serve: Serve) -> None:
    with serve("workerapps:app", "--workers", "1", "--application-close-timeout", "0.1") as server:
        server.wait_workers(1)
        with server.connect() as client:
            client.get("/stubborn")
            wait_until(lambda: server.facts()["workers"][0]["running"] == 1, "the call to run")
            assert server.stop() == 0


@pytest.mark.parametrize(
    ("signals", "code"),
    [
        pytest.param([signal.SIGTERM], 0, id="TERM"),
        pytest.param([signal.SIGINT], 0, id="INT"),
        pytest.param([signal.SIGQUIT], 131, id="QUIT"),
        pytest.param([signal.SIGHUP, signal.SIGTERM], 0, id="TERM during a reload"),
    ],
)
def test_r29_signals_end_it(serve: Serve, signals: list[signal.Signals], code: int) -> None:
    with serve() as server:
        pids = server.wait_workers()
        for number in signals:
            server.send_signal(number)
        assert server.wait() == code
        wait_until(lambda: all(map(gone, pids)) and free(server.port), "the port to be free")


@pytest.mark.parametrize(("second", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGQUIT, 131)])
def test_r29_a_second_signal_ends_it_at_once(serve: Serve, second: signal.Signals, code: int) -> None:
    with serve("workerapps:app", "--timeout-graceful-shutdown", "600") as server, server.connect() as client:
        server.wait_workers()
        client.get("/slow?500")
        wait_until(lambda: sum(worker["running"] for worker in server.facts()["workers"]) == 1, "the request to run")
        server.send_signal(signal.SIGTERM)
        server.wait_line("finishing what runs")
        server.send_signal(second)
        assert server.wait() == code
        wait_until(lambda: free(server.port), "the port to be free")


def test_r29_sigterm_while_workers_start(serve: Serve) -> None:
    server = serve("workerapps:slow_start", "--lifespan", "on")
    server.wait_line("starting slowly")
    server.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    assert not server.control.exists()


def test_the_terminals_interrupt_is_the_supervisors_to_act_on(serve: Serve) -> None:
    """A terminal sends SIGINT to every process of the group."""
    with serve() as server:
        pids = server.wait_workers()
        for pid in pids:
            os.kill(pid, signal.SIGINT)
        for pid in pids:
            os.kill(pid, signal.SIGHUP)
        assert server.who() in pids
        assert "SIGINT" not in server.log
        assert server.wait_workers() == pids


# --- recycling ---


@pytest.mark.parametrize(
    ("option", "reason", "path"),
    [
        pytest.param(("--max-requests", "100"), "it has served", "/", id="requests"),
        pytest.param(("--max-worker-age", "2"), "s old", "/", id="age"),
        pytest.param(("--max-worker-memory", "300M"), "MiB", "/hoard?400", id="memory"),
    ],
)
def test_a_worn_out_worker_is_replaced_without_a_failed_request(serve: Serve, option: tuple[str, str], reason: str, path: str) -> None:
    with serve("workerapps:app", *option) as server:
        server.wait_workers()

        def act() -> None:
            server.get(path)
            line = server.wait_line("is replaced: ")
            assert reason in line
            server.wait_line("has ended with exit code 0")

        assert under_load(server, act).failures == []


def test_sigusr1_opens_the_log_of_every_worker_anew(serve: Serve, tmp_path: Path) -> None:
    log, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    with serve("workerapps:app", "--access-log", str(log)) as server:
        pids = server.wait_workers()
        log.rename(moved)
        server.send_signal(signal.SIGUSR1)

        def all_moved() -> bool:
            opened = [os.readlink(f"/proc/{pid}/fd/{number}") for pid in pids for number in os.listdir(f"/proc/{pid}/fd")]
            return opened.count(str(log)) == 2 and str(moved) not in opened

        wait_until(all_moved, "both to write to the new file")


# --- R6: WebSockets ---


@contextlib.contextmanager
def sockets(server: Supervised, count: int) -> Iterator[list[ClientConnection]]:
    """Open WebSockets."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(connect(f"ws://127.0.0.1:{server.port}/", compression=None)) for _ in range(count)]


def close_code(client: ClientConnection) -> int | None:
    """Read to the end; give the code it ended with."""
    with contextlib.suppress(Exception):
        while True:
            client.recv(timeout=30)
    return client.close_code


def test_r6_websockets_are_told_to_come_back_at_a_reload(serve: Serve) -> None:
    with serve() as server:
        before = server.wait_workers()
        with sockets(server, 6) as clients:
            assert {int(client.recv(timeout=30)) for client in clients} <= set(before)
            assert server.command("reload").returncode == 0
            assert [close_code(client) for client in clients] == [1012] * 6
            with sockets(server, 1) as (again,):
                assert int(again.recv(timeout=30)) not in before


def test_r6_websockets_are_told_that_it_goes_away_at_a_stop(serve: Serve) -> None:
    with serve() as server:
        server.wait_workers()
        with sockets(server, 6) as clients:
            server.send_signal(signal.SIGTERM)
            assert [close_code(client) for client in clients] == [1001] * 6
        assert server.wait() == 0
