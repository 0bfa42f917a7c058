"""A Linux kernel of its own as a peer: Debian's user-mode-linux, an ordinary process whose network card is a TAP in a namespace.

    with Peer(folder, namespace="kha123", tap="kt0", addresses=("192.0.2.2/24",)) as peer:
        peer.run("ip xfrm state")

Its root file system is the host's, read-only (hostfs), so that every program here is there, too. What is to be run is written into a
folder that both have, and a serial line says which; output comes back as files. Written for these tests after the documentation of
User Mode Linux (Documentation/virt/uml) and iproute2.
"""

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType

KERNEL = "linux.uml"
MODULES = Path("/usr/lib/uml/modules")
BOOT_S = 90.0
RUN_S = 130.0
KICK_S = 0.005
MEMORY_MIB = 256
_HERE = Path(__file__).parent


def why_not() -> str:
    """Why there can be no peer here; "" if there can."""
    if shutil.which(KERNEL) is None or not MODULES.is_dir():
        return "no Linux kernel to run as a process here (Debian: user-mode-linux)"
    if os.geteuid() != 0 or not os.access("/dev/net/tun", os.W_OK):
        return "a TAP for the peer needs root and /dev/net/tun"
    missing = [program for program in ("ethtool", "modprobe", "iperf3", "ping") if shutil.which(program) is None]
    return f"not here: {', '.join(missing)}" if missing else ""


class PeerFailed(Exception):
    """The peer did not start, ended, or a command in it failed; with what it said."""


class Peer:
    """One kernel. The TAP is made in the namespace and goes with it. addresses: with prefix lengths, of its eth0."""

    def __init__(self, folder: Path, namespace: str, tap: str, addresses: tuple[str, ...]) -> None:
        self._share = folder / "share"
        self._log = folder / "console"
        self._folder = folder
        self._namespace = namespace
        self._tap = tap
        self._addresses = addresses
        self._number = 0
        self._ended = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None

    def __enter__(self) -> "Peer":
        self._share.mkdir(parents=True)
        self._share.chmod(0o777)
        shutil.copyfile(shutil.which("mount") or "/bin/mount", self._share / "mount")
        (self._share / "mount").chmod(0o755)
        subprocess.run(["ip", "-n", self._namespace, "tuntap", "add", self._tap, "mode", "tap"], check=True)
        in_namespace = ["ip", "netns", "exec", self._namespace]
        # The host hands unsegmented packets of 64 KiB to a TAP that allows it; the peer cuts them off.
        off = [word for name in ("tx", "sg", "tso", "gso") for word in (name, "off")]
        subprocess.run([*in_namespace, "ethtool", "-K", self._tap, *off], check=True, capture_output=True)
        subprocess.run(["ip", "-n", self._namespace, "link", "set", self._tap, "up"], check=True)
        ours, theirs = socket.socketpair()
        with self._log.open("wb") as log, theirs:
            self._process = subprocess.Popen(
                [*in_namespace, *self._command(theirs.fileno())], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip
        self._line = ours
        try:
            self._expect(b"ready", BOOT_S)
        except PeerFailed:
            self._end()
            raise
        threading.Thread(target=self._kick, daemon=True).start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._end()

    def run(self, script: str, *, may_fail: bool = False) -> str:
        """What a shell script writes. Raises PeerFailed when its exit status is not 0, unless it may be."""
        assert self._line is not None
        self._number += 1
        name = str(self._number)
        (self._share / f"{name}.sh").write_text(script)
        self._line.sendall(f"{name}\n".encode())
        status = self._expect(name.encode(), RUN_S)
        out, err = ((self._share / f"{name}.{kind}").read_text(errors="replace") for kind in ("out", "err"))
        if status != "0" and not may_fail:
            raise PeerFailed(f"exit status {status} of {script!r}: {err.strip() or out.strip()}")
        return out

    def give(self, file: Path) -> str:
        """Where the peer finds a copy of a file: its /tmp and /run are its own, so a checkout there is hidden from it."""
        shutil.copy(file, self._share / file.name)
        return f"/run/share/{file.name}"

    def start(self, command: str) -> None:
        """Start a program that goes on running."""
        self.run(f"setsid {command} >/run/share/background.{self._number}.log 2>&1 </dev/null &")

    def wait_bound(self, transport: str, *ports: int) -> None:
        """Until sockets of both families, or one of IPv6 for both (TCP), have these ports. Raises PeerFailed after a while."""
        both = f"/proc/net/{transport}6 /proc/net/{transport}" if transport == "udp" else f"/proc/net/{transport}6"
        tests = "".join(f"until grep -q ':{port:04X} ' {file}; do sleep 0.05; done\n" for port in ports for file in both.split())
        self.run(tests)

    def _command(self, line: int) -> list[str]:
        modules = max(MODULES.iterdir())
        return [
            KERNEL, f"mem={MEMORY_MIB}M", "root=none", "rootfstype=hostfs", "rootflags=/", "ro", f"init={_HERE / 'init.sh'}",
            f"vec0:transport=tap,ifname={self._tap},depth=128", "con=null", "con0=null,fd:1", "ssl=null", f"ssl0=fd:{line}",
            f"uml_dir={self._folder}/", "umid=uml", "quiet", "panic=-1",
            f"MOUNT={self._share / 'mount'}",
            f"koura.share={self._share}", f"koura.modules={modules}", f"koura.addresses={','.join(self._addresses)}",
        ]  # fmt: skip

    def _expect(self, first: bytes, seconds: float) -> str:
        """The rest of the next line that begins with a word. Raises PeerFailed."""
        assert self._line is not None
        deadline = time.monotonic() + seconds
        octets = b""
        while True:
            *lines, _ = octets.split(b"\n")
            for line in lines:
                words = line.strip().split()
                if words[:1] == [first]:
                    return words[1].decode() if len(words) > 1 else ""
            ready, _, _ = select.select([self._line], [], [], max(0.0, deadline - time.monotonic()))
            more = self._line.recv(4096) if ready else b""
            if not more:
                raise PeerFailed(f"the peer {'ended' if ready else 'says nothing'}: {self._log.read_text(errors='replace')[-2000:]}")
            octets += more

    def _kick(self) -> None:
        """A TAP signals a packet just before it can be read; a kernel that looked too early sleeps on until the next signal: here it is."""
        assert self._process is not None
        while not self._ended.wait(KICK_S) and self._process.poll() is None:
            self._process.send_signal(signal.SIGIO)

    def _end(self) -> None:
        self._ended.set()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._line is not None:
            self._line.close()
