"""What makes the image: its instructions and the example's services. And what a server has to do as a container's first process.

No Docker engine is needed: the files are read, and PID 1 is what `unshare` makes it.
"""

import contextlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.server import HERE, Server, wait_until
from termserver.config import Config

Tool = Callable[[str], str]
ROOT = HERE.parents[1]
NUMBERS = re.compile(r"[1-9]\d{3,}:[1-9]\d{3,}")  # no user of the system's


def package(name: str) -> Any:
    """Give a package that reads such files; without it the test is skipped, and fails where everything has to be there (CI=true)."""
    try:
        return importlib.import_module(name)
    except ImportError:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed")


# --- the image ---


class Image:
    """The stages of a Dockerfile, each with the instructions of those it is built upon."""

    def __init__(self, path: Path) -> None:
        self.bases: list[str] = []
        self.names: list[str] = []
        self.stages: list[list[tuple[str, str]]] = []
        self.arguments: dict[str, str] = {}
        with path.open("rb") as file:
            for said in package("dockerfile_parse").DockerfileParser(fileobj=file).structure:
                self._take(said["instruction"], said["value"])

    def _take(self, instruction: str, value: str) -> None:
        if instruction == "FROM":
            base, _, name = value.partition(" AS ")
            self.bases.append(base)
            self.names.append(name)
            self.stages.append(list(self.stages[self.names.index(base)]) if base in self.names[:-1] else [])
        elif not self.stages:
            self.arguments |= dict([value.split("=")]) if instruction == "ARG" else {}
        elif instruction != "COMMENT":
            self.stages[-1].append((instruction, value))

    def values(self, instruction: str, stage: int = -1) -> list[str]:
        return [value for each, value in self.stages[stage] if each == instruction]

    def environment(self, stage: int = -1) -> dict[str, str]:
        return dict(word.split("=", 1) for value in self.values("ENV", stage) for word in value.split())


@pytest.fixture(scope="module")
def image() -> Image:
    return Image(ROOT / "Dockerfile")


@pytest.fixture(params=["the server", "the example"])
def stage(request: pytest.FixtureRequest, image: Image) -> int:
    return len(image.names) - 1 if request.param == "the server" else image.names.index("chat")


def test_every_base_has_a_version(image: Image) -> None:
    outside = [base for place, base in enumerate(image.bases) if base not in image.names[:place]]
    assert outside != []
    for base in outside:
        tag = re.sub(r"\$\{(\w+)\}", lambda found: image.arguments[found[1]], base).partition(":")[2]
        assert re.match(r"\d+\.\d+", tag), base


def test_the_server_itself_is_the_first_process(image: Image, stage: int) -> None:
    assert json.loads(image.values("ENTRYPOINT", stage)[-1]) == ["termserver"]
    assert all(json.loads(value) for value in image.values("CMD", stage))
    assert image.values("STOPSIGNAL", stage) == ["SIGTERM"]


def test_the_user_is_nobody_of_the_system_s(image: Image, stage: int) -> None:
    assert NUMBERS.fullmatch(image.values("USER", stage)[-1])
    assert "compileall" not in str(image.values("RUN", -1))  # nothing is made as that user, or at run time
    assert image.environment(stage)["PYTHONDONTWRITEBYTECODE"] == "1"


def test_the_image_has_no_tools_of_the_build_s(image: Image, stage: int) -> None:
    assert [value for value in image.values("RUN", stage) if "pip" in value] == []
    assert any(value.startswith("--from=") and value.endswith("/opt/venv /opt/venv") for value in image.values("COPY", stage))


def test_its_port_is_the_one_that_is_served(image: Image, stage: int) -> None:
    port = image.values("EXPOSE", stage)[-1]
    assert int(port) > 1_024
    assert image.environment(stage)["TERMSERVER_BIND"] == f"0.0.0.0:{port}"


def test_what_it_copies_is_there_and_not_ignored(image: Image) -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copies = {value for stage in image.stages for instruction, value in stage if instruction == "COPY" and "--from" not in value}
    sources = {source.removeprefix("./") for value in copies for source in value.split()[:-1]}
    assert sources != set()
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(source == each or source.startswith(f"{each}/") for each in let_in), source
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()


