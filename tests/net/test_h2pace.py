"""How long an HTTP/2 connection and its streams may take (spec limits L12 to L17, L32, L35, L48): each limit, and just over it."""

import asyncio
import logging

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from fakes import Log, body, in_virtual_time, now, sender, start, turns
from net.h2talk import CALM, CANCEL, INTERNAL_ERROR, LINE, NO_ERROR, Puppet, SocketPuppet, Talk, TlsWire, both, stop_clocks, talked
from net.wires import LoopWire, TwistedWire, Wire
from termserver.config import Limits
from termserver.errors import ClientDisconnected
from termserver.wire import h2frames as f
from wire.h2driving import block, continuation, data, fields, frame, get, headers, ping, post, reset, window

hello = sender(start(200, [(b"content-length", b"5")]), body(b"hello"))
NO_WINDOW = (SettingCodes.INITIAL_WINDOW_SIZE, 0)
WIDE = (SettingCodes.INITIAL_WINDOW_SIZE, f.LARGEST_WINDOW)
TICK = 0.3  # a time-out of the connection comes no later than this,
LOOKS = 1.1  # one of a head or of a stream, which is looked at now and then, than this


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_clocks(monkeypatch)


async def gone(talk: Talk, code: int, *calls: str) -> None:
    """Expect the connection to be told why it ends, and to end in this way."""
    assert talk.codes[-1:] == [code]
    assert talk.wire.calls == list(calls or ("shut",))


# --- L32 and spec attacks C15: the preface, the settings ---


@both
@pytest.mark.parametrize("said", [b"", f.PREFACE[:10]], ids=["nothing", "a part"])
@in_virtual_time
async def test_l12_first_bytes_have_their_time(kind: type[Wire], said: bytes) -> None:
    talk = Talk(hello, kind)
    if said:
        await talk.send(said)
    await asyncio.sleep(9.9)
    assert talk.wire.calls == []
    await asyncio.sleep(TICK)
    assert len(talk.wire.calls) == 1


