"""The applications under test over HTTP/2: what `apps` and `socket_apps` serve, and what only HTTP/2 has, or only browsers ask for."""

import asyncio
import time
from typing import Any

import apps
import socket_apps
from apps import Receive, Scope, Send, answer, answer_json, events, query


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve whatever the path names."""
    if scope["type"] == "websocket":
        await socket_apps.app(scope, receive, send)
    elif scope["type"] == "http" and scope["path"] in ROUTES:
        await ROUTES[scope["path"]](scope, receive, send)
    else:
        await apps.app(scope, receive, send)


async def body_of(receive: Receive) -> tuple[bytes, list[Any]]:
    """Read the request; give its body and its trailers."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("no whole request")
        parts.append(message["body"])
        if not message["more_body"]:
            return b"".join(parts), message.get("trailers", [])


async def socket_events(scope: Scope, receive: Receive, send: Send) -> None:
    """List what the WebSockets noted; `/socket-release` lets those go that wait."""
    await answer_json(send, socket_apps.events)


async def socket_facts(scope: Scope, receive: Receive, send: Send) -> None:
    """Give what the WebSockets' /flood has got rid of."""
    await answer_json(send, {"produced": socket_apps.produced, "running": socket_apps.running})


async def show_scope(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell what the scope said."""
    await answer(send, repr({**scope, "extensions": sorted(scope["extensions"])}).encode())


async def trailers(scope: Scope, receive: Receive, send: Send) -> None:
    """Send back the body, and after it the request's trailers with one of our own."""
    body, found = await body_of(receive)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"trailer", b"x-own")], "trailers": True})
    await send({"type": "http.response.body", "body": body})
    fields = [(b"x-own", b"1"), *((b"x-was-" + name, value) for name, value in found)]
    await send({"type": "http.response.trailers", "headers": fields})


async def hints(scope: Scope, receive: Receive, send: Send) -> None:
    """Send early hints, twice, then answer."""
    for name in (b"a", b"b"):
        await send({"type": "http.response.early_hint", "links": [b"</%b.css>; rel=preload; as=style" % name, b"</c.js>; rel=preload"]})
    await answer(send, b"hinted")


async def sip(scope: Scope, receive: Receive, send: Send) -> None:
    """Take the body part by part, `pause` seconds between two, once /release was asked for; give its size."""
    events.append("sip waits")
    await apps.release.wait()
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            events.append(f"sip: disconnect after {size}")
            return
        size, more = size + len(message["body"]), message["more_body"]
        await asyncio.sleep(float(query(scope).get("pause", 0)))
    await answer(send, b"%d" % size)


