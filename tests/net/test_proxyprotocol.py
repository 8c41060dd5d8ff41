"""PROXY headers ahead of connections, on both loops and over real sockets: whose are taken, and what comes of them (spec L19, F2)."""

import asyncio
import contextlib
import logging
import socket
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.protocol import Factory, Protocol

from certificates import Authority, Pair
from net.gated import BLOCK, LINE, LOCAL, SIGNATURE, TRUSTING, Run, Serving, end_of, line_of, lines, run_on, secured, tls_of, until
from termserver.config import Config, Limits, Proxy, Tcp, Timeouts, Tls, Unix
from termserver.net.endpoints import LoopPort
from termserver.net.gate import Gate
from termserver.net.ports import Ports
from termserver.net.reactor import new_event_loop
from termserver.wire.events import Rejected
from termserver.wire.head import HeadParser
from termserver.wire.http1 import DefaultFields, Http1

WITH_TLV = SIGNATURE + b"\x21\x11\0\x14" + BLOCK[16:] + b"\x02\0\x05a.net"
IPV6_LINE = b"PROXY TCP6 2001:db8::7 2001:db8::9 40000 443\r\n"
UNKNOWN = b"PROXY UNKNOWN\r\n"
UNIX = SIGNATURE + b"\x21\x31\0\xd8" + bytes(216)
NAMED = "('192.0.2.7', 40000) ('198.51.100.9', 443)"


