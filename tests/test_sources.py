"""Command line, environment, file and keywords: what they say, and who wins."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from termserver.config import Bind, Config, Descriptor, Endpoint, Tcp, Unix
from termserver.errors import ConfigError
from termserver.kinds import COUNT_OR_AUTO, INTEGER, SECONDS, SECONDS_OR_NEVER
from termserver.options import OPTIONS, value_at, variable
from termserver.sources import Effective, Mark, from_keywords, gather

APP = "project.asgi:application"


def effective(
    directory: Path, found: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None, toml: str = ""
) -> Effective:
    """Gather from a directory that has a termserver.toml with this text."""
    if toml:
        (directory / "termserver.toml").write_text(toml, encoding="utf-8")
    return gather({"application": APP} | dict(found or {}), environ or {}, directory)


# --- Precedence ---


@pytest.mark.parametrize(
    ("found", "environ", "toml", "value", "source"),
    [
        ({}, {}, "", 75.0, "default"),
        ({}, {}, "timeout-keep-alive = 3", 3.0, "file termserver.toml"),
        ({}, {"TERMSERVER_TIMEOUT_KEEP_ALIVE": "2"}, "timeout-keep-alive = 3", 2.0, "environment TERMSERVER_TIMEOUT_KEEP_ALIVE"),
        ({"timeouts.keep_alive": "1"}, {"TERMSERVER_TIMEOUT_KEEP_ALIVE": "2"}, "timeout-keep-alive = 3", 1.0, "argument"),
        ({"timeouts.keep_alive": "0"}, {}, "timeout-keep-alive = 3", 0.0, "argument"),
    ],
)
def test_argument_wins_over_environment_over_file_over_default(
    tmp_path: Path, found: Mapping[str, object], environ: Mapping[str, str], toml: str, value: float, source: str
) -> None:
    result = effective(tmp_path, found, environ, toml)
    assert result.usable().timeouts.keep_alive == value
    given = result.settings.get("timeouts.keep_alive")
    assert (given.source if given else "default") == source


def test_a_negative_flag_on_the_command_line_wins_over_a_value_elsewhere(tmp_path: Path) -> None:
    config = effective(tmp_path, {"logging.access_log": Mark.OFF}, {"TERMSERVER_ACCESS_LOG": "/log"}).usable()
    assert config.logging.access_log is None


# --- Addresses ---


@pytest.mark.parametrize(
    ("found", "binds"),
    [
        ({}, [Tcp("127.0.0.1", 8000)]),
        ({"port": "80"}, [Tcp("127.0.0.1", 80)]),
        ({"port": "0"}, [Tcp("127.0.0.1", 0)]),
        ({"bind": ["0.0.0.0"]}, [Tcp("0.0.0.0", 8000)]),
        ({"bind": ["0.0.0.0"], "port": "80"}, [Tcp("0.0.0.0", 80)]),
        ({"bind": ["[::1]"], "port": "80"}, [Tcp("::1", 80)]),
        ({"bind": ["a", "b:9"], "port": "80"}, [Tcp("a", 80), Tcp("b", 9)]),
        ({"bind": ["unix:/a,b", "fd://3"]}, [Unix("/a,b"), Descriptor(3)]),
        ({"unix_socket": "/run/a:b"}, [Unix("/run/a:b")]),
        ({"fd": "0"}, [Descriptor(0)]),
        ({"endpoint": ["tcp:1", "tcp:2"]}, [Endpoint("tcp:1"), Endpoint("tcp:2")]),
        ({"unix_socket": "/x", "port": "80"}, [Tcp("127.0.0.1", 80), Unix("/x")]),
        ({"unix_socket": "/x", "bind": ["h"]}, [Tcp("h", 8000), Unix("/x")]),
        ({"unix_socket": "/x", "fd": "3", "endpoint": ["tcp:1"]}, [Unix("/x"), Descriptor(3), Endpoint("tcp:1")]),
    ],
)
def test_addresses_default_as_daphnes_do(tmp_path: Path, found: Mapping[str, object], binds: list[Bind]) -> None:
    assert list(effective(tmp_path, found).usable().bind) == binds


@pytest.mark.parametrize(
    ("found", "environ", "toml", "binds"),
    [
        pytest.param({"bind": ["0.0.0.0"]}, {"TERMSERVER_PORT": "5000"}, "", [Tcp("0.0.0.0", 5000)], id="port from the platform"),
        pytest.param({"port": "9000"}, {"TERMSERVER_HOST": "0.0.0.0"}, "", [Tcp("0.0.0.0", 9000)], id="host from the image"),
        pytest.param({"unix_socket": "/x"}, {}, 'bind = ["0.0.0.0:80"]', [Unix("/x")], id="stronger addresses replace weaker"),
        pytest.param({"unix_socket": "/x"}, {"TERMSERVER_PORT": "5000"}, "", [Unix("/x")], id="weaker port has no use for it"),
        pytest.param({"bind": ["h:1"]}, {"TERMSERVER_PORT": "5000"}, "", [Tcp("h", 1)], id="weaker port gives way"),
        pytest.param({"port": "9000"}, {}, "unix-socket = '/x'", [Tcp("127.0.0.1", 9000), Unix("/x")], id="stronger port adds"),
        pytest.param({}, {"TERMSERVER_BIND": "a, b:9"}, "port = 7", [Tcp("a", 7), Tcp("b", 9)], id="variable with commas"),
        pytest.param({}, {}, "host = 'a'\nport = 7", [Tcp("a", 7)], id="one string in a file"),
        pytest.param({}, {"TERMSERVER_ENDPOINT": "tcp:1:interface=a,b"}, "", [Endpoint("tcp:1:interface=a,b")], id="endpoint with comma"),
    ],
)
def test_addresses_come_from_one_source_and_the_port_from_its_own(
    tmp_path: Path, found: Mapping[str, object], environ: Mapping[str, str], toml: str, binds: list[Bind]
) -> None:
    assert list(effective(tmp_path, found, environ, toml).usable().bind) == binds


@pytest.mark.parametrize(
    ("found", "toml", "line"),
    [
        ({"port": "80", "bind": ["h:1"]}, "", "--port: each address of --bind names its own port"),
        ({"port": "80", "bind": ["unix:/x"]}, "", "--port: each address of --bind names its own port"),
        ({"port": "80"}, "bind = 'h:1'", "--port: each address of termserver.toml: bind names its own port"),
        ({"bind": ["h:1", "h:1"]}, "", "--bind: expected each address once, got 'h:1'"),
        ({}, "bind = []", "termserver.toml: bind: expected at least one address, got ()"),
    ],
)
def test_addresses_that_do_not_fit_are_refused(tmp_path: Path, found: Mapping[str, object], toml: str, line: str) -> None:
    assert effective(tmp_path, found, toml=toml).problems == (line,)


def test_the_sources_of_an_address_are_all_named(tmp_path: Path) -> None:
    setting = effective(tmp_path, {"bind": ["h"]}, {"TERMSERVER_PORT": "1"}).settings["bind"]
    assert (setting.source, setting.name) == ("argument, environment TERMSERVER_PORT", "--bind, TERMSERVER_PORT")


# --- Verbosity ---


@pytest.mark.parametrize(
    ("verbosity", "level", "access_log"), [("0", "warning", None), ("1", "info", "-"), ("2", "debug", "-"), ("3", "debug", "-")]
)
def test_verbosity_sets_level_and_access_log(tmp_path: Path, verbosity: str, level: str, access_log: str | None) -> None:
    config = effective(tmp_path, {"verbosity": verbosity}).usable()
    assert (config.logging.level, config.logging.access_log) == (level, access_log)
    assert config.debug is (verbosity == "3")


def test_level_and_access_log_of_their_own_stand(tmp_path: Path) -> None:
    config = effective(tmp_path, {"verbosity": "0"}, {"TERMSERVER_LOG_LEVEL": "ERROR"}, "access-log = 'x.log'").usable()
    assert (config.logging.level, config.logging.access_log) == ("error", "x.log")


def test_verbosity_has_four_steps(tmp_path: Path) -> None:
    assert effective(tmp_path, {"verbosity": "4"}).problems == ("--verbosity: expected 0, 1, 2 or 3, got 4",)


# --- Proxies ---


def test_proxy_headers_alone_trust_unix_sockets_and_loopback(tmp_path: Path) -> None:
    proxy = effective(tmp_path, {"proxy.headers": Mark.ON}).usable().proxy
    assert (proxy.headers, proxy.trusted) == (True, ("unix", "127.0.0.0/8", "::1"))


@pytest.mark.parametrize(("given", "on"), [({}, True), ({"proxy.headers": Mark.OFF}, False), ({"proxy.headers": Mark.ON}, True)])
def test_naming_trusted_proxies_turns_their_headers_on(tmp_path: Path, given: dict[str, Mark], on: bool) -> None:
    proxy = effective(tmp_path, {"proxy.trusted": "10.0.0.1", **given}).usable().proxy
    assert (proxy.headers, proxy.trusted) == (on, ("10.0.0.1",))


@pytest.mark.parametrize(
    ("given", "on"),
    [
        ({"proxy.protocol": Mark.ON}, False),
        ({"proxy.protocol": Mark.OFF}, True),
        ({"proxy.protocol": Mark.ON, "proxy.headers": Mark.ON}, True),
    ],
)
def test_naming_who_may_send_proxy_headers_does_not_believe_the_clients_behind(tmp_path: Path, given: dict[str, Mark], on: bool) -> None:
    """A proxy that passes bytes on lets their X-Forwarded-For through."""
    proxy = effective(tmp_path, {"proxy.trusted": "10.0.0.1", **given}).usable().proxy
    assert (proxy.headers, proxy.trusted) == (on, ("10.0.0.1",))


def test_limits_of_an_address_may_stand_in_the_limits_section(tmp_path: Path) -> None:
    toml = '[limits]\nlimit-connections-per-address = 5\nlimit-connections-exempt = ["10.0.0.0/8", "::1"]\n[proxy]\nprotocol = true\n'
    config = effective(tmp_path, {}, toml=toml).usable()
    assert (config.limits.connections_per_address, config.limits.connections_exempt) == (5, ("10.0.0.0/8", "::1"))
    assert config.proxy.protocol


@pytest.mark.parametrize(
    ("field", "flag", "text"),
    [
        ("proxy.address_header", "--proxy-headers-host", "X-Real-IP"),
        ("proxy.port_header", "--proxy-headers-port", "X-Real-Port"),
    ],
)
def test_proxy_options_need_proxy_headers(tmp_path: Path, field: str, flag: str, text: str) -> None:
    assert effective(tmp_path, {field: text}).problems == (f"{flag}: has no effect without --proxy-headers",)
    assert effective(tmp_path, {field: text, "proxy.headers": Mark.ON}).problems == ()
    assert effective(tmp_path, {field: text, "proxy.headers": Mark.OFF}).problems == ()


# --- Environment ---


def test_a_bad_variable_is_named(tmp_path: Path) -> None:
    result = effective(tmp_path, environ={"TERMSERVER_PORT": "http", "TERMSERVER_LIFESPAN": "maybe"})
    assert result.problems == (
        "TERMSERVER_PORT: expected a port from 0 to 65535, got 'http'",
        "TERMSERVER_LIFESPAN: expected auto, on or off, got 'maybe'",
    )


def test_an_unknown_variable_is_a_warning_with_the_nearest_name(tmp_path: Path) -> None:
    result = effective(tmp_path, environ={"TERMSERVER_PROT": "1", "TERMSERVER_ZZZZZZ": "1", "PORT": "x"})
    assert result.problems == ()
    assert result.warnings == (
        "unknown environment variable TERMSERVER_PROT; did you mean TERMSERVER_PORT?",
        "unknown environment variable TERMSERVER_ZZZZZZ",
    )


def test_the_port_kubernetes_sets_is_explained(tmp_path: Path) -> None:
    (line,) = effective(tmp_path, environ={"TERMSERVER_PORT": "tcp://10.0.0.1:8000"}).problems
    assert line.startswith("TERMSERVER_PORT: expected a port from 0 to 65535, got 'tcp://10.0.0.1:8000' (Kubernetes ")


@pytest.mark.parametrize(("text", "access_log"), [("1", None), ("true", None), ("0", "-"), ("no", "-")])
def test_a_negative_variable_says_yes_or_nothing(tmp_path: Path, text: str, access_log: str | None) -> None:
    assert effective(tmp_path, environ={"TERMSERVER_NO_ACCESS_LOG": text}).usable().logging.access_log == access_log


def test_every_variable_that_is_a_number_reaches_its_field(tmp_path: Path) -> None:
    numbers = [option for option in OPTIONS if option.kind in {INTEGER, SECONDS, SECONDS_OR_NEVER, COUNT_OR_AUTO}]
    assert len(numbers) > 30
    for option in numbers:
        number = 1012 if option.field == "websocket_stop_code" else 2
        environment = {"TERMSERVER_WORKERS": "4"} if option.field.startswith("workers.") else {}
        result = gather({"application": APP}, environment | {variable(option.name): str(number)}, tmp_path)
        assert value_at(result.usable(), option.field) == number
        assert result.settings[option.field].source == f"environment {variable(option.name)}"


# --- File ---


def test_a_file_holds_flag_names_and_sections(tmp_path: Path) -> None:
    toml = """
        application = "a:b"
        log_fmt = "%(message)s"
        proxy-headers = true
        no-server-name = true
        allowed-hosts = ["a.example", ".b.example"]
        limit-connections = "auto"
        [limits]
        header-bytes = 1_000
        limit_header_count = 5
        backlog = 9
        [timeouts]
        keep_alive = 1.5
        http-timeout = 2
        [proxy]
        trusted = "10.0.0.0/8, unix"
        [logging]
        level = "Debug"
    """
    (tmp_path / "termserver.toml").write_text(toml)
    config = gather({}, {}, tmp_path).usable()
    assert config.application == "a:b"
    assert config.server_name == ""
    assert config.allowed_hosts == ("a.example", ".b.example")
    assert (config.limits.connections, config.limits.header_bytes, config.limits.header_count, config.limits.backlog) == (None, 1000, 5, 9)
    assert (config.timeouts.keep_alive, config.timeouts.application) == (1.5, 2.0)
    assert (config.proxy.headers, config.proxy.trusted) == (True, ("10.0.0.0/8", "unix"))
    assert (config.logging.format, config.logging.level) == ("%(message)s", "debug")


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        ("prot = 1", "termserver.toml: unknown key prot; did you mean port?"),
        ("[limits]\nheader_byts = 1", "termserver.toml: unknown key limits.header_byts; did you mean header-bytes?"),
        ("[limits]\ntimeout-keep-alive = 1", "termserver.toml: unknown key limits.timeout-keep-alive"),
        ("[websocket]\na = 1", "termserver.toml: unknown key websocket"),
        ("limits = 1", "termserver.toml: unknown key limits"),
        ("config = 'other.toml'", "termserver.toml: unknown key config"),
        ("port = '80'", "termserver.toml: port: expected a port from 0 to 65535, got string '80'"),
        ("factory = 1", "termserver.toml: factory: expected true or false, got integer 1"),
        ("timeout-keep-alive = -1", "termserver.toml: timeout-keep-alive: expected 0 (off) or more, got -1.0"),
        ("bind = 'h:x'", "termserver.toml: bind: expected host or host:port (expected integer for port, not 'x'), got 'h:x'"),
        ("bind = 'h'\nhost = 'i'", "termserver.toml: host: termserver.toml: bind sets the same option; one of them has to go"),
        ("access-log = 'x'\nno-access-log = true",
         "termserver.toml: no-access-log: termserver.toml: access-log sets the same option; one of them has to go"),
        ("no-access-log = 'x'", "termserver.toml: no-access-log: expected true or false, got string 'x'"),
    ],
)  # fmt: skip
def test_a_fault_in_a_file_names_file_and_key(tmp_path: Path, toml: str, line: str) -> None:
    (found,) = effective(tmp_path, toml=toml).problems
    assert found.startswith(line)


def test_faults_of_all_sources_are_told_at_once(tmp_path: Path) -> None:
    result = effective(tmp_path, {"port": "x"}, {"TERMSERVER_FD": "x"}, "backlog = 0\nzzz = 1")
    assert [line.partition(":")[0] for line in result.problems] == ["--port", "TERMSERVER_FD", "termserver.toml", "termserver.toml"]
    with pytest.raises(ConfigError) as caught:
        result.usable()
    assert str(caught.value).splitlines() == list(result.problems)


def test_a_file_that_was_named_wins_over_one_that_is_found(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text("port = 1")
    (tmp_path / "two.toml").write_text("port = 2")
    assert effective(tmp_path, {"config": "one.toml"}, toml="port = 3").usable().bind == (Tcp("127.0.0.1", 1),)
    assert effective(tmp_path, environ={"TERMSERVER_CONFIG": "two.toml"}).usable().bind == (Tcp("127.0.0.1", 2),)
    absolute = str(tmp_path / "two.toml")
    both = effective(tmp_path, {"config": absolute}, {"TERMSERVER_CONFIG": "one.toml"})
    assert both.settings["bind"].source == f"file {absolute}"


def test_pyproject_is_the_last_place_looked_at(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.termserver]\nport = 1\n[tool.termserver.limits]\nbacklog = 2")
    config = effective(tmp_path).usable()
    assert (config.bind, config.limits.backlog) == ((Tcp("127.0.0.1", 1),), 2)
    assert effective(tmp_path, {"config": "pyproject.toml"}).usable().limits.backlog == 2
    assert effective(tmp_path, toml="backlog = 3").usable().limits.backlog == 3


@pytest.mark.parametrize("text", ["", "[tool]", "[tool.other]\nport = 1", "tool = 1\n"])
def test_a_pyproject_of_other_tools_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    assert effective(tmp_path).usable() == Config(application=APP)


@pytest.mark.parametrize(
    ("content", "start"),
    [
        (b"port = ", "termserver.toml: "),
        (b"port = '\xff'", "termserver.toml: 'utf-8' codec"),
    ],
)
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes, start: str) -> None:
    (tmp_path / "termserver.toml").write_bytes(content)
    (line,) = effective(tmp_path).problems
    assert line.startswith(start)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert effective(tmp_path, {"config": "none.toml"}).problems == ("none.toml: cannot be read: No such file or directory",)
    assert effective(tmp_path, {"config": "."}).problems == (".: cannot be read: Is a directory",)


def test_a_tool_table_has_to_be_a_table(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool]\ntermserver = 8000")
    assert effective(tmp_path).problems == ("pyproject.toml: expected a table [tool.termserver], got 8000",)


# --- Keywords ---


def test_keywords_are_flags_with_underscores() -> None:
    config = from_keywords(
        APP, bind=["h"], port=80, timeout_keep_alive=3, no_server_name=True, allowed_hosts=("a",), limit_connections=5, access_log=None
    )
    assert config.bind == (Tcp("h", 80),)
    assert (config.timeouts.keep_alive, config.server_name, config.allowed_hosts, config.limits.connections) == (3.0, "", ("a",), 5)
    assert config.logging.access_log is None


def test_certificates_are_one_path_or_a_list_of_them(tmp_path: Path) -> None:
    toml = '[tls]\nssl-certfile = ["a, b.pem", "c.pem"]\nssl-keyfile = ["a.key", "c.key"]'
    tls = effective(tmp_path, toml=toml).usable().tls
    assert (tls.certificates, tls.keys) == (("a, b.pem", "c.pem"), ("a.key", "c.key"))
    tls = effective(tmp_path, environ={"TERMSERVER_SSL_CERTFILE": "a, b.pem", "TERMSERVER_SSL_KEYFILE": "a.key"}).usable().tls
    assert (tls.certificates, tls.keys) == (("a, b.pem",), ("a.key",))
    tls = from_keywords(APP, ssl_certfile=("a", "b"), ssl_min_version="1.3", ssl_client_certs="Optional", ssl_ca_certs="ca").tls
    assert (tls.certificates, tls.minimum_version, tls.clients, tls.client_ca) == (("a", "b"), "1.3", "optional", "ca")


def test_keywords_do_not_read_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "termserver.toml").write_text("port = 1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERMSERVER_PORT", "2")
    assert from_keywords(APP) == Config(application=APP)


def test_an_application_object_is_kept_as_it_is() -> None:
    async def application(scope: object, receive: object, send: object) -> None: ...

    assert from_keywords(application).application is application


@pytest.mark.parametrize(
    ("name", "message"),
    [("prot", "unknown option 'prot'; did you mean port?"), ("zzzzz", "unknown option 'zzzzz'"), ("config", "unknown option 'config'")],
)
def test_an_unknown_keyword_is_a_type_error(name: str, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        from_keywords(APP, **{name: 1})
    assert str(caught.value).startswith(message)


def test_a_bad_keyword_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^port: expected a port from 0 to 65535, got string '80'$"):
        from_keywords(APP, port="80")
