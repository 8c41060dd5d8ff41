"""The supervisor's view of one worker: a process, a channel to it, and what it said last.

A worker is started anew, not forked: it has no thread, lock or module of the supervisor's, and after an upgrade it runs the new code. It
gets the listening sockets and its end of the channel as inherited descriptors, and the configuration in a file that has no name.
"""

import contextlib
import os
import pickle
import random
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Any, Final

from termserver.channel import Channel, Said
from termserver.config import Config

MODULE: Final = "termserver.net.worker"  # what a worker runs; it is in `net`, which this package does not import
_LAST_RESORT: Final = 5.0  # seconds from a worker's last warning to its end
_JITTER: Final = 0.2
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_OURS: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)  # a terminal sends them to all processes: the supervisor acts on them
_RESET: Final = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD, signal.SIGPIPE, signal.SIGTTIN, signal.SIGTTOU)


class Stage(Enum):
    """Where a worker is in its life."""

    STARTING = auto()
    READY = auto()
    DRAINING = auto()  # it was told to end


STARTING, READY, DRAINING = Stage


class Worker:
    """One worker. Times are monotonic seconds."""

    def __init__(self, number: int, generation: int, pid: int, channel: Channel, config: Config, now: float) -> None:
        """`number` counts all workers that were started; `generation` counts reloads."""
        self.number = number
        self.generation = generation
        self.pid = pid
        self.channel = channel
        self.stage = STARTING
        self.started = now
        self.ready_at = 0.0
        self.useful = False  # it lived long enough to show that workers can
        self.outdated = False  # to be replaced by another
        self.heard: float | None = None  # when it last showed that its loop runs
        self.beats = 0
        self.said: Said = {}
        self.failure: tuple[int, str] | None = None  # exit code and reason, where it could not begin
        self._config = config
        self._kill_at: float | None = None
        self._aborted = False
        limits = config.workers
        self._most_requests = _jittered(limits.requests)
        self._oldest = _jittered(limits.age)

    @classmethod
    def adopt(cls, handed: Mapping[str, Any], config: Config) -> "Worker":
        """Take over a predecessor's."""
        channel = Channel(socket.socket(fileno=handed["channel"]))
        worker = cls(handed["number"], handed["generation"], handed["pid"], channel, config, handed["started"])
        worker.stage = Stage[handed["stage"]]
        worker.ready_at, worker.heard = handed["ready_at"], handed["heard"]
        if worker.stage is DRAINING:
            worker._kill_at = handed["kill_at"]
        return worker

    def hand_on(self) -> dict[str, object]:
        """Give what a successor has to know."""
        return {
            "number": self.number, "generation": self.generation, "pid": self.pid, "channel": self.channel.fileno(),
            "started": self.started, "stage": self.stage.name, "ready_at": self.ready_at, "heard": self.heard, "kill_at": self._kill_at,
        }  # fmt: skip

    # ------------------------------------------------------------------ what it says

    def take(self, said: Said, now: float) -> None:
        """Note what it said."""
        match said["is"]:
            case "beat":
                self.heard = now
                self.beats += 1
                self.said = said
            case "ready" if self.stage is STARTING:
                self.stage = READY
                self.ready_at = self.heard = now
            case "failed":
                self.failure = (int(said["code"]), str(said["reason"]))
            case _:
                pass

    def memory(self) -> int:
        """Bytes that are resident, 0 where that is not to be known."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:  # noqa: PTH123 - opened once a second
                return int(file.read().split()[1]) * _PAGE
        except OSError:
            return 0

    def worn_out(self, now: float) -> str:
        """Say why it is to be replaced, if it is (spec limits L47, L52)."""
        limits = self._config.workers
        if self._most_requests and self.said.get("requests", 0) >= self._most_requests:
            return f"it has served {self.said['requests']} requests"
        if self._oldest and now - self.ready_at >= self._oldest:
            return f"it is {now - self.ready_at:.0f} s old"
        if self.said.get("stuck", 0) >= limits.stuck > 0:
            return f"{self.said['stuck']} application calls are stuck"
        if limits.memory and (size := self.memory()) >= limits.memory:
            return f"it has {size >> 20} MiB"
        return ""

    # ------------------------------------------------------------------ what is done to it

    def drain(self, now: float, *, restarting: bool) -> None:
        """Let it finish what runs. `restarting`: another one takes over."""
        if self.stage is not DRAINING:
            self.stage = DRAINING
            self._kill_at = now + self._config.timeouts.graceful + _LAST_RESORT
            self.channel.say("stop", restarting=restarting)

    def kill(self) -> None:
        """End it at once."""
        self._send(signal.SIGKILL)

    def expect_end(self, now: float) -> None:
        """Nothing more will be heard of it: it is about to end, or to be ended."""
        if self._kill_at is None:
            self._kill_at = now + _LAST_RESORT

    def is_silent(self, now: float) -> bool:
        """Whether it hangs, as far as what was heard tells."""
        limit = self._patience()
        return limit > 0 and self.heard is not None and now - self.heard >= limit and not self._aborted

    def _patience(self) -> float:
        """Give the seconds after which silence means that it hangs, 0 for never: a start-up may block the loop for all the time it has."""
        limit = self._config.workers.heartbeat
        if self.stage is not STARTING or not limit:
            return limit
        return self._config.timeouts.startup and limit + self._config.timeouts.startup

    def check(self, now: float) -> str:
        """End it where it hangs (spec limits L50) or does not end by itself; say so if that was done now."""
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self.kill()
            return "does not end: killed"
        if self.is_silent(now):
            self._aborted = True
            self._kill_at = now + _LAST_RESORT
            self._send(signal.SIGABRT)  # its threads' stacks go to standard error
            seconds = now - (self.heard or now)
            return f"gave no sign of life for {seconds:.1f} s: where it hangs follows, if it can still say so; then it is ended"
        return ""

    def next_check(self) -> float:
        """Give the time by which `check` wants to be called."""
        limit = self._patience()
        hang = self.heard + limit if limit and self.heard is not None and not self._aborted else float("inf")
        return min(hang, float("inf") if self._kill_at is None else self._kill_at)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it is not reaped yet, so the number is still its own
            os.kill(self.pid, number)


def _jittered(limit: float) -> float:
    """Spread a limit, so that the workers of a machine do not come to it together."""
    return limit * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret


def start(
    *,
    number: int,
    generation: int,
    config: Config,
    listeners: Mapping[str, Sequence[socket.socket]],
    environment: Mapping[str, str],
    lifeline: int,
    now: float,
) -> Worker:
    """Start a worker process. `listeners`: sockets by what they are for; `lifeline`: a pipe's end to read. Raises `OSError`."""
    ours, its = socket.socketpair()
    with its, tempfile.TemporaryFile() as file:
        sockets = {purpose: [listener.fileno() for listener in each] for purpose, each in listeners.items()}
        pickle.dump((config, sockets), file)
        file.flush()
        file.seek(0)
        passed = [its.fileno(), file.fileno(), lifeline, *[number for numbers in sockets.values() for number in numbers]]
        for descriptor in passed:
            os.set_inheritable(descriptor, True)
        try:
            pid = os.posix_spawn(
                sys.executable,
                [
                    sys.executable,
                    *_interpreter_flags(),
                    "-m",
                    MODULE,
                    str(its.fileno()),
                    str(file.fileno()),
                    str(lifeline),
                    str(config.application),
                ],
                environment,
                setsigmask=_OURS,
                setsigdef=_RESET,
            )
        except OSError:
            ours.close()
            raise
        finally:
            for descriptor in passed:
                os.set_inheritable(descriptor, False)
    return Worker(number, generation, pid, Channel(ours), config, now)


def _interpreter_flags() -> list[str]:
    """Give the flags of this interpreter that a worker's has to have as well."""
    flags = ["-P"]  # the directory that we happen to be in is put on the path by --app-dir, or not at all
    switches = (
        (sys.flags.isolated, "-I"),
        (sys.flags.ignore_environment, "-E"),
        (sys.flags.no_user_site, "-s"),
        (sys.flags.optimize, "-O"),
    )
    flags += [flag for said, flag in switches for _ in range(said)]
    for name, value in sys._xoptions.items():  # noqa: SLF001 - CPython documents it under -X
        flags += ["-X", name if value is True else f"{name}={value}"]
    for option in sys.warnoptions:
        flags += ["-W", option]
    return flags
