"""What a daemon is told at its start, as values: one dataclass for each table of koura.toml (daemon.tables), and all of it together.

Defaults stand here and nowhere else. Not here: the text of the file (daemon.configfile).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from koura.client import place
from koura.errors import KouraError
from koura.setkey.faults import Fault
from koura.settings import DAEMON, Settings

STATUS_GROUP = "koura"
DEVICES = ("auto", "tun", "veth")
MTU_OCTETS = 1400  # of our interfaces: what is added on links of 1500 has room, and a full-sized packet need not be cut
MOST_ADDED = 100  # octets: outer header, UDP, ESP, IV, padding, ICV
LEAST_MTU = 1280  # IPv6 is off below it


class BadConfig(KouraError):
    """The configuration cannot be used; says where and why. faults: each with its place, where it is a text's.

    state: where the ledger of this daemon is, as far as could be read.
    """

    def __init__(self, why: str, faults: Iterable[Fault] = (), state: Path | None = None) -> None:
        super().__init__(why)
        self.faults = tuple(faults)
        self.state = state


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """files: setkey scripts, loaded one behind the other. state: where the ledger is; None: by the directory (daemon.ledger)."""

    files: tuple[Path, ...] = ()
    state: Path | None = None


@dataclass(frozen=True, slots=True)
class PfkeyConfig:
    """The PF_KEY socket."""

    path: Path | None = None
    mode: int = 0o600
    group: str = ""


@dataclass(frozen=True, slots=True)
class StatusConfig:
    """The socket that only reads."""

    group: str = ""


def fitting(link_octets: int) -> int:
    """The MTU of the TUN where none is given: packets of this size fit a link of that one once they are protected."""
    return max(LEAST_MTU, min(MTU_OCTETS, link_octets - MOST_ADDED))


@dataclass(frozen=True, slots=True)
class HostConfig:
    """Host and gateway mode: a TUN with routes, raw sockets and UDP ports. addresses: (packed, prefix length) of the TUN.

    mtu_octets: 0: what fits the link, see `fitting`.
    xdp: interfaces whose raw ESP comes and goes by AF_XDP (host.xdp). passes_control: what keeps a link going is left alone.
    """

    interface: str = "koura0"
    mtu_octets: int = 0
    addresses: tuple[tuple[bytes, int], ...] = ()
    ports: tuple[int, ...] = (4500,)
    has_guard: bool = True
    xdp: tuple[str, ...] = ()
    passes_control: bool = True


@dataclass(frozen=True, slots=True)
class RootlessConfig:
    """Rootless mode: the interface inside the namespace, the UDP port outside (0: any that is free), and NAT keepalives (0: none)."""

    interface: str = "koura0"
    device: str = "auto"
    mtu_octets: int = MTU_OCTETS
    addresses: tuple[tuple[bytes, int], ...] = ()
    port: int = 4500
    keepalive_s: int = 20  # RFC 3948 §4: whoever is in a pod or at home is behind a NAT


@dataclass(frozen=True, slots=True)
class TunnelConfig:
    """A virtual tunnel interface: if_ipsec(4), M22. local, remote: packed."""

    name: str
    reqid: int
    local: bytes
    remote: bytes
    addresses: tuple[tuple[bytes, int], ...] = ()
    mtu_octets: int = MTU_OCTETS


@dataclass(frozen=True, slots=True)
class BumpConfig:
    """A bump in the wire between two interfaces. addresses: its own, packed; passes_control: what keeps a link going is left alone.

    has_xdp: protected frames leave the outside by AF_XDP (host.xdp).
    """

    inside: str
    outside: str
    addresses: tuple[bytes, ...] = ()
    passes_control: bool = True
    has_guard: bool = True
    has_xdp: bool = False


@dataclass(frozen=True, slots=True)
class EncConfig:
    """enc(4) as an interface. is_always: packets are shown there even if nobody is seen to look."""

    interface: str = "enc0"
    is_always: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """One daemon's."""

    directory: Path
    files: tuple[Path, ...] = ()
    pfkey_path: Path | None = None
    pfkey_mode: int = 0o600
    pfkey_group: str = ""
    status_group: str = ""
    settings: Settings = DAEMON
    host: HostConfig | None = None
    rootless: RootlessConfig = RootlessConfig()
    enc: EncConfig | None = None
    state: Path | None = None  # where the ledger is; None: by `directory` (daemon.ledger)
    accepts_lost_state: bool = False
    tunnels: tuple[TunnelConfig, ...] = ()
    bumps: tuple[BumpConfig, ...] = ()
    source: Path | None = None  # koura.toml, to be read again
    options: tuple[str, ...] = ()  # NAME=VALUE of the command line, which win over the file
    written: "Config | None" = None  # what the file alone says, `options` included

    @property
    def pfkey(self) -> Path:
        return self.pfkey_path or self.directory / place.PFKEY
