"""Command line of the load harness: `python -m benchmarks.load --help`."""

from __future__ import annotations

import argparse
import resource
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.load import idle
from benchmarks.load.environment import choose_cores, find_python, machine, prepare
from benchmarks.load.report import Report, verdicts
from benchmarks.load.rounds import Plan, run_scenario
from benchmarks.load.scenarios import SCENARIOS, Load
from benchmarks.load.servers import SERVERS, TERMSERVER, parse_also

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

    from benchmarks.load.environment import Environment
    from benchmarks.load.measure import Cell

_METHOD = (
    "one worker pinned to one core, load generator on another; {rounds} rounds of {seconds:g} s interleaved between the servers after a "
    "warm-up, medians reported; CPU is user + system of the whole process tree ÷ requests answered (messages, …); "
    "spread is (max − min) ÷ median of it"
)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description="Measure termserver and its peers side by side.")
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="only this one (may be repeated; default: all)")
    parser.add_argument("--server", action="append", choices=SERVERS, help="only this one (may be repeated; default: all)")
    parser.add_argument("--also", action="append", default=[], type=parse_also, metavar="NAME=ARGUMENTS",
                        help="another server: arguments of the interpreter with {port} and perhaps {app}")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each server (default %(default)s)")
    parser.add_argument("--seconds", type=int, default=5, help="length of a round in whole seconds (default %(default)s)")
    parser.add_argument("--sockets", type=int, help="how many to open in ws-idle (default: 10000)")
    parser.add_argument("--python", action="append", help="interpreter or version to run servers with (may be repeated; default: this one)")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results"), help="directory of the results")
    parser.add_argument(
        "--check",
        action="store_true",
        help="exit with status 1 if a budget is missed, an answer was wrong or a server could not be measured",
    )
    return parser.parse_args()


def _command(options: argparse.Namespace, environments: list[Environment]) -> str:
    """Answer the command line as it is reported: versions instead of the paths of this machine."""
    parts = ["python -m benchmarks.load", f"--rounds {options.rounds}", f"--seconds {options.seconds}"]
    parts += [f"--sockets {options.sockets}"] if options.sockets else []
    parts += [f"--python {environment.version}" for environment in environments]
    parts += [f"--scenario {name}" for name in options.scenario or ()] + [f"--server {name}" for name in options.server or ()]
    return " ".join(parts + [f"--also {server.name}=…" for server in options.also])


def _tools(names: Iterable[str]) -> set[str]:
    """Answer the programs that the named scenarios need."""
    scenarios = [SCENARIOS[name] for name in names]
    tools = {"wrk", "taskset"}
    tools |= {"h2load", "curl"} if any(scenario.http2 for scenario in scenarios) else set()
    return tools | ({"openssl"} if any(scenario.tls for scenario in scenarios) else set())


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _end(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)  # unwinds: every server that runs is stopped on the way


def main() -> int:
    """Run it; answer the exit status."""
    options = _options()
    signal.signal(signal.SIGTERM, _end)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # servers and load generators inherit it
    missing = sorted(tool for tool in _tools(options.scenario or SCENARIOS) if shutil.which(tool) is None)
    if missing:
        _tell(f"needs {' and '.join(missing)} on PATH")
        return 2
    servers = [SERVERS[name] for name in options.server or SERVERS] + options.also
    cores = choose_cores()
    environments = [prepare(find_python(name), project=TERMSERVER in servers) for name in options.python or [sys.executable]]
    cells: list[Cell] = []
    for environment in environments:
        plan = Plan(environment, options.rounds, options.seconds, cores, options.sockets)
        for name in options.scenario or SCENARIOS:
            _tell(f"{name}, Python {environment.version}")
            scenario = SCENARIOS[name]
            run = idle.run_scenario if scenario.load is Load.IDLE else run_scenario
            cells += run(scenario, [server for server in servers if server.takes_part(scenario)], plan, _tell)
    method = _METHOD.format(rounds=options.rounds, seconds=options.seconds)
    report = Report(machine(), _command(options, environments), method, environments, cells)
    report.write(options.output)
    print(report.table())
    failed = [cell for cell in cells if cell.errors or not cell.samples] + [verdict for verdict in verdicts(cells) if not verdict.kept]
    return 1 if options.check and failed else 0


if __name__ == "__main__":
    sys.exit(main())
