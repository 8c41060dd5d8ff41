"""What a trusted proxy says of the client: X-Forwarded-* and Forwarded (RFC 7239) -> scope.

Only a trusted peer is believed, and of the addresses it reports the right-most one that is not itself trusted: everything left of
it was written by strangers. Repeated fields are joined in order. An address that is none makes the whole field void (spec attacks F1).

Where both kinds arrive, X-Forwarded-For counts: a proxy that sets it seldom knows of the other, and would let a client's own
`Forwarded` through. `address_header = "Forwarded"` turns that round.
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from termserver.asgi.scope import SOCKET_SCHEMES, Scope
from termserver.wire.events import Fields

_SCHEMES: Final = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}
# One forwarded-pair and what ends it (RFC 7239 §4): token "=" ( token / quoted-string ). A node's brackets and colons come quoted, though
# not always.
_PAIR: Final = re.compile(rb"""[ \t]*([A-Za-z0-9!#$%&'*+.^_`|~-]+)=(?:"((?:[^"\\]|\\.)*)"|([^",; \t]*))[ \t]*(;|,|$)""")
# RFC 7239 §6: an address, and a port, which may be obfuscated; IPv6 with a port stands in brackets. Bare IPv6 is X-Forwarded-For's.
_NODE: Final = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::([0-9]{1,5}|_[A-Za-z0-9._-]+))?|([0-9A-Fa-f:.]+)")
_LARGEST_PORT: Final = 65_535
_PORT_DIGITS: Final = 5
_MOST_NODES: Final = 32  # looked at, from the right: what is left of so many proxies was written by strangers

Address = IPv4Address | IPv6Address


class TrustedProxies:
    """Whose word is taken, and which fields it is read from."""

    def __init__(self, trusted: tuple[str, ...], address_header: str, port_header: str) -> None:
        """`trusted`: addresses, networks in CIDR form, `unix`, `*`."""
        self._everybody = "*" in trusted
        self._unix = self._everybody or "unix" in trusted
        self._networks: list[IPv4Network | IPv6Network] = [
            ip_network(entry, strict=False) for entry in trusted if entry not in {"*", "unix"}
        ]
        self._address_header = address_header.lower().encode()
        self._port_header = port_header.lower().encode()
        self._known: dict[str, bool] = {}

    def apply(self, scope: Scope) -> None:
        """Put the client's address and the scheme into a scope, if the peer may say so."""
        client = scope["client"]
        if not self.trusts(None if client is None else client[0]):
            return
        headers: Fields = scope["headers"]
        if self._address_header == b"forwarded" or not _has(headers, self._address_header):
            self._apply_forwarded(scope, headers)
        else:
            self._apply_x_forwarded(scope, headers)
        proto = _joined(headers, b"x-forwarded-proto").rpartition(b",")[2].strip().lower()
        if proto in _SCHEMES and self._address_header != b"forwarded":
            _set_scheme(scope, _SCHEMES[proto])

    def _apply_x_forwarded(self, scope: Scope, headers: Fields) -> None:
        parts = _joined(headers, self._address_header).rsplit(b",", _MOST_NODES)[-_MOST_NODES:]
        nodes = [_parse_node(part.strip(b" \t")) for part in parts]
        chosen = self._right_most(nodes)
        if chosen is None:
            return
        address, port = chosen
        port_text = _joined(headers, self._port_header).rpartition(b",")[2].strip(b" \t")
        if not port and port_text.isdigit() and len(port_text) <= _PORT_DIGITS and int(port_text) <= _LARGEST_PORT:
            port = int(port_text)
        scope["client"] = (str(address), port)

    def _apply_forwarded(self, scope: Scope, headers: Fields) -> None:
        elements = _parse_forwarded(_joined(headers, b"forwarded"))
        if not elements:
            return
        nodes = [_parse_node(element.get(b"for", b"")) for element in elements[-_MOST_NODES:]]
        chosen = self._right_most(nodes)
        if chosen is not None:
            address, port = chosen
            scope["client"] = (str(address), port)
        scheme = _SCHEMES.get(elements[-1].get(b"proto", b"").lower())
        if scheme is not None:
            _set_scheme(scope, scheme)

    def _right_most(self, nodes: list[tuple[Address, int] | None]) -> tuple[Address, int] | None:
        """Choose the last address that is not trusted; the first one where all are. None if one of them is no address."""
        if None in nodes:
            return None
        valid = [node for node in nodes if node is not None]
        for node in reversed(valid):
            if not self._trusts(node[0]):
                return node
        return valid[0] if valid else None

    def trusts(self, host: str | None) -> bool:
        """Whether a peer is believed; None: one on a Unix socket."""
        if host is None:
            return self._unix
        known = self._known.get(host)
        if known is None:
            if len(self._known) >= 1_024:  # noqa: PLR2004 - any bound will do
                self._known.clear()
            known = self._known[host] = self._everybody or self._trusts(ip_address(host.partition("%")[0]))
        return known

    def _trusts(self, address: Address) -> bool:
        """Whether an address is a proxy's. With `*` the peer is believed, but not every address it names is a proxy."""
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        if mapped is not None:
            address = mapped
        return any(address in network for network in self._networks)


def _set_scheme(scope: Scope, scheme: str) -> None:
    scope["scheme"] = SOCKET_SCHEMES[scheme] if scope["type"] == "websocket" else scheme


def _has(headers: Fields, name: bytes) -> bool:
    return any(field == name for field, _ in headers)


def _joined(headers: Fields, name: bytes) -> bytes:
    return b",".join(value for field, value in headers if field == name)


def _parse_node(node: bytes) -> tuple[Address, int] | None:
    """Read `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`; None for anything else (`unknown`, `_hidden`, nonsense)."""
    match = _NODE.fullmatch(node)
    if match is None:
        return None
    bracketed, version_4, port_text, bare = match.groups()
    port = int(port_text) if port_text and port_text.isdigit() else 0
    try:
        return ip_address((bracketed or version_4 or bare).decode()), port if port <= _LARGEST_PORT else 0
    except ValueError:
        return None


def _parse_forwarded(value: bytes) -> list[dict[bytes, bytes]]:
    """Read the elements of a Forwarded field; an empty list where one of them is malformed."""
    elements: list[dict[bytes, bytes]] = [{}]
    position = 0
    while position < len(value):
        match = _PAIR.match(value, position)
        if match is None:
            return []
        name, quoted, token, end = match.groups()
        elements[-1][name.lower()] = re.sub(rb"\\(.)", rb"\1", quoted) if quoted is not None else token
        if end == b",":
            elements.append({})
        position = match.end()
    return elements if all(elements) else []
