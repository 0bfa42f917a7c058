"""The guard: what policy wants protected does not come in clear, nor go to a group in clear, engine or no engine. nft(8).

A table of ours in the prerouting hook, before routing and connection tracking, compiled from the inbound SPD in its order:

    marks what is for this host and ours to open, so that a strict reverse path filter looks past our routes
    lets pass    what the TUN brings, IPsec itself, and what a policy says may come in clear
    drops        and counts, what a policy protects or refuses, and all else where the default is to discard

It stays when the engine and the keeper die; `koura down` takes it away. A fragment that shows no ports is dropped where any policy
with ports protects its addresses and protocol; later fragments of UDP to this host pass, for ESP in UDP: the first one, which shows
its ports, decides whether they ever become a packet. Not here: the policies of sockets, which `bypass` ports stand for.

What is sent to a multicast group or a broadcast address leaves by the interface that the sender chose, past all routes, and so past
the TUN: a second chain, in the output hook, drops it where an outbound policy names the group or the address and protects or refuses it.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from koura.address import Family, Prefix, family, is_multicast, show
from koura.errors import KouraError
from koura.host.routes import MARK
from koura.saindex import Direction, Protocol
from koura.settings import Settings
from koura.spd.policy import Action, Policy
from koura.spd.selector import ANY_PORT, ANY_PROTOCOL, Selector
from koura.traffic.levels import is_needed

TABLE = "koura"
_PRIORITY = -310  # before connection tracking, and before raw
_IKE_PORTS = (500, 4500)
_NEIGHBOURS = "icmpv6 type { 133, 134, 135, 136, 137 } ip6 hoplimit 255 accept"
_PORTED = (6, 17, 33, 132, 136)
_NOT_HERE = "nft is not here: install nftables, or start with --no-inbound-guard"


class NoGuard(KouraError):
    """nftables is not here, or refuses; says why."""


@dataclass(frozen=True, slots=True)
class Said:
    """What the guard is made from. rules: those of `rules_of` for the inbound SPD, in its order. settings: default policies.

    ports: of ESP in UDP. bypass: (protocol, port) of sockets that speak in clear whatever the SPD says. to_groups: the rules of those
    outbound policies that name a group (`names_group`), in the SPD's order.
    """

    rules: tuple[str, ...]
    settings: Settings
    interfaces: tuple[str, ...] = ()
    ports: tuple[int, ...] = (4500,)
    bypass: tuple[tuple[int, int], ...] = ()
    to_groups: tuple[str, ...] = ()


def compile_rules(said: Said) -> str:
    """The whole table as nft(8) reads it; loading it replaces the one before at once."""
    trusted = ", ".join(f'"{name}"' for name in ("lo", *said.interfaces))
    ports = ", ".join(str(port) for port in sorted({*_IKE_PORTS, *said.ports}))
    lines = [
        f"table inet {TABLE}", f"delete table inet {TABLE}", f"table inet {TABLE} {{", " chain guard {",
        f"  type filter hook prerouting priority {_PRIORITY}; policy accept;",
        f"  iifname {{ {trusted} }} accept",
        f"  fib daddr type local meta mark 0 meta mark set {MARK:#x}",
        "  meta l4proto { 50, 51, 108 } accept",
        "  ip6 nexthdr 51 accept",  # which nftables takes for an extension header
        "  frag nexthdr 51 accept",
        f"  fib daddr type local udp dport {{ {ports} }} accept",
        "  fib daddr type local meta l4proto 17 ip frag-off & 0x1fff != 0 accept",
        "  fib daddr type local meta l4proto 17 frag frag-off != 0 accept",
        f"  {_NEIGHBOURS}",
        *(f"  meta l4proto {protocol} th dport {port} accept" for protocol, port in said.bypass),
        *said.rules,
    ]  # fmt: skip
    for version in (4, 6):
        if said.settings.of(version).def_policy == 0:
            lines.append(f'  meta nfproto ipv{version} counter drop comment "default"')
    return "\n".join((*lines, " }", *_to_groups(said, trusted), "}")) + "\n"


def _to_groups(said: Said, trusted: str) -> Iterable[str]:
    """The chain for what is sent to a group; none where no policy names one."""
    if not said.to_groups:
        return
    yield " chain groups {"
    yield f"  type filter hook output priority {_PRIORITY}; policy accept;"
    yield "  fib daddr type != { broadcast, multicast } accept"
    yield f"  meta mark {MARK:#x} accept"
    yield f"  oifname {{ {trusted} }} accept"
    yield f"  {_NEIGHBOURS}"
    yield from said.to_groups
    yield " }"


def names_group(policy: Policy) -> bool:
    """Whether it is outbound to multicast, or to an address that some network's broadcast may have: all ones behind 30 bits or fewer."""
    if policy.selector is None or policy.direction is not Direction.OUTBOUND:
        return False
    prefix = policy.selector.dst
    is_host = prefix.bits == 8 * len(prefix.address) == 32
    return (prefix.bits > 0 and is_multicast(prefix.address)) or (is_host and prefix.address[3] & 3 == 3)