@pytest.mark.parametrize("said", [b"", f.PREFACE[:10], f.PREFACE, f.PREFACE + f.settings([])[:5]])
@in_virtual_time
async def test_l32_preface_has_its_time(said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    log = Log(caplog)
    talk = Talk(hello, TlsWire)
    if said:
        await talk.send(said)
    await asyncio.sleep(4.9)
    assert talk.codes == []
    await asyncio.sleep(TICK)
    await gone(talk, ErrorCodes.SETTINGS_TIMEOUT, "close")
    assert any("SETTINGS_TIMEOUT" in line for line in log.lines(logging.INFO))
    assert talk.over


@both
@in_virtual_time
async def test_l32_preface_that_was_known_beforehand_is_followed_by_settings_in_time(kind: type[Wire]) -> None:
    talk = Talk(hello, kind)
    await talk.send(f.PREFACE)
    await asyncio.sleep(4.9)
    assert talk.codes == []
    await asyncio.sleep(TICK)
    await gone(talk, ErrorCodes.SETTINGS_TIMEOUT)


@both
@in_virtual_time
async def test_l32_settings_are_acknowledged_in_time(kind: type[Wire]) -> None:
    """Ours were sent first of all, and the client's whole preface came at once."""
    talk = Talk(hello, kind)
    await talk.send(f.PREFACE, f.settings([]))
    await asyncio.sleep(4.9)
    assert talk.codes == []
    await asyncio.sleep(TICK)
    await gone(talk, ErrorCodes.SETTINGS_TIMEOUT)


@both
@in_virtual_time
async def test_l32_settings_are_acknowledged_in_time_by_a_busy_client_too(kind: type[Wire]) -> None:
    puppet = Puppet(listens=True)
    talk = Talk(puppet, kind)
    await talk.send(f.PREFACE, f.settings([]), get(1))
    await asyncio.sleep(4.9)
    assert talk.codes == []
    await asyncio.sleep(LOOKS)
    await gone(talk, ErrorCodes.SETTINGS_TIMEOUT)
    assert puppet[0].left
    await puppet[0].finish()


@both
@in_virtual_time
async def test_l32_acknowledgement_that_came_is_enough(kind: type[Wire]) -> None:
    for late in (0, 4):
        talk = Talk(hello, kind)
        await talk.send(f.PREFACE, f.settings([]))
        await asyncio.sleep(late)
        await talk.send(f.SETTINGS_ACK)
        await asyncio.sleep(30)
        assert (talk.codes, talk.wire.calls) == ([], [])


@both
@in_virtual_time
async def test_l32_off_is_off(kind: type[Wire]) -> None:
    talk = Talk(hello, kind, http2_preface=0, http2_settings=0, keep_alive=0, header_read=0)
    await talk.send(f.PREFACE)
    await asyncio.sleep(1_000)
    assert (talk.codes, talk.wire.calls) == ([], [])
    await talk.send(f.settings([]))
    await asyncio.sleep(1_000)
    assert (talk.codes, talk.wire.calls) == ([], [])


@in_virtual_time
async def test_l32_settings_off_while_the_preface_has_a_limit() -> None:
    talk = Talk(hello, http2_settings=0)
    await talk.send(f.PREFACE, f.settings([]))
    await asyncio.sleep(60)
    assert talk.codes == []


# --- L12 and spec attacks C3: a header block ---


@both
@pytest.mark.parametrize(
    "pieces",
    [
        [headers(1, block(fields())[:3], whole=False)],
        [headers(1, block(fields())[:3], whole=False), continuation(1, block(fields())[3:5], whole=False)],
        [headers(1, fields())[:4]],
        [headers(1, fields())[:12]],
    ],
    ids=["HEADERS", "CONTINUATION", "a frame's header", "a frame"],
)
@in_virtual_time
async def test_l12_head_has_its_time(kind: type[Wire], pieces: list[bytes]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind)
    await asyncio.sleep(20)
    await talk.send(*pieces)
    await asyncio.sleep(9.9)
    assert talk.codes == []
    await asyncio.sleep(LOOKS)
    await gone(talk, CALM)
    assert puppet.calls == []


@both
@in_virtual_time
async def test_l12_a_head_that_drips_has_no_more_time(kind: type[Wire]) -> None:
    talk = await talked(hello, kind)
    dripping = headers(1, fields(b"GET", b"/" + b"x" * 60))
    for at in range(11):
        await talk.send(dripping[at : at + 1])
        await asyncio.sleep(0.9)
    assert talk.codes == []
    await asyncio.sleep(LOOKS)
    await gone(talk, CALM)


@both
@in_virtual_time
async def test_l12_every_head_has_a_time_of_its_own(kind: type[Wire]) -> None:
    talk = await talked(hello, kind)
    for number in range(1, 9, 2):
        whole = get(number)
        await talk.send(whole[:10])
        await asyncio.sleep(9)
        await talk.send(whole[10:] + get(number + 2)[:5] if number == 7 else whole[10:])
        assert talk.answer(number).ended
    await asyncio.sleep(8)
    assert talk.codes == []


@in_virtual_time
async def test_l12_one_head_behind_another_has_a_time_of_its_own() -> None:
    talk = await talked(hello)
    for number in range(1, 21, 2):
        rest = get(number) if number == 1 else get(number)[5:]
        await talk.send(rest + get(number + 2)[:5])
        await asyncio.sleep(4)
    assert talk.codes == []
    assert talk.answer(19).ended


@in_virtual_time
async def test_l12_off_is_off() -> None:
    talk = await talked(hello, header_read=0, keep_alive=0)
    await talk.send(get(1)[:5])
    await asyncio.sleep(1_000)
    assert talk.codes == []


@both
@in_virtual_time
async def test_l12_part_of_a_body_is_no_head(kind: type[Wire]) -> None:
    puppet = Puppet(listens=True)
    talk = await talked(puppet, kind, body_rate=0)
    await talk.send(post(1), data(1, b"x" * 100)[:50])
    await asyncio.sleep(30)
    assert (talk.codes, talk.answer().code) == ([], None)
    await talk.send(data(1, b"x" * 100)[50:])
    assert puppet[0].body == b"x" * 100
    await talk.send(reset(1))
    await puppet[0].finish()


# --- L13, L14: a body ---


@both
@in_virtual_time
async def test_l13_body_that_stops_is_cancelled(kind: type[Wire], caplog: pytest.LogCaptureFixture) -> None:
    log = Log(caplog)
    puppet = Puppet(listens=True)
    talk = await talked(puppet, kind, body_rate=0)
    await talk.send(post(1), post(3))
    await asyncio.sleep(30)
    await talk.send(data(1, b"x"))
    await asyncio.sleep(29)
    assert (talk.answer(1).code, talk.answer(3).code) == (None, None)
    await asyncio.sleep(1 + LOOKS)
    assert (talk.answer(1).code, talk.answer(3).code) == (None, CANCEL)
    assert [call.left for call in puppet] == [False, True]
    await asyncio.sleep(30)
    assert talk.answer(1).code == CANCEL
    assert any("no body byte" in line for line in log.lines(logging.INFO))
    assert talk.codes == []
    for call in puppet:
        await call.finish()


@both
@in_virtual_time
async def test_l13_stands_while_the_application_does_not_read(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind)
    await talk.send(post(1), *[data(1, b"x" * 16_384)] * 4)
    await asyncio.sleep(1_000)
    assert talk.answer().code is None
    assert len((await puppet[0].receive())["body"]) == 65_536
    await asyncio.sleep(59)
    assert talk.answer().code is None
    await asyncio.sleep(1 + LOOKS)
    assert talk.answer().code == CANCEL
    await puppet[0].finish()


@both
@in_virtual_time
async def test_l13_stands_while_the_connection_s_window_is_shut_by_others(kind: type[Wire]) -> None:
    """A client without window can send nothing, on whatever stream: that is our applications' fault."""
    puppet = Puppet()
    talk = await talked(puppet, kind, limits=Limits(http2_window=65_535, body_buffer=65_536))
    await talk.send(post(1), *[data(1, b"x" * 16_384)] * 3, data(1, b"x" * 16_383), post(3))
    await asyncio.sleep(120)
    assert (talk.answer(1).code, talk.answer(3).code) == (None, None)
    for call in puppet:
        await call.finish()


@both
@in_virtual_time
async def test_l14_body_has_a_least_rate(kind: type[Wire], caplog: pytest.LogCaptureFixture) -> None:
    log = Log(caplog)
    puppet = Puppet(listens=True)
    talk = await talked(puppet, kind)
    await talk.send(post(1), post(3))
    for _ in range(50):
        await talk.send(data(1, b"x" * 260), data(3, b"x" * 200))
        await asyncio.sleep(1)
    assert (talk.answer(1).code, talk.answer(3).code) == (None, CANCEL)
    assert any("too slowly" in line for line in log.lines(logging.INFO))
    assert [call.left for call in puppet] == [False, True]
    await talk.send(data(1, b"", ended=True))
    for call in puppet:
        await call.finish()


@both
@in_virtual_time
async def test_l14_has_a_grace(kind: type[Wire]) -> None:
    puppet = Puppet(listens=True)
    talk = await talked(puppet, kind)
    await talk.send(post(1))
    await asyncio.sleep(4.9)
    assert talk.answer().code is None
    await asyncio.sleep(LOOKS)
    assert talk.answer().code == CANCEL
    await puppet[0].finish()


@both
@in_virtual_time
async def test_l13_and_l14_end_with_the_body(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind)
    await talk.send(post(1), data(1, b"x", ended=True))
    await asyncio.sleep(1_000)
    assert talk.answer().code is None
    await puppet[0].send(start(200))
    await puppet[0].send(body(b"late"))
    await puppet[0].finish()
    assert talk.answer().body == b"late"


# --- L15: nothing to do ---


@both
@in_virtual_time
async def test_l15_idle_connection_is_told_and_ended(kind: type[Wire]) -> None:
    talk = await talked(hello, kind)
    await talk.send(get(1))
    await asyncio.sleep(74.9)
    assert talk.codes == []
    await asyncio.sleep(LOOKS)
    assert talk.client.goaways == [(1, NO_ERROR)]
    assert talk.wire.calls == ["shut"]


@both
@in_virtual_time
async def test_l15_connection_that_never_asked_is_idle_too(kind: type[Wire]) -> None:
    talk = await talked(hello, kind)
    await asyncio.sleep(74.9)
    assert talk.codes == []
    await asyncio.sleep(TICK)
    await gone(talk, NO_ERROR)


@both
@in_virtual_time
async def test_l15_pings_are_no_requests(kind: type[Wire]) -> None:
    talk = await talked(hello, kind)
    for _ in range(7):
        await talk.send(ping())
        await asyncio.sleep(10)
    assert talk.codes == []
    await asyncio.sleep(5 + TICK)
    await gone(talk, NO_ERROR)


@both
@in_virtual_time
async def test_l15_begins_with_the_end_of_the_last_stream(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind)
    await talk.send(get(1))
    await asyncio.sleep(200)
    await puppet[0].send(start(200))
    await puppet[0].send(body(b"late"))
    await puppet[0].finish()
    assert talk.answer().ended
    await asyncio.sleep(74)
    assert talk.codes == []
    await asyncio.sleep(1 + LOOKS)
    await gone(talk, NO_ERROR)


@both
@in_virtual_time
async def test_l15_connection_whose_call_goes_on_is_not_idle(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind)
    await talk.send(get(1))
    await puppet[0].send(start(200))
    await puppet[0].send(body(b"done"))
    await turns()
    assert talk.answer().ended
    await asyncio.sleep(300)
    assert talk.codes == []
    await puppet[0].finish()
    await asyncio.sleep(LOOKS)  # the client has asked for nothing for long enough
    await gone(talk, NO_ERROR)


@in_virtual_time
async def test_l15_off_is_off() -> None:
    talk = await talked(hello, keep_alive=0)
    await talk.send(get(1))
    await asyncio.sleep(1_000)
    assert talk.codes == []


@in_virtual_time
async def test_l15_open_socket_is_not_idle() -> None:
    talk = await talked(SocketPuppet(), websocket_ping_interval=0)
    await talk.open()
    await asyncio.sleep(1_000)
    assert talk.codes == []


# --- L17: farewells ---


@both
@in_virtual_time
async def test_l17_client_that_does_not_go_is_closed_then_cut(kind: type[Wire], caplog: pytest.LogCaptureFixture) -> None:
    log = Log(caplog)
    talk = await talked(hello, kind, goes=False)
    await talk.send(frame(f.PING, 0, 0, b"short"))
    assert talk.wire.calls == ["shut"]
    await asyncio.sleep(4.9)
    assert talk.wire.calls == ["shut"]
    await asyncio.sleep(TICK)
    assert talk.wire.calls == ["shut", "close"]
    await asyncio.sleep(30 + TICK)
    assert talk.wire.calls == ["shut", "close", "abort"]
    assert any("did not go away" in line for line in log.lines(logging.INFO))


@both
@in_virtual_time
async def test_l17_client_that_goes_on_sending_has_no_more_than_the_total(kind: type[Wire]) -> None:
    talk = await talked(hello, kind)
    await talk.send(frame(f.PING, 0, 0, b"short"))
    for _ in range(14):
        await asyncio.sleep(2)
        await talk.send(ping())
    assert talk.wire.calls == ["shut"]
    await asyncio.sleep(2 + TICK)
    assert talk.wire.calls == ["shut", "close"]


@both
@in_virtual_time
async def test_l17_farewell_begins_behind_the_last_bytes(kind: type[Wire]) -> None:
    talk = await talked(hello, kind, goes=False)
    talk.wire.waiting = 1_000_000
    talk.wire.block()
    await talk.send(frame(f.PING, 0, 0, b"short"))
    for _ in range(50):
        await asyncio.sleep(1)
        talk.wire.waiting -= 10_000
    assert talk.wire.calls == []
    talk.wire.unblock()
    await asyncio.sleep(4)
    assert talk.wire.calls == ["shut"]
    await asyncio.sleep(1 + LOOKS)
    assert talk.wire.calls == ["shut", "close"]


@in_virtual_time
async def test_l17_tls_client_need_not_answer_our_alert() -> None:
    talk = await talked(hello, TlsWire, goes=False)
    await talk.send(frame(f.PING, 0, 0, b"short"))
    assert talk.wire.calls == ["close"]
    await asyncio.sleep(34.9)
    assert talk.wire.calls == ["close"]
    await asyncio.sleep(LOOKS)
    assert talk.wire.calls == ["close", "abort"]


@in_virtual_time
async def test_l17_tls_client_is_given_what_was_sent_before() -> None:
    talk = await talked(hello, TlsWire)
    talk.wire.waiting = 100_000
    await talk.send(frame(f.PING, 0, 0, b"short"))
    assert talk.wire.calls == ["close"]
    for _ in range(90):
        await asyncio.sleep(1)
        talk.wire.waiting -= 1_000
    await asyncio.sleep(59)
    assert talk.wire.calls == ["close"]
    await asyncio.sleep(1 + LOOKS)
    assert talk.wire.calls == ["close", "abort"]  # it has stopped reading


@in_virtual_time
async def test_l17_off_is_off() -> None:
    talk = await talked(hello, goes=False, linger_idle=0, linger_total=0)
    await talk.send(frame(f.PING, 0, 0, b"short"))
    await asyncio.sleep(1_000)
    assert talk.wire.calls == ["shut"]


# --- L35 and spec attacks C8: clients that do not read ---


@both
@in_virtual_time
async def test_l35_transport_that_stands_still_is_cut(kind: type[Wire], caplog: pytest.LogCaptureFixture) -> None:
    log = Log(caplog)
    puppet = Puppet()
    talk = await talked(puppet, kind, WIDE)
    await talk.send(get(1), get(3))
    talk.wire.waiting = 100_000
    talk.wire.block()
    await puppet[0].send(start(200))
    sending = asyncio.ensure_future(puppet[0].send(body(b"x" * 100_000, more_body=True)))
    await asyncio.sleep(59)
    assert (talk.wire.calls, sending.done()) == ([], False)
    await asyncio.sleep(1 + LOOKS)
    assert talk.wire.calls[-1] == "abort"
    await turns()
    assert isinstance(sending.exception(), ClientDisconnected)
    assert any("stopped reading" in line for line in log.lines(logging.INFO))
    for call in puppet:
        await call.finish()
    assert talk.over


@in_virtual_time
async def test_l35_transport_that_drips_is_cut() -> None:
    talk = await talked(hello)
    await talk.send(get(1))
    talk.connection._written += 100_000
    talk.wire.waiting = 100_000
    talk.wire.block()
    for _ in range(61):
        await asyncio.sleep(1)
        talk.wire.waiting -= 200
    assert talk.wire.calls == ["abort"]


@in_virtual_time
async def test_l35_transport_that_is_slow_enough_is_not_cut() -> None:
    talk = await talked(hello, keep_alive=0)
    await talk.send(get(1))
    talk.connection._written += 100_000
    talk.wire.waiting = 100_000
    talk.wire.block()
    for _ in range(300):
        await asyncio.sleep(1)
        talk.wire.waiting -= 260
    assert talk.wire.calls == []
    talk.wire.unblock()
    await asyncio.sleep(120)
    assert talk.wire.calls == []


@both
@in_virtual_time
async def test_l35_stream_whose_window_stays_shut_is_cancelled(kind: type[Wire], caplog: pytest.LogCaptureFixture) -> None:
    log = Log(caplog)
    puppet = Puppet()
    talk = await talked(puppet, kind, NO_WINDOW)
    await talk.send(get(1), get(3))
    await puppet[0].send(start(200))
    sending = asyncio.ensure_future(puppet[0].send(body(b"x" * 100_000, more_body=True)))
    await asyncio.sleep(59)
    assert (talk.answer(1).code, sending.done()) == (None, False)
    await asyncio.sleep(1 + LOOKS)
    assert talk.answer(1).code == CANCEL
    assert isinstance(sending.exception(), ClientDisconnected)
    assert any("stopped reading" in line for line in log.lines(logging.INFO))
    assert (talk.answer(3).code, talk.codes) == (None, [])  # it has nothing to read
    for call in puppet:
        await call.finish()


@both
@in_virtual_time
async def test_l35_response_that_is_complete_for_us_is_watched_as_well(kind: type[Wire]) -> None:
    talk = await talked(hello, kind, NO_WINDOW)
    await talk.send(get(1))
    assert talk.server.running == 0
    await asyncio.sleep(59)
    assert talk.answer().code is None
    await asyncio.sleep(1 + LOOKS)
    assert talk.answer().code == CANCEL
    assert talk.connection.engine.streams == {}


@both
@pytest.mark.parametrize(("step", "cut"), [(200, True), (260, False)])
@in_virtual_time
async def test_l35_window_that_drips_has_a_least_rate(kind: type[Wire], step: int, *, cut: bool) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind, NO_WINDOW)
    await talk.send(get(1))
    await puppet[0].send(start(200))
    sending = asyncio.ensure_future(puppet[0].send(body(b"x" * 100_000, more_body=True)))
    for _ in range(63):
        await talk.send(window(1, step))
        await asyncio.sleep(1)
        if talk.answer().code is not None:
            break
    assert (talk.answer().code == CANCEL) is cut
    await talk.send(reset(1))
    await asyncio.wait({sending})
    await puppet[0].finish()


