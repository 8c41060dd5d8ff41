"""Where options come from, and how the sources are merged: argv > environment > file > default.

A reader for each source turns what it finds into `Setting`s and goes on after a fault, so that `merge` can tell all of them at
once. The addresses are the one thing that is not merged field by field: the strongest source that names any of them names them
all, or `-u /run/x.sock` would also listen wherever the file says. `--port` is a value of its own, so that `TERMSERVER_PORT` and
`-b 0.0.0.0` go together.
"""

import difflib
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeAlias

from termserver.config import DEFAULT_HOST, DEFAULT_PORT, Bind, Config, Descriptor, Endpoint, Named, Tcp, Unix, parse_bind, takes_port
from termserver.errors import ConfigError
from termserver.kinds import SWITCH
from termserver.options import OPTIONS, PREFIX, Option, variable

SECTIONS = ("limits", "timeouts", "proxy", "tls", "logging", "workers")
ADDRESSES = ("bind", "unix_socket", "fd", "endpoint")
ONLY_BEHIND_PROXY = ("proxy.address_header", "proxy.port_header")
_Handed: TypeAlias = Sequence[tuple[int, str]]  # descriptors with names
LEVEL_OF_VERBOSITY = {0: "warning", 1: "info"}  # daphne's -v; above: debug


class Mark(Enum):
    """What a command line holds for a flag that takes no value: `--proxy-headers`, `--no-access-log`."""

    ON = True
    OFF = False


@dataclass(frozen=True, slots=True)
class Spelling:
    """One name of an option; a negative one (`no-access-log`) takes true or false."""

    option: Option
    negative: bool


@dataclass(frozen=True, slots=True)
class Setting:
    """One value that was given. `source` is where, `name` what to call it when complaining about it."""

    value: object
    source: str
    name: str


@dataclass(slots=True)
class Source:
    """What one place said, and what was wrong with it."""

    settings: dict[str, Setting] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def take(self, spelling: Spelling, said: object, source: str, name: str) -> None:
        """Keep one value, or the reason why not. Text is read as argv and environment write it."""
        option, kind = spelling.option, SWITCH if spelling.negative else spelling.option.kind
        try:
            value = kind.read_text(said.text) if isinstance(said, Text) else kind.read_value(said)
        except ConfigError as error:
            self.problems.append(f"{name}: {error}{_kubernetes_hint(name, said)}")
            return
        if spelling.negative and not value:
            return  # `no-access-log = false` says nothing
        earlier = self.settings.get(option.field)
        if earlier is not None:
            self.problems.append(f"{name}: {earlier.name} sets the same option; one of them has to go")
            return
        self.settings[option.field] = Setting(option.off_value if spelling.negative else value, source, name)


@dataclass(frozen=True, slots=True)
class Text:
    """A value that is still text."""

    text: str


def _kubernetes_hint(name: str, said: object) -> str:
    """Kubernetes puts TERMSERVER_PORT=tcp://… into every pod beside a service that is called termserver."""
    if name != variable("port") or not (isinstance(said, Text) and said.text.startswith("tcp://")):
        return ""
    return " (Kubernetes sets it for a service called termserver; enableServiceLinks: false turns that off)"


def _spellings(options: Iterable[Option] = OPTIONS) -> dict[str, Spelling]:
    """Every name there is, with hyphens."""
    names = {name: Spelling(option, negative=False) for option in options for name in option.names}
    return names | {option.off_name: Spelling(option, negative=True) for option in options if option.off}


def _section_spellings(section: str) -> dict[str, Spelling]:
    """Inside `[limits]` the name of the field does as well: `header-bytes` for `limit-header-bytes`."""
    options = [option for option in OPTIONS if option.field.startswith(f"{section}.")]
    short = {option.field.partition(".")[2].replace("_", "-"): Spelling(option, negative=False) for option in options}
    return _spellings(options) | short


def _nearest(name: str, names: Iterable[str], prefix: str = "") -> str:
    """End of a message about an unknown name. What all names begin with does not make them alike."""
    close = difflib.get_close_matches(name.removeprefix(prefix), [each.removeprefix(prefix) for each in names], n=1, cutoff=0.5)
    return f"; did you mean {prefix}{close[0]}?" if close else ""


def read_arguments(found: Mapping[str, object]) -> Source:
    """Read what the command line held: for each field its text, a list of texts, or a Mark."""
    source = Source()
    for option in OPTIONS:
        said = found.get(option.field)
        if said is None:
            continue
        negative = said is Mark.OFF
        if isinstance(said, Mark):
            said = True
        name = option.off if negative else option.flag
        source.take(Spelling(option, negative), Text(said) if isinstance(said, str) else said, "argument", name)
    return source


