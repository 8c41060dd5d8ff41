r"""The access log: one line for every request, compiled once.

A format (`common`, `combined`, `json`, `daphne`, or a string of gunicorn's atoms) becomes one Python function that computes what the
format names and nothing else; the lines it makes gather in a list and go to the sink together (`flush`, called by the owner every
fraction of a second, or when a batch is full).

Values come from strangers (spec row B7): the target is written as it was sent, never percent-decoded, and whatever is not printable
ASCII, and `"` and `\`, is escaped as `\x1b`, `\n`, `\\`, so that a line stays one line and a field stays one field. Cookies and
credentials cannot be asked for.

The wall clock is asked once a line and the date made once a second, so a clock that jumps is followed at once. Rejected: a date set by
the server's tick (stale for as long as an application blocks the loop); `%` over a dict of all atoms, gunicorn's way (slower by far).
"""

import os
import re
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from json import JSONEncoder
from typing import Protocol, TypeVar

from termserver.config import Logging
from termserver.errors import ConfigError
from termserver.observe.sink import LineSink

BATCH = 64 * 1024  # characters gathered before they go to the sink: some 600 lines of `common`, and a bound whatever the lines are
_MEMO_ENTRIES = 1_024
_MEMO_LONGEST = 512
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")  # strftime's follow the locale
_SECRETS = frozenset({"authorization", "cookie", "proxy-authorization", "set-cookie"})

Client = tuple[str, int] | None


class LoggedRequest(Protocol):
    """What the log reads of a request (`wire.events.Request` is one)."""

    @property
    def method(self) -> str:
        """The method, as sent."""

    @property
    def target(self) -> bytes:
        """The request target, as sent."""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Names in lower case."""

    @property
    def version(self) -> str:
        """1.0, 1.1 or 2."""


Key = TypeVar("Key", bound=Hashable)
Record = Callable[[LoggedRequest, Client, int | None, int, float], None]


class AccessLog:
    """Writes one line a request to `sink` in `format`; raises `ConfigError` for a format that cannot be compiled.

    `record(request, client, status, size, seconds)`: the peer's address (None on a Unix socket), the status sent (None: none was), the
    bytes of body sent and how long it took. `flush()` hands what has gathered to the sink.
    `names_websocket_steps`: the format has lines of its own for a WebSocket's life (`websocket`), and none for its opening request.
    """

    __slots__ = ("flush", "names_websocket_steps", "record", "sink")

    record: Record
    flush: Callable[[], None]

    def __init__(self, format: str, sink: LineSink, *, clock: Callable[[], float] = time.time) -> None:  # noqa: A002  (the option's name)
        """`clock` gives wall time in seconds."""
        self.sink = sink
        self.names_websocket_steps = format == "daphne"
        self.record, self.flush = _compile(_style(format), sink, clock)

    def websocket(self, action: str, request: LoggedRequest, client: Client) -> None:
        """Daphne's WSCONNECTING, WSCONNECT, WSREJECT and WSDISCONNECT lines; nothing in other formats."""
        if self.names_websocket_steps:
            self.record(_Step(action, request.target), client, None, 0, 0.0)


def from_config(config: Logging) -> AccessLog | None:
    """Return the access log that was configured, or None. The owner flushes it, reopens its `sink`, and closes that at the end."""
    if config.access_log is None:
        return None
    _style(config.access_format)  # a format that cannot be had must not leave an empty file
    return AccessLog(config.access_format, LineSink(1 if config.access_log == "-" else config.access_log))


@dataclass(slots=True)
class _Step:
    """A WebSocket's step in the clothes of a request."""

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    version: str = ""


# Values as text


def escape(value: bytes | None) -> str:
    r"""Return `value` in printable ASCII without quotes: `\x1b`, `\n`, `\\`, `\x22`; None is `-`."""
    return "-" if value is None else _escape_text(value.decode("latin-1"))


def _escape_text(text: str) -> str:
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return text.encode("unicode_escape").decode("ascii").replace('"', r"\x22")


