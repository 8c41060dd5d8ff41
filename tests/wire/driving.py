"""Drives an engine as a connection does, and feeds one input in every way it may come. No I/O."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from termserver.config import Limits
from termserver.wire.events import Aborted, Body, Ending, Event, Fields, Rejected, Request, Trailers
from termserver.wire.fields import Underscores
from termserver.wire.head import HeadParser
from termserver.wire.http1 import DefaultFields, Http1

NEXT = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"
Answer = Callable[[Http1, Request], None]
# Coverage costs several times what it watches; tests of cost take that into account.
TRACED = sys.gettrace() is not None or (sys.version_info >= (3, 12) and sys.monitoring.get_tool(sys.monitoring.COVERAGE_ID) is not None)
SLOWER = 15 if TRACED else 1


def engine(
    *, underscores: Underscores = Underscores.DROP, allowed_hosts: Iterable[bytes] = (), server: bytes = b"", **limits: int
) -> Http1:
    """Make an engine with a parser of its own."""
    sizes = Limits(**limits)
    return Http1(HeadParser(sizes, underscores=underscores, allowed_hosts=frozenset(allowed_hosts)), sizes, DefaultFields(server))


@dataclass
class Got:
    """A request as the application sees it in the end."""

    request: Request
    parts: list[bytes] = field(default_factory=list)
    whole: bool = False
    trailers: Fields | None = None
    aborted: str | None = None

    @property
    def body(self) -> bytes:
        """All that came of the body."""
        return b"".join(self.parts)


@dataclass
class Outcome:
    """What became of an input: what the application had of it, what was answered, how the connection goes on."""

    got: list[Got] = field(default_factory=list)
    status: int | None = None  # of the refusal
    reason: str = ""
    output: bytes = b""
    ending: Ending = Ending.OPEN

    @property
    def heads(self) -> list[tuple[object, ...]]:
        """The requests, `ended` left out: it says how the bytes came."""
        return [
            (r.method, r.target, r.path, r.query, r.headers, r.version, r.upgrade, got.body, got.whole, got.trailers)
            for got in self.got
            for r in [got.request]
        ]


class Driver:
    """Hands pieces to an engine, gathers what it says, answers requests that are whole."""

    def __init__(self, http: Http1, answer: Answer | None = None) -> None:
        """`answer` is called with each request once it is whole."""
        self.http = http
        self.answer = answer
        self.outcome = Outcome()

    def feed(self, *pieces: bytes) -> Outcome:
        """Hand over pieces, one after the other."""
        for piece in pieces:
            self._take(self.http.receive(piece))
            while self.http.has_input:
                self._take(self.http.receive(b""))
        self.outcome.output += self.http.output()
        self.outcome.ending = self.http.ending
        return self.outcome

    def _take(self, events: list[Event]) -> None:
        outcome = self.outcome
        for event in events:
            if type(event) is Request:
                outcome.got.append(Got(event, whole=event.ended))
            elif type(event) is Body:
                outcome.got[-1].parts.append(event.data)
                outcome.got[-1].whole = event.ended
                self.http.consumed(0, len(event.data))
            elif type(event) is Trailers:
                outcome.got[-1].trailers = event.headers
                outcome.got[-1].whole = True
            elif type(event) is Aborted:
                outcome.got[-1].aborted = event.reason
            else:
                self._take_rejected(event)
                return
        if events and outcome.got and outcome.got[-1].whole and self.answer is not None:
            self.answer(self.http, outcome.got[-1].request)

    def _take_rejected(self, event: Event) -> None:
        outcome = self.outcome
        if type(event) is not Rejected or outcome.status is not None:
            message = f"after {outcome}: {event}"
            raise AssertionError(message)
        outcome.status, outcome.reason = event.status, event.reason
        if outcome.got and not outcome.got[-1].whole:
            outcome.got.pop()  # the application was told that it is void; had its bytes come at once, it had not been called


def say(http: Http1, request: Request) -> None:
    """Answer with the request's target."""
    http.start(0, 200, [(b"content-type", b"text/plain")])
    http.write(0, request.target, False)


def byte_by_byte(data: bytes) -> list[bytes]:
    """Cut into single bytes."""
    return [data[i : i + 1] for i in range(len(data))]


def feed_every_way(make: Callable[[], Http1], data: bytes, answer: Answer | None = None) -> Outcome:
    """Feed `data` whole, byte by byte, and with another request behind it: the outcome, which has to be the same each time."""
    whole = Driver(make(), answer).feed(data)
    for pieces in (byte_by_byte(data), [data[: len(data) // 2], data[len(data) // 2 :]]):
        outcome = Driver(make(), answer).feed(*pieces)
        if (outcome.status, outcome.heads, outcome.output, outcome.ending) != (whole.status, whole.heads, whole.output, whole.ending):
            message = f"{len(pieces)} pieces: {outcome}\nwhole: {whole}"
            raise AssertionError(message)
    if whole.got or whole.status:  # else the bytes behind would be taken for its end
        outcome = Driver(make(), answer).feed(data + NEXT)
        same = outcome.status == whole.status and outcome.heads[: len(whole.got)] == whole.heads and outcome.output.startswith(whole.output)
        if not same or (whole.status and outcome.output != whole.output):  # behind a refusal nothing is parsed
            message = f"with trailing bytes: {outcome}\nwhole: {whole}"
            raise AssertionError(message)
    return whole


def request(lines: bytes = b"", *, line: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: a\r\n", body: bytes = b"") -> bytes:
    """Build a request from a request line, field lines (each with its line end) and a body."""
    return b"%b\r\n%b%b\r\n%b" % (line, host, lines, body)


def chunked(body: bytes, lines: bytes = b"") -> bytes:
    """Build a chunked POST."""
    return request(b"Transfer-Encoding: chunked\r\n" + lines, line=b"POST / HTTP/1.1", body=body)
