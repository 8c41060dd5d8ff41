"""AccessLog: formats, and what strangers may not do to a line (spec row B7, CVE-2020-7694)."""

import json
import os
import pathlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termserver.config import ACCESS_FORMATS, Logging
from termserver.errors import ConfigError
from termserver.observe import access
from termserver.observe.access import AccessLog, Client
from termserver.observe.sink import LineSink

NOON = 1_795_382_000.0  # 2026-11-22 21:13:20 UTC
CLIENT = ("127.0.0.1", 54321)
EVERY_ATOM = " ".join(f"%({atom})s" for atom in access._ATOMS) + " %({X-Forwarded-For}i)s"


@dataclass
class Request:
    method: str = "GET"
    target: bytes = b"/path?q"
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    version: str = "1.1"


class Sink(LineSink):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def write(self, lines: list[str] | str) -> None:
        self.batches.append(list(lines))


class Clock:
    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC0")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def logged(
    form: str, request: Request | None = None, *, client: Client = CLIENT, answer: tuple[int | None, int, float] = (200, 13, 0.000123)
) -> str:
    """The one line that a request and its `answer` (status, size, seconds) make."""
    sink = Sink()
    log = AccessLog(form, sink, clock=Clock())
    log.record(request or Request(), client, *answer)
    log.flush()
    [[line]] = sink.batches
    assert line.endswith("\n")
    return line[:-1]


# Formats

BROWSER = [(b"referer", b"https://example.com/"), (b"user-agent", b"Mozilla/5.0 (X11)"), (b"x-request-id", b"7f")]


@pytest.mark.parametrize(
    ("form", "line"),
    [
        ("common", '127.0.0.1:54321 - - [22/Nov/2026:21:13:20 +0000] "GET /path?q HTTP/1.1" 200 13 0.000123'),
        (
            "combined",
            (
                '127.0.0.1:54321 - - [22/Nov/2026:21:13:20 +0000] "GET /path?q HTTP/1.1" 200 13 "https://example.com/" '
                '"Mozilla/5.0 (X11)" 0.000123'
            ),
        ),
        ("daphne", '127.0.0.1:54321 - - [22/Nov/2026:21:13:20] "GET /path?q" 200 13'),
        ('%(h)s %(l)s %(u)s %(t)s "%(r)s"', '127.0.0.1 - - [22/Nov/2026:21:13:20 +0000] "GET /path?q HTTP/1.1"'),
        ("%(m)s %(U)s %(q)s %(H)s %(target)s", "GET /path q HTTP/1.1 /path?q"),
        ("%(s)s %(B)s %(b)s", "200 13 13"),
        ('"%(f)s" "%(a)s"', '"https://example.com/" "Mozilla/5.0 (X11)"'),
        ("%(T)s %(D)s %(M)s %(L)s", "0 123 0 0.000123"),
        pytest.param("%(p)s", f"<{os.getpid()}>", id="%(p)s"),
        ("%({X-Request-Id}i)s %({x-request-id}i)s %({Nothing}i)s", "7f 7f -"),
        ("{%(s)s} \\ 100%% \" ' é", "{200} \\ 100% \" ' é"),
        ("no atom, headers and date", "no atom, headers and date"),
    ],
)
def test_formats(form: str, line: str) -> None:
    assert logged(form, Request(headers=BROWSER)) == line


@pytest.mark.parametrize("name", ACCESS_FORMATS)
def test_every_format_the_configuration_offers_is_there(name: str) -> None:
    assert logged(name) != name


def test_json() -> None:
    assert json.loads(logged("json", Request(headers=BROWSER, version="2"))) == {
        "time": "2026-11-22T21:13:20+00:00",
        "client": "127.0.0.1:54321",
        "method": "GET",
        "target": "/path?q",
        "http_version": "2",
        "status": 200,
        "size": 13,
        "duration": 0.000123,
        "referer": "https://example.com/",
        "user_agent": "Mozilla/5.0 (X11)",
    }


@pytest.mark.parametrize(
    ("form", "line"),
    [
        ("common", '- - - [22/Nov/2026:21:13:20 +0000] "GET /path?q HTTP/1.1" - - 1.500000'),
        ("combined", '- - - [22/Nov/2026:21:13:20 +0000] "GET /path?q HTTP/1.1" - - "-" "-" 1.500000'),
        ("daphne", 'None - - [22/Nov/2026:21:13:20] "GET /path?q" - -'),
        ("%(h)s %(s)s %(B)s %(b)s %(T)s %(M)s %(D)s", "- - 0 - 1 1500 1500000"),
    ],
)
def test_what_is_missing_is_a_dash(form: str, line: str) -> None:
    """A Unix socket, no answer, no body, no fields."""
    assert logged(form, client=None, answer=(None, 0, 1.5)) == line


def test_what_is_missing_is_null_in_json() -> None:
    line = json.loads(logged("json", client=None, answer=(None, 0, 1.5)))
    assert [line[name] for name in ("client", "status", "size", "referer", "user_agent")] == [None, None, 0, None, None]


