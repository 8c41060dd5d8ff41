"""HTTP/2 beside the h2 package: its client in random legal conversations, its server before the same broken input.

A conversation is a list of steps that is drawn whole; each names what is to be done, and numbers that choose among what can be done just
then, so that any list is a legal conversation and the shortest one that fails is found. Longer runs: `H2_EXAMPLES=5000 pytest …`.
"""

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import h2.events
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from termserver.config import Limits
from termserver.errors import UnexpectedMessage
from termserver.wire import h2frames as f
from termserver.wire.events import Aborted, Body, Ending, Event, Fault, Fields, Rejected, Request, Trailers
from termserver.wire.h2head import HeadRules
from termserver.wire.h2response import ResponseEncoder
from termserver.wire.http2 import Http2, Http2Terms
from wire import h2driving as raw

pytestmark = pytest.mark.timeout(600)  # a conversation that fails is made shorter for as long as hypothesis likes

EXAMPLES = int(os.environ.get("H2_EXAMPLES", "0"))
UNCOUNTED = {  # a conversation of small steps is no flood
    "field": 0,
    "http2_resets": 0,
    "http2_settings": 0,
    "http2_pings": 0,
    "http2_priorities": 0,
    "http2_empty_frames": 0,
    "http2_small_data": 0,
    "http2_window_updates": 0,
    "http2_control_frames": 0,
    "http2_control_bytes": 0,
}
MOST_STREAMS = 12
BODY = bytes(range(256)) * 1_024


