"""No circles: what a module imports, inside its functions too, never imports that module."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _imports(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import below a node, but those that only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from _imports(child)


def graph(top: Path) -> dict[str, set[str]]:
    """Return {module: modules of the same package that it imports} of the package whose folder is `top`."""
    files = {}
    for file in top.rglob("*.py"):
        parts = file.relative_to(top.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    found: dict[str, set[str]] = {}
    for module, file in files.items():
        package = module.split(".")[: None if file.name == "__init__.py" else -1]
        names: set[str] = set()
        for statement in _imports(ast.parse(file.read_text())):
            if isinstance(statement, ast.Import):
                names |= {alias.name for alias in statement.names}
                continue
            base = package[: len(package) + 1 - statement.level] if statement.level else []
            source = ".".join([*base, *([statement.module] if statement.module else [])])
            for alias in statement.names:
                inner = f"{source}.{alias.name}"
                names.add(inner if inner in files else source)
        found[module] = names & files.keys() - {module}
    return found


@pytest.mark.parametrize("package", ["src/python/rvc_fast", "benchmarks", "training"])
def test_there_is_no_circle(package: str) -> None:
    imports = graph(ROOT / package)
    assert any(imports.values())
    graphlib.TopologicalSorter(imports).prepare()  # CycleError names the modules


def test_a_circle_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "a.py").write_text("def f():\n    from . import b\n")
    (folder / "b.py").write_text("from .a import f\n")
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(graph(folder)).prepare()
