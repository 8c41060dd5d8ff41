"""Files as a response's body: which bytes are sent, by either way of sending them, and what is refused."""

import asyncio
import os
import pathlib

import pytest

from fakes import HEAD, TAKES_TRAILERS, Log, Message, Talk, body, in_loop, path_of, sender, start, trailers, turns, zero_copy
from termserver.asgi.files import FileSource, open_named
from termserver.errors import ClientDisconnected, InvalidMessage, UnexpectedMessage
from termserver.wire.events import Ending

LENGTH_3 = start(headers=[(b"content-length", b"3")])


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    return Log(caplog)


@pytest.fixture(params=[False, True], ids=["copied", "sendfile"])
def sends_files(request: pytest.FixtureRequest) -> bool:
    """Both ways of sending a file: read in a thread, or left to the kernel."""
    return bool(request.param)


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "ten"
    path.write_bytes(b"0123456789")
    return path


@in_loop
async def test_pathsend_sends_the_file(file: pathlib.Path, sends_files: bool) -> None:
    talk = Talk()
    talk.outlet.sends_files = sends_files
    answer = await talk.run(sender(start(headers=[(b"content-length", b"10")]), path_of(file)))
    assert (answer.body, answer.whole) == (b"0123456789", True)
    assert talk.exchange.sent == 10
    assert talk.engine.ending is Ending.OPEN


@in_loop
async def test_pathsend_without_a_length(file: pathlib.Path, sends_files: bool) -> None:
    talk = Talk()
    talk.outlet.sends_files = sends_files
    answer = await talk.run(sender(start(), path_of(file)))
    assert (answer.body, answer.whole) == (b"0123456789", True)


@in_loop
async def test_pathsend_of_an_empty_file(tmp_path: pathlib.Path, sends_files: bool) -> None:
    (tmp_path / "empty").touch()
    talk = Talk()
    talk.outlet.sends_files = sends_files
    answer = await talk.run(sender(start(), path_of(tmp_path / "empty")))
    assert (answer.body, answer.whole, answer[b"content-length"]) == (b"", True, b"0")


@in_loop
async def test_pathsend_with_trailers(file: pathlib.Path, sends_files: bool) -> None:
    talk = Talk(TAKES_TRAILERS)
    talk.outlet.sends_files = sends_files
    answer = await talk.run(sender(start(trailers=True), path_of(file), trailers((b"x-sum", b"1"))))
    assert (answer.body, answer.trailers) == (b"0123456789", [(b"x-sum", b"1")])


@in_loop
async def test_w25_pathsend_for_head_reads_nothing_and_keeps_the_length(file: pathlib.Path, sends_files: bool) -> None:
    talk = Talk(HEAD)
    talk.outlet.sends_files = sends_files
    answer = await talk.run(sender(start(headers=[(b"content-length", b"10")]), path_of(file)))
    assert (answer.body, answer.whole, answer[b"content-length"]) == (b"", True, b"10")
    assert talk.exchange.sent == 0
    assert talk.engine.ending is Ending.OPEN


