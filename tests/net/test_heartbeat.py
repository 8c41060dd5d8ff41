"""How long one WebSocket may be silent, slow or closing, in virtual time (spec limits L17, L35, L39, L40, L53)."""

from dataclasses import replace

import pytest

from termserver.config import Timeouts
from termserver.net.heartbeat import Heartbeat

TIMEOUTS = Timeouts(
    websocket_ping_interval=20, websocket_ping_timeout=30, websocket_close=10, websocket_age=86_400, linger_idle=5, linger_total=30,
    write_stall=60, write_rate=240,
)  # fmt: skip


class Peer:
    """A connection with its heartbeat. `now` is the time; everything that is said to it is written down with its time."""

    def __init__(self, **timeouts: float) -> None:
        self.now = self.heard_at = 1_000.0
        self.paused = False
        self.taken = 0  # bytes that it has taken
        self.looked = 0  # at whether it is still there
        self.answers = False  # whether it answers pings
        self.said: list[tuple[float, str]] = []
        self.heartbeat = Heartbeat(self, replace(TIMEOUTS, **timeouts), self.now)  # type: ignore[arg-type]

    def progress(self) -> int:
        return self.taken

    def ping(self) -> None:
        self.note("ping")
        if self.answers:
            self.heard_at = self.now + 0.05

    def peer_silent(self) -> None:
        self.note("silent")
        self.heartbeat.closing(self.now)  # it closes with 1011

    def look_for_departure(self) -> None:
        self.looked += 1

    def too_old(self) -> None:
        self.note("old")
        self.heartbeat.closing(self.now)  # and with 1000

    def peer_too_slow(self, reason: str) -> None:
        self.note(reason)

    def farewell_over(self) -> None:
        self.note("farewell over")

    def note(self, what: str) -> None:
        self.said.append((self.now - 1_000.0, what))

    def wait(self, seconds: float) -> list[str]:
        """Let time pass, with a look at every deadline; give what was said meanwhile."""
        end, before, looks = self.now + seconds, len(self.said), 0
        while self.heartbeat.deadline <= end:
            self.now = max(self.now, self.heartbeat.deadline)
            self.heartbeat.expired(self.now)
            looks += 1
            assert looks < 2 * seconds + 10, "looked at too often"
        self.now = end
        return [what for _, what in self.said[before:]]

    def hear(self) -> None:
        """Let some bytes come."""
        self.heard_at = self.now


# --- L39: silence ---


def test_l39_ping_only_after_silence() -> None:
    peer = Peer()
    for _ in range(50):
        assert peer.wait(19) == []
        peer.hear()
    assert peer.wait(19.9) == []
    assert peer.wait(0.2) == ["ping"]


def test_l39_new_socket_has_the_whole_interval() -> None:
    peer = Peer()
    assert peer.wait(19.9) == []
    assert peer.wait(0.2) == ["ping"]


def test_l39_peer_that_answers_is_asked_again_and_again() -> None:
    peer = Peer()
    peer.answers = True
    assert set(peer.wait(2_000)) == {"ping"}
    assert len(peer.said) >= 66


def test_l39_any_bytes_are_an_answer() -> None:
    peer = Peer()
    assert peer.wait(21) == ["ping"]
    peer.wait(28)
    peer.hear()
    assert peer.wait(19.9) == []
    assert peer.wait(0.2) == ["ping"]


def test_l39_peer_that_answered_long_ago_is_asked_at_once() -> None:
    peer = Peer()
    peer.wait(21)  # pinged at 20
    peer.hear()
    peer.now += 100  # the loop was held up
    assert peer.wait(0) == ["ping"]


def test_l39_answer_does_not_put_off_the_next_ping() -> None:
    peer = Peer(websocket_ping_timeout=300)
    peer.answers = True
    peer.wait(100)
    assert [round(moment) for moment, _ in peer.said] == [20, 40, 60, 80]


def test_l39_late_answer_counts() -> None:
    peer = Peer()
    assert peer.wait(45) == ["ping"]
    peer.hear()
    assert peer.wait(20.5) == ["ping"]


def test_l39_silent_peer_is_given_up_once() -> None:
    peer = Peer(websocket_close=0)
    assert peer.wait(49.9) == ["ping"]
    assert peer.wait(0.2) == ["silent"]
    assert peer.wait(1_000) == []


