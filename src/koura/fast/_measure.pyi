"""Bursts of its own making, timed in nanoseconds of this thread's processor time."""

from array import array

from koura.fast._burst import Burst

class Measure:
    packets: int
    octets: int
    all_ns: int
    crypto_ns: int
    staged_packets: int
    def __init__(
        self, burst: Burst, template: bytes, dsts: bytes, places: array[int], sizes: array[int], at_ns: int, bursts: int
    ) -> None: ...
    def shares(self) -> tuple[float, ...]: ...
    def outbound(self, rounds: int) -> bool: ...
    def inbound(self, rounds: int) -> bool: ...

def memcpy_ns(octets: int, rounds: int) -> int: ...
