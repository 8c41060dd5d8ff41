"""JSON lines between processes of ours: however they are cut, whatever is missing of them."""

import json
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termserver.channel import Channel, Said

Pair = tuple[Channel, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A channel, and the bare socket at its other end."""
    ours, its = socket.socketpair()
    channel = Channel(ours)
    yield channel, its
    channel.close()
    its.close()


def heard(channel: Channel) -> list[Said]:
    return list(channel.hear())


def test_what_is_said_is_a_line_of_json(pair: Pair) -> None:
    channel, its = pair
    channel.say("beat", requests=3)
    assert its.recv(100) == b'{"is":"beat","requests":3}\n'
    assert channel.fileno() == channel.socket.fileno()


def test_nothing_that_came_is_nothing_heard_and_no_end(pair: Pair) -> None:
    channel, _ = pair
    assert heard(channel) == []
    assert not channel.closed


@given(facts=st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=10), max_size=3), max_size=4), data=st.data())
def test_any_split_gives_the_same(facts: list[dict[str, object]], data: st.DataObject) -> None:
    said = [{**fact, "is": "x"} for fact in facts]
    raw = b"".join(json.dumps(each).encode() + b"\n" for each in said)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=6)))
    ours, its = socket.socketpair()
    channel, found = Channel(ours), []
    with its:
        for begin, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
            its.sendall(raw[begin:end])
            found += heard(channel)
    assert found == said
    channel.close()


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"no json\n", id="no JSON"),
        pytest.param(b"\n", id="empty"),
        pytest.param(b"[1]\n", id="a list"),
        pytest.param(b'{"a":1}\n', id="without is"),
        pytest.param(b'{"is":1}\n', id="is no text"),
        pytest.param(b"\xff\xfe\n", id="no UTF-8"),
        pytest.param(
            b"[" * 100_000 + b"\n",
            id="deeply nested",
        ),
    ],
)
def test_a_line_that_cannot_be_meant_ends_it_after_what_came_before(pair: Pair, line: bytes) -> None:
    channel, its = pair
    its.setblocking(False)
    data, found = memoryview(b'{"is":"first"}\n' + line + b'{"is":"never"}\n'), []
    while data and not channel.closed:
        data = data[its.send(data[:60_000]) :]
        found += heard(channel)
    found += [] if channel.closed else heard(channel)
    assert found == [{"is": "first"}]
    assert channel.closed


def test_the_other_ends_end_is_heard_after_its_last_words(pair: Pair) -> None:
    channel, its = pair
    its.sendall(b'{"is":"last"}\n{"is":"cut')
    its.close()
    assert heard(channel) == [{"is": "last"}]
    assert not channel.closed
    assert heard(channel) == []
    assert channel.closed


def test_a_line_without_end_is_an_end(pair: Pair) -> None:
    channel, its = pair
    for _ in range(40):
        its.sendall(b"x" * 32_768)
        assert heard(channel) == []
        if channel.closed:
            break
    assert channel.closed


def test_what_a_full_socket_does_not_take_is_kept_and_sent_later(pair: Pair) -> None:
    channel, its = pair
    count = 0
    while not channel.flush():
        channel.say("much", text="x" * 10_000)
        count += 1
    assert not channel.closed
    its.settimeout(5)
    data = b""
    while data.count(b"\n") < count:
        data += its.recv(65_536)
        channel.flush()
    assert [json.loads(line)["is"] for line in data.splitlines()] == ["much"] * count


def test_whoever_never_reads_is_as_good_as_dead(pair: Pair) -> None:
    channel, _ = pair
    for _ in range(40):
        channel.say("much", text="x" * 65_536)
        if channel.closed:
            break
    assert channel.closed
    assert not channel.flush()
    channel.say("nothing")


def test_a_lost_end_is_noticed_by_who_speaks(pair: Pair) -> None:
    channel, its = pair
    its.close()
    channel.say("a")
    assert channel.closed


def test_a_reset_is_an_end(pair: Pair) -> None:
    channel, its = pair
    channel.socket.close()
    assert heard(channel) == []
    assert channel.closed
    its.close()


def test_it_says_nothing_more_once_it_is_closed(pair: Pair) -> None:
    channel, its = pair
    channel.close()
    channel.say("a")
    assert its.recv(10) == b""
