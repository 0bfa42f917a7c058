"""The guard: what policy wants protected neither comes nor leaves in clear past the engine, which may be dead. nft(8).

A table of ours, compiled from the SPD in its order. In the prerouting hook, before routing and connection tracking:

    marks what is for this host and ours to open, so that a strict reverse path filter looks past our routes
    lets pass    what the TUN brings, IPsec itself, and what a policy says may come in clear
    drops        and counts, what a policy protects or refuses, and all else where the default is to discard

It stays when the engine and the keeper die; `koura down` takes it away. A fragment that shows no ports is dropped where any policy
with ports protects its addresses and protocol; later fragments of UDP to this host pass, for ESP in UDP: the first one, which shows
its ports, decides whether they ever become a packet. Not here: the policies of sockets, which `bypass` ports stand for.

In the postrouting hook, what leaves by another interface than the TUN without the engine's mark, where policy says anything but `none`:
our routes lead everything to the engine but what a program sends out of an interface that it names (SO_BINDTODEVICE, IP_PKTINFO), for
which the kernel asks no route, multicast and broadcast likewise, and what rules of others route. What was marked on its way in, and got
another destination (DNAT), loses the mark, or it would be forwarded past us.

What keeps links going (as host.frames.is_control) passes whatever policy says. Broadcasts and multicast are the business only of
policies that name them: a wider one has no peer who could open them.
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
_BEHIND_DNAT = -90
_PAST = "goto past"
_PORTED = (6, 17, 33, 132, 136)
_NOT_HERE = "nft is not here: install nftables, or start with --no-inbound-guard"


class NoGuard(KouraError):
    """nftables is not here, or refuses; says why."""


@dataclass(frozen=True, slots=True)
class Said:
    """What the guard is made from. rules: those of `rules_of` for the inbound SPD, in its order. settings: default policies.

    ports: of ESP in UDP. bypass: (protocol, port) of sockets that speak in clear whatever the SPD says. leaving: the rules of the
    outbound SPD, in its order. passes_control: what keeps links going passes.
    """

    rules: tuple[str, ...]
    settings: Settings
    interfaces: tuple[str, ...] = ()
    ports: tuple[int, ...] = (4500,)
    bypass: tuple[tuple[int, int], ...] = ()
    leaving: tuple[str, ...] = ()
    passes_control: bool = True


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
        *_control(said),
        *(f"  meta l4proto {protocol} th dport {port} accept" for protocol, port in said.bypass),
        *said.rules,
        *_undecided(said.settings, 'counter drop comment "default"'),
        " }", " chain elsewhere {", f"  type filter hook prerouting priority {_BEHIND_DNAT}; policy accept;",
        f"  meta mark {MARK:#x} fib daddr type != local meta mark set 0",
        " }", " chain past {", "  counter drop",
        " }", " chain leaving {", f"  type filter hook postrouting priority {_PRIORITY}; policy accept;",
        f"  meta mark {MARK:#x} accept",
        f"  oifname {{ {trusted} }} accept",
        *_control(said),
        *(f"  meta l4proto {protocol} th sport {port} accept" for protocol, port in said.bypass),
        *said.leaving,
        *_undecided(said.settings, _PAST),
    ]  # fmt: skip
    return "\n".join((*lines, " }", "}")) + "\n"


def _control(said: Said) -> Iterable[str]:
    """What keeps a link going."""
    yield "  icmpv6 type { 133, 134, 135, 136, 137 } ip6 hoplimit 255 accept"
    if said.passes_control:
        yield "  icmpv6 type { 130, 131, 132, 143 } ip6 hoplimit 1 accept"
        yield "  ip ttl 1 meta l4proto 2 accept"
        yield "  ip daddr 224.0.0.0/24 meta l4proto { 2, 88, 89, 103, 112 } accept"
        yield "  ip6 daddr ff02::/16 meta l4proto { 88, 89, 103, 112 } accept"
        yield "  meta nfproto ipv4 udp sport { 67, 68 } udp dport { 67, 68 } accept"
        yield "  ip6 saddr fe80::/10 udp sport { 546, 547 } udp dport { 546, 547 } accept"


def _undecided(settings: Settings, refusal: str) -> Iterable[str]:
    """What no policy is about."""
    for version in (4, 6):
        if settings.of(version).def_policy == 0:
            yield f"  meta nfproto ipv{version} {refusal}"


def rules_of(policy: Policy, number: int, settings: Settings) -> Iterable[str]:
    """What one policy says, if it says anything of packets in clear. number: its id, by which the operator finds it.

    Inbound each has a counter; of what would leave there is one for all (`past`), since there may be thousands of policies.
    """
    selector = policy.selector
    if selector is None:
        return
    is_inbound = policy.direction is Direction.INBOUND
    is_protected = policy.action is Action.IPSEC and (not is_inbound or _demands(policy, settings))
    if not is_protected and policy.action is not Action.DISCARD:
        yield f"  {_match(selector)} accept"
        return
    but = "" if is_inbound and not is_protected else _but_groups(selector.dst)
    refusal = f'counter drop comment "policy {number}"' if is_inbound else _PAST
    yield f"  {_match(selector)} {but}{refusal}"
    if selector.sport != ANY_PORT or selector.dport != ANY_PORT or selector.icmp_type is not None:
        later = "ip frag-off & 0x1fff != 0" if len(selector.src.address) == 4 else "frag frag-off != 0"
        refusal = f'counter drop comment "policy {number}, fragments"' if is_inbound else _PAST
        yield f"  {_addresses(selector)} {but}{later} {refusal}"


def _but_groups(dst: Prefix) -> str:
    """What a destination may have in it without naming it: multicast, and broadcasts of some network."""
    if dst.bits and is_multicast(dst.address):
        return ""
    if len(dst.address) == 16:
        return "fib daddr type != multicast " if dst.bits < 8 else ""
    return "fib daddr type != { broadcast, multicast } " if dst.bits < 32 else ""


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
