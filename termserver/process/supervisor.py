"""The parent of the workers: it holds the listening sockets, and does what signals and the control socket ask for.

One thread, one selector: signals, what workers say and what is asked wake it; `Pool.settle` then decides what is to be done. It runs no
code of the application's and none of the event loop's, so nothing of theirs can end it or hang it.

Signals: TERM and INT stop gracefully, the second one at once, as QUIT; HUP reloads; USR1 has log files opened anew; USR2 upgrades in place
(`succession.py`); TTIN and TTOU mean one worker more or less. PID 1 in a container reaps strangers' orphans too, and judges only its own
(gunicorn #3220).
"""

import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from termserver import __version__
from termserver.channel import Channel, Said
from termserver.config import Config
from termserver.errors import ListenError, TermserverError
from termserver.observe.log import configure
from termserver.process import succession
from termserver.process.control import Clients, default_path, listen
from termserver.process.listeners import Listeners
from termserver.process.pool import Pool
from termserver.process.processors import wanted
from termserver.process.watch import watch
from termserver.process.worker import DRAINING, READY, STARTING, Worker, start
from termserver.systemd import Notifier

logger = logging.getLogger("termserver")

_SIGNALS: Final = (
    signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU,
    signal.SIGCHLD,
)  # fmt: skip
_MOST_WORKERS: Final = 1_024
_IDLE: Final = 60.0  # seconds: the longest sleep, so that no forgotten deadline is for ever


