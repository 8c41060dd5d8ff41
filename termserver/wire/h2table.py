"""The streams of an HTTP/2 connection: which there are and were, what their bodies hold of its window (RFC 9113 §5). No I/O.

A stream that is over leaves nothing behind but its number below the newest one. Two small memories tell the exceptions: numbers that were
passed over, and streams that we ended while the client may still send on them, whose late frames are ignored (spec limits L33).
"""

from typing import Final

from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from termserver.wire import h2frames as frames
from termserver.wire.events import Ending, Http2Limits
from termserver.wire.h2faults import ConnectionFault
from termserver.wire.streams import Inbound, Sender, Stream

PROTOCOL_ERROR, FLOW_CONTROL_ERROR = ErrorCodes.PROTOCOL_ERROR, ErrorCodes.FLOW_CONTROL_ERROR

_SWITCHES: Final = frozenset({SettingCodes.ENABLE_PUSH, SettingCodes.ENABLE_CONNECT_PROTOCOL, frames.NO_RFC7540_PRIORITIES})
_REMEMBERED: Final = 1_000
_WORTH_A_FRAME: Final = 1_024  # bytes of a window: with less at a time, both sides would send ever smaller frames (RFC 9113 §5.2.2)


class StreamTable:
    """The streams of one connection, and the window of all."""

    __slots__ = (
        "_gaps", "_most", "_reset", "_taken",
        "ending", "last", "last_is_final", "opened", "priorities", "sender", "stream_window", "streams", "window",
    )  # fmt: skip

    def __init__(self, limits: Http2Limits) -> None:
        """Open the connection's window (spec limits L31)."""
        self.sender = Sender(limits)
        self.streams: dict[int, Stream] = {}
        self.ending = Ending.OPEN
        self.last = 0  # the newest stream
        self.last_is_final = False  # the client was told that none comes after it
        self.opened = 0  # streams, in all
        self._gaps: list[range] = []
        self._reset: dict[int, None] = {}
        self._most = limits.http2_streams or _REMEMBERED
        self.priorities: dict[int, int] = {}  # urgencies of streams that are not open yet
        self.stream_window = frames.WINDOW  # of a new stream's body
        self.window = min(max(limits.http2_window or frames.LARGEST_WINDOW, frames.WINDOW), frames.LARGEST_WINDOW)
        self._taken = 0

    @property
    def first_update(self) -> bytes:
        """The frame that opens the window, empty where it is as RFC 9113 §6.9.2 has it."""
        return frames.window_update(0, self.window - frames.WINDOW) if self.window > frames.WINDOW else b""

    # ------------------------------------------------------------------ which there are

    def advance(self, number: int) -> None:
        """Note that the client has come to this number."""
        if number != self.last + 2 and number > 1:
            self._gaps = [*self._gaps[-_REMEMBERED:], range(self.last + 2 - (not self.last), number, 2)]
        self.last = number

    def is_idle(self, number: int) -> bool:
        """Whether a stream is still to come; one that was refused at the end of a drain is not."""
        return number > self.last and number not in self._reset

    def judge_late(self, number: int) -> None:
        """Ignore a frame on a stream that we ended, refuse one on a stream that is closed or was passed over (RFC 9113 §5.1)."""
        if number in self._reset:
            return
        if not number & 1 or any(number in gap for gap in self._gaps):
            raise ConnectionFault(PROTOCOL_ERROR, "a stream that was never opened")
        raise ConnectionFault(ErrorCodes.STREAM_CLOSED, "a frame on a closed stream")

    def prioritize(self, number: int, urgency: int) -> None:
        """Take another urgency of a stream that is open, or will be."""
        stream = self.streams.get(number)
        if stream is not None:
            stream.urgency = urgency
        elif number > self.last:
            self.priorities[number] = urgency
            if len(self.priorities) + len(self.streams) > self._most:
                self.priorities = {each: said for each, said in self.priorities.items() if each > self.last}
                if len(self.priorities) + len(self.streams) > self._most:  # RFC 9218 §7.1
                    raise ConnectionFault(PROTOCOL_ERROR, "priorities of more streams than there may be")

    def end(self, number: int, code: ErrorCodes) -> None:
        """Reset a stream; frames of it that are on their way will be ignored."""
        self.sender.say(frames.rst_stream(number, code))
        self._remember(number)
        stream = self.streams.get(number)
        if stream is not None:
            self.forget(stream)

    def complete(self, stream: Stream) -> None:
        """The response has left. What is still coming of the request is not wanted any more (RFC 9113 §8.1)."""
        if stream.inbound is not None:
            self.sender.say(frames.rst_stream(stream.id, ErrorCodes.NO_ERROR))
            self._remember(stream.id)
        self.forget(stream)

    def forget(self, stream: Stream) -> None:
        """A stream is over, in whatever way."""
        del self.streams[stream.id]
        if stream.inbound is not None:
            self.return_window(stream.inbound)
        if stream.outbound is not None:
            self.sender.drop(stream, stream.outbound)
        if self.last_is_final and not self.streams and self.ending is Ending.OPEN:
            self.ending = Ending.LINGER

    def clear(self) -> None:
        """Every stream is over."""
        self.streams.clear()
        self.sender.clear()

    def _remember(self, number: int) -> None:
        if len(self._reset) >= _REMEMBERED:
            del self._reset[next(iter(self._reset))]
        self._reset[number] = None

    # ------------------------------------------------------------------ windows of bodies, and what else the client sets

    def use_window(self, size: int) -> bool:
        """Count bytes that came; False where they are more than the client may send."""
        self.window -= size
        return self.window >= 0

    def credit(self, size: int) -> None:
        """Give back a part of the connection's window."""
        self._taken += size
        if self._taken > self.window and self._taken >= _WORTH_A_FRAME:  # half of it is used up, or more
            self.sender.say(frames.window_update(0, self._taken))
            self.window += self._taken
            self._taken = 0

    def consumed(self, stream: int, size: int) -> None:
        """Give the client back the window for body bytes that the application took."""
        found = self.streams.get(stream)
        inbound = found.inbound if found is not None else None
        if inbound is None or inbound.unwanted or not size:  # its window was given back already
            return
        inbound.held -= size
        self.reopen(stream, inbound, size)

    def reopen(self, stream: int, inbound: Inbound, size: int) -> None:
        """Give back a part of both windows, the stream's once it is worth a frame."""
        self.credit(size)
        inbound.taken += size
        if inbound.taken > self.stream_window >> 1:
            self.sender.say(frames.window_update(stream, inbound.taken))
            inbound.window += inbound.taken
            inbound.taken = 0

    def return_window(self, inbound: Inbound) -> None:
        """Give back what a body that ends still holds of the connection's window: what it holds is little."""
        if inbound.held > 0:
            self.credit(inbound.held)
            inbound.held = 0

    def settle(self, window: int) -> None:
        """The client keeps to our window for streams from now on (RFC 9113 §6.9.2)."""
        change = window - self.stream_window
        self.stream_window = window
        for stream in self.streams.values():
            if stream.inbound is not None:
                stream.inbound.window += change

    def apply(self, name: int, value: int) -> None:
        """Take a setting of the client's (RFC 9113 §6.5.2). Those that bind only who pushes, or who has a table, are not ours."""
        if name == SettingCodes.INITIAL_WINDOW_SIZE:
            if value > frames.LARGEST_WINDOW:
                raise ConnectionFault(FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE is too large")
            change = value - self.sender.initial_window
            self.sender.initial_window = value
            for stream in self.streams.values():
                if not self.sender.open_stream(stream, change):
                    raise ConnectionFault(FLOW_CONTROL_ERROR, "a stream's window is too large")
        elif name == SettingCodes.MAX_FRAME_SIZE:
            if not frames.FRAME_SIZE <= value < 1 << 24:
                raise ConnectionFault(PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE is out of its range")
        elif name in _SWITCHES and value > 1:
            raise ConnectionFault(PROTOCOL_ERROR, "a setting that is neither 0 nor 1")
