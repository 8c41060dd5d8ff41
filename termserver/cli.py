"""The command line: `termserver APP`, `termserver serve APP`, `termserver check APP`. The only module that prints or exits.

argparse, as in daphne, so that abbreviated options and glued values go on working. Where termserver has more options than daphne an
abbreviation of daphne's may fit two of them; daphne's then wins (`_expand`). The server is imported when everything said is known
to be usable, so help and complaints are quick.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from termserver import __version__
from termserver.errors import ApplicationLoadError, TermserverError
from termserver.kinds import SWITCH
from termserver.options import GROUPS, OPTIONS, Option, default_text, show, value_at
from termserver.sources import Effective, Mark, gather

USAGE = "%(prog)s [serve | check] [OPTIONS] APPLICATION"
DESCRIPTION = "Serve an ASGI application, or (check) say what would be served and whether it can be."
EPILOG = """\
Every option is also an environment variable (--log-level: TERMSERVER_LOG_LEVEL) and a key of a TOML file (log-level), which is the
one --config names, else termserver.toml, else [tool.termserver] in pyproject.toml. The command line wins over the environment, the
environment over the file. A limit or timeout of 0 is off."""

DAPHNE_FLAGS = (
    "--help", "--port", "--bind", "--unix-socket", "--fd", "--endpoint", "--verbosity", "--http-timeout", "--access-log", "--log-fmt",
    "--application-close-timeout", "--root-path", "--proxy-headers", "--proxy-headers-host", "--proxy-headers-port", "--server-name",
    "--no-server-name",
)  # fmt: skip
EXIT_USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0 fine, 1 cannot listen, 2 bad option, 3 the application cannot start."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = words.pop(0) if words and words[0] in {"serve", "check"} else "serve"
    try:
        found = vars(parser().parse_args(_expand(words)))
        effective = gather(found, os.environ, Path.cwd())
        for warning in effective.warnings:
            _complain("warning", warning)
        return _check(effective) if command == "check" else _serve(effective)
    except TermserverError as error:
        _complain("error", str(error))
        return int(getattr(error, "exit_code", 1))


def _serve(effective: Effective) -> int:
    config = effective.usable()
    from termserver.net.server import run  # noqa: PLC0415 - installs the reactor; not for help and errors

    return run(config)


def _check(effective: Effective) -> int:
    """Print every option with its source, then what is wrong."""
    rows = [_row(option, effective) for option in OPTIONS if hasattr(effective.config, option.field.partition(".")[0])]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, value, source in rows:
        print(f"{name:{widths[0]}}  {value:{widths[1]}}  {source}")
    for warning in effective.config.warnings():
        _complain("warning", warning)
    config = effective.usable()
    from termserver.asgi.app import load_application  # noqa: PLC0415 - not for help and errors

    if isinstance(config.application, str):
        load_application(config.application, factory=config.factory, app_dir=config.app_dir)
    print("The configuration is fine.")
    return 0
