"""Demo: four machines, a setkey script for each, and what crosses the wire. A pure computation: `koura demo` prints it.

    h ------- a ======= the internet ======= b ------- k
 10.1.0.1  198.51.100.1                203.0.113.1  10.2.0.1

Each act is a world of its own: scripts are run, traffic is sent, strangers strike, and rows say what came of it. A row that is not
as it must be says so (`is_good`), so that the demonstration cannot show what did not happen.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from koura.address import Prefix, parse
from koura.moment import Moment
from koura.reasons import BY_NAME
from koura.sim import ip
from koura.sim.entropy import Seeded
from koura.sim.link import MILLISECOND_NS, End, Link, flip
from koura.sim.node import Node
from koura.sim.parts import Interface, Route, Seen, What
from koura.sim.transfer import Tcp, transfer
from koura.sim.world import Frame, World
from koura.stack import Stack
from koura.traffic.outcome import Deliver, Discard
from koura.wire import icmp
from koura.wire.summary import summarise

START = Moment.of_s(1_800_000_000)
H, A, B, K = parse("10.1.0.1"), parse("198.51.100.1"), parse("203.0.113.1"), parse("10.2.0.1")
PINGS, TRANSFER_OCTETS, DATAGRAM_OCTETS, PORT = 3, 60000, 20000, 7000
PAYLOAD_OCTETS = 56 * 2 * PINGS + TRANSFER_OCTETS + DATAGRAM_OCTETS
_TEXT = b"It was the best of packets, it was the worst of packets, it was the age of keys. "
_EVERYWHERE = Prefix(bytes(4), 0)
_NAMES = {50: "ESP", 51: "AH", 108: "IPComp", 1: "ICMP", 6: "TCP", 17: "UDP", 4: "IP"}


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was tried, and what came of it; `detail` explains it."""

    what: str
    result: str
    detail: str = ""
    is_good: bool = True


@dataclass(slots=True)
class Act:
    """One scene: what it shows, the lines of the scripts that matter, the rows, and files to look into."""

    title: str
    sentence: str
    excerpt: str
    rows: list[Row] = field(default_factory=list)
    captures: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    scripts: dict[str, str] = field(default_factory=dict)


# -- the scripts -----------------------------------------------------------------------------------------------------------


def _key(name: str, octets: int) -> str:
    """A key for the demonstration: anybody can compute it."""
    return "0x" + Seeded(sum(name.encode())).octets(octets).hex()


def _both_ways(line: str, src: str, dst: str, spis: tuple[int, int]) -> str:
    """An SA each way; `line` has {src} {dst} {spi} {key20} {key32}."""
    made = []
    for here, there, spi in ((src, dst, spis[0]), (dst, src, spis[1])):
        made.append(line.format(src=here, dst=there, spi=f"{spi:#x}", key20=_key(f"e{spi}", 20), key32=_key(f"a{spi}", 32)))
    return "\n".join(made) + "\n"


def _policies(near: str, far: str, is_near: bool, requests: str, ends: tuple[str, str]) -> str:
    """A policy each way; `requests` has {src} and {dst} for the ends of the protection."""
    lines = requests.replace(" ", "\n    ")
    out, back = lines.format(src=ends[0], dst=ends[1]), lines.format(src=ends[1], dst=ends[0])
    here, there = ("out", "in") if is_near else ("in", "out")
    return (
        f"spdadd {near} {far} any -P {here} ipsec\n    {out};\n"
        f"spdadd {far} {near} any -P {there} ipsec\n    {back};\n"
    )  # fmt: skip


_ESP = "add {src} {dst} esp {spi} -m tunnel -r 32\n    -E aes-gcm-16 {key20};"
_ESP_TRANSPORT = _ESP.replace("-m tunnel", "-m transport")
_AH = "add {src} {dst} ah {spi} -m transport -r 32\n    -A hmac-sha2-256 {key32};"
_IPCOMP = "add {src} {dst} ipcomp {spi} -m transport -C deflate;"
_A, _B, _NEAR, _FAR = "198.51.100.1", "203.0.113.1", "10.1.0.0/24", "10.2.0.0/24"
_NOTHING = "# This machine knows nothing of IPsec.\nflush;\nspdflush;\n"
_FRESH = "flush;\nspdflush;\n"


