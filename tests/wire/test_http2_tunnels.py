"""WebSockets on HTTP/2 streams, and connections that come from HTTP/1 (RFC 8441, RFC 7540 §3.2); spec attacks D10."""

import pytest

from termserver.wire import h2frames as f
from termserver.wire.events import Body, Ending, Request
from wire.h2driving import (
    CANCEL,
    CONNECT,
    FLOW_CONTROL_ERROR,
    HELLO,
    INTERNAL_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    STREAM_CLOSED,
    Client,
    Sent,
    breaks_stream,
    data,
    every_way,
    feed,
    get,
    headers,
    length,
    settings,
    window,
)

# ---------------------------------------------------------------------- RFC 8441: WebSockets


@every_way
def test_rfc8441_5_a_tunnel(way: str) -> None:
    client = Client(way)
    client.send(headers(1, [*CONNECT, (b"sec-websocket-version", b"13")], ended=False))
    request = client.events[-1]
    assert isinstance(request, Request)
    assert (request.method, request.upgrade, request.path, request.ended) == ("CONNECT", b"websocket", b"/", False)
    client.engine.upgrade(1, [(b"Sec-WebSocket-Protocol", b" chat ")])
    assert client.take() == [Sent(f.HEADERS, f.END_HEADERS, 1, client.sent[-1].payload)]
    assert client.answer(1).heads == [[(b":status", b"200"), (b"sec-websocket-protocol", b"chat")]]
    client.send(data(1, b"in"), data(1, b"more", padding=3))
    client.engine.write(1, b"out", True)
    client.engine.write(1, b"", True)
    client.engine.write(1, bytes(100_000), True)
    assert client.body(1) == b"inmore"
    assert client.answer(1).body == b"out" + bytes(65_532)
    client.send(window(0, 100_000), window(1, 100_000), data(1, ended=True))
    assert client.events[-1] == Body(1, b"", ended=True)
    client.engine.write(1, b"bye", False)
    assert (client.answer(1).body[100_003:], client.answer(1).ended, client.answer(1).code) == (b"bye", True, None)
    assert client.works


@every_way
def test_rfc8441_5_the_server_ends_a_tunnel(way: str) -> None:
    client = Client(way)
    client.send(headers(1, CONNECT, ended=False))
    client.engine.upgrade(1, [])
    client.engine.write(1, b"bye", False)
    assert (client.answer(1).body, client.answer(1).ended) == (b"bye", True)
    client.send(data(1, b"late"), data(1, ended=True))
    assert client.works


@every_way
def test_rfc8441_5_a_tunnel_that_is_refused(way: str) -> None:
    client = Client(way)
    client.send(headers(1, CONNECT, ended=False))
    client.respond(1, b"no", 403)
    assert (client.answer(1).status, client.answer(1).body, client.answer(1).code) == (403, b"no", NO_ERROR)
    assert client.works


def test_rfc8441_5_a_tunnel_is_cut() -> None:
    client = Client()
    client.send(headers(1, CONNECT, ended=False), headers(3, CONNECT, ended=False))
    for stream in (1, 3):
        client.engine.upgrade(stream, [])
    client.engine.reset(1, CANCEL)
    client.engine.reject(3, 500, "late")
    assert client.resets == [(1, CANCEL), (3, INTERNAL_ERROR)]
    assert client.works


def test_rfc8441_5_what_a_tunnel_opens_with_waits_for_the_transport() -> None:
    client = Client()
    client.send(headers(1, CONNECT, ended=False))
    client.engine.sender.blocked = True
    client.engine.upgrade(1, [])
    client.engine.write(1, b"first", True)
    assert client.take() == []
    client.engine.sender.blocked = False
    assert (client.answer(1).status, client.answer(1).body, client.answer(1).ended) == (200, b"first", False)


@pytest.mark.parametrize(
    ("what", "ended"),
    [
        pytest.param(CONNECT, True, id="closed at once"),
        pytest.param([*CONNECT, length(0)], False, id="a content-length"),
        pytest.param([*CONNECT, length(5)], False, id="a body"),
        pytest.param([(b":method", b"GET"), *CONNECT[1:]], False, id="GET"),
        pytest.param([each for each in CONNECT if each[0] != b":path"], False, id="no :path"),
        pytest.param([each for each in CONNECT if each[0] != b":scheme"], False, id="no :scheme"),
        pytest.param([each for each in CONNECT if each[0] != b":authority"], False, id="no :authority"),
        pytest.param([*CONNECT, (b"upgrade", b"websocket")], False, id="upgrade"),
        pytest.param([*CONNECT, (b"connection", b"upgrade")], False, id="connection"),
        pytest.param([*CONNECT, (b":protocol", b"websocket")], False, id="two protocols"),
    ],
)
def test_d10_rfc8441_4_malformed_extended_connect(what: list[tuple[bytes, bytes]], ended: bool) -> None:
    assert feed(Client, headers(1, what, ended=ended)).requests == []
    breaks_stream(Client, headers(1, what, ended=ended), 1, PROTOCOL_ERROR)


