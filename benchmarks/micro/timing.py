"""Timing of small functions: enough calls to outweigh the clock, repeated; the smallest is the figure, the median shows the noise.

Whatever else the machine does can only add time, so the smallest of many repeats is the steadiest estimate. The cost of calling an
empty function is not taken off: compare cases, not absolute figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from timeit import Timer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Timing:
    """Nanoseconds of one call: the smallest and the median of all repeats."""

    smallest: float
    median: float


def measure(function: Callable[[], object], *, repeats: int, seconds: float) -> Timing:
    """Time `function` in `repeats` batches of about `seconds` each. The garbage collector is off meanwhile, as in timeit."""
    timer = Timer(function)
    calls = 1
    while (took := timer.timeit(calls)) < seconds / 10:
        calls *= 2
    calls = max(1, int(calls * seconds / took))
    batches = [timer.timeit(calls) / calls * 1e9 for _ in range(repeats)]
    return Timing(min(batches), median(batches))
