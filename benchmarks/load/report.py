"""What was found, as a Markdown table, JSON and a plot, with the versions and the machine it was found on."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass
from math import isnan
from typing import TYPE_CHECKING

from benchmarks.load.running import ROOT
from benchmarks.load.scenarios import BEST_PEER, SCENARIOS, Budget, Load, Metric
from benchmarks.load.servers import PEERS, TERMSERVER

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from benchmarks.load.environment import Environment
    from benchmarks.load.measure import Cell

_PEER_NAMES = frozenset(peer.name for peer in PEERS)
_METRIC_NAMES = {Metric.CPU: "CPU", Metric.P99: "p99", Metric.MEMORY: "memory"}
_HEADINGS = {Metric.CPU: "CPU µs", Metric.MEMORY: "KiB"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one budget was kept: `figure` is termserver ÷ `peer`, or termserver's own where the budget has none."""

    python: str
    scenario: str
    budget: Budget
    peer: str | None
    figure: float

    @property
    def kept(self) -> bool:
        """Whether the figure is within the budget."""
        return self.figure <= self.budget.limit

    def __str__(self) -> str:
        """Say it in one line of the table."""
        against = f" × {self.budget.peer} ({self.peer})" if self.budget.peer == BEST_PEER else f" × {self.peer}" if self.peer else " KiB"
        return (
            f"{'kept' if self.kept else '**missed**'}: {_METRIC_NAMES[self.budget.metric]} {self.figure:.2f}{against}, "
            f"budget ≤ {self.budget.limit:.2f}"
        )


def verdicts(cells: Sequence[Cell]) -> list[Verdict]:
    """Judge every budget for which there are figures: of both sides in the same scenario under the same Python, or of termserver alone."""
    found = []
    for cell in cells:
        if cell.server == TERMSERVER.name and cell.samples:
            rivals = [other for other in _group(cells, cell) if other.server in _PEER_NAMES and other.samples]
            found += [verdict for budget in SCENARIOS[cell.scenario].budgets if (verdict := _judge(cell, budget, rivals))]
    return found


def _judge(cell: Cell, budget: Budget, rivals: Sequence[Cell]) -> Verdict | None:
    figure = _value(cell, budget.metric)
    if budget.peer is None:
        return Verdict(cell.python, cell.scenario, budget, None, figure)
    candidates = [rival for rival in rivals if budget.peer in (BEST_PEER, rival.server)]
    if not candidates:
        return None
    best = min(candidates, key=lambda rival: _value(rival, budget.metric))
    return Verdict(cell.python, cell.scenario, budget, best.server, figure / _value(best, budget.metric))


def _value(cell: Cell, metric: Metric) -> float:
    value: float = getattr(cell, metric.value)
    return value


def _group(cells: Iterable[Cell], like: Cell) -> list[Cell]:
    return [cell for cell in cells if (cell.python, cell.scenario) == (like.python, like.scenario)]


