"""Source files that change."""

import select
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from termserver.errors import ConfigError
from termserver.process.watch import watch


def test_without_watchfiles_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(ConfigError, match=r"pip install 'termserver\[reload\]'"):
        watch(["."])


def test_a_directory_that_is_none_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("watchfiles")
    with pytest.raises(ConfigError, match=r"--reload-dir: .*nowhere is no directory"):
        watch([str(tmp_path / "nowhere")])


def test_what_changed_is_said_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def changes(*directories: str, **_options: object) -> Iterator[set[tuple[int, str]]]:
        asked.extend(directories)
        yield {(1, "/a/c.py"), (2, "/a/b.py"), (3, "/a/b.py")}

    fake = ModuleType("watchfiles")
    fake.watch, fake.PythonFilter = changes, object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "watchfiles", fake)
    made: list[socket.socket] = []
    pair = socket.socketpair
    monkeypatch.setattr(socket, "socketpair", lambda: made.extend(pair()) or tuple(made))
    with watch([str(tmp_path)]) as said:
        assert select.select([said], [], [], 20)[0]
        assert said.recv(100) == b"/a/b.py\n/a/c.py\n"
        for thread in threading.enumerate():
            if thread.name == "termserver-watch":
                thread.join(20)
    made[1].close()
    assert asked == [str(tmp_path)]
