"""What open WebSockets that say nothing cost: memory of each, and CPU time while they are open.

A server's memory does not shrink to what it was, so every round is a fresh server's: started, asked a few times so that everything it
imports and allocates once is there, weighed; then all sockets are opened, and it is weighed again when it has settled. The servers take
turns; the CPU time is that of a whole period of the pings they all send by default, or would send.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

from benchmarks.load import sockets
from benchmarks.load.measure import Cell, Sample, Unusable, peak_rss, rss
from benchmarks.load.rounds import Plan, drop, flag, take_sample
from benchmarks.load.running import running

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.load.rounds import Tell
    from benchmarks.load.scenarios import Scenario
    from benchmarks.load.servers import Server

_MOST_ROUNDS = 2  # memory is the same to a few parts in a hundred, and a round takes half a minute
_WARM_UP_SOCKETS = 32
_PING_PERIOD = 20.0  # seconds: the default of uvicorn, daphne and termserver
_LOOK_SECONDS, _LOOKS, _SETTLED_PART, _SETTLE_SECONDS = 0.25, 4, 0.002, 15.0


def run_scenario(scenario: Scenario, servers: Sequence[Server], plan: Plan, tell: Tell) -> list[Cell]:
    """Measure idle sockets for all servers; one that cannot be used has a cell with a flag and no samples."""
    cells = [Cell(plan.environment.version, scenario.name, server.name) for server in servers]
    left = list(zip(servers, cells, strict=True))
    rounds = min(plan.rounds, _MOST_ROUNDS)
    for turn in range(rounds):
        for server, cell in tuple(left):
            try:
                _round(cell, server, scenario, plan)
            except Unusable as unusable:
                drop(cell, unusable, tell)
                left.remove((server, cell))
            else:
                tell(f"  {turn + 1}/{rounds} {cell.server:<18} {cell.samples[-1].socket_kib:9.1f} KiB/{scenario.counted}")
    for _, cell in left:
        flag(cell, scenario)
    return cells


def _round(cell: Cell, server: Server, scenario: Scenario, plan: Plan) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="load-") as directory,
        running(server, scenario, plan.environment.python, plan.cores.server, Path(directory)) as up,
    ):
        up.check(scenario)
        with sockets.opened(scenario, up.port, plan.cores.client, _WARM_UP_SOCKETS):
            pass
        before = _settled(up.session)
        count = plan.sockets or scenario.connections
        with sockets.opened(scenario, up.port, plan.cores.client, count) as load:
            grown = _settled(up.session) - before
            found = take_sample(up, plan, load, _PING_PERIOD)
            cell.peak_rss = max(cell.peak_rss, peak_rss(up.session))
        cell.samples.append(Sample(found.load, found.cpu_seconds, found.foreign_seconds, grown))
        if found.load.requests < count:
            cell.flags.append(f"{count - found.load.requests} of {count} sockets lost")


def _settled(session: int) -> int:
    """Answer the resident memory when it has not changed for some looks, or after a while anyway: some servers never quite settle."""
    deadline = monotonic() + _SETTLE_SECONDS
    looks = [rss(session)]
    while monotonic() < deadline:
        sleep(_LOOK_SECONDS)
        looks.append(rss(session))
        last = looks[-_LOOKS:]
        if len(last) == _LOOKS and max(last) - min(last) <= last[-1] * _SETTLED_PART:
            break
    return looks[-1]
