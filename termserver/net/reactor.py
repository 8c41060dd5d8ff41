"""Twisted's asyncio reactor on the fastest loop there is: uvloop, or asyncio's own where uvloop is not to be had.

Traps: uvloop owns SIGCHLD, so never `reactor.spawnProcess` in a worker; the reactor's clock is wall time, so no time-out may use
`callLater`.
"""

import asyncio
import logging
import sys
from typing import Any

from termserver.errors import ConfigError


def new_event_loop(*, twisted_sockets: bool = False) -> asyncio.AbstractEventLoop:
    """Make a loop. Where Twisted's own sockets are to be watched (`twisted_sockets`), it is asyncio's.

    Trap: uvloop leaves a closed watch behind for the descriptor of a connection that was reset, and the next connection that is given the
    same number breaks on it.
    """
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return asyncio.new_event_loop() if twisted_sockets else uvloop.new_event_loop()


def send_log_to_logging(*, verbose: bool) -> None:
    """Let the standard library's logging have Twisted's log: its troubles always, its news where asked for (daphne's `-v 2`)."""
    from twisted.logger import STDLibLogObserver, globalLogBeginner

    logging.getLogger("twisted").setLevel(logging.DEBUG if verbose else logging.WARNING)
    globalLogBeginner.beginLoggingTo([STDLibLogObserver("twisted")], redirectStandardIO=False)


def install(loop: asyncio.AbstractEventLoop) -> Any:
    """Make Twisted's reactor run on `loop`; give the reactor. Raises `ConfigError` where another kind is installed already."""
    asyncio.set_event_loop(loop)
    installed = sys.modules.get("twisted.internet.reactor")
    if installed is None:
        from twisted.internet import asyncioreactor

        asyncioreactor.install(loop)
    from twisted.internet import reactor
    from twisted.internet.asyncioreactor import AsyncioSelectorReactor

    if not isinstance(reactor, AsyncioSelectorReactor):
        message = f"Twisted's reactor is {type(reactor).__name__} already; import termserver before what installs it"
        raise ConfigError(message)
    return reactor
