"""Request + facts of its connection -> ASGI scope (ASGI www, HTTP Connection Scope, version 2.5).

What all requests of a connection share is put together once (`base_scope`); a request costs a copy of it and eight keys.
"""

from typing import Any, Final
from urllib.parse import unquote_to_bytes

from termserver.wire.events import Request

Scope = dict[str, Any]  # the ASGI type: values of every kind, by agreement
SOCKET_SCHEMES: Final = {"http": "ws", "https": "wss"}
ASGI_VERSION: Final = {"version": "3.0", "spec_version": "2.5"}


def base_scope(*, scheme: str, client: tuple[str, int] | None, server: tuple[str, int | None] | None, root_path: str) -> Scope:
    """Give what all requests of a connection have in common, and room for what they have not: a dictionary that need not grow is cheap."""
    return {
        "type": "http",
        "asgi": None,
        "http_version": None,
        "method": None,
        "scheme": scheme,
        "path": None,
        "raw_path": None,
        "query_string": None,
        "root_path": root_path,
        "headers": None,
        "client": client,
        "server": server,
        "state": None,
        "extensions": None,
    }


def http_scope(base: Scope, request: Request, extensions: dict[str, dict[str, object]], state: dict[str, Any]) -> Scope:
    """Give the scope of one request. What an application may put something into is its own: the scope, its extensions, state, headers."""
    scope = base.copy()
    path = request.path
    scope["asgi"] = ASGI_VERSION.copy()
    scope["http_version"] = request.version
    scope["method"] = request.method
    scope["path"] = path.decode("ascii") if b"%" not in path else decode_path(path)
    scope["raw_path"] = path
    scope["query_string"] = request.query
    scope["headers"] = request.headers
    scope["extensions"] = extensions.copy()
    scope["state"] = state.copy()
    return scope


def websocket_scope(
    base: Scope, request: Request, subprotocols: list[str], extensions: dict[str, dict[str, object]], state: dict[str, Any]
) -> Scope:
    """Give the scope of a WebSocket (ASGI www, WebSocket Connection Scope)."""
    scope = http_scope(base, request, extensions, state)
    del scope["method"]
    scope["type"] = "websocket"
    scope["scheme"] = SOCKET_SCHEMES[base["scheme"]]
    scope["subprotocols"] = subprotocols.copy()
    return scope


def decode_path(path: bytes) -> str:
    """Decode percent-encoding, then UTF-8. What is not UTF-8 becomes U+FFFD, as under every other server; `raw_path` has the bytes."""
    return unquote_to_bytes(path).decode("utf-8", "replace")
