"""Where the port that redirects to HTTPS sends whom."""

from typing import Any

import pytest

from fakes import in_loop
from termserver.asgi.redirect import redirect_to_https

Message = dict[str, Any]


async def answer(port: int, **scope: Any) -> tuple[int, str | None]:
    """Ask once; give status and location."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("the body does not matter")

    asked = {"type": "http", "headers": [(b"host", b"a.test")], "raw_path": b"/", "query_string": b""} | scope
    await redirect_to_https(port)(asked, receive, send)
    start, body = sent
    assert (start["type"], body["type"], body["body"]) == ("http.response.start", "http.response.body", b"")
    headers = dict(start["headers"])
    assert headers[b"content-length"] == b"0"
    location = headers.get(b"location")
    return start["status"], None if location is None else location.decode()


@pytest.mark.parametrize(("host", "port", "location"), [
    (b"a.test", 443, "https://a.test/"),
    (b"a.test:80", 443, "https://a.test/"),
    (b"a.test", 8443, "https://a.test:8443/"),
    (b"a.test:8080", 8443, "https://a.test:8443/"),
    (b"192.0.2.1:80", 443, "https://192.0.2.1/"),
    (b"[2001:db8::1]", 443, "https://[2001:db8::1]/"),
    (b"[2001:db8::1]:80", 443, "https://[2001:db8::1]/"),
    (b"[::1]:8080", 8443, "https://[::1]:8443/"),
])  # fmt: skip
def test_same_host_at_the_port_of_https(host: bytes, port: int, location: str) -> None:
    @in_loop
    async def main() -> None:
        assert await answer(port, headers=[(b"host", host)]) == (308, location)

    main()


@pytest.mark.parametrize(("path", "query", "location"), [
    (b"/a/b", b"", "https://a.test/a/b"),
    (b"/a%2Fb", b"c=d&e=%20", "https://a.test/a%2Fb?c=d&e=%20"),
    (b"//other.test/a", b"", "https://a.test//other.test/a"),
    (b"/", b"https://other.test", "https://a.test/?https://other.test"),
])  # fmt: skip
def test_path_and_query_stay_as_they_were_sent(path: bytes, query: bytes, location: str) -> None:
    @in_loop
    async def main() -> None:
        assert await answer(443, raw_path=path, query_string=query) == (308, location)

    main()


@pytest.mark.parametrize("scope", [
    pytest.param({"headers": []}, id="no host"),
    pytest.param({"headers": [(b"host", b"")]}, id="empty host"),
    pytest.param({"raw_path": b"*"}, id="asterisk-form"),
])  # fmt: skip
def test_who_cannot_be_sent_anywhere_gets_400(scope: Any) -> None:
    @in_loop
    async def main() -> None:
        assert await answer(443, **scope) == (400, None)

    main()


@in_loop
async def test_websockets_are_refused() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await redirect_to_https(443)({"type": "websocket"}, send, send)  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close"}]
