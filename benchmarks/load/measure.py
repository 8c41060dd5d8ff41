"""What a server cost: CPU time and memory of its whole process tree from /proc, and the medians of several rounds.

Every server is started as the leader of a session, so its tree is whatever has that session number: workers that the tree
re-parents are still found. Times come from `/proc/<pid>/stat` (user + system, own and reaped children) in ticks of 10 ms: rounds of
2 s on a busy core read them to about 1 %.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from statistics import median

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SESSION, _TIMES = 3, slice(11, 15)  # fields of /proc/<pid>/stat after the command's name, see proc_pid_stat(5)


class Unusable(Exception):
    """The server did not start, did not answer what the scenario expects, or could not be loaded."""


def session_members(session: int) -> dict[int, float]:
    """Answer the CPU seconds of every process of a session by process id."""
    members: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The name in parentheses may hold blanks and parentheses itself: what follows the last one is regular.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended while we looked
        if int(fields[_SESSION]) == session:
            members[int(entry.name)] = sum(map(int, fields[_TIMES])) / _TICKS
    return members


def cpu_seconds(session: int) -> float:
    """User and system time that the tree has used so far."""
    return sum(session_members(session).values())


def core_seconds(core: int) -> float:
    """Seconds that a core was used by anybody since the machine started."""
    line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{core} "))
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS


def rss(session: int) -> int:
    """Bytes of resident memory at this moment, summed over the tree."""
    total = 0
    for pid in session_members(session):
        try:
            total += int(Path("/proc", str(pid), "statm").read_text().split()[1]) * _PAGE
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def peak_rss(session: int) -> int:
    """Bytes of peak resident memory, summed over the tree (pages shared between its processes count for each)."""
    total = 0
    for pid in session_members(session):
        try:
            status = Path("/proc", str(pid), "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    return total


def percentile(ordered: list[int], percent: float) -> float:
    """Answer a percentile of ordered nanoseconds as microseconds."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] / 1e3 if ordered else 0.0


@dataclass(slots=True)
class Load:
    """What the load generator saw in one round. Latencies in microseconds, NaN where unknown; `errors` by kind, those that occurred."""

    requests: int
    seconds: float
    received: int
    p50_us: float
    p99_us: float
    errors: dict[str, int] = field(default_factory=dict)
    rate: float | None = None
    client_lag_us: float | None = None


@dataclass(slots=True)
class Sample:
    """One round: the load, what it cost the server, and what else ran on the server's core meanwhile.

    `grown` is what the server's memory has grown by with the connections of the round, in bytes, where that is measured.
    """

    load: Load
    cpu_seconds: float
    foreign_seconds: float
    grown: int | None = None

    @property
    def cpu_us(self) -> float:
        """CPU microseconds per request answered."""
        return self.cpu_seconds * 1e6 / self.load.requests if self.load.requests else float("inf")

    @property
    def socket_kib(self) -> float:
        """KiB of memory per open connection, NaN where it was not measured."""
        return nan if self.grown is None else self.grown / 1024 / self.load.requests


@dataclass(slots=True)
class Cell:
    """All rounds of one server in one scenario under one Python. Anything in `flags` makes its figures suspect."""

    python: str
    scenario: str
    server: str
    samples: list[Sample] = field(default_factory=list)
    peak_rss: int = 0
    flags: list[str] = field(default_factory=list)

    @property
    def cpu_us(self) -> float:
        """Median CPU microseconds per request."""
        return median(sample.cpu_us for sample in self.samples)

    @property
    def socket_kib(self) -> float:
        """Median KiB of memory per open connection, NaN where it was not measured."""
        return median(sample.socket_kib for sample in self.samples)

    def spread(self, figure: str) -> float:
        """Largest minus smallest round of a figure of the samples, as a part of its median."""
        values = [getattr(sample, figure) for sample in self.samples]
        return (max(values) - min(values)) / median(values)

    @property
    def throughput(self) -> float:
        """Median requests per second."""
        return median(sample.load.requests / sample.load.seconds for sample in self.samples)

    @property
    def busy(self) -> float:
        """Median part of its core that the server used: well under 1 means that something else was the bottleneck."""
        return median(sample.cpu_seconds / sample.load.seconds for sample in self.samples)

    @property
    def foreign(self) -> float:
        """Median part of the server's core that was used by something else, interrupts included."""
        return median(sample.foreign_seconds / sample.load.seconds for sample in self.samples)

    @property
    def p50_us(self) -> float:
        """Median of the rounds' median latencies."""
        return median(sample.load.p50_us for sample in self.samples)

    @property
    def p99_us(self) -> float:
        """Median of the rounds' 99th percentiles."""
        return median(sample.load.p99_us for sample in self.samples)

    @property
    def errors(self) -> dict[str, int]:
        """Errors of all rounds by kind."""
        total: dict[str, int] = {}
        for sample in self.samples:
            for kind, count in sample.load.errors.items():
                total[kind] = total.get(kind, 0) + count
        return total
