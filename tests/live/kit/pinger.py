"""Pings at a steady pace until told to stop; then every answer that is still on its way is waited for. ping(8) cannot: what is on its way
when it ends counts as lost there."""

import subprocess
import sys
from dataclasses import dataclass

from tests.live.kit.programs import PATIENCE_S

_PROGRAM = """
import os, select, socket, struct, sys, time
target, interval = sys.argv[1], float(sys.argv[2])
is_v6 = ":" in target
wire = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET, socket.SOCK_RAW, 58 if is_v6 else 1)
wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
name = os.getpid() & 0xFFFF
asks, answers = (128, 129) if is_v6 else (8, 0)

def echo(number):
    head = struct.pack("!BBHHH", asks, 0, 0, name, number & 0xFFFF) + struct.pack("!I", number) + bytes(48)
    if is_v6:
        return head
    total = sum(struct.unpack("!30H", head))
    total = (total & 0xFFFF) + (total >> 16)
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return head[:2] + struct.pack("!H", total) + head[4:]

missing, sent, twice, is_asking = set(), 0, 0, True
due = last = time.monotonic()
while is_asking or (missing and time.monotonic() - last < 5):
    wait = max(0, due - time.monotonic()) if is_asking else 0.2
    ready = select.select([wire] + [sys.stdin] * is_asking, [], [], wait)[0]
    if wire in ready:
        octets = wire.recv(2048)
        octets = octets if is_v6 else octets[(octets[0] & 15) * 4:]
        if octets[0] == answers and struct.unpack("!H", octets[4:6]) == (name,):
            (number,) = struct.unpack("!I", octets[8:12])
            if sent - len(missing) == 0:
                print("answered", flush=True)
            twice += number not in missing
            missing.discard(number)
            last = time.monotonic()
    if sys.stdin in ready:
        is_asking, last = False, time.monotonic()
    if is_asking and time.monotonic() >= due:
        missing.add(sent)
        wire.sendto(echo(sent), (target, 0))
        sent += 1
        due = max(due + interval, time.monotonic())
print(sent, sent - len(missing), twice)
"""


@dataclass(frozen=True)
class Answered:
    """What came of it. twice: answers that nobody waited for any more."""

    sent: int
    received: int
    twice: int


class Pinger:
    """At work from its first answer, which is there when it has been made, until `end`."""

    def __init__(self, host: str, target: str, interval_s: float = 0.01) -> None:
        words = ["ip", "netns", "exec", host, sys.executable, "-c", _PROGRAM, target, str(interval_s)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "answered\n"

    def end(self) -> Answered:
        said, _ = self._process.communicate(timeout=PATIENCE_S)
        return Answered(*map(int, said.split()))
