"""WebSockets over real connections: what the application sees, what a hostile peer is answered (spec attacks D), how the server stops."""

import ast
import random
import signal
import struct
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.server import Server, wait_until
from e2e.sockets import BINARY, CLOSE, PING, PONG, TEXT, SocketClient, closing, frame, upgrade

APP = ("socket_apps:app", "--no-access-log")
MIB = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(*APP) as running:
        yield running
        assert running.stop() == 0
        assert "never retrieved" not in running.log


def noted(server: Server, text: str) -> None:
    wait_until(lambda: text in server.ask("/events"), text)


# --- the handshake ---


def test_handshake_is_accepted_and_messages_come_back(server: Server) -> None:
    with SocketClient.open(server, "/echo") as client:
        for message in ("hello", "", "żółw 🐢", "x" * 125, "x" * 126, "x" * 65_535, "x" * 65_536, "x" * MIB):
            client.say(message)
            assert client.hear() == message
        client.send(frame(BINARY, bytes(range(256))))
        found = client.next_frame()
        assert (found.opcode, found.payload) == (BINARY, bytes(range(256)))
        client.send(frame(BINARY))
        assert client.next_frame().payload == b""


def test_scope_says_what_asgi_asks_for(server: Server) -> None:
    fields = ("Sec-WebSocket-Protocol: one, two", "X-Own: a", "X-Own: b", "X_Own: dropped")
    with SocketClient.open(server, "/scope?x=%41", *fields) as client:
        scope: dict[str, Any] = ast.literal_eval(client.hear())
    assert scope["type"] == "websocket"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
    assert (scope["scheme"], scope["http_version"], scope["path"], scope["raw_path"]) == ("ws", "1.1", "/scope", b"/scope")
    assert (scope["query_string"], scope["root_path"], scope["subprotocols"]) == (b"x=%41", "", ["one", "two"])
    assert "method" not in scope
    assert scope["headers"][0] == (b"host", b"a")
    assert [value for name, value in scope["headers"] if name == b"x-own"] == [b"a", b"b"]
    assert not [name for name, _ in scope["headers"] if b"_" in name]
    assert scope["server"] == (server.host, server.port)
    assert scope["extensions"] == ["termserver.shutdown", "websocket.http.response"]


def test_accept_carries_subprotocol_and_fields_in_order(server: Server) -> None:
    with SocketClient(server, "/choose?subprotocol=two", "Sec-WebSocket-Protocol: one,two") as client:
        answer = client.handshake()
        assert answer.status == 101
        assert answer["sec-websocket-protocol"] == "two"
        assert [pair for pair in answer.headers if pair[0].startswith("x-")] == [("x-first", "1"), ("x-first", "2")]
        assert answer["set-cookie"] == "a=b"
        assert answer["server"] == "own"
        assert "transfer-encoding" not in answer
        assert "date" in answer


def test_refusal_is_403_and_the_application_hears_the_end(server: Server) -> None:
    with SocketClient(server, "/refuse") as client:
        assert client.rest().only.status == 403
    noted(server, "/refuse: disconnect 1006 ")


def test_denial_response_is_streamed(server: Server) -> None:
    with SocketClient(server, "/deny") as client:
        answer = client.rest().only
    assert (answer.status, answer.body, answer.whole) == (401, b"log in first", True)
    assert answer["www-authenticate"] == "Basic"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param(upgrade("/echo", version="8"), 426, id="D5 version"),
        pytest.param(upgrade("/echo", key="short"), 400, id="D5 key"),
        pytest.param(upgrade("/echo", key="é" * 22 + "=="), 400, id="D5 key that is not ASCII"),
        pytest.param(upgrade("/echo", "Sec-WebSocket-Protocol: caf\xe9"), 400, id="D5 subprotocol that is not ASCII"),
        pytest.param(upgrade("/echo").replace(b"GET", b"POST"), 400, id="method"),
        pytest.param(upgrade("/echo", "Content-Length: 5") + b"GET /", 400, id="A26 a body"),
        pytest.param(upgrade("/echo", "Sec-WebSocket-Extensions: a;=;"), 400, id="malformed extensions"),
        pytest.param(upgrade("/echo", "X: a\x0bb"), 400, id="B1 a control byte"),
    ],
)
def test_d5_bad_handshake_is_refused_by_the_server(server: Server, head: bytes, status: int) -> None:
    answer = server.exchange(head)
    assert answer.statuses == [status]
    if status == 426:
        assert answer.only["sec-websocket-version"] == "13"
        assert answer.only["upgrade"] == "websocket"
    with SocketClient.open(server, "/echo") as client:
        client.say("still there")
        assert client.hear() == "still there"


