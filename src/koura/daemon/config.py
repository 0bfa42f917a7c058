"""What a daemon is told at its start: koura.toml and the command line. The file's tables:

    [daemon]   file = "/etc/koura/setkey.conf", state = "/var/lib/koura"
    [pfkey]    path = "...", mode = "0660", group = "ipsec"     who is in the group may do what root may
    [status]   group = "koura"
    [host]     interface = "koura0", mtu = 1500, addresses = ["10.0.0.1/24"], ports = [4500], guard = true
    [[tunnel]] name = "ipsec0", reqid = 100, local = "192.0.2.1", remote = "192.0.2.2", addresses = ["10.9.0.1/30"], mtu = 1400
    [enc]      interface = "enc0", always = false
    [rootless] interface = "koura0", device = "auto", mtu = 1500, addresses = ["10.1.1.5/32"], port = 4500
    [sysctl]   "net.inet.ipsec.dfbit" = 2
"""

import ipaddress
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koura.client import place
from koura.errors import KouraError, Refused
from koura.settings import Settings
from koura.spd.policy import MAX_MANUAL_REQID
from koura.sysctl import tree

STATUS_GROUP = "koura"
_INTERFACE_OCTETS = 15
_LEAST_MTU, _MOST_MTU = 576, 65535
_PORTS = 1 << 16
_TABLES: Mapping[str, Mapping[str, type]] = {
    "daemon": {"file": str, "state": str},
    "pfkey": {"path": str, "mode": str, "group": str},
    "status": {"group": str},
    "host": {"interface": str, "mtu": int, "addresses": list, "ports": list, "guard": bool},
    "tunnel": {"name": str, "reqid": int, "local": str, "remote": str, "addresses": list, "mtu": int},
    "enc": {"interface": str, "always": bool},
    "rootless": {"interface": str, "device": str, "mtu": int, "addresses": list, "port": int},
}
TUNNEL_MTU = 1400
DEVICES = ("auto", "tun", "veth")


class BadConfig(KouraError):
    """The configuration cannot be used; says where and why."""


@dataclass(frozen=True, slots=True)
class HostConfig:
    """Host and gateway mode: a TUN with routes, raw sockets and UDP ports. addresses: (packed, prefix length) of the TUN."""

    interface: str = "koura0"
    mtu_octets: int = 1500
    addresses: tuple[tuple[bytes, int], ...] = ()
    ports: tuple[int, ...] = (4500,)
    has_guard: bool = True


@dataclass(frozen=True, slots=True)
class RootlessConfig:
    """Rootless mode: the interface inside the namespace, and the UDP port outside (0: any that is free)."""

    interface: str = "koura0"
    device: str = "auto"
    mtu_octets: int = 1500
    addresses: tuple[tuple[bytes, int], ...] = ()
    port: int = 4500


@dataclass(frozen=True, slots=True)
class TunnelConfig:
    """A virtual tunnel interface: if_ipsec(4), M22. local, remote: packed."""

    name: str
    reqid: int
    local: bytes
    remote: bytes
    addresses: tuple[tuple[bytes, int], ...] = ()
    mtu_octets: int = 1400


@dataclass(frozen=True, slots=True)
class EncConfig:
    """enc(4) as an interface. is_always: packets are shown there even if nobody is seen to look."""

    interface: str = "enc0"
    is_always: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """One daemon's."""

    directory: Path
    file: Path | None = None
    pfkey_path: Path | None = None
    pfkey_mode: int = 0o600
    pfkey_group: str = ""
    status_group: str = ""
    settings: Settings = Settings(weak_crypto=0)
    host: HostConfig | None = None
    rootless: RootlessConfig = RootlessConfig()
    enc: EncConfig | None = None
    state: Path | None = None  # where the ledger is; None: by `directory` (daemon.ledger)
    accepts_lost_state: bool = False
    tunnels: tuple[TunnelConfig, ...] = ()
    source: Path | None = None  # koura.toml, to be read again

    @property
    def pfkey(self) -> Path:
        return self.pfkey_path or self.directory / place.PFKEY


    def fresh_tunnels(self) -> "tuple[TunnelConfig, ...]":
        """The tunnels in koura.toml as it is now. Raises BadConfig."""
        if self.source is None:
            return self.tunnels
        try:
            return read(self.directory, self.source.read_text(), str(self.source)).tunnels
        except (OSError, UnicodeDecodeError) as error:
            raise BadConfig(f"{self.source}: {error.strerror if isinstance(error, OSError) else 'not text'}") from error


