"""What the source tests look at: every module of the package, its room and its imports, read as text."""

import ast
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "koura"

# docs/architecture.md §2: a room imports only from strictly lower ranks.
RANKS = {
    "quick": 0, "reasons": 0, "errors": 0, "address": 0, "saindex": 0, "secret": 0, "moment": 0, "entropy": 0, "settings": 0, "slices": 0,
    "wire": 1, "crypto": 1, "stats": 1,
    "sadb": 2, "spd": 2,
    "xform": 3, "enc": 3, "notices": 3,
    "traffic": 4, "pfkey": 4, "xfrm": 4, "sysctl": 4,
    "stack": 5, "setkey": 5, "attachment": 5, "control": 5,
    "explain": 6, "fast": 6,
    "client": 7, "host": 7, "sim": 7, "replay": 7,
    "intercept": 8, "ipsec": 8,
    "daemon": 9, "tui": 9, "testing": 9,
    "cli": 10, "__main__": 11,
}  # fmt: skip

# Inside rank 0 these lean on one another; everything else at rank 0 stands alone.
RANK_0_ORDER = ("quick", "slices", "errors", "reasons", "moment", "entropy", "secret", "address", "saindex", "settings")


@dataclass(frozen=True)
class Module:
    """One file: its path, its dotted name below `koura`, its syntax tree."""

    path: Path
    name: str
    tree: ast.Module

    @property
    def room(self) -> str:
        return self.name.split(".")[0]

    def imports(self) -> list[tuple[str, int]]:
        """(dotted module, line) of every import, wherever it stands."""
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [(alias.name, node.lineno) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.path}:{node.lineno}: relative imports hide the room"
                assert node.module is not None
                found.append((node.module, node.lineno))
                if node.module == "koura":
                    found += [(f"koura.{alias.name}", node.lineno) for alias in node.names]
        return found


def modules() -> list[Module]:
    """Every module of the package, in path order."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found.append(Module(path, name.removesuffix(".__init__"), ast.parse(path.read_text())))
    return found
