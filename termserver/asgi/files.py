"""The files behind `http.response.pathsend` and `http.response.zerocopysend`: which bytes are meant, and reading them off the loop."""

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import PurePath
from types import TracebackType
from typing import Final, Self

from termserver.errors import InvalidMessage

_COPY_SIZE: Final = 262_144  # bytes per read where the wire cannot take a descriptor


class FileSource:
    """`count` bytes of an open file from `offset` on. As a context manager it closes the descriptor."""

    __slots__ = ("count", "descriptor", "offset")

    def __init__(self, descriptor: int, offset: int, count: int) -> None:
        """All in bytes."""
        self.descriptor = descriptor
        self.offset = offset
        self.count = count

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)


async def open_named(path: object) -> FileSource:
    """Open the file at an absolute path, off the loop. Raises `InvalidMessage`, `OSError`."""
    if not isinstance(path, str) or not PurePath(path).is_absolute():
        raise InvalidMessage(f"pathsend takes an absolute path, not {path!r}")
    return await asyncio.get_running_loop().run_in_executor(None, _open, path)


def _open(path: str) -> FileSource:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        raise InvalidMessage(f"pathsend takes a regular file, which {path!r} is not")
    return FileSource(descriptor, 0, facts.st_size)


def open_given(file: object, offset: object, count: object) -> FileSource:
    """Take a file that the application opened and will close: an object with `fileno()`. Raises `InvalidMessage`."""
    descriptor = file if isinstance(file, int) else getattr(file, "fileno", _no_descriptor)()
    if offset is None:
        offset = os.lseek(descriptor, 0, os.SEEK_CUR)
    if count is None:
        count = max(0, os.fstat(descriptor).st_size - offset) if isinstance(offset, int) else 0
    if not isinstance(offset, int) or not isinstance(count, int) or offset < 0 or count < 0:
        raise InvalidMessage(f"offset and count of zerocopysend are byte counts, not {offset!r} and {count!r}")
    return FileSource(descriptor, offset, count)


def _no_descriptor() -> int:
    raise InvalidMessage("zerocopysend takes a file with a descriptor")


async def copy_file(source: FileSource, write: Callable[[bytes], Awaitable[None]]) -> None:
    """Read the file in a thread and hand it on part by part. Raises `InvalidMessage` where it ends too early."""
    loop = asyncio.get_running_loop()
    position, end = source.offset, source.offset + source.count
    while position < end:
        data = await loop.run_in_executor(None, os.pread, source.descriptor, min(_COPY_SIZE, end - position), position)
        if not data:
            raise InvalidMessage(f"the file ended {end - position} bytes short of what was to be sent")
        await write(data)
        position += len(data)