def _tunnel_scripts(requests: str, *sas: str) -> dict[str, str]:
    made = {"h": _NOTHING, "k": _NOTHING}
    for name in ("a", "b"):
        made[name] = _FRESH + "".join(sas) + _policies(_NEAR, _FAR, name == "a", requests, (_A, _B))
    return made


def _host_scripts(requests: str, *sas: str) -> dict[str, str]:
    made = {"a": _NOTHING, "b": _NOTHING}
    for name in ("h", "k"):
        made[name] = _FRESH + "".join(sas) + _policies("10.1.0.1", "10.2.0.1", name == "h", requests, ("10.1.0.1", "10.2.0.1"))
    return made


# -- the stage -------------------------------------------------------------------------------------------------------------


class Stage:
    """The four machines, with their scripts run, and all that is seen of them."""

    def __init__(self, scripts: Mapping[str, str]) -> None:
        self.world = World(Seeded(1), START)
        self.nodes: dict[str, Node] = {}
        self.seen: list[Seen] = []
        self.wire: list[Frame] = []
        self.inside: list[Frame] = []
        for name, address, others in (("h", H, ()), ("a", A, (H,)), ("b", B, (K,)), ("k", K, ())):
            self._node(name, address, others)
        for near, far, is_outside in (("h out", "a in", False), ("a out", "b out", True), ("b in", "k out", False)):
            delay_ns = 5 * MILLISECOND_NS if is_outside else MILLISECOND_NS // 2
            self.world.connect(Link(f"{near[0]}-{far[0]}", End(*near.split()), End(*far.split()), delay_ns, is_outside))
        self.world.watch_frame.append(lambda frame: (self.wire if frame.link.is_outside else self.inside).append(frame))
        for name, text in scripts.items():
            refused, _ = self.nodes[name].setkey(text, START)
            assert not refused, refused[0].fault

    def _node(self, name: str, address: bytes, others: tuple[bytes, ...]) -> None:
        faces = [Interface("out", ((address, 24),))] + [Interface("in", ((other[:-1] + b"\xfe", 24),)) for other in others]
        stack = Stack(Seeded(sum(name.encode())))
        self.nodes[name] = Node(
            name, faces, stack=stack, is_forwarding=bool(others), routes=(Route(_EVERYWHERE, "out"),), watch=self.seen.append, at=START
        )
        self.world.add(self.nodes[name])

    def later(self, seconds: float) -> None:
        """Let so much time go by."""
        self.world.run(self.world.at.after_s(seconds))

    def send(self, packet: bytes) -> None:
        """From h."""
        host = self.nodes["h"]
        self.world.put(host, host.send(packet, self.world.at))

    def strike(self, packet: bytes) -> str:
        """A stranger puts a packet on the wire, towards b; the Reason's name if b refused it, '' if not."""
        before = len(self.seen)
        outside = next(link for link in self.world.links if link.is_outside)
        self.world.inject(outside, End("a", "out"), packet)
        self.later(0.1)
        for seen in self.seen[before:]:
            if seen.node == "b" and seen.what is What.INBOUND and isinstance(seen.outcome, Discard):
                return seen.outcome.reason.name
        return ""


# -- what is tried ---------------------------------------------------------------------------------------------------------


def _ping(stage: Stage) -> Row:
    times = []
    for number in range(1, PINGS + 1):
        began = stage.world.at
        before = len(stage.seen)
        stage.send(ip.echo(H, K, 7, number))
        stage.later(1)
        for seen in stage.seen[before:]:
            if seen.node == "h" and seen.what is What.TAKEN and seen.packet[20] == icmp.ECHO_REPLY:
                times.append(seen.at.since_ns(began) / MILLISECOND_NS)
    shown = f"{len(times)} answers after {min(times, default=0):.0f} ms" if times else "no answer"
    return Row(f"ping from h to k, {PINGS} times", shown, is_good=len(times) == PINGS)


def _transfer(stage: Stage, data: bytes) -> Row:
    near, far = Tcp(stage.nodes["h"]), Tcp(stage.nodes["k"])
    sender, receiver = transfer(stage.world, near, far, ((H, K), (H, K)), 80, data)
    stage.later(20)
    is_good = sender.is_done and receiver.is_done and bytes(receiver.data) == data
    shown = f"arrived unchanged, in {sender.sent_segments} segments" if is_good else f"{len(receiver.data)} octets arrived"
    return Row(f"TCP transfer of {len(data)} octets", shown, is_good=is_good)


