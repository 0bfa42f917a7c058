"""What end-to-end benchmarks run in: hosts as network namespaces, and what protects the traffic between two of them. Needs root."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path

from koura.client.control import Control
from koura.daemon.launch import Running

GCM = "-E aes-gcm-16 0x0102030405060708090a0b0c0d0e0f1011121314"
NULL = '-f nocyclic-seq -E null ""'
CHARON = "/usr/lib/ipsec/charon"
PATIENCE_S = 20.0
REFERENCE = ("env", "KOURA_NO_FAST=1")
Words = tuple[str, ...]
_NUMBERS = count(1)  # rigs stand side by side
OUTER, INNER = ("192.0.2.1", "192.0.2.2"), ("10.1.1.1", "10.2.2.2")


class Missing(Exception):
    """A peer, or what it needs, is not on this machine."""


@dataclass(slots=True)
class Rig:
    """Two hosts, by what makes a command run there. From `client` to `server` packets go protected between `near` and `far`.

    processes: whose work that is.
    """

    client: tuple[str, ...]
    server: tuple[str, ...]
    near: str
    far: str
    processes: list[int] = field(default_factory=list)

    def ticks(self) -> float:
        """Seconds of processor time of the processes so far."""
        total = 0.0
        for pid in self.processes:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return total


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def inside(host: str) -> tuple[str, ...]:
    return ("ip", "netns", "exec", host)


@contextmanager
def hosts(*names: str, forwards: bool = False) -> Iterator[list[str]]:
    """Namespaces in a row, each joined to the next by a veth; TCP's congestion control is reno."""
    number = next(_NUMBERS)
    made = [f"kb{name}{number}x{os.getpid()}" for name in names]
    try:
        for host in made:
            run("ip", "netns", "add", host)
            run("ip", "-n", host, "link", "set", "lo", "up")
            run(*inside(host), "sysctl", "-qw", "net.ipv4.tcp_congestion_control=reno", f"net.ipv4.ip_forward={int(forwards)}")
        for left, right in pairwise(made):
            run("ip", "-n", left, "link", "add", "right", "type", "veth", "peer", "name", "left", "netns", right)
        yield made
    finally:
        for host in made:
            subprocess.run(["ip", "netns", "del", host], check=False, capture_output=True)


def address(host: str, link: str, text: str, *routes: str) -> None:
    run("ip", "-n", host, "addr", "add", text, "dev", link)
    run("ip", "-n", host, "link", "set", link, "up")
    for route in routes:
        run("ip", "-n", host, "route", "add", *route.split())


def neighbours(stack: ExitStack) -> list[str]:
    """Two hosts with their outer addresses."""
    ends = stack.enter_context(hosts("a", "b"))
    for host, link, text in zip(ends, ("right", "left"), OUTER, strict=True):
        address(host, link, f"{text}/24")
    return ends


def conf(us: int, extension: str, algorithm: str) -> str:
    """The SAs of both ways and the policies of one side."""
    them = 3 - us
    lines = [
        f"add 192.0.2.{one} 192.0.2.{3 - one} {extension} {0x1000 + one} -m tunnel -u {one} -r 128 {algorithm};" for one in (1, 2)
    ]
    for way, one, other in (("out", us, them), ("in", them, us)):
        lines.append(f"spdadd 10.{one}.0.0/16 10.{other}.0.0/16 any -P {way} ipsec esp/tunnel/192.0.2.{one}-192.0.2.{other}/require;")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Daemons:
    """What the daemons of a rig are. script: of host 1 or 2; is_host: the inner addresses are the TUN's; prefix: of their commands.

    has_xdp: raw ESP by AF_XDP, on the link between them. has_tunnel: the inner addresses are a tunnel interface's.
    """

    script: Callable[[int], str]
    is_host: bool = True
    has_xdp: bool = False
    prefix: Words = ()
    has_tunnel: bool = False

    def toml(self, us: int) -> str:
        link = ("right", "left")[us - 1]
        own = f'addresses = ["{INNER[us - 1]}/24"]\n' if self.is_host else ""
        if self.has_tunnel:
            return f'[host]\n[[tunnel]]\nname = "ipsec0"\nreqid = 100\nlocal = "{OUTER[us - 1]}"\nremote = "{OUTER[2 - us]}"\n' + own
        return "[host]\nmtu = 1400\n" + own + (f'xdp = ["{link}"]\n' if self.has_xdp else "")


def koura(stack: ExitStack, folder: Path, ends: dict[int, str], daemons: Daemons) -> list[int]:
    """A daemon on each host, 1 or 2; their engines."""
    return [
        daemon(stack, folder / f"{us}", daemons.toml(us), daemons.script(us), (*inside(host), *daemons.prefix)) for us, host in ends.items()
    ]


