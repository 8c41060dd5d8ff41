"""How many connections an address may have open (spec limits L43), on both loops and over real sockets."""

import asyncio
import errno
import logging
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from certificates import Authority, Pair
from net.gated import LINE, LOCAL, SIGNATURE, TRUSTING, Run, Serving, end_of, line_of, lines, run_on, secured, tls_of, until
from termserver.config import Config, Limits, Tcp, Timeouts, Tls, Unix
from termserver.net.gate import Gate, client_key
from termserver.net.reactor import new_event_loop

TWO = Limits(connections_per_address=2)


@pytest.fixture(params=[new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    return run_on(request.param)


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.make("gated", "proxied.test")


async def settled(client: socket.socket) -> None:
    """See that a connection is served."""
    await asyncio.get_running_loop().sock_sendall(client, b"x\n")
    assert (await line_of(client)).endswith(" b'x\\n'")


def from_(address: str) -> bytes:
    family = 6 if ":" in address else 4
    return f"PROXY TCP{family} {address} {address} 1 2\r\n".encode()


# --- whose a connection is ---


@pytest.mark.parametrize(("one", "other", "same"), [
    ("192.0.2.1", "192.0.2.1", True),
    ("192.0.2.1", "192.0.2.2", False),
    ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
    ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
    ("::ffff:192.0.2.1", "192.0.2.1", True),
    ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
    ("::1", "::2", True),
    ("fe80::1%lo", "fe80::2", True),
])  # fmt: skip
def test_l43_one_client_is_an_ipv4_address_or_an_ipv6_network(one: str, other: str, same: bool) -> None:
    assert (client_key(one) == client_key(other)) is same


def test_nothing_is_asked_unless_something_is_to_be() -> None:
    assert Gate.of(Config()) is None
    assert isinstance(Gate.of(Config(limits=TWO)), Gate)
    assert isinstance(Gate.of(Config(proxy=TRUSTING)), Gate)


# --- plain ---


def test_l43_the_limit_passes_and_one_more_is_closed(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with Serving(Config(limits=TWO)) as served:
            for client in (first := await served.connect(), await served.connect()):
                await settled(client)
            for _ in range(3):
                assert await end_of(await served.connect(b"x\n")) == b""
            assert served.ports.refused == 3
            await settled(await served.connect(source="127.0.0.2"))
            await settled(first)
            first.close()
            await until(lambda: served.gate._counts[client_key("127.0.0.1")] == 1, "the first to be gone")
            await settled(await served.connect())
            assert await end_of(await served.connect(b"x\n")) == b""

    caplog.set_level(logging.INFO, "termserver")
    run(main())
    assert lines(caplog) == ["Refused a connection: 127.0.0.1 has 2 already (--limit-connections-per-address)"]


def test_l43_whoever_resets_or_half_closes_is_counted_no_longer(run: Run) -> None:
    async def main() -> None:
        async with Serving(Config(limits=TWO)) as served:
            for round_ in range(10):
                clients = [await served.connect(), await served.connect()]
                for client in clients:
                    await settled(client)
                    if round_ % 2:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        client.close()
                    else:
                        client.shutdown(socket.SHUT_WR)
                        assert await end_of(client) == b""
                await until(lambda: not served.gate._counts, "both to be gone")
            assert served.ports.refused == 0

    run(main())


def test_l43_ipv6_clients(run: Run) -> None:
    async def main() -> None:
        async with Serving(Config(limits=TWO), Tcp("::1", 0)) as served:
            for _ in range(2):
                await settled(await served.connect())
            assert await end_of(await served.connect()) == b""

    run(main())


def test_l43_unix_sockets_are_never_counted(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with Serving(Config(limits=TWO), Unix(str(tmp_path / "socket"))) as served:
            for _ in range(5):
                await settled(await served.connect())
            assert not served.gate._counts

    run(main())


@pytest.mark.parametrize(("exempt", "host", "served_all"), [
    (("127.0.0.1",), "127.0.0.1", True),
    (("10.0.0.0/8", "127.0.0.0/30"), "127.0.0.1", True),
    (("127.0.0.2/32", "::1"), "127.0.0.1", False),
    (("::1",), "::1", True),
    (("::/64",), "::1", True),
    (("127.0.0.0/8", "2001:db8::/32"), "::1", False),
])  # fmt: skip
def test_l43_exempt_networks(run: Run, exempt: tuple[str, ...], host: str, served_all: bool) -> None:
    async def main() -> None:
        async with Serving(Config(limits=Limits(connections_per_address=1, connections_exempt=exempt)), Tcp(host, 0)) as served:
            await settled(await served.connect())
            client = await served.connect()
            if served_all:
                await settled(client)
                assert not served.gate._counts
            else:
                assert await end_of(client) == b""

    run(main())


def test_l43_an_ipv4_network_exempts_its_addresses_seen_by_an_ipv6_socket() -> None:
    gate = Gate(Config(limits=Limits(connections_per_address=1, connections_exempt=("192.0.2.0/24",))))
    assert all(gate.knock((host, 1, 0, 0)) for host in ["::ffff:192.0.2.1"] * 3)
    assert [gate.knock((host, 1, 0, 0)) is not None for host in ["::ffff:198.51.100.1", "198.51.100.1"]] == [True, False]


def test_whoever_leaves_twice_is_discounted_once() -> None:
    gate = Gate(Config(limits=TWO))
    one, two = gate.knock(("192.0.2.1", 1)), gate.knock(("192.0.2.1", 2))
    assert one is not None
    assert two is not None
    one.leave()
    one.leave()
    assert gate._counts == {client_key("192.0.2.1"): 1}
    two.leave()
    assert gate._counts == {}


# --- TLS ---


def test_l43_closed_before_tls(run: Run, authority: Authority, pair: Pair) -> None:
    async def main() -> None:
        async with Serving(Config(limits=TWO, tls=tls_of(pair))) as served:
            open_ = [await secured(await served.connect(), authority) for _ in range(2)]
            assert await end_of(await served.connect()) == b""  # it need not say anything for that
            open_[0][1].transport.abort()
            await until(lambda: served.gate._counts[client_key("127.0.0.1")] == 1, "the first to be gone")
            _, again = await secured(await served.connect(), authority)
            for writer in (open_[1][1], again):
                writer.transport.abort()

    run(main())


@pytest.mark.parametrize("data", [b"", b"\x16\x03\x01\x02\x00"], ids=["silent", "half a ClientHello"])
def test_l43_handshakes_count_as_long_as_they_go_on(run: Run, pair: Pair, data: bytes) -> None:
    async def main() -> None:
        async with Serving(Config(limits=TWO, tls=tls_of(pair))) as served:
            waiting = [await served.connect(data) for _ in range(2)]
            await until(lambda: sum(served.gate._counts.values()) == 2, "both to be counted")
            assert await end_of(await served.connect(data)) == b""
            waiting[0].close()
            await until(lambda: sum(served.gate._counts.values()) == 1, "one to be gone")

    run(main())


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\x16\x03"], ids=["plain", "nonsense", "stalled"]
)
def test_l43_handshakes_that_fail_count_no_longer(run: Run, pair: Pair, data: bytes) -> None:
    async def main() -> None:
        async with Serving(Config(limits=TWO, tls=tls_of(pair), timeouts=Timeouts(tls_handshake=0.1))) as served:
            for _ in range(6):
                await end_of(await served.connect(data))
                await until(lambda: not served.gate._counts, "it to be gone")
            assert served.ports.refused == 0

    run(main())


def test_l43_closing_the_port_forgets_handshakes(run: Run, pair: Pair) -> None:
    async def main() -> None:
        served = Serving(Config(limits=TWO, tls=tls_of(pair)))
        async with served:
            await served.connect()
            await until(lambda: served.gate._counts, "it to be counted")
            await served.ports.close()
            await until(lambda: not served.gate._counts, "it to be gone")

    run(main())


# --- behind a proxy that speaks the PROXY protocol ---


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_l43_the_address_that_the_header_names_counts(run: Run, authority: Authority, pair: Pair, secure: bool) -> None:
    async def main() -> None:
        async with Serving(Config(limits=TWO, proxy=TRUSTING, tls=tls_of(pair) if secure else Tls())) as served:

            async def served_well(header: bytes) -> None:
                client = await served.connect(header)
                if secure:
                    _, writer = await secured(client, authority)
                    writers.append(writer)
                else:
                    await settled(client)

            writers: list[asyncio.StreamWriter] = []
            for address in ["192.0.2.1", "192.0.2.2", "2001:db8::1"] * 2:
                await served_well(from_(address))
            for address in ["192.0.2.1", "::ffff:192.0.2.2", "2001:db8::2"]:
                assert await end_of(await served.connect(from_(address))) == b""
            await served_well(from_("2001:db8:0:1::2"))
            assert served.ports.refused == 3
            for writer in writers:
                writer.transport.abort()

    run(main())


def test_l43_a_proxy_that_names_nobody_counts_for_nobody(run: Run) -> None:
    async def main() -> None:
        async with Serving(Config(limits=TWO, proxy=TRUSTING)) as served:
            for header in [LOCAL, b"PROXY UNKNOWN\r\n", SIGNATURE + b"\x21\x31\0\xd8" + bytes(216)] * 2:
                await settled(await served.connect(header))
            assert not served.gate._counts

    run(main())


def test_l43_an_address_named_over_a_unix_socket_counts(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with Serving(Config(limits=TWO, proxy=TRUSTING), Unix(str(tmp_path / "socket"))) as served:
            for _ in range(2):
                await settled(await served.connect(LINE))
            assert await end_of(await served.connect(LINE)) == b""

    run(main())


def test_connection_that_the_loop_does_not_take_is_closed_and_counts_no_longer() -> None:
    class Failing(asyncio.SelectorEventLoop):
        async def connect_accepted_socket(self, *_: object, **_more: object) -> Any:
            raise OSError(errno.ENOTCONN, "reset already")

    async def main() -> None:
        async with Serving(Config(limits=TWO)) as served:
            for _ in range(3):
                assert await end_of(await served.connect()) == b""
                await until(lambda: not served.gate._counts, "it to be gone")
            assert served.ports.refused == 0

    run_on(Failing)(main())
