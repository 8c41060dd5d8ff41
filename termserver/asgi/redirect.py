"""The application of the port that redirects to HTTPS (`--http-redirect-port`)."""

from termserver.asgi.app import Application, Receive, Send
from termserver.asgi.scope import Scope

_DEFAULT_PORT = 443


def redirect_to_https(port: int) -> Application:
    """Make an application that sends everybody to the same address over HTTPS, at `port`."""

    async def redirect(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        host = dict(scope["headers"]).get(b"host")
        if not host or scope["raw_path"] == b"*":
            await _answer(send, 400, [])
            return
        name = host if host.endswith(b"]") else host.rpartition(b":")[0] or host
        authority = name if port == _DEFAULT_PORT else b"%b:%d" % (name, port)
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        await _answer(send, 308, [(b"location", b"https://" + authority + scope["raw_path"] + query)])

    return redirect


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