def examples(usual: int) -> settings:
    return settings(max_examples=EXAMPLES or usual, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def pick(choices: list, number: int) -> object:  # type: ignore[type-arg] - of anything
    return choices[number % len(choices)]


# ---------------------------------------------------------------------- legal conversations


@dataclass
class Exchange:
    """A request and its response: what each side said, and what the other one heard."""

    said: Fields
    closed: bool = False  # the client says no more
    body: bytes = b""
    trailers: Fields | None = None
    was_reset: bool = False  # by the client
    takes_trailers: bool = False
    is_head: bool = False
    expects: bool = False

    request: Request | None = None
    heard: bytes = b""
    heard_trailers: Fields | None = None
    whole: bool = False
    aborted: bool = False
    untaken: int = 0  # bytes that the application has still to take

    status: int | None = None
    response: Fields = field(default_factory=list)
    interims: list[int] = field(default_factory=list)
    answer: bytes = b""
    with_trailers: bool = False
    answer_trailers: Fields | None = None
    left: int | None = None  # bytes of the Content-Length that was promised
    writing: bool = False
    done: bool = False
    cut: bool = False

    got_interims: list[int] = field(default_factory=list)
    got_head: Fields | None = None
    got: bytes = b""
    got_trailers: Fields | None = None
    got_end: bool = False
    got_reset: int | None = None


class Conversation:
    """h2's client, the engine, and the bytes between them."""

    def __init__(self) -> None:
        limits = Limits(**UNCOUNTED)
        self.engine = Http2(Http2Terms(limits, HeadRules(limits), ResponseEncoder(b"")))
        self.client = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.client.initiate_connection()
        self.up = self.down = b""
        self.now = 0.0
        self.exchanges: dict[int, Exchange] = {}
        self.unacknowledged: deque[tuple[int, int]] = deque()
        self.pings = self.pongs = 0
        self.resized = False  # since the last block
        self.unsettled = True  # a change of settings is on its way

    # -------------------------------------------------- the bytes

    def send_up(self, size: int | None = None) -> None:
        """Carry bytes from the client to the engine."""
        self.up += self.client.data_to_send()
        piece, self.up = (self.up, b"") if size is None else (self.up[:size], self.up[size:])
        for event in self.engine.receive(piece, self.now):
            self._hear(event)

    def send_down(self, size: int | None = None) -> None:
        """Carry bytes from the engine to the client."""
        while out := self.engine.output():
            self.down += out
        piece, self.down = (self.down, b"") if size is None else (self.down[:size], self.down[size:])
        for event in self.client.receive_data(piece):
            self._see(event)

    def _hear(self, event: Event) -> None:
        assert not isinstance(event, Fault | Rejected), event
        exchange = self.exchanges[event.stream]
        if isinstance(event, Request):
            assert exchange.request is None
            exchange.request = event
            exchange.whole = event.ended
        elif isinstance(event, Body):
            assert not exchange.whole
            exchange.heard += event.data
            exchange.untaken += len(event.data)
            exchange.whole = event.ended
        elif isinstance(event, Trailers):
            assert not exchange.whole
            exchange.heard_trailers, exchange.whole = event.headers, True
        else:
            assert isinstance(event, Aborted), event
            assert exchange.was_reset, event
            self._finish(exchange)
            exchange.aborted = True

    def _see(self, event: h2.events.Event) -> None:
        exchange = self.exchanges.get(getattr(event, "stream_id", None) or 0, Exchange([]))
        match event:
            case h2.events.InformationalResponseReceived(headers=headers):
                exchange.got_interims.append(int(dict(headers)[b":status"]))
            case h2.events.ResponseReceived(headers=headers):
                exchange.got_head = list(headers)
            case h2.events.DataReceived(data=data, flow_controlled_length=size):
                exchange.got += data
                self.unacknowledged.append((event.stream_id, size))
            case h2.events.TrailersReceived(headers=headers):
                exchange.got_trailers = list(headers)
            case h2.events.StreamEnded():
                exchange.got_end = True
            case h2.events.StreamReset(error_code=code):
                exchange.got_reset = code
                exchange.closed = True
            case h2.events.SettingsAcknowledged():
                self.unsettled = False
            case h2.events.PingAckReceived():
                self.pongs += 1
            case h2.events.ConnectionTerminated():
                raise AssertionError(event)

    # -------------------------------------------------- what the client does

    def open(self, number: int) -> None:
        """Ask for something."""
        if len(self.exchanges) >= MOST_STREAMS:
            return
        stream = self.client.get_next_available_stream_id()
        method = pick([b"GET", b"POST", b"PUT", b"HEAD", b"POST", b"CONNECT"], number)
        said = [
            (b":method", method),
            (b":scheme", b"https"),
            (b":authority", b"a"),
            (b":path", pick([b"/", b"/a?b", b"/%d" % number], number)),
        ]
        if method == b"CONNECT":
            if not self.client.remote_settings.enable_connect_protocol:
                return
            said.insert(1, (b":protocol", b"websocket"))
        ended = method in {b"GET", b"HEAD"}
        exchange = self.exchanges[stream] = Exchange(said, closed=ended, is_head=method == b"HEAD")
        if number & 16:
            said.append((b"te", b"trailers"))
            exchange.takes_trailers = True
        if number & 32:
            said.append((b"priority", b"u=%d" % (number % 8)))
        if number & 64 and not ended:
            said.append((b"expect", b"100-continue"))
            exchange.expects = True
        said.append((b"x-%d" % (number % 5), b"v" * (number % 50)))
        if number & 128:
            said.append((b"x-long", b"~" * 12_000 if number > 1_000 else b"l" * 200))  # CONTINUATION
        said.append((b"cookie", b"a=%d" % (number % 3)))
        # h2 sends a frame that is 5 bytes too long where a long block has a priority.
        weight = {"priority_weight": number % 256 + 1, "priority_depends_on": 0} if number & 512 and not number & 128 else {}
        self.client.send_headers(stream, said, end_stream=ended, **weight)
        self.resized = False

    def _uploads(self) -> list[int]:
        return [stream for stream, exchange in self.exchanges.items() if not exchange.closed]

    def upload(self, number: int, size: int) -> None:
        """Send a part of a body."""
        if not (streams := self._uploads()):
            return
        stream = streams[number % len(streams)]
        exchange = self.exchanges[stream]
        padding = (number // 7) % 256 if number & 64 else None
        room = min(self.client.local_flow_control_window(stream), self.client.max_outbound_frame_size) - (
            0 if padding is None else padding + 1
        )
        if room < 0:
            return
        data = BODY[:size][:room]
        ended = bool(number & 128) and dict(exchange.said)[b":method"] != b"CONNECT"
        self.client.send_data(stream, data, end_stream=ended, pad_length=padding)
        exchange.body += data
        exchange.closed = ended

    def finish(self, number: int) -> None:
        """End a request, with trailers or without."""
        if not (streams := self._uploads()):
            return
        stream = streams[number % len(streams)]
        exchange = self.exchanges[stream]
        if number & 1 and dict(exchange.said)[b":method"] != b"CONNECT":
            exchange.trailers = [(b"x-sum", b"%d" % number)]
            self.client.send_headers(stream, exchange.trailers, end_stream=True)
        else:
            self.client.end_stream(stream)
        exchange.closed = True

    def cancel(self, number: int) -> None:
        """Reset a stream."""
        streams = [  # h2 takes an interim response on a stream that it has reset for an error
            stream
            for stream, each in self.exchanges.items()
            if not (each.was_reset or each.got_reset is not None or (each.closed and each.got_end) or each.interims or each.expects)
        ]
        if streams:
            stream = streams[number % len(streams)]
            exchange = self.exchanges[stream]
            exchange.was_reset = exchange.closed = True
            self.client.reset_stream(stream, ErrorCodes.CANCEL)

    def ping(self, number: int) -> None:
        """Ask for a sign of life."""
        self.client.ping(number.to_bytes(8, "big"))
        self.pings += 1

    def set(self, number: int) -> None:
        """Change a setting; h2 takes one acknowledgement for all that it has sent."""
        if self.unsettled:
            return
        self.unsettled = True
        choices = [
            {SettingCodes.INITIAL_WINDOW_SIZE: 0},
            {SettingCodes.INITIAL_WINDOW_SIZE: 1},
            {SettingCodes.INITIAL_WINDOW_SIZE: 5_000},
            {SettingCodes.INITIAL_WINDOW_SIZE: 1_000_000},
            {SettingCodes.HEADER_TABLE_SIZE: 0},
            {SettingCodes.HEADER_TABLE_SIZE: 10_000},
            {SettingCodes.MAX_FRAME_SIZE: 100_000},
            {SettingCodes.ENABLE_PUSH: 0},
            {SettingCodes.MAX_HEADER_LIST_SIZE: 100_000, SettingCodes.INITIAL_WINDOW_SIZE: 70_000},
        ]
        self.client.update_settings(pick(choices, number))

    def resize(self, number: int) -> None:
        """Use another part of the table that the server allows; hpack loses count of more than one change between two blocks."""
        size = pick([0, 100, 4_096], number)
        if not self.resized and size != self.client.encoder.header_table_size:
            self.resized = True
            self.client.encoder.header_table_size = size

    def enlarge(self, number: int) -> None:
        """Open a window."""
        live = [stream for stream, each in self.exchanges.items() if not each.got_end and each.got_reset is None and not each.was_reset]
        self.client.increment_flow_control_window(number % 5_000 + 1, pick([None, *live], number))

    def acknowledge(self, number: int) -> None:
        """Give back what the client has read."""
        for _ in range(min(number % 8 + 1, len(self.unacknowledged))):
            stream, size = self.unacknowledged.popleft()
            if size:
                self.client.acknowledge_received_data(size, stream)

    def prioritize(self, number: int) -> None:
        """Say what is urgent, in the old way and the new one; and something that nobody knows."""
        stream = pick([1, 3, 5, 7, 31], number)
        self.client.prioritize(stream, weight=number % 256 + 1, depends_on=stream + 2, exclusive=bool(number & 1))
        self.up += self.client.data_to_send()
        self.up += raw.priority_update(stream, b"u=%d, i" % (number % 8)) + f.frame(0xEE, number & 0xFF, stream, b"unknown")

    # -------------------------------------------------- what the application does

    def _running(self) -> list[int]:
        return [stream for stream, each in self.exchanges.items() if each.request is not None and not each.done]

    def _finish(self, exchange: Exchange) -> None:
        if exchange.request is not None and not exchange.done:
            self.engine.calls -= 1
        exchange.done = True

    def take(self, number: int) -> None:
        """Read of a request's body."""
        streams = [stream for stream, each in self.exchanges.items() if each.request is not None]
        if streams:
            stream = streams[number % len(streams)]
            exchange = self.exchanges[stream]
            self.engine.wants_continue(stream)
            size = min(exchange.untaken, number % 9_000 + 1)
            exchange.untaken -= size
            self.engine.consumed(stream, size)

    def respond(self, number: int) -> None:
        """Begin a response."""
        streams = [stream for stream in self._running() if not self.exchanges[stream].writing]
        if not streams:
            return
        stream = streams[number % len(streams)]
        exchange = self.exchanges[stream]
        exchange.writing = True
        headers = [(b"content-type", b"text/plain"), (b"x-%d" % (number % 4), b"v" * (20_000 if number % 31 == 0 else number % 60))]
        if exchange.request is not None and exchange.request.upgrade:
            exchange.status, exchange.response = 200, headers
            self.engine.upgrade(stream, headers)
            return
        exchange.status = pick([200, 200, 404, 204, 304], number // 3)
        if number & 8 and exchange.status in {200, 404}:
            exchange.left = pick([0, 1, 5, 20_000, 70_000], number)
            headers.append((b"content-length", b"%d" % exchange.left))
        exchange.with_trailers = bool(number & 64) and exchange.status in {200, 404}
        exchange.response = headers
        self.engine.start(stream, exchange.status, headers, trailers=exchange.with_trailers)

    def write(self, number: int, size: int) -> None:
        """Write of a response's body; perhaps its end."""
        streams = [stream for stream in self._running() if self.exchanges[stream].writing and self.engine.unsent(stream) <= 65_536]
        if not streams:
            return
        stream = streams[number % len(streams)]
        exchange = self.exchanges[stream]
        data = BODY[:size]
        ended = bool(number & 64)
        if exchange.left is not None:
            data = data[: exchange.left]
            exchange.left -= len(data)
            ended = ended and not exchange.left
        exchange.answer += data
        self.engine.write(stream, data, not ended)
        if ended:
            self._end(stream, exchange, number)

    def _end(self, stream: int, exchange: Exchange, number: int) -> None:
        if exchange.with_trailers:
            exchange.answer_trailers = [(b"x-sum", b"%d" % (number % 9))]
            self.engine.trailers(stream, exchange.answer_trailers, more=False)
        self._finish(exchange)

    def hint(self, number: int) -> None:
        """Send an interim response."""
        streams = [stream for stream in self._running() if not self.exchanges[stream].writing and not self.exchanges[stream].was_reset]
        if streams:
            stream = streams[number % len(streams)]
            self.exchanges[stream].interims.append(103)
            self.engine.interim(stream, 103, [(b"link", b"</a>; rel=preload")])

    def fail(self, number: int) -> None:
        """Cut a response."""
        if streams := self._running():
            stream = streams[number % len(streams)]
            exchange = self.exchanges[stream]
            exchange.cut = True
            self.engine.reset(stream)
            self._finish(exchange)

    def block(self, number: int) -> None:
        """Let the transport be full, or empty."""
        self.engine.sender.blocked = not self.engine.sender.blocked
        self.now += number / 100

    # -------------------------------------------------- the end

    def settle(self) -> None:
        """Bring all to its end."""
        self.engine.sender.blocked = False
        self._deliver()
        self.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 65_535})
        self._deliver()
        for _ in range(200):
            for stream in self._uploads():
                self.finish(self._uploads().index(stream))
            for stream, exchange in self.exchanges.items():
                self.engine.consumed(stream, exchange.untaken)
                exchange.untaken = 0
            while [stream for stream in self._running() if not self.exchanges[stream].writing]:
                self.respond(3)
            for stream in self._running():
                self._write_rest(stream, self.exchanges[stream])
            self._deliver()
            while self.unacknowledged:
                self.acknowledge(7)
            self._deliver()
            if not self.engine.streams and not self._running() and not self.unacknowledged:
                return
            for stream in self.engine.streams:
                if not self.exchanges[stream].got_end and not self.exchanges[stream].was_reset:
                    self.client.increment_flow_control_window(20_000, stream)
        raise AssertionError(f"{self.engine.streams} are left")

    def _write_rest(self, stream: int, exchange: Exchange) -> None:
        data = BODY[: exchange.left or 0]
        exchange.answer += data
        exchange.left = None if exchange.left is None else 0
        self.engine.write(stream, data, False)
        self._end(stream, exchange, 1)

    def _deliver(self) -> None:
        """Carry everything both ways."""
        while True:
            self.send_up()
            before = self.engine.sender.data_frames
            self.send_down()
            if not (self.client._data_to_send or self.engine.sender.has_output or self.engine.sender.data_frames != before):
                return

    def check(self) -> None:
        """Compare what was said with what was heard."""
        assert self.engine.ending is Ending.OPEN
        assert (self.pings, self.engine.calls) == (self.pongs, 0)
        for exchange in self.exchanges.values():
            self._check_request(exchange)
            self._check_response(exchange)
        self._check_windows()

    @staticmethod
    def _check_request(exchange: Exchange) -> None:
        request = exchange.request
        assert exchange.was_reset or request is not None
        if request is None:
            return
        pseudo = dict(exchange.said)
        assert (request.method.encode(), request.target) == (pseudo[b":method"], pseudo[b":path"])
        assert request.headers == [(b"host", b"a"), *[each for each in exchange.said if each[0][:1] != b":"]]
        answered_early = exchange.cut or (exchange.done and not exchange.whole)
        if exchange.was_reset or answered_early:
            assert exchange.body.startswith(exchange.heard)
        else:
            assert (exchange.heard, exchange.heard_trailers) == (exchange.body, exchange.trailers)
            assert exchange.whole

    @staticmethod
    def _check_response(exchange: Exchange) -> None:
        if exchange.was_reset:
            assert exchange.answer.startswith(exchange.got) or exchange.is_head
            return
        if exchange.cut and not (exchange.got_end and (exchange.is_head or exchange.status in {204, 304})):  # else the head was all
            assert exchange.got_reset == ErrorCodes.INTERNAL_ERROR
            return
        assert exchange.got_reset in {None, ErrorCodes.NO_ERROR}
        assert exchange.got_end
        assert [each for each in exchange.got_interims if each != 100] == exchange.interims
        assert exchange.got_head is not None
        head = [each for each in exchange.got_head if each[0] != b"content-length"]
        assert head == [
            (b":status", b"%d" % (exchange.status or 0)),
            *[each for each in exchange.response if each[0] != b"content-length"],
        ]
        has_body = not exchange.is_head and exchange.status not in {204, 304}
        assert exchange.got == (exchange.answer if has_body else b"")
        sends_trailers = has_body and exchange.takes_trailers
        assert exchange.got_trailers == (exchange.answer_trailers if sends_trailers else None)

    def _check_windows(self) -> None:
        """Nothing has leaked: either side knows what the other may send, and it is what it was in the beginning."""
        table, mine = self.engine._table, self.client._inbound_flow_control_window_manager
        whole = Limits().http2_window
        assert self.client.outbound_flow_control_window == table.window
        assert table.window + table._taken == whole
        assert self.engine.sender.window == mine.current_window_size
        assert mine.current_window_size + mine._bytes_processed >= 65_535
        assert self.engine.sender.waiting == 0
        assert not self.engine.sender._sending


# What each step takes of the two numbers that are drawn with it.
ONE = [
    "open",
    "finish",
    "cancel",
    "ping",
    "set",
    "resize",
    "enlarge",
    "acknowledge",
    "prioritize",
    "take",
    "respond",
    "hint",
    "fail",
    "block",
]
STEPS: dict[str, Callable[[Conversation, int, int], object]] = {
    "nothing": lambda *_: None,  # what every step shrinks to
    **{name: (lambda talk, number, _, name=name: getattr(talk, name)(number)) for name in ONE},
    "upload": Conversation.upload,
    "write": Conversation.write,
    "send up": lambda talk, _, size: talk.send_up(size),
    "send down": lambda talk, _, size: talk.send_down(size),
    "send all up": lambda talk, *_: talk.send_up(),
    "send all down": lambda talk, *_: talk.send_down(),
}
OFTEN = ["open", "open", "upload", "upload", "take", "respond", "write", "write", "send all up", "send all down"]
SIZES = st.sampled_from([0, 1, 9, 300, 5_000, 16_384, 16_385, 70_000]) | st.integers(0, 40_000)
SCRIPTS = st.lists(st.tuples(st.sampled_from([*STEPS, *OFTEN]), st.integers(0, 1_023), SIZES), min_size=50, max_size=80)  # else 5 are usual


@examples(120)
@given(SCRIPTS)
def test_rfc9113_both_sides_agree(script: list[tuple[str, int, int]]) -> None:
    talk = Conversation()
    for step, number, size in script:
        STEPS[step](talk, number, size)
    talk.settle()
    talk.check()


# ---------------------------------------------------------------------- broken input

GREETING = [f.PREFACE, f.settings([]), f.SETTINGS_ACK]
CODES = set(ErrorCodes)
CONTROL = st.sampled_from(
    [
        raw.ping(),
        raw.ping(ack=True),
        raw.settings((SettingCodes.INITIAL_WINDOW_SIZE, 1_000)),
        raw.settings((SettingCodes.HEADER_TABLE_SIZE, 0)),
        raw.settings(),
        raw.window(0, 10_000),
        raw.window(1, 10_000),
        raw.priority(1, 3),
        raw.priority(99),
        raw.priority_update(1, b"u=1"),
        f.frame(0xEE, 0xFF, 1, b"unknown"),
    ]
)


@st.composite
def requests(draw: st.DrawFn, stream: int) -> list[bytes]:
    """Draw the frames of a legal request."""
    if draw(st.booleans()):
        return [raw.get(stream, (b"x", b"a" * draw(st.integers(0, 9))))]
    bodies = draw(st.lists(st.binary(max_size=20), max_size=3))
    size = [(b"content-length", b"%d" % sum(map(len, bodies)))] if draw(st.booleans()) else []
    padding = draw(st.none() | st.integers(0, 20))
    block = raw.block(raw.fields(b"POST", b"/", *size))
    head = [raw.headers(stream, block, ended=False)]
    if draw(st.booleans()):
        head = [raw.headers(stream, block[:7], ended=False, whole=False), raw.continuation(stream, block[7:])]
    match draw(st.sampled_from(["end", "trailers", "reset", "open"])):
        case "end":
            tail = [raw.data(stream, b"", ended=True)]
        case "trailers":
            tail = [raw.headers(stream, [(b"x-sum", b"1")])]
        case "reset":
            tail = [raw.reset(stream)]
        case _:
            tail = []
    return [b"".join(head), *[raw.data(stream, body, padding=padding) for body in bodies], *tail]


@st.composite
def frames_of_a_client(draw: st.DrawFn) -> list[bytes]:
    """Draw what a legal client sends, frame by frame; a header block is one piece."""
    unopened = [draw(requests(stream)) for stream in (1, 3, 5)[: draw(st.integers(1, 3))]]
    opened: list[list[bytes]] = []
    sent = list(GREETING)
    while unopened or opened:
        number = draw(st.integers(-1, len(opened)))
        if number < 0:
            sent.append(draw(CONTROL) if opened else raw.ping())
        elif number < len(opened):
            sent.append(opened[number].pop(0))
        elif unopened:
            opened.append(unopened.pop(0))
            sent.append(opened[-1].pop(0))
        opened = [each for each in opened if each]
    return sent


HEAD = f.HEAD_SIZE


def retype(frame: bytes, value: int) -> bytes:
    return frame[:3] + bytes((value % 12,)) + frame[4:]


def reflag(frame: bytes, value: int) -> bytes:
    return frame[:4] + bytes((frame[4] ^ (1 << value % 8),)) + frame[5:]


def move(frame: bytes, value: int) -> bytes:
    return frame[:5] + (value % 9).to_bytes(4, "big") + frame[9:]


def lengthen(frame: bytes, value: int) -> bytes:
    size = int.from_bytes(frame[:3], "big") + value % 9 - 4
    return (min(max(size, 0), 0xFFFFFF) if value % 5 else 0xFFFFFF).to_bytes(3, "big") + frame[3:]


def cut(frame: bytes, value: int) -> bytes:
    payload = frame[HEAD:][: value % max(len(frame) - HEAD + 1, 1)]
    return len(payload).to_bytes(3, "big") + frame[3:HEAD] + payload


def flip(frame: bytes, value: int) -> bytes:
    place = value % len(frame)
    return frame[:place] + bytes((frame[place] ^ (1 << value % 7),)) + frame[place + 1 :]


def insert(frame: bytes, value: int) -> bytes:
    place = value % len(frame)
    return frame[:place] + bytes((value % 256,)) + frame[place:]


def delete(frame: bytes, value: int) -> bytes:
    place = value % len(frame)
    return frame[:place] + frame[place + 1 :]


def drop(frame: bytes, value: int) -> bytes:
    return b""


def double(frame: bytes, value: int) -> bytes:
    return frame + frame


def exchange(frames: list[bytes], place: int) -> list[bytes]:
    other = (place + 1) % len(frames)
    changed = list(frames)
    changed[place], changed[other] = frames[other], frames[place]
    return changed


CORRUPTIONS = [retype, reflag, move, lengthen, cut, flip, insert, delete, drop, double]


@st.composite
def broken_input(draw: st.DrawFn) -> list[bytes]:
    """Draw frames of a client, some of them broken, in pieces as they might come."""
    frames = draw(frames_of_a_client())
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(frames) - 1))
        if not frames[place]:
            continue
        if draw(st.integers(0, 10)) == 0:
            frames = exchange(frames, place)
            continue
        corrupt = draw(st.sampled_from(CORRUPTIONS))
        if place or corrupt in {flip, insert, delete, drop, double}:  # the preface is no frame
            frames = [*frames[:place], corrupt(frames[place], draw(st.integers(0, 1 << 16))), *frames[place + 1 :]]
    joined = b"".join(frames)
    size = draw(st.sampled_from([len(joined) + 1, 1, 7, 30]))
    return [joined[start : start + size] for start in range(0, len(joined), size)]


