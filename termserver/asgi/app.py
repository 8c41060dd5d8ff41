"""`module:attribute` -> an ASGI 3 application."""

import importlib
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

from asgiref.compatibility import guarantee_single_callable

from termserver.asgi.scope import Scope
from termserver.errors import ApplicationLoadError

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def load_application(spec: str, *, factory: bool = False, app_dir: str = ".") -> Application:
    """Import `module:attribute.path`, ASGI 3 or 2; with `factory`, call what it names. Raises `ApplicationLoadError`, in one line."""
    module_name, colon, attributes = spec.partition(":")
    if not colon or not module_name or not attributes:
        message = f"application {spec!r} is not of the form 'module:attribute', as in 'myproject.asgi:application'"
        raise ApplicationLoadError(message)
    directory = str(Path(app_dir).resolve())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    target = _import(module_name, spec)
    for name in attributes.split("."):
        try:
            target = getattr(target, name)
        except AttributeError:
            message = f"application {spec!r}: {module_name!r} has no attribute {attributes!r}"
            raise ApplicationLoadError(message) from None
    return as_application(target, spec, factory=factory)


def as_application(target: object, spec: str, *, factory: bool = False) -> Application:
    """Make an ASGI 3 application of an object. Raises `ApplicationLoadError`."""
    if factory:
        if not callable(target):
            message = f"application {spec!r}: the factory is not callable"
            raise ApplicationLoadError(message)
        try:
            target = target()
        except Exception as error:
            message = f"application {spec!r}: the factory raised {_in_one_line(error)}"
            raise ApplicationLoadError(message) from error
    if not callable(target):
        message = f"application {spec!r} is not callable: {type(target).__name__}"
        raise ApplicationLoadError(message)
    return cast("Application", guarantee_single_callable(target))


def _import(module_name: str, spec: str) -> object:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            message = f"application {spec!r}: there is no module {error.name!r}"
        else:
            message = f"application {spec!r}: importing {module_name!r} failed: {_in_one_line(error)}"
        raise ApplicationLoadError(message) from error
    except Exception as error:
        message = f"application {spec!r}: importing {module_name!r} raised {_in_one_line(error)}"
        raise ApplicationLoadError(message) from error


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
