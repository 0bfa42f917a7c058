"""Programs under `koura run`: how tests start them, and what they are made of."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from tests.live.kit.engine import Engine

PATIENCE_S = 60.0

# What every Python test program may use. `ask`: a request and its reply as iked has it: one millisecond of patience.
PRELUDE = """
import ctypes, errno, fcntl, os, select, signal, socket, struct, sys, threading, time
AF_KEY = 15
libc = ctypes.CDLL(None, use_errno=True)
def key(flags=0): return socket.socket(AF_KEY, socket.SOCK_RAW | flags, 2)
def request(kind, satype=3, seq=1): return struct.pack("<BBBBHHII", 2, kind, 0, satype, 2, 0, seq, os.getpid())
def ask(s, octets):
    os.write(s.fileno(), octets)
    p = select.poll(); p.register(s.fileno(), select.POLLIN)
    assert p.poll(1), "no reply from PF_KEY"
    return os.read(s.fileno(), 65536)
def policy(direction, kind=4): return struct.pack("<HHHBxII", 2, 18, kind, direction, 0, 0)
def cookie(s): return int.from_bytes(s.getsockopt(1, 57, 8), "little")
def step(*words): print(*words, flush=True); sys.stdin.readline()
def refused(call, *args):
    try: call(*args)
    except OSError as error: return errno.errorcode[error.errno]
    return "done"
IP, IPV6, UDP = (0, 16), (41, 34), (17, 100)
"""


def command(directory: Path, *program: str) -> list[str]:
    """`koura run` of a program against the engine of a directory."""
    return [sys.executable, "-m", "koura", "run", "--socket", str(directory), "--", *program]


def python(text: str) -> list[str]:
    """A Python program with the prelude."""
    return [sys.executable, "-c", PRELUDE + text]


def run(engine: Engine, program: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Runs it to its end; its output as text."""
    return ended(command(engine.directory, *program))


def ended(words: Sequence[str], **environment: str) -> "subprocess.CompletedProcess[str]":
    """A command, run to its end."""
    return subprocess.run(
        words, capture_output=True, text=True, timeout=PATIENCE_S, check=False, stdin=subprocess.DEVNULL, env=os.environ | environment
    )


def output(engine: Engine, text: str) -> list[str]:
    """The lines that a Python program printed; it must end well and say nothing else."""
    program = run(engine, python(text))
    assert program.returncode == 0, f"{program.returncode}: {program.stderr}"
    assert program.stderr == ""
    return program.stdout.splitlines()


def until(is_so: Callable[[], bool], what_happened: Callable[[], str]) -> None:
    """Wait for it. Raises AssertionError with what happened when that takes too long."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, what_happened()
        time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    """The pids of a process and of all that came of it, parents first."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/stat") as file:
                parents.setdefault(int(file.read().rpartition(")")[2].split()[1]), []).append(int(entry))
        except (OSError, ValueError):
            continue
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


@cache
def why_not() -> str:
    """Why this machine cannot run a program under interception; "" if it can."""
    from koura.intercept.kernel import Unavailable
    from koura.intercept.launch import launch
    from koura.intercept.signals import Signals

    signals = Signals()
    try:
        launched = launch(["true"], os.environ, signals)
    except Unavailable as error:
        return str(error)
    finally:
        signals.close()
    os.waitpid(launched.pid, 0)
    os.close(launched.listener)
    return ""



class Stepped:
    """A Python program that goes on by one line of its standard input; `step` gives the line that it prints then."""

    def __init__(self, engine: Engine, text: str) -> None:
        self.process = subprocess.Popen(
            command(engine.directory, *python(text)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> "Stepped":
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait(PATIENCE_S)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def step(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.line()
