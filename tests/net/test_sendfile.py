"""Files to sockets without a copy through Python."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fakes import in_loop, turns
from termserver.errors import ClientDisconnected
from termserver.net.endings import Waiters
from termserver.net.sendfile import send_file


class Wire:
    """A connection, as far as `send_file` looks at it."""

    def __init__(self, handle: socket.socket | None) -> None:
        self.transport: Any = SimpleNamespace(getHandle=lambda: handle)
        self.lost = False
        self.count = 0
        self.waiters = Waiters()

    def sent(self, size: int) -> None:
        self.count += size


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    for each in (ours, theirs):
        each.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Any]:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(3_000_000))
    with path.open("rb") as opened:
        yield opened


async def read(theirs: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await asyncio.get_running_loop().sock_recv(theirs, 1 << 20)
    return data


@pytest.mark.parametrize(("offset", "count"), [(0, 3_000_000), (1, 10), (2_999_999, 1), (5, 0)])
def test_part_is_sent_and_counted(pair: tuple[socket.socket, socket.socket], file: Any, offset: int, count: int) -> None:
    @in_loop
    async def main() -> None:
        ours, theirs = pair
        wire = Wire(ours)
        sending = asyncio.ensure_future(send_file(wire, file.fileno(), offset, count))
        assert await read(theirs, count) == os.pread(file.fileno(), count, offset)
        assert await sending == wire.count == count

    main()


def test_file_that_ends_early_is_told_by_the_count(pair: tuple[socket.socket, socket.socket], file: Any) -> None:
    @in_loop
    async def main() -> None:
        assert await send_file(Wire(pair[0]), file.fileno(), 2_999_990, 100) == 10

    main()


@pytest.mark.parametrize("how", ["lost while waiting", "closed by the peer", "lost before", "no handle"])
def test_lost_client_is_told_and_no_descriptor_stays(pair: tuple[socket.socket, socket.socket], file: Any, how: str) -> None:
    @in_loop
    async def main() -> None:
        ours, theirs = pair
        wire = Wire(None if how == "no handle" else ours)
        wire.lost = how == "lost before"
        before = len(os.listdir("/proc/self/fd"))
        sending = asyncio.ensure_future(send_file(wire, file.fileno(), 0, 3_000_000))
        await turns()
        if how == "lost while waiting":
            wire.lost = True
            wire.waiters.wake()
        elif how == "closed by the peer":
            theirs.close()
            before -= 1
        with pytest.raises(ClientDisconnected):
            await sending
        assert len(os.listdir("/proc/self/fd")) == before

    main()


def test_cancelled_send_leaves_no_descriptor_and_no_writer(pair: tuple[socket.socket, socket.socket], file: Any) -> None:
    @in_loop
    async def main() -> None:
        before = len(os.listdir("/proc/self/fd"))
        sending = asyncio.ensure_future(send_file(Wire(pair[0]), file.fileno(), 0, 3_000_000))
        await turns()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert len(os.listdir("/proc/self/fd")) == before

    main()
