"""What a hostile HTTP/2 peer sends over a real socket (spec attacks B11 to B13, C and G, with the limits L12 and L20 to L35 they name).

Each is answered with its code, the server lets go of the connection, nothing reaches the application that should not, and the next client
is served as if nothing had been.
"""

import ssl
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from certificates import Authority, Pair
from e2e.h2client import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    Http2Client,
    frame,
    offering,
    rst_stream,
    settings,
    window_update,
)
from e2e.secure import NAME, TlsServer
from e2e.server import Server, wait_until

CALM, PROTOCOL_ERROR, FRAME_SIZE_ERROR = ErrorCodes.ENHANCE_YOUR_CALM, ErrorCodes.PROTOCOL_ERROR, ErrorCodes.FRAME_SIZE_ERROR
STREAM_CLOSED, FLOW_CONTROL_ERROR = ErrorCodes.STREAM_CLOSED, ErrorCodes.FLOW_CONTROL_ERROR
APP = (
    "h2apps:app",
    "--no-access-log",
    "--timeout-linger-idle",
    "0.2",
    "--timeout-linger-total",
    "0.6",
    "--application-close-timeout",
    "0.5",
)
PRIORITY_UPDATE = 0x10
LARGEST_WINDOW = (1 << 31) - 1
MIB = 1 << 20


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.make("http2-attacks", NAME, "127.0.0.1")


@pytest.fixture(scope="module")
def plain() -> Iterator[Server]:
    with Server(*APP) as running:
        yield running
        ended_well(running)


@pytest.fixture(scope="module")
def secure(authority: Authority, pair: Pair) -> Iterator[TlsServer]:
    with TlsServer(authority, [pair], *APP) as running:
        yield running
        ended_well(running)


def ended_well(server: Server) -> None:
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log, server.log
    assert not {"Fatal", "retrieved", "Unhandled", "CRITICAL", "ERROR"} & set(server.log.split()), server.log