@pytest.mark.parametrize(
    ("form", "start"),
    [
        ("common", "[::1]:80 "),
        ("daphne", "::1:80 "),
        ("%(h)s ", "::1 "),
        ("json", '{"time":"2026-11-22T21:13:20+00:00","client":"[::1]:80"'),
    ],
)
def test_ipv6(form: str, start: str) -> None:
    assert logged(form, client=("::1", 80)).startswith(start)


def test_of_two_fields_of_a_name_the_last_counts() -> None:
    assert logged("%(a)s", Request(headers=[(b"user-agent", b"a"), (b"user-agent", b"b")])) == "b"


def test_daphnes_websocket_lines() -> None:
    sink = Sink()
    log = AccessLog("daphne", sink, clock=Clock())
    assert log.names_websocket_steps
    log.websocket("WSCONNECT", Request(target=b"/ws"), CLIENT)
    log.flush()
    assert sink.batches == [['127.0.0.1:54321 - - [22/Nov/2026:21:13:20] "WSCONNECT /ws" - -\n']]


def test_other_formats_have_no_websocket_lines() -> None:
    sink = Sink()
    log = AccessLog("common", sink)
    assert not log.names_websocket_steps
    log.websocket("WSCONNECT", Request(), CLIENT)
    log.flush()
    assert sink.batches == []


@pytest.mark.parametrize(
    ("form", "named"),
    [
        pytest.param("%(x)s", "%(x)s", id="unknown atom"),
        pytest.param("%({server}o)s", "%({server}o)s", id="response field"),
        pytest.param("%({}i)s", "%({}i)s", id="no field name"),
        pytest.param("%({a b}i)s", "%({a b}i)s", id="no field name a field could have"),
        pytest.param("%({é}i)s", "%({é}i)s", id="a field name that is not ASCII"),
        pytest.param("%({cookie}i)s", "credentials", id="cookie"),
        pytest.param("%({Authorization}i)s", "credentials", id="authorization"),
        pytest.param("%({PROXY-Authorization}i)s", "credentials", id="proxy-authorization"),
        pytest.param("%(s)d", "bare %", id="another conversion"),
        pytest.param("100%", "bare %", id="percent at the end"),
        pytest.param("%(s", "bare %", id="unclosed"),
        pytest.param("a\nb", "one line", id="two lines"),
    ],
)
def test_a_format_that_cannot_be_had_is_a_config_error(form: str, named: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(named)):
        AccessLog(form, Sink())


# B7: what strangers send


@pytest.mark.parametrize(
    ("target", "logged_as"),
    [
        pytest.param(b"/%1b[31m%0a", "/%1b[31m%0a", id="percent-encoded stays"),
        pytest.param(b"/\x1b[31m", r"/\x1b[31m", id="escape"),
        pytest.param(b"/\r\n\t", r"/\r\n\t", id="line ends"),
        pytest.param(b'/"', r"/\x22", id="quote"),
        pytest.param(b"/\\x1b", r"/\\x1b", id="backslash"),
        pytest.param(b"/\x7f\x80\xff", r"/\x7f\x80\xff", id="delete and beyond ASCII"),
        pytest.param("/é".encode(), r"/\xc3\xa9", id="UTF-8"),
    ],
)
def test_b7_targets(target: bytes, logged_as: str) -> None:
    assert logged("%(target)s|%(U)s", Request(target=target)) == f"{logged_as}|{logged_as}"
    assert logged("%(q)s", Request(target=b"?" + target)) == logged_as
    assert json.loads(logged("json", Request(target=target)))["target"] == target.decode("latin-1")


@pytest.mark.parametrize("form", [*ACCESS_FORMATS, EVERY_ATOM])
@given(
    fields=st.fixed_dictionaries({name: st.binary() for name in (b"referer", b"user-agent", b"x-forwarded-for")}),
    target=st.binary(),
    method=st.text(),
    host=st.text(st.characters(exclude_categories=())),
)
def test_b7_any_bytes_make_one_line_of_printable_ascii(
    form: str, *, fields: dict[bytes, bytes], target: bytes, method: str, host: str
) -> None:
    line = logged(form, Request(method, target, list(fields.items())), client=(host, 1))
    assert line.isascii()
    assert line.isprintable()
    if form == "json":
        members = json.loads(line)
        assert members["target"].encode("latin-1") == target
        assert members["user_agent"].encode("latin-1") == fields[b"user-agent"]
        assert members["method"] == method
    if form == "combined":
        assert line.count('"') == 6


@given(st.binary())
def test_b7_escaping_loses_nothing(value: bytes) -> None:
    assert access.escape(value).encode().decode("unicode_escape").encode("latin-1") == value


def test_b7_a_credential_is_not_a_user_name() -> None:
    assert logged("%(u)s", Request(headers=[(b"authorization", b"Basic dTpw")])) == "-"


# Batches


