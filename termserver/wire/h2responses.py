"""What is said on the streams of an HTTP/2 connection: responses, from their heads to their trailers (RFC 9113 §8.1). No I/O.

Each command names its stream; one on a stream that is gone does nothing, because the client may reset it at any moment. The application's
faults are raised at the command that holds them.
"""

from collections.abc import Iterable
from typing import Final

from h2.errors import ErrorCodes

from termserver.errors import InvalidMessage, UnexpectedMessage
from termserver.wire.events import Fields, Rejected
from termserver.wire.fields import NO_BODY, REASONS
from termserver.wire.h2response import ResponseEncoder
from termserver.wire.h2table import StreamTable
from termserver.wire.streams import W_BODY, W_DONE, W_DROPPED, W_FIRST, W_START, W_TRAILERS, Stream

_BODIES: Final = {status: reason + b"\n" for status, reason in REASONS.items()}
_NO_FIELDS: Final[Fields] = []


class Responses:
    """The responses of one connection. Satisfies `Responder`, but for `consumed`, which is the table's."""

    __slots__ = ("_encoder", "_sender", "_table")

    def __init__(self, table: StreamTable, encoder: ResponseEncoder) -> None:
        """`encoder` is the worker's."""
        self._table = table
        self._sender = table.sender
        self._encoder = encoder

    def start(self, stream: int, status: int, headers: Iterable[Iterable[bytes]], *, trailers: bool = False) -> None:
        """Check and encode the head of the final response. It leaves with the first body bytes (ASGI www, Response Start)."""
        found = self._table.streams.get(stream)
        if found is None:
            return
        if found.writing is not W_START:
            raise UnexpectedMessage("http.response.start", "http.response.body")
        found.block, found.length = self._encoder.encode(status, headers)
        if found.is_head:
            found.has_body = False
        if status in NO_BODY:
            found.has_body = found.is_head = False  # not even the length of one
        found.trailers = trailers
        found.writing = W_FIRST

    def write(self, stream: int, data: bytes, more: bool) -> None:  # noqa: FBT001 - the hot path passes it by position
        """Write body bytes; `more=False` ends the body. More bytes than Content-Length said: those are written, then it raises."""
        found = self._table.streams.get(stream)
        if found is None:
            return
        if found.writing is W_FIRST:
            whole = not more and found.has_body and not found.trailers and found.length == len(data)
            if whole and data and self._sender.send_whole(found, found.block, data):
                self._table.complete(found)
                return
            if self._begin(found, data, more=more):
                return
        elif found.writing is W_DROPPED:
            return
        elif found.writing is not W_BODY:
            raise UnexpectedMessage("http.response.body", "nothing: the response is complete")
        if found.left is not None:
            self._send_counted(found, data, found.left, more=more)
        else:
            self._send(found, data, more=more)

    def _send_counted(self, stream: Stream, data: bytes, left: int, *, more: bool) -> None:
        """Send what Content-Length leaves room for (spec attacks B10)."""
        excess = len(data) - left
        if excess < 0 and not more:
            self.reset(stream.id)  # the client must see that bytes are missing
            raise InvalidMessage(f"the response ended {-excess} bytes short of its content-length")
        stream.left = max(-excess, 0)
        self._send(stream, data[:left] if excess > 0 else data, more=more and excess <= 0)
        if excess > 0:
            raise InvalidMessage(f"the response body is {excess} bytes longer than its content-length")

    def _begin(self, stream: Stream, data: bytes, *, more: bool) -> bool:
        """Send the head; answer whether that was all."""
        block = stream.block
        stream.block = b""
        whole = not more and not stream.trailers
        if stream.length is None and whole and (stream.has_body or (stream.is_head and data)):
            block += self._encoder.encode_length(len(data))  # of a HEAD, what a GET would have had
        ended = not stream.has_body or (whole and not data and not stream.length)
        stream.left = stream.length if stream.has_body else None
        stream.writing = W_DROPPED if not stream.has_body else W_DONE if ended else W_BODY
        if self._sender.send_head(stream, block, ended=ended) and ended:
            self._table.complete(stream)
        return ended

    def _send(self, stream: Stream, data: bytes, *, more: bool) -> None:
        if more:
            if data:
                self._sender.send(stream, data, ended=False)
        elif stream.trailers:
            if data:
                self._sender.send(stream, data, ended=False)
            stream.writing = W_TRAILERS
        else:
            stream.writing = W_DONE
            if self._sender.send(stream, data, ended=True):
                self._table.complete(stream)

    def trailers(self, stream: int, headers: Iterable[Iterable[bytes]], *, more: bool) -> None:
        """Write trailer fields; `more=False` ends the response. A client that did not ask for them gets none (RFC 9110 §6.5.1)."""
        found = self._table.streams.get(stream)
        if found is None or found.writing is W_DROPPED:
            return
        if found.writing is not W_TRAILERS:
            raise UnexpectedMessage("http.response.trailers", "http.response.body")
        found.block += self._encoder.encode_trailers(headers)
        if more:
            return
        found.writing = W_DONE
        if found.takes_trailers and found.block:
            left = self._sender.send_trailers(found, found.block)
        else:
            left = self._sender.send(found, b"", ended=True)
        if left:
            self._table.complete(found)

    def interim(self, stream: int, status: int, headers: Fields) -> None:
        """Write a 1xx response; none comes after the final head."""
        found = self._table.streams.get(stream)
        if found is not None and found.writing in {W_START, W_FIRST}:
            self._sender.send_head(found, self._encoder.encode_interim(status, headers))

    def wants_continue(self, stream: int) -> None:
        """Answer a waiting `Expect: 100-continue`, now that the application reads (RFC 9110 §10.1.1)."""
        found = self._table.streams.get(stream)
        if found is not None and found.expects_continue:
            found.expects_continue = False
            if found.inbound is not None and not found.inbound.received:
                self.interim(stream, 100, [])

    def upgrade(self, stream: int, headers: Fields) -> None:
        """Answer that a WebSocket begins; its frames are the stream's body from now on, both ways (RFC 8441 §5)."""
        found = self._table.streams.get(stream)
        if found is None:
            return
        found.tunnel, found.writing = True, W_BODY
        self._sender.send_head(found, self._encoder.encode_upgrade(headers))

    def reject(self, stream: int, status: int, reason: str, headers: Fields = _NO_FIELDS) -> Rejected:
        """Answer with an error of the server's own, unless a response has begun: then cut that one. The request's body is not wanted."""
        found = self._table.streams.get(stream)
        if found is None:
            return Rejected(status, reason)
        if found.inbound is not None:
            found.inbound.unwanted = True
            self._table.return_window(found.inbound)
        if found.writing is W_START or found.writing is W_FIRST:
            body = _BODIES[status]
            extra = [(b"retry-after", b"1")] if status == 503 and not headers else headers  # noqa: PLR2004 - as HTTP/1 does
            fields = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body)), *extra]
            found.block, found.length = self._encoder.encode_plain(status, fields), len(body)
            found.writing, found.trailers, found.has_body = W_FIRST, False, not found.is_head
            self.write(stream, body, False)
        else:
            self.reset(stream)
        return Rejected(status, reason)

    def reset(self, stream: int, code: ErrorCodes = ErrorCodes.INTERNAL_ERROR) -> None:
        """Cut the response so that the client sees it is incomplete."""
        if stream in self._table.streams:
            self._table.end(stream, code)
