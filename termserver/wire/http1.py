"""HTTP/1.0 and 1.1, server side (RFC 9112). No I/O.

Bytes go in through `receive`, which answers with events; commands append to the output, handed out once by `output`. Two small states
say where we are: what is being *read* and what is being *written*. They meet in `_meet`: only when a request was read and answered in
full does the next one begin, so one request at a time is in the application, and bytes that came early wait.

Whatever is wrong with the peer's bytes is answered here, with a constant body, and ends the connection; bytes after a refusal are never
parsed. Whatever is wrong with the application's messages is raised at the command, before a byte of it is written.
"""

from collections.abc import Iterable
from enum import Enum, auto
from typing import Final

from termserver.errors import InvalidMessage, UnexpectedMessage
from termserver.wire.chunked import ChunkedDecoder
from termserver.wire.events import Aborted, Awaiting, Body, Ending, Event, Fields, HttpLimits, Preface, Rejected, Trailers
from termserver.wire.fieldblock import CHUNKED, RefusedError
from termserver.wire.fields import NO_BODY as NO_BODY_STATUSES
from termserver.wire.fields import REASONS, STATUS_LINES
from termserver.wire.h2frames import PREFACE
from termserver.wire.head import PERSISTENT, Framing, HeadParser
from termserver.wire.partial import PartialHead
from termserver.wire.response import CLOSE as APP_CLOSES
from termserver.wire.response import DATE as APP_DATES
from termserver.wire.response import SERVER as APP_NAMES_SERVER
from termserver.wire.response import DefaultFields, render_fields, render_head, render_trailers


class Reading(Enum):
    """What the bytes that come next are."""

    FIRST = auto()  # a head, or the preface of HTTP/2
    HEAD = auto()
    LENGTH = auto()  # a body of known length
    CHUNKS = auto()
    DONE = auto()  # of a later request: they wait
    CLOSED = auto()  # nothing: they are discarded unseen


class Writing(Enum):
    """What the application may say next."""

    NOTHING = auto()  # there is no request
    START = auto()
    FIRST = auto()  # the head is held back until the first body bytes tell its framing
    BODY = auto()
    TRAILERS = auto()
    DONE = auto()


class Outbound(Enum):
    """How the response's body is framed."""

    NONE = auto()  # HEAD, 204, 304
    LENGTH = auto()
    CHUNKS = auto()
    UNTIL_CLOSE = auto()  # HTTP/1.0


# Bound once: cheap to compare, short to read.
R_FIRST, R_HEAD, R_LENGTH, R_CHUNKS, R_DONE, R_CLOSED = Reading
W_NOTHING, W_START, W_FIRST, W_BODY, W_TRAILERS, W_DONE = Writing
NO_BODY, BY_LENGTH, BY_CHUNKS, UNTIL_CLOSE = Outbound
OPEN, CLOSE, LINGER, RESET, SWITCHED = Ending
A_REQUEST, A_HEAD, A_BODY, A_APPLICATION, A_VERDICT, A_DISCARD = Awaiting
_NO_FIELDS: Final[Fields] = []
_NO_FRAMING: Final = Framing(0, keep_alive=False, expects_continue=False, takes_trailers=False)
_BODIES: Final = {status: reason + b"\n" for status, reason in REASONS.items()}
_EXTRA_FIELDS: Final = {503: b"retry-after: 1\r\n"}
_LAST_WITH_TRAILERS: Final = Framing(0, keep_alive=False, expects_continue=False, takes_trailers=True)
_CR: Final = 0x0D
_UPGRADE_REQUIRED: Final = 426
_CLIENT_HELLO: Final = b"\x16\x03"  # a TLS record with a handshake (RFC 8446 §5.1)