def test_a_container_s_health_is_asked_for_as_the_image_does(image: Image, stage: int, tmp_path: Path) -> None:
    flags, _, command = image.values("HEALTHCHECK", stage)[-1].partition(" CMD ")
    words = json.loads(command)
    assert words[:2] == ["termserver", "healthcheck"]
    assert float(words[words.index("--timeout") + 1]) < float(re.search(r"--timeout=(\d+)s", flags)[1])  # type: ignore[index]
    environment = {name: value for name, value in image.environment(stage).items() if name.startswith(("TERMSERVER_", "PYTHON"))}
    environment |= {"TERMSERVER_BIND": "127.0.0.1:0", "XDG_RUNTIME_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "termserver", "deployed_apps:app"]

    def healthy() -> bool:
        asked = [sys.executable, "-m", *words]
        return subprocess.run(asked, capture_output=True, timeout=60, cwd=HERE, env={**os.environ, **environment}).returncode == 0

    assert not healthy()
    with Server(command=command, environment=environment) as server:
        wait_until(healthy, "health")
        assert server.stop() == 0
    assert not healthy()


# --- the example's services ---


@pytest.fixture
def services() -> dict[str, Any]:
    return dict(package("yaml").safe_load((ROOT / "examples" / "chat" / "compose.yaml").read_text())["services"])


def test_compose_takes_the_file(tool: Tool) -> None:
    words = [tool("docker-compose"), "--file", str(ROOT / "examples" / "chat" / "compose.yaml"), "config", "--quiet"]
    found = subprocess.run(words, capture_output=True, text=True, timeout=60, env={**os.environ, "CHAT_SECRET_KEY": "x"})
    assert (found.returncode, found.stderr) == (0, "")
    environment = {name: value for name, value in os.environ.items() if name != "CHAT_SECRET_KEY"}
    assert subprocess.run(words, capture_output=True, timeout=60, env=environment).returncode != 0


def test_every_service_is_locked_down(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert (service["read_only"], service["cap_drop"], service["security_opt"]) == (True, ["ALL"], ["no-new-privileges:true"]), name
        assert service["pids_limit"] > 0
        assert "privileged" not in service
        assert not service["image"].endswith(":latest")
        assert ":" in service["image"]


def test_the_example_has_time_to_stop_and_a_place_for_its_socket(services: dict[str, Any]) -> None:
    chat = services["chat"]
    assert int(chat["stop_grace_period"].removesuffix("s")) > Config().timeouts.graceful + 5
    assert [place.partition(":")[0] for place in chat["tmpfs"]] == ["/tmp"]  # noqa: S108 - the container's own
    assert all(port.startswith("127.0.0.1:") for port in chat["ports"])
    assert set(chat["depends_on"]) <= set(services)


def test_the_example_s_files_go_where_they_may_be_written(services: dict[str, Any], image: Image) -> None:
    environment = image.environment(image.names.index("chat")) | services["chat"]["environment"]
    places = [volume.partition(":")[2] for volume in services["chat"]["volumes"]] + ["/tmp"]  # noqa: S108 - the container's own
    for name in ("CHAT_DATABASE", "CHAT_UPLOADS"):
        assert any(environment[name].startswith(f"{place}/") for place in places), name


# --- Kubernetes ---


def test_pods_have_time_to_stop_and_may_do_nothing_else() -> None:
    documents = {
        each["kind"]: each for each in package("yaml").safe_load_all((ROOT / "deploy" / "kubernetes" / "termserver.yaml").read_text())
    }
    pod = documents["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert pod["terminationGracePeriodSeconds"] >= pause + Config().timeouts.graceful + 5
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert NUMBERS.fullmatch(f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}")
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert pod["enableServiceLinks"] is False
    labels = documents["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert documents["Service"]["spec"]["selector"] == documents["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    for name in ("livenessProbe", "startupProbe"):
        probe = container[name]
        assert probe["exec"]["command"][:2] == ["termserver", "healthcheck"]
        assert probe["timeoutSeconds"] > float(probe["exec"]["command"][-1])


# --- the first process ---


@contextlib.contextmanager
def first_process(tool: Tool, *options: str) -> Iterator[tuple[Server, int]]:
    """A server that is process 1 of a namespace of its own, and its number here."""
    isolate = [tool("unshare"), *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--pid", "--fork", "--mount-proc"]
    tried = subprocess.run([*isolate, "true"], capture_output=True, text=True, timeout=60)
    if tried.returncode != 0:
        pytest.skip(f"no namespaces here: {tried.stderr.strip()}")
    words = Server.words("deployed_apps:app", "--bind", "127.0.0.1:0", *options)
    with Server(command=[*isolate, "--kill-child", "--", *words]) as server:
        (first,) = children(server.pid)
        yield server, first


@pytest.fixture
def control(tmp_path: Path) -> str:
    return str(tmp_path / "control")


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def number_inside(pid: int) -> int:
    """Give a process's number in its own namespace."""
    return int(re.search(r"(?m)^NSpid:.*\s(\d+)$", Path(f"/proc/{pid}/status").read_text())[1])  # type: ignore[index]


def adopted(server: Server, first: int, code: int) -> int:
    """Have the application make an orphan; give its number here, once it is a child of process 1."""
    number = server.ask(f"/orphan?{code}")
    found = [child for child in children(first) if number_inside(child) == number]
    assert len(found) == 1, (number, children(first))
    return found[0]


def test_the_first_process_is_the_supervisor(tool: Tool, control: str) -> None:
    with first_process(tool, "--workers", "2", "--control-socket", control) as (server, first):
        assert number_inside(first) == 1
        assert server.ask("/")["parent"] == 1
        os.kill(first, signal.SIGTERM)
        assert server.wait() == 0


@pytest.mark.parametrize("code", [0, 1, 3, 4])
def test_orphans_are_reaped_and_their_exit_codes_mean_nothing(tool: Tool, control: str, code: int) -> None:
    with first_process(tool, "--workers", "1", "--control-socket", control) as (server, first):
        worker = server.ask("/")["pid"]
        for _ in range(3):
            orphan = adopted(server, first, code)
            os.kill(orphan, signal.SIGTERM)
            wait_until(lambda orphan=orphan: orphan not in children(first), "the orphan's end")
        assert server.ask("/")["pid"] == worker
        assert len(children(first)) == 1
        assert server.log.count("has ended") == 0
        os.kill(first, signal.SIGTERM)
        assert server.wait() == 0


def test_strangers_do_not_keep_the_first_process_from_its_end(tool: Tool, control: str) -> None:
    with first_process(tool, "--workers", "1", "--control-socket", control) as (server, first):
        adopted(server, first, 0)
        os.kill(first, signal.SIGTERM)
        assert server.wait() == 0


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one process", "two workers"])
def test_sigterm_lets_the_first_process_finish_what_runs(tool: Tool, control: str, workers: tuple[str, ...]) -> None:
    with first_process(tool, "--control-socket", control, *workers) as (server, first), server.connect() as client:
        client.send(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
        client.read_until(b"100 Continue\r\n\r\n")
        os.kill(first, signal.SIGTERM)
        server.wait_line("finishing what runs")
        client.send(b"0123456789")
        assert client.response().body == b"10"
        assert server.wait() == 0


def test_the_first_process_ends_when_it_is_asked_to(tool: Tool, control: str) -> None:
    with first_process(tool, "--workers", "1", "--control-socket", control) as (server, _):
        words = [sys.executable, "-m", "termserver", "stop", "--control-socket", control]
        assert subprocess.run(words, timeout=60, capture_output=True, cwd=HERE).returncode == 0
        assert server.wait() == 0


def test_a_second_sigterm_ends_the_first_process_at_once(tool: Tool, control: str) -> None:
    with first_process(tool, "--workers", "1", "--control-socket", control) as (server, first), server.connect() as client:
        client.get("/tell")
        client.read_until(b"data: first\n\n")
        os.kill(first, signal.SIGTERM)
        server.wait_line("finishing what runs")
        os.kill(first, signal.SIGTERM)
        assert server.wait() == 128 + signal.SIGTERM