def check_memory(engine: Http2) -> None:
    """Nothing is held but what a limit counts."""
    reader, table = engine._reader, engine._table
    assert len(reader._held) <= HEAD + f.FRAME_SIZE
    assert reader._block is None or len(reader._block.data) <= Limits().http2_header_block
    assert len(engine.streams) <= Limits().http2_streams
    assert sum(stream.inbound.held for stream in engine.streams.values() if stream.inbound is not None) <= Limits().http2_window
    assert engine.sender.waiting <= sum(len(BODY) for _ in engine.streams)
    assert len(table._reset) <= 1_000


def check_order(events: list[Event]) -> None:
    """No stream is heard of before its request, or after its end."""
    begun, ended, over = set(), set(), set()
    for event in events:
        if isinstance(event, Rejected) or event.stream == 0:
            continue
        number = event.stream
        if isinstance(event, Request):
            assert number not in begun
            begun.add(number)
        elif isinstance(event, Body | Trailers):
            assert number in begun
            assert number not in ended | over
        elif isinstance(event, Aborted):
            assert number not in over
        else:
            assert isinstance(event, Fault)
        if isinstance(event, Trailers) or (isinstance(event, Request | Body) and event.ended):
            ended.add(number)
        if isinstance(event, Aborted | Fault):
            over.add(number)


