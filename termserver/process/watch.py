"""Source files that change, for development: `watchfiles` watches, in a thread; the supervisor reads what changed from a socket."""

import socket
import threading
from collections.abc import Sequence
from pathlib import Path

from termserver.errors import ConfigError


def watch(directories: Sequence[str]) -> socket.socket:
    """Give a socket that says which Python files changed, a line for each. Raises `ConfigError` where `watchfiles` is missing."""
    try:
        import watchfiles
    except ImportError:
        raise ConfigError("--reload needs the package watchfiles (pip install 'termserver[reload]')") from None
    for directory in directories:
        if not Path(directory).is_dir():
            raise ConfigError(f"--reload-dir: {directory} is no directory")
    ours, its = socket.socketpair()

    def tell() -> None:
        for changes in watchfiles.watch(*directories, watch_filter=watchfiles.PythonFilter(), raise_interrupt=False):
            names = sorted({str(Path(name)) for _, name in changes})
            its.sendall("".join(f"{name}\n" for name in names).encode(errors="replace")[:65_536])

    threading.Thread(target=tell, name="termserver-watch", daemon=True).start()
    return ours