@pytest.fixture(params=["plain", "secure"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    found.seen()
    found.get("/forget")
    return found


def opened(server: Server, *values: Any, **options: Any) -> Http2Client:
    """Open a connection, over TLS with ALPN."""
    if isinstance(server, TlsServer):
        context = server.context.__class__(server.context.protocol)
        context.load_verify_locations(cadata=certificates_of(server))
        context.set_alpn_protocols(["h2"])
        options["context"] = context
    return Http2Client(server, *values, **options)


def certificates_of(server: TlsServer) -> bytes:
    return b"".join(server.context.get_ca_certs(binary_form=True))


def forget_peak(server: Server) -> int:
    """Begin to measure the most memory it has resident anew; give what it has now."""
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")
    return peak(server)


def peak(server: Server) -> int:
    """Give the most bytes it had resident."""
    return int(Path(f"/proc/{server.pid}/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


def fine(server: Server) -> None:
    """See that a new client is served."""
    with opened(server) as client:
        assert client.get("/").body == b"hello"


Attack = Callable[[Http2Client], None]  # sends more than the limit: what is allowed grows while a slow machine sends


def ask(client: Http2Client, path: str = "/") -> bytes:
    """Build a whole request."""
    return frame(HEADERS, END_HEADERS | END_STREAM, client.next_stream(), client.head(path))


def rapid_reset(client: Http2Client) -> None:
    """C1 (CVE-2023-44487)."""
    for _ in range(10):  # more than the 501 that suffice at once: their number shrinks with time
        client.send(b"".join(ask(client, "/silent") + rst_stream(client.last) for _ in range(100)))


def made_you_reset(how: Callable[[int], bytes]) -> Attack:
    """C2 (CVE-2025-8671)."""

    def attack(client: Http2Client) -> None:
        for _ in range(20):
            client.send(ask(client, "/silent") + how(client.last))

    return attack


def late_head(client: Http2Client) -> None:
    """C2 (5)."""
    for _ in range(20):
        client.send(ask(client, "/silent") + frame(HEADERS, END_HEADERS | END_STREAM, client.last, client.head("/silent")))


def once(data: Callable[[Http2Client], bytes]) -> Attack:
    """Send one thing."""

    def attack(client: Http2Client) -> None:
        client.send(data(client))

    return attack


def continuations(client: Http2Client) -> None:
    """C3 (VU#421644)."""
    client.send(frame(HEADERS, END_STREAM, 1, client.head("/never")))
    for _ in range(1_000):
        client.send(frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b"))


def large_continuations(client: Http2Client) -> None:
    """C3: few frames, large ones."""
    client.send(frame(HEADERS, END_STREAM, 1, client.head("/never")))
    for _ in range(8):
        client.send(frame(CONTINUATION, 0, 1, b"\x00\x01a\x7f\x81\x7d" + b"b" * 16_000))


def bomb(client: Http2Client) -> None:
    """C4 (CVE-2016-6581): one large entry, named again and again."""
    entry = b"\x40\x01a" + b"\x7f" + b"\xc1\x1e" + b"b" * 4_032  # a literal of 4 032 bytes that enters the table
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, client.head("/never") + entry + b"\xbe" * 10_000))


def crumbs(client: Http2Client) -> None:
    """C5 (CVE-2026-49975): empty fields, indexed."""
    entry = b"\x40\x01a\x00"
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, client.head("/never") + entry + b"\xbe" * 16_000))


def endless_integer(client: Http2Client) -> None:
    """C6 (CVE-2026-59980)."""
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\xff" * 16_000))


def dripped(client: Http2Client) -> None:
    """C7: a frame of 16 MiB, in drops."""
    client.connection.send_each(b"\xff\xff\xff" + bytes([DATA, 0]) + struct.pack("!I", 1))


def pings(client: Http2Client) -> None:
    """C9."""
    for _ in range(100):
        client.send(frame(PING, 0, 0, b"12345678") * 10)


def entries(client: Http2Client) -> None:
    """C12: a thousand settings."""
    client.send(frame(SETTINGS, 0, 0, struct.pack("!HI", SettingCodes.ENABLE_PUSH, 0) * 1_000))


def empty_data(client: Http2Client) -> None:
    """C14."""
    client.send(frame(HEADERS, END_HEADERS, client.next_stream(), client.head("/silent", method="POST")))
    client.send(frame(DATA, 0, client.last) * 150)


def tiny_data(client: Http2Client) -> None:
    """C14: a byte a frame."""
    client.send(frame(HEADERS, END_HEADERS, client.next_stream(), client.head("/silent", method="POST")))
    client.send(frame(DATA, 0, client.last, b"x") * 200)


def empty_heads(client: Http2Client) -> None:
    """C14: whole requests, each after an empty HEADERS frame."""
    for _ in range(300):
        block = client.head("/", method="POST")
        client.send(frame(HEADERS, 0, client.next_stream()) + frame(CONTINUATION, END_HEADERS, client.last, block))


def empty_continuations(client: Http2Client) -> None:
    """C14: whole requests, each with empty CONTINUATION frames in it."""
    for _ in range(100):
        head = frame(HEADERS, END_STREAM, client.next_stream(), client.head("/"))
        client.send(head + frame(CONTINUATION, 0, client.last) * 3 + frame(CONTINUATION, END_HEADERS, client.last))


def broken_requests(client: Http2Client) -> None:
    """C11 (CVE-2019-9514): requests that we have to reset."""
    for _ in range(20):
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, client.next_stream(), client.head("/never", ("connection", "close"))))


def priority_updates(client: Http2Client) -> None:
    """L23 by the frame of RFC 9218, which is heeded: there is no limit of its own."""
    client.send(frame(PRIORITY_UPDATE, 0, 0, struct.pack("!I", 1) + b"u=1") * 30_000)