def test_rfc8441_4_another_protocol_is_not_served() -> None:
    client = Client()
    client.send(headers(1, [CONNECT[0], (b":protocol", b"connect-udp"), *CONNECT[2:]], ended=False))
    assert (client.answer(1).status, client.requests) == (501, [])


def test_rfc8441_5_a_tunnel_has_no_trailers() -> None:
    def scene(way: str) -> Client:
        client = Client(way)
        client.send(headers(1, CONNECT, ended=False))
        client.engine.upgrade(1, [])
        client.take()
        client.sent.clear()
        return client

    breaks_stream(scene, headers(1, [(b"a", b"b")]), 1, PROTOCOL_ERROR)


# ---------------------------------------------------------------------- RFC 7540, 3.2: from HTTP/1


def adopted(way: str = "whole", *values: tuple[int, int], is_head: bool = False) -> Client:
    """Make a client whose first request came by HTTP/1, and that says hello after it."""
    client = Client(way, greet=False)
    client.engine.adopt(f.settings(values)[9:], is_head=is_head)
    return client


@every_way
def test_rfc7540_3_2_the_request_is_stream_1(way: str) -> None:
    client = adopted(way)
    assert (client.events, client.requests, client.engine.opened) == ([], [], 1)
    client.respond(1, b"before the preface")
    assert (client.answer(1).body, client.answer(1).ended, client.answer(1).code) == (b"before the preface", True, None)
    assert [each.kind for each in client.sent] == [f.SETTINGS, f.WINDOW_UPDATE, f.HEADERS, f.DATA]
    client.send(HELLO, f.SETTINGS_ACK)
    assert client.works


@every_way
def test_rfc7540_3_2_its_settings_are_the_clients(way: str) -> None:
    client = adopted(way, (4, 5), (3, 7), (0xFFFF, 1))
    client.respond(1, b"hello, you")
    assert client.answer(1).body == b"hello"
    client.send(f.PREFACE, settings((4, 10)))
    assert (client.answer(1).body, client.answer(1).ended) == (b"hello, you", True)


@every_way
def test_rfc7540_3_2_head(way: str) -> None:
    client = adopted(way, is_head=True)
    client.respond(1, b"hello", length=False)
    assert (client.answer(1).body, client.answer(1).ended, client.answer(1).field(b"content-length")) == (b"", True, [b"5"])


@pytest.mark.parametrize(("value", "code"), [((4, 1 << 31), FLOW_CONTROL_ERROR), ((5, 1), PROTOCOL_ERROR), ((2, 2), PROTOCOL_ERROR)])
def test_rfc7540_3_2_settings_that_may_not_be(value: tuple[int, int], code: int) -> None:
    client = adopted("whole", value)
    assert (client.goaways, client.engine.ending, client.engine.streams) == ([(0, code)], Ending.LINGER, {})
    assert client.send(HELLO) == []


@every_way
@pytest.mark.parametrize("late", [data(1, b"x"), data(1, ended=True), get(1), headers(1, [(b"a", b"b")])])
def test_rfc7540_3_2_the_request_is_whole(way: str, late: bytes) -> None:
    client = adopted(way)
    client.send(HELLO, late)
    assert client.resets == [(1, STREAM_CLOSED)]
    assert client.works


@every_way
def test_rfc7540_3_2_the_next_stream_is_3(way: str) -> None:
    client = adopted(way)
    client.send(HELLO, get(3))
    client.respond(1)
    client.respond(3)
    assert [client.answer(stream).body for stream in (1, 3)] == [b"ok", b"ok"]
    client.send(get(1))
    assert client.goaways == [(3, STREAM_CLOSED)]


@every_way
def test_rfc7540_3_2_what_follows_is_the_preface(way: str) -> None:
    client = adopted(way)
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.goaways == [(1, PROTOCOL_ERROR)]
    assert client.aborted(1)