@pytest.mark.parametrize(("name", "error"), [("missing", FileNotFoundError), (".", InvalidMessage), ("pipe", InvalidMessage)])
@in_loop
async def test_pathsend_of_what_is_no_file_raises_before_anything_is_written(
    tmp_path: pathlib.Path, name: str, error: type[Exception]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    talk = Talk()
    await talk.send(start())
    with pytest.raises(error):
        await talk.send(path_of(tmp_path / name))
    answer = await talk.run(sender(body(b"sorry")))
    assert (answer.body, answer.whole) == (b"sorry", True)


@pytest.mark.parametrize(
    ("keys", "sent"),
    [
        ({}, b"0123456789"),
        ({"offset": 3}, b"3456789"),
        ({"count": 4}, b"0123"),
        ({"offset": 3, "count": 4}, b"3456"),
        ({"offset": 10}, b""),
        ({"offset": 99}, b""),
        ({"offset": 0, "count": 0}, b""),
        ({"offset": None, "count": None}, b"0123456789"),
    ],
)
@pytest.mark.parametrize("given", ["object", "descriptor"])
@in_loop
async def test_zerocopysend_sends_count_bytes_from_offset_on(
    file: pathlib.Path,
    sends_files: bool,
    keys: Message,
    sent: bytes,
    given: str,
) -> None:
    talk = Talk()
    talk.outlet.sends_files = sends_files
    with file.open("rb") as opened:
        answer = await talk.run(sender(start(), zero_copy(opened if given == "object" else opened.fileno(), **keys)))
        assert not opened.closed
        os.fstat(opened.fileno())  # the application's to close
    assert (answer.body, answer.whole) == (sent, True)
    assert talk.exchange.sent == len(sent)


@in_loop
async def test_zerocopysend_starts_where_the_file_stands(file: pathlib.Path, sends_files: bool) -> None:
    talk = Talk()
    talk.outlet.sends_files = sends_files
    with file.open("rb") as opened:
        opened.seek(7)
        answer = await talk.run(sender(start(), zero_copy(opened)))
    assert answer.body == b"789"


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"9")]], ids=["chunked", "of known length"])
@in_loop
async def test_zerocopysend_mixes_with_body_and_repeats(file: pathlib.Path, sends_files: bool, headers: object) -> None:
    talk = Talk()
    talk.outlet.sends_files = sends_files
    with file.open("rb") as opened:
        answer = await talk.run(
            sender(
                start(headers=headers),
                body(b"ab", more_body=True),
                zero_copy(opened, offset=0, count=3, more_body=True),
                body(b"cd", more_body=True),
                zero_copy(opened, offset=8, more_body=True),
                body(),
            )
        )
    assert (answer.body, answer.whole) == (b"ab012cd89", True)
    assert talk.exchange.sent == 9


@in_loop
async def test_w25_zerocopysend_for_head(file: pathlib.Path, sends_files: bool) -> None:
    talk = Talk(HEAD)
    talk.outlet.sends_files = sends_files
    with file.open("rb") as opened:
        answer = await talk.run(sender(start(), zero_copy(opened, more_body=True), body()))
    assert (answer.body, answer.whole) == (b"", True)


@pytest.mark.parametrize("keys", [{"offset": -1}, {"count": -1}, {"offset": "1"}, {"count": 1.5}, {"offset": 1 << 63}, {"count": 1 << 63}])
@in_loop
async def test_zerocopysend_takes_byte_counts(file: pathlib.Path, keys: Message) -> None:
    talk = Talk()
    await talk.send(start())
    with file.open("rb") as opened:
        with pytest.raises(InvalidMessage, match="byte counts"):
            await talk.send(zero_copy(opened, **keys))
        opened.close()
        with pytest.raises(InvalidMessage, match="descriptor"):
            await talk.send(zero_copy(opened))
    assert (await talk.run(sender(body(b"ok")))).whole


@in_loop
async def test_zerocopysend_of_a_pipe_raises_before_anything_is_written(sends_files: bool) -> None:
    talk = Talk()
    talk.outlet.sends_files = sends_files
    await talk.send(start())
    reader, writer = os.pipe()
    try:
        with pytest.raises(InvalidMessage, match="regular file"):
            await talk.send(zero_copy(reader, offset=0, count=1))
    finally:
        os.close(reader)
        os.close(writer)
    assert (await talk.run(sender(body(b"ok")))).whole


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"20")]], ids=["chunked", "of known length"])
@in_loop
async def test_a_file_shorter_than_announced_is_a_cut(file: pathlib.Path, sends_files: bool, headers: object, log: Log) -> None:
    talk = Talk()
    talk.outlet.sends_files = sends_files
    with file.open("rb") as opened:
        answer = await talk.run(sender(start(headers=headers), zero_copy(opened, count=20)))
    assert not answer.whole
    assert talk.engine.ending is Ending.RESET
    assert len(log.errors) == log.tracebacks == 1
    assert "10 bytes short" in log.errors[0] or log.tracebacks


@in_loop
async def test_a_file_shorter_than_announced_is_a_cut_even_if_the_application_goes_on(file: pathlib.Path, sends_files: bool) -> None:
    talk = Talk()
    talk.outlet.sends_files = sends_files
    await talk.send(start())
    with file.open("rb") as opened, pytest.raises(InvalidMessage, match="10 bytes short"):
        await talk.send(zero_copy(opened, count=20, more_body=True))
    answer = await talk.run(sender(body(b"as if nothing had happened")))
    assert not answer.whole
    assert talk.engine.ending is Ending.RESET