def priorities_ahead(client: Http2Client) -> None:
    """RFC 9218 §7.1: no more idle streams than there may be open ones."""
    client.send(b"".join(frame(PRIORITY_UPDATE, 0, 0, struct.pack("!I", number) + b"u=1") for number in range(1, 203, 2)))


def idle_updates(client: Http2Client) -> None:
    """L29."""
    client.send(window_update(0, 1) * 100)


ATTACKS = [
    pytest.param(rapid_reset, CALM, id="C1 rapid reset"),
    pytest.param(made_you_reset(lambda number: window_update(number, 0)), PROTOCOL_ERROR, id="C2 WINDOW_UPDATE of nothing"),
    pytest.param(made_you_reset(lambda number: window_update(number, LARGEST_WINDOW)), CALM, id="C2 WINDOW_UPDATE to overflow"),
    pytest.param(made_you_reset(lambda number: frame(PRIORITY, 0, number, b"1234")), FRAME_SIZE_ERROR, id="C2 PRIORITY of four bytes"),
    pytest.param(
        made_you_reset(lambda number: frame(PRIORITY, 0, number, struct.pack("!IB", number, 1))), PROTOCOL_ERROR, id="C2 PRIORITY of itself"
    ),
    pytest.param(late_head, CALM, id="C2 HEADERS after the end"),
    pytest.param(made_you_reset(lambda number: frame(DATA, 0, number, b"x" * 300)), CALM, id="C2 DATA after the end"),
    pytest.param(continuations, CALM, id="C3 CONTINUATION without end"),
    pytest.param(large_continuations, CALM, id="C3 large CONTINUATION frames"),
    pytest.param(bomb, CALM, id="C4 bomb"),
    pytest.param(crumbs, CALM, id="C5 crumbs"),
    pytest.param(endless_integer, ErrorCodes.COMPRESSION_ERROR, id="C6 endless integer"),
    pytest.param(dripped, FRAME_SIZE_ERROR, id="C7 frame of 16 MiB"),
    pytest.param(pings, CALM, id="C9 PING"),
    pytest.param(once(lambda _: frame(PRIORITY, 0, 3, struct.pack("!IB", 1, 1)) * 150), CALM, id="C10 PRIORITY"),
    pytest.param(once(lambda _: settings({}) * 20), CALM, id="C12 SETTINGS"),
    pytest.param(entries, CALM, id="C12 many settings"),
    pytest.param(empty_data, CALM, id="C14 empty DATA"),
    pytest.param(tiny_data, CALM, id="C14 tiny DATA"),
    pytest.param(empty_heads, CALM, id="C14 empty HEADERS"),
    pytest.param(empty_continuations, CALM, id="C14 empty CONTINUATION"),
    pytest.param(broken_requests, CALM, id="C11 requests that have to be reset"),
    pytest.param(priority_updates, CALM, id="L23 PRIORITY_UPDATE"),
    pytest.param(priorities_ahead, PROTOCOL_ERROR, id="RFC 9218 7.1 PRIORITY_UPDATE of 101 idle streams"),
    pytest.param(idle_updates, CALM, id="L29 WINDOW_UPDATE"),
    pytest.param(once(lambda _: frame(0xBE, 0, 0) * 30_000), CALM, id="L23 frames of an unknown kind"),
    pytest.param(once(lambda _: frame(SETTINGS, 0, 0, b"12345")), FRAME_SIZE_ERROR, id="SETTINGS of five bytes"),
    pytest.param(once(lambda _: settings({SettingCodes.INITIAL_WINDOW_SIZE: 1 << 31})), FLOW_CONTROL_ERROR, id="window of 2**31"),
    pytest.param(once(lambda _: window_update(0, LARGEST_WINDOW)), FLOW_CONTROL_ERROR, id="the connection's window to overflow"),
    pytest.param(once(lambda _: frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4))), PROTOCOL_ERROR, id="PUSH_PROMISE"),
    pytest.param(once(lambda _: frame(CONTINUATION, END_HEADERS, 1)), PROTOCOL_ERROR, id="CONTINUATION of nothing"),
    pytest.param(once(lambda _: frame(DATA, 0, 1, b"x")), PROTOCOL_ERROR, id="DATA on an idle stream"),
    pytest.param(once(lambda client: frame(HEADERS, END_HEADERS, 2, client.head("/never"))), PROTOCOL_ERROR, id="a server's number"),
    pytest.param(
        once(lambda client: frame(HEADERS, END_STREAM, 1, client.head("/never")) + frame(PING, 0, 0, bytes(8))),
        PROTOCOL_ERROR,
        id="header block interrupted",
    ),
]


