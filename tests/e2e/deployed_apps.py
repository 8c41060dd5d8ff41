"""The application behind service managers and proxies: it tells who serves, what it was given, and what has come so far."""

import asyncio
import json
import os
import subprocess
import sys

from apps import Receive, Scope, Send, answer, answer_json

uploaded = 0
go_on = asyncio.Event()

# A daemon's way to be nobody's child: one process starts another and is gone. SIGTERM ends that one, with the code it was given.
ORPHAN = """
import os, signal, sys
ours, its = os.pipe()
if os.fork():
    os.close(its)
    sys.stdout.buffer.write(os.read(ours, 20))
    sys.stdout.flush()
    os._exit(0)
os.setsid()
signal.signal(signal.SIGTERM, lambda *_: os._exit(int(sys.argv[1])))
os.close(1)
os.write(its, str(os.getpid()).encode())
while True:
    signal.pause()
"""


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve whatever the path names."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await converse(scope, receive, send)
    else:
        await ROUTES.get(scope["path"], who)(scope, receive, send)


async def who(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell which process answers, and for whom."""
    names = ("client", "server", "scheme", "http_version")
    headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
    parent = os.getppid()
    await answer_json(send, {name: scope[name] for name in names} | {"pid": os.getpid(), "parent": parent, "headers": headers})


async def environment(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell the environment."""
    await answer_json(send, dict(os.environ))


async def upload(scope: Scope, receive: Receive, send: Send) -> None:
    """Take a body."""
    global uploaded
    uploaded, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        uploaded += len(message["body"])
        more = message["more_body"]
    await answer(send, b"%d" % uploaded)


async def show_uploaded(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell how much of the body under way has come."""
    await answer_json(send, uploaded)


async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    """Send one event, and the next one when somebody asks for /go."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await send({"type": "http.response.body", "body": b"data: first\n\n", "more_body": True})
    await go_on.wait()
    go_on.clear()
    await send({"type": "http.response.body", "body": b"data: last\n\n"})


async def go(scope: Scope, receive: Receive, send: Send) -> None:
    """Let the next event out."""
    go_on.set()
    await answer(send, b"")


async def orphan(scope: Scope, receive: Receive, send: Send) -> None:
    """Make a process that is nobody's child, and ends with the exit code that the query names. Tell its number."""
    code = scope["query_string"].decode()
    parent = subprocess.run(
        [sys.executable, "-c", ORPHAN, code], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
    )
    await answer_json(send, int(parent.stdout))


async def converse(scope: Scope, receive: Receive, send: Send) -> None:
    """Say who the client is, then echo."""
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": json.dumps([scope["client"][0], scope["scheme"]])})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


ROUTES = {
    "/environment": environment,
    "/upload": upload,
    "/uploaded": show_uploaded,
    "/tell": tell,
    "/go": go,
    "/orphan": orphan,
}
