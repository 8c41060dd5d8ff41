"""Kinds of option value: how text (argv, environment) and values (TOML, Python) become the value of a field.

Each kind names what it expects, so that every source complains in the same words. Whether a value makes sense beside the others is
for `Config.problems`; here it only gets its type and shape.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from termserver.config import LAST_PORT, parse_bind
from termserver.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. `check` may raise ValueError (the kind's own words follow) or ConfigError (its words stand), and may normalise."""

    expected: str
    types: tuple[type, ...]
    from_text: Callable[[str], object] = str
    check: Callable[[Any], object] = lambda value: value

    def read_text(self, text: str) -> object:
        """Convert what a flag or a variable said. ConfigError says what was expected and what came."""
        try:
            return self.check(self.from_text(text))
        except ValueError:
            raise ConfigError(f"expected {self.expected}, got {text!r}") from None

    def read_value(self, value: object) -> object:
        """Convert what a TOML file or a Python keyword said; `True` is no number here. ConfigError as above."""
        try:
            if type(value) in self.types:
                return self.check(value)
        except ValueError:
            pass  # the same words as for a wrong type, below
        raise ConfigError(f"expected {self.expected}, got {_described(value)}")


def _described(value: object) -> str:
    """Name a value by its TOML type."""
    names = {str: "string", bool: "boolean", int: "integer", float: "float", list: "array", tuple: "array", dict: "table"}
    return f"{names.get(type(value), type(value).__name__)} {value!r}"


def _switch(text: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(value)
    return float(value)


def _never_below_zero(value: float) -> float:
    return max(_finite(value), 0.0)


def _port(value: int) -> int:
    if not 0 <= value <= LAST_PORT:
        raise ValueError(value)
    return value


def _descriptor(value: int) -> int:
    if value < 0:
        raise ValueError(value)
    return value


def _split(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _strings(value: str | list[object] | tuple[object, ...]) -> tuple[str, ...]:
    """One string stands for a list of one."""
    items = [value] if isinstance(value, str) else list(value)
    strings = tuple(item for item in items if isinstance(item, str) and item)
    if len(strings) != len(items):
        raise ValueError(value)
    return strings


def _items(value: str | list[object] | tuple[object, ...]) -> tuple[str, ...]:
    return tuple(_split(value)) if isinstance(value, str) else _strings(value)


def _bind_texts(value: str | list[object] | tuple[object, ...]) -> tuple[str, ...]:
    """Addresses stay text until the port is known."""
    texts = _strings(value)
    for text in texts:
        try:
            parse_bind(text)
        except ValueError as error:
            raise ConfigError(f"{error}, got {text!r}") from None
    return texts


def _count_or_auto(value: int | str) -> int | None:
    return None if value == "auto" else int(value)


def _count_or_all(value: int | str) -> int:
    return 0 if value == "auto" else int(value)


def _bytes(text: str) -> int:
    """`512M`, `1.5G`: in units of 1 024."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    return int(float(number) * 1_024 ** ("", "K", "M", "G").index(unit))


def _path(value: str) -> str:
    if not value or "\0" in value:
        raise ValueError(value)
    return value


TEXT = Kind("a string", (str,))
SECRET = Kind("a string", (str,))  # never shown
PATHS = Kind("a path, or a list of them", (list, tuple, str), check=_strings)
WORD = Kind("a string", (str,), check=str.lower)
PATH = Kind("a path", (str,), check=_path)
INTEGER = Kind("a whole number", (int,), int)
PORT = Kind(f"a port from 0 to {LAST_PORT}", (int,), int, _port)
DESCRIPTOR = Kind("the number of an open descriptor, 0 or more", (int,), int, _descriptor)
SECONDS = Kind("a number of seconds", (int, float), float, _finite)
SECONDS_OR_NEVER = Kind("a number of seconds", (int, float), float, _never_below_zero)  # daphne's way to turn a limit off
SWITCH = Kind("true or false", (bool,), _switch)
ITEMS = Kind("a list of strings", (list, tuple, str), check=_items)
BINDS = Kind("a list of addresses", (list, tuple, str), _split, _bind_texts)
ENDPOINTS = Kind("a Twisted endpoint string, or a list of them", (list, tuple, str), check=_strings)
BYTES = Kind("a number of bytes, as in 512M", (int, str), _bytes, lambda value: _bytes(value) if isinstance(value, str) else value)
COUNT_OR_ALL = Kind("a whole number or auto", (int, str), check=_count_or_all)
COUNT_OR_AUTO = Kind("a whole number or auto", (int, str), check=_count_or_auto)
