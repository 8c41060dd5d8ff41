"""What a peer of HTTP/2 does wrong, in two sizes (RFC 9113 §5.4)."""

from h2.errors import ErrorCodes


class ConnectionFault(Exception):
    """The connection is of no more use: the error code, and why."""

    def __init__(self, code: ErrorCodes, reason: str) -> None:
        """`reason` is for the log and the GOAWAY frame."""
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class StreamFault(Exception):
    """A stream is of no more use."""

    def __init__(self, stream: int, code: ErrorCodes, reason: str) -> None:
        """`reason` is for the log."""
        super().__init__(stream, code, reason)
        self.stream = stream
        self.code = code
        self.reason = reason
