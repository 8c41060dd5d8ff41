"""A supervisor with two workers, as a process."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_ADDRESS = re.compile(r"TCP address 127\.0\.0\.1:(\d+)")
PATIENCE = 60.0


class Service:
    """`with Service(…) as service:` serves on a free port until the end."""

    def __init__(self, *options: str, access_log: int | None = None, files: int = 0) -> None:
        """`access_log`: the descriptor it goes to; `files`: RLIMIT_NOFILE."""
        self._directory = tempfile.TemporaryDirectory()
        self.control = Path(self._directory.name) / "control.sock"
        words = [sys.executable, "-m", "termserver", "app:app", "--app-dir", str(Path(__file__).parent), "--bind", "127.0.0.1:0"]
        words += ["--workers", "2", "--control-socket", str(self.control), *(["--no-access-log"] if access_log is None else []), *options]
        if files:
            words = ["prlimit", f"--nofile={files}", *words]
        self.lines: list[str] = []
        self.port = 0
        self._listens = threading.Event()
        self.process = subprocess.Popen(
            words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL if access_log is None else access_log, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stderr or ():
            self.lines.append(line)
            if not self.port and (found := _ADDRESS.search(line)):
                self.port = int(found[1])
                self._listens.set()
        self._listens.set()

    def __enter__(self) -> Self:
        """Wait until two workers serve."""
        self._listens.wait(PATIENCE)
        self.wait_workers()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop it."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()
        self._directory.cleanup()

    def facts(self) -> dict[str, Any]:
        """Ask how it is."""
        return self._ask("status")

    def _ask(self, question: str) -> dict[str, Any]:
        """Ask without `select`, which takes no descriptor above 1023."""
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(300)
            asked.connect(str(self.control))
            asked.sendall(json.dumps({"is": question}).encode() + b"\n")
            with asked.makefile() as answers:
                found: dict[str, Any] = json.loads(answers.readline())
                return found

    def wait_workers(self, without: Sequence[int] = ()) -> list[int]:
        """Wait until two serve and nothing is under way; give their process ids."""
        found: list[int] = []

        def there() -> bool:
            workers = self.facts()["workers"] if self.control.exists() else []
            found[:] = [worker["pid"] for worker in workers]
            return [worker["stage"] for worker in workers] == ["ready"] * 2 and not set(found) & set(without)

        wait_until(there)
        return found

    def reload(self) -> None:
        """Have new workers started, and wait until they serve."""
        said = self._ask("reload")
        if not said.get("ok"):
            raise RuntimeError(said)

    @property
    def files(self) -> int:
        """How many descriptors the supervisor holds."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    @property
    def zombies(self) -> int:
        """How many children it has not collected."""
        states = [_stat(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
        return sum(state == "Z" and parent == self.process.pid for state, parent in states)


def _stat(pid: str) -> tuple[str, int]:
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return "", 0
    return state, int(parent)


def processor_seconds(pid: int) -> float:
    """Give the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for something."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {PATIENCE:g} s in vain")
        time.sleep(0.02)
