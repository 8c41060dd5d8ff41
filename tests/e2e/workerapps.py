"""Applications for workers. `app` says who answered; the paths do harm."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Scope = dict[str, Any]

hoard: list[bytearray] = []


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the worker's process id."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await socket(receive, send)
    else:
        await act(scope["path"], scope["query_string"].decode())
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(os.getpid()).encode()})


async def lifespan(receive: Receive, send: Send) -> None:
    """Start and shut down."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def socket(receive: Receive, send: Send) -> None:
    """Accept, say who it is, wait for the end."""
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": str(os.getpid())})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def act(path: str, query: str) -> None:
    """Do what the path names."""
    if path == "/slow":
        await asyncio.sleep(float(query))
    elif path == "/hang":
        hang_here()
    elif path == "/hoard":
        hoard.append(bytearray(b"x" * (int(query) << 20)))
    elif path == "/stubborn":
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                print("cancelled in vain", file=sys.stderr, flush=True)


def hang_here() -> None:
    """Block the loop."""
    time.sleep(1_000_000)


async def no_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """Raise at the start."""
    raise RuntimeError("it cannot begin on purpose")


async def suicidal(scope: Scope, receive: Receive, send: Send) -> None:
    """End by a signal at the start."""
    os.kill(os.getpid(), signal.SIGKILL)


async def slow_start(scope: Scope, receive: Receive, send: Send) -> None:
    """Never come to be ready."""
    await receive()
    print("starting slowly", file=sys.stderr, flush=True)
    await asyncio.Event().wait()
