"""WebSocket applications under test: `app` does one thing per path. `/events` and `/facts`, over HTTP, tell what happened inside."""

import asyncio
import json
import os
import time
from typing import Any

import apps
from apps import Receive, Scope, Send, answer, answer_json, query, resident

events: list[str] = []
release = asyncio.Event()
produced = 0  # bytes that /flood has handed to send()
running = 0


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve whatever the path names."""
    global running
    if scope["type"] == "lifespan":
        await apps.app(scope, receive, send)
        return
    if scope["type"] == "http":
        await tell(scope, send)
        return
    running += 1
    try:
        await ROUTES[scope["path"]](scope, receive, send)
    except BaseException as error:
        note(scope, f"{type(error).__name__}")
        raise
    finally:
        running -= 1


async def tell(scope: Scope, send: Send) -> None:
    """Say what happened, or let things happen."""
    if scope["path"] == "/events":
        await answer_json(send, events)
    elif scope["path"] == "/release":
        release.set()
        await answer(send, b"")
    else:
        facts = {
            "tasks": len(asyncio.all_tasks()),
            "files": len(os.listdir("/proc/self/fd")),
            "produced": produced,
            "resident": resident(),
            "running": running,
            "cpu": time.process_time(),
        }
        await answer_json(send, facts)


def note(scope: Scope, text: str) -> None:
    """Remember what happened to a socket; `?name=` tells them apart."""
    events.append(f"{scope['path']}{query(scope).get('name', '')}: {text}")


async def accept(receive: Receive, send: Send, **more: Any) -> None:
    """Open the socket."""
    await receive()
    await send({"type": "websocket.accept", **more})


async def until_disconnect(scope: Scope, receive: Receive) -> None:
    """Wait for the end and note it."""
    while (message := await receive())["type"] != "websocket.disconnect":
        pass
    note(scope, f"disconnect {message['code']} {message['reason']}")


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Send back what comes."""
    await accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
    note(scope, f"disconnect {message['code']} {message['reason']}")


async def show_scope(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell what the scope said, in one text message."""
    await accept(receive, send)
    shown = {**scope, "extensions": sorted(scope["extensions"])}
    await send({"type": "websocket.send", "text": repr(shown)})
    await until_disconnect(scope, receive)


async def show_tls(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell what the scope says of TLS, in one text message; null where it says nothing."""
    await accept(receive, send)
    await send({"type": "websocket.send", "text": json.dumps(scope["extensions"].get("tls"))})
    await until_disconnect(scope, receive)


async def choose(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept with a subprotocol and fields."""
    headers = [(b"X-First", b"1"), (b"set-cookie", b"a=b"), (b"x-first", b"2"), (b"transfer-encoding", b"chunked"), (b"server", b"own")]
    await accept(receive, send, subprotocol=query(scope).get("subprotocol"), headers=headers)
    await until_disconnect(scope, receive)


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Say no."""
    await receive()
    await send({"type": "websocket.close", "code": 4_003})
    await until_disconnect(scope, receive)


async def deny(scope: Scope, receive: Receive, send: Send) -> None:
    """Say no in so many words."""
    await receive()
    await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"www-authenticate", b"Basic")]})
    for word in (b"log ", b"in ", b"first"):
        await send({"type": "websocket.http.response.body", "body": word, "more_body": True})
    await send({"type": "websocket.http.response.body"})
    await until_disconnect(scope, receive)


async def undecided(scope: Scope, receive: Receive, send: Send) -> None:
    """Give no verdict."""
    await receive()
    note(scope, "connect")
    await until_disconnect(scope, receive)


async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
    """Neither give a verdict nor listen."""
    await receive()
    await asyncio.Event().wait()


async def close(scope: Scope, receive: Receive, send: Send) -> None:
    """Close at once, with what the query says."""
    await accept(receive, send)
    wanted = query(scope)
    await send({"type": "websocket.close", "code": int(wanted.get("code", 1000)), "reason": wanted.get("reason", "")})
    await send({"type": "websocket.send", "text": "into the void"})
    await until_disconnect(scope, receive)


async def raises(scope: Scope, receive: Receive, send: Send) -> None:
    """Fail, before or after the verdict."""
    if "before" not in query(scope):
        await accept(receive, send)
        await send({"type": "websocket.send", "text": "so far so good"})
    raise RuntimeError("on purpose")


async def returns(scope: Scope, receive: Receive, send: Send) -> None:
    """End, before or after the verdict."""
    if "before" not in query(scope):
        await accept(receive, send)


async def wait_then_read(scope: Scope, receive: Receive, send: Send) -> None:
    """Take nothing until released; then count what comes."""
    await accept(receive, send)
    note(scope, "open")
    await release.wait()
    count = 0
    while (message := await receive())["type"] == "websocket.receive":
        count += 1
        if message.get("text") == "last":
            await send({"type": "websocket.send", "text": str(count)})
    note(scope, f"disconnect {message['code']}")


async def flood(scope: Scope, receive: Receive, send: Send) -> None:
    """Send without end."""
    global produced
    await accept(receive, send)
    part = os.urandom(65_536)
    while True:
        await send({"type": "websocket.send", "bytes": part})
        produced += len(part)


async def talk(scope: Scope, receive: Receive, send: Send) -> None:
    """Talk every now and then, never listen; note how long after the client's end `send()` raised."""
    await accept(receive, send)
    while True:
        await send({"type": "websocket.send", "text": "tick"})
        await asyncio.sleep(0.01)


async def answer_late(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer after the client has left, as a consumer's handler may; the disconnect comes all the same."""
    await accept(receive, send)
    await receive()
    note(scope, "asked")
    await release.wait()
    for _ in range(3):
        await send({"type": "websocket.send", "text": "late"})
    await until_disconnect(scope, receive)


async def misuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Send what may not be sent; tell which exception came of it."""
    found = []

    async def attempt(message: Any) -> None:
        try:
            await send(message)
        except Exception as error:
            found.append(type(error).__name__)
        else:
            found.append("nothing")

    await receive()
    await attempt({"type": "websocket.accept", "subprotocol": "not-offered"})
    await attempt({"type": "websocket.accept", "headers": [(b"x", b"a\r\nb: c")]})
    await attempt({"type": "websocket.accept", "headers": [(b"Sec-WebSocket-Protocol", b"x")]})
    await attempt({"type": "websocket.send", "text": "early"})
    await attempt({"type": "http.response.start", "status": 200})
    await send({"type": "websocket.accept", "unknown key": 1})
    await attempt({"type": "websocket.accept"})
    await attempt({"type": "websocket.send"})
    await attempt({"type": "websocket.send", "text": "a", "bytes": b"b"})
    await attempt({"type": "websocket.send", "bytes": "text"})
    await attempt({"type": "websocket.close", "code": 1006})
    await attempt({"type": "websocket.close", "reason": "x" * 124})
    await send({"type": "websocket.send", "text": " ".join(found)})


ROUTES = {
    "/echo": echo,
    "/scope": show_scope,
    "/tls": show_tls,
    "/choose": choose,
    "/refuse": refuse,
    "/deny": deny,
    "/undecided": undecided,
    "/stubborn": stubborn,
    "/close": close,
    "/raises": raises,
    "/returns": returns,
    "/read-later": wait_then_read,
    "/flood": flood,
    "/talk": talk,
    "/answer-late": answer_late,
    "/misuse": misuse,
}
