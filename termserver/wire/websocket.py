"""WebSocket frames, server side, over any byte stream (RFC 6455 §5 to §8; RFC 7692). No I/O.

Bytes go in through `receive`, which answers with whole messages (`str`, `bytes`) and at the end `Closed`; commands append to the output.
Pings are answered here. The usual frame, a whole short message, is read where it stands (`_read_whole`). Everything else goes the long
way: the header is judged by itself, as soon as it is here (so a frame that is too large is refused before its payload is awaited), and the
payload is unmasked and gathered as it comes, in one buffer, text validated on the way. Whatever the peer does wrong is answered with its
close code, after which nothing is read any more.

Of autobahn the masker serves (`masking.py`), and its UTF-8 validator for text in pieces. Its protocol class owns transport and timers, and
could not do this on an HTTP/2 stream.
"""

import struct
from dataclasses import dataclass, field
from typing import Final

from autobahn.websocket.utf8validator import Utf8Validator

from termserver.errors import InvalidMessage
from termserver.wire.deflate import Deflater, InflateError, TooLargeError, inflate
from termserver.wire.events import Closed, Phase, SocketEvent, SocketLimits, is_close_code, weight
from termserver.wire.masking import Unmasker

OPEN, CLOSING, DONE, FAILED = Phase

# Opcodes (RFC 6455 §5.2), and the first byte of a frame: FIN, RSV1 for a compressed message.
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_FIN, _RSV1, _RSV, _OPCODE, _CONTROL = 0x80, 0x40, 0x70, 0x0F, 0x08
_WHOLE_TEXT, _WHOLE_BINARY = _FIN | _TEXT, _FIN | _BINARY
_OPCODES: Final = frozenset({_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG})

_SHORT: Final = 126  # a length byte below it is the length,
_LONG: Final = 127  # it says that two bytes of length follow, this one eight
_LARGEST_LENGTH: Final = 1 << 63
_TWO_BYTES: Final = 1 << 16
_MASK: Final = 4
_CONTROL_SIZE: Final = 125

_NORMAL, _PROTOCOL_ERROR, _NO_STATUS, _ABNORMAL = 1000, 1002, 1005, 1006
_INVALID_DATA, _POLICY_VIOLATION, _TOO_BIG = 1007, 1008, 1009

_STORED_SHIFT, _STORED = 11, 16  # what DEFLATE adds to bytes that it cannot make fewer: a 2048th, and some
_FRAMES: Final = 256  # in one turn, of whatever kind: one client's flood must not keep the others waiting
_COPIED: Final = 4_096  # bytes up to which header and payload leave as one piece
_DEFLATED: Final = 1_024  # bytes from which a message is worth compressing (spec limits L41)
_PING_BURST: Final = 100  # pings beyond the rate (spec attacks D7)
_UNLIMITED: Final = 1 << 64

_TEXT_HEADS: Final = [bytes((_WHOLE_TEXT, size)) for size in range(_SHORT)]
_BINARY_HEADS: Final = [bytes((_WHOLE_BINARY, size)) for size in range(_SHORT)]


class Terms:
    """What all sockets of a worker have in common: the limits, in the form the hot path wants them, and the compressors."""

    __slots__ = ("buffer", "deflater", "fragments", "frame", "inflated", "message", "pings", "queue", "ratio", "unmask", "whole")

    def __init__(self, limits: SocketLimits) -> None:
        """Read the limits once."""
        self.message = limits.websocket_message or _UNLIMITED
        self.inflated = limits.websocket_message  # 0 stays "no limit" here
        self.frame = limits.websocket_frame or _UNLIMITED
        self.whole = min(self.message, self.frame)  # a message in one frame
        self.fragments = limits.websocket_fragments or _UNLIMITED
        self.queue = limits.websocket_queue or _UNLIMITED
        self.buffer = limits.body_buffer or _UNLIMITED
        self.pings = limits.websocket_pings
        self.ratio = limits.websocket_deflate_ratio
        self.deflater = Deflater()
        self.unmask = Unmasker().unmask


@dataclass(slots=True)
class _Assembly:
    """A message that is not whole yet, and the frame of it that is being read."""

    text: bool
    compressed: bool
    data: bytearray = field(default_factory=bytearray)
    validator: Utf8Validator | None = None
    fragments: int = 0
    # the frame
    mask: bytes = b""
    left: int = 0  # payload bytes still to come
    final: bool = False