def answer(client: raw.Client, events: list[Event]) -> None:
    """Answer as an application does, some requests at once, some when they are whole."""
    for event in events:
        if isinstance(event, Body):
            client.engine.consumed(event.stream, len(event.data))
        if (isinstance(event, Request) and event.stream % 4 == 1) or (
            isinstance(event, Body | Trailers) and client.has_ended(event.stream)
        ):
            client.engine.start(event.stream, 200, [])
            client.engine.write(event.stream, b"ok" * (event.stream % 9_000), False)


@examples(400)
@given(broken_input(), st.booleans())
def test_rfc9113_5_4_whatever_is_broken_is_ignored_or_answered(pieces: list[bytes], answers: bool) -> None:
    client = raw.Client(greet=False)
    for piece in pieces:
        events = client.send(piece)
        if answers:
            with suppress(UnexpectedMessage):  # it was answered already
                answer(client, events)
        check_memory(client.engine)
    client.take()
    check_order(client.events)
    assert {code for _, code in [*client.goaways, *client.resets]} <= CODES
    assert all(event.code in CODES for event in client.events if isinstance(event, Fault))
    if faults := [code for _, code in client.goaways if code]:  # others are the end that a client's GOAWAY asks for
        assert client.sent[-1].kind == f.GOAWAY
        assert len(faults) == 1
    if client.engine.ending is Ending.OPEN:
        reader = client.engine._reader
        assert [event.stream for event in client.events if isinstance(event, Fault)] == [stream for stream, code in client.resets if code]
        if client.engine.greeted and not reader._held and reader._block is None and client.engine._table.last < 1 << 20:
            assert client.works
    elif [event for event in client.events if isinstance(event, Fault)]:
        assert not client.engine.streams
        assert client.send(raw.get(99)) == []