class Http1:
    """One connection, server side. Satisfies `HttpEngine`; the stream is always 0."""

    __slots__ = (
        "_chunks",
        "_continue",
        "_credit",
        "_defaults",
        "_discarded",
        "_draining",
        "_flags",
        "_framing",
        "_has_body",
        "_heads",
        "_held",
        "_input_over",
        "_is_head",
        "_left",
        "_length",
        "_limits",
        "_lines",
        "_out",
        "_outbound",
        "_partial",
        "_plain",
        "_reading",
        "_received",
        "_requests",
        "_response_left",
        "_version",
        "_wants_trailers",
        "_writing",
        "ending",
    )

    def __init__(self, heads: HeadParser, limits: HttpLimits, defaults: DefaultFields, *, speaks_http2: bool = False) -> None:
        """`heads`, `limits` and `defaults` are shared by the connections of a worker. `speaks_http2`: whether the owner does."""
        self._heads = heads
        self._limits = limits
        self._defaults = defaults
        self.ending = OPEN
        self._draining = False
        self._out: list[bytes] = []
        # reading
        self._reading = R_FIRST if speaks_http2 else R_HEAD
        self._held = b""  # bytes that cannot be read yet: part of a head, or what comes after this request
        self._partial: PartialHead | None = None  # a head that comes in pieces
        self._framing = _NO_FRAMING
        self._chunks: ChunkedDecoder | None = None
        self._left = 0  # body bytes still to come, of a body of known length
        self._received = 0  # body bytes that came, of a chunked body
        self._credit = 0  # body bytes handed out that the application has not taken
        self._discarded = 0
        self._continue = False
        self._requests = 0
        self._input_over = False
        # writing
        self._writing = W_NOTHING
        self._outbound = NO_BODY
        self._lines: list[bytes] = []  # of a head that is held back
        self._length: int | None = None  # its Content-Length
        self._flags = 0
        self._has_body = True
        self._plain = False  # nothing but the body's length can make the response end in an unusual way
        self._wants_trailers = False
        self._response_left = 0
        self._version = "1.1"
        self._is_head = False

    # ------------------------------------------------------------------ reading

    @property
    def wants_data(self) -> bool:
        """Whether reading may go on."""
        if self._reading is R_DONE:
            limit, held = self._limits.pipeline_buffer, len(self._held)
        else:
            limit, held = self._limits.body_buffer, self._credit
        return not limit or held < limit

    @property
    def has_input(self) -> bool:
        """Whether another `receive(b"")` may give a request."""
        return self._reading is R_HEAD and bool(self._held)

    @property
    def awaiting(self) -> Awaiting:
        """What comes next."""
        reading = self._reading
        if reading is R_HEAD:
            return A_REQUEST if self._partial is None else A_HEAD
        if reading is R_FIRST:
            return A_HEAD if self._held else A_REQUEST
        if reading is R_LENGTH or reading is R_CHUNKS:
            return A_DISCARD if self._writing is W_DONE else A_BODY
        return A_VERDICT if self._framing.upgrades and self._writing is W_START else A_APPLICATION

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes, answer what they mean: at most one request."""
        reading = self._reading
        try:
            if reading is R_HEAD:
                events = self._read_head(data)
                return events if not self._input_over else [*events, *self._void_unread()]
            if reading is R_LENGTH:
                return self._read_length(data)
            if reading is R_CHUNKS:
                return self._read_chunks(data)
            if reading is R_FIRST:
                return self._read_first(data)
        except RefusedError as refused:
            return self._refuse(refused)
        if reading is R_DONE:
            self._held += data
        return []

    def _read_first(self, data: bytes) -> list[Event]:
        """Find out whether the client knows that we speak HTTP/2 (RFC 9113 §3.3)."""
        data = self._held + data
        if not PREFACE.startswith(data[: len(PREFACE)]):
            self._reading, self._held = R_HEAD, b""
            return self._read_head(data)
        if len(data) < len(PREFACE):
            self._held = data
            return []
        self._stop(SWITCHED)
        return [Preface(data)]

    def _read_head(self, data: bytes) -> list[Event]:
        if self._held:
            data = self._held + data
            self._held = b""
        if self._partial is None:
            end = data.find(b"\r\n\r\n")
            if end > 0 and data[0] != _CR:
                end += 4
                return self._begin(data, b"") if end == len(data) else self._begin(data[:end], data[end:])
        if not data:
            return []
        if self._partial is None:
            if data[:2] == _CLIENT_HELLO:
                raise RefusedError(400, "a TLS handshake on a port that speaks plain HTTP")
            self._partial = PartialHead(self._heads)
        whole = self._partial.add(data)
        if whole is None:
            return []
        self._partial = None
        return self._begin(*whole)

    def _begin(self, head: bytes, rest: bytes) -> list[Event]:
        """Take a whole head: the events of the request, as far as its body is here too."""
        request, framing = self._heads.parse(head)
        self._framing = framing
        self._version = request.version
        self._is_head = request.method == "HEAD"
        self._writing = W_START
        self._requests += 1
        length = framing.length
        if not length:
            self._reading = R_DONE
            self._held = rest
            return [request]
        limit = self._limits.request_body
        if limit and length > limit:
            self._writing, self._reading = W_NOTHING, R_DONE
            raise RefusedError(413, f"a body of more than {limit} bytes")
        self._continue = framing.expects_continue
        self._credit = self._discarded = self._received = 0
        if length == CHUNKED:
            self._reading = R_CHUNKS
            self._chunks = ChunkedDecoder(self._limits, self._heads.block)
        else:
            self._reading = R_LENGTH
            self._left = length
        if not rest:
            return [request]
        events = self.receive(rest)
        # A body that is known to be broken keeps its request from the application.
        return [events[-1]] if events and type(events[-1]) is Rejected else [request, *events]

    def _read_length(self, data: bytes) -> list[Event]:
        left = self._left
        if len(data) > left:
            data, self._held = data[:left], data[left:]
        self._left = left = left - len(data)
        if not left:
            self._reading = R_DONE
        return self._body(data, ended=not left)

    def _read_chunks(self, data: bytes) -> list[Event]:
        decoder = self._chunks
        assert decoder is not None  # noqa: S101 - for the type checker: made when the state was entered
        body, rest = decoder.decode(data)
        self._received += len(body)
        limit = self._limits.request_body
        if limit and self._received > limit:
            raise RefusedError(413, f"a body of more than {limit} bytes")
        if not decoder.done:
            return self._body(body, ended=False) if body else []
        self._reading = R_DONE
        self._held = rest
        self._chunks = None
        if not decoder.trailers or self._writing is W_DONE:
            return self._body(body, ended=True)
        return [*self._body(body, ended=False), Trailers(0, decoder.trailers)]

    def _body(self, data: bytes, *, ended: bool) -> list[Event]:
        if self._writing is not W_DONE:
            self._credit += len(data)
            self._continue = False
            return [Body(0, data, ended)]
        self._discarded += len(data)
        limit = self._limits.discarded_body
        if limit and self._discarded > limit:
            self._stop(LINGER)
        elif ended:
            self._meet()
        return []

    def end_of_input(self) -> list[Event]:
        """The peer shut its sending side. Requests that are whole keep their responses; one that is not is void (RFC 9112 §8)."""
        self._input_over = True
        self._plain = False
        return self._void_unread()

    def _void_unread(self) -> list[Event]:
        """End a request that will never be whole, or the connection where none is left."""
        reading = self._reading
        if reading is R_DONE or reading is R_CLOSED or self.has_input:
            return []
        in_application = self._writing not in {W_NOTHING, W_DONE}
        begun = self._writing is W_BODY or self._writing is W_TRAILERS
        self._stop(RESET if begun else CLOSE)  # a reset would destroy the answers to earlier requests that are on their way
        return [Aborted(0, "the client left in the middle of the request")] if in_application else []

    def consumed(self, stream: int, size: int) -> None:  # noqa: ARG002 - the engine's interface names the stream
        """Give back credit for body bytes that the application took."""
        self._credit -= size

    # ------------------------------------------------------------------ refusing

    def _refuse(self, refused: RefusedError) -> list[Event]:
        """Answer the peer's fault: with its status where no response has begun, else by cutting the one that has."""
        in_application = self._writing not in {W_NOTHING, W_DONE}
        rejected = self.reject(0, refused.status, refused.reason)
        return [Aborted(0, refused.reason), rejected] if in_application else [rejected]

    def reject(self, stream: int, status: int, reason: str, headers: Fields = _NO_FIELDS) -> Rejected:  # noqa: ARG002 - the interface
        """Queue an error answer of the server's own, unless a response has begun: then cut that one. Ends the connection."""
        if self._writing in {W_BODY, W_TRAILERS}:
            self._stop(RESET)
        elif self.ending is OPEN:
            if self._writing is not W_DONE:
                body = b"" if self._is_head and self._reading is not R_HEAD else _BODIES[status]
                options = b"close, upgrade" if status == _UPGRADE_REQUIRED else b"close"  # RFC 9110 §7.8
                extra = render_fields(headers) if headers else _EXTRA_FIELDS.get(status, b"")
                self._out.append(
                    b"%bcontent-type: text/plain\r\ncontent-length: %d\r\n%b%bconnection: %b\r\n\r\n%b"
                    % (STATUS_LINES[status], len(_BODIES[status]), extra, self._defaults.both, options, body)
                )
            self._stop(LINGER)
        return Rejected(status, reason)

    def upgrade(self, stream: int, headers: Fields) -> bytes:  # noqa: ARG002 - the engine's interface names the stream
        """Answer 101 and leave the connection to another engine; give the bytes that came after the request (RFC 9110 §7.8)."""
        rest = self._held
        said = {name.lower() for name, _ in headers}
        date = b"" if b"date" in said else self._defaults.date
        server = b"" if b"server" in said else self._defaults.server
        self._out.append(b"%b%b%b%b\r\n" % (STATUS_LINES[101], render_fields(headers), date, server))
        self._stop(SWITCHED)
        return rest

    def reset(self, stream: int) -> None:  # noqa: ARG002 - the engine's interface names the stream
        """Cut the response so that the peer sees it is incomplete (spec reliability R16)."""
        self._stop(RESET)

    def _stop(self, ending: Ending) -> None:
        self._reading = R_CLOSED
        self._writing = W_NOTHING
        self._partial, self._held, self._chunks = None, b"", None
        self.ending = ending

    # ------------------------------------------------------------------ writing

    def drain(self) -> None:
        """Let the running response be the last one. An idle connection ends; a new one may still bring the request it was made for."""
        self._draining = True
        self._plain = False
        if self._writing is W_NOTHING and self._partial is None and self._requests and self.ending is OPEN:
            self._stop(LINGER)  # the next request may be on its way: a reset would destroy the last answer

    def wants_continue(self, stream: int) -> None:
        """Answer a waiting `Expect: 100-continue`, now that the application reads (RFC 9110 §10.1.1)."""
        if self._continue:
            self._continue = False
            self.interim(stream, 100, [])

    def interim(self, stream: int, status: int, headers: Fields) -> None:  # noqa: ARG002 - the engine's interface names the stream
        """Write a 1xx response; HTTP/1.0 has none, and none comes after the final head."""
        if self._version == "1.1" and self._writing in {W_START, W_FIRST}:
            self._out.append(STATUS_LINES[status] + render_trailers(headers) + b"\r\n")

    def start(self, stream: int, status: int, headers: Iterable[Iterable[bytes]], *, trailers: bool = False) -> None:  # noqa: ARG002
        """Check and render the head of the final response. It leaves with the first body bytes (ASGI www, Response Start)."""
        if self._writing is not W_START:
            raise UnexpectedMessage("http.response.start", "http.response.body")
        self._lines, self._length, self._flags = render_head(status, headers)
        self._has_body = not self._is_head and status not in NO_BODY_STATUSES
        if self._is_head and self._length is None and status in NO_BODY_STATUSES:
            self._length = 0  # none is made up for it
        self._plain = (
            self._has_body
            and not trailers
            and self._version == "1.1"
            and not (self._draining or self._input_over or self._limits.requests_per_connection)
        )
        self._wants_trailers = trailers
        self._writing = W_FIRST

    def write(self, stream: int, data: bytes, more: bool) -> None:  # noqa: FBT001, ARG002 - the hot path passes it by position
        """Write body bytes; `more=False` ends the body. More bytes than Content-Length said: those are written, then it raises."""
        if self._writing is W_FIRST:
            if not more and self._write_whole(data):
                return
            self._finish_head(None if more or self._wants_trailers else len(data))
        elif self._writing is not W_BODY:
            raise UnexpectedMessage("http.response.body", "nothing: the response is complete")
        outbound = self._outbound
        if outbound is BY_LENGTH:
            self._response_left -= len(data)
            if self._response_left < 0:
                self._overrun(data)
            self._out.append(data)
        elif outbound is BY_CHUNKS:
            if data:
                self._out += (b"%x\r\n" % len(data), data, b"\r\n")
        elif outbound is UNTIL_CLOSE:
            self._out.append(data)
        if not more:
            self._end_body()

    def _write_whole(self, data: bytes) -> bool:
        """Write the usual response: whole, of the length it says, on a connection that stays. False: the long way, please."""
        # Fast path: what `_finish_head`, `_end_body` and `_meet` would do. benchmarks/micro/whole_response.py guards this.
        if self._length != len(data) or self._flags or self._reading is not R_DONE or not self._plain or self._framing is not PERSISTENT:
            return False
        self._out += self._lines
        self._out += (self._defaults.last, data)
        self._reading = R_HEAD
        self._writing = W_NOTHING
        return True

    def begin_file(self, stream: int, size: int, *, more: bool) -> bool:  # noqa: ARG002
        """Announce `size` body bytes that the caller puts on the wire itself; False where the response has no body to put them in."""
        if self._writing is W_FIRST:
            self._finish_head(None if more or self._wants_trailers else size)
        if self._outbound is BY_LENGTH:
            if size > self._response_left:
                raise _too_long(size - self._response_left)
            self._response_left -= size
        elif self._outbound is BY_CHUNKS and size:
            self._out.append(b"%x\r\n" % size)
        return self._outbound is not NO_BODY

    def end_file(self, stream: int, size: int) -> None:  # noqa: ARG002
        """Say that the announced bytes are on the wire."""
        if self._outbound is BY_CHUNKS and size:
            self._out.append(b"\r\n")

    def trailers(self, stream: int, headers: Iterable[Iterable[bytes]], *, more: bool) -> None:  # noqa: ARG002
        """Write trailer fields, if the client takes them; `more=False` ends the response."""
        if self._writing is not W_TRAILERS:
            raise UnexpectedMessage("http.response.trailers", "http.response.body")
        lines = render_trailers(headers)
        if self._outbound is BY_CHUNKS:
            if self._framing.takes_trailers:
                self._out.append(lines)
            if not more:
                self._out.append(b"\r\n")
        if not more:
            self._complete()

    def _finish_head(self, length: int | None) -> None:
        """Add the framing fields (RFC 9112 §6); `length` is the whole body's where it is known."""
        out = self._out
        out += self._lines
        if not self._has_body:
            self._outbound = NO_BODY
            if length and self._is_head and self._length is None:
                out.append(b"content-length: %d\r\n" % length)  # what a GET would have had
        elif self._length is not None:
            self._outbound = BY_LENGTH
            self._response_left = self._length
        elif length is not None:
            self._outbound = BY_LENGTH
            self._response_left = length
            out.append(b"content-length: %d\r\n" % length)
        elif self._version == "1.1":
            self._outbound = BY_CHUNKS
            out.append(b"transfer-encoding: chunked\r\n")
        else:
            self._outbound = UNTIL_CLOSE
        flags = self._flags
        if not flags & (APP_DATES | APP_NAMES_SERVER):
            out.append(self._defaults.both)
        elif not flags & APP_DATES:
            out.append(self._defaults.date)
        elif not flags & APP_NAMES_SERVER:
            out.append(self._defaults.server)
        if not self._framing.keep_alive or flags & APP_CLOSES or self._outbound is UNTIL_CLOSE or self._is_last():
            self._framing = _LAST_WITH_TRAILERS if self._framing.takes_trailers else _NO_FRAMING
            out.append(b"connection: close\r\n\r\n")
        else:
            out.append(b"connection: keep-alive\r\n\r\n" if self._version == "1.0" else b"\r\n")
        self._writing = W_BODY

    def _is_last(self) -> bool:
        """Whether no other request will be served: their count is reached, the end is near, or too much body is left to discard."""
        limits = self._limits
        if limits.requests_per_connection and self._requests >= limits.requests_per_connection:
            return True
        if self._draining or (self._input_over and not self._held):
            return True
        if self._continue:  # RFC 9110 §10.1.1: the client may or may not send the body now; only a close is unambiguous
            return True
        return self._reading is R_LENGTH and bool(limits.discarded_body) and self._left > limits.discarded_body

    def _overrun(self, data: bytes) -> None:
        """Write what Content-Length leaves room for, end the response there, tell the application (spec attacks B10)."""
        excess = -self._response_left
        self._out.append(data[: len(data) - excess])
        self._response_left = 0
        self._complete()
        raise _too_long(excess)

    def _end_body(self) -> None:
        if self._outbound is BY_LENGTH and self._response_left:
            left = self._response_left
            self._stop(RESET)  # the client must see that bytes are missing (spec attacks B10)
            message = f"the response ended {left} bytes short of its content-length"
            raise InvalidMessage(message)
        if self._wants_trailers:
            if self._outbound is BY_CHUNKS:
                self._out.append(b"0\r\n")
            self._writing = W_TRAILERS
            return
        if self._outbound is BY_CHUNKS:
            self._out.append(b"0\r\n\r\n")
        self._complete()

    def _complete(self) -> None:
        """The response is out. A request whose body is still coming is read to its end, within bounds, before the next."""
        self._writing = W_DONE
        self._credit = 0  # what the application left unread holds nothing up
        if self._reading is R_DONE:
            self._meet()
        elif not self._framing.keep_alive:
            self._stop(LINGER)

    def _meet(self) -> None:
        """Request and response are complete: on to the next request, or to the end."""
        if self._framing.keep_alive and not self._draining and (self._held or not self._input_over):
            self._reading = R_HEAD
            self._writing = W_NOTHING
        else:
            self._stop(LINGER if self._held or self._draining else CLOSE)  # while draining, more may come than was read

    def output(self) -> bytes:
        """Hand out what is to be sent, once."""
        out = self._out
        if not out:
            return b""
        data = b"".join(out)
        out.clear()
        return data


def _too_long(excess: int) -> InvalidMessage:
    return InvalidMessage(f"the response body is {excess} bytes longer than its content-length")
