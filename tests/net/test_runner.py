"""Running a server inside an asyncio program. As a process of its own it is tests/e2e/test_stop.py's."""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from certificates import Authority
from fakes import in_loop
from termserver import serve
from termserver.errors import ApplicationLoadError, ConfigError, ListenError, StartupFailed


async def hello(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for part in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{part}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


async def started(app: Any = hello, **options: Any) -> tuple["asyncio.Task[None]", list[Any]]:
    ready: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(serve(app, bind="127.0.0.1:0", no_access_log=True, ready=ready.set_result, **options))
    await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        ready.cancel()
        task.result()
    return task, ready.result()


async def stopped(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@in_loop
async def test_server_serves_until_it_is_cancelled_and_leaves_nothing_behind() -> None:
    before, tasks = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
    task, [address] = await started()
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).endswith(b"hello")
    writer.close()
    await stopped(task)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)
    await asyncio.sleep(0.01)
    assert (len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())) == (before, tasks)


@in_loop
async def test_two_servers_in_one_program() -> None:
    first, [one] = await started()
    second, [two] = await started()
    assert one != two
    await stopped(first)
    reader, writer = await asyncio.open_connection(*two)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).endswith(b"hello")
    writer.close()
    await stopped(second)


def test_redirecting_port_comes_and_goes_with_the_server(authority: Authority) -> None:
    @in_loop
    async def main() -> None:
        pair = authority.make("runner", "runner.test")
        files = len(os.listdir("/proc/self/fd"))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        task, [address] = await started(ssl_certfile=pair.certificate, ssl_keyfile=pair.key, http_redirect_port=port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /a?b HTTP/1.1\r\nHost: runner.test\r\nConnection: close\r\n\r\n")
        assert b"\r\nlocation: https://runner.test:%d/a?b\r\n" % address[1] in await reader.read()
        writer.close()
        await stopped(task)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        assert len(os.listdir("/proc/self/fd")) == files

    main()


def test_redirecting_port_that_is_taken_leaves_nothing_bound(authority: Authority) -> None:
    @in_loop
    async def main() -> None:
        pair = authority.make("runner-2", "runner.test")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            files = len(os.listdir("/proc/self/fd"))
            with pytest.raises(ListenError):
                await started(ssl_certfile=pair.certificate, ssl_keyfile=pair.key, http_redirect_port=taken.getsockname()[1])
            assert len(os.listdir("/proc/self/fd")) == files

    main()


@in_loop
async def test_server_that_is_cancelled_while_it_starts_ends() -> None:
    entered = asyncio.Event()

    async def slow(_scope: Any, _receive: Any, _send: Any) -> None:
        entered.set()
        await asyncio.Event().wait()

    tasks = len(asyncio.all_tasks())
    task = asyncio.ensure_future(serve(slow, bind="127.0.0.1:0", no_access_log=True))
    await entered.wait()
    await stopped(task)
    await asyncio.sleep(0.01)
    assert len(asyncio.all_tasks()) == tasks


async def bad_start(_scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


@pytest.mark.parametrize(("call", "error"), [
    (lambda: started(bad_start), StartupFailed),
    (lambda: started("nothing:app"), ApplicationLoadError),
    (lambda: started(fd=10_000), ListenError),
    (lambda: started(limit_field=-1), ConfigError),
    (lambda: started(nonsense=1), TypeError),
])  # fmt: skip
def test_what_cannot_be_is_raised(call: Callable[[], Any], error: type[Exception]) -> None:
    @in_loop
    async def main() -> None:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(error):
            await call()
        assert len(os.listdir("/proc/self/fd")) == before

    main()
