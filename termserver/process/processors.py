"""How many processors this process may use: its affinity, and what its control group grants (`docker run --cpus`, a Kubernetes limit)."""

import math
import os
from pathlib import Path
from typing import Final

from termserver.config import Workers

_GROUPS: Final = Path("/sys/fs/cgroup")


def wanted(workers: Workers) -> int:
    """Give the number of workers there are to be."""
    if workers.count is None:
        return 1
    return workers.count or count()


def count(groups: Path = _GROUPS) -> int:
    """Give the number of processors, a part of one counting as a whole one. `groups`: where control groups are mounted."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(own, _quota(groups))))


def _quota(groups: Path) -> float:
    """Give the processors' worth of time that is granted, of either version of control groups; infinite where that is not bounded."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            words = " ".join([(groups / name).read_text() for name in names]).split()
        except OSError:
            continue
        granted, period = words[0], words[1]
        if granted.isdecimal() and int(period):
            return int(granted) / int(period)
    return math.inf