@dataclass(frozen=True, slots=True)
class Report:
    """One run of the harness: where, how, and every cell."""

    machine: dict[str, str]
    command: str
    method: str
    environments: list[Environment]
    cells: list[Cell]

    def write(self, directory: Path) -> None:
        """Write table.md, results.json, the raw samples and the plot into `directory`."""
        raw = directory / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        (directory / "table.md").write_text(self.table())
        (directory / "results.json").write_text(json.dumps(self.results(), indent=2, ensure_ascii=False) + "\n")
        for cell in self.cells:
            file = raw / f"{cell.python}-{cell.scenario}-{cell.server}.json"
            file.write_text(json.dumps([asdict(sample) for sample in cell.samples], indent=1) + "\n")
        command = [str(self.environments[0].python), "-m", "benchmarks.load.plot", str(directory.resolve())]
        subprocess.run(command, check=True, cwd=ROOT)

    def versions(self) -> dict[str, dict[str, str]]:
        """Answer the versions of what took part by Python version."""
        names = sorted({name for server in (TERMSERVER, *PEERS) for name in server.distributions} | {"starlette"})
        return {
            environment.version: {name: environment.distributions[name] for name in names if name in environment.distributions}
            for environment in self.environments
        }

    def results(self) -> dict[str, object]:
        """Answer the medians as data."""
        return {
            "machine": self.machine,
            "command": self.command,
            "method": self.method,
            "versions": self.versions(),
            "budgets": [
                {"python": verdict.python, "scenario": verdict.scenario, "metric": verdict.budget.metric.value, "peer": verdict.peer,
                 "figure": round(verdict.figure, 3), "budget": verdict.budget.limit, "kept": verdict.kept}
                for verdict in verdicts(self.cells)
            ],
            "cells": [_cell_as_data(cell) for cell in self.cells],
        }  # fmt: skip

    def table(self) -> str:
        """Answer everything as Markdown."""
        facts = [f"- {name}: {value}" for name, value in self.machine.items()]
        facts += [f"- command: `{self.command}`", f"- method: {self.method}"]
        for python, versions in self.versions().items():
            facts.append(f"- Python {python}: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
        groups = [group for cell in self.cells if (group := _group(self.cells, cell))[0] is cell]
        sections = [_section(group, verdicts(group)) for group in groups]
        return "\n".join(["# Load benchmark", "", *facts, "", *sections])


def _cell_as_data(cell: Cell) -> dict[str, object]:
    data: dict[str, object] = {"python": cell.python, "scenario": cell.scenario, "server": cell.server, "flags": cell.flags}
    if cell.samples:
        scenario = SCENARIOS[cell.scenario]
        idle = scenario.headline is Metric.MEMORY
        figures = {
            "cpu_us": None if idle else round(cell.cpu_us, 2), "socket_kib": round(cell.socket_kib, 2) if idle else None,
            "spread": round(cell.spread(scenario.headline.value), 3), "busy": round(cell.busy, 4), "peak_rss": cell.peak_rss,
            "throughput": None if idle else round(cell.throughput),
            "p50_us": None if isnan(cell.p50_us) else cell.p50_us, "p99_us": None if isnan(cell.p99_us) else cell.p99_us,
        }  # fmt: skip
        data |= {"rounds": len(cell.samples), "counted": scenario.counted, **figures}
    return data


def _section(group: Sequence[Cell], judged: Sequence[Verdict]) -> str:
    scenario = SCENARIOS[group[0].scenario]
    measured = {cell.server: cell for cell in group if cell.samples}
    figure, counted = _HEADINGS[scenario.headline], scenario.counted
    rate = "req/s" if counted == "request" else f"{counted}s/s".replace("ys/", "ies/")
    connections = (
        max((sample.load.requests for cell in group for sample in cell.samples), default=0) if scenario.load is Load.IDLE else None
    )
    lines = [
        f"## {scenario.name}, Python {group[0].python}",
        "",
        f"{scenario.about}; {connections or scenario.connections} connections, {scenario.load.value}"
        + (f", {scenario.depth} streams on each" if scenario.http2 else "")
        + ("; `req/s` is the rate it was loaded with" if scenario.load is Load.OPEN else ""),
        "",
        f"| server | {figure}/{counted} | spread | × granian | × uvicorn | {rate} | core busy | p50 ms | p99 ms | peak RSS MiB | remarks |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
        *(_row(cell, measured) for cell in group),
        "",
    ]
    remarks = [f"- {verdict}" for verdict in judged]
    remarks += [f"- {peer.name} takes no part: {peer.unable[scenario.name]}" for peer in PEERS if scenario.name in peer.unable]
    return "\n".join([*lines, *remarks, ""] if remarks else lines)


def _milliseconds(microseconds: float) -> str:
    return "–" if isnan(microseconds) else f"{microseconds / 1e3:.2f}"


def _row(cell: Cell, measured: dict[str, Cell]) -> str:
    remarks = "; ".join(f"⚠ {flag}" for flag in cell.flags).replace("|", "\\|").replace("\n", " ")
    if not cell.samples:
        return f"| {cell.server} |" + " – |" * 9 + f" {remarks} |"
    scenario = SCENARIOS[cell.scenario]
    value = _value(cell, scenario.headline)
    ratios = [f"{value / _value(measured[peer], scenario.headline):.2f}" if peer in measured else "–" for peer in ("granian", "uvicorn")]
    idle = scenario.load is Load.IDLE
    figures = [
        f"{value:.1f}", f"{cell.spread(scenario.headline.value):.0%}", *ratios, "–" if idle else f"{cell.throughput:.0f}",
        f"{cell.busy:.1%}" if idle else f"{cell.busy:.0%}",
        _milliseconds(cell.p50_us), _milliseconds(cell.p99_us), f"{cell.peak_rss / (1 << 20):.0f}", remarks,
    ]  # fmt: skip
    return f"| {cell.server} | " + " | ".join(figures) + " |"
