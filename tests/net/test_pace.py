"""What one connection has how much time for, in virtual time (spec limits L12 to L17, L35, L48 and the half-closed connection)."""

from dataclasses import replace

import pytest

from termserver.config import Timeouts
from termserver.net.pace import APPLICATION, BODY, DISCARD, HEAD, REQUEST, Pace

TIMEOUTS = Timeouts(
    header_read=10, body_idle=60, body_rate=240, body_rate_grace=5, keep_alive=75, half_close=1, linger_idle=5, linger_total=30,
    write_stall=60, write_rate=240, application=0,
)  # fmt: skip


class Peer:
    """A connection with its pace. `now` is the time; everything that is said to it is written down with its time."""

    def __init__(self, first: float = 10, **timeouts: float) -> None:
        self.now = 0.0
        self.taken = 0  # bytes that have left
        self.said: list[tuple[float, str]] = []
        self.pace = Pace(self, replace(TIMEOUTS, **timeouts), 0.0, first=first)  # type: ignore[arg-type]

    def progress(self) -> int:
        return self.taken

    def idle_for_too_long(self) -> None:
        self.said.append((self.now, "idle"))

    def request_too_slow(self, reason: str) -> None:
        self.said.append((self.now, reason))

    def application_too_slow(self) -> None:
        self.said.append((self.now, "application"))

    def peer_too_slow(self, reason: str) -> None:
        self.said.append((self.now, reason))

    def farewell_over(self) -> None:
        self.said.append((self.now, "farewell over"))

    def half_closed_for_long(self) -> None:
        self.said.append((self.now, "half-closed"))

    def wait(self, seconds: float) -> list[str]:
        """Let time pass, with a look at every deadline; give what was said meanwhile."""
        end, before, looks = self.now + seconds, len(self.said), 0
        while self.pace.deadline <= end:
            self.now = max(self.now, self.pace.deadline)
            self.pace.expired(self.now)
            looks += 1
            assert looks < 10 * seconds + 10, "looked at too often"
        self.now = end
        return [what for _, what in self.said[before:]]

    def enter(self, phase: object) -> None:
        self.pace.enter(phase, self.now)  # type: ignore[arg-type]

    def receive(self, size: int) -> None:
        self.pace.received(size, self.now)


# --- L12, L15: the head, and the time before it ---


def test_l12_new_connection_that_says_nothing_is_closed() -> None:
    peer = Peer(first=10)
    assert peer.wait(9.9) == []
    assert peer.wait(0.2) == ["idle"]


def test_l12_head_has_its_time_from_its_first_byte_and_more_bytes_change_nothing() -> None:
    peer = Peer()
    peer.wait(9)
    peer.enter(HEAD)
    for _ in range(9):
        assert peer.wait(1.1) == []
        peer.enter(HEAD)
    assert peer.wait(0.2) == ["the request head took too long"]


def test_l15_idle_connection_is_closed() -> None:
    peer = Peer()
    peer.enter(APPLICATION)
    peer.wait(1_000)
    peer.pace.idle(peer.now)
    assert peer.wait(74.9) == []
    assert peer.wait(0.2) == ["idle"]


def test_l15_idle_time_begins_again_with_every_request() -> None:
    peer = Peer()
    for _ in range(5):
        peer.pace.idle(peer.now)
        assert peer.wait(70) == []


def test_l15_client_that_still_takes_the_last_response_is_not_idle() -> None:
    peer = Peer(keep_alive=5)
    peer.pace.write_blocked(0)
    peer.pace.idle(0)
    for _ in range(20):
        peer.taken += 1_000
        assert peer.wait(1) == []
    peer.pace.write_free()
    peer.pace.idle(peer.now)
    assert peer.wait(5.1) == ["idle"]


@pytest.mark.parametrize(("phase", "off"), [(REQUEST, "keep_alive"), (HEAD, "header_read"), (APPLICATION, "application")])
def test_zero_is_no_limit(phase: object, off: str) -> None:
    peer = Peer(first=0, **{off: 0})
    if phase is REQUEST:
        peer.pace.idle(0)
    else:
        peer.enter(phase)
    assert peer.wait(10_000) == []


def test_stopping_server_gives_a_new_connection_a_moment() -> None:
    peer = Peer()
    peer.pace.hurry(0)
    assert peer.wait(2) == ["idle"]


def test_stopping_server_hurries_no_request() -> None:
    peer = Peer()
    peer.enter(HEAD)
    peer.pace.hurry(0)
    assert peer.wait(9.9) == []


# --- L13, L14: the body ---


def test_l13_body_that_stops_is_refused() -> None:
    peer = Peer(body_rate=0)
    peer.enter(BODY)
    peer.wait(50)
    peer.receive(1)
    assert peer.wait(59.9) == []
    assert peer.wait(0.2) == ["no body byte came for too long"]


def test_l14_body_has_its_grace_then_has_to_keep_the_rate() -> None:
    peer = Peer()
    peer.enter(BODY)
    assert peer.wait(4.9) == []
    assert peer.wait(1.2) == ["the body comes too slowly"]


def test_l14_body_at_the_rate_goes_on_and_one_below_it_does_not() -> None:
    at, below = Peer(), Peer()
    for peer in (at, below):
        peer.enter(BODY)
    for _ in range(30):
        at.receive(240)
        below.receive(238)
        at.wait(1)
        below.wait(1)
    assert at.said == []
    assert below.said[0][1] == "the body comes too slowly"


