"""The open-loop load generator: requests leave at a fixed mean rate, whether the server keeps up or not.

wrk sends its next request when the last was answered, so a server that stalls is asked less and its bad moments are hardly sampled
(coordinated omission). Here arrivals are a Poisson process drawn beforehand, and a request's latency counts from the moment it was
*due*: waiting for a free connection is part of it. One epoll loop that never sleeps, on a core of its own: timers of event loops
tick in milliseconds, many times what is measured. Python is fast enough for some 50 000 requests a second; how late the client
itself was is measured too (`client_lag_us`, 99th percentile) and should stay well under the latencies found.

A process of its own (`python -m benchmarks.load.openloop`), so that the harness can pin it.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import select
import socket
import subprocess
import sys
from collections import deque
from dataclasses import asdict
from time import perf_counter_ns

from benchmarks.load.measure import Load, Unusable, percentile
from benchmarks.load.running import ROOT
from benchmarks.load.scenarios import SCENARIOS, Scenario

_DRAIN_NS = 5_000_000_000


def arrivals(rate: float, seconds: float) -> list[int]:
    """Nanoseconds after the start at which requests are due: exponential gaps, the same for every server at one rate."""
    draw = random.Random(20261122).expovariate
    due, now = [], 0.0
    while (now := now + draw(rate)) < seconds:
        due.append(int(now * 1e9))
    return due


class Client:
    """Connections, what each of them waits for, and the times taken."""

    def __init__(self, scenario: Scenario, port: int) -> None:
        """Open all connections."""
        self._request, self._answer = scenario.requests[0], scenario.answer
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._due: dict[int, int] = {}
        self._partial: dict[int, bytes] = {}
        self._free: deque[int] = deque()
        self.latencies: list[int] = []
        self.lags: list[int] = []
        self._full_at = 0  # when there last was no free connection: what was due before waited for the server, not for us
        self.received = 0
        self.errors: dict[str, int] = {}
        for _ in range(scenario.connections):
            self._open(port)

    def _open(self, port: int) -> None:
        sock = socket.create_connection(("127.0.0.1", port), timeout=5)
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll.register(sock.fileno(), select.EPOLLIN)
        self._sockets[sock.fileno()] = sock
        self._free.append(sock.fileno())

    def run(self, due: list[int]) -> float:
        """Send a request for every moment of `due` and take its time; answer the seconds that it took."""
        start = perf_counter_ns()
        turn, poll, read = 0, self._poll.poll, self._read
        count, last = len(due), start + due[-1] + _DRAIN_NS
        while turn < count or self._due:
            now = perf_counter_ns()
            while turn < count and start + due[turn] <= now and self._free:
                self._send(start + due[turn], now)
                turn += 1
            if not self._free:
                self._full_at = now
            for descriptor, _ in poll(0):
                read(descriptor)
            if now > last or not self._sockets:
                self._error("unanswered", len(self._due) + count - turn)
                break
        return (perf_counter_ns() - start) / 1e9

    def _send(self, due: int, now: int) -> None:
        descriptor = self._free.popleft()
        self._due[descriptor] = due
        if due > self._full_at:
            self.lags.append(now - due)
        try:
            self._sockets[descriptor].send(self._request)  # a request fits into an empty socket buffer
        except OSError:
            self._lose(descriptor, "write")

    def _read(self, descriptor: int) -> None:
        try:
            data = self._sockets[descriptor].recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            return self._lose(descriptor, "read")
        self.received += len(data)
        if descriptor in self._partial:
            data = self._partial.pop(descriptor) + data
        if not data.endswith(self._answer):
            self._partial[descriptor] = data
            return None
        self.latencies.append(perf_counter_ns() - self._due.pop(descriptor))
        if not data.startswith(b"HTTP/1.1 200"):
            self._error("status", 1)
        return self._free.append(descriptor)

    def _lose(self, descriptor: int, kind: str) -> None:
        self._error(kind, 1)
        self._due.pop(descriptor, None)
        if descriptor in self._free:
            self._free.remove(descriptor)
        self._sockets.pop(descriptor).close()

    def _error(self, kind: str, count: int) -> None:
        self.errors[kind] = self.errors.get(kind, 0) + count


def run(scenario: Scenario, port: int, seconds: float, rate: float, core: int) -> Load:
    """Load the server on `port` at `rate` requests a second from `core`, in a process of its own."""
    client = [sys.executable, "-m", "benchmarks.load.openloop", scenario.name, str(port), str(seconds), str(rate)]
    command = ["taskset", "-c", str(core), *client]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=seconds + 60)
    if finished.returncode:
        message = f"the open-loop client failed (exit status {finished.returncode}): {finished.stderr.strip()}"
        raise Unusable(message)
    load = Load(**json.loads(finished.stdout))
    if not load.requests:
        message = f"no request answered; errors {load.errors}"
        raise Unusable(message)
    return load


def main() -> None:
    """Run as the pinned process; the figures go to standard output as JSON."""
    parser = argparse.ArgumentParser(description="Open-loop load: a scenario at a fixed rate.")
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("rate", type=float)
    options = parser.parse_args()
    client = Client(SCENARIOS[options.scenario], options.port)
    due = arrivals(options.rate, options.seconds)
    gc.disable()  # a collection would be seen as the server's latency
    seconds = client.run(due)
    latencies, lags = sorted(client.latencies), sorted(client.lags)
    load = Load(
        requests=len(latencies), seconds=seconds, received=client.received, errors=client.errors, rate=options.rate,
        p50_us=percentile(latencies, 50), p99_us=percentile(latencies, 99), client_lag_us=percentile(lags, 99),
    )  # fmt: skip
    print(json.dumps(asdict(load)))


if __name__ == "__main__":
    main()