def test_frames_that_came_with_the_handshake_are_read(server: Server) -> None:
    with SocketClient(server, "/echo", rest=frame(TEXT, b"early") + frame(TEXT, b"birds")[:3]) as client:
        client.handshake()
        assert client.hear() == "early"
        client.send(frame(TEXT, b"birds")[3:])
        assert client.hear() == "birds"


def test_frames_behind_a_refused_handshake_are_never_a_request(server: Server) -> None:
    with SocketClient(server, "/refuse", rest=b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n") as client:
        assert client.rest().statuses == [403]


def test_handshake_after_other_requests_on_the_same_connection(server: Server) -> None:
    with SocketClient(server, "/facts", rest=b"") as client:
        answer = client.response()  # /facts is no WebSocket's path: the application fails, the server answers
        assert answer.status in {200, 500}
    with server.connect() as plain:
        plain.get("/facts")
        assert plain.response().status == 200
        plain.send(upgrade("/echo") + frame(TEXT, b"hi"))
        assert plain.response().status == 101
        assert plain.read_until(b"\x81\x02hi") == b"\x81\x02hi"


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("Origin: https://example.com", 101),
        ("Origin: https://sub.example.org", 101),
        ("Origin: https://evil.example", 403),
        ("Origin: null", 403),
        ("X: none", 101),
    ],
)
def test_d6_foreign_origin_is_refused_before_the_application(origin: str, status: int) -> None:
    with (
        Server(*APP, "--allowed-origins", "https://example.com,https://.example.org") as server,
        SocketClient(server, "/echo", origin) as client,
    ):
        assert client.response().status == status


def test_d9_application_without_a_verdict_is_503_and_cancelled() -> None:
    with Server(*APP, "--websocket_connect_timeout", "0.2") as server:
        with SocketClient(server, "/stubborn") as client:
            assert client.rest().only.status == 503
        noted(server, "/stubborn: CancelledError")


def test_client_that_leaves_before_the_verdict(server: Server) -> None:
    with SocketClient(server, "/undecided?name=1") as client:
        noted(server, "/undecided1: connect")
        client.shut()
        assert client.end() is False
    noted(server, "/undecided1: disconnect 1006 ")


# --- the close handshake ---


def test_client_closes_with_code_and_reason(server: Server) -> None:
    with SocketClient.open(server, "/echo?name=closes") as client:
        client.send(closing(4_321, "that was it"))
        assert client.farewell().code == 4_321
        assert client.end() is False
    noted(server, "/echocloses: disconnect 4321 that was it")


def test_close_frame_without_a_code_is_1005(server: Server) -> None:
    with SocketClient.open(server, "/echo?name=empty") as client:
        client.send(frame(CLOSE))
        assert client.farewell().payload == b""
    noted(server, "/echoempty: disconnect 1005 ")


def test_application_closes_with_code_and_reason(server: Server) -> None:
    with SocketClient.open(server, "/close?code=4000&reason=enough") as client:
        found = client.farewell()
        assert (found.code, found.reason) == (4_000, "enough")
        client.send(closing(4_000))
        assert client.end() is False
    noted(server, "/close: disconnect 4000 ")


def test_client_that_does_not_answer_a_close_is_cut() -> None:
    with Server(*APP, "--websocket-close-timeout", "0.3") as server:
        with SocketClient.open(server, "/close") as client:
            assert client.farewell().code == 1_000
            while not client.ended_or_send(frame(TEXT, b"still talking")):  # it does not gain time by that
                pass
            client.end()
        noted(server, "/close: disconnect 1006 ")


