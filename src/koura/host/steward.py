"""The process inside a namespace of ours: it makes the interface there and keeps its addresses and routes as it is told.

    {"do": "raise", "interface": ..., "device": "auto|tun|veth", "mtu": ...,
     "group": who may ping, "is_native": ...}
        -> {"ok": true, "device": "tun"}, with the interface's descriptors (a TUN's queues, or AF_PACKET at the far end of a veth)
    {"do": "have", "addresses": [["10.1.1.5", 32], ...]}
    {"do": "sync", "wanted": [[address, bits, source], ...]}
    {"do": "change", "wanted": [[address, bits, source], ...], "unwanted": [[address, bits], ...]}

Whoever asks gets one answer for each; {"ok": false, "why": ...} when it cannot be done. The routes are host.routes', as in host mode:
blackholes and all. It ends when the other end of its socket closes.
"""

import json
import socket
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from koura import address
from koura.address import Prefix
from koura.errors import KouraError
from koura.host import ethernet, routes, tun
from koura.host.routes import Wanted
from koura.host.supers import Supers

MESSAGE_OCTETS = 1 << 20
_PING = Path("/proc/sys/net/ipv4/ping_group_range")


class NotDone(KouraError):
    """What the steward could not do, in a sentence."""


def serve(end: socket.socket) -> None:
    """Inside: until the other end closes."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_OCTETS)
    steward = _Steward()
    while octets := end.recv(MESSAGE_OCTETS):
        asked = json.loads(octets)
        descriptors: list[int] = []
        try:
            answer = steward.do(asked, descriptors)
        except OSError as error:
            answer = {"ok": False, "why": f"{error.filename or asked['do']}: {error.strerror}"}
        except NetlinkError as error:
            answer = {"ok": False, "why": f"{asked['do']}: {error.args[-1] if error.args else error}"}
        socket.send_fds(end, [json.dumps(answer).encode()], descriptors)


class _Steward:
    """One interface with its routes."""

    def __init__(self) -> None:
        self._routes: routes.Routes | None = None
        self._open: socket.socket | None = None
        self._mtu_octets = 0

    def do(self, asked: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Raises OSError, NetlinkError."""
        if asked["do"] == "raise":
            return self._raise(asked, descriptors)
        assert self._routes is not None
        if asked["do"] == "have":
            self._routes.raise_interface(self._mtu_octets, [(address.parse(text), bits) for text, bits in asked["addresses"]])
            return {"ok": True}
        self._routes.look()
        wanted = [Wanted(Prefix(address.parse(to), bits), address.parse(source) if source else b"") for to, bits, source in asked["wanted"]]
        if asked["do"] == "change":
            self._routes.change(wanted, [Prefix(address.parse(to), bits) for to, bits in asked["unwanted"]])
        else:
            self._routes.sync(wanted)
        return {"ok": True}

    def _raise(self, asked: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        name = asked["interface"]
        with IPRoute() as netlink:
            netlink.link("set", index=netlink.link_lookup(ifname="lo")[0], state="up")
        if _PING.exists():
            _PING.write_text(f"{asked['group']} {asked['group']}")  # ping(8) without rights
        answer: dict[str, Any] = {"ok": True, "device": "tun"}
        if asked["device"] != "veth":
            try:
                descriptors += tun.open_queues(name, is_native=asked["is_native"])
            except OSError as error:
                if asked["device"] == "tun":
                    raise
                answer["missing"] = f"{tun.DEVICE}: {error.strerror}"
        if not descriptors:
            answer["device"] = "veth"
            answer["far"], answer["near"] = self._veth(name, answer.get("missing", ""), descriptors)
        self._routes = table = routes.Routes(name)
        self._mtu_octets = int(asked["mtu"])
        table.raise_interface(self._mtu_octets, ())
        table.add_rules()
        if asked["is_native"] and answer["device"] == "tun":
            with closing(Supers()) as supers:
                supers.add(table.index, self._mtu_octets)
        return answer

    def _veth(self, name: str, missing: str, descriptors: list[int]) -> tuple[str, str]:
        """Raises OSError."""
        try:
            far = ethernet.pair(name)
        except NetlinkError as error:
            reason = f"no veth pair ({error.args[-1] if error.args else error})"
            raise OSError(error.code, f"{missing}; and {reason}" if missing else reason, "namespace") from error
        self._open = ethernet.open_far(far)
        descriptors.append(self._open.fileno())
        return far, _hardware(name)


def _hardware(name: str) -> str:
    """The hardware address of an interface, in hex."""
    with IPRoute() as netlink:
        index = netlink.link_lookup(ifname=name)[0]
        found = netlink.get_links(index)[0].get_attr("IFLA_ADDRESS")
    return str(found).replace(":", "")


class Steward:
    """The other end: asks, and waits for the answer."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_OCTETS)

    def ask(self, **asked: Any) -> tuple[dict[str, Any], list[int]]:
        """Raises NotDone."""
        self._end.send(json.dumps(asked).encode())
        octets, descriptors, _, _ = socket.recv_fds(self._end, MESSAGE_OCTETS, tun.QUEUES)
        answer = json.loads(octets) if octets else {"ok": False, "why": "the process in the namespace has gone"}
        if not answer["ok"]:
            raise NotDone(answer["why"])
        return answer, list(descriptors)

    def sync(self, wanted: Iterable[Wanted]) -> None:
        """Routes into the interface. Raises NotDone."""
        self.ask(do="sync", wanted=_told(wanted))

    def change(self, wanted: Iterable[Wanted], unwanted: Iterable[Prefix]) -> None:
        """Some of them. Raises NotDone."""
        self.ask(do="change", wanted=_told(wanted), unwanted=[(address.show(one.address), one.bits) for one in unwanted])


def _told(wanted: Iterable[Wanted]) -> list[tuple[str, int, str]]:
    return [(address.show(one.dst.address), one.dst.bits, address.show(one.source) if one.source else "") for one in wanted]
