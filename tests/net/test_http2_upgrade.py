"""How a connection comes to speak HTTP/2 (RFC 9113 §3): known beforehand, agreed upon by ALPN, asked for by `Upgrade: h2c`."""

import asyncio
import base64
import logging
import struct
from collections.abc import Callable
from typing import Any

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from twisted.internet.interfaces import IProtocolNegotiationFactory, ISSLTransport
from zope.interface import implementer
from zope.interface.verify import verifyObject

from fakes import GET, Log, Message, body, in_virtual_time, read_answer, sender, start, turns
from net.h2talk import CALM, NO_ERROR, PROTOCOL_ERROR, Puppet, Talk, TlsWire, both, client_of, stop_clocks, talked
from net.wires import CLIENT, SERVER, LoopWire, TwistedWire, Wire
from termserver.config import Config, Limits
from termserver.net.connection import Connection
from termserver.net.endpoints import LoopTransport
from termserver.net.http2 import Http2Connection
from termserver.net.server import DRAINING, SERVING
from termserver.wire import h2frames as f
from wire.h2driving import HELLO, Client, get, ping, read_frames

hello = sender(start(200, [(b"content-length", b"5")]), body(b"hello"))
UPGRADES = Config(http2_upgrade=True)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_clocks(monkeypatch)


@implementer(ISSLTransport)
class TwistedTlsWire(TwistedWire):
    """Like a TLS transport of Twisted's, which is there before the handshake."""


