"""The vocabulary between a protocol engine and whoever carries its bytes.

An engine takes bytes and answers with events; commands (`HttpEngine`) append to its output. The peer's faults come out as
`Rejected` and `Aborted`, never as exceptions: only an application's own fault is raised, at the command that holds it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

Fields = list[tuple[bytes, bytes]]


class Ending(Enum):
    """What is to become of the connection once the engine's output is out."""

    OPEN = auto()  # go on reading
    CLOSE = auto()  # everything was read: a plain close reaches the peer after the answer
    LINGER = auto()  # the peer may still be sending: shut our side, discard its bytes for a while, then close
    RESET = auto()  # the answer is cut: the peer has to see that (RST)
    SWITCHED = auto()  # another engine has taken over


class Awaiting(Enum):
    """What a connection is waiting for: it decides which time-out applies."""

    REQUEST = auto()  # nothing has come since the last exchange
    HEAD = auto()  # some bytes of a head
    BODY = auto()  # the rest of a body that the application is to have
    APPLICATION = auto()  # the response
    VERDICT = auto()  # whether the application accepts a WebSocket
    DISCARD = auto()  # the rest of a body that nobody wants any more


@dataclass(slots=True)
class Request:
    """The head of a request. `ended` is True when no body follows, so a GET is one event."""

    stream: int
    method: str
    target: bytes  # as sent, for logs
    path: bytes  # without the query, percent-encoded; b"*" in asterisk-form
    query: bytes
    headers: Fields  # names in lower case, in order
    version: str  # "1.0", "1.1", "2"
    ended: bool
    upgrade: bytes | None  # b"websocket", when it is asked for rightly


@dataclass(slots=True)
class Body:
    """Some bytes of a request's body; the last event of a body has `ended` set."""

    stream: int
    data: bytes
    ended: bool


@dataclass(slots=True)
class Trailers:
    """The trailer section of a request, which ends it."""

    stream: int
    headers: Fields


@dataclass(slots=True)
class Aborted:
    """The request will never be complete: the client left, or broke the framing of its body."""

    stream: int
    reason: str


@dataclass(slots=True)
class Rejected:
    """The peer's fault. The engine has already queued the answer: log it, count it."""

    status: int
    reason: str


@dataclass(slots=True)
class Fault:
    """The peer broke HTTP/2, or a limit of it. The engine has queued the error code (RFC 9113 §7) for the stream; 0 is the connection."""

    stream: int
    code: int
    reason: str


@dataclass(slots=True)
class Preface:
    """The client speaks HTTP/2 (RFC 9113 §3.3). `data` is all that came; the HTTP/1 engine is done."""

    data: bytes


Event = Request | Body | Trailers | Aborted | Rejected | Fault | Preface


@dataclass(slots=True)
class Closed:
    """A WebSocket is over. `code` is what the peer's Close frame said, 1005 if it had none, 1006 for no frame (RFC 6455 §7.1.5)."""

    code: int
    reason: str


SocketEvent = str | bytes | Closed  # a text message, a binary message, the end


def weight(message: str | bytes) -> int:
    """Give the memory that a message holds while it waits, in bytes: text that is not ASCII takes up to four a character."""
    return len(message) if type(message) is bytes or message.isascii() else 4 * len(message)


_REGISTERED_CODES = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})
_OWN_CODES = range(3_000, 5_000)


def is_close_code(code: int) -> bool:
    """Whether a Close frame may hold the code (RFC 6455 §7.4, and the codes registered since)."""
    return code in _REGISTERED_CODES or code in _OWN_CODES


class HttpLimits(Protocol):
    """The sizes and counts an engine holds its peer to; `config.Limits` satisfies it. 0 = off."""

    @property
    def request_line(self) -> int: ...
    @property
    def field(self) -> int: ...
    @property
    def header_bytes(self) -> int: ...
    @property
    def header_count(self) -> int: ...
    @property
    def trailer_bytes(self) -> int: ...
    @property
    def trailer_count(self) -> int: ...
    @property
    def chunk_line(self) -> int: ...
    @property
    def chunk_extensions(self) -> int: ...
    @property
    def request_body(self) -> int: ...
    @property
    def body_buffer(self) -> int: ...
    @property
    def pipeline_buffer(self) -> int: ...
    @property
    def requests_per_connection(self) -> int: ...
    @property
    def discarded_body(self) -> int: ...


class Http2Limits(HttpLimits, Protocol):
    """What an HTTP/2 peer is held to beside that; `config.Limits` satisfies it. 0 = off."""

    @property
    def response_buffer(self) -> int: ...
    @property
    def http2_streams(self) -> int: ...
    @property
    def http2_window(self) -> int: ...
    @property
    def http2_response_buffer(self) -> int: ...
    @property
    def http2_resets(self) -> int: ...
    @property
    def http2_faults(self) -> int: ...
    @property
    def http2_overhead(self) -> int: ...
    @property
    def http2_settings(self) -> int: ...
    @property
    def http2_settings_entries(self) -> int: ...
    @property
    def http2_pings(self) -> int: ...
    @property
    def http2_priorities(self) -> int: ...
    @property
    def http2_continuations(self) -> int: ...
    @property
    def http2_header_block(self) -> int: ...
    @property
    def http2_empty_frames(self) -> int: ...
    @property
    def http2_small_data(self) -> int: ...
    @property
    def http2_window_updates(self) -> int: ...
    @property
    def http2_control_frames(self) -> int: ...
    @property
    def http2_control_bytes(self) -> int: ...


