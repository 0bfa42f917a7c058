"""The countable half of the style: sizes, handlers that swallow, what docstrings owe."""

import ast

import pytest

from tests.source.tree import Module, modules

MODULES = modules()
FILE_LINES = 450  # "about 400"
FUNCTION_LINES = 70


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_files_stay_small(module: Module) -> None:
    lines = len(module.path.read_text().splitlines())
    assert lines <= FILE_LINES, f"{module.path}: {lines} lines; split it by idea"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_functions_fit_on_a_screen(module: Module) -> None:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= FUNCTION_LINES, f"{module.path}:{node.lineno}: {node.name} has {length} lines"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_every_module_says_what_it_is(module: Module) -> None:
    if module.path.name == "__init__.py" and not module.tree.body:
        return
    assert ast.get_docstring(module.tree), f"{module.path}: no docstring"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_no_handler_swallows(module: Module) -> None:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{module.path}:{node.lineno}: a bare except"
            assert not (isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}), f"{module.path}:{node.lineno}"