def asking(settings: bytes = b"", *, method: bytes = b"GET", fields: bytes = b"") -> bytes:
    """Build a request that asks to switch, with the payload of a SETTINGS frame (RFC 7540 §3.2)."""
    value = base64.urlsafe_b64encode(settings).rstrip(b"=")
    lines = (b"Host: a", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: " + value)
    return method + b" /old?a=b HTTP/1.1\r\n" + b"\r\n".join(lines) + b"\r\n" + fields + b"\r\n"


def setting(name: int, value: int) -> bytes:
    return struct.pack("!HI", name, value)


async def switched(app: Any, kind: Callable[..., Wire], request: bytes, *more: bytes, **options: Any) -> Talk:
    """Let the client ask to switch, and read frames behind the 101."""
    talk = Talk(app, kind, config=UPGRADES, **options)
    talk.wire.receive(b"".join((request, *more)))
    await turns()
    head, _, _ = bytes(talk.wire.sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    talk.client = client_of(talk.wire, read=len(head) + 4)
    return talk


# --- RFC 9113 §3.3: a client that knows ---


@both
@pytest.mark.parametrize("way", ["whole", "byte by byte", "in sevens"])
@in_virtual_time
async def test_rfc9113_3_3_prior_knowledge_is_served(kind: type[Wire], way: str) -> None:
    talk = Talk(hello, kind)
    talk.client = client_of(talk.wire, way=way)
    [before] = talk.server.connections
    await talk.send(HELLO, get(1))
    assert (talk.status(), talk.answer().body, talk.answer().ended) == (200, b"hello", True)
    assert isinstance(before, Connection)
    assert talk.server.connections == {talk.connection}
    await talk.send(ping())
    assert f.frame(f.PING, f.ACK, 0, b"12345678") in bytes(talk.wire.sent)
    talk.wire.lose()
    await turns()
    assert talk.over


@both
@in_virtual_time
async def test_rfc9113_3_4_settings_are_the_first_thing_that_is_sent(kind: type[Wire]) -> None:
    talk = Talk(hello, kind)
    await talk.send(f.PREFACE[:-1])
    assert not talk.wire.sent
    await talk.send(f.PREFACE[-1:])
    first = read_frames(bytes(talk.wire.sent))[0]
    assert (first.kind, first.flags, first.stream) == (f.SETTINGS, 0, 0)
    values = dict(f.read_settings(first.payload))
    assert values[SettingCodes.MAX_CONCURRENT_STREAMS] == 100
    assert values[SettingCodes.INITIAL_WINDOW_SIZE] == 65_536
    assert values[SettingCodes.ENABLE_CONNECT_PROTOCOL] == 1  # RFC 8441 §3


@both
@in_virtual_time
async def test_what_begins_like_the_preface_may_yet_be_http_1(kind: type[Wire]) -> None:
    talk = Talk(hello, kind)
    talk.wire.receive(b"P")
    talk.wire.receive(b"OST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    await turns()
    assert read_answer(bytes(talk.wire.sent), b"POST", ended=False).body == b"hello"


@both
@in_virtual_time
async def test_preface_is_no_request_where_http2_is_off(kind: type[Wire]) -> None:
    talk = Talk(hello, kind, config=Config(http2=False))
    talk.wire.receive(HELLO)
    await turns()
    assert read_answer(bytes(talk.wire.sent), b"GET", ended=True).status == 501  # PRI is a method that nobody knows (spec limits L2)


@both
@in_virtual_time
async def test_preface_behind_an_http_1_request_is_refused(kind: type[Wire]) -> None:
    talk = Talk(hello, kind)
    talk.wire.receive(GET)
    await turns()
    before = len(talk.wire.sent)
    talk.wire.receive(HELLO)
    await turns()
    assert read_answer(bytes(talk.wire.sent[before:]), b"GET", ended=True).status == 501


@both
@in_virtual_time
async def test_rfc9113_3_4_preface_without_settings_is_a_protocol_error(kind: type[Wire], caplog: pytest.LogCaptureFixture) -> None:
    log = Log(caplog)
    talk = Talk(hello, kind)
    await talk.send(f.PREFACE, get(1))
    assert (talk.codes, talk.status()) == ([PROTOCOL_ERROR], 0)
    assert talk.wire.calls == ["shut"]
    assert any("PROTOCOL_ERROR" in line for line in log.lines(logging.INFO))


@in_virtual_time
async def test_loop_s_transport_hands_bytes_to_the_http2_connection_itself() -> None:
    talk = await talked(hello, LoopWire)
    assert isinstance(talk.wire.transport, LoopTransport)
    assert talk.wire.transport.data_received == talk.connection.dataReceived


@in_virtual_time
async def test_twisted_s_transport_goes_on_calling_the_http1_connection() -> None:
    puppet = Puppet(listens=True)
    talk = await talked(puppet, TwistedWire)
    await talk.send(get(1), get(3))
    assert len(puppet.calls) == 2
    talk.wire.shut()
    await turns()
    assert [call.left for call in puppet] == [True, True]
    talk.wire.lose()
    for call in puppet:
        await call.finish()
    assert talk.over


@both
@in_virtual_time
async def test_scope_says_http_2_and_where_it_came_from(kind: type[Wire]) -> None:
    scopes: list[Message] = []

    async def app(scope: Message, *call: Any) -> None:
        scopes.append(scope)
        await hello(scope, *call)

    talk = await talked(app, kind)
    await talk.send(get(1, (b"accept", b"*/*")))
    [scope] = scopes
    assert (scope["type"], scope["http_version"], scope["scheme"]) == ("http", "2", "http")  # spec attacks B13: the client said https
    assert (scope["method"], scope["path"], scope["raw_path"], scope["query_string"]) == ("GET", "/", b"/", b"")
    assert scope["headers"] == [(b"host", b"a"), (b"accept", b"*/*")]
    if kind is LoopWire:
        assert (scope["client"], scope["server"]) == (CLIENT, SERVER)


# --- RFC 9113 §3.2: agreed upon with TLS ---


@in_virtual_time
async def test_rfc9113_3_2_alpn_h2_is_http2_from_the_first_byte() -> None:
    talk = Talk(hello, TlsWire)
    assert isinstance(talk.connection, Http2Connection)
    assert read_frames(bytes(talk.wire.sent))[0].kind == f.SETTINGS  # before the client has said anything
    await talk.greet()
    await talk.send(get(1))
    assert (talk.status(), talk.answer().body) == (200, b"hello")


@pytest.mark.parametrize("agreed", ["http/1.1", None])
@in_virtual_time
async def test_rfc9113_3_2_any_other_agreement_is_http1(monkeypatch: pytest.MonkeyPatch, agreed: str | None) -> None:
    monkeypatch.setattr(TlsWire, "agreed", agreed)
    talk = Talk(hello, TlsWire)
    [connection] = talk.server.connections
    assert isinstance(connection, Connection)
    talk.wire.receive(GET)
    await turns()
    assert read_answer(bytes(talk.wire.sent), b"GET", ended=False).body == b"hello"


@pytest.mark.parametrize("kind", [TlsWire, TwistedTlsWire], ids=["loop", "twisted"])
@in_virtual_time
async def test_rfc7540_3_2_http1_over_tls_is_no_place_for_h2c(monkeypatch: pytest.MonkeyPatch, kind: type[Wire]) -> None:
    monkeypatch.setattr(TlsWire, "agreed", None)
    talk = Talk(hello, kind, config=UPGRADES)
    talk.wire.receive(asking())
    await turns()
    assert read_answer(bytes(talk.wire.sent), b"GET", ended=False).status == 200


@in_virtual_time
async def test_tls_extension_reaches_the_application() -> None:
    scopes: list[Message] = []

    async def app(scope: Message, *call: Any) -> None:
        scopes.append(scope)
        await hello(scope, *call)

    talk = await talked(app, TlsWire)
    await talk.send(get(1))
    assert scopes[0]["extensions"]["tls"] == {"tls_version": 0x0304}
    assert scopes[0]["scheme"] == "https"
    assert "http.response.trailers" in scopes[0]["extensions"]


@pytest.mark.parametrize(
    ("cipher", "version", "weak"),
    [
        ("AES128-GCM-SHA256", "TLSv1.2", True),
        ("ECDHE-RSA-AES128-SHA", "TLSv1.2", True),
        ("ECDHE-RSA-AES128-SHA256", "TLSv1.2", True),
        ("ECDHE-RSA-AES128-GCM-SHA256", "TLSv1.2", False),
        ("DHE-RSA-AES256-GCM-SHA384", "TLSv1.2", False),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", "TLSv1.2", False),
        ("TLS_AES_128_GCM_SHA256", "TLSv1.3", False),
    ],
)
@in_virtual_time
async def test_rfc9113_9_2_2_forbidden_cipher_suite_is_inadequate_security(
    monkeypatch: pytest.MonkeyPatch, cipher: str, version: str, *, weak: bool
) -> None:
    monkeypatch.setattr(TlsWire, "cipher", (cipher, version, 128))
    talk = Talk(hello, TlsWire)
    assert talk.codes == ([ErrorCodes.INADEQUATE_SECURITY] if weak else [])
    assert talk.wire.calls == (["close"] if weak else [])
    if weak:
        await turns()
        assert talk.over


@in_virtual_time
async def test_twisted_s_tls_is_followed_by_the_preface() -> None:
    talk = await talked(hello, TwistedTlsWire)
    await talk.send(get(1))
    assert talk.answer().body == b"hello"


@in_virtual_time
async def test_alpn_is_offered_to_twisted_s_endpoints_too() -> None:
    for on, names in ((True, [b"h2", b"http/1.1"]), (False, [b"http/1.1"])):
        talk = Talk(hello, config=Config(http2=on))
        assert verifyObject(IProtocolNegotiationFactory, talk.server)
        assert talk.server.acceptableProtocols() == names


@in_virtual_time
async def test_weak_tls_of_a_client_that_does_not_answer_is_over_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TlsWire, "cipher", ("AES128-SHA", "TLSv1.2", 128))
    talk = Talk(hello, TlsWire, goes=False)
    assert talk.wire.calls == ["close"]
    await asyncio.sleep(40)  # spec limits L17
    assert talk.wire.calls == ["close", "abort"]


# --- RFC 7540 §3.2: asked for ---


@both
@in_virtual_time
async def test_rfc7540_3_2_upgrade_makes_the_request_stream_1(kind: type[Wire]) -> None:
    scopes: list[Message] = []

    async def app(scope: Message, *call: Any) -> None:
        scopes.append(scope)
        await hello(scope, *call)

    talk = await switched(app, kind, asking(fields=b"Accept: */*\r\n"))
    await talk.greet()
    assert (talk.status(1), talk.answer(1).body, talk.answer(1).ended) == (200, b"hello", True)
    await talk.send(get(3))
    assert talk.answer(3).body == b"hello"
    assert [scope["http_version"] for scope in scopes] == ["2", "2"]
    assert (scopes[0]["path"], scopes[0]["query_string"]) == ("/old", b"a=b")
    assert scopes[0]["headers"] == [(b"host", b"a"), (b"accept", b"*/*")]  # nothing that was about the switch


@both
@in_virtual_time
async def test_rfc7540_3_2_settings_follow_the_101_at_once(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await switched(puppet, kind, asking())
    assert [frame.kind for frame in talk.client.take()][:1] == [f.SETTINGS]
    head = bytes(talk.wire.sent).partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
    assert b"upgrade: h2c" in head
    assert b"connection: upgrade" in head
    await puppet[0].finish()


@both
@in_virtual_time
async def test_rfc7540_3_2_preface_may_come_right_behind_the_request(kind: type[Wire]) -> None:
    talk = await switched(hello, kind, asking(), HELLO, get(3))
    assert (talk.answer(1).body, talk.answer(3).body) == (b"hello", b"hello")


@both
@in_virtual_time
async def test_rfc7540_3_2_1_settings_of_the_field_hold(kind: type[Wire]) -> None:
    talk = await switched(hello, kind, asking(setting(SettingCodes.INITIAL_WINDOW_SIZE, 2)))
    assert talk.answer(1).body == b"he"
    await talk.greet((SettingCodes.INITIAL_WINDOW_SIZE, 10))
    assert (talk.answer(1).body, talk.answer(1).ended) == (b"hello", True)


@both
@in_virtual_time
async def test_rfc7540_3_2_1_settings_that_may_not_be_end_it(kind: type[Wire], caplog: pytest.LogCaptureFixture) -> None:
    log = Log(caplog)
    puppet = Puppet()
    talk = await switched(puppet, kind, asking(setting(SettingCodes.INITIAL_WINDOW_SIZE, 1 << 31)))
    assert talk.codes == [ErrorCodes.FLOW_CONTROL_ERROR]
    assert (puppet.calls, talk.wire.calls) == ([], ["shut"])
    assert any("FLOW_CONTROL_ERROR" in line for line in log.lines(logging.INFO))  # as any other fault of a client's


@both
@in_virtual_time
async def test_rfc7540_3_2_head_is_answered_without_a_body(kind: type[Wire]) -> None:
    talk = await switched(hello, kind, asking(method=b"HEAD"), HELLO)
    assert (talk.status(1), talk.answer(1).body, talk.answer(1).ended) == (200, b"", True)


@both
@in_virtual_time
async def test_rfc7540_3_2_after_the_switch_only_the_preface_may_follow(kind: type[Wire]) -> None:
    puppet = Puppet(listens=True)
    talk = await switched(puppet, kind, asking(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert talk.codes == [PROTOCOL_ERROR]
    assert puppet[0].left
    await puppet[0].finish()


@both
@in_virtual_time
async def test_upgrade_over_the_limit_of_calls_is_503(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = Talk(puppet, kind, config=UPGRADES, limits=Limits(concurrency=1))
    await talk.greet()
    await talk.send(get(1))
    wire = kind(talk.server)
    wire.receive(asking())
    await turns()
    assert bytes(wire.sent).startswith(b"HTTP/1.1 503 ")
    await puppet[0].finish()


@both
@in_virtual_time
async def test_upgrade_is_http1_unless_it_is_asked_for(kind: type[Wire]) -> None:
    talk = Talk(hello, kind)
    talk.wire.receive(asking())
    await turns()
    assert read_answer(bytes(talk.wire.sent), b"GET", ended=False).body == b"hello"


@both
@in_virtual_time
async def test_upgraded_connection_that_is_lost_tells_the_application(kind: type[Wire]) -> None:
    puppet = Puppet(listens=True)
    talk = await switched(puppet, kind, asking())
    talk.wire.lose()
    await turns()
    assert puppet[0].left
    await puppet[0].finish()
    assert talk.over


# --- the server ---


@both
@in_virtual_time
async def test_connection_that_speaks_up_while_the_server_stops_is_told_so(kind: type[Wire]) -> None:
    talk = Talk(hello, kind)
    talk.server.stage = DRAINING
    await talk.send(HELLO, get(1))
    assert talk.answer(1).body == b"hello"  # it was on its way
    assert talk.client.goaways[0] == (f.LAST_STREAM, NO_ERROR)
    await talk.send(ping(b"draining", ack=True))
    assert talk.client.goaways[-1] == (1, NO_ERROR)
    assert talk.wire.calls == ["shut"]
    talk.server.stage = SERVING


@in_virtual_time
async def test_fields_of_an_upgrade_that_lies_are_refused() -> None:
    talk = Talk(hello, config=UPGRADES)
    talk.wire.receive(asking().replace(b"HTTP2-Settings: ", b"HTTP2-Settings: !"))
    await turns()
    assert bytes(talk.wire.sent).startswith(b"HTTP/1.1 400 ")


@both
@in_virtual_time
async def test_control_flood_of_a_client_that_does_not_read_is_cut(kind: type[Wire]) -> None:
    """Spec limits L30."""
    talk = await talked(hello, kind, limits=Limits(http2_control_frames=10))
    talk.wire.block()
    await talk.send(*[ping()] * 10)
    assert talk.wire.calls == []
    await talk.send(ping())
    assert talk.wire.calls == ["abort"]
    await turns()
    assert talk.over


def test_client_reads_what_a_wire_has_sent() -> None:
    wire = LoopWire()
    client: Client = client_of(wire)
    wire.write(f.goaway(7, CALM))
    assert client.goaways == [(7, CALM)]
