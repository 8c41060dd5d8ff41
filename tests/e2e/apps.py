"""The applications under test. `app` serves one small answer per path; `/seen`, `/events` and `/facts` tell what happened inside."""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Scope = dict[str, Any]

PLAIN = [(b"content-type", b"text/plain")]
seen: list[str] = []
events: list[str] = []
release = asyncio.Event()
produced = 0  # bytes that /flood has handed to send()
most_at_once = at_once = 0


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve whatever the path names."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    global at_once, most_at_once
    if scope["path"] not in {"/seen", "/events", "/facts", "/release", "/forget"}:
        seen.append(f"{scope['method']} {scope['raw_path'].decode('latin-1')}")
    at_once += 1
    most_at_once = max(most_at_once, at_once)
    try:
        await ROUTES.get(scope["path"], hello)(scope, receive, send)
    finally:
        at_once -= 1


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    events.append("shutdown")
    await send({"type": "lifespan.shutdown.complete"})


async def answer(send: Send, body: bytes, headers: list[tuple[bytes, bytes]] = PLAIN, status: int = 200) -> None:
    """Send a whole response."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def answer_json(send: Send, value: object) -> None:
    """Send a value."""
    await answer(send, json.dumps(value).encode(), [(b"content-type", b"application/json")])


def query(scope: Scope) -> dict[str, str]:
    """Give the query's fields."""
    return dict(parse_qsl(scope["query_string"].decode("ascii")))


# --- what happened inside ---


async def show_seen(scope: Scope, receive: Receive, send: Send) -> None:
    """List the requests that came since the last time this was asked."""
    found = seen.copy()
    seen.clear()
    await answer_json(send, found)


async def show_events(scope: Scope, receive: Receive, send: Send) -> None:
    """List what was noted."""
    await answer_json(send, events)


async def forget(scope: Scope, receive: Receive, send: Send) -> None:
    """Begin a new list of what was noted."""
    events.clear()
    await answer(send, b"")


async def show_facts(scope: Scope, receive: Receive, send: Send) -> None:
    """Give counts of what may leak."""
    await answer_json(
        send,
        {
            "tasks": len(asyncio.all_tasks()),
            "files": len(os.listdir("/proc/self/fd")),
            "produced": produced,
            "most_at_once": most_at_once,
            "resident": resident(),
            "cpu": time.process_time(),
            "pid": os.getpid(),
        },
    )


def resident() -> int:
    """Bytes in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


# --- plain ones ---


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer without a look at the body."""
    await answer(send, b"hello")


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell what came."""
    parts, more = [], True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            events.append(f"disconnect in the body of {scope['raw_path'].decode('ascii')}")
            return
        parts.append(message["body"])
        more = message["more_body"]
    await answer_json(
        send,
        {
            "method": scope["method"],
            "path": scope["path"],
            "raw_path": scope["raw_path"].decode("latin-1"),
            "scheme": scope["scheme"],
            "client": scope["client"],
            "server": scope["server"],
            "http_version": scope["http_version"],
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
            "body": b"".join(parts).decode("latin-1"),
        },
    )


async def show_tls(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell what the scope says of TLS; null where it says nothing."""
    await answer_json(send, scope["extensions"].get("tls"))


async def length(scope: Scope, receive: Receive, send: Send) -> None:
    """Count body bytes; the pause between two messages is `pause` seconds."""
    size, more, pause = 0, True, float(query(scope).get("pause", 0))
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            events.append("disconnect in an upload")
            return
        size += len(message["body"])
        more = message["more_body"]
        if pause:
            await asyncio.sleep(pause)
    await answer(send, b"%d" % size)


async def blob(scope: Scope, receive: Receive, send: Send) -> None:
    """Send `size` bytes at once, with whatever headers are usual."""
    await answer(send, b"x" * int(query(scope)["size"]))


async def flood(scope: Scope, receive: Receive, send: Send) -> None:
    """Send `size` bytes in small parts."""
    global produced
    left, part = int(query(scope)["size"]), b"x" * 65_536
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % left)]})
    while left:
        size = min(left, len(part))
        left -= size
        await send({"type": "http.response.body", "body": part[:size], "more_body": left > 0})
        produced += size