@both
@in_virtual_time
async def test_l35_connection_s_window_that_stays_shut_ends_it_all(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind, WIDE)
    await talk.send(get(1), get(3))
    sending = []
    for call in puppet:
        await call.send(start(200))
        sending.append(asyncio.ensure_future(call.send(body(b"x" * 200_000, more_body=True))))
    await asyncio.sleep(59)
    assert talk.codes == []
    await asyncio.sleep(1 + LOOKS)
    assert talk.codes == [CALM]
    assert talk.wire.calls[-1] == "abort"
    for each in sending:
        assert isinstance(each.exception(), ClientDisconnected)
    for call in puppet:
        await call.finish()
    assert talk.over


@both
@in_virtual_time
async def test_l35_connection_s_window_that_opens_in_time_is_enough(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind, WIDE)
    await talk.send(get(1))
    await puppet[0].send(start(200))
    sending = asyncio.ensure_future(puppet[0].send(body(b"x" * 350_000, more_body=True)))
    for _ in range(6):
        await asyncio.sleep(50)
        await talk.send(window(0, 50_000))
    assert (talk.codes, sending.done()) == ([], True)
    await talk.send(window(0, 50_000))
    assert len(talk.answer().body) == 350_000
    await asyncio.sleep(120)  # nothing waits any more
    assert talk.codes == []
    await puppet[0].finish()