def _datagram(stage: Stage, data: bytes) -> Row:
    host = stage.nodes["k"]
    host.bind(PORT)
    before = sum(1 for frame in stage.inside if frame.sender.box == "b")
    stage.send(ip.datagram(H, K, 1234, PORT, data))
    stage.later(1)
    pieces = sum(1 for frame in stage.inside if frame.sender.box == "b") - before
    is_good = [came.payload for came in host.datagrams] == [data]
    shown = "arrived whole" + (f", from {pieces} fragments" if pieces > 1 else "")
    return Row(f"UDP datagram of {len(data)} octets", shown if is_good else "lost", is_good=is_good)


def _on_the_wire(stage: Stage) -> Row:
    octets = sum(len(frame.packet) for frame in stage.wire)
    layers = sorted({_layers(frame.packet) for frame in stage.wire} - {""})
    is_good = not any(_TEXT[:32] in frame.packet for frame in stage.wire)
    readable = "nothing of it readable" if is_good else "READABLE"
    shown = f"{len(stage.wire)} packets, {octets} octets ({PAYLOAD_OCTETS} put in)"
    return Row("between a and b", shown, f"{' and '.join(layers)}: {readable}", is_good)


def _layers(packet: bytes) -> str:
    """The headers of a packet, as far as they are in clear; '' for a later fragment, which has none."""
    summary = summarise(packet)
    if summary.is_fragment and not summary.is_first_fragment:
        return ""
    names = ["IP", _NAMES.get(summary.protocol, str(summary.protocol))]
    if summary.protocol == 51:
        names.append(_NAMES.get(packet[summary.offset], "?"))
    return " | ".join(names)


def _refusal(what: str, reason: str, wanted: str) -> Row:
    shown = f"refused: {reason}" if reason else "ACCEPTED"
    ending = BY_NAME.get(reason)
    detail = f"{ending.sentence} ({ending.rfc})" if ending is not None else ""
    return Row(what, shown, detail, reason == wanted)


