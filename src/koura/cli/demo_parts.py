"""What both live demonstrations have in common: scripts, a ping, what is seen beside it, and what the engine counted of strangers."""

import re
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from koura.client.control import Control
from koura.client.tap import Packet, Tap
from koura.entropy import Entropy
from koura.replay import describe
from koura.sim.demo import Row

PINGS, SHOWN = 3, 4
PATIENCE_S = 15.0  # for what should take milliseconds; a busy machine may need it
PING = ("ping", "-n", "-c", str(PINGS), "-i", "0.2", "-W", "5")
_RECEIVED = re.compile(r"(\d+) received.*?(?:= [\d.]+/([\d.]+)/|$)", re.DOTALL)


class CannotShow(Exception):
    """This demonstration cannot be given on this machine, to this user; says what is missing."""


@dataclass(frozen=True, slots=True)
class Ends:
    """Two hosts: their addresses outside, as a script writes them, and inside. has_reqids: where both have one address outside."""

    a: str
    b: str
    inner_a: str
    inner_b: str
    has_reqids: bool = False

    def script(self, entropy: Entropy, protocol: str) -> dict[str, str]:
        """Each host's: an SA each way with a fresh key, a policy each way."""
        ways = ((self.a, self.b, self.inner_a, self.inner_b), (self.b, self.a, self.inner_b, self.inner_a))
        sas, policies = "", {"a": "", "b": ""}
        for number, (src, dst, inner_src, inner_dst) in enumerate(ways, 1):
            key, reqid = entropy.octets(20).hex(), f" -u {number}" if self.has_reqids else ""
            sas += f"add {src} {dst} {protocol} {0x1000 + number:#x} -m tunnel -r 32{reqid}\n    -E aes-gcm-16 0x{key};\n"
            level = f"unique:{number}" if self.has_reqids else "require"
            ends = "-".join(end.partition("[")[0] for end in (src, dst))
            for name in policies:
                way = "out" if (name == "a") == (number == 1) else "in"
                policies[name] += f"spdadd {inner_src} {inner_dst} any -P {way} ipsec\n    esp/tunnel/{ends}/{level};\n"
        return {name: sas + text for name, text in policies.items()}


def excerpt(script: str) -> str:
    """What of a script is shown: everything, with its keys cut short."""
    return re.sub(r"(0x[0-9a-f]{4})[0-9a-f]{30,}", r"\1...", script).rstrip()


def ping(words: Sequence[str]) -> Row:
    done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    found = _RECEIVED.search(done.stdout)
    count = int(found.group(1)) if found is not None else 0
    shown = f"{count} answers" + (f", {found.group(2)} ms on average" if found is not None and found.group(2) else "")
    detail = "" if count == PINGS else " ".join((done.stderr or done.stdout).split())[-200:]
    return Row(" ".join(words[-len(PING) - 1 :]).replace("-n ", ""), shown, detail, count == PINGS)


@dataclass(slots=True)
class Sight:
    """Lines about packets in clear and on the wire, in their order."""

    clear: list[str]
    wire: list[str]

    def shown(self, by: str) -> str:
        """Side by side: the first packets as both see them. by: what showed them."""
        lines = [by]
        for number in range(min(SHOWN, max(len(self.clear), len(self.wire)))):
            for name, seen in (("enc0", self.clear), ("wire", self.wire)):
                if number < len(seen):
                    lines.append(f"{name}  {seen[number]}")
        return "\n".join(lines)


class Look:
    """An engine's own tap: what `koura capture` shows, with the octets of what is on the wire."""

    def __init__(self, directory: Path) -> None:
        self._control = Control(directory)
        self._tap = Tap(self._control)
        self._packets: Iterator[Packet] = self._tap.packets()

    def __enter__(self) -> "Look":
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._tap.close()
        self._control.close()

    def take(self, count: int, patience_s: float = PATIENCE_S) -> tuple[Sight, list[Packet]]:
        """Until `count` packets were seen in each form."""
        sight, wire = Sight([], []), list[Packet]()
        deadline = time.monotonic() + patience_s
        while min(len(sight.clear), len(sight.wire)) < count:
            if not select.select([self._tap], [], [], max(0.0, deadline - time.monotonic()))[0]:
                break
            packet = next(self._packets, None)
            if packet is None:
                break
            (sight.wire if packet.is_wire else sight.clear).append(describe.packet(packet.octets))
            wire += [packet] if packet.is_wire else []
        return sight, wire


def counters(directory: Path) -> dict[str, int]:
    """netstat -s of ESP at one engine."""
    with Control(directory) as control:
        found = control.ask("stat", protocol="esp", json=True)["counters"]
    assert isinstance(found, dict) and isinstance(found["esp"], dict)
    return {name: int(str(value)) for name, value in found["esp"].items()}


def report(directory: Path) -> str:
    """What `koura stat -p esp` says, without what is zero."""
    with Control(directory) as control:
        return "\n".join(line.strip() for line in str(control.ask("stat", protocol="esp", nonzero=True)["text"]).splitlines()[1:])


def strike(what: str, hit: Callable[[], object], count: Callable[[], int], refused: str, detail: str) -> Row:
    """A stranger's packet; it must be refused, and counted once."""
    before = count()
    hit()
    deadline = time.monotonic() + PATIENCE_S
    while count() == before and time.monotonic() < deadline:
        select.select([], [], [], 0.02)
    after = count()
    is_good = after == before + 1
    return Row(what, refused if is_good else f"NOT REFUSED ({before} before, {after} after)", detail if is_good else "", is_good)


def renumbered(esp: bytes) -> bytes:
    """The same packet with a number of its own: nobody without the key can seal it."""
    return esp[:4] + (int.from_bytes(esp[4:8], "big") + 500).to_bytes(4, "big") + esp[8:]
