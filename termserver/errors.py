"""The whole exception tree. It imports nothing, so every layer may raise from it.

Three families: `ConfigError` and its kin end the program with one line and an exit code; `ApplicationFault` goes back into the
application that caused it; `ClientDisconnected` is what a departed client looks like to `send()`.
"""


class TermserverError(Exception):
    """Root of everything termserver raises on purpose."""


class ConfigError(TermserverError):
    """An option, environment variable or configuration file cannot be used. Exit code 2."""

    exit_code = 2


class ApplicationLoadError(TermserverError):
    """The application could not be imported, or is no ASGI application. Exit code 3."""

    exit_code = 3


class StartupFailed(TermserverError):
    """The application answered `lifespan.startup.failed`, raised under `--lifespan on`, or took too long. Exit code 3."""

    exit_code = 3


class ListenError(TermserverError):
    """A socket could not be opened. Exit code 1 (daphne's)."""

    exit_code = 1


class ApplicationFault(TermserverError):
    """The application broke the ASGI contract; raised out of its own `send()`."""


class InvalidMessage(ApplicationFault, ValueError):
    """A message whose keys or values cannot be used: a missing key, a wrong type, a header that would split the response."""


class UnexpectedMessage(ApplicationFault, RuntimeError):
    """A message that is well formed but out of order."""

    def __init__(self, got: str, expected: str) -> None:
        """`got` and `expected` are ASGI message types."""
        super().__init__(f"expected {expected!r}, the application sent {got!r}")


class ClientDisconnected(TermserverError, OSError):
    """The client is gone (ASGI HTTP 2.4: `send()` raises a subclass of OSError). Never logged as an error."""


class ControlError(TermserverError):
    """A running server could not be asked, or said no. Exit code 1."""

    exit_code = 1
