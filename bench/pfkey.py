"""PF_KEY through the socket of a real daemon: requests per second, a large load, a large dump."""

import os
import socket
import struct
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from bench.table import Table
from koura.address import Prefix
from koura.client.control import Control
from koura.crypto import algorithms
from koura.crypto.algorithm import Kind
from koura.daemon.launch import Running
from koura.pfkey.dialect import FREEBSD
from koura.pfkey.extensions import Key, Sa, Sa2, SpiRange
from koura.pfkey.message import Message
from koura.pfkey.numbers import Ext, SaType, Type
from koura.pfkey.policy import describe
from koura.pfkey.show import host, selector_extensions
from koura.saindex import Direction, Mode, Protocol
from koura.secret import Secret
from koura.spd.policy import Action, Level, Policy, Requirement
from koura.spd.selector import Selector

SRC, DST = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
SECRET = Secret(bytes(range(20)))
_GCM = algorithms.by_name(Kind.AEAD, "aes-gcm-16")
assert _GCM is not None
GCM = _GCM.number


def ends() -> tuple[object, ...]:
    return host(Ext.ADDRESS_SRC, SRC, FREEBSD), host(Ext.ADDRESS_DST, DST, FREEBSD)


def sa_message(kind: Type, n: int) -> bytes:
    spi = 0x1000 + n
    if kind is Type.ADD:
        said = (Sa(spi, 64, 0, 0, GCM, 0), Sa2(Mode.TUNNEL, 0, 0), *ends(), Key.of(Ext.KEY_ENCRYPT, SECRET))
    elif kind is Type.GETSPI:
        said = (SpiRange(0x0100_0000, 0x0FFF_FFFF), *ends())
    else:
        said = (Sa(spi), *ends())
    return Message(kind, SaType.ESP, n, 1, extensions=said).write(FREEBSD)  # type: ignore[arg-type]


def policy_message(n: int) -> bytes:
    prefix = Prefix(bytes((10, n >> 16 & 255, n >> 8 & 255, n & 255)), 32)
    selector = Selector(Direction.OUTBOUND, prefix, Prefix(DST, 32))
    policy = Policy(Direction.OUTBOUND, Action.IPSEC, selector, (Requirement(Protocol.ESP, Mode.TUNNEL, Level.REQUIRE, 0, SRC, DST),))
    return Message(Type.X_SPDADD, 0, n, 1, extensions=(describe(policy), *selector_extensions(selector, FREEBSD))).write(FREEBSD)


class Client:
    def __init__(self, directory: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(str(directory / "pfkey.sock"))

    def rate(self, messages: list[bytes]) -> float:
        """Requests per second, each answered before the next is sent."""
        start = time.perf_counter()
        for octets in messages:
            self.socket.send(octets)
            reply = self.socket.recv(65536)
            if reply[2]:
                raise SystemExit(f"errno {reply[2]} for message type {reply[1]}")
        return len(messages) / (time.perf_counter() - start)

    def dump(self) -> tuple[int, float]:
        start = time.perf_counter()
        self.socket.send(struct.pack("<BBBBHHII", 2, Type.DUMP, 0, 0, 2, 0, 1, 1))
        count, seq = 0, -1
        while seq != 0:
            reply = self.socket.recv(65536)
            (seq,) = struct.unpack_from("<I", reply, 8)
            count += 1
        return count, time.perf_counter() - start


def memory_mib(pid: int, field: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"{field} of {pid} is not told")


def script(count: int) -> str:
    key = "0x" + bytes(range(20)).hex()
    lines = [
        f"add 10.{n >> 16}.{n >> 8 & 255}.{n & 255} 10.200.0.1 esp {0x10000 + n} -m tunnel -E aes-gcm-16 {key};" for n in range(count)
    ]
    return "\n".join(lines) + "\n"


def rates(directory: Path, requests: int) -> list[tuple[str, str]]:
    """Requests per second of one client."""
    found = []
    with Running(directory) as daemon:
        client = Client(daemon.directory)
        for kind in (Type.ADD, Type.GET, Type.DELETE, Type.GETSPI):
            found.append((f"{kind.name}, requests per second", f"{client.rate([sa_message(kind, n) for n in range(requests)]):,.0f}"))
        found.append(("X_SPDADD, requests per second", f"{client.rate([policy_message(n) for n in range(requests)]):,.0f}"))
    return found


def large(directory: Path, associations: int) -> list[tuple[str, str]]:
    """A file of many SAs, and a dump of them."""
    path = directory.with_suffix(".conf")
    path.write_text(script(associations))
    start = time.perf_counter()
    with Running(directory, "-q", "-f", str(path), ready_s=900) as daemon:
        loaded_s = time.perf_counter() - start
        with Control(daemon.directory) as control:
            engine = int(str(control.ask("version")["engine"]))
            control.ask("sysctl", name="kern.features.ipsec")  # what the load took has been given back
        before = memory_mib(engine, "VmRSS"), memory_mib(daemon.pid, "VmRSS")
        for pid in (engine, daemon.pid):
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak counts from here
        count, seconds = Client(daemon.directory).dump()
        after = memory_mib(engine, "VmHWM"), memory_mib(daemon.pid, "VmHWM")
    return [
        (f"koura up -f with {associations:,} SAs until it serves, s", f"{loaded_s:.1f}"),
        (f"DUMP of {count:,} SAs, s", f"{seconds:.1f}"),
        ("memory of the engine before the dump, and its peak in it, MiB", f"{before[0]:.0f} / {after[0]:.0f}"),
        ("memory of the keeper before the dump, and its peak in it, MiB", f"{before[1]:.0f} / {after[1]:.0f}"),
    ]


def run(seconds: float) -> Iterable[Table]:
    """The table."""
    with tempfile.TemporaryDirectory() as place:
        rows = rates(Path(place) / "rates", int(10_000 * seconds)) + large(Path(place) / "large", int(100_000 * seconds))
    rows.append(("load average of the machine", f"{os.getloadavg()[0]:.1f}"))
    yield Table(
        "pfkey",
        "PF_KEY",
        "Wall clock, through the socket of a real daemon (`koura up`): one client, one request at a time, every reply read, as setkey "
        "and the IKE daemons do. A request passes two processes (keeper, engine), and every change is written down before it is answered. "
        "ADD waits for the disk besides: the ledger reserves the SA's numbers there first. "
        "SAs are AES-128-GCM tunnels with a window of 64. The load average says how much else the machine did meanwhile.",
        ("what", "result"),
        tuple(rows),
    )
