"""Rooms import only downwards, and the core touches nothing. docs/architecture.md §2, §4 "Sans-IO core"."""

import pytest

from tests.source.tree import RANK_0_ORDER, RANKS, Module, modules

MODULES = [module for module in modules() if module.name != "__init__"]
CORE_RANK = 6
BANNED_IN_THE_CORE = {
    "socket", "select", "selectors", "asyncio", "threading", "multiprocessing", "subprocess", "time", "random", "secrets", "os",
    "logging", "signal", "datetime", "uuid", "tempfile", "shutil", "pathlib", "io", "urllib", "http", "pyroute2", "click", "rich",
}  # fmt: skip


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_a_room_imports_only_from_lower_ranks(module: Module) -> None:
    assert module.room in RANKS, f"{module.path}: no rank for room {module.room}"
    rank = RANKS[module.room]
    for imported, line in module.imports():
        if not imported.startswith("koura."):
            continue
        room = imported.split(".")[1]
        if room == module.room or room.startswith("__"):
            continue
        if rank == 0:
            assert RANK_0_ORDER.index(room) < RANK_0_ORDER.index(module.room), f"{module.path}:{line}: rank 0 in a circle"
            continue
        assert RANKS[room] < rank, f"{module.path}:{line}: {module.room} (rank {rank}) imports {room} (rank {RANKS[room]})"


@pytest.mark.parametrize("module", [m for m in MODULES if RANKS.get(m.room, 99) <= CORE_RANK], ids=lambda module: module.name)
def test_the_core_has_no_clock_no_dice_no_socket(module: Module) -> None:
    for imported, line in module.imports():
        assert imported.split(".")[0] not in BANNED_IN_THE_CORE, f"{module.path}:{line}: the core imports {imported}"


@pytest.mark.parametrize("module", [m for m in MODULES if RANKS.get(m.room, 99) <= CORE_RANK], ids=lambda module: module.name)
def test_the_core_opens_no_file(module: Module) -> None:
    import ast

    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            banned = {"open", "print", "input", "eval", "exec"} - ({"exec"} if module.name == "quick" else set())  # It writes __init__s.
            assert node.func.id not in banned, f"{module.path}:{node.lineno}: {node.func.id}()"
