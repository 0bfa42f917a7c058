"""What is tried with the peer: cases, and each as setkey(8) text for us and as ip-xfrm(8) commands for it.

A case has addresses of its own, 10.80.N.1 and .2 or fd80:N::1 and ::2, so that all stand at once: one script, one batch, no flush
between them. Tunnels end at 192.0.2.1 and .2, or 2001:db8:0:1::1 and ::2, whatever is inside. Keys are made from the case's name.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

OUTER = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8:0:1::1", "2001:db8:0:1::2")}
REPLAY_PACKETS = 128


@dataclass(frozen=True, slots=True)
class Part:
    """One key: setkey's option, name and octets of key; ip-xfrm's word, name, and bits of ICV where it wants them."""

    option: str
    ours: str
    octets: int
    word: str
    theirs: str
    icv_bits: int = 0


@dataclass(frozen=True, slots=True)
class Suite:
    """What an SA does: its protocol and its parts."""

    name: str
    protocol: str
    parts: tuple[Part, ...]


def _aead(name: str, ours: str, octets: int, theirs: str) -> Suite:
    return Suite(name, "esp", (Part("-E", ours, octets, "aead", theirs, 128),))


def _pair(name: str, cipher: Part, integrity: Part) -> Suite:
    return Suite(name, "esp", (cipher, integrity))


def _mac(ours: str, octets: int, theirs: str, icv_bits: int) -> Part:
    return Part("-A", ours, octets, "auth-trunc", theirs, icv_bits)


SHA1 = _mac("hmac-sha1", 20, "hmac(sha1)", 96)
SHA256 = _mac("hmac-sha2-256", 32, "hmac(sha256)", 128)
SHA384 = _mac("hmac-sha2-384", 48, "hmac(sha384)", 192)
SHA512 = _mac("hmac-sha2-512", 64, "hmac(sha512)", 256)
XCBC = _mac("aes-xcbc-mac", 16, "xcbc(aes)", 96)
CMAC = _mac("aes-cmac", 16, "cmac(aes)", 96)
RIPEMD = _mac("hmac-ripemd160", 20, "hmac(rmd160)", 96)
CBC = Part("-E", "aes-cbc", 16, "enc", "cbc(aes)")
CBC256 = Part("-E", "aes-cbc", 32, "enc", "cbc(aes)")
CTR = Part("-E", "aes-ctr", 20, "enc", "rfc3686(ctr(aes))")
CAMELLIA = Part("-E", "camellia-cbc", 32, "enc", "cbc(camellia)")
TRIPLE = Part("-E", "3des-cbc", 24, "enc", "cbc(des3_ede)")
NULL = Part("-E", "null", 0, "enc", "ecb(cipher_null)")

ESP = (
    _aead("aes-gcm-16 128", "aes-gcm-16", 20, "rfc4106(gcm(aes))"),
    _aead("aes-gcm-16 256", "aes-gcm-16", 36, "rfc4106(gcm(aes))"),
    _aead("aes-ccm-16 128", "aes-ccm-16", 19, "rfc4309(ccm(aes))"),
    _aead("chacha20-poly1305", "chacha20-poly1305", 36, "rfc7539esp(chacha20,poly1305)"),
    _pair("aes-cbc 128, hmac-sha1", CBC, SHA1),
    _pair("aes-cbc 256, hmac-sha2-256", CBC256, SHA256),
    _pair("aes-ctr 128, hmac-sha2-256", CTR, SHA256),
    _pair("null, hmac-sha2-256", NULL, SHA256),
    _aead("aes-gmac 128", "aes-gmac", 20, "rfc4543(gcm(aes))"),
)
ESP_RARE = (
    _pair("camellia-cbc 256, hmac-sha2-512", CAMELLIA, SHA512),
    _pair("aes-cbc 128, aes-xcbc-mac", CBC, XCBC),
    _pair("aes-cbc 128, hmac-ripemd160", CBC, RIPEMD),
    _pair("aes-cbc 128, hmac-sha2-384", CBC, SHA384),
    _pair("aes-cbc 128, aes-cmac", CBC, CMAC),
    _pair("3des-cbc, hmac-sha1", TRIPLE, SHA1),
)
AH = tuple(Suite(part.ours, "ah", (part,)) for part in (SHA1, SHA256, XCBC, CMAC))
AH_RARE = tuple(Suite(part.ours, "ah", (part,)) for part in (SHA512, RIPEMD))
DEFLATE = Suite("deflate", "ipcomp", (Part("-C", "deflate", 0, "comp", "deflate"),))
GCM = ESP[0]
_TYPICAL = (GCM, ESP[5], AH[1], DEFLATE)


@dataclass(frozen=True, slots=True)
class Step:
    """One SA in each direction. outer: the family of a tunnel's ends; 0: transport mode."""

    suite: Suite
    outer: int = 0
    has_esn: bool = False
    first: int = 0  # sequence number last sent and seen, on both sides
    natt: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """One pair of addresses, and what is between them; the first step is the innermost."""

    number: int
    family: int
    steps: tuple[Step, ...]
    title: str = ""
    mode: str = ""

    @property
    def name(self) -> str:
        return f"{self.title}, {self.mode}, IPv{self.family}"

    @property
    def is_typical(self) -> bool:
        """Whether it stands for its kind where time is short: one suite of each protocol, and everything that is more than one SA."""
        return len(self.steps) > 1 or any(step.suite in _TYPICAL or step.natt or step.has_esn for step in self.steps)

    @property
    def ours(self) -> str:
        return self.address(1)

    @property
    def theirs(self) -> str:
        return self.address(2)

    def address(self, side: int) -> str:
        return f"10.80.{self.number}.{side}" if self.family == 4 else f"fd80:{self.number:x}::{side}"

    @property
    def bits(self) -> int:
        return 24 if self.family == 4 else 64

    def ends(self, step: Step) -> tuple[str, str]:
        return OUTER[step.outer] if step.outer else (self.ours, self.theirs)


