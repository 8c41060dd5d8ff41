"""Who may import whom: the package's imports, read from its syntax trees, held to the layers of the architecture.

`wire` (pure) <- `asgi` (asyncio) <- `net` (Twisted); `process` (neither HTTP nor an event loop) beside them. A module belongs to the rule
of its package, or to one of its own at the top.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import termserver

ROOT = Path(termserver.__file__).parent
STANDARD = sys.stdlib_module_names
PURE = STANDARD - {"asyncio", "logging", "time", "socket", "ssl", "selectors", "select", "threading", "signal", "subprocess", "datetime"}

# Unit -> what of termserver it may import (a whole package, or a module of it), and what of elsewhere.
INSIDE = {
    "__init__": {"config", "net.runner", "process.supervisor", "sources", "systemd"},
    "__main__": {"cli"},
    "errors": set(),
    "config": {"errors"},
    "kinds": {"config", "errors"},
    "options": {"config", "kinds"},
    "sockets": {"config", "errors"},
    "channel": set(),
    "systemd": {"errors"},
    "process": {"__init__", "process", "channel", "systemd", "config", "errors", "sockets", "observe.log"},
    "sources": {"config", "errors", "kinds", "options"},
    "cli": {
        "__init__", "asgi.app", "config", "errors", "kinds", "net.runner", "net.server", "observe", "options", "process", "sources",
        "systemd",
    },
    "wire": {"wire", "errors"},
    "asgi": {"asgi", "wire.events", "wire.handshake", "errors"},
    "observe": {"observe", "config", "errors"},
    "net": {"net", "asgi", "wire", "observe", "config", "errors", "sockets", "channel", "systemd"},
}  # fmt: skip
OUTSIDE = {
    "errors": set(),
    "process": STANDARD | {"watchfiles"},
    "config": STANDARD | {"hyperlink"},
    "wire": PURE | {"httptools", "autobahn", "hpack", "h2"},
    "asgi": STANDARD | {"asgiref"},
    "net": STANDARD | {"twisted", "zope", "uvloop", "cryptography", "h2"},
}


@dataclass
class Import:
    """One imported name."""

    file: Path
    line: int
    target: str  # dotted: module, and the name taken out of it if there is one

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.target}"


def unit_of(file: Path) -> str:
    """Give the package below the top that a file belongs to, or its own name."""
    first = file.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imports_of(file: Path) -> Iterator[Import]:
    """Give every import of a file, wherever in it it stands."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(file, node.lineno, name.name)
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                yield Import(file, node.lineno, f"{'.' * node.level}{node.module or ''}.{name.name}")


FILES = sorted(ROOT.rglob("*.py"))
IMPORTS = [one for file in FILES for one in imports_of(file)]
OWN = [(one, one.target.removeprefix("termserver").removeprefix(".")) for one in IMPORTS if one.target.split(".")[0] == "termserver"]
FOREIGN = [one for one in IMPORTS if one.target.split(".")[0] != "termserver"]


def is_below(name: str, allowed: str) -> bool:
    """Whether a dotted name is, or lies in, a package or module."""
    return name == allowed or name.startswith(allowed + ".")


def test_every_part_of_the_package_has_a_rule() -> None:
    assert {unit_of(file) for file in FILES} == set(INSIDE)


@pytest.mark.parametrize("unit", INSIDE)
def test_imports_inside_follow_the_layers(unit: str) -> None:
    allowed = INSIDE[unit]
    wrong = []
    for one, name in OWN:
        if unit_of(one.file) != unit:
            continue
        module = name if (ROOT / name.split(".")[0]).exists() or (ROOT / f"{name.split('.')[0]}.py").exists() else "__init__"
        if not any(is_below(module, each) for each in allowed):
            wrong.append(str(one))
    assert not wrong


@pytest.mark.parametrize("unit", INSIDE)
def test_imports_from_elsewhere_are_those_of_the_layer(unit: str) -> None:
    allowed = OUTSIDE.get(unit, STANDARD)
    assert not [str(one) for one in FOREIGN if unit_of(one.file) == unit and one.target.split(".")[0] not in allowed]


def test_only_net_imports_twisted() -> None:
    assert {unit_of(one.file) for one in FOREIGN if is_below(one.target, "twisted")} == {"net"}


def test_nobody_imports_cli_but_the_main_module() -> None:
    assert {unit_of(one.file) for one, name in OWN if is_below(name, "cli")} == {"__main__"}


def test_imports_are_absolute() -> None:
    assert not [str(one) for one in IMPORTS if one.target.startswith(".")]


def test_no_private_name_of_another_module_is_imported() -> None:
    assert not [str(one) for one in IMPORTS if any(part.startswith("_") and not part.startswith("__") for part in one.target.split("."))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_private_attribute_of_another_package_is_used(file: Path) -> None:
    """A name with one underscore may be used where the same package (the same module, at the top) gives it to something."""
    package = file.parent.glob("*.py") if file.parent != ROOT else [file]
    own = {name for each in package for name in defined_in(each)}
    tree = ast.parse(file.read_text(encoding="utf-8"))
    used = {(node.attr, node.lineno) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    # os._exit and sys._xoptions are public: they are documented
    assert not [f"{name} in line {line}" for name, line in used if is_private(name) and name not in own | {"_exit", "_xoptions"}]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def defined_in(file: Path) -> Iterator[str]:
    """Give the names that a file defines: functions, classes, attributes assigned to, slots."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.attr if isinstance(node, ast.Attribute) else node.id


def test_the_rules_would_notice(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("import twisted.internet\ndef f():\n    from a.b import c as d, e\n    from . import g\n", encoding="utf-8")
    assert [one.target for one in imports_of(file)] == ["twisted.internet", "a.b.c", "a.b.e", "..g"]