@in_loop
async def test_b10_a_file_longer_than_content_length_raises(file: pathlib.Path, sends_files: bool, log: Log) -> None:
    talk = Talk()
    talk.outlet.sends_files = sends_files
    answer = await talk.run(sender(LENGTH_3, path_of(file)))
    assert len(answer.body) <= 3
    assert len(log.errors) == log.tracebacks == 1


@in_loop
async def test_a_file_waits_for_a_client_that_does_not_read(file: pathlib.Path, sends_files: bool) -> None:
    talk = Talk()
    talk.outlet.sends_files = sends_files
    talk.outlet.writable = False
    await talk.send(start())
    with file.open("rb") as opened:
        sending = asyncio.ensure_future(talk.send(zero_copy(opened, more_body=True)))
        while talk.exchange.waiting_for != "send":
            await turns()
        talk.outlet.writable = True
        await sending
    assert (await talk.run(sender(body()))).body == b"0123456789"


@in_loop
async def test_w20_a_client_lost_while_a_file_is_sent(file: pathlib.Path, sends_files: bool, log: Log) -> None:
    talk = Talk()
    talk.outlet.sends_files = sends_files
    talk.outlet.writable = False
    task = talk.begin(sender(start(), path_of(file)))
    while talk.exchange.waiting_for != "send":
        await turns()
    talk.lose()
    await task
    assert log.quiet


@in_loop
async def test_w20_a_loss_that_only_sendfile_has_seen_ends_the_response_without_an_error(file: pathlib.Path, log: Log) -> None:
    talk = Talk()
    talk.outlet.sends_files = True
    talk.outlet.file_limit = 0
    await talk.run(sender(start(), path_of(file)))
    assert log.quiet
    assert talk.engine.ending is Ending.RESET
    assert talk.outlet.calls == ["finished", "returned"]


@in_loop
async def test_w20_a_client_lost_while_a_file_is_opened(file: pathlib.Path, sends_files: bool) -> None:
    talk = Talk()
    talk.outlet.sends_files = sends_files
    await talk.send(start())
    sending = asyncio.ensure_future(talk.send(path_of(file)))
    await asyncio.sleep(0)
    talk.lose()
    with pytest.raises(ClientDisconnected):
        await sending
    assert not talk.outlet.sent


@in_loop
async def test_a_response_completed_while_a_file_is_opened_is_left_alone(file: pathlib.Path, sends_files: bool) -> None:
    talk = Talk()
    talk.outlet.sends_files = sends_files
    await talk.send(start())
    sending = asyncio.ensure_future(talk.send(path_of(file)))
    await asyncio.sleep(0)
    await talk.send(body(b"x", more_body=True))
    await talk.send(body(b"y"))
    with pytest.raises(UnexpectedMessage):
        await sending
    assert (talk.answer().body, talk.answer().whole) == (b"xy", True)


@in_loop
async def test_a_large_file_is_copied_part_by_part_within_backpressure(tmp_path: pathlib.Path) -> None:
    data = os.urandom(600_000)
    (tmp_path / "large").write_bytes(data)
    talk = Talk()
    answer = await talk.run(sender(start(), path_of(tmp_path / "large")))
    assert answer.body == data
    assert talk.outlet.sent.count(b"\r\n") < 30  # a few large chunks


# ---------------------------------------------------------------------- descriptors


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()


@pytest.mark.parametrize("fails", [False, True], ids=["sent", "refused"])
@in_loop
async def test_the_server_closes_what_it_opened(file: pathlib.Path, sends_files: bool, fails: bool) -> None:
    await asyncio.to_thread(int)  # the thread is there from now on
    before = descriptors()
    talk = Talk()
    talk.outlet.sends_files = sends_files
    await talk.run(sender(*([] if fails else [start()]), path_of(file)))
    await talk.run(sender(start(), path_of(file.parent)))
    assert descriptors() == before


@pytest.mark.parametrize("name", ["ten", "missing", "."])
@in_loop
async def test_a_file_whose_opening_was_cancelled_is_closed(file: pathlib.Path, name: str) -> None:
    await asyncio.to_thread(int)
    before = descriptors()
    opening = asyncio.ensure_future(open_named(str(file.parent / name)))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await asyncio.get_running_loop().shutdown_default_executor()
    await turns()
    assert descriptors() == before


def test_a_source_closes_its_descriptor_whatever_happens(file: pathlib.Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    with pytest.raises(KeyError), FileSource(descriptor, 0, 10):
        raise KeyError
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(descriptor)