@pytest.mark.parametrize(("attack", "code"), ATTACKS)
def test_connection_ends_with_the_code_that_says_why(server: Server, attack: Attack, code: ErrorCodes) -> None:
    fine(server)
    before = forget_peak(server)
    with opened(server) as client:
        attack(client)
        client.send(frame(PING, 0, 0, b"too late") * 100)
        assert client.goaway(closes=True) is code
        assert [each.code for each in client.frames if each.kind == GOAWAY] == [code]
        assert client.cut is False
    assert peak(server) - before < 16 * MIB
    fine(server)
    assert not [line for line in server.seen() if "never" in line]
    wait_until(lambda: server.ask("/facts")["tasks"] <= 8, "the applications' calls to end")


def test_c1_resets_up_to_the_limit_pass(plain: Server) -> None:
    with opened(plain) as client:
        for _ in range(500):
            client.send(ask(client) + rst_stream(client.last))
        assert client.get("/").body == b"hello"


def test_l31_body_beyond_the_stream_s_window_ends_the_stream(plain: Server) -> None:
    with opened(plain) as client:
        number = client.ask("/silent", body=bytes(1_300_000), ended=False)
        assert client.reset_of(number) is FLOW_CONTROL_ERROR
        assert client.get("/").body == b"hello"


def test_c1_calls_of_reset_streams_count_until_they_end(plain: Server) -> None:
    before = plain.ask("/facts")["tasks"]
    with opened(plain) as client:
        numbers = [client.ask("/silent") for _ in range(100)]
        client.beat()
        client.send(b"".join(map(rst_stream, numbers)))
        numbers = [client.ask("/silent") for _ in range(200)]
        client.beat()
        assert plain.ask("/facts")["tasks"] - before <= 105
        assert [client.reset_of(number) for number in numbers] == [ErrorCodes.REFUSED_STREAM] * 200
        wait_until(lambda: plain.ask("/facts")["tasks"] <= before, "the calls to be cancelled")
        assert client.get("/").body == b"hello"


MALFORMED = [
    pytest.param([("x-a", "a\r\nb: c")], id="B11 CR and LF in a value"),
    pytest.param([("x-a", "a\x00b")], id="B11 NUL in a value"),
    pytest.param([("x-a", " a")], id="B11 leading blank"),
    pytest.param([("x-a", "a\t")], id="B11 trailing tab"),
    pytest.param([("connection", "close")], id="B12 connection"),
    pytest.param([("upgrade", "h2c")], id="B12 upgrade"),
    pytest.param([("transfer-encoding", "chunked")], id="B12 transfer-encoding"),
    pytest.param([("te", "gzip")], id="B12 te"),
    pytest.param([("X-A", "a")], id="B12 upper case"),
    pytest.param([("x-a", "a"), (":path", "/never")], id="B12 pseudo after regular"),
    pytest.param([(":unknown", "a")], id="B12 unknown pseudo"),
    pytest.param([(":path", "/never")], id="B12 second :path"),
    pytest.param([("", "a")], id="C13 empty name"),
    pytest.param([("x a", "a")], id="blank in a name"),
    pytest.param([("host", "b")], id="A23 host other than :authority"),
    pytest.param([("content-length", "5")], id="C17 a length without a body"),
    pytest.param([("content-length", "+0")], id="A7 a length that is none"),
    pytest.param([(":protocol", "websocket")], id="D10 :protocol beside GET"),
]