@in_virtual_time
async def test_l35_off_is_off() -> None:
    puppet = Puppet()
    talk = await talked(puppet, LoopWire, NO_WINDOW, write_stall=0)
    await talk.send(get(1))
    await puppet[0].send(start(200))
    sending = asyncio.ensure_future(puppet[0].send(body(b"x" * 100_000, more_body=True)))
    await asyncio.sleep(1_000)
    assert talk.answer().code is None
    await talk.send(reset(1))
    await asyncio.wait({sending})
    await puppet[0].finish()


# --- L48: applications that take long ---


@both
@in_virtual_time
async def test_l48_nothing_said_in_time_is_504_and_the_call_is_cancelled(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind, application=20, log=LINE)
    await talk.send(get(1))
    await asyncio.sleep(10)
    await talk.send(get(3))
    await asyncio.sleep(9.9)
    assert talk.status(1) == 0
    await asyncio.sleep(LOOKS)
    assert (talk.status(1), talk.answer(1).ended) == (504, True)
    assert [call.over for call in puppet] == [True, False]
    assert isinstance(puppet[0].raised, asyncio.CancelledError)
    assert talk.status(3) == 0
    assert [line.rsplit(" ", 1)[0] for line in talk.logged()] == ["GET / 504 0"]
    await puppet[1].finish()
    assert talk.codes == []