def _path(target: bytes) -> str:
    return escape(target.partition(b"?")[0])


def _query(target: bytes) -> str:
    return escape(target.partition(b"?")[2])


def _host(client: Client) -> str:
    return "-" if client is None else _escape_text(client[0])


def _address(client: Client) -> str:
    return "-" if client is None else _escape_text(_host_and_port(client))


def _host_and_port(client: tuple[str, int]) -> str:
    host, port = client
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _daphne_address(client: Client) -> str:
    return "None" if client is None else _escape_text(f"{client[0]}:{client[1]}")


_encode_json = JSONEncoder(ensure_ascii=True).encode


def _json_text(text: str) -> str:
    return _encode_json(text).replace("\x7f", r"\u007f")  # the one control character that JSON lets through


def _json_value(value: bytes | None) -> str:
    return "null" if value is None else _json_text(value.decode("latin-1"))


def _json_address(client: Client) -> str:
    return "null" if client is None else _json_text(_host_and_port(client))


def _daphne_date(now: float) -> str:
    at = time.localtime(now)
    return f"[{at.tm_mday:02}/{_MONTHS[at.tm_mon - 1]}/{at.tm_year:04}:{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}]"


def _clf_date(now: float) -> str:
    offset = time.strftime("%z", time.localtime(now))
    return f"{_daphne_date(now)[:-1]} {offset}]"


def _iso_date(now: float) -> str:
    date = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(now))
    return f'"{date[:-2]}:{date[-2:]}"'


