"""Running a server: in a process of its own (`run`), or inside an asyncio program (`serve`)."""

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from termserver.asgi.app import Application, as_application, load_application
from termserver.asgi.redirect import redirect_to_https
from termserver.config import Config, Endpoint, Tcp, Tls
from termserver.errors import ListenError
from termserver.net import reactor as reactors
from termserver.net.lifeline import Lifeline, Overseer, Service
from termserver.net.ports import Ports
from termserver.net.server import Server
from termserver.net.tls import ignore_impossible_names
from termserver.observe.access import from_config
from termserver.observe.log import LogSetup, configure
from termserver.systemd import Notifier

logger = logging.getLogger("termserver")
_LAST_LINES: Final = 1.0  # seconds that the access log has to write its last lines


@dataclass(frozen=True, slots=True)
class Inherited:
    """Listening sockets that a supervisor holds."""

    main: Sequence[socket.socket]
    redirect: Sequence[socket.socket]


class Running:
    """One server with what belongs to it: its ports, its access log, the wish to stop."""

    def __init__(self, config: Config, app: Application, reactor: Any, inherited: Inherited | None = None) -> None:
        """Bind the ports, unless a supervisor did. `reactor` serves Twisted endpoint strings. Raises `ListenError`, `ConfigError`."""
        self._stop_asked = asyncio.Event()
        self._restarting = False
        self._access_log = from_config(config.logging)
        self._server = Server(config, app, access_log=self._access_log)
        self._ports = Ports(config, reactor, inherited.main if inherited is not None else None)
        redirect = inherited.redirect if inherited is not None else None
        try:
            self._redirect = _Redirect(config, self._ports, redirect) if config.http_redirect_port is not None else None
        except ListenError:
            self._ports.let_go()
            raise

    async def main(self, ready: Callable[[list[Any]], object] | None = None, stopping: Callable[[], object] | None = None) -> None:
        """Serve until asked to stop, or cancelled; then stop gracefully. Raises `TermserverError` where it cannot start."""
        asked = asyncio.ensure_future(self._stop_asked.wait())
        starting = asyncio.ensure_future(self._start())
        try:
            await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                if ready is not None:
                    ready(self._ports.addresses)
                await asked
        finally:
            if stopping is not None:
                stopping()
            starting.cancel()
            asked.cancel()
            await asyncio.wait({starting, asked})
            if self._redirect is not None:
                await asyncio.gather(self._server.stop(restarting=self._restarting), self._redirect.stop())
            else:
                await self._server.stop(restarting=self._restarting)
            if self._access_log is not None:
                await asyncio.get_running_loop().run_in_executor(None, self._access_log.sink.close, _LAST_LINES)

    async def _start(self) -> None:
        await self._server.start(self._ports)
        if self._redirect is not None:
            await self._redirect.start()

    def reload(self) -> None:
        """Read certificates and keys anew (SIGHUP)."""
        self._ports.reload()

    def ask_to_stop(self, *, restarting: bool = False) -> None:
        """Begin the graceful stop. `restarting`: another server takes over."""
        self._restarting = restarting
        self._stop_asked.set()

    def facts(self) -> dict[str, int]:
        """Say what the server has to do."""
        return self._server.facts()

    def reopen_logs(self) -> None:
        """Open the access log's file anew: it was moved away (SIGUSR1)."""
        if self._access_log is not None:
            self._access_log.sink.reopen()

    @property
    def stop_asked(self) -> bool:
        """Whether it was asked to."""
        return self._stop_asked.is_set()


class _Redirect:
    """A server beside the one that speaks HTTPS: plain HTTP on the same hosts, sent there."""

    def __init__(self, config: Config, main: Ports, listeners: Sequence[socket.socket] | None) -> None:
        """Bind its port on every host of the main server's, unless a supervisor did. Raises `ListenError`."""
        port = config.http_redirect_port or 0
        hosts = dict.fromkeys(bind.host for bind in config.bind if isinstance(bind, Tcp))
        target = next(address[1] for address in main.addresses if isinstance(address, tuple))
        plain = replace(config, bind=tuple(Tcp(host, port) for host in hosts), tls=Tls(), lifespan="off", http_redirect_port=None)
        self._server = Server(plain, redirect_to_https(target))
        self._ports = Ports(plain, None, listeners)

    async def start(self) -> None:
        """Accept connections."""
        await self._server.start(self._ports)

    async def stop(self) -> None:
        """Finish what runs."""
        await self._server.stop()


