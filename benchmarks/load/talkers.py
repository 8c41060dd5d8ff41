"""The measured loops over WebSockets: what the connections of one client process do for so many seconds.

Closed loops: a message leaves when the last was answered, and every answer is compared byte by byte. The loops poll without waiting, as the
one of `openloop.py`: a client that sleeps has to be woken for every few messages, and the server would wait for it. The client has a core
of its own, and costs about 10 µs a message (recv, compare, send), most of it the kernel's. Whether that was little enough shows in how busy
the server was.
"""

from __future__ import annotations

import select
from math import nan
from time import perf_counter_ns
from typing import TYPE_CHECKING

from benchmarks.load.app import TO_ALL
from benchmarks.load.crowd import Crowd
from benchmarks.load.dialogue import life, mask_of
from benchmarks.load.frames import client_frame, server_frame
from benchmarks.load.measure import Load, percentile
from benchmarks.load.scenarios import Load as Kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from benchmarks.load.scenarios import Scenario

_DRAIN_NS = 5_000_000_000
_CHUNK = 4096
_IN_FLIGHT = 2  # broadcasts: the next is in the server's hands when it ends one


class Talkers(Crowd):
    """A crowd that loads the server."""

    def __init__(self, scenario: Scenario, port: int) -> None:
        """Open nothing yet."""
        super().__init__(scenario, port)
        self.talk = scenario.talk
        self.answered = 0
        self.latencies: list[int] = []

    def commands(self, source: TextIO) -> Iterator[str]:
        """Give the lines of `source` until it ends; whoever has to be heard meanwhile is."""
        return iter(source)

    def load(self, seconds: float) -> Load:
        """Load the server for `seconds` and see it answer all of it."""
        start = perf_counter_ns()
        self._load(start + int(seconds * 1e9))
        taken, ordered = (perf_counter_ns() - start) / 1e9, sorted(self.latencies)
        p50, p99 = (percentile(ordered, 50), percentile(ordered, 99)) if ordered else (nan, nan)
        return Load(self.answered, taken, self.received, p50, p99, self.errors)

    def _load(self, end: int) -> None:
        raise NotImplementedError


class Echoes(Talkers):
    """Every connection says its message again when the echo has come back whole."""

    def _load(self, end: int) -> None:
        frames, answers, sent = {}, {}, {}
        for descriptor, number in self.numbers.items():
            frames[descriptor] = client_frame(self.talk.opcode, self.talk.message(number), mask_of(number))
            answers[descriptor] = server_frame(self.talk.opcode, self.talk.answer(number))
        size, poll, clock = len(next(iter(answers.values()))), self.epoll.poll, perf_counter_ns
        receive = {descriptor: sock.recv for descriptor, sock in self.sockets.items()}
        send = {descriptor: sock.send for descriptor, sock in self.sockets.items()}
        record, waiting, now = self.latencies.append, len(frames), clock()
        for descriptor, frame in frames.items():
            sent[descriptor] = clock()
            send[descriptor](frame)  # fits into an empty socket buffer
        while waiting and now < end + _DRAIN_NS:
            for descriptor, _ in poll(0):
                try:
                    data = receive[descriptor](size)
                    if data == answers[descriptor] or self._completes(descriptor, data):
                        now = clock()
                        record(now - sent[descriptor])
                        sent[descriptor] = now
                        if now < end:
                            send[descriptor](frames[descriptor])
                        else:
                            waiting -= 1
                except OSError:
                    self.lose(descriptor)
                    waiting -= 1
            now = clock()
        self.answered, self.received = len(self.latencies), len(self.latencies) * size
        if waiting:
            self.error("unanswered", waiting)

    def _completes(self, descriptor: int, data: bytes) -> bool:
        """Whether these bytes end the awaited message: what is not exactly one answer goes this way. Raises OSError at the end."""
        messages = self.messages(descriptor, data)
        if descriptor not in self.sockets:
            raise ConnectionError
        if messages and messages != [self.talk.answer(self.numbers[descriptor])]:
            self.error("wrong", len(messages))
        return bool(messages)


class Listeners(Talkers):
    """The first connection says the word, and every connection hears it; deliveries are what is counted."""

    def _load(self, end: int) -> None:
        answer, first = server_frame(self.talk.opcode, self.talk.reply), next(iter(self.sockets))
        trigger = client_frame(self.talk.opcode, TO_ALL.encode(), mask_of(0))
        send, size, poll, clock, now = self.sockets[first].send, len(answer), self.epoll.poll, perf_counter_ns, 0
        receive = {descriptor: sock.recv for descriptor, sock in self.sockets.items()}
        heard = dict.fromkeys(self.sockets, 0)
        crowd, said, delivered = len(heard), 0, 0
        while (now < end or delivered < said * crowd) and now < end + _DRAIN_NS and not self.errors:
            if now < end and delivered >= (said - _IN_FLIGHT + 1) * crowd:
                send(trigger)
                said += 1
            for descriptor, _ in poll(0):
                data = receive[descriptor](_CHUNK)
                if data == answer:
                    heard[descriptor] += 1
                    delivered += 1
                else:
                    messages = self._all_right(descriptor, data)
                    heard[descriptor] += messages
                    delivered += messages
            now = clock()
        self.answered, self.received = delivered, delivered * size
        if missing := sum(abs(said - times) for times in heard.values()):
            self.error("undelivered", missing)

    def _all_right(self, descriptor: int, data: bytes) -> int:
        """Answer how many messages these bytes complete, and count those that are not the one expected."""
        messages = self.messages(descriptor, data)
        if wrong := sum(message != self.talk.reply for message in messages):
            self.error("wrong", wrong)
        return len(messages)


class Lives(Talkers):
    """Connections that open, exchange one message and close, one after another in every place."""

    def open(self, count: int) -> None:
        """Open none beforehand: that is what is measured."""
        self._places = count

    def _load(self, end: int) -> None:
        born, now, turn = {}, perf_counter_ns(), 0
        while (now < end or self.talking) and now < end + _DRAIN_NS:
            while now < end and self.talking < self._places:
                born[self.begin(turn, life)] = perf_counter_ns()
                turn += 1
            for descriptor in self.advance(0):
                self.latencies.append(perf_counter_ns() - born[descriptor])
                self.drop(descriptor)
            now = perf_counter_ns()
        self.answered = len(self.latencies)
        if self.talking:
            self.error("unanswered", self.talking)

    def close(self) -> None:
        """Nothing is open."""


class Idlers(Talkers):
    """Connections that say nothing more, and answer pings."""

    def commands(self, source: TextIO) -> Iterator[str]:
        """Answer pings until there is a line."""
        while True:
            while not select.select([source, self.epoll], [], [])[0].count(source):
                self.advance()
            if not (line := source.readline()):
                return
            yield line

    def _load(self, end: int) -> None:
        while perf_counter_ns() < end:
            self.advance()
        self.answered = len(self.sockets)


CLIENTS: dict[Kind, type[Talkers]] = {Kind.ECHO: Echoes, Kind.BROADCAST: Listeners, Kind.LIVES: Lives, Kind.IDLE: Idlers}