def test_lines_go_to_the_sink_together() -> None:
    sink = Sink()
    log = AccessLog("%(m)s", sink)
    for _ in range(access.BATCH // 4 - 1):
        log.record(Request(), None, 200, 0, 0.0)
    assert sink.batches == []
    log.record(Request(), None, 200, 0, 0.0)
    assert [len(batch) for batch in sink.batches] == [access.BATCH // 4]
    log.flush()
    log.record(Request(), None, 200, 0, 0.0)
    log.flush()
    assert [len(batch) for batch in sink.batches] == [access.BATCH // 4, 1]


def test_what_waits_is_bounded_whatever_the_lines_are() -> None:
    sink = Sink()
    log = AccessLog("common", sink)
    for _ in range(100):
        log.record(Request(target=b"\xff" * 8_000), None, 400, 0, 0.0)
    waiting = 100 - sum(len(batch) for batch in sink.batches)
    assert waiting <= access.BATCH // 32_000


def test_what_is_remembered_of_strangers_is_bounded() -> None:
    made: list[bytes] = []

    def make(value: bytes) -> str:
        made.append(value)
        return access.escape(value)

    memo = access._Memo(make)
    for number in range(3 * access._MEMO_ENTRIES):
        assert memo[b"%d" % number] == str(number)
        assert len(memo) <= access._MEMO_ENTRIES
    made.clear()
    for _ in range(2):
        assert memo[b"x" * (access._MEMO_LONGEST + 1)] == "x" * (access._MEMO_LONGEST + 1)
        assert memo[b"x"] == "x"
    assert made == [b"x" * (access._MEMO_LONGEST + 1), b"x", b"x" * (access._MEMO_LONGEST + 1)]


def test_through_a_real_sink(tmp_path: pathlib.Path) -> None:
    sink = LineSink(tmp_path / "access.log")
    log = AccessLog("%(r)s", sink)
    for _ in range(10_000):
        log.record(Request(), CLIENT, 200, 0, 0.0)
    log.flush()
    assert sink.close(30.0)
    assert (tmp_path / "access.log").read_text() == "GET /path?q HTTP/1.1\n" * 10_000


# What was configured


def test_no_access_log_when_none_is_asked_for() -> None:
    assert access.from_config(Logging(access_log=None)) is None


def test_an_access_log_in_a_file(tmp_path: pathlib.Path) -> None:
    log = access.from_config(Logging(access_log=str(tmp_path / "log"), access_format="%(s)s"))
    assert log is not None
    log.record(Request(), None, 204, 0, 0.0)
    log.flush()
    assert log.sink.close(30.0)
    assert (tmp_path / "log").read_text() == "204\n"


def test_an_access_log_on_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    log = access.from_config(Logging(access_format="%(s)s"))
    assert log is not None
    log.record(Request(), None, 204, 0, 0.0)
    log.flush()
    assert log.sink.close(30.0)
    assert capfd.readouterr().out == "204\n"


def test_a_format_that_cannot_be_had_creates_no_file(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError):
        access.from_config(Logging(access_log=str(tmp_path / "log"), access_format="%(x)s"))
    assert list(tmp_path.iterdir()) == []


# The date


@pytest.mark.parametrize(
    ("now", "date"),
    [
        pytest.param(NOON + 0.999, "[22/Nov/2026:21:13:20 +0000]", id="same second"),
        pytest.param(NOON + 1.0, "[22/Nov/2026:21:13:21 +0000]", id="next second"),
        pytest.param(NOON + 3600, "[22/Nov/2026:22:13:20 +0000]", id="an hour on"),
        pytest.param(NOON - 0.001, "[22/Nov/2026:21:13:19 +0000]", id="a little back"),
        pytest.param(NOON - 3600, "[22/Nov/2026:20:13:20 +0000]", id="an hour back"),
        pytest.param(0.0, "[01/Jan/1970:00:00:00 +0000]", id="the epoch"),
    ],
)
def test_r18_the_date_follows_the_clock_wherever_it_jumps(now: float, date: str) -> None:
    sink, clock = Sink(), Clock()
    log = AccessLog("%(t)s", sink, clock=clock)
    for clock.now in (NOON, now, now):
        log.record(Request(), None, 200, 0, 0.0)
    log.flush()
    assert sink.batches == [["[22/Nov/2026:21:13:20 +0000]\n", f"{date}\n", f"{date}\n"]]


@pytest.mark.parametrize(
    ("zone", "clf", "iso"),
    [
        ("IST-5:30", "[23/Nov/2026:02:43:20 +0530]", "2026-11-23T02:43:20+05:30"),
        ("NST3:30", "[22/Nov/2026:17:43:20 -0330]", "2026-11-22T17:43:20-03:30"),
    ],
)
def test_dates_are_local_and_tell_their_offset(monkeypatch: pytest.MonkeyPatch, zone: str, clf: str, iso: str) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    assert logged("%(t)s") == clf
    assert json.loads(logged("json"))["time"] == iso
