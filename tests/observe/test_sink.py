"""LineSink: lines go out whole and in order, nobody waits for them, and every lost one is counted (spec row R19)."""

import contextlib
import errno
import fcntl
import os
import pathlib
import queue
import select
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest

from termserver.errors import ConfigError
from termserver.observe import sink as module
from termserver.observe.sink import LineSink

PATIENCE = 30.0  # seconds until a hung test fails; nothing waits that long when all is well
LINE = "x" * 99 + "\n"


class Notices:
    """What would be said on standard error."""

    def __init__(self) -> None:
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.say = self._said.put

    def wait_next(self) -> str:
        return self._said.get(timeout=PATIENCE)

    def none_left(self) -> bool:
        return self._said.empty()


@pytest.fixture
def notices() -> Notices:
    return Notices()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A reader and a writer; the tests close what they close."""
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


def read_all(reader: int) -> bytes:
    """Everything until every writer is closed."""
    with open(reader, "rb", closefd=False) as file:
        return file.read()


def stuffed(writer: int) -> int:
    """Fill a pipe to the brim and answer with how much it took."""
    os.set_blocking(writer, False)
    took = 0
    try:
        while True:
            took += os.write(writer, b"." * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    return took


def hang(sink: LineSink) -> None:
    """Have the sink's thread in a write that does not end: a batch of its own, so that nothing that comes later is in it."""
    sink.write(LINE * 10_000)
    assert len(LINE * 10_000) >= module._BATCH
    while not sink._queue.empty():
        select.select([], [], [], 0)


# What is written


