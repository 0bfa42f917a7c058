"""What a daemon is told at its start: koura.toml and the command line. The file's tables:

    [daemon]   file = "/etc/koura/setkey.conf"
    [pfkey]    path = "...", mode = "0660", group = "ipsec"     who is in the group may do what root may
    [status]   group = "koura"
    [host]     interface = "koura0", mtu = 1500, addresses = ["10.0.0.1/24"], ports = [4500], guard = true
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
from koura.sysctl import tree

STATUS_GROUP = "koura"
_INTERFACE_OCTETS = 15
_LEAST_MTU, _MOST_MTU = 576, 65535
_PORTS = 1 << 16
_TABLES: Mapping[str, Mapping[str, type]] = {
    "daemon": {"file": str},
    "pfkey": {"path": str, "mode": str, "group": str},
    "status": {"group": str},
    "host": {"interface": str, "mtu": int, "addresses": list, "ports": list, "guard": bool},
}


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

    @property
    def pfkey(self) -> Path:
        return self.pfkey_path or self.directory / place.PFKEY


def read(directory: Path, text: str = "", name: str = "", tunables: tuple[str, ...] = ()) -> Config:
    """The configuration in a TOML text, and `name=value` from the command line behind it. Raises BadConfig."""
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadConfig(f"{name}: {error}") from error
    wanted = said.pop("sysctl", {})
    for table, values in said.items():
        _check(name, table, values)
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
    )


def _host(name: str, said: Mapping[str, Any]) -> HostConfig:
    """Raises BadConfig."""
    host = HostConfig()
    interface = said.get("interface", host.interface)
    if not interface or len(interface.encode()) > _INTERFACE_OCTETS or set(interface) & set("/ %"):
        raise BadConfig(f"{name}: host.interface: {interface!r} is no name of an interface")
    mtu = said.get("mtu", host.mtu_octets)
    if not _LEAST_MTU <= mtu <= _MOST_MTU:
        raise BadConfig(f"{name}: host.mtu: {mtu} is not between {_LEAST_MTU} and {_MOST_MTU}")
    ports = tuple(said.get("ports", host.ports))
    if not all(isinstance(port, int) and 0 < port < _PORTS for port in ports):
        raise BadConfig(f"{name}: host.ports: a port is a number of 1 to {_PORTS - 1}")
    return HostConfig(interface, mtu, tuple(_address(name, text) for text in said.get("addresses", ())), ports, said.get("guard", True))


def _address(name: str, text: object) -> tuple[bytes, int]:
    try:
        found = ipaddress.ip_interface(str(text))
    except ValueError as error:
        raise BadConfig(f"{name}: host.addresses: {text!r} is no address; write it as 10.0.0.1/24") from error
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
