"""The command line: `termserver APP` and `termserver check APP`; `status`, `reload`, `stop`, `scale`, `healthcheck` ask a running server.

The only module that prints or exits.

argparse, as in daphne, so that abbreviated options and glued values go on working. Where termserver has more options than daphne an
abbreviation of daphne's may fit two of them; daphne's then wins (`_expand`). The server is imported when everything said is known
to be usable, so help and complaints are quick.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from termserver import __version__, systemd
from termserver.config import Config
from termserver.errors import ApplicationLoadError, ConfigError, TermserverError
from termserver.kinds import SECRET, SWITCH
from termserver.options import GROUPS, OPTIONS, Option, default_text, show, value_at
from termserver.sources import Effective, Mark, gather

USAGE = "%(prog)s [serve | check] [OPTIONS] APPLICATION\n       %(prog)s status | reload | stop | scale COUNT | healthcheck"
DESCRIPTION = """\
Serve an ASGI application, or (check) say what would be served and whether it can be. The other commands ask a server that runs with
--workers: how it is, to start new workers and let the old ones finish, to stop, to have so many workers, whether it serves."""
EPILOG = """\
Every option is also an environment variable (--log-level: TERMSERVER_LOG_LEVEL) and a key of a TOML file (log-level), which is the
one --config names, else termserver.toml, else [tool.termserver] in pyproject.toml. The command line wins over the environment, the
environment over the file. A limit or timeout of 0 is off."""

QUESTIONS = {
    "status": "Say how a running server and its workers are.",
    "reload": "Have new workers started, and the old ones end once those are ready; say what became of it.",
    "stop": "Have a running server finish what runs, and end.",
    "scale": "Set how many workers a running server has.",
    "healthcheck": "Say whether a running server serves; the exit code is for Docker and scripts.",
}

DAPHNE_FLAGS = (
    "--help", "--port", "--bind", "--unix-socket", "--fd", "--endpoint", "--verbosity", "--http-timeout", "--access-log", "--log-fmt",
    "--websocket_timeout", "--websocket_connect_timeout", "--ping-interval", "--ping-timeout", "--websocket-max-message-size",
    "--websocket-max-frame-size", "--application-close-timeout", "--root-path", "--proxy-headers", "--proxy-headers-host",
    "--proxy-headers-port", "--server-name", "--no-server-name",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0 fine, 1 cannot listen, 2 bad option, 3 the application cannot start."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = words.pop(0) if words and words[0] in {"serve", "check", *QUESTIONS} else "serve"
    try:
        if command in QUESTIONS:
            return _ask(command, words)
        found = vars(parser().parse_args(_expand(words)))
        original = dict(os.environ)
        sockets = systemd.take_sockets(os.environ)
        effective = gather(found, os.environ, Path.cwd(), sockets if sockets or command != "check" else None)
        for warning in effective.warnings:
            _complain("warning", warning)
        if command == "check":
            return _check(effective)
        origin = _Origin(lambda: gather(found, os.environ, Path.cwd(), sockets).usable(), original, [number for number, _ in sockets])
        return _serve(effective, origin)
    except TermserverError as error:
        _complain("error", str(error))
        return int(getattr(error, "exit_code", 1))


class _Origin(NamedTuple):
    """What a supervisor needs in order to begin anew."""

    load: Callable[[], Config]
    environment: dict[str, str]
    sockets: list[int]


def _serve(effective: Effective, origin: _Origin) -> int:
    config = effective.usable()
    notifier = systemd.Notifier.take(os.environ)
    if config.workers.supervised:
        from termserver.process.supervisor import supervise

        return supervise(config, origin.load, notifier, origin.environment, origin.sockets)
    from termserver.net.runner import run

    return run(config, notifier)


def _ask(question: str, words: list[str]) -> int:
    """Ask a running server."""
    from termserver.process import client

    asked = _questions(question).parse_args(words)
    effective = gather(vars(asked), os.environ, Path.cwd())
    path = client.find(effective.config.control_socket, str(effective.config.application))
    seconds = client.SECONDS[question] if asked.timeout is None else asked.timeout
    if question == "status":
        lines = client.status(path, seconds, as_json=asked.json)
    elif question == "healthcheck":
        lines = client.healthcheck(path, seconds)
    elif question == "scale":
        lines = client.order(path, question, seconds, workers=asked.workers)
    else:
        lines = client.order(path, question, seconds)
    for line in lines:
        print(line)
    return 0


def _questions(question: str) -> argparse.ArgumentParser:
    made = _Parser(prog=f"termserver {question}", description=QUESTIONS[question])
    if question == "scale":
        made.add_argument("workers", type=int, metavar="COUNT", help="Workers there are to be.")
    made.add_argument("application", nargs="?", metavar="APPLICATION", help="Application that is served, as it was named.")
    made.add_argument("--control-socket", dest="control_socket", metavar="PATH", help="The server's control socket.")
    made.add_argument("--config", dest="config", metavar="FILE", help="The server's configuration, which names one of both.")
    made.add_argument("--timeout", type=float, metavar="SECONDS", help="Longest time for the answer.")
    if question == "status":
        made.add_argument("--json", action="store_true", help="For programs.")
    return made


def _check(effective: Effective) -> int:
    """Print every option with its source, then all that is wrong: a bad option does not hide an application that cannot be imported."""
    rows = [_row(option, effective) for option in OPTIONS if hasattr(effective.config, option.field.partition(".")[0])]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, value, source in rows:
        print(f"{name:{widths[0]}}  {value:{widths[1]}}  {source}")
    for warning in effective.config.warnings():
        _complain("warning", warning)
    failures = [failure for failure in (_unusable(effective), _load_failure(effective)) if failure is not None]
    for failure in failures:
        _complain("error", str(failure))
    if failures:
        return failures[0].exit_code
    print("The configuration is fine.")
    return 0


def _row(option: Option, effective: Effective) -> tuple[str, str, str]:
    setting = effective.settings.get(option.field)
    value = "***" if option.kind is SECRET and setting else show(value_at(effective.config, option.field))
    if option.field == "limits.connections":
        value = value.replace("none", "auto")
    return option.name, value, setting.source if setting else "default"


def _unusable(effective: Effective) -> ConfigError | None:
    try:
        effective.usable()
    except ConfigError as error:
        return error
    return None


def _load_failure(effective: Effective) -> ApplicationLoadError | None:
    config = effective.config
    if config.application == "":
        return None  # said already
    from termserver.asgi.app import load_application

    try:
        load_application(str(config.application), factory=config.factory, app_dir=config.app_dir)
    except ApplicationLoadError as error:
        return error
    return None


def _complain(level: str, text: str) -> None:
    """One line on standard error for each line there is to say."""
    for line in text.splitlines():
        print(f"termserver: {level}: {line}", file=sys.stderr)


# --- Flags ---


class _Parser(argparse.ArgumentParser):
    """Complaints become ConfigError, so that they leave like all others."""

    def error(self, message: str) -> NoReturn:
        """Stand in for argparse, which would print its usage and exit."""
        raise ConfigError(f"{message} (termserver --help lists the options)")


def parser() -> argparse.ArgumentParser:
    """Make the parser from the table of options. It reads no value: what it finds stays text, for `sources.py` to judge."""
    made = _Parser(
        prog="termserver", usage=USAGE, description=DESCRIPTION, epilog=EPILOG, argument_default=argparse.SUPPRESS, formatter_class=_Help
    )
    made.add_argument("--version", action="version", version=f"termserver {__version__}", help="Print the version and end.")
    for title, options in GROUPS.items():
        group = made.add_argument_group(title)
        for option in options:
            _add(group.add_argument, option)
    return made


def _add(add: Callable[..., argparse.Action], option: Option) -> None:
    meaning = f"{option.meaning} (default: {default_text(option)})".replace("%", "%%")
    if option.field == "application":
        add("application", nargs="?", metavar=option.metavar, help=meaning)
    elif option.kind is SWITCH:
        add(*option.flags.split(), dest=option.field, action="store_const", const=Mark.ON, help=meaning)
    else:
        action = "append" if option.repeat else "store"
        add(*option.flags.split(), dest=option.field, action=action, metavar=option.metavar, help=meaning)
    if option.off:
        add(option.off, dest=option.field, action="store_const", const=Mark.OFF, help=f"The opposite of {option.flag}.")


class _Help(argparse.HelpFormatter):
    """Room for long flags, lines no longer than can be read."""

    def __init__(self, prog: str) -> None:
        """`prog` is the name of the program."""
        width = min(shutil.get_terminal_size().columns, 110) - 2
        super().__init__(prog, max_help_position=34, width=width)


def _expand(words: Sequence[str]) -> list[str]:
    """Spell out daphne's abbreviations, up to a `--`."""
    end = words.index("--") if "--" in words else len(words)
    return [*map(_spelled_out, words[:end]), *words[end:]]


def _spelled_out(word: str) -> str:
    name, equals, value = word.partition("=")
    meant = [flag for flag in DAPHNE_FLAGS if flag.startswith(name)] if name.startswith("--") else []
    return f"{meant[0]}{equals}{value}" if len(meant) == 1 else word
