"""termserver speaking HTTPS as a process, and clients made of nothing but a TLS socket."""

import os
import ssl
from collections.abc import Sequence
from typing import Any

from certificates import Authority, Pair
from e2e.server import Answer, Client, Server

NAME = "server.test"


class TlsServer(Server):
    """`with TlsServer(authority, [pair], "apps:app", …options) as server:` its connections are TLS ones."""

    def __init__(self, authority: Authority, pairs: Sequence[Pair], application: str = "apps:app", *options: str, **more: Any) -> None:
        """Start it with these certificates."""
        files = [word for pair in pairs for word in ("--ssl-certfile", pair.certificate, "--ssl-keyfile", pair.key)]
        self.context = authority.client()
        super().__init__(application, *files, *options, **more)

    def connect(self, *, context: ssl.SSLContext | None = None, name: str = NAME, **options: Any) -> "TlsClient":
        """Open a connection."""
        return TlsClient((self.host, self.port), context or self.context, name, **options)

    def plain(self, **options: Any) -> Client:
        """Open a connection without TLS."""
        return super().connect(**options)

    def tls(self, path: str = "/tls", **options: Any) -> Any:
        """Give what the application was told of a new connection."""
        with self.connect(**options) as client:
            client.get(path, "Connection: close")
            return client.rest().only.json()

    def log_has_no_traceback(self) -> bool:
        """Whether nothing went wrong that nobody foresaw."""
        return "Traceback" not in self.log and "Exception" not in self.log


class TlsClient(Client):
    """One connection. An end without a close alert is one that was cut."""

    def __init__(self, address: Any, context: ssl.SSLContext, name: str, **options: Any) -> None:
        """Connect and shake hands."""
        super().__init__(address, **options)
        try:
            self.socket = self.tls = context.wrap_socket(self.socket, server_hostname=name, suppress_ragged_eofs=False)
        except OSError:
            self.socket.close()
            raise

    def rest(self, heads: tuple[int, ...] = ()) -> Answer:
        """Read to the end."""
        parts, reset = [self._came], False
        try:
            while data := self.socket.recv(262_144):
                parts.append(data)
        except (ConnectionResetError, ssl.SSLEOFError):
            reset = True
        return Answer(b"".join(parts), reset, heads)


class Halves:
    """A TLS client in memory: what it would send is given in pieces."""

    def __init__(self, context: ssl.SSLContext) -> None:
        """Begin."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._side = context.wrap_bio(self._incoming, self._outgoing, server_hostname=NAME)

    def step(self, came: bytes = b"") -> bytes:
        """Take what came; give what is to be sent."""
        if came:
            self._incoming.write(came)
        try:
            self._side.do_handshake()
        except ssl.SSLWantReadError:
            pass
        else:
            self._side.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        return self._outgoing.read()


def open_files(pid: int) -> int:
    """Count a process's descriptors."""
    return len(os.listdir(f"/proc/{pid}/fd"))
