"""The listening sockets of a service: opened once, inherited by every worker, kept through reloads.

All workers accept from the same sockets. (With SO_REUSEPORT each would have a queue of its own, and what waits in it is lost when the
worker ends.)
"""

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from termserver.config import Bind, Config, Descriptor, Endpoint, Named, Tcp, Unix
from termserver.errors import ListenError
from termserver.sockets import adopt, bind_tcp, bind_unix, describe, remove_unix

MAIN: Final = "main"
REDIRECT: Final = "redirect"

_Key: TypeAlias = tuple[str, Bind, int]  # what for, where; the number tells those apart that are written alike


class Listeners:
    """What is listened at."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._open: dict[_Key, list[socket.socket]] = {}
        self._retired: dict[_Key, list[socket.socket]] = {}  # no longer named; workers that are about to be replaced still serve them
        self._files: dict[Unix, int] = {}

    def take(self, config: Config) -> None:
        """Open what the configuration names and is not open; retire what it does not name. Raises `ListenError`, nothing having changed."""
        there = self._retired | self._open
        opened: dict[_Key, list[socket.socket]] = {}
        try:
            for key in _named(config):
                opened[key] = there.get(key) or self._bind(key[1], config.limits.backlog)
        except ListenError:
            for key, sockets in opened.items():
                if key not in there:
                    self._close(key[1], sockets)
            raise
        self._open = opened
        self._retired = {key: sockets for key, sockets in there.items() if key not in opened}

    def forget(self) -> None:
        """Close what was retired."""
        for key, sockets in self._retired.items():
            self._close(key[1], sockets)
        self._retired = {}

    def _bind(self, bind: Bind, backlog: int) -> list[socket.socket]:
        match bind:
            case Tcp(host, port):
                return bind_tcp(host, port, backlog)
            case Unix(path):
                listener = bind_unix(path, backlog)
                self._files[bind] = Path(path).stat().st_ino
                return [listener]
            case Descriptor(number):
                return [adopt(number, backlog)]
            case Named():
                raise ListenError(f"{bind}: no service manager handed it over")
            case Endpoint(description):
                raise ListenError(f"workers cannot share the Twisted endpoint {description!r}")

    def _close(self, bind: Bind, sockets: list[socket.socket]) -> None:
        if isinstance(bind, Unix) and bind in self._files:
            remove_unix(bind.path, self._files.pop(bind))
        for each in sockets:
            each.close()

    def close(self) -> None:
        """Listen no more."""
        self.forget()
        self._retired, self._open = self._open, {}
        self.forget()

    def hand_on(self) -> list[tuple[str, str, int, list[int]]]:
        """Give purposes, addresses and descriptors, for a successor."""
        return [(purpose, str(bind), count, [each.fileno() for each in sockets]) for (purpose, bind, count), sockets in self._open.items()]

    def adopt(self, config: Config, handed: list[tuple[str, str, int, list[int]]]) -> None:
        """Take over what a predecessor listened at; what the configuration does not name is closed by and by."""
        found = {(purpose, address, count): numbers for purpose, address, count, numbers in handed}
        for key in _named(config):
            purpose, bind, count = key
            numbers = found.pop((purpose, str(bind), count), None)
            if numbers is not None:
                self._open[key] = [socket.socket(fileno=number) for number in numbers]
                if isinstance(bind, Unix):
                    self._files[bind] = Path(bind.path).stat().st_ino
        for numbers in found.values():
            for number in numbers:
                os.close(number)

    @property
    def sockets(self) -> Mapping[str, Sequence[socket.socket]]:
        """Give the sockets by what they are for."""
        found: dict[str, list[socket.socket]] = {MAIN: [], REDIRECT: []}
        for (purpose, _, _), sockets in self._open.items():
            found[purpose] += sockets
        return found

    @property
    def addresses(self) -> list[str]:
        """Give what is listened at, in words."""
        return [describe(each) for sockets in self.sockets.values() for each in sockets]


def _named(config: Config) -> list[_Key]:
    """Give every address with its purpose."""
    binds: list[tuple[str, Bind]] = [(MAIN, bind) for bind in config.bind]
    if config.http_redirect_port is not None:
        hosts = dict.fromkeys(bind.host for bind in config.bind if isinstance(bind, Tcp))
        binds += [(REDIRECT, Tcp(host, config.http_redirect_port)) for host in hosts]
    return [(purpose, bind, binds[:place].count((purpose, bind))) for place, (purpose, bind) in enumerate(binds)]
