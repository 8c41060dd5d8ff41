"""How many processors there are: affinity and control groups."""

import os
from pathlib import Path

import pytest

from termserver.config import Workers
from termserver.process.processors import count, wanted


def group(directory: Path, **files: str) -> Path:
    for name, text in files.items():
        path = directory / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return directory


@pytest.fixture(autouse=True)
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu_dot_max": "max 100000\n"}, 8),
        ({"cpu_dot_max": "200000 100000\n"}, 2),
        ({"cpu_dot_max": "150000 100000\n"}, 2),
        ({"cpu_dot_max": "10000 100000\n"}, 1),
        ({"cpu_dot_max": "9900000 100000\n"}, 8),
        ({"cpu__cpu.cfs_quota_us": "300000\n", "cpu__cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu__cpu.cfs_quota_us": "-1\n", "cpu__cpu.cfs_period_us": "100000\n"}, 8),
    ],
)
def test_what_the_control_group_grants(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert count(group(tmp_path, **files)) == expected


def test_a_system_without_affinity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert count(tmp_path) == 3
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert count(tmp_path) == 1


def test_workers() -> None:
    assert wanted(Workers()) == wanted(Workers(reload=True)) == 1
    assert wanted(Workers(count=5)) == 5
    assert 1 <= wanted(Workers(count=0)) <= 8
