"""The examples of docs/python.md and of the modules' own docstrings run as they stand."""

import doctest
from pathlib import Path

import pytest

import koura.sim.node
import koura.stack.core

PAGE = Path(__file__).resolve().parents[3] / "docs" / "python.md"


def test_the_page_about_python_is_true() -> None:
    result = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert result.attempted > 30
    assert result.failed == 0


@pytest.mark.parametrize("module", [koura.sim.node, koura.stack.core])
def test_docstrings_are_true(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted > 0
    assert result.failed == 0