async def early(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer an upload before it is whole, after its first part."""
    await receive()
    await answer(send, b"enough", status=413)


async def gush(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with `size` bytes in one message, and note when they have been taken."""
    await answer(send, bytes(int(query(scope)["size"])))
    events.append("gushed")


async def numbers(scope: Scope, receive: Receive, send: Send) -> None:
    """Send events for an EventSource: `count`, or until the client leaves."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    listener = asyncio.ensure_future(receive())
    try:
        number, count = 0, int(query(scope).get("count", 0))
        while number < count or not count:
            number += 1
            await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
            done, _ = await asyncio.wait({listener}, timeout=0.05)
            if done and listener.result()["type"] == "http.disconnect":
                events.append("numbers: disconnect")
                return
            if done:
                listener = asyncio.ensure_future(receive())
        await send({"type": "http.response.body", "body": b""})
    finally:
        listener.cancel()


async def works_on(scope: Scope, receive: Receive, send: Send) -> None:
    """Neither listen nor talk after the first word; note how it ended."""
    await receive()
    if query(scope).get("begin"):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
    name = query(scope).get("name", "")
    events.append(f"works{name}")
    began = time.monotonic()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        events.append(f"works{name}: cancelled {'late' if time.monotonic() - began > 0.25 else 'at once'}")
        raise


PAGE = b"""<!doctype html><meta charset=utf-8><link rel=icon href=data:,><title>waiting</title><script>
const found = {};
const text = async (path, options) => (await fetch(path, options)).text();
const socket = () => new Promise((resolve, reject) => {
  const opened = new WebSocket(`wss://${location.host}/scope`);
  opened.onmessage = (message) => { resolve(message.data); opened.close(4001, "done"); };
  opened.onerror = () => reject(new Error("no WebSocket"));
});
const numbers = () => new Promise((resolve, reject) => {
  const source = new EventSource("/numbers"), came = [];
  source.onmessage = (message) => { if (came.push(message.data) === 3) { source.close(); resolve(came.join()); } };
  source.onerror = () => reject(new Error("no events"));
});
(async () => {
  found.protocol = performance.getEntriesByType("navigation")[0].nextHopProtocol;
  found.texts = await Promise.all(Array.from({length: 50}, (_, index) => text(`/?${index}`)));
  found.posted = await text("/length", {method: "POST", body: new Uint8Array(3000000)});
  found.large = (await text("/blob?size=5000000")).length;
  found.protocols = [...new Set(performance.getEntriesByType("resource").map((entry) => entry.nextHopProtocol))];
  found.numbers = await numbers();
  found.fetched = await text("/scope");
  found.scope = await socket();
})().catch((error) => { found.error = String(error); }).finally(() => { window.found = found; document.title = "done"; });
</script>"""


async def page(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a page that tries everything; `window.found` is what came of it."""
    await answer(send, PAGE, [(b"content-type", b"text/html")])


NETWORK = """<!doctype html><meta charset=utf-8><link rel=icon href=data:,><link rel=stylesheet href=/network.css>
<title>waiting</title>
<h1><img src=/network.svg alt> This page and all it asked for came over <b id=count></b></h1>
<table><thead><tr><th>name<th>protocol<th>status<th>bytes</thead><tbody id=rows></tbody></table><p id=note></p><script>
const rows = [];
const add = (name, protocol, status, size) => rows.push([name, protocol, String(status), String(size)]);
const first = (source, name) => new Promise((resolve, reject) => {
  source[name] = resolve;
  source.onerror = () => reject(new Error(name));
});
(async () => {
  await (await fetch("/blob?size=200000")).blob();
  await (await fetch("/length", {method: "POST", body: new Uint8Array(300000)})).text();
  await (await fetch("/missing")).text();
  const source = new EventSource("/numbers?count=3");
  await first(source, "onopen");
  await new Promise((resolve) => { source.onerror = () => { source.close(); resolve(); }; }); // the end: the browser notes it then
  const socket = new WebSocket(`wss://${location.host}/scope`);
  const scope = (await first(socket, "onmessage")).data;
  socket.close();
  const wanted = ["/network", "/network.css", "/network.svg", "/blob?size=200000", "/length", "/missing", "/numbers?count=3"];
  const entries = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
  for (const name of wanted) {
    const entry = entries.find((each) => each.name === location.origin + name);
    add(name, entry.nextHopProtocol, entry.responseStatus, entry.encodedBodySize);
  }
  add("wss /scope", scope.includes("'http_version': '2'") ? "h2" : "http/1.1", 200, "messages");
  const ports = new Set([scope, await (await fetch("/scope")).text()].map((text) => /'client': ([^)]*)/.exec(text)[1]));
  document.querySelector("#count").textContent = ports.size === 1 ? "one connection" : `${ports.size} connections`;
  document.querySelector("#rows").innerHTML = rows.map((row) => `<tr>${row.map((each) => `<td>${each}`).join("")}`).join("");
  document.querySelector("#note").textContent =
    "From the browser's PerformanceResourceTiming; of the WebSocket, which has none, from the scope that the application was given.";
})().catch((error) => { document.querySelector("#note").textContent = error; }).finally(() => {
  window.found = {rows}; document.title = "done";
});
</script>"""
STYLE = """body { font: 15px/1.5 sans-serif; margin: 1.5em 2em; color: #222 } h1 { font-size: 1.25em } img { height: 1em }
table { border-collapse: collapse; width: 100% } th { text-align: left; border-bottom: 2px solid #2a6 } td { border-bottom: 1px solid #ddd }
th, td { padding: .25em .6em } th:last-child, td:last-child { text-align: right } td:first-child { font-family: monospace }
p { color: #666; font-size: .85em }"""
DRAWING = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10"><path d="M1 5l3 3 5-7" fill="none" stroke="#2a6" stroke-width="2"/></svg>'
)


async def network(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a page that lists what it loaded, and how."""
    text, kind = {".css": (STYLE, b"text/css"), ".svg": (DRAWING, b"image/svg+xml")}.get(scope["path"][-4:], (NETWORK, b"text/html"))
    await answer(send, text.encode(), [(b"content-type", kind), (b"cache-control", b"no-store")])


async def missing(scope: Scope, receive: Receive, send: Send) -> None:
    """There is nothing."""
    await answer(send, b"not found", status=404)


SHARED = bytes(10 << 20)


async def shared(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with ten megabytes in one message: the same ones every time, so that the application itself costs nothing."""
    await answer(send, SHARED)


ROUTES = {
    "/socket-events": socket_events,
    "/socket-facts": socket_facts,
    "/scope": show_scope,
    "/trailers": trailers,
    "/hints": hints,
    "/sip": sip,
    "/early": early,
    "/gush": gush,
    "/numbers": numbers,
    "/works": works_on,
    "/page": page,
    "/network": network,
    "/network.css": network,
    "/network.svg": network,
    "/missing": missing,
    "/shared": shared,
}
