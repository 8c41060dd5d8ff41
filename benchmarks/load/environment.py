"""Where the servers come from: one virtual environment for each Python, made once from the pinned requirements.

It lives in `.benchmarks/venv-<python version>`. A stamp holds the digest of what was installed, so that it is brought up to date
when the pins or the project's metadata change and left alone otherwise.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.load.running import ROOT

_REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_METADATA = [ROOT / "pyproject.toml", ROOT / "termserver" / "__init__.py"]  # the dependencies and the version
_VERSION = "import platform; print(platform.python_version())"
_VERSIONS = """
import importlib.metadata, json
found = importlib.metadata.distributions()
print(json.dumps({one.name.lower().replace("-", "_"): one.version for one in found}))
"""


@dataclass(frozen=True, slots=True)
class Environment:
    """A prepared virtual environment: its interpreter, Python version and installed distributions."""

    python: Path
    version: str
    distributions: dict[str, str]


def find_python(name: str) -> str:
    """Answer the interpreter for a path, a command, or a version such as `3.13` (on PATH or among pyenv's)."""
    if found := shutil.which(name):
        return found
    if re.fullmatch(r"[\d.]+", name):
        pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
        # pyenv's first: its shims are on PATH for every version, and fail for those that are not selected.
        for candidate in [*sorted(pyenv.glob(f"{name}*/bin/python"), reverse=True), shutil.which(f"python{name}")]:
            if candidate:
                return str(candidate)
    message = f"expected the path of an interpreter, a command, or a version found on PATH or in pyenv, got {name!r}"
    raise FileNotFoundError(message)


def prepare(interpreter: str, *, project: bool) -> Environment:
    """Make or update the environment of `interpreter`; with `project`, termserver itself is installed (editable)."""
    version = _output([interpreter, "-c", _VERSION])
    directory = ROOT / ".benchmarks" / f"venv-{version}"
    python = directory / "bin" / "python"
    if not python.exists():
        _run([interpreter, "-m", "venv", str(directory)])
    _install(python, directory / "peers.stamp", [_REQUIREMENTS], ["-r", str(_REQUIREMENTS)])
    if project:
        _install(python, directory / "project.stamp", _METADATA, ["-e", str(ROOT)])
    return Environment(python, version, json.loads(_output([str(python), "-c", _VERSIONS])))


def _install(python: Path, stamp: Path, sources: list[Path], what: list[str]) -> None:
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what])
    stamp.write_text(digest)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, cwd=ROOT)


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout.strip()


@dataclass(frozen=True, slots=True)
class Cores:
    """The core of the server and the core of the load generator."""

    server: int
    client: int


def choose_cores() -> Cores:
    """Take two cores that this process may use, not two threads of one core if that can be helped."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        message = f"expected two cores, one for the server and one for the load generator, got {len(allowed)}"
        raise RuntimeError(message)
    client, others = allowed[0], allowed[1:]
    siblings = _siblings(client)
    return Cores(server=next((core for core in others if core not in siblings), others[0]), client=client)


def _siblings(core: int) -> set[int]:
    path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    siblings: set[int] = set()
    for part in path.read_text().strip().split(",") if path.exists() else []:
        first, _, last = part.partition("-")
        siblings.update(range(int(first), int(last or first) + 1))
    return siblings


def machine() -> dict[str, str]:
    """Answer what a reader has to know of the machine and the day."""
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    wrk = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout.split(" [")[0].strip()
    h2load = subprocess.run(["h2load", "--version"], capture_output=True, text=True, check=False).stdout if shutil.which("h2load") else ""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "load generator": ", ".join(filter(None, (wrk, h2load.strip()))),
    }