def daemon(stack: ExitStack, place: Path, toml: str, script: str, prefix: Words) -> int:
    """One daemon; its engine."""
    place.with_suffix(".toml").write_text(toml)
    place.with_suffix(".conf").write_text(script)
    words = ("-c", str(place.with_suffix(".toml")), "-f", str(place.with_suffix(".conf")), "-q")
    stack.enter_context(Running(place, *words, prefix=prefix))
    with Control(place) as control:
        return int(str(control.ask("version")["engine"]))


@contextmanager
def between(folder: Path, extension: str = "", algorithm: str = GCM, prefix: Words = (), *, has_xdp: bool = False) -> Iterator[Rig]:
    """Two hosts with koura in host mode; without an extension header: nothing between them at all. prefix: of the daemons' commands."""
    with ExitStack() as stack:
        ends = neighbours(stack)
        if not extension:
            yield Rig(inside(ends[0]), inside(ends[1]), *OUTER)
            return
        engines = koura(
            stack, folder, dict(enumerate(ends, 1)), Daemons(lambda us: conf(us, extension, algorithm), has_xdp=has_xdp, prefix=prefix)
        )
        yield Rig(inside(ends[0]), inside(ends[1]), *INNER, engines)


@contextmanager
def tunnel(folder: Path) -> Iterator[Rig]:
    """Two hosts with a tunnel interface between them, ESP in UDP."""
    with ExitStack() as stack:
        ends = neighbours(stack)
        sas = "".join(f"add 192.0.2.{one} 192.0.2.{3 - one} esp-udp {0x1000 + one} -m tunnel -u 100 -r 128 {GCM};\n" for one in (1, 2))
        engines = koura(stack, folder, dict(enumerate(ends, 1)), Daemons(lambda _us: sas, has_tunnel=True))
        for us, host in enumerate(ends, 1):
            wait(lambda host=host: "ipsec0" in run("ip", "-n", host, "-br", "link"), "the tunnel interface")  # type: ignore[misc]
            run("ip", "-n", host, "route", "add", f"10.{3 - us}.0.0/16", "dev", "ipsec0", "src", INNER[us - 1])
        yield Rig(inside(ends[0]), inside(ends[1]), *INNER, engines)


@contextmanager
def rootless(folder: Path) -> Iterator[Rig]:
    """A program in rootless mode on one host, koura in host mode on the other, ESP in UDP between them."""
    with ExitStack() as stack:
        ends = neighbours(stack)
        engines = koura(stack, folder, {2: ends[1]}, Daemons(lambda us: conf(us, "esp-udp", GCM)))
        place, toml, script = folder / "1", folder / "1.toml", folder / "1.conf"
        toml.write_text(f'[rootless]\nmtu = 1400\naddresses = ["{INNER[0]}/24"]\n')
        script.write_text(conf(1, "esp-udp", GCM))
        words = ("--rootless", "-c", str(toml), "-f", str(script), "--", "sleep", "100000")
        running = stack.enter_context(Running(place, *words, prefix=inside(ends[0])))
        with Control(place) as control:
            engines.append(int(str(control.ask("version")["engine"])))
        yield Rig(("nsenter", "--preserve-credentials", "-U", "-n", "-t", str(_tenant(running.pid))), inside(ends[1]), *INNER, engines)


def _tenant(keeper: int) -> int:
    """The program for which a rootless daemon runs: the child that is a sleep."""

    def found() -> list[int]:
        children = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
        return [int(child) for child in children if Path(f"/proc/{child}/comm").read_text().strip() == "sleep"]

    wait(lambda: bool(found()), "the rootless program")
    return found()[0]


@contextmanager
def gateways(folder: Path, extension: str, *, has_xdp: bool = False) -> Iterator[Rig]:
    """Two gateways with koura, a host behind each; without an extension header: plain routing."""
    with ExitStack() as stack:
        left, one, two, right = stack.enter_context(hosts("l", "a", "b", "r", forwards=True))
        address(left, "right", "10.1.1.1/24", "default via 10.1.1.254")
        address(one, "left", "10.1.1.254/24")
        address(one, "right", "192.0.2.1/24", "10.2.0.0/16 via 192.0.2.2")
        address(two, "left", "192.0.2.2/24", "10.1.0.0/16 via 192.0.2.1")
        address(two, "right", "10.2.2.254/24")
        address(right, "left", "10.2.2.2/24", "default via 10.2.2.254")
        daemons = Daemons(lambda us: conf(us, extension, GCM), is_host=False, has_xdp=has_xdp)
        engines = koura(stack, folder, {1: one, 2: two}, daemons) if extension else []
        yield Rig(inside(left), inside(right), *INNER, engines)