def rules_of(policy: Policy, number: int, settings: Settings) -> Iterable[str]:
    """What one policy says, if it says anything of packets in clear. number: its id, by which the operator finds it."""
    selector = policy.selector
    if selector is None:
        return
    match = _match(selector)
    if policy.action is Action.NONE or (policy.action is Action.IPSEC and not _demands(policy, settings)):
        yield f"  {match} accept"
        return
    yield f'  {match} counter drop comment "policy {number}"'
    if selector.sport != ANY_PORT or selector.dport != ANY_PORT or selector.icmp_type is not None:
        later = "ip frag-off & 0x1fff != 0" if len(selector.src.address) == 4 else "frag frag-off != 0"
        yield f'  {_addresses(selector)} {later} counter drop comment "policy {number}, fragments"'


def _demands(policy: Policy, settings: Settings) -> bool:
    """Whether a packet in clear is refused: some request is needed. IPComp never is, its packets may go uncompressed."""
    side = family(policy.selector.src.address) if policy.selector is not None else Family.IPV4
    return any(one.protocol is not Protocol.IPCOMP and is_needed(one, side, settings) for one in policy.requirements)


def _match(selector: Selector) -> str:
    words = [_addresses(selector)]
    if selector.protocol != ANY_PROTOCOL:
        words.append(f"meta l4proto {selector.protocol}")
    if selector.protocol in _PORTED or selector.protocol == ANY_PROTOCOL:
        if selector.sport != ANY_PORT:
            words.append(f"th sport {selector.sport}")
        if selector.dport != ANY_PORT:
            words.append(f"th dport {selector.dport}")
    name = "icmp" if selector.protocol == 1 else "icmpv6"
    if selector.icmp_type is not None:
        words.append(f"{name} type {selector.icmp_type}")
    if selector.icmp_code is not None:
        words.append(f"{name} code {selector.icmp_code}")
    return " ".join(words)


def _addresses(selector: Selector) -> str:
    name, version = ("ip", 4) if len(selector.src.address) == 4 else ("ip6", 6)
    words = [f"meta nfproto ipv{version}"]
    for side, prefix in (("saddr", selector.src), ("daddr", selector.dst)):
        if prefix.bits:
            words.append(f"{name} {side} {_text(prefix)}")
    return " ".join(words)


def _text(prefix: Prefix) -> str:
    return f"{show(prefix.address)}/{prefix.bits}"


def is_here() -> bool:
    """Whether nft(8) can be run."""
    return shutil.which("nft") is not None


def is_standing() -> bool:
    """Whether a table stands, of this daemon or an earlier one. False without nft(8)."""
    if not is_here():
        return False
    return subprocess.run(["nft", "list", "table", "inet", TABLE], capture_output=True, check=False).returncode == 0


def load(rules: str) -> None:
    """Put a compiled table in the place of the one before, at once. Raises NoGuard."""
    _nft(rules)


def hear_neighbours() -> None:
    """Mark ARP likewise: whom a strict filter holds to be elsewhere gets no answer. Raises NoGuard, also where nftables has no ARP."""
    chain = f" chain guard {{\n  type filter hook input priority 0; policy accept;\n  meta mark set {MARK:#x}\n }}\n"
    _nft(f"table arp {TABLE}\ndelete table arp {TABLE}\ntable arp {TABLE} {{\n{chain}}}\n")


def remove() -> None:
    """Take the tables away; those that are not there are fine. Raises NoGuard."""
    _nft(f"table inet {TABLE}\ndelete table inet {TABLE}\n")
    with contextlib.suppress(NoGuard):
        _nft(f"table arp {TABLE}\ndelete table arp {TABLE}\n")


class Loading:
    """A table on its way to the kernel, while its owner does other things."""

    def __init__(self, rules: str) -> None:
        """Raises NoGuard."""
        self._said = os.fdopen(os.memfd_create("nft says", os.MFD_CLOEXEC), "rb")
        try:
            with os.fdopen(os.memfd_create("rules", os.MFD_CLOEXEC), "w+") as text:
                text.write(rules)
                text.seek(0)
                self._process = subprocess.Popen(["nft", "-f", "-"], stdin=text, stdout=self._said, stderr=self._said)
            self._ended = os.pidfd_open(self._process.pid)
        except OSError as error:
            self._said.close()
            raise NoGuard(_NOT_HERE if isinstance(error, FileNotFoundError) else f"nft: {error.strerror}") from error

    def fileno(self) -> int:
        """Readable when it has come to its end."""
        return self._ended

    def finish(self) -> None:
        """Wait for the end. Raises NoGuard."""
        status = self._process.wait()
        os.close(self._ended)
        with self._said as said:
            said.seek(0)
            _judge(status, said.read().decode(errors="replace"))


def _nft(text: str) -> None:
    try:
        done = subprocess.run(["nft", "-f", "-"], input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise NoGuard(_NOT_HERE) from error
    _judge(done.returncode, done.stderr)


def _judge(status: int, said: str) -> None:
    if status:
        raise NoGuard(f"nftables refused the guard: {said.strip().splitlines()[0] if said.strip() else '?'}")
