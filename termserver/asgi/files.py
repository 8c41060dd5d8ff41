"""The files behind `http.response.pathsend` and `http.response.zerocopysend`: which bytes are meant, and reading them off the loop."""

import asyncio
import contextlib
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import PurePath
from types import TracebackType
from typing import Final, Self

from termserver.errors import InvalidMessage

_LARGEST: Final = (1 << 63) - 1  # off_t
_COPY_SIZE: Final = 262_144  # bytes per read where the wire cannot take a descriptor


class FileTooShort(InvalidMessage):
    """A file ended before the bytes that were announced: what is on the wire already is void."""

    def __init__(self, missing: int) -> None:
        """`missing` in bytes."""
        super().__init__(f"the file ended {missing} bytes short of what was to be sent")


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
    opening = asyncio.get_running_loop().run_in_executor(None, _open, path)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unwanted)  # the thread opens it all the same
        raise


def _close_unwanted(opening: "asyncio.Future[FileSource]") -> None:
    with contextlib.suppress(OSError, InvalidMessage, asyncio.CancelledError), opening.result():
        pass


def _open(path: str) -> FileSource:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe without a writer would wait for one
    except ValueError as error:  # a zero byte, a lone surrogate
        raise InvalidMessage(f"pathsend takes a path, not {path!r}: {error}") from error
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        raise InvalidMessage(f"pathsend takes a regular file, which {path!r} is not")
    return FileSource(descriptor, 0, facts.st_size)


def open_given(file: object, offset: object, count: object) -> FileSource:
    """Take a file that the application opened and will close: an object with `fileno()`. Raises `InvalidMessage`."""
    try:
        descriptor = file if isinstance(file, int) else file.fileno()  # type: ignore[attr-defined]  # any object that has it
        facts = os.fstat(descriptor)
    except (AttributeError, TypeError, ValueError, OverflowError, OSError) as error:
        raise InvalidMessage(f"zerocopysend takes an open file with a descriptor, not {file!r:.200}: {error}") from error
    if not stat.S_ISREG(facts.st_mode):
        raise InvalidMessage(f"zerocopysend takes a regular file, which {file!r:.200} is not")
    if offset is None:
        offset = os.lseek(descriptor, 0, os.SEEK_CUR)
    if count is None and isinstance(offset, int):
        count = max(0, facts.st_size - offset)
    if not (isinstance(offset, int) and isinstance(count, int) and 0 <= offset <= _LARGEST and 0 <= count <= _LARGEST - offset):
        raise InvalidMessage(f"offset and count of zerocopysend are byte counts, not {offset!r} and {count!r}")
    return FileSource(descriptor, offset, count)


async def copy_file(source: FileSource, write: Callable[[bytes], Awaitable[None]]) -> None:
    """Read the file in a thread and hand it on part by part. Raises `FileTooShort`."""
    loop = asyncio.get_running_loop()
    position, end = source.offset, source.offset + source.count
    while position < end:
        data = await loop.run_in_executor(None, os.pread, source.descriptor, min(_COPY_SIZE, end - position), position)
        if not data:
            raise FileTooShort(end - position)
        await write(data)
        position += len(data)
