"""tcpdump on an interface of a namespace, for as long as a block runs; every packet up to its end is in the file."""

import re
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType

TCPDUMP = shutil.which("tcpdump") or "/usr/sbin/tcpdump"
READY_S = 20.0
SETTLE_S = 0.3


class Capture:
    """`with Capture(host, interface, file, *filter)`: it listens when the block begins. `lost`: what it missed, known at its end."""

    def __init__(self, host: str, interface: str, file: Path, *expression: str) -> None:
        self.file = file
        options = ["-n", "-U", "--immediate-mode", "-B", "16384", "-Z", "root", "-i", interface, "-w", str(file)]
        self._words = ["ip", "netns", "exec", host, TCPDUMP, *options, *expression]
        self._process: subprocess.Popen[bytes] | None = None
        self.lost = 0

    def __enter__(self) -> "Capture":
        self._process = process = subprocess.Popen(self._words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert process.stderr is not None
        said = b""
        while b"listening on" not in said:
            ready, _, _ = select.select([process.stderr], [], [], READY_S)
            more = process.stderr.read1() if ready else b""  # type: ignore[attr-defined]
            if not more:
                process.kill()
                raise RuntimeError(f"tcpdump: {said.decode()}")
            said += more
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        assert self._process is not None
        size = -1
        while size != (size := self.file.stat().st_size):  # what the kernel has captured is written first
            time.sleep(SETTLE_S)
        self._process.send_signal(signal.SIGINT)
        _, said = self._process.communicate(timeout=READY_S)
        self.lost = sum(map(int, re.findall(rb"(\d+) packets? dropped by", said)))
