"""Reads `@pytest.mark.covers(...)` and `@pytest.mark.reason(...)` off the tests, as text: nothing is run."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from tests.source.tree import ROOT


@dataclass(frozen=True)
class Mark:
    """One mark: where it stands, the test that carries it, what it names."""

    path: str
    line: int
    test: str
    arguments: tuple[str, ...]


def marks(kind: str) -> list[Mark]:
    """Every mark of this kind: on functions, classes, in pytestmark, and on parametrised cases (pytest.param(..., marks=...))."""
    found = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        if "covers" not in (text := path.read_text()) and "reason" not in text:
            continue
        found += list(_in_file(ast.parse(text), str(path.relative_to(ROOT)), kind))
    return found


def _in_file(tree: ast.Module, path: str, kind: str) -> Iterator[Mark]:
    owners: dict[ast.AST, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            prefix = owners.get(node, "")
            name = f"{prefix}{node.name}"
            for child in ast.iter_child_nodes(node):
                owners[child] = f"{name}::" if isinstance(node, ast.ClassDef) else prefix
            for decorator in node.decorator_list:
                for inner in ast.walk(decorator):
                    owners[inner] = name
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == f"pytest.mark.{kind}":
            arguments = tuple(a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))
            yield Mark(path, node.lineno, owners.get(node, "").removesuffix("::") or "the whole file", arguments)
