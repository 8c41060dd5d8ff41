"""What the questions' answers look like, and which server is meant."""

from pathlib import Path
from typing import Any

import pytest

from termserver.errors import ControlError
from termserver.process import client
from termserver.process.client import find, healthcheck, order, status

HERE = Path("x.sock")
WORKER = {
    "number": 1, "pid": 7, "stage": "ready", "generation": 1, "seconds": 59.4, "memory": 52_428_800, "silent": 0.5, "requests": 3,
    "running": 0, "connections": 2, "refused": 4,
}  # fmt: skip
FACTS = {
    "is": "status", "done": True, "ok": True, "version": "1.2", "pid": 6, "application": "a:b", "listening": ["TCP address 127.0.0.1:80"],
    "generation": 1, "wanted": 2, "state": "serving", "workers": [WORKER],
}  # fmt: skip


def answering(monkeypatch: pytest.MonkeyPatch, **facts: Any) -> None:
    """Stand in for a server."""
    monkeypatch.setattr(client, "ask", lambda *_args, **_facts: iter([{"is": "progress"}, {**FACTS, **facts}]))


# --- status ---


def test_status_is_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, workers=[WORKER, {**WORKER, "number": 12, "seconds": 90_000, "stage": "draining"}])
    assert list(status(HERE, 1)) == [
        "termserver 1.2: a:b, serving (pid 6)",
        "listening on TCP address 127.0.0.1:80",
        "2 workers wanted:",
        "  number  pid     stage  generation    age  memory  requests  running  connections  refused",
        "       1    7     ready           1   59 s  50 MiB         3        0            2        4",
        "      12    7  draining           1  1.0 d  50 MiB         3        0            2        4",
    ]


def test_a_server_that_stops_listens_at_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, listening=[], workers=[])
    assert list(status(HERE, 1))[1] == "listening on nothing any more"


def test_status_for_programs_holds_facts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, workers=[])
    (text,) = status(HERE, 1, as_json=True)
    assert text.startswith('{\n  "version": "1.2",\n')
    assert '"done"' not in text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (60, "1.0 min"), (5_400, "1.5 h"), (86_400, "1.0 d")])
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert client._duration(seconds) == text


# --- healthcheck ---


@pytest.mark.parametrize(
    ("state", "workers", "verdict"),
    [
        pytest.param("serving", [{}], "healthy: 1 of 2 workers serve", id="serves"),
        pytest.param("reloading", [{"stage": "outdated"}], "healthy: 1 of 2 workers serve", id="reloads"),
        pytest.param("serving", [{"silent": 9.0}, {"silent": 1.0}], "healthy: 2 of 2 workers serve", id="one hangs"),
    ],
)
def test_healthy(monkeypatch: pytest.MonkeyPatch, state: str, workers: list[dict[str, Any]], verdict: str) -> None:
    answering(monkeypatch, state=state, workers=[{**WORKER, **each} for each in workers])
    assert list(healthcheck(HERE, 1)) == [verdict]


@pytest.mark.parametrize(
    ("state", "workers", "verdict"),
    [
        pytest.param("starting", [{"stage": "starting", "silent": None}], "not healthy: starting, 0 workers serve", id="starts"),
        pytest.param("serving", [{"stage": "draining"}], "not healthy: serving, 0 workers serve", id="nobody"),
        pytest.param("stopping", [{}], "not healthy: stopping, 1 workers serve", id="stops"),
        pytest.param("serving", [{"silent": 9.0}, {"silent": 3.1}], "no worker gave a sign of life for 3.1 s", id="all hang"),
    ],
)
def test_not_healthy(monkeypatch: pytest.MonkeyPatch, state: str, workers: list[dict[str, Any]], verdict: str) -> None:
    answering(monkeypatch, state=state, workers=[{**WORKER, **each} for each in workers])
    with pytest.raises(ControlError, match=verdict):
        list(healthcheck(HERE, 1))


# --- orders ---


def test_an_order_says_what_became_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, text="reloaded")
    assert list(order(HERE, "reload", 1)) == ["reloaded"]


@pytest.mark.parametrize(("answer", "reason"), [({"ok": False, "text": "not reloaded: x"}, "not reloaded: x"), ({"ok": False}, "refused")])
def test_an_order_that_was_not_done_is_an_error(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], reason: str) -> None:
    answering(monkeypatch, **answer)
    with pytest.raises(ControlError, match=reason):
        list(order(HERE, "reload", 1))


# --- which server ---


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def test_the_socket_that_is_named_is_meant(runtime: Path) -> None:
    assert find("/x/y.sock", "a:b") == Path("/x/y.sock")


def test_else_the_applications(runtime: Path) -> None:
    assert find("", "a:b") == runtime / "termserver-a-b.sock"


def test_else_the_only_one(runtime: Path) -> None:
    (runtime / "other.sock").touch()
    with pytest.raises(ControlError, match="no server with workers runs"):
        find("", "")
    (runtime / "termserver-a-b.sock").touch()
    assert find("", "") == runtime / "termserver-a-b.sock"
    (runtime / "termserver-c.sock").touch()
    with pytest.raises(ControlError, match=r"several servers run \(.*a-b.*c\.sock\)"):
        find("", "")


def test_none_can_be_asked_nothing(runtime: Path) -> None:
    with pytest.raises(ControlError, match="turned off"):
        find("none", "")