def test_l39_bytes_from_before_the_ping_are_no_answer() -> None:
    peer = Peer(websocket_ping_interval=1)
    peer.wait(0.9)
    peer.hear()
    assert peer.wait(1.2) == ["ping"]
    assert peer.wait(30) == ["silent"]


def test_l39_no_judgement_while_we_do_not_read() -> None:
    peer = Peer()
    peer.paused = True
    assert set(peer.wait(510)) == {"ping"}  # whether it is still there shows when it is written to
    assert peer.looked == len(peer.said) == 25
    peer.paused = False
    peer.hear()  # as the connection says when it reads on
    assert peer.wait(19.9) == []
    assert peer.wait(0.2) == ["ping"]


def test_l39_peer_that_was_pinged_is_not_given_up_while_we_do_not_read() -> None:
    peer = Peer()
    assert peer.wait(25) == ["ping"]
    peer.paused = True
    assert peer.wait(500) == []
    assert peer.looked
    peer.paused = False
    peer.hear()
    assert peer.wait(50.5) == ["ping", "silent"]
    assert [moment for moment, _ in peer.said] == [20, 545, 575]


def test_l40_slow_reader_has_time_for_our_close_as_long_as_it_takes_what_came_before() -> None:
    peer = Peer()
    peer.heartbeat.closing(peer.now)
    for _ in range(10):
        peer.taken += 100_000
        assert peer.wait(9) == []
    assert peer.wait(8) == []
    assert peer.wait(3)[0] == "farewell over"


def test_l39_zero_asks_for_no_sign_of_life() -> None:
    peer = Peer(websocket_ping_interval=0, websocket_age=0)
    assert peer.wait(100_000) == []


def test_l39_without_a_time_out_pings_go_on_unanswered() -> None:
    peer = Peer(websocket_ping_timeout=0)
    assert peer.wait(100) == ["ping"] * 5
    assert [moment for moment, _ in peer.said] == [20, 40, 60, 80, 100]


# --- L53: age ---


def test_l53_age_is_the_end_even_of_a_busy_socket() -> None:
    peer = Peer(websocket_age=100)
    for _ in range(10):
        peer.hear()
        assert peer.wait(9.9) == []
    peer.hear()
    assert peer.wait(1.5) == ["old"]
    assert peer.wait(9) == []
    assert peer.wait(1) == ["farewell over"]  # it did not answer our Close frame


def test_l53_comes_between_a_ping_and_its_time_out() -> None:
    peer = Peer(websocket_age=30)
    assert peer.wait(31) == ["ping", "old"]
    assert peer.wait(9.5) == ["farewell over"]


def test_l53_zero_is_no_limit() -> None:
    peer = Peer(websocket_age=0)
    peer.answers = True
    assert set(peer.wait(100_000)) == {"ping"}


@pytest.mark.parametrize("end", ["closing", "lingering"])
def test_l53_socket_that_is_closing_has_no_age(end: str) -> None:
    peer = Peer(websocket_age=100, websocket_close=200, linger_idle=200, linger_total=200)
    peer.wait(15)
    getattr(peer.heartbeat, end)(peer.now)
    assert peer.wait(199) == []
    assert peer.wait(1.5) == ["farewell over"]


# --- L40: the closing handshake ---


def test_l40_peer_has_ten_seconds_to_answer_our_close_however_much_it_sends() -> None:
    peer = Peer()
    peer.heartbeat.closing(peer.now)
    for _ in range(9):
        peer.hear()
        assert peer.wait(1) == []
    peer.heartbeat.closing(peer.now)  # the connection says so at every step: the first counts
    assert peer.wait(1.1) == ["farewell over"]


def test_l40_is_said_again_until_the_connection_is_gone() -> None:
    peer = Peer()
    peer.heartbeat.closing(peer.now)
    assert peer.wait(12.5) == ["farewell over"] * 3


def test_l40_closing_ends_the_pings() -> None:
    peer = Peer(websocket_close=100)
    peer.wait(21)
    peer.heartbeat.closing(peer.now)
    assert peer.wait(99) == []


