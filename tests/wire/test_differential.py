"""Our verdict on every head of the corpus beside llhttp's own and h11's: each difference is one we know the reason of."""

from pathlib import Path

import h11
import httptools
import pytest

from wire.corpus import CASES, WHY, Case
from wire.driving import engine, feed_every_way

PAGE = Path(__file__).parents[2] / "docs" / "http1-heads.md"
MAKE_PAGE = "PYTHONPATH=tests python -m wire.test_differential"


class _Listener:
    """llhttp's callbacks."""

    def __init__(self) -> None:
        self.complete = False

    def on_headers_complete(self) -> None:
        self.complete = True


def llhttp(data: bytes) -> int | None:
    """Give 400 where llhttp alone refuses; it has no statuses."""
    listener = _Listener()
    try:
        httptools.HttpRequestParser(listener).feed_data(data)
    except httptools.HttpParserUpgrade:
        return None
    except httptools.HttpParserError:
        return 400
    return None if listener.complete else 400


def h11_server(data: bytes) -> int | None:
    """Give the status that h11 suggests; None where it accepts."""
    server = h11.Connection(our_role=h11.SERVER)
    try:
        server.receive_data(data)
        while True:
            event = server.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.EndOfMessage):
                return None if server.their_state is not h11.IDLE else 400
    except h11.RemoteProtocolError as error:
        return error.error_status_hint


PEERS = {"llhttp": llhttp, "h11": h11_server}


def by_name(case: Case) -> str:
    return case.name


def test_the_corpus_is_large_and_its_names_are_unique() -> None:
    assert len(CASES) >= 150
    assert len({case.name for case in CASES}) == len(CASES)
    assert {reason for case in CASES for reason in case.differs.values()} == set(WHY)


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_our_verdict(case: Case) -> None:
    outcome = feed_every_way(engine, case.data)
    assert outcome.status == case.ours, outcome.reason
    assert bool(outcome.got) is (case.ours is None)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_every_difference_is_known(case: Case, peer: str) -> None:
    differs = (PEERS[peer](case.data) is None) is not (case.ours is None)
    assert differs is (peer in case.differs)


def page() -> str:
    """Make docs/http1-heads.md."""
    differing = [case for case in CASES if case.differs]
    lines = [
        "# Heads that servers read differently",
        "",
        "termserver lets llhttp (the parser of Node.js, through httptools) judge a request's field lines, and adds rules of its own.",
        "This page lists where its verdict differs from that of llhttp alone or of h11, another strict parser:",
        f"{len(differing)} of the {len(CASES)} inputs that `tests/wire/corpus.py` holds.",
        f"The other {len(CASES) - len(differing)} are judged alike by all three. It is made by",
        f"`{MAKE_PAGE}`.",
        "",
        "A number is the status an input is refused with, before the application sees anything of it; the connection is closed behind it,",
        "and bytes that follow are never parsed. llhttp has no statuses.",
    ]
    for reason, text in WHY.items():
        rows = [_row(case) for case in differing if reason in case.differs.values()]
        lines += ["", f"**{text}**", "", "| input | termserver | llhttp | h11 |", "| --- | --- | --- | --- |", *rows]
    return "\n".join(lines) + "\n"


def _row(case: Case) -> str:
    verdicts = (case.ours, llhttp(case.data), h11_server(case.data))
    ours, theirs, h11s = ("accepts" if status is None else str(status) for status in verdicts)
    return f"| {case.name} | {ours} | {'refuses' if theirs == '400' else theirs} | {h11s} |"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == page(), f"run {MAKE_PAGE}"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
