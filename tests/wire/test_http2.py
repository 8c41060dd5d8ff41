"""The HTTP/2 engine as a whole: laws that hold whatever comes, and a client that nobody here wrote.

The RFC's rules are in the files beside this one, by subject. Every test with `way` is run with the bytes whole, one by one and in sevens:
what comes of them has to be the same. What a hostile client may not do is in `test_http2_attacks.py`.
"""

from collections.abc import Callable
from contextlib import suppress

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded
from hypothesis import given
from hypothesis import settings as laws
from hypothesis import strategies as st

from termserver.errors import InvalidMessage, UnexpectedMessage
from termserver.wire.events import Body, Ending, Event
from wire.h2driving import (
    LARGEST,
    SOME,
    Client,
    block,
    continuation,
    data,
    fields,
    frame,
    get,
    headers,
    make,
    ping,
    post,
    priority,
    priority_update,
    read_frames,
    reset,
    settings,
    window,
)

# ---------------------------------------------------------------------- laws

STREAM_NUMBERS = st.sampled_from([0, 1, 1, 1, 2, 3, 3, 5, 7, LARGEST])
SOME_FRAMES = st.one_of(
    st.sampled_from([1, 3, 5, 7]).map(get),
    st.sampled_from([1, 3, 5, 7]).map(post),
    st.builds(data, STREAM_NUMBERS, st.sampled_from([b"", b"x", bytes(300), bytes(16_384)]), ended=st.booleans()),
    st.builds(data, STREAM_NUMBERS, st.binary(max_size=5), padding=st.integers(0, 255)),
    st.builds(
        headers,
        STREAM_NUMBERS,
        st.sampled_from([SOME, SOME[:9], b"", b"\xbe", block([(b"a", b"b")])]),
        ended=st.booleans(),
        whole=st.booleans(),
    ),
    st.builds(continuation, STREAM_NUMBERS, st.sampled_from([b"", SOME[9:]]), whole=st.booleans()),
    st.builds(reset, STREAM_NUMBERS),
    st.builds(window, STREAM_NUMBERS, st.sampled_from([0, 1, 1_000, LARGEST])),
    st.builds(ping, st.sampled_from([b"12345678", b"draining", b""]), ack=st.booleans()),
    st.builds(priority, STREAM_NUMBERS, STREAM_NUMBERS),
    st.builds(priority_update, STREAM_NUMBERS, st.sampled_from([b"u=0", b"", b"\xff"])),
    st.builds(lambda name, value: settings((name, value)), st.integers(0, 10), st.sampled_from([0, 1, 16_384, 65_535, LARGEST, 1 << 31])),
    st.builds(frame, st.integers(0, 20), st.integers(0, 255), STREAM_NUMBERS, st.binary(max_size=10)),
    st.binary(max_size=12),
)
COMMANDS: dict[str, Callable[[Client, int], object]] = {
    "respond": lambda client, stream: client.respond(stream, b"hello" * 5_000),
    "begin": lambda client, stream: client.begin(stream),
    "write": lambda client, stream: client.engine.write(stream, bytes(20_000), True),
    "end": lambda client, stream: client.engine.write(stream, b"", False),
    "trailing": lambda client, stream: client.engine.start(stream, 200, [], trailers=True),
    "trailers": lambda client, stream: client.engine.trailers(stream, [(b"a", b"b")], more=False),
    "interim": lambda client, stream: client.engine.interim(stream, 103, []),
    "consumed": lambda client, stream: client.engine.consumed(stream, 10),
    "reject": lambda client, stream: client.engine.reject(stream, 503, "no"),
    "reset": lambda client, stream: client.engine.reset(stream),
    "block": lambda client, _: setattr(client.engine.sender, "blocked", True),
    "release": lambda client, _: setattr(client.engine.sender, "blocked", False),
    "drain": lambda client, _: client.engine.drain(),
    "finish drain": lambda client, _: client.engine.finish_drain(),
}
STEPS = st.one_of(SOME_FRAMES, SOME_FRAMES, st.tuples(st.sampled_from(sorted(COMMANDS)), st.sampled_from([1, 3, 5, 7])))


def play(way: str, steps: list[bytes | tuple[str, int]]) -> tuple[list[Event], bytes, Ending]:
    """Play what client and application do; see that all that is sent has its order."""
    client = Client(way)
    out = b""
    for step in steps:
        if isinstance(step, bytes):
            client.send(step)
        else:
            with suppress(UnexpectedMessage, InvalidMessage):
                COMMANDS[step[0]](client, step[1])
        while more := client.engine.output():
            out += more
    client.engine.sender.blocked = False
    out += client.engine.output()
    reader = Client(greet=False)
    for each in read_frames(out):
        reader._read(each)
    if client.engine.ending is Ending.OPEN:
        assert len(client.engine._reader._held) < 16_384 + 9
    return client.events, out, client.engine.ending


@laws(max_examples=150)
@given(st.lists(STEPS, max_size=25))
def test_no_input_raises_any_split_gives_the_same_and_nothing_is_sent_behind_an_end(steps: list[bytes | tuple[str, int]]) -> None:
    whole = play("whole", steps)
    assert play("byte by byte", steps) == whole


@given(st.lists(st.binary(max_size=60), max_size=8), st.booleans())
def test_arbitrary_bytes(pieces: list[bytes], greeted: bool) -> None:
    client = Client(greet=greeted)
    client.send(*pieces)
    client.take()
    assert client.requests == []


# ---------------------------------------------------------------------- a client nobody here wrote


@pytest.mark.parametrize("count", [1, 100])
@pytest.mark.parametrize("size", [0, 10, 300_000])
def test_the_h2_package_understands_us(count: int, size: int) -> None:
    engine, theirs = make(), H2Connection(H2Configuration(client_side=True))
    theirs.initiate_connection()
    sizes: dict[int, int] = {}
    bodies: dict[int, int] = {}
    statuses: dict[int, bytes] = {}
    for i in range(count):
        stream = 2 * i + 1
        theirs.send_headers(stream, fields(b"POST", b"/%d" % i), end_stream=False)
        theirs.send_data(stream, bytes(100), end_stream=True)
    ended: set[int] = set()
    for _ in range(2_000):
        out = theirs.data_to_send()
        for event in engine.receive(out, 1.0):
            if isinstance(event, Body):
                sizes[event.stream] = sizes.get(event.stream, 0) + len(event.data)
                engine.consumed(event.stream, len(event.data))
                engine.start(event.stream, 200, [(b"content-length", b"%d" % size)])
                engine.write(event.stream, bytes(size), False)
        back = engine.output()
        if not out and not back:
            break
        for heard in theirs.receive_data(back):
            if isinstance(heard, ResponseReceived):
                statuses[heard.stream_id] = dict(heard.headers)[b":status"]
            elif isinstance(heard, DataReceived):
                bodies[heard.stream_id] = bodies.get(heard.stream_id, 0) + len(heard.data)
                theirs.acknowledge_received_data(heard.flow_controlled_length, heard.stream_id)
            elif isinstance(heard, StreamEnded):
                ended.add(heard.stream_id)
    numbers = {2 * i + 1 for i in range(count)}
    assert ended == numbers
    assert sizes == dict.fromkeys(numbers, 100)
    assert statuses == dict.fromkeys(numbers, b"200")
    assert bodies == (dict.fromkeys(numbers, size) if size else {})
    assert engine.streams == {}
