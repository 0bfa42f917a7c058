"""The tables of koura.toml, and what holds between them. docs/config.md shows them with their meaning.

    [daemon]   file = "/etc/koura/setkey.conf", state = "/var/lib/koura"
    [pfkey]    path = "...", mode = "0660", group = "ipsec"     who is in the group may do what root may
    [status]   group = "koura"
    [host]     interface = "koura0", mtu = 1500, addresses = ["10.0.0.1/24"], ports = [4500], guard = true, xdp = ["eth0"], control = true
    [[tunnel]] name = "ipsec0", reqid = 100, local = "192.0.2.1", remote = "192.0.2.2", addresses = ["10.9.0.1/30"], mtu = 1400
    [[bump]]   inside = "eth1", outside = "eth0", addresses = ["192.0.2.9"], control = true, guard = true, xdp = false
    [enc]      interface = "enc0", always = false
    [rootless] interface = "koura0", device = "auto", mtu = 1500, addresses = ["10.1.1.5/32"], port = 4500, keepalive = 20
    [sysctl]   "net.inet.ipsec.dfbit" = 2          tunables (daemon.tunables)
    [limits]   associations = 100000               the same as net.koura.limits.associations in [sysctl]
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any

from koura.daemon.config import (
    DEVICES,
    BumpConfig,
    DaemonConfig,
    EncConfig,
    HostConfig,
    PfkeyConfig,
    RootlessConfig,
    StatusConfig,
    TunnelConfig,
)
from koura.daemon.schema import Bad, Key, Kind, Table, Wrong
from koura.daemon.toml import Path
from koura.spd.policy import MAX_MANUAL_REQID

_INTERFACE_OCTETS = 15
_LEAST_MTU, _MOST_MTU = 576, 65535
_MOST_PORT = 65535
Made = Mapping[str, Any]  # what the tables made, by their names; lists where they may be many


def _text(value: str) -> str:
    if not value or "\0" in value:
        raise Bad("it is empty" if not value else "there is a NUL in it")
    return value


def _path(value: str) -> FilePath:
    return FilePath(_text(value))


def octal(value: str) -> int:
    """An octal mode. Raises Bad."""
    if not value or set(value) - set("01234567") or int(value, 8) > 0o777:
        raise Bad(f"{value!r} is no mode", "write it as 0600 or 0660")
    return int(value, 8)


def _interface(value: str) -> str:
    if not value or value in (".", "..") or len(value.encode()) > _INTERFACE_OCTETS or set(value) & set("/ %:\0"):
        raise Bad(f"{value!r} is no name of an interface", f"at most {_INTERFACE_OCTETS} letters and digits")
    return value


def _address(value: str) -> tuple[bytes, int]:
    """Packed, and the length of its prefix."""
    try:
        found = ipaddress.ip_interface(value)
    except ValueError as error:
        raise Bad(f"{value!r} is no address", 'write it as "10.0.0.1/24"') from error
    if "%" in value or found.ip.is_multicast or found.ip.is_unspecified:
        raise Bad(f"{value!r} is no address that an interface can have", 'write it as "10.0.0.1/24"')
    return found.packed, found.network.prefixlen


def _end(value: str) -> bytes:
    """Packed: one host's address."""
    packed, bits = _address(value)
    if bits != 8 * len(packed):
        raise Bad(f"{value!r} is a network, not an address", 'write one address, as "192.0.2.1"')
    return packed


def _between(least: int, most: int, example: str = "") -> Kind:
    def check(value: int) -> int:
        if not least <= value <= most:
            raise Bad(f"{value} is not between {least} and {most}")
        return value

    return Kind(f"a number of {least} to {most}", int, example or str(least), check)


def _port(least: int, more: str = "") -> Kind:
    def check(value: int) -> int:
        if not least <= value <= _MOST_PORT:
            raise Bad(f"{value}: a port is a number of 1 to {_MOST_PORT}{more}", "ESP in UDP has 4500")
        return value

    return Kind(f"a port, 1 to {_MOST_PORT}{more}", int, "4500", check, is_list=not more)


def _device(value: str) -> str:
    if value not in DEVICES:
        raise Bad(f"{value!r} is none of {', '.join(DEVICES)}")
    return value


TEXT = Kind("text", str, '"..."', _text)
PATH = Kind("a path", str, '"/etc/koura/..."', _path)
SCRIPTS = Kind("the path of a setkey script", str, '"/etc/koura/setkey.conf"', _path, is_list=True, is_one_or_list=True)
MODE = Kind("a mode in octal, as text", str, '"0660"', octal)
INTERFACE = Kind("the name of an interface", str, '"koura0"', _interface)
ADDRESSES = Kind("an address with the length of its prefix", str, '"10.0.0.1/24"', _address, is_list=True)
OWN = Kind("an address", str, '"192.0.2.9"', _end, is_list=True)
END = Kind("an address", str, '"192.0.2.1"', _end)
LINKS = Kind("the name of an interface", str, '"eth0"', _interface, is_list=True)
MTU = _between(_LEAST_MTU, _MOST_MTU, "1500")
YES_NO = Kind("true or false", bool, "true")


