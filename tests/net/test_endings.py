"""How a transport is let go, whichever kind it is, and who waits until it can be written to; in virtual time."""

import asyncio
import contextvars

import pytest
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Factory
from zope.interface import directlyProvides

from fakes import in_virtual_time, now, turns
from net.wires import LoopWire, TwistedWire, Wire
from termserver.net.endings import Waiters, cut_when_taken, has_handshake_to_come, release_producer, shut_writing, unacknowledged
from termserver.net.endpoints import LoopTlsTransport

KINDS = [LoopWire, TwistedWire]


# --- our side is shut ---


@pytest.mark.parametrize("kind", KINDS)
def test_shutting_our_side_leaves_the_other_open(kind: type[Wire]) -> None:
    wire = kind()
    shut_writing(wire.transport)
    assert wire.calls == ["shut"]


def test_tls_is_not_half_closed() -> None:
    wire = TwistedWire()
    directlyProvides(wire.transport, ISSLTransport)
    shut_writing(wire.transport)
    assert wire.calls == ["close"]


def test_handshake_comes_after_a_tls_transport_of_twisted_s_and_before_one_of_the_loop_s() -> None:
    tls = TwistedWire().transport
    directlyProvides(tls, ISSLTransport)
    assert has_handshake_to_come(tls)
    assert not has_handshake_to_come(TwistedWire().transport)
    assert not has_handshake_to_come(LoopWire().transport)
    assert not has_handshake_to_come(LoopTlsTransport(Factory(), lambda _: {}))


# --- producers ---


def test_transport_of_twisted_s_is_let_go_by_its_producer_before_it_closes() -> None:
    wire = TwistedWire()
    wire.transport.registerProducer(object(), True)
    release_producer(wire.transport)
    assert wire.transport.producer is None


def test_loop_s_transport_keeps_its_producer_which_hears_of_the_rest() -> None:
    wire = LoopWire()
    heard: list[str] = []

    class Producer:
        def resumeProducing(self) -> None:
            heard.append("resumed")

    wire.transport.registerProducer(Producer(), True)
    release_producer(wire.transport)
    wire.transport.resume_writing()
    assert heard == ["resumed"]


# --- what the peer has taken ---


def test_unacknowledged_is_what_the_loop_s_transport_says_and_nothing_where_it_is_not_known() -> None:
    loop, twisted = LoopWire(), TwistedWire()
    loop.waiting = twisted.waiting = 100
    assert (unacknowledged(loop.transport), unacknowledged(twisted.transport)) == (100, 0)


class Cut:
    """When the cut came."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def __call__(self) -> None:
        self.at.append(now())


def cut(wire: Wire, **looks: int) -> Cut:
    done = Cut()
    cut_when_taken(wire.transport, asyncio.get_running_loop(), contextvars.copy_context(), done, **looks)
    return done


@pytest.mark.parametrize("kind", KINDS)
@in_virtual_time
async def test_what_was_taken_already_is_cut_at_once(kind: type[Wire]) -> None:
    wire, begun = kind(), now()
    assert cut(wire).at == [begun]


@in_virtual_time
async def test_where_it_is_not_known_what_was_taken_the_cut_comes_at_once() -> None:
    wire, begun = TwistedWire(), now()
    wire.waiting = 100
    assert cut(wire).at == [begun]


@in_virtual_time
async def test_cut_waits_until_the_peer_has_taken_what_was_sent() -> None:
    wire, begun = LoopWire(), now()
    wire.waiting = 100
    done = cut(wire)
    await asyncio.sleep(0.3)
    assert done.at == []
    wire.waiting = 0
    await asyncio.sleep(0.1)
    [moment] = done.at
    assert 0.3 < moment - begun < 0.33


@in_virtual_time
async def test_cut_comes_all_the_same_and_once() -> None:
    wire, begun = LoopWire(), now()
    wire.waiting = 100
    done = cut(wire)
    await asyncio.sleep(10)
    [moment] = done.at
    assert moment - begun == pytest.approx(1.0)


@in_virtual_time
async def test_cut_runs_in_the_context_it_was_given() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    context = contextvars.copy_context()
    context.run(variable.set, "the server's")
    wire, found = LoopWire(), []
    wire.waiting = 100
    cut_when_taken(wire.transport, asyncio.get_running_loop(), context, lambda: found.append(variable.get()))
    await asyncio.sleep(2)
    assert found == ["the server's"]


# --- who waits ---


@in_virtual_time
async def test_all_who_wait_go_on_at_once_and_those_who_come_later_wait_for_the_next_time() -> None:
    waiters, loop = Waiters(), asyncio.get_running_loop()
    waiters.wake()
    first = [asyncio.ensure_future(waiters.wait(loop)) for _ in range(3)]
    await turns()
    assert not any(task.done() for task in first)
    waiters.wake()
    later = asyncio.ensure_future(waiters.wait(loop))
    await asyncio.gather(*first)
    assert not later.done()
    waiters.wake()
    await later


@in_virtual_time
async def test_one_who_waits_no_more_is_forgotten_and_the_others_are_not() -> None:
    waiters, loop = Waiters(), asyncio.get_running_loop()
    tasks = [asyncio.ensure_future(waiters.wait(loop)) for _ in range(2)]
    await turns()
    tasks[0].cancel()
    await turns()
    assert (tasks[0].cancelled(), tasks[1].done()) == (True, False)
    waiters.wake()
    await tasks[1]


@in_virtual_time
async def test_one_who_is_cancelled_as_he_may_go_on_harms_nobody() -> None:
    waiters, loop = Waiters(), asyncio.get_running_loop()
    tasks = [asyncio.ensure_future(waiters.wait(loop)) for _ in range(2)]
    await turns()
    waiters.wake()
    tasks[0].cancel()
    await tasks[1]
    assert tasks[0].cancelled()


@in_virtual_time
async def test_a_future_may_be_set_at_the_next_time_unless_it_is_done_or_was_taken_back() -> None:
    waiters, loop = Waiters(), asyncio.get_running_loop()
    waiting, done, discarded = (loop.create_future() for _ in range(3))
    waiters.discard(discarded)
    for future in (waiting, done, discarded):
        waiters.add(future)
    done.cancel()
    waiters.discard(discarded)
    waiters.discard(discarded)
    waiters.wake()
    assert waiting.done()
    assert done.cancelled()
    assert not discarded.done()
