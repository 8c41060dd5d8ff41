"""Who is let in, before anything else is done for a connection: PROXY headers (spec L19, F2), connections of an address (L43).

With PROXY headers every connection has to begin with one. Only trusted peers may send it, so all others are closed unread. It is read off
the socket, not a byte further, before TLS and before there is a transport: whatever comes next finds a fresh socket, and the addresses that
the header names in place of the socket's own. A connection counts for the address that it has then; a proxy that names none counts for
nobody.

Nothing here is done where neither is asked for.
"""

import asyncio
import logging
import socket
from ipaddress import ip_address, ip_network
from typing import Final, Self

from termserver.asgi.proxy import TrustedProxies
from termserver.config import Config
from termserver.observe.log import RateLimited
from termserver.wire.proxyprotocol import LONGEST, Endpoints, ProxyHeader, ProxyHeaderFault

logger = logging.getLogger("termserver")

_MAPPED: Final = bytes(10) + b"\xff\xff"  # how an IPv6 address begins that is an IPv4 one (RFC 4291 §2.5.5.2)
_NETWORK: Final = 8  # bytes of an IPv6 address that are one client's: a /64 is the least that a network gives out


class Gate:
    """What one server asks of new connections."""

    def __init__(self, config: Config) -> None:
        """Nobody is there yet."""
        self.demands_headers = config.proxy.protocol
        self._trusted = TrustedProxies(config.proxy.trusted, "", "")
        self._seconds = config.timeouts.proxy_header or None
        self._limit = config.limits.connections_per_address
        self._exempt = [ip_network(entry) for entry in config.limits.connections_exempt]
        self._counts: dict[bytes, int] = {}
        self._refusals = RateLimited(logger)
        self.refused = 0

    @classmethod
    def of(cls, config: Config) -> Self | None:
        """Give one, where there is anything to ask."""
        return cls(config) if config.proxy.protocol or config.limits.connections_per_address else None

    def knock(self, address: object) -> "Visitor | None":
        """Let a new connection in, or not: then it is closed without a word. `address`: the peer's, as the socket names it."""
        host = address[0] if isinstance(address, tuple) else None
        visitor = Visitor(self)
        if not self.demands_headers:
            return visitor if host is None or self._count(visitor, host) else None
        if self._trusted.trusts(host):
            return visitor
        self.refuse(
            "stranger", "a PROXY header is taken from trusted peers only (--forwarded-allow-ips), not from %s", host or "Unix sockets"
        )
        return None

    async def read_header(self, client: socket.socket) -> ProxyHeader | None:
        """Read a header off a socket; None where there is none to be had, and the log says why."""
        header = ProxyHeader()
        try:
            async with asyncio.timeout(self._seconds):
                if await _fill(header, client):
                    return header
        except TimeoutError:
            self.refuse("slow", "its PROXY header took too long")
        except ProxyHeaderFault as fault:
            self.refuse(str(fault), "a trusted peer sent %s", fault)
        except OSError:
            return None  # reset
        return None

    def introduce(self, visitor: "Visitor", endpoints: Endpoints) -> bool:
        """Take a visitor for whom its proxy says it is; answer whether it may stay."""
        visitor.peer, visitor.host = endpoints.source, endpoints.destination
        return self._count(visitor, endpoints.source[0])

    def _count(self, visitor: "Visitor", host: str) -> bool:
        """Count one more connection of an address, unless it has as many as it may."""
        if not self._limit or self._is_exempt(host):
            return True
        key = client_key(host)
        count = self._counts.get(key, 0)
        if count >= self._limit:
            self.refuse("address", "%s has %d already (--limit-connections-per-address)", host, count)
            return False
        self._counts[key] = count + 1
        visitor.key = key
        return True

    def _is_exempt(self, host: str) -> bool:
        if not self._exempt:
            return False
        address = ip_address(host.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._exempt)

    def discount(self, key: bytes) -> None:
        """One connection less: who has none is forgotten."""
        count = self._counts[key]
        if count == 1:
            del self._counts[key]
        else:
            self._counts[key] = count - 1

    def refuse(self, key: str, why: str, *values: object) -> None:
        """Count it, and log it now and then."""
        self.refused += 1
        self._refusals.log(logging.INFO, key, f"Refused a connection: {why}", *values)


class Visitor:
    """One connection that was let in. `peer` and `host` are the socket names that its proxy gave; None: the socket's own."""

    __slots__ = ("_gate", "host", "key", "peer")

    def __init__(self, gate: Gate) -> None:
        """It has not said who it is."""
        self._gate = gate
        self.key: bytes | None = None  # that it counts for
        self.peer: tuple[str, int] | None = None
        self.host: tuple[str, int] | None = None

    async def introduce(self, client: socket.socket) -> bool:
        """Have it say who it is, where that is asked for; answer whether it may stay."""
        if not self._gate.demands_headers:
            return True
        header = await self._gate.read_header(client)
        if header is None:
            return False
        return header.endpoints is None or self._gate.introduce(self, header.endpoints)

    def leave(self) -> None:
        """It is gone. It may be told so twice."""
        if self.key is not None:
            self._gate.discount(self.key)
            self.key = None


def client_key(host: str) -> bytes:
    """Give what counts as one client: an IPv4 address, an IPv6 network."""
    if ":" not in host:
        return socket.inet_aton(host)
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return packed[12:] if packed.startswith(_MAPPED) else packed[:_NETWORK]


async def _fill(header: ProxyHeader, client: socket.socket) -> bool:
    """Read off the socket what belongs to the header; False where the peer left first."""
    while not header.complete:
        await wait_readable(client)
        data = client.recv(LONGEST, socket.MSG_PEEK)
        if not data:
            return False
        client.recv(header.receive(data))
    return True


async def wait_readable(client: socket.socket) -> None:
    """Wait until there is something to read, or the end."""
    loop = asyncio.get_running_loop()
    readable = loop.create_future()

    def note() -> None:
        if not readable.done():  # it may have been cancelled in this very turn
            readable.set_result(None)

    loop.add_reader(client, note)
    try:
        await readable
    finally:
        loop.remove_reader(client)
