"""termserver: an ASGI interface server.

`run(app, **options)` serves until a signal; `await serve(app, **options)` does inside a running asyncio program. The options are those of
the command line, with underscores for hyphens.
"""

from collections.abc import Callable
from typing import Any

from termserver.config import Config

__version__ = "0.1.0"
__all__ = ["Config", "__version__", "run", "serve"]


def run(app: str | Callable[..., object], **options: object) -> int:
    """Serve an application, or `"module:attribute"`, in this process until SIGTERM or SIGINT; give the exit code.

    Raises TypeError for an option that there is not, `ConfigError` for a value that cannot be used, other `TermserverError`s where it
    cannot start.
    """
    from termserver.sources import from_keywords

    config = from_keywords(app, **options)
    if config.workers.supervised:
        from termserver.process.supervisor import supervise
        from termserver.systemd import Notifier

        return supervise(config, lambda: config, Notifier())
    from termserver.net import runner

    return runner.run(config)


async def serve(app: str | Callable[..., object], *, ready: Callable[[list[Any]], object] | None = None, **options: object) -> None:
    """Serve inside a running asyncio program until cancelled, then stop gracefully. Raises as `run` does.

    `ready` is called once with the addresses listened at: `(host, port)` pairs, or the paths of Unix sockets.
    """
    from termserver.net import runner
    from termserver.sources import from_keywords

    await runner.serve(from_keywords(app, **options), ready)
