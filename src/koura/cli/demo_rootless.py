"""`koura demo` for an ordinary user: two programs in namespaces of their own (koura up --rootless), ESP in UDP between them over loopback.

    ping in a namespace -> koura0 -> engine -> UDP 127.0.0.1 -> UDP 127.0.0.1 -> engine -> koura0 -> a namespace

No right is needed for any of it, so tcpdump is not to be had: what is seen comes from `koura capture`'s tap at b.
"""

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from koura.cli import demo_parts as parts
from koura.cli.demo_live import refusals
from koura.cli.demo_parts import PING, PINGS, CannotShow, Ends, Look
from koura.daemon.launch import DidNotStart, Running, short
from koura.host.entropy import System
from koura.sim.demo import Act, Row
from koura.wire import ipv4

MAP = """\
       a ===== ESP in UDP, from port to port ===== b
127.0.0.1                                 127.0.0.1
 10.9.1.1       inside, in namespaces      10.9.2.1"""
_TOML = """\
[rootless]
port = {port}
[sysctl]
net.enc.out.ipsec_bpf_mask = 1   # before it is sealed
net.enc.in.ipsec_bpf_mask = 2    # after it was opened
"""
_UDP = 8


def play(curtain: Callable[[Act], None], attend: Callable[[], None]) -> None:
    """Both acts; `attend` before each step. Raises CannotShow before the first."""
    if shutil.which("ping") is None:
        raise CannotShow("there is no ping here (Debian: iputils-ping)")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"koura-demo-{os.getpid()}-", dir=short())))
        ports = _ports()
        ends = Ends(f"127.0.0.1[{ports[0]}]", f"127.0.0.1[{ports[1]}]", "10.9.1.1", "10.9.2.1", has_reqids=True)
        scripts = ends.script(System(), "esp-udp")
        options = {name: _options(folder, name, port, scripts[name]) for name, port in zip("ab", ports, strict=True)}
        try:
            b = stack.enter_context(Running(folder / "b", *options["b"], "--", "sleep", "1000", is_private=True))
        except DidNotStart as error:
            raise CannotShow(" ".join(error.said.split()).removeprefix("koura: ")) from error
        look = stack.enter_context(Look(b.directory))
        attend()
        words = [sys.executable, "-m", "koura", "up", "--socket", str(folder / "a"), *options["a"], "--", *PING, ends.inner_b]
        act = Act("koura up --rootless, for a ping and for its target", "No right is needed, and nothing of the host is changed.", "")
        act.rows.append(parts.ping(words))
        sight, wire = look.take(2 * PINGS)
        act.excerpt = parts.excerpt(scripts["a"]) + "\n\n" + sight.shown("koura capture, at b:")
        is_hidden = bool(sight.wire) and not any("icmp" in line for line in sight.wire)
        act.rows.append(Row("the wire", f"{len(sight.wire)} packets, all ESP in UDP" if is_hidden else "CAN BE READ", is_good=is_hidden))
        curtain(act)
        attend()
        came = [ipv4.read(packet.octets)[1] for packet in wire if not packet.is_outbound]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.1", ports[0]))
            act = Act("A stranger who sends to b, from a's port", "Each packet must be refused, and counted once.", "")
            esp = came[-1][_UDP:] if came else b""
            act.rows += refusals(lambda octets: stranger.sendto(octets, ("127.0.0.1", ports[1])), esp, b.directory)
        act.excerpt = "koura stat -p esp, at b:\n" + parts.report(b.directory)
        curtain(act)


def _options(folder: Path, name: str, port: int, script: str) -> tuple[str, ...]:
    (folder / f"{name}.conf").write_text(script)
    (folder / f"{name}.toml").write_text(_TOML.format(port=port))
    return ("--rootless", "-f", str(folder / f"{name}.conf"), "-c", str(folder / f"{name}.toml"), "--state", str(folder / f"{name}.state"))


def _ports() -> tuple[int, int]:
    """Two that are free."""
    with ExitStack() as stack:
        ends = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)]
        for end in ends:
            end.bind(("", 0))
        return ends[0].getsockname()[1], ends[1].getsockname()[1]