@pytest.fixture(params=[new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    return run_on(request.param)


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.make("proxied", "proxied.test")


# --- what a header says ---


@pytest.mark.parametrize("header", [LINE, BLOCK, WITH_TLV], ids=["v1", "v2", "v2 with a TLV"])
def test_connection_is_whose_the_header_says(run: Run, header: bytes) -> None:
    async def main() -> None:
        async with Serving(Config(proxy=TRUSTING)) as served:
            assert await served.told(header, b"hello\n") == f"http {NAMED} b'hello\\n'"
            assert await served.told(header + b"hello\n") == f"http {NAMED} b'hello\\n'"
            assert await served.told(*(header[at : at + 1] for at in range(len(header))), b"hello\n") == f"http {NAMED} b'hello\\n'"
            assert served.addresses_seen == [IPv4Address("TCP", "192.0.2.7", 40_000)] * 3
            assert served.ports.refused == 0

    run(main())


@pytest.mark.parametrize("header", [LINE, BLOCK], ids=["v1", "v2"])
def test_bytes_after_a_header_are_the_connection_s_own_even_another_header(run: Run, header: bytes) -> None:
    async def main() -> None:
        async with Serving(Config(proxy=TRUSTING)) as served:
            assert await served.told(header + LINE) == f"http {NAMED} {LINE!r}"
            client = await served.connect(header + b"one\n")
            assert (await line_of(client)).endswith(" b'one\\n'")
            await asyncio.get_running_loop().sock_sendall(client, LINE)
            assert await line_of(client) == f"http {NAMED} {LINE!r}"

    run(main())


def test_ipv6_addresses_over_an_ipv4_connection(run: Run) -> None:
    async def main() -> None:
        async with Serving(Config(proxy=TRUSTING)) as served:
            assert await served.told(IPV6_LINE + b"x\n") == "http ('2001:db8::7', 40000) ('2001:db8::9', 443) b'x\\n'"

    run(main())


@pytest.mark.parametrize("header", [LOCAL, UNKNOWN, UNIX], ids=["LOCAL", "UNKNOWN", "Unix"])
def test_header_that_names_nobody_leaves_the_socket_s_own_addresses(run: Run, header: bytes) -> None:
    async def main() -> None:
        async with Serving(Config(proxy=TRUSTING)) as served:
            client = await served.connect(header + b"x\n")
            assert await line_of(client) == f"http {client.getsockname()} {client.getpeername()} b'x\\n'"

    run(main())


def test_headers_over_a_unix_socket(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "socket")
        async with Serving(Config(proxy=TRUSTING), Unix(path)) as served:
            assert await served.told(LINE + b"x\n") == f"http {NAMED} b'x\\n'"
            assert await served.told(LOCAL + b"x\n") == f"http None ('{path}', None) b'x\\n'"
            assert served.addresses_seen == [IPv4Address("TCP", "192.0.2.7", 40_000), UNIXAddress(None)]

    run(main())


# --- before TLS ---


@pytest.mark.parametrize("header", [LINE, BLOCK], ids=["v1", "v2"])
def test_header_comes_before_tls(run: Run, authority: Authority, pair: Pair, header: bytes) -> None:
    async def main() -> None:
        async with Serving(Config(proxy=TRUSTING, tls=tls_of(pair))) as served:
            client = await served.connect(header)
            reader, writer = await secured(client, authority)
            writer.write(b"hello\n")
            assert await reader.readline() == f"https {NAMED} b'hello\\n'\n".encode()
            writer.transport.abort()

    run(main())


def test_header_and_client_hello_may_come_in_one_segment(run: Run, authority: Authority, pair: Pair) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with Serving(Config(proxy=TRUSTING, tls=tls_of(pair))) as served:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            side = authority.client().wrap_bio(incoming, outgoing, server_hostname="proxied.test")
            with pytest.raises(ssl.SSLWantReadError):
                side.do_handshake()
            client = await served.connect(BLOCK + outgoing.read())
            while True:
                incoming.write(await loop.sock_recv(client, 65_536))
                try:
                    side.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    if outgoing.pending:
                        await loop.sock_sendall(client, outgoing.read())
            side.write(b"x\n")
            await loop.sock_sendall(client, outgoing.read())
            told = b""
            while not told.endswith(b"\n"):
                incoming.write(await loop.sock_recv(client, 65_536))
                with contextlib.suppress(ssl.SSLWantReadError):
                    told += side.read()
            assert told == f"https {NAMED} b'x\\n'\n".encode()

    run(main())


def test_plain_http_after_a_header_on_a_port_that_speaks_https_is_told_so(run: Run, pair: Pair) -> None:
    async def main() -> None:
        async with Serving(Config(proxy=TRUSTING, tls=tls_of(pair))) as served:
            assert (await end_of(await served.connect(LINE + b"GET / HTTP/1.1\r\n\r\n"))).startswith(b"HTTP/1.1 400 ")

    run(main())


# --- F2: who may send one, and who has to ---


@pytest.mark.parametrize("data", [LINE + b"x\n", BLOCK + b"x\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b""])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_f2_stranger_is_closed_without_a_reply(run: Run, pair: Pair, caplog: pytest.LogCaptureFixture, data: bytes, secure: bool) -> None:
    async def main() -> None:
        config = Config(proxy=Proxy(protocol=True, trusted=("10.0.0.0/8", "unix")), tls=tls_of(pair) if secure else Tls())
        async with Serving(config) as served:
            for _ in range(3):
                assert await end_of(await served.connect(data)) == b""
            assert served.addresses_seen == []
            assert served.ports.refused == 3

    caplog.set_level(logging.INFO, "termserver")
    run(main())
    assert lines(caplog) == [
        "Refused a connection: a PROXY header is taken from trusted peers only (--forwarded-allow-ips), not from 127.0.0.1"
    ]


def test_f2_peer_on_a_unix_socket_is_a_stranger_unless_asked_for(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with Serving(Config(proxy=Proxy(protocol=True, trusted=("127.0.0.1",))), Unix(str(tmp_path / "socket"))) as served:
            assert await end_of(await served.connect(LINE + b"x\n")) == b""
            assert served.addresses_seen == []

    caplog.set_level(logging.INFO, "termserver")
    run(main())
    assert [each.endswith("not from Unix sockets") for each in lines(caplog)] == [True]


@pytest.mark.parametrize("trusted", ["127.0.0.2", "127.0.0.0/30", "*"])
def test_f2_trust_is_by_the_address_of_the_connection(run: Run, trusted: str) -> None:
    async def main() -> None:
        async with Serving(Config(proxy=Proxy(protocol=True, trusted=(trusted,)))) as served:
            assert await served.told(LINE + b"x\n", source="127.0.0.2") == f"http {NAMED} b'x\\n'"
            if trusted == "127.0.0.2":
                assert await end_of(await served.connect(LINE + b"x\n", source="127.0.0.3")) == b""

    run(main())


@pytest.mark.parametrize(("data", "reason"), [
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "no PROXY header", id="a request"),
    pytest.param(b"\x16\x03\x01\x02\0", "no PROXY header", id="a ClientHello"),
    pytest.param(b"PROXY TCP4 192.0.2.7\r\n", "a malformed PROXY line", id="malformed"),
    pytest.param(b"PROXY " + b"x" * 102, "a PROXY line of more than 107 bytes", id="line too long"),
    pytest.param(SIGNATURE + b"\x21\x11\xff\xff", "a PROXY header of more than 536 bytes", id="block too long"),
    pytest.param(SIGNATURE + b"\x21\x12\0\x0c" + bytes(12), "a PROXY header for datagrams", id="UDP"),
])  # fmt: skip
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_f2_trusted_peer_has_to_send_a_good_one(
    run: Run, pair: Pair, caplog: pytest.LogCaptureFixture, data: bytes, reason: str, secure: bool
) -> None:
    async def main() -> None:
        async with Serving(Config(proxy=TRUSTING, tls=tls_of(pair) if secure else Tls())) as served:
            assert await end_of(await served.connect(data)) == b""
            assert served.addresses_seen == []
            assert served.ports.refused == 1

    caplog.set_level(logging.INFO, "termserver")
    run(main())
    assert lines(caplog) == [f"Refused a connection: a trusted peer sent {reason}"]


@pytest.mark.parametrize("data", [b"", LINE[:-1], BLOCK[:20]])
def test_l19_header_has_its_time(run: Run, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    async def main() -> None:
        async with Serving(Config(proxy=TRUSTING, timeouts=Timeouts(proxy_header=0.05))) as served:
            assert await end_of(await served.connect(data)) == b""
            assert served.addresses_seen == []

    caplog.set_level(logging.INFO, "termserver")
    run(main())
    assert lines(caplog) == ["Refused a connection: its PROXY header took too long"]


def test_l19_five_seconds_unless_turned_off() -> None:
    assert Gate(Config(proxy=TRUSTING))._seconds == 5
    assert Gate(Config(proxy=TRUSTING, timeouts=Timeouts(proxy_header=0)))._seconds is None


@pytest.mark.parametrize("data", [b"", LINE[:10]])
def test_proxy_that_only_looks_whether_the_port_is_open_is_not_worth_a_line(
    run: Run, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    async def main() -> None:
        async with Serving(Config(proxy=TRUSTING)) as served:
            client = await served.connect(data)
            client.shutdown(socket.SHUT_WR)
            assert await end_of(client) == b""
            for _ in range(20):
                client = await served.connect(data)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.close()
            assert await served.told(LINE + b"x\n") == f"http {NAMED} b'x\\n'"
            port: Any = served.ports._loop_ports[0]
            await until(lambda: not port._handshakes, "everybody to be gone")

    caplog.set_level(logging.INFO, "termserver")
    run(main())
    assert lines(caplog) == []


def test_header_that_does_not_come_keeps_nobody_else_waiting(run: Run) -> None:
    async def main() -> None:
        async with Serving(Config(proxy=TRUSTING)) as served:
            waiting = [await served.connect(LINE[:5]) for _ in range(100)]
            assert await served.told(LINE + b"x\n") == f"http {NAMED} b'x\\n'"
            for client in waiting:
                await asyncio.get_running_loop().sock_sendall(client, LINE[5:] + b"y\n")
            assert {await line_of(client) for client in waiting} == {f"http {NAMED} b'y\\n'"}

    run(main())


# --- off ---


@pytest.mark.parametrize("config", [Config(), Config(proxy=Proxy(headers=True)), Config(limits=Limits(connections=5))])
def test_without_it_ports_are_the_loop_s_own(run: Run, config: Config) -> None:
    async def main() -> None:
        ports = Ports(replace(config, bind=(Tcp("127.0.0.1", 0),)), None)
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        await ports.open(factory)
        assert [type(port) for port in ports._loop_ports] == [LoopPort]
        assert (ports._gate, ports.refused) == (None, 0)
        await ports.close()

    run(main())


def test_f2_off_a_header_is_a_bad_request(run: Run) -> None:
    for header in (LINE, BLOCK):
        engine = Http1(HeadParser(Limits()), Limits(), DefaultFields(b"x"))
        [event] = engine.receive(header + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert isinstance(event, Rejected)