def read_environment(environ: Mapping[str, str]) -> Source:
    """Read the TERMSERVER_* variables. An unknown one is worth a warning only: it may belong to the application."""
    source = Source()
    spellings = {variable(name): spelling for name, spelling in _spellings().items()}
    for name, text in sorted(environ.items()):
        if name in spellings:
            source.take(spellings[name], Text(text), f"environment {name}", name)
        elif name.startswith(PREFIX):
            source.warnings.append(f"unknown environment variable {name}{_nearest(name, spellings, PREFIX)}")
    return source


def read_keywords(options: Mapping[str, object]) -> Source:
    """Read the keywords of `termserver.run`. None means not given, but for the access log, which has a None of its own: none.

    An unknown one raises TypeError, as Python itself would.
    """
    source = Source()
    spellings = {name.replace("-", "_"): spelling for name, spelling in _spellings().items() if name not in {"application", "config"}}
    for name, value in options.items():
        if name not in spellings:
            raise TypeError(f"unknown option {name!r}{_nearest(name, spellings)}")
        if value is not None:
            source.take(spellings[name], value, "argument", name)
        elif name == "access_log" and "no_access_log" not in options:
            source.take(spellings["no_access_log"], True, "argument", name)
    return source


def read_file(named: Setting | None, directory: Path) -> Source:
    """Read the file that was named, else `termserver.toml`, else `[tool.termserver]` of `pyproject.toml` in this directory."""
    if named is not None:
        return _read_toml(directory / str(named.value), str(named.value))
    for name in ("termserver.toml", "pyproject.toml"):
        if (directory / name).is_file():
            return _read_toml(directory / name, name)
    return Source()


def _read_toml(path: Path, shown: str) -> Source:
    source = Source()
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        source.problems.append(f"{shown}: cannot be read: {error.strerror}")
        return source
    except ValueError as error:  # no UTF-8, no TOML
        source.problems.append(f"{shown}: {error}")
        return source
    table = _tool_table(document) if path.name == "pyproject.toml" else document
    if not isinstance(table, dict):
        source.problems.append(f"{shown}: expected a table [tool.termserver], got {table!r}")
        return source
    _take_table(source, table, shown)
    return source


def _tool_table(document: Mapping[str, object]) -> object:
    tool = document.get("tool", {})
    return tool.get("termserver", {}) if isinstance(tool, dict) else {}


def _take_table(source: Source, table: Mapping[str, object], shown: str) -> None:
    """Take the keys of the top, then those of the sections."""
    spellings = _spellings()
    del spellings["config"]
    for key, value in table.items():
        if key in SECTIONS and isinstance(value, dict):
            _take_keys(source, value, _section_spellings(key), shown, f"{key}.")
        else:
            _take_keys(source, {key: value}, spellings, shown, "")


def _take_keys(source: Source, table: Mapping[str, object], spellings: Mapping[str, Spelling], shown: str, prefix: str) -> None:
    for key, value in table.items():
        spelling = spellings.get(key.replace("_", "-"))
        if spelling is None:
            source.problems.append(f"{shown}: unknown key {prefix}{key}{_nearest(key.replace('_', '-'), spellings)}")
        else:
            source.take(spelling, value, f"file {shown}", f"{shown}: {prefix}{key}")


# --- Merging ---


@dataclass(frozen=True, slots=True)
class Effective:
    """What all sources together come to, and everything that is wrong with it."""

    config: Config
    settings: Mapping[str, Setting]  # by field; a field that is not here has its default
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    def usable(self) -> Config:
        """Return the configuration, or raise ConfigError with a line for each problem."""
        if self.problems:
            raise ConfigError("\n".join(self.problems))
        return self.config


def gather(found: Mapping[str, object], environ: Mapping[str, str], directory: Path, sockets: _Handed | None = ()) -> Effective:
    """Put together what command line, environment and file say.

    `sockets`: the service manager's, with their names; None where it is not known yet which there will be.
    """
    arguments, environment = read_arguments(found), read_environment(environ)
    named = arguments.settings.get("config") or environment.settings.get("config")
    return merge([arguments, environment, read_file(named, directory)], sockets)


def from_keywords(application: str | Callable[..., object], **options: object) -> Config:
    """Make the Config of `termserver.run(application, **options)`: flag names with underscores, neither environment nor file.

    TypeError for an unknown name, ConfigError for a value that cannot be used.
    """
    source = read_keywords(options)
    source.settings["application"] = Setting(application, "argument", "application")
    return merge([source]).usable()


def merge(sources: list[Source], sockets: _Handed | None = ()) -> Effective:
    """Merge sources, the strongest first. Sockets that were handed over are served unless an address is named."""
    settings: dict[str, Setting] = {}
    for source in reversed(sources):
        settings |= source.settings
    problems = [problem for source in sources for problem in source.problems]
    _follow_trust(settings)
    problems += _proxy_problems(settings)
    settings.pop("bind", None)  # still text, and perhaps of a weaker source
    try:
        settings |= _addresses(sources, sockets)
    except ConfigError as error:
        problems.append(str(error))
    _follow_verbosity(settings)
    config = _build(settings)
    for problem in config.problems():
        given = settings.get(problem.field)
        problems.append(f"{given.name}: {problem.fault}" if given else str(problem))
    warnings = [warning for source in sources for warning in source.warnings]
    return Effective(config, settings, tuple(problems), tuple(warnings))


