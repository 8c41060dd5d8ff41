"""The supervisor with workers that serve nothing (`fakeworker.py`): what signals and questions come to, and what is told."""

import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from termserver.config import Config, Logging, Tcp, Timeouts, Workers
from termserver.errors import ConfigError, ControlError, ListenError
from termserver.process import supervisor as module
from termserver.process import worker
from termserver.process.client import healthcheck, order, status
from termserver.process.control import ask
from termserver.process.supervisor import Supervisor, supervise
from termserver.systemd import Notifier

PATIENCE = 20.0


@dataclass
class Play:
    """A supervisor in this thread, and what somebody does to it in another."""

    config: Config
    behaviour: Path
    path: Path
    log: pytest.LogCaptureFixture
    notified: list[str] = field(default_factory=list)
    watchdog: float = 0.0
    changes: Callable[[], socket.socket] | None = None
    failures: list[BaseException] = field(default_factory=list)
    unreadable: str = ""

    def supervisor(self, notifier: Notifier | None = None) -> Supervisor:
        """Make one."""
        return Supervisor(self.config, self.load, notifier or Notifier(), changes=self.changes)

    def load(self) -> Config:
        """Read the configuration anew."""
        if self.unreadable:
            raise ConfigError(self.unreadable)
        return self.config

    def run(self, does: Callable[[], object] | None = None) -> int:
        """Serve while `does` runs, then stop; without, until it ends by itself. Give the exit code."""
        before = len(os.listdir("/proc/self/fd"))
        notifier = Notifier("x", self.watchdog)
        notifier._say = lambda state, _status, **_: self.notified.append(state)  # type: ignore[method-assign]
        supervisor = self.supervisor(notifier)
        thread = threading.Thread(target=self._act, args=(does or (lambda: None),))
        if does is not None:
            thread.start()
        try:
            code = supervisor.run()
        finally:
            if does is not None:
                thread.join(PATIENCE)
            for one in supervisor._pool.workers:
                one.channel.close()
            if self.failures:
                raise self.failures[0]
        assert len(os.listdir("/proc/self/fd")) <= before
        return code

    def _act(self, does: Callable[[], object]) -> None:
        try:
            self.wait(self.path.exists)
            does()
        except BaseException as error:
            self.failures.append(error)
        finally:
            try:
                list(ask(self.path, "stop", PATIENCE))
            except ControlError:
                logging.getLogger("tests").debug("it has stopped already")

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait for something."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"in vain:\n{self.log.text}"
            time.sleep(0.005)

    def facts(self) -> dict[str, Any]:
        """Ask how it is."""
        return list(ask(self.path, "status", PATIENCE))[-1]

    def wait_serving(self, count: int = 2) -> list[int]:
        """Wait until so many serve and no more is under way; give their process ids."""

        def serving() -> bool:
            facts = self.facts()
            stages = [each["stage"] for each in facts["workers"]]
            return facts["state"] == "serving" and stages == ["ready"] * count

        self.wait(serving)
        return [each["pid"] for each in self.facts()["workers"]]

    def signal(self, number: int) -> None:
        """Send the supervisor a signal."""
        os.kill(os.getpid(), number)

    def order(self, question: str, **facts: object) -> str:
        """Have something done; give what became of it."""
        return next(order(self.path, question, PATIENCE, **facts))


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Play]:
    """Two workers that do what a file says."""
    monkeypatch.setattr(worker, "MODULE", "fakeworker")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    caplog.set_level(logging.INFO, "termserver")
    behaviour, path = tmp_path / "behaviour", tmp_path / "run" / "control.sock"
    behaviour.write_text("ready")
    config = Config(
        application=f"@{behaviour}",
        bind=(Tcp("127.0.0.1", 0),),
        control_socket=str(path),
        timeouts=replace(Timeouts(), graceful=0.1),
        workers=replace(Workers(), count=2),
    )
    yield Play(config, behaviour, path, caplog)
    assert not path.exists()


# --- serving, stopping ---


