"""The method: all servers of a scenario are up at once, warmed up, and then loaded in turn (A B C A B C …), one at a time.

What disturbs the machine for a while thus hits every server alike, and the medians compare. The waiting servers share the measured
one's core but have nothing to do.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.load import h2load, openloop, sockets, wrk
from benchmarks.load.identity import make_identity
from benchmarks.load.measure import Cell, Sample, Unusable, core_seconds, cpu_seconds, peak_rss
from benchmarks.load.measure import Load as Seen
from benchmarks.load.running import Running, running
from benchmarks.load.scenarios import Load, Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.load.environment import Cores, Environment
    from benchmarks.load.identity import Identity
    from benchmarks.load.servers import Server

    Tell = Callable[[str], None]

_WARM_UP_SECONDS = 1.0
_SATURATION_ROUNDS = 3
_SATURATED_PART = 0.5
_BUSY_ENOUGH = 0.85
_FOREIGN_ENOUGH = 0.10
_LAG_PART = 0.25


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, where, and with which installed servers. `sockets` takes the place of the scenario's number of idle ones."""

    environment: Environment
    rounds: int
    seconds: float
    cores: Cores
    sockets: int | None = None


@dataclass(slots=True)
class Contender:
    """A server that is up, and what is found about it. `saturated` are requests a second."""

    cell: Cell
    server: Running
    saturated: list[float] = field(default_factory=list)


def run_scenario(scenario: Scenario, servers: Sequence[Server], plan: Plan, tell: Tell) -> list[Cell]:
    """Measure one scenario for all servers; one that cannot be used has a cell with a flag and no samples."""
    cells = [Cell(plan.environment.version, scenario.name, server.name) for server in servers]
    with tempfile.TemporaryDirectory(prefix="load-") as directory, ExitStack() as stack:
        up: list[Contender] = []
        identity = make_identity(Path(directory)) if scenario.tls else None
        for server, cell in zip(servers, cells, strict=True):
            try:
                up.append(Contender(cell, _start(stack, scenario, server, plan, Path(directory), identity)))
            except Unusable as unusable:
                drop(cell, unusable, tell)
        if scenario.load is Load.OPEN:
            for _ in range(_SATURATION_ROUNDS):
                up = _in_turn(up, lambda contender: _saturate(contender, scenario, plan), tell)
        for turn in range(plan.rounds):
            up = _in_turn(up, lambda contender: _measure(contender, scenario, plan), tell)
            for contender in up:
                tell(
                    f"  {turn + 1}/{plan.rounds} {contender.cell.server:<12} {contender.cell.samples[-1].cpu_us:9.1f} µs/{scenario.counted}"
                )
        for contender in up:
            _conclude(contender.cell, contender.server, scenario)
    return cells


def _start(stack: ExitStack, scenario: Scenario, server: Server, plan: Plan, directory: Path, identity: Identity | None) -> Running:
    """Bring a server up, see it answer right and warm it up; it is stopped with `stack`, or at once if unusable."""
    with ExitStack() as own:
        up = own.enter_context(running(server, scenario, plan.environment.python, plan.cores.server, directory, identity))
        up.check(scenario)
        with _generator(scenario, up.port, plan) as load:
            load(_WARM_UP_SECONDS)
        stack.push(own.pop_all())
    return up


def _in_turn(up: list[Contender], action: Callable[[Contender], None], tell: Tell) -> list[Contender]:
    """Do something with each server; answer those that stood it."""
    left = []
    for contender in up:
        try:
            action(contender)
        except Unusable as unusable:
            drop(contender.cell, unusable, tell)
        else:
            left.append(contender)
    return left


def drop(cell: Cell, unusable: Unusable, tell: Tell) -> None:
    """Take a server out: what was found is void."""
    cell.samples.clear()
    cell.flags.append(str(unusable))
    tell(f"  {cell.server}: {unusable}")


def _saturate(contender: Contender, scenario: Scenario, plan: Plan) -> None:
    seen = wrk.run(scenario, contender.server.port, _WARM_UP_SECONDS, plan.cores.client)
    contender.saturated.append(seen.requests / seen.seconds)


def _measure(contender: Contender, scenario: Scenario, plan: Plan) -> None:
    server = contender.server
    rate = median(contender.saturated) * _SATURATED_PART if contender.saturated else None
    with _generator(scenario, server.port, plan, rate) as load:
        contender.cell.samples.append(take_sample(server, plan, load, plan.seconds))


@contextmanager
def _generator(scenario: Scenario, port: int, plan: Plan, rate: float | None = None) -> Iterator[Callable[[float], Seen]]:
    """Give the load generator as a function of the seconds; what it needs is open already. With a `rate` requests come at it."""
    core = plan.cores.client
    if scenario.talk:
        with sockets.opened(scenario, port, core, scenario.connections) as load:
            yield load
    elif scenario.http2:
        yield lambda seconds: h2load.run(scenario, port, seconds, core)
    elif rate is None:
        yield lambda seconds: wrk.run(scenario, port, seconds, core)
    else:
        yield lambda seconds: openloop.run(scenario, port, seconds, rate, core)


def take_sample(server: Running, plan: Plan, load: Callable[[float], Seen], seconds: float) -> Sample:
    """Load the server and see what that costs it."""
    core_before, before = core_seconds(plan.cores.server), cpu_seconds(server.session)
    seen = load(seconds)
    used = cpu_seconds(server.session) - before
    used_by_all = core_seconds(plan.cores.server) - core_before
    return Sample(seen, used, max(0.0, used_by_all - used))


def _conclude(cell: Cell, server: Running, scenario: Scenario) -> None:
    """Read the memory and flag what makes the figures suspect."""
    cell.peak_rss = peak_rss(server.session)
    requests = sum(sample.load.requests for sample in cell.samples)
    if sum(sample.load.received for sample in cell.samples) < requests * len(scenario.answer):
        cell.flags.append("answers shorter than expected")
    if not server.log_seems_written(requests):
        cell.flags.append("access log not written")
    flag(cell, scenario)


def flag(cell: Cell, scenario: Scenario) -> None:
    """Flag what the samples show that makes them suspect."""
    if cell.errors:
        cell.flags.append("errors: " + ", ".join(f"{count} {kind}" for kind, count in cell.errors.items()))
    if scenario.load is Load.IDLE:
        return  # memory is not disturbed by what else runs
    if cell.foreign > _FOREIGN_ENOUGH:
        cell.flags.append(f"{cell.foreign:.0%} of the server's core used by something else")
    elif scenario.load is not Load.OPEN and cell.busy < _BUSY_ENOUGH:
        cell.flags.append(f"server only {cell.busy:.0%} busy")
    if scenario.load is Load.OPEN:
        lag = median(sample.load.client_lag_us or 0.0 for sample in cell.samples)
        if lag > cell.p99_us * _LAG_PART:
            cell.flags.append(f"client late itself by {lag:.0f} µs (p99)")