def h2_refuses(joined: bytes) -> str | None:
    """Give the fault that h2's server finds."""
    server = H2Connection(H2Configuration(client_side=False, header_encoding=None))
    server.local_settings[SettingCodes.ENABLE_CONNECT_PROTOCOL] = 1
    server.initiate_connection()
    try:
        events = server.receive_data(joined)
    except ProtocolError as error:
        return f"{type(error).__name__}: {error}"
    resets = [event.stream_id for event in events if isinstance(event, h2.events.StreamReset) and not event.remote_reset]
    return f"streams that were reset: {resets}" if resets else None


def we_ignore(joined: bytes) -> bool:
    """Whether the engine finds no fault in what it has seen, and has seen all of it."""
    client = raw.Client(greet=False, **UNCOUNTED)
    client.send(joined)
    client.take()
    if client.engine._reader._held or client.goaways or client.resets:
        return False
    return not [each for each in client.events if isinstance(each, Fault | Rejected)]


ALTSVC = 0x0A
# What h2 refuses and we ignore, by the beginning of what it says.
LAXER = {
    # h2 reads ALTSVC frames. From a client they mean nothing (RFC 7838 §4), and what has no meaning is ignored (RFC 9113 §5.5).
    "FrameDataMissingError: Frame data missing or invalid",
}