def _traffic(act: Act, stage: Stage) -> None:
    act.rows.append(_ping(stage))
    act.rows.append(_transfer(stage, (_TEXT * (TRANSFER_OCTETS // len(_TEXT) + 1))[:TRANSFER_OCTETS]))
    act.rows.append(_datagram(stage, (_TEXT * (DATAGRAM_OCTETS // len(_TEXT) + 1))[:DATAGRAM_OCTETS]))
    act.rows.append(_on_the_wire(stage))


def _captures(stage: Stage, name: str) -> dict[str, list[tuple[int, bytes]]]:
    return {
        f"{name}-wire.pcap": [(frame.at.ns, frame.packet) for frame in stage.wire],
        f"{name}-inside.pcap": [(frame.at.ns, frame.packet) for frame in stage.inside if frame.link.name == "h-a"],
    }


# -- the acts --------------------------------------------------------------------------------------------------------------


def esp_tunnel() -> tuple[Act, Act]:
    """Two gateways and an ESP tunnel; then strangers on its wire."""
    requests = "esp/tunnel/{src}-{dst}/require"
    scripts = _tunnel_scripts(requests, _both_ways(_ESP, _A, _B, (0x1001, 0x1002)))
    act = Act("An ESP tunnel between the gateways a and b", "The hosts h and k know nothing of it.", _excerpt(scripts["a"], "out"))
    act.scripts = _named("1", scripts)
    stage = Stage(scripts)
    _traffic(act, stage)
    act.captures = _captures(stage, "1-esp-tunnel")
    return act, _strangers(stage)


def _strangers(stage: Stage) -> Act:
    act = Act("Strangers on the wire of the first tunnel", "Each packet b refuses has one Reason, and is counted under it.", "")
    genuine = next(frame.packet for frame in reversed(stage.wire) if frame.sender.box == "a" and len(frame.packet) > 200)
    before = len(stage.wire)
    number = int.from_bytes(genuine[24:28], "big")
    forged = genuine[:24] + (number + 5000).to_bytes(4, "big") + genuine[28:]
    strikes = (
        ("a genuine ESP packet, sent again", genuine, "esp.replay"),
        ("the same with a number of its own", forged, "esp.icv"),
        ("one bit of it changed and numbered anew", flip(forged, 8 * 60), "esp.icv"),
        ("an SPI that nobody agreed on", genuine[:20] + b"\0\0\x99\x99" + genuine[24:], "esp.nosa"),
        ("a clear packet that claims to be from h", ip.datagram(H, K, 1234, PORT, b"let me in"), "policy.in.clear"),
    )
    for what, packet, wanted in strikes:
        act.rows.append(_refusal(what, stage.strike(packet), wanted))
    wanted_counts = Counter(wanted for _, _, wanted in strikes)
    counts = {name: count for name, count in stage.nodes["b"].stack.counters.endings().items() if not name.startswith(("ok.", "held."))}
    counted = ", ".join(f"{name} {count}" for name, count in counts.items())
    is_good = counts == wanted_counts
    act.rows.append(Row("b's counters", "say the same" if is_good else "SAY SOMETHING ELSE", counted, is_good))
    act.captures = {"4-strangers-wire.pcap": [(frame.at.ns, frame.packet) for frame in stage.wire[before:]]}
    return act


def bundle() -> Act:
    """Host to host: IPComp, ESP, and AH over it."""
    requests = "ipcomp/transport//require esp/transport//require ah/transport//require"
    ends = ("10.1.0.1", "10.2.0.1")
    scripts = _host_scripts(
        requests, _both_ways(_IPCOMP, *ends, (0x2001, 0x2002)), _both_ways(_ESP_TRANSPORT, *ends, (0x2011, 0x2012)),
        _both_ways(_AH, *ends, (0x2021, 0x2022)),
    )  # fmt: skip
    act = Act(
        "AH over ESP over IPComp, from host to host",
        "Text is compressed, then encrypted, then the packet authenticated; a and b only route.",
        _excerpt(scripts["h"], "out"),
        scripts=_named("2", scripts),
    )  # fmt: skip
    stage = Stage(scripts)
    _traffic(act, stage)
    act.captures = _captures(stage, "2-bundle")
    return act


def manual_page() -> Act:
    """The policy that the BUGS section of the manual page says is refused."""
    requests = "esp/tunnel/{src}-{dst}/use ah/transport/{src}-{dst}/require"
    scripts = _tunnel_scripts(requests, _both_ways(_ESP, _A, _B, (0x3001, 0x3002)), _both_ways(_AH, _A, _B, (0x3011, 0x3012)))
    act = Act(
        "The bug of the manual page",
        "ipsec(4), BUGS: with this inbound policy good packets are refused, because the policy is about the inner packet and AH was"
        " on the outer one. Here each packet carries the history of what came off it.",
        _excerpt(scripts["b"], "in"), scripts=_named("3", scripts),
    )  # fmt: skip
    stage = Stage(scripts)
    _traffic(act, stage)
    delivered = [seen.outcome for seen in stage.seen if seen.node == "b" and seen.what is What.INBOUND]
    histories = {tuple(f"{one.protocol.name.lower()}/{'tunnel' if one.was_tunnel else 'transport'}" for one in outcome.history)
                 for outcome in delivered if isinstance(outcome, Deliver) and outcome.history}  # fmt: skip
    is_good = histories == {("ah/transport", "esp/tunnel")}
    shown = "; ".join(" then ".join(one) for one in sorted(histories)) or "none"
    act.rows.append(Row("history at b, outermost first", shown, is_good=is_good))
    act.captures = _captures(stage, "3-manual-page")
    return act


def _excerpt(script: str, direction: str) -> str:
    """The policy of one direction."""
    return next(f"spdadd{part.rstrip()}" for part in script.split("spdadd") if f"-P {direction} " in part)


def _named(number: str, scripts: Mapping[str, str]) -> dict[str, str]:
    """File names for the scripts that say something."""
    return {f"{number}-{name}.conf": text for name, text in scripts.items() if text != _NOTHING}


def play(curtain: Callable[[Act], None]) -> bool:
    """All acts in order, each handed to `curtain` as it ends; whether everything was as it must be."""
    first, last = esp_tunnel()
    is_good = True
    for act in (first, bundle(), manual_page(), last):
        curtain(act)
        is_good = is_good and all(row.is_good for row in act.rows)
    return is_good
