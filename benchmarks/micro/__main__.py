"""Runner: `python -m benchmarks.micro [MODULE …] [--repeats N] [--seconds S]`. Exit status 1 when a claim does not hold."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import platform
import sys

from benchmarks import micro
from benchmarks.micro.timing import Timing, measure

_RUNNER = {"__main__", "timing"}


def main() -> int:
    """Time the modules named, or all; answer the exit status."""
    modules = sorted({found.name for found in pkgutil.iter_modules(micro.__path__)} - _RUNNER)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.micro", description="Time one hot function each.")
    parser.add_argument("module", nargs="*", help=f"of {', '.join(modules)} (default: all)")
    parser.add_argument("--repeats", type=int, default=15, help="batches of each case (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.05, help="length of a batch (default %(default)s)")
    options = parser.parse_args()
    if unknown := set(options.module) - set(modules):
        parser.error(f"expected modules of {', '.join(modules)}, got {', '.join(sorted(unknown))}")
    print(f"Python {platform.python_version()}, smallest and median of {options.repeats} batches")
    missed = 0
    for name in options.module or modules:
        missed += _run(name, options.repeats, options.seconds)
    return 1 if missed else 0


def _run(name: str, repeats: int, seconds: float) -> int:
    """Time one module's cases; answer how many of its claims do not hold."""
    module = importlib.import_module(f"{micro.__name__}.{name}")
    print(f"\n{name}")
    timings: dict[str, Timing] = {}
    for case, function in module.CASES.items():
        timing = timings[case] = measure(function, repeats=repeats, seconds=seconds)
        print(f"  {case:<40} {timing.smallest:10.0f} ns   median {timing.median:10.0f} ns")
    missed = 0
    for fast, slow, budget in getattr(module, "CLAIMS", ()):
        ratio = timings[fast].smallest / timings[slow].smallest
        missed += ratio > budget
        print(f"  {'holds ' if ratio <= budget else 'MISSED'} {fast} ÷ {slow} = {ratio:.2f}, claimed ≤ {budget:.2f}")
    return missed


if __name__ == "__main__":
    sys.exit(main())
