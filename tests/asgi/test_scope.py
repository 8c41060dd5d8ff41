"""Request + facts of its connection -> scope (ASGI www 2.5; rows A2 to W14 of the ASGI table)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import SocketTalk, Talk
from termserver.asgi.scope import Scope, base_scope, decode_path, http_scope, websocket_scope

SERVER = ("192.0.2.2", 80)
CLIENT = ("192.0.2.1", 50_000)


def scope_of(
    target: bytes = b"/",
    *fields: bytes,
    method: bytes = b"GET",
    version: bytes = b"1.1",
    client: tuple[str, int] | None = CLIENT,
    server: tuple[str, int | None] = SERVER,
    state: dict[str, object] | None = None,
    extensions: dict[str, dict[str, object]] | None = None,
    root_path: str = "",
) -> Scope:
    lines = (b"%b %b HTTP/%b" % (method, target, version), b"Host: a", *fields, b"", b"")
    base = base_scope(scheme="http", client=client, server=server, root_path=root_path)
    return http_scope(base, Talk(b"\r\n".join(lines)).request, extensions or {}, state or {})


def test_the_whole_scope_of_a_plain_request() -> None:
    assert scope_of(b"/a%20b?c=%20d", b"X-A: 1", root_path="/mount", extensions={"x": {}}, state={"k": 1}) == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/a b",
        "raw_path": b"/a%20b",
        "query_string": b"c=%20d",
        "root_path": "/mount",
        "headers": [(b"host", b"a"), (b"x-a", b"1")],
        "client": ("192.0.2.1", 50_000),
        "server": ("192.0.2.2", 80),
        "state": {"k": 1},
        "extensions": {"x": {}},
    }


def test_a2_a3_type_and_versions() -> None:
    scope = scope_of()
    assert type(scope) is dict
    assert scope["type"] == "http"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_w2_http_version(version: str) -> None:
    assert scope_of(version=version.encode())["http_version"] == version


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "PROPFIND"])
def test_w3_method_is_upper_case_text(method: str) -> None:
    assert scope_of(method=method.encode())["method"] == method


def test_w4_scheme_is_the_connections_not_the_clients() -> None:
    assert scope_of(b"https://a/x")["scheme"] == "http"


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        pytest.param(b"/", "/", b"", id="root"),
        pytest.param(b"/a/b", "/a/b", b"", id="plain"),
        pytest.param(b"/a?b=c", "/a", b"b=c", id="query"),
        pytest.param(b"/a?", "/a", b"", id="empty query"),
        pytest.param(b"/a?b?c=%3F", "/a", b"b?c=%3F", id="second question mark, still encoded"),
        pytest.param(b"/%C3%A9", "/é", b"", id="UTF-8"),
        pytest.param(b"/%c3%a9", "/é", b"", id="lower-case digits"),
        pytest.param(b"/%E2%98%83/%F0%9F%98%80", "/☃/😀", b"", id="three and four bytes"),
        pytest.param(b"/a%2Fb", "/a/b", b"", id="encoded slash"),
        pytest.param(b"/a%3Fb", "/a?b", b"", id="encoded question mark"),
        pytest.param(b"/%252F", "/%2F", b"", id="decoded once"),
        pytest.param(b"/a+b", "/a+b", b"", id="plus is plus"),
        pytest.param(b"/%00%0d%0a", "/\0\r\n", b"", id="control bytes"),
        pytest.param(b"/%", "/%", b"", id="lone percent"),
        pytest.param(b"/%zz%4", "/%zz%4", b"", id="no hex digits"),
        pytest.param(b"/%FF", "/\ufffd", b"", id="not UTF-8"),
        pytest.param(b"/%C0%AF", "/\ufffd\ufffd", b"", id="overlong"),
        pytest.param(b"/%ED%A0%80", "/\ufffd\ufffd\ufffd", b"", id="surrogate"),
        pytest.param(b"//a//b", "//a//b", b"", id="double slashes"),
        pytest.param(b"/a/../b", "/a/../b", b"", id="dots are kept"),
    ],
)
def test_w5_w6_w7_path_raw_path_and_query(target: bytes, path: str, query: bytes) -> None:
    scope = scope_of(target)
    assert scope["path"] == path
    assert scope["raw_path"] == target.partition(b"?")[0]
    assert scope["query_string"] == query


@given(st.binary(max_size=40).map(lambda data: b"".join(b"%%%02X" % byte for byte in data)))
def test_w5_law_any_path_becomes_text(path: bytes) -> None:
    decode_path(path).encode()  # no lone surrogates


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_w5_law_text_that_was_encoded_comes_back(text: str) -> None:
    assert decode_path(b"".join(b"%%%02x" % byte for byte in text.encode())) == text


def test_w5_asterisk_form() -> None:
    assert scope_of(b"*", method=b"OPTIONS")["path"] == "*"


def test_w8_root_path_is_beside_the_path() -> None:
    scope = scope_of(b"/a", root_path="/mount")
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/mount", "/a", b"/a")


def test_w9_names_in_lower_case_values_in_order_duplicates_kept() -> None:
    scope = scope_of(b"/", b"X-B: 1", b"cookie: A=1", b"X-B: 2", b"x-b:3")
    assert scope["headers"] == [(b"host", b"a"), (b"x-b", b"1"), (b"cookie", b"A=1"), (b"x-b", b"2"), (b"x-b", b"3")]


def test_w12_client_is_host_and_number() -> None:
    host, port = scope_of()["client"]
    assert (type(host), type(port)) == (str, int)


def test_w12_w13_on_a_unix_socket_client_is_none_and_server_its_path() -> None:
    scope = scope_of(client=None, server=("/run/a.sock", None))
    assert scope["client"] is None
    assert scope["server"] == ("/run/a.sock", None)


def test_w14_state_is_a_shallow_copy() -> None:
    shared: list[int] = []
    state: dict[str, object] = {"pool": shared}
    first, second = scope_of(state=state), scope_of(state=state)
    first["state"]["mine"] = 1
    assert state == second["state"] == {"pool": shared}
    assert first["state"]["pool"] is shared


def test_a12_extensions_are_dictionaries() -> None:
    extensions: dict[str, dict[str, object]] = {"http.response.trailers": {}}
    scope = scope_of(extensions=extensions)
    scope["extensions"]["mine"] = {}
    assert extensions == {"http.response.trailers": {}}
    assert scope_of(extensions=extensions)["extensions"] == {"http.response.trailers": {}}


def test_a13_changing_a_scope_changes_no_other() -> None:
    base = base_scope(scheme="http", client=CLIENT, server=SERVER, root_path="")
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    first = http_scope(base, Talk(request).request, {}, {})
    first["asgi"]["version"] = "2.0"
    first["headers"].append((b"x", b"y"))
    first["path"] = first["root_path"] = "/changed"
    first["more"] = 1
    second = http_scope(base, Talk(request).request, {}, {})
    assert second["asgi"]["version"] == "3.0"
    assert second["headers"] == [(b"host", b"a")]
    assert (second["path"], second["root_path"]) == ("/", "")
    assert "more" not in second


@pytest.mark.parametrize(("scheme", "expected"), [("http", "ws"), ("https", "wss")])
def test_w29_w30_the_scope_of_a_websocket(scheme: str, expected: str) -> None:
    base = base_scope(scheme=scheme, client=CLIENT, server=SERVER, root_path="/mount")
    request = Talk(b"GET /chat?a HTTP/1.1\r\nHost: a\r\n\r\n").request
    offered = ["one", "two"]
    scope = websocket_scope(base, request, offered, {"x": {}}, {"k": 1})
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": expected,
        "path": "/chat",
        "raw_path": b"/chat",
        "query_string": b"a",
        "root_path": "/mount",
        "headers": [(b"host", b"a")],
        "client": CLIENT,
        "server": SERVER,
        "state": {"k": 1},
        "extensions": {"x": {}},
        "subprotocols": ["one", "two"],
    }
    scope["subprotocols"].clear()  # it is the application's own
    assert offered == ["one", "two"]


def socket_scope(*fields: bytes, state: dict[str, object] | None = None) -> Scope:
    talk = SocketTalk(*fields)
    base = base_scope(scheme="http", client=CLIENT, server=SERVER, root_path="")
    return websocket_scope(base, talk.request, talk.opening.subprotocols, {}, state or {})


def test_w30_the_fields_of_a_handshake_are_in_the_scope_as_any_others() -> None:
    names = [name for name, _ in socket_scope(b"Cookie: a=1", b"Sec-WebSocket-Protocol: soap")["headers"]]
    expected = ["host", "connection", "upgrade", "sec-websocket-version", "sec-websocket-key", "cookie", "sec-websocket-protocol"]
    assert names == [name.encode() for name in expected]


def test_w30_subprotocols_are_those_that_were_offered_in_order() -> None:
    assert socket_scope(b"Sec-WebSocket-Protocol: soap", b"Sec-WebSocket-Protocol: wamp, soap")["subprotocols"] == ["soap", "wamp", "soap"]
    assert socket_scope()["subprotocols"] == []


def test_a13_w14_changing_the_scope_of_a_websocket_changes_no_other() -> None:
    shared: list[int] = []
    state: dict[str, object] = {"pool": shared}
    base = base_scope(scheme="http", client=CLIENT, server=SERVER, root_path="")
    scope = websocket_scope(base, SocketTalk().request, [], {}, state)
    scope["extensions"]["mine"] = scope["state"]["mine"] = {}
    assert state == {"pool": shared}
    assert scope["state"]["pool"] is shared
    assert (base["type"], base["scheme"], "method" in base) == ("http", "http", True)
