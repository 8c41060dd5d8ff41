"""How an HTTP/2 connection ends, and what comes late: GOAWAY, commands on streams that are gone (RFC 9113 §6.8)."""

import pytest
from h2.errors import ErrorCodes

from termserver.errors import UnexpectedMessage
from termserver.wire import h2frames as f
from termserver.wire.events import Aborted, Body, Ending, Fault
from wire.h2driving import (
    CANCEL,
    DRAIN_PING,
    HALF_CLOSED,
    INTERNAL_ERROR,
    LARGEST,
    LAST,
    NO_ERROR,
    OPEN,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    TE,
    Client,
    Sent,
    busy,
    data,
    every_way,
    feed,
    frame,
    get,
    ping,
    post,
    reset,
    settings,
    window,
)

# ---------------------------------------------------------------------- commands


def test_commands_on_streams_that_are_gone_do_nothing() -> None:
    client = Client()
    client.send(post(1), reset(1), get(3))
    client.respond(3)
    client.take()
    engine = client.engine
    for stream in (1, 3, 5, 2, 0):
        engine.start(stream, 200, [(b"not even", b"looked at")])
        engine.write(stream, b"x", True)
        engine.write(stream, b"x", False)
        engine.trailers(stream, [], more=False)
        engine.interim(stream, 103, [])
        engine.wants_continue(stream)
        engine.upgrade(stream, [(b"not even", b"looked at")])
        engine.consumed(stream, 10)
        engine.reset(stream)
        engine.reject(stream, 500, "gone")
        assert engine.unsent(stream) == 0
    assert client.take() == []
    assert client.works


def test_commands_out_of_order() -> None:
    client = Client()
    client.send(get(1, TE), get(3, TE), get(5))
    engine = client.engine
    with pytest.raises(UnexpectedMessage):
        engine.write(1, b"", True)
    with pytest.raises(UnexpectedMessage):
        engine.trailers(1, [], more=False)
    engine.start(1, 200, [])
    with pytest.raises(UnexpectedMessage, match=r"expected 'http\.response\.body', the application sent 'http\.response\.start'"):
        engine.start(1, 200, [])
    with pytest.raises(UnexpectedMessage):
        engine.trailers(1, [], more=False)
    engine.write(1, b"x", True)
    with pytest.raises(UnexpectedMessage):
        engine.start(1, 200, [])
    with pytest.raises(UnexpectedMessage):
        engine.trailers(1, [], more=False)
    engine.write(1, b"y", False)

    engine.start(3, 200, [], trailers=True)
    engine.write(3, b"x", False)
    with pytest.raises(UnexpectedMessage):
        engine.write(3, b"x", False)
    engine.trailers(3, [], more=True)
    with pytest.raises(UnexpectedMessage):
        engine.write(3, b"x", False)
    engine.trailers(3, [(b"a", b"b")], more=False)

    client.send(settings((4, 0)))
    client.respond(5, b"waits")
    for late in (lambda: engine.write(5, b"x", True), lambda: engine.start(5, 200, []), lambda: engine.trailers(5, [], more=False)):
        with pytest.raises(UnexpectedMessage):
            late()
    client.send(window(5, 100))
    assert [client.answer(stream).body for stream in (1, 3, 5)] == [b"xy", b"x", b"waits"]


def test_reset() -> None:
    client = Client()
    client.send(post(1), post(3), get(5))
    client.engine.reset(1)
    client.engine.reset(1)
    client.engine.reset(3, CANCEL)
    client.begin(5)
    client.engine.reset(5)
    assert client.resets == [(1, INTERNAL_ERROR), (3, CANCEL), (5, INTERNAL_ERROR)]
    client.send(data(1, b"x"), data(3, b"x", ended=True))
    assert client.goaways == []
    assert client.works


@every_way
def test_end_of_input(way: str) -> None:
    client = busy(way)
    events = client.engine.end_of_input()
    assert events == [Aborted(stream, "the client left") for stream in (OPEN, HALF_CLOSED, LAST)]
    assert client.engine.ending is Ending.CLOSE
    assert (client.engine.end_of_input(), client.send(ping()), client.take()) == ([], [], [])


@every_way
def test_close(way: str) -> None:
    client = busy(way)
    events = client.engine.close(ErrorCodes.SETTINGS_TIMEOUT, "too slow")
    assert events == [
        *[Aborted(stream, "too slow") for stream in (OPEN, HALF_CLOSED, LAST)],
        Fault(0, ErrorCodes.SETTINGS_TIMEOUT, "too slow"),
    ]
    assert client.goaways == [(LAST, ErrorCodes.SETTINGS_TIMEOUT)]
    assert client.engine.ending is Ending.LINGER
    assert (client.engine.close(NO_ERROR, "again"), client.take()) == ([], [])


# ---------------------------------------------------------------------- 6.8: GOAWAY


