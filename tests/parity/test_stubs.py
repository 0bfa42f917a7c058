"""What the `.pyi` files say of the extensions is what they have."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

import koura.fast
from tests.parity.kit import needs_fast

pytestmark = needs_fast
ROOM = Path(koura.fast.__file__).parent


@pytest.mark.parametrize("stub", sorted(ROOM.glob("*.pyi")), ids=lambda stub: stub.stem)
def test_a_stub_names_what_is_there(stub: Path) -> None:
    try:
        module = import_module(f"koura.fast.{stub.stem}")
    except ImportError as fault:
        pytest.skip(f"not built here: {fault}")
    tree = ast.parse(stub.read_text())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            assert callable(getattr(module, node.name))
        if isinstance(node, ast.ClassDef):
            theirs = {name for name in vars(getattr(module, node.name)) if not name.startswith("_")}
            fields = {item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)}
            ours = fields | {item.name for item in node.body if isinstance(item, ast.FunctionDef) and not item.name.startswith("_")}
            assert ours == theirs
