"""The closed-loop load generator: wrk on one thread, driven by a Lua script made from the scenario.

The script hands wrk whole requests. One request is given through `wrk.format`, which wrk asks once; several come from `request`,
which it calls every time. wrk counts as a status error what is above 399; the harness has looked at one answer in full before.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.load.measure import Load, Unusable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.load.scenarios import Scenario

_PLAIN = frozenset(range(0x20, 0x7F)) - frozenset(b'"\\')
_ONE = "wrk.format = function() return requests[1] end\n"
_MANY = "local turn = 0\nrequest = function() turn = turn % #requests + 1; return requests[turn] end\n"
_DONE = """
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\\nJSON{"requests":%d,"seconds":%.6f,"received":%d,"p50_us":%.1f,"p99_us":%.1f,' ..
    '"errors":{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}\\n',
    summary.requests, summary.duration / 1e6, summary.bytes, latency:percentile(50), latency:percentile(99),
    e.connect, e.read, e.write, e.status, e.timeout))
end
"""


def _literal(data: bytes) -> str:
    plain = (chr(byte) if byte in _PLAIN else f"\\{byte:03d}" for byte in data)
    return '"' + "".join(plain) + '"'


def script(requests: Sequence[bytes], depth: int) -> str:
    """Answer the Lua script that sends `requests` in turn, `depth` of them in one write."""
    table = ",\n".join(_literal(one * depth) for one in requests)
    return f"local requests = {{\n{table}\n}}\n" + (_ONE if len(requests) == 1 else _MANY) + _DONE


def run(scenario: Scenario, port: int, seconds: float, core: int) -> Load:
    """Load the server on `port` for `seconds` (whole ones, at least 1) from `core`."""
    with tempfile.TemporaryDirectory() as directory:
        lua = Path(directory, "scenario.lua")
        lua.write_text(script(scenario.requests, scenario.depth))
        command = ["taskset", "-c", str(core), "wrk", "-t", "1", "-c", str(scenario.connections), "-d", f"{max(1, round(seconds))}s",
                   "--timeout", "10s", "-s", str(lua), f"{scenario.scheme}://127.0.0.1:{port}/"]  # fmt: skip
        finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
    _, found, figures = finished.stdout.rpartition("JSON")
    if not found:
        message = f"wrk gave no figures (exit status {finished.returncode}): {finished.stderr.strip() or finished.stdout.strip()}"
        raise Unusable(message)
    load = Load(**json.loads(figures))
    if scenario.depth > 1:
        load.p50_us = load.p99_us = nan  # wrk takes one time for all of them and then ranks it among the requests
    load.errors = {kind: count for kind, count in load.errors.items() if count}
    if not load.requests:
        message = f"no request answered; errors {load.errors}"
        raise Unusable(message)
    return load
