"""The RFC vectors as values."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@lru_cache(maxsize=16)
def table(name: str) -> dict[str, Any]:
    """One file."""
    found: dict[str, Any] = json.loads((HERE / name).read_text())
    return found


def cases(name: str, algorithm: str) -> list[dict[str, Any]]:
    """The cases of one algorithm of a file."""
    found: list[dict[str, Any]] = table(name)[algorithm]["cases"]
    return found