def test_l40_zero_is_no_limit() -> None:
    peer = Peer(websocket_close=0)
    peer.heartbeat.closing(peer.now)
    assert peer.wait(10_000) == []


# --- L17: what still comes is discarded ---


def test_l17_linger_ends_with_silence() -> None:
    peer = Peer()
    peer.heartbeat.lingering(peer.now)
    peer.hear()
    assert peer.wait(4) == []
    peer.hear()
    assert peer.wait(4.9) == []
    assert peer.wait(0.2) == ["farewell over"]


def test_l17_linger_ends_in_any_case() -> None:
    peer = Peer()
    peer.heartbeat.lingering(peer.now)
    for _ in range(29):
        peer.hear()
        assert peer.wait(1) == []
    peer.hear()
    assert peer.wait(1) == ["farewell over"]


def test_l17_the_second_farewell_is_the_cut() -> None:
    peer = Peer()
    peer.heartbeat.lingering(peer.now)
    assert peer.wait(5.5) == ["farewell over"]
    peer.heartbeat.closing(peer.now)  # the connection closes: that is no new deadline
    assert peer.wait(1) == ["farewell over"]


def test_l17_one_of_the_two_can_be_off() -> None:
    peer = Peer(linger_idle=0)
    peer.heartbeat.lingering(peer.now)
    assert peer.wait(29.9) == []
    assert peer.wait(0.2) == ["farewell over"]
    peer = Peer(linger_total=0)
    peer.heartbeat.lingering(peer.now)
    for _ in range(100):
        peer.hear()
        assert peer.wait(4) == []
    assert peer.wait(1.5) == ["farewell over"]


def test_l17_can_be_off() -> None:
    peer = Peer(linger_idle=0, linger_total=0)
    peer.heartbeat.lingering(peer.now)
    assert peer.wait(10_000) == []


# --- L35: a peer that does not take what it is sent ---


def test_l35_peer_that_stops_reading_is_cut() -> None:
    peer = Peer(websocket_ping_interval=0)
    peer.heartbeat.write_blocked(peer.now)
    assert peer.wait(59.5) == []
    assert peer.wait(1) == ["the peer stopped reading"]


def test_l35_progress_begins_the_time_again() -> None:
    peer = Peer(websocket_ping_interval=0)
    peer.heartbeat.write_blocked(peer.now)
    for _ in range(5):
        peer.taken += 100_000
        assert peer.wait(59) == []
    assert peer.wait(2.5) == ["the peer stopped reading"]


def test_l35_peer_below_the_rate_is_cut() -> None:
    peer = Peer(websocket_ping_interval=0)
    peer.heartbeat.write_blocked(peer.now)
    said: list[str] = []
    for _ in range(61):
        peer.taken += 200
        said += peer.wait(1)
    assert said == ["the peer reads too slowly"]


def test_l35_peer_that_keeps_up_is_not_watched() -> None:
    peer = Peer(websocket_ping_interval=0)
    peer.heartbeat.write_blocked(peer.now)
    peer.wait(50)
    peer.heartbeat.write_free(peer.now)
    assert peer.wait(1_000) == []


def test_l35_can_be_off() -> None:
    peer = Peer(websocket_ping_interval=0, write_stall=0, websocket_age=0)
    peer.heartbeat.write_blocked(peer.now)
    assert peer.wait(1_000) == []


def test_l35_is_watched_beside_the_silence() -> None:
    peer = Peer()
    peer.heartbeat.write_blocked(peer.now)
    peer.taken += 1
    assert peer.wait(55) == ["ping", "silent"]
    peer = Peer(write_stall=5)
    peer.heartbeat.write_blocked(peer.now)
    assert peer.wait(5.5) == ["the peer stopped reading"]


def test_l35_is_watched_while_closing_too() -> None:
    peer = Peer(websocket_close=0)
    peer.heartbeat.closing(peer.now)
    peer.heartbeat.write_blocked(peer.now)
    assert peer.wait(60.5) == ["the peer stopped reading"]


# --- the wheel ---


def test_a_look_that_comes_early_does_nothing() -> None:
    peer = Peer()
    for _ in range(10):
        peer.heartbeat.expired(peer.now)
    assert peer.said == []
    assert peer.heartbeat.deadline == peer.now + 20
