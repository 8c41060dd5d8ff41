"""What the command line prints, and how it ends."""

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import termserver
from termserver.cli import DAPHNE_FLAGS, main, parser
from termserver.config import Bind, Config, Descriptor, Endpoint, Tcp, Unix
from termserver.errors import ListenError
from termserver.options import OPTIONS, value_at
from termserver.process.control import listen

SITE = """
async def app(scope, receive, send): ...
def make(): return app
broken = 3
"""


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a directory with an application in it, and no variables of ours."""
    for name in [name for name in os.environ if name.startswith("TERMSERVER_")]:
        monkeypatch.delenv(name)
    (tmp_path / "cli_site.py").write_text(SITE)
    (tmp_path / "check.py").write_text(SITE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in ("cli_site", "check"):
        sys.modules.pop(name, None)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Stand in for the server: what it was told, in order."""
    configs: list[Config] = []

    def run(config: Config, _notifier: object = None) -> int:
        configs.append(config)
        if config.root_path == "/cannot-listen":
            raise ListenError("cannot listen on 127.0.0.1:8000: Address already in use")
        return 7

    server = ModuleType("termserver.net.runner")
    server.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "termserver.net.runner", server)
    return configs


def config_of(line: str, served: list[Config]) -> Config:
    """Serve with these words and return what the server was told."""
    assert main(shlex.split(line)) == 7
    return served[-1]


# --- Serving ---


@pytest.mark.parametrize("line", ["cli_site:app", "serve cli_site:app", "-p 8000 cli_site:app -v 1", "-p8000 -v1 -- cli_site:app"])
def test_an_application_is_served(line: str, served: list[Config]) -> None:
    config = config_of(line, served)
    assert (config.application, config.bind) == ("cli_site:app", (Tcp("127.0.0.1", 8000),))


@pytest.mark.parametrize(("line", "application"), [("check:app", "check:app"), ("serve check", "check"), ("serve serve:app", "serve:app")])
def test_check_and_serve_are_commands_only_as_the_whole_first_word(line: str, application: str, served: list[Config]) -> None:
    assert config_of(line, served).application == application


@pytest.mark.parametrize(
    ("line", "binds"),
    [
        ("a:b -p 80", [Tcp("127.0.0.1", 80)]),
        ("a:b -p80 -b0.0.0.0", [Tcp("0.0.0.0", 80)]),
        ("a:b -b a -b b:9 --host c", [Tcp("a", 8000), Tcp("b", 9), Tcp("c", 8000)]),
        ("a:b -b [::1] --port=80", [Tcp("::1", 80)]),
        ("a:b -u /run/x:y.sock", [Unix("/run/x:y.sock")]),
        ("a:b --uds /run/x.sock --fd 3", [Unix("/run/x.sock"), Descriptor(3)]),
        ("a:b -e tcp:80 -e ssl:443:privateKey=k:certKey=c", [Endpoint("tcp:80"), Endpoint("ssl:443:privateKey=k:certKey=c")]),
    ],
)
def test_addresses_as_daphne_takes_them(line: str, binds: list[Bind], served: list[Config]) -> None:
    assert list(config_of(line, served).bind) == binds


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("--http 5", "http-timeout"),
        ("--log %(message)s", "log-fmt"),
        ("--access -", "access-log"),
        ("--access=-", "access-log"),
        ("--app 5", "application-close-timeout"),
        ("--f 3", "bind"),
        ("--b ::1", "bind"),
        ("--ba 5", "backlog"),
        ("--serv x", "server-name"),
        ("--no-s", "server-name"),
        ("--timeout-k 3", "timeout-keep-alive"),
        ("--websocket_t 5", "websocket-timeout"),
        ("--websocket_timeout=5", "websocket-timeout"),
        ("--websocket-t 5", "websocket-timeout"),
        ("--websocket_c 5", "websocket-connect-timeout"),
        ("--websocket_connect_timeout 5", "websocket-connect-timeout"),
        ("--websocket-connect-timeout 5", "websocket-connect-timeout"),
        ("--websocket-max-m 5", "websocket-max-message-size"),
        ("--websocket-max-fra 5", "websocket-max-frame-size"),
        ("--websocket-max-f 5", "websocket-max-frame-size"),
        ("--ping-i 5", "ping-interval"),
        ("--ping-t 5", "ping-timeout"),
    ],
)
def test_abbreviations_work_and_daphnes_win(line: str, row: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "cli_site:app", *shlex.split(line)]) == 0
    given = [shown.split()[0] for shown in capsys.readouterr().out.splitlines() if shown.endswith(" argument")]
    assert given == ["application", row]


