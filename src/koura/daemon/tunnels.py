"""Virtual tunnel interfaces in the keeper, which may make them: if_ipsec(4), M22. docs/tunnels.md.

Each is a persistent TUN with its addresses; what the host's routing sends there leaves under the SA of its reqid, between its ends. Its
descriptors go to every engine (handover): several queues where native I/O reads them, one where there are many tunnels.
They come and go while the daemon runs, and none but the one that goes notices.
A tunnel is the file's (koura.toml) or a person's (`koura tunnel add`); reading the file again touches only its own.
"""

import os
import socket
import syslog
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from koura import address, control
from koura.control import Value
from koura.daemon import configfile, ends
from koura.daemon.config import BadConfig, TunnelConfig
from koura.daemon.handover import Handover
from koura.daemon.network import Log, Network
from koura.errors import Errno, Refused
from koura.host import tun

MOST_TUNNELS = 4096
MOST_WITH_QUEUES = 256  # of so many tunnels each has several queues: descriptors are limited


@dataclass(frozen=True, slots=True)
class _Standing:
    """One that is there."""

    config: TunnelConfig
    index: int
    is_of_file: bool


class Tunnels:
    """All of one daemon."""

    def __init__(self, handover: Handover, network: Network, log: Log) -> None:
        self._handover = handover
        self._network = network
        self._log = log
        self._netlink = IPRoute()
        self._standing: dict[str, _Standing] = {}

    def sync(self, wanted: Iterable[TunnelConfig]) -> None:
        """Make the file's tunnels these. Raises Refused; what could be done until then is done."""
        fresh = {one.name: one for one in wanted}
        before = set(self._standing)
        try:
            for name, standing in list(self._standing.items()):
                if standing.is_of_file and fresh.get(name) != standing.config:
                    self._remove(name)
            for name, one in fresh.items():
                if name not in self._standing:
                    self._add(one, is_of_file=True)
        finally:
            if self._standing.keys() != before:
                self._tell_network()

    def do(self, verb: str, asked: Mapping[str, Any]) -> dict[str, Value]:
        """A verb of the control socket. Raises Refused."""
        if verb == "tunnel-list":
            return control.accepted(tunnels=self.rows())
        if verb == "tunnel-del":
            self.remove(asked["name"])
            return control.accepted()
        try:
            config = configfile.tunnel(asked)
        except BadConfig as error:
            raise Refused(Errno.EINVAL, str(error)) from error
        self.add(config)
        return control.accepted()

    def add(self, config: TunnelConfig) -> None:
        """Raises Refused, with nothing left behind."""
        self._add(config, is_of_file=False)
        self._tell_network()

    def _add(self, config: TunnelConfig, *, is_of_file: bool) -> None:
        if config.name in self._standing:
            raise Refused(Errno.EEXIST, f"there is a tunnel {config.name}")
        twin = next((one for one in self._standing.values() if one.config.reqid == config.reqid), None)
        if twin is not None:
            raise Refused(Errno.EEXIST, f"reqid {config.reqid} is that of {twin.config.name}")
        if len(self._standing) >= MOST_TUNNELS:
            raise Refused(Errno.ENOBUFS, f"there are {MOST_TUNNELS} tunnels already")
        descriptors: list[int] = []
        is_native = ends.is_native()
        try:
            most = tun.QUEUES if len(self._standing) < MOST_WITH_QUEUES else 1
            descriptors = tun.open_queues(config.name, is_persistent=True, is_native=is_native, most=most)
            index = self._raise(config)
        except (OSError, NetlinkError) as error:
            for descriptor in descriptors:
                os.close(descriptor)
            if descriptors:
                self._drop(config.name)
            raise Refused(Errno.EIO, f"{config.name}: {error.args[-1]}") from error
        self._network.fit(index, config.mtu_octets)
        self._standing[config.name] = _Standing(config, index, is_of_file)
        said = {"do": "tunnel", "name": config.name, "index": index, "reqid": config.reqid, "is_native": is_native,
                "local": address.show(config.local), "remote": address.show(config.remote)}  # fmt: skip
        self._handover.stand(_key(config.name), said, *descriptors)

    def remove(self, name: str) -> None:
        """Raises Refused."""
        if name not in self._standing:
            raise Refused(Errno.ENOENT, f"there is no tunnel {name}")
        self._remove(name)
        self._tell_network()

    def _remove(self, name: str) -> None:
        self._network.fit(self._standing.pop(name).index, 0)
        self._handover.fall(_key(name), {"do": "tunnel-gone", "name": name})
        self._drop(name)

    def rows(self) -> list[Value]:
        """What `koura tunnel list` shows."""
        return [
            {**_texts(one.config), "index": one.index, "is_of_file": one.is_of_file}
            for _, one in sorted(self._standing.items())
        ]  # fmt: skip

    def close(self) -> None:
        """`koura down`: the interfaces go, and then what the network has of them."""
        for name in list(self._standing):
            self._remove(name)
        self._tell_network()
        self._netlink.close()

    def _raise(self, config: TunnelConfig) -> int:
        """Up, with MTU and addresses; its index. Raises NetlinkError."""
        index = socket.if_nametoindex(config.name)
        tun.keep_addresses(config.name)
        self._netlink.link("set", index=index, mtu=config.mtu_octets, state="up")
        for one, bits in config.addresses:
            options = {"flags": 0x02} if len(one) == 16 else {}  # IFA_F_NODAD: nobody else is there
            self._netlink.addr("replace", index=index, address=address.show(one), prefixlen=bits, **options)
        return index

    def _drop(self, name: str) -> None:
        try:
            self._netlink.link("del", ifname=name)
        except NetlinkError as error:
            self._log(syslog.LOG_ERR, f"{name}: {error.args[-1]}")

    def _tell_network(self) -> None:
        self._network.trust(tuple(self._standing))


def _key(name: str) -> str:
    return f"tunnel/{name}"


def _texts(config: TunnelConfig) -> dict[str, Value]:
    found: dict[str, Value] = asdict(config)
    found["local"], found["remote"] = address.show(config.local), address.show(config.remote)
    found["addresses"] = [f"{address.show(one)}/{bits}" for one, bits in config.addresses]
    return found
