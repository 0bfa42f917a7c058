"""`koura demo` for who may: two hosts as network namespaces of this machine, a daemon in each, real ping, and tcpdump looking on.

    a  192.0.2.1 ===== a veth ===== 192.0.2.2  b        10.9.1.1 and 10.9.2.1 are on their loopbacks

The namespaces have no name and everything lies in a temporary directory, so that nothing is left, however it ends.
"""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from pyroute2 import IPRoute, NetlinkError

from koura.address import parse
from koura.cli import demo_parts as parts
from koura.cli.demo_parts import PATIENCE_S, PING, PINGS, CannotShow, Ends, Look, Sight
from koura.cli.watch import DidNotBegin, Watch
from koura.daemon.launch import DidNotStart, Running, short
from koura.host import netns
from koura.host.entropy import System
from koura.host.netns import NetworkNamespace
from koura.sim import ip
from koura.sim.demo import Act, Row

ENDS = Ends("192.0.2.1", "192.0.2.2", "10.9.1.1", "10.9.2.1")
MAP = """\
      a ================ one wire ================ b
192.0.2.1                                   192.0.2.2
 10.9.1.1                                    10.9.2.1"""
_TOML = """\
[host]
guard = {guard}
[enc]
always = true
[sysctl]
net.enc.out.ipsec_bpf_mask = 1   # before it is sealed
net.enc.in.ipsec_bpf_mask = 2    # after it was opened
"""
_EVERYTHING, _ETHERNET, _IP = 0x0003, 14, 20
_ESP = 50


class Hosts:
    """The stage. Raises CannotShow."""

    def __init__(self, stack: ExitStack, look: Callable[[], None]) -> None:
        for program, package in (("nsenter", "util-linux"), ("ping", "iputils-ping")):
            if shutil.which(program) is None:
                raise CannotShow(f"there is no {program} here (Debian: {package})")
        if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
            raise CannotShow("/dev/net/tun is not here, or closed")
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"koura-demo-{os.getpid()}-", dir=short())))
        self.has_guard = shutil.which("nft") is not None
        try:
            self.a, self.b = (stack.enter_context(netns.make(has_ipv6=False)) for _ in range(2))
            self._connect()
            with self.a.inside():
                self.tap = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERYTHING)))
            self.tap.bind(("wire", _EVERYTHING))
            self.tap.settimeout(PATIENCE_S)
        except (OSError, NetlinkError) as error:
            raise CannotShow(f"no network namespaces are to be had here ({error.args[-1]})") from error
        self.scripts = ENDS.script(System(), "esp")
        self.has_tcpdump = self._has_tcpdump()
        self._stack = stack
        self._look = look

    def _has_tcpdump(self) -> bool:
        """Whether it is here and works: in a user namespace it may not change its user, and gives up."""
        try:
            with self.tcpdump("wire"):
                return True
        except DidNotBegin:
            return False

    def _connect(self) -> None:
        for here, address, inner, other, beyond in (
            (self.a, ENDS.a, ENDS.inner_a, ENDS.b, ENDS.inner_b), (self.b, ENDS.b, ENDS.inner_b, ENDS.a, ENDS.inner_a),
        ):  # fmt: skip
            with here.inside(), IPRoute() as link:
                if here is self.a:
                    link.link("add", ifname="wire", kind="veth", peer={"ifname": "wire", "net_ns_fd": self.b.descriptor})
                wire = link.link_lookup(ifname="wire")[0]
                link.addr("add", index=wire, address=address, prefixlen=24)
                link.addr("add", index=1, address=inner, prefixlen=32)
                link.link("set", index=wire, state="up")
                link.route("add", dst=f"{beyond}/32", gateway=other, prefsrc=inner)

    def up(self, name: str, here: NetworkNamespace) -> Running:
        """A daemon there, for as long as the stage stands."""
        self._look()
        script, toml = self.folder / f"{name}.conf", self.folder / f"{name}.toml"
        script.write_text(self.scripts[name])
        toml.write_text(_TOML.format(guard=str(self.has_guard).lower()))
        words = ("-f", str(script), "-c", str(toml), "--state", str(self.folder / f"{name}.state"))
        return self._stack.enter_context(Running(self.folder / name, *words, is_private=True, prefix=here.prefix))

    def tcpdump(self, interface: str) -> Watch:
        """What a person would see."""
        return Watch([*self.a.prefix, "tcpdump", "-Z", "root", "-lnt", "--immediate-mode", "-i", interface, "ip"], "listening on")

    def ping(self) -> Row:
        self._look()
        return parts.ping([*self.a.prefix, *PING, ENDS.inner_b])

    def last_esp(self) -> bytes:
        """The last frame with ESP that a sent."""
        found = b""
        self.tap.setblocking(False)
        try:
            while frame := self.tap.recv(65536):
                if frame[_ETHERNET + 9] == _ESP and frame[_ETHERNET + 12 : _ETHERNET + 16] == parse(ENDS.a):
                    found = frame
        except BlockingIOError:
            return found
        return found

    def guarded(self) -> int:
        """What b's guard has dropped."""
        said = subprocess.run([*self.b.prefix, "nft", "list", "table", "inet", "koura"], capture_output=True, text=True, check=False).stdout
        return sum(int(line.split("counter packets ")[1].split()[0]) for line in said.splitlines() if "drop" in line and "counter" in line)


