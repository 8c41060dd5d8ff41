"""The plot of results.json: a panel for each scenario, a bar for each server and Python. Runs in the benchmark's environment.

`python -m benchmarks.load.plot DIRECTORY` writes plot.svg and plot.png beside results.json.
"""

from __future__ import annotations

import json
import sys
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
mpl.rcParams["svg.hashsalt"] = "load"  # the same figures give the same file
from matplotlib import pyplot as plt  # noqa: E402

_COLUMNS = 2
_OWN, _PEER = ("#1b6ca8", "#7fb2d6"), ("#6b6b6b", "#b5b5b5")
_P99_SCENARIO = "latency"


def draw(results: dict[str, Any], directory: Path) -> None:
    """Draw all panels into one figure."""
    cells = [cell for cell in results["cells"] if "cpu_us" in cell]
    scenarios = list(dict.fromkeys(cell["scenario"] for cell in cells))
    if not scenarios:
        return
    rows, servers = ceil(len(scenarios) / _COLUMNS), len({cell["server"] for cell in cells})
    figure, axes = plt.subplots(rows, _COLUMNS, squeeze=False, figsize=(12, rows * (1.0 + 0.38 * servers)), layout="constrained")
    for panel, scenario in zip(axes.flat, scenarios, strict=False):
        _panel(panel, scenario, [cell for cell in cells if cell["scenario"] == scenario], list(results["versions"]))
    for panel in axes.flat[len(scenarios):]:  # fmt: skip
        panel.set_visible(False)
    machine = results["machine"]
    figure.suptitle(f"Less is better · {machine['cpu']} · {machine['kernel']} · {machine['date']}", fontsize=10)
    figure.savefig(directory / "plot.svg", metadata={"Date": None})
    figure.savefig(directory / "plot.png", dpi=120)


def _panel(panel: Any, scenario: str, cells: list[dict[str, Any]], pythons: list[str]) -> None:
    servers = list(dict.fromkeys(cell["server"] for cell in cells))
    height = 0.8 / len(pythons)
    figure, unit = _figure(scenario, cells[0])
    for cell in cells:
        turn = pythons.index(cell["python"])
        colour = (_OWN if cell["server"] == "termserver" else _PEER)[turn % 2]
        place = servers.index(cell["server"]) + (turn - (len(pythons) - 1) / 2) * height
        bars = panel.barh(place, cell[figure], height * 0.92, color=colour, hatch="//" if cell["flags"] else None, edgecolor="white")
        panel.bar_label(bars, [f"{cell[figure]:.1f}  ({cell['python']})" + (" ⚠" if cell["flags"] else "")], padding=3, fontsize=7)
    panel.set_yticks(range(len(servers)), servers)
    panel.invert_yaxis()
    panel.margins(x=0.25)
    panel.set_title(f"{scenario}: {unit}", fontsize=9, loc="left")
    panel.spines[["top", "right"]].set_visible(False)


def _figure(scenario: str, cell: dict[str, Any]) -> tuple[str, str]:
    if scenario == _P99_SCENARIO:
        return "p99_us", "p99 latency, µs"
    if cell["socket_kib"] is not None:
        return "socket_kib", f"KiB per {cell['counted']}"
    return "cpu_us", f"CPU µs per {cell['counted']}"


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1], "results.json").read_text()), Path(sys.argv[1]))