class SocketLimits(Protocol):
    """The sizes and counts a peer is held to; `config.Limits` satisfies it. 0 = off."""

    @property
    def body_buffer(self) -> int: ...
    @property
    def websocket_message(self) -> int: ...
    @property
    def websocket_frame(self) -> int: ...
    @property
    def websocket_fragments(self) -> int: ...
    @property
    def websocket_queue(self) -> int: ...
    @property
    def websocket_pings(self) -> int: ...
    @property
    def websocket_deflate_ratio(self) -> int: ...


class Responder(Protocol):
    """What an exchange says through its connection's engine, whatever the HTTP version. `stream` is 0 throughout HTTP/1."""

    def start(self, stream: int, status: int, headers: Iterable[Iterable[bytes]], *, trailers: bool = False) -> None:
        """Begin the final response. Raises `InvalidMessage` or `UnexpectedMessage`, and then has written nothing."""

    def write(self, stream: int, data: bytes, more: bool) -> None:  # noqa: FBT001 - the hot path passes it by position
        """Write body bytes; `more=False` ends the body."""

    def interim(self, stream: int, status: int, headers: Fields) -> None:
        """Write a 1xx response."""

    def trailers(self, stream: int, headers: Iterable[Iterable[bytes]], *, more: bool) -> None:
        """Write trailer fields; `more=False` ends the response."""

    def wants_continue(self, stream: int) -> None:
        """Answer a waiting `Expect: 100-continue`: the application reads."""

    def consumed(self, stream: int, size: int) -> None:
        """Give back credit for body bytes that the application took."""

    def reject(self, stream: int, status: int, reason: str, headers: Fields = ...) -> Rejected:
        """Answer with an error of the server's own: where a response has begun, it is cut. In HTTP/1 that ends the connection."""

    def reset(self, stream: int) -> None:
        """Cut the response so that the peer sees it is incomplete."""


class HttpEngine(Responder, Protocol):
    """One HTTP/1 connection's protocol, server side."""

    @property
    def ending(self) -> Ending: ...
    @property
    def awaiting(self) -> Awaiting:
        """What comes next."""

    @property
    def wants_data(self) -> bool:
        """Whether reading may go on: nothing is held that waits for the application."""

    @property
    def has_input(self) -> bool:
        """Whether bytes are held that another `receive(b"")` may turn into events."""

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes from the peer, answer what they mean."""

    def end_of_input(self) -> list[Event]:
        """Say that the peer will send no more."""

    def begin_file(self, stream: int, size: int, *, more: bool) -> bool:
        """Announce `size` body bytes that the caller puts on the wire itself; False where the response has no body to put them in."""

    def end_file(self, stream: int, size: int) -> None:
        """Say that the announced bytes are on the wire."""

    def upgrade(self, stream: int, headers: Fields) -> bytes:
        """Answer that a WebSocket begins, with these fields; give the bytes that came after the request. They are frames."""

    def drain(self) -> None:
        """Let the running response be the last one; what is idle ends."""

    def output(self) -> bytes:
        """Hand out what is to be sent, once."""


class Phase(Enum):
    """Where a WebSocket is in its closing handshake (RFC 6455 §7.1)."""

    OPEN = auto()
    CLOSING = auto()  # our Close frame is out, the peer's is awaited
    DONE = auto()  # both are out: the server closes the connection
    FAILED = auto()  # the peer broke the protocol: our Close frame is out, nothing is read any more


class SocketEngine(Protocol):
    """One WebSocket's frames, server side, over any byte stream."""

    @property
    def phase(self) -> Phase:
        """How far the closing handshake is."""

    @property
    def failure(self) -> tuple[int, str] | None:
        """The close code that answered the peer's fault, and what that was."""

    @property
    def has_input(self) -> bool:
        """Whether something is held that another `receive(b"")` turns into events: messages that the queue had no room for, or the end."""

    @property
    def holds_pongs(self) -> bool:
        """Whether only the newest ping is answered, later: set while the peer does not read."""

    @holds_pongs.setter
    def holds_pongs(self, value: bool) -> None: ...

    credit: int
    """Bytes of messages (`weight`) that may still be handed out; whoever takes one gives back what it weighs."""

    def receive(self, data: bytes, now: float) -> list[SocketEvent]:
        """Take bytes from the peer, answer what they mean: as many messages as a queue holds at the most. `now`: monotonic seconds."""

    def send(self, message: str | bytes) -> None:
        """Write a message. Raises `InvalidMessage` for text that is no Unicode."""

    def ping(self) -> None:
        """Ask for a sign of life."""

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake."""

    def output(self) -> list[bytes]:
        """Hand out what is to be sent, once, in pieces."""
