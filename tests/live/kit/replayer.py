"""A stranger at the wire: sends ESP frames that left an interface once more, some at once, some long after."""

import subprocess
import sys
from types import TracebackType

EVERY = 40  # frames between two that are sent again
_PROGRAM = """
import random, signal, socket, sys

class Stop(Exception): pass
def stop(*_): raise Stop
signal.signal(signal.SIGTERM, stop)
dice, kept, seen, sent = random.Random(1), [], 0, 0
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind((sys.argv[1], 0))
print("ready", flush=True)
try:
    while True:
        frame, about = wire.recvfrom(65536)
        if about[2] != socket.PACKET_OUTGOING or frame[12:14] != b"\\x08\\0" or frame[23] != 50:
            continue
        seen += 1
        if len(kept) < 4096:
            kept.append(frame)
        else:
            kept[seen % 4096] = frame
        if seen % int(sys.argv[2]) == 0:
            wire.send(dice.choice((frame, dice.choice(kept))))
            sent += 1
except Stop:
    print(sent, flush=True)
"""


class Replayer:
    """`with Replayer(host, interface)`: it is at work when the block begins. `sent`: how many frames it sent, known at its end."""

    def __init__(self, host: str, interface: str) -> None:
        self._words = ["ip", "netns", "exec", host, sys.executable, "-c", _PROGRAM, interface, str(EVERY)]
        self.sent = 0

    def __enter__(self) -> "Replayer":
        self._process = process = subprocess.Popen(self._words, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._process.terminate()
        said = self._process.communicate(timeout=60)[0]
        self.sent = int(said)