@both
@in_virtual_time
async def test_l48_response_that_was_begun_is_cut(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind, application=20)
    await talk.send(get(1))
    await puppet[0].send(start(200))
    await puppet[0].send(body(b"part", more_body=True))
    await asyncio.sleep(20 + LOOKS)
    assert (talk.status(), talk.answer().ended, talk.answer().code) == (200, False, INTERNAL_ERROR)
    assert isinstance(puppet[0].raised, asyncio.CancelledError)


@both
@in_virtual_time
async def test_l48_begins_with_the_end_of_the_body(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind, application=20, body_rate=0)
    await talk.send(post(1))
    await asyncio.sleep(30)
    await talk.send(data(1, b"x", ended=True))
    await asyncio.sleep(19.5)
    assert talk.status() == 0
    await asyncio.sleep(0.5 + LOOKS)
    assert talk.status() == 504


@both
@in_virtual_time
async def test_l48_answer_of_the_server_s_own_is_given_once(kind: type[Wire]) -> None:
    """To a client that takes it late, from an application that does not heed its cancellation."""
    puppet = Puppet(holds_on=True)
    talk = await talked(puppet, kind, NO_WINDOW, application=20, log=LINE)
    await talk.send(get(1))
    try:
        await asyncio.sleep(25)
        assert (talk.status(), talk.answer().ended, talk.answer().code) == (504, False, None)
        assert len(puppet[0].cancelled_at) == 1
        assert len(talk.logged()) == 1
        await talk.send(window(1, 1_000))
        assert (talk.answer().ended, talk.answer().code) == (True, None)
    finally:
        await puppet[0].finish()