def test_lines_arrive_whole_and_in_order(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = LineSink(writer)
    sink.write(["one\n", "two\n"])
    sink.write("three\n")
    sink.write([])
    assert sink.close(PATIENCE)
    os.close(writer)
    assert read_all(reader) == b"one\ntwo\nthree\n"
    assert sink.dropped == 0


def test_text_no_encoding_knows_is_escaped_not_raised(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = LineSink(writer)
    sink.write("é \udcff\n")
    assert sink.close(PATIENCE)
    os.close(writer)
    assert read_all(reader) == "é \\udcff\n".encode()


def test_a_file_is_appended_to(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "access.log"
    path.write_text("before\n")
    sink = LineSink(path)
    sink.write("after\n")
    assert sink.close(PATIENCE)
    assert path.read_text() == "before\nafter\n"


def test_no_thread_before_the_first_write(tmp_path: pathlib.Path) -> None:
    before = threading.active_count()
    sink = LineSink(tmp_path / "log")
    assert threading.active_count() == before
    assert sink.flush(0)
    assert sink.close(0)
    assert threading.active_count() == before


def test_flush_waits_until_the_lines_are_out(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "log"
    sink = LineSink(path)
    sink.write(LINE * 10_000)
    sink.write(LINE)
    assert sink.flush(PATIENCE)
    assert path.stat().st_size == 10_001 * len(LINE)
    sink.close(PATIENCE)


def test_the_descriptor_of_the_caller_may_be_closed_and_its_number_reused(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = LineSink(writer)
    os.close(writer)
    sink.write(LINE)
    assert sink.close(PATIENCE)
    assert read_all(reader) == LINE.encode()


def test_descriptors_are_not_inherited(tmp_path: pathlib.Path, pipe: tuple[int, int]) -> None:
    for sink in (LineSink(tmp_path / "log"), LineSink(pipe[1])):
        assert not os.get_inheritable(sink._descriptor)
        sink.close(0)


def test_a_line_longer_than_any_pipe(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = LineSink(writer)
    os.close(writer)
    sink.write("x" * 1_000_000 + "\n")
    received: list[bytes] = []
    thread = threading.Thread(target=lambda: received.append(read_all(reader)))
    thread.start()
    assert sink.close(PATIENCE)
    thread.join(PATIENCE)
    assert received == [b"x" * 1_000_000 + b"\n"]


# Who does not read does not stop us


def test_a_pipe_nobody_reads_costs_lines_not_time(pipe: tuple[int, int], notices: Notices) -> None:
    reader, writer = pipe
    stuffing = stuffed(writer)
    sink = LineSink(writer, limit=10 * len(LINE), notices=notices.say)
    for _ in range(1_000):  # each of them would block, if any did
        sink.write(LINE)
    assert sink.dropped == 990
    assert "does not keep up" in notices.wait_next()
    os.close(writer)
    received = bytearray()
    while len(received) < stuffing + 10 * len(LINE):
        received += os.read(reader, 65_536)
    assert received[stuffing:] == LINE.encode() * 10
    assert notices.wait_next() == f"termserver: descriptor {writer} can be written again; lines lost: 990\n"
    sink.write(LINE)
    assert sink.close(PATIENCE)
    assert read_all(reader) == LINE.encode()
    assert notices.none_left()


def test_trouble_comes_back_and_is_told_again(pipe: tuple[int, int], notices: Notices) -> None:
    _, writer = pipe
    sink = LineSink(writer, limit=len(LINE), notices=notices.say)
    sink.write(LINE * 2)
    assert "dropped" in notices.wait_next()
    sink.write(LINE)
    assert "again; lines lost: 2\n" in notices.wait_next()
    assert sink.flush(PATIENCE)
    sink.write(LINE * 3)
    assert "dropped" in notices.wait_next()
    sink.write(LINE)
    assert "again; lines lost: 3\n" in notices.wait_next()
    assert sink.dropped == 5
    sink.close(PATIENCE)


def test_close_does_not_wait_for_a_reader_that_never_comes(pipe: tuple[int, int], notices: Notices) -> None:
    _, writer = pipe
    stuffed(writer)
    sink = LineSink(writer, notices=notices.say)
    hang(sink)
    hanging = sink._thread
    assert hanging is not None
    sink.write(LINE * 2)
    assert not sink.flush(0)
    assert not sink.close(0)
    assert sink.dropped == 2
    assert "does not keep up" in notices.wait_next()
    assert notices.wait_next() == f"termserver: descriptor {writer} was closed; lines lost: 2\n"
    os.close(pipe[0])  # its write fails with EPIPE, and it goes
    hanging.join(PATIENCE)
    assert not hanging.is_alive()


def test_close_in_the_middle_of_a_write_with_nothing_queued(pipe: tuple[int, int], notices: Notices) -> None:
    reader, writer = pipe
    stuffed(writer)
    sink = LineSink(writer, notices=notices.say)
    hang(sink)
    thread = sink._thread
    assert thread is not None
    assert not sink.close(0)
    assert notices.none_left()
    os.close(writer)
    assert read_all(reader).endswith(LINE.encode() * 10_000)
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_after_close_lines_are_counted_only(tmp_path: pathlib.Path) -> None:
    sink = LineSink(tmp_path / "log")
    assert sink.close(0)
    assert sink.close(0)
    sink.write(LINE * 3)
    sink.reopen()
    assert sink.dropped == 3
    assert sink._thread is None


# What fails


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="no /dev/full")
def test_enospc_is_counted_and_told_once(notices: Notices) -> None:
    sink = LineSink("/dev/full", notices=notices.say)
    for _ in range(5):
        sink.write(LINE * 2)
        assert sink.flush(PATIENCE)
    assert sink.dropped == 10
    assert notices.wait_next() == (
        "termserver: cannot write to /dev/full (No space left on device); lines are dropped until that is over\n"
    )
    assert notices.none_left()
    assert sink.close(PATIENCE)
    assert notices.wait_next() == "termserver: /dev/full was closed; lines lost: 10\n"


def test_epipe_is_counted_and_told_once(pipe: tuple[int, int], notices: Notices) -> None:
    reader, writer = pipe
    sink = LineSink(writer, notices=notices.say)
    os.close(reader)
    for _ in range(5):
        sink.write(LINE)
        assert sink.flush(PATIENCE)
    assert sink.dropped == 5
    assert "(Broken pipe)" in notices.wait_next()
    assert notices.none_left()
    sink.close(PATIENCE)


def test_ebadf_a_descriptor_that_cannot_be_written(pipe: tuple[int, int], notices: Notices) -> None:
    sink = LineSink(pipe[0], notices=notices.say)
    sink.write(LINE)
    assert sink.flush(PATIENCE)
    assert sink.dropped == 1
    assert "(Bad file descriptor)" in notices.wait_next()
    sink.close(PATIENCE)


def test_ebadf_a_descriptor_that_was_never_open(pipe: tuple[int, int], notices: Notices) -> None:
    os.close(pipe[1])
    sink = LineSink(pipe[1], notices=notices.say)
    sink.write(LINE)
    assert sink.flush(PATIENCE)
    assert sink.dropped == 1
    assert sink.close(PATIENCE)


def test_a_standard_stream_closed_from_the_start_is_nobodys(monkeypatch: pytest.MonkeyPatch, notices: Notices) -> None:
    monkeypatch.setattr(sys, "__stdout__", None)
    sink = LineSink(1, notices=notices.say)
    assert sink._descriptor == -1
    sink.write(LINE)
    assert sink.flush(PATIENCE)
    assert notices.wait_next().startswith("termserver: cannot write to standard output (")
    assert sink.close(PATIENCE)


def test_eagain_a_descriptor_somebody_made_nonblocking(monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]) -> None:
    waiting = threading.Event()
    wait = module._wait_until_writable

    def tell_and_wait(descriptor: int) -> None:
        waiting.set()
        wait(descriptor)

    monkeypatch.setattr(module, "_wait_until_writable", tell_and_wait)
    reader, writer = pipe
    stuffing = stuffed(writer)
    os.set_blocking(writer, False)
    sink = LineSink(writer)
    os.close(writer)
    sink.write(LINE)
    assert waiting.wait(PATIENCE)
    assert os.read(reader, stuffing)
    assert sink.close(PATIENCE)
    assert read_all(reader).endswith(LINE.encode())
    assert sink.dropped == 0


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int], notices: Notices) -> None:
    def refuse(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    sink = LineSink(pipe[1], notices=notices.say)
    with monkeypatch.context() as context:
        context.setattr(threading.Thread, "start", refuse)
        sink.write(LINE)
    assert sink.dropped == 1
    assert "no thread" in notices.wait_next()
    sink.write(LINE)
    assert "again; lines lost: 1\n" in notices.wait_next()
    assert sink.close(PATIENCE)


def test_a_line_cut_short_is_ended_before_the_next_reader_gets_one(tmp_path: pathlib.Path, notices: Notices) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    first = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink = LineSink(path, notices=notices.say)
    sink.write("x" * 1_000_000 + "\n" + LINE)
    os.set_blocking(first, True)
    assert os.read(first, 1) == b"x"
    os.close(first)
    assert "(Broken pipe)" in notices.wait_next()
    assert sink.flush(PATIENCE)
    assert sink.dropped == 2
    sink.write("lost\n")  # nobody there: the cut line stays cut
    assert sink.flush(PATIENCE)
    assert sink.dropped == 3
    second = os.open(path, os.O_RDONLY)
    sink.write("next\n")
    received = b""
    while not received.endswith(b"next\n"):
        received += os.read(second, 65_536)
    assert received.endswith(b"x\nnext\n") or received == b"\nnext\n"
    assert "again; lines lost: 3\n" in notices.wait_next()
    sink.close(PATIENCE)
    os.close(second)


def test_without_notices_standard_error_is_told(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    saved = os.dup(2)
    module._standard_error.cache_clear()
    os.dup2(writer, 2)
    try:
        module._standard_error()
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    sink = LineSink(writer, limit=1)
    sink.write(LINE)
    assert os.read(reader, 4096).startswith(f"termserver: cannot write to descriptor {writer} (".encode())
    sink.close(0)
    module._standard_error().close(PATIENCE)
    module._standard_error.cache_clear()


def test_the_teller_says_nothing_of_its_own_trouble() -> None:
    module._standard_error.cache_clear()
    teller = module._standard_error()
    teller._limit = 1
    module._tell_standard_error(LINE)
    assert teller.dropped == 1
    teller.close(PATIENCE)
    module._standard_error.cache_clear()


# Rotation


def test_reopen_goes_on_in_a_new_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "access.log"
    sink = LineSink(str(path))
    sink.write("old\n")
    assert sink.flush(PATIENCE)
    path.rename(tmp_path / "access.log.1")
    sink.write("still old\n")
    sink.reopen()
    sink.write("new\n")
    assert sink.close(PATIENCE)
    assert (tmp_path / "access.log.1").read_text() == "old\nstill old\n"
    assert path.read_text() == "new\n"


def test_reopen_before_the_first_line(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "access.log"
    sink = LineSink(path)
    path.unlink()
    sink.reopen()
    assert sink.flush(PATIENCE)
    assert path.exists()
    sink.close(PATIENCE)


def test_reopen_that_fails_keeps_the_old_file(tmp_path: pathlib.Path, notices: Notices) -> None:
    path = tmp_path / "access.log"
    sink = LineSink(path, notices=notices.say)
    path.rename(tmp_path / "old")
    path.mkdir()
    sink.reopen()
    assert notices.wait_next().endswith("Is a directory; going on with the old one\n")
    sink.write(LINE)
    assert sink.close(PATIENCE)
    assert (tmp_path / "old").read_text() == LINE


def test_reopen_leaves_a_descriptor_alone(pipe: tuple[int, int]) -> None:
    sink = LineSink(pipe[1])
    sink.reopen()
    assert sink._thread is None
    sink.close(0)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        pytest.param("missing/log", "No such file or directory", id="no directory"),
        pytest.param(".", "Is a directory", id="a directory"),
        pytest.param("fifo", os.strerror(errno.ENXIO), id="a fifo without a reader"),
    ],
)
def test_a_path_that_cannot_be_opened_says_so_at_once(tmp_path: pathlib.Path, name: str, reason: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match=reason):
        LineSink(tmp_path / name)


# Several processes


def in_a_fork(job: Callable[[], bool]) -> int:
    """Run `job` in a child; answer with the child's process id. It exits with 0 when the job answers True."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: "multi-threaded, may deadlock"; that it does not is what is tested
        child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if job() else 2
        finally:
            os._exit(status)
    return child


def exit_status(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_has_a_thread_and_a_queue_of_its_own(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = LineSink(writer)
    os.close(writer)
    sink.write("parent\n")
    assert sink.flush(PATIENCE)
    sink._lock.acquire()  # as if another thread were writing just now

    def write_and_close() -> bool:
        sink.write("child\n")
        return sink.close(PATIENCE)

    child = in_a_fork(write_and_close)
    sink._lock.release()
    assert exit_status(child) == 0
    sink.write("parent again\n")
    assert sink.close(PATIENCE)
    assert read_all(reader) == b"parent\nchild\nparent again\n"


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_shared_stream_is_written_under_a_lock(kind: str) -> None:
    if kind == "pipe":
        reader, writer = os.pipe()
    else:
        reader, writer = (end.detach() for end in socket.socketpair())
    status_reader, status_writer = os.pipe()
    go_reader, go_writer = os.pipe()

    def be_another_sink_in_the_middle_of_a_line() -> bool:
        fcntl.lockf(writer, fcntl.LOCK_EX)
        os.write(writer, b"first half, ")
        os.write(status_writer, b"!")
        os.read(go_reader, 1)
        return os.write(writer, b"second half\n") > 0

    child = in_a_fork(be_another_sink_in_the_middle_of_a_line)
    assert os.read(status_reader, 1) == b"!"
    sink = LineSink(writer)
    sink.write(LINE)
    assert not sink.flush(0)
    os.write(go_writer, b"!")
    assert exit_status(child) == 0
    assert sink.close(PATIENCE)
    os.close(writer)
    assert read_all(reader) == b"first half, second half\n" + LINE.encode()
    for end in (reader, status_reader, status_writer, go_reader, go_writer):
        os.close(end)


def test_where_a_stream_cannot_be_locked_it_is_written_all_the_same(monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "no")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    reader, writer = pipe
    sink = LineSink(writer)
    os.close(writer)
    sink.write(LINE)
    assert sink.close(PATIENCE)
    assert read_all(reader) == LINE.encode()
    assert select.select([reader], [], [], 0)[0]
