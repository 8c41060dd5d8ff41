"""The control socket: a Unix socket of the owner's alone, through which `termserver status|reload|stop|scale|healthcheck` ask.

A question is one JSON line, an answer another (`channel.py`). Answers to what takes time come when it is done, so that a script that
reloads knows what became of it.
"""

import contextlib
import os
import select
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from termserver.channel import Channel, Said
from termserver.errors import ControlError, ListenError
from termserver.sockets import remove_stale

_MOST_CLIENTS = 32


def default_path(application: str, environment: dict[str, str], user: int) -> Path:
    """Give the place of the socket: in the runtime directory of the service or the user, else in one of ours under /tmp."""
    name = "".join(character if character.isalnum() or character in "._-" else "-" for character in application) or "server"
    for variable in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        if directory := environment.get(variable, "").partition(":")[0]:
            return Path(directory) / f"termserver-{name}.sock"
    return Path(f"/tmp/termserver-{user}") / f"{name}.sock"  # noqa: S108 - `listen` and `ask` check whose directory it is


def listen(path: Path) -> socket.socket:
    """Open the socket, for its owner only. Raises `ListenError`."""
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _check_directory(path.parent, {0, os.geteuid()})
        remove_stale(str(path))
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except ListenError as error:
        raise ListenError(f"cannot open the control socket: {error} (--control-socket names another place)") from None
    except OSError as error:
        raise ListenError(f"cannot open the control socket {path}: {error.strerror or error}") from error
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen(16)
    except OSError as error:
        listener.close()
        raise ListenError(f"cannot open the control socket {path}: {error.strerror or error}") from error
    finally:
        os.umask(before)
    listener.setblocking(False)
    return listener


def _check_directory(directory: Path, owners: set[int] | None) -> None:
    """Refuse a directory in which somebody else could put a socket in the place of ours. `owners` None: any, for root who asks."""
    found = directory.stat()
    others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
    if others_write or (owners is not None and found.st_uid not in owners):
        raise PermissionError(1, f"{directory} belongs to somebody else, or others may write there")


class Clients:
    """Those who asked something."""

    def __init__(self, listener: socket.socket) -> None:
        """Nobody asked yet."""
        self.listener = listener
        self.channels: list[Channel] = []

    def accept(self) -> Channel | None:
        """Take the next one, unless there are too many."""
        with contextlib.suppress(OSError):
            connected, _ = self.listener.accept()
            if len(self.channels) < _MOST_CLIENTS:
                channel = Channel(connected)
                self.channels.append(channel)
                return channel
            connected.close()
        return None

    def drop(self, channel: Channel) -> None:
        """Somebody is gone."""
        channel.close()
        self.channels.remove(channel)


def ask(path: Path, question: str, seconds: float, **facts: object) -> Iterator[Said]:
    """Ask a running server; give its answers as they come, the last of which has a key `done`. Raises `ControlError`."""
    deadline = time.monotonic() + seconds
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connected:
        connected.settimeout(seconds)
        try:
            _check_directory(path.parent, {0, os.geteuid()} if os.geteuid() else None)
            connected.connect(str(path))
        except OSError as error:
            raise ControlError(f"no server answers at {path}: {error.strerror or error}") from error
        channel = Channel(connected)
        channel.say(question, **facts)
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        while not channel.closed:
            if not poll.poll(max(deadline - time.monotonic(), 0) * 1_000):
                raise ControlError(f"the server at {path} did not answer within {seconds:g} s")
            for said in channel.hear():
                yield said
                if said.get("done"):
                    return
    raise ControlError(f"the server at {path} ended before it had answered")