@examples(300)
@given(broken_input())
def test_what_h2_refuses_is_not_ignored(pieces: list[bytes]) -> None:
    joined = b"".join(pieces)
    if we_ignore(joined):
        fault = h2_refuses(joined)
        assert fault is None or fault in LAXER


@pytest.mark.parametrize("payload", [b"", b"\x00", b"\x00\x09a", b"\xff\xff"])
@pytest.mark.parametrize("stream", [0, 1, 99])
def test_rfc7838_4_altsvc_of_a_client_is_ignored(stream: int, payload: bytes) -> None:
    frame = f.frame(ALTSVC, 0, stream, payload)
    client = raw.Client()
    client.send(raw.get(1), frame)
    assert client.works
    assert we_ignore(b"".join([*GREETING, raw.get(1), frame]))


def test_rfc7838_4_is_why_h2_differs() -> None:
    assert h2_refuses(b"".join([*GREETING, f.frame(ALTSVC, 0, 0, b"")])) in LAXER


STRICTER = [
    pytest.param(raw.headers(1, b"\x20\x3f\xe1\x1f\x20" + raw.block(raw.fields())), ErrorCodes.COMPRESSION_ERROR, id="RFC 7541 §4.2"),
    pytest.param(raw.get(1) + raw.priority_update(2, b"u=1"), ErrorCodes.PROTOCOL_ERROR, id="RFC 9218 §7.1"),
    pytest.param(raw.settings((f.NO_RFC7540_PRIORITIES, 2)), ErrorCodes.PROTOCOL_ERROR, id="RFC 9218 §2.1"),
]


