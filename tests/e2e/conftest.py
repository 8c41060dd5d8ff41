"""Real programs around the tests: termserver as a process, Chromium, and whatever else is found on the machine."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue

import pytest
from selenium import webdriver

SECONDS_TO_START = 60
SECONDS_TO_STOP = 60
LISTENING = re.compile(r"Listening on TCP address (\S+)")
CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1100,800",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run all of these in one process of pytest-xdist, one after the other: they start programs, and wait for them."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("e2e"))


def find_tool(name: str) -> str:
    """Path of a program; without it the test is skipped by its name, and fails where everything has to be there (CI=true)."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if path is not None:
        return path
    if os.environ.get("CI") == "true":
        pytest.fail(f"{name} is not installed (scripts/system-tools.sh)")
    pytest.skip(f"{name} is not installed")


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """`tool("curl")`: where a program is."""
    return find_tool


@dataclass(slots=True)
class Served:
    """A termserver process that listens."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    """What it wrote to stderr so far."""
    _listening: Queue[str] = field(default_factory=Queue)
    _reader: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        """Read along, so that the pipe never fills."""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stderr:
            for line in stderr:
                self.lines.append(line)
                if found := LISTENING.search(line):
                    self._listening.put(found[1])
        self._listening.put("")

    @property
    def log(self) -> str:
        """All of it as one text."""
        return "".join(self.lines)

    def wait_listening(self) -> str:
        """Answer the first address it listens on, as host:port."""
        try:
            address = self._listening.get(timeout=SECONDS_TO_START)
        except Empty:
            address = ""
        assert address, f"termserver does not listen. It wrote:\n{self.log}"
        return address

    def peak_memory(self) -> int:
        """Answer the most memory it ever had resident, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    def stop(self) -> int:
        """Ask it to end, and answer how it did."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self._reader.join(SECONDS_TO_STOP)
        return code


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[..., Served]]:
    """`serve("module:app", …options, cwd=…, environment=…)`: start the installed termserver; what still runs at the end is killed."""
    started: list[Served] = []

    def start(*arguments: str, cwd: Path, environment: Mapping[str, str] | None = None) -> Served:
        command = [str(Path(sys.executable).with_name("termserver")), *arguments]
        process = subprocess.Popen(
            command, cwd=cwd, env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        started.append(Served(process))
        return started[-1]

    yield start
    for served in started:
        if served.process.poll() is None:
            served.process.kill()
            served.process.wait()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """A headless Chromium with a profile of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = find_tool("chromium")
    for flag in (*CHROMIUM_FLAGS, f"--user-data-dir={tmp_path / 'chromium'}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService(find_tool("chromedriver")))
    yield driver
    driver.quit()
