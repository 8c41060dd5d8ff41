"""Requests on HTTP/2 streams, and who ends them (RFC 9113 §5.1, §8.1)."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import pytest

from termserver.wire import h2frames as f
from termserver.wire.events import Aborted, Body, Ending, Fault, Rejected, Request, Trailers
from wire.h2driving import (
    CONNECT,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    INTERNAL_ERROR,
    LARGEST,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    Client,
    breaks_stream,
    continuation,
    data,
    every_way,
    feed,
    fields,
    frame,
    get,
    headers,
    length,
    post,
    priority,
    priority_update,
    reset,
    settings,
    window,
)

# ---------------------------------------------------------------------- 5.1: every frame in every state

# "Half-closed (local)" is left at once: what is still to come of the request is not wanted (RFC 9113 §8.1), so RST_STREAM follows the
# response. A response that waits for its window is as near to it as we get.
OPEN, HALF_CLOSED, TUNNEL, WAITS, REJECTED = "open", "half-closed (remote)", "a tunnel", "the response waits", "rejected, which waits"
CLOSED, RESET_BY_CLIENT = "closed", "reset by the client"
RESET_BY_US, FAULTED, REFUSED, EARLY = "reset by us", "reset for a fault", "refused", "answered early"
ZERO, EVEN, PASSED_OVER, IDLE = "0", "even", "passed over", "idle"
ALIVE = [OPEN, HALF_CLOSED, TUNNEL, WAITS, REJECTED]
ENDED_BY_US = [RESET_BY_US, FAULTED, REFUSED, EARLY]
STATES: dict[str, int] = {
    OPEN: 1, HALF_CLOSED: 3, TUNNEL: 5, WAITS: 7, REJECTED: 9, CLOSED: 11, RESET_BY_CLIENT: 13, RESET_BY_US: 15, FAULTED: 17, REFUSED: 19,
    PASSED_OVER: 21, EARLY: 23, IDLE: 31, ZERO: 0, EVEN: 14,
}  # fmt: skip


class Ends(NamedTuple):
    """A frame ends a stream, or the connection, with a code."""

    what: str
    code: int


Outcome: TypeAlias = Ends | str
TAKEN, IGNORED = "taken", "ignored"  # it has an effect, it has none


def rst(code: int) -> Outcome:
    return Ends("stream", code)


def goaway(code: int) -> Outcome:
    return Ends("connection", code)


def every_state(way: str) -> Client:
    """Make a connection with a stream in every state that streams can be in."""
    client = Client(way, request_body=100)
    client.send(settings((4, 10)), post(1), get(3), headers(5, CONNECT, ended=False), post(7), post(9, length(101)), get(11), post(13))
    client.engine.upgrade(5, [])
    client.respond(7, bytes(100))
    client.respond(11)
    client.send(reset(13), post(15), post(17, (b"te", b"gzip")))
    client.engine.reset(15)
    client.engine.calls = 100
    client.send(post(19))
    client.engine.calls = 0
    client.send(post(23))
    client.respond(23)
    client.take()
    assert client.resets == [(17, PROTOCOL_ERROR), (15, INTERNAL_ERROR), (19, REFUSED_STREAM), (23, NO_ERROR)]
    assert [stream for name, stream in STATES.items() if name in ALIVE] == list(client.engine.streams)
    client.events.clear()
    client.sent.clear()
    return client


def cases(default: Outcome, *exceptions: tuple[list[str], Outcome]) -> dict[str, Outcome]:
    """Say what comes of a frame in each state."""
    outcomes = dict.fromkeys(STATES, default)
    for states, outcome in exceptions:
        outcomes.update(dict.fromkeys(states, outcome))
    return outcomes


HEADS_ON_NONE = [
    ([ZERO, EVEN, PASSED_OVER], goaway(PROTOCOL_ERROR)),
    ([HALF_CLOSED], rst(STREAM_CLOSED)),
    ([CLOSED, RESET_BY_CLIENT], goaway(STREAM_CLOSED)),
    ([REJECTED, *ENDED_BY_US], IGNORED),
]
DATA_ON_NONE = [*HEADS_ON_NONE, ([IDLE], goaway(PROTOCOL_ERROR))]
ON_STREAM_0 = cases(goaway(PROTOCOL_ERROR), ([ZERO], TAKEN))
FRAMES: dict[str, tuple[Callable[[int], bytes], dict[str, Outcome]]] = {
    "DATA": (lambda n: data(n, b"x"), cases(TAKEN, *DATA_ON_NONE)),
    "DATA, padded": (lambda n: data(n, b"x", padding=9), cases(TAKEN, *DATA_ON_NONE)),
    "empty DATA": (data, cases(IGNORED, *DATA_ON_NONE)),
    "DATA that ends": (lambda n: data(n, b"x", ended=True), cases(TAKEN, *DATA_ON_NONE)),
    "empty DATA that ends": (lambda n: data(n, ended=True), cases(TAKEN, *DATA_ON_NONE)),
    "a request": (get, cases(rst(PROTOCOL_ERROR), *HEADS_ON_NONE, ([IDLE], TAKEN))),
    "the head of a request": (post, cases(rst(PROTOCOL_ERROR), *HEADS_ON_NONE, ([IDLE], TAKEN))),
    "trailers": (lambda n: headers(n, [(b"a", b"b")]), cases(TAKEN, *HEADS_ON_NONE, ([TUNNEL, IDLE], rst(PROTOCOL_ERROR)))),
    "fields that end nothing": (lambda n: headers(n, [(b"a", b"b")], ended=False), cases(rst(PROTOCOL_ERROR), *HEADS_ON_NONE)),
    "PRIORITY": (lambda n: priority(n, 99), cases(IGNORED, ([ZERO], goaway(PROTOCOL_ERROR)))),
    "PRIORITY on itself": (lambda n: priority(n, n), cases(goaway(PROTOCOL_ERROR))),
    "PRIORITY, too short": (lambda n: priority(n, size=4), cases(goaway(FRAME_SIZE_ERROR), ([ZERO], goaway(PROTOCOL_ERROR)))),
    "RST_STREAM": (reset, cases(IGNORED, ([ZERO, EVEN, IDLE], goaway(PROTOCOL_ERROR)), (ALIVE, TAKEN))),
    "WINDOW_UPDATE": (lambda n: window(n, 1), cases(IGNORED, ([EVEN, IDLE], goaway(PROTOCOL_ERROR)), ([WAITS, REJECTED], TAKEN))),
    "WINDOW_UPDATE of nothing": (lambda n: window(n, 0), cases(goaway(PROTOCOL_ERROR))),
    "WINDOW_UPDATE that overflows": (
        lambda n: window(n, LARGEST),
        cases(
            IGNORED,
            ([EVEN, IDLE], goaway(PROTOCOL_ERROR)),
            ([OPEN, HALF_CLOSED, TUNNEL], rst(FLOW_CONTROL_ERROR)),
            ([WAITS, REJECTED], TAKEN),  # of their windows nothing is left
            ([ZERO], goaway(FLOW_CONTROL_ERROR)),
        ),
    ),
    "CONTINUATION": (lambda n: continuation(n, b"\x82"), cases(goaway(PROTOCOL_ERROR))),
    "SETTINGS": (lambda n: frame(f.SETTINGS, 0, n), ON_STREAM_0),
    "PING": (lambda n: frame(f.PING, 0, n, bytes(8)), ON_STREAM_0),
    "GOAWAY": (lambda n: frame(f.GOAWAY, 0, n, bytes(8)), ON_STREAM_0),
    "PUSH_PROMISE": (lambda n: frame(f.PUSH_PROMISE, f.END_HEADERS, n, b"\0\0\0\2\x82"), cases(goaway(PROTOCOL_ERROR))),
    "PRIORITY_UPDATE": (lambda n: priority_update(n, b"u=1"), cases(IGNORED, ([ZERO, EVEN], goaway(PROTOCOL_ERROR)))),
    "PRIORITY_UPDATE on it": (lambda n: frame(f.PRIORITY_UPDATE, 0, n, b"\0\0\0\1u=1"), cases(goaway(PROTOCOL_ERROR), ([ZERO], IGNORED))),
    "an unknown frame": (lambda n: frame(0xFA, 0xFF, n, b"x"), cases(IGNORED)),
    "a frame that is too large": (lambda n: f.HEAD.pack(16_385 << 8 | 0xFA, 0, n), cases(goaway(FRAME_SIZE_ERROR))),
}


@pytest.mark.parametrize(
    ("build", "state", "outcome"),
    [
        pytest.param(build, state, outcome, id=f"{name} - {state}")
        for name, (build, outcomes) in FRAMES.items()
        for state, outcome in outcomes.items()
    ],
)
def test_rfc9113_5_1_every_frame_in_every_state(build: Callable[[int], bytes], state: str, outcome: Outcome) -> None:
    stream = STATES[state]
    before = set(every_state("whole").engine.streams)
    client = feed(every_state, build(stream))
    left = set(client.engine.streams)
    if isinstance(outcome, Ends) and outcome.what == "connection":
        assert [code for _, code in client.goaways] == [outcome.code]
        assert (client.resets, left, client.engine.ending) == ([], set(), Ending.LINGER)
        assert [event.stream for event in client.events if isinstance(event, Aborted)] == sorted(before)
        assert isinstance(client.events[-1], Fault)
        return
    assert client.goaways == [] or build(stream)[3] == f.GOAWAY
    assert client.engine.ending is Ending.OPEN
    if isinstance(outcome, Ends):
        assert client.resets == [(stream, outcome.code)]
        assert [(event.stream, event.code) for event in client.events if isinstance(event, Fault)] == [(stream, outcome.code)]
        assert len(client.events) == 1
        assert left == before - {stream}
    elif outcome is IGNORED:
        assert (client.events, client.sent, left) == ([], [], before)
    else:
        assert client.events or client.sent
        assert client.resets in ([], [(stream, NO_ERROR)])  # the answer is out
        assert before - left <= {stream}
    assert client.works


def test_rfc9113_5_1_the_table_knows_every_frame() -> None:
    kinds = {build(1)[3] for build, _ in FRAMES.values()}
    assert kinds == {*range(10), f.PRIORITY_UPDATE, 0xFA}


# ---------------------------------------------------------------------- 8.1: requests


@every_way
def test_rfc9113_8_3_a_request(way: str) -> None:
    client = Client(way)
    client.send(headers(1, [*fields(b"PUT", b"/a%20b?c=d", (b"x", b"y")), (b"cookie", b"1"), (b"cookie", b"2")]))
    assert client.events == [
        Request(
            1,
            "PUT",
            b"/a%20b?c=d",
            b"/a%20b",
            b"c=d",
            [(b"host", b"a"), (b"x", b"y"), (b"cookie", b"1; 2")],  # RFC 9113 §8.2.3
            "2",
            ended=True,
            upgrade=None,
        )
    ]


@every_way
@pytest.mark.parametrize(
    ("parts", "trailers"),
    [
        ([b""], False),
        ([b"abc"], False),
        ([b"a", b"b", b""], False),
        ([b"x" * 16_384, b"y"], False),
        ([b"abc"], True),
        ([], True),
        ([b"a", b""], True),
    ],
)
@pytest.mark.parametrize("declared", [False, True])
def test_rfc9113_8_1_a_body(way: str, parts: list[bytes], trailers: bool, declared: bool) -> None:
    client = Client(way)
    size = sum(map(len, parts))
    client.send(post(1, length(size)) if declared else post(1))
    client.send(*[data(1, part, ended=not trailers and i == len(parts) - 1) for i, part in enumerate(parts)])
    assert client.has_ended(1) is not trailers
    if trailers:
        client.send(headers(1, [(b"a", b"b"), (b"c", b"")]))
        assert client.events[-1] == Trailers(1, [(b"a", b"b"), (b"c", b"")])
    assert client.body(1) == b"".join(parts)
    assert client.resets == []
    client.respond(1)
    assert (client.answer(1).body, client.answer(1).code) == (b"ok", None)


@every_way
def test_rfc9113_8_1_an_empty_trailer_section_is_an_end(way: str) -> None:
    client = Client(way)
    client.send(post(1), headers(1, b""))
    assert client.events[-1] == Body(1, b"", ended=True)


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize(
    ("declared", "sizes"), [(3, [4]), (3, [1, 3]), (0, [1]), (1, [16_384])], ids=["too long", "too long in parts", "none", "much too long"]
)
def test_c17_rfc9113_8_1_1_more_data_than_content_length(declared: int, sizes: list[int], ended: bool) -> None:
    frames = [data(1, bytes(size), ended=ended and i == len(sizes) - 1) for i, size in enumerate(sizes)]
    breaks_stream(Client, post(1, length(declared)) + b"".join(frames), 1, PROTOCOL_ERROR)
    client = feed(Client, post(1, length(declared)), *frames)
    assert not client.has_ended(1)
    assert len(client.body(1)) <= declared


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(data(1, b"ab", ended=True), id="DATA"),
        pytest.param(data(1, b"ab") + data(1, ended=True), id="empty DATA"),
        pytest.param(data(1, b"ab") + headers(1, [(b"a", b"b")]), id="trailers"),
        pytest.param(data(1, b"ab", ended=True, padding=1), id="padding is no content"),
        pytest.param(headers(1, b""), id="empty trailers"),
    ],
)
def test_c17_rfc9113_8_1_1_less_data_than_content_length(ending: bytes) -> None:
    breaks_stream(Client, post(1, length(3)) + ending, 1, PROTOCOL_ERROR)
    assert not feed(Client, post(1, length(3)), ending).has_ended(1)


def test_c17_rfc9113_8_1_1_a_request_that_has_a_content_length_and_no_body() -> None:
    assert feed(Client, headers(1, fields(b"POST", b"/", length(3)))).requests == []
    breaks_stream(Client, headers(1, fields(b"POST", b"/", length(3))), 1, PROTOCOL_ERROR)
    assert feed(Client, headers(1, fields(b"POST", b"/", length(0)))).requests == [1]


@every_way
def test_the_client_resets_a_stream(way: str) -> None:
    client = Client(way)
    client.send(post(1), data(1, b"x"), reset(1), get(3), reset(3))
    assert client.aborted(1) == client.aborted(3) == ["the client reset the stream"]
    assert client.engine.streams == {}
    client.respond(1)
    assert client.take() == []
    assert client.works


# ---------------------------------------------------------------------- 5.1, 8.1: what is too much has an end, too


def too_large(way: str) -> Client:
    """Make a client whose requests hold too much, once they are whole; the answers wait for a window."""
    client = Client(way, request_body=10)
    client.send(settings((4, 0)), post(1), post(3), data(1, bytes(11), ended=True), headers(3, [(b"a", b"b")] * 101))
    assert [event.status for event in client.events if isinstance(event, Rejected)] == [413, 431]
    client.take()
    client.sent.clear()
    return client


@every_way
@pytest.mark.parametrize("stream", [1, 3])
def test_rfc9113_5_1_no_rst_stream_behind_an_answer_to_a_request_that_is_whole(way: str, stream: int) -> None:
    client = too_large(way)
    client.send(settings((4, 1_000)))
    assert (client.answer(stream).ended, client.answer(stream).code) == (True, None)
    assert client.works


@pytest.mark.parametrize("stream", [1, 3])
@pytest.mark.parametrize("late", [lambda n: data(n, b"x"), lambda n: data(n, ended=True), get], ids=["DATA", "the end", "HEADERS"])
def test_rfc9113_5_1_nothing_comes_behind_the_end_of_a_request_that_was_too_much(stream: int, late: Callable[[int], bytes]) -> None:
    client = feed(too_large, late(stream))
    assert client.resets == [(stream, STREAM_CLOSED)]
    assert isinstance(client.events[-1], Fault)