def read(directory: Path, text: str = "", name: str = "", tunables: tuple[str, ...] = ()) -> Config:
    """The configuration in a TOML text, and `name=value` from the command line behind it. Raises BadConfig."""
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadConfig(f"{name}: {error}") from error
    wanted = said.pop("sysctl", {})
    for table, values in said.items():
        for one in values if table == "tunnel" and isinstance(values, list) else [values]:
            _check(name, table, one)
    state = said.get("daemon", {}).get("state")
    daemon, pfkey, status = (said.get(table, {}) for table in ("daemon", "pfkey", "status"))
    return Config(
        directory,
        Path(daemon["file"]) if "file" in daemon else None,
        Path(pfkey["path"]) if "path" in pfkey else None,
        mode(pfkey.get("mode", "0600"), f"{name}: pfkey.mode"),
        pfkey.get("group", ""),
        status.get("group", ""),
        _tuned([f"{key}={value}" for key, value in wanted.items()] if isinstance(wanted, dict) else [""], name, tunables),
        _host(name, said["host"]) if "host" in said else None,
        _rootless(name, said.get("rootless", {})),
        _enc(name, said) if "enc" in said else None,
        Path(state) if state is not None else None,
        tunnels=tuple(tunnel(f"{name}: tunnel", one) for one in _tunnels(name, said)),
    )


def _host(name: str, said: Mapping[str, Any]) -> HostConfig:
    """Raises BadConfig."""
    host = HostConfig()
    ports = tuple(said.get("ports", host.ports))
    if not all(isinstance(port, int) and 0 < port < _PORTS for port in ports):
        raise BadConfig(f"{name}: host.ports: a port is a number of 1 to {_PORTS - 1}")
    addresses = _addresses(f"{name}: host", said)
    return HostConfig(*_interface(f"{name}: host", said), addresses, ports, said.get("guard", True))


def _rootless(name: str, said: Mapping[str, Any]) -> RootlessConfig:
    """Raises BadConfig."""
    where, rootless = f"{name}: rootless", RootlessConfig()
    interface, mtu_octets = _interface(where, said)
    device, port = said.get("device", rootless.device), said.get("port", rootless.port)
    if device not in DEVICES:
        raise BadConfig(f"{where}.device: {device!r} is none of {', '.join(DEVICES)}")
    if not 0 <= port < _PORTS:
        raise BadConfig(f"{where}.port: a port is a number of 1 to {_PORTS - 1}, or 0 for any that is free")
    return RootlessConfig(interface, device, mtu_octets, _addresses(where, said), port)