@pytest.mark.parametrize("way", ["shut", "reset"])
def test_client_that_is_gone_is_1006(server: Server, way: str) -> None:
    with SocketClient.open(server, f"/echo?name={way}") as client:
        client.say("a")
        assert client.hear() == "a"
        getattr(client, way)()
        noted(server, f"/echo{way}: disconnect 1006 ")


@pytest.mark.parametrize(("path", "code"), [("/raises", 1011), ("/returns", 1000)])
def test_application_that_ends_closes_the_socket(server: Server, path: str, code: int) -> None:
    with SocketClient.open(server, path) as client:
        assert client.farewell().code == code


@pytest.mark.parametrize("path", ["/raises?before=1", "/returns?before=1"])
def test_application_that_ends_before_its_verdict_is_a_500(server: Server, path: str) -> None:
    with SocketClient(server, path) as client:
        assert client.rest().only.status == 500


def test_misuse_is_told_to_the_application(server: Server) -> None:
    with SocketClient.open(server, "/misuse", "Sec-WebSocket-Protocol: offered") as client:
        expected = "InvalidMessage InvalidMessage InvalidMessage UnexpectedMessage InvalidMessage UnexpectedMessage InvalidMessage"
        assert client.hear() == f"{expected} InvalidMessage InvalidMessage InvalidMessage InvalidMessage"


# --- a client that left ---


def test_send_is_silent_for_two_seconds_and_raises_then(server: Server) -> None:
    with SocketClient.open(server, "/talk") as client:
        assert client.hear() == "tick"
        client.reset()
        left = time.monotonic()
        noted(server, "/talk: ClientDisconnected")
        assert time.monotonic() - left > 1.5
    assert "Exception in the application" not in "".join(line for line in server.lines if "/talk" in line)


def test_handler_that_answers_late_still_hears_of_the_end() -> None:
    with Server(*APP) as server:
        clients = [SocketClient.open(server, f"/answer-late?name={index}") for index in range(10)]
        for client in clients:
            client.say("question")
        wait_until(lambda: len(server.ask("/events")) == 10, "all asked")
        for client in clients:
            client.reset()
        assert server.get("/release").status == 200
        wait_until(lambda: sum("disconnect 1006" in event for event in server.ask("/events")) == 10, "all told")


# --- what a hostile peer is answered ---


