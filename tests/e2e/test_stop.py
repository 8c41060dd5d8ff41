"""Starting and stopping a real process: signals, exit codes, what is finished and what is cut (spec reliability R8, R15, R29)."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.server import HERE, Server, wait_until

QUIET = ("apps:app", "--no-access-log")


# --- graceful stop ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_an_idle_server_with_0(number: signal.Signals) -> None:
    with Server(*QUIET) as server:
        assert server.stop(number) == 0
        assert "Traceback" not in server.log


def test_slow_response_is_finished_idle_connection_closed_new_one_refused() -> None:
    options = ("--application-close-timeout", "0.1")
    with Server(*QUIET, *options) as server, server.connect() as busy, server.connect() as idle, server.connect() as fresh:
        idle.get("/")
        idle.response()
        busy.get("/hold-body")
        busy.read_until(b"first ")
        with server.connect() as waiting:
            waiting.get("/hold")
            server.wait_event("held", 2)
            server.send_signal(signal.SIGTERM)
            assert idle.rest().raw == b""
            fresh.get("/")  # a request that was on its way when the signal came is answered
            assert fresh.rest().only["connection"] == "close"
            with pytest.raises(ConnectionRefusedError):
                server.connect()
            busy.get("/")  # pipelined into a draining connection: not answered
            waiting.get("/")
            assert server.process.poll() is None
            waiting.reset()
        busy.reset()
        assert server.wait() == 0


def test_responses_in_hand_end_whole_and_say_close(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with Server("apps:gated", "--no-access-log", environment={"GATE": str(gate)}) as server:
        clients = [server.connect() for _ in range(200)]
        for client in clients:
            client.get("/")
        server.wait_line("in hand 200", out=True)
        server.send_signal(signal.SIGTERM)
        server.wait_line("finishing what runs")
        wait_until(lambda: refused(server), "the port to close")
        gate.write_bytes(b"open")
        for client in clients:
            answer = client.rest()
            assert (answer.only.status, answer.only.body, answer.only["connection"]) == (200, b"x" * 100_000, "close")
            assert not answer.reset
            client.socket.close()
        assert server.wait() == 0


def refused(server: Server) -> bool:
    try:
        server.connect().socket.close()
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_second_signal_ends_at_once(number: signal.Signals, code: int) -> None:
    with Server(*QUIET) as server, server.connect() as client:
        client.get("/silent")
        wait_until(lambda: server.seen() == ["GET /silent"], "the request")
        server.send_signal(number)
        server.wait_line("a second signal ends at once")
        server.send_signal(number)
        assert server.wait() == code
        assert "ending at once" in server.log


def test_call_that_never_ends_is_cancelled_at_the_end_of_the_grace_period() -> None:
    with Server(*QUIET, "--timeout-graceful-shutdown", "0.5") as server, server.connect() as client:
        client.get("/silent")
        wait_until(lambda: server.seen() == ["GET /silent"], "the request")
        assert server.stop() == 0
        assert client.rest().reset
        assert "left at the end of the grace period" in server.log
        assert "Traceback" not in server.log


def test_listener_is_told_before_the_end_of_the_grace_period(tmp_path: Path) -> None:
    with Server("apps:told_end", "--no-access-log", "--timeout-graceful-shutdown", "3") as server, server.connect() as client:
        client.get("/listen")
        wait_until(lambda: "GET /listen" in server.seen(), "the request")
        server.send_signal(signal.SIGTERM)
        server.wait_line("request ends /listen", out=True)
        client.rest()
        client.socket.close()
        assert server.wait() == 0
        assert "grace period" not in server.log


def test_call_that_ignores_cancellation_is_abandoned_by_name() -> None:
    options = ("--timeout-graceful-shutdown", "0.3", "--application-cancel-timeout", "0.2")
    with Server(*QUIET, *options) as server, server.connect() as client:
        client.get("/stubborn")
        server.wait_event("stubborn")
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 15
        assert "GET /stubborn: still running after it was cancelled: abandoned" in server.log


def test_half_sent_head_does_not_hold_up_the_end() -> None:
    with Server(*QUIET, "--timeout-graceful-shutdown", "0.5") as server, server.connect() as client:
        client.send(b"GET / HTT")
        server.get("/")
        assert server.stop() == 0


# --- lifespan ---


def test_lifespan_ends_after_the_last_request() -> None:
    with Server("apps:told_end", "--no-access-log") as server, server.connect() as client:
        client.get("/talk")
        client.read_until(b"data")
        server.send_signal(signal.SIGTERM)
        server.wait_line("finishing")
        client.reset()
        assert server.wait() == 0
        assert [line for line in server.out if "ends" in line][-1] == "lifespan ends\n"


def test_lifespan_that_does_not_end_is_given_up() -> None:
    options = ("--timeout-graceful-shutdown", "0.3", "--application-cancel-timeout", "0.2")
    with Server("apps:slow_end", "--no-access-log", *options) as server:
        assert server.stop() == 0
        assert "shutdown asked for" in server.written
        assert "did not shut down" in server.log


def test_signal_during_start_up_ends_it() -> None:
    server = Server("apps:slow_start", "--no-access-log")
    server.wait_line("starting", out=True)
    server.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    assert "Traceback" not in server.log
    assert "Listening" not in server.log


def test_second_signal_during_start_up_ends_at_once() -> None:
    server = Server("apps:stubborn_start", "--no-access-log")
    server.wait_line("starting", out=True)
    server.send_signal(signal.SIGINT)
    server.wait_line("a second signal")
    server.send_signal(signal.SIGINT)
    assert server.wait() in {0, 130}


def test_start_up_that_takes_too_long_ends_with_3() -> None:
    server = Server("apps:slow_start", "--no-access-log", "--timeout-startup", "0.2")
    assert server.wait() == 3
    assert server.log.splitlines()[-1] == "termserver: error: the application did not start within 0.2 s"
    assert "Listening" not in server.log


def test_application_that_fails_to_start_ends_with_3() -> None:
    server = Server("apps:bad_start", "--no-access-log")
    assert server.wait() == 3
    assert server.log.splitlines()[-1] == "termserver: error: the application failed to start: no database"
    assert "Traceback" not in server.log


# --- one line and an exit code ---


@pytest.mark.parametrize(("words", "code", "line"), [
    pytest.param(["apps:app", "--nonsense"], 2, "--nonsense", id="unknown option"),
    pytest.param(["apps:app", "--limit-field", "many"], 2, "many", id="bad value"),
    pytest.param(["apps:app", "--bind", "127.0.0.1:99999"], 2, "99999", id="bad port"),
    pytest.param(["apps:missing"], 3, "missing", id="no such attribute"),
    pytest.param(["nothing:app"], 3, "nothing", id="no such module"),
    pytest.param(["apps"], 3, "module:attribute", id="no attribute"),
    pytest.param(["apps:no_callable"], 3, "not callable", id="not callable"),
    pytest.param(["apps:app", "--fd", "99"], 1, "99", id="no such descriptor"),
    pytest.param(["apps:app", "--endpoint", "nonsense:1"], 1, "nonsense", id="no such endpoint"),
    pytest.param(["apps:app", "--bind", "no-such-host.invalid:0"], 1, "no-such-host.invalid", id="no such host"),
    pytest.param(["apps:app", "--unix-socket", "/nowhere/at/all"], 1, "/nowhere/at/all", id="no such directory"),
])  # fmt: skip
def test_what_cannot_be_is_said_in_one_line(words: list[str], code: int, line: str) -> None:
    found = subprocess.run([sys.executable, "-m", "termserver", *words], cwd=HERE, capture_output=True, text=True, timeout=60)
    last = found.stderr.splitlines()[-1]
    assert found.returncode == code, found.stderr
    assert last.startswith("termserver: error: ")
    assert line in last
    assert "Traceback" not in found.stderr


def test_port_in_use_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = subprocess.run(
            [sys.executable, "-m", "termserver", "apps:app", "--bind", f"127.0.0.1:{port}"],
            cwd=HERE,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert found.returncode == 1
    assert found.stderr.splitlines()[-1] == f"termserver: error: cannot listen on 127.0.0.1:{port}: Address already in use"
    assert "Traceback" not in found.stderr


def test_port_is_free_again_at_once() -> None:
    with Server(*QUIET) as server:
        server.get("/")
        port = server.port
        assert server.stop() == 0
    with Server("apps:app", "--no-access-log", "--bind", f"127.0.0.1:{port}", port=False) as server:
        assert server.port == port
        assert server.get("/").status == 200


# --- embedding ---


def script(text: str) -> Callable[[], Server]:
    return lambda: Server(command=[sys.executable, "-c", textwrap.dedent(text)])


def test_run_from_a_program() -> None:
    started = script("""
        import sys, termserver, apps
        sys.exit(termserver.run(apps.app, bind="127.0.0.1:0", no_access_log=True))
    """)
    with started() as server:
        assert server.get("/").body == b"hello"
        assert server.stop() == 0


def test_serve_inside_an_asyncio_program() -> None:
    started = script("""
        import asyncio, apps, termserver

        async def main():
            addresses = asyncio.get_running_loop().create_future()
            task = asyncio.ensure_future(termserver.serve(apps.app, bind="127.0.0.1:0", no_access_log=True, ready=addresses.set_result))
            [(host, port)] = await addresses
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n")
            print((await reader.read()).decode().splitlines()[-1])
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                print("cancelled")
            print(apps.events, len(asyncio.all_tasks()), flush=True)

        asyncio.run(main())
    """)
    server = started()
    assert server.wait() == 0, server.log
    assert server.out == ["hello\n", "cancelled\n", "['shutdown'] 1\n"], server.log
    assert server.log == ""


def test_serve_raises_where_it_cannot_listen() -> None:
    started = script("""
        import asyncio, apps, socket, termserver

        taken = socket.create_server(("127.0.0.1", 0))
        try:
            asyncio.run(termserver.serve(apps.app, bind=f"127.0.0.1:{taken.getsockname()[1]}", no_access_log=True))
        except Exception as error:
            print(type(error).__name__)
    """)
    server = started()
    assert server.wait() == 0, server.log
    assert server.out == ["ListenError\n"]
    assert "Traceback" not in server.log
