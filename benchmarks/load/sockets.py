"""The WebSocket load generator: a process of its own on its own core, told over pipes when to begin.

It opens its connections first and says so; the harness reads the server's CPU time, names the seconds, gets the figures, and reads it
again. So what opening costs is in no figure but that of `ws-connect`, which opens none beforehand. The end of its input closes them.
"""

from __future__ import annotations

import argparse
import gc
import json
import select
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

from benchmarks.load.frames import Wrong
from benchmarks.load.measure import Load, Unusable
from benchmarks.load.running import ROOT
from benchmarks.load.scenarios import SCENARIOS, Scenario
from benchmarks.load.talkers import CLIENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MANY_SECONDS, _SLACK_SECONDS = 300.0, 30.0  # for all handshakes; for the figures. The client is stricter: these are for one that hangs


@contextmanager
def opened(scenario: Scenario, port: int, core: int, count: int) -> Iterator[Callable[[float], Load]]:
    """Open `count` connections from `core`; gives what loads the server for so many seconds. Raises Unusable."""
    client = [sys.executable, "-m", "benchmarks.load.sockets", scenario.name, str(port), str(count)]
    process = subprocess.Popen(["taskset", "-c", str(core), *client], cwd=ROOT, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip

    def load(seconds: float) -> Load:
        with suppress(BrokenPipeError):  # it has ended: there is no line then
            process.stdin.write(f"{seconds}\n")
            process.stdin.flush()
        seen = Load(**json.loads(_line(process, seconds + _SLACK_SECONDS)))
        if not seen.requests:
            message = f"no {scenario.counted} completed; errors {seen.errors}"
            raise Unusable(message)
        return seen

    with process:
        try:
            _line(process, _MANY_SECONDS)
            yield load
            process.stdin.close()
            process.wait(_MANY_SECONDS)
        except subprocess.TimeoutExpired:
            message = f"the connections were not closed within {_MANY_SECONDS:g} s"
            raise Unusable(message) from None
        finally:
            process.kill()


def _line(process: subprocess.Popen[str], seconds: float) -> str:
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    line = process.stdout.readline() if ready else ""
    if not line:
        process.kill()
        last = process.stderr.read().strip().splitlines()[-1:]
        message = "".join(last) or f"the load generator said nothing within {seconds:g} s"
        raise Unusable(message)
    return line


def main() -> int:
    """Run as the pinned process."""
    parser = argparse.ArgumentParser(description="WebSocket load: seconds from standard input, figures to standard output.")
    parser.add_argument("scenario", choices=[name for name, scenario in SCENARIOS.items() if scenario.talk])
    parser.add_argument("port", type=int)
    parser.add_argument("count", type=int)
    options = parser.parse_args()
    scenario = SCENARIOS[options.scenario]
    client = CLIENTS[scenario.load](scenario, options.port)
    try:
        client.open(options.count)
    except (Wrong, OSError) as problem:
        print(problem, file=sys.stderr)
        return 1
    print("open", flush=True)
    gc.disable()  # a collection would be seen as the server's latency
    for seconds in client.commands(sys.stdin):
        print(json.dumps(asdict(client.load(float(seconds)))), flush=True)
    client.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