def test_daphnes_options_are_options() -> None:
    known = {flag for option in OPTIONS for flag in [*option.flags.split(), option.off]}
    assert set(DAPHNE_FLAGS) - {"--help"} <= known


# --- WebSockets ---


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("--websocket_timeout 60", "timeouts.websocket_age", 60.0),
        ("--websocket_timeout -1", "timeouts.websocket_age", 0.0),
        ("--websocket_timeout=-1", "timeouts.websocket_age", 0.0),
        ("--websocket-timeout -1", "timeouts.websocket_age", 0.0),
        ("--websocket_connect_timeout 5", "timeouts.websocket_accept", 5.0),
        ("--websocket_connect_timeout -1", "timeouts.websocket_accept", 0.0),
        ("--ping-interval 0.5", "timeouts.websocket_ping_interval", 0.5),
        ("--ping-interval -1", "timeouts.websocket_ping_interval", 0.0),
        ("--ws-ping-interval 7", "timeouts.websocket_ping_interval", 7.0),
        ("--ping-timeout -1", "timeouts.websocket_ping_timeout", 0.0),
        ("--ws-ping-timeout 7", "timeouts.websocket_ping_timeout", 7.0),
        ("--websocket-close-timeout 3", "timeouts.websocket_close", 3.0),
        ("--websocket-max-message-size 10", "limits.websocket_message", 10),
        ("--ws-max-size 10", "limits.websocket_message", 10),
        ("--websocket-max-frame-size 0", "limits.websocket_frame", 0),
        ("--websocket-max-fragments 3", "limits.websocket_fragments", 3),
        ("--websocket-max-queue 4", "limits.websocket_queue", 4),
        ("--ws-max-queue 4", "limits.websocket_queue", 4),
        ("--websocket-max-pings 10", "limits.websocket_pings", 10),
        ("--ws-deflate-max-ratio 100", "limits.websocket_deflate_ratio", 100),
        ("--no-ws-deflate", "websocket_deflate", False),
        ("--ws-deflate", "websocket_deflate", True),
        ("--websocket-stop-code 1012", "websocket_stop_code", 1012),
        ("--allowed-origins 'https://a.example, http://b.example:8000'", "allowed_origins", ("https://a.example", "http://b.example:8000")),
    ],
)
def test_options_of_websockets_reach_their_fields(line: str, field: str, value: object, served: list[Config]) -> None:
    assert value_at(config_of(f"a:b {line}", served), field) == value
    assert value_at(config_of(f"{line} a:b", served), field) == value


def test_options_of_websockets_come_from_environment_and_file_too(
    site: Path, monkeypatch: pytest.MonkeyPatch, served: list[Config]
) -> None:
    top = 'websocket_timeout = -1\nallowed-origins = ["https://a.example"]'
    (site / "termserver.toml").write_text(f"{top}\n[limits]\nwebsocket-queue = 4\n[timeouts]\nwebsocket-accept = -2.5")
    monkeypatch.setenv("TERMSERVER_PING_INTERVAL", "-1")
    monkeypatch.setenv("TERMSERVER_WS_DEFLATE", "off")
    config = config_of("a:b", served)
    assert (config.timeouts.websocket_age, config.timeouts.websocket_accept, config.timeouts.websocket_ping_interval) == (0, 0, 0)
    assert (config.allowed_origins, config.limits.websocket_queue, config.websocket_deflate) == (("https://a.example",), 4, False)


# --- Complaints ---


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", "application: expected an application, as in package.module:name, got ''"),
        ("cli_site:app -p http", "--port: expected a port from 0 to 65535, got 'http'"),
        ("cli_site:app -v 7", "--verbosity: expected 0, 1, 2 or 3, got 7"),
        ("cli_site:app --proxy-headers-host X-Real-IP", "--proxy-headers-host: has no effect without --proxy-headers"),
        ("cli_site:app --nonsense", "unrecognized arguments: --nonsense (termserver --help lists the options)"),
        ("cli_site:app -p", "argument -p/--port: expected one argument (termserver --help lists the options)"),
        ("cli_site:app --request-size 5", "unrecognized arguments: --request-size 5 (termserver --help lists the options)"),
        ("cli_site:app --websocket_timeout soon", "--websocket-timeout: expected a number of seconds, got 'soon'"),
        ("cli_site:app --websocket-max-message-size -1", "--websocket-max-message-size: expected 0 (off) or more, got -1"),
        ("cli_site:app --websocket-stop-code 1000", "--websocket-stop-code: expected 1001 or 1012, got 1000"),
        (
            "cli_site:app --allowed-origins a.example",
            "--allowed-origins: expected origins, as in https://example.com (https://.example.com for a whole domain), got 'a.example'",
        ),
        ("cli_site:app --timeout-keep-alive -1", "--timeout-keep-alive: expected 0 (off) or more, got -1.0"),
        ("cli_site:app other:app", "unrecognized arguments: other:app (termserver --help lists the options)"),
        ("cli_site:app --config none.toml", "none.toml: cannot be read: No such file or directory"),
    ],
)
@pytest.mark.parametrize("command", ["", "serve "])
def test_a_bad_option_is_one_line_and_exit_code_2(command: str, line: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split(command + line)) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"termserver: error: {complaint}\n")


