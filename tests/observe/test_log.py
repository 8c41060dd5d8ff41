"""The log: levels, format, daphne's basicConfig manners, and logging that never blocks."""

import contextlib
import logging
import logging.config
import os
from collections.abc import Iterator

import pytest

from termserver.config import Logging
from termserver.errors import ConfigError
from termserver.observe import log as module
from termserver.observe.log import LogSetup, RateLimited, SinkHandler, configure
from termserver.observe.sink import LineSink

PATIENCE = 30.0
PLAIN = Logging(format="%(levelname)s %(name)s %(message)s")


@pytest.fixture(autouse=True)
def _restore_levels() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("termserver")
    levels = root.level, ours.level
    yield
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


@contextlib.contextmanager
def bare_root() -> Iterator[logging.Logger]:
    """The root logger as a fresh interpreter has it, for as long as it takes (pytest puts handlers there once a test runs)."""
    root = logging.getLogger()
    handlers, root.handlers[:] = root.handlers[:], []
    try:
        yield root
    finally:
        root.handlers[:] = [*root.handlers, *handlers]


class Output:
    """A pipe to log to, and what came out of it."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def read(self, setup: LogSetup) -> str:
        assert setup.close(PATIENCE)
        os.close(self.writer)
        with os.fdopen(self.reader, encoding="utf-8") as file:
            return file.read()


@pytest.fixture
def output() -> Output:
    return Output()


def configured(config: Logging, output: Output, *, debug: bool = False) -> LogSetup:
    with bare_root():
        setup = configure(config, debug=debug, target=output.writer)
    assert setup is not None
    return setup


def test_our_lines_and_the_applications_show(output: Output) -> None:
    setup = configured(PLAIN, output)
    logging.getLogger("termserver.net").info("ours %d", 1)
    logging.getLogger("application").info("theirs é")
    logging.getLogger("application").debug("not this")
    assert output.read(setup) == "INFO termserver.net ours 1\nINFO application theirs é\n"


def test_the_default_format_is_daphnes(output: Output) -> None:
    setup = configured(Logging(), output)
    logging.getLogger("termserver").warning("Listen failure: it was taken")
    assert output.read(setup).endswith(" WARNING  Listen failure: it was taken\n")


@pytest.mark.parametrize(
    ("level", "more", "shown"),
    [
        ("critical", {}, 1),
        ("error", {}, 2),
        ("warning", {}, 3),
        ("Info", {}, 4),
        ("debug", {}, 5),
        ("error", {"debug": True}, 5),
    ],
)
def test_levels(output: Output, level: str, more: dict[str, bool], shown: int) -> None:
    setup = configured(Logging(level=level), output, **more)
    for severity in (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG):
        logging.getLogger("termserver").log(severity, "said")
    assert output.read(setup).count("said") == shown


def test_a_root_logger_with_handlers_is_left_alone() -> None:
    handler = logging.NullHandler()
    with bare_root() as root:
        root.addHandler(handler)
        root.setLevel(logging.ERROR)
        assert configure(Logging(level="debug")) is None
        assert root.handlers == [handler]
        root.removeHandler(handler)
    assert root.level == logging.ERROR
    assert logging.getLogger("termserver").level == logging.DEBUG


def test_close_takes_the_handler_away(output: Output) -> None:
    setup = configured(PLAIN, output)
    assert setup.handler in logging.getLogger().handlers
    assert output.read(setup) == ""
    assert setup.handler not in logging.getLogger().handlers
    assert setup.close(0)


def test_dictconfig_closes_every_handler_and_ours_goes_on(output: Output) -> None:
    """Django calls dictConfig when it is set up; it closes all handlers and leaves those it does not name in place."""
    setup = configured(PLAIN, output)
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
    logging.getLogger("termserver").info("still here")
    assert output.read(setup) == "INFO termserver still here\n"


def test_a_record_that_cannot_be_formatted_is_told_in_the_log(output: Output) -> None:
    setup = configured(PLAIN, output)
    setup.handler.handle(logging.LogRecord("termserver", logging.INFO, __file__, 1, "%d", ("not a number",), None))
    logging.getLogger("termserver").info("next")
    lines = output.read(setup).splitlines()
    assert lines[0].startswith(f"Cannot format a log record of {__file__}:")
    assert lines[-2:] == ["TypeError: %d format: a real number is required, not str", "INFO termserver next"]


def test_a_reader_that_sleeps_does_not_block_who_logs(output: Output) -> None:
    setup = configured(PLAIN, output)
    setup.sink._limit = 1_000
    for _ in range(10_000):  # far more than the pipe holds
        logging.getLogger("termserver").info("x" * 100)
    assert setup.sink.dropped > 0
    os.close(output.reader)
    setup.close(PATIENCE)
    os.close(output.writer)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        pytest.param(Logging(level="loud"), "critical, error, warning, info, debug, found 'loud'", id="level"),
        pytest.param(Logging(format="%(nothing)s"), "nothing", id="unknown name"),
        pytest.param(Logging(format="%(message)"), "cannot be used", id="unfinished"),
        pytest.param(Logging(format="%(message)d"), "cannot be used", id="not a number"),
    ],
)
def test_what_logging_cannot_use_is_a_config_error(config: Logging, named: str) -> None:
    with bare_root() as root:
        with pytest.raises(ConfigError, match=named):
            configure(config)
        assert root.handlers == []


# One line a second and reason


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def lines(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def heard() -> Iterator[Heard]:
    logger = logging.getLogger("termserver.limited")
    handler = Heard()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)


def limited(clock: Clock) -> RateLimited:
    return RateLimited(logging.getLogger("termserver.limited"), clock=clock)


def test_one_line_a_second_and_how_many_were_held_back(heard: Heard) -> None:
    clock = Clock()
    reasons = limited(clock)
    assert reasons.log(logging.INFO, "too large", "Rejected %s", "a")
    clock.now += 0.5
    assert not reasons.log(logging.INFO, "too large", "Rejected %s", "b")
    clock.now += 0.49
    assert not reasons.log(logging.INFO, "too large", "Rejected %s", "c")
    clock.now += 0.01
    assert reasons.log(logging.INFO, "too large", "Rejected %s", "d")
    clock.now += 1.0
    assert reasons.log(logging.INFO, "too large", "Rejected %s", "e")
    assert heard.lines == ["Rejected a", "Rejected d (2 more like this were not logged)", "Rejected e"]


def test_reasons_do_not_share_their_second(heard: Heard) -> None:
    reasons = limited(Clock())
    assert reasons.log(logging.INFO, "one", "one")
    assert reasons.log(logging.INFO, "two", "two")
    assert heard.lines == ["one", "two"]


def test_the_line_names_who_logged_it(heard: Heard) -> None:
    limited(Clock()).log(logging.INFO, "reason", "text")
    assert heard.records[0].filename == "test_log.py"


def test_a_level_that_is_off_is_not_counted(heard: Heard) -> None:
    reasons = limited(Clock())
    assert not reasons.log(logging.DEBUG, "reason", "unheard")
    assert reasons.log(logging.INFO, "reason", "heard")
    assert heard.lines == ["heard"]


def test_keys_are_bounded() -> None:
    reasons = limited(Clock())
    for number in range(3 * module._KEYS):
        assert reasons.admit(str(number)) == 0
        assert len(reasons._seen) <= module._KEYS


def test_the_handler_works_with_any_sink(output: Output) -> None:
    sink = LineSink(output.writer)
    handler = SinkHandler(sink)
    handler.emit(logging.LogRecord("name", logging.INFO, "", 0, "bare", None, None))
    handler.close()
    assert output.read(LogSetup(handler, sink)) == "bare\n"
