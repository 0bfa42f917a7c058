"""Two gateways of Koura with manual keys, ready to carry traffic, and what tests ask of the hosts behind them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from koura.client.control import Control
from koura.daemon.launch import Running
from tests.live.kit import prober
from tests.live.kit.gateways import Row, start

GCM = "-E aes-gcm-16 0x0102030405060708090a0b0c0d0e0f1011121314"
BACK = "-E aes-gcm-16 0xf102030405060708090a0b0c0d0e0f1011121314"
NETS = ("10.77.{}.0/24", "fd00:77:{}::/64")
PROBE_S = 300


@dataclass(frozen=True)
class Way:
    """How the gateways protect what they carry. outer: IP version; is_fast: the fast path, else the reference."""

    outer: int
    is_udp: bool
    is_fast: bool

    def __str__(self) -> str:
        return f"ipv{self.outer}-{'udp' if self.is_udp else 'esp'}-{'fast' if self.is_fast else 'reference'}"

    def sas(self, row: Row, spi: int = 0x1000, reqid: int = 1, window: int = 256) -> str:
        """A tunnel each way."""
        a, b = row.outer(self.outer)
        name = "esp-udp" if self.is_udp else "esp"
        options = f"-m tunnel -u {reqid} -r {window}"
        return f"add {a} {b} {name} {spi:#x} {options} {GCM};\nadd {b} {a} {name} {spi + 0x1000:#x} {options} {BACK};\n"

    def policies(self, row: Row, us: int, nets: tuple[str, ...] = NETS, level: str = "unique:1") -> str:
        """What one gateway, 1 or 2, does with packets between two nets. level: with a reqid, so that no other SA between the two serves."""
        ends = row.outer(self.outer)
        here, there = ends[us - 1], ends[2 - us]
        lines = []
        for net in nets:
            ours, theirs = net.format(us), net.format(3 - us)
            lines += [
                f"spdadd {ours} {theirs} any -P out ipsec esp/tunnel/{here}-{there}/{level};",
                f"spdadd {theirs} {ours} any -P in ipsec esp/tunnel/{there}-{here}/{level};",
            ]
        return "\n".join(lines) + "\n"


@dataclass
class Site:
    """A row with a daemon in each gateway. `scripts`: more of their setkey files."""

    row: Row
    way: Way
    folder: Path
    toml: str = "[host]\n"
    scripts: tuple[str, str] = ("", "")
    window: int = 256
    daemons: dict[int, Running] = field(default_factory=dict)

    def start(self, us: int) -> None:
        """The daemon of gateway 1 or 2."""
        conf, toml = self.folder / f"{us}.conf", self.folder / f"{us}.toml"
        conf.write_text(self.way.sas(self.row, window=self.window) + self.way.policies(self.row, us) + self.scripts[us - 1])
        toml.write_text(self.toml)
        prefix = ("ip", "netns", "exec", self.row.gateways[us - 1], "env", f"KOURA_NO_FAST={'' if self.way.is_fast else '1'}")
        self.daemons[us] = Running(self.folder / str(us), "-f", str(conf), "-c", str(toml), "-q", prefix=prefix)
        self.daemons[us].start()

    def koura(self, us: int, *words: str, text: str = "") -> str:
        """A command against a daemon."""
        line = ["ip", "netns", "exec", self.row.gateways[us - 1], "env", f"KOURA_SOCKET={self.folder / str(us)}"]
        line += [sys.executable, "-m", "koura", *words]
        done = subprocess.run(line, capture_output=True, text=True, check=False, input=text, timeout=PROBE_S)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def tune(self, name: str, value: int) -> None:
        """A tunable of both."""
        for us in (1, 2):
            with Control(self.folder / str(us)) as control:
                control.ask("sysctl", name=name, value=str(value))

    def reload(self, us: int) -> None:
        """The file of one, anew."""
        with Control(self.folder / str(us)) as control:
            control.ask("reload")

    def counters(self) -> str:
        """Of both, for who wants to know why: everything that is not zero."""
        return "\n".join(
            f"gateway {us}:\n" + "\n".join(line for line in self.koura(us, "stat").splitlines() if not line.strip().startswith("0 "))
            for us in (1, 2)
        )

    def ask(self, where: str, *words: str) -> list[dict[str, object]]:
        """The prober in a namespace."""
        line = ["ip", "netns", "exec", where, sys.executable, "-I", prober.__file__, *words]
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=PROBE_S)
        assert done.returncode == 0, done.stderr
        return [json.loads(one) for one in done.stdout.splitlines()]

    @contextmanager
    def served(self, *where: str) -> Iterator[None]:
        """Echo servers in namespaces."""
        servers = [start(one, sys.executable, "-I", prober.__file__, "serve") for one in where]
        try:
            for server in servers:
                assert server.stdout is not None
                assert server.stdout.readline() == "ready\n"
            yield
        finally:
            for server in servers:
                server.kill()
                server.communicate()


@contextmanager
def site(row: Row, way: Way, folder: Path, **more: object) -> Iterator[Site]:
    """Both daemons, until the end of the block."""
    made = Site(row, way, folder, **more)  # type: ignore[arg-type]
    with ExitStack() as stack:
        for us in (2, 1):
            made.start(us)
            stack.callback(lambda us=us: made.daemons[us].stop())
        yield made


def ping(host: str, *words: str) -> str:
    """What ping says, answered or not."""
    line = ["ip", "netns", "exec", host, "ping", "-n", *words]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=PROBE_S).stdout