async def head_only(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the status that `status` names, and a body whether it may have one or not."""
    await answer(send, b"body", status=int(query(scope)["status"]))


# --- waiting ---


async def hold(scope: Scope, receive: Receive, send: Send) -> None:
    """Wait for /release, then answer."""
    events.append("held")
    await release.wait()
    await answer(send, b"released")


async def hold_body(scope: Scope, receive: Receive, send: Send) -> None:
    """Begin an answer, wait for /release, end it."""
    await send({"type": "http.response.start", "status": 200, "headers": PLAIN})
    await send({"type": "http.response.body", "body": b"first ", "more_body": True})
    events.append("held in the body")
    await release.wait()
    await send({"type": "http.response.body", "body": b"last"})


async def let_go(scope: Scope, receive: Receive, send: Send) -> None:
    """Release who waits."""
    release.set()
    await asyncio.sleep(0)
    release.clear()
    await answer(send, b"")


async def listen(scope: Scope, receive: Receive, send: Send) -> None:
    """Wait for the client to leave."""
    message = await receive()
    while message["type"] != "http.disconnect":
        message = await receive()
    events.append(f"disconnect heard by {scope['raw_path'].decode('ascii')}")


async def events_stream(scope: Scope, receive: Receive, send: Send) -> None:
    """Talk for ever, and never listen."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    try:
        while True:
            await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
            await asyncio.sleep(0.02)
    except OSError as error:
        events.append(f"talk ended: {type(error).__name__}")
        raise


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    """Never answer."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        events.append("cancelled")
        raise


async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
    """Ignore every cancellation."""
    events.append("stubborn")
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            events.append("cancelled in vain")


async def afterwards(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer, then go on working until /release."""
    await answer(send, b"done")
    events.append("working on")
    await release.wait()
    events.append("worked on")


# --- faults ---


async def fault(scope: Scope, receive: Receive, send: Send) -> None:
    """Do what `kind` says, wrongly."""
    kind = query(scope)["kind"]
    length_10 = [(b"content-length", b"10")]
    if kind == "raise":
        raise RuntimeError("on purpose")
    if kind == "exit":
        raise SystemExit(7)
    if kind == "return":
        return
    if kind in BAD_STARTS:
        await send({"type": "http.response.start", **BAD_STARTS[kind]})
        await send({"type": "http.response.body", "body": b"never"})
        return
    if kind == "body first":
        await send({"type": "http.response.body", "body": b"x"})
        return
    if kind == "unknown type":
        await send({"type": "http.response.nonsense"})
        return
    if kind == "too many":
        await send({"type": "http.response.start", "status": 200, "headers": length_10})
        await send({"type": "http.response.body", "body": b"0123456789excess"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": length_10 if "length" in kind or kind == "too few" else PLAIN})
    if kind == "raise after start":
        raise RuntimeError("on purpose")
    if kind == "return after start":
        return
    if kind == "text body":
        await send({"type": "http.response.body", "body": "text"})
        return
    await send({"type": "http.response.body", "body": b"part", "more_body": kind != "too few"})
    if kind.startswith("raise in body"):
        raise RuntimeError("on purpose")
    if kind == "start twice":
        await send({"type": "http.response.start", "status": 200, "headers": []})
    if kind == "text in body":
        await send({"type": "http.response.body", "body": "text"})


BAD_STARTS: dict[str, Message] = {
    "split value": {"status": 200, "headers": [(b"x-a", b"a\r\nset-cookie: x")]},
    "split name": {"status": 200, "headers": [(b"x-a\r\nset-cookie", b"x")]},
    "blank in name": {"status": 200, "headers": [(b"x a", b"x")]},
    "null": {"status": 200, "headers": [(b"x-a", b"a\x00b")]},
    "text header": {"status": 200, "headers": [("x-a", "b")]},
    "text status": {"status": "200", "headers": []},
    "no status": {"headers": []},
    "status 99": {"status": 99, "headers": []},
    "status 1000": {"status": 1000, "headers": []},
}


async def misuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer, then say more; and listen twice at once. Whatever is raised is noted."""
    first, second = asyncio.ensure_future(receive()), asyncio.ensure_future(receive())
    await asyncio.sleep(0)
    events.append(f"first receive: {(await first)['type']}")
    await answer(send, b"whole")
    try:
        await send({"type": "http.response.body", "body": b"more"})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        events.append("nothing raised after the end")
    except Exception as error:
        events.append(f"raised after the end: {type(error).__name__}")
    events.append(f"second receive: {(await second)['type']}")
    events.append(f"third receive: {(await receive())['type']}")


# --- files ---


async def send_path(scope: Scope, receive: Receive, send: Send) -> None:
    """Send the file that `path` names."""
    path = query(scope)["path"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % os.path.getsize(path))]})
    try:
        await send({"type": "http.response.pathsend", "path": path})
    except OSError as error:
        events.append(f"pathsend ended: {type(error).__name__}")
        raise


async def send_opened(scope: Scope, receive: Receive, send: Send) -> None:
    """Send `count` bytes of the file from `offset` on, between two words."""
    found = query(scope)
    await send({"type": "http.response.start", "status": 200, "headers": PLAIN})
    await send({"type": "http.response.body", "body": b"before ", "more_body": True})
    with open(found["path"], "rb") as file:
        message: Message = {"type": "http.response.zerocopysend", "file": file, "more_body": True}
        message |= {name: int(found[name]) for name in ("offset", "count") if name in found}
        await send(message)
    await send({"type": "http.response.body", "body": b" after"})


ROUTES: dict[str, Callable[[Scope, Receive, Send], Awaitable[None]]] = {
    "/seen": show_seen,
    "/events": show_events,
    "/forget": forget,
    "/facts": show_facts,
    "/release": let_go,
    "/echo": echo,
    "/tls": show_tls,
    "/length": length,
    "/blob": blob,
    "/flood": flood,
    "/status": head_only,
    "/hold": hold,
    "/hold-body": hold_body,
    "/listen": listen,
    "/talk": events_stream,
    "/silent": silent,
    "/stubborn": stubborn,
    "/afterwards": afterwards,
    "/fault": fault,
    "/misuse": misuse,
    "/path": send_path,
    "/opened": send_opened,
}


# --- other applications ---


async def slow_start(scope: Scope, receive: Receive, send: Send) -> None:
    """Never complete the start-up."""
    await receive()
    print("starting", flush=True)
    await asyncio.Event().wait()


async def bad_start(scope: Scope, receive: Receive, send: Send) -> None:
    """Fail to start."""
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


async def slow_end(scope: Scope, receive: Receive, send: Send) -> None:
    """Never complete the shutdown."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("shutdown asked for", flush=True)
        await asyncio.Event().wait()
    await app(scope, receive, send)


async def told_end(scope: Scope, receive: Receive, send: Send) -> None:
    """Say when the requests and when the lifespan end."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("lifespan ends", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    await app(scope, receive, send)
    print(f"request ends {scope['path']}", flush=True)


async def stubborn_start(scope: Scope, receive: Receive, send: Send) -> None:
    """Neither complete the start-up nor let it be cancelled."""
    print("starting", flush=True)
    await stubborn(scope, receive, send)


async def gated(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer once somebody has written to the named pipe $GATE."""
    global gate
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    if gate is None:
        gate = asyncio.get_running_loop().run_in_executor(None, Path(os.environ["GATE"]).read_bytes)
    events.append("held")
    print(f"in hand {len(events)}", flush=True)
    await asyncio.shield(gate)
    await answer(send, b"x" * 100_000)


async def hungry(scope: Scope, receive: Receive, send: Send) -> None:
    """Take every descriptor there is at /hungry, and give them back at /sated."""
    if scope["type"] != "http":
        await _lifespan(receive, send)
        return
    if scope["path"] == "/hungry":
        try:
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
    elif scope["path"] == "/sated":
        while taken:
            os.close(taken.pop())
    await answer(send, b"x")


taken: list[int] = []
gate: asyncio.Future[bytes] | None = None
no_callable = 7