class Supervisor:
    """One service."""

    def __init__(
        self,
        config: Config,
        load: Callable[[], Config],
        notifier: Notifier,
        *,
        changes: Callable[[], socket.socket] | None = None,
        original: Mapping[str, str] | None = None,
        handed: Iterable[int] = (),
    ) -> None:
        """`load` reads the configuration anew; `changes` gives a socket that becomes readable when source files change.

        `original` is the environment as it was at the start, `handed` the service manager's sockets: a successor needs both.
        """
        self._config = self._proven = config  # the newest, and the newest that workers began with
        self._load = load
        self._notifier = notifier
        self._changes = changes
        self._pool = Pool(wanted(config.workers), self._start_worker)
        self._listeners = Listeners()
        self._selector = selectors.DefaultSelector()
        self._clients: Clients | None = None
        self._control: Path | None = None
        self._asked: dict[Channel, str] = {}  # who waits for what
        self._started = 0  # workers, in all
        self._stop_signal = 0
        self._wanted_before = self._pool.wanted
        self._reloading = self._announced = False
        self._watchdog_at = 0.0
        self._beats = 0
        self._environment = dict(os.environ)
        self._original = dict(os.environ) if original is None else dict(original)
        self._handed = tuple(handed)
        self._estate = succession.take_over(self._environment)
        self._lifeline, self._held = self._estate.lifeline if self._estate else os.pipe()  # workers hold one end, to learn of our end
        self._rehearsal = 0  # the process id of a check before an upgrade

    # ------------------------------------------------------------------ life

    def run(self) -> int:
        """Serve until asked to stop; give the exit code. Raises `TermserverError` where it cannot begin, or not go on."""
        woken, wake = socket.socketpair()
        woken.setblocking(False)
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        before = {number: signal.signal(number, _noted) for number in _SIGNALS}
        try:
            self._selector.register(woken, selectors.EVENT_READ, self._read_signals)
            self._inherit()
            self._listeners.take(self._config)
            self._open_control()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            if self._changes is not None:
                self._selector.register(self._changes(), selectors.EVENT_READ, self._files_changed)
            logger.info("termserver %s: %s, workers: %d", __version__, ", ".join(self._listeners.addresses), self._pool.wanted)
            return self._serve()
        finally:
            for worker in self._pool.workers:
                worker.kill()
            self._listeners.close()
            self._close_control()
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._held)
            os.close(self._lifeline)
            self._selector.close()
            woken.close()
            wake.close()

    def _inherit(self) -> None:
        """Take over what a predecessor left, and renew it."""
        estate = self._estate
        if estate is None:
            return
        self._listeners.adopt(self._config, estate.listeners)
        self._started = estate.started
        pool = self._pool
        pool.generation = estate.generation
        for handed in estate.workers:
            worker = Worker.adopt(handed, self._config)
            pool.workers.append(worker)
            self._watch_worker(worker)
        pool.renew()
        self._announced = self._reloading = True
        logger.info("Upgraded to termserver %s: new workers start, the old ones go on until those are ready", __version__)

    def _serve(self) -> int:
        pool = self._pool
        while True:
            now = time.monotonic()
            self._reap(now)
            for worker in tuple(pool.workers):
                if worker.is_silent(now) and not worker.channel.closed:
                    self._hear(worker)  # it may be us who slept
                if verdict := worker.check(now):
                    logger.error("Worker %d (pid %d) %s", worker.number, worker.pid, verdict)
            if pool.fatal is not None and not pool.stopping:
                _, reason = pool.fatal
                logger.critical("Giving up: %s", reason)
                self._stop(now)
            pool.settle(now)
            self._tell(now)
            if pool.stopping and not pool.workers:
                return pool.fatal[0] if pool.fatal is not None else 0
            due = min(pool.next_step(now), self._watchdog_at or float("inf"))
            for key, mask in self._selector.select(min(max(due - time.monotonic(), 0), _IDLE)):
                key.data(key.fileobj, mask)

    def _start_worker(self, generation: int, now: float) -> Worker:
        self._started += 1
        worker = start(
            number=self._started, generation=generation, config=self._config, listeners=self._listeners.sockets,
            environment=self._environment, lifeline=self._lifeline, now=now,
        )  # fmt: skip
        self._watch_worker(worker)
        logger.info("Worker %d starts (pid %d)", worker.number, worker.pid)
        return worker

    def _watch_worker(self, worker: Worker) -> None:
        self._selector.register(worker.channel, selectors.EVENT_READ, lambda _channel, _mask: self._hear(worker))

    # ------------------------------------------------------------------ what workers do

    def _hear(self, worker: Worker) -> bool:
        """Take what it says; answer whether that was anything."""
        now, heard = time.monotonic(), False
        for said in worker.channel.hear():
            heard = True
            worker.take(said, now)
            if said["is"] == "ready" and worker.stage is READY:
                self._pool.became_ready(worker)
                if worker.generation == self._pool.generation:
                    self._proven = self._config
                logger.info("Worker %d is ready after %.1f s", worker.number, now - worker.started)
            elif said["is"] == "failed":
                logger.error("Worker %d: %s", worker.number, worker.failure[1] if worker.failure else "")
        if worker.channel.closed:  # it has ended, or will never say anything again
            self._selector.unregister(worker.channel)
            worker.channel.close()
            worker.expect_end(now)
        return heard

    def _reap(self, now: float) -> None:
        """Collect every child that has ended, whoever's it was."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            worker = next((worker for worker in self._pool.workers if worker.pid == pid), None)
            if worker is not None:
                self._ended(worker, status, now)
            elif pid == self._rehearsal:
                self._upgrade(os.waitstatus_to_exitcode(status))

    def _ended(self, worker: Worker, status: int, now: float) -> None:
        while not worker.channel.closed and self._hear(worker):
            pass  # its last words may still lie in the socket
        if not worker.channel.closed:  # a child of its own holds it open
            self._selector.unregister(worker.channel)
            worker.channel.close()
        code = os.waitstatus_to_exitcode(status)
        how = f"with exit code {code}" if code >= 0 else f"by signal {-code} ({_name(-code)})"
        expected = worker.stage is DRAINING and code == 0
        logger.log(logging.INFO if expected else logging.ERROR, "Worker %d (pid %d) has ended %s", worker.number, worker.pid, how)
        if self._pool.ended(worker, now):
            self._give_up_reload(worker)

    # ------------------------------------------------------------------ reload

    def _reload(self) -> None:
        """Take the configuration anew, then replace every worker."""
        if self._pool.stopping:
            return
        try:
            config = self._load()
            self._listeners.take(config)
        except TermserverError as error:
            logger.error("Not reloaded, everything goes on as before: %s", error)  # noqa: TRY400 - the line says it
            self._answer("reload", ok=False, text=f"not reloaded: {error}")
            return
        self._wanted_before = self._pool.wanted
        if config.workers.count != self._config.workers.count:
            self._pool.wanted = wanted(config.workers)
        self._config = config
        self._reloading = True
        self._notifier.reloading("reloading")
        logger.info("Reloading: new workers start, the old ones go on until those are ready")
        self._pool.renew()

    def _give_up_reload(self, worker: Worker) -> None:
        reason = worker.failure[1] if worker.failure else "its first worker ended before it was ready"
        logger.error("Not reloaded, the old workers go on: %s", reason)
        self._config = self._proven
        self._listeners.take(self._config)
        self._listeners.forget()
        self._pool.wanted = self._wanted_before
        self._pool.give_up_renewal()
        self._reloading = False
        self._notifier.ready(self._status())
        self._answer("reload", ok=False, text=f"not reloaded, the old workers go on: {reason}")

    def _rehearse_upgrade(self) -> None:
        """See whether the code and the configuration that are there now would do; `_upgrade` goes on from that."""
        if self._rehearsal or self._pool.stopping:
            return
        try:
            self._rehearsal = succession.rehearse(self._environment)
        except OSError as error:
            logger.error("Not upgraded: %s", error)  # noqa: TRY400 - the line says it

    def _upgrade(self, code: int) -> None:
        self._rehearsal = 0
        if code or self._pool.stopping:
            logger.error("Not upgraded, everything goes on as before: termserver check ended with exit code %d", code)
            return
        workers = [worker.hand_on() for worker in self._pool.workers if not worker.channel.closed]
        estate = succession.Estate(
            self._listeners.hand_on(), workers, (self._lifeline, self._held), self._pool.generation, self._started
        )  # fmt: skip
        self._notifier.reloading("upgrading")
        path = self._control
        self._close_control()
        try:
            succession.become(estate, self._original, self._handed, _SIGNALS)
        except OSError as error:
            logger.error("Not upgraded, everything goes on as before: %s", error)  # noqa: TRY400 - the line says it
            if path is not None:
                self._open_control()
            self._notifier.ready(self._status())

    def _files_changed(self, changes: socket.socket, _mask: int) -> None:
        if names := changes.recv(65_536):
            logger.info("Changed: %s", names.decode(errors="replace").strip().replace("\n", ", "))
            self._reload()
        else:
            self._selector.unregister(changes)

    # ------------------------------------------------------------------ signals and questions

    def _read_signals(self, woken: socket.socket, _mask: int) -> None:
        for number in woken.recv(4_096):
            self._on_signal(number)

    def _on_signal(self, number: int) -> None:
        pool = self._pool
        if number in {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}:
            if pool.stopping or number == signal.SIGQUIT:
                self._stop_at_once(number)
            else:
                logger.info("%s: finishing what runs; a second signal ends at once", _name(number))
                self._stop(time.monotonic())
        elif number == signal.SIGHUP:
            self._reload()
        elif number == signal.SIGUSR2:
            self._rehearse_upgrade()
        elif number == signal.SIGUSR1:
            for worker in pool.workers:
                worker.channel.say("reopen")
        elif number in {signal.SIGTTIN, signal.SIGTTOU}:
            self._scale(pool.wanted + (1 if number == signal.SIGTTIN else -1))

    def _stop(self, now: float) -> None:
        self._notifier.stopping("finishing what runs")
        self._listeners.close()
        self._pool.stop(now)

    def _stop_at_once(self, number: int) -> None:
        logger.warning("%s: ending at once", _name(number))
        for worker in self._pool.workers:
            worker.kill()
        self._listeners.close()
        self._close_control()
        logging.shutdown()
        for handler in logging.getLogger().handlers:
            handler.close()
        os._exit(128 + number)

    def _scale(self, count: int) -> None:
        self._pool.wanted = min(max(count, 1), _MOST_WORKERS)
        logger.info("Workers wanted: %d", self._pool.wanted)

    def _open_control(self) -> None:
        said = self._config.control_socket
        if said == "none":
            return
        path = Path(said) if said else default_path(str(self._config.application), self._environment, os.geteuid())
        try:
            self._clients = Clients(listen(path))
        except ListenError as error:
            if said:
                raise
            logger.warning("%s; termserver status, reload, stop and scale are not to be had", error)
            return
        self._control = path
        self._selector.register(self._clients.listener, selectors.EVENT_READ, self._accept)

    def _close_control(self) -> None:
        if self._clients is not None and self._control is not None:
            self._selector.unregister(self._clients.listener)
            self._clients.listener.close()
            self._control.unlink(missing_ok=True)
            for channel in tuple(self._clients.channels):
                self._selector.unregister(channel)
                self._clients.drop(channel)
            self._clients = None

    def _accept(self, _listener: socket.socket, _mask: int) -> None:
        channel = self._clients.accept() if self._clients is not None else None
        if channel is not None:
            self._selector.register(channel, selectors.EVENT_READ, self._read_question)

    def _read_question(self, channel: Channel, _mask: int) -> None:
        for said in channel.hear():
            self._take_question(channel, said)
        if channel.closed and self._clients is not None:
            self._selector.unregister(channel)
            self._asked.pop(channel, None)
            self._clients.drop(channel)

    def _take_question(self, channel: Channel, said: Said) -> None:
        match said["is"]:
            case "status":
                channel.say("status", done=True, ok=True, **self._facts())
            case "reload":
                self._asked[channel] = "reload"
                self._reload()
            case "stop":
                self._asked[channel] = "stop"
                if not self._pool.stopping:
                    logger.info("Asked to stop: finishing what runs")
                    self._stop(time.monotonic())
            case "scale" if isinstance(said.get("workers"), int) and 1 <= said["workers"] <= _MOST_WORKERS:
                self._asked[channel] = "scale"
                self._scale(said["workers"])
            case _:
                channel.say("error", done=True, ok=False, text=f"cannot do that: {said}")

    def _answer(self, about: str, *, ok: bool, text: str) -> None:
        """Answer everybody who waits for this."""
        for channel in [channel for channel, waits in self._asked.items() if waits == about]:
            del self._asked[channel]
            channel.say("answer", done=True, ok=ok, text=text)

    # ------------------------------------------------------------------ what is told

    def _tell(self, now: float) -> None:
        """Tell the service manager, and who waits, how things are."""
        pool = self._pool
        if pool.settled and not pool.stopping:
            if not self._announced or self._reloading:
                self._announced, self._reloading = True, False
                self._listeners.forget()
                self._notifier.ready(self._status())
                self._answer("reload", ok=True, text=f"reloaded: {pool.wanted} new workers serve")
            self._answer("scale", ok=True, text=f"{pool.wanted} workers serve")
        if pool.stopping and not pool.workers:
            self._answer("stop", ok=True, text="stopped")
        if self._announced:
            self._notifier.status(self._status())
        self._feed_watchdog(now)

    def _feed_watchdog(self, now: float) -> None:
        """Show that requests are answered: a worker's loop ran since the last time."""
        interval = self._notifier.watchdog / 3
        if not interval:
            return
        if not self._watchdog_at:
            self._watchdog_at = now
        if now >= self._watchdog_at:
            self._watchdog_at = now + interval
            beats = sum(worker.beats for worker in self._pool.workers)
            if beats != self._beats or self._pool.of(STARTING) or self._pool.stopping:
                self._notifier.alive()
            self._beats = beats

    def _status(self) -> str:
        ready, starting, draining = (len(self._pool.of(stage)) for stage in (READY, STARTING, DRAINING))
        words = [f"{ready} of {self._pool.wanted} workers serve"]
        words += [f"{count} {what}" for count, what in ((starting, "starting"), (draining, "draining")) if count]
        return ", ".join(words)

    def _facts(self) -> dict[str, object]:
        now = time.monotonic()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "application": str(self._config.application),
            "listening": self._listeners.addresses,
            "generation": self._pool.generation,
            "wanted": self._pool.wanted,
            "state": "stopping"
            if self._pool.stopping
            else "reloading"
            if self._reloading
            else "serving"
            if self._announced
            else "starting",
            "workers": [
                {
                    "number": worker.number,
                    "pid": worker.pid,
                    "stage": "outdated" if worker.outdated and worker.stage is READY else worker.stage.name.lower(),
                    "generation": worker.generation,
                    "seconds": round(now - worker.started, 1),
                    "memory": worker.memory(),
                    "silent": round(now - worker.heard, 1) if worker.heard is not None else None,
                    "requests": worker.said.get("requests", 0),
                    "running": worker.said.get("running", 0),
                    "connections": worker.said.get("connections", 0),
                    "refused": worker.said.get("refused", 0),
                }
                for worker in self._pool.workers
            ],
        }


def _noted(_number: int, _frame: object) -> None:
    """Stand in as a handler: without one, no byte is written to the wake-up descriptor."""


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def supervise(
    config: Config, load: Callable[[], Config], notifier: Notifier, original: Mapping[str, str] | None = None, handed: Iterable[int] = ()
) -> int:
    """Serve with workers until a signal, or as the control socket says; give the exit code. Raises `TermserverError`.

    The arguments are `Supervisor`'s.
    """
    log = configure(config.logging, debug=config.debug)
    try:
        for warning in config.warnings():
            logger.warning("%s", warning)
        changes = (lambda: watch(config.workers.reload_dirs or (config.app_dir,))) if config.workers.reload else None
        return Supervisor(config, load, notifier, changes=changes, original=original, handed=handed).run()
    finally:
        if log is not None:
            log.close()