def cases() -> tuple[Case, ...]:
    """All of them, numbered; the order is that of the table."""
    return tuple(Case(number, family, steps, title, mode) for number, (title, mode, family, steps) in enumerate(_listed(), 1))


_Listed = tuple[str, str, int, tuple[Step, ...]]


def _listed() -> Iterator[_Listed]:
    for suite in (*ESP, *ESP_RARE, *AH, *AH_RARE, DEFLATE):
        for family in (4, 6):
            title = f"{suite.protocol.upper() if suite.protocol != 'ipcomp' else 'IPComp'} {suite.name}"
            yield title, "transport", family, (Step(suite),)
            yield title, "tunnel", family, (Step(suite, family),)
    for family in (4, 6):
        yield "ESP aes-gcm-16 128", f"tunnel over IPv{10 - family}", family, (Step(GCM, 10 - family),)
        yield "AH hmac-sha2-256", f"tunnel over IPv{10 - family}", family, (Step(AH[1], 10 - family),)
        yield "ESP, then AH", "transport", family, (Step(GCM), Step(AH[1]))
        yield "ESP, then AH", "tunnel, transport", family, (Step(GCM, family), Step(AH[1]))
        yield "IPComp, then ESP", "transport", family, (Step(DEFLATE), Step(GCM))
        yield "IPComp, then ESP", "tunnel, transport", family, (Step(DEFLATE, family), Step(GCM))
        yield "IPComp, ESP, AH", "transport", family, (Step(DEFLATE), Step(ESP[4]), Step(AH[0]))
        yield "ESP in ESP", "tunnel in tunnel", family, (Step(GCM, family), Step(ESP[4], 10 - family))
        yield "ESP in UDP", "transport", family, (Step(GCM, natt=True),)
        yield "ESP in UDP", "tunnel", family, (Step(ESP[5], family, natt=True),)
        for suite in (GCM, ESP[5], AH[1]):
            yield f"{suite.protocol.upper()} {suite.name}, ESN past 2^32", "transport", family, (
                Step(suite, has_esn=True, first=0xFFFF_FFF0),
            )  # fmt: skip


# -- the two languages -----------------------------------------------------------------------------------------------------


def _key(case: Case, position: int, is_out: bool, part: Part) -> str:
    octets = b""
    while len(octets) < part.octets:
        octets += hashlib.sha256(f"{case.name} {position} {is_out} {part.ours} {len(octets)}".encode()).digest()
    return "0x" + octets[: part.octets].hex()


def _spi(case: Case, position: int, is_out: bool) -> int:
    return 0x1000 + case.number * 16 + position * 2 + is_out


def _reqid(case: Case, position: int) -> int:
    return case.number * 8 + position + 1


