"""One Linux kernel and one of ours on a wire, with every case of the matrix set up on both; and what is measured between them."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from koura.daemon.launch import Running
from tests.live.kit.namespaces import ip
from tests.live.linux_peer import account, encap, matrix
from tests.live.linux_peer.matrix import Case
from tests.live.linux_peer.peer import Peer

TAP = "kt0"
PATIENCE_S = 90.0
ATTEMPTS = 3
UDP_OCTETS = "36K"  # fewer datagrams than a queue that native hands shorten, however long they must wait for a processor
ECHO_PORT = 4242
Trial = Mapping[str, object]
FIRST_PORT = 5201
# Linux protects neighbour discovery like other ICMPv6, and cannot find the peer then: policies in front let it pass.
NEIGHBOURS = "".join(
    f"xfrm policy add src ::/0 dst ::/0 proto ipv6-icmp type {kind} dir {way} priority 1 action allow\n"
    for kind in (135, 136) for way in ("in", "out")
)  # fmt: skip
_HERE = Path(__file__).parent
MEASURES = ("ping", "ping -s 8000", "TCP to Linux", "TCP to us", "UDP to Linux", "UDP to us")


@dataclass(slots=True)
class Rig:
    """What runs: our host is a namespace, the peer a kernel. counted: what both had counted when somebody looked last."""

    namespace: str
    peer: Peer
    daemon: Running
    counted: account.Counts = field(default_factory=dict)

    def run(self, *words: str, seconds: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        """A program on our host."""
        command = ["ip", "netns", "exec", self.namespace, *words]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds)

    def ask(self, case: Case, *trials: Trial) -> list[dict[str, Any]]:
        """What the peer's echo server saw of each datagram, and we of its answer: see echo.py."""
        ours = ["ip", "netns", "exec", self.namespace, sys.executable, str(_HERE / "echo.py")]
        words = [*ours, "ask", str(ECHO_PORT), case.ours, case.theirs]
        said = subprocess.run(words, input="".join(json.dumps(one) + "\n" for one in trials), check=True, capture_output=True, text=True)
        return [json.loads(line) for line in said.stdout.splitlines()]

    def look(self) -> dict[str, int]:
        """What of losses was counted at either end since the last look."""
        before = self.counted
        self.counted = account.take(
            self.daemon.directory, lambda script: self.run("sh", "-c", script).stdout, lambda script: self.peer.run(script, may_fail=True)
        )
        return account.since(before, self.counted)

    def measure(self, case: Case, what: str) -> str:
        """"" if it went well, else what is wrong, and what was counted.

        What was lost outside Koura is measured again, and what no counter knows of: iperf3 calls lost what comes after its own end.
        """
        said = ""
        for _ in range(ATTEMPTS):
            wrong = self._once(case, what)
            if not wrong:
                return ""
            changes = self.look()
            said += f"{wrong}; counted: {account.show(changes)}. "
            if changes and not account.is_outside(changes):
                break
            sys.stderr.write(f"{case.name}, {what}: {said}Once more\n")
        return said

    def _once(self, case: Case, what: str) -> str:
        try:
            return self._tried(case, what)
        except subprocess.TimeoutExpired:
            return f"no end within {PATIENCE_S:.0f} s"

    def _tried(self, case: Case, what: str) -> str:
        if what.startswith("ping"):
            return self._ping(case, *what.split()[1:])
        transport, _, to = what.split()
        words = ["iperf3", "-c", case.theirs, "-B", case.ours, "-p", str(FIRST_PORT + MEASURES.index(what))]
        words += ["--json", "--connect-timeout", "20000"]
        words += ["-n", "256K"] if transport == "TCP" else ["-u", "-b", "2M", "-n", UDP_OCTETS, "-l", "1200"]
        done = self.run(*words, *(["-R"] if to == "us" else []))
        return _iperf(done.stdout or done.stderr, is_udp=transport == "UDP")

    def _ping(self, case: Case, *more: str) -> str:
        """The first three are answered. It sends until three are, or time is over: a fourth that is sent at all says that one was lost."""
        done = self.run("ping", "-n", "-c", "3", "-i", "0.05", "-w", "20", *more, "-I", case.ours, case.theirs)
        answered = {int(number) for number in re.findall(r"bytes from .*icmp_seq=(\d+)", done.stdout)}
        if {1, 2, 3} <= answered:
            return ""
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "packet loss" in line or "rror" in line]
        return f"answered: {sorted(answered)}; {'; '.join(lines)}"