@every_way
def test_rfc9113_6_8_a_drain_has_two_steps(way: str) -> None:
    client = Client(way)
    client.send(post(1))
    engine = client.engine
    assert not engine.draining
    engine.finish_drain()  # none has begun
    engine.drain()
    engine.drain()
    assert engine.draining
    assert client.take() == [DRAIN_PING, Sent(f.GOAWAY, 0, 0, b"\x7f\xff\xff\xff" + bytes(4))]
    client.send(post(3), ping(b"draining"), ping(b"another!", ack=True))  # what was on its way is served
    assert engine.draining
    client.take()
    client.send(ping(b"draining", ack=True))
    assert not engine.draining
    assert client.take() == [Sent(f.GOAWAY, 0, 0, b"\0\0\0\3" + bytes(4))]
    client.send(get(5), post(7), data(7, b"x", ended=True))
    assert client.resets == [(5, REFUSED_STREAM), (7, REFUSED_STREAM)]
    assert client.requests == [1, 3]
    client.send(data(1, b"x", ended=True), data(3, b"x", ended=True), ping())
    assert client.has_ended(1)
    client.respond(1)
    assert engine.ending is Ending.OPEN
    client.respond(3)
    assert engine.ending is Ending.LINGER
    assert [client.answer(stream).body for stream in (1, 3)] == [b"ok", b"ok"]
    engine.finish_drain()
    assert (client.take(), client.send(ping())) == ([], [])


def test_rfc9113_6_8_a_drain_without_streams() -> None:
    client = Client()
    client.engine.drain()
    assert client.engine.ending is Ending.OPEN
    client.engine.finish_drain()
    assert client.engine.ending is Ending.LINGER
    assert client.goaways == [(LARGEST, NO_ERROR), (0, NO_ERROR)]


@pytest.mark.parametrize("end", ["a client's reset", "a reset", "a fault"])
def test_rfc9113_6_8_the_last_stream_may_end_in_any_way(end: str) -> None:
    client = Client()
    client.send(post(1))
    client.engine.drain()
    client.engine.finish_drain()
    if end == "a client's reset":
        client.send(reset(1))
    elif end == "a reset":
        client.engine.reset(1)
    else:
        client.send(get(1))
    assert client.engine.ending is Ending.LINGER


def test_rfc9113_6_8_a_response_that_waits_is_not_cut_by_a_drain() -> None:
    client = Client()
    client.send(get(1))
    client.respond(1, bytes(100_000))
    client.engine.drain()
    client.engine.finish_drain()
    client.take()
    assert client.engine.ending is Ending.OPEN
    client.send(window(0, 100_000), window(1, 100_000))
    assert len(client.answer(1).body) == 100_000
    assert client.engine.ending is Ending.LINGER


@every_way
@pytest.mark.parametrize("payload", [bytes(8), LARGEST.to_bytes(4, "big") + b"\0\0\0\2bye", b"\xff\xff\xff\xff\xff\xff\xff\xff"])
def test_rfc9113_6_8_the_client_says_goaway(way: str, payload: bytes) -> None:
    client = busy(way)
    client.send(frame(f.GOAWAY, 0, 0, payload), frame(f.GOAWAY, 0, 0, payload))
    assert client.engine.draining
    assert client.goaways == [(LARGEST, NO_ERROR)]
    client.send(data(OPEN, b"x", ended=True), ping(b"draining", ack=True))
    assert client.events == [Body(OPEN, b"x", ended=True)]
    for stream in (OPEN, HALF_CLOSED, LAST):
        client.respond(stream)
    assert client.goaways == [(LARGEST, NO_ERROR), (LAST, NO_ERROR)]
    assert client.engine.ending is Ending.LINGER


@every_way
def test_l16_requests_per_connection(way: str) -> None:
    client = Client(way, requests_per_connection=3)
    client.send(get(1), get(3))
    assert client.goaways == []
    client.send(get(5))
    assert client.goaways == [(LARGEST, NO_ERROR)]
    client.send(get(7))
    assert (client.requests, client.engine.opened) == ([1, 3, 5, 7], 4)
    client.send(ping(b"draining", ack=True))
    assert client.goaways[1:] == [(7, NO_ERROR)]


@every_way
def test_rfc9113_6_8_goaway_never_names_a_later_stream_than_before(way: str) -> None:
    client = Client(way)
    client.send(post(1))
    client.engine.drain()
    client.engine.finish_drain()
    client.send(get(3), window(0, 0))
    assert client.resets == [(3, REFUSED_STREAM)]
    assert client.goaways == [(LARGEST, NO_ERROR), (1, NO_ERROR), (1, PROTOCOL_ERROR)]


@pytest.mark.parametrize("behind", [get(3), ping(), window(0, 0), frame(0xFA, 0, 0)], ids=["a request", "PING", "a fault", "unknown"])
def test_rfc9113_6_8_nothing_is_read_behind_the_end_of_a_drain(behind: bytes) -> None:
    def scene(way: str) -> Client:
        client = Client(way)
        client.engine.drain()
        client.take()
        client.sent.clear()
        return client

    client = feed(scene, ping(b"draining", ack=True), behind)
    assert (client.sent, client.events) == ([Sent(f.GOAWAY, 0, 0, bytes(8))], [])
    assert client.engine.ending is Ending.LINGER


@pytest.mark.parametrize("end", [reset(1), get(1)], ids=["a reset", "a fault"])
@pytest.mark.parametrize("behind", [get(3), ping(), window(0, 0)], ids=["a request", "PING", "a fault"])
def test_rfc9113_6_8_nothing_is_read_behind_the_end_of_the_last_stream(end: bytes, behind: bytes) -> None:
    def scene(way: str) -> Client:
        client = Client(way)
        client.send(get(1))
        client.engine.drain()
        client.engine.finish_drain()
        client.take()
        client.sent.clear()
        return client

    client = feed(scene, end, behind)
    assert len(client.events) == 2  # the request and its end
    assert [each.kind for each in client.sent] == ([f.RST_STREAM] if end == get(1) else [])
