"""docs/conformance.md, made of results.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from verdicts import PASSED, Grade, Record

_CATEGORIES = {
    "1": "framing",
    "2": "ping and pong",
    "3": "reserved bits",
    "4": "opcodes",
    "5": "fragmentation",
    "6": "UTF-8",
    "7": "closing",
    "9": "limits, performance",
    "10": "automatic fragmentation",
    "12": "compression, payloads",
    "13": "compression, parameters",
}
_TITLES = {"raised": "Every case, limits off", "defaults": "Cases that send much, limits as they are by default"}
_ABOUT = {
    "raised": "A server with limits cannot pass the cases that send 16 MiB.",
    "defaults": "A message has at most 1 MiB and 1 024 fragments unless options say otherwise. What is over that is closed with code 1009: "
    "4 MiB and more in 9.1 and 9.2, the same in fragments in 9.3 and 9.4. The suite does not expect it, this run does, and everything else "
    "has to pass.",
}
_HEAD = """# WebSocket conformance

What the fuzzing client of [Autobahn|Testsuite](https://github.com/crossbario/autobahn-testsuite) finds in termserver and in others
that serve an application which echoes. Made by `make conformance`: do not edit. The exact requests are in the suite, the echo
application and the rules by which a run passes in `tests/conformance`.

OK is what the suite wants. INFORMATIONAL is behaviour the RFC leaves open. NON-STRICT conforms, but not as the suite would like best:
mostly a frame that is in order comes with one that is not, and the connection is closed before the application has answered the first.
Which of 3.2 to 5.15 that befalls is a matter of timing.
"""


def totals(one: Record) -> str:
    """Answer the grades of a run with their counts, in one line."""
    total = sum((Counter(counts) for counts in one["counts"].values()), Counter[str]())
    return ", ".join(f"{total[grade]} {grade}" for grade in Grade if total[grade])


def render(records: dict[str, Record], own: Sequence[str]) -> str:
    """Answer the page: the runs of termserver named in `own`, then every other server."""
    sections = [_HEAD]
    sections += [_section(name, records[name]) for name in own if name in records]
    peers = [name for name in records if name not in own]
    if peers:
        first = {records[name]["server"]: records[name] for name in own[:1] if name in records}
        sections.append(_comparison(first, {name: records[name] for name in peers}))
    return "\n".join(sections)


def _section(name: str, one: Record) -> str:
    versions = ", ".join(f"{what} {number}" for what, number in one["versions"].items())
    lines = [f"## {_TITLES[name]}", "", _ABOUT[name], ""]
    lines += [f"- `{one['command']}`", f"- {one['date']}, {one['seconds']} s, {versions}", f"- {totals(one)}"]
    lines += [*(f"- **{fault}**" for fault in one["faults"]), "", *_table(one)]
    for grade in Grade:
        lines += _grouped(one) if grade is Grade.LIMIT else _listed(one, grade)
    return "\n".join(lines)


def _table(one: Record) -> list[str]:
    grades = [grade for grade in Grade if any(grade in counts for counts in one["counts"].values())]
    lines = ["| category | cases | " + " | ".join(grades) + " |", "| --- | ---: |" + " ---: |" * len(grades)]
    for category, counts in one["counts"].items():
        figures = [str(sum(counts.values())), *(str(counts.get(grade, "")) for grade in grades)]
        lines.append(f"| {category} {_CATEGORIES[category]} | " + " | ".join(figures) + " |")
    return [*lines, ""]


def _listed(one: Record, grade: Grade) -> list[str]:
    remarks = {case: remark for case, remark in one["remarkable"].items() if remark["grade"] == grade}
    if not remarks:
        return []
    lines = [f"**{grade}**", "", "| case | the client's part | the suite wants | it saw |", "| --- | --- | --- | --- |"]
    for case, remark in remarks.items():
        lines.append(f"| {case} | " + " | ".join(_cell(remark.get(part, "–")) for part in ("sent", "wanted", "seen")) + " |")
    return [*lines, ""]


def _grouped(one: Record) -> list[str]:
    """Show the cases that a limit refused, under what the server said of it."""
    said: dict[str, list[str]] = {}
    for case, remark in one["remarkable"].items():
        if remark["grade"] == Grade.LIMIT:
            said.setdefault(remark["seen"], []).append(case)
    lines = [f"- {reason}: {', '.join(_ranges(cases))}" for reason, cases in said.items()]
    return [*lines, ""] if lines else []


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _comparison(own: dict[str, Record], peers: dict[str, Record]) -> str:
    """Show who passed how many of which cases: a reduced set was run where the second number is smaller."""
    everyone = own | peers
    categories = [category for category in _CATEGORIES if any(category in one["counts"] for one in everyone.values())]
    lines = ["## Compared", "", "Cases passed (OK, INFORMATIONAL or NON-STRICT) of cases run; of 12 and 13, peers are asked a few.", ""]
    lines += ["| server | " + " | ".join(categories) + " | NON-STRICT |", "| --- |" + " ---: |" * (len(categories) + 1)]
    for name, one in everyone.items():
        figures = [_passed(one["counts"].get(category, {})) for category in categories]
        figures.append(str(sum(counts.get(Grade.NON_STRICT, 0) for counts in one["counts"].values())))
        lines.append(f"| {name} | " + " | ".join(figures) + " |")
    lines += ["", *(_weak(name, one) for name, one in peers.items())]
    return "\n".join([*lines, ""])


def _passed(counts: dict[str, int]) -> str:
    run = sum(counts.values())
    return f"{sum(counts.get(grade, 0) for grade in PASSED)}/{run}" if run else "–"


def _weak(name: str, one: Record) -> str:
    parts = []
    for grade in Grade:
        cases = [case for case, remark in one["remarkable"].items() if remark["grade"] == grade]
        if cases and grade not in {Grade.OK, Grade.INFORMATIONAL}:
            parts.append(f"{grade} {', '.join(_ranges(cases))}")
    return f"- {name}, {one['date']}, `{one['command']}`: {'; '.join(parts) or 'nothing to remark'}"


def _ranges(cases: Sequence[str]) -> list[str]:
    """Join neighbours: 6.4.1, 6.4.2, 6.4.3 to 6.4.1–3."""
    groups: list[list[str]] = []
    for case in cases:
        stem, _, number = case.rpartition(".")
        if groups and groups[-1][-1] == f"{stem}.{int(number) - 1}":
            groups[-1].append(case)
        else:
            groups.append([case])
    return [group[0] if len(group) == 1 else f"{group[0]}–{group[-1].rpartition('.')[2]}" for group in groups]