def _iperf(text: str, *, is_udp: bool) -> str:
    try:
        said = json.loads(text)
    except ValueError:
        return f"iperf3 said: {text.strip() or 'nothing'}"
    if "error" in said:
        return str(said["error"])
    if is_udp:
        total = said["end"]["sum"]
        return f"{total['lost_packets']} of {total['packets']} lost" if total["lost_packets"] or not total["packets"] else ""
    return "" if said["end"]["sum_received"]["bytes"] > 0 else "no octet came"


def serve_echo(peer: Peer) -> None:
    """The peer answers UDP with what it saw, from now on."""
    peer.start(f"python3 {peer.give(_HERE / 'echo.py')} serve {ECHO_PORT}")
    peer.wait_bound("udp", ECHO_PORT)


@contextmanager
def running(folder: Path, cases: Sequence[Case], *, sysctls: Sequence[str] = ()) -> Iterator[Rig]:
    """Both are up, every case is set up on both, iperf3 waits in the peer."""
    namespace = f"klp{os.getpid()}"
    outer = matrix.OUTER
    with ExitStack() as stack:
        stack.callback(lambda: subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True))
        ip("netns", "add", namespace)
        ip("-n", namespace, "link", "set", "lo", "up")
        peer = stack.enter_context(Peer(folder / "peer", namespace, TAP, (f"{outer[4][1]}/24", f"{outer[6][1]}/64")))
        addresses = [(outer[4][0], 24), (outer[6][0], 64), *((case.ours, case.bits) for case in cases)]
        batch = "".join(f"addr add {address}/{bits} dev {TAP} {'nodad' if ':' in address else ''}\n" for address, bits in addresses)
        subprocess.run(["ip", "-n", namespace, "-batch", "-"], input=batch, text=True, check=True, capture_output=True)
        _set_up(peer, cases)
        script, toml = folder / "setkey.conf", folder / "koura.toml"
        script.write_text("".join(matrix.setkey(case) for case in cases))
        toml.write_text("[host]\nmtu = 1500\n")
        options = ("-f", str(script), "-c", str(toml), "-q", "-o", "net.koura.weak_crypto=1")
        tunables = [word for text in sysctls for word in ("-o", text)]
        daemon = Running(folder / "koura", *options, *tunables, prefix=("ip", "netns", "exec", namespace))
        made = Rig(namespace, peer, stack.enter_context(daemon))
        made.look()
        yield made


def _set_up(peer: Peer, cases: Sequence[Case]) -> None:
    addresses = "".join(f"addr add {case.theirs}/{case.bits} dev eth0 {'nodad' if case.family == 6 else ''}\n" for case in cases)
    batch = addresses + NEIGHBOURS + "".join(matrix.xfrm(case) for case in cases)
    peer.run(f"sysctl -q net.ipv4.tcp_congestion_control=reno; ip -batch - <<'END'\n{batch}END\n")
    for index in range(len(MEASURES)):
        peer.start(f"iperf3 -s -p {FIRST_PORT + index}")
    peer.start(f"python3 {peer.give(_HERE / 'encap.py')}")
    peer.wait_bound("tcp", *range(FIRST_PORT, FIRST_PORT + len(MEASURES)))
    peer.wait_bound("udp", encap.PORT)