def test_l14_clock_stands_while_the_server_does_not_read() -> None:
    peer = Peer()
    peer.enter(BODY)
    peer.receive(2_000)
    peer.pace.reading(False, peer.now)
    assert peer.wait(10_000) == []
    peer.pace.reading(True, peer.now)
    assert peer.wait(5) == []
    peer.receive(1_000)
    assert peer.wait(5) == []


def test_l13_and_l14_can_be_off() -> None:
    peer = Peer(body_idle=0, body_rate=0)
    peer.enter(BODY)
    assert peer.wait(10_000) == []


def test_next_body_is_judged_by_itself() -> None:
    peer = Peer()
    peer.enter(BODY)
    peer.receive(1_000_000)
    peer.wait(1)
    peer.enter(APPLICATION)
    peer.pace.idle(peer.now)
    peer.enter(BODY)
    assert peer.wait(7)[:1] == ["the body comes too slowly"]


# --- L48: the application ---


def test_l48_application_has_its_time() -> None:
    peer = Peer(application=20)
    peer.enter(APPLICATION)
    assert peer.wait(19.9) == []
    assert peer.wait(0.2) == ["application"]


# --- L17: the end ---


def test_l17_silence_ends_the_linger() -> None:
    peer = Peer()
    peer.enter(DISCARD)
    peer.wait(4)
    peer.receive(1)
    assert peer.wait(4.9) == []
    assert peer.wait(0.2) == ["farewell over"]


def test_l17_linger_ends_in_any_case() -> None:
    peer = Peer()
    peer.enter(DISCARD)
    while peer.now < 29.5:
        peer.receive(100_000)
        assert peer.wait(0.5) == []
    peer.receive(1)
    assert peer.wait(0.6) == ["farewell over"]


def test_l17_close_has_the_total_time_only() -> None:
    peer = Peer()
    peer.pace.closing(0)
    assert peer.wait(29.9) == []
    assert peer.wait(0.2) == ["farewell over"]


@pytest.mark.parametrize("closing", [True, False])
def test_l17_begins_when_the_last_response_has_left(closing: bool) -> None:
    peer = Peer()
    peer.pace.write_blocked(0)
    if closing:
        peer.pace.closing(0)
    else:
        peer.enter(DISCARD)
    for _ in range(100):
        peer.taken += 1_000
        assert peer.wait(1) == []
    peer.pace.write_free()
    assert peer.wait(3.9) == []
    assert peer.wait(30) == ["farewell over"]


def test_l17_can_be_off() -> None:
    peer = Peer(linger_idle=0, linger_total=0)
    peer.enter(DISCARD)
    assert peer.wait(10_000) == []


# --- L35: writing ---


def test_l35_reader_that_stops_is_cut() -> None:
    peer = Peer()
    peer.enter(APPLICATION)
    peer.wait(100)
    peer.pace.write_blocked(peer.now)
    assert peer.wait(59) == []
    assert peer.wait(2)[:1] == ["the peer stopped reading"]


def test_l35_progress_begins_the_time_again() -> None:
    peer = Peer(write_rate=0)
    peer.enter(APPLICATION)
    peer.pace.write_blocked(0)
    for _ in range(10):
        peer.taken += 1
        assert peer.wait(50) == []
    assert peer.wait(12)[:1] == ["the peer stopped reading"]


def test_l35_reader_below_the_rate_is_cut_and_one_at_the_rate_is_not() -> None:
    at, below = Peer(), Peer()
    for peer, size in ((at, 250), (below, 230)):
        peer.enter(APPLICATION)
        peer.pace.write_blocked(0)
        for _ in range(200):
            peer.taken += size
            peer.wait(1)
    assert at.said == []
    assert below.said[0][1] == "the peer reads too slowly"
    assert 60 <= below.said[0][0] <= 62


def test_l35_reader_that_keeps_up_is_not_watched() -> None:
    peer = Peer()
    peer.enter(APPLICATION)
    peer.pace.write_blocked(0)
    peer.wait(50)
    peer.pace.write_free()
    assert peer.wait(10_000) == []


def test_l35_can_be_off() -> None:
    peer = Peer(write_stall=0)
    peer.enter(APPLICATION)
    peer.pace.write_blocked(0)
    assert peer.wait(1_000) == []


# --- half-closed ---


def test_half_closed_client_that_takes_nothing_is_told_once() -> None:
    peer = Peer()
    peer.enter(APPLICATION)
    peer.pace.half_closed(0)
    assert peer.wait(0.9) == []
    assert peer.wait(0.2) == ["half-closed"]
    assert peer.wait(1_000) == []


def test_half_closed_client_that_reads_goes_on() -> None:
    peer = Peer()
    peer.enter(APPLICATION)
    peer.pace.half_closed(0)
    for _ in range(50):
        peer.taken += 1
        assert peer.wait(0.9) == []
    assert peer.wait(2) == ["half-closed"]


def test_half_closed_is_not_judged_where_it_is_off() -> None:
    peer = Peer(half_close=0)
    peer.enter(APPLICATION)
    peer.pace.half_closed(0)
    assert peer.wait(1_000) == []
