"""What a supervisor and its workers say to each other, and to whoever asks: JSON objects, one a line, over a stream socket.

Each has a key `is` that says what it is. Neither side ever waits for the other: what a full socket does not take is kept, up to a limit
over which the other side is as good as dead. Nobody but processes of ours is on the other side, which is why a line that is no JSON is an
end, like end-of-file.
"""

import json
import socket
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

_MOST: Final = 1_048_576  # bytes that wait, in either direction
_READ: Final = 65_536

Said: TypeAlias = dict[str, Any]


class Channel:
    """One end."""

    __slots__ = ("_in", "_out", "closed", "socket")

    def __init__(self, connected: socket.socket) -> None:
        """Take the socket over."""
        connected.setblocking(False)
        self.socket = connected
        self.closed = False
        self._in = bytearray()
        self._out = bytearray()

    def fileno(self) -> int:
        """Give the descriptor, for selectors."""
        return self.socket.fileno()

    def say(self, kind: str, **facts: object) -> None:
        """Say something; on a closed channel that is nothing."""
        if not self.closed:
            self._out += json.dumps({"is": kind, **facts}, separators=(",", ":")).encode() + b"\n"
            self.flush()

    def flush(self) -> bool:
        """Send what waits; answer whether anything is left."""
        try:
            while self._out and not self.closed:
                del self._out[: self.socket.send(self._out)]
        except BlockingIOError:
            self.closed = len(self._out) > _MOST
        except OSError:
            self.closed = True
        return bool(self._out) and not self.closed

    def hear(self) -> Iterator[Said]:
        """Give what was said since. At the end of it `closed` tells whether more will come."""
        try:
            data = self.socket.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._in += data
        self.closed = self.closed or not data or len(self._in) > _MOST
        *lines, rest = self._in.split(b"\n")
        self._in = rest
        for line in lines:
            try:
                said = json.loads(line)
            except (ValueError, RecursionError):
                said = None
            if not isinstance(said, dict) or not isinstance(said.get("is"), str):
                self.closed = True
                return
            yield said

    def close(self) -> None:
        """Say nothing more."""
        self.closed = True
        self.socket.close()
