"""Autobahn|Testsuite: its environment, a run of its fuzzing client, and what the reports of a run say.

The suite needs CPython 2.7. It gets an environment of its own, `.venvs/2.7`, made with that interpreter's virtualenv; a stamp in it
holds the digest of what was installed.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Timer
from typing import Any

HERE = Path(__file__).parent
ENVIRONMENT = HERE.parents[1] / ".venvs" / "2.7"
_REQUIREMENTS = HERE / "requirements.txt"
_SUITABLE = "import sys, virtualenv; sys.exit(sys.version_info[:2] != (2, 7))"
_VERSIONS = """
import autobahn, autobahntestsuite, json, platform
print(json.dumps([autobahntestsuite.version, autobahn.version, platform.python_version()]))
"""
_SILENCE = 900.0  # seconds without a new case; the suite gives its longest one 480
_TAG = re.compile(r"<[^>]*>")


class NoSuite(Exception):
    """The suite cannot be had here, or its run did not get to an end."""


@dataclass(frozen=True)
class Outcome:
    """What the suite found in one case; `details` is its own report of it."""

    case: str
    behavior: str
    close: str
    code: int | None
    report: Path

    @cached_property
    def details(self) -> dict[str, Any]:
        """The suite's report: expectation, result, wire log and more."""
        found: dict[str, Any] = json.loads(self.report.read_text())
        return found

    def text(self, name: str) -> str:
        """Answer a text of the report in one line, without its markup."""
        return " ".join(_TAG.sub(" ", self.details[name] or "").split())


@dataclass(frozen=True, slots=True)
class Results:
    """The cases that were chosen, and the outcome of those that were run."""

    chosen: list[str]
    outcomes: dict[str, Outcome]


def prepare() -> Path:
    """Make or update the suite's environment; answer its interpreter. Raises NoSuite."""
    python = ENVIRONMENT / "bin" / "python"
    stamp, digest = ENVIRONMENT / ".autobahn", hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return python
    _run([_find_python(), "-m", "virtualenv", "--quiet", "--no-periodic-update", str(ENVIRONMENT)])
    _run([str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-python-version-warning",
          "--requirement", str(_REQUIREMENTS)])  # fmt: skip
    stamp.write_text(digest)
    return python


def _find_python() -> str:
    # pyenv's first: its shims are on PATH for every version, and fail for those that are not selected.
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for candidate in [*sorted(pyenv.glob("2.7*/bin/python"), reverse=True), shutil.which("python2.7")]:
        if candidate and subprocess.run([candidate, "-c", _SUITABLE], capture_output=True).returncode == 0:
            return str(candidate)
    raise NoSuite("expected CPython 2.7 with virtualenv, on PATH or in pyenv, found none: Autobahn|Testsuite runs under nothing newer")


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True)
    except subprocess.CalledProcessError as error:
        raise NoSuite(f"no environment for Autobahn|Testsuite: {error}") from error


def versions(python: Path) -> dict[str, str]:
    """Answer the versions of the suite and what it runs on."""
    told = subprocess.run([python, "-c", _VERSIONS], check=True, capture_output=True, text=True).stdout
    return dict(zip(("Autobahn|Testsuite", "its autobahn", "its Python"), json.loads(told), strict=True))


def run(python: Path, port: int, patterns: list[str], directory: Path, started: Callable[[str], None]) -> Results:
    """Run the cases that match `patterns` against loopback's `port`; reports go to `directory`. `started` hears of each case.

    A server that refuses a connection ends the suite's run early: the cases left out are chosen and have no outcome. Raises NoSuite.
    """
    spec = directory / "spec.json"
    server = {"agent": "server", "url": f"ws://127.0.0.1:{port}"}
    spec.write_text(json.dumps({"outdir": str(directory), "servers": [server], "cases": patterns, "exclude-cases": []}))
    chosen: list[str] = []
    # -u: each case is told of when it begins.
    with _lines([str(python), "-u", str(python.with_name("wstest")), "-m", "fuzzingclient", "-s", str(spec)], directory) as lines:
        for line in lines:
            if line.startswith("Cases = "):
                chosen = ast.literal_eval(line.removeprefix("Cases = "))
            elif line.startswith("Running test case ID "):
                started(line.split()[4])
    if not chosen or not (directory / "index.json").exists():
        raise NoSuite(f"the fuzzing client chose no case or made no report, its output is {directory / 'suite.log'}")
    return Results(chosen, _outcomes(directory))


@contextmanager
def _lines(command: list[str], directory: Path) -> Iterator[Iterator[str]]:
    """Run a command and hand out its output line by line, which also goes to suite.log; end it when it is silent for too long."""
    with (
        (directory / "suite.log").open("w") as log,
        subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        try:
            yield _told(process, log)
        finally:
            process.kill()


def _told(process: subprocess.Popen[str], log: Any) -> Iterator[str]:
    while True:
        silence = Timer(_SILENCE, process.kill)
        silence.start()
        try:
            line = process.stdout.readline() if process.stdout else ""
        finally:
            silence.cancel()
        if not line:
            return
        log.write(line)
        yield line


def _outcomes(directory: Path) -> dict[str, Outcome]:
    index = json.loads((directory / "index.json").read_text())
    return {
        case: Outcome(case, one["behavior"], one["behaviorClose"], one["remoteCloseCode"], directory / one["reportfile"])
        for case, one in index.get("server", {}).items()
    }
