"""What an outcome counts as, and what a run has to give.

The suite judges a case twice: what was sent back (`behavior`) and how the connection ended (`behaviorClose`). Here a case has one
grade: the first if the second is in order, else BAD_CLOSE.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from serving import shown
from suite import Outcome, Results

TOO_BIG = 1009  # RFC 6455 §7.4.1
Record = dict[str, Any]  # a run as results.json keeps it


class Grade(StrEnum):
    """One word for a case."""

    OK = "OK"
    INFORMATIONAL = "INFORMATIONAL"  # behaviour that RFC 6455 leaves open
    NON_STRICT = "NON-STRICT"  # against a SHOULD, or not what the suite would like best
    LIMIT = "1009"  # refused because of a limit: as expected, or by a peer
    UNIMPLEMENTED = "UNIMPLEMENTED"  # permessage-deflate was not agreed on
    BAD_CLOSE = "BAD CLOSE"  # the right messages, but a close that the suite marks
    FAILED = "FAILED"
    MISSING = "MISSING"  # chosen, but without an outcome: the server refused connections before


PASSED = frozenset({Grade.OK, Grade.INFORMATIONAL, Grade.NON_STRICT})
GOOD = PASSED | {Grade.LIMIT}


@dataclass(frozen=True, slots=True)
class Plan:
    """One run: which cases, against which server, and which of them a limit has to refuse with 1009."""

    name: str
    server: str
    command: str
    cases: tuple[str, ...]
    too_big: tuple[str, ...] = ()
    judged: bool = True  # a peer is only compared


def grade(outcome: Outcome | None, plan: Plan, case: str) -> Grade:
    """Answer the grade of a case of a run."""
    if outcome is None:
        return Grade.MISSING
    if any(fnmatchcase(case, pattern) for pattern in plan.too_big):
        return Grade.LIMIT if outcome.code == TOO_BIG else Grade.FAILED
    if outcome.behavior not in PASSED:
        if outcome.code == TOO_BIG and not plan.judged:
            return Grade.LIMIT
        return Grade.UNIMPLEMENTED if outcome.behavior == Grade.UNIMPLEMENTED else Grade.FAILED
    return Grade(outcome.behavior) if outcome.close in {Grade.OK, Grade.INFORMATIONAL} else Grade.BAD_CLOSE


def record(plan: Plan, results: Results, faults: Iterable[str], versions: dict[str, str], seconds: float) -> Record:
    """Answer what is kept of a run: counts, and every case that was not simply OK."""
    grades = {case: grade(results.outcomes.get(case), plan, case) for case in results.chosen}
    counts: dict[str, Counter[str]] = {}
    for case, one in grades.items():
        counts.setdefault(case.partition(".")[0], Counter())[one] += 1
    return {
        "server": plan.server,
        "command": shown(plan.command),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "versions": versions,
        "patterns": list(plan.cases),
        "seconds": round(seconds),
        "counts": {category: dict(sorted(counter.items())) for category, counter in counts.items()},
        "remarkable": {case: _remark(one, results.outcomes.get(case), plan) for case, one in grades.items() if one is not Grade.OK},
        "faults": list(faults),
    }


def _remark(one: Grade, outcome: Outcome | None, plan: Plan) -> dict[str, str]:
    if outcome is None or not plan.judged:
        return {"grade": one}
    return {"grade": one, "sent": outcome.text("description"), "wanted": _wanted(outcome), "seen": _seen(outcome)}


def _wanted(outcome: Outcome) -> str:
    expected = outcome.details["expected"]
    return _events(expected[Grade.OK]) if Grade.OK in expected else outcome.text("expectation")


def _events(events: Iterable[list[Any]]) -> str:
    return ", ".join(" ".join(str(part)[:40] for part in event[:2]) for event in events) or "no message"


def _seen(outcome: Outcome) -> str:
    parts = [_events(outcome.details["received"])] if outcome.details["received"] else []
    if outcome.close not in {Grade.OK, Grade.INFORMATIONAL} and outcome.code != TOO_BIG:
        parts.append(f"{outcome.close.lower()}: {outcome.text('resultClose')}")
    if outcome.code is not None:
        parts.append(f"close code {outcome.code} {outcome.text('remoteCloseReason')}".rstrip())
    return "; ".join(parts) or "nothing"


def failures(one: Record) -> list[str]:
    """Answer a line for each thing that must not be."""
    cases = [f"{case} {remark['grade']}" for case, remark in one["remarkable"].items() if remark["grade"] not in GOOD]
    return cases + one["faults"]
