"""`module:attribute` -> application; every way in which that fails, in one line."""

import pathlib
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from fakes import Message, Receive, Send, Talk, body, in_loop, start
from termserver.asgi.app import as_application, load_application
from termserver.errors import ApplicationLoadError

MODULES = {
    "good.py": """
        async def application(scope, receive, send):
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"good"})
        class Site:
            application = application
        def make():
            return application
        def broken():
            raise RuntimeError("no\\n  database")
        def nothing():
            return None
        number = 5
    """,
    "package/__init__.py": "",
    "package/asgi.py": "async def application(scope, receive, send): pass",
    "imports_missing.py": "import certainly_not_installed",
    "imports_missing_child.py": "import package.missing",
    "fails.py": "raise ValueError('first\\nsecond')",
    "syntax.py": "def",
    "exits.py": "raise SystemExit('bye')",
}


@pytest.fixture
def app_dir(tmp_path: pathlib.Path) -> Iterator[str]:
    for name, text in MODULES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        lines = text.splitlines()
        path.write_text("\n".join(line.removeprefix(" " * 8) for line in lines) + "\n", encoding="utf-8")
    before = set(sys.modules), sys.path.copy()
    yield str(tmp_path)
    for name in set(sys.modules) - before[0]:
        del sys.modules[name]
    sys.path[:] = before[1]


@pytest.mark.parametrize("spec", ["good:application", "good:Site.application"])
@in_loop
async def test_a_name_or_a_dotted_path_in_a_module(app_dir: str, spec: str) -> None:
    assert (await Talk().run(load_application(spec, app_dir=app_dir))).body == b"good"


def test_a_module_in_a_package(app_dir: str) -> None:
    assert callable(load_application("package.asgi:application", app_dir=app_dir))


def test_the_directory_is_put_in_front_once(app_dir: str) -> None:
    load_application("good:application", app_dir=app_dir)
    load_application("good:application", app_dir=app_dir)
    resolved = str(pathlib.Path(app_dir).resolve())
    assert sys.path[0] == resolved
    assert sys.path.count(resolved) == 1


@in_loop
async def test_a_factory_is_called(app_dir: str) -> None:
    assert (await Talk().run(load_application("good:make", factory=True, app_dir=app_dir))).body == b"good"


@pytest.mark.parametrize(
    ("spec", "factory", "complaint"),
    [
        pytest.param("good", False, "'module:attribute'", id="no colon"),
        pytest.param(":application", False, "'module:attribute'", id="no module"),
        pytest.param("good:", False, "'module:attribute'", id="no attribute"),
        pytest.param("", False, "'module:attribute'", id="nothing"),
        pytest.param("missing:application", False, "no module 'missing'", id="no such module"),
        pytest.param("missing.asgi:application", False, "no module 'missing'", id="no such package"),
        pytest.param("package.missing:application", False, "no module 'package.missing'", id="no such module in a package"),
        pytest.param("good.asgi:application", False, "no module 'good.asgi'", id="a module that is no package"),
        pytest.param(".good:application", False, "raised TypeError", id="relative"),
        pytest.param("good:app", False, "has no attribute 'app'", id="no such attribute"),
        pytest.param("good:Site.app", False, "has no attribute 'Site.app'", id="no such attribute of an attribute"),
        pytest.param("good:application:x", False, "has no attribute", id="two colons"),
        pytest.param("good:number", False, "not callable: int", id="no application"),
        pytest.param("imports_missing:application", False, "No module named 'certainly_not_installed'", id="imports what is missing"),
        pytest.param("imports_missing_child:application", False, "No module named 'package.missing'", id="imports what a package lacks"),
        pytest.param("fails:application", False, "raised ValueError: first second", id="raises at import, in two lines"),
        pytest.param("syntax:application", False, "raised SyntaxError", id="syntax error"),
        pytest.param("good:number", True, "factory is not callable", id="no factory"),
        pytest.param("good:broken", True, "factory raised RuntimeError: no database", id="factory raises, in two lines"),
        pytest.param("good:nothing", True, "not callable: NoneType", id="factory gives nothing"),
    ],
)
def test_every_failure_is_one_line(app_dir: str, spec: str, factory: bool, complaint: str) -> None:
    with pytest.raises(ApplicationLoadError) as raised:
        load_application(spec, factory=factory, app_dir=app_dir)
    message = str(raised.value)
    assert complaint in message
    assert repr(spec) in message
    assert "\n" not in message


def test_a_module_that_wants_to_exit_does(app_dir: str) -> None:
    with pytest.raises(SystemExit, match="bye"):
        load_application("exits:application", app_dir=app_dir)


# ---------------------------------------------------------------------- kinds of applications (A1, A5)


async def function(scope: Message, receive: Receive, send: Send) -> None:
    await send(start())
    await send(body(b"here"))


class Instance:
    """An object with __call__."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        await function(scope, receive, send)


class Method:
    """An object with a method."""

    async def serve(self, scope: Message, receive: Receive, send: Send) -> None:
        await function(scope, receive, send)


class DoubleClass:
    """An ASGI 2 class."""

    def __init__(self, scope: Message) -> None:
        self.scope = scope

    async def __call__(self, receive: Receive, send: Send) -> None:
        await function(self.scope, receive, send)


def double_function(scope: Message) -> Callable[[Receive, Send], Awaitable[None]]:
    async def instance(receive: Receive, send: Send) -> None:
        await function(scope, receive, send)

    return instance


@pytest.mark.parametrize(
    "app", [function, Instance(), Method().serve, DoubleClass, double_function], ids=lambda app: getattr(app, "__name__", "object")
)
@in_loop
async def test_a5_single_and_double_callables(app: Any) -> None:
    assert (await Talk().run(as_application(app, "x:y"))).body == b"here"


def test_a1_an_asgi_3_application_is_called_as_it_is() -> None:
    assert as_application(function, "x:y") is function


@in_loop
async def test_a5_a_factory_may_give_a_double_callable() -> None:
    assert (await Talk().run(as_application(lambda: DoubleClass, "x:y", factory=True))).body == b"here"