def play(curtain: Callable[[Act], None], look: Callable[[], None]) -> None:
    """All acts; `look` before each step. Raises CannotShow before the first."""
    with ExitStack() as stack:
        hosts = Hosts(stack, look)
        curtain(_before(hosts))
        try:
            a, b = hosts.up("a", hosts.a), hosts.up("b", hosts.b)
        except DidNotStart as error:
            raise CannotShow(f"a daemon did not start: {' '.join(error.said.split())[-300:]}") from error
        curtain(_protected(hosts, a))
        look()
        curtain(_strangers(hosts, b.directory))


def _before(hosts: Hosts) -> Act:
    act = Act("Before: a pings b, and the wire can be read", "No IPsec yet; this is what Koura is to hide.", "")
    if not hosts.has_tcpdump:
        act.rows.append(hosts.ping())
        return act
    with hosts.tcpdump("wire") as wire:
        act.rows.append(hosts.ping())
        lines = [line for line in wire.take(2 * PINGS, PATIENCE_S) if "ICMP" in line]
    act.excerpt = Sight([], _cut(lines[:2])).shown("tcpdump -lnti wire:")
    return act


def _protected(hosts: Hosts, a: Running) -> Act:
    act = Act("koura up on both, each with a script and [host] in koura.toml", "The ping is the same; nobody told it anything.", "")
    sight, by = _seen(hosts, act, a.directory)
    act.excerpt = parts.excerpt(hosts.scripts["a"]) + "\n\n" + sight.shown(by)
    is_hidden = bool(sight.wire) and not any("ICMP" in line or "icmp" in line for line in sight.wire)
    is_shown = any("ICMP echo request" in line or "icmp" in line for line in sight.clear)
    act.rows.append(Row("the wire", f"{len(sight.wire)} packets, all ESP" if is_hidden else "CAN BE READ", is_good=is_hidden))
    act.rows.append(Row("enc0", "the same packets in clear, for root alone" if is_shown else "SHOWS NOTHING", is_good=is_shown))
    return act


def _seen(hosts: Hosts, act: Act, directory: Path) -> tuple[Sight, str]:
    """The ping, and what tcpdump sees of it beside, or koura capture; and which of them it was."""
    if not hosts.has_tcpdump:
        with Look(directory) as look:
            act.rows.append(hosts.ping())
            return look.take(2 * PINGS)[0], "koura capture (tcpdump cannot be used here):"
    with hosts.tcpdump("wire") as wire, hosts.tcpdump("enc0") as enc:
        act.rows.append(hosts.ping())
        sight = Sight(_cut(enc.take(2 * PINGS, PATIENCE_S)), _cut(wire.take(2 * PINGS, PATIENCE_S)))
    return sight, "tcpdump -lnti enc0, tcpdump -lnti wire:"


def _strangers(hosts: Hosts, b: Path) -> Act:
    act = Act("Strangers on the wire", "Frames put onto it as they are; each must be refused by b, and counted once.", "")
    frame = hosts.last_esp()
    start = _ETHERNET + _IP
    if hosts.has_guard:
        clear = frame[:_ETHERNET] + ip.echo(parse(ENDS.inner_a), parse(ENDS.inner_b), 7, 1)
        detail = "nftables drops it in front of the host's own stack; so it does while no engine runs"
        act.rows.append(parts.strike("the ping in clear", lambda: hosts.tap.send(clear), hosts.guarded, "refused by the guard", detail))
    act.rows += refusals(lambda esp: hosts.tap.send(frame[:start] + esp), frame[start:], b)
    act.excerpt = "koura stat -p esp, at b:\n" + parts.report(b)
    if not hosts.has_guard:
        act.rows.append(Row("the ping in clear", "not shown: no nft here (Debian: nftables)"))
    return act


def refusals(send: Callable[[bytes], object], esp: bytes, directory: Path) -> Sequence[Row]:
    """A genuine packet again, and a forged one."""
    return (
        parts.strike("a genuine ESP packet, sent again", lambda: send(esp), lambda: parts.counters(directory)["replay"],
                     "refused: esp.replay", "its number was accepted before (RFC 4303 §3.4.3)"),
        parts.strike("the same with a new number", lambda: send(parts.renumbered(esp)), lambda: parts.counters(directory)["badauth"],
                     "refused: esp.icv", "the number is under the ICV, and that needs the key"),
    )  # fmt: skip


def _cut(lines: Sequence[str]) -> list[str]:
    return [line.removeprefix("IP ") for line in lines]
