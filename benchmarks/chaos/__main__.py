"""Run the parts and print a table; the exit code is 1 where a promise was not kept."""

import argparse
import asyncio
import sys
import time

from benchmarks.chaos.parts import PARTS


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--part", action="append", choices=list(PARTS), help="Run this part only; may be repeated.")
    kept = True
    for name in parser.parse_args().part or PARTS:
        begun = time.monotonic()
        rows = asyncio.run(PARTS[name]())
        print(f"\n{name} ({time.monotonic() - begun:.0f} s): {PARTS[name].__doc__}")
        for what, promised, measured, fine in rows:
            print(f"  {'ok  ' if fine else 'FAIL'}  {what:<62}  {promised:<26}  {measured}", flush=True)
            kept = kept and fine
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
