"""Where an engine is found: the directory of its sockets. docs/architecture.md §7."""

import os
from pathlib import Path

PFKEY, CONTROL, STATUS = "pfkey.sock", "control.sock", "status.sock"
VARIABLE = "KOURA_SOCKET"


def directory(given: str | os.PathLike[str] | None = None) -> Path:
    """What was given, else $KOURA_SOCKET, else /run/koura for root and $XDG_RUNTIME_DIR/koura for others."""
    chosen = given or os.environ.get(VARIABLE)
    return Path(chosen) if chosen else usual()


def usual() -> Path:
    """Where it is when nobody says."""
    if os.geteuid() == 0:
        return Path("/run/koura")
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}") / "koura"