def test_several_faults_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-p", "x", "--backlog", "0"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("termserver: error: ") for line in lines)


def test_a_bad_variable_is_one_line_and_exit_code_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TERMSERVER_TIMEOUT_KEEP_ALIVE", "soon")
    assert main(["cli_site:app"]) == 2
    assert capsys.readouterr().err == "termserver: error: TERMSERVER_TIMEOUT_KEEP_ALIVE: expected a number of seconds, got 'soon'\n"


def test_an_unknown_variable_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], served: list[Config]
) -> None:
    monkeypatch.setenv("TERMSERVER_TIMEOUT_KEEPALIVE", "5")
    config_of("cli_site:app", served)
    assert capsys.readouterr().err == (
        "termserver: warning: unknown environment variable TERMSERVER_TIMEOUT_KEEPALIVE; did you mean TERMSERVER_TIMEOUT_KEEP_ALIVE?\n"
    )


def test_what_the_server_raises_is_one_line_and_its_exit_code(served: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cli_site:app", "--root-path", "/cannot-listen"]) == 1
    assert len(served) == 1
    assert capsys.readouterr().err == "termserver: error: cannot listen on 127.0.0.1:8000: Address already in use\n"


# --- termserver check ---


def test_check_shows_each_value_with_its_source(site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "termserver.toml").write_text("[limits]\nheader-count = 7")
    monkeypatch.setenv("TERMSERVER_PORT", "80")
    assert main(["check", "cli_site:app", "-v", "0", "-b", "h"]) == 0
    printed = capsys.readouterr()
    rows = {row.split(maxsplit=2)[0]: row.split(maxsplit=2)[1:] for row in printed.out.splitlines()}
    assert rows["application"] == ["cli_site:app", "argument"]
    assert rows["bind"] == ["h:80", "argument, environment TERMSERVER_PORT"]
    assert rows["limit-header-count"] == ["7", "file termserver.toml"]
    assert rows["limit-connections"] == ["auto", "default"]
    assert rows["log-level"] == ["warning", "argument"]
    assert printed.out.endswith("The configuration is fine.\n")
    assert printed.err == ""


def test_check_shows_no_password(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TERMSERVER_SSL_KEYFILE_PASSWORD", "swordfish")
    assert main(["check", "cli_site:app"]) == 0
    printed = capsys.readouterr().out
    assert "swordfish" not in printed
    [row] = [line.split() for line in printed.splitlines() if line.startswith("ssl-keyfile-password")]
    assert row == ["ssl-keyfile-password", "***", "environment", "TERMSERVER_SSL_KEYFILE_PASSWORD"]


def test_certificates_and_keys_come_in_pairs(served: list[Config]) -> None:
    config = config_of("cli_site:app --ssl-certfile a.pem --ssl-keyfile a.key --certfile b.pem --keyfile b.key", served)
    assert (config.tls.certificates, config.tls.keys) == (("a.pem", "b.pem"), ("a.key", "b.key"))


def test_check_warns_of_protections_that_are_off(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "cli_site:app", "--limit-header-count", "0"]) == 0
    assert capsys.readouterr().err == "termserver: warning: turned off, although on by default for safety: limits.header_count\n"


@pytest.mark.parametrize(
    ("line", "code", "names"),
    [
        pytest.param("cli_site:make --factory", 0, [], id="factory"),
        pytest.param("check:app", 0, [], id="module called check"),
        pytest.param("cli_site:broken", 3, ["cli_site:broken"], id="no application"),
        pytest.param("no_such_module:app", 3, ["no_such_module"], id="no module"),
        pytest.param("no_such_module:app --backlog 0", 2, ["--backlog", "no_such_module"], id="bad option and no module"),
        pytest.param("--backlog 0", 2, ["application", "--backlog"], id="no application at all"),
    ],
)
def test_check_says_all_that_is_wrong(line: str, code: int, names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *shlex.split(line)]) == code
    printed = capsys.readouterr()
    complaints = printed.err.splitlines()
    assert len(complaints) == len(names)
    assert all(name in complaint for name, complaint in zip(names, complaints, strict=True))
    assert ("fine" in printed.out) is (code == 0)


