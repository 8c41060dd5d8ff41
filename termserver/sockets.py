"""Listening sockets: bound from `config.Bind`, adopted from a descriptor, cleaned up. No Twisted, no event loop."""

import contextlib
import os
import socket
import stat
from pathlib import Path
from typing import Any

from termserver.errors import ListenError


def bind_tcp(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Bind every address that `host` stands for; port 0 takes one free port for all. Raises `ListenError`."""
    listeners: list[socket.socket] = []
    try:
        for family, address in _addresses(host, port):
            if port == 0 and listeners:
                address = (address[0], listeners[0].getsockname()[1], *address[2:])
            listener = socket.socket(family, socket.SOCK_STREAM)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen(backlog)
            listener.setblocking(False)
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that DNS cannot hold
        for listener in listeners:
            listener.close()
        message = f"cannot listen on {host}:{port}: {getattr(error, 'strerror', None) or error}"
        raise ListenError(message) from error
    return listeners


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def bind_unix(path: str, backlog: int) -> socket.socket:
    """Bind a Unix socket, mode 0666 as daphne's; one that a dead server left is replaced. Raises `ListenError`."""
    remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        Path(path).chmod(0o666)
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        message = f"cannot listen on unix:{path}: {error.strerror or error}"
        raise ListenError(message) from error
    listener.setblocking(False)
    return listener


def remove_stale(path: str) -> None:
    """Remove the socket that a dead server left; nothing else (`ListenError`)."""
    try:
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            message = f"cannot listen on unix:{path}: the file exists and is no socket"
            raise ListenError(message)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)
        except OSError as error:
            message = f"cannot listen on unix:{path}: {error.strerror or error}"
            raise ListenError(message) from error
        else:
            message = f"cannot listen on unix:{path}: another server listens there"
            raise ListenError(message)


def adopt(descriptor: int, backlog: int) -> socket.socket:
    """Take over an inherited stream socket, whatever its family. Raises `ListenError`."""
    try:
        listener = _duplicate(descriptor)
    except OSError as error:
        raise ListenError(f"cannot listen on descriptor {descriptor}: {error.strerror}") from error
    if listener.type != socket.SOCK_STREAM:
        listener.close()
        raise ListenError(f"cannot listen on descriptor {descriptor}: it is no stream socket")
    try:
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise ListenError(f"cannot listen on descriptor {descriptor}: {error.strerror}") from error
    listener.setblocking(False)
    return listener


def _duplicate(descriptor: int) -> socket.socket:
    number = os.dup(descriptor)
    try:
        return socket.socket(fileno=number)
    except OSError:
        os.close(number)
        raise


def describe(listener: socket.socket) -> str:
    """Give the words of daphne's log line, which people grep for."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"UNIX socket {name}"
    host = f"[{name[0]}]" if listener.family == socket.AF_INET6 else name[0]
    return f"TCP address {host}:{name[1]}"


def remove_unix(path: str, inode: int) -> None:
    """Remove the file of a Unix socket that was ours; one that another server has put in its place stays."""
    with contextlib.suppress(OSError):
        if Path(path).stat().st_ino == inode:
            Path(path).unlink()