@pytest.mark.parametrize("fields", MALFORMED)
def test_malformed_request_ends_its_stream_and_reaches_nobody(plain: Server, fields: list[tuple[str, str]]) -> None:
    plain.seen()
    with opened(plain) as client:
        assert client.reset_of(client.ask("/never", *fields)) is PROTOCOL_ERROR
        assert client.get("/").body == b"hello"
    assert plain.seen() == ["GET /"]


@pytest.mark.parametrize("body", [b"1234", b"123456"], ids=["short", "long"])
def test_c17_body_that_is_not_its_length_is_a_disconnect(plain: Server, body: bytes) -> None:
    plain.get("/forget")
    with opened(plain) as client:
        number = client.ask("/echo", ("content-length", "5"), body=body[:2], ended=False)
        client.beat()
        client.data(number, body[2:], ended=True)
        assert client.reset_of(number) is PROTOCOL_ERROR
        assert not client.answers[number].status
        wait_until(lambda: plain.ask("/facts")["tasks"] <= 8, "the call to end")
        assert client.get("/").body == b"hello"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        pytest.param([(f"x-{number}", "") for number in range(200)], 431, id="L5 fields"),
        pytest.param([("x-a", "b" * 8_190)], 431, id="L3 a field"),
        pytest.param([(f"x-{number}", "b" * 4_000) for number in range(9)], 431, id="L4 bytes"),
        pytest.param([("expect", "a miracle")], 417, id="A17 expectation"),
    ],
)
def test_request_that_is_too_much_is_answered(plain: Server, fields: list[tuple[str, str]], status: int) -> None:
    plain.seen()
    with opened(plain) as client:
        number = client.next_stream()
        block = client.head("/never", *fields)
        parts = [block[start : start + 16_384] for start in range(0, len(block), 16_384)]
        for index, part in enumerate(parts):
            kind, flags = (CONTINUATION, 0) if index else (HEADERS, END_STREAM)
            client.send(frame(kind, flags | (END_HEADERS if index == len(parts) - 1 else 0), number, part))
        assert client.answer(number).status == status
        assert client.get("/").body == b"hello"
    assert plain.seen() == ["GET /"]


def test_c7_frame_of_a_byte_too_many_ends_a_connection_that_the_client_keeps_open(server: Server) -> None:
    with opened(server) as client:
        client.send(b"\x00\x40\x01" + bytes([DATA, 0]) + struct.pack("!I", 1))
        assert client.goaway() is FRAME_SIZE_ERROR


@pytest.mark.parametrize("values", [{SettingCodes.INITIAL_WINDOW_SIZE: 0}, {}], ids=["no window", "the connection's window"])
def test_c8_windows_that_stay_shut_cost_little_and_end(values: dict[int, int]) -> None:
    options = ("--timeout-write-stall", "1.5")
    with Server(*APP, *options) as server:
        server.get("/")
        before = server.ask("/facts")["resident"]
        clients = [Http2Client(server, values, opens_windows=False) for _ in range(5)]
        for client in clients:
            for _ in range(99):
                client.ask("/flood?size=50000000")
            client.beat()
        produced = server.settled()
        assert produced < 5 * (99 * 65_536 * 2 + 400_000)
        assert server.ask("/facts")["resident"] - before < 60 * MIB
        for client in clients:
            found = client.wait(lambda found: found.kind in {RST_STREAM, GOAWAY})
            assert found.code in {ErrorCodes.CANCEL, CALM}
            client.connection.socket.close()
        server.wait_line("Cut a connection: the peer stopped reading")
        wait_until(lambda: server.ask("/facts")["tasks"] <= 8, "the calls to end")
        fine(server)
        ended_well(server)


