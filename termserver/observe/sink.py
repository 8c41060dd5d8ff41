"""Lines to a descriptor or a file, without ever waiting for it (spec row R19).

`write` joins its lines, puts them on a queue bounded in bytes, and returns; one daemon thread per sink, started by the first `write`,
takes what has gathered and writes it in large pieces. A disk that is full, a reader that is gone or asleep: lines are dropped and
counted, one notice tells when that begins and one, with the number lost, when it is over.

Workers share descriptors, and no line may land inside another's. A regular file is opened for appending and takes any size in one
piece; a pipe or socket only PIPE_BUF bytes (POSIX write(2)), so there every process writes under a record lock. Writing in pieces of
PIPE_BUF needs no lock, but under load each piece waits 5 ms for the interpreter lock: 0.8 MB/s, less than one busy worker says.

Rejected: O_NONBLOCK on stdout or stderr (the open file is shared with the shell and every child, and breaks them); a lock that the
thread holds while it writes; waking the thread for every line (the owner gathers lines instead: `AccessLog`).
"""

import atexit
import contextlib
import functools
import os
import select
import stat
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue

from termserver.errors import ConfigError

if sys.platform != "win32":  # pragma: no branch
    import fcntl

LIMIT = 4 * 1024 * 1024
_BATCH = 256 * 1024  # joined at once by the thread: bounds the copy
_TOO_SLOW = "its reader does not keep up"