def deflated(payload: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
ATTACKS = [
    pytest.param(b"\x82\xff" + struct.pack("!Q", (1 << 63) - 1), 1009, id="D1 a frame of 2**63-1 bytes, by its header alone"),
    pytest.param(b"\x82\xff" + struct.pack("!Q", 1 << 30), 1009, id="D1 a frame of 1 GiB"),
    pytest.param(frame(BINARY, b"x" * MIB, final=False) + frame(0, b"x"), 1009, id="D2 the sum of the fragments"),
    pytest.param(frame(BINARY, final=False) + frame(0, final=False) * 1_024, 1009, id="D2 fragments without end"),
    pytest.param(frame(BINARY, deflated(bytes(6 * MIB)), rsv=4), 1009, id="D3 a bomb"),
    pytest.param(frame(TEXT, b"a", mask=None), 1002, id="D4 not masked"),
    pytest.param(frame(TEXT, b"a", rsv=2), 1002, id="D4 a reserved bit"),
    pytest.param(frame(PING, b"a", final=False), 1002, id="D4 a fragmented control frame"),
    pytest.param(frame(PING, b"a" * 126), 1002, id="D4 a control frame that is too long"),
    pytest.param(frame(3, b"a"), 1002, id="D4 an unknown opcode"),
    pytest.param(frame(0, b"a"), 1002, id="D4 a continuation of nothing"),
    pytest.param(frame(CLOSE, b"\x03"), 1002, id="D4 a close of one byte"),
    pytest.param(closing(1005), 1002, id="D4 close code 1005"),
    pytest.param(closing(1006), 1002, id="D4 close code 1006"),
    pytest.param(closing(999), 1002, id="D4 close code 999"),
    pytest.param(closing(5000), 1002, id="D4 close code 5000"),
    pytest.param(frame(CLOSE, b"\x03\xe8\xff"), 1007, id="D4 a reason that is not UTF-8"),
    pytest.param(frame(TEXT, b"\xce\xba\xed\xa0\x80"), 1007, id="D4 text that is not UTF-8"),
    pytest.param(frame(TEXT, b"\xf4\x90", final=False), 1007, id="D4 at the first bad fragment"),
    pytest.param(frame(TEXT, b"\xff" + b"a" * 1_000)[:20], 1007, id="D4 at the first bad byte of a frame"),
    pytest.param(frame(BINARY, b"\xff\xff\xff", rsv=4), 1007, id="no DEFLATE stream"),
    pytest.param(frame(PING) * 401, 1008, id="D7 pings"),
]


@pytest.mark.parametrize(("data", "code"), ATTACKS)
def test_d_is_answered_with_its_code_before_the_connection_ends(server: Server, data: bytes, code: int) -> None:
    with SocketClient.open(server, f"/echo?name=x{code}", DEFLATE) as client:
        client.send(data + frame(TEXT, b"never heard") * 1_000)
        assert client.farewell().code == code
        client.shut()
        assert client.end() is False
    wait_until(lambda: any(f"/echox{code}: disconnect 1006" in event for event in server.ask("/events")), "1006")


def test_the_size_limit_itself_passes_and_one_more_does_not() -> None:
    options = ("--websocket-max-message-size", "1000", "--websocket-max-frame-size", "600", "--websocket-max-fragments", "3")
    with Server(*APP, *options) as server:
        with SocketClient.open(server, "/echo") as client:
            client.send(frame(TEXT, b"a" * 600, final=False) + frame(0, b"b" * 399, final=False) + frame(0, b"c"))
            assert client.hear() == "a" * 600 + "b" * 399 + "c"
        for wrong in (
            frame(TEXT, b"a" * 601),
            frame(TEXT, b"a" * 600, final=False) + frame(0, b"b" * 401),
            frame(TEXT, final=False) + frame(0, final=False) * 3,
        ):
            with SocketClient.open(server, "/echo") as client:
                client.send(wrong)
                assert client.farewell().code == 1009
        assert "--websocket-max-message-size" in server.wait_line("Closed a WebSocket with 1009")


def test_limits_that_are_off_let_large_messages_pass() -> None:
    options = ("--websocket-max-message-size", "0", "--websocket-max-frame-size", "0", "--ws-deflate-max-ratio", "0")
    with Server(*APP, *options) as server, SocketClient.open(server, "/echo", DEFLATE) as client:
        client.send(frame(BINARY, deflated(bytes(5 * MIB)), rsv=4))
        assert zlib.decompress(client.next_frame().payload + b"\x00\x00\xff\xff\x03\x00", -15) == bytes(5 * MIB)
        assert "turned off" in server.log


def test_d2_dribbled_bytes_pin_no_more_than_they_are(server: Server) -> None:
    before = server.ask("/facts")["resident"]
    clients = [SocketClient.open(server, "/echo") for _ in range(20)]
    whole = frame(BINARY, b"x" * (MIB - 1))
    for client in clients:
        for start in range(0, len(whole) - 1_000, 1_000):
            client.send(whole[start : start + 1_000])
    assert server.ask("/facts")["resident"] - before < 20 * 3 * MIB
    for client in clients:
        client.reset()


def test_d3_a_compressed_message_that_waits_for_its_end_pins_no_window() -> None:
    with Server(*APP, files=2_000) as server:
        clients = [SocketClient.open(server, "/echo", DEFLATE) for _ in range(500)]
        before = server.ask("/facts")["resident"]
        for client in clients:
            client.send(frame(TEXT, deflated(b"hello" * 20)[:-2], rsv=4, final=False))
            client.send(frame(PING))
            assert client.next_frame().opcode == PONG
        assert server.ask("/facts")["resident"] - before < 500 * 8_192
        for client in clients:
            client.reset()


def test_d7_pings_are_answered_and_their_flood_is_bounded(server: Server) -> None:
    with SocketClient.open(server, "/echo") as client:
        client.send(b"".join(frame(PING, b"%d" % number) for number in range(10)))
        assert [client.next_frame().payload for _ in range(10)] == [b"%d" % number for number in range(10)]
        client.send(frame(PONG, b"nobody asked") * 1_000)
        client.say("fine")
        assert client.hear() == "fine"


def test_d8_slow_reader_makes_send_wait_and_is_cut() -> None:
    with Server(*APP, "--timeout-write-stall", "1") as server:
        before = server.ask("/facts")["resident"]
        clients = [SocketClient(server, "/flood", receive_buffer=4_096) for _ in range(50)]
        for client in clients:
            assert client.response().status == 101
        wait_until(lambda: server.ask("/facts")["produced"] >= 50 * 65_536, "everybody floods")
        assert server.settled() < 50 * 8 * MIB
        assert server.ask("/facts")["resident"] - before < 50 * (64 * 1_024 + 200_000)
        wait_until(lambda: sum("/flood: ClientDisconnected" in event for event in server.ask("/events")) == 50, "all cut", 60)
        for client in clients:
            client.reset()


def test_r13_slow_application_stops_the_reading(server: Server) -> None:
    with SocketClient.open(server, "/read-later") as client:
        noted(server, "/read-later: open")
        before = server.ask("/facts")["resident"]
        client.socket.settimeout(1)
        part = frame(BINARY, b"x" * 60_000)
        with pytest.raises(TimeoutError):
            client.socket.sendall(part * 1_000)  # the system's buffers hold less
        assert server.ask("/facts")["resident"] - before < 4 * MIB
        assert server.get("/release").status == 200
        client.socket.settimeout(30)
        client.send(part)  # the one that was cut short ends with bytes of this one: whatever comes of it, the server goes on
    with SocketClient.open(server, "/echo") as client:
        client.say("a")
        assert client.hear() == "a"


def test_l38_messages_wait_in_order_while_the_application_does_not_take_them() -> None:
    with Server(*APP) as server, SocketClient.open(server, "/read-later") as client:
        noted(server, "/read-later: open")
        client.send(frame(TEXT, b"x") * 50_000 + frame(TEXT, b"last"))
        assert server.get("/release").status == 200
        assert client.hear() == "50001"


# --- time ---


def test_l39_silent_client_is_pinged_and_given_up() -> None:
    with Server(*APP, "--ping-interval", "0.2", "--ping-timeout", "0.4") as server:
        with SocketClient.open(server, "/echo?name=dead") as client:
            assert client.next_frame().opcode == PING
            found = client.next_frame()
            assert (found.opcode, found.code) == (CLOSE, 1011)
            assert client.end() is True
        noted(server, "/echodead: disconnect 1006 ")
        with SocketClient.open(server, "/echo?name=alive") as client:
            for _ in range(4):
                assert client.next_frame().opcode == PING
                client.send(frame(PONG))
            client.send(closing(1000))


def test_l53_socket_is_closed_at_its_age() -> None:
    with Server(*APP, "--websocket_timeout", "0.3") as server, SocketClient.open(server, "/echo") as client:
        assert client.farewell().code == 1000


def test_daphnes_negative_timeouts_are_off() -> None:
    with (
        Server(*APP, "--websocket_timeout", "-1", "--websocket_connect_timeout", "-1") as server,
        SocketClient.open(server, "/echo") as client,
    ):
        client.say("a")
        assert client.hear() == "a"


# --- stopping ---


@pytest.mark.parametrize(("options", "code"), [((), 1001), (("--websocket-stop-code", "1012"), 1012)])
def test_stop_closes_every_socket_in_a_spread_and_tells_the_application(options: tuple[str, ...], code: int) -> None:
    with Server("socket_apps:app", "--timeout-graceful-shutdown", "3", *options, stdout=None) as server:
        clients = [SocketClient.open(server, "/echo") for _ in range(60)]
        server.send_signal(signal.SIGTERM)
        began, times = time.monotonic(), []
        for client in clients:
            found = client.farewell()
            assert found.code == code
            times.append(time.monotonic() - began)
            client.send(closing(code))
            assert client.end() is False
            client.socket.close()
        assert server.wait() == 0
        assert max(times) < 3
        assert server.written.count(" 101 ") == 60


def test_stop_cuts_who_does_not_answer() -> None:
    with (
        Server(*APP, "--timeout-graceful-shutdown", "1", "--application-cancel-timeout", "0.3") as server,
        SocketClient.open(server, "/echo") as client,
    ):
        server.send_signal(signal.SIGTERM)
        assert client.farewell().code == 1001
        assert client.end() is True
        assert server.wait() == 0


def test_stop_refuses_a_handshake_on_an_open_connection() -> None:
    with Server(*APP) as server, server.connect() as fresh, SocketClient.open(server, "/read-later") as busy:
        noted(server, "/read-later: open")
        server.send_signal(signal.SIGTERM)
        assert busy.farewell().code == 1001
        fresh.send(upgrade("/echo"))
        assert fresh.rest().statuses in ([503], [])
        busy.reset()
        server.send_signal(signal.SIGTERM)
        server.wait()


# --- the rest of the house ---


def test_access_log_has_a_line_for_each_socket_at_its_end() -> None:
    with Server("socket_apps:app") as server:
        with SocketClient.open(server, "/echo") as client:
            client.say("12345")
            client.hear()
            client.send(closing(1000))
            client.farewell()
        assert '"GET /echo HTTP/1.1" 101 5 ' in server.wait_line("/echo", out=True)
        with SocketClient(server, "/refuse") as client:
            client.rest()
        assert '"GET /refuse HTTP/1.1" 403 ' in server.wait_line("/refuse", out=True)


def test_daphnes_access_log_names_the_steps() -> None:
    with Server("socket_apps:app", "--access-log-format", "daphne") as server:
        with SocketClient.open(server, "/echo") as client:
            client.send(closing(1000))
            client.farewell()
        with SocketClient(server, "/refuse") as client:
            client.rest()
        server.wait_line("WSREJECT /refuse", out=True)
        steps = [line.split('"')[1] for line in server.out if "WS" in line]
    assert steps == ["WSCONNECTING /echo", "WSCONNECT /echo", "WSDISCONNECT /echo", "WSCONNECTING /refuse", "WSREJECT /refuse"]


def test_scheme_and_client_of_a_trusted_proxy() -> None:
    with Server(*APP, "--proxy-headers") as server:
        fields = ("X-Forwarded-Proto: https", "X-Forwarded-For: 192.0.2.9")
        with SocketClient.open(server, "/scope", *fields) as client:
            text = client.hear()
    assert "'scheme': 'wss'" in text
    assert "'client': ('192.0.2.9', 0)" in text


def test_concurrency_limit_counts_sockets() -> None:
    with (
        Server(*APP, "--limit-concurrency", "2") as server,
        SocketClient.open(server, "/echo"),
        SocketClient.open(server, "/echo"),
        SocketClient(server, "/echo") as third,
    ):
        assert third.rest().only.status == 503


def test_sockets_that_come_and_go_leave_nothing_behind(server: Server) -> None:
    def rounds(count: int) -> None:
        for _ in range(count):
            with SocketClient.open(server, "/echo", DEFLATE) as client:
                data = random.randbytes(random.randrange(200))  # noqa: S311 - any bytes will do
                client.send(frame(TEXT, b"x" * random.randrange(3_000)) + data)  # noqa: S311
                client.reset()

    def counts() -> tuple[int, int]:
        facts = server.ask("/facts")
        return facts["tasks"], facts["files"]

    rounds(20)
    wait_until(lambda: server.ask("/facts")["running"] == 0, "all ended")
    before = counts()
    rounds(300)
    wait_until(lambda: server.ask("/facts")["running"] == 0, "all ended")
    wait_until(lambda: counts() <= before, "all gone")
