"""Addresses, and what `Config.problems` objects to."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termserver.config import (
    Bind,
    Config,
    Descriptor,
    Endpoint,
    Limits,
    Logging,
    Proxy,
    Tcp,
    Timeouts,
    Tls,
    Unix,
    parse_bind,
    takes_port,
)
from termserver.errors import ConfigError

FINE = Config(application="project.asgi:application")
WEBSOCKET_LIMITS = [each.name for each in fields(Limits) if each.name.startswith("websocket_")]
WEBSOCKET_TIMEOUTS = [each.name for each in fields(Timeouts) if each.name.startswith("websocket_")]


def problems(config: Config) -> list[str]:
    """Everything said, each line as people read it."""
    return [str(problem) for problem in config.problems()]


# --- Addresses ---


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("localhost", Tcp("localhost", 8000)),
        ("0.0.0.0", Tcp("0.0.0.0", 8000)),
        ("0.0.0.0:80", Tcp("0.0.0.0", 80)),
        ("host_name.example-1.org:0", Tcp("host_name.example-1.org", 0)),
        ("[::1]:8001", Tcp("::1", 8001)),
        ("[::1]", Tcp("::1", 8000)),
        ("::1", Tcp("::1", 8000)),
        ("::", Tcp("::", 8000)),
        ("tcp://h:65535", Tcp("h", 65535)),
        ("tcp://[::1]", Tcp("::1", 8000)),
        ("unix:/run/x.sock", Unix("/run/x.sock")),
        ("unix:///run/x.sock", Unix("/run/x.sock")),
        ("unix:relative.sock", Unix("relative.sock")),
        ("unix:/run/a:b c,d.sock", Unix("/run/a:b c,d.sock")),
        ("fd://0", Descriptor(0)),
        ("fd://3", Descriptor(3)),
    ],
)
def test_an_address_is_read(text: str, bind: Bind) -> None:
    assert parse_bind(text) == bind


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "a host name"),
        ("8000", "a host name"),
        (":8000", "a host name"),
        ("a b:1", "a host name"),
        ("-h:1", "a host name"),
        ("h\N{LATIN SMALL LETTER U WITH DIAERESIS}:1", "a host name"),
        ("h:", "host:port"),
        ("h:x", "host:port"),
        ("[::1]x", "host:port"),
        ("h:65536", "a port from 0 to 65535"),
        ("h:-1", "a port from 0 to 65535"),
        ("u@h:1", "nothing but host and port"),
        ("h:1/", "nothing but host and port"),
        ("h:1/path", "nothing but host and port"),
        ("h:1?q", "nothing but host and port"),
        ("h:1#f", "nothing but host and port"),
        ("unix:", "a path"),
        ("unix:/a\0b", "a path"),
        ("fd://", "fd://NUMBER"),
        ("fd://9x", "fd://NUMBER"),
        ("fd://-1", "fd://NUMBER"),
        ("fd://\N{ARABIC-INDIC DIGIT THREE}", "fd://NUMBER"),
        ("http://h:80", "tcp://host:port"),
    ],
)
def test_what_is_no_address_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=r"^expected ") as caught:
        parse_bind(text)
    assert expected in str(caught.value)


@given(st.text())
def test_no_text_does_worse_than_value_error(text: str) -> None:
    try:
        bind = parse_bind(text)
    except ValueError:
        return
    assert parse_bind(str(bind)) == bind


@given(
    st.one_of(
        st.builds(Tcp, st.ip_addresses().map(str), st.integers(0, 65535)),
        st.builds(Unix, st.text(min_size=1).filter(lambda path: "\0" not in path and not path.startswith("///"))),
        st.builds(Descriptor, st.integers(0, 10**6)),
    )
)
def test_an_address_written_is_the_address_read(bind: Bind) -> None:
    assert parse_bind(str(bind)) == bind


def test_an_endpoint_is_written_as_it_came() -> None:
    assert str(Endpoint("tcp:80:interface=::1")) == "tcp:80:interface=::1"


@pytest.mark.parametrize(
    ("text", "bare"),
    [("h", True), ("::1", True), ("[::1]", True), ("tcp://h", True), ("h:8000", False), ("unix:/h", False), ("fd://3", False)],
)
def test_a_host_without_port_takes_one(text: str, *, bare: bool) -> None:
    assert takes_port(text) is bare


# --- Validation ---


def test_the_defaults_need_an_application_and_nothing_else() -> None:
    assert problems(FINE) == []
    assert problems(Config()) == ["application: expected an application, as in package.module:name, got ''"]
    FINE.validate()


def test_an_application_may_be_a_callable_even_a_false_one() -> None:
    class Routes(list[object]):
        def __call__(self) -> None: ...

    assert problems(Config(application=Routes())) == []


@pytest.mark.parametrize(
    ("config", "line"),
    [
        pytest.param(replace(FINE, limits=Limits(field=-1)), "limits.field: expected 0 (off) or more, got -1", id="negative limit"),
        pytest.param(
            replace(FINE, limits=Limits(connections=-1)), "limits.connections: expected 0 (off) or more, got -1", id="connections"
        ),
        pytest.param(replace(FINE, limits=Limits(backlog=0)), "limits.backlog: expected 1 or more, got 0", id="no backlog"),
        pytest.param(
            replace(FINE, timeouts=Timeouts(keep_alive=float("nan"))), "timeouts.keep_alive: expected 0 (off) or more, got nan", id="nan"
        ),
        pytest.param(replace(FINE, timeouts=Timeouts(startup=-0.1)), "timeouts.startup: expected 0 (off) or more, got -0.1", id="time"),
        pytest.param(replace(FINE, verbosity=4), "verbosity: expected 0, 1, 2 or 3, got 4", id="verbosity"),
        pytest.param(replace(FINE, lifespan="yes"), "lifespan: expected auto, on or off, got 'yes'", id="lifespan"),
        pytest.param(replace(FINE, underscore_headers=""), "underscore_headers: expected drop, reject or allow, got ''", id="underscores"),
        pytest.param(
            replace(FINE, logging=Logging(level="loud")),
            "logging.level: expected critical, error, warning, info or debug, got 'loud'",
            id="level",
        ),
        pytest.param(replace(FINE, server_name="a\r\nb: c"), r"server_name: expected printable ASCII, got 'a\r\nb: c'", id="server name"),
        pytest.param(replace(FINE, server_name=" a"), "server_name: expected printable ASCII, got ' a'", id="server name blank"),
        pytest.param(
            replace(FINE, proxy=Proxy(address_header="X Real")),
            "proxy.address_header: expected the name of a header, got 'X Real'",
            id="host",
        ),
        pytest.param(replace(FINE, proxy=Proxy(port_header="")), "proxy.port_header: expected the name of a header, got ''", id="port"),
        pytest.param(
            replace(FINE, allowed_hosts=("a.example", "b:80")),
            "allowed_hosts: expected host names without port (.example.com for a whole domain), got 'b:80'",
            id="allowed host with port",
        ),
        *[
            pytest.param(
                replace(FINE, allowed_origins=("https://a.example", origin)),
                f"allowed_origins: expected origins, as in https://example.com (https://.example.com for a whole domain), got {origin!r}",
                id=f"origin {origin!r}",
            )
            for origin in ("", "a.example", "https://", "https://.", "https://a.example/", "https://a.example/path", "//a.example", "*")
        ],
        *[
            pytest.param(
                replace(FINE, websocket_stop_code=code), f"websocket_stop_code: expected 1001 or 1012, got {code}", id=f"stop code {code}"
            )
            for code in (0, 1000, 1006, 4000)
        ],
        *[
            pytest.param(replace(FINE, limits=Limits(**{name: -1})), f"limits.{name}: expected 0 (off) or more, got -1", id=name)
            for name in WEBSOCKET_LIMITS
        ],
        *[
            pytest.param(replace(FINE, timeouts=Timeouts(**{name: -1})), f"timeouts.{name}: expected 0 (off) or more, got -1", id=name)
            for name in WEBSOCKET_TIMEOUTS
        ],
        pytest.param(
            replace(FINE, logging=Logging(access_log="")), "logging.access_log: expected a path, or - for standard output, got ''", id="log"
        ),
        pytest.param(
            replace(FINE, logging=Logging(access_format="comon")),
            "logging.access_format: expected common, combined, json, daphne or a format string with %-directives, got 'comon'",
            id="access format",
        ),
        pytest.param(replace(FINE, bind=()), "bind: expected at least one address, got ()", id="no address"),
        pytest.param(replace(FINE, bind=(Tcp("h", 70000),)), "bind: expected a port from 0 to 65535, got 70000", id="port range"),
        pytest.param(replace(FINE, bind=(Tcp("", 1),)), "bind: expected a host name or an address, got ''", id="no host"),
        pytest.param(replace(FINE, bind=(Unix(""),)), "bind: expected an address, got ''", id="no path"),
        pytest.param(replace(FINE, bind=(Endpoint(""),)), "bind: expected an address, got ''", id="no endpoint"),
        pytest.param(
            replace(FINE, bind=(Descriptor(-1),)), "bind: expected the number of an open descriptor, 0 or more, got -1", id="descriptor"
        ),
        pytest.param(replace(FINE, bind=(Tcp("h", 1), Tcp("h", 1))), "bind: expected each address once, got 'h:1'", id="address twice"),
        pytest.param(
            replace(FINE, tls=Tls(certificates=("a", "b"), keys=("a",))),
            "tls.keys: expected as many keys as certificates, or none where they are in the same files, got ('a',)",
            id="a key too few",
        ),
        pytest.param(
            replace(FINE, tls=Tls(keys=("a",))),
            "tls.keys: expected as many keys as certificates, or none where they are in the same files, got ('a',)",
            id="a key without a certificate",
        ),
        pytest.param(
            replace(FINE, tls=Tls(("a",), minimum_version="1.1")), "tls.minimum_version: expected 1.2 or 1.3, got '1.1'", id="TLS 1.1"
        ),
        pytest.param(
            replace(FINE, tls=Tls(("a",), clients="yes", client_ca="b")),
            "tls.clients: expected none, optional or required, got 'yes'",
            id="clients",
        ),
        pytest.param(
            replace(FINE, tls=Tls(("a",), clients="required")),
            "tls.client_ca: expected the certificates that clients' own are signed with, got ''",
            id="clients without an authority",
        ),
        pytest.param(
            replace(FINE, tls=Tls(("a",), client_ca="b")),
            "tls.clients: expected optional or required, beside what their certificates are judged by, got 'none'",
            id="an authority without effect",
        ),
        pytest.param(
            replace(FINE, tls=Tls(clients="optional", client_ca="b")),
            "tls.clients: expected a certificate (--ssl-certfile) beside it, got 'optional'",
            id="clients of no TLS",
        ),
        pytest.param(
            replace(FINE, http_redirect_port=80),
            "http_redirect_port: expected a certificate (--ssl-certfile) beside it, got 80",
            id="nowhere to redirect to",
        ),
        pytest.param(
            replace(FINE, http_redirect_port=80, tls=Tls(("a",)), bind=(Unix("/x"),)),
            "http_redirect_port: expected a TCP address (--bind) to redirect to, got 80",
            id="no address to redirect to",
        ),
        pytest.param(
            replace(FINE, proxy=Proxy(protocol=True), bind=(Endpoint("tcp:80"),)),
            "proxy.protocol: expected no Twisted endpoint string beside it: haproxy:… is Twisted's own way, got True",
            id="PROXY headers on an endpoint of Twisted's",
        ),
        pytest.param(
            replace(FINE, proxy=Proxy(protocol=True, trusted=())),
            "proxy.trusted: expected somebody who may send PROXY headers: nobody else is served, got ()",
            id="PROXY headers of nobody",
        ),
        pytest.param(
            replace(FINE, limits=Limits(connections_per_address=2), bind=(Tcp("a", 1), Endpoint("tcp:80"))),
            "limits.connections_per_address: expected no Twisted endpoint string beside it: its connections are not counted, got 2",
            id="connections that are not counted",
        ),
        pytest.param(
            replace(FINE, limits=Limits(connections_exempt=("::1",))),
            "limits.connections_exempt: expected --limit-connections-per-address beside it, got ('::1',)",
            id="exempt from nothing",
        ),
        pytest.param(
            replace(FINE, limits=Limits(connections_per_address=-1)),
            "limits.connections_per_address: expected 0 (off) or more, got -1",
            id="connections of an address",
        ),
    ],
)
def test_each_fault_is_one_line(config: Config, line: str) -> None:
    assert problems(config) == [line]


@pytest.mark.parametrize(
    ("config", "start"),
    [
        (
            replace(FINE, proxy=Proxy(trusted=("unix", "*", "::1", "10.0.0.1/8"))),
            "proxy.trusted: expected an address, a network, unix or * (",
        ),
        (replace(FINE, proxy=Proxy(trusted=("proxy.example",))), "proxy.trusted: expected an address, a network, unix or * ("),
        (
            replace(FINE, limits=Limits(connections_per_address=1, connections_exempt=("10.0.0.1/8",))),
            "limits.connections_exempt: expected an address, a network (",
        ),
        (
            replace(FINE, limits=Limits(connections_per_address=1, connections_exempt=("unix",))),
            "limits.connections_exempt: expected an address, a network (",
        ),
        (replace(FINE, logging=Logging(format="nothing")), "logging.format: expected a format string of Python's logging ("),
    ],
)
def test_a_library_says_why(config: Config, start: str) -> None:
    (line,) = problems(config)
    assert line.startswith(start)


@pytest.mark.parametrize(
    "config",
    [
        replace(FINE, proxy=Proxy(protocol=True)),
        replace(FINE, limits=Limits(connections_per_address=1, connections_exempt=("10.0.0.0/8", "::1"))),
        replace(FINE, bind=(Tcp("h", 0), Tcp("h", 0), Unix("/x"), Descriptor(0), Endpoint("tcp:80"))),
        replace(FINE, proxy=Proxy(headers=True, trusted=("10.0.0.0/8", "2001:db8::/32", "192.0.2.1", "unix", "*"))),
        replace(FINE, allowed_hosts=("example.com", ".example.com", "127.0.0.1", "[::1]", "under_score")),
        replace(FINE, allowed_origins=("https://a.example", "HTTP://A.example:8000", "https://.example.com", "http://[::1]:80", "null")),
        replace(FINE, allowed_origins=("http://127.0.0.1", "chrome-extension://abcdef")),
        replace(FINE, websocket_stop_code=1012, websocket_deflate=False),
        replace(FINE, server_name=""),
        replace(FINE, server_name="nginx (not really)"),
        replace(FINE, logging=Logging(access_log=None, access_format="%(h)s", format="%(message)s")),
        replace(FINE, limits=Limits(connections=None)),
        replace(FINE, tls=Tls(("a", "b")), http_redirect_port=0),
        replace(FINE, tls=Tls(("a",), ("b",), "secret", "1.3", "HIGH", "required", "c", "d")),
    ],
)
def test_what_is_usable_is_not_objected_to(config: Config) -> None:
    assert problems(config) == []


def test_all_faults_are_told_at_once() -> None:
    config = Config(lifespan="x", limits=Limits(field=-1))
    with pytest.raises(ConfigError) as caught:
        config.validate()
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["application", "limits.field", "lifespan"]


# --- What follows ---


@pytest.mark.parametrize(("verbosity", "debug"), [(0, False), (1, False), (2, False), (3, True)])
def test_asyncio_is_debugged_at_verbosity_three(verbosity: int, *, debug: bool) -> None:
    assert Config(verbosity=verbosity).debug is debug


def test_what_is_off_by_default_is_no_warning() -> None:
    assert Config().warnings() == []
    assert Config(timeouts=Timeouts(body_rate_grace=0)).warnings() == []


def test_time_for_a_proxy_header_is_a_protection() -> None:
    assert "timeouts.proxy_header" in Config(timeouts=Timeouts(proxy_header=0)).warnings()[0]


def test_protections_that_were_turned_off_are_named_in_one_line() -> None:
    config = Config(limits=Limits(header_count=0, connections=0), timeouts=Timeouts(header_read=0))
    assert config.warnings() == [
        "turned off, although on by default for safety: limits.header_count, limits.connections, timeouts.header_read"
    ]


@pytest.mark.parametrize("name", WEBSOCKET_LIMITS)
def test_every_limit_of_websockets_is_a_protection(name: str) -> None:
    assert f"limits.{name}" in replace(FINE, limits=Limits(**{name: 0})).warnings()[0]
    assert replace(FINE, limits=Limits(**{name: 0})).problems() == []


@pytest.mark.parametrize("name", WEBSOCKET_TIMEOUTS)
def test_every_time_out_of_websockets_is_a_protection(name: str) -> None:
    assert f"timeouts.{name}" in replace(FINE, timeouts=Timeouts(**{name: 0})).warnings()[0]
    assert replace(FINE, timeouts=Timeouts(**{name: 0})).problems() == []


def test_defaults_of_websockets_are_daphnes_where_it_has_them() -> None:
    limits, timeouts = Limits(), Timeouts()
    assert (limits.websocket_message, limits.websocket_frame) == (1_048_576, 1_048_576)
    assert (timeouts.websocket_ping_interval, timeouts.websocket_ping_timeout, timeouts.websocket_age) == (20, 30, 86_400)
    assert (Config().allowed_origins, Config().websocket_stop_code) == ((), 1001)


def test_every_limit_and_timeout_is_a_number_to_compare() -> None:
    for values in (Limits(), Timeouts()):
        others = [each.name for each in fields(values) if type(getattr(values, each.name)) not in {int, float, type(None)}]
        assert others in ([], ["connections_exempt"])
