"""What a test needs of the machine it runs on: other users, a loopback."""

import os
import socket
import subprocess
import sys
from pathlib import Path

NOBODY = 65534


def why_no_others() -> str:
    """Why a process here cannot become another user; "" if it can."""
    if os.geteuid() != 0:
        return "becoming another user needs root"
    ranges = [tuple(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    if any(first <= NOBODY < first + count for first, _, count in ranges):
        return ""
    return "this user namespace has one user only"


def why_no_dropping() -> str:
    """Why daemons that give up root cannot do so here; "" if they can, or are told that they have (tools/in_namespace.py)."""
    code = "import os; os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)"
    tried = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"daemons cannot give up root here: {tried.stderr.strip().splitlines()[-1]}"


def why_no_loopback() -> str:
    """Why nothing can be bound to the loopback; "" if it can."""
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as end:
                end.bind((address, 0))
                end.connect((address, 9))
        except OSError as error:
            return f"no loopback here: {address}: {error.strerror}"
    return ""
