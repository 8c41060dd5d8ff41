"""Text and values become the value of a field, or one clear complaint."""

import pytest

from termserver.errors import ConfigError
from termserver.kinds import (
    BINDS,
    COUNT_OR_AUTO,
    DESCRIPTOR,
    ENDPOINTS,
    INTEGER,
    ITEMS,
    PATH,
    PORT,
    SECONDS,
    SECONDS_OR_NEVER,
    SWITCH,
    TEXT,
    WORD,
    Kind,
)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (TEXT, "", ""),
        (TEXT, " a ", " a "),
        (WORD, "DEBUG", "debug"),
        (PATH, "-", "-"),
        (INTEGER, "8_192", 8192),
        (INTEGER, "-1", -1),
        (PORT, "0", 0),
        (PORT, "65535", 65535),
        (DESCRIPTOR, "0", 0),
        (SECONDS, "5", 5.0),
        (SECONDS, "0.25", 0.25),
        (SECONDS, "-1", -1.0),
        (SECONDS_OR_NEVER, "20", 20.0),
        (SECONDS_OR_NEVER, "0", 0.0),
        (SECONDS_OR_NEVER, "-1", 0.0),
        (SECONDS_OR_NEVER, "-0.5", 0.0),
        (SWITCH, "1", True),
        (SWITCH, "YES", True),
        (SWITCH, "off", False),
        (ITEMS, "a, b,,c ", ("a", "b", "c")),
        (ITEMS, "", ()),
        (BINDS, "h:1,unix:/x", ("h:1", "unix:/x")),
        (ENDPOINTS, "tcp:80:interface=a,b", ("tcp:80:interface=a,b",)),
        (COUNT_OR_AUTO, "auto", None),
        (COUNT_OR_AUTO, "12", 12),
    ],
)
def test_text_is_read(kind: Kind, text: str, value: object) -> None:
    read = kind.read_text(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "complaint"),
    [
        (PATH, "", "expected a path, got ''"),
        (PATH, "a\0b", r"expected a path, got 'a\x00b'"),
        (INTEGER, "", "expected a whole number, got ''"),
        (INTEGER, "1.5", "expected a whole number, got '1.5'"),
        (PORT, "65536", "expected a port from 0 to 65535, got '65536'"),
        (PORT, "-1", "expected a port from 0 to 65535, got '-1'"),
        (PORT, "http", "expected a port from 0 to 65535, got 'http'"),
        (DESCRIPTOR, "-1", "expected the number of an open descriptor, 0 or more, got '-1'"),
        (SECONDS, "5s", "expected a number of seconds, got '5s'"),
        (SECONDS, "nan", "expected a number of seconds, got 'nan'"),
        (SECONDS, "inf", "expected a number of seconds, got 'inf'"),
        (SECONDS_OR_NEVER, "never", "expected a number of seconds, got 'never'"),
        (SECONDS_OR_NEVER, "nan", "expected a number of seconds, got 'nan'"),
        (SECONDS_OR_NEVER, "-inf", "expected a number of seconds, got '-inf'"),
        (SWITCH, "", "expected true or false, got ''"),
        (SWITCH, "2", "expected true or false, got '2'"),
        (BINDS, "h:1,h:x", "expected host or host:port (expected integer for port, not 'x'), got 'h:x'"),
        (ENDPOINTS, "", "expected a Twisted endpoint string, or a list of them, got ''"),
        (COUNT_OR_AUTO, "many", "expected a whole number or auto, got 'many'"),
    ],
)
def test_text_of_another_kind_is_refused(kind: Kind, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        kind.read_text(text)
    assert str(caught.value) == complaint


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        (TEXT, "a", "a"),
        (WORD, "Auto", "auto"),
        (INTEGER, 3, 3),
        (SECONDS, 3, 3.0),
        (SECONDS, 0.5, 0.5),
        (SECONDS_OR_NEVER, 20, 20.0),
        (SECONDS_OR_NEVER, -1, 0.0),
        (SECONDS_OR_NEVER, -0.5, 0.0),
        (SWITCH, False, False),
        (ITEMS, ["a", "b,c"], ("a", "b,c")),
        (ITEMS, ("a",), ("a",)),
        (ITEMS, "a,b", ("a", "b")),
        (ITEMS, [], ()),
        (BINDS, "unix:/a,b", ("unix:/a,b",)),
        (BINDS, ["h", "h:1"], ("h", "h:1")),
        (ENDPOINTS, "tcp:80", ("tcp:80",)),
        (COUNT_OR_AUTO, "auto", None),
        (COUNT_OR_AUTO, 7, 7),
    ],
)
def test_values_are_taken_as_they_are(kind: Kind, given: object, value: object) -> None:
    read = kind.read_value(given)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("kind", "given", "complaint"),
    [
        (TEXT, 3, "expected a string, got integer 3"),
        (INTEGER, True, "expected a whole number, got boolean True"),
        (INTEGER, "3", "expected a whole number, got string '3'"),
        (INTEGER, 3.0, "expected a whole number, got float 3.0"),
        (SECONDS, True, "expected a number of seconds, got boolean True"),
        (SECONDS_OR_NEVER, False, "expected a number of seconds, got boolean False"),
        (SECONDS_OR_NEVER, "20", "expected a number of seconds, got string '20'"),
        (SECONDS_OR_NEVER, float("nan"), "expected a number of seconds, got float nan"),
        (SECONDS, float("inf"), "expected a number of seconds, got float inf"),
        (SWITCH, 1, "expected true or false, got integer 1"),
        (SWITCH, "true", "expected true or false, got string 'true'"),
        (PORT, 65536, "expected a port from 0 to 65535, got integer 65536"),
        (ITEMS, {"a": 1}, "expected a list of strings, got table {'a': 1}"),
        (ITEMS, ["a", 1], "expected a list of strings, got array ['a', 1]"),
        (BINDS, ["h", ""], "expected a list of addresses, got array ['h', '']"),
        (BINDS, ["8000"], "expected a host name or an address, got '8000'"),
        (COUNT_OR_AUTO, False, "expected a whole number or auto, got boolean False"),
        (TEXT, b"x", "expected a string, got bytes b'x'"),
    ],
)
def test_values_of_another_type_are_refused(kind: Kind, given: object, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        kind.read_value(given)
    assert str(caught.value) == complaint
