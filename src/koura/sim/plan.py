"""Plan: what one seed stands for, drawn before anything happens. Swarm testing: each seed leaves most features out and mixes the rest.

    shape      HOSTS     a ------ r ------ b              transport or tunnel between the two hosts
               GATEWAYS  h -- a ----- r ------ b -- k     tunnels between two gateways
               NAT       a -- n ------------- b           ESP in UDP, a behind a NAT

`a` and `b` have the SAs; r is a router without IPsec whose links are where strangers sit. A plan is a value: the same seed gives
the same plan, and a story can say in a few lines what was different about a run.
"""

from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from koura.address import Family
from koura.entropy import Entropy
from koura.moment import NS_PER_S
from koura.sim.entropy import Seeded
from koura.sim.link import MILLISECOND_NS, Faults

T = TypeVar("T")
FAULTS_END_S = 10
_HASTE = 0x4A57E  # dice of its own, so that plans stay what they were
HIGH_SEQUENCE = (1 << 32) - 40
DEFAULT_LEVELS = tuple(
    (f"net.{tree}.{protocol}_{mode}_deflev", "2")
    for tree in ("inet.ipsec", "inet6.ipsec6") for protocol in ("esp", "ah") for mode in ("trans", "net")
)  # fmt: skip


class Shape(Enum):
    """Who there is."""

    HOSTS = "two hosts"
    GATEWAYS = "two gateways"
    NAT = "a host behind a NAT"


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One request of the policy, and how the SAs that serve it are made; `options` are the same at both ends."""

    protocol: str
    is_tunnel: bool
    level: str
    sa_mode: str
    reqid: int = 0
    algorithms: tuple[tuple[str, str, int], ...] = ()  # (option, name, octets of key)
    window_packets: int = 0
    options: str = ""
    first_options: str = ""  # of the SAs that are there from the start
    has_addresses: bool = True
    is_secret: bool = False

    @property
    def mode(self) -> str:
        return "tunnel" if self.is_tunnel else "transport"

    def __str__(self) -> str:
        names = "+".join(name for _, name, _ in self.algorithms)
        return f"{self.protocol}/{self.mode}/{self.level} {names} -m {self.sa_mode} {self.options} {self.first_options}".rstrip()


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that happens in the first half of a run."""

    at_ns: int
    what: str


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. `steps`: innermost first."""

    seed: int
    shape: Shape
    outer: Family
    inner: Family
    steps: tuple[StepPlan, ...]
    selector: str
    sysctls: tuple[tuple[str, str], ...]
    has_ledger: bool
    is_preinstalled: bool
    uses_larval: bool
    faults: Faults
    incidents: tuple[Incident, ...]
    datagrams: int
    transfer_octets: int
    mtu_octets: int
    exempts_icmp: bool = False  # a policy `none` for pings stands before the others
    has_discard: bool = False  # and one that discards datagrams to one port
    is_hasty: bool = False  # a receiver deletes the old SA as soon as there is a new one, while its sender goes on under it for a while

    @property
    def is_strict(self) -> bool:
        """Whether nothing of what the policy names may pass without some ESP or AH step."""
        return any(self._is_demanded(step) for step in self.steps)

    @property
    def is_secret(self) -> bool:
        """Whether nothing of what the policy names may be readable between the ends."""
        return any(self._is_demanded(step) and step.is_secret for step in self.steps)

    @property
    def is_once(self) -> bool:
        """Whether nothing of what the policy names may arrive twice."""
        return any(self._is_demanded(step) and step.window_packets for step in self.steps)

    @property
    def may_be_altered(self) -> bool:
        """Whether damage may go unnoticed: what was compressed and not authenticated can expand to other octets with the same checksum."""
        return any(step.protocol == "ipcomp" for step in self.steps) and not self.is_strict

    def _is_demanded(self, step: StepPlan) -> bool:
        level = step.level.split(":", maxsplit=1)[0]
        if level == "default" and set(DEFAULT_LEVELS) <= set(self.sysctls):
            level = "require"
        return step.protocol != "ipcomp" and level in ("require", "unique")

    def covers(self, protocol: str) -> bool:
        """Whether the policy names this kind of packet."""
        return self.selector in ("any", protocol) and not (self.exempts_icmp and protocol == "icmp")

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: {self.shape.value}, IPv{self.inner.value} in IPv{self.outer.value}, policy for {self.selector}"
            + (", none for ICMP" if self.exempts_icmp else "") + (", discard for one port" if self.has_discard else ""),
            *(f"  {number}. {step}" for number, step in enumerate(self.steps, 1)),
            f"  SAs {'from the start' if self.is_preinstalled else 'on demand'}"
            + (", larval first" if self.uses_larval else "") + (", deleted at once" if self.is_hasty else "")
            + (", numbers from a ledger" if self.has_ledger else ""),
        ]  # fmt: skip
        if self.sysctls:
            lines.append("  " + " ".join(f"{name}={value}" for name, value in self.sysctls))
        faults = self.faults
        lines.append(
            f"  links, per thousand: {faults.lost} lost, {faults.doubled} doubled, {faults.late} late, {faults.damaged} damaged,"
            f" {faults.marked} marked; MTU {self.mtu_octets}"
        )
        if self.incidents:
            lines.append("  " + ", ".join(f"{i.what} at {i.at_ns / NS_PER_S:.2f} s" for i in self.incidents))
        return "\n".join(lines)


# -- drawing ---------------------------------------------------------------------------------------------------------------

# (option, name, octets of key and salt). Weak ones are left out: they differ from these in nothing but strength.
_AEADS = (
    ("aes-gcm-16", 20), ("aes-gcm-16", 28), ("aes-gcm-16", 36), ("aes-gcm-12", 20), ("aes-gcm-8", 20), ("aes-ccm-16", 19),
    ("aes-ccm-8", 35), ("chacha20-poly1305", 36), ("aes-gmac", 20),
)  # fmt: skip
_CIPHERS = (("aes-cbc", 16), ("aes-cbc", 32), ("aes-ctr", 20), ("camellia-cbc", 24), ("3des-cbc", 24), ("null", 0))
_MACS = (
    ("hmac-sha2-256", 32), ("hmac-sha2-384", 48), ("hmac-sha2-512", 64), ("hmac-sha1", 20), ("aes-xcbc-mac", 16), ("aes-cmac", 16),
    ("hmac-md5", 16),
)  # fmt: skip
_READABLE = ("null", "aes-gmac")

# Sensible bundles, innermost first; T marks tunnel mode.
_OF_HOSTS = (
    "esp", "ah", "ipcomp", "ipcomp esp", "ipcomp ah", "esp ah", "ipcomp esp ah", "espT", "ahT", "ipcompT", "espT ah", "ipcompT esp",
    "ipcompT espT", "espT espT", "espT ahT", "ah espT", "ipcomp espT ah",
)  # fmt: skip
_OF_GATEWAYS = (
    "espT", "espT", "ahT", "ipcompT", "espT ah", "ipcompT esp", "ipcompT esp ah", "ipcompT espT", "espT espT", "espT ahT", "ipcompT ah",
)  # fmt: skip
_OF_NAT = ("esp", "espT")
_LEVELS = ("require", "require", "require", "unique", "use", "default")  # a NAT lets nothing but UDP through, so there nothing may go clear
_SYSCTLS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("net.inet.ipsec.dfbit", ("1", "2")),
    ("net.inet.ipsec.ecn", ("1", "2", "-1")),
    ("net.inet6.ipsec6.ecn", ("1",)),
    ("net.koura.pre_frag", ("1",)),
    ("net.koura.mss_clamp", ("1",)),
    ("net.key.preferred_oldsa", ("0",)),
    ("net.inet.ipsec.random_id", ("1",)),
    ("net.koura.ipcomp_threshold", ("0", "500")),
    ("net.inet.ipsec.ah_cleartos", ("0",)),
    ("net.key.blockacq_count", ("0", "1")),
)


def chance(dice: Entropy, percent: int) -> bool:
    """True that often."""
    return dice.below(100) < percent


def pick(dice: Entropy, things: tuple[T, ...]) -> T:
    """One of them."""
    return things[dice.below(len(things))]


def draw(seed: int) -> Plan:
    """The plan of a seed."""
    dice = Seeded(seed)
    shape = pick(dice, (Shape.HOSTS, Shape.GATEWAYS, Shape.GATEWAYS, Shape.NAT))
    words = pick(dice, {Shape.HOSTS: _OF_HOSTS, Shape.GATEWAYS: _OF_GATEWAYS, Shape.NAT: _OF_NAT}[shape]).split()
    outer = Family.IPV4 if shape is Shape.NAT else pick(dice, (Family.IPV4, Family.IPV6))
    crosses = words[0].endswith("T") and shape is not Shape.NAT and chance(dice, 40)
    inner = {4: Family.IPV6, 6: Family.IPV4}[outer] if crosses else outer
    has_ledger = chance(dice, 20)
    steps = _steps(dice, words, ("require", "unique") if shape is Shape.NAT else _LEVELS)
    selector = "any" if shape is Shape.NAT else pick(dice, ("any", "any", "any", "udp"))
    if shape is Shape.NAT:
        sysctls: list[tuple[str, str]] = [("net.koura.natt_roaming", "1")]
    else:
        sysctls = [("net.koura.acquire_hold", "0")] if chance(dice, 10) and not any("-ph" in step.options for step in steps) else []
    sysctls += [(name, pick(dice, values)) for name, values in _SYSCTLS if chance(dice, 12)]
    if inner > outer:
        # A DF outside would ask IPv6 inside for packets below its least MTU: such a tunnel cannot work, whoever builds it.
        sysctls = [pair for pair in sysctls if pair != ("net.inet.ipsec.dfbit", "1")]
    if chance(dice, 50) and any(step.level == "default" for step in steps):
        sysctls += DEFAULT_LEVELS
    faults = Faults(*(dice.below(most) if chance(dice, 50) else 0 for most in (100, 80, 200, 60, 200)))
    has_more = shape is not Shape.NAT
    return Plan(
        seed, shape, outer, inner, steps, selector, tuple(sysctls), has_ledger, chance(dice, 60),
        chance(dice, 40), faults, _incidents(dice, shape), 10 + dice.below(20), pick(dice, (0, 3000, 8000, 15000)),
        pick(dice, (1500, 1500, 1400, 1280, 9000)), has_more and chance(dice, 20), has_more and chance(dice, 30),
        chance(Seeded(seed ^ _HASTE), 30),
    )  # fmt: skip


def _steps(dice: Entropy, words: list[str], levels: tuple[str, ...]) -> tuple[StepPlan, ...]:
    """Requests of one protocol are told apart by their reqids."""
    level = pick(dice, levels)
    protocols = [word.removesuffix("T") for word in words]
    made = []
    for number, word in enumerate(words):
        protocol = protocols[number]
        is_double = protocols.count(protocol) > 1
        made.append(_step(dice, protocol, word.endswith("T"), "unique" if is_double else level, 100 + number))
    return tuple(made)


def _step(dice: Entropy, protocol: str, is_tunnel: bool, level: str, reqid: int) -> StepPlan:
    sa_mode = "any" if chance(dice, 20) else ("tunnel" if is_tunnel else "transport")
    has_addresses = is_tunnel or chance(dice, 50)
    reqid = reqid if level == "unique" else 0
    text = f"{level}:{reqid}" if reqid else level
    if protocol == "ipcomp":
        return StepPlan(protocol, is_tunnel, text, sa_mode, reqid, (("-C", "deflate", 0),), has_addresses=has_addresses)
    algorithms = _algorithms(dice, protocol)
    options, first = [], []
    window_packets = pick(dice, (64, 256, 1024, 2048, 4096, 0)) if chance(dice, 90) else 8
    if window_packets:
        options.append(f"-r {window_packets // 8}")
    if chance(dice, 30):
        options.append("-esn")
        if chance(dice, 50):
            first.append(f"-seq {HIGH_SEQUENCE}")
    elif chance(dice, 10):
        first.append(f"-seq {HIGH_SEQUENCE}")
    if chance(dice, 25):
        options.append(f"-ph {100 + dice.below(200)}")
    if chance(dice, 10):
        options.append(f"-lh {8 + dice.below(20)}")
    if protocol == "esp" and sa_mode == "tunnel" and chance(dice, 20):
        options.append(f"-tfc {pick(dice, (200, 700, 1400))}")
    if protocol == "esp" and chance(dice, 20):
        options.append(f"-f {pick(dice, ('random-pad', 'zero-pad', 'seq-pad'))}")
    if protocol == "ah" and chance(dice, 30):
        options.append("-align 8")
    is_secret = protocol == "esp" and algorithms[0][1] not in _READABLE
    return StepPlan(
        protocol, is_tunnel, text, sa_mode, reqid, algorithms, window_packets, " ".join(options), " ".join(first), has_addresses, is_secret
    )


def _algorithms(dice: Entropy, protocol: str) -> tuple[tuple[str, str, int], ...]:
    if protocol == "ah":
        return (("-A", *pick(dice, _MACS)),)
    if chance(dice, 50):
        return (("-E", *pick(dice, _AEADS)),)
    return (("-E", *pick(dice, _CIPHERS)), ("-A", *pick(dice, _MACS)))


def _incidents(dice: Entropy, shape: Shape) -> tuple[Incident, ...]:
    kinds = ["rekey", "flush", "mtu", "attack", "attack", "attack", "dummy", "policy", "tune", "switch"]
    if shape is Shape.NAT:
        kinds = ["rekey", "attack", "attack", "dummy", "nat", "policy", "tune", "switch"]
    drawn = [
        Incident(dice.below((FAULTS_END_S - 2) * 1000) * MILLISECOND_NS + NS_PER_S, pick(dice, tuple(kinds)))
        for _ in range(dice.below(7))
    ]
    return tuple(sorted(drawn, key=lambda incident: incident.at_ns))
