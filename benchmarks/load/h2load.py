"""The closed-loop load generator for HTTP/2: h2load (nghttp2-client) on one thread, told what the scenario's requests say.

A request is written down for HTTP/1.1; `Said` is what is left of it in HTTP/2, where the host is a pseudo-header, the connection has no
fields, and h2load counts the body. A stream follows when another has ended; those that are open when the time is up are not counted,
which costs the slowest servers some parts in a hundred. The client's windows are 1 MiB, for streams and connections, so that responses
do not wait for it. Over TLS it offers the one cipher suite that wrk and its servers agree on.

Before anything is measured, curl asks once, and the answer is looked at in full. Later h2load's counts are: no stream may fail, and the
bytes of all bodies have to come to that of the answers. It says nothing of connections that end, nor of streams that are never answered;
but then those that are answered have not taken the time of all together.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.load.measure import Load, Unusable, percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.load.scenarios import Scenario

_ANSWER_SECONDS, _SLACK_SECONDS = 10, 20
_WINDOW_BITS = "20"
_CIPHER_SUITE = "TLS_AES_256_GCM_SHA384"
_IDLE_PART = 0.10  # of the streams: room for connecting on a busy machine
_LEFT_OUT = (b"host", b"connection", b"content-length")  # RFC 9113 §8.2.2 and §8.3.1; both programs know the length
_SECONDS = re.compile(r"^finished in ([\d.]+)(us|ms|s),", re.MULTILINE)
_COUNTS = re.compile(r"^requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout$", re.MULTILINE)
_STATUSES = re.compile(r"^status codes: \d+ 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx$", re.MULTILINE)
_DATA = re.compile(r"^traffic: .*\((\d+)\) data$", re.MULTILINE)
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, slots=True)
class Said:
    """What requests say in HTTP/2: the targets in turn, with the fields and the body of the first."""

    targets: list[str]
    authority: str
    fields: list[str]
    body: bytes

    @classmethod
    def of(cls, requests: Sequence[bytes]) -> Said:
        """Read requests as they are written for HTTP/1.1."""
        head, _, body = requests[0].partition(b"\r\n\r\n")
        fields = [line.partition(b": ")[::2] for line in head.split(b"\r\n")[1:]]
        authority = dict(fields)[b"Host"].decode()
        kept = [f"{name.decode().lower()}: {value.decode()}" for name, value in fields if name.lower() not in _LEFT_OUT]
        return cls([request.split(b" ", 2)[1].decode() for request in requests], authority, kept, body)


def run(scenario: Scenario, port: int, seconds: float, core: int) -> Load:
    """Load the server on `port` for `seconds` (whole ones, at least 1) from `core`."""
    said, server = Said.of(scenario.requests), f"{scenario.scheme}://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as name:
        targets, body, times = Path(name, "targets"), Path(name, "body"), Path(name, "times")
        targets.write_text("".join(f"{server}{target}\n" for target in said.targets))
        body.write_bytes(said.body)
        command = ["taskset", "-c", str(core), "h2load", "-t", "1", "-c", str(scenario.connections), "-m", str(scenario.depth),
                   "-D", f"{max(1, round(seconds))}s", "-w", _WINDOW_BITS, "-W", _WINDOW_BITS, "--npn-list", "h2",
                   "--tls13-ciphers", _CIPHER_SUITE, "-i", str(targets), f"--log-file={times}",
                   "-H", f":authority: {said.authority}"]  # fmt: skip
        command += [part for field in said.fields for part in ("-H", field)] + (["-d", str(body)] if said.body else [])
        try:
            finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + _SLACK_SECONDS)
        except subprocess.TimeoutExpired:
            message = f"h2load had not ended {_SLACK_SECONDS} s after its time"
            raise Unusable(message) from None
        load = parse(scenario, finished.stdout, times.read_text() if times.exists() else "")
    if load is None:
        message = f"h2load gave no figures (exit status {finished.returncode}): {(finished.stderr or finished.stdout).strip()[-200:]}"
        raise Unusable(message)
    if not load.requests:
        message = f"no request answered; errors {load.errors}"
        raise Unusable(message)
    return load


def parse(scenario: Scenario, output: str, times: str) -> Load | None:
    """Read h2load's report and its lines of start, status and microseconds; None if there is no report in it."""
    took, counts, statuses, data = (pattern.search(output) for pattern in (_SECONDS, _COUNTS, _STATUSES, _DATA))
    if not (took and counts and statuses and data):
        return None
    seconds, received = float(took[1]) * _UNITS[took[2]], int(data[1])
    # A status is counted when the head has come, so that there are more of them than answers.
    answered, failed, errored, timeout = map(int, counts.groups())
    errors = {"status": sum(map(int, statuses.groups())), "failed": failed, "errored": errored, "timeout": timeout}
    lines = [line.split("\t") for line in times.splitlines()]
    latencies = sorted(1000 * int(microseconds) for _, status, microseconds in lines if status == "200")
    errors |= {"idle streams": _idle(scenario, latencies, seconds), "bytes amiss": _amiss(scenario, answered, received)}
    p50, p99 = (percentile(latencies, 50), percentile(latencies, 99)) if latencies else (nan, nan)
    return Load(answered, seconds, received, p50, p99, {kind: count for kind, count in errors.items() if count})


def _idle(scenario: Scenario, latencies: Sequence[int], seconds: float) -> int:
    """Answer how many streams were closed or silent instead of being answered, 0 when too few to tell."""
    streams = scenario.connections * scenario.depth
    last = latencies[-1] if latencies else 0  # an answer that was on its way at the end may have been for so long
    idle = streams - (sum(latencies) + streams * last) / (seconds * 1e9)
    return round(idle) if idle > streams * _IDLE_PART else 0


def _amiss(scenario: Scenario, answered: int, received: int) -> int:
    """Answer how many bytes of bodies are missing or too many; the streams that are open at the end may have got some."""
    size = len(scenario.answer)
    least, most = answered * size, (answered + scenario.connections * scenario.depth) * size
    return max(least - received, received - most, 0)


def check(scenario: Scenario, port: int) -> None:
    """Ask once in HTTP/2 and look at the whole answer. Raises Unusable."""
    said = Said.of(scenario.requests)
    command = ["curl", "--silent", "--show-error", "--insecure", "--http2" if scenario.tls else "--http2-prior-knowledge",
               "--max-time", str(_ANSWER_SECONDS), "--write-out", "\n%{http_version} %{http_code}",
               f"{scenario.scheme}://127.0.0.1:{port}{said.targets[0]}"]  # fmt: skip
    command += [part for field in (f"Host: {said.authority}", *said.fields) for part in ("--header", field)]
    command += ["--data-binary", "@-"] if said.body else []
    finished = subprocess.run(command, input=said.body, capture_output=True, check=False)
    answer, _, verdict = finished.stdout.rpartition(b"\n")
    if verdict != b"2 200" or answer != scenario.answer:
        told = finished.stderr.decode(errors="replace").strip()
        message = f"expected HTTP/2, 200 and {scenario.answer[:20]!r}…, got HTTP/{verdict.decode()} and {answer[:200]!r}"
        raise Unusable("; ".join(filter(None, [message, told])))