# --- Help ---


def test_help_names_every_option_and_its_default(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(flag in text for option in OPTIONS for flag in option.flags.split() if flag.startswith("-"))
    assert "%(asctime)-15s" in text
    assert max(map(len, text.splitlines())) <= 110
    assert text == parser().format_help()


def test_help_and_version_need_no_server() -> None:
    """A process of its own: nothing it imports may have been imported here."""
    script = "import sys; from termserver.cli import main; main(['x:y', '-p', 'x']); print([m for m in sys.modules if 'twisted' in m])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_it_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "termserver", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"termserver {termserver.__version__}\n"


# --- Asking a running server ---


@pytest.fixture
def supervised(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """Stand in for the supervisor: what it was told, and what a reload would tell it."""
    configs: list[Config] = []

    def supervise(config: Config, load: Callable[[], Config], *_more: object) -> int:
        configs.extend((config, load()))
        return 7

    module = ModuleType("termserver.process.supervisor")
    module.supervise = supervise  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "termserver.process.supervisor", module)
    return configs


@pytest.mark.parametrize(("line", "count"), [("-w 3 cli_site:app", 3), ("--workers auto cli_site:app", 0), ("--reload cli_site:app", None)])
def test_workers_are_the_supervisors(line: str, count: int | None, supervised: list[Config], served: list[Config]) -> None:
    assert config_of(line, supervised).workers.count == count
    assert supervised[0] == supervised[1]
    assert not served


def test_a_reload_reads_the_file_anew(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def supervise(_config: Config, load: Callable[[], Config], *_more: object) -> int:
        (site / "termserver.toml").write_text("workers = 5\n")
        return load().workers.count or 0

    module = ModuleType("termserver.process.supervisor")
    module.supervise = supervise  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "termserver.process.supervisor", module)
    (site / "termserver.toml").write_text("workers = 2\n")
    assert main(["cli_site:app"]) == 5


@pytest.fixture
def control(site: Path) -> Iterator[list[dict[str, object]]]:
    """A server that says yes; what it was asked."""
    asked: list[dict[str, object]] = []
    listener = listen(site / "control.sock")
    listener.settimeout(20)

    def answer() -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as client:
            client.settimeout(20)
            asked.append(json.loads(client.recv(1_000)))
            facts = {
                "version": "1", "pid": 2, "application": "a:b", "listening": [], "wanted": 1, "state": "starting", "workers": [],
            }  # fmt: skip
            ok = asked[0]["is"] != "scale"
            client.sendall(json.dumps({"is": "x", "done": True, "ok": ok, "text": "it is done" if ok else "no", **facts}).encode() + b"\n")

    thread = threading.Thread(target=answer)
    thread.start()
    yield asked
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as waker:
        waker.connect(str(site / "control.sock"))
    thread.join(20)
    listener.close()


@pytest.mark.parametrize(
    ("line", "asked", "code", "said"),
    [
        pytest.param("reload", {"is": "reload"}, 0, "it is done\n", id="reload"),
        pytest.param("stop --timeout 20", {"is": "stop"}, 0, "it is done\n", id="stop"),
        pytest.param("scale 3", {"is": "scale", "workers": 3}, 1, "termserver: error: no\n", id="scale, refused"),
        pytest.param("healthcheck", {"is": "status"}, 1, "termserver: error: not healthy: starting, 0 workers serve\n", id="healthcheck"),
        pytest.param("status", {"is": "status"}, 0, "termserver 1: a:b, starting (pid 2)\n", id="status"),
        pytest.param("status --json", {"is": "status"}, 0, '{\n  "text": "it is done",\n  "version": "1",\n', id="status for programs"),
    ],
)
def test_a_running_server_is_asked(
    line: str, asked: dict[str, object], code: int, said: str, control: list[dict[str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*line.split(), "--control-socket", "control.sock"]) == code
    printed = capsys.readouterr()
    assert (printed.out + printed.err).startswith(said)
    assert control == [asked]


def test_a_file_names_the_control_socket(site: Path, control: list[dict[str, object]]) -> None:
    (site / "other.toml").write_text('control-socket = "control.sock"\n')
    assert main(["reload", "--config", "other.toml"]) == 0
    assert control == [{"is": "reload"}]


@pytest.mark.parametrize("line", ["scale", "scale many", "reload --nonsense", "status --timeout soon"])
def test_a_question_that_cannot_be_understood_is_a_bad_option(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    assert capsys.readouterr().err.startswith("termserver: error: ")


def test_nobody_to_ask_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reload", "--control-socket", "nowhere.sock"]) == 1
    assert "no server answers at nowhere.sock" in capsys.readouterr().err