def test_c8_a_gigabyte_for_a_client_without_a_window_is_not_copied() -> None:
    with Server(*APP) as server, Http2Client(server, {SettingCodes.INITIAL_WINDOW_SIZE: 0}, opens_windows=False) as client:
        client.get("/status?status=204")
        before = forget_peak(server)
        numbers = [client.ask("/shared") for _ in range(99)]  # ten megabytes each, the same object
        client.beat()
        wait_until(lambda: all(client.beat() or number in client.answers for number in numbers), "the responses to begin")
        assert peak(server) - before < 16 * MIB
        assert not any(client.answers[number].body for number in numbers)


def test_c8_stalled_stream_ends_alone() -> None:
    with Server(*APP, "--timeout-write-stall", "1") as server, Http2Client(server, opens_windows=False) as client:
        client.send(window_update(0, 1 << 30))
        stalled = client.ask("/gush?size=1000000")
        assert client.get("/").body == b"hello"
        assert client.reset_of(stalled) is ErrorCodes.CANCEL
        assert len(client.answers[stalled].body) == 65_535
        assert client.get("/").body == b"hello"


def test_c8_one_byte_windows_end() -> None:
    options = ("--timeout-write-stall", "0.6", "--write-min-rate", "1000")
    with Server(*APP, *options) as server, Http2Client(server, {SettingCodes.INITIAL_WINDOW_SIZE: 1}, opens_windows=False) as client:
        number = client.ask("/blob?size=100000")
        while client.answers.get(number) is None or client.answers[number].reset is None:
            found = client.wait(lambda found: found.stream == number)
            if found.kind == DATA:
                time.sleep(0.02)  # as slow as that: fifty bytes a second
                client.send(window_update(number, 1))
        assert client.answers[number].reset is ErrorCodes.CANCEL
        client.send(settings({SettingCodes.INITIAL_WINDOW_SIZE: 100}))
        assert client.get("/").body == b"hello"


def test_c8_peer_that_does_not_read_its_socket_is_cut() -> None:
    with Server(*APP, "--timeout-write-stall", "1") as server:
        server.get("/")
        before = server.ask("/facts")["resident"]
        clients = [Http2Client(server, {SettingCodes.INITIAL_WINDOW_SIZE: LARGEST_WINDOW}, receive_buffer=4_096) for _ in range(10)]
        for client in clients:
            client.send(window_update(0, LARGEST_WINDOW - 65_535))
            for _ in range(50):
                client.ask("/flood?size=50000000")
        server.settled()
        assert server.ask("/facts")["resident"] - before < 100 * MIB
        server.wait_line("Cut a connection: the peer stopped reading")
        for client in clients:  # none has read a byte
            wait_until(lambda client=client: not client.is_held(), "the server to let go of the connection")
            client.connection.socket.close()
        wait_until(lambda: server.ask("/facts")["tasks"] <= 8, "the calls to end")
        fine(server)


@pytest.mark.parametrize(
    "data",
    [pytest.param(frame(PING, 0, 0, bytes(8)) * 100, id="PING"), pytest.param(settings({}) * 100, id="SETTINGS")],
)
def test_l30_peer_that_sets_off_answers_and_does_not_read_is_cut(data: bytes) -> None:
    options = ("--http2-max-pings", "0", "--http2-max-settings", "0", "--http2-max-overhead", "0")
    with Server(*APP, *options) as server:
        with Http2Client(server, {SettingCodes.INITIAL_WINDOW_SIZE: LARGEST_WINDOW}, receive_buffer=4_096) as client:
            client.send(window_update(0, LARGEST_WINDOW - 65_535))
            client.ask("/flood?size=50000000")
            server.settled()
            began = time.monotonic()
            while client.is_held():
                assert time.monotonic() - began < 30
                client.send(data)
            client.rest()
        assert "does not read" in server.log
        fine(server)


def test_c9_answers_to_a_peer_that_reads_are_not_counted() -> None:
    with Server(*APP, "--http2-max-pings", "0", "--http2-max-overhead", "0") as server, Http2Client(server) as client:
        for _ in range(3_000):
            client.send(frame(PING, 0, 0, bytes(8)))
        client.beat()
        assert client.get("/").body == b"hello"


