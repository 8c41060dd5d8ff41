"""The application under test: it sends back every message, in kind. Standard library only."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Echo on a WebSocket, take part in lifespan, and know nothing else."""
    if scope["type"] == "websocket":
        await _echo(receive, send)
    elif scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    else:
        raise RuntimeError(f"expected a websocket or lifespan scope, got {scope['type']!r}")


async def _echo(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        try:
            await send({"type": "websocket.send", "bytes": message["bytes"]} if text is None else {"type": "websocket.send", "text": text})
        except OSError:  # the client has gone; the next message says so
            continue
