"""The anti-replay window as a set: slow, obvious, and of no code in common with `sadb.replay`. RFC 4303 §3.4.3, Appendix A2."""


class WindowOracle:
    """Every number ever accepted, in a set. `infer` tries all candidates instead of comparing halves."""

    def __init__(self, packets: int, *, has_esn: bool, highest: int = 0) -> None:
        self.packets = packets
        self.has_esn = has_esn
        self.seen: set[int] = set()
        self.floor = highest
        self.top = highest

    def infer(self, seq32: int) -> int:
        """The one candidate that lies in the window or the 2^32 - W numbers above it; with no window, the nearest one.

        RFC 4303 A2.1: the bottom of the window is top - W + 1, and 2^32 numbers from there on are told apart by 32 bits.
        """
        if not self.has_esn:
            return seq32
        reach = self.packets or 1 << 31
        bottom = self.top - reach + 1
        epoch = bottom >> 32
        found = [high << 32 | seq32 for high in (epoch, epoch + 1) if bottom <= (high << 32 | seq32) < bottom + (1 << 32)]
        assert len(found) == 1
        return found[0] if found[0] >= 0 else found[0] + (1 << 32)

    def accepts(self, seq64: int) -> bool:
        """Whether it may be accepted."""
        if seq64 >= 1 << 64:
            return False
        if not self.packets:
            return True
        if seq64 == 0 or (self.top and seq64 <= self.top - self.packets):
            return False
        return seq64 not in self.seen and not seq64 <= self.floor

    def commit(self, seq64: int) -> None:
        """It authenticated."""
        self.seen.add(seq64)
        self.top = max(self.top, seq64)
