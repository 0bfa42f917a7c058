"""A TCP stream between two namespaces that goes on, unhurried, until it is told to end; then both ends say what its octets came to.

with Stream(hosts, near, far) as stream: ...
assert stream.sent == stream.received
"""

import subprocess
import sys
from contextlib import ExitStack
from types import TracebackType

PATIENCE_S = 60
_SERVER = """
import hashlib, socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.create_server((sys.argv[1], 7777), family=family) as listener:
    print("ready", flush=True)
    made, _ = listener.accept()
    digest = hashlib.sha256()
    while part := made.recv(1 << 18):
        digest.update(part)
    print(digest.hexdigest(), flush=True)
"""
_CLIENT = """
import hashlib, random, select, socket, sys
dice, digest, octets = random.Random(7), hashlib.sha256(), 0
with socket.create_connection((sys.argv[1], 7777), 60, (sys.argv[2], 0)) as made:
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0.001)[0]:
        part = dice.randbytes(dice.choice((100, 1400, 9000, 65536)))
        made.sendall(part)
        digest.update(part)
        octets += len(part)
print(digest.hexdigest(), octets, flush=True)
"""


class Stream:
    """`with` begins and ends it. `octets`: how many there were."""

    def __init__(self, hosts: tuple[str, str], near: str, far: str) -> None:
        self._hosts, self._near, self._far = hosts, near, far
        self._programs: list[subprocess.Popen[str]] = []
        self._undo = ExitStack()
        self.sent = self.received = ""
        self.octets = 0

    def __enter__(self) -> "Stream":
        with ExitStack() as undo:
            for host, *words in ((self._hosts[1], _SERVER, self._far), (self._hosts[0], _CLIENT, self._far, self._near)):
                line = ["ip", "netns", "exec", host, sys.executable, "-c", *words]
                program = undo.enter_context(subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
                undo.callback(program.kill)
                assert program.stdout is not None
                assert program.stdout.readline() == "ready\n"
                self._programs.append(program)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        with self._undo:
            if kind is None:
                server, client = self._programs
                said, _ = client.communicate("end\n", timeout=PATIENCE_S)
                self.sent, octets = said.split()
                self.octets = int(octets)
                self.received = server.communicate(timeout=PATIENCE_S)[0].strip()
