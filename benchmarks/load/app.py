"""The applications under load: as little as an ASGI application can do, so that the server is what is measured.

Standard library only. One callable per kind of work: no routing in the measured path.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

GREETING = b"Hello, World!"
PAGE = b"0123456789abcdef" * 4096
UPLOAD_BYTES = 1 << 20
TO_ALL = "to all"
NEWS = "news for everybody in the room: ".ljust(200, ".")


def _start(status: int, length: int) -> Message:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % length)]
    return {"type": "http.response.start", "status": status, "headers": headers}


_HELLO_START, _HELLO_BODY = _start(200, len(GREETING)), {"type": "http.response.body", "body": GREETING}
_ACCEPT: Message = {"type": "websocket.accept"}
_PAGE_START, _PAGE_BODY = _start(200, len(PAGE)), {"type": "http.response.body", "body": PAGE}


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Say hello."""
    if scope["type"] != "http":
        return await _lifespan(scope, receive, send)
    await send(_HELLO_START)
    return await send(_HELLO_BODY)


async def page(scope: Message, receive: Receive, send: Send) -> None:
    """Answer 64 KiB in one message."""
    if scope["type"] != "http":
        return await _lifespan(scope, receive, send)
    await send(_PAGE_START)
    return await send(_PAGE_BODY)


async def upload(scope: Message, receive: Receive, send: Send) -> None:
    """Read the whole body and answer its length; any length but the one expected is a 500, which the load generator counts."""
    if scope["type"] != "http":
        return await _lifespan(scope, receive, send)
    count, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        count += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"%d" % count
    await send(_start(200 if count == UPLOAD_BYTES else 500, len(body)))
    return await send({"type": "http.response.body", "body": body})


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    """Send every message back."""
    if scope["type"] != "websocket":
        return await _lifespan(scope, receive, send)
    await receive()
    await send(_ACCEPT)
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        if text is not None:
            await send({"type": "websocket.send", "text": text})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})
    return None


_members: set[Send] = set()


async def broadcast(scope: Message, receive: Receive, send: Send) -> None:
    """Send the news to all members of the room when one of them asks for it, and to the one who says anything else.

    The shape is that of the connection manager in FastAPI's documentation, which so many programs have copied: one loop, in the task of the
    connection that asked, that awaits every member's `send` with a message of its own.
    """
    if scope["type"] != "websocket":
        return await _lifespan(scope, receive, send)
    await receive()
    await send(_ACCEPT)
    _members.add(send)
    try:
        while (message := await receive())["type"] == "websocket.receive":
            for member in tuple(_members) if message["text"] == TO_ALL else (send,):
                await member({"type": "websocket.send", "text": NEWS})
    finally:
        _members.discard(send)
    return None


async def _lifespan(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] != "lifespan":
        message = f"expected another scope, got {scope['type']!r}"
        raise RuntimeError(message)
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
