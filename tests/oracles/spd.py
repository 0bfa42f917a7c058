"""The SPD as a list that is walked: slow, obvious, and the judge of the tuple space search."""

from dataclasses import dataclass, field

from koura.spd.selector import Flow, Selector


@dataclass
class ListSpd:
    """(priority, insertion, selector), walked in order; the answer is the insertion number of the first that covers the flow."""

    rows: list[tuple[int, int, Selector]] = field(default_factory=list)

    def add(self, priority: int, insertion: int, selector: Selector) -> None:
        self.rows.append((priority, insertion, selector))
        self.rows.sort(key=lambda row: row[:2])

    def remove(self, selector: Selector) -> None:
        self.rows = [row for row in self.rows if row[2] != selector]

    def match(self, flow: Flow) -> int | None:
        return next((insertion for _, insertion, selector in self.rows if covers(selector, flow)), None)


def covers(selector: Selector, flow: Flow) -> bool:
    """RFC 4301 §4.4.1.1, written out once more, on strings of bits."""
    return (
        _bits(flow.src).startswith(_bits(selector.src.address)[: selector.src.bits])
        and _bits(flow.dst).startswith(_bits(selector.dst.address)[: selector.dst.bits])
        and len(flow.src) == len(selector.src.address)
        and len(flow.dst) == len(selector.dst.address)
        and selector.protocol in (255, flow.protocol)
        and selector.sport in (0, flow.sport)
        and selector.dport in (0, flow.dport)
        and (selector.icmp_type is None or selector.icmp_type == flow.sport)
        and (selector.icmp_code is None or selector.icmp_code == flow.dport)
    )


def _bits(address: bytes) -> str:
    return "".join(f"{octet:08b}" for octet in address)
