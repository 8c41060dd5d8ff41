"""The table of options is complete, free of clashes, and what the documentation says."""

from dataclasses import fields
from pathlib import Path

import pytest

from termserver.config import Config, Descriptor, Tcp
from termserver.kinds import SECONDS_OR_NEVER
from termserver.options import GROUPS, OPTIONS, Option, default_text, markdown, show, value_at, variable

ROOT = Path(__file__).parent.parent
SECTIONS = ("limits", "timeouts", "proxy", "tls", "logging", "workers")
NO_FIELD = {"config", "port", "unix_socket", "fd", "endpoint"}  # they become the file that is read, and Config.bind


def field_names() -> set[str]:
    """Every place in Config that holds a value."""
    top = {each.name for each in fields(Config)} - set(SECTIONS)
    return top | {f"{section}.{each.name}" for section in SECTIONS for each in fields(value_at(Config(), section))}  # type: ignore[arg-type]


def test_every_field_has_one_option_and_every_option_a_field() -> None:
    named = [option.field for option in OPTIONS]
    assert len(named) == len(set(named))
    assert set(named) - NO_FIELD == field_names()


def test_no_two_options_share_a_spelling() -> None:
    flags = [flag for option in OPTIONS for flag in [*option.flags.split(), *([option.off] if option.off else [])]]
    assert len(flags) == len(set(flags))


def test_every_option_has_a_name_that_is_variable_and_key() -> None:
    names = [option.name for option in OPTIONS]
    assert variable("timeout-keep-alive") == "TERMSERVER_TIMEOUT_KEEP_ALIVE"
    assert {"application", "bind", "port", "unix-socket", "http-timeout", "server-name"} <= set(names)
    assert all(name == name.lower() and not name.startswith("-") for name in names)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_help_is_a_sentence_and_the_default_is_said(option: Option) -> None:
    assert option.meaning[0].isupper() or option.meaning[0].isdigit()
    assert option.meaning.endswith(".")
    assert default_text(option)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        ("", "none"),
        ((), "none"),
        (True, "on"),
        (False, "off"),
        (0, "0"),
        (1_000_000, "1000000"),
        (30.0, "30"),
        (1_234_567.0, "1234567"),
        (0.25, "0.25"),
        ("drop", "drop"),
        (("unix", "::1"), "unix, ::1"),
        ((Tcp("::1", 80), Descriptor(3)), "[::1]:80, fd://3"),
    ],
)
def test_values_are_written_for_people(value: object, text: str) -> None:
    assert show(value) == text


def test_the_documented_table_is_up_to_date() -> None:
    assert (ROOT / "docs" / "options.md").read_text(encoding="utf-8") == markdown()


def test_the_documented_table_has_a_row_for_each_option() -> None:
    rows = [line for line in markdown().splitlines() if line.startswith("| `")]
    assert len(rows) == len(OPTIONS)
    assert [line for line in markdown().splitlines() if line.startswith("## ")] == [f"## {group}" for group in GROUPS]
    assert "| `--no-access-log`" not in rows[-1]
    assert any("`TERMSERVER_TIMEOUT_KEEP_ALIVE`" in row and "`timeouts.keep-alive`" in row for row in rows)


def test_daphnes_spellings_with_underscores_are_one_option_with_those_with_hyphens() -> None:
    for field in ("timeouts.websocket_age", "timeouts.websocket_accept"):
        [option] = [option for option in OPTIONS if option.field == field]
        hyphens, underscores = option.flags.split()
        assert underscores.removeprefix("--") == hyphens.removeprefix("--").replace("-", "_")
        assert variable(option.names[0]) == variable(option.names[1])


def test_all_times_of_websockets_may_be_negative_as_daphne_has_it() -> None:
    times = [option for option in GROUPS["WebSocket"] if option.field.startswith("timeouts.")]
    assert len(times) == 5
    assert {option.kind for option in times} == {SECONDS_OR_NEVER}