def load(config: Config) -> Application:
    """Give the application. Raises `ApplicationLoadError`."""
    if isinstance(config.application, str):
        return load_application(config.application, factory=config.factory, app_dir=config.app_dir)
    return as_application(config.application, repr(config.application), factory=config.factory)


def run(config: Config, notifier: Notifier | None = None) -> int:
    """Serve in this process until SIGTERM or SIGINT; give the exit code. Raises `TermserverError` where it cannot start.

    `notifier` tells the service manager.
    """
    log = configure(config.logging, debug=config.debug)
    try:
        loop, reactor = _prepare(config)
        running = Running(config, load(config), reactor)
        for warning in config.warnings():
            logger.warning("%s", warning)
        logger.info("Starting server at %s", ", ".join(map(str, config.bind)))
        _turn(running, loop, reactor, log, Service(notifier or Notifier()))
    finally:
        if log is not None:
            log.close()
    return 0


def run_worker(config: Config, inherited: Inherited, lifeline: Lifeline) -> None:
    """Serve as a supervisor's worker until it says stop. Raises `TermserverError` where it cannot start."""
    log = configure(config.logging, debug=config.debug)
    try:
        loop, reactor = _prepare(config)
        running = Running(config, load(config), reactor, inherited)
        _turn(running, loop, reactor, log, lifeline)
    finally:
        if log is not None:
            log.close()


def _prepare(config: Config) -> tuple[asyncio.AbstractEventLoop, Any]:
    """Give the loop, and Twisted's reactor on it."""
    loop = reactors.new_event_loop(twisted_sockets=any(isinstance(bind, Endpoint) for bind in config.bind))
    loop.set_debug(config.debug)
    reactor = reactors.install(loop)
    if config.tls.certificates:
        ignore_impossible_names()
    reactors.send_log_to_logging(verbose=config.logging.level == "debug" or config.debug)
    return loop, reactor


def _turn(running: Running, loop: asyncio.AbstractEventLoop, reactor: Any, log: LogSetup | None, overseer: Overseer) -> None:
    """Run the reactor until the server has stopped. Raises what it could not start for."""
    failures: list[BaseException] = []
    reactor.callWhenRunning(_begin, running, loop, reactor, failures, log, overseer)
    reactor.run(installSignalHandlers=False)
    if failures:
        raise failures[0]


def _begin(
    running: Running,
    loop: asyncio.AbstractEventLoop,
    reactor: Any,
    failures: list[BaseException],
    log: LogSetup | None,
    overseer: Overseer,
) -> None:
    """Run the server's main coroutine on the reactor's loop, and stop the reactor after it."""

    def ready(addresses: list[Any]) -> None:
        gc.collect()
        gc.freeze()  # what the application loaded need not be looked through again and again while it serves
        overseer.ready(addresses)

    task = loop.create_task(running.main(ready, overseer.stopping))
    overseer.attach(running, loop)
    loop.add_signal_handler(signal.SIGTERM, _on_signal, signal.SIGTERM, running, log)
    loop.add_signal_handler(signal.SIGUSR1, running.reopen_logs)
    if not overseer.supervised:
        loop.add_signal_handler(signal.SIGINT, _on_signal, signal.SIGINT, running, log)
        loop.add_signal_handler(signal.SIGHUP, overseer.reload)

    def done(ended: "asyncio.Task[None]") -> None:
        error = None if ended.cancelled() else ended.exception()
        if error is not None:
            failures.append(error)
        reactor.stop()

    task.add_done_callback(done)


def _on_signal(number: int, running: Running, log: LogSetup | None) -> None:
    """Stop gracefully at the first signal, at once at the second."""
    name = signal.Signals(number).name
    if running.stop_asked:
        logger.warning("A second signal (%s): ending at once", name)
        logging.shutdown()
        if log is not None:
            log.close()
        os._exit(128 + number)
    logger.info("%s: finishing what runs; a second signal ends at once", name)
    running.ask_to_stop()


async def serve(config: Config, ready: Callable[[list[Any]], object] | None = None) -> None:
    """Serve inside a running asyncio program until cancelled, then stop gracefully. It takes no signals and sets up no log.

    `ready` is called with the addresses listened at. Raises `TermserverError` where it cannot start.
    """
    reactor = None
    if any(isinstance(bind, Endpoint) for bind in config.bind):
        reactor = reactors.install(asyncio.get_running_loop())
        if not reactor.running:
            reactor.startRunning(installSignalHandlers=False)
    await Running(config, load(config), reactor).main(ready)
