"""What `termserver status`, `reload`, `stop`, `scale` and `healthcheck` ask a running server, and how they show what it says."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from termserver.channel import Said
from termserver.errors import ControlError
from termserver.process.control import ask, default_path

SECONDS: Final[Mapping[str, float]] = {"status": 5.0, "healthcheck": 2.0, "scale": 120.0, "reload": 300.0, "stop": 120.0}
_SERVING: Final = frozenset({"serving", "reloading"})
_COLUMNS: Final = ("number", "pid", "stage", "generation", "age", "memory", "requests", "running", "connections", "refused")


def find(socket: str, application: str) -> Path:
    """Give the control socket that is meant: the one named, the application's, or the only one there is. Raises `ControlError`."""
    if socket == "none":
        raise ControlError("the control socket is turned off (--control-socket none)")
    if socket:
        return Path(socket)
    place = default_path(application, dict(os.environ), os.geteuid())
    if application:
        return place
    found = sorted(place.parent.glob("termserver-*.sock" if place.name.startswith("termserver-") else "*.sock"))
    if len(found) == 1:
        return found[0]
    what = "no server with workers runs" if not found else f"several servers run ({', '.join(map(str, found))})"
    raise ControlError(f"{what}: name the socket with --control-socket, or the application")


def status(path: Path, seconds: float, *, as_json: bool = False) -> Iterator[str]:
    """Say how a server is. Raises `ControlError`."""
    said = _last(ask(path, "status", seconds))
    if as_json:
        yield json.dumps({key: value for key, value in said.items() if key not in {"is", "done", "ok"}}, indent=2)
        return
    yield f"termserver {said['version']}: {said['application']}, {said['state']} (pid {said['pid']})"
    yield f"listening on {', '.join(said['listening']) or 'nothing any more'}"
    yield f"{said['wanted']} workers wanted:"
    rows = [_COLUMNS, *[_row(worker) for worker in said["workers"]]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        yield "  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))


def _row(worker: Said) -> tuple[str, ...]:
    shown: dict[str, Any] = {**worker, "age": _duration(worker["seconds"]), "memory": f"{worker['memory'] / 1_048_576:.0f} MiB"}
    return tuple(str(shown[column]) for column in _COLUMNS)


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def healthcheck(path: Path, seconds: float) -> Iterator[str]:
    """Say whether a worker of the server answers. Raises `ControlError` where none does."""
    said = _last(ask(path, "status", seconds))
    silent = [worker["silent"] for worker in said["workers"] if worker["stage"] in {"ready", "outdated"}]
    if said["state"] not in _SERVING or not silent:
        raise ControlError(f"not healthy: {said['state']}, {len(silent)} workers serve")
    if min(silent) > max(seconds, 2.0):
        raise ControlError(f"not healthy: no worker gave a sign of life for {min(silent):.1f} s")
    yield f"healthy: {len(silent)} of {said['wanted']} workers serve"


def order(path: Path, question: str, seconds: float, **facts: object) -> Iterator[str]:
    """Have something done, and say what became of it. Raises `ControlError` where it was not."""
    said = _last(ask(path, question, seconds, **facts))
    if not said.get("ok"):
        raise ControlError(str(said.get("text", "refused")))
    yield str(said["text"])


def _last(answers: Iterator[Said]) -> Said:
    said: Said = {}
    for said in answers:  # noqa: B007 - the last one counts
        pass
    return said