def _addresses(sources: list[Source], sockets: _Handed | None) -> dict[str, Setting]:
    """Where to listen, as the setting of `bind`, if anything was said. ConfigError when `--port` has nothing to apply to."""
    named = next((rank for rank, source in enumerate(sources) if source.settings.keys() & set(ADDRESSES)), len(sources))
    ported = next((rank for rank, source in enumerate(sources) if "port" in source.settings), len(sources))
    given = {name: setting for name, setting in _settings(sources, named).items() if name in ADDRESSES}
    port = _settings(sources, ported).get("port")
    hosts = _texts(given.get("bind"))
    bare = [text for text in hosts if takes_port(text)]
    if port is not None and given and not bare:
        if ported > named:
            port = None  # an address of a stronger source has all it needs
        elif hosts:
            raise ConfigError(f"{port.name}: each address of {given['bind'].name} names its own port")
    binds: list[Bind] = [parse_bind(text, DEFAULT_PORT if port is None else _number(port)) for text in hosts]
    if port is not None and not hosts:
        binds.append(Tcp(DEFAULT_HOST, _number(port)))
    binds += _other_addresses(given)
    settings = [*given.values(), *([port] if port is not None else [])]
    if not settings:
        handed = tuple(Descriptor(number) for number, _ in sockets or ())
        return {"bind": Setting(handed, "the service manager", "its sockets")} if handed else {}
    binds = [resolved for bind in binds for resolved in (_handed_over(bind, sockets) if isinstance(bind, Named) else [bind])]
    source, name = _joined(setting.source for setting in settings), _joined(setting.name for setting in settings)
    return {"bind": Setting(tuple(binds), source, name)}


def _handed_over(bind: Named, sockets: _Handed | None) -> list[Bind]:
    if sockets is None:
        return [bind]
    found: list[Bind] = [Descriptor(number) for number, name in sockets if name == bind.name]
    if not found:
        names = ", ".join(dict.fromkeys(name for _, name in sockets)) or "none"
        raise ConfigError(f"{bind}: the service manager handed over no socket of this name (it handed over: {names})")
    return found


def _settings(sources: list[Source], rank: int) -> dict[str, Setting]:
    return sources[rank].settings if rank < len(sources) else {}


def _other_addresses(given: Mapping[str, Setting]) -> list[Bind]:
    binds: list[Bind] = []
    if "unix_socket" in given:
        binds.append(Unix(str(given["unix_socket"].value)))
    if "fd" in given:
        binds.append(Descriptor(_number(given["fd"])))
    binds += [Endpoint(text) for text in _texts(given.get("endpoint"))]
    return binds


def _texts(setting: Setting | None) -> tuple[str, ...]:
    value = () if setting is None else setting.value
    return tuple(map(str, value)) if isinstance(value, tuple) else ()


def _number(setting: Setting) -> int:
    return setting.value if isinstance(setting.value, int) else 0


def _joined(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))


def _follow_trust(settings: dict[str, Setting]) -> None:
    """Whoever names the proxies to trust wants their headers read, unless that is turned off by name.

    Where it is their PROXY headers, the others may be the client's own: a proxy that only passes bytes on lets them through.
    """
    trusted, protocol = settings.get("proxy.trusted"), settings.get("proxy.protocol")
    if trusted is not None and not (protocol is not None and protocol.value):
        settings.setdefault("proxy.headers", replace(trusted, value=True))


def _proxy_problems(settings: Mapping[str, Setting]) -> list[str]:
    """Refuse options that nobody would read, unless somebody turned the whole subject off."""
    if "proxy.headers" in settings:
        return []
    return [f"{settings[name].name}: has no effect without --proxy-headers" for name in ONLY_BEHIND_PROXY if name in settings]


def _follow_verbosity(settings: dict[str, Setting]) -> None:
    """Level and access log follow `-v` where they have no word of their own."""
    verbosity = settings.get("verbosity")
    if verbosity is None:
        return
    level = LEVEL_OF_VERBOSITY.get(_number(verbosity), "debug")
    settings.setdefault("logging.level", replace(verbosity, value=level))
    if verbosity.value == 0:
        settings.setdefault("logging.access_log", replace(verbosity, value=None))


def _build(settings: Mapping[str, Setting]) -> Config:
    """Put the values into their places; names that have none (`port`, `config`) are dealt with."""
    top: dict[str, Any] = {}
    sections: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    config = Config()
    for name, setting in settings.items():
        section, _, short = name.rpartition(".")
        if section:
            sections[section][short] = setting.value
        elif hasattr(config, name):
            top[name] = setting.value
    parts: dict[str, Any] = {section: replace(getattr(config, section), **values) for section, values in sections.items()}
    return replace(config, **parts, **top)
