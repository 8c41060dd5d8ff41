"""Files to sockets without a copy through Python (os.sendfile).

The loops refuse `loop.sendfile` and `add_writer` on a transport's own descriptor. A duplicate of it is another number for the same
socket: once
the transport's buffer is empty nothing else writes there, so the duplicate is written to and waited on.
"""

import asyncio
import os
import socket
from typing import Any, Final, Protocol

from termserver.errors import ClientDisconnected
from termserver.net.endings import Waiters

_PART: Final = 1_048_576  # bytes a call, so that one download leaves the loop to others


class Wire(Protocol):
    """What `send_file` needs to know of a connection."""

    transport: Any
    waiters: Waiters

    @property
    def lost(self) -> bool:
        """Whether nothing can be sent any more."""

    def sent(self, size: int) -> None:
        """Count bytes."""


async def send_file(wire: Wire, descriptor: int, offset: int, count: int) -> int:
    """Send `count` bytes; answer how many there were. Raises `ClientDisconnected`."""
    handle = wire.transport.getHandle()
    if wire.lost or handle is None:
        raise ClientDisconnected("the client has left")
    duplicate = socket.socket(fileno=os.dup(handle.fileno()))
    try:
        return await _send(wire, duplicate, descriptor, offset, count)
    finally:
        duplicate.close()


async def _send(wire: Wire, handle: socket.socket, descriptor: int, offset: int, count: int) -> int:
    position, end = offset, offset + count
    while position < end:
        if wire.lost:
            raise ClientDisconnected("the client has left")
        try:
            size = os.sendfile(handle.fileno(), descriptor, position, min(_PART, end - position))
        except BlockingIOError:
            await _wait_for_room(wire, handle)
            continue
        except ConnectionError as error:
            raise ClientDisconnected(f"the client has left: {error.strerror}") from error
        if not size:
            break
        wire.sent(size)
        position += size
        if position < end:
            await asyncio.sleep(0)
    return position - offset


async def _wait_for_room(wire: Wire, handle: socket.socket) -> None:
    """Wait until the socket takes bytes again, or is lost to its transport: this duplicate would keep it open."""
    loop = asyncio.get_running_loop()
    room = loop.create_future()
    wire.waiters.add(room)
    loop.add_writer(handle, _set_once, room)
    try:
        await room
    finally:
        loop.remove_writer(handle)
        wire.waiters.discard(room)


def _set_once(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