class _BrokenError(Exception):
    """The peer's fault: the close code that answers it, and why."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class WebSocket:
    """One socket. Satisfies `SocketEngine`."""

    __slots__ = (
        "_assembly",
        "_broken",
        "_held",
        "_out",
        "_ping_credit",
        "_pinged_at",
        "_pong",
        "_terms",
        "_window_bits",
        "credit",
        "failure",
        "has_input",
        "holds_pongs",
        "phase",
    )

    def __init__(self, terms: Terms, window_bits: int = 0) -> None:
        """`window_bits`: of the deflate window that was negotiated for our messages, 0 for no compression."""
        self._terms = terms
        self._window_bits = window_bits
        self.phase = OPEN
        self.credit = terms.buffer
        self.failure: tuple[int, str] | None = None
        self.has_input = False
        self.holds_pongs = False
        self._out: list[bytes] = []
        self._broken: _BrokenError | None = None  # the peer's fault, still to be answered
        self._held = b""  # what cannot be read yet: part of a header or of a control frame, or frames that the queue has no room for
        self._assembly: _Assembly | None = None
        self._pong = b""  # the answer to the newest ping, while pongs are held
        self._ping_credit = 0.0
        self._pinged_at = 0.0

    # ------------------------------------------------------------------ reading

    def receive(self, data: bytes, now: float) -> list[SocketEvent]:
        """Take bytes, answer what they mean: as many messages as a queue holds at the most, the rest waits (`has_input`).

        An end that comes behind messages waits too, so that the application can answer those before our Close frame is out.
        """
        if self._held:
            data = self._held + data
            self._held = b""
        events: list[SocketEvent] = []
        before = self.phase
        if before is DONE or before is FAILED:
            return events
        try:
            if self._broken is not None:
                raise self._broken
            self._read(data, events, now)
        except _BrokenError as broken:
            if events and before is OPEN:
                self._broken, self.has_input = broken, True
            else:
                self._fail(broken, events)
        if before is CLOSING:  # we said that we are done: only the answer to that counts
            return [event for event in events if type(event) is Closed]
        return events

    def _read(self, data: bytes, events: list[SocketEvent], now: float) -> None:
        position, size = 0, len(data)
        discards = self.phase is not OPEN  # and what is discarded fills no queue
        queue = _UNLIMITED if discards else self._terms.queue
        frames = 0
        self.has_input = False
        while position < size:
            frames += 1
            if frames > _FRAMES or len(events) >= queue or (self.credit <= 0 and not discards):
                self.has_input = True
                break
            assembly = self._assembly
            if assembly is None:
                after = self._read_whole(data, position, size, events)
                if after:
                    position = after
                    continue
            elif assembly.left:
                position = self._read_payload(assembly, data, position, events)
                continue
            after = self._read_frame(data, position, events, now)
            if after == position:
                break
            position = after
            if self.phase is DONE:
                return
        if position < size:
            self._held = data[position:]

    def _read_whole(self, data: bytes, position: int, size: int, events: list[SocketEvent]) -> int:
        """Read a message that stands here whole, in one frame, uncompressed; give the position after it, 0 for the long way."""
        # Fast path: what `_read_frame` and `_read_payload` would do. benchmarks/micro/socket_frames.py guards this.
        if size - position < 2 + _MASK:
            return 0
        first = data[position]
        length = data[position + 1] - 0x80
        start = position + 2 + _MASK
        if length == _SHORT and size - position >= 4 + _MASK:
            length = (data[position + 2] << 8) | data[position + 3]
            start += 2
            if length < _SHORT:
                return 0
        elif not 0 <= length < _SHORT:
            return 0
        end = start + length
        if end > size or length > self._terms.whole:
            return 0
        if first == _WHOLE_TEXT:
            try:
                text = self._terms.unmask(data, start, end, data[start - _MASK : start]).decode()
            except UnicodeDecodeError:
                raise _BrokenError(_INVALID_DATA, "text that is not UTF-8") from None
            events.append(text)
            self.credit -= length if text.isascii() else 4 * len(text)  # `weight`
        elif first == _WHOLE_BINARY:
            events.append(self._terms.unmask(data, start, end, data[start - _MASK : start]))
            self.credit -= length
        else:
            return 0
        return end

    def _read_frame(self, data: bytes, position: int, events: list[SocketEvent], now: float) -> int:
        """Read a frame's header, and a control frame whole; give the position after it, or the same one where bytes are missing."""
        size = len(data) - position
        if size < 2:  # noqa: PLR2004 - the two bytes that every frame has
            return position
        first, length = data[position], data[position + 1] - 0x80
        self._check_first(first, length)
        start = position + 2
        if length >= _SHORT:
            start += 2 if length == _SHORT else 8
            if len(data) < start:
                return position
            length = _checked_length(data[position + 2 : start])
        if first & _CONTROL:
            return self._read_control(first & _OPCODE, data, (position, start, start + _MASK + length), events, now)
        self._check_size(first, length)  # before the payload is awaited (spec attacks D1)
        if len(data) < start + _MASK:
            return position
        self._begin_frame(first, length, data[start : start + _MASK], events)
        return start + _MASK

    def _read_control(self, opcode: int, data: bytes, places: tuple[int, int, int], events: list[SocketEvent], now: float) -> int:
        """Read a control frame, if it is here whole; `places` are where it begins, where its mask does, and where it ends."""
        position, start, end = places
        if len(data) < end:
            return position
        if opcode == _CLOSE and events and self.phase is OPEN:
            self.has_input = True
            return position
        payload = self._terms.unmask(data, start + _MASK, end, data[start : start + _MASK])
        if opcode == _CLOSE:
            self._take_close(payload, events)
        elif opcode == _PING and self.phase is OPEN:
            self._take_ping(payload, now)
        return end

    def _check_first(self, first: int, length: int) -> None:
        """Judge what the first two bytes say (RFC 6455 §5.1, §5.2, §5.4, §5.5)."""
        opcode = first & _OPCODE
        if length < 0:
            raise _BrokenError(_PROTOCOL_ERROR, "a frame that is not masked")
        if opcode not in _OPCODES:
            raise _BrokenError(_PROTOCOL_ERROR, "an unknown opcode")
        if first & _RSV and (first & _RSV != _RSV1 or not self._window_bits or opcode not in {_TEXT, _BINARY}):  # RFC 7692 §6.1
            raise _BrokenError(_PROTOCOL_ERROR, "a reserved bit that nothing was negotiated for")
        if opcode & _CONTROL:
            if not first & _FIN or length > _CONTROL_SIZE:
                raise _BrokenError(_PROTOCOL_ERROR, "a control frame that is fragmented or too long")
        elif (opcode == _CONTINUATION) is (self._assembly is None):
            raise _BrokenError(_PROTOCOL_ERROR, "a continuation of nothing, or a message inside a message")

    def _check_size(self, first: int, length: int) -> None:
        """Hold a data frame to the limits (spec limits L36, L37)."""
        terms, assembly = self._terms, self._assembly
        before = 0 if assembly is None else len(assembly.data)
        compressed = bool(first & _RSV1) if assembly is None else assembly.compressed
        length -= (terms.whole >> _STORED_SHIFT) + _STORED if compressed else 0
        if length > terms.frame or before + length > terms.message:
            raise _BrokenError(_TOO_BIG, "a message that is too large")
        if (1 if assembly is None else assembly.fragments + 1) > terms.fragments:
            raise _BrokenError(_TOO_BIG, "a message in too many fragments")

    def _begin_frame(self, first: int, length: int, mask: bytes, events: list[SocketEvent]) -> None:
        assembly = self._assembly
        if assembly is None:
            assembly = self._assembly = _Assembly(first & _OPCODE == _TEXT, bool(first & _RSV1))
        assembly.fragments += 1
        assembly.mask = mask
        assembly.left = length
        assembly.final = bool(first & _FIN)
        if not length and assembly.final:
            self._complete(assembly, events)

    def _read_payload(self, assembly: _Assembly, data: bytes, position: int, events: list[SocketEvent]) -> int:
        """Take what is here of a frame's payload."""
        end = min(position + assembly.left, len(data))
        part = self._terms.unmask(data, position, end, assembly.mask)
        taken = end - position
        assembly.left -= taken
        if taken % _MASK:
            turn = taken % _MASK
            assembly.mask = assembly.mask[turn:] + assembly.mask[:turn]
        assembly.data += part
        if assembly.text and not assembly.compressed:
            if assembly.validator is None:
                assembly.validator = Utf8Validator()
            if not assembly.validator.validate(part)[0]:  # at the first bad byte, not at the end of the message
                raise _BrokenError(_INVALID_DATA, "text that is not UTF-8")
        if not assembly.left and assembly.final:
            self._complete(assembly, events)
        return end

    def _complete(self, assembly: _Assembly, events: list[SocketEvent]) -> None:
        self._assembly = None
        data: bytes | bytearray = assembly.data
        if assembly.compressed:
            try:
                data = inflate(data, self._terms.inflated, self._terms.ratio)
            except TooLargeError:
                raise _BrokenError(_TOO_BIG, "a compressed message that is too large") from None
            except InflateError:
                raise _BrokenError(_INVALID_DATA, "a compressed message that is no DEFLATE stream") from None
        try:
            message: str | bytes = data.decode() if assembly.text else bytes(data)
        except UnicodeDecodeError:
            raise _BrokenError(_INVALID_DATA, "text that is not UTF-8") from None
        events.append(message)
        self.credit -= weight(message)

    def _take_ping(self, payload: bytes, now: float) -> None:
        """Answer a ping, within the rate (spec limits L25)."""
        rate = self._terms.pings
        if rate:
            earned = (now - self._pinged_at) * rate / 60 if self._pinged_at else rate + _PING_BURST
            self._ping_credit = min(self._ping_credit + earned, rate + _PING_BURST) - 1
            self._pinged_at = now
            if self._ping_credit < 0:
                raise _BrokenError(_POLICY_VIOLATION, "too many pings")
        pong = bytes((_FIN | _PONG, len(payload))) + payload
        if self.holds_pongs:
            self._pong = pong  # RFC 6455 §5.5.3: the newest is enough
        else:
            self._out.append(pong)

    def _take_close(self, payload: bytes, events: list[SocketEvent]) -> None:
        """Answer a Close frame, if it is not the answer to ours (RFC 6455 §5.5.1, §7.4)."""
        code, reason = _NO_STATUS, ""
        if payload:
            code = int.from_bytes(payload[:2], "big")
            if len(payload) == 1 or not is_close_code(code):
                raise _BrokenError(_PROTOCOL_ERROR, "a close code that no frame may hold")
            try:
                reason = payload[2:].decode()
            except UnicodeDecodeError:
                raise _BrokenError(_INVALID_DATA, "a close reason that is not UTF-8") from None
        if self.phase is OPEN:
            self._out.append(_close_frame(payload))
        self._end(DONE)
        events.append(Closed(code, reason))

    def _fail(self, broken: _BrokenError, events: list[SocketEvent]) -> None:
        """Answer the peer's fault with its close code, and read no more (RFC 6455 §7.1.7)."""
        if self.phase is OPEN:
            self._out.append(_close_frame(struct.pack("!H", broken.code) + broken.reason.encode()))
        self.failure = (broken.code, broken.reason)
        self._end(FAILED)
        events.append(Closed(_ABNORMAL, broken.reason))

    def _end(self, phase: Phase) -> None:
        self.phase = phase
        self._held, self._assembly, self._broken, self.has_input = b"", None, None, False
        self._pong = b""  # nothing is said behind a Close frame

    # ------------------------------------------------------------------ writing

    def send(self, message: str | bytes) -> None:
        """Write a message in one frame. Raises `InvalidMessage` for text that UTF-8 cannot hold."""
        if self.phase is not OPEN:
            return
        if type(message) is str:
            heads, first = _TEXT_HEADS, _WHOLE_TEXT
            try:
                data = message.encode()
            except UnicodeEncodeError as error:
                raise InvalidMessage(f"a text message is Unicode, without surrogates: {error}") from error
        else:
            heads, first = _BINARY_HEADS, _WHOLE_BINARY
            data = message  # type: ignore[assignment]
        size = len(data)
        if size < _SHORT:
            self._out.append(heads[size] + data)
            return
        if size >= _DEFLATED and self._window_bits:
            deflated = self._terms.deflater.deflate(data, self._window_bits)
            if len(deflated) < size:
                data, size, first = deflated, len(deflated), first | _RSV1
        head = _head(first, size)
        if size <= _COPIED:
            self._out.append(head + data)
        else:
            self._out += (head, data)

    def ping(self) -> None:
        """Ask for a sign of life."""
        if self.phase is OPEN:
            self._out.append(bytes((_FIN | _PING, 0)))

    def close(self, code: int = _NORMAL, reason: str = "") -> None:
        """Begin the closing handshake; `reason` is at most 123 bytes of UTF-8."""
        if self.phase is OPEN:
            self._out.append(_close_frame(struct.pack("!H", code) + reason.encode()))
            self.phase = CLOSING
            self._pong = b""

    def output(self) -> list[bytes]:
        """Hand out what is to be sent, once: pieces, so that a long payload need not be copied behind its header."""
        out = self._out
        if self._pong and not self.holds_pongs:
            out.append(self._pong)
            self._pong = b""
        if out:
            self._out = []
        return out


def _checked_length(field_bytes: bytes) -> int:
    """Read an extended length: in the fewest bytes that hold it, and no sign bit (RFC 6455 §5.2)."""
    length = int.from_bytes(field_bytes, "big")
    if length < (_SHORT if len(field_bytes) == 2 else _TWO_BYTES) or length >= _LARGEST_LENGTH:  # noqa: PLR2004
        raise _BrokenError(_PROTOCOL_ERROR, "a length that is not in its shortest form")
    return length


def _head(first: int, size: int) -> bytes:
    if size < _SHORT:
        return bytes((first, size))
    if size < _TWO_BYTES:
        return struct.pack("!BBH", first, _SHORT, size)
    return struct.pack("!BBQ", first, _LONG, size)


def _close_frame(payload: bytes) -> bytes:
    return bytes((_FIN | _CLOSE, len(payload))) + payload
