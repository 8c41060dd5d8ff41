"""What systemd hands over and wants to be told: sockets (sd_listen_fds(3)), the service's state (sd_notify(3)), the watchdog.

Everything is read out of the environment once, and taken out of it, so that no child believes it was meant.
"""

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Final

from termserver.errors import ListenError

_FIRST_DESCRIPTOR: Final = 3
_NANOSECONDS: Final = 1_000


def take_sockets(environment: MutableMapping[str, str]) -> list[tuple[int, str]]:
    """Give descriptors and names of the sockets that were handed to this very process, none where there are none."""
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    environment.pop("LISTEN_PIDFDID", "")
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    descriptors = range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count))
    try:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
    except OSError as error:
        raise ListenError(f"LISTEN_FDS={count}, but descriptor {descriptor} cannot be used: {error.strerror}") from error
    return [(descriptor, names[place] if place < len(names) else "") for place, descriptor in enumerate(descriptors)]


@dataclass
class Notifier:
    """Tells the service manager how things are; nothing where there is none."""

    address: str = ""
    watchdog: float = 0.0  # seconds between two signs of life, at most; 0 = none are wanted
    _status: str = field(default="", repr=False)

    @classmethod
    def take(cls, environment: MutableMapping[str, str]) -> "Notifier":
        """Make it of what the environment says."""
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", str(os.getpid()))
        wanted = microseconds.isdecimal() and pid == str(os.getpid())
        return cls(address, int(microseconds) / 1e6 if wanted else 0.0)

    def ready(self, status: str) -> None:
        """All is served."""
        self._say("READY=1", status)

    def reloading(self, status: str) -> None:
        """A reload is under way; `ready` ends it."""
        self._say(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // _NANOSECONDS}", status)

    def stopping(self, status: str) -> None:
        """The end has begun."""
        self._say("STOPPING=1", status)

    def alive(self) -> None:
        """Requests are answered."""
        self._say("WATCHDOG=1", "", patience=0.0)

    def status(self, status: str) -> None:
        """Say how things are, in words."""
        if status != self._status:
            self._say("", status, patience=0.0)

    def _say(self, state: str, status: str, patience: float = 1.0) -> None:
        """Say it; where the manager's queue is full, wait so many seconds for what it must not miss."""
        if not self.address:
            return
        lines = [state] if state else []
        if status:
            self._status = status
            lines.append(f"STATUS={status}")
        name = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:  # a manager that is gone is no trouble
            wire.settimeout(patience)
            wire.sendto("\n".join(lines).encode(), name)