@in_virtual_time
async def test_l48_response_that_is_complete_is_not_late() -> None:
    puppet = Puppet()
    talk = await talked(puppet, LoopWire, NO_WINDOW, application=20)
    await talk.send(get(1))
    await puppet[0].send(start(200))
    await puppet[0].send(body(b"done"))
    await asyncio.sleep(30)
    assert talk.answer().code is None
    assert not puppet[0].over
    await puppet[0].finish()


@in_virtual_time
async def test_l48_socket_that_is_open_is_not_late() -> None:
    app = SocketPuppet()
    talk = await talked(app, application=20, websocket_ping_interval=0)
    await talk.open()
    await asyncio.sleep(60)
    assert (talk.answer().code, app.raised) == (None, None)


# --- the wheel ---


@both
@in_virtual_time
async def test_connection_that_is_gone_is_watched_no_more(kind: type[Wire]) -> None:
    talk = await talked(hello, kind)
    talk.wire.lose()
    assert talk.server.deadlines._items == set()


@in_virtual_time
async def test_request_that_is_answered_at_once_moves_no_deadline_but_the_idle_one() -> None:
    talk = await talked(hello)
    pace = talk.connection._pace
    await talk.send(get(1))
    assert talk.answer().ended
    await asyncio.sleep(10)
    assert pace.deadline - now() > 60


@in_virtual_time
async def test_twisted_s_own_transport_is_watched_by_what_was_written() -> None:
    """It cannot say what the client has not taken: a transport that is full for a minute, and to which nothing is written, is cut."""
    talk = await talked(hello, TwistedWire)
    talk.wire.block()
    await asyncio.sleep(60 + LOOKS)
    assert talk.wire.calls[-1] == "abort"