class LineSink:
    """A bounded, never-blocking way to write lines to `target`: a descriptor, or the path of a file or FIFO.

    A path is opened at once and has to be writable (`ConfigError`); a descriptor is duplicated, so that nobody who closes it later makes
    us write into whatever gets its number. `limit` bytes may wait; `notices` is given one line of text when trouble begins and one when
    it is over, from any thread, and must not block (default: standard error).
    """

    __slots__ = (
        "__weakref__",
        "_accepted",
        "_closed",
        "_descriptor",
        "_dropped_before_trouble",
        "_finished",
        "_limit",
        "_lock",
        "_notices",
        "_queue",
        "_shared",
        "_target",
        "_thread",
        "_torn",
        "dropped",
    )

    def __init__(self, target: int | str | os.PathLike[str], *, limit: int = LIMIT, notices: Callable[[str], object] | None = None) -> None:
        """Open or duplicate `target`; no thread yet."""
        self.dropped = 0
        self._target = target
        self._limit = limit
        self._notices = notices or _tell_standard_error
        self._closed = False
        self._descriptor = _open(target)
        self._shared = _is_stream(self._descriptor)
        self._torn = False  # the last write ended inside a line
        self._be_fresh()
        _sinks.add(self)

    def _be_fresh(self) -> None:
        """Nothing queued, no thread: at birth, and in a forked child, where neither the thread nor the holder of the lock exist."""
        self._lock = threading.RLock()  # reentrant: a finalizer or signal handler that logs may interrupt `write`
        self._queue: SimpleQueue[bytes | Callable[[], object] | None] = SimpleQueue()
        self._accepted = 0  # bytes put on the queue; written by the callers, under the lock
        self._finished = 0  # bytes written or dropped by the thread; written by the thread only
        self._thread: threading.Thread | None = None
        self._dropped_before_trouble: int | None = None  # not None: lines are being lost

    # The owner's side

    def write(self, lines: list[str] | str) -> None:
        r"""Queue `lines`, each of which ends in "\n"; never waits. What does not fit, or comes after `close`, is dropped and counted."""
        data = (lines if isinstance(lines, str) else "".join(lines)).encode("utf-8", "backslashreplace")
        if not data:
            return
        with self._lock:
            if self._closed:
                self.dropped += data.count(b"\n")
            elif self._accepted - self._finished + len(data) > self._limit:
                self._lose(data.count(b"\n"), _TOO_SLOW)
            elif self._has_thread():
                self._accepted += len(data)
                self._queue.put(data)
            else:
                self._lose(data.count(b"\n"), "no thread can be started")

    def flush(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until everything queued so far has been written or dropped. False: it was not."""
        if self._thread is None:
            return True
        done = threading.Event()
        self._queue.put(done.set)
        return done.wait(timeout)

    def reopen(self) -> None:
        """Log rotation: open the path anew, after the lines queued so far; happens in the thread. A descriptor stays as it is."""
        with self._lock:
            if not isinstance(self._target, int) and not self._closed and self._has_thread():
                self._queue.put(self._open_anew)

    def close(self, timeout: float) -> bool:
        """Write what can be written within `timeout` seconds, then close. False: lines were left behind (dropped, counted, told)."""
        with self._lock:
            if self._closed:
                return True
            self._closed = True
            thread = self._thread
        if thread is None:
            _close(self._descriptor)
            return True
        self._queue.put(None)
        thread.join(timeout)
        complete = not thread.is_alive()
        if not complete:
            self._abandon_queue()
        if self._dropped_before_trouble is not None:
            self._notices(f"termserver: {self._name} was closed; lines lost: {self.dropped - self._dropped_before_trouble}\n")
        return complete

    def _has_thread(self) -> bool:
        """Start the thread when there is none. False: the system has none to give (asked again at the next write)."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name=f"termserver lines to {self._name}", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False
            self._thread = thread
        return True

    def _abandon_queue(self) -> None:
        """Take from a thread that hangs in a write what it would do next, and let it end if it ever comes back."""
        lost = 0
        try:
            while True:
                item = self._queue.get_nowait()
                lost += item.count(b"\n") if isinstance(item, bytes) else 0
        except Empty:
            self._queue.put(None)
        if lost:
            self._lose(lost, _TOO_SLOW)

    # Trouble: begins with the first line lost, is over when everything that waited has been written

    def _lose(self, lines: int, reason: str) -> None:
        with self._lock:
            begins = self._dropped_before_trouble is None
            if begins:
                self._dropped_before_trouble = self.dropped
            self.dropped += lines
        if begins:
            self._notices(f"termserver: cannot write to {self._name} ({reason}); lines are dropped until that is over\n")

    def _recover(self, dropped_before: int) -> None:
        with self._lock:
            self._dropped_before_trouble = None
            lost = self.dropped - dropped_before
        self._notices(f"termserver: {self._name} can be written again; lines lost: {lost}\n")

    @property
    def _name(self) -> str:
        standard: dict[object, str] = {1: "standard output", 2: "standard error"}
        return standard.get(self._target) or (f"descriptor {self._target}" if isinstance(self._target, int) else str(self._target))

    # The thread's side

    def _run(self) -> None:
        while True:
            data, command = self._gather()
            if data:
                written = self._write_all(data)
                self._finished += len(data)
                before = self._dropped_before_trouble
                if written and before is not None and self._accepted == self._finished:
                    self._recover(before)
            if command is None:
                break
            command()
        _close(self._descriptor)

    def _gather(self) -> tuple[bytes, Callable[[], object] | None]:
        """Wait for something to do: lines, as many as are there, and what is to be done after them (None: end)."""
        pieces: list[bytes] = []
        size = 0
        item = self._queue.get()
        while isinstance(item, bytes):
            pieces.append(item)
            size += len(item)
            if size >= _BATCH:
                return b"".join(pieces), _nothing
            try:
                item = self._queue.get_nowait()
            except Empty:
                return b"".join(pieces), _nothing
        return b"".join(pieces), item

    def _write_all(self, lines: bytes) -> bool:
        """Write, however long it takes; on an error drop the rest. EINTR is Python's to retry (PEP 475)."""
        mended = int(self._torn)  # a line that was cut short gets its end first
        data = b"\n" * mended + lines
        start = 0
        try:
            with _locked(self._descriptor) if self._shared else contextlib.nullcontext():
                while start < len(data):
                    start += self._write_some(memoryview(data)[start:])
        except OSError as error:
            if start:
                self._torn = data[start - 1] != ord("\n")
            self._lose(data.count(b"\n", max(start, mended)), error.strerror or type(error).__name__)
            return False
        self._torn = False
        return True

    def _write_some(self, data: memoryview) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            _wait_until_writable(self._descriptor)
            return 0

    def _open_anew(self) -> None:
        try:
            descriptor = _open(self._target)
        except ConfigError as error:
            self._notices(f"termserver: {error}; going on with the old one\n")
            return
        _close(self._descriptor)
        self._descriptor, self._shared, self._torn = descriptor, _is_stream(descriptor), False


def _nothing() -> None:
    """Do nothing after these lines."""


def _open(target: int | str | os.PathLike[str]) -> int:
    """Return a descriptor of our own, not inheritable (PEP 446: O_CLOEXEC); -1 for a standard stream that was closed from the start."""
    if isinstance(target, int):
        # Trap: started with `>&-`, number 1 soon belongs to a socket.
        if {1: sys.__stdout__, 2: sys.__stderr__}.get(target, True) is None:
            return -1
        try:
            return os.dup(target)
        except OSError:
            return -1
    # O_NONBLOCK: a FIFO without a reader fails at once instead of hanging, and a write to it never hangs the thread for good.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    try:
        return os.open(target, flags, 0o644)
    except OSError as error:
        message = f"cannot open the log {os.fspath(target)!r} for appending: {error.strerror}"
        raise ConfigError(message) from error


def _is_stream(descriptor: int) -> bool:
    """Whether writes of several processes may be mixed: a pipe, a FIFO or a socket (the journal)."""
    if descriptor < 0:
        return False
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


@contextlib.contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    """Keep other processes' sinks out; where the system cannot lock a pipe, go on without."""
    if sys.platform == "win32":  # pragma: no cover
        yield
        return
    with contextlib.suppress(OSError):
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.lockf(descriptor, fcntl.LOCK_UN)


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)


def _wait_until_writable(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()


@functools.cache
def _standard_error() -> LineSink:
    sink = LineSink(2, notices=lambda _: None)
    atexit.register(sink.close, 0.5)
    return sink


def _tell_standard_error(text: str) -> None:
    _standard_error().write(text)


# A child made by fork has neither our threads nor their queues' lines to write (the parent writes those).
_sinks: "weakref.WeakSet[LineSink]" = weakref.WeakSet()


def _be_fresh_in_child() -> None:  # pragma: no cover  (tested, but coverage does not follow a fork)
    for sink in _sinks:
        sink._be_fresh()  # noqa: SLF001  (same module)


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_be_fresh_in_child)