@contextmanager
def bumps(folder: Path, *, has_xdp: bool = False) -> Iterator[Rig]:
    """Two hosts that know nothing of IPsec, two bumps in the wire between them: ESP in transport mode. has_xdp: frames leave by AF_XDP."""
    with ExitStack() as stack:
        left, one, two, right = stack.enter_context(hosts("l", "a", "b", "r"))
        address(left, "right", f"{OUTER[0]}/24")
        address(right, "left", f"{OUTER[1]}/24")
        engines = []
        for us, host in enumerate((one, two), 1):
            script = "\n".join(
                f"add 192.0.2.{number} 192.0.2.{3 - number} esp {0x1000 + number} -r 128 {GCM};"
                f"spdadd 192.0.2.{number} 192.0.2.{3 - number} any -P {'out' if number == us else 'in'} ipsec esp/transport//require;"
                for number in (1, 2)
            )
            inner, outer = ("left", "right")[:: 1 if us == 1 else -1]
            toml = f'[[bump]]\ninside = "{inner}"\noutside = "{outer}"\nxdp = {str(has_xdp).lower()}\n'
            engines.append(daemon(stack, folder / f"{us}", toml, script, inside(host)))
        yield Rig(inside(left), inside(right), *OUTER, engines)


@contextmanager
def forwarder(_folder: Path) -> Iterator[Rig]:
    """A TUN and a UDP socket on each host, and a loop between them that changes nothing: bench.forward."""
    with ExitStack() as stack:
        ends = neighbours(stack)
        found = []
        for us, host in enumerate(ends, 1):
            words = [*inside(host), sys.executable, "-m", "koura.cli.forward", OUTER[2 - us]]
            process = stack.enter_context(child(words, {}))
            found.append(process.pid)
            wait(lambda host=host: "tun0" in run("ip", "-n", host, "-br", "link"), "the forwarder's TUN")  # type: ignore[misc]
            run("ip", "-n", host, "link", "set", "tun0", "mtu", "1400")
            address(host, "tun0", f"{INNER[us - 1]}/24", f"10.{3 - us}.0.0/16 dev tun0")
        yield Rig(inside(ends[0]), inside(ends[1]), *INNER, found)


@contextmanager
def child(words: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours; it is ended in the end."""
    process = subprocess.Popen(words, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise Missing(f"{what} did not come")
        time.sleep(0.05)


def _charon_files(folder: Path, us: int) -> tuple[Path, Path, Path]:
    """strongswan.conf, swanctl.conf and the control socket of one side."""
    vici = folder / f"charon{us}.vici"
    settings, connections = folder / f"strongswan{us}.conf", folder / f"swanctl{us}.conf"
    settings.write_text(
        "charon {\n load = random nonce openssl aes sha1 sha2 hmac kdf gcm kernel-libipsec kernel-netlink socket-default vici\n"
        f" install_virtual_ip = no\n plugins {{\n vici {{\n socket = unix://{vici}\n }}\n kernel-libipsec {{\n load = yes\n }}\n }}\n}}\n"
    )
    them = 3 - us
    connections.write_text(
        f"connections {{\n t {{\n version = 2\n local_addrs = {OUTER[us - 1]}\n remote_addrs = {OUTER[them - 1]}\n"
        f" proposals = aes128-sha256-modp2048\n local {{\n auth = psk\n id = h{us}\n }}\n remote {{\n auth = psk\n id = h{them}\n }}\n"
        f" children {{\n net {{\n local_ts = 10.{us}.0.0/16\n remote_ts = 10.{them}.0.0/16\n esp_proposals = aes128gcm16\n"
        " rekey_time = 0\n }\n }\n }\n}\n"
        'secrets {\n ike-1 {\n id-a = h1\n id-b = h2\n secret = "only for this measurement"\n }\n}\n'
    )
    return settings, connections, vici


@contextmanager
def libipsec(folder: Path) -> Iterator[Rig]:
    """strongSwan's own ESP in user space: kernel-libipsec, ESP in UDP, AES-128-GCM."""
    if not Path(CHARON).exists() or shutil.which("swanctl") is None:
        raise Missing("strongSwan is not here (Debian: strongswan-charon, strongswan-swanctl, libcharon-extra-plugins)")
    with ExitStack() as stack:
        ends = neighbours(stack)
        found, files = [], []
        for us, host in enumerate(ends, 1):
            run("ip", "-n", host, "addr", "add", f"{INNER[us - 1]}/24", "dev", "lo")
            settings, connections, vici = _charon_files(folder, us)
            words = [*inside(host), "sh", "-c", f"mount -t tmpfs none /run && exec {CHARON}"]
            found.append(stack.enter_context(child(words, {"STRONGSWAN_CONF": str(settings)})).pid)
            files.append((connections, vici))
        for connections, vici in files:
            wait(vici.exists, "charon")
            run("swanctl", "--load-all", "--noprompt", "--uri", f"unix://{vici}", "--file", str(connections))
        run("swanctl", "--initiate", "--child", "net", "--timeout", "10", "--uri", f"unix://{files[0][1]}")
        yield Rig(inside(ends[0]), inside(ends[1]), *INNER, found)