def test_it_serves_until_it_is_asked_to_stop(play: Play) -> None:
    def does() -> None:
        play.wait_serving()
        lines = list(status(play.path, PATIENCE))
        assert lines[0].endswith(f"serving (pid {os.getpid()})")
        assert lines[1].startswith("listening on TCP address 127.0.0.1:")
        assert len(lines) == 6
        assert next(healthcheck(play.path, PATIENCE)) == "healthy: 2 of 2 workers serve"
        assert json.loads("\n".join(status(play.path, PATIENCE, as_json=True)))["wanted"] == 2
        assert play.order("stop") == "stopped"

    assert play.run(does) == 0
    assert [each for each in play.notified if each] == ["READY=1", "STOPPING=1"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_gracefully(play: Play, number: signal.Signals) -> None:
    assert play.run(lambda: (play.wait_serving(), play.signal(number))) == 0
    assert f"{number.name}: finishing what runs" in play.log.text


@pytest.mark.parametrize("numbers", [[signal.SIGQUIT], [signal.SIGTERM, signal.SIGTERM], [signal.SIGTERM, signal.SIGINT]])
def test_quit_or_a_second_signal_ends_it_at_once(play: Play, monkeypatch: pytest.MonkeyPatch, numbers: list[signal.Signals]) -> None:
    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(module.os, "_exit", leave)
    monkeypatch.setattr(module.logging, "shutdown", lambda: None)
    play.behaviour.write_text("deaf")
    play.config = replace(play.config, timeouts=replace(play.config.timeouts, graceful=600.0))
    pids: list[int] = []

    def does() -> None:
        pids.extend(play.wait_serving())
        for place, number in enumerate(numbers, 1):
            play.signal(number)
            play.wait(
                lambda place=place: sum(" finishing what runs" in line or "ending at once" in line for line in play.log.messages) == place
            )

    with pytest.raises(SystemExit) as ended:
        play.run(does)
    assert ended.value.code == 128 + numbers[-1]
    assert sorted(os.waitpid(pid, 0)[1] for pid in pids) == [signal.SIGKILL] * 2


def test_what_does_not_end_is_killed(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_LAST_RESORT", 0.1)
    play.behaviour.write_text("deaf")
    assert play.run(lambda: (play.wait_serving(), play.signal(signal.SIGTERM))) == 0
    assert "does not end: killed" in play.log.text
    assert "by signal 9 (SIGKILL)" in play.log.text


def test_it_cannot_begin_where_it_cannot_listen(play: Play) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        play.config = replace(play.config, bind=(Tcp("127.0.0.1", taken.getsockname()[1]),))
        with pytest.raises(ListenError, match="Address already in use"):
            Supervisor(play.config, lambda: play.config, Notifier()).run()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_the_control_socket_may_be_turned_off(play: Play) -> None:
    play.config = replace(play.config, control_socket="none")

    def does() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=lambda: (play.wait(lambda: "is ready" in play.log.text), does()))
    thread.start()
    assert Supervisor(play.config, lambda: play.config, Notifier()).run() == 0
    thread.join()
    assert not play.path.parent.exists()


def test_a_service_in_the_environments_directory(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(play.path.parent))
    play.config = replace(play.config, control_socket="", application="ready")
    play.path = play.path.parent / "termserver-ready.sock"
    assert play.run(play.wait_serving) == 0


# --- workers that end, hang, cannot begin ---


def test_a_killed_worker_is_replaced(play: Play) -> None:
    def does() -> None:
        first, second = play.wait_serving()
        os.kill(first, signal.SIGKILL)
        play.wait(lambda: first not in [each["pid"] for each in play.facts()["workers"]])
        assert second in play.wait_serving()

    assert play.run(does) == 0
    assert "has ended by signal 9 (SIGKILL)" in play.log.text


def test_strangers_are_reaped_too(play: Play) -> None:
    def does() -> None:
        play.wait_serving()
        stranger = os.posix_spawn("/bin/true", ["true"], {})
        play.wait(lambda: not os.path.exists(f"/proc/{stranger}"))
        assert len(play.facts()["workers"]) == 2

    assert play.run(does) == 0


def test_a_silent_worker_is_replaced(play: Play) -> None:
    play.config = replace(play.config, workers=replace(play.config.workers, count=1, heartbeat=0.1))
    play.behaviour.write_text("mute")

    def does() -> None:
        play.wait(lambda: "gave no sign of life" in play.log.text)
        play.behaviour.write_text("ready")
        play.wait_serving(1)

    assert play.run(does) == 0
    assert "by signal 6 (SIGABRT)" in play.log.text


def test_a_worker_whose_channel_is_closed_is_ended(play: Play) -> None:
    play.config = replace(play.config, workers=replace(play.config.workers, count=1))
    play.behaviour.write_text("hushes")

    def does() -> None:
        play.wait(lambda: "by signal 9" in play.log.text)
        play.behaviour.write_text("ready")
        play.wait_serving(1)

    assert play.run(does) == 0


def test_an_application_that_cannot_begin_ends_it_with_its_exit_code(play: Play) -> None:
    play.behaviour.write_text("fails")
    assert play.run() == 3
    assert [line for line in play.log.messages if "starts (pid" in line] == [
        line for line in play.log.messages if "Worker 1 starts" in line
    ]
    assert "Giving up: it cannot begin" in play.log.text


def test_workers_that_die_at_once_end_it_after_five(play: Play) -> None:
    play.behaviour.write_text("dies")
    assert play.run() == 3
    assert sum("starts (pid" in line for line in play.log.messages) == 5
    assert "with exit code 9" in play.log.text


def test_a_worn_out_worker_is_replaced(play: Play) -> None:
    play.config = replace(play.config, workers=replace(play.config.workers, count=1, requests=4))
    play.behaviour.write_text("worn")

    def does() -> None:
        play.wait(lambda: "is replaced: it has served 5 requests" in play.log.text)
        play.behaviour.write_text("ready")
        play.wait_serving(1)

    assert play.run(does) == 0


def test_a_child_of_a_dead_worker_that_holds_its_channel_stops_nothing(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    play.config = replace(play.config, workers=replace(play.config.workers, count=1))
    play.behaviour.write_text("forks")
    hear, turns = Supervisor._hear, 0

    def counting(supervisor: Supervisor, heard: worker.Worker) -> None:
        nonlocal turns
        turns += 1
        assert turns < 10_000, "it turns for ever"
        hear(supervisor, heard)

    monkeypatch.setattr(Supervisor, "_hear", counting)

    def does() -> None:
        (pid,) = play.wait_serving(1)
        play.behaviour.write_text("ready")
        os.kill(pid, signal.SIGKILL)
        play.wait(lambda: "Worker 2 is ready" in play.log.text or turns >= 10_000)

    assert play.run(does) == 0


# --- reload ---


@pytest.mark.parametrize("how", ["signal", "question"])
def test_a_reload_replaces_every_worker(play: Play, how: str) -> None:
    def does() -> None:
        before = play.wait_serving()
        if how == "signal":
            play.signal(signal.SIGHUP)
            play.wait(lambda: play.facts()["generation"] == 2)
        else:
            assert play.order("reload") == "reloaded: 2 new workers serve"
        assert not set(before) & set(play.wait_serving())

    assert play.run(does) == 0
    assert [state.split("\n")[0] for state in play.notified if state] == [
        "READY=1",
        "RELOADING=1",
        "READY=1",
        "STOPPING=1",
    ] or how == "signal"


def test_a_reload_that_fails_leaves_the_old_ones_and_says_why(play: Play) -> None:
    def does() -> None:
        before = play.wait_serving()
        for way, reason in (("fails", "it cannot begin"), ("dies", "its first worker ended before it was ready")):
            play.behaviour.write_text(way)
            with pytest.raises(ControlError, match=f"not reloaded, the old workers go on: {reason}"):
                play.order("reload")
            assert play.wait_serving() == before

    assert play.run(does) == 0


def test_a_configuration_that_cannot_be_used_changes_nothing(play: Play) -> None:
    def does() -> None:
        before, good = play.wait_serving(), play.config
        with socket.create_server(("127.0.0.1", 0)) as taken:
            play.config = replace(good, bind=(Tcp("127.0.0.1", taken.getsockname()[1]),))
            with pytest.raises(ControlError, match="not reloaded: cannot listen on"):
                play.order("reload")
        play.config = good
        assert play.wait_serving() == before

    assert play.run(does) == 0


def test_a_configuration_that_cannot_be_read_changes_nothing(play: Play) -> None:
    def does() -> None:
        before = play.wait_serving()
        play.unreadable = "bad line"
        with pytest.raises(ControlError, match="not reloaded: bad line"):
            play.order("reload")
        assert play.wait_serving() == before

    assert play.run(does) == 0


def test_a_reload_takes_the_number_of_workers_and_the_addresses(play: Play) -> None:
    def does() -> None:
        play.wait_serving()
        first = play.facts()["listening"]
        play.config = replace(play.config, bind=(*play.config.bind, Tcp("127.0.0.2", 0)), workers=replace(play.config.workers, count=3))
        assert play.order("reload") == "reloaded: 3 new workers serve"
        play.wait_serving(3)
        assert play.facts()["listening"][:1] == first
        assert play.facts()["listening"][1].startswith("TCP address 127.0.0.2:")

    assert play.run(does) == 0


def test_a_failed_reload_leaves_the_number_of_workers(play: Play) -> None:
    def does() -> None:
        play.wait_serving()
        play.config = replace(play.config, workers=replace(play.config.workers, count=4))
        play.behaviour.write_text("fails")
        with pytest.raises(ControlError):
            play.order("reload")
        assert play.facts()["wanted"] == 2

    play.run(does)


def test_a_failed_reload_closes_what_it_opened(play: Play) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def does() -> None:
        play.wait_serving()
        play.config = replace(play.config, bind=(*play.config.bind, Tcp("127.0.0.1", port)))
        play.behaviour.write_text("fails")
        with pytest.raises(ControlError):
            play.order("reload")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()

    play.run(does)


def test_a_second_reload_overtakes_the_first(play: Play) -> None:
    def does() -> None:
        play.wait_serving()
        play.behaviour.write_text("never ready")
        play.signal(signal.SIGHUP)
        play.wait(lambda: [each["stage"] for each in play.facts()["workers"]] == ["outdated", "outdated", "starting"])
        assert play.facts()["state"] == "reloading"
        play.behaviour.write_text("ready")
        assert play.order("reload") == "reloaded: 2 new workers serve"

    assert play.run(does) == 0


def test_no_reload_while_it_stops(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_LAST_RESORT", 1.0)
    play.behaviour.write_text("deaf")

    def does() -> None:
        play.wait_serving()
        play.signal(signal.SIGTERM)
        play.wait(lambda: play.facts()["state"] == "stopping")
        with pytest.raises(ControlError, match=r"not healthy: stopping, 0 workers serve"):
            next(healthcheck(play.path, PATIENCE))
        with pytest.raises(ControlError, match="ended before it had answered"):
            play.order("reload")

    assert play.run(does) == 0
    assert "Reloading" not in play.log.text


def test_changed_files_reload(play: Play) -> None:
    ours, its = socket.socketpair()
    play.changes = lambda: ours

    def does() -> None:
        before = play.wait_serving()
        its.sendall(b"/a/b.py\n/a/c.py\n")
        play.wait(lambda: play.facts()["generation"] == 2)
        assert not set(before) & set(play.wait_serving())
        its.close()
        play.wait_serving()

    assert play.run(does) == 0
    ours.close()
    assert "Changed: /a/b.py, /a/c.py" in play.log.text


# --- other signals and questions ---


def test_signals_and_questions_change_the_number_of_workers(play: Play) -> None:
    def does() -> None:
        play.wait_serving()
        play.signal(signal.SIGTTIN)
        play.wait_serving(3)
        assert play.order("scale", workers=1) == "1 workers serve"
        play.signal(signal.SIGTTOU)
        play.wait(lambda: play.log.text.count("Workers wanted: 1") == 2)
        play.wait_serving(1)
        assert play.order("scale", workers=1) == "1 workers serve"

    assert play.run(does) == 0


def test_log_files_are_opened_anew_by_all(play: Play, capfd: pytest.CaptureFixture[str]) -> None:
    pids: list[int] = []

    def does() -> None:
        pids.extend(play.wait_serving())
        play.signal(signal.SIGUSR1)

    assert play.run(does) == 0
    assert sorted(capfd.readouterr().err.splitlines()) == sorted(f"reopened {pid}" for pid in pids)


@pytest.mark.parametrize("facts", [{"workers": 0}, {"workers": 1_025}, {"workers": "2"}, {}], ids=str)
def test_nonsense_is_refused(play: Play, facts: dict[str, object]) -> None:
    def does() -> None:
        play.wait_serving()
        with pytest.raises(ControlError, match="cannot do that"):
            play.order("scale", **facts)
        with pytest.raises(ControlError, match="cannot do that"):
            play.order("dance")
        play.wait_serving()

    assert play.run(does) == 0


def test_a_client_that_says_no_json_or_leaves_is_dropped(play: Play) -> None:
    def does() -> None:
        play.wait_serving()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(play.path))
            client.sendall(b"GET / HTTP/1.1\r\n")
            client.settimeout(PATIENCE)
            assert client.recv(1) == b""
        play.behaviour.write_text("never ready")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(play.path))
            client.sendall(b'{"is":"reload"}\n')
            play.wait(lambda: play.facts()["state"] == "reloading")
        play.behaviour.write_text("ready")
        play.order("reload")

    assert play.run(does) == 0


def test_the_watchdog_is_fed_while_workers_show_life(play: Play) -> None:
    play.watchdog = 0.3

    def does() -> None:
        play.wait_serving()
        before = play.notified.count("WATCHDOG=1")
        play.wait(lambda: play.notified.count("WATCHDOG=1") >= before + 3)

    assert play.run(does) == 0


def test_the_watchdog_starves_when_no_worker_shows_life(play: Play) -> None:
    play.watchdog = 0.3
    play.config = replace(play.config, workers=replace(play.config.workers, count=1, heartbeat=0))
    play.behaviour.write_text("mute")

    def does() -> None:
        play.wait_serving(1)
        play.wait(lambda: play.log.text.count("Worker 1 is ready"))
        fed, end = -1, time.monotonic() + PATIENCE
        while fed != play.notified.count("WATCHDOG=1") and time.monotonic() < end:  # three intervals without food
            fed = play.notified.count("WATCHDOG=1")
            threading.Event().wait(0.3)
        assert fed == play.notified.count("WATCHDOG=1")

    assert play.run(does) == 0


# --- the command's way in ---


def test_supervise_sets_up_the_log_and_says_warnings(
    play: Play, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Config, "warnings", lambda _self: ["beware"])
    play.config = replace(play.config, application="fails")
    for logging_ in (play.config.logging, replace(Logging(), format="%(message)s")):
        root = logging.getLogger()
        handlers = root.handlers[:]
        root.handlers[:] = []
        try:
            assert supervise(replace(play.config, logging=logging_), lambda: play.config, Notifier()) == 3
        finally:
            root.handlers[:] = handlers
    assert capfd.readouterr().err.count("beware") == 2


def test_reload_without_watchfiles_is_an_error_with_a_reason(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "watchfiles", None)
    play.config = replace(play.config, workers=replace(play.config.workers, reload=True))
    with pytest.raises(ConfigError, match="needs the package watchfiles"):
        supervise(play.config, lambda: play.config, Notifier())


def test_a_signal_without_a_name_has_its_number() -> None:
    assert module._name(signal.SIGHUP) == "SIGHUP"
    assert module._name(250) == "signal 250"
