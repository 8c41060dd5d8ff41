"""A supervisor that is replaced by its newer self (SIGUSR2), for an upgrade of Python, of termserver or of what it stands on.

It does not start a second one: it becomes it, by exec, so its process id, its children and its descriptors stay, and whoever started it
notices nothing. What it knows goes along in a file without a name. Before that, `termserver check` has to succeed with the new code and the
same words; signals wait until the successor can take them. It then renews the workers as a reload does (spec reliability R10).
"""

import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

VARIABLE: Final = "_TERMSERVER_SUCCESSION"


@dataclass(frozen=True, slots=True)
class Estate:
    """What is handed on. Descriptors are numbers; times monotonic seconds, which are the machine's."""

    listeners: list[tuple[str, str, int, list[int]]]  # purpose, address, count among those written alike, sockets
    workers: list[dict[str, Any]]
    lifeline: tuple[int, int]
    generation: int
    started: int

    def descriptors(self) -> list[int]:
        """Give all of them."""
        return [
            *[number for *_, numbers in self.listeners for number in numbers],
            *[worker["channel"] for worker in self.workers],
            *self.lifeline,
        ]


def take_over(environment: MutableMapping[str, str]) -> Estate | None:
    """Give what a predecessor left, None where there was none."""
    number = environment.pop(VARIABLE, "")
    if not number.isdecimal():
        return None
    with os.fdopen(int(number), encoding="utf-8") as file:
        found = json.load(file)
    listeners = [(purpose, address, count, sockets) for purpose, address, count, sockets in found["listeners"]]
    reading, writing = found["lifeline"]
    estate = Estate(listeners, found["workers"], (reading, writing), found["generation"], found["started"])
    for descriptor in estate.descriptors():
        os.set_inheritable(descriptor, False)
    return estate


def rehearse(environment: Mapping[str, str]) -> int:
    """Start `termserver check` with the words that this process was started with; give the child's process id. Raises `OSError`."""
    words = [sys.executable, "-m", "termserver", "check", *_words()]
    silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    return os.posix_spawn(sys.executable, words, environment, file_actions=silent)


def _words() -> list[str]:
    return sys.argv[2:] if sys.argv[1:2] == ["serve"] else sys.argv[1:]


def become(estate: Estate, environment: Mapping[str, str], handed: Iterable[int], signals: Iterable[int]) -> None:
    """Become the successor. `environment`: as it was at the start; `handed`: the service manager's sockets. Raises `OSError`."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        json.dump({name: getattr(estate, name) for name in Estate.__slots__}, file)
        file.flush()
        file.seek(0)
        passed = [file.fileno(), *handed, *estate.descriptors()]
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        for descriptor in passed:
            os.set_inheritable(descriptor, True)
        try:
            os.execve(sys.executable, sys.orig_argv, {**environment, VARIABLE: str(file.fileno())})  # noqa: S606 - ourselves
        finally:  # it failed: everything goes on
            for descriptor in passed:
                os.set_inheritable(descriptor, False)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