def _ends_fit(said: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    local, remote = said["local"], said["remote"]
    if len(local) != len(remote) or local == remote:
        yield "remote", "local and remote are two addresses of one family", "the outer packet goes from the one to the other"


TUNNEL = Table("tunnel", TunnelConfig, (
    Key("name", INTERFACE, is_needed=True),
    Key("reqid", _between(1, MAX_MANUAL_REQID, "100"), is_needed=True),
    Key("local", END, is_needed=True),
    Key("remote", END, is_needed=True),
    Key("addresses", ADDRESSES),
    Key("mtu", MTU, "mtu_octets"),
), is_many=True, needs="host", check=_ends_fit)  # fmt: skip

TABLES: tuple[Table, ...] = (
    Table("daemon", DaemonConfig, (Key("file", SCRIPTS, "files"), Key("state", PATH))),
    Table("pfkey", PfkeyConfig, (Key("path", PATH), Key("mode", MODE), Key("group", TEXT))),
    Table("status", StatusConfig, (Key("group", TEXT),)),
    Table("host", HostConfig, (
        Key("interface", INTERFACE),
        Key("mtu", MTU, "mtu_octets"),
        Key("addresses", ADDRESSES),
        Key("ports", _port(1)),
        Key("guard", YES_NO, "has_guard"),
        Key("xdp", LINKS),
        Key("control", YES_NO, "passes_control"),
    )),
    TUNNEL,
    Table("bump", BumpConfig, (
        Key("inside", INTERFACE, is_needed=True),
        Key("outside", INTERFACE, is_needed=True),
        Key("addresses", OWN),
        Key("control", YES_NO, "passes_control"),
        Key("guard", YES_NO, "has_guard"),
        Key("xdp", YES_NO, "has_xdp"),
    ), is_many=True),
    Table("enc", EncConfig, (Key("interface", INTERFACE), Key("always", YES_NO, "is_always")), needs="host"),
    Table("rootless", RootlessConfig, (
        Key("interface", INTERFACE),
        Key("device", Kind("a word", str, '"auto"', _device)),
        Key("mtu", MTU, "mtu_octets"),
        Key("addresses", ADDRESSES),
        Key("port", _port(0, ", or 0 for any that is free")),
        Key("keepalive", _between(0, 3600, "20"), "keepalive_s"),
    ), is_apart=True),
)  # fmt: skip


def clashes(made: Made) -> Iterator[Wrong]:
    """Two attachments that want the same thing: an interface's name, an address or its network, a reqid, a port."""
    names: dict[object, str] = {}
    if "host" in made and "bump" in made:
        yield Wrong(("bump",), "[host] and [[bump]] are for two daemons", "start another one, with another --socket", is_key=True)
    for path, table, key, value in _values(made):
        if key.kind is INTERFACE and not table.is_apart:
            yield from _twin(names, ("name", value), path, f"the interface {value!r}", "each needs a name of its own")
        elif key.kind is ADDRESSES and not table.is_apart:
            for number, (packed, bits) in enumerate(value):
                yield from _address_twin(names, (*path, number), packed, bits)
        elif key.kind is OWN:
            for number, packed in enumerate(value):
                words = f"the address {ipaddress.ip_address(packed)}"
                yield from _twin(names, ("address", packed), (*path, number), words, "one bump has it")
        elif table is TUNNEL and key.name == "reqid":
            yield from _twin(names, ("reqid", value), path, f"reqid {value}", "a tunnel's SAs are known by their reqid")
        elif table.name == "host" and key.name == "ports":
            for number, port in enumerate(value):
                yield from _twin(names, ("port", port), (*path, number), f"port {port}", "once is enough")


def _address_twin(names: dict[object, str], path: Path, packed: bytes, bits: int) -> Iterator[Wrong]:
    here = ipaddress.ip_interface((packed, bits))
    yield from _twin(names, ("address", packed), path, f"the address {here.ip}", "each needs an address of its own")
    if bits < 8 * len(packed) and not here.ip.is_link_local:
        owner = _show(path[:-1])
        first = names.setdefault(("network", here.network), owner)
        if first != owner:
            yield Wrong(path, f"{owner}: {here.network} is the network of {first} already", "one network is behind one interface")


def _twin(names: dict[object, str], what: object, path: Path, words: str, hint: str) -> Iterator[Wrong]:
    """A second one of what there can be one of."""
    if what in names:
        yield Wrong(path, f"{_show(path)}: {words} is that of {names[what]} already", hint)
    names.setdefault(what, _show(path))


def _values(made: Made) -> Iterator[tuple[Path, Table, Key, Any]]:
    """Every value of every table that could be made, defaults included, in the order of the tables."""
    for table in TABLES:
        found = made.get(table.name)
        rows: Iterable[tuple[Path, Any]] = [((table.name,), found)]
        if table.is_many:
            rows = [((table.name, number), one) for number, one in enumerate(found or ())]
        for path, one in rows:
            if one is not None:
                yield from (((*path, key.name), table, key, getattr(one, key.field or key.name)) for key in table.keys)


def _show(path: Path) -> str:
    """A path as a person writes it: tunnels count from 1."""
    words = ""
    for part in path:
        words += f"[{part + 1}]" if isinstance(part, int) else f"{'.' if words else ''}{part}"
    return words
