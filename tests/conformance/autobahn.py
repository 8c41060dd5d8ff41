"""The fuzzing client of Autobahn|Testsuite against termserver: `python tests/conformance/autobahn.py --help`.

Two runs are judged. `raised` takes the limits off and asks for every case; `defaults` leaves them as they are and asks for those cases
that send much. What they gave is kept in results.json beside this file and shown in docs/conformance.md. `--peer` runs any
other server, for comparison; a peer stays in both until it is run again.

The exit status is 1 if a judged case failed, 2 if nothing could be judged. The suite's own reports are in build/conformance.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import shutil
import signal
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from types import FrameType

import page
import suite
from serving import Unusable, serving
from suite import NoSuite, Results
from verdicts import GOOD, Plan, Record, failures, grade, record

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REPORTS = ROOT / "build" / "conformance"
RESULTS = HERE / "results.json"
PAGE = ROOT / "docs" / "conformance.md"

_TERMSERVER = f"{shlex.quote(str(Path(sys.executable).with_name('termserver')))} {{app}} --bind 127.0.0.1:{{port}} --no-access-log"
_RAISED = "--websocket-max-message-size 0 --websocket-max-frame-size 0 --websocket-max-fragments 0 --ws-deflate-max-ratio 0"
_ALL = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*", "12.*", "13.*")
_OVER_1_MIB = ("9.1.[456]", "9.2.[456]", "9.3.*", "9.4.*")  # 4 MiB and more; 9.5 and 9.6 send 1 MiB to the byte
_LOG_LINES = 12
_TAKING_PART = ("termserver", "autobahn", "Twisted", "uvloop", "httptools")
RUNS = {
    "raised": Plan("raised", "termserver", f"{_TERMSERVER} {_RAISED}", _ALL),
    "defaults": Plan("defaults", "termserver", _TERMSERVER, ("9.*",), too_big=_OVER_1_MIB),
}


def _peer(text: str) -> Plan:
    name, equals, command = text.partition("=")
    if not equals or "{port}" not in command:
        raise argparse.ArgumentTypeError(f"expected NAME=COMMAND with {{port}} in it, got {text!r}")
    return Plan(name.strip(), name.strip(), command, _ALL, judged=False)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tests/conformance/autobahn.py", description="Run Autobahn|Testsuite's fuzzing client.")
    parser.add_argument("--run", action="append", choices=RUNS, help="only this one (may be repeated; default: both, none with --peer)")
    parser.add_argument("--peer", action="append", default=[], type=_peer, metavar="NAME=COMMAND",
                        help="another server: its command, with {port} and {app}, the echo application (may be repeated)")  # fmt: skip
    parser.add_argument("--cases", type=lambda text: tuple(text.split(",")), metavar="LIST",
                        help="only these, such as 1.*,9.1.2; what termserver gives is then printed and not recorded")  # fmt: skip
    return parser.parse_args()


def _tell(line: str) -> None:
    print(line, flush=True)


def _progress(name: str) -> Callable[[str], None]:
    """Answer what tells of a group of cases (9.3) when its first begins."""
    begun, last = monotonic(), ""

    def started(case: str) -> None:
        nonlocal last
        group = ".".join(case.split(".")[: 2 if case.count(".") > 1 else 1])
        if group != last:
            last = group
            _tell(f"{name}: {group} after {monotonic() - begun:.0f} s")

    return started


def _run(plan: Plan, python: Path) -> Record:
    """Start the server, run its cases, tell of what was not OK; answer what is kept. Raises Unusable and NoSuite."""
    directory = REPORTS / "".join(letter if letter.isalnum() else "-" for letter in plan.name)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    begun = monotonic()
    with serving(plan.command, directory / "server.log") as server:
        results = suite.run(python, server.port, list(plan.cases), directory, _progress(plan.name))
    kept = record(plan, results, server.faults() if plan.judged else [], _versions(plan) | suite.versions(python), monotonic() - begun)
    _show(plan, results)
    for fault in kept["faults"]:
        _tell(f"{plan.name}: {fault}")
    return kept


def _versions(plan: Plan) -> dict[str, str]:
    if not plan.judged:
        return {}
    return {name: version(name) for name in _TAKING_PART} | {"Python": platform.python_version()}


def _show(plan: Plan, results: Results) -> None:
    """Print every case that did not do what it should, with the end of its wire log."""
    for case in results.chosen:
        outcome = results.outcomes.get(case)
        one = grade(outcome, plan, case)
        if one in GOOD:
            continue
        _tell(f"{plan.name}: {case} {one}")
        if outcome is not None and plan.judged:
            _tell(f"    {outcome.text('description')}\n    expected: {outcome.text('expectation')} {outcome.details['expected']}")
            _tell(f"    got: {outcome.behavior}, {outcome.text('result')} {outcome.details['received']}")
            _tell(f"    close: {outcome.close}, {outcome.text('resultClose')} code {outcome.code} {outcome.text('remoteCloseReason')}")
            _tell("".join(f"    wire: {entry}\n" for entry in outcome.details["wirelog"][-_LOG_LINES:]))


def _end(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)  # unwinds: what runs is stopped on the way


def _plans(options: argparse.Namespace) -> list[Plan]:
    names = options.run or ([] if options.peer else RUNS)
    plans = [RUNS[name] for name in names] + options.peer
    if options.cases is None:
        return plans
    return [Plan(plan.name, plan.server, plan.command, options.cases, plan.too_big, plan.judged) for plan in plans]


def _keep(plan: Plan, kept: Record) -> None:
    """Put a run among those on file, and make the page anew."""
    records = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    records[plan.name] = kept
    ordered = {name: records[name] for name in [*RUNS, *records] if name in records}
    RESULTS.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page.render(ordered, list(RUNS)))


def main() -> int:
    """Run it; answer the exit status."""
    options = _options()
    signal.signal(signal.SIGTERM, _end)
    failed: list[str] = []
    try:
        python = suite.prepare()
        for plan in _plans(options):
            kept = _run(plan, python)
            if plan.judged:
                failed += [f"{plan.name}: {failure}" for failure in failures(kept)]
            if options.cases is None or not plan.judged:
                _keep(plan, kept)
            _tell(f"{plan.name}: {page.totals(kept)}")
    except (NoSuite, Unusable) as error:
        print(error, file=sys.stderr)
        return 2
    _tell("\n".join(["Failed:", *failed]) if failed else "Nothing failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