@pytest.mark.parametrize(("frames", "code"), STRICTER)
def test_what_h2_lets_pass(frames: bytes, code: ErrorCodes) -> None:
    assert h2_refuses(b"".join([*GREETING, frames])) is None
    client = raw.Client()
    client.send(frames)
    assert [each for _, each in client.goaways] == [code]


BOTH = [
    pytest.param(raw.data(1, b"a"), id="DATA on an idle stream"),
    pytest.param(raw.window(1, 1), id="WINDOW_UPDATE on an idle stream"),
    pytest.param(raw.reset(1), id="RST_STREAM on an idle stream"),
    pytest.param(raw.get(2), id="a server's stream"),
    pytest.param(raw.get(3) + raw.get(1), id="a stream that was passed over"),
    pytest.param(raw.get(1) + raw.headers(1, [(b"x", b"1")]), id="HEADERS after the end"),
    pytest.param(raw.get(1) + raw.data(1, b"a"), id="DATA after the end"),
    pytest.param(raw.window(0, raw.LARGEST), id="too large a window"),
    pytest.param(raw.settings((SettingCodes.INITIAL_WINDOW_SIZE, raw.LARGEST + 1)), id="too large a setting"),
    pytest.param(raw.settings((SettingCodes.MAX_FRAME_SIZE, 1)), id="too small a frame size"),
    pytest.param(f.frame(f.SETTINGS, f.ACK, 0, bytes(6)), id="an acknowledgement with a payload"),
    pytest.param(f.frame(f.PING, 0, 0, bytes(7)), id="a short PING"),
    pytest.param(f.frame(f.PING, 0, 1, bytes(8)), id="PING on a stream"),
    pytest.param(raw.priority(1, 1), id="a stream that depends on itself"),
    pytest.param(raw.continuation(1, b"\x82"), id="CONTINUATION of nothing"),
    pytest.param(raw.headers(1, raw.fields(), whole=False) + raw.ping(), id="a block that is interrupted"),
    pytest.param(raw.headers(1, b"\xff"), id="a block that is cut off"),
    pytest.param(raw.headers(1, b"\xbe"), id="an index without an entry"),
    pytest.param(raw.post(1, (b"content-length", b"1")) + raw.data(1, b"ab", ended=True), id="a body that is too long"),
    pytest.param(raw.headers(1, [*raw.fields(), (b"X", b"1")]), id="a malformed head"),
]


@pytest.mark.parametrize("frames", BOTH)
def test_what_both_refuse(frames: bytes) -> None:
    assert h2_refuses(b"".join([*GREETING, frames])) is not None
    client = raw.Client()
    client.send(frames)
    assert client.goaways or client.resets