def _tunnels(name: str, said: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = said.get("tunnel", [])
    if not isinstance(found, list):
        raise BadConfig(f"{name}: write [[tunnel]], in two pairs of brackets: there may be many")
    if found and "host" not in said:
        raise BadConfig(f"{name}: [[tunnel]] is for [host]: its packets leave by the host's sockets")
    for key in ("name", "reqid"):
        values = [one.get(key) for one in found]
        twins = [value for value in values if values.count(value) > 1]
        if twins:
            raise BadConfig(f"{name}: two tunnels with {key} = {twins[0]!r}")
    return found


def tunnel(where: str, said: Mapping[str, Any]) -> TunnelConfig:
    """One table [[tunnel]]. Raises BadConfig."""
    missing = [key for key in ("name", "reqid", "local", "remote") if key not in said]
    if missing:
        raise BadConfig(f"{where}.{missing[0]} is missing")
    name, mtu = _interface(where, {"mtu": TUNNEL_MTU, **said, "interface": said["name"]})
    if not 0 < said["reqid"] <= MAX_MANUAL_REQID:
        raise BadConfig(f"{where}.reqid: {said['reqid']} is not between 1 and {MAX_MANUAL_REQID}")
    ends = [_address(f"{where}.{key}", said[key], "192.0.2.1") for key in ("local", "remote")]
    if len(ends[0][0]) != len(ends[1][0]) or ends[0] == ends[1] or any(bits != 8 * len(one) for one, bits in ends):
        raise BadConfig(f"{where}: local and remote are two addresses of one family, not {said['local']} and {said['remote']}")
    return TunnelConfig(name, said["reqid"], ends[0][0], ends[1][0], _addresses(where, said), mtu)


def _enc(name: str, said: Mapping[str, Any]) -> EncConfig:
    """Raises BadConfig."""
    if "host" not in said:
        raise BadConfig(f"{name}: [enc] is for [host]; elsewhere koura capture shows packets")
    usual = EncConfig()
    interface, _ = _interface(f"{name}: enc", {"interface": usual.interface, **said["enc"]})
    return EncConfig(interface, said["enc"].get("always", usual.is_always))


def _interface(where: str, said: Mapping[str, Any]) -> tuple[str, int]:
    """Name and MTU. Raises BadConfig."""
    usual = HostConfig()
    interface, mtu = said.get("interface", usual.interface), said.get("mtu", usual.mtu_octets)
    if not interface or len(interface.encode()) > _INTERFACE_OCTETS or set(interface) & set("/ %"):
        raise BadConfig(f"{where}.interface: {interface!r} is no name of an interface")
    if not _LEAST_MTU <= mtu <= _MOST_MTU:
        raise BadConfig(f"{where}.mtu: {mtu} is not between {_LEAST_MTU} and {_MOST_MTU}")
    return interface, mtu


def _addresses(where: str, said: Mapping[str, Any]) -> tuple[tuple[bytes, int], ...]:
    return tuple(_address(f"{where}.addresses", text) for text in said.get("addresses", ()))


def _address(where: str, text: object, example: str = "10.0.0.1/24") -> tuple[bytes, int]:
    try:
        found = ipaddress.ip_interface(str(text))
    except ValueError as error:
        raise BadConfig(f"{where}: {text!r} is no address; write it as {example}") from error
    return found.packed, found.network.prefixlen


def mode(text: str, where: str) -> int:
    """An octal mode. Raises BadConfig."""
    if not text or set(text) - set("01234567") or int(text, 8) > 0o777:
        raise BadConfig(f"{where}: {text!r} is no mode; write it as 0600 or 0660")
    return int(text, 8)


def _check(name: str, table: str, values: Any) -> None:
    known = _TABLES.get(table)
    if known is None or not isinstance(values, dict):
        raise BadConfig(f"{name}: no table [{table}]; there are: {', '.join((*_TABLES, 'sysctl'))}")
    for key, value in values.items():
        if key not in known:
            raise BadConfig(f"{name}: [{table}] has no {key}; it has: {', '.join(known)}")
        if not isinstance(value, known[key]):
            raise BadConfig(f"{name}: {table}.{key} is not {known[key].__name__}")


def _tuned(assignments: list[str], name: str, more: tuple[str, ...]) -> Settings:
    settings = Settings(weak_crypto=0)
    for where, texts in ((f"{name}: [sysctl]", assignments), ("-o", more)):
        for text in texts:
            try:
                settings = tree.assign(settings, text, is_boot=True).settings
            except Refused as error:
                raise BadConfig(f"{where}: {error.why}") from error
    return settings
