"""All ports of a server: bound when made, open, paused, closed."""

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactor, StringTransport

from certificates import Authority, Pair
from fakes import in_loop
from termserver.config import Bind, Config, Descriptor, Endpoint, Tcp, Tls, Unix
from termserver.errors import ConfigError, ListenError
from termserver.net.ports import Ports, connection_facts


class Hello(Protocol):
    """Says hello and closes."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello")
        self.transport.loseConnection()


def factory() -> Factory:
    made = Factory.forProtocol(Hello)
    made.noisy = False
    return made


def ports_of(*binds: Bind, reactor: object = None) -> Ports:
    return Ports(Config(bind=binds), reactor)


async def greeting(address: Any) -> bytes:
    opened: Awaitable[Any] = asyncio.open_unix_connection(address) if isinstance(address, str) else asyncio.open_connection(*address[:2])
    reader, writer = await opened
    try:
        return bytes(await reader.read())
    finally:
        writer.close()


def test_addresses_are_bound_before_they_are_open(tmp_path: Path) -> None:
    @in_loop
    async def main() -> None:
        path = str(tmp_path / "socket")
        ports = ports_of(Tcp("127.0.0.1", 0), Tcp("::1", 0), Unix(path))
        assert len(ports.addresses) == 3
        await ports.open(factory())
        for address in ports.addresses:
            assert await greeting(address) == b"hello"
        await ports.close()
        assert not Path(path).exists()

    main()


def test_descriptor_is_served_and_stays_open_for_who_gave_it() -> None:
    @in_loop
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as given:
            ports = ports_of(Descriptor(given.fileno()))
            await ports.open(factory())
            assert await greeting(given.getsockname()) == b"hello"
            await ports.close()
            os.fstat(given.fileno())

    main()


@pytest.mark.parametrize("bad", [Descriptor(10_000), Unix("/no/such/directory/socket"), Tcp("no-such-host.invalid", 0)])
def test_one_that_cannot_be_bound_leaves_none_behind(bad: Bind) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ListenError):
        ports_of(Tcp("127.0.0.1", 0), bad)
    assert len(os.listdir("/proc/self/fd")) == before


def test_unix_file_of_one_that_could_not_start_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with pytest.raises(ListenError):
        ports_of(Unix(str(path)), Descriptor(10_000))
    assert not path.exists()


def test_unix_file_of_a_successor_stays(tmp_path: Path) -> None:
    @in_loop
    async def main() -> None:
        path = tmp_path / "socket"
        ports = ports_of(Unix(str(path)))
        await ports.open(factory())
        path.rename(tmp_path / "moved")
        path.touch()
        await ports.close()
        assert path.exists()

    main()


def test_paused_ports_let_connections_wait(tmp_path: Path) -> None:
    @in_loop
    async def main() -> None:
        ports = ports_of(Tcp("127.0.0.1", 0), Unix(str(tmp_path / "socket")))
        await ports.open(factory())
        ports.resume()
        ports.pause()
        ports.pause()
        assert ports.paused
        waiting = [asyncio.ensure_future(greeting(address)) for address in ports.addresses]
        await asyncio.sleep(0.05)
        assert not any(each.done() for each in waiting)
        ports.resume()
        ports.resume()
        assert await asyncio.gather(*waiting) == [b"hello", b"hello"]
        await ports.close()

    main()


# --- over TLS ---


async def shown(address: Any, authority: Authority) -> str:
    """Give the certificate that a new connection gets."""
    reader, writer = await asyncio.open_connection(*address, ssl=authority.client(), server_hostname="ports.test")
    assert await reader.read() == b"hello"
    der: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return ssl.DER_cert_to_PEM_cert(der)


def test_with_a_certificate_tcp_ports_speak_tls_and_unix_sockets_do_not(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    @in_loop
    async def main() -> None:
        pair, path = authority.make("ports", "ports.test"), str(tmp_path / "socket")
        tls = Tls(certificates=(pair.certificate,), keys=(pair.key,))
        ports = Ports(Config(bind=(Tcp("127.0.0.1", 0), Unix(path)), tls=tls), None)
        await ports.open(factory())
        assert await shown(ports.addresses[0], authority) == pair.pem
        assert await greeting(path) == b"hello"
        ports.pause()
        waiting = asyncio.ensure_future(shown(ports.addresses[0], authority))
        ports.resume()
        assert await waiting == pair.pem
        await ports.close()

    caplog.set_level("INFO", "termserver")
    main()
    assert [record.getMessage().endswith(" (HTTPS)") for record in caplog.records] == [True, False]


def test_reload_takes_all_or_nothing(authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    @in_loop
    async def main() -> None:
        old, new = authority.make("ports-old", "ports.test"), authority.make("ports-new", "ports.test")
        certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"

        def put(certificate_of: Pair, key_of: Pair) -> None:
            certificate.write_bytes(Path(certificate_of.certificate).read_bytes())
            key.write_bytes(Path(key_of.key).read_bytes())

        put(old, old)
        ports = Ports(Config(bind=(Tcp("127.0.0.1", 0),), tls=Tls((str(certificate),), (str(key),))), None)
        await ports.open(factory())
        [address] = ports.addresses
        put(new, old)
        ports.reload()
        assert await shown(address, authority) == old.pem
        put(new, new)
        assert await shown(address, authority) == old.pem
        ports.reload()
        assert await shown(address, authority) == new.pem
        await ports.close()

    caplog.set_level("INFO", "termserver")
    main()
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR", "INFO"]


def test_reload_without_certificates_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "termserver")
    ports = ports_of(Tcp("127.0.0.1", 0))
    ports.reload()
    ports.let_go()
    assert [record.getMessage() for record in caplog.records] == ["There are no certificates to reload"]


def test_certificates_that_cannot_be_used_bind_nothing() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError, match=r"^tls\.certificates: cannot use /no/such\.pem"):
        Ports(Config(bind=(Tcp("127.0.0.1", 0),), tls=Tls(("/no/such.pem",))), None)
    assert len(os.listdir("/proc/self/fd")) == before


# --- Twisted's ---


def test_endpoint_strings_are_twisted_s_business() -> None:
    @in_loop
    async def main() -> None:
        reactor = MemoryReactor()
        ports = ports_of(Endpoint("tcp:8123:interface=127.0.0.1"), reactor=reactor)
        made = factory()
        await ports.open(made)
        assert [(server[0], server[1]) for server in reactor.tcpServers] == [(8123, made)]
        await ports.close()

    main()


@pytest.mark.parametrize("description", ["nonsense:1", "tcp:many", "ssl:0:privateKey=/no/such/file"])
def test_endpoint_string_that_cannot_be_used_is_said(description: str) -> None:
    @in_loop
    async def main() -> None:
        ports = ports_of(Endpoint(description), reactor=MemoryReactor())
        with pytest.raises(ListenError, match=f"cannot listen on '{description}': "):
            await ports.open(factory())
        await ports.close()

    main()


# --- what a connection says of itself ---


def facts(peer: object, host: object) -> tuple[object, object, object]:
    return connection_facts(StringTransport(hostAddress=host, peerAddress=peer))


@pytest.mark.parametrize(("peer", "host", "found"), [
    (IPv4Address("TCP", "10.0.0.1", 1), IPv4Address("TCP", "10.0.0.2", 80), ("http", ("10.0.0.1", 1), ("10.0.0.2", 80))),
    (UNIXAddress(None), UNIXAddress(b"/run/s\xff"), ("http", None, ("/run/s\udcff", None))),
    (UNIXAddress(None), UNIXAddress(None), ("http", None, None)),
])  # fmt: skip
def test_facts_are_as_asgi_wants_them(peer: object, host: object, found: object) -> None:
    assert facts(peer, host) == found