def _position_ends(case: Case, position: int) -> tuple[str, str]:
    """The ends of a step's SA: its own tunnel's; a transport step outside a tunnel protects that tunnel's packets."""
    ends = (case.ours, case.theirs)
    for step in case.steps[: position + 1]:
        if step.outer:
            ends = OUTER[step.outer]
    return ends


def setkey(case: Case) -> str:
    """SAs and policies on our side."""
    lines: list[str] = []
    for position, step in enumerate(case.steps):
        us, them = _position_ends(case, position)
        for is_out, src, dst in ((True, us, them), (False, them, us)):
            words = [f"add {src} {dst} {step.suite.protocol} {_spi(case, position, is_out):#x}"]
            words.append(f"-m {'tunnel' if step.outer else 'transport'} -u {_reqid(case, position)}")
            if step.suite.protocol != "ipcomp":
                words.append(f"-r {REPLAY_PACKETS // 8}")
            if step.suite.protocol == "ah" and "." in src:
                words.append("-align 8")
            if step.has_esn:
                words.append("-esn")
            if step.first:
                words.append(f"-seq {step.first}")
            if step.natt:
                words.append(f"-natt {src}[4500] {dst}[4500]")
            words += [f"{part.option} {part.ours} {_key(case, position, is_out, part) if part.octets else ''}" for part in step.suite.parts]
            lines.append(" ".join(words) + ";")
    for way, src, dst in (("out", case.ours, case.theirs), ("in", case.theirs, case.ours)):
        requests = []
        for position, step in enumerate(case.steps):
            ends = _position_ends(case, position) if way == "out" else _position_ends(case, position)[::-1]
            where = f"tunnel/{ends[0]}-{ends[1]}" if step.outer else "transport/"
            requests.append(f"{step.suite.protocol}/{where}/unique:{_reqid(case, position)}")
        lines.append(f"spdadd {src} {dst} any -P {way} ipsec {' '.join(requests)};")
    return "\n".join(lines) + "\n"


def xfrm(case: Case) -> str:
    """The same on the peer's side, for `ip -batch`."""
    lines: list[str] = []
    for position in range(len(case.steps)):
        us, them = _position_ends(case, position)
        for is_out, src, dst in ((True, us, them), (False, them, us)):
            lines.append("xfrm state add " + _state(case, position, is_out, (src, dst)))
    for way, src, dst in (("in", case.ours, case.theirs), ("out", case.theirs, case.ours)):
        words = [f"xfrm policy add src {src} dst {dst} dir {way} priority 100"]
        for position, step in enumerate(case.steps):
            ends = _position_ends(case, position) if way == "in" else _position_ends(case, position)[::-1]
            words.append(f"tmpl src {ends[0]} dst {ends[1]} proto {_proto(step)} reqid {_reqid(case, position)}")
            words.append(f"mode {'tunnel' if step.outer else 'transport'}")
            if way == "in" and step.suite.protocol == "ipcomp":
                words.append("level use")
        lines.append(" ".join(words))
        if any(step.natt and not step.outer for step in case.steps):  # the datagram itself meets the policy, too
            lines.append(f"xfrm policy add src {src} dst {dst} proto udp dport 4500 dir {way} priority 1 action allow")
    return "\n".join(lines) + "\n"


def _proto(step: Step) -> str:
    return "comp" if step.suite.protocol == "ipcomp" else step.suite.protocol


def _state(case: Case, position: int, is_out: bool, ends: tuple[str, str]) -> str:
    step = case.steps[position]
    words = [f"src {ends[0]} dst {ends[1]} proto {_proto(step)} spi {_spi(case, position, is_out):#x} reqid {_reqid(case, position)}"]
    words.append(f"mode {'tunnel' if step.outer else 'transport'}")
    flags = ["af-unspec"] if step.outer else []
    if step.has_esn:
        flags.append("esn")
    if step.suite.protocol != "ipcomp":
        words.append(f"replay-window {REPLAY_PACKETS}")
    if step.first:
        words.append(f"{'replay-seq' if is_out else 'replay-oseq'} {step.first:#x}")
    if flags:
        words.append("flag " + " ".join(flags))
    for part in step.suite.parts:
        key = _key(case, position, is_out, part) if part.octets else '""'
        words.append(f'{part.word} "{part.theirs}" {key if part.word != "comp" else ""} {part.icv_bits or ""}'.rstrip())
    if step.natt:
        words.append(f"encap espinudp 4500 4500 {'0.0.0.0' if case.family == 4 else '::'}")
    return " ".join(words)