@pytest.mark.parametrize("sent", [b"", PREFACE[:10], PREFACE, PREFACE + settings({})[:5]], ids=["nothing", "a part", "no SETTINGS", "half"])
def test_c15_slow_preface_ends(authority: Authority, pair: Pair, sent: bytes) -> None:
    with TlsServer(authority, [pair], *APP, "--timeout-http2-preface", "0.4") as server:
        with Http2Client(server, greets=False, acknowledges=False, context=offering(authority, "h2")) as client:
            client.send(sent)
            assert client.goaway() is ErrorCodes.SETTINGS_TIMEOUT
        with Http2Client(server, context=offering(authority, "h2")) as client:
            assert client.get("/").body == b"hello"


def test_c15_wrong_preface_ends(authority: Authority, secure: TlsServer) -> None:
    with Http2Client(secure, greets=False, context=offering(authority, "h2")) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.goaway() is PROTOCOL_ERROR
    with Http2Client(secure, greets=False, context=offering(authority, "h2")) as client:
        client.send(PREFACE + frame(PING, 0, 0, bytes(8)))
        assert client.goaway() is PROTOCOL_ERROR


def test_c15_settings_that_are_never_acknowledged_end_the_connection() -> None:
    with Server(*APP, "--timeout-http2-settings", "0.4") as server, Http2Client(server, acknowledges=False) as client:
        assert client.get("/").body == b"hello"
        assert client.goaway() is ErrorCodes.SETTINGS_TIMEOUT
        fine(server)


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "secure"])
def test_l12_header_block_that_is_dripped_ends(secured: bool, authority: Authority, pair: Pair) -> None:
    options = ("--timeout-header-read", "0.5")
    server = TlsServer(authority, [pair], *APP, *options) if secured else Server(*APP, *options)
    with server, opened(server) as client:
        client.beat()
        data = frame(HEADERS, END_STREAM, 1, client.head("/never"))
        client.connection.send_each(data[:-1])
        began = time.monotonic()
        assert client.goaway() is CALM
        assert 0.3 < time.monotonic() - began < 10
        fine(server)
        assert server.seen() == ["GET /"]


def test_c16_streams_that_were_closed_cost_nothing() -> None:
    with Server(*APP) as server, Http2Client(server) as client:

        def many(count: int) -> int:
            for _ in range(0, count, 50):
                client.send(b"".join(ask(client) for _ in range(50)))
                client.answer(client.last)
                client.frames.clear()
                client.answers.clear()
            found: int = server.ask("/facts")["resident"]
            server.seen()
            return found

        before = many(3_000)
        assert many(15_000) - before < 4 * MIB


def test_g_weak_cipher_is_inadequate(authority: Authority, pair: Pair) -> None:
    with TlsServer(authority, [pair], *APP, "--ssl-ciphers", "ECDHE-ECDSA-AES128-SHA256") as server:
        weak = offering(authority, "h2", maximum_version=ssl.TLSVersion.TLSv1_2)
        weak.set_ciphers("ECDHE-ECDSA-AES128-SHA256")
        with Http2Client(server, context=weak) as client:
            client.send(ask(client, "/never"))
            assert client.goaway() is ErrorCodes.INADEQUATE_SECURITY
            assert not client.answers
        with Http2Client(server, context=offering(authority, "h2")) as client:  # TLS 1.3 has none that is weak
            assert client.get("/").body == b"hello"
        assert "GET /never" not in server.seen()


def test_everybody_else_is_served_while_one_attacks(plain: Server) -> None:
    with opened(plain) as bystander, opened(plain) as attacker:
        held = bystander.ask("/hold-body")
        bystander.wait(lambda found: found.kind == DATA)
        rapid_reset(attacker)
        continuing = bystander.get("/blob?size=100000")
        assert len(continuing.body) == 100_000
        assert attacker.goaway() is CALM
        bystander.get("/release")
        assert bystander.answer(held).body == b"first last"
