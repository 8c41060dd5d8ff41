"""The PROXY protocol, versions 1 and 2, the side that is sent it (HAProxy's proxy-protocol.txt). No I/O.

A proxy that passes bytes on puts one header ahead of them: who connected to it, and where. `ProxyHeader.receive` is shown bytes, takes
those that belong to the header, and says how many that were: what follows is the connection's own, and is never held here. A header comes
in any number of pieces and is given up at the first byte that shows it to be none.

Whoever forwards no address (LOCAL, a proxy's own look whether we are there; UNKNOWN; a Unix socket's) has none put in its place. Datagrams,
which no stream can carry, are refused. Of the fields at the end of version 2 (TLVs) only the length is looked at: TLS facts, host name and
checksum are nothing that we pass on.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

LONGEST: Final = 536  # bytes: §2.2's advice for one segment, TLVs included (spec limits L19)
_LONGEST_LINE: Final = 107  # §2.1
_LINE_BEGINS: Final = b"PROXY "
_LINE: Final = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?|(TCP4|TCP6) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4}))\r\n"
)
_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"  # §2.2
_FIXED: Final = 16  # bytes of version 2 ahead of the addresses
_TLV_HEAD: Final = 3
_LOCAL, _PROXY = 0, 1
_UNSPECIFIED: Final = 0x00
_ADDRESS_BYTES: Final = {0x11: 12, 0x21: 36, 0x31: 216}  # stream sockets: IPv4, IPv6, Unix
_DATAGRAMS: Final = frozenset({0x12, 0x22, 0x32})
_LARGEST_PORT: Final = 65_535


class ProxyHeaderFault(Exception):
    """What came is no header of the PROXY protocol, or one that is not taken. Says why."""


@dataclass(slots=True)
class Endpoints:
    """Who connected to the proxy, and where."""

    source: tuple[str, int]
    destination: tuple[str, int]


class ProxyHeader:
    """One header. Once it is `complete`, `endpoints` is what it says; None where it names no addresses."""

    __slots__ = ("_held", "complete", "endpoints")

    def __init__(self) -> None:
        """Nothing has come."""
        self._held = b""
        self.complete = False
        self.endpoints: Endpoints | None = None

    def receive(self, data: bytes) -> int:
        """Take what belongs to the header, and give how many bytes that was. Raises `ProxyHeaderFault`."""
        if self.complete:
            return 0
        before = len(self._held)
        held = self._held + data[: LONGEST - before]
        second = held[:1] == _SIGNATURE[:1]
        size = _block_size(held) if second else _line_size(held)
        if not size:
            self._held = held
            return len(held) - before
        self.endpoints = _read_block(held[:size]) if second else _read_line(held[:size])
        self._held = b""
        self.complete = True
        return size - before


def _line_size(held: bytes) -> int:
    """Bytes of version 1's line; 0 while it is not there whole."""
    if held[: len(_LINE_BEGINS)] != _LINE_BEGINS[: len(held)]:
        raise ProxyHeaderFault("no PROXY header")
    size = held.find(b"\n", 0, _LONGEST_LINE) + 1
    if not size and len(held) >= _LONGEST_LINE:
        raise ProxyHeaderFault(f"a PROXY line of more than {_LONGEST_LINE} bytes")
    return size


def _block_size(held: bytes) -> int:
    """Bytes of version 2's block; 0 while it is not there whole."""
    if held[: len(_SIGNATURE)] != _SIGNATURE[: len(held)]:
        raise ProxyHeaderFault("no PROXY header")
    if len(held) < _FIXED:
        return 0
    size = _FIXED + int.from_bytes(held[14:_FIXED], "big")
    if size > LONGEST:
        raise ProxyHeaderFault(f"a PROXY header of more than {LONGEST} bytes")
    return size if len(held) >= size else 0


def _read_line(line: bytes) -> Endpoints | None:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ProxyHeaderFault("a malformed PROXY line")
    family, source, destination, source_port, destination_port = match.groups()
    if family is None:
        return None
    kind = IPv4Address if family == b"TCP4" else IPv6Address
    ports = int(source_port), int(destination_port)
    if max(ports) > _LARGEST_PORT:
        raise ProxyHeaderFault("a malformed PROXY line")
    try:
        addresses = kind(source.decode("ascii")), kind(destination.decode("ascii"))
    except ValueError:
        raise ProxyHeaderFault("a malformed PROXY line") from None
    return Endpoints((_text(addresses[0]), ports[0]), (_text(addresses[1]), ports[1]))


def _read_block(block: bytes) -> Endpoints | None:
    version, command = block[12] >> 4, block[12] & 0xF
    if version != 2 or command not in {_LOCAL, _PROXY}:  # noqa: PLR2004 - it is called so
        raise ProxyHeaderFault("a PROXY header of an unknown version or command")
    kind = block[13]
    if command == _LOCAL or kind == _UNSPECIFIED:  # §2.2: whatever else it holds is passed over
        return None
    if kind in _DATAGRAMS:
        raise ProxyHeaderFault("a PROXY header for datagrams")
    size = _ADDRESS_BYTES.get(kind)
    if size is None:
        raise ProxyHeaderFault("a PROXY header of an unknown address family")
    if len(block) < _FIXED + size:
        raise ProxyHeaderFault("a PROXY header too short for its addresses")
    _check_tlvs(block, _FIXED + size)
    return _read_addresses(block[_FIXED : _FIXED + size])


def _read_addresses(data: bytes) -> Endpoints | None:
    """Read two addresses and two ports, in network byte order; a Unix socket's paths name nobody."""
    if len(data) == _ADDRESS_BYTES[0x31]:
        return None
    kind, width = (IPv4Address, 4) if len(data) == _ADDRESS_BYTES[0x11] else (IPv6Address, 16)
    ports = 2 * width
    return Endpoints(
        (_text(kind(data[:width])), int.from_bytes(data[ports : ports + 2], "big")),
        (_text(kind(data[width:ports])), int.from_bytes(data[ports + 2 :], "big")),
    )


def _text(address: IPv4Address | IPv6Address) -> str:
    """Write an address; an IPv4 one that came in an IPv6 field (HAProxy does so when the two families meet) as what it is."""
    return str((address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address)


def _check_tlvs(block: bytes, at: int) -> None:
    """Step over the fields at the end: each says its length, and the last one ends where the header does."""
    while at < len(block):
        if len(block) - at < _TLV_HEAD:
            raise ProxyHeaderFault("a PROXY header whose fields do not fill it")
        at += _TLV_HEAD + int.from_bytes(block[at + 1 : at + _TLV_HEAD], "big")
    if at > len(block):
        raise ProxyHeaderFault("a PROXY header whose fields do not fill it")