class _Memo(dict[Key, str]):
    """Texts of values seen lately: a look-up costs a tenth of making one. Bounded in number and length; emptied when full."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[Key], str]) -> None:
        """`make` gives the text of a value not seen lately."""
        self._make = make

    def __missing__(self, key: Key) -> str:
        text = self._make(key)
        if len(text) <= _MEMO_LONGEST:
            if len(self) >= _MEMO_ENTRIES:
                self.clear()
            self[key] = text
        return text


# The formats

# What a line can say: atom -> a piece of an f-string over the locals of `record` (see _SOURCE). {name}i is added by _piece.
_ATOMS = {
    "client": "{clients[client]}",
    "target": "{targets[request.target]}",
    "h": "{hosts[client]}",
    "l": "-",
    "u": "-",  # the name in Basic credentials is a credential
    "t": "{date}",
    "r": "{methods[request.method]} {targets[request.target]} HTTP/{request.version}",
    "m": "{methods[request.method]}",
    "U": "{paths[request.target]}",
    "q": "{queries[request.target]}",
    "H": "HTTP/{request.version}",
    "s": "{status or '-'}",
    "B": "{size}",
    "b": "{size or '-'}",
    "f": "{values[headers.get(b'referer')]}",
    "a": "{values[headers.get(b'user-agent')]}",
    "T": "{int(seconds)}",
    "M": "{int(seconds * 1_000)}",
    "D": "{int(seconds * 1_000_000)}",
    "L": "{seconds:.6f}",
    "p": "<{getpid()}>",
}
_ATOM = re.compile(r"%(?:%|\((?P<atom>[^)]*)\)s)?")


@dataclass(frozen=True, slots=True)
class _Style:
    """A format: the f-string of its line, and how dates, addresses, field values and methods look."""

    line: str
    date: Callable[[float], str]
    address: Callable[[Client], str]
    value: Callable[[bytes | None], str]
    text: Callable[[str], str]


def _text_style(template: str, *, date: Callable[[float], str] = _clf_date, address: Callable[[Client], str] = _address) -> _Style:
    """Read a string of atoms; `ConfigError` names the atom that is not to be had."""
    if not template.isprintable():
        message = f"access log format: expected one line of printable text, found {template!r}"
        raise ConfigError(message)
    pieces: list[str] = []
    end = 0
    for found in _ATOM.finditer(template):
        pieces += (_literal(template[end : found.start()]), _piece(found[0], found["atom"]))
        end = found.end()
    return _Style("".join(pieces) + _literal(template[end:]), date, address, escape, _escape_text)


def _piece(found: str, atom: str | None) -> str:
    if found == "%%":
        return "%"
    if atom is None:
        message = "access log format: expected %(name)s, or %% for a percent sign, found a bare %"
        raise ConfigError(message)
    if atom in _ATOMS:
        return _ATOMS[atom]
    name = re.fullmatch(r"\{([!#$&*+.^_`|~0-9A-Za-z-]+)\}i", atom)
    if name is None:
        message = f"access log format: unknown atom %({atom})s; known are {' '.join(_ATOMS)} and {{field-name}}i"
        raise ConfigError(message)
    if name[1].lower() in _SECRETS:
        message = f"access log format: %({atom})s would write credentials into the log"
        raise ConfigError(message)
    return f"{{values[headers.get({name[1].lower().encode()!r})]}}"


def _literal(text: str) -> str:
    """`text` as the part of an f"string" that stands for itself."""
    return text.encode("unicode_escape").decode().replace('"', r"\x22").replace("{", "{{").replace("}", "}}")


_JSON = {
    "time": "{date}",
    "client": "{clients[client]}",
    "method": "{methods[request.method]}",
    "target": "{targets[request.target]}",
    "http_version": '"{request.version}"',
    "status": "{status or 'null'}",
    "size": "{size}",
    "duration": _ATOMS["L"],
    "referer": _ATOMS["f"],
    "user_agent": _ATOMS["a"],
}


def _json_style() -> _Style:
    members = ",".join(f'"{name}":{piece}' for name, piece in _JSON.items()).replace('"', r"\x22")
    return _Style("{{" + members + "}}", _iso_date, _json_address, _json_value, _json_text)


_STYLES = {
    "common": _text_style('%(client)s - - %(t)s "%(r)s" %(s)s %(b)s %(L)s'),
    "combined": _text_style('%(client)s - - %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s" %(L)s'),
    "daphne": _text_style('%(client)s - - %(t)s "%(m)s %(target)s" %(s)s %(b)s', date=_daphne_date, address=_daphne_address),
    "json": _json_style(),
}


def _style(format: str) -> _Style:  # noqa: A002  (the option's name)
    return _STYLES.get(format) or _text_style(format)


# The compiler

_SOURCE = """
def compiled(write, clock, make_date, clients, hosts, methods, targets, paths, queries, values, getpid):
    lines = []
    gathered = 0  # characters in them
    since = until = 0.0  # the second that `date` tells
    date = ""

    def flush():
        nonlocal gathered
        if lines:
            write(lines)
            lines.clear()
            gathered = 0

    def record(request, client, status, size, seconds):
        nonlocal gathered, since, until, date
        {steps}
        line = f"{line}\\n"
        lines.append(line)
        gathered += len(line)
        if gathered >= {batch}:
            flush()

    return record, flush
"""

# What some pieces stand on; a step is taken only where its name occurs.
_STEPS = {
    "date": """
        now = clock()
        if now >= until or now < since:
            since = now // 1.0
            until = since + 1.0
            date = make_date(since)""",
    "headers": """
        headers = dict(request.headers)""",
}


def _compile(style: _Style, sink: LineSink, clock: Callable[[], float]) -> tuple[Record, Callable[[], None]]:
    """Turn a style into `record` and `flush`."""
    steps = "".join(step for name, step in _STEPS.items() if name in style.line)
    scope: dict[str, Callable[..., tuple[Record, Callable[[], None]]]] = {}
    exec(_SOURCE.format(steps=steps, line=style.line, batch=BATCH), scope)  # noqa: S102  (pieces from above, the user's text escaped by _literal)
    return scope["compiled"](
        sink.write,
        clock,
        style.date,
        clients=_Memo(style.address),
        hosts=_Memo(_host),
        methods=_Memo(style.text),
        targets=_Memo(style.value),
        paths=_Memo(_path),
        queries=_Memo(_query),
        values=_Memo(style.value),
        getpid=os.getpid,
    )
